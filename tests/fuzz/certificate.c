/* certificate.c - fuzz target: the served certificate, with any extensions, to ocspIdentityNew. The operator selects
 * it, but the CA determines its contents, and it is parsed before anything else.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

/* Returns 1 if the certificate has an OCSP access description with exactly this URL, not truncated at a zero byte. */
static int hasAccess(const ocspIdentity *id, const char *url) {
    AUTHORITY_INFO_ACCESS *list = X509_get_ext_d2i(id->leaf, NID_info_access, NULL, NULL);
    int i, found = 0;

    for (i = 0; i < sk_ACCESS_DESCRIPTION_num(list); i++) {
        const ACCESS_DESCRIPTION *access = sk_ACCESS_DESCRIPTION_value(list, i);
        const ASN1_IA5STRING *text = access->location->d.uniformResourceIdentifier;
        if (OBJ_obj2nid(access->method) == NID_ad_OCSP && access->location->type == GEN_URI &&
            (size_t)ASN1_STRING_length(text) == strlen(url) &&
            memcmp(ASN1_STRING_get0_data(text), url, strlen(url)) == 0)
            found = 1;
    }
    AUTHORITY_INFO_ACCESS_free(list);
    return found;
}

static void checkUrls(const ocspIdentity *id) {
    int i, j;

    fuzzCheck(id->url_count >= 0 && id->url_count <= OCSP_MAX_URLS);
    for (i = 0; i < id->url_count; i++) {
        const char *c, *why = NULL;
        ocspUrl url;
        fuzzCheck(id->urls[i] && *id->urls[i]);
        for (c = id->urls[i]; *c; c++) fuzzCheck(*c > 32 && *c < 127);
        fuzzCheck(strncasecmp(id->urls[i], "http", 4) == 0 && ocspCheckResponderUrl(id->urls[i], &why));
        for (j = 0; j < i; j++) fuzzCheck(strcmp(id->urls[i], id->urls[j]) != 0);
        fuzzCheck(ocspUrlParse(&url, id->urls[i])); /* each URL that is kept is usable */
        ocspUrlClear(&url);
        fuzzCheck(hasAccess(id, id->urls[i]));
    }
}

/* Checks that the request is for this certificate only. */
static void checkRequest(const ocspIdentity *id) {
    const unsigned char *p = id->request;
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &p, (long)id->request_len);
    OCSP_CERTID *certid = OCSP_cert_to_id(EVP_sha1(), id->leaf, id->issuer);

    fuzzCheck(request && p == id->request + id->request_len && OCSP_request_onereq_count(request) == 1);
    fuzzCheck(certid && OCSP_id_cmp(certid, OCSP_onereq_get0_id(OCSP_request_onereq_get0(request, 0))) == 0);
    OCSP_CERTID_free(certid);
    OCSP_REQUEST_free(request);
}

/* Checks that a good response for pki->leaf is accepted for this certificate only if the serial number is the same. */
static void checkForeign(const ocspIdentity *id) {
    static testBytes reply;
    const fuzzPki *pki = fuzzGetPki();
    ocspResponse r;
    ocspError err = {0};

    if (!reply.p) {
        const testReply good = {.count = 1,
                                .singles = {{.cert = pki->leaf,
                                             .issuer = pki->ca,
                                             .this_update = TEST_NOW - 3600,
                                             .next_update = TEST_NOW + TEST_DAY}},
                                .signer = pki->ca,
                                .key = pki->ca_key};
        reply = testReplyDer(&good);
    }
    if (ocspVerify((ocspBytes){reply.p, reply.n}, id, TEST_NOW, TEST_NOW, &r, &err)) {
        fuzzCheck(ASN1_INTEGER_cmp(X509_get0_serialNumber(id->leaf), X509_get0_serialNumber(pki->leaf)) == 0);
        fuzzCheck(id->issuer && r.expires_at <= id->not_after);
        ocspResponseClear(&r);
    } else {
        fuzzCheckError(&err);
    }
}

static void one(const uint8_t *data, size_t size) {
    static STACK_OF(X509) *chain;
    static X509_STORE *store;
    const fuzzPki *pki = fuzzGetPki();
    const unsigned char *p = data;
    X509 *leaf = d2i_X509(NULL, &p, (long)size);
    int pass;

    ERR_clear_error();
    if (!leaf) return; /* the server would not have loaded it either */
    if (!chain) {
        chain = testStack(pki->ca, NULL, NULL);
        store = testStore(pki->ca, pki->twin);
        ERR_clear_error();
    }
    for (pass = 0; pass < 2; pass++) {
        ocspIdentity *id = ocspIdentityNew(leaf, pass ? NULL : chain, pass ? store : NULL);
        fuzzCheckQueue();
        fuzzCheck(id && id->leaf == leaf);
        fuzzCheck(strlen(id->sha256_hex) == 64 && strspn(id->sha256_hex, "0123456789abcdef") == 64);
        fuzzCheck(id->serial && strspn(id->serial, "-0123456789ABCDEF") == strlen(id->serial));
        fuzzCheck(!id->self_signed || !id->issuer);
        fuzzCheck(!id->issuer == !id->request);
        checkUrls(id);
        if (id->issuer) checkRequest(id);
        checkForeign(id);
        fuzzCheckQueue();
        ocspIdentityFree(id);
    }
    X509_free(leaf);
}

/* Mutates inside the DER, then usually signs again with the CA's key: without an issuer much of the code is not
 * reached. */
static size_t mutate(uint8_t *data, size_t size, size_t max, unsigned seed, fuzzBytes *bytes) {
    const fuzzPki *pki = fuzzGetPki();
    unsigned random = seed, times;

    if (fuzzRandom(&random) % 16 == 0) return bytes(data, size, max);
    for (times = fuzzRandom(&random) % 3 + 1; times > 0; times--) size = fuzzDerMutate(data, size, max, &random, bytes);
    if (fuzzRandom(&random) % 4)
        fuzzSignAgain(data, size, 0, fuzzRandom(&random) % 4 ? pki->ca_key : pki->responder_key);
    return size;
}

static void keepCert(fuzzKeep *keep, const char *name, testCertSpec spec) {
    const fuzzPki *pki = fuzzGetPki();
    unsigned char *der = NULL;
    X509 *cert;
    int n;

    spec.name = "server.test.invalid";
    spec.key = pki->responder_key;
    if (!spec.serial) spec.serial = "0ABC";
    if (!spec.issuer_key) {
        spec.issuer = pki->ca;
        spec.issuer_key = pki->ca_key;
    }
    cert = testCert(&spec);
    n = i2d_X509(cert, &der);
    fuzzCheck(n > 0);
    keep(name, der, (size_t)n);
    OPENSSL_free(der);
    X509_free(cert);
}

static void seeds(fuzzKeep *keep) {
    const fuzzPki *pki = fuzzGetPki();

    keepCert(keep, "one-url", (testCertSpec){.urls = {TEST_URL}});
    keepCert(keep, "no-url", (testCertSpec){0});
    keepCert(keep, "ten-urls",
             (testCertSpec){.urls = {"http://a/", "http://b/", "http://a/", "https://c/", "ldap://d/", "HTTP://e",
                                     "http://f:8080/x?y#z", "http://[::1]/", "http://user@g/", "http://h:0/"}});
    keepCert(keep, "twelve-urls",
             (testCertSpec){.urls = {"http://a/", "http://b/", "http://c/", "http://d/", "http://e/", "http://f/",
                                     "http://g/", "http://h/", "http://i/", "http://j/", "http://k/", "http://l/"}});
    keepCert(keep, "zero-byte", (testCertSpec){.urls = {"http://a\0.b/"}, .url_len = 12});
    keepCert(keep, "not-ascii", (testCertSpec){.urls = {"http://\xc3\xa4/", "http://a b/", "http://a/\r\nX: y"}});
    keepCert(keep, "odd-access", (testCertSpec){.urls = {TEST_URL}, .odd_access = 1});
    keepCert(keep, "bad-extension", (testCertSpec){.bad_extension = 1});
    keepCert(keep, "must-staple", (testCertSpec){.urls = {TEST_URL}, .tls_feature = "status_request"});
    keepCert(keep, "key-ids", (testCertSpec){.urls = {TEST_URL}, .key_ids = 1, .key_usage = "digitalSignature"});
    keepCert(keep, "long-serial", (testCertSpec){.serial = "7F00000000000000000000000000000000000001"});
    keepCert(keep, "twin", (testCertSpec){.issuer = pki->twin, .issuer_key = pki->responder_key});
    keepCert(keep, "self-signed", (testCertSpec){.issuer_key = pki->responder_key, .urls = {TEST_URL}});
    keepCert(keep, "expired", (testCertSpec){.not_after = TEST_NOW - 1, .not_before = TEST_NOW - TEST_DAY});
}

const fuzzTarget fuzz_certificate = {"certificate", one, seeds, mutate};
