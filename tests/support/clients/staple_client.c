/* staple_client.c - a TLS client with libocsp-staple.a: connects to 127.0.0.1, sends PING and exits 0; exits 3 with the
 * reason if the handshake fails.
 *
 *   staple_client PORT CA-FILE require|soft
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_staple.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>

int main(int argc, char **argv) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    int fd = socket(AF_INET, SOCK_STREAM, 0), ok;
    char reply[64];
    SSL *ssl;

    if (argc != 4 || !ctx || SSL_CTX_load_verify_locations(ctx, argv[2], NULL) != 1) return 2;
    to.sin_port = htons((uint16_t)atoi(argv[1]));
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0) return 2;
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    if (!ocspStapleInstall(ctx, strcmp(argv[3], "soft") ? OCSP_STAPLE_REQUIRE : OCSP_STAPLE_SOFT)) return 2;
    ssl = SSL_new(ctx);
    if (!ssl || !SSL_set_fd(ssl, fd)) return 2;
    ok = SSL_connect(ssl) == 1;
    if (ok) {
        SSL_write(ssl, "PING\r\n", 6);
        SSL_read(ssl, reply, sizeof(reply));
    } else {
        const char *why = ocspStapleError(ssl);
        fprintf(stderr, "%s\n", why ? why : ERR_reason_error_string(ERR_peek_last_error()));
    }
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    close(fd);
    return ok ? 0 : 3;
}
