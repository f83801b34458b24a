/* sim_ca.c - the simulated CA: certificates and answers of all kinds. Keys are fixed, so that a world has the same
 * bytes in every run.
 *
 * SIGNATURES. All keys are Ed25519 (a second certificate's: Ed448), whose signatures are deterministic. One answer in
 * SIM_REAL_SIGNATURES is really signed and really verified. The others have a mark and a keyed hash of tbsResponseData
 * in place of the signature, and the linker (--wrap) puts simulated checks of that hash before OpenSSL's. The response
 * is still parsed, and its signer found and checked, by the engine and by OpenSSL's OCSP_basic_verify; only the check
 * of the signature itself is skipped (OCSP_NOSIGS). X509_verify caches its result by certificate and key.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "sim.h"
#include "../c/reply.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/evp.h>
#include <openssl/ocsp.h>
#include <openssl/x509v3.h>

#define SIM_REAL_SIGNATURES 64
#define SIM_SIGNATURE 64 /* bytes of an Ed25519 signature */
#define SIM_MARK "simulated signature: tbs hash  "

#define simAssert(condition)                                                                       \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: the simulation failed: %s\n", __FILE__, __LINE__, #condition); \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

enum {
    KEY_CA,
    KEY_SAME_NAME_CA,
    KEY_LEAF,
    KEY_SECOND_LEAF,
    KEY_SIGNER,
    KEY_INTERMEDIATE, /* and one for each further level */
    KEY_NEW_ROOT = KEY_INTERMEDIATE + SIM_MAX_DEPTH,
    KEYS
};

static EVP_PKEY *keys[KEYS];
static uint64_t key_number[KEYS]; /* hash of the public key */
/* By CA: self-signed certificates, of which the intermediate CAs use name and key only, and those of foreign CAs. */
static X509 *cas[SIM_CAS], *same_name_cas[SIM_CAS];

static simCert *certs[SIM_MAX_CERTS];
static int cert_count;
static long serials;

typedef struct simSignerCert {
    X509 *cert; /* the template, which has the same name and key */
    testBytes der;
    int64_t from, to;
} simSignerCert;

enum {
    SIGNER_GOOD,
    SIGNER_NO_EKU,
    SIGNER_EXPIRED,
    SIGNER_NOT_YET,
    SIGNER_FOREIGN,
    SIGNER_KEY_USAGE,
    SIGNER_CRITICAL,
    SIGNER_VARIANTS
};

static simSignerCert signer_certs[SIM_CAS][SIGNER_VARIANTS];
static int ca_validity, ca_presign, ca_backdate; /* of the current answers, seconds */
static int signer_validity;                      /* seconds, 0: the CA signs itself */

/* All answers of this world, by hash. */
static simAnswer **answers;
static size_t answer_slots, answer_count;
static int last_of_cert[SIM_MAX_CERTS][8]; /* indices into answer_list, the newest first */
static simAnswer **answer_list;
static size_t answer_list_size;

/* ---- certificates ------------------------------------------------------------------------------------------------ */

static void simExtend(X509 *cert, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    simAssert(ext && X509_add_ext(cert, ext, -1));
    X509_EXTENSION_free(ext);
}

/* Writes the next serial number. All 8 bytes are distinctive, because simCaCertOfRequest searches requests for them. */
static void simNextSerial(unsigned char *out) {
    uint64_t number = 0x5a00000000000000u + (uint64_t)++serials * 0x10001;
    int i;

    for (i = 0; i < 8; i++) out[i] = (unsigned char)(number >> (56 - 8 * i));
}

static X509 *simCertificate(const char *name,
                            X509 *issuer,
                            EVP_PKEY *issuer_key,
                            EVP_PKEY *key,
                            int64_t from,
                            int64_t to) {
    X509 *cert = X509_new();
    X509_NAME *subject = X509_NAME_new();
    unsigned char serial[8];
    BIGNUM *bn;

    simNextSerial(serial);
    bn = BN_bin2bn(serial, 8, NULL);
    simAssert(cert && subject && bn && X509_set_version(cert, X509_VERSION_3));
    simAssert(BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)));
    BN_free(bn);
    simAssert(X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0));
    simAssert(X509_set_subject_name(cert, subject));
    simAssert(X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject));
    X509_NAME_free(subject);
    simAssert(ASN1_TIME_set(X509_getm_notBefore(cert), from) && ASN1_TIME_set(X509_getm_notAfter(cert), to));
    simAssert(X509_set_pubkey(cert, key));
    if (!issuer) {
        simExtend(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
        simExtend(cert, cert, NID_key_usage, "critical,keyCertSign,cRLSign,digitalSignature");
        simAssert(X509_sign(cert, issuer_key, NULL));
    }
    return cert;
}

static EVP_PKEY *simKey(int which, int type) {
    unsigned char seed[57];

    memset(seed, 0x11 * (which + 1), sizeof(seed));
    return EVP_PKEY_new_raw_private_key(type, NULL, seed, type == EVP_PKEY_ED448 ? 57 : 32);
}

static uint64_t simKeyNumber(EVP_PKEY *key) {
    unsigned char raw[64];
    size_t n = sizeof(raw);

    return EVP_PKEY_get_raw_public_key(key, raw, &n) ? simHash(raw, n, 1) : 0;
}

/* The authorized responder's certificate of one variant, made by OpenSSL once. Further ones differ from it in serial
 * number, dates and signature only, because OpenSSL needs 200 us to make one. */
typedef struct simTemplate {
    X509 *cert;
    unsigned char *tbs;
    int len;
    unsigned char *serial, *from, *to; /* in tbs */
} simTemplate;

static simTemplate templates[SIM_CAS][SIGNER_VARIANTS];

#define SIM_TEMPLATE_FROM INT64_C(1893456000) /* 2030-01-01 */
#define SIM_TEMPLATE_TO INT64_C(1893542400)   /* 2030-01-02 */
#define SIM_UTC_TIME 13                       /* bytes of YYMMDDhhmmssZ */

static int simKeyOf(int ca) {
    return ca == SIM_ROOT_CA ? KEY_CA : ca == SIM_NEW_ROOT ? KEY_NEW_ROOT : KEY_INTERMEDIATE + ca - 1;
}

static void simMakeTemplate(int ca, int variant) {
    simTemplate *t = &templates[ca][variant];
    int foreign = variant == SIGNER_FOREIGN;

    t->cert = simCertificate("responder", foreign ? same_name_cas[ca] : cas[ca], NULL, keys[KEY_SIGNER],
                             SIM_TEMPLATE_FROM, SIM_TEMPLATE_TO);
    simExtend(t->cert, cas[ca], NID_ext_key_usage, variant == SIGNER_NO_EKU ? "serverAuth,clientAuth" : "OCSPSigning");
    if (variant == SIGNER_KEY_USAGE) simExtend(t->cert, cas[ca], NID_key_usage, "critical,keyEncipherment");
    if (variant == SIGNER_CRITICAL) simExtend(t->cert, cas[ca], NID_netscape_comment, "critical,unknown extension");
    simAssert(X509_sign(t->cert, keys[foreign ? KEY_SAME_NAME_CA : simKeyOf(ca)], NULL));
    t->len = i2d_re_X509_tbs(t->cert, &t->tbs);
    simAssert(t->len > 0);
    t->serial = memmem(t->tbs, (size_t)t->len, "\x02\x08\x5a", 3);
    t->from = memmem(t->tbs, (size_t)t->len, "300101000000Z", SIM_UTC_TIME);
    t->to = memmem(t->tbs, (size_t)t->len, "300102000000Z", SIM_UTC_TIME);
    simAssert(t->serial && t->from && t->to);
    t->serial += 2;
}

/* The new root has the name of the old one. */
static X509 *simSelfSigned(int ca, int key) {
    char name[16] = "CA";

    if (ca != SIM_ROOT_CA && ca != SIM_NEW_ROOT) snprintf(name, sizeof(name), "CA %d", ca);
    return simCertificate(name, NULL, keys[key], keys[key], 1, INT64_C(7000000000));
}

void simCaBegin(void) {
    int i, ca;

    if (!cas[0]) {
        for (i = 0; i < KEYS; i++) {
            keys[i] = simKey(i, i == KEY_SECOND_LEAF ? EVP_PKEY_ED448 : EVP_PKEY_ED25519);
            simAssert(keys[i]);
            key_number[i] = simKeyNumber(keys[i]);
        }
        serials = 0;
        for (ca = 0; ca < SIM_CAS; ca++) {
            cas[ca] = simSelfSigned(ca, simKeyOf(ca));
            same_name_cas[ca] = simSelfSigned(ca, KEY_SAME_NAME_CA);
            for (i = 0; i < SIGNER_VARIANTS; i++) simMakeTemplate(ca, i);
        }
    }
    serials = 100;
    memset(last_of_cert, 0xff, sizeof(last_of_cert));
    signer_validity = 0;
}

X509 *simCaRoot(int ca) {
    return cas[ca];
}

static void simDropSignerCert(int ca, int variant) {
    simSignerCert *d = &signer_certs[ca][variant];

    testBytesFree(&d->der);
    memset(d, 0, sizeof(*d));
}

void simCaEnd(void) {
    size_t i;
    int c;

    for (c = 0; c < cert_count; c++) {
        X509_free(certs[c]->leaf);
        X509_free(certs[c]->parsed[0]);
        X509_free(certs[c]->parsed[1]);
        free(certs[c]);
    }
    cert_count = 0;
    for (c = 0; c < SIM_CAS * SIGNER_VARIANTS; c++) simDropSignerCert(c / SIGNER_VARIANTS, c % SIGNER_VARIANTS);
    for (i = 0; i < answer_count; i++) {
        free(answer_list[i]->der);
        free(answer_list[i]);
    }
    answer_count = 0;
    if (answers) memset(answers, 0, answer_slots * sizeof(answers[0]));
}

static int simWriteCertId(unsigned char *out, X509 *issuer, X509 *leaf, const EVP_MD *md) {
    OCSP_CERTID *id = OCSP_cert_to_id(md, leaf, issuer);
    unsigned char *p = out;
    int n = i2d_OCSP_CERTID(id, &p);

    simAssert(n > 0 && n <= 128);
    OCSP_CERTID_free(id);
    return n;
}

/* Adds what a CA's certificate has, and the TLS feature extension, which there is about the leaves only. */
static void simExtendLeafOrCa(X509 *cert, X509 *issuer, const simRequest *r) {
    char access[SIM_MAX_URLS * 40] = "";
    int i;

    for (i = 0; i < r->urls; i++)
        snprintf(access + strlen(access), sizeof(access) - strlen(access), "%sOCSP;URI:http://ocsp%d.invalid/",
                 i ? "," : "", i);
    if (r->urls) simExtend(cert, issuer, NID_info_access, access);
    if (r->must_staple) simExtend(cert, issuer, NID_tlsfeature, "status_request");
    if (!r->level) return;
    simExtend(cert, issuer, NID_basic_constraints, "critical,CA:TRUE");
    simExtend(cert, issuer, NID_key_usage, "critical,keyCertSign,cRLSign,digitalSignature");
}

simCert *simCaIssue(const simRequest *r) {
    simCert *c = calloc(1, sizeof(*c));
    X509 *issuer = cas[r->issuer];
    int64_t now = simCaTime();
    OCSP_CERTID *id;
    char name[64] = "server";
    int i;

    simAssert(c && cert_count < SIM_MAX_CERTS);
    c->index = cert_count;
    c->level = r->level;
    c->issuer = r->issuer;
    c->key = keys[r->level ? simKeyOf(r->subject) : r->second ? KEY_SECOND_LEAF : KEY_LEAF];
    c->not_after = now + r->validity;
    c->must_staple = r->must_staple && !r->level;
    c->urls = r->urls;
    c->self_signed = r->self_signed;
    if (r->level) X509_NAME_get_text_by_NID(X509_get_subject_name(cas[r->subject]), NID_commonName, name, sizeof(name));
    c->leaf = simCertificate(name, r->self_signed ? NULL : issuer, c->key, c->key, now - 3600, c->not_after);
    simExtendLeafOrCa(c->leaf, issuer, r);
    simAssert(X509_sign(c->leaf, r->self_signed ? c->key : keys[simKeyOf(r->issuer)], NULL));
    simAssert(BN_bn2binpad(ASN1_INTEGER_to_BN(X509_get0_serialNumber(c->leaf), NULL), c->serial, 8) == 8);
    simAssert(X509_digest(c->leaf, EVP_sha256(), c->sha256, NULL));
    memcpy(c->file, "ocsp-", 5);
    for (i = 0; i < 32; i++) snprintf(c->file + 5 + 2 * i, 3, "%02x", c->sha256[i]);
    memcpy(c->file + 69, ".der", 5);
    c->id_len[0] = (size_t)simWriteCertId(c->id[0], issuer, c->leaf, EVP_sha1());
    c->id_len[1] = (size_t)simWriteCertId(c->id[1], issuer, c->leaf, EVP_sha256());
    id = OCSP_cert_id_new(EVP_sha1(), X509_get_subject_name(same_name_cas[r->issuer]),
                          X509_get0_pubkey_bitstr(same_name_cas[r->issuer]), X509_get0_serialNumber(c->leaf));
    if (id) {
        unsigned char *p = c->id[2];
        c->id_len[2] = (size_t)i2d_OCSP_CERTID(id, &p);
        OCSP_CERTID_free(id);
    }
    certs[cert_count++] = c;
    return c;
}

simCert *simCaCert(int index) {
    return certs[index];
}

X509 *simCaParsed(simCert *c) {
    X509 **parsed = &c->parsed[c->parsed_next++ & 1];

    if (!*parsed) *parsed = X509_dup(c->leaf);
    simAssert(*parsed);
    return *parsed;
}

int simCaCertCount(void) {
    return cert_count;
}

simCert *simCaCertOfRequest(const unsigned char *der, size_t len) {
    int i;

    for (i = cert_count - 1; i >= 0; i--)
        if (memmem(der, len, certs[i]->serial, 8)) return certs[i];
    return NULL;
}

int simCaHasSignerCert(void) {
    return signer_validity > 0;
}

void simCaReplaceSigner(int validity) {
    int ca;

    for (ca = 0; ca < SIM_CAS; ca++) simDropSignerCert(ca, SIGNER_GOOD);
    signer_validity = validity;
}

/* ---- signatures -------------------------------------------------------------------------------------------------- */

static const unsigned char ed25519_algorithm[] = {0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70};

static void simSign(unsigned char *out, const unsigned char *tbs, size_t len, int key, int really) {
    uint64_t h = simHash(tbs, len, key_number[key]);

    if (really) {
        EVP_MD_CTX *ctx = EVP_MD_CTX_new();
        size_t n = SIM_SIGNATURE;
        simAssert(EVP_DigestSignInit(ctx, NULL, NULL, NULL, keys[key]) && EVP_DigestSign(ctx, out, &n, tbs, len));
        EVP_MD_CTX_free(ctx);
        return;
    }
    memset(out, 0, SIM_SIGNATURE);
    memcpy(out, SIM_MARK, sizeof(SIM_MARK) - 1);
    memcpy(out + SIM_SIGNATURE - 8, &h, 8);
}

/* Returns the AlgorithmIdentifier and the signature of `tbs`. */
static testBytes simAlgorithmAndSignature(const testBytes *tbs, int key, int really) {
    unsigned char signature[1 + SIM_SIGNATURE] = {0}; /* no unused bits */

    simSign(signature + 1, tbs->p, tbs->n, key, really);
    return testJoin(testCopy(ed25519_algorithm, sizeof(ed25519_algorithm)),
                    testTag(0x03, testCopy(signature, sizeof(signature))));
}

/* A cache of X509_verify's results, by the certificate's fingerprint and the key. A new entry replaces the old one in
 * its bucket. */
static struct {
    unsigned char sha1[20];
    uint64_t key;
    int verdict, known;
} verdicts[4096];

static void simCacheVerdict(const unsigned char *sha1, uint64_t key, int verdict) {
    size_t at = simHash(sha1, 20, key) & 4095;

    verdicts[at].verdict = verdict;
    verdicts[at].key = key;
    memcpy(verdicts[at].sha1, sha1, 20);
    verdicts[at].known = 1;
}

/* Signs an authorized responder's certificate. One in 16 is left to the real X509_verify; the others are cached as
 * verified. */
static void simSignCertificate(simSignerCert *d, const unsigned char *tbs, size_t len, int key) {
    testBytes part = testCopy(tbs, len), signature = simAlgorithmAndSignature(&part, key, 1);
    unsigned char sha1[20];

    d->der = testTag(0x30, testJoin(part, signature));
    if (simOneIn(simWorldRng(), 16)) return;
    simAssert(EVP_Digest(d->der.p, d->der.n, sha1, NULL, EVP_sha1(), NULL));
    simCacheVerdict(sha1, key_number[key], 1);
}

static void simUtcTime(unsigned char *out, int64_t t) {
    time_t when = (time_t)t;
    char text[64];
    struct tm tm;

    simAssert(gmtime_r(&when, &tm) && tm.tm_year < 150);
    snprintf(text, sizeof(text), "%02d%02d%02d%02d%02d%02dZ", tm.tm_year % 100, tm.tm_mon + 1, tm.tm_mday, tm.tm_hour,
             tm.tm_min, tm.tm_sec);
    memcpy(out, text, SIM_UTC_TIME);
}

static simSignerCert *simGetSignerCert(int ca, int variant) {
    simSignerCert *d = &signer_certs[ca][variant];
    const simTemplate *t = &templates[ca][variant];
    int64_t now = simCaTime();
    int64_t overlap = simThisWorld()->signer_gap                       ? 0
                      : signer_validity / 2 < ca_validity + ca_presign ? signer_validity / 2
                                                                       : ca_validity + ca_presign;

    if (d->der.p && (variant == SIGNER_GOOD ? now < d->to - overlap : d->from <= now + 86400 && now < d->to + 86400))
        return d;
    simDropSignerCert(ca, variant);
    d->from = now - 60;
    d->to = now + (variant == SIGNER_GOOD ? signer_validity : 30 * 86400);
    if (variant == SIGNER_EXPIRED) d->to = now - 1;
    if (variant == SIGNER_EXPIRED) d->from = now - 86400;
    if (variant == SIGNER_NOT_YET) d->from = now + 43200;
    d->cert = t->cert;
    simNextSerial(t->serial);
    simUtcTime(t->from, d->from);
    simUtcTime(t->to, d->to);
    simSignCertificate(d, t->tbs, (size_t)t->len, variant == SIGNER_FOREIGN ? KEY_SAME_NAME_CA : simKeyOf(ca));
    return d;
}

static testSingle simSingleResponse(const simCert *about, int which_id, const simAnswer *values) {
    return (testSingle){.certid = {(unsigned char *)about->id[which_id], about->id_len[which_id]},
                        .status = (testStatus)values->status, /* the same numbers as OpenSSL's */
                        .revoked_at = SIM_EPOCH,
                        .this_update = values->this_update,
                        .next_update = values->next_update};
}

typedef struct simSigning {
    int key, really;
} simSigning;

static testBytes simSignReply(const testBytes *tbs, void *arg) {
    const simSigning *signer = arg;

    return simAlgorithmAndSignature(tbs, signer->key, signer->really);
}

/* ---- the record of answers --------------------------------------------------------------------------------------- */

static void simGrowTable(void) {
    size_t i, slots = answer_slots ? answer_slots * 2 : 4096;
    simAnswer **bigger = calloc(slots, sizeof(bigger[0]));

    simAssert(bigger);
    for (i = 0; i < answer_count; i++) {
        size_t at = answer_list[i]->hash & (slots - 1);
        while (bigger[at]) at = (at + 1) & (slots - 1);
        bigger[at] = answer_list[i];
    }
    free(answers);
    answers = bigger;
    answer_slots = slots;
}

const simAnswer *simCaFind(const unsigned char *der, size_t len) {
    uint64_t h = simHash(der, len, 0);
    size_t at;

    if (!answer_slots) return NULL;
    for (at = h & (answer_slots - 1); answers[at]; at = (at + 1) & (answer_slots - 1))
        if (answers[at]->hash == h && answers[at]->len == len && memcmp(answers[at]->der, der, len) == 0)
            return answers[at];
    return NULL;
}

static const simAnswer *simRecordAnswer(const simAnswer *made, const unsigned char *der, size_t len) {
    const simAnswer *known = simCaFind(der, len);
    simAnswer **grown;
    simAnswer *a;
    size_t at;

    if (known) return known;
    if (answer_count * 2 >= answer_slots) simGrowTable();
    if (answer_count == answer_list_size) {
        answer_list_size = answer_list_size ? answer_list_size * 2 : 4096;
        grown = realloc(answer_list, answer_list_size * sizeof(answer_list[0]));
        simAssert(grown);
        answer_list = grown;
    }
    a = malloc(sizeof(*a));
    simAssert(a);
    *a = *made;
    a->der = malloc(len ? len : 1);
    simAssert(a->der);
    memcpy(a->der, der, len);
    a->len = len;
    a->hash = simHash(der, len, 0);
    answer_list[answer_count] = a;
    for (at = a->hash & (answer_slots - 1); answers[at]; at = (at + 1) & (answer_slots - 1)) continue;
    answers[at] = a;
    if (a->acceptable) {
        memmove(&last_of_cert[a->cert][1], &last_of_cert[a->cert][0], 7 * sizeof(int));
        last_of_cert[a->cert][0] = (int)answer_count;
    }
    answer_count++;
    return a;
}

const simAnswer *simCaEarlier(int cert, int back) {
    return back < 8 && last_of_cert[cert][back] >= 0 ? answer_list[last_of_cert[cert][back]] : NULL;
}

long long simCaCount(void) {
    return (long long)answer_count;
}

/* ---- answers ----------------------------------------------------------------------------------------------------- */

/* Returns the last event of `kind` about this level that is under way, or NULL. An event without a duration does not
 * end. */
static const simEvent *simLatest(simKind kind, int level) {
    const simWorld *w = simThisWorld();
    const simEvent *found = NULL;
    int64_t now = simTrueMs();
    int i;

    for (i = 0; i < w->event_count && w->events[i].at <= now; i++) {
        const simEvent *e = &w->events[i];
        if (e->kind == kind && !e->off && simMeans(e, level) && (!e->duration || now < e->at + e->duration)) found = e;
    }
    return found;
}

/* Whether the certificate was revoked at that time (true seconds). For a CA that rounds thisUpdate: its responses have
 * the status of the time when they are signed. */
static int simRevokedAt(int64_t signed_at, int level) {
    const simWorld *w = simThisWorld();
    int64_t at = ((int64_t)signed_at - SIM_EPOCH) * 1000;
    int i;

    for (i = 0; i < w->event_count; i++) {
        const simEvent *e = &w->events[i];
        if (e->kind == SIM_REVOKED && !e->off && simMeans(e, level) && e->at <= at && at < e->at + e->duration)
            return 1;
    }
    return 0;
}

static const simAnswer *simErrorAnswer(simKind kind, const simCert *cert) {
    simAnswer made = {.cert = cert->index, .description = simKindName(kind)};
    unsigned char bytes[300];
    size_t i, n = 5;

    if (kind == SIM_EMPTY) return simRecordAnswer(&made, bytes, 0);
    if (kind == SIM_TRY_LATER) {
        static const unsigned char statuses[] = {1, 2, 3, 5, 6};
        memcpy(bytes, "\x30\x03\x0a\x01", 4);
        bytes[4] = statuses[simBetween(simWorldRng(), 0, 4)];
    } else {
        n = (size_t)simLogBetween(simWorldRng(), 1, sizeof(bytes));
        for (i = 0; i < n; i++) bytes[i] = (unsigned char)simRandom(simWorldRng());
    }
    return simRecordAnswer(&made, bytes, n);
}

/* Computes the dates and the status of an answer, without making it. */
void simCaOffer(const simCert *cert, const simEvent *fault, simAnswer *offer) {
    simKind kind = fault ? fault->kind : SIM_KINDS;
    const simWorld *w = simThisWorld();
    const simEvent *change, *revoked = simLatest(SIM_REVOKED, cert->level);
    int64_t now = simCaTime(), began = fault ? (int64_t)(SIM_EPOCH + fault->at / 1000) : 0;

    memset(offer, 0, sizeof(*offer));
    offer->acceptable = offer->well_formed = 1;
    offer->cert = cert->index;
    offer->description = simKindName(kind);
    offer->status = V_OCSP_CERTSTATUS_GOOD;
    ca_validity = (change = simLatest(SIM_VALIDITY, cert->level)) ? (int)change->a : w->validity;
    ca_presign = (change = simLatest(SIM_PRESIGN, cert->level)) ? (int)change->a : w->presign;
    ca_backdate = w->backdate < ca_validity ? w->backdate : 0;

    if (kind == SIM_FROZEN) now = began;
    if (kind == SIM_OLDER) now = began - (int64_t)fault->a;
    offer->this_update = now - ca_backdate;
    if (ca_presign) offer->this_update = now / ca_presign * ca_presign;
    if (kind == SIM_BACKDATED) offer->this_update = now - (int64_t)fault->a;
    if (kind == SIM_FUTURE) offer->this_update = now + (int64_t)fault->a;
    /* Responses signed in advance overlap, as those of real CAs do: one is published before the last one expires. */
    offer->next_update = offer->this_update + ca_validity + ca_presign;
    if (kind == SIM_EXPIRED) {
        offer->this_update -= ca_validity + ca_presign + 1 + (int64_t)simLogBetween(simWorldRng(), 1, 100000);
        offer->next_update = offer->this_update + ca_validity;
    }
    if (kind == SIM_BACKWARDS) { /* nextUpdate is in the future, so thisUpdate must be within the allowed clock skew */
        offer->this_update = now + 200;
        offer->next_update = now + 100;
        offer->acceptable = 0;
    }
    if (kind == SIM_NO_NEXT_UPDATE || (w->no_next_update && kind != SIM_BACKWARDS)) offer->next_update = 0;

    offer->produced_at = ca_presign ? offer->this_update : now;
    if (w->round_to && kind != SIM_FUTURE && kind != SIM_EXPIRED && kind != SIM_BACKWARDS) {
        /* Rounded, as by CFSSL and Go's CAs. Responses overlap, as above. */
        offer->this_update -= offer->this_update % w->round_to;
        offer->produced_at -= offer->produced_at % (w->round_to >= 60 ? w->round_to / 60 : 1);
        if (offer->next_update) offer->next_update = offer->this_update + ca_validity + ca_presign + w->round_to;
        if (simRevokedAt(now, cert->level)) offer->status = V_OCSP_CERTSTATUS_REVOKED;
    } else if (revoked && (revoked->b || offer->this_update >= (int64_t)(SIM_EPOCH + revoked->at / 1000)))
        offer->status = V_OCSP_CERTSTATUS_REVOKED;
}

#define SIM_LONG_AGO (1000 * 86400) /* seconds */

const simAnswer *simCaAnswer(const simCert *cert, const simEvent *fault, int alone) {
    simKind kind = fault ? fault->kind : SIM_KINDS;
    simAnswer made;
    int variant = -1, which_id = simOneIn(simWorldRng(), 8), by_key = simOneIn(simWorldRng(), 3);
    simSigning how = {simKeyOf(cert->issuer), simOneIn(simWorldRng(), SIM_REAL_SIGNATURES)};
    testReply reply = {
        .count = 1, .signer = cas[cert->issuer], .by_key = by_key, .sign = simSignReply, .sign_arg = &how};
    testSingle *entries = reply.singles;
    int many = simOneIn(simWorldRng(), 16);
    const simCert *about = cert;
    const simAnswer *kept;
    testBytes der;

    if (kind == SIM_TRY_LATER || kind == SIM_GARBAGE || kind == SIM_EMPTY) return simErrorAnswer(kind, cert);
    simCaOffer(cert, fault, &made);
    if (kind == SIM_UNKNOWN) {
        made.status = V_OCSP_CERTSTATUS_UNKNOWN;
        made.acceptable = 0;
    }
    if (kind == SIM_OTHER_ISSUER) {
        which_id = 2;
        made.acceptable = 0;
    }
    if (kind == SIM_OTHER_SERIAL) {
        about = cert_count > 1 ? certs[(cert->index + 1) % cert_count] : cert;
        made.cert = about->index;
        if (about == cert) which_id = 2;
        if (about == cert || about->issuer != cert->issuer) made.acceptable = 0, made.cert = -1;
    }
    entries[0] = simSingleResponse(about, which_id, &made);
    if (many && !alone && kind == SIM_KINDS) { /* more SingleResponses: for this certificate, and for another one */
        testSingle *second = &entries[reply.count++];
        *second = entries[0];
        if (made.status == V_OCSP_CERTSTATUS_REVOKED && simOneIn(simWorldRng(), 2)) {
            second->status = TEST_GOOD; /* with equal thisUpdate, revoked must win */
        } else {
            /* Expired by any clock, so that it is never used, even while the newer one is not valid yet. */
            second->this_update -= SIM_LONG_AGO + simBetween(simWorldRng(), 0, 1000);
            second->next_update = second->this_update + 1000;
            second->status = simOneIn(simWorldRng(), 2) ? TEST_GOOD : TEST_REVOKED;
        }
        if (cert_count > 1) {
            testSingle *third = &entries[reply.count++];
            *third = simSingleResponse(certs[(cert->index + 1) % cert_count], 0, &made);
            third->status = TEST_REVOKED;
            third->this_update++;
        }
        if (simOneIn(simWorldRng(), 2)) {
            testSingle first = entries[0];
            entries[0] = entries[reply.count - 1];
            entries[reply.count - 1] = first;
        }
    }

    /* The signer. */
    if (signer_validity > 0) variant = SIGNER_GOOD;
    if (kind == SIM_SIGNER_NO_EKU) variant = SIGNER_NO_EKU;
    if (kind == SIM_SIGNER_EXPIRED) variant = SIGNER_EXPIRED;
    if (kind == SIM_SIGNER_NOT_YET) variant = SIGNER_NOT_YET;
    if (kind == SIM_SIGNER_FOREIGN) variant = SIGNER_FOREIGN;
    if (kind == SIM_SIGNER_KEY_USAGE) variant = SIGNER_KEY_USAGE;
    if (kind == SIM_SIGNER_CRITICAL) variant = SIGNER_CRITICAL;
    if (variant >= 0) {
        const simSignerCert *signer_cert = simGetSignerCert(cert->issuer, variant);
        reply.signer = signer_cert->cert;
        reply.sent_der = signer_cert->der;
        how.key = KEY_SIGNER;
        made.signer_from = signer_cert->from;
        made.signer_to = signer_cert->to;
        if (variant == SIGNER_NO_EKU || variant == SIGNER_FOREIGN || variant == SIGNER_KEY_USAGE ||
            variant == SIGNER_CRITICAL)
            made.acceptable = 0;
    }
    if (kind == SIM_SAME_NAME_CA) {
        made.signer_from = made.signer_to = 0;
        reply.signer = same_name_cas[cert->issuer];
        reply.sent_der = (testBytes){0};
        how.key = KEY_SAME_NAME_CA;
        made.acceptable = 0;
    }

    reply.produced_at = made.produced_at;
    reply.padding = (size_t)simThisWorld()->chain.padding[cert->level];
    der = testReplyDer(&reply);
    if (kind == SIM_TRUNCATED) der.n = (size_t)simBetween(simWorldRng(), 1, (int64_t)der.n - 1);
    if (kind == SIM_FLIPPED) {
        size_t at = (size_t)simBetween(simWorldRng(), 0, (int64_t)der.n - 1);
        int bit = (int)simBetween(simWorldRng(), 0, 7);
        der.p[at] ^= (unsigned char)(1 << bit);
        simTrace("bit %d of byte %zu of %zu is flipped", bit, at, der.n);
    }
    if (kind == SIM_TRAILING) der = testJoin(der, testCopy("\0\0\0\0", (size_t)simBetween(simWorldRng(), 1, 4)));
    if (kind == SIM_TRUNCATED || kind == SIM_FLIPPED || kind == SIM_TRAILING) made.acceptable = made.well_formed = 0;
    made.corrupted = kind == SIM_FLIPPED;
    kept = simRecordAnswer(&made, der.p, der.n);
    testBytesFree(&der);
    return kept;
}

int simCompareTimes(const simAnswer *a, const simAnswer *b) {
    if (a->this_update != b->this_update) return a->this_update > b->this_update ? 1 : -1;
    if (a->produced_at != b->produced_at) return a->produced_at > b->produced_at ? 1 : -1;
    return 0;
}

/* A copied file has a new mtime. Therefore a response without nextUpdate counts as received at most five minutes after
 * it was signed. An mtime in the future is returned as it is. */
int64_t simReceivedAt(const simAnswer *a, int64_t mtime, int64_t now) {
    int64_t signed_at = a->this_update > a->produced_at ? a->this_update : a->produced_at;

    return mtime > signed_at + 300 && mtime <= now + 300 ? signed_at + 300 : mtime;
}

int simAcceptable(const simAnswer *a, const simCert *cert, int64_t now, int64_t received, int64_t *end) {
    if (!a || !a->acceptable || a->cert != cert->index) return 0;
    if (a->this_update > now + 300) return 0;
    if (a->signer_to && a->signer_from > now + 300) return 0;
    if (a->next_update && a->next_update < a->this_update) return 0;
    if (a->next_update) {
        *end = a->next_update;
    } else {
        if (received > now + 300) return 0; /* an mtime in the future does not show when it was received */
        *end = (received < now ? received : now) + 600;
    }
    if (cert->not_after < *end) *end = cert->not_after;
    if (a->signer_to && a->signer_to < *end) *end = a->signer_to;
    if (!a->signer_to && cert->issuer_ends && cert->issuer_ends < *end) *end = cert->issuer_ends; /* the CA signed */
    return now < *end;
}

/* ---- the self-test of simulated signatures ----------------------------------------------------------------------- */

/* Flips each bit of responses with simulated and with real signatures: none may verify, and the intact response must.
 * Returns 1 after a wrong result, else 0. */
int simCaSelfTest(void) {
    static simWorld w;
    int with_signer_cert, by_key, really, wrong = 0;
    long long tried = 0;

    w.validity = 86400;
    w.urls = 1;
    simSelfWorld(&w);
    for (with_signer_cert = 0; with_signer_cert < 2; with_signer_cert++) {
        for (by_key = 0; by_key < 2; by_key++) {
            for (really = 0; really < 2; really++) {
                simCert *cert = simCaIssue(&(simRequest){.validity = 10 * 86400, .urls = 1});
                ocspIdentity *id;
                STACK_OF(X509) *chain = sk_X509_new_null();
                simAnswer values = {.status = V_OCSP_CERTSTATUS_GOOD,
                                    .this_update = simCaTime(),
                                    .next_update = simCaTime() + 86400};
                simSigning how = {with_signer_cert ? KEY_SIGNER : KEY_CA, really};
                testReply reply = {
                    .count = 1, .signer = cas[0], .by_key = by_key, .sign = simSignReply, .sign_arg = &how};
                simSignerCert *d;
                ocspResponse r;
                ocspError err;
                testBytes der;
                size_t at;
                int bit;
                signer_validity = 86400;
                ca_validity = 86400;
                d = with_signer_cert ? simGetSignerCert(SIM_ROOT_CA, SIGNER_GOOD) : NULL;
                sk_X509_push(chain, cas[0]);
                id = ocspIdentityNew(cert->leaf, chain, NULL);
                simAssert(id && id->issuer);
                reply.singles[0] = simSingleResponse(cert, 0, &values);
                if (d) reply.signer = d->cert;
                if (d) reply.sent_der = d->der;
                der = testReplyDer(&reply);
                if (!ocspVerify((ocspBytes){der.p, der.n}, id, simCaTime(), simCaTime(), &r, &err)) {
                    printf("self-test: an intact response is rejected: %s\n", err.text);
                    wrong++;
                }
                ocspResponseClear(&r);
                for (at = 0; at < der.n; at++) {
                    for (bit = 0; bit < 8; bit++, tried++) {
                        der.p[at] ^= (unsigned char)(1 << bit);
                        if (ocspVerify((ocspBytes){der.p, der.n}, id, simCaTime(), simCaTime(), &r, &err)) {
                            printf("self-test: response accepted although bit %d of byte %zu of %zu is flipped (%s, "
                                   "%s)\n",
                                   bit, at, der.n, d ? "signed by an authorized responder" : "signed by the CA",
                                   really ? "real signature" : "simulated signature");
                            wrong++;
                            ocspResponseClear(&r);
                        }
                        der.p[at] ^= (unsigned char)(1 << bit);
                    }
                }
                testBytesFree(&der);
                ocspIdentityFree(id);
                sk_X509_free(chain);
            }
        }
    }
    simCaEnd();
    printf("self-test: %lld flipped responses, %d wrong verdicts\n", tried, wrong);
    return wrong != 0;
}

/* ---- wrapped functions of OpenSSL and the engine ----------------------------------------------------------------- */

int __real_OCSP_basic_verify(OCSP_BASICRESP *basic, STACK_OF(X509) *helpers, X509_STORE *store, unsigned long flags);
int __wrap_OCSP_basic_verify(OCSP_BASICRESP *basic, STACK_OF(X509) *helpers, X509_STORE *store, unsigned long flags);
int __real_X509_verify(X509 *cert, EVP_PKEY *key);
int __wrap_X509_verify(X509 *cert, EVP_PKEY *key);

/* Returns the number of unused bits at the end of a signature, whose structure OpenSSL 4 hides. */
static int simUnusedBits(const ASN1_BIT_STRING *signature) {
    unsigned char *der = NULL;
    int n = i2d_ASN1_BIT_STRING(signature, &der), bits = -1;

    /* The byte before the signature's own bytes. */
    if (n > ASN1_STRING_length(signature)) bits = der[n - ASN1_STRING_length(signature) - 1];
    OPENSSL_free(der);
    return bits;
}

int __wrap_OCSP_basic_verify(OCSP_BASICRESP *basic, STACK_OF(X509) *helpers, X509_STORE *store, unsigned long flags) {
    const ASN1_OCTET_STRING *signature = OCSP_resp_get0_signature(basic);
    const X509_ALGOR *algorithm = OCSP_resp_get0_tbs_sigalg(basic);
    const ASN1_OBJECT *object;
    unsigned char *tbs = NULL, expected[SIM_SIGNATURE] = SIM_MARK;
    int n, type;
    uint64_t h;

    X509_ALGOR_get0(&object, &type, NULL, algorithm);
    /* OpenSSL rejects signatures with unused bits. */
    if (ASN1_STRING_length(signature) != SIM_SIGNATURE || simUnusedBits(signature) != 0 ||
        OBJ_obj2nid(object) != NID_ED25519 || type != V_ASN1_UNDEF ||
        memcmp(ASN1_STRING_get0_data(signature), SIM_MARK, sizeof(SIM_MARK) - 1) != 0 || sk_X509_num(helpers) != 1)
        return __real_OCSP_basic_verify(basic, helpers, store, flags);
    if (__real_OCSP_basic_verify(basic, helpers, store, flags | OCSP_NOSIGS) <= 0) return 0;
    n = i2d_OCSP_RESPDATA((OCSP_RESPDATA *)OCSP_resp_get0_respdata(basic), &tbs);
    if (n < 0) return 0;
    h = simHash(tbs, (size_t)n, simKeyNumber(X509_get0_pubkey(sk_X509_value(helpers, 0))));
    OPENSSL_free(tbs);
    memcpy(expected + SIM_SIGNATURE - 8, &h, 8);
    return memcmp(ASN1_STRING_get0_data(signature), expected, SIM_SIGNATURE) == 0;
}

int __wrap_X509_verify(X509 *cert, EVP_PKEY *key) {
    unsigned char sha1[20];
    uint64_t number = simKeyNumber(key);
    size_t at;

    if (!number || !X509_digest(cert, EVP_sha1(), sha1, NULL)) return __real_X509_verify(cert, key);
    at = simHash(sha1, 20, number) & 4095;
    if (!verdicts[at].known || verdicts[at].key != number || memcmp(verdicts[at].sha1, sha1, 20) != 0) {
        simCacheVerdict(sha1, number, __real_X509_verify(cert, key));
    }
    return verdicts[at].verdict;
}

/* Caches results by hash: the function is pure, and called for the same files after each store. */
int64_t __real_ocspPeekNextUpdate(const unsigned char *der, size_t len);
int64_t __wrap_ocspPeekNextUpdate(const unsigned char *der, size_t len);
int64_t __wrap_ocspPeekNextUpdate(const unsigned char *der, size_t len) {
    static struct {
        uint64_t hash;
        int64_t end;
    } peeked[1024];
    uint64_t h = simHash(der, len, 2) | 1;

    if (peeked[h >> 1 & 1023].hash != h) {
        peeked[h >> 1 & 1023].end = __real_ocspPeekNextUpdate(der, len);
        peeked[h >> 1 & 1023].hash = h;
    }
    return peeked[h >> 1 & 1023].end;
}
