/* ocsp_verify.c - bytes to a verified response, or the reason why not (RFC 6960). Pure: `now` is an argument, nothing
 * is read or asked, so that this one file can be tested, fuzzed and simulated alone.
 *
 * The signer is chosen here by name, not by OCSP_basic_verify's chain building: the only trust anchor is the issuer of
 * the certificate that we serve, and the only certificates that may speak for it are those that it signed itself for
 * that purpose (section 4.2.2.2). Trusting whatever certificates come with a response, as several servers do, lets
 * a leaf sign for itself. What OpenSSL does is the parsing and the signatures.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <string.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>

/* RFC 5280 section 4.1.2.5: seconds, no fractions, Z. OpenSSL reads more than that; clients refuse it. */
static int ocspIsStrictTime(const ASN1_TIME *t) {
    int n = ASN1_STRING_length(t), digits = ASN1_STRING_type(t) == V_ASN1_UTCTIME ? 12 : 14, i;
    const unsigned char *text = ASN1_STRING_get0_data(t);

    for (i = 0; i < n && text[i] >= '0' && text[i] <= '9'; i++) continue;
    return i == digits && n == digits + 1 && text[i] == 'Z';
}

/* Seconds since 1970 of an ASN.1 time; 0 on one that does not parse (then *ok is 0). Allocates nothing: out of memory
 * must not look like a time that is missing. OpenSSL reckons because timegm is not in POSIX. */
static time_t ocspTime(const ASN1_TIME *t, int *ok) {
    static const struct tm epoch = {.tm_year = 70, .tm_mday = 1};
    struct tm tm;
    int days = 0, secs = 0;

    *ok = t && ocspIsStrictTime(t) && ASN1_TIME_to_tm(t, &tm) && OPENSSL_gmtime_diff(&days, &secs, &epoch, &tm);
    return *ok ? (time_t)days * 86400 + secs : 0;
}

static time_t ocspMin(time_t a, time_t b) {
    return a < b ? a : b;
}

static void ocspTimeText(char *out, size_t size, time_t t) {
    struct tm tm;

    if (!gmtime_r(&t, &tm) || strftime(out, size, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0) out[0] = '\0';
}

/* The response is signed by whom its ResponderID names: does that name `cert`? */
static int ocspNamesResponder(const OCSP_BASICRESP *basic, X509 *cert) {
    const ASN1_OCTET_STRING *key_hash = NULL;
    const X509_NAME *name = NULL;
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned md_len;

    if (!OCSP_resp_get0_id(basic, &key_hash, &name)) return 0;
    if (name) return X509_NAME_cmp(name, X509_get_subject_name(cert)) == 0;
    return key_hash && X509_pubkey_digest(cert, EVP_sha1(), md, &md_len) &&
           (unsigned)ASN1_STRING_length(key_hash) == md_len && memcmp(ASN1_STRING_get0_data(key_hash), md, md_len) == 0;
}

static int ocspSignedBy(OCSP_BASICRESP *basic, X509 *signer) {
    STACK_OF(X509) *only = sk_X509_new_null();
    int ok;

    /* NOINTERN and a stack of one: exactly this key is tried. NOVERIFY: whether it may sign is judged by us. */
    ok = only && sk_X509_push(only, signer) > 0 &&
         OCSP_basic_verify(basic, only, NULL, OCSP_NOINTERN | OCSP_NOVERIFY | OCSP_TRUSTOTHER) > 0;
    sk_X509_free(only);
    return ok;
}

/* Why `cert` may not sign for `issuer`, or NULL if it may (RFC 6960 section 4.2.2.2, the delegate). */
static const char *ocspDelegateFault(X509 *cert, X509 *issuer, time_t now) {
    int from_ok, to_ok;
    time_t from = ocspTime(X509_get0_notBefore(cert), &from_ok), to = ocspTime(X509_get0_notAfter(cert), &to_ok);

    if (!ocspIssued(issuer, cert)) return "its certificate was not issued by the issuer of the one that is served";
    /* X509_get_extension_flags fills in what the next lines read; EXFLAG_INVALID: an extension does not parse */
    if (X509_get_extension_flags(cert) & (EXFLAG_INVALID | EXFLAG_CRITICAL))
        return "its certificate holds an extension that is critical and not understood, or broken";
    if (!(X509_get_extension_flags(cert) & EXFLAG_XKUSAGE) || !(X509_get_extended_key_usage(cert) & XKU_OCSP_SIGN))
        return "its certificate lacks the extended key usage OCSPSigning";
    if (!(X509_get_key_usage(cert) & (KU_DIGITAL_SIGNATURE | KU_NON_REPUDIATION))) /* RFC 5280 section 4.2.1.12 */
        return "its certificate's key usage forbids signatures";
    /* The same skew as for thisUpdate: some responders make their delegate together with the answer. */
    if (!from_ok || from > now + OCSP_CLOCK_SKEW) return "its certificate is not valid yet";
    if (!to_ok || to <= now) return "its certificate has expired";
    return NULL;
}

/* The digests that can be forged; SHA-1 is left to the CA's judgement, many private ones still sign with it. */
static int ocspWeakDigest(const OCSP_BASICRESP *basic) {
    const ASN1_OBJECT *algorithm;
    int digest = NID_undef;

    X509_ALGOR_get0(&algorithm, NULL, NULL, OCSP_resp_get0_tbs_sigalg(basic));
    return OBJ_find_sigid_algs(OBJ_obj2nid(algorithm), &digest, NULL) && (digest == NID_md5 || digest == NID_md4);
}

#define OCSP_MAX_DEPTH 32 /* of values in values; a response with certificates has about 12 */

/* Are der[0..len) whole DER values, as far as one can tell without their meaning: definite and shortest lengths, no
 * string in pieces? Certificates and names keep the bytes that they were read from, so re-encoding cannot see theirs.
 */
static int ocspIsDer(const unsigned char *der, size_t len, int depth) {
    while (len > 0) {
        unsigned tag = der[0];
        size_t head = 2, n, i;

        if (len < 2 || depth > OCSP_MAX_DEPTH || tag == 0 || (tag & 0x1f) == 0x1f) return 0;
        n = der[1];
        if (n > 127) {
            head += n & 127;
            if (head == 2 || head > 5 || head > len || der[2] == 0) return 0;
            for (n = 0, i = 2; i < head; i++) n = n << 8 | der[i];
            if (n < 128) return 0;
        }
        if (n > len - head) return 0;
        if ((tag & 0xe0) == 0x20 && tag != 0x30 && tag != 0x31) return 0;
        if ((tag & 0x20) && !ocspIsDer(der + head, n, depth + 1)) return 0;
        der += head + n;
        len -= head + n;
    }
    return 1;
}

/* The same of the BasicOCSPResponse, which is wrapped in a string. */
static int ocspBodyIsDer(const OCSP_BASICRESP *basic) {
    unsigned char *bytes = NULL;
    int n = i2d_OCSP_BASICRESP((OCSP_BASICRESP *)basic, &bytes);
    int ok = n > 0 && ocspIsDer(bytes, (size_t)n, 0);

    OPENSSL_free(bytes);
    return ok;
}

/* Are the bytes what OpenSSL makes of them? It reads BER, lets bytes stand behind the inner structure, and verifies the
 * signature over its own encoding: such bytes would verify here, be stapled, and be refused by strict clients. */
static int ocspIsCanonical(const unsigned char *der, size_t len, OCSP_BASICRESP *basic) {
    OCSP_RESPONSE *again = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    unsigned char *bytes = NULL;
    int n = again ? i2d_OCSP_RESPONSE(again, &bytes) : -1;
    int same = n >= 0 && (size_t)n == len && memcmp(bytes, der, len) == 0 && ocspBodyIsDer(basic);

    OPENSSL_free(bytes);
    OCSP_RESPONSE_free(again);
    return same;
}

/* Finds who signed and whether it may. Returns the signer (owned by basic or id), or NULL with a sentence. */
static X509 *ocspFindSigner(OCSP_BASICRESP *basic, const ocspIdentity *id, time_t now, ocspError *err) {
    const STACK_OF(X509) *certs = OCSP_resp_get0_certs(basic);
    const char *fault = "no certificate that the response names as its signer was found in it";
    int i;

    if (ocspNamesResponder(basic, id->issuer)) {
        if (ocspSignedBy(basic, id->issuer)) return id->issuer;
        fault = "the signature does not verify with the issuer's key";
    }
    for (i = 0; i < sk_X509_num(certs); i++) {
        X509 *cert = sk_X509_value(certs, i);
        const char *delegate_fault;
        if (!ocspNamesResponder(basic, cert) || X509_cmp(cert, id->issuer) == 0) continue;
        delegate_fault = ocspDelegateFault(cert, id->issuer, now);
        if (!delegate_fault && ocspSignedBy(basic, cert)) return cert;
        fault = delegate_fault ? delegate_fault : "the signature does not verify with the signer's key";
    }
    ocspFail(err, OCSP_ERR_VERIFY, "the response's signer is not accepted: %s", fault);
    return NULL;
}

/* Of two entries that are equally new: revoked is the word that must not be lost, unknown is none. */
static int ocspWeight(int status) {
    return status == V_OCSP_CERTSTATUS_REVOKED ? 2 : status == V_OCSP_CERTSTATUS_UNKNOWN;
}

/* Digests that every OpenSSL has: hashing with them fails for lack of memory only. */
static int ocspCommonDigest(const EVP_MD *md) {
    return EVP_MD_get_type(md) == NID_sha1 || EVP_MD_get_type(md) == NID_sha256;
}

/* The entry for exactly our certificate, matched by the hash that the responder chose; of several the newest. */
static OCSP_SINGLERESP *ocspFindEntry(OCSP_BASICRESP *basic, const ocspIdentity *id, ocspError *err) {
    OCSP_SINGLERESP *best = NULL;
    time_t best_time = 0;
    int best_weight = 0, matched = 0, unsure = 0, i, count = OCSP_resp_count(basic);

    for (i = 0; i < count; i++) {
        OCSP_SINGLERESP *entry = OCSP_resp_get0(basic, i);
        OCSP_CERTID *theirs = (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(entry), *ours = NULL;
        ASN1_OBJECT *algorithm = NULL;
        ASN1_GENERALIZEDTIME *this_update = NULL;
        const EVP_MD *md;
        time_t t;
        int ok, status;

        if (!OCSP_id_get0_info(NULL, &algorithm, NULL, NULL, theirs)) continue;
        md = EVP_get_digestbyobj(algorithm);
        if (md && !(ours = OCSP_cert_to_id(md, id->leaf, id->issuer))) unsure |= ocspCommonDigest(md);
        ok = ours && OCSP_id_cmp(ours, theirs) == 0;
        OCSP_CERTID_free(ours);
        if (!ok) continue;
        matched = 1;
        status = OCSP_single_get0_status(entry, NULL, NULL, &this_update, NULL);
        t = ocspTime(this_update, &ok);
        if (!ok) continue;
        if (!best || t > best_time || (t == best_time && ocspWeight(status) > best_weight)) {
            best = entry;
            best_time = t;
            best_weight = ocspWeight(status);
        }
    }
    if (unsure) { /* it may be ours, and newer than those that were compared */
        ocspFail(err, OCSP_ERR_VERIFY, "out of memory while comparing the response's entries");
        best = NULL;
    } else if (!best && matched) {
        ocspFail(err, OCSP_ERR_VERIFY, "the response's thisUpdate is not a time");
    } else if (!best) {
        ocspFail(err, OCSP_ERR_VERIFY,
                 "the response has no entry for the certificate (serial %s) among its %d: the responder answers for "
                 "another certificate or another issuer",
                 id->serial, count);
        if (err) err->not_ours = 1;
    }
    return best;
}

/* Status and dates of our entry. */
static int ocspJudgeEntry(OCSP_SINGLERESP *entry, OCSP_BASICRESP *basic, const ocspIdentity *id, X509 *signer,
                          time_t now, time_t received, ocspResponse *out, ocspError *err) {
    ASN1_GENERALIZEDTIME *revoked_at = NULL, *this_update = NULL, *next_update = NULL;
    int status = OCSP_single_get0_status(entry, &out->revocation_reason, &revoked_at, &this_update, &next_update);
    int ok, signer_ok = 1;
    char text[32];

    if (status == V_OCSP_CERTSTATUS_UNKNOWN)
        return ocspFail(err, OCSP_ERR_RESPONSE,
                        "the responder does not know the certificate (status unknown, serial %s): it may lag behind "
                        "the CA, or be another CA's",
                        id->serial);
    out->revoked = status == V_OCSP_CERTSTATUS_REVOKED;
    if (!out->revoked) out->revocation_reason = -1;
    out->this_update = ocspTime(this_update, &ok);
    if (!ok) return ocspFail(err, OCSP_ERR_VERIFY, "the response's thisUpdate is not a time");
    out->next_update = next_update ? ocspTime(next_update, &ok) : 0;
    if (!ok || (next_update && out->next_update <= 0))
        return ocspFail(err, OCSP_ERR_VERIFY, "the response's nextUpdate is not a time");
    out->revoked_at = out->revoked ? ocspTime(revoked_at, &ok) : 0;
    out->produced_at = ocspTime(OCSP_resp_get0_produced_at(basic), &ok);

    if (out->this_update > now + OCSP_CLOCK_SKEW) {
        ocspTimeText(text, sizeof(text), out->this_update);
        return ocspFail(
            err, OCSP_ERR_VERIFY,
            "the response's thisUpdate (%s) lies more than %d seconds in the future: compare this machine's "
            "clock with the responder's",
            text, OCSP_CLOCK_SKEW);
    }
    if (next_update && out->next_update <= now) {
        ocspTimeText(text, sizeof(text), out->next_update);
        if (err) err->expired = !out->revoked;
        return ocspFail(err, OCSP_ERR_VERIFY, "the response has expired (nextUpdate %s)", text);
    }
    if (next_update && out->next_update < out->this_update)
        return ocspFail(err, OCSP_ERR_VERIFY, "the response's nextUpdate lies before its thisUpdate");

    /* A file from the future (a clock that was wrong) must not begin its ten minutes anew at each restart. */
    if (received == OCSP_RECEIVED_UNKNOWN)
        received = out->this_update + OCSP_CLOCK_SKEW;
    else if (received > now + OCSP_CLOCK_SKEW)
        received = 0;
    out->end = next_update ? out->next_update : ocspMin(received, now) + OCSP_LIFE_WITHOUT_END;
    if (out->end <= now) {
        if (err) err->expired = !out->revoked;
        return ocspFail(err, OCSP_ERR_VERIFY,
                        "the response has no nextUpdate, which is taken for a life of %d seconds, and that is over",
                        OCSP_LIFE_WITHOUT_END);
    }
    out->end = ocspMin(out->end, id->not_after);
    out->end = ocspMin(out->end, ocspTime(X509_get0_notAfter(signer), &signer_ok));
    if (!signer_ok || out->end <= now)
        return ocspFail(err, OCSP_ERR_VERIFY,
                        "the certificate that is served, or the one that signed the response, has "
                        "expired: renew it");
    return 1;
}

int ocspVerify(const unsigned char *der, size_t len, const ocspIdentity *id, time_t now, time_t received,
               ocspResponse *out, ocspError *err) {
    const unsigned char *p = der;
    OCSP_RESPONSE *response = NULL;
    OCSP_BASICRESP *basic = NULL;
    OCSP_SINGLERESP *entry;
    X509 *signer;
    int status, ok = 0;

    memset(out, 0, sizeof(*out));
    if (err) err->not_ours = err->expired = 0;
    if (!id->issuer) return ocspFail(err, OCSP_ERR_VERIFY, "the issuer of the certificate is not known");
    if (len == 0) return ocspFail(err, OCSP_ERR_RESPONSE, "the answer is empty");
    if (len > OCSP_MAX_RESPONSE_BYTES)
        return ocspFail(err, OCSP_ERR_RESPONSE, "the answer has more than %d bytes", OCSP_MAX_RESPONSE_BYTES);

    ERR_set_mark(); /* what OpenSSL thinks of a bad response must not stay in the thread's error queue */
    response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
    if (!response) {
        ocspFail(err, OCSP_ERR_RESPONSE, "the answer (%zu bytes) is not a whole DER-encoded OCSP response", len);
        goto done;
    }
    if (p != der + len) {
        ocspFail(err, OCSP_ERR_RESPONSE, "%zu bytes follow the OCSP response", (size_t)(der + len - p));
        goto done;
    }
    status = OCSP_response_status(response);
    if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        ocspFail(err, OCSP_ERR_RESPONSE, "the responder answers \"%s\" instead of a status",
                 OCSP_response_status_str(status));
        goto done;
    }
    basic = OCSP_response_get1_basic(response);
    if (!basic) {
        ocspFail(err, OCSP_ERR_RESPONSE, "the answer is not a basic OCSP response, or a broken one");
        goto done;
    }
    if (!ocspIsCanonical(der, len, basic)) {
        ocspFail(err, OCSP_ERR_RESPONSE, "the answer is not DER, or holds bytes that are no part of the OCSP response");
        goto done;
    }
    entry = ocspFindEntry(basic, id, err);
    if (!entry) goto done;
    if (ocspWeakDigest(basic)) {
        ocspFail(err, OCSP_ERR_VERIFY, "the response is signed with MD5, which anybody can forge");
        goto done;
    }
    signer = ocspFindSigner(basic, id, now, err);
    if (!signer || !ocspJudgeEntry(entry, basic, id, signer, now, received, out, err)) goto done;
    out->der = ocspMemdup(der, len);
    out->len = len;
    ok = out->der ? 1 : ocspFail(err, OCSP_ERR_RESPONSE, "out of memory while keeping the response");
done:
    if (!ok) memset(out, 0, sizeof(*out));
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_pop_to_mark();
    return ok;
}

void ocspResponseClear(ocspResponse *r) {
    ocspFree(r->der);
    memset(r, 0, sizeof(*r));
}

ocspFreshness ocspCompare(const ocspResponse *held, const ocspResponse *fresh, time_t now) {
    if (!held->der) return OCSP_FRESH_NEWER;
    /* An expired good answer is history: another one that says itself that it still holds is worth more than nothing.
     * Two things are not renewed that way: a revocation (only a later word of the CA lifts it), and the ten minutes of
     * an answer without nextUpdate (or replayed ones would be stapled forever, as NATS does). */
    if (!held->revoked && held->end <= now && fresh->next_update) return OCSP_FRESH_NEWER;
    /* Held from the future: a clock was wrong, and is right now. */
    if (!held->revoked && held->this_update > now + OCSP_CLOCK_SKEW) return OCSP_FRESH_NEWER;
    if (fresh->this_update > held->this_update) return OCSP_FRESH_NEWER;
    if (fresh->this_update < held->this_update || (held->revoked && !fresh->revoked)) return OCSP_FRESH_OLDER;
    return fresh->revoked && !held->revoked ? OCSP_FRESH_NEWER : OCSP_FRESH_SAME;
}

time_t ocspPeekNextUpdate(const unsigned char *der, size_t len) {
    const unsigned char *p = der;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic;
    time_t latest = -1;
    int i, ok;

    ERR_set_mark();
    response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
    basic = response ? OCSP_response_get1_basic(response) : NULL;
    for (i = 0; basic && i < OCSP_resp_count(basic); i++) {
        ASN1_GENERALIZEDTIME *next_update = NULL;
        time_t t;
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
