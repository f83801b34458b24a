/* sim_model.c - the promises. A second, much smaller engine, written from docs/ and the policy. It gets the same inputs
 * as the real engine (each answer, each file read), and the simulated CA supplies the validity of each answer. The
 * model does not see the real engine's random numbers: where jitter decides, it keeps the earliest and the latest time
 * allowed.
 *
 * What is checked:
 *   staple     in each handshake: exactly the current response is stapled while it is valid, and never another
 *   early      no refresh before the policy allows it: refresh time, back-off, a second between refreshes
 *   late       no refresh after the latest time: deadline, upper end of the back-off, an hour for revoked, immediately
 *              after a request
 *   interval   no refresh later than max-interval after the last answer, or, where that is over at a start or when the
 *              directive is set, a tenth of it later
 *   hour       in any hour no more refreshes than the back-off allows
 *   fresh      after an outage: a refresh within the policy's longest wait, and then a newer response, if the
 *              responders have one
 *   contradicted  once a revocation is known, no older good response is stapled
 *   revived    nor from the disk after a restart, unless the disk refused to remove the file
 *   schedule   the next try in INFO is in the future, and before the response expires
 *   restart    a valid response on disk is stapled from the first handshake on, also for a new certificate or directory
 *   adopt      the TLS context in service is followed after its second handshake (checked in sim_run.c)
 *   disk       the stapled response is on disk soon after, however the process ended; nothing valid is deleted
 *   info       INFO agrees with the model
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "sim.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/ocsp.h>

#define SIM_HOUR_REFRESHES 256
#define SIM_QUIET_SLACK (10 * SIM_SECOND)
#define SIM_INFO_EACH 16 /* checks without INFO to one with it: INFO costs more than the other checks */

#define SIM_CACHE_DIRS 2

/* The state of one cache directory, for one certificate. */
typedef struct simCacheDir {
    int clean;      /* a process that knew `lasting_revocation` ended, and had the time to remove older responses */
    int used;       /* by this process */
    int64_t due_at; /* true time: must be clean after it; a process that ends at that very moment is excused */
    int64_t removal_failed_at; /* true time: the disk refused to remove the file; SIM_NEVER: it did not refuse */
    int changed;               /* since due_at */
    int durable;               /* changed, and the directory synced */
    int tampered;              /* the file was replaced or damaged by something other than the engine */
} simCacheDir;

/* A time on both clocks; wall 0: none. It is reached when either clock reaches it. */
typedef struct simMoment {
    int64_t wall, mono;
} simMoment;

/* The state that the policy requires for one certificate. Times of refreshes are monotonic milliseconds, 0 for none. */
typedef struct simCertModel {
    int tracked, active, was_active;
    unsigned order;           /* of tracking: the oldest is forgotten first */
    int issuer_known, issuer; /* issuer: index of its issuer's certificate that the engine knows */
    /* Of a leaf: the indices of the CAs that are followed with it, in the order of the chain, -1: none there; and the bytes
     * of the certificates in a TLS message. */
    int follows[OCSP_MAX_CHAIN - 1];
    size_t chain_bytes;
    int error; /* its last refresh failed, for INFO; 2: that depends on what was pushed or supplied */
    const simAnswer *current;
    ocspSource source;
    int loaded_from;    /* index of the directory, for a source of OCSP_SOURCE_CACHE: cache-dir may change afterwards */
    int64_t expires_at; /* of `current`, wall clock seconds */
    /* Refreshes. */
    int refreshing;                   /* a refresh is under way */
    int required_now;                 /* it was required at once, not by the schedule */
    int manual_refresh, maybe_manual; /* it answers a request of the operator; perhaps does */
    int refresh_requested;            /* by the operator */
    int refresh_now;                  /* after a reload or a directive */
    int maybe_requested;             /* a request came during a refresh: it may cause another one, or be served by it */
    int just_attached, just_enabled; /* a start; stapling turned on: refresh now unless `current` is valid */
    int may_refresh;                 /* staple-chain was turned on: a refresh is allowed, whatever is on disk */
    int64_t last_refresh_mono, last_refresh_true; /* when the last refresh ended */
    int64_t retry_early, retry_late;              /* monotonic: the earliest and the latest time of the next retry */
    int64_t refresh_early, refresh_late;          /* wall: likewise of the next refresh */
    simMoment answered;                           /* the last answer, for max-interval */
    simMoment interval_early, interval_late;      /* the earliest and the latest time that max-interval requires */
    int interval_refresh;                         /* the refresh under way can only be that of max-interval */
    int64_t interval_clock;              /* how far the wall clock was ahead of the monotonic one when it began */
    int retry_late_open;                 /* retry_late may be a refresh time: a shorter retry cap does not shorten it */
    unsigned attempts_min, attempts_max; /* consecutive failures for the back-off; jitter may hide the exact number */
    long long failures;
    /* The disk. */
    int64_t dirty_since;    /* true time, SIM_NEVER: nothing to store */
    const simAnswer *saved; /* the last response that the engine stored successfully */
    char saved_path[160];
    int tampered;
    int acceptable_answer;       /* the last answer was acceptable on its own, without comparison to `current` */
    int store_pending;           /* `current` came from the network, and no store was attempted yet */
    int cache_unchecked;         /* the cache file was not read yet, in this directory */
    const simAnswer *revocation; /* the newest revocation that this process knows */
    /* Across restarts: the newest revocation that any process knew, and for each directory whether an older good
     * response must not be there. */
    const simAnswer *lasting_revocation;
    simCacheDir dirs[SIM_CACHE_DIRS];
    int64_t better_since; /* true time: the responders have a newer response than `current`; 0: no */
    int64_t needs_since;  /* true time: nothing valid, or a refresh is due; 0: no */
    int64_t longest_wait; /* after the last refresh, by the `current` of that time */
} simCertModel;

static simCertModel models[SIM_MAX_CERTS];

/* The automatic refreshes of the last hour, and how many extra ones each event allows. Monotonic. */
static struct {
    int64_t at;
    int allowance; /* extra refreshes; 0: this entry is a refresh */
    int limit;     /* of a refresh: how many the policy allowed in an hour at that time */
} hours[SIM_MAX_CERTS][SIM_HOUR_REFRESHES];
static int hour_count[SIM_MAX_CERTS];

static int64_t disturbed_at, clock_disturbed_at; /* true time: the last event began or ended */
static ocspOptions engine;        /* options that the engine adopted; strings are constants of sim_run.c */
static ocspOptions wanted;        /* options that the main thread set */
static simServed attach, adopted; /* the context that main attached last, and the one that the engine adopted */
static unsigned tracked_count;
static int options_new, attach_new, attached_before, requests, in_refresh, late_request;
static long long refreshes, failed_refreshes, failed_kinds[OCSP_ERR_KINDS]; /* by kind; the first: unknown kind */

static int64_t simMax(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t simMin(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t simNow(void) {
    return (int64_t)(simWallMs() / 1000);
}

static int simHasResponseFile(const ocspOptions *o) {
    return o->response_file && *o->response_file;
}

static int64_t simRemainingMs(const simCertModel *m) {
    return m->current ? (int64_t)m->expires_at * 1000 - simWallMs() : 0;
}

static int simCanQuery(const simCert *cert) {
    if (cert->self_signed || !models[cert->index].issuer_known) return 0;
    return cert->urls > 0 || (engine.responder_url && *engine.responder_url) || simHasResponseFile(&engine);
}

/* ---- the policy's numbers ---------------------------------------------------------------------------------------- */

/* Returns the longest wait: a quarter of the remaining validity, at most an hour; without a valid response five
 * minutes, and one minute for must-staple. */
static int64_t simRetryCapMs(const simCertModel *m, const simCert *cert) {
    int64_t left = simRemainingMs(m);

    if (left <= 0) return cert->must_staple ? SIM_MINUTE : 5 * SIM_MINUTE;
    return simMax(SIM_SECOND, simMin(left / 4, SIM_HOUR));
}

/* Returns the back-off after `n` failures: retry-delay * 2^(n-1), up to the cap. */
static int64_t simBackOffMs(unsigned n, int64_t cap) {
    int64_t base = engine.retry_delay * SIM_SECOND;

    while (n-- > 1 && base < cap) base *= 2;
    return base;
}

/* Whether the policy assumes an outage: the delay was doubled to more than a minute. With a valid response the wait is
 * then in the upper half of the longest wait. */
static int simIsOutage(const simCertModel *m, int64_t base) {
    return base > SIM_MINUTE && base > engine.retry_delay * SIM_SECOND && simRemainingMs(m) > 0;
}

static int64_t simEarliestRetry(const simCertModel *m, const simCert *cert, unsigned n) {
    int64_t cap = simRetryCapMs(m, cert), base = simBackOffMs(n, cap), wait = simMin(base, cap) * 8 / 10;

    if (simIsOutage(m, base)) wait = simMax(wait, cap / 2);
    return simMonoMs() + simMax(SIM_SECOND, wait - 2);
}

static int64_t simLatestRetry(const simCertModel *m, const simCert *cert, unsigned n) {
    int64_t cap = simRetryCapMs(m, cert), base = simBackOffMs(n, cap);
    int64_t wait = simIsOutage(m, base) ? cap : simMin(simMin(base, cap) * 12 / 10, cap);

    return simMonoMs() + simMax(SIM_SECOND, wait) + 2;
}

/* Returns the latest time of a refresh by refresh-margin, in wall milliseconds; *window: from then until expiry. */
static int64_t simRefreshDeadline(const simCertModel *m, int64_t *window) {
    int64_t validity = ((int64_t)m->expires_at - m->current->this_update) * 1000;

    *window = m->current->next_update ? simMax(0, validity) * engine.refresh_margin / 100 : 5 * SIM_MINUTE;
    return (int64_t)m->expires_at * 1000 - *window;
}

static void simScheduleRefresh(simCertModel *m) {
    int64_t window, now = simWallMs(), wait, left, early;

    m->refresh_late = simRefreshDeadline(m, &window);
    /* Jitter: a tenth of the window, at most a tenth of the time left until the deadline; or a fifth of the wait beyond
     * half an hour, at most half of the time left. The larger of the two. */
    wait = m->current->next_update ? m->refresh_late - (int64_t)m->current->this_update * 1000 : 5 * SIM_MINUTE;
    left = m->refresh_late - now;
    early = simMax(simMin(window, left) / 10, simMin((wait - 30 * SIM_MINUTE) / 5, left / 2));
    m->refresh_early = m->refresh_late - simMax(0, early) - 100;
    if (m->current->status == V_OCSP_CERTSTATUS_REVOKED) {
        if (m->refresh_late > now + SIM_HOUR) m->refresh_late = now + SIM_HOUR;
        m->refresh_early = simMin(m->refresh_early, now + 54 * SIM_MINUTE - 100);
    }
}

/* Returns the milliseconds since `at`, by the clock that shows more of them; negative: until then. */
static int64_t simSince(const simMoment *at) {
    return simMax(simWallMs() - at->wall, simMonoMs() - at->mono);
}

static int simReached(const simMoment *at, int64_t slack) {
    return at->wall && simSince(at) >= -slack;
}

static simMoment simIn(int64_t ms) {
    return (simMoment){simWallMs() + ms, simMonoMs() + ms};
}

/* Schedules the refresh by max-interval: at most that long after the last answer, up to a third of it earlier. If it is
 * over, or less than a tenth is left: within a tenth from now. */
static void simScheduleInterval(simCertModel *m) {
    int64_t ms = engine.max_interval * SIM_SECOND, late;

    m->interval_early = m->interval_late = (simMoment){0, 0};
    if (!ms || !m->answered.wall) return;
    late = simMax(ms - simSince(&m->answered), ms / 10);
    m->interval_early = simIn(simMax(0, late - ms / 3 - 1));
    m->interval_late = simIn(late);
}

/* Records an answer of the responder that came `age` ago; an answer from the future is of unknown age. */
static void simAnswered(simCertModel *m, int64_t age) {
    m->answered = simIn(age < -300 * SIM_SECOND ? -2 * 604800 * SIM_SECOND : -simMax(0, age));
    simScheduleInterval(m);
}

/* After a failed refresh the retries follow, and max-interval waits for the next answer. Where jitter decides whether
 * that refresh was the one of max-interval, another one may follow; so it does where the clock was set back meanwhile. */
static void simIntervalFailed(simCertModel *m) {
    int set_back = simWallMs() - simMonoMs() < m->interval_clock - SIM_SECOND;

    if ((m->interval_refresh && !set_back) || simReached(&m->interval_late, 0)) m->interval_early = (simMoment){0, 0};
    if (!m->interval_early.wall || simReached(&m->interval_early, 0)) m->interval_late = (simMoment){0, 0};
}

static void simBackOff(simCertModel *m, const simCert *cert) {
    m->attempts_min++;
    m->attempts_max++;
    m->retry_late_open = 0;
    m->retry_early = simEarliestRetry(m, cert, m->attempts_min);
    m->retry_late = simLatestRetry(m, cert, m->attempts_max);
}

/* Allows `allowance` extra refreshes within an hour from now, because the back-off starts again. */
static void simAllowExtra(const simCertModel *m, int allowance) {
    int which = (int)(m - models);

    if (hour_count[which] == SIM_HOUR_REFRESHES) hour_count[which] = 0; /* full of allowances */
    hours[which][hour_count[which]].at = simMonoMs();
    hours[which][hour_count[which]].limit = 0;
    hours[which][hour_count[which]++].allowance = allowance;
}

/* ---- the current response ---------------------------------------------------------------------------------------- */

/* Compares `a` with the current response: 1 newer, 0 same, -1 older. "Older means an earlier thisUpdate, same an equal
 * thisUpdate and status". Does not use simCompareTimes, which checks the result. */
static int simCompareCurrent(const simCertModel *m, const simAnswer *a, int64_t now) {
    const simAnswer *current = m->current;
    int current_revoked, revoked = a->status == V_OCSP_CERTSTATUS_REVOKED;

    if (!current) return 1;
    current_revoked = current->status == V_OCSP_CERTSTATUS_REVOKED;
    if (!current_revoked && m->expires_at <= now && a->next_update) return 1;
    if (!current_revoked && current->this_update > now + 300) return 1;
    if (a->this_update != current->this_update) return a->this_update > current->this_update ? 1 : -1;
    /* "With an equal thisUpdate the later producedAt is newer"; an earlier one never replaces the current response. */
    if (a->produced_at > current->produced_at) return 1;
    if (revoked == current_revoked) return 0;
    return a->produced_at == current->produced_at && revoked ? 1 : -1;
}

/* Schedules the next refresh after an acceptable answer that is not newer. Before the deadline: soon after it. After
 * the deadline: in the upper half of the longest wait. */
static void simScheduleRecheck(simCertModel *m, const simCert *cert) {
    int64_t window, deadline = simRefreshDeadline(m, &window);

    if (simRemainingMs(m) <= 0) {
        simBackOff(m, cert);
    } else if (simWallMs() < deadline) {
        m->refresh_early = deadline;
        m->refresh_late = deadline + simMin(window / 4, SIM_HOUR);
    } else {
        m->retry_late_open = 0;
        m->retry_early = simMonoMs() + simMax(SIM_SECOND, simRetryCapMs(m, cert) / 2 - 2);
        m->retry_late = simMonoMs() + simMax(SIM_SECOND, simRetryCapMs(m, cert)) + 2;
    }
}

static int simDirIndex(const char *dir) {
    return !dir || !*dir ? -1 : strcmp(dir, "other") == 0;
}

static int64_t cached_mtime; /* of the cache file that is being read, seconds */

/* Whether a response of this source is written to the disk. */
static int simIsStored(ocspSource source) {
    return source == OCSP_SOURCE_NETWORK || source == OCSP_SOURCE_PUSHED;
}

static void simInstallResponse(simCertModel *m, const simAnswer *a, ocspSource source, int64_t end) {
    m->current = a;
    hour_count[m - models] = 0; /* no outage, or the outage has ended */
    m->source = source;
    if (source == OCSP_SOURCE_CACHE) m->loaded_from = simDirIndex(engine.cache_dir);
    m->expires_at = end;
    simScheduleRefresh(m);
    if (source == OCSP_SOURCE_FILE) {
        m->answered = m->interval_early = m->interval_late = (simMoment){0, 0};
    } else {
        simAnswered(m, source == OCSP_SOURCE_CACHE ? simWallMs() - cached_mtime * 1000 : 0);
    }
    m->dirty_since = simIsStored(source) ? simTrueMs() : SIM_NEVER;
    m->store_pending = simIsStored(source) && engine.cache_dir && *engine.cache_dir;
    m->failures = m->error = 0;
    m->retry_early = m->retry_late = 0;
    m->retry_late_open = 0;
    m->attempts_min = m->attempts_max = 0;
    if (source == OCSP_SOURCE_NETWORK && m->refresh_late <= simWallMs())
        simScheduleRecheck(m, simCaCert((int)(m - models)));
}

/* Updates the schedule after the responder sent the current response again. The refresh was certainly due, certainly
 * not due, or jitter decides: then the model allows both. */
static void simResponseUnchanged(simCertModel *m, const simCert *cert) {
    int64_t now = simWallMs();
    int late;

    simAllowExtra(m, 8); /* the count of failures starts again at 0 */
    simAnswered(m, 0);
    m->failures = m->error = 0;
    m->retry_early = m->retry_late = 0;
    if (simRemainingMs(m) > 0 && m->current->status == V_OCSP_CERTSTATUS_REVOKED) {
        int64_t old_early = m->refresh_early, old_late = m->refresh_late, window,
                deadline = simRefreshDeadline(m, &window);
        simScheduleRefresh(m);
        if (deadline <= now) { /* past the deadline: the planned refresh stays */
            m->refresh_early = old_early;
            m->refresh_late = old_late;
        }
    }
    late = simRemainingMs(m) <= 0 || now >= m->refresh_late;
    if (simRemainingMs(m) > 0) m->attempts_min = m->attempts_max = 0;
    if (late) {
        simScheduleRecheck(m, cert);
    } else if (now >= m->refresh_early) { /* the planned refresh stays, or is postponed */
        simCertModel postponed = *m;
        simScheduleRecheck(&postponed, cert);
        m->refresh_late = simMax(m->refresh_late, postponed.refresh_late);
        if (!postponed.retry_late) {
            m->refresh_early = now;
        } else { /* may be due now, and in the future again when the clock is set back */
            m->retry_late_open = 1;
            m->retry_early = simMonoMs() + SIM_SECOND;
            m->retry_late = simMax(postponed.retry_late, simMonoMs() + (m->refresh_late - now) * 1001 / 1000 + 1000);
        }
    }
}

/* Returns the kind of failure of an unacceptable answer, by the policy's table; OCSP_ERR_NONE: unknown. */
static ocspErrorKind simFailureKind(const simCertModel *m, const simAnswer *a) {
    int64_t now = simNow();

    if (a->corrupted) return OCSP_ERR_NONE;
    if (!a->well_formed) return OCSP_ERR_RESPONSE;
    if (a->cert != m - models || (!a->acceptable && a->status != V_OCSP_CERTSTATUS_UNKNOWN)) return OCSP_ERR_VERIFY;
    if (a->signer_to && (a->signer_to <= now || a->signer_from > now + 300)) return OCSP_ERR_VERIFY;
    if (a->status == V_OCSP_CERTSTATUS_UNKNOWN) return OCSP_ERR_RESPONSE;
    return m->acceptable_answer ? OCSP_ERR_RESPONSE : OCSP_ERR_VERIFY; /* older than the current response; bad dates */
}

static void simRefreshFailed(simCertModel *m, const simCert *cert, ocspErrorKind kind) {
    int64_t mono = simMonoMs();

    m->failures++;
    m->error = 1;
    simIntervalFailed(m);
    failed_refreshes++;
    failed_kinds[kind]++;
    if (!m->manual_refresh || m->retry_late <= mono) {
        simBackOff(m, cert);
    } else if (m->maybe_manual) { /* whether this refresh counts as the requested one depends on the order of events */
        int64_t early = m->retry_early, late = m->retry_late;
        unsigned low = m->attempts_min;
        simBackOff(m, cert);
        m->retry_early = simMin(early, m->retry_early);
        m->retry_late = simMax(late, m->retry_late);
        m->attempts_min = low;
    } else if (m->retry_early <= mono) { /* jitter decides whether the automatic retry was still in the future */
        m->attempts_max++;
        m->retry_early = mono;
        m->retry_late = simMax(m->retry_late, simLatestRetry(m, cert, m->attempts_max));
    }
}

/* Records a revocation. From now on, older good responses must be removed from all directories that this process uses
 * or has used. */
static void simRecordRevoked(simCertModel *m, const simAnswer *a) {
    int i;

    if (m->revocation != a) {
        for (i = 0; i < SIM_CACHE_DIRS; i++) {
            m->dirs[i].due_at = simTrueMs();
            m->dirs[i].removal_failed_at = SIM_NEVER;
            m->dirs[i].changed = m->dirs[i].durable = 0;
        }
    }
    m->revocation = m->lasting_revocation = a;
}

/* Records a good response: the CA lifted the revocation, or the operator's response-file overrides it, or the responder
 * is outdated and this process knows no revocation. */
static void simRecordGood(simCertModel *m, const simAnswer *a, ocspSource source) {
    int i;

    if (source == OCSP_SOURCE_FILE || (m->revocation && simCompareTimes(a, m->revocation) > 0)) m->revocation = NULL;
    if (source == OCSP_SOURCE_FILE || (m->lasting_revocation && simCompareTimes(a, m->lasting_revocation) > 0))
        m->lasting_revocation = NULL;
    for (i = 0; i < SIM_CACHE_DIRS && simIsStored(source); i++) m->dirs[i].clean = 0;
}

/* Applies an answer to the model. Returns 1 if it is acceptable and not older than the current response. */
static int simAccept(simCertModel *m, const simCert *cert, const simAnswer *a, ocspSource source, int64_t received) {
    int64_t end = 0, now = simNow();
    int order;

    m->acceptable_answer = simAcceptable(a, cert, now, received, &end);
    if (!m->acceptable_answer) return 0;
    order = source == OCSP_SOURCE_FILE ? 1 : simCompareCurrent(m, a, now);
    if (order < 0) return 0; /* older, revoked or not: the responder is outdated */
    /* A response-file always wins: it overrides a known revocation. */
    if (a->status != V_OCSP_CERTSTATUS_REVOKED)
        simRecordGood(m, a, source);
    else if (!m->revocation || simCompareTimes(a, m->revocation) > 0 || source == OCSP_SOURCE_FILE)
        simRecordRevoked(m, a);
    if (order > 0)
        simInstallResponse(m, a, source, end);
    else if (source == OCSP_SOURCE_NETWORK) /* a file is no evidence about the responder */
        simResponseUnchanged(m, cert);
    return 1;
}

/* ---- what the engine adopts at the beginning of a step ----------------------------------------------------------- */

static int simDiffers(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") != 0;
}

/* Marks the engine's cache directory as used: a known revocation applies to it from now on. */
static void simUseCacheDir(simCertModel *m) {
    int i = simDirIndex(engine.cache_dir);

    if (i < 0 || m->dirs[i].used) return;
    m->dirs[i].used = 1;
    m->dirs[i].due_at = simTrueMs();
    m->dirs[i].removal_failed_at = SIM_NEVER;
    m->dirs[i].changed = m->dirs[i].durable = 0;
}

static void simAdoptOptions(void) {
    ocspOptions old = engine;
    int i, source, n = simCaCertCount();

    engine = wanted;
    options_new = 0;
    for (i = 0; i < n; i++) simUseCacheDir(&models[i]);
    source = simDiffers(old.responder_url, engine.responder_url) || simDiffers(old.response_file, engine.response_file);
    for (i = 0; i < n; i++) {
        simCertModel *m = &models[i];
        simCert *cert = simCaCert(i);
        if (!m->tracked) continue;
        simAllowExtra(m, 12);
        if (source) {
            m->refresh_now = m->active;
            m->attempts_min = m->attempts_max = 0;
        }
        if (simDiffers(old.cache_dir, engine.cache_dir) || simDiffers(old.response_file, engine.response_file)) {
            m->dirty_since =
                m->current && simRemainingMs(m) > 0 && m->source != OCSP_SOURCE_FILE ? simTrueMs() : SIM_NEVER;
            m->saved = NULL;
            m->cache_unchecked = 1;
            m->store_pending = 0;
        }
        if (engine.stapling && !old.stapling) m->just_enabled = m->active;
        if (m->current && engine.refresh_margin != old.refresh_margin) simScheduleRefresh(m);
        if (engine.max_interval != old.max_interval || (engine.stapling && !old.stapling)) simScheduleInterval(m);
        if (m->retry_late && engine.retry_delay != old.retry_delay) {
            unsigned low = m->attempts_min ? m->attempts_min : 1, high = m->attempts_max ? m->attempts_max : 1;
            m->retry_early = simMin(m->retry_early, simEarliestRetry(m, cert, low));
            if (!m->retry_late_open) m->retry_late = simMin(m->retry_late, simLatestRetry(m, cert, high));
        }
    }
}

/* Forgets what a process knows of a certificate; what is on disk, and what an earlier process knew, stays. */
static void simForget(simCertModel *m) {
    simCertModel fresh = {.saved = m->saved, .tampered = m->tampered, .dirty_since = SIM_NEVER};
    int d;

    fresh.lasting_revocation = m->lasting_revocation;
    for (d = 0; d < SIM_CACHE_DIRS; d++) {
        fresh.dirs[d].clean = m->dirs[d].clean;
        fresh.dirs[d].removal_failed_at = SIM_NEVER;
    }
    for (d = 0; d < OCSP_MAX_CHAIN - 1; d++) fresh.follows[d] = -1;
    memcpy(fresh.saved_path, m->saved_path, sizeof(fresh.saved_path));
    *m = fresh;
}

/* Tracks a certificate. Of more than OCSP_MAX_CERTS the oldest is forgotten that is neither active nor was before the last
 * reload. */
static void simTrack(simCertModel *m) {
    int i, d, count = 0, oldest = -1, n = simCaCertCount();

    if (m->tracked) return;
    for (i = 0; i < n; i++) {
        const simCertModel *other = &models[i];
        count += other->tracked;
        if (!other->tracked || other->active || other->was_active) continue;
        if (oldest < 0 || other->order < models[oldest].order) oldest = i;
    }
    if (count == OCSP_MAX_CERTS && oldest >= 0) {
        simForget(&models[oldest]);
        for (i = 0; i < n; i++)
            for (d = 0; d < OCSP_MAX_CHAIN - 1; d++)
                if (models[i].follows[d] == oldest) models[i].follows[d] = -1;
    }
    m->tracked = 1;
    m->order = ++tracked_count;
    m->cache_unchecked = 1;
}

/* Looks for the issuer in what the context has, and in the one adopted before: of several the one that ends last. */
static void simFindIssuer(simCertModel *m, simCert *cert) {
    int64_t ends = 0;
    int i;

    for (i = 0; i < adopted.issuer_count; i++) {
        if (adopted.issuers[i].ca != cert->issuer || adopted.issuers[i].ends <= ends) continue;
        ends = adopted.issuers[i].ends;
        m->issuer = adopted.issuers[i].cert;
    }
    if (ends) cert->issuer_ends = ends;
    m->issuer_known = ends || (m->tracked && m->issuer_known); /* a known issuer is kept */
}

static int simFollows(const ocspOptions *o) {
    return o->staple_chain && simThisWorld()->chain.supported;
}

static int simFollowedCount(void) {
    return simFollows(&engine) ? (int)simMin(adopted.ca_count, OCSP_MAX_CHAIN - 1) : 0;
}

/* Marks what is active: the leaves, and with staple-chain the next three certificates of the chain but the root. */
static void simMarkActive(void) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++) models[i].active = 0;
    for (i = 0; i < adopted.count; i++) models[adopted.leaves[i]].active = 1;
    for (i = 0; i < simFollowedCount(); i++) models[adopted.cas[i]].active = 1;
    for (i = 0; i < n; i++) {
        simCertModel *m = &models[i];
        if (m->active) continue;
        m->refresh_now = m->refresh_requested = m->just_attached = m->maybe_requested = m->may_refresh = 0;
        m->needs_since = m->better_since = 0;
    }
}

/* Sets which CAs are followed with each leaf. */
static void simSetFollows(void) {
    int i, d;

    for (i = 0; i < adopted.count; i++) {
        simCertModel *m = &models[adopted.leaves[i]];
        m->chain_bytes =
            adopted.chain_bytes + (size_t)i2d_X509(simCaCert(adopted.leaves[i])->leaf, NULL) + OCSP_ENTRY_OVERHEAD;
        for (d = 0; d < OCSP_MAX_CHAIN - 1; d++) m->follows[d] = d < simFollowedCount() ? adopted.cas[d] : -1;
    }
}

static void simAdoptCert(int index) {
    simCertModel *m = &models[index];

    simFindIssuer(m, simCaCert(index));
    simTrack(m);
    simUseCacheDir(m);
    if (simRefreshPending()) m->maybe_requested = 1; /* a pending refresh request applies to the new certificates */
    if (attached_before)
        m->refresh_now = 1;
    else
        m->just_attached = 1;
}

static void simAdoptContext(void) {
    int i, n = simCaCertCount();

    attach_new = 0;
    adopted = attach;
    for (i = 0; i < n; i++) models[i].was_active = models[i].active;
    simMarkActive();
    for (i = 0; i < adopted.count; i++) simAdoptCert(adopted.leaves[i]);
    for (i = 0; i < simFollowedCount(); i++) simAdoptCert(adopted.cas[i]);
    simSetFollows();
    attached_before = 1;
}

/* After staple-chain was changed: the CAs that are followed anew are refreshed if they have no valid response. */
static void simAdoptChain(void) {
    int i, n = simCaCertCount();

    simMarkActive();
    for (i = 0; i < simFollowedCount(); i++) {
        simCertModel *m = &models[adopted.cas[i]];
        simCert *cert = simCaCert(adopted.cas[i]);
        int known = m->tracked, issuer = m->issuer;
        simFindIssuer(m, cert);
        simTrack(m);
        simUseCacheDir(m);
        if (!known) m->just_enabled = 1;
        if (!known || issuer != m->issuer) m->may_refresh = 1;
    }
    simSetFollows();
    for (i = 0; i < n && simRefreshPending(); i++) models[i].maybe_requested = models[i].active;
}

/* After a start, or after stapling was turned on: requires a refresh now if no valid response was read from disk. Call
 * it only after the engine has read the disk. */
static void simRefreshIfEmpty(simCertModel *m) {
    if ((m->just_attached || m->just_enabled) && simRemainingMs(m) <= 0) m->refresh_now = 1;
    m->just_attached = m->just_enabled = 0;
}

void simModelStepBegins(void) {
    int i, n = simCaCertCount(), refresh_requested = requests, followed = engine.staple_chain;
    int64_t now = simWallMs();

    requests = 0;
    if (options_new) simAdoptOptions();
    if (attach_new)
        simAdoptContext();
    else if (attached_before && engine.staple_chain != followed)
        simAdoptChain();
    for (i = 0; i < n; i++) {
        simCertModel *m = &models[i];
        simCert *cert = simCaCert(i);
        if (!m->tracked) continue;
        if (refresh_requested && m->active && simCanQuery(cert)) m->refresh_requested = 1;
        if (!simRefreshPending()) m->maybe_requested = 0; /* the refresh under way served the request */
        if (late_request && simRefreshPending() && m->active)
            m->maybe_requested = 1; /* adopted only now, after the last refreshes */
        if (!engine.stapling) {
            m->refresh_now = m->refresh_requested = m->just_attached = m->just_enabled = m->maybe_requested =
                m->may_refresh = 0;
            continue;
        }
        if (!m->current) continue;
        if (m->current->status == V_OCSP_CERTSTATUS_REVOKED) {
            m->refresh_late = simMin(m->refresh_late, now + SIM_HOUR);
            m->refresh_early = simMin(m->refresh_early, m->refresh_late);
        }
        if (!m->current->next_update && m->expires_at > now / 1000 + 600) { /* the clock was set back */
            m->expires_at = (int64_t)(now / 1000) + 600;
            simScheduleRefresh(m);
        }
        if (m->retry_late) m->retry_early = simMin(m->retry_early, simMonoMs() + simRetryCapMs(m, cert));
    }
    late_request = 0;
}

/* ---- refreshes --------------------------------------------------------------------------------------------------- */

/* Checks that the last hour has no more automatic refreshes than the back-off allows. Without a response: doubling from
 * a second, then the longest wait less a fifth. With more than an hour of validity left: doubling to a minute, then at
 * least half of a quarter of an hour. Near expiry: a quarter of the remaining validity less a fifth, repeatedly. Unlike
 * the check of each pair of refreshes, this one counts all of them, whatever allowed each single one. */
static void simCheckHourlyRate(simCertModel *m, const simCert *cert) {
    int which = (int)(m - models), i, kept = 0, counted = 1, extra = 0, own_limit;
    int limit = 12 + (int)(SIM_HOUR / (cert->must_staple ? 48 * SIM_SECOND : 240 * SIM_SECOND)) + 1;
    int64_t now = simMonoMs();

    if (simRemainingMs(m) > SIM_HOUR)
        limit = 7 + 8 + 1;
    else if (m->current && simRemainingMs(m) > -SIM_HOUR)
        limit += 45;
    own_limit = limit;
    for (i = 0; i < hour_count[which]; i++) {
        if (hours[which][i].at <= now - SIM_HOUR) continue;
        extra += hours[which][i].allowance;
        counted += !hours[which][i].allowance;
        /* The limit of that time: a clock that is set back makes an expired response valid for long. */
        if (hours[which][i].limit > limit) limit = hours[which][i].limit;
        hours[which][kept++] = hours[which][i];
    }
    hour_count[which] = kept;
    if (kept == SIM_HOUR_REFRESHES) return; /* full of allowances: `early` reports */
    hours[which][kept].at = now;
    hours[which][kept].allowance = 0;
    hours[which][kept].limit = own_limit;
    limit += extra;
    hour_count[which]++;
    simRequire(counted <= limit, "hour", "%d refreshes in an hour, the policy allows about %d", counted, limit);
}

void simModelRequestSent(simCert *cert, int url) {
    simCertModel *m = &models[cert->index];
    int64_t mono = simMonoMs(), wall = simWallMs();
    int refresh_now, by_interval = simReached(&m->interval_early, 0), i;

    if (m->refreshing) { /* the next URL of the same refresh */
        simRequire(url > 0, "early", "URL %d is requested twice in a refresh", url);
        return;
    }
    simRefreshIfEmpty(m);
    for (i = 0; i < simCaCertCount() && engine.cache_dir && *engine.cache_dir; i++)
        simRequire(!models[i].active || !models[i].store_pending || i == cert->index, "disk",
                   "a request is sent before the other certificate's response is stored");
    simRequire(engine.stapling, "early", "request sent with stapling off");
    simRequire(m->tracked && m->active, "early", "request sent for a certificate that is not served");
    simRequire(!simHasResponseFile(&engine), "early", "request sent although response-file is set");
    refresh_now = m->refresh_requested || m->refresh_now || m->maybe_requested || m->may_refresh;
    if (!m->refresh_requested && !m->maybe_requested && m->last_refresh_mono)
        simRequire(mono >= m->last_refresh_mono + SIM_SECOND, "early", "two refreshes within %lld ms",
                   (long long)(mono - m->last_refresh_mono));
    m->interval_clock = wall - mono;
    m->interval_refresh =
        by_interval && !refresh_now && m->current && (m->retry_late ? mono < m->retry_early : wall < m->refresh_early);
    if (by_interval) {
        /* may be the refresh of max-interval */
    } else if (!refresh_now && m->retry_late) {
        simRequire(mono >= m->retry_early, "early", "retry %u is %lld ms too early (%lld ms after the last refresh)",
                   m->attempts_min, (long long)(m->retry_early - mono), (long long)(mono - m->last_refresh_mono));
    } else if (!refresh_now && m->current) {
        simRequire(wall >= m->refresh_early, "early", "refreshed %lld ms before the earliest time",
                   (long long)(m->refresh_early - wall));
    }
    if (!refresh_now && m->retry_late && !by_interval)
        simCheckHourlyRate(m, cert);
    else if (refresh_now)
        simAllowExtra(m, 12);
    m->refreshing = in_refresh = 1;
    m->manual_refresh = m->refresh_requested || m->maybe_requested;
    m->maybe_manual = m->maybe_requested && !m->refresh_requested;
    m->required_now = m->refresh_now;
    m->refresh_requested = m->refresh_now = m->maybe_requested = m->may_refresh = 0;
}

static void simRefreshEnds(simCertModel *m) {
    m->refreshing = in_refresh = 0;
    m->last_refresh_mono = simMonoMs();
    m->last_refresh_true = simTrueMs();
    m->longest_wait = simRetryCapMs(m, simCaCert((int)(m - models)));
    refreshes++;
    simCountRefresh();
}

void simModelAnswerReceived(simCert *cert, const simAnswer *answer, ocspErrorKind kind, int last) {
    simCertModel *m = &models[cert->index];
    int taken = answer && simAccept(m, cert, answer, OCSP_SOURCE_NETWORK, simNow());

    if (!taken && !last) return;
    if (!taken) simRefreshFailed(m, cert, answer ? simFailureKind(m, answer) : kind);
    simRefreshEnds(m);
}

void simModelCancelled(simCert *cert) {
    simCertModel *m = &models[cert->index];

    m->refreshing = in_refresh = 0;
    m->maybe_requested = m->manual_refresh;
    /* Cancelled for a pushed response: the refresh follows if it is still due. */
    m->refresh_now = m->required_now || !simPushPending();
    if (simPushPending()) simAllowExtra(m, 2);
}

/* A pushed response counts as one from a responder, except that it shows nothing about the responder. */
void simModelPushed(const simAnswer *answer) {
    int i;

    if (!answer || simHasResponseFile(&engine)) return;
    for (i = 0; i < simCaCertCount(); i++) {
        simCertModel *m = &models[i];
        simCert *cert = simCaCert(i);
        const simAnswer *before = m->current;
        if (m->active && !m->error) m->error = 2;
        if (!m->active || !m->issuer_known || cert->self_signed) continue;
        if (!simAccept(m, cert, answer, OCSP_SOURCE_PUSHED, simReceivedAt(answer, simNow(), simNow()))) continue;
        if (m->current != before) m->refresh_now = 0; /* the next refresh is at the refresh time */
    }
}

simCert *simModelTrackedCert(int depth) {
    int i;

    if (depth) return depth <= simFollowedCount() ? simCaCert(adopted.cas[depth - 1]) : NULL;
    for (i = 0; i < simCaCertCount() && (!models[i].active || simCaCert(i)->level); i++) continue;
    return i < simCaCertCount() ? simCaCert(i) : NULL;
}

void simModelFileRead(const char *dir, const unsigned char *der, size_t len, int64_t mtime, simCert *cert) {
    simCertModel *m = &models[cert->index];
    const simAnswer *a = der ? simCaFind(der, len) : NULL;
    int64_t received = a ? simReceivedAt(a, mtime, simNow()) : 0;
    ocspSource source = dir ? OCSP_SOURCE_CACHE : OCSP_SOURCE_FILE;
    int taken;

    cached_mtime = mtime;
    if (dir) { /* read at a start, or before a store: accepted if newer */
        if (simRemainingMs(m) <= 0) m->cache_unchecked = 0;
        if (a == m->current && !engine.stapling) return; /* compared only; a renewed issuer may make it valid again */
        if (a && m->issuer_known && !simHasResponseFile(&engine) && strcmp(dir, engine.cache_dir) == 0)
            simAccept(m, cert, a, source, received);
        return;
    }
    simRefreshIfEmpty(m);
    if (!m->refresh_requested && !m->maybe_requested && m->last_refresh_mono)
        simRequire(simMonoMs() >= m->last_refresh_mono + SIM_SECOND, "early", "the file is read twice within a second");
    m->manual_refresh = m->refresh_requested || m->maybe_requested;
    m->maybe_manual = m->maybe_requested && !m->refresh_requested;
    m->refresh_requested = m->refresh_now = m->maybe_requested = m->may_refresh = m->interval_refresh = 0;
    taken = a && simAccept(m, cert, a, source, received);
    if (!taken && a && a->well_formed && a->cert != cert->index) { /* for another one: not stapled, not a failure */
        m->retry_early = m->retry_late = 0;
        m->error = 1;
    } else if (!taken) {
        simRefreshFailed(m, cert, a ? simFailureKind(m, a) : der ? OCSP_ERR_NONE : OCSP_ERR_NETWORK);
    }
    simRefreshEnds(m);
}

/* ---- checks ------------------------------------------------------------------------------------------------------ */

/* Returns the response that must be stapled for a certificate, NULL: none. */
static const simAnswer *simWanted(const simCertModel *m) {
    return wanted.stapling && m->tracked && simRemainingMs(m) > 0 && simNow() < m->expires_at ? m->current : NULL;
}

static void simCheckStaple(const simCert *cert, const simAnswer *want, const unsigned char *der, size_t len) {
    const simCertModel *m = &models[cert->index];
    const simAnswer *a = der ? simCaFind(der, len) : NULL;
    int64_t now = simNow(), end;

    if (a == want && (der != NULL) == (want != NULL) && !m->revocation && !m->lasting_revocation) return;
    if (der && !a) simBroken("staple", "%zu bytes are stapled that no responder sent", len);
    if (der && a->status == V_OCSP_CERTSTATUS_GOOD && m->revocation && simCompareTimes(a, m->revocation) <= 0)
        simBroken("contradicted", "a good response is stapled, thisUpdate %+lld s; revoked since thisUpdate %+lld s",
                  (long long)(a->this_update - now), (long long)(m->revocation->this_update - now));
    if (der && a->status == V_OCSP_CERTSTATUS_GOOD && m->lasting_revocation &&
        simCompareTimes(a, m->lasting_revocation) <= 0 && m->source == OCSP_SOURCE_CACHE &&
        m->dirs[m->loaded_from].clean)
        simBroken("revived",
                  "after a restart a good response is stapled from the disk, thisUpdate %+lld s; an earlier process "
                  "knew a revocation, thisUpdate %+lld s",
                  (long long)(a->this_update - now), (long long)(m->lasting_revocation->this_update - now));
    if (a == want && (der != NULL) == (want != NULL)) return;
    if (der && a->cert != cert->index) simBroken("staple", "another certificate's response is stapled");
    if (der && !simAcceptable(a, cert, now, now, &end))
        simBroken("staple", "an unacceptable response is stapled: %s, thisUpdate %+lld s, nextUpdate %+lld s",
                  a->description, (long long)(a->this_update - now), (long long)(a->next_update - now));
    if (der && want)
        simBroken("staple", "stapled: thisUpdate %+lld s, status %d; required: thisUpdate %+lld s, status %d (%s)",
                  (long long)(a->this_update - now), a->status, (long long)(want->this_update - now), want->status,
                  want->description);
    if (der)
        simBroken("staple", "stapled although no response may be: expires %+lld s", (long long)(m->expires_at - now));
    simBroken("staple", "no staple at level %d although the current response is valid (%s, expires %+lld s)",
              cert->level, want->description, (long long)(m->expires_at - now));
}

/* With staple-chain the CAs' responses follow the leaf's, each beside its own certificate, as far as the message stays within
 * OCSP_MAX_CHAIN_MESSAGE: of a longer one those of the upper CAs are left out. */
void simModelCheckHandshake(const simCert *leaf, const simSent *sent) {
    const simCertModel *m = &models[leaf->index];
    const simAnswer *of_leaf = simWanted(m);
    size_t bytes = m->chain_bytes + (m->current ? m->current->len : 0);
    int d;

    simCheckStaple(leaf, of_leaf, sent->response[0].der, sent->response[0].len);
    if (!m->tracked || !wanted.stapling || !simFollows(&wanted)) {
        simRequire(!sent->chain, "staple", "responses for CAs are stapled, which must not be");
        return;
    }
    for (d = 1; d < OCSP_MAX_CHAIN; d++) {
        const simCertModel *ca = m->follows[d - 1] >= 0 ? &models[m->follows[d - 1]] : NULL;
        int fits = ca && ca->current && bytes + ca->current->len <= OCSP_MAX_CHAIN_MESSAGE;
        if (!ca) {
            simRequire(!sent->response[d].der, "staple", "a response at level %d, where no CA is followed", d);
            continue;
        }
        if (fits) bytes += ca->current->len;
        simCheckStaple(simCaCert(m->follows[d - 1]), fits ? simWanted(ca) : NULL, sent->response[d].der,
                       sent->response[d].len);
    }
}

/* The fields of INFO that the model checks. */
typedef struct simInfo {
    long long next, expires, failures, this_update, refreshes, refresh_failures, kinds;
    long long followed, good, revoked, chain_handshakes;
    char state[32], chain_error[600];
} simInfo;

static simInfo info[2];

static void simInfoText(void *arg, const char *field, const char *value) {
    simInfo *i = &info[strncmp(field, "alt_", 4) == 0];

    (void)arg;
    if (i != info) field += 4;
    if (field[0] == 's' && strcmp(field, "state") == 0) snprintf(i->state, sizeof(i->state), "%s", value);
    if (strcmp(field, "chain_last_error") == 0) snprintf(i->chain_error, sizeof(i->chain_error), "%s", value);
}

static void simInfoNumber(void *arg, const char *field, long long value) {
    simInfo *i = &info[strncmp(field, "alt_", 4) == 0];

    (void)arg;
    if (i != info) field += 4;
    switch (field[0]) {
    case 'n':
        if (strcmp(field, "next_refresh_in_seconds") == 0) i->next = value;
        break;
    case 'e':
        if (strcmp(field, "expires_in_seconds") == 0) i->expires = value;
        break;
    case 'c':
        if (strcmp(field, "consecutive_failures") == 0) i->failures = value;
        if (strcmp(field, "chain_followed") == 0) i->followed = value;
        if (strcmp(field, "chain_good") == 0) i->good = value;
        if (strcmp(field, "chain_revoked") == 0) i->revoked = value;
        break;
    case 'h':
        if (strcmp(field, "handshakes_chain_stapled") == 0) i->chain_handshakes = value;
        break;
    case 't':
        if (strcmp(field, "this_update") == 0) i->this_update = value;
        break;
    case 'f': i->kinds += value; break;
    case 'r':
        if (strcmp(field, "refreshes") == 0) i->refreshes = value;
        if (strcmp(field, "refresh_failures") == 0) i->refresh_failures = value;
        break;
    default: break;
    }
}

static void simReadInfo(void) {
    static const ocspInfoSink sink = {simInfoText, simInfoNumber, NULL};

    memset(info, 0, sizeof(info));
    info[0].next = info[1].next = info[0].expires = info[1].expires = -1;
    ocspInfoState(&sink);
    ocspInfoCounters(&sink);
}

/* The engine's last report, from which INFO is made. The linker's --wrap of ocspSetReport copies it. */
static ocspReport report;

void __real_ocspSetReport(const ocspReport *r);
void __wrap_ocspSetReport(const ocspReport *r);
void __wrap_ocspSetReport(const ocspReport *r) {
    int i;

    report.count = r->count;
    report.refreshes = r->refreshes;
    report.refresh_failures = r->refresh_failures;
    memcpy(report.failures, r->failures, sizeof(report.failures));
    for (i = 0; i < r->count; i++) { /* without the long texts */
        report.status[i].this_update = r->status[i].this_update;
        report.status[i].expires_at = r->status[i].expires_at;
        report.status[i].refresh_at_ms = r->status[i].refresh_at_ms;
        report.status[i].retry_at_ms = r->status[i].retry_at_ms;
        report.status[i].consecutive_failures = r->status[i].consecutive_failures;
    }
    __real_ocspSetReport(r);
}

/* The engine's certificates, for what INFO does not show of CAs: when the next refresh is, and how many failed. */
static const ocspCertSet *engine_set;
static const ocspOptions *engine_options;

void __real_ocspFillReport(ocspReport *report,
                           const ocspCertSet *set,
                           const ocspOptions *options,
                           const ocspEnv *env,
                           ocspCertState empty_state);
void __wrap_ocspFillReport(ocspReport *report,
                           const ocspCertSet *set,
                           const ocspOptions *options,
                           const ocspEnv *env,
                           ocspCertState empty_state);
void __wrap_ocspFillReport(ocspReport *report,
                           const ocspCertSet *set,
                           const ocspOptions *options,
                           const ocspEnv *env,
                           ocspCertState empty_state) {
    engine_set = set;
    engine_options = options;
    __real_ocspFillReport(report, set, options, env, empty_state);
}

static const ocspCert *simEngineCert(const simCert *cert) {
    int i;

    for (i = 0; engine_set && i < engine_set->count; i++)
        if (memcmp(engine_set->certs[i]->id->sha256, cert->sha256, sizeof(cert->sha256)) == 0)
            return engine_set->certs[i];
    return NULL;
}

static int64_t next_try; /* true time of the next try, by the engine's report */
static unsigned checks;

static void simCheckInfo(const simCertModel *m, const simCert *cert, const simInfo *i) {
    const char *state = !wanted.stapling                                  ? "disabled"
                        : !m->current && cert->self_signed                ? "self-signed"
                        : !m->current && !m->issuer_known                 ? "no-issuer"
                        : !m->current && !simCanQuery(cert)               ? "no-responder"
                        : !m->current                                     ? "pending"
                        : simRemainingMs(m) <= 0                          ? "expired"
                        : m->current->status == V_OCSP_CERTSTATUS_REVOKED ? "revoked"
                                                                          : "good";

    simRequire(strcmp(i->state, state) == 0, "info", "ocsp_state is %s, must be %s", i->state, state);
    simRequire(i->failures == m->failures, "info", "consecutive_failures is %lld, must be %lld", i->failures,
               m->failures);
    simRequire(i->this_update == (m->current ? (long long)m->current->this_update : 0), "info",
               "this_update is not that of the current response");
}

/* Checks the fields of INFO about the chain. */
static void simCheckChainInfo(const simInfo *i) {
    int d, followed = 0, good = 0, revoked = 0, errors = 0, unsure = 0;

    for (d = 0; d < simFollowedCount(); d++) {
        const simCert *cert = simCaCert(adopted.cas[d]);
        const simCertModel *m = &models[cert->index];
        int valid = m->current && simRemainingMs(m) > 0;
        followed += simCanQuery(cert);
        good += valid && m->current->status == V_OCSP_CERTSTATUS_GOOD;
        revoked |= valid && m->current->status == V_OCSP_CERTSTATUS_REVOKED;
        errors += m->error == 1;
        unsure += m->error == 2;
    }
    simRequire(i->followed == followed && i->good == good && i->revoked == revoked, "info",
               "chain_followed, _good, _revoked are %lld, %lld, %lld, must be %d, %d, %d", i->followed, i->good,
               i->revoked, followed, good, revoked);
    simRequire(i->chain_handshakes == simChainHandshakes(), "info", "handshakes_chain_stapled is %lld, must be %lld",
               i->chain_handshakes, simChainHandshakes());
    if (engine.staple_chain && !simThisWorld()->chain.supported) errors = 1;
    simRequire((i->chain_error[0] != 0) == (errors > 0) || (unsure && !errors), "info",
               "%d CAs have failed, and chain_last_error is \"%s\"", errors, i->chain_error);
}

/* Returns the true time by which the current response must be on disk: at once, or after the disk's last failure. */
static int64_t simStoreDeadline(const simCertModel *m) {
    const simWorld *w = simThisWorld();
    int64_t deadline = m->dirty_since, retried_by;
    int i;

    for (i = 0; i < w->event_count && w->events[i].at <= simTrueMs(); i++) {
        const simEvent *e = &w->events[i];
        /* a failed store is retried within a minute, in which the machine may have slept */
        retried_by = simMax(e->at + e->duration, clock_disturbed_at) + 61 * SIM_SECOND;
        if (e->kind == SIM_DISK_FULL && !e->off && e->at + e->duration + 61 * SIM_SECOND > m->dirty_since &&
            retried_by > deadline)
            deadline = retried_by;
    }
    return deadline;
}

static void simCheckDisk(const simCertModel *m, const simCert *cert) {
    char path[160];
    const unsigned char *bytes;
    size_t len;
    int64_t mtime;

    if (!engine.cache_dir || !*engine.cache_dir || simHasResponseFile(&engine) || m->dirty_since == SIM_NEVER) return;
    if (simTrueMs() < simStoreDeadline(m)) return; /* a failed store is retried within a minute */
    snprintf(path, sizeof(path), "%s/%s", engine.cache_dir, cert->file);
    simRequire(simDiskRead(path, &bytes, &len, &mtime) && len == m->current->len &&
                   memcmp(bytes, m->current->der, len) == 0,
               "disk", "the response stapled for %lld ms is not on disk", (long long)(simTrueMs() - m->dirty_since));
}

void simModelDisturbed(int clock) {
    int i, n = simCaCertCount();

    disturbed_at = simTrueMs();
    if (!clock) return;
    clock_disturbed_at = disturbed_at;
    for (i = 0; i < n; i++) simAllowExtra(&models[i], 60);
}

/* Whether the CA, without a fault, has a response now that would become current and stay it for a while. Conservative:
 * may return 0 when it has one. */
static int simOffersBetter(const simCertModel *m, const simCert *cert) {
    simAnswer offer;
    int64_t now = simNow();
    int64_t validity;

    if (simActive(SIM_REVOKED) || simCaHasSignerCert()) return 0;
    simCaOffer(cert, NULL, &offer);
    validity = offer.next_update - offer.this_update;
    return offer.next_update && offer.this_update <= now &&
           (!m->current || offer.this_update > m->current->this_update) && cert->not_after > offer.next_update &&
           (!cert->issuer_ends || cert->issuer_ends > offer.next_update) &&
           offer.next_update - validity * engine.refresh_margin / 100 > now + SIM_QUIET_SLACK / 1000;
}

/* Checks that a due certificate is refreshed within the longest wait of the policy, and that without a fault the
 * responders' newer response becomes current. */
static void simCheckFresh(simCertModel *m, const simCert *cert) {
    const simWorld *w = simThisWorld();
    int64_t now = simTrueMs(), since, urls = cert->urls > 1 ? cert->urls : 1, slack;

    if (simRemainingMs(m) > 0 && simWallMs() < m->refresh_late) {
        m->needs_since = m->better_since = 0;
        return;
    }
    if (!m->needs_since) m->needs_since = now;
    since = simMax(simMax(m->last_refresh_true, m->needs_since), clock_disturbed_at);
    slack = 2 * SIM_SECOND + (now - since) / 1000; /* for clock drift */
    simRequire(now - since <= m->longest_wait + slack, "fresh",
               "no refresh for %lld ms; the longest wait allowed was %lld ms", (long long)(now - since),
               (long long)m->longest_wait);
    if (simHasFault() || w->latency * 2 >= engine.timeout * SIM_SECOND || !simOffersBetter(m, cert)) {
        m->better_since = 0;
        return;
    }
    if (!m->better_since) m->better_since = now;
    since = simMax(m->better_since, disturbed_at);
    slack += urls * engine.timeout * SIM_SECOND + SIM_QUIET_SLACK;
    simRequire(now - since <= SIM_HOUR + slack, "fresh",
               "no outage for %lld ms, but the responders' newer response is not current (%lld ms of validity left)",
               (long long)(now - since), (long long)simRemainingMs(m));
}

/* Returns the valid response on disk for `cert`, or NULL. */
static const simAnswer *simValidOnDisk(const simCert *cert, const ocspOptions *o) {
    char path[160];
    const unsigned char *bytes;
    const simAnswer *a;
    size_t len;
    int64_t mtime, end;

    if (!o->stapling || simHasResponseFile(o) || !o->cache_dir || !*o->cache_dir || simActive(SIM_DISK_UNREADABLE) ||
        cert->self_signed)
        return NULL;
    snprintf(path, sizeof(path), "%s/%s", o->cache_dir, cert->file);
    if (!simDiskRead(path, &bytes, &len, &mtime)) return NULL;
    a = simCaFind(bytes, len);
    return a && simAcceptable(a, cert, simNow(), simReceivedAt(a, mtime, simNow()), &end) ? a : NULL;
}

void simModelFirstHandshake(void) {
    int i;

    for (i = 0; i < simCaCertCount(); i++) {
        const simAnswer *a = models[i].active && models[i].issuer_known ? simValidOnDisk(simCaCert(i), &wanted) : NULL;
        simRequire(!a || models[i].current == a, "restart",
                   "a valid response is on disk, but not stapled in the first handshake");
    }
    for (i = 0; i < simCaCertCount() && wanted.stapling; i++) simRefreshIfEmpty(&models[i]);
}

/* Returns when the engine refreshes a CA next, by the monotonic clock. */
static int64_t simPlanOf(const ocspCert *cert) {
    int64_t in = ocspDueIn(cert, engine_options, &ocsp_env);
    int by_wall = !cert->schedule.retry_at_ms || ocspIntervalAtMs(cert, engine_options, &ocsp_env);

    if (in == INT64_MAX) return SIM_NEVER;
    return simMonoMs() + (by_wall ? simTrueOfWall(simWallMs() + in) - simTrueMs() : in);
}

void simModelIdle(void) {
    int i, n = simCaCertCount(), with_info = ++checks % SIM_INFO_EACH == 0;
    int64_t mono = simMonoMs(), wall = simWallMs(), now = simTrueMs();

    next_try = SIM_NEVER;
    simRequire(report.refreshes == refreshes && report.refresh_failures == failed_refreshes, "info",
               "refreshes are %lld (%lld failed), must be %lld (%lld)", report.refreshes, report.refresh_failures,
               refreshes, failed_refreshes);
    for (i = OCSP_ERR_NETWORK; i < OCSP_ERR_KINDS && failed_kinds[OCSP_ERR_NONE] == 0; i++)
        simRequire(report.failures[i] == failed_kinds[i], "info", "failures of kind %d are %lld, must be %lld", i,
                   report.failures[i], failed_kinds[i]);
    if (with_info) {
        simReadInfo();
        simRequire(info[0].refreshes == refreshes && info[0].refresh_failures == failed_refreshes &&
                       info[0].kinds == failed_refreshes,
                   "info", "refreshes, failures and failures by kind are %lld, %lld, %lld in INFO, must be %lld, %lld",
                   info[0].refreshes, info[0].refresh_failures, info[0].kinds, refreshes, failed_refreshes);
        if (engine.stapling && wanted.stapling) simCheckChainInfo(&info[0]);
    }
    for (i = 0; i < n; i++) {
        simCertModel *m = &models[i];
        simCert *cert = simCaCert(i);
        int which = adopted.count > 1 && i == adopted.leaves[1];
        const ocspStatus *status = &report.status[which];
        const ocspCert *of_engine = cert->level ? simEngineCert(cert) : NULL;
        long long failures;
        int64_t plan; /* monotonic */
        if (!m->tracked || !m->active) continue;
        simRequire(!cert->level || (of_engine && of_engine->active), "late", "the CA of level %d is not followed",
                   cert->level);
        if (with_info && !of_engine) simCheckInfo(m, cert, &info[which]);
        failures = of_engine ? of_engine->stats.consecutive_failures : status->consecutive_failures;
        simRequire(failures == m->failures, "info", "consecutive_failures at level %d is %lld, must be %lld",
                   cert->level, failures, m->failures);
        simRefreshIfEmpty(m);
        if (!engine.stapling || !wanted.stapling) {
            m->needs_since = m->better_since = 0;
            continue;
        }
        simCheckDisk(m, cert);
        if (m->cache_unchecked && m->issuer_known && simRemainingMs(m) <= 0)
            simRequire(!simValidOnDisk(cert, &engine), "restart",
                       "a valid response on disk, for a new certificate or in a new directory, is not read");
        plan = of_engine               ? simPlanOf(of_engine)
               : status->retry_at_ms   ? status->retry_at_ms
               : status->refresh_at_ms ? mono + simTrueOfWall(status->refresh_at_ms) - now
                                       : SIM_NEVER;
        if (plan != SIM_NEVER && plan > mono) next_try = simMin(next_try, now + plan - mono);
        if (!simCanQuery(cert) || simHasResponseFile(&engine)) {
            m->needs_since = m->better_since = 0;
            continue;
        }
        simCheckFresh(m, cert);
        if (m->retry_late) {
            if (!m->retry_late_open) m->retry_late = simMin(m->retry_late, mono + simRetryCapMs(m, cert));
            m->retry_early = simMin(m->retry_early, m->retry_late);
        }
        if (m->last_refresh_mono && mono < m->last_refresh_mono + SIM_SECOND)
            continue; /* the minimum interval beats all that follows */
        m->may_refresh = 0;
        simRequire(!m->refresh_requested, "late", "a refresh was requested and does not begin");
        simRequire(!m->refresh_now, "late", "a reload or a directive requires a refresh now, and it does not begin");
        if (m->retry_late)
            simRequire(mono <= m->retry_late, "late", "the retry after %u failures is %lld ms late", m->attempts_max,
                       (long long)(mono - m->retry_late));
        else if (m->current)
            simRequire(wall < m->refresh_late + 2, "late", "the refresh is %lld ms late",
                       (long long)(wall - m->refresh_late));
        else
            simBroken("late", "no current response, no refresh under way, and none scheduled");
        simRequire(!m->interval_late.wall || !simReached(&m->interval_late, -2), "interval",
                   "the refresh by max-interval is %lld ms late (%lld ms after the last answer)",
                   (long long)simSince(&m->interval_late), (long long)simSince(&m->answered));
        simRequire(plan > mono, "schedule", "the next try is %lld ms in the past", (long long)(mono - plan));
        if (simRemainingMs(m) > 2 * SIM_SECOND)
            simRequire(now + plan - mono <= simTrueOfWall((int64_t)m->expires_at * 1000), "schedule",
                       "the next try (in %lld ms) is after the expiry (in %lld ms)", (long long)(plan - mono),
                       (long long)simRemainingMs(m));
    }
}

int64_t simModelNextCheck(void) {
    int64_t next = SIM_NEVER, now = simTrueMs(), mono = simMonoMs(), at;
    int i, d, n = simCaCertCount();

    if (next_try > now) next = next_try;
    for (i = 0; i < n; i++) {
        simCertModel *m = &models[i];
        if (!m->tracked) continue;
        for (d = 0; d < SIM_CACHE_DIRS; d++) { /* a failed removal is retried */
            at = m->dirs[d].removal_failed_at == SIM_NEVER ? 0 : m->dirs[d].removal_failed_at + 60 * SIM_SECOND;
            if (at > now) next = simMin(next, at);
        }
        if (m->current) { /* just before and at expiry */
            at = simTrueOfWall((int64_t)m->expires_at * 1000);
            if (at - 1 > now) next = simMin(next, at - 1);
            if (at > now) next = simMin(next, at);
        }
        if (!m->active || !engine.stapling) continue;
        if (m->dirty_since != SIM_NEVER && (at = simStoreDeadline(m)) > now) next = simMin(next, at);
        if (m->retry_late && m->retry_late > mono) next = simMin(next, now + (m->retry_late - mono));
        if (!m->retry_late && m->current && (at = simTrueOfWall(m->refresh_late)) > now) next = simMin(next, at);
        if (m->interval_late.wall) {
            if ((at = simTrueOfWall(m->interval_late.wall)) > now) next = simMin(next, at);
            if (m->interval_late.mono > mono) next = simMin(next, now + m->interval_late.mono - mono);
        }
    }
    return next;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

void simModelStored(simCert *cert, int ok) {
    simCertModel *m = &models[cert->index];

    m->store_pending = 0;
    if (!ok) return;
    m->dirty_since = m->current ? simTrueMs() : SIM_NEVER; /* and must be on disk from now on */
    m->saved = m->current;
    m->tampered = simActive(SIM_DISK_NO_SYNC);
    snprintf(m->saved_path, sizeof(m->saved_path), "%s/%s", engine.cache_dir, cert->file);
    m->dirs[simDirIndex(engine.cache_dir)].tampered = 0;
    /* A process that does not know the revocation stores an older response: the next one may load it. */
    if (m->current && m->lasting_revocation && m->current->status == V_OCSP_CERTSTATUS_GOOD &&
        simCompareTimes(m->current, m->lasting_revocation) <= 0)
        m->dirs[simDirIndex(engine.cache_dir)].clean = 0;
}

static int simIsFileOf(const char *path, int cert) {
    return strcmp(path + (strrchr(path, '/') ? strrchr(path, '/') - path + 1 : 0), simCaCert(cert)->file) == 0;
}

static int simDirIndexOfPath(const char *path) {
    return strncmp(path, "other/", 6) == 0;
}

void simDiskChanged(const char *path) {
    int i, n = simCaCertCount();

    /* A temporary file counts too: a process that writes one had the time to remove older responses. */
    for (i = 0; i < n; i++)
        if (strstr(path, simCaCert(i)->file)) models[i].dirs[simDirIndexOfPath(path)].changed = 1;
}

void simDiskSynced(const char *dir) {
    int i, n = simCaCertCount(), d = simDirIndex(dir);

    for (i = 0; i < n && d >= 0; i++) models[i].dirs[d].durable = models[i].dirs[d].changed;
}

void simDiskRemovalFailed(const char *path) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++)
        if (simIsFileOf(path, i)) models[i].dirs[simDirIndexOfPath(path)].removal_failed_at = simTrueMs();
}

/* Records that something other than the engine replaced or damaged the file at `path`. */
void simModelTampered(const char *path) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++)
        if (simIsFileOf(path, i)) {
            models[i].dirs[simDirIndexOfPath(path)].tampered = 1;
            models[i].dirs[simDirIndexOfPath(path)].clean = 0;
            models[i].saved = NULL;
            if (models[i].dirty_since != SIM_NEVER && models[i].current) models[i].dirty_since = SIM_NEVER;
        }
}

/* Checks after a power failure that each response stored successfully is on disk. */
void simModelPowerFailure(void) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++) {
        simCertModel *m = &models[i];
        const unsigned char *bytes = NULL;
        const simAnswer *a;
        size_t len = 0;
        int64_t mtime;
        if (!m->saved || m->tampered || simDiskSyncSkipped(m->saved_path)) continue;
        if (simDiskRead(m->saved_path, &bytes, &len, &mtime) && len == m->saved->len &&
            memcmp(bytes, m->saved->der, len) == 0)
            continue;
        /* Or a newer one, whose store was under way. */
        a = bytes ? simCaFind(bytes, len) : NULL;
        simRequire(a && a->acceptable && a->cert == i, "disk",
                   "after a power failure the stored response is gone (%zu bytes)", len);
    }
}

/* Whether the engine may remove `a` (NULL: unknown content), although it is not expired: only if the current response
 * contradicts it. */
static int simMayRemove(const simCertModel *m, const simAnswer *a, const simCert *cert) {
    int64_t end;

    if (!m->current) return 0;
    if (m->current->status == V_OCSP_CERTSTATUS_REVOKED)
        return !a || a->status != V_OCSP_CERTSTATUS_REVOKED || !simAcceptable(a, cert, simNow(), simNow(), &end) ||
               simActive(SIM_DISK_UNREADABLE); /* an unreadable file may be a good response */
    return a && a->status == V_OCSP_CERTSTATUS_REVOKED && simCompareTimes(a, m->current) < 0;
}

void simDiskRemoved(const char *path, const unsigned char *bytes, size_t len) {
    const simAnswer *a = simCaFind(bytes, len);
    int i, n = simCaCertCount(), contradicted = 0, old;

    if (strstr(path, ".tmp-")) return;
    old = !a || !a->acceptable || !a->next_update || a->next_update + 7 * 86400 < simNow();
    for (i = 0; i < n; i++)
        if (simIsFileOf(path, i) && simMayRemove(&models[i], a, simCaCert(i))) contradicted = 1;
    simRequire(
        old || contradicted, "disk",
        "deleted a response that has not been expired for seven days and that the current one does not contradict");
    for (i = 0; i < n; i++)
        if (models[i].saved && strcmp(path, models[i].saved_path) == 0) {
            models[i].saved = NULL;
            if (old) models[i].dirty_since = SIM_NEVER;
        }
}

/* ---- start and end of a process ---------------------------------------------------------------------------------- */

void simModelBegin(void) {
    memset(models, 0, sizeof(models));
    memset(hour_count, 0, sizeof(hour_count));
    disturbed_at = clock_disturbed_at = 0;
}

void simModelStart(void) {
    int i;

    for (i = 0; i < SIM_MAX_CERTS; i++) simForget(&models[i]);
    engine_set = NULL;
    tracked_count = 0;
    memset(&adopted, 0, sizeof(adopted));
    engine = (ocspOptions)OCSP_OPTIONS_DEFAULT;
    engine.stapling = 0;
    memset(hour_count, 0, sizeof(hour_count));
    disturbed_at = clock_disturbed_at = simTrueMs();
    options_new = attach_new = attached_before = requests = in_refresh = late_request = 0;
    refreshes = failed_refreshes = 0;
    memset(failed_kinds, 0, sizeof(failed_kinds));
    next_try = SIM_NEVER;
    memset(&report, 0, sizeof(report));
}

/* Determines in which directories no older good response may be left for a later process: those that this process used,
 * and in which it had the time to remove the file. The engine tries that when it learns of the revocation, and again
 * within a minute if the disk refused. A power failure may bring back a file whose removal was not synced. */
void simModelEnd(int power) {
    int64_t now = simTrueMs(), last;
    int i, d;

    for (i = 0; i < SIM_MAX_CERTS; i++) {
        simCertModel *m = &models[i];
        if (!m->revocation) continue;
        for (d = 0; d < SIM_CACHE_DIRS; d++) {
            simCacheDir *s = &m->dirs[d];
            last = simMax(s->removal_failed_at == SIM_NEVER ? -SIM_HOUR : s->removal_failed_at, clock_disturbed_at);
            s->clean = s->used && m->issuer_known && m->active && !s->tampered && (now > s->due_at || s->changed) &&
                       (s->removal_failed_at == SIM_NEVER || now > last + 61 * SIM_SECOND) && (!power || s->durable);
        }
    }
}

void simModelAttach(const simServed *served) {
    attach = *served;
    attach_new = 1;
}

void simModelOptions(const ocspOptions *options) {
    wanted = *options;
    options_new = 1;
}

void simModelRefreshRequested(void) {
    int i;

    if (in_refresh)
        late_request = 1;
    else
        requests++;
    for (i = 0; in_refresh && i < SIM_MAX_CERTS; i++) models[i].maybe_requested = models[i].active;
}
