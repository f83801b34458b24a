/* ocsp_tools.h - what cli_common.c calls for the option --cert-status. Only in builds with TLS.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_TOOLS_H
#define OCSP_TOOLS_H

#include <openssl/ssl.h>

/* Values of cliSSLconfig.cert_status. */
#define OCSP_TOOL_RETURNS 1 /* valkey-cli: a refusal fails the connection, with its reason in *err */
/* valkey-benchmark: a refusal ends the program with one sentence. Its connections do not block, so that their handshakes
 * run after cliSecureConnection has returned, in several threads. */
#define OCSP_TOOL_EXITS 2

/* Makes the handshake of `ssl`, which has not begun, require a good OCSP staple of the server. Returns 1; or 0 with a
 * constant sentence in *err. `err` must stay valid during the handshake (OCSP_TOOL_RETURNS). */
int ocspToolRequireStaple(SSL *ssl, int mode, const char **err);

#endif
