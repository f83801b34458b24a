/* test_identity.c - from a served certificate to its issuer, URLs, request and TLS features. Malformed certificates
 * must end in a state without refreshes, never in a crash.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/err.h>
#include <openssl/pem.h>

static const testPki *pki;

static void beginProgram(void) {
    pki = testGetPki();
}

PROGRAM_FIXTURE(beginProgram, NULL);

static void assertIssuer(const ocspIdentity *id, X509 *issuer) {
    assert_non_null(id);
    if (!issuer) {
        assert_null(id->issuer);
        assert_null(id->request);
        return;
    }
    assert_non_null(id->issuer);
    assert_int_equal(X509_cmp(id->issuer, issuer), 0);
    assert_non_null(id->request);
}

static ocspIdentity *identify(X509 *leaf, X509 *a, X509 *b, X509_STORE *store) {
    STACK_OF(X509) *chain = testStack(a, b, NULL);
    ocspIdentity *id = ocspIdentityNew(leaf, chain, store);
    sk_X509_free(chain);
    assert_non_null(id);
    assert_int_equal(ERR_peek_error(), 0);
    return id;
}

/* ---- the issuer -------------------------------------------------------------------------------------------------- */

TEST(issuer_fromTheChain, "1") {
    ocspIdentity *id = identify(pki->leaf, pki->ca, pki->root, NULL);
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    id = identify(pki->leaf, pki->root, pki->ca, NULL); /* in any order */
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
}

TEST(issuer_fromTheTrustedStore, "1") {
    X509_STORE *store = testStore(pki->root, pki->ca);
    ocspIdentity *id = ocspIdentityNew(pki->leaf, NULL, store);
    assertIssuer(id, pki->ca);
    assert_ptr_equal(id->store, store);
    X509_STORE_free(store); /* the identity holds its own references */
    assert_int_equal(X509_verify(id->leaf, X509_get0_pubkey(id->issuer)), 1);
    ocspIdentityFree(id);
}

/* Puts `cert` into `dir` under the hash of its name, as `openssl rehash` does. */
static void intoHashedDir(const char *dir, X509 *cert, int number) {
    char name[32];
    snprintf(name, sizeof(name), "%08lx.%d", X509_subject_name_hash(cert), number);
    char *path = testPath(dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_true(PEM_write_X509(f, cert));
    fclose(f);
    free(path);
}

TEST(issuer_fromTheHashedDirectory, "1") {
    char *dir = testDir();
    intoHashedDir(dir, pki->root, 0);
    intoHashedDir(dir, pki->ca, 0);
    X509_STORE *store = X509_STORE_new();
    assert_true(X509_STORE_load_path(store, dir));
    ocspIdentity *id = ocspIdentityNew(pki->leaf, NULL, store);
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    X509_STORE_free(store);
    testDirFree(dir);
}

TEST(issuer_wrongOneOfTheSameNameInTheChain, "1") {
    ocspIdentity *id = identify(pki->leaf, pki->twin, NULL, NULL);
    assertIssuer(id, NULL);
    ocspIdentityFree(id);
    id = identify(pki->leaf, pki->twin, pki->ca, NULL); /* the wrong one comes first */
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    X509_STORE *store = testStore(pki->ca, NULL); /* the wrong one in the chain, the right one trusted */
    id = identify(pki->leaf, pki->twin, NULL, store);
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    X509_STORE_free(store);
}

/* The issuer's name and key, in a certificate whose key usage does not allow to sign certificates. */
TEST(issuer_withoutKeyCertSignIsRejected, "1") {
    X509 *other = testCert(&(testCertSpec){.name = "CA",
                                           .issuer = pki->root,
                                           .issuer_key = pki->root_key,
                                           .key = pki->ca_key,
                                           .key_usage = "digitalSignature,cRLSign"});
    ocspIdentity *id = identify(pki->leaf, other, NULL, NULL);
    assertIssuer(id, NULL);
    ocspIdentityFree(id);
    X509_free(other);
}

TEST(issuer_wrongOneOfTheSameNameInTheStore, "1") {
    X509_STORE *store = testStore(pki->twin, NULL);
    ocspIdentity *id = ocspIdentityNew(pki->leaf, NULL, store);
    assertIssuer(id, NULL);
    ocspIdentityFree(id);
    assert_true(X509_STORE_add_cert(store, pki->ca));
    id = ocspIdentityNew(pki->leaf, NULL, store);
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    id = ocspIdentityNew(pki->foreign_leaf, NULL, store);
    assertIssuer(id, pki->twin);
    ocspIdentityFree(id);
    X509_STORE_free(store);
}

TEST(issuer_wrongOneOfTheSameNameInTheHashedDirectory, "1") {
    char *dir = testDir();
    intoHashedDir(dir, pki->twin, 0);
    intoHashedDir(dir, pki->ca, 1);
    X509_STORE *store = X509_STORE_new();
    assert_true(X509_STORE_load_path(store, dir));
    ocspIdentity *id = ocspIdentityNew(pki->leaf, NULL, store);
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    X509_STORE_free(store);
    testDirFree(dir);
}

/* Key identifiers help to find the issuer, but prove nothing. */
TEST(issuer_keyIdentifiers, "1") {
    X509 *ca = testCert(&(testCertSpec){.name = "KCA", .key = pki->ca_key, .ca = 1, .key_ids = 1});
    X509 *twin = testCert(&(testCertSpec){.name = "KCA", .key = pki->twin_key, .ca = 1, .key_ids = 1});
    X509 *leaf = testCert(&(testCertSpec){
        .name = "k", .issuer = ca, .issuer_key = pki->ca_key, .key = pki->leaf_key, .key_ids = 1, .urls = {TEST_URL}});
    ocspIdentity *id = identify(leaf, twin, ca, NULL);
    assertIssuer(id, ca);
    ocspIdentityFree(id);
    id = identify(leaf, twin, NULL, NULL);
    assertIssuer(id, NULL);
    ocspIdentityFree(id);
    X509_free(leaf);
    X509_free(twin);
    X509_free(ca);
}

/* A CA whose certificate was renewed with its key: the one that ends last, wherever it stands. */
TEST(issuer_renewedWithTheSameKey, "1") {
    X509 *later = testCert(&(testCertSpec){.name = "CA",
                                           .issuer = pki->root,
                                           .issuer_key = pki->root_key,
                                           .key = pki->ca_key,
                                           .ca = 1,
                                           .not_after = TEST_NOW + 900L * TEST_DAY});
    ocspIdentity *id = identify(pki->leaf, pki->ca, later, NULL);
    assertIssuer(id, later);
    ocspIdentityFree(id);
    id = identify(pki->leaf, later, pki->ca, NULL);
    assertIssuer(id, later);
    ocspIdentityFree(id);
    X509_STORE *store = testStore(later, NULL);
    id = identify(pki->leaf, pki->ca, NULL, store);
    assertIssuer(id, later);
    ocspIdentityFree(id);
    X509_STORE_free(store);
    X509_free(later);
}

/* ---- states without refreshes ------------------------------------------------------------------------------------ */

/* ---- issuer-file ------------------------------------------------------------------------------------------------- */

static ocspIdentity *identifyWith(X509 *a, X509_STORE *store, X509 *b, X509 *c) {
    STACK_OF(X509) *chain = testStack(a, NULL, NULL), *issuers = testStack(b, c, NULL);
    ocspIdentity *id = ocspIdentityNewWith(pki->leaf, chain, store, issuers);
    sk_X509_free(chain);
    sk_X509_free(issuers);
    assert_non_null(id);
    assert_int_equal(ERR_peek_error(), 0);
    return id;
}

TEST(issuerFile_isSearchedByTheSameRules, "1") {
    X509_STORE *store = testStore(pki->root, NULL);
    ocspIdentity *id = identifyWith(pki->twin, store, pki->ca, NULL);
    assertIssuer(id, pki->ca);
    assert_ptr_equal(id->store, store);
    /* It is no trust anchor for https responders. */
    assert_int_equal(testStoreSize(store), 1);
    ocspIdentityFree(id);
    id = identifyWith(NULL, store, pki->twin, NULL); /* the name alone is not enough */
    assertIssuer(id, NULL);
    assert_true(id->incomplete);
    ocspIdentityFree(id);
    id = identifyWith(NULL, NULL, pki->twin, pki->ca);
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    id = identifyWith(pki->ca, NULL, pki->twin, pki->root); /* the chain's stays */
    assertIssuer(id, pki->ca);
    ocspIdentityFree(id);
    X509_STORE_free(store);
}

static char *pemOf(X509 *cert, int times, size_t *len) {
    BIO *out = BIO_new(BIO_s_mem());
    char *text;
    for (int i = 0; i < times; i++) assert_true(PEM_write_bio_X509(out, cert));
    *len = (size_t)BIO_get_mem_data(out, &text);
    text = memcpy(malloc(*len + 1), text, *len);
    text[*len] = '\0';
    BIO_free(out);
    return text;
}

/* Parses; `count` certificates, or 0 and the words of the error. */
static void parseIssuers(const char *text, size_t len, int count, const char *words) {
    ocspError err = {0};
    STACK_OF(X509) *certs = ocspParseIssuers((ocspBytes){(const unsigned char *)text, len}, &err);
    assert_int_equal(ERR_peek_error(), 0);
    assert_int_equal(certs ? sk_X509_num(certs) : 0, count);
    if (words && !strstr(err.text, words)) fail_msg("%s, and not %s", err.text, words);
    sk_X509_pop_free(certs, X509_free);
}

TEST(issuerFile_contents, "1") {
    size_t n, key_len, half;
    char *one = pemOf(pki->ca, 1, &n), *many, *text, *key;
    BIO *out = BIO_new(BIO_s_mem());
    static const char encrypted[] = "-----BEGIN CERTIFICATE-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: "
                                    "AES-128-CBC,00112233445566778899AABBCCDDEEFF\n\nMAEAAQ==\n"
                                    "-----END CERTIFICATE-----\n";
    parseIssuers(one, n, 1, NULL);
    parseIssuers(one, n - 1, 1, NULL); /* no line end */
    many = pemOf(pki->ca, OCSP_MAX_ISSUERS + 1, &half);
    parseIssuers(many, half / (OCSP_MAX_ISSUERS + 1) * OCSP_MAX_ISSUERS, OCSP_MAX_ISSUERS, NULL);
    parseIssuers(many, half, 0, "has more than 256 certificates");
    free(many);

    assert_true(PEM_write_bio_PrivateKey(out, pki->leaf_key, NULL, NULL, 0, NULL, NULL));
    key_len = (size_t)BIO_get_mem_data(out, &key);
    text = malloc(3 * n + key_len + 100);
    sprintf(text, "a comment\n%.*s%sanother\n%s", (int)key_len, key, one, one); /* other text and blocks are skipped */
    parseIssuers(text, strlen(text), 2, NULL);
    parseIssuers(key, key_len, 0, "has no certificate in PEM form");
    parseIssuers("nothing", 7, 0, "has no certificate in PEM form");
    unsigned char *der = NULL;
    int der_len = i2d_X509(pki->ca, &der);
    parseIssuers((char *)der, (size_t)der_len, 0, "has no certificate in PEM form");
    OPENSSL_free(der);

    /* A damaged one is reported, also behind an intact one: which one the operator needs is unknown. */
    half = n / 2;
    parseIssuers(one, half, 0, "has a damaged certificate (number 1)");
    sprintf(text, "%s%.*s", one, (int)half, one);
    parseIssuers(text, strlen(text), 0, "has a damaged certificate (number 2)");
    sprintf(text, "%s", one);
    memcpy(strchr(text, '\n') + 1, "AAAA", 4);
    parseIssuers(text, n, 0, "has a damaged certificate (number 1)");
    parseIssuers(encrypted, sizeof(encrypted) - 1, 0, "has a damaged certificate (number 1)"); /* nobody is asked */
    BIO_free(out);
    free(text);
    free(one);
}

TEST(selfSigned_isRecognized, "2") {
    ocspIdentity *id = identify(pki->self, NULL, NULL, NULL);
    assert_int_equal(id->self_signed, 1);
    ocspIdentityFree(id);
    id = identify(pki->leaf, pki->ca, NULL, NULL);
    assert_int_equal(id->self_signed, 0);
    ocspIdentityFree(id);
}

/* What most self-signed server certificates look like: a key usage that names no keyCertSign. */
TEST(selfSigned_withTheKeyUsageOfAServer, "2") {
    X509 *self = testCert(&(
        testCertSpec){.name = "self", .key = pki->leaf_key, .key_usage = "critical,digitalSignature,keyEncipherment"});
    ocspIdentity *id = identify(self, NULL, NULL, NULL);
    assert_int_equal(id->self_signed, 1);
    ocspIdentityFree(id);
    X509_free(self);
}

TEST(url_noAuthorityInfoAccess, "2") {
    ocspIdentity *id = identify(pki->quiet_leaf, pki->ca, NULL, NULL);
    assert_int_equal(id->url_count, 0);
    assertIssuer(id, pki->ca); /* responder-url can still serve it */
    ocspIdentityFree(id);
}

TEST(issuer_unknown, "2") {
    ocspIdentity *id = ocspIdentityNew(pki->leaf, NULL, NULL);
    assertIssuer(id, NULL);
    assert_int_equal(id->self_signed, 0);
    assert_int_equal(id->url_count, 1);
    ocspIdentityFree(id);
    X509_STORE *empty = X509_STORE_new();
    id = ocspIdentityNew(pki->leaf, NULL, empty);
    assertIssuer(id, NULL);
    ocspIdentityFree(id);
    X509_STORE_free(empty);
    ocspIdentityFree(NULL);
}

TEST(url_malformedAuthorityInfoAccess, "2") {
    X509 *odd = testCert(&(testCertSpec){
        .name = "odd", .issuer = pki->ca, .issuer_key = pki->ca_key, .key = pki->leaf_key, .bad_extension = 1});
    ocspIdentity *id = identify(odd, pki->ca, NULL, NULL);
    assert_int_equal(id->url_count, 0);
    ocspIdentityFree(id);
    X509_free(odd);
}

/* ---- the URLs ---------------------------------------------------------------------------------------------------- */

/* The identity of a certificate with these access descriptions. */
static ocspIdentity *withUrls(testCertSpec spec) {
    spec.name = "urls";
    spec.issuer = pki->ca;
    spec.issuer_key = pki->ca_key;
    spec.key = pki->leaf_key;
    X509 *cert = testCert(&spec);
    ocspIdentity *id = identify(cert, pki->ca, NULL, NULL);
    X509_free(cert);
    return id;
}

TEST(url_one) {
    ocspIdentity *id = identify(pki->leaf, pki->ca, NULL, NULL);
    assert_int_equal(id->url_count, 1);
    assert_string_equal(id->urls[0], TEST_URL);
    ocspIdentityFree(id);
}

TEST(url_manyInTheirOrder, "4") {
    ocspIdentity *id = withUrls((testCertSpec){
        .urls = {"http://z.invalid/1", "https://y.invalid/2", "http://a.invalid/3", "http://m.invalid/4"}});
    assert_int_equal(id->url_count, 4);
    assert_string_equal(id->urls[0], "http://z.invalid/1");
    assert_string_equal(id->urls[1], "https://y.invalid/2");
    assert_string_equal(id->urls[2], "http://a.invalid/3");
    assert_string_equal(id->urls[3], "http://m.invalid/4");
    ocspIdentityFree(id);
}

TEST(url_tooMany) {
    testCertSpec spec = {0};
    static char text[12][32];
    for (int i = 0; i < 12; i++) {
        snprintf(text[i], sizeof(text[i]), "http://%02d.invalid/", 20 - i);
        spec.urls[i] = text[i];
    }
    ocspIdentity *id = withUrls(spec);
    assert_int_equal(id->url_count, OCSP_MAX_URLS);
    for (int i = 0; i < OCSP_MAX_URLS; i++) assert_string_equal(id->urls[i], text[i]);
    ocspIdentityFree(id);
}

TEST(url_otherSchemesAndKindsAreLeftOut) {
    ocspIdentity *id =
        withUrls((testCertSpec){.odd_access = 1,
                                .urls = {"ldap://ldap.invalid/cn=ocsp", "ftp://a.invalid/", "", "http://", "nonsense",
                                         "http://user:pw@a.invalid/", "http://good.invalid/"}});
    assert_int_equal(id->url_count, 1);
    assert_string_equal(id->urls[0], "http://good.invalid/");
    ocspIdentityFree(id);
}

TEST(url_withControlBytesIsLeftOut) {
    ocspIdentity *id = withUrls((testCertSpec){
        .urls = {"http://a.invalid/\r\nHost: b", "http://a.invalid/\n", "http://a.invalid/\x1b[31m",
                 "http://a.inv alid/", "http://a.invalid/\x7f", "http://\xff.invalid/", "http://good.invalid/"}});
    assert_int_equal(id->url_count, 1);
    assert_string_equal(id->urls[0], "http://good.invalid/");
    ocspIdentityFree(id);
}

/* C strings end at the zero byte: such a URL could mislead. */
TEST(url_withAZeroByteIsLeftOut) {
    ocspIdentity *id = withUrls((testCertSpec){.urls = {"http://a.invalid\0.b.invalid/"}, .url_len = 28});
    assert_int_equal(id->url_count, 0);
    ocspIdentityFree(id);
}

TEST(url_veryLong) {
    char *text = malloc(20001);
    memset(text, 'a', 20000);
    memcpy(text, "http://a.invalid/", 17);
    text[20000] = 0;
    ocspIdentity *id = withUrls((testCertSpec){.urls = {text, "http://good.invalid/"}});
    assert_true(id->url_count >= 1);
    assert_string_equal(id->urls[id->url_count - 1], "http://good.invalid/");
    ocspIdentityFree(id);
    free(text);
}

/* ---- kinds of certificates, request, serial ---------------------------------------------------------------------- */

TEST(identity_rsaAndEcdsaBelowAnIntermediate, "3") {
    X509 *leaves[] = {pki->leaf, pki->rsa_leaf};
    for (int i = 0; i < 2; i++) {
        ocspIdentity *id = identify(leaves[i], pki->ca, pki->root, NULL);
        assertIssuer(id, pki->ca);
        ocspIdentityFree(id);
    }
}

TEST(mustStaple_isRecognized, "3") {
    ocspIdentity *id = identify(pki->must_leaf, pki->ca, NULL, NULL);
    assert_int_equal(id->must_staple, 1);
    ocspIdentityFree(id);
    id = identify(pki->leaf, pki->ca, NULL, NULL);
    assert_int_equal(id->must_staple, 0);
    ocspIdentityFree(id);
    id = withUrls((testCertSpec){.tls_feature = "status_request_v2"}); /* another promise */
    assert_int_equal(id->must_staple, 0);
    ocspIdentityFree(id);
    id = withUrls((testCertSpec){.tls_feature = "status_request_v2,status_request"});
    assert_int_equal(id->must_staple, 1);
    ocspIdentityFree(id);
}

TEST(request_isOneSha1CertIdWithoutNonce) {
    ocspIdentity *id = identify(pki->leaf, pki->ca, NULL, NULL);
    const unsigned char *p = id->request;
    OCSP_REQUEST *request = d2i_OCSP_REQUEST(NULL, &p, (long)id->request_len);
    assert_non_null(request);
    assert_ptr_equal(p, id->request + id->request_len);
    assert_int_equal(OCSP_request_onereq_count(request), 1);
    assert_int_equal(OCSP_REQUEST_get_ext_count(request), 0);
    assert_int_equal(OCSP_request_is_signed(request), 0);
    OCSP_ONEREQ *one = OCSP_request_onereq_get0(request, 0);
    assert_int_equal(OCSP_ONEREQ_get_ext_count(one), 0);
    OCSP_CERTID *sha1 = OCSP_cert_to_id(EVP_sha1(), pki->leaf, pki->ca);
    assert_int_equal(OCSP_id_cmp(OCSP_onereq_get0_id(one), sha1), 0);
    OCSP_CERTID_free(sha1);
    OCSP_REQUEST_free(request);
    ocspIdentityFree(id);
}

TEST(serial_isUpperCaseHex) {
    ocspIdentity *id = identify(pki->leaf, pki->ca, NULL, NULL);
    assert_string_equal(id->serial, "0ABC");
    ocspIdentityFree(id);
    static const char *const serials[] = {"01", "7F", "80", "FF00FF00", "0102030405060708090A0B0C0D0E0F1011121314"};
    for (int i = 0; i < 5; i++) {
        id = withUrls((testCertSpec){.serial = serials[i]});
        assert_string_equal(id->serial, serials[i]);
        ocspIdentityFree(id);
    }
    id = withUrls((testCertSpec){.serial = "-05"}); /* forbidden, and seen in the wild */
    assert_non_null(id->serial);
    ocspIdentityFree(id);
}

TEST(identity_fingerprintAndNotAfter) {
    ocspIdentity *id = identify(pki->leaf, pki->ca, NULL, NULL);
    unsigned char md[EVP_MAX_MD_SIZE];
    unsigned int n;
    char hex[65];
    assert_true(X509_digest(pki->leaf, EVP_sha256(), md, &n));
    assert_memory_equal(id->sha256, md, 32);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", md[i]);
    assert_string_equal(id->sha256_hex, hex);
    assert_int_equal(id->not_after, TEST_NOW + 365 * TEST_DAY);
    ocspIdentityFree(id);
}

/* Each allocation fails in turn: NULL or a whole identity, never a leak (see AddressSanitizer). */
static int allocations_left;

static void *scarceAlloc(size_t n) {
    return allocations_left-- > 0 ? malloc(n) : NULL;
}

TEST(memory_refusedAllocationsAreSurvived) {
    ocspHost host = {.alloc = scarceAlloc, .free = free};
    int failures = 0;
    ocspSetHost(&host);
    for (int n = 0; n < 50; n++) {
        allocations_left = n;
        STACK_OF(X509) *chain = testStack(pki->ca, NULL, NULL);
        ocspIdentity *id = ocspIdentityNew(pki->leaf, chain, NULL);
        sk_X509_free(chain);
        failures += id == NULL;
        if (id) {
            assert_non_null(id->request);
            assert_string_equal(id->serial, "0ABC");
            assert_int_equal(id->url_count, 1);
        }
        ocspIdentityFree(id);
    }
    ocspSetHost(NULL);
    assert_true(failures > 0 && failures < 50);
}
