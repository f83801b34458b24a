/* clock_shift.c - preloaded library that shifts the wall clock of one process, for jumps of the clock (scenario 14).
 *
 * The file $CLOCK_SHIFT_FILE has a number of seconds, which is added to the results of time, gettimeofday and
 * clock_gettime(CLOCK_REALTIME); the monotonic clock is not changed. The file is read at every call, so that a test makes
 * the clock jump by writing it. The real time comes from the system call, not through dlsym: that would allocate, and
 * recurse into an allocator that reads the clock while it is initialized.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shiftSeconds(void) {
    const char *path = getenv("CLOCK_SHIFT_FILE");
    char text[32];
    int fd;
    ssize_t n;

    if (path == NULL || (fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC)) < 0) return 0;
    n = syscall(SYS_read, fd, text, sizeof(text) - 1);
    syscall(SYS_close, fd);
    if (n <= 0) return 0;
    text[n] = '\0';
    return strtol(text, NULL, 10);
}

int clock_gettime(clockid_t clock, struct timespec *ts) {
    int rc = (int)syscall(SYS_clock_gettime, clock, ts);

    if (rc == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) ts->tv_sec += shiftSeconds();
    return rc;
}

int gettimeofday(struct timeval *tv, void *zone) {
    struct timespec ts;

    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return -1;
    tv->tv_sec = ts.tv_sec;
    tv->tv_usec = ts.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *out) {
    struct timespec ts;

    if (clock_gettime(CLOCK_REALTIME, &ts) != 0) return (time_t)-1;
    if (out != NULL) *out = ts.tv_sec;
    return ts.tv_sec;
}

/* Valkey 8.1 loads modules with RTLD_DEEPBIND, which would bind them to the real functions, not to these. */
void *dlopen(const char *file, int flags) {
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");

    return next(file, flags & ~RTLD_DEEPBIND);
}
