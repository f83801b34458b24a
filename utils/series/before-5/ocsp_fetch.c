/* Functions of ocsp_fetch.c as they are before the step that adds https and proxies, see ../steps.tcl.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

/* Sends the request. Returns 0 with a sentence (or cancelled). HTTP/1.1, because some servers reject HTTP/1.0 (426,
 * 505). `Connection: close` ends the connection after one response; `Accept-Encoding: identity` rules out compression,
 * which a request without that field would allow (RFC 9110 section 12.5.3). */
static int ocspSendRequest(ocspConn *c, const ocspAsk *ask, int get) {
    char *get_target = get ? ocspGetTarget(ask->url.target, ask->exchange->request, ask->exchange->request_len) : NULL;
    const char *target = get ? get_target : ask->url.target;
    size_t size = strlen(ask->url.authority) + (target ? strlen(target) : 0) + 1024 + ask->exchange->request_len;
    char *head = target ? ocspAlloc(size) : NULL;
    int n, ok;

    if (!head) {
        ocspFree(get_target);
        return ocspFail(c->err, OCSP_FAIL_MEMORY, "out of memory sending the request");
    }
    n = snprintf(head, size,
                 "%s %s HTTP/1.1\r\nHost: %s\r\nAccept: " OCSP_MIME_RESPONSE "\r\nAccept-Encoding: identity\r\n"
                 "User-Agent: valkey-ocsp\r\nConnection: close\r\n",
                 get ? "GET" : "POST", target, ask->url.authority);
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

/* Whether to repeat a rejected POST as GET, as some responders support only GET (RFC 5019 section 5). Not after a
 * time-out: that would double the time spent on a dead responder. */
static int ocspRefusesPost(const ocspAsk *ask, const ocspError *err) {
    return err->kind == OCSP_ERR_HTTP && ((ask->status >= 400 && ask->status < 500) || ask->status == 501);
}

/* Prefixes the error sentence with the address, if the host has several. */
static void ocspPrefixWhere(const struct addrinfo *address, int several, ocspError *err) {
    char reason[OCSP_SENTENCE_MAX], host[NI_MAXHOST] = "?";

    if (!several) return;
    getnameinfo(address->ai_addr, address->ai_addrlen, host, sizeof(host), NULL, 0, NI_NUMERICHOST);
    memcpy(reason, err->text, sizeof(reason));
    snprintf(err->text, sizeof(err->text), "at %.46s: %.440s", host, reason);
}
