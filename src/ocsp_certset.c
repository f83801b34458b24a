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
    int j, k;

    for (j = 0; j < set->count; j++)
        for (k = 0; k < OCSP_MAX_CHAIN - 1; k++)
            if (set->certs[j]->chain[k] == set->certs[i]) set->certs[j]->chain[k] = NULL;
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

/* Tracks a certificate of the context in service: a leaf with its index, or with OCSP_MAX_LEAVES a CA of its chain. Takes
 * ownership of `id`. Returns the certificate; NULL when out of memory. */
static ocspCert *ocspTrackCert(ocspCertSet *set, ocspIdentity *id, int index, int depth, const ocspOptions *options) {
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
            return NULL;
        }
        set->certs[set->count++] = cert;
    }
    cert->id = id;
    cert->active = 1;
    cert->index = index;
    cert->depth = depth;
    ocspShowUrl(cert, options);
    return cert;
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

/* True if `id` has another issuer: reloads while its chain was not followed may have brought a renewed one. */
static int ocspOtherIssuer(const ocspIdentity *id, const ocspIdentity *known) {
    return id->issuer && known->issuer && !ocspSameCertificate(id->issuer, known->issuer);
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

/* Identifies the CAs in the chain of an active leaf, whose index is `i`, and marks those already known active, as tracking
 * another may untrack an old one. Returns 0 when out of memory. OpenSSL staples for the certificates of a configured chain
 * only, not for those that it finds among the trust anchors and sends as well (seen in 3.6.5). */
static int ocspIdentifyChain(ocspCertSet *set, int i, ocspIdentity *ids[OCSP_MAX_CHAIN - 1]) {
    const ocspContextCerts *context = set->context;
    STACK_OF(X509) *chain = context->chain[i];
    ocspCert *leaf = ocspCertAt(set, i);
    int at, depth = 0, ok = 1;

    if (!leaf) return 1;
    leaf->chain_bytes = (size_t)i2d_X509(leaf->id->leaf, NULL) + OCSP_ENTRY_OVERHEAD;
    for (at = 0; ok && at < sk_X509_num(chain); at++) {
        X509 *ca = sk_X509_value(chain, at);
        ocspIdentity *id;
        ocspCert *known;
        if (at == 0 && ocspSameCertificate(ca, leaf->id->leaf)) continue; /* as ocspPrefetchContext gets it */
        leaf->chain_bytes += (size_t)i2d_X509(ca, NULL) + OCSP_ENTRY_OVERHEAD;
        if (++depth >= OCSP_MAX_CHAIN) continue;
        id = ids[depth - 1] = ocspIdentityNewWith(ca, chain, context->store, set->issuers.certs);
        ok = id != NULL;
        known = ok && !id->self_signed ? ocspFindCert(set, id) : NULL;
        if (known && !known->active) {
            known->active = 1;
            known->index = OCSP_MAX_LEAVES;
            known->depth = depth;
        }
    }
    return ok;
}

/* Logs that the chain of a leaf cannot be stapled for, as it is not configured. */
static void ocspLogNoChain(const ocspIdentity *leaf) {
    if (leaf->issuer && X509_NAME_cmp(X509_get_subject_name(leaf->issuer), X509_get_issuer_name(leaf->issuer)) != 0)
        ocspLog(
            OCSP_LOG_NOTICE,
            "certificate %s: its issuer is an intermediate CA that is not in tls-cert-file, and OpenSSL staples only "
            "for the certificates there: append the chain for %sstaple-chain",
            leaf->serial, ocspPrefix());
}

/* Follows the chains of the active leaves with staple_chain, and none without it. `again`: not a reload. */
static void ocspFollowChains(ocspCertSet *set,
                             int again,
                             const ocspOptions *options,
                             const ocspEnv *env,
                             int *missing,
                             int *incomplete) {
    ocspIdentity *ids[OCSP_MAX_LEAVES][OCSP_MAX_CHAIN - 1] = {{NULL}};
    int i, depth;

    for (i = 0; i < set->count; i++) {
        ocspCert *cert = set->certs[i];
        if (cert->depth > 0)
            cert->active = 0;
        else if (cert->active)
            memset(cert->chain, 0, sizeof(cert->chain));
    }
    if (!ocspFollowsChains(options, env)) return;
    for (i = 0; i < set->context->count; i++)
        if (!ocspIdentifyChain(set, i, ids[i])) *missing = 1;
    for (i = 0; i < set->context->count; i++) {
        ocspCert *leaf = ocspCertAt(set, i);
        if (leaf && !again && sk_X509_num(set->context->chain[i]) <= 0) ocspLogNoChain(leaf->id);
        for (depth = 1; depth < OCSP_MAX_CHAIN; depth++) {
            ocspIdentity *id = ids[i][depth - 1];
            ocspCert *known;
            if (!id) continue;
            known = id->self_signed ? NULL : ocspFindCert(set, id);
            /* In a CA's certificate the extension is about those that it issues (RFC 7633 section 4.2.2). */
            id->must_staple = 0;
            if (id->self_signed || (known && (known->depth == 0 || (again && !ocspMoreComplete(id, known->id) &&
                                                                    !ocspOtherIssuer(id, known->id))))) {
                ocspIdentityFree(id);
            } else {
                known = ocspTrackCert(set, id, OCSP_MAX_LEAVES, depth, options);
                if (!known) *missing = 1;
            }
            if (known) *incomplete |= known->id->incomplete;
            leaf->chain[depth - 1] = known;
        }
    }
}

/* Identifies the certificates of the context in service: all, or only the incomplete ones. Known ones are marked active
 * before the first new one is tracked, because tracking may untrack an old one. */
static void ocspIdentifyAll(ocspCertSet *set, int only_incomplete, const ocspOptions *options, const ocspEnv *env) {
    const ocspContextCerts *context = set->context;
    ocspIdentity *ids[OCSP_MAX_LEAVES] = {NULL};
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
        if (!ocspTrackCert(set, ids[i], i, 0, options)) missing = 1;
    }
    ocspFollowChains(set, only_incomplete, options, env, &missing, &incomplete);
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
