/* test_verify.c - which bytes become a response that may be stapled, and which do not. Every rule of the table in
 * docs/behavior.md has a test here; OpenSSL's own verification is the second opinion where bytes are damaged.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

static const testPki *pki;
static ocspIdentity *leaf_id;

static void beginProgram(void) {
    pki = testGetPki();
    leaf_id = testIdentity(pki->leaf, pki->ca);
    assert_non_null(leaf_id->issuer);
}

static void endProgram(void) {
    ocspIdentityFree(leaf_id);
}

PROGRAM_FIXTURE(beginProgram, endProgram);

/* Asserts that the reply is accepted at TEST_NOW; ocspResponseClear the result. */
static ocspResponse assertAccepted(const testReply *reply) {
    ocspResponse got;
    ocspError err = {0};
    testBytes der = testReplyDer(reply);
    if (!ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err))
        fail_msg("rejected: %s", err.text);
    assert_int_equal(got.len, der.n);
    assert_memory_equal(got.der, der.p, der.n);
    testBytesFree(&der);
    return got;
}

static void assertAcceptedAndClear(const testReply *reply) {
    ocspResponse got = assertAccepted(reply);
    ocspResponseClear(&got);
}

/* Asserts that the bytes are rejected with an error of this kind and word and a message, and that nothing is
 * returned. */
static void assertBytesRejected(const unsigned char *p, size_t n, ocspErrorKind kind, const char *word) {
    ocspResponse got;
    ocspError err = {0};
    memset(&got, 0x5a, sizeof(got));
    if (ocspVerify((ocspBytes){p, n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err))
        fail_msg("accepted; expected an error of kind %d", kind);
    testAssertError(&err, kind, word);
    assert_null(got.der);
    assert_int_equal(ERR_peek_error(), 0);
}

static void assertRejected(const testReply *reply, ocspErrorKind kind, const char *word) {
    testBytes der = testReplyDer(reply);
    assertBytesRejected(der.p, der.n, kind, word);
    testBytesFree(&der);
}

static testReply goodReply(void) {
    return testGoodReply(pki->leaf);
}

static testReply signedBy(X509 *signer, EVP_PKEY *key) {
    testReply reply = goodReply();
    reply.signer = signer;
    reply.key = key;
    reply.sent[0] = signer;
    return reply;
}

/* ---- who may sign ------------------------------------------------------------------------------------------------ */

TEST(signer_issuer, "6") {
    testReply reply = goodReply();
    ocspResponse got = assertAccepted(&reply);
    assert_int_equal(got.revoked, 0);
    assert_int_equal(got.revocation_reason, -1);
    assert_int_equal(got.this_update, TEST_NOW - 3600);
    assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
    assert_int_equal(got.produced_at, TEST_NOW - 3600);
    assert_int_equal(got.expires_at, TEST_NOW + TEST_DAY);
    ocspResponseClear(&got);
    assert_null(got.der);

    reply.sent[0] = pki->ca; /* included needlessly, as many responders do */
    assertAcceptedAndClear(&reply);
    reply.sent[0] = NULL;
    reply.by_key = 1;
    assertAcceptedAndClear(&reply);
}

TEST(signer_issuerWithSha2Digests, "6") {
    static const char *const digests[] = {"SHA256", "SHA384", "SHA512"};
    for (int i = 0; i < 3; i++) {
        testReply reply = goodReply();
        reply.sign_md = EVP_get_digestbyname(digests[i]);
        assertAcceptedAndClear(&reply);
    }
    ocspIdentity *ecdsa = leaf_id;
    leaf_id = testIdentity(pki->rsa_leaf, pki->ca);
    testReply reply = testGoodReply(pki->rsa_leaf);
    assertAcceptedAndClear(&reply);
    ocspIdentityFree(leaf_id);
    leaf_id = ecdsa;
}

TEST(signer_rsaIssuer, "6") {
    X509 *ca = testCert(&(testCertSpec){.name = "RSA CA", .key = testRsaKey(1), .ca = 1});
    X509 *leaf = testCert(&(testCertSpec){
        .name = "x", .issuer = ca, .issuer_key = testRsaKey(1), .key = pki->leaf_key, .urls = {TEST_URL}});
    ocspIdentity *ecdsa = leaf_id;
    leaf_id = testIdentity(leaf, ca);
    testReply reply = testGoodReply(leaf);
    reply.singles[0].issuer = reply.signer = ca;
    reply.key = testRsaKey(1);
    assertAcceptedAndClear(&reply);
    reply.break_signature = 1;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signature");
    ocspIdentityFree(leaf_id);
    leaf_id = ecdsa;
    X509_free(leaf);
    X509_free(ca);
}

TEST(signer_authorizedResponder, "6") {
    testReply reply = signedBy(pki->responder, pki->responder_key);
    assertAcceptedAndClear(&reply);
    reply.by_key = 1;
    assertAcceptedAndClear(&reply);
    reply.sent[0] = pki->root; /* the chain is included, in any order */
    reply.sent[1] = pki->ca;
    reply.sent[2] = pki->responder;
    assertAcceptedAndClear(&reply);
}

TEST(responder_certificateNotIncluded, "6") {
    testReply reply = signedBy(pki->responder, pki->responder_key);
    reply.sent[0] = NULL;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
}

TEST(responder_withoutOcspSigning, "6") {
    testReply reply = signedBy(pki->responder_no_eku, pki->responder_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    X509 *any = testCert(&(testCertSpec){.name = "Responder",
                                         .issuer = pki->ca,
                                         .issuer_key = pki->ca_key,
                                         .key = pki->responder_key,
                                         .extended = "anyExtendedKeyUsage"});
    X509 *none = testCert(
        &(testCertSpec){.name = "Responder", .issuer = pki->ca, .issuer_key = pki->ca_key, .key = pki->responder_key});
    reply = signedBy(any, pki->responder_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    reply = signedBy(none, pki->responder_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    X509_free(any);
    X509_free(none);
}

/* Found by fuzzing: OpenSSL's time functions accept a UTCTime without seconds, its verification and clients do not. */
TEST(responder_malformedNotBefore, "6") {
    ASN1_TIME *odd = ASN1_STRING_type_new(V_ASN1_UTCTIME);
    X509 *responder = X509_dup(pki->responder);
    testReply reply = goodReply();
    assert_true(odd && responder && ASN1_STRING_set(odd, "3001010000Z", -1));
    assert_true(X509_set1_notBefore(responder, odd) && X509_sign(responder, pki->ca_key, EVP_sha256()) > 0);
    reply.signer = reply.sent[0] = responder;
    reply.key = pki->responder_key;
    /* OpenSSL 4, and since September 2026 older ones too, rejects such a time when it parses the certificate. */
    unsigned char *der = NULL;
    int len = i2d_X509(responder, &der);
    const unsigned char *from = der;
    X509 *parsed = d2i_X509(NULL, &from, len);
    ERR_clear_error();
    if (parsed)
        assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
    else
        assertRejected(&reply, OCSP_ERR_RESPONSE, "der");
    X509_free(parsed);
    OPENSSL_free(der);
    ASN1_TIME_free(odd);
    X509_free(responder);
}

/* RFC 6960 section 4.2.2.1: times are those of RFC 5280. */
TEST(dates_fractionalSecondsAreRejected, "9") {
    testReply reply = goodReply();
    reply.singles[0].this_text = "20300101000000.5Z";
    assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
    reply = goodReply();
    reply.singles[0].next_text = "20400101000000.5Z";
    assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
}

TEST(responder_ofAnotherCa, "6") {
    testReply reply = signedBy(pki->responder_foreign, pki->responder_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    reply.sent[1] = pki->twin; /* its CA, which has the issuer's name, included */
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
}

/* RFC 6960 section 4.2.2.2: "issued directly by the CA that issued the certificate in question"; the root above it is
 * not that CA. */
TEST(responder_ofTheRootAboveTheIssuer, "6") {
    testReply reply = signedBy(pki->responder_root, pki->responder_key);
    reply.sent[1] = pki->root;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
}

TEST(responder_issuedByAResponder, "6") {
    X509 *second = testCert(&(testCertSpec){.name = "Second",
                                            .issuer = pki->responder,
                                            .issuer_key = pki->responder_key,
                                            .key = testEcKey(6),
                                            .extended = "OCSPSigning"});
    testReply reply = signedBy(second, testEcKey(6));
    reply.sent[1] = pki->responder;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    X509_free(second);
}

TEST(signer_rootIsNotTheIssuer, "6") {
    testReply reply = signedBy(pki->root, pki->root_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
}

TEST(signer_certificateItself, "6") {
    testReply reply = signedBy(pki->leaf, pki->leaf_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
}

TEST(signer_otherCaOfTheIssuersName, "6") {
    testReply reply = signedBy(pki->twin, pki->twin_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    reply.by_key = 1;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    reply.responder = pki->ca; /* with the issuer's ResponderID */
    assertRejected(&reply, OCSP_ERR_VERIFY, "signature");
}

TEST(responder_withTheIssuersResponderId, "6") {
    testReply reply = signedBy(pki->responder, pki->responder_key);
    reply.responder = pki->ca;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signature");
}

TEST(responder_sameNameOtherKeyDoesNotHideTheRightOne, "6") {
    testReply reply = signedBy(pki->responder, pki->responder_key);
    reply.sent[0] = testCert(&(testCertSpec){.name = "Responder",
                                             .issuer = pki->ca,
                                             .issuer_key = pki->ca_key,
                                             .key = testEcKey(6),
                                             .extended = "OCSPSigning"});
    reply.sent[1] = pki->responder;
    assertAcceptedAndClear(&reply);
    X509_free(reply.sent[0]);
}

TEST(responder_expired, "6") {
    testReply reply = signedBy(pki->responder_expired, pki->responder_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "expired");
}

TEST(responder_notYetValid, "6") {
    X509 *early = testCert(&(testCertSpec){.name = "Responder",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->responder_key,
                                           .extended = "OCSPSigning",
                                           .not_before = TEST_NOW + 1000});
    testReply reply = signedBy(early, pki->responder_key);
    assertRejected(&reply, OCSP_ERR_VERIFY, "not-yet-valid");
    X509_free(early);
}

/* Some CAs issue the responder's certificate together with the response, by the clock that sets thisUpdate. */
TEST(responder_beginsWithinTheClockSkew, "6") {
    X509 *fresh = testCert(&(testCertSpec){.name = "Responder",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->responder_key,
                                           .extended = "OCSPSigning",
                                           .not_before = TEST_NOW + OCSP_CLOCK_SKEW});
    testReply reply = signedBy(fresh, pki->responder_key);
    assertAcceptedAndClear(&reply);
    X509_free(fresh);
}

TEST(responder_keyUsageForbidsSignatures, "6") {
    static const struct {
        const char *usage;
        int good;
    } rows[] = {{"digitalSignature", 1}, {"nonRepudiation", 1}, {"keyEncipherment", 0}, {"keyCertSign,cRLSign", 0}};
    for (int i = 0; i < 4; i++) {
        X509 *cert = testCert(&(testCertSpec){.name = "Responder",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .key = pki->responder_key,
                                              .extended = "OCSPSigning",
                                              .key_usage = rows[i].usage});
        testReply reply = signedBy(cert, pki->responder_key);
        if (rows[i].good)
            assertAcceptedAndClear(&reply);
        else
            assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
        X509_free(cert);
    }
}

TEST(responder_unknownCriticalExtension, "6") {
    for (int critical = 0; critical < 2; critical++) {
        X509 *cert = testCert(&(testCertSpec){.name = "Responder",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .key = pki->responder_key,
                                              .extended = "OCSPSigning"});
        ASN1_OBJECT *kind = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
        ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
        assert_true(kind && value && ASN1_OCTET_STRING_set(value, (const unsigned char *)"\x05\x00", 2));
        X509_EXTENSION *extension = X509_EXTENSION_create_by_OBJ(NULL, kind, critical, value);
        assert_true(extension && X509_add_ext(cert, extension, -1) && X509_sign(cert, pki->ca_key, EVP_sha256()));
        testReply reply = signedBy(cert, pki->responder_key);
        if (critical)
            assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
        else
            assertAcceptedAndClear(&reply);
        X509_EXTENSION_free(extension);
        ASN1_OCTET_STRING_free(value);
        ASN1_OBJECT_free(kind);
        X509_free(cert);
    }
}

TEST(signature_md5, "6") {
    X509 *ca = testCert(&(testCertSpec){.name = "RSA CA", .key = testRsaKey(1), .ca = 1});
    X509 *leaf = testCert(&(testCertSpec){
        .name = "x", .issuer = ca, .issuer_key = testRsaKey(1), .key = pki->leaf_key, .urls = {TEST_URL}});
    ocspIdentity *ecdsa = leaf_id;
    leaf_id = testIdentity(leaf, ca);
    testReply reply = testGoodReply(leaf);
    reply.singles[0].issuer = reply.signer = ca;
    reply.key = testRsaKey(1);
    reply.sign_md = EVP_md5();
    assertRejected(&reply, OCSP_ERR_VERIFY, "signature");
    ocspIdentityFree(leaf_id);
    leaf_id = ecdsa;
    X509_free(leaf);
    X509_free(ca);
}

TEST(signature_broken, "6") {
    testReply reply = goodReply();
    reply.break_signature = 1;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signature");
    reply = signedBy(pki->responder, pki->responder_key);
    reply.break_signature = 1;
    assertRejected(&reply, OCSP_ERR_VERIFY, "signature");
}

TEST(issuer_unknown) {
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(pki->leaf, NULL);
    testReply reply = goodReply();
    assertRejected(&reply, OCSP_ERR_VERIFY, "signer");
    ocspIdentityFree(leaf_id);
    leaf_id = known;
}

/* ---- malformed and unsuccessful responses ------------------------------------------------------------------------ */

TEST(response_unsuccessfulStatus, "7") {
    static const int statuses[] = {1, 2, 3, 4, 5, 6, 7, 127}; /* 4 is not used (RFC 6960); 7 and 127 do not exist */
    for (size_t i = 0; i < 8; i++) {
        testReply reply = goodReply();
        reply.status = statuses[i];
        assertRejected(&reply, OCSP_ERR_RESPONSE, "responder-status");
    }
}

TEST(response_certStatusUnknown, "7") {
    testReply reply = goodReply();
    reply.singles[0].status = TEST_UNKNOWN;
    assertRejected(&reply, OCSP_ERR_RESPONSE, "unknown");
}

TEST(der_emptyOneByteAndRandom, "7") {
    assertBytesRejected((const unsigned char *)"", 0, OCSP_ERR_RESPONSE, "der");
    for (int c = 0; c < 256; c++) {
        unsigned char one = (unsigned char)c;
        assertBytesRejected(&one, 1, OCSP_ERR_RESPONSE, "der");
    }
    assertBytesRejected((const unsigned char *)"<html>down</html>", 17, OCSP_ERR_RESPONSE, "der");
    unsigned char noise[512];
    for (int i = 0; i < 2000; i++) {
        size_t n = testRandom() % sizeof(noise) + 1;
        for (size_t k = 0; k < n; k++) noise[k] = (unsigned char)testRandom();
        if (i % 2) noise[0] = 0x30;
        assertBytesRejected(noise, n, OCSP_ERR_RESPONSE, "der");
    }
}

TEST(der_truncatedAtEveryLength, "7") {
    testReply reply = signedBy(pki->responder, pki->responder_key);
    testBytes der = testReplyDer(&reply);
    for (size_t n = 0; n < der.n; n++) {
        testBytes part = testCopy(der.p, n); /* a block of its own, so that AddressSanitizer sees its end */
        assertBytesRejected(part.p, part.n, OCSP_ERR_RESPONSE, "der");
        testBytesFree(&part);
    }
    testBytesFree(&der);
}

TEST(der_trailingBytes, "7") {
    testReply reply = goodReply();
    static const size_t extras[] = {1, 2, 16, 1000};
    for (size_t i = 0; i < 4; i++) {
        for (int fill = 0; fill < 2; fill++) {
            unsigned char tail[1000];
            memset(tail, fill ? 0x30 : 0, sizeof(tail));
            testBytes der = testJoin(testReplyDer(&reply), testCopy(tail, extras[i]));
            assertBytesRejected(der.p, der.n, OCSP_ERR_RESPONSE, "der");
            testBytesFree(&der);
        }
    }
    testBytes twice = testJoin(testReplyDer(&reply), testReplyDer(&reply));
    assertBytesRejected(twice.p, twice.n, OCSP_ERR_RESPONSE, "der");
    testBytesFree(&twice);
}

/* OpenSSL's parser ignores them; strict clients do not. */
TEST(der_trailingBytesInsideTheOctetString, "7") {
    testReply reply = goodReply();
    for (reply.inner_tail = 1; reply.inner_tail <= 16; reply.inner_tail++)
        assertRejected(&reply, OCSP_ERR_RESPONSE, "der");
}

TEST(der_berLengths, "7") {
    testReply reply = goodReply();
    testBytes der = testReplyDer(&reply);
    assert_true(der.p[1] == 0x82);
    testBytes longer = testJoin(testCopy("\x30\x83\x00", 3), testCopy(der.p + 2, der.n - 2));
    assertBytesRejected(longer.p, longer.n, OCSP_ERR_RESPONSE, "der");
    testBytes endless = testJoin(testCopy("\x30\x80", 2), testCopy(der.p + 4, der.n - 4));
    endless = testJoin(endless, testCopy("\0\0", 2));
    assertBytesRejected(endless.p, endless.n, OCSP_ERR_RESPONSE, "der");
    testBytesFree(&longer);
    testBytesFree(&endless);
    testBytesFree(&der);
}

/* A parsed certificate keeps its original bytes: encoding the response again does not reveal BER in them. */
TEST(der_berInAnIncludedCertificate, "7") {
    unsigned char *der = NULL;
    int n = i2d_X509(pki->rsa_leaf, &der); /* long enough for lengths of two bytes */
    assert_true(n > 10 && der[1] == 0x82 && der[5] == 0x82 && der[8] == 0xa0 && der[9] == 3);
    size_t tbs_len = (size_t)(der[6] << 8 | der[7]);
    testBytes tbs = testJoin(testCopy("\xa0\x81\x03", 3), testCopy(der + 10, tbs_len - 2));
    testBytes all = testJoin(testTag(0x30, tbs), testCopy(der + 8 + tbs_len, (size_t)n - 8 - tbs_len));
    all = testTag(0x30, all);
    const unsigned char *p = all.p;
    testReply reply = goodReply();
    reply.sent[0] = d2i_X509(NULL, &p, (long)all.n);
    assert_non_null(reply.sent[0]);
    assertRejected(&reply, OCSP_ERR_RESPONSE, "der");
    X509_free(reply.sent[0]);
    testBytesFree(&all);
    OPENSSL_free(der);
}

/* OpenSSL accepts any byte but 0 as TRUE; DER allows 0xff alone, and Go's clients reject the rest. */
TEST(der_berBoolean, "7") {
    for (int truth = 1; truth < 256; truth += 127) {
        unsigned char critical[] = {0x01, 0x01, (unsigned char)truth};
        unsigned char *oid = NULL;
        int n = i2d_ASN1_OBJECT(OBJ_nid2obj(NID_id_pkix_OCSP_Nonce), &oid);
        testBytes all = testJoin(testCopy(oid, (size_t)n), testCopy(critical, 3));
        testReply reply = goodReply();
        OPENSSL_free(oid);
        reply.extensions = testTag(0x30, testJoin(all, testTag(0x04, testCopy("\x05\x00", 2))));
        if (truth == 0xff)
            assertAcceptedAndClear(&reply);
        else
            assertRejected(&reply, OCSP_ERR_RESPONSE, "der");
        testBytesFree(&reply.extensions);
    }
}

TEST(response_successfulWithoutBytesOrOfAnotherType, "7") {
    testReply reply = goodReply();
    reply.no_bytes = 1;
    assertRejected(&reply, OCSP_ERR_RESPONSE, "der");
    reply = goodReply();
    reply.other_type = 1;
    assertRejected(&reply, OCSP_ERR_RESPONSE, "der");
}

/* Not every byte is signed. Nothing crashes (see the sanitizers), and OpenSSL accepts whatever the engine accepts. */
TEST(der_everyByteFlippedInTurn, "16") {
    testReply replies[2] = {goodReply(), signedBy(pki->responder, pki->responder_key)};
    int accepted = 0, rejected = 0;
    for (int r = 0; r < 2; r++) {
        testBytes der = testReplyDer(&replies[r]);
        assert_true(testJudge(der.p, der.n, pki->leaf, pki->ca, TEST_NOW)); /* the unchanged response is valid */
        for (size_t i = 0; i < der.n; i++) {
            static const unsigned char masks[] = {0xff, 0x01, 0x80, 0x20};
            for (int m = 0; m < 4; m++) {
                ocspResponse got;
                ocspError err = {0};
                testBytes bad = testCopy(der.p, der.n);
                bad.p[i] ^= masks[m];
                if (ocspVerify((ocspBytes){bad.p, bad.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err)) {
                    accepted++;
                    if (!testJudge(bad.p, bad.n, pki->leaf, pki->ca, TEST_NOW)) {
                        fail_msg("byte %zu ^ %02x of %zu: accepted by the engine, rejected by OpenSSL", i, masks[m],
                                 bad.n);
                    }
                    ocspResponseClear(&got);
                } else {
                    rejected++;
                    assert_true(err.kind == OCSP_ERR_RESPONSE || err.kind == OCSP_ERR_VERIFY);
                    assert_true(err.text[0] != '\0');
                }
                testBytesFree(&bad);
            }
        }
        testBytesFree(&der);
    }
    if (testEnvNumber("OCSP_TEST_VERBOSE", 0)) print_message("accepted %d, rejected %d\n", accepted, rejected);
    assert_true(rejected > 10 * accepted);
}

TEST(der_overTheSizeLimit) {
    testBytes big = testTag(0x30, testCopy(NULL, 0));
    unsigned char *block = calloc(1, OCSP_MAX_RESPONSE_BYTES + 1);
    big = testJoin(big, testCopy(block, OCSP_MAX_RESPONSE_BYTES));
    free(block);
    assertBytesRejected(big.p, big.n, OCSP_ERR_RESPONSE, "der");
    testBytesFree(&big);
}

/* ---- which SingleResponse ---------------------------------------------------------------------------------------- */

TEST(singleResponse_amongSeveral, "8") {
    for (int ours = 0; ours < 4; ours++) {
        testReply reply = goodReply();
        X509 *others[] = {pki->rsa_leaf, pki->must_leaf, pki->quiet_leaf};
        testSingle mine = reply.singles[0];
        for (int i = 0, k = 0; i < 4; i++) {
            reply.singles[i] = mine;
            if (i != ours) {
                reply.singles[i].cert = others[k++];
                reply.singles[i].status = TEST_REVOKED; /* must not be used for pki->leaf */
                reply.singles[i].next_update = TEST_NOW + 50;
            }
        }
        reply.count = 4;
        reply.produced_at = TEST_NOW - 60;
        ocspResponse got = assertAccepted(&reply);
        assert_int_equal(got.revoked, 0);
        assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
        assert_int_equal(got.produced_at, TEST_NOW - 60);
        ocspResponseClear(&got);
    }
}

TEST(singleResponse_badAmongGoodOnes, "8") {
    testReply reply = goodReply();
    reply.singles[1] = reply.singles[0];
    reply.singles[0].cert = pki->rsa_leaf;
    reply.count = 2;
    reply.singles[1].status = TEST_UNKNOWN;
    assertRejected(&reply, OCSP_ERR_RESPONSE, "unknown");
    reply.singles[1].status = TEST_GOOD;
    reply.singles[1].next_update = TEST_NOW - 1;
    assertRejected(&reply, OCSP_ERR_VERIFY, "expired");
}

TEST(singleResponse_missing, "8") {
    testReply reply = goodReply();
    reply.count = 0;
    assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
    reply.singles[1] = reply.singles[0];
    reply.singles[0].cert = pki->rsa_leaf;
    reply.singles[1].cert = pki->must_leaf;
    reply.count = 2;
    assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
}

TEST(certId_otherSerial, "8") {
    testReply reply = goodReply();
    reply.singles[0].cert = pki->renewed_leaf;
    assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
}

TEST(certId_sameSerialOfAnotherIssuer, "8") {
    testReply reply = goodReply();
    reply.singles[0].cert = pki->foreign_leaf; /* the same serial */
    reply.singles[0].issuer = pki->twin;       /* the same name, another key */
    assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
    reply.singles[0].issuer = pki->root; /* another name */
    assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
    reply.singles[0].key_of = pki->ca; /* another name, the issuer's key */
    assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
}

TEST(certId_otherDigests, "8") {
    static const char *const hashes[] = {"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"};
    for (int i = 0; i < 5; i++) {
        testReply reply = goodReply();
        reply.singles[0].md = EVP_get_digestbyname(hashes[i]);
        assertAcceptedAndClear(&reply);
        reply.singles[0].key_of = pki->twin; /* the hash is compared, not ignored */
        assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
    }
}

TEST(certId_truncatedHashes, "8") {
    for (size_t cut = 1; cut <= 20; cut++) {
        testReply reply = goodReply();
        reply.singles[0].cut_hash = cut;
        assertRejected(&reply, OCSP_ERR_VERIFY, "no-entry");
    }
}

/* ---- dates ------------------------------------------------------------------------------------------------------- */

TEST(dates_thisUpdateInTheFuture, "9") {
    testReply reply = goodReply();
    static const struct { int ahead, good; } rows[] = {{200, 1}, {299, 1}, {300, 1}, {301, 0}, {400, 0}, {86400, 0}};
    for (size_t i = 0; i < 6; i++) {
        reply.singles[0].this_update = TEST_NOW + rows[i].ahead;
        reply.singles[0].next_update = TEST_NOW + 2 * TEST_DAY;
        if (rows[i].good)
            assertAcceptedAndClear(&reply);
        else
            assertRejected(&reply, OCSP_ERR_VERIFY, "not-yet-valid");
        reply.singles[0].next_update = 0;
        if (rows[i].good)
            assertAcceptedAndClear(&reply);
        else
            assertRejected(&reply, OCSP_ERR_VERIFY, "not-yet-valid");
    }
}

TEST(dates_nextUpdateInThePast, "9") {
    testReply reply = goodReply();
    static const struct { int ahead, good; } rows[] = {{1, 1}, {0, 0}, {-1, 0}, {-3000, 0}};
    for (size_t i = 0; i < 4; i++) {
        reply.singles[0].next_update = TEST_NOW + rows[i].ahead;
        if (rows[i].good)
            assertAcceptedAndClear(&reply);
        else
            assertRejected(&reply, OCSP_ERR_VERIFY, "expired");
    }
}

TEST(dates_nextUpdateBeforeThisUpdate, "9") {
    testReply reply = goodReply();
    reply.singles[0].this_update = TEST_NOW + 200;
    reply.singles[0].next_update = TEST_NOW + 100;
    assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
}

TEST(dates_noNextUpdateIsValidTenMinutesFromReceipt, "9") {
    testReply reply = goodReply();
    reply.singles[0].next_update = 0;
    reply.singles[0].this_update = TEST_NOW - 30 * TEST_DAY; /* old: its age does not count */
    ocspResponse got = assertAccepted(&reply);
    assert_int_equal(got.next_update, 0);
    assert_int_equal(got.expires_at, TEST_NOW + 600);
    ocspResponseClear(&got);

    /* For a file: from its mtime. An mtime in the future is rejected, or each restart would begin the ten minutes
     * anew. */
    testBytes der = testReplyDer(&reply);
    static const struct {
        int received, end;
    } rows[] = {{-1, 599}, {-599, 1}, {-600, 0}, {-10000, 0}, {300, 600}, {301, 0}, {86400, 0}};
    for (size_t i = 0; i < 7; i++) {
        ocspError err = {0};
        int ok = ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW + rows[i].received, &got, &err);
        assert_int_equal(ok, rows[i].end != 0);
        if (ok) {
            assert_int_equal(got.expires_at, TEST_NOW + rows[i].end);
            ocspResponseClear(&got);
        } else {
            testAssertError(&err, OCSP_ERR_VERIFY, "expired");
        }
    }
    testBytesFree(&der);
}

TEST(dates_certificateEndsBeforeNextUpdate, "9") {
    X509 *brief = testCert(&(testCertSpec){.name = "brief",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->leaf_key,
                                           .urls = {TEST_URL},
                                           .not_after = TEST_NOW + 1234});
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(brief, pki->ca);
    testReply reply = testGoodReply(brief);
    ocspResponse got = assertAccepted(&reply);
    assert_int_equal(got.expires_at, TEST_NOW + 1234);
    assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
    ocspResponseClear(&got);
    ocspIdentityFree(leaf_id);
    leaf_id = known;
    X509_free(brief);
}

TEST(dates_signerEndsBeforeNextUpdate, "9") {
    testReply reply = signedBy(pki->responder_short, pki->responder_key);
    ocspResponse got = assertAccepted(&reply);
    assert_int_equal(got.expires_at, TEST_NOW + 100);
    assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
    ocspResponseClear(&got);

    ocspError err = {0};
    testBytes der = testReplyDer(&reply);
    assert_true(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW + 99, TEST_NOW, &got, &err));
    ocspResponseClear(&got);
    assert_false(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW + 100, TEST_NOW, &got, &err));
    testAssertError(&err, OCSP_ERR_VERIFY, "expired");
    testBytesFree(&der);
}

TEST(dates_certificateExpired, "9") {
    X509 *old = testCert(&(testCertSpec){.name = "old",
                                         .issuer = pki->ca,
                                         .issuer_key = pki->ca_key,
                                         .key = pki->leaf_key,
                                         .urls = {TEST_URL},
                                         .not_after = TEST_NOW});
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(old, pki->ca);
    testReply reply = testGoodReply(old);
    assertRejected(&reply, OCSP_ERR_VERIFY, "expired");
    ocspIdentityFree(leaf_id);
    leaf_id = known;
    X509_free(old);
}

TEST(dates_malformed, "9") {
    static const char *const bad[] = {"",
                                      "2",
                                      "20300101",
                                      "20301301000000Z",
                                      "99999999999999Z",
                                      "2030010100000",
                                      "xxxxxxxxxxxxxxZ",
                                      "20300101000000.Z",
                                      "20300101000000+0000Z"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        for (int which = 0; which < 2; which++) {
            ocspResponse got;
            ocspError err = {0};
            testReply reply = goodReply();
            if (which)
                reply.singles[0].next_text = bad[i];
            else
                reply.singles[0].this_text = bad[i];
            testBytes der = testReplyDer(&reply);
            if (ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err)) {
                fail_msg("accepted the date \"%s\"", bad[i]);
            }
            assert_true(err.kind == OCSP_ERR_VERIFY || err.kind == OCSP_ERR_RESPONSE);
            testBytesFree(&der);
        }
    }
}

TEST(dates_extreme, "9") {
    testReply reply = goodReply();
    reply.singles[0].next_text = "99991231235959Z"; /* RFC 5280: no well-defined expiration */
    ocspResponse got = assertAccepted(&reply);
    assert_true(got.next_update == (time_t)253402300799);
    assert_int_equal(got.expires_at, TEST_NOW + 365 * TEST_DAY);
    ocspResponseClear(&got);
    reply.singles[0].this_text = "19500101000000Z"; /* before 1970 */
    got = assertAccepted(&reply);
    assert_int_equal(got.this_update, -631152000);
    ocspResponseClear(&got);
    reply.singles[0].next_text = "19700101000000Z"; /* 1970: not "absent" */
    assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
}

/* ---- extensions -------------------------------------------------------------------------------------------------- */

/* DER of one extension with an empty value. */
static testBytes extension(const char *oid, int critical) {
    unsigned char *p = NULL;
    ASN1_OBJECT *kind = OBJ_txt2obj(oid, 1);
    int n = i2d_ASN1_OBJECT(kind, &p);
    testBytes all = testCopy(p, (size_t)n);
    if (critical) all = testJoin(all, testCopy("\x01\x01\xff", 3));
    ASN1_OBJECT_free(kind);
    OPENSSL_free(p);
    return testTag(0x30, testJoin(all, testTag(0x04, testCopy("\x05\x00", 2))));
}

TEST(extensions_critical) {
    static const struct {
        const char *oid;
        int harmless;
    } rows[] = {{"1.3.6.1.4.1.99999.1", 0},  /* of no known kind */
                {"1.3.6.1.5.5.7.48.1.2", 1}, /* nonce */
                {"1.3.6.1.5.5.7.48.1.3", 1}, /* CRL reference */
                {"1.3.6.1.5.5.7.48.1.6", 1}, /* archive cutoff */
                {"1.3.6.1.5.5.7.48.1.9", 1}, /* extended revoked */
                {"1.3.6.1.5.5.7.48.1.7", 0}, /* service locator, which belongs in requests */
                {"2.5.29.29", 0}};           /* certificateIssuer, which changes the subject of a SingleResponse */
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int critical = 0; critical < 2; critical++) {
            for (int where = 0; where < 3; where++) {
                testReply reply = goodReply();
                testBytes der = extension(rows[i].oid, critical);
                reply.singles[1] = reply.singles[0];
                reply.singles[1].cert = pki->rsa_leaf;
                reply.count = 2;
                if (where == 2)
                    reply.extensions = der;
                else
                    reply.singles[where].extensions = der; /* the second SingleResponse is about another certificate */
                if (rows[i].harmless || !critical)
                    assertAcceptedAndClear(&reply);
                else
                    assertRejected(&reply, OCSP_ERR_VERIFY, "extension");
                testBytesFree(&der);
            }
        }
    }
}

/* ---- digests and keys -------------------------------------------------------------------------------------------- */

/* A responder's certificate, signed with that digest, by RSASSA-PSS or not. The CA has to be an RSA one. */
static X509 *responderSignedWith(X509 *ca, EVP_PKEY *ca_key, EVP_PKEY *key, const EVP_MD *md, int pss) {
    X509 *cert = testCert(&(
        testCertSpec){.name = "Responder", .issuer = ca, .issuer_key = ca_key, .key = key, .extended = "OCSPSigning"});
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    unsigned char *tbs = NULL, signature[512];
    size_t len = sizeof(signature);
    const ASN1_BIT_STRING *string;
    const X509_ALGOR *outer;
    if (!pss) {
        assert_true(X509_sign(cert, ca_key, md) > 0);
        EVP_MD_CTX_free(ctx);
        return cert;
    }
    /* By hand: OpenSSL verifies MD5 within RSASSA-PSS, and does not write it. */
    testSetPssAlgorithm((X509_ALGOR *)X509_get0_tbs_sigalg(cert), md);
    X509_get0_signature(&string, &outer, cert);
    testSetPssAlgorithm((X509_ALGOR *)outer, md);
    int n = i2d_re_X509_tbs(cert, &tbs);
    EVP_PKEY_CTX *how;
    assert_true(n > 0 && EVP_DigestSignInit(ctx, &how, md, NULL, ca_key) == 1);
    assert_true(EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) > 0);
    assert_true(EVP_PKEY_CTX_set_rsa_pss_saltlen(how, EVP_MD_get_size(md)) > 0);
    assert_true(EVP_DigestSign(ctx, signature, &len, tbs, (size_t)n) == 1);
    assert_true(ASN1_BIT_STRING_set((ASN1_BIT_STRING *)string, signature, (int)len));
    OPENSSL_free(tbs);
    EVP_MD_CTX_free(ctx);
    return cert;
}

/* The digests and keys that a response may be signed with hold for its responder's certificate too, and for RSASSA-PSS,
 * which names its digest elsewhere. */
TEST(responder_weakDigestsAndKeys) {
    EVP_PKEY *ca_key = testRsaKey(1), *short_key = EVP_RSA_gen(512);
    X509 *ca = testCert(&(testCertSpec){.name = "RSA CA", .key = ca_key, .ca = 1});
    X509 *leaf = testCert(
        &(testCertSpec){.name = "x", .issuer = ca, .issuer_key = ca_key, .key = pki->leaf_key, .urls = {TEST_URL}});
    const struct {
        const EVP_MD *md; /* of the responder's certificate */
        int pss;
        const EVP_MD *reply_pss; /* of the response, by an RSA key */
        EVP_PKEY *key;
        int good;
    } rows[] = {
        {EVP_sha256(), 0, NULL, pki->responder_key, 1},    {EVP_sha1(), 0, NULL, pki->responder_key, 1},
        {EVP_md5(), 0, NULL, pki->responder_key, 0},       {EVP_sha256(), 1, NULL, pki->responder_key, 1},
        {EVP_md5(), 1, NULL, pki->responder_key, 0},       {EVP_sha256(), 0, NULL, short_key, 0},
        {EVP_sha256(), 0, EVP_sha256(), testRsaKey(2), 1}, {EVP_sha256(), 0, EVP_sha1(), testRsaKey(2), 1},
        {EVP_sha256(), 0, EVP_md5(), testRsaKey(2), 0},
    };
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(leaf, ca);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        X509 *responder = responderSignedWith(ca, ca_key, rows[i].key, rows[i].md, rows[i].pss);
        testReply reply = testGoodReply(leaf);
        reply.singles[0].issuer = ca;
        reply.signer = reply.sent[0] = responder;
        reply.key = rows[i].key;
        reply.pss_md = rows[i].reply_pss;
        if (rows[i].good)
            assertAcceptedAndClear(&reply);
        else
            assertRejected(&reply, OCSP_ERR_VERIFY, rows[i].reply_pss ? "signature" : "signer");
        X509_free(responder);
    }
    ocspIdentityFree(leaf_id);
    leaf_id = known;
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(short_key);
}

/* ---- bounds on the work ------------------------------------------------------------------------------------------ */

/* Asserts that the reply is rejected for this reason with at most this much work, and parsed once. */
static void assertWorkIsBounded(const testReply *reply, const char *word, int verifications, int certids) {
    testCountFromZero();
    assertRejected(reply, OCSP_ERR_VERIFY, word);
    if (test_verifications > verifications || test_certids > certids || test_parsed > 1)
        fail_msg("%d verifications, %d CertIDs, %d parsed; allowed are %d, %d, 1", test_verifications, test_certids,
                 test_parsed, verifications, certids);
}

static void assertRejectedUnparsed(const testReply *reply) {
    testCountFromZero();
    assertRejected(reply, OCSP_ERR_RESPONSE, "der");
    assert_int_equal(test_verifications, 0);
    assert_int_equal(test_certids, 0);
    assert_int_equal(test_parsed, 0);
}

/* Certificates with the responder's name that the CA did not sign: any TLS peer can send them. */
static void workOfAHostileResponse(EVP_PKEY *ca_key) {
    X509 *ca = testCert(&(testCertSpec){.name = "Work CA", .key = ca_key, .ca = 1});
    X509 *leaf = testCert(&(testCertSpec){.name = "x", .issuer = ca, .issuer_key = ca_key, .key = pki->leaf_key});
    testCertSpec spec = {
        .name = "Responder", .issuer = ca, .issuer_key = ca_key, .key = testEcKey(5), .extended = "OCSPSigning"};
    X509 *certified = testCert(&spec), *again = testCert(&spec);
    spec.extended = "serverAuth";
    X509 *not_for_that = testCert(&spec);
    spec.extended = "OCSPSigning";
    spec.issuer = X509_dup(ca); /* the name of the CA, but not its signature */
    spec.issuer_key = testEcKey(6);
    X509 *junk = testCert(&spec);
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(leaf, ca);
    testReply reply = testGoodReply(leaf);
    reply.singles[0].issuer = ca;
    reply.signer = certified;
    reply.key = testEcKey(6); /* signed by none of them */

    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = junk;
    assertWorkIsBounded(&reply, "signer", 4, 1); /* the signature of each certificate */
    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = not_for_that;
    assertWorkIsBounded(&reply, "signer", 0, 1); /* cheap checks come first */
    reply.sent[0] = reply.sent[2] = certified;
    reply.sent[1] = reply.sent[3] = again;
    assertWorkIsBounded(&reply, "signature", 5, 1); /* the same key is tried once */
    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = junk;
    reply.sent_repeat = 1; /* eight may be included, but not five that the ResponderID names */
    assertWorkIsBounded(&reply, "signer", 0, 1);
    reply.sent_repeat = 2; /* twelve, and then two hundred: not even parsed */
    assertRejectedUnparsed(&reply);
    reply.sent_repeat = 49;
    assertRejectedUnparsed(&reply);

    ocspIdentityFree(leaf_id);
    leaf_id = known;
    X509_free(spec.issuer);
    X509_free(junk);
    X509_free(not_for_that);
    X509_free(again);
    X509_free(certified);
    X509_free(leaf);
    X509_free(ca);
}

TEST(work_manyCertificatesOfTheSignersName) {
    EVP_PKEY *p384 = EVP_EC_gen("P-384");
    workOfAHostileResponse(testRsaKey(1));
    workOfAHostileResponse(testEcKey(4));
    workOfAHostileResponse(p384);
    EVP_PKEY_free(p384);
}

/* By key: all certificates that the ResponderID names have the signer's key, so one verification decides. */
TEST(work_manyCertificatesOfTheSignersKey) {
    testReply reply = signedBy(pki->responder, pki->responder_key);
    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = pki->responder;
    reply.by_key = reply.break_signature = 1;
    assertWorkIsBounded(&reply, "signature", 5, 1);
}

TEST(work_manySingleResponses) {
    testReply reply = goodReply();
    reply.singles[0].cert = pki->foreign_leaf; /* our serial, of another issuer */
    reply.singles[0].issuer = pki->twin;
    reply.singles[1] = reply.singles[2] = reply.singles[3] = reply.singles[0];
    reply.singles[1].md = EVP_sha256();
    reply.singles[2].md = EVP_sha384();
    reply.singles[3].md = EVP_sha512();
    reply.count = 4;
    reply.repeat = 15;
    assertWorkIsBounded(&reply, "no-entry", 0, 4); /* 64 SingleResponses, four digests */
    reply.repeat = 16;
    assertRejectedUnparsed(&reply);
    reply.repeat = 150;
    assertRejectedUnparsed(&reply);
    reply.repeat = 3;
    for (int i = 0; i < 4; i++) reply.singles[i].cert = pki->rsa_leaf; /* the serial alone says no */
    assertWorkIsBounded(&reply, "no-entry", 0, 0);
    reply = goodReply();
    reply.singles[0].cert = pki->rsa_leaf;
    reply.repeat = 63;
    assertWorkIsBounded(&reply, "no-entry", 0, 0);
}

TEST(work_manyCertIdDigests) {
    static const char *const digests[] = {"SHA224", "SHA256", "SHA384", "SHA512"};
    testReply reply = goodReply();
    for (int i = 0; i < 4; i++) {
        reply.singles[i] = reply.singles[0];
        reply.singles[i].md = EVP_get_digestbyname(digests[i]);
    }
    reply.count = 4;
    assertAcceptedAndClear(&reply);
    reply.singles[4] = reply.singles[0];
    reply.singles[4].md = EVP_sha1();
    reply.count = 5;
    assertWorkIsBounded(&reply, "no-entry", 0, 4);
}

/* The number of DER values is bounded: here of an extension's, which is not read. */
TEST(work_manyDerValues) {
    testReply reply = goodReply();
    testBytes one = extension("1.3.6.1.4.1.99999.1", 0), many = testCopy("", 0);
    for (int i = 0; i < 1300; i++) many = testJoin(many, testCopy(one.p, one.n));
    reply.extensions = many;
    assertAcceptedAndClear(&reply); /* some 3900 values */
    for (int i = 0; i < 200; i++) many = testJoin(many, testCopy(one.p, one.n));
    reply.extensions = many;
    assertRejectedUnparsed(&reply);
    testBytesFree(&one);
    testBytesFree(&many);
}

/* Which errors may be cached, and for how long. */
TEST(error_mayChangeAt) {
    testReply replies[] = {goodReply(), goodReply(), goodReply(), signedBy(pki->responder, pki->responder_key)};
    X509 *early = testCert(&(testCertSpec){.name = "Responder",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->responder_key,
                                           .extended = "OCSPSigning",
                                           .not_before = TEST_NOW + 1000});
    const int64_t until[] = {OCSP_NEVER, OCSP_NEVER, TEST_NOW + 700, TEST_NOW + 700};
    static const char *const words[] = {"signature", "expired", "not-yet-valid", "not-yet-valid"};
    replies[0].break_signature = 1;
    replies[1].singles[0].next_update = TEST_NOW - 1;
    replies[2].singles[0].this_update = TEST_NOW + 1000;
    replies[3].signer = replies[3].sent[0] = early;
    for (int i = 0; i < 4; i++) {
        ocspResponse got;
        ocspError err = {0};
        testBytes der = testReplyDer(&replies[i]);
        assert_false(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err));
        assert_true(err.may_change_at == until[i]);
        testAssertError(&err, OCSP_ERR_VERIFY, words[i]);
        testBytesFree(&der);
    }
    X509_free(early);
}

/* ---- several SingleResponses ------------------------------------------------------------------------------------- */

/* A second SingleResponse that is good at another time does not hide one that is good now. Revoked and unknown count as
 * if they were alone. */
TEST(singleResponses_invalidGoodOneHidesNone) {
    static const struct {
        testStatus status;
        int this_update, next_update, good;
    } rows[] = {
        {TEST_GOOD, 1000, 2000, 1}, /* in the future */
        {TEST_GOOD, -1000, -10, 1}, /* newer, and has expired */
        {TEST_GOOD, -7200, -10, 1}, /* older, and has expired */
        {TEST_REVOKED, 1000, 2000, 0},  {TEST_REVOKED, -1000, -10, 0},
        {TEST_UNKNOWN, -1000, 1000, 0}, {TEST_REVOKED, -7200, 1000, 1}, /* older: does not count */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int first = 0; first < 2; first++) {
            testReply reply = goodReply();
            reply.count = 2;
            reply.produced_at = TEST_NOW;
            reply.singles[1] = reply.singles[0];
            reply.singles[first].status = rows[i].status;
            reply.singles[first].this_update = TEST_NOW + rows[i].this_update;
            reply.singles[first].next_update = TEST_NOW + rows[i].next_update;
            testBytes der = testReplyDer(&reply);
            ocspResponse got;
            ocspError err = {0};
            int ok = ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err);
            if (ok != rows[i].good) fail_msg("row %zu: %s", i, ok ? "accepted" : err.text);
            if (ok) {
                assert_int_equal(got.revoked, 0);
                assert_int_equal(got.this_update, TEST_NOW - 3600);
                ocspResponseClear(&got);
            }
            testBytesFree(&der);
        }
    }
    testReply reply = goodReply(); /* none is valid now: the newest one gives the reason */
    reply.count = 2;
    reply.singles[0].next_update = TEST_NOW - 10;
    reply.singles[1] = reply.singles[0];
    reply.singles[1].this_update -= 60;
    testBytes der = testReplyDer(&reply);
    ocspResponse got;
    ocspError err = {0};
    assert_false(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err));
    assert_int_equal(err.expired, 1);
    testBytesFree(&der);
}

/* Go's clients and NSS parse every time in a response. */
TEST(dates_everyOneInTheResponseIsStrict) {
    testReply reply = goodReply();
    reply.produced_text = "20300101000000.5Z";
    assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
    reply.produced_text = "20300101000000Z";
    assertAcceptedAndClear(&reply);
    reply = goodReply();
    reply.singles[0].status = TEST_REVOKED;
    reply.singles[0].revoked_text = "20290101000000.25Z";
    assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
    reply.singles[0].revoked_text = "20290101000000Z";
    assertAcceptedAndClear(&reply);
    for (int which = 0; which < 3; which++) { /* in a SingleResponse about another certificate */
        reply = goodReply();
        reply.count = 2;
        reply.singles[1] = reply.singles[0];
        reply.singles[1].cert = pki->rsa_leaf;
        reply.singles[1].status = TEST_REVOKED;
        assertAcceptedAndClear(&reply);
        if (which == 0) reply.singles[1].this_text = "20300101000000.5Z";
        if (which == 1) reply.singles[1].next_text = "20400101000000.5Z";
        if (which == 2) reply.singles[1].revoked_text = "20290101000000.5Z";
        assertRejected(&reply, OCSP_ERR_VERIFY, "dates");
    }
}

/* ---- revoked ----------------------------------------------------------------------------------------------------- */

TEST(revoked_isAValidResponse) {
    testReply reply = goodReply();
    reply.singles[0].status = TEST_REVOKED;
    reply.singles[0].revoked_at = TEST_NOW - 7200;
    ocspResponse got = assertAccepted(&reply);
    assert_int_equal(got.revoked, 1);
    assert_int_equal(got.revocation_reason, -1);
    assert_int_equal(got.revoked_at, TEST_NOW - 7200);
    ocspResponseClear(&got);
    reply.singles[0].reason = 1 + OCSP_REVOKED_STATUS_CERTIFICATEHOLD;
    got = assertAccepted(&reply);
    assert_int_equal(got.revocation_reason, OCSP_REVOKED_STATUS_CERTIFICATEHOLD);
    ocspResponseClear(&got);
    reply.singles[0].reason = 1 + OCSP_REVOKED_STATUS_UNSPECIFIED;
    got = assertAccepted(&reply);
    assert_int_equal(got.revocation_reason, OCSP_REVOKED_STATUS_UNSPECIFIED);
    ocspResponseClear(&got);
}

/* Of two SingleResponses with equal thisUpdate revoked wins, whatever their order. */
TEST(singleResponses_revokedWinsAtAnEqualThisUpdate) {
    for (int revoked_at = 0; revoked_at < 2; revoked_at++) {
        testReply reply = goodReply();
        reply.singles[1] = reply.singles[0];
        reply.singles[revoked_at].status = TEST_REVOKED;
        reply.count = 2;
        ocspResponse got = assertAccepted(&reply);
        assert_int_equal(got.revoked, 1);
        ocspResponseClear(&got);
    }
}

/* Of two SingleResponses the newer one counts, whatever its status and position. */
TEST(singleResponses_newerWins) {
    for (int newer_at = 0; newer_at < 2; newer_at++) {
        for (int newer_revoked = 0; newer_revoked < 2; newer_revoked++) {
            testReply reply = goodReply();
            reply.count = 2;
            reply.singles[1] = reply.singles[0];
            reply.singles[1 - newer_at].this_update -= 60;
            reply.singles[newer_revoked ? newer_at : 1 - newer_at].status = TEST_REVOKED;
            ocspResponse got = assertAccepted(&reply);
            assert_int_equal(got.revoked, newer_revoked);
            assert_int_equal(got.this_update, reply.singles[newer_at].this_update);
            ocspResponseClear(&got);
        }
    }
}

/* Clients look for SHA-1: it is reported if one CertID for this certificate has it; others' CertIDs do not count. */
TEST(certId_digestIsReported) {
    const EVP_MD *const digests[] = {NULL, EVP_sha256(), EVP_sha384(), EVP_sha512()};
    const int expected[] = {NID_sha1, NID_sha256, NID_sha384, NID_sha512};
    for (int i = 0; i < 4; i++) {
        testReply reply = goodReply();
        reply.singles[0].md = digests[i];
        ocspResponse got = assertAccepted(&reply);
        assert_int_equal(got.certid_digest, expected[i]);
        ocspResponseClear(&got);
    }
    for (int sha1_at = 0; sha1_at < 2; sha1_at++) {
        for (int sha1_newer = 0; sha1_newer < 2; sha1_newer++) {
            testReply reply = goodReply();
            reply.count = 2;
            reply.singles[1] = reply.singles[0];
            reply.singles[1 - sha1_at].md = EVP_sha256();
            reply.singles[sha1_newer ? 1 - sha1_at : sha1_at].this_update -= 60;
            ocspResponse got = assertAccepted(&reply);
            assert_int_equal(got.certid_digest, NID_sha1);
            ocspResponseClear(&got);
            reply.singles[sha1_at].cert = pki->rsa_leaf;
            got = assertAccepted(&reply);
            assert_int_equal(got.certid_digest, NID_sha256);
            ocspResponseClear(&got);
        }
    }
}

/* ---- ocspCompare ------------------------------------------------------------------------------------------------- */

static ocspResponse made(time_t this_update, int revoked) {
    static unsigned char some[1];
    return (ocspResponse){.der = some,
                          .len = 1,
                          .revoked = revoked,
                          .this_update = this_update,
                          .next_update = TEST_NOW + 1000,
                          .expires_at = TEST_NOW + 1000};
}

TEST(compare_byThisUpdate) {
    ocspResponse none = {0};
    for (int was = 0; was < 2; was++) {
        for (int is = 0; is < 2; is++) {
            ocspResponse current = made(TEST_NOW - 100, was), newer = made(TEST_NOW - 99, is),
                         older = made(TEST_NOW - 101, is);
            assert_int_equal(ocspCompare(&none, &newer, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&current, &newer, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&current, &older, TEST_NOW), OCSP_FRESH_OLDER);
        }
    }
}

TEST(compare_revokedReplacesGoodAtAnEqualThisUpdate) {
    ocspResponse good = made(TEST_NOW - 100, 0), revoked = made(TEST_NOW - 100, 1);
    assert_int_equal(ocspCompare(&good, &revoked, TEST_NOW), OCSP_FRESH_NEWER);
    assert_int_equal(ocspCompare(&revoked, &good, TEST_NOW), OCSP_FRESH_OLDER);
    assert_int_equal(ocspCompare(&good, &good, TEST_NOW), OCSP_FRESH_SAME);
    assert_int_equal(ocspCompare(&revoked, &revoked, TEST_NOW), OCSP_FRESH_SAME);
}

/* CAs that round thisUpdate to the hour: within the hour the later producedAt counts, so that a lifted certificateHold
 * is noticed, and a replayed response from before it is not accepted. */
TEST(compare_byProducedAtAtAnEqualThisUpdate) {
    ocspResponse none = {0};
    for (int was = 0; was < 2; was++) {
        for (int is = 0; is < 2; is++) {
            ocspResponse current = made(TEST_NOW - 1000, was), later = made(TEST_NOW - 1000, is),
                         earlier = made(TEST_NOW - 1000, is), older = made(TEST_NOW - 1001, is);
            current.produced_at = TEST_NOW - 100;
            later.produced_at = older.produced_at = TEST_NOW - 40;
            earlier.produced_at = TEST_NOW - 160;
            assert_int_equal(ocspCompare(&none, &later, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&current, &later, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&current, &earlier, TEST_NOW), was == is ? OCSP_FRESH_SAME : OCSP_FRESH_OLDER);
            assert_int_equal(ocspCompare(&current, &older, TEST_NOW), OCSP_FRESH_OLDER); /* thisUpdate comes first */
        }
    }
}

/* An expired response is no longer compared with, but for a revocation and for a replayed response without
 * nextUpdate. */
TEST(compare_withAnExpiredResponse) {
    ocspResponse current = made(TEST_NOW - 100, 0), older = made(TEST_NOW - 200, 0);
    current.expires_at = current.next_update = TEST_NOW;
    assert_int_equal(ocspCompare(&current, &older, TEST_NOW - 1), OCSP_FRESH_OLDER);
    assert_int_equal(ocspCompare(&current, &older, TEST_NOW), OCSP_FRESH_NEWER);
    current.revoked = 1;
    assert_int_equal(ocspCompare(&current, &older, TEST_NOW), OCSP_FRESH_OLDER);

    ocspResponse endless = made(TEST_NOW - 1000, 0), replayed = endless;
    endless.next_update = replayed.next_update = 0;
    endless.expires_at = TEST_NOW;
    replayed.expires_at = TEST_NOW + 600;
    assert_int_equal(ocspCompare(&endless, &replayed, TEST_NOW), OCSP_FRESH_SAME);
}

/* A current response from when the clock was a day ahead does not make a new one older. */
TEST(compare_withAResponseFromTheFuture, "14") {
    ocspResponse current = made(TEST_NOW + TEST_DAY, 0), fresh = made(TEST_NOW - 10, 0);
    current.expires_at = current.next_update = TEST_NOW + 2 * TEST_DAY;
    assert_int_equal(ocspCompare(&current, &fresh, TEST_NOW), OCSP_FRESH_NEWER);
    current.this_update = TEST_NOW + OCSP_CLOCK_SKEW; /* within the clock skew that any response may have */
    assert_int_equal(ocspCompare(&current, &fresh, TEST_NOW), OCSP_FRESH_OLDER);
}

/* ---- ocspPeekNextUpdate ------------------------------------------------------------------------------------------ */

TEST(peek_findsTheLatestNextUpdate) {
    testReply reply = goodReply();
    reply.singles[1] = reply.singles[0];
    reply.singles[1].next_update = TEST_NOW + 5 * TEST_DAY;
    reply.singles[2] = reply.singles[0];
    reply.count = 3;
    reply.break_signature = 1; /* nothing is verified here */
    testBytes der = testReplyDer(&reply);
    assert_int_equal(ocspPeekNextUpdate(der.p, der.n), TEST_NOW + 5 * TEST_DAY);
    testBytesFree(&der);
    reply.singles[2].next_update = 0;
    der = testReplyDer(&reply);
    assert_int_equal(ocspPeekNextUpdate(der.p, der.n), 0);
    testBytesFree(&der);
}

TEST(peek_survivesMalformedInput) {
    assert_int_equal(ocspPeekNextUpdate((const unsigned char *)"", 0), -1);
    assert_int_equal(ocspPeekNextUpdate((const unsigned char *)"0", 1), -1);
    testReply reply = goodReply();
    testBytes der = testReplyDer(&reply);
    for (size_t n = 0; n < der.n; n++) {
        testBytes part = testCopy(der.p, n);
        assert_int_equal(ocspPeekNextUpdate(part.p, part.n), -1);
        testBytesFree(&part);
        unsigned char was = der.p[n];
        der.p[n] ^= 0xff;
        assert_true(ocspPeekNextUpdate(der.p, der.n) >= -1);
        der.p[n] = was;
    }
    testBytesFree(&der);
    reply.status = 3;
    der = testReplyDer(&reply);
    assert_int_equal(ocspPeekNextUpdate(der.p, der.n), -1);
    testBytesFree(&der);
    assert_int_equal(ERR_peek_error(), 0);
}
