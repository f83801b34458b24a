/* test_options.c - directives that change at run time, and a response supplied by response-file.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
        assert_in_range(infoNumber("next_refresh_in_seconds"), 1790, 3000);
        options.max_interval = 36000;
        applyOptions();
        runFor(1000);
        assert_in_range(infoNumber("next_refresh_in_seconds"), 23390, 35400);
        options.max_interval = 0;
        applyOptions();
        runFor(1000);
        assert_in_range(infoNumber("next_refresh_in_seconds"), by_margin - 10, by_margin - 1);
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
