/* ocsp_internal.h - types, limits and functions that the files of the engine share. Hosts include ocsp.h instead.
 *
 * DESIGN: calls go down the floors that src/floors.txt lists, and data flows one way:
 *
 *     certificate -> identify -> fetch -> verify -> publish -> staple
 *                        ^                  |
 *                        +---- schedule <---+--> cache
 *
 * Nothing here depends on the OCSP thread or the worker's state; those are in ocsp_worker.h, which only the worker's
 * side includes. An error is one code and one sentence, made where the fault is detected. Times are int64_t, as time_t
 * has 32 bits on some systems and certificates outlive 2038: seconds since 1970 for dates in certificates and
 * responses, milliseconds for delays.
 *
 * "Inside OpenSSL" means: on the OCSP thread, only while it holds the OpenSSL lock (ocsp_thread.c); other threads need
 * none.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_INTERNAL_H
#define OCSP_INTERNAL_H

#include "ocsp.h"
#ifndef __cplusplus /* unit tests in C++ include this file, too */
#include <stdatomic.h>
#endif
#include <stdint.h>
#include <sys/types.h>
#include <time.h>
#include <openssl/ocsp.h>
#include <openssl/x509.h>

#define OCSP_MAX_RESPONSE_BYTES (64 * 1024)
#define OCSP_MAX_STAPLE_TLS12 (16384 - 4) /* bytes; a TLS 1.2 client aborts the handshake on a longer staple */
#define OCSP_MAX_URLS 8                   /* per authorityInfoAccess extension; the rest are ignored */
#define OCSP_MAX_LEAVES 4                 /* certificates in one context; the rest are ignored */
#define OCSP_MAX_CHAIN 4                  /* certificates of one chain that are stapled, the leaf included */
/* tracked at once: the active ones, and as many recently replaced ones */
#define OCSP_MAX_CERTS (2 * OCSP_MAX_LEAVES * OCSP_MAX_CHAIN)
/* bytes of a Certificate message with the responses of a chain: Java ends the handshake at more
 * (jdk.tls.maxHandshakeMessageSize), Go, rustls and OpenSSL accept more */
#define OCSP_MAX_CHAIN_MESSAGE 32768
#define OCSP_ENTRY_OVERHEAD 16    /* bytes of one certificate's lengths and extension in it, rounded up */
#define OCSP_NEVER INT64_MAX      /* wall clock seconds */
#define OCSP_OUTSIDE_TEXT_MAX 200 /* bytes of external text shown in INFO or the log */

/* A name for it, because the server's clang-format takes the parentheses and the asterisk after them for a product. */
typedef STACK_OF(X509) ocspX509Stack;

/* A byte range, not owned. */
typedef struct ocspBytes {
    const unsigned char *data;
    size_t len;
} ocspBytes;

/* ---- errors (ocsp_util.c) ---------------------------------------------------------------------------------------- */

typedef enum {
    OCSP_ERR_NONE,
    OCSP_ERR_NETWORK,  /* no complete HTTP response: DNS, connect, TLS, reset, time-out; an unreadable response file */
    OCSP_ERR_HTTP,     /* status not 200, Content-Type missing or wrong, too long, unsupported encoding */
    OCSP_ERR_RESPONSE, /* malformed, trailing bytes, not successful, unknown, older than the current response */
    OCSP_ERR_VERIFY,   /* signature, signer, no matching SingleResponse, dates */
    OCSP_ERR_KINDS
} ocspErrorKind;

/* The reason of a failure. The table in ocsp_util.c gives each its word, which INFO, the log and ocsp-probe show, and
 * its kind, which selects the counter. Reasons that differ in the kind alone share a word. */
typedef enum {
    OCSP_FAIL_NONE, /* no failure; also a cache file that does not exist */
    OCSP_FAIL_DNS,
    OCSP_FAIL_CONNECT,
    OCSP_FAIL_TIMEOUT,
    OCSP_FAIL_TLS,    /* TLS with the responder, or its TLS certificate */
    OCSP_FAIL_CLOSED, /* the connection ended before the answer did */
    OCSP_FAIL_PROXY,  /* the proxy's configuration, or the tunnel through it */
    OCSP_FAIL_FILE,   /* response file or cache: the file system */
    OCSP_FAIL_MEMORY,
    OCSP_FAIL_HTTP_STATUS,
    OCSP_FAIL_HTTP_TYPE,           /* Content-Type */
    OCSP_FAIL_HTTP_HEADER,         /* no HTTP, or a malformed header */
    OCSP_FAIL_HTTP_HEADER_ENDLESS, /* longer than OCSP_MAX_HEADER_BYTES */
    OCSP_FAIL_HTTP_BODY,           /* encoding or length */
    OCSP_FAIL_PROXY_STATUS,        /* 407 to a plain http request */
    OCSP_FAIL_DER,                 /* not a basic OCSP response in DER, or beyond the limits */
    OCSP_FAIL_RESPONDER_STATUS,    /* OCSPResponseStatus is not successful */
    OCSP_FAIL_UNKNOWN,             /* certStatus */
    OCSP_FAIL_OLDER,               /* than the current response */
    OCSP_FAIL_MEMORY_RESPONSE,
    OCSP_FAIL_SIGNATURE,
    OCSP_FAIL_SIGNER,        /* not authorized, not found, or the issuer is unknown */
    OCSP_FAIL_NO_ENTRY,      /* no SingleResponse for the certificate */
    OCSP_FAIL_NOT_YET_VALID, /* thisUpdate, or the authorized responder's certificate */
    OCSP_FAIL_EXPIRED,       /* the response, its signer or the served certificate */
    OCSP_FAIL_DATES,         /* malformed, or nextUpdate before thisUpdate */
    OCSP_FAIL_EXTENSION,     /* critical and not understood */
    OCSP_FAIL_MEMORY_VERIFY,
    OCSP_FAIL_PEER, /* a peer's staple; no word, as it is no failed refresh */
    OCSP_FAIL_CODES
} ocspErrorCode;

typedef struct ocspError {
    ocspErrorCode code;
    ocspErrorKind kind;     /* follows from `code` */
    int no_matching_certid; /* no SingleResponse matches the CertID; not an error in a response file */
    int matched;            /* one matches it, so that its signatures were verified */
    int expired;            /* the response was good, and its age is the only fault */
    /* Wall clock seconds from which verifying the same bytes may give another result: OCSP_NEVER if time does not
     * matter, 0 if memory may have run out. Set by ocspVerify. */
    int64_t may_change_at;
    char text[OCSP_SENTENCE_MAX];
} ocspError;

/* Fills `err` (may be NULL) and returns 0, so that a check can end with `return ocspFail(...)`. Any thread. */
int ocspFail(ocspError *err, ocspErrorCode code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Replaces the error of a failed call by one of the same kind that says "out of memory <what>", if that is the first
 * error in OpenSSL's queue: OpenSSL's functions return the same for that and for bad input. `queue_was_empty`:
 * ERR_peek_error() returned 0 before the call. `err` may be NULL. Any thread. */
void ocspBlameMemory(ocspError *err, int queue_was_empty, const char *what);

/* The word and the kind of a reason. OCSP_FAIL_NONE has the word "". Any thread. */
const char *ocspErrorWord(ocspErrorCode code);
ocspErrorKind ocspErrorKindOf(ocspErrorCode code);

/* Lowers err->may_change_at to `at`. `err` may be NULL. Any thread. */
void ocspMayChangeAt(ocspError *err, int64_t at);

/* Copies external text to `out`: control bytes dropped, bytes above 126 as '?', cut to OCSP_OUTSIDE_TEXT_MAX and
 * out_size - 1. Returns out. Any thread. */
char *ocspCleanText(char *out, size_t out_size, const char *in);

/* A parsed URL. Owns its strings; release with ocspUrlClear. */
typedef struct ocspUrl {
    char *host, *port; /* host without brackets */
    char *user;        /* "user:password" or "" */
    int use_tls;
    char *authority; /* host[:port] as in the URL, for Host: */
    char *target;    /* path and query, at least "/" */
} ocspUrl;

/* Parses [http[s]://][user@]host[:port][/path][?query][#fragment]. Returns 1 and fills *url, 0 if it is malformed, or -1
 * when out of memory. Inside OpenSSL. */
int ocspUrlParse(ocspUrl *url, const char *text);
void ocspUrlClear(ocspUrl *url);

/* Decodes percent-encoding in place (RFC 3986 section 2.1). Returns 0 on %00 and on a % without two hexadecimal digits.
 * Any thread. */
int ocspPercentDecode(char *text);

/* The host's allocator and log; libc's allocator and no log before ocspInit. NULL: out of memory. ocspAlloc zeroes. Any
 * thread. */
void *ocspAlloc(size_t size);
void *ocspMemdup(const void *bytes, size_t len);
char *ocspStrdup(const char *text);
void ocspFree(void *ptr);
void ocspLog(ocspLogLevel level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void ocspSetHost(const ocspHost *host); /* NULL restores libc and silence; main */
/* Returns ocspHost.directive_prefix, or "": goes before a directive's name. Any thread. */
const char *ocspPrefix(void);
void ocspThreadStarted(void); /* calls the host's thread_started; OCSP thread */
/* Calls the host's answered, unless *number is 0, and sets *number to 0. OCSP thread, or main at shutdown. */
void ocspReportAnswer(ocspAnswerKind kind, unsigned *number, const char *error);

/* Hooks of calls that may block. With NULL functions and -1 the wait is plain. */
typedef struct ocspIoHooks {
    void (*leave_openssl)(void); /* before a call that may block */
    void (*enter_openssl)(void); /* after a call that may block */
    int wake_fd;                 /* readable: call `cancelled`; -1: none */
    int (*cancelled)(void);      /* 1: abort the call */
} ocspIoHooks;

/* Release the OpenSSL lock before a call that may block, and take it again after the call. `io` may be NULL. OCSP
 * thread, or main before that exists. */
void ocspLeaveOpenSSL(const ocspIoHooks *io);
void ocspEnterOpenSSL(const ocspIoHooks *io);

/* ---- times (ocsp_time.c) ----------------------------------------------------------------------------------------- */

/* Converts an ASN.1 time in the form of RFC 5280 section 4.1.2.5 (seconds, no fractions, Z) to seconds since 1970. Any
 * other form sets *ok to 0 and returns 0. Pure, allocates nothing. Any thread. */
int64_t ocspTime(const ASN1_TIME *t, int *ok);

/* Formats seconds since 1970 as "YYYY-MM-DD hh:mm:ss UTC", whatever the width of time_t; "?" outside the years 0 to
 * 9999. Returns out. Any thread. */
char *ocspUtcText(int64_t seconds, char *out, size_t size);

/* ---- identity (ocsp_identity.c) ---------------------------------------------------------------------------------- */

/* A served certificate and what is needed to request and verify its status. Immutable; owns what its fields point
 * to. */
typedef struct ocspIdentity {
    X509 *leaf;
    X509 *issuer;              /* NULL if not found: no status can be requested or verified */
    X509_STORE *store;         /* trust anchors for https responders; may be NULL */
    unsigned char sha256[32];  /* of the leaf's DER: identifies the certificate */
    char sha256_hex[65];       /* lower case, in the name of the cache file */
    char *serial;              /* upper-case hex without colons */
    char *urls[OCSP_MAX_URLS]; /* http(s) URLs from authorityInfoAccess, in the CA's order */
    int url_count;
    int self_signed;
    int must_staple;          /* RFC 7633 */
    int tls_feature_unparsed; /* tls-feature present but unparsable */
    int incomplete;           /* something is missing or unparsable, possibly from lack of memory: identify again */
    int64_t not_after;
    unsigned char *request; /* DER OCSPRequest: SHA-1 CertID, no nonce, unsigned */
    size_t request_len;
} ocspIdentity;

/* Identifies `leaf`. Looks for the issuer in `chain`, then in `store` (both may be NULL), and accepts it only if its
 * key verifies the leaf's signature. Takes references. Candidate issuers are copied before their extensions are read,
 * as the server uses them; not with `store` NULL, as `chain` is then one that OpenSSL has verified. May read files in
 * tls-ca-cert-dir. NULL only when out of memory; free with ocspIdentityFree (NULL allowed). Any thread, inside
 * OpenSSL. */
ocspIdentity *ocspIdentityNew(X509 *leaf, ocspX509Stack *chain, X509_STORE *store);

/* The same with further candidates for the issuer, `issuers` (may be NULL), by the same rules. They are copied before
 * use, and trusted for nothing else. */
ocspIdentity *ocspIdentityNewWith(X509 *leaf, ocspX509Stack *chain, X509_STORE *store, ocspX509Stack *issuers);

#define OCSP_MAX_ISSUER_FILE (1024 * 1024) /* bytes of the issuer file */
#define OCSP_MAX_ISSUERS 256               /* certificates in it */

/* Parses the certificates in `pem`, and skips other PEM blocks. Returns 1 to OCSP_MAX_ISSUERS of them
 * (sk_X509_pop_free them), or NULL with half a sentence, whose subject is the file. Any thread, inside OpenSSL. */
ocspX509Stack *ocspParseIssuers(ocspBytes pem, ocspError *err);
void ocspIdentityFree(ocspIdentity *id);

/* Checks whether `issuer` signed `cert`: name, key usage and signature. Any thread, inside OpenSSL. The name is not
 * enough, as a rekeyed CA, or another CA with the same name, has it too. X509_check_issued is too strict: it compares
 * the serial number in the authority key identifier, which changes when a CA renews its certificate with the same
 * key. */
int ocspIssued(X509 *issuer, X509 *cert);

/* Formats a serial number in upper-case hexadecimal, as external text. Returns out; "" when out of memory. Any thread,
 * inside OpenSSL. */
char *ocspSerialText(const ASN1_INTEGER *serial, char *out, size_t size);

/* ---- HTTP (ocsp_http.c) ------------------------------------------------------------------------------------------ */

/* bytes of one HTTP header with all interim responses; of one body's chunk extensions and trailers */
#define OCSP_MAX_HEADER_BYTES (16 * 1024)

/* Reads one HTTP response. Owned by the caller, set up by ocspHttpStart; the fields are private. */
typedef struct ocspHttpReader {
    ssize_t (*read)(void *source, void *buf, size_t size);
    void *source;
    ocspError *err;
    size_t budget; /* bytes that further lines may have */
    int in_body;   /* lines belong to the chunked encoding */
    int interim;   /* an interim response was skipped */
    size_t at, got;
    char buf[OCSP_MAX_HEADER_BYTES + 1]; /* bytes `at` to `got` are unread */
} ocspHttpReader;

#define OCSP_HTTP_NO_LENGTH (-1) /* in ocspHttpHead.length: no usable length */
#define OCSP_HTTP_NO_NUMBER (-2)
#define OCSP_HTTP_LENGTHS_DIFFER (-3)

/* The header of the final HTTP response. Strings are truncated, and cleaned except for the types; "" if absent. */
typedef struct ocspHttpHead {
    int status;
    int chunked;
    int64_t length;                           /* bytes of the body, or OCSP_HTTP_... */
    char type[64], other_type[64];            /* media types without parameters; the second if it differs */
    char transfer[64], coding[64];            /* unsupported transfer and content coding */
    char location[OCSP_OUTSIDE_TEXT_MAX + 1]; /* target of a redirect */
} ocspHttpHead;

/* Sets up a reader for one HTTP response. `read(source, ...)` returns 1 to `size` bytes, 0 at the end of data, or -1
 * with *err filled (or cancelled). */
void ocspHttpStart(ocspHttpReader *r,
                   ssize_t (*read)(void *source, void *buf, size_t size),
                   void *source,
                   ocspError *err);

/* Reads the header of the final HTTP response and skips interim ones (1xx). Returns 0 with a sentence in *err. */
int ocspHttpReadHead(ocspHttpReader *r, ocspHttpHead *head);

/* Checks whether the HTTP response can carry an OCSP response: status, type, encodings, length. Returns 0 with a
 * sentence. Pure. */
int ocspHttpCheckHead(const ocspHttpHead *head, ocspError *err);

/* Reads the body, after ocspHttpCheckHead has accepted the header. Returns 1 with *body (ocspFree it) of 1 to
 * OCSP_MAX_RESPONSE_BYTES bytes, or NULL for an empty body; or 0 with a sentence and *body NULL. */
int ocspHttpReadBody(ocspHttpReader *r, const ocspHttpHead *head, unsigned char **body, size_t *body_len);

/* ---- connection (ocsp_conn.c) ------------------------------------------------------------------------------------ */

/* A connection. The caller owns it and sets it up with fd -1 and ssl NULL. OCSP thread, inside OpenSSL, whose lock is
 * released during waits. */
struct addrinfo;
typedef struct ocspConn {
    int fd;
    SSL *ssl;         /* NULL: no TLS */
    int tls_done;     /* the handshake succeeded; SSL_is_init_finished is 0 again while a session ticket is read */
    const char *host; /* the responder's, from the URL */
    int64_t deadline; /* milliseconds of ocspConnNowMs() */
    const ocspIoHooks *io;
    int cancelled; /* 1: io->cancelled returned 1; *err is not filled */
    ocspError *err;
} ocspConn;

int64_t ocspConnNowMs(void); /* monotonic clock, milliseconds. Any thread */
/* Makes a client context that trusts the system's roots and `store` (may be NULL). NULL: out of memory. Inside
 * OpenSSL. */
SSL_CTX *ocspTlsContext(X509_STORE *store);

/* Each returns 1, or 0 with a sentence in *err (or cancelled). */
int ocspConnOpen(ocspConn *c, const struct addrinfo *address);
int ocspConnTls(ocspConn *c, SSL_CTX *tls); /* TLS handshake; verifies the certificate for c->host */
int ocspConnWrite(ocspConn *c, const void *bytes, size_t len);

/* Reads 1 to `size` bytes, for ocspHttpStart; `conn` is an ocspConn. Returns the number, 0 at the end of data, or -1
 * with a sentence (or cancelled). */
ssize_t ocspConnRead(void *conn, void *buf, size_t size);
void ocspConnClose(ocspConn *c);

/* ---- fetch (ocsp_fetch.c) ---------------------------------------------------------------------------------------- */

typedef enum {
    OCSP_FETCH_OK,
    OCSP_FETCH_FAILED,
    OCSP_FETCH_CANCELLED
} ocspFetchResult;

/* One OCSP request to one responder. The caller owns everything. */
typedef struct ocspExchange {
    const char *url;
    const unsigned char *request; /* DER OCSPRequest */
    size_t request_len;
    X509_STORE *store;  /* trusted for https besides the system's roots; may be NULL */
    int64_t timeout_ms; /* for all addresses of the host together */
    const ocspIoHooks *io;
    const char *proxy; /* as the directive; NULL or "": from the environment */
} ocspExchange;

#define OCSP_NO_PROXY "none" /* the proxy that is none */

/* Sends the request by HTTP/1.1: POST, then GET if the POST was answered 4xx or 501 (but not a proxy's 407); to each
 * address of the host in turn, all within the timeout on the monotonic clock (the system's resolver bounds the name
 * look-up). On OCSP_FETCH_OK *body (ocspFree it) has 1 to OCSP_MAX_RESPONSE_BYTES unverified bytes, or *body is NULL
 * and *body_len 0 for an empty body. OCSP thread, or any thread that blocks or ignores SIGPIPE (TLS writes without
 * MSG_NOSIGNAL). RFC 6960 appendix A. */
ocspFetchResult ocspFetch(const ocspExchange *exchange, unsigned char **body, size_t *body_len, ocspError *err);

/* ---- DER (ocsp_der.c) -------------------------------------------------------------------------------------------- */

/* Checks whether a complete SEQUENCE of definite length begins at `der`; *following is the number of bytes after it.
 * Pure. Any thread. */
int ocspDerWhole(const unsigned char *der, size_t len, size_t *following);

/* Checks that a successful OCSPResponse is DER and small enough to be parsed and verified in a handshake: values,
 * depth, SingleResponses, certificates. Returns 0 with a sentence (kind OCSP_ERR_RESPONSE). Pure, allocates nothing.
 * Any thread. RFC 6960 section 4.2.1. */
int ocspDerBounded(const unsigned char *der, size_t len, ocspError *err);

/* ---- signer (ocsp_signer.c) -------------------------------------------------------------------------------------- */

/* Finds the certificate that signed `basic`, if it may: the issuer, or an authorized responder that the issuer
 * certified (RFC 6960 section 4.2.2.2). Verifies at most OCSP_MAX_VERIFICATIONS signatures. Returns a certificate owned
 * by `basic` or `id`, or NULL with a sentence. Pure. Any thread, inside OpenSSL. */
X509 *ocspFindSigner(OCSP_BASICRESP *basic, const ocspIdentity *id, int64_t now, ocspError *err);

/* Checks whether a signature algorithm uses a forgeable digest: MD5 and older, also within RSASSA-PSS. Any thread,
 * inside OpenSSL. */
int ocspWeakSignature(const X509_ALGOR *algorithm);

/* ---- verify (ocsp_verify.c) -------------------------------------------------------------------------------------- */

typedef enum {
    OCSP_SOURCE_NONE,
    OCSP_SOURCE_NETWORK,
    OCSP_SOURCE_CACHE,
    OCSP_SOURCE_FILE,
    OCSP_SOURCE_PUSHED, /* by an operator: OCSP.SET, DEBUG OCSP-SET */
} ocspSource;

const char *ocspSourceName(ocspSource source); /* as in INFO. Any thread */

/* A verified response. Immutable, except as ocspVerifyFile and ocspCapByClock lower expires_at. */
typedef struct ocspResponse {
    unsigned char *der; /* owned; the bytes that are stapled */
    size_t len;
    int revoked;           /* certStatus is revoked; otherwise good, as unknown is rejected */
    int revocation_reason; /* CRLReason, -1: absent */
    int64_t revoked_at;
    /* NID of the CertID's digest; SHA-1 if one of several matching CertIDs has it */
    int certid_digest;
    int64_t this_update, produced_at;
    int64_t next_update; /* 0: absent */
    /* Staple while now < expires_at: least of nextUpdate (or received + 600) and notAfter of leaf and signer. */
    int64_t expires_at;
    int64_t received; /* wall clock seconds: when fetched, or the file's mtime; OCSP_RECEIVED_UNKNOWN for a peer's */
    ocspSource source;
} ocspResponse;

#define OCSP_CLOCK_SKEW 300       /* seconds that thisUpdate may be in the future */
#define OCSP_DEFAULT_VALIDITY 600 /* seconds from receipt for a response without nextUpdate */

#define OCSP_RECEIVED_UNKNOWN ((int64_t)-1)

#define OCSP_MAX_SIGNERS 4 /* certificates in a response that match its ResponderID */
/* Signature verifications that one response can cost: with the issuer's key, and for each matching certificate its own
 * signature and the response's. */
#define OCSP_MAX_VERIFICATIONS (1 + 2 * OCSP_MAX_SIGNERS)

/* Verifies `der` for `id` at `now`, by RFC 6960 section 3.2 and the table in docs/behavior.md: complete DER,
 * successful, signed by the issuer or an authorized responder, a SingleResponse for exactly this certificate, dates.
 * `received` is when a response without nextUpdate was received; OCSP_RECEIVED_UNKNOWN (a peer's staple) stands for
 * thisUpdate plus the skew, 15 minutes of validity in all, as in Java. Returns 1 and fills *out (release with
 * ocspResponseClear), or 0 and fills *err. Pure: no clock, no I/O. Any thread, inside OpenSSL. */
int ocspVerify(ocspBytes der, const ocspIdentity *id, int64_t now, int64_t received, ocspResponse *out, ocspError *err);
void ocspResponseClear(ocspResponse *r);

typedef enum {
    OCSP_PEER_GOOD,
    OCSP_PEER_MISSING, /* no staple */
    OCSP_PEER_EXPIRED, /* good, but expired */
    OCSP_PEER_REVOKED,
    OCSP_PEER_BAD, /* the staple does not verify, or the issuer is unknown */
} ocspPeerState;

/* Verifies what the server with the certificate of `id` stapled to this client (der.data NULL: nothing). `chain` is its
 * verified chain, leaf first (may be NULL): a staple for a CA in it alone counts as missing, with err->no_matching_certid
 * set. For any state but good *err has the reason (revoked: "REVOKED on" and the date) and may_change_at. Pure, like
 * ocspVerify. Any thread, inside OpenSSL. */
ocspPeerState ocspVerifyStaple(const ocspIdentity *id,
                               ocspX509Stack *chain,
                               ocspBytes der,
                               int64_t now,
                               ocspError *err);

/* Compares a verified response with the current one (current->der NULL: none). The later thisUpdate is newer, then the
 * later producedAt; if both are equal, revoked replaces good, never the reverse. */
typedef enum {
    OCSP_FRESH_NEWER, /* install and publish it */
    OCSP_FRESH_SAME,  /* the same status and no later date: not a failure */
    OCSP_FRESH_OLDER, /* a failure */
} ocspFreshness;
ocspFreshness ocspCompare(const ocspResponse *current, const ocspResponse *fresh, int64_t now);

/* Returns the latest nextUpdate in an unverified response, to decide when its file may be pruned: 0 if a SingleResponse
 * has no nextUpdate, -1 if the response does not parse. Any thread, inside OpenSSL. */
int64_t ocspPeekNextUpdate(const unsigned char *der, size_t len);

/* Returns the SingleResponse that ocspVerify uses for the certificate, owned by `basic`, or NULL. `id` needs leaf, issuer
 * and serial only. Any thread, inside OpenSSL. */
OCSP_SINGLERESP *ocspSingleResponseOf(OCSP_BASICRESP *basic, const ocspIdentity *id, int64_t now);

/* ---- text (ocsp_text.c) ------------------------------------------------------------------------------------------ */

#define OCSP_TEXT_MAX (16 * 1024) /* bytes that every description of a response fits in */

/* Formats a name as in RFC 2253, as external text. Returns out; "" when out of memory. Any thread, inside OpenSSL. */
char *ocspNameText(const X509_NAME *name, char *out, size_t size);

struct ocspStaple;
/* Describes the response of `staple` at `now` in lines "name: value", with the names of RFC 6960. Finds the signer by
 * verifying again, at most OCSP_MAX_VERIFICATIONS signatures. `out` has OCSP_TEXT_MAX bytes. 0: out of memory. Pure. Any
 * thread, inside OpenSSL. */
int ocspResponseText(const struct ocspStaple *staple, int64_t now, char *out, size_t size);

/* ---- schedule (ocsp_schedule.c) ---------------------------------------------------------------------------------- */

#define OCSP_MIN_INTERVAL_MS 1000            /* between automatic refreshes */
#define OCSP_RETRY_MAX_MS (3600 * 1000)      /* between retries with a valid response */
#define OCSP_RETRY_MAX_EMPTY_MS (300 * 1000) /* without a valid response */
#define OCSP_RETRY_MAX_MUST_MS (60 * 1000)   /* without a valid response, must-staple */
#define OCSP_REVOKED_RECHECK 3600            /* seconds: a revoked response is refreshed at least hourly */
#define OCSP_JITTER_DIV 5                    /* jitter: at most 1/N of the wait beyond OCSP_JITTER_BEYOND_MS */
#define OCSP_JITTER_BEYOND_MS (1800 * 1000)  /* see OCSP_JITTER_DIV */
#define OCSP_OUTAGE_AFTER_MS (60 * 1000)     /* retries double up to this; failures after it are an outage */
#define OCSP_INTERVAL_JITTER_DIV 3           /* jitter: at most 1/N of max-interval */
#define OCSP_INTERVAL_OVERDUE_DIV 10         /* what max-interval makes overdue follows within 1/N of it */

/* The refresh deadline in wall clock seconds: expires_at - (expires_at - this_update) * margin / 100, or, without
 * nextUpdate, at half of the default validity (expires_at - 300). Pure, like all of ocsp_schedule.c. Any thread. */
int64_t ocspRefreshDeadline(const ocspResponse *current, int margin_percent);

/* The time of the next refresh in wall clock milliseconds: the refresh deadline minus jitter (0 <= random <=
 * UINT32_MAX), never later than the deadline. The jitter is at most the larger of two: a tenth of the margin window or
 * of the time until the deadline, whichever is less; and a fifth of the wait (thisUpdate to deadline) beyond half an
 * hour, but at most half of the time until the deadline. A revoked response is refreshed within an hour of `now_ms`. */
int64_t ocspRefreshAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random);

/* The time of the next refresh in wall clock milliseconds, after a refresh that jitter made early returned nothing
 * newer: after the deadline, by at most an hour or a quarter of the margin window. 0: the deadline has passed. */
int64_t ocspRecheckAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random);

/* The delay until the refresh that max_interval (seconds, not 0) requires, `since_ms` after the last answer: the rest of
 * the interval minus jitter, which is at most a third of the interval and at most the rest. A rest of less than a tenth
 * of the interval counts as a tenth: after a long stop a fleet would otherwise ask at once. */
int64_t ocspIntervalDelayMs(int max_interval, int64_t since_ms, uint32_t random);

/* The delay in an outage, or when the responder has nothing newer: uniform over the upper half of ocspRetryCapMs, so
 * that a fleet does not retry in step. */
int64_t ocspOutageDelayMs(int64_t remaining_ms, int must_staple, uint32_t random);

/* The longest delay allowed before a retry, for a response that is valid for remaining_ms (<= 0: none is valid). */
int64_t ocspRetryCapMs(int64_t remaining_ms, int must_staple);

/* The delay after `attempt` consecutive failures (1, 2, ...): retry_delay seconds * 2^(attempt-1), +-20 %, at most
 * ocspRetryCapMs and at least OCSP_MIN_INTERVAL_MS. Once doubled beyond OCSP_OUTAGE_AFTER_MS with a valid response, it
 * is an outage: at least that and at least half of the cap, up to the cap. */
int64_t ocspRetryDelayMs(int retry_delay, unsigned attempt, int64_t remaining_ms, int must_staple, uint32_t random);

/* ---- slot (ocsp_slot.c) ------------------------------------------------------------------------------------------ */

/* What handshakes read for one certificate. Immutable once published. */
typedef struct ocspStaple {
    X509 *leaf;         /* owned reference */
    int64_t expires_at; /* staple while now < expires_at; wall clock seconds */
    unsigned char *der; /* owned; NULL: no response */
    size_t len;
    /* For OCSP.GET; not read by handshakes. */
    X509 *issuer; /* owned reference; NULL: unknown */
    int index;    /* position in the context in service, OCSP_MAX_LEAVES: in a chain; -1: replaced */
    ocspSource source;
    /* Of a leaf: the elements of the set that are stapled beside the chain's certificates, in the order in which OpenSSL
     * sends those; -1: nothing beside that one. */
    int chain[OCSP_MAX_CHAIN - 1];
} ocspStaple;

typedef struct ocspStapleSet {
    X509_STORE *store; /* owned reference: that of the SSL_CTX whose certificates are followed; NULL: none */
    int count;
    ocspStaple staples[OCSP_MAX_CERTS];
} ocspStapleSet;

/* One publisher at a time; any number of readers on any threads. */
/* Publishes `set` and takes ownership; waits for readers of the previous set and frees it. OCSP thread (or main before
 * that exists). */
void ocspSlotPublish(ocspStapleSet *set);
const ocspStapleSet *ocspSlotEnter(int *token); /* lock-free; NULL: nothing is published */
void ocspSlotLeave(int token);
/* Copies the published set to *copy (NULL if nothing is published); free it with ocspStapleSetFree. Lock-free, like a
 * handshake. Any thread. 0: out of memory. */
int ocspSlotCopy(ocspStapleSet **copy);
void ocspStapleSetFree(ocspStapleSet *set);

/* Handshake counters. Any thread. They share the readers' stripes, so that threads do not contend. */
void ocspCountHandshake(int stapled);
void ocspCountChain(void); /* a handshake that stapled for a certificate of the chain besides the leaf */
void ocspSumHandshakes(long long *stapled, long long *unstapled);
long long ocspSumChain(void);
void ocspResetHandshakes(void); /* to zero; main */

/* ---- the chain (ocsp_chain.c) ------------------------------------------------------------------------------------ */

/* Whether this OpenSSL can send a response beside each certificate (3.6 or later). Any thread. */
int ocspChainSupported(void);

/* Hands OpenSSL the valid responses of `leaf`, a staple of `set`, and of its chain, which it sends beside their
 * certificates. Returns how many of the chain it sends, besides the leaf's; 0: nothing was done, as the version is below
 * TLS 1.3, none is valid, OpenSSL cannot, or memory ran out. `leaf_len` is the greatest length of the leaf's response;
 * *leaf_sent says whether that is sent, too. Parses the responses, which were verified; no lock, no I/O. Any thread,
 * between ocspSlotEnter and ocspSlotLeave. RFC 8446 section 4.4.2.1. */
int ocspChainStaple(SSL *ssl,
                    const ocspStapleSet *set,
                    const ocspStaple *leaf,
                    size_t leaf_len,
                    int64_t now,
                    int *leaf_sent);

/* On a client: the number of responses in the handshake, in the order of the chain, without gaps; 0 if OpenSSL cannot
 * tell. Any thread. */
int ocspChainReceived(SSL *ssl);

/* Copies response `i` of them to *der (OPENSSL_free it); NULL: there is none in that place. 0: out of memory. Any thread. */
int ocspChainResponse(SSL *ssl, int i, unsigned char **der, size_t *len);

/* ---- peers (ocsp_peer.c) ----------------------------------------------------------------------------------------- */

/* Verifies the staple of a peer (der.data NULL: none) for its certificate `leaf`, whose issuer is looked for in `chain`
 * (may be NULL). For any state but good *err has the reason and may_change_at. *must_staple says whether the
 * certificate is must-staple (RFC 7633); 1 also if that cannot be read. Pure, like ocspVerify. Any thread, inside
 * OpenSSL. */
ocspPeerState ocspVerifyPeerStaple(X509 *leaf,
                                   ocspX509Stack *chain,
                                   ocspBytes der,
                                   int64_t now,
                                   int *must_staple,
                                   ocspError *err);

/* Verifies the responses that a peer stapled for the CAs of `chain`, its verified chain, leaf first (may be NULL).
 * OCSP_PEER_REVOKED: one says that a CA was revoked; OCSP_PEER_BAD: one is forged, or memory ran out; both with a reason in
 * *err. Else OCSP_PEER_GOOD: a CA without a response, or with one that is not valid now, is no fault, as a thief of the
 * peer's key would leave that out. Looks at the CAs among the first OCSP_MAX_CHAIN certificates, and for each at the first
 * response that matches it, which may verify OCSP_MAX_VERIFICATIONS signatures. Lowers err->may_change_at. Pure, like
 * ocspVerify. Any thread, inside OpenSSL. */
ocspPeerState ocspVerifyPeerChain(ocspX509Stack *chain,
                                  const ocspBytes *responses,
                                  int count,
                                  int64_t now,
                                  ocspError *err);

/* The client half of ocspStatusCallback. 1: accepted, 0: rejected. Any thread. */
int ocspPeerCallback(SSL *ssl);
void ocspPeersSetPolicy(ocspVerifyPeers new_policy); /* main */
/* Returns the hash of a text, never 0. Any thread. */
uint64_t ocspPeerHash(const char *text, uint64_t start);
/* Remembers a peer's bad state, or forgets the peer if `state` is 0, which is good. Both are hashes. Returns 1 if that is a
 * change. Main. */
int ocspPeerChanged(uint64_t peer, uint64_t state);
void ocspPeersCron(void);                     /* logs what handshakes queued; main */
void ocspPeersInfo(const ocspInfoSink *sink); /* main */
void ocspPeersResetCounters(void);            /* main */

/* ---- cache (ocsp_cache.c) ---------------------------------------------------------------------------------------- */

#define OCSP_CACHE_KEEP (7 * 86400) /* seconds after expiry that a cache file is kept */

/* Reads a regular file of 1 to `max` bytes; follows symbolic links. Returns 1 with *bytes (ocspFree it) and *mtime (wall
 * clock seconds), or 0 with a sentence (OCSP_ERR_NETWORK, or OCSP_ERR_RESPONSE for a wrong size). Blocks on the disk.
 * Outside OpenSSL. */
int ocspReadFile(const char *path, size_t max, unsigned char **bytes, size_t *len, int64_t *mtime, ocspError *err);

/* The cache file of a certificate, dir/ocsp-<sha256>.der. All block on the disk and are called outside OpenSSL. OCSP
 * thread, or (load) main before the first accept.
 *  - Load returns 1, 0 with a sentence, or 0 with kind OCSP_ERR_NONE if there is no file.
 *  - Store writes a temporary file, fsyncs and renames it. 0 with a sentence: the old file is unchanged, or the new
 *    one is in its place but may be lost in a power failure.
 *  - Remove returns 1 if no file is left and a power failure cannot restore it, or 0 with a sentence that names the
 *    file.
 *  - Prune removes cache files whose response expired OCSP_CACHE_KEEP seconds before `now`, and temporary files left
 *    by a kill. It enters OpenSSL for parsing through `wait` (may be NULL). */
int ocspCacheLoad(const char *dir,
                  const ocspIdentity *id,
                  unsigned char **der,
                  size_t *len,
                  int64_t *mtime,
                  ocspError *err);
int ocspCacheStore(const char *dir, const ocspIdentity *id, const unsigned char *der, size_t len, ocspError *err);
int ocspCacheRemove(const char *dir, const ocspIdentity *id, ocspError *err);
void ocspCachePrune(const char *dir, int64_t now, const ocspIoHooks *wait);

/* ---- configuration (ocsp_config.c) ------------------------------------------------------------------------------- */

#define OCSP_MAX_INTERVAL_MIN 60 /* seconds; the smallest max-interval that is not 0 */

/* Copies options and their strings. Overwrites `to` without freeing its strings. 0: out of memory. Any thread. */
int ocspCopyOptions(ocspOptions *to, const ocspOptions *from);
void ocspFreeOptions(ocspOptions *options); /* frees the strings and sets them to NULL */

/* ---- environment (ocsp_env.c) ------------------------------------------------------------------------------------ */

/* Clocks, randomness, network and disk. Tests and simulations replace ocsp_env before ocspInit. Functions without a
 * comment are as those of the same name in this header. */
typedef struct ocspEnv {
    int64_t (*wall_ms)(void); /* wall clock, milliseconds since 1970 */
    int64_t (*mono_ms)(void); /* monotonic clock, milliseconds */
    uint32_t (*random)(void); /* 0 to UINT32_MAX */
    ocspFetchResult (*fetch)(const ocspExchange *, unsigned char **, size_t *, ocspError *);
    int (*read_file)(const char *, size_t, unsigned char **, size_t *, int64_t *, ocspError *);
    uint64_t (*file_signature)(const char *); /* changes when the file does; 0: no file */
    int (*cache_load)(const char *, const ocspIdentity *, unsigned char **, size_t *, int64_t *, ocspError *);
    int (*cache_store)(const char *, const ocspIdentity *, const unsigned char *, size_t, ocspError *);
    int (*cache_remove)(const char *, const ocspIdentity *, ocspError *);
    void (*cache_prune)(const char *, int64_t, const ocspIoHooks *);
    int (*chain_supported)(void);
} ocspEnv;
extern ocspEnv ocsp_env;

int64_t ocspNow(const ocspEnv *env); /* wall clock seconds; any thread */

/* ---- one certificate (ocsp_cert.c) ------------------------------------------------------------------------------- */

#define OCSP_REFRESH_ERROR_MAX 2048 /* bytes; the error of a refresh names each URL tried */

typedef enum {
    OCSP_STATE_NO_TLS,
    OCSP_STATE_NO_CERTIFICATE,
    OCSP_STATE_SELF_SIGNED,
    OCSP_STATE_NO_ISSUER,
    OCSP_STATE_NO_RESPONDER,
    /* Can be refreshed. Whether it is good, revoked or expired follows from the current response and the clock. */
    OCSP_STATE_PENDING,
} ocspCertState;

/* The outcome of a response or of a whole refresh. */
typedef enum {
    OCSP_OUTCOME_NEW,       /* installed as the current response: publish it */
    OCSP_OUTCOME_UNCHANGED, /* valid, but not newer than the current response */
    OCSP_OUTCOME_STALE,     /* valid, but older than the current response: a failure */
    OCSP_OUTCOME_INVALID,   /* fetch, read or verification failed: a failure */
    OCSP_OUTCOME_NO_MATCH,  /* a response file for other certificates: not a failure */
    OCSP_OUTCOME_CANCELLED, /* aborted: options or certificates changed, or the server exits */
} ocspOutcome;

/* A time on both clocks, in milliseconds. Waits that are to survive both a suspend, in which the monotonic clock stops,
 * and a wall clock that is set back end when either clock reaches it. */
typedef struct ocspMoment {
    int64_t wall_ms, mono_ms; /* wall_ms 0: none */
} ocspMoment;

/* A tracked certificate. Owned by the worker; used on the OCSP thread only, or on main before that exists. */
typedef struct ocspCert {
    ocspIdentity *id;
    int active;     /* 1: in the context in service; 0: replaced, still stapled to handshakes under way */
    int was_active; /* the value of `active` before the last reload */
    int index;      /* position in the context; INFO shows the first two. OCSP_MAX_LEAVES: in a chain only */
    int depth;      /* 0: a leaf; else a CA of a served chain, with that number of certificates before it */
    /* Of a leaf: the certificates sent after it, in that order; NULL: not followed, or there is none. Not owned. */
    struct ocspCert *chain[OCSP_MAX_CHAIN - 1];
    size_t chain_bytes; /* of a leaf: the Certificate message without responses */
    ocspCertState state;
    ocspResponse current; /* .der NULL: none. Kept after expiry: see ocspCompare */
    struct {
        int refresh_requested;   /* by an operator: due at once */
        int refresh_now;         /* by a reload or a directive: due OCSP_MIN_INTERVAL_MS after the last refresh */
        int refresh_if_empty;    /* stapling was turned on: due at once if the cache has no valid response */
        int64_t refresh_at_ms;   /* wall clock */
        ocspMoment answered;     /* the last answer, for max-interval; of a cached response the file's mtime */
        ocspMoment interval;     /* of max-interval; none: off, or a failed refresh had its turn, see retry_at_ms */
        int64_t retry_at_ms;     /* monotonic clock, 0: no retry scheduled */
        int64_t last_refresh_ms; /* monotonic clock, 0: never */
        unsigned attempt;        /* consecutive refreshes without a newer response, for back-off */
    } schedule;
    struct {
        long long consecutive_failures, last_fetch_ms;
        int64_t last_success; /* wall clock seconds */
        char url[OCSP_OUTSIDE_TEXT_MAX + 1];
        ocspErrorCode last_error_code;
        char last_error[OCSP_REFRESH_ERROR_MAX];
    } stats; /* for INFO and the log */
    struct {
        int checked; /* the cache directory was read */
        int dirty;   /* the current response must be stored */
        /* the files must still be compared with the current response, or one contradicts it and cannot be removed */
        int outdated;
        int64_t store_at_ms, load_at_ms; /* monotonic clock: not before this, 0: at once */
    } cache;
    struct {
        int state; /* the last ocspCertState logged, -1: none */
        int failure, half_window, expired, missing, unusable_cache, outdated, certid_digest, chain_too_long;
    } logged; /* log each transition once */
    struct {
        int exists, revoked, expired, failure_logged;
        long long failures;
        size_t len;
    } replaced; /* the previous response, for ocspLogInstalled */
} ocspCert;

/* A response as received, not verified. */
typedef struct ocspReceived {
    ocspBytes der;
    ocspSource source;
    int64_t at; /* wall clock seconds: when fetched, or the file's mtime */
} ocspReceived;

ocspCert *ocspCertNew(void); /* NULL: out of memory */
void ocspCertFree(ocspCert *cert);

/* The functions below do no I/O: they use the certificate, the options in force, and the clocks and randomness of the
 * environment. OCSP thread (or main before that exists), inside OpenSSL. */

int ocspHasResponseFile(const ocspOptions *options);
int ocspFollowsChains(const ocspOptions *options, const ocspEnv *env); /* staple_chain, and OpenSSL can */
ocspCertState ocspStateOf(const ocspIdentity *id, const ocspOptions *options);
void ocspShowUrl(ocspCert *cert, const ocspOptions *options);      /* sets stats.url, until a refresh does */
int64_t ocspRemainingMs(const ocspCert *cert, const ocspEnv *env); /* until expiry; <= 0: no valid response */
int ocspHasValid(const ocspCert *cert, const ocspEnv *env);

/* Milliseconds until the next refresh: 0 or less is now, INT64_MAX never. */
int64_t ocspDueIn(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env);

/* The time of the next refresh in wall clock milliseconds, if max-interval requires it earlier than the margin or a retry
 * does; else 0. */
int64_t ocspIntervalAtMs(const ocspCert *cert, const ocspOptions *options, const ocspEnv *env);

/* Verifies the contents of a file with this mtime (wall clock seconds). Like ocspVerify, but copying the file does not
 * prolong a response without nextUpdate. */
int ocspVerifyFile(const ocspCert *cert,
                   const ocspEnv *env,
                   ocspBytes der,
                   int64_t mtime,
                   ocspResponse *out,
                   ocspError *err);

/* Verifies `in`, installs it if it is newer than the current response, and schedules the next refresh. On STALE and
 * INVALID *err has the sentence. After NEW the caller publishes, then calls ocspLogInstalled. */
ocspOutcome ocspAcceptResponse(ocspCert *cert,
                               const ocspOptions *options,
                               const ocspEnv *env,
                               const ocspReceived *in,
                               ocspError *err);

/* Like ocspAcceptResponse, for a verified response. Takes ownership of *fresh's memory. */
ocspOutcome ocspAcceptVerified(ocspCert *cert,
                               const ocspOptions *options,
                               const ocspEnv *env,
                               ocspResponse *fresh,
                               ocspSource source,
                               ocspError *err);

/* Logs the response that ocspAcceptResponse installed. */
void ocspLogInstalled(ocspCert *cert);

/* Counts a failed refresh (stats.last_error and last_error_code have the reason), schedules the retry and logs the
 * first consecutive failure. `requested`: by an operator; such failures must not postpone the automatic retry. */
void ocspRefreshFailed(ocspCert *cert, const ocspOptions *options, const ocspEnv *env, int requested);

/* Adjusts state and schedule after the options changed from `old`. */
void ocspOptionsChanged(ocspCert *cert, const ocspOptions *old, const ocspOptions *options, const ocspEnv *env);

/* Shortens waits that exceed the policy because the wall clock was set, except that of max-interval, which both clocks
 * measure. ocspCapByClock returns 1 if the current
 * response now expires earlier: publish it. */
int ocspCapByClock(ocspCert *cert, const ocspOptions *options, const ocspEnv *env);
void ocspCapRetry(ocspCert *cert, const ocspEnv *env);

/* Logs a state without refreshes, once. */
void ocspLogState(ocspCert *cert);
void ocspLogTime(ocspCert *cert, const ocspOptions *options, const ocspEnv *env); /* logs approaching and past expiry */

/* ---- persistence (ocsp_persist.c) -------------------------------------------------------------------------------- */

#define OCSP_PREVIOUS_DIRS 4 /* earlier values of cache-dir whose files are still compared */

/* The worker's state of its cache directories. */
typedef struct ocspDisk {
    const ocspOptions *options;
    const ocspEnv *env;
    const ocspIoHooks *io;
    char *previous_dirs[OCSP_PREVIOUS_DIRS]; /* owned; newest first */
    int64_t prune_at_ms;                     /* monotonic clock: the first store after it prunes */
    int logged_failure;
} ocspDisk;

/* All on the OCSP thread (or, for loading, on main before that exists), inside OpenSSL; the lock is released around
 * I/O. */

/* Loads the cached response of a certificate without a valid one. Returns NEW, UNCHANGED, or INVALID if nothing was
 * loaded. */
ocspOutcome ocspDiskLoad(ocspDisk *disk, ocspCert *cert);

/* Returns 1 if the current response must be stored or compared with the files on disk. */
int ocspDiskIsBehind(const ocspDisk *disk, const ocspCert *cert);

/* Brings the files in line with the current response of `cert`, if they are behind and cache.store_at_ms has passed.
 * Returns 1 if something was stored. *outcome is NEW if another server's newer response was accepted from the disk. */
int ocspDiskSync(ocspDisk *disk, ocspCert *cert, ocspOutcome *outcome);

void ocspDiskPrune(ocspDisk *disk); /* removes old files, at most once an hour */

/* Records that cache-dir has changed from `dir`, and takes ownership of it. */
void ocspDiskChanged(ocspDisk *disk, char *dir);

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

void ocspDiskFree(ocspDisk *disk);
void ocspPeersReset(void);                /* main; no handshake may run */
ocspVerifyPeers ocspPeersPolicy(void);    /* the value of verify_peers; main */
void ocspPeersUnchecked(const char *why); /* see ocspPeerCheckUnavailable; NULL: links are checked again; main */

#endif
