/* support.h - what the unit tests in C share: a small PKI made in memory, OCSP responses with any content and any
 * signer, an independent verifier of responses (OpenSSL's own OCSP_basic_verify), TLS handshakes over memory, and a few
 * ways to wait and to make files.
 *
 * Every time is chosen by the test. TEST_NOW is years ahead, so that code that uses the real clock instead of its
 * argument fails.
 *
 * OCSP_TEST_ONLY=pattern in the environment runs only the tests of that name (with * and ?), or of that scenario.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_TEST_SUPPORT_H
#define OCSP_TEST_SUPPORT_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <openssl/ocsp.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "ocsp_late.h"
#include "ocsp_internal.h"
#include "ocsp_wait.h"
#include "reply.h"

/* Asserts that a number is in a range, limits included. cmocka 2 deprecates assert_in_range, and cmocka 1 has no other. */
#define testAssertRange(value, least, most)                                               \
    do {                                                                                  \
        long long test_value = (long long)(value);                                        \
        if (test_value < (long long)(least) || test_value > (long long)(most))            \
            fail_msg("%s is %lld, not from %s to %s", #value, test_value, #least, #most); \
    } while (0)

/* ---- tests (main.c) ---------------------------------------------------------------------------------------------- */

/* A test, which registers itself: TEST(subject_whatIsTrue, "17") { ... }. A program runs the tests of its file in their
 * order. The string is the number of the scenario in tests/README.md; it may be left out. */
#define TEST(test, ...)                                                                                   \
    static void test(void);                                                                               \
    __attribute__((constructor)) static void testRegister_##test(void) {                                  \
        static testCase one = {.name = #test, .scenario = "" __VA_ARGS__, .line = __LINE__, .run = test}; \
        testRegister(&one);                                                                               \
    }                                                                                                     \
    static void test(void)

/* Functions that are called before and after each of the tests that follow in the file, up to the next FIXTURE. Either
 * may be NULL. An assertion that fails in them fails the test. */
#define FIXTURE(setUp, tearDown)                                                          \
    __attribute__((constructor)) static void testFixture_##setUp##_##tearDown(void) {     \
        static testCase one = {.line = __LINE__, .set_up = setUp, .tear_down = tearDown}; \
        testRegister(&one);                                                               \
    }                                                                                     \
    struct testCase /* takes the semicolon */

/* The same, once before the first test and once after the last. */
#define PROGRAM_FIXTURE(setUp, tearDown)                                \
    __attribute__((constructor)) static void testProgramFixture(void) { \
        testRegisterProgram(setUp, tearDown);                           \
    }                                                                   \
    struct testCase /* takes the semicolon */

#define TEST_MAX_CASES 200 /* in one program */

typedef struct testCase {
    const char *name, *scenario; /* NULL and NULL: a fixture */
    int line;
    void (*run)(void), (*set_up)(void), (*tear_down)(void);
    struct testCase *next;
} testCase;

void testRegister(testCase *one);
void testRegisterProgram(void (*set_up)(void), void (*tear_down)(void));

/* ---- keys and certificates --------------------------------------------------------------------------------------- */

#define TEST_KEYS 13
EVP_PKEY *testEcKey(int number);  /* P-256; made once a process; belongs to support.c */
EVP_PKEY *testRsaKey(int number); /* RSA 2048 */

typedef struct testCertSpec {
    const char *name;     /* commonName of the subject */
    X509 *issuer;         /* NULL: self-signed */
    EVP_PKEY *issuer_key; /* NULL: `key` */
    EVP_PKEY *key;
    const char *serial;      /* hex; NULL: the next number */
    time_t not_before;       /* 0: a day before TEST_NOW */
    time_t not_after;        /* 0: a year after TEST_NOW */
    int ca;                  /* basicConstraints and keyUsage of a CA */
    const char *key_usage;   /* of what is no CA; NULL: none */
    const char *extended;    /* extendedKeyUsage, as X509V3_EXT_conf writes it */
    const char *urls[12];    /* OCSP access descriptions; any bytes */
    size_t url_len;          /* length of urls[0] if it holds zero bytes, else 0 */
    int odd_access;          /* also caIssuers, and an OCSP access description that is no URI */
    const char *tls_feature; /* "status_request" for must-staple */
    const char *alt_names;   /* subjectAltName, as X509V3_EXT_conf writes it */
    int key_ids;             /* subject and authority key identifiers */
    int bad_extension;       /* an authorityInfoAccess that is no DER */
} testCertSpec;

X509 *testCert(const testCertSpec *spec);

/* The certificates that most tests need. Made once; belong to support.c. */
typedef struct testPki {
    X509 *root, *ca; /* `ca` is an intermediate below `root` */
    EVP_PKEY *root_key, *ca_key;
    X509 *twin; /* the name of `ca`, another key, self-signed */
    EVP_PKEY *twin_key;
    X509 *leaf; /* ECDSA, one URL, issued by `ca` */
    EVP_PKEY *leaf_key;
    X509 *rsa_leaf; /* RSA, one URL, issued by `ca` */
    EVP_PKEY *rsa_leaf_key;
    X509 *must_leaf;         /* must-staple; key of `leaf` */
    X509 *quiet_leaf;        /* no URL; key of `leaf` */
    X509 *renewed_leaf;      /* as `leaf`, another serial; key of `leaf` */
    X509 *foreign_leaf;      /* as `leaf` with its serial, but issued by `twin` */
    X509 *self;              /* self-signed, one URL */
    X509 *responder;         /* OCSPSigning, issued by `ca` */
    X509 *responder_expired; /* the same, ended a day before TEST_NOW */
    X509 *responder_short;   /* the same, ends 100 s after TEST_NOW */
    X509 *responder_no_eku;  /* issued by `ca`, serverAuth only */
    X509 *responder_foreign; /* OCSPSigning, issued by `twin` */
    X509 *responder_root;    /* OCSPSigning, issued by `root`: above, but not our issuer */
    EVP_PKEY *responder_key; /* of all responders */
} testPki;

#define TEST_URL "http://ocsp.test.invalid/status"
const testPki *testGetPki(void);

STACK_OF(X509) *testStack(X509 *a, X509 *b, X509 *c); /* up to three, NULL ends; sk_X509_free it */
X509_STORE *testStore(X509 *a, X509 *b);
int testStoreSize(X509_STORE *store);                 /* certificates in it */
ocspIdentity *testIdentity(X509 *leaf, X509 *issuer); /* ocspIdentityNew, checked */

/* ---- responses --------------------------------------------------------------------------------------------------- */

/* A good reply for `leaf` from `ca` itself, thisUpdate an hour before TEST_NOW, nextUpdate a day after it. */
testReply testGoodReply(X509 *leaf);
testBytes testReplyOfSize(testReply reply, size_t size); /* padded to exactly that many bytes */

/* Verifies a response by OpenSSL alone, with `issuer` as the only anchor: signature, signer and purpose by
 * OCSP_basic_verify, a SingleResponse for `leaf`, and its dates at the time `at`. Returns 1 (good or revoked) or 0. */
int testJudge(const unsigned char *der, size_t len, X509 *leaf, X509 *issuer, time_t at);

/* ---- work (counted.c) -------------------------------------------------------------------------------------------- */

/* Since testCountFromZero: signatures verified (of responses and certificates), CertIDs made (two hashes each),
 * BasicOCSPResponses that OpenSSL parsed (with all certificates in them). */
extern atomic_int test_verifications, test_certids, test_parsed;
void testCountFromZero(void);

/* ---- TLS over memory --------------------------------------------------------------------------------------------- */

SSL_CTX *testServerCtx(X509 *leaf, EVP_PKEY *key, X509 *chain);           /* with `chain` as extra chain; may be NULL */
void testServerAdd(SSL_CTX *ctx, X509 *leaf, EVP_PKEY *key, X509 *chain); /* a second certificate */
SSL_CTX *testClientCtx(int tls_version, int with_rsa_only);               /* TLS1_2_VERSION or TLS1_3_VERSION */

typedef struct testShake {
    int ok; /* both sides finished */
    int got_staple;
    testBytes staple; /* free with testBytesFree */
    X509 *peer;       /* the certificate that was served; X509_free it */
    int chain_count;  /* responses in the handshake, as OpenSSL 3.6 counts them; 0 from an older one */
    testBytes chain[4];
} testShake;

/* From 3.6 OpenSSL parses what a server staples, sends it only if it has the certificate's serial number and its issuer's
 * name, and can staple for the whole chain. */
int testOpensslChecksStaples(void);

int testShakeHands(SSL *server, SSL *client); /* 1: both finished. The caller frees both */
testShake testHandshake(SSL_CTX *server, SSL_CTX *client, int ask);
void testShakeFree(testShake *shake);

/* ---- errors, files and waiting ----------------------------------------------------------------------------------- */

char *testDir(void); /* a new directory; testDirFree removes it with its contents */
void testDirFree(char *dir);
char *testPath(const char *dir, const char *name); /* free() it */
void testWriteFile(const char *path, const void *bytes, size_t n);
testBytes testReadFile(const char *path);
int testCountFiles(const char *dir);

/* Asserts that an error has this kind, this word (ocsp_last_error_code) and a sentence. */
void testAssertError(const ocspError *err, ocspErrorKind kind, const char *word);

void testSleepMs(int ms);
/* Polls for a condition; gives up (and fails the test) only after a time that no healthy machine needs. */
#define testWaitFor(condition)                                           \
    do {                                                                 \
        int test_tries = 0;                                              \
        while (!(condition)) {                                           \
            if (++test_tries > 12000) fail_msg("never: %s", #condition); \
            testSleepMs(5);                                              \
        }                                                                \
    } while (0)

long testEnvNumber(const char *name, long otherwise);
uint32_t testRandom(void); /* a fixed sequence: a failure can be seen again */

#endif
