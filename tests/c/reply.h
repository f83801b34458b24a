/* reply.h - one builder of OCSP responses for unit tests, fuzz targets, the fleet and the simulation: any content, any
 * signer.
 *
 * Responses are written as DER by hand and only signed by OpenSSL: its own builder refuses most of what a bad responder
 * sends.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_TEST_REPLY_H
#define OCSP_TEST_REPLY_H

#include <stddef.h>
#include <time.h>
#include <openssl/evp.h>
#include <openssl/x509.h>

#define TEST_NOW ((time_t)1900000000) /* the middle of March 2030 */
#define TEST_DAY 86400

/* What fails here is a fault of the tests, not of the engine. */
#define testMust(condition) ((condition) ? (void)0 : testAbort(__FILE__, __LINE__, #condition))
_Noreturn void testAbort(const char *file, int line, const char *condition);

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

typedef struct testBytes {
    unsigned char *p;
    size_t n;
} testBytes;

testBytes testCopy(const void *p, size_t n);
testBytes testJoin(testBytes a, testBytes b);  /* a then b; both are consumed */
testBytes testTag(int tag, testBytes content); /* one DER value around `content`, which is consumed */
void testBytesFree(testBytes *b);

/* ---- responses --------------------------------------------------------------------------------------------------- */

typedef enum {
    TEST_GOOD,
    TEST_REVOKED,
    TEST_UNKNOWN
} testStatus;

typedef struct testSingle {
    testBytes certid; /* its DER, not consumed; p NULL: made from the next three */
    X509 *cert;       /* whose serial */
    X509 *issuer;     /* whose name and key are hashed */
    const EVP_MD *md; /* of the CertID; NULL: SHA-1 */
    testStatus status;
    int reason;                      /* CRLReason + 1; 0: none */
    time_t revoked_at;               /* 0: an hour before TEST_NOW */
    time_t this_update, next_update; /* next_update 0: none */
    const char *this_text;           /* these bytes in place of thisUpdate's */
    const char *next_text;
    const char *revoked_text;
    testBytes extensions; /* DER of Extensions in singleExtensions; not consumed */
    X509 *key_of;         /* hash the key of this certificate in place of issuer's */
    size_t cut_hash;      /* bytes missing at the end of both hashes */
} testSingle;

typedef struct testReply {
    int status; /* OCSPResponseStatus; other than 0 has no body */
    testSingle singles[5];
    int count;
    int repeat;           /* additional copies of all of them */
    testBytes extensions; /* DER of Extensions in responseExtensions; not consumed */
    X509 *signer;
    EVP_PKEY *key;
    const EVP_MD *sign_md; /* NULL: SHA-256 */
    /* In place of a signature by `key`: returns AlgorithmIdentifier and BIT STRING for what is to be signed. */
    testBytes (*sign)(const testBytes *tbs, void *arg);
    void *sign_arg;
    X509 *sent[4];      /* certificates included */
    int sent_repeat;    /* additional copies of all of them */
    testBytes sent_der; /* one more, not consumed */
    int by_key;         /* responderID is a key hash, not a name */
    X509 *responder;    /* whose responderID; NULL: signer's */
    time_t produced_at; /* 0: thisUpdate of the first SingleResponse */
    const char *produced_text;
    const EVP_MD *pss_md; /* signed by RSASSA-PSS with this digest */
    int break_signature;  /* one bit of it is flipped */
    int no_bytes;         /* "successful", without responseBytes */
    int other_type;       /* responseType is not id-pkix-ocsp-basic */
    size_t inner_tail;    /* bytes after the BasicOCSPResponse, inside its OCTET STRING */
    size_t padding;       /* bytes of an unknown extension */
} testReply;

testBytes testReplyDer(const testReply *reply);

void testSetPssAlgorithm(X509_ALGOR *algorithm, const EVP_MD *md); /* RSASSA-PSS with that digest */

#endif
