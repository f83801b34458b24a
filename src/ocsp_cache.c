/* ocsp_cache.c - responses on disk, so that after a restart the first handshake is stapled even if the responder is
 * down.
 *
 * One file per certificate, bare DER, readable with any tool. A cached response is not trusted: it is verified like one
 * from the network. A write failure is only a warning: what is in memory is stapled all the same.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OCSP_FILE_PREFIX "ocsp-"
#define OCSP_FILE_SUFFIX ".der"
#define OCSP_TEMP_SUFFIX \
    ".der.tmp-" /* followed by digits, not by the pid alone: servers in two containers may share directory and pid */
#define OCSP_HEX_LEN 64
#define OCSP_TEMP_KEEP 3600 /* seconds after which a temporary file must have been left by a kill */

/* Cleans the path of a directory or file for an error sentence. */
static const char *ocspShown(const char *path, char *clean, size_t size) {
    return ocspCleanText(clean, size, path);
}

int ocspReadFile(const char *path, size_t max, unsigned char **bytes, size_t *len, int64_t *mtime, ocspError *err) {
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    /* O_NONBLOCK: a FIFO in place of the file must not block the server's start */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    size_t got = 0;

    *bytes = NULL;
    if (fd < 0)
        return ocspFail(err, OCSP_FAIL_FILE, "%s cannot be opened: %s", ocspShown(path, clean, sizeof(clean)),
                        strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        ocspFail(err, OCSP_FAIL_FILE, "%s is not a regular file", ocspShown(path, clean, sizeof(clean)));
        goto failed;
    }
    if (st.st_size < 1 || st.st_size > (off_t)max) {
        ocspFail(err, OCSP_FAIL_DER, "%s has %lld bytes, where 1 to %zu are allowed",
                 ocspShown(path, clean, sizeof(clean)), (long long)st.st_size, max);
        goto failed;
    }
    *bytes = ocspAlloc((size_t)st.st_size);
    if (!*bytes) {
        ocspFail(err, OCSP_FAIL_MEMORY, "out of memory while reading %s", ocspShown(path, clean, sizeof(clean)));
        goto failed;
    }
    while (got < (size_t)st.st_size) {
        ssize_t n = read(fd, *bytes + got, (size_t)st.st_size - got);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            ocspFail(err, OCSP_FAIL_FILE, "%s cannot be read: %s", ocspShown(path, clean, sizeof(clean)),
                     n < 0 ? strerror(errno) : "it is being shortened");
            goto failed;
        }
        got += (size_t)n;
    }
    close(fd);
    *len = got;
    *mtime = st.st_mtime;
    return 1;
failed:
    close(fd);
    ocspFree(*bytes);
    *bytes = NULL;
    return 0;
}

/* Builds dir/ocsp-<sha256> plus `suffix`. Returns 0 if it does not fit. */
static int ocspCachePath(char *out, size_t size, const char *dir, const ocspIdentity *id, const char *suffix) {
    int n = snprintf(out, size, "%s/" OCSP_FILE_PREFIX "%s%s", dir, id->sha256_hex, suffix);
    return n > 0 && (size_t)n < size;
}

int ocspCacheLoad(const char *dir,
                  const ocspIdentity *id,
                  unsigned char **der,
                  size_t *len,
                  int64_t *mtime,
                  ocspError *err) {
    char path[PATH_MAX];
    struct stat st;

    *der = NULL;
    if (!ocspCachePath(path, sizeof(path), dir, id, OCSP_FILE_SUFFIX))
        return ocspFail(err, OCSP_FAIL_FILE, "the name of the cache directory is too long");
    if (lstat(path, &st) != 0 && errno == ENOENT) return ocspFail(err, OCSP_FAIL_NONE, "%s", "");
    return ocspReadFile(path, OCSP_MAX_RESPONSE_BYTES, der, len, mtime, err);
}

static int ocspWriteAll(int fd, const unsigned char *bytes, size_t len) {
    while (len > 0) {
        ssize_t n = write(fd, bytes, len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return 0;
        bytes += n;
        len -= (size_t)n;
    }
    return 1;
}

/* Syncs a directory, without which a new name or a removal is not durable. Returns 1, or 0 with errno if the sync
 * failed, and a power failure may undo the change. Some file systems cannot sync directories, and some directories may
 * not be opened for reading: not a failure. */
static int ocspSyncDirectory(const char *dir) {
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), ok, saved;

    if (fd < 0) return 1;
    ok = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP;
    saved = errno;
    close(fd);
    errno = saved;
    return ok;
}

int ocspCacheStore(const char *dir, const ocspIdentity *id, const unsigned char *der, size_t len, ocspError *err) {
    char path[PATH_MAX], temp[PATH_MAX], suffix[40], clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    int fd, ok, saved;
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    snprintf(suffix, sizeof(suffix), OCSP_TEMP_SUFFIX "%ld%09ld", (long)getpid(), now.tv_nsec);
    if (!ocspCachePath(path, sizeof(path), dir, id, OCSP_FILE_SUFFIX) ||
        !ocspCachePath(temp, sizeof(temp), dir, id, suffix))
        return ocspFail(err, OCSP_FAIL_FILE, "the name of the cache directory is too long");
    fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0) goto failed;
    ok = fchmod(fd, 0600) == 0 && ocspWriteAll(fd, der, len) && fsync(fd) == 0;
    saved = errno;
    if (close(fd) != 0 && ok) {
        ok = 0;
        saved = errno;
    }
    if (ok && rename(temp, path) != 0) {
        ok = 0;
        saved = errno;
    }
    if (!ok) {
        unlink(temp);
        errno = saved;
        goto failed;
    }
    ok = ocspSyncDirectory(dir);
    if (ok) return 1;
failed:
    saved = errno;
    return ocspFail(err, OCSP_FAIL_FILE, "cannot write OCSP cache in %s: %s", ocspShown(dir, clean, sizeof(clean)),
                    strerror(saved));
}

int ocspCacheRemove(const char *dir, const ocspIdentity *id, ocspError *err) {
    char path[PATH_MAX], clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    struct stat st;

    if (!ocspCachePath(path, sizeof(path), dir, id, OCSP_FILE_SUFFIX))
        return ocspFail(err, OCSP_FAIL_FILE, "the name of the cache directory is too long");
    if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode)) return 1; /* not readable as a response */
    if (unlink(path) != 0 && errno != ENOENT && errno != ENOTDIR)
        return ocspFail(err, OCSP_FAIL_FILE, "%s cannot be removed: %s", ocspShown(path, clean, sizeof(clean)),
                        strerror(errno));
    /* Also if there was no such file: an earlier removal may not have been synced. */
    if (!ocspSyncDirectory(dir))
        return ocspFail(err, OCSP_FAIL_FILE, "the removal of %s cannot be synced: %s",
                        ocspShown(path, clean, sizeof(clean)), strerror(errno));
    return 1;
}

/* Classifies a file name. 1: a response, 2: a temporary file, 0: not a file of this cache. */
static int ocspOurFile(const char *name) {
    size_t i, prefix = strlen(OCSP_FILE_PREFIX);

    if (strncmp(name, OCSP_FILE_PREFIX, prefix) != 0) return 0;
    for (i = prefix; i < prefix + OCSP_HEX_LEN; i++)
        if (!(name[i] >= '0' && name[i] <= '9') && !(name[i] >= 'a' && name[i] <= 'f')) return 0;
    name += i;
    if (strcmp(name, OCSP_FILE_SUFFIX) == 0) return 1;
    if (strncmp(name, OCSP_TEMP_SUFFIX, strlen(OCSP_TEMP_SUFFIX)) != 0) return 0;
    name += strlen(OCSP_TEMP_SUFFIX);
    return *name && name[strspn(name, "0123456789")] == '\0' ? 2 : 0;
}

void ocspCachePrune(const char *dir, int64_t now, const ocspIoHooks *wait) {
    DIR *d = opendir(dir);
    struct dirent *entry;

    if (!d) return; /* the store has logged the reason */
    while ((entry = readdir(d)) != NULL) {
        int kind = ocspOurFile(entry->d_name);
        char path[PATH_MAX];
        unsigned char *der;
        size_t len;
        int64_t mtime, end;
        struct stat st;

        if (!kind || fstatat(dirfd(d), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) continue;
        if (kind == 2) {
            if (st.st_mtime < now - OCSP_TEMP_KEEP) unlinkat(dirfd(d), entry->d_name, 0);
            continue;
        }
        if (snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name) >= (int)sizeof(path)) continue;
        if (!ocspReadFile(path, OCSP_MAX_RESPONSE_BYTES, &der, &len, &mtime, NULL)) continue;
        if (wait && wait->enter_openssl) wait->enter_openssl();
        end = ocspPeekNextUpdate(der, len);
        if (wait && wait->leave_openssl) wait->leave_openssl();
        if (end == 0) end = mtime + OCSP_DEFAULT_VALIDITY;
        ocspFree(der);
        if (end > 0 && end < now - OCSP_CACHE_KEEP) unlinkat(dirfd(d), entry->d_name, 0);
    }
    closedir(d);
}

#endif /* OCSP_SUPPORTED */
