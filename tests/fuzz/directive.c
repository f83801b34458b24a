/* directive.c - fuzz target: values of directives, and URLs of any origin, to ocspParseRefreshMargin,
 * ocspCheckMaxInterval, ocspCheckResponderUrl, ocspCheckProxy, ocspUrlParse and ocspCleanText.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>

/* Returns the margin, or 0 if the text is invalid: an independent implementation (digits, an optional %, 1 to 99). */
static int marginOf(const char *text) {
    size_t digits = strspn(text, "0123456789"), i;
    long value = 0;

    if (digits == 0 || (strcmp(text + digits, "") != 0 && strcmp(text + digits, "%") != 0)) return 0;
    for (i = 0; i < digits && value < 1000; i++) value = value * 10 + (text[i] - '0');
    return value >= 1 && value <= 99 ? (int)value : 0;
}

static void checkSentence(const char *why) {
    fuzzCheck(why && strlen(why) > 20 && strspn(why, " ") == 0);
}

static void checkMargin(const char *text) {
    int percent = -7;
    const char *why = NULL;

    if (ocspParseRefreshMargin(text, &percent, &why)) {
        fuzzCheck(percent == marginOf(text) && percent >= ocsp_directives[OCSP_D_REFRESH_MARGIN].min &&
                  percent <= ocsp_directives[OCSP_D_REFRESH_MARGIN].max);
    } else {
        fuzzCheck(marginOf(text) == 0 && percent == -7);
        checkSentence(why);
    }
}

/* The same for max-interval: digits, 0 or 60 to 604800. */
static void checkInterval(const char *text) {
    size_t digits = strspn(text, "0123456789"), i;
    const char *why = NULL;
    long value = 0;

    for (i = 0; i < digits && value < 10000000; i++) value = value * 10 + (text[i] - '0');
    fuzzCheck(ocspCheckMaxInterval(text, &why) ==
              (digits > 0 && !text[digits] && (value == 0 || (value >= 60 && value <= 604800))));
    if (why) checkSentence(why);
}

/* Checks that a URL parses if and only if it parses without its user and password. */
static void checkUser(const char *text, int parsed) {
    const char *begin = text + strlen("http://"), *at;
    ocspUrl url;
    char *plain;

    if (strncmp(text, "http://", 7) != 0) return;
    at = memchr(begin, '@', strcspn(begin, "/?#"));
    if (!at || memchr(at + 1, '@', strcspn(at + 1, "/?#"))) return; /* two @: not comparable */
    plain = malloc(strlen(text) + 1);
    fuzzCheck(plain);
    sprintf(plain, "http://%s", at + 1);
    fuzzCheck(ocspUrlParse(&url, plain) == parsed);
    ocspUrlClear(&url);
    free(plain);
}

static void checkUrl(const char *text) {
    ocspUrl url, again;
    const char *why = NULL, *c;
    int allowed = ocspCheckResponderUrl(text, &why), parsed = ocspUrlParse(&url, text);
    size_t size;
    char *whole;

    if (!allowed) checkSentence(why);
    checkUser(text, parsed);
    fuzzCheck(!allowed || parsed || !*text);
    if (!parsed) {
        fuzzCheck(!url.host && !url.port && !url.user && !url.authority && !url.target);
        return;
    }
    fuzzCheck(*url.host && url.use_tls >= 0 && url.use_tls <= 1 && url.target[0] == '/');
    fuzzCheck(strspn(url.port, "0123456789") == strlen(url.port) && atol(url.port) > 0 && atol(url.port) < 65536);
    fuzzCheck(!strpbrk(url.authority, "/?#") && !strchr(url.target, '#') && strstr(url.authority, url.host));
    if (allowed) {
        for (c = text; *c; c++) fuzzCheck(*c > 32 && *c < 127);
        fuzzCheck(!*url.user && url.use_tls == (strncasecmp(text, "https:", 6) == 0));
        fuzzCheck(!strchr(url.authority, '@'));
        /* A URL that is built from the parts parses to the same parts. */
        size = strlen(url.authority) + strlen(url.target) + 9;
        whole = malloc(size);
        fuzzCheck(whole);
        snprintf(whole, size, "%s://%s%s", url.use_tls ? "https" : "http", url.authority, url.target);
        fuzzCheck(ocspCheckResponderUrl(whole, &why) && ocspUrlParse(&again, whole));
        fuzzCheck(strcmp(again.host, url.host) == 0 && strcmp(again.port, url.port) == 0 &&
                  strcmp(again.target, url.target) == 0 && again.use_tls == url.use_tls);
        ocspUrlClear(&again);
        free(whole);
    }
    ocspUrlClear(&url);
    fuzzCheck(!url.host && !url.target);
}

/* What is accepted is a proxy that ocspFetch can use, without any part of the credentials in host or port. */
static void checkProxy(const char *text) {
    const char *why = NULL;
    ocspUrl url;

    if (!ocspCheckProxy(text, &why)) {
        checkSentence(why);
        return;
    }
    if (!*text || strcasecmp(text, "none") == 0) return;
    fuzzCheck(ocspUrlParse(&url, text) && !url.use_tls && strcmp(url.target, "/") == 0);
    fuzzCheck(!strchr(url.host, '@') && strchr(url.authority, ':') && ocspPercentDecode(url.user));
    fuzzCheck(!strchr(text, '@') == !*url.user && (!*url.user || strchr(url.user, ':')));
    ocspUrlClear(&url);
}

static void checkClean(const char *text) {
    static const size_t sizes[] = {1, 2, 17, OCSP_OUTSIDE_TEXT_MAX + 1, 1000};
    char out[1000];
    size_t i, n;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        memset(out, 'x', sizeof(out));
        fuzzCheck(ocspCleanText(out, sizes[i], text) == out);
        n = strlen(out);
        fuzzCheck(n < sizes[i] && n <= OCSP_OUTSIDE_TEXT_MAX && n <= strlen(text));
        fuzzCheck(sizes[i] == sizeof(out) || out[sizes[i]] == 'x');
        for (; n > 0; n--) fuzzCheck(out[n - 1] >= 32 && out[n - 1] < 127);
    }
}

static void one(const uint8_t *data, size_t size) {
    char *text = malloc(size + 1); /* of this exact size, so that a sanitizer detects an overread */

    fuzzCheck(text);
    if (size) memcpy(text, data, size);
    text[size] = '\0';
    ERR_clear_error();
    checkMargin(text);
    checkInterval(text);
    checkUrl(text);
    checkProxy(text);
    checkClean(text);
    fuzzCheckQueue();
    free(text);
}

static void seeds(fuzzKeep *keep) {
    static const char *const texts[] = {
        "",
        "10%",
        "10",
        "1",
        "99%",
        "0",
        "100",
        "-5%",
        "010",
        "10%%",
        " 10",
        "1e1",
        "99999999999999999999",
        "59",
        "60",
        "604800",
        "604801",
        "http://ocsp.example.com",
        "http://ocsp.example.com/",
        "https://ocsp.example.com:8443/a/b?c=d#e",
        "HTTP://A",
        "http://[::1]:80/x",
        "http://[::1]",
        "http://[]",
        "http://user:secret@host/",
        "http://host:0/",
        "http://host:65536/",
        "http://host:/",
        "http://host?x://y",
        "http://host#x",
        "http://host/a:b@c",
        "ldap://x/",
        "host:80/path",
        "//host",
        "://",
        "http://",
        "http:///x",
        "http://a b/",
        "http://a\r\nX: y/",
        "http://\xc3\xa4/",
        "proxy.example.com:3128",
        "http://host:4294967376/",
        "http://host:10376293541461622800/",
        "http://user:0secret@host/",
        "https://1.2.3.4:443//x//y",
        "none",
        "http://user:p%40ss@proxy.example.com:3128/",
        "http://:@[::1]:3128",
        "http://user:80/secret@proxy:3128",
    };
    char name[32];
    size_t i;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        snprintf(name, sizeof(name), "text-%02zu", i);
        keep(name, texts[i], strlen(texts[i]));
    }
}

const fuzzTarget fuzz_directive = {"directive", one, seeds, NULL};
