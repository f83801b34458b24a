/* test_engine.c - the engine as a host sees it: fetch, verify, publish, staple; states, URLs, rejected and revoked
 * responses. Refreshes over time are in test_refresh.c, the disk in test_persist.c, reloads in test_reload.c,
 * directives in test_options.c, the real thread in test_threads.c; what they share is in world.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

FIXTURE(worldSetUp, worldTearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* ---- the first staple -------------------------------------------------------------------------------------------- */

TEST(staple_isFetchedVerifiedAndSentInBothVersions) {
    SSL_CTX *ctx = loadLeaf();
    assert_false(isStapled(ctx));
    assertState("no-tls"); /* the worker has not run yet */
    runUntilIdle();
    assertState("good");
    assert_true(isStapled(ctx));
    assert_int_equal(requestCount(), 1);
    assert_string_equal(responder.url[0], TEST_URL);
    assert_string_equal(infoText("cert_serial"), "0ABC");
    assert_string_equal(infoText("responder_url"), TEST_URL);
    assert_string_equal(infoText("response_source"), "network");
    assert_string_equal(infoText("last_error"), "");
    assert_int_equal(infoNumber("this_update"), TEST_NOW);
    assert_int_equal(infoNumber("next_update"), TEST_NOW + TEST_DAY);
    assert_int_equal(infoNumber("produced_at"), TEST_NOW);
    assert_int_equal(infoNumber("expires_in_seconds"), TEST_DAY);
    assert_int_equal(infoNumber("revoked"), 0);
    assert_int_equal(infoNumber("refreshes"), 1);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    assert_int_equal(infoNumber("last_success_time"), TEST_NOW);
    assert_true(infoNumber("response_bytes") > 100);
    long long next = infoNumber("next_refresh_in_seconds");
    assert_true(next <= TEST_DAY * 9 / 10 && next >= TEST_DAY * 72 / 100 - 1);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, NULL), 1);
    SSL_CTX_free(ctx);
}

TEST(staple_isNotSentToAClientThatDoesNotAsk) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    long long before = infoNumber("handshakes_stapled"), none = infoNumber("handshakes_unstapled");
    testShake shake = testHandshake(ctx, tls13, 0);
    assert_true(shake.ok);
    assert_false(shake.got_staple);
    testShakeFree(&shake);
    assert_int_equal(infoNumber("handshakes_stapled"), before);
    assert_int_equal(infoNumber("handshakes_unstapled"), none);
    assert_true(isStapled(ctx));
    assert_int_equal(infoNumber("handshakes_stapled"), before + 2);
    SSL_CTX_free(ctx);
}

TEST(counters_areResetAndNothingElse) {
    static const char *const fields[] = {"refreshes",          "refresh_failures",     "failures_network",
                                         "handshakes_stapled", "handshakes_unstapled", "peers_verified"};
    SSL_CTX *ctx = loadLeaf();
    ocspResetCounters();
    assert_false(isStapled(ctx));
    runUntilIdle();
    assert_true(isStapled(ctx));
    responder.down = 1;
    runFor(7 * TEST_DAY * INT64_C(1000) / 2);
    assert_true(infoNumber("failures_network") > 0 && infoNumber("handshakes_stapled") == 2 &&
                infoNumber("handshakes_unstapled") == 2);
    long long failures = infoNumber("consecutive_failures"), total = infoNumber("refreshes");
    assert_true(failures > 0 && total > failures);
    ocspResetCounters();
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) assert_int_equal(infoNumber(fields[i]), 0);
    assert_int_equal(infoNumber("consecutive_failures"), failures);
    assert_true(strlen(infoText("last_error")) > 0);
    unsigned number;
    assert_null(ocspPutRequest(&number));
    runUntilIdle();
    assert_int_equal(infoNumber("refreshes"), 1);
    assert_int_equal(infoNumber("refresh_failures"), 1);
    assert_int_equal(infoNumber("failures_network"), 1);
    SSL_CTX_free(ctx);
    restartEngine();
    assert_int_equal(infoNumber("refreshes"), 0);
}

/* One context serves both roles where no tls-client-cert-file is set: there 0 would mean "reject". */
TEST(callback_acceptsOnTheClientSide, "21") {
    SSL_CTX *ctx = loadLeaf();
    SSL_CTX *both = testClientCtx(TLS1_3_VERSION, 0);
    ocspInstallCallbackAs(both, OCSP_CONTEXT_OF_SERVER);
    long long unstapled = infoNumber("handshakes_unstapled");
    for (int stapled = 0; stapled < 2; stapled++) { /* before and after the first refresh */
        testShake shake = testHandshake(ctx, both, 1);
        assert_true(shake.ok);
        assert_int_equal(shake.got_staple, stapled);
        testShakeFree(&shake);
        runUntilIdle();
    }
    assert_int_equal(infoNumber("handshakes_unstapled"), unstapled + 1);
    SSL_CTX_free(both);
    SSL_CTX_free(ctx);
}

/* A large response must not break all clients: TLS 1.2 clients end the handshake at a CertificateStatus
 * of more than 16384 bytes, and TLS 1.3 has 65535 bytes for a certificate's extensions. */
TEST(staple_isLeftOutWhereItIsTooLongForTls) {
    static const struct {
        size_t size;
        int in12, in13;
    } rows[] = {{16380, 1, 1}, {16381, 0, 1}, {20000, 0, 1}, {65527, 0, 1}, {65528, 0, 0}, {65536, 0, 0}};
    char *response_file = testPath(dir, "response.der");
    options.response_file = response_file;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    for (int i = 0; i < 6; i++) {
        testBytes der = testReplyOfSize(testGoodReply(pki->leaf), rows[i].size);
        testWriteFile(response_file, der.p, der.n);
        testBytesFree(&der);
        runFor(2000);
        assert_int_equal(infoNumber("response_bytes"), rows[i].size);
        assert_int_equal(isStapledTo(ctx, tls12), rows[i].in12); /* and no handshake fails */
        assert_int_equal(isStapledTo(ctx, tls13), rows[i].in13);
    }
    SSL_CTX_free(ctx);
    free(response_file);
}

TEST(staple_endsWithTheCertificate) {
    X509 *brief = testCert(&(testCertSpec){.name = "b",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .serial = "0ABC",
                                           .key = pki->leaf_key,
                                           .urls = {TEST_URL},
                                           .not_after = TEST_NOW + 500});
    SSL_CTX *ctx = loadContext(brief, pki->leaf_key, pki->ca);
    runUntilIdle();
    setWallClock(((int64_t)TEST_NOW + 499) * 1000);
    testShake shake = testHandshake(ctx, tls13, 1);
    assert_true(shake.got_staple);
    testShakeFree(&shake);
    setWallClock(((int64_t)TEST_NOW + 500) * 1000);
    shake = testHandshake(ctx, tls13, 1);
    assert_true(shake.ok && !shake.got_staple);
    testShakeFree(&shake);
    SSL_CTX_free(ctx);
    X509_free(brief);
}

TEST(staple_expiresToTheSecond, "12") {
    responder.validity = 1000;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    setWallClock(((int64_t)TEST_NOW + 1000) * 1000 - 1); /* the worker does not run: the handshake checks the clock */
    assert_true(isStapled(ctx));
    assertState("good");
    moveWallClock(1);
    assert_false(isStapled(ctx));
    assertState("expired");
    assert_int_equal(infoNumber("expires_in_seconds"), -1);
    runFor(3600 * 1000);
    assertState("expired");
    assert_false(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_WARNING, "expired"), 1);
    responder.down = 0;
    runFor(300 * 1000);
    assertState("good");
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* ---- states without refreshes ------------------------------------------------------------------------------------ */

static void assertNoRefreshes(const char *name, SSL_CTX *ctx, int lines) {
    runFor(3 * 3600 * 1000);
    assertState(name);
    assert_int_equal(requestCount(), 0);
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, NULL), lines);
    assert_int_equal(logLines(OCSP_LOG_WARNING, NULL), 0);
    if (ctx && SSL_CTX_get0_certificate(ctx)) assert_false(isStapled(ctx));
    assert_int_equal(infoNumber("next_refresh_in_seconds"), -1);
    SSL_CTX_free(ctx);
}

TEST(state_noTls, "2") {
    assertNoRefreshes("no-tls", NULL, 0);
}

TEST(state_noCertificate, "2") {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
    ocspLateAttach(ctx);
    assertNoRefreshes("no-certificate", ctx, 0);
}

TEST(state_selfSigned, "2") {
    assertNoRefreshes("self-signed", loadContext(pki->self, pki->leaf_key, NULL), 1);
}

TEST(state_noIssuer, "2") {
    assertNoRefreshes("no-issuer", loadContext(pki->leaf, pki->leaf_key, NULL), 1);
}

TEST(state_noResponder, "2") {
    assertNoRefreshes("no-responder", loadContext(pki->quiet_leaf, pki->leaf_key, pki->ca), 1);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "responder-url"), 1); /* the notice names the remedy */
}

TEST(issuer_isFoundInTheTrustedStore, "2") {
    SSL_CTX *ctx = testServerCtx(pki->leaf, pki->leaf_key, NULL);
    assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), pki->ca));
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
    ocspLateAttach(ctx);
    runUntilIdle();
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* ---- responder URLs ---------------------------------------------------------------------------------------------- */

TEST(url_secondIsTriedWhenTheFirstIsDead, "4") {
    X509 *leaf = testCert(&(testCertSpec){.name = "two",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .serial = "0ABC",
                                          .urls = {"http://z.test.invalid/", "http://a.test.invalid/"}});
    responder.dead_url = "http://z.test.invalid/";
    SSL_CTX *ctx = loadContext(leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assertState("good");
    assert_int_equal(requestCount(), 2);
    assert_string_equal(responder.url[1], "http://a.test.invalid/");
    assert_string_equal(infoText("responder_url"), "http://a.test.invalid/");
    assert_int_equal(infoNumber("refreshes"), 1);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    SSL_CTX_free(ctx);
    X509_free(leaf);
}

TEST(url_allDeadIsOneFailureThatNamesEach, "4") {
    X509 *leaf = testCert(&(testCertSpec){.name = "two",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .serial = "0ABC",
                                          .urls = {"http://z.test.invalid/", "http://a.test.invalid/"}});
    responder.down = 1;
    SSL_CTX *ctx = loadContext(leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assertState("pending");
    assert_int_equal(infoNumber("refreshes"), 1);
    assert_int_equal(infoNumber("refresh_failures"), 1);
    assert_int_equal(infoNumber("failures_network"), 1);
    assert_non_null(strstr(infoText("last_error"), "http://z.test.invalid/"));
    assert_non_null(strstr(infoText("last_error"), "http://a.test.invalid/"));
    assert_string_equal(infoText("last_error_code"), "connect");
    SSL_CTX_free(ctx);
    X509_free(leaf);
}

/* A response that does not verify leads to the next URL too; a failed refresh counts once, by the kind of its last
 * error. */
TEST(url_secondIsTriedWhenTheFirstResponseIsInvalid, "4") {
    X509 *leaf = testCert(&(testCertSpec){.name = "two",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .serial = "0ABC",
                                          .urls = {"http://z.test.invalid/", "http://a.test.invalid/"}});
    responder.wrong_signer_url = "http://z.test.invalid/";
    responder.dead_url = "http://a.test.invalid/";
    SSL_CTX *ctx = loadContext(leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assertState("pending");
    assert_int_equal(requestCount(), 2);
    assert_int_equal(infoNumber("refresh_failures"), 1);
    assert_int_equal(infoNumber("failures_network"), 1);
    assert_int_equal(infoNumber("failures_verify"), 0);
    assert_string_equal(infoText("last_error_code"), "connect");
    responder.dead_url = NULL;
    runFor(13 * 1000);
    assertState("good");
    assert_int_equal(requestCount(), 4);
    assert_string_equal(infoText("responder_url"), "http://a.test.invalid/");
    SSL_CTX_free(ctx);
    X509_free(leaf);
}

TEST(responderUrl_overridesTheCertificate, "5") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    runFor(5000);
    options.responder_url = "http://other.test.invalid/";
    applyOptions();
    runFor(2000);
    assert_int_equal(requestCount(), 2);
    assert_string_equal(responder.url[1], "http://other.test.invalid/");
    assert_true(isStapled(ctx));
    options.responder_url = "";
    applyOptions();
    runFor(2000);
    assert_int_equal(requestCount(), 3);
    assert_string_equal(responder.url[2], TEST_URL);
    applyOptions(); /* nothing has changed: no request */
    runFor(5000);
    assert_int_equal(requestCount(), 3);
    SSL_CTX_free(ctx);
}

TEST(responderUrl_servesACertificateWithoutUrl, "5") {
    options.responder_url = "http://other.test.invalid/";
    applyOptions();
    SSL_CTX *ctx = loadContext(pki->quiet_leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assertState("good");
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* ---- responses that are rejected --------------------------------------------------------------------------------- */

TEST(rejectedResponses_keepTheCurrentOne, "7") {
    SSL_CTX *ctx = loadLeaf();
    responder.validity = 1000;
    runUntilIdle();
    long long current = infoNumber("this_update");
    static const struct {
        size_t which;
        const char *counter, *word;
    } rows[] = {{0, "failures_network", "connect"},           {1, "failures_http", "http-status"},
                {2, "failures_response", "responder-status"}, {3, "failures_response", "unknown"},
                {4, "failures_verify", "signature"},          {5, "failures_response", "older"}};
    runFor(719000); /* to where jitter may begin */
    for (int i = 0; i < 6; i++) {
        responder.down = i == 0;
        responder.http_status = i == 1 ? 500 : 0;
        responder.response_status = i == 2 ? 3 : 0;
        responder.unknown = i == 3;
        responder.wrong_signer = i == 4;
        responder.this_update = i == 5 ? current - 10 : 0; /* older than the current response */
        long long before = infoNumber(rows[i].counter), all = infoNumber("refresh_failures");
        while (infoNumber("refresh_failures") == all) runFor(200);
        assert_int_equal(infoNumber(rows[i].counter), before + 1);
        assert_true(isStapled(ctx));
        assert_int_equal(infoNumber("this_update"), current);
        assertState("good");
        assert_true(strlen(infoText("last_error")) > 5);
        assert_string_equal(infoText("last_error_code"), rows[i].word);
        assert_int_equal(infoNumber("consecutive_failures"), i + 1);
    }
    assert_int_equal(infoNumber("refresh_failures"), infoNumber("failures_network") + infoNumber("failures_http") +
                                                         infoNumber("failures_response") +
                                                         infoNumber("failures_verify"));
    responder.this_update = 0;
    while (infoNumber("consecutive_failures")) runFor(200);
    assert_string_equal(infoText("last_error"), "");
    assert_string_equal(infoText("last_error_code"), "");
    assert_true(infoNumber("this_update") > current);
    SSL_CTX_free(ctx);
}

/* ---- revoked ----------------------------------------------------------------------------------------------------- */

TEST(revoked_replacesGoodAndIsRefreshedHourly) {
    responder.validity = 3 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(26LL * TEST_DAY * 100);
    responder.revoked = 1;
    while (!infoNumber("revoked")) runFor(600 * 1000);
    assertState("revoked");
    testShake shake = testHandshake(ctx, tls13, 1);
    assert_true(shake.ok && shake.got_staple); /* the good response must not be stapled any longer */
    testShakeFree(&shake);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "REVOKED"), 1);
    int n = requestCount();
    runFor(10 * 3600 * 1000);
    assert_true(requestCount() - n >= 9 && requestCount() - n <= 13);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "REVOKED"), 1);
    responder.revoked = 0; /* certificateHold was lifted */
    runFor(3600 * 1000);
    assertState("good");
    assert_int_equal(infoNumber("revoked"), 0);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

/* An hourly refresh that brings the same response is no failure: the next one is an hour later, not a retry. */
TEST(revoked_sameResponseIsRefreshedHourly) {
    responder.revoked = 1;
    responder.this_update = TEST_NOW;
    responder.validity = 30 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runFor(10 * 3600 * 1000);
    assertState("revoked");
    assert_true(requestCount() >= 10 && requestCount() <= 13);
    SSL_CTX_free(ctx);
}

TEST(revoked_isNotReplacedByGoodOfTheSameThisUpdate) {
    responder.revoked = 1;
    responder.this_update = TEST_NOW;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.revoked = 0;
    runFor(2 * 3600 * 1000);
    assertState("revoked");
    assert_true(infoNumber("failures_response") > 0);
    SSL_CTX_free(ctx);
}

/* ---- CertIDs ----------------------------------------------------------------------------------------------------- */

/* One notice for each certificate: not one for each refresh or reload, nor when the digest changes. */
TEST(certId_withoutSha1IsLoggedOnce) {
    responder.md = EVP_sha384();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_true(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "CertID with SHA384"), 1);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "configure the responder"), 1);
    responder.md = EVP_sha256();
    runFor(3LL * TEST_DAY * 1000);
    responder.md = NULL;
    runFor(2LL * TEST_DAY * 1000);
    responder.md = EVP_sha256();
    SSL_CTX *again = loadLeaf();
    runFor(2LL * TEST_DAY * 1000);
    assert_true(requestCount() > 5);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "CertID with"), 1);
    assert_int_equal(logLines(OCSP_LOG_WARNING, NULL), 0);
    SSL_CTX *renewed =
        loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca); /* another certificate: one more notice */
    runUntilIdle();
    assert_true(isStapled(renewed));
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "CertID with SHA256"), 1);
    SSL_CTX_free(ctx);
    SSL_CTX_free(again);
    SSL_CTX_free(renewed);
}

TEST(certId_withSha1IsNotLogged) {
    SSL_CTX *ctx = loadLeaf();
    runFor(3LL * TEST_DAY * 1000);
    assert_true(isStapled(ctx));
    assert_int_equal(logLines(OCSP_LOG_DEBUG, "CertID"), 0);
    SSL_CTX_free(ctx);
}

/* ---- two certificates in one context ----------------------------------------------------------------------------- */

TEST(twoCertificates_eachHasItsOwnStaple, "23") {
    SSL_CTX *ctx = loadTwoCertificates();
    X509 *current = SSL_CTX_get0_certificate(ctx);
    assert_int_equal(X509_cmp(current, pki->rsa_leaf), 0); /* not changed by ocspAttachContext */
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    SSL_CTX *clients[] = {tls12, tls13, tls12_rsa, tls13_rsa};
    for (int i = 0; i < 4; i++) {
        testShake shake = testHandshake(ctx, clients[i], 1);
        X509 *expected = i < 2 ? pki->leaf : pki->rsa_leaf;
        assert_true(shake.ok && shake.got_staple);
        assert_int_equal(X509_cmp(shake.peer, expected), 0);
        assert_true(testJudge(shake.staple.p, shake.staple.n, expected, pki->ca, wallNow()));
        assert_false(testJudge(shake.staple.p, shake.staple.n, i < 2 ? pki->rsa_leaf : pki->leaf, pki->ca, wallNow()));
        testShakeFree(&shake);
    }
    assertState("good");
    assert_string_equal(infoText("alt_state"), "good");
    assert_string_not_equal(infoText("cert_serial"), infoText("alt_cert_serial"));
    SSL_CTX *one = loadLeaf();
    runUntilIdle();
    assert_false(infoHas("alt_state"));
    SSL_CTX_free(one);
    SSL_CTX_free(ctx);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static int64_t allocations_until_failure;
static void *scarceAlloc(size_t n) {
    return allocations_until_failure-- == 0 ? NULL : malloc(n);
}

/* Each allocation fails once, in turn: the engine survives, staples nothing invalid, and recovers. */
TEST(memory_oneRefusedAllocationIsSurvived) {
    static const ocspHost host = {.log = worldLog, .alloc = scarceAlloc, .free = free};
    for (int n = 0; n < 120; n++) {
        ocspShutdown();
        forgetLog();
        allocations_until_failure = n;
        if (!ocspInit(&host) && !ocspInit(&host)) fail_msg("ocspInit fails although only one allocation was refused");
        if (!ocspSetOptions(&options)) applyOptions();
        SSL_CTX *ctx = loadLeaf();
        runFor(20 * 1000);
        (void)isStapled(ctx); /* verified by isStapledTo if there is a staple */
        allocations_until_failure = -1;
        SSL_CTX *again = loadLeaf();
        runFor(400 * 1000);
        assert_true(isStapled(again));
        SSL_CTX_free(again);
        SSL_CTX_free(ctx);
    }
}
