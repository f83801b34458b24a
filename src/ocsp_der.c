/* ocsp_der.c - checks the bytes of an OCSP response before OpenSSL parses them: they must be DER, and small enough to
 * be parsed and verified on any thread.
 *
 * Parsing is the expensive part: OpenSSL 3 spends about 200 us on the public key of each certificate in a response, and
 * 64 KiB have room for 200 certificates. A client verifies its peer's staple in the handshake, so anyone with a
 * certificate of the CA could stall it. The limits here are far above what responders send, and apply before the first
 * allocation.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED

#define OCSP_MAX_DEPTH 32        /* nesting; a response with certificates has about 12 */
#define OCSP_MAX_DER_VALUES 4096 /* per response; one with a responder's certificate has about 150 */
#define OCSP_MAX_SINGLE_RESPONSES 64
#define OCSP_MAX_SENT_CERTS 8 /* certificates per response */

/* Identifier octets. */
enum {
    TAG_BOOLEAN = 0x01,
    TAG_BIT_STRING = 0x03,
    TAG_OCTET_STRING = 0x04,
    TAG_OID = 0x06,
    TAG_ENUMERATED = 0x0a,
    TAG_GENERALIZED_TIME = 0x18,
    TAG_SEQUENCE = 0x30,
    TAG_SET = 0x31,
    TAG_CONTEXT_0 = 0xa0,
    TAG_CONTEXT_1 = 0xa1,
    TAG_CONTEXT_2 = 0xa2,
};

/* The bytes that remain to be read. */
typedef struct derBytes {
    const unsigned char *at;
    size_t left;
} derBytes;

/* Reads the first value of `from`, its identifier octet and its contents, and advances `from`. Returns 0 if there is
 * none, or if its length is not DER (definite and shortest). */
static int ocspDerNext(derBytes *from, unsigned *tag, derBytes *contents) {
    const unsigned char *der = from->at;
    size_t head = 2, n, i;

    if (from->left < 2 || der[0] == 0 || (der[0] & 0x1f) == 0x1f) return 0;
    n = der[1];
    if (n > 127) {
        head += n & 127;
        if (head == 2 || head > 5 || head > from->left || der[2] == 0) return 0;
        for (n = 0, i = 2; i < head; i++) n = n << 8 | der[i];
        if (n < 128) return 0;
    }
    if (n > from->left - head) return 0;
    *tag = der[0];
    *contents = (derBytes){der + head, n};
    from->at += head + n;
    from->left -= head + n;
    return 1;
}

/* Checks that `bytes` are complete DER values, as far as their encoding shows without the types, and counts them down
 * in *values. Returns 0 if they are not, or if *values became negative. Certificates and names keep the bytes that they
 * were parsed from, so re-encoding a response does not reveal BER in them. */
static int ocspIsDer(derBytes bytes, int depth, int *values) {
    while (bytes.left > 0) {
        unsigned tag;
        derBytes contents;

        if (depth > OCSP_MAX_DEPTH || --*values < 0 || !ocspDerNext(&bytes, &tag, &contents)) return 0;
        if (tag == TAG_BOOLEAN && (contents.left != 1 || (contents.at[0] != 0 && contents.at[0] != 0xff))) return 0;
        if ((tag & 0xe0) == 0x20 && tag != TAG_SEQUENCE && tag != TAG_SET) return 0; /* a constructed string */
        if ((tag & 0x20) && !ocspIsDer(contents, depth + 1, values)) return 0;
    }
    return 1;
}

/* Reads the first value of `from`, which must have this identifier octet. */
static int ocspDerTake(derBytes *from, unsigned tag, derBytes *contents) {
    unsigned found;

    return from->left > 0 && from->at[0] == tag && ocspDerNext(from, &found, contents);
}

/* Counts the values in `bytes`. Returns -1 if one has another identifier octet. */
static int ocspDerCount(derBytes bytes, unsigned tag) {
    derBytes contents;
    int count = 0;

    for (; bytes.left > 0; count++)
        if (!ocspDerTake(&bytes, tag, &contents)) return -1;
    return count;
}

/* Finds the BasicOCSPResponse in a successful OCSPResponse (RFC 6960 section 4.2.1). Its OCTET STRING must contain
 * nothing else. */
static int ocspDerBasic(derBytes response, derBytes *basic) {
    derBytes all, status, bytes, sequence, type, string;

    return ocspDerTake(&response, TAG_SEQUENCE, &all) && ocspDerTake(&all, TAG_ENUMERATED, &status) &&
           ocspDerTake(&all, TAG_CONTEXT_0, &bytes) && ocspDerTake(&bytes, TAG_SEQUENCE, &sequence) &&
           ocspDerTake(&sequence, TAG_OID, &type) && ocspDerTake(&sequence, TAG_OCTET_STRING, &string) &&
           ocspDerTake(&string, TAG_SEQUENCE, basic) && string.left == 0;
}

/* Counts the SingleResponses and certificates of a BasicOCSPResponse. Returns 0 if it is malformed. */
static int ocspDerCounts(derBytes basic, int *singles, int *certs) {
    derBytes data, skipped, list;

    *certs = 0;
    if (!ocspDerTake(&basic, TAG_SEQUENCE, &data) || !ocspDerTake(&basic, TAG_SEQUENCE, &skipped) ||
        !ocspDerTake(&basic, TAG_BIT_STRING, &skipped))
        return 0;
    if (basic.left > 0) {
        if (!ocspDerTake(&basic, TAG_CONTEXT_0, &skipped) || !ocspDerTake(&skipped, TAG_SEQUENCE, &list)) return 0;
        *certs = ocspDerCount(list, TAG_SEQUENCE);
    }
    ocspDerTake(&data, TAG_CONTEXT_0, &skipped); /* version, absent for v1 */
    if (!ocspDerTake(&data, TAG_CONTEXT_1, &skipped) && !ocspDerTake(&data, TAG_CONTEXT_2, &skipped)) return 0;
    if (!ocspDerTake(&data, TAG_GENERALIZED_TIME, &skipped) || !ocspDerTake(&data, TAG_SEQUENCE, &list)) return 0;
    *singles = ocspDerCount(list, TAG_SEQUENCE);
    return *singles >= 0 && *certs >= 0;
}

int ocspDerWhole(const unsigned char *der, size_t len, size_t *following) {
    derBytes bytes = {der, len}, contents;
    unsigned tag;

    if (!ocspDerNext(&bytes, &tag, &contents) || tag != TAG_SEQUENCE) return 0;
    *following = bytes.left;
    return 1;
}

int ocspDerBounded(const unsigned char *der, size_t len, ocspError *err) {
    derBytes all = {der, len}, basic;
    int values = OCSP_MAX_DER_VALUES, singles, certs;

    if (!ocspIsDer(all, 0, &values) || !ocspDerBasic(all, &basic) || !ocspIsDer(basic, 0, &values) ||
        !ocspDerCounts(basic, &singles, &certs)) {
        if (values < 0)
            return ocspFail(
                err, OCSP_FAIL_DER,
                "the response has more than %d ASN.1 values: configure the responder to answer for one certificate",
                OCSP_MAX_DER_VALUES);
        return ocspFail(
            err, OCSP_FAIL_DER,
            "the answer is not a basic OCSP response in DER (RFC 6960 section 4.2.1), or contains bytes that are no "
            "part of it");
    }
    if (singles > OCSP_MAX_SINGLE_RESPONSES)
        return ocspFail(
            err, OCSP_FAIL_DER,
            "the response has %d SingleResponses, more than %d: configure the responder to answer for one certificate",
            singles, OCSP_MAX_SINGLE_RESPONSES);
    if (certs > OCSP_MAX_SENT_CERTS)
        return ocspFail(err, OCSP_FAIL_DER,
                        "the response has %d certificates, more than %d: configure the responder to send only its own",
                        certs, OCSP_MAX_SENT_CERTS);
    return 1;
}

#endif /* OCSP_SUPPORTED */
