/* ocsp-nodes.h - which nodes a server knows: the nodes of its cluster, its primary and replicas, or what a Sentinel
 * monitors. For `ocsp-probe --all-nodes`.
 *
 * Asks in RESP2, the protocol of Valkey and Redis, over any connection. Nothing in an answer is trusted: its size, depth
 * and number of nodes are limited, and a name with unusual characters is an error.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_NODES_H
#define OCSP_NODES_H

#include "ocsp_internal.h"

#define NODES_MAX 10000                     /* nodes in one answer, and targets in one run */
#define NODES_REPLY_BYTES (8 * 1024 * 1024) /* of text in one reply; CLUSTER SHARDS has about 250 bytes a node */
#define NODES_REPLY_VALUES 500000           /* in one reply; CLUSTER SHARDS has about 18 a node */
#define NODES_REPLY_DEPTH 8                 /* of nested arrays; CLUSTER SHARDS has 4 */
#define NODES_LINE_MAX 1024                 /* of a line: a length, a number, an error */

/* A connection. Both functions return the number of bytes, at least 1, or -1 with a sentence in *err: also at the end
 * of the connection, and at a deadline. */
typedef struct nodesIo {
    int (*read)(void *arg, char *buf, size_t size, ocspError *err);
    int (*write)(void *arg, const char *bytes, size_t len, ocspError *err);
    void *arg;
} nodesIo;

typedef struct nodesQuery {
    const char *host;            /* the server's host, as it was addressed: some answers mean it by "?" or "" */
    const char *user, *password; /* for AUTH; NULL: none. Without a user, the server's default user */
} nodesQuery;

typedef struct nodesNode {
    char *target; /* "host:port", or "[address]:port" for IPv6 */
    int no_tls;   /* the node announces no TLS port; the port is its plain one */
} nodesNode;

/* What a server answered. Owns its strings; release with nodesListClear. Start with {0}. */
typedef struct nodesList {
    nodesNode *nodes; /* in the order of the answer; the server itself may be among them */
    int count;
    size_t room;
    int follow; /* each of these nodes may know more: replicas of replicas */
} nodesList;

/* Asks for the nodes with AUTH, INFO, and CLUSTER SHARDS or the SENTINEL commands, and appends them to *list. Returns 0
 * with a sentence in *err if the answer is incomplete; *list may have a part of it then. */
int nodesAsk(const nodesIo *io, const nodesQuery *query, nodesList *list, ocspError *err);

void nodesListClear(nodesList *list);

/* Returns the worse of two exit statuses of a monitoring plugin: 2 (critical) before 3 (unknown) before 1 (warning)
 * before 0. */
int nodesWorseStatus(int a, int b);

/* Compares two targets for output: by host, numbers in it by value, then by port. As strcmp. */
int nodesCompareTargets(const char *a, const char *b);

#endif
