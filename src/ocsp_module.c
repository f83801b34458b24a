/* ocsp_module.c - the host that is a loadable module: OCSP stapling for an unmodified, packaged server.
 *
 * DESIGN: a module cannot ask the server for its SSL_CTX, so OpenSSL tells of it. An ex_data index for SSL_CTX has
 * a function that OpenSSL calls inside every SSL_CTX_new: there the status callback is set and the context noted. Its
 * certificate comes later; before the event loop sleeps, which is before the first accept, the main thread looks at
 * what was noted and hands the server's context to the engine. What it will serve is read at load already, so that the
 * responder is asked before the kernel takes connections. Contexts made on other threads (Valkey 9.1 reloads on
 * one of its own) are left alone until a handshake shows that they are in use; the engine does that.
 *
 * All that differs between releases is here, by asking for features, never for a version.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp.h"
#include "server_module_api.h"
#if !OCSP_SUPPORTED
#error "OCSP stapling needs OpenSSL 3.0 or later: install its development files (Debian: libssl-dev) and build again."
#endif
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>

#define MODULE_NAME "ocsp"
#define REFRESH_COMMAND "ocsp.refresh"
#define DEBUG_SUBCOMMAND "ocsp-refresh"
#define CHAIN_MAX 100           /* certificates of tls-cert-file that are looked at before the server has read them */
#define EXPECTED_FILE_MAX 65536 /* bytes of a file that is */
#define SEEK_AGAIN 60           /* seconds between two tries to have the server make a context that we see */

typedef enum { STRING_MARGIN, STRING_URL, STRING_DIR, STRING_FILE, STRINGS } stringConfig;

/* Main thread only, but for what says otherwise. */
static ServerCtx *log_ctx; /* used on any thread, never written after load */
static int stapling, retry_delay, timeout_seconds, verify_peers, refresh_margin = 10;
static ServerString *strings[STRINGS];
static int debug_is_local; /* enable-debug-command is "local": cannot change while the server runs */
static int shutting_down;
static pthread_t main_thread;

/* A context made on the main thread whose certificate was not looked at yet. Created in SSL_CTX_new, freed by the main
 * thread when it looks, or in SSL_CTX_free on whatever thread drops the last reference. */
typedef struct notedContext {
    SSL_CTX *ctx;
    struct notedContext *next;
} notedContext;

static pthread_mutex_t noted_lock = PTHREAD_MUTEX_INITIALIZER;
static notedContext *noted;      /* newest first, behind noted_lock */
static atomic_int noted_any;     /* spares the event loop the lock */
static int hook_index = -1;      /* written once at load, before the hook can run */
static int openssl_is_mixed;     /* likewise */
static int attached, sought_tls; /* main thread: a context was attached; there is no use in asking the server for one */
static time_t seek_at;           /* main thread: not before that, monotonic clock */
static int on_each_turn;         /* main thread: the event loop tells us of each of its turns */
static int rest_asked;           /* main thread: the one-shot that ends that is on its way */
static int expecting;            /* main thread: the engine was told what the server's context will hold */

static _Thread_local int on_ocsp_thread;

/* ---- the engine's host ------------------------------------------------------------------------------------------- */

static void moduleLog(ocspLogLevel level, const char *sentence) {
    static const char *const levels[] = {"debug", "verbose", "notice", "warning"};

    Server_Log(log_ctx, levels[level], "%s", sentence);
}

static void *moduleAlloc(size_t size) {
    return Server_TryAlloc(size);
}

static void moduleFree(void *ptr) {
    Server_Free(ptr);
}

static void moduleThreadStarted(void) {
    on_ocsp_thread = 1;
}

/* ---- the event loop's turns --------------------------------------------------------------------------------------- */

/* A subscription to the event loop's event costs the server some 1200 instructions a turn, a fifth of a GET, whatever the
 * listener does. So it is held only while there is something to do before the next accept, and what can wait comes
 * with the server's cron, ten times a second. */
static const ServerEvent event_loop = {SERVER_EVENT_EVENTLOOP, 1};
static ServerEventFn eventLoopEvent;

/* Before the event loop sleeps, tick. Main thread. */
static int tickBeforeSleep(void) {
    if (!on_each_turn) on_each_turn = Server_SubscribeToServerEvent(log_ctx, event_loop, eventLoopEvent) == SERVER_OK;
    return on_each_turn;
}

/* A one-shot, because a listener that ends its own subscription frees what the server still uses. */
static void rest(void *unused) {
    (void)unused;
    rest_asked = 0;
    if (verify_peers || atomic_load_explicit(&noted_any, memory_order_relaxed))
        return; /* the turn to come asks again */
    if (Server_SubscribeToServerEvent(log_ctx, event_loop, NULL) == SERVER_OK) on_each_turn = 0;
}

/* ---- directives -------------------------------------------------------------------------------------------------- */

static const char *text(stringConfig which) {
    return strings[which] ? Server_StringPtrLen(strings[which], NULL) : "";
}

static void setError(ServerString **error, const char *sentence) {
    *error = Server_CreateString(NULL, sentence, strlen(sentence));
}

static int applyOptions(ServerCtx *ctx, void *privdata, ServerString **error) {
    ocspOptions options = {stapling,         refresh_margin,   retry_delay,       timeout_seconds,
                           text(STRING_URL), text(STRING_DIR), text(STRING_FILE), (ocspVerifyPeers)verify_peers};

    (void)ctx;
    (void)privdata;
    seek_at = 0;
    if (ocspSetOptions(&options)) {
        tickBeforeSleep(); /* without it the cron ticks */
        return SERVER_OK;
    }
    if (error) setError(error, "out of memory: the OCSP directives stay as they were");
    return SERVER_ERR;
}

/* A bool or an enum. */
static int getInt(const char *name, void *privdata) {
    (void)name;
    return *(int *)privdata;
}

static int setInt(const char *name, int value, void *privdata, ServerString **error) {
    (void)name;
    (void)error;
    *(int *)privdata = value;
    return SERVER_OK;
}

static long long getNumber(const char *name, void *privdata) {
    (void)name;
    return *(int *)privdata;
}

static int setNumber(const char *name, long long value, void *privdata, ServerString **error) {
    (void)name;
    (void)error;
    *(int *)privdata = (int)value; /* within the bounds given at registration */
    return SERVER_OK;
}

static ServerString *getString(const char *name, void *privdata) {
    (void)name;
    return *(ServerString **)privdata;
}

static int setString(const char *name, ServerString *value, void *privdata, ServerString **error) {
    size_t len;
    const char *chars = Server_StringPtrLen(value, &len), *why = NULL;
    ServerString **slot = privdata;
    int ok = 1;

    (void)name;
    if (strlen(chars) != len) {
        ok = 0;
        why = "the value holds a zero byte";
    } else if (slot == &strings[STRING_MARGIN]) {
        ok = ocspParseRefreshMargin(chars, &refresh_margin, &why);
    } else if (slot == &strings[STRING_URL]) {
        ok = ocspCheckResponderUrl(chars, &why);
    }
    if (!ok) {
        setError(error, why);
        return SERVER_ERR;
    }
    if (*slot) Server_FreeString(NULL, *slot);
    *slot = Server_CreateString(NULL, chars, len);
    return SERVER_OK;
}

static int registerString(ServerCtx *ctx, const char *name, const char *value, unsigned flags, stringConfig which) {
    return Server_RegisterStringConfig(ctx, name, value, flags, getString, setString, applyOptions, &strings[which]);
}

static int registerDirectives(ServerCtx *ctx) {
    static const char *peers[] = {"no", "soft", "require"};
    static const int peers_values[] = {OCSP_PEERS_NO, OCSP_PEERS_SOFT, OCSP_PEERS_REQUIRE};
    unsigned open = SERVER_CONFIG_DEFAULT, guarded = SERVER_CONFIG_PROTECTED;

    return Server_RegisterBoolConfig(ctx, "stapling", 0, open, getInt, setInt, applyOptions, &stapling) == SERVER_OK &&
           registerString(ctx, "refresh-margin", "10%", open, STRING_MARGIN) == SERVER_OK &&
           Server_RegisterNumericConfig(ctx, "retry-delay", 10, open, OCSP_RETRY_DELAY_MIN, OCSP_RETRY_DELAY_MAX,
                                        getNumber, setNumber, applyOptions, &retry_delay) == SERVER_OK &&
           Server_RegisterNumericConfig(ctx, "timeout", 5, open, OCSP_TIMEOUT_MIN, OCSP_TIMEOUT_MAX, getNumber,
                                        setNumber, applyOptions, &timeout_seconds) == SERVER_OK &&
           registerString(ctx, "responder-url", "", guarded, STRING_URL) == SERVER_OK &&
           registerString(ctx, "cache-dir", ".", guarded, STRING_DIR) == SERVER_OK &&
           registerString(ctx, "response-file", "", guarded, STRING_FILE) == SERVER_OK &&
           Server_RegisterEnumConfig(ctx, "verify-peers", OCSP_PEERS_NO, open, peers, peers_values, 3, getInt, setInt,
                                     applyOptions, &verify_peers) == SERVER_OK;
}

/* The value of one of the server's directives, copied to `out`; "" when there is none. */
static const char *serverConfig(ServerCtx *ctx, const char *name, char *out, size_t size) {
    ServerReply *reply = Server_Call(ctx, "CONFIG", "cc", "GET", name), *value = NULL;
    const char *chars = NULL;
    size_t len = 0;

    if (reply && Server_CallReplyType(reply) == SERVER_REPLY_ARRAY) value = Server_CallReplyArrayElement(reply, 1);
    if (value) chars = Server_CallReplyStringPtr(value, &len);
    snprintf(out, size, "%.*s", chars ? (int)len : 0, chars ? chars : "");
    if (reply) Server_FreeCallReply(reply);
    return out;
}

/* ---- the server's contexts --------------------------------------------------------------------------------------- */

/* Valkey 9.1 makes its contexts on this thread of its own when tls-auto-reload-interval is set. */
static int onReloadThread(void) {
    char name[16] = "";

    return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && strcmp(name, "bio_tls_reload") == 0;
}

/* OpenSSL calls this inside SSL_CTX_new, on the thread that makes the context. */
static void contextMade(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
    SSL_CTX *ctx = parent;
    notedContext *note;

    (void)ptr;
    (void)ad;
    (void)index;
    (void)argl;
    (void)argp;
    if (on_ocsp_thread) return; /* the engine's own, for responders that speak https */
    ocspInstallCallback(ctx);
    if (!pthread_equal(pthread_self(), main_thread)) { /* its maker may still be filling it when main looks */
        if (onReloadThread()) ocspInstallPeerCheck(ctx);
        return;
    }
    ocspInstallPeerCheck(ctx);
    if (expecting) {
        /* The server makes it once all modules are loaded (a dlopen and a new thread do not go together in old C
         * libraries), and does not listen yet. A module that makes one of its own is earlier, which does no harm else. */
        expecting = 0;
        ERR_set_mark();
        ocspTick();
        ERR_pop_to_mark();
        sched_yield(); /* on a single core the thread would wait for us until the server accepts */
    }
    note = Server_TryAlloc(sizeof(*note));
    if (!note) return; /* a handshake will show it */
    note->ctx = ctx;
    pthread_mutex_lock(&noted_lock);
    note->next = noted;
    noted = note;
    pthread_mutex_unlock(&noted_lock);
    atomic_store_explicit(&noted_any, 1, memory_order_relaxed); /* read by this same thread */
    tickBeforeSleep();
}

/* OpenSSL calls this inside SSL_CTX_free: a reload that failed, or the last connection of an old context. */
static void contextFreed(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
    notedContext **link, *found;

    (void)ptr;
    (void)ad;
    (void)index;
    (void)argl;
    (void)argp;
    pthread_mutex_lock(&noted_lock);
    for (link = &noted; *link && (*link)->ctx != parent; link = &(*link)->next) continue;
    found = *link;
    if (found) *link = found->next;
    pthread_mutex_unlock(&noted_lock);
    Server_Free(found);
}

/* The certificates of a PEM file, at most that many: the leaf comes first. NULL when there is none. */
static STACK_OF(X509) *certificatesOfFile(const char *path, int most) {
    BIO *file = BIO_new_file(path, "r");
    STACK_OF(X509) *certs = NULL;
    X509 *cert;

    /* The last argument: no pass phrase. Without it OpenSSL would ask for one on the terminal. */
    while (file && sk_X509_num(certs) < most && (cert = PEM_read_bio_X509_AUX(file, NULL, NULL, (void *)"")) != NULL) {
        if (!certs) certs = sk_X509_new_null();
        if (!certs || !sk_X509_push(certs, cert)) {
            X509_free(cert);
            break;
        }
    }
    BIO_free(file);
    return certs;
}

/* The first certificate of a PEM file that the server has just read itself; NULL when it cannot be read. */
static X509 *leafOfFile(ServerCtx *ctx, const char *directive) {
    char path[4096];
    STACK_OF(X509) *certs = *serverConfig(ctx, directive, path, sizeof(path)) ? certificatesOfFile(path, 1) : NULL;
    X509 *leaf = sk_X509_pop(certs);

    sk_X509_free(certs);
    return leaf;
}

/* Whether `leaf` is among the certificates of `ctx`: there may be an RSA and an ECDSA one, in any order. */
static int holdsLeaf(SSL_CTX *ctx, X509 *leaf) {
    X509 *chosen = SSL_CTX_get0_certificate(ctx);
    int more = chosen && SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST), found = 0;

    for (; more && !found; more = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT))
        found = ocspSameCertificate(SSL_CTX_get0_certificate(ctx), leaf);
    if (chosen) SSL_CTX_select_current_cert(ctx, chosen);
    return found;
}

/* How likely `ctx` is the one that serves: 2 it has tls-cert-file's certificate, 1 that file cannot be read and it has
 * one that is not tls-client-cert-file's, 0 it is for outgoing links, has none, or is another module's own. Contexts
 * look alike otherwise. */
static int roleOf(SSL_CTX *ctx, X509 *server_leaf, X509 *client_leaf) {
    X509 *leaf = SSL_CTX_get0_certificate(ctx);

    if (!leaf) return 0;
    if (server_leaf) return holdsLeaf(ctx, server_leaf) ? 2 : 0;
    return client_leaf && ocspSameCertificate(leaf, client_leaf) ? 0 : 1;
}

/* Whether the server's program has TLS in it, or a module that brings it (BUILD_TLS=module). Its directives do not tell:
 * a server built without has them too. */
static int serverHasTls(void) {
    void *program = dlopen(NULL, RTLD_LAZY); /* and what it is linked with; not what modules brought */
    int has = program && dlsym(program, "SSL_CTX_new");

    if (program) dlclose(program);
    return has || Server_IsModuleNameBusy("tls");
}

/* With none of these set the server makes no context, whatever its certificate is. */
static int usesTls(ServerCtx *ctx) {
    char value[32];

    return strcmp(serverConfig(ctx, "tls-port", value, sizeof(value)), "0") != 0 ||
           strcmp(serverConfig(ctx, "tls-replication", value, sizeof(value)), "yes") == 0 ||
           strcmp(serverConfig(ctx, "tls-cluster", value, sizeof(value)), "yes") == 0;
}

/* A file of at most that many bytes; no pipe, which the server could not read after us. */
static int isFile(const char *path, off_t most) {
    struct stat st;

    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_size <= most;
}

/* The server's context is made after modules were loaded, and seen when the event loop first sleeps; by then the kernel
 * takes connections. So that the responder is asked before, what that context will hold is read here, and the thread
 * starts as it is made. Whatever cannot be read the server will complain of. Not for a long list of CAs, which takes
 * long to read, nor beside a second certificate (Valkey 9.2), which has to be read from disk at the same time. */
static void expectContext(ServerCtx *ctx) {
    char leaf[4096], file[4096], dir[4096];
    STACK_OF(X509) *certs;
    X509_STORE *store;

    if (!stapling || !serverHasTls() || !usesTls(ctx)) return;
    if (!isFile(serverConfig(ctx, "tls-cert-file", leaf, sizeof(leaf)), EXPECTED_FILE_MAX)) return;
    if (*serverConfig(ctx, "tls-ca-cert-file", file, sizeof(file)) && !isFile(file, EXPECTED_FILE_MAX)) return;
    if (*serverConfig(ctx, "tls-alt-cert-file", dir, sizeof(dir))) return;
    serverConfig(ctx, "tls-ca-cert-dir", dir, sizeof(dir));
    ERR_set_mark();
    certs = certificatesOfFile(leaf, CHAIN_MAX);
    store = X509_STORE_new();
    if (store && *file) X509_STORE_load_file(store, file);
    if (store && *dir) X509_STORE_load_path(store, dir);
    if (certs && store) {
        ocspExpectContext(certs, store);
        expecting = 1;
    }
    sk_X509_pop_free(certs, X509_free);
    X509_STORE_free(store);
    ERR_pop_to_mark();
}

/* Looks at what was noted and attaches the newest context that serves. */
static void attachNoted(ServerCtx *ctx) {
    X509 *server_leaf, *client_leaf;
    SSL_CTX *chosen = NULL;
    int chosen_role = 0;

    ERR_set_mark();
    server_leaf = leafOfFile(ctx, "tls-cert-file");
    client_leaf = leafOfFile(ctx, "tls-client-cert-file");
    atomic_store_explicit(&noted_any, 0, memory_order_relaxed);
    pthread_mutex_lock(&noted_lock);
    while (noted) {
        notedContext *note = noted;
        int role = roleOf(note->ctx, server_leaf, client_leaf);
        noted = note->next;
        /* While noted_lock is held, a context in the list is not freed: contextFreed waits. One that is about to be
         * gives no reference any more. */
        if (role > chosen_role && SSL_CTX_up_ref(note->ctx)) {
            SSL_CTX_free(chosen);
            chosen = note->ctx;
            chosen_role = role;
        }
        Server_Free(note);
    }
    pthread_mutex_unlock(&noted_lock);
    if (chosen) {
        ocspAttachContext(chosen);
        /* One that only may be the server's is no reason to stop looking: its links would not be checked. */
        attached = chosen_role == 2 || sought_tls;
        SSL_CTX_free(chosen);
    }
    X509_free(server_leaf);
    X509_free(client_leaf);
    ERR_pop_to_mark();
}

/* Where the server's program has an OpenSSL in it and shows its names, the loader binds this module to those, and to
 * libcrypto for what the program left out. Objects of one must not get into the hands of the other. */
static int opensslIsMixed(void) {
    Dl_info one, other;

    return dladdr((void *)CRYPTO_get_ex_new_index, &one) && dladdr((void *)OCSP_basic_verify, &other) &&
           one.dli_fbase != other.dli_fbase;
}

/* What is asked for cannot be done. Told once for each of the two: a check that does not happen is no detail. */
static void tellUnseen(const char *why) {
    static int told_stapling, told_peers;
    char sentence[OCSP_SENTENCE_MAX];

    if (stapling && !told_stapling++) {
        snprintf(sentence, sizeof(sentence), "nothing is stapled: %s", why);
        moduleLog(OCSP_LOG_WARNING, sentence);
    }
    if (verify_peers && !told_peers++) ocspPeersUnchecked(why);
}

static void tellForeignOpenssl(void) {
    ocspExpectContext(NULL, NULL);
    tellUnseen("the server's TLS context cannot be seen, as its OpenSSL is not the one that this module uses (linked "
               "statically?). Build the patched server instead");
}

static time_t monotonicSeconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* A server that made its context before we could see it (Redis 7.0 at its start; any server at a run-time MODULE LOAD)
 * makes another when its own certificate file is set again. */
static void seekContext(ServerCtx *ctx) {
    char path[4096], tls_port[32];
    ServerReply *reply;

    sought_tls = 1;
    if (openssl_is_mixed) {
        tellForeignOpenssl();
        return;
    }
    serverConfig(ctx, "tls-cert-file", path, sizeof(path));
    serverConfig(ctx, "tls-port", tls_port, sizeof(tls_port));
    if (strcmp(tls_port, "0") == 0 && !serverHasTls()) {
        moduleLog(OCSP_LOG_NOTICE, "this server was built without TLS: there is nothing to staple");
        return;
    }
    if (!*path) {
        moduleLog(OCSP_LOG_NOTICE, "TLS is not configured (tls-cert-file is empty): there is nothing to staple");
        sought_tls = 0; /* tls-cert-file may be set later: then its context is noted, and this is not asked again */
        attached = 1;
        return;
    }
    reply = Server_Call(ctx, "CONFIG", "ccc", "SET", "tls-cert-file", path);
    if (!reply || Server_CallReplyType(reply) == SERVER_REPLY_ERROR) {
        size_t len = 0;
        const char *chars = reply ? Server_CallReplyStringPtr(reply, &len) : NULL;
        char sentence[OCSP_SENTENCE_MAX];
        snprintf(sentence, sizeof(sentence),
                 "the server does not load its tls-cert-file again (%.*s): mend that; it is tried each minute",
                 chars ? (int)len : 0, chars ? chars : "");
        ocspExpectContext(NULL, NULL);
        tellUnseen(sentence);
        sought_tls = 0;
        seek_at = monotonicSeconds() + SEEK_AGAIN;
    }
    if (reply) Server_FreeCallReply(reply);
    if (atomic_load_explicit(&noted_any, memory_order_relaxed))
        attachNoted(ctx);
    else if (sought_tls && usesTls(ctx))
        tellForeignOpenssl();
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void tick(ServerCtx *ctx) {
    if (atomic_load_explicit(&noted_any, memory_order_relaxed)) attachNoted(ctx);
    if ((stapling || verify_peers) && !attached && !sought_tls && monotonicSeconds() >= seek_at) seekContext(ctx);
    ocspTick();
}

static void eventLoopEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)data;
    if (subevent != SERVER_SUBEVENT_BEFORE_SLEEP) return;
    tick(ctx);
    /* With verify-peers on, what became of a link is told at once. */
    if (!rest_asked && !verify_peers) rest_asked = Server_EventLoopAddOneShot(rest, NULL) == SERVER_OK;
}

/* What no handshake waits for: a context that was made on another thread, a thread of ours that could not be started. */
static void cronEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)subevent;
    (void)data;
    tick(ctx);
}

/* While it loads its data a server accepts connections without the event above: the first handshakes come then. */
static void loadingEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)data;
    if (subevent > SERVER_SUBEVENT_LOADING_LAST_START) return;
    if (atomic_load_explicit(&noted_any, memory_order_relaxed)) attachNoted(ctx);
    if (attached) ocspTick();
}

static void shutdownEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)ctx;
    (void)event;
    (void)subevent;
    (void)data;
    shutting_down = 1;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

/* Whoever may run DEBUG may refresh. */
static int mayDebug(ServerCtx *ctx) {
    ServerString *argv[2] = {Server_CreateString(NULL, "DEBUG", 5),
                             Server_CreateString(NULL, DEBUG_SUBCOMMAND, strlen(DEBUG_SUBCOMMAND))};
    ServerString *name = Server_GetCurrentUserName(ctx);
    ServerUser *user = name ? Server_GetModuleUserFromUserName(name) : NULL;
    int may = user && Server_ACLCheckCommandPermissions(user, argv, 2) == SERVER_OK;

    if (user) Server_FreeModuleUser(user);
    if (name) Server_FreeString(ctx, name);
    Server_FreeString(NULL, argv[0]);
    Server_FreeString(NULL, argv[1]);
    return may;
}

static int isLocal(ServerCtx *ctx) {
    ServerClientInfo info = {.version = 1};

    if (Server_GetClientInfoById(&info, Server_GetClientId(ctx)) != SERVER_OK) return 0;
    return info.flags & SERVER_CLIENT_UNIXSOCKET || strncmp(info.addr, "127.", 4) == 0 || strcmp(info.addr, "::1") == 0;
}

static int replyRefreshed(ServerCtx *ctx, ServerString **argv, int argc) {
    const char *error = Server_GetBlockedClientPrivateData(ctx);

    (void)argv;
    (void)argc;
    return error ? Server_ReplyWithError(ctx, error) : Server_ReplyWithSimpleString(ctx, "OK");
}

static void freeReply(ServerCtx *ctx, void *error) {
    (void)ctx;
    Server_Free(error);
}

/* On the OCSP thread. */
static void refreshDone(void *blocked_client, const char *error) {
    size_t size = error ? strlen(error) + 5 : 0;
    char *reply = error ? Server_TryAlloc(size) : NULL;

    if (reply) snprintf(reply, size, "ERR %s", error);
    Server_UnblockClient(blocked_client, reply);
}

static int refreshCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    int is_debug = argc == 2 && strcasecmp(Server_StringPtrLen(argv[1], NULL), DEBUG_SUBCOMMAND) == 0;
    ServerBlockedClient *client = NULL;
    char why[OCSP_SENTENCE_MAX] = "the server cannot block this client", error[OCSP_SENTENCE_MAX + 8];

    if (argc != 1 && !is_debug) return Server_WrongArity(ctx);
    if (!mayDebug(ctx))
        return Server_ReplyWithError(ctx, "NOPERM this user has no permissions to run the 'debug' command");
    if (is_debug && debug_is_local && !isLocal(ctx))
        return Server_ReplyWithError(ctx,
                                     "ERR DEBUG command not allowed. If the enable-debug-command option is set to "
                                     "\"local\", you can run it from a local connection, otherwise you need to set "
                                     "this option in the configuration file, and then restart the server.");
    if (is_debug) {
        if (ocspRequestRefresh(NULL, NULL, why, sizeof(why)))
            return Server_ReplyWithSimpleString(ctx, "Background OCSP refresh started");
    } else {
        if (Server_GetContextFlags(ctx) & (SERVER_CTX_MULTI | SERVER_CTX_LUA | SERVER_CTX_DENY_BLOCKING))
            return Server_ReplyWithError(
                ctx, "ERR OCSP.REFRESH waits for the responder, which is not possible in MULTI or in a "
                     "script: use DEBUG OCSP-REFRESH, which does not wait");
        client = Server_BlockClient(ctx, replyRefreshed, NULL, freeReply, 0);
        /* BlockClient first: the thread may be done before this function is */
        if (client && ocspRequestRefresh(refreshDone, client, why, sizeof(why))) return SERVER_OK;
    }
    snprintf(error, sizeof(error), "ERR %s", why);
    if (client) {
        refreshDone(client, why);
        return SERVER_OK;
    }
    return Server_ReplyWithError(ctx, error);
}

/* Makes DEBUG OCSP-REFRESH a command of ours. Runs for every command, so what rules most of them out comes first. */
static void debugFilter(ServerFilterCtx *filter) {
    const char *chars;
    size_t len;

    if (Server_CommandFilterArgsCount(filter) != 2) return;
    chars = Server_StringPtrLen(Server_CommandFilterArgGet(filter, 0), &len);
    if (len != 5 || strcasecmp(chars, "debug") != 0) return;
    chars = Server_StringPtrLen(Server_CommandFilterArgGet(filter, 1), &len);
    if (len != strlen(DEBUG_SUBCOMMAND) || strcasecmp(chars, DEBUG_SUBCOMMAND) != 0) return;
    Server_CommandFilterArgReplace(filter, 0, Server_CreateString(NULL, REFRESH_COMMAND, strlen(REFRESH_COMMAND)));
}

static int registerDebug(ServerCtx *ctx) {
    char allowed[32];

    serverConfig(ctx, "enable-debug-command", allowed, sizeof(allowed));
    debug_is_local = strcmp(allowed, "local") == 0;
    /* Where DEBUG is off it stays off until a restart: no filter, and no command pays for one. */
    if (!debug_is_local && strcmp(allowed, "yes") != 0) return 1;
    return Server_RegisterCommandFilter(ctx, debugFilter, 0) != NULL;
}

/* ---- INFO -------------------------------------------------------------------------------------------------------- */

static void infoText(void *ctx, const char *field, const char *value) {
    Server_InfoAddFieldCString(ctx, field, value);
}

static void infoNumber(void *ctx, const char *field, long long value) {
    Server_InfoAddFieldLongLong(ctx, field, value);
}

static void info(ServerInfoCtx *ctx, int for_crash_report) {
    ocspInfoSink sink = {infoText, infoNumber, ctx};

    if (for_crash_report) return; /* the thread that crashed may hold the mutex that this takes */
    if (Server_InfoAddSection(ctx, "") == SERVER_OK) ocspInfoState(&sink);
    if (Server_InfoAddSection(ctx, "stats") == SERVER_OK) ocspInfoCounters(&sink);
}

/* ---- load and unload --------------------------------------------------------------------------------------------- */

static int loadModule(ServerCtx *ctx) {
    static const ocspHost host = {moduleLog, moduleAlloc, moduleFree, moduleThreadStarted};
    static const ServerEvent cron = {SERVER_EVENT_CRON_LOOP, 1}, loading = {SERVER_EVENT_LOADING, 1},
                             shutdown = {SERVER_EVENT_SHUTDOWN, 1};

    return ocspInit(&host) && registerDirectives(ctx) && Server_LoadConfigs(ctx) == SERVER_OK &&
           Server_CreateCommand(ctx, REFRESH_COMMAND, refreshCommand, "admin deny-script allow-loading allow-stale", 0,
                                0, 0) == SERVER_OK &&
           registerDebug(ctx) && Server_RegisterInfoFunc(ctx, info) == SERVER_OK &&
           Server_SubscribeToServerEvent(ctx, cron, cronEvent) == SERVER_OK && tickBeforeSleep() &&
           Server_SubscribeToServerEvent(ctx, loading, loadingEvent) == SERVER_OK &&
           Server_SubscribeToServerEvent(ctx, shutdown, shutdownEvent) == SERVER_OK &&
           applyOptions(ctx, NULL, NULL) == SERVER_OK;
}

static int onLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    const char *missing = serverLoadApi(ctx);

    (void)argv;
    if (missing) {
        /* Server_Log may be what is missing: stderr is all there is. */
        fprintf(stderr,
                "valkey-ocsp: this server's module API has no %s: use Valkey 8.0 or later, or Redis 7.0 or later\n",
                missing);
        return SERVER_ERR;
    }
    /* Loaded twice this is one image with one engine: the second load must not touch what the first uses. */
    if (Server_IsModuleNameBusy(MODULE_NAME)) return SERVER_ERR;
    Server_SetModuleAttribs(ctx, MODULE_NAME, OCSP_STAPLING_VERSION, SERVER_API_VERSION);
    log_ctx = Server_GetDetachedThreadSafeContext(ctx);
    main_thread = pthread_self();
    if (argc > 0)
        Server_Log(ctx, "warning",
                   "loadmodule takes no arguments here: write directives like \"ocsp.stapling yes\" on "
                   "lines of their own");
    if (!loadModule(ctx)) {
        Server_Log(ctx, "warning",
                   "the module cannot be loaded: see the lines above for the directive or function that "
                   "was refused");
        ocspShutdown();
        return SERVER_ERR;
    }
    openssl_is_mixed = opensslIsMixed();
    if (openssl_is_mixed) return SERVER_OK;
    expectContext(ctx); /* before the hook, which need not see it */
    /* The hook comes last: after it nothing may fail, because a server that drops us with it in place crashes at its
     * next SSL_CTX_new. */
    hook_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, contextMade, NULL, contextFreed);
    if (hook_index < 0) {
        ocspExpectContext(NULL, NULL);
        Server_Log(ctx, "warning",
                   "OpenSSL has no room for the module's hook: nothing will be stapled. Restart the server");
    }
    return SERVER_OK;
}

/* Contexts and OpenSSL hold pointers into this file, so it must stay. */
static int onUnload(ServerCtx *ctx) {
    if (!shutting_down) /* Valkey 9.1 asks at shutdown too */
        Server_Log(ctx, "warning",
                   "this module cannot be unloaded while the server runs, because its TLS contexts refer "
                   "to it. Turn it off with CONFIG SET ocsp.stapling no, or restart without it");
    return SERVER_ERR;
}

/* Valkey looks for its own names first, Redis knows only the others. */
#define EXPORTED __attribute__((visibility("default")))

EXPORTED int ValkeyModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    return onLoad(ctx, argv, argc);
}

EXPORTED int RedisModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    return onLoad(ctx, argv, argc);
}

EXPORTED int ValkeyModule_OnUnload(ServerCtx *ctx) {
    return onUnload(ctx);
}

EXPORTED int RedisModule_OnUnload(ServerCtx *ctx) {
    return onUnload(ctx);
}
