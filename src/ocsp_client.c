/* ocsp_client.c - the check of a server's staple for programs that are TLS clients only: libocsp-staple.a, and
 * valkey-cli and valkey-benchmark in a patched tree.
 *
 * DESIGN: a server that verifies its peers (ocsp_peer.c) counts, logs and remembers; a client needs one verdict and one
 * sentence for the person who runs it. Both call ocspVerifyPeerStaple. Needs no other part of the engine: no thread, no
 * network, no host.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include "ocsp_staple.h"
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <openssl/err.h>

/* Ex_data index of an SSL for its sentence; -1: out of memory. */
static int error_index = -1;
static pthread_once_t error_index_once = PTHREAD_ONCE_INIT;

static void ocspFreeStapleError(void *ssl, void *sentence, CRYPTO_EX_DATA *data, int index, long argl, void *argp) {
    (void)ssl;
    (void)data;
    (void)index;
    (void)argl;
    (void)argp;
    ocspFree(sentence);
}

static void ocspMakeErrorIndex(void) {
    error_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, ocspFreeStapleError);
}

/* Writes the sentence for whoever runs the client. `id` may be NULL; `reason` is the engine's. */
static void ocspStapleSentence(const SSL *ssl,
                               const ocspIdentity *id,
                               ocspPeerState state,
                               const char *reason,
                               char *why,
                               size_t size) {
    const char *serial = id ? id->serial : "?";

    if (state == OCSP_PEER_MISSING && SSL_session_reused(ssl))
        snprintf(why, size,
                 "the TLS session was resumed, and a resumed session carries no OCSP staple: connect without a stored "
                 "session");
    else if (state == OCSP_PEER_MISSING)
        snprintf(
            why, size,
            "the server stapled no OCSP response, so it is unknown whether its certificate (serial %s) was revoked: "
            "ask its operator to turn on OCSP stapling",
            serial);
    else if (state == OCSP_PEER_REVOKED)
        snprintf(why, size,
                 "the server's certificate (serial %s) was %s: do not use this server before its operator has replaced "
                 "the certificate",
                 serial, reason);
    else
        snprintf(why, size,
                 "the OCSP response that the server stapled for its certificate (serial %s) was rejected: %s", serial,
                 reason);
}

/* Returns the identity of the server's certificate, with its issuer if that is known; NULL when out of memory. Without
 * a verified chain (SSL_VERIFY_NONE) the issuer is looked for in what the server sent and in the context's trusted
 * certificates. */
static ocspIdentity *ocspServerIdentity(const SSL *ssl, X509 *leaf) {
    ocspX509Stack *verified = SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_verified_chain(ssl) : NULL;

    if (verified) return ocspIdentityNew(leaf, verified, NULL);
    return ocspIdentityNew(leaf, SSL_get_peer_cert_chain(ssl), SSL_CTX_get_cert_store(SSL_get_SSL_CTX(ssl)));
}

int ocspStapleCheck(SSL *ssl, ocspStaplePolicy policy, char *why, size_t size) {
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    const unsigned char *der = NULL;
    ocspPeerState state = OCSP_PEER_BAD;
    ocspIdentity *id;
    ocspError err = {0};
    int accepted;
    long len;

    ERR_set_mark(); /* an error left in OpenSSL's queue would be reported instead of the refusal */
    id = leaf ? ocspServerIdentity(ssl, leaf) : NULL;
    len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    if (id)
        state = ocspVerifyStaple(id, SSL_get0_verified_chain(ssl),
                                 (ocspBytes){len >= 0 ? der : NULL, len > 0 ? (size_t)len : 0}, time(NULL), &err);
    else
        ocspFail(&err, OCSP_FAIL_PEER, leaf ? "out of memory" : "the server showed no certificate");
    accepted = state == OCSP_PEER_GOOD;
    /* An unparsable tls-feature extension counts as must-staple. */
    if (policy == OCSP_STAPLE_SOFT && id && !id->must_staple && !id->tls_feature_unparsed)
        accepted |= state == OCSP_PEER_MISSING;
    if (!accepted) ocspStapleSentence(ssl, id, state, err.text, why, size);
    ocspIdentityFree(id);
    ERR_pop_to_mark();
    return accepted;
}

/* The status callback of a context. Returns 1, or 0: OpenSSL ends the handshake with the alert
 * bad_certificate_status_response. On a server the context staples nothing. */
static int ocspStapleCallback(SSL *ssl, void *policy) {
    char why[OCSP_STAPLE_ERROR_MAX];
    char *copy;

    if (SSL_is_server(ssl)) return SSL_TLSEXT_ERR_NOACK;
    if (ocspStapleCheck(ssl, (ocspStaplePolicy)(uintptr_t)policy, why, sizeof(why))) return 1;
    copy = ocspStrdup(why);
    ocspFree(SSL_get_ex_data(ssl, error_index));
    if (!SSL_set_ex_data(ssl, error_index, copy)) ocspFree(copy);
    return 0;
}

int ocspStapleInstall(SSL_CTX *ctx, ocspStaplePolicy policy) {
    pthread_once(&error_index_once, ocspMakeErrorIndex);
    return error_index >= 0 && SSL_CTX_set_tlsext_status_type(ctx, TLSEXT_STATUSTYPE_ocsp) &&
           SSL_CTX_set_tlsext_status_cb(ctx, ocspStapleCallback) &&
           SSL_CTX_set_tlsext_status_arg(ctx, (void *)(uintptr_t)policy);
}

const char *ocspStapleError(const SSL *ssl) {
    return error_index >= 0 ? SSL_get_ex_data(ssl, error_index) : NULL;
}

#endif /* OCSP_SUPPORTED */
