/* ocsp_module_server.c - what the module asks of the server it is loaded into: its functions, its log, its settings and the
 * files that they name.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_module.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/crypto.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>

#define CERT_FILE_MAX (1 << 20) /* bytes of tls-cert-file when its first certificate is compared with a context's */

struct moduleState module = MODULE_AT_LOAD;
ServerCtx *log_ctx;

SERVER_FUNCTIONS(SERVER_POINTER)
SERVER_DEFINE_LOADER()

void moduleLog(ocspLogLevel level, const char *sentence) {
    static const char *const levels[] = {"debug", "verbose", "notice", "warning"};

    Server_Log(log_ctx, levels[level], "%s", sentence);
}

void setError(ServerString **error, const char *sentence) {
    *error = Server_CreateString(NULL, sentence, strlen(sentence));
}

/* ---- the server's settings --------------------------------------------------------------------------------------- */

settingResult readSetting(ServerCtx *ctx, const char *name, char out[SETTING_MAX]) {
    ServerReply *reply = Server_Call(ctx, "CONFIG", "cc", "GET", name), *value = NULL;
    settingResult result = SETTING_UNKNOWN;
    const char *chars = NULL;
    size_t len = 0;

    out[0] = '\0';
    if (reply && Server_CallReplyType(reply) == SERVER_REPLY_ARRAY) {
        value = Server_CallReplyArrayElement(reply, 1);
        if (value) chars = Server_CallReplyStringPtr(value, &len);
        if (!Server_CallReplyArrayElement(reply, 0) || (chars && len == 0)) result = SETTING_EMPTY;
    }
    if (chars && len > 0 && len < SETTING_MAX && !memchr(chars, 0, len)) {
        memcpy(out, chars, len);
        out[len] = '\0';
        result = SETTING_SET;
    }
    if (reply) Server_FreeCallReply(reply);
    return result;
}

BIO *openServerFile(const char *path, off_t most) {
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    BIO *file = BIO_new(BIO_s_mem());
    char part[4096];
    ssize_t n = -1;
    off_t total = 0;
    struct stat st;

    if (fd >= 0 && file && fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
        while (total <= most && (n = read(fd, part, sizeof(part))) > 0) {
            if (BIO_write(file, part, (int)n) != n) break;
            total += n;
        }
    }
    if (fd >= 0) close(fd);
    if (n == 0 && total <= most) return file;
    BIO_free(file);
    return NULL;
}

/* The last argument: no pass phrase. Without it OpenSSL would ask for one on the terminal. */
X509 *nextCertificate(BIO *file) {
    return PEM_read_bio_X509_AUX(file, NULL, NULL, (void *)"");
}

serverLeaf readLeaf(ServerCtx *ctx, const char *setting) {
    serverLeaf leaf = {SETTING_UNKNOWN, NULL, 0};
    char path[SETTING_MAX];
    BIO *file = NULL;
    X509 *cert = NULL;

    leaf.known = readSetting(ctx, setting, path);
    if (leaf.known != SETTING_SET) return leaf;
    file = openServerFile(path, CERT_FILE_MAX);
    if (file) cert = nextCertificate(file);
    if (cert) leaf.len = i2d_X509(cert, &leaf.der);
    if (leaf.len <= 0 || !leaf.der) leaf.known = SETTING_UNKNOWN;
    X509_free(cert);
    BIO_free(file);
    return leaf;
}

/* Whether the server's program has TLS in it, or a module that brings it (BUILD_TLS=module). Its settings do not tell: a
 * server built without has them too. Where the program cannot be asked, it may have. */
int serverHasTls(void) {
    void *program = dlopen(NULL, RTLD_LAZY); /* and what it is linked with; not what modules brought */
    int has = !program || dlsym(program, "SSL_CTX_new");

    if (program) dlclose(program);
    return has || Server_IsModuleNameBusy("tls");
}

/* Whether the server makes a context at all: with none of these set it makes none, whatever its certificate is. If that
 * cannot be known it may. */
int mayUseTls(ServerCtx *ctx) {
    static const char *const settings[][2] = {{"tls-port", "0"}, {"tls-replication", "no"}, {"tls-cluster", "no"}};
    char value[SETTING_MAX];
    size_t i;

    for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++) {
        settingResult known = readSetting(ctx, settings[i][0], value);
        if (known == SETTING_UNKNOWN || (known == SETTING_SET && strcmp(value, settings[i][1]) != 0)) return 1;
    }
    return 0;
}

/* A file that the server reads for a context and that is no regular one, a pipe, say: to have it read again would block
 * the server. Returns the setting's name, or NULL. */
const char *irregularFile(ServerCtx *ctx) {
    static const char *const settings[] = {"tls-cert-file",       "tls-key-file",       "tls-client-cert-file",
                                           "tls-client-key-file", "tls-dh-params-file", "tls-ca-cert-file",
                                           "tls-alt-cert-file",   "tls-alt-key-file"};
    char path[SETTING_MAX];
    struct stat st;
    size_t i;

    for (i = 0; i < sizeof(settings) / sizeof(settings[0]); i++)
        if (readSetting(ctx, settings[i], path) == SETTING_SET && stat(path, &st) == 0 && !S_ISREG(st.st_mode))
            return settings[i];
    return NULL;
}

/* Where the server's program has an OpenSSL in it and shows its names, the loader binds this module to those, and to
 * libcrypto for what the program left out. Objects of one must not get into the hands of the other: where it cannot be
 * known, they are taken for two. */
int opensslIsMixed(void) {
    Dl_info one, other;

    return !dladdr((void *)CRYPTO_get_ex_new_index, &one) || !dladdr((void *)OCSP_basic_verify, &other) ||
           one.dli_fbase != other.dli_fbase;
}
