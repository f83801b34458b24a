/* ocsp_cert.c - the state machine of one certificate: when its response is due, what a new response or a failure
 * changes, and what is logged. No clock, no I/O and no state of its own: everything is an argument, so that a fleet can
 * be simulated.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <stdio.h>
#include <string.h>
#include <openssl/objects.h>

ocspCert *ocspCertNew(void) {
    ocspCert *cert = ocspAlloc(sizeof(*cert));

    if (!cert) return NULL;
    cert->logged.state = -1;
    cert->schedule.refresh_now = 1;
    return cert;
}

void ocspCertFree(ocspCert *cert) {
    ocspIdentityFree(cert->id);
    ocspResponseClear(&cert->current);
    ocspFree(cert);
}

/* ---- queries ----------------------------------------------------------------------------------------------------- */

int ocspHasResponseFile(const ocspOptions *options) {
    return options->response_file && *options->response_file;
}

int ocspFollowsChains(const ocspOptions *options, const ocspEnv *env) {
    return options->staple_chain && env->chain_supported();
}

static int ocspHasUrl(const ocspOptions *options) {
    return options->responder_url && *options->responder_url;
}

ocspCertState ocspStateOf(const ocspIdentity *id, const ocspOptions *options) {
    if (id->self_signed) return OCSP_STATE_SELF_SIGNED;
    if (!id->issuer) return OCSP_STATE_NO_ISSUER;
    return id->url_count || ocspHasUrl(options) || ocspHasResponseFile(options) ? OCSP_STATE_PENDING
                                                                                : OCSP_STATE_NO_RESPONDER;
}

void ocspShowUrl(ocspCert *cert, const ocspOptions *options) {
    const char *first = cert->id->url_count ? cert->id->urls[0] : "";

    ocspCleanText(cert->stats.url, sizeof(cert->stats.url),
                  ocspHasResponseFile(options) ? ""
                  : ocspHasUrl(options)        ? options->responder_url
                                               : first);
}

int64_t ocspRemainingMs(const ocspCert *cert, const ocspEnv *env) {
    return cert->current.der ? cert->current.expires_at * 1000 - env->wall_ms() : 0;
}

int ocspHasValid(const ocspCert *cert, const ocspEnv *env) {
    return ocspRemainingMs(cert, env) > 0;
}

/* Returns the milliseconds until max-interval requires a refresh; INT64_MAX: it does not apply. */
static int64_t ocspIntervalIn(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    const ocspMoment *at = &cert->schedule.interval;
    int64_t wall_in = at->wall_ms - env->wall_ms(), mono_in = at->mono_ms - env->mono_ms();

    if (!at->wall_ms || ocspHasResponseFile(options)) return INT64_MAX;
    return wall_in < mono_in ? wall_in : mono_in;
}

/* Returns the milliseconds until the margin or a retry requires a refresh; INT64_MAX: never. */
static int64_t ocspPlannedIn(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    if (cert->schedule.retry_at_ms) return cert->schedule.retry_at_ms - env->mono_ms();
    if (ocspHasResponseFile(options)) return INT64_MAX; /* read again when it changes, see ocspWatchFile */
    return cert->current.der ? cert->schedule.refresh_at_ms - env->wall_ms() : 0;
}

int64_t ocspIntervalAtMs(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int64_t in = ocspIntervalIn(cert, options, env);

    return in < ocspPlannedIn(cert, options, env) ? env->wall_ms() + in : 0;
}

int64_t ocspDueIn(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int64_t mono = env->mono_ms(), interval_in, in, floor;

    if (!cert->active || cert->state != OCSP_STATE_PENDING) return INT64_MAX;
    if (cert->schedule.refresh_requested) return 0;
    interval_in = ocspIntervalIn(cert, options, env);
    in = cert->schedule.refresh_now ? 0 : ocspPlannedIn(cert, options, env);
    if (interval_in < in) in = interval_in;
    if (in == INT64_MAX) return in;
    /* The minimum interval beats the deadline: a responder that backdates its responses would otherwise cause a
     * spin. */
    floor = cert->schedule.last_refresh_ms ? cert->schedule.last_refresh_ms + OCSP_MIN_INTERVAL_MS - mono : 0;
    return in > floor ? in : floor;
}

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static const char *ocspPlural(long long count) {
    return count == 1 ? "" : "s";
}

/* Logs a notice, once per certificate, if the digest of the response's CertID is not SHA-1. Most clients look for a
 * CertID with SHA-1 (RFC 5019 section 2.1.1) and find no status under another, although the response is valid. */
static void ocspLogCertIdDigest(ocspCert *cert) {
    ocspSource source = cert->current.source;

    if (cert->current.certid_digest == NID_sha1 || cert->logged.certid_digest) return;
    cert->logged.certid_digest = 1;
    ocspLog(OCSP_LOG_NOTICE,
            "certificate %s: the OCSP response identifies it by a CertID with %s. Java, curl, NSS and `openssl ocsp` "
            "look for SHA-1 and find no status in it: %s%s%s",
            cert->id->serial, OBJ_nid2sn(cert->current.certid_digest),
            source == OCSP_SOURCE_FILE     ? "request the response for "
            : source == OCSP_SOURCE_PUSHED ? "request the response to push"
                                           : "configure the responder to answer with the CertID of the request",
            source == OCSP_SOURCE_FILE ? ocspPrefix() : "",
            source == OCSP_SOURCE_FILE     ? "response-file with a SHA-1 CertID"
            : source == OCSP_SOURCE_PUSHED ? " with a SHA-1 CertID"
                                           : ", which has SHA-1");
}

void ocspLogInstalled(ocspCert *cert) {
    static const char *const from[] = {"", "the responder", "the cache", "the response file", "an operator"};
    const ocspResponse *current = &cert->current;
    char when[40], revoked[40];

    ocspUtcText(current->expires_at, when, sizeof(when));
    if (cert->depth == 0 && current->len > OCSP_MAX_STAPLE_TLS12 && cert->replaced.len <= OCSP_MAX_STAPLE_TLS12)
        ocspLog(OCSP_LOG_WARNING,
                "certificate %s: the OCSP response has %zu bytes; TLS 1.2 clients accept at most %d and get no "
                "staple. "
                "Configure the responder to answer for one certificate only, without its chain",
                cert->id->serial, current->len, OCSP_MAX_STAPLE_TLS12);
    if (current->revoked && !cert->replaced.revoked && cert->depth > 0) {
        ocspLog(
            OCSP_LOG_WARNING,
            "certificate %s: a CA in the served chain, REVOKED on %s; clients that check the whole chain will reject "
            "this server. Replace that CA's certificate and what it has issued. The revoked response is stapled until "
            "%s",
            cert->id->serial, ocspUtcText(current->revoked_at, revoked, sizeof(revoked)), when);
    } else if (current->revoked && !cert->replaced.revoked) {
        ocspLog(OCSP_LOG_WARNING,
                "certificate %s: REVOKED on %s; clients that check will reject this server. Replace the certificate. "
                "The revoked response is stapled until %s",
                cert->id->serial, ocspUtcText(current->revoked_at, revoked, sizeof(revoked)), when);
    } else if (!current->revoked && cert->replaced.revoked) {
        ocspLog(OCSP_LOG_NOTICE, "certificate %s: good again; response valid until %s", cert->id->serial, when);
    } else if (!cert->replaced.exists || current->source == OCSP_SOURCE_PUSHED) {
        ocspLog(OCSP_LOG_NOTICE, "certificate %s: stapling a response that is valid until %s (%zu bytes from %s%s%s)",
                cert->id->serial, when, current->len, from[current->source],
                current->source == OCSP_SOURCE_NETWORK ? " " : "",
                current->source == OCSP_SOURCE_NETWORK ? cert->stats.url : "");
    } else if (cert->replaced.failure_logged || cert->replaced.expired) {
        ocspLog(OCSP_LOG_NOTICE,
                "certificate %s: OCSP refresh recovered after %lld failure%s; response valid until "
                "%s",
                cert->id->serial, cert->replaced.failures, ocspPlural(cert->replaced.failures), when);
    } else {
        ocspLog(OCSP_LOG_DEBUG, "certificate %s: OCSP response refreshed; valid until %s", cert->id->serial, when);
    }
    ocspLogCertIdDigest(cert);
}

static void ocspLogFailure(ocspCert *cert, const ocspEnv *env) {
    const char *code = ocspErrorWord(cert->stats.last_error_code);
    long long seconds = (cert->schedule.retry_at_ms - env->mono_ms() + 999) / 1000;
    char when[40];

    if (cert->logged.failure) return;
    cert->logged.failure = 1;
    if (ocspHasValid(cert, env))
        ocspLog(OCSP_LOG_WARNING,
                "certificate %s: OCSP refresh failed (%s): %s; retrying in %lld s, current response valid until %s",
                cert->id->serial, code, cert->stats.last_error, seconds,
                ocspUtcText(cert->current.expires_at, when, sizeof(when)));
    else
        ocspLog(OCSP_LOG_WARNING,
                "certificate %s: OCSP refresh failed (%s): %s; retrying in %lld s, no staple until then",
                cert->id->serial, code, cert->stats.last_error, seconds);
}

/* Logs a state without refreshes, once: some servers are meant to run in it. */
void ocspLogState(ocspCert *cert) {
    static const char *const sentences[] = {
        /* the second and third string are the prefix of directives */
        [OCSP_STATE_SELF_SIGNED] = "certificate %s: self-signed; no CA can report its status, so nothing is stapled",
        [OCSP_STATE_NO_ISSUER] =
            "certificate %s: unknown issuer, so no status can be requested or verified; append the CA's certificate to "
            "tls-cert-file, or name it in tls-ca-cert-file or in %sissuer-file",
        [OCSP_STATE_NO_RESPONDER] =
            "certificate %s: names no OCSP responder; set %sresponder-url if the CA has one, or supply responses with "
            "%sresponse-file",
        [OCSP_STATE_PENDING] = NULL,
    };

    if (cert->logged.state == (int)cert->state) return;
    cert->logged.state = (int)cert->state;
    if (sentences[cert->state])
        ocspLog(OCSP_LOG_NOTICE, sentences[cert->state], cert->id->serial, ocspPrefix(), ocspPrefix());
}

void ocspLogTime(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int64_t now = ocspNow(env), deadline;
    int valid = ocspHasValid(cert, env);
    char when[40];

    if (valid && cert->stats.consecutive_failures > 0 && !cert->logged.half_window && !ocspHasResponseFile(options)) {
        deadline = ocspRefreshDeadline(&cert->current, options->refresh_margin);
        if (now >= deadline + (cert->current.expires_at - deadline) / 2) {
            cert->logged.half_window = 1;
            ocspLog(OCSP_LOG_WARNING,
                    "certificate %s: half of the refresh window elapsed with %lld failure%s; the response expires on "
                    "%s, and then no staple is sent. Last error (%s): %s",
                    cert->id->serial, cert->stats.consecutive_failures, ocspPlural(cert->stats.consecutive_failures),
                    ocspUtcText(cert->current.expires_at, when, sizeof(when)),
                    ocspErrorWord(cert->stats.last_error_code), cert->stats.last_error);
        }
    }
    if (cert->current.der && !valid && !cert->logged.expired) {
        cert->logged.expired = 1;
        ocspUtcText(cert->current.expires_at, when, sizeof(when));
        if (cert->stats.last_error[0])
            ocspLog(OCSP_LOG_WARNING,
                    "certificate %s: the OCSP response expired on %s; handshakes continue without a staple. Last error "
                    "(%s): %s",
                    cert->id->serial, when, ocspErrorWord(cert->stats.last_error_code), cert->stats.last_error);
        else
            ocspLog(OCSP_LOG_WARNING,
                    "certificate %s: the OCSP response expired on %s; handshakes continue without a staple",
                    cert->id->serial, when);
    }
    if (cert->id->must_staple && !valid && !cert->logged.missing &&
        (cert->state != OCSP_STATE_PENDING || cert->stats.consecutive_failures > 0)) {
        cert->logged.missing = 1;
        ocspLog(OCSP_LOG_WARNING,
                "certificate %s: must-staple (RFC 7633) but no valid response; strict clients will refuse this "
                "server",
                cert->id->serial);
    }
}

/* ---- the schedule ------------------------------------------------------------------------------------------------ */

static void ocspScheduleRefresh(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    cert->schedule.refresh_at_ms =
        ocspRefreshAtMs(&cert->current, options->refresh_margin, env->wall_ms(), env->random());
}

/* Schedules the refresh that max-interval requires after the last answer, or none. */
static void ocspScheduleInterval(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    const ocspMoment *answered = &cert->schedule.answered;
    int64_t wall = env->wall_ms(), mono = env->mono_ms(), since, in;

    memset(&cert->schedule.interval, 0, sizeof(cert->schedule.interval));
    if (!options->max_interval || !answered->wall_ms) return;
    since = wall - answered->wall_ms > mono - answered->mono_ms ? wall - answered->wall_ms : mono - answered->mono_ms;
    in = ocspIntervalDelayMs(options->max_interval, since, env->random());
    cert->schedule.interval = (ocspMoment){wall + in, mono + in};
}

/* Records that an answer came `age_ms` ago, and schedules the refresh that max-interval requires after it. */
static void ocspAnswered(ocspCert *cert, const ocspOptions *options, const ocspEnv *env, int64_t age_ms) {
    int64_t wall = env->wall_ms();

    if (age_ms < -OCSP_CLOCK_SKEW * 1000) age_ms = wall - 1; /* the clock was wrong: the age is unknown, so overdue */
    if (age_ms < 0) age_ms = 0;
    cert->schedule.answered = (ocspMoment){wall - age_ms, env->mono_ms() - age_ms};
    ocspScheduleInterval(cert, options, env);
}

static int64_t ocspRetryAt(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    return env->mono_ms() + ocspRetryDelayMs(options->retry_delay, cert->schedule.attempt, ocspRemainingMs(cert, env),
                                             cert->id->must_staple, env->random());
}

static void ocspBackOff(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    if (cert->schedule.attempt < UINT32_MAX) cert->schedule.attempt++;
    cert->schedule.retry_at_ms = ocspRetryAt(cert, options, env);
}

/* Schedules the next refresh after one that was due but returned nothing newer. With a valid response that is not a
 * failure: no spin, and no quick retries either. */
static void ocspScheduleRecheck(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int64_t recheck_at_ms;

    if (!ocspHasValid(cert, env)) {
        ocspBackOff(cert, options, env);
        return;
    }
    cert->schedule.attempt = 0;
    recheck_at_ms = ocspRecheckAtMs(&cert->current, options->refresh_margin, env->wall_ms(), env->random());
    if (recheck_at_ms)
        cert->schedule.refresh_at_ms = recheck_at_ms;
    else
        cert->schedule.retry_at_ms =
            env->mono_ms() + ocspOutageDelayMs(ocspRemainingMs(cert, env), cert->id->must_staple, env->random());
}

void ocspCapRetry(ocspCert *cert, const ocspEnv *env) {
    int64_t latest = env->mono_ms() + ocspRetryCapMs(ocspRemainingMs(cert, env), cert->id->must_staple);

    if (cert->schedule.retry_at_ms > latest) cert->schedule.retry_at_ms = latest;
}

int ocspCapByClock(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int64_t now_ms = env->wall_ms(), hourly = now_ms + (int64_t)OCSP_REVOKED_RECHECK * 1000;

    if (!cert->current.der) return 0;
    if (cert->current.revoked && cert->schedule.refresh_at_ms > hourly) cert->schedule.refresh_at_ms = hourly;
    if (cert->current.next_update || cert->current.expires_at <= now_ms / 1000 + OCSP_DEFAULT_VALIDITY) return 0;
    cert->current.expires_at = now_ms / 1000 + OCSP_DEFAULT_VALIDITY;
    cert->schedule.refresh_at_ms = ocspRefreshAtMs(&cert->current, options->refresh_margin, now_ms, env->random());
    return 1;
}

static int ocspDiffers(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") != 0;
}

void ocspOptionsChanged(ocspCert *cert, const ocspOptions *old, const ocspOptions *options, const ocspEnv *env) {
    int file_changed = ocspDiffers(old->response_file, options->response_file);
    /* Not while the way to the responder works: then the next refresh is early enough. */
    int way_changed = ocspDiffers(old->proxy, options->proxy) && !ocspHasResponseFile(options) &&
                      (cert->stats.consecutive_failures > 0 || !ocspHasValid(cert, env));

    cert->state = ocspStateOf(cert->id, options);
    if (file_changed || way_changed || ocspDiffers(old->responder_url, options->responder_url)) {
        cert->schedule.refresh_now = cert->active;
        cert->schedule.attempt = 0;
        ocspShowUrl(cert, options);
    }
    if (file_changed || ocspDiffers(old->cache_dir, options->cache_dir)) {
        cert->cache.outdated = 1;
        cert->cache.checked = cert->logged.unusable_cache = 0;
        cert->cache.load_at_ms = 0;
        cert->cache.dirty = ocspHasValid(cert, env) && cert->current.source != OCSP_SOURCE_FILE;
        cert->cache.store_at_ms = 0;
    }
    if (options->stapling && !old->stapling) cert->schedule.refresh_if_empty = cert->active;
    if (cert->current.der && options->refresh_margin != old->refresh_margin) ocspScheduleRefresh(cert, options, env);
    /* Turned on: what became overdue meanwhile is spread. */
    if (options->max_interval != old->max_interval || (options->stapling && !old->stapling))
        ocspScheduleInterval(cert, options, env);
    if (cert->schedule.retry_at_ms && options->retry_delay != old->retry_delay) {
        int64_t at = ocspRetryAt(cert, options, env);
        if (at < cert->schedule.retry_at_ms) cert->schedule.retry_at_ms = at;
    }
}

/* ---- a response -------------------------------------------------------------------------------------------------- */

static void ocspSucceeded(ocspCert *cert, const ocspEnv *env) {
    cert->stats.consecutive_failures = 0;
    cert->logged.failure = 0;
    cert->stats.last_error[0] = '\0';
    cert->stats.last_error_code = OCSP_FAIL_NONE;
    cert->stats.last_success = ocspNow(env);
}

/* Makes `fresh` the current response and takes ownership of its memory. */
static void ocspInstallResponse(ocspCert *cert,
                                const ocspOptions *options,
                                const ocspEnv *env,
                                ocspResponse *fresh,
                                ocspSource source) {
    cert->replaced.exists = cert->current.der != NULL;
    cert->replaced.revoked = cert->current.revoked;
    cert->replaced.len = cert->current.len;
    cert->replaced.expired = cert->current.der && !ocspHasValid(cert, env);
    cert->replaced.failures = cert->stats.consecutive_failures;
    cert->replaced.failure_logged = cert->logged.failure;
    ocspResponseClear(&cert->current);
    fresh->source = source;
    cert->current = *fresh;
    memset(fresh, 0, sizeof(*fresh));
    ocspScheduleRefresh(cert, options, env);
    if (source == OCSP_SOURCE_FILE) { /* not an answer of the responder */
        memset(&cert->schedule.answered, 0, sizeof(cert->schedule.answered));
        ocspScheduleInterval(cert, options, env);
    } else {
        ocspAnswered(cert, options, env,
                     source == OCSP_SOURCE_CACHE ? env->wall_ms() - cert->current.received * 1000 : 0);
    }
    cert->logged.half_window = cert->logged.expired = cert->logged.missing = 0;
    cert->cache.dirty = source == OCSP_SOURCE_NETWORK || source == OCSP_SOURCE_PUSHED;
    cert->cache.outdated = source != OCSP_SOURCE_CACHE;
    cert->cache.store_at_ms = 0;
}

/* Handles a response that is the current one again: CAs that sign in advance return the same bytes for hours. */
static void ocspResponseUnchanged(ocspCert *cert, const ocspOptions *options, const ocspEnv *env) {
    int64_t now_ms = env->wall_ms(), next;

    if (cert->logged.failure)
        ocspLog(OCSP_LOG_NOTICE,
                "certificate %s: the responder answers again after %lld failure%s; the current response is still its "
                "newest",
                cert->id->serial, cert->stats.consecutive_failures, ocspPlural(cert->stats.consecutive_failures));
    ocspSucceeded(cert, env);
    ocspAnswered(cert, options, env, 0);
    cert->schedule.retry_at_ms = 0;
    if (ocspHasValid(cert, env) && cert->current.revoked) { /* the hourly refresh: again in an hour, not a retry */
        next = ocspRefreshAtMs(&cert->current, options->refresh_margin, now_ms, env->random());
        if (next > now_ms) cert->schedule.refresh_at_ms = next;
    }
    if (ocspHasValid(cert, env) && now_ms < cert->schedule.refresh_at_ms)
        cert->schedule.attempt = 0;
    else
        ocspScheduleRecheck(cert, options, env);
}

/* A response without nextUpdate is valid for ten minutes from its receipt. For a file that is its mtime, which copying
 * or restoring the file renews. So the validity ends at the latest 15 minutes (10, and 5 for the clock skew) after
 * the response was signed (the later of thisUpdate and producedAt), as in Java. A CA that omits nextUpdate says that
 * newer information is always available (RFC 6960 section 4.2.2.1) and signs on request, so a response that was just
 * received loses nothing; one that the CA signed long before is requested again after a restart. */
int ocspVerifyFile(const ocspCert *cert,
                   const ocspEnv *env,
                   ocspBytes der,
                   int64_t mtime,
                   ocspResponse *out,
                   ocspError *err) {
    int64_t now = ocspNow(env), latest;

    if (!ocspVerify(der, cert->id, now, mtime, out, err)) return 0;
    latest = out->produced_at > out->this_update ? out->produced_at : out->this_update;
    latest += OCSP_CLOCK_SKEW + OCSP_DEFAULT_VALIDITY;
    if (out->next_update || out->expires_at <= latest) return 1;
    out->expires_at = latest;
    if (out->expires_at > now) return 1;
    if (err) err->expired = !out->revoked;
    ocspResponseClear(out);
    return ocspFail(err, OCSP_FAIL_EXPIRED,
                    "the response has no nextUpdate and was signed more than %d seconds ago: request a new one",
                    OCSP_CLOCK_SKEW + OCSP_DEFAULT_VALIDITY);
}

ocspOutcome ocspAcceptVerified(ocspCert *cert,
                               const ocspOptions *options,
                               const ocspEnv *env,
                               ocspResponse *fresh,
                               ocspSource source,
                               ocspError *err) {
    ocspFreshness freshness = ocspCompare(&cert->current, fresh, ocspNow(env));

    if (source == OCSP_SOURCE_FILE) freshness = OCSP_FRESH_NEWER; /* an operator-supplied file always wins */
    if (freshness == OCSP_FRESH_OLDER) {
        ocspFail(err, OCSP_FAIL_OLDER, "the response is %s: the responder, or a cache in front of it, is behind",
                 fresh->this_update < cert->current.this_update ? "older than the current response"
                 : fresh->produced_at < cert->current.produced_at
                     ? "produced earlier than the current response"
                     : "good, but as old as the current response, which says revoked");
        ocspResponseClear(fresh);
        return OCSP_OUTCOME_STALE;
    }
    if (freshness == OCSP_FRESH_SAME) {
        if (source == OCSP_SOURCE_NETWORK)
            ocspResponseUnchanged(cert, options, env); /* a file does not show that the responder works */
        ocspResponseClear(fresh);
        return OCSP_OUTCOME_UNCHANGED;
    }
    ocspInstallResponse(cert, options, env, fresh, source);
    ocspSucceeded(cert, env);
    cert->schedule.retry_at_ms = 0;
    if (source == OCSP_SOURCE_NETWORK && cert->schedule.refresh_at_ms <= env->wall_ms())
        ocspScheduleRecheck(cert, options, env); /* backdated, or about to expire: due again on arrival */
    else
        cert->schedule.attempt = 0;
    return OCSP_OUTCOME_NEW;
}

ocspOutcome ocspAcceptResponse(ocspCert *cert,
                               const ocspOptions *options,
                               const ocspEnv *env,
                               const ocspReceived *in,
                               ocspError *err) {
    ocspResponse fresh;
    int ok = in->source == OCSP_SOURCE_NETWORK ? ocspVerify(in->der, cert->id, ocspNow(env), in->at, &fresh, err)
                                               : ocspVerifyFile(cert, env, in->der, in->at, &fresh, err);

    return ok ? ocspAcceptVerified(cert, options, env, &fresh, in->source, err) : OCSP_OUTCOME_INVALID;
}

void ocspRefreshFailed(ocspCert *cert, const ocspOptions *options, const ocspEnv *env, int requested) {
    cert->stats.consecutive_failures++;
    /* The retries follow, and not one refresh after another because max-interval is over. */
    if (ocspIntervalIn(cert, options, env) <= 0) memset(&cert->schedule.interval, 0, sizeof(cert->schedule.interval));
    if (!requested || cert->schedule.retry_at_ms <= env->mono_ms()) ocspBackOff(cert, options, env);
    ocspLogFailure(cert, env);
}

#endif /* OCSP_SUPPORTED */
