/* ocsp_stapler.c - the API for hosts: options, contexts, the handshake callback, refresh requests, INFO.
 *
 * DESIGN: the main thread passes everything to the OCSP thread through ocsp_handoff.c and wakes that thread.
 * Handshakes, on any thread, read the slot (ocsp_slot.c) and two atomics.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
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

static atomic_int stapling_on; /* written by main, read by handshakes */
static atomic_int chain_on;    /* the same: whether chains are stapled */

/* Main thread only. */
static int initialized, thread_runs, ticked;
static int attached_any;        /* a context was attached: the next one is a reload */
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
    atomic_store_explicit(&chain_on, ocspFollowsChains(options, &ocsp_env), memory_order_relaxed);
    ocspPeersSetPolicy(options->verify_peers);
    if (thread_runs)
        ocspThreadWake();
    else if (options->stapling && ticked)
        ocspNeedThread();
    return 1;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

/* Appends the current certificate of `ctx` and its chain to `a`, with references. 0: out of memory. */
static int ocspCollectCert(SSL_CTX *ctx, ocspContextCerts *a) {
    X509 *leaf = SSL_CTX_get0_certificate(ctx);
    ocspX509Stack *chain = NULL;

    if (!leaf || a->count == OCSP_MAX_LEAVES || !X509_up_ref(leaf)) return 1;
    SSL_CTX_get0_chain_certs(ctx, &chain);
    if (!chain) SSL_CTX_get_extra_chain_certs_only(ctx, &chain); /* older API: one chain for all certificates */
    a->leaf[a->count] = leaf;
    a->chain[a->count] = chain ? X509_chain_up_ref(chain) : NULL;
    a->count++;
    return !chain || a->chain[a->count - 1] != NULL;
}

/* Returns the certificates, chains and trust anchors of `ctx`, with references; NULL when out of memory. */
static ocspContextCerts *ocspCollect(SSL_CTX *ctx) {
    X509 *chosen = SSL_CTX_get0_certificate(ctx);
    ocspContextCerts *a = ocspAlloc(sizeof(*a));
    X509_STORE *store = SSL_CTX_get_cert_store(ctx);
    int ok = a != NULL;

    ERR_set_mark();
    if (ok) a->empty_state = OCSP_STATE_NO_CERTIFICATE;
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

void ocspHandOver(ocspContextCerts *certs) {
    ocspPutContextCerts(certs);
    if (thread_runs) ocspThreadWake();
}

int ocspAttachContext(SSL_CTX *ctx) {
    ocspContextCerts *a = ocspCollect(ctx);

    if (!a) return 0;
    a->reload = attached_any;
    attached_any = 1;
    ocspHandOver(a);
    return 1;
}

void ocspInstallCallback(SSL_CTX *ctx) {
    SSL_CTX_set_tlsext_status_cb(ctx, ocspStatusCallback);
}

void ocspCron(void) {
    ocspPeersCron();
    if (ticked && (thread_runs || !atomic_load_explicit(&stapling_on, memory_order_relaxed))) return;
    if (!initialized) return;
    if (!ticked && atomic_load_explicit(&stapling_on, memory_order_relaxed)) ocspThreadPrime();
    ticked = 1;
    if (atomic_load_explicit(&stapling_on, memory_order_relaxed)) ocspNeedThread();
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

/* Returns the largest response, in bytes, that clients accept in this handshake. OpenSSL's clients abort on a larger
 * one: below TLS 1.3 on a CertificateStatus message above 16384 bytes, 4 of which are overhead; in TLS 1.3 (RFC 8446
 * section 4.4.2) a certificate's extensions have 65535 bytes in all, 8 of which are overhead. */
static size_t ocspLongestStaple(const SSL *ssl) {
    return SSL_version(ssl) >= TLS1_3_VERSION ? 65535 - 8 : OCSP_MAX_STAPLE_TLS12;
}

int ocspAnswerStatus(SSL *ssl, int *not_followed) {
    const ocspStapleSet *set;
    const ocspStaple *staple = NULL;
    unsigned char *copy = NULL;
    size_t len = 0;
    X509 *leaf;
    int token, i, stapled = 0, in_chain = 0;

    if (not_followed) *not_followed = 0;
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
        if (staple && atomic_load_explicit(&chain_on, memory_order_relaxed))
            in_chain = ocspChainStaple(ssl, set, staple, ocspLongestStaple(ssl), now, &stapled);
        if (!in_chain && staple && staple->der && now < staple->expires_at && staple->len <= ocspLongestStaple(ssl) &&
            (copy = OPENSSL_malloc(staple->len)) != NULL) {
            len = staple->len;
            memcpy(copy, staple->der, len);
        }
        /* Each SSL_CTX has a store of its own, and the set keeps this one allocated: an equal address is the same one. */
        if (not_followed) *not_followed = !set || set->store != SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl));
        ocspSlotLeave(token);
    }
    /* On success OpenSSL owns the copy. */
    if (copy) stapled = SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)len) == 1;
    if (copy && !stapled) OPENSSL_free(copy);
    ERR_pop_to_mark();
    ocspCountHandshake(stapled);
    if (in_chain) ocspCountChain();
    return stapled || in_chain ? SSL_TLSEXT_ERR_OK : SSL_TLSEXT_ERR_NOACK;
}

int ocspStatusCallback(SSL *ssl, void *unused) {
    (void)unused;
    return ocspAnswerStatus(ssl, NULL);
}

/* ---- refresh requests -------------------------------------------------------------------------------------------- */

int ocspStaplingIsOn(void) {
    return atomic_load_explicit(&stapling_on, memory_order_relaxed);
}

const char *ocspWhyNotRunning(void) {
    if (!ocspStaplingIsOn()) return "OCSP stapling is off: turn it on first";
    return thread_runs ? NULL : "the OCSP thread is not running yet: try again in a moment";
}

unsigned ocspRequestRefresh(char *why, size_t why_size) {
    const char *reason = ocspWhyNotRunning();
    unsigned number = 0;

    if (!reason) reason = ocspPutRequest(&number);
    if (reason)
        snprintf(why, why_size, "%s", reason);
    else
        ocspThreadWake();
    return number;
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
    ocspInfoNumber(sink, "", "chain_followed", report.chain.followed);
    ocspInfoNumber(sink, "", "chain_good", enabled ? report.chain.good : 0);
    ocspInfoNumber(sink, "", "chain_revoked", enabled && report.chain.revoked);
    ocspInfoText(sink, "", "chain_last_error", report.chain.last_error);
    ocspInfoNumber(sink, "", "handshakes_chain_stapled", ocspSumChain());
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

/* ---- start ------------------------------------------------------------------------------------------------------- */

int ocspInit(const ocspHost *host) {
    if (initialized) return 1;
    ocspSetHost(host);
    initialized = ocspHandoffInit();
    return initialized;
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

int ocspAttachedAny(void) {
    return attached_any;
}

void ocspShutdown(void) {
    if (!initialized) return;
    atomic_store_explicit(&stapling_on, 0, memory_order_relaxed);
    ocspThreadStop();
    thread_runs = ticked = initialized = attached_any = 0;
    next_thread_try = 0;
    ocspHandoffReset();
    ocspSlotPublish(NULL);
    ocspPeersReset();
    ocspSetHost(NULL);
}

#endif /* OCSP_SUPPORTED */
