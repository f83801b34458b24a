/* ocsp_thread.c - the OCSP thread: start, stop, wake, sleep; and the OpenSSL lock.
 *
 * DESIGN: one thread per process, like those of bio.c, but with one job and a deadline instead of a job list. The
 * thread calls the worker's step, then sleeps for as long as the step returned, or until main wakes it through a pipe
 * that is part of every poll.
 *
 * EXIT: exit() runs OpenSSL's clean-up while this thread may be inside OpenSSL: 163 of 200 exits crashed in an
 * experiment. Therefore the thread holds openssl_lock whenever it may be in OpenSSL, and releases the lock around
 * everything that can block (poll, name look-up, disk). An atexit handler takes the lock and keeps it. OpenSSL 4 leaves
 * its data to the end of the process, but the handler runs there, too: OPENSSL_cleanup may still be called by another
 * handler or a destructor, and those run after this one.
 *
 * FORK: a child has no OCSP thread, but a copy of OpenSSL's locks and data as that thread left them. Sentinel's children
 * call OPENSSL_cleanup before they run a script, which would wait forever for such a lock. Therefore main forks only
 * while the thread is outside OpenSSL, or after OCSP_LOCK_WAIT_MS.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || \
    defined(__DragonFly__) || defined(__illumos__)
#define OCSP_HAVE_PIPE2 1
#else
#define OCSP_HAVE_PIPE2 0 /* macOS, for one */
#endif

#define OCSP_THREAD_STACK (1024 * 1024) /* bytes; NSS modules (name look-up) need most of them */
#define OCSP_LOCK_WAIT_MS 1000          /* how long main waits for openssl_lock at exit and before a fork */

/* ---- the OpenSSL lock, the pipe ---------------------------------------------------------------------------------- */

static pthread_mutex_t openssl_lock = PTHREAD_MUTEX_INITIALIZER; /* held while inside OpenSSL */
/* Locked before openssl_lock, so that the exit handler gets openssl_lock before the thread can retake it. */
static pthread_mutex_t openssl_turnstile = PTHREAD_MUTEX_INITIALIZER;
static int wake_pipe[2] = {-1, -1};
static pthread_t thread;
static int thread_started, turnstile_locked_at_exit, openssl_locked_at_exit; /* main thread only */
static int turnstile_locked_for_fork, openssl_locked_for_fork;               /* the same */
static pthread_t main_thread;                                                /* written before the fork handlers run */
static pid_t thread_owner;                                                   /* the process that created the thread */
static atomic_int stopping;                                                  /* written by main, read by the thread */

static void ocspLockOpenSSL(void) {
    pthread_mutex_lock(&openssl_turnstile);
    pthread_mutex_unlock(&openssl_turnstile);
    pthread_mutex_lock(&openssl_lock);
}

static void ocspUnlockOpenSSL(void) {
    pthread_mutex_unlock(&openssl_lock);
}

/* Takes openssl_lock, with the turnstile locked, so that the thread does not retake it. Main. Returns 0 after
 * OCSP_LOCK_WAIT_MS without it: some OpenSSL calls read files (roots, tls-ca-cert-dir), which may hang. */
static int ocspTakeOpenSSL(void) {
    struct timespec nap = {0, 1000000};
    int i;

    for (i = 0; i < OCSP_LOCK_WAIT_MS; i++) {
        if (pthread_mutex_trylock(&openssl_lock) == 0) return 1;
        nanosleep(&nap, NULL);
    }
    return 0;
}

/* Takes openssl_lock and keeps it, so that the thread does not enter OpenSSL again. Main, at exit. Waits for the call of
 * OpenSSL that the thread is in, about a millisecond and OCSP_LOCK_WAIT_MS at most, never for the network or the disk.
 * With OpenSSL 4, whose exit cleans nothing up, that wait is all its effect. */
void ocspAtExit(void) {
    if (!thread_started || turnstile_locked_at_exit || getpid() != thread_owner)
        return; /* a forked child has no OCSP thread */
    pthread_mutex_lock(&openssl_turnstile);
    turnstile_locked_at_exit = 1;
    ocspThreadWake();
    openssl_locked_at_exit = ocspTakeOpenSSL(); /* if that fails, exit anyway */
}

/* Fork handlers: main forks only while the thread is outside OpenSSL, see FORK. Other threads fork as they like. */
static void ocspBeforeFork(void) {
    if (!pthread_equal(pthread_self(), main_thread) || !thread_started || turnstile_locked_at_exit ||
        getpid() != thread_owner)
        return;
    pthread_mutex_lock(&openssl_turnstile);
    turnstile_locked_for_fork = 1;
    openssl_locked_for_fork = ocspTakeOpenSSL();
}

/* In the parent and in the child. */
static void ocspAfterFork(void) {
    if (!pthread_equal(pthread_self(), main_thread) || !turnstile_locked_for_fork) return;
    if (openssl_locked_for_fork) pthread_mutex_unlock(&openssl_lock);
    pthread_mutex_unlock(&openssl_turnstile);
    turnstile_locked_for_fork = openssl_locked_for_fork = 0;
}

void ocspThreadWake(void) {
    if (wake_pipe[1] >= 0) (void)!write(wake_pipe[1], "", 1); /* a full pipe is fine: it wakes the thread */
}

static void ocspDrainPipe(void) {
    char bytes[64];

    while (wake_pipe[0] >= 0 && read(wake_pipe[0], bytes, sizeof(bytes)) > 0) continue;
}

/* Returns 1 if a fetch, interrupted by a wake-up, has to end. OCSP thread. */
static int ocspStopRequested(void) {
    ocspDrainPipe();
    return atomic_load_explicit(&stopping, memory_order_relaxed);
}

static ocspIoHooks hooks = {ocspUnlockOpenSSL, ocspLockOpenSSL, -1, ocspStopRequested};

/* ---- the step ---------------------------------------------------------------------------------------------------- */

static int64_t ocspStep(int use_network) {
    int64_t wait;

    ocspLockOpenSSL();
    hooks.wake_fd = wake_pipe[0];
    wait = ocspWorkerStep(&hooks, use_network);
    ocspUnlockOpenSSL();
    return wait;
}

int64_t ocspThreadStep(void) {
    return ocspStep(1);
}

void ocspThreadPrime(void) {
    ocspStep(0);
}

/* ---- the thread itself ------------------------------------------------------------------------------------------- */

static void *ocspThreadMain(void *unused) {
    (void)unused;
    ocspThreadStarted();
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        struct pollfd wake = {wake_pipe[0], POLLIN, 0};
        int64_t wait = ocspThreadStep();
        if (wait != 0) poll(&wake, 1, (int)wait);
        ocspDrainPipe();
    }
    return NULL;
}

/* Opens the pipe that wakes the thread; both ends are non-blocking and close-on-exec. Returns 1, or 0 with errno set.
 * Main. pipe2 sets both flags atomically; without pipe2 a fork and exec by another thread just before fcntl leaks the
 * descriptors. */
static int ocspOpenPipe(void) {
    if (wake_pipe[0] >= 0) return 1;
#if OCSP_HAVE_PIPE2
    return pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) == 0;
#else
    int i;

    if (pipe(wake_pipe) != 0) return 0;
    for (i = 0; i < 2; i++) {
        fcntl(wake_pipe[i], F_SETFD, FD_CLOEXEC);
        fcntl(wake_pipe[i], F_SETFL, O_NONBLOCK);
    }
    return 1;
#endif
}

int ocspThreadStart(void) {
    static int exit_handler, fork_handlers;
    pthread_attr_t attr;
    sigset_t all, before;
    int fault;

    if (thread_started) return 1;
    if (!ocspOpenPipe()) return 0;
    /* Exit handlers run in reverse order: have OpenSSL register its own first, so that this one runs before it. */
    if (!exit_handler) {
        OPENSSL_init_ssl(0, NULL);
        exit_handler = atexit(ocspAtExit) == 0;
    }
    main_thread = pthread_self();
    if (!fork_handlers) fork_handlers = pthread_atfork(ocspBeforeFork, ocspAfterFork, ocspAfterFork) == 0;
    if (!fork_handlers) {
        errno = ENOMEM;
        return 0;
    }
    atomic_store_explicit(&stopping, 0, memory_order_relaxed);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, OCSP_THREAD_STACK);
    /* Leave signals to the server's threads, and block SIGPIPE, which a responder that closes the connection causes.
     * Signals of a crash still have to reach the server's handler. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_owner = getpid();
    fault = pthread_create(&thread, &attr, ocspThreadMain, NULL);
    thread_started = fault == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    errno = fault;
    return thread_started;
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

void ocspThreadStop(void) {
    int i;

    if (thread_started) {
        atomic_store_explicit(&stopping, 1, memory_order_relaxed);
        if (openssl_locked_at_exit) pthread_mutex_unlock(&openssl_lock);
        if (turnstile_locked_at_exit) pthread_mutex_unlock(&openssl_turnstile);
        openssl_locked_at_exit = turnstile_locked_at_exit = 0;
        ocspThreadWake();
        pthread_join(thread, NULL);
        thread_started = 0;
    }
    for (i = 0; i < 2; i++) {
        if (wake_pipe[i] >= 0) close(wake_pipe[i]);
        wake_pipe[i] = -1;
    }
    ocspWorkerFree();
}

#endif /* OCSP_SUPPORTED */
