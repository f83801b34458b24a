/* ocsp_chain.c - the responses for all certificates of a chain in one handshake, which OpenSSL can send and receive since
 * 3.6 (RFC 8446 section 4.4.2.1).
 *
 * The two calls are macros over SSL_ctrl, which answers 0 in older releases. So one binary, built with any OpenSSL 3,
 * uses them where the library has them. The numbers are part of OpenSSL's ABI.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <openssl/crypto.h>

#define OCSP_CTRL_GET_RESPONSES 142 /* SSL_CTRL_GET_TLSEXT_STATUS_REQ_OCSP_RESP_EX */
#define OCSP_CTRL_SET_RESPONSES 143 /* SSL_CTRL_SET_TLSEXT_STATUS_REQ_OCSP_RESP_EX */
#define OCSP_OPENSSL_3_6 0x30600000UL

int ocspChainSupported(void) {
    return OpenSSL_version_num() >= OCSP_OPENSSL_3_6;
}

static int ocspIsValid(const ocspStaple *staple, int64_t now) {
    return staple->der && now < staple->expires_at;
}

static void ocspFreeParsed(void *response) {
    OCSP_RESPONSE_free(response);
}

/* Appends the parsed response; `staple` NULL: nothing for that certificate. 0: out of memory. */
static int ocspPushParsed(OPENSSL_STACK *stack, const ocspStaple *staple) {
    const unsigned char *der = staple ? staple->der : NULL;
    OCSP_RESPONSE *response = staple ? d2i_OCSP_RESPONSE(NULL, &der, (long)staple->len) : NULL;

    if ((response || !staple) && OPENSSL_sk_push(stack, response)) return 1;
    OCSP_RESPONSE_free(response);
    return 0;
}

int ocspChainStaple(SSL *ssl,
                    const ocspStapleSet *set,
                    const ocspStaple *leaf,
                    size_t leaf_len,
                    int64_t now,
                    int *leaf_sent) {
    const ocspStaple *all[OCSP_MAX_CHAIN] = {NULL};
    OPENSSL_STACK *stack;
    int i, ok, count = 0, in_chain = 0;

    *leaf_sent = 0;
    if (SSL_version(ssl) < TLS1_3_VERSION) return 0;
    if (ocspIsValid(leaf, now) && leaf->len <= leaf_len) all[0] = leaf;
    for (i = 1; i < OCSP_MAX_CHAIN; i++) {
        int at = leaf->chain[i - 1];
        if (at < 0 || !ocspIsValid(&set->staples[at], now)) continue;
        all[i] = &set->staples[at];
        in_chain++;
        count = i + 1;
    }
    if (!in_chain) return 0;
    stack = OPENSSL_sk_new_null();
    ok = stack != NULL;
    for (i = 0; ok && i < count; i++) ok = ocspPushParsed(stack, all[i]);
    /* On success OpenSSL owns the stack and what is in it. */
    if (ok && SSL_ctrl(ssl, OCSP_CTRL_SET_RESPONSES, 0, stack) == 1) {
        *leaf_sent = all[0] != NULL;
        return in_chain;
    }
    OPENSSL_sk_pop_free(stack, ocspFreeParsed);
    return 0;
}

static OPENSSL_STACK *ocspReceivedStack(SSL *ssl) {
    OPENSSL_STACK *responses = NULL;

    SSL_ctrl(ssl, OCSP_CTRL_GET_RESPONSES, 0, &responses); /* OpenSSL owns them */
    return responses;
}

int ocspChainReceived(SSL *ssl) {
    int count = OPENSSL_sk_num(ocspReceivedStack(ssl));

    return count > 0 ? count : 0;
}

int ocspChainResponse(SSL *ssl, int i, unsigned char **der, size_t *len) {
    int size;

    *der = NULL;
    size = i2d_OCSP_RESPONSE(OPENSSL_sk_value(ocspReceivedStack(ssl), i), der);
    *len = size > 0 ? (size_t)size : 0;
    return size >= 0;
}

#endif /* OCSP_SUPPORTED */
