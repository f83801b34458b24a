/* ocsp_module_ctx.c - finds the server's SSL_CTX, which a module cannot ask it for.
 *
 * DESIGN: an ex_data index for SSL_CTX has a function that OpenSSL calls inside every SSL_CTX_new: there the status callback
 * is set and the context noted. Its certificate comes later; before the event loop sleeps, which is before the first
 * accept, the main thread looks at the pending contexts and attaches the server's. What that will serve is read at load
 * already, so that the responder is asked before the kernel takes connections.
 *
 * Other modules make contexts, too, and may listen with them. The server makes its contexts on the main thread, or on
 * the thread bio_tls_reload (Valkey 9.1): a context of another thread is foreign. One of the main thread is the server's
 * if it has the certificate of tls-cert-file. One of bio_tls_reload cannot be looked at from here while it is made, and
 * is attached once it has served a handshake. Where the settings of the server cannot be read (CONFIG is renamed), the
 * same holds for contexts of the main thread.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_module.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/err.h>

#define CHAIN_MAX 100           /* certificates of tls-cert-file that are read before the server has read them */
#define EXPECTED_FILE_MAX 65536 /* bytes of a file that is */
#define RELOAD_RETRY_SECONDS 60 /* between two tries to have the server make a context that we see */

static void (*pending_added)(void); /* written at load, before the hook can run */
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
    "the server's TLS context cannot be seen, because the server's OpenSSL is not the one that this module uses (is "
    "it linked statically?). Build a patched server instead";
static const char no_hook[] =
    "OpenSSL has no room for the module's hook, so the server's TLS context cannot be seen. Restart the server";
static const char cannot_read[] =
    "the server's TLS settings cannot be read, because its CONFIG command is renamed or disabled. If the module was "
    "loaded at run time, load it at the server's start instead (loadmodule)";

void moduleThreadStarted(void) {
    atomic_store_explicit(&ocsp_thread, pthread_self(), memory_order_relaxed); /* matters to this thread alone */
}

void forgetOcspThread(void) {
    atomic_store_explicit(&ocsp_thread, 0, memory_order_relaxed);
}

void rememberMainThread(void) {
    main_thread = pthread_self();
}

int anyPending(void) {
    return moduleWanted() && atomic_load_explicit(&any_pending, memory_order_relaxed);
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
    pending_added();
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
int guardForks(void) {
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
int contextServes(SSL_CTX *ctx) {
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
void attachPending(ServerCtx *ctx, int ours) {
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

/* What is asked for cannot be done. Told once for each of the two: a check that does not happen is no detail. */
void logUnseen(const char *why) {
    char sentence[OCSP_SENTENCE_MAX];

    if (module.options.stapling && !module.logged_stapling) {
        snprintf(sentence, sizeof(sentence), "nothing is stapled: %s", why);
        moduleLog(OCSP_LOG_WARNING, sentence);
        module.logged_stapling = 1;
    }
    if (module.options.verify_peers && !module.logged_peers) {
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

int reloadDue(void) {
    return !module.attached && !module.reload_tried && monotonicSeconds() >= module.reload_retry_at;
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
                 "%s is not a regular file. The server is not asked to load it again, because that could block the "
                 "server: load this module at the server's start (loadmodule), or use a regular file. The module tries "
                 "again every minute",
                 irregular);
        return 0;
    }
    reply = Server_Call(ctx, "CONFIG", "ccc", "SET", "tls-cert-file", path);
    done = reply && Server_CallReplyType(reply) != SERVER_REPLY_ERROR;
    if (!done) {
        if (reply) chars = Server_CallReplyStringPtr(reply, &len);
        if (len > OCSP_SENTENCE_MAX / 2) len = OCSP_SENTENCE_MAX / 2;
        snprintf(why, size,
                 "the server does not load its tls-cert-file again (%.*s): correct that; the module tries again every "
                 "minute",
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
        snprintf(
            sentence, sizeof(sentence),
            "stapling begins after the first handshake that requests a status, because it is not known before which "
            "TLS context serves: %s",
            why);
        moduleLog(OCSP_LOG_NOTICE, sentence);
        module.logged_unsure = 1;
    }
}

/* A server that made its context before we could see it (Redis 7.0 at its start; any server at a run-time MODULE LOAD)
 * makes another when its own certificate file is set again. */
void forceTlsReload(ServerCtx *ctx) {
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

/* Installs the hook. It is the last step of a load, as it sees contexts from then on. Main thread. */
void hookContexts(ServerCtx *ctx, void (*added)(void)) {
    pending_added = added;
    if (opensslIsMixed()) {
        module.unseen = foreign_openssl;
        module.reload_tried = 1;
        return;
    }
    if (module.options.stapling && serverHasTls() && mayUseTls(ctx))
        prefetchContext(ctx); /* before the hook, which need not see it */
    hook_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, contextMade, NULL, contextFreed);
    if (hook_index >= 0) return;
    ocspPrefetchContext(NULL, NULL);
    module.expecting = 0;
    module.unseen = no_hook;
    module.reload_tried = 1;
}

/* Keeps this file mapped when the server closes it. */
static void stayMapped(void) {
    Dl_info self;

    if (dladdr((void *)stayMapped, &self)) (void)dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

void unhookContexts(void) {
    if (hook_index >= 0) CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL_CTX, hook_index);
    hook_index = -1;
    /* Another thread may have made a context between OnLoad and OnUnload; it has our callback as long as it lives. */
    if (atomic_load_explicit(&hooked_elsewhere, memory_order_relaxed)) stayMapped();
}
