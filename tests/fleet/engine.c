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

static ocspFetchResult fleetFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len,
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

int fleetEngineAgrees(const fleetCase *c, int node, long *requests) {
    static const ocspHost host = {.alloc = malloc, .free = free};
    const testPki *pki = testGetPki();
    ocspEnv real = ocsp_env;
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
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
    options.stapling = 1;
    options.refresh_margin = c->margin;
    options.cache_dir = "";
    if (!ocspInit(&host) || !ocspSetOptions(&options)) {
        fprintf(stderr, "fleet: the engine does not start\n");
        exit(2);
    }
    ctx = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    while (run.now < c->until && !run.wrong) {
        int64_t wait = ocspThreadStep(), idle = wait >= 1000 ? fleetIdleMs() : 0;
        if (idle > wait) wait = idle;
        run.now += wait;
    }
    SSL_CTX_free(ctx);
    ocspShutdown();
    ocsp_env = real;
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
