/* ocsp_module.c - the host that is a loadable module: OCSP stapling for an unmodified, packaged server.
 *
 * DESIGN: a module cannot ask the server for its SSL_CTX, so OpenSSL tells of it. An ex_data index for SSL_CTX has
 * a function that OpenSSL calls inside every SSL_CTX_new: there the status callback is set and the context pending. Its
 * certificate comes later; before the event loop sleeps, which is before the first accept, the main thread looks at
 * what was pending and hands the server's context to the engine. What it will serve is read at load already, so that the
 * responder is asked before the kernel takes connections.
 *
 * Other modules make contexts, too, and may listen with them. The server makes its contexts on the main thread, or on
 * the thread bio_tls_reload (Valkey 9.1): a context of another thread is foreign. One of the main thread is the server's
 * if it has the certificate of tls-cert-file. One of bio_tls_reload cannot be looked at from here while it is made, and
 * is followed once it has served a handshake. Where the settings of the server cannot be read (CONFIG is renamed), the
 * same holds for contexts of the main thread.
 *
 * The server drops a module again, right after it was loaded, when it finds a setting that nobody took. So until the
 * event loop turns, all that was done at load can be undone.
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
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>

#define MODULE_NAME "ocsp"
#define REFRESH_COMMAND "ocsp.refresh"
#define DEBUG_SUBCOMMAND "ocsp-refresh"
#define CHAIN_MAX 100           /* certificates of tls-cert-file that are looked at before the server has read them */
#define EXPECTED_FILE_MAX 65536 /* bytes of a file that is */
#define CERT_FILE_MAX (1 << 20) /* bytes of tls-cert-file when its first certificate is compared with a context's */
#define SETTING_MAX 4096        /* bytes of a value of the server's that is read, with the zero byte */
#define RELOAD_RETRY_SECONDS 60 /* seconds between two tries to have the server make a context that we see */

typedef enum { STRING_MARGIN, STRING_URL, STRING_DIR, STRING_FILE, STRINGS } stringConfig;

typedef enum { EVENT_BEFORE_SLEEP, EVENT_CRON, EVENT_LOADING, EVENT_SHUTDOWN, EVENTS } eventKind;

#define AT_LOAD \
    { .refresh_margin = 10 }

/* What a load begins with, and an unload goes back to. Main thread only. */
static struct moduleState {
    int stapling, retry_delay, timeout_seconds, verify_peers, refresh_margin;
    ServerString *strings[STRINGS];
    int debug_is_local; /* enable-debug-command is "local": cannot change while the server runs */
    int shutting_down;
    int turned;                 /* the server came back to its event loop after the load: no unload from here on */
    int subscribed[EVENTS];     /* the server tells us of these */
    ServerFilter *filter;       /* debugFilter, where it is wanted */
    int attached, reload_tried; /* a context was attached; there is no use in asking the server for one */
    time_t reload_retry_at;     /* not before that, monotonic clock */
    int hooked;                 /* a context of the main thread refers to this file */
    int unsure;                 /* one made at the start may be the server's, which a handshake has to show */
    int unsubscribe_queued;     /* the one-shot that ends the subscription to each turn is on its way */
    int expecting;              /* the engine was told what the server's context will hold */
    const char *unseen; /* why the server's contexts cannot be seen at all; NULL: they can, as far as is known */
    int logged_stapling, logged_peers, logged_unsure; /* what logUnseen and forceTlsReload have told */
} module = AT_LOAD;

static ServerCtx *log_ctx; /* used on any thread, written at load and unload */
static pthread_t main_thread;

/* A context that was made on the main thread, from SSL_CTX_new to SSL_CTX_free. While nobody has looked at its
 * certificate it is in the list. */
typedef struct pendingContext {
    SSL_CTX *ctx;
    int listed;
    int at_start; /* made before the event loop turned, as the server makes its first ones */
    struct pendingContext *newer, *older;
} pendingContext;

static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;
static pendingContext *pending;     /* the newest, behind pending_lock */
static atomic_int any_pending;      /* spares the event loop the lock */
static atomic_int hooked_elsewhere; /* a context of another thread refers to this file; written there, read by main */
static int hook_index = -1;         /* written at load, before the hook can run, and at unload */

/* The engine's thread, 0 while there is none; written there. Not thread-local storage: see ocspMyStripe. */
static _Atomic(pthread_t) ocsp_thread;

static int onOcspThread(void) {
    return pthread_equal(pthread_self(), atomic_load_explicit(&ocsp_thread, memory_order_relaxed));
}

/* Why the server's contexts cannot be seen, as half of a sentence. */
static const char foreign_openssl[] =
    "the server's TLS context cannot be seen, as its OpenSSL is not the one that this "
    "module uses (linked statically?). Build the patched server instead";
static const char no_hook[] = "OpenSSL has no room for the module's hook, so that the server's TLS context cannot be "
                              "seen. Restart the server";
static const char cannot_read[] =
    "the server's TLS settings cannot be read, as its CONFIG command is renamed or disabled. If the module was loaded "
    "while the server ran, load it at the server's start instead (loadmodule)";

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
    atomic_store_explicit(&ocsp_thread, pthread_self(), memory_order_relaxed); /* matters to this thread alone */
}

/* ---- the event loop's turns --------------------------------------------------------------------------------------- */

/* A subscription to the event loop's event costs the server some 1200 instructions a turn, a fifth of a GET, whatever the
 * listener does. So it is held only while there is something to do before the next accept, and what can wait comes
 * with the server's cron, ten times a second. */
static const ServerEvent event_loop = {SERVER_EVENT_EVENTLOOP, 1};
static ServerEventFn eventLoopEvent;

/* Before the event loop sleeps, tick. Main thread. */
static int subscribeBeforeSleep(void) {
    int *subscribed = &module.subscribed[EVENT_BEFORE_SLEEP];

    if (!*subscribed) *subscribed = Server_SubscribeToServerEvent(log_ctx, event_loop, eventLoopEvent) == SERVER_OK;
    return *subscribed;
}

static int wanted(void) {
    return module.stapling || module.verify_peers != OCSP_PEERS_NO;
}

/* Is there a context to look at? While nothing is turned on, contexts wait in the list. */
static int anyPending(void) {
    return wanted() && atomic_load_explicit(&any_pending, memory_order_relaxed);
}

/* A one-shot, because a listener that ends its own subscription frees what the server still uses. */
static void unsubscribeBeforeSleep(void *unused) {
    (void)unused;
    module.unsubscribe_queued = 0;
    if (module.verify_peers || anyPending()) return; /* the turn to come asks again */
    if (Server_SubscribeToServerEvent(log_ctx, event_loop, NULL) == SERVER_OK)
        module.subscribed[EVENT_BEFORE_SLEEP] = 0;
}

/* ---- directives -------------------------------------------------------------------------------------------------- */

static const char *text(stringConfig which) {
    return module.strings[which] ? Server_StringPtrLen(module.strings[which], NULL) : "";
}

static void setError(ServerString **error, const char *sentence) {
    *error = Server_CreateString(NULL, sentence, strlen(sentence));
}

static int applyOptions(ServerCtx *ctx, void *privdata, ServerString **error) {
    ocspOptions options = {.stapling = module.stapling,
                           .refresh_margin = module.refresh_margin,
                           .retry_delay = module.retry_delay,
                           .timeout = module.timeout_seconds,
                           .responder_url = text(STRING_URL),
                           .cache_dir = text(STRING_DIR),
                           .response_file = text(STRING_FILE),
                           .verify_peers = (ocspVerifyPeers)module.verify_peers};

    (void)ctx;
    (void)privdata;
    module.reload_retry_at = 0;
    /* The engine forgets what it told of unchecked links: when the check is turned on again, it is told again. */
    if (module.verify_peers == OCSP_PEERS_NO) module.logged_peers = 0;
    if (ocspSetOptions(&options)) {
        subscribeBeforeSleep(); /* without it the cron ticks */
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
    } else if (slot == &module.strings[STRING_MARGIN]) {
        ok = ocspParseRefreshMargin(chars, &module.refresh_margin, &why);
    } else if (slot == &module.strings[STRING_URL]) {
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
    return Server_RegisterStringConfig(ctx, name, value, flags, getString, setString, applyOptions,
                                       &module.strings[which]);
}

static int registerDirectives(ServerCtx *ctx) {
    static const char *peers[] = {"no", "soft", "require"};
    static const int peers_values[] = {OCSP_PEERS_NO, OCSP_PEERS_SOFT, OCSP_PEERS_REQUIRE};
    unsigned open = SERVER_CONFIG_DEFAULT, guarded = SERVER_CONFIG_PROTECTED;

    return Server_RegisterBoolConfig(ctx, "stapling", 0, open, getInt, setInt, applyOptions, &module.stapling) ==
               SERVER_OK &&
           registerString(ctx, "refresh-margin", "10%", open, STRING_MARGIN) == SERVER_OK &&
           Server_RegisterNumericConfig(ctx, "retry-delay", 10, open, OCSP_RETRY_DELAY_MIN, OCSP_RETRY_DELAY_MAX,
                                        getNumber, setNumber, applyOptions, &module.retry_delay) == SERVER_OK &&
           Server_RegisterNumericConfig(ctx, "timeout", 5, open, OCSP_TIMEOUT_MIN, OCSP_TIMEOUT_MAX, getNumber,
                                        setNumber, applyOptions, &module.timeout_seconds) == SERVER_OK &&
           registerString(ctx, "responder-url", "", guarded, STRING_URL) == SERVER_OK &&
           registerString(ctx, "cache-dir", ".", guarded, STRING_DIR) == SERVER_OK &&
           registerString(ctx, "response-file", "", guarded, STRING_FILE) == SERVER_OK &&
           Server_RegisterEnumConfig(ctx, "verify-peers", OCSP_PEERS_NO, open, peers, peers_values, 3, getInt, setInt,
                                     applyOptions, &module.verify_peers) == SERVER_OK;
}

/* ---- the server's settings --------------------------------------------------------------------------------------- */

/* What asking for a setting of the server's has brought. That nothing can be known (CONFIG is renamed or disabled, the
 * value is longer than we take, a file cannot be read) is an answer of its own, and never the same as "empty". */
typedef enum { SETTING_UNKNOWN, SETTING_EMPTY, SETTING_SET } settingResult;

/* Reads a setting of the server's into `out`; "" unless SETTING_SET is returned. A setting that this server does not
 * have is empty. Main thread. */
static settingResult readSetting(ServerCtx *ctx, const char *name, char out[SETTING_MAX]) {
    ServerReply *reply = Server_Call(ctx, "CONFIG", "cc", "GET", name), *value = NULL;
    settingResult result = SETTING_UNKNOWN;
    const char *chars = NULL;
    size_t len = 0;

    out[0] = '\0';
    if (reply && Server_CallReplyType(reply) == SERVER_REPLY_ARRAY) {
        value = Server_CallReplyArrayElement(reply, 1);
        if (value) chars = Server_CallReplyStringPtr(value, &len);
        if (!Server_CallReplyArrayElement(reply, 0) || (chars && len == 0)) result = SETTING_EMPTY;
    }
    if (chars && len > 0 && len < SETTING_MAX && !memchr(chars, 0, len)) {
        memcpy(out, chars, len);
        out[len] = '\0';
        result = SETTING_SET;
    }
    if (reply) Server_FreeCallReply(reply);
    return result;
}

/* Opens a file that the server reads, too, for reading in memory. NULL when it cannot be read, is no regular file or has
 * more than `most` bytes. Never blocks on a pipe, and takes nothing out of one. */
static BIO *openServerFile(const char *path, off_t most) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    BIO *file = BIO_new(BIO_s_mem());
    char part[4096];
    ssize_t n = -1;
    off_t total = 0;
    struct stat st;

    if (fd >= 0 && file && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        while (total <= most && (n = read(fd, part, sizeof(part))) > 0) {
            if (BIO_write(file, part, (int)n) != n) break;
            total += n;
        }
    }
    if (fd >= 0) close(fd);
    if (n == 0 && total <= most) return file;
    BIO_free(file);
    return NULL;
}

/* The next certificate of a PEM file, or NULL. The last argument: no pass phrase. Without it OpenSSL would ask for one
 * on the terminal. */
static X509 *nextCertificate(BIO *file) {
    return PEM_read_bio_X509_AUX(file, NULL, NULL, (void *)"");
}

/* The first certificate of the PEM file that a setting names. */
typedef struct serverLeaf {
    settingResult known;
    unsigned char *der; /* when known is SETTING_SET; OPENSSL_free */
    int len;
} serverLeaf;

static serverLeaf readLeaf(ServerCtx *ctx, const char *setting) {
    serverLeaf leaf = {SETTING_UNKNOWN, NULL, 0};
    char path[SETTING_MAX];
    BIO *file = NULL;
    X509 *cert = NULL;

    leaf.known = readSetting(ctx, setting, path);
    if (leaf.known != SETTING_SET) return leaf;
    file = openServerFile(path, CERT_FILE_MAX);
    if (file) cert = nextCertificate(file);
    if (cert) leaf.len = i2d_X509(cert, &leaf.der);
    if (leaf.len <= 0 || !leaf.der) leaf.known = SETTING_UNKNOWN;
    X509_free(cert);
    BIO_free(file);
    return leaf;
}

/* Whether the server's program has TLS in it, or a module that brings it (BUILD_TLS=module). Its settings do not tell: a
 * server built without has them too. Where the program cannot be asked, it may have. */
static int serverHasTls(void) {
    void *program = dlopen(NULL, RTLD_LAZY); /* and what it is linked with; not what modules brought */
    int has = !program || dlsym(program, "SSL_CTX_new");

    if (program) dlclose(program);
    return has || Server_IsModuleNameBusy("tls");
}

/* Whether the server makes a context at all: with none of these set it makes none, whatever its certificate is. If that
 * cannot be known it may. */
static int mayUseTls(ServerCtx *ctx) {
    static const char *const settings[][2] = {{"tls-port", "0"}, {"tls-replication", "no"}, {"tls-cluster", "no"}};
    char value[SETTING_MAX];
    size_t i;

    for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        settingResult known = readSetting(ctx, settings[i][0], value);
        if (known == SETTING_UNKNOWN || (known == SETTING_SET && strcmp(value, settings[i][1]) != 0)) return 1;
    }
    return 0;
}

/* ---- the server's contexts --------------------------------------------------------------------------------------- */

/* Valkey 9.1 makes its contexts on this thread of its own when tls-auto-reload-interval is set. */
static int onReloadThread(void) {
    char name[16] = "";

    return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && strcmp(name, "bio_tls_reload") == 0;
}

/* Puts a context of the main thread into the list, for main to look at. Where that fails a handshake will show it. */
static void addPending(SSL_CTX *ctx, CRYPTO_EX_DATA *ad, int index) {
    pendingContext *note = Server_TryAlloc(sizeof(*note));

    if (!note) return;
    if (!CRYPTO_set_ex_data(ad, index, note)) {
        Server_Free(note);
        return;
    }
    note->ctx = ctx;
    note->listed = 1;
    note->at_start = !module.turned;
    note->newer = NULL;
    pthread_mutex_lock(&pending_lock);
    note->older = pending;
    if (pending) pending->newer = note;
    pending = note;
    pthread_mutex_unlock(&pending_lock);
    atomic_store_explicit(&any_pending, 1, memory_order_relaxed); /* read by this same thread */
    if (wanted()) subscribeBeforeSleep();
}

/* Behind pending_lock. */
static void unlinkPending(pendingContext *note) {
    if (!note->listed) return;
    if (note->newer) note->newer->older = note->older;
    if (note->older) note->older->newer = note->newer;
    if (pending == note) pending = note->older;
    note->listed = 0;
}

/* Takes the newest context out of the list, with a reference; NULL when there is none. Main thread. */
static SSL_CTX *takePending(int *at_start) {
    SSL_CTX *ctx = NULL;

    pthread_mutex_lock(&pending_lock);
    while (pending && !ctx) {
        pendingContext *note = pending;
        unlinkPending(note);
        *at_start = note->at_start;
        /* While the lock is held a context of the list is not freed, as contextFreed waits. One that is about to be
         * gives no reference any more. */
        if (SSL_CTX_up_ref(note->ctx)) ctx = note->ctx;
    }
    pthread_mutex_unlock(&pending_lock);
    return ctx;
}

/* OpenSSL calls this inside SSL_CTX_new, on the thread that makes the context. */
static void contextMade(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
    SSL_CTX *ctx = parent;
    int on_main = pthread_equal(pthread_self(), main_thread);

    (void)ptr;
    (void)argl;
    (void)argp;
    if (onOcspThread()) return; /* the engine's own, for responders that speak https */
    if (on_main)
        module.hooked = 1;
    else
        atomic_store_explicit(&hooked_elsewhere, 1, memory_order_relaxed); /* no other memory hangs on it */
    if (!on_main && !onReloadThread()) {
        ocspInstallCallbackAs(ctx, OCSP_CONTEXT_FOREIGN);
        return;
    }
    ocspInstallCallbackAs(ctx, on_main ? OCSP_CONTEXT_UNSURE : OCSP_CONTEXT_OF_SERVER);
    ocspInstallPeerCheck(ctx);
    if (!on_main) return; /* its maker may still be filling it when main looks: a handshake will show it */
    if (module.expecting) {
        /* The server makes it once all modules are loaded (a dlopen and a new thread do not go together in old C
         * libraries), and does not listen yet. A module that makes one of its own is earlier, which does no harm else. */
        module.expecting = 0;
        ERR_set_mark();
        ocspCron();
        ERR_pop_to_mark();
        sched_yield(); /* on a single core the thread would wait for us until the server accepts */
    }
    addPending(ctx, ad, index);
}

/* OpenSSL calls this inside SSL_CTX_free, on whatever thread drops the last reference: a reload that failed, or the last
 * connection of an old context. */
static void contextFreed(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
    pendingContext *note = ptr;

    (void)parent;
    (void)ad;
    (void)index;
    (void)argl;
    (void)argp;
    if (!note) return;
    pthread_mutex_lock(&pending_lock);
    unlinkPending(note);
    pthread_mutex_unlock(&pending_lock);
    Server_Free(note);
}

/* A child that the server forks (BGSAVE) has one thread, main. If another thread held pending_lock in that moment, nobody
 * would ever give it back there, and freeing a context in the child would hang. So main holds it across the fork. */
static void lockPending(void) {
    pthread_mutex_lock(&pending_lock);
}

static void unlockPending(void) {
    pthread_mutex_unlock(&pending_lock);
}

/* Returns 0 when out of memory. Once for each time that this file is mapped: the C library drops the handlers when it
 * unmaps it. */
static int guardForks(void) {
    static int guarded;

    if (!guarded) guarded = pthread_atfork(lockPending, unlockPending, unlockPending) == 0;
    return guarded;
}

/* ---- which context serves ---------------------------------------------------------------------------------------- */

typedef enum {
    ROLE_OTHER,  /* for outgoing links, without a certificate, or another module's */
    ROLE_UNSURE, /* it cannot be known: a handshake that it serves will tell */
    ROLE_SERVER
} contextRole;

/* Whether `cert` is `leaf`. ROLE_UNSURE when there is no memory to compare them. */
static contextRole isLeaf(X509 *cert, const serverLeaf *leaf) {
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    contextRole role = ROLE_UNSURE;

    if (der && len > 0) role = len == leaf->len && memcmp(der, leaf->der, (size_t)len) == 0 ? ROLE_SERVER : ROLE_OTHER;
    OPENSSL_free(der);
    return role;
}

/* The same for the certificates of `ctx`: there may be an RSA and an ECDSA one, in any order. */
static contextRole holdsLeaf(SSL_CTX *ctx, const serverLeaf *leaf) {
    X509 *chosen = SSL_CTX_get0_certificate(ctx);
    contextRole role = isLeaf(chosen, leaf), next;
    int more;

    if (role == ROLE_SERVER) return role;
    for (more = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST); more && role != ROLE_SERVER;
         more = SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT)) {
        next = isLeaf(SSL_CTX_get0_certificate(ctx), leaf);
        if (next > role) role = next;
    }
    SSL_CTX_select_current_cert(ctx, chosen);
    return role;
}

/* What a context is that was made on the main thread. `ours`: the server has made it because it was asked to, so that it
 * is no other module's. Contexts look alike otherwise. */
static contextRole roleOf(SSL_CTX *ctx, const serverLeaf *server, const serverLeaf *client, int ours) {
    if (!SSL_CTX_get0_certificate(ctx) || server->known == SETTING_EMPTY) return ROLE_OTHER;
    if (server->known == SETTING_SET) return holdsLeaf(ctx, server);
    if (!ours || client->known == SETTING_UNKNOWN) return ROLE_UNSURE;
    /* The one that has the client's certificate may still be the server's: both may be one file. */
    return client->known == SETTING_EMPTY || holdsLeaf(ctx, client) == ROLE_OTHER ? ROLE_SERVER : ROLE_UNSURE;
}

/* Keeps what follows from a context of the server's having been found. */
static void foundContext(void) {
    module.attached = 1;
    module.unseen = NULL;
    module.logged_stapling = module.logged_peers = module.logged_unsure = 0;
}

/* The engine asks: a handshake has shown a context of the main thread that was not attached. Main thread. */
static int contextServes(SSL_CTX *ctx) {
    serverLeaf server;
    contextRole role = ROLE_OTHER;
    int unknown;

    ERR_set_mark();
    server = readLeaf(log_ctx, "tls-cert-file");
    unknown = server.known == SETTING_UNKNOWN;
    if (server.known == SETTING_SET && SSL_CTX_get0_certificate(ctx)) role = holdsLeaf(ctx, &server);
    OPENSSL_free(server.der);
    ERR_pop_to_mark();
    /* Where the certificate cannot be known, that a context serves handshakes is the best sign that there is. */
    if (unknown || role == ROLE_SERVER) {
        foundContext();
        return 1;
    }
    return role == ROLE_UNSURE ? -1 : 0;
}

/* The server's context is made after modules were loaded, and seen when the event loop first sleeps; by then the kernel
 * takes connections. So that the responder is asked before, what that context will hold is read here, and the thread
 * starts as it is made. Whatever cannot be read the server will complain of. Not for a long list of CAs, which takes
 * long to read, nor beside a second certificate (Valkey 9.2), which has to be read from disk at the same time. */
static void prefetchContext(ServerCtx *ctx) {
    char cert_path[SETTING_MAX], ca_path[SETTING_MAX], other[SETTING_MAX];
    STACK_OF(X509) *certs = sk_X509_new_null();
    X509_STORE *store = X509_STORE_new();
    BIO *cert_file = NULL, *ca_file = NULL;
    settingResult ca, dir = SETTING_UNKNOWN;
    X509 *cert = NULL;

    ERR_set_mark();
    ca = readSetting(ctx, "tls-ca-cert-file", ca_path);
    if (readSetting(ctx, "tls-alt-cert-file", other) == SETTING_EMPTY) dir = readSetting(ctx, "tls-ca-cert-dir", other);
    if (readSetting(ctx, "tls-cert-file", cert_path) == SETTING_SET)
        cert_file = openServerFile(cert_path, EXPECTED_FILE_MAX);
    if (ca == SETTING_SET) ca_file = openServerFile(ca_path, EXPECTED_FILE_MAX);
    if (certs && store && cert_file && dir != SETTING_UNKNOWN && (ca_file || ca == SETTING_EMPTY)) {
        while (sk_X509_num(certs) < CHAIN_MAX && (cert = nextCertificate(cert_file)) && sk_X509_push(certs, cert))
            cert = NULL;
        X509_free(cert);
        while (ca_file && (cert = nextCertificate(ca_file))) {
            X509_STORE_add_cert(store, cert);
            X509_free(cert);
        }
        if (dir == SETTING_SET) X509_STORE_load_path(store, other);
        module.expecting = sk_X509_num(certs) > 0;
        if (module.expecting) ocspPrefetchContext(certs, store);
    }
    BIO_free(cert_file);
    BIO_free(ca_file);
    sk_X509_pop_free(certs, X509_free);
    X509_STORE_free(store);
    ERR_pop_to_mark();
}

/* Looks at what was pending and attaches the newest context that serves. `ours`: see roleOf. Main thread. */
static void attachPending(ServerCtx *ctx, int ours) {
    serverLeaf server, client;
    SSL_CTX *next, *chosen = NULL;
    int at_start;

    ERR_set_mark();
    server = readLeaf(ctx, "tls-cert-file");
    client = readLeaf(ctx, "tls-client-cert-file");
    atomic_store_explicit(&any_pending, 0, memory_order_relaxed);
    while ((next = takePending(&at_start)) != NULL) {
        contextRole role = roleOf(next, &server, &client, ours);
        /* A later one is more likely another module's, and the server's first one is not to be seen. */
        if (role == ROLE_UNSURE && at_start) module.unsure = 1;
        if (role == ROLE_SERVER && !chosen)
            chosen = next;
        else
            SSL_CTX_free(next);
    }
    if (chosen) {
        foundContext();
        ocspAttachContext(chosen);
        SSL_CTX_free(chosen);
    }
    OPENSSL_free(server.der);
    OPENSSL_free(client.der);
    ERR_pop_to_mark();
}

/* ---- contexts that were made before we could see them ------------------------------------------------------------ */

/* Where the server's program has an OpenSSL in it and shows its names, the loader binds this module to those, and to
 * libcrypto for what the program left out. Objects of one must not get into the hands of the other: where it cannot be
 * known, they are taken for two. */
static int opensslIsMixed(void) {
    Dl_info one, other;

    return !dladdr((void *)CRYPTO_get_ex_new_index, &one) || !dladdr((void *)OCSP_basic_verify, &other) ||
           one.dli_fbase != other.dli_fbase;
}

/* What is asked for cannot be done. Told once for each of the two: a check that does not happen is no detail. */
static void logUnseen(const char *why) {
    char sentence[OCSP_SENTENCE_MAX];

    if (module.stapling && !module.logged_stapling) {
        snprintf(sentence, sizeof(sentence), "nothing is stapled: %s", why);
        moduleLog(OCSP_LOG_WARNING, sentence);
        module.logged_stapling = 1;
    }
    if (module.verify_peers && !module.logged_peers) {
        ocspPeerCheckUnavailable(why);
        module.logged_peers = 1;
    }
}

/* The server's contexts cannot be seen: not before something changes, and perhaps never. */
static void cannotSee(const char *why) {
    ocspPrefetchContext(NULL, NULL);
    module.unseen = why;
    logUnseen(why);
}

static time_t monotonicSeconds(void) {
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

/* A file that the server reads for a context and that is no regular one, a pipe, say: to have it read again would block
 * the server. Returns the setting's name, or NULL. */
static const char *irregularFile(ServerCtx *ctx) {
    static const char *const settings[] = {"tls-cert-file",       "tls-key-file",       "tls-client-cert-file",
                                           "tls-client-key-file", "tls-dh-params-file", "tls-ca-cert-file",
                                           "tls-alt-cert-file",   "tls-alt-key-file"};
    char path[SETTING_MAX];
    struct stat st;
    size_t i;

    for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        if (readSetting(ctx, settings[i], path) == SETTING_SET && stat(path, &st) == 0 && !S_ISREG(st.st_mode))
            return settings[i];
    return NULL;
}

/* Has the server make its contexts anew, from the certificate file `path` that it has. 0 with a sentence when it
 * refuses. */
static int remakeContexts(ServerCtx *ctx, const char *path, char *why, size_t size) {
    const char *chars = NULL, *irregular = irregularFile(ctx);
    ServerReply *reply = NULL;
    size_t len = 0;
    int done;

    if (irregular) {
        snprintf(why, size,
                 "%s is not a regular file, so the server is not asked to load it again, which could block it: load "
                 "this module at the server's start (loadmodule), or use a regular file; it is tried each minute",
                 irregular);
        return 0;
    }
    reply = Server_Call(ctx, "CONFIG", "ccc", "SET", "tls-cert-file", path);
    done = reply && Server_CallReplyType(reply) != SERVER_REPLY_ERROR;
    if (!done) {
        if (reply) chars = Server_CallReplyStringPtr(reply, &len);
        if (len > OCSP_SENTENCE_MAX / 2) len = OCSP_SENTENCE_MAX / 2;
        snprintf(why, size,
                 "the server does not load its tls-cert-file again (%.*s): mend that; it is tried each minute",
                 chars ? (int)len : 0, chars ? chars : "");
    }
    if (reply) Server_FreeCallReply(reply);
    return done;
}

/* The server cannot be made to show its contexts. Those that were made after us are followed and checked all the same:
 * that nothing is, is told only if there are none. */
static void reloadFailed(const char *why) {
    char sentence[OCSP_SENTENCE_MAX];

    module.reload_tried = 0;
    module.reload_retry_at = monotonicSeconds() + RELOAD_RETRY_SECONDS;
    if (!module.unsure) {
        logUnseen(why);
    } else if (!module.logged_unsure) {
        snprintf(sentence, sizeof(sentence),
                 "stapling begins after the first handshake that asks for a status, because which TLS context serves "
                 "cannot be known before: %s",
                 why);
        moduleLog(OCSP_LOG_NOTICE, sentence);
        module.logged_unsure = 1;
    }
}

/* A server that made its context before we could see it (Redis 7.0 at its start; any server at a run-time MODULE LOAD)
 * makes another when its own certificate file is set again. */
static void forceTlsReload(ServerCtx *ctx) {
    char path[SETTING_MAX], tls_port[SETTING_MAX], why[OCSP_SENTENCE_MAX];
    settingResult cert;

    module.reload_tried = 1;
    cert = readSetting(ctx, "tls-cert-file", path);
    if (readSetting(ctx, "tls-port", tls_port) == SETTING_SET && strcmp(tls_port, "0") == 0 && !serverHasTls()) {
        moduleLog(OCSP_LOG_NOTICE, "this server was built without TLS: there is nothing to staple");
        return;
    }
    if (cert == SETTING_EMPTY) {
        moduleLog(OCSP_LOG_NOTICE, "TLS is not configured (tls-cert-file is empty): there is nothing to staple");
        module.reload_tried =
            0; /* tls-cert-file may be set later: then its context is pending, and this is not asked again */
        module.attached = 1;
        return;
    }
    if (cert == SETTING_UNKNOWN) {
        reloadFailed(cannot_read);
        return;
    }
    if (!remakeContexts(ctx, path, why, sizeof(why))) {
        ocspPrefetchContext(NULL, NULL);
        reloadFailed(why);
    }
    if (anyPending())
        attachPending(ctx, module.reload_tried);
    else if (module.reload_tried && mayUseTls(ctx))
        cannotSee(foreign_openssl);
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void tick(ServerCtx *ctx) {
    module.turned = 1;
    if (anyPending()) attachPending(ctx, 0);
    if (wanted() && module.unseen) logUnseen(module.unseen);
    if (wanted() && !module.attached && !module.reload_tried && monotonicSeconds() >= module.reload_retry_at)
        forceTlsReload(ctx);
    ocspCron();
}

static void eventLoopEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)data;
    if (subevent != SERVER_SUBEVENT_BEFORE_SLEEP) return;
    tick(ctx);
    /* With verify-peers on, what became of a link is told at once. */
    if (!module.unsubscribe_queued && !module.verify_peers)
        module.unsubscribe_queued = Server_EventLoopAddOneShot(unsubscribeBeforeSleep, NULL) == SERVER_OK;
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
    module.turned = 1;
    if (subevent > SERVER_SUBEVENT_LOADING_LAST_START) return;
    if (anyPending()) attachPending(ctx, 0);
    if (module.attached) ocspCron();
}

static void shutdownEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)ctx;
    (void)event;
    (void)subevent;
    (void)data;
    module.shutting_down = 1;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

typedef enum { DEBUG_DENIED, DEBUG_ALLOWED, DEBUG_ABSENT } debugRight;

/* Whether this command's user may run DEBUG. DEBUG_ABSENT: the server has no command of that name (rename-command), so
 * that there is nothing to be allowed. Main thread. */
static debugRight mayDebug(ServerCtx *ctx) {
    ServerString *argv[2] = {Server_CreateString(NULL, "DEBUG", 5),
                             Server_CreateString(NULL, DEBUG_SUBCOMMAND, strlen(DEBUG_SUBCOMMAND))};
    ServerString *name = Server_GetCurrentUserName(ctx);
    ServerUser *user = name ? Server_GetModuleUserFromUserName(name) : NULL;
    debugRight right = DEBUG_DENIED;

    if (user) {
        errno = 0;
        if (Server_ACLCheckCommandPermissions(user, argv, 2) == SERVER_OK)
            right = DEBUG_ALLOWED;
        else if (errno == ENOENT)
            right = DEBUG_ABSENT;
        Server_FreeModuleUser(user);
    }
    if (name) Server_FreeString(ctx, name);
    Server_FreeString(NULL, argv[0]);
    Server_FreeString(NULL, argv[1]);
    return right;
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

/* A failure whose reason there is no memory for. It is a failure all the same. */
static char reason_lost[] =
    "ERR the refresh failed, and there is no memory to say why: see ocsp_last_error in INFO ocsp";

static void freeReply(ServerCtx *ctx, void *error) {
    (void)ctx;
    if (error != reason_lost) Server_Free(error);
}

/* The outcome of a refresh goes to the client that waits for it. `error` is NULL for success. On the OCSP thread. */
static void refreshDone(void *blocked_client, const char *error) {
    size_t size = error ? strlen(error) + 5 : 0;
    char *reply = error ? Server_TryAlloc(size) : NULL;

    if (reply)
        snprintf(reply, size, "ERR %s", error);
    else if (error)
        reply = reason_lost;
    Server_UnblockClient(blocked_client, reply);
}

/* Whether this command's user may have a refresh, and if not, why. The server has checked the right to OCSP.REFRESH
 * before; whoever may not run DEBUG may not refresh either. */
static int mayRefresh(ServerCtx *ctx, int is_debug, const char **why) {
    debugRight right = mayDebug(ctx);

    *why = NULL;
    if (right == DEBUG_DENIED)
        *why = "NOPERM this user has no permissions to run the 'debug' command";
    else if (is_debug && right == DEBUG_ABSENT)
        *why = "ERR unknown command 'debug': it is renamed or disabled here. Use OCSP.REFRESH";
    else if (is_debug && module.debug_is_local && !isLocal(ctx))
        *why = "ERR DEBUG command not allowed. If the enable-debug-command option is set to "
               "\"local\", you can run it from a local connection, otherwise you need to set "
               "this option in the configuration file, and then restart the server.";
    return !*why;
}

static int refreshCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    int is_debug = argc == 2 && strcasecmp(Server_StringPtrLen(argv[1], NULL), DEBUG_SUBCOMMAND) == 0;
    ServerBlockedClient *client = NULL;
    const char *refusal;
    char why[OCSP_SENTENCE_MAX] = "the server cannot block this client", error[OCSP_SENTENCE_MAX + 8];

    if (argc != 1 && !is_debug) return Server_WrongArity(ctx);
    if (!mayRefresh(ctx, is_debug, &refusal)) return Server_ReplyWithError(ctx, refusal);
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

/* Sees to it that DEBUG OCSP-REFRESH works where DEBUG does. Whether it does is fixed while the server runs; where it is
 * off, no command pays for a filter. Where it cannot be known, it is taken for off. */
static int registerDebug(ServerCtx *ctx) {
    char allowed[SETTING_MAX];
    settingResult known = readSetting(ctx, "enable-debug-command", allowed);

    if (known == SETTING_UNKNOWN)
        moduleLog(OCSP_LOG_NOTICE, "DEBUG OCSP-REFRESH is not available, as enable-debug-command cannot be read (the "
                                   "CONFIG command is renamed or disabled): use OCSP.REFRESH");
    module.debug_is_local = strcmp(allowed, "local") == 0;
    if (!module.debug_is_local && strcmp(allowed, "yes") != 0) return 1;
    module.filter = Server_RegisterCommandFilter(ctx, debugFilter, 0);
    return module.filter != NULL;
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

static const struct {
    ServerEvent event;
    ServerEventFn *fn;
} events[EVENTS] = {
    [EVENT_BEFORE_SLEEP] = {{SERVER_EVENT_EVENTLOOP, 1}, eventLoopEvent},
    [EVENT_CRON] = {{SERVER_EVENT_CRON_LOOP, 1}, cronEvent},
    [EVENT_LOADING] = {{SERVER_EVENT_LOADING, 1}, loadingEvent},
    [EVENT_SHUTDOWN] = {{SERVER_EVENT_SHUTDOWN, 1}, shutdownEvent},
};

static int subscribeAll(ServerCtx *ctx) {
    int i;

    for (i = 0; i < EVENTS; i++) {
        if (!module.subscribed[i])
            module.subscribed[i] = Server_SubscribeToServerEvent(ctx, events[i].event, events[i].fn) == SERVER_OK;
        if (!module.subscribed[i]) return 0;
    }
    return 1;
}

/* What may fail. Whatever has come about by then is undone by endModule. */
static int loadModule(ServerCtx *ctx) {
    static const ocspHost host = {moduleLog, moduleAlloc, moduleFree, moduleThreadStarted, contextServes};

    return ocspInit(&host) && registerDirectives(ctx) && Server_LoadConfigs(ctx) == SERVER_OK &&
           Server_CreateCommand(ctx, REFRESH_COMMAND, refreshCommand, "admin deny-script allow-loading allow-stale", 0,
                                0, 0) == SERVER_OK &&
           registerDebug(ctx) && Server_RegisterInfoFunc(ctx, info) == SERVER_OK && subscribeAll(ctx) && guardForks() &&
           applyOptions(ctx, NULL, NULL) == SERVER_OK;
}

/* Keeps this file mapped when the server closes it. */
static void stayMapped(void) {
    Dl_info self;

    if (dladdr((void *)stayMapped, &self)) (void)dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

/* Undoes all that a load has done, complete or not, so that the server may close this file, and load it again. Only
 * before the event loop has turned: no thread of ours runs and no one-shot is on its way. Main thread.
 *
 * The server itself undoes part of it, and on some releases not all: Redis 7.0 forgets filters and subscriptions when
 * OnLoad fails. */
static void endModule(ServerCtx *ctx) {
    int i;

    if (hook_index >= 0) CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL_CTX, hook_index);
    hook_index = -1;
    /* Another thread may have made a context between OnLoad and OnUnload; it has our callback as long as it lives. */
    if (atomic_load_explicit(&hooked_elsewhere, memory_order_relaxed)) stayMapped();
    for (i = 0; i < EVENTS; i++)
        if (module.subscribed[i]) Server_SubscribeToServerEvent(ctx, events[i].event, NULL);
    if (module.filter) Server_UnregisterCommandFilter(ctx, module.filter);
    ocspShutdown();
    atomic_store_explicit(&ocsp_thread, 0, memory_order_relaxed);
    for (i = 0; i < STRINGS; i++)
        if (module.strings[i]) Server_FreeString(NULL, module.strings[i]);
    Server_FreeThreadSafeContext(log_ctx);
    log_ctx = NULL;
    module = (struct moduleState)AT_LOAD;
}

/* Installs the hook. It is the last step of a load, as it sees contexts from then on. Main thread. */
static void hookContexts(ServerCtx *ctx) {
    if (opensslIsMixed()) {
        module.unseen = foreign_openssl;
        module.reload_tried = 1;
        return;
    }
    if (module.stapling && serverHasTls() && mayUseTls(ctx))
        prefetchContext(ctx); /* before the hook, which need not see it */
    hook_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, contextMade, NULL, contextFreed);
    if (hook_index >= 0) return;
    ocspPrefetchContext(NULL, NULL);
    module.expecting = 0;
    module.unseen = no_hook;
    module.reload_tried = 1;
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
    if (Server_IsModuleNameBusy(MODULE_NAME)) {
        Server_Log(ctx, "warning",
                   "a module of the name \"" MODULE_NAME
                   "\" is loaded already: remove the second loadmodule line, or do "
                   "not load it again");
        return SERVER_ERR;
    }
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
        endModule(ctx);
        return SERVER_ERR;
    }
    hookContexts(ctx);
    return SERVER_OK;
}

/* Once the event loop has turned, contexts, OpenSSL and threads hold pointers into this file, so it must stay. Before
 * that the server asks when a setting came with the module (MODULE LOADEX) that it does not have; Redis 8 ends itself if
 * the answer is no. */
static int onUnload(ServerCtx *ctx) {
    if (!module.turned && !module.hooked && !module.shutting_down) {
        endModule(ctx);
        return SERVER_OK;
    }
    if (!module.shutting_down) /* Valkey 9.1 asks at shutdown too */
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
