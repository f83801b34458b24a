/* bad_disk.c - a library to preload into a server: each sync of a file takes a tenth of a second and then fails. With
 * `save ""` and no AOF a server syncs only cached responses.
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
