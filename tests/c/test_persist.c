/* test_persist.c - the engine and its cache directory: restarts, disks that fail, and what a restart must not staple.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "world.h"
#include "ocsp_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- a disk that fails ------------------------------------------------------------------------------------------- */

/* Before libc's: files that cannot be removed. */
static atomic_int unlink_fault, unlinks_refused;
int unlink(const char *path) {
    if (unlink_fault && strstr(path, "ocsp-")) {
        atomic_fetch_add(&unlinks_refused, 1);
        errno = unlink_fault;
        return -1;
    }
    return unlinkat(AT_FDCWD, path, 0);
}

static void setUp(void) {
    worldSetUp();
    unlink_fault = unlinks_refused = 0;
}

static void tearDown(void) {
    unlink_fault = 0;
    worldTearDown();
}

FIXTURE(setUp, tearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* ---- restarts ---------------------------------------------------------------------------------------------------- */

TEST(restart_staplesFromTheCacheWithTheResponderDown, "15") {
    options.cache_dir = dir;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(testCountFiles(dir), 1);
    SSL_CTX_free(ctx);
    responder.down = 1;
    restartEngine();
    SSL_CTX_free(loadLeaf()); /* replaced before the thread has seen it, which makes no reload */
    ctx = loadLeaf();
    ocspThreadPrime(); /* as the main thread does before the first accept */
    assert_int_equal(requestCount(), 1);
    assert_true(isStapled(ctx));
    assert_string_equal(infoText("response_source"), "cache");
    runFor(60 * 1000);
    assert_int_equal(requestCount(), 1); /* a start is no reload: refreshed at its refresh time */
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(restart_cachedResponseIsVerifiedAgain, "16") {
    options.cache_dir = dir;
    applyOptions();
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    char name[100];
    snprintf(name, sizeof(name), "ocsp-%s.der", id->sha256_hex);
    char *path = testPath(dir, name);
    testReply reply = testGoodReply(pki->leaf);
    responder.down = 1;
    for (int i = 0; i < 7; i++) {
        testReply bad = reply;
        testBytes der;
        if (i == 0) bad.break_signature = 1;
        if (i == 1) bad.singles[0].cert = pki->renewed_leaf;   /* file of another certificate */
        if (i == 2) bad.singles[0].next_update = TEST_NOW - 1; /* expired file */
        if (i == 3) bad.status = 3;
        if (i == 4) bad.signer = pki->twin, bad.key = pki->twin_key;
        der = testReplyDer(&bad);
        if (i == 5) der.n /= 2; /* truncated */
        if (i == 6) der = testJoin(der, testCopy("x", 1));
        testWriteFile(path, der.p, der.n);
        testBytesFree(&der);
        SSL_CTX *ctx = loadLeaf();
        ocspThreadPrime();
        assert_false(isStapled(ctx));
        assertState("pending");
        SSL_CTX_free(ctx);
        restartEngine();
    }
    testBytes der = testReplyDer(&reply); /* the unchanged file is accepted */
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    SSL_CTX *ctx = loadLeaf();
    ocspThreadPrime();
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
    free(path);
    ocspIdentityFree(id);
}

/* When the current response expires, a cache-dir that was changed is read again and has the same response: that is no
 * answer of the responder, and no recovery. */
static int loadAsJustStored(const char *from,
                            const ocspIdentity *id,
                            unsigned char **der,
                            size_t *n,
                            int64_t *mtime,
                            ocspError *err) {
    int found = real_env.cache_load(from, id, der, n, mtime, err);
    *mtime = wallNow();
    return found;
}

/* The files have mtimes of the real clock, years before TEST_NOW: pruning would remove them. */
static void keepOldFiles(const char *from, int64_t now, const ocspIoHooks *wait) {
    (void)from, (void)now, (void)wait;
}

/* After a restart max-interval counts from the receipt of the cached response, so that restarts do not postpone the
 * refresh forever. Overdue, it follows within a tenth. */
static int64_t stored_at;

static int loadAsStoredAt(const char *from,
                          const ocspIdentity *id,
                          unsigned char **der,
                          size_t *n,
                          int64_t *mtime,
                          ocspError *err) {
    int found = real_env.cache_load(from, id, der, n, mtime, err);
    *mtime = stored_at;
    return found;
}

TEST(restart_maxIntervalCountsFromTheReceipt, "15") {
    static const struct {
        int age, least, most; /* seconds: of the file; until the refresh */
    } rows[] = {
        {0, 2400, 3600},  {1000, 1400, 2600}, {3000, 0, 600},  {3599, 0, 360},
        {100000, 0, 360}, {-200, 2400, 3600}, {-86400, 0, 360}}; /* a file from the future: its age is unknown */
    options.cache_dir = dir;
    options.max_interval = 3600;
    applyOptions();
    ocsp_env.cache_prune = keepOldFiles;
    responder.validity = 30 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    SSL_CTX_free(ctx);
    ocsp_env.cache_load = loadAsStoredAt;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int sum = 0;
        for (int again = 0; again < 20; again++) {
            stored_at = wallNow() - rows[i].age;
            restartEngine();
            ctx = loadLeaf();
            ocspThreadPrime();
            assert_string_equal(infoText("response_source"), "cache");
            testAssertRange(infoNumber("next_refresh_in_seconds"), rows[i].least, rows[i].most);
            sum += (int)infoNumber("next_refresh_in_seconds");
            SSL_CTX_free(ctx);
        }
        assert_true(sum > 20 * rows[i].least && sum < 20 * rows[i].most); /* spread */
    }
    assert_int_equal(requestCount(), 1);
    stored_at = wallNow();
    for (int i = 0; requestCount() == 1; i++) { /* a restart every 10 minutes */
        restartEngine();
        ctx = loadLeaf();
        runFor(600 * 1000);
        SSL_CTX_free(ctx);
        assert_true(i < 7);
    }
}

TEST(cache_sameResponseFromDiskIsNoRecovery, "15") {
    responder.no_next_update = 1;
    options.cache_dir = dir;
    ocsp_env.cache_load = loadAsJustStored;
    ocsp_env.cache_prune = keepOldFiles;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    options.cache_dir = "";
    applyOptions();
    runUntilIdle();
    options.cache_dir = dir;
    applyOptions();
    runFor(599 * 1000);
    long long failures = infoNumber("consecutive_failures");
    assert_true(failures > 3);
    runFor(2 * 1000);
    assertState("expired");
    assert_true(infoNumber("consecutive_failures") >= failures);
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, "answers again"), 0);
    assert_int_not_equal(strlen(infoText("last_error")), 0);
    SSL_CTX_free(ctx);
}

/* ---- the cache directory ----------------------------------------------------------------------------------------- */

TEST(fullDisk_onlyWarns, "16") {
    options.cache_dir = dir;
    applyOptions();
    disk.full = 1;
    responder.validity = 1000;
    SSL_CTX *ctx = loadLeaf();
    runFor(10000 * 1000);
    assert_true(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_WARNING, "disk is full"), 1);
    assert_true(disk.writes < 200);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    disk.full = 0;
    runFor(1000 * 1000);
    assert_int_equal(testCountFiles(dir), 1);
    SSL_CTX_free(ctx);
}

/* A response that could not be stored is stored as soon as the disk has room, without a new request. */
TEST(fullDisk_getsTheCurrentResponseOnceItHasRoom, "16") {
    options.cache_dir = dir;
    applyOptions();
    disk.full = 1;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(disk.writes, 1);
    assert_int_equal(testCountFiles(dir), 0);
    disk.full = 0;
    runFor(61 * 1000);
    assert_int_equal(testCountFiles(dir), 1);
    assert_int_equal(disk.writes, 2);
    assert_int_equal(requestCount(), 1);
    SSL_CTX_free(ctx);
}

/* Pruning reads every cached file: it runs with the first store, then at most hourly. */
TEST(prune_runsAtMostHourly, "16") {
    options.cache_dir = dir;
    applyOptions();
    responder.validity = 600;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(disk.writes, 1);
    assert_int_equal(disk.prunes, 1);
    runFor(3500 * 1000);
    assert_true(disk.writes > 5);
    assert_int_equal(disk.prunes, 1);
    runFor(2 * 3600 * 1000);
    assert_true(disk.prunes >= 2 && disk.prunes <= 3);
    int before = disk.prunes;
    char *other = testPath(dir, "other");
    assert_int_equal(mkdir(other, 0700), 0);
    options.cache_dir = other; /* another directory is pruned too */
    applyOptions();
    runUntilIdle();
    assert_int_equal(disk.prunes, before + 1);
    SSL_CTX_free(ctx);
    free(other);
}

TEST(cache_tenRenewedCertificatesInARow, "16") {
    options.cache_dir = dir;
    applyOptions();
    for (int i = 0; i < 10; i++) {
        X509 *leaf = testCert(&(testCertSpec){.name = "r",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .serial = "0ABC",
                                              .key = pki->leaf_key,
                                              .urls = {TEST_URL}});
        SSL_CTX *ctx = loadContext(leaf, pki->leaf_key, pki->ca);
        runFor(2000);
        assert_true(isStapled(ctx));
        assert_int_equal(testCountFiles(dir), i + 1);
        SSL_CTX_free(ctx);
        X509_free(leaf);
    }
}

static int writes_at_second_fetch;
static void noteWrites(const ocspIoHooks *wait) {
    (void)wait;
    if (requestCount() == 2) writes_at_second_fetch = disk.writes;
}

/* The second certificate's responder may hang: the first response must be on disk by then. */
TEST(cache_firstResponseIsStoredBeforeTheSecondIsFetched) {
    options.cache_dir = dir;
    applyOptions();
    responder.during_fetch = noteWrites;
    writes_at_second_fetch = 0;
    SSL_CTX *ctx = loadTwoCertificates();
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    assert_int_equal(writes_at_second_fetch, 1);
    assert_int_equal(testCountFiles(dir), 2);
    SSL_CTX_free(ctx);
}

/* ---- what a restart must not staple ------------------------------------------------------------------------------ */

static char *cacheFile(const char *in_dir) {
    char name[100];
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    snprintf(name, sizeof(name), "ocsp-%s.der", id->sha256_hex);
    ocspIdentityFree(id);
    return testPath(in_dir, name);
}

/* certStatus in the cached file of pki->leaf: V_OCSP_CERTSTATUS_..., or -1: no file. */
static int cachedStatus(const char *in_dir) {
    char *path = cacheFile(in_dir);
    int status = -1;
    if (access(path, F_OK) == 0) {
        testBytes der = testReadFile(path);
        const unsigned char *p = der.p;
        OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)der.n);
        OCSP_BASICRESP *basic = OCSP_response_get1_basic(response);
        status = OCSP_single_get0_status(OCSP_resp_get0(basic, 0), NULL, NULL, NULL, NULL);
        OCSP_BASICRESP_free(basic);
        OCSP_RESPONSE_free(response);
        testBytesFree(&der);
    }
    free(path);
    return status;
}

static void writeCached(const char *in_dir, testStatus status, time_t this_update) {
    char *path = cacheFile(in_dir);
    testReply reply = testGoodReply(pki->leaf);
    reply.singles[0].status = status;
    reply.singles[0].this_update = this_update;
    testBytes der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    free(path);
}

/* The current response is good and cached in `dir`. */
static SSL_CTX *startWithGoodCached(void) {
    options.cache_dir = dir;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_GOOD);
    runFor(5000);
    return ctx;
}

/* The next response has another status. */
static void refreshTo(int revoked) {
    responder.revoked = revoked;
    SSL_CTX_free(loadLeaf());
    runUntilIdle();
    assertState(revoked ? "revoked" : "good");
}

static void assertNoStapleAfterRestart(void) {
    responder.down = 1;
    restartEngine();
    SSL_CTX *ctx = loadLeaf();
    ocspThreadPrime();
    assert_false(isStapled(ctx));
    runFor(5000);
    assert_false(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(revoked_onAFullDiskIsNotUndoneByARestart, "16") {
    SSL_CTX *ctx = startWithGoodCached();
    disk.full = 1;
    refreshTo(1);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "a restart will refetch"), 1);
    SSL_CTX_free(ctx);
    assertNoStapleAfterRestart();
}

/* A kill during the store must not undo the revocation either: the outdated file is removed before it. */
TEST(outdatedFile_isRemovedBeforeItsSuccessorIsWritten, "16") {
    SSL_CTX *ctx = startWithGoodCached();
    assert_int_equal(disk.file_was_there, 0);
    refreshTo(0);
    assert_int_equal(disk.file_was_there, 1); /* not outdated: not removed */
    runFor(5000);
    refreshTo(1);
    assert_int_equal(disk.file_was_there, 0);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    SSL_CTX_free(ctx);
}

TEST(outdatedFile_notRemovableIsLoggedOnceAndRetried, "16") {
    SSL_CTX *ctx = startWithGoodCached();
    disk.full = 1;
    unlink_fault = EROFS;
    refreshTo(1);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "which a restart would staple"), 1);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "a restart will refetch"), 0);
    char *path = cacheFile(dir);
    assert_int_equal(logLines(OCSP_LOG_WARNING, strrchr(path, '/')), 1); /* the message names the file */
    free(path);
    assert_int_equal(unlinks_refused, 1);
    runFor(600 * 1000);
    assert_true(unlinks_refused >= 9 && unlinks_refused <= 11); /* once a minute */
    assert_int_equal(logLines(OCSP_LOG_WARNING, "which a restart would staple"), 1);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_GOOD);
    unlink_fault = 0;
    runFor(61 * 1000);
    assert_int_equal(cachedStatus(dir), -1);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "on disk any more"), 1);
    disk.full = 0;
    runFor(61 * 1000);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    SSL_CTX_free(ctx);
}

TEST(outdatedFile_isRemovedWhileStaplingIsOff, "16") {
    SSL_CTX *ctx = startWithGoodCached();
    disk.full = 1;
    unlink_fault = EROFS;
    refreshTo(1);
    options.stapling = 0;
    applyOptions();
    runFor(1000);
    assert_int_equal(ocspThreadStep(), 1000); /* a timed wait: the removal is retried */
    unlink_fault = 0;
    runFor(61 * 1000);
    assert_int_equal(cachedStatus(dir), -1);
    disk.full = 0;
    runFor(61 * 1000);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    assert_int_equal(ocspThreadStep(), -1); /* nothing left to do until woken */
    SSL_CTX_free(ctx);
}

/* A file that is not valid yet may be accepted after a restart. */
TEST(outdatedFile_withAFutureThisUpdateIsRemoved, "16") {
    SSL_CTX *ctx = startWithGoodCached();
    writeCached(dir, TEST_GOOD, wallNow() + 4000); /* thisUpdate in the future: this machine's clock is behind */
    disk.full = 1;
    refreshTo(1);
    assert_int_equal(cachedStatus(dir), -1);
    writeCached(dir, TEST_REVOKED, wallNow() - 100); /* older, with the same status: it stays */
    runFor(61 * 1000);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    SSL_CTX_free(ctx);
}

TEST(outdatedFile_certificateHoldIsRemovedWhenLifted, "16") {
    responder.revoked = 1;
    options.cache_dir = dir;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    runFor(5000);
    disk.full = 1;
    refreshTo(0);
    assert_int_equal(cachedStatus(dir), -1);
    SSL_CTX_free(ctx);
}

/* Neither a previous nor a later cache-dir may keep the good response, or it would be loaded when the operator returns
 * to that directory. */
TEST(outdatedFile_isRemovedFromPreviousCacheDirs, "16") {
    SSL_CTX *ctx = startWithGoodCached();
    char *other = testPath(dir, "other");
    assert_int_equal(mkdir(other, 0700), 0);
    options.cache_dir = other;
    applyOptions();
    runUntilIdle();
    assert_int_equal(cachedStatus(other), V_OCSP_CERTSTATUS_GOOD);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_GOOD); /* another server may use it */
    options.cache_dir = "";
    applyOptions();
    runFor(5000);
    refreshTo(1);
    assert_int_equal(cachedStatus(dir), -1);
    assert_int_equal(cachedStatus(other), -1);
    options.cache_dir = dir;
    applyOptions();
    runUntilIdle();
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    writeCached(other, TEST_GOOD, wallNow() - 100);
    options.cache_dir = other;
    disk.full = 1;
    applyOptions();
    runUntilIdle();
    assert_int_equal(cachedStatus(other), -1);
    free(other);
    SSL_CTX_free(ctx);
}

/* A response from response-file is not cached; an older cached one must not come back when it expires. */
TEST(outdatedFile_isRemovedWhenResponseFileRevokes, "24") {
    SSL_CTX *ctx = startWithGoodCached();
    char *path = testPath(dir, "response_file.der");
    testReply reply = testGoodReply(pki->leaf);
    reply.singles[0].status = TEST_REVOKED;
    reply.singles[0].this_update = wallNow();
    testBytes der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    options.response_file = path;
    applyOptions();
    runFor(2000);
    assertState("revoked");
    assert_int_equal(cachedStatus(dir), -1);
    options.response_file = "";
    SSL_CTX_free(ctx);
    assertNoStapleAfterRestart();
    testBytesFree(&der);
    free(path);
}

/* Two servers share one cache-dir, and this one's responder lags behind. */
TEST(sharedCache_newerResponseOfAnotherServerIsAdopted, "16") {
    responder.this_update = TEST_NOW - 1000;
    writeCached(dir, TEST_GOOD, TEST_NOW - 2000);
    SSL_CTX *ctx = startWithGoodCached();
    assert_int_equal(infoNumber("this_update"), TEST_NOW - 2000);
    writeCached(dir, TEST_REVOKED, TEST_NOW - 500); /* stored by the other server */
    SSL_CTX_free(loadLeaf());
    runUntilIdle();
    assertState("revoked");
    assert_string_equal(infoText("response_source"), "cache");
    assert_int_equal(infoNumber("this_update"), TEST_NOW - 500);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    assert_int_equal(disk.writes, 0);
    assert_true(isStapled(ctx));
    /* A later response of this server's responder is newer and replaces it. */
    responder.this_update = 0;
    runFor(5000);
    refreshTo(0);
    assert_int_equal(cachedStatus(dir), V_OCSP_CERTSTATUS_GOOD);
    SSL_CTX_free(ctx);
}

/* ---- the age of a file ------------------------------------------------------------------------------------------- */

/* Without nextUpdate a response is valid for ten minutes from its receipt. A copied file has a new mtime, but its
 * response was signed before. */
TEST(noNextUpdate_copiedFileDoesNotRestartTheValidity, "16") {
    responder.no_next_update = 1;
    ocsp_env.cache_load = loadAsJustStored;
    ocsp_env.cache_prune = keepOldFiles;
    SSL_CTX *ctx = startWithGoodCached();
    SSL_CTX_free(ctx);
    responder.down = 1;
    static const struct {
        int64_t passes;
        long long expires; /* 0: nothing is stapled */
    } starts[] = {{0, 600}, {200, 600}, {200, 495}, {400, 95}, {94, 1}, {1, 0}, {100, 0}};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        advance(starts[i].passes * 1000);
        restartEngine();
        ctx = loadLeaf();
        ocspThreadPrime();
        assert_int_equal(isStapled(ctx), starts[i].expires > 0);
        assert_int_equal(infoNumber("expires_in_seconds"), starts[i].expires > 0 ? starts[i].expires : -1);
        SSL_CTX_free(ctx);
    }
}

/* thisUpdate may be rounded down to the hour: producedAt then says when the response was signed. */
TEST(noNextUpdate_recentResponseIsStapledAfterARestart, "16") {
    ocsp_env.cache_load = loadAsJustStored;
    testReply reply = testGoodReply(pki->leaf);
    reply.singles[0].next_update = 0;
    reply.singles[0].this_update = TEST_NOW - 3000;
    reply.produced_at = TEST_NOW - 30;
    options.cache_dir = dir;
    applyOptions();
    responder.down = 1;
    char *path = cacheFile(dir);
    testBytes der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    SSL_CTX *ctx = loadLeaf();
    ocspThreadPrime();
    assert_true(isStapled(ctx));
    assert_int_equal(infoNumber("expires_in_seconds"), 600);
    SSL_CTX_free(ctx);
    reply.produced_at = TEST_NOW - 901;
    der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    restartEngine();
    ctx = loadLeaf();
    ocspThreadPrime();
    assert_false(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "signed more than"), 1);
    SSL_CTX_free(ctx);
    free(path);
}
