/* ocsp.h - OCSP stapling: everything that a host may call, and nothing else.
 *
 * The engine behind this header knows OpenSSL, pthreads and libc. A host (the loadable module in ocsp_module.c, or the
 * server itself in a patched tree) gives it a log function, an allocator, options, and the SSL_CTXs to staple for.
 * There is one engine per process, as there is one bio.c.
 *
 * Threads: "main" below is the one thread that owns the server's event loop. Functions marked "any" are safe anywhere.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_H
#define OCSP_H

#include <stddef.h>
#include <openssl/ssl.h>

/* On anything older the engine's files compile to nothing: a server that builds there goes on building there. */
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
} ocspLogLevel; /* the server's own */

/* What the engine needs from its host. Copied at ocspInit. */
typedef struct ocspHost {
    void (*log)(ocspLogLevel level, const char *sentence); /* any thread; one line without a line end */
    void *(*alloc)(size_t size);                           /* any thread; NULL means out of memory and is survived */
    void (*free)(void *ptr);                               /* any thread; NULL allowed */
    void (*thread_started)(void); /* first call on the OCSP thread: CPU list, thread-local marks; may be NULL */
    /* Does this context serve the server's own certificate? 1: yes; 0: no, for good; -1: it cannot be told now, and is
     * asked again. Main thread, in ocspCron, about a context of OCSP_CONTEXT_UNSURE that a handshake showed. May be NULL,
     * which is yes. */
    int (*serves)(SSL_CTX *ctx);
} ocspHost;

/* Who made a context. Other code in the process (a module with a TLS listener of its own) makes contexts too, and one
 * of those must never take the place of the server's, whoever connects there. */
typedef enum ocspOwner {
    OCSP_CONTEXT_OF_SERVER, /* the server itself: it is followed once it was attached or has served a handshake */
    OCSP_CONTEXT_UNSURE,    /* perhaps the server: the same, if the host says that it serves the server's certificate */
    OCSP_CONTEXT_FOREIGN    /* other code: never followed */
} ocspOwner;

/* What is asked of the servers that this one links to. */
typedef enum ocspVerifyPeers {
    OCSP_PEERS_NO,     /* nothing */
    OCSP_PEERS_SOFT,   /* a staple must be good; with none, or an expired one, the link is let through and counted */
    OCSP_PEERS_REQUIRE /* a good staple, or no link */
} ocspVerifyPeers;

/* The directives. Strings belong to the caller; ocspSetOptions copies them. NULL means "". */
typedef struct ocspOptions {
    int stapling;              /* staple or not */
    int refresh_margin;        /* percent of the response's life, 1 to 99 */
    int retry_delay;           /* seconds, 1 to 3600 */
    int timeout;               /* seconds for the exchange with one URL, 1 to 60 */
    const char *responder_url; /* in place of the certificate's URLs; "" for those */
    const char *cache_dir;     /* "" turns persistence off */
    const char *response_file; /* DER; "" to fetch */
    ocspVerifyPeers verify_peers;
} ocspOptions;

#define OCSP_OPTIONS_DEFAULT \
    { 0, 10, 10, 5, "", ".", "", OCSP_PEERS_NO }

/* One directive. Hosts register from the table of these; the patch and the documentation are written from it. */
typedef enum ocspDirectiveType {
    OCSP_BOOL,    /* int */
    OCSP_NUMBER,  /* int, min to max */
    OCSP_PERCENT, /* int, min to max; written with or without a percent sign, so that hosts register a string */
    OCSP_STRING,  /* const char * */
    OCSP_PEERS    /* ocspVerifyPeers; written no, soft or require */
} ocspDirectiveType;

typedef struct ocspDirective {
    const char *name; /* without the host's prefix, "ocsp." or "tls-ocsp-" */
    ocspDirectiveType type;
    size_t offset;        /* of its field in ocspOptions */
    const char *fallback; /* the default, as it is written in a configuration file */
    int min, max;
    int guarded; /* at run time it can be changed only where enable-protected-configs allows it */
    int (*check)(const char *value,
                 const char **why); /* of a string: 1, or 0 with a constant sentence; NULL: anything */
    const char *values, *meaning;   /* for the documentation, in Markdown */
} ocspDirective;

enum {
    OCSP_D_STAPLING,
    OCSP_D_REFRESH_MARGIN,
    OCSP_D_RETRY_DELAY,
    OCSP_D_TIMEOUT,
    OCSP_D_RESPONDER_URL,
    OCSP_D_CACHE_DIR,
    OCSP_D_RESPONSE_FILE,
    OCSP_D_VERIFY_PEERS,
    OCSP_DIRECTIVES
};
extern const ocspDirective ocsp_directives[OCSP_DIRECTIVES];

/* Parses a refresh margin, "10%" or "10". Returns 1 and stores the percentage, or 0 and points *why at a constant
 * sentence that says what would be right. Any thread. */
int ocspParseRefreshMargin(const char *text, int *percent, const char **why);

/* The same without the percentage. */
int ocspCheckRefreshMargin(const char *text, const char **why);

/* Whether `url` may be used as a responder URL: "" or http:// or https:// with a host, no user or password (RFC 6960
 * appendix A speaks plain HTTP; credentials would end up in INFO and logs). Returns 1, or 0 with a constant sentence in
 * *why. Any thread. */
int ocspCheckResponderUrl(const char *url, const char **why);

/* Starts the engine, without a thread yet. Call once, on the main thread, before any other call; `host` is copied.
 * Returns 1, or 0 when out of memory. */
int ocspInit(const ocspHost *host);

/* Takes new options (copied). Main thread; never blocks. Changes are acted on by the OCSP thread: a changed
 * responder_url or stapling turned on with nothing valid held starts a fetch at once. stapling turned off stops with
 * the next handshake; verify_peers holds for links that are opened from then on. Returns 1, or 0 when out of memory,
 * and then the old options stay. */
int ocspSetOptions(const ocspOptions *options);

/* A server context has got its certificate(s) and is about to be used: staple for it, in place of the contexts attached
 * before. All its certificates (RSA and ECDSA, say) are followed. The context is only read during the call (references
 * to its certificates, chain and store are taken), and its current certificate is the same afterwards. Also the
 * sign of a TLS reload: starts a fetch at once, as a new certificate does. Main thread; does not block, but for the
 * one file read before the first accept (see ocspCron). The callback is set with ocspInstallCallback. */
void ocspAttachContext(SSL_CTX *ctx);

/* A context that serves the first of `certs`, with the others as its chain, and trusts `store` will be attached in a
 * moment: with stapling on, the ocspCron that follows reads what is kept for it and starts the thread that asks for it, so
 * that the responder is asked before the first client can connect. Takes references. NULL takes back what was expected.
 * To attach a context with the same certificate asks for nothing anew then. Without this call, or out of memory, all
 * that is done when one is attached; after one was attached, nothing. Main thread. */
void ocspPrefetchContext(STACK_OF(X509) *certs, X509_STORE *store);

/* Whether two certificates are the same, byte for byte. In place of X509_cmp, which makes OpenSSL read the extensions of
 * both and remember what they are; if it lacks the memory to, it remembers that they are broken, and the server's
 * certificate is refused for good. 0 when out of memory. Any thread, inside OpenSSL. */
int ocspSameCertificate(const X509 *a, const X509 *b);

/* Makes `ctx` answer status requests (RFC 6066 section 8) with ocspStatusCallback, as a context of the server itself.
 * Thread of whoever fills the ctx. */
void ocspInstallCallback(SSL_CTX *ctx);

/* The same for a context whose maker is `owner`. With OCSP_CONTEXT_FOREIGN a staple is sent if one is held for the
 * certificate that the handshake serves (it is then the server's certificate, so the staple is right), but no handshake
 * makes the engine look at the context. Thread of whoever fills the ctx. */
void ocspInstallCallbackAs(SSL_CTX *ctx, ocspOwner owner);

/* Makes links that are opened with `ctx` ask for a staple while verify_peers is not no (needs the callback above too).
 * Only for contexts of the server's own links: what else a process connects to owes us no staple. A context without
 * a certificate is taken for somebody else's. Thread of whoever fills the ctx. RFC 6066 section 8. */
void ocspInstallPeerCheck(SSL_CTX *ctx);

/* While verify_peers is not no: tells operators, in the log and in INFO, that links are not checked all the same, as the
 * host could not install the check, and why (half a sentence). Main thread. */
void ocspPeerCheckUnavailable(const char *why);

/* The handshake callback: any thread, any number at once; no lock, no I/O, no wait. On a server's SSL it staples what
 * is held for the certificate that this handshake serves. On a client's it judges what the peer stapled, if
 * verify_peers says so: two or three signatures are verified, and a refused handshake ends with the alert
 * bad_certificate_status_response. */
int ocspStatusCallback(SSL *ssl, void *unused);

/* Lets the engine do the few things that belong on the main thread, among them telling the log about refused peers.
 * Call it once the first contexts were attached and before the first connection is accepted: with stapling on it then
 * reads and verifies the one small cache file (or the supplied one), so that the first handshake is stapled, and starts
 * the thread. Call it again whenever convenient (before each sleep of the event loop): it costs a comparison. Main
 * thread. */
void ocspCron(void);

/* Called with the outcome of a requested refresh: error is NULL, or the reason in words (valid during the call). On the
 * OCSP thread. */
typedef void ocspRefreshDone(void *arg, const char *error);

/* Asks for a refresh now (with a response file: for reading it again). Many calls while one is under way are one; if
 * that one fails, one more follows at once. Returns 1 if it was started; then `done` (may be NULL) is called once when
 * it has ended. Returns 0 with a sentence in why (at least OCSP_SENTENCE_MAX bytes) if it cannot be done (stapling off,
 * no responder, ...); then `done` is never called. Main thread; never blocks. */
#define OCSP_SENTENCE_MAX 512
int ocspRequestRefresh(ocspRefreshDone *done, void *arg, char *why, size_t why_size);

/* INFO. Calls `number` or `text` for each field, names without the prefix "ocsp_", in a stable order: `state` first for
 * the fields that describe the staple, then `counter` for refreshes and refresh_failures. Strings are valid during the
 * call. Main thread; takes a mutex that is held for copies only. */
typedef struct ocspInfoSink {
    void (*text)(void *arg, const char *field, const char *value);
    void (*number)(void *arg, const char *field, long long value);
    void *arg;
} ocspInfoSink;
void ocspInfoState(const ocspInfoSink *sink);
void ocspInfoCounters(const ocspInfoSink *sink);

/* Before OPENSSL_cleanup: wakes the thread and waits until it has left OpenSSL, after which it stays out: never for
 * the network or our own files, and for files that OpenSSL reads (roots, tls-ca-cert-dir) a second at most.
 * Registered with atexit by the engine itself when the thread starts; a host that unwinds OpenSSL earlier calls it
 * itself. Idempotent. Main thread. In a forked child it does nothing. */
void ocspAtExit(void);

/* Ends the thread and frees everything; ocspInit may be called again. Waits for a name look-up or a disk that is under
 * way: for tests and tools, a server just exits. No handshake may run. Main thread. */
void ocspShutdown(void);

#endif
