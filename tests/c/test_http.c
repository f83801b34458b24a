/* test_http.c - HTTP answers of responders and proxies as bytes, and the reader's result. Each answer is read in pieces
 * of several sizes, one byte among them: where the network splits an answer must change nothing.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A source of bytes: gives at most `piece` at a time, then the end of data, or -1 when the connection stays open. */
typedef struct source {
    const char *bytes;
    size_t n, at, piece;
    int open; /* nothing follows, and no end of data either */
    int waited;
} source;

static ssize_t give(void *arg, void *buf, size_t size) {
    source *s = arg;
    size_t n = s->n - s->at;
    assert_true(size > 0);
    if (n == 0 && s->open) {
        s->waited = 1; /* a network would now wait until the time-out */
        return -1;
    }
    if (n > size) n = size;
    if (s->piece && n > s->piece) n = s->piece;
    memcpy(buf, s->bytes + s->at, n);
    s->at += n;
    return (ssize_t)n;
}

typedef struct outcome {
    int ok;
    unsigned char *body;
    size_t n;
    ocspHttpHead head;
    ocspError err;
    source from;
} outcome;

static outcome readAnswer(const char *bytes, size_t n, size_t piece, int open) {
    outcome o = {.body = (unsigned char *)1, .n = 99, .from = {bytes, n, 0, piece, open, 0}};
    ocspHttpReader *r = malloc(sizeof(*r));
    assert_non_null(r);
    memset(r, 0x5a, sizeof(*r)); /* nothing of an answer before it may matter */
    ocspHttpStart(r, give, &o.from, &o.err);
    o.ok = ocspHttpReadHead(r, &o.head) && ocspHttpCheckHead(&o.head, &o.err);
    if (o.ok) {
        o.ok = ocspHttpReadBody(r, &o.head, &o.body, &o.n);
        if (!o.ok) {
            assert_null(o.body);
            assert_int_equal(o.n, 0);
        }
    } else {
        o.body = NULL;
    }
    free(r);
    return o;
}

static const size_t pieces[] = {0, 1, 2, 3, 5, 7, 64};
#define PIECES (sizeof(pieces) / sizeof(pieces[0]))

/* ---- tables of answers ------------------------------------------------------------------------------------------- */

typedef struct row {
    const char *name, *answer, *body; /* body NULL: rejected */
    ocspErrorKind kind;
    const char *word, *named; /* the reason; what the message names from the answer */
} row;

#define TYPE "Content-Type: application/ocsp-response\r\n"
#define OK "HTTP/1.1 200 OK\r\n" TYPE
#define CHUNKED OK "Transfer-Encoding: chunked\r\n\r\n"
#define GOOD(name, answer) \
    { name, answer, "hello", OCSP_ERR_NONE, "", "" }
#define BAD(name, answer, kind, word, named) \
    { name, answer, NULL, kind, word, named }

static void checkRow(const row *t, size_t piece) {
    outcome o = readAnswer(t->answer, strlen(t->answer), piece, 0);
    if (t->body) {
        if (!o.ok) fail_msg("%s, pieces of %zu: rejected: %s", t->name, piece, o.err.text);
        if (o.n != strlen(t->body) || memcmp(o.body ? (char *)o.body : "", t->body, o.n) != 0)
            fail_msg("%s, pieces of %zu: another body, of %zu bytes", t->name, piece, o.n);
    } else {
        if (o.ok) fail_msg("%s, pieces of %zu: accepted", t->name, piece);
        if (o.err.kind != t->kind || strcmp(ocspErrorWord(o.err.code), t->word) != 0 || !strstr(o.err.text, t->named))
            fail_msg("%s, pieces of %zu: kind %d (%s) and not %d (%s), \"%s\" in: %s", t->name, piece, o.err.kind,
                     ocspErrorWord(o.err.code), t->kind, t->word, t->named, o.err.text);
        for (const char *c = o.err.text; *c; c++)
            if ((unsigned char)*c < 32 || (unsigned char)*c > 126) fail_msg("%s: byte %d in the message", t->name, *c);
    }
    ocspFree(o.body);
}

static void checkRows(const row *rows, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < PIECES; k++) checkRow(&rows[i], pieces[k]);
}
#define CHECK(rows) checkRows(rows, sizeof(rows) / sizeof(rows[0]))

TEST(answer_interimOnesAreSkipped) {
    static const row rows[] = {
        GOOD("100", "HTTP/1.1 100 Continue\r\n\r\n" OK "Content-Length: 5\r\n\r\nhello"),
        GOOD("103 with fields", "HTTP/1.1 103 Early Hints\r\nLink: <x>\r\nContent-Length: 99\r\n\r\n" OK "\r\nhello"),
        GOOD("102, 100, 199", "HTTP/1.1 102 \r\n\r\nHTTP/1.1 100\n\nHTTP/1.0 199 x\r\nA: b\r\n\r\n" OK "\r\nhello"),
        GOOD("its fields do not count",
             "HTTP/1.1 100 C\r\nContent-Type: text/html\r\nContent-Encoding: gzip\r\nTransfer-Encoding: gzip\r\n\r\n" OK
             "\r\nhello"),
        BAD("then nothing", "HTTP/1.1 100 Continue\r\n\r\n", OCSP_ERR_NETWORK, "closed", ""),
        BAD("then half a header", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200", OCSP_ERR_NETWORK, "closed", ""),
        BAD("then 404", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 No\r\n\r\n", OCSP_ERR_HTTP, "http-status", "404"),
        BAD("then no HTTP", "HTTP/1.1 100 Continue\r\n\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("101 is an error", "HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n" OK "\r\nhello", OCSP_ERR_HTTP,
            "http-status", "101"),
    };
    CHECK(rows);
}

TEST(body_chunked) {
    static const row rows[] = {
        GOOD("one chunk", CHUNKED "5\r\nhello\r\n0\r\n\r\n"),
        GOOD("several", CHUNKED "1\r\nh\r\n3\r\nell\r\n1\r\no\r\n0\r\n\r\n"),
        GOOD("hexadecimal, both cases, zeros before it", CHUNKED "0000005\r\nhello\r\n000\r\n\r\n"),
        GOOD("blanks behind the size", CHUNKED "5  \r\nhello\r\n0 \r\n\r\n"),
        GOOD("extensions", CHUNKED "5;a=b;c=\"d;\\\"e\"\r\nhello\r\n0 ; x\r\n\r\n"),
        GOOD("trailers", CHUNKED "5\r\nhello\r\n0\r\nDigest: x\r\nContent-Encoding: gzip\r\n\r\n"),
        GOOD("line feeds alone", CHUNKED "5\nhello\n0\n\n"),
        GOOD("line feeds and CR LF", "HTTP/1.1 200 OK\n" TYPE "Transfer-Encoding: chunked\n\n5\r\nhello\n0\r\n\n"),
        GOOD("more behind the last chunk", CHUNKED "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 500 x\r\n\r\n"),
        GOOD("Content-Length beside it",
             OK "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        GOOD("two Content-Lengths beside it",
             OK "Content-Length: 3, 99999\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        GOOD("in HTTP/1.0", "HTTP/1.0 200 OK\r\n" TYPE "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        GOOD("in capitals", OK "TRANSFER-ENCODING: Chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        GOOD("with identity", OK "Transfer-Encoding: identity, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        {"an empty body", CHUNKED "0\r\n\r\n", "", OCSP_ERR_NONE, "", ""},
        {"hexadecimal digits", CHUNKED "a\r\n0123456789\r\nB\r\n0123456789a\r\n0\r\n\r\n", "01234567890123456789a",
         OCSP_ERR_NONE, "", ""},
        BAD("no size", CHUNKED "\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("no digit", CHUNKED "x\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", "\"x\""),
        BAD("0x", CHUNKED "0x5\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", "\"0x5\""),
        BAD("a sign", CHUNKED "+5\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", "\"+5\""),
        BAD("a blank before it", CHUNKED " 5\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("two numbers", CHUNKED "5 5\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("17 digits", CHUNKED "00000000000000005\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("a chunk that is longer", CHUNKED "4\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("a chunk that is shorter", CHUNKED "7\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("no chunks", CHUNKED "hello", OCSP_ERR_NETWORK, "closed", ""),
        BAD("a CR in a size", CHUNKED "5\r;\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body", ""),
        BAD("ends in a size", CHUNKED "5", OCSP_ERR_NETWORK, "closed", ""),
        BAD("ends in a chunk", CHUNKED "5\r\nhel", OCSP_ERR_NETWORK, "closed", "3 of the 5 bytes"),
        BAD("ends behind a chunk", CHUNKED "5\r\nhello\r\n", OCSP_ERR_NETWORK, "closed", ""),
        BAD("ends in the last chunk", CHUNKED "5\r\nhello\r\n0\r\n", OCSP_ERR_NETWORK, "closed", ""),
        BAD("over 64 KiB in one", CHUNKED "10001\r\nhello", OCSP_ERR_HTTP, "http-body", "65536"),
        BAD("2^64 + 5", CHUNKED "fffffffffffffffb\r\nhello", OCSP_ERR_HTTP, "http-body", "65536"),
        BAD("behind one that fits", CHUNKED "5\r\nhello\r\nfffc\r\n", OCSP_ERR_HTTP, "http-body", "65536"),
    };
    CHECK(rows);
}

TEST(body_otherEncodingsAreNamed) {
    static const row rows[] = {
        GOOD("identity is none", OK "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello"),
        GOOD("an empty one is none", OK "Transfer-Encoding:\r\nContent-Length: 5\r\n\r\nhello"),
        GOOD("Content-Encoding: identity", OK "Content-Encoding: Identity\r\nContent-Length: 5\r\n\r\nhello"),
        GOOD("an empty one", OK "Content-Encoding: \r\nContent-Length: 5\r\n\r\nhello"),
        BAD("gzip", OK "Transfer-Encoding: gzip\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", "Transfer-Encoding is gzip"),
        BAD("gzip, chunked", OK "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP,
            "http-body", "Transfer-Encoding is gzip"),
        BAD("in two fields", OK "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            OCSP_ERR_HTTP, "http-body", "Transfer-Encoding is gzip"),
        BAD("chunked twice", OK "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", OCSP_ERR_HTTP, "http-body",
            "chunked twice"),
        BAD("chunked in two fields",
            OK "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", OCSP_ERR_HTTP,
            "http-body", "chunked twice"),
        BAD("made harmless", OK "Transfer-Encoding: a\x01\xff\tb\r\n\r\nhello", OCSP_ERR_HTTP, "http-body",
            "Transfer-Encoding is a?b,"),
        BAD("Content-Encoding: gzip", OK "Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\nhello", OCSP_ERR_HTTP,
            "http-body", "Content-Encoding is gzip"),
        BAD("br, chunked",
            OK "content-encoding: identity, br\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            OCSP_ERR_HTTP, "http-body", "Content-Encoding is br"),
    };
    CHECK(rows);
}

TEST(contentLength_table) {
    static const row rows[] = {
        GOOD("once", OK "Content-Length: 5\r\n\r\nhello and more"),
        GOOD("zeros before it", OK "Content-Length: 00000000000000000000005\r\n\r\nhello"),
        GOOD("twice in one field", OK "Content-Length: 5, 5\r\n\r\nhello"),
        GOOD("twice in two fields", OK "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
        GOOD("three times", OK "Content-Length: 5,5\r\ncontent-length:5 \r\n\r\nhello"),
        GOOD("empty elements", OK "Content-Length: , 5,,\r\n\r\nhello"),
        {"nothing", OK "Content-Length: 0\r\n\r\nhello", "", OCSP_ERR_NONE, "", ""},
        BAD("two that differ", OK "Content-Length: 5, 6\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("in two fields", OK "Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("three, two of them equal", OK "Content-Length: 5, 4, 5\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("no number beside one", OK "Content-Length: 5, x\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("no number", OK "Content-Length: five\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("two numbers", OK "Content-Length: 5 5\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("no value", OK "Content-Length:\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("65537", OK "Content-Length: 65537\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", "65537"),
        BAD("2^64 + 5", OK "Content-Length: 18446744073709551621\r\n\r\nhello", OCSP_ERR_HTTP, "http-body", ""),
        BAD("short", OK "Content-Length: 6\r\n\r\nhello", OCSP_ERR_NETWORK, "closed", "5 of the 6 bytes"),
    };
    CHECK(rows);
}

TEST(header_linesAndFields) {
    static const row rows[] = {
        GOOD("line feeds alone",
             "HTTP/1.1 200 OK\nContent-Type: application/ocsp-response\nContent-Length: 5\n\nhello"),
        GOOD("both", "HTTP/1.1 200 OK\n" TYPE "Content-Length: 5\n\r\nhello"),
        GOOD("both, the other way", "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 5\r\n\nhello"),
        GOOD("folded", OK "X: a\r\n b: c\r\nContent-Length:\r\n\t5\n \r\n\r\nhello"),
        GOOD("a folded type", "HTTP/1.1 200 OK\r\nContent-Type:\r\n application/ocsp-response\r\n\r\nhello"),
        GOOD("what is no field", OK "nonsense\r\nContent-Length: 5\r\n\r\nhello"),
        GOOD("blanks around values", OK "Content-Length:  \t5 \t\r\n\r\nhello"),
        GOOD("no reason phrase", "HTTP/1.1 200\r\n" TYPE "\r\nhello"),
        GOOD("empty lines first", "\r\n\n\r\n" OK "Content-Length: 5\r\n\r\nhello"),
        BAD("folded, chunked and gzip", OK "Transfer-Encoding: chunked,\r\n gzip\r\n\r\nhello", OCSP_ERR_HTTP,
            "http-body", "Transfer-Encoding is gzip"),
        BAD("a CR within a line", OK "X: a\rTransfer-Encoding: chunked\r\n\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("two CRs", OK "X: a\r\r\n\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("a CR in the status line", "HTTP/1.1 200 OK\r" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("a blank before the colon", OK "Content-Length : 5\r\n\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("closed in a field", OK "Content-Length: 5\r\n", OCSP_ERR_NETWORK, "closed", ""),
        BAD("closed in the status line", "HTTP/1.", OCSP_ERR_NETWORK, "closed", ""),
        BAD("nothing", "", OCSP_ERR_NETWORK, "closed", ""),
    };
    CHECK(rows);
    static const char nul[] = OK "X: a\0b\r\n\r\nhello";
    outcome o = readAnswer(nul, sizeof(nul) - 1, 0, 0);
    assert_int_equal(o.ok, 0);
    testAssertError(&o.err, OCSP_ERR_HTTP, "http-header");
}

TEST(statusLine_notHttpIsRejected) {
    static const row rows[] = {
        BAD("a BOM", "\xef\xbb\xbf" OK "\r\nhello", OCSP_ERR_HTTP, "http-header", "BOM"),
        BAD("HTTP/0.9", "0\x03\x0a\x01\x01", OCSP_ERR_HTTP, "http-header", "HTTP/0.9"),
        BAD("TLS", "\x15\x03\x03\x01\x02\x02\x28", OCSP_ERR_HTTP, "http-header", "https://"),
        BAD("HTTP/2", "HTTP/2 200\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("SSH", "SSH-2.0-OpenSSH_9.2\r\n", OCSP_ERR_HTTP, "http-header", ""),
        BAD("ICY", "ICY 200 OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("a page", "<html>\r\n", OCSP_ERR_HTTP, "http-header", "\"<"),
        BAD("control bytes", "\x01\x1b[31m\r\nocsp_state:good\r\n", OCSP_ERR_HTTP, "http-header", ""),
        BAD("a letter for a digit", "HTTP/1.1 2OO OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header",
            "\"HTTP/1.1 2OO OK\""),
        BAD("two digits", "HTTP/1.1 20 OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("four digits", "HTTP/1.1 2000 OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("status 099", "HTTP/1.1 099 OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("no minor version", "HTTP/1.x 200 OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("no blank", "HTTP/1.1200 OK\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
        BAD("too short", "HTTP/1.1\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP, "http-header", ""),
    };
    CHECK(rows);
}

TEST(contentType_table) {
#define ONE "HTTP/1.1 200 OK\r\n"
    static const row rows[] = {
        GOOD("in odd case", ONE "cOnTeNt-TyPe: Application/OCSP-Response\r\n\r\nhello"),
        GOOD("with parameters", ONE "Content-Type: application/ocsp-response; charset=\"a,b\";x\r\n\r\nhello"),
        GOOD("twice, equal", ONE TYPE TYPE "\r\nhello"),
        GOOD("twice, equal but for case and parameters",
             ONE TYPE "content-type: APPLICATION/ocsp-response;charset=utf-8\r\n\r\nhello"),
        GOOD("twice in one field",
             ONE "Content-Type: application/ocsp-response, application/ocsp-response\r\n\r\nhello"),
        BAD("twice, the wrong one first", ONE "Content-Type: text/html\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP,
            "http-type", "text/html and application/ocsp-response: "),
        BAD("twice, the wrong one last", ONE TYPE "Content-Type: text/html\r\n\r\nhello", OCSP_ERR_HTTP, "http-type",
            "application/ocsp-response and text/html: "),
        BAD("twice in one field, different", ONE "Content-Type: application/ocsp-response, text/html\r\n\r\nhello",
            OCSP_ERR_HTTP, "http-type", "text/html"),
        BAD("none", ONE "\r\nhello", OCSP_ERR_HTTP, "http-type", ""),
        BAD("an empty one", ONE "Content-Type: \r\n\r\nhello", OCSP_ERR_HTTP, "http-type", ""),
        BAD("a page", ONE "Content-Type: text/html\r\nContent-Encoding: gzip\r\n\r\nhello", OCSP_ERR_HTTP, "http-type",
            "text/html"),
        BAD("longer", ONE "Content-Type: application/ocsp-responses\r\n\r\nhello", OCSP_ERR_HTTP, "http-type",
            "application/ocsp-responses"),
        BAD("a control byte within", ONE "Content-Type: application/ocsp-\x0eresponse\r\n\r\nhello", OCSP_ERR_HTTP,
            "http-type", "Content-Type is application/ocsp-response and not"),
        BAD("made harmless", ONE "Content-Type: text/\x1b[31m\xc3\xa4\r\n\r\nhello", OCSP_ERR_HTTP, "http-type",
            "text/[31m?? and"),
    };
    CHECK(rows);
}

TEST(redirect_targetIsReported) {
    static const row rows[] = {
        BAD("302", "HTTP/1.1 302 Found\r\nLocation: http://new.example/ocsp?x=1\r\n\r\n", OCSP_ERR_HTTP, "http-status",
            "http://new.example/ocsp?x=1"),
        BAD("308, relative", "HTTP/1.1 308 Permanent\r\nlocation: /moved\r\n" TYPE "\r\nhello", OCSP_ERR_HTTP,
            "http-status", "/moved"),
        BAD("without a Location", "HTTP/1.1 301 Moved\r\n\r\n", OCSP_ERR_HTTP, "http-status", "301"),
        BAD("made harmless", "HTTP/1.1 307 T\r\nLocation: http://a/\x07\x1b[1m\xe9\r\n\r\n", OCSP_ERR_HTTP,
            "http-status", "http://a/[1m?"),
        BAD("of another status", "HTTP/1.1 500 Oops\r\nLocation: http://a/\r\n\r\n", OCSP_ERR_HTTP, "http-status",
            "500"),
    };
    CHECK(rows);
    char answer[2000] = "HTTP/1.1 302 Found\r\nLocation: http://a/";
    memset(answer + strlen(answer), 'x', 1000);
    strcat(answer, "\r\n\r\n");
    outcome o = readAnswer(answer, strlen(answer), 0, 0);
    assert_int_equal(strlen(strstr(o.err.text, "http://a/")), OCSP_OUTSIDE_TEXT_MAX);
}

/* ---- bounds ------------------------------------------------------------------------------------------------------ */

/* `begin`, then `filler` again and again until there are `total` bytes, then `end`. */
static outcome readLong(const char *begin, const char *filler, size_t total, const char *end, size_t piece) {
    testBytes all = testJoin(testCopy(begin, strlen(begin)), testCopy("", 0));
    size_t fill = total - strlen(begin);
    char *middle = malloc(fill + 1);
    assert_non_null(middle);
    for (size_t i = 0; i < fill; i++) middle[i] = filler[i % strlen(filler)];
    all = testJoin(all, testCopy(middle, fill));
    all = testJoin(all, testCopy(end, strlen(end)));
    outcome o = readAnswer((const char *)all.p, all.n, piece, 0);
    free(middle);
    testBytesFree(&all);
    return o;
}

/* The header of the final answer and all interim ones share 16 KiB; one byte more is too long. */
TEST(header_isBounded) {
    static const struct {
        const char *begin, *filler, *end;
    } rows[] = {{OK "X: ", "y", "\r\n\r\nhello"},
                {OK "X: ", "y", "\n\nhello"},
                {OK "A: b", "\r\n c", "\r\n\r\nhello"},
                {"HTTP/1.1 100 C\r\nX: ", "y", "\r\n\r\n" OK "\r\nhello"},
                {"\r\n", "\r\n", OK "\r\nhello"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        size_t room = OCSP_MAX_HEADER_BYTES - (strlen(rows[i].end) - 5);
        for (size_t over = 0; over < 2; over++)
            for (size_t k = 0; k < 3; k++) {
                outcome o = readLong(rows[i].begin, rows[i].filler, room + over, rows[i].end, pieces[k]);
                if (o.ok == (int)over) fail_msg("row %zu, %zu bytes too many: %s", i, over, o.err.text);
                if (over) testAssertError(&o.err, OCSP_ERR_NETWORK, "http-header");
                ocspFree(o.body);
            }
    }
    /* Interim answers without an end. */
    outcome o = readLong("HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\n\r\n", 100000, "", 0);
    assert_int_equal(o.ok, 0);
    testAssertError(&o.err, OCSP_ERR_NETWORK, "http-header");
    assert_true(o.from.at <= 2 * OCSP_MAX_HEADER_BYTES);
}

/* A chunked body has the bound of any other; so have its extensions and trailers in all. What exceeds a bound is not
 * read to its end. */
TEST(body_chunkedIsBounded) {
    outcome o = readLong(CHUNKED "10000\r\n", "b", strlen(CHUNKED "10000\r\n") + 65536, "\r\n0\r\n\r\n", 0);
    assert_int_equal(o.ok, 1);
    assert_int_equal(o.n, OCSP_MAX_RESPONSE_BYTES);
    ocspFree(o.body);
    /* As many chunks as there can be: their sizes alone are more than a header may have. */
    size_t head = strlen(CHUNKED);
    o = readLong(CHUNKED, "1\r\nb\r\n", head + 6 * 65536, "0\r\n\r\n", 0);
    if (!o.ok) fail_msg("%s", o.err.text);
    assert_int_equal(o.n, OCSP_MAX_RESPONSE_BYTES);
    ocspFree(o.body);
    static const struct {
        const char *begin, *filler;
    } rows[] = {{CHUNKED, "1\r\nb\r\n"},
                {CHUNKED "5;x=", "y"},
                {CHUNKED, "1;xxxxxxxxxx\r\nb\r\n"},
                {CHUNKED "0\r\n", "A: b\r\n"},
                {CHUNKED "0\r\nA: ", "b"},
                {CHUNKED "5\r\nhello", "x"},
                {CHUNKED, "0"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        o = readLong(rows[i].begin, rows[i].filler, 1000000, "", 0);
        if (o.ok) fail_msg("row %zu: accepted", i);
        testAssertError(&o.err, OCSP_ERR_HTTP, "http-body");
        assert_true(o.from.at < 500000);
    }
    /* Exactly the bound, and one more. */
    size_t room = OCSP_MAX_HEADER_BYTES - 2;
    for (size_t over = 0; over < 2; over++) {
        o = readLong(CHUNKED "5\r\nhello\r\n0\r\nA: ", "b", strlen(CHUNKED "5\r\nhello\r\n0\r\n") + room - 2 + over,
                     "\r\n\r\n", 0);
        if (o.ok == (int)over) fail_msg("%zu: %s", over, o.err.text);
        ocspFree(o.body);
    }
}

/* ---- a body without a length ------------------------------------------------------------------------------------- */

typedef struct derRow {
    const char *name, *bytes;
    size_t n;
    int waits; /* whether, on a connection that stays open, more is waited for */
} derRow;

TEST(body_withoutLengthEndsWithTheDer) {
#define ROW(name, bytes, waits) \
    { name, bytes, sizeof(bytes) - 1, waits }
    static const derRow rows[] = {
        ROW("a short SEQUENCE", "0\x05hello", 0),
        ROW("an empty one", "0\0", 0),
        ROW("one byte of length", "0\x81\x05hello", 0),
        ROW("two", "0\x82\0\x05hello", 0),
        ROW("four", "0\x84\0\0\0\x05hello", 0),
        ROW("a byte is missing", "0\x05hell", 1),
        ROW("half a length", "0\x82\0", 1),
        ROW("its first byte alone", "0", 1),
        ROW("an indefinite length", "0\x80hello\0\0", 1),
        ROW("five bytes of length", "0\x85\0\0\0\0\x05hello", 1),
        ROW("a SET", "1\x05hello", 1),
        ROW("no DER", "hello", 1),
        ROW("more than is allowed", "0\x83\x01\0\x01hello", 1),
        ROW("2^32 - 1", "0\x84\xff\xff\xff\xffhello", 1),
        ROW("nothing", "", 1),
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (size_t k = 0; k < PIECES; k++) {
            testBytes all = testJoin(testCopy(OK "\r\n", strlen(OK "\r\n")), testCopy(rows[i].bytes, rows[i].n));
            outcome o = readAnswer((const char *)all.p, all.n, pieces[k], 1);
            if (o.ok == rows[i].waits || o.from.waited != rows[i].waits)
                fail_msg("%s, pieces of %zu: %s", rows[i].name, pieces[k], o.ok ? "does not wait" : "waits");
            if (o.ok && (o.n != rows[i].n || memcmp(o.body, rows[i].bytes, o.n) != 0)) fail_msg("%s", rows[i].name);
            ocspFree(o.body);
            /* Closed in the end: all that came. */
            o = readAnswer((const char *)all.p, all.n, pieces[k], 0);
            if (!o.ok || o.n != rows[i].n || (o.n && memcmp(o.body, rows[i].bytes, o.n) != 0))
                fail_msg("%s, pieces of %zu: %s", rows[i].name, pieces[k], o.err.text);
            ocspFree(o.body);
            testBytesFree(&all);
        }
}

/* Bytes that came with the DER are handed on, so that ocspVerify rejects them: no wait, and no truncation. */
TEST(body_bytesBehindTheDerAreHandedOn) {
    static const char answer[] = OK "\r\n0\x05hello!";
    outcome o = readAnswer(answer, sizeof(answer) - 1, 0, 1);
    assert_int_equal(o.ok, 1);
    assert_int_equal(o.n, 8);
    ocspFree(o.body);
    /* Not with a length, nor in chunks: those say where the body ends. */
    static const char longer[] = OK "Content-Length: 8\r\n\r\n0\x05hello", chunk[] = CHUNKED "7\r\n0\x05hello\r\n";
    o = readAnswer(longer, sizeof(longer) - 1, 0, 1);
    assert_int_equal(o.ok, 0);
    assert_int_equal(o.from.waited, 1);
    o = readAnswer(chunk, sizeof(chunk) - 1, 0, 1);
    assert_int_equal(o.ok, 0);
    assert_int_equal(o.from.waited, 1);
}

TEST(body_withoutLengthIsBounded) {
    for (size_t over = 0; over < 2; over++) {
        outcome o = readLong(OK "\r\n", "b", strlen(OK "\r\n") + OCSP_MAX_RESPONSE_BYTES + over, "", 0);
        assert_int_equal(o.ok, !over);
        if (over) testAssertError(&o.err, OCSP_ERR_HTTP, "http-body");
        ocspFree(o.body);
    }
    outcome o = readLong(OK "\r\n0\x83\x01", "b", 1000000, "", 0);
    assert_int_equal(o.ok, 0);
    testAssertError(&o.err, OCSP_ERR_HTTP, "http-body");
    assert_true(o.from.at < 100000);
}

/* An answer that says where it ends is complete there, without waiting for the end of the connection. */
TEST(body_completeIsNotWaitedFor) {
    static const char *const answers[] = {OK "Content-Length: 5\r\n\r\nhello", OK "Content-Length: 0\r\n\r\n",
                                          CHUNKED "5\r\nhello\r\n0\r\n\r\n", CHUNKED "5\nhello\n0\nA: b\n\n"};
    for (size_t i = 0; i < 4; i++)
        for (size_t k = 0; k < PIECES; k++) {
            outcome o = readAnswer(answers[i], strlen(answers[i]), pieces[k], 1);
            assert_int_equal(o.ok, 1);
            assert_int_equal(o.from.waited, 0);
            ocspFree(o.body);
        }
}
