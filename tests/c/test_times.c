/* test_times.c - times beyond 2038 and 2106, where a time_t of 32 bits ends: dates of certificates and responses have
 * 64 bits everywhere. Dates are written as text, because the test's own time_t may be as short.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <stdio.h>
#include <string.h>
#include <openssl/err.h>

#define IN_2037 INT64_C(2145916799) /* 2037-12-31 23:59:59 */
#define IN_2039 INT64_C(2177452800) /* 2039-01-01 */
#define IN_2150 INT64_C(5680281600) /* 2150-01-01 */
#define IN_2151 INT64_C(5711817600) /* 2151-01-01 */

static const testPki *pki;
static X509 *ca;

static X509 *until(const char *end, X509 *cert) {
    assert_int_equal(ASN1_TIME_set_string_X509(X509_getm_notAfter(cert), end), 1);
    assert_true(X509_sign(cert, pki->ca_key, EVP_sha256()) > 0);
    return cert;
}

static void beginProgram(void) {
    pki = testGetPki();
    ca = until("22000101000000Z", testCert(&(testCertSpec){.name = "far CA", .key = pki->ca_key, .ca = 1}));
}

static void endProgram(void) {
    X509_free(ca);
}

PROGRAM_FIXTURE(beginProgram, endProgram);

/* A certificate that ends then. */
static X509 *leafUntil(const char *end) {
    return until(end, testCert(&(testCertSpec){.name = "far",
                                               .issuer = ca,
                                               .issuer_key = pki->ca_key,
                                               .key = pki->leaf_key,
                                               .urls = {TEST_URL}}));
}

TEST(time_asText) {
    static const struct {
        int64_t seconds;
        const char *text;
    } times[] = {
        {0, "1970-01-01 00:00:00 UTC"},
        {-1, "1969-12-31 23:59:59 UTC"},
        {951782400, "2000-02-29 00:00:00 UTC"},
        {951868800, "2000-03-01 00:00:00 UTC"},
        {TEST_NOW, "2030-03-17 17:46:40 UTC"},
        {IN_2037, "2037-12-31 23:59:59 UTC"},
        {INT64_C(2147483648), "2038-01-19 03:14:08 UTC"},
        {INT64_C(4107542399), "2100-02-28 23:59:59 UTC"},
        {INT64_C(4107542400), "2100-03-01 00:00:00 UTC"},
        {INT64_C(4294967296), "2106-02-07 06:28:16 UTC"},
        {INT64_C(253402300799), "9999-12-31 23:59:59 UTC"},
        {INT64_C(-62167219200), "0000-01-01 00:00:00 UTC"},
        {INT64_C(253402300800), "?"},
        {INT64_C(-62167219201), "?"},
        {INT64_MAX, "?"},
        {INT64_MIN, "?"},
    };
    char text[40], again[40];

    for (size_t i = 0; i < sizeof(times) / sizeof(times[0]); i++)
        assert_string_equal(ocspUtcText(times[i].seconds, text, sizeof(text)), times[i].text);
    if (sizeof(time_t) < 8) return;
    for (int64_t t = INT64_C(-62167219200); t < INT64_C(253402300800); t += INT64_C(12345677)) { /* libc's opinion */
        time_t seconds = (time_t)t;
        struct tm tm;
        assert_non_null(gmtime_r(&seconds, &tm));
        snprintf(again, sizeof(again), "%04d-%02d-%02d %02d:%02d:%02d UTC", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        assert_string_equal(ocspUtcText(t, text, sizeof(text)), again);
    }
}

TEST(certificate_endsAfter2038And2106) {
    static const struct {
        const char *end;
        int64_t seconds;
    } ends[] = {{"371231235959Z", IN_2037}, {"390101000000Z", IN_2039}, {"21500101000000Z", IN_2150}};

    for (size_t i = 0; i < 3; i++) {
        X509 *leaf = leafUntil(ends[i].end);
        ocspIdentity *id = testIdentity(leaf, ca);
        assert_true(id->not_after == ends[i].seconds);
        ocspIdentityFree(id);
        X509_free(leaf);
    }
}

TEST(response_endsAfter2038And2106) {
    X509 *leaf = leafUntil("21510101000000Z");
    ocspIdentity *id = testIdentity(leaf, ca);
    testReply reply = testGoodReply(leaf);
    ocspResponse r;
    ocspError err = {0};

    reply.singles[0].issuer = reply.signer = ca;
    for (int far = 0; far < 2; far++) {
        int64_t now = far ? IN_2150 + 3600 : TEST_NOW, end = far ? IN_2151 : IN_2039;
        if (far) reply.singles[0].this_text = "21500101000000Z";
        reply.singles[0].next_text = far ? "21520101000000Z" : "20390101000000Z"; /* the first beyond the leaf's end */
        reply.singles[0].next_update = TEST_NOW + 1;
        testBytes der = testReplyDer(&reply);
        if (!ocspVerify((ocspBytes){der.p, der.n}, id, now, now, &r, &err)) fail_msg("%s", err.text);
        assert_true(r.expires_at == end);
        if (far) assert_true(r.this_update == IN_2150);
        assert_true(ocspPeekNextUpdate(der.p, der.n) == (far ? IN_2151 + 365 * 86400 : IN_2039));
        /* The margin of the remaining validity, in seconds and in milliseconds. */
        assert_true(ocspRefreshDeadline(&r, 10) == end - (end - r.this_update) / 10);
        assert_true(ocspRefreshAtMs(&r, 10, now * 1000, 0) / 1000 <= ocspRefreshDeadline(&r, 10));
        assert_true(ocspRefreshAtMs(&r, 10, now * 1000, 0) > now * 1000);
        ocspResponseClear(&r);
        assert_int_equal(ocspVerify((ocspBytes){der.p, der.n}, id, end, end, &r, &err), 0);
        assert_true(err.text[0] != 0);
        testBytesFree(&der);
    }
    ocspIdentityFree(id);
    X509_free(leaf);
}
