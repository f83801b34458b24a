/* delayed.h - put before ocsp_slot.c (-include): a reader that has loaded the parity (relaxed) or the pointer is held up
 * at random before it uses it, so that the value is old. ThreadSanitizer gives each load the newest value; with this, a
 * reader often announces itself with a stale parity, and copies late. The publisher's loads of the counters are not
 * delayed. Used by test_slot_delayed, under SAN=thread (tests/rules.mk).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

/* Every eighth time long enough for the publisher to change the parity, often a yield, else nothing. */
static inline void delayedUse(void) {
    static _Thread_local uint32_t state;
    struct timespec nap = {0, 20000};

    state = state * 1664525u + 1013904223u + (uint32_t)(uintptr_t)&state;
    if (state >> 29 == 0)
        nanosleep(&nap, NULL);
    else if (state >> 31)
        sched_yield();
}

#undef atomic_load_explicit
#define atomic_load_explicit(object, order)                                                       \
    __extension__({                                                                               \
        __auto_type loaded_value = __atomic_load_n(object, order);                                \
        if ((order) == memory_order_relaxed || sizeof(*(object)) == sizeof(void *)) delayedUse(); \
        loaded_value;                                                                             \
    })
