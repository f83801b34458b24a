/* ocsp_util.c - what every room of the OCSP stapling engine needs: the host's memory and log, errors, and text that
 * came from outside made harmless.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include <openssl/http.h>

#define OCSP_LOG_LINE_MAX 3072 /* holds the reasons of OCSP_MAX_URLS URLs */

/* Set once by ocspInit before any thread of ours exists; only read afterwards. */
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

int ocspServes(SSL_CTX *ctx) {
    return ocsp_host.serves ? ocsp_host.serves(ctx) : 1;
}

int ocspFail(ocspError *err, ocspErrorKind kind, const char *fmt, ...) {
    va_list ap;

    if (err) {
        err->kind = kind;
        va_start(ap, fmt);
        vsnprintf(err->text, sizeof(err->text), fmt, ap);
        va_end(ap);
    }
    return 0;
}

void ocspMayChangeAt(ocspError *err, int64_t at) {
    if (err && at < err->may_change_at) err->may_change_at = at;
}

char *ocspCleanText(char *out, size_t out_size, const char *in) {
    size_t n = 0;

    if (out_size == 0) return out;
    for (; in && *in && n < out_size - 1 && n < OCSP_OUTSIDE_TEXT_MAX; in++) {
        unsigned char c = (unsigned char)*in;
        if (c < 32 || c == 127) continue; /* a line break in a URL must not forge a line of the log */
        out[n++] = c > 126 ? '?' : (char)c;
    }
    out[n] = '\0';
    return out;
}

int ocspParseRefreshMargin(const char *text, int *percent, const char **why) {
    char *end;
    long value;

    errno = 0;
    value = text && *text >= '0' && *text <= '9' ? strtol(text, &end, 10) : -1;
    if (value >= 0 && *end == '%') end++;
    if (value < OCSP_REFRESH_MARGIN_MIN || value > OCSP_REFRESH_MARGIN_MAX || errno || *end) {
        *why = "the refresh margin is a percentage of the response's life: write a whole number from 1 to 99, "
               "with or without a percent sign, like 10%";
        return 0;
    }
    *percent = (int)value;
    return 1;
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
    /* OpenSSL parses scheme and authority, and is shown no more: 3.0 takes a colon in the path for a port. */
    head = ocspMemdup(text, (size_t)(path - text) + 1);
    if (!head) return 0;
    head[path - text] = '\0';
    for (len = 0; authority != text && head[len] != ':'; len++)
        if (head[len] >= 'A' && head[len] <= 'Z') head[len] = (char)(head[len] + 32); /* schemes know no case */
    ERR_set_mark();
    if (OSSL_HTTP_parse_url(head, &url->use_tls, &user, &host, &port, NULL, NULL, NULL, NULL) && host && *host) {
        len = strlen(host);
        if (host[0] == '[' && host[len - 1] == ']') { /* releases differ in keeping them */
            memmove(host, host + 1, len - 2);
            host[len - 2] = '\0';
        }
        at = memchr(authority, '@', (size_t)(path - authority));
        at = at ? at + 1 : authority;
        /* OpenSSL takes port 0 for the scheme's own, and a number of more than 32 bits for what is left of it. A colon
         * before the @ is a password's. */
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
        ok = *host && url->host && url->port && url->user && url->authority && url->target;
    }
    if (ok) {
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

int ocspCheckResponderUrl(const char *url, const char **why) {
    ocspUrl parsed;
    const char *c;

    if (!url || !*url) return 1;
    for (c = url; *c; c++) {
        if ((unsigned char)*c <= 32 || (unsigned char)*c >= 127) {
            *why = "the responder URL holds a space, a control character or a character that is not ASCII: "
                   "percent-encode it, like http://ocsp.example.com/path";
            return 0;
        }
    }
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0) {
        *why = "the responder URL must begin with http:// or https://, like http://ocsp.example.com/, or be empty "
               "to use those in the certificate";
        return 0;
    }
    c = strstr(url, "//") + 2;
    if (memchr(c, '@', strcspn(c, "/?#"))) {
        *why = "the responder URL must not hold a user or a password: INFO and the log would show them";
        return 0;
    }
    if (!ocspUrlParse(&parsed, url)) {
        *why = "the responder URL cannot be parsed: write it like http://ocsp.example.com:8080/path";
        return 0;
    }
    ocspUrlClear(&parsed);
    return 1;
}

#define OCSP_DAYS_TO_1970 INT64_C(719468) /* from the first of March of the year 0 */
#define OCSP_DAYS_OF_400_YEARS INT64_C(146097)

/* Reckoned here, because gmtime_r takes a time_t. The year begins in March, so that the leap day is its last. */
char *ocspUtcText(int64_t seconds, char *out, size_t size) {
    const int64_t earliest = INT64_C(-62167219200), latest = INT64_C(253402300799); /* the years 0 to 9999 */
    int64_t days, era;
    int second, of_era, year, of_year, month;

    if (seconds < earliest || seconds > latest) {
        snprintf(out, size, "?");
        return out;
    }
    second = (int)((seconds % 86400 + 86400) % 86400);
    days = (seconds - second) / 86400 + OCSP_DAYS_TO_1970;
    era = days >= 0 ? days / OCSP_DAYS_OF_400_YEARS : -1;
    of_era = (int)(days - era * OCSP_DAYS_OF_400_YEARS);
    year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    of_year = of_era - (365 * year + year / 4 - year / 100);
    month = (5 * of_year + 2) / 153; /* 0 is March */
    snprintf(out, size, "%04d-%02d-%02d %02d:%02d:%02d UTC", (int)(year + era * 400 + (month >= 10)),
             month < 10 ? month + 3 : month - 9, of_year - (153 * month + 2) / 5 + 1, second / 3600, second / 60 % 60,
             second % 60);
    return out;
}

#endif /* OCSP_SUPPORTED */
