/* test_chain.c - responses for the whole served chain: which certificates are followed, what a handshake carries, the
 * limits, revocation, reloads, the disk, response files. With OpenSSL 3.6 the client receives what is sent. With an older one
 * SSL_ctrl is replaced by one that takes the responses as 3.6 does, and sends nothing.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

#define MID_URL "http://root-ocsp.test.invalid/"
#define SUB_URL "http://mid-ocsp.test.invalid/"

/* root (of testPki) - mid - sub - leaf3, and mid - leaf2, mid - rsa2 */
static X509 *mid, *sub, *leaf2, *leaf3, *rsa2;
static EVP_PKEY *mid_key, *sub_key;

static X509 *issueCa(const char *name, X509 *issuer, EVP_PKEY *issuer_key, EVP_PKEY *key, const char *url) {
    return testCert(
        &(testCertSpec){.name = name, .issuer = issuer, .issuer_key = issuer_key, .key = key, .ca = 1, .urls = {url}});
}

static X509 *issueLeaf(X509 *issuer, EVP_PKEY *issuer_key, EVP_PKEY *key) {
    return testCert(
        &(testCertSpec){.name = "l", .issuer = issuer, .issuer_key = issuer_key, .key = key, .urls = {TEST_URL}});
}

static void openChain(void) {
    worldOpen();
    mid_key = testEcKey(6);
    sub_key = testEcKey(7);
    mid = issueCa("Mid", pki->root, pki->root_key, mid_key, MID_URL);
    sub = issueCa("Sub", mid, mid_key, sub_key, SUB_URL);
    leaf2 = issueLeaf(mid, mid_key, pki->leaf_key);
    rsa2 = issueLeaf(mid, mid_key, pki->rsa_leaf_key);
    leaf3 = issueLeaf(sub, sub_key, pki->leaf_key);
}

/* What the engine handed to an OpenSSL that cannot send it. */
static OPENSSL_STACK *handed;
static int linking;  /* 1: a client that asks gets that */
static int refusing; /* 1: OpenSSL refuses it */

static void freeResponse(void *response) {
    OCSP_RESPONSE_free(response);
}

/* As a client of OpenSSL 3.6 sees it, the first one that there is. */
static void stapleFirst(SSL *ssl, OPENSSL_STACK *responses) {
    unsigned char *der = NULL;
    int i = 0, n;
    while (i < OPENSSL_sk_num(responses) && !OPENSSL_sk_value(responses, i)) i++;
    n = i2d_OCSP_RESPONSE(OPENSSL_sk_value(responses, i), &der);
    if (n > 0) testMust(SSL_set_tlsext_status_ocsp_resp(ssl, der, n));
}

static void forgetHanded(void) {
    OPENSSL_sk_pop_free(handed, freeResponse);
    handed = NULL;
}

long __real_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer) {
    if (command == 143 && refusing) return 0;
    if (command == 142 && linking) *(OPENSSL_STACK **)pointer = handed;
    if (command == 143 && linking) stapleFirst(ssl, pointer);
    if (command != 143 || testOpensslChecksStaples()) return __real_SSL_ctrl(ssl, command, number, pointer);
    forgetHanded();
    handed = pointer;
    return 1;
}

static void closeChain(void) {
    forgetHanded();
    X509 *all[] = {mid, sub, leaf2, leaf3, rsa2};
    for (int i = 0; i < 5; i++) X509_free(all[i]);
    worldClose();
}

static int yes(void) {
    return 1;
}

static int no(void) {
    return 0;
}

static void setUpChain(void) {
    worldSetUp();
    worldKnown known[] = {{.cert = mid, .issuer = pki->root, .issuer_key = pki->root_key},
                          {.cert = sub, .issuer = mid, .issuer_key = mid_key},
                          {.cert = leaf2, .issuer = mid, .issuer_key = mid_key},
                          {.cert = rsa2, .issuer = mid, .issuer_key = mid_key},
                          {.cert = leaf3, .issuer = sub, .issuer_key = sub_key}};
    memcpy(responder.known, known, sizeof(known));
    ocsp_env.chain_supported = yes;
    refusing = 0;
    options.staple_chain = 1;
    applyOptions();
    ocspResetCounters();
}

FIXTURE(setUpChain, worldTearDown);
PROGRAM_FIXTURE(openChain, closeChain);

enum {
    MID,
    SUB,
    LEAF2,
    RSA2,
    LEAF3
}; /* elements of responder.known */

static void serve(SSL_CTX *ctx) {
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
}

static SSL_CTX *serveLeaf2(void) {
    SSL_CTX *ctx = testServerCtx(leaf2, pki->leaf_key, mid);
    testMust(SSL_CTX_add1_chain_cert(ctx, pki->root));
    serve(ctx);
    return ctx;
}

static SSL_CTX *serveLeaf3(void) {
    SSL_CTX *ctx = testServerCtx(leaf3, pki->leaf_key, sub);
    testMust(SSL_CTX_add1_chain_cert(ctx, mid));
    testMust(SSL_CTX_add1_chain_cert(ctx, pki->root));
    serve(ctx);
    return ctx;
}

static int judge(const testBytes *der, int known) {
    const worldKnown *one = &responder.known[known];
    return testJudge(der->p, der->n, one->cert, one->issuer, wallNow());
}

/* Appends what was handed over to what the client received, after checking that it is in the places of `all`, which ends
 * with -1. */
static void takeHanded(testShake *shake, const int all[]) {
    for (int i = 0; i < OPENSSL_sk_num(handed); i++) {
        unsigned char *der = NULL;
        OCSP_RESPONSE *response = OPENSSL_sk_value(handed, i);
        if (!response) continue;
        int n = i2d_OCSP_RESPONSE(response, &der);
        shake->chain[shake->chain_count] = testCopy(der, (size_t)n);
        assert_true(judge(&shake->chain[shake->chain_count++], all[i]));
        OPENSSL_free(der);
    }
    forgetHanded();
}

/* One handshake in TLS 1.3 with a server that sends the certificates `all` of responder.known (-1 ends): it must succeed, and
 * carry good or revoked responses for exactly `expected`, in this order. */
static void assertStapled(SSL_CTX *ctx, const int all[], const int expected[]) {
    long long before = infoNumber("handshakes_chain_stapled");
    testShake shake = testHandshake(ctx, tls13, 1);
    int count = 0, in_chain = 0;
    assert_true(shake.ok);
    for (; expected[count] >= 0; count++) in_chain += expected[count] != all[0];
    if (!testOpensslChecksStaples()) {
        assert_int_equal(shake.got_staple, count > 0 && in_chain == 0);
        assert_int_equal(handed != NULL, in_chain > 0);
        takeHanded(&shake, all);
        if (shake.got_staple) shake.chain[shake.chain_count++] = testCopy(shake.staple.p, shake.staple.n);
    }
    assert_int_equal(shake.chain_count, count);
    for (int i = 0; i < count; i++) assert_true(judge(&shake.chain[i], expected[i]));
    assert_int_equal(infoNumber("handshakes_chain_stapled"), before + (in_chain > 0));
    testShakeFree(&shake);
}
#define LIST(...) ((const int[]){__VA_ARGS__, -1})
static const int two[] = {LEAF2, MID, -1}, three[] = {LEAF3, SUB, MID, -1};

/* `size`: bytes of the response; 0: as it comes. */
static void writeReplyOfSize(const char *name, int number, int known, size_t size) {
    const worldKnown *one = &responder.known[known];
    testReply reply = testGoodReply(one->cert);
    char path[300];
    reply.singles[0].issuer = reply.signer = one->issuer;
    reply.key = one->issuer_key;
    if (one->revoked) reply.singles[0].status = TEST_REVOKED;
    testBytes der = size ? testReplyOfSize(reply, size) : testReplyDer(&reply);
    snprintf(path, sizeof(path), number ? "%s/%s.%d" : "%s/%s", dir, name, number);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
}

static void writeReply(const char *name, int number, int known) {
    writeReplyOfSize(name, number, known, 0);
}

/* ---- which certificates are followed ----------------------------------------------------------------------------- */

TEST(chain_isNotFollowedByDefault) {
    options.staple_chain = 0;
    applyOptions();
    SSL_CTX *ctx = serveLeaf3();
    runUntilIdle();
    assertState("good");
    assert_int_equal(requestCount(), 1);
    assert_int_equal(infoNumber("chain_followed"), 0);
    assertStapled(ctx, three, LIST(LEAF3));
    SSL_CTX_free(ctx);
}

TEST(chain_isFollowedAndStapled) {
    SSL_CTX *ctx = serveLeaf3();
    runUntilIdle();
    assertState("good");
    assert_int_equal(requestCount(), 3); /* the root is self-signed */
    assert_string_equal(responder.url[1], SUB_URL);
    assert_string_equal(responder.url[2], MID_URL);
    assert_int_equal(infoNumber("chain_followed"), 2);
    assert_int_equal(infoNumber("chain_good"), 2);
    assert_int_equal(infoNumber("chain_revoked"), 0);
    assert_string_equal(infoText("chain_last_error"), "");
    assert_false(infoHas("alt_state"));
    assertStapled(ctx, three, LIST(LEAF3, SUB, MID));
    assert_true(infoNumber("handshakes_stapled") == 1 && infoNumber("handshakes_unstapled") == 0);
    runFor(2 * TEST_DAY * INT64_C(1000)); /* refreshed like the leaf */
    for (int i = MID; i <= SUB; i++) assert_true(responder.known[i].requests >= 3);
    assertStapled(ctx, three, LIST(LEAF3, SUB, MID));
    SSL_CTX_free(ctx);
}

TEST(chain_isNotSentBelowTls13NorUnasked) {
    SSL_CTX *ctx = serveLeaf2();
    runUntilIdle();
    testShake shake = testHandshake(ctx, tls12, 1);
    assert_true(shake.ok && shake.got_staple && shake.chain_count <= 1);
    assert_true(judge(&shake.staple, LEAF2));
    testShakeFree(&shake);
    shake = testHandshake(ctx, tls13, 0);
    assert_true(shake.ok && !shake.got_staple && shake.chain_count == 0);
    testShakeFree(&shake);
    assert_int_equal(infoNumber("handshakes_chain_stapled"), 0);
    SSL_CTX_free(ctx);
}

/* OpenSSL sends such a chain, but staples for a configured one only. */
TEST(chain_amongTheTrustAnchorsIsANotice) {
    SSL_CTX *ctx = testServerCtx(leaf3, pki->leaf_key, NULL);
    X509 *trusted[] = {pki->root, mid, sub};
    for (int i = 0; i < 3; i++) assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), trusted[i]));
    serve(ctx);
    runUntilIdle();
    assertState("good");
    assert_int_equal(infoNumber("chain_followed"), 0);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "append the chain"), 1);
    assertStapled(ctx, three, LIST(LEAF3));
    SSL_CTX_free(ctx);
}

TEST(chain_isSharedByTwoLeaves) {
    SSL_CTX *ctx = testServerCtx(leaf2, pki->leaf_key, mid);
    testMust(SSL_CTX_add1_chain_cert(ctx, pki->root));
    testServerAdd(ctx, rsa2, pki->rsa_leaf_key, mid);
    testMust(SSL_CTX_add1_chain_cert(ctx, pki->root));
    serve(ctx);
    runUntilIdle();
    assert_int_equal(infoNumber("chain_followed"), 1);
    assert_int_equal(responder.known[MID].requests, 1);
    assert_string_equal(infoText("alt_state"), "good");
    assertStapled(ctx, two, LIST(LEAF2, MID));
    testShake shake = testHandshake(ctx, tls13_rsa, 1);
    assert_true(shake.ok);
    if (!testOpensslChecksStaples()) takeHanded(&shake, LIST(RSA2, MID));
    assert_true(shake.chain_count == 2 && judge(&shake.chain[0], RSA2) && judge(&shake.chain[1], MID));
    testShakeFree(&shake);
    SSL_CTX_free(ctx);
}

TEST(chain_withoutAResponderIsNotFollowed) {
    SSL_CTX *ctx = testServerCtx(pki->leaf, pki->leaf_key, pki->ca); /* that CA's certificate has no URL */
    testMust(SSL_CTX_add1_chain_cert(ctx, pki->root));
    serve(ctx);
    runUntilIdle();
    assertState("good");
    assert_int_equal(requestCount(), 1);
    assert_int_equal(infoNumber("chain_followed"), 0);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* ---- what is missing, revoked, expired --------------------------------------------------------------------------- */

TEST(chain_missingResponsesLeaveTheOthersInPlace) {
    SSL_CTX *ctx = serveLeaf3();
    responder.known[SUB].down = 1;
    runUntilIdle();
    assertState("good");
    assert_int_equal(infoNumber("chain_followed"), 2);
    assert_int_equal(infoNumber("chain_good"), 1);
    assert_non_null(strstr(infoText("chain_last_error"), SUB_URL));
    assert_string_equal(infoText("last_error"), "");
    assertStapled(ctx, three, LIST(LEAF3, MID));
    responder.known[SUB].down = 0;
    runFor(13 * 1000);
    assert_string_equal(infoText("chain_last_error"), "");
    assertStapled(ctx, three, LIST(LEAF3, SUB, MID));
    SSL_CTX_free(ctx);
}

TEST(chain_isStapledWithoutTheLeaf) {
    SSL_CTX *ctx = serveLeaf2();
    responder.known[LEAF2].down = 1;
    runUntilIdle();
    assertState("pending");
    assertStapled(ctx, two, LIST(MID));
    assert_true(infoNumber("handshakes_stapled") == 0 && infoNumber("handshakes_unstapled") == 1);
    SSL_CTX_free(ctx);
}

TEST(chain_revokedIsOneWarningAndIsStapled) {
    SSL_CTX *ctx = serveLeaf2();
    responder.known[MID].revoked = 1;
    runUntilIdle();
    runFor(4 * 3600 * 1000);
    assertState("good");
    assert_int_equal(infoNumber("revoked"), 0);
    assert_int_equal(infoNumber("chain_revoked"), 1);
    assert_int_equal(infoNumber("chain_good"), 0);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "CA in the served chain"), 1);
    assert_true(responder.known[MID].requests >= 4); /* hourly, like a revoked leaf */
    assertStapled(ctx, two, LIST(LEAF2, MID));
    responder.known[MID].revoked = 0;
    runFor(3700 * 1000);
    assert_int_equal(infoNumber("chain_revoked"), 0);
    assert_int_equal(infoNumber("chain_good"), 1);
    SSL_CTX_free(ctx);
}

TEST(chain_expiresToTheSecond) {
    responder.validity = 1000;
    SSL_CTX *ctx = serveLeaf2();
    runUntilIdle();
    responder.known[MID].down = 1;
    runFor(950 * 1000);
    setWallClock(((int64_t)TEST_NOW + 1000) * 1000 - 1);
    assertStapled(ctx, two, LIST(LEAF2, MID));
    moveWallClock(1);
    assertStapled(ctx, two, LIST(LEAF2));
    runFor(1000);
    assertState("good");
    assert_int_equal(infoNumber("chain_good"), 0);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "expired"), 1);
    SSL_CTX_free(ctx);
}

/* ---- limits ------------------------------------------------------------------------------------------------------ */

TEST(chain_hasAtMostFourCertificates) {
    SSL_CTX *ctx = testServerCtx(leaf2, pki->leaf_key, mid);
    assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), pki->root));
    for (int i = 0; i < 5; i++) {
        X509 *more = issueCa("More", pki->root, pki->root_key, testEcKey(5), MID_URL);
        testMust(SSL_CTX_add1_chain_cert(ctx, more));
        X509_free(more);
    }
    serve(ctx);
    runUntilIdle();
    assert_int_equal(infoNumber("chain_followed"), OCSP_MAX_CHAIN - 1);
    assertStapled(ctx, two, LIST(LEAF2, MID)); /* the responder does not know the others */
    SSL_CTX_free(ctx);
}

TEST(chain_tooLongLeavesOutIntermediatesFirst) {
    SSL_CTX *ctx = serveLeaf3();
    responder.known[SUB].padding = 15000;
    responder.known[MID].padding = 17000;
    runUntilIdle();
    assert_int_equal(infoNumber("chain_good"), 2);
    assertStapled(ctx, three, LIST(LEAF3, SUB));
    runFor(2 * TEST_DAY * INT64_C(1000));
    assert_int_equal(logLines(OCSP_LOG_WARNING, "longer than"), 1);
    responder.known[MID].padding = 100;
    runFor(TEST_DAY * INT64_C(1000));
    assertStapled(ctx, three, LIST(LEAF3, SUB, MID));
    responder.known[MID].padding = 17000;
    runFor(TEST_DAY * INT64_C(1000));
    assertStapled(ctx, three, LIST(LEAF3, SUB));
    assert_int_equal(logLines(OCSP_LOG_WARNING, "longer than"), 1);
    SSL_CTX_free(ctx);
}

/* To the byte: the certificates count, too. */
TEST(chain_ofTheGreatestLength) {
    X509 *sent[] = {leaf2, mid, pki->root};
    size_t room = OCSP_MAX_CHAIN_MESSAGE - 1000;
    for (int i = 0; i < 3; i++) room -= (size_t)i2d_X509(sent[i], NULL) + OCSP_ENTRY_OVERHEAD;
    SSL_CTX *ctx = serveLeaf2();
    char *file = testPath(dir, "r.der");
    writeReplyOfSize("r.der", 0, LEAF2, 1000);
    options.response_file = file;
    for (size_t more = 0; more < 2; more++) {
        writeReplyOfSize("r.der", 1, MID, room + more);
        applyOptions();
        runFor(2500);
        assert_int_equal(infoNumber(more ? "chain_revoked" : "chain_good"), 1);
        if (more)
            assertStapled(ctx, two, LIST(LEAF2));
        else
            assertStapled(ctx, two, LIST(LEAF2, MID));
        responder.known[MID].revoked = 1; /* so that the second replaces the first */
    }
    SSL_CTX_free(ctx);
    free(file);
}

/* ---- OpenSSL that cannot ----------------------------------------------------------------------------------------- */

TEST(chain_isOneNoticeWithAnOlderOpenssl) {
    ocsp_env.chain_supported = no;
    options.staple_chain = 0;
    applyOptions();
    options.staple_chain = 1;
    applyOptions();
    SSL_CTX *ctx = serveLeaf3();
    runFor(3 * TEST_DAY * INT64_C(1000));
    assertState("good");
    assert_int_equal(infoNumber("chain_followed"), 0);
    assert_non_null(strstr(infoText("chain_last_error"), "3.6"));
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "host-staple-chain"), 1);
    assert_int_equal(responder.known[MID].requests + responder.known[SUB].requests, 0);
    assertStapled(ctx, three, LIST(LEAF3));
    SSL_CTX_free(ctx);
}

TEST(chain_supportIsThatOfOpenssl) {
    assert_int_equal(real_env.chain_supported(), testOpensslChecksStaples());
}

TEST(chain_refusedByOpensslLeavesTheLeaf) {
    SSL_CTX *ctx = serveLeaf2();
    runUntilIdle();
    refusing = 1;
    assertStapled(ctx, two, LIST(LEAF2));
    assert_int_equal(infoNumber("handshakes_stapled"), 1);
    refusing = 0;
    assertStapled(ctx, two, LIST(LEAF2, MID));
    SSL_CTX_free(ctx);
}

/* As without a chain: TLS 1.3 has room for it, and the clients that have not are those of a leaf alone. */
TEST(chain_longLeafIsStapledAlone) {
    SSL_CTX *ctx = serveLeaf2();
    char *file = testPath(dir, "r.der");
    writeReplyOfSize("r.der", 0, LEAF2, 40000);
    writeReply("r.der", 1, MID);
    options.response_file = file;
    applyOptions();
    runFor(2000);
    assert_int_equal(infoNumber("response_bytes"), 40000);
    assert_int_equal(infoNumber("chain_good"), 1);
    assertStapled(ctx, two, LIST(LEAF2));
    assert_int_equal(logLines(OCSP_LOG_WARNING, "longer than"), 1);
    SSL_CTX_free(ctx);
    free(file);
}

/* ---- changes ----------------------------------------------------------------------------------------------------- */

TEST(chain_isTurnedOnAndOffAtRunTime) {
    SSL_CTX *ctx = serveLeaf2();
    runUntilIdle();
    options.staple_chain = 0;
    applyOptions();
    assertStapled(ctx, two, LIST(LEAF2)); /* from the next handshake on */
    runFor(TEST_DAY * INT64_C(3000));
    assert_int_equal(infoNumber("chain_followed"), 0);
    assert_int_equal(responder.known[MID].requests, 1);
    options.staple_chain = 1;
    applyOptions();
    runFor(2000);
    assert_int_equal(infoNumber("chain_good"), 1);
    assert_int_equal(responder.known[MID].requests, 2);
    assertStapled(ctx, two, LIST(LEAF2, MID));
    SSL_CTX_free(ctx);
}

/* The issuer of an intermediate was renewed in between: it limits how long the responses that it signs are valid. */
TEST(chain_isTurnedOnWithTheRenewedIssuer) {
    X509 *renewed = issueCa("Mid", pki->root, pki->root_key, mid_key, MID_URL);
    SSL_CTX *ctx = serveLeaf3(), *next;
    runUntilIdle();
    options.staple_chain = 0;
    applyOptions();
    next = testServerCtx(leaf3, pki->leaf_key, sub);
    testMust(SSL_CTX_add1_chain_cert(next, renewed));
    testMust(SSL_CTX_add1_chain_cert(next, pki->root));
    serve(next);
    runFor(2000);
    assert_int_equal(responder.known[SUB].requests, 1);
    options.staple_chain = 1;
    applyOptions();
    runFor(2000);
    assert_int_equal(responder.known[SUB].requests, 2);
    SSL_CTX_free(next);
    SSL_CTX_free(ctx);
    X509_free(renewed);
}

TEST(chain_ofAReloadKeepsWhatIsHeld) {
    SSL_CTX *ctx = serveLeaf2(), *again;
    runUntilIdle();
    responder.down = 1;
    again = serveLeaf2();
    for (int i = 0; i < 3; i++) {
        assertStapled(ctx, two, LIST(LEAF2, MID));
        assertStapled(again, two, LIST(LEAF2, MID));
        runFor(1500);
    }
    assert_int_equal(infoNumber("chain_followed"), 1);
    SSL_CTX_free(again);
    SSL_CTX_free(ctx);
}

/* The intermediate was renewed: same name and key, another certificate. */
TEST(chain_ofAReloadIsTheNewOne) {
    X509 *renewed = issueCa("Mid", pki->root, pki->root_key, mid_key, MID_URL);
    SSL_CTX *ctx = serveLeaf2(), *next;
    runUntilIdle();
    responder.known[5] = (worldKnown){.cert = renewed, .issuer = pki->root, .issuer_key = pki->root_key};
    next = testServerCtx(leaf2, pki->leaf_key, renewed);
    testMust(SSL_CTX_add1_chain_cert(next, pki->root));
    serve(next);
    if (testOpensslChecksStaples()) { /* it compares serial numbers: never another certificate's response */
        testShake shake = testHandshake(next, tls13, 1);
        assert_true(shake.ok && shake.got_staple && shake.chain_count == 1 && judge(&shake.chain[0], LEAF2));
        testShakeFree(&shake);
    }
    runFor(2000);
    assert_int_equal(infoNumber("chain_followed"), 1);
    assertStapled(next, LIST(LEAF2, 5), LIST(LEAF2, 5));
    SSL_CTX_free(next);
    SSL_CTX_free(ctx);
    X509_free(renewed);
}

/* A handshake that has the leaf's response, and what follows it. */
static void shakeOnce(SSL_CTX *ctx) {
    testShake shake = testHandshake(ctx, tls12, 1);
    assert_true(shake.ok && shake.got_staple && judge(&shake.staple, LEAF2));
    testShakeFree(&shake);
    ocspLateCron();
    runFor(2000);
}

/* The same, with a context that was created on another thread: only its handshakes show it. */
TEST(chain_ofALateReloadIsTheNewOne) {
    X509 *renewed = issueCa("Mid", pki->root, pki->root_key, mid_key, MID_URL);
    SSL_CTX *next = testServerCtx(leaf2, pki->leaf_key, renewed), *ctx = testServerCtx(leaf2, pki->leaf_key, mid);
    testMust(SSL_CTX_add1_chain_cert(ctx, pki->root));
    testMust(SSL_CTX_add1_chain_cert(next, pki->root));
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
    ocspLateAttach(ctx);
    runUntilIdle();
    responder.known[5] = (worldKnown){.cert = renewed, .issuer = pki->root, .issuer_key = pki->root_key};
    ocspInstallCallbackAs(next, OCSP_CONTEXT_OF_SERVER);
    ocspLateCron();
    runFor(2000);
    assert_int_equal(responder.known[5].requests, 0);
    shakeOnce(next);
    assert_int_equal(responder.known[5].requests, 1);
    assertStapled(next, LIST(LEAF2, 5), LIST(LEAF2, 5));
    shakeOnce(ctx);                                       /* the replaced one: this changes nothing */
    assert_int_equal(responder.known[LEAF2].requests, 2); /* one for each context */
    assertStapled(next, LIST(LEAF2, 5), LIST(LEAF2, 5));
    SSL_CTX_free(next);
    SSL_CTX_free(ctx);
    X509_free(renewed);
}

TEST(chain_manyReloadsKeepTheNewestChain) {
    SSL_CTX *ctx = serveLeaf2();
    runUntilIdle();
    for (int i = 0; i < OCSP_MAX_CERTS; i++) {
        X509 *ca = issueCa("Mid", pki->root, pki->root_key, mid_key, MID_URL);
        SSL_CTX *other = testServerCtx(leaf2, pki->leaf_key, ca);
        testMust(SSL_CTX_add1_chain_cert(other, pki->root));
        serve(other);
        runFor(1500);
        SSL_CTX_free(other);
        X509_free(ca);
    }
    SSL_CTX_free(ctx);
    ctx = serveLeaf2();
    runFor(1500);
    assertStapled(ctx, two, LIST(LEAF2, MID));
    SSL_CTX_free(ctx);
}

/* ---- disk, files, commands --------------------------------------------------------------------------------------- */

TEST(chain_isStapledFromTheDiskInTheFirstHandshake) {
    options.cache_dir = dir;
    applyOptions();
    SSL_CTX *ctx = serveLeaf3();
    runUntilIdle();
    assert_int_equal(testCountFiles(dir), 3);
    SSL_CTX_free(ctx);
    restartEngine();
    responder.down = 1;
    ctx = serveLeaf3();
    ocspThreadPrime();
    assertStapled(ctx, three, LIST(LEAF3, SUB, MID));
    assert_int_equal(requestCount(), 3);
    SSL_CTX_free(ctx);
}

TEST(chain_isReadFromNumberedResponseFiles) {
    char *file = testPath(dir, "r.der");
    writeReply("r.der", 0, LEAF3);
    writeReply("r.der", 2, MID);
    options.response_file = file;
    applyOptions();
    SSL_CTX *ctx = serveLeaf3();
    runUntilIdle();
    assertState("good");
    assert_int_equal(requestCount(), 0);
    assertStapled(ctx, three, LIST(LEAF3, MID));
    assert_non_null(strstr(infoText("chain_last_error"), "r.der.1"));
    writeReply("r.der", 1, SUB); /* each is checked every second */
    runFor(2500);
    assert_string_equal(infoText("chain_last_error"), "");
    assertStapled(ctx, three, LIST(LEAF3, SUB, MID));
    responder.known[MID].revoked = 1;
    writeReply("r.der", 2, MID);
    runFor(2500);
    assert_int_equal(infoNumber("chain_revoked"), 1);
    SSL_CTX_free(ctx);
    free(file);
}

TEST(chain_isShownByItsSerialNumber) {
    char serial[100];
    SSL_CTX *ctx = serveLeaf2();
    runUntilIdle();
    ocspGetAnswer answer;
    ocspSerialText(X509_get0_serialNumber(mid), serial, sizeof(serial));
    ocspGet((const char *const[]){"TEXT", serial}, 2, &answer);
    assert_int_equal(answer.kind, OCSP_GET_TEXT);
    assert_non_null(strstr(answer.data, "Root"));
    free(answer.data);
    ocspGet(NULL, 0, &answer); /* the first certificate is the leaf */
    assert_int_equal(answer.kind, OCSP_GET_TEXT);
    assert_null(strstr(answer.data, "Root"));
    free(answer.data);
    SSL_CTX_free(ctx);
}

/* ---- peers ------------------------------------------------------------------------------------------------------- */

/* A link to a server with the chain of `leaf3`, whose certificates it verifies. */
static int linkIsUp(SSL_CTX *server, SSL_CTX *client) {
    SSL *s = SSL_new(server), *c = SSL_new(client);
    ocspRequestPeerStaple(c);
    linking = !testOpensslChecksStaples();
    int up = testShakeHands(s, c);
    linking = 0;
    SSL_free(s);
    SSL_free(c);
    ERR_clear_error();
    forgetHanded();
    ocspCron();
    return up;
}

static SSL_CTX *linkCtx(void) {
    SSL_CTX *client = testClientCtx(TLS1_3_VERSION, 0);
    assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(client), pki->root));
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(client), TEST_NOW);
    SSL_CTX_set_verify(client, SSL_VERIFY_PEER, NULL);
    ocspInstallCallback(client);
    return client;
}

static void setPolicy(ocspVerifyPeers how) {
    options.verify_peers = how;
    applyOptions();
}

static void refreshAll(void) {
    unsigned number;
    advance(1000);
    assert_null(ocspPutRequest(&number));
    runUntilIdle();
}

TEST(peer_withARevokedCaIsRefused) {
    SSL_CTX *server = serveLeaf3(), *client = linkCtx();
    runUntilIdle();
    for (int how = OCSP_PEERS_SOFT; how <= OCSP_PEERS_REQUIRE; how++) {
        setPolicy((ocspVerifyPeers)how);
        responder.known[SUB].revoked = responder.known[MID].revoked = 0;
        refreshAll();
        assert_int_equal(linkIsUp(server, client), 1);
        for (int at = MID; at <= SUB; at++) {
            long long rejected = infoNumber("peers_rejected");
            responder.known[at].revoked = 1;
            refreshAll();
            assert_int_equal(infoNumber("chain_revoked"), 1);
            assert_int_equal(linkIsUp(server, client), 0);
            assert_int_equal(infoNumber("peers_rejected"), rejected + 1);
            assert_non_null(strstr(infoText("last_peer_error"), "of a CA in the peer's chain was REVOKED"));
            responder.known[at].revoked = 0;
            refreshAll();
            assert_int_equal(linkIsUp(server, client), 1);
            assert_string_equal(infoText("last_peer_error"), "");
        }
    }
    responder.known[MID].revoked = 1;
    refreshAll();
    setPolicy(OCSP_PEERS_NO);
    assert_int_equal(linkIsUp(server, client), 1);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

/* A CA without a response is no fault, and hides no other; neither does a leaf without one. */
TEST(peer_withoutAResponseForACaIsAccepted) {
    SSL_CTX *server = serveLeaf3(), *client = linkCtx();
    responder.known[SUB].down = 1;
    setPolicy(OCSP_PEERS_REQUIRE);
    runUntilIdle();
    assert_int_equal(linkIsUp(server, client), 1);
    responder.known[MID].revoked = 1;
    refreshAll();
    assert_int_equal(linkIsUp(server, client), 0);
    SSL_CTX_free(server);
    restartEngine();
    setPolicy(OCSP_PEERS_SOFT);
    server = serveLeaf3();
    responder.known[LEAF3].down = 1;
    runUntilIdle();
    assert_int_equal(infoNumber("chain_revoked"), 1);
    assert_int_equal(linkIsUp(server, client), 0);
    assert_non_null(strstr(infoText("last_peer_error"), "of a CA in the peer's chain was REVOKED"));
    responder.known[MID].revoked = 0;
    refreshAll();
    assert_int_equal(linkIsUp(server, client), 1);
    assert_int_equal(infoNumber("peers_missing"), 1);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

/* A refused peer tries again and again. */
TEST(peer_refusedForACaIsVerifiedOnceAMinute) {
    SSL_CTX *server = serveLeaf3(), *client = linkCtx();
    setPolicy(OCSP_PEERS_REQUIRE);
    responder.known[MID].revoked = 1;
    runUntilIdle();
    for (int i = 0; i < 5; i++) {
        testCountFromZero();
        assert_int_equal(linkIsUp(server, client), 0);
        assert_int_equal(test_verifications > 0, i == 0);
    }
    assert_non_null(strstr(infoText("last_peer_error"), "of a CA in the peer's chain was REVOKED"));
    assert_int_equal(logLines(OCSP_LOG_WARNING, "refused"), 1);
    assert_int_equal(infoNumber("peers_rejected"), 5);
    moveWallClock(60 * 1000);
    testCountFromZero();
    assert_int_equal(linkIsUp(server, client), 0);
    assert_true(test_verifications > 0);
    moveWallClock(-60 * 1000);
    responder.known[LEAF3].down = 1; /* the same staple for the leaf: the verdict is on all of them */
    responder.known[MID].revoked = 0;
    refreshAll();
    assert_int_equal(linkIsUp(server, client), 1);
    SSL_CTX_free(client);
    SSL_CTX_free(server);
}

/* The response that costs most: it names as its signer the CA's issuer and four authorized responders, and is signed by the
 * last of them, or `forged`. */
static testBytes costlyReply(X509 *ca, X509 *issuer, EVP_PKEY *issuer_key, const char *name, int forged) {
    testReply reply = testGoodReply(ca);
    reply.singles[0].issuer = reply.signer = issuer;
    reply.break_signature = forged;
    for (int i = 0; i < OCSP_MAX_SIGNERS; i++) {
        reply.key = testEcKey(8 + i);
        reply.sent[i] = testCert(&(testCertSpec){
            .name = name, .issuer = issuer, .issuer_key = issuer_key, .key = reply.key, .extended = "OCSPSigning"});
    }
    testBytes der = testReplyDer(&reply);
    for (int i = 0; i < OCSP_MAX_SIGNERS; i++) X509_free(reply.sent[i]);
    return der;
}

static ocspPeerState verifyChain(ocspX509Stack *chain, const testBytes *all, int count, ocspError *err) {
    ocspBytes bytes[OCSP_MAX_CHAIN];
    for (int i = 0; i < count; i++) bytes[i] = (ocspBytes){all[i].p, all[i].n};
    *err = (ocspError){.may_change_at = OCSP_NEVER};
    testCountFromZero();
    return ocspVerifyPeerChain(chain, bytes, count, TEST_NOW, err);
}

TEST(peer_theWorkForAChainIsBounded) {
    EVP_PKEY *low_key = testEcKey(12);
    ocspError err;
    X509 *low = issueCa("Low", sub, sub_key, low_key, SUB_URL);
    X509 *leaf4 = issueLeaf(low, low_key, pki->leaf_key);
    ocspX509Stack *chain = testStack(leaf4, low, sub);
    testMust(sk_X509_push(chain, mid) && sk_X509_push(chain, pki->root));
    testBytes each[] = {costlyReply(low, sub, sub_key, "Sub", 0), costlyReply(sub, mid, mid_key, "Mid", 0),
                        costlyReply(mid, pki->root, pki->root_key, "Root", 0),
                        costlyReply(mid, pki->root, pki->root_key, "Root", 1)};
    assert_int_equal(verifyChain(chain, each, 4, &err), OCSP_PEER_GOOD);
    assert_int_equal(test_verifications, 3 * OCSP_MAX_VERIFICATIONS);
    /* Of several for one CA the first counts. */
    testBytes same[] = {each[2], each[2], each[2], each[3]};
    assert_int_equal(verifyChain(chain, same, 4, &err), OCSP_PEER_GOOD);
    assert_int_equal(test_verifications, OCSP_MAX_VERIFICATIONS);
    assert_int_equal(verifyChain(chain, same + 3, 1, &err), OCSP_PEER_BAD);
    assert_int_equal(test_verifications, OCSP_MAX_VERIFICATIONS);
    assert_non_null(strstr(err.text, "does not verify"));
    /* What does not match costs no signature, and hides none. */
    testReply revoked = testGoodReply(mid);
    revoked.singles[0].issuer = revoked.signer = pki->root;
    revoked.singles[0].status = TEST_REVOKED;
    revoked.singles[0].next_update = TEST_NOW + 100;
    revoked.key = pki->root_key;
    testBytes mixed[] = {testCopy("\x30\x03\x0a\x01\x03", 5), each[0], testCopy("\x30\x03\x0a\x01\x06", 5),
                         testReplyDer(&revoked)};
    assert_int_equal(verifyChain(chain, mixed, 4, &err), OCSP_PEER_REVOKED);
    assert_int_equal(test_verifications, OCSP_MAX_VERIFICATIONS + 1);
    assert_non_null(strstr(err.text, "REVOKED on"));
    assert_int_equal(err.may_change_at, TEST_NOW + 100);
    assert_int_equal(verifyChain(NULL, mixed, 4, &err), OCSP_PEER_GOOD);
    assert_int_equal(verifyChain(chain, mixed, 3, &err), OCSP_PEER_GOOD);
    assert_int_equal(err.may_change_at, OCSP_NEVER);
    /* What is broken may be about any of them. */
    testBytes broken[] = {testCopy("\x30\x03\x0a\x01", 4), mixed[3]};
    assert_int_equal(verifyChain(chain, broken, 1, &err), OCSP_PEER_BAD);
    assert_non_null(strstr(err.text, "not a complete DER-encoded"));
    assert_int_equal(verifyChain(chain, broken, 2, &err), OCSP_PEER_BAD);
    testBytesFree(&broken[0]);
    for (int i = 0; i < 4; i++) testBytesFree(&each[i]);
    for (int i = 0; i < 4; i++)
        if (i != 1) testBytesFree(&mixed[i]);
    sk_X509_free(chain);
    X509_free(leaf4);
    X509_free(low);
}
