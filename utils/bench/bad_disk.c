/* bad_disk.c - a library to preload into a server: a disk that keeps whoever syncs a file waiting for a tenth of a
 * second, and then says that it failed. With `save ""` and no AOF a server syncs nothing but our cached responses.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <errno.h>
#include <time.h>
#include <unistd.h>

int fsync(int fd) {
    struct timespec tenth = {.tv_nsec = 100000000};

    (void)fd;
    nanosleep(&tenth, NULL);
    errno = EIO;
    return -1;
}
