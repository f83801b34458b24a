/* ocsp_worker.h - what only the worker's side of the OCSP stapling engine sees: what main and the OCSP thread pass each
 * other, the set of certificates that is tracked, the worker's step and the thread. ocsp_stapler.c, which main calls, sees
 * it too. Everything else includes ocsp_internal.h, and so cannot reach any of this.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_WORKER_H
#define OCSP_WORKER_H

#include "ocsp_internal.h"

/* ---- handoff (ocsp_handoff.c) ------------------------------------------------------------------------------------ */

/* What INFO shows of one certificate: a copy, made by the OCSP thread after each change. */
typedef struct ocspStatus {
    ocspCertState state;
    int has_response, revoked, must_staple;
    char serial[OCSP_OUTSIDE_TEXT_MAX + 1], responder_url[OCSP_OUTSIDE_TEXT_MAX + 1];
    int64_t this_update, next_update, produced_at, expires_at, last_success;
    size_t bytes;
    ocspSource source;
    int64_t refresh_at_ms, retry_at_ms; /* wall and monotonic clock, 0: none */
    long long consecutive_failures, last_fetch_ms;
    char last_error[OCSP_REFRESH_ERROR_MAX];
} ocspStatus;

#define OCSP_STATUSES 2 /* INFO shows two certificates: ocsp_* and ocsp_alt_* */

typedef struct ocspReport {
    int count;
    ocspStatus status[OCSP_STATUSES];
    long long refreshes, refresh_failures, failures[OCSP_ERR_KINDS];
} ocspReport;

/* The certificates of one attached context. Owns references. */
typedef struct ocspContextCerts {
    int prefetched; /* by ocspPrefetchContext: no context serves them yet */
    int count;
    X509 *leaf[OCSP_MAX_CERTS / 2];
    STACK_OF(X509) *chain[OCSP_MAX_CERTS / 2];
    X509_STORE *store;
} ocspContextCerts;

void ocspContextCertsFree(ocspContextCerts *certs); /* NULL allowed. Any thread */

/* Who waits for the end of a requested refresh. */
typedef struct ocspWaiter {
    ocspRefreshDone *done;
    void *arg;
    struct ocspWaiter *next;
} ocspWaiter;

/* Takes each waiter off the list, calls it with `error` (NULL: success) and frees it. OCSP thread, or main without one. */
void ocspAnswer(ocspWaiter **waiters, const char *error);

/* The mutex behind all of these is held for copies only. From main: */
int ocspHandoffInit(void);                         /* 0 when out of memory */
void ocspHandoffReset(void);                       /* answers the waiters; the OCSP thread has ended */
int ocspPutOptions(const ocspOptions *options);    /* copies; 0 when out of memory: the old ones stay */
void ocspPutContextCerts(ocspContextCerts *certs); /* takes them, in place of those that were not taken yet */
const char *ocspPutRequest(ocspWaiter *waiter);    /* may be NULL. Takes it; or returns why nothing can be refreshed */
void ocspCopyReport(ocspReport *report);           /* all zero if the mutex cannot be had: a crash report */

/* From the OCSP thread (or main before that exists): */
int ocspTakeOptions(ocspOptions *mine);       /* 1: there were new ones; frees and replaces the strings of *mine */
ocspContextCerts *ocspTakeContextCerts(void); /* the newest context's, or NULL; free with ocspContextCertsFree */
int ocspTakeRequests(ocspWaiter **waiters);   /* how many refreshes were requested; adds their waiters to the list */
int ocspAnythingNew(void);                    /* options or a context wait to be taken */
void ocspSetReport(const ocspReport *report); /* copies */

/* Has a fetch for `leaf`, begun with the options `mine`, become pointless? Inside OpenSSL. */
int ocspFetchIsStale(const ocspOptions *mine, X509 *leaf);

/* ---- the set of certificates (ocsp_certset.c) -------------------------------------------------------------------- */

typedef struct ocspCertSet {
    ocspCert *certs[OCSP_MAX_CERTS]; /* owned; oldest first */
    int count;
    ocspContextCerts *context; /* owned: the one in service, kept because incomplete certificates are identified again */
    int64_t identify_at_ms; /* monotonic clock: when that is due; 0: all are complete */
    int attached_before;    /* a context was attached, so that the next one is a reload */
} ocspCertSet;

/* All on the OCSP thread (or main before that exists), inside OpenSSL. */

/* Adopts the certificates of `context` (taken) as the active ones; NULL identifies the incomplete ones again. A
 * certificate that is known keeps its response: a response belongs to the certificate, not to the SSL_CTX (HAProxy stapled
 * the old certificate's response after a renewal). */
void ocspAdoptContext(ocspCertSet *set, ocspContextCerts *context, const ocspOptions *options, const ocspEnv *env);

/* Whether incomplete certificates are to be identified again now. */
int ocspIdentifyDue(const ocspCertSet *set, const ocspEnv *env);

void ocspRequestAll(ocspCertSet *set); /* refresh every active certificate that can be refreshed */
void ocspCertSetFree(ocspCertSet *set);

/* ---- the worker (ocsp_worker.c) ---------------------------------------------------------------------------------- */

/* One step: takes over what main handed over, refreshes what is due, publishes, persists, answers who waits. With
 * `use_network` 0 only the disk is used. `io` outlives the call. Returns the milliseconds until the next step, -1: when
 * woken. OCSP thread (or main before that exists), inside OpenSSL. */
int64_t ocspWorkerStep(const ocspIoHooks *io, int use_network);
void ocspWorkerFree(void); /* frees what the worker owns and answers who waits. Main, after the thread has ended */

/* ---- the thread (ocsp_thread.c) ---------------------------------------------------------------------------------- */

int ocspThreadStart(void);    /* main; 0 with errno set */
void ocspThreadWake(void);    /* any thread */
void ocspThreadStop(void);    /* main: joins the thread and frees what the worker owns */
void ocspThreadPrime(void);   /* main, before the thread exists: one step without the network */
int64_t ocspThreadStep(void); /* what the thread does between two waits. For tests, which have no thread */

#endif
