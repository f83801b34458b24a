/* reply.c - see reply.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/objects.h>
#include <openssl/rsa.h>

void testAbort(const char *file, int line, const char *condition) {
    fprintf(stderr, "%s:%d: test support failed: %s\n", file, line, condition);
    ERR_print_errors_fp(stderr);
    abort();
}

/* ---- bytes ------------------------------------------------------------------------------------------------------- */

testBytes testCopy(const void *p, size_t n) {
    testBytes b = {malloc(n ? n : 1), n};
    testMust(b.p);
    if (n) memcpy(b.p, p, n);
    return b;
}

testBytes testJoin(testBytes a, testBytes b) {
    a.p = realloc(a.p, a.n + b.n + 1);
    testMust(a.p);
    if (b.n) memcpy(a.p + a.n, b.p, b.n);
    a.n += b.n;
    free(b.p);
    return a;
}

testBytes testTag(int tag, testBytes content) {
    unsigned char head[5] = {(unsigned char)tag};
    size_t bytes = 0, n = 1; /* of the length's long form; of the head */
    while (content.n >= 128 && content.n >> 8 * bytes) bytes++;
    testMust(bytes <= 3);
    head[n++] = (unsigned char)(bytes ? 0x80 | bytes : content.n);
    while (bytes) head[n++] = (unsigned char)(content.n >> 8 * --bytes);
    content.p = realloc(content.p, content.n + n);
    testMust(content.p);
    memmove(content.p + n, content.p, content.n);
    memcpy(content.p, head, n);
    content.n += n;
    return content;
}

void testBytesFree(testBytes *b) {
    free(b->p);
    b->p = NULL;
    b->n = 0;
}

/* Takes what an i2d function allocated. */
static testBytes fromOpenSSL(unsigned char *p, int n) {
    testMust(n >= 0);
    testBytes b = testCopy(p, (size_t)n);
    OPENSSL_free(p);
    return b;
}

/* ---- responses --------------------------------------------------------------------------------------------------- */

static testBytes derTime(time_t t, const char *text) {
    char buf[32];
    if (!text) {
        struct tm tm;
        testMust(gmtime_r(&t, &tm) && strftime(buf, sizeof(buf), "%Y%m%d%H%M%SZ", &tm));
        text = buf;
    }
    return testTag(0x18, testCopy(text, strlen(text)));
}

static testBytes derOid(int nid) {
    unsigned char *p = NULL;
    int n = i2d_ASN1_OBJECT(OBJ_nid2obj(nid), &p);
    return fromOpenSSL(p, n);
}

static testBytes derCertId(const testSingle *single) {
    if (single->certid.p) return testCopy(single->certid.p, single->certid.n);
    const EVP_MD *md = single->md ? single->md : EVP_sha1();
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned int len;

    testBytes id = testTag(0x30, testJoin(derOid(EVP_MD_get_type(md)), testCopy("\x05\x00", 2)));
    testMust(X509_NAME_digest(X509_get_subject_name(single->issuer), md, hash, &len));
    id = testJoin(id, testTag(0x04, testCopy(hash, len - single->cut_hash)));
    testMust(X509_pubkey_digest(single->key_of ? single->key_of : single->issuer, md, hash, &len));
    id = testJoin(id, testTag(0x04, testCopy(hash, len - single->cut_hash)));

    unsigned char *p = NULL;
    int n = i2d_ASN1_INTEGER(X509_get0_serialNumber(single->cert), &p);
    return testTag(0x30, testJoin(id, fromOpenSSL(p, n)));
}

static testBytes derSingle(const testSingle *single) {
    testBytes e = derCertId(single);
    if (single->status == TEST_GOOD) e = testJoin(e, testCopy("\x80\x00", 2));
    if (single->status == TEST_UNKNOWN) e = testJoin(e, testCopy("\x82\x00", 2));
    if (single->status == TEST_REVOKED) {
        testBytes info = derTime(single->revoked_at ? single->revoked_at : TEST_NOW - 3600, single->revoked_text);
        unsigned char reason = (unsigned char)(single->reason - 1);
        if (single->reason) info = testJoin(info, testTag(0xa0, testTag(0x0a, testCopy(&reason, 1))));
        e = testJoin(e, testTag(0xa1, info));
    }
    e = testJoin(e, derTime(single->this_update, single->this_text));
    if (single->next_update || single->next_text) {
        e = testJoin(e, testTag(0xa0, derTime(single->next_update, single->next_text)));
    }
    if (single->extensions.n)
        e = testJoin(e, testTag(0xa1, testTag(0x30, testCopy(single->extensions.p, single->extensions.n))));
    return testTag(0x30, e);
}

static testBytes derResponder(X509 *who, int by_key) {
    if (by_key) {
        unsigned char hash[EVP_MAX_MD_SIZE];
        unsigned int len;
        testMust(X509_pubkey_digest(who, EVP_sha1(), hash, &len));
        return testTag(0xa2, testTag(0x04, testCopy(hash, len)));
    }
    unsigned char *p = NULL;
    int n = i2d_X509_NAME(X509_get_subject_name(who), &p);
    return testTag(0xa1, fromOpenSSL(p, n));
}

/* RFC 4055 section 3.1: digest, MGF1 with the same digest, length of the salt. */
static testBytes derPssParams(const EVP_MD *md) {
    unsigned char salt = (unsigned char)EVP_MD_get_size(md);
    testBytes hash = testTag(0x30, testJoin(derOid(EVP_MD_get_type(md)), testCopy("\x05\x00", 2)));
    testBytes mask = testTag(0x30, testJoin(derOid(NID_mgf1), testCopy(hash.p, hash.n)));
    testBytes all = testJoin(testTag(0xa0, hash), testTag(0xa1, mask));
    return testTag(0x30, testJoin(all, testTag(0xa2, testTag(0x02, testCopy(&salt, 1)))));
}

void testSetPssAlgorithm(X509_ALGOR *algorithm, const EVP_MD *md) {
    testBytes params = derPssParams(md);
    ASN1_STRING *value = ASN1_STRING_new();
    testMust(value && ASN1_STRING_set(value, params.p, (int)params.n));
    testMust(X509_ALGOR_set0(algorithm, OBJ_nid2obj(NID_rsassaPss), V_ASN1_SEQUENCE, value));
    testBytesFree(&params);
}

static testBytes derSigned(testBytes tbs, const testReply *reply) {
    if (reply->sign) {
        testBytes made = reply->sign(&tbs, reply->sign_arg);
        return testJoin(tbs, made);
    }
    const EVP_MD *md = reply->pss_md ? reply->pss_md : reply->sign_md ? reply->sign_md : EVP_sha256();
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *how;
    size_t len = 0;
    testMust(ctx && EVP_DigestSignInit(ctx, &how, md, NULL, reply->key));
    testMust(!reply->pss_md || (EVP_PKEY_CTX_set_rsa_padding(how, RSA_PKCS1_PSS_PADDING) > 0 &&
                                EVP_PKEY_CTX_set_rsa_pss_saltlen(how, EVP_MD_get_size(md)) > 0));
    testMust(EVP_DigestSign(ctx, NULL, &len, tbs.p, tbs.n));
    unsigned char *signature = malloc(len + 1);
    testMust(signature);
    testMust(EVP_DigestSign(ctx, signature + 1, &len, tbs.p, tbs.n));
    EVP_MD_CTX_free(ctx);
    signature[0] = 0; /* no unused bits */
    if (reply->break_signature) signature[len] ^= 1;

    int nid;
    testMust(OBJ_find_sigid_by_algs(&nid, EVP_MD_get_type(md), EVP_PKEY_get_base_id(reply->key)));
    testBytes algorithm = derOid(reply->pss_md ? NID_rsassaPss : nid);
    if (reply->pss_md)
        algorithm = testJoin(algorithm, derPssParams(md));
    else if (EVP_PKEY_get_base_id(reply->key) == EVP_PKEY_RSA)
        algorithm = testJoin(algorithm, testCopy("\x05\x00", 2));

    testBytes all = testJoin(tbs, testTag(0x30, algorithm));
    all = testJoin(all, testTag(0x03, testCopy(signature, len + 1)));
    free(signature);
    return all;
}

testBytes testReplyDer(const testReply *reply) {
    unsigned char status = (unsigned char)reply->status;
    testBytes head = testTag(0x0a, testCopy(&status, 1));
    if (reply->status != 0 || reply->no_bytes) return testTag(0x30, head);

    testBytes tbs = derResponder(reply->responder ? reply->responder : reply->signer, reply->by_key);
    time_t produced = reply->produced_at ? reply->produced_at : reply->singles[0].this_update;
    tbs = testJoin(tbs, derTime(produced, reply->produced_text));
    testBytes singles = testCopy("", 0);
    for (int again = 0; again <= reply->repeat; again++)
        for (int i = 0; i < reply->count; i++) singles = testJoin(singles, derSingle(&reply->singles[i]));
    tbs = testJoin(tbs, testTag(0x30, singles));
    if (reply->padding) {
        void *zeros = calloc(1, reply->padding);
        testMust(zeros);
        testBytes extension = testJoin(derOid(NID_netscape_comment), testTag(0x04, testCopy(zeros, reply->padding)));
        free(zeros);
        tbs = testJoin(tbs, testTag(0xa1, testTag(0x30, testTag(0x30, extension))));
    }
    if (reply->extensions.n)
        tbs = testJoin(tbs, testTag(0xa1, testTag(0x30, testCopy(reply->extensions.p, reply->extensions.n))));
    tbs = testTag(0x30, tbs);

    testBytes basic = derSigned(tbs, reply);
    testBytes certs = testCopy("", 0);
    for (int i = 0; i < 4 * (reply->sent_repeat + 1); i++) {
        unsigned char *p = NULL;
        if (!reply->sent[i % 4]) continue;
        int n = i2d_X509(reply->sent[i % 4], &p);
        certs = testJoin(certs, fromOpenSSL(p, n));
    }
    certs = testJoin(certs, testCopy(reply->sent_der.p, reply->sent_der.n));
    if (certs.n)
        basic = testJoin(basic, testTag(0xa0, testTag(0x30, certs)));
    else
        testBytesFree(&certs);

    testBytes body = derOid(reply->other_type ? NID_id_pkix_OCSP_Nonce : NID_id_pkix_OCSP_basic);
    static const unsigned char tail[16];
    testMust(reply->inner_tail <= sizeof(tail));
    basic = testJoin(testTag(0x30, basic), testCopy(tail, reply->inner_tail));
    body = testTag(0x30, testJoin(body, testTag(0x04, basic)));
    return testTag(0x30, testJoin(head, testTag(0xa0, body)));
}
