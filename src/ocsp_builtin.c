/* ocsp_builtin.c - the host that is the server itself: OCSP stapling compiled into Valkey.
 *
 * DESIGN: the engine (ocsp.h) is started when stapling or the check of peers is first turned on. Until then there is no
 * thread, no callback on a context and no timer, and tls.c's call for each context that it puts into service does
 * nothing but note that one is there. A context that is in service while stapling is turned on has no callback, and
 * setting one would race with the handshakes of I/O threads; so TLS is configured anew, as CONFIG SET tls-cert-file
 * does, and the new context gets one.
 *
 * On the main thread a timer calls ocspCron once a second. It is made with the engine, so that an event loop without
 * stapling has nothing to do for it.
 *
 * Where stapling is not possible (the server is built without TLS, with TLS as a module, or with an OpenSSL before 3.0)
 * the directives exist all the same, and `tls-ocsp-stapling yes` is refused with a sentence that says what is missing.
 *
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

#define OCSP_LOG_LINE_MAX 4096 /* serverLog cuts at 1024 bytes; a round's failure names every URL that was asked */
#define OCSP_TICK_MS 1000

/* Main thread only, but for what says otherwise. */
static int running;              /* the engine was initialized */
static int started;              /* the server has come so far that it is about to accept */
static int served;               /* a context was put into service ... */
static int ctx_without_callback; /* ... and it has no callback: the engine did not run at that time */
static int in_info;              /* the engine is copying what INFO shows */
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

/* As bio.c's threads. The engine has blocked all signals here but those of a crash; crash reports ask each thread that
 * listens for its stack. */
static void builtinThreadStarted(void) {
    sigset_t set;

    serverSetCpuAffinity(server.bio_cpulist);
    makeThreadKillable();
    sigemptyset(&set);
    sigaddset(&set, THREADS_SIGNAL);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    thread = pthread_self();
    /* release: pairs with the acquire in ocspBuiltinKillThread */
    atomic_store_explicit(&has_thread, 1, memory_order_release);
}

/* So that the memory check of a crash report has the memory to itself. The thread may hold locks at that moment; nobody
 * asks for them any more but the engine's exit handler, which waits a second at most. */
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
    options.retry_delay = ocsp_config.retry_delay;
    options.timeout = ocsp_config.timeout;
    options.responder_url = ocsp_config.responder_url;
    options.cache_dir = ocsp_config.cache_dir;
    options.response_file = ocsp_config.response_file;
    options.verify_peers = ocsp_config.verify_peers;
    ocspParseRefreshMargin(ocsp_config.refresh_margin, &options.refresh_margin, &why); /* was found valid when set */
    return ocspSetOptions(&options);
}

/* A timer's function returns int in Valkey 8.0 and long long later. */
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

/* Starts the engine if it is wanted and does not run yet. Returns 0 when out of memory. */
static int run(void) {
    static const ocspHost host = {builtinLog, builtinAlloc, builtinFree, builtinThreadStarted, NULL};

    if (running || !wanted()) return 1;
    if (!ocspInit(&host)) return 0;
    if (started) ocspCron(); /* off as yet: so that from here on the thread reads the disk, and main does not */
    if (!setOptions()) return 0;
    running = 1;
    aeCreateTimeEvent(server.el, OCSP_TICK_MS, tick, NULL, NULL);
    return 1;
}

void ocspBuiltinServe(SSL_CTX *ctx) {
    served = 1;
    if (!run())
        builtinLog(OCSP_LOG_WARNING,
                   "out of memory: nothing is stapled and no peer is checked until the next TLS reload");
    ctx_without_callback = !running;
    if (!running) return;
    ocspBuiltinLink(ctx); /* it serves for links to peers, too, unless tls-client-cert-file is set */
    ocspAttachContext(ctx);
    if (started) return;
    /* The server starts and has loaded its modules (a dlopen and a new thread do not go together in old C libraries): ask
     * before it listens. */
    ocspCron();
    sched_yield(); /* on a single core the thread would wait for us until the server accepts */
}

void ocspBuiltinLink(SSL_CTX *ctx) {
    if (!running || !ctx) return;
    ocspInstallCallback(ctx);
    ocspInstallPeerCheck(ctx);
}

void ocspBuiltinStart(void) {
    started = 1;
    if (!run())
        builtinLog(OCSP_LOG_WARNING,
                   "out of memory: nothing is stapled and no peer is checked until the next TLS reload");
    if (!running) return;
    if (!served) builtinLog(OCSP_LOG_NOTICE, "TLS is not configured: there is nothing to staple");
    ocspCron();
}

/* ---- directives -------------------------------------------------------------------------------------------------- */

int isValidOcspStapling(int val, const char **err) { /* also asked for verify-peers */
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int isValidOcspRefreshMargin(char *val, const char **err) {
    int percent;

    return ocspParseRefreshMargin(val, &percent, err);
}

int isValidOcspResponderUrl(char *val, const char **err) {
    return ocspCheckResponderUrl(val, err);
}

/* Whether the files of the TLS configuration may be read again. One that is a pipe, say, would block the server. */
static int filesAreRegular(void) {
    const serverTLSContextConfig *tls = &server.tls_ctx_config;
    const char *files[] = {tls->cert_file,       tls->key_file,       tls->client_cert_file,
                           tls->client_key_file, tls->dh_params_file, tls->ca_cert_file};
    struct stat st;
    size_t i;

    for (i = 0; i < sizeof(files) / sizeof(files[0]); i++)
        if (files[i] && stat(files[i], &st) == 0 && !S_ISREG(st.st_mode)) return 0;
    return 1;
}

int applyOcspConfig(const char **err) {
    if (!running && !wanted()) return 1;
    if (wanted() && ctx_without_callback && !filesAreRegular()) {
        *err = "OCSP stapling and peer checks require TLS to be reconfigured, but one of its files (tls-cert-file, "
               "tls-key-file...) is not a regular file, which could block the server. Enable them in the configuration "
               "file and restart.";
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

void ocspBuiltinDebugRefresh(client *c) {
    char why[OCSP_SENTENCE_MAX];

    if (ocspRequestRefresh(NULL, NULL, why, sizeof(why)))
        addReplyStatus(c, "Background OCSP refresh started");
    else
        addReplyErrorFormat(c, "%s", why);
}

static void infoText(void *info, const char *field, const char *value) {
    *(sds *)info = sdscatprintf(*(sds *)info, "ocsp_%s:%s\r\n", field, value);
}

static void infoNumber(void *info, const char *field, long long value) {
    *(sds *)info = sdscatprintf(*(sds *)info, "ocsp_%s:%lld\r\n", field, value);
}

/* INFO is printed in crash reports too. There, whoever crashed may hold the mutex that the engine's part takes: another
 * thread than main, or main itself while it was in here. */
static int mayAsk(void) {
    return !in_info && pthread_equal(pthread_self(), server.main_thread_id);
}

static sds addInfo(sds info, void (*fields)(const ocspInfoSink *)) {
    ocspInfoSink sink = {infoText, infoNumber, &info};

    in_info = 1;
    fields(&sink);
    in_info = 0;
    return info;
}

sds genOcspInfoStatsString(sds info) {
    return mayAsk() ? addInfo(info, ocspInfoCounters) : info;
}

sds genOcspInfoString(sds info, int *sections) {
    if (!mayAsk()) return info;
    if ((*sections)++) info = sdscat(info, "\r\n");
    return addInfo(sdscat(info, "# OCSP\r\n"), ocspInfoState);
}

#else /* OCSP_BUILTIN */

#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
#define OCSP_MISSING "it requires OpenSSL 3.0 or later, and this server is built with an older one or with LibreSSL"
void ocspBuiltinServe(struct ssl_ctx_st *ctx) {
    UNUSED(ctx);
}
void ocspBuiltinLink(struct ssl_ctx_st *ctx) {
    UNUSED(ctx);
}
#elif defined(USE_OPENSSL) && USE_OPENSSL == 2 /* BUILD_MODULE */
#define OCSP_MISSING \
    "this server has TLS as a module: load the module valkey-ocsp.so as well, and set ocsp.stapling instead"
#else
#define OCSP_MISSING "this server is built without TLS: build it with BUILD_TLS=yes"
#endif

int isValidOcspStapling(int val, const char **err) { /* and of the enum verify-peers, whose 0 is "no" */
    if (val) *err = "OCSP stapling is not possible: " OCSP_MISSING;
    return !val;
}

/* Values are checked where they are used. */
int isValidOcspRefreshMargin(char *val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int isValidOcspResponderUrl(char *val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int applyOcspConfig(const char **err) {
    UNUSED(err);
    return 1;
}

void ocspBuiltinStart(void) {
    /* there is nothing to start */
}

void ocspBuiltinDebugRefresh(client *c) {
    addReplyError(c, "OCSP stapling is not possible: " OCSP_MISSING);
}

/* Nothing is printed and no section counted: with TLS as a module INFO ocsp belongs to the module valkey-ocsp.so. */
sds genOcspInfoStatsString(sds info) {
    return info;
}

sds genOcspInfoString(sds info, int *sections) {
    UNUSED(sections);
    return info;
}

void ocspBuiltinKillThread(void) {
    /* there is none */
}

#endif /* OCSP_BUILTIN */
