/* ocsp_env.c - clocks, randomness, network and disk behind one table, which tests and simulations replace.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <sys/stat.h>
#include <openssl/rand.h>

#ifdef __APPLE__
#define st_mtim st_mtimespec /* macOS lacks the name of POSIX 2008 */
#endif

static int64_t ocspWallMs(void) {
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t ocspMonoMs(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static uint32_t ocspRandom(void) {
    uint32_t value = UINT32_MAX / 2; /* if RAND_bytes fails: the middle of every jitter */

    (void)!RAND_bytes((unsigned char *)&value, sizeof(value));
    return value;
}

/* Hashes mtime, size, inode and device of a file. Returns 0 if there is none. Follows symbolic links, which Kubernetes
 * swaps. */
static uint64_t ocspFileSignature(const char *path) {
    struct stat st;
    uint64_t parts[5], signature = 1469598103934665603u;
    int i;

    if (stat(path, &st) != 0) return 0;
    parts[0] = (uint64_t)st.st_mtim.tv_sec;
    parts[1] = (uint64_t)st.st_mtim.tv_nsec;
    parts[2] = (uint64_t)st.st_size;
    parts[3] = (uint64_t)st.st_ino;
    parts[4] = (uint64_t)st.st_dev;
    for (i = 0; i < 5; i++) signature = (signature ^ parts[i]) * 1099511628211u; /* one step of FNV-1a */
    return signature | 1;
}

ocspEnv ocsp_env = {
    .wall_ms = ocspWallMs,
    .mono_ms = ocspMonoMs,
    .random = ocspRandom,
    .fetch = ocspFetch,
    .read_file = ocspReadFile,
    .file_signature = ocspFileSignature,
    .cache_load = ocspCacheLoad,
    .cache_store = ocspCacheStore,
    .cache_remove = ocspCacheRemove,
    .cache_prune = ocspCachePrune,
    .chain_supported = ocspChainSupported,
};

int64_t ocspNow(const ocspEnv *env) {
    return env->wall_ms() / 1000;
}

#endif /* OCSP_SUPPORTED */
