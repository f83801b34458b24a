/* cache.c - fuzz target: a cache directory with any contents, to ocspReadFile, ocspCacheLoad, ocspCacheStore and
 * ocspCachePrune. Pruning must never remove foreign files, nor a response that can still be stapled.
 *
 * Input: up to 8 directory entries, each a byte of flags (bits 0-2: name, 3-4: file, directory, symbolic link or FIFO;
 * 5: store a response at the end, 6: mtime in the future), two bytes of age (in steps of ten minutes), two bytes of
 * length, and that many bytes: the contents, preceded by the name and a zero byte where the flags leave the name free.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "fuzz.h"
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/err.h>

#define MAX_ENTRIES 8
#define AGE_STEP 600

typedef enum {
    A_FILE,
    A_DIRECTORY,
    A_LINK,
    A_FIFO
} entryType;

typedef struct entry {
    char name[256];
    entryType type;
    int64_t mtime;
    const uint8_t *bytes;
    size_t size;
    int made; /* 0: it could not be created (a slash in its name, or the name exists) */
} entry;

static int dir_fd = -1; /* of `dir`, which exists until the process exits */
static char *dir;

static void removeDirectory(void) {
    testDirFree(dir);
}

static void nameEntry(entry *e, int which) {
    const ocspIdentity *id = fuzzGetPki()->id;
    size_t n;

    switch (which) {
    case 0: /* the file of pki->leaf */ snprintf(e->name, sizeof(e->name), "ocsp-%s.der", id->sha256_hex); break;
    case 1: /* of another certificate */ snprintf(e->name, sizeof(e->name), "ocsp-%064d.der", 7); break;
    case 2: /* a temporary file */ snprintf(e->name, sizeof(e->name), "ocsp-%s.der.tmp-12345", id->sha256_hex); break;
    case 3: /* and three names that are similar to the cache's */
        snprintf(e->name, sizeof(e->name), "ocsp-%063d.der", 7);
        break;
    case 4: snprintf(e->name, sizeof(e->name), "ocsp-%064X.der", 0xabc); break;
    case 5: snprintf(e->name, sizeof(e->name), "ocsp-%s.der.tmp-", id->sha256_hex); break;
    default: /* any name, or a valid beginning with any end */
        n = strnlen((const char *)e->bytes, e->size);
        if (which == 6)
            snprintf(e->name, sizeof(e->name), "%.*s", (int)n, (const char *)e->bytes);
        else
            snprintf(e->name, sizeof(e->name), "ocsp-%s%.*s", id->sha256_hex, (int)n, (const char *)e->bytes);
        if (n < e->size) n++;
        e->bytes += n;
        e->size -= n;
    }
}

static int readEntries(const uint8_t *data, size_t size, entry *entries, int *store) {
    int count = 0;

    *store = 0;
    while (size >= 5 && count < MAX_ENTRIES) {
        entry *e = &entries[count++];
        int64_t age = (int64_t)(data[1] << 8 | data[2]) * AGE_STEP;
        size_t len = (size_t)(data[3] << 8 | data[4]);
        memset(e, 0, sizeof(*e));
        if (len == 0xffff) len = size; /* the rest of the input, for files that are longer than 65534 bytes */
        if (len > size - 5) len = size - 5;
        e->type = (entryType)(data[0] >> 3 & 3);
        e->mtime = data[0] & 0x40 ? TEST_NOW + age : TEST_NOW - age;
        e->bytes = data + 5;
        e->size = len;
        nameEntry(e, data[0] & 7);
        if (data[0] & 0x20) *store = 1;
        data += 5 + len;
        size -= 5 + len;
    }
    return count;
}

static int makeFile(const char *name, const entry *e) {
    int fd = openat(dir_fd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0) return 0;
    fuzzCheck(e->size == 0 || write(fd, e->bytes, e->size) == (ssize_t)e->size);
    close(fd);
    return 1;
}

static void makeEntry(entry *e, int number) {
    struct timespec times[2] = {{e->mtime, 0}, {e->mtime, 0}};
    char target[32];

    if (!*e->name || strchr(e->name, '/') || strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0) return;
    switch (e->type) {
    case A_FILE: e->made = makeFile(e->name, e); break;
    case A_DIRECTORY: e->made = mkdirat(dir_fd, e->name, 0700) == 0; break;
    case A_LINK: /* to a file in the same directory, as in Kubernetes */
        snprintf(target, sizeof(target), "target-%d", number);
        e->made = makeFile(target, e) && symlinkat(target, dir_fd, e->name) == 0;
        if (e->made) utimensat(dir_fd, target, times, 0);
        break;
    case A_FIFO: e->made = mkfifoat(dir_fd, e->name, 0600) == 0; break;
    }
    if (e->made) fuzzCheck(utimensat(dir_fd, e->name, times, AT_SYMLINK_NOFOLLOW) == 0);
}

static int exists(const char *name) {
    struct stat st;

    return fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* Returns 1 if pruning must remove the entry: an independent implementation of the rule. */
static int mustPrune(const entry *e) {
    const char *end = e->name + 5 + 64;
    int64_t until;

    if (e->type != A_FILE || strncmp(e->name, "ocsp-", 5) != 0) return 0;
    if (strspn(e->name + 5, "0123456789abcdef") != 64) return 0;
    if (strncmp(end, ".der.tmp-", 9) == 0)
        return end[9] && strspn(end + 9, "0123456789") == strlen(end + 9) && e->mtime < TEST_NOW - 3600;
    if (strcmp(end, ".der") != 0 || e->size < 1 || e->size > OCSP_MAX_RESPONSE_BYTES) return 0;
    until = ocspPeekNextUpdate(e->bytes, e->size);
    if (until == 0) until = e->mtime + OCSP_DEFAULT_VALIDITY;
    return until > 0 && until < TEST_NOW - OCSP_CACHE_KEEP;
}

static void checkLoad(const entry *entries, int count) {
    const ocspIdentity *id = fuzzGetPki()->id;
    const entry *found = NULL;
    char name[300];
    unsigned char *der = (unsigned char *)"not set";
    size_t len = 0;
    int64_t mtime = 0;
    ocspError err = {0};
    int i;

    snprintf(name, sizeof(name), "ocsp-%s.der", id->sha256_hex);
    for (i = 0; i < count; i++)
        if (entries[i].made && strcmp(entries[i].name, name) == 0) found = &entries[i];
    if (ocspCacheLoad(dir, id, &der, &len, &mtime, &err)) {
        fuzzCheck(found && (found->type == A_FILE || found->type == A_LINK));
        fuzzCheck(len == found->size && len >= 1 && len <= OCSP_MAX_RESPONSE_BYTES);
        fuzzCheck(memcmp(der, found->bytes, len) == 0 && mtime == found->mtime);
        ocspFree(der);
    } else {
        fuzzCheck(!der);
        if (err.kind != OCSP_ERR_NONE) fuzzCheckError(&err);
        fuzzCheck((err.kind == OCSP_ERR_NONE) == !found);
        fuzzCheck(!found || found->type == A_DIRECTORY || found->type == A_FIFO || found->size == 0 ||
                  found->size > OCSP_MAX_RESPONSE_BYTES);
    }
}

static void checkPrune(const entry *entries, int count) {
    int i, pass;

    for (pass = 0; pass < 2; pass++) { /* pruning again changes nothing */
        ocspCachePrune(dir, TEST_NOW, NULL);
        for (i = 0; i < count; i++) {
            char target[32];
            if (!entries[i].made) continue;
            fuzzCheck(exists(entries[i].name) == !mustPrune(&entries[i]));
            snprintf(target, sizeof(target), "target-%d", i);
            if (entries[i].type == A_LINK) fuzzCheck(exists(target));
        }
    }
}

/* Checks that a response is stored completely, or that the store fails because a directory has the file's name. */
static void checkStore(const entry *entries, int count) {
    static const unsigned char bytes[] = "a new response";
    const ocspIdentity *id = fuzzGetPki()->id;
    unsigned char *der;
    size_t len;
    int64_t mtime;
    ocspError err = {0};

    if (ocspCacheStore(dir, id, bytes, sizeof(bytes), &err)) {
        fuzzCheck(ocspCacheLoad(dir, id, &der, &len, &mtime, &err));
        fuzzCheck(len == sizeof(bytes) && memcmp(der, bytes, len) == 0);
        ocspFree(der);
    } else {
        int i, blocked = 0;
        char name[300];
        snprintf(name, sizeof(name), "ocsp-%s.der", id->sha256_hex);
        for (i = 0; i < count; i++)
            if (entries[i].made && entries[i].type == A_DIRECTORY && strcmp(entries[i].name, name) == 0) blocked = 1;
        fuzzCheck(blocked);
        fuzzCheckError(&err);
    }
}

static void emptyDirectory(void) {
    DIR *d = opendir(dir);
    struct dirent *e;

    fuzzCheck(d);
    while ((e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        if (unlinkat(dir_fd, e->d_name, 0) != 0) fuzzCheck(unlinkat(dir_fd, e->d_name, AT_REMOVEDIR) == 0);
    }
    closedir(d);
}

static void one(const uint8_t *data, size_t size) {
    entry entries[MAX_ENTRIES];
    int count, i, store;

    if (!dir) {
        dir = testDir();
        dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        fuzzCheck(dir_fd >= 0 && atexit(removeDirectory) == 0);
    }
    ERR_clear_error();
    count = readEntries(data, size, entries, &store);
    for (i = 0; i < count; i++) makeEntry(&entries[i], i);
    checkLoad(entries, count);
    checkPrune(entries, count);
    if (store) checkStore(entries, count);
    fuzzCheckQueue();
    emptyDirectory();
}

/* ---- seeds ------------------------------------------------------------------------------------------------------- */

static testBytes entryBytes(int flags, int64_t age, const void *bytes, size_t n) {
    uint8_t head[] = {(uint8_t)flags, (uint8_t)(age / AGE_STEP >> 8), (uint8_t)(age / AGE_STEP),
                      (uint8_t)(n < 0xffff ? n >> 8 : 0xff), (uint8_t)(n < 0xffff ? n : 0xff)};

    return testJoin(testCopy(head, sizeof(head)), testCopy(bytes, n));
}

static testBytes reply(int64_t next_update) {
    const fuzzPki *pki = fuzzGetPki();
    const testReply r = {.count = 1,
                         .singles = {{.cert = pki->leaf,
                                      .issuer = pki->ca,
                                      .this_update = TEST_NOW - 30 * TEST_DAY,
                                      .next_update = next_update}},
                         .signer = pki->ca,
                         .key = pki->ca_key};
    return testReplyDer(&r);
}

static void keepEntry(fuzzKeep *keep, const char *name, int flags, int64_t age, const void *bytes, size_t n) {
    testBytes all = entryBytes(flags, age, bytes, n);

    keep(name, all.p, all.n);
    testBytesFree(&all);
}

static void seeds(fuzzKeep *keep) {
    static const char *const names[] = {"file", "directory", "link", "fifo"};
    testBytes valid = reply(TEST_NOW + TEST_DAY), expired = reply(TEST_NOW - 8 * TEST_DAY), no_next_update = reply(0),
              all;
    void *zeros = calloc(1, OCSP_MAX_RESPONSE_BYTES + 1);
    char name[64];
    int type, which;

    fuzzCheck(zeros);
    for (type = 0; type < 4; type++) {
        for (which = 0; which < 8; which++) {
            snprintf(name, sizeof(name), "%s-%d", names[type], which);
            keepEntry(keep, name, type << 3 | which, 9 * TEST_DAY, expired.p, expired.n);
        }
    }
    keepEntry(keep, "live", 0, 3600, valid.p, valid.n);
    keepEntry(keep, "endless-young", 0x20, 3600, no_next_update.p, no_next_update.n);
    keepEntry(keep, "endless-old", 0, 8 * TEST_DAY, no_next_update.p, no_next_update.n);
    keepEntry(keep, "endless-future", 0x40, 8 * TEST_DAY, no_next_update.p, no_next_update.n);
    keepEntry(keep, "young-temporary", 2, 1200, "", 0);
    keepEntry(keep, "empty", 0x20, 9 * TEST_DAY, "", 0);
    keepEntry(keep, "no-der", 0, 9 * TEST_DAY, "junk", 4);
    keepEntry(keep, "longest", 0, 9 * TEST_DAY, zeros, OCSP_MAX_RESPONSE_BYTES);
    keepEntry(keep, "too-long", 0, 9 * TEST_DAY, zeros, OCSP_MAX_RESPONSE_BYTES + 1);
    keepEntry(keep, "odd-name", 6, 9 * TEST_DAY, "ocsp-\0x", 7);
    keepEntry(keep, "temporary-with-letters", 7, 9 * TEST_DAY, ".der.tmp-1x\0", 12);
    keepEntry(keep, "directory-in-the-way", 0x28, 9 * TEST_DAY, "", 0);
    all = testJoin(entryBytes(0, 3600, valid.p, valid.n), entryBytes(1, 9 * TEST_DAY, expired.p, expired.n));
    all = testJoin(all, entryBytes(2, 9 * TEST_DAY, "half", 4));
    all = testJoin(all, entryBytes(0x31, 9 * TEST_DAY, expired.p, expired.n));
    keep("several", all.p, all.n);
    testBytesFree(&all);
    testBytesFree(&valid);
    testBytesFree(&expired);
    testBytesFree(&no_next_update);
    free(zeros);
}

const fuzzTarget fuzz_cache = {"cache", one, seeds, NULL};
