/* test_options.c - directives that change at run time, and a response supplied by response-file.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/pem.h>

FIXTURE(worldSetUp, worldTearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* ---- directives changed at run time ------------------------------------------------------------------------------ */

TEST(stapling_offAndOnActWithTheNextHandshake, "18") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    for (int i = 0; i < 5; i++) {
        options.stapling = 0;
        applyOptions();
        assert_false(isStapled(ctx)); /* before the worker has run */
        assertState("disabled");
        runFor(10000);
        assert_false(isStapled(ctx));
        options.stapling = 1;
        applyOptions();
        assert_true(isStapled(ctx));
        runFor(1000);
        assert_true(isStapled(ctx));
        assertState("good");
    }
    assert_int_equal(requestCount(), 1);
    options.stapling = 0;
    applyOptions();
    runFor(3LL * TEST_DAY * 1000);
    assert_int_equal(requestCount(), 1); /* off: no requests */
    options.stapling = 1;
    applyOptions();
    assert_false(isStapled(ctx)); /* expired meanwhile */
    runFor(1000);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* Without a valid response, turning stapling on fetches at once, however long the wait for the next retry is. */
TEST(stapling_onWithoutResponseAsksAtOnce, "18") {
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runFor(3600 * 1000);
    int n = requestCount();
    while (requestCount() == n) runFor(1000); /* the next retry is minutes away */
    n = requestCount();
    for (int on = 0; on < 2; on++) {
        options.stapling = on;
        applyOptions();
        runFor(2000);
        assert_int_equal(requestCount(), n + on);
    }
    SSL_CTX_free(ctx);
}

TEST(stapling_offAtStartAsksNobody) {
    options.stapling = 0;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runFor(100 * 1000);
    assert_int_equal(requestCount(), 0);
    assertState("disabled");
    assert_false(isStapled(ctx));
    options.stapling = 1;
    applyOptions();
    runUntilIdle();
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(refreshMargin_widerActsAtOnce, "18") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    runFor(50000 * 1000LL); /* of 86400 seconds */
    assert_int_equal(requestCount(), 1);
    options.refresh_margin = 50;
    applyOptions();
    runFor(1000);
    assert_int_equal(requestCount(), 2);
    SSL_CTX_free(ctx);
}

TEST(maxInterval_valuesThatAreAccepted, "18") {
    static const char *const good[] = {"0", "60", "61", "3600", "604800"},
                             *const bad[] = {"1",   "59",  "604801", "-1",  "-60", "",
                                             "abc", "60s", " 60",    "1.5", "60 ", "99999999999999999999"};
    const char *why = NULL;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) assert_true(ocspCheckMaxInterval(good[i], &why));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        why = NULL;
        assert_false(ocspCheckMaxInterval(bad[i], &why));
        assert_non_null(strstr(why, "60 to 604800"));
    }
}

/* A shorter interval counts from the last answer, not from now; a longer one or 0 takes the refresh back. */
TEST(maxInterval_changesActAtOnce, "18") {
    responder.validity = 10 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runFor(600 * 1000);
    long long by_margin = infoNumber("next_refresh_in_seconds");
    assert_true(by_margin > 6 * TEST_DAY);
    for (int i = 0; i < 3; i++) {
        options.max_interval = 3600;
        applyOptions();
        runFor(1000);
        testAssertRange(infoNumber("next_refresh_in_seconds"), 1790, 3000);
        options.max_interval = 36000;
        applyOptions();
        runFor(1000);
        testAssertRange(infoNumber("next_refresh_in_seconds"), 23390, 35400);
        options.max_interval = 0;
        applyOptions();
        runFor(1000);
        testAssertRange(infoNumber("next_refresh_in_seconds"), by_margin - 10, by_margin - 1);
    }
    assert_int_equal(requestCount(), 1);
    options.max_interval = 60; /* over since long: soon, but not at once */
    applyOptions();
    runFor(6000);
    assert_int_equal(requestCount(), 2);
    options.max_interval = 3600;
    applyOptions();
    options.stapling = 0;
    applyOptions();
    runFor(TEST_DAY * INT64_C(1000));
    options.stapling = 1; /* over: within a tenth */
    applyOptions();
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    runFor(360 * 1000);
    assert_int_equal(requestCount(), 3);
    SSL_CTX_free(ctx);
}

TEST(retryDelay_shorterActsAtOnce, "18") {
    options.retry_delay = 200;
    applyOptions();
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    options.retry_delay = 1;
    applyOptions();
    runFor(1300);
    assert_int_equal(requestCount(), 2);
    SSL_CTX_free(ctx);
}

/* ---- proxy ------------------------------------------------------------------------------------------------------- */

static char proxy_asked[64];
static ocspFetchResult (*next_fetch)(const ocspExchange *, unsigned char **, size_t *, ocspError *);

static ocspFetchResult noteProxy(const ocspExchange *exchange, unsigned char **body, size_t *len, ocspError *err) {
    snprintf(proxy_asked, sizeof(proxy_asked), "%s", exchange->proxy);
    return next_fetch(exchange, body, len, err);
}

static void noteProxies(void) {
    next_fetch = ocsp_env.fetch;
    ocsp_env.fetch = noteProxy;
}

TEST(proxy_changedFetchesAtOnceAfterAFailure, "18") {
    noteProxies();
    responder.down = 1;
    options.proxy = "http://one:1";
    options.retry_delay = 3600;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(requestCount(), 1);
    assert_string_equal(proxy_asked, "http://one:1");
    responder.down = 0;
    options.proxy = "none";
    applyOptions();
    runFor(2000);
    assert_int_equal(requestCount(), 2);
    assert_string_equal(proxy_asked, "none");
    assert_true(isStapled(ctx));

    options.proxy = "http://two:2"; /* what works is not tried again */
    applyOptions();
    runFor(60 * 1000);
    assert_int_equal(requestCount(), 2);

    responder.down = 1; /* a valid response, but the last refresh failed */
    setWallClock(((int64_t)TEST_NOW + TEST_DAY - 3600) * 1000);
    runFor(1000);
    assert_int_equal(requestCount(), 3);
    assert_int_equal(infoNumber("consecutive_failures"), 1);
    assert_true(isStapled(ctx));
    responder.down = 0;
    options.proxy = "";
    applyOptions();
    runFor(2000);
    assert_int_equal(requestCount(), 4);
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    SSL_CTX_free(ctx);
}

/* An expired response is none. */
TEST(proxy_changedFetchesAtOnceWithoutAValidResponse, "18") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    options.stapling = 0;
    applyOptions();
    runFor(3LL * TEST_DAY * 1000);
    options.stapling = 1;
    options.proxy = "none";
    applyOptions();
    runFor(2000);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

static void changeProxyDuringFetch(const ocspIoHooks *wait) {
    assert_false(wait->cancelled());
    responder.during_fetch = NULL;
    options.proxy = "none";
    applyOptions();
}

TEST(proxy_changedCancelsTheFetch, "18") {
    noteProxies();
    responder.during_fetch = changeProxyDuringFetch;
    options.proxy = "http://hangs:1";
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(atomic_load(&responder.cancelled), 1);
    runFor(2000);
    assert_string_equal(proxy_asked, "none");
    assert_true(isStapled(ctx));
    assert_int_equal(infoNumber("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

/* ---- issuer-file ------------------------------------------------------------------------------------------------- */

static char *issuer_file;
static int looks, reads; /* at files */

static uint64_t countLook(const char *path) {
    looks++;
    return real_env.file_signature(path);
}

static int countRead(const char *path, size_t max, unsigned char **bytes, size_t *len, int64_t *mtime, ocspError *err) {
    reads++;
    return real_env.read_file(path, max, bytes, len, mtime, err);
}

static void writeIssuers(X509 *a, X509 *b) {
    BIO *out = BIO_new(BIO_s_mem());
    char *text, *next = testPath(dir, "next");
    assert_true(PEM_write_bio_X509(out, a));
    if (b) assert_true(PEM_write_bio_X509(out, b));
    long n = BIO_get_mem_data(out, &text);
    testWriteFile(next, text, (size_t)n);
    assert_int_equal(rename(next, issuer_file), 0);
    BIO_free(out);
    free(next);
}

/* A context with neither the issuer nor a trust anchor; counts what is read from the disk. */
static SSL_CTX *loadWithoutIssuer(void) {
    issuer_file = testPath(dir, "issuer.pem");
    looks = reads = 0;
    ocsp_env.file_signature = countLook;
    ocsp_env.read_file = countRead;
    SSL_CTX *ctx = loadContext(pki->leaf, pki->leaf_key, NULL);
    runUntilIdle();
    return ctx;
}

static void setIssuerFile(const char *path) {
    options.issuer_file = path;
    applyOptions();
    runFor(1000);
}

TEST(issuerFile_setAtRunTime, "1") {
    SSL_CTX *ctx = loadWithoutIssuer();
    runFor(100 * 1000);
    assertState("no-issuer");
    assert_int_equal(looks + reads, 0); /* costs nothing while it is not set */
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "in tls-ca-cert-file or in issuer-file"), 1);
    writeIssuers(pki->twin, pki->ca);
    setIssuerFile(issuer_file);
    assertState("good");
    assert_true(isStapled(ctx));
    assert_int_equal(reads, 1);
    runFor(100 * 1000);
    assert_int_equal(reads, 1); /* read when it changes, not every second */
    assert_true(looks > 50);
    assert_int_equal(logLines(OCSP_LOG_WARNING, NULL), 0);

    setIssuerFile(""); /* what worked stays, also after a reload */
    SSL_CTX *again = loadContext(pki->leaf, pki->leaf_key, NULL);
    runFor(2000);
    assertState("good");
    assert_true(isStapled(again));
    SSL_CTX *other = loadContext(pki->renewed_leaf, pki->leaf_key, NULL); /* the file is not used any more */
    runFor(2000);
    assertState("no-issuer");
    assert_false(isStapled(other));
    SSL_CTX_free(other);
    SSL_CTX_free(again);
    SSL_CTX_free(ctx);
    free(issuer_file);
}

TEST(issuerFile_wrongOneOfTheSameNameThenSwapped, "1") {
    SSL_CTX *ctx = loadWithoutIssuer();
    writeIssuers(pki->twin, NULL);
    setIssuerFile(issuer_file);
    runFor(5000);
    assertState("no-issuer");
    assert_int_equal(requestCount(), 0);
    assert_int_equal(logLines(OCSP_LOG_WARNING, NULL), 0); /* the file is sound */
    writeIssuers(pki->ca, NULL);
    runFor(2000);
    assertState("good");
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
    free(issuer_file);
}

TEST(issuerFile_missingAtTheStartAppearsLater, "1") {
    char *path = testPath(dir, "issuer.pem");
    options.issuer_file = path;
    applyOptions();
    SSL_CTX *ctx = loadWithoutIssuer();
    ocspThreadPrime(); /* before the first accept */
    runFor(200 * 1000);
    assertState("no-issuer");
    assert_int_equal(logLines(OCSP_LOG_WARNING, "issuer-file: "), 1);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "issuer.pem cannot be opened: No such file or directory. Put"), 1);
    writeIssuers(pki->ca, NULL);
    runFor(2000);
    assertState("good");
    assert_true(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "issuer-file: certificates read: 1"), 1);
    SSL_CTX_free(ctx);
    free(issuer_file);
    free(path);
}

/* Before the first accept main reads it, so that a cached response is stapled to the first handshake. */
TEST(issuerFile_isReadBeforeTheFirstAccept, "1") {
    SSL_CTX *ctx = loadWithoutIssuer();
    writeIssuers(pki->ca, NULL);
    options.cache_dir = dir;
    setIssuerFile(issuer_file);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
    restartEngine();
    ctx = loadContext(pki->leaf, pki->leaf_key, NULL);
    ocspThreadPrime();
    assert_true(isStapled(ctx));
    assert_int_equal(requestCount(), 1);
    SSL_CTX_free(ctx);
    free(issuer_file);
}

/* One warning each, and what was read before is still used. */
TEST(issuerFile_brokenOnes, "1") {
    SSL_CTX *ctx = loadWithoutIssuer();
    char *big = calloc(1, OCSP_MAX_ISSUER_FILE + 1);
    writeIssuers(pki->ca, NULL);
    setIssuerFile(issuer_file);
    assertState("good");
    for (int i = 0; i < 6; i++) {
        static const char *const words[] = {"has no certificate in PEM form",
                                            "is not a regular file",
                                            "is not a regular file",
                                            "has 0 bytes, where 1 to 1048576 are allowed",
                                            "has 1048577 bytes, where 1 to 1048576 are allowed",
                                            "cannot be opened"};
        unlink(issuer_file);
        if (i == 0) testWriteFile(issuer_file, "junk", 4);
        if (i == 1) assert_int_equal(mkfifo(issuer_file, 0600), 0); /* nobody writes: must not block */
        if (i == 2) assert_int_equal(mkdir(issuer_file, 0700), 0);
        if (i == 3) testWriteFile(issuer_file, "", 0);
        if (i == 4) testWriteFile(issuer_file, big, OCSP_MAX_ISSUER_FILE + 1);
        forgetLog();
        runFor(100 * 1000);
        if (logLines(OCSP_LOG_WARNING, words[i]) != 1) fail_msg("%s", words[i]);
        assert_int_equal(logLines(OCSP_LOG_WARNING, NULL), 1);
        assert_int_equal(logLines(OCSP_LOG_WARNING, ", and what was read before stays in use"), 1);
        if (i == 2) rmdir(issuer_file);
        SSL_CTX *renewed = loadContext(i % 2 ? pki->leaf : pki->renewed_leaf, pki->leaf_key, NULL);
        runFor(2000);
        assertState("good");
        assert_true(isStapled(renewed));
        SSL_CTX_free(renewed);
    }
    /* Another file is another matter. */
    char *other = testPath(dir, "other.pem");
    forgetLog();
    setIssuerFile(other);
    SSL_CTX *must = loadContext(pki->must_leaf, pki->leaf_key, NULL);
    runFor(2000);
    assertState("no-issuer");
    assert_int_equal(logLines(OCSP_LOG_WARNING, "other.pem cannot be opened"), 1);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "stays in use"), 0);
    SSL_CTX_free(must);
    SSL_CTX_free(ctx);
    free(other);
    free(issuer_file);
    free(big);
}

/* Permissions are no change that shows in the signature: while an issuer is missing, it is tried again each minute. */
TEST(issuerFile_unreadableIsTriedAgainWhileTheIssuerIsMissing, "1") {
    SSL_CTX *ctx = loadWithoutIssuer();
    setIssuerFile(issuer_file);
    int before = reads;
    runFor(181 * 1000);
    testAssertRange(reads - before, 2, 6);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "issuer-file"), 1);
    SSL_CTX_free(ctx);
    free(issuer_file);
}

TEST(issuerFile_isNotReadWhileStaplingIsOff, "1") {
    options.stapling = 0;
    applyOptions();
    SSL_CTX *ctx = loadWithoutIssuer();
    writeIssuers(pki->ca, NULL);
    setIssuerFile(issuer_file);
    runFor(5000);
    assert_int_equal(looks + reads, 0);
    options.stapling = 1;
    applyOptions();
    runFor(2000);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
    free(issuer_file);
}

static int anchors;
static ocspFetchResult noteAnchors(const ocspExchange *exchange, unsigned char **body, size_t *len, ocspError *err) {
    anchors = testStoreSize(exchange->store);
    return next_fetch(exchange, body, len, err);
}

TEST(issuerFile_isNoTrustAnchor, "1") {
    next_fetch = ocsp_env.fetch;
    ocsp_env.fetch = noteAnchors;
    anchors = -1;
    SSL_CTX *ctx = loadWithoutIssuer();
    writeIssuers(pki->ca, NULL);
    setIssuerFile(issuer_file);
    assert_true(isStapled(ctx));
    assert_int_equal(anchors, 0);
    assert_int_equal(testStoreSize(SSL_CTX_get_cert_store(ctx)), 0);
    SSL_CTX_free(ctx);
    free(issuer_file);
}

/* ---- response-file ----------------------------------------------------------------------------------------------- */

static char *response_file;
static void writeResponseFile(const testReply *reply) {
    testBytes der = testReplyDer(reply);
    char *next = testPath(dir, "next");
    testWriteFile(next, der.p, der.n);
    assert_int_equal(rename(next, response_file), 0); /* another inode: noticed whatever the resolution of mtimes */
    free(next);
    testBytesFree(&der);
}

TEST(responseFile_isReadAgainWhenItChanges, "24") {
    response_file = testPath(dir, "response.der");
    options.response_file = response_file;
    applyOptions();
    testReply reply = testGoodReply(pki->leaf);
    writeResponseFile(&reply);
    SSL_CTX *ctx = loadLeaf();
    ocspThreadPrime(); /* before the first accept */
    assert_true(isStapled(ctx));
    assert_string_equal(infoText("response_source"), "file");
    assertState("good");

    reply.singles[0].this_update -= 1000; /* older, but an operator-supplied file always wins */
    writeResponseFile(&reply);
    runFor(2000);
    assert_int_equal(infoNumber("this_update"), reply.singles[0].this_update);
    assert_true(isStapled(ctx));

    reply.singles[0].status = TEST_REVOKED;
    writeResponseFile(&reply);
    runFor(2000);
    assertState("revoked");
    assert_true(isStapled(ctx));

    reply.singles[0].status = TEST_GOOD;
    writeResponseFile(&reply);
    runFor(2000);
    assertState("good");

    reply.singles[0].cert = pki->renewed_leaf; /* for a certificate that is loaded later: no error, not stapled */
    long long failures = infoNumber("refresh_failures");
    writeResponseFile(&reply);
    runFor(2000);
    assert_int_equal(infoNumber("refresh_failures"), failures);
    assert_int_equal(infoNumber("this_update"), TEST_NOW - 3600 - 1000);
    assert_true(isStapled(ctx)); /* verified for pki->leaf: the current response stays */
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    runFor(2000);
    assert_true(isStapled(renewed));     /* the file serves it once it is loaded */
    assert_int_equal(requestCount(), 0); /* no requests */
    SSL_CTX_free(renewed);
    SSL_CTX_free(ctx);
    free(response_file);
}

/* max-interval has no effect on a supplied file, and does not start before the responder's next answer. */
TEST(responseFile_isNotReadForMaxInterval) {
    response_file = testPath(dir, "response.der");
    options.max_interval = 60;
    options.retry_delay = 3600;
    responder.validity = 10 * TEST_DAY;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(requestCount(), 1);
    testReply reply = testGoodReply(pki->leaf);
    options.response_file = response_file;
    for (int own = 0; own < 2; own++) { /* for another certificate, so that the current response stays; for this one */
        reply.singles[0].cert = own ? pki->leaf : pki->renewed_leaf;
        writeResponseFile(&reply);
        applyOptions();
        runFor(2000);
        assert_string_equal(infoText("response_source"), own ? "file" : "network");
        long long refreshes = infoNumber("refreshes");
        runFor(1000 * 1000);
        assert_int_equal(infoNumber("refreshes"), refreshes);
        assert_int_equal(infoNumber("next_refresh_in_seconds"), -1);
    }
    responder.down = 1;
    options.response_file = "";
    applyOptions();
    runFor(2000);
    assert_int_equal(requestCount(), 2);
    assert_true(infoNumber("next_refresh_in_seconds") > 600); /* the retry */
    responder.down = 0;
    SSL_CTX_free(ctx);
    free(response_file);
}

/* The remedy differs: no request is sent for a supplied file. */
TEST(responseFile_withoutSha1CertIdIsLogged) {
    response_file = testPath(dir, "response.der");
    options.response_file = response_file;
    applyOptions();
    testReply reply = testGoodReply(pki->leaf);
    reply.singles[0].md = EVP_sha256();
    writeResponseFile(&reply);
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_true(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "CertID with SHA256"), 1);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "request the response for response-file"), 1);
    SSL_CTX_free(ctx);
    free(response_file);
}

TEST(responseFile_invalidExpiredOrRemoved, "24") {
    response_file = testPath(dir, "response.der");
    options.response_file = response_file;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runFor(2000);
    assertState("pending"); /* no such file yet */
    assert_true(infoNumber("failures_network") >= 1);
    testReply reply = testGoodReply(pki->leaf), bad = reply;
    bad.break_signature = 1;
    writeResponseFile(&bad);
    runFor(2000);
    assert_false(isStapled(ctx));
    assert_true(infoNumber("failures_verify") >= 1);
    reply.singles[0].next_update = TEST_NOW + 1000;
    writeResponseFile(&reply);
    runFor(2000);
    assert_true(isStapled(ctx));
    assert_string_equal(infoText("last_error"), "");
    writeResponseFile(&bad);
    runFor(2000);
    assert_true(isStapled(ctx)); /* the current response stays */
    unlink(response_file);
    runFor(2000);
    assert_true(isStapled(ctx));
    runFor(1000 * 1000);
    assert_false(isStapled(ctx)); /* until it expires */
    assertState("expired");
    assert_int_equal(requestCount(), 0);
    SSL_CTX_free(ctx);
    free(response_file);
}

TEST(responseFile_replacedBySymbolicLink, "24") {
    char *one = testPath(dir, "one"), *two = testPath(dir, "two"), *next = testPath(dir, "next");
    response_file = testPath(dir, "current");
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);
    testWriteFile(one, der.p, der.n);
    testBytesFree(&der);
    reply.singles[0].status = TEST_REVOKED;
    der = testReplyDer(&reply);
    testWriteFile(two, der.p, der.n);
    testBytesFree(&der);
    assert_int_equal(symlink(one, response_file), 0);
    options.response_file = response_file;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runFor(2000);
    assertState("good");
    assert_int_equal(symlink(two, next), 0);
    assert_int_equal(rename(next, response_file), 0); /* as Kubernetes does */
    runFor(2000);
    assertState("revoked");
    SSL_CTX_free(ctx);
    free(one);
    free(two);
    free(next);
    free(response_file);
}
