/* test_engine.c - the engine as a host sees it: through ocsp.h, with real TLS handshakes over memory. Clock, network,
 * disk and chance are replaced (ocsp_env), so that days pass in a moment.
 *
 * Two ways to run it. Most tests are simulations: no thread exists, and the test itself takes the worker's steps and
 * moves the clock by what each step asks to wait. Where threads are the point, the real thread runs; it is woken
 * through public calls, and the test polls for what must come.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "support.h"
#include "ocsp_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include <openssl/err.h>

static const testPki *pki;
static ocspEnv real_world;

/* ---- the host: log and INFO -------------------------------------------------------------------------------------- */

#define MAX_LINES 4000
static struct {
    pthread_mutex_t lock;
    int count;
    char *line[MAX_LINES];
    ocspLogLevel level[MAX_LINES];
} told = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void keepLine(ocspLogLevel level, const char *sentence) {
    pthread_mutex_lock(&told.lock);
    if (told.count < MAX_LINES) {
        told.level[told.count] = level;
        told.line[told.count++] = strdup(sentence);
    }
    pthread_mutex_unlock(&told.lock);
}

/* Lines of at least this level, those with `part` in them (NULL: all). */
static int linesTold(ocspLogLevel level, const char *part) {
    int n = 0;
    pthread_mutex_lock(&told.lock);
    for (int i = 0; i < told.count; i++) n += told.level[i] >= level && (!part || strstr(told.line[i], part));
    pthread_mutex_unlock(&told.lock);
    return n;
}

static void forgetLines(void) {
    pthread_mutex_lock(&told.lock);
    for (int i = 0; i < told.count; i++) free(told.line[i]);
    told.count = 0;
    pthread_mutex_unlock(&told.lock);
}

typedef struct field {
    char name[64], text[4096];
    long long number;
} field;

static field fields[100];
static int field_count;

static void textField(void *arg, const char *name, const char *value) {
    (void)arg;
    assert_true(field_count < 100);
    snprintf(fields[field_count].name, sizeof(fields[0].name), "%s", name);
    snprintf(fields[field_count++].text, sizeof(fields[0].text), "%s", value);
}

static void numberField(void *arg, const char *name, long long value) {
    (void)arg;
    assert_true(field_count < 100);
    snprintf(fields[field_count].name, sizeof(fields[0].name), "%s", name);
    fields[field_count].text[0] = 0;
    fields[field_count++].number = value;
}

static const field *info(const char *name) {
    static const ocspInfoSink sink = {textField, numberField, NULL};
    field_count = 0;
    ocspInfoState(&sink);
    ocspInfoCounters(&sink);
    for (int i = 0; i < field_count; i++) {
        if (!strcmp(fields[i].name, name)) return &fields[i];
    }
    return NULL;
}

static long long number(const char *name) {
    const field *f = info(name);
    if (!f) fail_msg("INFO has no field %s", name);
    return f->number;
}

static const char *text(const char *name) {
    const field *f = info(name);
    if (!f) fail_msg("INFO has no field %s", name);
    return f->text;
}

static void wantState(const char *state) {
    assert_string_equal(text("state"), state);
}

/* ---- the world: clock, responder, disk --------------------------------------------------------------------------- */

static _Atomic int64_t wall, mono; /* milliseconds */
static int64_t readWall(void) {
    return atomic_load(&wall);
}
static int64_t readMono(void) {
    return atomic_load(&mono);
}
static uint32_t chance(void) {
    return testRandom();
}

static void pass(int64_t ms) {
    atomic_fetch_add(&wall, ms);
    atomic_fetch_add(&mono, ms);
}

static time_t wallNow(void) {
    return (time_t)(readWall() / 1000);
}

#define MAX_ASKED 20000
static struct {
    /* What it does. Atomic where threads change it. */
    atomic_int down, http, status, unknown, revoked, foreign;
    atomic_int no_next;  /* without nextUpdate */
    atomic_int life;     /* seconds */
    atomic_int backdate; /* seconds */
    atomic_llong fixed;  /* this thisUpdate always; 0: now */
    atomic_llong ticks;  /* each answer one second newer than the last, from here; 0: off */
    const EVP_MD *md;    /* of its CertIDs; NULL: SHA-1 */
    int takes_ms;
    const char *dead_url;                    /* this one does not answer */
    const char *foreign_url;                 /* this one's answers are signed by somebody else */
    void (*during)(const ocspIoHooks *wait); /* called in the middle of a fetch */
    atomic_int hold;                         /* threads: wait in the fetch until it is 0, or cancelled */
    /* What it has seen. */
    atomic_int asked, entered, cancelled;
    int64_t at_mono[MAX_ASKED], at_wall[MAX_ASKED];
    char url[MAX_ASKED][64];
} responder;

static X509 *leafAskedFor(const unsigned char *der, size_t n) {
    X509 *known[] = {pki->leaf, pki->rsa_leaf, pki->must_leaf, pki->quiet_leaf, pki->renewed_leaf};
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &der, (long)n);
    OCSP_CERTID *id = request ? OCSP_onereq_get0_id(OCSP_request_onereq_get0(request, 0)) : NULL;
    X509 *found = NULL;
    for (int i = 0; i < 5 && id && !found; i++) {
        OCSP_CERTID *ours = OCSP_cert_to_id(NULL, known[i], pki->ca);
        if (OCSP_id_cmp(ours, id) == 0) found = known[i];
        OCSP_CERTID_free(ours);
    }
    OCSP_REQUEST_free(request);
    return found;
}

static testReply replyFor(X509 *leaf) {
    testReply reply = testGoodReply(leaf);
    testEntry *entry = &reply.entries[0];
    entry->this_update = responder.fixed ? (time_t)responder.fixed : wallNow() - responder.backdate;
    if (responder.ticks) entry->this_update = (time_t)atomic_fetch_add(&responder.ticks, 1);
    entry->next_update = responder.no_next ? 0 : entry->this_update + responder.life;
    if (responder.revoked) entry->status = TEST_REVOKED;
    if (responder.unknown) entry->status = TEST_UNKNOWN;
    entry->md = responder.md;
    reply.status = responder.status;
    if (responder.foreign) {
        reply.signer = pki->twin;
        reply.key = pki->twin_key;
    }
    return reply;
}

static ocspFetchResult fakeFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err) {
    const char *url = exchange->url;
    const ocspIoHooks *wait = exchange->io;
    int n = atomic_load(&responder.asked), disturbed = responder.during != NULL;
    *body = NULL;
    *body_len = 0;
    if (n < MAX_ASKED) {
        responder.at_mono[n] = readMono();
        responder.at_wall[n] = readWall();
        snprintf(responder.url[n], sizeof(responder.url[n]), "%s", url);
    }
    atomic_fetch_add(&responder.asked, 1);
    pass(responder.takes_ms);
    if (responder.during) responder.during(wait);
    atomic_fetch_add(&responder.entered, 1);
    while (atomic_load(&responder.hold)) {
        struct pollfd wake = {wait->wake_fd, POLLIN, 0};
        wait->leave_openssl();
        poll(&wake, 1, 5);
        wait->enter_openssl();
        if (wake.revents && wait->cancelled()) break;
    }
    if (wait->cancelled && (atomic_load(&responder.hold) || disturbed) && wait->cancelled()) {
        atomic_fetch_add(&responder.cancelled, 1);
        return OCSP_FETCH_CANCELLED;
    }
    if (responder.down || (responder.dead_url && !strcmp(url, responder.dead_url))) {
        ocspFail(err, OCSP_ERR_NETWORK, "the test's responder is down");
        return OCSP_FETCH_FAILED;
    }
    if (responder.http) {
        ocspFail(err, OCSP_ERR_HTTP, "HTTP status %d", (int)responder.http);
        return OCSP_FETCH_FAILED;
    }
    X509 *leaf = leafAskedFor(exchange->request, exchange->request_len);
    if (!leaf) {
        ocspFail(err, OCSP_ERR_NETWORK, "the test's responder does not know this certificate");
        return OCSP_FETCH_FAILED;
    }
    testReply reply = replyFor(leaf);
    if (responder.foreign_url && !strcmp(url, responder.foreign_url)) {
        reply.signer = pki->twin;
        reply.key = pki->twin_key;
    }
    testBytes der = testReplyDer(&reply);
    *body = ocspMemdup(der.p, der.n);
    *body_len = *body ? der.n : 0;
    testBytesFree(&der);
    if (*body) return OCSP_FETCH_OK;
    ocspFail(err, OCSP_ERR_NETWORK, "out of memory");
    return OCSP_FETCH_FAILED;
}

static int askedTimes(void) {
    return atomic_load(&responder.asked);
}

/* A disk that can refuse. */
static atomic_int disk_full, disk_writes;
static int present_at_store; /* was there a file of that certificate when the last store began? */
static int fakeStore(const char *dir, const ocspIdentity *id, const unsigned char *der, size_t n, ocspError *err) {
    char path[300];
    atomic_fetch_add(&disk_writes, 1);
    snprintf(path, sizeof(path), "%s/ocsp-%s.der", dir, id->sha256_hex);
    present_at_store = access(path, F_OK) == 0;
    if (disk_full) return ocspFail(err, OCSP_ERR_NETWORK, "the test's disk is full");
    return real_world.cache_store(dir, id, der, n, err);
}

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

static int prunes;
static void fakePrune(const char *in_dir, int64_t now, const ocspIoHooks *wait) {
    prunes++;
    real_world.cache_prune(in_dir, now, wait);
}

/* ---- running it -------------------------------------------------------------------------------------------------- */

static ocspOptions options;
static SSL_CTX *tls12, *tls13, *tls12_rsa, *tls13_rsa;
static char *dir;

static int begin(void **state) {
    static const ocspHost host = {.log = keepLine, .alloc = malloc, .free = free};
    (void)state;
    ocsp_env = real_world;
    ocsp_env.wall_ms = readWall;
    ocsp_env.mono_ms = readMono;
    ocsp_env.random = chance;
    ocsp_env.fetch = fakeFetch;
    ocsp_env.cache_store = fakeStore;
    ocsp_env.cache_prune = fakePrune;
    atomic_store(&wall, (int64_t)TEST_NOW * 1000);
    atomic_store(&mono, 5000000);
    memset((void *)&responder, 0, sizeof(responder));
    responder.life = TEST_DAY;
    disk_full = disk_writes = prunes = unlink_fault = unlinks_refused = 0;
    forgetLines();
    dir = testDir();
    options = (ocspOptions)OCSP_OPTIONS_DEFAULT;
    options.stapling = 1;
    options.cache_dir = "";
    if (!ocspInit(&host)) return -1;
    return ocspSetOptions(&options) ? 0 : -1;
}

static int end(void **state) {
    (void)state;
    atomic_store(&responder.hold, 0);
    ocspShutdown();
    testDirFree(dir);
    forgetLines();
    ocsp_env = real_world;
    return 0;
}

static void setOptions(void) {
    assert_int_equal(ocspSetOptions(&options), 1);
}

/* A server context as a TLS (re)load makes it: parsed anew, so that no object is the same. */
static SSL_CTX *reload(X509 *leaf, EVP_PKEY *key, X509 *chain) {
    X509 *again = X509_new();
    unsigned char *der = NULL;
    int n = i2d_X509(leaf, &der);
    const unsigned char *p = der;
    assert_non_null(d2i_X509(&again, &p, n));
    SSL_CTX *ctx = testServerCtx(again, key, chain);
    OPENSSL_free(der);
    X509_free(again);
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    return ctx;
}

static SSL_CTX *reloadLeaf(void) {
    return reload(pki->leaf, pki->leaf_key, pki->ca);
}

/* Simulation: the worker's steps until nothing is due, the clock unmoved. */
static void settle(void) {
    for (int i = 0; i < 50; i++) {
        int64_t wait = ocspThreadStep();
        if (wait != 0) return;
    }
    fail_msg("fifty steps without a wait: it spins");
}

/* Simulation: steps and waits until `ms` have passed. */
static void run(int64_t ms) {
    int64_t until = readMono() + ms;
    int idle = 0;
    for (;;) {
        int64_t wait = ocspThreadStep();
        int64_t left = until - readMono();
        idle = wait == 0 ? idle + 1 : 0;
        if (idle > 50) fail_msg("fifty steps without a wait: it spins");
        if (left <= 0) return;
        if (wait < 0 || wait > left) wait = left;
        pass(wait);
    }
}

/* One handshake that must succeed. Returns whether a staple came; if so it verifies for the certificate that was
 * served, and is good or revoked as OpenSSL sees it. */
static int stapled(SSL_CTX *server, SSL_CTX *client) {
    testShake shake = testHandshake(server, client, 1);
    assert_true(shake.ok);
    assert_non_null(shake.peer);
    int got = shake.got_staple;
    if (got) assert_true(testJudge(shake.staple.p, shake.staple.n, shake.peer, pki->ca, wallNow()));
    testShakeFree(&shake);
    return got;
}

static int stapledBoth(SSL_CTX *server) {
    int with12 = stapled(server, tls12), with13 = stapled(server, tls13);
    assert_int_equal(with12, with13);
    return with12;
}

/* ---- the first staple -------------------------------------------------------------------------------------------- */

static void fetchedVerifiedAndStapledInBothVersions(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    assert_false(stapledBoth(ctx));
    wantState("no-tls"); /* the worker has not looked yet */
    settle();
    wantState("good");
    assert_true(stapledBoth(ctx));
    assert_int_equal(askedTimes(), 1);
    assert_string_equal(responder.url[0], TEST_URL);
    assert_string_equal(text("cert_serial"), "0ABC");
    assert_string_equal(text("responder_url"), TEST_URL);
    assert_string_equal(text("response_source"), "network");
    assert_string_equal(text("last_error"), "");
    assert_int_equal(number("this_update"), TEST_NOW);
    assert_int_equal(number("next_update"), TEST_NOW + TEST_DAY);
    assert_int_equal(number("produced_at"), TEST_NOW);
    assert_int_equal(number("expires_in_seconds"), TEST_DAY);
    assert_int_equal(number("revoked"), 0);
    assert_int_equal(number("refreshes"), 1);
    assert_int_equal(number("refresh_failures"), 0);
    assert_int_equal(number("last_success_time"), TEST_NOW);
    assert_true(number("response_bytes") > 100);
    long long next = number("next_refresh_in_seconds");
    assert_true(next <= TEST_DAY * 9 / 10 && next >= TEST_DAY * 72 / 100 - 1);
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, NULL), 1);
    SSL_CTX_free(ctx);
}

static void aClientThatDoesNotAskGetsNothingAndIsNotCounted(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    long long before = number("handshakes_stapled"), none = number("handshakes_unstapled");
    testShake shake = testHandshake(ctx, tls13, 0);
    assert_true(shake.ok);
    assert_false(shake.got_staple);
    testShakeFree(&shake);
    assert_int_equal(number("handshakes_stapled"), before);
    assert_int_equal(number("handshakes_unstapled"), none);
    assert_true(stapledBoth(ctx));
    assert_int_equal(number("handshakes_stapled"), before + 2);
    SSL_CTX_free(ctx);
}

/* One context serves both roles where no tls-client-cert-file is set: there 0 would mean "reject". */
static void acceptance21_onAClientTheCallbackAcceptsAndDoesNothing(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    SSL_CTX *both = testClientCtx(TLS1_3_VERSION, 0);
    ocspInstallCallback(both);
    long long unstapled = number("handshakes_unstapled");
    for (int round = 0; round < 2; round++) { /* without a staple to see, and with one */
        testShake shake = testHandshake(ctx, both, 1);
        assert_true(shake.ok);
        assert_int_equal(shake.got_staple, round);
        testShakeFree(&shake);
        settle();
    }
    assert_int_equal(number("handshakes_unstapled"), unstapled + 1);
    SSL_CTX_free(both);
    SSL_CTX_free(ctx);
}

/* ---- §2: quiet states -------------------------------------------------------------------------------------------- */

static void quiet(const char *name, SSL_CTX *ctx, int lines) {
    run(3 * 3600 * 1000);
    wantState(name);
    assert_int_equal(askedTimes(), 0);
    assert_int_equal(linesTold(OCSP_LOG_VERBOSE, NULL), lines);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, NULL), 0);
    if (ctx && SSL_CTX_get0_certificate(ctx)) assert_false(stapledBoth(ctx));
    assert_int_equal(number("next_refresh_in_seconds"), -1);
    SSL_CTX_free(ctx);
}

static void acceptance2_noTls(void **state) {
    (void)state;
    quiet("no-tls", NULL, 0);
}

static void acceptance2_noCertificate(void **state) {
    (void)state;
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    quiet("no-certificate", ctx, 0);
}

static void acceptance2_selfSigned(void **state) {
    (void)state;
    quiet("self-signed", reload(pki->self, pki->leaf_key, NULL), 1);
}

static void acceptance2_noIssuer(void **state) {
    (void)state;
    quiet("no-issuer", reload(pki->leaf, pki->leaf_key, NULL), 1);
}

static void acceptance2_noResponder(void **state) {
    (void)state;
    quiet("no-responder", reload(pki->quiet_leaf, pki->leaf_key, pki->ca), 1);
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "responder-url"), 1); /* it names the way out */
}

static void acceptance2_issuerFromTheTrustedStore(void **state) {
    (void)state;
    SSL_CTX *ctx = testServerCtx(pki->leaf, pki->leaf_key, NULL);
    assert_true(X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), pki->ca));
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    settle();
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

/* ---- §4, §5: URLs ------------------------------------------------------------------------------------------------ */

static void acceptance4_theSecondUrlWhenTheFirstIsDead(void **state) {
    (void)state;
    X509 *leaf = testCert(&(testCertSpec){.name = "two",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .serial = "0ABC",
                                          .urls = {"http://z.test.invalid/", "http://a.test.invalid/"}});
    responder.dead_url = "http://z.test.invalid/";
    SSL_CTX *ctx = reload(leaf, pki->leaf_key, pki->ca);
    settle();
    wantState("good");
    assert_int_equal(askedTimes(), 2);
    assert_string_equal(responder.url[1], "http://a.test.invalid/");
    assert_string_equal(text("responder_url"), "http://a.test.invalid/");
    assert_int_equal(number("refreshes"), 1);
    assert_int_equal(number("refresh_failures"), 0);
    SSL_CTX_free(ctx);
    X509_free(leaf);
}

static void acceptance4_allUrlsDeadIsOneFailureThatNamesEach(void **state) {
    (void)state;
    X509 *leaf = testCert(&(testCertSpec){.name = "two",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .serial = "0ABC",
                                          .urls = {"http://z.test.invalid/", "http://a.test.invalid/"}});
    responder.down = 1;
    SSL_CTX *ctx = reload(leaf, pki->leaf_key, pki->ca);
    settle();
    wantState("pending");
    assert_int_equal(number("refreshes"), 1);
    assert_int_equal(number("refresh_failures"), 1);
    assert_int_equal(number("failures_network"), 1);
    assert_non_null(strstr(text("last_error"), "http://z.test.invalid/"));
    assert_non_null(strstr(text("last_error"), "http://a.test.invalid/"));
    SSL_CTX_free(ctx);
    X509_free(leaf);
}

/* Also an answer that does not verify leads to the next URL; a round that fails counts once, by its last URL's kind. */
static void acceptance4_theSecondUrlWhenTheFirstLies(void **state) {
    (void)state;
    X509 *leaf = testCert(&(testCertSpec){.name = "two",
                                          .issuer = pki->ca,
                                          .issuer_key = pki->ca_key,
                                          .key = pki->leaf_key,
                                          .serial = "0ABC",
                                          .urls = {"http://z.test.invalid/", "http://a.test.invalid/"}});
    responder.foreign_url = "http://z.test.invalid/";
    responder.dead_url = "http://a.test.invalid/";
    SSL_CTX *ctx = reload(leaf, pki->leaf_key, pki->ca);
    settle();
    wantState("pending");
    assert_int_equal(askedTimes(), 2);
    assert_int_equal(number("refresh_failures"), 1);
    assert_int_equal(number("failures_network"), 1);
    assert_int_equal(number("failures_verify"), 0);
    responder.dead_url = NULL;
    run(13 * 1000);
    wantState("good");
    assert_int_equal(askedTimes(), 4);
    assert_string_equal(text("responder_url"), "http://a.test.invalid/");
    SSL_CTX_free(ctx);
    X509_free(leaf);
}

static void acceptance5_responderUrlOverridesAndIsTakenBack(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    run(5000);
    options.responder_url = "http://other.test.invalid/";
    setOptions();
    run(2000);
    assert_int_equal(askedTimes(), 2);
    assert_string_equal(responder.url[1], "http://other.test.invalid/");
    assert_true(stapledBoth(ctx));
    options.responder_url = "";
    setOptions();
    run(2000);
    assert_int_equal(askedTimes(), 3);
    assert_string_equal(responder.url[2], TEST_URL);
    setOptions(); /* nothing has changed: nothing is asked */
    run(5000);
    assert_int_equal(askedTimes(), 3);
    SSL_CTX_free(ctx);
}

static void acceptance5_responderUrlServesACertificateWithoutOne(void **state) {
    (void)state;
    options.responder_url = "http://other.test.invalid/";
    setOptions();
    SSL_CTX *ctx = reload(pki->quiet_leaf, pki->leaf_key, pki->ca);
    settle();
    wantState("good");
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

/* ---- §7: what is refused leaves what is held --------------------------------------------------------------------- */

static void acceptance7_refusedAnswersLeaveWhatIsHeld(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    responder.life = 1000;
    settle();
    long long held = number("this_update");
    static const struct {
        size_t which;
        const char *counter;
    } rows[] = {{0, "failures_network"},  {1, "failures_http"},   {2, "failures_response"},
                {3, "failures_response"}, {4, "failures_verify"}, {5, "failures_response"}};
    run(719000); /* to where chance may begin */
    for (int i = 0; i < 6; i++) {
        responder.down = i == 0;
        responder.http = i == 1 ? 500 : 0;
        responder.status = i == 2 ? 3 : 0;
        responder.unknown = i == 3;
        responder.foreign = i == 4;
        responder.fixed = i == 5 ? held - 10 : 0; /* older than what is held */
        long long before = number(rows[i].counter), all = number("refresh_failures");
        while (number("refresh_failures") == all) run(200);
        assert_int_equal(number(rows[i].counter), before + 1);
        assert_true(stapledBoth(ctx));
        assert_int_equal(number("this_update"), held);
        wantState("good");
        assert_true(strlen(text("last_error")) > 5);
        assert_int_equal(number("consecutive_failures"), i + 1);
    }
    assert_int_equal(number("refresh_failures"), number("failures_network") + number("failures_http") +
                                                     number("failures_response") + number("failures_verify"));
    responder.fixed = 0;
    while (number("consecutive_failures")) run(200);
    assert_string_equal(text("last_error"), "");
    assert_true(number("this_update") > held);
    SSL_CTX_free(ctx);
}

/* ---- §10, §13: refreshing ---------------------------------------------------------------------------------------- */

static void refreshedAtTheMargin(int life, int margin) {
    options.refresh_margin = margin;
    setOptions();
    responder.life = life;
    SSL_CTX *ctx = reloadLeaf();
    run((int64_t)life * 1000 * 12);
    assert_true(askedTimes() >= 12);
    for (int i = 1; i < askedTimes(); i++) {
        int64_t window = (int64_t)life * margin * 10, from = responder.at_wall[i - 1] / 1000 * 1000;
        int64_t formula = from + (int64_t)life * 1000 - window, fifth = (formula - from) / 5;
        if (formula < responder.at_wall[i - 1] + 1000) formula = responder.at_wall[i - 1] + 1000; /* the floor */
        assert_true(responder.at_wall[i] <= formula);
        assert_true(responder.at_wall[i] >= formula - fifth - 1);
    }
    assert_true(stapledBoth(ctx));
    assert_int_equal(number("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

static void acceptance10_twentySecondsTenPercent(void **state) {
    (void)state;
    refreshedAtTheMargin(20, 10);
}

static void acceptance10_twentySecondsFiftyPercent(void **state) {
    (void)state;
    refreshedAtTheMargin(20, 50);
}

static void acceptance10_anHour(void **state) {
    (void)state;
    refreshedAtTheMargin(3600, 10);
}

/* Reloads ask at once, but no faster than automatic rounds may follow each other. */
static void acceptance17_reloadsDoNotBeatTheFloorOfASecond(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    for (int i = 0; i < 50; i++) {
        settle();
        pass(100);
        SSL_CTX_free(ctx);
        ctx = reloadLeaf();
        settle();
    }
    run(3000);
    assert_true(askedTimes() >= 5);
    for (int i = 1; i < askedTimes(); i++) assert_true(responder.at_mono[i] - responder.at_mono[i - 1] >= 1000);
    SSL_CTX_free(ctx);
}

/* Every answer is past its refresh time as it arrives: asked often enough that the staple never ends, and never faster
 * than once a second. */
static void acceptance10_aResponderThatBackdatesDoesNotMakeUsSpin(void **state) {
    (void)state;
    responder.life = 1000;
    responder.backdate = 950;
    SSL_CTX *ctx = reloadLeaf();
    for (int i = 0; i < 500; i++) {
        run(1000);
        assert_true(stapled(ctx, tls13));
    }
    assert_true(askedTimes() <= 500 / 8 + 2); /* as after failures, 10 seconds at first */
    assert_true(askedTimes() >= 500 / 50);    /* each answer is good for 50 seconds */
    for (int i = 1; i < askedTimes(); i++) assert_true(responder.at_mono[i] - responder.at_mono[i - 1] >= 1000);
    assert_int_equal(number("refresh_failures"), 0);
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance13_theSameResponseAgainAndAgain(void **state) {
    (void)state;
    responder.fixed = TEST_NOW;
    responder.life = 40000;
    SSL_CTX *ctx = reloadLeaf();
    run(28799 * 1000); /* before the refresh time nothing is asked */
    assert_int_equal(askedTimes(), 1);
    run(9001 * 1000); /* once before the formula, once soon after it, then at leisure: no failure, no quick tries */
    assert_true(askedTimes() >= 4 && askedTimes() <= 6);
    int64_t formula = (int64_t)(TEST_NOW + 36000) * 1000;
    assert_true(responder.at_wall[1] <= formula);
    assert_true(responder.at_wall[2] >= formula && responder.at_wall[2] <= formula + 1000 * 1000);
    for (int i = 3; i < askedTimes(); i++) {
        int64_t longest = ((int64_t)(TEST_NOW + 40000) * 1000 - responder.at_wall[i - 1]) / 4;
        int64_t waited = responder.at_mono[i] - responder.at_mono[i - 1];
        assert_true(waited >= longest / 2 && waited <= longest + 1);
    }
    assert_int_equal(number("refresh_failures"), 0);
    assert_int_equal(number("consecutive_failures"), 0);
    assert_string_equal(text("last_error"), "");
    assert_int_equal(linesTold(OCSP_LOG_VERBOSE, NULL), 1);
    assert_true(stapledBoth(ctx));
    responder.fixed = 0; /* at last a new one */
    run(600 * 1000);
    assert_int_equal(number("refresh_failures"), 0);
    assert_true(number("this_update") > TEST_NOW);
    SSL_CTX_free(ctx);
}

static void withoutNextUpdateAskedAgainAtHalfOfTenMinutes(void **state) {
    (void)state;
    responder.no_next = 1;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_int_equal(number("next_update"), 0);
    assert_int_equal(number("expires_in_seconds"), 600);
    run(300 * 1000);
    assert_int_equal(askedTimes(), 2);
    responder.down = 1;
    run(299 * 1000);
    assert_true(stapledBoth(ctx));
    run(302 * 1000);
    assert_false(stapledBoth(ctx));
    wantState("expired");
    SSL_CTX_free(ctx);
}

/* A cache-dir that was changed is read again at the end of what is held, and finds it: no word of the responder. */
static int loadAsJustStored(const char *from, const ocspIdentity *id, unsigned char **der, size_t *n, int64_t *mtime,
                            ocspError *err) {
    int found = real_world.cache_load(from, id, der, n, mtime, err);
    *mtime = wallNow();
    return found;
}

/* The files here are of the real clock's year: old, and so for clearing away. */
static void keepOldFiles(const char *from, int64_t now, const ocspIoHooks *wait) {
    (void)from, (void)now, (void)wait;
}

static void acceptance15_theSameFromTheDiskIsNoAnswerOfTheResponder(void **state) {
    (void)state;
    responder.no_next = 1;
    options.cache_dir = dir;
    ocsp_env.cache_load = loadAsJustStored;
    ocsp_env.cache_prune = keepOldFiles;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.down = 1;
    options.cache_dir = "";
    setOptions();
    settle();
    options.cache_dir = dir;
    setOptions();
    run(599 * 1000);
    long long failures = number("consecutive_failures");
    assert_true(failures > 3);
    run(2 * 1000);
    wantState("expired");
    assert_true(number("consecutive_failures") >= failures);
    assert_int_equal(linesTold(OCSP_LOG_VERBOSE, "answers again"), 0);
    assert_int_not_equal(strlen(text("last_error")), 0);
    SSL_CTX_free(ctx);
}

/* ---- §11, §12: failing ------------------------------------------------------------------------------------------- */

static void acceptance11_fiveFailuresWaitAsThePolicySaysAndRecoveryResets(void **state) {
    (void)state;
    responder.life = 10 * TEST_DAY;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    forgetLines();
    responder.down = 1;
    pass((72LL * TEST_DAY / 10 - 1) * 1000); /* to where chance may begin */
    while (askedTimes() < 6) run(1000);
    for (int i = 2; i <= 5; i++) { /* three quick ones, then patience */
        int64_t waited = responder.at_mono[i] - responder.at_mono[i - 1], middle = 10000LL << (i - 2);
        int64_t least = i < 5 ? middle * 8 / 10 : 1800 * 1000, most = i < 5 ? middle * 12 / 10 : 3600 * 1000;
        assert_true(waited >= least && waited <= most);
    }
    assert_int_equal(number("consecutive_failures"), 5);
    assert_true(stapledBoth(ctx));
    responder.down = 0;
    while (number("consecutive_failures")) run(1000);
    run(5000);
    assert_int_equal(linesTold(OCSP_LOG_VERBOSE, NULL), 2); /* the first failure, the recovery */
    assert_int_equal(linesTold(OCSP_LOG_WARNING, TEST_URL), 1);

    responder.down = 1; /* the next failure begins at the beginning again */
    int n = askedTimes();
    pass((72LL * TEST_DAY / 10 - 60) * 1000);
    while (askedTimes() < n + 2) run(60000);
    int64_t waited = responder.at_mono[n + 1] - responder.at_mono[n];
    assert_true(waited >= 8000 && waited <= 12000);
    SSL_CTX_free(ctx);
}

/* Neither the failures nor the time of their last retry are remembered: only the refresh time counts. */
static void aRecoveryForgetsTheFailures(void **state) {
    (void)state;
    responder.down = 1;
    SSL_CTX *ctx = reloadLeaf();
    run(100 * 1000);
    assert_true(number("consecutive_failures") > 2);
    responder.down = 0;
    run(300 * 1000);
    wantState("good");
    assert_int_equal(number("consecutive_failures"), 0);
    int n = askedTimes();
    run(3600 * 1000);
    assert_int_equal(askedTimes(), n);
    SSL_CTX_free(ctx);
}

static void acceptance11_withNothingHeldAtMostFiveMinutesForEver(void **state) {
    (void)state;
    responder.down = 1;
    SSL_CTX *ctx = reloadLeaf();
    run((int64_t)TEST_DAY * 1000);
    wantState("pending");
    int n = askedTimes();
    assert_true(n >= TEST_DAY / 300 && n < TEST_DAY / 300 * 14 / 10);
    for (int i = 1; i < n; i++) assert_true(responder.at_mono[i] - responder.at_mono[i - 1] <= 300 * 1000);
    assert_int_equal(linesTold(OCSP_LOG_VERBOSE, NULL), 1);
    assert_int_equal(number("consecutive_failures"), n);
    responder.down = 0;
    run(300 * 1000);
    wantState("good");
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance11_mustStapleRetriesWithinAMinuteAndWarns(void **state) {
    (void)state;
    responder.down = 1;
    SSL_CTX *ctx = reload(pki->must_leaf, pki->leaf_key, pki->ca);
    run(3600 * 1000);
    assert_int_equal(number("must_staple"), 1);
    for (int i = 1; i < askedTimes(); i++) {
        assert_true(responder.at_mono[i] - responder.at_mono[i - 1] <= 60 * 1000);
    }
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "must-staple"), 1);
    responder.down = 0;
    run(60 * 1000);
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

/* The wait never outlasts a quarter of what is left of the held response, down to a second. */
static void acceptance11_retriesGrowDenserTowardsTheEnd(void **state) {
    (void)state;
    responder.life = 4000;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.down = 1;
    options.retry_delay = 3600;
    setOptions();
    int64_t ends = ((int64_t)TEST_NOW + 4000) * 1000;
    run(4000 * 1000 - 1);
    int n = askedTimes();
    assert_true(n > 5);
    for (int i = 2; i < n; i++) {
        int64_t cap = (ends - responder.at_wall[i - 1]) / 4;
        if (cap < 1000) cap = 1000;
        assert_true(responder.at_mono[i] - responder.at_mono[i - 1] <= cap + 1);
        assert_true(responder.at_mono[i] - responder.at_mono[i - 1] >= 1000);
    }
    SSL_CTX_free(ctx);
}

static void acceptance12_expiresToTheSecondWhileTheResponderIsDown(void **state) {
    (void)state;
    responder.life = 1000;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.down = 1;
    atomic_store(&wall, ((int64_t)TEST_NOW + 1000) * 1000 - 1); /* the worker does not even run: the handshake looks */
    assert_true(stapledBoth(ctx));
    wantState("good");
    atomic_fetch_add(&wall, 1);
    assert_false(stapledBoth(ctx));
    wantState("expired");
    assert_int_equal(number("expires_in_seconds"), -1);
    run(3600 * 1000);
    wantState("expired");
    assert_false(stapledBoth(ctx));
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "expired"), 1);
    responder.down = 0;
    run(300 * 1000);
    wantState("good");
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance12_halfOfTheWindowGoneIsAWarningOnce(void **state) {
    (void)state;
    responder.life = 10000;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.down = 1;
    run(9400 * 1000);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "half"), 0);
    run(200 * 1000);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "half"), 1);
    run(300 * 1000);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "half"), 1);
    SSL_CTX_free(ctx);
}

static void theCertificatesOwnEndEndsTheStaple(void **state) {
    (void)state;
    X509 *brief = testCert(&(testCertSpec){.name = "b",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .serial = "0ABC",
                                           .key = pki->leaf_key,
                                           .urls = {TEST_URL},
                                           .not_after = TEST_NOW + 500});
    SSL_CTX *ctx = reload(brief, pki->leaf_key, pki->ca);
    settle();
    atomic_store(&wall, ((int64_t)TEST_NOW + 499) * 1000);
    testShake shake = testHandshake(ctx, tls13, 1);
    assert_true(shake.got_staple);
    testShakeFree(&shake);
    atomic_store(&wall, ((int64_t)TEST_NOW + 500) * 1000);
    shake = testHandshake(ctx, tls13, 1);
    assert_true(shake.ok && !shake.got_staple);
    testShakeFree(&shake);
    SSL_CTX_free(ctx);
    X509_free(brief);
}

/* ---- §14: clocks ------------------------------------------------------------------------------------------------- */

static void acceptance14_wallClockForwardByADay(void **state) {
    (void)state;
    responder.life = 3600;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    atomic_fetch_add(&wall, (int64_t)TEST_DAY * 1000);
    assert_false(stapledBoth(ctx)); /* at once: it has expired now */
    run(2000);
    assert_true(stapledBoth(ctx));
    assert_int_equal(askedTimes(), 2);
    SSL_CTX_free(ctx);
}

static void acceptance14_wallClockForwardWhileWaitingForARetry(void **state) {
    (void)state;
    responder.life = 4 * TEST_DAY;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.down = 1;
    pass(35LL * TEST_DAY * 100);
    run(3LL * TEST_DAY * 100); /* retries are an hour apart by now */
    responder.down = 0;
    atomic_fetch_add(&wall, 2LL * TEST_DAY * 1000);
    run(300 * 1000 + 1000); /* nothing valid is held: within five minutes */
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance14_wallClockBackByADay(void **state) {
    (void)state;
    responder.life = 3600;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    int before = askedTimes();
    atomic_fetch_sub(&wall, (int64_t)TEST_DAY * 1000);
    run(26LL * 3600 * 1000);
    assert_true(stapledBoth(ctx));
    assert_true(askedTimes() - before < 60); /* no spin: at most its own rhythm */
    SSL_CTX_free(ctx);
}

static void acceptance14_backByADayWhileTheResponderFails(void **state) {
    (void)state;
    responder.down = 1;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    atomic_fetch_sub(&wall, (int64_t)TEST_DAY * 1000);
    int before = askedTimes();
    run(3600 * 1000); /* delays follow the monotonic clock */
    assert_true(askedTimes() - before >= 12);
    assert_true(askedTimes() - before < 30);
    SSL_CTX_free(ctx);
}

/* A revoked certificate is asked for at least hourly, and an answer without end lives ten minutes: neither may be put
 * off by a day because the wall clock was. */
static void acceptance14_backByADayWithARevokedOne(void **state) {
    (void)state;
    responder.revoked = 1;
    responder.life = 30 * TEST_DAY;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.revoked = 0;
    atomic_fetch_sub(&wall, (int64_t)TEST_DAY * 1000);
    responder.backdate = -TEST_DAY - 10; /* the responder's clock did not move */
    int before = askedTimes();
    run(3601 * 1000);
    assert_true(askedTimes() > before);
    SSL_CTX_free(ctx);
}

static void acceptance14_backByADayWithoutNextUpdate(void **state) {
    (void)state;
    responder.no_next = 1;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    atomic_fetch_sub(&wall, (int64_t)TEST_DAY * 1000);
    int before = askedTimes();
    run(601 * 1000);
    assert_true(askedTimes() > before);
    SSL_CTX_free(ctx);
}

/* ---- revoked ----------------------------------------------------------------------------------------------------- */

static void revokedReplacesGoodAtOnceAndIsAskedForHourly(void **state) {
    (void)state;
    responder.life = 3 * TEST_DAY;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    pass(26LL * TEST_DAY * 100);
    responder.revoked = 1;
    while (!number("revoked")) run(600 * 1000);
    wantState("revoked");
    testShake shake = testHandshake(ctx, tls13, 1);
    assert_true(shake.ok && shake.got_staple); /* who knows better must not go on showing "good" */
    testShakeFree(&shake);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "REVOKED"), 1);
    int n = askedTimes();
    run(10 * 3600 * 1000);
    assert_true(askedTimes() - n >= 9 && askedTimes() - n <= 13);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "REVOKED"), 1);
    responder.revoked = 0; /* certificateHold is lifted */
    run(3600 * 1000);
    wantState("good");
    assert_int_equal(number("revoked"), 0);
    assert_int_equal(number("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

/* The hourly look that finds the same response is no failure: the next look is an hour later, not a retry. */
static void theSameRevokedResponseIsAskedForHourly(void **state) {
    (void)state;
    responder.revoked = 1;
    responder.fixed = TEST_NOW;
    responder.life = 30 * TEST_DAY;
    SSL_CTX *ctx = reloadLeaf();
    run(10 * 3600 * 1000);
    wantState("revoked");
    assert_true(askedTimes() >= 10 && askedTimes() <= 13);
    SSL_CTX_free(ctx);
}

static void goodOfTheSameSecondDoesNotReplaceRevoked(void **state) {
    (void)state;
    responder.revoked = 1;
    responder.fixed = TEST_NOW;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.revoked = 0;
    run(2 * 3600 * 1000);
    wantState("revoked");
    assert_true(number("failures_response") > 0);
    SSL_CTX_free(ctx);
}

/* ---- §15, §16: the disk ------------------------------------------------------------------------------------------ */

/* What a restart is to the engine. */
static void restart(void) {
    static const ocspHost host = {.log = keepLine, .alloc = malloc, .free = free};
    ocspShutdown();
    forgetLines();
    assert_int_equal(ocspInit(&host), 1);
    setOptions();
}

static void acceptance15_restartWithTheResponderDown(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_int_equal(testCountFiles(dir), 1);
    SSL_CTX_free(ctx);
    responder.down = 1;
    restart();
    ctx = reloadLeaf();
    ocspThreadPrime(); /* what the main thread does before the first accept */
    assert_int_equal(askedTimes(), 1);
    assert_true(stapledBoth(ctx));
    assert_string_equal(text("response_source"), "cache");
    run(60 * 1000);
    assert_int_equal(askedTimes(), 1); /* a start is no reload: it is refreshed in its time */
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance16_whatTheDiskHoldsIsVerifiedAgain(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
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
        if (i == 1) bad.entries[0].cert = pki->renewed_leaf;   /* file of another certificate */
        if (i == 2) bad.entries[0].next_update = TEST_NOW - 1; /* expired file */
        if (i == 3) bad.status = 3;
        if (i == 4) bad.signer = pki->twin, bad.key = pki->twin_key;
        der = testReplyDer(&bad);
        if (i == 5) der.n /= 2; /* truncated */
        if (i == 6) der = testJoin(der, testCopy("x", 1));
        testWriteFile(path, der.p, der.n);
        testBytesFree(&der);
        SSL_CTX *ctx = reloadLeaf();
        ocspThreadPrime();
        assert_false(stapledBoth(ctx));
        wantState("pending");
        SSL_CTX_free(ctx);
        restart();
    }
    testBytes der = testReplyDer(&reply); /* and the test itself is sane */
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    SSL_CTX *ctx = reloadLeaf();
    ocspThreadPrime();
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
    free(path);
    ocspIdentityFree(id);
}

static void acceptance16_aFullDiskOnlyWarns(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    disk_full = 1;
    responder.life = 1000;
    SSL_CTX *ctx = reloadLeaf();
    run(10000 * 1000);
    assert_true(stapledBoth(ctx));
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "disk is full"), 1);
    assert_true(disk_writes < 200);
    assert_int_equal(number("refresh_failures"), 0);
    disk_full = 0;
    run(1000 * 1000);
    assert_int_equal(testCountFiles(dir), 1);
    SSL_CTX_free(ctx);
}

/* What could not be kept is kept as soon as the disk takes it, without a new answer. */
static void acceptance16_aDiskThatHasRoomAgainGetsWhatIsHeld(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    disk_full = 1;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_int_equal(disk_writes, 1);
    assert_int_equal(testCountFiles(dir), 0);
    disk_full = 0;
    run(61 * 1000);
    assert_int_equal(testCountFiles(dir), 1);
    assert_int_equal(disk_writes, 2);
    assert_int_equal(askedTimes(), 1);
    SSL_CTX_free(ctx);
}

/* Each look for old files reads all of ours: with the first response that is stored, then at most hourly. */
static void acceptance16_oldFilesAreLookedForAtMostHourly(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    responder.life = 600;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_int_equal(disk_writes, 1);
    assert_int_equal(prunes, 1);
    run(3500 * 1000);
    assert_true(disk_writes > 5);
    assert_int_equal(prunes, 1);
    run(2 * 3600 * 1000);
    assert_true(prunes >= 2 && prunes <= 3);
    int before = prunes;
    char *other = testPath(dir, "other");
    assert_int_equal(mkdir(other, 0700), 0);
    options.cache_dir = other; /* another directory has its own old files */
    setOptions();
    settle();
    assert_int_equal(prunes, before + 1);
    SSL_CTX_free(ctx);
    free(other);
}

static void acceptance16_tenRenewedCertificatesInARow(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    for (int i = 0; i < 10; i++) {
        X509 *leaf = testCert(&(testCertSpec){.name = "r",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .serial = "0ABC",
                                              .key = pki->leaf_key,
                                              .urls = {TEST_URL}});
        SSL_CTX *ctx = reload(leaf, pki->leaf_key, pki->ca);
        run(2000);
        assert_true(stapledBoth(ctx));
        assert_int_equal(testCountFiles(dir), i + 1);
        SSL_CTX_free(ctx);
        X509_free(leaf);
    }
}

/* ---- what a restart must not staple ------------------------------------------------------------------------------ */

static char *leafFile(const char *in_dir) {
    char name[100];
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    snprintf(name, sizeof(name), "ocsp-%s.der", id->sha256_hex);
    ocspIdentityFree(id);
    return testPath(in_dir, name);
}

/* What the file of `leaf` in a directory says: -1 there is none, else V_OCSP_CERTSTATUS_... */
static int keptStatus(const char *in_dir) {
    char *path = leafFile(in_dir);
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

static void keep(const char *in_dir, testStatus status, time_t this_update) {
    char *path = leafFile(in_dir);
    testReply reply = testGoodReply(pki->leaf);
    reply.entries[0].status = status;
    reply.entries[0].this_update = this_update;
    testBytes der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    free(path);
}

/* Good is held and lies in `dir`. */
static SSL_CTX *goodOnDisk(void) {
    options.cache_dir = dir;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_GOOD);
    run(5000);
    return ctx;
}

/* The next answer says something else. */
static void askAgain(int revoked) {
    responder.revoked = revoked;
    SSL_CTX_free(reloadLeaf());
    settle();
    wantState(revoked ? "revoked" : "good");
}

static void wantNothingAfterARestart(void) {
    responder.down = 1;
    restart();
    SSL_CTX *ctx = reloadLeaf();
    ocspThreadPrime();
    assert_false(stapledBoth(ctx));
    run(5000);
    assert_false(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance16_aRevocationThatTheDiskRefusesIsNotUndoneByARestart(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    disk_full = 1;
    askAgain(1);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "a restart will refetch"), 1);
    SSL_CTX_free(ctx);
    wantNothingAfterARestart();
}

/* And neither is one whose process is killed while it writes: what contradicts it is away before that. */
static void acceptance16_whatIsContradictedIsRemovedBeforeItsSuccessorIsWritten(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    assert_int_equal(present_at_store, 0);
    askAgain(0);
    assert_int_equal(present_at_store, 1); /* nothing is removed without need */
    run(5000);
    askAgain(1);
    assert_int_equal(present_at_store, 0);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    SSL_CTX_free(ctx);
}

static void acceptance16_whatCannotBeRemovedIsToldOnceAndTriedAgain(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    disk_full = 1;
    unlink_fault = EROFS;
    askAgain(1);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "which a restart would staple"), 1);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "a restart will refetch"), 0);
    char *path = leafFile(dir);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, strrchr(path, '/')), 1); /* what to remove */
    free(path);
    assert_int_equal(unlinks_refused, 1);
    run(600 * 1000);
    assert_true(unlinks_refused >= 9 && unlinks_refused <= 11); /* once a minute */
    assert_int_equal(linesTold(OCSP_LOG_WARNING, "which a restart would staple"), 1);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_GOOD);
    unlink_fault = 0;
    run(61 * 1000);
    assert_int_equal(keptStatus(dir), -1);
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "on disk any more"), 1);
    disk_full = 0;
    run(61 * 1000);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    SSL_CTX_free(ctx);
}

static void acceptance16_itIsRemovedAlsoWhileStaplingIsOff(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    disk_full = 1;
    unlink_fault = EROFS;
    askAgain(1);
    options.stapling = 0;
    setOptions();
    run(1000);
    assert_int_equal(ocspThreadStep(), 1000); /* it does not wait until somebody wakes it */
    unlink_fault = 0;
    run(61 * 1000);
    assert_int_equal(keptStatus(dir), -1);
    disk_full = 0;
    run(61 * 1000);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    assert_int_equal(ocspThreadStep(), -1); /* nothing is left to do until somebody wakes it */
    SSL_CTX_free(ctx);
}

/* A file that cannot be judged now may be judged good after the restart. */
static void acceptance16_whatMayBeGoodAfterARestartIsRemovedToo(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    keep(dir, TEST_GOOD, wallNow() + 4000); /* from the future: this machine's clock is behind */
    disk_full = 1;
    askAgain(1);
    assert_int_equal(keptStatus(dir), -1);
    keep(dir, TEST_REVOKED, wallNow() - 100); /* says the same, and less: stays */
    run(61 * 1000);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    SSL_CTX_free(ctx);
}

static void acceptance16_aLiftedHoldThatTheDiskRefusesIsNoRevocationAfterARestart(void **state) {
    (void)state;
    responder.revoked = 1;
    options.cache_dir = dir;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    run(5000);
    disk_full = 1;
    askAgain(0);
    assert_int_equal(keptStatus(dir), -1);
    SSL_CTX_free(ctx);
}

/* Where cache-dir leads later, or led before, there must not be good when the operator goes back to it. */
static void acceptance16_anOlderGoodResponseInADirectoryThatWasLeft(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    char *other = testPath(dir, "other");
    assert_int_equal(mkdir(other, 0700), 0);
    options.cache_dir = other;
    setOptions();
    settle();
    assert_int_equal(keptStatus(other), V_OCSP_CERTSTATUS_GOOD);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_GOOD); /* it may be another server's */
    options.cache_dir = "";
    setOptions();
    run(5000);
    askAgain(1);
    assert_int_equal(keptStatus(dir), -1);
    assert_int_equal(keptStatus(other), -1);
    options.cache_dir = dir;
    setOptions();
    settle();
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    keep(other, TEST_GOOD, wallNow() - 100);
    options.cache_dir = other;
    disk_full = 1;
    setOptions();
    settle();
    assert_int_equal(keptStatus(other), -1);
    free(other);
    SSL_CTX_free(ctx);
}

/* Responses that the operator supplies are not kept; what lies there from before must not come back when they end. */
static void acceptance24_aSuppliedRevocationOutlivesWhatWasKept(void **state) {
    (void)state;
    SSL_CTX *ctx = goodOnDisk();
    char *path = testPath(dir, "supplied.der");
    testReply reply = testGoodReply(pki->leaf);
    reply.entries[0].status = TEST_REVOKED;
    reply.entries[0].this_update = wallNow();
    testBytes der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    options.response_file = path;
    setOptions();
    run(2000);
    wantState("revoked");
    assert_int_equal(keptStatus(dir), -1);
    options.response_file = "";
    SSL_CTX_free(ctx);
    wantNothingAfterARestart();
    testBytesFree(&der);
    free(path);
}

/* Two servers with one cache-dir: this one's responder lags behind. */
static void acceptance16_anotherServersNewerResponseIsTakenAndNotOverwritten(void **state) {
    (void)state;
    responder.fixed = TEST_NOW - 1000;
    keep(dir, TEST_GOOD, TEST_NOW - 2000);
    SSL_CTX *ctx = goodOnDisk();
    assert_int_equal(number("this_update"), TEST_NOW - 2000);
    keep(dir, TEST_REVOKED, TEST_NOW - 500); /* by the other server */
    SSL_CTX_free(reloadLeaf());
    settle();
    wantState("revoked");
    assert_string_equal(text("response_source"), "cache");
    assert_int_equal(number("this_update"), TEST_NOW - 500);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_REVOKED);
    assert_int_equal(disk_writes, 0);
    assert_true(stapledBoth(ctx));
    /* What this one's responder says later is newer, and replaces it. */
    responder.fixed = 0;
    run(5000);
    askAgain(0);
    assert_int_equal(keptStatus(dir), V_OCSP_CERTSTATUS_GOOD);
    SSL_CTX_free(ctx);
}

/* ---- the age of a file ------------------------------------------------------------------------------------------- */

/* Without nextUpdate a response lives for ten minutes from its receipt. A copy of its file has a new time, but what it
 * holds was signed when it was signed. */
static void acceptance16_aCopyOfAFileDoesNotBeginTheTenMinutesAnew(void **state) {
    (void)state;
    responder.no_next = 1;
    ocsp_env.cache_load = loadAsJustStored;
    ocsp_env.cache_prune = keepOldFiles;
    SSL_CTX *ctx = goodOnDisk();
    SSL_CTX_free(ctx);
    responder.down = 1;
    static const struct {
        int64_t passes;
        long long expires; /* 0: nothing is stapled */
    } starts[] = {{0, 600}, {200, 600}, {200, 495}, {400, 95}, {94, 1}, {1, 0}, {100, 0}};
    for (size_t i = 0; i < sizeof(starts) / sizeof(starts[0]); i++) {
        pass(starts[i].passes * 1000);
        restart();
        ctx = reloadLeaf();
        ocspThreadPrime();
        assert_int_equal(stapledBoth(ctx), starts[i].expires > 0);
        assert_int_equal(number("expires_in_seconds"), starts[i].expires > 0 ? starts[i].expires : -1);
        SSL_CTX_free(ctx);
    }
}

/* thisUpdate may be rounded down to the hour: then producedAt tells when it was signed. */
static void acceptance16_whatWasJustReceivedIsStapledAfterARestart(void **state) {
    (void)state;
    ocsp_env.cache_load = loadAsJustStored;
    testReply reply = testGoodReply(pki->leaf);
    reply.entries[0].next_update = 0;
    reply.entries[0].this_update = TEST_NOW - 3000;
    reply.produced_at = TEST_NOW - 30;
    options.cache_dir = dir;
    setOptions();
    responder.down = 1;
    char *path = leafFile(dir);
    testBytes der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    SSL_CTX *ctx = reloadLeaf();
    ocspThreadPrime();
    assert_true(stapledBoth(ctx));
    assert_int_equal(number("expires_in_seconds"), 600);
    SSL_CTX_free(ctx);
    reply.produced_at = TEST_NOW - 901;
    der = testReplyDer(&reply);
    testWriteFile(path, der.p, der.n);
    testBytesFree(&der);
    restart();
    ctx = reloadLeaf();
    ocspThreadPrime();
    assert_false(stapledBoth(ctx));
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "signed more than"), 1);
    SSL_CTX_free(ctx);
    free(path);
}

/* ---- §17, §23: contexts ------------------------------------------------------------------------------------------ */

static void acceptance17_theSameCertificateKeepsItsStaple(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    responder.down = 1;
    for (int i = 0; i < 100; i++) {
        SSL_CTX *next = reloadLeaf();
        assert_true(stapledBoth(next)); /* before the worker has even looked */
        if (i % 3) settle();
        assert_true(stapledBoth(next));
        SSL_CTX_free(ctx);
        ctx = next;
    }
    SSL_CTX_free(ctx);
}

static void acceptance17_aReloadAsksAtOnce(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    run(100 * 1000);
    SSL_CTX *again = reloadLeaf();
    settle();
    assert_int_equal(askedTimes(), 2);
    SSL_CTX_free(again);
    SSL_CTX_free(ctx);
}

static void acceptance17_aRenewedCertificateGetsItsOwnNeverTheOldOnes(void **state) {
    (void)state;
    SSL_CTX *old = reloadLeaf();
    settle();
    responder.down = 1;
    SSL_CTX *renewed = reload(pki->renewed_leaf, pki->leaf_key, pki->ca);
    assert_false(stapledBoth(renewed));
    run(5000);
    assert_false(stapledBoth(renewed));
    assert_true(stapledBoth(old)); /* a handshake that had begun on the old context */
    wantState("pending");
    responder.down = 0;
    run(60 * 1000);
    assert_true(stapledBoth(renewed)); /* judged for the renewed one */
    SSL_CTX_free(old);
    SSL_CTX_free(renewed);
}

/* ---- what clients do not look for --------------------------------------------------------------------------------- */

/* A notice once for each certificate: not at each refresh, not at a reload, not when the digest comes and goes. */
static void certIdsWithoutSha1AreANoticeOnce(void **state) {
    (void)state;
    responder.md = EVP_sha384();
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_true(stapledBoth(ctx));
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "CertID with SHA384"), 1);
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "configure the responder"), 1);
    responder.md = EVP_sha256();
    run(3LL * TEST_DAY * 1000);
    responder.md = NULL;
    run(2LL * TEST_DAY * 1000);
    responder.md = EVP_sha256();
    SSL_CTX *again = reloadLeaf();
    run(2LL * TEST_DAY * 1000);
    assert_true(askedTimes() > 5);
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "CertID with"), 1);
    assert_int_equal(linesTold(OCSP_LOG_WARNING, NULL), 0);
    SSL_CTX *renewed = reload(pki->renewed_leaf, pki->leaf_key, pki->ca); /* another certificate: once more */
    settle();
    assert_true(stapledBoth(renewed));
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "CertID with SHA256"), 1);
    SSL_CTX_free(ctx);
    SSL_CTX_free(again);
    SSL_CTX_free(renewed);
}

static void certIdsWithSha1AreNoNotice(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    run(3LL * TEST_DAY * 1000);
    assert_true(stapledBoth(ctx));
    assert_int_equal(linesTold(OCSP_LOG_DEBUG, "CertID"), 0);
    SSL_CTX_free(ctx);
}

/* Its staple is kept for handshakes that had begun, and ends with the response: nobody asks for a new one. */
static void acceptance17_nobodyAsksForAReplacedCertificate(void **state) {
    (void)state;
    SSL_CTX *old = reloadLeaf();
    settle();
    SSL_CTX *renewed = reload(pki->renewed_leaf, pki->leaf_key, pki->ca);
    settle();
    assert_true(stapledBoth(old) && stapledBoth(renewed));
    assert_int_equal(askedTimes(), 2);
    run(3LL * TEST_DAY * 1000 - 1000); /* each answer lives a day, and is asked for after 0.72 to 0.9 of it */
    assert_true(askedTimes() >= 2 + 3 && askedTimes() <= 2 + 4);
    assert_false(stapledBoth(old));
    assert_true(stapledBoth(renewed));
    SSL_CTX_free(old);
    SSL_CTX_free(renewed);
}

/* The same serial, subject and even key, from another CA of the same name. */
static void acceptance17_aForeignCertificateNeverGetsAStaple(void **state) {
    (void)state;
    SSL_CTX *ours = reloadLeaf();
    settle();
    SSL_CTX *foreign = reload(pki->foreign_leaf, pki->leaf_key, pki->twin);
    for (int i = 0; i < 20; i++) {
        testShake shake = testHandshake(foreign, i % 2 ? tls12 : tls13, 1);
        assert_true(shake.ok);
        assert_false(shake.got_staple);
        testShakeFree(&shake);
        run(30000); /* the responder goes on answering for ours */
    }
    SSL_CTX *back = reloadLeaf();
    assert_true(stapledBoth(back));
    SSL_CTX_free(back);
    SSL_CTX_free(foreign);
    SSL_CTX_free(ours);
}

static SSL_CTX *during_ctx;
static void reloadDuring(const ocspIoHooks *wait) {
    assert_false(wait->cancelled());
    responder.during = NULL;
    during_ctx = reload(pki->renewed_leaf, pki->leaf_key, pki->ca);
}

static void acceptance17_aFetchForTheOldCertificateIsCancelled(void **state) {
    (void)state;
    responder.during = reloadDuring;
    SSL_CTX *old = reloadLeaf();
    settle();
    assert_int_equal(atomic_load(&responder.cancelled), 1);
    run(5000);
    assert_true(stapledBoth(during_ctx));
    assert_int_equal(number("refreshes"), 1); /* what was cancelled is no round, and no failure */
    assert_int_equal(number("refresh_failures"), 0);
    SSL_CTX_free(during_ctx);
    SSL_CTX_free(old);
}

static void reloadSameDuring(const ocspIoHooks *wait) {
    assert_false(wait->cancelled());
    responder.during = NULL;
    during_ctx = reloadLeaf();
}

static void acceptance17_aFetchGoesOnWhenTheReloadBroughtTheSame(void **state) {
    (void)state;
    responder.during = reloadSameDuring;
    SSL_CTX *old = reloadLeaf();
    settle();
    assert_int_equal(atomic_load(&responder.cancelled), 0);
    assert_true(stapledBoth(during_ctx));
    SSL_CTX_free(during_ctx);
    SSL_CTX_free(old);
}

/* What the module does at load: the server's own context comes a moment later. */
static void expect(X509 *leaf) {
    STACK_OF(X509) *certs = testStack(leaf, pki->ca, NULL);
    ocspPrefetchContext(certs, NULL);
    sk_X509_free(certs);
}

static void anExpectedContextIsAskedForBeforeItCameAndThenNotAgain(void **state) {
    (void)state;
    expect(pki->leaf);
    settle();
    assert_int_equal(askedTimes(), 1);
    SSL_CTX *ctx = reloadLeaf();
    assert_true(stapledBoth(ctx)); /* the first handshake of all */
    run(60 * 1000);
    assert_int_equal(askedTimes(), 1);
    SSL_CTX *again = reloadLeaf(); /* this one is a reload */
    settle();
    assert_int_equal(askedTimes(), 2);
    assert_true(stapledBoth(again));
    SSL_CTX_free(again);
    SSL_CTX_free(ctx);
}

static void anExpectedContextThatComesDuringTheFetchOrAfterAFailureSpursNothing(void **state) {
    (void)state;
    responder.during = reloadSameDuring;
    expect(pki->leaf);
    settle();
    assert_int_equal(askedTimes(), 1);
    assert_int_equal(atomic_load(&responder.cancelled), 0);
    assert_true(stapledBoth(during_ctx));
    SSL_CTX_free(during_ctx);
    restart();
    responder.down = 1;
    expect(pki->leaf);
    settle();
    assert_int_equal(askedTimes(), 2);
    SSL_CTX *ctx = reloadLeaf();
    run(5000); /* the floor is long past; the retry comes 8 to 12 seconds after the failure */
    assert_int_equal(askedTimes(), 2);
    responder.down = 0;
    run(10 * 1000);
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void anotherContextThanTheExpectedGetsItsOwn(void **state) {
    (void)state;
    expect(pki->renewed_leaf);
    settle();
    SSL_CTX *ctx = reloadLeaf();
    assert_false(stapledBoth(ctx));
    settle();
    assert_int_equal(askedTimes(), 2);
    assert_true(stapledBoth(ctx)); /* judged for the one that it serves */
    SSL_CTX_free(ctx);
}

static void anExpectedContextIsStapledFromTheDisk(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    settle();
    SSL_CTX_free(ctx);
    responder.down = 1;
    restart();
    expect(pki->leaf);
    ocspThreadPrime();
    ctx = reloadLeaf();
    assert_true(stapledBoth(ctx));
    run(60 * 1000);
    assert_int_equal(askedTimes(), 1);
    SSL_CTX_free(ctx);
}

static void anExpectedContextThatIsTakenBackIsAskedForNoMore(void **state) {
    (void)state;
    expect(pki->leaf);
    settle();
    wantState("good");
    ocspPrefetchContext(NULL, NULL);
    settle();
    wantState("no-tls");
    run(2LL * TEST_DAY * 1000);
    assert_int_equal(askedTimes(), 1);
}

static void moreReloadsThanAreFollowed(void **state) {
    (void)state;
    for (int i = 0; i < 4 * OCSP_MAX_CERTS; i++) {
        X509 *leaf = testCert(&(testCertSpec){.name = "m",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .serial = "0ABC",
                                              .key = pki->leaf_key,
                                              .urls = {TEST_URL}});
        SSL_CTX *ctx = reload(leaf, pki->leaf_key, pki->ca);
        if (i % 5 != 4) run(1500);
        if (i % 5 != 4) assert_true(stapledBoth(ctx));
        SSL_CTX_free(ctx);
        X509_free(leaf);
    }
    assert_int_equal(linesTold(OCSP_LOG_WARNING, NULL), 0);
}

static SSL_CTX *twoCertificates(void) {
    SSL_CTX *ctx = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    testServerAdd(ctx, pki->rsa_leaf, pki->rsa_leaf_key, pki->ca);
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    return ctx;
}

/* Renews one of the two certificates of a context 20 times. Nobody answers for the other one any more: all that it can
 * show is what was held for it, with the first handshake after each reload and after the worker has seen it. */
static void renewedBesideAnother(int renew_rsa) {
    SSL_CTX *rsa_client = tls13_rsa, *ec_client = tls13;
    SSL_CTX *ctx = twoCertificates();
    settle();
    assert_true(stapled(ctx, rsa_client) && stapled(ctx, ec_client));
    responder.down = 1;
    for (int i = 0; i < 20; i++) {
        X509 *fresh = testCert(&(testCertSpec){.name = "r",
                                               .issuer = pki->ca,
                                               .issuer_key = pki->ca_key,
                                               .key = renew_rsa ? pki->rsa_leaf_key : pki->leaf_key,
                                               .urls = {TEST_URL}});
        SSL_CTX *next = testServerCtx(renew_rsa ? pki->leaf : fresh, pki->leaf_key, pki->ca);
        testServerAdd(next, renew_rsa ? fresh : pki->rsa_leaf, pki->rsa_leaf_key, pki->ca);
        ocspInstallCallback(next);
        ocspAttachContext(next);
        for (int look = 0; look < 3; look++) {
            if (!stapled(next, renew_rsa ? ec_client : rsa_client))
                fail_msg("renewal %d, look %d: the other certificate has lost its staple", i + 1, look);
            assert_false(stapled(next, renew_rsa ? rsa_client : ec_client));
            run(1500);
        }
        SSL_CTX_free(ctx);
        ctx = next;
        X509_free(fresh);
    }
    SSL_CTX_free(ctx);
}

static void acceptance23_renewalsOfOneCertificateLeaveTheOthersStaple(void **state) {
    (void)state;
    renewedBesideAnother(1);
}

static void acceptance23_theSameForTheOtherOne(void **state) {
    (void)state;
    renewedBesideAnother(0);
}

/* Back to a certificate that was replaced long ago, beside a new one: it is in service again before room is made. */
static void acceptance23_aCertificateThatReturnsKeepsItsStaple(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    for (int i = 0; i < OCSP_MAX_CERTS; i++) {
        X509 *rsa = testCert(&(testCertSpec){
            .name = "r", .issuer = pki->ca, .issuer_key = pki->ca_key, .key = pki->rsa_leaf_key, .urls = {TEST_URL}});
        int last = i == OCSP_MAX_CERTS - 1;
        SSL_CTX_free(ctx);
        responder.down = 1;
        ctx = last ? testServerCtx(pki->leaf, pki->leaf_key, pki->ca) : reload(rsa, pki->rsa_leaf_key, pki->ca);
        if (last) {
            testServerAdd(ctx, rsa, pki->rsa_leaf_key, pki->ca);
            ocspInstallCallback(ctx);
            ocspAttachContext(ctx);
        }
        run(1500);
        X509_free(rsa);
    }
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static int writes_seen;
static void lookAtTheDisk(const ocspIoHooks *wait) {
    (void)wait;
    if (askedTimes() == 2) writes_seen = disk_writes;
}

/* The second certificate's responder may hang: what the first one has published is on disk by then. */
static void theFirstResponseIsStoredBeforeTheSecondIsAskedFor(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    responder.during = lookAtTheDisk;
    writes_seen = 0;
    SSL_CTX *ctx = twoCertificates();
    settle();
    assert_int_equal(askedTimes(), 2);
    assert_int_equal(writes_seen, 1);
    assert_int_equal(testCountFiles(dir), 2);
    SSL_CTX_free(ctx);
}

static void acceptance23_rsaAndEcdsaInOneContext(void **state) {
    (void)state;
    SSL_CTX *ctx = twoCertificates();
    X509 *current = SSL_CTX_get0_certificate(ctx);
    assert_int_equal(X509_cmp(current, pki->rsa_leaf), 0); /* untouched by being looked at */
    settle();
    assert_int_equal(askedTimes(), 2);
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
    wantState("good");
    assert_string_equal(text("alt_state"), "good");
    assert_string_not_equal(text("cert_serial"), text("alt_cert_serial"));
    SSL_CTX *one = reloadLeaf();
    settle();
    assert_null(info("alt_state"));
    SSL_CTX_free(one);
    SSL_CTX_free(ctx);
}

/* ---- §18: options at run time ------------------------------------------------------------------------------------ */

static void acceptance18_offStopsWithTheNextHandshakeAndOnStartsFromWhatIsHeld(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    for (int i = 0; i < 5; i++) {
        options.stapling = 0;
        setOptions();
        assert_false(stapledBoth(ctx)); /* the worker has not run */
        wantState("disabled");
        run(10000);
        assert_false(stapledBoth(ctx));
        options.stapling = 1;
        setOptions();
        assert_true(stapledBoth(ctx));
        run(1000);
        assert_true(stapledBoth(ctx));
        wantState("good");
    }
    assert_int_equal(askedTimes(), 1);
    options.stapling = 0;
    setOptions();
    run(3LL * TEST_DAY * 1000);
    assert_int_equal(askedTimes(), 1); /* off means that nobody is asked */
    options.stapling = 1;
    setOptions();
    assert_false(stapledBoth(ctx)); /* it has expired meanwhile */
    run(1000);
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

/* Nothing valid is held: turning it on asks at once, however long the wait for the next retry was. */
static void acceptance18_onWithNothingHeldAsksAtOnce(void **state) {
    (void)state;
    responder.down = 1;
    SSL_CTX *ctx = reloadLeaf();
    run(3600 * 1000);
    int n = askedTimes();
    while (askedTimes() == n) run(1000); /* the next one is minutes away now */
    n = askedTimes();
    for (int on = 0; on < 2; on++) {
        options.stapling = on;
        setOptions();
        run(2000);
        assert_int_equal(askedTimes(), n + on);
    }
    SSL_CTX_free(ctx);
}

static void offAtStartAsksNobody(void **state) {
    (void)state;
    options.stapling = 0;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    run(100 * 1000);
    assert_int_equal(askedTimes(), 0);
    wantState("disabled");
    assert_false(stapledBoth(ctx));
    options.stapling = 1;
    setOptions();
    settle();
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance18_aWiderMarginIsHeededAtOnce(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    run(50000 * 1000LL); /* of 86400 seconds */
    assert_int_equal(askedTimes(), 1);
    options.refresh_margin = 50;
    setOptions();
    run(1000);
    assert_int_equal(askedTimes(), 2);
    SSL_CTX_free(ctx);
}

static void acceptance18_aShorterRetryDelayIsHeededAtOnce(void **state) {
    (void)state;
    options.retry_delay = 200;
    setOptions();
    responder.down = 1;
    SSL_CTX *ctx = reloadLeaf();
    settle();
    options.retry_delay = 1;
    setOptions();
    run(1300);
    assert_int_equal(askedTimes(), 2);
    SSL_CTX_free(ctx);
}

/* ---- §24: a supplied file ---------------------------------------------------------------------------------------- */

static char *supplied;
static void supply(const testReply *reply) {
    testBytes der = testReplyDer(reply);
    char *next = testPath(dir, "next");
    testWriteFile(next, der.p, der.n);
    assert_int_equal(rename(next, supplied), 0); /* another inode: seen whatever the clock's grain */
    free(next);
    testBytesFree(&der);
}

static void acceptance24_suppliedFile(void **state) {
    (void)state;
    supplied = testPath(dir, "response.der");
    options.response_file = supplied;
    setOptions();
    testReply reply = testGoodReply(pki->leaf);
    supply(&reply);
    SSL_CTX *ctx = reloadLeaf();
    ocspThreadPrime(); /* before the first accept */
    assert_true(stapledBoth(ctx));
    assert_string_equal(text("response_source"), "file");
    wantState("good");

    reply.entries[0].this_update -= 1000; /* older: but what the operator supplies is his word */
    supply(&reply);
    run(2000);
    assert_int_equal(number("this_update"), reply.entries[0].this_update);
    assert_true(stapledBoth(ctx));

    reply.entries[0].status = TEST_REVOKED;
    supply(&reply);
    run(2000);
    wantState("revoked");
    assert_true(stapledBoth(ctx));

    reply.entries[0].status = TEST_GOOD;
    supply(&reply);
    run(2000);
    wantState("good");

    reply.entries[0].cert = pki->renewed_leaf; /* of a certificate that comes later: no error, not stapled */
    long long failures = number("refresh_failures");
    supply(&reply);
    run(2000);
    assert_int_equal(number("refresh_failures"), failures);
    assert_int_equal(number("this_update"), TEST_NOW - 3600 - 1000);
    assert_true(stapledBoth(ctx)); /* judged for the one that is served: current response kept */
    SSL_CTX *renewed = reload(pki->renewed_leaf, pki->leaf_key, pki->ca);
    run(2000);
    assert_true(stapledBoth(renewed)); /* and when it comes, the file serves it */
    assert_int_equal(askedTimes(), 0); /* never the network */
    SSL_CTX_free(renewed);
    SSL_CTX_free(ctx);
    free(supplied);
}

/* There is no request that its responder could answer with. */
static void aSuppliedFileWithoutSha1CertIdsIsANotice(void **state) {
    (void)state;
    supplied = testPath(dir, "response.der");
    options.response_file = supplied;
    setOptions();
    testReply reply = testGoodReply(pki->leaf);
    reply.entries[0].md = EVP_sha256();
    supply(&reply);
    SSL_CTX *ctx = reloadLeaf();
    settle();
    assert_true(stapledBoth(ctx));
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "CertID with SHA256"), 1);
    assert_int_equal(linesTold(OCSP_LOG_NOTICE, "request the response for response-file"), 1);
    SSL_CTX_free(ctx);
    free(supplied);
}

static void acceptance24_suppliedFileBadExpiredRemoved(void **state) {
    (void)state;
    supplied = testPath(dir, "response.der");
    options.response_file = supplied;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    run(2000);
    wantState("pending"); /* there is none yet */
    assert_true(number("failures_network") >= 1);
    testReply reply = testGoodReply(pki->leaf), bad = reply;
    bad.break_signature = 1;
    supply(&bad);
    run(2000);
    assert_false(stapledBoth(ctx));
    assert_true(number("failures_verify") >= 1);
    reply.entries[0].next_update = TEST_NOW + 1000;
    supply(&reply);
    run(2000);
    assert_true(stapledBoth(ctx));
    assert_string_equal(text("last_error"), "");
    supply(&bad);
    run(2000);
    assert_true(stapledBoth(ctx)); /* current response kept */
    unlink(supplied);
    run(2000);
    assert_true(stapledBoth(ctx));
    run(1000 * 1000);
    assert_false(stapledBoth(ctx)); /* and no longer than it lives */
    wantState("expired");
    assert_int_equal(askedTimes(), 0);
    SSL_CTX_free(ctx);
    free(supplied);
}

static void acceptance24_swappedBySymbolicLink(void **state) {
    (void)state;
    char *one = testPath(dir, "one"), *two = testPath(dir, "two"), *next = testPath(dir, "next");
    supplied = testPath(dir, "current");
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);
    testWriteFile(one, der.p, der.n);
    testBytesFree(&der);
    reply.entries[0].status = TEST_REVOKED;
    der = testReplyDer(&reply);
    testWriteFile(two, der.p, der.n);
    testBytesFree(&der);
    assert_int_equal(symlink(one, supplied), 0);
    options.response_file = supplied;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    run(2000);
    wantState("good");
    assert_int_equal(symlink(two, next), 0);
    assert_int_equal(rename(next, supplied), 0); /* as Kubernetes does */
    run(2000);
    wantState("revoked");
    SSL_CTX_free(ctx);
    free(one);
    free(two);
    free(next);
    free(supplied);
}

/* A CA that sends much along must not take all clients down: TLS 1.2 clients end the handshake at a CertificateStatus
 * of more than 16384 bytes, and TLS 1.3 has 65535 bytes for a certificate's extensions. */
static void aStapleThatTheClientsTlsCannotTakeIsLeftOut(void **state) {
    (void)state;
    static const struct {
        size_t size;
        int in12, in13;
    } rows[] = {{16380, 1, 1}, {16381, 0, 1}, {20000, 0, 1}, {65527, 0, 1}, {65528, 0, 0}, {65536, 0, 0}};
    supplied = testPath(dir, "response.der");
    options.response_file = supplied;
    setOptions();
    SSL_CTX *ctx = reloadLeaf();
    for (int i = 0; i < 6; i++) {
        testBytes der = testReplyOfSize(testGoodReply(pki->leaf), rows[i].size);
        testWriteFile(supplied, der.p, der.n);
        testBytesFree(&der);
        run(2000);
        assert_int_equal(number("response_bytes"), rows[i].size);
        assert_int_equal(stapled(ctx, tls12), rows[i].in12); /* and no handshake fails */
        assert_int_equal(stapled(ctx, tls13), rows[i].in13);
    }
    SSL_CTX_free(ctx);
    free(supplied);
}

/* ---- memory ------------------------------------------------------------------------------------------------------ */

static int64_t allocations_until_failure;
static void *scarceAlloc(size_t n) {
    return allocations_until_failure-- == 0 ? NULL : malloc(n);
}

/* Each allocation refused once, in turn: the engine survives, staples nothing wrong, and heals. */
static void outOfMemoryIsSurvived(void **state) {
    static const ocspHost host = {.log = keepLine, .alloc = scarceAlloc, .free = free};
    (void)state;
    for (int n = 0; n < 120; n++) {
        ocspShutdown();
        forgetLines();
        allocations_until_failure = n;
        if (!ocspInit(&host) && !ocspInit(&host)) fail_msg("no init after one refusal");
        if (!ocspSetOptions(&options)) setOptions();
        SSL_CTX *ctx = reloadLeaf();
        run(20 * 1000);
        (void)stapledBoth(ctx); /* judged when there is one */
        allocations_until_failure = -1;
        SSL_CTX *again = reloadLeaf();
        run(400 * 1000);
        assert_true(stapledBoth(again));
        SSL_CTX_free(again);
        SSL_CTX_free(ctx);
    }
}

/* ---- with the real thread ---------------------------------------------------------------------------------------- */

static atomic_int done_good, done_bad;
static void countDone(void *arg, const char *error) {
    (void)arg;
    atomic_fetch_add(error ? &done_bad : &done_good, 1);
}

static int beginThreads(void **state) {
    atomic_store(&done_good, 0);
    atomic_store(&done_bad, 0);
    return begin(state);
}

/* As DEBUG OCSP-REFRESH asks: nobody waits for the end. */
static void requestOnly(void) {
    char why[OCSP_SENTENCE_MAX] = "";
    assert_int_equal(ocspRequestRefresh(NULL, NULL, why, sizeof(why)), 1);
}

static int request(void) {
    char why[OCSP_SENTENCE_MAX] = "";
    int ok = ocspRequestRefresh(countDone, NULL, why, sizeof(why));
    assert_int_equal(ok, why[0] == '\0');
    return ok;
}

static void threadFetchesAndStaples(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

static void acceptance15_tickReadsTheDiskBeforeTheFirstAccept(void **state) {
    (void)state;
    options.cache_dir = dir;
    setOptions();
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);
    assert_int_equal(ocspCacheStore(dir, id, der.p, der.n, NULL), 1);
    testBytesFree(&der);
    ocspIdentityFree(id);
    atomic_store(&responder.hold, 1);
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    assert_true(stapledBoth(ctx)); /* no waiting for anything */
    SSL_CTX_free(ctx);
}

static void acceptance19_manyRequestsDuringOneFetchAreOne(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    atomic_store(&responder.hold, 1);
    int before = askedTimes();
    assert_int_equal(request(), 1);
    testWaitFor(askedTimes() == before + 1);
    for (int i = 0; i < 100; i++) assert_int_equal(request(), 1);
    atomic_fetch_add(&wall, 5000);
    atomic_store(&responder.hold, 0);
    testWaitFor(atomic_load(&done_good) == 101);
    assert_int_equal(askedTimes(), before + 1);
    assert_int_equal(atomic_load(&done_bad), 0);
    SSL_CTX_free(ctx);
}

static void acceptance19_ifThatOneFailsOneMoreFollowsAtOnce(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    int before = askedTimes();
    responder.down = 1;
    atomic_store(&responder.hold, 1);
    assert_int_equal(request(), 1);
    testWaitFor(askedTimes() == before + 1);
    for (int i = 0; i < 100; i++) assert_int_equal(request(), 1);
    atomic_store(&responder.hold, 0);
    testWaitFor(atomic_load(&done_bad) == 101); /* the faked clock stands still: no automatic round is among them */
    assert_int_equal(askedTimes(), before + 2);
    assert_int_equal(atomic_load(&done_good), 0);
    atomic_store(&responder.hold, 1);
    requestOnly();
    testWaitFor(askedTimes() == before + 3);
    requestOnly();
    atomic_store(&responder.hold, 0);
    testWaitFor(askedTimes() == before + 4);
    SSL_CTX_free(ctx);
}

static void acceptance19_theSameAnswerAgainIsNoFailure(void **state) {
    (void)state;
    responder.fixed = TEST_NOW;
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(request(), 1);
        testWaitFor(atomic_load(&done_good) == i);
    }
    assert_int_equal(askedTimes(), 21);
    assert_int_equal(number("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

static void acceptance19_refusedWithAReason(void **state) {
    (void)state;
    char why[OCSP_SENTENCE_MAX];
    X509 *leaves[] = {pki->self, pki->quiet_leaf, pki->leaf};
    static const char *const states[] = {"self-signed", "no-responder", "no-issuer"};
    for (int i = 0; i < 3; i++) {
        SSL_CTX *ctx = reload(leaves[i], pki->leaf_key, i == 1 ? pki->ca : NULL);
        ocspCron();
        testWaitFor(!strcmp(text("state"), states[i]));
        why[0] = 0;
        assert_int_equal(ocspRequestRefresh(countDone, NULL, why, sizeof(why)), 0);
        assert_true(strlen(why) > 10);
        SSL_CTX_free(ctx);
    }
    options.stapling = 0;
    setOptions();
    assert_int_equal(ocspRequestRefresh(countDone, NULL, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "off"));
    assert_int_equal(atomic_load(&done_good) + atomic_load(&done_bad), 0);
    assert_int_equal(askedTimes(), 0);
}

static void requestsAreAnsweredWhenStaplingIsTurnedOffOrTheEngineEnds(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    atomic_store(&responder.hold, 1);
    int before = askedTimes();
    assert_int_equal(request(), 1);
    testWaitFor(askedTimes() == before + 1);
    options.stapling = 0;
    setOptions();
    testWaitFor(atomic_load(&done_bad) == 1);
    options.stapling = 1;
    setOptions();
    assert_int_equal(request(), 1);
    ocspShutdown(); /* with a fetch that hangs: it is cancelled */
    assert_int_equal(atomic_load(&done_bad), 2);
    SSL_CTX_free(ctx);
}

/* Valkey 9.1 makes contexts on a thread of its own: they show themselves in their first handshake. */
static void aContextThatWasNeverAttachedIsFoundByItsHandshake(void **state) {
    (void)state;
    SSL_CTX *first = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    SSL_CTX *second = testServerCtx(pki->renewed_leaf, pki->leaf_key, pki->ca);
    ocspInstallCallback(second);
    assert_false(stapledBoth(second));
    ocspCron();
    testWaitFor(stapled(second, tls13));
    assert_true(stapled(first, tls13));
    ocspCron(); /* the late handshake on the old one must not bring it back */
    assert_string_not_equal(text("cert_serial"), "0ABC");
    SSL_CTX_free(first);
    SSL_CTX_free(second);
}

/* It was attached in its time, and another one has come after it. */
static void aLateHandshakeOfAReplacedContextChangesNothing(void **state) {
    (void)state;
    SSL_CTX *old = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    char serial[OCSP_OUTSIDE_TEXT_MAX + 1], which[sizeof(serial)];
    snprintf(serial, sizeof(serial), "%s", text("cert_serial"));
    SSL_CTX *renewed = reload(pki->renewed_leaf, pki->leaf_key, pki->ca);
    testWaitFor(strcmp(text("cert_serial"), serial) && !strcmp(text("state"), "good"));
    snprintf(which, sizeof(which), "%s", text("cert_serial"));
    assert_true(stapledBoth(old));
    ocspCron();
    assert_int_equal(request(), 1); /* when it is answered, the thread has taken what the tick may have attached */
    testWaitFor(atomic_load(&done_good) + atomic_load(&done_bad) == 1);
    assert_string_equal(text("cert_serial"), which);
    SSL_CTX_free(old);
    SSL_CTX_free(renewed);
}

static void acceptance20_leavingOpenSslAtExitDoesNotWaitForTheNetwork(void **state) {
    (void)state;
    atomic_store(&responder.hold, 1);
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(askedTimes() == 1);
    ocspAtExit(); /* the fetch hangs on */
    ocspAtExit();
    assert_int_equal(atomic_load(&responder.cancelled), 0);
    SSL_CTX_free(ctx);
}

#ifdef __linux__
/* Before libc's: pipes that the engine asks for. */
static atomic_int pipes_made, pipe_flags;
int pipe2(int fds[2], int flags) {
    atomic_store(&pipe_flags, flags);
    atomic_fetch_add(&pipes_made, 1);
    return (int)syscall(SYS_pipe2, fds, flags);
}

/* A program that the server starts (a script, a crash handler) must not inherit the wake pipe, not even one that another
 * thread starts while the pipe is being made: so the flags come with it. */
static void theWakePipeIsNotInherited(void **state) {
    (void)state;
    char was_open[256];
    for (int fd = 0; fd < 256; fd++) was_open[fd] = fcntl(fd, F_GETFD) >= 0;
    atomic_store(&pipes_made, 0);
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    assert_int_equal(atomic_load(&pipes_made), 1);
    assert_int_equal(atomic_load(&pipe_flags), O_CLOEXEC | O_NONBLOCK);
    int ends = 0;
    for (int fd = 0; fd < 256; fd++) {
        struct stat st;
        if (was_open[fd] || fstat(fd, &st) != 0 || !S_ISFIFO(st.st_mode)) continue;
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        ends++;
    }
    assert_int_equal(ends, 2);
    SSL_CTX_free(ctx);
}
#endif

/* BGSAVE: a child of the server exits while the parent's thread works. */
static void acceptance20_aForkedChildExitsAlone(void **state) {
    (void)state;
    SSL_CTX *ctx = reloadLeaf();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good"));
    atomic_store(&responder.hold, 1);
    assert_int_equal(request(), 1);
    testWaitFor(askedTimes() == 2);
    pid_t child = fork();
    if (child == 0) {
        ocspAtExit();
        _exit(7);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    atomic_store(&responder.hold, 0);
    testWaitFor(atomic_load(&done_good) == 1);
    SSL_CTX_free(ctx);
}

/* ---- the big ones ------------------------------------------------------------------------------------------------ */

#define SHAKERS 4
static struct {
    pthread_mutex_t lock; /* guards ctx */
    SSL_CTX *ctx;
    atomic_long left, failed, bare, wrong, done;
} storm = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *shake(void *arg) {
    SSL_CTX *clients[] = {tls12, tls13, tls12_rsa, tls13_rsa};
    int which = (int)(intptr_t)arg;
    while (atomic_fetch_sub(&storm.left, 1) > 0) {
        pthread_mutex_lock(&storm.lock);
        SSL_CTX *ctx = storm.ctx;
        SSL_CTX_up_ref(ctx);
        pthread_mutex_unlock(&storm.lock);
        testShake s = testHandshake(ctx, clients[which++ % 4], 1);
        if (!s.ok)
            atomic_fetch_add(&storm.failed, 1);
        else if (!s.got_staple)
            atomic_fetch_add(&storm.bare, 1);
        else if (!testJudge(s.staple.p, s.staple.n, s.peer, pki->ca, wallNow()))
            atomic_fetch_add(&storm.wrong, 1);
        atomic_fetch_add(&storm.done, 1);
        testShakeFree(&s);
        SSL_CTX_free(ctx);
    }
    return NULL;
}

static void startStorm(pthread_t *threads, SSL_CTX *ctx, long handshakes) {
    storm.ctx = ctx;
    atomic_store(&storm.left, handshakes);
    storm.failed = storm.bare = storm.wrong = storm.done = 0;
    for (int i = 0; i < SHAKERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, shake, (void *)(intptr_t)i), 0);
    }
}

static void endStorm(pthread_t *threads, long handshakes) {
    for (int i = 0; i < SHAKERS; i++) pthread_join(threads[i], NULL);
    if (handshakes >= 0) assert_int_equal(atomic_load(&storm.done), handshakes);
    assert_int_equal(atomic_load(&storm.failed), 0);
    assert_int_equal(atomic_load(&storm.bare), 0);
    assert_int_equal(atomic_load(&storm.wrong), 0);
}

/* 10,000 handshakes on 4 threads while responses are published every millisecond: none fails, none is without a whole,
 * verifiable staple. OCSP_TEST_HANDSHAKES scales it. */
static void tenThousandHandshakesWhileResponsesArePublishedEveryMillisecond(void **state) {
    (void)state;
    long handshakes = testEnvNumber("OCSP_TEST_HANDSHAKES", 10000);
    pthread_t threads[SHAKERS];
    SSL_CTX *ctx = twoCertificates();
    responder.ticks = TEST_NOW - 20 * TEST_DAY; /* every answer is news */
    responder.life = 100 * TEST_DAY;
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good") && info("alt_state") && !strcmp(text("alt_state"), "good"));
    long long stapled_before = number("handshakes_stapled"), unstapled_before = number("handshakes_unstapled");
    long long refreshes = number("refreshes");
    startStorm(threads, ctx, handshakes);
    while (atomic_load(&storm.done) < handshakes) {
        assert_int_equal(request(), 1);
        ocspCron();
        testSleepMs(1);
    }
    endStorm(threads, handshakes);
    assert_int_equal(number("handshakes_stapled") - stapled_before, handshakes);
    assert_int_equal(number("handshakes_unstapled"), unstapled_before);
    assert_true(number("refreshes") - refreshes > handshakes / 100); /* it was published all the while */
    assert_int_equal(number("refresh_failures"), 0);
    print_message("%ld handshakes, %lld responses published meanwhile\n", handshakes, number("refreshes") - refreshes);
    SSL_CTX_free(ctx);
}

static void acceptance17_reloadedAThousandTimesUnderHandshakes(void **state) {
    (void)state;
    long reloads = testEnvNumber("OCSP_TEST_RELOADS", 1000);
    pthread_t threads[SHAKERS];
    SSL_CTX *ctx = twoCertificates();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good") && info("alt_state") && !strcmp(text("alt_state"), "good"));
    startStorm(threads, ctx, 1000000000);
    for (long i = 0; i < reloads; i++) {
        SSL_CTX *next = twoCertificates();
        pthread_mutex_lock(&storm.lock);
        storm.ctx = next;
        pthread_mutex_unlock(&storm.lock);
        SSL_CTX_free(ctx);
        ctx = next;
        ocspCron();
        if (i % 20 == 0) testSleepMs(1);
    }
    testWaitFor(atomic_load(&storm.done) > 100);
    atomic_store(&storm.left, 0);
    for (int i = 0; i < SHAKERS; i++) pthread_join(threads[i], NULL);
    endStorm(threads, -1);
    SSL_CTX_free(ctx);
}

static void acceptance18_offAndOnUnderHandshakes(void **state) {
    (void)state;
    pthread_t threads[SHAKERS];
    SSL_CTX *ctx = twoCertificates();
    ocspCron();
    testWaitFor(!strcmp(text("state"), "good") && info("alt_state") && !strcmp(text("alt_state"), "good"));
    startStorm(threads, ctx, 1000000000);
    for (int i = 0; i < 200; i++) {
        options.stapling = i % 2;
        setOptions();
        testSleepMs(1);
    }
    testWaitFor(atomic_load(&storm.done) > 100);
    atomic_store(&storm.left, 0);
    for (int i = 0; i < SHAKERS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&storm.failed), 0);
    assert_int_equal(atomic_load(&storm.wrong), 0); /* bare ones are what "off" means */
    assert_true(stapledBoth(ctx));
    SSL_CTX_free(ctx);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static int setUp(void **state) {
    (void)state;
    pki = testGetPki();
    real_world = ocsp_env;
    tls12 = testClientCtx(TLS1_2_VERSION, 0);
    tls13 = testClientCtx(TLS1_3_VERSION, 0);
    tls12_rsa = testClientCtx(TLS1_2_VERSION, 1);
    tls13_rsa = testClientCtx(TLS1_3_VERSION, 1);
    return 0;
}

static int tearDown(void **state) {
    (void)state;
    SSL_CTX_free(tls12);
    SSL_CTX_free(tls13);
    SSL_CTX_free(tls12_rsa);
    SSL_CTX_free(tls13_rsa);
    return 0;
}

int main(void) {
#define simulated(test) cmocka_unit_test_setup_teardown(test, begin, end)
#define threaded(test) cmocka_unit_test_setup_teardown(test, beginThreads, end)
    const struct CMUnitTest tests[] = {
        simulated(fetchedVerifiedAndStapledInBothVersions),
        simulated(aClientThatDoesNotAskGetsNothingAndIsNotCounted),
        simulated(acceptance21_onAClientTheCallbackAcceptsAndDoesNothing),
        simulated(acceptance2_noTls),
        simulated(acceptance2_noCertificate),
        simulated(acceptance2_selfSigned),
        simulated(acceptance2_noIssuer),
        simulated(acceptance2_noResponder),
        simulated(acceptance2_issuerFromTheTrustedStore),
        simulated(acceptance4_theSecondUrlWhenTheFirstIsDead),
        simulated(acceptance4_allUrlsDeadIsOneFailureThatNamesEach),
        simulated(acceptance4_theSecondUrlWhenTheFirstLies),
        simulated(acceptance5_responderUrlOverridesAndIsTakenBack),
        simulated(acceptance5_responderUrlServesACertificateWithoutOne),
        simulated(acceptance7_refusedAnswersLeaveWhatIsHeld),
        simulated(acceptance10_twentySecondsTenPercent),
        simulated(acceptance10_twentySecondsFiftyPercent),
        simulated(acceptance10_anHour),
        simulated(acceptance10_aResponderThatBackdatesDoesNotMakeUsSpin),
        simulated(acceptance13_theSameResponseAgainAndAgain),
        simulated(acceptance15_theSameFromTheDiskIsNoAnswerOfTheResponder),
        simulated(withoutNextUpdateAskedAgainAtHalfOfTenMinutes),
        simulated(acceptance11_fiveFailuresWaitAsThePolicySaysAndRecoveryResets),
        simulated(aRecoveryForgetsTheFailures),
        simulated(acceptance11_withNothingHeldAtMostFiveMinutesForEver),
        simulated(acceptance11_mustStapleRetriesWithinAMinuteAndWarns),
        simulated(acceptance11_retriesGrowDenserTowardsTheEnd),
        simulated(acceptance12_expiresToTheSecondWhileTheResponderIsDown),
        simulated(acceptance12_halfOfTheWindowGoneIsAWarningOnce),
        simulated(theCertificatesOwnEndEndsTheStaple),
        simulated(acceptance14_wallClockForwardByADay),
        simulated(acceptance14_wallClockForwardWhileWaitingForARetry),
        simulated(acceptance14_wallClockBackByADay),
        simulated(acceptance14_backByADayWhileTheResponderFails),
        simulated(acceptance14_backByADayWithARevokedOne),
        simulated(acceptance14_backByADayWithoutNextUpdate),
        simulated(revokedReplacesGoodAtOnceAndIsAskedForHourly),
        simulated(theSameRevokedResponseIsAskedForHourly),
        simulated(goodOfTheSameSecondDoesNotReplaceRevoked),
        simulated(acceptance15_restartWithTheResponderDown),
        simulated(acceptance16_whatTheDiskHoldsIsVerifiedAgain),
        simulated(acceptance16_aFullDiskOnlyWarns),
        simulated(acceptance16_aDiskThatHasRoomAgainGetsWhatIsHeld),
        simulated(acceptance16_oldFilesAreLookedForAtMostHourly),
        simulated(acceptance16_tenRenewedCertificatesInARow),
        simulated(acceptance16_aRevocationThatTheDiskRefusesIsNotUndoneByARestart),
        simulated(acceptance16_whatIsContradictedIsRemovedBeforeItsSuccessorIsWritten),
        simulated(acceptance16_whatCannotBeRemovedIsToldOnceAndTriedAgain),
        simulated(acceptance16_itIsRemovedAlsoWhileStaplingIsOff),
        simulated(acceptance16_whatMayBeGoodAfterARestartIsRemovedToo),
        simulated(acceptance16_aLiftedHoldThatTheDiskRefusesIsNoRevocationAfterARestart),
        simulated(acceptance16_anOlderGoodResponseInADirectoryThatWasLeft),
        simulated(acceptance24_aSuppliedRevocationOutlivesWhatWasKept),
        simulated(acceptance16_anotherServersNewerResponseIsTakenAndNotOverwritten),
        simulated(acceptance16_aCopyOfAFileDoesNotBeginTheTenMinutesAnew),
        simulated(acceptance16_whatWasJustReceivedIsStapledAfterARestart),
        simulated(acceptance17_theSameCertificateKeepsItsStaple),
        simulated(acceptance17_aReloadAsksAtOnce),
        simulated(acceptance17_reloadsDoNotBeatTheFloorOfASecond),
        simulated(acceptance17_aRenewedCertificateGetsItsOwnNeverTheOldOnes),
        simulated(acceptance17_nobodyAsksForAReplacedCertificate),
        simulated(acceptance17_aForeignCertificateNeverGetsAStaple),
        simulated(acceptance17_aFetchForTheOldCertificateIsCancelled),
        simulated(acceptance17_aFetchGoesOnWhenTheReloadBroughtTheSame),
        simulated(anExpectedContextIsAskedForBeforeItCameAndThenNotAgain),
        simulated(anExpectedContextThatComesDuringTheFetchOrAfterAFailureSpursNothing),
        simulated(anotherContextThanTheExpectedGetsItsOwn),
        simulated(anExpectedContextIsStapledFromTheDisk),
        simulated(anExpectedContextThatIsTakenBackIsAskedForNoMore),
        simulated(moreReloadsThanAreFollowed),
        simulated(theFirstResponseIsStoredBeforeTheSecondIsAskedFor),
        simulated(acceptance23_rsaAndEcdsaInOneContext),
        simulated(acceptance23_renewalsOfOneCertificateLeaveTheOthersStaple),
        simulated(acceptance23_theSameForTheOtherOne),
        simulated(acceptance23_aCertificateThatReturnsKeepsItsStaple),
        simulated(acceptance18_offStopsWithTheNextHandshakeAndOnStartsFromWhatIsHeld),
        simulated(acceptance18_onWithNothingHeldAsksAtOnce),
        simulated(offAtStartAsksNobody),
        simulated(acceptance18_aWiderMarginIsHeededAtOnce),
        simulated(acceptance18_aShorterRetryDelayIsHeededAtOnce),
        simulated(certIdsWithoutSha1AreANoticeOnce),
        simulated(certIdsWithSha1AreNoNotice),
        simulated(aSuppliedFileWithoutSha1CertIdsIsANotice),
        simulated(acceptance24_suppliedFile),
        simulated(acceptance24_suppliedFileBadExpiredRemoved),
        simulated(acceptance24_swappedBySymbolicLink),
        simulated(aStapleThatTheClientsTlsCannotTakeIsLeftOut),
        simulated(outOfMemoryIsSurvived),
        threaded(threadFetchesAndStaples),
        threaded(acceptance15_tickReadsTheDiskBeforeTheFirstAccept),
        threaded(acceptance19_manyRequestsDuringOneFetchAreOne),
        threaded(acceptance19_ifThatOneFailsOneMoreFollowsAtOnce),
        threaded(acceptance19_theSameAnswerAgainIsNoFailure),
        threaded(acceptance19_refusedWithAReason),
        threaded(requestsAreAnsweredWhenStaplingIsTurnedOffOrTheEngineEnds),
        threaded(aContextThatWasNeverAttachedIsFoundByItsHandshake),
        threaded(aLateHandshakeOfAReplacedContextChangesNothing),
        threaded(acceptance20_leavingOpenSslAtExitDoesNotWaitForTheNetwork),
#ifdef __linux__
        threaded(theWakePipeIsNotInherited),
#endif
        threaded(acceptance20_aForkedChildExitsAlone),
        threaded(tenThousandHandshakesWhileResponsesArePublishedEveryMillisecond),
        threaded(acceptance17_reloadedAThousandTimesUnderHandshakes),
        threaded(acceptance18_offAndOnUnderHandshakes),
    };
    return cmocka_run_group_tests_name("engine", tests, setUp, tearDown);
}
