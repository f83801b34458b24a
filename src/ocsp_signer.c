/* ocsp_signer.c - finds the signer of an OCSP response and checks its authorization (RFC 6960 section 4.2.2.2).
 *
 * The signer is selected by ResponderID here, not by the chain building of OCSP_basic_verify. The only trust anchor is
 * the issuer of the certificate in question; an authorized responder needs a certificate that the issuer signed with
 * OCSPSigning. Trusting any certificate in a response, as several servers do, lets a leaf sign for itself. OpenSSL does
 * the parsing and the signatures.
 *
 * WORK. The certificates in a response may be an attacker's, and a peer's response is verified in the handshake. So the
 * cheap checks come first, then the issuer's signature on the responder's certificate, and last the response's
 * signature, only with keys that the issuer certified, and once for each key. OCSP_MAX_VERIFICATIONS bounds the cost of
 * one response.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <string.h>
#include <openssl/ocsp.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

/* For an authorized responder's key; OpenSSL's security level 1: RSA of 1024 bits or more, elliptic curves of 160. The
 * issuer's own key is not checked: the served certificate depends on it anyway. */
#define OCSP_MIN_SECURITY_BITS 80

/* Whether the ResponderID of the response identifies `cert`, by name or by SHA-1 of the key. */
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
    ocspX509Stack *only = sk_X509_new_null();
    int ok;

    /* NOINTERN and a stack of one: only this key is tried. NOVERIFY: authorization is checked in this file. */
    ok = only && sk_X509_push(only, signer) > 0 &&
         OCSP_basic_verify(basic, only, NULL, OCSP_NOINTERN | OCSP_NOVERIFY | OCSP_TRUSTOTHER) > 0;
    sk_X509_free(only);
    return ok;
}

/* Returns the NID of a signature algorithm's digest: NID_undef if it has no separate one (Ed25519), -1 if it does not
 * parse. RSASSA-PSS names the digest in its parameters (RFC 4055 section 3.1), SHA-1 by default. */
static int ocspSignatureDigest(const X509_ALGOR *algorithm) {
    const ASN1_OBJECT *oid;
    const void *value;
    int type, digest = NID_undef;

    X509_ALGOR_get0(&oid, &type, &value, algorithm);
    if (OBJ_obj2nid(oid) == NID_rsassaPss) {
        const ASN1_STRING *text = type == V_ASN1_SEQUENCE ? value : NULL;
        const unsigned char *p = text ? ASN1_STRING_get0_data(text) : NULL;
        RSA_PSS_PARAMS *params = text ? d2i_RSA_PSS_PARAMS(NULL, &p, ASN1_STRING_length(text)) : NULL;
        digest = !params ? -1 : NID_sha1;
        if (params && params->hashAlgorithm) {
            X509_ALGOR_get0(&oid, NULL, NULL, params->hashAlgorithm);
            digest = OBJ_obj2nid(oid);
        }
        RSA_PSS_PARAMS_free(params);
        return digest;
    }
    OBJ_find_sigid_algs(OBJ_obj2nid(oid), &digest, NULL);
    return digest;
}

int ocspWeakSignature(const X509_ALGOR *algorithm) {
    int digest = ocspSignatureDigest(algorithm);

    /* SHA-1 is accepted: many private CAs still sign with it. */
    return digest == NID_md5 || digest == NID_md4 || digest == NID_md2 || digest == -1;
}

static int ocspWeakKey(X509 *cert) {
    const EVP_PKEY *key = X509_get0_pubkey(cert);

    return !key || EVP_PKEY_get_security_bits(key) < OCSP_MIN_SECURITY_BITS;
}

/* Returns why `cert` is not an authorized responder of `issuer`, with *code, or NULL if it is. */
static const char *ocspResponderFault(X509 *cert, X509 *issuer, int64_t now, ocspErrorCode *code, ocspError *err) {
    int from_ok, to_ok;
    int64_t from = ocspTime(X509_get0_notBefore(cert), &from_ok), to = ocspTime(X509_get0_notAfter(cert), &to_ok);

    /* The same skew as for thisUpdate: some responders create their certificate together with the response. */
    *code = OCSP_FAIL_NOT_YET_VALID;
    if (from_ok && from > now + OCSP_CLOCK_SKEW) {
        ocspMayChangeAt(err, from - OCSP_CLOCK_SKEW);
        return "its certificate is not valid yet";
    }
    *code = OCSP_FAIL_EXPIRED;
    if (to_ok && to <= now) return "its certificate has expired";
    *code = OCSP_FAIL_DATES;
    if (!from_ok || !to_ok) return "its certificate has a malformed date";
    *code = OCSP_FAIL_SIGNER;
    /* X509_get_extension_flags parses the extensions for the next lines; EXFLAG_INVALID: an extension does not parse */
    if (X509_get_extension_flags(cert) & (EXFLAG_INVALID | EXFLAG_CRITICAL))
        return "its certificate has a critical extension that is not understood, or a broken one";
    if (!(X509_get_extension_flags(cert) & EXFLAG_XKUSAGE) || !(X509_get_extended_key_usage(cert) & XKU_OCSP_SIGN))
        return "its certificate lacks the extended key usage OCSPSigning";
    if (!(X509_get_key_usage(cert) & (KU_DIGITAL_SIGNATURE | KU_NON_REPUDIATION))) /* RFC 5280 section 4.2.1.12 */
        return "its certificate's key usage forbids signatures";
    if (ocspWeakSignature(X509_get0_tbs_sigalg(cert)))
        return "its certificate is signed with MD5 or an older digest, which anybody can forge";
    if (ocspWeakKey(cert)) return "its certificate's key is too short (RSA needs 1024 bits at least)";
    if (!ocspIssued(issuer, cert)) return "its certificate is not signed by the issuer of the served certificate";
    return NULL;
}

/* Whether `cert` has the same public key as one of `certs`. */
static int ocspKeyAmong(X509 *cert, X509 *const *certs, int count) {
    int i;

    for (i = 0; i < count; i++)
        if (EVP_PKEY_eq(X509_get0_pubkey(cert), X509_get0_pubkey(certs[i])) == 1) return 1;
    return 0;
}

/* Collects the certificates in the response, except the issuer's own, that its ResponderID identifies. Returns their
 * number, or -1 if there are more than OCSP_MAX_SIGNERS. */
static int ocspNamedSigners(OCSP_BASICRESP *basic, X509 *issuer, X509 *named[OCSP_MAX_SIGNERS]) {
    const ocspX509Stack *certs = OCSP_resp_get0_certs(basic);
    int i, count = 0;

    for (i = 0; i < sk_X509_num(certs); i++) {
        X509 *cert = sk_X509_value(certs, i);
        if (!ocspNamesResponder(basic, cert) || ocspSameCertificate(cert, issuer)) continue;
        if (count == OCSP_MAX_SIGNERS) return -1;
        named[count++] = cert;
    }
    return count;
}

X509 *ocspFindSigner(OCSP_BASICRESP *basic, const ocspIdentity *id, int64_t now, ocspError *err) {
    const char *fault = "no certificate that the response names as its signer was found in it";
    ocspErrorCode code = OCSP_FAIL_SIGNER;
    X509 *named[OCSP_MAX_SIGNERS], *tried[OCSP_MAX_SIGNERS + 1];
    int i, tried_count = 0, count = ocspNamedSigners(basic, id->issuer, named);

    if (count < 0) {
        ocspFail(err, OCSP_FAIL_SIGNER,
                 "more than %d certificates in the response name its responder: let the responder send its own alone",
                 OCSP_MAX_SIGNERS);
        return NULL;
    }
    if (ocspNamesResponder(basic, id->issuer)) {
        if (ocspSignedBy(basic, id->issuer)) return id->issuer;
        fault = "the signature does not verify with the issuer's key";
        code = OCSP_FAIL_SIGNATURE;
        tried[tried_count++] = id->issuer;
    }
    for (i = 0; i < count; i++) {
        ocspErrorCode responder_code;
        const char *responder_fault = ocspResponderFault(named[i], id->issuer, now, &responder_code, err);
        if (responder_fault) {
            fault = responder_fault;
            code = responder_code;
            continue;
        }
        if (ocspKeyAmong(named[i], tried, tried_count)) continue; /* the same key would fail again */
        if (ocspSignedBy(basic, named[i])) return named[i];
        fault = "the signature does not verify with the signer's key";
        code = OCSP_FAIL_SIGNATURE;
        tried[tried_count++] = named[i];
    }
    ocspFail(err, code, "the response's signer is not authorized: %s", fault);
    return NULL;
}

#endif /* OCSP_SUPPORTED */
