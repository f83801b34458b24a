/* delayed.h - put before ocsp_slot.c (-include): a reader that has loaded the pointer is held up at random before it
 * uses it, as if it had loaded it earlier. Readers are then often in the copy while the publisher replaces the set, and
 * ThreadSanitizer sees whether it waits for them. Used by test_slot_delayed, under SAN=thread (tests/rules.mk).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

/* Every eighth time long enough for the publisher to replace the set, often a yield, else nothing. */
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
#define atomic_load_explicit(object, order)                        \
    __extension__({                                                \
        __auto_type loaded_value = __atomic_load_n(object, order); \
        if (sizeof(*(object)) == sizeof(void *)) delayedUse();     \
        loaded_value;                                              \
    })
