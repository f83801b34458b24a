/* test_threads.c - the engine with its real thread: wake-ups, requested refreshes, exit and fork, and thousands of
 * handshakes while responses are published, contexts reloaded and stapling turned off and on.
 *
 * Most telling under SAN=thread and SAN=address.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "world.h"
#include "ocsp_worker.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static atomic_int refreshes_good, refreshes_failed;
static void countOutcome(void *arg, const char *error) {
    (void)arg;
    atomic_fetch_add(error ? &refreshes_failed : &refreshes_good, 1);
}

static int requestRefresh(void) {
    char why[OCSP_SENTENCE_MAX] = "";
    int ok = ocspRequestRefreshThen(countOutcome, NULL, why, sizeof(why));
    assert_int_equal(ok, why[0] == '\0');
    return ok;
}

static void setUp(void) {
    atomic_store(&refreshes_good, 0);
    atomic_store(&refreshes_failed, 0);
    worldSetUp();
}

FIXTURE(setUp, worldTearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* ---- the thread -------------------------------------------------------------------------------------------------- */

TEST(thread_fetchesAndStaples) {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(cache_isReadBeforeTheFirstAccept, "15") {
    options.cache_dir = dir;
    applyOptions();
    ocspIdentity *id = testIdentity(pki->leaf, pki->ca);
    testReply reply = testGoodReply(pki->leaf);
    testBytes der = testReplyDer(&reply);
    assert_int_equal(ocspCacheStore(dir, id, der.p, der.n, NULL), 1);
    testBytesFree(&der);
    ocspIdentityFree(id);
    atomic_store(&responder.hang, 1);
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    assert_true(isStapled(ctx)); /* without waiting for the responder */
    SSL_CTX_free(ctx);
}

TEST(exit_doesNotWaitForTheNetwork, "20") {
    atomic_store(&responder.hang, 1);
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(requestCount() == 1);
    ocspAtExit(); /* while the fetch hangs */
    ocspAtExit();
    assert_int_equal(atomic_load(&responder.cancelled), 0);
    SSL_CTX_free(ctx);
}

#ifdef __linux__
/* Replaces libc's: the engine's pipes. */
static atomic_int pipes_made, pipe_flags;
int pipe2(int fds[2], int flags) {
    atomic_store(&pipe_flags, flags);
    atomic_fetch_add(&pipes_made, 1);
    return (int)syscall(SYS_pipe2, fds, flags);
}

/* A program that the server starts (a script, a crash handler) must not inherit the wake pipe, not even one that
 * another thread starts while the pipe is being made: so the flags come with it. */
TEST(exec_wakePipeIsNotInherited) {
    char was_open[256];
    for (int fd = 0; fd < 256; fd++) was_open[fd] = fcntl(fd, F_GETFD) >= 0;
    atomic_store(&pipes_made, 0);
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    assert_int_equal(atomic_load(&pipes_made), 1);
    assert_int_equal(atomic_load(&pipe_flags), O_CLOEXEC | O_NONBLOCK);
    int ends = 0;
    for (int fd = 0; fd < 256; fd++) {
        struct stat st;
        if (was_open[fd] || fstat(fd, &st) != 0 || !S_ISFIFO(st.st_mode)) continue;
        assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
        assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
        ends++;
    }
    assert_int_equal(ends, 2);
    SSL_CTX_free(ctx);
}
#endif

/* BGSAVE: a child of the server exits while the parent's thread works. */
TEST(fork_childExitsWithoutTheThread, "20") {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    atomic_store(&responder.hang, 1);
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(requestCount() == 2);
    pid_t child = fork();
    if (child == 0) {
        ocspAtExit();
        _exit(7);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    atomic_store(&responder.hang, 0);
    testWaitFor(atomic_load(&refreshes_good) == 1);
    SSL_CTX_free(ctx);
}

static atomic_int forking, in_openssl;

static void noteFork(void) {
    atomic_store(&forking, 1);
}

static void stayInOpenSSL(const ocspIoHooks *io) {
    struct timespec nap = {0, 20000000};
    (void)io; /* a fetch begins inside OpenSSL */
    atomic_store(&in_openssl, 1);
    testWaitFor(atomic_load(&forking));
    nanosleep(&nap, NULL); /* a fork that does not wait falls into this pause */
    atomic_store(&in_openssl, 0);
}

/* Sentinel's scripts: the child calls OPENSSL_cleanup, which must not find the locks of a thread that it does not
 * have. */
TEST(fork_waitsUntilTheThreadHasLeftOpenSSL) {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    assert_int_equal(pthread_atfork(noteFork, NULL, NULL), 0); /* the last one registered is called first */
    atomic_store(&forking, 0);
    responder.during_fetch = stayInOpenSSL;
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(atomic_load(&in_openssl));
    pid_t child = fork();
    if (child == 0) {
        if (atomic_load(&in_openssl)) _exit(1);
        child = fork(); /* a child of the child has nothing to wait for */
        if (child == 0) _exit(7);
        int status = 0;
        waitpid(child, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
    }
    assert_int_equal(atomic_load(&in_openssl), 0);
    responder.during_fetch = NULL;
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    testWaitFor(atomic_load(&refreshes_good) == 1); /* the thread goes on */
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(atomic_load(&refreshes_good) == 2);
    SSL_CTX_free(ctx);
}

/* CONFIG RESETSTAT, on main, while the thread counts. */
TEST(counters_areResetWhileTheThreadCounts) {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    for (int i = 1; i <= 30; i++) {
        assert_int_equal(requestRefresh(), 1);
        ocspResetCounters();
        testWaitFor(atomic_load(&refreshes_good) == i);
        testAssertRange(infoNumber("refreshes"), 0, 1);
    }
    ocspResetCounters();
    assert_int_equal(infoNumber("refreshes"), 0);
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(atomic_load(&refreshes_good) == 31);
    assert_int_equal(infoNumber("refreshes"), 1);
    SSL_CTX_free(ctx);
}

/* ---- requested refreshes ----------------------------------------------------------------------------------------- */

/* As DEBUG OCSP-REFRESH does: without a callback. */
static void requestWithoutCallback(void) {
    char why[OCSP_SENTENCE_MAX] = "";
    assert_int_not_equal(ocspRequestRefresh(why, sizeof(why)), 0);
}

TEST(request_manyDuringOneFetchAreOne, "19") {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    atomic_store(&responder.hang, 1);
    int before = requestCount();
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(requestCount() == before + 1);
    for (int i = 0; i < 100; i++) assert_int_equal(requestRefresh(), 1);
    moveWallClock(5000);
    atomic_store(&responder.hang, 0);
    testWaitFor(atomic_load(&refreshes_good) == 101);
    assert_int_equal(requestCount(), before + 1);
    assert_int_equal(atomic_load(&refreshes_failed), 0);
    SSL_CTX_free(ctx);
}

TEST(request_failedWithOthersWaitingIsRepeatedOnce, "19") {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    int before = requestCount();
    responder.down = 1;
    atomic_store(&responder.hang, 1);
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(requestCount() == before + 1);
    for (int i = 0; i < 100; i++) assert_int_equal(requestRefresh(), 1);
    atomic_store(&responder.hang, 0);
    testWaitFor(atomic_load(&refreshes_failed) ==
                101); /* the fake clock stands still: no automatic refresh is among them */
    assert_int_equal(requestCount(), before + 2);
    assert_int_equal(atomic_load(&refreshes_good), 0);
    atomic_store(&responder.hang, 1);
    requestWithoutCallback();
    testWaitFor(requestCount() == before + 3);
    requestWithoutCallback();
    atomic_store(&responder.hang, 0);
    testWaitFor(requestCount() == before + 4);
    SSL_CTX_free(ctx);
}

TEST(request_unchangedResponseIsNoFailure, "19") {
    responder.this_update = TEST_NOW;
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    for (int i = 1; i <= 20; i++) {
        assert_int_equal(requestRefresh(), 1);
        testWaitFor(atomic_load(&refreshes_good) == i);
    }
    assert_int_equal(requestCount(), 21);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

TEST(request_rejectedWithAReason, "19") {
    char why[OCSP_SENTENCE_MAX];
    X509 *leaves[] = {pki->self, pki->quiet_leaf, pki->leaf};
    static const char *const states[] = {"self-signed", "no-responder", "no-issuer"};
    for (int i = 0; i < 3; i++) {
        SSL_CTX *ctx = loadContext(leaves[i], pki->leaf_key, i == 1 ? pki->ca : NULL);
        ocspLateCron();
        testWaitFor(!strcmp(infoText("state"), states[i]));
        why[0] = 0;
        assert_int_equal(ocspRequestRefreshThen(countOutcome, NULL, why, sizeof(why)), 0);
        assert_true(strlen(why) > 10);
        SSL_CTX_free(ctx);
    }
    options.stapling = 0;
    applyOptions();
    assert_int_equal(ocspRequestRefreshThen(countOutcome, NULL, why, sizeof(why)), 0);
    assert_non_null(strstr(why, "off"));
    assert_int_equal(atomic_load(&refreshes_good) + atomic_load(&refreshes_failed), 0);
    assert_int_equal(requestCount(), 0);
}

TEST(request_isAnsweredWhenStaplingOrTheEngineEnds) {
    SSL_CTX *ctx = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    atomic_store(&responder.hang, 1);
    int before = requestCount();
    assert_int_equal(requestRefresh(), 1);
    testWaitFor(requestCount() == before + 1);
    options.stapling = 0;
    applyOptions();
    testWaitFor(atomic_load(&refreshes_failed) == 1);
    options.stapling = 1;
    applyOptions();
    assert_int_equal(requestRefresh(), 1);
    ocspShutdown(); /* cancels the hanging fetch */
    assert_int_equal(atomic_load(&refreshes_failed), 2);
    SSL_CTX_free(ctx);
}

/* ---- contexts found by their handshakes -------------------------------------------------------------------------- */

/* Valkey 9.1 makes contexts on a thread of its own: they are found by their first handshake. */
TEST(context_neverAttachedIsFoundByItsHandshake) {
    SSL_CTX *first = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    SSL_CTX *second = testServerCtx(pki->renewed_leaf, pki->leaf_key, pki->ca);
    ocspInstallCallbackAs(second, OCSP_CONTEXT_OF_SERVER);
    assert_false(isStapled(second));
    ocspLateCron();
    testWaitFor(isStapledTo(second, tls13));
    assert_true(isStapledTo(first, tls13));
    ocspLateCron(); /* the late handshake of the old context must not bring it back */
    assert_string_not_equal(infoText("cert_serial"), "0ABC");
    SSL_CTX_free(first);
    SSL_CTX_free(second);
}

/* The context was attached before and has been replaced. */
TEST(context_lateHandshakeOfAReplacedOneChangesNothing) {
    SSL_CTX *old = loadLeaf();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good"));
    char serial[OCSP_OUTSIDE_TEXT_MAX + 1], which[sizeof(serial)];
    snprintf(serial, sizeof(serial), "%s", infoText("cert_serial"));
    SSL_CTX *renewed = loadContext(pki->renewed_leaf, pki->leaf_key, pki->ca);
    testWaitFor(strcmp(infoText("cert_serial"), serial) && !strcmp(infoText("state"), "good"));
    snprintf(which, sizeof(which), "%s", infoText("cert_serial"));
    assert_true(isStapled(old));
    ocspLateCron();
    assert_int_equal(requestRefresh(), 1); /* once answered, the thread has adopted what ocspCron may have attached */
    testWaitFor(atomic_load(&refreshes_good) + atomic_load(&refreshes_failed) == 1);
    assert_string_equal(infoText("cert_serial"), which);
    SSL_CTX_free(old);
    SSL_CTX_free(renewed);
}

/* ---- many handshakes at once ------------------------------------------------------------------------------------- */

#define HANDSHAKE_THREADS 4
static struct {
    pthread_mutex_t lock; /* guards ctx */
    SSL_CTX *ctx;
    atomic_long left, failed, unstapled, wrong, done;
} load = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void *handshakeUntilDone(void *arg) {
    SSL_CTX *clients[] = {tls12, tls13, tls12_rsa, tls13_rsa};
    int which = (int)(intptr_t)arg;
    while (atomic_fetch_sub(&load.left, 1) > 0) {
        pthread_mutex_lock(&load.lock);
        SSL_CTX *ctx = load.ctx;
        SSL_CTX_up_ref(ctx);
        pthread_mutex_unlock(&load.lock);
        testShake s = testHandshake(ctx, clients[which++ % 4], 1);
        if (!s.ok)
            atomic_fetch_add(&load.failed, 1);
        else if (!s.got_staple)
            atomic_fetch_add(&load.unstapled, 1);
        else if (!testJudge(s.staple.p, s.staple.n, s.peer, pki->ca, wallNow()))
            atomic_fetch_add(&load.wrong, 1);
        atomic_fetch_add(&load.done, 1);
        testShakeFree(&s);
        SSL_CTX_free(ctx);
    }
    return NULL;
}

static void startHandshakes(pthread_t *threads, SSL_CTX *ctx, long handshakes) {
    load.ctx = ctx;
    atomic_store(&load.left, handshakes);
    load.failed = load.unstapled = load.wrong = load.done = 0;
    for (int i = 0; i < HANDSHAKE_THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, handshakeUntilDone, (void *)(intptr_t)i), 0);
    }
}

static void endHandshakes(pthread_t *threads, long handshakes) {
    for (int i = 0; i < HANDSHAKE_THREADS; i++) pthread_join(threads[i], NULL);
    if (handshakes >= 0) assert_int_equal(atomic_load(&load.done), handshakes);
    assert_int_equal(atomic_load(&load.failed), 0);
    assert_int_equal(atomic_load(&load.unstapled), 0);
    assert_int_equal(atomic_load(&load.wrong), 0);
}

/* 10,000 handshakes on 4 threads while responses are published every millisecond: none fails, none is without a whole,
 * verifiable staple. OCSP_TEST_HANDSHAKES scales it. */
TEST(handshakes_tenThousandWhileResponsesArePublished) {
    long handshakes = testEnvNumber("OCSP_TEST_HANDSHAKES", 10000);
    pthread_t threads[HANDSHAKE_THREADS];
    SSL_CTX *ctx = loadTwoCertificates();
    responder.next_this_update = TEST_NOW - 20 * TEST_DAY; /* every response is newer */
    responder.validity = 100 * TEST_DAY;
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good") && infoHas("alt_state") && !strcmp(infoText("alt_state"), "good"));
    long long stapled_before = infoNumber("handshakes_stapled"), unstapled_before = infoNumber("handshakes_unstapled");
    long long refreshes = infoNumber("refreshes");
    startHandshakes(threads, ctx, handshakes);
    while (atomic_load(&load.done) < handshakes) {
        assert_int_equal(requestRefresh(), 1);
        ocspLateCron();
        testSleepMs(1);
    }
    endHandshakes(threads, handshakes);
    assert_int_equal(infoNumber("handshakes_stapled") - stapled_before, handshakes);
    assert_int_equal(infoNumber("handshakes_unstapled"), unstapled_before);
    assert_true(infoNumber("refreshes") - refreshes > handshakes / 100); /* responses were published all the time */
    assert_int_equal(infoNumber("refresh_failures"), 0);
    print_message("%ld handshakes, %lld responses published meanwhile\n", handshakes,
                  infoNumber("refreshes") - refreshes);
    SSL_CTX_free(ctx);
}

TEST(handshakes_whileReloadedAThousandTimes, "17") {
    long reloads = testEnvNumber("OCSP_TEST_RELOADS", 1000);
    pthread_t threads[HANDSHAKE_THREADS];
    SSL_CTX *ctx = loadTwoCertificates();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good") && infoHas("alt_state") && !strcmp(infoText("alt_state"), "good"));
    startHandshakes(threads, ctx, 1000000000);
    for (long i = 0; i < reloads; i++) {
        SSL_CTX *next = loadTwoCertificates();
        pthread_mutex_lock(&load.lock);
        load.ctx = next;
        pthread_mutex_unlock(&load.lock);
        SSL_CTX_free(ctx);
        ctx = next;
        ocspLateCron();
        if (i % 20 == 0) testSleepMs(1);
    }
    testWaitFor(atomic_load(&load.done) > 100);
    atomic_store(&load.left, 0);
    for (int i = 0; i < HANDSHAKE_THREADS; i++) pthread_join(threads[i], NULL);
    endHandshakes(threads, -1);
    SSL_CTX_free(ctx);
}

TEST(handshakes_whileStaplingIsTurnedOffAndOn, "18") {
    pthread_t threads[HANDSHAKE_THREADS];
    SSL_CTX *ctx = loadTwoCertificates();
    ocspLateCron();
    testWaitFor(!strcmp(infoText("state"), "good") && infoHas("alt_state") && !strcmp(infoText("alt_state"), "good"));
    startHandshakes(threads, ctx, 1000000000);
    for (int i = 0; i < 200; i++) {
        options.stapling = i % 2;
        applyOptions();
        testSleepMs(1);
    }
    testWaitFor(atomic_load(&load.done) > 100);
    atomic_store(&load.left, 0);
    for (int i = 0; i < HANDSHAKE_THREADS; i++) pthread_join(threads[i], NULL);
    assert_int_equal(atomic_load(&load.failed), 0);
    assert_int_equal(atomic_load(&load.wrong),
                     0); /* handshakes without a staple are expected: stapling is off half of the time */
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}
