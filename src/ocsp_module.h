/* ocsp_module.h - what the files of the loadable module share: its state, and what they ask of each other. Everything runs
 * on the main thread unless it says otherwise.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_MODULE_H
#define OCSP_MODULE_H

#include "ocsp.h"
#include "server_module_api.h"
#if !OCSP_SUPPORTED
#error "OCSP stapling needs OpenSSL 3.0 or later: install its development files (Debian: libssl-dev) and build again."
#endif
#include <time.h>
#include <openssl/bio.h>
#include <openssl/x509.h>

#define SETTING_MAX 4096 /* bytes of a value of the server's that is read, with the zero byte */

typedef enum { EVENT_BEFORE_SLEEP, EVENT_CRON, EVENT_LOADING, EVENT_SHUTDOWN, EVENTS } eventKind;

#define MODULE_AT_LOAD \
    { .options = OCSP_OPTIONS_DEFAULT }

/* MODULE_AT_LOAD when a load begins and after an unload. */
extern struct moduleState {
    ocspOptions options;                    /* the directives */
    ServerString *strings[OCSP_DIRECTIVES]; /* the memory of those that are strings */
    int debug_is_local;                     /* enable-debug-command is "local": cannot change while the server runs */
    int shutting_down;
    int turned;                 /* the server came back to its event loop after the load: no unload from here on */
    int subscribed[EVENTS];     /* the server tells us of these */
    ServerFilter *filter;       /* debugFilter, where it is wanted */
    int attached, reload_tried; /* a context was attached; there is no use in asking the server for one */
    time_t reload_retry_at;     /* not before that, monotonic clock */
    int hooked;                 /* a context of the main thread refers to this file */
    int unsure;                 /* one made at the start may be the server's, which a handshake has to show */
    int unsubscribe_queued;     /* the one-shot that ends the subscription to each turn is on its way */
    int expecting;              /* the engine was told what the server's context will hold */
    const char *unseen; /* why the server's contexts cannot be seen at all; NULL: they can, as far as is known */
    int logged_stapling, logged_peers, logged_unsure; /* what logUnseen and forceTlsReload have told */
} module;

/* ---- the server (ocsp_module_server.c) --------------------------------------------------------------------------- */

/* The server's functions, looked up when the module is loaded. */
#define SERVER_EXTERN_POINTER(result, name, arguments) extern SERVER_POINTER(result, name, arguments)
SERVER_FUNCTIONS(SERVER_EXTERN_POINTER)
const char *serverLoadApi(ServerCtx *ctx); /* NULL, or the name of the first function that this server lacks */

extern ServerCtx *log_ctx;                                /* used on any thread, written at load and unload */
void moduleLog(ocspLogLevel level, const char *sentence); /* any thread */
void setError(ServerString **error, const char *sentence);

/* The result of reading one of the server's settings. That nothing can be known (CONFIG is renamed or disabled, the value is
 * longer than SETTING_MAX, a file cannot be read) is a result of its own, and never the same as "empty". */
typedef enum { SETTING_UNKNOWN, SETTING_EMPTY, SETTING_SET } settingResult;

/* Reads a setting into `out`; "" unless SETTING_SET is returned. A setting that this server does not have is empty. */
settingResult readSetting(ServerCtx *ctx, const char *name, char out[SETTING_MAX]);

/* Opens a file that the server reads, too. NULL when it cannot be read, is no regular file or has more than `most` bytes.
 * Never blocks on a pipe, and takes nothing out of one. The caller frees it. */
BIO *openServerFile(const char *path, off_t most);
X509 *nextCertificate(BIO *file); /* of a PEM file, or NULL; never asks for a pass phrase */

/* The first certificate of the PEM file that a setting names. */
typedef struct serverLeaf {
    settingResult known;
    unsigned char *der; /* when known is SETTING_SET; OPENSSL_free */
    int len;
} serverLeaf;
serverLeaf readLeaf(ServerCtx *ctx, const char *setting);

int opensslIsMixed(void);      /* 1: the server's OpenSSL is not the one that this module uses, or may not be */
int serverHasTls(void);        /* 0: this server was built without TLS */
int mayUseTls(ServerCtx *ctx); /* 0: its settings make no TLS context */
const char *irregularFile(
    ServerCtx *ctx); /* the setting that names a file of TLS which is not a regular one, or NULL */

/* ---- directives (ocsp_module_config.c) --------------------------------------------------------------------------- */

int registerDirectives(ServerCtx *ctx, ServerConfigApply *apply); /* 0: the server refused one */
int moduleWanted(void);                                           /* stapling or verify-peers is on */

/* ---- the server's contexts (ocsp_module_ctx.c) ------------------------------------------------------------------- */

void rememberMainThread(void);
void moduleThreadStarted(void);  /* on the OCSP thread */
void forgetOcspThread(void);     /* it has ended */
int contextServes(SSL_CTX *ctx); /* ocspHost.serves */
int guardForks(void);            /* 0 when out of memory */

/* Installs the hook that sees contexts: the last step of a load. `added` is called for each context of the main thread. */
void hookContexts(ServerCtx *ctx, void (*added)(void));
void unhookContexts(void); /* before an unload */

int anyPending(void); /* there is a context to look at. While nothing is turned on, contexts wait in the list */

/* Attaches the newest pending context that serves. `ours`: the server has made it because it was asked to, so that it is no
 * other module's. */
void attachPending(ServerCtx *ctx, int ours);

void logUnseen(const char *why);     /* logs once that the contexts cannot be seen, and why (half a sentence) */
void forceTlsReload(ServerCtx *ctx); /* has the server make its context again */
int reloadDue(void);                 /* it is time to try that (again) */

#endif
