/* test_commands.c - OCSP.GET and OCSP.SET as both hosts call them: formats and serial numbers, base64, and what a pushed
 * response changes. The real thread runs only where ocspSet itself is the point; the other tests put the response into the
 * handoff and take the worker's steps.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static atomic_int answers, refusals;
static char last_reason[OCSP_REFRESH_ERROR_MAX]; /* of the push answered last; "": accepted */
static char order[64];                           /* the arguments of the pushes, in the order of their answers */

static int files_at_answer; /* in `dir` */

static void noteOutcome(void *arg, const char *error) {
    size_t n = strlen(order);
    files_at_answer = testCountFiles(dir);
    if (arg && n < sizeof(order) - 1) order[n] = *(const char *)arg;
    snprintf(last_reason, sizeof(last_reason), "%s", error ? error : "");
    if (error) atomic_fetch_add(&refusals, 1);
    atomic_fetch_add(&answers, 1);
}

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static ocspGetAnswer answer;

static ocspGetKind get(const char *first, const char *second) {
    const char *words[] = {first, second};
    free(answer.data);
    ocspGet(words, first ? second ? 2 : 1 : 0, &answer);
    assert_int_equal(answer.data != NULL, answer.kind == OCSP_GET_BYTES || answer.kind == OCSP_GET_TEXT);
    assert_int_equal(answer.why[0] != '\0', answer.kind == OCSP_GET_ERROR);
    return answer.kind;
}

static void assertLine(const char *line) {
    char wanted[500];
    snprintf(wanted, sizeof(wanted), "\n%s\n", line);
    if (!strstr(answer.data, wanted)) fail_msg("no line '%s' in:\n%s", line, answer.data);
}

#define PUT_NAMES 64
static const char *put_names[PUT_NAMES]; /* by the push's number; NULL: not from put() */

static void putAnswered(ocspAnswerKind kind, unsigned number, const char *error) {
    const char *name = kind == OCSP_ANSWER_PUSH ? put_names[number % PUT_NAMES] : NULL;
    if (!name) return;
    put_names[number % PUT_NAMES] = NULL;
    noteOutcome(*name ? (void *)name : NULL, error);
}

static void setUp(void) {
    atomic_store(&answers, 0);
    atomic_store(&refusals, 0);
    memset(order, 0, sizeof(order));
    world_answered = putAnswered;
    worldSetUp();
}

FIXTURE(setUp, worldTearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* Puts a response into the handoff. Returns why not, or NULL. */
static const char *put(const testReply *reply, const char *name) {
    testBytes der = testReplyDer(reply);
    ocspPush *push = ocspAlloc(sizeof(*push));
    push->der = ocspMemdup(der.p, der.n);
    push->len = der.n;
    testBytesFree(&der);
    unsigned number;
    const char *why = ocspPutPush(push, &number);
    if (!why) put_names[number % PUT_NAMES] = name ? name : "";
    if (why) ocspPushFree(push);
    return why;
}

/* Pushes a response without a thread. Returns the reason of a refusal, or "". */
static const char *push(const testReply *reply) {
    int before = atomic_load(&answers);
    assert_null(put(reply, NULL));
    ocspThreadStep();
    assert_int_equal(atomic_load(&answers), before + 1);
    return last_reason;
}

/* A good response for `leaf` with this thisUpdate, valid for a day. */
static testReply goodAt(X509 *leaf, time_t this_update) {
    testReply reply = testGoodReply(leaf);
    reply.singles[0].this_update = this_update;
    reply.singles[0].next_update = this_update + TEST_DAY;
    return reply;
}

static int isStapledAs(SSL_CTX *ctx, SSL_CTX *client, const testReply *reply) {
    testShake shake = testHandshake(ctx, client, 1);
    testBytes der = testReplyDer(reply);
    /* signatures differ each time: compare what is signed, which comes first */
    int same = shake.got_staple && shake.staple.n > 200 && der.n > 200;
    const unsigned char *p = shake.staple.p, *q = der.p;
    OCSP_RESPONSE *a = same ? d2i_OCSP_RESPONSE(NULL, &p, (long)shake.staple.n) : NULL;
    OCSP_RESPONSE *b = d2i_OCSP_RESPONSE(NULL, &q, (long)der.n);
    if (same) {
        OCSP_BASICRESP *x = OCSP_response_get1_basic(a), *y = OCSP_response_get1_basic(b);
        same = ASN1_STRING_cmp(OCSP_resp_get0_produced_at(x), OCSP_resp_get0_produced_at(y)) == 0;
        OCSP_BASICRESP_free(x);
        OCSP_BASICRESP_free(y);
    }
    OCSP_RESPONSE_free(a);
    OCSP_RESPONSE_free(b);
    testShakeFree(&shake);
    testBytesFree(&der);
    return same;
}

/* ---- OCSP.GET ---------------------------------------------------------------------------------------------------- */

TEST(get_isWhatAHandshakeStaples) {
    SSL_CTX *ctx = loadLeaf();
    assert_int_equal(get("DER", NULL), OCSP_GET_NOTHING); /* the worker has not run yet */
    runUntilIdle();
    testShake shake = testHandshake(ctx, tls13, 1);
    assert_int_equal(get("der", NULL), OCSP_GET_BYTES);
    assert_int_equal(answer.len, shake.staple.n);
    assert_memory_equal(answer.data, shake.staple.p, answer.len);
    assert_int_equal(get("Base64", NULL), OCSP_GET_BYTES);
    unsigned char *decoded = malloc(answer.len);
    assert_true(EVP_DecodeBlock(decoded, (unsigned char *)answer.data, (int)answer.len) >= (int)shake.staple.n);
    assert_memory_equal(decoded, shake.staple.p, shake.staple.n);
    assert_null(strchr(answer.data, '\n'));
    free(decoded);
    testShakeFree(&shake);
    options.stapling = 0;
    applyOptions();
    assert_int_equal(get("DER", NULL), OCSP_GET_NOTHING);
    options.stapling = 1;
    applyOptions();
    assert_int_equal(get("DER", NULL), OCSP_GET_BYTES);
    setWallClock(((int64_t)TEST_NOW + TEST_DAY) * 1000 - 1);
    assert_int_equal(get("DER", NULL), OCSP_GET_BYTES);
    setWallClock(((int64_t)TEST_NOW + TEST_DAY) * 1000); /* expired in this second */
    assert_int_equal(get("DER", NULL), OCSP_GET_NOTHING);
    assert_int_equal(get(NULL, NULL), OCSP_GET_NOTHING);
    SSL_CTX_free(ctx);
}

TEST(get_textHasTheFieldsTerms) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(get(NULL, NULL), OCSP_GET_TEXT);
    assert_int_equal(strncmp(answer.data, "responseStatus: successful\n", 27), 0);
    assertLine("certStatus: good");
    assertLine("thisUpdate: 2030-03-17 17:46:40 UTC (1900000000)");
    assertLine("nextUpdate: 2030-03-18 17:46:40 UTC (1900086400)");
    assertLine("producedAt: 2030-03-17 17:46:40 UTC (1900000000)");
    assertLine("stapled until: 2030-03-18 17:46:40 UTC (1900086400), 86400 seconds left");
    assertLine("signer: the issuer of the certificate");
    assertLine("CertID hashAlgorithm: sha1");
    assertLine("CertID serialNumber: 0ABC");
    assertLine("signatureAlgorithm: ecdsa-with-SHA256");
    assertLine("responseExtensions: none");
    assertLine("singleExtensions: none");
    assertLine("SingleResponses: 1");
    assertLine("source: network");
    assert_non_null(strstr(answer.data, "\nresponderID: byName "));
    assert_int_equal(answer.len, strlen(answer.data));
    SSL_CTX_free(ctx);
}

TEST(get_textOfAnAuthorizedRespondersRevocation) {
    static const unsigned char extensions[] = {/* two: archiveCutoff, critical; 1.2.3.4 */
                                               0x30, 0x12, 0x06, 0x09, 0x2b, 0x06, 0x01, 0x05, 0x05, 0x07,
                                               0x30, 0x01, 0x06, 0x01, 0x01, 0xff, 0x04, 0x02, 0x05, 0x00,
                                               0x30, 0x07, 0x06, 0x03, 0x2a, 0x03, 0x04, 0x04, 0x00};
    testReply reply = goodAt(pki->leaf, TEST_NOW + 10);
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(20 * 1000);
    reply.signer = reply.sent[0] = pki->responder;
    reply.key = pki->responder_key;
    reply.by_key = 1;
    reply.singles[0].status = TEST_REVOKED;
    reply.singles[0].reason = 1 + OCSP_REVOKED_STATUS_KEYCOMPROMISE;
    reply.singles[0].md = EVP_sha256();
    reply.singles[0].next_update = 0;
    reply.singles[1] = reply.singles[0];
    reply.singles[1].cert = pki->rsa_leaf;
    reply.count = 2;
    reply.singles[0].extensions = testCopy(extensions, sizeof(extensions));
    assert_string_equal(push(&reply), "");
    assert_int_equal(get("TEXT", "0abc"), OCSP_GET_TEXT);
    assertLine("certStatus: revoked");
    assertLine("revocationTime: 2030-03-17 16:46:40 UTC (1899996400)");
    assertLine("revocationReason: keyCompromise");
    assertLine("nextUpdate: absent");
    assertLine("signer: an authorized responder");
    assert_non_null(strstr(answer.data, "\nsigner notAfter: 2031-03-"));
    assert_non_null(strstr(answer.data, "\nresponderID: byKey "));
    assertLine("CertID hashAlgorithm: sha256");
    assertLine("singleExtensions: OCSP Archive Cutoff (critical), 1.2.3.4");
    assertLine("SingleResponses: 2");
    assertLine("source: pushed");
    testBytesFree(&reply.singles[0].extensions);
    SSL_CTX_free(ctx);
}

/* Names and OIDs come from outside: no control byte reaches the terminal, and nothing makes a line of its own. */
TEST(get_textIsCleaned) {
    X509 *odd = testCert(&(testCertSpec){.name = "evil\x1b[31m\nsource: network\xc3\xa9",
                                         .issuer = pki->ca,
                                         .issuer_key = pki->ca_key,
                                         .key = pki->responder_key,
                                         .extended = "OCSPSigning",
                                         .key_usage = "digitalSignature"});
    testReply reply = goodAt(pki->leaf, TEST_NOW + 10);
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(20 * 1000);
    reply.signer = reply.sent[0] = odd;
    reply.key = pki->responder_key;
    assert_string_equal(push(&reply), "");
    assert_int_equal(get("TEXT", NULL), OCSP_GET_TEXT);
    for (const char *p = answer.data; *p; p++) assert_true(*p == '\n' || (*p >= 32 && *p < 127));
    assert_null(strstr(answer.data, "\nsource: network"));
    X509_free(odd);
    SSL_CTX_free(ctx);
}

TEST(get_serialSelectsACertificateInService, "23") {
    SSL_CTX *ctx = loadTwoCertificates();
    char other[OCSP_OUTSIDE_TEXT_MAX + 1];
    runUntilIdle();
    ocspSerialText(X509_get0_serialNumber(pki->rsa_leaf), other, sizeof(other));
    assert_int_equal(get("DER", NULL), OCSP_GET_BYTES); /* the first one: OpenSSL has RSA before ECDSA */
    unsigned char *first = ocspMemdup(answer.data, answer.len);
    size_t n = answer.len;
    assert_int_equal(get("DER", other), OCSP_GET_BYTES);
    assert_int_equal(answer.len, n);
    assert_memory_equal(answer.data, first, n);
    const char *serials[] = {"0ABC", "0abc", "abc", "000ABC"};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(get("TEXT", serials[i]), OCSP_GET_TEXT);
        assertLine("CertID serialNumber: 0ABC");
    }
    assert_int_equal(get(other, NULL), OCSP_GET_TEXT); /* a format may be left out */
    assert_non_null(strstr(answer.data, other));
    assert_int_equal(get("DER", "77"), OCSP_GET_ERROR);
    assert_non_null(strstr(answer.why, ", 0ABC"));
    assert_non_null(strstr(answer.why, other));
    /* A replaced certificate is in handshakes under way only. */
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assert_int_equal(get("DER", "0ABC"), OCSP_GET_ERROR);
    assert_null(strstr(answer.why, ", 0ABC"));
    assert_int_equal(get("DER", NULL), OCSP_GET_BYTES);
    ocspFree(first);
    SSL_CTX_free(renewed);
    SSL_CTX_free(ctx);
}

/* The ECDSA certificate is tracked for longer, but it is the second one of the context. */
TEST(get_withoutASerialShowsTheCertificateOfTheFields, "23") {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    SSL_CTX *both = loadTwoCertificates();
    runFor(3000);
    assert_int_equal(get("DER", NULL), OCSP_GET_BYTES);
    assert_int_equal(answer.len, infoNumber("response_bytes"));
    assert_int_equal(get("TEXT", NULL), OCSP_GET_TEXT);
    char line[300];
    snprintf(line, sizeof(line), "CertID serialNumber: %s", infoText("cert_serial"));
    assertLine(line);
    assert_string_not_equal(infoText("cert_serial"), "0ABC");
    SSL_CTX_free(both);
    SSL_CTX_free(ctx);
}

TEST(get_wrongArguments) {
    static const char *const rows[][2] = {{"PEM", NULL}, {"DER", "BASE64"}, {"0ABC", "DER"},
                                          {"", NULL},    {"DER", ""},       {"0ABC", "0ABC"}};
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(get(rows[i][0], rows[i][1]), OCSP_GET_ERROR);
    assert_non_null(strstr(answer.why, "DER, BASE64 or TEXT"));
    SSL_CTX_free(ctx);
    options.stapling = 0;
    restartEngine();
    assert_int_equal(get("DER", "0ABC"), OCSP_GET_ERROR);
    assert_non_null(strstr(answer.why, "there is none"));
}

/* ---- OCSP.SET: base64 -------------------------------------------------------------------------------------------- */

static char why_not[OCSP_SENTENCE_MAX];

static int set(const char *base64, size_t n) {
    why_not[0] = '\0';
    return ocspSetThen(base64, n, noteOutcome, NULL, why_not, sizeof(why_not));
}

TEST(set_base64IsStrict) {
    static const struct {
        const char *text, *why; /* why NULL: decoded, and then no response */
    } rows[] = {
        {"MA==", NULL},           {"MAA=", NULL},          {"MAAA", NULL},
        {"MA=\r\n=\n", NULL},     {"\nM\nA\n==", NULL},    {"", "empty"},
        {"\r\n", "empty"},        {"M", "not base64"},     {"MA", "not base64"},
        {"MAA", "not base64"},    {"MA=", "not base64"},   {"MB==", "not base64"}, /* bits after the last byte */
        {"MAB=", "not base64"},   {"MA===", "not base64"}, {"MA==MAAA", "not base64"},
        {"MA=A", "not base64"},   {"=", "not base64"},     {"====", "not base64"},
        {"M===", "not base64"},   {"MA ==", "not base64"}, {"MA-_", "not base64"}, /* the URL's alphabet */
        {"MA\t==", "not base64"},
    };
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        int before = atomic_load(&answers), taken = set(rows[i].text, strlen(rows[i].text));
        assert_int_equal(taken, rows[i].why == NULL);
        if (taken) testWaitFor(atomic_load(&answers) > before);
        if (taken) assert_non_null(strstr(last_reason, "not a complete DER-encoded OCSP response"));
        if (!taken && !strstr(why_not, rows[i].why)) fail_msg("'%s': %s", rows[i].text, why_not);
    }
    assert_int_equal(set("MA==\0", 5), 0); /* a zero byte is no end */
    SSL_CTX_free(ctx);
}

TEST(set_sizeIsBoundedBeforeAnythingIsVerified) {
    char *long_text = malloc(3 * OCSP_MAX_RESPONSE_BYTES);
    testBytes der = testReplyOfSize(goodAt(pki->leaf, TEST_NOW + 1), OCSP_MAX_RESPONSE_BYTES);
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    memset(long_text, 'A', 3 * OCSP_MAX_RESPONSE_BYTES);
    assert_int_equal(set(long_text, 2 * OCSP_MAX_RESPONSE_BYTES + 1), 0);
    assert_non_null(strstr(why_not, "more than 65536 bytes"));
    assert_int_equal(set(long_text, OCSP_MAX_RESPONSE_BYTES / 3 * 4 + 4), 0); /* two bytes more */
    assert_non_null(strstr(why_not, "more than 65536 bytes"));
    /* The largest response, in lines of 64 characters. */
    advance(2000);
    size_t n = 0;
    for (size_t at = 0; at < der.n; at += 48) {
        n += (size_t)EVP_EncodeBlock((unsigned char *)long_text + n, der.p + at,
                                     (int)(der.n - at < 48 ? der.n - at : 48));
        memcpy(long_text + n, "\r\n", 2);
        n += 2;
    }
    assert_int_equal(set(long_text, n), 1);
    testWaitFor(atomic_load(&answers) == 1);
    assert_string_equal(last_reason, "");
    assert_int_equal(infoNumber("response_bytes"), OCSP_MAX_RESPONSE_BYTES);
    testBytesFree(&der);
    free(long_text);
    SSL_CTX_free(ctx);
}

TEST(set_saysWhyNot) {
    assert_int_equal(set("MA==", 4), 0);
    assert_non_null(strstr(why_not, "not running"));
    options.stapling = 0;
    applyOptions();
    assert_int_equal(set("MA==", 4), 0);
    assert_non_null(strstr(why_not, "stapling is off"));
}

/* ---- OCSP.SET: what a pushed response changes -------------------------------------------------------------------- */

TEST(push_newerIsStapledAndOlderRefused) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(100 * 1000);
    testReply newer = goodAt(pki->leaf, TEST_NOW + 50), older = goodAt(pki->leaf, TEST_NOW - 50);
    long long refreshes = infoNumber("refreshes");
    assert_string_equal(push(&newer), "");
    assert_true(isStapledAs(ctx, tls13, &newer));
    assert_string_equal(infoText("response_source"), "pushed");
    assert_int_equal(infoNumber("last_success_time"), TEST_NOW + 100);
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "from an operator"), 1);
    assert_string_equal(push(&newer), ""); /* the same again */
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "from an operator"), 1);
    assert_non_null(strstr(push(&older), "certificate 0ABC: the response is older than the current response"));
    assert_true(isStapledAs(ctx, tls13, &newer));
    assert_non_null(strstr(infoText("last_error"), "pushed response: "));
    assert_string_equal(infoText("last_error_code"), "older");
    assert_int_equal(logLines(OCSP_LOG_WARNING, "pushed OCSP response refused (older): "), 1);
    /* It is no refresh, and no failure of one. */
    assert_int_equal(infoNumber("refreshes"), refreshes);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    assert_int_equal(infoNumber("failures_response"), 0);
    SSL_CTX_free(ctx);
}

TEST(push_wrongOnesAreRefusedWithTheReason) {
    testReply rows[5];
    static const char *const reasons[] = {"expired", "signature does not verify", "no SingleResponse matches",
                                          "not authorized", "status unknown"};
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(20 * 1000);
    for (int i = 0; i < 5; i++) rows[i] = goodAt(pki->leaf, TEST_NOW + 10);
    rows[0].singles[0].this_update = TEST_NOW - 1000;
    rows[0].singles[0].next_update = TEST_NOW - 10;
    rows[1].break_signature = 1;
    rows[2].singles[0].cert = pki->renewed_leaf;
    rows[3].signer = rows[3].sent[0] = pki->responder_no_eku;
    rows[3].key = pki->responder_key;
    rows[4].singles[0].status = TEST_UNKNOWN;
    for (int i = 0; i < 5; i++) {
        if (!strstr(push(&rows[i]), reasons[i])) fail_msg("%s: %s", reasons[i], last_reason);
        assert_true(isStapled(ctx));
        assert_string_equal(infoText("response_source"), "network");
    }
    SSL_CTX_free(ctx);
}

TEST(push_goesToEachCertificateThatItIsAbout, "23") {
    SSL_CTX *ctx = loadTwoCertificates();
    runUntilIdle();
    advance(100 * 1000);
    testReply both = goodAt(pki->leaf, TEST_NOW + 10), second = goodAt(pki->leaf, TEST_NOW + 50),
              none = goodAt(pki->must_leaf, TEST_NOW + 60);
    both.singles[1] = both.singles[0];
    both.singles[1].cert = pki->rsa_leaf;
    both.count = 2;
    assert_string_equal(push(&both), "");
    assert_string_equal(infoText("response_source"), "pushed");
    assert_string_equal(infoText("alt_response_source"), "pushed");
    assert_true(isStapledAs(ctx, tls13, &both));
    assert_true(isStapledAs(ctx, tls13_rsa, &both));
    assert_string_equal(push(&second), "");
    assert_true(isStapledAs(ctx, tls13_rsa, &both));
    assert_true(isStapledAs(ctx, tls13, &second));
    assert_string_equal(infoText("last_error"), ""); /* that it is not about the first one is no error */
    assert_int_equal(infoNumber("alt_this_update"), TEST_NOW + 50);
    assert_non_null(strstr(push(&none), "no SingleResponse matches"));
    assert_non_null(strstr(infoText("last_error"), "no SingleResponse matches"));
    assert_string_equal(infoText("alt_last_error"), "");
    /* Newer for one of them is enough, and it is published once. */
    both.singles[0].this_update = TEST_NOW + 20;
    both.singles[1].this_update = TEST_NOW + 20;
    assert_string_equal(push(&both), "");
    assert_int_equal(infoNumber("this_update"), TEST_NOW + 20);
    assert_int_equal(infoNumber("alt_this_update"), TEST_NOW + 50);
    SSL_CTX_free(ctx);
}

TEST(push_worksWithoutAResponderAndAfterARestart) {
    testReply reply = goodAt(pki->quiet_leaf, TEST_NOW);
    options.cache_dir = dir;
    applyOptions();
    SSL_CTX *ctx = loadContext(pki->quiet_leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assertState("no-responder");
    assert_string_equal(push(&reply), "");
    assertState("good");
    assert_int_equal(files_at_answer, 1); /* the operator may restart the server at once */
    assert_int_equal(infoNumber("next_refresh_in_seconds"), -1);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
    restartEngine();
    ctx = loadContext(pki->quiet_leaf, pki->leaf_key, pki->ca);
    ocspThreadPrime();
    assert_true(isStapled(ctx));
    assertState("good");
    assert_string_equal(infoText("response_source"), "cache");
    runFor((int64_t)TEST_DAY * 1000);
    assertState("expired");
    assert_false(isStapled(ctx));
    assert_int_equal(requestCount(), 0);
    reply = goodAt(pki->quiet_leaf, wallNow());
    assert_string_equal(push(&reply), "");
    assertState("good");
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* The operator has done what the responder could not: no retry, and the next refresh at the refresh time. */
TEST(push_countsAsASuccessForTheBackOff, "11") {
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runFor(60 * 1000);
    assert_true(infoNumber("consecutive_failures") >= 2);
    int n = requestCount();
    testReply reply = goodAt(pki->leaf, wallNow());
    assert_string_equal(push(&reply), "");
    assertState("good");
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    assert_string_equal(infoText("last_error"), "");
    assert_int_equal(logLines(OCSP_LOG_NOTICE, "from an operator"), 1);
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, "recovered"), 0); /* the responder has not */
    runFor((int64_t)TEST_DAY * 700);                              /* 70 %: jitter takes at most a fifth of the 90 % */
    assert_int_equal(requestCount(), n);
    runFor((int64_t)TEST_DAY * 200);
    assert_true(requestCount() > n);
    assert_true(isStapled(ctx));
    assert_true(infoNumber("consecutive_failures") > 0);
    responder.down = 0;
    runFor(3600 * 1000);
    assert_string_equal(infoText("response_source"), "network"); /* a newer one replaces it */
    SSL_CTX_free(ctx);
}

/* A response whose refresh time has passed is stapled, and the responder is asked at once, as after a restart. */
TEST(push_pastItsRefreshTimeIsRefreshedAtOnce) {
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    testReply reply = goodAt(pki->leaf, TEST_NOW - TEST_DAY + 600);
    responder.down = 0;
    runFor(1000);
    int n = requestCount();
    responder.down = 1;
    runFor(2000);
    assert_string_equal(push(&reply), "");
    assertState("good");
    runFor(2000);
    assert_true(requestCount() > n);
    assert_true(requestCount() <= n + 2);
    SSL_CTX_free(ctx);
}

TEST(push_withoutNextUpdateDoesNotLiveLongerThanWhenFetched) {
    testReply reply = goodAt(pki->quiet_leaf, TEST_NOW - 400);
    reply.singles[0].next_update = 0;
    SSL_CTX *ctx = loadContext(pki->quiet_leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    assert_string_equal(push(&reply), "");
    assert_int_equal(infoNumber("expires_in_seconds"), 500); /* 15 minutes after it was signed */
    advance(600 * 1000);
    assert_non_null(strstr(push(&reply), "request a new one"));
    assertState("expired");
    SSL_CTX_free(ctx);
}

TEST(push_revokedReplacesGoodAndGoodAgain) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(100 * 1000);
    testReply reply = goodAt(pki->leaf, TEST_NOW + 10);
    reply.singles[0].status = TEST_REVOKED;
    assert_string_equal(push(&reply), "");
    assertState("revoked");
    assert_int_equal(logLines(OCSP_LOG_WARNING, "REVOKED"), 1);
    reply = goodAt(pki->leaf, TEST_NOW + 5);
    assert_non_null(strstr(push(&reply), "older"));
    reply = goodAt(pki->leaf, TEST_NOW + 20);
    assert_string_equal(push(&reply), "");
    assertState("good");
    SSL_CTX_free(ctx);
}

TEST(push_isRefusedWhereItCannotBeStapled) {
    testReply reply = goodAt(pki->leaf, TEST_NOW);
    char *file = testPath(dir, "supplied.der");
    SSL_CTX *ctx = loadContext(pki->self, pki->leaf_key, NULL);
    runUntilIdle();
    assert_non_null(strstr(put(&reply, NULL), "self-signed"));
    SSL_CTX_free(ctx);
    ctx = loadContext(pki->leaf, pki->leaf_key, NULL);
    runUntilIdle();
    assertState("no-issuer");
    assert_non_null(strstr(put(&reply, NULL), "issuer is unknown"));
    SSL_CTX_free(ctx);
    ctx = loadLeaf();
    runUntilIdle();
    options.response_file = file;
    applyOptions();
    assert_non_null(strstr(put(&reply, NULL), "response-file"));
    /* Set after the push was taken in: the thread refuses it. */
    options.response_file = "";
    applyOptions();
    assert_null(put(&reply, NULL));
    options.response_file = file;
    applyOptions();
    ocspThreadStep();
    assert_non_null(strstr(last_reason, "response-file"));
    assert_string_equal(infoText("response_source"), "network");
    /* Stapling off likewise. */
    options.response_file = "";
    applyOptions();
    runUntilIdle();
    assert_null(put(&reply, NULL));
    options.stapling = 0;
    applyOptions();
    ocspThreadStep();
    assert_non_null(strstr(last_reason, "turned off"));
    free(file);
    SSL_CTX_free(ctx);
}

TEST(push_queueIsBoundedAndServedInOrder) {
    static const char names[] = "abcdefghijklmnopq";
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance(100 * 1000);
    for (int i = 0; i < OCSP_MAX_PUSHES; i++) {
        testReply reply = goodAt(pki->leaf, TEST_NOW + 1 + i);
        assert_null(put(&reply, &names[i]));
    }
    testReply reply = goodAt(pki->leaf, TEST_NOW + 50);
    assert_non_null(strstr(put(&reply, &names[16]), "busy"));
    ocspThreadStep();
    assert_string_equal(order, "abcdefghijklmnop");
    assert_int_equal(atomic_load(&refusals), 0);
    assert_int_equal(infoNumber("this_update"), TEST_NOW + OCSP_MAX_PUSHES);
    assert_null(put(&reply, NULL));
    SSL_CTX_free(ctx);
    ocspShutdown(); /* the one that waits is answered, and freed */
    assert_non_null(strstr(last_reason, "shutting down"));
    worldStart();
}

TEST(push_isNotForAReplacedCertificate) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    runUntilIdle();
    advance(100 * 1000);
    testReply reply = goodAt(pki->leaf, TEST_NOW + 50);
    assert_non_null(strstr(push(&reply), "no SingleResponse matches"));
    SSL_CTX_free(renewed);
    SSL_CTX_free(ctx);
}

/* What main set before a push is taken over before it. */
TEST(push_isServedWithTheOptionsAndCertificatesSetBeforeIt) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    responder.down = 1;
    testReply reply = goodAt(pki->renewed_leaf, TEST_NOW);
    assert_string_equal(push(&reply), "");
    assertState("good");
    SSL_CTX_free(renewed);
    SSL_CTX_free(ctx);
}

/* ---- OCSP.SET: a fetch under way ---------------------------------------------------------------------------------- */

static void pushDuringFetch(const ocspIoHooks *io) {
    testReply reply = goodAt(pki->leaf, wallNow());
    (void)io;
    responder.during_fetch = NULL;
    assert_null(put(&reply, NULL));
}

TEST(push_interruptsAFetchWhichFollowsIfItIsStillDue) {
    /* A certificate's first fetch, and then an automatic refresh: the pushed response makes either needless. */
    responder.during_fetch = pushDuringFetch;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(responder.cancelled, 1);
    assert_int_equal(requestCount(), 1);
    assert_string_equal(infoText("response_source"), "pushed");
    advance((int64_t)TEST_DAY * 910);
    responder.during_fetch = pushDuringFetch;
    runUntilIdle();
    assert_int_equal(responder.cancelled, 2);
    assert_int_equal(requestCount(), 2);
    assert_string_equal(infoText("response_source"), "pushed");
    assert_int_equal(infoNumber("refreshes"), 0);
    SSL_CTX_free(ctx);
}

static void pushBadDuringFetch(const ocspIoHooks *io) {
    testReply reply = goodAt(pki->must_leaf, wallNow());
    (void)io;
    responder.during_fetch = NULL;
    assert_null(put(&reply, NULL));
}

TEST(push_refusedDuringAFetchLeavesItDue) {
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    advance((int64_t)TEST_DAY * 910);
    responder.during_fetch = pushBadDuringFetch;
    runUntilIdle();
    assert_int_equal(responder.cancelled, 1);
    assert_int_equal(atomic_load(&refusals), 1);
    assert_int_equal(requestCount(), 3);
    assert_int_equal(infoNumber("refreshes"), 2);
    assert_string_equal(infoText("response_source"), "network");
    SSL_CTX_free(ctx);
}

TEST(push_doesNotLoseARequestedRefresh) {
    char why[OCSP_SENTENCE_MAX];
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    advance(100 * 1000);
    atomic_store(&responder.hang, 1);
    assert_int_equal(ocspRequestRefreshThen(noteOutcome, "r", why, sizeof(why)), 1);
    testWaitFor(requestCount() == 2);
    testReply reply = goodAt(pki->leaf, TEST_NOW + 50);
    assert_null(put(&reply, "p"));
    ocspThreadWake();
    testWaitFor(atomic_load(&answers) == 1); /* while the responder hangs */
    assert_string_equal(order, "p");
    assert_string_equal(infoText("response_source"), "pushed");
    testWaitFor(requestCount() == 3);
    atomic_store(&responder.hang, 0);
    testWaitFor(atomic_load(&answers) == 2);
    assert_string_equal(order, "pr");
    assert_string_equal(infoText("response_source"), "network");
    SSL_CTX_free(ctx);
}
