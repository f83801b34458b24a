/* fuzzer.c - the fuzz targets as one libFuzzer program: OCSP_FUZZ in the environment names the target. tests/fuzz/run
 * starts it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>

size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max);
int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed);

static const fuzzTarget *target;

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    const char *name = getenv("OCSP_FUZZ");

    (void)argc;
    (void)argv;
    target = fuzzFind(name ? name : "");
    if (!target) {
        fprintf(stderr,
                "set OCSP_FUZZ to a target: http, response, certificate, cache, directive, peer, chain or nodes\n");
        exit(2);
    }
    fuzzGetPki(); /* created here so that it does not count towards the first input's time and memory */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    target->one(data, size);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max, unsigned seed) {
    return target->mutate ? target->mutate(data, size, max, seed, LLVMFuzzerMutate) : LLVMFuzzerMutate(data, size, max);
}
