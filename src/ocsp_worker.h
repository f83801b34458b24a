/* ocsp_worker.h - the worker's side of the engine: the handoff between main and the OCSP thread, the set of tracked
 * certificates, the worker's step and the thread. Included by commands, stapler, thread, worker, publish, push,
 * certset and handoff; all other files include ocsp_internal.h, and so cannot reach the worker's state.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_WORKER_H
#define OCSP_WORKER_H

#include "ocsp_internal.h"

/* ---- handoff (ocsp_handoff.c) ------------------------------------------------------------------------------------ */

/* One certificate in INFO: a copy, written by the OCSP thread after each change and read by main. */
typedef struct ocspStatus {
    ocspCertState state;
    int has_response, revoked, must_staple;
    char serial[OCSP_OUTSIDE_TEXT_MAX + 1], responder_url[OCSP_OUTSIDE_TEXT_MAX + 1];
    int64_t this_update, next_update, produced_at, expires_at, last_success;
    size_t bytes;
    ocspSource source;
    int64_t refresh_at_ms, retry_at_ms; /* wall and monotonic clock; 0: none */
    long long consecutive_failures, last_fetch_ms;
    ocspErrorCode last_error_code;
    char last_error[OCSP_REFRESH_ERROR_MAX];
} ocspStatus;

#define OCSP_STATUSES 2 /* certificates in INFO: ocsp_* and ocsp_alt_* */

typedef struct ocspReport {
    int count;
    ocspStatus status[OCSP_STATUSES];
    struct {
        int followed, good,
            revoked; /* certificates of served chains, without the leaves; good and revoked: valid now */
        char last_error[OCSP_SENTENCE_MAX];
    } chain;
    long long refreshes, refresh_failures, failures[OCSP_ERR_KINDS];
} ocspReport;

/* The certificates of an attached context. Owns references. */
typedef struct ocspContextCerts {
    int reload;                /* another context was in service before */
    ocspCertState empty_state; /* shown in INFO if there are no certificates */
    int count;
    X509 *leaf[OCSP_MAX_LEAVES];
    ocspX509Stack *chain[OCSP_MAX_LEAVES];
    X509_STORE *store;
} ocspContextCerts;

void ocspContextCertsFree(ocspContextCerts *certs); /* NULL allowed. Any thread */

/* A response that an operator pushed (OCSP.SET), not verified yet. */
typedef struct ocspPush {
    unsigned number;    /* for ocspHost.answered */
    unsigned char *der; /* owned */
    size_t len;
    struct ocspPush *next;
} ocspPush;

#define OCSP_MAX_PUSHES 16  /* waiting for the OCSP thread */
#define OCSP_PUSH_WITH_FILE /* the string is ocspPrefix() */ \
    "%sresponse-file is set, and only what it holds is stapled: put the response into that file, or unset the directive"

/* Called on main. A mutex protects the handoff and is held for copies only. */
int ocspHandoffInit(void);                         /* 0: out of memory */
int ocspPutOptions(const ocspOptions *options);    /* copies; 0: out of memory, the old ones stay */
void ocspPutContextCerts(ocspContextCerts *certs); /* takes ownership; replaces any not taken yet */
/* Requests a refresh: sets *number and returns NULL, or returns why none is possible: a sentence that the next call of
 * this or of ocspPutPush may overwrite. */
const char *ocspPutRequest(unsigned *number);
/* Takes ownership of `push`, sets *number and returns NULL, or returns why no response can be pushed. */
const char *ocspPutPush(ocspPush *push, unsigned *number);
void ocspCopyReport(ocspReport *report); /* all zero if the mutex cannot be locked: a crash report */
void ocspResetReport(void);              /* its counters start at 0 from now on */

/* Called on the OCSP thread (or on main before that exists). */
int ocspTakeOptions(ocspOptions *mine);       /* 1: *mine has new options, its old strings are freed */
ocspContextCerts *ocspTakeContextCerts(void); /* the newest; NULL: none. Free with ocspContextCertsFree */
unsigned ocspTakeRequests(void);              /* the newest request's number; 0: none */
ocspPush *ocspTakePushes(void);               /* oldest first; NULL: none */
int ocspPushWaits(void);                      /* a fetch under way makes way for it */
int ocspAnythingNew(void);                    /* options or a context are waiting */
void ocspSetReport(const ocspReport *report); /* copies */

/* Whether a fetch for `leaf`, started with the options `mine`, has become pointless. Inside OpenSSL. */
int ocspFetchIsStale(const ocspOptions *mine, X509 *leaf);

/* ---- the set of certificates (ocsp_certset.c) -------------------------------------------------------------------- */

typedef struct ocspCertSet {
    ocspCert *certs[OCSP_MAX_CERTS]; /* owned; oldest first */
    int count;
    /* owned: the one in service, to identify incomplete certificates again */
    ocspContextCerts *context;
    int64_t identify_at_ms; /* monotonic clock: when to do that; 0: all are complete */
    struct {
        ocspX509Stack *certs; /* owned; NULL: none. Stay if the file cannot be read later */
        uint64_t signature;   /* of the file when last read */
        enum {
            OCSP_ISSUERS_UNREAD,
            OCSP_ISSUERS_READ,
            OCSP_ISSUERS_FAILED
        } state;
    } issuers; /* of issuer-file */
} ocspCertSet;

/* On the OCSP thread (or main before that exists), inside OpenSSL. */

/* Makes the certificates of `context` (taken) the active ones; NULL identifies the incomplete ones again. A known
 * certificate keeps its response: a response belongs to the certificate, not to the SSL_CTX. */
void ocspAdoptContext(ocspCertSet *set, ocspContextCerts *context, const ocspOptions *options, const ocspEnv *env);

/* Reads issuer-file if it was not read yet or has changed, and with `again` also if that failed; nothing while the
 * directive is "" or stapling is off. Returns 1 if there are other candidates for issuers than before. Releases the
 * OpenSSL lock. */
int ocspReadIssuers(ocspCertSet *set, const ocspOptions *options, const ocspEnv *env, const ocspIoHooks *io, int again);
void ocspForgetIssuers(ocspCertSet *set); /* issuer-file has changed to another file */

/* Whether to identify incomplete certificates again now. */
int ocspIdentifyDue(const ocspCertSet *set, const ocspEnv *env);

void ocspRequestAll(ocspCertSet *set); /* requests a refresh of each active certificate that can be refreshed */

/* ---- pushed responses (ocsp_push.c) ------------------------------------------------------------------------------ */

void ocspPushFree(ocspPush *push); /* NULL allowed. Any thread */

/* Empties the list: reports each as answered with `error` (NULL: success). OCSP thread, or main without one. */
void ocspAnswerPushes(ocspPush **pushes, const char *error);

typedef struct ocspPushOutcome {
    int accepted; /* 1: a certificate accepted it, or has it already */
    int count;
    ocspCert *installed[OCSP_MAX_CERTS]; /* where it is the current response now: publish, then ocspLogInstalled */
    char text[OCSP_REFRESH_ERROR_MAX];   /* why it was refused */
} ocspPushOutcome;

/* Verifies a pushed response for each certificate in service, and installs it where it is newer than the current response.
 * OCSP thread, inside OpenSSL. */
void ocspServePush(ocspCertSet *set,
                   const ocspOptions *options,
                   const ocspEnv *env,
                   const ocspPush *push,
                   ocspPushOutcome *outcome);

/* ---- what is shown (ocsp_publish.c) ------------------------------------------------------------------------------ */

#define OCSP_CHAIN_UNSUPPORTED /* the string is OpenSSL's version */ \
    "%s cannot staple a chain (3.6 and later can): the certificate's own response is stapled alone"

/* Copies the responses of all tracked certificates. NULL: out of memory. OCSP thread, inside OpenSSL. */
ocspStapleSet *ocspMakeStapleSet(const ocspCertSet *set);

/* Fills the status of the active certificates in, and leaves the counters. `empty_state` is reported while none is
 * active. OCSP thread. */
void ocspFillReport(ocspReport *report,
                    const ocspCertSet *set,
                    const ocspOptions *options,
                    const ocspEnv *env,
                    ocspCertState empty_state);

/* ---- the worker (ocsp_worker.c) ---------------------------------------------------------------------------------- */

/* One step: adopts what main handed over, refreshes what is due, publishes, persists, answers requests. With
 * `use_network` 0 only the disk is used. `io` must outlive the call. Returns the milliseconds until the next step, or
 * -1: wait for a wake-up. OCSP thread (or main before that exists), inside OpenSSL. */
int64_t ocspWorkerStep(const ocspIoHooks *io, int use_network);

/* ---- the thread (ocsp_thread.c) ---------------------------------------------------------------------------------- */

int ocspThreadStart(void);    /* main; 0 with errno */
void ocspThreadWake(void);    /* any thread */
void ocspThreadPrime(void);   /* main, before the thread exists: one step without the network */
int64_t ocspThreadStep(void); /* one iteration of the thread; for tests without a thread */

/* ---- the interface (ocsp_stapler.c) ------------------------------------------------------------------------------ */

/* All on main. */
int ocspStaplingIsOn(void);
const char *ocspWhyNotRunning(void);        /* why the OCSP thread takes no requests now; NULL: it does */
void ocspHandOver(ocspContextCerts *certs); /* takes ownership, and wakes the OCSP thread */

/* As ocspStatusCallback. On a server with stapling on, it sets *not_followed (may be NULL) to 1 if the certificates that are
 * followed are those of another SSL_CTX than this one, or of none yet; else to 0. Any thread. */
int ocspAnswerStatus(SSL *ssl, int *not_followed);

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

/* All on main, without a handshake; the first three are steps of ocspShutdown. */
void ocspThreadStop(void);   /* joins the thread and frees the worker's state */
void ocspWorkerFree(void);   /* frees the worker's state and answers its requests; after the thread has ended */
void ocspHandoffReset(void); /* answers requests and pushes; after the thread has ended */
void ocspCertSetFree(ocspCertSet *set);
int ocspAttachedAny(void); /* ocspAttachContext was called */

#endif
