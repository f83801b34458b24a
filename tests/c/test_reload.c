/* test_reload.c - TLS reloads: the same certificate, a renewed one, one of two; contexts that are prefetched.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <stdlib.h>

FIXTURE(worldSetUp, worldTearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* ---- the same certificate, and another one ----------------------------------------------------------------------- */

TEST(reload_sameCertificateKeepsItsStaple, "17") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    for (int i = 0; i < 100; i++) {
        SSL_CTX *next = loadLeaf();
        assert_true(isStapled(next)); /* before the worker has run */
        if (i % 3) runUntilIdle();
        assert_true(isStapled(next));
        SSL_CTX_free(ctx);
        ctx = next;
    }
    SSL_CTX_free(ctx);
}

TEST(reload_asksAtOnce, "17") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    runFor(100 * 1000);
    SSL_CTX *again = loadLeaf();
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    SSL_CTX_free(again);
    SSL_CTX_free(ctx);
}

/* Reloads fetch at once, but not sooner than the minimum interval between automatic refreshes. */
TEST(reload_asksAtMostOnceASecond, "17") {
    SSL_CTX *ctx = loadLeaf();
    for (int i = 0; i < 50; i++) {
        runUntilIdle();
        advance(100);
        SSL_CTX_free(ctx);
        ctx = loadLeaf();
        runUntilIdle();
    }
    runFor(3000);
    assert_true(requestCount() >= 5);
    for (int i = 1; i < requestCount(); i++) assert_true(responder.at_mono[i] - responder.at_mono[i - 1] >= 1000);
    SSL_CTX_free(ctx);
}

TEST(reload_renewedCertificateNeverGetsTheOldStaple, "17") {
    SSL_CTX *old = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    assert_false(isStapled(renewed));
    runFor(5000);
    assert_false(isStapled(renewed));
    assert_true(isStapled(old)); /* for handshakes that began with the old context */
    assertState("pending");
    responder.down = 0;
    runFor(60 * 1000);
    assert_true(isStapled(renewed)); /* verified for the renewed certificate */
    SSL_CTX_free(old);
    SSL_CTX_free(renewed);
}

/* Its staple is kept for handshakes under way and expires with the response: it is not refreshed. */
TEST(reload_replacedCertificateIsNotRefreshed, "17") {
    SSL_CTX *old = loadLeaf();
    runUntilIdle();
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assert_true(isStapled(old) && isStapled(renewed));
    assert_int_equal(requestCount(), 2);
    runFor(3LL * TEST_DAY * 1000 - 1000); /* each response is valid for a day and refreshed after 0.72 to 0.9 of it */
    assert_true(requestCount() >= 2 + 3 && requestCount() <= 2 + 4);
    assert_false(isStapled(old));
    assert_true(isStapled(renewed));
    SSL_CTX_free(old);
    SSL_CTX_free(renewed);
}

/* The same serial, subject and even key, from another CA of the same name. */
TEST(reload_certificateOfAnotherCaNeverGetsAStaple, "17") {
    SSL_CTX *ours = loadLeaf();
    runUntilIdle();
    SSL_CTX *foreign = loadContext(pki->foreign_leaf, pki->leaf_key, pki->twin);
    for (int i = 0; i < 20; i++) {
        testShake shake = testHandshake(foreign, i % 2 ? tls12 : tls13, 1);
        assert_true(shake.ok);
        assert_false(shake.got_staple);
        testShakeFree(&shake);
        runFor(30000); /* the responder keeps answering for pki->leaf */
    }
    SSL_CTX *back = loadLeaf();
    assert_true(isStapled(back));
    SSL_CTX_free(back);
    SSL_CTX_free(foreign);
    SSL_CTX_free(ours);
}

TEST(reload_moreCertificatesThanAreTracked) {
    for (int i = 0; i < 4 * OCSP_MAX_CERTS; i++) {
        X509 *leaf = testCert(&(testCertSpec){.name = "m",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .serial = "0ABC",
                                              .key = pki->leaf_key,
                                              .urls = {TEST_URL}});
        SSL_CTX *ctx = loadContext(leaf, pki->leaf_key, pki->ca);
        if (i % 5 != 4) runFor(1500);
        if (i % 5 != 4) assert_true(isStapled(ctx));
        SSL_CTX_free(ctx);
        X509_free(leaf);
    }
    assert_int_equal(logLines(OCSP_LOG_WARNING, NULL), 0);
}

/* ---- a reload during a fetch ------------------------------------------------------------------------------------- */

static SSL_CTX *loaded_during_fetch;
static void loadRenewedDuringFetch(const ocspIoHooks *wait) {
    assert_false(wait->cancelled());
    responder.during_fetch = NULL;
    loaded_during_fetch = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
}

TEST(reload_cancelsTheFetchForTheOldCertificate, "17") {
    responder.during_fetch = loadRenewedDuringFetch;
    SSL_CTX *old = loadLeaf();
    runUntilIdle();
    assert_int_equal(atomic_load(&responder.cancelled), 1);
    runFor(5000);
    assert_true(isStapled(loaded_during_fetch));
    assert_int_equal(infoNumber("refreshes"), 1); /* a cancelled fetch counts neither as refresh nor as failure */
    assert_int_equal(infoNumber("refresh_failures"), 0);
    SSL_CTX_free(loaded_during_fetch);
    SSL_CTX_free(old);
}

static void loadSameDuringFetch(const ocspIoHooks *wait) {
    assert_false(wait->cancelled());
    responder.during_fetch = NULL;
    loaded_during_fetch = loadLeaf();
}

TEST(reload_sameCertificateKeepsTheFetchRunning, "17") {
    responder.during_fetch = loadSameDuringFetch;
    SSL_CTX *old = loadLeaf();
    runUntilIdle();
    assert_int_equal(atomic_load(&responder.cancelled), 0);
    assert_true(isStapled(loaded_during_fetch));
    SSL_CTX_free(loaded_during_fetch);
    SSL_CTX_free(old);
}

/* ---- a prefetched context ---------------------------------------------------------------------------------------- */

/* As the module does at load: the server's own context is attached a moment later. */
static void prefetch(X509 *leaf) {
    STACK_OF(X509) *certs = testStack(leaf, pki->ca, NULL);
    ocspPrefetchContext(certs, NULL);
    sk_X509_free(certs);
}

TEST(prefetch_asksBeforeTheContextIsAttachedAndNotAgain) {
    prefetch(pki->leaf);
    runUntilIdle();
    assert_int_equal(requestCount(), 1);
    SSL_CTX *ctx = loadLeaf();
    assert_true(isStapled(ctx)); /* the first handshake of all */
    runFor(60 * 1000);
    assert_int_equal(requestCount(), 1);
    SSL_CTX *again = loadLeaf(); /* this one is a reload */
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    assert_true(isStapled(again));
    SSL_CTX_free(again);
    SSL_CTX_free(ctx);
}

TEST(prefetch_contextAttachedDuringTheFetchOrAfterAFailure) {
    responder.during_fetch = loadSameDuringFetch;
    prefetch(pki->leaf);
    runUntilIdle();
    assert_int_equal(requestCount(), 1);
    assert_int_equal(atomic_load(&responder.cancelled), 0);
    assert_true(isStapled(loaded_during_fetch));
    SSL_CTX_free(loaded_during_fetch);
    restartEngine();
    responder.down = 1;
    prefetch(pki->leaf);
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    SSL_CTX *ctx = loadLeaf();
    runFor(5000); /* more than the minimal interval; the retry comes 8 to 12 seconds after the failure */
    assert_int_equal(requestCount(), 2);
    responder.down = 0;
    runFor(10 * 1000);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(prefetch_anotherContextGetsItsOwnStaple) {
    prefetch(pki->renewed_leaf);
    runUntilIdle();
    SSL_CTX *ctx = loadLeaf();
    assert_false(isStapled(ctx));
    runUntilIdle();
    assert_int_equal(requestCount(), 2);
    assert_true(isStapled(ctx)); /* verified for the certificate that it serves */
    SSL_CTX_free(ctx);
}

TEST(prefetch_readsTheCache) {
    options.cache_dir = dir;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    SSL_CTX_free(ctx);
    responder.down = 1;
    restartEngine();
    prefetch(pki->leaf);
    ocspThreadPrime();
    ctx = loadLeaf();
    assert_true(isStapled(ctx));
    runFor(60 * 1000);
    assert_int_equal(requestCount(), 1);
    SSL_CTX_free(ctx);
}

TEST(prefetch_cancelledIsNotRefreshed) {
    prefetch(pki->leaf);
    runUntilIdle();
    assertState("good");
    ocspPrefetchContext(NULL, NULL);
    runUntilIdle();
    assertState("no-tls");
    runFor(2LL * TEST_DAY * 1000);
    assert_int_equal(requestCount(), 1);
}

/* ---- two certificates in one context ----------------------------------------------------------------------------- */

/* Renews one of the two certificates of a context 20 times, with the responder down: the other certificate must keep
 * its staple in the first handshake after each reload and after the worker has run. */
static void renewOneOfTwo(int renew_rsa) {
    SSL_CTX *rsa_client = tls13_rsa, *ec_client = tls13;
    SSL_CTX *ctx = loadTwoCertificates();
    runUntilIdle();
    assert_true(isStapledTo(ctx, rsa_client) && isStapledTo(ctx, ec_client));
    responder.down = 1;
    for (int i = 0; i < 20; i++) {
        X509 *fresh = testCert(&(testCertSpec){.name = "r",
                                               .issuer = pki->ca,
                                               .issuer_key = pki->ca_key,
                                               .key = renew_rsa ? pki->rsa_leaf_key : pki->leaf_key,
                                               .urls = {TEST_URL}});
        SSL_CTX *next = testServerCtx(renew_rsa ? pki->leaf : fresh, pki->leaf_key, pki->ca);
        testServerAdd(next, renew_rsa ? fresh : pki->rsa_leaf, pki->rsa_leaf_key, pki->ca);
        ocspInstallCallbackAs(next, OCSP_CONTEXT_OF_SERVER);
        ocspLateAttach(next);
        for (int look = 0; look < 3; look++) {
            if (!isStapledTo(next, renew_rsa ? ec_client : rsa_client))
                fail_msg("renewal %d, handshake %d: the other certificate has lost its staple", i + 1, look);
            assert_false(isStapledTo(next, renew_rsa ? rsa_client : ec_client));
            runFor(1500);
        }
        SSL_CTX_free(ctx);
        ctx = next;
        X509_free(fresh);
    }
    SSL_CTX_free(ctx);
}

TEST(twoCertificates_renewedRsaLeavesTheOtherStaple, "23") {
    renewOneOfTwo(1);
}

TEST(twoCertificates_renewedEcdsaLeavesTheOtherStaple, "23") {
    renewOneOfTwo(0);
}

/* A certificate that was replaced long ago returns beside a new one: it is active again before others are dropped. */
TEST(twoCertificates_returningCertificateKeepsItsStaple, "23") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    for (int i = 0; i < OCSP_MAX_CERTS; i++) {
        X509 *rsa = testCert(&(testCertSpec){
            .name = "r", .issuer = pki->ca, .issuer_key = pki->ca_key, .key = pki->rsa_leaf_key, .urls = {TEST_URL}});
        int last = i == OCSP_MAX_CERTS - 1;
        SSL_CTX_free(ctx);
        responder.down = 1;
        ctx = last ? testServerCtx(pki->leaf, pki->leaf_key, pki->ca) : loadContext(rsa, pki->rsa_leaf_key, pki->ca);
        if (last) {
            testServerAdd(ctx, rsa, pki->rsa_leaf_key, pki->ca);
            ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
            ocspLateAttach(ctx);
        }
        runFor(1500);
        X509_free(rsa);
    }
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}
