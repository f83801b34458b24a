/* ocsp_tools.c - the option --cert-status of valkey-cli and valkey-benchmark in a patched tree: connects cli_common.c to
 * the check of the server's staple (ocsp_staple.h). Not part of the server.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_tools.h"
#include "ocsp_staple.h"
#include <stdio.h>
#include <stdlib.h>

#if defined(OPENSSL_VERSION_MAJOR) && OPENSSL_VERSION_MAJOR >= 3 && !defined(LIBRESSL_VERSION_NUMBER) && \
    !defined(OPENSSL_NO_OCSP)

/* Of the connection that is being opened. valkey-cli opens one at a time, and its handshake runs inside
 * cliSecureConnection. */
static const char **refusal;

/* The status callback, on the client's side. */
static int checkStaple(SSL *ssl, void *mode) {
    static char why[OCSP_STAPLE_ERROR_MAX];

    if (ocspStapleCheck(ssl, OCSP_STAPLE_REQUIRE, why, sizeof(why))) return 1;
    if ((size_t)mode == OCSP_TOOL_EXITS) {
        fprintf(stderr, "Could not negotiate a TLS connection: %s\n", why);
        exit(1);
    }
    *refusal = why;
    return 0;
}

int ocspToolRequireStaple(SSL *ssl, int mode, const char **err) {
    SSL_CTX *ctx = SSL_get_SSL_CTX(ssl);

    refusal = err;
    SSL_CTX_set_tlsext_status_cb(ctx, checkStaple);
    SSL_CTX_set_tlsext_status_arg(ctx, (void *)(size_t)mode);
    SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
    return 1;
}

#else

int ocspToolRequireStaple(SSL *ssl, int mode, const char **err) {
    (void)ssl;
    (void)mode;
    *err = "--cert-status requires OpenSSL 3.0 or later, and this tool is built with an older one or with LibreSSL";
    return 0;
}

#endif
