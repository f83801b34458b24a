/* sim_disk.c - a small file system in memory, below the real ocsp_cache.c, whose system calls the linker redirects here
 * (--wrap). In a power failure a rename whose directory was not synced is lost or kept, at random, and file contents
 * that were not synced are lost. A process can be killed before each operation that changes the disk.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "sim.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SIM_FILES 512
#define SIM_FIRST_FD (1 << 20)
#define SIM_FDS 16

typedef struct simBytes {
    unsigned char *p;
    size_t n;
} simBytes;

typedef struct simFile { /* an inode */
    int links;           /* count of names, durable names and descriptors */
    simBytes now, durable;
    int sync_skipped; /* an fsync returned success without syncing */
    int64_t mtime;
    ino_t number;
} simFile;

typedef struct simName {
    char path[160];
    simFile *file, *durable; /* the file now, and after a power failure; NULL: none */
} simName;

static simName names[SIM_FILES];
static int name_count;
static ino_t inodes;
static int kill_in;

static struct {
    simFile *file; /* NULL and dir "": unused */
    char dir[64];
    size_t at;
    int next; /* index into names, for readdir */
} fds[SIM_FDS];

static void simFileUnref(simFile *f) {
    if (!f || --f->links > 0) return;
    free(f->now.p);
    free(f->durable.p);
    free(f);
}

static simFile *simFileRef(simFile *f) {
    if (f) f->links++;
    return f;
}

static void simBytesSet(simBytes *b, const void *p, size_t n) {
    unsigned char *copy = malloc(n ? n : 1);

    if (!copy) abort();
    if (n) memcpy(copy, p, n);
    free(b->p);
    b->p = copy;
    b->n = n;
}

static simName *simNameFind(const char *path, int create) {
    int i;

    for (i = 0; i < name_count; i++)
        if (strcmp(names[i].path, path) == 0) return &names[i];
    if (!create) return NULL;
    for (i = 0; i < name_count; i++) /* reuses an entry without a file */
        if (!names[i].file && !names[i].durable) break;
    if (i == SIM_FILES) abort();
    if (i == name_count) name_count++;
    memset(&names[i], 0, sizeof(names[i]));
    snprintf(names[i].path, sizeof(names[i].path), "%s", path);
    return &names[i];
}

static void simNameSet(simFile **slot, simFile *f) {
    simFileRef(f);
    simFileUnref(*slot);
    *slot = f;
}

void simDiskCloseAll(void) {
    int i;

    for (i = 0; i < SIM_FDS; i++) {
        simFileUnref(fds[i].file);
        memset(&fds[i], 0, sizeof(fds[i]));
    }
}

void simDiskBegin(void) {
    simDiskEnd();
    inodes = 1;
    kill_in = 0;
}

void simDiskEnd(void) {
    int i;

    simDiskCloseAll();
    for (i = 0; i < name_count; i++) {
        simNameSet(&names[i].file, NULL);
        simNameSet(&names[i].durable, NULL);
    }
    name_count = 0;
}

void simDiskPowerFailure(void) {
    int i;

    simDiskCloseAll();
    for (i = 0; i < name_count; i++) {
        simName *n = &names[i];
        if (n->file != n->durable) {
            if (simOneIn(simWorldRng(), 2))
                simNameSet(&n->file, n->durable);
            else
                simNameSet(&n->durable, n->file);
        }
    }
    for (i = 0; i < name_count; i++) {
        simFile *f = names[i].file;
        if (f && (f->now.n != f->durable.n || memcmp(f->now.p, f->durable.p, f->now.n) != 0))
            simBytesSet(&f->now, f->durable.p, f->durable.n);
    }
}

void simDiskKillAt(int operations) {
    kill_in = operations;
}

int simDiskRead(const char *path, const unsigned char **bytes, size_t *len, int64_t *mtime) {
    simName *n = simNameFind(path, 0);

    if (!n || !n->file) return 0;
    *bytes = n->file->now.p;
    *len = n->file->now.n;
    *mtime = n->file->mtime;
    return 1;
}

int simDiskSyncSkipped(const char *path) {
    simName *n = simNameFind(path, 0);

    return n && n->file && n->file->sync_skipped;
}

static simFile *simFileNew(void) {
    simFile *f = calloc(1, sizeof(*f));

    if (!f) abort();
    simBytesSet(&f->now, "", 0);
    simBytesSet(&f->durable, "", 0);
    f->number = ++inodes;
    f->mtime = (int64_t)(simWallMs() / 1000);
    return f;
}

void simDiskWrite(const char *path, const void *bytes, size_t len) {
    simName *n = simNameFind(path, 1);
    simFile *f = simFileNew();

    simBytesSet(&f->now, bytes, len);
    simBytesSet(&f->durable, bytes, len);
    simNameSet(&n->file, f);
    simNameSet(&n->durable, f);
}

void simDiskRemove(const char *path) {
    simName *n = simNameFind(path, 0);

    if (!n) return;
    simNameSet(&n->file, NULL);
    simNameSet(&n->durable, NULL);
}

int simDiskTemporaries(void) {
    int i, count = 0;

    for (i = 0; i < name_count; i++) count += names[i].file && strstr(names[i].path, ".tmp-") != NULL;
    return count;
}

/* Call it before each change: may kill the process (then it does not return). Returns 0 and sets errno if the disk
 * refuses. */
static int simWriteAllowed(void) {
    static const int errors[] = {ENOSPC, EIO, EROFS, EDQUOT};

    if (kill_in > 0 && --kill_in == 0) simKilled();
    if (!simActive(SIM_DISK_FULL) || simOneIn(simWorldRng(), 3)) return 1;
    errno = errors[simBetween(simWorldRng(), 0, 3)];
    return 0;
}

static int simFdNew(void) {
    int i;

    for (i = 0; i < SIM_FDS; i++)
        if (!fds[i].file && !fds[i].dir[0]) return i;
    abort(); /* the engine leaks descriptors */
}

#define simIsSimulated(fd) ((fd) >= SIM_FIRST_FD)

/* ---- wrapped functions of libc ----------------------------------------------------------------------------------- */

int __real_open(const char *path, int flags, ...);
int __wrap_open(const char *path, int flags, ...);
int __real_close(int fd);
int __wrap_close(int fd);
ssize_t __real_read(int fd, void *to, size_t n);
ssize_t __wrap_read(int fd, void *to, size_t n);
ssize_t __real_write(int fd, const void *from, size_t n);
ssize_t __wrap_write(int fd, const void *from, size_t n);
int __wrap_fsync(int fd);
int __wrap_fchmod(int fd, mode_t mode);
int __wrap_rename(const char *from, const char *to);
int __wrap_unlink(const char *path);
int __wrap_unlinkat(int fd, const char *path, int flags);
int __wrap_fstat(int fd, struct stat *st);
int __wrap_stat(const char *path, struct stat *st);
int __wrap_lstat(const char *path, struct stat *st);
int __wrap_fstatat(int fd, const char *path, struct stat *st, int flags);
DIR *__wrap_opendir(const char *dir);
struct dirent *__wrap_readdir(DIR *dir);
int __wrap_closedir(DIR *dir);
int __wrap_dirfd(DIR *dir);

int __wrap_open(const char *path, int flags, ...) {
    simName *n;
    va_list ap;
    int i;

    if (path[0] == '/') { /* not the engine: a coverage tool or a sanitizer */
        va_start(ap, flags);
        i = __real_open(path, flags, va_arg(ap, int));
        va_end(ap);
        return i;
    }
    if (flags & O_DIRECTORY) {
        i = simFdNew();
        snprintf(fds[i].dir, sizeof(fds[i].dir), "%s", path);
        return SIM_FIRST_FD + i;
    }
    if (flags & O_CREAT) {
        if (!simWriteAllowed()) return -1;
        simDiskChanged(path);
        n = simNameFind(path, 1);
        if (n->file && (flags & O_EXCL)) {
            errno = EEXIST;
            return -1;
        }
        if (!n->file) simNameSet(&n->file, simFileNew());
    } else {
        n = simNameFind(path, 0);
        if (!n || !n->file) {
            errno = ENOENT;
            return -1;
        }
        if (simActive(SIM_DISK_UNREADABLE) && simOneIn(simWorldRng(), 2)) {
            errno = EACCES;
            return -1;
        }
    }
    i = simFdNew();
    fds[i].file = simFileRef(n->file);
    return SIM_FIRST_FD + i;
}

int __wrap_close(int fd) {
    if (!simIsSimulated(fd)) return __real_close(fd);
    fd -= SIM_FIRST_FD;
    simFileUnref(fds[fd].file);
    memset(&fds[fd], 0, sizeof(fds[fd]));
    if (!simActive(SIM_DISK_FULL) || !simOneIn(simWorldRng(), 8)) return 0;
    errno = EDQUOT; /* some file systems report it only on close */
    return -1;
}

ssize_t __wrap_read(int fd, void *to, size_t n) {
    size_t left;

    if (!simIsSimulated(fd)) return __real_read(fd, to, n);
    fd -= SIM_FIRST_FD;
    if (simOneIn(simWorldRng(), 50)) {
        errno = EINTR;
        return -1;
    }
    if (simActive(SIM_DISK_UNREADABLE)) {
        errno = EIO;
        return -1;
    }
    left = fds[fd].file->now.n - fds[fd].at;
    if (n > left) n = left;
    if (n > 1 && simOneIn(simWorldRng(), 10)) n /= 2;
    memcpy(to, fds[fd].file->now.p + fds[fd].at, n);
    fds[fd].at += n;
    return (ssize_t)n;
}

ssize_t __wrap_write(int fd, const void *from, size_t n) {
    simFile *f;

    if (!simIsSimulated(fd)) return __real_write(fd, from, n);
    fd -= SIM_FIRST_FD;
    f = fds[fd].file;
    if (simOneIn(simWorldRng(), 50)) {
        errno = EINTR;
        return -1;
    }
    if (!simWriteAllowed()) return -1;
    if (n > 1 && simOneIn(simWorldRng(), 10)) n /= 2; /* a short write */
    f->now.p = realloc(f->now.p, f->now.n + n + 1);
    if (!f->now.p) abort();
    memcpy(f->now.p + f->now.n, from, n);
    f->now.n += n;
    f->mtime = (int64_t)(simWallMs() / 1000);
    return (ssize_t)n;
}

int __wrap_fsync(int fd) {
    int i;

    fd -= SIM_FIRST_FD;
    if (!simWriteAllowed()) return -1;
    if (simActive(SIM_DISK_NO_SYNC)) {
        if (fds[fd].file) fds[fd].file->sync_skipped = 1;
        return 0;
    }
    if (fds[fd].file) simBytesSet(&fds[fd].file->durable, fds[fd].file->now.p, fds[fd].file->now.n);
    for (i = 0; fds[fd].dir[0] && i < name_count; i++) {
        size_t n = strlen(fds[fd].dir);
        if (strncmp(names[i].path, fds[fd].dir, n) == 0 && names[i].path[n] == '/')
            simNameSet(&names[i].durable, names[i].file);
    }
    if (fds[fd].dir[0]) simDiskSynced(fds[fd].dir);
    return 0;
}

int __wrap_fchmod(int fd, mode_t mode) {
    (void)fd;
    simRequire(mode == 0600, "private file", "a file is created with mode %o", mode);
    return 0;
}

int __wrap_rename(const char *from, const char *to) {
    simName *a = simNameFind(from, 0), *b;

    if (!a || !a->file) {
        errno = ENOENT;
        return -1;
    }
    if (!simWriteAllowed()) return -1;
    b = simNameFind(to, 1);
    a = simNameFind(from, 0); /* simNameFind may have reused entries */
    simNameSet(&b->file, a->file);
    simNameSet(&a->file, NULL);
    simDiskChanged(to);
    return 0;
}

int __wrap_unlink(const char *path) {
    simName *n = simNameFind(path, 0);

    if (!n || !n->file) {
        errno = ENOENT;
        return -1;
    }
    if (kill_in > 0 && --kill_in == 0) simKilled();
    /* Files on a full disk can be removed, but not on a read-only or broken one. */
    if (!strstr(path, ".tmp-") && simActive(SIM_DISK_FULL) && simOneIn(simWorldRng(), 3)) {
        simTrace("%s: removal refused", path);
        simDiskRemovalFailed(path);
        errno = simOneIn(simWorldRng(), 2) ? EROFS : EIO;
        return -1;
    }
    simTrace("%s: removed", path);
    simDiskRemoved(path, n->file->now.p, n->file->now.n);
    simNameSet(&n->file, NULL);
    simDiskChanged(path);
    return 0;
}

int __wrap_unlinkat(int fd, const char *path, int flags) {
    char full[400];

    (void)flags;
    snprintf(full, sizeof(full), "%s/%s", fds[fd - SIM_FIRST_FD].dir, path);
    return __wrap_unlink(full);
}

static int simFillStat(const simFile *f, struct stat *st) {
    memset(st, 0, sizeof(*st));
    if (!f) {
        errno = ENOENT;
        return -1;
    }
    st->st_mode = S_IFREG | 0600;
    st->st_size = (off_t)f->now.n;
    st->st_mtime = f->mtime;
    st->st_ino = f->number;
    return 0;
}

int __wrap_fstat(int fd, struct stat *st) {
    return simFillStat(fds[fd - SIM_FIRST_FD].file, st);
}

int __wrap_stat(const char *path, struct stat *st) {
    simName *n = simNameFind(path, 0);
    return simFillStat(n ? n->file : NULL, st);
}

int __wrap_lstat(const char *path, struct stat *st) {
    return __wrap_stat(path, st);
}

int __wrap_fstatat(int fd, const char *path, struct stat *st, int flags) {
    char full[400];

    (void)flags;
    snprintf(full, sizeof(full), "%s/%s", fds[fd - SIM_FIRST_FD].dir, path);
    return __wrap_stat(full, st);
}

DIR *__wrap_opendir(const char *dir) {
    int i = simFdNew();

    snprintf(fds[i].dir, sizeof(fds[i].dir), "%s", dir);
    return (DIR *)&fds[i];
}

struct dirent *__wrap_readdir(DIR *dir) {
    static struct dirent entry;
    long i = (typeof(&fds[0]))(void *)dir - fds;
    size_t n = strlen(fds[i].dir);

    while (fds[i].next < name_count) {
        const simName *name = &names[fds[i].next++];
        if (!name->file || strncmp(name->path, fds[i].dir, n) != 0 || name->path[n] != '/') continue;
        snprintf(entry.d_name, sizeof(entry.d_name), "%s", name->path + n + 1);
        return &entry;
    }
    return NULL;
}

int __wrap_closedir(DIR *dir) {
    memset((void *)dir, 0, sizeof(fds[0]));
    return 0;
}

int __wrap_dirfd(DIR *dir) {
    return SIM_FIRST_FD + (int)((typeof(&fds[0]))(void *)dir - fds);
}
