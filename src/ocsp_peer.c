/* ocsp_peer.c - this server as a TLS client of its peers: requests and verifies their staples.
 *
 * Peers are a replica's primary, the other cluster nodes, the target of MIGRATE, and what a Sentinel monitors. A new
 * connection to a peer whose certificate was revoked is rejected; established connections stay up.
 *
 * DESIGN: ocspRequestPeerStaple makes a link request a status. The status callback verifies the staple after OpenSSL has
 * verified the peer's chain. It calls ocspVerify with that chain, so peers' staples are held to the same rules as the
 * responses stapled here. Nothing here waits, locks, or does I/O. Handshakes queue events in a lock-free list, and the main
 * thread logs them, once per peer and state.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

/* Peers whose bad state is remembered: 4,096, in sets by hash. Where a set is full, the log may repeat itself. */
#define OCSP_PEER_SETS 512
#define OCSP_PEER_SET_SIZE 8
#define OCSP_PEERS_QUEUE 1024 /* events queued for main; further ones are dropped until the next attempt */

/* An event that a handshake queues for main. Allocated by the handshake, freed by main. */
typedef struct ocspPeerEvent {
    struct ocspPeerEvent *next;
    ocspPeerState state;
    int refused;
    char address[INET6_ADDRSTRLEN + 16];
    char serial[OCSP_OUTSIDE_TEXT_MAX + 1];
    char reason[OCSP_SENTENCE_MAX];
} ocspPeerEvent;

static atomic_int policy; /* an ocspVerifyPeers; written by main, read by handshakes */
/* The queue of events: pushed by handshakes; main takes the whole list. */
static _Atomic(ocspPeerEvent *) events;
static atomic_int events_waiting;                /* incremented before a push, decremented by main */
static atomic_llong verified, rejected, missing; /* written by handshakes, read by INFO on main */
static atomic_int logged_count;                  /* written by main; if 0, good handshakes queue no event */

/* Cached verdicts on bad staples, so that a peer that reconnects all the time (a cluster node about ten times a second)
 * does not cost a verification each time. Protected by `verdicts_taken`; any thread. Nobody waits for it: a thread that
 * does not get it verifies. */
#define OCSP_VERDICTS 64    /* a power of two, so that verdicts_next may wrap */
#define OCSP_VERDICT_MAX 60 /* seconds; a lack of memory, which can look like a bad signature, is temporary */
static struct {
    unsigned char digest[32]; /* SHA-256 of the peer's certificate, its chain and all its staples */
    /* wall clock seconds; the verdict applies while judged_at <= now < until; until 0: unused */
    int64_t judged_at, until;
    ocspPeerState state;
    int must_staple;
    ocspError err;
} verdicts[OCSP_VERDICTS];
static unsigned verdicts_next;
static atomic_flag verdicts_taken = ATOMIC_FLAG_INIT;
static atomic_int verdicts_any; /* 0: no verdict is cached, and no digest is needed */

/* The bad states that were logged last. Main thread only, as are the next lines. */
static struct {
    uint64_t peer, state; /* hashes of the address (peer 0: unused), and of the state with the serial number */
} logged_peers[OCSP_PEER_SETS][OCSP_PEER_SET_SIZE];
static unsigned logged_next;
static char last_error[OCSP_REFRESH_ERROR_MAX];
static uint64_t last_error_peer;

void ocspPeersSetPolicy(ocspVerifyPeers new_policy) {
    /* relaxed: handshakes may see the new policy a moment later, and no other data depends on it */
    atomic_store_explicit(&policy, (int)new_policy, memory_order_relaxed);
    if (new_policy == OCSP_PEERS_NO) last_error[0] = '\0'; /* no peer is rejected any more */
}

/* ---- the verdict ------------------------------------------------------------------------------------------------- */

ocspPeerState ocspVerifyPeerStaple(X509 *leaf,
                                   ocspX509Stack *chain,
                                   ocspBytes der,
                                   int64_t now,
                                   int *must_staple,
                                   ocspError *err) {
    ocspIdentity *id = ocspIdentityNew(leaf, chain, NULL);
    ocspPeerState state;
    char revoked[64];

    *must_staple = 1; /* the default, for a certificate that cannot be read */
    if (!id) {
        ocspFail(err, OCSP_FAIL_PEER, "out of memory examining the peer's certificate");
        return OCSP_PEER_BAD;
    }
    /* An unparsable tls-feature extension counts as must-staple. */
    *must_staple = id->must_staple || id->tls_feature_unparsed;
    state = ocspVerifyStaple(id, chain, der, now, err);
    if (state == OCSP_PEER_MISSING)
        ocspFail(err, OCSP_FAIL_PEER,
                 "the peer staples no OCSP response%s: enable stapling there, and see INFO ocsp there",
                 err->no_matching_certid ? " for its own certificate, only one for a CA above it" : "");
    if (state == OCSP_PEER_REVOKED) {
        snprintf(revoked, sizeof(revoked), "%.63s", err->text);
        ocspFail(err, OCSP_FAIL_PEER, "the peer's certificate was %s: replace it", revoked);
    }
    ocspIdentityFree(id);
    return state;
}

ocspPeerState ocspVerifyPeerChain(ocspX509Stack *chain,
                                  const ocspBytes *responses,
                                  int count,
                                  int64_t now,
                                  ocspError *err) {
    int i, j;

    for (i = 1; i + 1 < sk_X509_num(chain) && i < OCSP_MAX_CHAIN; i++) {
        char serial[OCSP_OUTSIDE_TEXT_MAX + 1];
        /* OpenSSL has verified that the next one issued it, and its dates. */
        const ocspIdentity authority = {.leaf = sk_X509_value(chain, i),
                                        .issuer = sk_X509_value(chain, i + 1),
                                        .serial = serial,
                                        .not_after = OCSP_NEVER};
        ocspError why = {0};
        ocspSerialText(X509_get0_serialNumber(authority.leaf), serial, sizeof(serial));
        for (j = 0; j < count && !why.matched; j++) {
            ocspPeerState state = ocspVerifyStaple(&authority, NULL, responses[j], now, &why);
            if (state == OCSP_PEER_GOOD) continue;
            ocspMayChangeAt(err, why.may_change_at);
            if (state == OCSP_PEER_REVOKED) {
                ocspFail(err, OCSP_FAIL_PEER,
                         "the certificate %.100s of a CA in the peer's chain was %.100s: replace the peer's "
                         "certificate by one of another CA",
                         serial, why.text);
                return state;
            }
            /* Forged, broken, or a lack of memory, which may look like a bad signature or (OpenSSL 3.5) like bad DER. */
            if (why.may_change_at == 0 || why.code == OCSP_FAIL_SIGNATURE || why.code == OCSP_FAIL_SIGNER ||
                why.code == OCSP_FAIL_DER) {
                ocspFail(err, OCSP_FAIL_PEER,
                         "the response for the certificate %.100s of a CA in the peer's chain: %.300s", serial,
                         why.text);
                return OCSP_PEER_BAD;
            }
        }
    }
    return OCSP_PEER_GOOD;
}

/* What a peer stapled in one handshake. */
typedef struct ocspPeerStaples {
    ocspBytes leaf; /* for its certificate; data NULL: none. OpenSSL's */
    ocspBytes all[OCSP_MAX_CHAIN];
    int count;
} ocspPeerStaples;

/* Adds to a digest. Returns 0 when out of memory. */
static int ocspDigestBytes(EVP_MD_CTX *ctx, ocspBytes bytes) {
    return EVP_DigestUpdate(ctx, &bytes.len, sizeof(bytes.len)) && EVP_DigestUpdate(ctx, bytes.data, bytes.len);
}

/* Computes the key of a cached verdict. Returns 0 when out of memory. Any thread. */
static int ocspVerdictDigest(X509 *leaf,
                             ocspX509Stack *chain,
                             const ocspPeerStaples *staples,
                             unsigned char digest[32]) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int i, count = sk_X509_num(chain), ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

    for (i = -1; ok && i < count; i++) {
        unsigned char one[EVP_MAX_MD_SIZE];
        unsigned n;
        ok =
            X509_digest(i < 0 ? leaf : sk_X509_value(chain, i), EVP_sha256(), one, &n) && EVP_DigestUpdate(ctx, one, n);
    }
    ok = ok && EVP_DigestUpdate(ctx, &count, sizeof(count)) && ocspDigestBytes(ctx, staples->leaf);
    for (i = 0; ok && i < staples->count; i++) ok = ocspDigestBytes(ctx, staples->all[i]);
    ok = ok && EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* Looks up the verdict that applies at `now`. Returns 0 if there is none or another thread has the table. Any
 * thread. */
static int ocspRecallVerdict(const unsigned char digest[32],
                             int64_t now,
                             ocspPeerState *state,
                             int *must_staple,
                             ocspError *err) {
    int found = 0;

    /* acquire: pairs with the release below and in ocspRememberVerdict */
    if (atomic_flag_test_and_set_explicit(&verdicts_taken, memory_order_acquire)) return 0;
    for (int i = 0; i < OCSP_VERDICTS && !found; i++) {
        found = memcmp(verdicts[i].digest, digest, sizeof(verdicts[i].digest)) == 0 && verdicts[i].judged_at <= now &&
                now < verdicts[i].until;
        if (!found) continue;
        *state = verdicts[i].state;
        *must_staple = verdicts[i].must_staple;
        *err = verdicts[i].err;
    }
    atomic_flag_clear_explicit(&verdicts_taken, memory_order_release);
    return found;
}

/* Caches a verdict in place of the oldest one, unless another thread has the table. Any thread. */
static void ocspRememberVerdict(const unsigned char digest[32],
                                int64_t now,
                                ocspPeerState state,
                                int must_staple,
                                const ocspError *err) {
    if (atomic_flag_test_and_set_explicit(&verdicts_taken, memory_order_acquire)) return;
    unsigned i = verdicts_next++ % OCSP_VERDICTS;
    memcpy(verdicts[i].digest, digest, sizeof(verdicts[i].digest));
    verdicts[i].judged_at = now;
    verdicts[i].until = err->may_change_at < now + OCSP_VERDICT_MAX ? err->may_change_at : now + OCSP_VERDICT_MAX;
    verdicts[i].state = state;
    verdicts[i].must_staple = must_staple;
    verdicts[i].err = *err;
    atomic_flag_clear_explicit(&verdicts_taken, memory_order_release);
    /* relaxed: a thread that sees it late verifies once more */
    atomic_store_explicit(&verdicts_any, 1, memory_order_relaxed);
}

/* The verdict on a peer, from its staple and, unless that refuses it already, from those for its chain. Any thread. */
static ocspPeerState ocspVerifyPeer(X509 *leaf,
                                    ocspX509Stack *chain,
                                    const ocspPeerStaples *staples,
                                    int64_t now,
                                    int *must_staple,
                                    ocspError *err) {
    ocspPeerState state = ocspVerifyPeerStaple(leaf, chain, staples->leaf, now, must_staple, err), of_chain;

    if (state == OCSP_PEER_REVOKED || state == OCSP_PEER_BAD) return state;
    of_chain = ocspVerifyPeerChain(chain, staples->all, staples->count, now, err);
    return of_chain == OCSP_PEER_GOOD ? state : of_chain;
}

/* Like ocspVerifyPeer, with cached verdicts. Any thread. */
static ocspPeerState ocspVerifyPeerOnce(X509 *leaf,
                                        ocspX509Stack *chain,
                                        const ocspPeerStaples *staples,
                                        int64_t now,
                                        int *must_staple,
                                        ocspError *err) {
    unsigned char digest[32];
    ocspPeerState state;
    int stapled = staples->leaf.data || staples->count > 0;
    int any = stapled && atomic_load_explicit(&verdicts_any, memory_order_relaxed);
    int has_digest = any && ocspVerdictDigest(leaf, chain, staples, digest);

    if (has_digest && ocspRecallVerdict(digest, now, &state, must_staple, err)) return state;
    state = ocspVerifyPeer(leaf, chain, staples, now, must_staple, err);
    if (stapled && state != OCSP_PEER_GOOD && (has_digest || ocspVerdictDigest(leaf, chain, staples, digest)))
        ocspRememberVerdict(digest, now, state, *must_staple, err);
    return state;
}

/* Whether the policy rejects a peer in that state. `soft` accepts a missing or expired staple unless the certificate is
 * must-staple (RFC 7633). */
static int ocspPolicyRejects(ocspVerifyPeers how, ocspPeerState state, int must_staple) {
    if (how == OCSP_PEERS_NO || state == OCSP_PEER_GOOD) return 0;
    return how == OCSP_PEERS_REQUIRE || must_staple || (state != OCSP_PEER_MISSING && state != OCSP_PEER_EXPIRED);
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

/* Formats the peer's address as text. */
static void ocspPeerAddress(const SSL *ssl, char *out, size_t size) {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } name;
    socklen_t len = sizeof(name);
    char host[INET6_ADDRSTRLEN];
    int fd = SSL_get_fd(ssl);

    snprintf(out, size, "an unknown address");
    if (fd < 0 || getpeername(fd, &name.any, &len) != 0) return;
    if (name.any.sa_family == AF_INET && inet_ntop(AF_INET, &name.v4.sin_addr, host, sizeof(host)))
        snprintf(out, size, "%s:%d", host, ntohs(name.v4.sin_port));
    if (name.any.sa_family == AF_INET6 && inet_ntop(AF_INET6, &name.v6.sin6_addr, host, sizeof(host)))
        snprintf(out, size, "[%s]:%d", host, ntohs(name.v6.sin6_port));
}

static void ocspPeerReport(const SSL *ssl, X509 *leaf, ocspPeerState state, int refused, const char *reason) {
    ocspPeerEvent *event;
    BIGNUM *serial;
    char *hex;

    /* A good state is reported only after a bad one, which is still queued or counted in logged_count. acquire: pairs
     * with the release in ocspPeersCron, so that one of the two is seen above zero. */
    if (state == OCSP_PEER_GOOD && atomic_load_explicit(&events_waiting, memory_order_acquire) == 0 &&
        atomic_load_explicit(&logged_count, memory_order_relaxed) == 0)
        return;
    if (atomic_fetch_add_explicit(&events_waiting, 1, memory_order_relaxed) >= OCSP_PEERS_QUEUE ||
        !(event = ocspAlloc(sizeof(*event)))) {
        atomic_fetch_sub_explicit(&events_waiting, 1, memory_order_relaxed);
        return;
    }
    event->state = state;
    event->refused = refused;
    ocspPeerAddress(ssl, event->address, sizeof(event->address));
    serial = leaf ? ASN1_INTEGER_to_BN(X509_get0_serialNumber(leaf), NULL) : NULL;
    hex = serial ? BN_bn2hex(serial) : NULL;
    ocspCleanText(event->serial, sizeof(event->serial), hex ? hex : "?");
    OPENSSL_free(hex);
    BN_free(serial);
    snprintf(event->reason, sizeof(event->reason), "%s", reason);
    event->next = atomic_load_explicit(&events, memory_order_relaxed);
    /* release: pairs with the acquire in ocspPeersCron. Only whole lists are removed, so there is no ABA. */
    while (!atomic_compare_exchange_weak_explicit(&events, &event->next, event, memory_order_release,
                                                  memory_order_relaxed))
        continue;
}

void ocspRequestPeerStaple(SSL *ssl) {
    if (atomic_load_explicit(&policy, memory_order_relaxed) != OCSP_PEERS_NO)
        SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
}

/* Collects what the peer stapled; free it with ocspFreeStaples. Returns 0 when out of memory. Any thread. */
static int ocspReceiveStaples(SSL *ssl, ocspPeerStaples *staples) {
    const unsigned char *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    int i, count = ocspChainReceived(ssl);

    memset(staples, 0, sizeof(*staples));
    if (len >= 0) staples->leaf = (ocspBytes){der, (size_t)len};
    for (i = 0; i < count && i < OCSP_MAX_CHAIN; i++) {
        ocspBytes *next = &staples->all[staples->count];
        unsigned char *copy;
        if (!ocspChainResponse(ssl, i, &copy, &next->len)) return 0;
        next->data = copy;
        staples->count += copy != NULL;
    }
    return 1;
}

static void ocspFreeStaples(ocspPeerStaples *staples) {
    while (staples->count > 0) OPENSSL_free((void *)staples->all[--staples->count].data);
}

int ocspPeerCallback(SSL *ssl) {
    ocspVerifyPeers how = (ocspVerifyPeers)atomic_load_explicit(&policy, memory_order_relaxed);
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    ocspError err = {0};
    ocspPeerStaples staples;
    int must_staple = 0, refused;
    ocspPeerState state = OCSP_PEER_BAD;

    if (how == OCSP_PEERS_NO) return 1;
    if (!leaf) {
        ocspFail(&err, OCSP_FAIL_PEER, "the peer shows no certificate");
    } else if (!ocspReceiveStaples(ssl, &staples)) {
        ocspFail(&err, OCSP_FAIL_PEER, "out of memory examining the peer's staples");
        ocspFreeStaples(&staples);
    } else {
        ocspX509Stack *chain = SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_verified_chain(ssl) : NULL;
        state = ocspVerifyPeerOnce(leaf, chain, &staples, ocspNow(&ocsp_env), &must_staple, &err);
        if (state == OCSP_PEER_MISSING &&
            SSL_session_reused(ssl)) /* RFC 8446 section 4.4.2.1: no Certificate message, no staple */
            ocspFail(&err, OCSP_FAIL_PEER, "the TLS session was resumed, and resumed sessions carry no staple");
        ocspFreeStaples(&staples);
    }
    refused = ocspPolicyRejects(how, state, must_staple);
    /* relaxed: statistics */
    if (refused)
        atomic_fetch_add_explicit(&rejected, 1, memory_order_relaxed);
    else if (state == OCSP_PEER_GOOD)
        atomic_fetch_add_explicit(&verified, 1, memory_order_relaxed);
    else
        atomic_fetch_add_explicit(&missing, 1, memory_order_relaxed);
    ocspPeerReport(ssl, leaf, state, refused, err.text);
    return !refused;
}

/* ---- main thread ------------------------------------------------------------------------------------------------- */

uint64_t ocspPeerHash(const char *text, uint64_t start) {
    uint64_t hash = 1469598103934665603u ^ start; /* FNV-1a */

    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash | 1; /* 0 marks an unused element, and a good state */
}

int ocspPeerChanged(uint64_t peer, uint64_t state) {
    /* Multiplicative hashing: its upper bits depend on all bits. Those of the hash itself hardly depend on the port. */
    unsigned set = (unsigned)((peer * UINT64_C(0x9e3779b97f4a7c15)) >> 32) % OCSP_PEER_SETS;
    int i, at = -1, empty = -1;

    for (i = 0; i < OCSP_PEER_SET_SIZE; i++) {
        if (logged_peers[set][i].peer == peer) at = i;
        if (logged_peers[set][i].peer == 0) empty = i;
    }
    if (at < 0 ? state == 0 : logged_peers[set][at].state == state) return 0;
    if (state == 0) {
        logged_peers[set][at].peer = 0;
        atomic_fetch_sub_explicit(&logged_count, 1, memory_order_relaxed);
        return 1;
    }
    if (at < 0 && empty >= 0) atomic_fetch_add_explicit(&logged_count, 1, memory_order_relaxed);
    if (at < 0) at = empty >= 0 ? empty : (int)(logged_next++ % OCSP_PEER_SET_SIZE);
    logged_peers[set][at].peer = peer;
    logged_peers[set][at].state = state;
    return 1;
}

static void ocspLogPeer(const ocspPeerEvent *event) {
    uint64_t peer = ocspPeerHash(event->address, 0);
    uint64_t state = ocspPeerHash(event->serial, (uint64_t)event->state * 2 + (uint64_t)event->refused);

    if (!event->refused && peer == last_error_peer) last_error[0] = '\0';
    if (event->refused) {
        snprintf(last_error, sizeof(last_error), "%s (certificate %s): %s", event->address, event->serial,
                 event->reason);
        last_error_peer = peer;
    }
    if (!ocspPeerChanged(peer, event->state == OCSP_PEER_GOOD ? 0 : state)) return;
    if (event->state == OCSP_PEER_GOOD)
        ocspLog(OCSP_LOG_NOTICE, "peer %s (certificate %s) is verified again", event->address, event->serial);
    else if (event->refused)
        ocspLog(OCSP_LOG_WARNING, "peer %s (certificate %s) refused: %s", event->address, event->serial, event->reason);
    else
        ocspLog(OCSP_LOG_NOTICE, "peer %s (certificate %s) accepted without a valid staple (%sverify-peers soft): %s",
                event->address, event->serial, ocspPrefix(), event->reason);
}

void ocspPeersCron(void) {
    ocspPeerEvent *list, *in_order = NULL, *next;

    if (!atomic_load_explicit(&events, memory_order_relaxed)) return;
    /* acquire: pairs with the release in ocspPeerReport */
    for (list = atomic_exchange_explicit(&events, NULL, memory_order_acquire); list; list = next) {
        next = list->next;
        list->next = in_order;
        in_order = list;
    }
    for (; in_order; in_order = next) {
        next = in_order->next;
        ocspLogPeer(in_order);
        ocspFree(in_order);
        /* release: logged_count is written before events_waiting drops; pairs with the acquire in ocspPeerReport */
        atomic_fetch_sub_explicit(&events_waiting, 1, memory_order_release);
    }
}

void ocspPeersInfo(const ocspInfoSink *sink) {
    sink->number(sink->arg, "peers_verified", atomic_load_explicit(&verified, memory_order_relaxed));
    sink->number(sink->arg, "peers_rejected", atomic_load_explicit(&rejected, memory_order_relaxed));
    sink->number(sink->arg, "peers_missing", atomic_load_explicit(&missing, memory_order_relaxed));
    sink->text(sink->arg, "last_peer_error", last_error);
}

void ocspPeersResetCounters(void) {
    atomic_store_explicit(&verified, 0, memory_order_relaxed);
    atomic_store_explicit(&rejected, 0, memory_order_relaxed);
    atomic_store_explicit(&missing, 0, memory_order_relaxed);
}

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

ocspVerifyPeers ocspPeersPolicy(void) {
    return (ocspVerifyPeers)atomic_load_explicit(&policy, memory_order_relaxed);
}

void ocspPeersUnchecked(const char *why) {
    if (!why) {
        if (!last_error_peer) last_error[0] = '\0'; /* repaired */
        return;
    }
    snprintf(last_error, sizeof(last_error), "links to peers are NOT checked: %s", why);
    last_error_peer = 0;
    ocspLog(OCSP_LOG_WARNING, "%s", last_error);
}

void ocspPeersReset(void) {
    ocspPeersSetPolicy(OCSP_PEERS_NO);
    ocspPeersCron();
    memset(logged_peers, 0, sizeof(logged_peers));
    memset(verdicts, 0, sizeof(verdicts)); /* no handshake runs */
    verdicts_next = 0;
    atomic_store_explicit(&verdicts_any, 0, memory_order_relaxed);
    atomic_store_explicit(&logged_count, 0, memory_order_relaxed);
    logged_next = 0;
    last_error[0] = '\0';
    last_error_peer = 0;
    ocspPeersResetCounters();
}

#endif /* OCSP_SUPPORTED */
