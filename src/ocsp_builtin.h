/* ocsp_builtin.h - OCSP stapling for the server: the functions that Valkey's own source files call.
 *
 * Every function exists in every build, so that no caller needs an #if; where stapling is not
 * possible, turning it on fails with an error that says why. Main thread only, except ocspBuiltinKillThread.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_BUILTIN_H
#define OCSP_BUILTIN_H

/* Values of the tls-ocsp-* directives, set and owned by config.c. */
extern struct ocspConfig {
    int stapling;
    int max_interval;
    int retry_delay;
    int timeout;
    char *refresh_margin;
    char *responder_url;
    char *cache_dir;
    char *response_file;
    int verify_peers; /* ocspVerifyPeers */
    char *issuer_file;
    char *proxy; /* may have a password */
    int staple_chain;
} ocsp_config;
extern configEnum ocsp_verify_peers_enum[];

int isValidOcspStapling(int val, const char **err);
int isValidOcspRefreshMargin(char *val, const char **err);
int isValidOcspMaxInterval(long long val, const char **err);
int isValidOcspResponderUrl(char *val, const char **err);
int isValidOcspProxy(char *val, const char **err);
int applyOcspConfig(const char **err); /* for all directives: a CONFIG SET of several calls it once */

/* Starts stapling if it is on: reads the cached response, then starts the thread. Call once, when threads may be created
 * and before the first connection is accepted. */
void ocspBuiltinStart(void);
void ocspBuiltinResetStats(void); /* CONFIG RESETSTAT */

/* Call when server contexts were just put into service, before a connection uses it: attaches it if stapling is on. Not
 * with TLS as a module (valkey-tls.so), which is a separate program. */
#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
struct ssl_ctx_st;
struct ssl_st;
void ocspBuiltinServe(struct ssl_ctx_st *ctx, struct ssl_ctx_st *client_ctx); /* client_ctx: of links, NULL: as ctx */
/* Call for each link to a peer, before its handshake. NULL allowed. */
void ocspBuiltinLink(struct ssl_st *ssl);
#else
#define ocspBuiltinServe(ctx, client_ctx) ((void)(ctx), (void)(client_ctx))
#define ocspBuiltinLink(ssl) ((void)(ssl))
#endif

/* DEBUG OCSP-REFRESH, OCSP-GET and OCSP-SET: `subcommand` is that word, `first` and `second` those after it (sds; NULL:
 * absent). The caller reads them from c->argv, because the name of an object's value differs between releases. */
void ocspBuiltinDebug(client *c, const char *subcommand, sds first, sds second);
/* INFO. The names of fields begin with `prefix`: "tls_ocsp_" in a server whose INFO has a section TLS, else "ocsp_". */
sds genOcspInfoStatsString(sds info, const char *prefix); /* the two counters in INFO stats */
sds genOcspInfoString(sds info, const char *prefix);      /* the fields, for the section TLS */
sds genOcspInfoSection(sds info, int *sections);          /* the section OCSP, for a server without one */
void ocspBuiltinKillThread(void);                         /* in a crash report, after bioKillThreads; any thread */

#endif
