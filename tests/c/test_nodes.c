/* test_nodes.c - what servers answer when ocsp-probe --all-nodes asks for their nodes: which nodes are found, and that
 * no answer is trusted (scenario 37).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"
#include "../../utils/ocsp-nodes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A server whose replies are `replies`, in pieces of `piece` bytes. */
static struct {
    const char *replies;
    size_t len, at, piece;
    char sent[4096];
    size_t sent_len;
    int timeout; /* at the end of the replies, instead of the connection's end */
} server;

static nodesList list;
static ocspError err;

static int serverRead(void *arg, char *buf, size_t size, ocspError *why) {
    size_t n = server.len - server.at;

    (void)arg;
    if (n == 0) {
        ocspFail(why, server.timeout ? OCSP_FAIL_TIMEOUT : OCSP_FAIL_CLOSED, "no more");
        return -1;
    }
    if (n > size) n = size;
    if (n > server.piece) n = server.piece;
    memcpy(buf, server.replies + server.at, n);
    server.at += n;
    return (int)n;
}

static int serverWrite(void *arg, const char *bytes, size_t len, ocspError *why) {
    (void)arg;
    (void)why;
    if (len > 3) len = 3; /* the caller repeats */
    if (server.sent_len + len < sizeof(server.sent)) {
        memcpy(server.sent + server.sent_len, bytes, len);
        server.sent_len += len;
    }
    return (int)len;
}

static int askBytes(const char *replies, size_t len, size_t piece, const char *user, const char *password) {
    const nodesIo io = {serverRead, serverWrite, NULL};
    const nodesQuery query = {"asked.example", user, password};

    nodesListClear(&list);
    memset(&server, 0, sizeof(server));
    memset(&err, 0, sizeof(err));
    server.replies = replies;
    server.len = len;
    server.piece = piece;
    return nodesAsk(&io, &query, &list, &err);
}

static int ask(const char *replies) {
    return askBytes(replies, strlen(replies), SIZE_MAX, NULL, NULL);
}

/* Returns the nodes as text, separated by blanks; "!" marks those without TLS. */
static const char *nodes(void) {
    static char out[4096];
    size_t used = 0;

    out[0] = '\0';
    for (int i = 0; i < list.count; i++)
        used += (size_t)snprintf(out + used, sizeof(out) - used, "%s%s%s", i ? " " : "", list.nodes[i].target,
                                 list.nodes[i].no_tls ? "!" : "");
    return out;
}

static void tearDown(void) {
    nodesListClear(&list);
}

FIXTURE(NULL, tearDown);

/* Appends to a growing string, for long replies. */
typedef struct growing {
    char *p;
    size_t len, room;
} growing;

static void add(growing *to, const char *s) {
    size_t n = strlen(s);

    if (to->len + n + 1 > to->room) {
        to->room = (to->len + n + 1) * 2;
        to->p = realloc(to->p, to->room);
        assert_non_null(to->p);
    }
    memcpy(to->p + to->len, s, n + 1);
    to->len += n;
}

static void addBulk(growing *to, const char *s) {
    char head[32];

    snprintf(head, sizeof(head), "$%zu\r\n", strlen(s));
    add(to, head);
    add(to, s);
    add(to, "\r\n");
}

#define CLUSTER "$39\r\n# Server\r\nredis_mode:cluster\r\nother:x\r\n\r\n"
#define STANDALONE "$34\r\n# Server\r\nserver_mode:standalone\r\n\r\n"
#define SENTINEL "+redis_mode:sentinel\r\n"
#define SHARDS(n) "*" #n "\r\n"
#define SHARD(n) "*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:5460\r\n$5\r\nnodes\r\n*" #n "\r\n"
#define ID "$2\r\nid\r\n$3\r\nabc\r\n"
#define PORT(p) "$4\r\nport\r\n:" #p "\r\n"
#define TLS_PORT(p) "$8\r\ntls-port\r\n:" #p "\r\n"
#define ENDPOINT(len, host) "$2\r\nip\r\n$7\r\n9.9.9.9\r\n$8\r\nendpoint\r\n$" #len "\r\n" host "\r\n"

static const char shards[] =
    CLUSTER SHARDS(2) SHARD(2) "*10\r\n" ID PORT(1) TLS_PORT(7000) ENDPOINT(9, "127.0.0.1") "*8\r\n" ID TLS_PORT(7001)
        ENDPOINT(11, "2001:db8::1") SHARD(4) "*8\r\n" ID TLS_PORT(7002) ENDPOINT(1, "?") "*8\r\n" ID TLS_PORT(7003)
            ENDPOINT(0, "") "*8\r\n" ID TLS_PORT(7004) "$2\r\nip\r\n$0\r\n\r\n$8\r\nendpoint\r\n$-1\r\n"
                                                       "*8\r\n" ID PORT(7005) ENDPOINT(9, "b.example");

TEST(nodes_ofACluster, "37") {
    assert_true(ask(shards));
    assert_string_equal(nodes(), "127.0.0.1:7000 [2001:db8::1]:7001 asked.example:7002 asked.example:7003 "
                                 "asked.example:7004 b.example:7005!");
    assert_false(list.follow);
    assert_string_equal(err.text, "");
    server.sent[server.sent_len] = '\0';
    assert_string_equal(server.sent, "*2\r\n$4\r\nINFO\r\n$6\r\nserver\r\n*2\r\n$7\r\nCLUSTER\r\n$6\r\nSHARDS\r\n");
}

TEST(nodes_whateverThePieces, "37") {
    for (size_t piece = 1; piece < 40; piece++) {
        assert_true(askBytes(shards, sizeof(shards) - 1, piece, NULL, NULL));
        assert_int_equal(list.count, 6);
    }
}

TEST(nodes_ofAnAnswerThatEndsEarly, "37") {
    for (size_t len = 0; len < sizeof(shards) - 1; len++) {
        char *copy = malloc(len + 1); /* of that size: a sanitizer sees an overread */
        assert_non_null(copy);
        memcpy(copy, shards, len);
        assert_false(askBytes(copy, len, SIZE_MAX, NULL, NULL));
        assert_string_equal(err.text, "no more");
        free(copy);
    }
}

static const char *replicaInfo(const char *body) {
    static char out[2048];
    snprintf(out, sizeof(out), STANDALONE "$%zu\r\n%s\r\n", strlen(body), body);
    return out;
}

TEST(nodes_ofAPrimary, "37") {
    assert_true(ask(replicaInfo("# Replication\r\nrole:master\r\nconnected_slaves:2\r\n"
                                "slave0:ip=10.0.0.2,port=6379,state=online,offset=1,lag=0\r\n"
                                "slave1:ip=2001:db8::2,port=6380,state=online,offset=1,lag=0,type=replica\r\n"
                                "slave10:ip=r.example,port=6381\r\n"
                                "master_failover_state:no-failover\r\nslave_repl_offset:0\r\n")));
    assert_string_equal(nodes(), "10.0.0.2:6379 [2001:db8::2]:6380 r.example:6381");
    assert_true(list.follow); /* they may have replicas */
}

TEST(nodes_ofAReplica, "37") {
    assert_true(ask(replicaInfo("role:slave\r\nmaster_host:p.example\r\nmaster_port:6379\r\nslave_priority:100\r\n"
                                "slave0:ip=,port=6380,state=online\r\n")));
    assert_string_equal(nodes(), "p.example:6379 asked.example:6380");
}

TEST(nodes_ofASingleServer, "37") {
    assert_true(ask(replicaInfo("role:master\r\nconnected_slaves:0\r\n")));
    assert_int_equal(list.count, 0);
    assert_true(ask("+\r\n+\r\n")); /* without a mode: as a single server */
    assert_int_equal(list.count, 0);
}

#define S_NODE(name, len, ip, port) \
    "*6\r\n$4\r\nname\r\n$1\r\n" name "\r\n$2\r\nip\r\n$" #len "\r\n" ip "\r\n$4\r\nport\r\n$4\r\n" #port "\r\n"

TEST(nodes_ofASentinel, "37") {
    assert_true(ask(SENTINEL "*2\r\n" S_NODE("a", 7, "1.1.1.1", 6379) S_NODE("b", 7, "2.2.2.2", 6379) "*1\r\n" S_NODE(
        "x", 7, "1.1.1.2", 6379) "*1\r\n" S_NODE("y", 3, "::1", 9999) "*0\r\n*0\r\n"));
    assert_string_equal(nodes(), "1.1.1.1:6379 2.2.2.2:6379 1.1.1.2:6379 [::1]:9999");
    assert_false(list.follow);
    server.sent[server.sent_len] = '\0';
    assert_non_null(strstr(server.sent, "$8\r\nREPLICAS\r\n$1\r\na\r\n"));
    assert_non_null(strstr(server.sent, "$9\r\nSENTINELS\r\n$1\r\na\r\n"));
    assert_non_null(strstr(server.sent, "$9\r\nSENTINELS\r\n$1\r\nb\r\n"));
    /* One of the primaries is not known any more: what was found is kept, and it is not all. */
    assert_false(ask(SENTINEL "*1\r\n" S_NODE("a", 7, "1.1.1.1", 6379) "-ERR No such primary\r\n"));
    assert_int_equal(list.count, 1);
    assert_string_equal(err.text, "SENTINEL was refused: ERR No such primary");
}

TEST(auth_sendsUserAndPassword, "37") {
    char expected[] = "*3\r\n$4\r\nAUTH\r\n$3\r\nbob\r\n$6\r\nsecret\r\n*2\r\n$4\r\nINFO\r\n";

    assert_true(askBytes("+OK\r\n+\r\n+\r\n", 11, SIZE_MAX, "bob", "secret"));
    assert_memory_equal(server.sent, expected, strlen(expected));
    assert_true(askBytes("+OK\r\n+\r\n+\r\n", 11, SIZE_MAX, NULL, "secret"));
    assert_memory_equal(server.sent, "*2\r\n$4\r\nAUTH\r\n$6\r\nsecret\r\n", 26);
    assert_true(askBytes("+\r\n+\r\n", 6, SIZE_MAX, "bob", NULL));
    assert_memory_equal(server.sent, "*2\r\n$4\r\nINFO", 12);
}

TEST(auth_refusedIsTheCause, "37") {
    /* A server without a password refuses AUTH, and answers. */
    const char *none = "-ERR AUTH <password> called without any password configured\r\n+\r\n+\r\n";
    const char *wrong = "-WRONGPASS invalid\x1b pair\r\n-NOAUTH Authentication required.\r\n";

    assert_true(askBytes(none, strlen(none), SIZE_MAX, NULL, "secret"));
    assert_string_equal(err.text, "");
    assert_false(askBytes(wrong, strlen(wrong), SIZE_MAX, NULL, "secret"));
    assert_string_equal(err.text, "AUTH was refused: WRONGPASS invalid pair");
    assert_false(ask("-NOAUTH Authentication required.\r\n"));
    assert_string_equal(err.text, "INFO was refused: NOAUTH Authentication required.");
}

TEST(replies_malformed, "37") {
    static const char *const bad[] = {
        "HTTP/1.1 400 Bad Request\r\n",
        "$\r\n",
        "$-2\r\n",
        "$1x\r\nab\r\n",
        "$+1\r\na\r\n",
        "$--1\r\n",
        "$-\r\n",
        "$2\r\nabc\r\n",
        "$1\r\na\n\n",
        "+a\nb\r\n",
        "+a\rb\r\n",
        "*-2\r\n",
        "*1000000000000000000000\r\n",
        "%1\r\n",
        "_\r\n",
        "\r\n",
        "$99999999999999999999\r\n",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (ask(bad[i])) fail_msg("accepted: %s", bad[i]);
        if (!strstr(err.text, "not RESP2")) fail_msg("%s: %s", bad[i], err.text);
    }
}

TEST(replies_notUnderstood, "37") {
    static const char *const bad[] = {
        ":5\r\n",
        "*0\r\n",
        "$-1\r\n",
        CLUSTER "+OK\r\n",
        CLUSTER "*1\r\n+x\r\n",
        CLUSTER "*1\r\n*2\r\n$5\r\nnodes\r\n+x\r\n",
        CLUSTER "*1\r\n*1\r\n$5\r\nnodes\r\n",
        SENTINEL "+x\r\n",
        STANDALONE "*0\r\n",
        STANDALONE "+slave0:nothing\r\n",
        STANDALONE "+slave0:,port=1,ip=a\r\n",
        STANDALONE "+master_host:a\r\n",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (ask(bad[i])) fail_msg("accepted: %s", bad[i]);
        if (!strstr(err.text, "is not understood")) fail_msg("%s: %s", bad[i], err.text);
    }
}

TEST(nodes_withInvalidNames, "37") {
    static const char *const bad[] = {
        "slave0:ip=a b,port=1",  "slave0:ip=a\"b,port=1", "slave0:ip=a\x1b,port=1",
        "slave0:ip=../x,port=1", "slave0:ip=a,port=0",    "slave0:ip=a,port=65536",
        "slave0:ip=a,port=-1",   "slave0:ip=a,port=x",    "slave0:ip=a,port=",
    };
    char name[300];

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (ask(replicaInfo(bad[i]))) fail_msg("accepted: %s", bad[i]);
        if (!strstr(err.text, "invalid host or port")) fail_msg("%s: %s", bad[i], err.text);
    }
    for (int len = 255; len <= 256; len++) {
        snprintf(name, sizeof(name), "slave0:ip=%0*d,port=1", len, 7);
        assert_int_equal(ask(replicaInfo(name)), len == 255);
    }
    assert_true(ask(replicaInfo("slave0:ip=fe80::1%eth0,port=65535")));
    assert_string_equal(nodes(), "[fe80::1%eth0]:65535");
}

TEST(limits_ofNodes, "37") {
    growing reply = {0}, info = {0};
    char line[64];

    for (int i = 0; i < NODES_MAX; i++) {
        snprintf(line, sizeof(line), "slave%d:ip=10.0.0.1,port=%d,state=online\r\n", i, i + 1);
        add(&info, line);
    }
    add(&reply, STANDALONE);
    addBulk(&reply, info.p);
    assert_true(ask(reply.p));
    assert_int_equal(list.count, NODES_MAX);
    add(&info, "slave10000:ip=10.0.0.1,port=1\r\n");
    reply.len = 0;
    add(&reply, STANDALONE);
    addBulk(&reply, info.p);
    assert_false(ask(reply.p));
    assert_int_equal(list.count, NODES_MAX);
    assert_non_null(strstr(err.text, "more than 10000 nodes"));
    free(reply.p);
    free(info.p);
}

TEST(limits_ofAReply, "37") {
    growing reply = {0};

    /* What a length promises is not allocated. */
    assert_false(ask("$999999999999\r\nabc"));
    assert_string_equal(err.text, "no more");
    assert_false(ask("*999999999999\r\n:1\r\n"));
    assert_string_equal(err.text, "no more");

    for (int i = 1; i < NODES_REPLY_DEPTH; i++) add(&reply, "*1\r\n");
    add(&reply, ":1\r\n");
    assert_false(ask(reply.p));
    assert_non_null(strstr(err.text, "not understood"));
    reply.len = 0;
    for (int i = 0; i < NODES_REPLY_DEPTH; i++) add(&reply, "*1\r\n");
    add(&reply, ":1\r\n");
    assert_false(ask(reply.p));
    assert_non_null(strstr(err.text, "nested too deeply"));

    reply.len = 0;
    add(&reply, "*999999999\r\n");
    for (int i = 0; i < NODES_REPLY_VALUES; i++) add(&reply, ":1\r\n");
    assert_false(ask(reply.p));
    assert_non_null(strstr(err.text, "too many values"));

    reply.len = 0;
    add(&reply, "$99999999\r\n");
    while (reply.len < NODES_REPLY_BYTES + 100) add(&reply, "0123456789012345678901234567890123456789");
    assert_false(ask(reply.p));
    assert_non_null(strstr(err.text, "more than"));
    reply.len = 0;
    add(&reply, "+");
    for (int i = 0; i < NODES_LINE_MAX; i++) add(&reply, "x");
    add(&reply, "\r\n");
    assert_false(ask(reply.p)); /* in full, and then no second reply */
    assert_string_equal(err.text, "no more");
    reply.p[0] = 'x';
    reply.len -= 2;
    memmove(reply.p + 1, reply.p, reply.len);
    reply.p[0] = '+';
    assert_false(ask(reply.p));
    assert_non_null(strstr(err.text, "not RESP2"));
    free(reply.p);
}

TEST(worseStatus_criticalBeforeUnknownBeforeWarning, "37") {
    static const int by_weight[] = {0, 1, 3, 2};

    for (int i = 0; i < 4; i++)
        for (int j = 0; j < 4; j++)
            assert_int_equal(nodesWorseStatus(by_weight[i], by_weight[j]), by_weight[i > j ? i : j]);
}

TEST(compareTargets_numbersByValue, "37") {
    static const char *const in_order[] = {"10.0.0.2:6379", "10.0.0.2:10000", "10.0.0.10:6379", "a2:1", "a10:1"};

    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 5; j++) {
            int order = nodesCompareTargets(in_order[i], in_order[j]);
            assert_int_equal(order > 0, i > j);
            assert_int_equal(order == 0, i == j);
        }
}
