/* fault_nth.c - preloaded library that makes the N-th allocation of the module fail, kills the server at the N-th step of
 * writing its cache, and interrupts the module's thread with signals.
 *
 * $FAULT_NTH names a file of seven 64-bit numbers, which is mapped: the test writes to it while the server runs.
 *
 *   0  make this allocation fail (1, 2, ...); 0: none, and none is counted
 *   1  allocations so far
 *   2  allocations that failed
 *   3  kill the server at this step of writing the cache; 0: never
 *   4  steps so far
 *   5  1: send signals to the module's thread, $FAULT_STORM microseconds apart
 *   6  signals sent
 *
 * ALLOCATIONS of the module are those that it makes through the server and that may fail (ztrymalloc and the like; when
 * another one fails, the server ends itself), and those of OpenSSL and libc in calls from the module: the first caller
 * outside these libraries is the module. Debian's server uses malloc for its own memory as well, so callers are
 * identified by their addresses.
 *
 * What OpenSSL does once per process (it loads providers and fetches algorithms) is done before the server starts, with
 * the certificate in the file $FAULT_WARM; a server without the module does it for its own context. If an allocation
 * fails there, OpenSSL is unusable in that process from then on.
 *
 * STEPS are calls that create, write, sync, close, rename or remove a file whose name contains "/ocsp-", or that sync its
 * directory. The kill precedes the call; a write counts as two steps, and at the second one half of it is done.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define MODULE "valkey-ocsp.so"
#define MAX_REGIONS 400
#define DEPTH 64

typedef enum {
    OTHER,
    LIBRARY,
    OURS
} regionKind;

static struct control {
    _Atomic int64_t fail_at, counted, refused, kill_at, steps, storm, signals;
} none, *control = &none;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static _Thread_local int inside;

/* ---- which library an address is in ------------------------------------------------------------------------------ */

static struct {
    uintptr_t from, to;
    regionKind kind;
} regions[MAX_REGIONS];
static atomic_int region_count;
static pthread_mutex_t region_lock = PTHREAD_MUTEX_INITIALIZER;

static int addRegion(struct dl_phdr_info *info, size_t size, void *unused) {
    static const char *const libraries[] = {"/libc.so",   "/libcrypto.so", "/libssl.so",   "/ld-linux",
                                            "/libresolv", "/libnss",       "/fault_nth.so"};
    regionKind kind = strstr(info->dlpi_name, MODULE) ? OURS : OTHER;

    (void)size;
    (void)unused;
    for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++)
        if (strstr(info->dlpi_name, libraries[i])) kind = LIBRARY;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &info->dlpi_phdr[i];
        int n = atomic_load(&region_count);

        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X) || n == MAX_REGIONS) continue;
        regions[n].from = info->dlpi_addr + part->p_vaddr;
        regions[n].to = regions[n].from + part->p_memsz;
        regions[n].kind = kind;
        atomic_store(&region_count, n + 1);
    }
    return 0;
}

static regionKind kindOf(const void *address) {
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < atomic_load(&region_count); i++)
            if ((uintptr_t)address >= regions[i].from && (uintptr_t)address < regions[i].to) return regions[i].kind;
        if (pass == 1) break;
        pthread_mutex_lock(&region_lock); /* a library was loaded since then */
        atomic_store(&region_count, 0);
        dl_iterate_phdr(addRegion, NULL);
        pthread_mutex_unlock(&region_lock);
    }
    return OTHER;
}

/* ---- allocations ------------------------------------------------------------------------------------------------- */

static int isOurs(void) {
    void *frames[DEPTH];
    int n = backtrace(frames, DEPTH), i;

    for (i = 0; i < n && kindOf(frames[i]) == LIBRARY; i++) continue;
    if (i == n) return 0;
    if (kindOf(frames[i]) == OURS) return 1;
    /* The server's allocator that may fail, called by the module (its own frame is gone after a tail call). */
    Dl_info info;
    return i + 1 < n && kindOf(frames[i + 1]) == OURS && dladdr(frames[i], &info) && info.dli_sname &&
           strncmp(info.dli_sname, "ztry", 4) == 0;
}

static int refuse(void) {
    int refused = 0;

    if (inside || atomic_load(&control->fail_at) == 0) return 0;
    inside = 1;
    if (isOurs() && atomic_fetch_add(&control->counted, 1) + 1 == atomic_load(&control->fail_at)) {
        atomic_fetch_add(&control->refused, 1);
        refused = 1;
    }
    inside = 0;
    if (refused) errno = ENOMEM;
    return refused;
}

/* Memory for dlsym while it looks up the real functions. */
static _Alignas(16) char early[65536];
static size_t early_used;

static void *earlyBytes(size_t n) {
    void *p = early + early_used;

    early_used += (n + 15) & ~(size_t)15;
    if (early_used > sizeof(early)) abort();
    return p;
}

static void lookUp(void) {
    static _Thread_local int looking;

    if (looking) return;
    looking = 1;
    real_calloc = (void *(*)(size_t, size_t))dlsym(RTLD_NEXT, "calloc");
    real_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    real_free = (void (*)(void *))dlsym(RTLD_NEXT, "free");
    real_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    looking = 0;
}

void *malloc(size_t n) {
    if (!real_malloc) lookUp();
    if (!real_malloc) return earlyBytes(n);
    return refuse() ? NULL : real_malloc(n);
}

void *calloc(size_t n, size_t size) {
    if (!real_malloc) lookUp();
    if (!real_malloc) return earlyBytes(n * size); /* static, so it is zero */
    return refuse() ? NULL : real_calloc(n, size);
}

void *realloc(void *p, size_t n) {
    if (!real_malloc) lookUp();
    if ((char *)p >= early && (char *)p < early + sizeof(early)) {
        void *moved = malloc(n);
        if (moved) memcpy(moved, p, n); /* may copy bytes after the block, which are in the same array */
        return moved;
    }
    return refuse() ? NULL : real_realloc(p, n);
}

void free(void *p) {
    if ((char *)p >= early && (char *)p < early + sizeof(early)) return;
    if (!real_free) lookUp();
    if (real_free) real_free(p);
}

/* ---- the cache --------------------------------------------------------------------------------------------------- */

static void step(void) {
    if (atomic_load(&control->kill_at) == 0) return;
    if (atomic_fetch_add(&control->steps, 1) + 1 == atomic_load(&control->kill_at)) kill(getpid(), SIGKILL);
}

static int isCacheName(const char *path) {
    return strncmp(path, "ocsp-", 5) == 0 || strstr(path, "/ocsp-") != NULL;
}

/* Whether `fd` is a cached file or a directory: the server itself syncs no directory. */
static int isCacheFd(int fd) {
    char link[64], path[4096];
    struct stat st;
    ssize_t n;

    if (atomic_load(&control->kill_at) == 0) return 0;
    snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    if ((n = readlink(link, path, sizeof(path) - 1)) <= 0) return 0;
    path[n] = '\0';
    return isCacheName(path) || (fstat(fd, &st) == 0 && S_ISDIR(st.st_mode));
}

int open(const char *path, int flags, ...) {
    va_list ap;
    int mode;

    va_start(ap, flags);
    mode = flags & O_CREAT ? va_arg(ap, int) : 0;
    va_end(ap);
    if ((flags & O_CREAT) && isCacheName(path)) step();
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    if (fd > 2 && isCacheFd(fd)) {
        int64_t next = atomic_load(&control->steps) + 2;

        step();
        if (next == atomic_load(&control->kill_at)) syscall(SYS_write, fd, bytes, len / 2);
        step();
    }
    return syscall(SYS_write, fd, bytes, len);
}

int fchmod(int fd, mode_t mode) {
    if (isCacheFd(fd)) step();
    return (int)syscall(SYS_fchmod, fd, mode);
}

int fsync(int fd) {
    if (isCacheFd(fd)) step();
    return (int)syscall(SYS_fsync, fd);
}

int close(int fd) {
    if (fd > 2 && isCacheFd(fd)) step();
    return (int)syscall(SYS_close, fd);
}

int rename(const char *from, const char *to) {
    if (isCacheName(to)) step();
    return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0);
}

int unlinkat(int dir, const char *name, int flags) {
    if (isCacheName(name)) step();
    return (int)syscall(SYS_unlinkat, dir, name, flags);
}

/* ---- signals ----------------------------------------------------------------------------------------------------- */

static pthread_t target;

static void ignore(int sig) {
    (void)sig;
}

static void *storm(void *unused) {
    const char *pause = getenv("FAULT_STORM");
    struct timespec nap = {0, (pause ? atol(pause) : 200) * 1000};

    for (;;) {
        nanosleep(&nap, NULL);
        if (!atomic_load(&control->storm)) continue;
        if (pthread_kill(target, SIGUSR2) == 0) atomic_fetch_add(&control->signals, 1);
    }
    return unused;
}

/* The first thing that the module's thread does is to set its name. It blocks all signals: unblock this one. */
int pthread_setname_np(pthread_t thread, const char *name) {
    int (*next)(pthread_t, const char *) = (int (*)(pthread_t, const char *))dlsym(RTLD_NEXT, "pthread_setname_np");

    if (getenv("FAULT_STORM") != NULL && strcmp(name, "bio_ocsp") == 0) {
        struct sigaction action = {.sa_handler = ignore}; /* without SA_RESTART */
        sigset_t one, all, before;
        pthread_t sender;

        target = thread;
        sigaction(SIGUSR2, &action, NULL);
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        pthread_create(&sender, NULL, storm, NULL);
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        sigemptyset(&one);
        sigaddset(&one, SIGUSR2);
        pthread_sigmask(SIG_UNBLOCK, &one, NULL);
    }
    return next(thread, name);
}

/* ---- */

static void warmUp(const char *file) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    unsigned char sum[EVP_MAX_MD_SIZE];
    unsigned len;
    X509 *cert;

    if (ctx != NULL && SSL_CTX_use_certificate_chain_file(ctx, file) == 1 && SSL_CTX_load_verify_file(ctx, file) == 1) {
        cert = SSL_CTX_get0_certificate(ctx);
        X509_verify(cert, X509_get0_pubkey(cert));
        X509_digest(cert, EVP_sha1(), sum, &len);
        X509_digest(cert, EVP_sha256(), sum, &len);
    }
    SSL_CTX_free(ctx);
    ERR_clear_error();
}

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("FAULT_NTH");
    int fd = path != NULL ? (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC) : -1;
    void *frames[2], *mapped;

    if (!real_malloc) lookUp();
    backtrace(frames, 2); /* loads libgcc, which it does once */
    if (fd < 0) return;
    if (getenv("FAULT_WARM") != NULL) warmUp(getenv("FAULT_WARM"));
    mapped = mmap(NULL, sizeof(struct control), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    syscall(SYS_close, fd);
    if (mapped != MAP_FAILED) control = mapped;
}

/* Valkey 8.1 loads modules with RTLD_DEEPBIND, which would bind them to the real functions, not to these. */
void *dlopen(const char *file, int flags) {
    void *(*next)(const char *, int) = (void *(*)(const char *, int))dlsym(RTLD_NEXT, "dlopen");

    return next(file, flags & ~RTLD_DEEPBIND);
}
