/* ocsp_module_server.c - the module's access to its server: API functions, log, settings and the files that they name.
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

#define CERT_FILE_MAX (1 << 20) /* bytes of a tls-cert-file whose first certificate is compared with a context's */

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

/* The last argument is an empty pass phrase; without it OpenSSL would prompt for one on the terminal. */
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

/* Returns 1 if the server's program contains TLS, or has loaded TLS as a module (BUILD_TLS=module), or cannot be
 * examined. The tls-* settings prove nothing: servers built without TLS have them, too. */
int serverHasTls(void) {
    void *program = dlopen(NULL, RTLD_LAZY); /* with the libraries it is linked to, without those of modules */
    int has = !program || dlsym(program, "SSL_CTX_new");

    if (program) dlclose(program);
    return has || Server_IsModuleNameBusy("tls");
}

/* Returns 1 if the server creates a TLS context, or if its settings cannot be read. With none of these settings on it
 * creates none, whatever its certificate is. */
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

/* Returns the first setting whose TLS file is not a regular file, or NULL. Reading a named pipe, for example, a second
 * time would block the server. */
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

/* Returns 1 if this module is bound to two copies of OpenSSL, or if that cannot be determined. If the server's program
 * contains OpenSSL and exports its symbols, the loader binds the module to those, and to libcrypto for the symbols that
 * the program lacks. Objects of one copy must not be passed to the other. */
int opensslIsMixed(void) {
    Dl_info one, other;

    return !dladdr((void *)CRYPTO_get_ex_new_index, &one) || !dladdr((void *)OCSP_basic_verify, &other) ||
           one.dli_fbase != other.dli_fbase;
}
