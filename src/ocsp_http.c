/* ocsp_http.c - reads one HTTP/1.x response: status line, header fields, body (RFC 9110, RFC 9112).
 *
 * The bytes come from a function that the caller supplies, so nothing here depends on sockets, TLS or time. Every part
 * is bounded: the header with all interim responses to 16 KiB, the body to 64 KiB, chunk extensions and trailers
 * together to 16 KiB.
 *
 * The framing is parsed as leniently as RFC 9112 allows a client. Each connection carries one response and is then
 * closed, no other HTTP parser reads the same bytes later, and the OCSP response in the body is signed: a disagreement
 * about the framing can lose a response, but not smuggle one.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define OCSP_MIME_RESPONSE "application/ocsp-response"

void ocspHttpStart(ocspHttpReader *r, ssize_t (*read)(void *, void *, size_t), void *source, ocspError *err) {
    r->read = read;
    r->source = source;
    r->err = err;
    r->budget = OCSP_MAX_HEADER_BYTES;
    r->in_body = r->interim = 0;
    r->at = r->got = 0;
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

/* Reads more bytes into the buffer, after moving the unread ones to its start. Returns 1, or 0 at the end of data, with
 * a sentence in *err, or when cancelled. */
static int ocspHttpMore(ocspHttpReader *r) {
    ssize_t n;

    memmove(r->buf, r->buf + r->at, r->got - r->at);
    r->got -= r->at;
    r->at = 0;
    n = r->read(r->source, r->buf + r->got, sizeof(r->buf) - r->got);
    if (n < 0) return 0;
    r->got += (size_t)n;
    if (n > 0) return 1;
    if (r->in_body)
        return ocspFail(r->err, OCSP_FAIL_CLOSED, "the connection was closed before the last chunk of the answer");
    if (r->got > 0 || r->budget < OCSP_MAX_HEADER_BYTES)
        return ocspFail(r->err, OCSP_FAIL_CLOSED, "the connection was closed in the middle of the answer's header%s",
                        r->interim ? ", after an interim answer" : "");
    return ocspFail(r->err, OCSP_FAIL_CLOSED, "the connection was closed without an answer");
}

static int ocspHttpOverBudget(ocspHttpReader *r) {
    if (r->in_body)
        return ocspFail(r->err, OCSP_FAIL_HTTP_BODY,
                        "the chunk extensions and trailers of the answer have more than %d bytes",
                        OCSP_MAX_HEADER_BYTES);
    return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER_ENDLESS, "the answer's header does not end within %d bytes",
                    OCSP_MAX_HEADER_BYTES);
}

/* Returns the next line without its line end, NUL-terminated, or NULL on failure. Valid until the next read. A line
 * ends with CR LF or LF (RFC 9112 section 2.2). With `folds` a line that begins with a blank continues the previous one
 * (RFC 9112 section 5.2). Charges the line to the budget. */
static char *ocspHttpLine(ocspHttpReader *r, int folds) {
    size_t n = 0;
    char *line;

    for (;;) {
        size_t there = r->got - r->at;
        int empty;
        line = r->buf + r->at;
        while (n < there && line[n] != '\n') n++;
        if (n >= r->budget) {
            ocspHttpOverBudget(r);
            return NULL;
        }
        empty = n == 0 || (n == 1 && line[0] == '\r');
        if (n == there || (folds && !empty && n + 1 == there)) {
            if (!ocspHttpMore(r)) return NULL;
            continue;
        }
        if (!folds || empty || (line[n + 1] != ' ' && line[n + 1] != '\t')) break;
        line[n] = ' ';
        if (line[n - 1] == '\r') line[n - 1] = ' ';
    }
    r->at += n + 1;
    r->budget -= n + 1;
    if (n > 0 && line[n - 1] == '\r') n--;
    line[n] = '\0';
    if (strlen(line) == n && !strchr(line, '\r')) return line;
    ocspFail(r->err, r->in_body ? OCSP_FAIL_HTTP_BODY : OCSP_FAIL_HTTP_HEADER,
             "the answer's %s holds a NUL, or a carriage return that ends no line",
             r->in_body ? "chunked encoding" : "header");
    return NULL;
}

/* ---- the status line --------------------------------------------------------------------------------------------- */

/* Fails with a sentence about a response that does not begin as HTTP/1.x. */
static int ocspHttpNotHttp(ocspHttpReader *r) {
    char raw[41], clean[41];
    size_t n = r->got - r->at;

    switch ((unsigned char)r->buf[r->at]) {
    case 0xef:
        return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER,
                        "the answer begins with a byte order mark (BOM) and not with HTTP/1.1: remove it from the "
                        "program or the file that makes the responder's answers");
    case 0x15: /* an alert */
    case 0x16: /* a handshake message */
        return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER,
                        "the answer is TLS and not HTTP: begin the responder's URL with https://");
    case 0x30: /* a DER SEQUENCE */
        return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER,
                        "the answer has no HTTP header (HTTP/0.9): the responder must speak HTTP/1.0 or later");
    default:
        memcpy(raw, r->buf + r->at, n < sizeof(raw) - 1 ? n : sizeof(raw) - 1);
        raw[n < sizeof(raw) - 1 ? n : sizeof(raw) - 1] = '\0';
        raw[strcspn(raw, "\r\n")] = '\0';
        return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER,
                        "the answer begins with \"%s\" and not with HTTP/1.x: check that host and port of the URL "
                        "are "
                        "those of an OCSP responder",
                        ocspCleanText(clean, sizeof(clean), raw));
    }
}

/* Skips empty lines before the status line and checks the first bytes as they arrive: what is not HTTP may never send a
 * line end. */
static int ocspHttpBegin(ocspHttpReader *r) {
    static const char begin[] = "HTTP/1.";
    const size_t want = sizeof(begin) - 1;

    for (;;) {
        size_t there;
        for (; r->at < r->got && strchr("\r\n", r->buf[r->at]) && r->buf[r->at]; r->at++)
            if (--r->budget == 0) return ocspHttpOverBudget(r);
        there = r->got - r->at;
        if (memcmp(r->buf + r->at, begin, there < want ? there : want) != 0) return ocspHttpNotHttp(r);
        if (there >= want) return 1;
        if (!ocspHttpMore(r)) return 0;
    }
}

/* Reads the status line into head->status. Returns 0 with a sentence. */
static int ocspHttpStatus(ocspHttpReader *r, ocspHttpHead *head) {
    char clean[61];
    const char *line;

    if (!ocspHttpBegin(r)) return 0;
    line = ocspHttpLine(r, 0);
    if (!line) return 0;
    /* HTTP/1.1 200 OK; many servers omit the reason phrase, and some the space before it */
    if (strlen(line) >= 12 && line[7] >= '0' && line[7] <= '9' && line[8] == ' ' && line[9] != '0' &&
        strspn(line + 9, "0123456789") == 3 && (line[12] == ' ' || line[12] == '\0')) {
        head->status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + line[11] - '0';
        return 1;
    }
    return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER, "the answer's status line \"%s\" is not that of HTTP/1.x",
                    ocspCleanText(clean, sizeof(clean), line));
}

/* ---- header fields ----------------------------------------------------------------------------------------------- */

/* Finds the next element of a comma-separated list (RFC 9110 section 5.6.1) and advances *list. Returns the element's
 * length without surrounding blanks, 0 at the end. Commas in quoted strings do not separate. */
static size_t ocspHttpElement(const char **list, const char **element) {
    const char *p = *list + strspn(*list, " \t,");
    int quoted = 0;
    size_t n;

    *element = p;
    for (; *p && (quoted || *p != ','); p++) {
        if (*p == '"') quoted = !quoted;
        if (quoted && *p == '\\' && p[1]) p++;
    }
    *list = p;
    for (n = (size_t)(p - *element); n > 0 && strchr(" \t", (*element)[n - 1]);) n--;
    return n;
}

static int ocspHttpIs(const char *element, size_t n, const char *word) {
    return n == strlen(word) && strncasecmp(element, word, n) == 0;
}

/* Copies external text to `out`, cleaned and truncated. */
static void ocspHttpKeep(char *out, size_t size, const char *text, size_t n) {
    char raw[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (n > sizeof(raw) - 1) n = sizeof(raw) - 1;
    memcpy(raw, text, n);
    raw[n] = '\0';
    ocspCleanText(out, size, raw);
}

/* Parses Content-Type. A second, different value is recorded for the error sentence; parameters such as charset are
 * ignored. */
static void ocspHttpType(ocspHttpHead *head, const char *list) {
    const char *element;
    char type[sizeof(head->type)];

    while (ocspHttpElement(&list, &element) > 0) {
        snprintf(type, sizeof(type), "%.*s", (int)strcspn(element, "; \t,"), element);
        if (head->type[0] == '\0')
            memcpy(head->type, type, sizeof(type));
        else if (strcasecmp(head->type, type) != 0)
            memcpy(head->other_type, type, sizeof(type));
    }
}

/* Parses Content-Length. Equal values count as one (RFC 9110 section 8.6). */
static void ocspHttpLength(ocspHttpHead *head, const char *list) {
    const char *element;
    size_t n = ocspHttpElement(&list, &element);

    do {
        int64_t length = OCSP_HTTP_NO_NUMBER;
        if (n > 0 && strspn(element, "0123456789") == n) {
            size_t i, zeros = strspn(element, "0");
            length = n - zeros > 15 ? INT64_MAX : 0;
            for (i = zeros; i < n && length != INT64_MAX; i++) length = length * 10 + element[i] - '0';
        }
        if (head->length == OCSP_HTTP_NO_LENGTH)
            head->length = length;
        else if (head->length != length)
            head->length = OCSP_HTTP_LENGTHS_DIFFER;
    } while ((n = ocspHttpElement(&list, &element)) > 0);
}

/* Parses Transfer-Encoding: chunked once; `identity` (RFC 2616) is ignored. Any other coding is recorded for the error
 * sentence. */
static void ocspHttpTransfer(ocspHttpHead *head, const char *list) {
    const char *element;
    size_t n;

    while ((n = ocspHttpElement(&list, &element)) > 0) {
        if (ocspHttpIs(element, n, "identity")) continue;
        if (ocspHttpIs(element, n, "chunked") && !head->chunked)
            head->chunked = 1;
        else if (ocspHttpIs(element, n, "chunked"))
            ocspHttpKeep(head->transfer, sizeof(head->transfer), "chunked twice", 13);
        else
            ocspHttpKeep(head->transfer, sizeof(head->transfer), element, n);
    }
}

static void ocspHttpContentCoding(ocspHttpHead *head, const char *list) {
    const char *element;
    size_t n;

    while ((n = ocspHttpElement(&list, &element)) > 0)
        if (!ocspHttpIs(element, n, "identity")) ocspHttpKeep(head->coding, sizeof(head->coding), element, n);
}

/* Reads the header fields up to the empty line. Returns 0 with a sentence. */
static int ocspHttpFields(ocspHttpReader *r, ocspHttpHead *head) {
    char *line;

    while ((line = ocspHttpLine(r, 1)) != NULL && *line) {
        size_t n = strcspn(line, ":");
        const char *value = line + n + 1;
        if (line[n] != ':') continue;
        if (n > 0 && strchr(" \t", line[n - 1])) /* RFC 9112 section 5.1: parsers disagree about the field's name */
            return ocspFail(r->err, OCSP_FAIL_HTTP_HEADER, "the answer's header has a blank before a colon");
        value += strspn(value, " \t");
        if (ocspHttpIs(line, n, "Content-Type")) ocspHttpType(head, value);
        if (ocspHttpIs(line, n, "Content-Length")) ocspHttpLength(head, value);
        if (ocspHttpIs(line, n, "Transfer-Encoding")) ocspHttpTransfer(head, value);
        if (ocspHttpIs(line, n, "Content-Encoding")) ocspHttpContentCoding(head, value);
        if (ocspHttpIs(line, n, "Location")) ocspHttpKeep(head->location, sizeof(head->location), value, strlen(value));
    }
    return line != NULL;
}

int ocspHttpReadHead(ocspHttpReader *r, ocspHttpHead *head) {
    do {
        memset(head, 0, sizeof(*head));
        head->length = OCSP_HTTP_NO_LENGTH;
        if (!ocspHttpStatus(r, head) || !ocspHttpFields(r, head)) return 0;
        /* RFC 9110 section 15.2: any number of interim responses precede the final one. 101 is final, and an error. */
        r->interim = head->status < 200;
    } while (head->status < 200 && head->status != 101);
    return 1;
}

/* ---- the verdict on the header ----------------------------------------------------------------------------------- */

static int ocspHttpStatusFault(const ocspHttpHead *head, ocspError *err) {
    if (head->status == 101)
        return ocspFail(err, OCSP_FAIL_HTTP_STATUS,
                        "HTTP status 101: the responder switches to a protocol that was not asked for");
    if (head->status >= 300 && head->status < 400 && head->location[0])
        return ocspFail(err, OCSP_FAIL_HTTP_STATUS,
                        "HTTP status %d: redirects are not followed; set %sresponder-url to the location that this one "
                        "leads to: %s",
                        head->status, ocspPrefix(), head->location);
    if (head->status >= 300 && head->status < 400)
        return ocspFail(err, OCSP_FAIL_HTTP_STATUS,
                        "HTTP status %d without a Location: redirects are not followed; set %sresponder-url to the "
                        "URL that answers",
                        head->status, ocspPrefix());
    return ocspFail(err, OCSP_FAIL_HTTP_STATUS, "HTTP status %d", head->status);
}

static int ocspHttpTypeFault(const ocspHttpHead *head, ocspError *err) {
    char type[sizeof(head->type)], other[sizeof(head->other_type)];

    ocspCleanText(type, sizeof(type), head->type);
    ocspCleanText(other, sizeof(other), head->other_type);
    if (head->other_type[0])
        return ocspFail(err, OCSP_FAIL_HTTP_TYPE,
                        "the answer has two Content-Types, %s and %s: the responder, or a proxy in front of it, must "
                        "send " OCSP_MIME_RESPONSE " alone",
                        type, other);
    if (head->type[0] == '\0')
        return ocspFail(err, OCSP_FAIL_HTTP_TYPE,
                        "the answer has no Content-Type: the responder must send " OCSP_MIME_RESPONSE);
    return ocspFail(err, OCSP_FAIL_HTTP_TYPE,
                    "the answer's Content-Type is %s and not " OCSP_MIME_RESPONSE
                    ": check that the URL is that of an OCSP responder",
                    type);
}

int ocspHttpCheckHead(const ocspHttpHead *head, ocspError *err) {
    if (head->status != 200) return ocspHttpStatusFault(head, err);
    if (head->other_type[0] || strcasecmp(head->type, OCSP_MIME_RESPONSE) != 0) return ocspHttpTypeFault(head, err);
    if (head->transfer[0])
        return ocspFail(err, OCSP_FAIL_HTTP_BODY,
                        "the answer's Transfer-Encoding is %s, and only chunked can be read: switch it off at the "
                        "responder or the proxy in front of it",
                        head->transfer);
    if (head->coding[0])
        return ocspFail(
            err, OCSP_FAIL_HTTP_BODY,
            "the answer's Content-Encoding is %s, which was not asked for: switch compression off for " OCSP_MIME_RESPONSE
            " at the responder or the proxy in front of it",
            head->coding);
    if (head->chunked) return 1; /* RFC 9112 section 6.3: Content-Length is overridden */
    if (head->length == OCSP_HTTP_NO_NUMBER)
        return ocspFail(err, OCSP_FAIL_HTTP_BODY, "the answer's Content-Length is not a number");
    if (head->length == OCSP_HTTP_LENGTHS_DIFFER)
        return ocspFail(err, OCSP_FAIL_HTTP_BODY,
                        "the answer has two Content-Lengths that differ: the responder, or a proxy in front of it, "
                        "must send one");
    if (head->length > OCSP_MAX_RESPONSE_BYTES)
        return ocspFail(err, OCSP_FAIL_HTTP_BODY, "the answer promises %lld bytes, more than %d",
                        (long long)head->length, OCSP_MAX_RESPONSE_BYTES);
    return 1;
}

/* ---- the body ---------------------------------------------------------------------------------------------------- */

static int ocspHttpTooLong(ocspHttpReader *r) {
    return ocspFail(r->err, OCSP_FAIL_HTTP_BODY, "the answer has more than %d bytes", OCSP_MAX_RESPONSE_BYTES);
}

/* Reads 1 to `size` bytes of the body, buffered ones first. Returns the number, 0 at the end of data, or -1 with a
 * sentence (or cancelled). */
static ssize_t ocspHttpTake(ocspHttpReader *r, unsigned char *out, size_t size) {
    size_t there = r->got - r->at;

    if (there == 0) return r->read(r->source, out, size);
    if (there > size) there = size;
    memcpy(out, r->buf + r->at, there);
    r->at += there;
    return (ssize_t)there;
}

/* Reads exactly `want` bytes. Returns 0 with a sentence that names `part`. */
static int ocspHttpTakeAll(ocspHttpReader *r, unsigned char *out, size_t want, const char *part) {
    size_t got = 0;

    while (got < want) {
        ssize_t n = ocspHttpTake(r, out + got, want - got);
        if (n < 0) return 0;
        if (n == 0)
            return ocspFail(r->err, OCSP_FAIL_CLOSED, "the connection was closed after %zu of the %zu bytes of the %s",
                            got, want, part);
        got += (size_t)n;
    }
    return 1;
}

/* Returns the length of the DER SEQUENCE at `p` including its header, or 0 if there is none, its length is indefinite,
 * or `n` bytes are too few to say. */
static size_t ocspHttpDerLength(const unsigned char *p, size_t n) {
    size_t count, length = 0, i;

    if (n < 2 || p[0] != 0x30) return 0;
    if (p[1] < 0x80) return 2 + (size_t)p[1];
    count = p[1] & 0x7f;
    if (count == 0 || count > 4 || n < 2 + count) return 0;
    for (i = 0; i < count; i++) length = length << 8 | p[2 + i];
    return length > OCSP_MAX_RESPONSE_BYTES ? 0 : 2 + count + length;
}

/* Reads a body of unknown length, to the end of data or of the DER SEQUENCE that it begins with, as some responders
 * keep the connection open. Bytes read after the SEQUENCE are included: ocspVerify rejects them. Reads up to one byte
 * more than allowed, to detect an excess. */
static int ocspHttpTakeToEnd(ocspHttpReader *r, unsigned char *out, size_t *len) {
    size_t got = 0, der = 0;

    while (got <= OCSP_MAX_RESPONSE_BYTES && (der == 0 || got < der)) {
        ssize_t n = ocspHttpTake(r, out + got, OCSP_MAX_RESPONSE_BYTES + 1 - got);
        if (n < 0) return 0;
        if (n == 0) break;
        got += (size_t)n;
        der = ocspHttpDerLength(out, got);
    }
    *len = got;
    return got <= OCSP_MAX_RESPONSE_BYTES ? 1 : ocspHttpTooLong(r);
}

/* Reads a chunk's first line: the size in hexadecimal, then extensions, which are skipped (RFC 9112 section 7.1). Only
 * extensions are charged to the budget, as the sizes are bounded by the body's limit. */
static int ocspHttpChunkSize(ocspHttpReader *r, size_t *size) {
    size_t budget = r->budget, digits, i;
    const char *line = ocspHttpLine(r, 0), *rest;
    char clean[41];

    if (!line) return 0;
    digits = strspn(line, "0123456789abcdefABCDEF");
    rest = line + digits + strspn(line + digits, " \t");
    if (digits == 0 || digits > 16 || (*rest && *rest != ';'))
        return ocspFail(r->err, OCSP_FAIL_HTTP_BODY,
                        "the answer's chunked encoding is broken: \"%s\" is no size of a chunk",
                        ocspCleanText(clean, sizeof(clean), line));
    for (*size = i = 0; i < digits; i++) {
        char c = line[i];
        if (*size > OCSP_MAX_RESPONSE_BYTES) break;
        *size = *size * 16 + (size_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    r->budget = budget - strlen(rest);
    return 1;
}

/* Reads a chunked body (RFC 9112 section 7.1) and skips the trailers. */
static int ocspHttpTakeChunks(ocspHttpReader *r, unsigned char *out, size_t *len) {
    size_t size = 0, budget;
    char *line;

    r->in_body = 1;
    r->budget = OCSP_MAX_HEADER_BYTES;
    for (;;) {
        if (!ocspHttpChunkSize(r, &size)) return 0;
        if (size == 0) break;
        if (size > OCSP_MAX_RESPONSE_BYTES - *len) return ocspHttpTooLong(r);
        if (!ocspHttpTakeAll(r, out + *len, size, "chunk")) return 0;
        *len += size;
        budget = r->budget;
        line = ocspHttpLine(r, 0);
        if (!line) return 0;
        if (*line)
            return ocspFail(r->err, OCSP_FAIL_HTTP_BODY,
                            "the answer's chunked encoding is broken: a chunk does not end where its size says");
        r->budget = budget;
    }
    do line = ocspHttpLine(r, 0);
    while (line && *line);
    return line != NULL;
}

int ocspHttpReadBody(ocspHttpReader *r, const ocspHttpHead *head, unsigned char **body, size_t *body_len) {
    int exact = !head->chunked && head->length >= 0, ok;

    *body = NULL;
    *body_len = 0;
    if (exact && head->length == 0)
        return 1; /* an empty body is a bad OCSP response, not a failed exchange: ocspVerify rejects it */
    *body = ocspAlloc(exact ? (size_t)head->length : OCSP_MAX_RESPONSE_BYTES + 1);
    if (!*body) return ocspFail(r->err, OCSP_FAIL_MEMORY, "out of memory while reading the answer");
    if (exact) {
        *body_len = (size_t)head->length;
        ok = ocspHttpTakeAll(r, *body, *body_len, "answer");
    } else {
        ok = head->chunked ? ocspHttpTakeChunks(r, *body, body_len) : ocspHttpTakeToEnd(r, *body, body_len);
    }
    if (ok && *body_len > 0) return 1;
    ocspFree(*body);
    *body = NULL;
    *body_len = 0;
    return ok;
}

#endif /* OCSP_SUPPORTED */
