/* replay.c - runs the fuzz targets without a fuzzer, for `make test`: each seed, and OCSP_FUZZ_RUNS (default 4000)
 * mutations of the seeds in a fixed order.
 *
 * usage: fuzz-replay                      runs as a test program, with one test per target
 *        fuzz-replay --seeds TARGET DIR   writes the target's seeds to files, as libFuzzer's initial corpus
 *        fuzz-replay TARGET FILE...       runs these files, to debug a finding with any compiler and debugger
 *
 * An input that fails a check is saved as replay-finding in the directory $OCSP_FUZZ_KEEP (default: build).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_SEEDS 256

static testBytes seeds[MAX_SEEDS];
static int seed_count;
static const char *seed_dir; /* where keepFile writes */

static void keepHere(const char *name, const void *bytes, size_t size) {
    (void)name;
    fuzzCheck(seed_count < MAX_SEEDS);
    seeds[seed_count++] = testCopy(bytes, size);
}

static void keepFile(const char *name, const void *bytes, size_t size) {
    char *path = testPath(seed_dir, name);

    testWriteFile(path, bytes, size);
    free(path);
}

/* The state of a generator for mutations like libFuzzer's, of its own so that a failure can be reproduced. */
static unsigned byte_random;

static size_t mutateBytes(uint8_t *data, size_t size, size_t max) {
    size_t at = size ? fuzzRandom(&byte_random) % size : 0, n;

    switch (size ? fuzzRandom(&byte_random) % 5 : 4) {
    case 0: data[at] ^= (uint8_t)(1u << fuzzRandom(&byte_random) % 8); break;
    case 1: data[at] = (uint8_t)fuzzRandom(&byte_random); break;
    case 2: /* shorter */
        n = fuzzRandom(&byte_random) % (size - at) + 1;
        memmove(data + at, data + at + n, size - at - n);
        return size - n;
    case 3: return at; /* cut */
    default:           /* longer */
        if (size == max) break;
        memmove(data + at + 1, data + at, size - at);
        data[at] = (uint8_t)fuzzRandom(&byte_random);
        return size + 1;
    }
    return size;
}

static const uint8_t *running; /* the current input, saved by keepFinding if it crashes */
static size_t running_size;
static char finding[4096];

/* Signal handler: saves the current input, then dies of the signal. */
static void keepFinding(int number) {
    int fd = open(finding, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    if (fd >= 0 && write(fd, running, running_size) == (ssize_t)running_size) {
        (void)!write(2, "the input is saved in ", 22);
        (void)!write(2, finding, strlen(finding));
        (void)!write(2, "\n", 1);
    }
    signal(number, SIG_DFL);
    raise(number);
}

/* Runs one input, in a buffer of its exact size, so that a sanitizer detects an overread. */
static void runOne(const fuzzTarget *target, const uint8_t *bytes, size_t size) {
    testBytes copy = testCopy(bytes, size);

    running = copy.p;
    running_size = copy.n;
    signal(SIGABRT, keepFinding); /* each time, as cmocka sets its own handler during a test */
    target->one(copy.p, copy.n);
    testBytesFree(&copy);
}

/* Runs the seeds of a target, then OCSP_FUZZ_RUNS mutations of them. */
static void replay(const fuzzTarget *target) {
    static uint8_t data[FUZZ_MAX_BYTES];
    long runs = testEnvNumber("OCSP_FUZZ_RUNS", 4000), run;
    int i;

    target->seeds(keepHere);
    for (i = 0; i < seed_count; i++) runOne(target, seeds[i].p, seeds[i].n);
    byte_random = 1;
    for (run = 0; run < runs; run++) {
        const testBytes *seed = &seeds[run % seed_count];
        size_t size = seed->n;
        unsigned times = fuzzRandom(&byte_random) % 3 + 1;
        fuzzCheck(size <= sizeof(data));
        memcpy(data, seed->p, size);
        for (; times > 0; times--)
            size = target->mutate ? target->mutate(data, size, sizeof(data), fuzzRandom(&byte_random), mutateBytes)
                                  : mutateBytes(data, size, sizeof(data));
        runOne(target, data, size);
    }
    print_message("%s: %d seeds, %ld mutations\n", target->name, seed_count, runs);
    while (seed_count > 0) testBytesFree(&seeds[--seed_count]);
}

static void fuzz_http_replay(void **state) {
    (void)state;
    replay(&fuzz_http);
}

static void fuzz_response_replay(void **state) {
    (void)state;
    replay(&fuzz_response);
}

static void fuzz_certificate_replay(void **state) {
    (void)state;
    replay(&fuzz_certificate);
}

static void fuzz_cache_replay(void **state) {
    (void)state;
    replay(&fuzz_cache);
}

static void fuzz_directive_replay(void **state) {
    (void)state;
    replay(&fuzz_directive);
}

static void fuzz_peer_replay(void **state) {
    (void)state;
    replay(&fuzz_peer);
}

static void fuzz_chain_replay(void **state) {
    (void)state;
    replay(&fuzz_chain);
}

static void fuzz_nodes_replay(void **state) {
    (void)state;
    replay(&fuzz_nodes);
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fuzz_http_replay),        cmocka_unit_test(fuzz_response_replay),
        cmocka_unit_test(fuzz_certificate_replay), cmocka_unit_test(fuzz_cache_replay),
        cmocka_unit_test(fuzz_directive_replay),   cmocka_unit_test(fuzz_peer_replay),
        cmocka_unit_test(fuzz_chain_replay),       cmocka_unit_test(fuzz_nodes_replay),
    };
    const char *name = argc == 4 && strcmp(argv[1], "--seeds") == 0 ? argv[2] : argc > 1 ? argv[1] : NULL;
    const fuzzTarget *target = name ? fuzzFind(name) : NULL;
    const char *keep = getenv("OCSP_FUZZ_KEEP");
    const char *only = getenv("OCSP_TEST_ONLY");
    int i;

    if (only && *only) cmocka_set_test_filter(only);
    snprintf(finding, sizeof(finding), "%s/replay-finding", keep && *keep ? keep : "build");
    if (!name) return cmocka_run_group_tests(tests, NULL, NULL);
    if (!target || argc < 3) {
        fprintf(stderr, "usage: fuzz-replay [--seeds TARGET DIR | TARGET FILE...]\n");
        return 2;
    }
    if (name == argv[2]) {
        seed_dir = argv[3];
        target->seeds(keepFile);
        return 0;
    }
    for (i = 2; i < argc; i++) {
        testBytes bytes = testReadFile(argv[i]);
        runOne(target, bytes.p, bytes.n);
        testBytesFree(&bytes);
        printf("%s: nothing found\n", argv[i]);
    }
    return 0;
}
