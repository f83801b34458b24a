/* fleet.h - a fleet of nodes and its CA: what is asked, and when.
 *
 * A node's life depends on nothing but the CA's hours and its own chance, so nodes are lived through one after another
 * and only their requests are added up: 100,000 nodes for four weeks take a fraction of a second.
 *
 * Time is milliseconds since the fleet's start. Minutes are those of the start: each node starts within the first.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_TEST_FLEET_H
#define OCSP_TEST_FLEET_H

#include "ocsp_worker.h"

#define FLEET_SECOND INT64_C(1000)
#define FLEET_MINUTE (60 * FLEET_SECOND)
#define FLEET_HOUR (60 * FLEET_MINUTE)
#define FLEET_DAY (24 * FLEET_HOUR)
#define FLEET_DAYS 28
#define FLEET_MINUTES (FLEET_DAYS * 24 * 60)
#define FLEET_EPOCH ((int64_t)1900000000 * 1000) /* the wall clock at the start; TEST_NOW of tests/c/support.h */
#define FLEET_TAKES 50                           /* a round's length in milliseconds */

typedef struct fleetCase {
    int64_t life;     /* nextUpdate - thisUpdate */
    int64_t signs;    /* a new signature that often, for all nodes; 0: at each request */
    int64_t phase;    /* how old the signature is when the fleet starts */
    int margin;       /* percent */
    int jitter;       /* 0: chance is 0 always */
    int64_t until;    /* when to stop looking */
    int64_t down, up; /* the CA is away; down == up: never */
    uint64_t seed;
} fleetCase;

/* What the CA answers at `at`: thisUpdate, in wall clock seconds. */
time_t fleetThisUpdate(const fleetCase *c, int64_t at);

/* Splitmix64 of a node. */
typedef struct fleetChance {
    uint64_t state;
    int jitter;
} fleetChance;

fleetChance fleetChanceOf(const fleetCase *c, int node);
uint32_t fleetDraw(fleetChance *chance);
int64_t fleetStartOf(fleetChance *chance); /* the first draw: when the node starts */

/* Lives through one node; `asks` hears of each request. Returns 0 and a sentence on stderr when a rule was broken that
 * holds for every node: never later than the formula, a second between rounds. */
typedef void fleetAsks(void *arg, int64_t at, int first);
int fleetNode(const fleetCase *c, int node, fleetAsks *asks, void *arg);

/* The same node lived through by the engine itself, with real signatures; the two must ask at the same milliseconds.
 * Adds to *asked; returns 0 and a sentence on stderr if they do not agree. */
int fleetEngineAgrees(const fleetCase *c, int node, long *asked);

#endif
