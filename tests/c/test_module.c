/* test_module.c - the loadable module, in front of a fake server: failed loads, unloading, settings that cannot be
 * read, which contexts are attached, forks, and lack of memory.
 *
 * The module's file is included, so that its parts can be called; the engine below it is the real one. The server is a
 * table of functions, with settings, subscriptions and filters that are counted.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <string.h>
#include <openssl/crypto.h>

/* Some of OpenSSL's functions are wrapped in this program, which would look like a second OpenSSL. */
static int no_answer;            /* dladdr() fails */
static const char *other_libssl; /* the file with the server's libssl, if that is not the module's */

static int wherever(const void *address, Dl_info *info) {
    int known = dladdr(address, info);
    info->dli_fbase = NULL;
    if (other_libssl && address == &other_libssl) {
        info->dli_fname = other_libssl;
        info->dli_fbase = &other_libssl;
        return 1;
    }
    return known && !no_answer;
}

static void *findFunction(void *object, const char *name) {
    return other_libssl && strcmp(name, "SSL_CTX_get_cert_store") == 0 ? (void *)&other_libssl : dlsym(object, name);
}
#define dladdr wherever
#define dlsym findFunction

static int no_room; /* OpenSSL has no number for one more hook */
#define CRYPTO_get_ex_new_index(class_index, argl, argp, made, copied, freed) \
    (no_room ? -1 : (CRYPTO_get_ex_new_index)(class_index, argl, argp, made, copied, freed))
#include "../../src/ocsp_module_server.c"
#include "../../src/ocsp_module_config.c"
#include "../../src/ocsp_module_commands.c"
#include "../../src/ocsp_module_ctx.c"
#include "../../src/ocsp_module.c"

#include "support.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <openssl/pem.h>

static const testPki *pki;
static char *dir;

/* ---- the server -------------------------------------------------------------------------------------------------- */

struct ServerCtx {
    int (*get_api)(const char *name, void *pointer);
};

struct ServerString {
    char text[5000];
    size_t len;
};

typedef enum {
    REPLY_NULL,
    REPLY_ERROR,
    REPLY_TEXT,
    REPLY_ABSENT,
    REPLY_HALF
} replyKind;

struct ServerReply {
    replyKind kind;
    int part; /* 0: the whole; 1: the name; 2: the value */
    const struct setting *setting;
};

static struct setting {
    const char *name;
    replyKind kind;
    char text[5000];
    size_t len;
} settings[16];

static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int out_of_memory; /* the module's allocations fail */
static struct {
    int contexts, strings, filters, subscribed[32], commands, one_shots;
    const char *refuses; /* the function that fails */
    int acl, acl_errno;  /* the outcome of an ACL check */
    int sets;            /* CONFIG SET was called */
    SSL_CTX *remade;     /* by it */
    char log[20000], reply[1000];
    void *unblocked_with;
    ServerConfigSetNumber *set_interval; /* max-interval as it was registered */
    void *interval;
    int blocked, may_block;
    atomic_int unblocked;
    char flags[10][100]; /* "name flags" of each command */
} server;

static int refused(const char *function) {
    return server.refuses && strcmp(server.refuses, function) == 0;
}

static struct setting *findSetting(const char *name) {
    size_t i;
    for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        if (!settings[i].name) settings[i].name = name;
        if (strcmp(settings[i].name, name) == 0) return &settings[i];
    }
    abort();
}

static void setAs(const char *name, replyKind kind, const char *text, size_t len) {
    struct setting *s = findSetting(name);
    s->kind = kind;
    s->len = len;
    memcpy(s->text, text, len);
}

static void set(const char *name, const char *text) {
    setAs(name, REPLY_TEXT, text, strlen(text));
}

static void SetModuleAttribs(ServerCtx *ctx, const char *name, int version, int api) {
    (void)ctx, (void)name, (void)version, (void)api;
}
static int IsModuleNameBusy(const char *name) {
    (void)name;
    return 0;
}
static void *TryAlloc(size_t size) {
    return atomic_load(&out_of_memory) ? NULL : malloc(size);
}
static void Free(void *p) {
    free(p);
}
static void Log(ServerCtx *ctx, const char *level, const char *fmt, ...) {
    size_t used;
    va_list ap;
    (void)ctx;
    pthread_mutex_lock(&log_lock);
    used = strlen(server.log);
    used += (size_t)snprintf(server.log + used, sizeof(server.log) - used, "%s: ", level);
    va_start(ap, fmt);
    vsnprintf(server.log + used, sizeof(server.log) - used - 2, fmt, ap);
    va_end(ap);
    strcat(server.log, "\n");
    pthread_mutex_unlock(&log_lock);
}
static ServerCtx *GetDetachedThreadSafeContext(ServerCtx *ctx) {
    server.contexts++;
    return ctx;
}
static void FreeThreadSafeContext(ServerCtx *ctx) {
    (void)ctx;
    server.contexts--;
}
static int CreateCommand(ServerCtx *ctx,
                         const char *name,
                         ServerCommandFn *fn,
                         const char *flags,
                         int a,
                         int b,
                         int c) {
    (void)ctx, (void)fn, (void)a, (void)b, (void)c;
    snprintf(server.flags[server.commands++], sizeof(server.flags[0]), "%s %s", name, flags);
    return refused("CreateCommand") ? SERVER_ERR : SERVER_OK;
}
static int ReplyWithError(ServerCtx *ctx, const char *text) {
    (void)ctx;
    snprintf(server.reply, sizeof(server.reply), "-%s", text);
    return SERVER_OK;
}
static int ReplyWithSimpleString(ServerCtx *ctx, const char *text) {
    (void)ctx;
    snprintf(server.reply, sizeof(server.reply), "+%s", text);
    return SERVER_OK;
}
static int WrongArity(ServerCtx *ctx) {
    return ReplyWithError(ctx, "ERR wrong number of arguments");
}
static int ReplyWithStringBuffer(ServerCtx *ctx, const char *data, size_t len) {
    (void)ctx;
    snprintf(server.reply, sizeof(server.reply), "$%.*s", (int)len, data);
    return SERVER_OK;
}
static int ReplyWithVerbatimString(ServerCtx *ctx, const char *data, size_t len) {
    (void)ctx;
    snprintf(server.reply, sizeof(server.reply), "=%.*s", (int)len, data);
    return SERVER_OK;
}
static int ReplyWithNull(ServerCtx *ctx) {
    (void)ctx;
    snprintf(server.reply, sizeof(server.reply), "_");
    return SERVER_OK;
}
static ServerBlockedClient *BlockClient(ServerCtx *ctx,
                                        ServerCommandFn *reply,
                                        ServerCommandFn *timed_out,
                                        ServerFreeFn *freed,
                                        long long timeout_ms) {
    (void)ctx, (void)reply, (void)timed_out, (void)freed, (void)timeout_ms;
    server.blocked++;
    return (ServerBlockedClient *)&server.blocked;
}
static int UnblockClient(ServerBlockedClient *client, void *data) {
    (void)client;
    server.unblocked_with = data;
    atomic_fetch_add(&server.unblocked, 1);
    return SERVER_OK;
}
static void *GetBlockedClientPrivateData(ServerCtx *ctx) {
    (void)ctx;
    return server.unblocked_with;
}
static ServerString *CreateString(ServerCtx *ctx, const char *text, size_t len) {
    ServerString *s = calloc(1, sizeof(*s));
    (void)ctx;
    memcpy(s->text, text, len);
    s->len = len;
    server.strings++;
    return s;
}
static void FreeString(ServerCtx *ctx, ServerString *s) {
    (void)ctx;
    server.strings--;
    free(s);
}
static const char *StringPtrLen(const ServerString *s, size_t *len) {
    if (len) *len = s->len;
    return s->text;
}
static ServerString *GetCurrentUserName(ServerCtx *ctx) {
    return CreateString(ctx, "default", 7);
}
static ServerUser *GetModuleUserFromUserName(ServerString *name) {
    return (ServerUser *)name;
}
static void FreeModuleUser(ServerUser *user) {
    (void)user;
}
static int ACLCheckCommandPermissions(ServerUser *user, ServerString **argv, int argc) {
    (void)user, (void)argv, (void)argc;
    errno = server.acl_errno;
    return server.acl;
}
static int GetContextFlags(ServerCtx *ctx) {
    (void)ctx;
    return server.may_block ? 0 : SERVER_CTX_MULTI; /* OCSP.REFRESH does not wait here */
}
static ServerReply *Call(ServerCtx *ctx, const char *command, const char *fmt, ...) {
    ServerReply *reply = calloc(1, sizeof(*reply));
    va_list ap;
    (void)ctx, (void)command, (void)fmt;
    va_start(ap, fmt);
    if (strcmp(va_arg(ap, const char *), "SET") == 0) {
        server.sets++;
        server.remade = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
        reply->kind = REPLY_TEXT;
        reply->setting = findSetting("tls-cert-file");
    } else {
        reply->setting = findSetting(va_arg(ap, const char *));
        reply->kind = reply->setting->kind;
    }
    va_end(ap);
    if (reply->kind != REPLY_NULL) return reply;
    free(reply);
    return NULL;
}
static int CallReplyType(ServerReply *reply) {
    return reply->kind == REPLY_ERROR ? SERVER_REPLY_ERROR : SERVER_REPLY_ARRAY;
}
static ServerReply *CallReplyArrayElement(ServerReply *reply, size_t i) {
    static ServerReply parts[2];
    if (reply->kind == REPLY_ABSENT || (reply->kind == REPLY_HALF && i == 1)) return NULL;
    parts[i] = *reply;
    parts[i].part = (int)i + 1;
    return &parts[i];
}
static const char *CallReplyStringPtr(ServerReply *reply, size_t *len) {
    *len = reply->setting->len;
    return reply->setting->text;
}
static void FreeCallReply(ServerReply *reply) {
    free(reply);
}
static unsigned flags_of_proxy, flags_of_response_file;
static int RegisterBoolConfig(ServerCtx *ctx,
                              const char *name,
                              int value,
                              unsigned flags,
                              ServerConfigGetBool *get,
                              ServerConfigSetBool *put,
                              ServerConfigApply *apply,
                              void *data) {
    (void)ctx, (void)name, (void)flags, (void)get, (void)apply;
    return put(name, value, data, NULL);
}
static int RegisterNumericConfig(ServerCtx *ctx,
                                 const char *name,
                                 long long value,
                                 unsigned flags,
                                 long long min,
                                 long long max,
                                 ServerConfigGetNumber *get,
                                 ServerConfigSetNumber *put,
                                 ServerConfigApply *apply,
                                 void *data) {
    (void)ctx, (void)flags, (void)min, (void)max, (void)get, (void)apply;
    if (strcmp(name, "max-interval") == 0) {
        server.set_interval = put;
        server.interval = data;
    }
    return put(name, value, data, NULL);
}
static int RegisterEnumConfig(ServerCtx *ctx,
                              const char *name,
                              int value,
                              unsigned flags,
                              const char **names,
                              const int *values,
                              int count,
                              ServerConfigGetEnum *get,
                              ServerConfigSetEnum *put,
                              ServerConfigApply *apply,
                              void *data) {
    (void)ctx, (void)flags, (void)names, (void)values, (void)count, (void)get, (void)apply;
    return put(name, value, data, NULL);
}
static int RegisterStringConfig(ServerCtx *ctx,
                                const char *name,
                                const char *value,
                                unsigned flags,
                                ServerConfigGetString *get,
                                ServerConfigSetString *put,
                                ServerConfigApply *apply,
                                void *data) {
    ServerString *text = CreateString(ctx, value, strlen(value)), *error = NULL;
    int result = put(name, text, data, &error);
    (void)get, (void)apply;
    if (strcmp(name, "proxy") == 0) flags_of_proxy = flags;
    if (strcmp(name, "response-file") == 0) flags_of_response_file = flags;
    FreeString(ctx, text);
    return result;
}
static int LoadConfigs(ServerCtx *ctx) {
    (void)ctx;
    return refused("LoadConfigs") ? SERVER_ERR : SERVER_OK;
}
static int RegisterInfoFunc(ServerCtx *ctx, ServerInfoFn *fn) {
    (void)ctx, (void)fn;
    return refused("RegisterInfoFunc") ? SERVER_ERR : SERVER_OK;
}
static int SubscribeToServerEvent(ServerCtx *ctx, ServerEvent event, ServerEventFn *fn) {
    (void)ctx;
    if (fn && server.refuses && strcmp(server.refuses, "Subscribe") == 0 && event.id == SERVER_EVENT_SHUTDOWN)
        return SERVER_ERR;
    /* As servers do: taking back what is not there puts a subscription without a function there. */
    server.subscribed[event.id] += fn ? 1 : -1;
    return SERVER_OK;
}
static int EventLoopAddOneShot(ServerOneShotFn *fn, void *data) {
    (void)fn, (void)data;
    server.one_shots++;
    return SERVER_OK;
}
static ServerFilter *RegisterCommandFilter(ServerCtx *ctx, ServerFilterFn *fn, int flags) {
    (void)ctx, (void)fn, (void)flags;
    server.filters++;
    return (ServerFilter *)&server.filters;
}
static int UnregisterCommandFilter(ServerCtx *ctx, ServerFilter *filter) {
    (void)ctx, (void)filter;
    server.filters--;
    return SERVER_OK;
}
static void notCalled(void) {
    fail_msg("a function of the server that this test has not");
}

static int getApi(const char *name, void *pointer) {
#define HAS(function) \
    { #function, (void (*)(void))function }
    static const struct {
        const char *name;
        void (*function)(void);
    } all[] = {
        HAS(SetModuleAttribs),
        HAS(IsModuleNameBusy),
        HAS(TryAlloc),
        HAS(Free),
        HAS(Log),
        HAS(GetDetachedThreadSafeContext),
        HAS(FreeThreadSafeContext),
        HAS(CreateCommand),
        HAS(ReplyWithError),
        HAS(ReplyWithSimpleString),
        HAS(WrongArity),
        HAS(ReplyWithStringBuffer),
        HAS(ReplyWithVerbatimString),
        HAS(ReplyWithNull),
        HAS(BlockClient),
        HAS(UnblockClient),
        HAS(GetBlockedClientPrivateData),
        HAS(CreateString),
        HAS(FreeString),
        HAS(StringPtrLen),
        HAS(GetCurrentUserName),
        HAS(GetModuleUserFromUserName),
        HAS(FreeModuleUser),
        HAS(ACLCheckCommandPermissions),
        HAS(GetContextFlags),
        HAS(Call),
        HAS(CallReplyType),
        HAS(CallReplyArrayElement),
        HAS(CallReplyStringPtr),
        HAS(FreeCallReply),
        HAS(RegisterBoolConfig),
        HAS(RegisterNumericConfig),
        HAS(RegisterEnumConfig),
        HAS(RegisterStringConfig),
        HAS(LoadConfigs),
        HAS(RegisterInfoFunc),
        HAS(SubscribeToServerEvent),
        HAS(EventLoopAddOneShot),
        HAS(RegisterCommandFilter),
        HAS(UnregisterCommandFilter),
    };
    size_t i;
    void (*found)(void) = notCalled;
    for (i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        if (strcmp(name + strlen("RedisModule_"), all[i].name) == 0) found = all[i].function;
    memcpy(pointer, &found, sizeof(found));
    return SERVER_OK;
}

static ServerCtx ctx = {getApi};

/* ---- helpers ----------------------------------------------------------------------------------------------------- */

static ocspFetchResult noFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err) {
    (void)exchange, (void)body, (void)body_len;
    ocspFail(err, OCSP_FAIL_CONNECT, "there is no network here");
    return OCSP_FETCH_FAILED;
}

static char *pemFile(const char *name, X509 *cert) {
    char *path = testPath(dir, name);
    BIO *file = BIO_new_file(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_bio_X509(file, cert), 1);
    BIO_free(file);
    return path;
}

static void setFile(const char *name, const char *file, X509 *cert) {
    char *path = pemFile(file, cert);
    set(name, path);
    free(path);
}

static void setUp(void) {
    pki = testGetPki();
    dir = testDir();
    ocsp_env.fetch = noFetch;
    memset(settings, 0, sizeof(settings));
    memset(&server, 0, sizeof(server));
    no_room = no_answer = 0;
    other_libssl = NULL;
    setFile("tls-cert-file", "server.pem", pki->leaf);
    setFile("tls-ca-cert-file", "ca.pem", pki->ca);
    set("tls-client-cert-file", "");
    set("tls-ca-cert-dir", "");
    setAs("tls-alt-cert-file", REPLY_ABSENT, "", 0);
    set("tls-port", "6380");
    set("enable-debug-command", "local");
}

static void tearDown(void) {
    SSL_CTX_free(server.remade);
    if (log_ctx) endModule(&ctx); /* the thread of the engine ends with it */
    testDirFree(dir);
}

FIXTURE(setUp, tearDown);

static void assertNothingLeftBehind(void) {
    SSL_CTX *made = SSL_CTX_new(TLS_method());
    size_t i;
    for (i = 0; i < sizeof(server.subscribed) / sizeof(server.subscribed[0]); i++)
        assert_int_equal(server.subscribed[i], 0);
    assert_int_equal(server.filters, 0);
    assert_int_equal(server.contexts, 0);
    assert_int_equal(server.strings, 0);
    assert_int_equal(server.one_shots, 0);
    assert_int_equal(module.hooked, 0); /* by the context just made */
    assert_null(pending);
    SSL_CTX_free(made);
}

static void runEventLoop(void) {
    static const ServerEvent each = {SERVER_EVENT_EVENTLOOP, 1};
    eventLoopEvent(&ctx, each, SERVER_SUBEVENT_BEFORE_SLEEP, NULL);
}

/* As CONFIG SET does. */
static void setDirectives(int stapling, int peers) {
    module.options.stapling = stapling;
    module.options.verify_peers = peers;
    assert_int_equal(applyOptions(&ctx, NULL, NULL), SERVER_OK);
}

static char found[OCSP_SENTENCE_MAX * 4];

static void findText(void *name, const char *field, const char *value) {
    if (strcmp(name, field) == 0) snprintf(found, sizeof(found), "%s", value);
}

static void skipNumber(void *name, const char *field, long long value) {
    (void)name, (void)field, (void)value;
}

static const char *infoOf(const char *field) {
    ocspInfoSink sink = {findText, skipNumber, (void *)field};
    found[0] = '\0';
    ocspInfoState(&sink);
    return found;
}

static int logHas(const char *text) {
    pthread_mutex_lock(&log_lock);
    int has = strstr(server.log, text) != NULL;
    pthread_mutex_unlock(&log_lock);
    return has;
}

/* ---- load and unload --------------------------------------------------------------------------------------------- */

TEST(load_failedLeavesNothingBehind) {
    static const char *const steps[] = {"LoadConfigs", "CreateCommand", "RegisterInfoFunc", "Subscribe"};
    size_t i;
    for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        server.refuses = steps[i];
        assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_ERR);
        assertNothingLeftBehind();
    }
    server.refuses = NULL;
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
}

TEST(directive_numberOutsideItsValuesIsRefused) {
    static const int good[] = {0, 60, 604800}, bad[] = {1, 59};
    size_t i;
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(server.set_interval("max-interval", good[i], server.interval, NULL), SERVER_OK);
        assert_int_equal(module.options.max_interval, good[i]);
    }
    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ServerString *error = NULL;
        assert_int_equal(server.set_interval("max-interval", bad[i], server.interval, &error), SERVER_ERR);
        assert_non_null(strstr(error->text, "use 60 to 604800"));
        assert_int_equal(module.options.max_interval, 604800);
        FreeString(&ctx, error);
    }
    assert_int_equal(onUnload(&ctx), SERVER_OK);
}

TEST(unload_beforeTheFirstEventLoopTurnLeavesNothingBehind) {
    int i;
    for (i = 0; i < 3; i++) {
        assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
        setDirectives(1, OCSP_PEERS_REQUIRE);
        assert_int_equal(server.filters, 1);
        assert_true(server.subscribed[SERVER_EVENT_CRON_LOOP]);
        assert_int_equal(onUnload(&ctx), SERVER_OK);
        assertNothingLeftBehind();
        assert_int_equal(module.options.refresh_margin, 10);
        assert_int_equal(module.options.stapling, 0);
    }
}

TEST(unload_isRefusedAfterTheFirstEventLoopTurn) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    runEventLoop();
    assert_int_equal(onUnload(&ctx), SERVER_ERR);
    assert_true(logHas("cannot be unloaded"));
}

TEST(unload_isRefusedWithAContextOfTheServer) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    SSL_CTX *made = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    assert_int_equal(onUnload(&ctx), SERVER_ERR);
    SSL_CTX_free(made);
}

static void *makeContext(void *cert) {
    return testServerCtx(cert, pki->leaf_key, pki->ca);
}

static SSL_CTX *contextOfAnotherThread(X509 *cert) {
    pthread_t thread;
    void *made;
    assert_int_equal(pthread_create(&thread, NULL, makeContext, cert), 0);
    pthread_join(thread, &made);
    return made;
}

TEST(unload_isAllowedWithAContextOfAnotherThread) {
    SSL_CTX *client = testClientCtx(TLS1_3_VERSION, 0);
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    SSL_CTX *made = contextOfAnotherThread(pki->leaf);
    assert_int_equal(onUnload(&ctx), SERVER_OK);
    testShake shake = testHandshake(made, client, 1); /* the callback that it has is harmless */
    assert_true(shake.ok);
    assert_false(shake.got_staple);
    testShakeFree(&shake);
    SSL_CTX_free(made);
    SSL_CTX_free(client);
}

TEST(hook_withoutRoomIsReported) {
    no_room = 1;
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    runEventLoop();
    assert_false(logHas("no room"));
    setDirectives(0, OCSP_PEERS_REQUIRE); /* set later */
    runEventLoop();
    assert_true(logHas("links to peers are NOT checked: OpenSSL has no room"));
    assert_non_null(strstr(infoOf("last_peer_error"), "NOT checked"));
    setDirectives(0, OCSP_PEERS_NO);
    assert_string_equal(infoOf("last_peer_error"), "");
    setDirectives(1, OCSP_PEERS_SOFT);
    runEventLoop();
    assert_non_null(strstr(infoOf("last_peer_error"), "NOT checked"));
    assert_true(logHas("nothing is stapled: OpenSSL has no room"));
    assert_int_equal(server.sets, 0);
}

TEST(hook_unknownOpenSslIsReported) {
    no_answer = 1;
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_REQUIRE);
    runEventLoop();
    assert_int_equal(hook_index, -1);
    assert_true(logHas("nothing is stapled: the server's TLS context cannot be seen"));
    assert_non_null(strstr(infoOf("last_peer_error"), "NOT checked"));
}

/* A module built for another major version of OpenSSL: the log names the server's library and what to install. */
TEST(hook_otherLibsslIsNamed) {
    static const char named[] = "the server uses /usr/lib/libssl.so.99, and this module is linked to ";
    assert_int_equal(opensslIsMixed(), 0);
    other_libssl = "/usr/bin/server"; /* the program itself */
    assert_int_equal(opensslIsMixed(), 1);
    assert_non_null(strstr(foreignOpenssl(), "linked statically, into /usr/bin/server. Build a patched server"));
    other_libssl = "/usr/lib/libssl.so.99";
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_REQUIRE);
    runEventLoop();
    assert_int_equal(hook_index, -1);
    assert_int_equal(server.sets, 0);
    assert_true(logHas("nothing is stapled: the server's TLS context cannot be seen"));
    assert_true(logHas(named));
    assert_true(logHas("depends on libssl.so.99 (Debian's package is libssl99)"));
    assert_non_null(strstr(infoOf("last_peer_error"), named));
}

/* ---- settings ---------------------------------------------------------------------------------------------------- */

TEST(setting_unreadableIsNotEmpty) {
    char out[SETTING_MAX], text[SETTING_MAX];
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    memset(text, 'x', sizeof(text));
    setAs("some", REPLY_TEXT, text, SETTING_MAX - 1);
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_SET);
    assert_int_equal(strlen(out), SETTING_MAX - 1);
    setAs("some", REPLY_TEXT, text, SETTING_MAX); /* cut, it would be another file's name */
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_UNKNOWN);
    assert_string_equal(out, "");
    setAs("some", REPLY_TEXT, "a\0b", 3);
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_UNKNOWN);
    setAs("some", REPLY_NULL, "", 0);
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_UNKNOWN);
    setAs("some", REPLY_ERROR, "", 0);
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_UNKNOWN);
    setAs("some", REPLY_HALF, "", 0);
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_UNKNOWN);
    setAs("some", REPLY_ABSENT, "", 0);
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_EMPTY);
    set("some", "");
    assert_int_equal(readSetting(&ctx, "some", out), SETTING_EMPTY);
}

TEST(certificateFile_unreadableIsNotEmpty) {
    char *path = testPath(dir, "odd.pem");
    BIO *file;
    serverLeaf leaf;
    int i;
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    set("tls-client-cert-file", path);
    leaf = readLeaf(&ctx, "tls-client-cert-file"); /* not there */
    assert_int_equal(leaf.known, SETTING_UNKNOWN);
    testWriteFile(path, "no certificate", 14);
    leaf = readLeaf(&ctx, "tls-client-cert-file");
    assert_int_equal(leaf.known, SETTING_UNKNOWN);
    file = BIO_new_file(path, "w"); /* one that is there, and more behind it than we take */
    PEM_write_bio_X509(file, pki->leaf);
    for (i = 0; i < CERT_FILE_MAX / 16; i++) BIO_puts(file, "012345678901234\n");
    BIO_free(file);
    leaf = readLeaf(&ctx, "tls-client-cert-file");
    assert_int_equal(leaf.known, SETTING_UNKNOWN);
    leaf = readLeaf(&ctx, "tls-cert-file");
    assert_int_equal(leaf.known, SETTING_SET);
    OPENSSL_free(leaf.der);
    free(path);
}

TEST(setting_withoutConfigCommandNothingIsAssumed) {
    setAs("tls-cert-file", REPLY_NULL, "", 0);
    setAs("tls-port", REPLY_NULL, "", 0);
    setAs("enable-debug-command", REPLY_NULL, "", 0);
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    assert_int_equal(server.filters, 0);
    assert_true(logHas("DEBUG OCSP-REFRESH is not available"));
    setDirectives(1, OCSP_PEERS_REQUIRE);
    runEventLoop();
    assert_true(logHas("nothing is stapled: the server's TLS settings cannot be read"));
    assert_non_null(strstr(infoOf("last_peer_error"), "NOT checked"));
    assert_false(logHas("tls-cert-file is empty"));
    assert_int_equal(server.sets, 0);
}

/* If the command does not exist, the ACL check fails with ENOENT, which does not mean denied. */
TEST(refreshCommand_removedCommandDeniesNobody) {
    ServerString *argv[2];
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    argv[0] = CreateString(NULL, "ocsp.refresh", 12);
    argv[1] = CreateString(NULL, "ocsp-refresh", 12);
    server.acl = SERVER_ERR;
    server.acl_errno = EACCES;
    refreshCommand(&ctx, argv, 1);
    assert_non_null(strstr(server.reply, "-NOPERM"));
    server.acl_errno = ENOENT;
    refreshCommand(&ctx, argv, 1);
    assert_non_null(strstr(server.reply, "not possible in MULTI"));
    refreshCommand(&ctx, argv, 2);
    assert_non_null(strstr(server.reply, "-ERR unknown command"));
    FreeString(NULL, argv[0]);
    FreeString(NULL, argv[1]);
}

/* The numbers of the server's public header: sensitive 2, protected 32. */
TEST(directives_flags) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    assert_int_equal(flags_of_proxy, 2 | 32);
    assert_int_equal(flags_of_response_file, 32);
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

static void handshakeWith(SSL_CTX *made) {
    SSL_CTX *client = testClientCtx(TLS1_3_VERSION, 0);
    testShake shake = testHandshake(made, client, 1);
    assert_true(shake.ok);
    testShakeFree(&shake);
    SSL_CTX_free(client);
    runEventLoop();
}

static atomic_int answered;

static void answer(void *unused, const char *error) {
    (void)unused, (void)error;
    atomic_fetch_add(&answered, 1);
}

/* Once a requested refresh is answered, the thread has adopted everything that was attached before. */
static void assertAttached(X509 *cert) {
    char why[OCSP_SENTENCE_MAX];
    BIGNUM *number = ASN1_INTEGER_to_BN(X509_get0_serialNumber(cert), NULL);
    char *serial = BN_bn2hex(number);
    int before = atomic_load(&answered);
    testWaitFor(infoOf("cert_serial")[0]);
    assert_int_equal(ocspRequestRefreshThen(answer, NULL, why, sizeof(why)), 1);
    testWaitFor(atomic_load(&answered) > before);
    assert_string_equal(infoOf("cert_serial"), serial);
    OPENSSL_free(serial);
    BN_free(number);
}

TEST(context_foreignIsNeverAttached) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_NO);
    SSL_CTX *serving = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    SSL_CTX *early = testServerCtx(pki->rsa_leaf, pki->rsa_leaf_key, pki->ca);
    runEventLoop();
    assert_int_equal(module.attached, 1);
    assertAttached(pki->leaf);
    SSL_CTX *later = testServerCtx(pki->renewed_leaf, pki->leaf_key, pki->ca);
    SSL_CTX *foreign[] = {early, later, contextOfAnotherThread(pki->renewed_leaf)};
    for (size_t i = 0; i < 6; i++) {
        handshakeWith(foreign[i % 3]);
        assertAttached(pki->leaf);
    }
    for (size_t i = 0; i < 3; i++) SSL_CTX_free(foreign[i]);
    SSL_CTX_free(serving);
}

/* The same certificate, but without its issuer. */
TEST(context_foreignWithTheSameCertificateChangesNothing) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_NO);
    SSL_CTX *serving = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    runEventLoop();
    assertAttached(pki->leaf);
    assert_string_not_equal(infoOf("state"), "no-issuer");
    SSL_CTX *other = testServerCtx(pki->leaf, pki->leaf_key, NULL);
    handshakeWith(other);
    assertAttached(pki->leaf);
    assert_string_not_equal(infoOf("state"), "no-issuer");
    SSL_CTX_free(other);
    SSL_CTX_free(serving);
}

/* Which context serves clients is unknown until a handshake: the one for links must not be attached. */
TEST(context_unknownIsAttachedAtItsHandshake) {
    setAs("tls-cert-file", REPLY_NULL, "", 0);
    setAs("tls-client-cert-file", REPLY_NULL, "", 0);
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_REQUIRE);
    SSL_CTX *serving = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    SSL_CTX *linking = testServerCtx(pki->renewed_leaf, pki->leaf_key, pki->ca);
    runEventLoop();
    assert_int_equal(module.attached, 0);
    assert_true(logHas("stapling begins after the first handshake"));
    assert_string_equal(infoOf("last_peer_error"), ""); /* both have the check */
    handshakeWith(serving);
    assertAttached(pki->leaf);
    assert_int_equal(server.sets, 0);
    SSL_CTX_free(linking);
    SSL_CTX_free(serving);
}

/* While stapling and verify-peers are off no file is read, and contexts stay pending. */
TEST(context_pendingIsAttachedWhenStaplingIsTurnedOn) {
    set("tls-cert-file", "/dev/null/none");
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    SSL_CTX *gone = testServerCtx(pki->renewed_leaf, pki->leaf_key, NULL);
    SSL_CTX *serving = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    SSL_CTX *also_gone = testServerCtx(pki->renewed_leaf, pki->leaf_key, NULL);
    runEventLoop();
    assert_non_null(pending);
    SSL_CTX_free(also_gone); /* newest and oldest leave the list */
    SSL_CTX_free(gone);
    setFile("tls-cert-file", "server.pem", pki->leaf);
    setDirectives(1, OCSP_PEERS_NO);
    runEventLoop();
    assert_null(pending);
    assertAttached(pki->leaf);
    assert_int_equal(server.sets, 0);
    SSL_CTX_free(serving);
}

/* The context was made before the module was loaded: the server is asked to reload. */
TEST(context_unseenIsReloadedByTheServer) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_NO);
    runEventLoop();
    assert_int_equal(server.sets, 1);
    assert_int_equal(module.attached, 1);
    assertAttached(pki->leaf);
}

/* A server that reads a pipe again would block. */
TEST(keyFile_pipeIsNotReadAgain) {
    char *pipe_path = testPath(dir, "pipe");
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    set("tls-key-file", pipe_path);
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_REQUIRE);
    runEventLoop();
    assert_int_equal(server.sets, 0);
    assert_true(logHas("tls-key-file is not a regular file"));
    assert_non_null(strstr(infoOf("last_peer_error"), "NOT checked"));
    set("tls-cert-file", pipe_path);
    assert_int_equal(readLeaf(&ctx, "tls-cert-file").known, SETTING_UNKNOWN); /* and it returns */
    free(pipe_path);
}

/* ---- forks and memory -------------------------------------------------------------------------------------------- */

static atomic_int locked;

static void *holdLock(void *unused) {
    (void)unused;
    pthread_mutex_lock(&pending_lock);
    atomic_store(&locked, 1);
    testSleepMs(100); /* a fork that does not wait for the lock falls into this pause */
    pthread_mutex_unlock(&pending_lock);
    return NULL;
}

TEST(fork_childDoesNotInheritTheLock) {
    pthread_t thread;
    int status;
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    SSL_CTX *made = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    atomic_store(&locked, 0);
    assert_int_equal(pthread_create(&thread, NULL, holdLock, NULL), 0);
    testWaitFor(atomic_load(&locked));
    pid_t child = fork();
    if (child == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(20);
        pthread_mutex_lock(&pending_lock); /* as contextFreed does */
        kill(getpid(), SIGKILL);           /* an exit would run the sanitizer's checks */
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
    pthread_join(thread, NULL);
    SSL_CTX_free(made);
}

TEST(refreshCommand_failureWithoutMemoryForItsReason) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    commandDone(NULL, "the responder said no");
    replyDone(&ctx, NULL, 0);
    assert_string_equal(server.reply, "-ERR the responder said no");
    freeReply(&ctx, server.unblocked_with);
    atomic_store(&out_of_memory, 1);
    commandDone(NULL, "the responder said no");
    atomic_store(&out_of_memory, 0);
    replyDone(&ctx, NULL, 0);
    assert_non_null(strstr(server.reply, "-ERR the command failed"));
    freeReply(&ctx, server.unblocked_with);
    commandDone(NULL, NULL);
    replyDone(&ctx, NULL, 0);
    assert_string_equal(server.reply, "+OK");
    freeReply(&ctx, server.unblocked_with);
}

/* ---- OCSP.GET, OCSP.SET ------------------------------------------------------------------------------------------ */

static ServerString *words[4];

static void call(ServerCommandFn *command, int argc, const char *first, const char *second) {
    const char *texts[] = {"", first, second, "one too many"};
    server.reply[0] = '\0';
    for (int i = 0; i < argc; i++) words[i] = CreateString(NULL, texts[i], strlen(texts[i]));
    command(&ctx, words, argc);
    for (int i = 0; i < argc; i++) FreeString(NULL, words[i]);
}

static char base64[2000];

static void encodeResponse(X509 *leaf, time_t this_update) {
    testReply reply = testGoodReply(leaf);
    reply.singles[0].this_update = this_update;
    reply.singles[0].next_update = this_update + TEST_DAY;
    testBytes der = testReplyDer(&reply);
    EVP_EncodeBlock((unsigned char *)base64, der.p, (int)der.n);
    testBytesFree(&der);
}

static void waitForReply(void) {
    testWaitFor(atomic_load(&server.unblocked) == server.blocked);
    replyDone(&ctx, NULL, 0);
    freeReply(&ctx, server.unblocked_with);
}

TEST(setAndGet_repliesOfTheModule) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    server.may_block = 1;
    call(getCommand, 1, NULL, NULL);
    assert_string_equal(server.reply, "_");
    call(getCommand, 4, "DER", "0ABC");
    assert_string_equal(server.reply, "-ERR wrong number of arguments");
    call(getCommand, 2, "PEM", NULL);
    assert_non_null(strstr(server.reply, "-ERR the arguments are DER"));
    call(setCommand, 1, NULL, NULL);
    assert_string_equal(server.reply, "-ERR wrong number of arguments");
    call(setCommand, 3, "MA==", "MA==");
    assert_string_equal(server.reply, "-ERR wrong number of arguments");
    encodeResponse(pki->leaf, time(NULL) - 10);
    call(setCommand, 2, base64, NULL);
    waitForReply();
    assert_non_null(strstr(server.reply, "-ERR OCSP stapling is off"));
    module.options.cache_dir = ""; /* or the accepted response would be stored in the working directory */
    setDirectives(1, OCSP_PEERS_NO);
    SSL_CTX *serving = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    runEventLoop();
    assertAttached(pki->leaf);
    call(setCommand, 2, "MA==", NULL);
    waitForReply();
    assert_non_null(strstr(server.reply, "-ERR certificate 0ABC: the answer (1 bytes) is not a complete"));
    call(setCommand, 2, base64, NULL);
    waitForReply();
    assert_string_equal(server.reply, "+OK");
    call(getCommand, 2, "base64", NULL);
    assert_string_equal(server.reply + 1, base64);
    assert_int_equal(server.reply[0], '$');
    call(getCommand, 1, NULL, NULL);
    assert_int_equal(strncmp(server.reply, "=responseStatus: successful\n", 28), 0);
    atomic_store(&out_of_memory, 1); /* for the response, and then for the reason: never answered with OK */
    call(setCommand, 2, base64, NULL);
    atomic_store(&out_of_memory, 0);
    waitForReply();
    assert_non_null(strstr(server.reply, "-ERR the command failed"));
    atomic_store(&out_of_memory, 1);
    call(getCommand, 2, "der", NULL);
    atomic_store(&out_of_memory, 0);
    assert_string_equal(server.reply, "-ERR out of memory");
    /* No right to DEBUG; and where nobody can wait, which OCSP.GET does not do. */
    server.acl = SERVER_ERR;
    server.acl_errno = EACCES;
    call(setCommand, 2, base64, NULL);
    assert_non_null(strstr(server.reply, "-NOPERM"));
    call(getCommand, 3, "text", "0abc");
    assert_non_null(strstr(server.reply, "-NOPERM"));
    server.acl = SERVER_OK;
    call(getCommand, 3, "text", "0abc");
    assert_int_equal(server.reply[0], '=');
    server.may_block = 0;
    call(setCommand, 2, base64, NULL);
    assert_non_null(strstr(server.reply, "-ERR OCSP.SET waits for the verification"));
    call(getCommand, 2, "der", NULL);
    assert_int_equal(server.reply[0], '$');
    SSL_CTX_free(serving);
}

TEST(commands_neitherWriteNorRunWhereTheyMustNot) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    assert_int_equal(server.commands, 3);
    for (int i = 0; i < 3; i++) {
        int get = strncmp(server.flags[i], "ocsp.get ", 9) == 0;
        assert_null(strstr(server.flags[i], "write"));
        assert_non_null(strstr(server.flags[i], " admin "));
        assert_int_equal(strstr(server.flags[i], " deny-script ") != NULL, !get);
        assert_non_null(strstr(server.flags[i], "allow-loading allow-stale"));
    }
}

TEST(context_notRecordedForLackOfMemoryIsAttachedAtItsHandshake) {
    assert_int_equal(onLoad(&ctx, NULL, 0), SERVER_OK);
    setDirectives(1, OCSP_PEERS_NO);
    module.reload_tried = 1; /* the server is not asked for another */
    atomic_store(&out_of_memory, 1);
    SSL_CTX *serving = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    atomic_store(&out_of_memory, 0);
    assert_null(pending);
    runEventLoop();
    assert_int_equal(module.attached, 0);
    handshakeWith(serving);
    assert_int_equal(module.attached, 1);
    assertAttached(pki->leaf);
    SSL_CTX_free(serving);
}
