/* ocsp_peer.c - the other side of stapling: this server as a client of its peers. A replica of its primary, a cluster
 * node of every other, MIGRATE, Sentinel: what a peer staples is asked for and verified, so that a peer whose
 * certificate was revoked is not linked to any more.
 *
 * DESIGN: a handshake that this server opens asks for a status when it starts (the info callback: by then it is known
 * that it is a client's, and its hello is not written yet), and judges the staple when OpenSSL has verified the peer's
 * chain (the status callback). Judging is ocspVerify with the chain of this handshake: the rules for what a peer
 * staples are those for what we staple. Nothing here waits, locks, or asks the network or a disk. What a handshake has
 * to tell goes into a list without a lock, and the main thread writes the log, once for each peer and state.
 *
 * NATS and MongoDB check their own links the same way: what is refused is the new link; links that are up stay up.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

#define OCSP_PEERS_LOGGED 4096 /* peers in a bad state that the log remembers; of more it may tell twice */
#define OCSP_PEERS_QUEUE 1024  /* events that wait for main; what comes on top is told at the next attempt */

/* What a handshake tells main. Made by the handshake, freed by main. */
typedef struct ocspPeerEvent {
    struct ocspPeerEvent *next;
    ocspPeerState state;
    int refused;
    char address[INET6_ADDRSTRLEN + 16];
    char serial[OCSP_OUTSIDE_TEXT_MAX + 1];
    char reason[OCSP_SENTENCE_MAX];
} ocspPeerEvent;

static atomic_int policy;                        /* an ocspVerifyPeers; written by main, read by handshakes */
static _Atomic(ocspPeerEvent *) events;          /* pushed by handshakes, taken as a whole by main */
static atomic_int events_waiting;                /* counted up before a push, down by main */
static atomic_llong verified, rejected, missing; /* written by handshakes */
static atomic_int logged_count;                  /* written by main: spares good handshakes an event */

/* Verdicts on staples that were not good, so that a peer which tries again and again (a cluster node does some ten times a
 * second) does not cost the verification each time. Any thread reads and writes them, and only while it has `taken`,
 * for which nobody waits: whoever does not get it verifies. */
#define OCSP_VERDICTS 64    /* a power of two, so that the count of them may wrap */
#define OCSP_VERDICT_MAX 60 /* seconds; lack of memory can look like a bad signature, and heals */
static struct {
    unsigned char digest[32]; /* SHA-256 of the peer's certificate and chain, and the staple */
    int64_t judged_at, until; /* wall clock seconds; stands while judged_at <= now < until; until 0: empty */
    ocspPeerState state;
    int must_staple;
    ocspError err;
} verdicts[OCSP_VERDICTS];
static unsigned verdicts_next;
static atomic_flag verdicts_taken = ATOMIC_FLAG_INIT;
static atomic_int verdicts_any; /* spares a network without bad peers the digest */

/* Main thread only. */
static struct {
    uint64_t peer, state; /* hashes of the address, and of the state with the serial */
} told[OCSP_PEERS_LOGGED];
static unsigned logged_next;
static char last_error[OCSP_REFRESH_ERROR_MAX];
static uint64_t last_error_peer;

void ocspPeersSetPolicy(ocspVerifyPeers new_policy) {
    /* relaxed: a handshake may see it a moment later, and nothing else hangs on it */
    atomic_store_explicit(&policy, (int)new_policy, memory_order_relaxed);
    if (new_policy == OCSP_PEERS_NO) last_error[0] = '\0'; /* nobody is refused any more */
}

/* ---- the verdict ------------------------------------------------------------------------------------------------- */

ocspPeerState ocspVerifyPeerStaple(X509 *leaf, STACK_OF(X509) *chain, ocspBytes der, int64_t now, int *must_staple,
                                   ocspError *err) {
    ocspIdentity *id = ocspIdentityNew(leaf, chain, NULL);
    ocspResponse response;
    ocspPeerState state = OCSP_PEER_BAD;
    char since[40];

    *must_staple = 1; /* of a certificate that cannot be read nothing better is known */
    if (!id) {
        ocspFail(err, OCSP_ERR_VERIFY, "out of memory examining the peer's certificate");
        return OCSP_PEER_BAD;
    }
    /* One that promises something which could not be read is held to the most that it can promise. */
    *must_staple = id->must_staple || id->tls_feature_unparsed;
    if (!der.data) {
        ocspFail(err, OCSP_ERR_VERIFY,
                 "the peer staples no OCSP response: enable stapling there, and see INFO ocsp there");
        state = OCSP_PEER_MISSING;
    } else if (!ocspVerify(der, id, now, OCSP_RECEIVED_UNKNOWN, &response, err)) {
        if (err->expired) state = OCSP_PEER_EXPIRED;
    } else {
        state = response.revoked ? OCSP_PEER_REVOKED : OCSP_PEER_GOOD;
        if (response.revoked) {
            ocspUtcText(response.revoked_at, since, sizeof(since));
            ocspFail(err, OCSP_ERR_VERIFY, "the peer's certificate was REVOKED on %s: replace it", since);
            ocspMayChangeAt(err, response.expires_at);
        }
        ocspResponseClear(&response);
    }
    ocspIdentityFree(id);
    return state;
}

/* The digest by which a verdict is found again. Returns 0 when out of memory. */
static int ocspVerdictDigest(X509 *leaf, STACK_OF(X509) *chain, ocspBytes der, unsigned char digest[32]) {
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    int i, count = sk_X509_num(chain), ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL);

    for (i = -1; ok && i < count; i++) {
        unsigned char one[EVP_MAX_MD_SIZE];
        unsigned n;
        ok =
            X509_digest(i < 0 ? leaf : sk_X509_value(chain, i), EVP_sha256(), one, &n) && EVP_DigestUpdate(ctx, one, n);
    }
    ok = ok && EVP_DigestUpdate(ctx, &count, sizeof(count)) && EVP_DigestUpdate(ctx, der.data, der.len) &&
         EVP_DigestFinal_ex(ctx, digest, NULL);
    EVP_MD_CTX_free(ctx);
    return ok;
}

/* Finds a verdict that stands at `now`; 0 when there is none, or somebody else has the table. */
static int ocspRecallVerdict(const unsigned char digest[32], int64_t now, ocspPeerState *state, int *must_staple,
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

/* Remembers a verdict, in place of the one that was remembered first. */
static void ocspRememberVerdict(const unsigned char digest[32], int64_t now, ocspPeerState state, int must_staple,
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
    /* relaxed: whoever sees it late verifies once more */
    atomic_store_explicit(&verdicts_any, 1, memory_order_relaxed);
}

/* ocspVerifyPeerStaple, or what it said of the same bytes a moment ago. */
static ocspPeerState ocspVerifyPeerStapleOnce(X509 *leaf, STACK_OF(X509) *chain, ocspBytes der, int64_t now,
                                              int *must_staple, ocspError *err) {
    unsigned char digest[32];
    ocspPeerState state;
    int any = der.data && atomic_load_explicit(&verdicts_any, memory_order_relaxed);
    int has_digest = any && ocspVerdictDigest(leaf, chain, der, digest);

    if (has_digest && ocspRecallVerdict(digest, now, &state, must_staple, err)) return state;
    state = ocspVerifyPeerStaple(leaf, chain, der, now, must_staple, err);
    if (der.data && state != OCSP_PEER_GOOD && (has_digest || ocspVerdictDigest(leaf, chain, der, digest)))
        ocspRememberVerdict(digest, now, state, *must_staple, err);
    return state;
}

/* `soft` takes the word of a peer that says nothing, or nothing any more, but not of one whose certificate promises to
 * say something (RFC 7633). */
static int ocspPolicyRejects(ocspVerifyPeers how, ocspPeerState state, int must_staple) {
    if (how == OCSP_PEERS_NO || state == OCSP_PEER_GOOD) return 0;
    return how == OCSP_PEERS_REQUIRE || must_staple || (state != OCSP_PEER_MISSING && state != OCSP_PEER_EXPIRED);
}

/* ---- the handshake ----------------------------------------------------------------------------------------------- */

/* The address of the other end, as text. */
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

    /* A bad peer that main has not told of yet is in the list: acquire pairs with the release in ocspPeersCron, so that
     * one of the two is seen. */
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
    /* release: pairs with the acquire in ocspPeersCron. Only whole lists are taken, so there is no ABA. */
    while (!atomic_compare_exchange_weak_explicit(&events, &event->next, event, memory_order_release,
                                                  memory_order_relaxed))
        continue;
}

/* Every change of state of every handshake comes here: it has to be short. */
static void ocspPeerAsk(const SSL *ssl, int where, int ret) {
    (void)ret;
    if (!(where & SSL_CB_HANDSHAKE_START) || SSL_is_server(ssl)) return;
    if (atomic_load_explicit(&policy, memory_order_relaxed) == OCSP_PEERS_NO) return;
    /* The server's own contexts have a certificate, as it refuses to configure TLS without. Those of modules that are
     * clients of something else (of an LDAP server, say) mostly have none, and are none of our business. */
    if (SSL_get_certificate(ssl)) SSL_set_tlsext_status_type((SSL *)ssl, TLSEXT_STATUSTYPE_ocsp);
}

void ocspInstallPeerCheck(SSL_CTX *ctx) {
    SSL_CTX_set_info_callback(ctx, ocspPeerAsk);
}

void ocspPeersCheckContext(SSL_CTX *ctx) {
    static const char why[] =
        "the server's TLS context cannot be made to request a staple; set tls-cert-file to its own value, and "
        "report this release";

    if (atomic_load_explicit(&policy, memory_order_relaxed) == OCSP_PEERS_NO) return;
    if (SSL_CTX_get_info_callback(ctx) == ocspPeerAsk) {
        if (!last_error_peer) last_error[0] = '\0'; /* mended */
        return;
    }
    ocspPeerCheckUnavailable(why);
}

int ocspPeerCallback(SSL *ssl) {
    ocspVerifyPeers how = (ocspVerifyPeers)atomic_load_explicit(&policy, memory_order_relaxed);
    X509 *leaf = SSL_get0_peer_certificate(ssl);
    const unsigned char *der = NULL;
    ocspError err = {0};
    int must_staple = 0, refused;
    ocspPeerState state;
    long len;

    /* One that we did not ask on is somebody else's, and judges for itself. */
    if (how == OCSP_PEERS_NO || SSL_CTX_get_info_callback(SSL_get_SSL_CTX(ssl)) != ocspPeerAsk ||
        !SSL_get_certificate(ssl))
        return 1;
    len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    if (!leaf) {
        state = OCSP_PEER_BAD;
        ocspFail(&err, OCSP_ERR_VERIFY, "the peer shows no certificate");
    } else {
        STACK_OF(X509) *chain = SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_verified_chain(ssl) : NULL;
        ocspBytes staple = {len >= 0 ? der : NULL, len > 0 ? (size_t)len : 0};
        state = ocspVerifyPeerStapleOnce(leaf, chain, staple, ocspNow(&ocsp_env), &must_staple, &err);
        if (state == OCSP_PEER_MISSING &&
            SSL_session_reused(ssl)) /* RFC 8446 section 4.4.2.1: no certificate, no staple */
            ocspFail(&err, OCSP_ERR_VERIFY, "the TLS session was resumed, and resumed sessions carry no staple");
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

static uint64_t ocspHash(const char *text, uint64_t start) {
    uint64_t hash = 1469598103934665603u ^ start; /* FNV-1a */

    for (; *text; text++) hash = (hash ^ (unsigned char)*text) * 1099511628211u;
    return hash | 1; /* 0 is an empty place */
}

/* The place of a peer in `told`, or -1. */
static int ocspLoggedAt(uint64_t peer) {
    int i;

    for (i = 0; i < OCSP_PEERS_LOGGED; i++)
        if (told[i].peer == peer) return i;
    return -1;
}

static void ocspLogPeer(const ocspPeerEvent *event) {
    uint64_t peer = ocspHash(event->address, 0);
    uint64_t state = ocspHash(event->serial, (uint64_t)event->state * 2 + (uint64_t)event->refused);
    int at = ocspLoggedAt(peer);

    if (!event->refused && peer == last_error_peer) last_error[0] = '\0';
    if (event->refused) {
        snprintf(last_error, sizeof(last_error), "%s (certificate %s): %s", event->address, event->serial,
                 event->reason);
        last_error_peer = peer;
    }
    if (event->state == OCSP_PEER_GOOD) {
        if (at < 0) return;
        told[at].peer = 0;
        atomic_fetch_sub_explicit(&logged_count, 1, memory_order_relaxed);
        ocspLog(OCSP_LOG_NOTICE, "peer %s (certificate %s) is verified again", event->address, event->serial);
        return;
    }
    if (at >= 0 && told[at].state == state) return;
    if (at < 0) {
        at = ocspLoggedAt(0);
        if (at < 0)
            at = logged_next++ % OCSP_PEERS_LOGGED;
        else
            atomic_fetch_add_explicit(&logged_count, 1, memory_order_relaxed);
    }
    told[at].peer = peer;
    told[at].state = state;
    if (event->refused)
        ocspLog(OCSP_LOG_WARNING, "peer %s (certificate %s) refused: %s", event->address, event->serial, event->reason);
    else
        ocspLog(OCSP_LOG_NOTICE, "peer %s (certificate %s) accepted without a valid staple (verify-peers soft): %s",
                event->address, event->serial, event->reason);
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
        /* release: what was told is counted before it waits no more; pairs with the acquire in ocspPeerReport */
        atomic_fetch_sub_explicit(&events_waiting, 1, memory_order_release);
    }
}

void ocspPeerCheckUnavailable(const char *why) {
    snprintf(last_error, sizeof(last_error), "links to peers are NOT checked: %s", why);
    last_error_peer = 0;
    ocspLog(OCSP_LOG_WARNING, "%s", last_error);
}

void ocspPeersInfo(const ocspInfoSink *sink) {
    sink->number(sink->arg, "peers_verified", atomic_load_explicit(&verified, memory_order_relaxed));
    sink->number(sink->arg, "peers_rejected", atomic_load_explicit(&rejected, memory_order_relaxed));
    sink->number(sink->arg, "peers_missing", atomic_load_explicit(&missing, memory_order_relaxed));
    sink->text(sink->arg, "last_peer_error", last_error);
}

void ocspPeersReset(void) {
    ocspPeersSetPolicy(OCSP_PEERS_NO);
    ocspPeersCron();
    memset(told, 0, sizeof(told));
    memset(verdicts, 0, sizeof(verdicts)); /* no handshake runs */
    verdicts_next = 0;
    atomic_store_explicit(&verdicts_any, 0, memory_order_relaxed);
    atomic_store_explicit(&logged_count, 0, memory_order_relaxed);
    logged_next = 0;
    last_error[0] = '\0';
    last_error_peer = 0;
    atomic_store_explicit(&verified, 0, memory_order_relaxed);
    atomic_store_explicit(&rejected, 0, memory_order_relaxed);
    atomic_store_explicit(&missing, 0, memory_order_relaxed);
}

#endif /* OCSP_SUPPORTED */
