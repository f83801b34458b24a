/* pki.c - the keys and certificates of the fuzz targets. They are the same bytes in every process, so that the CA of a
 * run has signed the seeds and findings of earlier runs.
 *
 * The keys are RSA with 1024 bits: sufficient for tests only, and fast to sign with after each mutation.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/param_build.h>

/* The two primes of each key. */
static const char *const ca_primes[] = {
    "C8CC7A99CD2AD3342BC5F8E40EA56BB9B0A02E09028E2D40223C26C007178DF92DBAC233BBDAA5638F6BD0F0C7C512DD"
    "4FBFF3E61D6EAF979E9D227038E3452B",
    "CD8C6F9767B0D8FA99648E13010CFDFBF646ED39F031216207170969CB20DA8310C800C1EE746433754C6AD005ABB6C8"
    "FAAA74E63FF829EE0C860B144CCE53F3",
};
static const char *const responder_primes[] = {
    "C0293E9FB8E4D1BCFCCD24327EA879E198F083A80F890C98D3736785326ED0E42642BEBAB963150081173D7FAC3878A2"
    "948DCAA4F8832768EF3939BB70E0A3C3",
    "E8DE7FCF9E4D3D6D94ECD5C0212E59AE56248978544A4C198DC82B445757944F1926631E5D1260EFAD85F4E76B0B72E2"
    "22F4653898457F08C8BD4446E4415B27",
};

static EVP_PKEY *rsaFromPrimes(const char *const primes[2]) {
    BIGNUM *p = NULL, *q = NULL, *e = BN_new(), *n = BN_new(), *phi = BN_new(), *d = BN_new();
    BIGNUM *p1 = BN_new(), *q1 = BN_new(), *dp = BN_new(), *dq = BN_new(), *qi = BN_new();
    BN_CTX *ctx = BN_CTX_new();
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    OSSL_PARAM *params;
    EVP_PKEY_CTX *make = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    EVP_PKEY *key = NULL;

    fuzzCheck(BN_hex2bn(&p, primes[0]) && BN_hex2bn(&q, primes[1]) && BN_set_word(e, 65537));
    fuzzCheck(BN_sub(p1, p, BN_value_one()) && BN_sub(q1, q, BN_value_one()));
    fuzzCheck(BN_mul(n, p, q, ctx) && BN_mul(phi, p1, q1, ctx) && BN_mod_inverse(d, e, phi, ctx));
    fuzzCheck(BN_mod(dp, d, p1, ctx) && BN_mod(dq, d, q1, ctx) && BN_mod_inverse(qi, q, p, ctx));
    fuzzCheck(OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_N, n) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_E, e) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_D, d) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_FACTOR1, p) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_FACTOR2, q) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_EXPONENT1, dp) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_EXPONENT2, dq) &&
              OSSL_PARAM_BLD_push_BN(build, OSSL_PKEY_PARAM_RSA_COEFFICIENT1, qi));
    params = OSSL_PARAM_BLD_to_param(build);
    fuzzCheck(params && EVP_PKEY_fromdata_init(make) == 1 &&
              EVP_PKEY_fromdata(make, &key, EVP_PKEY_KEYPAIR, params) == 1);
    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(build);
    EVP_PKEY_CTX_free(make);
    BN_CTX_free(ctx);
    BN_free(p);
    BN_free(q);
    BN_free(e);
    BN_free(n);
    BN_free(phi);
    BN_free(d);
    BN_free(p1);
    BN_free(q1);
    BN_free(dp);
    BN_free(dq);
    BN_free(qi);
    return key;
}

/* Adds an unknown critical extension to a certificate and signs it again. */
static void addCritical(X509 *cert, EVP_PKEY *issuer_key) {
    ASN1_OBJECT *kind = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
    ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
    X509_EXTENSION *extension;

    fuzzCheck(kind && value && ASN1_OCTET_STRING_set(value, (const unsigned char *)"\x05\x00", 2));
    extension = X509_EXTENSION_create_by_OBJ(NULL, kind, 1, value);
    fuzzCheck(extension && X509_add_ext(cert, extension, -1) && X509_sign(cert, issuer_key, EVP_sha256()));
    X509_EXTENSION_free(extension);
    ASN1_OCTET_STRING_free(value);
    ASN1_OBJECT_free(kind);
}

const fuzzPki *fuzzGetPki(void) {
    static fuzzPki pki;
    testCertSpec leaf = {.name = "server.test.invalid", .serial = "0ABC", .urls = {TEST_URL}};
    testCertSpec responder = {.name = "Responder", .extended = "OCSPSigning"};

    if (pki.id) return &pki;
    pki.ca_key = rsaFromPrimes(ca_primes);
    pki.responder_key = rsaFromPrimes(responder_primes);
    pki.ca = testCert(&(testCertSpec){.name = "CA", .key = pki.ca_key, .ca = 1, .key_ids = 1, .serial = "01"});
    pki.twin = testCert(&(testCertSpec){.name = "CA", .key = pki.responder_key, .ca = 1, .key_ids = 1, .serial = "02"});

    leaf.issuer = pki.ca;
    leaf.issuer_key = pki.ca_key;
    leaf.key = pki.responder_key; /* any key */
    pki.leaf = testCert(&leaf);
    leaf.issuer = pki.twin;
    leaf.issuer_key = pki.responder_key;
    pki.twin_leaf = testCert(&leaf);

    responder.issuer = pki.ca;
    responder.issuer_key = pki.ca_key;
    responder.key = pki.responder_key;
    responder.serial = "03";
    pki.responder = testCert(&responder);
    responder.extended = "serverAuth";
    responder.serial = "04";
    pki.responder_no_eku = testCert(&responder);
    responder.extended = "OCSPSigning";
    responder.serial = "05";
    responder.not_before = TEST_NOW - 10 * TEST_DAY;
    responder.not_after = TEST_NOW - TEST_DAY;
    pki.responder_expired = testCert(&responder);

    responder.serial = "06";
    responder.not_before = 0;
    responder.not_after = TEST_NOW + 100;
    pki.responder_short = testCert(&responder);
    responder.serial = "07";
    responder.not_after = 0;
    pki.responder_critical = testCert(&responder);
    addCritical(pki.responder_critical, pki.ca_key);

    pki.twin_id = testIdentity(pki.twin_leaf, pki.twin);
    pki.id = testIdentity(pki.leaf, pki.ca);
    ERR_clear_error();
    return &pki;
}

/* ---- checks of every target -------------------------------------------------------------------------------------- */

void fuzzCheckError(const ocspError *err) {
    const char *c;

    fuzzCheck(err->code > OCSP_FAIL_NONE && err->code < OCSP_FAIL_CODES);
    fuzzCheck(err->kind > OCSP_ERR_NONE && err->kind < OCSP_ERR_KINDS && err->kind == ocspErrorKindOf(err->code));
    fuzzCheck(err->text[0] && memchr(err->text, '\0', sizeof(err->text)));
    for (c = err->text; *c; c++) fuzzCheck(*c >= 32 && *c < 127);
}

void fuzzCheckQueue(void) {
    fuzzCheck(ERR_peek_error() == 0);
}

const fuzzTarget *const fuzz_targets[] = {&fuzz_http, &fuzz_response, &fuzz_certificate, &fuzz_cache, &fuzz_directive,
                                          &fuzz_peer, &fuzz_chain,    &fuzz_nodes,       NULL};

const fuzzTarget *fuzzFind(const char *name) {
    int i;

    for (i = 0; fuzz_targets[i]; i++)
        if (strcmp(fuzz_targets[i]->name, name) == 0) return fuzz_targets[i];
    return NULL;
}
