/* test_slot.c - one pointer, many readers, one publisher: readers see whole sets, and a set is freed once no reader can
 * have it and not before. Most telling under SAN=thread and SAN=address; without them the host's free() poisons the
 * memory.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define READERS 8
#define DER_BYTES 2048

/* Sets that exist, and sets that were freed, counted by the host's allocator: a set has a size of its own. */
static atomic_int live_sets, freed_sets;

static void *poisonAlloc(size_t n) {
    size_t *p = malloc(n + 2 * sizeof(size_t));
    if (!p) return NULL;
    p[0] = n;
    if (n == sizeof(ocspStapleSet)) atomic_fetch_add(&live_sets, 1);
    return p + 2;
}

static void poisonFree(void *ptr) {
    if (!ptr) return;
    size_t *p = (size_t *)ptr - 2;
    if (p[0] == sizeof(ocspStapleSet)) {
        atomic_fetch_sub(&live_sets, 1);
        atomic_fetch_add(&freed_sets, 1);
    }
    memset(ptr, 0xdd, p[0]);
    free(p);
}

static void setUp(void) {
    static const ocspHost host = {.alloc = poisonAlloc, .free = poisonFree};
    ocspSetHost(&host);
    atomic_store(&freed_sets, 0);
}

static void tearDown(void) {
    ocspSlotPublish(NULL);
    ocspSetHost(NULL);
}

FIXTURE(setUp, tearDown);

/* A set whose bytes all say `number`. */
static ocspStapleSet *madeSet(int number) {
    ocspStapleSet *set = ocspAlloc(sizeof(*set));
    assert_non_null(set);
    set->count = 2;
    for (int i = 0; i < 2; i++) {
        set->staples[i].expires_at = number;
        set->staples[i].len = DER_BYTES;
        set->staples[i].der = ocspAlloc(DER_BYTES);
        assert_non_null(set->staples[i].der);
        memset(set->staples[i].der, number & 0x7f, DER_BYTES);
    }
    return set;
}

TEST(slot_isEmptyAtFirst) {
    int token;
    assert_null(ocspSlotEnter(&token));
    ocspSlotLeave(token);
}

TEST(slot_readsTheLatestSet) {
    for (int i = 1; i < 100; i++) {
        int token;
        ocspSlotPublish(madeSet(i));
        const ocspStapleSet *set = ocspSlotEnter(&token);
        assert_non_null(set);
        assert_int_equal(set->staples[1].expires_at, i);
        assert_int_equal(set->staples[1].der[DER_BYTES - 1], i);
        ocspSlotLeave(token);
        assert_int_equal(atomic_load(&live_sets), 1); /* bounded memory: the old set is freed already */
    }
    ocspSlotPublish(NULL);
    int token;
    assert_null(ocspSlotEnter(&token));
    ocspSlotLeave(token);
    assert_int_equal(atomic_load(&live_sets), 0);
}

TEST(slot_freesCertificatesWithTheSet) {
    const testPki *pki = testGetPki();
    ocspStapleSet *set = madeSet(1);
    X509_up_ref(pki->leaf);
    set->staples[0].leaf = pki->leaf;
    ocspSlotPublish(set);
    int token;
    const ocspStapleSet *seen = ocspSlotEnter(&token);
    assert_ptr_equal(seen->staples[0].leaf, pki->leaf);
    ocspSlotLeave(token);
    ocspSlotPublish(NULL); /* AddressSanitizer finds a reference too many or too few */
    ocspStapleSetFree(NULL);
}

static void *publishTwo(void *arg) {
    (void)arg;
    ocspSlotPublish(madeSet(2));
    return NULL;
}

TEST(slot_setInUseOutlivesItsReplacement) {
    int reader_token;
    pthread_t publisher;
    ocspSlotPublish(madeSet(1));
    const ocspStapleSet *in_use = ocspSlotEnter(&reader_token);
    assert_int_equal(pthread_create(&publisher, NULL, publishTwo, NULL), 0);

    /* The publisher has swapped the sets and waits for this reader; new readers get the new set at once. */
    for (int seen = 0; !seen;) {
        int token;
        const ocspStapleSet *set = ocspSlotEnter(&token);
        seen = set->staples[0].expires_at == 2;
        ocspSlotLeave(token);
    }
    for (int i = 0; i < 1000; i++) {
        int token;
        assert_int_equal(ocspSlotEnter(&token)->staples[0].expires_at, 2);
        ocspSlotLeave(token);
        assert_int_equal(in_use->staples[0].expires_at, 1);
        for (int k = 0; k < DER_BYTES; k += 64) assert_int_equal(in_use->staples[0].der[k], 1);
    }
    testSleepMs(30); /* a publisher that did not wait would have freed it by now */
    assert_int_equal(atomic_load(&freed_sets), 0);
    assert_int_equal(in_use->staples[1].der[0], 1);
    ocspSlotLeave(reader_token);
    pthread_join(publisher, NULL);
    assert_int_equal(atomic_load(&freed_sets), 1);
}

/* ---- 8 readers and a publisher without pause --------------------------------------------------------------------- */

static atomic_int stop, torn, backwards;
static atomic_llong reads;

static void *readOn(void *arg) {
    time_t last = 0;
    (void)arg;
    while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
        int token;
        const ocspStapleSet *set = ocspSlotEnter(&token);
        unsigned char copy[2][DER_BYTES];
        time_t number = set ? set->staples[0].expires_at : 0;
        for (int i = 0; set && i < 2; i++) memcpy(copy[i], set->staples[i].der, set->staples[i].len);
        ocspSlotLeave(token);
        /* Looked at outside, as handshakes do: a reader that is always inside makes the publisher wait for the
         * scheduler, and nothing more is seen. */
        if (number < last) atomic_fetch_add(&backwards, 1);
        last = number;
        for (int k = 0; set && k < 2 * DER_BYTES; k++) {
            if (((unsigned char *)copy)[k] != (number & 0x7f)) {
                atomic_fetch_add(&torn, 1);
                break;
            }
        }
        if (set) atomic_fetch_add_explicit(&reads, 1, memory_order_relaxed);
    }
    return NULL;
}

TEST(slot_eightReadersAndABusyPublisher) {
    pthread_t readers[READERS];
    long publications = testEnvNumber("OCSP_TEST_PUBLICATIONS", 3000);
    int most = 0;
    atomic_store(&stop, 0);
    for (int i = 0; i < READERS; i++) assert_int_equal(pthread_create(&readers[i], NULL, readOn, NULL), 0);
    for (long n = 1; n <= publications; n++) {
        ocspSlotPublish(madeSet((int)n));
        int now = atomic_load(&live_sets);
        if (now > most) most = now;
    }
    testWaitFor(atomic_load(&reads) > 1000);
    atomic_store(&stop, 1);
    for (int i = 0; i < READERS; i++) pthread_join(readers[i], NULL);
    assert_int_equal(atomic_load(&torn), 0);
    assert_int_equal(atomic_load(&backwards), 0);
    assert_int_equal(most, 1); /* after each publication only what was published exists */
    assert_int_equal(atomic_load(&freed_sets), publications - 1);
}

/* Readers that come and go as threads, more of them than there are stripes. */
static void *readOnce(void *arg) {
    int token;
    const ocspStapleSet *set = ocspSlotEnter(&token);
    if (!set || set->staples[0].der[0] != (set->staples[0].expires_at & 0x7f)) atomic_fetch_add(&torn, 1);
    ocspSlotLeave(token);
    ocspCountHandshake(arg != NULL);
    return NULL;
}

TEST(slot_moreThreadsThanStripes) {
    long long stapled, unstapled, stapled_before, unstapled_before;
    ocspSumHandshakes(&stapled_before, &unstapled_before);
    ocspSlotPublish(madeSet(1));
    for (int generation = 0; generation < 5; generation++) {
        pthread_t threads[40];
        for (int i = 0; i < 40; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, readOnce, i % 4 ? &threads : NULL), 0);
        }
        ocspSlotPublish(madeSet(generation + 2));
        for (int i = 0; i < 40; i++) pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&torn), 0);
    ocspSumHandshakes(&stapled, &unstapled);
    assert_int_equal(stapled - stapled_before, 150);
    assert_int_equal(unstapled - unstapled_before, 50);
}

static void *countMany(void *arg) {
    (void)arg;
    for (int i = 0; i < 10000; i++) ocspCountHandshake(i % 5 != 0);
    return NULL;
}

TEST(counters_sumOverAllThreads) {
    pthread_t threads[READERS];
    long long stapled, unstapled, stapled_before, unstapled_before;
    ocspSumHandshakes(&stapled_before, &unstapled_before);
    for (int i = 0; i < READERS; i++) assert_int_equal(pthread_create(&threads[i], NULL, countMany, NULL), 0);
    for (int i = 0; i < READERS; i++) pthread_join(threads[i], NULL);
    ocspSumHandshakes(&stapled, &unstapled);
    assert_int_equal(stapled - stapled_before, READERS * 8000);
    assert_int_equal(unstapled - unstapled_before, READERS * 2000);
}
