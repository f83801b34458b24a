/* test_util.c - text from outside made harmless, the directives' values judged, errors and memory.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

static const char *clean(const char *in) {
    static char out[OCSP_OUTSIDE_TEXT_MAX + 1];
    return ocspCleanText(out, sizeof(out), in);
}

TEST(cleanText_keepsPlainText) {
    assert_string_equal(clean("http://a.example/~x?y=z#[1]"), "http://a.example/~x?y=z#[1]");
    assert_string_equal(clean(""), "");
    assert_string_equal(clean(NULL), "");
}

TEST(cleanText_dropsControlBytes) {
    for (int c = 1; c < 256; c++) {
        char in[4] = {'a', (char)c, 'b', 0};
        const char *out = clean(in);
        if (c < 32 || c == 127) {
            assert_string_equal(out, "ab");
        } else if (c > 127) {
            assert_string_equal(out, "a?b");
        } else {
            assert_string_equal(out, in);
        }
    }
    assert_string_equal(clean("x\r\nocsp_state:good\x1b[31m"), "xocsp_state:good[31m");
}

TEST(cleanText_isCutToTheLimitAndTheBuffer) {
    char in[1000], out[1000];
    memset(in, 'x', sizeof(in) - 1);
    in[sizeof(in) - 1] = 0;
    assert_int_equal(strlen(ocspCleanText(out, sizeof(out), in)), OCSP_OUTSIDE_TEXT_MAX);
    for (size_t size = 1; size < 50; size++) {
        memset(out, '#', sizeof(out));
        assert_ptr_equal(ocspCleanText(out, size, in), out);
        assert_int_equal(strlen(out), size - 1);
        assert_true(out[size] == '#'); /* nothing beyond its end is written */
    }
    out[0] = '#';
    ocspCleanText(out, 0, in);
    assert_true(out[0] == '#');
}

/* RFC 3986 section 2.1. */
TEST(percentDecode_table) {
    static const struct {
        const char *in, *out; /* out NULL: refused */
    } rows[] = {{"", ""},         {"user:pw", "user:pw"}, {"%41%7a%7A", "Azz"}, {"p%40ss%3Aw%2Frd%25", "p@ss:w/rd%"},
                {"%2541", "%41"}, /* once */
                {"a+b", "a+b"},   {"%01%ff", "\x01\xff"}, {"%", NULL},          {"a%4", NULL},
                {"%g0", NULL},    {"%0g", NULL},          {"% 41", NULL},       {"%-1", NULL},
                {"%0x", NULL},    {"%\x11\x12", NULL},    {"%%41", NULL},       {"a%00b", NULL}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[40];
        snprintf(text, sizeof(text), "%s", rows[i].in);
        if (ocspPercentDecode(text) != (rows[i].out != NULL)) fail_msg("%s", rows[i].in);
        if (rows[i].out) assert_string_equal(text, rows[i].out);
    }
}

TEST(refreshMargin_acceptsOneToNinetyNine) {
    for (int n = -5; n < 250; n++) {
        for (int sign = 0; sign < 2; sign++) {
            char text[16];
            const char *why = NULL;
            int percent = -77;
            snprintf(text, sizeof(text), sign ? "%d%%" : "%d", n);
            int ok = ocspParseRefreshMargin(text, &percent, &why);
            assert_int_equal(ok, n >= 1 && n <= 99);
            if (ok) {
                assert_int_equal(percent, n);
            } else {
                assert_int_equal(percent, -77);
                assert_non_null(why);
                assert_non_null(strstr(why, "99")); /* the reason names the valid range */
            }
        }
    }
}

TEST(refreshMargin_rejectsEverythingElse) {
    static const char *const bad[] = {"",
                                      "%",
                                      " ",
                                      "ten",
                                      "10%%",
                                      "10 %",
                                      " 10",
                                      "10 ",
                                      "+10",
                                      "1e1",
                                      "0x10",
                                      "10.5",
                                      "10,5%",
                                      "-10%",
                                      "18446744073709551626",
                                      "4294967306",
                                      "99999999999999999999999%",
                                      "10\n",
                                      "%10"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *why = NULL;
        int percent = -77;
        if (ocspParseRefreshMargin(bad[i], &percent, &why)) fail_msg("accepted \"%s\"", bad[i]);
        assert_non_null(why);
        assert_int_equal(percent, -77);
    }
}

TEST(responderUrl_acceptsHttpAndHttps) {
    static const char *const good[] = {"",
                                       "http://ocsp.example.com",
                                       "http://ocsp.example.com/",
                                       "https://ocsp.example.com:8443/path/x?y=1",
                                       "http://127.0.0.1:80",
                                       "http://[::1]:8080/ocsp"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        const char *why = NULL;
        if (!ocspCheckResponderUrl(good[i], &why)) fail_msg("rejected \"%s\": %s", good[i], why);
    }
    const char *why = NULL;
    assert_true(ocspCheckResponderUrl(NULL, &why));
}

/* RFC 3986 allows both in a path and a query; what is left of an @ there is no user. */
TEST(responderUrl_acceptsAtAndColonBehindTheHost) {
    static const char *const good[] = {"http://a/in:path", "http://a/with@at", "http://a:1/?u=a@b", "http://a/@b/"};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        const char *why = NULL;
        if (!ocspCheckResponderUrl(good[i], &why)) fail_msg("rejected \"%s\": %s", good[i], why);
    }
}

TEST(responderUrl_rejectsEverythingElseWithAReason) {
    static const char *const bad[] = {"ocsp.example.com",
                                      "ftp://a/",
                                      "ldap://a/",
                                      "file:///etc/passwd",
                                      "http:/a",
                                      "http://",
                                      "https://",
                                      "http:///path",
                                      "http://user@a/",
                                      "http://user:pw@a/",
                                      "https://:pw@a/",
                                      "http://@a/",
                                      "http://a b/",
                                      "http://a/\r\nHost: b",
                                      "http://a/\x01",
                                      "http://a:notaport/",
                                      "http://a:99999/",
                                      "http://a:0/",
                                      "http://a:4294967376/",
                                      "http://a:10376293541461622800/",
                                      "http://[::1/",
                                      " http://a/",
                                      "httpx://a/",
                                      "http://u%40x@a",
                                      "http://:80/",
                                      "http://\xc3\xa4.example/"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *why = NULL;
        if (ocspCheckResponderUrl(bad[i], &why)) fail_msg("accepted \"%s\"", bad[i]);
        assert_non_null(why);
        assert_true(strlen(why) > 20);
    }
}

TEST(proxy_acceptsNoneAndHttpUrls) {
    static const char *const good[] = {"",
                                       "none",
                                       "NONE",
                                       "http://proxy.example.com:3128",
                                       "HTTP://proxy.example.com:3128/",
                                       "http://127.0.0.1:8080",
                                       "http://[::1]:8080",
                                       "http://user:secret@proxy.example.com:3128",
                                       "http://user:@proxy.example.com:3128",
                                       "http://us%65r:p%40ss%3aword%2F%25@[::1]:1/",
                                       "http://user:a:b@a:65535"};
    const char *why = NULL;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!ocspCheckProxy(good[i], &why)) fail_msg("rejected \"%s\": %s", good[i], why);
    assert_true(ocspCheckProxy(NULL, &why));
    assert_int_equal(ERR_peek_error(), 0);
}

/* With a sentence that says what is valid and does not repeat the value. */
TEST(proxy_rejectsEverythingElseWithAReason) {
    static const struct {
        const char *value, *words;
    } bad[] = {{"no", "none, or http://"},
               {"none ", "none, or http://"},
               {"proxy:3128", "none, or http://"},
               {"https://proxy:3128", "none, or http://"},
               {"socks5://secret:secret@proxy:1080", "none, or http://"},
               {"http://", "none, or http://"},
               {"http://:3128", "none, or http://"},
               {"http://proxy", "host:port"},
               {"http://proxy:", "host:port"},
               {"http://proxy:0", "host:port"},
               {"http://proxy:65536", "host:port"},
               {"http://proxy:secret", "host:port"},
               {"http://user:secret@proxy", "host:port"},
               {"http://user:3128@proxy", "host:port"},
               {"http://secret@proxy:3128", "user:password"},
               {"http://user:secret@:3128", "host:port"},
               {"http://[::1]", "host:port"},
               {"http://[::1:3128", "host:port"},
               {"http://proxy:3128/secret", "host:port"},
               {"http://proxy:3128//", "host:port"},
               {"http://proxy:3128?secret", "host:port"},
               {"http://proxy:3128#secret", "host:port"},
               {" http://proxy:3128", "none, or http://"},
               {"http://proxy:3128\n", "percent-encoded"},
               {"http://user:my secret@proxy:3128", "a space as %20"},
               {"http://user:s\xc3\xa4"
                "cret@proxy:3128",
                "percent-encoded"},
               {"http://user:12/secret@proxy:3128", "/ as %2F"},
               {"http://user:se?cret@proxy:3128", "? as %3F"},
               {"http://user:12#secret@proxy:3128", "# as %23"},
               {"http://user:s@cret@proxy:3128", "@ as %40"},
               {"http://user:secret%@proxy:3128", "write % as %25"},
               {"http://user:secret%4@proxy:3128", "write % as %25"},
               {"http://user:secret%zz@proxy:3128", "write % as %25"},
               {"http://user:secret%00@proxy:3128", "write % as %25"}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *why = NULL;
        if (ocspCheckProxy(bad[i].value, &why)) fail_msg("accepted \"%s\"", bad[i].value);
        assert_non_null(why);
        if (!strstr(why, bad[i].words) || strstr(why, "secret")) fail_msg("\"%s\": %s", bad[i].value, why);
    }
    assert_int_equal(ERR_peek_error(), 0);
}

TEST(urlParse_passwordIsNoPort) {
    ocspUrl url;
    assert_int_equal(ocspUrlParse(&url, "http://u:0secret@h"), 1); /* of a proxy, in the environment */
    assert_string_equal(url.host, "h");
    assert_string_equal(url.port, "80");
    assert_string_equal(url.user, "u:0secret");
    ocspUrlClear(&url);
}

TEST(responderUrl_leavesNoErrorInOpenSslsQueue) {
    const char *why;
    ocspCheckResponderUrl("http://a:notaport/", &why);
    assert_int_equal(ERR_peek_error(), 0); /* the host's next ERR_get_error must not find the engine's errors */
}

TEST(fail_fillsKindAndSentence) {
    ocspError err;
    assert_int_equal(ocspFail(&err, OCSP_FAIL_HTTP_STATUS, "status %d", 404), 0);
    assert_int_equal(err.kind, OCSP_ERR_HTTP);
    assert_string_equal(ocspErrorWord(err.code), "http-status");
    assert_string_equal(err.text, "status 404");
    char longer[2000];
    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = 0;
    assert_int_equal(ocspFail(&err, OCSP_FAIL_SIGNER, "%s", longer), 0);
    assert_int_equal(strlen(err.text), OCSP_SENTENCE_MAX - 1);
    assert_int_equal(ocspFail(NULL, OCSP_FAIL_SIGNER, "nobody listens"), 0);
}

/* Every reason has a word in the form that docs/behavior.md promises, and counts as one of the four kinds. */
TEST(errorCodes_haveWordsAndKinds) {
    for (int code = 0; code < OCSP_FAIL_CODES; code++) {
        const char *word = ocspErrorWord((ocspErrorCode)code);
        ocspErrorKind kind = ocspErrorKindOf((ocspErrorCode)code);
        assert_non_null(word);
        assert_int_equal(strspn(word, "abcdefghijklmnopqrstuvwxyz-"), strlen(word));
        assert_int_equal(*word == 0, code == OCSP_FAIL_NONE || code == OCSP_FAIL_PEER);
        assert_true(code == OCSP_FAIL_NONE ? kind == OCSP_ERR_NONE : kind > OCSP_ERR_NONE && kind < OCSP_ERR_KINDS);
    }
}

/* OpenSSL's lack of memory replaces the reason, but not the kind; other errors, and errors from before, replace
 * nothing. */
TEST(blameMemory_keepsTheKind) {
    static const struct {
        ocspErrorCode code;
        ocspErrorKind kind;
        const char *word;
    } rows[] = {{OCSP_FAIL_TLS, OCSP_ERR_NETWORK, "tls"},
                {OCSP_FAIL_DER, OCSP_ERR_RESPONSE, "der"},
                {OCSP_FAIL_SIGNATURE, OCSP_ERR_VERIFY, "signature"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        ocspError err = {.may_change_at = OCSP_NEVER};
        ocspFail(&err, rows[i].code, "another reason");
        ERR_clear_error();
        ocspBlameMemory(&err, 1, "testing");
        ERR_raise(ERR_LIB_X509, ERR_R_PASSED_NULL_PARAMETER);
        ocspBlameMemory(&err, 1, "testing");
        ERR_clear_error();
        ERR_raise(ERR_LIB_X509, ERR_R_MALLOC_FAILURE);
        ERR_raise(ERR_LIB_X509, ERR_R_PASSED_NULL_PARAMETER); /* what follows from it */
        ocspBlameMemory(&err, 0, "testing");
        testAssertError(&err, rows[i].kind, rows[i].word);
        assert_true(err.may_change_at == OCSP_NEVER);
        ocspBlameMemory(&err, 1, "testing");
        testAssertError(&err, rows[i].kind, "memory");
        assert_int_equal(err.may_change_at, 0);
        ocspBlameMemory(NULL, 1, "testing");
    }
    ERR_clear_error();
}

static int live;
static int refuse;
static char last_line[4096];

static void *countingAlloc(size_t n) {
    if (refuse) return NULL;
    void *p = malloc(n);
    if (p) memset(p, 0xa5, n);
    live++;
    return p;
}

static void countingFree(void *p) {
    if (p) live--;
    free(p);
}

static void keepLine(ocspLogLevel level, const char *sentence) {
    snprintf(last_line, sizeof(last_line), "%d %s", (int)level, sentence);
}

TEST(host_providesMemoryAndLog) {
    ocspHost host = {.log = keepLine, .alloc = countingAlloc, .free = countingFree};
    ocspSetHost(&host);
    unsigned char *zeroed = ocspAlloc(100);
    assert_non_null(zeroed);
    for (int i = 0; i < 100; i++) assert_int_equal(zeroed[i], 0);
    char *text = ocspStrdup("text"), *nothing = ocspStrdup(NULL);
    unsigned char *bytes = ocspMemdup("a\0b", 3), *none = ocspMemdup("", 0);
    assert_string_equal(text, "text");
    assert_string_equal(nothing, "");
    assert_memory_equal(bytes, "a\0b", 3);
    assert_non_null(none);
    assert_int_equal(live, 5);
    ocspFree(zeroed);
    ocspFree(text);
    ocspFree(nothing);
    ocspFree(bytes);
    ocspFree(none);
    ocspFree(NULL);
    assert_int_equal(live, 0);

    refuse = 1;
    assert_null(ocspAlloc(1));
    assert_null(ocspStrdup("x"));
    assert_null(ocspMemdup("x", 1));
    refuse = 0;

    ocspLog(OCSP_LOG_WARNING, "%s %d", "answer", 42);
    assert_string_equal(last_line, "3 answer 42");
    ocspSetHost(NULL);
    ocspLog(OCSP_LOG_WARNING, "unheard");
    assert_string_equal(last_line, "3 answer 42");
}
