/* ocsp_text.c - describes a stapled response in text, with the names of RFC 6960, for OCSP.GET. Everything in it that
 * came from outside (names, serial numbers, OIDs) is cleaned and cut.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/x509v3.h>

#define OCSP_TEXT_EXTENSIONS 8 /* of a list, with the number of the others: OCSP_TEXT_MAX has room for them */

/* ---- parts ------------------------------------------------------------------------------------------------------- */

const char *ocspSourceName(ocspSource source) {
    switch (source) {
    case OCSP_SOURCE_NETWORK: return "network";
    case OCSP_SOURCE_CACHE: return "cache";
    case OCSP_SOURCE_FILE: return "file";
    case OCSP_SOURCE_PUSHED: return "pushed";
    default: return "none";
    }
}

char *ocspNameText(const X509_NAME *name, char *out, size_t size) {
    BIO *mem = BIO_new(BIO_s_mem());
    char raw[2 * OCSP_OUTSIDE_TEXT_MAX] = "";

    if (mem && X509_NAME_print_ex(mem, name, 0, XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        int len = BIO_read(mem, raw, sizeof(raw) - 1);
        raw[len > 0 ? len : 0] = '\0';
    }
    BIO_free(mem);
    return ocspCleanText(out, size, raw);
}

/* Formats bytes in upper-case hexadecimal, cut like external text. */
static char *ocspHexText(const ASN1_OCTET_STRING *bytes, char *out, size_t size) {
    const unsigned char *p = ASN1_STRING_get0_data(bytes);
    int i, n = ASN1_STRING_length(bytes);

    out[0] = '\0';
    for (i = 0; i < n && (size_t)i * 2 + 3 <= size && i * 2 < OCSP_OUTSIDE_TEXT_MAX; i++)
        snprintf(out + (size_t)i * 2, 3, "%02X", p[i]);
    return out;
}

/* Formats an object identifier by its name, or in digits where OpenSSL knows none. */
static char *ocspObjectText(const ASN1_OBJECT *object, char *out, size_t size) {
    char raw[OCSP_OUTSIDE_TEXT_MAX + 1] = "";

    OBJ_obj2txt(raw, sizeof(raw), object, 0);
    return ocspCleanText(out, size, raw);
}

/* ---- lines ------------------------------------------------------------------------------------------------------- */

typedef struct ocspLines {
    char *out;
    size_t size, used; /* used < size; what does not fit is left out */
} ocspLines;

static void ocspAdd(ocspLines *lines, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

static void ocspAdd(ocspLines *lines, const char *fmt, ...) {
    size_t left = lines->size - lines->used;
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(lines->out + lines->used, left, fmt, ap);
    va_end(ap);
    if (n > 0) lines->used += (size_t)n < left ? (size_t)n : left - 1;
}

/* Adds "name: time" in UTC and in Unix seconds. */
static void ocspAddTime(ocspLines *lines, const char *name, const ASN1_GENERALIZEDTIME *time) {
    char when[40];
    int ok;
    int64_t t = ocspTime(time, &ok);

    ocspAdd(lines, "%s: %s (%lld)\n", name, ocspUtcText(t, when, sizeof(when)), (long long)t);
}

static void ocspAddStatus(ocspLines *lines, OCSP_SINGLERESP *single) {
    ASN1_GENERALIZEDTIME *revoked_at = NULL, *this_update = NULL, *next_update = NULL;
    int reason = -1, status = OCSP_single_get0_status(single, &reason, &revoked_at, &this_update, &next_update);

    ocspAdd(lines, "certStatus: %s\n", OCSP_cert_status_str(status));
    if (status == V_OCSP_CERTSTATUS_REVOKED) {
        ocspAddTime(lines, "revocationTime", revoked_at);
        if (reason >= 0) ocspAdd(lines, "revocationReason: %s\n", OCSP_crl_reason_str(reason));
    }
    ocspAddTime(lines, "thisUpdate", this_update);
    if (next_update)
        ocspAddTime(lines, "nextUpdate", next_update);
    else
        ocspAdd(lines, "nextUpdate: absent\n");
}

static void ocspAddResponder(ocspLines *lines, const OCSP_BASICRESP *basic) {
    const ASN1_OCTET_STRING *key_hash = NULL;
    const X509_NAME *name = NULL;
    char text[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (!OCSP_resp_get0_id(basic, &key_hash, &name)) return;
    if (name)
        ocspAdd(lines, "responderID: byName %s\n", ocspNameText(name, text, sizeof(text)));
    else
        ocspAdd(lines, "responderID: byKey %s\n", ocspHexText(key_hash, text, sizeof(text)));
}

static void ocspAddSigner(ocspLines *lines, OCSP_BASICRESP *basic, const ocspIdentity *id, int64_t now) {
    X509 *signer = ocspFindSigner(basic, id, now, NULL);
    char text[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (!signer) { /* the clock was set back, or memory has run out */
        ocspAdd(lines, "signer: unknown\n");
        return;
    }
    ocspAdd(lines, "signer: %s\n", signer == id->issuer ? "the issuer of the certificate" : "an authorized responder");
    ocspAdd(lines, "signer subject: %s\n", ocspNameText(X509_get_subject_name(signer), text, sizeof(text)));
    ocspAdd(lines, "signer serialNumber: %s\n", ocspSerialText(X509_get0_serialNumber(signer), text, sizeof(text)));
    ocspAddTime(lines, "signer notAfter", X509_get0_notAfter(signer));
}

static void ocspAddCertId(ocspLines *lines, OCSP_SINGLERESP *single) {
    ASN1_OCTET_STRING *name_hash = NULL, *key_hash = NULL;
    ASN1_OBJECT *digest = NULL;
    ASN1_INTEGER *serial = NULL;
    char text[OCSP_OUTSIDE_TEXT_MAX + 1];

    OCSP_id_get0_info(&name_hash, &digest, &key_hash, &serial, (OCSP_CERTID *)OCSP_SINGLERESP_get0_id(single));
    ocspAdd(lines, "CertID hashAlgorithm: %s\n", ocspObjectText(digest, text, sizeof(text)));
    ocspAdd(lines, "CertID issuerNameHash: %s\n", ocspHexText(name_hash, text, sizeof(text)));
    ocspAdd(lines, "CertID issuerKeyHash: %s\n", ocspHexText(key_hash, text, sizeof(text)));
    ocspAdd(lines, "CertID serialNumber: %s\n", ocspSerialText(serial, text, sizeof(text)));
}

/* Adds one extension to a list; the names of the first ones only. */
static void ocspAddExtension(ocspLines *lines, int i, const X509_EXTENSION *extension) {
    char text[OCSP_OUTSIDE_TEXT_MAX + 1];

    if (i < OCSP_TEXT_EXTENSIONS)
        ocspAdd(lines, "%s%s%s", i ? ", " : "",
                ocspObjectText(X509_EXTENSION_get_object((X509_EXTENSION *)extension), text, sizeof(text)),
                X509_EXTENSION_get_critical(extension) ? " (critical)" : "");
}

static void ocspAddExtensions(ocspLines *lines, OCSP_BASICRESP *basic, OCSP_SINGLERESP *single) {
    int i, n = OCSP_BASICRESP_get_ext_count(basic);

    ocspAdd(lines, "responseExtensions: %s", n > 0 ? "" : "none");
    for (i = 0; i < n; i++) ocspAddExtension(lines, i, OCSP_BASICRESP_get_ext(basic, i));
    if (n > OCSP_TEXT_EXTENSIONS) ocspAdd(lines, " and %d more", n - OCSP_TEXT_EXTENSIONS);
    n = OCSP_SINGLERESP_get_ext_count(single);
    ocspAdd(lines, "\nsingleExtensions: %s", n > 0 ? "" : "none");
    for (i = 0; i < n; i++) ocspAddExtension(lines, i, OCSP_SINGLERESP_get_ext(single, i));
    if (n > OCSP_TEXT_EXTENSIONS) ocspAdd(lines, " and %d more", n - OCSP_TEXT_EXTENSIONS);
    ocspAdd(lines, "\n");
}

static void ocspAddAll(ocspLines *lines,
                       const ocspStaple *staple,
                       const ocspIdentity *id,
                       OCSP_BASICRESP *basic,
                       OCSP_SINGLERESP *single,
                       int64_t now) {
    char text[OCSP_OUTSIDE_TEXT_MAX + 1], when[40];
    const ASN1_OBJECT *algorithm = NULL;

    ocspAdd(lines, "responseStatus: successful\n"); /* no other is stapled */
    ocspAddStatus(lines, single);
    ocspAddTime(lines, "producedAt", OCSP_resp_get0_produced_at(basic));
    ocspAdd(lines, "stapled until: %s (%lld), %lld seconds left\n", ocspUtcText(staple->expires_at, when, sizeof(when)),
            (long long)staple->expires_at, (long long)(staple->expires_at - now));
    ocspAddResponder(lines, basic);
    ocspAddSigner(lines, basic, id, now);
    ocspAddCertId(lines, single);
    X509_ALGOR_get0(&algorithm, NULL, NULL, OCSP_resp_get0_tbs_sigalg(basic));
    ocspAdd(lines, "signatureAlgorithm: %s\n", ocspObjectText(algorithm, text, sizeof(text)));
    ocspAddExtensions(lines, basic, single);
    ocspAdd(lines, "SingleResponses: %d\n", OCSP_resp_count(basic));
    ocspAdd(lines, "source: %s\n", ocspSourceName(staple->source));
    ocspAdd(lines, "size: %zu bytes\n", staple->len);
}

int ocspResponseText(const ocspStaple *staple, int64_t now, char *out, size_t size) {
    char none[] = "";
    const ocspIdentity id = {.leaf = staple->leaf, .issuer = staple->issuer, .serial = none};
    const unsigned char *p = staple->der;
    ocspLines lines = {out, size, 0};
    OCSP_SINGLERESP *single = NULL;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic;

    out[0] = '\0';
    ERR_set_mark();
    response = d2i_OCSP_RESPONSE(NULL, &p, (long)staple->len);
    basic = response ? OCSP_response_get1_basic(response) : NULL;
    if (basic && id.issuer) single = ocspSingleResponseOf(basic, &id, now);
    if (single) ocspAddAll(&lines, staple, &id, basic, single, now);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_pop_to_mark();
    return single != NULL; /* the response was verified before: only a lack of memory leads to another end */
}

#endif /* OCSP_SUPPORTED */
