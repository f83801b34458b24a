/* other_module.c - another module in the same server, which speaks TLS for itself (as one that asks a directory server
 * does): what it does with OpenSSL must not be taken for the server's own doing.
 *
 *   loadmodule other_module.so CERT KEY
 *
 * Makes an SSL_CTX with that certificate when it is loaded, and another one for each command OTHER.CONTEXT, which are
 * kept. It hangs data of its own on contexts, too.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "../../deps/server_module_api.h"
#include <stdio.h>
#include <openssl/ssl.h>

static char cert[4096], key[4096];
static int slot;

static int makeContext(void) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());

    return ctx && SSL_CTX_use_certificate_chain_file(ctx, cert) == 1 &&
           SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) == 1 && SSL_CTX_set_ex_data(ctx, slot, &slot) == 1;
}

static int contextCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    (void)argv;
    (void)argc;
    return makeContext() ? Server_ReplyWithSimpleString(ctx, "OK") : Server_ReplyWithError(ctx, "ERR no context");
}

int RedisModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    if (serverLoadApi(ctx) || argc != 2) return SERVER_ERR;
    Server_SetModuleAttribs(ctx, "other", 1, SERVER_API_VERSION);
    snprintf(cert, sizeof(cert), "%s", Server_StringPtrLen(argv[0], NULL));
    snprintf(key, sizeof(key), "%s", Server_StringPtrLen(argv[1], NULL));
    slot = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, NULL);
    if (slot < 0 || !makeContext()) return SERVER_ERR;
    return Server_CreateCommand(ctx, "other.context", contextCommand, "readonly", 0, 0, 0);
}
