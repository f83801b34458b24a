/* ocsp.h - OCSP stapling: what a host may call.
 *
 * A host, the loadable module or a patched server, provides a log, an allocator, options and the SSL_CTXs to staple for.
 * There is one engine per process. It needs OpenSSL, pthreads and libc.
 *
 * "Main" is the thread that runs the server's event loop. Functions that return int return 1, or 0 on failure, unless
 * they say otherwise.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_H
#define OCSP_H

#include <stddef.h>
#include <openssl/ssl.h>

/* With anything older the engine's files compile to nothing, so that the server still builds. */
#if defined(OPENSSL_VERSION_MAJOR) && OPENSSL_VERSION_MAJOR >= 3 && !defined(LIBRESSL_VERSION_NUMBER) && \
    !defined(OPENSSL_NO_OCSP)
#define OCSP_SUPPORTED 1
#else
#define OCSP_SUPPORTED 0
#endif

#define OCSP_STAPLING_VERSION 10000 /* major * 10000 + minor * 100 + patch */

typedef enum {
    OCSP_LOG_DEBUG,
    OCSP_LOG_VERBOSE,
    OCSP_LOG_NOTICE,
    OCSP_LOG_WARNING
} ocspLogLevel; /* the server's levels */

typedef enum ocspAnswerKind {
    OCSP_ANSWER_REFRESH,
    OCSP_ANSWER_PUSH
} ocspAnswerKind;

/* What the engine needs from its host. Copied by ocspInit. */
typedef struct ocspHost {
    void (*log)(ocspLogLevel level, const char *sentence); /* any thread; one line without a line end */
    /* Any thread. NULL: out of memory. The engine survives that everywhere, also where OpenSSL's own allocations fail: a
     * server may abort when its allocator has no memory, but OpenSSL's allocator is another one, and a module must not end
     * a server that would go on. */
    void *(*alloc)(size_t size);
    void (*free)(void *ptr); /* any thread; NULL allowed */
    /* Called first on the OCSP thread (name, CPU list, thread marks). May be NULL. */
    void (*thread_started)(void);
    /* What ocspRequestRefresh or ocspSet began has ended: all refreshes up to `number`, or the push of that number. `error`
     * is NULL, or a reason valid during the call. OCSP thread, or main at shutdown; may be NULL. */
    void (*answered)(ocspAnswerKind kind, unsigned number, const char *error);
    const char *directive_prefix; /* of directives in sentences, "ocsp." or "tls-ocsp-"; constant. NULL: none */
} ocspHost;

#define OCSP_THREAD_NAME "bio_ocsp" /* ocspHost.thread_started gives it to the thread */

/* What the servers that this one links to must staple. */
typedef enum ocspVerifyPeers {
    OCSP_PEERS_NO,     /* nothing */
    OCSP_PEERS_SOFT,   /* a good staple, or none or an expired one, which is counted, unless must-staple */
    OCSP_PEERS_REQUIRE /* a good staple */
} ocspVerifyPeers;

/* The directives' values. The caller owns the strings; NULL means "". */
typedef struct ocspOptions {
    int stapling;
    int refresh_margin;        /* percent of the validity interval, 1 to 99 */
    int max_interval;          /* seconds from an answer to the next refresh, 60 to 604800; 0: refresh_margin alone */
    int retry_delay;           /* seconds, 1 to 3600 */
    int timeout;               /* seconds for the exchange with one URL, 1 to 60 */
    const char *responder_url; /* instead of the certificate's URLs; "": those */
    const char *cache_dir;     /* "": no cache */
    const char *response_file; /* DER; "": fetch */
    ocspVerifyPeers verify_peers;
    const char *issuer_file; /* PEM, more candidates for the issuer; "": none */
    const char *proxy;       /* "": from the environment; "none"; or a URL, which may have a password: never shown */
    int staple_chain;        /* staple the responses of the served chain's other certificates too */
} ocspOptions;

/* clang-format off */
#define OCSP_OPTIONS_DEFAULT {0, 10, 0, 10, 5, "", ".", "", OCSP_PEERS_NO, "", "", 0}
/* clang-format on */

/* One directive. The module registers from the table; the patch and the documentation are written from it. */
typedef enum ocspDirectiveType {
    OCSP_BOOL,    /* int */
    OCSP_NUMBER,  /* int, min to max */
    OCSP_PERCENT, /* int, min to max; hosts register a string, with or without a percent sign */
    OCSP_STRING,  /* const char * */
    OCSP_PEERS    /* ocspVerifyPeers: no, soft, require */
} ocspDirectiveType;

typedef struct ocspDirective {
    const char *name; /* without the host's prefix, "ocsp." or "tls-ocsp-" */
    ocspDirectiveType type;
    size_t offset;        /* of its field in ocspOptions */
    const char *fallback; /* the default, as written in a configuration file */
    int min, max;
    int guarded; /* 1: protected, see the server's enable-protected-configs */
    int (*check)(const char *value,
                 const char **why); /* of the value as text; 0 sets *why to a constant sentence; may be NULL */
    const char *values, *meaning;   /* for the documentation, in Markdown */
    /* 1: the value may have a password. The server keeps it out of SLOWLOG, and no sentence has it. */
    int sensitive;
} ocspDirective;

enum {
    OCSP_D_STAPLING,
    OCSP_D_REFRESH_MARGIN,
    OCSP_D_MAX_INTERVAL,
    OCSP_D_RETRY_DELAY,
    OCSP_D_TIMEOUT,
    OCSP_D_RESPONDER_URL,
    OCSP_D_CACHE_DIR,
    OCSP_D_RESPONSE_FILE,
    OCSP_D_VERIFY_PEERS,
    OCSP_D_ISSUER_FILE,
    OCSP_D_PROXY,
    OCSP_D_STAPLE_CHAIN,
    OCSP_DIRECTIVES
};
extern const ocspDirective ocsp_directives[OCSP_DIRECTIVES];

/* Parses "10%" or "10" into *percent. 0 sets *why to a constant sentence that says what is valid. Any thread. */
int ocspParseRefreshMargin(const char *text, int *percent, const char **why);
int ocspCheckRefreshMargin(const char *text, const char **why); /* without the result */

/* Accepts 0 and 60 to 604800. 0 sets *why to a constant sentence. Any thread. */
int ocspCheckMaxInterval(const char *text, const char **why);

/* Accepts "" and http or https URLs with a host and without credentials, which INFO and logs would show. 0 sets *why to a
 * constant sentence. Any thread. RFC 6960 appendix A. */
int ocspCheckResponderUrl(const char *url, const char **why);

/* Accepts "", "none", and http://[user:password@]host:port with user and password percent-encoded. 0 sets *why to a
 * constant sentence, so that no password is repeated. Any thread. */
int ocspCheckProxy(const char *value, const char **why);

/* Initializes the engine; no thread is started yet. Main, once, before any other call. 0: out of memory. */
int ocspInit(const ocspHost *host);

/* Replaces the options (copied). Main; does not block. The OCSP thread acts on changes: a new responder_url, or stapling
 * turned on without a valid response, fetches at once, and so does a new proxy if the last fetch failed. Turning stapling
 * off holds from the next handshake, verify_peers for new links. The response file and the issuer file are read again,
 * also if nothing has changed. 0: out of memory; the old options stay. */
int ocspSetOptions(const ocspOptions *options);

/* Staples for the certificates of `ctx` (RSA and ECDSA, say) instead of those attached before; call it when a server
 * context is complete and about to be used. A reload: it starts a fetch at once. Takes references and leaves the context as
 * it was. Main; does not block. The caller installs the callback. 0: out of memory; the certificates attached before are
 * still stapled for. */
int ocspAttachContext(SSL_CTX *ctx);

/* Compares two certificates byte for byte. Unlike X509_cmp it does not populate OpenSSL's cached extensions, which an
 * allocation failure marks invalid for good. Returns 1 if they are equal, 0 also when out of memory. Any thread; the OCSP
 * thread only while it holds the OpenSSL lock. */
int ocspSameCertificate(const X509 *a, const X509 *b);

/* Makes a context of the server answer status requests (RFC 6066 section 8). The thread that fills `ctx`. */
void ocspInstallCallback(SSL_CTX *ctx);

/* Makes `ssl`, a link that this server is about to open, request a staple if verify_peers is on. Its context needs the
 * callback. The thread that opens the link. RFC 6066 section 8. */
void ocspRequestPeerStaple(SSL *ssl);

/* The handshake callback. Any thread; no lock, no I/O, no wait. On a server it staples the current response of the
 * certificate being served. On a client it verifies the peer's staple if verify_peers is on, which costs two or three
 * signature verifications, at most 10, and as many for each CA in the chain that the peer staples for; a rejected
 * handshake ends with the alert bad_certificate_status_response. */
int ocspStatusCallback(SSL *ssl, void *unused);

/* Runs what belongs on main. Call it after the first contexts were attached and before the first accept: with stapling on
 * it loads one small file per certificate, so that the first handshake is stapled, and starts the thread. Then call
 * it again before each sleep of the event loop, or once a second; it usually costs a comparison. Main. */
void ocspCron(void);

/* Starts a refresh now (with a response file: reads it again). Requests during one are merged into it; if it fails, one
 * more follows. Returns the request's number for ocspHost.answered. 0: it cannot be done, `why` (at least
 * OCSP_SENTENCE_MAX bytes) has the reason. Main; does not block. */
#define OCSP_SENTENCE_MAX 512
unsigned ocspRequestRefresh(char *why, size_t why_size);

/* The answer of OCSP.GET and DEBUG OCSP-GET. */
typedef enum {
    OCSP_GET_NOTHING, /* nothing is stapled now */
    OCSP_GET_BYTES,   /* of the response: DER, or base64 in one line */
    OCSP_GET_TEXT,    /* lines "name: value" */
    OCSP_GET_ERROR,   /* `why` has the sentence */
} ocspGetKind;

typedef struct ocspGetAnswer {
    ocspGetKind kind;
    char *data; /* the caller frees it with ocspHost.free */
    size_t len;
    char why[OCSP_SENTENCE_MAX];
} ocspGetAnswer;

/* Fills *answer with the response that a handshake would staple now. `words` are the command's arguments, at most two, each
 * may be left out: DER, BASE64 or TEXT (default), then a certificate's serial number in hexadecimal (default: the first
 * certificate, that of the ocsp_* fields). Reads as a handshake does, without a lock. Main. */
void ocspGet(const char *const words[], int count, ocspGetAnswer *answer);

/* Hands a response in base64 (line ends allowed) to the OCSP thread, which verifies it like one from the network and
 * staples it for each certificate that it is about. A fetch under way is interrupted, so this does not wait for a
 * responder. Returns as ocspRequestRefresh. Main; does not block. */
unsigned ocspSet(const char *base64, size_t len, char *why, size_t why_size);

/* INFO: calls `number` or `text` for each field, without the prefix "ocsp_", in a fixed order. Strings are valid during
 * the call. Main; takes a mutex that is held for copies only. */
typedef struct ocspInfoSink {
    void (*text)(void *arg, const char *field, const char *value);
    void (*number)(void *arg, const char *field, long long value);
    void *arg;
} ocspInfoSink;
void ocspInfoState(const ocspInfoSink *sink);    /* the section ocsp */
void ocspInfoCounters(const ocspInfoSink *sink); /* refreshes and refresh_failures */

/* CONFIG RESETSTAT: sets to zero what only counts (refreshes, failures by kind, handshakes, peers). The states, times and
 * sentences stay, and so does consecutive_failures, which is about the current outage. Main; takes that mutex. */
void ocspResetCounters(void);

/* Keeps the thread out of OpenSSL from now on, so that OPENSSL_cleanup is safe. Does not wait for the network or our
 * files; for files that OpenSSL reads, a second at most. The engine registers it with atexit when the thread starts.
 * Idempotent; does nothing in a forked child. Main. */
void ocspAtExit(void);

/* ---- only for the module and the tests --------------------------------------------------------------------------- */

/* Ends the thread and frees everything; ocspInit may follow. Waits for a name look-up or disk under way, so it is for tests
 * and unloading; a server just exits. No handshake may run. Main. */
void ocspShutdown(void);

#endif
