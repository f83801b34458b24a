/* tls_peer.c - a TLS server that staples any bytes, for suites in which a client or a server checks the staple. The
 * product would never send most of these staples.
 *
 *   tls_peer --cert FILE --key FILE --staple FILE [--tls 1.2|1.3] [--for leaf|ca]
 *
 * The staple is read from FILE at each handshake; without the file there is none. Listens on a free port of 127.0.0.1 and
 * offers to resume sessions. --for ca: the staple is for the certificate above the peer's; OpenSSL before 3.6 cannot send
 * it there, and sends it as the peer's. Prints "port=N openssl=HEX", then a line for each connection:
 *
 *   done=0|1 asked=0|1 reused=0|1 hello=LENGTH:EXTENSION,...
 *
 * done: the client completed the handshake and sent something (commands, which are answered with errors); asked: it
 * requested a status; reused: it resumed a session; hello: the length of the ClientHello in bytes and the numbers of its
 * extensions. SIGTERM ends the server, but not open connections: each has a process of its own.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <arpa/inet.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/ssl.h>

#define CLIENT_TIMEOUT_S 10 /* for a client that sends nothing */

static const char *staple_file, *staple_for = "leaf";
static int asked;
static size_t hello_length;
static char extensions[1024];

/* Hands `n` bytes to OpenSSL, which then owns them. Returns 0, and the caller owns them, if it does not take them. */
static int setStaple(SSL *ssl, unsigned char *bytes, size_t n) {
#ifdef SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP_EX
    const unsigned char *p = bytes;
    STACK_OF(OCSP_RESPONSE) *chain;

    if (!strcmp(staple_for, "ca")) {
        chain = sk_OCSP_RESPONSE_new_null();
        if (!sk_OCSP_RESPONSE_push(chain, NULL) ||
            !sk_OCSP_RESPONSE_push(chain, d2i_OCSP_RESPONSE(NULL, &p, (long)n)) ||
            !SSL_set0_tlsext_status_ocsp_resp_ex(ssl, chain))
            return 0;
        OPENSSL_free(bytes);
        return 1;
    }
#endif
    return (int)SSL_set_tlsext_status_ocsp_resp(ssl, bytes, (long)n);
}

static int onStatus(SSL *ssl, void *unused) {
    FILE *f = fopen(staple_file, "rb");
    unsigned char *bytes = OPENSSL_malloc(70000);
    size_t n = f && bytes ? fread(bytes, 1, 70000, f) : 0;

    (void)unused;
    asked = 1;
    if (f) fclose(f);
    if (f && n && setStaple(ssl, bytes, n)) return SSL_TLSEXT_ERR_OK;
    OPENSSL_free(bytes);
    return SSL_TLSEXT_ERR_NOACK;
}

static int onHello(SSL *ssl, int *alert, void *unused) {
    int *types = NULL;
    size_t count = 0, used = 0, i;

    (void)alert;
    (void)unused;
    extensions[0] = '\0';
    if (!SSL_client_hello_get1_extensions_present(ssl, &types, &count)) return SSL_CLIENT_HELLO_SUCCESS;
    for (i = 0; i < count && used < sizeof(extensions) - 8; i++)
        used += (size_t)snprintf(extensions + used, sizeof(extensions) - used, "%s%d", i ? "," : "", types[i]);
    OPENSSL_free(types);
    return SSL_CLIENT_HELLO_SUCCESS;
}

static void onMessage(int sent, int version, int type, const void *bytes, size_t len, SSL *ssl, void *unused) {
    (void)version;
    (void)ssl;
    (void)unused;
    if (!sent && type == SSL3_RT_HANDSHAKE && len > 0 && *(const unsigned char *)bytes == SSL3_MT_CLIENT_HELLO)
        hello_length = len;
}

static int die(const char *what) {
    fprintf(stderr, "tls_peer: %s\n", what);
    ERR_print_errors_fp(stderr);
    return 1;
}

int main(int argc, char **argv) {
    const char *cert = NULL, *key = NULL, *tls = "";
    struct sockaddr_in name = {.sin_family = AF_INET};
    socklen_t len = sizeof(name);
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    int listener, i;

    for (i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--cert")) cert = argv[i + 1];
        if (!strcmp(argv[i], "--key")) key = argv[i + 1];
        if (!strcmp(argv[i], "--staple")) staple_file = argv[i + 1];
        if (!strcmp(argv[i], "--tls")) tls = argv[i + 1];
        if (!strcmp(argv[i], "--for")) staple_for = argv[i + 1];
    }
    if (!cert || !key || !staple_file) return die("usage: see the head of tls_peer.c");
    if (SSL_CTX_use_certificate_chain_file(ctx, cert) != 1 ||
        SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) != 1)
        return die("the certificate or key cannot be used");
    if (*tls) {
        SSL_CTX_set_min_proto_version(ctx, strcmp(tls, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION);
        SSL_CTX_set_max_proto_version(ctx, strcmp(tls, "1.2") ? TLS1_3_VERSION : TLS1_2_VERSION);
    }
    SSL_CTX_set_session_id_context(ctx, (const unsigned char *)"peer", 4);
    SSL_CTX_set_tlsext_status_cb(ctx, onStatus);
    SSL_CTX_set_client_hello_cb(ctx, onHello, NULL);
    SSL_CTX_set_msg_callback(ctx, onMessage);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGTERM); /* ends with the suite, even if that is killed */
    signal(SIGCHLD, SIG_IGN);
    name.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listener = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(listener, (struct sockaddr *)&name, sizeof(name)) || listen(listener, 64) ||
        getsockname(listener, (struct sockaddr *)&name, &len))
        return die("cannot listen");
    printf("port=%d openssl=%lx\n", ntohs(name.sin_port), OpenSSL_version_num());
    fflush(stdout);
    for (;;) {
        struct timeval timeout = {CLIENT_TIMEOUT_S, 0};
        int fd = accept(listener, NULL, NULL), done = 0;
        char bytes[16384];
        SSL *ssl;

        if (fd < 0) continue;
        /* A process per connection: some clients open a second one for the status, and use the first one later. */
        if (fork() != 0) {
            close(fd);
            continue;
        }
        close(listener);
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
        ssl = SSL_new(ctx);
        SSL_set_fd(ssl, fd);
        asked = 0;
        hello_length = 0;
        if (SSL_accept(ssl) == 1) done = SSL_read(ssl, bytes, sizeof(bytes)) > 0;
        /* Replies to MIGRATE's SELECT and RESTORE, so that it does not try again. */
        if (done) SSL_write(ssl, "-ERR no\r\n-ERR no\r\n", 18);
        printf("done=%d asked=%d reused=%d hello=%zu:%s\n", done, asked, SSL_session_reused(ssl), hello_length,
               extensions);
        fflush(stdout);
        if (done) SSL_shutdown(ssl);
        return 0;
    }
}
