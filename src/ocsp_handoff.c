/* ocsp_handoff.c - the data that the main thread and the OCSP thread exchange.
 *
 * DESIGN: `shared` is protected by a mutex that is held for copies only. Main stores options, the newest context and
 * refresh requests, then wakes the thread; the thread takes them, works, and stores a report for INFO. Handshakes do
 * not access `shared`: they read the slot (ocsp_slot.c) and two atomics.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define OCSP_INFO_LOCK_TRIES 1000 /* tries to lock a mutex that is held for copies only */

static struct {
    pthread_mutex_t lock;
    ocspOptions options;                     /* strings owned */
    unsigned options_version, options_taken; /* differ while the thread has not taken the newest options */
    ocspContextCerts *context;               /* owned: the newest one, until the thread takes it; NULL: none */
    int unreported;                          /* the thread took options or a context after its last report */
    unsigned requested, requests_taken;      /* numbers of the newest request, and of the newest that the thread took */
    unsigned pushed;                         /* number of the newest push */
    ocspPush *pushes;                        /* owned; oldest first, at most OCSP_MAX_PUSHES */
    ocspReport report;
    /* The report's counters at the last CONFIG RESETSTAT. The OCSP thread only adds to them, and INFO subtracts these. */
    struct {
        long long refreshes, refresh_failures, failures[OCSP_ERR_KINDS];
    } reset;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

/* ---- options ----------------------------------------------------------------------------------------------------- */

int ocspHandoffInit(void) {
    static const ocspOptions defaults = OCSP_OPTIONS_DEFAULT;
    int ok;

    pthread_mutex_lock(&shared.lock);
    memset(&shared.report, 0, sizeof(shared.report));
    memset(&shared.reset, 0, sizeof(shared.reset));
    ok = ocspCopyOptions(&shared.options, &defaults);
    shared.options_version++;
    pthread_mutex_unlock(&shared.lock);
    return ok;
}

int ocspPutOptions(const ocspOptions *options) {
    ocspOptions copy, old;

    if (!ocspCopyOptions(&copy, options)) return 0;
    pthread_mutex_lock(&shared.lock);
    old = shared.options;
    shared.options = copy;
    shared.options_version++;
    pthread_mutex_unlock(&shared.lock);
    ocspFreeOptions(&old);
    return 1;
}

int ocspTakeOptions(ocspOptions *mine) {
    ocspOptions copy;
    int taken = 0;

    pthread_mutex_lock(&shared.lock);
    if (shared.options_taken != shared.options_version && ocspCopyOptions(&copy, &shared.options)) {
        ocspFreeOptions(mine);
        *mine = copy;
        shared.options_taken = shared.options_version;
        shared.unreported = 1;
        taken = 1;
    }
    pthread_mutex_unlock(&shared.lock);
    return taken;
}

/* ---- contexts ---------------------------------------------------------------------------------------------------- */

void ocspContextCertsFree(ocspContextCerts *certs) {
    int i;

    if (!certs) return;
    for (i = 0; i < certs->count; i++) {
        X509_free(certs->leaf[i]);
        sk_X509_pop_free(certs->chain[i], X509_free);
    }
    X509_STORE_free(certs->store);
    ocspFree(certs);
}

void ocspPutContextCerts(ocspContextCerts *certs) {
    ocspContextCerts *old;

    pthread_mutex_lock(&shared.lock);
    old = shared.context;
    if (old) certs->reload = old->reload; /* the thread never sees the one that this replaces */
    shared.context = certs;
    pthread_mutex_unlock(&shared.lock);
    ocspContextCertsFree(old);
}

ocspContextCerts *ocspTakeContextCerts(void) {
    ocspContextCerts *certs;

    pthread_mutex_lock(&shared.lock);
    certs = shared.context;
    shared.context = NULL;
    if (certs) shared.unreported = 1;
    pthread_mutex_unlock(&shared.lock);
    return certs;
}

int ocspAnythingNew(void) {
    int new;

    pthread_mutex_lock(&shared.lock);
    new = shared.context != NULL || shared.options_taken != shared.options_version;
    pthread_mutex_unlock(&shared.lock);
    return new;
}

int ocspFetchIsStale(const ocspOptions *mine, X509 *leaf) {
    int i, j, stale;

    pthread_mutex_lock(&shared.lock);
    stale = !shared.options.stapling || strcmp(shared.options.responder_url, mine->responder_url) != 0 ||
            strcmp(shared.options.response_file, mine->response_file) != 0 ||
            strcmp(shared.options.proxy, mine->proxy) != 0;
    if (!stale && shared.context) {
        stale = 1; /* unless the reload brought the same certificate */
        for (i = 0; i < shared.context->count; i++) {
            if (ocspSameCertificate(shared.context->leaf[i], leaf)) stale = 0;
            for (j = 0; j < sk_X509_num(shared.context->chain[i]); j++)
                if (ocspSameCertificate(sk_X509_value(shared.context->chain[i], j), leaf)) stale = 0;
        }
    }
    pthread_mutex_unlock(&shared.lock);
    return stale;
}

/* ---- refresh requests -------------------------------------------------------------------------------------------- */

static char refusal[OCSP_SENTENCE_MAX]; /* main: a sentence with a directive's name, see ocspPutRequest */

/* Returns why no certificate can be refreshed, or NULL. `pushed`: with a pushed response, which needs no responder. */
static const char *ocspWhyNoRefresh(const ocspReport *report, int pushed) {
    static const char *const reasons[] = {
        /* the strings are the prefix of directives */
        [OCSP_STATE_NO_TLS] = "the server has no TLS context: set tls-port and tls-cert-file",
        [OCSP_STATE_NO_CERTIFICATE] = "the server's TLS context has no certificate: set tls-cert-file and "
                                      "tls-key-file",
        [OCSP_STATE_SELF_SIGNED] = "the certificate is self-signed: no CA can report its status",
        [OCSP_STATE_NO_ISSUER] =
            ("the certificate's issuer is unknown: append the CA's certificate to tls-cert-file or name it in "
             "tls-ca-cert-file or %sissuer-file"),
        [OCSP_STATE_NO_RESPONDER] = "the certificate names no OCSP responder: set %sresponder-url, or "
                                    "%sresponse-file",
    };
    int i;

    for (i = 0; i < report->count; i++)
        if (report->status[i].state == OCSP_STATE_PENDING ||
            (pushed && report->status[i].state == OCSP_STATE_NO_RESPONDER))
            return NULL;
    snprintf(refusal, sizeof(refusal), reasons[report->status[0].state], ocspPrefix(), ocspPrefix());
    return refusal;
}

/* Options or a context that the report does not cover may change what it says: then the thread decides. Locked. */
static int ocspReportIsCurrent(void) {
    return shared.options_taken == shared.options_version && !shared.context && !shared.unreported;
}

/* The number after `number`; never 0. */
static unsigned ocspNextNumber(unsigned number) {
    return number == UINT_MAX ? 1 : number + 1;
}

const char *ocspPutRequest(unsigned *number) {
    const char *reason = NULL;

    pthread_mutex_lock(&shared.lock);
    if (ocspReportIsCurrent()) reason = ocspWhyNoRefresh(&shared.report, 0);
    if (!reason) *number = shared.requested = ocspNextNumber(shared.requested);
    pthread_mutex_unlock(&shared.lock);
    return reason;
}

unsigned ocspTakeRequests(void) {
    unsigned newest;

    pthread_mutex_lock(&shared.lock);
    newest = shared.requested != shared.requests_taken ? shared.requested : 0;
    shared.requests_taken = shared.requested;
    pthread_mutex_unlock(&shared.lock);
    return newest;
}

/* ---- pushed responses -------------------------------------------------------------------------------------------- */

const char *ocspPutPush(ocspPush *push, unsigned *number) {
    const char *reason = NULL;
    ocspPush **end = &shared.pushes;
    int waiting = 0;

    pthread_mutex_lock(&shared.lock);
    for (; *end; end = &(*end)->next) waiting++;
    if (ocspHasResponseFile(&shared.options)) {
        snprintf(refusal, sizeof(refusal), OCSP_PUSH_WITH_FILE, ocspPrefix());
        reason = refusal;
    } else if (ocspReportIsCurrent()) {
        reason = ocspWhyNoRefresh(&shared.report, 1);
    }
    if (!reason && waiting >= OCSP_MAX_PUSHES)
        reason = "busy: as many pushed responses as are allowed are waiting to be verified; try again in a moment";
    if (!reason) {
        *number = push->number = shared.pushed = ocspNextNumber(shared.pushed);
        *end = push;
    }
    pthread_mutex_unlock(&shared.lock);
    return reason;
}

ocspPush *ocspTakePushes(void) {
    ocspPush *pushes;

    pthread_mutex_lock(&shared.lock);
    pushes = shared.pushes;
    shared.pushes = NULL;
    pthread_mutex_unlock(&shared.lock);
    return pushes;
}

int ocspPushWaits(void) {
    int waits;

    pthread_mutex_lock(&shared.lock);
    waits = shared.pushes != NULL;
    pthread_mutex_unlock(&shared.lock);
    return waits;
}

/* ---- the report -------------------------------------------------------------------------------------------------- */

void ocspSetReport(const ocspReport *report) {
    pthread_mutex_lock(&shared.lock);
    shared.report = *report;
    shared.unreported = 0;
    pthread_mutex_unlock(&shared.lock);
}

/* INFO is also printed in crash reports, where the mutex's owner may never release it (or, in a forked child, does not
 * exist): then the report is empty. */
void ocspCopyReport(ocspReport *report) {
    int i, got = 0;

    for (i = 0; i < OCSP_INFO_LOCK_TRIES && !got; i++) {
        got = pthread_mutex_trylock(&shared.lock) == 0;
        if (!got) sched_yield();
    }
    if (!got) {
        memset(report, 0, sizeof(*report));
        return;
    }
    *report = shared.report;
    report->refreshes -= shared.reset.refreshes;
    report->refresh_failures -= shared.reset.refresh_failures;
    for (i = 0; i < OCSP_ERR_KINDS; i++) report->failures[i] -= shared.reset.failures[i];
    pthread_mutex_unlock(&shared.lock);
}

void ocspResetReport(void) {
    pthread_mutex_lock(&shared.lock);
    shared.reset.refreshes = shared.report.refreshes;
    shared.reset.refresh_failures = shared.report.refresh_failures;
    memcpy(shared.reset.failures, shared.report.failures, sizeof(shared.reset.failures));
    pthread_mutex_unlock(&shared.lock);
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

void ocspHandoffReset(void) {
    unsigned number = ocspTakeRequests();
    ocspPush *pushes = ocspTakePushes();

    ocspReportAnswer(OCSP_ANSWER_REFRESH, &number, "the server is shutting down");
    ocspAnswerPushes(&pushes, "the server is shutting down");
    ocspContextCertsFree(ocspTakeContextCerts());
    pthread_mutex_lock(&shared.lock);
    ocspFreeOptions(&shared.options);
    memset(&shared.report, 0, sizeof(shared.report));
    pthread_mutex_unlock(&shared.lock);
}

#endif /* OCSP_SUPPORTED */
