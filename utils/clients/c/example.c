/* example.c - PING through hiredis over TLS, which requires the server to staple a good OCSP response.
 *
 *   cc example.c -locsp-staple -lhiredis_ssl -lhiredis -lssl -lcrypto -o example
 *   ./example 127.0.0.1 6379 ca.crt
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <hiredis/hiredis.h>
#include <hiredis/hiredis_ssl.h>
#include <ocsp_staple.h>
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    redisContext *c = argc == 4 ? redisConnect(argv[1], atoi(argv[2])) : NULL;
    redisReply *reply;
    SSL *ssl;

    if (!ctx || !c || c->err || SSL_CTX_load_verify_locations(ctx, argv[3], NULL) != 1) {
        fprintf(stderr, "usage: example HOST PORT CA-FILE (%s)\n", c && c->err ? c->errstr : "cannot read the CA file");
        return 2;
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    ocspStapleInstall(ctx, OCSP_STAPLE_REQUIRE); /* the one line that is new */
    ssl = SSL_new(ctx);
    if (redisInitiateSSL(c, ssl) != REDIS_OK) {
        const char *why = ocspStapleError(ssl);
        fprintf(stderr, "cannot connect: %s\n", why ? why : c->errstr);
        return 1;
    }
    reply = redisCommand(c, "PING");
    puts(reply && reply->str ? reply->str : c->errstr);
    freeReplyObject(reply);
    redisFree(c);
    SSL_CTX_free(ctx);
    return 0;
}
