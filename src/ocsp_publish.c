/* ocsp_publish.c - what the tracked certificates look like from outside: the set of responses that handshakes read, and the
 * report that INFO shows. Copies; the set and its state are the worker's.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <stdio.h>
#include <string.h>

/* ---- for handshakes ---------------------------------------------------------------------------------------------- */

/* Chooses what is stapled with the response of a leaf, the published element `staple`: the responses of its chain, as far as
 * the message stays within OCSP_MAX_CHAIN_MESSAGE. */
static void ocspPublishChain(const ocspCertSet *set, ocspCert *leaf, ocspStaple *staple) {
    size_t bytes = leaf->chain_bytes + leaf->current.len;
    int i, j, left_out = 0;

    for (i = 0; i < OCSP_MAX_CHAIN - 1; i++) {
        staple->chain[i] = -1;
        for (j = 0; j < set->count && leaf->chain[i]; j++) {
            size_t len = set->certs[j]->current.len;
            if (set->certs[j] != leaf->chain[i] || !set->certs[j]->current.der) continue;
            if (bytes + len > OCSP_MAX_CHAIN_MESSAGE) {
                left_out++;
                continue;
            }
            bytes += len;
            staple->chain[i] = j;
        }
    }
    if (left_out && !leaf->logged.chain_too_long)
        ocspLog(
            OCSP_LOG_WARNING,
            "certificate %s: its chain and the responses for it are longer than the %d bytes that all clients accept: "
            "%d of the responses for CAs are not stapled. Configure the responder to answer for one certificate only, "
            "without its chain",
            leaf->id->serial, OCSP_MAX_CHAIN_MESSAGE, left_out);
    if (left_out) leaf->logged.chain_too_long = 1; /* for good: responses may differ by a few bytes each time */
}

ocspStapleSet *ocspMakeStapleSet(const ocspCertSet *set) {
    ocspStapleSet *made = ocspAlloc(sizeof(*made));
    int i;

    if (made && set->context && set->context->store && X509_STORE_up_ref(set->context->store))
        made->store = set->context->store;
    for (i = 0; made && i < set->count; i++) {
        ocspCert *cert = set->certs[i];
        ocspStaple *staple = &made->staples[made->count];
        if (cert->current.der && !(staple->der = ocspMemdup(cert->current.der, cert->current.len))) break;
        staple->len = cert->current.len;
        staple->expires_at = cert->current.expires_at;
        staple->index = cert->active ? cert->index : -1;
        staple->source = cert->current.source;
        if (cert->id->issuer) X509_up_ref(cert->id->issuer);
        staple->issuer = cert->id->issuer;
        X509_up_ref(cert->id->leaf);
        staple->leaf = cert->id->leaf;
        ocspPublishChain(set, cert, staple);
        made->count++;
    }
    if (made && i == set->count) return made;
    ocspStapleSetFree(made);
    return NULL;
}

/* ---- for INFO ---------------------------------------------------------------------------------------------------- */

static void ocspFillStatus(ocspStatus *s, const ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int pending = cert->state == OCSP_STATE_PENDING, has_file = ocspHasResponseFile(options);
    int64_t interval_at_ms;

    s->state = cert->state;
    s->has_response = cert->current.der != NULL;
    s->revoked = cert->current.revoked;
    s->must_staple = cert->id->must_staple;
    snprintf(s->serial, sizeof(s->serial), "%s", cert->id->serial);
    memcpy(s->responder_url, cert->stats.url, sizeof(s->responder_url));
    s->this_update = cert->current.this_update;
    s->next_update = cert->current.next_update;
    s->produced_at = cert->current.produced_at;
    s->expires_at = cert->current.expires_at;
    s->last_success = cert->stats.last_success;
    s->bytes = cert->current.len;
    s->source = cert->current.source;
    s->refresh_at_ms = s->has_response && pending && !has_file ? cert->schedule.refresh_at_ms : 0;
    s->retry_at_ms = pending ? cert->schedule.retry_at_ms : 0;
    if (pending && (interval_at_ms = ocspIntervalAtMs(cert, options, env)) != 0) {
        s->refresh_at_ms = interval_at_ms;
        s->retry_at_ms = 0;
    }
    s->consecutive_failures = cert->stats.consecutive_failures;
    s->last_fetch_ms = cert->stats.last_fetch_ms;
    s->last_error_code = cert->stats.last_error_code;
    memcpy(s->last_error, cert->stats.last_error, sizeof(s->last_error));
}

/* Adds a certificate of a served chain to the report. */
static void ocspReportInChain(ocspReport *r, const ocspCert *cert, const ocspEnv *env) {
    int valid = ocspHasValid(cert, env);

    r->chain.followed += cert->state == OCSP_STATE_PENDING;
    r->chain.good += valid && !cert->current.revoked;
    r->chain.revoked |= valid && cert->current.revoked;
    if (cert->stats.last_error[0])
        snprintf(r->chain.last_error, sizeof(r->chain.last_error), "certificate %.200s: %.290s", cert->id->serial,
                 cert->stats.last_error);
}

void ocspFillReport(ocspReport *r,
                    const ocspCertSet *set,
                    const ocspOptions *options,
                    const ocspEnv *env,
                    ocspCertState empty_state) {
    int i;

    r->count = 0;
    memset(r->status, 0, sizeof(r->status));
    r->status[0].state = empty_state;
    memset(&r->chain, 0, sizeof(r->chain));
    if (options->staple_chain && !env->chain_supported())
        snprintf(r->chain.last_error, sizeof(r->chain.last_error), OCSP_CHAIN_UNSUPPORTED,
                 OpenSSL_version(OPENSSL_VERSION));
    for (i = 0; i < set->count; i++) {
        const ocspCert *cert = set->certs[i];
        if (!cert->active) continue;
        if (cert->depth > 0) {
            ocspReportInChain(r, cert, env);
            continue;
        }
        if (cert->index >= r->count) r->count = cert->index + 1;
        if (cert->index < OCSP_STATUSES) ocspFillStatus(&r->status[cert->index], cert, options, env);
    }
    if (r->count > OCSP_STATUSES) r->count = OCSP_STATUSES;
}

#endif /* OCSP_SUPPORTED */
