/* node.c - one node of the fleet.
 *
 * All arithmetic is the engine's: ocspRefreshAtMs, ocspRecheckAtMs, ocspRetryDelayMs, ocspCompare. What is repeated here,
 * because the engine's own steps would take minutes in place of a second, is which of them ocsp_thread.c uses when
 * (ocspDueIn, ocspAcceptResponse, ocspScheduleRecheck, ocspFailed); engine.c compares that with the engine.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fleet.h"
#include <stdio.h>

/* ---- chance ------------------------------------------------------------------------------------------------------ */

static uint64_t fleetNext(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

fleetChance fleetChanceOf(const fleetCase *c, int node) {
    uint64_t mixed = c->seed * 1000003 + (uint64_t)node;

    return (fleetChance){fleetNext(&mixed), c->jitter};
}

int64_t fleetStartOf(fleetChance *chance) {
    return (int64_t)(fleetNext(&chance->state) % (uint64_t)FLEET_MINUTE);
}

uint32_t fleetDraw(fleetChance *chance) {
    uint32_t value = (uint32_t)(fleetNext(&chance->state) >> 32);

    return chance->jitter ? value : 0;
}

/* ---- the CA ------------------------------------------------------------------------------------------------------ */

time_t fleetThisUpdate(const fleetCase *c, int64_t at) {
    int64_t signed_at = c->signs ? (at + c->phase) / c->signs * c->signs - c->phase : at;

    return (time_t)((FLEET_EPOCH + signed_at) / 1000);
}

/* ---- the node ---------------------------------------------------------------------------------------------------- */

static const ocspOptions defaults = OCSP_OPTIONS_DEFAULT;

typedef struct fleetHeld {
    ocspResponse response;        /* der NULL: nothing */
    int64_t refresh_at, retry_at; /* wall; since the start, 0: none */
    unsigned attempt;
} fleetHeld;

static int64_t fleetLeft(const fleetHeld *h, int64_t now) {
    return h->response.der ? (int64_t)h->response.expires_at * 1000 - (FLEET_EPOCH + now) : 0;
}

static void fleetBackOff(fleetHeld *h, int64_t now, fleetChance *chance) {
    h->attempt++;
    h->retry_at = now + ocspRetryDelayMs(defaults.retry_delay, h->attempt, fleetLeft(h, now), 0, fleetDraw(chance));
}

static void fleetNothingNewer(fleetHeld *h, const fleetCase *c, int64_t now, fleetChance *chance) {
    int64_t again;

    if (fleetLeft(h, now) <= 0) {
        fleetBackOff(h, now, chance);
        return;
    }
    h->attempt = 0;
    again = ocspRecheckAtMs(&h->response, c->margin, FLEET_EPOCH + now, fleetDraw(chance));
    if (again)
        h->refresh_at = again;
    else
        h->retry_at = now + ocspOutageDelayMs(fleetLeft(h, now), 0, fleetDraw(chance));
}

static void fleetTake(fleetHeld *h, const fleetCase *c, int64_t asked, int64_t now, fleetChance *chance) {
    static unsigned char some_bytes;
    ocspResponse fresh = {.der = &some_bytes, .len = 1, .this_update = fleetThisUpdate(c, asked)};

    fresh.next_update = fresh.expires_at = fresh.this_update + (time_t)(c->life / 1000);
    h->retry_at = 0;
    if (ocspCompare(&h->response, &fresh, (time_t)((FLEET_EPOCH + now) / 1000)) == OCSP_FRESH_NEWER) {
        h->response = fresh;
        h->refresh_at = ocspRefreshAtMs(&fresh, c->margin, FLEET_EPOCH + now, fleetDraw(chance));
    }
    if (FLEET_EPOCH + now < h->refresh_at)
        h->attempt = 0;
    else
        fleetNothingNewer(h, c, now, chance);
}

static int fleetBroken(const fleetCase *c, int node, int64_t at, const char *what) {
    fprintf(stderr, "node %d of seed %llu (life %lld s, margin %d %%) at %lld ms %s\n", node,
            (unsigned long long)c->seed, (long long)c->life / 1000, c->margin, (long long)at, what);
    return 0;
}

int fleetNode(const fleetCase *c, int node, fleetAsks *asks, void *arg) {
    fleetChance chance = fleetChanceOf(c, node);
    fleetHeld h = {.attempt = 0};
    int64_t at = fleetStartOf(&chance), now = 0, formula = INT64_MAX;
    int first = 1, fresh;

    for (;; first = 0) {
        /* The first round for what is held comes by the formula, or a second after the answer that brought it. */
        if (at > formula && at > now + OCSP_MIN_INTERVAL_MS)
            return fleetBroken(c, node, at, "refreshes later than the formula");
        if (!first && at < now + OCSP_MIN_INTERVAL_MS) return fleetBroken(c, node, at, "asks within a second");
        if (at >= c->until) return 1;
        asks(arg, at, first);
        now = at + FLEET_TAKES;
        fresh = !h.response.der || fleetThisUpdate(c, at) != h.response.this_update;
        if (at >= c->down && at < c->up) {
            fleetBackOff(&h, now, &chance);
            formula = INT64_MAX; /* asked for in time */
        } else {
            fleetTake(&h, c, at, now, &chance);
            formula = INT64_MAX;
            if (fresh && !h.retry_at)
                formula = (int64_t)h.response.expires_at * 1000 - FLEET_EPOCH - c->life / 100 * c->margin;
        }
        at = h.retry_at ? h.retry_at : h.refresh_at - FLEET_EPOCH;
        if (at < now + OCSP_MIN_INTERVAL_MS) at = now + OCSP_MIN_INTERVAL_MS;
    }
}
