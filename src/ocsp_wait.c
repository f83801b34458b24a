/* ocsp_wait.c - callers that wait for a refresh or for a pushed response, see ocsp_wait.h. Not in a patched server.
 *
 * DESIGN: a mutex protects the list of waiters. Main holds it while it makes the request and lists the waiter, so that the
 * OCSP thread, which may be faster, finds the waiter.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_wait.h"
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <pthread.h>
#include <stdio.h>

typedef struct ocspWaiter {
    ocspAnswerKind kind;
    unsigned number; /* of the request */
    ocspRefreshDone *done;
    void *arg;
    struct ocspWaiter *next;
} ocspWaiter;

static pthread_mutex_t waiters_lock = PTHREAD_MUTEX_INITIALIZER;
static ocspWaiter *waiters; /* newest first; protected by waiters_lock */

/* Returns a waiter, which the caller lists or frees; NULL when out of memory, with the reason in `why`. */
static ocspWaiter *ocspWaiterNew(ocspAnswerKind kind, ocspRefreshDone *done, void *arg, char *why, size_t why_size) {
    ocspWaiter *waiter = ocspAlloc(sizeof(*waiter));

    if (!waiter) {
        snprintf(why, why_size, "out of memory");
        return NULL;
    }
    waiter->kind = kind;
    waiter->done = done;
    waiter->arg = arg;
    return waiter;
}

/* Lists `waiter` if the request got a number, or frees it. Returns 1 or 0. With waiters_lock. */
static int ocspWaitFor(ocspWaiter *waiter, unsigned number) {
    if (number && waiter->done) {
        waiter->number = number;
        waiter->next = waiters;
        waiters = waiter;
    } else {
        ocspFree(waiter);
    }
    return number != 0;
}

int ocspRequestRefreshThen(ocspRefreshDone *done, void *arg, char *why, size_t why_size) {
    ocspWaiter *waiter = ocspWaiterNew(OCSP_ANSWER_REFRESH, done, arg, why, why_size);
    int ok;

    if (!waiter) return 0;
    pthread_mutex_lock(&waiters_lock);
    ok = ocspWaitFor(waiter, ocspRequestRefresh(why, why_size));
    pthread_mutex_unlock(&waiters_lock);
    return ok;
}

int ocspSetThen(const char *base64, size_t len, ocspRefreshDone *done, void *arg, char *why, size_t why_size) {
    ocspWaiter *waiter = ocspWaiterNew(OCSP_ANSWER_PUSH, done, arg, why, why_size);
    int ok;

    if (!waiter) return 0;
    pthread_mutex_lock(&waiters_lock);
    ok = ocspWaitFor(waiter, ocspSet(base64, len, why, why_size));
    pthread_mutex_unlock(&waiters_lock);
    return ok;
}

void ocspWaitAnswered(ocspAnswerKind kind, unsigned number, const char *error) {
    ocspWaiter **at, *answered = NULL, *waiter;

    pthread_mutex_lock(&waiters_lock);
    for (at = &waiters; (waiter = *at) != NULL;) {
        /* Numbers may wrap. */
        if (waiter->kind == kind &&
            (kind == OCSP_ANSWER_PUSH ? waiter->number == number : (int)(waiter->number - number) <= 0)) {
            *at = waiter->next;
            waiter->next = answered;
            answered = waiter;
        } else {
            at = &waiter->next;
        }
    }
    pthread_mutex_unlock(&waiters_lock);
    while ((waiter = answered) != NULL) { /* oldest first */
        answered = waiter->next;
        waiter->done(waiter->arg, error);
        ocspFree(waiter);
    }
}

#endif /* OCSP_SUPPORTED */
