/* staple_server.c - a TLS server that staples whatever bytes it is given, for the table of clients and their verdicts:
 * the product itself would never staple what is expired or foreign.
 *
 *   staple_server CERT-CHAIN KEY [STAPLE]
 *
 * Listens on a free port of 127.0.0.1, which is the first line that it prints. STAPLE is a file whose bytes are stapled
 * for clients that ask; without it nothing is. Answers HTTP clients with a page and others with "+OK" for each command
 * that begins with "*", as a server of the RESP protocol would. For each connection it prints "asked=0|1 name=..." (the
 * protocol's version). Ends when its standard input does, so that it never outlives the test.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <arpa/inet.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define LONGEST_STAPLE 16000
#define PATIENCE 10 /* seconds that a client may be silent */

static unsigned char staple[LONGEST_STAPLE];
static long staple_len;
static int asked;

static int onStatus(SSL *ssl, void *unused) {
    unsigned char *copy;

    (void)unused;
    asked = 1;
    if (staple_len == 0 || (copy = OPENSSL_malloc((size_t)staple_len)) == NULL) return SSL_TLSEXT_ERR_NOACK;
    memcpy(copy, staple, (size_t)staple_len);
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, staple_len);
    return SSL_TLSEXT_ERR_OK;
}

static void die(const char *what) {
    fprintf(stderr, "staple_server: %s\n", what);
    ERR_print_errors_fp(stderr);
    exit(1);
}

/* Answers until the client goes. */
static void converse(SSL *ssl) {
    static const char page[] = "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello\n";
    char text[4096];
    int n, i;

    while ((n = SSL_read(ssl, text, sizeof(text) - 1)) > 0) {
        text[n] = '\0';
        if (strncmp(text, "GET ", 4) == 0) {
            SSL_write(ssl, page, sizeof(page) - 1);
            break;
        }
        for (i = 0; i < n; i++)
            if (text[i] == '*' && (i == 0 || text[i - 1] == '\n')) SSL_write(ssl, "+OK\r\n", 5);
    }
}

int main(int argc, char **argv) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t len = sizeof(address);
    struct timeval patience = {PATIENCE, 0};
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;

    if (argc < 3) die("say CERT-CHAIN KEY [STAPLE]");
    signal(SIGPIPE, SIG_IGN);
    if (SSL_CTX_use_certificate_chain_file(ctx, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, argv[2], SSL_FILETYPE_PEM) != 1)
        die("cannot use the certificate or the key");
    if (argc > 3) {
        FILE *file = fopen(argv[3], "rb");
        if (file == NULL) die("cannot read the staple");
        staple_len = (long)fread(staple, 1, sizeof(staple), file);
        fclose(file);
    }
    SSL_CTX_set_tlsext_status_cb(ctx, onStatus);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&address, len) != 0 || listen(listener, 16) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0)
        die("cannot listen");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct pollfd waits[2] = {{listener, POLLIN, 0}, {0, POLLIN, 0}};
        SSL *ssl;
        int fd;
        if (poll(waits, 2, -1) <= 0) continue;
        if (waits[1].revents) return 0;
        if ((fd = accept(listener, NULL, NULL)) < 0) continue;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
        ssl = SSL_new(ctx);
        SSL_set_fd(ssl, fd);
        asked = 0;
        if (SSL_accept(ssl) == 1) {
            converse(ssl);
            SSL_shutdown(ssl);
        }
        printf("asked=%d name=%s\n", asked, SSL_get_version(ssl));
        fflush(stdout);
        SSL_free(ssl);
        close(fd);
        ERR_clear_error();
    }
}
