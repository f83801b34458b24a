/* ocsp_builtin.h - OCSP stapling for the server: the functions that Valkey's own source files call.
 *
 * Every function exists in every build, so that no caller needs an #if; where stapling is not
 * possible, turning it on fails with an error that says why. Main thread only.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_BUILTIN_H
#define OCSP_BUILTIN_H

/* Values of the tls-ocsp-* directives, set and owned by config.c. */
extern struct ocspConfig {
    int stapling;
    char *response_file;
} ocsp_config;

int isValidOcspStapling(int val, const char **err);
int applyOcspConfig(const char **err); /* for all directives: a CONFIG SET of several calls it once */

/* Call when a server context was just put into service, before a connection uses it. Not with TLS as a module
 * (valkey-tls.so), which is a separate program. */
#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
struct ssl_ctx_st;
void ocspBuiltinServe(struct ssl_ctx_st *ctx);
#else
#define ocspBuiltinServe(ctx) ((void)(ctx))
#endif

/* INFO. The names of fields begin with `prefix`: "tls_ocsp_" in a server whose INFO has a section TLS, else "ocsp_". */
sds genOcspInfoString(sds info, const char *prefix); /* the fields, for the section TLS */
sds genOcspInfoSection(sds info, int *sections);     /* the section OCSP, for a server without one */

#endif
