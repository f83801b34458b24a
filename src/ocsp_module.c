/* ocsp_module.c - the loadable module, the host for unmodified, packaged servers: load and unload, events, commands,
 * INFO. The module's other files are ocsp_module_*.c.
 *
 * DESIGN: right after loading a module the server unloads it again if a configuration directive remains unclaimed.
 * Therefore everything done at load can be undone until the event loop has run once.
 *
 * Differences between server releases are handled in the module, by testing for features, never for a version.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_module.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define MODULE_NAME "ocsp"
#define REFRESH_COMMAND "ocsp.refresh"
#define DEBUG_SUBCOMMAND "ocsp-refresh"

/* ---- the engine's host ------------------------------------------------------------------------------------------- */

static void *moduleAlloc(size_t size) {
    return Server_TryAlloc(size);
}

static void moduleFree(void *ptr) {
    Server_Free(ptr);
}

/* ---- event loop subscription ------------------------------------------------------------------------------------- */

/* A subscription to this event costs the server about 1200 instructions per event loop iteration, a fifth of a GET,
 * whatever the listener does. So the module subscribes only while there is work to do before the next accept; other
 * work runs in the server's cron, ten times a second. */
static const ServerEvent event_loop = {SERVER_EVENT_EVENTLOOP, 1};
static ServerEventFn eventLoopEvent;

/* Subscribes tick to the moment before the event loop sleeps. Returns 0 if the server refuses; then cronEvent has to
 * do. */
static int subscribeBeforeSleep(void) {
    int *subscribed = &module.subscribed[EVENT_BEFORE_SLEEP];

    if (!*subscribed) *subscribed = Server_SubscribeToServerEvent(log_ctx, event_loop, eventLoopEvent) == SERVER_OK;
    return *subscribed;
}

/* Ends that subscription. Runs as a one-shot, because a listener that ends its own subscription frees memory that the
 * server still uses. */
static void unsubscribeBeforeSleep(void *unused) {
    (void)unused;
    module.unsubscribe_queued = 0;
    if (module.options.verify_peers || anyPending()) return; /* the next iteration queues it again */
    if (Server_SubscribeToServerEvent(log_ctx, event_loop, NULL) == SERVER_OK)
        module.subscribed[EVENT_BEFORE_SLEEP] = 0;
}

/* Runs when a context was created on the main thread. */
static void contextAdded(void) {
    if (moduleWanted()) subscribeBeforeSleep();
}

static int applyOptions(ServerCtx *ctx, void *privdata, ServerString **error) {
    (void)ctx;
    (void)privdata;
    module.reload_retry_at = 0;
    /* verify-peers is off: log again that links are unchecked when it is next turned on, as the engine does. */
    if (module.options.verify_peers == OCSP_PEERS_NO) module.logged_peers = 0;
    if (ocspSetOptions(&module.options)) {
        subscribeBeforeSleep(); /* if it fails, the cron calls tick */
        return SERVER_OK;
    }
    if (error) setError(error, "out of memory: the OCSP directives are unchanged");
    return SERVER_ERR;
}

/* ---- events ------------------------------------------------------------------------------------------------------ */

static void tick(ServerCtx *ctx) {
    module.turned = 1;
    if (anyPending()) attachPending(ctx, 0);
    if (moduleWanted() && module.unseen) logUnseen(module.unseen);
    if (moduleWanted() && reloadDue()) forceTlsReload(ctx);
    ocspCron();
}

static void eventLoopEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)data;
    if (subevent != SERVER_SUBEVENT_BEFORE_SLEEP) return;
    tick(ctx);
    /* With verify-peers on, stay subscribed: rejected peers are logged at once. */
    if (!module.unsubscribe_queued && !module.options.verify_peers)
        module.unsubscribe_queued = Server_EventLoopAddOneShot(unsubscribeBeforeSleep, NULL) == SERVER_OK;
}

/* Does the work that no handshake waits for: attaches contexts of other threads, retries to start the OCSP thread. */
static void cronEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)subevent;
    (void)data;
    tick(ctx);
}

/* Attaches contexts while the server loads its data: it then accepts connections, but does not fire eventLoopEvent. */
static void loadingEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)data;
    module.turned = 1;
    if (subevent > SERVER_SUBEVENT_LOADING_LAST_START) return;
    if (anyPending()) attachPending(ctx, 0);
    if (module.attached) ocspCron();
}

static void shutdownEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)ctx;
    (void)event;
    (void)subevent;
    (void)data;
    module.shutting_down = 1;
}

/* ---- commands ---------------------------------------------------------------------------------------------------- */

typedef enum { DEBUG_DENIED, DEBUG_ALLOWED, DEBUG_ABSENT } debugRight;

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

static int replyRefreshed(ServerCtx *ctx, ServerString **argv, int argc) {
    const char *error = Server_GetBlockedClientPrivateData(ctx);

    (void)argv;
    (void)argc;
    return error ? Server_ReplyWithError(ctx, error) : Server_ReplyWithSimpleString(ctx, "OK");
}

/* The error reply when there is no memory for the reason: a failure must never be answered with OK. */
static char reason_lost[] =
    "ERR the refresh failed, and there is no memory to say why: see ocsp_last_error in INFO ocsp";

static void freeReply(ServerCtx *ctx, void *error) {
    (void)ctx;
    if (error != reason_lost) Server_Free(error);
}

/* Unblocks the client that waits for a refresh. `error`: NULL on success. OCSP thread; an ocspRefreshDone. */
static void refreshDone(void *blocked_client, const char *error) {
    size_t size = error ? strlen(error) + 5 : 0;
    char *reply = error ? Server_TryAlloc(size) : NULL;

    if (reply)
        snprintf(reply, size, "ERR %s", error);
    else if (error)
        reply = reason_lost;
    Server_UnblockClient(blocked_client, reply);
}

/* Returns 1 if the user of this command may refresh; otherwise 0 with the error reply in *why. The server has already
 * checked the permission for OCSP.REFRESH; a user who may not run DEBUG may not refresh either. */
static int mayRefresh(ServerCtx *ctx, int is_debug, const char **why) {
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

static int refreshCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    int is_debug = argc == 2 && strcasecmp(Server_StringPtrLen(argv[1], NULL), DEBUG_SUBCOMMAND) == 0;
    ServerBlockedClient *client = NULL;
    const char *refusal;
    char why[OCSP_SENTENCE_MAX] = "the server cannot block this client", error[OCSP_SENTENCE_MAX + 8];

    if (argc != 1 && !is_debug) return Server_WrongArity(ctx);
    if (!mayRefresh(ctx, is_debug, &refusal)) return Server_ReplyWithError(ctx, refusal);
    if (is_debug) {
        if (ocspRequestRefresh(NULL, NULL, why, sizeof(why)))
            return Server_ReplyWithSimpleString(ctx, "Background OCSP refresh started");
    } else {
        if (Server_GetContextFlags(ctx) & (SERVER_CTX_MULTI | SERVER_CTX_LUA | SERVER_CTX_DENY_BLOCKING))
            return Server_ReplyWithError(
                ctx, "ERR OCSP.REFRESH waits for the responder, which is not possible in MULTI or in a "
                     "script: use DEBUG OCSP-REFRESH, which does not wait");
        client = Server_BlockClient(ctx, replyRefreshed, NULL, freeReply, 0);
        /* BlockClient first: the thread may finish before this function returns */
        if (client && ocspRequestRefresh(refreshDone, client, why, sizeof(why))) return SERVER_OK;
    }
    snprintf(error, sizeof(error), "ERR %s", why);
    if (client) {
        refreshDone(client, why);
        return SERVER_OK;
    }
    return Server_ReplyWithError(ctx, error);
}

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

/* ---- INFO -------------------------------------------------------------------------------------------------------- */

static void infoText(void *ctx, const char *field, const char *value) {
    Server_InfoAddFieldCString(ctx, field, value);
}

static void infoNumber(void *ctx, const char *field, long long value) {
    Server_InfoAddFieldLongLong(ctx, field, value);
}

static void info(ServerInfoCtx *ctx, int for_crash_report) {
    ocspInfoSink sink = {infoText, infoNumber, ctx};

    if (for_crash_report) return; /* the crashed thread may hold the mutex */
    if (Server_InfoAddSection(ctx, "") == SERVER_OK) ocspInfoState(&sink);
    if (Server_InfoAddSection(ctx, "stats") == SERVER_OK) ocspInfoCounters(&sink);
}

/* ---- load and unload --------------------------------------------------------------------------------------------- */

static const struct {
    ServerEvent event;
    ServerEventFn *fn;
} events[EVENTS] = {
    [EVENT_BEFORE_SLEEP] = {{SERVER_EVENT_EVENTLOOP, 1}, eventLoopEvent},
    [EVENT_CRON] = {{SERVER_EVENT_CRON_LOOP, 1}, cronEvent},
    [EVENT_LOADING] = {{SERVER_EVENT_LOADING, 1}, loadingEvent},
    [EVENT_SHUTDOWN] = {{SERVER_EVENT_SHUTDOWN, 1}, shutdownEvent},
};

static int subscribeAll(ServerCtx *ctx) {
    int i;

    for (i = 0; i < EVENTS; i++) {
        if (!module.subscribed[i])
            module.subscribed[i] = Server_SubscribeToServerEvent(ctx, events[i].event, events[i].fn) == SERVER_OK;
        if (!module.subscribed[i]) return 0;
    }
    return 1;
}

/* Performs the steps of a load that may fail. On 0 the caller undoes them with endModule. */
static int loadModule(ServerCtx *ctx) {
    static const ocspHost host = {moduleLog, moduleAlloc, moduleFree, moduleThreadStarted, contextServes};

    return ocspInit(&host) && registerDirectives(ctx, applyOptions) && Server_LoadConfigs(ctx) == SERVER_OK &&
           Server_CreateCommand(ctx, REFRESH_COMMAND, refreshCommand, "admin deny-script allow-loading allow-stale", 0,
                                0, 0) == SERVER_OK &&
           registerDebug(ctx) && Server_RegisterInfoFunc(ctx, info) == SERVER_OK && subscribeAll(ctx) && guardForks() &&
           applyOptions(ctx, NULL, NULL) == SERVER_OK;
}

/* Undoes a complete or partial load, so that the server may dlclose this file and load it again. Only before the event
 * loop has run: then there is no OCSP thread and no queued one-shot.
 *
 * The server undoes only part of a load: Redis 7.0 does not remove filters and subscriptions when OnLoad fails. */
static void endModule(ServerCtx *ctx) {
    int i;

    unhookContexts();
    for (i = 0; i < EVENTS; i++)
        if (module.subscribed[i]) Server_SubscribeToServerEvent(ctx, events[i].event, NULL);
    if (module.filter) Server_UnregisterCommandFilter(ctx, module.filter);
    ocspShutdown();
    forgetOcspThread();
    for (i = 0; i < OCSP_DIRECTIVES; i++)
        if (module.strings[i]) Server_FreeString(NULL, module.strings[i]);
    Server_FreeThreadSafeContext(log_ctx);
    log_ctx = NULL;
    module = (struct moduleState)MODULE_AT_LOAD;
}

static int onLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    const char *missing = serverLoadApi(ctx);

    (void)argv;
    if (missing) {
        /* Server_Log may be the missing function: use stderr. */
        fprintf(stderr,
                "valkey-ocsp: this server's module API has no %s: use Valkey 8.0 or later, or Redis 7.0 or later\n",
                missing);
        return SERVER_ERR;
    }
    /* A second load shares the image, and thus the engine, with the first and must not touch its state. */
    if (Server_IsModuleNameBusy(MODULE_NAME)) {
        Server_Log(ctx, "warning",
                   "a module of the name \"" MODULE_NAME
                   "\" is loaded already: remove the second loadmodule line, or do "
                   "not load it again");
        return SERVER_ERR;
    }
    Server_SetModuleAttribs(ctx, MODULE_NAME, OCSP_STAPLING_VERSION, SERVER_API_VERSION);
    log_ctx = Server_GetDetachedThreadSafeContext(ctx);
    rememberMainThread();
    if (argc > 0)
        Server_Log(
            ctx, "warning",
            "loadmodule takes no arguments for this module: write directives such as \"ocsp.stapling yes\" on lines "
            "of their own");
    if (!loadModule(ctx)) {
        Server_Log(ctx, "warning",
                   "the module cannot be loaded: see the lines above for the directive or function that "
                   "was refused");
        endModule(ctx);
        return SERVER_ERR;
    }
    hookContexts(ctx, contextAdded);
    return SERVER_OK;
}

/* Allows an unload only before the event loop has run. After that contexts, OpenSSL and threads hold pointers into this
 * file. Before that the server calls this when MODULE LOADEX brought an unknown directive; Redis 8 aborts if the unload
 * is refused. */
static int onUnload(ServerCtx *ctx) {
    if (!module.turned && !module.hooked && !module.shutting_down) {
        endModule(ctx);
        return SERVER_OK;
    }
    if (!module.shutting_down) /* Valkey 9.1 unloads modules at shutdown */
        Server_Log(ctx, "warning",
                   "this module cannot be unloaded while the server runs, because its TLS contexts refer "
                   "to it. Turn it off with CONFIG SET ocsp.stapling no, or restart without it");
    return SERVER_ERR;
}

/* Valkey looks for its own names first; Redis knows only the others. */
#define EXPORTED __attribute__((visibility("default")))

EXPORTED int ValkeyModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    return onLoad(ctx, argv, argc);
}

EXPORTED int RedisModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    return onLoad(ctx, argv, argc);
}

EXPORTED int ValkeyModule_OnUnload(ServerCtx *ctx) {
    return onUnload(ctx);
}

EXPORTED int RedisModule_OnUnload(ServerCtx *ctx) {
    return onUnload(ctx);
}
