/* foreign_openssl.c - preloaded library that makes a server look like one with OpenSSL linked statically, whose symbols
 * the loader finds before those of libcrypto.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <openssl/crypto.h>

typedef int indexFunction(int, long, void *, CRYPTO_EX_new *, CRYPTO_EX_dup *, CRYPTO_EX_free *);

int CRYPTO_get_ex_new_index(int class_index,
                            long argl,
                            void *argp,
                            CRYPTO_EX_new *made,
                            CRYPTO_EX_dup *copied,
                            CRYPTO_EX_free *freed) {
    indexFunction *next = (indexFunction *)dlsym(RTLD_NEXT, "CRYPTO_get_ex_new_index");

    return next(class_index, argl, argp, made, copied, freed);
}

/* Valkey 8.1 loads modules with RTLD_DEEPBIND, which would bind them to the real functions, not to these. */
void *dlopen(const char *file, int flags) {
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");

    return next(file, flags & ~RTLD_DEEPBIND);
}
