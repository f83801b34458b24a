/* ocsp_tools.c - the option --cert-status of valkey-cli and valkey-benchmark in a patched tree: connects cli_common.c to
 * the check of the server's staple (ocsp_staple.h). Not part of the server.
 *
 * A refusal ends the program with one sentence. The tools would otherwise try again and print it again, and the handshakes
 * of valkey-benchmark, whose connections do not block, run in several threads after the call that opens them.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fmacros.h"
#include "ocsp_tools.h"
#include "ocsp_staple.h"
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

#if defined(OPENSSL_VERSION_MAJOR) && OPENSSL_VERSION_MAJOR >= 3 && !defined(LIBRESSL_VERSION_NUMBER) && \
    !defined(OPENSSL_NO_OCSP)

/* The status callback, on the client's side. */
static int checkStaple(SSL *ssl, void *unused) {
    char why[OCSP_STAPLE_ERROR_MAX], host[NI_MAXHOST], port[NI_MAXSERV];
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);

    (void)unused;
    if (ocspStapleCheck(ssl, OCSP_STAPLE_REQUIRE, why, sizeof(why))) return 1;
    if (getpeername(SSL_get_fd(ssl), (struct sockaddr *)&peer, &len) == 0 && peer.ss_family != AF_UNIX &&
        getnameinfo((struct sockaddr *)&peer, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        fprintf(stderr, "Could not connect to %s port %s: %s\n", host, port, why);
    else
        fprintf(stderr, "Could not connect: %s\n", why);
    exit(1);
}

int ocspToolRequireStaple(SSL *ssl, const char **err) {
    (void)err;
    SSL_CTX_set_tlsext_status_cb(SSL_get_SSL_CTX(ssl), checkStaple);
    SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
    return 1;
}

#else

int ocspToolRequireStaple(SSL *ssl, const char **err) {
    (void)ssl;
    *err = "--cert-status requires OpenSSL 3.0 or later, and this tool is built with an older one or with LibreSSL";
    return 0;
}

#endif
