/* ocsp-probe.c - requests the OCSP staple of a TLS server, verifies it, and reports to people, scripts and monitoring.
 *
 * The rules are the engine's: ocsp_identity.c finds issuer and CertID, ocsp_verify.c verifies, ocsp_fetch.c queries a
 * responder. ocsp-nodes.c asks a server for the other nodes. This file connects, calls those and prints; it does not
 * itself decide whether a response is valid. Text from a certificate or a response is untrusted and passes ocspCleanText
 * before it is printed.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* tdestroy */
#endif
#include "ocsp-nodes.h"
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <poll.h>
#include <search.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define PROBE_DEFAULT_PORT "6379"
#define PROBE_DEFAULT_TIMEOUT 5 /* seconds */
#define PROBE_DEFAULT_WARN 5    /* percent of the validity left: half of the server's default refresh margin is over */
#define PROBE_OLD_WITHOUT_END 900 /* seconds: Java refuses an older response without nextUpdate */
#define PROBE_MAX_TARGETS 256
#define PROBE_MAX_CHAIN 8 /* certificates of a server's chain that are examined, the leaf included; and responses */
#define PROBE_PASSWORD_MAX 1024 /* bytes of the first line of --password-file */
#define PROBE_QUIET_MS 1000     /* no progress is shown in a run that takes less */
#define PROBE_PROGRESS_MS 200   /* between two updates of it */
#define PROBE_TEXT (OCSP_OUTSIDE_TEXT_MAX + 1)

/* Exit statuses as monitoring plugins use them. */
enum {
    EXIT_GOOD = 0,
    EXIT_WARN = 1,
    EXIT_CRITICAL = 2,
    EXIT_COULD_NOT_TELL = 3
};

typedef enum {
    FORM_PEOPLE,
    FORM_JSON,
    FORM_PROMETHEUS
} probeForm;

typedef struct probeOptions {
    probeForm form;
    const char *cafile, *capath;
    const char *cert, *key;
    const char *servername, *sigalgs;
    int tls_version; /* 0: any */
    int timeout;     /* seconds */
    int warn;
    int warn_is_percent;
    const char *ask, *issuer; /* files */
    const char *urls[OCSP_MAX_URLS];
    int url_count;
    const char *save, *replace, *output; /* files */
    int text, quiet;
    int all_nodes;
    const char *user, *password_file;
    const char *password; /* for AUTH, or NULL */
    char *const *targets;
    int target_count;
} probeOptions;

typedef enum {
    STATUS_UNREACHABLE,
    STATUS_NONE,
    STATUS_INVALID,
    STATUS_EXPIRED,
    STATUS_REVOKED,
    STATUS_GOOD
} probeStatus;

static const char *const status_words[] = {"unreachable", "none", "invalid", "expired", "revoked", "good"};

/* An intermediate certificate of the server's chain, and the response for it in the handshake. */
typedef struct probeLink {
    char subject[PROBE_TEXT], serial[PROBE_TEXT];
    probeStatus status;       /* STATUS_NONE: the handshake has no response for it */
    ocspErrorCode error_code; /* expired or invalid */
    time_t end;               /* good or revoked: when the response expires */
    time_t revoked_at;
} probeLink;

/* The result for one target. All text has passed ocspCleanText. */
typedef struct probeReport {
    char target[PROBE_TEXT];
    int given; /* position on the command line, from 1; 0: a server named it */
    int asked; /* --all-nodes: the server was asked for its nodes... */
    int nodes; /* ... and named so many; -1 if it did not name all */
    probeStatus status;
    int exit_status;
    ocspErrorCode error_code; /* OCSP_FAIL_NONE: good, revoked, no staple, or wrong usage */
    char sentence[OCSP_SENTENCE_MAX];
    char note[OCSP_SENTENCE_MAX]; /* additional sentences, or "" */
    char protocol[16];
    char url[PROBE_TEXT]; /* --ask: the responder queried last */
    long long fetch_ms;
    time_t now;
    int have_certificate; /* the next five fields are valid */
    char subject[PROBE_TEXT], issuer[PROBE_TEXT], serial[PROBE_TEXT];
    time_t not_after;
    int must_staple;
    size_t bytes;      /* of the response; 0: none */
    int have_response; /* the response verified, now or before it expired; the rest is valid */
    char signer[PROBE_TEXT];
    int delegate;
    int certid_digest; /* NID */
    time_t this_update, next_update, produced_at, end, revoked_at;
    int reason;
    int chain_seen; /* OpenSSL and the protocol can show the responses of `links`; else only their names are valid */
    int link_count;
    probeLink links[PROBE_MAX_CHAIN - 1]; /* from the leaf's issuer on, without a self-signed root */
} probeReport;

/* What a handshake returned. */
typedef struct probeCatch {
    int seen; /* the server sent its certificate, so a missing staple is meaningful */
    X509 *leaf;
    STACK_OF(X509) *chain; /* as the server sent it */
    STACK_OF(X509) *path;  /* the verified chain; as sent, if it does not verify */
    unsigned char *der;
    size_t len;
    int chain_seen;                            /* as in probeReport */
    unsigned char *responses[PROBE_MAX_CHAIN]; /* all responses in the order of the chain, without gaps */
    size_t response_lens[PROBE_MAX_CHAIN];
    int response_count;
    long verify_result;
    char protocol[16];
    char address[80]; /* "address port" to which a connection was made or tried */
    SSL *ssl;         /* the connection, if the handshake completed; else NULL */
    int fd;
} probeCatch;

/* ---- helpers ------------------------------------------------------------------------------------------------- */

static int64_t monoMs(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static void __attribute__((format(printf, 3, 4))) say(char *out, size_t size, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(out, size, fmt, ap);
    va_end(ap);
}

/* Returns OpenSSL's last error as text. */
static const char *opensslReason(void) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    return reason ? reason : "no reason given";
}

static void timeText(time_t t, char *out, size_t size) {
    struct tm tm;
    if (!gmtime_r(&t, &tm) || strftime(out, size, "%Y-%m-%d %H:%M:%S UTC", &tm) == 0) snprintf(out, size, "?");
}

/* Formats a duration with at most two units: 3725 becomes "1 h 2 min". Returns `out`. */
static const char *spanText(long long seconds, char *out, size_t size) {
    long long s = seconds < 0 ? -seconds : seconds;

    if (s < 120)
        snprintf(out, size, "%lld s", s);
    else if (s < 3600)
        snprintf(out, size, "%lld min %lld s", s / 60, s % 60);
    else if (s < 2 * 86400)
        snprintf(out, size, "%lld h %lld min", s / 3600, s % 3600 / 60);
    else
        snprintf(out, size, "%lld days %lld h", s / 86400, s % 86400 / 3600);
    return out;
}

/* ---- evaluating a response ------------------------------------------------------------------------------------ */

/* Fills in who signed the response: the issuer or an authorized responder. For display only; call after the engine has
 * verified the signature. */
static void describeSigner(const unsigned char *der, size_t len, const ocspIdentity *id, probeReport *r) {
    const unsigned char *p = der;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
    OCSP_BASICRESP *basic = response ? OCSP_response_get1_basic(response) : NULL;
    STACK_OF(X509) *issuer = sk_X509_new_null();
    X509 *signer = NULL;

    if (basic && issuer && sk_X509_push(issuer, id->issuer) > 0 && OCSP_resp_get0_signer(basic, &signer, issuer)) {
        ocspNameText(X509_get_subject_name(signer), r->signer, sizeof(r->signer));
        r->delegate = X509_cmp(signer, id->issuer) != 0;
    }
    sk_X509_free(issuer);
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
}

static void describeResponse(const ocspResponse *response, const ocspIdentity *id, probeReport *r) {
    r->have_response = 1;
    r->certid_digest = response->certid_digest;
    r->this_update = response->this_update;
    r->next_update = response->next_update;
    r->produced_at = response->produced_at;
    r->end = response->expires_at;
    r->revoked_at = response->revoked_at;
    r->reason = response->revocation_reason;
    describeSigner(response->der, response->len, id, r);
}

static void describeIdentity(const ocspIdentity *id, probeReport *r) {
    r->have_certificate = 1;
    ocspNameText(X509_get_subject_name(id->leaf), r->subject, sizeof(r->subject));
    ocspNameText(X509_get_issuer_name(id->leaf), r->issuer, sizeof(r->issuer));
    ocspCleanText(r->serial, sizeof(r->serial), id->serial);
    r->not_after = id->not_after;
    r->must_staple = id->must_staple;
}

/* Takes over sentence and code of a failure. */
static void reportError(probeReport *r, const ocspError *err) {
    r->error_code = err->code;
    say(r->sentence, sizeof(r->sentence), "%s", err->text);
}

static void conclude(probeReport *r, probeStatus status, int exit_status) {
    r->status = status;
    r->exit_status = exit_status;
}

/* Appends a sentence to the note. */
static void addNote(probeReport *r, const char *sentence) {
    size_t used = strlen(r->note);

    say(r->note + used, sizeof(r->note) - used, "%s%s", used ? ". " : "", sentence);
}

/* Warns about a CertID that is not SHA-1: most clients compute theirs with SHA-1. For a response that verified. */
static void judgeCertId(probeReport *r) {
    char sentence[OCSP_SENTENCE_MAX];

    if (r->certid_digest == NID_sha1) return;
    say(sentence, sizeof(sentence),
        "the CertID has %s: Java, curl, NSS and `openssl ocsp` look for SHA-1 and find no status in this response; "
        "configure the responder to answer with the CertID of the request",
        OBJ_nid2sn(r->certid_digest));
    addNote(r, sentence);
    if (r->exit_status == EXIT_GOOD) r->exit_status = EXIT_WARN;
}

/* Reports a response that verified: good or revoked, and for how long. */
static void judgeVerified(const probeOptions *options, const ocspResponse *response, probeReport *r) {
    long long left = (long long)(response->expires_at - r->now),
              life = (long long)(response->expires_at - response->this_update);
    char span[64], date[64];
    const char *reason;

    if (response->revoked) {
        timeText(response->revoked_at, date, sizeof(date));
        reason =
            response->revocation_reason >= 0 ? OCSP_crl_reason_str(response->revocation_reason) : "no reason given";
        say(r->sentence, sizeof(r->sentence), "the certificate was revoked at %s (%s)", date, reason);
        conclude(r, STATUS_REVOKED, EXIT_CRITICAL);
        return;
    }
    spanText(left, span, sizeof(span));
    timeText(response->expires_at, date, sizeof(date));
    conclude(r, STATUS_GOOD, EXIT_GOOD);
    if (response->next_update == 0) {
        long long age = (long long)(r->now - response->this_update);
        say(r->sentence, sizeof(r->sentence), "the response has no nextUpdate and is %s old",
            spanText(age, span, sizeof(span)));
        if (age > PROBE_OLD_WITHOUT_END) {
            r->exit_status = EXIT_WARN;
            addNote(r, "Java and others refuse a response without nextUpdate that is older than 15 minutes");
        }
        return;
    }
    if (left < (options->warn_is_percent ? life * options->warn / 100 : (long long)options->warn)) {
        r->exit_status = EXIT_WARN;
        say(r->sentence, sizeof(r->sentence), "expires in %s (%s): see INFO ocsp on the server for failed refreshes",
            span, date);
    } else {
        say(r->sentence, sizeof(r->sentence), "valid for another %s (until %s)", span, date);
    }
}

/* Verifies the response (may be NULL) for `id` at r->now and reports the result. */
static void judgeResponse(const probeOptions *options,
                          const ocspIdentity *id,
                          const unsigned char *der,
                          size_t len,
                          probeReport *r) {
    ocspResponse response;
    ocspError err = {.kind = OCSP_ERR_NONE};
    time_t end;

    r->bytes = len;
    if (ocspVerify((ocspBytes){der, len}, id, r->now, r->now, &response, &err)) {
        describeResponse(&response, id, r);
        judgeVerified(options, &response, r);
        judgeCertId(r);
        ocspResponseClear(&response);
        return;
    }
    conclude(r, STATUS_INVALID, EXIT_CRITICAL);
    reportError(r, &err);
    /* Distinguish an expired response from a wrong one, since the remedies differ: was it valid before nextUpdate? */
    end = ocspPeekNextUpdate(der, len);
    if (end > 0 && end <= r->now && ocspVerify((ocspBytes){der, len}, id, end - 1, end - 1, &response, NULL)) {
        describeResponse(&response, id, r);
        conclude(r, STATUS_EXPIRED, EXIT_CRITICAL);
        ocspResponseClear(&response);
    }
}

/* ---- the chain ------------------------------------------------------------------------------------------------ */

/* Copies the responses for all certificates of the chain, where OpenSSL has them (RFC 8446 section 4.4.2.1). */
static void catchChain(SSL *ssl, probeCatch *caught) {
    STACK_OF(X509) *path = SSL_get_verify_result(ssl) == X509_V_OK ? SSL_get0_verified_chain(ssl) : NULL;
    int i, count = ocspChainReceived(ssl);

    if (caught->path) return;
    if (!path) path = SSL_get_peer_cert_chain(ssl);
    if (path) caught->path = X509_chain_up_ref(path);
    caught->chain_seen = ocspChainSupported() && SSL_version(ssl) >= TLS1_3_VERSION;
    for (i = 0; i < count && i < PROBE_MAX_CHAIN; i++) {
        int at = caught->response_count;
        if (!ocspChainResponse(ssl, i, &caught->responses[at], &caught->response_lens[at])) break;
        caught->response_count += caught->responses[at] != NULL;
    }
}

/* Verifies a response for one certificate of the chain. Several may match: revoked counts before good, and any before one
 * that is not valid. Returns 1 if the response is valid for the certificate, or was before it expired. */
static int judgeLink(ocspBytes der, const ocspIdentity *id, time_t now, probeLink *link) {
    ocspResponse response;
    ocspError err = {.kind = OCSP_ERR_NONE};
    probeStatus status;

    if (ocspVerify(der, id, now, now, &response, &err))
        status = response.revoked ? STATUS_REVOKED : STATUS_GOOD;
    else if (err.no_matching_certid || !id->issuer) /* about another certificate, or nobody can tell */
        return 0;
    else
        status = err.expired ? STATUS_EXPIRED : STATUS_INVALID;
    if (status == STATUS_REVOKED || status > link->status) {
        link->status = status;
        link->error_code = err.code;
        link->end = response.expires_at;
        link->revoked_at = response.revoked_at;
    }
    ocspResponseClear(&response);
    return status != STATUS_INVALID;
}

/* Fills r->links. Returns 1 if the first response in the handshake is for one of them: OpenSSL shows it as the server's
 * staple then, as the server sent none for its own certificate. */
static int examineChain(const probeCatch *caught, X509_STORE *store, probeReport *r) {
    int i, j, first_is_a_link = 0;

    r->chain_seen = caught->chain_seen;
    for (i = 1; i < sk_X509_num(caught->path) && i < PROBE_MAX_CHAIN; i++) {
        ocspIdentity *id = ocspIdentityNew(sk_X509_value(caught->path, i), caught->chain, store);
        if (id && !id->self_signed) {
            probeLink *link = &r->links[r->link_count++];
            link->status = STATUS_NONE;
            ocspNameText(X509_get_subject_name(id->leaf), link->subject, sizeof(link->subject));
            ocspCleanText(link->serial, sizeof(link->serial), id->serial);
            for (j = 0; j < caught->response_count; j++)
                if (judgeLink((ocspBytes){caught->responses[j], caught->response_lens[j]}, id, r->now, link) && j == 0)
                    first_is_a_link = 1;
        }
        ocspIdentityFree(id);
    }
    return first_is_a_link;
}

static int countLinks(const probeReport *r, probeStatus status) {
    int i, count = 0;

    for (i = 0; i < r->link_count; i++) count += r->links[i].status == status;
    return count;
}

/* A revoked CA is critical: whoever has its key can issue certificates in the server's name. A CA without a response is no
 * fault, as most servers staple none. */
static void concludeChain(probeReport *r) {
    char sentence[OCSP_SENTENCE_MAX], date[64];
    int i;

    for (i = 0; i < r->link_count; i++) {
        if (r->links[i].status != STATUS_REVOKED) continue;
        timeText(r->links[i].revoked_at, date, sizeof(date));
        say(sentence, sizeof(sentence),
            "the certificate %s of a CA in the chain was revoked at %s: replace the server's certificate by one of "
            "another CA",
            r->links[i].serial, date);
        addNote(r, sentence);
        r->exit_status = nodesWorseStatus(r->exit_status, EXIT_CRITICAL);
    }
}

/* ---- a server ------------------------------------------------------------------------------------------------- */

/* Copies the server's certificate, chain and staples. Runs as OpenSSL's status callback, because with TLS 1.2 a server
 * that requires a client certificate aborts the handshake right afterwards. */
static int catchStaple(SSL *ssl, void *arg) {
    probeCatch *caught = arg;
    const unsigned char *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);

    caught->seen = 1;
    if (!caught->leaf) caught->leaf = SSL_get1_peer_certificate(ssl);
    if (!caught->chain && SSL_get_peer_cert_chain(ssl)) caught->chain = X509_chain_up_ref(SSL_get_peer_cert_chain(ssl));
    catchChain(ssl, caught);
    caught->verify_result = SSL_get_verify_result(ssl);
    snprintf(caught->protocol, sizeof(caught->protocol), "%s", SSL_get_version(ssl));
    if (der && len > 0 && !caught->der) {
        caught->der = ocspMemdup(der, (size_t)len);
        caught->len = caught->der ? (size_t)len : 0;
    }
    return 1; /* continue in any case: the staple is verified later */
}

/* Splits "host:port", "[::1]:port", "host" or "::1". Returns 0 if `target` is none of these. */
static int splitTarget(const char *target, char *host, size_t host_size, char *port, size_t port_size) {
    const char *colon = strrchr(target, ':'), *end;

    if (target[0] == '[') {
        end = strchr(target, ']');
        if (!end || (end[1] != '\0' && end[1] != ':')) return 0;
        snprintf(host, host_size, "%.*s", (int)(end - target - 1), target + 1);
        snprintf(port, port_size, "%s", end[1] ? end + 2 : PROBE_DEFAULT_PORT);
    } else if (!colon || strchr(target, ':') != colon) { /* name without a port, or IPv6 address without brackets */
        snprintf(host, host_size, "%s", target);
        snprintf(port, port_size, "%s", PROBE_DEFAULT_PORT);
    } else {
        snprintf(host, host_size, "%.*s", (int)(colon - target), target);
        snprintf(port, port_size, "%s", colon + 1);
    }
    return host[0] && port[0] && strspn(port, "0123456789") == strlen(port);
}

static int waitFor(int fd, short events, int64_t deadline) {
    struct pollfd pfd = {.fd = fd, .events = events};
    int64_t left;
    int n;

    do {
        left = deadline - monoMs();
        n = left > 0 ? poll(&pfd, 1, (int)left) : 0;
    } while (n < 0 && errno == EINTR);
    return n > 0;
}

static void addressText(const struct addrinfo *a, char *out, size_t size) {
    char host[48] = "", port[8] = "";

    getnameinfo(a->ai_addr, a->ai_addrlen, host, sizeof(host), port, sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
    snprintf(out, size, "%s %s", host, port);
}

/* Returns a connected, non-blocking socket, or -1 with a sentence in *err. `address` receives the address connected to,
 * or else the first one tried. */
static int connectTo(const char *host,
                     const char *port,
                     int64_t deadline,
                     char *address,
                     size_t address_size,
                     ocspError *err) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *list = NULL, *a;
    int fd = -1, rc = getaddrinfo(host, port, &hints, &list);

    if (rc != 0) {
        ocspFail(err, OCSP_FAIL_DNS, "cannot resolve %s: %s", host, gai_strerror(rc));
        return -1;
    }
    ocspFail(err, OCSP_FAIL_CONNECT, "cannot connect to %s port %s", host, port);
    addressText(list, address, address_size);
    for (a = list; a && fd < 0; a = a->ai_next) {
        int error = 0;
        socklen_t len = sizeof(error);
        fd = socket(a->ai_family, a->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0) continue;
        error = connect(fd, a->ai_addr, a->ai_addrlen) == 0 ? 0 : errno;
        if (error == EINPROGRESS) {
            error = ETIMEDOUT;
            if (waitFor(fd, POLLOUT, deadline)) getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
        }
        if (error == 0) {
            addressText(a, address, address_size);
            continue;
        }
        ocspFail(err, error == ETIMEDOUT ? OCSP_FAIL_TIMEOUT : OCSP_FAIL_CONNECT, "cannot connect to %s port %s: %s",
                 host, port, strerror(error));
        close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

/* Performs the handshake until the deadline. Returns 1 if it completed, or 0 with a sentence in *err. */
static int shakeHands(SSL *ssl, int fd, int64_t deadline, ocspError *err) {
    for (;;) {
        int rc, error, saved;
        ERR_clear_error();
        rc = SSL_connect(ssl);
        saved = errno;
        if (rc == 1) return 1;
        error = SSL_get_error(ssl, rc);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
            if (waitFor(fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, deadline)) continue;
            return ocspFail(err, OCSP_FAIL_TIMEOUT,
                            "the handshake timed out: check that this is a TLS port (see also --timeout)");
        }
        if (error == SSL_ERROR_SYSCALL)
            return ocspFail(err, OCSP_FAIL_TLS, "the server closed the connection during the handshake (%s)",
                            saved ? strerror(saved) : "closed");
        return ocspFail(err, OCSP_FAIL_TLS, "the handshake failed: %s", opensslReason());
    }
}

/* Creates a client context from the options; NULL with a sentence in *err. */
static SSL_CTX *makeContext(const probeOptions *options, ocspError *err) {
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    const char *what = NULL, *file = "";

    ERR_clear_error();
    if (!ctx) {
        what = "OpenSSL cannot create a context";
    } else if (!options->cafile && !options->capath) {
        if (!SSL_CTX_set_default_verify_paths(ctx)) what = "cannot read the system's trusted certificates";
    } else {
        file = options->cafile ? options->cafile : options->capath;
        if ((options->cafile && !SSL_CTX_load_verify_file(ctx, options->cafile)) ||
            (options->capath && !SSL_CTX_load_verify_dir(ctx, options->capath)))
            what = "cannot read trusted certificates from";
    }
    if (!what && options->cert) {
        file = options->cert;
        if (SSL_CTX_use_certificate_chain_file(ctx, file) != 1) {
            what = "cannot read a client certificate from";
        } else {
            file = options->key ? options->key : options->cert;
            if (SSL_CTX_use_PrivateKey_file(ctx, file, SSL_FILETYPE_PEM) != 1)
                what = "cannot read a matching private key from";
        }
    }
    if (!what && options->sigalgs && SSL_CTX_set1_sigalgs_list(ctx, options->sigalgs) != 1) {
        what = "OpenSSL rejects the --sigalgs list";
        file = options->sigalgs;
    }
    if (what) {
        ocspFail(err, OCSP_FAIL_FILE, "%s %s: %s", what, file, opensslReason());
        SSL_CTX_free(ctx);
        return NULL;
    }
    if (options->tls_version) {
        SSL_CTX_set_min_proto_version(ctx, options->tls_version);
        SSL_CTX_set_max_proto_version(ctx, options->tls_version);
    }
    SSL_CTX_set_verify(ctx, SSL_VERIFY_NONE, NULL);          /* the result is evaluated later, with the staple */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF); /* a resumed session carries no staple */
    /* Trust any certificate in --cafile, also an intermediate without its root: a staple needs only the issuer. */
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_tlsext_status_type(ctx, TLSEXT_STATUSTYPE_ocsp);
    SSL_CTX_set_tlsext_status_cb(ctx, catchStaple);
    return ctx;
}

static int isAddress(const char *host) {
    unsigned char buffer[16];
    return inet_pton(AF_INET, host, buffer) == 1 || inet_pton(AF_INET6, host, buffer) == 1;
}

/* Connects, performs the handshake and fills `caught`. On failure *err has a sentence, even if `caught` is complete. Call
 * hangUp in any case. */
static void catchFrom(const probeOptions *options,
                      SSL_CTX *ctx,
                      const char *host,
                      const char *port,
                      probeCatch *caught,
                      ocspError *err) {
    int64_t deadline = monoMs() + (int64_t)options->timeout * 1000;
    const char *name = options->servername ? options->servername : host;
    SSL *ssl = NULL;

    caught->fd = connectTo(host, port, deadline, caught->address, sizeof(caught->address), err);
    if (caught->fd < 0) return;
    ocspFail(err, OCSP_FAIL_NONE, "%s", "");
    SSL_CTX_set_tlsext_status_arg(ctx, caught);
    ssl = SSL_new(ctx);
    if (!ssl || !SSL_set_fd(ssl, caught->fd) ||
        ((options->servername || !isAddress(name)) && !SSL_set_tlsext_host_name(ssl, name))) {
        ocspFail(err, OCSP_FAIL_TLS, "OpenSSL cannot create a connection: %s", opensslReason());
    } else if (shakeHands(ssl, caught->fd, deadline, err)) {
        /* With TLS 1.3 a server that requires a client certificate reports that only after it sent the staple. */
        catchStaple(ssl, caught);
        caught->ssl = ssl;
        return;
    }
    SSL_free(ssl);
}

static void hangUp(probeCatch *caught) {
    int i;

    if (caught->ssl) {
        ERR_clear_error();
        SSL_shutdown(caught->ssl);
        SSL_free(caught->ssl);
    }
    if (caught->fd >= 0) close(caught->fd);
    X509_free(caught->leaf);
    sk_X509_pop_free(caught->chain, X509_free);
    sk_X509_pop_free(caught->path, X509_free);
    for (i = 0; i < caught->response_count; i++) OPENSSL_free(caught->responses[i]);
    ocspFree(caught->der);
}

/* ---- a server's nodes (--all-nodes) --------------------------------------------------------------------------- */

/* The connection as ocsp-nodes.c uses it. */
typedef struct probeTalk {
    SSL *ssl;
    int fd;
    int64_t deadline;
} probeTalk;

/* Returns 1 if the operation that returned `rc` is to be repeated, or 0 with a sentence in *err. */
static int talkAgain(probeTalk *talk, int rc, ocspError *err) {
    int error = SSL_get_error(talk->ssl, rc);

    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        if (waitFor(talk->fd, error == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, talk->deadline)) return 1;
        return ocspFail(err, OCSP_FAIL_TIMEOUT, "the server did not answer in time (see --timeout)");
    }
    if (error == SSL_ERROR_SSL) return ocspFail(err, OCSP_FAIL_TLS, "the connection failed: %s", opensslReason());
    return ocspFail(err, OCSP_FAIL_CLOSED, "the server closed the connection");
}

static int talkRead(void *arg, char *buf, size_t size, ocspError *err) {
    probeTalk *talk = arg;
    int n;

    do {
        ERR_clear_error();
        n = SSL_read(talk->ssl, buf, (int)size);
    } while (n <= 0 && talkAgain(talk, n, err));
    return n > 0 ? n : -1;
}

static int talkWrite(void *arg, const char *bytes, size_t len, ocspError *err) {
    probeTalk *talk = arg;
    int n;

    do {
        ERR_clear_error();
        n = SSL_write(talk->ssl, bytes, (int)len);
    } while (n <= 0 && talkAgain(talk, n, err));
    return n > 0 ? n : -1;
}

/* Asks the server at `host`, with which `caught` has a connection, for its nodes. A server that is not known to be genuine
 * gets no password. What is missing becomes a note, and the exit status at least "unknown". */
static void askNodes(const probeOptions *options,
                     const char *host,
                     const probeCatch *caught,
                     nodesList *list,
                     probeReport *r) {
    probeTalk talk = {caught->ssl, caught->fd, monoMs() + (int64_t)options->timeout * 1000};
    const nodesIo io = {talkRead, talkWrite, &talk};
    const nodesQuery query = {host, options->user, options->password};
    char note[OCSP_SENTENCE_MAX];
    ocspError err = {.code = OCSP_FAIL_NONE};
    int ok, revoked = r->status == STATUS_REVOKED || countLinks(r, STATUS_REVOKED) > 0;

    r->asked = 1;
    if (!caught->ssl) {
        ok = ocspFail(&err, OCSP_FAIL_TLS, "no connection");
    } else if (options->password && (caught->verify_result != X509_V_OK || revoked)) {
        ok = ocspFail(&err, OCSP_FAIL_TLS, "no password is sent to a server whose certificate %s",
                      revoked ? "is revoked" : "does not verify");
    } else {
        ok = nodesAsk(&io, &query, list, &err);
    }
    r->nodes = ok ? list->count : -1;
    if (ok || r->status == STATUS_UNREACHABLE) return;
    say(note, sizeof(note), "%s of its nodes are unknown: %.400s", list->count ? "some" : "all", err.text);
    addNote(r, note);
    r->exit_status = nodesWorseStatus(r->exit_status, EXIT_COULD_NOT_TELL);
}

/* Probes one server. `list` (may be NULL): asks it for its nodes, too. `address` receives where it was. */
static void probeServer(const probeOptions *options,
                        SSL_CTX *ctx,
                        const char *target,
                        nodesList *list,
                        char *address,
                        size_t address_size,
                        probeReport *r) {
    char host[256], port[16];
    ocspError err = {.code = OCSP_FAIL_NONE};
    probeCatch caught = {.fd = -1};
    ocspIdentity *id = NULL;
    int only_links;

    address[0] = '\0';
    if (!splitTarget(target, host, sizeof(host), port, sizeof(port))) {
        say(r->sentence, sizeof(r->sentence), "invalid server: write HOST:PORT, 192.0.2.1:6379 or [2001:db8::1]:6379");
        return;
    }
    catchFrom(options, ctx, host, port, &caught, &err);
    r->now = time(NULL);
    if (caught.leaf) id = ocspIdentityNew(caught.leaf, caught.chain, SSL_CTX_get_cert_store(ctx));

    if (!caught.seen || !id) {
        if (!err.text[0]) ocspFail(&err, OCSP_FAIL_TLS, "the server sent no certificate");
        reportError(r, &err);
        goto done;
    }
    describeIdentity(id, r);
    snprintf(r->protocol, sizeof(r->protocol), "%s", caught.protocol);
    if (err.text[0])
        say(r->note, sizeof(r->note),
            "%.400s, after the server had sent its certificate: it may require a client certificate (--cert)",
            err.text);
    only_links = examineChain(&caught, SSL_CTX_get_cert_store(ctx), r);
    if (!caught.der || only_links) {
        conclude(r, STATUS_NONE, EXIT_CRITICAL);
        say(r->sentence, sizeof(r->sentence), "the server sent no staple%s%s",
            only_links ? " for its own certificate, only for a CA above it" : "",
            id->must_staple ? ", but its certificate is must-staple: strict clients refuse to connect" : "");
        goto done;
    }
    judgeResponse(options, id, caught.der, caught.len, r);
    if (!id->issuer) {
        say(r->sentence, sizeof(r->sentence),
            "the issuer of the certificate is neither in the chain that the server sent "
            "nor in --cafile: add it to one of them");
    } else if (caught.verify_result != X509_V_OK) {
        conclude(r, STATUS_INVALID, EXIT_CRITICAL);
        r->error_code = OCSP_FAIL_TLS;
        say(r->sentence, sizeof(r->sentence), "the certificate does not verify against %s: %s",
            options->cafile || options->capath ? "the given trusted certificates" : "the system's roots (see --cafile)",
            X509_verify_cert_error_string(caught.verify_result));
    }
done:
    concludeChain(r);
    if (list) askNodes(options, host, &caught, list, r);
    say(address, address_size, "%s", caught.address);
    ocspIdentityFree(id);
    hangUp(&caught);
}

/* ---- a responder (--ask) -------------------------------------------------------------------------------------- */

/* Returns the certificates of a PEM file in file order; NULL if there is none. */
static STACK_OF(X509) *readCertificates(const char *file) {
    STACK_OF(X509) *certs = sk_X509_new_null();
    BIO *in = BIO_new_file(file, "r");
    X509 *cert;

    while (in && certs && (cert = PEM_read_bio_X509(in, NULL, NULL, NULL)) != NULL) sk_X509_push(certs, cert);
    BIO_free(in);
    ERR_clear_error();
    if (sk_X509_num(certs) > 0) return certs;
    sk_X509_free(certs);
    return NULL;
}

/* Returns the trusted certificates, which are also searched for the issuer; NULL when out of memory. */
static X509_STORE *trustStore(const probeOptions *options) {
    X509_STORE *store = X509_STORE_new();

    if (!store) return NULL;
    if (options->cafile) X509_STORE_load_file(store, options->cafile);
    if (options->capath) X509_STORE_load_path(store, options->capath);
    if (!options->cafile && !options->capath) X509_STORE_set_default_paths(store);
    ERR_clear_error();
    return store;
}

static int saveResponse(const char *file, const unsigned char *der, size_t len) {
    FILE *f = fopen(file, "wb");
    int ok = f && fwrite(der, 1, len, f) == len;

    if (f && fclose(f) != 0) ok = 0;
    if (!ok) fprintf(stderr, "ocsp-probe: cannot save the response to %s: %s\n", file, strerror(errno));
    return ok;
}

/* Replaces a file atomically with the response, for a server that may read it at any time (response-file). Returns 0
 * after an error message; the file is as before then. */
static int replaceResponse(const char *file, const unsigned char *der, size_t len) {
    char temporary[4096];

    if (snprintf(temporary, sizeof(temporary), "%s.%ld.tmp", file, (long)getpid()) >= (int)sizeof(temporary)) {
        fprintf(stderr, "ocsp-probe: cannot replace %s: %s\n", file, strerror(ENAMETOOLONG));
        return 0;
    }
    if (saveResponse(temporary, der, len)) {
        if (rename(temporary, file) == 0) return 1;
        fprintf(stderr, "ocsp-probe: cannot replace %s: %s\n", file, strerror(errno));
    }
    unlink(temporary);
    return 0;
}

/* Prints the response with OpenSSL, which escapes the untrusted strings in names. */
static void printText(const unsigned char *der, size_t len) {
    const unsigned char *p = der;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long)len);
    BIO *out = BIO_new_fp(stdout, BIO_NOCLOSE);

    if (response && out)
        OCSP_RESPONSE_print(out, response, 0);
    else
        printf("(%zu bytes that are not an OCSP response)\n", len);
    BIO_free(out);
    OCSP_RESPONSE_free(response);
}

/* Queries one URL. Returns 1 if its response verified. */
static int askUrl(const probeOptions *options, const ocspIdentity *id, const char *url, probeReport *r) {
    ocspIoHooks wait = {.wake_fd = -1};
    ocspError err = {.kind = OCSP_ERR_NONE};
    unsigned char *body = NULL;
    size_t len = 0;
    int verified;
    int64_t began = monoMs();
    ocspExchange exchange = {url,   id->request, id->request_len, id->store, (int64_t)options->timeout * 1000,
                             &wait, NULL};
    ocspFetchResult result = ocspFetch(&exchange, &body, &len, &err);

    r->error_code = OCSP_FAIL_NONE; /* that of the URL before */
    r->fetch_ms = (long long)(monoMs() - began);
    r->now = time(NULL);
    ocspCleanText(r->url, sizeof(r->url), url);
    if (result != OCSP_FETCH_OK) {
        conclude(r, STATUS_UNREACHABLE, EXIT_COULD_NOT_TELL);
        reportError(r, &err);
        return 0;
    }
    judgeResponse(options, id, body ? body : (const unsigned char *)"", len, r);
    if (options->text && body) printText(body, len);
    if (options->save && body && !saveResponse(options->save, body, len)) r->exit_status = EXIT_COULD_NOT_TELL;
    verified = r->have_response && r->status != STATUS_EXPIRED;
    /* Also if it is revoked: a server that staples the file must not go on showing good. */
    if (options->replace && verified && !replaceResponse(options->replace, body, len))
        r->exit_status = EXIT_COULD_NOT_TELL;
    ocspFree(body);
    return verified;
}

static void probeResponder(const probeOptions *options, probeReport *r) {
    STACK_OF(X509) *certs = readCertificates(options->ask);
    STACK_OF(X509) *more = options->issuer ? readCertificates(options->issuer) : NULL;
    X509_STORE *store = trustStore(options);
    ocspIdentity *id = NULL;
    int i, count;

    ocspCleanText(r->target, sizeof(r->target), options->ask);
    r->now = time(NULL);
    conclude(r, STATUS_UNREACHABLE, EXIT_COULD_NOT_TELL);
    if (!certs || (options->issuer && !more)) {
        r->error_code = OCSP_FAIL_FILE;
        say(r->sentence, sizeof(r->sentence), "cannot read a PEM certificate from %s",
            certs ? options->issuer : options->ask);
        goto done;
    }
    while (more && sk_X509_num(more) > 0) sk_X509_push(certs, sk_X509_shift(more));
    id = ocspIdentityNew(sk_X509_value(certs, 0), certs, store);
    if (!id) {
        r->error_code = OCSP_FAIL_MEMORY;
        say(r->sentence, sizeof(r->sentence), "out of memory");
        goto done;
    }
    describeIdentity(id, r);
    if (!id->issuer) {
        if (!id->self_signed) r->error_code = OCSP_FAIL_SIGNER;
        say(r->sentence, sizeof(r->sentence),
            id->self_signed ? "the certificate is self-signed: no CA can report its status"
                            : "the issuer is not in the file: name it with --issuer or --cafile");
        goto done;
    }
    count = options->url_count ? options->url_count : id->url_count;
    if (count == 0)
        say(r->sentence, sizeof(r->sentence),
            "the certificate names no OCSP responder: name one with --url (on the server: "
            "responder-url)");
    for (i = 0; i < count; i++) {
        if (askUrl(options, id, options->url_count ? options->urls[i] : id->urls[i], r)) break;
        if (i + 1 < count && !options->quiet)
            fprintf(stderr, "ocsp-probe: %s: %s; trying the next URL\n", r->url, r->sentence);
    }
done:
    ocspIdentityFree(id);
    X509_STORE_free(store);
    sk_X509_pop_free(certs, X509_free);
    sk_X509_pop_free(more, X509_free);
}

/* ---- printing ------------------------------------------------------------------------------------------------- */

static void printDate(FILE *out, const char *label, time_t t, time_t now) {
    char date[64], span[64];

    timeText(t, date, sizeof(date));
    spanText((long long)(t - now), span, sizeof(span));
    fprintf(out, t <= now ? "  %-12s %s (%s ago)\n" : "  %-12s %s (in %s)\n", label, date, span);
}

/* Prints the intermediate certificates, one line each; or in one line why nothing is known of them. */
static void printLinks(FILE *out, const probeReport *r) {
    char date[64], span[64];
    int i;

    if (r->link_count > 0 && !r->chain_seen) fprintf(out, "  %-12s ", "chain");
    for (i = 0; i < r->link_count; i++) {
        const probeLink *link = &r->links[i];
        if (!r->chain_seen) {
            fprintf(out, "%s%s", i ? "; " : "", link->subject);
            continue;
        }
        fprintf(out, "  %-12s %s (serial %s): ", "intermediate", link->subject, link->serial);
        if (link->status == STATUS_NONE)
            fputs("no staple\n", out);
        else if (link->error_code != OCSP_FAIL_NONE)
            fprintf(out, "%s (%s)\n", status_words[link->status], ocspErrorWord(link->error_code));
        else {
            timeText(link->end, date, sizeof(date));
            fprintf(out, "%s, valid until %s (in %s)\n", status_words[link->status], date,
                    spanText((long long)(link->end - r->now), span, sizeof(span)));
        }
    }
    if (r->link_count == 0 || r->chain_seen) return;
    if (ocspChainSupported())
        fprintf(out, " (%s has no staples for them)\n", r->protocol);
    else
        fprintf(out, " (OpenSSL %s cannot show their staples: 3.6 or later is required)\n",
                OpenSSL_version(OPENSSL_VERSION_STRING));
}

static void printPeople(FILE *out, const probeOptions *options, const probeReport *r) {
    const char *grade = r->exit_status == EXIT_WARN                                   ? " (warning)"
                        : r->status == STATUS_GOOD && r->exit_status == EXIT_CRITICAL ? " (critical)"
                                                                                      : "";

    fprintf(out, "%s: %s%s: %s", r->target, status_words[r->status], grade, r->sentence);
    if (options->all_nodes) {
        fprintf(out, r->note[0] ? ". %s\n" : "\n", r->note);
        return;
    }
    fputc('\n', out);
    if (r->note[0]) fprintf(out, "  %-12s %s\n", "note", r->note);
    if (r->url[0]) fprintf(out, "  %-12s %s (%lld ms)\n", "responder", r->url, r->fetch_ms);
    if (r->have_certificate) {
        fprintf(out, "  %-12s %s%s\n", "certificate", r->subject, r->must_staple ? " (must-staple)" : "");
        fprintf(out, "  %-12s %s\n", "serial", r->serial);
        fprintf(out, "  %-12s %s\n", "issuer", r->issuer);
    }
    if (r->have_response) {
        printDate(out, "this update", r->this_update, r->now);
        if (r->next_update)
            printDate(out, "next update", r->next_update, r->now);
        else
            fprintf(out, "  %-12s %s\n", "next update", "not given");
        printDate(out, "produced at", r->produced_at, r->now);
        if (r->next_update && r->end != r->next_update) printDate(out, "expires", r->end, r->now);
        fprintf(out, "  %-12s %s (%s)\n", "signed by", r->signer,
                r->delegate ? "an authorized responder" : "the issuer");
        fprintf(out, "  %-12s %s\n", "certid", OBJ_nid2sn(r->certid_digest));
    }
    if (r->bytes) fprintf(out, "  %-12s %zu bytes\n", "response", r->bytes);
    printLinks(out, r);
    if (r->protocol[0]) fprintf(out, "  %-12s %s\n", "protocol", r->protocol);
}

/* Prints a quoted string for JSON or a Prometheus label. Both escape quote and backslash; ocspCleanText has removed
 * everything else that needs escaping. */
static void printQuoted(FILE *out, const char *text) {
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') fputc('\\', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void jsonText(FILE *out, const char *name, const char *value) {
    fprintf(out, ", \"%s\": ", name);
    printQuoted(out, value);
}

static void jsonNumber(FILE *out, const char *name, long long value) {
    fprintf(out, ", \"%s\": %lld", name, value);
}

static void jsonLinks(FILE *out, const probeReport *r) {
    int i;

    fputs(", \"chain\": [", out);
    for (i = 0; i < r->link_count; i++) {
        const probeLink *link = &r->links[i];
        fputs(i ? ", {\"subject\": " : "{\"subject\": ", out);
        printQuoted(out, link->subject);
        jsonText(out, "serial", link->serial);
        jsonText(out, "status", status_words[link->status]);
        if (*ocspErrorWord(link->error_code)) jsonText(out, "error_code", ocspErrorWord(link->error_code));
        if (link->end) jsonNumber(out, "end", (long long)link->end);
        if (link->revoked_at) jsonNumber(out, "revoked_at", (long long)link->revoked_at);
        fputc('}', out);
    }
    fputc(']', out);
}

/* Prints one JSON object per line. Unknown fields are omitted; times are Unix seconds. */
static void printJson(FILE *out, const probeReport *r) {
    fputs("{\"target\": ", out);
    printQuoted(out, r->target);
    jsonText(out, "status", status_words[r->status]);
    jsonNumber(out, "exit", r->exit_status);
    if (*ocspErrorWord(r->error_code)) jsonText(out, "error_code", ocspErrorWord(r->error_code));
    jsonText(out, "sentence", r->sentence);
    if (r->note[0]) jsonText(out, "note", r->note);
    jsonNumber(out, "time", (long long)r->now);
    if (r->url[0]) {
        jsonText(out, "responder_url", r->url);
        jsonNumber(out, "fetch_ms", r->fetch_ms);
    }
    if (r->protocol[0]) jsonText(out, "protocol", r->protocol);
    if (r->have_certificate) {
        jsonText(out, "subject", r->subject);
        jsonText(out, "issuer", r->issuer);
        jsonText(out, "serial", r->serial);
        jsonNumber(out, "not_after", (long long)r->not_after);
        jsonNumber(out, "must_staple", r->must_staple);
    }
    if (r->asked && r->nodes >= 0) jsonNumber(out, "nodes", r->nodes);
    jsonNumber(out, "response_bytes", (long long)r->bytes);
    if (r->have_response) {
        jsonNumber(out, "this_update", (long long)r->this_update);
        jsonNumber(out, "next_update", (long long)r->next_update);
        jsonNumber(out, "produced_at", (long long)r->produced_at);
        jsonNumber(out, "end", (long long)r->end);
        jsonNumber(out, "age_seconds", (long long)(r->now - r->this_update));
        jsonNumber(out, "expires_in_seconds", (long long)(r->end - r->now));
        jsonText(out, "signer", r->signer);
        jsonNumber(out, "signer_is_delegate", r->delegate);
        jsonText(out, "certid_digest", OBJ_nid2sn(r->certid_digest));
        if (r->revoked_at) {
            jsonNumber(out, "revoked_at", (long long)r->revoked_at);
            jsonText(out, "reason", r->reason >= 0 ? OCSP_crl_reason_str(r->reason) : "");
        }
    }
    if (r->chain_seen) jsonLinks(out, r);
    fputs("}\n", out);
}

/* A metric. `known` returns 0 for reports without a value, so that an alert never sees a made-up zero. */
typedef struct probeMetric {
    const char *name, *help;
    int (*known)(const probeReport *r);
    long long (*value)(const probeReport *r);
} probeMetric;

static int always(const probeReport *r) {
    (void)r;
    return 1;
}
static int wasReached(const probeReport *r) {
    return r->status != STATUS_UNREACHABLE;
}
static int hasCertificate(const probeReport *r) {
    return r->have_certificate;
}
static int hasResponse(const probeReport *r) {
    return r->have_response;
}
static int wasAsked(const probeReport *r) {
    return r->asked;
}
static int hasChain(const probeReport *r) {
    return r->chain_seen;
}
static int hasNextUpdate(const probeReport *r) {
    return r->have_response && r->next_update;
}
static long long valueUp(const probeReport *r) {
    return r->status != STATUS_UNREACHABLE;
}
static long long valueExit(const probeReport *r) {
    return r->exit_status;
}
static long long valueGood(const probeReport *r) {
    return r->status == STATUS_GOOD;
}
static long long valueStapled(const probeReport *r) {
    return r->bytes > 0;
}
static long long valueRevoked(const probeReport *r) {
    return r->status == STATUS_REVOKED;
}
static long long valueCertIdSha1(const probeReport *r) {
    return r->certid_digest == NID_sha1;
}
static long long valueThisUpdate(const probeReport *r) {
    return (long long)r->this_update;
}
static long long valueNextUpdate(const probeReport *r) {
    return (long long)r->next_update;
}
static long long valueProducedAt(const probeReport *r) {
    return (long long)r->produced_at;
}
static long long valueEnd(const probeReport *r) {
    return (long long)r->end;
}
static long long valueNotAfter(const probeReport *r) {
    return (long long)r->not_after;
}
static long long valueMustStaple(const probeReport *r) {
    return r->must_staple;
}
static long long valueBytes(const probeReport *r) {
    return (long long)r->bytes;
}
static long long valueLinks(const probeReport *r) {
    return r->link_count;
}
static long long valueLinksGood(const probeReport *r) {
    return countLinks(r, STATUS_GOOD);
}
static long long valueLinksRevoked(const probeReport *r) {
    return countLinks(r, STATUS_REVOKED);
}
static long long valueNodesKnown(const probeReport *r) {
    return r->nodes >= 0;
}
static long long valueTime(const probeReport *r) {
    return (long long)r->now;
}

static const probeMetric metrics[] = {
    {"ocsp_probe_up", "1 if a status could be requested, 0 if not (connect, handshake, usage)", always, valueUp},
    {"ocsp_probe_exit_status", "0 good, 1 good with a warning, 2 critical, 3 unknown", always, valueExit},
    {"ocsp_probe_time_seconds", "when the target was probed (Unix time)", always, valueTime},
    {"ocsp_probe_stapled", "1 if an OCSP response was received, valid or not", wasReached, valueStapled},
    {"ocsp_probe_good", "1 if the response is valid and the status is good", wasReached, valueGood},
    {"ocsp_probe_revoked", "1 if the response is valid and the status is revoked", wasReached, valueRevoked},
    {"ocsp_probe_response_bytes", "size of the response", wasReached, valueBytes},
    {"ocsp_probe_this_update_seconds", "thisUpdate (Unix time)", hasResponse, valueThisUpdate},
    {"ocsp_probe_next_update_seconds", "nextUpdate (Unix time); absent if not given", hasNextUpdate, valueNextUpdate},
    {"ocsp_probe_produced_at_seconds", "producedAt (Unix time)", hasResponse, valueProducedAt},
    {"ocsp_probe_end_seconds",
     "expiry of the response: the earliest of nextUpdate and both certificates' notAfter (Unix time)", hasNextUpdate,
     valueEnd},
    {"ocsp_probe_certid_sha1", "1 if the CertID is SHA-1, which most clients look for, 0 if not", hasResponse,
     valueCertIdSha1},
    {"ocsp_probe_certificate_not_after_seconds", "notAfter of the certificate (Unix time)", hasCertificate,
     valueNotAfter},
    {"ocsp_probe_must_staple", "1 if the certificate is must-staple", hasCertificate, valueMustStaple},
    {"ocsp_probe_chain_certificates",
     "intermediate certificates in the chain; absent if their responses cannot be shown (OpenSSL before 3.6, TLS 1.2)",
     hasChain, valueLinks},
    {"ocsp_probe_chain_good", "how many of them have a valid response with the status good", hasChain, valueLinksGood},
    {"ocsp_probe_chain_revoked", "how many of them have a valid response with the status revoked", hasChain,
     valueLinksRevoked},
    {"ocsp_probe_nodes_known", "1 if the server named all nodes that it knows, 0 if not; absent if it was not asked",
     wasAsked, valueNodesKnown},
};

static void printPrometheus(FILE *out, const probeReport *reports, int count) {
    size_t m;
    int i;

    for (m = 0; m < sizeof(metrics) / sizeof(metrics[0]); m++) {
        fprintf(out, "# HELP %s %s\n# TYPE %s gauge\n", metrics[m].name, metrics[m].help, metrics[m].name);
        for (i = 0; i < count; i++) {
            if (!metrics[m].known(&reports[i])) continue;
            fprintf(out, "%s{target=", metrics[m].name);
            printQuoted(out, reports[i].target);
            fprintf(out, "} %lld\n", metrics[m].value(&reports[i]));
        }
    }
    fputs("# HELP ocsp_probe_error 1, with the reason as the label code; absent if good, revoked or without a staple\n"
          "# TYPE ocsp_probe_error gauge\n",
          out);
    for (i = 0; i < count; i++) {
        if (!*ocspErrorWord(reports[i].error_code)) continue;
        fputs("ocsp_probe_error{target=", out);
        printQuoted(out, reports[i].target);
        fprintf(out, ",code=\"%s\"} 1\n", ocspErrorWord(reports[i].error_code));
    }
}

/* Prints all reports to stdout or --output. The file is replaced atomically, since it may be read at any time. */
static int printAll(const probeOptions *options, const probeReport *reports, int count) {
    char temporary[4096] = "";
    FILE *out = stdout;
    int i, ok;

    if (options->output) {
        if (snprintf(temporary, sizeof(temporary), "%s.%ld.tmp", options->output, (long)getpid()) >=
                (int)sizeof(temporary) ||
            !(out = fopen(temporary, "w"))) {
            fprintf(stderr, "ocsp-probe: cannot write %s: %s\n", options->output, strerror(errno));
            return 0;
        }
    }
    if (options->form == FORM_PROMETHEUS) printPrometheus(out, reports, count);
    for (i = 0; i < count && !options->quiet; i++) {
        if (options->form == FORM_PEOPLE) printPeople(out, options, &reports[i]);
        if (options->form == FORM_JSON) printJson(out, &reports[i]);
    }
    ok = fflush(out) == 0 && !ferror(out);
    if (options->output) {
        ok = fclose(out) == 0 && ok && rename(temporary, options->output) == 0;
        if (!ok) unlink(temporary);
    }
    if (!ok) fprintf(stderr, "ocsp-probe: cannot write the output: %s\n", strerror(errno));
    return ok;
}

/* ---- the command line ----------------------------------------------------------------------------------------- */

static void printHelp(void) {
    puts(
        "usage: ocsp-probe [OPTION...] HOST:PORT [HOST:PORT...]\n"
        "       ocsp-probe --all-nodes [OPTION...] HOST:PORT [HOST:PORT...]\n"
        "       ocsp-probe --ask CERT.PEM [OPTION...]\n"
        "\n"
        "Requests the OCSP staple of each TLS server, verifies certificate chain and staple by the rules of the\n"
        "stapling engine, and reports the result. HOST is a name, an IPv4 address, or an IPv6 address in brackets.\n"
        "The default port is " PROBE_DEFAULT_PORT ".\n"
        "\n"
        "With OpenSSL 3.6 or later and TLS 1.3 it also verifies the staples of the intermediate certificates. One that\n"
        "is revoked is critical; one without a staple changes nothing.\n"
        "\n"
        "Trust:\n"
        "  --cafile FILE       trusted certificates (PEM), also searched for the issuer. Default: the system's\n"
        "  --capath DIR        directory of trusted certificates, prepared with `openssl rehash`\n"
        "\n"
        "Connection:\n"
        "  --cert FILE         client certificate (PEM, with its chain). Valkey requires one by default\n"
        "                      (tls-auth-clients yes), but also sends its staple to clients without one\n"
        "  --key FILE          private key of the client certificate. Default: in the file of --cert\n"
        "  --servername NAME   server name (SNI). Default: HOST, if HOST is a name\n"
        "  --tls1.2, --tls1.3  use this TLS version only\n"
        "  --sigalgs LIST      signature algorithms to offer. Selects the RSA or ECDSA certificate of a server that\n"
        "                      has both: rsa_pss_rsae_sha256, ecdsa_secp256r1_sha256 (TLS 1.2: RSA+SHA256,\n"
        "                      ECDSA+SHA256)\n"
        "  --timeout SECONDS   timeout for each server or URL, 1 to 3600. Default: 5\n"
        "\n"
        "All nodes of a cluster, of a primary and its replicas, or of what a Sentinel monitors:\n"
        "  --all-nodes         ask each server for the nodes that it knows (CLUSTER SHARDS, INFO replication, SENTINEL)\n"
        "                      and probe them all, one line a node\n"
        "  --user NAME         user for AUTH. Default: the server's default user\n"
        "  --password-file FILE  its first line is the password. Default: the environment variable VALKEYCLI_AUTH, or\n"
        "                      REDISCLI_AUTH. It is sent only to servers whose certificate verifies and is not revoked\n"
        "\n"
        "Warning threshold:\n"
        "  --warn N% | N       exit with 1 if less than N percent of the response's validity, or N seconds, are left.\n"
        "                      Default: 5%, which a server with a refresh-margin of 10% reaches only after failed\n"
        "                      refreshes\n"
        "\n"
        "Querying a responder without a server, as a dry run before roll-out:\n"
        "  --ask FILE          certificate to query (PEM). Further certificates in the file may include its issuer\n"
        "  --issuer FILE       certificate of the issuer, if it is neither in that file nor in --cafile\n"
        "  --url URL           query this URL instead of those in the certificate. May be given up to 8 times\n"
        "  --save FILE         save the response (DER), valid or not, for the directive response-file for example\n"
        "  --replace FILE      replace FILE atomically with the response (DER) if it is valid: good or revoked. Any\n"
        "                      failure leaves FILE as it was. For a timer, and the directive response-file\n"
        "  --text              also print the complete response in OpenSSL's format\n"
        "\n"
        "Output:\n"
        "  --json              print one JSON object per line, with times in Unix seconds. error_code is a word of\n"
        "                      the table of reasons in docs/behavior.md, as in INFO ocsp\n"
        "  --prometheus        print metrics for the node exporter's textfile collector. See utils/monitoring\n"
        "                      for alert rules and a dashboard\n"
        "  --output FILE       replace FILE atomically instead of printing to the terminal\n"
        "  --quiet             print nothing; use the exit status\n"
        "  --help              print this help\n"
        "  --version           print the versions of ocsp-probe and OpenSSL\n"
        "\n"
        "Exit status:\n"
        "  0  good\n"
        "  1  good with a warning: the response expires soon (--warn), has no nextUpdate and is older than some\n"
        "     clients accept, or has a CertID with another digest than SHA-1, in which most clients find no status\n"
        "  2  critical: no staple, revoked, expired, or not valid for this certificate and the trusted certificates;\n"
        "     or an intermediate certificate is revoked\n"
        "  3  unknown: no connection, no response, or wrong usage\n"
        "  With several servers, the worst status: 2 before 3 before 1 before 0.");
}

enum {
    OPT_CAFILE = 256,
    OPT_CAPATH,
    OPT_CERT,
    OPT_KEY,
    OPT_SERVERNAME,
    OPT_TLS12,
    OPT_TLS13,
    OPT_SIGALGS,
    OPT_TIMEOUT,
    OPT_ALL_NODES,
    OPT_USER,
    OPT_PASSWORD_FILE,
    OPT_WARN,
    OPT_ASK,
    OPT_ISSUER,
    OPT_URL,
    OPT_SAVE,
    OPT_REPLACE,
    OPT_TEXT,
    OPT_JSON,
    OPT_PROMETHEUS,
    OPT_OUTPUT,
    OPT_QUIET,
    OPT_HELP,
    OPT_VERSION
};

static const struct option long_options[] = {
    {"cafile", required_argument, NULL, OPT_CAFILE},
    {"capath", required_argument, NULL, OPT_CAPATH},
    {"cert", required_argument, NULL, OPT_CERT},
    {"key", required_argument, NULL, OPT_KEY},
    {"servername", required_argument, NULL, OPT_SERVERNAME},
    {"tls1.2", no_argument, NULL, OPT_TLS12},
    {"tls1.3", no_argument, NULL, OPT_TLS13},
    {"sigalgs", required_argument, NULL, OPT_SIGALGS},
    {"timeout", required_argument, NULL, OPT_TIMEOUT},
    {"all-nodes", no_argument, NULL, OPT_ALL_NODES},
    {"user", required_argument, NULL, OPT_USER},
    {"password-file", required_argument, NULL, OPT_PASSWORD_FILE},
    {"warn", required_argument, NULL, OPT_WARN},
    {"ask", required_argument, NULL, OPT_ASK},
    {"issuer", required_argument, NULL, OPT_ISSUER},
    {"url", required_argument, NULL, OPT_URL},
    {"save", required_argument, NULL, OPT_SAVE},
    {"replace", required_argument, NULL, OPT_REPLACE},
    {"text", no_argument, NULL, OPT_TEXT},
    {"json", no_argument, NULL, OPT_JSON},
    {"prometheus", no_argument, NULL, OPT_PROMETHEUS},
    {"output", required_argument, NULL, OPT_OUTPUT},
    {"quiet", no_argument, NULL, OPT_QUIET},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static int usageError(const char *sentence, const char *what) {
    fprintf(stderr, "ocsp-probe: %s%s\nTry: ocsp-probe --help\n", sentence, what);
    return 0;
}

/* Parses an integer from `min` to `max`; *end is set to the rest of `text`. Returns 0 if there is none. */
static int parseNumber(const char *text, long min, long max, int *out, char **end) {
    long value;

    if (!isdigit((unsigned char)text[0])) return 0;
    errno = 0;
    value = strtol(text, end, 10);
    *out = (int)value;
    return errno == 0 && value >= min && value <= max;
}

/* Fills `options`. Returns 0 after printing a usage error. *done is set to 1 if help or version was printed. */
static int parseArguments(int argc, char **argv, probeOptions *options, int *done) {
    const char *why;
    char *end = "";
    int opt;

    while ((opt = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        switch (opt) {
        case OPT_CAFILE: options->cafile = optarg; break;
        case OPT_CAPATH: options->capath = optarg; break;
        case OPT_CERT: options->cert = optarg; break;
        case OPT_KEY: options->key = optarg; break;
        case OPT_SERVERNAME: options->servername = optarg; break;
        case OPT_TLS12: options->tls_version = TLS1_2_VERSION; break;
        case OPT_TLS13: options->tls_version = TLS1_3_VERSION; break;
        case OPT_SIGALGS: options->sigalgs = optarg; break;
        case OPT_ALL_NODES: options->all_nodes = 1; break;
        case OPT_USER: options->user = optarg; break;
        case OPT_PASSWORD_FILE: options->password_file = optarg; break;
        case OPT_ASK: options->ask = optarg; break;
        case OPT_ISSUER: options->issuer = optarg; break;
        case OPT_SAVE: options->save = optarg; break;
        case OPT_REPLACE: options->replace = optarg; break;
        case OPT_TEXT: options->text = 1; break;
        case OPT_JSON: options->form = FORM_JSON; break;
        case OPT_PROMETHEUS: options->form = FORM_PROMETHEUS; break;
        case OPT_OUTPUT: options->output = optarg; break;
        case OPT_QUIET: options->quiet = 1; break;
        case OPT_TIMEOUT:
            if (!parseNumber(optarg, 1, 3600, &options->timeout, &end) || *end)
                return usageError("--timeout requires an integer from 1 to 3600 (seconds), not ", optarg);
            break;
        case OPT_WARN:
            if (!parseNumber(optarg, 0, 1000000000, &options->warn, &end) || (*end && strcmp(end, "%") != 0) ||
                (*end && options->warn > 100))
                return usageError("--warn requires a percentage like 5%, or seconds like 3600, not ", optarg);
            options->warn_is_percent = *end == '%';
            break;
        case OPT_URL:
            if (!*optarg || !ocspCheckResponderUrl(optarg, &why))
                return usageError(*optarg ? why : "--url requires a URL", "");
            if (options->url_count == OCSP_MAX_URLS) return usageError("--url can be given at most 8 times", "");
            options->urls[options->url_count++] = optarg;
            break;
        case OPT_HELP:
            printHelp();
            *done = 1;
            return 1;
        case OPT_VERSION:
            printf("ocsp-probe %d.%d.%d (%s)\n", OCSP_STAPLING_VERSION / 10000, OCSP_STAPLING_VERSION / 100 % 100,
                   OCSP_STAPLING_VERSION % 100, OpenSSL_version(OPENSSL_VERSION));
            *done = 1;
            return 1;
        default: fputs("Try: ocsp-probe --help\n", stderr); return 0; /* getopt has printed the error */
        }
    }
    options->targets = argv + optind;
    options->target_count = argc - optind;
    if (options->ask && options->target_count) return usageError("--ask takes no server: omit ", argv[optind]);
    if (!options->ask && !options->target_count) return usageError("name a server, like 127.0.0.1:6379", "");
    if (!options->ask && (options->issuer || options->url_count || options->save || options->replace || options->text))
        return usageError("--issuer, --url, --save, --replace and --text require --ask", "");
    if (!options->all_nodes && (options->user || options->password_file))
        return usageError("--user and --password-file require --all-nodes", "");
    if (options->key && !options->cert) return usageError("--key requires --cert", "");
    if (options->target_count > PROBE_MAX_TARGETS) return usageError("at most 256 servers in one run", "");
    return 1;
}

/* Sets options->password from the first line of --password-file, or else from the environment. A password on the command
 * line would be visible to every user of the host. Returns 0 after printing an error. */
static int readPassword(probeOptions *options) {
    static char line[PROBE_PASSWORD_MAX];
    FILE *f;

    options->password = getenv("VALKEYCLI_AUTH");
    if (!options->password) options->password = getenv("REDISCLI_AUTH");
    if (!options->password_file) return 1;
    f = fopen(options->password_file, "r");
    if (!f || !fgets(line, sizeof(line), f)) {
        fprintf(stderr, "ocsp-probe: cannot read a password from %s\n", options->password_file);
        if (f) fclose(f);
        return 0;
    }
    fclose(f);
    line[strcspn(line, "\r\n")] = '\0';
    options->password = line;
    return 1;
}

/* ---- a run over servers and their nodes ----------------------------------------------------------------------- */

typedef struct probeTarget {
    char *name;
    int given;  /* as in probeReport */
    int ask;    /* for its nodes */
    int no_tls; /* announces no TLS port */
} probeTarget;

/* The targets of a run, in the order in which they are probed. */
typedef struct probeRun {
    const probeOptions *options;
    SSL_CTX *ctx;
    ocspError ctx_error; /* why there is no ctx */
    probeTarget *targets;
    probeReport *reports;
    int count, room; /* of targets; reports has the same room */
    int reported;    /* reports; fewer than targets were probed, as some are the same server */
    void *known;     /* a tree of strings: names and addresses, to probe a server once */
    int64_t began, shown;
} probeRun;

static int compareKnown(const void *a, const void *b) {
    return strcmp(a, b);
}

/* Returns 1 if the text is new, and adds it. */
static int isNew(probeRun *run, const char *text) {
    char *copy = strdup(text);
    void *found = copy ? tsearch(copy, &run->known, compareKnown) : NULL;

    if (found && *(char **)found == copy) return 1;
    free(copy);
    return !found; /* out of memory: better twice than not at all */
}

/* Appends a target. Returns 0 if there is no room for it. */
static int addTarget(probeRun *run, const char *name, int given, int ask, int no_tls) {
    probeTarget *targets;
    probeReport *reports;
    int room = run->room ? run->room * 2 : 16;

    if (run->options->all_nodes && !isNew(run, name)) return 1;
    if (run->count == NODES_MAX) return 0;
    if (run->count == run->room) {
        targets = realloc(run->targets, (size_t)room * sizeof(*targets));
        if (targets) run->targets = targets;
        reports = realloc(run->reports, (size_t)room * sizeof(*reports));
        if (reports) run->reports = reports;
        if (!targets || !reports) return 0;
        run->room = room;
    }
    run->targets[run->count] = (probeTarget){strdup(name), given, ask, no_tls};
    return run->targets[run->count].name ? ++run->count : 0;
}

/* Shows on a terminal which target is next, in a run that takes long. */
static void showProgress(probeRun *run, int index) {
    char name[PROBE_TEXT];
    int64_t now = monoMs();

    if (run->options->quiet || now - run->began < PROBE_QUIET_MS || now - run->shown < PROBE_PROGRESS_MS ||
        !isatty(STDERR_FILENO))
        return;
    fprintf(stderr, "\rocsp-probe: %d of %d: %s\033[K", index + 1, run->count,
            ocspCleanText(name, sizeof(name), run->targets[index].name));
    run->shown = now;
}

/* Probes one target, and appends the nodes that it names. */
static void probeTargetNow(probeRun *run, int index) {
    probeReport *r = &run->reports[run->reported];
    probeTarget target = run->targets[index];
    nodesList list = {0};
    char address[80] = "";
    int i, given = target.given;

    memset(r, 0, sizeof(*r));
    ocspCleanText(r->target, sizeof(r->target), target.name);
    r->given = given;
    r->now = time(NULL);
    conclude(r, STATUS_UNREACHABLE, EXIT_COULD_NOT_TELL);
    if (target.no_tls)
        say(r->sentence, sizeof(r->sentence), "the node announces no TLS port");
    else if (!run->ctx)
        reportError(r, &run->ctx_error);
    else
        probeServer(run->options, run->ctx, target.name, target.ask ? &list : NULL, address, sizeof(address), r);
    if (!run->options->all_nodes || !address[0] || isNew(run, address)) run->reported++;
    for (i = 0; i < list.count; i++) {
        if (addTarget(run, list.nodes[i].target, 0, list.follow, list.nodes[i].no_tls)) continue;
        r = &run->reports[run->reported - 1]; /* addTarget may have moved it */
        addNote(r, "there are more nodes than can be probed in one run");
        r->exit_status = nodesWorseStatus(r->exit_status, EXIT_COULD_NOT_TELL);
        break;
    }
    nodesListClear(&list);
}

/* Those of the command line in their order, then the others by name. */
static int compareReports(const void *a, const void *b) {
    const probeReport *one = a, *other = b;

    if (one->given && other->given) return one->given - other->given;
    if (one->given || other->given) return one->given ? -1 : 1;
    return nodesCompareTargets(one->target, other->target);
}

static void probeServers(probeRun *run) {
    const probeOptions *options = run->options;
    int i;

    run->began = monoMs();
    run->ctx = makeContext(options, &run->ctx_error);
    for (i = 0; i < options->target_count; i++) addTarget(run, options->targets[i], i + 1, options->all_nodes, 0);
    for (i = 0; i < run->count; i++) {
        showProgress(run, i);
        probeTargetNow(run, i);
    }
    if (run->shown) fputs("\r\033[K", stderr);
    if (run->reported > 1) qsort(run->reports, (size_t)run->reported, sizeof(*run->reports), compareReports);
    SSL_CTX_free(run->ctx);
}

int main(int argc, char **argv) {
    probeOptions options = {.timeout = PROBE_DEFAULT_TIMEOUT, .warn = PROBE_DEFAULT_WARN, .warn_is_percent = 1};
    probeRun run = {.options = &options};
    probeReport asked = {.target = ""};
    const probeReport *reports = &asked;
    int i, count = 1, done = 0, exit_status = EXIT_GOOD;

    signal(SIGPIPE, SIG_IGN);
    if (!parseArguments(argc, argv, &options, &done)) return EXIT_COULD_NOT_TELL;
    if (done) return EXIT_GOOD;
    if (options.all_nodes && !readPassword(&options)) return EXIT_COULD_NOT_TELL;
    if (options.ask) {
        probeResponder(&options, &asked);
    } else {
        probeServers(&run);
        reports = run.reports;
        count = run.reported;
        if (count == 0) exit_status = EXIT_COULD_NOT_TELL; /* out of memory */
    }
    for (i = 0; i < count; i++) exit_status = nodesWorseStatus(exit_status, reports[i].exit_status);
    if (!printAll(&options, reports, count)) exit_status = nodesWorseStatus(exit_status, EXIT_COULD_NOT_TELL);
    for (i = 0; i < run.count; i++) free(run.targets[i].name);
    free(run.targets);
    free(run.reports);
    tdestroy(run.known, free);
    return exit_status;
}
