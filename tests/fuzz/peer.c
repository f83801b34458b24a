/* peer.c - fuzz target: a peer's staple, to ocspVerifyPeerStaple. The first byte selects the peer's certificate and its
 * chain: pki->leaf, or pki->twin_leaf, of the same name and serial number, from another CA of the same name. The rest
 * is the staple. OpenSSL checks the signer of each staple that is accepted, and of each one that has expired.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

static ocspPeerState verifyAt(const uint8_t *data, size_t size, int twin, time_t now, ocspError *err) {
    const fuzzPki *pki = fuzzGetPki();
    X509 *leaf = twin ? pki->twin_leaf : pki->leaf, *issuer = twin ? pki->twin : pki->ca;
    STACK_OF(X509) *chain = testStack(leaf, issuer, NULL);
    int must_staple = -1;
    ocspPeerState state = ocspVerifyPeerStaple(leaf, chain, (ocspBytes){data, size}, now, &must_staple, err);

    fuzzCheck(must_staple == 0);
    sk_X509_free(chain);
    fuzzCheckQueue();
    return state;
}

/* Returns 1 if the issuer or its authorized responder signed the staple, according to OpenSSL. The second time is for a
 * responder whose notBefore is within the engine's clock skew, which OpenSSL does not allow. */
static int signedForIssuer(const uint8_t *data, size_t size, int twin) {
    X509 *issuer = twin ? fuzzGetPki()->twin : fuzzGetPki()->ca;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &data, (long)size);
    OCSP_BASICRESP *basic = response ? OCSP_response_get1_basic(response) : NULL;
    int ok = basic && (fuzzSignedForIssuer(basic, issuer, TEST_NOW) ||
                       fuzzSignedForIssuer(basic, issuer, TEST_NOW + OCSP_CLOCK_SKEW));

    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return ok;
}

static void one(const uint8_t *data, size_t size) {
    const fuzzPki *pki = fuzzGetPki();
    ocspError err = {0};
    ocspResponse r;
    ocspPeerState state;
    int twin;

    if (size == 0) return;
    twin = data[0] & 1;
    data++, size--;
    ERR_clear_error();
    testCountFromZero();
    state = verifyAt(data, size, twin, TEST_NOW, &err);
    fuzzCheck(test_verifications <= 1 + OCSP_MAX_VERIFICATIONS); /* one to find the issuer of its certificate */
    fuzzCheck(state != OCSP_PEER_MISSING);
    if (state != OCSP_PEER_GOOD) fuzzCheckError(&err);
    /* An expired staple, too, has a valid signature by an authorized signer: else it is bad, and soft rejects it. */
    if (state != OCSP_PEER_BAD) fuzzCheck(signedForIssuer(data, size, twin));
    if (state == OCSP_PEER_GOOD || state == OCSP_PEER_REVOKED) {
        /* The rules are those for stapling, with an unknown time of receipt. */
        fuzzCheck(ocspVerify((ocspBytes){data, size}, twin ? pki->twin_id : pki->id, TEST_NOW, OCSP_RECEIVED_UNKNOWN,
                             &r, &err));
        fuzzCheck(r.revoked == (state == OCSP_PEER_REVOKED));
        fuzzCheck(r.next_update || TEST_NOW < r.this_update + OCSP_CLOCK_SKEW + OCSP_DEFAULT_VALIDITY);
        /* It is no response for the certificate of the other CA of this name. */
        fuzzCheck(verifyAt(data, size, !twin, TEST_NOW, &err) == OCSP_PEER_BAD);
        ocspResponseClear(&r);
    }
}

static size_t mutate(uint8_t *data, size_t size, size_t max, unsigned seed, fuzzBytes *bytes) {
    if (size < 2) return bytes(data, size, max);
    if (seed % 64 == 0) data[0] ^= 1;
    return fuzz_response.mutate(data + 1, size - 1, max - 1, seed, bytes) + 1;
}

static fuzzKeep *keep_seed;

static void keepBoth(const char *name, const void *bytes, size_t size) {
    uint8_t *with = malloc(size + 1);
    char other[64];

    fuzzCheck(with);
    if (size) memcpy(with + 1, bytes, size);
    with[0] = 0;
    keep_seed(name, with, size + 1);
    with[0] = 1;
    snprintf(other, sizeof(other), "%s-for-twin", name);
    keep_seed(other, with, size + 1);
    free(with);
}

static void seeds(fuzzKeep *keep) {
    keep_seed = keep;
    fuzz_response.seeds(keepBoth);
}

const fuzzTarget fuzz_peer = {"peer", one, seeds, mutate};
