/* ocsp_certset.c - the set of tracked certificates: those of the context in service (active), and a few recently
 * replaced ones, whose responses handshakes under way may still need.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <string.h>

#define OCSP_IDENTIFY_RETRY_MS 1000        /* first retry: memory may have run out for a moment */
#define OCSP_IDENTIFY_AGAIN_MS (60 * 1000) /* later retries for incomplete certificates */

static void ocspUntrackCert(ocspCertSet *set, int i) {
    ocspCertFree(set->certs[i]);
    set->count--;
    memmove(&set->certs[i], &set->certs[i + 1], (size_t)(set->count - i) * sizeof(set->certs[0]));
}

static ocspCert *ocspFindCert(const ocspCertSet *set, const ocspIdentity *id) {
    int i;

    for (i = 0; i < set->count; i++)
        if (memcmp(set->certs[i]->id->sha256, id->sha256, sizeof(id->sha256)) == 0) return set->certs[i];
    return NULL;
}

void ocspRequestAll(ocspCertSet *set) {
    int i;

    for (i = 0; i < set->count; i++)
        if (set->certs[i]->active && set->certs[i]->state == OCSP_STATE_PENDING)
            set->certs[i]->schedule.refresh_requested = 1;
}

/* Makes room for one more certificate: untracks the oldest that neither is active nor was before this reload. A full
 * set always has one, as a context has at most half as many certificates as are tracked. */
static void ocspMakeRoom(ocspCertSet *set) {
    int i;

    if (set->count < OCSP_MAX_CERTS) return;
    for (i = 0; i < set->count; i++)
        if (!set->certs[i]->active && !set->certs[i]->was_active) break;
    if (i < set->count) ocspUntrackCert(set, i);
}

/* Tracks a certificate of the context in service. Takes ownership of `id`. Returns 0 when out of memory. */
static int ocspTrackCert(ocspCertSet *set, ocspIdentity *id, int index, const ocspOptions *options) {
    ocspCert *cert = ocspFindCert(set, id);

    if (cert) {
        ocspIdentity *known = cert->id;
        /* Another module's context may have the same certificate without its chain: keep a known issuer. */
        int keep = known->issuer && !id->issuer;
        ocspIdentityFree(keep ? id : known);
        if (keep) id = known;
        if (set->context->reload) cert->schedule.refresh_now = 1; /* otherwise the fetch under way continues */
    } else {
        ocspMakeRoom(set);
        cert = set->count < OCSP_MAX_CERTS ? ocspCertNew() : NULL;
        if (!cert) {
            ocspIdentityFree(id);
            return 0;
        }
        set->certs[set->count++] = cert;
    }
    cert->id = id;
    cert->active = 1;
    cert->index = index;
    ocspShowUrl(cert, options);
    return 1;
}

/* Returns the active certificate at this index of its context; NULL if memory ran out when it should have been
 * tracked. */
static ocspCert *ocspCertAt(const ocspCertSet *set, int index) {
    int i;

    for (i = 0; i < set->count; i++)
        if (set->certs[i]->active && set->certs[i]->index == index) return set->certs[i];
    return NULL;
}

/* True if `id` is more complete than `known`. */
static int ocspMoreComplete(const ocspIdentity *id, const ocspIdentity *known) {
    return (id->issuer && !known->issuer) || id->url_count > known->url_count || id->must_staple > known->must_staple ||
           id->self_signed > known->self_signed;
}

int ocspIdentifyDue(const ocspCertSet *set, const ocspEnv *env) {
    return set->identify_at_ms && env->mono_ms() >= set->identify_at_ms;
}

/* ---- the issuer file --------------------------------------------------------------------------------------------- */

void ocspForgetIssuers(ocspCertSet *set) {
    sk_X509_pop_free(set->issuers.certs, X509_free);
    memset(&set->issuers, 0, sizeof(set->issuers));
}

/* Reads and parses the file. Returns its certificates, or NULL with a sentence that names the file. */
static ocspX509Stack *ocspLoadIssuers(const char *path, const ocspEnv *env, const ocspIoHooks *io, ocspError *err) {
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1], reason[OCSP_OUTSIDE_TEXT_MAX + 1];
    ocspX509Stack *certs;
    unsigned char *pem = NULL;
    size_t len = 0;
    int64_t mtime;
    int ok;

    ocspLeaveOpenSSL(io);
    ok = env->read_file(path, OCSP_MAX_ISSUER_FILE, &pem, &len, &mtime, err);
    ocspEnterOpenSSL(io);
    if (!ok) return NULL;
    certs = ocspParseIssuers((ocspBytes){pem, len}, err);
    ocspFree(pem);
    if (certs) return certs;
    ocspCleanText(reason, sizeof(reason), err->text);
    ocspFail(err, err->code, "%s %s", ocspCleanText(clean, sizeof(clean), path), reason);
    return NULL;
}

int ocspReadIssuers(ocspCertSet *set,
                    const ocspOptions *options,
                    const ocspEnv *env,
                    const ocspIoHooks *io,
                    int again) {
    ocspX509Stack *certs;
    ocspError err = {0};
    uint64_t signature;
    int same;

    if (!options->stapling || !options->issuer_file || !*options->issuer_file) return 0;
    ocspLeaveOpenSSL(io);
    signature = env->file_signature(options->issuer_file);
    ocspEnterOpenSSL(io);
    same = set->issuers.state != OCSP_ISSUERS_UNREAD && signature == set->issuers.signature;
    if (same && (set->issuers.state == OCSP_ISSUERS_READ || !again)) return 0;
    set->issuers.signature = signature;
    certs = ocspLoadIssuers(options->issuer_file, env, io, &err);
    if (!certs) {
        if (!same)
            ocspLog(OCSP_LOG_WARNING,
                    "%sissuer-file: %s. Put the issuer's certificate there in PEM form; the file is read again when it "
                    "changes%s",
                    ocspPrefix(), err.text, set->issuers.certs ? ", and what was read before stays in use" : "");
        set->issuers.state = OCSP_ISSUERS_FAILED;
        return 0;
    }
    if (set->issuers.state == OCSP_ISSUERS_FAILED)
        ocspLog(OCSP_LOG_NOTICE, "%sissuer-file: certificates read: %d", ocspPrefix(), sk_X509_num(certs));
    sk_X509_pop_free(set->issuers.certs, X509_free);
    set->issuers.certs = certs;
    set->issuers.state = OCSP_ISSUERS_READ;
    return 1;
}

/* ---- identifying ------------------------------------------------------------------------------------------------- */

/* Identifies the certificates of the context in service: all, or only the incomplete ones. Known ones are marked active
 * before the first new one is tracked, because tracking may untrack an old one. */
static void ocspIdentifyAll(ocspCertSet *set, int only_incomplete, const ocspOptions *options, const ocspEnv *env) {
    const ocspContextCerts *context = set->context;
    ocspIdentity *ids[OCSP_MAX_CERTS / 2] = {NULL};
    int i, missing = 0, incomplete = 0;

    for (i = 0; i < context->count; i++) {
        const ocspCert *known = only_incomplete ? ocspCertAt(set, i) : NULL;
        ocspCert *same;
        if (known && !known->id->incomplete) continue;
        ids[i] = ocspIdentityNewWith(context->leaf[i], context->chain[i], context->store, set->issuers.certs);
        if (ids[i] && known && !ocspMoreComplete(ids[i], known->id)) {
            ocspIdentityFree(ids[i]);
            ids[i] = NULL;
            incomplete = 1;
            continue;
        }
        if (!ids[i]) missing = 1;
        same = ids[i] ? ocspFindCert(set, ids[i]) : NULL;
        if (same) same->active = 1;
    }
    for (i = 0; i < context->count; i++) {
        if (!ids[i]) continue;
        incomplete |= ids[i]->incomplete;
        if (!ocspTrackCert(set, ids[i], i, options)) missing = 1;
    }
    if (missing && !set->identify_at_ms) ocspLog(OCSP_LOG_WARNING, "out of memory examining a certificate; will retry");
    set->identify_at_ms = 0;
    if (missing || incomplete)
        set->identify_at_ms =
            env->mono_ms() + (missing || !only_incomplete ? OCSP_IDENTIFY_RETRY_MS : OCSP_IDENTIFY_AGAIN_MS);
}

void ocspAdoptContext(ocspCertSet *set, ocspContextCerts *context, const ocspOptions *options, const ocspEnv *env) {
    int i;

    if (context) {
        ocspContextCertsFree(set->context);
        set->context = context;
        set->identify_at_ms = 0;
        for (i = 0; i < set->count; i++) {
            set->certs[i]->was_active = set->certs[i]->active;
            set->certs[i]->active = 0;
        }
    }
    ocspIdentifyAll(set, !context, options, env);
    for (i = 0; i < set->count; i++) {
        ocspCert *cert = set->certs[i];
        if (!cert->active) cert->schedule.refresh_requested = cert->schedule.refresh_now = 0;
        cert->state = ocspStateOf(cert->id, options);
    }
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

void ocspCertSetFree(ocspCertSet *set) {
    while (set->count > 0) ocspUntrackCert(set, 0);
    ocspContextCertsFree(set->context);
    ocspForgetIssuers(set);
    memset(set, 0, sizeof(*set));
}

#endif /* OCSP_SUPPORTED */
