/* nodes.c - fuzz target: what a server answers when ocsp-probe --all-nodes asks for its nodes.
 *
 * The first byte chooses the size of the pieces in which the replies arrive, and whether a password is sent. The rest
 * are the replies. Whatever they are, each node found has a host without unusual characters and a port, there are not
 * more of them than the limit, and an incomplete answer has an error.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fuzz.h"
#include "../../utils/ocsp-nodes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
    const uint8_t *at;
    size_t left, piece;
} server;

static int readReply(void *arg, char *buf, size_t size, ocspError *err) {
    size_t n = server.left < size ? server.left : size;

    (void)arg;
    if (n > server.piece) n = server.piece;
    if (n == 0) {
        ocspFail(err, OCSP_FAIL_CLOSED, "the server closed the connection");
        return -1;
    }
    memcpy(buf, server.at, n);
    server.at += n;
    server.left -= n;
    return (int)n;
}

static int writeCommand(void *arg, const char *bytes, size_t len, ocspError *err) {
    (void)arg;
    (void)err;
    fuzzCheck(len > 0 && memchr(bytes, 0, len) == NULL);
    return (int)len;
}

static void checkNode(const nodesNode *node) {
    const char *colon = strrchr(node->target, ':');
    long port;

    fuzzCheck(colon && colon > node->target);
    port = strtol(colon + 1, NULL, 10);
    fuzzCheck(port >= 1 && port <= 65535);
    fuzzCheck(strspn(node->target, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:%[]") ==
              strlen(node->target));
    fuzzCheck((node->target[0] == '[') == (colon[-1] == ']'));
    fuzzCheck(strlen(node->target) <= 255 + strlen("[]:65535"));
}

static void one(const uint8_t *data, size_t size) {
    const nodesIo io = {readReply, writeCommand, NULL};
    nodesQuery query = {"asked.example", NULL, NULL};
    nodesList list = {0};
    ocspError err = {.kind = OCSP_ERR_NONE};
    int i;

    if (size < 1) return;
    server.at = data + 1;
    server.left = size - 1;
    server.piece = (size_t)(data[0] & 127) + 1;
    if (data[0] & 128) query.password = "secret";
    if (nodesAsk(&io, &query, &list, &err))
        fuzzCheck(err.kind == OCSP_ERR_NONE && !err.text[0]);
    else
        fuzzCheckError(&err);
    fuzzCheck(list.count >= 0 && list.count <= NODES_MAX);
    for (i = 0; i < list.count; i++) checkNode(&list.nodes[i]);
    nodesListClear(&list);
}

static void seeds(fuzzKeep *keep) {
    static const struct {
        const char *name, *text;
    } list[] = {
        {"cluster",
         "\x7f$20\r\nredis_mode:cluster\r\n\r\n*1\r\n*4\r\n$5\r\nslots\r\n*2\r\n:0\r\n:16383\r\n$5\r\nnodes\r\n"
         "*2\r\n*8\r\n$2\r\nid\r\n$1\r\na\r\n$4\r\nport\r\n:7000\r\n$8\r\ntls-port\r\n:7001\r\n$8\r\nendpoint"
         "\r\n$9\r\n127.0.0.1\r\n*6\r\n$4\r\nport\r\n:7002\r\n$8\r\nendpoint\r\n$-1\r\n$8\r\nhostname\r\n$1"
         "\r\nb\r\n"},
        {"primary", "\x01+server_mode:standalone\r\n$82\r\nrole:master\r\nslave0:ip=::1,port=6380,state=online\r\n"
                    "slave1:ip=b.example,port=6381\r\n\r\n"},
        {"replica", "\x7f+\r\n$52\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\n\r\n"},
        {"sentinel",
         "\x7f+redis_mode:sentinel\r\n*1\r\n*6\r\n$4\r\nname\r\n$1\r\na\r\n$2\r\nip\r\n$1\r\n?\r\n$4\r\nport"
         "\r\n$4\r\n6379\r\n*1\r\n*4\r\n$2\r\nip\r\n$3\r\n::1\r\n$4\r\nport\r\n$4\r\n6380\r\n*0\r\n"},
        {"password", "\xff+OK\r\n+\r\n+role:master\r\n"},
        {"refused", "\xff-WRONGPASS\r\n-NOAUTH Authentication required.\r\n"},
        {"nested", "\x7f*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"},
        {"long", "\x7f$9999999999\r\na"},
        {"many", "\x7f*9999999999\r\n:1\r\n"},
        {"nothing", "\x7f"},
    };
    size_t i;

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) keep(list[i].name, list[i].text, strlen(list[i].text));
}

const fuzzTarget fuzz_nodes = {"nodes", one, seeds, NULL};
