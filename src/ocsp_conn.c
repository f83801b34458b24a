/* ocsp_conn.c - one connection to a responder or a proxy, with or without TLS, under one deadline.
 *
 * Sockets are non-blocking. All waiting is in one poll(), which also watches the OCSP thread's wake-up pipe; times are
 * milliseconds on the monotonic clock.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* the OCSP thread blocks SIGPIPE anyway */
#endif

int64_t ocspConnNowMs(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

/* Waits until the socket is ready for `events`. Returns 1, or 0 after the deadline (with a sentence in *err) or when
 * cancelled. Releases the OpenSSL lock during the wait. */
static int ocspPoll(ocspConn *c, short events, const char *what) {
    for (;;) {
        struct pollfd fds[2] = {{c->fd, events, 0}, {c->io ? c->io->wake_fd : -1, POLLIN, 0}};
        int64_t left = c->deadline - ocspConnNowMs();
        int n;

        if (left <= 0) return ocspFail(c->err, OCSP_FAIL_TIMEOUT, "no answer in time while %s", what);
        ocspLeaveOpenSSL(c->io);
        n = poll(fds, 2, (int)(left < 60000 ? left : 60000));
        ocspEnterOpenSSL(c->io);
        if (n > 0 && fds[1].revents && c->io->cancelled && c->io->cancelled()) {
            c->cancelled = 1;
            return 0;
        }
        if (n > 0 && fds[0].revents) return 1;
    }
}

/* Fails with the reason of a TLS failure. OpenSSL's error queue was empty before the failed call. */
static int ocspTlsFail(ocspConn *c, const char *what) {
    long verdict = SSL_get_verify_result(c->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (verdict == X509_V_ERR_HOSTNAME_MISMATCH || verdict == X509_V_ERR_IP_ADDRESS_MISMATCH)
        ocspFail(c->err, OCSP_FAIL_TLS,
                 "the responder's TLS certificate is not valid for the name %s: use a URL with a name that the "
                 "certificate has, or add this name to the certificate",
                 ocspCleanText(clean, sizeof(clean), c->host));
    else if (verdict != X509_V_OK)
        ocspFail(c->err, verdict == X509_V_ERR_OUT_OF_MEM ? OCSP_FAIL_MEMORY : OCSP_FAIL_TLS,
                 "the responder's TLS certificate is not accepted: %s (the system's roots and tls-ca-cert-file are "
                 "trusted)",
                 X509_verify_cert_error_string(verdict));
    else /* without an error of OpenSSL's the connection ended: after the handshake that is no failure of TLS */
        ocspFail(c->err, !reason && c->tls_done ? OCSP_FAIL_CLOSED : OCSP_FAIL_TLS, "TLS failed while %s: %s", what,
                 reason ? reason : "connection closed");
    ocspBlameMemory(c->err, 1, what);
    return 0;
}

/* Handles a result <= 0 of SSL_connect, SSL_read or SSL_write. Returns 1: try again, 0: failed, -1: end of data. */
static int ocspTlsAgain(ocspConn *c, int ret, const char *what) {
    int why = SSL_get_error(c->ssl, ret);

    if (why == SSL_ERROR_WANT_READ) return ocspPoll(c, POLLIN, what);
    if (why == SSL_ERROR_WANT_WRITE) return ocspPoll(c, POLLOUT, what);
    if (why == SSL_ERROR_ZERO_RETURN) return -1;
    /* Many servers close without close_notify. A truncated response is detected by its length and its DER. */
    if (why == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return -1;
    return ocspTlsFail(c, what);
}

int ocspConnWrite(ocspConn *c, const void *bytes, size_t len) {
    const char *what = "sending the request", *p = bytes;

    while (len > 0) {
        ssize_t n;
        if (c->ssl) {
            ERR_clear_error();
            n = SSL_write(c->ssl, p, (int)len);
            if (n <= 0 && ocspTlsAgain(c, (int)n, what) <= 0)
                return c->err->text[0] || c->cancelled ? 0
                                                       : ocspFail(c->err, OCSP_FAIL_CLOSED, "closed while %s", what);
        } else {
            n = send(c->fd, p, len, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                return ocspFail(c->err, OCSP_FAIL_CLOSED, "the connection broke while %s: %s", what, strerror(errno));
            if (n < 0 && !ocspPoll(c, POLLOUT, what)) return 0;
        }
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 1;
}

ssize_t ocspConnRead(void *conn, void *buf, size_t size) {
    const char *what = "waiting for the answer";
    ocspConn *c = conn;

    for (;;) {
        ssize_t n;
        /* The deadline is checked here too: if the other end always has a byte ready, ocspPoll is never called. */
        if (ocspConnNowMs() >= c->deadline)
            return ocspFail(c->err, OCSP_FAIL_TIMEOUT, "no complete answer in time") - 1;
        if (c->ssl) {
            int again;
            ERR_clear_error();
            n = SSL_read(c->ssl, buf, (int)size);
            if (n > 0) return n;
            again = ocspTlsAgain(c, (int)n, what);
            if (again <= 0) return again < 0 ? 0 : -1;
        } else {
            n = recv(c->fd, buf, size, 0);
            if (n >= 0) return n;
            if (errno != EAGAIN && errno != EINTR)
                return ocspFail(c->err, OCSP_FAIL_CLOSED, "the connection broke while %s: %s", what, strerror(errno)) -
                       1;
            if (!ocspPoll(c, POLLIN, what)) return -1;
        }
    }
}

/* Creates a non-blocking socket that child processes do not inherit, atomically where the system can. */
static int ocspSocket(int family) {
#if defined(SOCK_NONBLOCK) && defined(SOCK_CLOEXEC)
    return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
#else
    int fd = socket(family, SOCK_STREAM, 0);

    if (fd >= 0 && (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 || fcntl(fd, F_SETFL, O_NONBLOCK) != 0)) {
        close(fd);
        fd = -1;
    }
    return fd;
#endif
}

int ocspConnOpen(ocspConn *c, const struct addrinfo *address) {
    int fault = 0;
    socklen_t len = sizeof(fault);

    c->fd = ocspSocket(address->ai_family);
    if (c->fd < 0) return ocspFail(c->err, OCSP_FAIL_CONNECT, "cannot create a socket: %s", strerror(errno));
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) == 0) return 1;
    if (errno != EINPROGRESS) return ocspFail(c->err, OCSP_FAIL_CONNECT, "cannot connect: %s", strerror(errno));
    if (!ocspPoll(c, POLLOUT, "connecting")) return 0;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &fault, &len) != 0) fault = errno;
    return fault ? ocspFail(c->err, OCSP_FAIL_CONNECT, "cannot connect: %s", strerror(fault)) : 1;
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

/* Whether a chain was rejected because it leads to no trusted certificate. */
static int ocspUntrusted(int error) {
    return error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT || error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
           error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE || error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT ||
           error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN;
}

/* Verifies the responder's chain, first with the system's roots, then with tls-ca-cert-file (`store`), which has a
 * private CA. If both fail, the roots' error is reported, unless they do not have the CA. */
static int ocspVerifyResponderChain(X509_STORE_CTX *chain, void *store) {
    X509_STORE_CTX *again;
    SSL *ssl = X509_STORE_CTX_get_ex_data(chain, SSL_get_ex_data_X509_STORE_CTX_idx());
    int ok = X509_verify_cert(chain), error = X509_STORE_CTX_get_error(chain);

    if (ok > 0 || !store) return ok > 0;
    again = X509_STORE_CTX_new();
    if (again &&
        X509_STORE_CTX_init(again, store, X509_STORE_CTX_get0_cert(chain), X509_STORE_CTX_get0_untrusted(chain)) &&
        X509_STORE_CTX_set_default(again, "ssl_server") &&
        X509_VERIFY_PARAM_set1(X509_STORE_CTX_get0_param(again), SSL_get0_param(ssl))) {
        /* not among the copied parameters: without it short keys and weak digests would pass */
        X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(again), SSL_get_security_level(ssl));
        ok = X509_verify_cert(again);
        if (ok > 0 || ocspUntrusted(error)) X509_STORE_CTX_set_error(chain, X509_STORE_CTX_get_error(again));
    }
    X509_STORE_CTX_free(again);
    return ok > 0;
}

SSL_CTX *ocspTlsContext(X509_STORE *store) {
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());

    if (!tls) return NULL;
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_clear_mode(tls, SSL_MODE_AUTO_RETRY); /* endless session tickets must not keep SSL_read busy */
    SSL_CTX_set_default_verify_paths(tls);        /* a system without roots still has `store` */
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(tls, ocspVerifyResponderChain, store);
    return tls;
}

int ocspConnTls(ocspConn *c, SSL_CTX *tls) {
    X509_VERIFY_PARAM *param;
    int ret;

    c->ssl = SSL_new(tls);
    if (!c->ssl || !SSL_set_fd(c->ssl, c->fd))
        return ocspFail(c->err, OCSP_FAIL_MEMORY, "out of memory while starting TLS");
    param = SSL_get0_param(c->ssl);
    if (!X509_VERIFY_PARAM_set1_ip_asc(param, c->host)) { /* not an IP address, so a name */
        if (!X509_VERIFY_PARAM_set1_host(param, c->host, 0) || !SSL_set_tlsext_host_name(c->ssl, c->host))
            return ocspFail(c->err, OCSP_FAIL_TLS, "the responder's name cannot be checked");
    }
    for (;;) {
        int again;
        ERR_clear_error();
        ret = SSL_connect(c->ssl);
        if (ret == 1) return c->tls_done = 1;
        again = ocspTlsAgain(c, ret, "starting TLS");
        if (again < 0) return ocspTlsFail(c, "starting TLS");
        if (again == 0) return 0;
    }
}

void ocspConnClose(ocspConn *c) {
    SSL_free(c->ssl);
    if (c->fd >= 0) close(c->fd);
    c->ssl = NULL;
    c->fd = -1;
}

#endif /* OCSP_SUPPORTED */
