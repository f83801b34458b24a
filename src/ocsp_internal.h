/* ocsp_internal.h - what the files of the OCSP stapling engine may see of each other. Hosts include ocsp.h instead.
 *
 * DESIGN: calls go down the floors that src/floors.txt lists, and data flows one way:
 *
 *     certificate -> identify -> fetch -> verify -> publish -> staple
 *                        ^                  |
 *                        +---- schedule <---+--> cache
 *
 * Nothing in this header knows the OCSP thread or the worker's state: what those show is in ocsp_worker.h, which only
 * the worker's side includes. An error is one kind and one sentence, made where the fault was found. Times are int64_t:
 * seconds since 1970 where they come from a certificate or a response, milliseconds where something waits. time_t has 32
 * bits on some systems, and certificates outlive 2038.
 *
 * "Inside OpenSSL" means: on the OCSP thread, while it holds the OpenSSL lock (ocsp_thread.c).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_INTERNAL_H
#define OCSP_INTERNAL_H

#include "ocsp.h"
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>
#include <openssl/ocsp.h>
#include <openssl/x509.h>

#define OCSP_MAX_RESPONSE_BYTES (64 * 1024)
#define OCSP_MAX_STAPLE_TLS12 (16384 - 4) /* bytes; clients that speak TLS 1.2 end the handshake at a longer one */
#define OCSP_MAX_URLS 8                   /* of one certificate's authorityInfoAccess; more are ignored */
#define OCSP_MAX_CERTS 8                  /* tracked at once: the active ones, and a few that were just replaced */
#define OCSP_NEVER INT64_MAX              /* wall clock seconds */
#define OCSP_OUTSIDE_TEXT_MAX 200         /* bytes of any text from outside that reach INFO or the log */

/* Bytes that belong to somebody else. */
typedef struct ocspBytes {
    const unsigned char *data;
    size_t len;
} ocspBytes;

/* ---- errors (ocsp_util.c) ---------------------------------------------------------------------------------------- */

typedef enum {
    OCSP_ERR_NONE,
    OCSP_ERR_NETWORK,  /* no complete answer: name, connect, TLS, reset, time-out; an unreadable response file */
    OCSP_ERR_HTTP,     /* status not 200, type missing or wrong, too long, encoded otherwise than in chunks */
    OCSP_ERR_RESPONSE, /* not parsable, trailing bytes, not successful, unknown, older than what is held */
    OCSP_ERR_VERIFY,   /* signature, signer, no entry for our certificate, dates */
    OCSP_ERR_KINDS
} ocspErrorKind;

typedef struct ocspError {
    ocspErrorKind kind;
    int no_matching_certid; /* the response is about other certificates: in a supplied file that is no error */
    int expired;            /* the response was good, and all that is wrong with it is its age */
    /* Wall clock seconds from which on the same bytes may be judged otherwise: OCSP_NEVER where time changes nothing, 0
     * where lack of memory may have been the reason. Set by ocspVerify. */
    int64_t may_change_at;
    char text[OCSP_SENTENCE_MAX];
} ocspError;

/* Fills `err` (may be NULL) and returns 0, so that a check can end with `return ocspFail(...)`. */
int ocspFail(ocspError *err, ocspErrorKind kind, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Lowers err->may_change_at to `at`. `err` may be NULL. */
void ocspMayChangeAt(ocspError *err, int64_t at);

/* Copies outside text `in` to `out` without control bytes, bytes above 126 as '?', cut to OCSP_OUTSIDE_TEXT_MAX and to
 * out_size - 1. Returns out. */
char *ocspCleanText(char *out, size_t out_size, const char *in);

/* What a URL tells. */
typedef struct ocspUrl {
    char *host, *port; /* host without brackets */
    char *user;        /* "user:password" or "" */
    int use_tls;
    char *authority; /* host[:port] as it stands in the URL, for Host: */
    char *target;    /* path and query, "/" at least */
} ocspUrl;

/* Parses [http[s]://][user@]host[:port][/path][?query][#fragment]. Returns 1 and fills *url (release with
 * ocspUrlClear), or 0: not a URL, or out of memory. Inside OpenSSL. */
int ocspUrlParse(ocspUrl *url, const char *text);
void ocspUrlClear(ocspUrl *url);

/* Decodes percent-encoded text in place (RFC 3986 section 2.1). Returns 1, or 0: a % without two hexadecimal digits, or
 * %00. Any thread. */
int ocspPercentDecode(char *text);

/* The host's allocator (libc's until ocspInit). NULL when out of memory. ocspAlloc zeroes. */
void *ocspAlloc(size_t size);
void *ocspMemdup(const void *bytes, size_t len);
char *ocspStrdup(const char *text);
void ocspFree(void *ptr);
void ocspLog(ocspLogLevel level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ocspSetHost(const ocspHost *host); /* NULL goes back to libc and to silence */
void ocspThreadStarted(void);           /* the host's thread_started, on the OCSP thread */
int ocspServes(SSL_CTX *ctx);           /* the host's serves, on the main thread */

/* What blocking calls do around their waits. All NULL/-1 is a plain blocking wait. */
typedef struct ocspIoHooks {
    void (*leave_openssl)(void); /* called right before a call that may block ... */
    void (*enter_openssl)(void); /* ... and right after it */
    int wake_fd;                 /* readable means: ask `cancelled` */
    int (*cancelled)(void);      /* 1: give up */
} ocspIoHooks;

/* Around every call that may block: the OpenSSL lock is given back before it and taken again after it. `io` may be NULL.
 * OCSP thread, or main before that exists. */
void ocspLeaveOpenSSL(const ocspIoHooks *io);
void ocspEnterOpenSSL(const ocspIoHooks *io);

/* ---- times (ocsp_time.c) ----------------------------------------------------------------------------------------- */

/* Seconds since 1970 of an ASN.1 time in the form that RFC 5280 section 4.1.2.5 wants: seconds, no fractions, Z. *ok is 0,
 * and so is the result, on any other. Pure, allocates nothing. Any thread. */
int64_t ocspTime(const ASN1_TIME *t, int *ok);

/* Seconds since 1970 as "YYYY-MM-DD hh:mm:ss UTC", whatever the width of time_t; "?" outside the years 0 to 9999. Returns
 * out. Any thread. */
char *ocspUtcText(int64_t seconds, char *out, size_t size);

/* ---- identity (ocsp_identity.c) ---------------------------------------------------------------------------------- */

/* One certificate that is served, and all that asking for its status needs. Immutable; owns what it points to. */
typedef struct ocspIdentity {
    X509 *leaf;
    X509 *issuer;              /* NULL when not found: nothing can be asked or verified */
    X509_STORE *store;         /* the context's trusted certificates, for https responders; may be NULL */
    unsigned char sha256[32];  /* of the leaf's DER: what a staple belongs to */
    char sha256_hex[65];       /* lower case: the name of the cache file */
    char *serial;              /* upper-case hex, no colons */
    char *urls[OCSP_MAX_URLS]; /* http(s) URLs of the certificate's OCSP access descriptions, in their order */
    int url_count;
    int self_signed;
    int must_staple;          /* RFC 7633: the certificate promises a staple */
    int tls_feature_unparsed; /* there is such a promise, if it is one, that could not be read */
    int incomplete; /* something was not found or not understood; had memory run out, it would look the same */
    int64_t not_after;
    unsigned char *request; /* DER OCSPRequest: SHA-1 CertID, no nonce, not signed */
    size_t request_len;
} ocspIdentity;

/* Identifies `leaf`: its issuer is looked for in `chain`, then in `store` (both may be NULL), and taken only if the
 * leaf's signature verifies with its key. Takes references, and copies what it has to read of certificates that others
 * use, unless `store` is NULL: then `chain` is one that OpenSSL has verified. May read tls-ca-cert-dir's files. Any
 * thread, inside OpenSSL. Returns NULL only when out of memory. Free with ocspIdentityFree (NULL allowed). */
ocspIdentity *ocspIdentityNew(X509 *leaf, STACK_OF(X509) *chain, X509_STORE *store);
void ocspIdentityFree(ocspIdentity *id);

/* Did `issuer` sign `cert`? Name, key usage and signature: a name is not enough (a CA that was rekeyed, or another
 * one that took its name, has the same), and X509_check_issued is too much (it compares the serial in an authority
 * key identifier, which changes when a CA renews its certificate with the same key). Any thread, inside OpenSSL. */
int ocspIssued(X509 *issuer, X509 *cert);

/* ---- HTTP (ocsp_http.c) ------------------------------------------------------------------------------------------ */

#define OCSP_MAX_HEADER_BYTES (16 * 1024) /* of an answer's header with all interim answers; of its chunk extensions */

/* Reads one answer. The caller owns it and sets it up with ocspHttpStart; the fields are private. */
typedef struct ocspHttpReader {
    ssize_t (*read)(void *source, void *buf, size_t size);
    void *source;
    ocspError *err;
    size_t budget; /* bytes that the lines to come may have */
    int in_body;   /* lines are those of the chunked encoding */
    int interim;   /* an interim answer was skipped */
    size_t at, got;
    char buf[OCSP_MAX_HEADER_BYTES + 1]; /* bytes `at` to `got` are read and not consumed */
} ocspHttpReader;

#define OCSP_HTTP_NO_LENGTH (-1) /* values of ocspHttpHead.length that are no length */
#define OCSP_HTTP_NO_NUMBER (-2)
#define OCSP_HTTP_LENGTHS_DIFFER (-3)

/* What the header of the final answer says. Text is cut, and cleaned but for the types; "" where there is none. */
typedef struct ocspHttpHead {
    int status;
    int chunked;
    int64_t length;                           /* bytes of the body, or OCSP_HTTP_... */
    char type[64], other_type[64];            /* media types without parameters; the second one if it differs */
    char transfer[64], coding[64];            /* a transfer coding and a content coding that cannot be decoded */
    char location[OCSP_OUTSIDE_TEXT_MAX + 1]; /* where a redirect leads */
} ocspHttpHead;

/* Sets up a reader for one answer. `read` returns 1 to `size` bytes, 0 at the end of data, or -1 after it has filled
 * *err (or was cancelled). `source` is its first argument. */
void ocspHttpStart(ocspHttpReader *r, ssize_t (*read)(void *source, void *buf, size_t size), void *source,
                   ocspError *err);

/* Reads the header of the final answer; interim answers (1xx) are skipped. Returns 1, or 0 with a sentence in *err. */
int ocspHttpReadHead(ocspHttpReader *r, ocspHttpHead *head);

/* Whether the answer may hold an OCSP response that can be read: status, type, encodings, length. Returns 1, or 0 with
 * a sentence. Pure. */
int ocspHttpCheckHead(const ocspHttpHead *head, ocspError *err);

/* Reads the body, after ocspHttpCheckHead has accepted the header. Returns 1 with *body (ocspFree it) of 1 to
 * OCSP_MAX_RESPONSE_BYTES bytes, or NULL for an empty one; or 0 with a sentence and *body NULL. */
int ocspHttpReadBody(ocspHttpReader *r, const ocspHttpHead *head, unsigned char **body, size_t *body_len);

/* ---- connection (ocsp_conn.c) ------------------------------------------------------------------------------------ */

/* One connection. The caller sets it up and owns it; fd is -1 and ssl NULL before. OCSP thread, inside OpenSSL, which is
 * left around waits. */
struct addrinfo;
typedef struct ocspConn {
    int fd;
    SSL *ssl;         /* NULL: plain */
    const char *host; /* the responder's, as the URL names it */
    int64_t deadline; /* ocspConnNowMs() milliseconds */
    const ocspIoHooks *io;
    int cancelled; /* 1: io->cancelled said so; then *err is not filled */
    ocspError *err;
} ocspConn;

int64_t ocspConnNowMs(void); /* monotonic clock, milliseconds. Any thread */
SSL_CTX *ocspTlsContext(
    X509_STORE *store); /* trusts the system's roots and `store` (may be NULL). NULL: out of memory */

/* Each returns 1, or 0 with a sentence in *err (or cancelled). */
int ocspConnOpen(ocspConn *c, const struct addrinfo *address);
int ocspConnTls(ocspConn *c, SSL_CTX *tls); /* begins TLS and verifies the server's certificate for c->host */
int ocspConnWrite(ocspConn *c, const void *bytes, size_t len);

/* Reads 1 to `size` bytes, as ocspHttpStart wants it; `conn` is an ocspConn. Returns the number, 0 at the end of data, or -1
 * with a sentence (or cancelled). */
ssize_t ocspConnRead(void *conn, void *buf, size_t size);
void ocspConnClose(ocspConn *c);

/* ---- fetch (ocsp_fetch.c) ---------------------------------------------------------------------------------------- */

typedef enum { OCSP_FETCH_OK, OCSP_FETCH_FAILED, OCSP_FETCH_CANCELLED } ocspFetchResult;

/* One request to one responder. Everything belongs to the caller. */
typedef struct ocspExchange {
    const char *url;
    const unsigned char *request; /* DER OCSPRequest */
    size_t request_len;
    X509_STORE *store;  /* trusted for https beside the system's roots; may be NULL */
    int64_t timeout_ms; /* for all addresses of the name together */
    const ocspIoHooks *io;
} ocspExchange;

/* Sends the request in HTTP/1.1: POST, then GET when the POST was answered 4xx or 501 (but not a proxy's 407); to each
 * address of the name in turn, all within the timeout on the monotonic clock (the system's resolver bounds the name
 * look-up). On OCSP_FETCH_OK *body (ocspFree it) holds 1 to OCSP_MAX_RESPONSE_BYTES bytes, not verified; or *body_len
 * is 0 and *body NULL for an empty body. OCSP thread, or any where SIGPIPE is blocked or ignored (TLS writes without
 * MSG_NOSIGNAL). RFC 6960 appendix A. */
ocspFetchResult ocspFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err);

/* ---- DER (ocsp_der.c) -------------------------------------------------------------------------------------------- */

/* Whether a SEQUENCE of definite length begins at `der` and is there to its end; *following is the number of bytes behind
 * it. Pure. Any thread. */
int ocspDerWhole(const unsigned char *der, size_t len, size_t *following);

/* Whether a successful OCSPResponse is DER and small enough in every respect to be parsed and verified in a handshake: values,
 * depth, SingleResponses, certificates. Returns 1, or 0 with a sentence (kind OCSP_ERR_RESPONSE). Pure, allocates
 * nothing. Any thread. RFC 6960 section 4.2.1. */
int ocspDerBounded(const unsigned char *der, size_t len, ocspError *err);

/* ---- signer (ocsp_signer.c) -------------------------------------------------------------------------------------- */

/* Finds who signed `basic` and may: the issuer itself, or an authorized responder that it certified (RFC 6960 section
 * 4.2.2.2). Verifies at most OCSP_MAX_VERIFICATIONS signatures. Returns the signer's certificate, which belongs to
 * `basic` or `id`, or NULL with a sentence. Pure. Any thread, inside OpenSSL. */
X509 *ocspFindSigner(OCSP_BASICRESP *basic, const ocspIdentity *id, int64_t now, ocspError *err);

/* Whether a signature algorithm uses a digest that anybody can forge: MD5 and older, also within RSASSA-PSS. Any thread,
 * inside OpenSSL. */
int ocspWeakSignature(const X509_ALGOR *algorithm);

/* ---- verify (ocsp_verify.c) -------------------------------------------------------------------------------------- */

typedef enum { OCSP_SOURCE_NONE, OCSP_SOURCE_NETWORK, OCSP_SOURCE_CACHE, OCSP_SOURCE_FILE } ocspSource;

/* A verified response. Immutable once made. */
typedef struct ocspResponse {
    unsigned char *der; /* owned; exactly what is stapled */
    size_t len;
    int revoked;           /* certStatus revoked; otherwise good (unknown is never a response of ours) */
    int revocation_reason; /* CRLReason, -1 if not given */
    int64_t revoked_at;
    int certid_digest; /* NID: SHA-1 if a CertID that names the certificate has it, else that of the one used */
    int64_t this_update, produced_at;
    int64_t next_update; /* 0: not given */
    int64_t
        expires_at; /* staple while now < end: least of nextUpdate (or received + 600), leaf's and signer's notAfter */
    ocspSource source;
} ocspResponse;

#define OCSP_CLOCK_SKEW 300       /* seconds that thisUpdate may lie in the future */
#define OCSP_DEFAULT_VALIDITY 600 /* seconds from receipt that a response without nextUpdate is stapled */

#define OCSP_RECEIVED_UNKNOWN ((int64_t)-1)

#define OCSP_MAX_SIGNERS 4 /* certificates in a response that its ResponderID names */
/* Signature verifications that one response can cost: by the issuer's key, and for each certificate that is named its own
 * signature and then the response's with its key. */
#define OCSP_MAX_VERIFICATIONS (1 + 2 * OCSP_MAX_SIGNERS)

/* Verifies `der` for `id` at `now` by RFC 6960 section 3.2 and the table in docs/behavior.md: complete DER, successful,
 * signed by the issuer or by a delegate that the issuer certified for OCSPSigning, an entry for exactly our
 * certificate, dates. `received` is when a response without nextUpdate came in; if that is not known, as with what a
 * peer staples, its thisUpdate is taken, with the skew on top (15 minutes in all, which is what Java takes). Returns 1
 * and fills *out (release with ocspResponseClear), or 0 and fills *err. Pure: no clock, no I/O. Any thread, inside
 * OpenSSL. */
int ocspVerify(ocspBytes der, const ocspIdentity *id, int64_t now, int64_t received, ocspResponse *out, ocspError *err);
void ocspResponseClear(ocspResponse *r);

/* How a verified response compares with the current one (current->der NULL: there is none). The later thisUpdate is newer;
 * at an equal thisUpdate the later producedAt; where both are equal revoked replaces good, never the reverse. */
typedef enum {
    OCSP_FRESH_NEWER, /* publish it */
    OCSP_FRESH_SAME,  /* the same status, and nothing in it is later: nothing changes, no failure */
    OCSP_FRESH_OLDER, /* a failure */
} ocspFreshness;
ocspFreshness ocspCompare(const ocspResponse *current, const ocspResponse *fresh, int64_t now);

/* The end of the last entry's validity in an unverified response, for clearing old files away: nextUpdate's maximum, 0
 * when one has none, -1 when it does not parse. */
int64_t ocspPeekNextUpdate(const unsigned char *der, size_t len);

/* ---- schedule (ocsp_schedule.c) ---------------------------------------------------------------------------------- */

#define OCSP_MIN_INTERVAL_MS 1000            /* automatic rounds are at least this far apart */
#define OCSP_RETRY_MAX_MS (3600 * 1000)      /* between retries while a valid response is held */
#define OCSP_RETRY_MAX_EMPTY_MS (300 * 1000) /* with nothing valid held */
#define OCSP_RETRY_MAX_MUST_MS (60 * 1000)   /* with nothing valid held for a must-staple certificate */
#define OCSP_REVOKED_RECHECK 3600            /* seconds: a revoked certificate is asked for at least hourly */
#define OCSP_JITTER_DIV 5                    /* chance moves a refresh by at most this part of what the wait */
#define OCSP_JITTER_BEYOND_MS (1800 * 1000)  /* is longer than half an hour by */
#define OCSP_OUTAGE_AFTER_MS (60 * 1000)     /* retries double up to here; what still fails then is an outage */

/* When the formula says to refresh: end - (end - this_update) * margin / 100, wall clock seconds; without nextUpdate
 * half of the life (`end` - 300). */
int64_t ocspRefreshDeadline(const ocspResponse *current, int margin_percent);

/* When to refresh, in wall clock milliseconds: the formula minus a random part (0 <= random <= UINT32_MAX) of at most
 * a tenth of the margin window and of the time until then, or, where the wait from thisUpdate to the formula is longer
 * than half an hour, a fifth of what is beyond that and half of the time until then, whichever is more; for a revoked
 * certificate at the latest an hour after `now_ms`. Never later than the formula. */
int64_t ocspRefreshAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random);

/* When to ask again, in wall clock milliseconds, after a refresh that chance made early and that brought nothing newer:
 * after the formula, by at most an hour or a quarter of the margin window. 0: the formula has passed, it was not early. */
int64_t ocspRecheckAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random);

/* How long to wait for a responder that is away, or has nothing newer: anywhere in the upper half of what ocspRetryCapMs
 * allows, so that a fleet that began to wait together does not come back together. */
int64_t ocspOutageDelayMs(int64_t remaining_ms, int must_staple, uint32_t random);

/* The longest wait that the policy allows now: remaining_ms of the held response's life (<= 0: nothing valid held). */
int64_t ocspRetryCapMs(int64_t remaining_ms, int must_staple);

/* How long to wait after the `attempt`th failure in a row (1, 2, ...): retry_delay seconds * 2^(attempt-1), +-20 %,
 * within ocspRetryCapMs, never under OCSP_MIN_INTERVAL_MS. Once doubling has brought it above OCSP_OUTAGE_AFTER_MS with a valid
 * response held: at least that, and as ocspOutageDelayMs. */
int64_t ocspRetryDelayMs(int retry_delay, unsigned attempt, int64_t remaining_ms, int must_staple, uint32_t random);

/* ---- slot (ocsp_slot.c) ------------------------------------------------------------------------------------------ */

/* What handshakes read: immutable once published. */
typedef struct ocspStaple {
    X509 *leaf;         /* a reference */
    int authoritative;  /* 0: its context was replaced, or its issuer is not known: another context may tell more */
    int64_t expires_at; /* staple while now < end */
    unsigned char *der; /* owned; NULL when nothing is held yet */
    size_t len;
} ocspStaple;

typedef struct ocspStapleSet {
    int count;
    ocspStaple staples[OCSP_MAX_CERTS];
} ocspStapleSet;

/* One publisher at a time; any number of readers on any threads. */
void ocspSlotPublish(ocspStapleSet *set);       /* takes ownership; frees the one before when no reader can hold it */
const ocspStapleSet *ocspSlotEnter(int *token); /* lock-free; NULL when nothing was ever published */
void ocspSlotLeave(int token);
void ocspStapleSetFree(ocspStapleSet *set);

/* Handshake counters, kept beside the reader counters so that threads do not contend. Any thread. */
void ocspCountHandshake(int stapled);
void ocspSumHandshakes(long long *stapled, long long *unstapled);

/* ---- peers (ocsp_peer.c) ----------------------------------------------------------------------------------------- */

typedef enum {
    OCSP_PEER_GOOD,
    OCSP_PEER_MISSING, /* no staple */
    OCSP_PEER_EXPIRED, /* a staple that was good once */
    OCSP_PEER_REVOKED,
    OCSP_PEER_BAD, /* a staple that does not verify, or a peer whose issuer is not known */
} ocspPeerState;

/* Verifies what a peer stapled (der.data NULL: nothing) for its certificate `leaf`, whose issuer is looked for in `chain` (NULL:
 * none). On anything but good *err holds the reason, and until when it stands. *must_staple is what the certificate
 * says (RFC 7633). Pure, as ocspVerify. Any thread, inside OpenSSL. */
ocspPeerState ocspVerifyPeerStaple(X509 *leaf, STACK_OF(X509) *chain, ocspBytes der, int64_t now, int *must_staple,
                                   ocspError *err);

int ocspPeerCallback(SSL *ssl); /* a client's part of ocspStatusCallback: 1 accepts, 0 refuses; any thread */
void ocspPeersSetPolicy(ocspVerifyPeers new_policy); /* main */
void ocspPeersCheckContext(
    SSL_CTX *ctx);        /* main: warns if links that are opened with a context in service are not checked */
void ocspPeersCron(void); /* main: writes to the log what handshakes had to tell */
void ocspPeersInfo(const ocspInfoSink *sink); /* main */
void ocspPeersReset(void);                    /* main, no handshake may run */

/* ---- cache (ocsp_cache.c) ---------------------------------------------------------------------------------------- */

#define OCSP_CACHE_KEEP (7 * 86400) /* seconds after its end that a file of ours is kept */

/* Reads a response file of 1 to OCSP_MAX_RESPONSE_BYTES bytes; follows symbolic links. Returns 1 with *der (ocspFree
 * it) and *mtime, or 0 with a sentence (kind OCSP_ERR_NETWORK). Blocks on the disk. Outside OpenSSL. */
int ocspReadFile(const char *path, unsigned char **der, size_t *len, int64_t *mtime, ocspError *err);

/* The file of a certificate: dir/ocsp-<sha256>.der. Load returns 1, 0 with a sentence, or 0 with kind OCSP_ERR_NONE
 * when there is no such file. Store writes a temporary file, fsyncs and renames; 0 with a sentence leaves the old
 * file as it was, or the new one in its place where a power failure may take it. Remove returns 1 when there is no such
 * file any more and a power failure does not bring it back, or 0 with a sentence that names it. Prune removes files of ours whose
 * response ended OCSP_CACHE_KEEP seconds before now, and temporary files left by a kill. All block on the disk and are
 * called outside OpenSSL; prune enters it for parsing through `wait` (may be NULL). OCSP thread, or (load) main before
 * the first accept. */
int ocspCacheLoad(const char *dir, const ocspIdentity *id, unsigned char **der, size_t *len, int64_t *mtime,
                  ocspError *err);
int ocspCacheStore(const char *dir, const ocspIdentity *id, const unsigned char *der, size_t len, ocspError *err);
int ocspCacheRemove(const char *dir, const ocspIdentity *id, ocspError *err);
void ocspCachePrune(const char *dir, int64_t now, const ocspIoHooks *wait);

/* ---- configuration (ocsp_config.c) ------------------------------------------------------------------------------- */

/* Copies `from` with its strings; `to` is overwritten, so its strings must not be owned. Returns 1, or 0 when out of memory. */
int ocspCopyOptions(ocspOptions *to, const ocspOptions *from);
void ocspFreeOptions(ocspOptions *options); /* frees the strings and sets them to NULL */

/* ---- environment (ocsp_env.c) ------------------------------------------------------------------------------------ */

/* The world outside of the engine: clocks, randomness, network and disk. Tests and simulations replace ocsp_env before
 * ocspInit. Functions without a comment are those of the same name in this header. */
typedef struct ocspEnv {
    int64_t (*wall_ms)(void); /* wall clock, milliseconds since 1970 */
    int64_t (*mono_ms)(void); /* monotonic clock, milliseconds */
    uint32_t (*random)(void); /* 0 to UINT32_MAX */
    ocspFetchResult (*fetch)(const ocspExchange *, unsigned char **, size_t *, ocspError *);
    int (*read_file)(const char *, unsigned char **, size_t *, int64_t *, ocspError *);
    uint64_t (*file_signature)(const char *); /* changes when the file is replaced or written; 0 when there is none */
    int (*cache_load)(const char *, const ocspIdentity *, unsigned char **, size_t *, int64_t *, ocspError *);
    int (*cache_store)(const char *, const ocspIdentity *, const unsigned char *, size_t, ocspError *);
    int (*cache_remove)(const char *, const ocspIdentity *, ocspError *);
    void (*cache_prune)(const char *, int64_t, const ocspIoHooks *);
} ocspEnv;
extern ocspEnv ocsp_env;

int64_t ocspNow(const ocspEnv *env); /* its wall clock in seconds since 1970. Any thread */

/* ---- one certificate (ocsp_cert.c) ------------------------------------------------------------------------------- */

#define OCSP_REFRESH_ERROR_MAX 2048 /* bytes: the error of a refresh names each URL that was asked */

typedef enum {
    OCSP_STATE_NO_TLS,
    OCSP_STATE_NO_CERTIFICATE,
    OCSP_STATE_SELF_SIGNED,
    OCSP_STATE_NO_ISSUER,
    OCSP_STATE_NO_RESPONDER,
    OCSP_STATE_PENDING, /* can be refreshed; good, revoked and expired follow from the current response and the clock */
} ocspCertState;

/* What became of a response, or of a whole refresh. */
typedef enum {
    OCSP_OUTCOME_NEW,       /* it is the current response now: publish it */
    OCSP_OUTCOME_UNCHANGED, /* valid, and nothing in it is newer than the current response */
    OCSP_OUTCOME_STALE,     /* valid, and older than the current response: a failure */
    OCSP_OUTCOME_INVALID,   /* not fetched or read, or not verified: a failure */
    OCSP_OUTCOME_NO_MATCH,  /* a supplied file about other certificates: no failure */
    OCSP_OUTCOME_CANCELLED, /* options, certificates or the server's life changed meanwhile */
} ocspOutcome;

/* One certificate that is tracked. Owned by the worker; on the OCSP thread only, or on main before that exists. */
typedef struct ocspCert {
    ocspIdentity *id;
    int active;     /* in the context in service; 0: replaced, and its response is kept for handshakes under way */
    int was_active; /* until the last reload */
    int index;      /* its place in the context: INFO shows the first two */
    ocspCertState state;
    ocspResponse current; /* .der NULL: none. Kept after it has expired, so that older ones are still refused */
    struct {
        int refresh_requested;   /* by the operator: at once */
        int refresh_now;         /* by a reload or a directive: at once, but OCSP_MIN_INTERVAL_MS after the last one */
        int refresh_if_empty;    /* by stapling turned on: at once if the disk has no valid response */
        int64_t refresh_at_ms;   /* wall clock */
        int64_t retry_at_ms;     /* monotonic clock, 0: no retry is scheduled */
        int64_t last_refresh_ms; /* monotonic clock, 0: never */
        unsigned attempt;        /* refreshes in a row that brought nothing new, for the back-off */
    } schedule;
    struct {
        long long consecutive_failures, last_fetch_ms;
        int64_t last_success; /* wall clock seconds */
        char url[OCSP_OUTSIDE_TEXT_MAX + 1];
        char last_error[OCSP_REFRESH_ERROR_MAX];
    } stats; /* for INFO and the log */
    struct {
        int checked; /* the cache directory was looked at */
        int dirty;   /* the current response must be stored */
        int outdated; /* the disk was not compared with the current response yet, or contradicts it and is not writable */
        int64_t store_at_ms, load_at_ms; /* monotonic clock, not before that; 0: at once */
    } cache;
    struct {
        int state; /* the ocspCertState that was logged, -1: none */
        int failure, half_window, expired, missing, unusable_cache, outdated, certid_digest;
    } logged; /* each transition is logged once */
    struct {
        int exists, revoked, expired, failure_logged;
        long long failures;
        size_t len;
    } replaced; /* about the response before the current one, for ocspLogInstalled */
} ocspCert;

/* What came in for a certificate. */
typedef struct ocspReceived {
    ocspBytes der;
    ocspSource source;
    int64_t at; /* wall clock seconds: when it was fetched, or when its file was written */
} ocspReceived;

ocspCert *ocspCertNew(void); /* NULL when out of memory */
void ocspCertFree(ocspCert *cert);

/* The functions below take the certificate, the options in force and the environment, whose clocks and randomness are all
 * that they use of it; they do no I/O. OCSP thread, inside OpenSSL. */

int ocspHasResponseFile(const ocspOptions *options);
ocspCertState ocspStateOf(const ocspIdentity *id, const ocspOptions *options);
void ocspShowUrl(ocspCert *cert, const ocspOptions *options);      /* the URL that INFO shows before one was asked */
int64_t ocspRemainingMs(const ocspCert *cert, const ocspEnv *env); /* of the current response's validity; <= 0: none */
int ocspHasValid(const ocspCert *cert, const ocspEnv *env);

/* Milliseconds until the next refresh: 0 or less is now, INT64_MAX never. */
int64_t ocspDueIn(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env);

/* Verifies what a file held that was written at `mtime` (wall clock seconds). As ocspVerify, with a bound on a response
 * without nextUpdate that a copied file would start anew. */
int ocspVerifyFile(const ocspCert *cert, const ocspEnv *env, ocspBytes der, int64_t mtime, ocspResponse *out,
                   ocspError *err);

/* Verifies `in` and installs it if it is newer than the current response; schedules the next refresh. On STALE and INVALID
 * *err has the sentence. After NEW the caller publishes, then calls ocspLogInstalled. */
ocspOutcome ocspAcceptResponse(ocspCert *cert, const ocspOptions *options, const ocspEnv *env, const ocspReceived *in,
                               ocspError *err);

/* The second half of it, for a response that is verified already. Takes *fresh's memory. */
ocspOutcome ocspAcceptVerified(ocspCert *cert, const ocspOptions *options, const ocspEnv *env, ocspResponse *fresh,
                               ocspSource source, ocspError *err);

/* Logs what ocspAcceptResponse has installed. */
void ocspLogInstalled(ocspCert *cert);

/* A refresh has failed (stats.last_error says why): counts it, schedules the retry, logs the first failure in a row.
 * `requested`: by an operator, whose tries must not push the automatic retry away. */
void ocspRefreshFailed(ocspCert *cert, const ocspOptions *options, const ocspEnv *env, int requested);

/* Adjusts state and schedule after the options changed from `old`. */
void ocspOptionsChanged(ocspCert *cert, const ocspOptions *old, const ocspOptions *options, const ocspEnv *env);

/* Shortens waits that the wall clock, set back or forward, has made longer than the policy allows. Returns 1 when the
 * current response expires earlier now: publish it. */
int ocspCapByClock(ocspCert *cert, const ocspOptions *options, const ocspEnv *env);
void ocspCapRetry(ocspCert *cert, const ocspEnv *env);

void ocspLogState(ocspCert *cert);                                                /* a state without refreshes, once */
void ocspLogTime(ocspCert *cert, const ocspOptions *options, const ocspEnv *env); /* warnings that time alone brings */

/* ---- persistence (ocsp_persist.c) -------------------------------------------------------------------------------- */

#define OCSP_PREVIOUS_DIRS 4 /* earlier values of cache-dir whose files are still compared */

/* What the worker remembers about its cache directories. */
typedef struct ocspDisk {
    const ocspOptions *options;
    const ocspEnv *env;
    const ocspIoHooks *io;
    char *previous_dirs[OCSP_PREVIOUS_DIRS]; /* owned; the newest first */
    int64_t prune_at_ms;                     /* monotonic clock: the first store from then on prunes */
    int logged_failure;
} ocspDisk;

/* All on the OCSP thread (or, loading, on main before that exists), inside OpenSSL, which is left around the I/O. */

/* Loads the cached response of a certificate that has no valid one. NEW, UNCHANGED or, where nothing was loaded, INVALID. */
ocspOutcome ocspDiskLoad(ocspDisk *disk, ocspCert *cert);

/* Is there something to store, or to compare with what is stored? */
int ocspDiskIsBehind(const ocspDisk *disk, const ocspCert *cert);

/* Brings the disk in line with the current response of `cert`, if the disk is behind and the last try is long enough ago.
 * Returns 1 when something was stored. *outcome is NEW when another server's newer response was taken from the disk. */
int ocspDiskSync(ocspDisk *disk, ocspCert *cert, ocspOutcome *outcome);

void ocspDiskPrune(ocspDisk *disk); /* removes old files, at most once an hour */

/* cache-dir was `dir` (owned by the callee from here on) and has changed. */
void ocspDiskChanged(ocspDisk *disk, char *dir);
void ocspDiskFree(ocspDisk *disk);

#endif
