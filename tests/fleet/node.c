/* node.c - one node of the fleet.
 *
 * The certificate's state machine is the engine's own (ocsp_cert.c), with the node's clock and randomness as its
 * environment. The worker's part is left out: steps in which nothing is due, HTTP, signatures. With them, 100,000 nodes
 * would take minutes instead of a second. engine.c compares this simulation with the whole engine.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fleet.h"
#include <stdio.h>
#include <string.h>

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

static uint64_t fleetNext(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15u;

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

fleetRng fleetRngOf(const fleetCase *c, int node) {
    uint64_t mixed = c->seed * 1000003 + (uint64_t)node;

    return (fleetRng){fleetNext(&mixed), c->jitter};
}

int64_t fleetStartTime(fleetRng *rng) {
    return (int64_t)(fleetNext(&rng->state) % (uint64_t)FLEET_MINUTE);
}

uint32_t fleetDraw(fleetRng *rng) {
    uint32_t value = (uint32_t)(fleetNext(&rng->state) >> 32);

    return rng->jitter ? value : 0;
}

/* ---- the CA ------------------------------------------------------------------------------------------------------ */

time_t fleetThisUpdate(const fleetCase *c, int64_t at) {
    int64_t signed_at = c->sign_interval ? (at + c->phase) / c->sign_interval * c->sign_interval - c->phase : at;

    return (time_t)((FLEET_EPOCH + signed_at) / 1000);
}

/* ---- the node ---------------------------------------------------------------------------------------------------- */

static struct {
    int64_t now; /* since the fleet's start */
    fleetRng rng;
} node_now;

static int64_t fleetNodeWall(void) {
    return FLEET_EPOCH + node_now.now;
}

static int64_t fleetNodeMono(void) {
    return FLEET_DAY + node_now.now;
}

static uint32_t fleetNodeRandom(void) {
    return fleetDraw(&node_now.rng);
}

static const ocspEnv env = {.wall_ms = fleetNodeWall, .mono_ms = fleetNodeMono, .random = fleetNodeRandom};

/* Runs one refresh that begins at `at`. Returns 1 if the CA answered. */
static int fleetRefresh(ocspCert *cert, const fleetCase *c, const ocspOptions *options, int64_t at) {
    ocspResponse fresh = {.this_update = fleetThisUpdate(c, at), .received = fleetNodeWall() / 1000};
    int answered = at < c->down || at >= c->up;
    ocspError err;

    if (!answered) {
        ocspRefreshFailed(cert, options, &env, 0);
    } else {
        fresh.der = ocspMemdup("", 1);
        fresh.len = 1;
        fresh.certid_digest = cert->current.certid_digest;
        fresh.next_update = fresh.expires_at = fresh.this_update + c->validity / 1000;
        ocspAcceptVerified(cert, options, &env, &fresh, OCSP_SOURCE_NETWORK, &err);
    }
    cert->schedule.last_refresh_ms = fleetNodeMono();
    return answered;
}

static ocspCert *fleetCert(ocspIdentity *id) {
    ocspCert *cert = ocspCertNew();

    if (!cert) return NULL;
    cert->id = id;
    cert->active = 1;
    cert->state = OCSP_STATE_PENDING;
    cert->schedule.refresh_now = 0;
    return cert;
}

static void fleetCertFree(ocspCert *cert) {
    cert->id = NULL;
    ocspCertFree(cert);
}

/* Restarts the node: the new process has the cached response only. */
static ocspCert *fleetRestart(ocspCert *old, ocspIdentity *id, const ocspOptions *options) {
    ocspCert *cert = fleetCert(id);
    ocspResponse cached = old->current;
    ocspError err;

    if (!cert) return NULL;
    memset(&old->current, 0, sizeof(old->current));
    fleetCertFree(old);
    ocspAcceptVerified(cert, options, &env, &cached, OCSP_SOURCE_CACHE, &err);
    return cert;
}

static int fleetRuleBroken(const fleetCase *c, int node, int64_t at, const char *what) {
    fprintf(stderr, "node %d of seed %llu (validity %lld s, margin %d %%) at %lld ms %s\n", node,
            (unsigned long long)c->seed, (long long)c->validity / 1000, c->margin, (long long)at, what);
    return 0;
}

int fleetNode(const fleetCase *c, int node, fleetOnRequest *on_request, void *arg) {
    static ocspIdentity id = {.serial = ""};
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    ocspCert *cert = fleetCert(&id);
    int64_t at, deadline = INT64_MAX, interval_ms = c->max_interval * FLEET_SECOND, latest = INT64_MAX;
    int first = 1, fresh, answered, restarted = !c->stop, ok = 1;

    if (!cert) return fleetRuleBroken(c, node, 0, "is out of memory");
    options.refresh_margin = c->margin;
    options.max_interval = c->max_interval;
    node_now.rng = fleetRngOf(c, node);
    node_now.now = 0;
    for (at = fleetStartTime(&node_now.rng); ok && at < c->until;) {
        if (!restarted && at >= c->stop) {
            node_now.now = c->start + fleetStartTime(&node_now.rng);
            cert = fleetRestart(cert, &id, &options);
            if (!cert) return fleetRuleBroken(c, node, at, "is out of memory");
            restarted = 1;
            at = node_now.now + ocspDueIn(cert, &options, &env);
            latest = cert->current.received * 1000 - FLEET_EPOCH + interval_ms;
            if (latest < node_now.now + interval_ms / 10) latest = node_now.now + interval_ms / 10;
            continue;
        }
        /* The first refresh of a response is at its deadline at the latest, or a second after its arrival. */
        if (at > deadline && at > node_now.now + OCSP_MIN_INTERVAL_MS)
            ok = fleetRuleBroken(c, node, at, "refreshes after the deadline");
        if (interval_ms && at > latest) ok = fleetRuleBroken(c, node, at, "refreshes later than max-interval allows");
        if (!first && at < node_now.now + OCSP_MIN_INTERVAL_MS && cert->schedule.last_refresh_ms)
            ok = fleetRuleBroken(c, node, at, "refreshes again within a second");
        on_request(arg, at, first);
        first = 0;
        node_now.now = at + FLEET_REFRESH_MS;
        fresh = !cert->current.der || fleetThisUpdate(c, at) != cert->current.this_update;
        answered = fleetRefresh(cert, c, &options, at);
        deadline = INT64_MAX;
        if (answered && fresh && !cert->schedule.retry_at_ms)
            deadline = cert->current.expires_at * 1000 - FLEET_EPOCH - c->validity / 100 * c->margin;
        latest = answered ? node_now.now + interval_ms : INT64_MAX;
        at = node_now.now + ocspDueIn(cert, &options, &env);
    }
    fleetCertFree(cert);
    return ok;
}
