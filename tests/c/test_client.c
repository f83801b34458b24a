/* test_client.c - the check of a server's staple for programs that are TLS clients only (ocsp_staple.h). Real TLS
 * handshakes over memory; the server staples whatever bytes the test chooses. The clock is TEST_NOW (--wrap=time).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_staple.h"
#include "support.h"

#include <stdio.h>
#include <string.h>
#include <openssl/err.h>

static const testPki *pki;
static testBytes staple; /* what the server staples; p NULL: nothing */
static char sentence[OCSP_STAPLE_ERROR_MAX];

time_t __wrap_time(time_t *out);

time_t __wrap_time(time_t *out) {
    if (out) *out = TEST_NOW;
    return TEST_NOW;
}

static int stapleThat(SSL *ssl, void *unused) {
    unsigned char *copy;

    (void)unused;
    if (!staple.p) return SSL_TLSEXT_ERR_NOACK;
    copy = OPENSSL_malloc(staple.n);
    memcpy(copy, staple.p, staple.n);
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple.n);
    return SSL_TLSEXT_ERR_OK;
}

static void stapleReply(const testReply *reply) {
    testBytesFree(&staple);
    if (reply) staple = testReplyDer(reply);
}

static SSL_CTX *serverCtx(X509 *leaf) {
    SSL_CTX *ctx = testServerCtx(leaf, pki->leaf_key, pki->ca);
    SSL_CTX_set_tlsext_status_cb(ctx, stapleThat);
    return ctx;
}

/* A client that verifies the server's chain against the root, and its staple by `policy`. */
static SSL_CTX *clientCtx(int version, ocspStaplePolicy policy) {
    SSL_CTX *ctx = testClientCtx(version, 0);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), pki->root);
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(ctx), TEST_NOW);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    assert_int_equal(ocspStapleInstall(ctx, policy), 1);
    return ctx;
}

/* Connects once. `sentence` is the reason of a refusal, or empty. */
static int connects(SSL_CTX *server, SSL_CTX *client) {
    SSL *s = SSL_new(server), *c = SSL_new(client);
    int ok = testShakeHands(s, c);
    const char *why = ocspStapleError(c);

    snprintf(sentence, sizeof(sentence), "%s", why ? why : "");
    SSL_free(s);
    SSL_free(c);
    ERR_clear_error();
    return ok;
}

/* Connects with TLS 1.2 and 1.3, with the same outcome. */
static int connectsByBoth(X509 *leaf, ocspStaplePolicy policy) {
    SSL_CTX *server = serverCtx(leaf),
            *clients[] = {clientCtx(TLS1_2_VERSION, policy), clientCtx(TLS1_3_VERSION, policy)};
    int ok[2];

    for (int i = 0; i < 2; i++) ok[i] = connects(server, clients[i]);
    for (int i = 0; i < 2; i++) SSL_CTX_free(clients[i]);
    SSL_CTX_free(server);
    assert_int_equal(ok[0], ok[1]);
    return ok[0];
}

static void beginProgram(void) {
    pki = testGetPki();
}

PROGRAM_FIXTURE(beginProgram, NULL);

static void tearDown(void) {
    testBytesFree(&staple);
}

FIXTURE(NULL, tearDown);

/* Every kind of staple by both policies. */
TEST(policy_everyKindOfStaple) {
    testReply good = testGoodReply(pki->leaf), revoked = good, expired = good,
              foreign = testGoodReply(testOpensslChecksStaples() ? pki->foreign_leaf : pki->renewed_leaf),
              forged = good, twin = good, broken = good, no_end = good, old_no_end = good, future = good, soon = good,
              authorized = good, later = {.status = 3};
    revoked.singles[0].status = TEST_REVOKED;
    expired.singles[0].this_update = TEST_NOW - 2 * TEST_DAY;
    expired.singles[0].next_update = TEST_NOW - 1;
    forged.signer = pki->responder_no_eku;
    forged.key = pki->responder_key;
    forged.sent[0] = pki->responder_no_eku;
    foreign.singles[0].issuer = testOpensslChecksStaples() ? pki->twin : pki->ca;
    twin.signer = pki->twin;
    twin.key = pki->twin_key;
    twin.sent[0] = pki->twin;
    broken.break_signature = 1;
    no_end.singles[0].next_update = old_no_end.singles[0].next_update = 0;
    no_end.singles[0].this_update = TEST_NOW - 890;
    old_no_end.singles[0].this_update = TEST_NOW - 910;
    future.singles[0].this_update = TEST_NOW + 400;
    soon.singles[0].this_update = TEST_NOW + 200;
    authorized.signer = pki->responder;
    authorized.key = pki->responder_key;
    authorized.sent[0] = pki->responder;
    const struct {
        const char *name;
        testReply *reply; /* NULL: none */
        int soft, require;
        const char *reason;
    } rows[] = {
        {"good", &good, 1, 1, ""},
        {"good, signed by an authorized responder", &authorized, 1, 1, ""},
        {"good, this client's clock is 200 s behind", &soon, 1, 1, ""},
        {"good without nextUpdate, 14:50 old", &no_end, 1, 1, ""},
        {"none", NULL, 1, 0, "turn on OCSP stapling"},
        {"expired", &expired, 0, 0, "has expired"},
        {"without nextUpdate, 15:10 old", &old_no_end, 0, 0, "no nextUpdate"},
        {"revoked", &revoked, 0, 0, "was REVOKED on"},
        {"of another certificate", &foreign, 0, 0, "no SingleResponse"},
        {"signed by a responder without OCSPSigning", &forged, 0, 0, "OCSPSigning"},
        {"of another CA of that name", &twin, 0, 0, "signer"},
        {"with a broken signature", &broken, 0, 0, "signature"},
        {"tryLater", &later, 0, 0, "trylater"},
        {"from the future", &future, 0, 0, "future"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        print_message("%s\n", rows[i].name);
        stapleReply(rows[i].reply);
        assert_int_equal(connectsByBoth(pki->leaf, OCSP_STAPLE_REQUIRE), rows[i].require);
        if (rows[i].require) assert_string_equal(sentence, "");
        assert_non_null(strstr(sentence, rows[i].reason));
        assert_int_equal(connectsByBoth(pki->leaf, OCSP_STAPLE_SOFT), rows[i].soft);
        if (!rows[i].soft) assert_non_null(strstr(sentence, rows[i].reason));
    }
}

/* OpenSSL 4 does not send one. */
TEST(staple_ofOneByteIsRejected) {
    staple = testCopy("\x30", 1);
    int accepted = connectsByBoth(pki->leaf, OCSP_STAPLE_SOFT);
    assert_true(!accepted || testOpensslChecksStaples());
    assert_int_equal(connectsByBoth(pki->leaf, OCSP_STAPLE_REQUIRE), 0);
}

/* RFC 7633: such a certificate promises a staple, so soft requires one. */
TEST(mustStaple_makesSoftStrict) {
    testReply good = testGoodReply(pki->must_leaf), expired = good;
    assert_int_equal(connectsByBoth(pki->must_leaf, OCSP_STAPLE_SOFT), 0);
    expired.singles[0].this_update = TEST_NOW - 2 * TEST_DAY;
    expired.singles[0].next_update = TEST_NOW - 1;
    stapleReply(&expired);
    assert_int_equal(connectsByBoth(pki->must_leaf, OCSP_STAPLE_SOFT), 0);
    stapleReply(&good);
    assert_int_equal(connectsByBoth(pki->must_leaf, OCSP_STAPLE_SOFT), 1);
}

/* With SSL_VERIFY_NONE (valkey-cli --insecure) the issuer comes from what the server sends, or from what is trusted; a
 * revoked certificate is still refused, and an unknown issuer too. */
TEST(insecure_stillRefuses) {
    testReply good = testGoodReply(pki->leaf), revoked = good;
    SSL_CTX *server = serverCtx(pki->leaf), *alone = testServerCtx(pki->leaf, pki->leaf_key, NULL);
    SSL_CTX *client = testClientCtx(TLS1_3_VERSION, 0);
    revoked.singles[0].status = TEST_REVOKED;
    SSL_CTX_set_tlsext_status_cb(alone, stapleThat);
    assert_int_equal(ocspStapleInstall(client, OCSP_STAPLE_REQUIRE), 1);
    stapleReply(&good);
    assert_int_equal(connects(server, client), 1); /* the server sends its issuer */
    assert_int_equal(connects(alone, client), 0);
    assert_non_null(strstr(sentence, "issuer"));
    X509_STORE_add_cert(SSL_CTX_get_cert_store(client), pki->ca);
    assert_int_equal(connects(alone, client), 1);
    stapleReply(&revoked);
    assert_int_equal(connects(server, client), 0);
    assert_int_equal(connects(alone, client), 0);
    assert_non_null(strstr(sentence, "REVOKED"));
    SSL_CTX_free(server);
    SSL_CTX_free(alone);
    SSL_CTX_free(client);
}

/* In TLS 1.2 OpenSSL does not call the callback for a resumed session, as the header says. */
TEST(resumed_sessionOfTls13IsRefusedByRequire) {
    testReply good = testGoodReply(pki->leaf);
    SSL_CTX *server = serverCtx(pki->leaf);
    stapleReply(&good);
    SSL_CTX_set_session_cache_mode(server, SSL_SESS_CACHE_SERVER);
    SSL_CTX_set_session_id_context(server, (const unsigned char *)"test", 4);
    SSL_CTX_set_num_tickets(server, 1);
    for (int policy = OCSP_STAPLE_REQUIRE; policy <= OCSP_STAPLE_SOFT; policy++) {
        SSL_CTX *client = clientCtx(TLS1_3_VERSION, (ocspStaplePolicy)policy);
        SSL *s = SSL_new(server), *c = SSL_new(client);
        SSL_SESSION *session;
        char byte;
        assert_int_equal(testShakeHands(s, c), 1);
        SSL_read(c, &byte, 1); /* the ticket */
        session = SSL_get1_session(c);
        SSL_shutdown(c); /* a session of a connection without it is not resumed */
        SSL_free(s);
        SSL_free(c);
        s = SSL_new(server);
        c = SSL_new(client);
        SSL_set_session(c, session);
        assert_int_equal(testShakeHands(s, c), policy == OCSP_STAPLE_SOFT);
        assert_int_equal(SSL_session_reused(c), 1);
        if (policy == OCSP_STAPLE_REQUIRE) assert_non_null(strstr(ocspStapleError(c), "resumed"));
        SSL_SESSION_free(session);
        SSL_free(s);
        SSL_free(c);
        SSL_CTX_free(client);
        ERR_clear_error();
    }
    SSL_CTX_free(server);
}

/* A context that serves, too, staples nothing, and its handshakes go on. */
TEST(server_withTheCheckStaplesNothing) {
    SSL_CTX *server = testServerCtx(pki->leaf, pki->leaf_key, pki->ca), *client = testClientCtx(TLS1_3_VERSION, 0);
    testShake shake;
    assert_int_equal(ocspStapleInstall(server, OCSP_STAPLE_REQUIRE), 1);
    shake = testHandshake(server, client, 1);
    assert_int_equal(shake.ok, 1);
    assert_int_equal(shake.got_staple, 0);
    testShakeFree(&shake);
    SSL_CTX_free(server);
    SSL_CTX_free(client);
}
