/* ocsp_module.h - shared by the files of the loadable module: its state and its internal functions. Everything runs on
 * the main thread unless stated otherwise.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_MODULE_H
#define OCSP_MODULE_H

#include "ocsp_late.h"
#include "ocsp_wait.h"
#include "server_module_api.h"
#if !OCSP_SUPPORTED
#error "OCSP stapling needs OpenSSL 3.0 or later: install its development files (Debian: libssl-dev) and build again."
#endif
#include <time.h>
#include <openssl/bio.h>
#include <openssl/x509.h>

#define SETTING_MAX 4096 /* bytes of a setting's value, with the terminating zero */

typedef enum {
    EVENT_BEFORE_SLEEP,
    EVENT_CRON,
    EVENT_LOADING,
    EVENT_SHUTDOWN,
    EVENTS
} eventKind;

#define MODULE_AT_LOAD \
    { .options = OCSP_OPTIONS_DEFAULT }

/* The module's state; MODULE_AT_LOAD when a load begins and after an unload. */
extern struct moduleState {
    ocspOptions options;                    /* the directives' values */
    ServerString *strings[OCSP_DIRECTIVES]; /* owned: memory of the string values */
    int debug_is_local;                     /* enable-debug-command is "local"; cannot change while the server runs */
    int shutting_down;
    int turned;                 /* the event loop has run since the load: no unload from now on */
    int subscribed[EVENTS];     /* active subscriptions */
    ServerFilter *filter;       /* debugFilter; NULL: not registered */
    int attached, reload_tried; /* a server context was attached; forceTlsReload has nothing more to try */
    time_t reload_retry_at;     /* seconds, monotonic clock: no TLS reload before that */
    int hooked;                 /* a context of the main thread refers to this file */
    int unsure;                 /* a context created at startup may be the server's; a handshake has to show that */
    int unsubscribe_queued;     /* the one-shot unsubscribeBeforeSleep is queued */
    int expecting;              /* ocspPrefetchContext was called for the server's coming context */
    const char *unseen;         /* why the server's contexts cannot be seen; NULL: they can, as far as is known */
    int logged_stapling, logged_peers, logged_unsure; /* logged once by logUnseen and reloadFailed */
} module;

/* ---- the server (ocsp_module_server.c) --------------------------------------------------------------------------- */

/* The server's functions, looked up by name at load. */
#define SERVER_EXTERN_POINTER(result, name, arguments) extern SERVER_POINTER(result, name, arguments)
SERVER_FUNCTIONS(SERVER_EXTERN_POINTER)
const char *serverLoadApi(ServerCtx *ctx); /* NULL, or the name of the first function that this server lacks */

extern ServerCtx *log_ctx;                                /* used on any thread, written at load and unload */
void moduleLog(ocspLogLevel level, const char *sentence); /* any thread */
void setError(ServerString **error, const char *sentence);

/* The result of reading one of the server's settings. SETTING_UNKNOWN (CONFIG is renamed or disabled, the value does
 * not fit SETTING_MAX, a file cannot be read) must never be treated as SETTING_EMPTY. */
typedef enum {
    SETTING_UNKNOWN,
    SETTING_EMPTY,
    SETTING_SET
} settingResult;

/* Reads a setting into `out`; "" unless SETTING_SET is returned. A setting that this server does not know is empty. */
settingResult readSetting(ServerCtx *ctx, const char *name, char out[SETTING_MAX]);

/* Reads a file into a memory BIO, which the caller frees. NULL: unreadable, not a regular file, or larger than `most`
 * bytes. Never blocks on a named pipe or consumes its data, as the server may read the same file. */
BIO *openServerFile(const char *path, off_t most);
X509 *nextCertificate(BIO *file); /* the next one of a PEM file, or NULL; never prompts for a pass phrase */

/* The first certificate of the PEM file that a setting names. */
typedef struct serverLeaf {
    settingResult known;
    unsigned char *der; /* when known is SETTING_SET; OPENSSL_free */
    int len;
} serverLeaf;
serverLeaf readLeaf(ServerCtx *ctx, const char *setting);

int opensslIsMixed(void); /* 1: the server may use another copy of OpenSSL than this module */
/* Half a sentence for logUnseen: which libssl the server uses and which one this module, and what to install. Valid
 * until the next call. */
const char *foreignOpenssl(void);
int serverHasTls(void);        /* 0: this server was built without TLS */
int mayUseTls(ServerCtx *ctx); /* 0: with its settings the server creates no TLS context */
const char *irregularFile(
    ServerCtx *ctx); /* the first setting whose TLS file is not a regular file (a named pipe, for example), or NULL */

/* ---- directives (ocsp_module_config.c) --------------------------------------------------------------------------- */

int registerDirectives(ServerCtx *ctx, ServerConfigApply *apply); /* 0: the server refused one */
int moduleWanted(void);                                           /* stapling or verify-peers is on */

/* ---- commands (ocsp_module_commands.c) --------------------------------------------------------------------------- */

int registerCommands(ServerCtx *ctx); /* 0: the server refused one, or the command filter */

/* ---- the server's contexts (ocsp_module_ctx.c) ------------------------------------------------------------------- */

void rememberMainThread(void);
void moduleThreadStarted(void);  /* ocspHost.thread_started: OCSP thread */
void forgetOcspThread(void);     /* after the OCSP thread has ended */
int contextServes(SSL_CTX *ctx); /* for ocspLateInit */
int guardForks(void);            /* 0: out of memory */

/* Installs the hook on SSL_CTX_new, as the last step of a load. `added` is called for each context of the main
 * thread. */
void hookContexts(ServerCtx *ctx, void (*added)(void));
void unhookContexts(void); /* before an unload */

int anyPending(void); /* 1: contexts wait to be examined; 0 also while stapling and verify-peers are off */

/* Attaches the newest pending context that serves the server's certificate. `requested`: the server has just created it
 * because forceTlsReload made it, so the context is not another module's. */
void attachPending(ServerCtx *ctx, int requested);

void logUnseen(const char *why);     /* logs once that the contexts cannot be seen; `why` is half a sentence */
void forceTlsReload(ServerCtx *ctx); /* makes the server create its contexts anew */
int reloadDue(void);                 /* 1: it is time for forceTlsReload */

#endif
