/* loopback_only.c - preloaded library that makes a program listen on 127.0.0.1 (or ::1) instead of every interface.
 *
 * Servers in tests must not be reachable from outside, and some have no option for that.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

/* bind() with the unspecified address replaced by the loopback address of the same family. */
int bind(int fd, const struct sockaddr *address, socklen_t len) {
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "bind");
    struct sockaddr_storage copy = {0};

    if (len > sizeof(copy)) return real(fd, address, len);
    memcpy(&copy, address, len);
    if (address->sa_family == AF_INET) {
        struct sockaddr_in *v4 = (struct sockaddr_in *)&copy;
        if (v4->sin_addr.s_addr == INADDR_ANY) v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    } else if (address->sa_family == AF_INET6) {
        struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)&copy;
        if (IN6_IS_ADDR_UNSPECIFIED(&v6->sin6_addr)) v6->sin6_addr = in6addr_loopback;
    }
    return real(fd, (struct sockaddr *)&copy, len);
}
