/* ocsp_builtin.c - staples an OCSP response from a file: connects the verification (ocsp_internal.h) to Valkey.
 *
 * DESIGN: the response belongs to the SSL_CTX. When a context is put into service, the file is read and verified for the
 * context's certificate, and kept in its ex_data, which nobody changes after that. So handshakes on I/O threads need no
 * lock, and a connection that still uses the old context gets what belongs to that. CONFIG SET of a directive here makes
 * a new context, as CONFIG SET tls-cert-file does.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "server.h"
#include "ocsp_builtin.h"

#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
#include "ocsp_internal.h"
#define OCSP_BUILTIN OCSP_SUPPORTED
#else
#define OCSP_BUILTIN 0
#endif

struct ocspConfig ocsp_config;

#if OCSP_BUILTIN

/* What a context staples. Immutable once the context is in service. */
typedef struct contextStaple {
    ocspIdentity *id;      /* NULL: the context has no certificate, or stapling is off */
    ocspResponse response; /* .der NULL: none */
    const char *state;     /* while there is no response */
    ocspError err;
} contextStaple;

static int staple_index = -1; /* of the contexts' ex_data */
static SSL_CTX *serving;      /* owns a reference; NULL: TLS is not configured */

static void builtinLog(ocspLogLevel level, const char *sentence) {
    static const int levels[] = {LL_DEBUG, LL_VERBOSE, LL_NOTICE, LL_WARNING}; /* as ocspLogLevel */

    serverLog(levels[level], "OCSP stapling: %s", sentence);
}

static void *builtinAlloc(size_t size) {
    return ztrymalloc(size);
}

static void builtinFree(void *ptr) {
    zfree(ptr);
}

/* Called by OpenSSL when the last connection of a context is gone. Any thread. */
static void freeStaple(void *parent, void *staple, CRYPTO_EX_DATA *data, int index, long argl, void *argp) {
    contextStaple *s = staple;

    UNUSED(parent);
    UNUSED(data);
    UNUSED(index);
    UNUSED(argl);
    UNUSED(argp);
    if (!s) return;
    ocspIdentityFree(s->id);
    ocspResponseClear(&s->response);
    zfree(s);
}

/* Reads and verifies the response file for the certificate of `s`. */
static void loadResponse(contextStaple *s) {
    unsigned char *der = NULL;
    ocspBytes bytes = {NULL, 0};
    int64_t mtime;

    s->state = "pending";
    if (ocspReadFile(ocsp_config.response_file, OCSP_MAX_RESPONSE_BYTES, &der, &bytes.len, &mtime, &s->err)) {
        bytes.data = der;
        ocspVerify(bytes, s->id, (int64_t)time(NULL), mtime, &s->response, &s->err);
    }
    ocspFree(der);
    if (!s->response.der)
        serverLog(LL_WARNING, "OCSP stapling: %s is not stapled: %s", ocsp_config.response_file, s->err.text);
    else
        serverLog(LL_NOTICE, "OCSP stapling: certificate %s: a response that says %s is stapled from %s", s->id->serial,
                  s->response.revoked ? "REVOKED" : "good", ocsp_config.response_file);
}

static void loadStaple(SSL_CTX *ctx, contextStaple *s) {
    X509 *leaf = SSL_CTX_get0_certificate(ctx);
    STACK_OF(X509) *chain = NULL;

    s->state = ocsp_config.stapling ? "no-certificate" : "disabled";
    if (!ocsp_config.stapling || !leaf) return;
    SSL_CTX_get0_chain_certs(ctx, &chain);
    s->id = ocspIdentityNew(leaf, chain, SSL_CTX_get_cert_store(ctx));
    if (!s->id) return; /* out of memory */
    s->state = s->id->self_signed ? "self-signed" : s->id->issuer ? "no-responder" : "no-issuer";
    if (s->id->issuer && !s->id->self_signed && *ocsp_config.response_file) loadResponse(s);
}

/* The handshake callback. Any thread. */
static int stapleResponse(SSL *ssl, void *unused) {
    const contextStaple *s = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), staple_index);
    unsigned char *copy;

    UNUSED(unused);
    if (!SSL_is_server(ssl)) return 1; /* a link that this server opened: asks for no staple */
    if (!s || !s->response.der || SSL_get_certificate(ssl) != s->id->leaf || time(NULL) >= s->response.expires_at ||
        s->response.len > OCSP_MAX_STAPLE_TLS12)
        return SSL_TLSEXT_ERR_NOACK;
    copy = OPENSSL_memdup(s->response.der, s->response.len);
    if (copy && SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)s->response.len)) return SSL_TLSEXT_ERR_OK;
    OPENSSL_free(copy);
    return SSL_TLSEXT_ERR_NOACK;
}

void ocspBuiltinServe(SSL_CTX *ctx) {
    static const ocspHost host = {.log = builtinLog,
                                  .alloc = builtinAlloc,
                                  .free = builtinFree,
                                  .directive_prefix = "tls-ocsp-"};
    contextStaple *s = zcalloc(sizeof(*s));

    ocspSetHost(&host);
    if (staple_index < 0) staple_index = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, freeStaple);
    SSL_CTX_up_ref(ctx);
    SSL_CTX_free(serving);
    serving = ctx;
    loadStaple(ctx, s);
    if (SSL_CTX_set_ex_data(ctx, staple_index, s))
        SSL_CTX_set_tlsext_status_cb(ctx, stapleResponse);
    else
        freeStaple(NULL, s, NULL, 0, 0, NULL);
}

int isValidOcspStapling(int val, const char **err) {
    UNUSED(val);
    UNUSED(err);
    return 1;
}

int applyOcspConfig(const char **err) {
    if (!serving || connTypeConfigure(connectionTypeTls(), &server.tls_ctx_config, 1) == C_OK) return 1;
    *err = "OCSP stapling requires TLS to be reconfigured, which failed. Check server logs.";
    return 0;
}

sds genOcspInfoString(sds info, const char *prefix) {
    const contextStaple *s = serving ? SSL_CTX_get_ex_data(serving, staple_index) : NULL;
    const ocspResponse *r = s ? &s->response : NULL;
    int64_t now = (int64_t)time(NULL);
    int has = r && r->der;
    const char *state = !s                     ? "no-tls"
                        : !has                 ? s->state
                        : now >= r->expires_at ? "expired"
                        : r->revoked           ? "revoked"
                                               : "good";

    info = sdscatprintf(info, "%sstate:%s\r\n%srevoked:%d\r\n", prefix, state, prefix, has && r->revoked);
    info = sdscatprintf(info, "%scert_serial:%s\r\n", prefix, s && s->id ? s->id->serial : "");
    info = sdscatprintf(info, "%sthis_update:%lld\r\n", prefix, has ? (long long)r->this_update : 0);
    info = sdscatprintf(info, "%snext_update:%lld\r\n", prefix, has ? (long long)r->next_update : 0);
    info = sdscatprintf(info, "%sresponse_bytes:%zu\r\n", prefix, has ? r->len : 0);
    info = sdscatprintf(info, "%sresponse_source:%s\r\n", prefix, has ? "file" : "none");
    return sdscatprintf(info, "%slast_error:%s\r\n", prefix, s ? s->err.text : "");
}

sds genOcspInfoSection(sds info, int *sections) {
    if ((*sections)++) info = sdscat(info, "\r\n");
    return genOcspInfoString(sdscat(info, "# OCSP\r\n"), "ocsp_");
}

#else /* OCSP_BUILTIN */

#if defined(USE_OPENSSL) && USE_OPENSSL == 1 /* BUILD_YES */
#define OCSP_MISSING "it requires OpenSSL 3.0 or later, and this server is built with an older one or with LibreSSL"
void ocspBuiltinServe(struct ssl_ctx_st *ctx) {
    UNUSED(ctx);
}
#elif defined(USE_OPENSSL) && USE_OPENSSL == 2 /* BUILD_MODULE */
#define OCSP_MISSING "this server is built with TLS as a module: build it with BUILD_TLS=yes"
#else
#define OCSP_MISSING "this server is built without TLS: build it with BUILD_TLS=yes"
#endif

int isValidOcspStapling(int val, const char **err) {
    if (val) *err = "OCSP stapling is not possible: " OCSP_MISSING;
    return !val;
}

int applyOcspConfig(const char **err) {
    UNUSED(err);
    return 1;
}

sds genOcspInfoString(sds info, const char *prefix) {
    UNUSED(prefix);
    return info;
}

sds genOcspInfoSection(sds info, int *sections) {
    UNUSED(sections);
    return info;
}

#endif /* OCSP_BUILTIN */
