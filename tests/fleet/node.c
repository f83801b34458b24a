/* node.c - one node of the fleet.
 *
 * The certificate's state machine is the engine's own (ocsp_cert.c), with the node's clock and randomness as its
 * environment. What the worker does around it, and what it would take minutes in place of a second to do for 100,000
 * nodes, is left out: steps in which nothing is due, HTTP, signatures. engine.c compares the two.
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

static struct {
    int64_t now; /* since the fleet's start */
    fleetChance chance;
} node_now;

static int64_t fleetNodeWall(void) {
    return FLEET_EPOCH + node_now.now;
}

static int64_t fleetNodeMono(void) {
    return FLEET_DAY + node_now.now;
}

static uint32_t fleetNodeRandom(void) {
    return fleetDraw(&node_now.chance);
}

static const ocspEnv env = {.wall_ms = fleetNodeWall, .mono_ms = fleetNodeMono, .random = fleetNodeRandom};

/* One refresh that began at `at`. */
static void fleetRefresh(ocspCert *cert, const fleetCase *c, const ocspOptions *options, int64_t at) {
    ocspResponse fresh = {.this_update = fleetThisUpdate(c, at)};
    ocspError err;

    if (at >= c->down && at < c->up) {
        ocspRefreshFailed(cert, options, &env, 0);
    } else {
        fresh.der = ocspMemdup("", 1);
        fresh.len = 1;
        fresh.certid_digest = cert->current.certid_digest;
        fresh.next_update = fresh.expires_at = fresh.this_update + c->life / 1000;
        ocspAcceptVerified(cert, options, &env, &fresh, OCSP_SOURCE_NETWORK, &err);
    }
    cert->schedule.last_refresh_ms = fleetNodeMono();
}

static int fleetBroken(const fleetCase *c, int node, int64_t at, const char *what) {
    fprintf(stderr, "node %d of seed %llu (life %lld s, margin %d %%) at %lld ms %s\n", node,
            (unsigned long long)c->seed, (long long)c->life / 1000, c->margin, (long long)at, what);
    return 0;
}

int fleetNode(const fleetCase *c, int node, fleetAsks *asks, void *arg) {
    static ocspIdentity id = {.serial = ""};
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    ocspCert *cert = ocspCertNew();
    int64_t at, deadline = INT64_MAX;
    int first = 1, fresh, ok = 1;

    if (!cert) return fleetBroken(c, node, 0, "has no memory");
    options.refresh_margin = c->margin;
    cert->id = &id;
    cert->active = 1;
    cert->state = OCSP_STATE_PENDING;
    cert->schedule.refresh_now = 0;
    node_now.chance = fleetChanceOf(c, node);
    node_now.now = 0;
    for (at = fleetStartOf(&node_now.chance); ok && at < c->until; first = 0) {
        /* The first refresh of a response comes by the deadline, or a second after the answer that brought it. */
        if (at > deadline && at > node_now.now + OCSP_MIN_INTERVAL_MS)
            ok = fleetBroken(c, node, at, "refreshes later than the deadline");
        if (!first && at < node_now.now + OCSP_MIN_INTERVAL_MS) ok = fleetBroken(c, node, at, "asks within a second");
        asks(arg, at, first);
        node_now.now = at + FLEET_TAKES;
        fresh = !cert->current.der || fleetThisUpdate(c, at) != cert->current.this_update;
        fleetRefresh(cert, c, &options, at);
        deadline = INT64_MAX;
        if (!(at >= c->down && at < c->up) && fresh && !cert->schedule.retry_at_ms)
            deadline = cert->current.expires_at * 1000 - FLEET_EPOCH - c->life / 100 * c->margin;
        at = node_now.now + ocspDueIn(cert, &options, &env);
    }
    cert->id = NULL;
    ocspCertFree(cert);
    return ok;
}
