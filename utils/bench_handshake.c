/* bench_handshake.c - measures how long PINGs and full TLS handshakes take; the client half of utils/bench-hung.
 *
 * usage: bench_handshake HOST PORT CA.PEM ping|handshake COUNT
 *
 * Prints one measurement a line, in microseconds, then a line "stapled N of COUNT" (for handshakes). A handshake is
 * connect() to SSL_connect()'s return, with a status request and without resumption. Pings go over one TLS connection,
 * one at a time. Sorting and percentiles are the driver's.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define BENCH_PATIENCE 30 /* seconds that one read may wait: a server that hangs must end the run, not stall it */
#define BENCH_MAX_COUNT 1000000

static const char ping[] = "*1\r\n$4\r\nPING\r\n";
static const char pong[] = "+PONG\r\n";

static double nowUs(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static void die(const char *what) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    fprintf(stderr, "bench_handshake: %s: %s\n", what, reason ? reason : strerror(errno));
    exit(1);
}

static SSL_CTX *makeContext(const char *cafile) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());

    if (!ctx || !SSL_CTX_load_verify_file(ctx, cafile)) die("the CA file cannot be read");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_tlsext_status_type(ctx, TLSEXT_STATUSTYPE_ocsp);
    return ctx;
}

/* A connected SSL; ends the program when that fails. */
static SSL *shakeHands(SSL_CTX *ctx, const struct sockaddr_in *address) {
    struct timeval patience = {.tv_sec = BENCH_PATIENCE};
    int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
    SSL *ssl;

    if (fd < 0 || connect(fd, (const struct sockaddr *)address, sizeof(*address)) != 0) die("cannot connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    ssl = SSL_new(ctx);
    if (!ssl || !SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1) die("the handshake failed");
    return ssl;
}

static void hangUp(SSL *ssl) {
    int fd = SSL_get_fd(ssl);

    SSL_shutdown(ssl); /* politely, or the server logs an error for each */
    SSL_free(ssl);
    close(fd);
}

static void pingOnce(SSL *ssl) {
    char reply[sizeof(pong)] = "";
    int got = 0, n;

    if (SSL_write(ssl, ping, sizeof(ping) - 1) <= 0) die("PING could not be sent");
    while (got < (int)sizeof(pong) - 1) {
        n = SSL_read(ssl, reply + got, (int)sizeof(pong) - 1 - got);
        if (n <= 0) die("PING was not answered");
        got += n;
    }
    if (memcmp(reply, pong, sizeof(pong) - 1) != 0) die("PING was answered with something else than PONG");
}

int main(int argc, char **argv) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    int i, count, stapled = 0, measure_pings;
    SSL_CTX *ctx;
    double *took;

    signal(SIGPIPE, SIG_IGN);
    if (argc != 6 || inet_pton(AF_INET, argv[1], &address.sin_addr) != 1) {
        fputs("usage: bench_handshake IPV4-ADDRESS PORT CA.PEM ping|handshake COUNT\n", stderr);
        return 1;
    }
    address.sin_port = htons((uint16_t)atoi(argv[2]));
    measure_pings = strcmp(argv[4], "ping") == 0;
    count = atoi(argv[5]);
    if (count < 1 || count > BENCH_MAX_COUNT) {
        fputs("bench_handshake: COUNT is a number from 1 to 1000000\n", stderr);
        return 1;
    }
    took = calloc((size_t)count, sizeof(*took));
    if (!took) die("out of memory");
    ctx = makeContext(argv[3]);

    if (measure_pings) {
        SSL *ssl = shakeHands(ctx, &address);
        pingOnce(ssl); /* the first one waits for session tickets and the like */
        for (i = 0; i < count; i++) {
            double began = nowUs();
            pingOnce(ssl);
            took[i] = nowUs() - began;
        }
        hangUp(ssl);
    } else {
        for (i = 0; i < count; i++) {
            double began = nowUs();
            SSL *ssl = shakeHands(ctx, &address);
            const unsigned char *der;
            took[i] = nowUs() - began;
            if (SSL_get_tlsext_status_ocsp_resp(ssl, &der) > 0) stapled++;
            hangUp(ssl);
        }
    }
    for (i = 0; i < count; i++) printf("%.1f\n", took[i]); /* after it all, so that no pipe stands in the way */
    if (!measure_pings) printf("stapled %d of %d\n", stapled, count);
    SSL_CTX_free(ctx);
    free(took);
    return 0;
}
