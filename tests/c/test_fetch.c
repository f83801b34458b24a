/* test_fetch.c - one exchange with one responder. A thread of this process is the responder (and the proxy): it
 * accepts one connection after the other and follows the test's script, byte by byte where that matters.
 *
 * No test asserts how long something took. A short time-out is only used where it has to run out.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include "support.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>

#define LONG_TIMEOUT_MS 30000 /* for exchanges that end by themselves */
#define BRIEF_MS 400          /* for those that only the time-out ends */

/* ---- the responder ----------------------------------------------------------------------------------------------- */

typedef enum {
    THEN_CLOSE,   /* after the answer */
    THEN_HANG,    /* keep it open until the client leaves */
    THEN_RESET,   /* RST */
    REPEAT,       /* the last `repeat` bytes of the answer for ever */
    CLOSE_AT_ONCE /* before the request is read */
} afterAnswer;

typedef struct turn {
    const char *head; /* sent as it stands */
    const void *body; /* then this */
    size_t body_len;
    int pace_ms; /* one byte at a time with this pause; 0: all at once; -1: one byte at a time without pause */
    afterAnswer then;
    size_t repeat;
    int tunnel;      /* this connection begins with CONNECT, which is granted */
    int wait_for_go; /* answer only when the test says so */
} turn;

#define MAX_TURNS 8
static struct {
    pthread_t thread;
    int listener, port, stop_pipe[2];
    SSL_CTX *tls;
    turn script[MAX_TURNS];
    int turns;
    pthread_mutex_t lock; /* guards what follows */
    int connections, requests, go;
    testBytes request[MAX_TURNS]; /* header and body as received */
    testBytes connect_request;
} server = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* The sender does one of a plain and a TLS write. 0: the client has gone. */
static int put(int fd, SSL *ssl, const void *bytes, size_t n) {
    if (n == 0) return 1;
    if (ssl) return SSL_write(ssl, bytes, (int)n) == (int)n;
    const char *p = bytes;
    while (n > 0) {
        ssize_t sent = send(fd, p, n, MSG_NOSIGNAL);
        if (sent <= 0) return 0;
        p += sent;
        n -= (size_t)sent;
    }
    return 1;
}

/* Reads a request: header, and as much body as it announces. */
static testBytes takeRequest(int fd, SSL *ssl) {
    testBytes all = testCopy("", 0);
    size_t want = 0;
    for (;;) {
        char buf[4096];
        ssize_t n = ssl ? SSL_read(ssl, buf, sizeof(buf)) : recv(fd, buf, sizeof(buf), 0);
        if (n <= 0) return all;
        all = testJoin(all, testCopy(buf, (size_t)n));
        char *end = memmem(all.p, all.n, "\r\n\r\n", 4);
        if (!want && end) {
            char *length = memmem(all.p, all.n, "Content-Length: ", 16);
            want = (size_t)(end + 4 - (char *)all.p) + (length ? strtoul(length + 16, NULL, 10) : 0);
        }
        if (want && all.n >= want) return all;
    }
}

static int stopped(void) {
    struct pollfd p = {server.stop_pipe[0], POLLIN, 0};
    return poll(&p, 1, 0) > 0;
}

static void serveOne(int fd, const turn *t) {
    SSL *ssl = NULL;
    testBytes request = {0};
    if (t->then == CLOSE_AT_ONCE) return;
    if (t->tunnel) {
        testBytes connect_request = takeRequest(fd, NULL);
        pthread_mutex_lock(&server.lock);
        testBytesFree(&server.connect_request);
        server.connect_request = connect_request;
        pthread_mutex_unlock(&server.lock);
        put(fd, NULL, "HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\n", 47);
    }
    if (server.tls) {
        ssl = SSL_new(server.tls);
        SSL_set_fd(ssl, fd);
        if (SSL_accept(ssl) != 1) goto done;
    }
    request = takeRequest(fd, ssl);
    if (request.n == 0) goto done;
    pthread_mutex_lock(&server.lock);
    testBytesFree(&server.request[server.requests]);
    server.request[server.requests++] = request;
    request.p = NULL;
    int go = !t->wait_for_go;
    pthread_mutex_unlock(&server.lock);
    while (!go && !stopped()) {
        testSleepMs(2);
        pthread_mutex_lock(&server.lock);
        go = server.go;
        pthread_mutex_unlock(&server.lock);
    }

    size_t head_len = t->head ? strlen(t->head) : 0;
    testBytes all = testJoin(testCopy(t->head ? t->head : "", head_len), testCopy(t->body, t->body_len));
    int alive = 1;
    if (t->pace_ms) {
        for (size_t i = 0; alive && i < all.n && !stopped(); i++) {
            alive = put(fd, ssl, all.p + i, 1);
            if (t->pace_ms > 0) testSleepMs(t->pace_ms);
        }
    } else {
        alive = put(fd, ssl, all.p, all.n);
    }
    while (alive && t->then == REPEAT && !stopped()) alive = put(fd, ssl, all.p + all.n - t->repeat, t->repeat);
    testBytesFree(&all);
    if (alive && t->then == THEN_HANG) {
        struct pollfd p[2] = {{fd, POLLIN, 0}, {server.stop_pipe[0], POLLIN, 0}};
        poll(p, 2, -1); /* the client closes, or the test ends */
    }
    if (t->then == THEN_RESET) {
        struct linger hard = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    }
    if (ssl && t->then == THEN_CLOSE) SSL_shutdown(ssl);
done:
    SSL_free(ssl);
    testBytesFree(&request);
    ERR_clear_error();
}

static void *serve(void *arg) {
    (void)arg;
    for (;;) {
        struct pollfd p[2] = {{server.listener, POLLIN, 0}, {server.stop_pipe[0], POLLIN, 0}};
        poll(p, 2, -1);
        if (p[1].revents) return NULL;
        int fd = accept(server.listener, NULL, NULL);
        if (fd < 0) continue;
        pthread_mutex_lock(&server.lock);
        int number = server.connections++;
        pthread_mutex_unlock(&server.lock);
        /* Connections beyond the script get the last turn again: tests count them. */
        if (server.turns) serveOne(fd, &server.script[number < server.turns ? number : server.turns - 1]);
        close(fd);
    }
}

static int listenOn(const char *address, int port, int backlog) {
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int on = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    inet_pton(AF_INET, address, &sin.sin_addr);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (bind(fd, (struct sockaddr *)&sin, sizeof(sin)) != 0 || listen(fd, backlog) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static void startServer(const turn *script, int turns, SSL_CTX *tls) {
    struct sockaddr_in sin;
    socklen_t len = sizeof(sin);
    server.listener = listenOn("127.0.0.1", 0, 64);
    assert_true(server.listener >= 0);
    getsockname(server.listener, (struct sockaddr *)&sin, &len);
    server.port = ntohs(sin.sin_port);
    server.tls = tls;
    server.turns = turns;
    memcpy(server.script, script, (size_t)turns * sizeof(turn));
    server.connections = server.requests = server.go = 0;
    assert_int_equal(pipe(server.stop_pipe), 0);
    assert_int_equal(pthread_create(&server.thread, NULL, serve, NULL), 0);
}

static void stopServer(void) {
    assert_int_equal(write(server.stop_pipe[1], "x", 1), 1);
    pthread_join(server.thread, NULL);
    close(server.listener);
    close(server.stop_pipe[0]);
    close(server.stop_pipe[1]);
    for (int i = 0; i < MAX_TURNS; i++) testBytesFree(&server.request[i]);
    testBytesFree(&server.connect_request);
}

static int seenRequests(void) {
    pthread_mutex_lock(&server.lock);
    int n = server.requests;
    pthread_mutex_unlock(&server.lock);
    return n;
}

/* ---- names with the addresses of our choice ---------------------------------------------------------------------- */

/* The linker prefers these to libc's: names under .test.invalid get what the test put here, others go to libc. */
static const char *fake_addresses[8];
static int fake_lookups;

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out) {
    static int (*real)(const char *, const char *, const struct addrinfo *, struct addrinfo **);
    const char *suffix = name ? strstr(name, ".test.invalid") : NULL;
    struct addrinfo *first = NULL, **next = &first;
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
    /* One list is made of several look-ups of numbers, so that libc's freeaddrinfo can take it apart. */
    if (!suffix) return real(name, service, hints, out);
    fake_lookups++;
    if (!fake_addresses[0]) return EAI_NONAME;
    for (int i = 0; i < 8 && fake_addresses[i]; i++) {
        int rc = real(fake_addresses[i], service, hints, next);
        if (rc) return rc;
        while (*next) next = &(*next)->ai_next;
    }
    *out = first;
    return 0;
}

/* ---- fetching ---------------------------------------------------------------------------------------------------- */

/* Bytes whose base64 needs all three odd characters: '+', '/' and '='. */
static const unsigned char asked[] = {0x30, 0x03, 0x00, 0xfb, 0xef, 0xbe, 0xff, 0xff, 0xff, 0x0a, 0x01};
static const unsigned char answer[] = "0\202\001the body of an answer is not looked at here\0\r\n\r\nnot even this";

#define TYPE "Content-Type: application/ocsp-response\r\n"
#define OK10 "HTTP/1.0 200 OK\r\n" TYPE "\r\n"

static int left, entered;
static void leave(void) {
    left++;
}
static void enter(void) {
    entered++;
}
static const ocspIoHooks counting = {.leave_openssl = leave, .enter_openssl = enter, .wake_fd = -1};

typedef struct got {
    ocspFetchResult result;
    unsigned char *body;
    size_t n;
    ocspError err;
} got;

static const char *proxy_directive; /* NULL: the environment decides */

static got fetchWith(const char *url, X509_STORE *store, int64_t timeout, const ocspIoHooks *wait) {
    got g = {.body = (unsigned char *)1, .n = 99};
    alarm(240); /* a hang fails the program */
    ocspExchange exchange = {url, asked, sizeof(asked), store, timeout, wait, proxy_directive};
    g.result = ocspFetch(&exchange, &g.body, &g.n, &g.err);
    alarm(0);
    assert_int_equal(left, entered);
    assert_int_equal(ERR_peek_error(), 0);
    if (g.result != OCSP_FETCH_OK) {
        assert_null(g.body);
        assert_int_equal(g.n, 0);
    }
    return g;
}

static const char *urlOf(const char *path) {
    static char url[300];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d%s", server.port, path);
    return url;
}

static got fetch(int64_t timeout) {
    return fetchWith(urlOf("/ocsp"), NULL, timeout, &counting);
}

static void assertBody(got g, const void *body, size_t n) {
    if (g.result != OCSP_FETCH_OK) fail_msg("failed: %s", g.err.text);
    assert_int_equal(g.n, n);
    if (n) assert_memory_equal(g.body, body, n);
    ocspFree(g.body);
}

static void assertFails(got g, ocspErrorKind kind, const char *word) {
    assert_int_equal(g.result, OCSP_FETCH_FAILED);
    testAssertError(&g.err, kind, word);
}

static turn answering(const char *head) {
    return (turn){.head = head, .body = answer, .body_len = sizeof(answer)};
}

/* The same turn for every connection; the expected error and number of requests. */
static void assertGoodFrom(turn t) {
    startServer(&t, 1, NULL);
    assertBody(fetch(LONG_TIMEOUT_MS), answer, sizeof(answer));
    assert_int_equal(seenRequests(), 1);
    stopServer();
}

static void assertErrorFrom(turn t, ocspErrorKind kind, const char *word, int requests, int64_t timeout) {
    startServer(&t, 1, NULL);
    assertFails(fetch(timeout), kind, word);
    assert_int_equal(seenRequests(), requests);
    stopServer();
}

/* ---- answers that are accepted ----------------------------------------------------------------------------------- */

TEST(answer_http10WithoutLength, "7") {
    assertGoodFrom(answering(OK10));
}

TEST(answer_http11KeptOpen, "7") {
    char head[200];
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\n" TYPE "Connection: keep-alive\r\nContent-Length: %zu\r\n\r\n",
             sizeof(answer));
    turn t = answering(head);
    t.then = THEN_HANG;
    assertGoodFrom(t);
}

TEST(answer_typeWithParameters, "7") {
    assertGoodFrom(answering("HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-response; charset=utf-8\r\n\r\n"));
    assertGoodFrom(answering("HTTP/1.0 200 OK\r\nContent-Type:application/ocsp-response;x=y\r\n\r\n"));
    assertGoodFrom(answering("HTTP/1.0 200 OK\r\nContent-Type:   application/ocsp-response \r\n\r\n"));
}

TEST(answer_fieldNamesInAnyCase, "7") {
    assertGoodFrom(answering("HTTP/1.1 200 ok\r\ncontent-type: application/ocsp-response\r\n\r\n"));
    assertGoodFrom(answering("HTTP/1.1 200 OK\r\nCONTENT-TYPE: Application/OCSP-Response\r\n\r\n"));
}

TEST(answer_inManySmallPieces, "7") {
    char head[200];
    snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: %zu\r\n\r\n", sizeof(answer));
    turn t = answering(head);
    t.pace_ms = 1;
    assertGoodFrom(t);
    t.pace_ms = -1;
    assertGoodFrom(t);
}

TEST(answer_otherFieldsAndNoReasonPhrase, "7") {
    assertGoodFrom(answering("HTTP/1.1 200\r\nServer: x\r\nDate: y\r\nX-Content-Type: text/html\r\n" TYPE
                             "Cache-Control: max-age=1\r\nETag: \"a:b\"\r\n\r\n"));
}

TEST(body_ofTheLargestSize) {
    unsigned char *big = malloc(OCSP_MAX_RESPONSE_BYTES + 1);
    memset(big, 'b', OCSP_MAX_RESPONSE_BYTES + 1);
    for (int with_length = 0; with_length < 2; with_length++) {
        turn t = {.head = with_length ? "HTTP/1.0 200 OK\r\n" TYPE "Content-Length: 65536\r\n\r\n" : OK10,
                  .body = big,
                  .body_len = OCSP_MAX_RESPONSE_BYTES};
        startServer(&t, 1, NULL);
        assertBody(fetch(LONG_TIMEOUT_MS), big, OCSP_MAX_RESPONSE_BYTES);
        stopServer();
    }
    free(big);
}

/* An empty body is handed on: ocspVerify rejects it, with an error of kind response. */
TEST(body_emptyIsHandedOn, "7") {
    static const char *const heads[] = {OK10, "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 0\r\n\r\n"};
    for (int i = 0; i < 2; i++) {
        turn t = {.head = heads[i], .body = "", .body_len = 0};
        startServer(&t, 1, NULL);
        got g = fetch(LONG_TIMEOUT_MS);
        assert_int_equal(g.result, OCSP_FETCH_OK);
        assert_null(g.body);
        assert_int_equal(g.n, 0);
        stopServer();
    }
}

/* ---- errors of kind http ----------------------------------------------------------------------------------------- */

TEST(answer_htmlWithStatus200IsRejected, "7") {
    assertErrorFrom((turn){.head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 12\r\n\r\n",
                           .body = "<html>hello<",
                           .body_len = 12},
                    OCSP_ERR_HTTP, "http-type", 1, LONG_TIMEOUT_MS);
}

TEST(answer_wrongOrMissingTypeIsRejected, "7") {
    static const char *const heads[] = {"HTTP/1.0 200 OK\r\n\r\n",
                                        "HTTP/1.0 200 OK\r\nContent-Type:\r\n\r\n",
                                        "HTTP/1.0 200 OK\r\nContent-Type: application/octet-stream\r\n\r\n",
                                        "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-request\r\n\r\n",
                                        "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp-responses\r\n\r\n",
                                        "HTTP/1.0 200 OK\r\nContent-Type: application/ocsp\r\n\r\n",
                                        "HTTP/1.0 200 OK\r\nX: application/ocsp-response\r\n\r\n"};
    for (size_t i = 0; i < 7; i++) assertErrorFrom(answering(heads[i]), OCSP_ERR_HTTP, "http-type", 1, LONG_TIMEOUT_MS);
}

/* Chunked, in one piece and byte by byte, on a connection that is closed or not. */
TEST(body_chunked, "7") {
    char body[300];
    size_t half = sizeof(answer) / 2, rest = sizeof(answer) - half;
    size_t n = (size_t)snprintf(body, sizeof(body), "%zx;a=b\r\n", half);
    memcpy(body + n, answer, half);
    n += half;
    n += (size_t)snprintf(body + n, sizeof(body) - n, "\r\n00%zX\r\n", rest);
    memcpy(body + n, answer + half, rest);
    n += rest;
    n += (size_t)snprintf(body + n, sizeof(body) - n, "\r\n0\r\nX-Trailer: y\r\n\r\n");
    for (int open = 0; open < 2; open++)
        for (int pace = 0; pace >= -1; pace--)
            assertGoodFrom((turn){.head = "HTTP/1.1 200 OK\r\n" TYPE "Transfer-Encoding: chunked\r\n\r\n",
                                  .body = body,
                                  .body_len = n,
                                  .pace_ms = pace,
                                  .then = open ? THEN_HANG : THEN_CLOSE});
}

/* The expected kind and word, one request (no GET), and what the message must name. */
static void assertMessageFrom(turn t, ocspErrorKind kind, const char *word, const char *named) {
    startServer(&t, 1, NULL);
    got g = fetch(LONG_TIMEOUT_MS);
    assertFails(g, kind, word);
    if (!strstr(g.err.text, named)) fail_msg("no \"%s\" in: %s", named, g.err.text);
    assert_int_equal(seenRequests(), 1);
    stopServer();
}

TEST(body_otherEncodingsAreNamed, "7") {
    assertMessageFrom(answering("HTTP/1.1 200 OK\r\n" TYPE
                                "transfer-encoding: gzip, chunked\r\nContent-Length: 10\r\n\r\n"),
                      OCSP_ERR_HTTP, "http-body", "Transfer-Encoding is gzip");
    assertMessageFrom(answering("HTTP/1.1 200 OK\r\n" TYPE "Content-Encoding: gzip\r\nContent-Length: 10\r\n\r\n"),
                      OCSP_ERR_HTTP, "http-body", "Content-Encoding is gzip");
}

TEST(body_malformedChunksAreRejected, "7") {
    static const struct {
        const char *body;
        afterAnswer then;
        ocspErrorKind kind;
    } rows[] = {{"xyz\r\n", THEN_HANG, OCSP_ERR_HTTP},
                {"10001\r\n", THEN_HANG, OCSP_ERR_HTTP},
                {"ffffffffffffffffffff\r\n", THEN_HANG, OCSP_ERR_HTTP},
                {"5\r\nhello!", THEN_CLOSE, OCSP_ERR_NETWORK},
                {"5\r\nhello!\r\n", THEN_HANG, OCSP_ERR_HTTP},
                {"5\r\nhel", THEN_CLOSE, OCSP_ERR_NETWORK},
                {"5\r\nhello\r\n0\r\n", THEN_CLOSE, OCSP_ERR_NETWORK}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assertErrorFrom((turn){.head = "HTTP/1.1 200 OK\r\n" TYPE "Transfer-Encoding: chunked\r\n\r\n",
                               .body = rows[i].body,
                               .body_len = strlen(rows[i].body),
                               .then = rows[i].then},
                        rows[i].kind, rows[i].kind == OCSP_ERR_HTTP ? "http-body" : "closed", 1, LONG_TIMEOUT_MS);
    turn endless = {.head = "HTTP/1.1 200 OK\r\n" TYPE "Transfer-Encoding: chunked\r\n\r\n",
                    .body = "5\r\nhello\r\n",
                    .body_len = 10,
                    .then = REPEAT,
                    .repeat = 10};
    assertErrorFrom(endless, OCSP_ERR_HTTP, "http-body", 1, LONG_TIMEOUT_MS);
    endless.body = "0\r\nX-Trailer: y\r\n";
    endless.body_len = 17;
    endless.repeat = 14;
    assertErrorFrom(endless, OCSP_ERR_HTTP, "http-body", 1, LONG_TIMEOUT_MS);
}

TEST(body_lengthOver64KiBIsRejected, "7") {
    static const char *const heads[] = {
        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 65537\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 99999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 18446744073709551617\r\n\r\n",
        "HTTP/1.1 200 OK\r\n" TYPE
        "Content-Length: 184467440737095516161844674407370955161618446744073709551616\r\n\r\n"};
    for (int i = 0; i < 4; i++) {
        turn t = answering(heads[i]);
        t.then = THEN_HANG; /* judged by the header alone: the body never comes */
        assertErrorFrom(t, OCSP_ERR_HTTP, "http-body", 1, LONG_TIMEOUT_MS);
    }
}

TEST(body_endlessIsCutAt64KiB, "7") {
    static const char *const begins[] = {"this is no DER", "0\203\001\001a SEQUENCE of more than 64 KiB"};
    for (int i = 0; i < 2; i++)
        assertErrorFrom(
            (turn){.head = OK10, .body = begins[i], .body_len = strlen(begins[i]), .then = REPEAT, .repeat = 9},
            OCSP_ERR_HTTP, "http-body", 1, LONG_TIMEOUT_MS);
}

/* A DER SEQUENCE that is complete. */
static const unsigned char sequence[] = "0\026a whole DER SEQUENCE: 22";

/* Neither a length nor chunks, and the responder keeps the connection open: the DER says where it ends. */
TEST(body_withoutLengthEndsWithTheDer) {
    for (int pace = 0; pace >= -1; pace--) {
        turn t = {.head = "HTTP/1.1 200 OK\r\n" TYPE "\r\n",
                  .body = sequence,
                  .body_len = 24,
                  .pace_ms = pace,
                  .then = THEN_HANG};
        startServer(&t, 1, NULL);
        assertBody(fetch(LONG_TIMEOUT_MS), sequence, 24);
        stopServer();
    }
    /* Trailing bytes are handed on: ocspVerify rejects them. */
    turn t = {.head = OK10, .body = sequence, .body_len = 25, .then = THEN_HANG};
    startServer(&t, 1, NULL);
    assertBody(fetch(LONG_TIMEOUT_MS), sequence, 25);
    stopServer();
}

TEST(answer_interimOnesAreSkipped) {
    assertGoodFrom(answering("HTTP/1.1 100 Continue\r\n\r\n" OK10));
    assertGoodFrom(answering("HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102\r\n\r\n" OK10));
    turn slow = answering("HTTP/1.1 100 Continue\r\n\r\n" OK10);
    slow.pace_ms = -1;
    assertGoodFrom(slow);
    /* The status that counts is the final one. */
    turn script[2] = {answering("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 405 No\r\n\r\n"), answering(OK10)};
    startServer(script, 2, NULL);
    assertBody(fetch(LONG_TIMEOUT_MS), answer, sizeof(answer));
    assert_int_equal(seenRequests(), 2);
    stopServer();
    assertErrorFrom((turn){.head = "HTTP/1.1 100 Continue\r\n\r\n", .then = THEN_CLOSE}, OCSP_ERR_NETWORK, "closed", 1,
                    LONG_TIMEOUT_MS);
    assertErrorFrom((turn){.head = "HTTP/1.1 100 Continue\r\n\r\n", .then = REPEAT, .repeat = 25}, OCSP_ERR_NETWORK,
                    "http-header", 1, LONG_TIMEOUT_MS);
    assertMessageFrom(answering("HTTP/1.1 101 Switching Protocols\r\n\r\n"), OCSP_ERR_HTTP, "http-status",
                      "HTTP status 101");
}

/* Malformed answers of other servers, and the message for each. */
TEST(answer_eachMalformedOneHasItsMessage) {
    static const struct {
        const char *head, *word, *named;
    } rows[] = {
        {"\xef\xbb\xbf" OK10, "http-header", "byte order mark"},
        {"\x15\x03\x03", "http-header", "https://"},
        {"<html>\n", "http-header", "\"<html>\""},
        {"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n" TYPE "\r\n", "http-type", "text/html"},
        {"HTTP/1.1 302 Found\r\nLocation: http://new.example/ocsp\r\n\r\n", "http-status", "http://new.example/ocsp"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assertMessageFrom(answering(rows[i].head), OCSP_ERR_HTTP, rows[i].word, rows[i].named);
    /* HTTP/0.9: the body alone. */
    assertMessageFrom((turn){.head = "", .body = sequence, .body_len = 24}, OCSP_ERR_HTTP, "http-header", "HTTP/0.9");
    assertGoodFrom(answering("\r\n" OK10));
    assertGoodFrom(answering("HTTP/1.1 200 OK\r\n" TYPE TYPE "cOnTENt-tYPE: APPLICATION/ocsp-response\r\n\r\n"));
}

TEST(contentLength_invalidIsRejected) {
    static const char *const heads[] = {"HTTP/1.1 200 OK\r\n" TYPE "Content-Length: -1\r\n\r\n",
                                        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 0x20\r\n\r\n",
                                        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length:\r\n\r\n",
                                        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 10 20\r\n\r\n",
                                        "HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 10\r\nContent-Length: 20\r\n\r\n"};
    for (int i = 0; i < 5; i++) assertErrorFrom(answering(heads[i]), OCSP_ERR_HTTP, "http-body", 1, LONG_TIMEOUT_MS);
}

/* RFC 9112 section 2.2: LF alone ends a line too. CR alone does not, and is refused. */
TEST(lines_endWithLfButNotWithCr) {
    assertGoodFrom(answering("HTTP/1.1 200 OK\nContent-Type: application/ocsp-response\nX: a\n\n"));
    assertGoodFrom(answering("HTTP/1.1 200 OK\n" TYPE "\r\n"));
    assertMessageFrom(answering("HTTP/1.1 200 OK\r\n" TYPE "X: a\nTransfer-Encoding: gzip\r\n\r\n"), OCSP_ERR_HTTP,
                      "http-body", "Transfer-Encoding is gzip"); /* seen as the field that it is */
    assertMessageFrom(answering("HTTP/1.1 200 OK\r\n" TYPE "X: a\rY: b\r\n\r\n"), OCSP_ERR_HTTP, "http-header",
                      "carriage return");
}

TEST(answer_notHttpIsRejected) {
    static const char *const heads[] = {"SSH-2.0-OpenSSH_9.2\r\n\r\n",      "HTTP/2 200\r\n" TYPE "\r\n",
                                        "HTTP/1.1 2OO OK\r\n" TYPE "\r\n",  "HTTP/1.1 20 OK\r\n" TYPE "\r\n",
                                        "HTTP/1.1 2000 OK\r\n" TYPE "\r\n", "HTTP/1.1200 OK\r\n" TYPE "\r\n",
                                        "ICY 200 OK\r\n" TYPE "\r\n"};
    for (int i = 0; i < 7; i++) assertErrorFrom(answering(heads[i]), OCSP_ERR_HTTP, "http-header", 1, LONG_TIMEOUT_MS);
}

TEST(status_redirectsAreNotFollowed, "7") {
    static const int statuses[] = {300, 301, 302, 303, 304, 307, 308};
    for (size_t i = 0; i < 7; i++) {
        char head[200];
        snprintf(head, sizeof(head), "HTTP/1.1 %d Moved\r\nLocation: http://127.0.0.1:1/\r\n" TYPE "\r\n", statuses[i]);
        assertErrorFrom(answering(head), OCSP_ERR_HTTP, "http-status", 1, LONG_TIMEOUT_MS);
    }
}

TEST(status_not200IsRejectedWithAnyBody, "7") {
    static const int statuses[] = {101, 201, 202, 204, 206, 500, 502, 503, 504, 505, 599};
    for (size_t i = 0; i < 11; i++) {
        char head[200];
        snprintf(head, sizeof(head), "HTTP/1.1 %d Hm\r\n" TYPE "\r\n", statuses[i]);
        assertErrorFrom(answering(head), OCSP_ERR_HTTP, "http-status", 1, LONG_TIMEOUT_MS); /* and no GET */
    }
}

/* ---- POST rejected, then GET ------------------------------------------------------------------------------------- */

TEST(get_followsARejectedPost, "4") {
    static const int statuses[] = {400, 403, 404, 405, 410, 411, 415, 429, 499, 501};
    for (size_t i = 0; i < 10; i++) {
        char head[200];
        snprintf(head, sizeof(head), "HTTP/1.1 %d No\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nno",
                 statuses[i]);
        turn script[2] = {{.head = head, .body = "", .then = THEN_HANG}, answering(OK10)};
        startServer(script, 2, NULL);
        assertBody(fetch(LONG_TIMEOUT_MS), answer, sizeof(answer));
        assert_int_equal(seenRequests(), 2);
        assert_memory_equal(server.request[0].p, "POST ", 5);
        assert_memory_equal(server.request[1].p, "GET ", 4);
        stopServer();
    }
}

TEST(get_rejectedTooIsOneFailure, "7") {
    turn t = answering("HTTP/1.1 404 Not Found\r\n" TYPE "\r\n");
    startServer(&t, 1, NULL);
    got g = fetch(LONG_TIMEOUT_MS);
    assertFails(g, OCSP_ERR_HTTP, "http-status");
    assert_non_null(strstr(g.err.text, "404"));
    assert_int_equal(seenRequests(), 2);
    stopServer();
}

TEST(get_itsErrorKindCounts) {
    turn script[2] = {answering("HTTP/1.1 405 No\r\n\r\n"), {.then = THEN_RESET}};
    startServer(script, 2, NULL);
    assertFails(fetch(LONG_TIMEOUT_MS), OCSP_ERR_NETWORK, "closed");
    assert_int_equal(seenRequests(), 2);
    stopServer();
}

TEST(post_isAsRfc6960Says) {
    static const struct {
        const char *path, *line;
    } rows[] = {{"", "POST / HTTP/1.1\r\n"},
                {"/", "POST / HTTP/1.1\r\n"},
                {"/ocsp", "POST /ocsp HTTP/1.1\r\n"},
                {"/a/b/?q=1", "POST /a/b/?q=1 HTTP/1.1\r\n"},
                {"?q=1", "POST /?q=1 HTTP/1.1\r\n"}};
    for (int i = 0; i < 5; i++) {
        turn t = answering(OK10);
        startServer(&t, 1, NULL);
        assertBody(fetchWith(urlOf(rows[i].path), NULL, LONG_TIMEOUT_MS, NULL), answer, sizeof(answer));
        testBytes r = testJoin(testCopy(server.request[0].p, server.request[0].n), testCopy("", 1));
        char host[64];
        snprintf(host, sizeof(host), "\r\nHost: 127.0.0.1:%d\r\n", server.port);
        assert_memory_equal(r.p, rows[i].line, strlen(rows[i].line));
        assert_non_null(strstr((char *)r.p, host));
        assert_non_null(strstr((char *)r.p, "\r\nContent-Type: application/ocsp-request\r\n"));
        assert_non_null(strstr((char *)r.p, "\r\nConnection: close\r\n"));
        assert_non_null(strstr((char *)r.p, "\r\nAccept-Encoding: identity\r\n"));
        char length[64];
        snprintf(length, sizeof(length), "\r\nContent-Length: %zu\r\n", sizeof(asked));
        assert_non_null(strstr((char *)r.p, length));
        assert_memory_equal(server.request[0].p + server.request[0].n - sizeof(asked), asked, sizeof(asked));
        testBytesFree(&r);
        stopServer();
    }
}

/* The path decodes to the request; no "//", no character that a path cannot have. */
TEST(get_carriesTheRequestInThePath) {
    static const struct {
        const char *path, *before;
    } rows[] = {
        {"", "GET /"}, {"/", "GET /"}, {"/ocsp", "GET /ocsp/"}, {"/ocsp/", "GET /ocsp/"}, {"/a/b", "GET /a/b/"}};
    for (int i = 0; i < 5; i++) {
        turn script[2] = {answering("HTTP/1.1 405 No\r\n\r\n"), answering(OK10)};
        startServer(script, 2, NULL);
        assertBody(fetchWith(urlOf(rows[i].path), NULL, LONG_TIMEOUT_MS, NULL), answer, sizeof(answer));
        const char *line = (const char *)server.request[1].p;
        size_t n = strlen(rows[i].before);
        assert_memory_equal(line, rows[i].before, n);
        const char *end = memmem(line, server.request[1].n, " HTTP/1.1\r\nHost: ", 17);
        assert_non_null(end);
        assert_null(memmem(line, (size_t)(end - line), "//", 2));
        char base64[200];
        size_t k = 0;
        for (const char *p = line + n; p < end; p++) {
            if (*p == '%') {
                char hex[3] = {p[1], p[2], 0};
                base64[k++] = (char)strtoul(hex, NULL, 16);
                p += 2;
            } else {
                assert_true((*p >= '0' && *p <= '9') || (*p >= 'A' && *p <= 'Z') || (*p >= 'a' && *p <= 'z'));
                base64[k++] = *p;
            }
        }
        unsigned char decoded[200];
        int m = EVP_DecodeBlock(decoded, (unsigned char *)base64, (int)k);
        assert_true(m >= (int)sizeof(asked));
        assert_memory_equal(decoded, asked, sizeof(asked));
        assert_int_equal(base64[k - 1], '=');
        base64[k] = 0;
        assert_true(strchr(base64, '+') && strchr(base64, '/')); /* the odd characters were there to be encoded */
        stopServer();
    }
}

/* ---- errors of kind network -------------------------------------------------------------------------------------- */

TEST(body_shorterThanContentLength, "7") {
    assertErrorFrom(answering("HTTP/1.1 200 OK\r\n" TYPE "Content-Length: 5000\r\n\r\n"), OCSP_ERR_NETWORK, "closed", 1,
                    LONG_TIMEOUT_MS);
}

TEST(connection_resetOrClosedAtOnce, "7") {
    assertErrorFrom((turn){.then = THEN_RESET}, OCSP_ERR_NETWORK, "closed", 1, LONG_TIMEOUT_MS);
    assertErrorFrom((turn){.then = THEN_CLOSE}, OCSP_ERR_NETWORK, "closed", 1, LONG_TIMEOUT_MS);
    assertErrorFrom((turn){.then = CLOSE_AT_ONCE}, OCSP_ERR_NETWORK, "closed", 0, LONG_TIMEOUT_MS);
    assertErrorFrom((turn){.head = "HTTP/1.1 200 OK\r\nContent-Ty", .then = THEN_CLOSE}, OCSP_ERR_NETWORK, "closed", 1,
                    LONG_TIMEOUT_MS);
    assertErrorFrom((turn){.head = "HT", .then = THEN_RESET}, OCSP_ERR_NETWORK, "closed", 1, LONG_TIMEOUT_MS);
}

TEST(timeout_noAnswer, "7") {
    assertErrorFrom((turn){.then = THEN_HANG}, OCSP_ERR_NETWORK, "timeout", 1,
                    BRIEF_MS); /* one request: no GET after silence */
    assertErrorFrom((turn){.head = "HTTP/1.1 200 OK\r\n", .then = THEN_HANG}, OCSP_ERR_NETWORK, "timeout", 1, BRIEF_MS);
    assertErrorFrom((turn){.head = "HTTP/1.1 404 No\r\n", .then = THEN_HANG}, OCSP_ERR_NETWORK, "timeout", 1, BRIEF_MS);
    assertErrorFrom((turn){.head = OK10, .body = answer, .body_len = 9, .then = THEN_HANG}, OCSP_ERR_NETWORK, "timeout",
                    1, BRIEF_MS);
}

/* Each byte comes in time; the whole does not. */
TEST(timeout_boundsTheWholeExchange, "7") {
    turn t = answering(OK10);
    t.pace_ms = 40; /* more than a hundred bytes: ten times the time-out */
    assertErrorFrom(t, OCSP_ERR_NETWORK, "timeout", 1, BRIEF_MS);
}

TEST(header_endlessIsRejected, "7") {
    assertErrorFrom((turn){.head = "HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyy\r\n", .then = REPEAT, .repeat = 20},
                    OCSP_ERR_NETWORK, "http-header", 1, LONG_TIMEOUT_MS);
    assertErrorFrom((turn){.head = "HTTP/1.1 200 OK\r\nX: yyyyyyyyyyyyyyy", .then = REPEAT, .repeat = 10},
                    OCSP_ERR_NETWORK, "http-header", 1, LONG_TIMEOUT_MS);
}

TEST(header_isReadToALimit) {
    for (int over = 0; over < 2; over++) {
        size_t n = over ? 20000 : 12000;
        char *head = malloc(n + 200);
        assert_non_null(head);
        size_t k = (size_t)snprintf(head, 200, "HTTP/1.1 200 OK\r\n" TYPE "X: ");
        memset(head + k, 'y', n);
        memcpy(head + k + n, "\r\n\r\n", 5);
        if (over)
            assertErrorFrom(answering(head), OCSP_ERR_NETWORK, "http-header", 1, LONG_TIMEOUT_MS);
        else
            assertGoodFrom(answering(head));
        free(head);
    }
}

TEST(connection_refused, "4") {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    char url[100];
    snprintf(url, sizeof(url), "http://127.0.0.1:%d/", server.port);
    stopServer();
    got g = fetchWith(url, NULL, LONG_TIMEOUT_MS, &counting);
    assertFails(g, OCSP_ERR_NETWORK, "connect");
    assertFails(fetchWith("http://nobody.test.invalid/", NULL, LONG_TIMEOUT_MS, &counting), OCSP_ERR_NETWORK, "dns");
}

/* ---- a name with several addresses ------------------------------------------------------------------------------- */

static void fetchByName(const char *const *addresses, int64_t timeout) {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    memset(fake_addresses, 0, sizeof(fake_addresses));
    for (int i = 0; i < 8 && addresses[i]; i++) fake_addresses[i] = addresses[i];
    char url[100];
    snprintf(url, sizeof(url), "http://ocsp.test.invalid:%d/ocsp", server.port);
    fake_lookups = 0;
    assertBody(fetchWith(url, NULL, timeout, &counting), answer, sizeof(answer));
    assert_int_equal(fake_lookups, 1);
    assert_int_equal(seenRequests(), 1);
    stopServer();
    memset(fake_addresses, 0, sizeof(fake_addresses));
}

TEST(addresses_firstRefuses, "4") {
    fetchByName((const char *const[]){"127.0.0.2", "127.0.0.1", NULL}, LONG_TIMEOUT_MS);
}

TEST(addresses_firstHasNoRoute, "4") {
    /* A link-local address without its link: connect() refuses it before any packet is sent. */
    fetchByName((const char *const[]){"fe80::1", "127.0.0.1", NULL}, LONG_TIMEOUT_MS);
}

/* An address whose listener's queue is full answers to no SYN: as a black hole does, and all on loopback. */
TEST(addresses_firstIsABlackHole, "4") {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    int hole = listenOn("127.0.0.3", server.port, 0), fill[8];
    assert_true(hole >= 0);
    struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)server.port)};
    inet_pton(AF_INET, "127.0.0.3", &sin.sin_addr);
    for (int i = 0; i < 8; i++) {
        fill[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        (void)!connect(fill[i], (struct sockaddr *)&sin, sizeof(sin));
    }
    fake_addresses[0] = "127.0.0.3";
    fake_addresses[1] = "127.0.0.1";
    char url[100];
    snprintf(url, sizeof(url), "http://ocsp.test.invalid:%d/ocsp", server.port);
    assertBody(fetchWith(url, NULL, 4000, &counting), answer,
               sizeof(answer)); /* the black hole gets only its share of the time-out */
    for (int i = 0; i < 8; i++) close(fill[i]);
    close(hole);
    stopServer();
    memset(fake_addresses, 0, sizeof(fake_addresses));
}

TEST(addresses_firstIsSilent, "4") {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    int silent = listenOn("127.0.0.3", server.port, 8); /* the kernel accepts; no process reads */
    assert_true(silent >= 0);
    fake_addresses[0] = "127.0.0.3";
    fake_addresses[1] = "127.0.0.1";
    char url[100];
    snprintf(url, sizeof(url), "http://ocsp.test.invalid:%d/ocsp", server.port);
    assertBody(fetchWith(url, NULL, 4000, &counting), answer, sizeof(answer));
    close(silent);
    stopServer();
    memset(fake_addresses, 0, sizeof(fake_addresses));
}

TEST(addresses_brokenGetGoesOnToTheNext, "4") {
    turn script[3] = {answering("HTTP/1.1 405 No\r\n\r\n"), {.then = THEN_RESET}, answering(OK10)};
    startServer(script, 3, NULL);
    fake_addresses[0] = fake_addresses[1] = "127.0.0.1"; /* twice the same: what counts is the turn */
    char url[100];
    snprintf(url, sizeof(url), "http://ocsp.test.invalid:%d/ocsp", server.port);
    assertBody(fetchWith(url, NULL, LONG_TIMEOUT_MS, &counting), answer, sizeof(answer));
    assert_int_equal(seenRequests(), 3);
    stopServer();
    memset(fake_addresses, 0, sizeof(fake_addresses));
}

TEST(addresses_allDead, "4") {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    fake_addresses[0] = "127.0.0.2";
    fake_addresses[1] = "127.0.0.4";
    char url[100];
    snprintf(url, sizeof(url), "http://ocsp.test.invalid:%d/ocsp", server.port);
    assertFails(fetchWith(url, NULL, LONG_TIMEOUT_MS, &counting), OCSP_ERR_NETWORK, "connect");
    stopServer();
    memset(fake_addresses, 0, sizeof(fake_addresses));
}

/* ---- waking and cancelling --------------------------------------------------------------------------------------- */

static int wake[2];
static atomic_int give_up, asked_to_give_up;

static int cancelled(void) {
    char bytes[16];
    (void)!read(wake[0], bytes, sizeof(bytes));
    atomic_fetch_add(&asked_to_give_up, 1);
    return atomic_load(&give_up);
}

static void *wakeWhenAsked(void *arg) {
    int cancel = arg != NULL;
    while (seenRequests() == 0) testSleepMs(2);
    atomic_store(&give_up, cancel);
    (void)!write(wake[1], "x", 1);
    if (!cancel) {
        while (atomic_load(&asked_to_give_up) == 0) testSleepMs(2);
        pthread_mutex_lock(&server.lock);
        server.go = 1;
        pthread_mutex_unlock(&server.lock);
    }
    return NULL;
}

static void wakeDuringAFetch(int cancel) {
    turn t = answering(OK10);
    pthread_t waker;
    t.wait_for_go = 1;
    assert_int_equal(pipe(wake), 0);
    fcntl(wake[0], F_SETFL, O_NONBLOCK);
    atomic_store(&give_up, 0);
    atomic_store(&asked_to_give_up, 0);
    startServer(&t, 1, NULL);
    assert_int_equal(pthread_create(&waker, NULL, wakeWhenAsked, cancel ? &waker : NULL), 0);
    ocspIoHooks wait = {.leave_openssl = leave, .enter_openssl = enter, .wake_fd = wake[0], .cancelled = cancelled};
    got g = fetchWith(urlOf("/"), NULL, 200000, &wait);
    pthread_join(waker, NULL);
    if (cancel)
        assert_int_equal(g.result, OCSP_FETCH_CANCELLED);
    else
        assertBody(g, answer, sizeof(answer));
    assert_true(atomic_load(&asked_to_give_up) >= 1);
    stopServer();
    close(wake[0]);
    close(wake[1]);
}

TEST(cancel_endsTheFetch) {
    wakeDuringAFetch(1);
}

TEST(wakeUp_withoutCancelContinuesTheFetch) {
    wakeDuringAFetch(0);
}

TEST(openSsl_isLeftForEachWait) {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    left = entered = 0;
    assertBody(fetch(LONG_TIMEOUT_MS), answer, sizeof(answer));
    assert_true(left >= 2); /* the look-up of the name, and at least one poll */
    assert_int_equal(left, entered);
    stopServer();
}

/* ---- https ------------------------------------------------------------------------------------------------------- */

static X509 *tls_ca, *tls_cert;

/* Certificates that are valid by the real clock, the only one that TLS uses. */
static SSL_CTX *responderTls(const char *alt_names, int expired) {
    time_t now = time(NULL);
    X509_free(tls_ca);
    X509_free(tls_cert);
    tls_ca = testCert(&(testCertSpec){.name = "Web CA",
                                      .key = testEcKey(5),
                                      .ca = 1,
                                      .key_ids = 1,
                                      .not_before = now - 1000000,
                                      .not_after = now + 1000000});
    tls_cert = testCert(&(testCertSpec){.name = "responder",
                                        .issuer = tls_ca,
                                        .issuer_key = testEcKey(5),
                                        .key = testEcKey(6),
                                        .alt_names = alt_names,
                                        .key_ids = 1,
                                        .extended = "serverAuth",
                                        .not_before = now - 100000,
                                        .not_after = expired ? now - 1000 : now + 100000});
    return testServerCtx(tls_cert, testEcKey(6), NULL);
}

static got fetchTls(SSL_CTX *tls, turn t, const char *host, X509_STORE *store, int64_t timeout) {
    startServer(&t, 1, tls);
    char url[200];
    snprintf(url, sizeof(url), "https://%s:%d/ocsp", host, server.port);
    fake_addresses[0] = "127.0.0.1";
    got g = fetchWith(url, store, timeout, &counting);
    fake_addresses[0] = NULL;
    stopServer();
    return g;
}

TEST(https_rightNameAndTrustedCa) {
    SSL_CTX *tls = responderTls("DNS:ocsp.test.invalid,IP:127.0.0.1", 0);
    X509_STORE *store = testStore(tls_ca, NULL);
    assertBody(fetchTls(tls, answering(OK10), "ocsp.test.invalid", store, LONG_TIMEOUT_MS), answer, sizeof(answer));
    assertBody(fetchTls(tls, answering(OK10), "127.0.0.1", store, LONG_TIMEOUT_MS), answer, sizeof(answer));
    turn slow = answering(OK10);
    slow.pace_ms = 1;
    assertBody(fetchTls(tls, slow, "ocsp.test.invalid", store, LONG_TIMEOUT_MS), answer, sizeof(answer));
    assertFails(fetchTls(tls, (turn){.then = THEN_HANG}, "ocsp.test.invalid", store, BRIEF_MS), OCSP_ERR_NETWORK,
                "timeout");
    /* After the handshake a broken connection is no failure of TLS. */
    assertFails(fetchTls(tls, (turn){.then = THEN_RESET}, "ocsp.test.invalid", store, LONG_TIMEOUT_MS),
                OCSP_ERR_NETWORK, "closed");
    assertFails(fetchTls(tls, (turn){.then = THEN_CLOSE}, "ocsp.test.invalid", store, LONG_TIMEOUT_MS),
                OCSP_ERR_NETWORK, "closed");
    turn open = {.head = OK10, .body = sequence, .body_len = 24, .then = THEN_HANG}; /* the DER ends it here too */
    assertBody(fetchTls(tls, open, "ocsp.test.invalid", store, LONG_TIMEOUT_MS), sequence, 24);
    X509_STORE_free(store);
    SSL_CTX_free(tls);
}

TEST(https_otherNameIsRejected) {
    SSL_CTX *tls = responderTls("DNS:other.test.invalid,IP:127.0.0.9", 0);
    X509_STORE *store = testStore(tls_ca, NULL);
    got g = fetchTls(tls, answering(OK10), "ocsp.test.invalid", store, LONG_TIMEOUT_MS);
    assertFails(g, OCSP_ERR_NETWORK, "tls");
    assert_non_null(strstr(g.err.text, "the name ocsp.test.invalid"));
    g = fetchTls(tls, answering(OK10), "127.0.0.1", store, LONG_TIMEOUT_MS);
    assertFails(g, OCSP_ERR_NETWORK, "tls");
    assert_non_null(strstr(g.err.text, "the name 127.0.0.1"));
    X509_STORE_free(store);
    SSL_CTX_free(tls);
}

/* The system's roots have the CA, tls-ca-cert-file does not: the message is about the name, not about the store. */
TEST(https_otherNameIsRejectedWithSystemRoots) {
    SSL_CTX *tls = responderTls("DNS:other.test.invalid", 0);
    X509_STORE *store = testStore(testGetPki()->root, NULL);
    char path[] = "/tmp/ocsp-test-roots-XXXXXX";
    int fd = mkstemp(path);
    FILE *file = fdopen(fd, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, tls_ca), 1);
    fclose(file);
    setenv("SSL_CERT_FILE", path, 1);
    got g = fetchTls(tls, answering(OK10), "ocsp.test.invalid", store, LONG_TIMEOUT_MS);
    unsetenv("SSL_CERT_FILE");
    unlink(path);
    assertFails(g, OCSP_ERR_NETWORK, "tls");
    if (!strstr(g.err.text, "the name ocsp.test.invalid")) fail_msg("%s", g.err.text);
    X509_STORE_free(store);
    SSL_CTX_free(tls);
}

TEST(https_unknownCaOrExpiredIsRejected) {
    SSL_CTX *tls = responderTls("DNS:ocsp.test.invalid", 0);
    X509_STORE *store = testStore(testGetPki()->root, NULL);
    assertFails(fetchTls(tls, answering(OK10), "ocsp.test.invalid", store, LONG_TIMEOUT_MS), OCSP_ERR_NETWORK, "tls");
    assertFails(fetchTls(tls, answering(OK10), "ocsp.test.invalid", NULL, LONG_TIMEOUT_MS), OCSP_ERR_NETWORK, "tls");
    X509_STORE_free(store);
    SSL_CTX_free(tls);
    tls = responderTls("DNS:ocsp.test.invalid", 1);
    store = testStore(tls_ca, NULL);
    assertFails(fetchTls(tls, answering(OK10), "ocsp.test.invalid", store, LONG_TIMEOUT_MS), OCSP_ERR_NETWORK, "tls");
    X509_STORE_free(store);
    SSL_CTX_free(tls);
}

TEST(https_plainResponderIsRejected) {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    char url[100];
    snprintf(url, sizeof(url), "https://127.0.0.1:%d/", server.port);
    assertFails(fetchWith(url, NULL, 2000, &counting), OCSP_ERR_NETWORK, "timeout");
    stopServer();
}

/* ---- proxies ----------------------------------------------------------------------------------------------------- */

static const char *const proxy_names[] = {"http_proxy",  "HTTP_PROXY", "https_proxy",
                                          "HTTPS_PROXY", "no_proxy",   "NO_PROXY"};

static void noProxies(void) {
    for (int i = 0; i < 6; i++) unsetenv(proxy_names[i]);
}

static void setProxy(const char *name, const char *credentials) {
    char url[100];
    snprintf(url, sizeof(url), "http://%s127.0.0.1:%d", credentials, server.port);
    setenv(name, url, 1);
}

TEST(proxy_ofTheEnvironmentIsUsedForHttp) {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    setProxy("http_proxy", "");
    got g =
        fetchWith("http://far.test.invalid:8080/ocsp", NULL, LONG_TIMEOUT_MS, &counting); /* resolves nowhere here */
    noProxies();
    assertBody(g, answer, sizeof(answer));
    static const char line[] = "POST http://far.test.invalid:8080/ocsp HTTP/1.1\r\n";
    assert_memory_equal(server.request[0].p, line, sizeof(line) - 1);
    assert_non_null(memmem(server.request[0].p, server.request[0].n, "\r\nHost: far.test.invalid:8080\r\n", 31));
    assert_null(memmem(server.request[0].p, server.request[0].n, "Proxy-Authorization", 19));
    stopServer();
}

/* RFC 3986 section 3.2.1: in a URL they are percent-encoded; RFC 7617: the proxy gets them as they are. */
TEST(proxy_withCredentials) {
    static const struct {
        const char *in_url, *plain;
    } rows[] = {{"user:pw@", "user:pw"},
                {"us%65r:p%40ss%3aword%2F%25@", "user:p@ss:word/%"},
                {"user%20name:%c3%A4@", "user name:\xc3\xa4"},
                {"user:+~!@", "user:+~!"},
                {"user@", "user"}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        for (int tunnel = 0; tunnel < 2; tunnel++) {
            turn t = answering(tunnel ? "HTTP/1.1 403 Forbidden\r\n\r\n" : OK10);
            startServer(&t, 1, NULL);
            setProxy(tunnel ? "https_proxy" : "http_proxy", rows[i].in_url);
            got g = fetchWith(tunnel ? "https://far.test.invalid/" : "http://far.test.invalid/", NULL, LONG_TIMEOUT_MS,
                              &counting);
            noProxies();
            if (tunnel)
                assertFails(g, OCSP_ERR_NETWORK, "proxy");
            else
                assertBody(g, answer, sizeof(answer));
            char field[200] = "\r\nProxy-Authorization: Basic ";
            EVP_EncodeBlock((unsigned char *)field + strlen(field), (const unsigned char *)rows[i].plain,
                            (int)strlen(rows[i].plain));
            strcat(field, "\r\n");
            if (!memmem(server.request[0].p, server.request[0].n, field, strlen(field)))
                fail_msg("%s, tunnel %d", rows[i].in_url, tunnel);
            stopServer();
        }
}

/* Reported, and never printed. */
TEST(proxy_badlyEncodedCredentials) {
    static const char *const bad[] = {"user:secret%@",   "user:secret%4@",  "user:secret%4g@", "%:secret@",
                                      "user:secret%00@", "user:80/secret@", "user:my@secret@"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        for (int tls = 0; tls < 2; tls++) {
            char url[100];
            snprintf(url, sizeof(url), "http://%s127.0.0.1:1", bad[i]);
            setenv(tls ? "https_proxy" : "http_proxy", url, 1);
            got g = fetchWith(tls ? "https://far.test.invalid/" : "http://far.test.invalid/", NULL, LONG_TIMEOUT_MS,
                              &counting);
            noProxies();
            assertFails(g, OCSP_ERR_NETWORK, "proxy");
            if (!strstr(g.err.text, tls ? " https_proxy " : " http_proxy ") || !strstr(g.err.text, "%25") ||
                strstr(g.err.text, "secret"))
                fail_msg("%s: %s", bad[i], g.err.text);
        }
}

/* 407: what to do about it, and no second try with a password that may be wrong. */
TEST(proxy_authenticationRequired) {
    static const char *const words[2] = {"requires a user and a password", "rejects the user and the password"};
    for (int with = 0; with < 2; with++)
        for (int tls = 0; tls < 2; tls++) {
            turn t = {.head = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Type: text/html\r\n"
                              "Proxy-Authenticate: Basic realm=\"x\"\r\nContent-Length: 6\r\n\r\n<html>",
                      .then = THEN_HANG};
            startServer(&t, 1, NULL);
            setProxy(tls ? "https_proxy" : "http_proxy", with ? "user:secret@" : "");
            got g = fetchWith(tls ? "https://far.test.invalid/" : "http://far.test.invalid/", NULL, LONG_TIMEOUT_MS,
                              &counting);
            noProxies();
            assertFails(g, tls ? OCSP_ERR_NETWORK : OCSP_ERR_HTTP, "proxy");
            if (!strstr(g.err.text, words[with]) || !strstr(g.err.text, tls ? "https_proxy" : "http_proxy") ||
                strstr(g.err.text, "secret") || !strstr(g.err.text, "through the proxy 127.0.0.1:"))
                fail_msg("%s", g.err.text);
            assert_int_equal(seenRequests(), 1);
            stopServer();
        }
    /* From the responder itself it is like any other status. */
    turn t = answering("HTTP/1.1 407 Hm\r\n\r\n");
    startServer(&t, 1, NULL);
    assertFails(fetch(LONG_TIMEOUT_MS), OCSP_ERR_HTTP, "http-status");
    assert_int_equal(seenRequests(), 2);
    stopServer();
}

TEST(noProxy_goesDirect) {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    setenv("http_proxy", "http://127.0.0.2:1", 1); /* nothing listens there */
    setenv("no_proxy", "other.example,127.0.0.1", 1);
    got g = fetch(LONG_TIMEOUT_MS);
    noProxies();
    assertBody(g, answer, sizeof(answer));
    assert_memory_equal(server.request[0].p, "POST /ocsp HTTP/1.1\r\n", 21);
    stopServer();
}

/* As in other tools: a name matches its subdomains, with or without a leading dot. */
TEST(noProxy_matchesDomains) {
    static const struct {
        const char *list;
        int direct;
    } rows[] = {{"ocsp.test.invalid", 1},
                {"test.invalid", 1},
                {".test.invalid", 1},
                {"*", 1},
                {"a.example, OCSP.Test.INVALID", 1},
                {"a.example b.example test.invalid", 1},
                {"", 0},
                {"csp.test.invalid", 0},
                {"other.invalid", 0},
                {"x.ocsp.test.invalid", 0},
                {",", 0},
                {".", 0}};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        turn t = answering(OK10);
        startServer(&t, 1, NULL);
        setenv("http_proxy", "http://127.0.0.2:1", 1); /* nothing listens there */
        setenv("no_proxy", rows[i].list, 1);
        char url[100];
        snprintf(url, sizeof(url), "http://ocsp.test.invalid:%d/ocsp", server.port);
        fake_addresses[0] = "127.0.0.1";
        got g = fetchWith(url, NULL, LONG_TIMEOUT_MS, &counting);
        fake_addresses[0] = NULL;
        noProxies();
        if ((g.result == OCSP_FETCH_OK) != rows[i].direct) fail_msg("no_proxy \"%s\"", rows[i].list);
        ocspFree(g.body);
        stopServer();
    }
}

TEST(proxy_deadOneIsNamed) {
    setenv("http_proxy", "http://127.0.0.2:1", 1);
    got g = fetchWith("http://far.test.invalid/ocsp", NULL, LONG_TIMEOUT_MS, &counting);
    noProxies();
    assertFails(g, OCSP_ERR_NETWORK, "connect");
    assert_non_null(strstr(g.err.text, "proxy"));
    assert_non_null(strstr(g.err.text, "127.0.0.2"));
}

TEST(proxy_tunnelsHttps) {
    SSL_CTX *tls = responderTls("DNS:far.test.invalid", 0);
    X509_STORE *store = testStore(tls_ca, NULL);
    turn t = answering(OK10);
    t.tunnel = 1;
    startServer(&t, 1, tls);
    setProxy("https_proxy", "");
    got g = fetchWith("https://far.test.invalid:8443/ocsp", store, LONG_TIMEOUT_MS, &counting);
    noProxies();
    assertBody(g, answer, sizeof(answer));
    static const char line[] = "CONNECT far.test.invalid:8443 HTTP/1.1\r\nHost: far.test.invalid:8443\r\n";
    assert_memory_equal(server.connect_request.p, line, sizeof(line) - 1);
    assert_memory_equal(server.request[0].p, "POST /ocsp HTTP/1.1\r\n", 21); /* inside, as without a proxy */
    stopServer();
    X509_STORE_free(store);
    SSL_CTX_free(tls);
}

TEST(proxy_rejectsTheTunnel) {
    turn t = {.head = "HTTP/1.1 403 Forbidden\r\n\r\n"};
    startServer(&t, 1, NULL);
    setProxy("https_proxy", "");
    got g = fetchWith("https://far.test.invalid/ocsp", NULL, LONG_TIMEOUT_MS, &counting);
    noProxies();
    assertFails(g, OCSP_ERR_NETWORK, "proxy");
    assert_non_null(strstr(g.err.text, "CONNECT to port 443"));
    assert_int_equal(seenRequests(), 1); /* no GET without a tunnel */
    stopServer();
}

TEST(proxy_unusableIsReported) {
    setenv("http_proxy", "https://127.0.0.1:1", 1);
    assertFails(fetchWith("http://far.test.invalid/", NULL, LONG_TIMEOUT_MS, &counting), OCSP_ERR_NETWORK, "proxy");
    setenv("http_proxy", "http://[::", 1);
    assertFails(fetchWith("http://far.test.invalid/", NULL, LONG_TIMEOUT_MS, &counting), OCSP_ERR_NETWORK, "proxy");
    noProxies();
}

/* ---- the directive proxy ----------------------------------------------------------------------------------------- */

static void useDirective(const char *credentials) {
    static char url[100];
    snprintf(url, sizeof(url), "http://%s127.0.0.1:%d", credentials, server.port);
    proxy_directive = url;
}

/* For every host, whatever the environment says: http_proxy there is dead, and no_proxy has all hosts. */
TEST(proxyDirective_beatsTheEnvironment) {
    turn t = answering(OK10);
    startServer(&t, 1, NULL);
    setenv("http_proxy", "http://127.0.0.2:1", 1);
    setenv("no_proxy", "*", 1);
    useDirective("");
    got g = fetchWith("http://far.test.invalid:8080/ocsp", NULL, LONG_TIMEOUT_MS, &counting);
    static const char line[] = "POST http://far.test.invalid:8080/ocsp HTTP/1.1\r\n";
    assertBody(g, answer, sizeof(answer));
    assert_memory_equal(server.request[0].p, line, sizeof(line) - 1);
    stopServer();

    startServer(&t, 1, NULL);
    unsetenv("no_proxy");
    proxy_directive = "none"; /* direct, although the environment has a proxy */
    g = fetch(LONG_TIMEOUT_MS);
    assertBody(g, answer, sizeof(answer));
    assert_memory_equal(server.request[0].p, "POST /ocsp HTTP/1.1\r\n", 21);
    stopServer();

    proxy_directive = ""; /* the environment decides */
    g = fetchWith("http://far.test.invalid/ocsp", NULL, LONG_TIMEOUT_MS, &counting);
    assertFails(g, OCSP_ERR_NETWORK, "connect");
    assert_non_null(strstr(g.err.text, "through the proxy 127.0.0.2:1"));
    noProxies();
    proxy_directive = NULL;
}

TEST(proxyDirective_credentialsGoToTheProxyAlone) {
    for (int tunnel = 0; tunnel < 2; tunnel++) {
        SSL_CTX *tls = tunnel ? responderTls("DNS:far.test.invalid", 0) : NULL;
        X509_STORE *store = tunnel ? testStore(tls_ca, NULL) : NULL;
        turn t = answering(OK10);
        t.tunnel = tunnel;
        startServer(&t, 1, tls);
        useDirective("us%65r:p%40ss%3aword@");
        got g = fetchWith(tunnel ? "https://far.test.invalid/" : "http://far.test.invalid/", store, LONG_TIMEOUT_MS,
                          &counting);
        assertBody(g, answer, sizeof(answer));
        testBytes *proxied = tunnel ? &server.connect_request : &server.request[0];
        static const char field[] = "\r\nProxy-Authorization: Basic dXNlcjpwQHNzOndvcmQ=\r\n";
        assert_non_null(memmem(proxied->p, proxied->n, field, sizeof(field) - 1));
        if (tunnel) assert_null(memmem(server.request[0].p, server.request[0].n, "Proxy-Auth", 10));
        stopServer();
        X509_STORE_free(store);
        SSL_CTX_free(tls);
    }
    proxy_directive = NULL;
}

/* Sentences name the directive, and never its password. */
TEST(proxyDirective_errorsNameIt) {
    static const struct {
        const char *credentials, *head, *words;
    } rows[] = {
        {"user:secret@", "HTTP/1.1 407 Hm\r\n\r\n", "rejects the user and the password in the directive proxy (HTTP"},
        {"", "HTTP/1.1 407 Hm\r\n\r\n", "put them into the directive proxy as in"},
        {"user:secret%@", "", "the user or the password in the directive proxy is not percent-encoded"},
        {"user:secret@", "HTTP/1.1 403 Hm\r\n\r\n", "or set the directive proxy to none"},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        turn t = {.head = rows[i].head};
        startServer(&t, 1, NULL);
        useDirective(rows[i].credentials);
        got g = fetchWith("https://far.test.invalid/", NULL, LONG_TIMEOUT_MS, &counting);
        assertFails(g, OCSP_ERR_NETWORK, "proxy");
        if (!strstr(g.err.text, rows[i].words) || strstr(g.err.text, "secret")) fail_msg("%s", g.err.text);
        stopServer();
    }
    proxy_directive = "http://user:secret@127.0.0.2:1"; /* nothing listens there */
    got g = fetchWith("http://far.test.invalid/", NULL, LONG_TIMEOUT_MS, &counting);
    assertFails(g, OCSP_ERR_NETWORK, "connect");
    assert_non_null(strstr(g.err.text, "through the proxy 127.0.0.2:1: "));
    assert_null(strstr(g.err.text, "secret"));
    proxy_directive = NULL;
}

TEST(url_unparsableIsRejected) {
    static const char *const bad[] = {"", "http://", "ftp://a/", "http://a:b/", "nonsense"};
    for (int i = 0; i < 5; i++) assertFails(fetchWith(bad[i], NULL, 2000, &counting), OCSP_ERR_NETWORK, "dns");
}

static void beginProgram(void) {
    signal(SIGPIPE, SIG_IGN); /* of the responder's TLS writes to a client that has gone */
    noProxies();
}

static void endProgram(void) {
    X509_free(tls_ca);
    X509_free(tls_cert);
}

PROGRAM_FIXTURE(beginProgram, endProgram);
