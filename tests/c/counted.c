/* counted.c - counts the expensive steps of verifying a response: the linker puts these functions before OpenSSL's, so
 * that a test can bound the work for the worst response without a clock.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

atomic_int test_verifications, test_certids, test_parsed;

int __real_OCSP_basic_verify(OCSP_BASICRESP *basic, STACK_OF(X509) *certs, X509_STORE *store, unsigned long flags);
int __wrap_OCSP_basic_verify(OCSP_BASICRESP *basic, STACK_OF(X509) *certs, X509_STORE *store, unsigned long flags);
int __real_X509_verify(X509 *cert, EVP_PKEY *key);
int __wrap_X509_verify(X509 *cert, EVP_PKEY *key);
OCSP_CERTID *__real_OCSP_cert_to_id(const EVP_MD *md, const X509 *subject, const X509 *issuer);
OCSP_CERTID *__wrap_OCSP_cert_to_id(const EVP_MD *md, const X509 *subject, const X509 *issuer);
OCSP_BASICRESP *__real_OCSP_response_get1_basic(OCSP_RESPONSE *response);
OCSP_BASICRESP *__wrap_OCSP_response_get1_basic(OCSP_RESPONSE *response);

void testCountFromZero(void) {
    atomic_store(&test_verifications, 0);
    atomic_store(&test_certids, 0);
    atomic_store(&test_parsed, 0);
}

int __wrap_OCSP_basic_verify(OCSP_BASICRESP *basic, STACK_OF(X509) *certs, X509_STORE *store, unsigned long flags) {
    atomic_fetch_add(&test_verifications, 1);
    return __real_OCSP_basic_verify(basic, certs, store, flags);
}

int __wrap_X509_verify(X509 *cert, EVP_PKEY *key) {
    atomic_fetch_add(&test_verifications, 1);
    return __real_X509_verify(cert, key);
}

OCSP_CERTID *__wrap_OCSP_cert_to_id(const EVP_MD *md, const X509 *subject, const X509 *issuer) {
    atomic_fetch_add(&test_certids, 1);
    return __real_OCSP_cert_to_id(md, subject, issuer);
}

OCSP_BASICRESP *__wrap_OCSP_response_get1_basic(OCSP_RESPONSE *response) {
    atomic_fetch_add(&test_parsed, 1);
    return __real_OCSP_response_get1_basic(response);
}
