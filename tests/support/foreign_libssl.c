/* foreign_libssl.c - preloaded library that makes a server look like one that uses the libssl of another major version.
 * Compiled to a file libssl.so.99, with a symbol version that no program refers to: the loader binds nobody to it, but
 * dlsym() finds its function before that of the real libssl.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

void *SSL_CTX_get_cert_store(const void *ctx);

void *SSL_CTX_get_cert_store(const void *ctx) {
    (void)ctx;
    return 0;
}
