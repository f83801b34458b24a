/* chain.c - fuzz target: the responses that a peer staples for its whole chain, to ocspVerifyPeerChain, by way of what
 * OpenSSL 3.6 makes of them. The first byte selects which part of a chain of five certificates the peer has; pki->leaf takes
 * the place of a CA in it, so that the seeds of response.c are about that CA. Then each response follows two bytes of its
 * length; of length 0: there is none in that place. OpenSSL checks the signer of each revocation that is believed.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>

#define CHAIN_CERTS 5
#define CHAIN_MAX 12 /* responses in one handshake; a Certificate message of OpenSSL's clients has 100 KiB at most */

/* From the leaf to the root. */
static X509 *const *chainCerts(void) {
    static X509 *certs[CHAIN_CERTS];
    const fuzzPki *pki = fuzzGetPki();

    if (certs[0]) return certs;
    certs[4] = pki->ca;
    certs[3] = pki->leaf;
    certs[2] = testCert(&(testCertSpec){.name = "Sub",
                                        .issuer = pki->leaf,
                                        .issuer_key = pki->responder_key,
                                        .key = pki->ca_key,
                                        .ca = 1,
                                        .serial = "11"});
    certs[1] = testCert(&(testCertSpec){.name = "Low",
                                        .issuer = certs[2],
                                        .issuer_key = pki->ca_key,
                                        .key = pki->responder_key,
                                        .ca = 1,
                                        .serial = "12"});
    certs[0] = testCert(&(testCertSpec){
        .name = "end", .issuer = certs[1], .issuer_key = pki->responder_key, .key = pki->ca_key, .serial = "13"});
    return certs;
}

/* ---- OpenSSL's list ---------------------------------------------------------------------------------------------- */

static OPENSSL_STACK *received; /* shown in place of what OpenSSL 3.6 received */

long __real_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer);
long __wrap_SSL_ctrl(SSL *ssl, int command, long number, void *pointer) {
    if (command != 142 || ssl) return __real_SSL_ctrl(ssl, command, number, pointer);
    *(OPENSSL_STACK **)pointer = received;
    return 1;
}

static void freeResponse(void *response) {
    OCSP_RESPONSE_free(response);
}

/* Parses all of them into `received`. 0: one does not parse, and OpenSSL would end the handshake. */
static int receive(const uint8_t *data, size_t size) {
    size_t at, len;
    int ok = 1;

    received = OPENSSL_sk_new_null();
    for (at = 0; ok && at + 2 <= size && OPENSSL_sk_num(received) < CHAIN_MAX; at += 2 + len) {
        const unsigned char *p = data + at + 2;
        OCSP_RESPONSE *response = NULL;
        len = (size_t)data[at] << 8 | data[at + 1];
        if (len > size - at - 2) len = size - at - 2;
        if (len) ok = (response = d2i_OCSP_RESPONSE(NULL, &p, (long)len)) != NULL && p == data + at + 2 + len;
        fuzzCheck(OPENSSL_sk_push(received, response));
    }
    ERR_clear_error();
    return ok;
}

/* ---- one input --------------------------------------------------------------------------------------------------- */

/* Returns 1 if this says, by OpenSSL's judgement, too, that `ca` was revoked. */
static int revokes(ocspBytes der, X509 *ca, X509 *issuer) {
    ocspIdentity id = {.leaf = ca, .issuer = issuer, .serial = "", .not_after = INT64_MAX};
    const unsigned char *p = der.data;
    ocspResponse r;
    OCSP_RESPONSE *response;
    OCSP_BASICRESP *basic;
    int revoked;

    if (!ocspVerify(der, &id, TEST_NOW, OCSP_RECEIVED_UNKNOWN, &r, NULL)) return 0;
    revoked = r.revoked;
    ocspResponseClear(&r);
    if (!revoked) return 0;
    response = d2i_OCSP_RESPONSE(NULL, &p, (long)der.len);
    basic = OCSP_response_get1_basic(response);
    fuzzCheck(fuzzSignedForIssuer(basic, issuer, TEST_NOW) ||
              fuzzSignedForIssuer(basic, issuer, TEST_NOW + OCSP_CLOCK_SKEW));
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return 1;
}

static void judge(const ocspBytes *all, int count, STACK_OF(X509) *chain) {
    ocspError err = {.may_change_at = OCSP_NEVER};
    int certs = sk_X509_num(chain), i, j, revocations = 0;
    ocspPeerState state;

    testCountFromZero();
    state = ocspVerifyPeerChain(chain, all, count, TEST_NOW, &err);
    fuzzCheck(test_verifications <= (OCSP_MAX_CHAIN - 1) * OCSP_MAX_VERIFICATIONS);
    fuzzCheck(test_parsed <= (OCSP_MAX_CHAIN - 1) * count);
    fuzzCheckQueue();
    for (i = 1; i + 1 < certs && i < OCSP_MAX_CHAIN; i++)
        for (j = 0; j < count; j++)
            revocations += revokes(all[j], sk_X509_value(chain, i), sk_X509_value(chain, i + 1));
    fuzzCheck(state == OCSP_PEER_GOOD || state == OCSP_PEER_REVOKED || state == OCSP_PEER_BAD);
    if (state != OCSP_PEER_GOOD) fuzzCheckError(&err);
    if (state == OCSP_PEER_REVOKED) fuzzCheck(revocations > 0 && strstr(err.text, "REVOKED"));
    if (count == 1 && revocations) fuzzCheck(state == OCSP_PEER_REVOKED);
    fuzzCheck(err.may_change_at > TEST_NOW);
}

static void one(const uint8_t *data, size_t size) {
    ocspBytes all[OCSP_MAX_CHAIN];
    STACK_OF(X509) *chain = sk_X509_new_null();
    int i, total, count = 0;

    ERR_clear_error();
    for (i = size ? data[0] % CHAIN_CERTS : 0; i < CHAIN_CERTS; i++) sk_X509_push(chain, chainCerts()[i]);
    if (size && data[0] & 0x80) sk_X509_pop(chain);
    if (size && receive(data + 1, size - 1)) {
        total = ocspChainReceived(NULL);
        fuzzCheck(total == OPENSSL_sk_num(received));
        for (i = 0; i < total && count < OCSP_MAX_CHAIN; i++) {
            unsigned char *copy;
            fuzzCheck(ocspChainResponse(NULL, i, &copy, &all[count].len));
            fuzzCheck((copy != NULL) == (OPENSSL_sk_value(received, i) != NULL));
            all[count].data = copy;
            count += copy != NULL;
        }
        judge(all, count, chain);
    }
    while (count > 0) OPENSSL_free((void *)all[--count].data);
    OPENSSL_sk_pop_free(received, freeResponse);
    received = NULL;
    sk_X509_free(chain);
}

/* ---- inputs ------------------------------------------------------------------------------------------------------ */

/* Returns the offset of the response `n`, or of the last one. */
static size_t find(const uint8_t *data, size_t size, unsigned n, size_t *len) {
    size_t at = 1, next;

    for (;; at = next, n--) {
        *len = (size_t)data[at] << 8 | data[at + 1];
        if (*len > size - at - 2) *len = size - at - 2;
        next = at + 2 + *len;
        if (n == 0 || next + 2 > size) return at;
    }
}

static size_t mutate(uint8_t *data, size_t size, size_t max, unsigned seed, fuzzBytes *bytes) {
    static uint8_t copy[65536];
    unsigned random = seed;
    size_t at, len, fresh;

    if (size < 3 || fuzzRandom(&random) % 32 == 0) return bytes(data, size, max);
    if (fuzzRandom(&random) % 16 == 0) data[0] = (uint8_t)fuzzRandom(&random);
    at = find(data, size, fuzzRandom(&random) % OCSP_MAX_CHAIN, &len);
    memcpy(copy, data + at + 2, len);
    fresh = len;
    switch (fuzzRandom(&random) % 8) {
    case 0: fresh = 0; break;
    case 1: /* twice */
        if (size + 2 + len > max) return size;
        memmove(data + at + 2 + len, data + at, size - at);
        return size + 2 + len;
    default: fresh = fuzz_response.mutate(copy, len, sizeof(copy) - 1, fuzzRandom(&random), bytes);
    }
    if (size - len + fresh > max) return size;
    memmove(data + at + 2 + fresh, data + at + 2 + len, size - at - 2 - len);
    memcpy(data + at + 2, copy, fresh);
    data[at] = (uint8_t)(fresh >> 8);
    data[at + 1] = (uint8_t)fresh;
    return size - len + fresh;
}

static fuzzKeep *keep_seed;

static void keepList(const char *name, int first, const testBytes *all, int count) {
    testBytes input = testCopy((const unsigned char[]){(unsigned char)first}, 1);

    for (int i = 0; i < count; i++) {
        const unsigned char len[] = {(unsigned char)(all[i].n >> 8), (unsigned char)all[i].n};
        input = testJoin(testJoin(input, testCopy(len, 2)), testCopy(all[i].p, all[i].n));
    }
    keep_seed(name, input.p, input.n);
    testBytesFree(&input);
}

static void keepAlone(const char *name, const void *bytes, size_t size) {
    testBytes all = testCopy(bytes, size);

    if (size <= 65535) keepList(name, 2, &all, 1);
    testBytesFree(&all);
}

static testBytes replyFor(int at, testStatus status, size_t padding, int forged) {
    const fuzzPki *pki = fuzzGetPki();
    X509 *const *certs = chainCerts();
    testReply r = {.count = 1, .signer = certs[at + 1], .key = at % 2 ? pki->ca_key : pki->responder_key};

    r.singles[0] = (testSingle){.cert = certs[at],
                                .issuer = certs[at + 1],
                                .status = status,
                                .this_update = TEST_NOW - 3600,
                                .next_update = TEST_NOW + TEST_DAY};
    r.padding = padding;
    r.break_signature = forged;
    return testReplyDer(&r);
}

static void seeds(fuzzKeep *keep) {
    testBytes good[OCSP_MAX_CHAIN], revoked[OCSP_MAX_CHAIN], none = {NULL, 0};
    testBytes forged = replyFor(3, TEST_REVOKED, 0, 1), large = replyFor(2, TEST_GOOD, 30000, 0);

    keep_seed = keep;
    fuzz_response.seeds(keepAlone);
    for (int i = 0; i < OCSP_MAX_CHAIN; i++) {
        good[i] = replyFor(i, TEST_GOOD, 0, 0);
        revoked[i] = replyFor(i, TEST_REVOKED, 0, 0);
    }
    keepList("chain-good", 0, good, 4);
    keepList("chain-good-without-the-root", 0x80 | 4 * CHAIN_CERTS, good, 4);
    keepList("chain-revoked", 0, revoked, 4);
    keepList("chain-of-two", 3, good + 3, 1);
    keepList("chain-last-revoked", 0, (testBytes[]){good[0], good[1], good[2], revoked[3]}, 4);
    keepList("chain-gaps", 0, (testBytes[]){none, none, good[2], revoked[3]}, 4);
    keepList("chain-forged-first", 0, (testBytes[]){good[0], forged, revoked[3]}, 3);
    keepList("chain-same", 0, (testBytes[]){good[3], good[3], revoked[3], forged}, 4);
    keepList("chain-large", 0, (testBytes[]){good[0], large, large}, 3);
    keepList("chain-many", 0, (testBytes[]){none, none, none, none, good[1], good[2], revoked[3], forged}, 8);
    keepList("chain-empty", 0, NULL, 0);
    for (int i = 0; i < OCSP_MAX_CHAIN; i++) {
        testBytesFree(&good[i]);
        testBytesFree(&revoked[i]);
    }
    testBytesFree(&forged);
    testBytesFree(&large);
}

const fuzzTarget fuzz_chain = {"chain", one, seeds, mutate};
