/* world.h - the world around the whole engine, for tests that see it as a host does: through ocsp.h, with real TLS
 * handshakes over memory. Clock, network, disk and randomness are replaced (ocsp_env), so that days pass in a moment.
 *
 * Two ways to run the engine. Most tests have no thread: the test itself takes the worker's steps (runFor,
 * runUntilIdle) and advances the clock by the wait that each step returns. Where threads are the point
 * (test_threads.c), the real thread runs; it is woken through public calls, and the test polls for what must come.
 *
 *     FIXTURE(worldSetUp, worldTearDown);
 *     PROGRAM_FIXTURE(worldOpen, worldClose);
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_TEST_WORLD_H
#define OCSP_TEST_WORLD_H

#include "support.h"

void worldOpen(void);
void worldClose(void);
void worldSetUp(void); /* engine initialized, stapling on, nothing cached; TEST_NOW; a responder that answers "good" */
void worldTearDown(void);
void worldStart(void); /* initializes the engine, as worldSetUp does */

/* The host's `answered` calls it after ocspWaitAnswered; NULL: nothing. OCSP thread. */
extern void (*world_answered)(ocspAnswerKind kind, unsigned number, const char *error);

extern const testPki *pki;
extern ocspEnv real_env;                               /* as the engine has it */
extern SSL_CTX *tls12, *tls13, *tls12_rsa, *tls13_rsa; /* clients; _rsa: they take RSA certificates only */

/* ---- the host ---------------------------------------------------------------------------------------------------- */

extern ocspOptions options; /* edit, then applyOptions */
extern char *dir;           /* an empty directory; options.cache_dir is "" all the same */

void applyOptions(void);
void restartEngine(void); /* what a restart of the server is to the engine; forgets the log */

void worldLog(ocspLogLevel level, const char *sentence); /* the host's log */
int logLines(ocspLogLevel level, const char *part); /* lines of at least this level with `part` in them (NULL: all) */
void forgetLog(void);

int infoHas(const char *field); /* INFO's fields, without "ocsp_" */
long long infoNumber(const char *field);
const char *infoText(const char *field);
void assertState(const char *state);

/* ---- time -------------------------------------------------------------------------------------------------------- */

int64_t monoMs(void);
time_t wallNow(void);
void advance(int64_t ms);       /* both clocks */
void setWallClock(int64_t ms);  /* the wall clock alone */
void moveWallClock(int64_t ms); /* the same, relative */

/* Without a thread: the worker's steps until nothing is due, the clock unmoved. */
void runUntilIdle(void);

/* Without a thread: steps and waits until `ms` have passed. */
void runFor(int64_t ms);

/* ---- the responder ----------------------------------------------------------------------------------------------- */

#define MAX_REQUESTS 20000

/* A certificate that the responder knows besides those of testPki, with the issuer that signs for it. */
typedef struct worldKnown {
    X509 *cert, *issuer;
    EVP_PKEY *issuer_key;
    int revoked, down;
    size_t padding; /* bytes that its responses are longer */
    int requests;
} worldKnown;

#define MAX_KNOWN 8

typedef struct worldResponder {
    /* What it does. Atomic where threads change it. */
    atomic_int down, http_status, response_status, unknown, revoked;
    atomic_int wrong_signer; /* signed by a CA that is not the issuer */
    atomic_int no_next_update;
    atomic_int validity;                         /* seconds from thisUpdate to nextUpdate */
    atomic_int backdate;                         /* seconds */
    atomic_llong this_update;                    /* this one always; 0: now */
    atomic_llong next_this_update;               /* each response one second newer than the last, from here; 0: off */
    const EVP_MD *md;                            /* of its CertIDs; NULL: SHA-1 */
    const char *dead_url;                        /* no answer there */
    const char *wrong_signer_url;                /* signed by a CA that is not the issuer */
    void (*during_fetch)(const ocspIoHooks *io); /* called in the middle of a fetch */
    atomic_int hang;                             /* with threads: wait in the fetch until it is 0, or cancelled */
    worldKnown known[MAX_KNOWN];                 /* ends with cert NULL */
    /* What it has seen. */
    atomic_int requests, cancelled;
    int64_t at_mono[MAX_REQUESTS], at_wall[MAX_REQUESTS]; /* milliseconds */
    char url[MAX_REQUESTS][64];
} worldResponder;

extern worldResponder responder;
int requestCount(void);

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

typedef struct worldDisk {
    atomic_int full; /* stores fail */
    atomic_int writes;
    int prunes;
    int file_was_there; /* when the last store began, for its certificate */
} worldDisk;

extern worldDisk disk;

/* ---- server contexts and handshakes ------------------------------------------------------------------------------ */

/* A server context as a TLS load or reload makes it: parsed anew, so that no object is the same. SSL_CTX_free it. */
SSL_CTX *loadContext(X509 *leaf, EVP_PKEY *key, X509 *chain);
SSL_CTX *loadLeaf(void);            /* with pki->leaf */
SSL_CTX *loadTwoCertificates(void); /* with pki->leaf and pki->rsa_leaf */

/* One handshake that must succeed. Returns whether a staple came; if so it verifies for the certificate that was
 * served, and is good or revoked as OpenSSL sees it. */
int isStapledTo(SSL_CTX *server, SSL_CTX *client);
int isStapled(SSL_CTX *server); /* in TLS 1.2 and 1.3, which must agree */

#endif
