/* ocsp_module.c - the loadable module, the host for unmodified, packaged servers: load and unload, events,
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
    ocspLateCron();
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
    if (module.attached) ocspLateCron();
}

static void shutdownEvent(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data) {
    (void)ctx;
    (void)event;
    (void)subevent;
    (void)data;
    module.shutting_down = 1;
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
    static const ocspHost host = {.log = moduleLog,
                                  .alloc = moduleAlloc,
                                  .free = moduleFree,
                                  .thread_started = moduleThreadStarted,
                                  .answered = ocspWaitAnswered,
                                  .directive_prefix = MODULE_NAME "."};

    return ocspInit(&host) && ocspLateInit(contextServes) && registerDirectives(ctx, applyOptions) &&
           Server_LoadConfigs(ctx) == SERVER_OK && registerCommands(ctx) &&
           Server_RegisterInfoFunc(ctx, info) == SERVER_OK && subscribeAll(ctx) && guardForks() &&
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
    ocspLateShutdown();
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
