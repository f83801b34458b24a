/* empty.c - a module that does nothing: the cost of any module for a server's commands, as the baseline of `make
 * bench`.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "server_module_api.h"

SERVER_FUNCTIONS(SERVER_STATIC_POINTER)
SERVER_DEFINE_LOADER(static)

__attribute__((visibility("default"))) int RedisModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    (void)argv;
    (void)argc;
    if (serverLoadApi(ctx)) return SERVER_ERR;
    Server_SetModuleAttribs(ctx, "empty", 1, SERVER_API_VERSION);
    return SERVER_OK;
}
