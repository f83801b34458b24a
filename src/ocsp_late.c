/* ocsp_late.c - contexts that the host could not hand over when they were made, adopted once they serve a handshake; see
 * ocsp_late.h. Not in a patched server.
 *
 * DESIGN: the status callback of such a context queues it in `pending_ctx`, without a lock, if the certificates that are
 * followed are not this context's. The main thread takes it from there and attaches it, unless it is other code's or older
 * than the one in service.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_late.h"
#include "ocsp_worker.h"
#if OCSP_SUPPORTED

static _Atomic(SSL_CTX *) pending_ctx; /* owns a reference; set by a handshake or by main, taken by main */

/* Main thread only. */
static int (*context_serves)(SSL_CTX *ctx);
static int context_index = -1;    /* ex_data index of a context's mark, see below */
static uintptr_t attached_number; /* number of the context attached last */
static int attach_told;           /* the lack of memory to attach a context was logged */

/* ---- marks ------------------------------------------------------------------------------------------------------- */

/* A context's mark: its number in order of creation, and flags. Written by the thread that creates the context, later
 * by the main thread; handshakes do not read the mark. */
#define OCSP_MARK_ATTACHED 1 /* passed to ocspAttachContext */
#define OCSP_MARK_SERVER 2   /* created by the server */
#define OCSP_MARK_REJECTED 4 /* created by other code: never adopted */
#define OCSP_MARK_FLAGS 3    /* number of flag bits; the context's number is above them */

static uintptr_t ocspMark(SSL_CTX *ctx) {
    return (uintptr_t)SSL_CTX_get_ex_data(ctx, context_index);
}

static uintptr_t ocspNumber(SSL_CTX *ctx) {
    return ocspMark(ctx) >> OCSP_MARK_FLAGS;
}

static void ocspSetMark(SSL_CTX *ctx, uintptr_t mark) {
    SSL_CTX_set_ex_data(ctx, context_index, (void *)mark);
}

int ocspLateInit(int (*serves)(SSL_CTX *ctx)) {
    context_serves = serves;
    /* Marks are numbers, not pointers: the index needs no free function and may outlive the engine. */
    if (context_index < 0) context_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    return context_index >= 0;
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

/* Queues the context of `ssl` for ocspLateCron, which attaches it on the main thread. Any thread; does not wait; a no-op
 * while another context is queued.
 *
 * For a context whose certificates are not followed: it was created on another thread (Valkey 9.1 reloads on
 * bio_tls_reload), where it could not be attached. A context that serves handshakes is complete. */
static void ocspDeferAttach(SSL *ssl) {
    SSL_CTX *none = NULL, *ctx = SSL_get_SSL_CTX(ssl);

    if (atomic_load_explicit(&pending_ctx, memory_order_relaxed) || !SSL_CTX_up_ref(ctx)) return;
    /* release: pairs with the acquire in ocspLateCron */
    if (!atomic_compare_exchange_strong_explicit(&pending_ctx, &none, ctx, memory_order_release, memory_order_relaxed))
        SSL_CTX_free(ctx); /* never the last reference: the SSL holds one */
}

static void ocspPeerAsk(const SSL *ssl, int where, int ret);

/* Whether other code in the process is a client here, of LDAP, say. It verifies for itself. Mostly it has no certificate;
 * the server's own contexts have one, as the server refuses to configure TLS without. */
static int ocspIsForeignClient(const SSL *ssl) {
    return !SSL_is_server(ssl) &&
           (!SSL_get_certificate(ssl) || SSL_CTX_get_info_callback(SSL_get_SSL_CTX(ssl)) != ocspPeerAsk);
}

/* The handshake callback of contexts that may be the server's. */
static int ocspLateStatusCallback(SSL *ssl, void *unused) {
    int not_followed, answer;

    (void)unused;
    if (ocspIsForeignClient(ssl)) return 1;
    answer = ocspAnswerStatus(ssl, &not_followed);
    if (not_followed) ocspDeferAttach(ssl);
    return answer;
}

/* The handshake callback of contexts created by other code. */
static int ocspForeignStatusCallback(SSL *ssl, void *unused) {
    (void)unused;
    return ocspIsForeignClient(ssl) ? 1 : ocspAnswerStatus(ssl, NULL);
}

void ocspInstallCallbackAs(SSL_CTX *ctx, ocspOwner owner) {
    static atomic_uintptr_t made; /* relaxed: only the order of numbers matters */
    uintptr_t number = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    int (*answer)(SSL *, void *) = owner == OCSP_CONTEXT_FOREIGN ? ocspForeignStatusCallback : ocspLateStatusCallback;

    ocspSetMark(ctx, number << OCSP_MARK_FLAGS | (owner == OCSP_CONTEXT_OF_SERVER ? OCSP_MARK_SERVER : 0) |
                         (owner == OCSP_CONTEXT_FOREIGN ? OCSP_MARK_REJECTED : 0));
    SSL_CTX_set_tlsext_status_cb(ctx, answer);
}

/* ---- links to peers ---------------------------------------------------------------------------------------------- */

/* The info callback: requests a staple when a client handshake starts, as the role is known then and the ClientHello is
 * not written yet. Called at every state change of every handshake, so it has to be short. */
static void ocspPeerAsk(const SSL *ssl, int where, int ret) {
    (void)ret;
    if (!(where & SSL_CB_HANDSHAKE_START) || SSL_is_server(ssl) || ocspIsForeignClient(ssl)) return;
    ocspRequestPeerStaple((SSL *)ssl);
}

void ocspInstallPeerCheck(SSL_CTX *ctx) {
    SSL_CTX_set_info_callback(ctx, ocspPeerAsk);
}

void ocspPeerCheckUnavailable(const char *why) {
    ocspPeersUnchecked(why);
}

/* Warns if links opened with this context are not checked. Main. */
static void ocspPeersCheckContext(SSL_CTX *ctx) {
    if (SSL_CTX_get_info_callback(ctx) == ocspPeerAsk)
        ocspPeersUnchecked(NULL);
    else if (ocspPeersPolicy() != OCSP_PEERS_NO)
        ocspPeersUnchecked("the server's TLS context cannot be made to request a staple; set tls-cert-file to its own "
                           "value, and report this release");
}

/* ---- main thread ------------------------------------------------------------------------------------------------- */

/* Queues `ctx` in pending_ctx after an allocation failure, like a context found by a handshake, so that ocspLateCron
 * retries. Main. */
static void ocspRetryAttach(SSL_CTX *ctx) {
    ocspSetMark(ctx, ocspNumber(ctx) << OCSP_MARK_FLAGS | OCSP_MARK_SERVER);
    if (SSL_CTX_up_ref(ctx)) SSL_CTX_free(atomic_exchange_explicit(&pending_ctx, ctx, memory_order_acq_rel));
    if (!attach_told) ocspLog(OCSP_LOG_WARNING, "out of memory examining a TLS context; will retry");
    attach_told = 1;
}

void ocspLateAttach(SSL_CTX *ctx) {
    if (!ocspAttachContext(ctx)) {
        ocspRetryAttach(ctx);
        return;
    }
    attach_told = 0;
    ocspPeersCheckContext(ctx);
    attached_number = ocspNumber(ctx);
    ocspSetMark(ctx, attached_number << OCSP_MARK_FLAGS | OCSP_MARK_ATTACHED | OCSP_MARK_SERVER);
}

void ocspPrefetchContext(STACK_OF(X509) *certs, X509_STORE *store) {
    ocspContextCerts *a = ocspAttachedAny() ? NULL : ocspAlloc(sizeof(*a));
    X509 *leaf = certs ? sk_X509_value(certs, 0) : NULL;
    int ok = a != NULL;

    if (ok && store && X509_STORE_up_ref(store)) a->store = store;
    if (ok && leaf && (ok = X509_up_ref(leaf))) {
        a->leaf[0] = leaf;
        a->chain[0] = X509_chain_up_ref(certs);
        a->count = 1;
        ok = a->chain[0] != NULL;
    }
    if (!ok) {
        ocspContextCertsFree(a);
        return;
    }
    a->empty_state = OCSP_STATE_NO_TLS; /* not in service yet */
    ocspHandOver(a);
}

/* Returns 1 if a context found by a handshake may be adopted. Main. A context that the host denies is marked, so that
 * `serves` is called once for it. */
static int ocspMayAdopt(SSL_CTX *ctx) {
    uintptr_t mark = ocspMark(ctx);
    int serves;

    if (mark & OCSP_MARK_REJECTED) return 0;
    /* A late handshake on a replaced context changes nothing. A context that was never attached may be the server's
     * newest; if it is not, the next handshake on the newest, which has a higher number, corrects that. */
    if ((mark & OCSP_MARK_ATTACHED) && ocspNumber(ctx) <= attached_number) return 0;
    serves = mark & OCSP_MARK_SERVER || !context_serves ? 1 : context_serves(ctx);
    if (serves == 0) ocspSetMark(ctx, mark | OCSP_MARK_REJECTED);
    return serves > 0;
}

void ocspLateCron(void) {
    /* relaxed: a hint; the exchange below acquires */
    if (atomic_load_explicit(&pending_ctx, memory_order_relaxed)) {
        SSL_CTX *ctx = atomic_exchange_explicit(&pending_ctx, NULL, memory_order_acquire); /* pairs with the release in
                                                                                             ocspDeferAttach */
        if (ocspMayAdopt(ctx)) ocspLateAttach(ctx);
        SSL_CTX_free(ctx);
    }
    ocspCron();
}

void ocspLateShutdown(void) {
    SSL_CTX_free(atomic_exchange_explicit(&pending_ctx, NULL, memory_order_acquire));
}

#endif /* OCSP_SUPPORTED */
