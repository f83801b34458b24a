/* ocsp-nodes.c - asks a Valkey or Redis server, or a Sentinel, which nodes it knows. See ocsp-nodes.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* strverscmp */
#endif
#include "ocsp-nodes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* ---- replies in RESP2 ----------------------------------------------------------------------------------------- */

/* A value of a reply. Values are stored in the order in which they arrive: those of an array follow it. */
typedef struct respValue {
    char type;        /* '+' simple string, '-' error, ':' integer, '$' bulk string, '*' array */
    long long number; /* integer; length of a string; count of an array; -1: null */
    size_t text;      /* offset of a string, which ends with a NUL */
    size_t next;      /* index of the value after this one and all in it */
} respValue;

typedef struct respReply {
    respValue *values;
    size_t count, room;
    char *text;
    size_t text_len, text_room;
} respReply;

typedef struct respReader {
    const nodesIo *io;
    ocspError *err;
    char buffer[16384];
    size_t at, end;
} respReader;

static void replyClear(respReply *reply) {
    free(reply->values);
    free(reply->text);
    memset(reply, 0, sizeof(*reply));
}

/* Returns the array, moved if need be, with room for one more element than `count`. When out of memory returns NULL, and
 * the old one is still valid. */
static void *grow(void *array, size_t *room, size_t count, size_t size, ocspError *err) {
    size_t larger = *room ? *room * 2 : 64;

    if (count < *room) return array;
    array = realloc(array, larger * size);
    if (array)
        *room = larger;
    else
        ocspFail(err, OCSP_FAIL_MEMORY, "out of memory");
    return array;
}

static int readByte(respReader *in, char *byte) {
    if (in->at == in->end) {
        int n = in->io->read(in->io->arg, in->buffer, sizeof(in->buffer), in->err);
        if (n <= 0) return 0;
        in->at = 0;
        in->end = (size_t)n;
    }
    *byte = in->buffer[in->at++];
    return 1;
}

/* Appends a byte to the text of the reply. */
static int keepByte(respReader *in, respReply *reply, char byte) {
    char *text;

    if (reply->text_len >= NODES_REPLY_BYTES)
        return ocspFail(in->err, OCSP_FAIL_CONNECT, "a reply has more than %d bytes", NODES_REPLY_BYTES);
    text = grow(reply->text, &reply->text_room, reply->text_len, 1, in->err);
    if (!text) return 0;
    reply->text = text;
    reply->text[reply->text_len++] = byte;
    return 1;
}

static int malformed(respReader *in) {
    return ocspFail(in->err, OCSP_FAIL_CONNECT, "a reply is not RESP2: check that this is a Valkey or Redis server");
}

/* Reads a line that ends with CR LF into the text of the reply, without these. */
static int readLine(respReader *in, respReply *reply, respValue *value) {
    char byte;

    value->text = reply->text_len;
    for (;;) {
        if (!readByte(in, &byte)) return 0;
        if (byte == '\r') break;
        if (byte == '\n' || reply->text_len - value->text >= NODES_LINE_MAX) return malformed(in);
        if (!keepByte(in, reply, byte)) return 0;
    }
    value->number = (long long)(reply->text_len - value->text);
    if (!readByte(in, &byte)) return 0;
    return byte == '\n' ? keepByte(in, reply, '\0') : malformed(in);
}

/* Parses a decimal number that is all of `text`. Returns 0 if it is none. */
static int parseNumber(const char *text, long long *out) {
    char *end;

    if (!text[0] || strspn(text + (text[0] == '-'), "0123456789") != strlen(text + (text[0] == '-'))) return 0;
    if (strlen(text) > 18 || text[strlen(text) - 1] == '-') return 0;
    *out = strtoll(text, &end, 10);
    return 1;
}

/* Reads the bytes of a bulk string, and the CR LF after them. */
static int readBulk(respReader *in, respReply *reply, respValue *value) {
    char byte;
    long long i;

    value->text = reply->text_len;
    for (i = 0; i < value->number; i++)
        if (!readByte(in, &byte) || !keepByte(in, reply, byte)) return 0;
    if (!readByte(in, &byte)) return 0;
    if (byte != '\r') return malformed(in);
    if (!readByte(in, &byte)) return 0;
    return byte == '\n' ? keepByte(in, reply, '\0') : malformed(in);
}

/* Reads one value and all in it. The recursion ends at NODES_REPLY_DEPTH. */
static int readValue(respReader *in, respReply *reply, int depth) {
    respValue value = {0};
    respValue *values;
    size_t index = reply->count;
    long long i;

    if (depth > NODES_REPLY_DEPTH || index >= NODES_REPLY_VALUES)
        return ocspFail(in->err, OCSP_FAIL_CONNECT, "a reply has too many values, or is nested too deeply");
    values = grow(reply->values, &reply->room, index, sizeof(value), in->err);
    if (!values) return 0;
    reply->values = values;
    reply->count++;
    if (!readByte(in, &value.type)) return 0;
    if (!memchr("+-:$*", value.type, 5)) return malformed(in);
    if (!readLine(in, reply, &value)) return 0;
    if (value.type != '+' && value.type != '-') {
        if (!parseNumber(reply->text + value.text, &value.number)) return malformed(in);
        if (value.type != ':' && value.number < -1) return malformed(in);
        reply->text_len = value.text;
        if (value.type == '$' && value.number >= 0 && !readBulk(in, reply, &value)) return 0;
        for (i = 0; value.type == '*' && i < value.number; i++)
            if (!readValue(in, reply, depth + 1)) return 0;
    }
    value.next = reply->count;
    reply->values[index] = value;
    return 1;
}

/* Returns the text of a string, or NULL if the value is no string. */
static const char *textOf(const respReply *reply, size_t index) {
    const respValue *value = &reply->values[index];

    return value->type == '+' || (value->type == '$' && value->number >= 0) ? reply->text + value->text : NULL;
}

static int isArray(const respReply *reply, size_t index) {
    return reply->values[index].type == '*';
}

/* Returns the index of the value of `key` in an array of keys and values, or 0 if there is none. */
static size_t mapFind(const respReply *reply, size_t map, const char *key) {
    size_t at = map + 1, end = reply->values[map].next;

    while (at < end && reply->values[at].next < end) {
        const char *text = textOf(reply, at);
        at = reply->values[at].next;
        if (text && strcmp(text, key) == 0) return at;
        at = reply->values[at].next;
    }
    return 0;
}

static const char *mapText(const respReply *reply, size_t map, const char *key) {
    size_t at = mapFind(reply, map, key);
    return at ? textOf(reply, at) : NULL;
}

/* Returns a port, given as an integer or as text; 0: there is none. */
static long long mapPort(const respReply *reply, size_t map, const char *key) {
    size_t at = mapFind(reply, map, key);
    const char *text = at ? textOf(reply, at) : NULL;
    long long port = 0;

    if (at && reply->values[at].type == ':') return reply->values[at].number;
    return text && parseNumber(text, &port) ? port : 0;
}

/* ---- commands --------------------------------------------------------------------------------------------------- */

/* A conversation with one server. `in` outlives a command: bytes of the next reply may be in its buffer. */
typedef struct nodesTalk {
    const nodesIo *io;
    const nodesQuery *query;
    nodesList *list;
    ocspError *err;
    respReader in;
} nodesTalk;

static int writeAll(nodesTalk *talk, const char *bytes, size_t len) {
    while (len > 0) {
        int n = talk->io->write(talk->io->arg, bytes, len, talk->err);
        if (n <= 0) return 0;
        bytes += n;
        len -= (size_t)n;
    }
    return 1;
}

/* Sends a command of `argc` words and reads its reply into *reply, which the caller clears in any case. Returns 0 with a
 * sentence in *err; an error from the server is one, too. */
static int command(nodesTalk *talk, int argc, const char *const *argv, respReply *reply) {
    char head[64], word[OCSP_OUTSIDE_TEXT_MAX + 1];
    int i;

    memset(reply, 0, sizeof(*reply));
    snprintf(head, sizeof(head), "*%d\r\n", argc);
    if (!writeAll(talk, head, strlen(head))) return 0;
    for (i = 0; i < argc; i++) {
        snprintf(head, sizeof(head), "$%zu\r\n", strlen(argv[i]));
        if (!writeAll(talk, head, strlen(head)) || !writeAll(talk, argv[i], strlen(argv[i])) ||
            !writeAll(talk, "\r\n", 2))
            return 0;
    }
    if (!readValue(&talk->in, reply, 1)) return 0;
    if (reply->values[0].type != '-') return 1;
    return ocspFail(talk->err, OCSP_FAIL_CONNECT, "%s was refused: %s", argv[0],
                    ocspCleanText(word, sizeof(word), reply->text + reply->values[0].text));
}

static int unexpected(nodesTalk *talk, const char *what) {
    return ocspFail(talk->err, OCSP_FAIL_CONNECT, "the reply to %s is not understood", what);
}

/* ---- nodes ------------------------------------------------------------------------------------------------------ */

/* Appends a node. The host may be NULL, "" or "?", which mean the host that was asked. */
static int addNode(nodesTalk *talk, const char *host, long long port, int no_tls) {
    nodesList *list = talk->list;
    nodesNode *nodes;
    size_t len;
    char *target;

    if (!host || !*host || strcmp(host, "?") == 0) host = talk->query->host;
    len = strlen(host);
    if (port < 1 || port > 65535 || len > 255 ||
        strspn(host, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:%") != len)
        return ocspFail(talk->err, OCSP_FAIL_CONNECT, "the server names a node with an invalid host or port");
    if (list->count >= NODES_MAX)
        return ocspFail(talk->err, OCSP_FAIL_CONNECT, "the server names more than %d nodes", NODES_MAX);
    nodes = grow(list->nodes, &list->room, (size_t)list->count, sizeof(*nodes), talk->err);
    if (!nodes) return 0;
    list->nodes = nodes;
    target = malloc(len + sizeof("[]:65535"));
    if (!target) return ocspFail(talk->err, OCSP_FAIL_MEMORY, "out of memory");
    snprintf(target, len + sizeof("[]:65535"), strchr(host, ':') ? "[%s]:%lld" : "%s:%lld", host, port);
    list->nodes[list->count].target = target;
    list->nodes[list->count++].no_tls = no_tls;
    return 1;
}

void nodesListClear(nodesList *list) {
    while (list->count > 0) free(list->nodes[--list->count].target);
    free(list->nodes);
    memset(list, 0, sizeof(*list));
}

/* One node of CLUSTER SHARDS. `endpoint` follows the server's cluster-preferred-endpoint-type, as clients do. */
static int addClusterNode(nodesTalk *talk, const respReply *reply, size_t map) {
    long long tls_port = mapPort(reply, map, "tls-port"), port = mapPort(reply, map, "port");
    const char *endpoint = mapText(reply, map, "endpoint");

    return addNode(talk, endpoint, tls_port ? tls_port : port, !tls_port);
}

static int askCluster(nodesTalk *talk) {
    static const char *const words[] = {"CLUSTER", "SHARDS"};
    respReply reply;
    size_t shard, nodes, node;
    int ok = command(talk, 2, words, &reply);

    if (ok && !isArray(&reply, 0)) ok = unexpected(talk, "CLUSTER SHARDS");
    for (shard = 1; ok && shard < reply.count; shard = reply.values[shard].next) {
        nodes = mapFind(&reply, shard, "nodes");
        if (!nodes || !isArray(&reply, nodes)) ok = unexpected(talk, "CLUSTER SHARDS");
        for (node = nodes + 1; ok && node < reply.values[nodes].next; node = reply.values[node].next)
            ok = addClusterNode(talk, &reply, node);
    }
    replyClear(&reply);
    return ok;
}

/* Adds each entry of a reply of SENTINEL MASTERS, REPLICAS or SENTINELS. */
static int addSentinelNodes(nodesTalk *talk, const respReply *reply) {
    size_t at;

    if (!isArray(reply, 0)) return unexpected(talk, "SENTINEL");
    for (at = 1; at < reply->count; at = reply->values[at].next)
        if (!addNode(talk, mapText(reply, at, "ip"), mapPort(reply, at, "port"), 0)) return 0;
    return 1;
}

static int askSentinel(nodesTalk *talk) {
    static const char *const lists[] = {"REPLICAS", "SENTINELS"};
    const char *words[3] = {"SENTINEL", "MASTERS", NULL};
    respReply primaries, reply;
    size_t at, i;
    int ok = command(talk, 2, words, &primaries) && addSentinelNodes(talk, &primaries);

    for (at = 1; ok && at < primaries.count; at = primaries.values[at].next) {
        words[2] = mapText(&primaries, at, "name");
        if (!words[2]) ok = unexpected(talk, "SENTINEL MASTERS");
        for (i = 0; ok && i < 2; i++) {
            words[1] = lists[i];
            ok = command(talk, 3, words, &reply) && addSentinelNodes(talk, &reply);
            replyClear(&reply);
        }
    }
    replyClear(&primaries);
    return ok;
}

/* Copies the value of a field of INFO, cut to the size. Returns 0 if there is none. */
static int infoField(const char *info, const char *name, char *out, size_t size) {
    size_t len = strlen(name);

    for (; info; info = strchr(info, '\n')) {
        if (*info == '\n') info++;
        if (strncmp(info, name, len) != 0 || info[len] != ':') continue;
        snprintf(out, size, "%.*s", (int)strcspn(info + len + 1, "\r\n"), info + len + 1);
        return 1;
    }
    return 0;
}

/* Adds the replica that a line like "slave0:ip=192.0.2.1,port=6379,state=online" names. */
static int addReplica(nodesTalk *talk, char *line) {
    char *host = strstr(line, "ip="), *port = strstr(line, ",port="), *end;
    long long number = 0;

    if (!host || !port || port < host) return unexpected(talk, "INFO replication");
    *port = '\0';
    port += strlen(",port=");
    end = strchr(port, ',');
    if (end) *end = '\0';
    return addNode(talk, host + strlen("ip="), parseNumber(port, &number) ? number : 0, 0);
}

static int addReplication(nodesTalk *talk, const char *info) {
    char name[32], value[512];
    long long port = 0;
    size_t digits;

    if (infoField(info, "master_host", value, sizeof(value))) {
        if (!infoField(info, "master_port", name, sizeof(name)) || !parseNumber(name, &port))
            return unexpected(talk, "INFO replication");
        if (!addNode(talk, value, port, 0)) return 0;
    }
    for (; info; info = strchr(info, '\n')) {
        if (*info == '\n') info++;
        if (strncmp(info, "slave", 5) != 0) continue;
        digits = strspn(info + 5, "0123456789");
        if (digits == 0 || info[5 + digits] != ':') continue; /* slave_repl_offset and others */
        snprintf(value, sizeof(value), "%.*s", (int)strcspn(info, "\r\n"), info);
        if (!addReplica(talk, value)) return 0;
    }
    return 1;
}

/* Reads a section of INFO; its text is at reply->text. */
static int askInfo(nodesTalk *talk, const char *section, respReply *reply) {
    const char *words[] = {"INFO", section};

    if (!command(talk, 2, words, reply)) return 0;
    return textOf(reply, 0) ? 1 : unexpected(talk, "INFO");
}

static int askReplication(nodesTalk *talk) {
    respReply reply;
    int ok = askInfo(talk, "replication", &reply) && addReplication(talk, textOf(&reply, 0));

    talk->list->follow = 1;
    replyClear(&reply);
    return ok;
}

/* A refused AUTH is no error by itself, as with valkey-cli: the server may have no password. */
static void authenticate(nodesTalk *talk, ocspError *refused) {
    const nodesQuery *query = talk->query;
    const char *words[3] = {"AUTH", query->user ? query->user : query->password, query->password};
    respReply reply;

    if (!query->password) return;
    if (!command(talk, query->user ? 3 : 2, words, &reply)) *refused = *talk->err;
    replyClear(&reply);
}

int nodesAsk(const nodesIo *io, const nodesQuery *query, nodesList *list, ocspError *err) {
    ocspError refused = {.code = OCSP_FAIL_NONE};
    char mode[16] = "";
    respReply info;
    nodesTalk *talk = calloc(1, sizeof(*talk));
    int ok;

    if (!talk) return ocspFail(err, OCSP_FAIL_MEMORY, "out of memory");
    *talk = (nodesTalk){.io = io, .query = query, .list = list, .err = err, .in = {.io = io, .err = err}};
    authenticate(talk, &refused);
    ok = askInfo(talk, "server", &info);
    if (ok && !infoField(textOf(&info, 0), "server_mode", mode, sizeof(mode)))
        infoField(textOf(&info, 0), "redis_mode", mode, sizeof(mode));
    replyClear(&info);
    if (!ok && refused.text[0]) *err = refused; /* the cause */
    if (ok && strcmp(mode, "cluster") == 0)
        ok = askCluster(talk);
    else if (ok && strcmp(mode, "sentinel") == 0)
        ok = askSentinel(talk);
    else if (ok)
        ok = askReplication(talk);
    if (ok) ocspFail(err, OCSP_FAIL_NONE, "%s", ""); /* that of AUTH */
    free(talk);
    return ok;
}

/* ---- results of several nodes ----------------------------------------------------------------------------------- */

int nodesWorseStatus(int a, int b) {
    static const int rank[] = {0, 1, 3, 2}; /* by exit status: critical is worse than unknown */
    return rank[a] >= rank[b] ? a : b;
}

int nodesCompareTargets(const char *a, const char *b) {
    int order = strverscmp(a, b);
    return order ? order : strcmp(a, b);
}
