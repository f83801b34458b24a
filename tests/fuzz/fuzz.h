/* fuzz.h - shared by the fuzz targets. Each target passes untrusted bytes to one source file of the engine and checks
 * properties that must hold for any input. `make fuzz TIME=seconds` runs the targets under libFuzzer, `make test`
 * replays their seeds and a fixed sequence of mutations of the seeds.
 *
 * A target is one file: http.c (an HTTP response to ocspFetch), response.c (an OCSP response), certificate.c (the
 * served certificate), cache.c (a cache directory), directive.c (values of directives, URLs), peer.c (a peer's staple),
 * chain.c (a peer's staples for its chain), nodes.c (what a server tells ocsp-probe --all-nodes).
 * TARGET.dict is libFuzzer's dictionary. Each target generates its own seeds, with constant keys (pki.c), so that a
 * finding, a file of bytes, can be reproduced on every machine: `build/fuzz-replay TARGET FILE...`.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_FUZZ_H
#define OCSP_FUZZ_H

#include "../c/support.h"

#define FUZZ_MAX_BYTES (80 * 1024) /* maximum input size, above every bound of the engine */

/* Mutates `size` bytes in place, with room for `max`, and returns the new size. By libFuzzer or by replay.c. */
typedef size_t fuzzBytes(uint8_t *data, size_t size, size_t max);
/* Stores one seed. */
typedef void fuzzKeep(const char *name, const void *bytes, size_t size);

typedef struct fuzzTarget {
    const char *name;
    void (*one)(const uint8_t *data, size_t size); /* runs one input; aborts if a check fails */
    void (*seeds)(fuzzKeep *keep);
    /* Mutates an input and keeps the lengths and signatures valid, which `bytes` alone would break. NULL: `bytes`
     * alone. */
    size_t (*mutate)(uint8_t *data, size_t size, size_t max, unsigned seed, fuzzBytes *bytes);
} fuzzTarget;

extern const fuzzTarget fuzz_http, fuzz_response, fuzz_certificate, fuzz_cache, fuzz_directive, fuzz_peer, fuzz_chain,
    fuzz_nodes;
extern const fuzzTarget *const fuzz_targets[]; /* ends with NULL */
const fuzzTarget *fuzzFind(const char *name);  /* returns NULL if there is no target of that name */

/* Aborts if the condition is false: both libFuzzer and debuggers catch abort(). */
#define fuzzCheck(condition)                                                              \
    do {                                                                                  \
        if (!(condition)) {                                                               \
            fprintf(stderr, "%s:%d: check failed: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                      \
        }                                                                                 \
    } while (0)

/* Returns 1 if OpenSSL finds that `issuer` or its authorized responder signed this, at the time `at` (response.c). */
int fuzzSignedForIssuer(OCSP_BASICRESP *basic, X509 *issuer, time_t at);

/* Checks the error of a failed call: a kind, and a sentence without control characters, for INFO and the log. */
void fuzzCheckError(const ocspError *err);
/* Checks that no error of OpenSSL is left in the thread's error queue. */
void fuzzCheckQueue(void);

/* ---- a constant PKI (pki.c) -------------------------------------------------------------------------------------- */

typedef struct fuzzPki {
    EVP_PKEY *ca_key, *responder_key; /* RSA: signatures without a random part are reproducible */
    X509 *ca, *leaf;
    X509 *responder;          /* authorized responder: OCSPSigning, issued by ca */
    X509 *responder_no_eku;   /* the same key and name, serverAuth only */
    X509 *responder_expired;  /* as responder, expired a day before TEST_NOW */
    X509 *responder_short;    /* as responder, expires 100 s after TEST_NOW */
    X509 *responder_critical; /* as responder, with an unknown critical extension */
    X509 *twin;               /* another CA of ca's name, with the responder's key, self-signed */
    X509 *twin_leaf;          /* name and serial number of leaf, issued by twin */
    ocspIdentity *id, *twin_id;
} fuzzPki;

/* Returns the PKI, which the first call creates. */
const fuzzPki *fuzzGetPki(void);

/* ---- DER (der.c) ------------------------------------------------------------------------------------------------- */

/* Mutates a random value inside `data` and corrects the lengths of all values around it. Returns the new size. Applies
 * `bytes` to the whole input if it is not DER. */
size_t fuzzDerMutate(uint8_t *data, size_t size, size_t max, unsigned *random, fuzzBytes *bytes);
unsigned fuzzRandom(unsigned *random);

/* Replaces the signature of SEQUENCE { tbs, algorithm, BIT STRING } at data[at] by one of `key`, if both are equally
 * long. */
void fuzzSignAgain(uint8_t *data, size_t size, size_t at, EVP_PKEY *key);

/* Returns the offset of the value at `path`, or (size_t)-1. The path is a list of child numbers that ends with -1; the
 * DER in an OCTET STRING counts as its children. */
size_t fuzzDerFind(const uint8_t *data, size_t size, const int *path);
/* Returns the offset of the value after the one at data[at], or (size_t)-1. */
size_t fuzzDerNext(const uint8_t *data, size_t size, size_t at);

/* Returns 1 if this is DER as far as can be checked without the schema: definite and minimal lengths, complete values,
 * no constructed strings. */
int fuzzIsDer(const uint8_t *data, size_t size);

#endif
