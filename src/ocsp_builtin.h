/* ocsp_builtin.h - what the server itself calls when OCSP stapling is compiled into it.
 *
 * All of it exists in every build, so that no caller needs an #if: where stapling is not possible, ocsp_builtin.c says
 * why when it is asked for. Include it after server.h. All on the main thread, but for ocspBuiltinKillThread.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_BUILTIN_H
#define OCSP_BUILTIN_H

/* The values of the tls-ocsp-* directives: owned and filled by the table in config.c. */
extern struct ocspConfig {
    int stapling;
    int retry_delay;
    int timeout;
    char *refresh_margin;
    char *responder_url;
    char *cache_dir;
    char *response_file;
    int verify_peers; /* ocspVerifyPeers */
} ocsp_config;
extern configEnum ocsp_verify_peers_enum[];

int isValidOcspStapling(int val, const char **err);
int isValidOcspRefreshMargin(char *val, const char **err);
int isValidOcspResponderUrl(char *val, const char **err);
int applyOcspConfig(const char **err); /* one for all eight, so that CONFIG SET of several calls it once */

/* Once all threads of the server may start, and before the first connection is accepted. */
void ocspBuiltinStart(void);

/* A server context was just put into service, in place of the one before; no connection uses it yet. With TLS as
 * a module (valkey-tls.so) this is a different program, and the loadable form of stapling sees its contexts. */
#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
struct ssl_ctx_st;
void ocspBuiltinServe(struct ssl_ctx_st *ctx);
void ocspBuiltinLink(struct ssl_ctx_st *ctx); /* the same of a context for links to peers alone; NULL: there is none */
#else
#define ocspBuiltinServe(ctx) ((void)(ctx))
#define ocspBuiltinLink(ctx) ((void)(ctx))
#endif

void ocspBuiltinDebugRefresh(client *c);        /* DEBUG OCSP-REFRESH */
sds genOcspInfoStatsString(sds info);           /* the two counters in INFO's stats */
sds genOcspInfoString(sds info, int *sections); /* INFO's section ocsp */
void ocspBuiltinKillThread(void);               /* beside bioKillThreads, in a crash report; any thread */

#endif
