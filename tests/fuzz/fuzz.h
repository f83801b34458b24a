/* fuzz.h - what the fuzz targets share. Each target feeds bytes from outside to one room of the engine and checks what
 * must hold for any bytes at all; `make fuzz TIME=seconds` runs them under libFuzzer, `make test` replays their seeds
 * and a fixed sequence of mutations of them.
 *
 * A target is one file: http.c (an answer to ocspFetch), response.c (an OCSP response), certificate.c (the certificate
 * that is served), cache.c (a cache directory), directive.c (values of directives, URLs), peer.c (a peer's staple).
 * TARGET.dict has the words that libFuzzer tries. Seeds are made by the target itself, with keys that never change
 * (pki.c): a finding is a file of bytes, and means the same on every machine. `build/fuzz-replay TARGET FILE...` runs
 * it again.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_FUZZ_H
#define OCSP_FUZZ_H

#include "../c/support.h"

#define FUZZ_MAX_BYTES (80 * 1024) /* of an input: more than any bound of the engine */

/* Mutates `size` bytes in place, with room for `max`; returns the new size. libFuzzer's, or the replay's own. */
typedef size_t fuzzBytes(uint8_t *data, size_t size, size_t max);
/* Keeps one seed. */
typedef void fuzzKeep(const char *name, const void *bytes, size_t size);

typedef struct fuzzTarget {
    const char *name;
    void (*one)(const uint8_t *data, size_t size); /* aborts when something does not hold */
    void (*seeds)(fuzzKeep *keep);
    /* NULL: `bytes` alone. Otherwise a mutation that keeps what blind bytes would break: lengths and signatures. */
    size_t (*mutate)(uint8_t *data, size_t size, size_t max, unsigned seed, fuzzBytes *bytes);
} fuzzTarget;

extern const fuzzTarget fuzz_http, fuzz_response, fuzz_certificate, fuzz_cache, fuzz_directive, fuzz_peer;
extern const fuzzTarget *const fuzz_targets[]; /* NULL ends */
const fuzzTarget *fuzzFind(const char *name);  /* NULL: there is none of that name */

/* A promise that was broken. abort() is what libFuzzer and a debugger both understand. */
#define fuzzCheck(condition)                                                                \
    do {                                                                                    \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: broken promise: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                        \
        }                                                                                   \
    } while (0)

/* Did `issuer`, or somebody whom it let, sign this, as OpenSSL sees it at that time? (response.c) */
int fuzzSignedForIssuer(OCSP_BASICRESP *basic, X509 *issuer, time_t at);

/* What holds after each failure: a kind, and a sentence that is fit for INFO and the log. */
void fuzzCheckError(const ocspError *err);
/* Nothing of OpenSSL's opinion on foreign bytes may stay in the thread's error queue. */
void fuzzCheckQueue(void);

/* ---- a PKI that never changes (pki.c) ---------------------------------------------------------------------------- */

typedef struct fuzzPki {
    EVP_PKEY *ca_key,
        *delegate_key; /* RSA, because its signatures have no random part: all bytes are the same always */
    X509 *ca, *leaf;
    X509 *delegate;          /* OCSPSigning, issued by ca */
    X509 *delegate_no_eku;   /* the same key and name, serverAuth only */
    X509 *delegate_expired;  /* as delegate, ended a day before TEST_NOW */
    X509 *delegate_short;    /* as delegate, ends 100 s after TEST_NOW */
    X509 *delegate_critical; /* as delegate, with a critical extension that nobody knows */
    X509 *twin;              /* the name of ca with the delegate's key, self-signed */
    X509 *twin_leaf;         /* name and serial of leaf, issued by twin */
    ocspIdentity *id, *twin_id;
} fuzzPki;

const fuzzPki *fuzzGetPki(void);

/* ---- DER (der.c) ------------------------------------------------------------------------------------------------- */

/* One mutation of a random value inside `data`, after which the lengths of all values around it are right again; where
 * there is no DER, `bytes` on the whole. */
size_t fuzzDerMutate(uint8_t *data, size_t size, size_t max, unsigned *random, fuzzBytes *bytes);
unsigned fuzzRandom(unsigned *random);

/* Signs SEQUENCE { tbs, algorithm, BIT STRING } at data[at] again, if its signature is as long as one by `key`. */
void fuzzSignAgain(uint8_t *data, size_t size, size_t at, EVP_PKEY *key);

/* The place of a value: the path is child numbers, -1 ends; an OCTET STRING counts as holding what it wraps.
 * (size_t)-1: there is none. */
size_t fuzzDerFind(const uint8_t *data, size_t size, const int *path);
/* The next value behind the one at data[at], or (size_t)-1. */
size_t fuzzDerNext(const uint8_t *data, size_t size, size_t at);

/* Is this DER as far as one can see without the schema: definite and shortest lengths, whole values, strings not in
 * pieces? */
int fuzzIsDer(const uint8_t *data, size_t size);

#endif
