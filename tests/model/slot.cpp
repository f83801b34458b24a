/* slot.cpp - src/ocsp_slot.c itself under C11's memory model, by Relacy (Debian: relacy-dev): see tests/model/run.
 *
 * Relacy runs the threads below as coroutines. It chooses where each is interrupted, and which of the values that C11
 * allows each load returns, also old ones. ThreadSanitizer, and a run on one processor, show
 * neither. Relacy also finds data races: here between a reader's copy and the publisher's free.
 *
 * The code under test is the C file, compiled as C++ inside the struct `slot`: its variables become members, made anew
 * for each execution. tests/model/run makes the copy that is included (SLOT), with two stripes; mutants have one weaker
 * memory order each, and have to be found.
 *
 * usage: slot PREEMPTIONS   explores each execution in which threads are interrupted at most that often. The numbers of
 *                           readers, of copies that each makes, and of sets that are published: READERS, TURNS, SETS.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <pthread.h>
#include <relacy/relacy.hpp>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* ---- in place of ocsp_internal.h --------------------------------------------------------------------------------- */

#define OCSP_INTERNAL_H
#define OCSP_SUPPORTED 1

/* An int whose accesses Relacy checks for races. */
struct checkedInt {
    rl::var<int> value;
    void operator=(int number) { value(RL_INFO) = number; }
    void operator++(int) { *this = *this + 1; }
    operator int() const { return const_cast<rl::var<int> &>(value)(RL_INFO); }
};

struct X509;
struct X509_STORE;
static void X509_up_ref(X509 *) {}
static void X509_free(X509 *) {}
static void X509_STORE_free(X509_STORE *) {}

struct ocspStaple {
    X509 *leaf, *issuer;
    unsigned char *der;
    size_t len;
};

struct ocspStapleSet {
    checkedInt count; /* what readers read and the free overwrites: -1 is a freed set */
    X509_STORE *store;
    ocspStaple staples[1];
};

/* ---- in place of stdatomic.h and the system ---------------------------------------------------------------------- */

#define atomic_uint rl::atomic<unsigned>
#define atomic_llong rl::atomic<long long>
#define _Atomic(type) rl::atomic<type>
#define _Alignas(bytes)
#define memory_order_relaxed rl::mo_relaxed
#define memory_order_acquire rl::mo_acquire
#define memory_order_release rl::mo_release
#define memory_order_acq_rel rl::mo_acq_rel
#define memory_order_seq_cst rl::mo_seq_cst
#define atomic_load_explicit(object, order) (object)->load(order, RL_INFO)
#define atomic_store_explicit(object, value, order) (object)->store(value, order, RL_INFO)
#define atomic_fetch_add_explicit(object, value, order) (object)->fetch_add(value, order, RL_INFO)
#define atomic_fetch_sub_explicit(object, value, order) (object)->fetch_sub(value, order, RL_INFO)
#define atomic_exchange_explicit(object, value, order) (object)->exchange(value, order, RL_INFO)
#define pthread_self() static_cast<uintptr_t>(rl::thread_index())
#define sched_yield() rl::yield(1, RL_INFO)
#define nanosleep(time, rest) rl::yield(1, RL_INFO)

/* ---- the threads: readers 0 to READERS - 1, then the publisher --------------------------------------------------- */

struct slot : rl::test_suite<slot, READERS + 1> {
    ocspStapleSet sets[SETS + 1];
    int live;

    ocspStapleSet *ocspAlloc(size_t) { return NULL; }
    unsigned char *ocspMemdup(const unsigned char *, size_t) { return NULL; }
    void ocspFree(unsigned char *) {}
    void ocspFree(ocspStapleSet *set) {
        set->count = -1;
        live--;
    }

#define static
#include SLOT
#undef static

    void publish(int i) {
        sets[i].count = i + 1;
        live++;
        ocspSlotPublish(&sets[i]);
        RL_ASSERT(live == 1); /* the old set is freed when the publisher returns */
    }

    void before() {
        for (ocspStripe &stripe : stripes) stripe.readers.store(0, rl::mo_relaxed, RL_INFO);
        current.store(NULL, rl::mo_relaxed, RL_INFO);
        live = 0;
        publish(0);
    }

    void thread(unsigned index) {
        if (index == READERS) {
            for (int i = 1; i <= SETS; i++) publish(i);
            return;
        }
        for (int i = 0, newest = 0; i < TURNS; i++) {
            int token;
            const ocspStapleSet *set = ocspSlotEnter(&token);
            RL_ASSERT(set->count > 0);       /* -1: it was freed before */
            RL_ASSERT(set->count >= newest); /* or while it is in use; a reader sees no older set than before */
            newest = set->count;
            ocspSlotLeave(token);
        }
    }
};

int main(int argc, char **argv) {
    rl::test_params params;
    params.search_type = rl::sched_bound;
    params.context_bound = argc > 1 ? atoi(argv[1]) : 3;
    return !rl::simulate<slot>(params);
}
