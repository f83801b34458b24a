/* fault_inject.c - preloaded library that gives a server host names with chosen addresses, and a full disk.
 *
 * Names (scenario 4): the file $FAULT_NAMES has lines "NAME ADDRESS ADDRESS..."; for these names getaddrinfo returns
 * these addresses in that order, without a query.
 *
 * Full disk (scenario 16): while the file $FAULT_DISK_FULL exists, a write to a file whose path contains "/ocsp-", or to
 * a temporary file for one, fails with ENOSPC after half of its bytes, as on a disk that fills up.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef int getaddrinfoFunction(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **res) {
    getaddrinfoFunction *next = (getaddrinfoFunction *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("FAULT_NAMES");
    FILE *table = path != NULL && node != NULL ? fopen(path, "r") : NULL;
    char line[512];
    int found = 0;

    *res = NULL;
    while (table != NULL && fgets(line, sizeof(line), table) != NULL) {
        char *save = NULL;
        const char *word = strtok_r(line, " \n", &save);

        if (word == NULL || strcasecmp(word, node) != 0) continue;
        found = 1;
        struct addrinfo **tail = res;
        while ((word = strtok_r(NULL, " \n", &save)) != NULL) {
            /* glibc frees a list node by node, so a list may be joined from several results. */
            if (next(word, service, hints, tail) != 0) continue;
            while (*tail != NULL) tail = &(*tail)->ai_next;
        }
    }
    if (table != NULL) fclose(table);
    if (!found) return next(node, service, hints, res);
    return *res != NULL ? 0 : EAI_NONAME;
}

/* Whether writes to `fd` are to fail. */
static int diskIsFull(int fd) {
    const char *flag = getenv("FAULT_DISK_FULL");
    char link[64], path[4096];
    ssize_t n;

    if (flag == NULL || access(flag, F_OK) != 0) return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if ((n = readlink(link, path, sizeof(path) - 1)) <= 0) return 0;
    path[n] = '\0';
    return strstr(path, "/ocsp-") != NULL || strstr(path, "/.ocsp-") != NULL || strstr(path, "/temp-ocsp-") != NULL;
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (fd > 2 && diskIsFull(fd)) {
        if (len < 2) {
            errno = ENOSPC;
            return -1;
        }
        return syscall(SYS_write, fd, bytes, len / 2);
    }
    return syscall(SYS_write, fd, bytes, len);
}

/* Valkey 8.1 loads modules with RTLD_DEEPBIND, which would bind them to the real functions, not to these. */
void *dlopen(const char *file, int flags) {
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");

    return next(file, flags & ~RTLD_DEEPBIND);
}
