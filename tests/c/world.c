/* world.c - see world.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const testPki *pki;
ocspEnv real_env;
SSL_CTX *tls12, *tls13, *tls12_rsa, *tls13_rsa;
ocspOptions options;
char *dir;
worldResponder responder;
worldDisk disk;

/* ---- the host: log and INFO -------------------------------------------------------------------------------------- */

#define MAX_LINES 4000
static struct {
    pthread_mutex_t lock;
    int count;
    char *line[MAX_LINES];
    ocspLogLevel level[MAX_LINES];
} logged = {.lock = PTHREAD_MUTEX_INITIALIZER};

void worldLog(ocspLogLevel level, const char *sentence) {
    pthread_mutex_lock(&logged.lock);
    if (logged.count < MAX_LINES) {
        logged.level[logged.count] = level;
        logged.line[logged.count++] = strdup(sentence);
    }
    pthread_mutex_unlock(&logged.lock);
}

int logLines(ocspLogLevel level, const char *part) {
    int n = 0;
    pthread_mutex_lock(&logged.lock);
    for (int i = 0; i < logged.count; i++) n += logged.level[i] >= level && (!part || strstr(logged.line[i], part));
    pthread_mutex_unlock(&logged.lock);
    return n;
}

/* Every line about a certificate begins with "certificate SERIAL: ". */
static void assertLogForm(void) {
    static const char begin[] = "certificate ";
    for (int i = 0; i < logged.count; i++) {
        const char *serial = logged.line[i] + sizeof(begin) - 1;
        if (strncmp(logged.line[i], begin, sizeof(begin) - 1) != 0) continue;
        size_t n = strspn(serial, "0123456789ABCDEF");
        if (n == 0 || strncmp(serial + n, ": ", 2) != 0) fail_msg("logged: %s", logged.line[i]);
    }
}

void forgetLog(void) {
    pthread_mutex_lock(&logged.lock);
    for (int i = 0; i < logged.count; i++) free(logged.line[i]);
    logged.count = 0;
    pthread_mutex_unlock(&logged.lock);
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

static const field *findField(const char *name) {
    static const ocspInfoSink sink = {textField, numberField, NULL};
    field_count = 0;
    ocspInfoState(&sink);
    ocspInfoCounters(&sink);
    for (int i = 0; i < field_count; i++) {
        if (!strcmp(fields[i].name, name)) return &fields[i];
    }
    return NULL;
}

static const field *getField(const char *name) {
    const field *f = findField(name);
    if (!f) fail_msg("INFO has no field %s", name);
    return f;
}

int infoHas(const char *name) {
    return findField(name) != NULL;
}

long long infoNumber(const char *name) {
    return getField(name)->number;
}

const char *infoText(const char *name) {
    return getField(name)->text;
}

void assertState(const char *state) {
    assert_string_equal(infoText("state"), state);
}

/* ---- time -------------------------------------------------------------------------------------------------------- */

static _Atomic int64_t wall_ms, mono_ms;

static int64_t wallMs(void) {
    return atomic_load(&wall_ms);
}

int64_t monoMs(void) {
    return atomic_load(&mono_ms);
}

time_t wallNow(void) {
    return (time_t)(wallMs() / 1000);
}

void advance(int64_t ms) {
    atomic_fetch_add(&wall_ms, ms);
    atomic_fetch_add(&mono_ms, ms);
}

void setWallClock(int64_t ms) {
    atomic_store(&wall_ms, ms);
}

void moveWallClock(int64_t ms) {
    atomic_fetch_add(&wall_ms, ms);
}

void runUntilIdle(void) {
    for (int i = 0; i < 50; i++) {
        int64_t wait = ocspThreadStep();
        if (wait != 0) return;
    }
    fail_msg("the worker spins: fifty steps without a wait");
}

void runFor(int64_t ms) {
    int64_t until = monoMs() + ms;
    int idle = 0;
    for (;;) {
        int64_t wait = ocspThreadStep();
        int64_t left = until - monoMs();
        idle = wait == 0 ? idle + 1 : 0;
        if (idle > 50) fail_msg("the worker spins: fifty steps without a wait");
        if (left <= 0) return;
        if (wait < 0 || wait > left) wait = left;
        advance(wait);
    }
}

/* ---- the responder ----------------------------------------------------------------------------------------------- */

static X509 *requestedLeaf(const unsigned char *der, size_t n) {
    X509 *known[] = {pki->leaf, pki->rsa_leaf, pki->must_leaf, pki->quiet_leaf, pki->renewed_leaf};
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &der, (long)n);
    OCSP_CERTID *id = request ? OCSP_onereq_get0_id(OCSP_request_onereq_get0(request, 0)) : NULL;
    X509 *found = NULL;
    for (int i = 0; i < 5 && id && !found; i++) {
        OCSP_CERTID *expected = OCSP_cert_to_id(NULL, known[i], pki->ca);
        if (OCSP_id_cmp(expected, id) == 0) found = known[i];
        OCSP_CERTID_free(expected);
    }
    OCSP_REQUEST_free(request);
    return found;
}

/* The same among responder.known. */
static worldKnown *requestedKnown(const unsigned char *der, size_t n) {
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &der, (long)n);
    OCSP_CERTID *id = request ? OCSP_onereq_get0_id(OCSP_request_onereq_get0(request, 0)) : NULL;
    worldKnown *found = NULL;
    for (worldKnown *one = responder.known; id && one->cert && !found; one++) {
        OCSP_CERTID *expected = OCSP_cert_to_id(NULL, one->cert, one->issuer);
        if (OCSP_id_cmp(expected, id) == 0) found = one;
        OCSP_CERTID_free(expected);
    }
    OCSP_REQUEST_free(request);
    return found;
}

static testReply replyFor(X509 *leaf, const char *url) {
    testReply reply = testGoodReply(leaf);
    testSingle *single = &reply.singles[0];
    single->this_update = responder.this_update ? (time_t)responder.this_update : wallNow() - responder.backdate;
    if (responder.next_this_update) single->this_update = (time_t)atomic_fetch_add(&responder.next_this_update, 1);
    single->next_update = responder.no_next_update ? 0 : single->this_update + responder.validity;
    if (responder.revoked) single->status = TEST_REVOKED;
    if (responder.unknown) single->status = TEST_UNKNOWN;
    single->md = responder.md;
    reply.status = responder.response_status;
    if (responder.wrong_signer || (responder.wrong_signer_url && !strcmp(url, responder.wrong_signer_url))) {
        reply.signer = pki->twin;
        reply.key = pki->twin_key;
    }
    return reply;
}

static void noteRequest(const char *url) {
    int n = atomic_load(&responder.requests);
    if (n < MAX_REQUESTS) {
        responder.at_mono[n] = monoMs();
        responder.at_wall[n] = wallMs();
        snprintf(responder.url[n], sizeof(responder.url[n]), "%s", url);
    }
    atomic_fetch_add(&responder.requests, 1);
}

/* As a fetch whose connection hangs. */
static void waitWhileHanging(const ocspIoHooks *io) {
    while (atomic_load(&responder.hang)) {
        struct pollfd wake = {io->wake_fd, POLLIN, 0};
        io->leave_openssl();
        poll(&wake, 1, 5);
        io->enter_openssl();
        if (wake.revents && io->cancelled()) break;
    }
}

static ocspFetchResult fakeFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err) {
    const ocspIoHooks *io = exchange->io;
    int disturbed = responder.during_fetch != NULL;
    *body = NULL;
    *body_len = 0;
    noteRequest(exchange->url);
    if (responder.during_fetch) responder.during_fetch(io);
    waitWhileHanging(io);
    if (io->cancelled && (atomic_load(&responder.hang) || disturbed) && io->cancelled()) {
        atomic_fetch_add(&responder.cancelled, 1);
        return OCSP_FETCH_CANCELLED;
    }
    if (responder.down || (responder.dead_url && !strcmp(exchange->url, responder.dead_url))) {
        ocspFail(err, OCSP_FAIL_CONNECT, "the test's responder is down");
        return OCSP_FETCH_FAILED;
    }
    if (responder.http_status) {
        ocspFail(err, OCSP_FAIL_HTTP_STATUS, "HTTP status %d", (int)responder.http_status);
        return OCSP_FETCH_FAILED;
    }
    worldKnown *known = requestedKnown(exchange->request, exchange->request_len);
    X509 *leaf = known ? known->cert : requestedLeaf(exchange->request, exchange->request_len);
    if (known) known->requests++;
    if (!leaf || (known && known->down)) {
        ocspFail(err, OCSP_FAIL_CONNECT, "the test's responder does not know this certificate");
        return OCSP_FETCH_FAILED;
    }
    testReply reply = replyFor(leaf, exchange->url);
    if (known) {
        reply.singles[0].issuer = reply.signer = known->issuer;
        reply.key = known->issuer_key;
        reply.padding = known->padding;
        if (known->revoked) reply.singles[0].status = TEST_REVOKED;
    }
    testBytes der = testReplyDer(&reply);
    *body = ocspMemdup(der.p, der.n);
    *body_len = *body ? der.n : 0;
    testBytesFree(&der);
    if (*body) return OCSP_FETCH_OK;
    ocspFail(err, OCSP_FAIL_MEMORY, "out of memory");
    return OCSP_FETCH_FAILED;
}

int requestCount(void) {
    return atomic_load(&responder.requests);
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static int fakeStore(const char *in_dir, const ocspIdentity *id, const unsigned char *der, size_t n, ocspError *err) {
    char path[300];
    atomic_fetch_add(&disk.writes, 1);
    snprintf(path, sizeof(path), "%s/ocsp-%s.der", in_dir, id->sha256_hex);
    disk.file_was_there = access(path, F_OK) == 0;
    if (disk.full) return ocspFail(err, OCSP_FAIL_FILE, "the test's disk is full");
    return real_env.cache_store(in_dir, id, der, n, err);
}

static void fakePrune(const char *in_dir, int64_t now, const ocspIoHooks *io) {
    disk.prunes++;
    real_env.cache_prune(in_dir, now, io);
}

/* ---- fixtures ---------------------------------------------------------------------------------------------------- */

void worldOpen(void) {
    pki = testGetPki();
    real_env = ocsp_env;
    tls12 = testClientCtx(TLS1_2_VERSION, 0);
    tls13 = testClientCtx(TLS1_3_VERSION, 0);
    tls12_rsa = testClientCtx(TLS1_2_VERSION, 1);
    tls13_rsa = testClientCtx(TLS1_3_VERSION, 1);
}

void worldClose(void) {
    SSL_CTX_free(tls12);
    SSL_CTX_free(tls13);
    SSL_CTX_free(tls12_rsa);
    SSL_CTX_free(tls13_rsa);
}

void (*world_answered)(ocspAnswerKind kind, unsigned number, const char *error);

static void answered(ocspAnswerKind kind, unsigned number, const char *error) {
    ocspWaitAnswered(kind, number, error);
    if (world_answered) world_answered(kind, number, error);
}

static const ocspHost host = {.log = worldLog,
                              .alloc = malloc,
                              .free = free,
                              .answered = answered,
                              .directive_prefix = "host-"};

void worldStart(void) {
    assert_int_equal(ocspInit(&host), 1);
    assert_int_equal(ocspLateInit(NULL), 1);
}

void worldSetUp(void) {
    ocsp_env = real_env;
    ocsp_env.wall_ms = wallMs;
    ocsp_env.mono_ms = monoMs;
    ocsp_env.random = testRandom;
    ocsp_env.fetch = fakeFetch;
    ocsp_env.cache_store = fakeStore;
    ocsp_env.cache_prune = fakePrune;
    atomic_store(&wall_ms, (int64_t)TEST_NOW * 1000);
    atomic_store(&mono_ms, 5000000);
    memset((void *)&responder, 0, sizeof(responder));
    memset((void *)&disk, 0, sizeof(disk));
    responder.validity = TEST_DAY;
    forgetLog();
    dir = testDir();
    options = (ocspOptions)OCSP_OPTIONS_DEFAULT;
    options.stapling = 1;
    options.cache_dir = "";
    worldStart();
    applyOptions();
}

void worldTearDown(void) {
    atomic_store(&responder.hang, 0);
    ocspLateShutdown();
    ocspShutdown();
    testDirFree(dir);
    assertLogForm();
    forgetLog();
    ocsp_env = real_env;
}

void applyOptions(void) {
    assert_int_equal(ocspSetOptions(&options), 1);
}

void restartEngine(void) {
    ocspLateShutdown();
    ocspShutdown();
    assertLogForm();
    forgetLog();
    worldStart();
    applyOptions();
}

/* ---- server contexts and handshakes ------------------------------------------------------------------------------ */

SSL_CTX *loadContext(X509 *leaf, EVP_PKEY *key, X509 *chain) {
    X509 *again = X509_new();
    unsigned char *der = NULL;
    int n = i2d_X509(leaf, &der);
    const unsigned char *p = der;
    assert_non_null(d2i_X509(&again, &p, n));
    SSL_CTX *ctx = testServerCtx(again, key, chain);
    OPENSSL_free(der);
    X509_free(again);
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
    ocspLateAttach(ctx);
    return ctx;
}

SSL_CTX *loadLeaf(void) {
    return loadContext(pki->leaf, pki->leaf_key, pki->ca);
}

SSL_CTX *loadTwoCertificates(void) {
    SSL_CTX *ctx = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    testServerAdd(ctx, pki->rsa_leaf, pki->rsa_leaf_key, pki->ca);
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
    ocspLateAttach(ctx);
    return ctx;
}

int isStapledTo(SSL_CTX *server, SSL_CTX *client) {
    testShake shake = testHandshake(server, client, 1);
    assert_true(shake.ok);
    assert_non_null(shake.peer);
    int got = shake.got_staple;
    if (got) assert_true(testJudge(shake.staple.p, shake.staple.n, shake.peer, pki->ca, wallNow()));
    testShakeFree(&shake);
    return got;
}

int isStapled(SSL_CTX *server) {
    int with12 = isStapledTo(server, tls12), with13 = isStapledTo(server, tls13);
    assert_int_equal(with12, with13);
    return with12;
}
