/* ocsp_fetch.c - one exchange with one OCSP responder over HTTP, under one deadline (RFC 6960 appendix A, RFC 5019
 * section 5).
 *
 * OpenSSL parses URLs, selects the proxy and does TLS. Its HTTP client is not used: it speaks HTTP/1.0, hides the
 * status, rejects in 3.0 what 3.5 accepts, counts whole seconds, and spends all of them on one dead address.
 * ocsp_conn.c is the connection, ocsp_http.c reads the response.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <openssl/err.h>
#include <openssl/http.h>

#define OCSP_MAX_ADDRESSES 8 /* tried per host */
#define OCSP_MIME_REQUEST "application/ocsp-request"
#define OCSP_MIME_RESPONSE "application/ocsp-response"

/* The request, the same for all addresses, and the HTTP response. */
typedef struct ocspAsk {
    const ocspExchange *exchange;
    ocspUrl url, proxy;  /* proxy.host NULL: no proxy */
    char *proxy_auth;    /* base64 of user:password, or NULL */
    SSL_CTX *tls;        /* NULL for http */
    int status;          /* HTTP status of the last response, 0: none */
    unsigned char *body; /* owned until ocspFetch returns it */
    size_t body_len;
    char proxy_setting[64]; /* what sets the proxy, for error sentences */
} ocspAsk;

/* ---- URLs -------------------------------------------------------------------------------------------------------- */

/* Whether no_proxy matches the host, as in other tools: names with their subdomains, an optional leading dot, "*". */
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

/* The directive proxy, or NULL if the environment decides. */
static const char *ocspProxyDirective(const ocspAsk *ask) {
    return ask->exchange->proxy && *ask->exchange->proxy ? ask->exchange->proxy : NULL;
}

/* Names what sets the proxy for this URL. */
static void ocspNameProxySetting(ocspAsk *ask) {
    if (ocspProxyDirective(ask))
        snprintf(ask->proxy_setting, sizeof(ask->proxy_setting), "the directive %sproxy", ocspPrefix());
    else
        snprintf(ask->proxy_setting, sizeof(ask->proxy_setting), "the environment variable %s",
                 ask->url.use_tls ? "https_proxy" : "http_proxy");
}

/* Returns the proxy for this URL, NULL or "" without one: that of the directive for every host, as who sets it must not
 * have to know the server's environment; else that of http_proxy or https_proxy, as OpenSSL interprets them, unless
 * no_proxy has the host. Owned by the exchange or the environment. */
static const char *ocspProxyText(const ocspAsk *ask) {
    const char *directive = ocspProxyDirective(ask);

    if (directive) return strcasecmp(directive, OCSP_NO_PROXY) == 0 ? NULL : directive;
    if (ocspNoProxy(ask->url.host)) return NULL;
    return OSSL_HTTP_adapt_proxy(NULL, NULL, ask->url.host, ask->url.use_tls);
}

/* Finds the proxy for this URL. Returns 1, also without a proxy, or 0 with a sentence, which never contains the
 * password. */
static int ocspProxyParse(ocspAsk *ask, ocspError *err) {
    const char *text = ocspProxyText(ask);
    size_t len;
    int parsed;

    if (!text || !*text) return 1;
    ocspNameProxySetting(ask);
    parsed = ocspUrlParse(&ask->proxy, text);
    if (parsed < 0) return ocspFail(err, OCSP_FAIL_MEMORY, "out of memory connecting to the proxy");
    if (!parsed || ask->proxy.use_tls) /* TLS to the proxy: unsupported */
        return ocspFail(err, OCSP_FAIL_PROXY,
                        "the proxy in %s cannot be parsed: write it as in "
                        "http://proxy.example.com:3128 (http:// for https responders too)",
                        ask->proxy_setting);
    /* An @ after the host belongs to the password: an unencoded / ? or # in it ended the host too early. So does a second
     * one, or what follows the first would be shown as the host. */
    if (!ocspPercentDecode(ask->proxy.user) || strchr(ask->proxy.target, '@') || strchr(ask->proxy.authority, '@'))
        return ocspFail(err, OCSP_FAIL_PROXY,
                        "the user or the password in %s is not percent-encoded as a URL needs it: write %% as %%25, @ "
                        "as %%40, : as %%3A, / as %%2F, ? as %%3F and # as %%23",
                        ask->proxy_setting);
    len = strlen(ask->proxy.user);
    if (len == 0) return 1;
    ask->proxy_auth = ocspAlloc((len + 2) / 3 * 4 + 1);
    if (!ask->proxy_auth) return ocspFail(err, OCSP_FAIL_MEMORY, "out of memory connecting to the proxy");
    EVP_EncodeBlock((unsigned char *)ask->proxy_auth, (unsigned char *)ask->proxy.user, (int)len);
    return 1;
}

/* Builds the target of a GET: {url}/{percent-encoded base64 of the request} (RFC 6960 appendix A.1). Returns
 * ocspAlloc'ed text, or NULL when out of memory. A slash is added only if none is there, as a CDN took "//" for another
 * path. */
static char *ocspGetTarget(const char *base, const unsigned char *request, size_t request_len) {
    size_t b64_len = (request_len + 2) / 3 * 4, n = strlen(base), i;
    char *b64 = ocspAlloc(b64_len + 1), *out = ocspAlloc(n + 3 * b64_len + 2);

    if (b64 && out) {
        EVP_EncodeBlock((unsigned char *)b64, request, (int)request_len);
        memcpy(out, base, n);
        if (out[n - 1] != '/') out[n++] = '/';
        for (i = 0; i < b64_len; i++) {
            if (strchr("+/=", b64[i]))
                n += (size_t)snprintf(out + n, sizeof("%2B"), "%%%02X", b64[i]);
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

/* ---- HTTP -------------------------------------------------------------------------------------------------------- */

/* Whether the HTTP response may be the proxy's: plain http through a proxy, not a tunnel. */
static int ocspViaProxy(const ocspAsk *ask) {
    return ask->proxy.host && !ask->tls;
}

/* Fails with the reason for a proxy's status 407. */
static int ocspProxyDenies(const ocspAsk *ask, ocspErrorCode code, ocspError *err) {
    if (ask->proxy_auth)
        return ocspFail(err, code, "the proxy rejects the user and the password in %s (HTTP status 407): correct them",
                        ask->proxy_setting);
    return ocspFail(err, code,
                    "the proxy requires a user and a password (HTTP status 407): put them into %s as in "
                    "http://user:password@proxy.example.com:3128, percent-encoded",
                    ask->proxy_setting);
}

/* Sends the request. Returns 0 with a sentence (or cancelled). HTTP/1.1, because some servers and proxies reject
 * HTTP/1.0 (426, 505). `Connection: close` ends the connection after one response; `Accept-Encoding: identity` rules
 * out compression, which a request without that field would allow (RFC 9110 section 12.5.3). */
static int ocspSendRequest(ocspConn *c, const ocspAsk *ask, int get) {
    int via_proxy = ocspViaProxy(ask);
    char *get_target = get ? ocspGetTarget(ask->url.target, ask->exchange->request, ask->exchange->request_len) : NULL;
    const char *target = get ? get_target : ask->url.target;
    size_t size = strlen(ask->url.authority) * 2 + (target ? strlen(target) : 0) + 1024 + ask->exchange->request_len +
                  (ask->proxy_auth ? strlen(ask->proxy_auth) : 0);
    char *head = target ? ocspAlloc(size) : NULL;
    int n, ok;

    if (!head) {
        ocspFree(get_target);
        return ocspFail(c->err, OCSP_FAIL_MEMORY, "out of memory sending the request");
    }
    n = snprintf(head, size,
                 "%s %s%s%s HTTP/1.1\r\nHost: %s\r\nAccept: " OCSP_MIME_RESPONSE "\r\nAccept-Encoding: identity\r\n"
                 "User-Agent: valkey-ocsp\r\nConnection: close\r\n%s%s%s",
                 get ? "GET" : "POST", via_proxy ? "http://" : "", via_proxy ? ask->url.authority : "", target,
                 ask->url.authority, via_proxy && ask->proxy_auth ? "Proxy-Authorization: Basic " : "",
                 via_proxy && ask->proxy_auth ? ask->proxy_auth : "", via_proxy && ask->proxy_auth ? "\r\n" : "");
    if (!get)
        n += snprintf(head + n, size - (size_t)n, "Content-Type: " OCSP_MIME_REQUEST "\r\nContent-Length: %zu\r\n",
                      ask->exchange->request_len);
    n += snprintf(head + n, size - (size_t)n, "\r\n");
    /* One write: if a responder answers after the header alone and closes, a second write would fail. */
    if (!get) {
        memcpy(head + n, ask->exchange->request, ask->exchange->request_len);
        n += (int)ask->exchange->request_len;
    }
    ok = ocspConnWrite(c, head, (size_t)n);
    ocspFree(head);
    ocspFree(get_target);
    return ok;
}

/* Opens a tunnel through the proxy, for https (RFC 9110 section 9.3.6). Returns 0 with a sentence (or cancelled). */
static int ocspTunnel(ocspConn *c, const ocspAsk *ask, ocspHttpReader *reader) {
    char *head;
    size_t size =
        strlen(ask->url.host) * 2 + strlen(ask->url.port) * 2 + 256 + (ask->proxy_auth ? strlen(ask->proxy_auth) : 0);
    const char *open = strchr(ask->url.host, ':') ? "[" : "", *shut = *open ? "]" : "";
    ocspHttpHead answer;
    int n, ok;

    head = ocspAlloc(size);
    if (!head) return ocspFail(c->err, OCSP_FAIL_MEMORY, "out of memory connecting to the proxy");
    n = snprintf(head, size, "CONNECT %s%s%s:%s HTTP/1.1\r\nHost: %s%s%s:%s\r\n%s%s%s\r\n", open, ask->url.host, shut,
                 ask->url.port, open, ask->url.host, shut, ask->url.port,
                 ask->proxy_auth ? "Proxy-Authorization: Basic " : "", ask->proxy_auth ? ask->proxy_auth : "",
                 ask->proxy_auth ? "\r\n" : "");
    ok = ocspConnWrite(c, head, (size_t)n);
    ocspFree(head);
    ocspHttpStart(reader, ocspConnRead, c, c->err);
    if (!ok || !ocspHttpReadHead(reader, &answer)) return 0;
    if (answer.status == 407) return ocspProxyDenies(ask, OCSP_FAIL_PROXY, c->err);
    if (answer.status < 200 || answer.status > 299)
        return ocspFail(c->err, OCSP_FAIL_PROXY,
                        "the proxy refuses the tunnel with HTTP status %d: allow CONNECT to port %s of the responder "
                        "there, or %s%s%s",
                        answer.status, ask->url.port, ocspProxyDirective(ask) ? "set " : "",
                        ocspProxyDirective(ask) ? ask->proxy_setting : "put the responder's host into no_proxy",
                        ocspProxyDirective(ask) ? " to none" : "");
    return 1;
}

/* ---- the exchange ------------------------------------------------------------------------------------------------ */

/* Sends one request to one address, by `deadline` (monotonic milliseconds). */
static ocspFetchResult ocspAskAddress(ocspAsk *ask,
                                      const struct addrinfo *address,
                                      int get,
                                      int64_t deadline,
                                      ocspError *err) {
    ocspConn c = {-1, NULL, 0, ask->url.host, deadline, ask->exchange->io, 0, err};
    ocspHttpReader *reader = ocspAlloc(sizeof(*reader));
    ocspHttpHead head;
    int ok;

    ask->status = 0;
    memset(err, 0, sizeof(*err));
    ok = reader ? 1 : ocspFail(err, OCSP_FAIL_MEMORY, "out of memory sending the request");
    ok = ok && ocspConnOpen(&c, address);
    if (ask->tls) ok = ok && (!ask->proxy.host || ocspTunnel(&c, ask, reader)) && ocspConnTls(&c, ask->tls);
    ok = ok && ocspSendRequest(&c, ask, get);
    if (ok) ocspHttpStart(reader, ocspConnRead, &c, err);
    ok = ok && ocspHttpReadHead(reader, &head);
    if (ok) ask->status = head.status;
    if (ok && head.status == 407 && ocspViaProxy(ask)) ok = ocspProxyDenies(ask, OCSP_FAIL_PROXY_STATUS, err);
    ok = ok && ocspHttpCheckHead(&head, err) && ocspHttpReadBody(reader, &head, &ask->body, &ask->body_len);
    ocspConnClose(&c);
    ocspFree(reader);
    if (ok) return OCSP_FETCH_OK;
    return c.cancelled ? OCSP_FETCH_CANCELLED : OCSP_FETCH_FAILED;
}

/* Whether to repeat a rejected POST as GET, as some responders support only GET (RFC 5019 section 5). Not after a
 * time-out: that would double the time spent on a dead responder. Not after a proxy's 407: a second wrong password may
 * lock the user out. */
static int ocspRefusesPost(const ocspAsk *ask, const ocspError *err) {
    return err->kind == OCSP_ERR_HTTP && !(ask->status == 407 && ocspViaProxy(ask)) &&
           ((ask->status >= 400 && ask->status < 500) || ask->status == 501);
}

/* Prefixes the error sentence with the proxy, and with the address if the host has several. */
static void ocspPrefixWhere(const ocspAsk *ask, const struct addrinfo *address, int several, ocspError *err) {
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

/* Tries the addresses of the host in turn, until one answers. Each gets an equal share of the remaining time, so that a
 * dead or silent one leaves time for the next. */
static ocspFetchResult ocspAskAddresses(ocspAsk *ask, const struct addrinfo *addresses, ocspError *err) {
    int64_t deadline = ocspConnNowMs() + ask->exchange->timeout_ms;
    const struct addrinfo *a;
    int left = 0, several;
    ocspFetchResult result = OCSP_FETCH_FAILED;

    for (a = addresses; a && left < OCSP_MAX_ADDRESSES; a = a->ai_next) left++;
    several = left > 1;
    for (a = addresses; a && left > 0; a = a->ai_next, left--) {
        int64_t now = ocspConnNowMs(), share = now + (deadline - now) / left;
        result = ocspAskAddress(ask, a, 0, share, err);
        if (result == OCSP_FETCH_FAILED && ocspRefusesPost(ask, err)) {
            int posted = ask->status;
            char reason[OCSP_SENTENCE_MAX];
            result = ocspAskAddress(ask, a, 1, share, err);
            memcpy(reason, err->text, sizeof(reason));
            if (result == OCSP_FETCH_FAILED)
                snprintf(err->text, sizeof(err->text), "HTTP status %d to POST, and to GET: %.440s", posted, reason);
        }
        if (result == OCSP_FETCH_FAILED) ocspPrefixWhere(ask, a, several, err);
        if (result != OCSP_FETCH_FAILED || err->kind != OCSP_ERR_NETWORK) return result;
    }
    return result;
}

/* Resolves the host of the responder or the proxy. Returns 0 with a sentence. Releases the OpenSSL lock. The system's
 * resolver bounds the time, which is not charged to the responder's timeout. */
static int ocspResolve(const ocspAsk *ask, struct addrinfo **addresses, ocspError *err) {
    const ocspUrl *peer = ask->proxy.host ? &ask->proxy : &ask->url;
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    struct addrinfo hints;
    int fault, saved;

    memset(&hints, 0, sizeof(hints));
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_NUMERICSERV;
    ocspLeaveOpenSSL(ask->exchange->io);
    fault = getaddrinfo(peer->host, peer->port, &hints, addresses);
    saved = errno;
    ocspEnterOpenSSL(ask->exchange->io);
    if (!fault) return 1;
    return ocspFail(err, fault == EAI_MEMORY ? OCSP_FAIL_MEMORY : OCSP_FAIL_DNS, "the name %s cannot be resolved: %s",
                    ocspCleanText(clean, sizeof(clean), peer->host),
                    fault == EAI_SYSTEM ? strerror(saved) : gai_strerror(fault));
}

ocspFetchResult ocspFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err) {
    ocspAsk ask;
    struct addrinfo *addresses = NULL;
    ocspFetchResult result = OCSP_FETCH_FAILED;
    int parsed;

    memset(&ask, 0, sizeof(ask));
    memset(err, 0, sizeof(*err));
    ask.exchange = exchange;
    ERR_set_mark();
    parsed = ocspUrlParse(&ask.url, exchange->url);
    if (parsed <= 0) { /* malformed URLs are left out before, by ocspIdentityNew and ocspCheckResponderUrl */
        ocspFail(err, parsed ? OCSP_FAIL_MEMORY : OCSP_FAIL_DNS,
                 parsed ? "out of memory parsing the URL" : "the URL cannot be parsed");
        goto done;
    }
    if (!ocspProxyParse(&ask, err)) goto done;
    if (ask.url.use_tls && !(ask.tls = ocspTlsContext(exchange->store))) {
        ocspFail(err, OCSP_FAIL_MEMORY, "out of memory while starting TLS");
        goto done;
    }
    if (ocspResolve(&ask, &addresses, err)) result = ocspAskAddresses(&ask, addresses, err);
done:
    *body = ask.body;
    *body_len = ask.body_len;
    if (addresses) freeaddrinfo(addresses);
    SSL_CTX_free(ask.tls);
    ocspUrlClear(&ask.url);
    ocspUrlClear(&ask.proxy);
    ocspFree(ask.proxy_auth);
    ERR_pop_to_mark();
    return result;
}

#endif /* OCSP_SUPPORTED */
