/* ocsp_staple.h - for TLS clients: requires a good OCSP staple of the server, or ends the handshake.
 *
 * For programs in C that open TLS connections with OpenSSL 3.0 or later, for example with libvalkey or hiredis. Link
 * with libocsp-staple.a (`make client-library`), libssl and libcrypto. Nothing here asks the network, and a client does
 * not need the server's engine.
 *
 * What is checked, in the handshake, before data is sent (RFC 6066 section 8, RFC 6960 section 3.2): the response is
 * signed by the issuer of the server's certificate, or by a responder that the issuer authorized (OCSPSigning); it is
 * for exactly that certificate; it says good; it is valid now, give or take five minutes. Intermediate certificates are
 * not checked.
 *
 * A resumed TLS session carries no staple (RFC 8446 section 4.4.2.1). In TLS 1.3 OCSP_STAPLE_REQUIRE refuses it; in TLS
 * 1.2 OpenSSL does not call the check, so the verdict of the session's first handshake stays. Resume no sessions, or
 * drop them after the time for which a revocation may go unnoticed. OpenSSL's clients resume none unless
 * SSL_set_session is called.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_STAPLE_H
#define OCSP_STAPLE_H

#include <stddef.h>
#include <openssl/ssl.h>

typedef enum ocspStaplePolicy {
    OCSP_STAPLE_REQUIRE = 1, /* a good staple, or no connection */
    OCSP_STAPLE_SOFT,        /* a missing one is accepted, unless the certificate is must-staple (RFC 7633) */
} ocspStaplePolicy;

#define OCSP_STAPLE_ERROR_MAX 640 /* bytes of a sentence, with its end */

/* Makes each connection opened with `ctx` request a staple and check it. Replaces the context's status callback. Call it
 * while the context is set up, before SSL_new. Verify the server's certificate too (SSL_VERIFY_PEER), or anybody can
 * show a certificate of his own and a good staple for it. Returns 1, or 0 when out of memory. */
int ocspStapleInstall(SSL_CTX *ctx, ocspStaplePolicy policy);

/* Why the check ended the handshake of `ssl`: one sentence, valid until SSL_free. NULL if it did not. */
const char *ocspStapleError(const SSL *ssl);

/* The check itself, for programs that have a status callback of their own: call it there, on the client's side. Returns
 * 1, or 0 with one sentence in `why`. Any thread; no I/O. */
int ocspStapleCheck(SSL *ssl, ocspStaplePolicy policy, char *why, size_t size);

#endif
