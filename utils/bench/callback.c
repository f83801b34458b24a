/* callback.c - measures the handshake callback alone, and the lock-free slot compared with alternatives.
 *
 *   bench_callback [--bytes 1500] [--millis 150] [--rounds 5]
 *
 * Linked with the unmodified engine. 1, 2, 4 or 8 readers run continuously, with and without a writer that publishes
 * continuously. The readers run one of:
 *     callback  ocspStatusCallback on a server's SSL; OpenSSL's allocation returns a fixed buffer of the thread
 *     malloc    the same with OpenSSL's real allocation
 *     minimal   the minimum for OpenSSL to send bytes: a copy of static bytes (in a fixed buffer, too)
 *     slot      ocspSlotEnter, find and copy the staple, ocspSlotLeave
 *     mutex, rwlock, refcount   the same copy with a mutex, a reader-writer lock, an atomic reference count
 *
 * Output: a line for each, round by round:
 *     callback NAME READERS WRITER READ_NS READS_PER_SECOND WAITS WRITES WRITE_P50 WRITE_P99 WRITE_MAX
 * READ_NS: CPU time of a reader per read; WAITS: how often readers yielded their core to wait, per million reads;
 * WRITES: number of publications; WRITE_*: duration of one in nanoseconds, including freeing the old object.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#define MAX_READERS 8
#define MAX_WRITES 2000000
#define MAX_BYTES 16384

static unsigned char staple_bytes[MAX_BYTES];
static size_t bytes = 1500;
static X509 *leaf;
static SSL_CTX *ctx;
static atomic_int stop, running;

static void die(const char *what) {
    fprintf(stderr, "bench_callback: %s\n", what);
    exit(1);
}

static double clockNs(clockid_t which) {
    struct timespec ts;

    clock_gettime(which, &ts);
    return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* ---- replaces OpenSSL's allocation while a reader measures ------------------------------------------------------- */

static _Thread_local int spare_allocation;
static _Thread_local unsigned char fixed[MAX_BYTES];

static void *opensslMalloc(size_t size, const char *file, int line) {
    (void)file;
    (void)line;
    return spare_allocation && size <= sizeof(fixed) ? fixed : malloc(size);
}

static void *opensslRealloc(void *old, size_t size, const char *file, int line) {
    (void)file;
    (void)line;
    return realloc(old, size);
}

static void opensslFree(void *memory, const char *file, int line) {
    (void)file;
    (void)line;
    if (memory != fixed) free(memory);
}

/* ---- alternatives for sharing a pointer -------------------------------------------------------------------------- */

typedef struct shareable {
    ocspStapleSet set;
    atomic_long balance; /* refcount: releases, minus acquisitions once the object was replaced */
} shareable;

static shareable *shared_set;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_rwlock_t rwlock = PTHREAD_RWLOCK_INITIALIZER;

/* A pointer with a reference count above its 48 bits: both are read and updated atomically, so that nothing is freed
 * between reading the pointer and taking the reference. */
static atomic_ullong counted_pointer;
#define ONE_HOLDER (1ULL << 48)
#define POINTER_BITS (ONE_HOLDER - 1)

static void shareableFree(shareable *old) {
    if (!old) return;
    X509_free(old->set.staples[0].leaf);
    free(old->set.staples[0].der);
    free(old);
}

static void refcountRelease(shareable *mine) {
    unsigned long long seen = atomic_load(&counted_pointer);

    while ((seen & POINTER_BITS) == (unsigned long long)(uintptr_t)mine)
        if (atomic_compare_exchange_weak(&counted_pointer, &seen, seen - ONE_HOLDER)) return;
    if (atomic_fetch_add(&mine->balance, 1) + 1 == 0) shareableFree(mine);
}

static void refcountPublish(shareable *fresh) {
    unsigned long long seen = atomic_exchange(&counted_pointer, (unsigned long long)(uintptr_t)fresh);
    shareable *old = (shareable *)(uintptr_t)(seen & POINTER_BITS);
    long holders = (long)(seen >> 48);

    if (old && atomic_fetch_sub(&old->balance, holders) - holders == 0) shareableFree(old);
}

/* ---- readers ----------------------------------------------------------------------------------------------------- */

/* Copies the staple: the work that all alternatives share. */
static void copyOut(const ocspStapleSet *set) {
    int i;

    for (i = 0; i < set->count; i++) {
        if (set->staples[i].leaf != leaf) continue;
        memcpy(fixed, set->staples[i].der, set->staples[i].len);
        __asm__ volatile("" : : "r"(fixed) : "memory"); /* keeps the compiler from removing the copy */
        return;
    }
}

static void readCallback(SSL *ssl) {
    if (ocspStatusCallback(ssl, NULL) != SSL_TLSEXT_ERR_OK) die("the callback did not staple");
}

static void readMinimal(SSL *ssl) {
    unsigned char *copy = OPENSSL_malloc(bytes);

    memcpy(copy, staple_bytes, bytes);
    SSL_set_tlsext_status_ocsp_resp(ssl, copy, (long)bytes);
}

static void readSlot(SSL *ssl) {
    int token;

    (void)ssl;
    copyOut(ocspSlotEnter(&token));
    ocspSlotLeave(token);
}

static void readMutex(SSL *ssl) {
    (void)ssl;
    pthread_mutex_lock(&mutex);
    copyOut(&shared_set->set);
    pthread_mutex_unlock(&mutex);
}

static void readRwlock(SSL *ssl) {
    (void)ssl;
    pthread_rwlock_rdlock(&rwlock);
    copyOut(&shared_set->set);
    pthread_rwlock_unlock(&rwlock);
}

static void readRefcount(SSL *ssl) {
    unsigned long long seen = atomic_fetch_add(&counted_pointer, ONE_HOLDER);
    shareable *mine = (shareable *)(uintptr_t)(seen & POINTER_BITS);

    (void)ssl;
    copyOut(&mine->set);
    refcountRelease(mine);
}

/* ---- the writer -------------------------------------------------------------------------------------------------- */

static void fillSet(ocspStapleSet *set) {
    ocspStaple *staple = &set->staples[0];

    set->count = 1;
    X509_up_ref(leaf);
    staple->leaf = leaf;
    staple->expires_at = time(NULL) + 86400;
    staple->len = bytes;
    staple->der = malloc(bytes);
    if (!staple->der) die("out of memory");
    memcpy(staple->der, staple_bytes, bytes);
}

static void *freshSlot(void) {
    ocspStapleSet *set = ocspAlloc(sizeof(*set));

    if (!set) die("out of memory");
    fillSet(set);
    return set;
}

static void *freshShareable(void) {
    shareable *made = calloc(1, sizeof(*made));

    if (!made) die("out of memory");
    fillSet(&made->set);
    return made;
}

static void publishSlot(void *set) {
    ocspSlotPublish(set);
}

static void publishMutex(void *fresh) {
    shareable *old;

    pthread_mutex_lock(&mutex);
    old = shared_set;
    shared_set = fresh;
    pthread_mutex_unlock(&mutex);
    shareableFree(old);
}

static void publishRwlock(void *fresh) {
    shareable *old;

    pthread_rwlock_wrlock(&rwlock);
    old = shared_set;
    shared_set = fresh;
    pthread_rwlock_unlock(&rwlock);
    shareableFree(old);
}

static void publishRefcount(void *fresh) {
    refcountPublish(fresh);
}

/* ---- one measurement --------------------------------------------------------------------------------------------- */

typedef struct way {
    const char *name;
    void (*read)(SSL *ssl);
    void *(*fresh)(void);
    void (*publish)(void *fresh);
    int spare_allocation;
} way;

static const way ways[] = {
    {"callback", readCallback, freshSlot, publishSlot, 1},
    {"malloc", readCallback, freshSlot, publishSlot, 0},
    {"minimal", readMinimal, freshSlot, publishSlot, 1},
    {"slot", readSlot, freshSlot, publishSlot, 1},
    {"mutex", readMutex, freshShareable, publishMutex, 1},
    {"rwlock", readRwlock, freshShareable, publishRwlock, 1},
    {"refcount", readRefcount, freshShareable, publishRefcount, 1},
};

typedef struct reader {
    pthread_t thread;
    const way *way;
    long long reads;
    long waits;
    double cpu_ns;
} reader;

static void *readOn(void *arg) {
    reader *me = arg;
    SSL *ssl = SSL_new(ctx);
    struct rusage usage;
    double began;

    if (!ssl) die("out of memory");
    SSL_set_accept_state(ssl);
    me->way->read(ssl); /* the first read sets up the thread's stripe and OpenSSL's error queue */
    spare_allocation = me->way->spare_allocation;
    me->way->read(ssl); /* the second one the buffer */
    atomic_fetch_add(&running, 1);
    getrusage(RUSAGE_THREAD, &usage);
    me->waits = -usage.ru_nvcsw;
    began = clockNs(CLOCK_THREAD_CPUTIME_ID);
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        me->way->read(ssl);
        me->reads++;
    }
    me->cpu_ns = clockNs(CLOCK_THREAD_CPUTIME_ID) - began;
    getrusage(RUSAGE_THREAD, &usage);
    me->waits += usage.ru_nvcsw;
    spare_allocation = 0;
    SSL_free(ssl);
    return NULL;
}

static float write_ns[MAX_WRITES];

static void *writeOn(void *arg) {
    const way *mine = arg;
    long count = 0;

    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        void *fresh = mine->fresh();
        double began = clockNs(CLOCK_MONOTONIC);
        mine->publish(fresh);
        if (count < MAX_WRITES) write_ns[count++] = (float)(clockNs(CLOCK_MONOTONIC) - began);
    }
    return (void *)count;
}

static int ascending(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;

    return x < y ? -1 : x > y;
}

static void measure(const way *mine, int readers, int with_writer, int millis) {
    reader all[MAX_READERS] = {{0}};
    double reads = 0, cpu = 0, waits = 0, began, wall;
    pthread_t writer;
    void *counted = NULL;
    long writes;
    int i;

    atomic_store(&stop, 0);
    atomic_store(&running, 0);
    mine->publish(mine->fresh());
    for (i = 0; i < readers; i++) {
        all[i].way = mine;
        if (pthread_create(&all[i].thread, NULL, readOn, &all[i]) != 0) die("no thread");
    }
    while (atomic_load(&running) < readers) usleep(100);
    if (with_writer && pthread_create(&writer, NULL, writeOn, (void *)mine) != 0) die("no thread");
    began = clockNs(CLOCK_MONOTONIC);
    usleep((useconds_t)millis * 1000);
    atomic_store(&stop, 1);
    wall = clockNs(CLOCK_MONOTONIC) - began;
    for (i = 0; i < readers; i++) {
        pthread_join(all[i].thread, NULL);
        reads += (double)all[i].reads;
        cpu += all[i].cpu_ns;
        waits += (double)all[i].waits;
    }
    if (with_writer) pthread_join(writer, &counted);
    writes = (long)counted;
    qsort(write_ns, (size_t)writes, sizeof(*write_ns), ascending);
    printf("callback %s %d %d %.1f %.0f %.2f %ld", mine->name, readers, with_writer, cpu / reads, reads / wall * 1e9,
           waits / reads * 1e6, writes);
    if (writes)
        printf(" %.0f %.0f %.0f\n", write_ns[writes / 2], write_ns[writes * 99 / 100], write_ns[writes - 1]);
    else
        printf(" 0 0 0\n");
    fflush(stdout);
}

/* Creates a self-signed certificate: the callback only requires that it is the tracked one. */
static void makeContext(void) {
    EVP_PKEY *key = EVP_EC_gen("P-256");

    leaf = X509_new();
    ctx = SSL_CTX_new(TLS_server_method());
    if (!key || !leaf || !ctx) die("out of memory");
    X509_set_pubkey(leaf, key);
    X509_gmtime_adj(X509_getm_notBefore(leaf), 0);
    X509_gmtime_adj(X509_getm_notAfter(leaf), 86400);
    if (!X509_sign(leaf, key, EVP_sha256()) || !SSL_CTX_use_certificate(ctx, leaf) || !SSL_CTX_use_PrivateKey(ctx, key))
        die("no certificate could be made");
    EVP_PKEY_free(key);
}

int main(int argc, char **argv) {
    static const int readers[] = {1, 2, 4, 8};
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    static const ocspHost host = {0};
    int i, millis = 150, rounds = 5, round, r, w;

    if (!CRYPTO_set_mem_functions(opensslMalloc, opensslRealloc, opensslFree)) die("OpenSSL has allocated already");
    for (i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--bytes") == 0) bytes = (size_t)atoi(argv[i + 1]);
        if (strcmp(argv[i], "--millis") == 0) millis = atoi(argv[i + 1]);
        if (strcmp(argv[i], "--rounds") == 0) rounds = atoi(argv[i + 1]);
    }
    if (bytes < 1 || bytes > MAX_BYTES || millis < 1) die("--bytes is 1 to 16384, --millis 1 or more");
    makeContext();
    options.stapling = 1;
    if (!ocspInit(&host) || !ocspSetOptions(&options)) die("out of memory");
    memset(staple_bytes, 0x30, bytes);
    for (round = 0; round < rounds; round++)
        for (r = 0; r < 4; r++)
            for (w = 0; w < 2; w++)
                for (i = 0; i < (int)(sizeof(ways) / sizeof(*ways)); i++) measure(&ways[i], readers[r], w, millis);
    return 0;
}
