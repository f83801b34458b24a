/* test_peer.c - the server as a TLS client of its peers: which staples are accepted, what INFO and the log say.
 * Real TLS handshakes over memory; the peer staples whatever bytes the test chooses.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <openssl/err.h>

static const testPki *pki;
static ocspEnv real_env;

/* ---- the host ---------------------------------------------------------------------------------------------------- */

static int lines[2]; /* notices, warnings */
static char last_line[1024];

static void keepLine(ocspLogLevel level, const char *sentence) {
    if (level < OCSP_LOG_NOTICE) return;
    lines[level == OCSP_LOG_WARNING]++;
    snprintf(last_line, sizeof(last_line), "%s", sentence);
}

static long long number_seen;
static char text_seen[4096];
static const char *wanted;

static void textField(void *arg, const char *name, const char *value) {
    (void)arg;
    if (!strcmp(name, wanted)) snprintf(text_seen, sizeof(text_seen), "%s", value);
}

static void numberField(void *arg, const char *name, long long value) {
    (void)arg;
    if (!strcmp(name, wanted)) number_seen = value;
}

static void readInfo(const char *name) {
    static const ocspInfoSink sink = {textField, numberField, NULL};
    wanted = name;
    number_seen = -1;
    strcpy(text_seen, "no such field");
    ocspInfoState(&sink);
}

static long long number(const char *name) {
    readInfo(name);
    return number_seen;
}

static void assertCounts(long long verified, long long missing, long long rejected) {
    assert_int_equal(number("peers_verified"), verified);
    assert_int_equal(number("peers_missing"), missing);
    assert_int_equal(number("peers_rejected"), rejected);
}

static int64_t wall_ahead; /* seconds */

static int64_t testWall(void) {
    return ((int64_t)TEST_NOW + wall_ahead) * 1000;
}

static void setPolicy(ocspVerifyPeers how) {
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    options.verify_peers = how;
    assert_int_equal(ocspSetOptions(&options), 1);
}

static atomic_long allocated; /* from the host, and not given back yet */

static void *countedAlloc(size_t n) {
    atomic_fetch_add(&allocated, 1);
    return malloc(n);
}

static void countedFree(void *p) {
    if (p) atomic_fetch_sub(&allocated, 1);
    free(p);
}

/* ---- the peer and the link --------------------------------------------------------------------------------------- */

static testBytes staple;   /* what the peer staples; p NULL: nothing */
static int staple_is_ca_s; /* it is for the certificate above the peer's */
static atomic_int asked;   /* status requests that it got */

static int turned_off_meanwhile; /* verify-peers is set to no during the handshake */

static int stapleThat(SSL *ssl, void *unused) {
    (void)unused;
    atomic_fetch_add(&asked, 1);
    if (turned_off_meanwhile) setPolicy(OCSP_PEERS_NO);
    if (!staple.p) return SSL_TLSEXT_ERR_NOACK;
    unsigned char *copy = OPENSSL_malloc(staple.n ? staple.n : 1);
    memcpy(copy, staple.p, staple.n);
    if (staple_is_ca_s && testOpensslChecksStaples()) {
#if OPENSSL_VERSION_PREREQ(3, 6)
        const unsigned char *p = copy;
        STACK_OF(OCSP_RESPONSE) *staples = sk_OCSP_RESPONSE_new_null();
        assert_true(sk_OCSP_RESPONSE_push(staples, NULL)); /* none for the peer's certificate */
        assert_true(sk_OCSP_RESPONSE_push(staples, d2i_OCSP_RESPONSE(NULL, &p, (long)staple.n)));
        assert_int_equal(SSL_set0_tlsext_status_ocsp_resp_ex(ssl, staples), 1);
        OPENSSL_free(copy);
        return SSL_TLSEXT_ERR_OK;
#endif
    }
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)staple.n);
    return SSL_TLSEXT_ERR_OK;
}

static void stapleReply(const testReply *reply) {
    testBytesFree(&staple);
    if (reply) staple = testReplyDer(reply);
}

/* A context that serves `leaf`, as a peer's. */
static SSL_CTX *peerCtx(X509 *leaf, EVP_PKEY *key) {
    SSL_CTX *ctx = testServerCtx(leaf, key, pki->ca);
    SSL_CTX_set_tlsext_status_cb(ctx, stapleThat);
    return ctx;
}

/* A context that opens links, as the server makes it: with a certificate, and peers verified against the root. */
static SSL_CTX *linkCtx(int version) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_method()); /* both roles, as the server's is without tls-client-cert-file */
    assert_non_null(ctx);
    SSL_CTX_set_min_proto_version(ctx, version);
    SSL_CTX_set_max_proto_version(ctx, version);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), pki->root);
    X509_VERIFY_PARAM_set_time(SSL_CTX_get0_param(ctx), TEST_NOW);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    testServerAdd(ctx, pki->rsa_leaf, pki->rsa_leaf_key, pki->ca);
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
    ocspInstallPeerCheck(ctx);
    return ctx;
}

static SSL_CTX *links[2], *peer; /* TLS 1.2 and 1.3 */

static int linkUp(SSL_CTX *server, SSL_CTX *client) {
    testShake shake = testHandshake(server, client, 0);
    int ok = shake.ok;
    testShakeFree(&shake);
    return ok;
}

/* Opens one link with each TLS version, with the same outcome; then the main thread runs ocspCron. */
static int linksUp(SSL_CTX *server) {
    int up12 = linkUp(server, links[0]), up13 = linkUp(server, links[1]);
    assert_int_equal(up12, up13);
    ocspLateCron();
    return up13;
}

static testReply revokedReply(X509 *leaf) {
    testReply reply = testGoodReply(leaf);
    reply.singles[0].status = TEST_REVOKED;
    return reply;
}

static testReply expiredReply(X509 *leaf) {
    testReply reply = testGoodReply(leaf);
    reply.singles[0].this_update = TEST_NOW - 2 * TEST_DAY;
    reply.singles[0].next_update = TEST_NOW - 1;
    return reply;
}

static void beginProgram(void) {
    pki = testGetPki();
    real_env = ocsp_env;
}

PROGRAM_FIXTURE(beginProgram, NULL);

static void setUp(void) {
    static const ocspHost host = {.log = keepLine, .alloc = countedAlloc, .free = countedFree};
    ocsp_env.wall_ms = testWall;
    assert_int_equal(ocspInit(&host), 1);
    assert_int_equal(ocspLateInit(NULL), 1);
    links[0] = linkCtx(TLS1_2_VERSION);
    links[1] = linkCtx(TLS1_3_VERSION);
    peer = peerCtx(pki->leaf, pki->leaf_key);
    asked = lines[0] = lines[1] = staple_is_ca_s = 0;
    wall_ahead = 0;
}

static void tearDown(void) {
    testBytesFree(&staple);
    for (int i = 0; i < 2; i++) SSL_CTX_free(links[i]);
    SSL_CTX_free(peer);
    ocspLateShutdown();
    ocspShutdown();
    ocsp_env = real_env;
}

FIXTURE(setUp, tearDown);

/* ---- tests ------------------------------------------------------------------------------------------------------- */

TEST(policyNo_asksForNothingAndChecksNothing) {
    testReply reply = revokedReply(pki->leaf);
    stapleReply(&reply);
    assert_int_equal(linksUp(peer), 1);
    assert_int_equal(asked, 0);
    assertCounts(0, 0, 0);
    assert_int_equal(lines[0] + lines[1], 0);
    turned_off_meanwhile = 1;
    setPolicy(OCSP_PEERS_REQUIRE);
    assert_int_equal(linkUp(peer, links[1]), 1);
    turned_off_meanwhile = 0;
    ocspLateCron();
    assert_int_equal(asked, 1);
    assertCounts(0, 0, 0);
    assert_int_equal(lines[0] + lines[1], 0);
}

/* Every kind of staple by every policy. */
TEST(policy_everyKindOfStaple) {
    testReply good = testGoodReply(pki->leaf), revoked = revokedReply(pki->leaf), expired = expiredReply(pki->leaf),
              foreign = testGoodReply(testOpensslChecksStaples() ? pki->foreign_leaf : pki->renewed_leaf),
              of_ca = testGoodReply(pki->ca), forged = testGoodReply(pki->leaf), twin = testGoodReply(pki->leaf),
              broken = testGoodReply(pki->leaf), unknown = testGoodReply(pki->leaf), later = {.status = 3},
              no_end = testGoodReply(pki->leaf), old_no_end = testGoodReply(pki->leaf),
              future = testGoodReply(pki->leaf), revoked_expired = expiredReply(pki->leaf),
              authorized_responder = testGoodReply(pki->leaf);
    foreign.singles[0].issuer = testOpensslChecksStaples() ? pki->twin : pki->ca;
    of_ca.singles[0].issuer = of_ca.signer = pki->root;
    of_ca.key = pki->root_key;
    forged.signer = pki->responder_no_eku;
    forged.key = pki->responder_key;
    forged.sent[0] = pki->responder_no_eku;
    twin.signer = pki->twin;
    twin.key = pki->twin_key;
    twin.sent[0] = pki->twin;
    broken.break_signature = 1;
    unknown.singles[0].status = TEST_UNKNOWN;
    no_end.singles[0].next_update = old_no_end.singles[0].next_update = 0;
    no_end.singles[0].this_update = TEST_NOW - 890;
    old_no_end.singles[0].this_update = TEST_NOW - 910;
    future.singles[0].this_update = TEST_NOW + 400;
    revoked_expired.singles[0].status = TEST_REVOKED;
    authorized_responder.signer = pki->responder;
    authorized_responder.key = pki->responder_key;
    authorized_responder.sent[0] = pki->responder;
    const struct {
        const char *name;
        testReply *reply; /* NULL: none */
        int soft, require, counted_missing;
        const char *reason;
    } rows[] = {
        {"good", &good, 1, 1, 0, NULL},
        {"good, signed by an authorized responder", &authorized_responder, 1, 1, 0, NULL},
        {"good without nextUpdate, 14:50 old", &no_end, 1, 1, 0, NULL},
        {"none", NULL, 1, 0, 1, "staples no OCSP response"},
        {"expired", &expired, 1, 0, 1, "has expired"},
        {"without nextUpdate, 15:10 old", &old_no_end, 1, 0, 1, "no nextUpdate"},
        {"revoked", &revoked, 0, 0, 0, "REVOKED"},
        {"revoked, expired", &revoked_expired, 0, 0, 0, "has expired"},
        {"of another certificate", &foreign, 0, 0, 0, "no SingleResponse"},
        {"of the CA above alone", &of_ca, 1, 0, 1, "staples no OCSP response"},
        {"signed by a responder without OCSPSigning", &forged, 0, 0, 0, "OCSPSigning"},
        {"of another CA of that name", &twin, 0, 0, 0, "signer"},
        {"with a broken signature", &broken, 0, 0, 0, "signature"},
        {"unknown", &unknown, 0, 0, 0, "does not know"},
        {"tryLater", &later, 0, 0, 0, "trylater"},
        {"from the future", &future, 0, 0, 0, "future"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int how = OCSP_PEERS_SOFT; how <= OCSP_PEERS_REQUIRE; how++) {
            int up = how == OCSP_PEERS_SOFT ? rows[i].soft : rows[i].require;
            print_message("%s, policy %d\n", rows[i].name, how);
            ocspPeersReset();
            setPolicy(how);
            stapleReply(rows[i].reply);
            staple_is_ca_s = rows[i].reply == &of_ca;
            asked = 0;
            assert_int_equal(linksUp(peer), up);
            assert_int_equal(asked, 2);
            assertCounts(up && !rows[i].counted_missing ? 2 : 0, up && rows[i].counted_missing ? 2 : 0, up ? 0 : 2);
            readInfo("last_peer_error");
            if (up)
                assert_string_equal(text_seen, "");
            else
                assert_non_null(strstr(text_seen, rows[i].reason));
            if (rows[i].reason) assert_non_null(strstr(last_line, rows[i].reason));
        }
    }
}

/* A client of OpenSSL 3.6 or later gets the first staple that there is in the chain. */
TEST(staple_ofTheCaAboveAloneIsMissing) {
    testReply of_ca = testGoodReply(pki->ca);
    of_ca.singles[0].issuer = of_ca.signer = pki->root;
    of_ca.key = pki->root_key;
    stapleReply(&of_ca);
    staple_is_ca_s = 1;
    setPolicy(OCSP_PEERS_SOFT);
    assert_int_equal(linkUp(peer, links[1]), 1);
    setPolicy(OCSP_PEERS_REQUIRE);
    assert_int_equal(linkUp(peer, links[1]), 0);
    ocspLateCron();
    assertCounts(0, 1, 1);
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "for its own certificate, only one for a CA above it"));
}

/* OpenSSL 4 does not send one, and a client of 3.6 ends such a handshake itself. */
TEST(staple_ofOneByteIsRejected) {
    int up;
    setPolicy(OCSP_PEERS_SOFT);
    stapleReply(NULL);
    staple = testCopy("\x30", 1);
    up = linksUp(peer);
    assert_true(!up || testOpensslChecksStaples());
    testBytesFree(&staple);
    staple = testCopy("\0", 1);
    assert_int_equal(linksUp(peer), up);
    assertCounts(0, up ? 4 : 0, testOpensslChecksStaples() ? 0 : 4);
}

/* RFC 7633: such a certificate promises a staple, so soft requires one. */
TEST(mustStaple_makesSoftStrict) {
    SSL_CTX *must = peerCtx(pki->must_leaf, pki->leaf_key);
    testReply expired = expiredReply(pki->must_leaf), good = testGoodReply(pki->must_leaf);
    setPolicy(OCSP_PEERS_SOFT);
    stapleReply(NULL);
    assert_int_equal(linksUp(must), 0);
    stapleReply(&expired);
    assert_int_equal(linksUp(must), 0);
    stapleReply(&good);
    assert_int_equal(linksUp(must), 1);
    assertCounts(2, 0, 4);
    SSL_CTX_free(must);
}

/* A self-signed peer has no responder. */
TEST(selfSigned_isRefusedByRequireOnly) {
    SSL_CTX *self = peerCtx(pki->self, pki->leaf_key);
    for (int i = 0; i < 2; i++) X509_STORE_add_cert(SSL_CTX_get_cert_store(links[i]), pki->self);
    stapleReply(NULL);
    setPolicy(OCSP_PEERS_SOFT);
    assert_int_equal(linksUp(self), 1);
    setPolicy(OCSP_PEERS_REQUIRE);
    assert_int_equal(linksUp(self), 0);
    assertCounts(0, 2, 2);
    SSL_CTX_free(self);
}

TEST(counters_areReset) {
    testReply good = testGoodReply(pki->leaf);
    setPolicy(OCSP_PEERS_SOFT);
    stapleReply(&good);
    assert_int_equal(linksUp(peer), 1);
    stapleReply(NULL);
    assert_int_equal(linksUp(peer), 1);
    setPolicy(OCSP_PEERS_REQUIRE);
    assert_int_equal(linksUp(peer), 0);
    assertCounts(2, 2, 2);
    ocspResetCounters();
    assertCounts(0, 0, 0);
    assert_int_equal(linksUp(peer), 0);
    assertCounts(0, 0, 2);
}

/* The issuer comes from the verified chain of this handshake; without one no staple can be verified. */
TEST(chain_notVerifiedIsRefused) {
    testReply good = testGoodReply(pki->leaf);
    stapleReply(&good);
    SSL_CTX_set_verify(links[1], SSL_VERIFY_NONE, NULL);
    setPolicy(OCSP_PEERS_SOFT);
    assert_int_equal(linkUp(peer, links[1]),
                     1); /* the chain is verified all the same; only the peer check uses the result */
    X509_STORE *empty = X509_STORE_new();
    SSL_CTX_set_cert_store(links[1], empty);
    assert_int_equal(linkUp(peer, links[1]), 0);
    ocspLateCron();
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "issuer"));
}

/* A client context without a certificate is not the server's (it may be an LDAP module's). */
TEST(clients_ofOtherCodeAreLeftAlone) {
    SSL_CTX *other = testClientCtx(TLS1_3_VERSION, 0);
    ocspInstallCallbackAs(other, OCSP_CONTEXT_OF_SERVER);
    ocspInstallPeerCheck(other);
    setPolicy(OCSP_PEERS_REQUIRE);
    stapleReply(NULL);
    assert_int_equal(linkUp(peer, other), 1);
    assert_int_equal(asked, 0);
    /* A client that requests the status itself also verifies it itself. */
    testShake shake = testHandshake(peer, other, 1);
    assert_int_equal(shake.ok, 1);
    testShakeFree(&shake);
    assertCounts(0, 0, 0);
    SSL_CTX_free(other);
    /* The same with a certificate, if only the stapling callback was installed. */
    other = linkCtx(TLS1_3_VERSION);
    SSL_CTX_set_info_callback(other, NULL);
    shake = testHandshake(peer, other, 1);
    assert_int_equal(shake.ok, 1);
    testShakeFree(&shake);
    assertCounts(0, 0, 0);
    SSL_CTX_free(other);
}

/* Server-side handshakes are as before, whatever the policy is. */
TEST(servers_areLeftAlone) {
    SSL_CTX *both = linkCtx(TLS1_3_VERSION), *client = testClientCtx(TLS1_3_VERSION, 0);
    SSL_CTX_set_verify(both, SSL_VERIFY_NONE, NULL);
    setPolicy(OCSP_PEERS_REQUIRE);
    testShake shake = testHandshake(both, client, 1);
    assert_int_equal(shake.ok, 1);
    assert_int_equal(shake.got_staple, 0);
    testShakeFree(&shake);
    assert_int_equal(number("handshakes_unstapled"), 1);
    assertCounts(0, 0, 0);
    SSL_CTX_free(both);
    SSL_CTX_free(client);
}

/* In TLS 1.3 a resumed session counts as one without a staple. (In TLS 1.2 OpenSSL does not call the callback; the
 * server resumes no session on its links.) */
TEST(resumedSession_countsAsMissing) {
    testReply good = testGoodReply(pki->leaf);
    SSL_SESSION *session = NULL;
    stapleReply(&good);
    SSL_CTX_set_session_cache_mode(peer, SSL_SESS_CACHE_SERVER);
    SSL_CTX_set_session_id_context(peer, (const unsigned char *)"peer", 4);
    SSL_CTX_set_num_tickets(peer, 1);
    for (int handshake = 0; handshake < 3;
         handshake++) { /* a full handshake, then resumed ones by soft and by require */
        SSL *s = SSL_new(peer), *c = SSL_new(links[1]);
        BIO *sb, *cb;
        char byte;
        int up = 0;
        assert_true(BIO_new_bio_pair(&sb, 0, &cb, 0));
        SSL_set_bio(s, sb, sb);
        SSL_set_bio(c, cb, cb);
        SSL_set_accept_state(s);
        SSL_set_connect_state(c);
        if (session) assert_true(SSL_set_session(c, session));
        setPolicy(handshake == 1 ? OCSP_PEERS_SOFT : OCSP_PEERS_REQUIRE);
        for (int i = 0; i < 10; i++) up = (SSL_do_handshake(c) == 1) & (SSL_do_handshake(s) == 1);
        assert_int_equal(up, handshake != 2);
        assert_int_equal(SSL_session_reused(c), handshake > 0);
        if (handshake == 0) {
            SSL_read(c, &byte, 1); /* the ticket */
            session = SSL_get1_session(c);
        }
        SSL_shutdown(c);
        SSL_free(s);
        SSL_free(c);
        ERR_clear_error();
    }
    ocspLateCron();
    assertCounts(1, 1, 1);
    assert_non_null(strstr(last_line, "resumed"));
    SSL_SESSION_free(session);
}

/* One line for each peer and state; the recovery is logged too. */
TEST(log_eachChangeOnce) {
    testReply good = testGoodReply(pki->leaf), revoked = revokedReply(pki->leaf);
    setPolicy(OCSP_PEERS_SOFT);
    stapleReply(&good);
    for (int i = 0; i < 5; i++) assert_int_equal(linksUp(peer), 1);
    assert_int_equal(lines[0] + lines[1], 0);
    stapleReply(NULL);
    for (int i = 0; i < 5; i++) assert_int_equal(linksUp(peer), 1);
    assert_int_equal(lines[0], 1);
    assert_non_null(strstr(last_line, "accepted without a valid staple"));
    stapleReply(&revoked);
    for (int i = 0; i < 5; i++) assert_int_equal(linksUp(peer), 0);
    assert_int_equal(lines[1], 1);
    assert_non_null(strstr(last_line, "refused"));
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "REVOKED"));
    stapleReply(&good);
    for (int i = 0; i < 5; i++) assert_int_equal(linksUp(peer), 1);
    assert_int_equal(lines[0], 2);
    assert_non_null(strstr(last_line, "verified again"));
    readInfo("last_peer_error");
    assert_string_equal(text_seen, "");
    /* Another certificate of that peer in the same state is logged again. */
    SSL_CTX *renewed = peerCtx(pki->renewed_leaf, pki->leaf_key);
    stapleReply(&revoked);
    assert_int_equal(linksUp(peer), 0);
    testReply other = revokedReply(pki->renewed_leaf);
    stapleReply(&other);
    assert_int_equal(linksUp(renewed), 0);
    assert_int_equal(lines[1], 3);
    SSL_CTX_free(renewed);
}

/* A failure and a recovery before ocspCron ran: both are logged, in that order. */
TEST(log_recoveryBeforeTheFailureWasLogged) {
    testReply good = testGoodReply(pki->leaf), revoked = revokedReply(pki->leaf);
    setPolicy(OCSP_PEERS_REQUIRE);
    stapleReply(&revoked);
    assert_int_equal(linkUp(peer, links[1]), 0);
    stapleReply(&good);
    assert_int_equal(linkUp(peer, links[1]), 1);
    ocspLateCron();
    readInfo("last_peer_error");
    assert_string_equal(text_seen, "");
    assert_int_equal(lines[1], 1);
    assert_non_null(strstr(last_line, "verified again"));
    /* The error is cleared when checks are turned off. */
    stapleReply(&revoked);
    assert_int_equal(linksUp(peer), 0);
    setPolicy(OCSP_PEERS_NO);
    readInfo("last_peer_error");
    assert_string_equal(text_seen, "");
}

/* A large cluster of bad peers: each is remembered, wherever its address differs, and a lookup compares a few entries. */
TEST(log_manyPeersAreRemembered) {
    static const char *const forms[] = {"10.1.2.3:%d", "[fd00::1]:%d", "10.0.0.%d:6379"};
    char address[64];
    for (int f = 0; f < 3; f++) {
        ocspPeersReset();
        for (int round = 0; round < 2; round++)
            for (int i = 0; i < 500; i++) {
                snprintf(address, sizeof(address), forms[f], f < 2 ? 30000 + i : i);
                if (ocspPeerChanged(ocspPeerHash(address, 0), 3) != !round) fail_msg("%s, round %d", address, round);
            }
        for (int i = 0; i < 500; i++) {
            snprintf(address, sizeof(address), forms[f], f < 2 ? 30000 + i : i);
            assert_int_equal(ocspPeerChanged(ocspPeerHash(address, 0), 5), 1); /* another bad state */
            assert_int_equal(ocspPeerChanged(ocspPeerHash(address, 0), 0), 1);
            assert_int_equal(ocspPeerChanged(ocspPeerHash(address, 0), 0), 0);
        }
    }
}

/* Where more peers are bad than are remembered, the others are logged again, and none is lost. */
TEST(log_morePeersThanAreRemembered) {
    int again = 0;
    for (uint64_t i = 1; i <= 5000; i++) assert_int_equal(ocspPeerChanged(i * 2 + 1, 3), 1);
    for (uint64_t i = 5000; i >= 1; i--) again += ocspPeerChanged(i * 2 + 1, 3);
    testAssertRange(again, 904, 4000);
    for (uint64_t i = 1; i <= 5000; i++) ocspPeerChanged(i * 2 + 1, 0);
    for (uint64_t i = 1; i <= 5000; i++) assert_int_equal(ocspPeerChanged(i * 2 + 1, 0), 0);
}

/* An active context without the peer check: links are not checked, and INFO and the log say so. */
TEST(context_withoutCheckIsReported) {
    SSL_CTX *unchecked = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    ocspInstallCallbackAs(unchecked, OCSP_CONTEXT_OF_SERVER);
    ocspLateAttach(unchecked);
    assert_int_equal(lines[1], 0);
    setPolicy(OCSP_PEERS_REQUIRE);
    ocspLateAttach(unchecked);
    assert_int_equal(lines[1], 1);
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "NOT checked"));
    ocspInstallPeerCheck(unchecked);
    ocspLateAttach(unchecked);
    assert_int_equal(lines[1], 1);
    SSL_CTX_free(unchecked);
}

/* How many signatures the engine verifies for one link, whose outcome must be `up`. */
static int verificationsOfALink(SSL_CTX *server, int up) {
    testCountFromZero();
    assert_int_equal(linkUp(server, links[1]), up);
    ocspLateCron();
    return test_verifications;
}

/* A refused peer tries again and again: its staple is verified once a minute, and the verdict is cached for that staple
 * and that certificate alone. */
TEST(rejectedStaple_isVerifiedOnceAMinute) {
    testReply good = testGoodReply(pki->leaf), junk = testGoodReply(pki->leaf), revoked = revokedReply(pki->leaf),
              future = testGoodReply(pki->leaf);
    SSL_CTX *must = peerCtx(pki->must_leaf, pki->leaf_key), *renewed = peerCtx(pki->renewed_leaf, pki->leaf_key);
    setPolicy(OCSP_PEERS_REQUIRE);
    junk.break_signature = 1;
    stapleReply(&junk);
    int once = verificationsOfALink(peer, 0);
    assert_true(once > 0);
    for (int i = 0; i < 20; i++) assert_int_equal(verificationsOfALink(peer, 0), 0);
    assertCounts(0, 0, 21);
    assert_int_equal(lines[1], 1); /* no new line in the log */
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "signature"));
    assert_int_equal(verificationsOfALink(renewed, 0), 1); /* the same staple with another certificate: verified */
    assert_int_equal(verificationsOfALink(peer, 0), 0);
    assert_int_equal(verificationsOfALink(must, 0), 1);
    wall_ahead = 59;
    assert_int_equal(verificationsOfALink(peer, 0), 0);
    wall_ahead = 60;
    assert_int_equal(verificationsOfALink(peer, 0), once);
    wall_ahead = -1; /* the clock went back: dates are checked again */
    assert_int_equal(verificationsOfALink(peer, 0), once);
    wall_ahead = 0;

    stapleReply(&good); /* a recovery is noticed at once, and good verdicts are not cached */
    assert_int_equal(verificationsOfALink(peer, 1), once);
    assert_int_equal(verificationsOfALink(peer, 1), once);

    revoked.singles[0].next_update = TEST_NOW + 10;
    stapleReply(&revoked);
    assert_int_equal(verificationsOfALink(peer, 0), once);
    wall_ahead = 9;
    assert_int_equal(verificationsOfALink(peer, 0), 0);
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "REVOKED"));
    wall_ahead = 10;
    assert_int_equal(verificationsOfALink(peer, 0), once);
    readInfo("last_peer_error");
    assert_non_null(strstr(text_seen, "expired"));
    wall_ahead = 0;

    future.singles[0].this_update = TEST_NOW + OCSP_CLOCK_SKEW + 5;
    stapleReply(&future);
    assert_int_equal(verificationsOfALink(peer, 0), once);
    wall_ahead = 4;
    assert_int_equal(verificationsOfALink(peer, 0), 0);
    wall_ahead = 5; /* valid from now on */
    assert_int_equal(verificationsOfALink(peer, 1), once);
    SSL_CTX_free(must);
    SSL_CTX_free(renewed);
}

/* 64 verdicts are cached; one more replaces the oldest. */
TEST(rejectedStaple_sixtyFourAreRemembered) {
    testReply junk = testGoodReply(pki->leaf);
    testBytes staples[65];
    setPolicy(OCSP_PEERS_REQUIRE);
    junk.break_signature = 1;
    for (int i = 0; i < 65; i++) {
        junk.singles[0].this_update = TEST_NOW - 1000 + i;
        staples[i] = testReplyDer(&junk);
    }
    stapleReply(NULL);
    for (int look = 0; look < 131; look++) {
        int i = look < 128 ? look % 64 : (const int[]){64, 1, 0}[look - 128];
        int judged = look < 64 || look == 128 || look == 130;
        staple = staples[i];
        int cost = verificationsOfALink(peer, 0);
        if ((cost > 0) != judged) fail_msg("handshake %d, staple %d: %d verifications", look, i, cost);
    }
    staple = staples[64];
    for (int i = 0; i < 64; i++) testBytesFree(&staples[i]);
}

/* Events that the main thread does not read do not accumulate. */
TEST(events_areBounded) {
    setPolicy(OCSP_PEERS_SOFT);
    stapleReply(NULL);
    long before = atomic_load(&allocated);
    for (int i = 0; i < 1100; i++) assert_int_equal(linkUp(peer, links[1]), 1);
    assertCounts(0, 1100, 0);
    assert_int_equal(atomic_load(&allocated) - before, 1024);
    ocspLateCron();
    assert_int_equal(atomic_load(&allocated), before);
    assert_int_equal(lines[0], 1);
}

/* ---- many links at once ------------------------------------------------------------------------------------------ */

#define LINKERS 4
static atomic_long links_left, links_done, links_wrong;

static void *linkMany(void *number) {
    SSL_CTX *mine = links[(intptr_t)number % 2];
    while (atomic_fetch_sub(&links_left, 1) > 0) {
        /* This peer is accepted by every policy. */
        if (!linkUp(peer, mine)) atomic_fetch_add(&links_wrong, 1);
        atomic_fetch_add(&links_done, 1);
    }
    return NULL;
}

/* Links on four threads, as I/O threads open them, while the main thread changes the policy, reads INFO and runs
 * ocspCron. Most telling under ThreadSanitizer. */
TEST(links_onFourThreadsWhileThePolicyChanges) {
    long total = testEnvNumber("OCSP_TEST_LINKS", 1200);
    pthread_t threads[LINKERS];
    testReply good = testGoodReply(pki->leaf);
    stapleReply(NULL);
    setPolicy(OCSP_PEERS_SOFT);
    assert_int_equal(linksUp(peer), 1); /* logged once: from here on good links report a recovery */
    stapleReply(&good);
    atomic_store(&links_left, total);
    for (int i = 0; i < LINKERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, linkMany, (void *)(intptr_t)i), 0);
    for (int i = 0; atomic_load(&links_done) < total; i++) {
        setPolicy((ocspVerifyPeers)(i % 3));
        ocspLateCron();
        number("peers_verified");
        testSleepMs(1);
    }
    for (int i = 0; i < LINKERS; i++) pthread_join(threads[i], NULL);
    ocspLateCron();
    assert_int_equal(links_wrong, 0);
    assert_true(number("peers_verified") > total / 10);
    assert_int_equal(number("peers_rejected"), 0);
    print_message("%ld links, %lld of them verified\n", total, number("peers_verified"));
}

/* ---- the cost ---------------------------------------------------------------------------------------------------- */

static double processorMicros(void) {
    struct timespec ts;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static int byValue(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Prints the CPU time of a checked and of an unchecked link, both ends together; asserts no time. OCSP_TEST_PAIRS=600
 * gives a reliable figure. */
TEST(links_costOfTheCheck) {
    long pairs = testEnvNumber("OCSP_TEST_PAIRS", 20);
    double *took[2] = {calloc((size_t)pairs, sizeof(double)), calloc((size_t)pairs, sizeof(double))};
    testReply good = testGoodReply(pki->leaf);
    stapleReply(&good);
    for (int version = 0; version < 2; version++) {
        for (long i = 0; i < pairs * 2; i++) {
            int check = (i ^ (i / 2)) & 1; /* alternately first */
            setPolicy(check ? OCSP_PEERS_REQUIRE : OCSP_PEERS_NO);
            double from = processorMicros();
            assert_int_equal(linkUp(peer, links[version]), 1);
            took[check][i / 2] = processorMicros() - from;
        }
        for (long i = 0; i < pairs; i++) took[1][i] -= took[0][i];
        for (int k = 0; k < 2; k++) qsort(took[k], (size_t)pairs, sizeof(double), byValue);
        print_message(
            "TLS 1.%d, ECDSA: %.0f us, and %.0f us more with the check (quartiles %.0f and %.0f of %ld pairs)\n",
            version + 2, took[0][pairs / 2], took[1][pairs / 2], took[1][pairs / 4], took[1][pairs * 3 / 4], pairs);
    }
    assert_int_equal(number("peers_verified"), pairs * 2);
    free(took[0]);
    free(took[1]);
}
