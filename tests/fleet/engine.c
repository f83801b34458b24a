/* engine.c - simulates a node of the fleet with the whole engine: its own steps, with the fleet's clock, CA and random
 * numbers in ocsp_env, real certificates and real signatures. Its requests must be at the times of node.c, to the
 * millisecond.
 *
 * The clock advances by the wait that a step returns, and skips the time in which INFO reports that nothing is due.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fleet.h"
#include "../c/support.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLEET_MAX_REQUESTS 20000
#define FLEET_STEP_WINDOW_MS 5000 /* the last seconds before a refresh are simulated step by step */

static struct {
    const fleetCase *c;
    fleetRng rng;
    int64_t now;
    int requests, expected, wrong;
    int64_t at[FLEET_MAX_REQUESTS]; /* the times of node.c's requests */
    unsigned char *cached;          /* the cache file, for a restart */
    size_t cached_len;
    int64_t cached_at; /* wall clock seconds */
} run;

static int64_t fleetWall(void) {
    return FLEET_EPOCH + run.now;
}

static int64_t fleetMono(void) {
    return FLEET_DAY + run.now;
}

static uint32_t fleetEngineRandom(void) {
    return fleetDraw(&run.rng);
}

static ocspFetchResult fleetFetch(const ocspExchange *exchange,
                                  unsigned char **body,
                                  size_t *body_len,
                                  ocspError *err) {
    int64_t at = run.now;
    testReply reply;
    testBytes der;

    (void)exchange;
    if (run.requests >= run.expected || run.at[run.requests] != at) run.wrong = 1;
    run.requests++;
    run.now += FLEET_REFRESH_MS;
    *body = NULL;
    *body_len = 0;
    if (at >= run.c->down && at < run.c->up) {
        ocspFail(err, OCSP_FAIL_CONNECT, "outage of the fleet's CA");
        return OCSP_FETCH_FAILED;
    }
    reply = testGoodReply(testGetPki()->leaf);
    reply.singles[0].this_update = fleetThisUpdate(run.c, at);
    reply.singles[0].next_update = reply.singles[0].this_update + (time_t)(run.c->validity / 1000);
    der = testReplyDer(&reply);
    *body = ocspMemdup(der.p, der.n);
    *body_len = *body ? der.n : 0;
    testBytesFree(&der);
    return *body ? OCSP_FETCH_OK : OCSP_FETCH_FAILED;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static int fleetLoad(const char *dir,
                     const ocspIdentity *id,
                     unsigned char **der,
                     size_t *len,
                     int64_t *mtime,
                     ocspError *err) {
    (void)dir, (void)id, (void)err;
    if (!run.cached) return 0;
    *der = ocspMemdup(run.cached, run.cached_len);
    *len = run.cached_len;
    *mtime = run.cached_at;
    return *der != NULL;
}

static int fleetStore(const char *dir, const ocspIdentity *id, const unsigned char *der, size_t len, ocspError *err) {
    (void)dir, (void)id, (void)err;
    free(run.cached);
    run.cached = malloc(len);
    run.cached_len = len;
    run.cached_at = fleetWall() / 1000;
    if (run.cached) memcpy(run.cached, der, len);
    return run.cached != NULL;
}

static void fleetPrune(const char *dir, int64_t now, const ocspIoHooks *wait) {
    (void)dir, (void)now, (void)wait;
}

/* ---- INFO: the next refresh -------------------------------------------------------------------------------------- */

static long long next_refresh_seconds;

static void fleetText(void *arg, const char *field, const char *value) {
    (void)arg, (void)field, (void)value;
}

static void fleetNumber(void *arg, const char *field, long long value) {
    (void)arg;
    if (strcmp(field, "next_refresh_in_seconds") == 0) next_refresh_seconds = value;
}

static int64_t fleetIdleMs(void) {
    static const ocspInfoSink sink = {fleetText, fleetNumber, NULL};

    next_refresh_seconds = -1;
    ocspInfoState(&sink);
    return next_refresh_seconds < 0 ? 0 : next_refresh_seconds * 1000 - FLEET_STEP_WINDOW_MS;
}

/* ---- the node ---------------------------------------------------------------------------------------------------- */

static void fleetExpect(void *arg, int64_t at, int first) {
    (void)arg, (void)first;
    if (run.expected < FLEET_MAX_REQUESTS) run.at[run.expected++] = at;
}

/* Starts the engine, as a server does. */
static SSL_CTX *fleetStart(const fleetCase *c) {
    static const ocspHost host = {.alloc = malloc, .free = free};
    const testPki *pki = testGetPki();
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    SSL_CTX *ctx;

    options.stapling = 1;
    options.refresh_margin = c->margin;
    options.max_interval = c->max_interval;
    options.cache_dir = c->stop ? "cache" : "";
    if (!ocspInit(&host) || !ocspSetOptions(&options)) {
        fprintf(stderr, "fleet: the engine does not start\n");
        exit(2);
    }
    ctx = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    return ctx;
}

static void fleetEnd(SSL_CTX *ctx) {
    SSL_CTX_free(ctx);
    ocspShutdown();
}

int fleetEngineAgrees(const fleetCase *c, int node, long *requests) {
    ocspEnv real = ocsp_env;
    int64_t stop = c->stop ? c->stop : INT64_MAX;
    SSL_CTX *ctx;

    memset(&run, 0, sizeof(run));
    run.c = c;
    if (!fleetNode(c, node, fleetExpect, NULL)) return 0;
    run.rng = fleetRngOf(c, node);
    run.now = fleetStartTime(&run.rng);
    ocsp_env.wall_ms = fleetWall;
    ocsp_env.mono_ms = fleetMono;
    ocsp_env.random = fleetEngineRandom;
    ocsp_env.fetch = fleetFetch;
    ocsp_env.cache_load = fleetLoad;
    ocsp_env.cache_store = fleetStore;
    ocsp_env.cache_prune = fleetPrune;
    ctx = fleetStart(c);
    while (run.now < c->until && !run.wrong) {
        int64_t wait, idle;
        if (run.now >= stop) {
            fleetEnd(ctx);
            run.now = c->start + fleetStartTime(&run.rng);
            ctx = fleetStart(c);
            stop = INT64_MAX;
        }
        wait = ocspThreadStep();
        idle = wait >= 1000 ? fleetIdleMs() : 0;
        if (idle > wait) wait = idle;
        run.now = run.now < stop && wait > stop - run.now ? stop : run.now + wait;
    }
    fleetEnd(ctx);
    ocsp_env = real;
    free(run.cached);
    *requests += run.requests;
    if (!run.wrong && run.requests == run.expected) return 1;
    fprintf(stderr,
            "node %d of seed %llu (validity %lld s, margin %d %%, signed every %lld s): the engine's request %d is at "
            "%lld ms, node.c's at %lld ms. node.c repeats a part of ocsp_worker.c: adapt it to a change there\n",
            node, (unsigned long long)c->seed, (long long)c->validity / 1000, c->margin,
            (long long)c->sign_interval / 1000, run.requests, (long long)run.now - FLEET_REFRESH_MS,
            (long long)(run.requests > 0 && run.requests <= run.expected ? run.at[run.requests - 1] : -1));
    return 0;
}
