/* ocsp_slot.c - one pointer that handshakes read without a lock and the OCSP thread replaces.
 *
 * A reader announces itself in a counter, loads the pointer, copies what it needs and takes the announcement back. The
 * publisher swaps the pointer and frees the old object once no reader can hold it.
 *
 * WHY IT IS SAFE. Say that a reader R holds the old object. R's increment (A) comes before its load (B) of the pointer,
 * and B came before the publisher's exchange (C), or it would have loaded the new one. A, B, C and the publisher's
 * looks at the counters (D) are all seq_cst, so in their one order A < B < C < D: each D on R's counter sees it above
 * zero until R's decrement (E). So a counter seen at zero once after C has no reader of the old object left, and
 * when each counter was seen at zero once, at whatever different times, nobody has. D reading the value that E wrote
 * (acquire/release) makes R's last access happen before the free.
 * WHY IT ENDS. There are two counters ("parities"). The publisher first points new readers to the other one, then
 * waits for this one, then the same with the roles changed: it waits for readers that had begun before, never for
 * newcomers, and for no longer than they copy. A reader that was suspended between choosing a parity and announcing
 * itself costs the publisher a moment more and nothing else: the argument above does not use the parities.
 * MEMORY. The publisher returns only when the old object is freed: there are never more than two.
 *
 * The counters are spread over stripes, a cache line each, so that readers on different cores do not contend.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <pthread.h>
#include <sched.h>
#include <time.h>

#define OCSP_STRIPES 64 /* threads that share a stripe lose time, and nothing else */
#define OCSP_CACHE_LINE 64

typedef struct ocspStripe {
    _Alignas(OCSP_CACHE_LINE) atomic_uint readers[2];
    atomic_llong stapled, unstapled;
} ocspStripe;

static ocspStripe stripes[OCSP_STRIPES]; /* written by the readers that share one, read by the publisher */
static _Atomic(ocspStapleSet *) current; /* written by the publisher, read by readers */
static atomic_uint parity;               /* where new readers announce themselves; written by the publisher */

/* The stripe of the calling thread, 0 to OCSP_STRIPES - 1. Any thread. Computed from the thread's identity rather than
 * kept in thread-local storage: that of a library which was loaded at run time is allocated at a thread's first access,
 * and glibc ends the process when it lacks the memory ("cannot allocate memory for thread-local data: ABORT"). */
static unsigned ocspMyStripe(void) {
    /* Multiplicative hashing: the upper bits of the product depend on all bits of the identity. */
    return (unsigned)(((uint64_t)(uintptr_t)pthread_self() * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % OCSP_STRIPES;
}

/* A token holds what the reader announced itself in: the stripe and the side of it. */
static atomic_uint *ocspReaders(int token) {
    return &stripes[token >> 1].readers[token & 1];
}

const ocspStapleSet *ocspSlotEnter(int *token) {
    /* relaxed: a stale parity is harmless, see above */
    unsigned side = atomic_load_explicit(&parity, memory_order_relaxed) & 1;

    *token = (int)(ocspMyStripe() << 1 | side);
    atomic_fetch_add_explicit(ocspReaders(*token), 1, memory_order_seq_cst); /* A, pairs with D */
    return atomic_load_explicit(&current, memory_order_seq_cst);             /* B, pairs with C */
}

void ocspSlotLeave(int token) {
    /* E: release, pairs with the acquire in D, so that nothing of the copy moves behind the free */
    atomic_fetch_sub_explicit(ocspReaders(token), 1, memory_order_release);
}

void ocspSlotPublish(ocspStapleSet *set) {
    /* C: release hands the new object's contents to B; seq_cst puts it in one order with A, B and D */
    ocspStapleSet *old = atomic_exchange_explicit(&current, set, memory_order_seq_cst);
    int pass, i;

    if (!old) return;
    for (pass = 0; pass < 2; pass++) {
        /* relaxed: only the publisher writes it */
        unsigned side = atomic_fetch_add_explicit(&parity, 1, memory_order_relaxed) & 1;
        for (i = 0; i < OCSP_STRIPES; i++) {
            int looks = 0;
            /* D: seq_cst against A (see above); its acquire pairs with E */
            while (atomic_load_explicit(&stripes[i].readers[side], memory_order_seq_cst) != 0) {
                struct timespec nap = {0, 50000};
                if (++looks < 64)
                    sched_yield();
                else
                    nanosleep(&nap, NULL); /* the reader lost its core: give ours away instead of spinning */
            }
        }
    }
    ocspStapleSetFree(old);
}

void ocspStapleSetFree(ocspStapleSet *set) {
    int i;

    if (!set) return;
    for (i = 0; i < set->count; i++) {
        X509_free(set->staples[i].leaf);
        ocspFree(set->staples[i].der);
    }
    ocspFree(set);
}

void ocspCountHandshake(int stapled) {
    ocspStripe *mine = &stripes[ocspMyStripe()];

    /* relaxed: a statistic */
    atomic_fetch_add_explicit(stapled ? &mine->stapled : &mine->unstapled, 1, memory_order_relaxed);
}

void ocspSumHandshakes(long long *stapled, long long *unstapled) {
    int i;

    *stapled = *unstapled = 0;
    for (i = 0; i < OCSP_STRIPES; i++) {
        *stapled += atomic_load_explicit(&stripes[i].stapled, memory_order_relaxed);
        *unstapled += atomic_load_explicit(&stripes[i].unstapled, memory_order_relaxed);
    }
}

#endif /* OCSP_SUPPORTED */
