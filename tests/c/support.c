/* support.c - the PKI, the verifier and the handshakes that the unit tests share; see support.h.
 *
 * Anything that goes wrong in here is a fault of the tests, not of the engine, and aborts.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <dirent.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/bn.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

/* ---- keys and certificates --------------------------------------------------------------------------------------- */

static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;
static EVP_PKEY *ec_keys[TEST_KEYS], *rsa_keys[TEST_KEYS];

EVP_PKEY *testEcKey(int number) {
    pthread_mutex_lock(&key_lock);
    if (!ec_keys[number]) ec_keys[number] = EVP_EC_gen("P-256");
    testMust(ec_keys[number]);
    pthread_mutex_unlock(&key_lock);
    return ec_keys[number];
}

EVP_PKEY *testRsaKey(int number) {
    pthread_mutex_lock(&key_lock);
    if (!rsa_keys[number]) rsa_keys[number] = EVP_RSA_gen(2048);
    testMust(rsa_keys[number]);
    pthread_mutex_unlock(&key_lock);
    return rsa_keys[number];
}

static void addExtension(X509 *cert, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    testMust(ext && X509_add_ext(cert, ext, -1));
    X509_EXTENSION_free(ext);
}

static void addAccess(AUTHORITY_INFO_ACCESS *aia, int nid, const char *url, size_t len) {
    ACCESS_DESCRIPTION *ad = ACCESS_DESCRIPTION_new();
    ASN1_IA5STRING *text = ASN1_IA5STRING_new();
    testMust(ad && text && ASN1_STRING_set(text, url, (int)len));
    ASN1_OBJECT_free(ad->method);
    ad->method = OBJ_nid2obj(nid);
    GENERAL_NAME_set0_value(ad->location, GEN_URI, text);
    testMust(sk_ACCESS_DESCRIPTION_push(aia, ad));
}

static void addAia(X509 *cert, const testCertSpec *spec) {
    if (spec->bad_extension) {
        ASN1_OCTET_STRING *junk = ASN1_OCTET_STRING_new();
        testMust(junk && ASN1_OCTET_STRING_set(junk, (const unsigned char *)"\x30\x7fjunk", 6));
        X509_EXTENSION *ext = X509_EXTENSION_create_by_NID(NULL, NID_info_access, 0, junk);
        testMust(ext && X509_add_ext(cert, ext, -1));
        X509_EXTENSION_free(ext);
        ASN1_OCTET_STRING_free(junk);
        return;
    }
    if (!spec->urls[0] && !spec->odd_access) return;

    AUTHORITY_INFO_ACCESS *aia = sk_ACCESS_DESCRIPTION_new_null();
    testMust(aia);
    if (spec->odd_access) {
        addAccess(aia, NID_ad_ca_issuers, "http://ca.test.invalid/ca.der", 29);
        ACCESS_DESCRIPTION *ad = ACCESS_DESCRIPTION_new();
        ASN1_IA5STRING *text = ASN1_IA5STRING_new();
        testMust(ad && text && ASN1_STRING_set(text, "http.test.invalid", -1));
        ASN1_OBJECT_free(ad->method);
        ad->method = OBJ_nid2obj(NID_ad_OCSP);
        GENERAL_NAME_set0_value(ad->location, GEN_DNS, text);
        testMust(sk_ACCESS_DESCRIPTION_push(aia, ad));
    }
    for (int i = 0; i < 12 && spec->urls[i]; i++) {
        addAccess(aia, NID_ad_OCSP, spec->urls[i], i == 0 && spec->url_len ? spec->url_len : strlen(spec->urls[i]));
    }
    testMust(X509_add1_ext_i2d(cert, NID_info_access, aia, 0, X509V3_ADD_DEFAULT) == 1);
    AUTHORITY_INFO_ACCESS_free(aia);
}

X509 *testCert(const testCertSpec *spec) {
    static long next_serial = 0x1001;
    X509 *cert = X509_new();
    testMust(cert && X509_set_version(cert, X509_VERSION_3));

    if (spec->serial) {
        BIGNUM *bn = NULL;
        testMust(BN_hex2bn(&bn, spec->serial) && BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(cert)));
        BN_free(bn);
    } else {
        testMust(ASN1_INTEGER_set(X509_get_serialNumber(cert), next_serial++));
    }

    X509_NAME *name = X509_NAME_new();
    testMust(name && X509_NAME_add_entry_by_txt(name, "O", MBSTRING_ASC, (const unsigned char *)"Test", -1, -1, 0));
    testMust(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC, (const unsigned char *)spec->name, -1, -1, 0));
    testMust(X509_set_subject_name(cert, name));
    testMust(X509_set_issuer_name(cert, spec->issuer ? X509_get_subject_name(spec->issuer) : name));
    X509_NAME_free(name);

    testMust(ASN1_TIME_set(X509_getm_notBefore(cert), spec->not_before ? spec->not_before : TEST_NOW - TEST_DAY));
    testMust(ASN1_TIME_set(X509_getm_notAfter(cert), spec->not_after ? spec->not_after : TEST_NOW + 365 * TEST_DAY));
    testMust(X509_set_pubkey(cert, spec->key));

    X509 *issuer = spec->issuer ? spec->issuer : cert;
    if (spec->ca) {
        addExtension(cert, issuer, NID_basic_constraints, "critical,CA:TRUE");
        addExtension(cert, issuer, NID_key_usage, "critical,keyCertSign,cRLSign,digitalSignature");
    } else {
        addExtension(cert, issuer, NID_basic_constraints, "CA:FALSE");
    }
    if (spec->key_usage) addExtension(cert, issuer, NID_key_usage, spec->key_usage);
    if (spec->extended) addExtension(cert, issuer, NID_ext_key_usage, spec->extended);
    if (spec->alt_names) addExtension(cert, issuer, NID_subject_alt_name, spec->alt_names);
    if (spec->tls_feature) addExtension(cert, issuer, NID_tlsfeature, spec->tls_feature);
    if (spec->key_ids) {
        addExtension(cert, issuer, NID_subject_key_identifier, "hash");
        if (spec->issuer) addExtension(cert, issuer, NID_authority_key_identifier, "keyid:always");
    }
    addAia(cert, spec);

    testMust(X509_sign(cert, spec->issuer_key ? spec->issuer_key : spec->key, EVP_sha256()));
    return cert;
}

static testPki pki;
static pthread_once_t pki_once = PTHREAD_ONCE_INIT;

static void makePki(void) {
    pki.root_key = testEcKey(0);
    pki.ca_key = testEcKey(1);
    pki.twin_key = testEcKey(2);
    pki.leaf_key = testEcKey(3);
    pki.responder_key = testEcKey(4);
    pki.rsa_leaf_key = testRsaKey(0);

    pki.root = testCert(&(testCertSpec){.name = "Root", .key = pki.root_key, .ca = 1});
    pki.ca = testCert(
        &(testCertSpec){.name = "CA", .issuer = pki.root, .issuer_key = pki.root_key, .key = pki.ca_key, .ca = 1});
    pki.twin = testCert(&(testCertSpec){.name = "CA", .key = pki.twin_key, .ca = 1});

    testCertSpec spec = {.name = "server.test.invalid",
                         .issuer = pki.ca,
                         .issuer_key = pki.ca_key,
                         .key = pki.leaf_key,
                         .serial = "0ABC",
                         .urls = {TEST_URL}};
    pki.leaf = testCert(&spec);
    spec.serial = NULL;
    pki.renewed_leaf = testCert(&spec);
    spec.tls_feature = "status_request";
    pki.must_leaf = testCert(&spec);
    spec.tls_feature = NULL;
    spec.urls[0] = NULL;
    pki.quiet_leaf = testCert(&spec);
    spec.urls[0] = TEST_URL;
    spec.key = pki.rsa_leaf_key;
    pki.rsa_leaf = testCert(&spec);

    spec.key = pki.leaf_key;
    spec.serial = "0ABC";
    spec.issuer = pki.twin;
    spec.issuer_key = pki.twin_key;
    pki.foreign_leaf = testCert(&spec);
    pki.self = testCert(&(testCertSpec){.name = "self", .key = pki.leaf_key, .urls = {TEST_URL}});

    testCertSpec signer = {.name = "Responder",
                           .issuer = pki.ca,
                           .issuer_key = pki.ca_key,
                           .key = pki.responder_key,
                           .extended = "OCSPSigning"};
    pki.responder = testCert(&signer);
    signer.not_after = TEST_NOW + 100;
    pki.responder_short = testCert(&signer);
    signer.not_before = TEST_NOW - 10 * TEST_DAY;
    signer.not_after = TEST_NOW - TEST_DAY;
    pki.responder_expired = testCert(&signer);
    signer.not_before = signer.not_after = 0;
    signer.extended = "serverAuth";
    pki.responder_no_eku = testCert(&signer);
    signer.extended = "OCSPSigning";
    signer.issuer = pki.twin;
    signer.issuer_key = pki.twin_key;
    pki.responder_foreign = testCert(&signer);
    signer.issuer = pki.root;
    signer.issuer_key = pki.root_key;
    pki.responder_root = testCert(&signer);
}

const testPki *testGetPki(void) {
    pthread_once(&pki_once, makePki);
    return &pki;
}

STACK_OF(X509) *testStack(X509 *a, X509 *b, X509 *c) {
    STACK_OF(X509) *stack = sk_X509_new_null();
    testMust(stack);
    if (a) testMust(sk_X509_push(stack, a));
    if (b) testMust(sk_X509_push(stack, b));
    if (c) testMust(sk_X509_push(stack, c));
    return stack;
}

X509_STORE *testStore(X509 *a, X509 *b) {
    X509_STORE *store = X509_STORE_new();
    testMust(store);
    if (a) testMust(X509_STORE_add_cert(store, a));
    if (b) testMust(X509_STORE_add_cert(store, b));
    return store;
}

int testStoreSize(X509_STORE *store) {
    STACK_OF(X509) *certs = X509_STORE_get1_all_certs(store);
    int n = sk_X509_num(certs);

    testMust(certs != NULL);
    sk_X509_pop_free(certs, X509_free);
    return n;
}

ocspIdentity *testIdentity(X509 *leaf, X509 *issuer) {
    STACK_OF(X509) *chain = testStack(issuer, NULL, NULL);
    ocspIdentity *id = ocspIdentityNew(leaf, chain, NULL);
    sk_X509_free(chain);
    testMust(id);
    return id;
}

/* ---- responses --------------------------------------------------------------------------------------------------- */

testReply testGoodReply(X509 *leaf) {
    const testPki *p = testGetPki();
    return (testReply){.count = 1,
                       .singles = {{.cert = leaf,
                                    .issuer = p->ca,
                                    .this_update = TEST_NOW - 3600,
                                    .next_update = TEST_NOW + TEST_DAY}},
                       .signer = p->ca,
                       .key = p->ca_key};
}

testBytes testReplyOfSize(testReply reply, size_t size) {
    reply.padding = size > 500 ? size - 500 : 1;
    for (int i = 0; i < 1000; i++) { /* the length of an ECDSA signature varies randomly between three values */
        testBytes der = testReplyDer(&reply);
        if (der.n == size) return der;
        reply.padding += size - der.n;
        testBytesFree(&der);
    }
    testMust(!"a reply of that size");
    return (testBytes){0};
}

int testJudge(const unsigned char *der, size_t len, X509 *leaf, X509 *issuer, time_t at) {
    const unsigned char *p = der;
    int verdict = 0;
    OCSP_BASICRESP *basic = NULL;
    STACK_OF(X509) *helpers = testStack(issuer, NULL, NULL);
    X509_STORE *anchor = testStore(issuer, NULL);
    X509_VERIFY_PARAM *param = X509_STORE_get0_param(anchor);
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);

    if (!response || p != der + len || OCSP_response_status(response) != 0) goto out;
    basic = OCSP_response_get1_basic(response);
    if (!basic) goto out;
    X509_VERIFY_PARAM_set_time(param, at);
    X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_PARTIAL_CHAIN);
    if (OCSP_basic_verify(basic, helpers, anchor, 0) != 1) goto out;

    for (int i = 0; i < OCSP_resp_count(basic) && !verdict; i++) {
        OCSP_SINGLERESP *single = OCSP_resp_get0(basic, i);
        const OCSP_CERTID *certid = OCSP_SINGLERESP_get0_id(single);
        ASN1_OBJECT *algorithm;
        ASN1_GENERALIZEDTIME *from, *until;
        if (!OCSP_id_get0_info(NULL, &algorithm, NULL, NULL, (OCSP_CERTID *)certid)) continue;
        const EVP_MD *md = EVP_get_digestbyobj(algorithm);
        OCSP_CERTID *expected = md ? OCSP_cert_to_id(md, leaf, issuer) : NULL;
        if (expected && OCSP_id_cmp(expected, (OCSP_CERTID *)certid) == 0) {
            int status = OCSP_single_get0_status(single, NULL, NULL, &from, &until);
            verdict = (status == V_OCSP_CERTSTATUS_GOOD || status == V_OCSP_CERTSTATUS_REVOKED) &&
                      ASN1_TIME_cmp_time_t(from, at + OCSP_CLOCK_SKEW) <= 0 &&
                      (!until || ASN1_TIME_cmp_time_t(until, at) > 0);
        }
        OCSP_CERTID_free(expected);
    }
out:
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    X509_STORE_free(anchor);
    sk_X509_free(helpers);
    ERR_clear_error();
    return verdict;
}

/* ---- TLS over memory --------------------------------------------------------------------------------------------- */

void testServerAdd(SSL_CTX *ctx, X509 *leaf, EVP_PKEY *key, X509 *chain) {
    testMust(SSL_CTX_use_certificate(ctx, leaf) == 1 && SSL_CTX_use_PrivateKey(ctx, key) == 1);
    if (chain) testMust(SSL_CTX_add1_chain_cert(ctx, chain));
}

SSL_CTX *testServerCtx(X509 *leaf, EVP_PKEY *key, X509 *chain) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    testMust(ctx);
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    testServerAdd(ctx, leaf, key, chain);
    return ctx;
}

SSL_CTX *testClientCtx(int tls_version, int with_rsa_only) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    testMust(ctx);
    SSL_CTX_set_min_proto_version(ctx, tls_version);
    SSL_CTX_set_max_proto_version(ctx, tls_version);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);
    if (with_rsa_only) {
        testMust(SSL_CTX_set1_sigalgs_list(ctx, "RSA-PSS+SHA256:RSA+SHA256"));
        testMust(SSL_CTX_set_cipher_list(ctx, "ECDHE-RSA-AES128-GCM-SHA256"));
    }
    return ctx;
}

int testOpensslChecksStaples(void) {
    return OPENSSL_version_major() > 3 || OPENSSL_version_minor() >= 6;
}

int testShakeHands(SSL *s, SSL *c) {
    int s_done = 0, c_done = 0;
    BIO *sb, *cb;

    testMust(s && c && BIO_new_bio_pair(&sb, 0, &cb, 0));
    SSL_set_bio(s, sb, sb);
    SSL_set_bio(c, cb, cb);
    SSL_set_accept_state(s);
    SSL_set_connect_state(c);
    for (int i = 0; i < 50 && !(s_done && c_done); i++) {
        int rc;
        if (!c_done) {
            rc = SSL_do_handshake(c);
            if (rc == 1)
                c_done = 1;
            else if (SSL_get_error(c, rc) != SSL_ERROR_WANT_READ && SSL_get_error(c, rc) != SSL_ERROR_WANT_WRITE)
                break;
        }
        if (!s_done) {
            rc = SSL_do_handshake(s);
            if (rc == 1)
                s_done = 1;
            else if (SSL_get_error(s, rc) != SSL_ERROR_WANT_READ && SSL_get_error(s, rc) != SSL_ERROR_WANT_WRITE)
                break;
        }
    }
    return s_done && c_done;
}

/* Takes all responses in the handshake. */
static void testTakeChain(SSL *client, testShake *shake) {
    OPENSSL_STACK *responses = NULL;
    SSL_ctrl(client, 142, 0, &responses); /* SSL_get0_tlsext_status_ocsp_resp_ex of OpenSSL 3.6 */
    for (int i = 0; i < OPENSSL_sk_num(responses) && i < 4; i++) {
        unsigned char *der = NULL;
        int n = i2d_OCSP_RESPONSE(OPENSSL_sk_value(responses, i), &der);
        testMust(n > 0);
        shake->chain[shake->chain_count++] = testCopy(der, (size_t)n);
        OPENSSL_free(der);
    }
}

testShake testHandshake(SSL_CTX *server, SSL_CTX *client, int ask) {
    testShake shake = {0};
    SSL *s = SSL_new(server), *c = SSL_new(client);

    if (ask) SSL_set_tlsext_status_type(c, TLSEXT_STATUSTYPE_ocsp);
    shake.ok = testShakeHands(s, c);
    if (shake.ok) {
        const unsigned char *der = NULL;
        long n = SSL_get_tlsext_status_ocsp_resp(c, &der);
        if (der && n > 0) {
            shake.got_staple = 1;
            shake.staple = testCopy(der, (size_t)n);
        }
        shake.peer = SSL_get1_peer_certificate(c);
        testTakeChain(c, &shake);
    }
    SSL_free(s);
    SSL_free(c);
    ERR_clear_error();
    return shake;
}

void testShakeFree(testShake *shake) {
    testBytesFree(&shake->staple);
    for (int i = 0; i < shake->chain_count; i++) testBytesFree(&shake->chain[i]);
    X509_free(shake->peer);
    memset(shake, 0, sizeof(*shake));
}

/* ---- files and waiting ------------------------------------------------------------------------------------------- */

char *testDir(void) {
    const char *base = getenv("TMPDIR");
    char *dir = testPath(base && *base ? base : P_tmpdir, "ocsp-test-XXXXXX");
    testMust(mkdtemp(dir));
    return dir;
}

char *testPath(const char *dir, const char *name) {
    size_t n = strlen(dir) + strlen(name) + 2;
    char *path = malloc(n);
    testMust(path);
    snprintf(path, n, "%s/%s", dir, name);
    return path;
}

static void removeTree(const char *dir) {
    DIR *d = opendir(dir);
    struct dirent *entry;
    while (d && (entry = readdir(d))) {
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        char *path = testPath(dir, entry->d_name);
        struct stat st;
        if (lstat(path, &st) == 0 && S_ISDIR(st.st_mode))
            removeTree(path);
        else
            unlink(path);
        free(path);
    }
    if (d) closedir(d);
    rmdir(dir);
}

void testDirFree(char *dir) {
    removeTree(dir);
    free(dir);
}

void testWriteFile(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    testMust(f && fwrite(bytes, 1, n, f) == n && fclose(f) == 0);
}

testBytes testReadFile(const char *path) {
    FILE *f = fopen(path, "rb");
    testMust(f);
    testBytes all = testCopy("", 0);
    unsigned char buf[4096];
    size_t n;
    while ((n = fread(buf, 1, sizeof(buf), f)) > 0) all = testJoin(all, testCopy(buf, n));
    fclose(f);
    return all;
}

int testCountFiles(const char *dir) {
    DIR *d = opendir(dir);
    struct dirent *entry;
    int count = 0;
    testMust(d);
    while ((entry = readdir(d))) count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(d);
    return count;
}

void testAssertError(const ocspError *err, ocspErrorKind kind, const char *word) {
    const char *got = ocspErrorWord(err->code);
    if (err->kind != kind || strcmp(got, word) != 0)
        fail_msg("an error of kind %d (%s) in place of kind %d (%s): %s", err->kind, got, kind, word, err->text);
    assert_int_equal(ocspErrorKindOf(err->code), kind);
    assert_true(strlen(err->text) > 8);
}

void testSleepMs(int ms) {
    struct timespec ts = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&ts, NULL);
}

long testEnvNumber(const char *name, long otherwise) {
    const char *text = getenv(name);
    return text && *text ? strtol(text, NULL, 10) : otherwise;
}

uint32_t testRandom(void) {
    static uint64_t state = 0x9e3779b97f4a7c15u;
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(state >> 32);
}
