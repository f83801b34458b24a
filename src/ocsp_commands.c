/* ocsp_commands.c - what OCSP.GET and OCSP.SET do, for both hosts: arguments, formats and base64. A host adds the
 * permissions and the reply.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <openssl/err.h>
#include <openssl/evp.h>

/* ---- OCSP.GET ---------------------------------------------------------------------------------------------------- */

typedef enum {
    OCSP_FORMAT_DER,
    OCSP_FORMAT_BASE64,
    OCSP_FORMAT_TEXT,
    OCSP_FORMATS
} ocspFormat;

/* Returns the format of that name, in any letter case; OCSP_FORMATS: there is none. */
static ocspFormat ocspFormatOf(const char *word) {
    static const char *const names[OCSP_FORMATS] = {"DER", "BASE64", "TEXT"};
    int i;

    for (i = 0; i < OCSP_FORMATS && strcasecmp(word, names[i]) != 0; i++) continue;
    return (ocspFormat)i;
}

/* Parses the arguments. No name of a format is hexadecimal, so either may be left out. Returns 0 if they are wrong. */
static int ocspGetArguments(const char *const words[], int count, ocspFormat *format, const char **serial) {
    int named = count > 0 && ocspFormatOf(words[0]) < OCSP_FORMATS;

    *format = named ? ocspFormatOf(words[0]) : OCSP_FORMAT_TEXT;
    *serial = count > named ? words[named] : NULL;
    if (count - named > 1) return 0;
    return !*serial || (**serial && strspn(*serial, "-0123456789abcdefABCDEF") == strlen(*serial));
}

static const char *ocspWithoutZeros(const char *serial) {
    return serial + strspn(serial, "0");
}

/* Returns the staple of the certificate in service with that serial number (NULL: of the first one). NULL with a sentence
 * in `why`, or with "" if there is no first one. */
static const ocspStaple *ocspFindStaple(const ocspStapleSet *set, const char *serial, char *why, size_t why_size) {
    char name[OCSP_OUTSIDE_TEXT_MAX + 1], wanted[OCSP_OUTSIDE_TEXT_MAX + 1];
    size_t used;
    int i, known = 0;

    why[0] = '\0';
    if (serial)
        snprintf(why, why_size, "no certificate in service has the serial number %.100s: ",
                 ocspCleanText(wanted, sizeof(wanted), serial));
    for (i = 0; set && i < set->count; i++) {
        const ocspStaple *staple = &set->staples[i];
        if (staple->index < 0 || (!serial && staple->index > 0)) continue;
        if (!serial) return staple;
        ocspSerialText(X509_get0_serialNumber(staple->leaf), name, sizeof(name));
        if (strcasecmp(ocspWithoutZeros(name), ocspWithoutZeros(serial)) == 0) return staple;
        used = strlen(why);
        snprintf(why + used, why_size - used, "%s%.80s", known++ ? ", " : "use ", name);
    }
    used = strlen(why);
    if (serial && !known) snprintf(why + used, why_size - used, "there is none");
    return NULL;
}

/* Formats the response. 0: out of memory. */
static int ocspFormatStaple(const ocspStaple *staple, ocspFormat format, int64_t now, ocspGetAnswer *answer) {
    answer->kind = format == OCSP_FORMAT_TEXT ? OCSP_GET_TEXT : OCSP_GET_BYTES;
    switch (format) {
    case OCSP_FORMAT_DER:
        answer->data = ocspMemdup(staple->der, staple->len);
        answer->len = staple->len;
        return answer->data != NULL;
    case OCSP_FORMAT_BASE64:
        answer->data = ocspAlloc((staple->len + 2) / 3 * 4 + 1);
        if (answer->data)
            answer->len = (size_t)EVP_EncodeBlock((unsigned char *)answer->data, staple->der, (int)staple->len);
        return answer->data != NULL;
    default:
        answer->data = ocspAlloc(OCSP_TEXT_MAX);
        if (!answer->data || !ocspResponseText(staple, now, answer->data, OCSP_TEXT_MAX)) return 0;
        answer->len = strlen(answer->data);
        return 1;
    }
}

void ocspGet(const char *const words[], int count, ocspGetAnswer *answer) {
    int64_t now = ocspNow(&ocsp_env);
    const ocspStaple *staple = NULL;
    ocspStapleSet *set = NULL;
    const char *serial;
    ocspFormat format;
    int ok = 1;

    memset(answer, 0, sizeof(*answer));
    ERR_set_mark();
    if (!ocspGetArguments(words, count, &format, &serial))
        snprintf(answer->why, sizeof(answer->why),
                 "the arguments are DER, BASE64 or TEXT, then a serial number in hexadecimal; each may be left out");
    else if ((ok = ocspSlotCopy(&set)))
        staple = ocspFindStaple(set, serial, answer->why, sizeof(answer->why));
    if (staple) {
        answer->why[0] = '\0';
        /* as in a handshake */
        if (ocspStaplingIsOn() && staple->der && now < staple->expires_at)
            ok = ocspFormatStaple(staple, format, now, answer);
    }
    if (!ok) {
        ocspFree(answer->data);
        answer->data = NULL;
        snprintf(answer->why, sizeof(answer->why), "out of memory");
    }
    if (answer->why[0]) answer->kind = OCSP_GET_ERROR;
    ocspStapleSetFree(set);
    ERR_pop_to_mark();
}

/* ---- OCSP.SET ---------------------------------------------------------------------------------------------------- */

/* Returns the value of a base64 digit (RFC 4648 section 4), or -1. */
static int ocspBase64Digit(char c) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *found = c ? strchr(digits, c) : NULL;

    return found ? (int)(found - digits) : -1;
}

/* Decodes base64 with padding; CR and LF are skipped. `out` has len / 4 * 3 bytes. Returns the number of bytes, or -1 if
 * the text is anything else, also if bits after the last byte are not zero. */
static long ocspBase64Decode(const char *text, size_t len, unsigned char *out) {
    int digits = 0, padding = 0, ended = 0;
    unsigned bits = 0;
    long n = 0;

    for (; len > 0; text++, len--) {
        int digit = *text == '=' ? 0 : ocspBase64Digit(*text);
        if (*text == '\r' || *text == '\n') continue;
        if (digit < 0 || ended || (*text == '=' ? digits < 2 : padding)) return -1;
        padding += *text == '=';
        bits = bits << 6 | (unsigned)digit;
        if (++digits < 4) continue;
        if (bits & ((1u << 8 * padding) - 1)) return -1;
        out[n++] = (unsigned char)(bits >> 16);
        if (padding < 2) out[n++] = (unsigned char)(bits >> 8);
        if (padding < 1) out[n++] = (unsigned char)bits;
        ended = padding;
        digits = 0;
        bits = 0;
    }
    return digits == 0 ? n : -1;
}

/* Decodes a response. NULL with a sentence in *why. */
static ocspPush *ocspPushNew(const char *base64, size_t len, const char **why) {
    ocspPush *push;
    long n = -1;

    /* before anything is allocated: twice the bytes of the largest response, so that any line length fits */
    if (len > 2 * OCSP_MAX_RESPONSE_BYTES) {
        *why = "the response has more than 65536 bytes";
        return NULL;
    }
    push = ocspAlloc(sizeof(*push));
    if (push) push->der = ocspAlloc(len / 4 * 3 + 1);
    if (push && push->der) n = ocspBase64Decode(base64, len, push->der);
    if (n > 0 && n <= OCSP_MAX_RESPONSE_BYTES) {
        push->len = (size_t)n;
        return push;
    }
    *why = !push || !push->der ? "out of memory"
           : n < 0             ? "the argument is not base64: encode the DER response with `base64 -w0 FILE`"
           : n == 0            ? "the response is empty"
                               : "the response has more than 65536 bytes";
    ocspPushFree(push);
    return NULL;
}

unsigned ocspSet(const char *base64, size_t len, char *why, size_t why_size) {
    const char *reason = ocspWhyNotRunning();
    ocspPush *push = reason ? NULL : ocspPushNew(base64, len, &reason);
    unsigned number = 0;

    if (push) reason = ocspPutPush(push, &number);
    if (reason) {
        ocspPushFree(push);
        snprintf(why, why_size, "%s", reason);
        return 0;
    }
    ocspThreadWake();
    return number;
}

#endif /* OCSP_SUPPORTED */
