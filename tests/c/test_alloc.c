/* test_alloc.c - every allocation of the engine fails, one at a time: those of the host's allocator, and those that
 * OpenSSL makes inside the engine's calls.
 *
 * Each walk runs one scenario again and again and lets the first, the second, the third ... allocation fail (in the
 * longest walks one of a few, from a random start; `make kills`, or FAULT_STRIDE=1, refuses each), until one run ends
 * without reaching the one that should fail. After each run: nothing crashed, nothing invalid was stapled or accepted,
 * no memory of the host is lost (OpenSSL's is checked by LeakSanitizer with SAN=address), and once memory is available
 * again the right staple is back without a reload.
 *
 * Only the engine's own calls are counted: `scarce` is raised around them, on this thread. The program says how many
 * allocations each walk went through. With an OpenSSL before 3.6, SSL_ctrl is replaced by one that takes the responses
 * for a chain. Allocations that libc makes by itself (opendir, getaddrinfo) are refused on the real server, in
 * tests/unit/ocsp-faults.tcl.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"
#include "ocsp_worker.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>

static const testPki *pki;
static ocspEnv real_env;

/* ---- scarce memory ----------------------------------------------------------------------------------------------- */

static _Thread_local int scarce; /* raised: allocations of this thread count */
static long counted, fail_at;    /* fail_at 0: none fails */
static long of_host;             /* of those counted */
static long host_blocks;         /* that the engine holds now; the host is asked by one thread at a time here */
static int refused;
static int host_refused; /* the refused allocation was of the host's allocator; set to 0 by each run that reads it */

static int refuse(void) {
    if (!scarce || fail_at == 0) return 0;
    if (++counted != fail_at) return 0;
    refused = 1;
    return 1;
}

static void *cryptoMalloc(size_t n, const char *file, int line) {
    (void)file;
    (void)line;
    return n == 0 || refuse() ? NULL : malloc(n);
}

static void *cryptoRealloc(void *p, size_t n, const char *file, int line) {
    (void)file;
    (void)line;
    if (n == 0) {
        free(p);
        return NULL;
    }
    return refuse() ? NULL : realloc(p, n);
}

static void cryptoFree(void *p, const char *file, int line) {
    (void)file;
    (void)line;
    free(p);
}

static void *hostAlloc(size_t n) {
    void *p;
    of_host += scarce;
    if (refuse()) {
        host_refused = 1;
        return NULL;
    }
    p = malloc(n);
    host_blocks += p != NULL;
    return p;
}

static void hostFree(void *p) {
    host_blocks -= p != NULL;
    free(p);
}

static void quietLog(ocspLogLevel level, const char *sentence) {
    (void)level;
    (void)sentence;
}

static int push_accepted;

static void noteAnswer(ocspAnswerKind kind, unsigned number, const char *error) {
    (void)number;
    if (kind == OCSP_ANSWER_PUSH) push_accepted = !error;
}

static const ocspHost host = {.log = quietLog, .alloc = hostAlloc, .free = hostFree, .answered = noteAnswer};

/* Code of the test within code of the engine. */
static int pauseScarcity(void) {
    int was = scarce;
    scarce = 0;
    return was;
}

static const char *walking;

/* Says where a walk stood when its test failed. */
static void where(void) {
    if (fail_at) printf("%s: it was allocation %ld that was refused\n", walking, fail_at);
    scarce = 0;
    fail_at = 0;
}

FIXTURE(NULL, where);

/* Before OpenSSL's first allocation. */
static void beginProgram(void) {
    if (!CRYPTO_set_mem_functions(cryptoMalloc, cryptoRealloc, cryptoFree))
        fail_msg("OpenSSL has allocated already: its allocations cannot be refused");
    signal(SIGPIPE, SIG_IGN);
    if (access("/dev/shm", W_OK) == 0) setenv("TMPDIR", "/dev/shm", 0); /* thousands of fsyncs */
    real_env = ocsp_env;
    pki = testGetPki();
}

PROGRAM_FIXTURE(beginProgram, NULL);

/* ThreadSanitizer makes these walks six times slower, and there is little for it in them: each is on two threads that
 * take turns. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FEWER 7
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define FEWER 7
#endif
#ifndef FEWER
#define FEWER 1
#endif

/* Calls `once` with each allocation failing in turn, or, where OpenSSL makes thousands by itself, with one of `stride`
 * from a random start (OCSP_TEST_PATIENCE: of so many times as many, on a slow machine); with FAULT_STRIDE=1 in the
 * environment each. In the first call, without a failure, OpenSSL also creates its permanent state. */
static void walkBy(long stride, const char *name, void (*once)(void)) {
    long blocks;

    walking = name;
    fail_at = counted = 0;
    once();
    of_host = 0;
    blocks = host_blocks;
    stride = testEnvNumber("FAULT_STRIDE", stride > 1 ? FEWER * stride * testEnvNumber("OCSP_TEST_PATIENCE", 1) : 1);
    fail_at = 1 - stride + (long)getpid() % stride;
    do {
        fail_at += stride;
        counted = of_host = 0;
        refused = 0;
        once();
        assert_int_equal(scarce, 0);
        if (host_blocks != blocks)
            fail_msg("%s, allocation %ld refused: the engine lost %ld of its blocks", name, fail_at,
                     host_blocks - blocks);
        ERR_clear_error();
    } while (refused);
    if (fail_at <= stride) fail_msg("%s: no allocation was reached", name);
    printf("%s: %s of %ld allocations refused once, %ld of them the host's\n", name, stride > 1 ? "some" : "each",
           fail_at - 1, of_host);
    fail_at = 0;
}

static void walk(const char *name, void (*once)(void)) {
    walkBy(1, name, once);
}

#define engine(call) \
    do {             \
        scarce = 1;  \
        call;        \
        scarce = 0;  \
    } while (0)

/* ---- certificates as a TLS load makes them: parsed anew ---------------------------------------------------------- */

static X509 *again(X509 *cert) {
    unsigned char *der = NULL;
    int n = i2d_X509(cert, &der);
    const unsigned char *p = der;
    X509 *fresh = d2i_X509(NULL, &p, n);
    assert_non_null(fresh);
    OPENSSL_free(der);
    return fresh;
}

static void assertSameIdentity(const ocspIdentity *a, const ocspIdentity *b) {
    assert_memory_equal(a->sha256, b->sha256, sizeof(a->sha256));
    assert_string_equal(a->sha256_hex, b->sha256_hex);
    assert_string_equal(a->serial, b->serial);
    assert_int_equal(a->not_after, b->not_after);
    assert_int_equal(a->self_signed, b->self_signed);
    assert_int_equal(a->must_staple, b->must_staple);
    assert_int_equal(a->url_count, b->url_count);
    for (int i = 0; i < a->url_count; i++) assert_string_equal(a->urls[i], b->urls[i]);
    assert_int_equal(a->issuer != NULL, b->issuer != NULL);
    if (a->issuer) assert_int_equal(X509_cmp(a->issuer, b->issuer), 0);
    assert_int_equal(a->request_len, b->request_len);
    if (a->request_len) assert_memory_equal(a->request, b->request, a->request_len);
}

/* ---- the walks --------------------------------------------------------------------------------------------------- */

/* A certificate is identified in full, or not at all, or is marked as incomplete: otherwise it would never be
 * refreshed. */
static void identify(X509 *which, int in_store) {
    X509 *leaf = again(which), *ca = again(pki->ca), *root = again(pki->root);
    STACK_OF(X509) *chain = in_store ? NULL : testStack(ca, root, NULL);
    X509_STORE *store = in_store ? testStore(ca, root) : X509_STORE_new();
    ocspIdentity *id, *reference, *second;

    reference = testIdentity(which, which == pki->self ? NULL : pki->ca);
    engine(id = ocspIdentityNew(leaf, chain, store));
    if (id && !id->incomplete) assertSameIdentity(id, reference);
    /* The certificates are the server's: what OpenSSL could not read for us it must not remember as broken, or TLS 1.2
     * handshakes end with "no shared cipher" for good (seen on Valkey 9.1 with OpenSSL 3.6). */
    engine((void)ocspSameCertificate(leaf, which));
    assert_false(X509_get_extension_flags(leaf) & EXFLAG_INVALID);
    assert_false(X509_get_extension_flags(ca) & EXFLAG_INVALID);
    assert_false(X509_get_extension_flags(root) & EXFLAG_INVALID);
    /* Identified again, it is complete. */
    second = ocspIdentityNew(leaf, chain, store);
    assert_non_null(second);
    assertSameIdentity(second, reference);
    ocspIdentityFree(second);
    ocspIdentityFree(id);
    ocspIdentityFree(reference);
    sk_X509_free(chain);
    X509_STORE_free(store);
    X509_free(leaf);
    X509_free(ca);
    X509_free(root);
}

static void identifyFromChain(void) {
    identify(pki->must_leaf, 0);
}
static void identifyFromStore(void) {
    identify(pki->leaf, 1);
}
static void identifySelfSigned(void) {
    identify(pki->self, 0);
}

TEST(identity_survivesEachRefusedAllocation) {
    ocspSetHost(&host);
    walk("identify, issuer in the chain", identifyFromChain);
    walk("identify, issuer among the trusted", identifyFromStore);
    walk("identify, self-signed", identifySelfSigned);
    ocspSetHost(NULL);
}

static testReply reply_to_verify;

/* With an allocation refused the result is the same as without, or an error that leaves nothing behind. */
static void verifyOnce(void) {
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    testBytes der = testReplyDer(&reply_to_verify);
    ocspResponse got, want;
    ocspError err = {0};
    int ok;

    assert_int_equal(ocspVerify((ocspBytes){der.p, der.n}, id, TEST_NOW, TEST_NOW, &want, &err), 1);
    host_refused = 0;
    engine(ok = ocspVerify((ocspBytes){der.p, der.n}, id, TEST_NOW, TEST_NOW, &got, &err));
    if (ok) {
        assert_int_equal(got.len, want.len);
        assert_memory_equal(got.der, want.der, want.len);
        assert_int_equal(got.revoked, want.revoked);
        assert_int_equal(got.revoked_at, want.revoked_at);
        assert_int_equal(got.revocation_reason, want.revocation_reason);
        assert_int_equal(got.this_update, want.this_update);
        assert_int_equal(got.next_update, want.next_update);
        assert_int_equal(got.produced_at, want.produced_at);
        assert_int_equal(got.expires_at, want.expires_at);
        ocspResponseClear(&got);
    } else {
        assert_null(got.der);
        assert_true(err.text[0] != 0);
        if (host_refused) testAssertError(&err, OCSP_ERR_RESPONSE, "memory");
        assert_false(err.no_matching_certid); /* which a supplied file is not read again for */
    }
    ocspResponseClear(&want);
    testBytesFree(&der);
    ocspIdentityFree(id);
}

/* A forged response must not be accepted when an allocation fails. */
static void verifyForged(void) {
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    testBytes der = testReplyDer(&reply_to_verify);
    ocspResponse got;
    ocspError err = {0};
    int ok;

    engine(ok = ocspVerify((ocspBytes){der.p, der.n}, id, TEST_NOW, TEST_NOW, &got, &err));
    assert_int_equal(ok, 0);
    testBytesFree(&der);
    ocspIdentityFree(id);
}

static void peekOnce(void) {
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);
    int64_t end;

    engine(end = ocspPeekNextUpdate(der.p, der.n));
    /* Files are pruned by this date: it must not be too early. */
    assert_true(end == -1 || end == reply.singles[0].next_update);
    testBytesFree(&der);
}

/* A peer is never accepted for lack of memory. */
static void judgeOnce(void) {
    X509 *leaf = again(pki->leaf), *must = again(pki->must_leaf), *ca = again(pki->ca);
    STACK_OF(X509) *chain = testStack(ca, NULL, NULL);
    testReply reply = testGoodReply(pki->leaf);
    testBytes good = testReplyDer(&reply), revoked;
    ocspError err;
    ocspPeerState seen[3];
    int must_staple;

    X509_get_extension_flags(ca); /* OpenSSL has verified the chain by then, and read what there is to read */
    reply.singles[0].status = TEST_REVOKED;
    revoked = testReplyDer(&reply);
    engine(seen[0] = ocspVerifyPeerStaple(leaf, chain, (ocspBytes){good.p, good.n}, TEST_NOW, &must_staple, &err));
    assert_true(seen[0] == OCSP_PEER_GOOD || seen[0] == OCSP_PEER_BAD);
    engine(seen[1] =
               ocspVerifyPeerStaple(leaf, chain, (ocspBytes){revoked.p, revoked.n}, TEST_NOW, &must_staple, &err));
    assert_true(seen[1] == OCSP_PEER_REVOKED || seen[1] == OCSP_PEER_BAD);
    engine(seen[2] = ocspVerifyPeerStaple(must, chain, (ocspBytes){NULL, 0}, TEST_NOW, &must_staple, &err));
    assert_true(seen[2] == OCSP_PEER_MISSING || seen[2] == OCSP_PEER_BAD);
    assert_int_equal(must_staple, 1); /* RFC 7633: verify-peers soft refuses it */
    /* With memory again, the same objects are verified as usual. */
    assert_int_equal(ocspVerifyPeerStaple(leaf, chain, (ocspBytes){good.p, good.n}, TEST_NOW, &must_staple, &err),
                     OCSP_PEER_GOOD);
    assert_int_equal(must_staple, 0);
    testBytesFree(&good);
    testBytesFree(&revoked);
    sk_X509_free(chain);
    X509_free(leaf);
    X509_free(must);
    X509_free(ca);
}

/* Nor is one whose chain has a revoked CA. */
static void judgeChainOnce(void) {
    X509 *leaf = again(pki->leaf), *ca = again(pki->ca), *root = again(pki->root);
    STACK_OF(X509) *chain = testStack(leaf, ca, root);
    testReply reply = testGoodReply(pki->ca);
    testBytes of_ca[2];
    ocspPeerState seen[2];
    static const ocspPeerState expected[] = {OCSP_PEER_GOOD, OCSP_PEER_REVOKED};

    X509_get_extension_flags(root);
    reply.singles[0].issuer = reply.signer = pki->root;
    reply.key = pki->root_key;
    for (int i = 0; i < 2; i++) {
        ocspError err = {.may_change_at = OCSP_NEVER};
        if (i) reply.singles[0].status = TEST_REVOKED;
        of_ca[i] = testReplyDer(&reply);
        ocspBytes der = {of_ca[i].p, of_ca[i].n};
        engine(seen[i] = ocspVerifyPeerChain(chain, &der, 1, TEST_NOW, &err));
        assert_true(seen[i] == expected[i] || seen[i] == OCSP_PEER_BAD);
        if (seen[i] == OCSP_PEER_BAD) assert_true(err.text[0] != 0);
        assert_int_equal(ocspVerifyPeerChain(chain, &der, 1, TEST_NOW, &err), expected[i]);
        testBytesFree(&of_ca[i]);
    }
    sk_X509_free(chain);
    X509_free(leaf);
    X509_free(ca);
    X509_free(root);
}

TEST(verify_survivesEachRefusedAllocation) {
    ocspSetHost(&host);
    walk("judge a peer", judgeOnce);
    walk("judge a peer's chain", judgeChainOnce);
    reply_to_verify = testGoodReply(pki->leaf);
    walk("verify, signed by the CA", verifyOnce);
    reply_to_verify.signer = pki->responder;
    reply_to_verify.key = pki->responder_key;
    reply_to_verify.sent[0] = pki->responder;
    reply_to_verify.by_key = 1;
    walk("verify, signed by an authorized responder", verifyOnce);
    reply_to_verify.break_signature = 1;
    walk("verify, forged by an authorized responder", verifyForged);
    reply_to_verify = testGoodReply(pki->leaf);
    reply_to_verify.singles[1] = reply_to_verify.singles[0];
    reply_to_verify.singles[1].status = TEST_REVOKED;
    reply_to_verify.singles[1].md = EVP_sha256();
    reply_to_verify.count = 2;
    walk("verify, good and revoked", verifyOnce);
    reply_to_verify = testGoodReply(pki->leaf);
    reply_to_verify.signer = pki->twin;
    reply_to_verify.key = pki->twin_key;
    walk("verify, signed by a stranger", verifyForged);
    walk("peek at the end", peekOnce);
    ocspSetHost(NULL);
}

static char *dir;

/* The file is the old one or the new one, and reading gives what it holds or nothing. */
static void storeOnce(void) {
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    testReply reply = testGoodReply(pki->leaf);
    testBytes old = testReplyDer(&reply), fresh;
    unsigned char *der = NULL;
    size_t len = 0;
    int64_t mtime;
    ocspError err = {0};
    int stored, loaded;

    reply.singles[0].this_update++;
    fresh = testReplyDer(&reply);
    assert_int_equal(ocspCacheStore(dir, id, old.p, old.n, &err), 1);
    engine(stored = ocspCacheStore(dir, id, fresh.p, fresh.n, &err));
    host_refused = 0;
    engine(loaded = ocspCacheLoad(dir, id, &der, &len, &mtime, &err));
    if (loaded) {
        assert_int_equal(len, stored ? fresh.n : old.n);
        assert_memory_equal(der, stored ? fresh.p : old.p, len);
    } else {
        assert_true(host_refused);
        testAssertError(&err, OCSP_ERR_NETWORK, "memory");
    }
    ocspFree(der);
    engine(ocspCachePrune(dir, TEST_NOW, NULL));
    assert_int_equal(testCountFiles(dir), 1);
    testBytesFree(&old);
    testBytesFree(&fresh);
    ocspIdentityFree(id);
}

TEST(cache_survivesEachRefusedAllocation) {
    ocspSetHost(&host);
    dir = testDir();
    walk("store, load and prune", storeOnce);
    testDirFree(dir);
    ocspSetHost(NULL);
}

/* ---- fetch: from a small responder that always gives the same answer --------------------------------------------- */

static struct {
    int listener, port;
    SSL_CTX *tls;
    pthread_t thread;
} small;

#define SMALL_ANSWER "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response\r\nContent-Length: 5\r\n\r\nhello"

/* Ends with its listener. */
static void *smallServer(void *unused) {
    int fd;

    while ((fd = accept(small.listener, NULL, NULL)) >= 0) {
        SSL *ssl = small.tls ? SSL_new(small.tls) : NULL;
        char bytes[4096];

        if (ssl) {
            SSL_set_fd(ssl, fd);
            if (SSL_accept(ssl) == 1 && SSL_read(ssl, bytes, sizeof(bytes)) > 0) {
                SSL_write(ssl, SMALL_ANSWER, sizeof(SMALL_ANSWER) - 1);
                SSL_shutdown(ssl);
            }
        } else if (recv(fd, bytes, sizeof(bytes), 0) > 0) {
            (void)!send(fd, SMALL_ANSWER, sizeof(SMALL_ANSWER) - 1, MSG_NOSIGNAL);
        }
        SSL_free(ssl);
        close(fd);
        ERR_clear_error();
    }
    return unused;
}

static void smallStart(SSL_CTX *tls) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);

    small.tls = tls;
    small.listener = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(small.listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(small.listener, 64), 0);
    assert_int_equal(getsockname(small.listener, (struct sockaddr *)&address, &len), 0);
    small.port = ntohs(address.sin_port);
    assert_int_equal(pthread_create(&small.thread, NULL, smallServer, NULL), 0);
}

static void smallStop(void) {
    shutdown(small.listener, SHUT_RDWR);
    pthread_join(small.thread, NULL);
    close(small.listener);
}

static X509_STORE *small_trust;

static void fetchOnce(void) {
    char url[64];
    unsigned char *body = NULL;
    size_t len = 0;
    ocspError err = {0};
    ocspFetchResult result;
    int before = testCountFiles("/proc/self/fd");

    snprintf(url, sizeof(url), "%s://127.0.0.1:%d/", small.tls ? "https" : "http", small.port);
    ocspExchange exchange = {url, (const unsigned char *)"ask", 3, small_trust, 2000, NULL, NULL};
    host_refused = 0;
    engine(result = ocspFetch(&exchange, &body, &len, &err));
    if (result == OCSP_FETCH_OK) {
        assert_int_equal(len, 5);
        assert_memory_equal(body, "hello", 5);
    } else {
        assert_int_equal(result, OCSP_FETCH_FAILED);
        assert_null(body);
        assert_true(err.text[0] != 0);
        if (host_refused) testAssertError(&err, OCSP_ERR_NETWORK, "memory");
    }
    ocspFree(body);
    /* The small server closes its own ends a moment later. */
    while (testCountFiles("/proc/self/fd") > before) usleep(200);
}

TEST(fetch_survivesEachRefusedAllocation) {
    SSL_CTX *tls;
    X509 *leaf = testCert(&(testCertSpec){.name = "responder",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .not_before = 1,
                                          .not_after = TEST_NOW + 20 * 365 * (int64_t)TEST_DAY,
                                          .alt_names = "IP:127.0.0.1"});

    ocspSetHost(&host);
    smallStart(NULL);
    walk("fetch by http", fetchOnce);
    smallStop();
    setenv("SSL_CERT_FILE", "/dev/null", 1); /* the system's roots are ten thousands of allocations */
    setenv("SSL_CERT_DIR", "", 1); /* and OpenSSL 3.0 frees twice when it has no memory to look into a directory */
    tls = testServerCtx(leaf, pki->leaf_key, NULL);
    small_trust = testStore(pki->ca, NULL);
    X509_VERIFY_PARAM_set_flags(X509_STORE_get0_param(small_trust), X509_V_FLAG_PARTIAL_CHAIN);
    X509_VERIFY_PARAM_set_time(X509_STORE_get0_param(small_trust), TEST_NOW);
    smallStart(tls);
    walkBy(7, "fetch by https", fetchOnce);
    smallStop();
    X509_STORE_free(small_trust);
    small_trust = NULL;
    SSL_CTX_free(tls);
    X509_free(leaf);
    ocspSetHost(NULL);
}

/* ---- the engine: from its start to its end ----------------------------------------------------------------------- */

/* The monotonic clock stands far below zero, where ocspCron does not try to start the thread: the steps are the
 * test's. */
static int64_t wall, mono;
static int64_t readWall(void) {
    return wall;
}
static int64_t readMono(void) {
    return mono;
}
static uint32_t constantRandom(void) {
    return UINT32_MAX / 2;
}
static void pass(int64_t ms) {
    wall += ms;
    mono += ms;
}
static int64_t wallNow(void) {
    return (int64_t)(wall / 1000);
}

static int ca_says_revoked;
static X509 *served;

#define CHAIN_URL "http://root-ocsp.test.invalid/"
static X509 *chain_ca; /* pki->ca with a responder */
static int root_says_revoked;
static int chain_stapled; /* responses in the last handshake, that of the leaf included */

static ocspFetchResult answer(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err) {
    int was = pauseScarcity();
    testReply reply = testGoodReply(served);
    testBytes der;

    if (strcmp(exchange->url, CHAIN_URL) == 0) {
        reply = testGoodReply(chain_ca);
        reply.singles[0].issuer = reply.signer = pki->root;
        reply.key = pki->root_key;
    }
    reply.singles[0].status = (chain_ca && reply.singles[0].cert == chain_ca ? root_says_revoked : ca_says_revoked)
                                  ? TEST_REVOKED
                                  : TEST_GOOD;
    reply.singles[0].this_update = wallNow();
    reply.singles[0].next_update = wallNow() + 100 * TEST_DAY;
    der = testReplyDer(&reply);
    scarce = was;
    *body = ocspMemdup(der.p, der.n);
    scarce = 0;
    *body_len = *body ? der.n : 0;
    testBytesFree(&der);
    scarce = was;
    if (*body) return OCSP_FETCH_OK;
    ocspFail(err, OCSP_FAIL_MEMORY, "out of memory");
    return OCSP_FETCH_FAILED;
}

static SSL_CTX *client12, *client13;

static int scarceCallback(SSL *ssl, void *unused) {
    int result;
    engine(result = ocspStatusCallback(ssl, unused));
    return result;
}

/* As OpenSSL 3.6 does, except that the leaf's response alone is sent. */
long __real_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer) {
    if (command != 143 || testOpensslChecksStaples()) return __real_SSL_ctrl(ssl, command, number, pointer);
    int was = pauseScarcity();
    OCSP_RESPONSE *response;
    chain_stapled = 0;
    for (int i = 0; OPENSSL_sk_num(pointer) > 0; i++) {
        unsigned char *der = NULL;
        if ((response = OPENSSL_sk_shift(pointer)) == NULL) continue;
        chain_stapled++;
        int n = i2d_OCSP_RESPONSE(response, &der);
        testMust(n > 0);
        if (i == 0) testMust(SSL_set_tlsext_status_ocsp_resp(ssl, der, n));
        if (i > 0) OPENSSL_free(der);
        OCSP_RESPONSE_free(response);
    }
    OPENSSL_sk_free(pointer);
    scarce = was;
    return 1;
}

static long long info_revoked;
static void textField(void *arg, const char *name, const char *value) {
    (void)arg;
    (void)name;
    (void)value;
}
static void numberField(void *arg, const char *name, long long value) {
    (void)arg;
    if (strcmp(name, "revoked") == 0) info_revoked = value;
}
static int knownRevoked(void) {
    static const ocspInfoSink sink = {textField, numberField, NULL};
    engine(ocspInfoState(&sink));
    return info_revoked != 0;
}

/* A server context, not attached yet. */
static SSL_CTX *load(X509 *cert, int callback_scarce) {
    X509 *leaf = again(cert), *ca = again(pki->ca);
    SSL_CTX *ctx = testServerCtx(leaf, pki->leaf_key, ca);

    X509_free(leaf);
    X509_free(ca);
    engine(ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER));
    if (callback_scarce) SSL_CTX_set_tlsext_status_cb(ctx, scarceCallback);
    return ctx;
}

/* The status that a handshake shows: -1 none, else V_OCSP_CERTSTATUS_GOOD or _REVOKED. It must hold by OpenSSL's own
 * judgement, and never be good once the engine knows better. */
static int shake(SSL_CTX *server, SSL_CTX *client) {
    int was = pauseScarcity(), status = -1, known = knownRevoked();
    chain_stapled = 0;
    testShake s = testHandshake(server, client, 1);

    assert_true(s.ok);
    if (s.chain_count > chain_stapled) chain_stapled = s.chain_count;
    /* From 3.6 OpenSSL shows the CA's response as the staple, if the leaf has none. */
    if (s.got_staple && chain_ca && testJudge(s.staple.p, s.staple.n, chain_ca, pki->root, wallNow())) s.got_staple = 0;
    if (s.got_staple) {
        const unsigned char *p = s.staple.p;
        OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)s.staple.n);
        OCSP_BASICRESP *basic;

        assert_true(testJudge(s.staple.p, s.staple.n, s.peer, pki->ca, wallNow()));
        basic = OCSP_response_get1_basic(response);
        status = OCSP_single_get0_status(OCSP_resp_get0(basic, 0), NULL, NULL, NULL, NULL);
        if (known && status == V_OCSP_CERTSTATUS_GOOD)
            fail_msg("good is stapled, and the engine knows of the revocation");
        OCSP_BASICRESP_free(basic);
        OCSP_RESPONSE_free(response);
    }
    testShakeFree(&s);
    scarce = was;
    return status;
}

/* A step said to wait until something is new: then main wakes the thread, and nothing else does. */
static int asleep;

static void steps(void) {
    for (int i = 0; i < 50; i++) {
        int64_t wait;
        engine(ocspLateCron());
        if (asleep) return;
        engine(wait = ocspThreadStep());
        asleep = wait < 0;
        if (wait != 0) return;
    }
    fail_msg("fifty steps without a wait: it spins");
}

/* Memory is back: within the time that retries may take, handshakes are stapled with `status`. */
static void heals(SSL_CTX *ctx, int status, const char *when) {
    int64_t until = mono + 400 * 1000;
    long saved = fail_at;

    fail_at = 0;
    for (;;) {
        steps();
        if (shake(ctx, client13) == status) break;
        if (mono > until)
            fail_msg("allocation %ld refused: %s, the status stays %d and should be %d", saved, when,
                     shake(ctx, client13), status);
        pass(1000);
    }
    fail_at = saved;
}

static void setOptions(const ocspOptions *options) {
    int ok;
    asleep = 0;
    engine(ok = ocspSetOptions(options));
    if (!ok) assert_int_equal(ocspSetOptions(options), 1); /* the operator gets an error and retries */
}

static void attach(SSL_CTX *ctx) {
    asleep = 0;
    engine(ocspLateAttach(ctx));
}

static void request(void) {
    char why[OCSP_SENTENCE_MAX];
    asleep = 0;
    engine(ocspRequestRefresh(why, sizeof(why)));
}

static ocspOptions options;

static void begin(void) {
    int ok;

    ocsp_env = real_env;
    ocsp_env.wall_ms = readWall;
    ocsp_env.mono_ms = readMono;
    ocsp_env.random = constantRandom;
    ocsp_env.fetch = answer;
    wall = (int64_t)TEST_NOW * 1000;
    mono = -1000000000000;
    ca_says_revoked = root_says_revoked = asleep = 0;
    dir = testDir();
    options = (ocspOptions)OCSP_OPTIONS_DEFAULT;
    options.stapling = 1;
    options.cache_dir = dir;
    engine(ok = ocspInit(&host));
    if (!ok) assert_int_equal(ocspInit(&host), 1);
    engine(ok = ocspLateInit(NULL));
    if (!ok) assert_int_equal(ocspLateInit(NULL), 1);
}

static void finish(SSL_CTX *ctx) {
    engine(ocspShutdown());
    SSL_CTX_free(ctx);
    testDirFree(dir);
}

/* Start, load, identify, fetch, verify, publish, store, handshake. */
static void firstStaple(void) {
    SSL_CTX *ctx;

    begin();
    served = pki->leaf;
    setOptions(&options);
    ctx = load(pki->leaf, 1);
    attach(ctx);
    steps();
    shake(ctx, client12);
    shake(ctx, client13);
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "after the start");
    finish(ctx);
}

/* Restart: the disk has it, and the responder is not asked. */
static void fromDisk(void) {
    STACK_OF(X509) *certs;
    SSL_CTX *ctx;
    ocspIdentity *id;
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);

    begin();
    served = pki->leaf;
    id = testIdentity(pki->leaf, pki->ca);
    assert_int_equal(ocspCacheStore(dir, id, der.p, der.n, NULL), 1);
    ocspIdentityFree(id);
    testBytesFree(&der);
    setOptions(&options);
    ctx = load(pki->leaf, 1);
    certs = testStack(pki->leaf, pki->ca, NULL);
    engine(ocspPrefetchContext(certs, SSL_CTX_get_cert_store(ctx)));
    sk_X509_free(certs);
    engine(ocspLateCron());
    attach(ctx);
    shake(ctx, client13);
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "after a restart");
    finish(ctx);
}

/* Begins a walk with a leaf that is served and good; nothing is refused yet. The caller then sets fail_at. */
static SSL_CTX *beginGood(void) {
    SSL_CTX *ctx;

    fail_at = 0;
    begin();
    served = pki->leaf;
    setOptions(&options);
    ctx = load(pki->leaf, 0);
    attach(ctx);
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "at the start");
    return ctx;
}

/* A refresh brings the revocation. */
static void revocation(void) {
    long saved = fail_at;
    SSL_CTX *ctx;

    ctx = beginGood();
    counted = 0;
    fail_at = saved;
    pass(5000);
    ca_says_revoked = 1;
    request();
    /* There is no thread that a request could wake; a reload of the same certificate refreshes too. */
    attach(ctx);
    steps();
    shake(ctx, client12);
    heals(ctx, V_OCSP_CERTSTATUS_REVOKED, "after the revocation");
    finish(ctx);
}

/* The disk refuses, and the good response from before must not stay there, whatever could not be allocated. */
static int diskRefuses(const char *in_dir,
                       const ocspIdentity *id,
                       const unsigned char *der,
                       size_t len,
                       ocspError *err) {
    (void)in_dir;
    (void)id;
    (void)der;
    (void)len;
    return ocspFail(err, OCSP_FAIL_FILE, "the test's disk is full");
}

static void refusedRevocation(void) {
    long saved = fail_at;
    SSL_CTX *ctx;

    ctx = beginGood();
    assert_int_equal(testCountFiles(dir), 1);
    counted = 0;
    fail_at = saved;
    pass(5000);
    ca_says_revoked = 1;
    ocsp_env.cache_store = diskRefuses;
    attach(ctx);
    steps();
    if (shake(ctx, client13) == V_OCSP_CERTSTATUS_REVOKED) assert_int_equal(testCountFiles(dir), 0);
    heals(ctx, V_OCSP_CERTSTATUS_REVOKED, "after the revocation");
    assert_int_equal(testCountFiles(dir), 0);
    options.cache_dir = ""; /* the directory that is left is remembered, if there is memory to */
    setOptions(&options);
    steps();
    finish(ctx);
}

/* Another server has stored a newer response in the directory before this server stores one. */
static void adoption(void) {
    long saved = fail_at;
    SSL_CTX *ctx;
    ocspIdentity *id;
    testReply reply = testGoodReply(pki->leaf);
    testBytes der;

    ctx = beginGood();
    reply.singles[0].status = TEST_REVOKED;
    reply.singles[0].this_update = wallNow() + 60;
    reply.singles[0].next_update = wallNow() + 100 * TEST_DAY;
    der = testReplyDer(&reply);
    id = testIdentity(pki->leaf, pki->ca);
    assert_int_equal(ocspCacheStore(dir, id, der.p, der.n, NULL), 1);
    ocspIdentityFree(id);
    testBytesFree(&der);
    counted = 0;
    fail_at = saved;
    pass(5000);
    attach(ctx);
    steps();
    shake(ctx, client13);
    finish(ctx);
}

/* A renewed certificate, then a supplied file for it, then stapling off and on. */
static void reloadAndFile(void) {
    long saved = fail_at;
    SSL_CTX *first, *ctx;
    char *path;
    testReply reply = testGoodReply(pki->renewed_leaf);
    testBytes der = testReplyDer(&reply);

    fail_at = 0;
    begin();
    served = pki->leaf;
    setOptions(&options);
    first = load(pki->leaf, 0);
    attach(first);
    heals(first, V_OCSP_CERTSTATUS_GOOD, "at the start");
    counted = 0;
    fail_at = saved;
    pass(5000);
    served = pki->renewed_leaf;
    ctx = load(pki->renewed_leaf, 1);
    attach(ctx);
    steps();
    shake(ctx, client12);
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "after the reload");
    path = testPath(dir, "supplied.der");
    testWriteFile(path, der.p, der.n);
    options.response_file = path;
    setOptions(&options);
    pass(2000); /* refreshes are at least a second apart */
    steps();
    shake(ctx, client13);
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "with a supplied file");
    options.stapling = 0;
    setOptions(&options);
    steps();
    options.stapling = 1;
    setOptions(&options);
    steps();
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "turned off and on");
    SSL_CTX_free(first);
    finish(ctx);
    free(path);
    testBytesFree(&der);
}

/* The first response comes from response-file: only a changed file signature makes the engine read it again. */
static void suppliedOnly(void) {
    SSL_CTX *ctx;
    char *path;
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);

    begin();
    path = testPath(dir, "supplied.der");
    testWriteFile(path, der.p, der.n);
    options.response_file = path;
    setOptions(&options);
    ctx = load(pki->leaf, 0);
    attach(ctx);
    steps();
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "with a supplied file");
    finish(ctx);
    free(path);
    testBytesFree(&der);
}

/* Neither the chain nor the store has the issuer: it comes from issuer-file. */
static void issuerFromFile(void) {
    SSL_CTX *ctx;
    X509 *leaf = again(pki->leaf);
    char *path, *text;
    BIO *pem = BIO_new(BIO_s_mem());
    long n;

    begin();
    path = testPath(dir, "issuer.pem");
    assert_true(PEM_write_bio_X509(pem, pki->twin));
    assert_true(PEM_write_bio_X509(pem, pki->ca));
    n = BIO_get_mem_data(pem, &text);
    testWriteFile(path, text, (size_t)n);
    served = pki->leaf;
    options.issuer_file = path;
    setOptions(&options);
    ctx = testServerCtx(leaf, pki->leaf_key, NULL);
    engine(ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER));
    attach(ctx);
    steps();
    shake(ctx, client13);
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "with an issuer file");
    finish(ctx);
    BIO_free(pem);
    X509_free(leaf);
    free(path);
}

/* An operator pushes a response, which is then read in each format. As there is no thread here, the response is put into
 * the handoff directly. */
static void pushAndGet(void) {
    static const char *const formats[] = {"DER", "BASE64", "TEXT"};
    long saved = fail_at;
    unsigned number;
    SSL_CTX *ctx;
    testReply reply = testGoodReply(pki->leaf);
    testBytes der;
    ocspPush *push;
    int outcomes = 0;

    ctx = beginGood();
    reply.singles[0].this_update = wallNow() + 1;
    der = testReplyDer(&reply);
    push = ocspAlloc(sizeof(*push));
    push->der = ocspMemdup(der.p, der.n);
    push->len = der.n;
    push_accepted = -1;
    counted = 0;
    fail_at = saved;
    pass(5000);
    engine(outcomes = ocspPutPush(push, &number) == NULL);
    assert_int_equal(outcomes, 1);
    steps();
    assert_int_not_equal(push_accepted, -1);
    shake(ctx, client13);
    for (int i = 0; i < 3; i++) {
        ocspGetAnswer answer;
        engine(ocspGet(&formats[i], 1, &answer));
        assert_int_not_equal(answer.kind, OCSP_GET_NOTHING);
        if (answer.kind == OCSP_GET_ERROR) assert_string_equal(answer.why, "out of memory");
        hostFree(answer.data);
    }
    heals(ctx, V_OCSP_CERTSTATUS_GOOD, "after the push");
    finish(ctx);
    testBytesFree(&der);
}

/* Memory is back: the chain has its responses again. */
static void chainHeals(SSL_CTX *ctx, const char *when) {
    int64_t until = mono + 400 * 1000;
    long saved = fail_at;

    heals(ctx, V_OCSP_CERTSTATUS_GOOD, when);
    fail_at = 0;
    while (shake(ctx, client13) != V_OCSP_CERTSTATUS_GOOD || chain_stapled != 2) {
        if (mono > until) fail_msg("allocation %ld refused: %s, the CA has no response", saved, when);
        pass(1000);
        steps();
    }
    fail_at = saved;
}

static SSL_CTX *loadChain(int callback_scarce) {
    X509 *leaf = again(pki->leaf), *ca = again(chain_ca), *root = again(pki->root);
    SSL_CTX *ctx = testServerCtx(leaf, pki->leaf_key, ca);

    testMust(SSL_CTX_add1_chain_cert(ctx, root));
    X509_free(leaf);
    X509_free(ca);
    X509_free(root);
    engine(ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER));
    if (callback_scarce) SSL_CTX_set_tlsext_status_cb(ctx, scarceCallback);
    return ctx;
}

static int yes(void) {
    return 1;
}

static void beginChain(void) {
    begin();
    ocsp_env.chain_supported = yes;
    served = pki->leaf;
    options.staple_chain = 1;
    setOptions(&options);
}

/* Follow, fetch, publish, hand over in the handshake. */
static void chainFirst(void) {
    SSL_CTX *ctx;

    beginChain();
    ctx = loadChain(1);
    attach(ctx);
    steps();
    shake(ctx, client13);
    shake(ctx, client12);
    chainHeals(ctx, "after the start");
    finish(ctx);
}

/* A handshake without memory has the leaf's response, or none, and goes on; the next one has all. */
static void chainHandshake(void) {
    long saved = fail_at;
    SSL_CTX *ctx;

    fail_at = 0;
    beginChain();
    ctx = loadChain(1);
    attach(ctx);
    chainHeals(ctx, "at the start");
    counted = of_host = 0;
    fail_at = saved;
    shake(ctx, client13);
    fail_at = 0;
    assert_int_equal(shake(ctx, client13), V_OCSP_CERTSTATUS_GOOD);
    assert_int_equal(chain_stapled, 2);
    finish(ctx);
    fail_at = saved;
}

/* A reload, and a revocation of the CA: the leaf's response stays, whatever could not be allocated. */
static void chainReload(void) {
    long saved = fail_at;
    SSL_CTX *first, *ctx;

    fail_at = 0;
    beginChain();
    first = loadChain(0);
    attach(first);
    chainHeals(first, "at the start");
    counted = 0;
    fail_at = saved;
    pass(5000);
    root_says_revoked = 1;
    ctx = loadChain(0);
    attach(ctx);
    steps();
    assert_int_equal(shake(ctx, client13), V_OCSP_CERTSTATUS_GOOD);
    chainHeals(ctx, "after the reload");
    SSL_CTX_free(first);
    finish(ctx);
}

TEST(chain_survivesEachRefusedAllocation) {
    client12 = testClientCtx(TLS1_2_VERSION, 0);
    client13 = testClientCtx(TLS1_3_VERSION, 0);
    chain_ca = testCert(&(testCertSpec){.name = "CA", /* as pki->ca's */
                                        .issuer = pki->root,
                                        .issuer_key = pki->root_key,
                                        .key = pki->ca_key,
                                        .ca = 1,
                                        .urls = {CHAIN_URL}});
    walk("chain, the handshake", chainHandshake);
    walkBy(7, "chain, the first staples", chainFirst);
    walkBy(7, "chain, a reload and a revoked CA", chainReload);
    X509_free(chain_ca);
    chain_ca = NULL;
    SSL_CTX_free(client12);
    SSL_CTX_free(client13);
    ocsp_env = real_env;
}

TEST(engine_survivesEachRefusedAllocation) {
    client12 = testClientCtx(TLS1_2_VERSION, 0);
    client13 = testClientCtx(TLS1_3_VERSION, 0);
    walkBy(3, "engine, the first staple", firstStaple);
    walkBy(3, "engine, a restart from disk", fromDisk);
    walkBy(3, "engine, a revocation", revocation);
    walkBy(3, "engine, a revocation that the disk refuses", refusedRevocation);
    walkBy(3, "engine, another server's response", adoption);
    walkBy(3, "engine, a reload and a file", reloadAndFile);
    walkBy(3, "engine, a file alone", suppliedOnly);
    walkBy(7, "engine, an issuer file", issuerFromFile);
    walkBy(3, "engine, a pushed response, and the one stapled in each format", pushAndGet);
    SSL_CTX_free(client12);
    SSL_CTX_free(client13);
    ocsp_env = real_env;
}
