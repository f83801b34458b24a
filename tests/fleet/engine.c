/* engine.c - a node of the fleet, lived through by the engine itself: its own steps, with the fleet's clock, CA and
 * chance in place of the world's, real certificates and real signatures. It must ask when node.c says, to the
 * millisecond.
 *
 * The clock is moved by what a step asks to wait, and over hours in which INFO says that nothing is due.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fleet.h"
#include "../c/support.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FLEET_ASKS 20000
#define FLEET_LOOK_MS 5000 /* the last seconds before a round are lived through step by step */

static struct {
    const fleetCase *c;
    fleetChance chance;
    int64_t now;
    int asked, expected, wrong;
    int64_t at[FLEET_ASKS]; /* what node.c said */
} life;

static int64_t fleetWall(void) {
    return FLEET_EPOCH + life.now;
}

static int64_t fleetMono(void) {
    return FLEET_DAY + life.now;
}

static uint32_t fleetRandom(void) {
    return fleetDraw(&life.chance);
}

static ocspFetchResult fleetFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len,
                                  ocspError *err) {
    int64_t at = life.now;
    testReply reply;
    testBytes der;

    (void)exchange;
    if (life.asked >= life.expected || life.at[life.asked] != at) life.wrong = 1;
    life.asked++;
    life.now += FLEET_TAKES;
    *body = NULL;
    *body_len = 0;
    if (at >= life.c->down && at < life.c->up) {
        ocspFail(err, OCSP_ERR_NETWORK, "the fleet's CA is away");
        return OCSP_FETCH_FAILED;
    }
    reply = testGoodReply(testGetPki()->leaf);
    reply.singles[0].this_update = fleetThisUpdate(life.c, at);
    reply.singles[0].next_update = reply.singles[0].this_update + (time_t)(life.c->life / 1000);
    der = testReplyDer(&reply);
    *body = ocspMemdup(der.p, der.n);
    *body_len = *body ? der.n : 0;
    testBytesFree(&der);
    return *body ? OCSP_FETCH_OK : OCSP_FETCH_FAILED;
}

/* ---- INFO: when is the next round? ------------------------------------------------------------------------------- */

static long long next_in;

static void fleetText(void *arg, const char *field, const char *value) {
    (void)arg, (void)field, (void)value;
}

static void fleetNumber(void *arg, const char *field, long long value) {
    (void)arg;
    if (strcmp(field, "next_refresh_in_seconds") == 0) next_in = value;
}

static int64_t fleetIdle(void) {
    static const ocspInfoSink sink = {fleetText, fleetNumber, NULL};

    next_in = -1;
    ocspInfoState(&sink);
    return next_in < 0 ? 0 : next_in * 1000 - FLEET_LOOK_MS;
}

/* ---- the life ---------------------------------------------------------------------------------------------------- */

static void fleetExpect(void *arg, int64_t at, int first) {
    (void)arg, (void)first;
    if (life.expected < FLEET_ASKS) life.at[life.expected++] = at;
}

int fleetEngineAgrees(const fleetCase *c, int node, long *asked) {
    static const ocspHost host = {.alloc = malloc, .free = free};
    const testPki *pki = testGetPki();
    ocspEnv real = ocsp_env;
    ocspOptions options = OCSP_OPTIONS_DEFAULT;
    SSL_CTX *ctx;

    memset(&life, 0, sizeof(life));
    life.c = c;
    if (!fleetNode(c, node, fleetExpect, NULL)) return 0;
    life.chance = fleetChanceOf(c, node);
    life.now = fleetStartOf(&life.chance);
    ocsp_env.wall_ms = fleetWall;
    ocsp_env.mono_ms = fleetMono;
    ocsp_env.random = fleetRandom;
    ocsp_env.fetch = fleetFetch;
    options.stapling = 1;
    options.refresh_margin = c->margin;
    options.cache_dir = "";
    if (!ocspInit(&host) || !ocspSetOptions(&options)) {
        fprintf(stderr, "the engine does not start\n");
        exit(2);
    }
    ctx = testServerCtx(pki->leaf, pki->leaf_key, pki->ca);
    ocspInstallCallback(ctx);
    ocspAttachContext(ctx);
    while (life.now < c->until && !life.wrong) {
        int64_t wait = ocspThreadStep(), idle = wait >= 1000 ? fleetIdle() : 0;
        if (idle > wait) wait = idle;
        life.now += wait;
    }
    SSL_CTX_free(ctx);
    ocspShutdown();
    ocsp_env = real;
    *asked += life.asked;
    if (!life.wrong && life.asked == life.expected) return 1;
    fprintf(
        stderr,
        "node %d of seed %llu (life %lld s, margin %d %%, signed each %lld s): the engine's request %d comes at "
        "%lld ms, node.c says %lld ms. Did what ocsp_worker.c does around ocsp_cert.c change? node.c repeats a little of it\n",
        node, (unsigned long long)c->seed, (long long)c->life / 1000, c->margin, (long long)c->signs / 1000, life.asked,
        (long long)life.now - FLEET_TAKES,
        (long long)(life.asked > 0 && life.asked <= life.expected ? life.at[life.asked - 1] : -1));
    return 0;
}
