/* sim_openssl.c - makes OpenSSL fast enough to simulate a hundred thousand years, with the same results.
 *
 * LOCKS AND MEMORY. There is one thread, so OpenSSL's locks do nothing (the program's functions override libc's), and
 * its memory comes from free lists by size. That saves half of the time.
 *
 * CERTIFICATES. OpenSSL 3 needs 200 us to parse the public key of an authorized responder's certificate, which is the
 * same in a thousand responses. Therefore the linker wraps d2i_OCSP_RESPONSE and OCSP_response_get1_basic: if a
 * response ends with a certificate that was parsed before, byte for byte, the rest is parsed without it, and the parsed
 * certificate is added. Any other form is parsed unchanged. One in SIM_PARSE_WHOLE is parsed both ways, and the results
 * must be equal.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "sim.h"
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/crypto.h>
#include <openssl/ocsp.h>

#define SIM_PARSE_WHOLE 64
#define SIM_KNOWN_CERTS 64 /* a power of two */

/* ---- locks and memory -------------------------------------------------------------------------------------------- */

#if !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define SIM_EXPORTED __attribute__((visibility("default"))) /* libcrypto must find it */

SIM_EXPORTED int pthread_rwlock_rdlock(pthread_rwlock_t *lock) {
    (void)lock;
    return 0;
}

SIM_EXPORTED int pthread_rwlock_wrlock(pthread_rwlock_t *lock) {
    (void)lock;
    return 0;
}

SIM_EXPORTED int pthread_rwlock_unlock(pthread_rwlock_t *lock) {
    (void)lock;
    return 0;
}

#define SIM_BLOCK_STEP 32 /* bytes between two sizes */
#define SIM_SIZES 64      /* larger blocks come from malloc */
#define SIM_CHUNK (1 << 20)

typedef union simBlock {
    struct {
        size_t size;
        union simBlock *next; /* in the free list */
    } head;
    _Alignas(max_align_t) unsigned char aligned[1];
} simBlock;

static simBlock *free_blocks[SIM_SIZES];

static void *simAllocate(size_t size, const char *file, int line) {
    static unsigned char *chunk, *chunk_end;
    size_t class = (size + SIM_BLOCK_STEP - 1) / SIM_BLOCK_STEP,
           well_formed = sizeof(simBlock) + class * SIM_BLOCK_STEP;
    simBlock *block;

    (void)file;
    (void)line;
    if (size == 0) return NULL;
    if (class >= SIM_SIZES) {
        block = malloc(sizeof(simBlock) + size);
        if (!block) return NULL;
    } else if (free_blocks[class]) {
        block = free_blocks[class];
        free_blocks[class] = block->head.next;
    } else {
        if ((size_t)(chunk_end - chunk) < well_formed) {
            chunk = malloc(SIM_CHUNK);
            if (!chunk) return NULL;
            chunk_end = chunk + SIM_CHUNK;
        }
        block = (simBlock *)(void *)chunk;
        chunk += well_formed;
    }
    block->head.size = size;
    return block + 1;
}

static void simRelease(void *bytes, const char *file, int line) {
    simBlock *block;
    size_t class;

    (void)file;
    (void)line;
    if (!bytes) return;
    block = (simBlock *)bytes - 1;
    class = (block->head.size + SIM_BLOCK_STEP - 1) / SIM_BLOCK_STEP;
    if (class >= SIM_SIZES) {
        free(block);
        return;
    }
    block->head.next = free_blocks[class];
    free_blocks[class] = block;
}

static void *simReallocate(void *bytes, size_t size, const char *file, int line) {
    size_t before = bytes ? ((simBlock *)bytes - 1)->head.size : 0;
    void *other = simAllocate(size, file, line);

    if (size && !other) return NULL;
    if (other && before) memcpy(other, bytes, before < size ? before : size);
    simRelease(bytes, file, line);
    return other;
}

void simOpenSslBegin(void) {
    /* OpenSSL refuses after its first allocation: then the simulation is slower, but still correct. */
    (void)!CRYPTO_set_mem_functions(simAllocate, simReallocate, simRelease);
}
#else
void simOpenSslBegin(void) {}
#endif

/* ---- certificates ------------------------------------------------------------------------------------------------ */

OCSP_RESPONSE *__real_d2i_OCSP_RESPONSE(OCSP_RESPONSE **out, const unsigned char **p, long len);
OCSP_RESPONSE *__wrap_d2i_OCSP_RESPONSE(OCSP_RESPONSE **out, const unsigned char **p, long len);
OCSP_BASICRESP *__real_OCSP_response_get1_basic(OCSP_RESPONSE *response);
OCSP_BASICRESP *__wrap_OCSP_response_get1_basic(OCSP_RESPONSE *response);

static const OCSP_RESPONSE *last_parsed;
static const unsigned char *last_bytes;
static size_t last_len;

OCSP_RESPONSE *__wrap_d2i_OCSP_RESPONSE(OCSP_RESPONSE **out, const unsigned char **p, long len) {
    const unsigned char *begin = *p;
    OCSP_RESPONSE *response = __real_d2i_OCSP_RESPONSE(out, p, len);

    last_parsed = response;
    last_bytes = begin;
    last_len = response ? (size_t)(*p - begin) : 0;
    return response;
}

/* Reads one DER value with tag `tag` at *at and advances *at; *inner..*inner_end: its contents. Returns 0 if there is
 * none, or if its length is not in the shortest form. */
static int simReadDer(const unsigned char **at,
                      const unsigned char *end,
                      int tag,
                      const unsigned char **inner,
                      const unsigned char **inner_end) {
    const unsigned char *p = *at;
    size_t n, left = (size_t)(end - p), head = 2;

    if (left < 2 || p[0] != tag) return 0;
    n = p[1];
    if (n == 0x81 && left > 2 && p[2] > 127) {
        n = p[2];
        head = 3;
    } else if (n == 0x82 && left > 3 && p[2]) {
        n = (size_t)p[2] << 8 | p[3];
        head = 4;
    } else if (n > 127) {
        return 0;
    }
    if (n > left - head) return 0;
    *inner = p + head;
    *inner_end = *at = p + head + n;
    return 1;
}

/* Reads the DER value that fills begin..end. */
static int simReadSingleDer(const unsigned char *begin,
                            const unsigned char *end,
                            int tag,
                            const unsigned char **inner,
                            const unsigned char **inner_end) {
    const unsigned char *at = begin;

    return simReadDer(&at, end, tag, inner, inner_end) && at == end;
}

typedef struct simParts {
    const unsigned char *signed_part, *signed_end; /* tbsResponseData, signatureAlgorithm, signature */
    const unsigned char *cert, *cert_end;
} simParts;

/* Splits a successful basic response with exactly one certificate at its end. Returns 0 for any other form. */
static int simSplitResponse(const unsigned char *der, size_t len, simParts *parts) {
    static const unsigned char basic_type[] = {0x2b, 6, 1, 5, 5, 7, 0x30, 1, 1}; /* id-pkix-ocsp-basic */
    const unsigned char *a, *b, *c, *d, *at, *skip;

    if (!simReadSingleDer(der, der + len, 0x30, &a, &b)) return 0;
    at = a;
    if (!simReadDer(&at, b, 0x0a, &c, &d) || d - c != 1 || *c != 0 || !simReadSingleDer(at, b, 0xa0, &a, &b) ||
        !simReadSingleDer(a, b, 0x30, &a, &b))
        return 0;
    at = a;
    if (!simReadDer(&at, b, 0x06, &c, &d) || d - c != (ptrdiff_t)sizeof(basic_type) ||
        memcmp(c, basic_type, sizeof(basic_type)) != 0 || !simReadSingleDer(at, b, 0x04, &a, &b) ||
        !simReadSingleDer(a, b, 0x30, &a, &b))
        return 0;
    at = parts->signed_part = a;
    if (!simReadDer(&at, b, 0x30, &c, &d) || !simReadDer(&at, b, 0x30, &c, &d) || !simReadDer(&at, b, 0x03, &c, &d))
        return 0;
    parts->signed_end = at;
    if (!simReadSingleDer(at, b, 0xa0, &c, &d) || !simReadSingleDer(c, d, 0x30, &c, &d)) return 0;
    parts->cert = c;
    parts->cert_end = d;
    return simReadSingleDer(c, d, 0x30, &at, &skip);
}

static struct {
    uint64_t hash;
    unsigned char *der;
    size_t len;
    X509 *cert;
} known_certs[SIM_KNOWN_CERTS];

static OCSP_BASICRESP *simParseWithout(const simParts *parts, X509 *cert) {
    unsigned char bytes[8192];
    size_t n = (size_t)(parts->signed_end - parts->signed_part), head = n < 128 ? 2 : n < 256 ? 3 : 4;
    const unsigned char *p = bytes;
    OCSP_BASICRESP *basic;

    if (head + n > sizeof(bytes)) return NULL;
    bytes[0] = 0x30;
    bytes[1] = head == 2 ? (unsigned char)n : head == 3 ? 0x81 : 0x82;
    if (head == 4) bytes[2] = (unsigned char)(n >> 8);
    if (head > 2) bytes[head - 1] = (unsigned char)n;
    memcpy(bytes + head, parts->signed_part, n);
    basic = d2i_OCSP_BASICRESP(NULL, &p, (long)(head + n));
    if (basic && p == bytes + head + n && OCSP_basic_add1_cert(basic, cert)) return basic;
    OCSP_BASICRESP_free(basic);
    return NULL;
}

static int simSameBasic(OCSP_BASICRESP *a, OCSP_BASICRESP *b) {
    unsigned char *x = NULL, *y = NULL;
    int n = i2d_OCSP_BASICRESP(a, &x), m = i2d_OCSP_BASICRESP(b, &y);
    int same = n > 0 && n == m && memcmp(x, y, (size_t)n) == 0;

    OPENSSL_free(x);
    OPENSSL_free(y);
    return same;
}

OCSP_BASICRESP *__wrap_OCSP_response_get1_basic(OCSP_RESPONSE *response) {
    static unsigned reused;
    OCSP_BASICRESP *basic, *well_formed;
    const STACK_OF(X509) *certs;
    simParts parts;
    uint64_t hash;
    size_t len, at;

    if (response != last_parsed || !simSplitResponse(last_bytes, last_len, &parts))
        return __real_OCSP_response_get1_basic(response);
    len = (size_t)(parts.cert_end - parts.cert);
    hash = simHash(parts.cert, len, 3);
    at = hash & (SIM_KNOWN_CERTS - 1);
    if (known_certs[at].cert && known_certs[at].hash == hash && known_certs[at].len == len &&
        memcmp(known_certs[at].der, parts.cert, len) == 0 &&
        (basic = simParseWithout(&parts, known_certs[at].cert)) != NULL) {
        if (++reused % SIM_PARSE_WHOLE) return basic;
        well_formed = __real_OCSP_response_get1_basic(response);
        if (!well_formed || !simSameBasic(basic, well_formed)) {
            fprintf(stderr, "the simulation failed: a response parsed in parts differs from the whole\n");
            abort();
        }
        OCSP_BASICRESP_free(basic);
        return well_formed;
    }
    basic = __real_OCSP_response_get1_basic(response);
    certs = basic ? OCSP_resp_get0_certs(basic) : NULL;
    if (certs && sk_X509_num(certs) == 1 && X509_up_ref(sk_X509_value(certs, 0))) {
        X509_free(known_certs[at].cert);
        free(known_certs[at].der);
        known_certs[at].cert = sk_X509_value(certs, 0);
        known_certs[at].der = malloc(len);
        if (!known_certs[at].der) abort();
        memcpy(known_certs[at].der, parts.cert, len);
        known_certs[at].len = len;
        known_certs[at].hash = hash;
    }
    return basic;
}
