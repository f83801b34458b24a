/* response.c - fuzz target: an OCSP response, to ocspVerify and ocspPeekNextUpdate, for a constant certificate. Each
 * accepted response is checked again by OpenSSL's OCSP_basic_verify with the issuer as the only anchor, by the DER
 * parser of der.c, and by the engine at other times and for another CA of the same name.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

/* Returns 1 if the SingleResponses name more than one issuer, or one issuer with different digests. RFC 6960 allows
 * this, and the engine checks the matching SingleResponse only; OpenSSL then requires a globally trusted signer. */
static int severalIssuers(OCSP_BASICRESP *basic) {
    ASN1_OCTET_STRING *name, *key, *first_name, *first_key;
    ASN1_OBJECT *md, *first_md;
    int i;

    for (i = 0; i < OCSP_resp_count(basic); i++) {
        OCSP_CERTID *id = (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(OCSP_resp_get0(basic, i));
        OCSP_id_get0_info(&name, &md, &key, NULL, id);
        if (i == 0) first_name = name, first_key = key, first_md = md;
        if (OBJ_cmp(md, first_md) != 0 || ASN1_OCTET_STRING_cmp(name, first_name) != 0 ||
            ASN1_OCTET_STRING_cmp(key, first_key) != 0)
            return 1;
    }
    return 0;
}

/* OCSP_basic_verify gets each candidate signer alone, the issuer and the included certificates: of several with one
 * name it would try only the first. */
int fuzzSignedForIssuer(OCSP_BASICRESP *basic, X509 *issuer, time_t at) {
    const STACK_OF(X509) *sent = OCSP_resp_get0_certs(basic);
    X509_STORE *anchor = testStore(issuer, NULL);
    X509_VERIFY_PARAM *param = X509_STORE_get0_param(anchor);
    int i, ok = 0, mixed = severalIssuers(basic), count = sent ? sk_X509_num(sent) : 0;

    X509_VERIFY_PARAM_set_time(param, at);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
    for (i = -1; i < count && !ok; i++) {
        STACK_OF(X509) *one = testStack(i < 0 ? issuer : sk_X509_value(sent, i), NULL, NULL);
        ok = OCSP_basic_verify(basic, one, anchor, OCSP_NOINTERN | (mixed ? OCSP_NOCHECKS : 0)) == 1;
        sk_X509_free(one);
    }
    X509_STORE_free(anchor);
    return ok;
}

/* Paths in an OCSPResponse to the BasicOCSPResponse, the included certificates, and the first of these. */
static const int basic_path[] = {1, 0, 1, 0, -1}, certs_path[] = {1, 0, 1, 0, 3, 0, -1},
                 first_path[] = {1, 0, 1, 0, 3, 0, 0, -1};

/* Checks that the SingleResponse accepted at TEST_NOW is not accepted at the time `at`. */
static void checkNotAcceptedAt(const uint8_t *data, size_t size, const ocspResponse *r, time_t at) {
    ocspResponse other;
    ocspError err = {0};

    if (ocspVerify((ocspBytes){data, size}, fuzzGetPki()->id, at, TEST_NOW, &other, &err)) {
        fuzzCheck(other.this_update != r->this_update || other.expires_at != r->expires_at);
        ocspResponseClear(&other);
    } else {
        fuzzCheckError(&err);
    }
}

static void checkAccepted(const uint8_t *data, size_t size, const ocspResponse *r) {
    const fuzzPki *pki = fuzzGetPki();
    const unsigned char *p = data;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)size);
    OCSP_BASICRESP *basic;
    unsigned char *again = NULL;
    ocspResponse other;
    ocspError err = {0};
    time_t peek;
    size_t inner;

    fuzzCheck(r->len == size && memcmp(r->der, data, size) == 0);
    fuzzCheck(size <= OCSP_MAX_RESPONSE_BYTES && fuzzIsDer(data, size));
    inner = fuzzDerFind(data, size, basic_path); /* in an OCTET STRING, which fuzzIsDer does not parse */
    fuzzCheck(inner != (size_t)-1 && fuzzIsDer(data + inner, fuzzDerNext(data, size, inner) - inner));
    fuzzCheck(response && p == data + size && OCSP_response_status(response) == OCSP_RESPONSE_STATUS_SUCCESSFUL);
    fuzzCheck(i2d_OCSP_RESPONSE(response, &again) == (int)size && memcmp(again, data, size) == 0);
    OPENSSL_free(again);
    basic = OCSP_response_get1_basic(response);
    /* The second time is for a responder whose notBefore is within the clock skew, which OpenSSL does not allow. */
    fuzzCheck(basic && (fuzzSignedForIssuer(basic, pki->ca, TEST_NOW) ||
                        fuzzSignedForIssuer(basic, pki->ca, TEST_NOW + OCSP_CLOCK_SKEW)));
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();

    fuzzCheck(r->this_update <= TEST_NOW + OCSP_CLOCK_SKEW && r->expires_at > TEST_NOW);
    fuzzCheck(!r->next_update || (r->expires_at <= r->next_update && r->next_update >= r->this_update));
    fuzzCheck(r->next_update || r->expires_at <= TEST_NOW + OCSP_DEFAULT_VALIDITY);
    fuzzCheck(r->expires_at <= pki->id->not_after);
    fuzzCheck(r->revoked == 0 || r->revoked == 1);
    peek = ocspPeekNextUpdate(data, size);
    fuzzCheck(peek == 0 || (r->next_update && peek >= r->next_update)); /* never pruned too early */

    /* In the last second of validity, right after it and before it started: then only another SingleResponse for the
     * same certificate can be accepted instead. */
    fuzzCheck(ocspVerify((ocspBytes){data, size}, pki->id, r->expires_at - 1, TEST_NOW, &other, &err));
    fuzzCheck(
        other.this_update > r->this_update ||
        (other.expires_at == r->expires_at && other.this_update == r->this_update && other.revoked == r->revoked));
    ocspResponseClear(&other);
    checkNotAcceptedAt(data, size, r, r->expires_at);
    checkNotAcceptedAt(data, size, r, r->this_update - OCSP_CLOCK_SKEW - 1);
    /* It is no response for the certificate of the other CA of this name. */
    fuzzCheck(!ocspVerify((ocspBytes){data, size}, pki->twin_id, TEST_NOW, TEST_NOW, &other, &err));
    fuzzCheckError(&err);
}

/* What was accepted can be described: in full, in lines without control bytes. */
static void checkText(const uint8_t *data, size_t size, const ocspResponse *r) {
    const fuzzPki *pki = fuzzGetPki();
    ocspStaple staple = {.leaf = pki->id->leaf,
                         .issuer = pki->id->issuer,
                         .expires_at = r->expires_at,
                         .der = (unsigned char *)data,
                         .len = size};
    static char text[OCSP_TEXT_MAX];
    const char *p;

    fuzzCheck(ocspResponseText(&staple, TEST_NOW, text, sizeof(text)));
    fuzzCheck(strstr(text, r->revoked ? "\ncertStatus: revoked\n" : "\ncertStatus: good\n") != NULL);
    fuzzCheck(strstr(text, "\nsigner: unknown\n") == NULL);
    fuzzCheck(strlen(text) + 1 < sizeof(text) && strstr(text, "bytes\n") != NULL);
    for (p = text; *p; p++) fuzzCheck(*p == '\n' || (*p >= 32 && *p < 127));
    fuzzCheckQueue();
}

static void one(const uint8_t *data, size_t size) {
    const fuzzPki *pki = fuzzGetPki();
    const ocspResponse nothing = {0};
    ocspResponse r;
    ocspError err = {0};

    ERR_clear_error();
    testCountFromZero();
    if (ocspVerify((ocspBytes){data, size}, pki->id, TEST_NOW, TEST_NOW, &r, &err)) {
        fuzzCheck(test_verifications <= OCSP_MAX_VERIFICATIONS);
        fuzzCheckQueue();
        checkAccepted(data, size, &r);
        checkText(data, size, &r);
        ocspResponseClear(&r);
    } else {
        fuzzCheck(test_verifications <= OCSP_MAX_VERIFICATIONS);
        fuzzCheckError(&err);
        fuzzCheck(err.kind == OCSP_ERR_RESPONSE || err.kind == OCSP_ERR_VERIFY);
        fuzzCheck(memcmp(&r, &nothing, sizeof(r)) == 0);
        fuzzCheck(ocspPeekNextUpdate(data, size) >= -1);
    }
    fuzzCheckQueue();
}

/* Mutates inside the DER, then usually renews the invalid signatures: those of the included certificates by the CA,
 * that of the response by the CA or the authorized responder. Sometimes it does not, to test invalid signatures too. */
static size_t mutate(uint8_t *data, size_t size, size_t max, unsigned seed, fuzzBytes *bytes) {
    const fuzzPki *pki = fuzzGetPki();
    unsigned random = seed, times;
    size_t at, end;

    if (fuzzRandom(&random) % 16 == 0) return bytes(data, size, max);
    for (times = fuzzRandom(&random) % 3 + 1; times > 0; times--) size = fuzzDerMutate(data, size, max, &random, bytes);
    at = fuzzDerFind(data, size, certs_path);
    if (at != (size_t)-1 && fuzzRandom(&random) % 2) {
        end = fuzzDerNext(data, size, at);
        for (at = fuzzDerFind(data, size, first_path); at < end; at = fuzzDerNext(data, size, at))
            fuzzSignAgain(data, size, at, pki->ca_key);
    }
    at = fuzzDerFind(data, size, basic_path);
    if (at != (size_t)-1 && fuzzRandom(&random) % 8)
        fuzzSignAgain(data, size, at, fuzzRandom(&random) % 2 ? pki->ca_key : pki->responder_key);
    return size;
}

static void keepReply(fuzzKeep *keep, const char *name, const testReply *reply) {
    testBytes der = testReplyDer(reply);

    keep(name, der.p, der.n);
    testBytesFree(&der);
}

/* Returns the CA's certificate with one length that is not minimal. OpenSSL keeps the original bytes of a certificate,
 * so that its re-encoding of the whole response does not prove DER. */
static X509 *berCertificate(void) {
    unsigned char *der = NULL;
    int n = i2d_X509(fuzzGetPki()->ca, &der);
    const unsigned char *p;
    size_t tbs_len;
    testBytes tbs, all;
    X509 *cert;

    fuzzCheck(n > 10 && der[1] == 0x82 && der[5] == 0x82 && der[8] == 0xa0 && der[9] == 3);
    tbs_len = (size_t)(der[6] << 8 | der[7]);
    tbs = testJoin(testCopy("\xa0\x81\x03", 3), testCopy(der + 10, tbs_len - 2));
    all = testJoin(testTag(0x30, tbs), testCopy(der + 8 + tbs_len, (size_t)n - 8 - tbs_len));
    all = testTag(0x30, all);
    p = all.p;
    cert = d2i_X509(NULL, &p, (long)all.n);
    fuzzCheck(cert);
    testBytesFree(&all);
    OPENSSL_free(der);
    return cert;
}

static void seeds(fuzzKeep *keep) {
    const fuzzPki *pki = fuzzGetPki();
    const testSingle single = {.cert = pki->leaf,
                               .issuer = pki->ca,
                               .this_update = TEST_NOW - 3600,
                               .next_update = TEST_NOW + TEST_DAY};
    const testReply good = {.count = 1, .singles = {single}, .signer = pki->ca, .key = pki->ca_key};
    const testReply by_responder = {
        .count = 1, .singles = {single}, .signer = pki->responder, .key = pki->responder_key, .sent = {pki->responder}};
    testReply r;
    char name[32];
    int i;

    keepReply(keep, "good", &good);
    keepReply(keep, "delegate", &by_responder);
    for (i = 1; i <= 6; i++) { /* tryLater and the other error statuses */
        r = (testReply){.status = i};
        snprintf(name, sizeof(name), "status-%d", i);
        keepReply(keep, name, &r);
    }
    r = good, r.no_bytes = 1, keepReply(keep, "bare", &r);
    r = good, r.by_key = 1, keepReply(keep, "by-key", &r);
    r = good, r.sent[0] = pki->ca, keepReply(keep, "issuer-sent", &r);
    r = good, r.singles[0].status = TEST_REVOKED, keepReply(keep, "revoked", &r);
    r.singles[0].reason = 7, keepReply(keep, "on-hold", &r);
    r = good, r.singles[0].status = TEST_UNKNOWN, keepReply(keep, "unknown", &r);
    r = good, r.singles[0].next_update = 0, keepReply(keep, "no-next-update", &r);
    r = good, r.singles[0].md = EVP_sha256(), keepReply(keep, "sha256-certid", &r);
    r = good, r.singles[0].next_update = TEST_NOW, keepReply(keep, "expired", &r);
    r = good, r.singles[0].this_update = TEST_NOW + OCSP_CLOCK_SKEW, keepReply(keep, "from-the-future", &r);
    r.singles[0].this_update -= 100, r.singles[0].next_update = TEST_NOW + 100, keepReply(keep, "backwards", &r);
    r = good, r.singles[0].next_update = TEST_NOW + 400 * TEST_DAY, keepReply(keep, "outlives-all", &r);
    r = good, r.singles[0].this_text = "20300101000000.5Z", keepReply(keep, "fraction", &r);
    r = good, r.singles[0].cert = pki->responder, keepReply(keep, "not-ours", &r);
    r = good, r.count = 3, r.singles[0].cert = pki->responder, r.singles[1] = r.singles[2] = single;
    r.singles[1].this_update -= 100, keepReply(keep, "three", &r);
    r.singles[1].this_update += 100, r.singles[1].status = TEST_REVOKED, keepReply(keep, "equal-times", &r);
    r = good, r.sign_md = EVP_sha1(), keepReply(keep, "sha1-signature", &r);
    r = good, r.sign_md = EVP_md5(), keepReply(keep, "md5-signature", &r);
    r = good, r.break_signature = 1, keepReply(keep, "broken-signature", &r);
    r = good, r.other_type = 1, keepReply(keep, "other-type", &r);
    r = good, r.inner_tail = 2, keepReply(keep, "inner-tail", &r);
    r = good, r.padding = 200, keepReply(keep, "extension", &r);
    r = by_responder, r.by_key = 1, keepReply(keep, "delegate-by-key", &r);
    r = by_responder, r.sent[0] = pki->responder_no_eku, keepReply(keep, "delegate-no-eku", &r);
    r.sent[1] = pki->responder, keepReply(keep, "second-delegate", &r);
    r = by_responder, r.sent[0] = pki->responder_expired, keepReply(keep, "delegate-expired", &r);
    r.sent[0] = pki->responder_short, keepReply(keep, "delegate-short", &r);
    r.sent[0] = pki->responder_critical, keepReply(keep, "delegate-critical", &r);
    r = by_responder, r.sent[0] = NULL, keepReply(keep, "delegate-not-sent", &r);
    r = by_responder, r.sent[0] = pki->twin, r.signer = pki->twin, keepReply(keep, "twin", &r);
    r = good, r.padding = OCSP_MAX_RESPONSE_BYTES - 400, keepReply(keep, "long", &r);
    r.padding += 4096, keepReply(keep, "too-long", &r);
    r = by_responder, r.sent[0] = r.sent[1] = r.sent[2] = r.sent[3] = pki->responder_no_eku, r.break_signature = 1;
    keepReply(keep, "four-named", &r);
    r.sent[0] = r.sent[1] = r.sent[2] = r.sent[3] = pki->responder, keepReply(keep, "four-certified", &r);
    r = good, r.sent[0] = berCertificate(), keepReply(keep, "ber-sent-along", &r);
    X509_free(r.sent[0]);
    keep("empty", "", 0);
}

const fuzzTarget fuzz_response = {"response", one, seeds, mutate};
