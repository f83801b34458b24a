/* ocsp_module_ctx.c - finds the server's SSL_CTX, for which the module API has no function.
 *
 * DESIGN: the module registers an ex_data index for SSL_CTX, whose function OpenSSL calls inside every SSL_CTX_new.
 * That function sets the status callback and lists the context as pending; its certificate is loaded later. Before the
 * event loop sleeps, and so before the first accept, the main thread examines the pending contexts and attaches the
 * server's. The certificate is already read at load, so that the responder is queried before the kernel accepts
 * connections.
 *
 * Other modules create contexts, too, and may listen with them. The server creates its contexts on the main thread or
 * on the thread bio_tls_reload (Valkey 9.1); a context of any other thread is foreign. A context of the main thread is
 * the server's if it has the certificate of tls-cert-file. A context of bio_tls_reload cannot be examined from here
 * while it is being filled, and is attached once it has served a handshake. So are contexts of the main thread if the
 * server's settings cannot be read (CONFIG is renamed).
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

#define CHAIN_MAX 100           /* certificates read from tls-cert-file for the prefetch */
#define EXPECTED_FILE_MAX 65536 /* bytes of a file that is read for the prefetch */
#define RELOAD_RETRY_SECONDS 60 /* between two tries of forceTlsReload */

static void (*pending_added)(void); /* written at load, before the hook can run */
static pthread_t main_thread;

/* A context created on the main thread; lives from SSL_CTX_new to SSL_CTX_free. It is in the list until its certificate
 * is examined. */
typedef struct pendingContext {
    SSL_CTX *ctx;
    int listed;
    int at_start; /* created before the event loop ran, like the server's first contexts */
    struct pendingContext *newer, *older;
} pendingContext;

static pthread_mutex_t pending_lock = PTHREAD_MUTEX_INITIALIZER;
static pendingContext *pending;     /* the newest; protected by pending_lock */
static atomic_int any_pending;      /* the list may have entries; saves the event loop from taking the lock */
static atomic_int hooked_elsewhere; /* a context of another thread refers to this file; written there, read by main */
static int hook_index = -1;         /* written at load, before the hook can run, and at unload */

/* The OCSP thread, or 0; written by that thread. Not thread-local storage: see ocspMyStripe. */
static _Atomic(pthread_t) ocsp_thread;

static int onOcspThread(void) {
    return pthread_equal(pthread_self(), atomic_load_explicit(&ocsp_thread, memory_order_relaxed));
}

/* Why the server's contexts cannot be seen, each as half a sentence. */
static const char no_hook[] =
    "OpenSSL has no room for the module's hook, so the server's TLS context cannot be seen. Restart the server";
static const char cannot_read[] =
    "the server's TLS settings cannot be read, because its CONFIG command is renamed or disabled. If the module was "
    "loaded at run time, load it at the server's start instead (loadmodule)";

void moduleThreadStarted(void) {
    pthread_setname_np(pthread_self(), OCSP_THREAD_NAME);
    atomic_store_explicit(&ocsp_thread, pthread_self(), memory_order_relaxed); /* only this thread depends on it */
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

/* Returns 1 on the thread that creates contexts in Valkey 9.1 when tls-auto-reload-interval is set. Any thread. */
static int onReloadThread(void) {
    char name[16] = "";

    return pthread_getname_np(pthread_self(), name, sizeof(name)) == 0 && strcmp(name, "bio_tls_reload") == 0;
}

/* Adds a context to the list. Main, inside SSL_CTX_new. If there is no memory, the first handshake reveals the
 * context. */
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
    atomic_store_explicit(&any_pending, 1, memory_order_relaxed); /* read by this thread only */
    pending_added();
}

/* Removes a context from the list. With pending_lock held. */
static void unlinkPending(pendingContext *note) {
    if (!note->listed) return;
    if (note->newer) note->newer->older = note->older;
    if (note->older) note->older->newer = note->newer;
    if (pending == note) pending = note->older;
    note->listed = 0;
}

/* Takes the newest context out of the list, with a reference for the caller; NULL: the list is empty. Main. */
static SSL_CTX *takePending(int *at_start) {
    SSL_CTX *ctx = NULL;

    pthread_mutex_lock(&pending_lock);
    while (pending && !ctx) {
        pendingContext *note = pending;
        unlinkPending(note);
        *at_start = note->at_start;
        /* While the lock is held no listed context is freed, because contextFreed waits for the lock. A context that is
         * being freed refuses the reference. */
        if (SSL_CTX_up_ref(note->ctx)) ctx = note->ctx;
    }
    pthread_mutex_unlock(&pending_lock);
    return ctx;
}

/* Installs the callbacks in a new context. OpenSSL calls this inside SSL_CTX_new, on the thread that creates the
 * context. */
static void contextMade(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int index, long argl, void *argp) {
    SSL_CTX *ctx = parent;
    int on_main = pthread_equal(pthread_self(), main_thread);

    (void)ptr;
    (void)argl;
    (void)argp;
    if (onOcspThread()) return; /* the engine's own context, for https responders */
    if (on_main)
        module.hooked = 1;
    else
        atomic_store_explicit(&hooked_elsewhere, 1, memory_order_relaxed); /* no other memory depends on it */
    if (!on_main && !onReloadThread()) {
        ocspInstallCallbackAs(ctx, OCSP_CONTEXT_FOREIGN);
        return;
    }
    ocspInstallCallbackAs(ctx, on_main ? OCSP_CONTEXT_UNSURE : OCSP_CONTEXT_OF_SERVER);
    ocspInstallPeerCheck(ctx);
    if (!on_main) return; /* main could examine it before it is filled: a handshake will reveal it */
    if (module.expecting) {
        /* The server creates this context after all modules were loaded (in old C libraries a dlopen and a new thread
         * do not go together) and before it listens. Another module's context may come earlier, which is harmless. */
        module.expecting = 0;
        ERR_set_mark();
        ocspLateCron();
        ERR_pop_to_mark();
        sched_yield(); /* on a single core the OCSP thread would not run before the server accepts */
    }
    addPending(ctx, ad, index);
}

/* Removes a context from the list and frees its entry. OpenSSL calls this inside SSL_CTX_free, on the thread that drops
 * the last reference: after a failed reload, or with the last connection of an old context. */
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

/* Main holds pending_lock across fork(). A forked child (BGSAVE) has the main thread only: if another thread held the
 * lock at the fork, nothing would release it in the child, and freeing a context there would hang. */
static void lockPending(void) {
    pthread_mutex_lock(&pending_lock);
}

static void unlockPending(void) {
    pthread_mutex_unlock(&pending_lock);
}

/* Registers those fork handlers, once while this file is mapped; the C library drops them when it unmaps this file. */
int guardForks(void) {
    static int guarded;

    if (!guarded) guarded = pthread_atfork(lockPending, unlockPending, unlockPending) == 0;
    return guarded;
}

/* ---- which context serves ---------------------------------------------------------------------------------------- */

typedef enum {
    ROLE_OTHER,  /* for outgoing links, without a certificate, or another module's */
    ROLE_UNSURE, /* not known until the context serves a handshake */
    ROLE_SERVER
} contextRole;

/* Compares `cert` with `leaf`: ROLE_SERVER if they are equal, ROLE_UNSURE when out of memory. */
static contextRole isLeaf(X509 *cert, const serverLeaf *leaf) {
    unsigned char *der = NULL;
    int len = i2d_X509(cert, &der);
    contextRole role = ROLE_UNSURE;

    if (der && len > 0) role = len == leaf->len && memcmp(der, leaf->der, (size_t)len) == 0 ? ROLE_SERVER : ROLE_OTHER;
    OPENSSL_free(der);
    return role;
}

/* The same for all certificates of `ctx`: there may be an RSA and an ECDSA one, in any order. */
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

/* Classifies a context created on the main thread. `requested`: forceTlsReload made the server create it, so the context is
 * not another module's. */
static contextRole roleOf(SSL_CTX *ctx, const serverLeaf *server, const serverLeaf *client, int requested) {
    if (!SSL_CTX_get0_certificate(ctx) || server->known == SETTING_EMPTY) return ROLE_OTHER;
    if (server->known == SETTING_SET) return holdsLeaf(ctx, server);
    if (!requested || client->known == SETTING_UNKNOWN) return ROLE_UNSURE;
    /* A context with the client certificate may still be the server's: tls-client-cert-file may name the same file. */
    return client->known == SETTING_EMPTY || holdsLeaf(ctx, client) == ROLE_OTHER ? ROLE_SERVER : ROLE_UNSURE;
}

/* Records that a context of the server was found. */
static void foundContext(void) {
    module.attached = 1;
    module.unseen = NULL;
    module.logged_stapling = module.logged_peers = module.logged_unsure = 0;
}

/* Implements `serves` of ocspLateInit for a context of the main thread that a handshake revealed. */
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
    /* If tls-cert-file cannot be read, serving handshakes is the best evidence there is. */
    if (unknown || role == ROLE_SERVER) {
        foundContext();
        return 1;
    }
    return role == ROLE_UNSURE ? -1 : 0;
}

/* Reads the certificate that the server's context will have and prefetches its response. At load.
 *
 * The server's context is examined when the event loop first sleeps, and by then the kernel accepts connections. With
 * the prefetch the thread starts, and queries the responder, as soon as the context is created. Files that cannot be
 * read are left to the server to report. No prefetch with large CA files, which take long to read, or with a second
 * certificate (Valkey 9.2), whose cached response would have to be read at the same time. */
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

/* Empties the list and attaches the newest context of the server in it. `requested`: see roleOf. */
void attachPending(ServerCtx *ctx, int requested) {
    serverLeaf server, client;
    SSL_CTX *next, *chosen = NULL;
    int at_start;

    ERR_set_mark();
    server = readLeaf(ctx, "tls-cert-file");
    client = readLeaf(ctx, "tls-client-cert-file");
    atomic_store_explicit(&any_pending, 0, memory_order_relaxed);
    while ((next = takePending(&at_start)) != NULL) {
        contextRole role = roleOf(next, &server, &client, requested);
        /* Later contexts are more likely another module's; they do not make up for the server's first one. */
        if (role == ROLE_UNSURE && at_start) module.unsure = 1;
        if (role == ROLE_SERVER && !chosen)
            chosen = next;
        else
            SSL_CTX_free(next);
    }
    if (chosen) {
        foundContext();
        ocspLateAttach(chosen);
        SSL_CTX_free(chosen);
    }
    OPENSSL_free(server.der);
    OPENSSL_free(client.der);
    ERR_pop_to_mark();
}

/* ---- contexts that were created before the hook ------------------------------------------------------------------ */

/* Logs, once for stapling and once for verify-peers, that a directive which is on has no effect. A peer check that does
 * not happen must not go unnoticed. */
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

/* Records and logs that the server's contexts cannot be seen, perhaps never; cancels the prefetch. */
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

/* Makes the server create its contexts anew by setting tls-cert-file to its current value, `path`. Returns 0 with a
 * sentence in `why` if the server refuses or if that could block it. */
static int remakeContexts(ServerCtx *ctx, const char *path, char *why, size_t size) {
    const char *chars = NULL, *irregular = irregularFile(ctx);
    ServerReply *reply = NULL;
    size_t len = 0;
    int done;

    if (irregular) {
        snprintf(why, size,
                 "%s is not a regular file. The server is not asked to load it again, because that could block the "
                 "server: load this module at the server's start (loadmodule), or use a regular file. The module "
                 "tries "
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
                 "the server does not load its tls-cert-file again (%.*s): correct that; the module tries again "
                 "every "
                 "minute",
                 chars ? (int)len : 0, chars ? chars : "");
    }
    if (reply) Server_FreeCallReply(reply);
    return done;
}

/* Logs that forceTlsReload failed and schedules a retry. Contexts created after the hook are stapled for and checked
 * all the same: only without any such context is the failure a warning. */
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

/* Makes the server create a context that the hook sees. For servers that created theirs before the hook (Redis 7.0 at
 * startup, any server at a run-time MODULE LOAD): they create another when tls-cert-file is set to its own value. */
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
            0; /* if tls-cert-file is set later, the hook sees the new context and no reload is needed */
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
        cannotSee(foreignOpenssl());
}

/* Installs the hook, which sees every context created from then on: therefore the last step of a load. */
void hookContexts(ServerCtx *ctx, void (*added)(void)) {
    pending_added = added;
    if (opensslIsMixed()) {
        module.unseen = foreignOpenssl();
        module.reload_tried = 1;
        return;
    }
    if (module.options.stapling && serverHasTls() && mayUseTls(ctx))
        prefetchContext(ctx); /* before the hook is installed: it is not needed here */
    hook_index = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, contextMade, NULL, contextFreed);
    if (hook_index >= 0) return;
    ocspPrefetchContext(NULL, NULL);
    module.expecting = 0;
    module.unseen = no_hook;
    module.reload_tried = 1;
}

/* Keeps this file mapped after the server's dlclose. */
static void stayMapped(void) {
    Dl_info self;

    if (dladdr((void *)stayMapped, &self)) (void)dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

void unhookContexts(void) {
    if (hook_index >= 0) CRYPTO_free_ex_index(CRYPTO_EX_INDEX_SSL_CTX, hook_index);
    hook_index = -1;
    /* A context that another thread created between OnLoad and OnUnload refers to the callback as long as it lives. */
    if (atomic_load_explicit(&hooked_elsewhere, memory_order_relaxed)) stayMapped();
}
