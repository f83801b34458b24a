/* ocsp_module_commands.c - the module's commands: OCSP.REFRESH, OCSP.GET, OCSP.SET and DEBUG OCSP-REFRESH.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_module.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REFRESH_COMMAND "ocsp.refresh"
#define GET_COMMAND "ocsp.get"
#define SET_COMMAND "ocsp.set"
#define DEBUG_SUBCOMMAND "ocsp-refresh"

/* ---- permissions -------------------------------------------------------------------------------------------------- */

typedef enum {
    DEBUG_DENIED,
    DEBUG_ALLOWED,
    DEBUG_ABSENT
} debugRight;

/* Returns whether the user of this command may run DEBUG. DEBUG_ABSENT: the server has no command of that name
 * (rename-command), so there is no permission to check. */
static debugRight mayDebug(ServerCtx *ctx) {
    ServerString *argv[2] = {Server_CreateString(NULL, "DEBUG", 5),
                             Server_CreateString(NULL, DEBUG_SUBCOMMAND, strlen(DEBUG_SUBCOMMAND))};
    ServerString *name = Server_GetCurrentUserName(ctx);
    ServerUser *user = name ? Server_GetModuleUserFromUserName(name) : NULL;
    debugRight right = DEBUG_DENIED;

    if (user) {
        errno = 0;
        if (Server_ACLCheckCommandPermissions(user, argv, 2) == SERVER_OK)
            right = DEBUG_ALLOWED;
        else if (errno == ENOENT)
            right = DEBUG_ABSENT;
        Server_FreeModuleUser(user);
    }
    if (name) Server_FreeString(ctx, name);
    Server_FreeString(NULL, argv[0]);
    Server_FreeString(NULL, argv[1]);
    return right;
}

static int isLocal(ServerCtx *ctx) {
    ServerClientInfo info = {.version = 1};

    if (Server_GetClientInfoById(&info, Server_GetClientId(ctx)) != SERVER_OK) return 0;
    return info.flags & SERVER_CLIENT_UNIXSOCKET || strncmp(info.addr, "127.", 4) == 0 || strcmp(info.addr, "::1") == 0;
}

/* Returns 1 if the user may run this command of the module; otherwise 0 with the error reply in *why. The server has
 * already checked the permission for the command itself; a user who may not run DEBUG may run none of them. */
static int mayRun(ServerCtx *ctx, int is_debug, const char **why) {
    debugRight right = mayDebug(ctx);

    *why = NULL;
    if (right == DEBUG_DENIED)
        *why = "NOPERM this user has no permissions to run the 'debug' command";
    else if (is_debug && right == DEBUG_ABSENT)
        *why = "ERR unknown command 'debug': it is renamed or disabled here. Use OCSP.REFRESH";
    else if (is_debug && module.debug_is_local && !isLocal(ctx))
        *why = "ERR DEBUG command not allowed. If the enable-debug-command option is set to "
               "\"local\", you can run it from a local connection, otherwise you need to set "
               "this option in the configuration file, and then restart the server.";
    return !*why;
}

/* ---- commands that wait ------------------------------------------------------------------------------------------- */

static int replyDone(ServerCtx *ctx, ServerString **argv, int argc) {
    const char *error = Server_GetBlockedClientPrivateData(ctx);

    (void)argv;
    (void)argc;
    return error ? Server_ReplyWithError(ctx, error) : Server_ReplyWithSimpleString(ctx, "OK");
}

/* The error reply when there is no memory for the reason: a failure must never be answered with OK. */
static char reason_lost[] =
    "ERR the command failed, and there is no memory to say why: see ocsp_last_error in INFO ocsp";

static void freeReply(ServerCtx *ctx, void *error) {
    (void)ctx;
    if (error != reason_lost) Server_Free(error);
}

/* Unblocks the client that waits for the OCSP thread. `error`: NULL on success. OCSP thread; an ocspRefreshDone. */
static void commandDone(void *blocked_client, const char *error) {
    size_t size = error ? strlen(error) + 5 : 0;
    char *reply = error ? Server_TryAlloc(size) : NULL;

    if (reply)
        snprintf(reply, size, "ERR %s", error);
    else if (error)
        reply = reason_lost;
    Server_UnblockClient(blocked_client, reply);
}

/* Blocks the client of this command. NULL with the reason in `why`: the server cannot, for example in MULTI. */
static ServerBlockedClient *blockClient(ServerCtx *ctx, const char *in_vain, char *why, size_t why_size) {
    int cannot = Server_GetContextFlags(ctx) & (SERVER_CTX_MULTI | SERVER_CTX_LUA | SERVER_CTX_DENY_BLOCKING);

    snprintf(why, why_size, "%s", cannot ? in_vain : "the server cannot block this client");
    return cannot ? NULL : Server_BlockClient(ctx, replyDone, NULL, freeReply, 0);
}

/* Replies with a reason; `client`: blocked for this command, NULL: not blocked. */
static int replyFailed(ServerCtx *ctx, ServerBlockedClient *client, const char *why) {
    char error[OCSP_SENTENCE_MAX + 8];

    if (client) {
        commandDone(client, why);
        return SERVER_OK;
    }
    snprintf(error, sizeof(error), "ERR %s", why);
    return Server_ReplyWithError(ctx, error);
}

static int refreshCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    int is_debug = argc == 2 && strcasecmp(Server_StringPtrLen(argv[1], NULL), DEBUG_SUBCOMMAND) == 0;
    ServerBlockedClient *client = NULL;
    const char *refusal;
    char why[OCSP_SENTENCE_MAX];

    if (argc != 1 && !is_debug) return Server_WrongArity(ctx);
    if (!mayRun(ctx, is_debug, &refusal)) return Server_ReplyWithError(ctx, refusal);
    if (is_debug) {
        if (ocspRequestRefresh(why, sizeof(why)))
            return Server_ReplyWithSimpleString(ctx, "Background OCSP refresh started");
    } else {
        client = blockClient(ctx,
                             "OCSP.REFRESH waits for the responder, which is not possible in MULTI or in a script: use "
                             "DEBUG OCSP-REFRESH, which does not wait",
                             why, sizeof(why));
        /* The client is blocked first: the thread may finish before this function returns. */
        if (client && ocspRequestRefreshThen(commandDone, client, why, sizeof(why))) return SERVER_OK;
    }
    return replyFailed(ctx, client, why);
}

/* OCSP.SET base64 */
static int setCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    ServerBlockedClient *client;
    const char *refusal, *base64;
    char why[OCSP_SENTENCE_MAX];
    size_t len;

    if (argc != 2) return Server_WrongArity(ctx);
    if (!mayRun(ctx, 0, &refusal)) return Server_ReplyWithError(ctx, refusal);
    client = blockClient(
        ctx, "OCSP.SET waits for the verification of the response, which is not possible in MULTI or in a script", why,
        sizeof(why));
    base64 = Server_StringPtrLen(argv[1], &len);
    if (client && ocspSetThen(base64, len, commandDone, client, why, sizeof(why))) return SERVER_OK;
    return replyFailed(ctx, client, why);
}

/* ---- OCSP.GET ----------------------------------------------------------------------------------------------------- */

/* OCSP.GET [DER|BASE64|TEXT] [serial] */
static int getCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    const char *words[2], *refusal;
    ocspGetAnswer answer;
    int i, result;

    if (argc > 3) return Server_WrongArity(ctx);
    if (!mayRun(ctx, 0, &refusal)) return Server_ReplyWithError(ctx, refusal);
    for (i = 1; i < argc; i++) words[i - 1] = Server_StringPtrLen(argv[i], NULL);
    ocspGet(words, argc - 1, &answer);
    switch (answer.kind) {
    case OCSP_GET_BYTES: result = Server_ReplyWithStringBuffer(ctx, answer.data, answer.len); break;
    case OCSP_GET_TEXT: result = Server_ReplyWithVerbatimString(ctx, answer.data, answer.len); break;
    case OCSP_GET_ERROR: result = replyFailed(ctx, NULL, answer.why); break;
    default: result = Server_ReplyWithNull(ctx); break;
    }
    Server_Free(answer.data);
    return result;
}

/* ---- DEBUG -------------------------------------------------------------------------------------------------------- */

/* Rewrites DEBUG OCSP-REFRESH to OCSP.REFRESH. Runs for every command, so the cheapest test comes first. */
static void debugFilter(ServerFilterCtx *filter) {
    const char *chars;
    size_t len;

    if (Server_CommandFilterArgsCount(filter) != 2) return;
    chars = Server_StringPtrLen(Server_CommandFilterArgGet(filter, 0), &len);
    if (len != 5 || strcasecmp(chars, "debug") != 0) return;
    chars = Server_StringPtrLen(Server_CommandFilterArgGet(filter, 1), &len);
    if (len != strlen(DEBUG_SUBCOMMAND) || strcasecmp(chars, DEBUG_SUBCOMMAND) != 0) return;
    Server_CommandFilterArgReplace(filter, 0, Server_CreateString(NULL, REFRESH_COMMAND, strlen(REFRESH_COMMAND)));
}

/* Registers debugFilter if enable-debug-command allows DEBUG. Returns 0 if the server refuses. The setting cannot
 * change while the server runs; where it is off, or cannot be read, no command pays for a filter. */
static int registerDebug(ServerCtx *ctx) {
    char allowed[SETTING_MAX];
    settingResult known = readSetting(ctx, "enable-debug-command", allowed);

    if (known == SETTING_UNKNOWN)
        moduleLog(OCSP_LOG_NOTICE, "DEBUG OCSP-REFRESH is not available, as enable-debug-command cannot be read (the "
                                   "CONFIG command is renamed or disabled): use OCSP.REFRESH");
    module.debug_is_local = strcmp(allowed, "local") == 0;
    if (!module.debug_is_local && strcmp(allowed, "yes") != 0) return 1;
    module.filter = Server_RegisterCommandFilter(ctx, debugFilter, 0);
    return module.filter != NULL;
}

/* ---- registration ------------------------------------------------------------------------------------------------- */

int registerCommands(ServerCtx *ctx) {
    static const struct {
        const char *name, *flags;
        ServerCommandFn *run;
    } commands[] = {
        {REFRESH_COMMAND, "admin deny-script allow-loading allow-stale", refreshCommand},
        {SET_COMMAND, "admin deny-script allow-loading allow-stale", setCommand},
        {GET_COMMAND, "admin allow-loading allow-stale", getCommand},
    };
    size_t i;

    for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
        if (Server_CreateCommand(ctx, commands[i].name, commands[i].run, commands[i].flags, 0, 0, 0) != SERVER_OK)
            return 0;
    return registerDebug(ctx);
}
