/* ocsp_fetch.c - one exchange with one OCSP responder over HTTP, under one deadline (RFC 6960 appendix A, RFC 5019
 * section 5).
 *
 * Sockets never block here: all waiting is done in one poll() that also listens for the thread's wake-up, with
 * milliseconds on the monotonic clock. OpenSSL parses URLs, chooses the proxy and speaks TLS. Its HTTP client is not
 * used: it speaks HTTP/1.0, hides the status, 3.0 refuses what 3.5 accepts, it counts in whole seconds and spends all
 * of them on one dead address. ocsp_http.c reads the answer.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/http.h>
#include <openssl/x509v3.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* the thread blocks SIGPIPE all the same */
#endif

#define OCSP_MAX_ADDRESSES 8 /* of one name that are tried */
#define OCSP_MIME_REQUEST "application/ocsp-request"
#define OCSP_MIME_RESPONSE "application/ocsp-response"

/* One connection, and how long it may take. */
typedef struct ocspConn {
    int fd;
    SSL *ssl;
    const char *host; /* the responder's, as the URL names it */
    int64_t deadline; /* monotonic ms */
    const ocspIoHooks *wait;
    int cancelled;
    ocspError *err;
} ocspConn;

/* What is asked, the same for all addresses. */
typedef struct ocspAsk {
    ocspUrl url, proxy; /* proxy.host NULL: direct */
    char *proxy_auth;   /* base64 of user:password, or NULL */
    const unsigned char *request;
    size_t request_len;
    SSL_CTX *tls; /* NULL for http */
} ocspAsk;

static int64_t ocspMonotonicMs(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void ocspLeave(const ocspIoHooks *wait) {
    if (wait && wait->leave_openssl) wait->leave_openssl();
}

static void ocspEnter(const ocspIoHooks *wait) {
    if (wait && wait->enter_openssl) wait->enter_openssl();
}

/* ---- URLs -------------------------------------------------------------------------------------------------------- */

/* Does no_proxy name the host? As operators know it from other tools: names with their subdomains, a leading dot,
 * "*". */
static int ocspNoProxy(const char *host) {
    const char *list = getenv("no_proxy"), *p;
    size_t host_len = strlen(host), len;

    if (!list) list = getenv("NO_PROXY");
    for (p = list ? list : ""; *p; p += len) {
        p += strspn(p, ", ");
        len = strcspn(p, ", ");
        if (len == 1 && *p == '*') return 1;
        if (len > 0 && *p == '.') {
            p++;
            len--;
        }
        if (len == 0 || len > host_len || strncasecmp(host + host_len - len, p, len) != 0) continue;
        if (len == host_len || host[host_len - len - 1] == '.') return 1;
    }
    return 0;
}

/* The environment variable that names the proxy for this URL. */
static const char *ocspProxyVariable(const ocspAsk *ask) {
    return ask->url.use_tls ? "https_proxy" : "http_proxy";
}

/* Finds the proxy that the environment names for this URL, by OpenSSL's reading of http_proxy and https_proxy. Returns
 * 1, also without a proxy, or 0 with a sentence, which never shows the password. */
static int ocspProxyParse(ocspAsk *ask, ocspError *err) {
    const char *text =
        ocspNoProxy(ask->url.host) ? NULL : OSSL_HTTP_adapt_proxy(NULL, NULL, ask->url.host, ask->url.use_tls);
    size_t len;

    if (!text || !*text) return 1;
    if (!ocspUrlParse(&ask->proxy, text) || ask->proxy.use_tls) /* TLS to the proxy itself: not served */
        return ocspFail(err, OCSP_ERR_NETWORK,
                        "the proxy in the environment variable %s cannot be parsed: write it like "
                        "http://proxy.example.com:3128 (http:// for https responders too)",
                        ocspProxyVariable(ask));
    /* An @ behind the host is the password's: a / ? or # in it ended the host too early. */
    if (!ocspPercentDecode(ask->proxy.user) || strchr(ask->proxy.target, '@'))
        return ocspFail(err, OCSP_ERR_NETWORK,
                        "the user or the password in the environment variable %s is not percent-encoded as a URL "
                        "needs it: write %% as %%25, @ as %%40, : as %%3A, / as %%2F, ? as %%3F and # as %%23",
                        ocspProxyVariable(ask));
    len = strlen(ask->proxy.user);
    if (len == 0) return 1;
    ask->proxy_auth = ocspAlloc((len + 2) / 3 * 4 + 1);
    if (!ask->proxy_auth) return ocspFail(err, OCSP_ERR_NETWORK, "out of memory while asking the proxy");
    EVP_EncodeBlock((unsigned char *)ask->proxy_auth, (unsigned char *)ask->proxy.user, (int)len);
    return 1;
}

/* RFC 6960 appendix A.1: {url}/{percent-encoding of base64 of the request}. A CDN took "//" for another path once: a
 * slash is added only where none stands. Returns ocspAlloc'ed text. */
static char *ocspGetTarget(const char *base, const unsigned char *request, size_t request_len) {
    size_t b64_len = (request_len + 2) / 3 * 4, n = strlen(base), i;
    char *b64 = ocspAlloc(b64_len + 1), *out = ocspAlloc(n + 3 * b64_len + 2);

    if (b64 && out) {
        EVP_EncodeBlock((unsigned char *)b64, request, (int)request_len);
        memcpy(out, base, n);
        if (out[n - 1] != '/') out[n++] = '/';
        for (i = 0; i < b64_len; i++) {
            if (strchr("+/=", b64[i]))
                n += (size_t)sprintf(out + n, "%%%02X", b64[i]);
            else
                out[n++] = b64[i];
        }
    } else {
        ocspFree(out);
        out = NULL;
    }
    ocspFree(b64);
    return out;
}

/* ---- the connection ---------------------------------------------------------------------------------------------- */

/* Waits until the socket is ready for `events`. Returns 1, or 0: the deadline (told) or cancelled. */
static int ocspPoll(ocspConn *c, short events, const char *what) {
    for (;;) {
        struct pollfd fds[2] = {{c->fd, events, 0}, {c->wait ? c->wait->wake_fd : -1, POLLIN, 0}};
        int64_t left = c->deadline - ocspMonotonicMs();
        int n;

        if (left <= 0) return ocspFail(c->err, OCSP_ERR_NETWORK, "no answer in time while %s", what);
        ocspLeave(c->wait);
        n = poll(fds, 2, (int)(left < 60000 ? left : 60000));
        ocspEnter(c->wait);
        if (n > 0 && fds[1].revents && c->wait->cancelled && c->wait->cancelled()) {
            c->cancelled = 1;
            return 0;
        }
        if (n > 0 && fds[0].revents) return 1;
    }
}

/* Why TLS failed, in words. */
static int ocspTlsFail(ocspConn *c, const char *what) {
    long verdict = SSL_get_verify_result(c->ssl);
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (verdict == X509_V_ERR_HOSTNAME_MISMATCH || verdict == X509_V_ERR_IP_ADDRESS_MISMATCH)
        return ocspFail(c->err, OCSP_ERR_NETWORK,
                        "the responder's TLS certificate is not for the name %s: use a name in the URL that stands in "
                        "the certificate, or add this one to the certificate",
                        ocspCleanText(clean, sizeof(clean), c->host));
    if (verdict != X509_V_OK)
        return ocspFail(c->err, OCSP_ERR_NETWORK,
                        "the responder's TLS certificate is not accepted: %s (trusted are the system's roots and "
                        "tls-ca-cert-file)",
                        X509_verify_cert_error_string(verdict));
    return ocspFail(c->err, OCSP_ERR_NETWORK, "TLS failed while %s: %s", what, reason ? reason : "connection closed");
}

/* One step of SSL_connect, SSL_read or SSL_write that returned ret <= 0: 1 to try again, 0 failed, -1 end of data. */
static int ocspTlsAgain(ocspConn *c, int ret, const char *what) {
    int why = SSL_get_error(c->ssl, ret);

    if (why == SSL_ERROR_WANT_READ) return ocspPoll(c, POLLIN, what);
    if (why == SSL_ERROR_WANT_WRITE) return ocspPoll(c, POLLOUT, what);
    if (why == SSL_ERROR_ZERO_RETURN) return -1;
    /* Many servers close without close_notify. The DER tells whether something is missing. */
    if (why == SSL_ERROR_SSL && ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return -1;
    return ocspTlsFail(c, what);
}

static int ocspWrite(ocspConn *c, const void *bytes, size_t len) {
    const char *what = "sending the request", *p = bytes;

    while (len > 0) {
        ssize_t n;
        if (c->ssl) {
            ERR_clear_error();
            n = SSL_write(c->ssl, p, (int)len);
            if (n <= 0 && ocspTlsAgain(c, (int)n, what) <= 0)
                return c->err->text[0] || c->cancelled ? 0
                                                       : ocspFail(c->err, OCSP_ERR_NETWORK, "closed while %s", what);
        } else {
            n = send(c->fd, p, len, MSG_NOSIGNAL);
            if (n < 0 && errno != EAGAIN && errno != EINTR)
                return ocspFail(c->err, OCSP_ERR_NETWORK, "the connection broke while %s: %s", what, strerror(errno));
            if (n < 0 && !ocspPoll(c, POLLOUT, what)) return 0;
        }
        if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 1;
}

/* Reads what is there, 1 to `size` bytes: the number, 0 at the end of data, -1 on failure (told or cancelled). For
 * ocspHttpStart: `conn` is an ocspConn. */
static ssize_t ocspRead(void *conn, void *buf, size_t size) {
    const char *what = "waiting for the answer";
    ocspConn *c = conn;

    for (;;) {
        ssize_t n;
        /* The deadline is looked at here too: a peer that always has a byte ready would never be polled for. */
        if (ocspMonotonicMs() >= c->deadline)
            return ocspFail(c->err, OCSP_ERR_NETWORK, "no complete answer in time") - 1;
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
                return ocspFail(c->err, OCSP_ERR_NETWORK, "the connection broke while %s: %s", what, strerror(errno)) -
                       1;
            if (!ocspPoll(c, POLLIN, what)) return -1;
        }
    }
}

/* A socket that does not block and is not inherited; both at once where the system can. */
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

static int ocspConnect(ocspConn *c, const struct addrinfo *address) {
    int fault = 0;
    socklen_t len = sizeof(fault);

    c->fd = ocspSocket(address->ai_family);
    if (c->fd < 0) return ocspFail(c->err, OCSP_ERR_NETWORK, "no socket can be made: %s", strerror(errno));
    if (connect(c->fd, address->ai_addr, address->ai_addrlen) == 0) return 1;
    if (errno != EINPROGRESS) return ocspFail(c->err, OCSP_ERR_NETWORK, "cannot connect: %s", strerror(errno));
    if (!ocspPoll(c, POLLOUT, "connecting")) return 0;
    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &fault, &len) != 0) fault = errno;
    return fault ? ocspFail(c->err, OCSP_ERR_NETWORK, "cannot connect: %s", strerror(fault)) : 1;
}

/* ---- HTTP -------------------------------------------------------------------------------------------------------- */

/* Whether the HTTP answer comes from, or through, a proxy that reads it: that of a plain responder, outside a tunnel. */
static int ocspViaProxy(const ocspAsk *ask) {
    return ask->proxy.host && !ask->tls;
}

/* Fails because the proxy answered 407. */
static int ocspProxyDenies(const ocspAsk *ask, ocspErrorKind kind, ocspError *err) {
    if (ask->proxy_auth)
        return ocspFail(err, kind,
                        "the proxy does not accept the user and the password in the environment variable %s (HTTP "
                        "status 407): correct them",
                        ocspProxyVariable(ask));
    return ocspFail(err, kind,
                    "the proxy asks for a user and a password (HTTP status 407): write them into the environment "
                    "variable %s like http://user:password@proxy.example.com:3128, percent-encoded",
                    ocspProxyVariable(ask));
}

/* Sends the request. HTTP/1.1, because some servers and proxies refuse HTTP/1.0 (426, 505). `Connection: close` ends
 * the connection after one answer; `Accept-Encoding: identity` asks for no compression, which a request without that
 * field would allow (RFC 9110 section 12.5.3). */
static int ocspSendRequest(ocspConn *c, const ocspAsk *ask, int get) {
    int via_proxy = ocspViaProxy(ask);
    char *get_target = get ? ocspGetTarget(ask->url.target, ask->request, ask->request_len) : NULL;
    const char *target = get ? get_target : ask->url.target;
    size_t size = strlen(ask->url.authority) * 2 + (target ? strlen(target) : 0) + 1024 + ask->request_len +
                  (ask->proxy_auth ? strlen(ask->proxy_auth) : 0);
    char *head = target ? ocspAlloc(size) : NULL;
    int n, ok;

    if (!head) {
        ocspFree(get_target);
        return ocspFail(c->err, OCSP_ERR_NETWORK, "out of memory while asking");
    }
    n = snprintf(head, size,
                 "%s %s%s%s HTTP/1.1\r\nHost: %s\r\nAccept: " OCSP_MIME_RESPONSE "\r\nAccept-Encoding: identity\r\n"
                 "User-Agent: valkey-ocsp\r\nConnection: close\r\n%s%s%s",
                 get ? "GET" : "POST", via_proxy ? "http://" : "", via_proxy ? ask->url.authority : "", target,
                 ask->url.authority, via_proxy && ask->proxy_auth ? "Proxy-Authorization: Basic " : "",
                 via_proxy && ask->proxy_auth ? ask->proxy_auth : "", via_proxy && ask->proxy_auth ? "\r\n" : "");
    if (!get)
        n += snprintf(head + n, size - (size_t)n, "Content-Type: " OCSP_MIME_REQUEST "\r\nContent-Length: %zu\r\n",
                      ask->request_len);
    n += snprintf(head + n, size - (size_t)n, "\r\n");
    /* One write: a responder that answers after the header alone, and closes, would break a second one. */
    if (!get) {
        memcpy(head + n, ask->request, ask->request_len);
        n += (int)ask->request_len;
    }
    ok = ocspWrite(c, head, (size_t)n);
    ocspFree(head);
    ocspFree(get_target);
    return ok;
}

/* RFC 9110 section 9.3.6: a tunnel through the proxy, for https. */
static int ocspTunnel(ocspConn *c, const ocspAsk *ask, ocspHttpReader *reader) {
    char *head;
    size_t size =
        strlen(ask->url.host) * 2 + strlen(ask->url.port) * 2 + 256 + (ask->proxy_auth ? strlen(ask->proxy_auth) : 0);
    const char *open = strchr(ask->url.host, ':') ? "[" : "", *shut = *open ? "]" : "";
    ocspHttpHead answer;
    int n, ok;

    head = ocspAlloc(size);
    if (!head) return ocspFail(c->err, OCSP_ERR_NETWORK, "out of memory while asking the proxy");
    n = snprintf(head, size, "CONNECT %s%s%s:%s HTTP/1.1\r\nHost: %s%s%s:%s\r\n%s%s%s\r\n", open, ask->url.host, shut,
                 ask->url.port, open, ask->url.host, shut, ask->url.port,
                 ask->proxy_auth ? "Proxy-Authorization: Basic " : "", ask->proxy_auth ? ask->proxy_auth : "",
                 ask->proxy_auth ? "\r\n" : "");
    ok = ocspWrite(c, head, (size_t)n);
    ocspFree(head);
    ocspHttpStart(reader, ocspRead, c, c->err);
    if (!ok || !ocspHttpReadHead(reader, &answer)) return 0;
    if (answer.status == 407) return ocspProxyDenies(ask, OCSP_ERR_NETWORK, c->err);
    if (answer.status < 200 || answer.status > 299)
        return ocspFail(c->err, OCSP_ERR_NETWORK,
                        "the proxy refuses the tunnel with HTTP status %d: allow CONNECT to port %s of the responder "
                        "there, or put the responder's host into no_proxy",
                        answer.status, ask->url.port);
    return 1;
}

/* ---- TLS --------------------------------------------------------------------------------------------------------- */

/* Whether a chain was refused because it leads to no trusted certificate. */
static int ocspUntrusted(int error) {
    return error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT || error == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY ||
           error == X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE || error == X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT ||
           error == X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN;
}

/* The system's roots first; what they do not know may be known to tls-ca-cert-file (`store`), where a private CA
 * stands. Of two errors the one of the roots that know the CA is kept. */
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
        /* not among what is copied: without it short keys and old digests would pass */
        X509_VERIFY_PARAM_set_auth_level(X509_STORE_CTX_get0_param(again), SSL_get_security_level(ssl));
        ok = X509_verify_cert(again);
        if (ok > 0 || ocspUntrusted(error)) X509_STORE_CTX_set_error(chain, X509_STORE_CTX_get_error(again));
    }
    X509_STORE_CTX_free(again);
    return ok > 0;
}

static SSL_CTX *ocspTlsContext(X509_STORE *store) {
    SSL_CTX *tls = SSL_CTX_new(TLS_client_method());

    if (!tls) return NULL;
    SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION);
    SSL_CTX_clear_mode(tls, SSL_MODE_AUTO_RETRY); /* a peer that sends tickets for ever must not keep SSL_read inside */
    SSL_CTX_set_default_verify_paths(tls);        /* a machine without roots still has `store` */
    SSL_CTX_set_verify(tls, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_cert_verify_callback(tls, ocspVerifyResponderChain, store);
    return tls;
}

static int ocspTlsConnect(ocspConn *c, const ocspAsk *ask) {
    X509_VERIFY_PARAM *param;
    int ret;

    c->ssl = SSL_new(ask->tls);
    if (!c->ssl || !SSL_set_fd(c->ssl, c->fd))
        return ocspFail(c->err, OCSP_ERR_NETWORK, "out of memory while starting TLS");
    param = SSL_get0_param(c->ssl);
    if (!X509_VERIFY_PARAM_set1_ip_asc(param, ask->url.host)) { /* a name, not an address */
        if (!X509_VERIFY_PARAM_set1_host(param, ask->url.host, 0) || !SSL_set_tlsext_host_name(c->ssl, ask->url.host))
            return ocspFail(c->err, OCSP_ERR_NETWORK, "the responder's name cannot be checked");
    }
    for (;;) {
        int again;
        ERR_clear_error();
        ret = SSL_connect(c->ssl);
        if (ret == 1) return 1;
        again = ocspTlsAgain(c, ret, "starting TLS");
        if (again < 0) return ocspTlsFail(c, "starting TLS");
        if (again == 0) return 0;
    }
}

/* ---- the exchange ------------------------------------------------------------------------------------------------ */

/* One request to one address. *status is that of the answer, 0 when there was none. */
static ocspFetchResult ocspExchange(const ocspAsk *ask, const struct addrinfo *address, int get, int64_t deadline,
                                    const ocspIoHooks *wait, unsigned char **body, size_t *body_len, int *status,
                                    ocspError *err) {
    ocspConn c = {-1, NULL, ask->url.host, deadline, wait, 0, err};
    ocspHttpReader *reader = ocspAlloc(sizeof(*reader));
    ocspHttpHead head;
    int ok;

    *status = 0;
    memset(err, 0, sizeof(*err));
    ok = reader ? 1 : ocspFail(err, OCSP_ERR_NETWORK, "out of memory while asking");
    ok = ok && ocspConnect(&c, address);
    if (ask->tls) ok = ok && (!ask->proxy.host || ocspTunnel(&c, ask, reader)) && ocspTlsConnect(&c, ask);
    ok = ok && ocspSendRequest(&c, ask, get);
    if (ok) ocspHttpStart(reader, ocspRead, &c, err);
    ok = ok && ocspHttpReadHead(reader, &head);
    if (ok) *status = head.status;
    if (ok && head.status == 407 && ocspViaProxy(ask)) ok = ocspProxyDenies(ask, OCSP_ERR_HTTP, err);
    ok = ok && ocspHttpCheckHead(&head, err) && ocspHttpReadBody(reader, &head, body, body_len);
    SSL_free(c.ssl);
    if (c.fd >= 0) close(c.fd);
    ocspFree(reader);
    return ok ? OCSP_FETCH_OK : c.cancelled ? OCSP_FETCH_CANCELLED : OCSP_FETCH_FAILED;
}

/* Prefixes the sentence with where it happened: the address when the name has several, and the proxy. */
static void ocspLogWhere(const ocspAsk *ask, const struct addrinfo *address, int several, ocspError *err) {
    char reason[OCSP_SENTENCE_MAX], host[NI_MAXHOST] = "?", clean[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (!several && !ask->proxy.host) return;
    if (address) getnameinfo(address->ai_addr, address->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
    memcpy(reason, err->text, sizeof(reason));
    snprintf(err->text, sizeof(err->text), "%s%.100s%s%.5s%s%s%.46s: %.320s",
             ask->proxy.host ? "through the proxy " : "",
             ask->proxy.host ? ocspCleanText(clean, sizeof(clean), ask->proxy.host) : "", ask->proxy.host ? ":" : "",
             ask->proxy.host ? ask->proxy.port : "", several && ask->proxy.host ? " " : "", several ? "at " : "",
             several ? host : "", reason);
}

/* Asks the addresses of the name in turn. Each gets an equal share of the time that is left, so that one that is
 * dead, or alive and silent, leaves time for the next (an address without a route stalled HAProxy). Whoever answers
 * ends it. */
static ocspFetchResult ocspAskAddresses(const ocspAsk *ask, const struct addrinfo *addresses, int64_t deadline,
                                        const ocspIoHooks *wait, unsigned char **body, size_t *body_len,
                                        ocspError *err) {
    const struct addrinfo *a;
    int left = 0, several, status;
    ocspFetchResult result = OCSP_FETCH_FAILED;

    for (a = addresses; a && left < OCSP_MAX_ADDRESSES; a = a->ai_next) left++;
    several = left > 1;
    for (a = addresses; a && left > 0; a = a->ai_next, left--) {
        int64_t now = ocspMonotonicMs(), share = now + (deadline - now) / left;
        result = ocspExchange(ask, a, 0, share, wait, body, body_len, &status, err);
        /* The responder refuses POST: some know only GET (RFC 5019 section 5). Never after silence: that would double
         * the time that a dead responder takes. Nor after a proxy's 407: a second wrong password may lock the user
         * out. */
        if (result == OCSP_FETCH_FAILED && err->kind == OCSP_ERR_HTTP && !(status == 407 && ocspViaProxy(ask)) &&
            ((status >= 400 && status < 500) || status == 501)) {
            int posted = status;
            char reason[OCSP_SENTENCE_MAX];
            result = ocspExchange(ask, a, 1, share, wait, body, body_len, &status, err);
            memcpy(reason, err->text, sizeof(reason));
            if (result == OCSP_FETCH_FAILED)
                snprintf(err->text, sizeof(err->text), "HTTP status %d to POST, and to GET: %.440s", posted, reason);
        }
        if (result == OCSP_FETCH_FAILED) ocspLogWhere(ask, a, several, err);
        if (result != OCSP_FETCH_FAILED || err->kind != OCSP_ERR_NETWORK) return result;
    }
    return result;
}

ocspFetchResult ocspFetch(const char *url, const unsigned char *request, size_t request_len, X509_STORE *store,
                          int64_t timeout_ms, const ocspIoHooks *wait, unsigned char **body, size_t *body_len,
                          ocspError *err) {
    int64_t deadline;
    ocspAsk ask;
    struct addrinfo hints, *addresses = NULL;
    ocspFetchResult result = OCSP_FETCH_FAILED;
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    const ocspUrl *peer;
    int fault, saved;

    *body = NULL;
    *body_len = 0;
    memset(&ask, 0, sizeof(ask));
    memset(err, 0, sizeof(*err));
    ERR_set_mark();
    ask.request = request;
    ask.request_len = request_len;
    if (!ocspUrlParse(&ask.url, url)) {
        ocspFail(err, OCSP_ERR_NETWORK, "the URL cannot be parsed");
        goto done;
    }
    if (!ocspProxyParse(&ask, err)) goto done;
    if (ask.url.use_tls && !(ask.tls = ocspTlsContext(store))) {
        ocspFail(err, OCSP_ERR_NETWORK, "out of memory while starting TLS");
        goto done;
    }
    peer = ask.proxy.host ? &ask.proxy : &ask.url;
    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    ocspLeave(wait);
    fault = getaddrinfo(peer->host, peer->port, &hints, &addresses);
    saved = errno;
    ocspEnter(wait);
    if (fault) {
        ocspFail(err, OCSP_ERR_NETWORK, "the name %s cannot be resolved: %s",
                 ocspCleanText(clean, sizeof(clean), peer->host),
                 fault == EAI_SYSTEM ? strerror(saved) : gai_strerror(fault));
        goto done;
    }
    /* The clock starts here: how long a look-up takes is the system resolver's setting, and it must not use up the
     * responder's time. */
    deadline = ocspMonotonicMs() + timeout_ms;
    result = ocspAskAddresses(&ask, addresses, deadline, wait, body, body_len, err);
done:
    if (addresses) freeaddrinfo(addresses);
    SSL_CTX_free(ask.tls);
    ocspUrlClear(&ask.url);
    ocspUrlClear(&ask.proxy);
    ocspFree(ask.proxy_auth);
    ERR_pop_to_mark();
    return result;
}

#endif /* OCSP_SUPPORTED */
