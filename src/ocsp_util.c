/* ocsp_util.c - shared helpers: the host's allocator and log, errors, URLs, and sanitizing of external text.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/http.h>

#define OCSP_LOG_LINE_MAX 3072 /* fits the errors of OCSP_MAX_URLS URLs */

/* Set once by ocspInit before the OCSP thread exists; read-only afterwards. */
static ocspHost ocsp_host;

void ocspSetHost(const ocspHost *host) {
    if (host)
        ocsp_host = *host;
    else
        memset(&ocsp_host, 0, sizeof(ocsp_host));
}

void *ocspAlloc(size_t size) {
    void *p = ocsp_host.alloc ? ocsp_host.alloc(size) : malloc(size);
    if (p) memset(p, 0, size);
    return p;
}

void *ocspMemdup(const void *bytes, size_t len) {
    void *p = ocspAlloc(len ? len : 1);
    if (p && len) memcpy(p, bytes, len);
    return p;
}

char *ocspStrdup(const char *text) {
    return ocspMemdup(text ? text : "", (text ? strlen(text) : 0) + 1);
}

void ocspFree(void *ptr) {
    if (!ptr) return;
    if (ocsp_host.free)
        ocsp_host.free(ptr);
    else
        free(ptr);
}

void ocspLog(ocspLogLevel level, const char *fmt, ...) {
    char line[OCSP_LOG_LINE_MAX];
    va_list ap;

    if (!ocsp_host.log) return;
    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    ocsp_host.log(level, line);
}

void ocspThreadStarted(void) {
    if (ocsp_host.thread_started) ocsp_host.thread_started();
}

const char *ocspPrefix(void) {
    return ocsp_host.directive_prefix ? ocsp_host.directive_prefix : "";
}

void ocspReportAnswer(ocspAnswerKind kind, unsigned *number, const char *error) {
    if (*number && ocsp_host.answered) ocsp_host.answered(kind, *number, error);
    *number = 0;
}

/* The words are a contract: INFO, the log and ocsp-probe show them. docs/behavior.md describes each (`make lint`
 * compares). */
static const struct {
    const char *word;
    ocspErrorKind kind;
} error_codes[OCSP_FAIL_CODES] = {
    [OCSP_FAIL_NONE] = {"", OCSP_ERR_NONE},
    [OCSP_FAIL_DNS] = {"dns", OCSP_ERR_NETWORK},
    [OCSP_FAIL_CONNECT] = {"connect", OCSP_ERR_NETWORK},
    [OCSP_FAIL_TIMEOUT] = {"timeout", OCSP_ERR_NETWORK},
    [OCSP_FAIL_TLS] = {"tls", OCSP_ERR_NETWORK},
    [OCSP_FAIL_CLOSED] = {"closed", OCSP_ERR_NETWORK},
    [OCSP_FAIL_PROXY] = {"proxy", OCSP_ERR_NETWORK},
    [OCSP_FAIL_FILE] = {"file", OCSP_ERR_NETWORK},
    [OCSP_FAIL_MEMORY] = {"memory", OCSP_ERR_NETWORK},
    [OCSP_FAIL_HTTP_STATUS] = {"http-status", OCSP_ERR_HTTP},
    [OCSP_FAIL_HTTP_TYPE] = {"http-type", OCSP_ERR_HTTP},
    [OCSP_FAIL_HTTP_HEADER] = {"http-header", OCSP_ERR_HTTP},
    [OCSP_FAIL_HTTP_HEADER_ENDLESS] = {"http-header", OCSP_ERR_NETWORK},
    [OCSP_FAIL_HTTP_BODY] = {"http-body", OCSP_ERR_HTTP},
    [OCSP_FAIL_PROXY_STATUS] = {"proxy", OCSP_ERR_HTTP},
    [OCSP_FAIL_DER] = {"der", OCSP_ERR_RESPONSE},
    [OCSP_FAIL_RESPONDER_STATUS] = {"responder-status", OCSP_ERR_RESPONSE},
    [OCSP_FAIL_UNKNOWN] = {"unknown", OCSP_ERR_RESPONSE},
    [OCSP_FAIL_OLDER] = {"older", OCSP_ERR_RESPONSE},
    [OCSP_FAIL_MEMORY_RESPONSE] = {"memory", OCSP_ERR_RESPONSE},
    [OCSP_FAIL_SIGNATURE] = {"signature", OCSP_ERR_VERIFY},
    [OCSP_FAIL_SIGNER] = {"signer", OCSP_ERR_VERIFY},
    [OCSP_FAIL_NO_ENTRY] = {"no-entry", OCSP_ERR_VERIFY},
    [OCSP_FAIL_NOT_YET_VALID] = {"not-yet-valid", OCSP_ERR_VERIFY},
    [OCSP_FAIL_EXPIRED] = {"expired", OCSP_ERR_VERIFY},
    [OCSP_FAIL_DATES] = {"dates", OCSP_ERR_VERIFY},
    [OCSP_FAIL_EXTENSION] = {"extension", OCSP_ERR_VERIFY},
    [OCSP_FAIL_MEMORY_VERIFY] = {"memory", OCSP_ERR_VERIFY},
    [OCSP_FAIL_PEER] = {"", OCSP_ERR_VERIFY},
};

const char *ocspErrorWord(ocspErrorCode code) {
    return error_codes[code].word;
}

ocspErrorKind ocspErrorKindOf(ocspErrorCode code) {
    return error_codes[code].kind;
}

int ocspFail(ocspError *err, ocspErrorCode code, const char *fmt, ...) {
    va_list ap;

    if (err) {
        err->code = code;
        err->kind = ocspErrorKindOf(code);
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
    }
    return 0;
}

void ocspBlameMemory(ocspError *err, int queue_was_empty, const char *what) {
    if (!err || !queue_was_empty || ERR_GET_REASON(ERR_peek_error()) != ERR_R_MALLOC_FAILURE) return;
    ocspFail(err,
             err->kind == OCSP_ERR_NETWORK    ? OCSP_FAIL_MEMORY
             : err->kind == OCSP_ERR_RESPONSE ? OCSP_FAIL_MEMORY_RESPONSE
                                              : OCSP_FAIL_MEMORY_VERIFY,
             "out of memory %s", what);
    ocspMayChangeAt(err, 0);
}

void ocspMayChangeAt(ocspError *err, int64_t at) {
    if (err && at < err->may_change_at) err->may_change_at = at;
}

char *ocspCleanText(char *out, size_t out_size, const char *in) {
    size_t n = 0;

    if (out_size == 0) return out;
    for (; in && *in && n < out_size - 1 && n < OCSP_OUTSIDE_TEXT_MAX; in++) {
        unsigned char c = (unsigned char)*in;
        if (c < 32 || c == 127) continue; /* a line break in a URL must not forge a log line */
        out[n++] = c > 126 ? '?' : (char)c;
    }
    out[n] = '\0';
    return out;
}

int ocspPercentDecode(char *text) {
    char *out = text;

    for (; *text; text++) {
        char digits[3] = "";
        if (*text == '%') {
            if (strspn(text + 1, "0123456789abcdefABCDEF") < 2) return 0;
            memcpy(digits, text + 1, 2);
            *out = (char)strtoul(digits, NULL, 16);
            if (*out++ == '\0') return 0;
            text += 2;
        } else {
            *out++ = *text;
        }
    }
    *out = '\0';
    return 1;
}

void ocspUrlClear(ocspUrl *url) {
    ocspFree(url->host);
    ocspFree(url->port);
    ocspFree(url->user);
    ocspFree(url->authority);
    ocspFree(url->target);
    memset(url, 0, sizeof(*url));
}

int ocspUrlParse(ocspUrl *url, const char *text) {
    const char *authority = strstr(text, "://"), *path, *at, *digits;
    char *user = NULL, *host = NULL, *port = NULL, *head;
    size_t len;
    int ok = 0;

    memset(url, 0, sizeof(*url));
    authority = authority && authority < text + strcspn(text, "/?#") ? authority + 3 : text;
    path = authority + strcspn(authority, "/?#");
    /* OpenSSL parses only scheme and authority: 3.0 takes a colon in the path for a port. */
    head = ocspMemdup(text, (size_t)(path - text) + 1);
    if (!head) return -1;
    head[path - text] = '\0';
    for (len = 0; authority != text && head[len] != ':'; len++)
        if (head[len] >= 'A' && head[len] <= 'Z') head[len] = (char)(head[len] + 32); /* schemes are case-insensitive */
    ERR_set_mark();
    if (OSSL_HTTP_parse_url(head, &url->use_tls, &user, &host, &port, NULL, NULL, NULL, NULL) && host && *host) {
        len = strlen(host);
        if (host[0] == '[' && host[len - 1] == ']') { /* OpenSSL releases differ in keeping the brackets */
            memmove(host, host + 1, len - 2);
            host[len - 2] = '\0';
        }
        at = memchr(authority, '@', (size_t)(path - authority));
        at = at ? at + 1 : authority;
        /* OpenSSL replaces port 0 by the scheme's default, and truncates a number of more than 32 bits. A colon before
         * the @ belongs to the password. */
        digits = strrchr(head + (at - text), ':');
        if (digits && strspn(digits + 1, "0123456789") > 0 && !strchr(digits, ']')) {
            const char *number = digits + 1 + strspn(digits + 1, "0");
            size_t places = strspn(number, "0123456789");
            if (places == 0 || places > 5 || atoi(number) > 65535) *host = '\0';
        }
        url->host = ocspStrdup(host);
        url->port = ocspStrdup(port);
        url->user = ocspStrdup(user);
        url->authority = ocspMemdup(at, (size_t)(path - at) + 1);
        len = strcspn(path, "#");
        url->target = ocspAlloc(len + 2);
        ok = url->host && url->port && url->user && url->authority && url->target ? 1 : -1;
        if (!*host) ok = 0;
    } else if (ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE) {
        ok = -1;
    }
    if (ok > 0) {
        url->authority[path - at] = '\0';
        snprintf(url->target, len + 2, "%s%.*s", *path == '/' ? "" : "/", (int)len, path);
    } else {
        ocspUrlClear(url);
    }
    ERR_pop_to_mark();
    OPENSSL_free(user);
    OPENSSL_free(host);
    OPENSSL_free(port);
    ocspFree(head);
    return ok;
}

void ocspLeaveOpenSSL(const ocspIoHooks *io) {
    if (io && io->leave_openssl) io->leave_openssl();
}

void ocspEnterOpenSSL(const ocspIoHooks *io) {
    if (io && io->enter_openssl) io->enter_openssl();
}

#endif /* OCSP_SUPPORTED */
