/* slot.pml - a Promela model of src/ocsp_slot.c, explored in full by Spin: `sh tests/model/run`.
 *
 * What it proves, for three readers on two stripes and any number of generations (the publisher never stops, and two
 * places of memory are used again and again):
 *   - no reader touches an object that was freed, and none is freed in a reader's hands (the assertions);
 *   - there are never more than two objects (the publisher finds a free place among two each time);
 *   - no counter falls below zero, nothing deadlocks;
 *   - the publisher always comes to its end, whatever readers do, as long as each of them is given a core now and then
 *     (no cycle without a `progress` label, under weak fairness).
 * The letters A to E are those of the comment at the head of ocsp_slot.c. One Promela statement is one atomic step, and
 * all steps stand in one order: that is what seq_cst promises for A, B, C and D. What is weaker is modelled apart:
 *   - the load of `parity`, relaxed: with -DANY_PARITY it returns any value at all, more than C's memory model allows.
 *     Safety is proved with it. Progress needs a load that sees a new parity at some time: there it sees the last one.
 *   - E, a release, against D, an acquire: the copy's end comes before E and the free after D, as they stand here.
 * What it does not prove: that the compiler and the machine keep those promises (ThreadSanitizer and the stress test
 * look at that), and that 64 stripes behave as two do (the publisher looks at them one after another, in both cases).
 *
 * Each -DMUTANT_... breaks one rule. tests/model/run wants Spin to find every one: a model that cannot fail shows
 * nothing.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define READERS 3
#define STRIPES 2 /* readers 0 and 2 share one: OCSP_STRIPES with more threads than stripes */
#define NONE 0    /* the pointer NULL; objects are the places 1 and 2 */

byte current = NONE;           /* _Atomic(ocspStapleSet *) current */
bit parity = 0;                /* atomic_uint parity, of which only the last bit is ever used */
byte announced[STRIPES * 2];   /* stripes[i].readers[side], at 2 * i + side */
bool allocated[3];             /* what malloc knows; [NONE] is not used */
byte held[READERS] = NONE;     /* the pointer that a reader holds from B to E: for the assertions, not in the C file */
#ifdef MUTANT_STALE_LOAD
byte before = NONE;            /* what `current` was before the last exchange */
#endif

#define MINE announced[2 * (me % STRIPES) + side]

/* The copy is made in more than one step, so that a free can come in its middle. */
inline copy() {
    if
    :: held[me] != NONE ->
        assert(allocated[held[me]]); /* the staple is looked up ... */
        assert(allocated[held[me]])  /* ... and its bytes are copied */
    :: else                          /* nothing was ever published: ocspSlotEnter returned NULL */
    fi
}

/* B: atomic_load_explicit(&current, seq_cst) */
inline load() {
#ifdef MUTANT_STALE_LOAD
    if /* B weaker than seq_cst: the value from before C may still be seen */
    :: held[me] = current
    :: held[me] = before
    fi
#else
    held[me] = current
#endif
}

/* E: atomic_fetch_sub_explicit(&ocspMyStripe()->readers[token], 1, release) */
inline leave() {
#ifdef MUTANT_LEAVE_BY_PARITY
    side = parity; /* the token is not kept: the counter of the moment is taken down */
#endif
    atomic {
        assert(MINE > 0); /* an unsigned counter would wrap and hold the publisher up for ever */
        MINE--;
#ifndef MUTANT_LEAVE_BEFORE_COPY
        held[me] = NONE; /* the reader forgets its pointer */
#endif
        side = 0         /* and its token; both only make equal states equal */
    }
}

/* A handshake: ocspSlotEnter, the copy, ocspSlotLeave; as many as it likes, with pauses of any length. */
active [READERS] proctype reader() {
    byte me = _pid;
    bit side = 0;
    do
    :: break /* no more handshakes on this thread, ever */
    ::
#ifdef ANY_PARITY
        if /* side = atomic_load_explicit(&parity, relaxed) & 1, as stale as can be */
        :: side = 0
        :: side = 1
        fi;
#else
        side = parity; /* the same load; the reader may be suspended after it for as long as it likes */
#endif
#ifdef MUTANT_LOAD_BEFORE_ANNOUNCE
        load(); /* B before A */
        MINE++;
#else
        MINE++; /* A: atomic_fetch_add_explicit(&ocspMyStripe()->readers[side], 1, seq_cst) */
        load();
#endif
#ifdef MUTANT_LEAVE_BEFORE_COPY
        leave(); /* what a release in E forbids: the copy sinks below it */
        copy();
        held[me] = NONE
#else
        copy();
        leave()
#endif
    od
}

#ifdef MUTANT_ONE_STRIPE
#define LOOKED_AT 1 /* the loop over the stripes ends too early */
#else
#define LOOKED_AT STRIPES
#endif

/* One pass of the loop in ocspSlotPublish: newcomers are pointed to the other side, then this one is waited for. */
inline wait_for_one_side() {
#ifdef MUTANT_NO_FLIP
    was = pass; /* each side is waited for, but newcomers go on announcing themselves where they did */
#else
    atomic { was = parity; parity = 1 - parity }; /* side = atomic_fetch_add_explicit(&parity, 1, relaxed) & 1 */
#endif
    i = 0; /* for (i = 0; i < OCSP_STRIPES; i++) */
    do
    :: i < LOOKED_AT ->
        do /* D: while (atomic_load_explicit(&stripes[i].readers[side], seq_cst) != 0) */
        :: announced[2 * i + was] == 0 -> break
#ifdef MUTANT_STALE_COUNT
        :: true -> break /* D weaker than seq_cst: an announcement may not be seen yet */
#endif
        :: else -> skip  /* sched_yield, nanosleep: looks again, and may miss a moment at which it was zero */
        od;
        i++
    :: else -> break
    od;
    i = 0; was = 0
}

inline wait_for_readers() {
    pass = 0;
    wait_for_one_side(); /* pass 0 */
#ifndef MUTANT_ONE_PASS
    pass = 1;
    wait_for_one_side(); /* pass 1, the roles changed */
#endif
    pass = 0
}

/* ocspStapleSetFree(old) */
inline release(object) {
    d_step {
        assert(held[0] != object && held[1] != object && held[2] != object);
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

/* The OCSP thread: makes a set and calls ocspSlotPublish, for ever. */
active proctype publisher() {
    byte fresh = NONE, old = NONE, i = 0;
    bit pass = 0, was = 0;
    do
    ::
        d_step { /* the caller's ocspAlloc; that a place is free says that there are never more than two objects */
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
