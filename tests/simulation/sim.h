/* sim.h - the interfaces between the files of the simulation.
 *
 * A world is a set of parameters and a list of events, both generated from one number. It runs against the real engine
 * on one thread, in virtual time. A model, written from docs/ and not from the engine, gets the same inputs; after each
 * step it states what must be stapled, and when a responder may and must be queried.
 *
 *     sim_world.c   number -> parameters and events; their names
 *     sim_run.c     the machine: clock, network, server process, operator; drives the engine
 *     sim_ca.c      the CA and its responders: certificates, answers of all kinds, cached and simulated signatures
 *     sim_openssl.c cheap replacements for OpenSSL functions: no locks, each certificate parsed once
 *     sim_disk.c    a file system in memory below ocsp_cache.c, with failures, skipped syncs and power failures
 *     sim_model.c   the promises
 *     simulate.c    command line, progress, the search for the shortest history
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_SIM_H
#define OCSP_SIM_H

#include "ocsp_wait.h"
#include "ocsp_worker.h"

#define SIM_SECOND INT64_C(1000)
#define SIM_MINUTE (60 * SIM_SECOND)
#define SIM_HOUR (60 * SIM_MINUTE)
#define SIM_DAY (24 * SIM_HOUR)
#define SIM_YEAR (INT64_C(31557600) * SIM_SECOND)
#define SIM_EPOCH INT64_C(1900000000) /* seconds: the start of each world, in March 2030 */
#define SIM_NEVER INT64_MAX

/* ---- random numbers ---------------------------------------------------------------------------------------------- */

typedef struct simRng {
    uint64_t state;
} simRng;

uint64_t simRandom(simRng *rng);
int64_t simBetween(simRng *rng, int64_t low, int64_t high);    /* both included */
int64_t simLogBetween(simRng *rng, int64_t low, int64_t high); /* log-uniform; low > 0 */
int simOneIn(simRng *rng, int n);
uint64_t simHash(const void *bytes, size_t len, uint64_t seed);

/* ---- a world (sim_world.c) --------------------------------------------------------------------------------------- */

/* The kinds of events, in the order of the table of names in sim_world.c. `a` and `b` are an event's parameters. */
typedef enum {
    /* Faults of a responder, for the duration; b: which URLs, one bit each. The last one begun applies. */
    SIM_DOWN,
    SIM_HANG,
    SIM_SLOW,  /* a: milliseconds */
    SIM_FLAKY, /* a: percent of requests that fail */
    SIM_HTTP,
    SIM_TRY_LATER,
    SIM_GARBAGE,
    SIM_EMPTY,
    SIM_TRUNCATED,
    SIM_TRAILING,
    SIM_FLIPPED,
    SIM_EXPIRED,
    SIM_FROZEN,    /* always the response of the time when the event began */
    SIM_OLDER,     /* always the response of a seconds before the event began */
    SIM_BACKDATED, /* thisUpdate a seconds ago */
    SIM_FUTURE,    /* thisUpdate a seconds ahead */
    SIM_BACKWARDS,
    SIM_UNKNOWN,
    SIM_OTHER_SERIAL,
    SIM_OTHER_ISSUER,
    SIM_SAME_NAME_CA, /* signed by a CA of the same name */
    SIM_SIGNER_NO_EKU,
    SIM_SIGNER_EXPIRED,
    SIM_SIGNER_NOT_YET,
    SIM_SIGNER_FOREIGN,
    SIM_SIGNER_CRITICAL,
    SIM_SIGNER_KEY_USAGE, /* OCSPSigning, but its key usage forbids signatures */
    SIM_NO_NEXT_UPDATE,
    SIM_LAST_FAULT = SIM_NO_NEXT_UPDATE,
    /* The CA: SIM_REVOKED for the duration, the others from then on. */
    SIM_REVOKED,    /* b: also in responses whose thisUpdate is older than the revocation */
    SIM_VALIDITY,   /* a: seconds */
    SIM_PRESIGN,    /* a: seconds between two signatures, 0: on demand */
    SIM_NEW_SIGNER, /* a: validity of the new authorized responder in seconds, 0: the CA signs itself */
    /* The machine's clock. */
    SIM_JUMP,  /* a: milliseconds; corrected after the duration */
    SIM_DRIFT, /* a: parts per million; likewise */
    SIM_SLEEP, /* a: milliseconds; the monotonic clock stops. Ends early at the next event */
    /* The disk: three for the duration, four once. */
    SIM_DISK_FULL,
    SIM_DISK_NO_SYNC, /* fsync reports success without a sync */
    SIM_DISK_UNREADABLE,
    SIM_DISK_FLIPPED,
    SIM_DISK_TRUNCATED,
    SIM_DISK_DELETED,
    SIM_DISK_RESTORED, /* an earlier answer, restored from a backup; a: how many answers back */
    /* The process, which is down for the duration. */
    SIM_RESTART,
    SIM_KILL,
    SIM_KILL_IN_WRITE, /* a: after this many disk operations */
    SIM_POWER,
    SIM_NO_THREAD, /* a restart, and for the duration no thread can be created */
    /* The operator. */
    SIM_RELOAD,
    SIM_RELOAD_LATE, /* on another thread: the context is detected in a handshake */
    SIM_RENEW,       /* a: validity of the new certificate in seconds; b: as SIM_RELOAD_LATE */
    SIM_ROLLBACK,    /* for the duration, like the next three */
    SIM_SELF_SIGNED,
    SIM_NO_URLS,
    SIM_NO_ISSUER, /* the same certificate, without its chain */
    SIM_STAPLING_OFF,
    SIM_MARGIN,
    SIM_MAX_INTERVAL, /* a: seconds. Not drawn like the others, see simAddIntervals */
    SIM_RETRY_DELAY,
    SIM_TIMEOUT,
    SIM_URL,
    SIM_CACHE_OFF,
    SIM_CACHE_MOVED,
    SIM_FILE,         /* response-file set for the duration */
    SIM_FILE_UPDATED, /* a new answer is written to it */
    SIM_FILE_BAD,     /* or an unacceptable one */
    SIM_REFRESH,
    SIM_PUSH, /* OCSP.SET; a: 0 a good answer, else an unacceptable or an older one (of b seconds before) */
    /* In worlds with a chain, see simAddChain. */
    SIM_CHAIN,    /* staple-chain is the other value for the duration */
    SIM_CA_RENEW, /* the intermediate CA of level a gets a new certificate: the same key, another serial number */
    SIM_ROOT, /* the topmost one gets it from the old root (a: 0) or from a new root; 2: which the old one certifies */
    SIM_KINDS
} simKind;

typedef struct simEvent {
    simKind kind;
    int64_t at, duration; /* milliseconds of true time since the world began */
    int64_t a, b;
    int levels; /* of the chain: one bit for each certificate that is meant, bit 0 for the leaf; 0: all, or the leaf */
    int off;    /* left out in the search for a shorter history */
} simEvent;

#define SIM_MAX_EVENTS 400

/* A certificate's level is its place in the chain: 0 for the leaf, then the intermediate CAs, and last the new root as the
 * old one certifies it. */
#define SIM_MAX_DEPTH 4
#define SIM_MAX_LEVELS (SIM_MAX_DEPTH + 2)

typedef enum {
    SIM_ANY,
    SIM_LONG,
    SIM_SHORT
} simClass; /* SIM_LONG: responses valid for a day or more; SIM_SHORT: less */

typedef struct simWorld {
    uint64_t number, salt; /* salt: changes the random numbers in the search for a shorter history */
    simClass class;
    long long max_steps; /* of the engine; then the world ends early: long outages repeat themselves */
    int64_t end_at;      /* milliseconds since it began */
    int validity;        /* seconds */
    int presign, backdate, signer_validity;
    int round_to; /* thisUpdate is rounded down to this many seconds, producedAt to a sixtieth; 0: no rounding */
    int no_next_update;
    int signer_gap; /* a new authorized responder's certificate is issued only when the last has expired */
    int urls, must_staple, two_certs;
    int cert_validity;
    int latency; /* milliseconds, typical */
    struct {
        int depth;                   /* intermediate CAs below the root; 0: the root issues the leaf */
        int sent;                    /* how many of them are in tls-cert-file, from the leaf on; the rest is trusted */
        int root_sent, root_trusted; /* the root is in tls-cert-file, is a trust anchor */
        int supported;               /* OpenSSL can send a chain */
        int urls[SIM_MAX_LEVELS];    /* of the responder of each CA, by level */
        int validity;                /* of the certificates of intermediate CAs, seconds */
        int padding[SIM_MAX_LEVELS]; /* bytes that make the responses for each level longer */
    } chain;
    ocspOptions options;
    int event_count;
    simEvent events[SIM_MAX_EVENTS];
} simWorld;

void simMakeWorld(simWorld *world, uint64_t number, simClass class, int chain); /* chain: 1: one with a chain */
void simPrintWorld(const simWorld *world);
const char *simKindName(simKind kind);
int simIsFault(simKind kind);
int simMeans(const simEvent *e, int level); /* whether the event is about a certificate of that level */

/* ---- running a world (sim_run.c) --------------------------------------------------------------------------------- */

typedef struct simOutcome {
    int broken;
    char promise[32], text[1000];
    int64_t at; /* true time of the break */
    long long refreshes, steps, handshakes, starts, answers;
    int64_t simulated_ms; /* how much of the world ran */
} simOutcome;

extern int64_t sim_trace_from; /* true time from which a trace is printed */
void simRun(const simWorld *world, int trace, simOutcome *outcome);
void simSelfWorld(const simWorld *world); /* sets up `world` without running it, for the self-test */
void simTrace(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* prints a line of the trace */

/* Ends the run because a promise is broken. `promise` is a short name; a shorter history must break the same one. */
void simBroken(const char *promise, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
#define simRequire(condition, promise, ...)                                     \
    do {                                                                        \
        if (__builtin_expect(!(condition), 0)) simBroken(promise, __VA_ARGS__); \
    } while (0)

/* What a TLS context serves, and from which certificates the engine can find issuers. */
typedef struct simServed {
    int leaves[2], count;
    int cas[SIM_MAX_LEVELS], ca_count; /* certificates of the CAs in tls-cert-file, in that order, without the root */
    size_t chain_bytes;                /* of all certificates there but the leaf, as a TLS message counts them */
    struct {
        int ca, cert; /* cert: index of its certificate, -1: a root's own */
        int64_t ends;
    } issuers[2 * SIM_MAX_LEVELS]; /* in tls-cert-file or trusted */
    int issuer_count;
} simServed;

int64_t simTrueMs(void); /* since the world began */
int64_t simWallMs(void); /* the machine's wall clock */
int64_t simMonoMs(void);
int64_t simCaTime(void);
int simHasFault(void);       /* whether a responder has a fault now */
simRng *simWorldRng(void);   /* the world's; the engine has another one */
int simActive(simKind kind); /* whether such an event is under way */
const simWorld *simThisWorld(void);
void simCountRefresh(void);
int simPushPending(void);    /* whether a pushed response was not verified yet */
int simRefreshPending(void); /* whether a refresh request of the operator has no reply yet */

/* ---- the CA (sim_ca.c) ------------------------------------------------------------------------------------------- */

#define SIM_MAX_CERTS 200
#define SIM_MAX_URLS 3

typedef struct simCert {
    int index;
    X509 *leaf;
    X509 *parsed[2]; /* copies of leaf, parsed from DER, used in turn */
    int parsed_next;
    EVP_PKEY *key;
    int64_t not_after;
    int must_staple, urls, self_signed;
    int level, issuer;   /* issuer: the number of a CA, see sim_ca.c */
    int64_t issuer_ends; /* notAfter of the issuer's certificate that the engine knows; 0: never. Set by the model */
    unsigned char serial[8], sha256[32];
    char file[80]; /* ocsp-<sha256>.der */
    unsigned char id[3][128];
    size_t id_len[3];
} simCert;

typedef struct simAnswer {
    unsigned char *der;
    size_t len;
    uint64_t hash;
    int acceptable;  /* 0: at no time */
    int well_formed; /* parses as a response with a certificate's status */
    int corrupted;   /* a flipped bit: the kind of failure is not predictable */
    int cert;        /* index of the certificate, -1: none of this CA's */
    int status;
    int64_t this_update, next_update, produced_at;
    int64_t signer_from, signer_to; /* validity of the authorized responder; 0: the CA signed */
    const char *description;
} simAnswer;

void simCaBegin(void);
void simCaEnd(void); /* frees a world's certificates and answers */

/* CAs by number: the root, the intermediate CAs by level, and a new root of the same name. */
#define SIM_ROOT_CA 0
#define SIM_NEW_ROOT (SIM_MAX_DEPTH + 1)
#define SIM_CAS (SIM_MAX_DEPTH + 2)

typedef struct simRequest {
    int validity, must_staple, urls;
    int second, self_signed; /* a leaf for the second key; without a CA */
    int level;
    int subject, issuer; /* CAs; subject: of level 1 and above */
} simRequest;

simCert *simCaIssue(const simRequest *request);
simCert *simCaCert(int index);
X509 *simCaParsed(simCert *cert); /* alternates between two objects */
int simCaCertCount(void);
simCert *simCaCertOfRequest(const unsigned char *der, size_t len);
X509 *simCaRoot(int ca); /* the self-signed certificate of a root */
void simCaReplaceSigner(int validity);
int simCaHasSignerCert(void); /* whether an authorized responder signs: responses expire with its certificate */

/* Returns a responder's answer about `cert` now, with `fault` (NULL: none); `alone`: with one SingleResponse only. */
const simAnswer *simCaAnswer(const simCert *cert, const simEvent *fault, int alone);
void simCaOffer(const simCert *cert, const simEvent *fault, simAnswer *offer); /* dates and status only */
const simAnswer *simCaFind(const unsigned char *der, size_t len);
const simAnswer *simCaEarlier(int cert, int back); /* an earlier acceptable answer, or NULL */
long long simCaCount(void);
int simCaSelfTest(void); /* exit status */

/* Compares two answers about one certificate by thisUpdate and then by producedAt: 1 if `a` is later than `b`, -1 if
 * earlier, else 0. */
int simCompareTimes(const simAnswer *a, const simAnswer *b);

/* Returns when an answer, read from a file with `mtime`, was received; an estimate. */
int64_t simReceivedAt(const simAnswer *a, int64_t mtime, int64_t now);

/* Whether a client that follows RFC 6960 and docs/behavior.md accepts `answer`; *end: until when. */
int simAcceptable(const simAnswer *answer, const simCert *cert, int64_t now, int64_t received, int64_t *end);

/* ---- OpenSSL (sim_openssl.c) ------------------------------------------------------------------------------------- */

void simOpenSslBegin(void); /* call it before any OpenSSL function */

/* ---- the disk (sim_disk.c) --------------------------------------------------------------------------------------- */

void simDiskBegin(void);
void simDiskEnd(void);
void simDiskPowerFailure(void);     /* unsynced contents are lost, unsynced renames at random */
void simDiskCloseAll(void);         /* at the end of a process */
void simDiskKillAt(int operations); /* kills the process at that operation; 0: never */
int simDiskRead(const char *path,
                const unsigned char **bytes,
                size_t *len,
                int64_t *mtime);                                    /* without faults, for the model */
int simDiskSyncSkipped(const char *path);                           /* whether an fsync of the file did nothing */
void simDiskWrite(const char *path, const void *bytes, size_t len); /* by another program; durable */
void simDiskRemove(const char *path);
int simDiskTemporaries(void);
void simKilled(void) __attribute__((noreturn)); /* sim_run.c: the process is killed */
void simDiskRemoved(const char *path,
                    const unsigned char *bytes,
                    size_t len);             /* sim_model.c: before the engine deletes a file */
void simDiskRemovalFailed(const char *path); /* sim_model.c: the disk refused */
void simDiskChanged(const char *path);       /* sim_model.c: a name was created, replaced or removed */
void simDiskSynced(const char *dir);         /* sim_model.c: its names survive a power failure from now on */

/* ---- the promises (sim_model.c) ---------------------------------------------------------------------------------- */

void simModelBegin(void);
void simModelStart(void);    /* a new process */
void simModelEnd(int power); /* the process ended; power: by a power failure */
void simModelAttach(const simServed *served);
void simModelDisturbed(int clock); /* an event begins or ends; clock: one that changes clocks, and so the waits */
void simModelOptions(const ocspOptions *options);
void simModelRefreshRequested(void);
void simModelStepBegins(void);
void simModelIdle(void); /* the engine reports that nothing is due */
void simModelRequestSent(simCert *cert, int url);
/* `answer`: NULL if none, and `kind` is the failure; `last`: no other URL is tried. */
void simModelAnswerReceived(simCert *cert, const simAnswer *answer, ocspErrorKind kind, int last);
void simModelCancelled(simCert *cert);
void simModelPushed(const simAnswer *answer); /* the engine verifies a response that the operator pushed */
simCert *simModelTrackedCert(int depth);      /* of the context that the engine adopted; NULL: none at that depth */
/* `dir`: the cache directory, NULL for a response-file. */
void simModelFileRead(const char *dir, const unsigned char *der, size_t len, int64_t mtime, simCert *cert);
void simModelStored(simCert *cert, int ok);
void simModelTampered(const char *path);
void simModelPowerFailure(void);
void simModelFirstHandshake(void);

/* What a handshake sends: responses by depth, der NULL for none. */
typedef struct simSent {
    int chain; /* handed to OpenSSL as those of a chain */
    int count;
    struct {
        unsigned char *der;
        size_t len;
    } response[OCSP_MAX_CHAIN];
} simSent;

void simModelCheckHandshake(const simCert *leaf, const simSent *sent);
long long simChainHandshakes(void);     /* sim_run.c: how many have sent a chain's, in all worlds */
int64_t simModelNextCheck(void);        /* true time of the model's next check, or SIM_NEVER */
int64_t simTrueOfWall(int64_t wall_ms); /* sim_run.c: true time when the wall clock will show that, without events */

#endif
