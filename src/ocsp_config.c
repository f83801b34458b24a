/* ocsp_config.c - the table of directives, the checks of their values, and copies of options.
 *
 * The table is the only list of the directives: the module registers from it, `make docs` writes the documentation's
 * table from it, and utils/valkey-patch what it inserts into config.c. To add a directive: a field in ocspOptions with
 * its default (ocsp.h), a row here, and for patched servers a field in ocsp_builtin.h and a line in ocsp_builtin.c;
 * then `make docs`.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* utils/directives.tcl parses the rows. */
const ocspDirective ocsp_directives[OCSP_DIRECTIVES] = {
#define FIELD(field) offsetof(ocspOptions, field)
    [OCSP_D_STAPLING] = {"stapling", OCSP_BOOL, FIELD(stapling), "no", 0, 1, 0, NULL, "`yes`, `no`",
                         "staple or not; `yes` resumes at once with the current response"},
    [OCSP_D_REFRESH_MARGIN] = {"refresh-margin", OCSP_PERCENT, FIELD(refresh_margin), "10%", 1, 99, 0,
                               ocspCheckRefreshMargin, "1 to 99", "refresh when this part of the validity is left"},
    [OCSP_D_MAX_INTERVAL] = {"max-interval", OCSP_NUMBER, FIELD(max_interval), "0", 0, 604800, 0, ocspCheckMaxInterval,
                             "0, 60 to 604800", "seconds; refresh at least this often; `0`: by the margin alone"},
    [OCSP_D_RETRY_DELAY] = {"retry-delay", OCSP_NUMBER, FIELD(retry_delay), "10", 1, 3600, 0, NULL, "1 to 3600",
                            "seconds before the first retry; doubles with each failure"},
    [OCSP_D_TIMEOUT] = {"timeout", OCSP_NUMBER, FIELD(timeout), "5", 1, 60, 0, NULL, "1 to 60",
                        "seconds for the exchange with one URL"},
    [OCSP_D_RESPONDER_URL] = {"responder-url", OCSP_STRING, FIELD(responder_url), "", 0, 0, 1, ocspCheckResponderUrl,
                              "http or https URL", "asked instead of the certificate's URLs"},
    [OCSP_D_CACHE_DIR] = {"cache-dir", OCSP_STRING, FIELD(cache_dir), ".", 0, 0, 1, NULL, "directory, `\"\"`",
                          "keeps responses, relative to `dir`; `\"\"` disables"},
    [OCSP_D_RESPONSE_FILE] = {"response-file", OCSP_STRING, FIELD(response_file), "", 0, 0, 1, NULL, "DER file",
                              "stapled instead of fetching; checked for changes every second"},
    [OCSP_D_VERIFY_PEERS] = {"verify-peers", OCSP_PEERS, FIELD(verify_peers), "no", OCSP_PEERS_NO, OCSP_PEERS_REQUIRE,
                             0, NULL, "`no`, `soft`, `require`", "what [peers](docs/verify-peers.md) must staple"},
    [OCSP_D_ISSUER_FILE] = {"issuer-file", OCSP_STRING, FIELD(issuer_file), "", 0, 0, 1, NULL, "PEM file",
                            "has the issuer, if the server's TLS files do not"},
    [OCSP_D_PROXY] = {"proxy", OCSP_STRING, FIELD(proxy), "", 0, 0, 1, ocspCheckProxy, "`\"\"`, `none`, http URL",
                      "`\"\"`: from the environment", .sensitive = 1},
    [OCSP_D_STAPLE_CHAIN] = {"staple-chain", OCSP_BOOL, FIELD(staple_chain), "no", 0, 1, 0, NULL, "`yes`, `no`",
                             "also staple [intermediates](docs/behavior.md#the-whole-chain)"},
#undef FIELD
};

int ocspParseRefreshMargin(const char *text, int *percent, const char **why) {
    const ocspDirective *margin = &ocsp_directives[OCSP_D_REFRESH_MARGIN];
    char *end;
    long value;

    errno = 0;
    value = text && *text >= '0' && *text <= '9' ? strtol(text, &end, 10) : -1;
    if (value >= 0 && *end == '%') end++;
    if (value < margin->min || value > margin->max || errno || *end) {
        *why = "the refresh margin is a percentage of the response's validity: use a whole number from 1 to 99, with "
               "or without a percent sign, such as 10%";
        return 0;
    }
    *percent = (int)value;
    return 1;
}

int ocspCheckRefreshMargin(const char *text, const char **why) {
    int percent;

    return ocspParseRefreshMargin(text, &percent, why);
}

int ocspCheckMaxInterval(const char *text, const char **why) {
    char *end = NULL;
    long seconds;

    errno = 0;
    seconds = text && *text >= '0' && *text <= '9' ? strtol(text, &end, 10) : -1;
    if (!errno && end && !*end &&
        (seconds == 0 || (seconds >= OCSP_MAX_INTERVAL_MIN && seconds <= ocsp_directives[OCSP_D_MAX_INTERVAL].max)))
        return 1;
    *why = "the longest interval between two refreshes is a number of seconds: use 60 to 604800 (a week), or 0 to "
           "refresh by the margin alone";
    return 0;
}

int ocspCheckResponderUrl(const char *url, const char **why) {
    ocspUrl parsed;
    const char *c;

    if (!url || !*url) return 1;
    for (c = url; *c; c++) {
        if ((unsigned char)*c <= 32 || (unsigned char)*c >= 127) {
            *why = "the responder URL contains a space, a control character or a non-ASCII character: percent-encode "
                   "it, as in http://ocsp.example.com/path";
            return 0;
        }
    }
    if (strncasecmp(url, "http://", 7) != 0 && strncasecmp(url, "https://", 8) != 0) {
        *why = "the responder URL must begin with http:// or https://, as in http://ocsp.example.com/, or be empty "
               "to "
               "use the URLs in the certificate";
        return 0;
    }
    c = strstr(url, "//") + 2;
    if (memchr(c, '@', strcspn(c, "/?#"))) {
        *why = "the responder URL must not contain a user or a password: INFO and the log would show them";
        return 0;
    }
    if (ocspUrlParse(&parsed, url) <= 0) {
        *why = "the responder URL cannot be parsed: write it as in http://ocsp.example.com:8080/path";
        return 0;
    }
    ocspUrlClear(&parsed);
    return 1;
}

/* Whether `host` ends with a colon and a number. */
static int ocspEndsWithPort(const char *host, size_t len) {
    size_t digits = 0;

    while (digits < len && host[len - digits - 1] >= '0' && host[len - digits - 1] <= '9') digits++;
    return digits > 0 && digits < len && host[len - digits - 1] == ':';
}

/* A port is required: OpenSSL takes 80 without one, curl 1080. A user alone would make an Authorization that RFC 7617
 * does not allow. */
int ocspCheckProxy(const char *value, const char **why) {
    const char *authority, *at, *c;
    ocspUrl url;
    size_t len;
    int ok;

    if (!value || !*value || strcasecmp(value, OCSP_NO_PROXY) == 0) return 1;
    *why = "the proxy must be empty (from http_proxy, https_proxy and no_proxy in the environment), or none, or "
           "http://[user:password@]host:port, for https responders too";
    if (strncasecmp(value, "http://", 7) != 0) return 0;
    authority = value + 7;
    len = strcspn(authority, "/?#");
    at = strchr(authority, '@');
    for (c = authority; *c > 32 && *c < 127; c++) continue;
    if (*c || (at && (at > authority + len || strchr(at + 1, '@')))) {
        *why = "the user or the password of the proxy is not percent-encoded as a URL needs it: write % as %25, @ as "
               "%40, : as %3A, / as %2F, ? as %3F, # as %23 and a space as %20";
        return 0;
    }
    if (authority[len] && strcmp(authority + len, "/") != 0) return 0;
    if (at && !memchr(authority, ':', (size_t)(at - authority))) return 0;
    if (!ocspEndsWithPort(authority, len) || ocspUrlParse(&url, value) <= 0) return 0;
    ok = ocspPercentDecode(url.user);
    ocspUrlClear(&url);
    if (!ok)
        *why = "the user or the password of the proxy has a % that no two hexadecimal digits follow, or %00: write % "
               "as %25";
    return ok;
}

/* The string that belongs to row `i` of the table; NULL if that is no string. */
static const char **ocspOptionText(ocspOptions *options, int i) {
    if (ocsp_directives[i].type != OCSP_STRING) return NULL;
    return (const char **)(void *)((char *)options + ocsp_directives[i].offset);
}

void ocspFreeOptions(ocspOptions *options) {
    int i;

    for (i = 0; i < OCSP_DIRECTIVES; i++) {
        const char **text = ocspOptionText(options, i);
        if (!text) continue;
        ocspFree((char *)*text);
        *text = NULL;
    }
}

int ocspCopyOptions(ocspOptions *to, const ocspOptions *from) {
    int i, ok = 1;

    *to = *from;
    for (i = 0; i < OCSP_DIRECTIVES; i++) {
        const char **text = ocspOptionText(to, i);
        if (text && !(*text = ocspStrdup(*text))) ok = 0;
    }
    if (!ok) ocspFreeOptions(to);
    return ok;
}

#endif /* OCSP_SUPPORTED */
