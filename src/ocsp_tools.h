/* ocsp_tools.h - what cli_common.c calls for the option --cert-status. Only in builds with TLS.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_TOOLS_H
#define OCSP_TOOLS_H

#include <openssl/ssl.h>

/* Makes the handshake of `ssl`, which has not begun, require a good OCSP staple of the server. A refusal ends the
 * program with exit status 1 and one sentence. Returns 1; or 0 with a constant sentence in *err if this build cannot. */
int ocspToolRequireStaple(SSL *ssl, const char **err);

#endif
