/* ocsp_identity.c - from a served certificate to what is needed to request its status: issuer, CertID, responder URLs,
 * must-staple.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <stdio.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define OCSP_TLS_FEATURE_STATUS_REQUEST 5 /* RFC 7633 section 4.2.3.1: the number of the TLS extension status_request */

int ocspSameCertificate(const X509 *a, const X509 *b) {
    unsigned char *one = NULL, *other = NULL;
    int len, same;

    if (a == b) return 1;
    len = i2d_X509(a, NULL);
    if (len <= 0 || i2d_X509(b, NULL) != len) return 0;
    same = i2d_X509(a, &one) == len && i2d_X509(b, &other) == len && memcmp(one, other, (size_t)len) == 0;
    OPENSSL_free(one);
    OPENSSL_free(other);
    return same;
}

int ocspIssued(X509 *issuer, X509 *cert) {
    return X509_NAME_cmp(X509_get_subject_name(issuer), X509_get_issuer_name(cert)) == 0 &&
           (X509_get_key_usage(issuer) & KU_KEY_CERT_SIGN) && X509_verify(cert, X509_get0_pubkey(issuer)) == 1;
}

/* Returns the issuer of `leaf` among `certs`, or `best` if that has the later notAfter. Takes ownership of `best`; the
 * caller owns the result. `verified`: OpenSSL has verified `certs`, and so has read their extensions.
 *
 * The latest notAfter wins because a CA certificate that was renewed with the same key often stands beside the old one,
 * and the signer's expiry limits the staple's. */
static X509 *ocspIssuerAmong(const ocspX509Stack *certs, X509 *leaf, X509 *best, int verified) {
    int i;

    for (i = 0; i < sk_X509_num(certs); i++) {
        X509 *candidate = sk_X509_value(certs, i);
        if (X509_NAME_cmp(X509_get_subject_name(candidate), X509_get_issuer_name(leaf)) != 0) continue;
        if (best && ASN1_TIME_compare(X509_get0_notAfter(candidate), X509_get0_notAfter(best)) <= 0) continue;
        /* A copy, because reading the key usage makes OpenSSL cache the extensions. If memory runs out during that,
         * OpenSSL marks the certificate invalid for good, and the server uses the original. */
        if (!verified)
            candidate = X509_dup(candidate);
        else if (!X509_up_ref(candidate))
            continue;
        if (!candidate || !ocspIssued(candidate, leaf)) {
            X509_free(candidate);
            continue;
        }
        X509_free(best);
        best = candidate;
    }
    return best;
}

/* Looks for the issuer in the trusted certificates, in memory or in tls-ca-cert-dir, as RFC 6066 does not require the
 * issuer in the chain. Ownership as in ocspIssuerAmong. */
static X509 *ocspIssuerInStore(X509_STORE *store, X509 *leaf, X509 *best) {
    X509_STORE_CTX *lookup = X509_STORE_CTX_new();
    ocspX509Stack *named = NULL;

    /* X509_STORE_CTX_get1_certs returns all certificates of that name; X509_STORE_CTX_get1_issuer would choose one
     * without verifying the signature. */
    if (lookup && X509_STORE_CTX_init(lookup, store, NULL, NULL))
        named = X509_STORE_CTX_get1_certs(lookup, X509_get_issuer_name(leaf));
    best = ocspIssuerAmong(named, leaf, best, 0);
    sk_X509_pop_free(named, X509_free);
    X509_STORE_CTX_free(lookup);
    return best;
}

/* OpenSSL's default would ask for the password of an encrypted block on the server's terminal, and wait. */
static int ocspNoPassword(char *buf, int size, int writing, void *unused) {
    (void)buf;
    (void)size;
    (void)writing;
    (void)unused;
    return -1;
}

ocspX509Stack *ocspParseIssuers(ocspBytes pem, ocspError *err) {
    BIO *in = BIO_new_mem_buf(pem.data, (int)pem.len);
    ocspX509Stack *certs = sk_X509_new_null();
    X509 *cert = NULL;
    unsigned long last;
    int count = 0, ok = in && certs, at_end = 0;

    ERR_set_mark();
    while (ok && count <= OCSP_MAX_ISSUERS && (cert = PEM_read_bio_X509_AUX(in, NULL, ocspNoPassword, NULL)) != NULL) {
        ok = sk_X509_push(certs, cert) > 0;
        if (!ok) X509_free(cert);
        count += ok;
    }
    last = ERR_peek_last_error();
    if (ok && !cert) at_end = ERR_GET_LIB(last) == ERR_LIB_PEM && ERR_GET_REASON(last) == PEM_R_NO_START_LINE;
    ERR_pop_to_mark();
    BIO_free(in);
    if (!ok)
        ocspFail(err, OCSP_FAIL_MEMORY, "cannot be parsed: out of memory");
    else if (count > OCSP_MAX_ISSUERS)
        ocspFail(err, OCSP_FAIL_FILE, "has more than %d certificates", OCSP_MAX_ISSUERS);
    else if (!at_end)
        ocspFail(err, OCSP_FAIL_FILE, "has a damaged certificate (number %d)", count + 1);
    else if (count == 0)
        ocspFail(err, OCSP_FAIL_FILE, "has no certificate in PEM form (-----BEGIN CERTIFICATE-----)");
    else
        return certs;
    sk_X509_pop_free(certs, X509_free);
    return NULL;
}

/* Returns 1 if the TLS feature extension (RFC 7633) lists status_request; *unparsed is 1 if the extension does not
 * parse. */
static int ocspMustStaple(X509 *leaf, int *unparsed) {
    STACK_OF(ASN1_INTEGER) *features = X509_get_ext_d2i(leaf, NID_tlsfeature, NULL, NULL);
    int i, found = 0;

    for (i = 0; i < sk_ASN1_INTEGER_num(features); i++)
        if (ASN1_INTEGER_get(sk_ASN1_INTEGER_value(features, i)) == OCSP_TLS_FEATURE_STATUS_REQUEST) found = 1;
    sk_ASN1_INTEGER_pop_free(features, ASN1_INTEGER_free);
    *unparsed = !features && X509_get_ext_by_NID(leaf, NID_tlsfeature, -1) >= 0;
    return found;
}

/* Returns the URL of an access description if it is a usable OCSP responder's, or NULL. Owned by `access`. */
static const char *ocspAccessUrl(const ACCESS_DESCRIPTION *access) {
    const ASN1_IA5STRING *uri = access->location->d.uniformResourceIdentifier;
    const char *url, *why;

    if (OBJ_obj2nid(access->method) != NID_ad_OCSP || access->location->type != GEN_URI) return NULL;
    url = (const char *)ASN1_STRING_get0_data(uri);
    if (!url || !*url || strlen(url) != (size_t)ASN1_STRING_length(uri)) return NULL; /* a NUL byte truncates it */
    return ocspCheckResponderUrl(url, &why) ? url : NULL;                             /* ldap:, or malformed */
}

/* Copies the OCSP URLs of the authorityInfoAccess extension (RFC 5280 section 4.2.2.1) in the CA's order, without
 * duplicates. Returns 0 when out of memory. X509_get1_ocsp would sort the URLs in OpenSSL 3.0. */
static int ocspCopyUrls(ocspIdentity *id) {
    AUTHORITY_INFO_ACCESS *list = X509_get_ext_d2i(id->leaf, NID_info_access, NULL, NULL);
    int i, j, ok = 1;

    for (i = 0; ok && i < sk_ACCESS_DESCRIPTION_num(list) && id->url_count < OCSP_MAX_URLS; i++) {
        const char *url = ocspAccessUrl(sk_ACCESS_DESCRIPTION_value(list, i));
        for (j = 0; url && j < id->url_count; j++)
            if (strcmp(id->urls[j], url) == 0) url = NULL;
        if (url) ok = (id->urls[id->url_count++] = ocspStrdup(url)) != NULL;
    }
    AUTHORITY_INFO_ACCESS_free(list);
    return ok;
}

/* Encodes the OCSPRequest (RFC 6960 section 4.1) with one CertID. Returns 0 when out of memory. SHA-1, because clients,
 * and CAs that sign in advance, support no other digest (RFC 5019 section 2.1.1); it identifies a certificate and
 * protects nothing. No nonce: one response serves many clients. */
static int ocspMakeRequest(ocspIdentity *id) {
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *certid = OCSP_cert_to_id(EVP_sha1(), id->leaf, id->issuer);
    unsigned char *der = NULL;
    int len = -1;

    if (request && certid && OCSP_request_add0_id(request, certid)) {
        certid = NULL; /* owned by the request */
        len = i2d_OCSP_REQUEST(request, &der);
    }
    if (len > 0) {
        id->request = ocspMemdup(der, (size_t)len);
        id->request_len = (size_t)len;
    }
    OPENSSL_free(der);
    OCSP_CERTID_free(certid);
    OCSP_REQUEST_free(request);
    return id->request != NULL;
}

char *ocspSerialText(const ASN1_INTEGER *serial, char *out, size_t size) {
    BIGNUM *number = ASN1_INTEGER_to_BN(serial, NULL);
    char *hex = number ? BN_bn2hex(number) : NULL; /* upper case */

    ocspCleanText(out, size, hex);
    OPENSSL_free(hex);
    BN_free(number);
    return out;
}

static int ocspNameIdentity(ocspIdentity *id) {
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    unsigned md_len = 0, i;
    int days = 0, secs = 0;
    static const struct tm epoch = {.tm_year = 70, .tm_mday = 1};
    struct tm end;
    int ok = *ocspSerialText(X509_get0_serialNumber(id->leaf), clean, sizeof(clean)) &&
             X509_digest(id->leaf, EVP_sha256(), id->sha256, &md_len) && md_len == sizeof(id->sha256);

    if (ok) {
        for (i = 0; i < md_len; i++) snprintf(id->sha256_hex + 2 * i, 3, "%02x", id->sha256[i]);
        id->serial = ocspStrdup(clean);
        ok = id->serial != NULL;
        /* A notAfter that does not parse stays 0: such a certificate is never stapled for. */
        if (ASN1_TIME_to_tm(X509_get0_notAfter(id->leaf), &end) && OPENSSL_gmtime_diff(&days, &secs, &epoch, &end))
            id->not_after = (int64_t)days * 86400 + secs;
    }
    return ok;
}

ocspIdentity *ocspIdentityNew(X509 *leaf, ocspX509Stack *chain, X509_STORE *store) {
    return ocspIdentityNewWith(leaf, chain, store, NULL);
}

ocspIdentity *ocspIdentityNewWith(X509 *leaf, ocspX509Stack *chain, X509_STORE *store, ocspX509Stack *issuers) {
    ocspIdentity *id = ocspAlloc(sizeof(*id));
    int ok;

    if (!id) return NULL;
    ERR_set_mark();
    ok = X509_up_ref(leaf);
    if (ok) id->leaf = leaf;
    if (store && X509_STORE_up_ref(store)) id->store = store;
    ok = ok && ocspNameIdentity(id) && ocspCopyUrls(id);
    if (ok) {
        id->must_staple = ocspMustStaple(leaf, &id->tls_feature_unparsed);
        id->incomplete |= id->tls_feature_unparsed;
        id->incomplete |= id->url_count == 0 && X509_get_ext_by_NID(leaf, NID_info_access, -1) >= 0;
        /* X509_check_issued would fail if the key usage lacks keyCertSign, as that of a self-signed server certificate
         * may. */
        id->self_signed = X509_NAME_cmp(X509_get_subject_name(leaf), X509_get_issuer_name(leaf)) == 0 &&
                          X509_verify(leaf, X509_get0_pubkey(leaf)) == 1;
        if (!id->self_signed) {
            id->issuer = ocspIssuerAmong(chain, leaf, NULL, !store);
            if (store) id->issuer = ocspIssuerInStore(store, leaf, id->issuer);
            id->issuer = ocspIssuerAmong(issuers, leaf, id->issuer, 0);
            id->incomplete |= !id->issuer;
        }
        if (id->issuer) ok = ocspMakeRequest(id);
    }
    ERR_pop_to_mark();
    if (ok) return id;
    ocspIdentityFree(id);
    return NULL;
}

void ocspIdentityFree(ocspIdentity *id) {
    int i;

    if (!id) return;
    X509_free(id->leaf);
    X509_free(id->issuer);
    X509_STORE_free(id->store);
    for (i = 0; i < id->url_count; i++) ocspFree(id->urls[i]);
    ocspFree(id->serial);
    ocspFree(id->request);
    ocspFree(id);
}

#endif /* OCSP_SUPPORTED */
