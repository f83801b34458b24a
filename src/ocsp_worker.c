/* ocsp_worker.c - the worker's step: adopts what main handed over, refreshes the certificates that are due, publishes,
 * persists, answers requests for a refresh, and returns how long to wait.
 *
 * DESIGN: all state is in `worker`, which only the OCSP thread uses (or main before that exists). A step calls the
 * other files in order and has few rules of its own: ocsp_cert.c decides about responses, ocsp_persist.c about the
 * disk, ocsp_certset.c about the certificates. While stapling is on, the thread never waits longer than a second,
 * because a jump of the wall clock or a change of the response file or the issuer file wakes nobody.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_worker.h"
#if OCSP_SUPPORTED
#include <limits.h>
#include <stdio.h>
#include <string.h>

#define OCSP_STEP_MS 1000 /* between checks of the wall clock and of the files */

static struct {
    ocspOptions options; /* owns its strings */
    ocspCertSet set;
    ocspDisk disk;
    const ocspIoHooks *io;                   /* the argument of the current step */
    int chain_changed;                       /* staple_chain was changed: the certificates to follow are others */
    int unpublished;                         /* out of memory publishing; retried in each step */
    ocspCertState empty_state;               /* reported while no certificate is active */
    uint64_t file_signature[OCSP_MAX_CHAIN]; /* of the response files when last read, by depth */
    X509 *fetching_for;                      /* leaf of the certificate being fetched for, NULL: none */
    ocspReport report;
    /* The refresh that an operator requested. */
    int manual_refresh, manual_ok; /* under way; number of certificates that it refreshed */
    unsigned requested;            /* number of the newest request that waits for an answer; 0: none */
    char manual_error[OCSP_REFRESH_ERROR_MAX], manual_note[OCSP_REFRESH_ERROR_MAX];
} worker;

static int64_t ocspWorkerDueIn(const ocspCert *cert) {
    return ocspDueIn(cert, &worker.options, &ocsp_env);
}

/* ---- publishing -------------------------------------------------------------------------------------------------- */

static void ocspPublish(void) {
    ocspStapleSet *set = ocspMakeStapleSet(&worker.set);
    int i;

    if (set) {
        worker.unpublished = 0;
        ocspSlotPublish(set);
        return;
    }
    if (!worker.unpublished)
        ocspLog(OCSP_LOG_WARNING,
                "out of memory publishing responses; keeping the previous set (none if a certificate is revoked)");
    worker.unpublished = 1;
    for (i = 0; i < worker.set.count; i++)
        if (worker.set.certs[i]->current.revoked) break;
    if (i < worker.set.count) ocspSlotPublish(NULL);
}

/* Publishes and logs a response if it was installed. Returns `outcome`. */
static ocspOutcome ocspAccepted(ocspCert *cert, ocspOutcome outcome) {
    if (outcome != OCSP_OUTCOME_NEW) return outcome;
    ocspPublish();
    ocspLogInstalled(cert);
    return outcome;
}

static void ocspReportStatus(void) {
    ocspFillReport(&worker.report, &worker.set, &worker.options, &ocsp_env, worker.empty_state);
    ocspSetReport(&worker.report);
}

/* ---- one refresh ------------------------------------------------------------------------------------------------- */

/* Whether to abort the fetch under way; called when it is woken. */
static int ocspCancelled(void) {
    return (worker.io->cancelled && worker.io->cancelled()) || ocspPushWaits() ||
           ocspFetchIsStale(&worker.options, worker.fetching_for);
}

/* Appends "where: why" to the error of a refresh. */
static void ocspAppendError(char *text, size_t size, const char *where, const char *why) {
    size_t used = strlen(text);

    snprintf(text + used, size - used, "%s%s: %s", used ? "; " : "", where, why);
}

static ocspOutcome ocspFetchFrom(ocspCert *cert, const char *url, ocspError *err) {
    ocspIoHooks io = *worker.io;
    int64_t timeout_ms = (int64_t)worker.options.timeout * 1000;
    const char *proxy = worker.options.proxy;
    ocspExchange exchange = {url, cert->id->request, cert->id->request_len, cert->id->store, timeout_ms, &io, proxy};
    ocspOutcome outcome = OCSP_OUTCOME_INVALID;
    unsigned char *body = NULL;
    size_t len = 0;
    ocspFetchResult result;

    io.cancelled = ocspCancelled;
    worker.fetching_for = cert->id->leaf;
    result = ocsp_env.fetch(&exchange, &body, &len, err);
    worker.fetching_for = NULL;
    if (result == OCSP_FETCH_CANCELLED) return OCSP_OUTCOME_CANCELLED;
    if (result == OCSP_FETCH_OK) {
        ocspReceived in = {{body, len}, OCSP_SOURCE_NETWORK, ocspNow(&ocsp_env)};
        outcome = ocspAcceptResponse(cert, &worker.options, &ocsp_env, &in, err);
    }
    ocspFree(body);
    return ocspAccepted(cert, outcome);
}

/* Tries the URLs in turn until one returns an acceptable response. Appends each failure to `text`; *code is the last
 * one's. */
static ocspOutcome ocspAskResponders(ocspCert *cert, char *text, size_t size, ocspErrorCode *code) {
    const char *override =
        worker.options.responder_url && *worker.options.responder_url ? worker.options.responder_url : NULL;
    ocspOutcome outcome = OCSP_OUTCOME_INVALID;
    int i, n = override ? 1 : cert->id->url_count;

    for (i = 0; i < n; i++) {
        const char *url = override ? override : cert->id->urls[i];
        ocspError err = {0};
        ocspCleanText(cert->stats.url, sizeof(cert->stats.url), url);
        outcome = ocspFetchFrom(cert, url, &err);
        if (outcome != OCSP_OUTCOME_INVALID && outcome != OCSP_OUTCOME_STALE) break;
        *code = err.code;
        ocspAppendError(text, size, cert->stats.url, err.text);
    }
    return outcome;
}

/* Returns the path of the response file for a certificate: for a CA of the chain its number is appended, in `buf`. */
static const char *ocspSuppliedPath(int depth, char *buf, size_t size) {
    int len = depth ? snprintf(buf, size, "%s.%d", worker.options.response_file, depth) : 0;

    return len == 0 ? worker.options.response_file : (size_t)len < size ? buf : "";
}

/* Reads the response file. */
static ocspOutcome ocspReadSupplied(ocspCert *cert, char *text, size_t size, ocspErrorCode *code) {
    ocspReceived in = {{NULL, 0}, OCSP_SOURCE_FILE, 0};
    ocspOutcome outcome = OCSP_OUTCOME_INVALID;
    unsigned char *der = NULL;
    ocspError err = {0};
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1], buf[PATH_MAX];
    const char *path = ocspSuppliedPath(cert->depth, buf, sizeof(buf));
    int ok;

    ocspLeaveOpenSSL(worker.io);
    ok = ocsp_env.read_file(path, OCSP_MAX_RESPONSE_BYTES, &der, &in.der.len, &in.at, &err);
    ocspEnterOpenSSL(worker.io);
    in.der.data = der;
    cert->stats.url[0] = '\0';
    if (ok) outcome = ocspAccepted(cert, ocspAcceptResponse(cert, &worker.options, &ocsp_env, &in, &err));
    ocspFree(der);
    if (outcome == OCSP_OUTCOME_NEW) return outcome;
    *code = err.code;
    if (!ok)
        snprintf(text, size, "%s", err.text); /* names the file */
    else
        ocspAppendError(text, size, ocspCleanText(clean, sizeof(clean), path), err.text);
    return err.no_matching_certid ? OCSP_OUTCOME_NO_MATCH : outcome;
}

/* Refreshes one certificate and counts that once, however many URLs were tried. */
static ocspOutcome ocspRefreshCert(ocspCert *cert) {
    int requested = cert->schedule.refresh_requested, now = cert->schedule.refresh_now;
    int64_t began = ocsp_env.mono_ms();
    char text[OCSP_REFRESH_ERROR_MAX] = "";
    ocspErrorCode code = OCSP_FAIL_CONNECT;
    ocspOutcome outcome;

    cert->schedule.refresh_requested = cert->schedule.refresh_now = 0;
    outcome = ocspHasResponseFile(&worker.options) ? ocspReadSupplied(cert, text, sizeof(text), &code)
                                                   : ocspAskResponders(cert, text, sizeof(text), &code);
    if (outcome == OCSP_OUTCOME_CANCELLED) { /* the next step adopts the changes and starts over */
        cert->schedule.refresh_requested = requested;
        /* After a push the refresh follows only if it is still due: the pushed response may be as new. */
        cert->schedule.refresh_now = now || !ocspPushWaits();
        return outcome;
    }
    cert->schedule.last_refresh_ms = ocsp_env.mono_ms();
    cert->stats.last_fetch_ms = cert->schedule.last_refresh_ms - began;
    worker.report.refreshes++;
    if (outcome == OCSP_OUTCOME_NEW || outcome == OCSP_OUTCOME_UNCHANGED) {
        worker.manual_ok++;
        return outcome;
    }
    cert->stats.last_error_code = code;
    snprintf(cert->stats.last_error, sizeof(cert->stats.last_error), "%s", text);
    if (outcome == OCSP_OUTCOME_NO_MATCH) {
        ocspLog(OCSP_LOG_NOTICE, "certificate %s: response file ignored (%s): %s; current response kept",
                cert->id->serial, ocspErrorWord(code), text);
        snprintf(worker.manual_note, sizeof(worker.manual_note), "%s", text);
        cert->schedule.retry_at_ms = 0;
        return outcome;
    }
    worker.report.refresh_failures++;
    worker.report.failures[ocspErrorKindOf(code)]++;
    ocspRefreshFailed(cert, &worker.options, &ocsp_env, requested);
    snprintf(worker.manual_error, sizeof(worker.manual_error), "%s", cert->stats.last_error);
    return outcome;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static void ocspLoadCached(ocspCert *cert) {
    ocspAccepted(cert, ocspDiskLoad(&worker.disk, cert));
}

static void ocspStoreDirty(void) {
    int i, stored = 0;

    for (i = 0; i < worker.set.count; i++) {
        ocspOutcome outcome;
        stored |= ocspDiskSync(&worker.disk, worker.set.certs[i], &outcome);
        ocspAccepted(worker.set.certs[i], outcome);
    }
    if (stored) ocspDiskPrune(&worker.disk);
}

/* ---- what main handed over --------------------------------------------------------------------------------------- */

/* Adopts a context (taken); NULL identifies incomplete certificates again. */
static void ocspWorkerAdopt(ocspContextCerts *context) {
    ocspCertSet *set = &worker.set;
    int i;

    ocspAdoptContext(set, context, &worker.options, &ocsp_env);
    worker.empty_state = set->context->empty_state;
    /* A start is not a reload: cached responses are stapled and refreshed when due, or restarting a fleet would request
     * everything again. */
    for (i = 0; i < set->count; i++) {
        ocspCert *cert = set->certs[i];
        if (worker.options.stapling) ocspLoadCached(cert);
        if (!set->context->reload && ocspHasValid(cert, &ocsp_env)) cert->schedule.refresh_now = 0;
    }
    set->context->reload = 1;                       /* if it is identified again */
    if (worker.manual_refresh) ocspRequestAll(set); /* the request means the certificates that are active now */
    ocspPublish();
}

static void ocspApplyOptions(void) {
    ocspOptions old = worker.options, taken = {0};
    const ocspOptions *new = &worker.options;
    int i, dir_changed;

    if (!ocspTakeOptions(&taken)) return;
    worker.options = taken;
    if (new->staple_chain != old.staple_chain) worker.chain_changed = 1;
    if (new->staple_chain && !old.staple_chain && !ocsp_env.chain_supported())
        ocspLog(OCSP_LOG_NOTICE, "%sstaple-chain: " OCSP_CHAIN_UNSUPPORTED, ocspPrefix(),
                OpenSSL_version(OPENSSL_VERSION));
    dir_changed = strcmp(old.cache_dir ? old.cache_dir : "", new->cache_dir) != 0;
    /* Read both files again: the operator may have set a directive to its own value for that. */
    memset(worker.file_signature, 0, sizeof(worker.file_signature));
    worker.set.issuers.signature = 0;
    if (strcmp(old.issuer_file ? old.issuer_file : "", new->issuer_file) != 0) ocspForgetIssuers(&worker.set);
    for (i = 0; i < worker.set.count; i++) ocspOptionsChanged(worker.set.certs[i], &old, new, &ocsp_env);
    if (dir_changed) {
        ocspDiskChanged(&worker.disk, (char *)old.cache_dir);
        old.cache_dir = NULL;
    }
    ocspFreeOptions(&old);
}

/* ---- requested refreshes ----------------------------------------------------------------------------------------- */

static void ocspBeginManualRefresh(void) {
    worker.manual_refresh = 1;
    worker.manual_ok = 0;
    worker.manual_error[0] = worker.manual_note[0] = '\0';
    ocspRequestAll(&worker.set);
}

/* Ends a requested refresh once each certificate was refreshed. Requests made meanwhile share its success; if it
 * failed, one more refresh follows at once. */
static void ocspEndManualRefresh(void) {
    unsigned late;
    const char *error;
    int i;

    for (i = 0; i < worker.set.count; i++)
        if (ocspWorkerDueIn(worker.set.certs[i]) <= 0 && worker.set.certs[i]->schedule.refresh_requested) return;
    late = ocspAnythingNew() ? 0 : ocspTakeRequests(); /* after changes the next step serves the requests */
    error = worker.manual_error[0]                           ? worker.manual_error
            : worker.manual_ok == 0 && worker.manual_note[0] ? worker.manual_note
            : worker.manual_ok == 0                          ? "there is nothing to refresh"
                                                             : NULL;
    ocspStoreDirty();   /* before the answer: the operator may restart the server next */
    ocspReportStatus(); /* and the operator may read INFO next */
    ocspReportAnswer(OCSP_ANSWER_REFRESH, &worker.requested, error);
    worker.manual_refresh = 0;
    if (!error) {
        ocspReportAnswer(OCSP_ANSWER_REFRESH, &late, NULL);
    } else if (late) {
        worker.requested = late;
        ocspBeginManualRefresh();
    }
}

/* ---- pushed responses -------------------------------------------------------------------------------------------- */

/* Serves the pushed responses (taken), in their order. What is published is stored and reported before the answer: the
 * operator may restart the server or read INFO next. A push is no refresh: the counters do not change. */
static void ocspServePushes(ocspPush *pushes) {
    while (pushes) {
        ocspPush *rest = pushes->next;
        ocspPushOutcome outcome;
        int i;
        pushes->next = NULL;
        ocspServePush(&worker.set, &worker.options, &ocsp_env, pushes, &outcome);
        if (outcome.count > 0) ocspPublish();
        for (i = 0; i < outcome.count; i++) ocspLogInstalled(outcome.installed[i]);
        ocspStoreDirty();
        ocspReportStatus();
        ocspAnswerPushes(&pushes, outcome.accepted ? NULL : outcome.text);
        pushes = rest;
    }
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

/* Rereads the response files that have changed. */
static void ocspWatchFile(void) {
    char buf[PATH_MAX];
    uint64_t signature;
    int i, depth, depths = ocspFollowsChains(&worker.options, &ocsp_env) ? OCSP_MAX_CHAIN : 1;

    if (!ocspHasResponseFile(&worker.options)) return;
    for (depth = 0; depth < depths; depth++) {
        const char *path = ocspSuppliedPath(depth, buf, sizeof(buf));
        ocspLeaveOpenSSL(worker.io);
        signature = ocsp_env.file_signature(path);
        ocspEnterOpenSSL(worker.io);
        if (signature == worker.file_signature[depth]) continue;
        worker.file_signature[depth] = signature;
        for (i = 0; i < worker.set.count; i++) {
            ocspCert *cert = worker.set.certs[i];
            if (cert->depth == depth) cert->schedule.refresh_now = cert->active;
        }
    }
}

/* The step with stapling off: a cached response that a restart must not staple is still removed. */
static int64_t ocspStepWhileOff(void) {
    int i, behind = 0;

    ocspReportAnswer(OCSP_ANSWER_REFRESH, &worker.requested, "OCSP stapling was turned off");
    worker.manual_refresh = 0;
    ocspStoreDirty();
    for (i = 0; i < worker.set.count; i++) {
        worker.set.certs[i]->schedule.refresh_requested = worker.set.certs[i]->schedule.refresh_now = 0;
        behind |= ocspDiskIsBehind(&worker.disk, worker.set.certs[i]);
    }
    ocspReportStatus();
    /* out of memory taking over what is new: no wake-up follows */
    return behind || ocspAnythingNew() ? OCSP_STEP_MS : -1;
}

/* Prepares each certificate before anything is fetched: log, cache, clock. */
static void ocspPrepareAll(void) {
    int i;

    for (i = 0; i < worker.set.count; i++) {
        ocspCert *cert = worker.set.certs[i];
        ocspLogState(cert);
        ocspLoadCached(cert);
        if (ocspCapByClock(cert, &worker.options, &ocsp_env)) ocspPublish();
        if (cert->schedule.refresh_if_empty && !ocspHasValid(cert, &ocsp_env)) cert->schedule.refresh_now = 1;
        cert->schedule.refresh_if_empty = 0;
    }
}

/* Refreshes the certificates that are due. Returns the number of finished refreshes. *all_good: all refreshable
 * certificates were refreshed, without failure; *failed: how many were not. */
static int ocspRefreshDue(int use_network, int *all_good, int *failed) {
    int i, ran = 0, refreshable = 0;

    *failed = 0;
    for (i = 0; i < worker.set.count; i++) {
        ocspCert *cert = worker.set.certs[i];
        ocspOutcome outcome;
        ocspCapRetry(cert, &ocsp_env);
        refreshable += cert->active && cert->state == OCSP_STATE_PENDING;
        if (ocspWorkerDueIn(cert) > 0 || (!use_network && !ocspHasResponseFile(&worker.options))) continue;
        if (ran) { /* store what is published before the next responder hangs */
            ocspStoreDirty();
            if (ocspWorkerDueIn(cert) > 0) continue; /* a newer response was on disk */
        }
        outcome = ocspRefreshCert(cert);
        ran += outcome != OCSP_OUTCOME_CANCELLED;
        *failed += outcome != OCSP_OUTCOME_NEW && outcome != OCSP_OUTCOME_UNCHANGED;
        if (outcome == OCSP_OUTCOME_CANCELLED) break;
    }
    *all_good = ran > 0 && ran == refreshable && !*failed;
    return ran;
}

int64_t ocspWorkerStep(const ocspIoHooks *io, int use_network) {
    ocspPush *pushes = ocspTakePushes();
    ocspContextCerts *context;
    int64_t wait = OCSP_STEP_MS;
    unsigned requested;
    int i, ran, failed, all_good, identify;

    worker.io = io;
    worker.disk.io = io;
    worker.disk.options = &worker.options;
    worker.disk.env = &ocsp_env;
    /* Pushes and requests first: what main set before one is then taken after it, and so is known when it is served. */
    requested = ocspTakeRequests();
    if (requested) worker.requested = requested;
    ocspApplyOptions();
    context = ocspTakeContextCerts();
    identify = context || ocspIdentifyDue(&worker.set, &ocsp_env) || (worker.chain_changed && worker.set.context);
    if (ocspReadIssuers(&worker.set, &worker.options, &ocsp_env, io, identify) && worker.set.context) identify = 1;
    if (identify) {
        worker.chain_changed = 0;
        ocspWorkerAdopt(context);
    }
    if (worker.unpublished) ocspPublish();
    if (!worker.options.stapling) {
        ocspAnswerPushes(&pushes, "OCSP stapling was turned off");
        return ocspStepWhileOff();
    }
    ocspWatchFile();
    ocspPrepareAll();
    ocspServePushes(pushes);
    if (requested) ocspBeginManualRefresh();
    ocspReportStatus();
    ran = ocspRefreshDue(use_network, &all_good, &failed);
    if (worker.manual_refresh) {
        ocspEndManualRefresh();
    } else if (all_good && !ocspAnythingNew()) {
        unsigned served = ocspTakeRequests(); /* requested during these refreshes, which succeeded */
        ocspStoreDirty();
        ocspReportStatus();
        ocspReportAnswer(OCSP_ANSWER_REFRESH, &served, NULL);
    }
    if (use_network) ocspStoreDirty(); /* not on main before the first accept */
    for (i = 0; i < worker.set.count; i++) {
        ocspCert *cert = worker.set.certs[i];
        if (cert->active) ocspLogTime(cert, &worker.options, &ocsp_env);
        if (ocspWorkerDueIn(cert) < wait) wait = ocspWorkerDueIn(cert);
    }
    ocspReportStatus();
    /* The refresh may have drained the pipe: take over what main handed over before waiting. */
    return ran || failed || wait < 0 ? 0 : wait;
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

void ocspWorkerFree(void) {
    ocspReportAnswer(OCSP_ANSWER_REFRESH, &worker.requested, "the server is shutting down");
    ocspCertSetFree(&worker.set);
    ocspFreeOptions(&worker.options);
    ocspDiskFree(&worker.disk);
    memset(&worker, 0, sizeof(worker));
}

#endif /* OCSP_SUPPORTED */
