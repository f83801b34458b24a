/* fleet.h - a fleet of nodes and its CA: the requests, and their times.
 *
 * A node depends only on the CA and on its own random numbers. Therefore nodes are simulated one after another, and
 * only their requests are counted: 100,000 nodes for four weeks take a fraction of a second.
 *
 * Time is milliseconds since the fleet's start. Each node starts within the first minute.
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
#define FLEET_REFRESH_MS 50                      /* duration of a refresh */

typedef struct fleetCase {
    int64_t validity;      /* nextUpdate - thisUpdate, milliseconds */
    int64_t sign_interval; /* between two signatures of the CA, the same for all nodes; 0: signs at each request */
    int64_t phase;         /* age of the signature when the fleet starts */
    int margin;            /* refresh-margin, percent */
    int jitter;            /* 0: each random number is 0 */
    int64_t until;         /* the end of the simulation */
    int64_t down, up;      /* the CA's outage; down == up: none */
    int max_interval;      /* seconds; 0: by the margin alone */
    int64_t stop, start;   /* all nodes stop at `stop` and restart in the minute from `start` on; 0: they do not */
    uint64_t seed;
} fleetCase;

/* Returns the thisUpdate of the CA's responses at `at`, in wall clock seconds. */
time_t fleetThisUpdate(const fleetCase *c, int64_t at);

/* A node's random numbers, by splitmix64. */
typedef struct fleetRng {
    uint64_t state;
    int jitter;
} fleetRng;

fleetRng fleetRngOf(const fleetCase *c, int node);
uint32_t fleetDraw(fleetRng *rng);
int64_t fleetStartTime(fleetRng *rng); /* a draw: when in its minute the node starts or restarts, milliseconds */

/* Simulates one node and calls `on_request` for each request. Returns 0, after a message on stderr, if a rule for every
 * node is broken: no refresh after the deadline or after max-interval, a second between refreshes. */
typedef void fleetOnRequest(void *arg, int64_t at, int first);
int fleetNode(const fleetCase *c, int node, fleetOnRequest *on_request, void *arg);

/* Simulates the same node with the whole engine and real signatures. Both must send their requests at the same
 * milliseconds. Adds the number of requests to *requests. Returns 0, after a message on stderr, if they differ. */
int fleetEngineAgrees(const fleetCase *c, int node, long *requests);

#endif
