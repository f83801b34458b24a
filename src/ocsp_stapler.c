/* ocsp_stapler.c - the API for hosts: options, contexts, the handshake callback, refresh requests, INFO.
 *
 * DESIGN: the main thread passes everything to the OCSP thread through ocsp_handoff.c and wakes that thread.
 * Handshakes, on any thread, read the slot (ocsp_slot.c) and two atomics.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

static atomic_int stapling_on;         /* written by main, read by handshakes */
static _Atomic(SSL_CTX *) pending_ctx; /* owns a reference; set by a handshake or by main, taken by main in ocspCron */

/* Main thread only. */
static int context_index = -1;    /* ex_data index of a context's mark, see below */
static uintptr_t attached_number; /* number of the context attached last */
static int initialized, thread_runs, ticked;
static int attached_any;        /* a context was attached: prefetches are ignored */
static int attach_told;         /* the lack of memory to attach a context was logged */
static int64_t next_thread_try; /* monotonic clock, milliseconds */

/* ---- options ----------------------------------------------------------------------------------------------------- */

/* Starts the OCSP thread unless it runs; after a failure retries at most once a second. Main, with stapling on. */
static void ocspNeedThread(void) {
    int64_t now;

    if (thread_runs || (now = ocsp_env.mono_ms()) < next_thread_try) return;
    thread_runs = ocspThreadStart();
    if (thread_runs) return;
    if (next_thread_try == 0)
        ocspLog(OCSP_LOG_WARNING,
                "the OCSP thread cannot be started (%s): no response is fetched until it can. Raise the limit on "
                "processes and threads (ulimit -u)",
                strerror(errno));
    next_thread_try = now + 1000;
}

int ocspSetOptions(const ocspOptions *options) {
    if (!ocspPutOptions(options)) return 0;
    /* relaxed: handshakes may see the flag a moment later, and no other memory depends on it */
    atomic_store_explicit(&stapling_on, options->stapling, memory_order_relaxed);
    ocspPeersSetPolicy(options->verify_peers);
    if (thread_runs)
        ocspThreadWake();
    else if (options->stapling && ticked)
        ocspNeedThread();
    return 1;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

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

/* Appends the current certificate of `ctx` and its chain to `a`, with references. 0: out of memory. */
static int ocspCollectCert(SSL_CTX *ctx, ocspContextCerts *a) {
    X509 *leaf = SSL_CTX_get0_certificate(ctx);
    STACK_OF(X509) *chain = NULL;

    if (!leaf || a->count == OCSP_MAX_CERTS / 2 || !X509_up_ref(leaf)) return 1;
    SSL_CTX_get0_chain_certs(ctx, &chain);
    if (!chain) SSL_CTX_get_extra_chain_certs_only(ctx, &chain); /* older API: one chain for all certificates */
    a->leaf[a->count] = leaf;
    a->chain[a->count] = chain ? X509_chain_up_ref(chain) : NULL;
    a->count++;
    return !chain || a->chain[a->count - 1] != NULL;
}

/* Queues `ctx` in pending_ctx after an allocation failure, like a context found by a handshake, so that ocspCron
 * retries. Main. */
static void ocspRetryAttach(SSL_CTX *ctx) {
    ocspSetMark(ctx, ocspNumber(ctx) << OCSP_MARK_FLAGS | OCSP_MARK_SERVER);
    if (SSL_CTX_up_ref(ctx)) SSL_CTX_free(atomic_exchange_explicit(&pending_ctx, ctx, memory_order_acq_rel));
    if (!attach_told) ocspLog(OCSP_LOG_WARNING, "out of memory examining a TLS context; will retry");
    attach_told = 1;
}

/* Returns the certificates, chains and trust anchors of `ctx`, with references; NULL when out of memory. */
static ocspContextCerts *ocspCollect(SSL_CTX *ctx) {
    X509 *chosen = SSL_CTX_get0_certificate(ctx);
    ocspContextCerts *a = ocspAlloc(sizeof(*a));
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    int ok = a != NULL;

    ERR_set_mark();
    if (ok && store && X509_STORE_up_ref(store)) a->store = store;
    if (ok && chosen && SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_FIRST)) {
        do {
            ok = ocspCollectCert(ctx, a);
        } while (ok && SSL_CTX_set_current_cert(ctx, SSL_CERT_SET_NEXT));
        SSL_CTX_select_current_cert(ctx, chosen);
    }
    ERR_pop_to_mark();
    if (ok) return a;
    ocspContextCertsFree(a);
    return NULL;
}

static void ocspHandOver(ocspContextCerts *certs) {
    ocspPutContextCerts(certs);
    if (thread_runs) ocspThreadWake();
}

void ocspAttachContext(SSL_CTX *ctx) {
    ocspContextCerts *a = ocspCollect(ctx);

    if (!a) {
        ocspRetryAttach(ctx);
        return;
    }
    attach_told = 0;
    attached_any = 1;
    ocspPeersCheckContext(ctx);
    attached_number = ocspNumber(ctx);
    ocspSetMark(ctx, attached_number << OCSP_MARK_FLAGS | OCSP_MARK_ATTACHED | OCSP_MARK_SERVER);
    ocspHandOver(a);
}

void ocspPrefetchContext(STACK_OF(X509) *certs, X509_STORE *store) {
    ocspContextCerts *a = attached_any ? NULL : ocspAlloc(sizeof(*a));
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
    a->prefetched = 1;
    ocspHandOver(a);
}

static int ocspForeignStatusCallback(SSL *ssl, void *unused);

void ocspInstallCallbackAs(SSL_CTX *ctx, ocspOwner owner) {
    static atomic_uintptr_t made; /* relaxed: only the order of numbers matters */
    uintptr_t number = atomic_fetch_add_explicit(&made, 1, memory_order_relaxed) + 1;
    int (*answer)(SSL *, void *) = owner == OCSP_CONTEXT_FOREIGN ? ocspForeignStatusCallback : ocspStatusCallback;

    ocspSetMark(ctx, number << OCSP_MARK_FLAGS | (owner == OCSP_CONTEXT_OF_SERVER ? OCSP_MARK_SERVER : 0) |
                         (owner == OCSP_CONTEXT_FOREIGN ? OCSP_MARK_REJECTED : 0));
    SSL_CTX_set_tlsext_status_cb(ctx, answer);
}

void ocspInstallCallback(SSL_CTX *ctx) {
    ocspInstallCallbackAs(ctx, OCSP_CONTEXT_OF_SERVER);
}

/* Returns 1 if a context found by a handshake may be adopted. Main. A context that the host denies is marked, so that
 * ocspHost.serves is called once for it. */
static int ocspMayAdopt(SSL_CTX *ctx) {
    uintptr_t mark = ocspMark(ctx);
    int serves;

    if (mark & OCSP_MARK_REJECTED) return 0;
    /* A late handshake on a replaced context changes nothing. A context that was never attached may be the server's
     * newest; if it is not, the next handshake on the newest, which has a higher number, corrects that. */
    if ((mark & OCSP_MARK_ATTACHED) && ocspNumber(ctx) <= attached_number) return 0;
    serves = mark & OCSP_MARK_SERVER ? 1 : ocspServes(ctx);
    if (serves == 0) ocspSetMark(ctx, mark | OCSP_MARK_REJECTED);
    return serves > 0;
}

void ocspCron(void) {
    ocspPeersCron();
    /* relaxed: a hint; the exchange below acquires */
    if (atomic_load_explicit(&pending_ctx, memory_order_relaxed)) {
        SSL_CTX *ctx = atomic_exchange_explicit(&pending_ctx, NULL, memory_order_acquire); /* pairs with the release in
                                                                                             ocspDeferAttach */
        if (ocspMayAdopt(ctx)) ocspAttachContext(ctx);
        SSL_CTX_free(ctx);
    }
    if (ticked && (thread_runs || !atomic_load_explicit(&stapling_on, memory_order_relaxed))) return;
    if (!initialized) return;
    if (!ticked && atomic_load_explicit(&stapling_on, memory_order_relaxed)) ocspThreadPrime();
    ticked = 1;
    if (atomic_load_explicit(&stapling_on, memory_order_relaxed)) ocspNeedThread();
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

/* Queues the context of `ssl` for ocspCron, which attaches it on the main thread. Any thread; does not wait; a no-op
 * while another context is queued.
 *
 * For a certificate that is not tracked, or whose issuer is unknown: the context was created on another thread (Valkey
 * 9.1 reloads on bio_tls_reload), where it could not be attached. A context that serves handshakes is complete. */
static void ocspDeferAttach(SSL *ssl) {
    SSL_CTX *none = NULL, *ctx = SSL_get_SSL_CTX(ssl);

    if (atomic_load_explicit(&pending_ctx, memory_order_relaxed) || !SSL_CTX_up_ref(ctx)) return;
    /* release: pairs with the acquire in ocspCron */
    if (!atomic_compare_exchange_strong_explicit(&pending_ctx, &none, ctx, memory_order_release, memory_order_relaxed))
        SSL_CTX_free(ctx); /* never the last reference: the SSL holds one */
}

/* Returns the largest response, in bytes, that clients accept in this handshake. OpenSSL's clients abort on a larger
 * one: below TLS 1.3 on a CertificateStatus message above 16384 bytes, 4 of which are overhead; in TLS 1.3 (RFC 8446
 * section 4.4.2) a certificate's extensions have 65535 bytes in all, 8 of which are overhead. */
static size_t ocspLongestStaple(const SSL *ssl) {
    return SSL_version(ssl) >= TLS1_3_VERSION ? 65535 - 8 : OCSP_MAX_STAPLE_TLS12;
}

/* Implements the handshake callback, see ocspStatusCallback. `may_note`: queue the handshake's context for main if its
 * certificate is not tracked yet. */
static int ocspAnswerStatus(SSL *ssl, int may_note) {
    const ocspStapleSet *set;
    const ocspStaple *staple = NULL;
    unsigned char *copy = NULL;
    size_t len = 0;
    X509 *leaf;
    int token, i;

    ERR_set_mark(); /* an error left in OpenSSL's queue would abort the handshake */
    /* OpenSSL has one callback for both roles with different return values: on a client 0 rejects the server. */
    if (!SSL_is_server(ssl)) {
        i = ocspPeerCallback(ssl);
        ERR_pop_to_mark();
        return i;
    }
    leaf = SSL_get_certificate(ssl); /* already chosen by OpenSSL: RSA or ECDSA, as the client supports */
    if (leaf && atomic_load_explicit(&stapling_on, memory_order_relaxed)) {
        int64_t now = ocspNow(&ocsp_env);
        set = ocspSlotEnter(&token);
        for (i = 0; set && i < set->count && !staple; i++) {
            if (set->staples[i].leaf == leaf) staple = &set->staples[i];
        }
        /* Reloading a file creates a new X509 for the same certificate, and a staple belongs to the certificate. */
        for (i = 0; set && i < set->count && !staple; i++) {
            if (ocspSameCertificate(set->staples[i].leaf, leaf)) staple = &set->staples[i];
        }
        if (staple && staple->der && now < staple->expires_at && staple->len <= ocspLongestStaple(ssl) &&
            (copy = OPENSSL_malloc(staple->len)) != NULL) {
            len = staple->len;
            memcpy(copy, staple->der, len);
        }
        i = staple && staple->authoritative;
        ocspSlotLeave(token);
        if (!i && may_note) ocspDeferAttach(ssl);
    }
    /* On success OpenSSL owns the copy. */
    if (copy && !SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)len)) {
        OPENSSL_free(copy);
        copy = NULL;
    }
    ERR_pop_to_mark();
    ocspCountHandshake(copy != NULL);
    return copy ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

int ocspStatusCallback(SSL *ssl, void *unused) {
    (void)unused;
    return ocspAnswerStatus(ssl, 1);
}

/* The handshake callback of contexts created by other code in the process. */
static int ocspForeignStatusCallback(SSL *ssl, void *unused) {
    (void)unused;
    return ocspAnswerStatus(ssl, 0);
}

/* ---- refresh requests -------------------------------------------------------------------------------------------- */

int ocspStaplingIsOn(void) {
    return atomic_load_explicit(&stapling_on, memory_order_relaxed);
}

const char *ocspWhyNotRunning(void) {
    if (!ocspStaplingIsOn()) return "OCSP stapling is off: turn it on first";
    return thread_runs ? NULL : "the OCSP thread is not running yet: try again in a moment";
}

int ocspRequestRefresh(ocspRefreshDone *done, void *arg, char *why, size_t why_size) {
    const char *reason = ocspWhyNotRunning();
    ocspWaiter *waiter = NULL;

    if (!reason && done && !(waiter = ocspAlloc(sizeof(*waiter)))) reason = "out of memory";
    if (waiter) {
        waiter->done = done;
        waiter->arg = arg;
    }
    if (!reason) reason = ocspPutRequest(waiter);
    if (reason) {
        ocspFree(waiter);
        snprintf(why, why_size, "%s", reason);
        return 0;
    }
    ocspThreadWake();
    return 1;
}

/* ---- INFO -------------------------------------------------------------------------------------------------------- */

static const char *ocspStateName(const ocspStatus *s, int enabled, int64_t now_ms) {
    static const char *const names[] = {
        [OCSP_STATE_NO_TLS] = "no-tls",
        [OCSP_STATE_NO_CERTIFICATE] = "no-certificate",
        [OCSP_STATE_SELF_SIGNED] = "self-signed",
        [OCSP_STATE_NO_ISSUER] = "no-issuer",
        [OCSP_STATE_NO_RESPONDER] = "no-responder",
        [OCSP_STATE_PENDING] = "pending",
    };

    if (!enabled) return "disabled";
    if (!s->has_response) return names[s->state];
    if (now_ms >= (int64_t)s->expires_at * 1000) return "expired";
    return s->revoked ? "revoked" : "good";
}

static void ocspInfoText(const ocspInfoSink *sink, const char *prefix, const char *field, const char *value) {
    char name[64];

    snprintf(name, sizeof(name), "%s%s", prefix, field);
    sink->text(sink->arg, name, value);
}

static void ocspInfoNumber(const ocspInfoSink *sink, const char *prefix, const char *field, long long value) {
    char name[64];

    snprintf(name, sizeof(name), "%s%s", prefix, field);
    sink->number(sink->arg, name, value);
}

/* Returns the seconds from now until `then`, rounded up so that 0 means now; -1 if `then` is 0. */
static long long ocspSecondsUntil(int64_t then_ms, int64_t now_ms) {
    if (then_ms == 0) return -1;
    return then_ms > now_ms ? (then_ms - now_ms + 999) / 1000 : 0;
}

static void ocspInfoCert(const ocspInfoSink *sink, const char *prefix, const ocspStatus *s, int enabled) {
    int64_t now_ms = ocsp_env.wall_ms();
    int64_t expires = s->has_response && s->expires_at * (int64_t)1000 > now_ms ? (int64_t)s->expires_at * 1000 : 0;
    long long next = !enabled         ? -1
                     : s->retry_at_ms ? ocspSecondsUntil(s->retry_at_ms, ocsp_env.mono_ms())
                                      : ocspSecondsUntil(s->refresh_at_ms, now_ms);

    ocspInfoText(sink, prefix, "state", ocspStateName(s, enabled, now_ms));
    ocspInfoNumber(sink, prefix, "revoked", enabled && s->has_response && s->revoked); /* off: no longer checked */
    ocspInfoText(sink, prefix, "cert_serial", s->serial);
    ocspInfoText(sink, prefix, "responder_url", s->responder_url);
    ocspInfoNumber(sink, prefix, "must_staple", s->must_staple);
    ocspInfoNumber(sink, prefix, "this_update", s->this_update);
    ocspInfoNumber(sink, prefix, "next_update", s->next_update);
    ocspInfoNumber(sink, prefix, "produced_at", s->produced_at);
    ocspInfoNumber(sink, prefix, "response_bytes", (long long)s->bytes);
    ocspInfoText(sink, prefix, "response_source", ocspSourceName(s->source));
    ocspInfoNumber(sink, prefix, "next_refresh_in_seconds", next);
    ocspInfoNumber(sink, prefix, "expires_in_seconds", ocspSecondsUntil(expires, now_ms));
    ocspInfoNumber(sink, prefix, "consecutive_failures", s->consecutive_failures);
    ocspInfoText(sink, prefix, "last_error", s->last_error);
    ocspInfoText(sink, prefix, "last_error_code", ocspErrorWord(s->last_error_code));
    ocspInfoNumber(sink, prefix, "last_success_time", s->last_success);
    ocspInfoNumber(sink, prefix, "last_fetch_ms", s->last_fetch_ms);
}

void ocspInfoState(const ocspInfoSink *sink) {
    int enabled = atomic_load_explicit(&stapling_on, memory_order_relaxed);
    long long stapled, unstapled;
    ocspReport report;

    ocspCopyReport(&report);
    ocspSumHandshakes(&stapled, &unstapled);
    ocspInfoCert(sink, "", &report.status[0], enabled);
    ocspInfoNumber(sink, "", "handshakes_stapled", stapled);
    ocspInfoNumber(sink, "", "handshakes_unstapled", unstapled);
    ocspInfoNumber(sink, "", "failures_network", report.failures[OCSP_ERR_NETWORK]);
    ocspInfoNumber(sink, "", "failures_http", report.failures[OCSP_ERR_HTTP]);
    ocspInfoNumber(sink, "", "failures_response", report.failures[OCSP_ERR_RESPONSE]);
    ocspInfoNumber(sink, "", "failures_verify", report.failures[OCSP_ERR_VERIFY]);
    ocspPeersInfo(sink);
    if (report.count > 1) ocspInfoCert(sink, "alt_", &report.status[1], enabled);
}

void ocspInfoCounters(const ocspInfoSink *sink) {
    ocspReport report;

    ocspCopyReport(&report);
    ocspInfoNumber(sink, "", "refreshes", report.refreshes);
    ocspInfoNumber(sink, "", "refresh_failures", report.refresh_failures);
}

void ocspResetCounters(void) {
    ocspResetReport();
    ocspResetHandshakes();
    ocspPeersResetCounters();
}

/* ---- init and shutdown ------------------------------------------------------------------------------------------- */

int ocspInit(const ocspHost *host) {
    if (initialized) return 1;
    ocspSetHost(host);
    /* Marks are numbers, not pointers: the index needs no free function and may outlive the engine. */
    if (context_index < 0) context_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, NULL);
    if (context_index < 0) return 0;
    initialized = ocspHandoffInit();
    return initialized;
}

void ocspShutdown(void) {
    if (!initialized) return;
    atomic_store_explicit(&stapling_on, 0, memory_order_relaxed);
    ocspThreadStop();
    thread_runs = ticked = initialized = attached_any = 0;
    next_thread_try = 0;
    ocspHandoffReset();
    SSL_CTX_free(atomic_exchange_explicit(&pending_ctx, NULL, memory_order_acquire));
    ocspSlotPublish(NULL);
    ocspPeersReset();
    ocspSetHost(NULL);
}

#endif /* OCSP_SUPPORTED */
