/* sim.h - what the parts of the simulation show each other.
 *
 * A world is a handful of parameters and a list of events, both drawn from one number. It is run against the real
 * engine on one thread, in virtual time; a model that was written from docs/, not from the engine, follows what
 * the engine was given and says after each step what must be stapled and when the responder may and must be asked.
 *
 *     sim_world.c   number -> parameters and events; their names
 *     sim_run.c     the machine: clock, network, server process, operator; drives the engine
 *     sim_ca.c      the CA and its responders: certificates, answers of all kinds, signatures by memo
 *     sim_openssl.c what makes OpenSSL cheap: no locks, known certificates parsed once
 *     sim_disk.c    the disk: a small file system in memory below ocsp_cache.c, that fails, lies and loses power
 *     sim_model.c   the promises
 *     simulate.c    command line, progress, the search for the shortest history
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#ifndef OCSP_SIM_H
#define OCSP_SIM_H

#include "ocsp_worker.h"

#define SIM_SECOND INT64_C(1000)
#define SIM_MINUTE (60 * SIM_SECOND)
#define SIM_HOUR (60 * SIM_MINUTE)
#define SIM_DAY (24 * SIM_HOUR)
#define SIM_YEAR (INT64_C(31557600) * SIM_SECOND)
#define SIM_EPOCH INT64_C(1900000000) /* seconds: when each world begins, in March 2030 */
#define SIM_NEVER INT64_MAX

/* ---- chance ------------------------------------------------------------------------------------------------------ */

typedef struct simRng {
    uint64_t state;
} simRng;

uint64_t simRandom(simRng *rng);
int64_t simBetween(simRng *rng, int64_t low, int64_t high);    /* both may come */
int64_t simLogBetween(simRng *rng, int64_t low, int64_t high); /* each order of magnitude as often; low > 0 */
int simOneIn(simRng *rng, int n);
uint64_t simHash(const void *bytes, size_t len, uint64_t seed);

/* ---- a world (sim_world.c) --------------------------------------------------------------------------------------- */

/* The order is that of the table of names in sim_world.c. `a` and `b` are an event's own numbers. */
typedef enum {
    /* What a responder does for a while; b: which URLs, one bit each. Of several the one that began last. */
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
    SIM_FROZEN,    /* what it signed when this began, again and again */
    SIM_OLDER,     /* what it signed a seconds before this began */
    SIM_BACKDATED, /* thisUpdate a seconds ago */
    SIM_FUTURE,    /* thisUpdate in a seconds */
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
    /* The CA: for a while; from then on. */
    SIM_REVOKED,    /* b: also shown at a thisUpdate that was used for good before */
    SIM_VALIDITY,   /* a: seconds */
    SIM_PRESIGN,    /* a: seconds between two signatures, 0: on demand */
    SIM_NEW_SIGNER, /* a: seconds that the new delegate lives, 0: the CA signs itself */
    /* The machine's clock. */
    SIM_JUMP,  /* a: milliseconds; right again after the duration */
    SIM_DRIFT, /* a: parts per million; likewise */
    SIM_SLEEP, /* a: milliseconds; the monotonic clock stands. Ends early when something else happens */
    /* The disk: for a while; once. */
    SIM_DISK_FULL,
    SIM_DISK_NO_SYNC, /* what is synced is not there after a power failure */
    SIM_DISK_UNREADABLE,
    SIM_DISK_FLIPPED,
    SIM_DISK_TRUNCATED,
    SIM_DISK_DELETED,
    SIM_DISK_RESTORED, /* an answer from before, restored from a backup; a: its age in answers */
    /* The process, which is away for the duration. */
    SIM_RESTART,
    SIM_KILL,
    SIM_KILL_IN_WRITE, /* a: at this many disk operations from now */
    SIM_POWER,
    SIM_NO_THREAD, /* a restart, and for the duration no thread can be made */
    /* The operator. */
    SIM_RELOAD,
    SIM_RELOAD_LATE, /* on another thread: the context is found by a handshake */
    SIM_RENEW,       /* a: seconds that the new certificate lives; b: late, as SIM_RELOAD_LATE */
    SIM_ROLLBACK,    /* for the duration, as the next three */
    SIM_SELF_SIGNED,
    SIM_NO_URLS,
    SIM_NO_ISSUER, /* the same certificate, without its chain */
    SIM_STAPLING_OFF,
    SIM_MARGIN,
    SIM_RETRY_DELAY,
    SIM_TIMEOUT,
    SIM_URL,
    SIM_CACHE_OFF,
    SIM_CACHE_MOVED,
    SIM_FILE,         /* a response-file for the duration */
    SIM_FILE_UPDATED, /* a new answer is put into it */
    SIM_FILE_BAD,     /* or nonsense */
    SIM_REFRESH,
    SIM_KINDS
} simKind;

typedef struct simEvent {
    simKind kind;
    int64_t at, duration; /* milliseconds of true time since the world began */
    int64_t a, b;
    int off; /* left out, while a shorter history is looked for */
} simEvent;

#define SIM_MAX_EVENTS 400

typedef enum { SIM_ANY, SIM_LONG, SIM_SHORT } simClass; /* responses live a day or more; less */

typedef struct simWorld {
    uint64_t number, salt; /* salt: of its chance, another one in the search for a shorter history */
    simClass class;
    long long max_steps; /* of the engine; then the world ends early: some outages are long and all alike */
    int64_t end_at;      /* milliseconds */
    int validity;        /* seconds */
    int presign, backdate, signer_validity;
    int round_to; /* seconds that thisUpdate is rounded down to, and producedAt to a sixtieth of them; 0: neither is */
    int no_next_update;
    int signer_gap; /* the next one is made when the last has ended */
    int urls, must_staple, two_certs;
    int cert_validity;
    int latency; /* milliseconds, typical */
    ocspOptions options;
    int event_count;
    simEvent events[SIM_MAX_EVENTS];
} simWorld;

void simMakeWorld(simWorld *world, uint64_t number, simClass class);
void simPrintWorld(const simWorld *world);
const char *simKindName(simKind kind);
int simIsFault(simKind kind);

/* ---- running it (sim_run.c) -------------------------------------------------------------------------------------- */

typedef struct simOutcome {
    int broken;
    char promise[32], text[1000];
    int64_t at; /* when */
    long long refreshes, steps, handshakes, starts, answers;
    int64_t simulated_ms; /* milliseconds that were simulated */
} simOutcome;

extern int64_t sim_trace_from; /* true time from which a trace is told */
void simRun(const simWorld *world, int trace, simOutcome *outcome);
void simSelfWorld(const simWorld *world);                                  /* as at the beginning of a run */
void simTrace(const char *fmt, ...) __attribute__((format(printf, 1, 2))); /* a line of the trace */

/* A promise is broken: ends the run. `promise` is a short name, which a shorter history must break too. */
void simBroken(const char *promise, const char *fmt, ...) __attribute__((format(printf, 2, 3), noreturn));
#define simRequire(condition, promise, ...)                                     \
    do {                                                                        \
        if (__builtin_expect(!(condition), 0)) simBroken(promise, __VA_ARGS__); \
    } while (0)

int64_t simTrueMs(void); /* since the world began */
int64_t simWallMs(void); /* the machine's wall clock */
int64_t simMonoMs(void);
int64_t simCaTime(void);
int simHasFault(void);       /* some responder is not well */
simRng *simWorldRng(void);   /* the world's, not the engine's */
int simActive(simKind kind); /* is such an event under way? */
const simWorld *simThisWorld(void);
void simCountRefresh(void);
int simRefreshPending(void); /* a refresh that was asked for has no answer yet */

/* ---- the CA (sim_ca.c) ------------------------------------------------------------------------------------------- */

#define SIM_MAX_CERTS 200
#define SIM_MAX_URLS 3

typedef struct simCert {
    int index;
    X509 *leaf;
    X509 *parsed[2]; /* the same, read from bytes */
    int parsed_next;
    EVP_PKEY *key;
    int64_t not_after;
    int must_staple, urls, self_signed;
    unsigned char serial[8], sha256[32];
    char file[80]; /* ocsp-<sha256>.der */
    unsigned char id[3][128];
    size_t id_len[3];
} simCert;

typedef struct simAnswer {
    unsigned char *der;
    size_t len;
    uint64_t hash;
    int acceptable;  /* 0: no time makes it acceptable */
    int well_formed; /* it parses, as a response about a certificate */
    int corrupted;   /* nobody knows how it is wrong */
    int cert;        /* whom it is about, -1: none of ours */
    int status;
    int64_t this_update, next_update, produced_at;
    int64_t signer_from, signer_to; /* of a delegate; 0: the CA itself */
    const char *description;
} simAnswer;

void simCaBegin(void);
void simCaEnd(void); /* forgets a world's certificates and answers */
simCert *simCaIssue(int validity, int must_staple, int urls, int second, int self_signed);
simCert *simCaCert(int index);
X509 *simCaParsed(simCert *cert); /* in turn one of two objects */
int simCaCertCount(void);
simCert *simCaCertOfRequest(const unsigned char *der, size_t len);
X509 *simCaCertificate(void);
void simCaReplaceSigner(int validity);
int simCaHasSignerCert(void); /* do delegates sign? They end when they do */

/* What a responder that does `fault` (NULL: nothing wrong) says about `cert` now; `alone`: and about no other. */
const simAnswer *simCaAnswer(const simCert *cert, const simEvent *fault, int alone);
void simCaOffer(const simCert *cert, const simEvent *fault, simAnswer *offer); /* its dates and status alone */
const simAnswer *simCaFind(const unsigned char *der, size_t len);
const simAnswer *simCaEarlier(int cert, int back); /* an answer that was given before */
long long simCaCount(void);
int simCaSelfTest(void); /* exit status */

/* Of two answers about one certificate: 1 when `a` was signed later than `b`, -1 when earlier, by thisUpdate and then by
 * producedAt. */
int simCompareTimes(const simAnswer *a, const simAnswer *b);

/* When something that was read from a file of this time was received, as far as one can tell. */
int64_t simReceivedAt(const simAnswer *a, int64_t mtime, int64_t now);

/* Would a client that follows RFC 6960 and docs/behavior.md take it, and until when? */
int simAcceptable(const simAnswer *answer, const simCert *cert, int64_t now, int64_t received, int64_t *end);

/* ---- OpenSSL (sim_openssl.c) -------------------------------------------------------------------------------------- */

void simOpenSslBegin(void); /* before OpenSSL's first call */

/* ---- the disk (sim_disk.c) --------------------------------------------------------------------------------------- */

void simDiskBegin(void);
void simDiskEnd(void);
void simDiskPowerFailure(void);     /* what was not synced is gone, or not */
void simDiskCloseAll(void);         /* the process ended */
void simDiskKillAt(int operations); /* 0: never */
int simDiskRead(const char *path, const unsigned char **bytes, size_t *len, int64_t *mtime); /* for the model */
int simDiskSyncSkipped(const char *path);                                                    /* about the file there */
void simDiskWrite(const char *path, const void *bytes, size_t len);                          /* from outside; durable */
void simDiskRemove(const char *path);
int simDiskTemporaries(void);
void simKilled(void) __attribute__((noreturn));                                /* sim_run.c: the process ends here */
void simDiskRemoved(const char *path, const unsigned char *bytes, size_t len); /* sim_model.c: the engine deletes */
void simDiskRemovalFailed(const char *path);                                   /* sim_model.c: it may not */
void simDiskChanged(const char *path); /* sim_model.c: a name was made, replaced or removed */
void simDiskSynced(const char *dir);   /* sim_model.c: its names outlive a power failure */

/* ---- the promises (sim_model.c) ---------------------------------------------------------------------------------- */

void simModelBegin(void);
void simModelStart(void);    /* a new process */
void simModelEnd(int power); /* of the process; power: that went away */
void simModelAttach(const int *certs, int count, int chain);
void simModelDisturbed(int clock); /* something begins or ends; clock: so that waits may be reckoned anew */
void simModelOptions(const ocspOptions *options);
void simModelRefreshRequested(void);
void simModelStepBegins(void);
void simModelIdle(void); /* nothing is due, says the engine */
void simModelRequestSent(simCert *cert, int url);
void simModelAnswerReceived(simCert *cert, const simAnswer *answer, ocspErrorKind kind,
                            int last); /* kind: of no answer */
void simModelCancelled(simCert *cert);
simCert *simModelTrackedCert(void); /* the first certificate of the context that the engine has taken */
/* `dir`: of the cache, NULL for a response-file. */
void simModelFileRead(const char *dir, const unsigned char *der, size_t len, int64_t mtime, simCert *cert);
void simModelStored(simCert *cert, int ok);
void simModelTampered(const char *path);
void simModelPowerFailure(void);
void simModelFirstHandshake(void);
void simModelCheckStaple(simCert *cert, const unsigned char *der, size_t len);
int64_t simModelNextCheck(void);        /* true time when the model wants to look, SIM_NEVER */
int64_t simTrueOfWall(int64_t wall_ms); /* sim_run.c: when the wall clock will show that, if nothing happens */

#endif
