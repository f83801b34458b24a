/* sim_world.c - generates a world from a number: its parameters, and its events with their times.
 *
 * Most servers survive isolated faults. Therefore events come in clusters, after a quiet time: a few within seconds to
 * days of each other, or all in one outage.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "sim.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

uint64_t simRandom(simRng *rng) { /* splitmix64: any two seeds give unrelated sequences */
    uint64_t z = rng->state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

int64_t simBetween(simRng *rng, int64_t low, int64_t high) {
    return low + (int64_t)(simRandom(rng) % (uint64_t)(high - low + 1));
}

int64_t simLogBetween(simRng *rng, int64_t low, int64_t high) {
    double share = (double)(simRandom(rng) >> 11) / 9007199254740992.0;

    return (int64_t)((double)low * pow((double)high / (double)low, share));
}

int simOneIn(simRng *rng, int n) {
    return simRandom(rng) % (uint64_t)n == 0;
}

uint64_t simHash(const void *bytes, size_t len, uint64_t seed) {
    const unsigned char *p = bytes;
    uint64_t h = seed ^ 0x9e3779b97f4a7c15u, word;
    size_t i;

    for (i = 0; i + 8 <= len; i += 8) {
        memcpy(&word, p + i, 8);
        h = (h ^ word) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    for (word = len; i < len; i++) word = word << 8 | p[i];
    h = (h ^ word) * 0xc4ceb9fe1a85ec53u;
    return h ^ h >> 29;
}

/* ---- names ------------------------------------------------------------------------------------------------------- */

static const char *const kind_names[SIM_KINDS] = {
    [SIM_DOWN] = "responder down",
    [SIM_HANG] = "responder hangs",
    [SIM_SLOW] = "responder slow (a ms)",
    [SIM_FLAKY] = "responder fails intermittently (a %)",
    [SIM_HTTP] = "responder answers HTTP errors",
    [SIM_TRY_LATER] = "responder answers tryLater or internalError",
    [SIM_GARBAGE] = "responder answers garbage",
    [SIM_EMPTY] = "responder answers nothing",
    [SIM_TRUNCATED] = "answers truncated",
    [SIM_TRAILING] = "answers with trailing bytes",
    [SIM_FLIPPED] = "answers with a flipped bit",
    [SIM_EXPIRED] = "answers that have expired",
    [SIM_FROZEN] = "always the same answer",
    [SIM_OLDER] = "always an older answer (a s)",
    [SIM_BACKDATED] = "answers backdated (a s)",
    [SIM_FUTURE] = "answers from the future (a s)",
    [SIM_BACKWARDS] = "nextUpdate before thisUpdate",
    [SIM_UNKNOWN] = "status unknown",
    [SIM_OTHER_SERIAL] = "answers about another certificate",
    [SIM_OTHER_ISSUER] = "answers about another issuer",
    [SIM_SAME_NAME_CA] = "answers signed by a CA of the same name",
    [SIM_SIGNER_NO_EKU] = "an authorized responder without OCSPSigning",
    [SIM_SIGNER_EXPIRED] = "an authorized responder that has expired",
    [SIM_SIGNER_NOT_YET] = "an authorized responder that is not valid yet",
    [SIM_SIGNER_FOREIGN] = "an authorized responder of another CA",
    [SIM_SIGNER_CRITICAL] = "an authorized responder with an unknown critical extension",
    [SIM_SIGNER_KEY_USAGE] = "an authorized responder whose key usage forbids signatures",
    [SIM_NO_NEXT_UPDATE] = "answers without nextUpdate",
    [SIM_REVOKED] = "certificate revoked",
    [SIM_VALIDITY] = "responses valid for a s from now on",
    [SIM_PRESIGN] = "responses are signed every a s from now on",
    [SIM_NEW_SIGNER] = "another signer, valid for a s",
    [SIM_JUMP] = "clock jumps by a ms",
    [SIM_DRIFT] = "clock drifts by a ppm",
    [SIM_SLEEP] = "the machine sleeps for a ms",
    [SIM_DISK_FULL] = "disk refuses writes",
    [SIM_DISK_NO_SYNC] = "disk skips syncs",
    [SIM_DISK_UNREADABLE] = "disk cannot be read",
    [SIM_DISK_FLIPPED] = "cache file: a bit is flipped",
    [SIM_DISK_TRUNCATED] = "cache file truncated",
    [SIM_DISK_DELETED] = "cache file deleted",
    [SIM_DISK_RESTORED] = "cache file restored from a backup (a answers ago)",
    [SIM_RESTART] = "restart",
    [SIM_KILL] = "kill",
    [SIM_KILL_IN_WRITE] = "kill at disk operation a from now",
    [SIM_POWER] = "power failure",
    [SIM_NO_THREAD] = "restart where no thread can be created",
    [SIM_RELOAD] = "TLS reload, same certificate",
    [SIM_RELOAD_LATE] = "TLS reload on another thread",
    [SIM_RENEW] = "new certificate (valid for a s)",
    [SIM_ROLLBACK] = "back to the previous certificate",
    [SIM_SELF_SIGNED] = "a self-signed certificate",
    [SIM_NO_URLS] = "a certificate that names no responder",
    [SIM_NO_ISSUER] = "the certificate without its chain",
    [SIM_STAPLING_OFF] = "stapling no",
    [SIM_MARGIN] = "refresh-margin a",
    [SIM_MAX_INTERVAL] = "max-interval a",
    [SIM_RETRY_DELAY] = "retry-delay a",
    [SIM_TIMEOUT] = "timeout a",
    [SIM_URL] = "responder-url set",
    [SIM_CACHE_OFF] = "cache-dir \"\"",
    [SIM_CACHE_MOVED] = "cache-dir changed",
    [SIM_FILE] = "response-file set",
    [SIM_FILE_UPDATED] = "response-file gets a new answer",
    [SIM_FILE_BAD] = "response-file gets an unacceptable answer",
    [SIM_REFRESH] = "DEBUG OCSP-REFRESH",
    [SIM_PUSH] = "OCSP.SET (a: 0 good, 1 b s old, else unacceptable)",
    [SIM_CHAIN] = "staple-chain changed",
    [SIM_CA_RENEW] = "new certificate of the CA of level a",
    [SIM_ROOT] = "topmost CA certified by the old root, a new one, the new one of the old one (a: 0, 1, 2)",
};

const char *simKindName(simKind kind) {
    return kind < SIM_KINDS ? kind_names[kind] : "no fault";
}

int simIsFault(simKind kind) {
    return kind <= SIM_LAST_FAULT;
}

int simMeans(const simEvent *e, int level) {
    return !e->levels || (e->levels >> level & 1);
}

static const char *simTimeText(int64_t ms, char *out, size_t size) {
    snprintf(out, size, "%lldd %02lld:%02lld:%02lld.%03lld", (long long)(ms / SIM_DAY), (long long)(ms / SIM_HOUR % 24),
             (long long)(ms / SIM_MINUTE % 60), (long long)(ms / SIM_SECOND % 60), (long long)(ms % 1000));
    return out;
}

void simPrintWorld(const simWorld *w) {
    int i;
    char at[48], duration[48];

    printf("  world %llu, %s long: responses valid for %d s%s, signed %s, backdated %d s, rounded to %d s, by %s;\n"
           "  %d URL%s,%s%s certificates of %d s, latency about %d ms\n"
           "  refresh-margin %d, max-interval %d, retry-delay %d, timeout %d, cache-dir \"%s\"\n",
           (unsigned long long)w->number, simTimeText(w->end_at, at, sizeof(at)), w->validity,
           w->no_next_update ? ", without nextUpdate" : "", w->presign ? "in advance" : "on demand", w->backdate,
           w->round_to, w->signer_validity ? "authorized responders" : "the CA itself", w->urls, w->urls > 1 ? "s" : "",
           w->must_staple ? " must-staple," : "", w->two_certs ? " two at a time," : "", w->cert_validity, w->latency,
           w->options.refresh_margin, w->options.max_interval, w->options.retry_delay, w->options.timeout,
           w->options.cache_dir);
    if (w->chain.depth)
        printf(
            "  chain: %d CAs with certificates of %d s, %d of them sent, root %s and %s, staple-chain %d, OpenSSL %s it\n",
            w->chain.depth, w->chain.validity, w->chain.sent, w->chain.root_sent ? "sent" : "not sent",
            w->chain.root_trusted ? "trusted" : "not trusted", w->options.staple_chain,
            w->chain.supported ? "supports" : "does not support");
    for (i = 0; w->chain.depth && i <= w->chain.depth; i++)
        printf("  level %d: %d URLs, responses longer by %d bytes\n", i, i ? w->chain.urls[i] : w->urls,
               w->chain.padding[i]);
    for (i = 0; i < w->event_count; i++) {
        const simEvent *e = &w->events[i];
        if (e->off) continue;
        printf("  %20s  %s", simTimeText(e->at, at, sizeof(at)), simKindName(e->kind));
        if (e->duration) printf(", for %s", simTimeText(e->duration, duration, sizeof(duration)));
        if (e->a || e->b) printf("  [a=%lld b=%lld]", (long long)e->a, (long long)e->b);
        if (e->levels) printf("  [levels %#x]", (unsigned)e->levels);
        printf("\n");
    }
}

/* ---- generation -------------------------------------------------------------------------------------------------- */

/* The relative frequency of each kind of event. */
static const unsigned char weights[SIM_KINDS] = {
    [SIM_DOWN] = 16,
    [SIM_HANG] = 8,
    [SIM_SLOW] = 4,
    [SIM_FLAKY] = 8,
    [SIM_HTTP] = 3,
    [SIM_TRY_LATER] = 4,
    [SIM_GARBAGE] = 2,
    [SIM_EMPTY] = 1,
    [SIM_TRUNCATED] = 1,
    [SIM_TRAILING] = 2,
    [SIM_FLIPPED] = 3,
    [SIM_EXPIRED] = 4,
    [SIM_FROZEN] = 8,
    [SIM_OLDER] = 5,
    [SIM_BACKDATED] = 5,
    [SIM_FUTURE] = 4,
    [SIM_BACKWARDS] = 2,
    [SIM_UNKNOWN] = 3,
    [SIM_OTHER_SERIAL] = 3,
    [SIM_OTHER_ISSUER] = 2,
    [SIM_SAME_NAME_CA] = 2,
    [SIM_SIGNER_NO_EKU] = 2,
    [SIM_SIGNER_EXPIRED] = 2,
    [SIM_SIGNER_NOT_YET] = 2,
    [SIM_SIGNER_FOREIGN] = 2,
    [SIM_SIGNER_KEY_USAGE] = 2,
    [SIM_SIGNER_CRITICAL] = 1,
    [SIM_NO_NEXT_UPDATE] = 3,
    [SIM_REVOKED] = 10,
    [SIM_VALIDITY] = 4,
    [SIM_PRESIGN] = 3,
    [SIM_NEW_SIGNER] = 5,
    [SIM_JUMP] = 10,
    [SIM_DRIFT] = 3,
    [SIM_SLEEP] = 3,
    [SIM_DISK_FULL] = 5,
    [SIM_DISK_NO_SYNC] = 2,
    [SIM_DISK_UNREADABLE] = 2,
    [SIM_DISK_FLIPPED] = 2,
    [SIM_DISK_TRUNCATED] = 2,
    [SIM_DISK_DELETED] = 2,
    [SIM_DISK_RESTORED] = 4,
    [SIM_RESTART] = 8,
    [SIM_KILL] = 6,
    [SIM_KILL_IN_WRITE] = 5,
    [SIM_POWER] = 4,
    [SIM_NO_THREAD] = 3,
    [SIM_RELOAD] = 5,
    [SIM_RELOAD_LATE] = 3,
    [SIM_RENEW] = 8,
    [SIM_ROLLBACK] = 3,
    [SIM_SELF_SIGNED] = 1,
    [SIM_NO_URLS] = 2,
    [SIM_NO_ISSUER] = 2,
    [SIM_STAPLING_OFF] = 6,
    [SIM_MARGIN] = 3,
    [SIM_RETRY_DELAY] = 3,
    [SIM_TIMEOUT] = 1,
    [SIM_URL] = 4,
    [SIM_CACHE_OFF] = 2,
    [SIM_CACHE_MOVED] = 2,
    [SIM_FILE] = 3,
    [SIM_FILE_UPDATED] = 2,
    [SIM_FILE_BAD] = 2,
    [SIM_REFRESH] = 6,
    [SIM_PUSH] = 8,
};

static simKind simPickKind(simRng *rng) {
    int64_t sum = 0, pick;
    int i;

    for (i = 0; i < SIM_KINDS; i++) sum += weights[i];
    pick = simBetween(rng, 0, sum - 1);
    for (i = 0; pick >= weights[i]; i++) pick -= weights[i];
    return (simKind)i;
}

static int simPickValidity(simRng *rng, simClass class) {
    static const int usual[] = {86400, 4 * 86400, 7 * 86400};

    if (class == SIM_SHORT) return (int)simLogBetween(rng, 20, 86400);
    return simOneIn(rng, 4) ? usual[simBetween(rng, 0, 2)] : (int)simLogBetween(rng, 86400, 28 * 86400);
}

static int simLarger(int a, int b) {
    return a > b ? a : b;
}

static void simFillEvent(simRng *rng, const simWorld *w, simClass class, simEvent *e) {
    int validity = w->validity;

    e->a = e->b = e->duration = 0;
    if (simIsFault(e->kind)) {
        /* Once the response has expired, each day of an outage is like the last: few outages are long. */
        e->duration = simLogBetween(rng, SIM_SECOND,
                                    class == SIM_SHORT   ? validity * 4 * SIM_SECOND
                                    : simOneIn(rng, 500) ? 30 * SIM_DAY
                                    : simOneIn(rng, 20)  ? validity * SIM_SECOND + 2 * SIM_DAY
                                                         : SIM_DAY);
        e->b = simOneIn(rng, 3) ? simBetween(rng, 1, (1 << w->urls) - 1) : (1 << w->urls) - 1;
    }
    switch (e->kind) {
    case SIM_SLOW: e->a = simLogBetween(rng, 100, 70000); break;
    case SIM_FLAKY: e->a = simBetween(rng, 5, 95); break;
    case SIM_OLDER: e->a = simLogBetween(rng, 1, (int64_t)validity * 2); break;
    case SIM_BACKDATED: e->a = simLogBetween(rng, 1, (int64_t)validity * 2); break;
    case SIM_FUTURE: e->a = simOneIn(rng, 3) ? simBetween(rng, 290, 310) : simLogBetween(rng, 1, 864000); break;
    case SIM_NO_NEXT_UPDATE: e->duration = simLogBetween(rng, SIM_MINUTE, 2 * SIM_DAY); break;
    case SIM_REVOKED:
        e->duration = simLogBetween(rng, SIM_MINUTE, class == SIM_SHORT ? SIM_DAY : 10 * SIM_DAY);
        e->b = simOneIn(rng, 2);
        break;
    case SIM_VALIDITY:
        e->a = simPickValidity(rng, class);
        if (class == SIM_SHORT) e->a = simLogBetween(rng, simLarger(20, validity / 8), simLarger(60, validity * 4));
        if (!simOneIn(rng, 10)) break;
        /* From weeks to minutes or back, for up to 200 validity intervals. */
        e->a = simLogBetween(rng, 60, 28 * 86400);
        e->duration = simLogBetween(rng, e->a, e->a * 200) * SIM_SECOND;
        break;
    case SIM_PRESIGN: e->a = simOneIn(rng, 2) ? 0 : simLogBetween(rng, 60 + validity / 20, validity); break;
    case SIM_NEW_SIGNER:
        e->a = simOneIn(rng, 2) ? 0 : simLogBetween(rng, class == SIM_LONG ? validity : 60, (int64_t)validity * 20);
        break;
    case SIM_JUMP:
        /* At the end of the event the clock is corrected, by an administrator or by NTP. */
        e->duration = simLogBetween(rng, SIM_SECOND, SIM_DAY / 4);
        e->a = simLogBetween(rng, 1, simOneIn(rng, 4) ? 3 * SIM_YEAR : SIM_DAY) * (simOneIn(rng, 2) ? 1 : -1);
        break;
    case SIM_DRIFT:
        e->a = simBetween(rng, -500, 500);
        e->duration = simLogBetween(rng, SIM_SECOND, 5 * SIM_DAY);
        break;
    case SIM_SLEEP: e->a = simLogBetween(rng, SIM_SECOND, 10 * SIM_DAY); break;
    case SIM_NO_THREAD: e->duration = simLogBetween(rng, SIM_SECOND, SIM_HOUR); break;
    case SIM_DISK_FULL:
    case SIM_DISK_NO_SYNC:
    case SIM_DISK_UNREADABLE: e->duration = simLogBetween(rng, SIM_SECOND, 3 * SIM_DAY); break;
    case SIM_DISK_RESTORED: e->a = simBetween(rng, 1, 5); break;
    case SIM_KILL_IN_WRITE: e->a = simBetween(rng, 1, 9); /* fall through */
    case SIM_RESTART:
    case SIM_KILL:
    case SIM_POWER: e->duration = simLogBetween(rng, 10, simOneIn(rng, 10) ? 10 * SIM_DAY : SIM_MINUTE); break;
    case SIM_RENEW:
        e->a = w->cert_validity; /* the next regular renewal is a separate event, below */
        e->b = simOneIn(rng, 4);
        break;
    case SIM_STAPLING_OFF:
    case SIM_URL:
    case SIM_CACHE_OFF:
    case SIM_CACHE_MOVED:
    case SIM_ROLLBACK:
    case SIM_SELF_SIGNED:
    case SIM_NO_URLS:
    case SIM_NO_ISSUER:
    case SIM_FILE: e->duration = simLogBetween(rng, SIM_SECOND, 2 * SIM_DAY); break;
    case SIM_MARGIN: e->a = simBetween(rng, 1, simOneIn(rng, 20) ? 99 : 40); break;
    case SIM_RETRY_DELAY: e->a = simLogBetween(rng, 1, 3600); break;
    case SIM_TIMEOUT: e->a = simBetween(rng, 1, 60); break;
    case SIM_PUSH:
        e->a = simOneIn(rng, 2) ? 0 : simBetween(rng, 1, 6);
        e->b = simLogBetween(rng, 1, (int64_t)validity * 2);
        break;
    case SIM_FILE_BAD: e->a = simBetween(rng, 0, 4); break;
    default: break;
    }
}

static int simByTime(const void *x, const void *y) {
    const simEvent *a = x, *b = y;
    return a->at < b->at ? -1 : a->at > b->at;
}

static int simPickInterval(simRng *rng, const simWorld *w) {
    int low = simLarger(60, w->validity / 30), high = simLarger(120, w->validity * 2);

    if (high > 604800) high = 604800;
    return simOneIn(rng, 6) ? 0 : (int)simLogBetween(rng, low, high);
}

/* In one of four worlds the operator sets max-interval, often soon after other events. With random numbers of its own, so
 * that the other worlds are what they were before this directive existed. */
static void simAddIntervals(simWorld *w) {
    simRng rng = {w->number * 0x2545f4914f6cdd1du + 4177};
    int n = w->event_count;

    if (!simOneIn(&rng, 4)) return;
    w->options.max_interval = simPickInterval(&rng, w);
    while (w->event_count < SIM_MAX_EVENTS && !simOneIn(&rng, 12)) {
        int64_t after =
            n > 0 && !simOneIn(&rng, 3) ? w->events[simBetween(&rng, 0, n - 1)].at : simBetween(&rng, 0, w->end_at - 1);
        simEvent e = {.kind = SIM_MAX_INTERVAL, .at = after + simLogBetween(&rng, 1, SIM_HOUR)};
        e.a = simPickInterval(&rng, w);
        if (e.at < w->end_at) w->events[w->event_count++] = e;
    }
}

/* Adds an event soon after or before another one, or at any time. */
static void simAddNear(simWorld *w, simRng *rng, int n, simEvent e) {
    int64_t by = simLogBetween(rng, 1, SIM_HOUR);
    int64_t other =
        n > 0 && !simOneIn(rng, 3) ? w->events[simBetween(rng, 0, n - 1)].at : simBetween(rng, 0, w->end_at - 1);

    e.at = other > by && simOneIn(rng, 2) ? other - by : other + by;
    if (e.at < w->end_at && w->event_count < SIM_MAX_EVENTS) w->events[w->event_count++] = e;
}

/* Draws which certificates of the chain the events are about: each CA has a responder of its own. */
static void simAimEvents(simWorld *w, simRng *rng) {
    int i, all = (2 << w->chain.depth) - 1;

    for (i = 0; i < w->event_count; i++) {
        simEvent *e = &w->events[i];
        int one = 1 << simBetween(rng, 0, w->chain.depth), some = (int)simBetween(rng, 1, all);
        int any = simOneIn(rng, 2);
        if (simIsFault(e->kind) || e->kind == SIM_REVOKED) e->levels = any ? 0 : some;
        if (e->kind == SIM_FILE || e->kind == SIM_FILE_UPDATED || e->kind == SIM_FILE_BAD) e->levels = any ? all : some;
        if (e->kind == SIM_PUSH || (e->kind >= SIM_DISK_FLIPPED && e->kind <= SIM_DISK_RESTORED)) e->levels = one;
    }
}

/* In one of four worlds (or with `always`) intermediate CAs are between the root and the leaf, and staple-chain is set. With
 * random numbers of its own, like max-interval. */
static void simAddChain(simWorld *w, int always) {
    simRng rng = {w->number * 0x2545f4914f6cdd1du + 90001};
    int n, i, chosen = simOneIn(&rng, 4);
    int64_t at, validity;

    if (!chosen && !always) return;
    w->chain.depth = simOneIn(&rng, 5) ? (int)simBetween(&rng, 3, SIM_MAX_DEPTH) : (int)simBetween(&rng, 1, 2);
    w->chain.sent = simOneIn(&rng, 8) ? (int)simBetween(&rng, 0, w->chain.depth) : w->chain.depth;
    w->chain.root_sent = simOneIn(&rng, 3);
    w->chain.root_trusted = !simOneIn(&rng, 8);
    w->chain.supported = !simOneIn(&rng, 8);
    w->chain.validity =
        simOneIn(&rng, 3) ? (int)simLogBetween(&rng, w->validity * 4 + 60, 300 * 86400) : 10 * 366 * 86400;
    for (i = 1; i < SIM_MAX_LEVELS; i++) w->chain.urls[i] = simOneIn(&rng, 6) ? 0 : (int)simBetween(&rng, 1, w->urls);
    if (simOneIn(&rng, 6))
        for (i = 0; i < SIM_MAX_LEVELS; i++) w->chain.padding[i] = (int)simBetween(&rng, 0, 14000);
    w->options.staple_chain = !simOneIn(&rng, 8);
    simAimEvents(w, &rng);
    validity = w->chain.validity * SIM_SECOND;
    for (i = 1; i <= w->chain.depth; i++) { /* as the leaf is renewed */
        for (at = 0; w->event_count < SIM_MAX_EVENTS;) {
            at += simOneIn(&rng, 4) ? validity + simLogBetween(&rng, 1, SIM_DAY)
                                    : validity - simLogBetween(&rng, 1, validity / 2);
            if (at >= w->end_at) break;
            w->events[w->event_count++] = (simEvent){.kind = SIM_CA_RENEW, .at = at, .a = i};
        }
    }
    for (n = w->event_count; w->event_count < SIM_MAX_EVENTS && !simOneIn(&rng, 16);) {
        static const simKind kinds[] = {SIM_CHAIN,   SIM_CHAIN, SIM_CA_RENEW, SIM_CA_RENEW, SIM_ROOT,
                                        SIM_REVOKED, SIM_DOWN,  SIM_HANG,     SIM_RELOAD,   SIM_RESTART};
        simEvent e = {.kind = kinds[simBetween(&rng, 0, (int64_t)(sizeof(kinds) / sizeof(kinds[0])) - 1)]};
        simFillEvent(&rng, w, w->class, &e);
        if (e.kind == SIM_CHAIN) e.duration = simLogBetween(&rng, SIM_SECOND, 2 * SIM_DAY);
        if (e.kind == SIM_CA_RENEW) e.a = simBetween(&rng, 1, w->chain.depth);
        if (e.kind == SIM_ROOT) e.a = simBetween(&rng, 0, 2);
        if (simIsFault(e.kind) || e.kind == SIM_REVOKED) e.levels = 1 << simBetween(&rng, 1, w->chain.depth);
        simAddNear(w, &rng, n, e);
    }
}

void simMakeWorld(simWorld *w, uint64_t number, simClass class, int chain) {
    static const simKind outages[] = {SIM_DOWN,  SIM_DOWN,    SIM_DOWN,   SIM_HANG,         SIM_HTTP,
                                      SIM_FLAKY, SIM_EXPIRED, SIM_FROZEN, SIM_OTHER_ISSUER, SIM_TRY_LATER};
    simRng rng = {number * 0x2545f4914f6cdd1du + 77};
    int64_t at;

    memset(w, 0, sizeof(*w));
    w->number = number;
    if (class == SIM_ANY) class = simOneIn(&rng, 4) ? SIM_SHORT : SIM_LONG;
    w->class = class;
    w->validity = simPickValidity(&rng, class);
    /* A short world gets about as many answers as a long one. */
    w->end_at = class == SIM_LONG ? simBetween(&rng, SIM_YEAR / 2, 3 * SIM_YEAR) : w->validity * SIM_SECOND * 300;
    w->max_steps = class == SIM_LONG ? 4000 + 4000 * (w->end_at / SIM_YEAR) : 4000;
    w->presign = simOneIn(&rng, 3) ? (int)simLogBetween(&rng, w->validity / 20 + 1, w->validity) : 0;
    w->backdate = simOneIn(&rng, 3) ? (int)simLogBetween(&rng, 1, w->validity / 2) : 0;
    w->signer_validity = simOneIn(&rng, 4) ? (int)simLogBetween(&rng, w->validity, INT64_C(30) * w->validity) : 0;
    w->no_next_update = class == SIM_SHORT && simOneIn(&rng, 8);
    w->urls = (int)simBetween(&rng, 1, SIM_MAX_URLS);
    w->signer_gap = simOneIn(&rng, 6);
    w->must_staple = simOneIn(&rng, 4);
    w->two_certs = simOneIn(&rng, 4);
    w->cert_validity =
        simOneIn(&rng, 3) ? (int)simLogBetween(&rng, w->validity * 4 + 60, 300 * 86400) : 10 * 366 * 86400;
    w->latency = (int)simLogBetween(&rng, 1, 2000);
    if (simOneIn(&rng, 4)) w->round_to = w->validity / 4 < 3600 ? w->validity / 4 : 3600;
    w->options = (ocspOptions)OCSP_OPTIONS_DEFAULT;
    w->options.stapling = 1;
    if (simOneIn(&rng, 3)) w->options.refresh_margin = (int)simBetween(&rng, 1, simOneIn(&rng, 20) ? 99 : 40);
    if (simOneIn(&rng, 3)) w->options.retry_delay = (int)simLogBetween(&rng, 1, 3600);
    if (simOneIn(&rng, 3)) w->options.timeout = (int)simBetween(&rng, 1, 60);
    if (simOneIn(&rng, 10)) w->options.cache_dir = "";

    /* Certificates are renewed, usually before they expire, and often late. */
    for (at = 0; w->event_count < SIM_MAX_EVENTS / 4;) {
        int64_t validity = w->cert_validity * SIM_SECOND;
        at += simOneIn(&rng, 4) ? validity + simLogBetween(&rng, 1, SIM_DAY)
                                : validity - simLogBetween(&rng, 1, validity / 2);
        if (at >= w->end_at) break;
        w->events[w->event_count++] =
            (simEvent){.kind = SIM_RENEW, .at = at, .a = w->cert_validity, .b = simOneIn(&rng, 4)};
    }
    at = 0;
    while (w->event_count < SIM_MAX_EVENTS) {
        int64_t cluster_span =
            simLogBetween(&rng, SIM_SECOND, class == SIM_LONG ? 3 * SIM_DAY : w->validity * SIM_SECOND);
        int n = (int)simBetween(&rng, 1, 8), even = 0;
        at += class == SIM_LONG ? simLogBetween(&rng, SIM_DAY, 90 * SIM_DAY)
                                : simLogBetween(&rng, w->validity * SIM_SECOND / 10, w->validity * SIM_SECOND * 30);
        if (at >= w->end_at) break;
        if (simOneIn(&rng, 3) &&
            w->event_count < SIM_MAX_EVENTS) { /* an outage that contains the rest of the cluster */
            simEvent *e = &w->events[w->event_count++];
            e->kind = outages[simBetween(&rng, 0, (int64_t)(sizeof(outages) / sizeof(outages[0])) - 1)];
            e->at = at;
            simFillEvent(&rng, w, class, e);
            e->b = (1 << w->urls) - 1;
            e->duration = class == SIM_LONG ? simLogBetween(&rng, 10 * SIM_MINUTE, w->validity * SIM_SECOND + SIM_DAY)
                                            : simLogBetween(&rng, w->validity * SIM_SECOND / 4,
                                                            w->validity * SIM_SECOND * 4 + SIM_HOUR);
            cluster_span = e->duration;
            even = 1;
        }
        while (n-- > 0 && w->event_count < SIM_MAX_EVENTS) {
            simEvent *e = &w->events[w->event_count++];
            e->kind = simPickKind(&rng);
            e->at = at + (even ? simBetween(&rng, 1, cluster_span) : simLogBetween(&rng, 1, cluster_span));
            simFillEvent(&rng, w, class, e);
            if (e->kind == SIM_REFRESH && simOneIn(&rng, 2) && w->event_count < SIM_MAX_EVENTS) { /* requested twice */
                w->events[w->event_count] = *e;
                w->events[w->event_count++].at += simLogBetween(&rng, 1, 5000);
            }
        }
        at += cluster_span;
    }
    simAddIntervals(w);
    simAddChain(w, chain);
    qsort(w->events, (size_t)w->event_count, sizeof(w->events[0]), simByTime);
}
