/* sim_run.c - runs a world in virtual time: the machine's clocks, the network, a server process that is started and
 * killed, and an operator. There is one thread: the engine's own is never created (the linker wraps pthread_create),
 * and the simulation calls ocspThreadStep itself when something is due.
 *
 * SKIPPED STEPS. The engine's thread wakes up each second. In a year, 31 million of these steps do nothing. Therefore
 * the simulation advances to the next relevant time: a deadline in the engine's report, a check of the model, the wait
 * that a step returned, or the next event. At random times it runs SIM_DENSE_STEPS steps of one second, which verifies
 * that the skipped steps do nothing.
 *
 * A process is killed by a longjmp out of the engine, from any place; ocspShutdown frees its memory.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "sim.h"
#include "ocsp_late.h"
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>

#define SIM_RESPONSE_FILE "./staple.der"
#define SIM_OPERATORS_URL "http://operator.invalid/ocsp"
#define SIM_DENSE_STEPS 200

typedef struct simAction {
    int64_t at;
    const simEvent *event;
    int ends;
} simAction;

static struct {
    const simWorld *world;
    simOutcome *outcome;
    int trace;
    struct {
        simRng rng;
        int64_t at; /* true time for which rng was seeded */
    } rng[2];       /* the world's, the engine's */
    /* Time: `now` is true milliseconds since the world began. The wall clock showed wall_base at wall_base_true, and
     * drifts by `drift` ppm since then. */
    int64_t now, wall_base_true, wall_base, drift, slept;
    simAction actions[2 * SIM_MAX_EVENTS];
    int action_count, next_action;
    /* The process. */
    int threaded;  /* its thread was created */
    int up, dying; /* dying: 1 killed, 2 by a power failure */
    int64_t start_at;
    const ocspIoHooks *fetching; /* the hooks of the fetch under way, else NULL */
    jmp_buf dies, broken;
    /* What the process serves. */
    int served[2], previous[2], count, chainless;
    int cas[SIM_MAX_DEPTH + 1]; /* certificates of the intermediate CAs, by level */
    int root;                   /* the `a` of the last SIM_ROOT */
    int cross;                  /* of the new root by the old one, -1: none */
    SSL_CTX *ctx;
    SSL *ssl[2];
    int ssl_serves[2];
    ocspOptions options;
    int file_depth, off_depth, url_depth, cache_off_depth, moved_depth, chain_flips;
    int requested, answered;
    int pushed, verified; /* responses of the operator */
    int dense;
    char last_line[600];
} sim;

int64_t sim_trace_from;
static ocspEnv real_env;
static int have_real_env;
static int locks_held;
static intptr_t process; /* counts the processes of all worlds */

/* ---- queries ----------------------------------------------------------------------------------------------------- */

int64_t simTrueMs(void) {
    return sim.now;
}

int64_t simWallMs(void) {
    return sim.wall_base + (sim.now - sim.wall_base_true) + (sim.now - sim.wall_base_true) * sim.drift / 1000000;
}

int64_t simMonoMs(void) {
    return sim.now + 5 * SIM_MINUTE - sim.slept;
}

int64_t simTrueOfWall(int64_t wall_ms) {
    int64_t left = wall_ms - sim.wall_base, at;

    if (wall_ms <= simWallMs()) return sim.now;
    at = sim.wall_base_true + left * 1000000 / (1000000 + sim.drift) - 2;
    while (sim.wall_base + (at - sim.wall_base_true) + (at - sim.wall_base_true) * sim.drift / 1000000 < wall_ms) at++;
    return at;
}

int64_t simCaTime(void) {
    return (int64_t)(SIM_EPOCH + sim.now / 1000);
}

/* Returns a generator that is seeded anew for each millisecond. Random numbers depend on the world and the time only,
 * so that a history with fewer events proceeds like the whole one, where possible. */
static simRng *simRngOf(int which) {
    if (sim.rng[which].at != sim.now) {
        uint64_t seed[4] = {sim.world->number, sim.world->salt, (uint64_t)sim.now, (uint64_t)which};
        sim.rng[which].at = sim.now;
        sim.rng[which].rng.state = simHash(seed, sizeof(seed), 4);
    }
    return &sim.rng[which].rng;
}

simRng *simWorldRng(void) {
    return simRngOf(0);
}

const simWorld *simThisWorld(void) {
    return sim.world;
}

void simCountRefresh(void) {
    sim.outcome->refreshes++;
}

int simPushPending(void) {
    return sim.verified != sim.pushed;
}

int simRefreshPending(void) {
    return sim.answered != sim.requested;
}

int simActive(simKind kind) {
    int i;

    for (i = 0; i < sim.world->event_count && sim.world->events[i].at <= sim.now; i++) {
        const simEvent *e = &sim.world->events[i];
        if (e->kind == kind && !e->off && sim.now < e->at + e->duration) return 1;
    }
    return 0;
}

static const char *simNowText(void) {
    static char text[64];

    snprintf(text, sizeof(text), "%5lldd %02lld:%02lld:%02lld.%03lld", (long long)(sim.now / SIM_DAY),
             (long long)(sim.now / SIM_HOUR % 24), (long long)(sim.now / SIM_MINUTE % 60),
             (long long)(sim.now / SIM_SECOND % 60), (long long)(sim.now % 1000));
    return text;
}

void simTrace(const char *fmt, ...) {
    va_list ap;

    if (!sim.trace || sim.now < sim_trace_from) return;
    printf("  %s  ", simNowText());
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void simBroken(const char *promise, const char *fmt, ...) {
    simOutcome *o = sim.outcome;
    va_list ap;

    o->broken = 1;
    o->at = sim.now;
    snprintf(o->promise, sizeof(o->promise), "%s", promise);
    va_start(ap, fmt);
    vsnprintf(o->text, sizeof(o->text), fmt, ap);
    va_end(ap);
    simTrace("BROKEN %s: %s", promise, o->text);
    longjmp(sim.broken, 1);
}

void simKilled(void) {
    simTrace("the process is killed during a disk operation");
    sim.dying = 1;
    longjmp(sim.dies, 1);
}

/* ---- the engine's environment ------------------------------------------------------------------------------------ */

static uint32_t simEngineRandom(void) {
    return (uint32_t)(simRandom(simRngOf(1)) >> 32);
}

static simCert *simCertOf(const ocspIdentity *id) {
    int i;

    for (i = simCaCertCount() - 1; i >= 0; i--)
        if (memcmp(simCaCert(i)->sha256, id->sha256, 32) == 0) return simCaCert(i);
    return NULL;
}

static int simCacheLoad(const char *dir,
                        const ocspIdentity *id,
                        unsigned char **der,
                        size_t *len,
                        int64_t *mtime,
                        ocspError *err) {
    int found = real_env.cache_load(dir, id, der, len, mtime, err);

    simTrace("cache in %s read: %s", dir, found ? "found" : "nothing");
    simModelFileRead(dir, found ? *der : NULL, found ? *len : 0, found ? *mtime : 0, simCertOf(id));
    return found;
}

/* With a chain each of its certificates has a response file: the number of those before it is appended to the name. */
static const char *simResponseFile(int depth) {
    static char path[40];

    snprintf(path, sizeof(path), depth ? SIM_RESPONSE_FILE ".%d" : SIM_RESPONSE_FILE, depth);
    return path;
}

static int simReadResponseFile(const char *path,
                               size_t max,
                               unsigned char **der,
                               size_t *len,
                               int64_t *mtime,
                               ocspError *err) {
    int found = real_env.read_file(path, max, der, len, mtime, err), depth = 0;
    simCert *cert;

    while (depth < SIM_MAX_LEVELS && strcmp(path, simResponseFile(depth)) != 0) depth++;
    cert = simModelTrackedCert(depth);
    simTrace("%s read: %s", path, found ? "found" : "nothing");
    simRequire(cert, "early", "%s is read, which is for no certificate", path);
    simModelFileRead(NULL, found ? *der : NULL, found ? *len : 0, found ? *mtime : 0, cert);
    return found;
}

static int simCacheStore(const char *dir,
                         const ocspIdentity *id,
                         const unsigned char *der,
                         size_t len,
                         ocspError *err) {
    int temporaries = simDiskTemporaries(), ok;

    ok = real_env.cache_store(dir, id, der, len, err);
    simTrace("stored: %s", ok ? "ok" : err->text);
    simRequire(simDiskTemporaries() <= temporaries, "disk", "a completed store left a temporary file");
    simModelStored(simCertOf(id), ok);
    return ok;
}

/* ---- the network ------------------------------------------------------------------------------------------------- */

static int simAdvanceTo(int64_t until);

static const simEvent *simFaultOf(int url, int level) {
    const simEvent *found = NULL;
    int i;

    for (i = 0; i < sim.world->event_count && sim.world->events[i].at <= sim.now; i++) {
        const simEvent *e = &sim.world->events[i];
        if (simIsFault(e->kind) && !e->off && sim.now < e->at + e->duration && (e->b >> url & 1) &&
            (level < 0 || simMeans(e, level)))
            found = e;
    }
    return found;
}

int simHasFault(void) {
    int i;

    for (i = 0; i < sim.world->urls || i == 0; i++)
        if (simFaultOf(i, -1)) return 1;
    return 0;
}

static ocspFetchResult simFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err) {
    simCert *cert = simCaCertOfRequest(exchange->request, exchange->request_len);
    const char *url = exchange->url;
    const int64_t timeout_ms = exchange->timeout_ms;
    int is_operators = strcmp(url, SIM_OPERATORS_URL) == 0;
    int number = is_operators ? 0 : url[11] - '0';
    int last = is_operators || number == cert->urls - 1, fails = 0;
    const simEvent *fault;
    const simAnswer *answer;
    simKind kind;
    int64_t takes = simLogBetween(simWorldRng(), 1, (int64_t)sim.world->latency * 2);

    *body = NULL;
    *body_len = 0;
    sim.fetching = exchange->io;
    simModelRequestSent(cert, is_operators ? 0 : number);
    fault = simFaultOf(number, cert->level);
    kind = fault ? fault->kind : SIM_KINDS;
    if (kind == SIM_HANG) takes = timeout_ms;
    if (kind == SIM_SLOW) takes = fault->a;
    if (kind == SIM_DOWN) fails = 1;
    if (kind == SIM_HTTP) fails = 2;
    if (kind == SIM_FLAKY && simBetween(simWorldRng(), 1, 100) <= fault->a) fails = 1;
    if (takes >= timeout_ms) {
        takes = timeout_ms;
        fails = 1;
    }
    if (simAdvanceTo(sim.now + takes)) {
        simTrace("fetch cancelled");
        simModelCancelled(cert);
        sim.fetching = NULL;
        return OCSP_FETCH_CANCELLED;
    }
    if (fails) {
        simTrace("request to %s for certificate %d: %s", url, cert->index, simKindName(kind));
        simModelAnswerReceived(cert, NULL, fails == 1 ? OCSP_ERR_NETWORK : OCSP_ERR_HTTP, last);
        ocspFail(err, fails == 1 ? OCSP_FAIL_CONNECT : OCSP_FAIL_HTTP_STATUS, "%s", simKindName(kind));
        sim.fetching = NULL;
        return OCSP_FETCH_FAILED;
    }
    answer = simCaAnswer(cert, fault, 0);
    simTrace(
        "request to %s for certificate %d: %s; status %d, thisUpdate %+lld s, nextUpdate %+lld s by the wall clock",
        url, cert->index, answer->description, answer->status, (long long)(answer->this_update - simWallMs() / 1000),
        (long long)(answer->next_update - simWallMs() / 1000));
    simModelAnswerReceived(cert, answer, OCSP_ERR_NONE, last);
    if (answer->len) *body = ocspMemdup(answer->der, answer->len);
    *body_len = answer->len;
    sim.fetching = NULL;
    return OCSP_FETCH_OK;
}

/* ---- the process ------------------------------------------------------------------------------------------------- */

static void simLog(ocspLogLevel level, const char *sentence) {
    simTrace("log %d: %s", (int)level, sentence);
    if (level < OCSP_LOG_NOTICE) return;
    simRequire(strncmp(sim.last_line, sentence, sizeof(sim.last_line) - 1) != 0, "log",
               "line logged twice in a row: %s", sentence);
    snprintf(sim.last_line, sizeof(sim.last_line), "%s", sentence);
}

static const ocspHost host = {.log = simLog, .alloc = malloc, .free = free, .answered = ocspWaitAnswered};

static void simDropContext(void) {
    int i;

    for (i = 0; i < 2; i++) SSL_free(sim.ssl[i]);
    SSL_CTX_free(sim.ctx);
    sim.ctx = NULL;
    sim.ssl[0] = sim.ssl[1] = NULL;
}

/* What the last 16 contexts serve, because a context may be attached after it was replaced. */
static struct {
    const SSL_CTX *ctx;
    simServed served;
} contexts[16];
static unsigned contexts_made, context_attached; /* number of the newest, and of the one attached last */

/* Reports each attached context to the model. */
int __real_ocspAttachContext(SSL_CTX *ctx);
int __wrap_ocspAttachContext(SSL_CTX *ctx);
int __wrap_ocspAttachContext(SSL_CTX *ctx) {
    unsigned i, n = sizeof(contexts) / sizeof(contexts[0]);

    for (i = 1; i <= n && i <= contexts_made; i++) /* the newest first: a freed context's address may be reused */
        if (contexts[(contexts_made - i) % n].ctx == ctx) break;
    if (i <= n && i <= contexts_made) {
        context_attached = contexts_made - i + 1;
        simModelAttach(&contexts[(contexts_made - i) % n].served);
    }
    return __real_ocspAttachContext(ctx);
}

static void simAddIssuer(simServed *served, int ca, int cert, int64_t ends) {
    served->issuers[served->issuer_count].cert = cert;
    served->issuers[served->issuer_count].ca = ca;
    served->issuers[served->issuer_count++].ends = ends;
}

static size_t simEntryBytes(X509 *cert) {
    return (size_t)i2d_X509(cert, NULL) + OCSP_ENTRY_OVERHEAD;
}

/* Lists the certificates of CAs that tls-cert-file has (`certs`, without the root) and those that are trusted (`trusted`),
 * and fills `served` accordingly. */
static void simListChain(simServed *served, X509 *certs[], int *count, X509 *trusted[], int *trusted_count) {
    int depth = sim.world->chain.depth, root = sim.root ? SIM_NEW_ROOT : SIM_ROOT_CA, level;

    *count = *trusted_count = 0;
    for (level = 1; level <= depth + (sim.cross >= 0); level++) {
        simCert *c = simCaCert(level <= depth ? sim.cas[level] : sim.cross);
        int ca = level <= depth ? level : SIM_NEW_ROOT;
        int sent = level <= depth ? level <= sim.world->chain.sent : sim.world->chain.sent == depth;
        if (sent && sim.chainless) continue;
        simAddIssuer(served, ca, c->index, c->not_after);
        if (sent) {
            served->cas[served->ca_count++] = c->index;
            served->chain_bytes += simEntryBytes(c->leaf);
            certs[(*count)++] = simCaParsed(c); /* another object than in the last context */
        } else {
            trusted[(*trusted_count)++] = simCaParsed(c);
        }
    }
    if (!sim.chainless && (!depth || sim.world->chain.root_sent)) {
        simAddIssuer(served, root, -1, INT64_C(7000000000));
        served->chain_bytes += simEntryBytes(simCaRoot(root));
        certs[(*count)++] = simCaRoot(root);
    }
    if (!depth || !sim.world->chain.root_trusted) return;
    simAddIssuer(served, SIM_ROOT_CA, -1, INT64_C(7000000000));
    trusted[(*trusted_count)++] = simCaRoot(SIM_ROOT_CA);
    if (!sim.root) return;
    simAddIssuer(served, SIM_NEW_ROOT, -1, INT64_C(7000000000));
    trusted[(*trusted_count)++] = simCaRoot(SIM_NEW_ROOT);
}

/* Creates the context for the served certificates, as a TLS configuration does; `late`: without attaching it. */
static void simLoadContext(int late) {
    X509 *leaf, *chain[SIM_MAX_LEVELS + 1], *trusted[SIM_MAX_LEVELS + 2];
    simServed served = {.count = sim.count};
    int i, j, count, trusted_count;

    simDropContext();
    sim.ctx = SSL_CTX_new(TLS_server_method());
    simListChain(&served, chain, &count, trusted, &trusted_count);
    if (trusted_count) {
        X509_STORE *store = X509_STORE_new();
        for (i = 0; i < trusted_count; i++)
            if (!store || X509_STORE_add_cert(store, trusted[i]) != 1) abort();
        SSL_CTX_set_cert_store(sim.ctx, store);
    }
    for (i = 0; i < sim.count; i++) {
        leaf = simCaParsed(simCaCert(sim.served[i])); /* another object than in the last context */
        if (!leaf || SSL_CTX_use_certificate(sim.ctx, leaf) != 1 ||
            SSL_CTX_use_PrivateKey(sim.ctx, simCaCert(sim.served[i])->key) != 1)
            abort();
        for (j = 0; j < count; j++) SSL_CTX_add1_chain_cert(sim.ctx, chain[j]);
        served.leaves[i] = sim.served[i];
    }
    i = (int)(contexts_made++ % (sizeof(contexts) / sizeof(contexts[0])));
    contexts[i].ctx = sim.ctx;
    contexts[i].served = served;
    ocspInstallCallbackAs(sim.ctx, OCSP_CONTEXT_OF_SERVER);
    if (!late) ocspLateAttach(sim.ctx);
    for (i = 0; i < sim.count; i++) {
        sim.ssl[i] = SSL_new(sim.ctx);
        SSL_set_accept_state(sim.ssl[i]);
        SSL_set_current_cert(sim.ssl[i], SSL_CERT_SET_FIRST);
        if (i) SSL_set_current_cert(sim.ssl[i], SSL_CERT_SET_NEXT);
        /* OpenSSL orders the certificates by type */
        leaf = SSL_get_certificate(sim.ssl[i]);
        sim.ssl_serves[i] = sim.served[X509_cmp(leaf, simCaCert(sim.served[i])->leaf) == 0 ? i : 1 - i];
    }
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

static simSent sent; /* by the handshake under way */
static long long chain_handshakes;

long long simChainHandshakes(void) {
    return chain_handshakes;
}

static int simChainSupported(void) {
    return sim.world->chain.supported;
}

static void simFreeResponse(void *response) {
    OCSP_RESPONSE_free(response);
}

/* Takes the responses of a chain, as OpenSSL does from 3.6 on. */
long __real_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer) {
    int i;

    if (command != 143) return __real_SSL_ctrl(ssl, command, number, pointer);
    sent.chain = 1;
    sent.count = OPENSSL_sk_num(pointer);
    simRequire(sent.count <= OCSP_MAX_CHAIN, "staple", "responses for %d certificates are stapled", sent.count);
    for (i = 0; i < sent.count; i++) {
        OCSP_RESPONSE *response = OPENSSL_sk_value(pointer, i);
        int n = response ? i2d_OCSP_RESPONSE(response, &sent.response[i].der) : 0;
        sent.response[i].len = n > 0 ? (size_t)n : 0;
    }
    OPENSSL_sk_pop_free(pointer, simFreeResponse);
    chain_handshakes++;
    return 1;
}

/* Checks what a handshake would staple for each certificate, by calling the real callback. */
static void simCheckStaples(void) {
    int i, j;

    for (i = 0; sim.up && i < sim.count; i++) {
        const unsigned char *der = NULL;
        int (*callback)(SSL *, void *) = NULL;
        long n;
        SSL_set_tlsext_status_ocsp_resp(sim.ssl[i], NULL, 0);
        for (j = 0; j < OCSP_MAX_CHAIN; j++) OPENSSL_free(sent.response[j].der);
        memset(&sent, 0, sizeof(sent));
        SSL_CTX_get_tlsext_status_cb(sim.ctx, &callback);
        callback(sim.ssl[i], NULL);
        n = SSL_get_tlsext_status_ocsp_resp(sim.ssl[i], &der);
        if (n > 0) {
            simRequire(!sent.chain, "staple", "the leaf's response is stapled alone and with those of its chain");
            sent.response[0].der = OPENSSL_memdup(der, (size_t)n);
            sent.response[0].len = (size_t)n;
            sent.count = 1;
        }
        sim.outcome->handshakes++;
        simModelCheckHandshake(simCaCert(sim.ssl_serves[i]), &sent);
    }
}

static void simStart(void) {
    simTrace("the server starts");
    sim.outcome->starts++;
    process++;
    sim.last_line[0] = '\0';
    sim.requested = sim.answered = sim.pushed = sim.verified = 0;
    simModelStart();
    sim.up = 1;
    if (!ocspInit(&host) || !ocspLateInit(NULL) || !ocspSetOptions(&sim.options)) abort();
    simModelOptions(&sim.options);
    simLoadContext(0);
    if (sim.options.stapling) simModelStepBegins();
    ocspLateCron();
    simModelFirstHandshake();
    simCheckStaples();
}

static void simStop(void) {
    simModelEnd(sim.dying == 2);
    locks_held = 0; /* the killed process may have held locks */
    ocspLateShutdown();
    ocspShutdown();
    simDropContext();
    simDiskCloseAll();
    sim.up = sim.threaded = 0;
    sim.fetching = NULL;
}

/* ---- the operator and other events ------------------------------------------------------------------------------- */

static void simApplyOptions(void) {
    if (!sim.up) return;
    if (!ocspSetOptions(&sim.options)) abort();
    simModelOptions(&sim.options);
}

/* A process that was killed with a request in hand leaves its waiter behind: `arg` is the number of the process. */
static int simIsStale(const void *arg) {
    return (intptr_t)arg != process;
}

static void simRefreshDone(void *arg, const char *error) {
    if (simIsStale(arg)) return;
    sim.answered++;
    simTrace("requested refresh: %s", error ? error : "OK");
}

static void simRefresh(void) {
    char why[OCSP_SENTENCE_MAX];

    if (!sim.up) return;
    if (ocspRequestRefreshThen(simRefreshDone, (void *)process, why, sizeof(why))) {
        sim.requested++;
        simModelRefreshRequested();
    } else {
        simTrace("refresh request refused: %s", why);
    }
}

static void simPushDone(void *arg, const char *error) {
    if (simIsStale(arg)) return;
    sim.verified++;
    simTrace("pushed response: %s", error ? error : "OK");
}

/* Returns the served certificate that an event is about: the CA of the first of its levels, or else a leaf. */
static simCert *simAimedAt(const simEvent *e, int leaf) {
    int level;

    for (level = 1; level <= sim.world->chain.depth; level++)
        if (!(e->levels & 1) && (e->levels >> level & 1)) return simCaCert(sim.cas[level]);
    return simCaCert(sim.served[leaf]);
}

static void simPush(const simEvent *e) {
    int what = (int)e->a;
    static const simKind faults[] = {SIM_KINDS,        SIM_OLDER,     SIM_EXPIRED,        SIM_OTHER_SERIAL,
                                     SIM_SAME_NAME_CA, SIM_TRUNCATED, SIM_SIGNER_FOREIGN, SIM_KINDS};
    simEvent fault = {.kind = faults[what], .at = sim.now, .a = e->b};
    char why[OCSP_SENTENCE_MAX], *text;
    const simAnswer *a;
    int n;

    if (!sim.up) return;
    /* One SingleResponse only: the others in an answer may be about the other certificate in service, which would get it. */
    a = simCaAnswer(simAimedAt(e, (int)simBetween(simWorldRng(), 0, sim.count - 1)), what ? &fault : NULL, 1);
    text = malloc(a->len * 2 + 4);
    if (!text) abort();
    n = EVP_EncodeBlock((unsigned char *)text, a->der, (int)a->len);
    if (ocspSetThen(text, (size_t)n, simPushDone, (void *)process, why, sizeof(why)))
        sim.pushed++;
    else
        simTrace("pushed response refused: %s", why);
    free(text);
}

/* Reports each pushed response to the model at the moment that the engine verifies it. */
void __real_ocspServePush(ocspCertSet *set,
                          const ocspOptions *options,
                          const ocspEnv *env,
                          const ocspPush *push,
                          ocspPushOutcome *outcome);
void __wrap_ocspServePush(ocspCertSet *set,
                          const ocspOptions *options,
                          const ocspEnv *env,
                          const ocspPush *push,
                          ocspPushOutcome *outcome);
void __wrap_ocspServePush(ocspCertSet *set,
                          const ocspOptions *options,
                          const ocspEnv *env,
                          const ocspPush *push,
                          ocspPushOutcome *outcome) {
    sim.last_line[0] = '\0'; /* the next refusal may have the same reason */
    simModelPushed(simCaFind(push->der, push->len));
    __real_ocspServePush(set, options, env, push, outcome);
}

static int simIssueLeaf(int validity, int urls, int second, int self_signed) {
    return simCaIssue(&(simRequest){.validity = validity,
                                    .must_staple = sim.world->must_staple,
                                    .urls = urls,
                                    .second = second,
                                    .self_signed = self_signed,
                                    .issuer = sim.world->chain.depth ? 1 : SIM_ROOT_CA})
        ->index;
}

/* Issues the certificate of a CA: of level 1 to the chain's depth, or the new root's. */
static int simIssueCa(int level, int subject, int issuer) {
    return simCaIssue(&(simRequest){.validity = sim.world->chain.validity,
                                    .must_staple = sim.world->must_staple,
                                    .urls = sim.world->chain.urls[level],
                                    .level = level,
                                    .subject = subject,
                                    .issuer = issuer})
        ->index;
}

static void simRenewCa(int level) {
    int top = level == sim.world->chain.depth;

    if (level < 1 || level > sim.world->chain.depth || simCaCertCount() + 1 > SIM_MAX_CERTS) return;
    sim.cas[level] = simIssueCa(level, level, !top ? level + 1 : sim.root ? SIM_NEW_ROOT : SIM_ROOT_CA);
}

static void simReplaceRoot(int root) {
    int depth = sim.world->chain.depth;

    if (!depth || simCaCertCount() + 2 > SIM_MAX_CERTS) return;
    sim.root = root;
    simRenewCa(depth);
    sim.cross = root == 2 ? simIssueCa(depth + 1, SIM_NEW_ROOT, SIM_ROOT_CA) : -1;
}

static void simRenew(int validity, int self_signed, int urls) {
    int i;

    if (simCaCertCount() + 2 > SIM_MAX_CERTS) return;
    memcpy(sim.previous, sim.served, sizeof(sim.previous));
    for (i = 0; i < sim.count; i++) sim.served[i] = simIssueLeaf(validity, urls, i, self_signed);
}

static void simTamper(const simEvent *e) {
    const simCert *cert = simAimedAt(e, 0);
    simKind kind = e->kind;
    const unsigned char *bytes;
    unsigned char copy[8192];
    char path[160];
    size_t len;
    int64_t mtime;
    const simAnswer *old;

    if (!*sim.options.cache_dir) return;
    snprintf(path, sizeof(path), "%s/%s", sim.options.cache_dir, cert->file);
    if (kind == SIM_DISK_RESTORED) {
        old = simCaEarlier(cert->index, (int)e->a);
        if (old) simDiskWrite(path, old->der, old->len);
        simModelTampered(path);
        return;
    }
    if (!simDiskRead(path, &bytes, &len, &mtime) || len < 2 || len > sizeof(copy)) return;
    memcpy(copy, bytes, len);
    if (kind == SIM_DISK_FLIPPED)
        copy[simBetween(simWorldRng(), 0, (int64_t)len - 1)] ^= 1 << simBetween(simWorldRng(), 0, 7);
    if (kind == SIM_DISK_TRUNCATED) len = (size_t)simBetween(simWorldRng(), 0, (int64_t)len - 1);
    if (kind == SIM_DISK_DELETED)
        simDiskRemove(path);
    else
        simDiskWrite(path, copy, len);
    simModelTampered(path);
}

static int64_t simNextActionAt(void) {
    return sim.next_action < sim.action_count ? sim.actions[sim.next_action].at : SIM_NEVER;
}

static void simWriteResponseFile(int what, int depth, const simCert *cert) {
    simEvent bad = {.kind = what == 0   ? SIM_GARBAGE
                            : what == 1 ? SIM_EXPIRED
                            : what == 2 ? SIM_OTHER_SERIAL
                                        : SIM_TRUNCATED};
    const simAnswer *a;

    if (what == 3) {
        simDiskRemove(simResponseFile(depth));
        return;
    }
    a = simCaAnswer(cert, what < 0 ? NULL : &bad, 1);
    simDiskWrite(simResponseFile(depth), a->der, a->len);
}

static void simWriteResponseFiles(int what, int levels) {
    int level;

    if (!levels || (levels & 1)) simWriteResponseFile(what, 0, simCaCert(sim.served[0]));
    for (level = 1; level <= sim.world->chain.depth; level++)
        if (levels >> level & 1) simWriteResponseFile(what, level, simCaCert(sim.cas[level]));
}

static void simSetWall(int64_t wall_ms) {
    if (wall_ms < SIM_EPOCH * 500) wall_ms = SIM_EPOCH * 500; /* no earlier than 2000 */
    sim.wall_base_true = sim.now;
    sim.wall_base = wall_ms;
}

static void simKillProcess(int how, int64_t away) {
    sim.dying = how;
    sim.start_at = sim.now + away;
    longjmp(sim.dies, 1);
}

/* Applies the begin or end of an event. Does not return if the event kills the process. */
static void simApplyEvent(const simEvent *e, int ends) {
    if (!simIsFault(e->kind) || sim.trace) simTrace("%s%s", simKindName(e->kind), ends ? ", over" : "");
    /* After an operator's action the same line may be logged again; after a clock jump a response may expire again. */
    if (e->kind >= SIM_RELOAD || e->kind == SIM_JUMP) sim.last_line[0] = '\0';
    switch (e->kind) {
    case SIM_NEW_SIGNER:
        if (!ends) simCaReplaceSigner((int)e->a);
        break;
    case SIM_JUMP:
    case SIM_DRIFT:
        simSetWall(ends ? SIM_EPOCH * 1000 + sim.now : simWallMs() + (e->kind == SIM_JUMP ? e->a : 0));
        if (ends || e->kind == SIM_DRIFT) sim.drift = ends ? 0 : e->a;
        break;
    case SIM_DISK_FLIPPED:
    case SIM_DISK_TRUNCATED:
    case SIM_DISK_DELETED:
    case SIM_DISK_RESTORED: simTamper(e); break;
    case SIM_RESTART:
    case SIM_KILL:
    case SIM_POWER:
        if (!ends && sim.up) simKillProcess(e->kind == SIM_POWER ? 2 : 1, e->duration);
        break;
    case SIM_NO_THREAD:
        if (!ends && sim.up) simKillProcess(1, 100);
        break;
    case SIM_KILL_IN_WRITE:
        if (!ends && sim.up) simDiskKillAt((int)e->a);
        sim.start_at = 0;
        break;
    case SIM_RELOAD:
    case SIM_RELOAD_LATE:
        if (sim.up) simLoadContext(e->kind == SIM_RELOAD_LATE);
        break;
    case SIM_RENEW:
        simRenew((int)e->a, 0, sim.world->urls);
        if (sim.up) simLoadContext((int)e->b);
        break;
    case SIM_ROLLBACK: {
        int swap[2] = {sim.served[0], sim.served[1]};
        memcpy(sim.served, sim.previous, sizeof(swap));
        memcpy(sim.previous, swap, sizeof(swap));
        if (sim.up) simLoadContext(0); /* the end of the event swaps back */
        break;
    }
    case SIM_SELF_SIGNED:
    case SIM_NO_URLS:
        simRenew(sim.world->cert_validity, !ends && e->kind == SIM_SELF_SIGNED,
                 ends || e->kind == SIM_SELF_SIGNED ? sim.world->urls : 0);
        if (sim.up) simLoadContext(0);
        break;
    case SIM_CHAIN:
        sim.chain_flips += ends ? -1 : 1;
        sim.options.staple_chain = sim.world->options.staple_chain ^ (sim.chain_flips & 1);
        simApplyOptions();
        break;
    case SIM_CA_RENEW:
    case SIM_ROOT:
        if (e->kind == SIM_ROOT)
            simReplaceRoot((int)e->a);
        else
            simRenewCa((int)e->a);
        if (sim.up) simLoadContext(0);
        break;
    case SIM_NO_ISSUER:
        sim.chainless += ends ? -1 : 1;
        if (sim.up) simLoadContext(0);
        break;
    case SIM_SLEEP: {
        int64_t until = sim.now + e->a;
        if (until > simNextActionAt()) until = simNextActionAt();
        if (until > sim.world->end_at) until = sim.world->end_at;
        sim.slept += until - sim.now;
        sim.now = until;
        break;
    }
    case SIM_STAPLING_OFF:
        sim.off_depth += ends ? -1 : 1;
        sim.options.stapling = sim.off_depth == 0;
        simApplyOptions();
        break;
    case SIM_MARGIN:
        sim.options.refresh_margin = (int)e->a;
        simApplyOptions();
        break;
    case SIM_MAX_INTERVAL:
        sim.options.max_interval = (int)e->a;
        simApplyOptions();
        break;
    case SIM_RETRY_DELAY:
        sim.options.retry_delay = (int)e->a;
        simApplyOptions();
        break;
    case SIM_TIMEOUT:
        sim.options.timeout = (int)e->a;
        simApplyOptions();
        break;
    case SIM_URL:
        sim.url_depth += ends ? -1 : 1;
        sim.options.responder_url = sim.url_depth ? SIM_OPERATORS_URL : "";
        simApplyOptions();
        break;
    case SIM_CACHE_OFF:
    case SIM_CACHE_MOVED:
        *(e->kind == SIM_CACHE_OFF ? &sim.cache_off_depth : &sim.moved_depth) += ends ? -1 : 1;
        sim.options.cache_dir = sim.cache_off_depth ? "" : sim.moved_depth ? "other" : sim.world->options.cache_dir;
        simApplyOptions();
        break;
    case SIM_FILE:
        if (sim.world->two_certs) break; /* the model could not tell for which certificate the file is read */
        sim.file_depth += ends ? -1 : 1;
        sim.options.response_file = sim.file_depth ? SIM_RESPONSE_FILE : "";
        if (!ends) simWriteResponseFiles(-1, e->levels);
        simApplyOptions();
        break;
    case SIM_FILE_UPDATED: simWriteResponseFiles(-1, e->levels); break;
    case SIM_FILE_BAD: simWriteResponseFiles((int)e->a, e->levels); break;
    case SIM_REFRESH: simRefresh(); break;
    case SIM_PUSH: simPush(e); break;
    default: break;
    }
}

static int simByTime(const void *x, const void *y) {
    const simAction *a = x, *b = y;

    if (a->at != b->at) return a->at < b->at ? -1 : 1;
    return a->event != b->event ? (a->event < b->event ? -1 : 1) : a->ends - b->ends;
}

static void simListActions(void) {
    int i;

    sim.action_count = sim.next_action = 0;
    for (i = 0; i < sim.world->event_count; i++) {
        const simEvent *e = &sim.world->events[i];
        if (e->off) continue;
        sim.actions[sim.action_count++] = (simAction){e->at, e, 0};
        if (e->duration) sim.actions[sim.action_count++] = (simAction){e->at + e->duration, e, 1};
    }
    qsort(sim.actions, (size_t)sim.action_count, sizeof(sim.actions[0]), simByTime);
}

/* Advances the time and applies the events on the way. Returns 1 if the fetch under way is cancelled. */
static int simAdvanceTo(int64_t until) {
    const ocspIoHooks *wait = sim.fetching;
    int64_t slept = sim.slept;

    if (until > sim.world->end_at) until = sim.world->end_at;
    while (simNextActionAt() <= until) {
        const simAction *action = &sim.actions[sim.next_action++];
        if (action->at > sim.now) {
            sim.now = action->at;
            simCheckStaples();
        }
        simApplyEvent(action->event, action->ends);
        simModelDisturbed(action->event->kind == SIM_JUMP || action->event->kind == SIM_DRIFT ||
                          action->event->kind == SIM_SLEEP);
        simCheckStaples();
        until += sim.slept - slept; /* a wait by the monotonic clock is longer by the sleep */
        if (until > sim.world->end_at) until = sim.world->end_at;
        slept = sim.slept;
        if (wait && wait->cancelled()) return 1;
    }
    if (until > sim.now) sim.now = until;
    simCheckStaples();
    return 0;
}

/* ---- the run ----------------------------------------------------------------------------------------------------- */

/* Runs steps of the engine's thread until nothing is due. Returns how long the thread would wait, in milliseconds. */
static int64_t simSteps(void) {
    int64_t began = sim.now, wait;
    int idle = 0;

    for (;;) {
        if (sim.now != began) idle = 0;
        began = sim.now;
        ocspLateCron();
        simModelStepBegins();
        wait = ocspThreadStep();
        sim.outcome->steps++;
        simRequire(locks_held == 0, "lock", "%d mutexes are held after a step", locks_held);
        simCheckStaples();
        if (wait != 0 || sim.now >= sim.world->end_at) return wait;
        if (sim.outcome->steps > sim.world->max_steps) return 1000;
        simRequire(++idle < 50, "spin", "fifty steps without a wait");
    }
}

/* Checks that the context in service is followed, at its second handshake at the latest: the first may find another queued
 * that has been replaced since. */
static void simAdoptLate(void) {
    ocspLateCron();
    if (!sim.options.stapling || context_attached == contexts_made) return;
    simCheckStaples();
    ocspLateCron();
    simRequire(context_attached == contexts_made, "adopt",
               "the TLS context in service is not followed after a handshake");
}

static void simRunProcess(void) {
    while (sim.now < sim.world->end_at) {
        int64_t wait, next;
        simAdoptLate();
        if (!sim.threaded && sim.options.stapling) { /* the main thread tries each second to create one */
            next = simNextActionAt() < sim.now + 1000 ? simNextActionAt() : sim.now + 1000;
            simAdvanceTo(next);
            continue;
        }
        wait = simSteps();
        if (sim.now >= sim.world->end_at) return;
        if (sim.outcome->steps > sim.world->max_steps) {
            sim.now = sim.world->end_at;
            return;
        }
        simModelIdle();
        if (sim.options.stapling)
            simRequire(sim.answered == sim.requested, "late", "nothing is due, but %d refresh requests have no reply",
                       sim.requested - sim.answered);
        next = wait < 0 ? SIM_NEVER : wait < 1000 ? sim.now + wait : simModelNextCheck();
        if (wait > 0 && sim.dense > 0) {
            sim.dense--;
            if (next > sim.now + 1000) next = sim.now + 1000;
        } else if (simOneIn(simWorldRng(), 5000)) {
            sim.dense = SIM_DENSE_STEPS;
        }
        if (simModelNextCheck() < next) next = simModelNextCheck();
        if (simNextActionAt() < next) next = simNextActionAt();
        if (next <= sim.now) next = sim.now + 1;
        simAdvanceTo(next);
    }
}

static void simBegin(const simWorld *world, int trace, simOutcome *outcome) {
    int i;

    if (!have_real_env) {
        real_env = ocsp_env;
        have_real_env = 1;
    }
    memset(&sim, 0, sizeof(sim));
    memset(outcome, 0, sizeof(*outcome));
    sim.world = world;
    sim.outcome = outcome;
    sim.trace = trace;
    sim.rng[0].at = sim.rng[1].at = -1;
    sim.wall_base = SIM_EPOCH * 1000;
    sim.options = world->options;
    ocsp_env.wall_ms = simWallMs;
    ocsp_env.mono_ms = simMonoMs;
    ocsp_env.random = simEngineRandom;
    ocsp_env.fetch = simFetch;
    ocsp_env.cache_load = simCacheLoad;
    ocsp_env.cache_store = simCacheStore;
    ocsp_env.read_file = simReadResponseFile;
    ocsp_env.chain_supported = simChainSupported;
    simCaBegin();
    simCaReplaceSigner(world->signer_validity);
    simDiskBegin();
    simModelBegin();
    simListActions();
    sim.count = world->two_certs ? 2 : 1;
    for (i = 0; i < sim.count; i++) sim.served[i] = simIssueLeaf(world->cert_validity, world->urls, i, 0);
    sim.cross = -1;
    for (i = 1; i <= world->chain.depth; i++) simRenewCa(i);
    memcpy(sim.previous, sim.served, sizeof(sim.previous));
}

void simSelfWorld(const simWorld *world) {
    static simOutcome outcome;

    simBegin(world, 0, &outcome);
}

void simRun(const simWorld *world, int trace, simOutcome *outcome) {
    simBegin(world, trace, outcome);
    if (setjmp(sim.broken) == 0) {
        while (sim.now < world->end_at) {
            if (setjmp(sim.dies) == 0) {
                if (!sim.up) {
                    simAdvanceTo(sim.start_at);
                    if (sim.now >= world->end_at) break;
                    simStart();
                }
                simRunProcess();
            } else {
                simStop();
                simDiskKillAt(0);
                if (sim.start_at <= sim.now) sim.start_at = sim.now + 100;
                if (sim.dying == 2) {
                    simDiskPowerFailure();
                    simModelPowerFailure();
                }
            }
        }
    }
    outcome->simulated_ms = sim.now;
    outcome->answers = simCaCount();
    if (sim.up) simStop();
    simDiskEnd();
    simCaEnd();
    ERR_clear_error();
}

/* ---- wrapped functions of libc: no thread is created, so locks are counted only ---------------------------------- */

int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attr, void *(*run)(void *), void *arg);
int __wrap_pthread_join(pthread_t which, void **result);

int __wrap_pthread_create(pthread_t *made, const pthread_attr_t *attr, void *(*run)(void *), void *arg) {
    (void)attr;
    (void)run;
    (void)arg;
    if (simActive(SIM_NO_THREAD)) return EAGAIN;
    *made = pthread_self();
    sim.threaded = 1;
    return 0;
}

int __wrap_pthread_join(pthread_t which, void **result) {
    (void)which;
    (void)result;
    return 0;
}

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex);
int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex);

int __wrap_pthread_mutex_lock(pthread_mutex_t *mutex) {
    (void)mutex;
    locks_held++;
    return 0;
}

int __wrap_pthread_mutex_trylock(pthread_mutex_t *mutex) {
    return __wrap_pthread_mutex_lock(mutex);
}

int __wrap_pthread_mutex_unlock(pthread_mutex_t *mutex) {
    (void)mutex;
    locks_held--;
    return 0;
}
