/* accept_threads.c - preloaded library that records which thread of a server stapled each handshake.
 *
 * For each call of SSL_accept in which the status callback set a staple, a line "THREAD-ID NAME" is appended to the file
 * $ACCEPT_THREADS_FILE; NAME is the thread's name, "main" for the main thread. Only the server's own calls are
 * intercepted: the module calls OpenSSL directly.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <openssl/ssl.h>

typedef int acceptFunction(SSL *);

static long stapleLength(SSL *ssl) {
    unsigned char *bytes = NULL;

    return SSL_get_tlsext_status_ocsp_resp(ssl, &bytes);
}

static void note(void) {
    const char *path = getenv("ACCEPT_THREADS_FILE");
    int fd = path != NULL ? open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -1;
    long tid = syscall(SYS_gettid);
    char name[17] = "main", line[48];

    if (fd < 0) return;
    if (tid != getpid()) prctl(PR_GET_NAME, name);
    /* In one write, so that the lines of several threads do not mix. */
    if (write(fd, line, (size_t)snprintf(line, sizeof(line), "%ld %s\n", tid, name)) < 0) perror(path);
    close(fd);
}

int SSL_accept(SSL *ssl) {
    acceptFunction *next = (acceptFunction *)dlsym(RTLD_NEXT, "SSL_accept");
    long before = stapleLength(ssl);
    int rc = next(ssl);

    if (before <= 0 && stapleLength(ssl) > 0) note();
    return rc;
}
