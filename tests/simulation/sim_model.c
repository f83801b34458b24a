/* sim_model.c - the promises. A second, much smaller engine, written from docs/ and the policy: it hears what the
 * real one hears (each answer, each file that is read) and knows, because the CA told it, what each answer is worth. It
 * does not know the real one's chance, so where that decides it keeps the earliest and the latest time allowed.
 *
 * What is checked:
 *   staple     at each look: exactly the response that must be held is stapled while it lasts, and nothing else ever
 *   early      no round before the policy allows it: refresh time, back-off, a second between rounds
 *   late       none after it: refresh formula, back-off's upper end, an hour for revoked, at once when told to
 *   hour       in any hour no more rounds than the back-off adds up to
 *   fresh      when the responders are well again: a round within the longest wait that the policy knows, and then a
 *              fresh response, if they have one
 *   contradicted  once a revocation is known, no older good word is stapled
 *   revived    nor from the disk after a restart, unless the disk could not be brought to forget it
 *   schedule   what INFO says of the next try lies ahead, and before the response's end
 *   restart    what lay valid on disk is stapled from the first handshake on, also of a new certificate or directory
 *   disk       what is stapled lies on disk soon after, whatever ended the process; nothing valid is deleted
 *   info       INFO tells the same story
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "sim.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <openssl/ocsp.h>

#define SIM_HOUR_ROUNDS 256
#define SIM_QUIET_SLACK (10 * SIM_SECOND)
#define SIM_INFO_EACH 16 /* looks: making INFO costs more than what it tells of */

#define SIM_SHELVES 2

/* A directory, for one certificate. */
typedef struct simShelf {
    int clean;          /* since a process ended that knew `lasting` and had the time to remove what is older */
    int used;           /* by this process */
    int64_t due_at;     /* true time: since then it must be clean; in that very moment the process may die before */
    int64_t refused_at; /* true time: the disk refused to remove what lies there; SIM_NEVER: it did not */
    int changed;        /* since due_at */
    int durable;        /* and synced */
    int tampered;       /* something was put there from outside */
} simShelf;

typedef struct simMind {
    int followed, active;
    int chain; /* its issuer is known */
    const simAnswer *held;
    ocspSource source;
    int64_t end;
    /* Rounds. Monotonic milliseconds are 0 for none. */
    int round, round_asked, round_may; /* one is under way; asked for; perhaps */
    int asked, at_once;                /* by the operator; by a reload or a directive */
    int may;         /* a request that came during a round: it may be asked again, or that round was enough */
    int first, bare; /* at once unless something valid is held: a start; stapling turned on */
    int rounds_seen;
    int64_t last_end, last_end_true;
    int64_t retry_early, retry_late;     /* monotonic */
    int64_t refresh_early, refresh_late; /* wall */
    int open_end;                   /* retry_late may be a refresh time: what shortens retries does not shorten it */
    unsigned tries_low, tries_high; /* failures in a row for the back-off; chance may hide which */
    long long failures;
    /* The disk. */
    int64_t unsaved_since;  /* true time, SIM_NEVER: nothing to save */
    const simAnswer *saved; /* what the engine was told is on disk */
    char saved_path[160];
    int tampered;
    int judged;                   /* the last answer would have been good, had nothing been held */
    int untold;                   /* what is held came from the network, and no store was tried yet */
    int unread;                   /* what lies on disk for it has not been looked at, in this directory */
    const simAnswer *contradicts; /* the newest revocation that this process knows */
    /* Across restarts: the newest revocation that any process knew, and for each directory whether good from before it
     * must not lie there. */
    const simAnswer *lasting;
    simShelf shelf[SIM_SHELVES];
    int64_t better_since; /* true time: the responders have something better than what is held; 0: no */
    int64_t needs_since;  /* true time: nothing valid is held, or it is time to refresh; 0: no */
    int64_t longest_wait; /* after the last round, by what was held then */
} simMind;

static simMind minds[SIM_MAX_CERTS];

/* Rounds of the last hour that nobody asked for, and how many more than usual each excuse allows. Monotonic. */
static struct {
    int64_t at;
    int allows; /* 0: a round */
    int most;   /* of a round: how many an hour could hold then */
} hours[SIM_MAX_CERTS][SIM_HOUR_ROUNDS];
static int hour_count[SIM_MAX_CERTS];

static int64_t disturbed_at, clock_disturbed_at; /* true time: the last event began or ended */
static ocspOptions engine;                       /* what the engine has taken; strings are constants of sim_run.c */
static ocspOptions wanted;                       /* what main has set */
static int options_new, attach_new, attach_count, attach[2], attach_chain, attached_before, requests, in_round,
    late_request;
static long long rounds, failed_rounds, failed_kinds[OCSP_ERR_KINDS]; /* by kind; the first: nobody knows */

static int64_t simMax(int64_t a, int64_t b) {
    return a > b ? a : b;
}

static int64_t simMin(int64_t a, int64_t b) {
    return a < b ? a : b;
}

static int64_t simNow(void) {
    return (int64_t)(simWallMs() / 1000);
}

static int simHasFile(const ocspOptions *o) {
    return o->response_file && *o->response_file;
}

static int64_t simLeft(const simMind *m) {
    return m->held ? (int64_t)m->end * 1000 - simWallMs() : 0;
}

static int simCanAsk(const simCert *cert) {
    if (cert->self_signed || !minds[cert->index].chain) return 0;
    return cert->urls > 0 || (engine.responder_url && *engine.responder_url) || simHasFile(&engine);
}

/* ---- the policy's numbers ---------------------------------------------------------------------------------------- */

/* The longest wait: a quarter of what is left, an hour, five minutes or one with nothing to show. */
static int64_t simCap(const simMind *m, const simCert *cert) {
    int64_t left = simLeft(m);

    if (left <= 0) return cert->must_staple ? SIM_MINUTE : 5 * SIM_MINUTE;
    return simMax(SIM_SECOND, simMin(left / 4, SIM_HOUR));
}

/* retry-delay * 2^(n-1), up to the cap. */
static int64_t simBase(unsigned n, int64_t cap) {
    int64_t base = engine.retry_delay * SIM_SECOND;

    while (n-- > 1 && base < cap) base *= 2;
    return base;
}

/* Doubled above a minute it is an outage: who holds something valid waits the upper half of the longest wait. */
static int simPatient(const simMind *m, int64_t base) {
    return base > SIM_MINUTE && base > engine.retry_delay * SIM_SECOND && simLeft(m) > 0;
}

static int64_t simEarliestRetry(const simMind *m, const simCert *cert, unsigned n) {
    int64_t cap = simCap(m, cert), base = simBase(n, cap), wait = simMin(base, cap) * 8 / 10;

    if (simPatient(m, base)) wait = simMax(wait, cap / 2);
    return simMonoMs() + simMax(SIM_SECOND, wait - 2);
}

static int64_t simLatestRetry(const simMind *m, const simCert *cert, unsigned n) {
    int64_t cap = simCap(m, cert), base = simBase(n, cap);
    int64_t wait = simPatient(m, base) ? cap : simMin(simMin(base, cap) * 12 / 10, cap);

    return simMonoMs() + simMax(SIM_SECOND, wait) + 2;
}

/* The margin formula, in wall milliseconds. */
static int64_t simFormula(const simMind *m, int64_t *window) {
    int64_t life = ((int64_t)m->end - m->held->this_update) * 1000;

    *window = m->held->next_update ? simMax(0, life) * engine.refresh_margin / 100 : 5 * SIM_MINUTE;
    return (int64_t)m->end * 1000 - *window;
}

static void simPlanRefresh(simMind *m) {
    int64_t window, now = simWallMs(), wait, left, early;

    m->refresh_late = simFormula(m, &window);
    /* Earlier by a tenth of the window (and of what is left), or by a fifth of the wait beyond half an hour (and half of
     * what is left), whichever is more. */
    wait = m->held->next_update ? m->refresh_late - (int64_t)m->held->this_update * 1000 : 5 * SIM_MINUTE;
    left = m->refresh_late - now;
    early = simMax(simMin(window, left) / 10, simMin((wait - 30 * SIM_MINUTE) / 5, left / 2));
    m->refresh_early = m->refresh_late - simMax(0, early) - 100;
    if (m->held->status == V_OCSP_CERTSTATUS_REVOKED) {
        if (m->refresh_late > now + SIM_HOUR) m->refresh_late = now + SIM_HOUR;
        m->refresh_early = simMin(m->refresh_early, now + 54 * SIM_MINUTE - 100);
    }
}

static void simBackOff(simMind *m, const simCert *cert) {
    m->tries_low++;
    m->tries_high++;
    m->open_end = 0;
    m->retry_early = simEarliestRetry(m, cert, m->tries_low);
    m->retry_late = simLatestRetry(m, cert, m->tries_high);
}

/* More rounds than usual are right within an hour of this: waits begin anew. */
static void simExcuse(const simMind *m, int allows) {
    int which = (int)(m - minds);

    if (hour_count[which] == SIM_HOUR_ROUNDS) hour_count[which] = 0; /* of excuses */
    hours[which][hour_count[which]].at = simMonoMs();
    hours[which][hour_count[which]].most = 0;
    hours[which][hour_count[which]++].allows = allows;
}

/* ---- what is held ------------------------------------------------------------------------------------------------ */

/* "Older means an earlier thisUpdate, same an equal thisUpdate and status": 1 newer, 0 same, -1 older. Written without
 * simOrder, which the judge uses. */
static int simCompare(const simMind *m, const simAnswer *a, int64_t now) {
    const simAnswer *held = m->held;
    int held_revoked, revoked = a->status == V_OCSP_CERTSTATUS_REVOKED;

    if (!held) return 1;
    held_revoked = held->status == V_OCSP_CERTSTATUS_REVOKED;
    if (!held_revoked && m->end <= now && a->next_update) return 1;
    if (!held_revoked && held->this_update > now + 300) return 1;
    if (a->this_update != held->this_update) return a->this_update > held->this_update ? 1 : -1;
    /* "With an equal thisUpdate the later producedAt is newer; what was produced earlier says nothing." */
    if (a->produced_at > held->produced_at) return 1;
    if (revoked == held_revoked) return 0;
    return a->produced_at == held->produced_at && revoked ? 1 : -1;
}

/* A good answer that leaves the refresh due. Before the formula: again after it, soon. After it: patience. */
static void simNothingNewer(simMind *m, const simCert *cert) {
    int64_t window, formula = simFormula(m, &window);

    if (simLeft(m) <= 0) {
        simBackOff(m, cert);
    } else if (simWallMs() < formula) {
        m->refresh_early = formula;
        m->refresh_late = formula + simMin(window / 4, SIM_HOUR);
    } else {
        m->open_end = 0;
        m->retry_early = simMonoMs() + simMax(SIM_SECOND, simCap(m, cert) / 2 - 2);
        m->retry_late = simMonoMs() + simMax(SIM_SECOND, simCap(m, cert)) + 2;
    }
}

static void simHold(simMind *m, const simAnswer *a, ocspSource source, int64_t end) {
    m->held = a;
    hour_count[m - minds] = 0; /* no outage, or its end */
    m->source = source;
    m->end = end;
    simPlanRefresh(m);
    m->unsaved_since = source == OCSP_SOURCE_NETWORK ? simTrueMs() : SIM_NEVER;
    m->untold = source == OCSP_SOURCE_NETWORK && engine.cache_dir && *engine.cache_dir;
    m->failures = 0;
    m->retry_early = m->retry_late = 0;
    m->open_end = 0;
    m->tries_low = m->tries_high = 0;
    if (source == OCSP_SOURCE_NETWORK && m->refresh_late <= simWallMs())
        simNothingNewer(m, simCaCert((int)(m - minds)));
}

/* The refresh time has come for certain, for certain not, or chance decides (then both are allowed). */
static void simSawSame(simMind *m, const simCert *cert) {
    int64_t now = simWallMs();
    int late;

    simExcuse(m, 8); /* failures that follow are the first ones again */
    m->failures = 0;
    m->retry_early = m->retry_late = 0;
    if (simLeft(m) > 0 && m->held->status == V_OCSP_CERTSTATUS_REVOKED) {
        int64_t old_early = m->refresh_early, old_late = m->refresh_late, window, formula = simFormula(m, &window);
        simPlanRefresh(m);
        if (formula <= now) { /* nothing new to plan: what was planned stays */
            m->refresh_early = old_early;
            m->refresh_late = old_late;
        }
    }
    late = simLeft(m) <= 0 || now >= m->refresh_late;
    if (simLeft(m) > 0) m->tries_low = m->tries_high = 0;
    if (late) {
        simNothingNewer(m, cert);
    } else if (now >= m->refresh_early) { /* what was planned stays, or is put off */
        simMind put_off = *m;
        simNothingNewer(&put_off, cert);
        m->refresh_late = simMax(m->refresh_late, put_off.refresh_late);
        if (!put_off.retry_late) {
            m->refresh_early = now;
        } else { /* the plan may have come by now, and lie ahead again when the clock goes back */
            m->open_end = 1;
            m->retry_early = simMonoMs() + SIM_SECOND;
            m->retry_late = simMax(put_off.retry_late, simMonoMs() + (m->refresh_late - now) * 1001 / 1000 + 1000);
        }
    }
}

/* What kind of failure an answer is, by the policy's table. */
static ocspErrorKind simKindOf(const simMind *m, const simAnswer *a) {
    int64_t now = simNow();

    if (a->odd) return OCSP_ERR_NONE;
    if (!a->whole) return OCSP_ERR_RESPONSE;
    if (a->cert != m - minds || (!a->sound && a->status != V_OCSP_CERTSTATUS_UNKNOWN)) return OCSP_ERR_VERIFY;
    if (a->signer_to && (a->signer_to <= now || a->signer_from > now + 300)) return OCSP_ERR_VERIFY;
    if (a->status == V_OCSP_CERTSTATUS_UNKNOWN) return OCSP_ERR_RESPONSE;
    return m->judged ? OCSP_ERR_RESPONSE : OCSP_ERR_VERIFY; /* older than what is held; its dates */
}

static void simFailed(simMind *m, const simCert *cert, ocspErrorKind kind) {
    int64_t mono = simMonoMs();

    m->failures++;
    failed_rounds++;
    failed_kinds[kind]++;
    if (!m->round_asked || m->retry_late <= mono) {
        simBackOff(m, cert);
    } else if (m->round_may) { /* the order of things decides whether this counts as what was asked for */
        int64_t early = m->retry_early, late = m->retry_late;
        unsigned low = m->tries_low;
        simBackOff(m, cert);
        m->retry_early = simMin(early, m->retry_early);
        m->retry_late = simMax(late, m->retry_late);
        m->tries_low = low;
    } else if (m->retry_early <= mono) { /* chance decides whether the automatic retry was still ahead */
        m->tries_high++;
        m->retry_early = mono;
        m->retry_late = simMax(m->retry_late, simLatestRetry(m, cert, m->tries_high));
    }
}

static int simShelfOf(const char *dir) {
    return !dir || !*dir ? -1 : strcmp(dir, "other") == 0;
}

/* A revocation is known: what says good and is older must go from all directories that this process uses or has used. */
static void simKnowRevoked(simMind *m, const simAnswer *a) {
    int i;

    if (m->contradicts != a) {
        for (i = 0; i < SIM_SHELVES; i++) {
            m->shelf[i].due_at = simTrueMs();
            m->shelf[i].refused_at = SIM_NEVER;
            m->shelf[i].changed = m->shelf[i].durable = 0;
        }
    }
    m->contradicts = m->lasting = a;
}

/* Good: the CA has lifted it, or the operator says so, or a responder lags behind and nobody remembers. */
static void simKnowGood(simMind *m, const simAnswer *a, ocspSource source) {
    int i;

    if (source == OCSP_SOURCE_FILE || (m->contradicts && simOrder(a, m->contradicts) > 0)) m->contradicts = NULL;
    if (source == OCSP_SOURCE_FILE || (m->lasting && simOrder(a, m->lasting) > 0)) m->lasting = NULL;
    for (i = 0; i < SIM_SHELVES && source == OCSP_SOURCE_NETWORK; i++) m->shelf[i].clean = 0;
}

/* Returns whether the round ended well. */
static int simTake(simMind *m, const simCert *cert, const simAnswer *a, ocspSource source, int64_t received) {
    int64_t end = 0, now = simNow();
    int news;

    m->judged = simJudge(a, cert, now, received, &end);
    if (!m->judged) return 0;
    news = source == OCSP_SOURCE_FILE ? 1 : simCompare(m, a, now);
    if (news < 0) return 0; /* an older word, revoked or not, is taken for a responder that lags behind */
    /* The operator's word stands for itself: what was known before is his to set aside. */
    if (a->status != V_OCSP_CERTSTATUS_REVOKED)
        simKnowGood(m, a, source);
    else if (!m->contradicts || simOrder(a, m->contradicts) > 0 || source == OCSP_SOURCE_FILE)
        simKnowRevoked(m, a);
    if (news > 0)
        simHold(m, a, source, end);
    else if (source == OCSP_SOURCE_NETWORK) /* a file says nothing of the responder */
        simSawSame(m, cert);
    return 1;
}

/* ---- what the engine takes at the beginning of a step ------------------------------------------------------------ */

static int simDiffers(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") != 0;
}

/* The directory in use: what is known already holds there from now on. */
static void simUseShelf(simMind *m) {
    int i = simShelfOf(engine.cache_dir);

    if (i < 0 || m->shelf[i].used) return;
    m->shelf[i].used = 1;
    m->shelf[i].due_at = simTrueMs();
    m->shelf[i].refused_at = SIM_NEVER;
    m->shelf[i].changed = m->shelf[i].durable = 0;
}

static void simTakeOptions(void) {
    ocspOptions old = engine;
    int i, source, n = simCaCertCount();

    engine = wanted;
    options_new = 0;
    for (i = 0; i < n; i++) simUseShelf(&minds[i]);
    source = simDiffers(old.responder_url, engine.responder_url) || simDiffers(old.response_file, engine.response_file);
    for (i = 0; i < n; i++) {
        simMind *m = &minds[i];
        simCert *cert = simCaCert(i);
        if (!m->followed) continue;
        simExcuse(m, 12);
        if (source) {
            m->at_once = m->active;
            m->tries_low = m->tries_high = 0;
        }
        if (simDiffers(old.cache_dir, engine.cache_dir) || simDiffers(old.response_file, engine.response_file)) {
            m->unsaved_since = m->held && simLeft(m) > 0 && m->source != OCSP_SOURCE_FILE ? simTrueMs() : SIM_NEVER;
            m->saved = NULL;
            m->unread = 1;
            m->untold = 0;
        }
        if (engine.stapling && !old.stapling) m->bare = m->active;
        if (m->held && engine.refresh_margin != old.refresh_margin) simPlanRefresh(m);
        if (m->retry_late && engine.retry_delay != old.retry_delay) {
            unsigned low = m->tries_low ? m->tries_low : 1, high = m->tries_high ? m->tries_high : 1;
            m->retry_early = simMin(m->retry_early, simEarliestRetry(m, cert, low));
            if (!m->open_end) m->retry_late = simMin(m->retry_late, simLatestRetry(m, cert, high));
        }
    }
}

static void simTakeAttachment(void) {
    int i, n = simCaCertCount();

    attach_new = 0;
    for (i = 0; i < n; i++) minds[i].active = 0;
    for (i = 0; i < attach_count; i++) {
        simMind *m = &minds[attach[i]];
        if (!m->followed) m->unread = 1;
        simUseShelf(m);
        m->chain = attach_chain || (m->followed && m->chain); /* an issuer that is known stays */
        m->followed = m->active = 1;
        if (simRefreshWaits()) m->may = 1; /* who waits means what is served now */
        if (attached_before)
            m->at_once = 1;
        else
            m->first = 1;
    }
    for (i = 0; i < n; i++)
        if (!minds[i].active) minds[i].at_once = minds[i].asked = minds[i].first = minds[i].may = 0;
    attached_before = 1;
}

/* A start, and stapling turned on, ask at once only if the disk had nothing. The disk was read by now. */
static void simSettle(simMind *m) {
    if ((m->first || m->bare) && simLeft(m) <= 0) m->at_once = 1;
    m->first = m->bare = 0;
}

void simModelStepBegins(void) {
    int i, n = simCaCertCount(), asked = requests;
    int64_t now = simWallMs();

    requests = 0;
    if (options_new) simTakeOptions();
    if (attach_new) simTakeAttachment();
    for (i = 0; i < n; i++) {
        simMind *m = &minds[i];
        simCert *cert = simCaCert(i);
        if (!m->followed) continue;
        if (asked && m->active && simCanAsk(cert)) m->asked = 1;
        if (!simRefreshWaits()) m->may = 0; /* the round under way has served who asked meanwhile */
        if (late_request && simRefreshWaits() && m->active) m->may = 1; /* taken only now, after the last rounds */
        if (!engine.stapling) {
            m->at_once = m->asked = m->first = m->bare = m->may = 0;
            continue;
        }
        if (!m->held) continue;
        if (m->held->status == V_OCSP_CERTSTATUS_REVOKED) {
            m->refresh_late = simMin(m->refresh_late, now + SIM_HOUR);
            m->refresh_early = simMin(m->refresh_early, m->refresh_late);
        }
        if (!m->held->next_update && m->end > now / 1000 + 600) { /* the clock went back */
            m->end = (int64_t)(now / 1000) + 600;
            simPlanRefresh(m);
        }
        if (m->retry_late) m->retry_early = simMin(m->retry_early, simMonoMs() + simCap(m, cert));
    }
    late_request = 0;
}

/* ---- rounds ------------------------------------------------------------------------------------------------------ */

/* How many rounds an hour of back-off can hold. With nothing held: doubling from a second, then the longest waits less a
 * fifth. With more than an hour left: doubling to a minute, then half of a quarter of an hour at least. Towards a
 * response's end a quarter of what is left less a fifth, again and again. A check above the pairwise one: it counts
 * what really happened, whatever made the model forgive each single round. */
static void simCountHour(simMind *m, const simCert *cert) {
    int which = (int)(m - minds), i, kept = 0, rounds_seen = 1, excuses = 0, mine;
    int most = 12 + (int)(SIM_HOUR / (cert->must_staple ? 48 * SIM_SECOND : 240 * SIM_SECOND)) + 1;
    int64_t now = simMonoMs();

    if (simLeft(m) > SIM_HOUR)
        most = 7 + 8 + 1;
    else if (m->held && simLeft(m) > -SIM_HOUR)
        most += 45;
    mine = most;
    for (i = 0; i < hour_count[which]; i++) {
        if (hours[which][i].at <= now - SIM_HOUR) continue;
        excuses += hours[which][i].allows;
        rounds_seen += !hours[which][i].allows;
        /* By what held at that time: a clock that goes back makes an expired response a long-lived one. */
        if (hours[which][i].most > most) most = hours[which][i].most;
        hours[which][kept++] = hours[which][i];
    }
    hour_count[which] = kept;
    if (kept == SIM_HOUR_ROUNDS) return; /* of excuses: told by `early` */
    hours[which][kept].at = now;
    hours[which][kept].allows = 0;
    hours[which][kept].most = mine;
    most += excuses;
    hour_count[which]++;
    simWant(rounds_seen <= most, "hour", "%d rounds in an hour, the policy allows about %d", rounds_seen, most);
}

void simModelAsks(simCert *cert, int url) {
    simMind *m = &minds[cert->index];
    int64_t mono = simMonoMs(), wall = simWallMs();
    int at_once, i;

    if (m->round) { /* the next URL of the same round */
        simWant(url > 0, "early", "URL %d is asked twice in a round", url);
        return;
    }
    simSettle(m);
    for (i = 0; i < attach_count && engine.cache_dir && *engine.cache_dir; i++)
        simWant(!minds[attach[i]].untold || attach[i] == cert->index, "disk",
                "a responder is asked before the other certificate's response is stored");
    simWant(engine.stapling, "early", "asked with stapling off");
    simWant(m->followed && m->active, "early", "asked for a certificate that is not served");
    simWant(!simHasFile(&engine), "early", "the network is asked though a response-file is set");
    at_once = m->asked || m->at_once || m->may;
    if (!m->asked && !m->may && m->last_end)
        simWant(mono >= m->last_end + SIM_SECOND, "early", "two rounds within %lld ms",
                (long long)(mono - m->last_end));
    if (!at_once && m->retry_late) {
        simWant(mono >= m->retry_early, "early", "retry %u comes %lld ms too early (%lld ms after the last round)",
                m->tries_low, (long long)(m->retry_early - mono), (long long)(mono - m->last_end));
    } else if (!at_once && m->held) {
        simWant(wall >= m->refresh_early, "early", "refreshed %lld ms before its time",
                (long long)(m->refresh_early - wall));
    }
    if (!at_once && m->retry_late)
        simCountHour(m, cert);
    else if (at_once)
        simExcuse(m, 12);
    m->round = in_round = 1;
    m->round_asked = m->asked || m->may;
    m->round_may = m->may && !m->asked;
    m->asked = m->at_once = m->may = 0;
}

static void simRoundEnds(simMind *m) {
    m->round = in_round = 0;
    m->last_end = simMonoMs();
    m->last_end_true = simTrueMs();
    m->longest_wait = simCap(m, simCaCert((int)(m - minds)));
    rounds++;
    m->rounds_seen++;
    simRoundDone();
}

void simModelHears(simCert *cert, const simAnswer *answer, ocspErrorKind kind, int last) {
    simMind *m = &minds[cert->index];
    int taken = answer && simTake(m, cert, answer, OCSP_SOURCE_NETWORK, simNow());

    if (!taken && !last) return;
    if (!taken) simFailed(m, cert, answer ? simKindOf(m, answer) : kind);
    simRoundEnds(m);
}

void simModelCancelled(simCert *cert) {
    simMind *m = &minds[cert->index];

    m->round = in_round = 0;
    m->may = m->round_asked;
    m->at_once = 1;
}

simCert *simModelFollowed(void) {
    int i;

    for (i = 0; i < simCaCertCount() - 1 && !minds[i].active; i++) continue;
    return simCaCert(i);
}

void simModelReads(const char *dir, const unsigned char *der, size_t len, int64_t mtime, simCert *cert) {
    simMind *m = &minds[cert->index];
    const simAnswer *a = der ? simCaFind(der, len) : NULL;
    int64_t received = a ? simReceived(a, mtime, simNow()) : 0;
    ocspSource source = dir ? OCSP_SOURCE_CACHE : OCSP_SOURCE_FILE;
    int taken;

    if (dir) { /* to begin with, or before something is stored there: what is newer is taken */
        if (simLeft(m) <= 0) m->unread = 0;
        if (a && m->chain && !simHasFile(&engine) && strcmp(dir, engine.cache_dir) == 0)
            simTake(m, cert, a, source, received);
        return;
    }
    simSettle(m);
    if (!m->asked && !m->may && m->last_end)
        simWant(simMonoMs() >= m->last_end + SIM_SECOND, "early", "the file is read twice within a second");
    m->round_asked = m->asked || m->may;
    m->round_may = m->may && !m->asked;
    m->asked = m->at_once = m->may = 0;
    taken = a && simTake(m, cert, a, source, received);
    if (!taken && a && a->whole && a->cert != cert->index) { /* about another certificate: not stapled, no failure */
        m->retry_early = m->retry_late = 0;
    } else if (!taken) {
        simFailed(m, cert, a ? simKindOf(m, a) : der ? OCSP_ERR_NONE : OCSP_ERR_NETWORK);
    }
    simRoundEnds(m);
}

/* ---- looking ----------------------------------------------------------------------------------------------------- */

void simModelStaple(simCert *cert, const unsigned char *der, size_t len) {
    simMind *m = &minds[cert->index];
    const simAnswer *a = der ? simCaFind(der, len) : NULL;
    const simAnswer *want = wanted.stapling && m->followed && simLeft(m) > 0 ? m->held : NULL;
    int64_t now = simNow(), end;

    if (want && simNow() >= m->end) want = NULL;
    if (a == want && (der != NULL) == (want != NULL) && !m->contradicts && !m->lasting) return;
    if (der && !a) simBroken("staple", "%zu bytes are stapled that no responder ever sent", len);
    if (der && a->status == V_OCSP_CERTSTATUS_GOOD && m->contradicts && simOrder(a, m->contradicts) <= 0)
        simBroken("contradicted", "a good answer is stapled, thisUpdate %+lld s; one of %+lld s said revoked",
                  (long long)(a->this_update - now), (long long)(m->contradicts->this_update - now));
    if (der && a->status == V_OCSP_CERTSTATUS_GOOD && m->lasting && simOrder(a, m->lasting) <= 0 &&
        m->source == OCSP_SOURCE_CACHE && m->shelf[simShelfOf(engine.cache_dir)].clean)
        simBroken("revived",
                  "after a restart a good answer is stapled from the disk, thisUpdate %+lld s; one of %+lld s "
                  "said revoked, and an earlier process knew it",
                  (long long)(a->this_update - now), (long long)(m->lasting->this_update - now));
    if (a == want && (der != NULL) == (want != NULL)) return;
    if (der && a->cert != cert->index) simBroken("staple", "another certificate's response is stapled");
    if (der && !simJudge(a, cert, now, now, &end))
        simBroken("staple", "a response that must not be is stapled: %s, thisUpdate %+lld s, nextUpdate %+lld s",
                  a->what, (long long)(a->this_update - now), (long long)(a->next_update - now));
    if (der && want)
        simBroken("staple", "stapled is thisUpdate %+lld s, status %d; held must be %+lld s, status %d (%s)",
                  (long long)(a->this_update - now), a->status, (long long)(want->this_update - now), want->status,
                  want->what);
    if (der) simBroken("staple", "stapled though nothing may be: ends %+lld s", (long long)(m->end - now));
    simBroken("staple", "nothing is stapled though a valid response is held (%s, ends %+lld s)", want->what,
              (long long)(m->end - now));
}

/* INFO, as far as it is promised. */
typedef struct simInfo {
    long long next, expires, failures, this_update, refreshes, refresh_failures, kinds;
    char state[32];
} simInfo;

static simInfo info[2];

static void simInfoText(void *arg, const char *field, const char *value) {
    simInfo *i = &info[strncmp(field, "alt_", 4) == 0];

    (void)arg;
    if (i != info) field += 4;
    if (field[0] == 's' && strcmp(field, "state") == 0) snprintf(i->state, sizeof(i->state), "%s", value);
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

/* The report that INFO is made of, as the engine handed it over last (the linker brings it by here). */
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

static int64_t soonest; /* when the next try is, true time, by the engine's report */
static unsigned looks;

static void simCheckInfo(const simMind *m, const simCert *cert, const simInfo *i) {
    const char *state = !wanted.stapling                               ? "disabled"
                        : !m->held && cert->self_signed                ? "self-signed"
                        : !m->held && !m->chain                        ? "no-issuer"
                        : !m->held && !simCanAsk(cert)                 ? "no-responder"
                        : !m->held                                     ? "pending"
                        : simLeft(m) <= 0                              ? "expired"
                        : m->held->status == V_OCSP_CERTSTATUS_REVOKED ? "revoked"
                                                                       : "good";

    simWant(strcmp(i->state, state) == 0, "info", "ocsp_state is %s, must be %s", i->state, state);
    simWant(i->failures == m->failures, "info", "consecutive_failures is %lld, must be %lld", i->failures, m->failures);
    simWant(i->this_update == (m->held ? (long long)m->held->this_update : 0), "info",
            "this_update is not that of what is held");
}

/* When the disk last refused, and by when what could not be stored then must have been stored. */
static int64_t simStoredBy(const simMind *m) {
    const simWorld *w = simThisWorld();
    int64_t well = m->unsaved_since, end;
    int i;

    for (i = 0; i < w->event_count && w->events[i].at <= simTrueMs(); i++) {
        const simEvent *e = &w->events[i];
        /* a disk that refused is tried again within a minute, in which the machine may have slept */
        end = simMax(e->at + e->lasts, clock_disturbed_at) + 61 * SIM_SECOND;
        if (e->kind == SIM_DISK_FULL && !e->off && e->at + e->lasts + 61 * SIM_SECOND > m->unsaved_since && end > well)
            well = end;
    }
    return well;
}

static void simCheckDisk(const simMind *m, const simCert *cert) {
    char path[160];
    const unsigned char *bytes;
    size_t len;
    int64_t mtime;

    if (!engine.cache_dir || !*engine.cache_dir || simHasFile(&engine) || m->unsaved_since == SIM_NEVER) return;
    if (simTrueMs() < simStoredBy(m)) return; /* a disk that refused is tried again within a minute */
    snprintf(path, sizeof(path), "%s/%s", engine.cache_dir, cert->file);
    simWant(simDiskRead(path, &bytes, &len, &mtime) && len == m->held->len && memcmp(bytes, m->held->der, len) == 0,
            "disk", "what is stapled since %lld ms is not on disk", (long long)(simTrueMs() - m->unsaved_since));
}

void simModelDisturbed(int clock) {
    int i, n = simCaCertCount();

    disturbed_at = simTrueMs();
    if (!clock) return;
    clock_disturbed_at = disturbed_at;
    for (i = 0; i < n; i++) simExcuse(&minds[i], 60);
}

/* Would what the CA says now, where nothing is wrong, be held for a while? On the safe side: not always when it would. */
static int simOffersBetter(const simMind *m, const simCert *cert) {
    simAnswer offer;
    int64_t now = simNow();
    int64_t life;

    if (simActive(SIM_REVOKED) || simCaDelegates()) return 0;
    simCaOffer(cert, NULL, &offer);
    life = offer.next_update - offer.this_update;
    return offer.next_update && offer.this_update <= now && (!m->held || offer.this_update > m->held->this_update) &&
           cert->not_after > offer.next_update &&
           offer.next_update - life * engine.refresh_margin / 100 > now + SIM_QUIET_SLACK / 1000;
}

/* The responder came back (or never went): how long may it take until something fresh is held? A round comes within
 * the longest wait that the policy knew after the last one; and where nothing is wrong it brings what they have. */
static void simCheckFresh(simMind *m, const simCert *cert) {
    const simWorld *w = simThisWorld();
    int64_t now = simTrueMs(), since, urls = cert->urls > 1 ? cert->urls : 1, slack;

    if (simLeft(m) > 0 && simWallMs() < m->refresh_late) {
        m->needs_since = m->better_since = 0;
        return;
    }
    if (!m->needs_since) m->needs_since = now;
    since = simMax(simMax(m->last_end_true, m->needs_since), clock_disturbed_at);
    slack = 2 * SIM_SECOND + (now - since) / 1000; /* and the drift of clocks */
    simWant(now - since <= m->longest_wait + slack, "fresh",
            "no round for %lld ms; the longest wait allowed was %lld ms", (long long)(now - since),
            (long long)m->longest_wait);
    if (simFaulty() || w->latency * 2 >= engine.timeout * SIM_SECOND || !simOffersBetter(m, cert)) {
        m->better_since = 0;
        return;
    }
    if (!m->better_since) m->better_since = now;
    since = simMax(m->better_since, disturbed_at);
    slack += urls * engine.timeout * SIM_SECOND + SIM_QUIET_SLACK;
    simWant(now - since <= SIM_HOUR + slack, "fresh",
            "the responders are well for %lld ms and have a better response, which is not held (%lld ms left)",
            (long long)(now - since), (long long)simLeft(m));
}

/* Something valid lies on disk for `cert`: the answer, or NULL. */
static const simAnswer *simOnDisk(const simCert *cert, const ocspOptions *o) {
    char path[160];
    const unsigned char *bytes;
    const simAnswer *a;
    size_t len;
    int64_t mtime, end;

    if (!o->stapling || simHasFile(o) || !o->cache_dir || !*o->cache_dir || simActive(SIM_DISK_UNREADABLE) ||
        cert->self_signed)
        return NULL;
    snprintf(path, sizeof(path), "%s/%s", o->cache_dir, cert->file);
    if (!simDiskRead(path, &bytes, &len, &mtime)) return NULL;
    a = simCaFind(bytes, len);
    return a && simJudge(a, cert, simNow(), simReceived(a, mtime, simNow()), &end) ? a : NULL;
}

void simModelFirstHandshake(void) {
    int i;

    for (i = 0; attach_chain && i < attach_count; i++) {
        const simAnswer *a = simOnDisk(simCaCert(attach[i]), &wanted);
        simWant(!a || minds[attach[i]].held == a, "restart",
                "the disk holds a valid response, and the first handshake goes without it");
    }
    for (i = 0; wanted.stapling && i < attach_count; i++) simSettle(&minds[attach[i]]);
}

void simModelIdle(void) {
    int i, n = simCaCertCount(), with_info = ++looks % SIM_INFO_EACH == 0;
    int64_t mono = simMonoMs(), wall = simWallMs(), now = simTrueMs();

    soonest = SIM_NEVER;
    simWant(report.refreshes == rounds && report.refresh_failures == failed_rounds, "info",
            "refreshes are %lld (%lld failed), must be %lld (%lld)", report.refreshes, report.refresh_failures, rounds,
            failed_rounds);
    for (i = OCSP_ERR_NETWORK; i < OCSP_ERR_KINDS && failed_kinds[OCSP_ERR_NONE] == 0; i++)
        simWant(report.failures[i] == failed_kinds[i], "info", "failures of kind %d are %lld, must be %lld", i,
                report.failures[i], failed_kinds[i]);
    if (with_info) {
        simReadInfo();
        simWant(info[0].refreshes == rounds && info[0].refresh_failures == failed_rounds &&
                    info[0].kinds == failed_rounds,
                "info", "refreshes, failures and failures by kind are %lld, %lld, %lld in INFO, must be %lld, %lld",
                info[0].refreshes, info[0].refresh_failures, info[0].kinds, rounds, failed_rounds);
    }
    for (i = 0; i < n; i++) {
        simMind *m = &minds[i];
        simCert *cert = simCaCert(i);
        int which = attach_count > 1 && i == attach[1];
        const ocspStatus *status = &report.status[which];
        int64_t plan; /* monotonic */
        if (!m->followed || !m->active) continue;
        if (with_info) simCheckInfo(m, cert, &info[which]);
        simWant(status->consecutive_failures == m->failures, "info", "consecutive_failures is %lld, must be %lld",
                status->consecutive_failures, m->failures);
        simSettle(m);
        if (!engine.stapling || !wanted.stapling) {
            m->needs_since = m->better_since = 0;
            continue;
        }
        simCheckDisk(m, cert);
        if (m->unread && m->chain && simLeft(m) <= 0)
            simWant(!simOnDisk(cert, &engine), "restart",
                    "the disk holds a valid response for a new certificate or in a new directory, and it is not read");
        plan = status->retry_at_ms     ? status->retry_at_ms
               : status->refresh_at_ms ? mono + simTrueOfWall(status->refresh_at_ms) - now
                                       : SIM_NEVER;
        if (plan != SIM_NEVER && plan > mono) soonest = simMin(soonest, now + plan - mono);
        if (!simCanAsk(cert) || simHasFile(&engine)) {
            m->needs_since = m->better_since = 0;
            continue;
        }
        simCheckFresh(m, cert);
        if (m->retry_late) {
            if (!m->open_end) m->retry_late = simMin(m->retry_late, mono + simCap(m, cert));
            m->retry_early = simMin(m->retry_early, m->retry_late);
        }
        if (m->last_end && mono < m->last_end + SIM_SECOND) continue; /* the floor beats all that follows */
        simWant(!m->asked, "late", "a refresh was asked for and does not begin");
        simWant(!m->at_once, "late", "a reload or a directive asks for a round at once, and it does not begin");
        if (m->retry_late)
            simWant(mono <= m->retry_late, "late", "the retry after %u failures is %lld ms late", m->tries_high,
                    (long long)(mono - m->retry_late));
        else if (m->held)
            simWant(wall < m->refresh_late + 2, "late", "the refresh is %lld ms late",
                    (long long)(wall - m->refresh_late));
        else
            simBroken("late", "nothing is held, nothing is asked, and nothing is planned");
        simWant(plan > mono, "schedule", "the next try lies %lld ms in the past", (long long)(mono - plan));
        if (simLeft(m) > 2 * SIM_SECOND)
            simWant(now + plan - mono <= simTrueOfWall((int64_t)m->end * 1000), "schedule",
                    "the next try (in %lld ms) comes after the end (in %lld ms)", (long long)(plan - mono),
                    (long long)simLeft(m));
    }
}

int64_t simModelNextLook(void) {
    int64_t next = SIM_NEVER, now = simTrueMs(), mono = simMonoMs(), at;
    int i, shelf, n = simCaCertCount();

    if (soonest > now) next = soonest;
    for (i = 0; i < n; i++) {
        simMind *m = &minds[i];
        if (!m->followed) continue;
        for (shelf = 0; shelf < SIM_SHELVES; shelf++) { /* a removal that the disk refused is tried again */
            at = m->shelf[shelf].refused_at == SIM_NEVER ? 0 : m->shelf[shelf].refused_at + 60 * SIM_SECOND;
            if (at > now) next = simMin(next, at);
        }
        if (m->held) { /* on both sides of the end */
            at = simTrueOfWall((int64_t)m->end * 1000);
            if (at - 1 > now) next = simMin(next, at - 1);
            if (at > now) next = simMin(next, at);
        }
        if (!m->active || !engine.stapling) continue;
        if (m->unsaved_since != SIM_NEVER && (at = simStoredBy(m)) > now) next = simMin(next, at);
        if (m->retry_late && m->retry_late > mono) next = simMin(next, now + (m->retry_late - mono));
        if (!m->retry_late && m->held && (at = simTrueOfWall(m->refresh_late)) > now) next = simMin(next, at);
    }
    return next;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

void simModelStored(simCert *cert, int ok) {
    simMind *m = &minds[cert->index];

    m->untold = 0;
    if (!ok) return;
    m->unsaved_since = m->held ? simTrueMs() : SIM_NEVER; /* and it must lie there from now on */
    m->saved = m->held;
    m->tampered = simActive(SIM_DISK_LIES);
    snprintf(m->saved_path, sizeof(m->saved_path), "%s/%s", engine.cache_dir, cert->file);
    m->shelf[simShelfOf(engine.cache_dir)].tampered = 0;
}

static int simIsFileOf(const char *path, int cert) {
    return strcmp(path + (strrchr(path, '/') ? strrchr(path, '/') - path + 1 : 0), simCaCert(cert)->file) == 0;
}

static int simShelfOfPath(const char *path) {
    return strncmp(path, "other/", 6) == 0;
}

void simDiskChanged(const char *path) {
    int i, n = simCaCertCount();

    /* A temporary file counts too: who writes one has had the time to remove what must go. */
    for (i = 0; i < n; i++)
        if (strstr(path, simCaCert(i)->file)) minds[i].shelf[simShelfOfPath(path)].changed = 1;
}

void simDiskSynced(const char *dir) {
    int i, n = simCaCertCount(), shelf = simShelfOf(dir);

    for (i = 0; i < n && shelf >= 0; i++) minds[i].shelf[shelf].durable = minds[i].shelf[shelf].changed;
}

void simDiskRefused(const char *path) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++)
        if (simIsFileOf(path, i)) minds[i].shelf[simShelfOfPath(path)].refused_at = simTrueMs();
}

/* From outside: what lies there is not what was stored. */
void simModelTampered(const char *path) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++)
        if (simIsFileOf(path, i)) {
            minds[i].shelf[simShelfOfPath(path)].tampered = 1;
            minds[i].shelf[simShelfOfPath(path)].clean = 0;
            minds[i].saved = NULL;
            if (minds[i].unsaved_since != SIM_NEVER && minds[i].held) minds[i].unsaved_since = SIM_NEVER;
        }
}

/* After the lights went out: what the engine was told is safe must be there. */
void simModelPower(void) {
    int i, n = simCaCertCount();

    for (i = 0; i < n; i++) {
        simMind *m = &minds[i];
        const unsigned char *bytes = NULL;
        const simAnswer *a;
        size_t len = 0;
        int64_t mtime;
        if (!m->saved || m->tampered || simDiskLied(m->saved_path)) continue;
        if (simDiskRead(m->saved_path, &bytes, &len, &mtime) && len == m->saved->len &&
            memcmp(bytes, m->saved->der, len) == 0)
            continue;
        /* A newer one whose storing was under way may be there in its place. */
        a = bytes ? simCaFind(bytes, len) : NULL;
        simWant(a && a->sound && a->cert == i, "disk", "after a power failure the stored response is gone (%zu bytes)",
                len);
    }
}

/* May what says `a` (NULL: nobody knows what) be removed while it could still be stapled? If what is held contradicts it. */
static int simMayRemove(const simMind *m, const simAnswer *a, const simCert *cert) {
    int64_t end;

    if (!m->held) return 0;
    if (m->held->status == V_OCSP_CERTSTATUS_REVOKED)
        return !a || a->status != V_OCSP_CERTSTATUS_REVOKED || !simJudge(a, cert, simNow(), simNow(), &end) ||
               simActive(SIM_DISK_UNREADABLE); /* it may say good for all that can be known */
    return a && a->status == V_OCSP_CERTSTATUS_REVOKED && simOrder(a, m->held) < 0;
}

void simDiskRemoved(const char *path, const unsigned char *bytes, size_t len) {
    const simAnswer *a = simCaFind(bytes, len);
    int i, n = simCaCertCount(), contradicted = 0, old;

    if (strstr(path, ".tmp-")) return;
    old = !a || !a->sound || !a->next_update || a->next_update + 7 * 86400 < simNow();
    for (i = 0; i < n; i++)
        if (simIsFileOf(path, i) && simMayRemove(&minds[i], a, simCaCert(i))) contradicted = 1;
    simWant(old || contradicted, "disk",
            "a response is deleted that has not expired for seven days and that nothing contradicts");
    for (i = 0; i < n; i++)
        if (minds[i].saved && strcmp(path, minds[i].saved_path) == 0) {
            minds[i].saved = NULL;
            if (old) minds[i].unsaved_since = SIM_NEVER;
        }
}

/* ---- life -------------------------------------------------------------------------------------------------------- */

void simModelBegin(void) {
    memset(minds, 0, sizeof(minds));
    memset(hour_count, 0, sizeof(hour_count));
    disturbed_at = clock_disturbed_at = 0;
}

void simModelStart(void) {
    int i;

    for (i = 0; i < SIM_MAX_CERTS; i++) {
        simMind *m = &minds[i], fresh = {.saved = m->saved, .tampered = m->tampered, .unsaved_since = SIM_NEVER};
        int shelf;
        fresh.lasting = m->lasting;
        for (shelf = 0; shelf < SIM_SHELVES; shelf++) {
            fresh.shelf[shelf].clean = m->shelf[shelf].clean;
            fresh.shelf[shelf].refused_at = SIM_NEVER;
        }
        memcpy(fresh.saved_path, m->saved_path, sizeof(fresh.saved_path));
        *m = fresh;
    }
    engine = (ocspOptions)OCSP_OPTIONS_DEFAULT;
    engine.stapling = 0;
    memset(hour_count, 0, sizeof(hour_count));
    disturbed_at = clock_disturbed_at = simTrueMs();
    options_new = attach_new = attach_count = attached_before = requests = in_round = late_request = 0;
    rounds = failed_rounds = 0;
    memset(failed_kinds, 0, sizeof(failed_kinds));
    soonest = SIM_NEVER;
    memset(&report, 0, sizeof(report));
}

/* Which directories must be free of what a later process must not staple? Those that this one used, in which it had the
 * time to remove it: its first look is in the moment when it learns of the revocation, and a disk that refused is tried
 * again within a minute. What was removed and not synced a power failure may bring back. */
void simModelEnd(int power) {
    int64_t now = simTrueMs(), last;
    int i, shelf;

    for (i = 0; i < SIM_MAX_CERTS; i++) {
        simMind *m = &minds[i];
        if (!m->contradicts) continue;
        for (shelf = 0; shelf < SIM_SHELVES; shelf++) {
            simShelf *s = &m->shelf[shelf];
            last = simMax(s->refused_at == SIM_NEVER ? -SIM_HOUR : s->refused_at, clock_disturbed_at);
            s->clean = s->used && m->chain && m->active && !s->tampered && (now > s->due_at || s->changed) &&
                       (s->refused_at == SIM_NEVER || now > last + 61 * SIM_SECOND) && (!power || s->durable);
        }
    }
}

void simModelAttach(const int *list, int count, int chain) {
    memcpy(attach, list, sizeof(int) * (size_t)count);
    attach_chain = chain;
    attach_count = count;
    attach_new = 1;
}

void simModelOptions(const ocspOptions *options) {
    wanted = *options;
    options_new = 1;
}

void simModelRequest(void) {
    int i;

    if (in_round)
        late_request = 1;
    else
        requests++;
    for (i = 0; in_round && i < SIM_MAX_CERTS; i++) minds[i].may = minds[i].active;
}

int simModelHolds(int cert) {
    return minds[cert].held && simLeft(&minds[cert]) > 0;
}

void simModelWorldEnds(void) {}
