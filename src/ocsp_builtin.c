/* ocsp_builtin.c - OCSP stapling compiled into the server: connects the engine (ocsp.h) to Valkey.
 *
 * DESIGN: The engine is started when stapling or verify-peers is first turned on. Before that there is no thread, no
 * callback on a context and no timer, and the call that tls.c makes for each context in service only records that there
 * is one. If stapling is turned on while a context without a callback is in service, TLS is reconfigured, like CONFIG
 * SET tls-cert-file does, and the new context gets the callback: setting one on a context in use would race with the
 * handshakes of I/O threads.
 *
 * A timer on the main thread calls ocspCron once a second. It is created with the engine, so it costs nothing while
 * stapling was never on.
 *
 * Where stapling is not possible (the server is built without TLS, with TLS as a module, or with OpenSSL before 3.0)
 * the directives exist all the same, and `tls-ocsp-stapling yes` is refused with an error that says what is missing.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "server.h"
#include "ocsp_builtin.h"

#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
#include "ocsp.h"
#define OCSP_BUILTIN OCSP_SUPPORTED
#else
#define OCSP_BUILTIN 0
#endif

struct ocspConfig ocsp_config;

configEnum ocsp_verify_peers_enum[] = {{"no", 0}, {"soft", 1}, {"require", 2}, {NULL, 0}}; /* as ocspVerifyPeers */

#if OCSP_BUILTIN

#include "threads_mngr.h"
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define OCSP_LOG_LINE_MAX 4096 /* serverLog cuts at 1024 bytes; a failed refresh names every URL that was tried */
#define OCSP_TICK_MS 1000

/* Main thread only, unless stated otherwise. */
static int running;              /* the engine was initialized */
static int started;              /* ocspBuiltinStart was called: the server is about to accept connections */
static int served;               /* a context was put into service ... */
static int ctx_without_callback; /* ... and has no callback, because the engine did not run yet */
static int in_info;              /* the engine is reporting fields for INFO */
static pthread_t thread;         /* written by the OCSP thread before `has_thread`, read in a crash report */
static _Atomic int has_thread;

/* ---- the engine's host ------------------------------------------------------------------------------------------- */

static void builtinLog(ocspLogLevel level, const char *sentence) {
    static const int levels[] = {
        [OCSP_LOG_DEBUG] = LL_DEBUG,
        [OCSP_LOG_VERBOSE] = LL_VERBOSE,
        [OCSP_LOG_NOTICE] = LL_NOTICE,
        [OCSP_LOG_WARNING] = LL_WARNING,
    };
    char line[OCSP_LOG_LINE_MAX];

    snprintf(line, sizeof(line), "OCSP stapling: %s", sentence);
    serverLogRaw(levels[level], line);
}

static void *builtinAlloc(size_t size) {
    return ztrymalloc(size);
}

static void builtinFree(void *ptr) {
    zfree(ptr);
}

/* Sets up the OCSP thread like bio.c's threads. OCSP thread. The engine has blocked all signals except those of a
 * crash; crash reports signal each thread that does not block THREADS_SIGNAL for its stack. */
static void builtinThreadStarted(void) {
    sigset_t set;

    valkey_set_thread_title(OCSP_THREAD_NAME);
    serverSetCpuAffinity(server.bio_cpulist);
    makeThreadKillable();
    sigemptyset(&set);
    sigaddset(&set, THREADS_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    thread = pthread_self();
    /* release: pairs with the acquire in ocspBuiltinKillThread */
    atomic_store_explicit(&has_thread, 1, memory_order_release);
}

/* Terminates the OCSP thread before the memory test of a crash report, like bioKillThreads. Any thread. The OCSP thread
 * may hold locks then; only the engine's exit handler still takes one of them, and waits a second at most. */
void ocspBuiltinKillThread(void) {
    int err;

    if (!atomic_load_explicit(&has_thread, memory_order_acquire) || pthread_equal(thread, pthread_self())) return;
    if (pthread_cancel(thread) != 0) return;
    if ((err = pthread_join(thread, NULL)) != 0)
        serverLog(LL_WARNING, "OCSP stapling: the thread cannot be joined: %s", strerror(err));
    else
        serverLog(LL_WARNING, "OCSP stapling: the thread was terminated");
}

/* ---- start ------------------------------------------------------------------------------------------------------- */

static int setOptions(void) {
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    const char *why;

    options.stapling = ocsp_config.stapling;
    options.max_interval = ocsp_config.max_interval;
    options.retry_delay = ocsp_config.retry_delay;
    options.timeout = ocsp_config.timeout;
    options.responder_url = ocsp_config.responder_url;
    options.cache_dir = ocsp_config.cache_dir;
    options.response_file = ocsp_config.response_file;
    options.verify_peers = ocsp_config.verify_peers;
    options.issuer_file = ocsp_config.issuer_file;
    options.proxy = ocsp_config.proxy;
    options.staple_chain = ocsp_config.staple_chain;
    ocspParseRefreshMargin(ocsp_config.refresh_margin, &options.refresh_margin, &why); /* validated when set */
    return ocspSetOptions(&options);
}

/* Timer functions return int in Valkey 8.0, long long in later releases. */
typedef __typeof__(((aeTimeProc *)NULL)(NULL, 0, NULL)) tickResult;

static tickResult tick(struct aeEventLoop *el, long long id, void *data) {
    UNUSED(el);
    UNUSED(id);
    UNUSED(data);
    ocspCron();
    return OCSP_TICK_MS;
}

static int wanted(void) {
    return ocsp_config.stapling || ocsp_config.verify_peers != OCSP_PEERS_NO;
}

/* Starts the engine if a directive requires it and it does not run yet. Returns 0 when out of memory. */
static int run(void) {
    static const ocspHost host = {.log = builtinLog,
                                  .alloc = builtinAlloc,
                                  .free = builtinFree,
                                  .thread_started = builtinThreadStarted,
                                  .directive_prefix = "tls-ocsp-"};

    if (running || !wanted()) return 1;
    if (!ocspInit(&host)) return 0;
    if (started) ocspCron(); /* with stapling still off: makes the OCSP thread, not main, read the cache from now on */
    if (!setOptions()) return 0;
    running = 1;
    aeCreateTimeEvent(server.el, OCSP_TICK_MS, tick, NULL, NULL);
    return 1;
}

void ocspBuiltinServe(SSL_CTX *ctx, SSL_CTX *client_ctx) {
    served = 1;
    if (!run())
        builtinLog(OCSP_LOG_WARNING,
                   "out of memory: nothing is stapled and no peer is checked until the next TLS reload");
    ctx_without_callback = !running;
    if (!running) return;
    ocspInstallCallback(ctx); /* links to peers use this context, too, unless tls-client-cert-file is set */
    if (client_ctx) ocspInstallCallback(client_ctx);
    if (!ocspAttachContext(ctx))
        builtinLog(OCSP_LOG_WARNING,
                   "out of memory examining the TLS context: a new certificate is not stapled for until the next TLS "
                   "reload");
}

void ocspBuiltinLink(SSL *ssl) {
    if (running && ssl) ocspRequestPeerStaple(ssl);
}

void ocspBuiltinStart(void) {
    started = 1;
    if (!run())
        builtinLog(OCSP_LOG_WARNING,
                   "out of memory: nothing is stapled and no peer is checked until the next TLS reload");
    if (!running) return;
    if (!served) builtinLog(OCSP_LOG_NOTICE, "TLS is not configured: there is nothing to staple");
    ocspCron();
    sched_yield(); /* on a single core the OCSP thread would not query the responder before the server accepts */
}

void ocspBuiltinResetStats(void) {
    if (running) ocspResetCounters();
}

/* ---- directives -------------------------------------------------------------------------------------------------- */

int isValidOcspStapling(int val, const char **err) { /* also validates verify-peers */
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int isValidOcspRefreshMargin(char *val, const char **err) {
    int percent;

    return ocspParseRefreshMargin(val, &percent, err);
}

int isValidOcspMaxInterval(long long val, const char **err) {
    char text[24];

    snprintf(text, sizeof(text), "%lld", val);
    return ocspCheckMaxInterval(text, err);
}

int isValidOcspResponderUrl(char *val, const char **err) {
    return ocspCheckResponderUrl(val, err);
}

int isValidOcspProxy(char *val, const char **err) {
    return ocspCheckProxy(val, err);
}

static int isIrregular(const char *file) {
    struct stat st;

    return file && stat(file, &st) == 0 && !S_ISREG(st.st_mode);
}

/* Returns 1 if the TLS configuration's files can be read again without blocking the server, as a named pipe would. */
static int filesAreRegular(void) {
    const serverTLSContextConfig *tls = &server.tls_ctx_config;

    return !isIrregular(tls->cert_file) && !isIrregular(tls->key_file) && !isIrregular(tls->client_cert_file) &&
           !isIrregular(tls->client_key_file) && !isIrregular(tls->dh_params_file) && !isIrregular(tls->ca_cert_file);
}

/* CONFIG SET calls each apply function once, in the order of its arguments. If it sets tls-cert-file, too, and that
 * comes first, applyTlsCfg has made a context with a callback already. If that comes later, TLS is configured twice: it
 * is not known here that another apply function follows. */
int applyOcspConfig(const char **err) {
    if (!running && !wanted()) return 1;
    if (wanted() && ctx_without_callback && !filesAreRegular()) {
        *err = "OCSP stapling and peer checks require TLS to be reconfigured, but one of its files (tls-cert-file, "
               "tls-key-file...) is not a regular file, which could block the server. Enable them in the "
               "configuration file and restart.";
        return 0;
    }
    if (!run() || !setOptions()) {
        *err = "Out of memory: the previous settings stay.";
        return 0;
    }
    if (wanted() && ctx_without_callback &&
        connTypeConfigure(connectionTypeTls(), &server.tls_ctx_config, 1) == C_ERR) {
        *err = "OCSP stapling and peer checks require TLS to be reconfigured, which failed. Check server logs.";
        return 0;
    }
    return 1;
}

/* ---- DEBUG and INFO ---------------------------------------------------------------------------------------------- */

static void debugRefresh(client *c) {
    char why[OCSP_SENTENCE_MAX];

    if (ocspRequestRefresh(why, sizeof(why)))
        addReplyStatus(c, "Background OCSP refresh started");
    else
        addReplyErrorFormat(c, "%s", why);
}

static void debugGet(client *c, const char *const words[], int count) {
    ocspGetAnswer answer;

    ocspGet(words, count, &answer);
    switch (answer.kind) {
    case OCSP_GET_BYTES: addReplyBulkCBuffer(c, answer.data, answer.len); break;
    case OCSP_GET_TEXT: addReplyVerbatim(c, answer.data, answer.len, "txt"); break;
    case OCSP_GET_ERROR: addReplyErrorFormat(c, "%s", answer.why); break;
    default: addReplyNull(c); break;
    }
    builtinFree(answer.data);
}

/* Does not wait, like DEBUG OCSP-REFRESH: only modules can block a client for another thread, and verification on the main
 * thread would be a second way to the same end. The log and ocsp_last_error have the outcome. */
static void debugSet(client *c, sds base64) {
    char why[OCSP_SENTENCE_MAX];

    if (ocspSet(base64, sdslen(base64), why, sizeof(why)))
        addReplyStatus(c, "Background OCSP response check started");
    else
        addReplyErrorFormat(c, "%s", why);
}

void ocspBuiltinDebug(client *c, const char *subcommand, sds first, sds second) {
    const char *words[2] = {first, second};

    if (!strcasecmp(subcommand, "ocsp-refresh") && c->argc == 2)
        debugRefresh(c);
    else if (!strcasecmp(subcommand, "ocsp-get") && c->argc <= 4)
        debugGet(c, words, c->argc - 2);
    else if (!strcasecmp(subcommand, "ocsp-set") && c->argc == 3)
        debugSet(c, first);
    else
        addReplySubcommandSyntaxError(c);
}

/* Where the fields of an INFO section go, and what their names begin with. */
struct infoTarget {
    sds info;
    const char *prefix;
};

static void infoText(void *arg, const char *field, const char *value) {
    struct infoTarget *to = arg;

    to->info = sdscatprintf(to->info, "%s%s:%s\r\n", to->prefix, field, value);
}

static void infoNumber(void *arg, const char *field, long long value) {
    struct infoTarget *to = arg;

    to->info = sdscatprintf(to->info, "%s%s:%lld\r\n", to->prefix, field, value);
}

/* Returns 1 if INFO may call the engine, which takes a mutex. INFO is also printed in crash reports: there the crashed
 * thread may hold that mutex, be it another thread than main, or main inside addInfo. */
static int mayAsk(void) {
    return !in_info && pthread_equal(pthread_self(), server.main_thread_id);
}

static sds addInfo(sds info, const char *prefix, void (*fields)(const ocspInfoSink *)) {
    struct infoTarget to = {info, prefix};
    ocspInfoSink sink = {infoText, infoNumber, &to};

    if (!mayAsk()) return info;
    in_info = 1;
    fields(&sink);
    in_info = 0;
    return to.info;
}

sds genOcspInfoStatsString(sds info, const char *prefix) {
    return addInfo(info, prefix, ocspInfoCounters);
}

sds genOcspInfoString(sds info, const char *prefix) {
    return addInfo(info, prefix, ocspInfoState);
}

sds genOcspInfoSection(sds info, int *sections) {
    if (!mayAsk()) return info;
    if ((*sections)++) info = sdscat(info, "\r\n");
    return genOcspInfoString(sdscat(info, "# OCSP\r\n"), "ocsp_");
}

#else /* OCSP_BUILTIN */

#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
#define OCSP_MISSING "it requires OpenSSL 3.0 or later, and this server is built with an older one or with LibreSSL"
void ocspBuiltinServe(struct ssl_ctx_st *ctx, struct ssl_ctx_st *client_ctx) {
    UNUSED(ctx);
    UNUSED(client_ctx);
}
void ocspBuiltinLink(struct ssl_st *ssl) {
    UNUSED(ssl);
}
#elif defined(USE_OPENSSL) && USE_OPENSSL == 2 /* BUILD_MODULE */
#define OCSP_MISSING "this server is built with TLS as a module: build it with BUILD_TLS=yes"
#else
#define OCSP_MISSING "this server is built without TLS: build it with BUILD_TLS=yes"
#endif

int isValidOcspStapling(int val, const char **err) { /* also validates verify-peers, whose 0 is "no" */
    if (val) *err = "OCSP stapling is not possible: " OCSP_MISSING;
    return !val;
}

/* Values are not checked, since they are not used. */
int isValidOcspRefreshMargin(char *val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int isValidOcspMaxInterval(long long val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int isValidOcspResponderUrl(char *val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int isValidOcspProxy(char *val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int applyOcspConfig(const char **err) {
    UNUSED(err);
    return 1;
}

void ocspBuiltinStart(void) {
    /* Nothing to start. */
}

void ocspBuiltinResetStats(void) {
    /* Nothing is counted. */
}

void ocspBuiltinDebug(client *c, const char *subcommand, sds first, sds second) {
    UNUSED(subcommand);
    UNUSED(first);
    UNUSED(second);
    addReplyError(c, "OCSP stapling is not possible: " OCSP_MISSING);
}

/* Print nothing and count no section: with TLS as a module, INFO ocsp may belong to a module. */
sds genOcspInfoStatsString(sds info, const char *prefix) {
    UNUSED(prefix);
    return info;
}

sds genOcspInfoString(sds info, const char *prefix) {
    UNUSED(prefix);
    return info;
}

sds genOcspInfoSection(sds info, int *sections) {
    UNUSED(sections);
    return info;
}

void ocspBuiltinKillThread(void) {
    /* There is no thread. */
}

#endif /* OCSP_BUILTIN */
