/* other_module.c - another module in the same server, with TLS connections of its own (like a module that queries a
 * directory server). Its use of OpenSSL must not be mistaken for the server's.
 *
 *   loadmodule other_module.so CERT KEY
 *
 * Creates an SSL_CTX with that certificate when it is loaded. Contexts are never freed, and have ex_data. Commands:
 *
 *   OTHER.CONTEXT                          creates another context, on the main thread
 *   OTHER.LISTEN main|thread [CERT KEY]    creates a context on that thread, with another certificate if one is given, and a
 *                                          TLS listener with it on 127.0.0.1; returns the port
 *   OTHER.FORK COUNT                       forks COUNT times while two threads create and free contexts; each child frees
 *                                          one. Returns how many children hung for ten seconds; stops at the third
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "../../deps/server_module_api.h"
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <openssl/ssl.h>

SERVER_FUNCTIONS(SERVER_STATIC_POINTER)
SERVER_DEFINE_LOADER(static)

typedef struct listener {
    char cert[4096], key[4096];
    SSL_CTX *ctx; /* NULL: the thread creates it */
    int fd;
} listener;

static char cert[4096], key[4096];
static int slot;
static atomic_int churning;

static SSL_CTX *makeContext(const char *cert_file, const char *key_file) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_method());

    if (ctx && SSL_CTX_use_certificate_file(ctx, cert_file, SSL_FILETYPE_PEM) == 1 &&
        SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) == 1 && SSL_CTX_set_ex_data(ctx, slot, &slot) == 1)
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

static int contextCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    (void)argv;
    (void)argc;
    return makeContext(cert, key) ? Server_ReplyWithSimpleString(ctx, "OK")
                                  : Server_ReplyWithError(ctx, "ERR no context");
}

/* ---- a listener -------------------------------------------------------------------------------------------------- */

/* Thread: makes one handshake after the other. */
static void *serve(void *arg) {
    listener *l = arg;

    if (!l->ctx) l->ctx = makeContext(l->cert, l->key);
    while (l->ctx) {
        int fd = accept(l->fd, NULL, NULL);
        struct timeval timeout = {10, 0};
        SSL *ssl = fd >= 0 ? SSL_new(l->ctx) : NULL;

        if (fd < 0) break;
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        if (ssl && SSL_set_fd(ssl, fd) == 1 && SSL_accept(ssl) == 1) {
            char byte;
            while (SSL_read(ssl, &byte, 1) > 0) continue; /* until the client has received the whole handshake */
            SSL_shutdown(ssl);
        }
        SSL_free(ssl);
        close(fd);
    }
    return NULL;
}

static int listenCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    listener *l;
    pthread_t thread;
    char port[16];

    if (argc != 2 && argc != 4) return Server_WrongArity(ctx);
    l = calloc(1, sizeof(*l)); /* never freed: the listener exists until the server ends */
    if (!l) return Server_ReplyWithError(ctx, "ERR no memory");
    snprintf(l->cert, sizeof(l->cert), "%s", argc == 4 ? Server_StringPtrLen(argv[2], NULL) : cert);
    snprintf(l->key, sizeof(l->key), "%s", argc == 4 ? Server_StringPtrLen(argv[3], NULL) : key);
    if (strcmp(Server_StringPtrLen(argv[1], NULL), "main") == 0 && !(l->ctx = makeContext(l->cert, l->key))) {
        free(l);
        return Server_ReplyWithError(ctx, "ERR no context");
    }
    l->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(l->fd, (struct sockaddr *)&address, sizeof(address)) != 0 || listen(l->fd, 16) != 0 ||
        getsockname(l->fd, (struct sockaddr *)&address, &len) != 0 || pthread_create(&thread, NULL, serve, l) != 0) {
        free(l);
        return Server_ReplyWithError(ctx, "ERR no listener");
    }
    snprintf(port, sizeof(port), "%d", ntohs(address.sin_port));
    return Server_ReplyWithSimpleString(ctx, port);
}

/* ---- forks ------------------------------------------------------------------------------------------------------- */

static void *churn(void *unused) {
    (void)unused;
    while (atomic_load(&churning)) SSL_CTX_free(SSL_CTX_new(TLS_method()));
    return NULL;
}

/* The module under test keeps a list of contexts that the main thread creates within one iteration of the event loop.
 * With a long list, freeing a context of another thread takes longer. */
#define LISTED 3000

static int forkCommand(ServerCtx *ctx, ServerString **argv, int argc) {
    static SSL_CTX *listed[LISTED];
    int i, status, hung = 0, count = argc == 2 ? atoi(Server_StringPtrLen(argv[1], NULL)) : 0;
    pthread_t threads[2];
    char text[16];

    for (i = 0; i < LISTED; i++) listed[i] = SSL_CTX_new(TLS_method());
    atomic_store(&churning, 1);
    for (i = 0; i < 2; i++) pthread_create(&threads[i], NULL, churn, NULL);
    for (i = 0; i < count && hung < 3; i++) {
        pid_t child = fork();
        if (child == 0) {
            signal(SIGALRM, SIG_DFL);
            alarm(10);
            SSL_CTX_free(listed[0]);
            _exit(0);
        }
        if (child < 0 || waitpid(child, &status, 0) != child || !WIFEXITED(status)) hung++;
    }
    atomic_store(&churning, 0);
    for (i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    for (i = 0; i < LISTED; i++) SSL_CTX_free(listed[i]);
    snprintf(text, sizeof(text), "%d", hung);
    return Server_ReplyWithSimpleString(ctx, text);
}

int RedisModule_OnLoad(ServerCtx *ctx, ServerString **argv, int argc) {
    if (serverLoadApi(ctx) || argc != 2) return SERVER_ERR;
    Server_SetModuleAttribs(ctx, "other", 1, SERVER_API_VERSION);
    snprintf(cert, sizeof(cert), "%s", Server_StringPtrLen(argv[0], NULL));
    snprintf(key, sizeof(key), "%s", Server_StringPtrLen(argv[1], NULL));
    slot = CRYPTO_get_ex_new_index(CRYPTO_EX_INDEX_SSL_CTX, 0, NULL, NULL, NULL, NULL);
    if (slot < 0 || !makeContext(cert, key)) return SERVER_ERR;
    return Server_CreateCommand(ctx, "other.context", contextCommand, "readonly", 0, 0, 0) == SERVER_OK &&
                   Server_CreateCommand(ctx, "other.listen", listenCommand, "readonly", 0, 0, 0) == SERVER_OK &&
                   Server_CreateCommand(ctx, "other.fork", forkCommand, "readonly", 0, 0, 0) == SERVER_OK
               ? SERVER_OK
               : SERVER_ERR;
}
