/* test_verify.c - which bytes become a response that may be stapled, and which do not. Every rule of the table in the
 * design has a test here; OpenSSL's own verification is the second opinion where bytes are damaged at random.
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

/* Verifies at TEST_NOW and wants success; the caller clears. */
static ocspResponse wantGood(const testReply *reply) {
    ocspResponse got;
    ocspError err = {0};
    testBytes der = testReplyDer(reply);
    if (!ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err))
        fail_msg("refused: %s", err.text);
    assert_int_equal(got.len, der.n);
    assert_memory_equal(got.der, der.p, der.n);
    testBytesFree(&der);
    return got;
}

static void wantGoodOnly(const testReply *reply) {
    ocspResponse got = wantGood(reply);
    ocspResponseClear(&got);
}

/* Verifies bytes and wants a failure of this kind, told in words, with nothing handed out. */
static void wantBytesRefused(const unsigned char *p, size_t n, ocspErrorKind kind) {
    ocspResponse got;
    ocspError err = {0};
    memset(&got, 0x5a, sizeof(got));
    if (ocspVerify((ocspBytes){p, n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err))
        fail_msg("taken, but kind %d was due", kind);
    if (err.kind != kind) fail_msg("kind %d, not %d: %s", err.kind, kind, err.text);
    assert_true(strlen(err.text) > 10);
    assert_null(got.der);
    assert_int_equal(ERR_peek_error(), 0);
}

static void wantRefused(const testReply *reply, ocspErrorKind kind) {
    testBytes der = testReplyDer(reply);
    wantBytesRefused(der.p, der.n, kind);
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
    ocspResponse got = wantGood(&reply);
    assert_int_equal(got.revoked, 0);
    assert_int_equal(got.revocation_reason, -1);
    assert_int_equal(got.this_update, TEST_NOW - 3600);
    assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
    assert_int_equal(got.produced_at, TEST_NOW - 3600);
    assert_int_equal(got.expires_at, TEST_NOW + TEST_DAY);
    ocspResponseClear(&got);
    assert_null(got.der);

    reply.sent[0] = pki->ca; /* sent along needlessly, as many do */
    wantGoodOnly(&reply);
    reply.sent[0] = NULL;
    reply.by_key = 1;
    wantGoodOnly(&reply);
}

TEST(signer_issuerWithSha2Digests, "6") {
    static const char *const digests[] = {"SHA256", "SHA384", "SHA512"};
    for (int i = 0; i < 3; i++) {
        testReply reply = goodReply();
        reply.sign_md = EVP_get_digestbyname(digests[i]);
        wantGoodOnly(&reply);
    }
    ocspIdentity *ecdsa = leaf_id;
    leaf_id = testIdentity(pki->rsa_leaf, pki->ca);
    testReply reply = testGoodReply(pki->rsa_leaf);
    wantGoodOnly(&reply);
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
    reply.entries[0].issuer = reply.signer = ca;
    reply.key = testRsaKey(1);
    wantGoodOnly(&reply);
    reply.break_signature = 1;
    wantRefused(&reply, OCSP_ERR_VERIFY);
    ocspIdentityFree(leaf_id);
    leaf_id = ecdsa;
    X509_free(leaf);
    X509_free(ca);
}

TEST(signer_authorizedResponder, "6") {
    testReply reply = signedBy(pki->delegate, pki->delegate_key);
    wantGoodOnly(&reply);
    reply.by_key = 1;
    wantGoodOnly(&reply);
    reply.sent[0] = pki->root; /* the chain comes along, in any order */
    reply.sent[1] = pki->ca;
    reply.sent[2] = pki->delegate;
    wantGoodOnly(&reply);
}

TEST(responder_certificateNotIncluded, "6") {
    testReply reply = signedBy(pki->delegate, pki->delegate_key);
    reply.sent[0] = NULL;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(responder_withoutOcspSigning, "6") {
    testReply reply = signedBy(pki->delegate_no_eku, pki->delegate_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
    X509 *any = testCert(&(testCertSpec){.name = "Responder",
                                         .issuer = pki->ca,
                                         .issuer_key = pki->ca_key,
                                         .key = pki->delegate_key,
                                         .extended = "anyExtendedKeyUsage"});
    X509 *none = testCert(
        &(testCertSpec){.name = "Responder", .issuer = pki->ca, .issuer_key = pki->ca_key, .key = pki->delegate_key});
    reply = signedBy(any, pki->delegate_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply = signedBy(none, pki->delegate_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
    X509_free(any);
    X509_free(none);
}

/* Found by the fuzzer: OpenSSL's arithmetic takes a UTCTime without seconds, its verification and clients do not. */
TEST(responder_malformedNotBefore, "6") {
    ASN1_TIME *odd = ASN1_TIME_new();
    X509 *delegate = X509_dup(pki->delegate);
    testReply reply = goodReply();
    assert_true(odd && delegate && ASN1_STRING_set(odd, "3001010000Z", -1));
    odd->type = V_ASN1_UTCTIME;
    assert_true(X509_set1_notBefore(delegate, odd) && X509_sign(delegate, pki->ca_key, EVP_sha256()) > 0);
    reply.signer = reply.sent[0] = delegate;
    reply.key = pki->delegate_key;
    wantRefused(&reply, OCSP_ERR_VERIFY);
    ASN1_TIME_free(odd);
    X509_free(delegate);
}

/* RFC 6960 section 4.2.2.1 takes RFC 5280's times. */
TEST(dates_fractionalSecondsAreRejected, "9") {
    testReply reply = goodReply();
    reply.entries[0].this_text = "20300101000000.5Z";
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply = goodReply();
    reply.entries[0].next_text = "20400101000000.5Z";
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(responder_ofAnotherCa, "6") {
    testReply reply = signedBy(pki->delegate_foreign, pki->delegate_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.sent[1] = pki->twin; /* its CA, with the name of ours, sent along */
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

/* RFC 6960 §4.2.2.2: "issued directly by the CA that issued the certificate in question"; our own root is not that
 * CA. */
TEST(responder_ofTheRootAboveTheIssuer, "6") {
    testReply reply = signedBy(pki->delegate_root, pki->delegate_key);
    reply.sent[1] = pki->root;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(responder_issuedByAResponder, "6") {
    X509 *second = testCert(&(testCertSpec){.name = "Second",
                                            .issuer = pki->delegate,
                                            .issuer_key = pki->delegate_key,
                                            .key = testEcKey(6),
                                            .extended = "OCSPSigning"});
    testReply reply = signedBy(second, testEcKey(6));
    reply.sent[1] = pki->delegate;
    wantRefused(&reply, OCSP_ERR_VERIFY);
    X509_free(second);
}

TEST(signer_rootIsNotTheIssuer, "6") {
    testReply reply = signedBy(pki->root, pki->root_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(signer_certificateItself, "6") {
    testReply reply = signedBy(pki->leaf, pki->leaf_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(signer_otherCaOfTheIssuersName, "6") {
    testReply reply = signedBy(pki->twin, pki->twin_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.by_key = 1;
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.responder = pki->ca; /* and says that it is ours */
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(responder_withTheIssuersResponderId, "6") {
    testReply reply = signedBy(pki->delegate, pki->delegate_key);
    reply.responder = pki->ca;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(responder_sameNameOtherKeyDoesNotHideTheRightOne, "6") {
    testReply reply = signedBy(pki->delegate, pki->delegate_key);
    reply.sent[0] = testCert(&(testCertSpec){.name = "Responder",
                                             .issuer = pki->ca,
                                             .issuer_key = pki->ca_key,
                                             .key = testEcKey(6),
                                             .extended = "OCSPSigning"});
    reply.sent[1] = pki->delegate;
    wantGoodOnly(&reply);
    X509_free(reply.sent[0]);
}

TEST(responder_expired, "6") {
    testReply reply = signedBy(pki->delegate_expired, pki->delegate_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(responder_notYetValid, "6") {
    X509 *early = testCert(&(testCertSpec){.name = "Responder",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->delegate_key,
                                           .extended = "OCSPSigning",
                                           .not_before = TEST_NOW + 1000});
    testReply reply = signedBy(early, pki->delegate_key);
    wantRefused(&reply, OCSP_ERR_VERIFY);
    X509_free(early);
}

/* Some responders make their delegate together with the answer, with a clock like that of thisUpdate. */
TEST(responder_beginsWithinTheClockSkew, "6") {
    X509 *fresh = testCert(&(testCertSpec){.name = "Responder",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->delegate_key,
                                           .extended = "OCSPSigning",
                                           .not_before = TEST_NOW + OCSP_CLOCK_SKEW});
    testReply reply = signedBy(fresh, pki->delegate_key);
    wantGoodOnly(&reply);
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
                                              .key = pki->delegate_key,
                                              .extended = "OCSPSigning",
                                              .key_usage = rows[i].usage});
        testReply reply = signedBy(cert, pki->delegate_key);
        if (rows[i].good)
            wantGoodOnly(&reply);
        else
            wantRefused(&reply, OCSP_ERR_VERIFY);
        X509_free(cert);
    }
}

TEST(responder_unknownCriticalExtension, "6") {
    for (int critical = 0; critical < 2; critical++) {
        X509 *cert = testCert(&(testCertSpec){.name = "Responder",
                                              .issuer = pki->ca,
                                              .issuer_key = pki->ca_key,
                                              .key = pki->delegate_key,
                                              .extended = "OCSPSigning"});
        ASN1_OBJECT *kind = OBJ_txt2obj("1.3.6.1.4.1.99999.1", 1);
        ASN1_OCTET_STRING *value = ASN1_OCTET_STRING_new();
        assert_true(kind && value && ASN1_OCTET_STRING_set(value, (const unsigned char *)"\x05\x00", 2));
        X509_EXTENSION *extension = X509_EXTENSION_create_by_OBJ(NULL, kind, critical, value);
        assert_true(extension && X509_add_ext(cert, extension, -1) && X509_sign(cert, pki->ca_key, EVP_sha256()));
        testReply reply = signedBy(cert, pki->delegate_key);
        if (critical)
            wantRefused(&reply, OCSP_ERR_VERIFY);
        else
            wantGoodOnly(&reply);
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
    reply.entries[0].issuer = reply.signer = ca;
    reply.key = testRsaKey(1);
    reply.sign_md = EVP_md5();
    wantRefused(&reply, OCSP_ERR_VERIFY);
    ocspIdentityFree(leaf_id);
    leaf_id = ecdsa;
    X509_free(leaf);
    X509_free(ca);
}

TEST(signature_broken, "6") {
    testReply reply = goodReply();
    reply.break_signature = 1;
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply = signedBy(pki->delegate, pki->delegate_key);
    reply.break_signature = 1;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(issuer_unknown) {
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(pki->leaf, NULL);
    testReply reply = goodReply();
    wantRefused(&reply, OCSP_ERR_VERIFY);
    ocspIdentityFree(leaf_id);
    leaf_id = known;
}

/* ---- malformed and unsuccessful responses ------------------------------------------------------------------------ */

TEST(response_unsuccessfulStatus, "7") {
    static const int statuses[] = {1, 2, 3, 4, 5, 6, 7, 127}; /* 4 is not used by the RFC; 7 and 127 do not exist */
    for (size_t i = 0; i < 8; i++) {
        testReply reply = goodReply();
        reply.status = statuses[i];
        wantRefused(&reply, OCSP_ERR_RESPONSE);
    }
}

TEST(response_certStatusUnknown, "7") {
    testReply reply = goodReply();
    reply.entries[0].status = TEST_UNKNOWN;
    wantRefused(&reply, OCSP_ERR_RESPONSE);
}

TEST(der_emptyOneByteAndRandom, "7") {
    wantBytesRefused((const unsigned char *)"", 0, OCSP_ERR_RESPONSE);
    for (int c = 0; c < 256; c++) {
        unsigned char one = (unsigned char)c;
        wantBytesRefused(&one, 1, OCSP_ERR_RESPONSE);
    }
    wantBytesRefused((const unsigned char *)"<html>down</html>", 17, OCSP_ERR_RESPONSE);
    unsigned char noise[512];
    for (int i = 0; i < 2000; i++) {
        size_t n = testRandom() % sizeof(noise) + 1;
        for (size_t k = 0; k < n; k++) noise[k] = (unsigned char)testRandom();
        if (i % 2) noise[0] = 0x30;
        wantBytesRefused(noise, n, OCSP_ERR_RESPONSE);
    }
}

TEST(der_truncatedAtEveryLength, "7") {
    testReply reply = signedBy(pki->delegate, pki->delegate_key);
    testBytes der = testReplyDer(&reply);
    for (size_t n = 0; n < der.n; n++) {
        testBytes part = testCopy(der.p, n); /* a block of its own, so that AddressSanitizer sees its end */
        wantBytesRefused(part.p, part.n, OCSP_ERR_RESPONSE);
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
            wantBytesRefused(der.p, der.n, OCSP_ERR_RESPONSE);
            testBytesFree(&der);
        }
    }
    testBytes twice = testJoin(testReplyDer(&reply), testReplyDer(&reply));
    wantBytesRefused(twice.p, twice.n, OCSP_ERR_RESPONSE);
    testBytesFree(&twice);
}

/* OpenSSL's parser passes over them; strict clients do not. */
TEST(der_trailingBytesInsideTheOctetString, "7") {
    testReply reply = goodReply();
    for (reply.inner_tail = 1; reply.inner_tail <= 16; reply.inner_tail++) wantRefused(&reply, OCSP_ERR_RESPONSE);
}

TEST(der_berLengths, "7") {
    testReply reply = goodReply();
    testBytes der = testReplyDer(&reply);
    assert_true(der.p[1] == 0x82);
    testBytes longer = testJoin(testCopy("\x30\x83\x00", 3), testCopy(der.p + 2, der.n - 2));
    wantBytesRefused(longer.p, longer.n, OCSP_ERR_RESPONSE);
    testBytes endless = testJoin(testCopy("\x30\x80", 2), testCopy(der.p + 4, der.n - 4));
    endless = testJoin(endless, testCopy("\0\0", 2));
    wantBytesRefused(endless.p, endless.n, OCSP_ERR_RESPONSE);
    testBytesFree(&longer);
    testBytesFree(&endless);
    testBytesFree(&der);
}

/* A certificate keeps the bytes that it was read from: encoding the response again does not show that they are BER. */
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
    wantRefused(&reply, OCSP_ERR_RESPONSE);
    X509_free(reply.sent[0]);
    testBytesFree(&all);
    OPENSSL_free(der);
}

/* OpenSSL takes any byte but 0 for TRUE, where DER has 0xff alone, and Go's clients refuse the rest. */
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
            wantGoodOnly(&reply);
        else
            wantRefused(&reply, OCSP_ERR_RESPONSE);
        testBytesFree(&reply.extensions);
    }
}

TEST(response_successfulWithoutBytesOrOfAnotherType, "7") {
    testReply reply = goodReply();
    reply.bare = 1;
    wantRefused(&reply, OCSP_ERR_RESPONSE);
    reply = goodReply();
    reply.other_type = 1;
    wantRefused(&reply, OCSP_ERR_RESPONSE);
}

/* Not every byte is signed. Nothing crashes (the sanitizers watch), and what verifies here verifies for OpenSSL too. */
TEST(der_everyByteFlippedInTurn, "16") {
    testReply replies[2] = {goodReply(), signedBy(pki->delegate, pki->delegate_key)};
    int taken = 0, refused = 0;
    for (int r = 0; r < 2; r++) {
        testBytes der = testReplyDer(&replies[r]);
        assert_true(testJudge(der.p, der.n, pki->leaf, pki->ca, TEST_NOW)); /* the judge itself is sane */
        for (size_t i = 0; i < der.n; i++) {
            static const unsigned char masks[] = {0xff, 0x01, 0x80, 0x20};
            for (int m = 0; m < 4; m++) {
                ocspResponse got;
                ocspError err = {0};
                testBytes bad = testCopy(der.p, der.n);
                bad.p[i] ^= masks[m];
                if (ocspVerify((ocspBytes){bad.p, bad.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err)) {
                    taken++;
                    if (!testJudge(bad.p, bad.n, pki->leaf, pki->ca, TEST_NOW)) {
                        fail_msg("byte %zu ^ %02x of %zu: taken by us, not by OpenSSL", i, masks[m], bad.n);
                    }
                    ocspResponseClear(&got);
                } else {
                    refused++;
                    assert_true(err.kind == OCSP_ERR_RESPONSE || err.kind == OCSP_ERR_VERIFY);
                    assert_true(err.text[0] != '\0');
                }
                testBytesFree(&bad);
            }
        }
        testBytesFree(&der);
    }
    if (testEnvNumber("OCSP_TEST_VERBOSE", 0)) print_message("taken %d, refused %d\n", taken, refused);
    assert_true(refused > 10 * taken);
}

TEST(der_overTheSizeLimit) {
    testBytes big = testTag(0x30, testCopy(NULL, 0));
    unsigned char *block = calloc(1, OCSP_MAX_RESPONSE_BYTES + 1);
    big = testJoin(big, testCopy(block, OCSP_MAX_RESPONSE_BYTES));
    free(block);
    wantBytesRefused(big.p, big.n, OCSP_ERR_RESPONSE);
    testBytesFree(&big);
}

/* ---- which SingleResponse ---------------------------------------------------------------------------------------- */

TEST(singleResponse_amongSeveral, "8") {
    for (int ours = 0; ours < 4; ours++) {
        testReply reply = goodReply();
        X509 *others[] = {pki->rsa_leaf, pki->must_leaf, pki->quiet_leaf};
        testEntry mine = reply.entries[0];
        for (int i = 0, k = 0; i < 4; i++) {
            reply.entries[i] = mine;
            if (i != ours) {
                reply.entries[i].cert = others[k++];
                reply.entries[i].status = TEST_REVOKED; /* must not be taken for ours */
                reply.entries[i].next_update = TEST_NOW + 50;
            }
        }
        reply.count = 4;
        reply.produced_at = TEST_NOW - 60;
        ocspResponse got = wantGood(&reply);
        assert_int_equal(got.revoked, 0);
        assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
        assert_int_equal(got.produced_at, TEST_NOW - 60);
        ocspResponseClear(&got);
    }
}

TEST(singleResponse_badAmongGoodOnes, "8") {
    testReply reply = goodReply();
    reply.entries[1] = reply.entries[0];
    reply.entries[0].cert = pki->rsa_leaf;
    reply.count = 2;
    reply.entries[1].status = TEST_UNKNOWN;
    wantRefused(&reply, OCSP_ERR_RESPONSE);
    reply.entries[1].status = TEST_GOOD;
    reply.entries[1].next_update = TEST_NOW - 1;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(singleResponse_missing, "8") {
    testReply reply = goodReply();
    reply.count = 0;
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.entries[1] = reply.entries[0];
    reply.entries[0].cert = pki->rsa_leaf;
    reply.entries[1].cert = pki->must_leaf;
    reply.count = 2;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(certId_otherSerial, "8") {
    testReply reply = goodReply();
    reply.entries[0].cert = pki->renewed_leaf;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(certId_sameSerialOfAnotherIssuer, "8") {
    testReply reply = goodReply();
    reply.entries[0].cert = pki->foreign_leaf; /* the same serial */
    reply.entries[0].issuer = pki->twin;       /* the same name, another key */
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.entries[0].issuer = pki->root; /* another name */
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.entries[0].key_of = pki->ca; /* another name, our key */
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(certId_otherDigests, "8") {
    static const char *const hashes[] = {"SHA1", "SHA224", "SHA256", "SHA384", "SHA512"};
    for (int i = 0; i < 5; i++) {
        testReply reply = goodReply();
        reply.entries[0].md = EVP_get_digestbyname(hashes[i]);
        wantGoodOnly(&reply);
        reply.entries[0].key_of = pki->twin; /* a hash that is not judged would be no match at all */
        wantRefused(&reply, OCSP_ERR_VERIFY);
    }
}

TEST(certId_truncatedHashes, "8") {
    for (size_t cut = 1; cut <= 20; cut++) {
        testReply reply = goodReply();
        reply.entries[0].cut_hash = cut;
        wantRefused(&reply, OCSP_ERR_VERIFY);
    }
}

/* ---- dates ------------------------------------------------------------------------------------------------------- */

TEST(dates_thisUpdateInTheFuture, "9") {
    testReply reply = goodReply();
    static const struct { int ahead, good; } rows[] = {{200, 1}, {299, 1}, {300, 1}, {301, 0}, {400, 0}, {86400, 0}};
    for (size_t i = 0; i < 6; i++) {
        reply.entries[0].this_update = TEST_NOW + rows[i].ahead;
        reply.entries[0].next_update = TEST_NOW + 2 * TEST_DAY;
        if (rows[i].good)
            wantGoodOnly(&reply);
        else
            wantRefused(&reply, OCSP_ERR_VERIFY);
        reply.entries[0].next_update = 0;
        if (rows[i].good)
            wantGoodOnly(&reply);
        else
            wantRefused(&reply, OCSP_ERR_VERIFY);
    }
}

TEST(dates_nextUpdateInThePast, "9") {
    testReply reply = goodReply();
    static const struct { int ahead, good; } rows[] = {{1, 1}, {0, 0}, {-1, 0}, {-3000, 0}};
    for (size_t i = 0; i < 4; i++) {
        reply.entries[0].next_update = TEST_NOW + rows[i].ahead;
        if (rows[i].good)
            wantGoodOnly(&reply);
        else
            wantRefused(&reply, OCSP_ERR_VERIFY);
    }
}

TEST(dates_nextUpdateBeforeThisUpdate, "9") {
    testReply reply = goodReply();
    reply.entries[0].this_update = TEST_NOW + 200;
    reply.entries[0].next_update = TEST_NOW + 100;
    wantRefused(&reply, OCSP_ERR_VERIFY);
}

TEST(dates_noNextUpdateIsValidTenMinutesFromReceipt, "9") {
    testReply reply = goodReply();
    reply.entries[0].next_update = 0;
    reply.entries[0].this_update = TEST_NOW - 30 * TEST_DAY; /* its age does not count */
    ocspResponse got = wantGood(&reply);
    assert_int_equal(got.next_update, 0);
    assert_int_equal(got.expires_at, TEST_NOW + 600);
    ocspResponseClear(&got);

    /* From a file: from its mtime. One from the future is not believed, or each restart would begin the life anew. */
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
            assert_int_equal(err.kind, OCSP_ERR_VERIFY);
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
    ocspResponse got = wantGood(&reply);
    assert_int_equal(got.expires_at, TEST_NOW + 1234);
    assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
    ocspResponseClear(&got);
    ocspIdentityFree(leaf_id);
    leaf_id = known;
    X509_free(brief);
}

TEST(dates_signerEndsBeforeNextUpdate, "9") {
    testReply reply = signedBy(pki->delegate_short, pki->delegate_key);
    ocspResponse got = wantGood(&reply);
    assert_int_equal(got.expires_at, TEST_NOW + 100);
    assert_int_equal(got.next_update, TEST_NOW + TEST_DAY);
    ocspResponseClear(&got);

    ocspError err = {0};
    testBytes der = testReplyDer(&reply);
    assert_true(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW + 99, TEST_NOW, &got, &err));
    ocspResponseClear(&got);
    assert_false(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW + 100, TEST_NOW, &got, &err));
    assert_int_equal(err.kind, OCSP_ERR_VERIFY);
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
    wantRefused(&reply, OCSP_ERR_VERIFY);
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
                reply.entries[0].next_text = bad[i];
            else
                reply.entries[0].this_text = bad[i];
            testBytes der = testReplyDer(&reply);
            if (ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err)) {
                fail_msg("took the date \"%s\"", bad[i]);
            }
            assert_true(err.kind == OCSP_ERR_VERIFY || err.kind == OCSP_ERR_RESPONSE);
            testBytesFree(&der);
        }
    }
}

TEST(dates_extreme, "9") {
    testReply reply = goodReply();
    reply.entries[0].next_text = "99991231235959Z"; /* RFC 5280's "no end" */
    ocspResponse got = wantGood(&reply);
    assert_true(got.next_update == (time_t)253402300799);
    assert_int_equal(got.expires_at, TEST_NOW + 365 * TEST_DAY);
    ocspResponseClear(&got);
    reply.entries[0].this_text = "19500101000000Z"; /* before 1970 */
    got = wantGood(&reply);
    assert_int_equal(got.this_update, -631152000);
    ocspResponseClear(&got);
    reply.entries[0].next_text = "19700101000000Z"; /* 0 must not be taken for "not given" */
    wantRefused(&reply, OCSP_ERR_VERIFY);
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
                {"1.3.6.1.5.5.7.48.1.7", 0}, /* service locator, which belongs into requests */
                {"2.5.29.29", 0}};           /* certificateIssuer, which changes whom an entry is about */
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int critical = 0; critical < 2; critical++) {
            for (int where = 0; where < 3; where++) {
                testReply reply = goodReply();
                testBytes der = extension(rows[i].oid, critical);
                reply.entries[1] = reply.entries[0];
                reply.entries[1].cert = pki->rsa_leaf;
                reply.count = 2;
                if (where == 2)
                    reply.extensions = der;
                else
                    reply.entries[where].extensions = der; /* the second one is another certificate's */
                if (rows[i].harmless || !critical)
                    wantGoodOnly(&reply);
                else
                    wantRefused(&reply, OCSP_ERR_VERIFY);
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
        {EVP_sha256(), 0, NULL, pki->delegate_key, 1},     {EVP_sha1(), 0, NULL, pki->delegate_key, 1},
        {EVP_md5(), 0, NULL, pki->delegate_key, 0},        {EVP_sha256(), 1, NULL, pki->delegate_key, 1},
        {EVP_md5(), 1, NULL, pki->delegate_key, 0},        {EVP_sha256(), 0, NULL, short_key, 0},
        {EVP_sha256(), 0, EVP_sha256(), testRsaKey(2), 1}, {EVP_sha256(), 0, EVP_sha1(), testRsaKey(2), 1},
        {EVP_sha256(), 0, EVP_md5(), testRsaKey(2), 0},
    };
    ocspIdentity *known = leaf_id;
    leaf_id = testIdentity(leaf, ca);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        X509 *responder = responderSignedWith(ca, ca_key, rows[i].key, rows[i].md, rows[i].pss);
        testReply reply = testGoodReply(leaf);
        reply.entries[0].issuer = ca;
        reply.signer = reply.sent[0] = responder;
        reply.key = rows[i].key;
        reply.pss_md = rows[i].reply_pss;
        if (rows[i].good)
            wantGoodOnly(&reply);
        else
            wantRefused(&reply, OCSP_ERR_VERIFY);
        X509_free(responder);
    }
    ocspIdentityFree(leaf_id);
    leaf_id = known;
    X509_free(leaf);
    X509_free(ca);
    EVP_PKEY_free(short_key);
}

/* ---- bounds on the work ------------------------------------------------------------------------------------------ */

/* The most that is allowed for one response, whatever is in it. */
static void wantLittleWork(const testReply *reply, int verifications, int certids, int parsed) {
    testCountFromZero();
    wantRefused(reply, OCSP_ERR_VERIFY);
    if (test_verifications > verifications || test_certids > certids || test_parsed > parsed)
        fail_msg("%d verifications, %d CertIDs, %d parsed; at most %d, %d, %d were due", test_verifications,
                 test_certids, test_parsed, verifications, certids, parsed);
}

static void wantNoWork(const testReply *reply) {
    testCountFromZero();
    wantRefused(reply, OCSP_ERR_RESPONSE);
    assert_int_equal(test_verifications, 0);
    assert_int_equal(test_certids, 0);
    assert_int_equal(test_parsed, 0);
}

/* Certificates that bear the responder's name and are not the CA's: whoever answers a handshake can send them. */
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
    reply.entries[0].issuer = ca;
    reply.signer = certified;
    reply.key = testEcKey(6); /* signed by none of them */

    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = junk;
    wantLittleWork(&reply, 4, 1, 1); /* each time the certificate's own signature */
    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = not_for_that;
    wantLittleWork(&reply, 0, 1, 1); /* cheap checks come first */
    reply.sent[0] = reply.sent[2] = certified;
    reply.sent[1] = reply.sent[3] = again;
    wantLittleWork(&reply, 5, 1, 1); /* the same key is tried once */
    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = junk;
    reply.sent_repeat = 1; /* eight may come along, but five that are named may not */
    wantLittleWork(&reply, 0, 1, 1);
    reply.sent_repeat = 2; /* twelve, and then two hundred: not even parsed */
    wantNoWork(&reply);
    reply.sent_repeat = 49;
    wantNoWork(&reply);

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

/* By key: whoever is named has the key of the signer, so that one signature says all. */
TEST(work_manyCertificatesOfTheSignersKey) {
    testReply reply = signedBy(pki->delegate, pki->delegate_key);
    reply.sent[0] = reply.sent[1] = reply.sent[2] = reply.sent[3] = pki->delegate;
    reply.by_key = reply.break_signature = 1;
    wantLittleWork(&reply, 5, 1, 1);
}

TEST(work_manySingleResponses) {
    testReply reply = goodReply();
    reply.entries[0].cert = pki->foreign_leaf; /* our serial, of another issuer */
    reply.entries[0].issuer = pki->twin;
    reply.entries[1] = reply.entries[2] = reply.entries[3] = reply.entries[0];
    reply.entries[1].md = EVP_sha256();
    reply.entries[2].md = EVP_sha384();
    reply.entries[3].md = EVP_sha512();
    reply.count = 4;
    reply.repeat = 15;
    wantLittleWork(&reply, 0, 4, 1); /* 64 entries, four digests */
    reply.repeat = 16;
    wantNoWork(&reply);
    reply.repeat = 150;
    wantNoWork(&reply);
    reply.repeat = 3;
    for (int i = 0; i < 4; i++) reply.entries[i].cert = pki->rsa_leaf; /* the serial alone says no */
    wantLittleWork(&reply, 0, 0, 1);
    reply = goodReply();
    reply.entries[0].cert = pki->rsa_leaf;
    reply.repeat = 63;
    wantLittleWork(&reply, 0, 0, 1);
}

TEST(work_manyCertIdDigests) {
    static const char *const digests[] = {"SHA224", "SHA256", "SHA384", "SHA512"};
    testReply reply = goodReply();
    for (int i = 0; i < 4; i++) {
        reply.entries[i] = reply.entries[0];
        reply.entries[i].md = EVP_get_digestbyname(digests[i]);
    }
    reply.count = 4;
    wantGoodOnly(&reply);
    reply.entries[4] = reply.entries[0];
    reply.entries[4].md = EVP_sha1();
    reply.count = 5;
    wantLittleWork(&reply, 0, 4, 1);
}

/* Values of any kind are bounded: here an extension's, which nobody reads. */
TEST(work_manyDerValues) {
    testReply reply = goodReply();
    testBytes one = extension("1.3.6.1.4.1.99999.1", 0), many = testCopy("", 0);
    for (int i = 0; i < 1300; i++) many = testJoin(many, testCopy(one.p, one.n));
    reply.extensions = many;
    wantGoodOnly(&reply); /* some 3900 values */
    for (int i = 0; i < 200; i++) many = testJoin(many, testCopy(one.p, one.n));
    reply.extensions = many;
    wantNoWork(&reply);
    testBytesFree(&one);
    testBytesFree(&many);
}

/* Which failures may be remembered, and for how long. */
TEST(error_mayChangeAt) {
    testReply replies[] = {goodReply(), goodReply(), goodReply(), signedBy(pki->delegate, pki->delegate_key)};
    X509 *early = testCert(&(testCertSpec){.name = "Responder",
                                           .issuer = pki->ca,
                                           .issuer_key = pki->ca_key,
                                           .key = pki->delegate_key,
                                           .extended = "OCSPSigning",
                                           .not_before = TEST_NOW + 1000});
    const int64_t until[] = {OCSP_NEVER, OCSP_NEVER, TEST_NOW + 700, TEST_NOW + 700};
    replies[0].break_signature = 1;
    replies[1].entries[0].next_update = TEST_NOW - 1;
    replies[2].entries[0].this_update = TEST_NOW + 1000;
    replies[3].signer = replies[3].sent[0] = early;
    for (int i = 0; i < 4; i++) {
        ocspResponse got;
        ocspError err = {0};
        testBytes der = testReplyDer(&replies[i]);
        assert_false(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err));
        assert_true(err.may_change_at == until[i]);
        testBytesFree(&der);
    }
    X509_free(early);
}

/* ---- several SingleResponses ------------------------------------------------------------------------------------- */

/* A second entry that says good of another time hides none that says good of now. Revoked and unknown are as strict as
 * when they are alone. */
TEST(singleResponses_invalidGoodOneHidesNone) {
    static const struct {
        testStatus status;
        int this_update, next_update, good;
    } rows[] = {
        {TEST_GOOD, 1000, 2000, 1}, /* lies in the future */
        {TEST_GOOD, -1000, -10, 1}, /* newer, and has expired */
        {TEST_GOOD, -7200, -10, 1}, /* older, and has expired */
        {TEST_REVOKED, 1000, 2000, 0},  {TEST_REVOKED, -1000, -10, 0},
        {TEST_UNKNOWN, -1000, 1000, 0}, {TEST_REVOKED, -7200, 1000, 1}, /* an older one, as ever */
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        for (int first = 0; first < 2; first++) {
            testReply reply = goodReply();
            reply.count = 2;
            reply.produced_at = TEST_NOW;
            reply.entries[1] = reply.entries[0];
            reply.entries[first].status = rows[i].status;
            reply.entries[first].this_update = TEST_NOW + rows[i].this_update;
            reply.entries[first].next_update = TEST_NOW + rows[i].next_update;
            testBytes der = testReplyDer(&reply);
            ocspResponse got;
            ocspError err = {0};
            int ok = ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err);
            if (ok != rows[i].good) fail_msg("row %zu: %s", i, ok ? "taken" : err.text);
            if (ok) {
                assert_int_equal(got.revoked, 0);
                assert_int_equal(got.this_update, TEST_NOW - 3600);
                ocspResponseClear(&got);
            }
            testBytesFree(&der);
        }
    }
    testReply reply = goodReply(); /* none for now: the newest says why */
    reply.count = 2;
    reply.entries[0].next_update = TEST_NOW - 10;
    reply.entries[1] = reply.entries[0];
    reply.entries[1].this_update -= 60;
    testBytes der = testReplyDer(&reply);
    ocspResponse got;
    ocspError err = {0};
    assert_false(ocspVerify((ocspBytes){der.p, der.n}, leaf_id, TEST_NOW, TEST_NOW, &got, &err));
    assert_int_equal(err.expired, 1);
    testBytesFree(&der);
}

/* Go's clients and NSS read every time in a response. */
TEST(dates_everyOneInTheResponseIsStrict) {
    testReply reply = goodReply();
    reply.produced_text = "20300101000000.5Z";
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.produced_text = "20300101000000Z";
    wantGoodOnly(&reply);
    reply = goodReply();
    reply.entries[0].status = TEST_REVOKED;
    reply.entries[0].revoked_text = "20290101000000.25Z";
    wantRefused(&reply, OCSP_ERR_VERIFY);
    reply.entries[0].revoked_text = "20290101000000Z";
    wantGoodOnly(&reply);
    for (int which = 0; which < 3; which++) { /* in an entry about another certificate */
        reply = goodReply();
        reply.count = 2;
        reply.entries[1] = reply.entries[0];
        reply.entries[1].cert = pki->rsa_leaf;
        reply.entries[1].status = TEST_REVOKED;
        wantGoodOnly(&reply);
        if (which == 0) reply.entries[1].this_text = "20300101000000.5Z";
        if (which == 1) reply.entries[1].next_text = "20400101000000.5Z";
        if (which == 2) reply.entries[1].revoked_text = "20290101000000.5Z";
        wantRefused(&reply, OCSP_ERR_VERIFY);
    }
}

/* ---- revoked ----------------------------------------------------------------------------------------------------- */

TEST(revoked_isAValidResponse) {
    testReply reply = goodReply();
    reply.entries[0].status = TEST_REVOKED;
    reply.entries[0].revoked_at = TEST_NOW - 7200;
    ocspResponse got = wantGood(&reply);
    assert_int_equal(got.revoked, 1);
    assert_int_equal(got.revocation_reason, -1);
    assert_int_equal(got.revoked_at, TEST_NOW - 7200);
    ocspResponseClear(&got);
    reply.entries[0].reason = 1 + OCSP_REVOKED_STATUS_CERTIFICATEHOLD;
    got = wantGood(&reply);
    assert_int_equal(got.revocation_reason, OCSP_REVOKED_STATUS_CERTIFICATEHOLD);
    ocspResponseClear(&got);
    reply.entries[0].reason = 1 + OCSP_REVOKED_STATUS_UNSPECIFIED;
    got = wantGood(&reply);
    assert_int_equal(got.revocation_reason, OCSP_REVOKED_STATUS_UNSPECIFIED);
    ocspResponseClear(&got);
}

/* Two entries for our certificate of equal age: knowing better wins, whatever their order. */
TEST(singleResponses_revokedWinsAtAnEqualThisUpdate) {
    for (int revoked_at = 0; revoked_at < 2; revoked_at++) {
        testReply reply = goodReply();
        reply.entries[1] = reply.entries[0];
        reply.entries[revoked_at].status = TEST_REVOKED;
        reply.count = 2;
        ocspResponse got = wantGood(&reply);
        assert_int_equal(got.revoked, 1);
        ocspResponseClear(&got);
    }
}

/* Of two entries of different age the newer one counts, whatever it says and wherever it stands. */
TEST(singleResponses_newerWins) {
    for (int newer_at = 0; newer_at < 2; newer_at++) {
        for (int newer_revoked = 0; newer_revoked < 2; newer_revoked++) {
            testReply reply = goodReply();
            reply.count = 2;
            reply.entries[1] = reply.entries[0];
            reply.entries[1 - newer_at].this_update -= 60;
            reply.entries[newer_revoked ? newer_at : 1 - newer_at].status = TEST_REVOKED;
            ocspResponse got = wantGood(&reply);
            assert_int_equal(got.revoked, newer_revoked);
            assert_int_equal(got.this_update, reply.entries[newer_at].this_update);
            ocspResponseClear(&got);
        }
    }
}

/* Clients look for SHA-1: it counts as soon as one CertID for this certificate has it, and others' CertIDs do not count. */
TEST(certId_digestIsReported) {
    const EVP_MD *const digests[] = {NULL, EVP_sha256(), EVP_sha384(), EVP_sha512()};
    const int expected[] = {NID_sha1, NID_sha256, NID_sha384, NID_sha512};
    for (int i = 0; i < 4; i++) {
        testReply reply = goodReply();
        reply.entries[0].md = digests[i];
        ocspResponse got = wantGood(&reply);
        assert_int_equal(got.certid_digest, expected[i]);
        ocspResponseClear(&got);
    }
    for (int sha1_at = 0; sha1_at < 2; sha1_at++) {
        for (int sha1_newer = 0; sha1_newer < 2; sha1_newer++) {
            testReply reply = goodReply();
            reply.count = 2;
            reply.entries[1] = reply.entries[0];
            reply.entries[1 - sha1_at].md = EVP_sha256();
            reply.entries[sha1_newer ? 1 - sha1_at : sha1_at].this_update -= 60;
            ocspResponse got = wantGood(&reply);
            assert_int_equal(got.certid_digest, NID_sha1);
            ocspResponseClear(&got);
            reply.entries[sha1_at].cert = pki->rsa_leaf;
            got = wantGood(&reply);
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
            ocspResponse held = made(TEST_NOW - 100, was), newer = made(TEST_NOW - 99, is),
                         older = made(TEST_NOW - 101, is);
            assert_int_equal(ocspCompare(&none, &newer, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&held, &newer, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&held, &older, TEST_NOW), OCSP_FRESH_OLDER);
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

/* CAs that round thisUpdate to the hour: within it the later producedAt counts, so that a lifted hold is seen, and so
 * that an answer from before it, replayed, is not. */
TEST(compare_byProducedAtAtAnEqualThisUpdate) {
    ocspResponse none = {0};
    for (int was = 0; was < 2; was++) {
        for (int is = 0; is < 2; is++) {
            ocspResponse held = made(TEST_NOW - 1000, was), later = made(TEST_NOW - 1000, is),
                         earlier = made(TEST_NOW - 1000, is), older = made(TEST_NOW - 1001, is);
            held.produced_at = TEST_NOW - 100;
            later.produced_at = older.produced_at = TEST_NOW - 40;
            earlier.produced_at = TEST_NOW - 160;
            assert_int_equal(ocspCompare(&none, &later, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&held, &later, TEST_NOW), OCSP_FRESH_NEWER);
            assert_int_equal(ocspCompare(&held, &earlier, TEST_NOW), was == is ? OCSP_FRESH_SAME : OCSP_FRESH_OLDER);
            assert_int_equal(ocspCompare(&held, &older, TEST_NOW), OCSP_FRESH_OLDER); /* thisUpdate comes first */
        }
    }
}

/* What has expired is no measure any more, but for two things: a revocation, and the ten minutes of a replayed
 * answer. */
TEST(compare_withAnExpiredResponse) {
    ocspResponse held = made(TEST_NOW - 100, 0), older = made(TEST_NOW - 200, 0);
    held.expires_at = held.next_update = TEST_NOW;
    assert_int_equal(ocspCompare(&held, &older, TEST_NOW - 1), OCSP_FRESH_OLDER);
    assert_int_equal(ocspCompare(&held, &older, TEST_NOW), OCSP_FRESH_NEWER);
    held.revoked = 1;
    assert_int_equal(ocspCompare(&held, &older, TEST_NOW), OCSP_FRESH_OLDER);

    ocspResponse endless = made(TEST_NOW - 1000, 0), replayed = endless;
    endless.next_update = replayed.next_update = 0;
    endless.expires_at = TEST_NOW;
    replayed.expires_at = TEST_NOW + 600;
    assert_int_equal(ocspCompare(&endless, &replayed, TEST_NOW), OCSP_FRESH_SAME);
}

/* Held from a time when the clock was a day ahead: what the responder says now is not older than that. */
TEST(compare_withAResponseFromTheFuture, "14") {
    ocspResponse held = made(TEST_NOW + TEST_DAY, 0), fresh = made(TEST_NOW - 10, 0);
    held.expires_at = held.next_update = TEST_NOW + 2 * TEST_DAY;
    assert_int_equal(ocspCompare(&held, &fresh, TEST_NOW), OCSP_FRESH_NEWER);
    held.this_update = TEST_NOW + OCSP_CLOCK_SKEW; /* no more than the skew that any response may have */
    assert_int_equal(ocspCompare(&held, &fresh, TEST_NOW), OCSP_FRESH_OLDER);
}

/* ---- ocspPeekNextUpdate ------------------------------------------------------------------------------------------ */

TEST(peek_findsTheLatestNextUpdate) {
    testReply reply = goodReply();
    reply.entries[1] = reply.entries[0];
    reply.entries[1].next_update = TEST_NOW + 5 * TEST_DAY;
    reply.entries[2] = reply.entries[0];
    reply.count = 3;
    reply.break_signature = 1; /* nothing is verified here */
    testBytes der = testReplyDer(&reply);
    assert_int_equal(ocspPeekNextUpdate(der.p, der.n), TEST_NOW + 5 * TEST_DAY);
    testBytesFree(&der);
    reply.entries[2].next_update = 0;
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
