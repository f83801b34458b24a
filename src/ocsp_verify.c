/* ocsp_verify.c - verifies the bytes of a response (RFC 6960 section 3.2). Pure: `now` is an argument and there is no
 * I/O, so that this file can be tested, fuzzed and simulated alone.
 *
 * The checks are ordered by cost, because a peer's staple is verified in the handshake: first size and DER
 * (ocsp_der.c), then the contents, then the signatures (ocsp_signer.c).
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <string.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>

static int64_t ocspMin(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static void ocspTimeText(char *out, size_t size, int64_t t) {
    ocspUtcText(t, out, size);
}

/* Checks that OpenSSL encodes the parsed response to the same bytes. OpenSSL verifies the signature over its own
 * encoding, so other bytes could verify here, be stapled, and be rejected by strict clients. */
static int ocspIsCanonical(const unsigned char *der, size_t len, OCSP_BASICRESP *basic) {
    OCSP_RESPONSE *again = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *bytes = NULL;
    int n = again ? i2d_OCSP_RESPONSE(again, &bytes) : -1;
    int same = n >= 0 && (size_t)n == len && memcmp(bytes, der, len) == 0;

    OPENSSL_free(bytes);
    OCSP_RESPONSE_free(again);
    return same;
}

/* ---- the SingleResponses ----------------------------------------------------------------------------------------- */

/* The fields of one SingleResponse, parsed. */
typedef struct singleResponse {
    int status, reason; /* V_OCSP_CERTSTATUS_*; CRLReason, -1: absent */
    int64_t this_update, revoked_at;
    int64_t next_update; /* 0: absent */
    int64_t expires_at;  /* nextUpdate, or the default expiry */
    int counts;          /* 0: good, but not valid now */
    int certid_digest;   /* NID */
    OCSP_SINGLERESP *parsed_from;
} singleResponse;

/* Whether an extension may be critical: none of these changes the meaning of a status here (RFC 6960 sections 4.4.1 to
 * 4.4.4 and 4.4.8). */
static int ocspIsHarmless(const ASN1_OBJECT *type) {
    switch (OBJ_obj2nid(type)) {
    case NID_id_pkix_OCSP_Nonce:
    case NID_id_pkix_OCSP_CrlID:
    case NID_id_pkix_OCSP_archiveCutoff:
    case NID_id_pkix_OCSP_valid: /* OpenSSL's name for 1.3.6.1.5.5.7.48.1.9, id-pkix-ocsp-extended-revoke */ return 1;
    default: return 0;
    }
}

/* Rejects a critical extension that is not understood (RFC 5280 section 4.2, to which RFC 6960 section 4.4 refers). Go
 * and Java reject such staples. */
static int ocspCheckExtension(const X509_EXTENSION *extension, ocspError *err) {
    /* OpenSSL 3 takes it without const, OpenSSL 4 with const; neither writes to it. */
    const ASN1_OBJECT *type = X509_EXTENSION_get_object((X509_EXTENSION *)extension);
    char name[OCSP_OUTSIDE_TEXT_MAX + 1] = "?";

    if (!X509_EXTENSION_get_critical(extension) || ocspIsHarmless(type)) return 1;
    OBJ_obj2txt(name, sizeof(name), type, 1);
    return ocspFail(
        err, OCSP_FAIL_EXTENSION,
        "the response has a critical extension (%s) that is not understood, so clients would refuse it: disable the "
        "extension at the responder",
        name);
}

/* Parses a time in the response. RFC 6960 section 4.2.2.1 requires the form of RFC 5280; Go's clients and NSS reject a
 * response with any other. */
static int ocspReadTime(const ASN1_GENERALIZEDTIME *time, const char *name, int64_t *out, ocspError *err) {
    int ok;

    *out = ocspTime(time, &ok);
    return ok ? 1
              : ocspFail(err, OCSP_FAIL_DATES,
                         "the response's %s is not a time in the form YYYYMMDDHHMMSSZ, without fractions of a second "
                         "(RFC 5280 section 4.1.2.5.2)",
                         name);
}

/* Returns when a response without nextUpdate, received at `received`, expires. */
static int64_t ocspDefaultExpiry(int64_t this_update, int64_t now, int64_t received) {
    /* A file's mtime in the future (the clock was wrong) must not restart the default validity at each restart. */
    if (received == OCSP_RECEIVED_UNKNOWN)
        received = this_update + OCSP_CLOCK_SKEW;
    else if (received > now + OCSP_CLOCK_SKEW)
        received = 0;
    return ocspMin(received, now) + OCSP_DEFAULT_VALIDITY;
}

/* Parses one SingleResponse, for whichever certificate. Returns 0 with a sentence. */
static int ocspReadSingleResponse(OCSP_SINGLERESP *single,
                                  int64_t now,
                                  int64_t received,
                                  singleResponse *out,
                                  ocspError *err) {
    ASN1_GENERALIZEDTIME *revoked_at = NULL, *this_update = NULL, *next_update = NULL;
    int i;

    memset(out, 0, sizeof(*out));
    out->parsed_from = single;
    out->reason = -1;
    out->status = OCSP_single_get0_status(single, &out->reason, &revoked_at, &this_update, &next_update);
    if (out->status != V_OCSP_CERTSTATUS_REVOKED) out->reason = -1;
    for (i = 0; i < OCSP_SINGLERESP_get_ext_count(single); i++)
        if (!ocspCheckExtension(OCSP_SINGLERESP_get_ext(single, i), err)) return 0;
    if (!ocspReadTime(this_update, "thisUpdate", &out->this_update, err) ||
        (next_update && !ocspReadTime(next_update, "nextUpdate", &out->next_update, err)) ||
        (out->status == V_OCSP_CERTSTATUS_REVOKED &&
         !ocspReadTime(revoked_at, "revocationTime", &out->revoked_at, err)))
        return 0;
    if (next_update && out->next_update <= 0) /* 0 means absent */
        return ocspFail(err, OCSP_FAIL_DATES, "the response's nextUpdate is before 1970");
    out->expires_at = next_update ? out->next_update : ocspDefaultExpiry(out->this_update, now, received);
    out->counts =
        out->status != V_OCSP_CERTSTATUS_GOOD || (out->this_update <= now + OCSP_CLOCK_SKEW && out->expires_at > now);
    return 1;
}

/* ---- which SingleResponse is about the certificate --------------------------------------------------------------- */

#define OCSP_MAX_CERTID_DIGESTS 4 /* different digests in the matching CertIDs of one response */

/* The expected CertIDs of the certificate, one per digest, computed on demand. */
typedef struct ocspCertIds {
    int count;
    const EVP_MD *digest[OCSP_MAX_CERTID_DIGESTS];
    OCSP_CERTID *id[OCSP_MAX_CERTID_DIGESTS];
} ocspCertIds;

/* Whether the CertID `theirs` identifies the certificate, computed with the digest that the responder chose. The serial
 * number is compared first, as that costs nothing. Returns -1 with a sentence if the answer is unknown. */
static int ocspIsCertId(OCSP_CERTID *theirs, const ocspIdentity *id, ocspCertIds *known, ocspError *err) {
    ASN1_OBJECT *algorithm = NULL;
    ASN1_INTEGER *serial = NULL;
    const EVP_MD *digest;
    int i;

    if (!OCSP_id_get0_info(NULL, &algorithm, NULL, &serial, theirs) ||
        ASN1_INTEGER_cmp(serial, X509_get0_serialNumber(id->leaf)) != 0)
        return 0;
    digest = EVP_get_digestbyobj(algorithm);
    if (!digest) return 0;
    for (i = 0; i < known->count && known->digest[i] != digest; i++) continue;
    if (i == OCSP_MAX_CERTID_DIGESTS)
        return ocspFail(err, OCSP_FAIL_NO_ENTRY, "the response names the certificate with more than %d digests",
                        OCSP_MAX_CERTID_DIGESTS) -
               1;
    if (i == known->count) {
        known->digest[i] = digest;
        known->id[i] = OCSP_cert_to_id(digest, id->leaf, id->issuer);
        known->count++;
        /* Every OpenSSL has these digests: only a lack of memory fails here. */
        if (!known->id[i] && (EVP_MD_get_type(digest) == NID_sha1 || EVP_MD_get_type(digest) == NID_sha256)) {
            ocspMayChangeAt(err, 0);
            return ocspFail(err, OCSP_FAIL_MEMORY_VERIFY, "out of memory comparing the response's CertIDs") - 1;
        }
    }
    return known->id[i] && OCSP_id_cmp(known->id[i], theirs) == 0;
}

/* Ranks statuses with equal thisUpdate: revoked > unknown > good, as a revocation must not be lost, and unknown is
 * safer than a good that may be wrong. */
static int ocspStatusRank(int status) {
    return status == V_OCSP_CERTSTATUS_REVOKED ? 2 : status == V_OCSP_CERTSTATUS_UNKNOWN;
}

/* Whether `a` takes precedence over `b`: usable before unusable, then the later thisUpdate, then the status. */
static int ocspOutranks(const singleResponse *a, const singleResponse *b) {
    if (a->counts != b->counts) return a->counts;
    if (a->this_update != b->this_update) return a->this_update > b->this_update;
    return ocspStatusRank(a->status) > ocspStatusRank(b->status);
}

/* Returns the NID of the digest in a SingleResponse's CertID. */
static int ocspCertIdDigest(OCSP_SINGLERESP *single) {
    ASN1_OBJECT *algorithm = NULL;

    OCSP_id_get0_info(NULL, &algorithm, NULL, NULL, (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(single));
    return OBJ_obj2nid(algorithm);
}

/* Finds the SingleResponse for exactly this certificate; of several the newest, where one that says good but is not
 * valid now is used only if there is no other. Every SingleResponse is checked, as a client may reject the response for
 * any of them. Returns 0 with a sentence. */
static int ocspFindSingleResponse(OCSP_BASICRESP *basic,
                                  const ocspIdentity *id,
                                  int64_t now,
                                  int64_t received,
                                  singleResponse *out,
                                  ocspError *err) {
    ocspCertIds known = {0};
    int found = 0, matches = 0, sha1 = 0, i, count = OCSP_resp_count(basic);

    memset(out, 0, sizeof(*out));
    for (i = 0; i < count && matches >= 0; i++) {
        OCSP_SINGLERESP *next = OCSP_resp_get0(basic, i);
        singleResponse single;
        matches = ocspReadSingleResponse(next, now, received, &single, err)
                      ? ocspIsCertId((OCSP_CERTID *)OCSP_SINGLERESP_get0_id(next), id, &known, err)
                      : -1;
        if (matches > 0) sha1 |= (single.certid_digest = ocspCertIdDigest(next)) == NID_sha1;
        if (matches > 0 && (!found++ || ocspOutranks(&single, out))) *out = single;
        if (matches > 0 && single.this_update > now + OCSP_CLOCK_SKEW)
            ocspMayChangeAt(err, single.this_update - OCSP_CLOCK_SKEW);
    }
    for (i = 0; i < known.count; i++) OCSP_CERTID_free(known.id[i]);
    if (matches < 0) return 0;
    if (sha1) out->certid_digest = NID_sha1;
    if (found) return 1;
    ocspFail(
        err, OCSP_FAIL_NO_ENTRY,
        "no SingleResponse matches the certificate (serial %s) among the %d in the response: the responder answers "
        "for another certificate or another issuer",
        id->serial, count);
    if (err) err->no_matching_certid = 1;
    return 0;
}

OCSP_SINGLERESP *ocspSingleResponseOf(OCSP_BASICRESP *basic, const ocspIdentity *id, int64_t now) {
    singleResponse found;

    return ocspFindSingleResponse(basic, id, now, now, &found, NULL) ? found.parsed_from : NULL;
}

/* Checks status and dates, which are meaningful only after the signature is verified, and fills *out. */
static int ocspCheckSingleResponse(const singleResponse *single,
                                   const ocspIdentity *id,
                                   X509 *signer,
                                   int64_t now,
                                   ocspResponse *out,
                                   ocspError *err) {
    int signer_ok = 1, revoked = single->status == V_OCSP_CERTSTATUS_REVOKED;
    char text[32];

    if (single->status == V_OCSP_CERTSTATUS_UNKNOWN)
        return ocspFail(err, OCSP_FAIL_UNKNOWN,
                        "the responder does not know the certificate (status unknown, serial %s): it may lag behind "
                        "the CA, or be another CA's",
                        id->serial);
    if (single->this_update > now + OCSP_CLOCK_SKEW) {
        ocspTimeText(text, sizeof(text), single->this_update);
        return ocspFail(
            err, OCSP_FAIL_NOT_YET_VALID,
            "the response's thisUpdate (%s) is more than %d seconds in the future: compare this machine's clock "
            "with the responder's",
            text, OCSP_CLOCK_SKEW);
    }
    if (single->expires_at <= now) {
        if (err) err->expired = !revoked;
        if (!single->next_update)
            return ocspFail(err, OCSP_FAIL_EXPIRED,
                            "the response has no nextUpdate and is older than the default validity of %d seconds",
                            OCSP_DEFAULT_VALIDITY);
        ocspTimeText(text, sizeof(text), single->next_update);
        return ocspFail(err, OCSP_FAIL_EXPIRED, "the response has expired (nextUpdate %s)", text);
    }
    if (single->next_update && single->next_update < single->this_update)
        return ocspFail(err, OCSP_FAIL_DATES, "the response's nextUpdate is before its thisUpdate");
    out->revoked = revoked;
    out->revocation_reason = single->reason;
    out->revoked_at = single->revoked_at;
    out->certid_digest = single->certid_digest;
    out->this_update = single->this_update;
    out->next_update = single->next_update;
    out->expires_at = ocspMin(single->expires_at, id->not_after);
    out->expires_at = ocspMin(out->expires_at, ocspTime(X509_get0_notAfter(signer), &signer_ok));
    if (!signer_ok || out->expires_at <= now)
        return ocspFail(err, OCSP_FAIL_EXPIRED,
                        "the served certificate, or the one that signed the response, has expired: renew it");
    return 1;
}

/* Checks and verifies a BasicOCSPResponse; fills all of *out except its bytes. Returns 0 with a sentence. */
static int ocspVerifyBasic(OCSP_BASICRESP *basic,
                           const ocspIdentity *id,
                           int64_t now,
                           int64_t received,
                           ocspResponse *out,
                           ocspError *err) {
    singleResponse single;
    X509 *signer;
    int i;

    if (!ocspReadTime(OCSP_resp_get0_produced_at(basic), "producedAt", &out->produced_at, err)) return 0;
    for (i = 0; i < OCSP_BASICRESP_get_ext_count(basic); i++)
        if (!ocspCheckExtension(OCSP_BASICRESP_get_ext(basic, i), err)) return 0;
    if (!ocspFindSingleResponse(basic, id, now, received, &single, err)) return 0;
    if (err) err->matched = 1;
    if (ocspWeakSignature(OCSP_resp_get0_tbs_sigalg(basic)))
        return ocspFail(err, OCSP_FAIL_SIGNATURE,
                        "the response is signed with MD5 or an older digest, which anybody can forge");
    signer = ocspFindSigner(basic, id, now, err);
    return signer && ocspCheckSingleResponse(&single, id, signer, now, out, err);
}

static void ocspClearOutcome(ocspResponse *out, ocspError *err) {
    memset(out, 0, sizeof(*out));
    if (!err) return;
    err->no_matching_certid = err->matched = err->expired = 0;
    err->may_change_at = OCSP_NEVER;
}

int ocspVerify(ocspBytes der,
               const ocspIdentity *id,
               int64_t now,
               int64_t received,
               ocspResponse *out,
               ocspError *err) {
    const unsigned char *p = der.data;
    const size_t len = der.len;
    OCSP_RESPONSE *response = NULL;
    OCSP_BASICRESP *basic = NULL;
    size_t following = 0;
    int status, ok = 0, queue_was_empty = ERR_peek_error() == 0;

    ocspClearOutcome(out, err);
    if (!id->issuer) return ocspFail(err, OCSP_FAIL_SIGNER, "the issuer of the certificate is unknown");
    if (len == 0) return ocspFail(err, OCSP_FAIL_DER, "the response is empty");
    if (len > OCSP_MAX_RESPONSE_BYTES)
        return ocspFail(err, OCSP_FAIL_DER, "the response has more than %d bytes", OCSP_MAX_RESPONSE_BYTES);

    ERR_set_mark(); /* errors of a bad response must not stay in the thread's error queue */
    if (ocspDerWhole(der.data, len, &following)) response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
    if (!response) {
        ocspFail(err, OCSP_FAIL_DER, "the answer (%zu bytes) is not a complete DER-encoded OCSP response", len);
        goto done;
    }
    if (following > 0) {
        ocspFail(err, OCSP_FAIL_DER, "%zu bytes follow the OCSP response", following);
        goto done;
    }
    status = OCSP_response_status(response);
    if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        ocspFail(err, OCSP_FAIL_RESPONDER_STATUS, "the responder answers \"%s\" instead of a status",
                 OCSP_response_status_str(status));
        goto done;
    }
    if (!ocspDerBounded(der.data, len, err)) goto done; /* before OpenSSL parses the contents */
    basic = OCSP_response_get1_basic(response);
    if (!basic) {
        ocspFail(err, OCSP_FAIL_DER, "the answer is not a basic OCSP response, or a broken one");
        goto done;
    }
    if (!ocspIsCanonical(der.data, len, basic)) {
        ocspFail(err, OCSP_FAIL_DER, "the answer is not DER, or contains bytes that are no part of the OCSP response");
        goto done;
    }
    if (!ocspVerifyBasic(basic, id, now, received, out, err)) goto done;
    out->received = received;
    out->der = ocspMemdup(der.data, len);
    out->len = len;
    ok = out->der ? 1 : ocspFail(err, OCSP_FAIL_MEMORY_RESPONSE, "out of memory storing the response");
    if (!ok) ocspMayChangeAt(err, 0);
done:
    if (!ok) memset(out, 0, sizeof(*out));
    if (!ok) ocspBlameMemory(err, queue_was_empty, "verifying the response");
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_pop_to_mark();
    return ok;
}

/* Returns 1 if a SingleResponse in `der` is about a CA certificate in `chain`, a verified chain with the leaf first (may be
 * NULL). Only for a response that ocspVerify has bounded: one that it refused with no_matching_certid. Verifies nothing. */
static int ocspNamesIssuer(ocspBytes der, ocspX509Stack *chain) {
    const unsigned char *p = der.data;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic;
    int i, j, found = 0;

    ERR_set_mark();
    response = d2i_OCSP_RESPONSE(NULL, &p, (long)der.len);
    basic = response ? OCSP_response_get1_basic(response) : NULL;
    for (i = 1; basic && !found && i + 1 < sk_X509_num(chain); i++) {
        const ocspIdentity authority = {.leaf = sk_X509_value(chain, i), .issuer = sk_X509_value(chain, i + 1)};
        ocspCertIds known = {0};
        for (j = 0; j < OCSP_resp_count(basic) && !found; j++) {
            const OCSP_CERTID *certid = OCSP_SINGLERESP_get0_id(OCSP_resp_get0(basic, j));
            found = ocspIsCertId((OCSP_CERTID *)certid, &authority, &known, NULL) > 0;
        }
        for (j = 0; j < known.count; j++) OCSP_CERTID_free(known.id[j]);
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_pop_to_mark();
    return found;
}

ocspPeerState ocspVerifyStaple(const ocspIdentity *id,
                               ocspX509Stack *chain,
                               ocspBytes der,
                               int64_t now,
                               ocspError *err) {
    ocspPeerState state = OCSP_PEER_BAD;
    ocspResponse response;
    int revoked;
    char since[40];

    if (!der.data) {
        ocspFail(err, OCSP_FAIL_PEER, "no OCSP response is stapled");
        err->may_change_at = OCSP_NEVER;
        return OCSP_PEER_MISSING;
    }
    if (!ocspVerify(der, id, now, OCSP_RECEIVED_UNKNOWN, &response, err)) {
        if (err->expired) state = OCSP_PEER_EXPIRED;
        /* From 3.6 OpenSSL receives the staples of the whole chain, and returns the first one that there is. */
        if (err->no_matching_certid && chain && ocspNamesIssuer(der, chain)) state = OCSP_PEER_MISSING;
        return state;
    }
    revoked = response.revoked;
    if (revoked) {
        ocspFail(err, OCSP_FAIL_PEER, "REVOKED on %s", ocspUtcText(response.revoked_at, since, sizeof(since)));
        ocspMayChangeAt(err, response.expires_at);
    }
    ocspResponseClear(&response);
    return revoked ? OCSP_PEER_REVOKED : OCSP_PEER_GOOD;
}

void ocspResponseClear(ocspResponse *r) {
    ocspFree(r->der);
    memset(r, 0, sizeof(*r));
}

ocspFreshness ocspCompare(const ocspResponse *current, const ocspResponse *fresh, int64_t now) {
    if (!current->der) return OCSP_FRESH_NEWER;
    /* An expired good response is replaced by any valid one that has a nextUpdate, even an older one. Two things are
     * not replaced that way: a revocation, which only a newer response lifts, and a response without nextUpdate, or
     * replayed ones would be stapled forever. */
    if (!current->revoked && current->expires_at <= now && fresh->next_update) return OCSP_FRESH_NEWER;
    /* The current response is from the future: the clock was wrong, and is right now. */
    if (!current->revoked && current->this_update > now + OCSP_CLOCK_SKEW) return OCSP_FRESH_NEWER;
    if (fresh->this_update != current->this_update)
        return fresh->this_update > current->this_update ? OCSP_FRESH_NEWER : OCSP_FRESH_OLDER;
    /* CFSSL and Go's CAs round thisUpdate to the hour; producedAt orders the responses within it. */
    if (fresh->produced_at > current->produced_at) return OCSP_FRESH_NEWER;
    if (fresh->revoked == current->revoked) return OCSP_FRESH_SAME;
    return fresh->produced_at == current->produced_at && fresh->revoked ? OCSP_FRESH_NEWER : OCSP_FRESH_OLDER;
}

int64_t ocspPeekNextUpdate(const unsigned char *der, size_t len) {
    const unsigned char *p = der;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic;
    int64_t latest = -1;
    int i, ok;

    if (!ocspDerBounded(der, len, NULL)) return -1;
    ERR_set_mark();
    response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
    basic = response ? OCSP_response_get1_basic(response) : NULL;
    for (i = 0; basic && i < OCSP_resp_count(basic); i++) {
        ASN1_GENERALIZEDTIME *next_update = NULL;
        int64_t t;
        OCSP_single_get0_status(OCSP_resp_get0(basic, i), NULL, NULL, NULL, &next_update);
        t = next_update ? ocspTime(next_update, &ok) : 0;
        if (t == 0) {
            latest = 0;
            break;
        }
        if (t > latest) latest = t;
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_pop_to_mark();
    return latest;
}

#endif /* OCSP_SUPPORTED */
