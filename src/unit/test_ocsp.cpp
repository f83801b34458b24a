/* test_ocsp.cpp - unit tests of the certificate's identity (ocsp_identity.c) and of the verification of OCSP responses
 * (ocsp_verify.c): what is stapled, and what never is. Certificates and responses are made here with OpenSSL.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "generated_wrappers.hpp"

#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
#include <cstring>
#include <ctime>

#include <openssl/x509v3.h>

extern "C" {
#include "ocsp_internal.h"
}

#if OCSP_SUPPORTED
/* Makes a certificate for `name`, valid for 30 days, signed by `issuer` (NULL: by itself). `eku` is its extended key usage,
 * NULL: none. */
static X509 *makeCert(const char *name,
                      long serial,
                      EVP_PKEY *key,
                      X509 *issuer,
                      EVP_PKEY *issuer_key,
                      const char *eku) {
    X509 *cert = X509_new();
    X509_NAME *subject = X509_get_subject_name(cert);
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509_set_version(cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 30 * 86400);
    X509_set_pubkey(cert, key);
    X509V3_set_ctx(&ctx, issuer ? issuer : cert, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, issuer ? "CA:FALSE" : "critical,CA:TRUE");
    X509_add_ext(cert, ext, -1);
    X509_EXTENSION_free(ext);
    if (eku) {
        ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_ext_key_usage, eku);
        X509_add_ext(cert, ext, -1);
        X509_EXTENSION_free(ext);
    }
    if (issuer && !eku) { /* a server: the responder's URL, and must-staple (RFC 7633) */
        ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_info_access, "OCSP;URI:http://127.0.0.1:2560/ocsp");
        X509_add_ext(cert, ext, -1);
        X509_EXTENSION_free(ext);
        ext = X509V3_EXT_conf_nid(NULL, &ctx, NID_tlsfeature, "status_request");
        X509_add_ext(cert, ext, -1);
        X509_EXTENSION_free(ext);
    }
    X509_sign(cert, issuer_key, EVP_sha256());
    return cert;
}

/* The world of the tests: a CA, a server, a responder that the CA authorized, and another CA with the CA's name. */
static EVP_PKEY *key, *other_key;
static X509 *ca, *leaf, *neighbor, *responder, *not_responder, *other_ca;
static ocspIdentity *id;

static void makeWorld(void) {
    STACK_OF(X509) *chain = sk_X509_new_null();

    key = EVP_EC_gen("P-256");
    other_key = EVP_EC_gen("P-256");
    ca = makeCert("CA", 1, key, NULL, key, NULL);
    other_ca = makeCert("CA", 1, other_key, NULL, other_key, NULL);
    leaf = makeCert("server", 0x1a2b, other_key, ca, key, NULL);
    neighbor = makeCert("neighbor", 0x1a2c, other_key, ca, key, NULL);
    responder = makeCert("responder", 3, other_key, ca, key, "OCSPSigning");
    not_responder = makeCert("client", 4, other_key, ca, key, "clientAuth");
    sk_X509_push(chain, other_ca); /* the issuer's name, but not its key */
    sk_X509_push(chain, ca);
    id = ocspIdentityNew(leaf, chain, NULL);
    sk_X509_free(chain);
}

static void freeWorld(void) {
    ocspIdentityFree(id);
    X509_free(ca);
    X509_free(other_ca);
    X509_free(leaf);
    X509_free(neighbor);
    X509_free(responder);
    X509_free(not_responder);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other_key);
}

/* Makes a response about `cert` and verifies it for the server's certificate. Returns what ocspVerify does; *revoked, and
 * *code, the reason of a rejection. `damage`: change the last byte of the signature. */
static int verifyResponse(X509 *cert,
                          X509 *signer,
                          EVP_PKEY *signer_key,
                          int status,
                          long from,
                          long to,
                          int damage,
                          int *revoked,
                          ocspErrorCode *code) {
    time_t now = time(NULL);
    ASN1_TIME *this_update = ASN1_TIME_adj(NULL, now, 0, from), *next_update = ASN1_TIME_adj(NULL, now, 0, to);
    OCSP_BASICRESP *basic = OCSP_BASICRESP_new();
    OCSP_CERTID *certid = OCSP_cert_to_id(NULL, cert, ca);
    OCSP_RESPONSE *response;
    ocspResponse verified;
    ocspError err;
    unsigned char *der = NULL;
    ocspBytes bytes;
    int len, ok;

    OCSP_basic_add1_status(basic, certid, status,
                           status == V_OCSP_CERTSTATUS_REVOKED ? OCSP_REVOKED_STATUS_NOSTATUS : 0,
                           status == V_OCSP_CERTSTATUS_REVOKED ? this_update : NULL, this_update, next_update);
    OCSP_basic_sign(basic, signer, signer_key, EVP_sha256(), NULL, 0);
    response = OCSP_response_create(OCSP_RESPONSE_STATUS_SUCCESSFUL, basic);
    len = i2d_OCSP_RESPONSE(response, &der);
    if (damage) {
        const ASN1_OCTET_STRING *signature = OCSP_resp_get0_signature(basic);
        /* The signature is in the bytes once. */
        int at;
        for (at = 0; at + signature->length <= len; at++)
            if (memcmp(der + at, signature->data, (size_t)signature->length) == 0) break;
        der[at + signature->length - 1] ^= 1;
    }
    memset(&err, 0, sizeof(err));
    bytes.data = der;
    bytes.len = (size_t)len;
    ok = ocspVerify(bytes, id, now, now, &verified, &err);
    *revoked = ok && verified.revoked;
    *code = err.code;
    if (ok) ocspResponseClear(&verified);
    OPENSSL_free(der);
    OCSP_RESPONSE_free(response);
    OCSP_BASICRESP_free(basic);
    OCSP_CERTID_free(certid);
    ASN1_TIME_free(this_update);
    ASN1_TIME_free(next_update);
    return ok;
}

class OcspTest : public ::testing::Test {
protected:
    int revoked;
    ocspErrorCode code;

    void SetUp() override {
        makeWorld();
        ASSERT_NE(id, nullptr);
    }

    void TearDown() override { freeWorld(); }
};

TEST_F(OcspTest, TestOcspIdentity) {
    EXPECT_EQ(id->issuer, ca) << "The issuer is found by its key, not by its name";
    EXPECT_STREQ(id->serial, "1A2B");
    ASSERT_EQ(id->url_count, 1);
    EXPECT_STREQ(id->urls[0], "http://127.0.0.1:2560/ocsp");
    EXPECT_TRUE(id->must_staple);
    EXPECT_FALSE(id->self_signed);
    EXPECT_FALSE(id->incomplete);
    EXPECT_GT(id->request_len, 0u);
}

/* A row: what is verified, and what becomes of it. */
#define ACCEPTED(what, is_revoked, ...)                                    \
    do {                                                                   \
        EXPECT_TRUE(verifyResponse(__VA_ARGS__, &revoked, &code)) << what; \
        EXPECT_EQ(revoked, is_revoked) << what;                            \
    } while (0)
#define REJECTED(what, reason, ...)                                         \
    do {                                                                    \
        EXPECT_FALSE(verifyResponse(__VA_ARGS__, &revoked, &code)) << what; \
        EXPECT_EQ(code, reason) << what;                                    \
    } while (0)

TEST_F(OcspTest, TestOcspVerify) {
    ACCEPTED("good, signed by the CA", 0, leaf, ca, key, V_OCSP_CERTSTATUS_GOOD, -60, 3600, 0);
    ACCEPTED("revoked", 1, leaf, ca, key, V_OCSP_CERTSTATUS_REVOKED, -60, 3600, 0);
    ACCEPTED("signed by an authorized responder", 0, leaf, responder, other_key, V_OCSP_CERTSTATUS_GOOD, -60, 3600, 0);
    ACCEPTED("a clock that is a little slow", 0, leaf, ca, key, V_OCSP_CERTSTATUS_GOOD, 200, 3600, 0);
    REJECTED("unknown", OCSP_FAIL_UNKNOWN, leaf, ca, key, V_OCSP_CERTSTATUS_UNKNOWN, -60, 3600, 0);
    REJECTED("expired", OCSP_FAIL_EXPIRED, leaf, ca, key, V_OCSP_CERTSTATUS_GOOD, -3600, -60, 0);
    REJECTED("not valid yet", OCSP_FAIL_NOT_YET_VALID, leaf, ca, key, V_OCSP_CERTSTATUS_GOOD, 600, 3600, 0);
    REJECTED("another certificate", OCSP_FAIL_NO_ENTRY, neighbor, ca, key, V_OCSP_CERTSTATUS_GOOD, -60, 3600, 0);
    REJECTED("a bad signature", OCSP_FAIL_SIGNATURE, leaf, ca, key, V_OCSP_CERTSTATUS_GOOD, -60, 3600, 1);
    REJECTED("another CA of that name", OCSP_FAIL_SIGNER, leaf, other_ca, other_key, V_OCSP_CERTSTATUS_GOOD, -60, 3600,
             0);
    REJECTED("not authorized", OCSP_FAIL_SIGNER, leaf, not_responder, other_key, V_OCSP_CERTSTATUS_GOOD, -60, 3600, 0);
    REJECTED("signed by the server", OCSP_FAIL_SIGNER, leaf, leaf, other_key, V_OCSP_CERTSTATUS_GOOD, -60, 3600, 0);
}
#endif /* OCSP_SUPPORTED */
#endif /* BUILD_YES */
