/* test_cache.c - cached responses on disk, and everything that can be wrong with a disk: each fault is reported in one
 * message, nothing hangs, and the old file stays when a new one cannot be written.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "support.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <utime.h>

static const testPki *pki;
static ocspIdentity *id;
static char *dir;
static testBytes good;

static void setUp(void) {
    pki = testGetPki();
    id = testIdentity(pki->leaf, pki->ca);
    dir = testDir();
    testReply reply = testGoodReply(pki->leaf);
    good = testReplyDer(&reply);
}

static void tearDown(void) {
    ocspIdentityFree(id);
    testDirFree(dir);
    testBytesFree(&good);
}

FIXTURE(setUp, tearDown);

static char *filePath(const char *in_dir, const ocspIdentity *of) {
    char name[100];
    snprintf(name, sizeof(name), "ocsp-%s.der", of->sha256_hex);
    return testPath(in_dir, name);
}

static void assertMessage(const ocspError *err) {
    testAssertError(err, OCSP_ERR_NETWORK, "file");
}

static void assertStores(void) {
    ocspError err = {0};
    if (!ocspCacheStore(dir, id, good.p, good.n, &err)) fail_msg("not stored: %s", err.text);
}

static void assertLoads(void) {
    unsigned char *der = NULL;
    size_t n = 0;
    int64_t mtime = 0;
    ocspError err = {0};
    if (!ocspCacheLoad(dir, id, &der, &n, &mtime, &err)) fail_msg("not loaded: %s", err.text);
    assert_int_equal(n, good.n);
    assert_memory_equal(der, good.p, n);
    assert_true(mtime > 0);
    ocspFree(der);
}

/* An unreadable file is an error of kind network (file); an impossible size is one of kind response (der). */
static void assertDoesNotLoad(ocspErrorKind kind, const char *word) {
    unsigned char *der = (unsigned char *)1;
    size_t n = 0;
    int64_t mtime = 0;
    ocspError err = {0};
    assert_int_equal(ocspCacheLoad(dir, id, &der, &n, &mtime, &err), 0);
    testAssertError(&err, kind, word);
    assert_null(der);
}

/* ---- store, load, remove ----------------------------------------------------------------------------------------- */

TEST(store_writesTheDerUnderItsNameReadableByTheOwnerOnly, "16") {
    mode_t old = umask(0); /* the mode must not depend on it */
    assertStores();
    umask(old);
    char *path = filePath(dir, id);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    testBytes on_disk = testReadFile(path);
    assert_int_equal(on_disk.n, good.n);
    assert_memory_equal(on_disk.p, good.p, good.n);
    testBytesFree(&on_disk);
    assert_int_equal(testCountFiles(dir), 1); /* no temporary file is left */
    assertLoads();
    free(path);
}

TEST(load_missingFileIsNoError, "16") {
    unsigned char *der = (unsigned char *)1;
    size_t n;
    int64_t mtime;
    ocspError err = {.kind = OCSP_ERR_VERIFY, .code = OCSP_FAIL_SIGNER};
    assert_int_equal(ocspCacheLoad(dir, id, &der, &n, &mtime, &err), 0);
    assert_int_equal(err.kind, OCSP_ERR_NONE);
    assert_string_equal(ocspErrorWord(err.code), "");
    assert_null(der);
}

TEST(load_returnsTheMtimeOfTheFile, "16") {
    assertStores();
    char *path = filePath(dir, id);
    struct utimbuf when = {1234567890, 1234567890};
    assert_int_equal(utime(path, &when), 0);
    unsigned char *der;
    size_t n;
    int64_t mtime;
    assert_int_equal(ocspCacheLoad(dir, id, &der, &n, &mtime, NULL), 1);
    assert_int_equal(mtime, 1234567890);
    ocspFree(der);
    free(path);
}

TEST(store_replacesTheFileAtomically, "16") {
    testBytes first = testCopy("first", 5);
    assert_int_equal(ocspCacheStore(dir, id, first.p, first.n, NULL), 1);
    testBytesFree(&first);
    char *path = filePath(dir, id);
    FILE *open_before = fopen(path, "rb"); /* an open descriptor still reads the old file to its end */
    assertStores();
    char buf[64] = {0};
    assert_int_equal(fread(buf, 1, sizeof(buf), open_before), 5);
    assert_string_equal(buf, "first");
    fclose(open_before);
    assertLoads();
    assert_int_equal(testCountFiles(dir), 1);
    free(path);
}

TEST(store_readersNeverSeeHalfAFile, "16") {
    assertStores();
    pid_t writer = fork();
    if (writer == 0) {
        for (int i = 0; i < 300; i++) ocspCacheStore(dir, id, good.p, good.n, NULL);
        _exit(0);
    }
    int status = 0;
    while (waitpid(writer, &status, WNOHANG) == 0) assertLoads();
    assert_int_equal(status, 0);
}

TEST(store_killedWhileWritingLeavesAWholeFile, "16") {
    assertStores();
    for (int i = 0; i < 30; i++) {
        pid_t writer = fork();
        if (writer == 0) {
            for (;;) ocspCacheStore(dir, id, good.p, good.n, NULL);
        }
        testSleepMs(i % 7);
        kill(writer, SIGKILL);
        waitpid(writer, NULL, 0);
        assertLoads();
    }
}

/* Before libc's: the fsync of a directory, or of a file, can be made to fail. */
static int sync_fault, file_sync_fault;
int fsync(int fd) {
    struct stat st;
    if ((sync_fault || file_sync_fault) && fstat(fd, &st) == 0 &&
        (S_ISDIR(st.st_mode) ? sync_fault : file_sync_fault)) {
        errno = S_ISDIR(st.st_mode) ? sync_fault : file_sync_fault;
        return -1;
    }
    return (int)syscall(SYS_fsync, fd);
}

/* A rename whose directory is not synced is lost in a power failure: an error, so that the store is tried again. */
TEST(store_failsWhenTheDirectoryCannotBeSynced, "16") {
    ocspError err = {0};
    sync_fault = EIO;
    int stored = ocspCacheStore(dir, id, good.p, good.n, &err);
    sync_fault = EINVAL; /* this file system cannot sync directories */
    int stored_there = ocspCacheStore(dir, id, good.p, good.n, NULL);
    sync_fault = 0;
    assert_int_equal(stored, 0);
    assertMessage(&err);
    assert_non_null(strstr(err.text, strerror(EIO)));
    assert_int_equal(stored_there, 1);
    assertLoads();
    assert_int_equal(testCountFiles(dir), 1);
}

/* A file that may not be on disk is not renamed: the previous file stays. */
TEST(store_failsWhenTheFileCannotBeSynced, "16") {
    assert_int_equal(ocspCacheStore(dir, id, good.p, good.n, NULL), 1);
    ocspError err = {0};
    file_sync_fault = EIO;
    int stored = ocspCacheStore(dir, id, (const unsigned char *)"other", 5, &err);
    file_sync_fault = 0;
    assert_int_equal(stored, 0);
    assertMessage(&err);
    assertLoads();
    assert_int_equal(testCountFiles(dir), 1);
}

TEST(remove_deletesTheFileAndSyncsTheDirectory) {
    ocspError err = {0};
    assert_int_equal(ocspCacheRemove(dir, id, &err), 1); /* no such file: success */
    assertStores();
    sync_fault = EIO;
    assert_int_equal(ocspCacheRemove(dir, id, &err), 0);
    assertMessage(&err);
    assert_int_equal(testCountFiles(dir), 0);
    assert_int_equal(ocspCacheRemove(dir, id, &err), 0); /* deleted, but a power failure may bring it back */
    sync_fault = 0;
    assert_int_equal(ocspCacheRemove(dir, id, &err), 1);
    char *missing = testPath(dir, "missing"), *path = filePath(dir, id);
    assert_int_equal(ocspCacheRemove(missing, id, &err), 1);
    assert_int_equal(mkdir(path, 0700), 0); /* a directory cannot be read as a response */
    assert_int_equal(ocspCacheRemove(dir, id, &err), 1);
    assert_int_equal(testCountFiles(dir), 1);
    free(missing);
    free(path);
}

TEST(store_eachRenewedCertificateHasItsOwnFile, "16") {
    for (int i = 0; i < 10; i++) {
        X509 *leaf = testCert(
            &(testCertSpec){.name = "renewed", .issuer = pki->ca, .issuer_key = pki->ca_key, .key = pki->leaf_key});
        ocspIdentity *one = testIdentity(leaf, pki->ca);
        assert_int_equal(ocspCacheStore(dir, one, good.p, good.n, NULL), 1);
        assert_int_equal(testCountFiles(dir), i + 1);
        ocspIdentityFree(one);
        X509_free(leaf);
    }
    assert_int_equal(testCountFiles(dir), 10);
}

/* ---- what can stand in the place of file and directory ----------------------------------------------------------- */

TEST(directory_missing, "16") {
    ocspError err = {0};
    char *missing = testPath(dir, "missing");
    unsigned char *der;
    size_t n;
    int64_t mtime;
    assert_int_equal(ocspCacheStore(missing, id, good.p, good.n, &err), 0);
    assertMessage(&err);
    assert_non_null(strstr(err.text, "missing")); /* the message names the directory */
    assert_int_equal(ocspCacheLoad(missing, id, &der, &n, &mtime, &err), 0);
    ocspCachePrune(missing, TEST_NOW, NULL);
    assert_int_equal(access(missing, F_OK), -1); /* and it is not created */
    free(missing);
}

TEST(directory_isAFile, "16") {
    ocspError err = {0};
    char *file = testPath(dir, "file");
    unsigned char *der;
    size_t n;
    int64_t mtime;
    testWriteFile(file, "x", 1);
    assert_int_equal(ocspCacheStore(file, id, good.p, good.n, &err), 0);
    assertMessage(&err);
    assert_int_equal(ocspCacheLoad(file, id, &der, &n, &mtime, &err), 0);
    assert_null(der);
    ocspCachePrune(file, TEST_NOW, NULL);
    testBytes still = testReadFile(file);
    assert_int_equal(still.n, 1);
    testBytesFree(&still);
    free(file);
}

TEST(file_isADirectory, "16") {
    ocspError err = {0};
    char *path = filePath(dir, id);
    assert_int_equal(mkdir(path, 0700), 0);
    assertDoesNotLoad(OCSP_ERR_NETWORK, "file");
    assert_int_equal(ocspCacheStore(dir, id, good.p, good.n, &err), 0);
    assertMessage(&err);
    assert_int_equal(testCountFiles(dir), 1); /* the temporary file is gone */
    ocspCachePrune(dir, TEST_NOW, NULL);
    assert_int_equal(testCountFiles(dir), 1);
    free(path);
}

TEST(file_emptyTruncatedOrTooLarge, "16") {
    char *path = filePath(dir, id);
    testWriteFile(path, "", 0);
    assertDoesNotLoad(OCSP_ERR_RESPONSE, "der");
    unsigned char *big = calloc(1, OCSP_MAX_RESPONSE_BYTES + 1);
    testWriteFile(path, big, OCSP_MAX_RESPONSE_BYTES + 1);
    assertDoesNotLoad(OCSP_ERR_RESPONSE, "der");
    testWriteFile(path, big, OCSP_MAX_RESPONSE_BYTES);
    unsigned char *der;
    size_t n;
    int64_t mtime;
    assert_int_equal(ocspCacheLoad(dir, id, &der, &n, &mtime, NULL), 1); /* ocspVerify rejects it, not the cache */
    assert_int_equal(n, OCSP_MAX_RESPONSE_BYTES);
    ocspFree(der);
    free(big);
    testWriteFile(path, good.p, good.n / 2);
    assert_int_equal(ocspCacheLoad(dir, id, &der, &n, &mtime, NULL), 1);
    assert_int_equal(n, good.n / 2);
    ocspFree(der);
    assertStores(); /* a new store repairs it */
    assertLoads();
    free(path);
}

/* A sparse file of a terabyte is refused by its size, before anything is allocated. */
TEST(file_ofATerabyteIsRejectedByItsSize, "16") {
    char *path = filePath(dir, id);
    testWriteFile(path, "x", 1);
    assert_int_equal(truncate(path, sizeof(off_t) > 4 ? (off_t)(INT64_C(1) << 40) : 0x7fffffff), 0);
    assertDoesNotLoad(OCSP_ERR_RESPONSE, "der");
    ocspCachePrune(dir, TEST_NOW, NULL);
    free(path);
}

TEST(file_fifoDoesNotBlock, "16") {
    char *path = filePath(dir, id);
    assert_int_equal(mkfifo(path, 0600), 0);
    alarm(60); /* a hang would otherwise be the failure */
    assertDoesNotLoad(OCSP_ERR_NETWORK, "file");
    ocspCachePrune(dir, TEST_NOW + 400 * TEST_DAY, NULL);
    alarm(0);
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISFIFO(st.st_mode)); /* only regular files are removed */
    assertStores();
    assertLoads();
    free(path);
}

TEST(file_deviceIsRejected, "16") {
    char *path = filePath(dir, id);
    assert_int_equal(symlink("/dev/zero", path), 0);
    assertDoesNotLoad(OCSP_ERR_NETWORK, "file");
    free(path);
}

TEST(file_symbolicLinkIsReadAndReplaced, "16") {
    char *path = filePath(dir, id), *target = testPath(dir, "target");
    testWriteFile(target, good.p, good.n);
    assert_int_equal(symlink(target, path), 0);
    assertLoads();
    testWriteFile(target, "old", 3);
    assertStores(); /* the rename replaces the link */
    struct stat st;
    assert_int_equal(lstat(path, &st), 0);
    assert_true(S_ISREG(st.st_mode));
    testBytes still = testReadFile(target);
    assert_int_equal(still.n, 3);
    testBytesFree(&still);
    assertLoads();
    free(target);
    free(path);
}

TEST(file_danglingAndCircularLinks, "16") {
    char *path = filePath(dir, id);
    assert_int_equal(symlink("nowhere", path), 0);
    assertDoesNotLoad(OCSP_ERR_NETWORK, "file");
    unlink(path);
    assert_int_equal(symlink(path, path), 0);
    assertDoesNotLoad(OCSP_ERR_NETWORK, "file");
    ocspCachePrune(dir, TEST_NOW, NULL);
    assertStores();
    assertLoads();
    free(path);
}

/* An attacker has put a link in the place of the temporary file, so that another file would be overwritten. */
TEST(store_temporaryFileDoesNotFollowALink) {
    char *victim = testPath(dir, "victim"), name[160];
    testWriteFile(victim, "precious", 8);
    snprintf(name, sizeof(name), "ocsp-%s.der.tmp-%ld", id->sha256_hex, (long)getpid());
    char *temp = testPath(dir, name);
    assert_int_equal(symlink(victim, temp), 0);
    assertStores();
    testBytes still = testReadFile(victim);
    assert_int_equal(still.n, 8);
    testBytesFree(&still);
    assertLoads();
    free(temp);
    free(victim);
}

TEST(directory_nameTooLongIsRejected) {
    char longer[9000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[0] = '/';
    longer[sizeof(longer) - 1] = 0;
    ocspError err = {0};
    unsigned char *der;
    size_t n;
    int64_t mtime;
    assert_int_equal(ocspCacheStore(longer, id, good.p, good.n, &err), 0);
    assertMessage(&err);
    assert_int_equal(ocspCacheLoad(longer, id, &der, &n, &mtime, &err), 0);
    assertMessage(&err);
    ocspCachePrune(longer, TEST_NOW, NULL);
}

TEST(directory_controlBytesInItsNameDoNotReachTheLog) {
    ocspError err = {0};
    assert_int_equal(ocspCacheStore("/nowhere\n\x1b[31mred", id, good.p, good.n, &err), 0);
    assertMessage(&err);
    assert_null(strchr(err.text, '\n'));
    assert_null(strchr(err.text, '\x1b'));
}

/* ---- a full disk ------------------------------------------------------------------------------------------------- */

static void fillUp(const char *in_dir) {
    char *path = testPath(in_dir, "filler");
    FILE *f = fopen(path, "wb");
    char block[4096] = {0};
    assert_non_null(f);
    setvbuf(f, NULL, _IONBF, 0);
    while (fwrite(block, 1, sizeof(block), f) == sizeof(block)) {
    }
    fclose(f);
    free(path);
}

TEST(disk_fullKeepsTheOldFile, "16") {
    char *mount_point = testPath(dir, "small");
    assert_int_equal(mkdir(mount_point, 0700), 0);
    if (mount("none", mount_point, "tmpfs", 0, "size=64k") != 0) {
        free(mount_point);
        print_message("mounting a file system needs root; disk_fileSizeLimitKeepsTheOldFile is the substitute\n");
        skip();
    }
    ocspError err = {0};
    char *path = filePath(mount_point, id);
    int stored = ocspCacheStore(mount_point, id, good.p, good.n, &err);
    fillUp(mount_point);
    ocspError full = {0};
    unsigned char *block = calloc(1, 20000); /* more than the last page can hold */
    int again = ocspCacheStore(mount_point, id, block, 20000, &full);
    int files = testCountFiles(mount_point);
    testBytes still = testReadFile(path);
    umount(mount_point); /* before any check can leave it behind */
    free(block);
    assert_int_equal(stored, 1);
    assert_int_equal(again, 0);
    assertMessage(&full);
    assert_non_null(strstr(full.text, strerror(ENOSPC)));
    assert_int_equal(files, 2); /* the response and the filler: no half-written temporary file */
    assert_int_equal(still.n, good.n);
    assert_memory_equal(still.p, good.p, good.n);
    testBytesFree(&still);
    free(path);
    free(mount_point);
}

TEST(disk_fileSizeLimitKeepsTheOldFile, "16") {
    assertStores();
    pid_t child = fork(); /* the limit would bind the other tests too */
    if (child == 0) {
        struct rlimit limit = {100, 100};
        ocspError err = {0};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        _exit(ocspCacheStore(dir, id, good.p, good.n, &err) == 0 && err.kind == OCSP_ERR_NETWORK && err.text[0] ? 0
                                                                                                                : 1);
    }
    int status;
    waitpid(child, &status, 0);
    assert_int_equal(status, 0);
    assert_int_equal(testCountFiles(dir), 1);
    assertLoads();
}

TEST(directory_notWritable, "16") {
    assertStores();
    if (geteuid() == 0) {
        pid_t child = fork(); /* root may write everywhere: try as nobody */
        if (child == 0) {
            ocspError err = {0};
            chmod(dir, 0555);
            if (setuid(65534) != 0) _exit(0);
            _exit(ocspCacheStore(dir, id, good.p, good.n, &err) == 0 && err.text[0] ? 0 : 1);
        }
        int status;
        waitpid(child, &status, 0);
        chmod(dir, 0700);
        assert_int_equal(status, 0);
    } else {
        ocspError err = {0};
        chmod(dir, 0555);
        int stored = ocspCacheStore(dir, id, good.p, good.n, &err);
        chmod(dir, 0700);
        assert_int_equal(stored, 0);
        assertMessage(&err);
    }
    assertLoads();
}

/* ---- ocspCachePrune ---------------------------------------------------------------------------------------------- */

static void put(const char *name, testBytes bytes, int64_t mtime) {
    char *path = testPath(dir, name);
    testWriteFile(path, bytes.p, bytes.n);
    if (mtime) {
        struct utimbuf when = {mtime, mtime};
        assert_int_equal(utime(path, &when), 0);
    }
    free(path);
}

static int there(const char *name) {
    char *path = testPath(dir, name);
    struct stat st;
    int is = lstat(path, &st) == 0;
    free(path);
    return is;
}

static const char *ours(char digit, const char *suffix) {
    static char names[8][160];
    static int turn;
    char *name = names[turn++ % 8];
    char hex[65];
    memset(hex, digit, 64);
    hex[64] = 0;
    snprintf(name, 160, "ocsp-%s%s", hex, suffix);
    return name;
}

TEST(prune_removesFilesSevenDaysAfterNextUpdate) {
    testReply reply = testGoodReply(pki->leaf);
    static const struct {
        char digit;
        long end;
        int stays;
    } rows[] = {{'1', TEST_DAY, 1},
                {'2', -TEST_DAY, 1},
                {'3', -OCSP_CACHE_KEEP + 10, 1},
                {'4', -OCSP_CACHE_KEEP - 1, 0},
                {'5', -100 * TEST_DAY, 0}};
    for (int i = 0; i < 5; i++) {
        reply.singles[0].next_update = TEST_NOW + rows[i].end;
        testBytes der = testReplyDer(&reply);
        put(ours(rows[i].digit, ".der"), der, 0);
        testBytesFree(&der);
    }
    ocspCachePrune(dir, TEST_NOW, NULL);
    for (int i = 0; i < 5; i++) assert_int_equal(there(ours(rows[i].digit, ".der")), rows[i].stays);
}

TEST(prune_countsFromTheMtimeWithoutNextUpdate) {
    testReply reply = testGoodReply(pki->leaf);
    reply.singles[0].next_update = 0;
    testBytes der = testReplyDer(&reply);
    put(ours('6', ".der"), der, TEST_NOW - OCSP_CACHE_KEEP - 601);
    put(ours('7', ".der"), der, TEST_NOW - OCSP_CACHE_KEEP - 500);
    ocspCachePrune(dir, TEST_NOW, NULL);
    assert_false(there(ours('6', ".der")));
    assert_true(there(ours('7', ".der")));
    testBytesFree(&der);
}

TEST(prune_leavesOtherFiles) {
    testReply reply = testGoodReply(pki->leaf);
    reply.singles[0].next_update = TEST_NOW - 100 * TEST_DAY;
    testBytes der = testReplyDer(&reply);
    static const char *const names[] = {
        "dump.rdb",
        "ocsp-.der",
        "ocsp-1234.der",
        "ocsp.der",
        "ocsp-gggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggggg.der",
        "ocsp-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA.der",
        "xocsp-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.der",
        "ocsp-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.der",
        "ocsp-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.der.bak",
        "ocsp-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.der.tmp-",
        "ocsp-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.der.tmp-mine"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) put(names[i], der, TEST_NOW - 100 * TEST_DAY);
    ocspCachePrune(dir, TEST_NOW, NULL);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (!there(names[i])) fail_msg("removed %s", names[i]);
    }
    testBytesFree(&der);
}

TEST(prune_removesOldTemporaryFilesOnly) {
    put(ours('8', ".der.tmp-4711"), good, TEST_NOW - TEST_DAY);
    put(ours('9', ".der.tmp-4712"), good, TEST_NOW - 1); /* of a server that is writing now */
    ocspCachePrune(dir, TEST_NOW, NULL);
    assert_false(there(ours('8', ".der.tmp-4711")));
    assert_true(there(ours('9', ".der.tmp-4712")));
}

static int inside, turns;
static void enter(void) {
    inside++;
    turns++;
}
static void leave(void) {
    inside--;
}

TEST(prune_entersOpenSslOnlyForParsing) {
    ocspIoHooks wait = {.leave_openssl = leave, .enter_openssl = enter, .wake_fd = -1};
    put(ours('a', ".der"), good, 0);
    put(ours('b', ".der"), good, 0);
    turns = inside = 0;
    ocspCachePrune(dir, TEST_NOW, &wait);
    assert_int_equal(turns, 2);
    assert_int_equal(inside, 0);
}

/* ---- ocspReadFile ------------------------------------------------------------------------------------------------ */

TEST(readFile_followsLinksAndNamesTheError, "24") {
    unsigned char *der;
    size_t n;
    int64_t mtime;
    ocspError err = {0};
    put("response", good, 1700000000);
    char *link_path = testPath(dir, "link");
    assert_int_equal(symlink("response", link_path), 0);
    assert_int_equal(ocspReadFile(link_path, OCSP_MAX_RESPONSE_BYTES, &der, &n, &mtime, &err), 1);
    assert_int_equal(n, good.n);
    assert_int_equal(mtime, 1700000000);
    ocspFree(der);
    assert_int_equal(ocspReadFile(dir, OCSP_MAX_RESPONSE_BYTES, &der, &n, &mtime, &err), 0);
    assertMessage(&err);
    assert_null(der);
    char *missing = testPath(dir, "absent");
    assert_int_equal(ocspReadFile(missing, OCSP_MAX_RESPONSE_BYTES, &der, &n, &mtime, &err), 0);
    assertMessage(&err);
    assert_non_null(strstr(err.text, "absent"));
    free(missing);
    free(link_path);
}
