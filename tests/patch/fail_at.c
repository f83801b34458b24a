/* fail_at.c - a preloaded library that makes the Nth change of a directory fail, or ends the process there.
 *
 * FAIL_AT=N: the Nth rename or removal fails with ENOSPC, as on a full disk; removals of temporary files are not
 * counted. With FAIL_HARD set the process exits instead, as if it were killed.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failsHere(void) {
    static int calls;
    const char *at = getenv("FAIL_AT");

    if (at == NULL || ++calls != atoi(at)) return 0;
    if (getenv("FAIL_HARD") != NULL) _exit(99);
    errno = ENOSPC;
    return 1;
}

int rename(const char *from, const char *to) {
    int (*next)(const char *, const char *) = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");

    return failsHere() ? -1 : next(from, to);
}

int unlink(const char *path) {
    int (*next)(const char *) = (int (*)(const char *))dlsym(RTLD_NEXT, "unlink");

    return strstr(path, ".valkey-patch-") == NULL && failsHere() ? -1 : next(path);
}
