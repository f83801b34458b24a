/* http.c - fuzz target: the HTTP response of a responder or a proxy, to ocspFetch.
 *
 * The whole exchange runs on one thread and without a network: connect() is replaced at link time (-Wl,--wrap=connect)
 * by a function that makes the socket one end of a socket pair, and the response is written to the other end in the
 * hook that ocspFetch calls right before it waits. So each wait finds the next segment of the response, the input
 * determines the segments, and nothing depends on time.
 *
 * Input: a byte of flags (bits 0-1: http, http through a proxy, https through a proxy, https; 2: IPv6 address), a byte
 * with the size of the first segments (0: all at once), and the response. NEXT in it starts the response to the second
 * connection (the GET after a refused POST), which otherwise gets the same response.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "fuzz.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/asn1.h>
#include <openssl/err.h>

#define MAX_PIECES \
    48 /* then the rest at once: 64 KiB in single bytes reach no new code and take as long as 1000 inputs */
#define NEXT "\n--next--\n"

/* The responder's side of the exchange. */
static struct {
    int fd; /* -1: closed */
    int connections;
    const uint8_t *responses[2];
    size_t sizes[2], sent, piece;
    int pieces;         /* sent so far */
    char request[4096]; /* the first bytes of the request */
    size_t request_len;
    int inside; /* 1: the OpenSSL lock would be held, 0: not, -1: ocspFetch is not running */
} peer = {.fd = -1, .inside = -1};

/* Returns the index of the response for the current connection. */
static int which(void) {
    return peer.connections > 1;
}

static void closePeer(void) {
    if (peer.fd >= 0) close(peer.fd);
    peer.fd = -1;
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len) {
    int pair[2];

    fuzzCheck(peer.inside == 1 && address && len > 0);
    fuzzCheck(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    fuzzCheck(dup3(pair[0], fd, O_CLOEXEC) == fd);
    close(pair[0]);
    closePeer();
    peer.fd = pair[1];
    peer.connections++;
    peer.sent = peer.request_len = 0;
    peer.pieces = 0;
    return 0;
}

/* Called right before ocspFetch waits: reads its request, sends one more segment, and closes after the last one. */
static void leave(void) {
    char rest[4096];
    ssize_t n;

    fuzzCheck(peer.inside == 1);
    peer.inside = 0;
    if (peer.fd < 0) return;
    while ((n = recv(peer.fd, rest, sizeof(rest), 0)) > 0) {
        size_t room = sizeof(peer.request) - 1 - peer.request_len;
        size_t take = (size_t)n < room ? (size_t)n : room;
        memcpy(peer.request + peer.request_len, rest, take);
        peer.request_len += take;
    }
    if (peer.sent < peer.sizes[which()]) {
        size_t left = peer.sizes[which()] - peer.sent, piece = left;
        if (peer.piece && peer.piece < left && peer.pieces++ < MAX_PIECES) piece = peer.piece;
        n = send(peer.fd, peer.responses[which()] + peer.sent, piece, MSG_NOSIGNAL);
        if (n > 0) peer.sent += (size_t)n;
        if (n < 0 && errno != EAGAIN) closePeer();
    }
    if (peer.fd >= 0 && peer.sent == peer.sizes[which()]) closePeer();
}

static void enter(void) {
    fuzzCheck(peer.inside == 0);
    peer.inside = 1;
}

/* Returns a copy of the line at *at, without its line end, and moves *at to the next line. Part of an independent
 * parser, for complete responses. */
static char *lineAt(const uint8_t *response, size_t size, size_t *at) {
    const uint8_t *lf = memchr(response + *at, '\n', size - *at);
    size_t n;
    char *line;

    fuzzCheck(lf);
    n = (size_t)(lf - response) - *at;
    line = strndup((const char *)response + *at, n);
    fuzzCheck(line && strlen(line) == n);
    if (n > 0 && line[n - 1] == '\r') line[n - 1] = '\0';
    fuzzCheck(!strchr(line, '\r'));
    *at += (size_t)(lf - response) - *at + 1;
    return line;
}

/* Parses one header and returns its status. Sets *framing: 'c' chunked, 'l' *length bytes, 'e' up to the end. */
static int headAt(const uint8_t *response, size_t size, size_t *at, char *framing, unsigned long *length) {
    char *line;
    int status, typed = 0;

    while (*at < size && (response[*at] == '\r' || response[*at] == '\n')) ++*at;
    line = lineAt(response, size, at);
    fuzzCheck(strncmp(line, "HTTP/1.", 7) == 0 && strlen(line) >= 12);
    status = atoi(line + 9);
    free(line);
    *framing = 'e';
    for (;;) {
        char *end;
        line = lineAt(response, size, at);
        if (!*line) break;
        while (*at < size && (response[*at] == ' ' || response[*at] == '\t')) {
            char *fold = lineAt(response, size, at), *both;
            fuzzCheck(asprintf(&both, "%s %s", line, fold) > 0);
            free(fold);
            free(line);
            line = both;
        }
        if (strncasecmp(line, "Content-Type:", 13) == 0 && strcasestr(line, "application/ocsp-response")) typed = 1;
        if (strncasecmp(line, "Transfer-Encoding:", 18) == 0 && strcasestr(line, "chunked")) *framing = 'c';
        if (strncasecmp(line, "Content-Length:", 15) == 0 && *framing != 'c') {
            *length = strtoul(line + 15 + strspn(line + 15, " \t,"), &end, 10);
            *framing = 'l';
        }
        if (status == 200 && strncasecmp(line, "Content-Encoding:", 17) == 0) fuzzCheck(!strcasestr(line, "gzip"));
        if (status == 200 && strncasecmp(line, "Transfer-Encoding:", 18) == 0) fuzzCheck(!strcasestr(line, "gzip"));
        free(line);
    }
    free(line);
    fuzzCheck(status != 200 || typed);
    return status;
}

/* Checks that the body of an accepted response is the one that the independent parser finds. */
static void checkBody(const unsigned char *body, size_t len) {
    const uint8_t *response = peer.responses[which()];
    size_t size = peer.sizes[which()], at = 0, got = 0;
    unsigned long length = 0;
    char framing;
    int status;

    fuzzCheck(len <= OCSP_MAX_RESPONSE_BYTES && !body == (len == 0));
    while ((status = headAt(response, size, &at, &framing, &length)) != 200) fuzzCheck(status >= 100 && status < 200);
    if (framing == 'c') {
        for (;;) {
            char *line = lineAt(response, size, &at);
            length = strtoul(line, NULL, 16);
            free(line);
            if (length == 0) break;
            fuzzCheck(length <= len - got && length <= size - at);
            fuzzCheck(memcmp(body + got, response + at, length) == 0);
            got += length;
            at += length;
            line = lineAt(response, size, &at);
            fuzzCheck(!*line);
            free(line);
        }
        fuzzCheck(got == len);
    } else {
        size_t behind = size - at;
        fuzzCheck(len <= behind && (len == 0 || memcmp(body, response + at, len) == 0));
        if (framing == 'l')
            fuzzCheck(len == length);
        else if (len < behind) { /* the body ended with a complete SEQUENCE of definite length */
            /* One byte more than the body: OpenSSL requires one after a long length, even if the length is 0. */
            const unsigned char *p = response + at;
            long content;
            int tag, class;
            fuzzCheck(len >= 2 && body[0] == 0x30 && body[1] != 0x80);
            fuzzCheck(!(ASN1_get_object(&p, &content, &tag, &class, (long)len + 1) & 0x80));
            fuzzCheck(content <= (long)(response + at + len - p));
        }
    }
}

/* Checks the request: exactly one, complete, with no line that comes from a URL or a response. */
static void checkRequest(void) {
    const char *end;

    peer.request[peer.request_len] = '\0';
    if (peer.request_len == 0) return;   /* ocspFetch never waited for a response */
    if (peer.request[0] == 0x16) return; /* TLS */
    end = strstr(peer.request, "\r\n\r\n");
    fuzzCheck(end && strstr(peer.request, " HTTP/1.1\r\nHost: "));
    if (strncmp(peer.request, "GET ", 4) == 0)
        fuzzCheck(peer.connections == 2 && end[4] == '\0');
    else if (strncmp(peer.request, "POST ", 5) == 0)
        fuzzCheck(peer.connections == 1);
    else
        fuzzCheck(strncmp(peer.request, "CONNECT ", 8) == 0);
}

static void one(const uint8_t *data, size_t size) {
    static const char *const urls[] = {"http://127.0.0.1/ocsp", "http://127.0.0.1", "https://127.0.0.1/",
                                       "https://127.0.0.1:8443"};
    static char http_proxy[] = "http_proxy=http://u:p@127.0.0.1:3128", https_proxy[] = "https_proxy=127.0.0.1:3128",
                no_roots[] = "SSL_CERT_FILE=/dev/null";
    const fuzzPki *pki = fuzzGetPki();
    const ocspIoHooks wait = {leave, enter, -1, NULL};
    ocspExchange exchange = {NULL, pki->id->request, pki->id->request_len, NULL, 60000, &wait, NULL};
    unsigned char *body = (unsigned char *)"not set";
    size_t len = 7;
    ocspError err;
    ocspFetchResult result;
    const uint8_t *next;
    int mode;

    if (size < 2) return;
    mode = data[0] & 3;
    peer.piece = data[1];
    peer.responses[0] = peer.responses[1] = data + 2;
    peer.sizes[0] = peer.sizes[1] = size - 2;
    next = memmem(data + 2, size - 2, NEXT, strlen(NEXT));
    if (next) {
        peer.sizes[0] = (size_t)(next - data - 2);
        peer.responses[1] = next + strlen(NEXT);
        peer.sizes[1] = (size_t)(data + size - peer.responses[1]);
    }
    peer.connections = 0;
    putenv(no_roots); /* loading the system's roots would dominate the run time */
    unsetenv("no_proxy");
    unsetenv("NO_PROXY");
    unsetenv("http_proxy");
    unsetenv("HTTP_PROXY");
    unsetenv("https_proxy");
    unsetenv("HTTPS_PROXY");
    if (mode == 1) putenv(http_proxy);
    if (mode == 2) putenv(https_proxy);

    signal(SIGPIPE, SIG_IGN); /* as in every host: OpenSSL writes without MSG_NOSIGNAL */
    ERR_clear_error();
    peer.inside = 1;
    memset(&err, 0, sizeof(err));
    exchange.url = data[0] & 4 ? "http://[::1]:8080/x?y#z" : urls[mode];
    result = ocspFetch(&exchange, &body, &len, &err);
    fuzzCheck(peer.inside == 1);
    peer.inside = -1;
    fuzzCheckQueue();
    fuzzCheck(result != OCSP_FETCH_CANCELLED && peer.connections <= 2);
    if (result == OCSP_FETCH_OK) {
        if (data[0] & 4 || mode < 2)
            checkBody(body, len);
        else
            fuzzCheck(!"a response over TLS without a handshake");
    } else {
        fuzzCheckError(&err);
        fuzzCheck(!body && len == 0 && (err.kind == OCSP_ERR_NETWORK || err.kind == OCSP_ERR_HTTP));
        fuzzCheck(err.code != OCSP_FAIL_TIMEOUT); /* the connection is closed */
    }
    checkRequest();
    ocspFree(body);
    closePeer();
}

#define OK_HEAD "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n"

#define CHUNKED OK_HEAD "Transfer-Encoding: chunked\r\n\r\n"

static void seeds(fuzzKeep *keep) {
    static const struct {
        const char *name, *text;
        uint8_t mode, piece;
    } list[] = {
        {"good", OK_HEAD "Content-Length: 5\r\n\r\nbytes", 0, 0},
        {"good-in-pieces", OK_HEAD "Content-Length: 5\r\n\r\nbytes", 0, 1},
        {"until-closed", "HTTP/1.0 200\r\ncontent-type:application/ocsp-response; charset=utf-8\r\n\r\nbytes", 0, 7},
        {"empty-body", OK_HEAD "Content-Length: 0\r\n\r\n", 0, 0},
        {"short", OK_HEAD "Content-Length: 50\r\n\r\nbytes", 0, 0},
        {"more-than-promised", OK_HEAD "Content-Length: 3\r\n\r\nbytes", 0, 3},
        {"two-lengths", OK_HEAD "Content-Length: 5\r\nContent-Length: 6\r\n\r\nbytes", 0, 0},
        {"two-lengths-that-fit", OK_HEAD "Content-Length: 5\r\nContent-Length: 3\r\n\r\nbytes", 0, 0},
        {"line-feed-hides-length", OK_HEAD "Content-Length: 3\t\nContent-Length: 5\r\n\r\nbytes", 0, 0},
        {"equal-lengths", OK_HEAD "Content-Length: 5\r\nContent-Length: 5\r\n\r\nbytes", 0, 0},
        {"no-number", OK_HEAD "Content-Length: 5, 5\r\n\r\nbytes", 0, 0},
        {"huge", OK_HEAD "Content-Length: 99999999999999999999\r\n\r\nbytes", 0, 0},
        {"promises-too-much", OK_HEAD "Content-Length: 65537\r\n\r\nbytes", 0, 0},
        {"negative", OK_HEAD "Content-Length: -1\r\n\r\nbytes", 0, 0},
        {"chunked", OK_HEAD "Transfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n", 0, 0},
        {"html", "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>", 0, 0},
        {"two-types", OK_HEAD "Content-Type: text/html\r\n\r\nbytes", 0, 0},
        {"no-type", "HTTP/1.1 200 OK\r\n\r\nbytes", 0, 0},
        {"redirect", "HTTP/1.1 302 Found\r\nLocation: http://b/\r\n\r\n", 0, 0},
        {"not-allowed-then-good", "HTTP/1.1 405 No\r\nAllow: GET\r\n\r\n" NEXT OK_HEAD "\r\nbytes", 0, 0},
        {"not-there-twice", "HTTP/1.1 404 Not Found\r\n\r\n", 0, 0},
        {"error", "HTTP/1.1 500 Oops\r\nContent-Type: application/ocsp-response\r\n\r\nbytes", 0, 0},
        {"not-implemented", "HTTP/1.0 501 \r\n\r\n" NEXT "HTTP/1.0 503 \r\n\r\n", 0, 0},
        {"old", "ICY 200 OK\r\n\r\n", 0, 0},
        {"line-feeds", "HTTP/1.1 200 OK\nContent-Type: application/ocsp-response\n\nbytes", 0, 0},
        {"folded", "HTTP/1.1 200 OK\r\nContent-Type:\r\n application/ocsp-response\r\n\r\nbytes", 0, 0},
        {"blank-before-colon", OK_HEAD "Content-Length : 5\r\n\r\nbytes", 0, 0},
        {"status-line", "HTTP/1.1 2000 OK\r\n\r\n", 0, 0},
        {"continue", "HTTP/1.1 100 Continue\r\n\r\n" OK_HEAD "\r\nbytes", 0, 0},
        {"several-interim", "HTTP/1.1 100\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" OK_HEAD "\r\nbytes", 0, 3},
        {"interim-alone", "HTTP/1.1 100 Continue\r\n\r\n", 0, 0},
        {"switched", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 0, 0},
        {"chunks", CHUNKED "2;a=b\r\nby\r\n3\r\ntes\r\n0\r\nA: b\r\n\r\n", 0, 2},
        {"chunks-by-line-feeds", OK_HEAD "Transfer-Encoding: chunked\n\n5\nbytes\n0\n\n", 0, 0},
        {"chunks-and-length", OK_HEAD "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nbytes\r\n0\r\n\r\n",
         0, 0},
        {"chunks-empty", CHUNKED "0\r\n\r\n", 0, 0},
        {"chunks-too-many", CHUNKED "ffff\r\nbytes", 0, 0},
        {"chunks-broken", CHUNKED "5\r\nbytesX\r\n0\r\n\r\n", 0, 0},
        {"chunks-no-end", CHUNKED "5\r\nbytes\r\n", 0, 0},
        {"chunks-overflow", CHUNKED "fffffffffffffffe\r\nbytes", 0, 0},
        {"identity",
         OK_HEAD "Transfer-Encoding: identity\r\nContent-Encoding: identity\r\nContent-Length: 5\r\n\r\nbytes", 0, 0},
        {"gzip", OK_HEAD "Content-Encoding: gzip\r\n\r\nbytes", 0, 0},
        {"gzip-chunked", OK_HEAD "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0, 0},
        {"sequence", OK_HEAD "\r\n0\005bytes", 0, 0},
        {"sequence-in-pieces", OK_HEAD "\r\n0\201\005bytes and more", 0, 1},
        {"byte-order-mark", "\xef\xbb\xbf" OK_HEAD "\r\nbytes", 0, 0},
        {"http-0.9", "0\005bytes", 0, 0},
        {"blank-lines", "\r\n\n" OK_HEAD "\r\nbytes", 0, 1},
        {"types-equal", OK_HEAD "content-type: Application/OCSP-response; a=\"b,c\"\r\n\r\nbytes", 0, 0},
        {"closed-in-head", "HTTP/1.1 200 OK\r\nContent-Ty", 0, 2},
        {"nothing", "", 0, 0},
        {"by-proxy", OK_HEAD "Content-Length: 5\r\n\r\nbytes", 1, 0},
        {"proxy-refuses", "HTTP/1.0 407 Proxy Authentication Required\r\n\r\n", 1, 0},
        {"tunnel", "HTTP/1.0 200 Connection established\r\n\r\n\x15\x03\x03\x00\x02\x02\x28", 2, 0},
        {"no-tunnel", "HTTP/1.0 403 Forbidden\r\n\r\n", 2, 5},
        {"tls-alert", "\x15\x03\x03\x01", 3, 0},
        {"ipv6", OK_HEAD "Content-Length: 5\r\n\r\nbytes", 4, 0},
    };
    static const size_t bodies[] = {OCSP_MAX_RESPONSE_BYTES, OCSP_MAX_RESPONSE_BYTES + 1};
    size_t i;

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        uint8_t head[] = {list[i].mode, list[i].piece};
        testBytes all = testJoin(testCopy(head, 2), testCopy(list[i].text, strlen(list[i].text)));
        keep(list[i].name, all.p, all.n);
        testBytesFree(&all);
    }
    for (i = 0; i < 2; i++) {
        testBytes all = testJoin(testCopy("\0\0", 2), testCopy(OK_HEAD "\r\n", strlen(OK_HEAD "\r\n")));
        void *zeros = calloc(1, bodies[i]);
        fuzzCheck(zeros);
        all = testJoin(all, testCopy(zeros, bodies[i]));
        keep(i ? "too-long" : "longest", all.p, all.n);
        free(zeros);
        testBytesFree(&all);
    }
}

const fuzzTarget fuzz_http = {"http", one, seeds, NULL};
