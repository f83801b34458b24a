/* server_module_api.h - the part of the module API of Valkey 7.2 and later and Redis 7.0 and later that this module
 * uses. Written from the public documentation, so that no server header has to be shipped or installed.
 *
 * Functions are looked up by name at load, with the prefix RedisModule_, which both servers know. All pointers are
 * opaque. An int result is SERVER_OK or SERVER_ERR unless stated otherwise.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef SERVER_MODULE_API_H
#define SERVER_MODULE_API_H

#include <stddef.h>
#include <stdint.h>

#define SERVER_OK 0
#define SERVER_ERR 1
#define SERVER_API_VERSION 1

typedef struct ServerCtx ServerCtx;
typedef struct ServerString ServerString;
typedef struct ServerReply ServerReply;
typedef struct ServerInfoCtx ServerInfoCtx;
typedef struct ServerFilter ServerFilter;
typedef struct ServerFilterCtx ServerFilterCtx;
typedef struct ServerBlockedClient ServerBlockedClient;
typedef struct ServerUser ServerUser;

typedef struct ServerEvent {
    uint64_t id;
    uint64_t data_version;
} ServerEvent;

typedef struct ServerClientInfo { /* version 1 */
    uint64_t version, flags, id;
    char addr[46];
    uint16_t port, db;
} ServerClientInfo;

/* Configuration flags. */
#define SERVER_CONFIG_DEFAULT 0ULL
#define SERVER_CONFIG_SENSITIVE (1ULL << 1)
#define SERVER_CONFIG_PROTECTED (1ULL << 5)

/* Context flags. */
#define SERVER_CTX_LUA (1 << 0)
#define SERVER_CTX_MULTI (1 << 1)
#define SERVER_CTX_DENY_BLOCKING (1 << 21)

/* Client flags. */
#define SERVER_CLIENT_UNIXSOCKET (1 << 4)

/* Events and the subevents that are used. */
#define SERVER_EVENT_LOADING 3
#define SERVER_EVENT_SHUTDOWN 5
#define SERVER_EVENT_CRON_LOOP 8
#define SERVER_EVENT_EVENTLOOP 15
#define SERVER_SUBEVENT_LOADING_LAST_START 2 /* 0 to 2: RDB, AOF, replication */
#define SERVER_SUBEVENT_BEFORE_SLEEP 0

#define SERVER_REPLY_ERROR 1
#define SERVER_REPLY_ARRAY 3

typedef int ServerCommandFn(ServerCtx *ctx, ServerString **argv, int argc);
typedef void ServerInfoFn(ServerInfoCtx *ctx, int for_crash_report);
typedef void ServerEventFn(ServerCtx *ctx, ServerEvent event, uint64_t subevent, void *data);
typedef void ServerOneShotFn(void *data);
typedef void ServerFilterFn(ServerFilterCtx *filter);
typedef void ServerFreeFn(ServerCtx *ctx, void *privdata);
typedef ServerString *ServerConfigGetString(const char *name, void *privdata);
typedef int ServerConfigSetString(const char *name, ServerString *value, void *privdata, ServerString **error);
typedef long long ServerConfigGetNumber(const char *name, void *privdata);
typedef int ServerConfigSetNumber(const char *name, long long value, void *privdata, ServerString **error);
typedef int ServerConfigGetEnum(const char *name, void *privdata);
typedef int ServerConfigSetEnum(const char *name, int value, void *privdata, ServerString **error);
typedef int ServerConfigGetBool(const char *name, void *privdata);
typedef int ServerConfigSetBool(const char *name, int value, void *privdata, ServerString **error);
typedef int ServerConfigApply(ServerCtx *ctx, void *privdata, ServerString **error);

/* F(result, name, arguments): the functions that a server must have for the module to load. */
#define SERVER_FUNCTIONS(F)                                                                                        \
    F(void, SetModuleAttribs, (ServerCtx *, const char *name, int version, int api_version))                       \
    F(int, IsModuleNameBusy, (const char *name))                                                                   \
    F(void *, TryAlloc, (size_t))                                                                                  \
    F(void, Free, (void *))                                                                                        \
    F(void, Log, (ServerCtx *, const char *level, const char *fmt, ...))                                           \
    F(ServerCtx *, GetDetachedThreadSafeContext, (ServerCtx *))                                                    \
    F(void, FreeThreadSafeContext, (ServerCtx *))                                                                  \
    F(int, CreateCommand,                                                                                          \
      (ServerCtx *, const char *name, ServerCommandFn *, const char *flags, int first, int last, int step))        \
    F(int, WrongArity, (ServerCtx *))                                                                              \
    F(int, ReplyWithError, (ServerCtx *, const char *))                                                            \
    F(int, ReplyWithSimpleString, (ServerCtx *, const char *))                                                     \
    F(int, GetContextFlags, (ServerCtx *))                                                                         \
    F(unsigned long long, GetClientId, (ServerCtx *))                                                              \
    F(int, GetClientInfoById, (void *info, uint64_t id))                                                           \
    F(ServerBlockedClient *, BlockClient,                                                                          \
      (ServerCtx *, ServerCommandFn * reply, ServerCommandFn * timed_out, ServerFreeFn *, long long timeout_ms))   \
    F(int, UnblockClient, (ServerBlockedClient *, void *privdata))                                                 \
    F(void *, GetBlockedClientPrivateData, (ServerCtx *))                                                          \
    F(ServerString *, CreateString, (ServerCtx *, const char *, size_t))                                           \
    F(void, FreeString, (ServerCtx *, ServerString *))                                                             \
    F(const char *, StringPtrLen, (const ServerString *, size_t *))                                                \
    F(ServerString *, GetCurrentUserName, (ServerCtx *))                                                           \
    F(ServerUser *, GetModuleUserFromUserName, (ServerString *))                                                   \
    F(void, FreeModuleUser, (ServerUser *))                                                                        \
    F(int, ACLCheckCommandPermissions, (ServerUser *, ServerString * *argv, int argc))                             \
    F(ServerReply *, Call, (ServerCtx *, const char *command, const char *fmt, ...))                               \
    F(int, CallReplyType, (ServerReply *))                                                                         \
    F(ServerReply *, CallReplyArrayElement, (ServerReply *, size_t))                                               \
    F(const char *, CallReplyStringPtr, (ServerReply *, size_t *))                                                 \
    F(void, FreeCallReply, (ServerReply *))                                                                        \
    F(int, RegisterBoolConfig,                                                                                     \
      (ServerCtx *, const char *name, int value, unsigned flags, ServerConfigGetBool *, ServerConfigSetBool *,     \
       ServerConfigApply *, void *privdata))                                                                       \
    F(int, RegisterNumericConfig,                                                                                  \
      (ServerCtx *, const char *name, long long value, unsigned flags, long long min, long long max,               \
       ServerConfigGetNumber *, ServerConfigSetNumber *, ServerConfigApply *, void *privdata))                     \
    F(int, RegisterEnumConfig,                                                                                     \
      (ServerCtx *, const char *name, int value, unsigned flags, const char **names, const int *values, int count, \
       ServerConfigGetEnum *, ServerConfigSetEnum *, ServerConfigApply *, void *privdata))                         \
    F(int, RegisterStringConfig,                                                                                   \
      (ServerCtx *, const char *name, const char *value, unsigned flags, ServerConfigGetString *,                  \
       ServerConfigSetString *, ServerConfigApply *, void *privdata))                                              \
    F(int, LoadConfigs, (ServerCtx *))                                                                             \
    F(int, RegisterInfoFunc, (ServerCtx *, ServerInfoFn *))                                                        \
    F(int, InfoAddSection, (ServerInfoCtx *, const char *name))                                                    \
    F(int, InfoAddFieldCString, (ServerInfoCtx *, const char *field, const char *value))                           \
    F(int, InfoAddFieldLongLong, (ServerInfoCtx *, const char *field, long long value))                            \
    F(int, SubscribeToServerEvent, (ServerCtx *, ServerEvent, ServerEventFn *))                                    \
    F(int, EventLoopAddOneShot, (ServerOneShotFn *, void *data))                                                   \
    F(ServerFilter *, RegisterCommandFilter, (ServerCtx *, ServerFilterFn *, int flags))                           \
    F(int, UnregisterCommandFilter, (ServerCtx *, ServerFilter *))                                                 \
    F(int, CommandFilterArgsCount, (ServerFilterCtx *))                                                            \
    F(ServerString *, CommandFilterArgGet, (ServerFilterCtx *, int pos))                                           \
    F(int, CommandFilterArgReplace, (ServerFilterCtx *, int pos, ServerString *))

/* Define the function pointers, and serverLoadApi, which looks up all of them and returns NULL, or the name of the
 * first function that this server lacks. The look-up function is the first word of the context. `scope` is static in a
 * module of one file; a module of several files leaves `scope` empty, and its other files declare the pointers. */
#define SERVER_POINTER(result, name, arguments) result(*Server_##name) arguments;
#define SERVER_STATIC_POINTER(result, name, arguments) static SERVER_POINTER(result, name, arguments)
#define SERVER_LOOK_UP(result, name, arguments) \
    if (get_api("RedisModule_" #name, (void *)&Server_##name) != SERVER_OK) return #name;
#define SERVER_DEFINE_LOADER(scope)                                                  \
    scope const char *serverLoadApi(ServerCtx *ctx) {                                \
        int (*get_api)(const char *, void *) = *(int (**)(const char *, void *))ctx; \
        SERVER_FUNCTIONS(SERVER_LOOK_UP)                                             \
        return NULL;                                                                 \
    }

#endif
