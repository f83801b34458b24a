/* ocsp_module_server.c - the module's access to its server: API functions, log, settings and the files that they name.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_module.h"
#include <dlfcn.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
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

/* ---- the server's OpenSSL ---------------------------------------------------------------------------------------- */

/* Finds the server's TLS module (BUILD_TLS=module) among the loaded objects; copies its path to `path`. */
static int findTlsModule(struct dl_phdr_info *object, size_t size, void *path) {
    const char *name = strrchr(object->dlpi_name, '/');

    (void)size;
    if (!name || (strcmp(name, "/valkey-tls.so") != 0 && strcmp(name, "/redis-tls.so") != 0)) return 0;
    snprintf(path, SETTING_MAX, "%s", object->dlpi_name);
    return 1;
}

/* Returns 1, with what it is part of in *where, if the server can call the libssl function `name`: if its program, a
 * library that the program is linked to, or the server's TLS module has it. */
static int serverFunction(const char *name, Dl_info *where) {
    char path[SETTING_MAX] = "";
    void *object = dlopen(NULL, RTLD_LAZY), *function = object ? dlsym(object, name) : NULL;
    int found;

    if (!function && dl_iterate_phdr(findTlsModule, path)) {
        if (object) dlclose(object);
        object = dlopen(path, RTLD_LAZY | RTLD_NOLOAD);
        function = object ? dlsym(object, name) : NULL;
    }
    found = function && dladdr(function, where);
    if (object) dlclose(object); /* it stays loaded, as the server uses it */
    return found;
}

/* Returns 1 if this module and the server use different copies of OpenSSL, or if that cannot be determined: objects of
 * one copy must not be passed to the other. Either the module brought its own libssl (that of another major version,
 * for example), or the server's program contains OpenSSL and exports its symbols: then the loader binds the module to
 * those, and to libcrypto for the symbols that the program lacks. Compared is a function that preloaded libraries do
 * not replace, as some replace SSL_CTX_new. */
int opensslIsMixed(void) {
    Dl_info one, other, own;

    return !dladdr((void *)CRYPTO_get_ex_new_index, &one) || !dladdr((void *)OCSP_basic_verify, &other) ||
           !dladdr((void *)SSL_CTX_get_cert_store, &own) || one.dli_fbase != other.dli_fbase ||
           (serverFunction("SSL_CTX_get_cert_store", &other) && own.dli_fbase != other.dli_fbase);
}

/* Returns the name of a library's file without its directory. */
static const char *fileName(const char *path) {
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

const char *foreignOpenssl(void) {
    static const char library[] = "libssl.so.", unseen[] = "the server's TLS context cannot be seen, because";
    static char sentence[OCSP_SENTENCE_MAX];
    Dl_info own, theirs;
    int known = dladdr((void *)SSL_CTX_get_cert_store, &own) && serverFunction("SSL_CTX_get_cert_store", &theirs) &&
                own.dli_fbase != theirs.dli_fbase;

    if (known && strncmp(fileName(theirs.dli_fname), library, strlen(library)) == 0) {
        const char *name = fileName(theirs.dli_fname);
        snprintf(sentence, sizeof(sentence),
                 "%s the server uses %s, and this module is linked to %s. Install the package of this module that "
                 "depends on %s (Debian's package is libssl%s), or build the module with the headers of that OpenSSL",
                 unseen, theirs.dli_fname, fileName(own.dli_fname), name, name + strlen(library));
        return sentence;
    }
    /* The loader binds the module to the program's functions, if the program exports them. */
    if (!known)
        known = dladdr((void *)CRYPTO_get_ex_new_index, &theirs) && dladdr((void *)OCSP_basic_verify, &own) &&
                own.dli_fbase != theirs.dli_fbase;
    if (known)
        snprintf(sentence, sizeof(sentence),
                 "%s the server's OpenSSL is linked statically, into %s. Build a patched server instead", unseen,
                 theirs.dli_fname);
    else
        snprintf(sentence, sizeof(sentence),
                 "%s the server's OpenSSL is not the one that this module uses. Build a patched server instead",
                 unseen);
    return sentence;
}
