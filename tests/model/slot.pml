/* slot.pml - a Promela model of src/ocsp_slot.c, explored in full by Spin: `sh tests/model/run`.
 *
 * The model has three readers on two stripes and any number of generations: the publisher never stops and reuses two
 * places of memory. Spin proves that
 *   - no reader accesses a freed object, and no object is freed while a reader uses it (the assertions);
 *   - there are never more than two objects (the publisher always finds one of two places free);
 *   - no counter falls below zero, and nothing deadlocks;
 *   - the publisher finishes once the readers pause: with -DPAUSING each makes two reads and then none (no cycle without a
 *     `progress` label, under weak fairness). Readers that never pause could make it miss each moment at which a counter is
 *     zero, which in the server has the probability 0.
 * The letters A to E are those of the comment at the head of ocsp_slot.c. One Promela statement is one atomic step, and
 * all steps are in one total order, as seq_cst guarantees for A, B, C and D. A weaker one is modelled separately:
 *   - E is a release and D an acquire: the copy ends before E and the free follows D, in the order of the statements
 *     here.
 * Not proved: that the memory orders in the C file are strong enough for this, which slot.cpp and the litmus tests show,
 * and that 16 stripes behave like two (the publisher checks stripes one after another in both cases).
 *
 * Each -DMUTANT_... breaks one rule. tests/model/run requires Spin to find every mutant: a model that cannot fail
 * proves nothing.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define READERS 3
#define STRIPES 2 /* readers 0 and 2 share one, as with more threads than OCSP_STRIPES */
#define NONE 0    /* the pointer NULL; objects are the places 1 and 2 */

byte current = NONE;           /* _Atomic(ocspStapleSet *) current */
byte announced[STRIPES];       /* stripes[i].readers */
bool allocated[3];             /* whether the place is allocated; [NONE] is not used */
byte in_use[READERS] = NONE;   /* the pointer that a reader uses from B to E: for the assertions, not in the C file */
#ifdef MUTANT_STALE_LOAD
byte before = NONE;            /* what `current` was before the last exchange */
#endif

#define MINE announced[me % STRIPES]

/* The copy takes more than one step, so that a free can occur in between. */
inline copy() {
    if
    :: in_use[me] != NONE ->
        assert(allocated[in_use[me]]); /* the staple is looked up ... */
        assert(allocated[in_use[me]])  /* ... and its bytes are copied */
    :: else                          /* nothing was ever published: ocspSlotEnter returned NULL */
    fi
}

/* B: atomic_load_explicit(&current, seq_cst) */
inline load() {
#ifdef MUTANT_STALE_LOAD
    if /* B weaker than seq_cst: the value from before C may still be seen */
    :: in_use[me] = current
    :: in_use[me] = before
    fi
#else
    in_use[me] = current
#endif
}

/* E: atomic_fetch_sub_explicit(&stripes[token].readers, 1, release) */
inline leave() {
    atomic {
        assert(MINE > 0); /* an unsigned counter would wrap and block the publisher forever */
#ifndef MUTANT_LEAVE_NOT
        MINE--;
#endif
#ifndef MUTANT_LEAVE_BEFORE_COPY
        in_use[me] = NONE; /* clears the pointer, which only reduces the number of states */
#endif
        skip
    }
}

/* Handshakes: ocspSlotEnter, the copy, ocspSlotLeave; any number of them, with pauses of any length. */
active [READERS] proctype reader() {
    byte me = _pid;
#ifdef PAUSING
    byte left = 2;
    do
    :: left == 0 -> break
    :: left > 0 -> left--;
#else
    do
    :: break /* no more handshakes on this thread, ever */
    ::
#endif
#ifdef MUTANT_LOAD_BEFORE_ANNOUNCE
        load(); /* B before A */
        MINE++;
#else
        MINE++; /* A: atomic_fetch_add_explicit(&stripes[*token].readers, 1, seq_cst) */
        load();
#endif
#ifdef MUTANT_LEAVE_BEFORE_COPY
        leave(); /* the copy is reordered after E, which release forbids */
        copy();
        in_use[me] = NONE
#else
        copy();
        leave()
#endif
    od
}

#ifdef MUTANT_ONE_STRIPE
#define CHECKED 1 /* the loop over the stripes ends too early */
#else
#define CHECKED STRIPES
#endif

inline wait_for_readers() {
    i = 0; /* for (i = 0; i < OCSP_STRIPES; i++) */
    do
    :: i < CHECKED ->
        do /* D: while (atomic_load_explicit(&stripes[i].readers, seq_cst) != 0) */
        :: announced[i] == 0 -> break
#ifdef MUTANT_STALE_COUNT
        :: true -> break /* D weaker than seq_cst: an announcement may not be seen yet */
#endif
        :: else -> skip  /* sched_yield, nanosleep: checks again, and may miss a moment at which it was zero */
        od;
        i++
    :: else -> break
    od;
    i = 0
}

/* ocspStapleSetFree(old) */
inline release(object) {
    d_step {
        assert(in_use[0] != object && in_use[1] != object && in_use[2] != object);
        allocated[object] = false
    }
}

/* C: old = atomic_exchange_explicit(&current, set, seq_cst) */
inline exchange() {
    atomic {
        old = current;
        current = fresh;
#ifdef MUTANT_STALE_LOAD
        before = old;
#endif
        fresh = NONE
    }
}

/* The OCSP thread: creates a set and calls ocspSlotPublish, forever. */
active proctype publisher() {
    byte fresh = NONE, old = NONE, i = 0;
    do
    ::
        d_step { /* the caller's ocspAlloc; a place is always free, as there are never more than two objects */
            fresh = (allocated[1] -> 2 : 1);
            assert(!allocated[fresh]);
            allocated[fresh] = true
        };
#ifdef MUTANT_WAIT_BEFORE_SWAP
        wait_for_readers(); /* D before C */
        exchange();
        if
        :: old != NONE -> release(old)
        :: else
        fi;
#else
        exchange();
        if
        :: old == NONE /* if (!old) return; */
        :: else ->
#ifdef MUTANT_FREE_BEFORE_WAIT
            release(old);
            wait_for_readers()
#else
            wait_for_readers();
#ifndef MUTANT_NEVER_FREE
            release(old)
#endif
#endif
        fi;
#endif
        old = NONE;
progress:
        skip /* ocspSlotPublish has returned */
    od
}
