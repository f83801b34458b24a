/* ocsp_slot.c - one pointer that handshakes read without a lock and the OCSP thread replaces.
 *
 * A reader announces itself in a counter, loads the pointer, copies what it needs and withdraws the announcement. The
 * publisher exchanges the pointer and frees the old object once no reader can use it.
 *
 * SAFETY. Let a reader R use the old object. R's increment (A) precedes its load (B) of the pointer, and B preceded the
 * publisher's exchange (C), or it would have loaded the new pointer. A, B, C and the publisher's loads of the counters
 * (D) are all seq_cst, so in their single total order A < B < C < D: each D on R's counter sees it above zero until R's
 * decrement (E). So a counter seen at zero once after C has no reader of the old object left, and once each counter was
 * seen at zero, at whatever different times, no reader has the old object. As D reads the value that E wrote
 * (acquire/release), R's last access happens before the free.
 * PROGRESS. Readers never wait. The publisher waits for a moment at which no thread of a stripe is reading: a thread reads
 * for some 20 ns of a handshake, which takes it a thousand times as long.
 * MEMORY. The publisher returns only when the old object is freed: there are never more than two.
 *
 * The counters are spread over stripes, a cache line each, so that readers on different cores do not contend.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <pthread.h>
#include <sched.h>
#include <time.h>

#define OCSP_STRIPES 16 /* threads that share a stripe contend, with no other effect */
#define OCSP_CACHE_LINE 64

typedef struct ocspStripe {
    _Alignas(OCSP_CACHE_LINE) atomic_uint readers;
    atomic_llong stapled, unstapled, chain;
} ocspStripe;

static ocspStripe stripes[OCSP_STRIPES]; /* written by the readers that share one, read by the publisher */
static _Atomic(ocspStapleSet *) current; /* written by the publisher, read by readers */

/* Returns the stripe of the calling thread, 0 to OCSP_STRIPES - 1. Any thread. Computed from the thread's identity
 * rather than kept in thread-local storage: that of a library loaded at run time is allocated at a thread's first
 * access, and glibc aborts the process if memory has run out ("cannot allocate memory for thread-local data:
 * ABORT"). */
static unsigned ocspMyStripe(void) {
    /* Multiplicative hashing: the upper bits of the product depend on all bits of the identity. */
    return (unsigned)(((uint64_t)(uintptr_t)pthread_self() * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % OCSP_STRIPES;
}

const ocspStapleSet *ocspSlotEnter(int *token) {
    *token = (int)ocspMyStripe();
    atomic_fetch_add_explicit(&stripes[*token].readers, 1, memory_order_seq_cst); /* A, pairs with D */
    return atomic_load_explicit(&current, memory_order_seq_cst);                  /* B, pairs with C */
}

void ocspSlotLeave(int token) {
    /* E: release, pairs with the acquire in D, so that no access of the copy is reordered after the free */
    atomic_fetch_sub_explicit(&stripes[token].readers, 1, memory_order_release);
}

void ocspSlotPublish(ocspStapleSet *set) {
    /* C: release publishes the new object's contents to B; seq_cst puts C in one total order with A, B and D */
    ocspStapleSet *old = atomic_exchange_explicit(&current, set, memory_order_seq_cst);
    int i;

    if (!old) return;
    for (i = 0; i < OCSP_STRIPES; i++) {
        int polls = 0;
        /* D: seq_cst against A (see the top of the file); its acquire pairs with E */
        while (atomic_load_explicit(&stripes[i].readers, memory_order_seq_cst) != 0) {
            struct timespec nap = {0, 50000};
            if (++polls < 64)
                sched_yield();
            else
                nanosleep(&nap, NULL); /* the reader lost its core: sleep instead of spinning */
        }
    }
    ocspStapleSetFree(old);
}

int ocspSlotCopy(ocspStapleSet **copy) {
    const ocspStapleSet *set;
    ocspStapleSet *mine = ocspAlloc(sizeof(*mine));
    int token, i, ok = mine != NULL;

    *copy = NULL;
    set = ocspSlotEnter(&token);
    for (i = 0; set && ok && i < set->count; i++) {
        ocspStaple *staple = &mine->staples[i];
        *staple = set->staples[i];
        X509_up_ref(staple->leaf);
        if (staple->issuer) X509_up_ref(staple->issuer);
        if (staple->der) staple->der = ocspMemdup(staple->der, staple->len);
        ok = staple->der || !set->staples[i].der;
        mine->count++;
    }
    ocspSlotLeave(token);
    if (ok && set)
        *copy = mine;
    else
        ocspStapleSetFree(mine);
    return ok;
}

void ocspStapleSetFree(ocspStapleSet *set) {
    int i;

    if (!set) return;
    for (i = 0; i < set->count; i++) {
        X509_free(set->staples[i].leaf);
        X509_free(set->staples[i].issuer);
        ocspFree(set->staples[i].der);
    }
    X509_STORE_free(set->store);
    ocspFree(set);
}

void ocspCountHandshake(int stapled) {
    ocspStripe *stripe = &stripes[ocspMyStripe()];

    /* relaxed: a statistic */
    atomic_fetch_add_explicit(stapled ? &stripe->stapled : &stripe->unstapled, 1, memory_order_relaxed);
}

void ocspCountChain(void) {
    atomic_fetch_add_explicit(&stripes[ocspMyStripe()].chain, 1, memory_order_relaxed); /* a statistic */
}

long long ocspSumChain(void) {
    long long sum = 0;
    int i;

    for (i = 0; i < OCSP_STRIPES; i++) sum += atomic_load_explicit(&stripes[i].chain, memory_order_relaxed);
    return sum;
}

void ocspSumHandshakes(long long *stapled, long long *unstapled) {
    int i;

    *stapled = *unstapled = 0;
    for (i = 0; i < OCSP_STRIPES; i++) {
        *stapled += atomic_load_explicit(&stripes[i].stapled, memory_order_relaxed);
        *unstapled += atomic_load_explicit(&stripes[i].unstapled, memory_order_relaxed);
    }
}

/* A handshake that ends meanwhile is counted before or after. */
void ocspResetHandshakes(void) {
    int i;

    for (i = 0; i < OCSP_STRIPES; i++) {
        atomic_store_explicit(&stripes[i].stapled, 0, memory_order_relaxed);
        atomic_store_explicit(&stripes[i].unstapled, 0, memory_order_relaxed);
        atomic_store_explicit(&stripes[i].chain, 0, memory_order_relaxed);
    }
}

#endif /* OCSP_SUPPORTED */
