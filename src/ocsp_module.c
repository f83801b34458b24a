/* ocsp_module.c - the host that is a loadable module: OCSP stapling for an unmodified, packaged server. Loading and
 * unloading, events, commands and INFO; its other files are ocsp_module_*.c.
 *
 * DESIGN: the server drops a module again, right after it was loaded, when it finds a setting that nobody took. So until
 * the event loop turns, all that was done at load can be undone.
 *
 * All that differs between releases is in the module, by asking for features, never for a version.
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

/* ---- the event loop's turns --------------------------------------------------------------------------------------- */

/* A subscription to the event loop's event costs the server some 1200 instructions a turn, a fifth of a GET, whatever the
 * listener does. So it is held only while there is something to do before the next accept, and what can wait comes
 * with the server's cron, ten times a second. */
static const ServerEvent event_loop = {SERVER_EVENT_EVENTLOOP, 1};
static ServerEventFn eventLoopEvent;

/* Before the event loop sleeps, tick. Main thread. */
static int subscribeBeforeSleep(void) {
    int *subscribed = &module.subscribed[EVENT_BEFORE_SLEEP];

    if (!*subscribed) *subscribed = Server_SubscribeToServerEvent(log_ctx, event_loop, eventLoopEvent) == SERVER_OK;
    return *subscribed;
}

/* A one-shot, because a listener that ends its own subscription frees what the server still uses. */
static void unsubscribeBeforeSleep(void *unused) {
    (void)unused;
    module.unsubscribe_queued = 0;
    if (module.options.verify_peers || anyPending()) return; /* the turn to come asks again */
    if (Server_SubscribeToServerEvent(log_ctx, event_loop, NULL) == SERVER_OK)
        module.subscribed[EVENT_BEFORE_SLEEP] = 0;
}

/* A context of the main thread was made. */
static void contextAdded(void) {
    if (moduleWanted()) subscribeBeforeSleep();
}

static int applyOptions(ServerCtx *ctx, void *privdata, ServerString **error) {
    (void)ctx;
    (void)privdata;
    module.reload_retry_at = 0;
    /* The engine forgets what it logged of unchecked links: when the check is turned on again, it is logged again. */
    if (module.options.verify_peers == OCSP_PEERS_NO) module.logged_peers = 0;
    if (ocspSetOptions(&module.options)) {
        subscribeBeforeSleep(); /* without it the cron ticks */
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
    /* With verify-peers on, what became of a link is told at once. */
    if (!module.unsubscribe_queued && !module.options.verify_peers)
        module.unsubscribe_queued = Server_EventLoopAddOneShot(unsubscribeBeforeSleep, NULL) == SERVER_OK;
}

/* What no handshake waits for: a context that was made on another thread, a thread of ours that could not be started. */
static void cronEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)event;
    (void)subevent;
    (void)data;
    tick(ctx);
}

/* While it loads its data a server accepts connections without the event above: the first handshakes come then. */
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

/* Whether this command's user may run DEBUG. DEBUG_ABSENT: the server has no command of that name (rename-command), so
 * that there is nothing to be allowed. Main thread. */
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

/* A failure whose reason there is no memory for. It is a failure all the same. */
static char reason_lost[] =
    "ERR the refresh failed, and there is no memory to say why: see ocsp_last_error in INFO ocsp";

static void freeReply(ServerCtx *ctx, void *error) {
    (void)ctx;
    if (error != reason_lost) Server_Free(error);
}

/* The outcome of a refresh goes to the client that waits for it. `error` is NULL for success. On the OCSP thread. */
static void refreshDone(void *blocked_client, const char *error) {
    size_t size = error ? strlen(error) + 5 : 0;
    char *reply = error ? Server_TryAlloc(size) : NULL;

    if (reply)
        snprintf(reply, size, "ERR %s", error);
    else if (error)
        reply = reason_lost;
    Server_UnblockClient(blocked_client, reply);
}

/* Whether this command's user may have a refresh, and if not, why. The server has checked the right to OCSP.REFRESH
 * before; whoever may not run DEBUG may not refresh either. */
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
        /* BlockClient first: the thread may be done before this function is */
        if (client && ocspRequestRefresh(refreshDone, client, why, sizeof(why))) return SERVER_OK;
    }
    snprintf(error, sizeof(error), "ERR %s", why);
    if (client) {
        refreshDone(client, why);
        return SERVER_OK;
    }
    return Server_ReplyWithError(ctx, error);
}

/* Makes DEBUG OCSP-REFRESH a command of ours. Runs for every command, so what rules most of them out comes first. */
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

/* Sees to it that DEBUG OCSP-REFRESH works where DEBUG does. Whether it does is fixed while the server runs; where it is
 * off, no command pays for a filter. Where it cannot be known, it is taken for off. */
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

    if (for_crash_report) return; /* the thread that crashed may hold the mutex that this takes */
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

/* What may fail. Whatever has come about by then is undone by endModule. */
static int loadModule(ServerCtx *ctx) {
    static const ocspHost host = {moduleLog, moduleAlloc, moduleFree, moduleThreadStarted, contextServes};

    return ocspInit(&host) && registerDirectives(ctx, applyOptions) && Server_LoadConfigs(ctx) == SERVER_OK &&
           Server_CreateCommand(ctx, REFRESH_COMMAND, refreshCommand, "admin deny-script allow-loading allow-stale", 0,
                                0, 0) == SERVER_OK &&
           registerDebug(ctx) && Server_RegisterInfoFunc(ctx, info) == SERVER_OK && subscribeAll(ctx) && guardForks() &&
           applyOptions(ctx, NULL, NULL) == SERVER_OK;
}

/* Undoes all that a load has done, complete or not, so that the server may close this file, and load it again. Only
 * before the event loop has turned: no thread of ours runs and no one-shot is on its way. Main thread.
 *
 * The server itself undoes part of it, and on some releases not all: Redis 7.0 forgets filters and subscriptions when
 * OnLoad fails. */
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
        /* Server_Log may be what is missing: stderr is all there is. */
        fprintf(stderr,
                "valkey-ocsp: this server's module API has no %s: use Valkey 8.0 or later, or Redis 7.0 or later\n",
                missing);
        return SERVER_ERR;
    }
    /* Loaded twice this is one image with one engine: the second load must not touch what the first uses. */
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

/* Once the event loop has turned, contexts, OpenSSL and threads hold pointers into this file, so it must stay. Before
 * that the server asks when a setting came with the module (MODULE LOADEX) that it does not have; Redis 8 ends itself if
 * the answer is no. */
static int onUnload(ServerCtx *ctx) {
    if (!module.turned && !module.hooked && !module.shutting_down) {
        endModule(ctx);
        return SERVER_OK;
    }
    if (!module.shutting_down) /* Valkey 9.1 asks at shutdown too */
        Server_Log(ctx, "warning",
                   "this module cannot be unloaded while the server runs, because its TLS contexts refer "
                   "to it. Turn it off with CONFIG SET ocsp.stapling no, or restart without it");
    return SERVER_ERR;
}

/* Valkey looks for its own names first, Redis knows only the others. */
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
