/* ocsp_thread.c - the bio-style thread: waits, and calls the other rooms in their order.
 *
 * DESIGN: one thread per process, as bio.c has them, but with one job and a deadline in place of a list of jobs. All
 * its state is `worker`, which nobody else touches: main hands options, contexts and requests over in ocsp_stapler.c
 * and wakes the thread through a pipe that is in all its polls. A step (ocspStep) takes what is new, asks for each
 * certificate that is due, publishes, persists, and says how long to wait. It never waits longer than a second,
 * because the wall clock can jump and a supplied file can change, and neither tells.
 *
 * EXIT: exit() runs OpenSSL's clean-up while this thread may be inside OpenSSL: 163 of 200 exits crashed in an
 * experiment. So the thread holds a mutex, the gate, whenever it may be in OpenSSL, and gives it back around whatever
 * can block (poll, name look-up, disk). An atexit handler takes the gate and keeps it.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include "ocsp_internal.h"
#if OCSP_SUPPORTED
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <openssl/objects.h>
#include <openssl/rand.h>

#ifdef __APPLE__
#define st_mtim st_mtimespec /* POSIX 2008's name came late there */
#endif

#if defined(__linux__) || defined(__FreeBSD__) || defined(__NetBSD__) || defined(__OpenBSD__) || \
    defined(__DragonFly__) || defined(__illumos__)
#define OCSP_HAVE_PIPE2 1
#else
#define OCSP_HAVE_PIPE2 0 /* macOS, for one */
#endif

#define OCSP_THREAD_NAME "bio_ocsp"
#define OCSP_THREAD_STACK (1024 * 1024)    /* the name service's modules need most of it */
#define OCSP_STEP_MS 1000                  /* how often the wall clock and a supplied file are looked at */
#define OCSP_STORE_AGAIN_MS (60 * 1000)    /* how often a disk that refused is tried again */
#define OCSP_IDENTIFY_AGAIN_MS (60 * 1000) /* how often a certificate that lacks something is looked at again */
#define OCSP_PREVIOUS_DIRS 4               /* directories that cache-dir named before and that are still looked at */
#define OCSP_PRUNE_MS (3600 * 1000)        /* how often, at most, old files are looked for: it reads all of ours */

/* One certificate that is followed. */
typedef struct ocspCert {
    ocspIdentity *id;
    int active; /* 0: its context was replaced; what is held is kept for handshakes that had begun */
    int served; /* it was in service until the last reload */
    int index;  /* in its context: INFO tells of the first two */
    ocspCertState state;
    ocspResponse current; /* held.der NULL: nothing. Kept past its end: it tells what is older */
    int asked;            /* by the operator: at once */
    int refresh_now;      /* by a reload or a directive: at once, but for the floor */
    int refresh_if_empty; /* by stapling turned on: at once if the disk holds nothing */
    int64_t refresh_at_ms, retry_at_ms, last_round_ms; /* wall; monotonic, 0: none; monotonic, 0: never */
    unsigned attempt;                                  /* rounds without progress in a row, for the back-off */
    long long consecutive_failures, last_fetch_ms;
    int64_t last_success;
    char url[OCSP_OUTSIDE_TEXT_MAX + 1];
    char last_error[OCSP_REFRESH_ERROR_MAX];
    int cache_checked;
    int cache_dirty; /* what is held is to be stored */
    int outdated; /* what lies on disk has not been compared with what is held, or contradicts it and could not be removed */
    int64_t store_at_ms, load_at_ms; /* monotonic, 0: at once */
    /* What the log was told, so that it is told once. */
    int logged_state, logged_failure, logged_half_window, logged_expired, logged_missing, logged_unusable_cache,
        logged_outdated;
    int logged_certid_digest;
} ocspCert;

static struct {
    ocspOptions options;
    ocspCert *certs[OCSP_MAX_CERTS]; /* oldest first */
    int count;
    ocspContextCerts *attachment; /* the one in service, kept to be looked at again */
    int64_t identify_at_ms;       /* monotonic, 0: it is known in full */
    int unpublished;              /* there was no memory to publish what is held */
    int attached_before;
    ocspCertState empty_state; /* with no certificate in service */
    uint64_t file_signature;   /* of the response file as last read */
    ocspWaiter *waiters;       /* of the refresh under way that an operator asked for */
    int manual_refresh;
    char manual_error[OCSP_REFRESH_ERROR_MAX], manual_note[OCSP_REFRESH_ERROR_MAX];
    int manual_ok;
    ocspReport report;
    int logged_disk;
    char *previous_dirs[OCSP_PREVIOUS_DIRS]; /* owned; the newest first: what cache-dir was before */
    int64_t prune_at_ms;                     /* monotonic: the first store from then on looks for old files */
    X509 *asking;                            /* the leaf that a fetch is under way for */
} worker;

/* ---- the gate, the pipe ------------------------------------------------------------------------------------------ */

static pthread_mutex_t openssl_lock = PTHREAD_MUTEX_INITIALIZER; /* held while in OpenSSL */
static pthread_mutex_t openssl_turnstile =
    PTHREAD_MUTEX_INITIALIZER; /* taken first, so that main at exit gets the gate next */
static int wake_pipe[2] = {-1, -1};
static pthread_t thread;
static int thread_started, turnstile_locked_at_exit, openssl_locked_at_exit; /* main thread only */
static pid_t thread_owner;
static atomic_int stopping; /* written by main, read by the thread */

static void ocspLockOpenSSL(void) {
    pthread_mutex_lock(&openssl_turnstile);
    pthread_mutex_unlock(&openssl_turnstile);
    pthread_mutex_lock(&openssl_lock);
}

static void ocspUnlockOpenSSL(void) {
    pthread_mutex_unlock(&openssl_lock);
}

#define OCSP_EXIT_WAIT_MS 1000

void ocspAtExit(void) {
    struct timespec nap = {0, 1000000};
    int i;

    if (!thread_started || turnstile_locked_at_exit || getpid() != thread_owner)
        return; /* a forked child has no thread of ours */
    pthread_mutex_lock(&openssl_turnstile);
    turnstile_locked_at_exit = 1;
    ocspThreadWake();
    /* Some calls into OpenSSL read files (roots, tls-ca-cert-dir). Should one hang, leaving is worth more than
     * leaving clean. */
    for (i = 0; i < OCSP_EXIT_WAIT_MS && !openssl_locked_at_exit; i++) {
        openssl_locked_at_exit = pthread_mutex_trylock(&openssl_lock) == 0;
        if (!openssl_locked_at_exit) nanosleep(&nap, NULL);
    }
}

void ocspThreadWake(void) {
    if (wake_pipe[1] >= 0) (void)!write(wake_pipe[1], "", 1); /* full is fine: then it is awake */
}

static void ocspDrainPipe(void) {
    char bytes[64];

    while (wake_pipe[0] >= 0 && read(wake_pipe[0], bytes, sizeof(bytes)) > 0) continue;
}

/* Asked by a fetch when it was woken. */
static int ocspCancelled(void) {
    ocspDrainPipe();
    return atomic_load_explicit(&stopping, memory_order_relaxed) || ocspFetchIsStale(&worker.options, worker.asking);
}

/* ---- the world --------------------------------------------------------------------------------------------------- */

static int64_t ocspWallMs(void) {
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int64_t ocspMonoMs(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static uint32_t ocspRandom(void) {
    uint32_t value = UINT32_MAX / 2; /* without randomness: the middle of every spread */

    (void)!RAND_bytes((unsigned char *)&value, sizeof(value));
    return value;
}

static uint64_t ocspFileSignature(const char *path) {
    struct stat st;
    uint64_t parts[5], mark = 1469598103934665603u;
    int i;

    if (stat(path, &st) != 0) return 0;
    parts[0] = (uint64_t)st.st_mtim.tv_sec;
    parts[1] = (uint64_t)st.st_mtim.tv_nsec;
    parts[2] = (uint64_t)st.st_size;
    parts[3] = (uint64_t)st.st_ino;
    parts[4] = (uint64_t)st.st_dev;
    for (i = 0; i < 5; i++) mark = (mark ^ parts[i]) * 1099511628211u; /* FNV-1a's step */
    return mark | 1;
}

ocspEnv ocsp_env = {
    .wall_ms = ocspWallMs,
    .mono_ms = ocspMonoMs,
    .random = ocspRandom,
    .fetch = ocspFetch,
    .read_file = ocspReadFile,
    .file_signature = ocspFileSignature,
    .cache_load = ocspCacheLoad,
    .cache_store = ocspCacheStore,
    .cache_remove = ocspCacheRemove,
    .cache_prune = ocspCachePrune,
};

/* ---- small questions --------------------------------------------------------------------------------------------- */

static int64_t ocspNow(void) {
    return (int64_t)(ocsp_env.wall_ms() / 1000);
}

static int64_t ocspRemainingMs(const ocspCert *cert) {
    return cert->current.der ? (int64_t)cert->current.expires_at * 1000 - ocsp_env.wall_ms() : 0;
}

static int ocspHoldsValid(const ocspCert *cert) {
    return ocspRemainingMs(cert) > 0;
}

static int ocspHasFile(void) {
    return worker.options.response_file && *worker.options.response_file;
}

static int ocspHasUrl(void) {
    return worker.options.responder_url && *worker.options.responder_url;
}

/* The URL that INFO shows before one was asked. */
static void ocspShowUrl(ocspCert *cert) {
    const char *first = cert->id->url_count ? cert->id->urls[0] : "";

    ocspCleanText(cert->url, sizeof(cert->url),
                  ocspHasFile()  ? ""
                  : ocspHasUrl() ? worker.options.responder_url
                                 : first);
}

/* Times in the log are UTC, as in certificates. */
static const char *ocspUtc(int64_t t, char *out, size_t size) {
    return ocspUtcText(t, out, size);
}

/* When `cert` is due, in milliseconds from now: 0 or less is now, INT64_MAX never. */
static int64_t ocspDueIn(const ocspCert *cert) {
    int64_t mono = ocsp_env.mono_ms(), in, floor;

    if (!cert->active || cert->state != OCSP_STATE_PENDING) return INT64_MAX;
    if (cert->asked) return 0;
    if (cert->refresh_now)
        in = 0;
    else if (cert->retry_at_ms)
        in = cert->retry_at_ms - mono;
    else if (ocspHasFile()) /* looked at by its mark */
        return INT64_MAX;
    else
        in = cert->current.der ? cert->refresh_at_ms - ocsp_env.wall_ms() : 0;
    /* The floor beats the formula: a responder that backdates its answers would make us spin. */
    floor = cert->last_round_ms ? cert->last_round_ms + OCSP_MIN_INTERVAL_MS - mono : 0;
    return in > floor ? in : floor;
}

/* ---- publishing -------------------------------------------------------------------------------------------------- */

static void ocspPublish(void) {
    ocspStapleSet *set = ocspAlloc(sizeof(*set));
    int i;

    for (i = 0; set && i < worker.count; i++) {
        const ocspCert *cert = worker.certs[i];
        ocspStaple *staple = &set->staples[set->count];
        if (cert->current.der && !(staple->der = ocspMemdup(cert->current.der, cert->current.len))) break;
        staple->len = cert->current.len;
        staple->expires_at = cert->current.expires_at;
        staple->authoritative = cert->active && (cert->id->issuer || cert->id->self_signed);
        X509_up_ref(cert->id->leaf);
        staple->leaf = cert->id->leaf;
        set->count++;
    }
    if (!set || i < worker.count) {
        ocspStapleSetFree(set);
        if (!worker.unpublished)
            ocspLog(OCSP_LOG_WARNING, "out of memory while publishing a response: what was stapled before stays, "
                                      "unless a certificate is revoked; then nothing is");
        worker.unpublished = 1; /* tried again with each step */
        for (i = 0; i < worker.count; i++)
            if (worker.certs[i]->current.revoked) break;
        if (i < worker.count) ocspSlotPublish(NULL);
        return;
    }
    worker.unpublished = 0;
    ocspSlotPublish(set);
}

static void ocspReportStatus(void) {
    ocspReport *r = &worker.report;
    int i;

    r->count = 0;
    memset(r->status, 0, sizeof(r->status));
    r->status[0].state = worker.empty_state;
    for (i = 0; i < worker.count; i++) {
        const ocspCert *cert = worker.certs[i];
        ocspStatus *s;
        if (!cert->active) continue;
        if (cert->index >= r->count) r->count = cert->index + 1;
        if (cert->index >= OCSP_STATUSES) continue;
        s = &r->status[cert->index];
        s->state = cert->state;
        s->has_response = cert->current.der != NULL;
        s->revoked = cert->current.revoked;
        s->must_staple = cert->id->must_staple;
        snprintf(s->serial, sizeof(s->serial), "%s", cert->id->serial);
        memcpy(s->responder_url, cert->url, sizeof(s->responder_url));
        s->this_update = cert->current.this_update;
        s->next_update = cert->current.next_update;
        s->produced_at = cert->current.produced_at;
        s->expires_at = cert->current.expires_at;
        s->last_success = cert->last_success;
        s->bytes = cert->current.len;
        s->source = cert->current.source;
        s->refresh_at_ms =
            cert->current.der && cert->state == OCSP_STATE_PENDING && !ocspHasFile() ? cert->refresh_at_ms : 0;
        s->retry_at_ms = cert->state == OCSP_STATE_PENDING ? cert->retry_at_ms : 0;
        s->consecutive_failures = cert->consecutive_failures;
        s->last_fetch_ms = cert->last_fetch_ms;
        memcpy(s->last_error, cert->last_error, sizeof(s->last_error));
    }
    if (r->count > OCSP_STATUSES) r->count = OCSP_STATUSES;
    ocspSetReport(r);
}

/* ---- the log ----------------------------------------------------------------------------------------------------- */

static const char *ocspPlural(long long count) {
    return count == 1 ? "" : "s";
}

static void ocspLogSuccess(const ocspCert *cert, const ocspResponse *before, int was_expired) {
    static const char *const from[] = {"", "the responder", "the cache", "the response file"};
    const ocspResponse *current = &cert->current;
    char when[40], revoked[40];

    ocspUtc(current->expires_at, when, sizeof(when));
    if (current->len > OCSP_MAX_STAPLE_TLS12 && before->len <= OCSP_MAX_STAPLE_TLS12)
        ocspLog(
            OCSP_LOG_WARNING,
            "the response for the certificate with serial %s has %zu bytes: clients that speak TLS 1.2 take no more than "
            "%d and get none. Let the responder answer for one certificate, without its chain",
            cert->id->serial, current->len, OCSP_MAX_STAPLE_TLS12);
    if (current->revoked && !before->revoked) {
        ocspLog(OCSP_LOG_WARNING,
                "the CA says that our certificate (serial %s) is REVOKED since %s. Clients that check will refuse this "
                "server: replace the certificate. The revoked status is stapled until %s",
                cert->id->serial, ocspUtc(current->revoked_at, revoked, sizeof(revoked)), when);
    } else if (!current->revoked && before->revoked) {
        ocspLog(OCSP_LOG_NOTICE, "the certificate (serial %s) is good again, stapling until %s", cert->id->serial,
                when);
    } else if (!before->der) {
        ocspLog(OCSP_LOG_NOTICE, "stapling for the certificate with serial %s until %s (%zu bytes from %s%s%s)",
                cert->id->serial, when, current->len, from[current->source],
                current->source == OCSP_SOURCE_NETWORK ? " " : "",
                current->source == OCSP_SOURCE_NETWORK ? cert->url : "");
    } else if (cert->logged_failure || was_expired) {
        ocspLog(OCSP_LOG_NOTICE, "fresh again after %lld failure%s, certificate serial %s, stapling until %s",
                cert->consecutive_failures, ocspPlural(cert->consecutive_failures), cert->id->serial, when);
    } else {
        ocspLog(OCSP_LOG_DEBUG, "refreshed, certificate serial %s, stapling until %s", cert->id->serial, when);
    }
}

/* Logs a notice, once for each certificate, when the response names it by a CertID that most clients do not look for. OCSP
 * thread. Clients compute the CertID that they compare with SHA-1 (RFC 5019 section 2.1.1) and see no status in a response
 * with another digest, which verifies all the same. */
static void ocspLogCertIdDigest(ocspCert *cert) {
    if (cert->current.certid_digest == NID_sha1 || cert->logged_certid_digest) return;
    cert->logged_certid_digest = 1;
    ocspLog(
        OCSP_LOG_NOTICE,
        "certificate %s: the OCSP response identifies it by a CertID with %s. Java, curl, NSS and `openssl ocsp` look "
        "for SHA-1 and find no status in it: %s",
        cert->id->serial, OBJ_nid2sn(cert->current.certid_digest),
        cert->current.source == OCSP_SOURCE_FILE
            ? "request the response for response-file with a SHA-1 CertID"
            : "configure the responder to answer with the CertID of the request, which has SHA-1");
}

static void ocspLogFailure(ocspCert *cert, int64_t delay_ms) {
    char when[40];

    if (cert->logged_failure) return;
    cert->logged_failure = 1;
    if (ocspHoldsValid(cert))
        ocspLog(OCSP_LOG_WARNING,
                "no fresh response for the certificate with serial %s: %s. Next try in %lld s; the one held is "
                "stapled until %s",
                cert->id->serial, cert->last_error, (long long)(delay_ms + 999) / 1000,
                ocspUtc(cert->current.expires_at, when, sizeof(when)));
    else
        ocspLog(OCSP_LOG_WARNING,
                "no response for the certificate with serial %s: %s. Next try in %lld s; nothing is stapled "
                "until then",
                cert->id->serial, cert->last_error, (long long)(delay_ms + 999) / 1000);
}

/* Quiet states, each told once: they are how some servers are meant to run. */
static void ocspLogState(ocspCert *cert) {
    static const char *const sentences[] = {
        [OCSP_STATE_SELF_SIGNED] = "is self-signed: nobody answers for its status, and nothing is stapled",
        [OCSP_STATE_NO_ISSUER] =
            "has an issuer that is not known, so nothing can be asked or verified: append the CA's "
            "certificate to tls-cert-file, or name it in tls-ca-cert-file",
        [OCSP_STATE_NO_RESPONDER] = "names no OCSP responder: set responder-url if the CA has one, or supply responses "
                                    "with response-file",
        [OCSP_STATE_PENDING] = NULL,
    };

    if (cert->logged_state == (int)cert->state) return;
    cert->logged_state = (int)cert->state;
    if (sentences[cert->state])
        ocspLog(OCSP_LOG_NOTICE, "the certificate with serial %s %s", cert->id->serial, sentences[cert->state]);
}

/* Warnings that come with time alone. */
static void ocspLogTime(ocspCert *cert) {
    int64_t now = ocspNow(), deadline;
    int valid = ocspHoldsValid(cert);
    char when[40];

    if (cert->current.der && valid && cert->consecutive_failures > 0 && !cert->logged_half_window && !ocspHasFile()) {
        deadline = ocspRefreshDeadline(&cert->current, worker.options.refresh_margin);
        if (now >= deadline + (cert->current.expires_at - deadline) / 2) {
            cert->logged_half_window = 1;
            ocspLog(OCSP_LOG_WARNING,
                    "half of the time to refresh has gone, with %lld failure%s: the response for the certificate with "
                    "serial %s is stapled until %s, then nothing is. The last error: %s",
                    cert->consecutive_failures, ocspPlural(cert->consecutive_failures), cert->id->serial,
                    ocspUtc(cert->current.expires_at, when, sizeof(when)), cert->last_error);
        }
    }
    if (cert->current.der && !valid && !cert->logged_expired) {
        cert->logged_expired = 1;
        ocspLog(OCSP_LOG_WARNING,
                "the response for the certificate with serial %s has expired (%s): handshakes go on without a "
                "staple. The last error: %s",
                cert->id->serial, ocspUtc(cert->current.expires_at, when, sizeof(when)),
                cert->last_error[0] ? cert->last_error : "none");
    }
    if (cert->id->must_staple && !valid && !cert->logged_missing &&
        (cert->state != OCSP_STATE_PENDING || cert->consecutive_failures > 0)) {
        cert->logged_missing = 1;
        ocspLog(OCSP_LOG_WARNING,
                "the certificate with serial %s promises a staple (must-staple, RFC 7633) and there is none: clients "
                "that heed it refuse this server",
                cert->id->serial);
    }
}

/* ---- one round --------------------------------------------------------------------------------------------------- */

static const ocspIoHooks worker_wait_template = {ocspUnlockOpenSSL, ocspLockOpenSSL, -1, ocspCancelled};

static ocspIoHooks ocspWorkerWait(void) {
    ocspIoHooks wait = worker_wait_template;

    wait.wake_fd = wake_pipe[0];
    return wait;
}

/* What is held changes: publish, schedule, and remember to store it. Takes `fresh`'s memory. */
static void ocspInstallResponse(ocspCert *cert, ocspResponse *fresh, ocspSource source) {
    ocspResponse before = cert->current;
    int was_expired = cert->current.der && !ocspHoldsValid(cert);

    fresh->source = source;
    cert->current = *fresh;
    memset(fresh, 0, sizeof(*fresh));
    cert->refresh_at_ms =
        ocspRefreshAtMs(&cert->current, worker.options.refresh_margin, ocsp_env.wall_ms(), ocsp_env.random());
    ocspPublish();
    ocspLogSuccess(cert, &before, was_expired);
    ocspLogCertIdDigest(cert);
    ocspResponseClear(&before);
    cert->logged_half_window = cert->logged_expired = cert->logged_missing = 0;
    cert->cache_dirty = source == OCSP_SOURCE_NETWORK;
    cert->outdated = source != OCSP_SOURCE_CACHE || worker.previous_dirs[0];
    cert->store_at_ms = 0;
}

static void ocspSucceeded(ocspCert *cert) {
    cert->consecutive_failures = 0;
    cert->logged_failure = 0;
    cert->last_error[0] = '\0';
    cert->last_success = ocspNow();
}

static void ocspBackOff(ocspCert *cert) {
    if (cert->attempt < UINT32_MAX) cert->attempt++;
    cert->retry_at_ms =
        ocsp_env.mono_ms() + ocspRetryDelayMs(worker.options.retry_delay, cert->attempt, ocspRemainingMs(cert),
                                              cert->id->must_staple, ocsp_env.random());
}

/* A good answer that leaves the refresh due: the responder has nothing newer yet. No failure, and no spin: no quick
 * tries either. */
static void ocspScheduleRecheck(ocspCert *cert) {
    int64_t again_at_ms;

    if (!ocspHoldsValid(cert)) {
        ocspBackOff(cert);
        return;
    }
    cert->attempt = 0;
    again_at_ms = ocspRecheckAtMs(&cert->current, worker.options.refresh_margin, ocsp_env.wall_ms(), ocsp_env.random());
    if (again_at_ms)
        cert->refresh_at_ms = again_at_ms;
    else
        cert->retry_at_ms =
            ocsp_env.mono_ms() + ocspOutageDelayMs(ocspRemainingMs(cert), cert->id->must_staple, ocsp_env.random());
}

/* The same answer again: CAs that sign in advance hand out the same bytes for hours. */
static void ocspResponseUnchanged(ocspCert *cert) {
    int64_t now_ms = ocsp_env.wall_ms(), next;

    if (cert->logged_failure)
        ocspLog(
            OCSP_LOG_NOTICE,
            "the responder answers again after %lld failure%s, certificate serial %s: the response held is still its newest",
            cert->consecutive_failures, ocspPlural(cert->consecutive_failures), cert->id->serial);
    ocspSucceeded(cert);
    cert->retry_at_ms = 0;
    if (ocspHoldsValid(cert) && cert->current.revoked) { /* the hourly look: the next hour, not a retry */
        next = ocspRefreshAtMs(&cert->current, worker.options.refresh_margin, now_ms, ocsp_env.random());
        if (next > now_ms) cert->refresh_at_ms = next;
    }
    if (ocspHoldsValid(cert) && now_ms < cert->refresh_at_ms)
        cert->attempt = 0;
    else
        ocspScheduleRecheck(cert);
}

static void ocspFailed(ocspCert *cert, ocspErrorKind kind, int asked) {
    cert->consecutive_failures++;
    worker.report.refresh_failures++;
    worker.report.failures[kind]++;
    /* An operator who tries often must not push the automatic retry away. */
    if (!asked || cert->retry_at_ms <= ocsp_env.mono_ms()) ocspBackOff(cert);
    ocspLogFailure(cert, cert->retry_at_ms - ocsp_env.mono_ms());
    snprintf(worker.manual_error, sizeof(worker.manual_error), "%s", cert->last_error);
}

/* Verifies the content of a file that was last written at `mtime`. Without nextUpdate a response lives for ten minutes
 * from its receipt, of which a file tells by its time alone, and that is new again when the file is copied or restored. So
 * the life begins at the latest when the response was signed (thisUpdate or producedAt, whichever is later), with the
 * clocks' skew on top: 15 minutes in all, which is what Java takes. A CA that leaves nextUpdate out says that newer
 * information is always available (RFC 6960 section 4.2.2.1) and signs when it is asked, so that what was just received
 * loses nothing by this; what a CA signed long before it handed it out is asked for again after a restart. */
static int ocspVerifyFile(const ocspCert *cert, const unsigned char *der, size_t len, int64_t mtime, ocspResponse *out,
                          ocspError *err) {
    int64_t now = ocspNow(), latest;

    if (!ocspVerify(der, len, cert->id, now, mtime, out, err)) return 0;
    latest = out->produced_at > out->this_update ? out->produced_at : out->this_update;
    latest += OCSP_CLOCK_SKEW + OCSP_DEFAULT_VALIDITY;
    if (out->next_update || out->expires_at <= latest) return 1;
    out->expires_at = latest;
    if (out->expires_at > now) return 1;
    if (err) err->expired = !out->revoked;
    ocspResponseClear(out);
    return ocspFail(err, OCSP_ERR_VERIFY,
                    "the response has no nextUpdate and was signed more than %d seconds ago: ask the responder anew",
                    OCSP_CLOCK_SKEW + OCSP_DEFAULT_VALIDITY);
}

/* Verifies bytes for `cert` and holds them if they are news. Returns 1, or 0 with the reason. */
static int ocspAcceptResponse(ocspCert *cert, const unsigned char *der, size_t len, ocspSource source, int64_t received,
                              ocspError *err) {
    int64_t now = ocspNow();
    ocspResponse fresh;
    ocspFreshness freshness;
    int ok;

    ok = source == OCSP_SOURCE_NETWORK ? ocspVerify(der, len, cert->id, now, received, &fresh, err)
                                       : ocspVerifyFile(cert, der, len, received, &fresh, err);
    if (!ok) return 0;
    freshness = ocspCompare(&cert->current, &fresh, now);
    if (source == OCSP_SOURCE_FILE) freshness = OCSP_FRESH_NEWER; /* what the operator supplies is his word */
    if (freshness == OCSP_FRESH_OLDER) {
        ocspFail(err, OCSP_ERR_RESPONSE, "the answer is %s: the responder, or a cache before it, lags behind",
                 fresh.this_update < cert->current.this_update ? "older than the response that is held"
                 : fresh.produced_at < cert->current.produced_at
                     ? "produced earlier than the response that is held"
                     : "good, but as old as the current response, which says revoked");
        ocspResponseClear(&fresh);
        return 0;
    }
    if (freshness == OCSP_FRESH_SAME) {
        if (source == OCSP_SOURCE_NETWORK) ocspResponseUnchanged(cert); /* a file says nothing of the responder */
        ocspResponseClear(&fresh);
        return 1;
    }
    ocspInstallResponse(cert, &fresh, source);
    ocspSucceeded(cert);
    cert->retry_at_ms = 0;
    if (source == OCSP_SOURCE_NETWORK && cert->refresh_at_ms <= ocsp_env.wall_ms())
        ocspScheduleRecheck(cert); /* backdated, or about to end: due again as it arrives */
    else
        cert->attempt = 0;
    return 1;
}

/* Appends "where: why" to the round's error. */
static void ocspAppendError(char *text, size_t size, const char *where, const char *why) {
    size_t used = strlen(text);

    snprintf(text + used, size - used, "%s%s: %s", used ? "; " : "", where, why);
}

/* Asks each URL in turn until one gives a response that verifies. 1: good, 0: failed with the last one's kind, -1:
 * cancelled. */
static int ocspAskResponders(ocspCert *cert, char *text, size_t size, ocspErrorKind *kind) {
    int i, n = ocspHasUrl() ? 1 : cert->id->url_count;
    ocspIoHooks wait = ocspWorkerWait();

    for (i = 0; i < n; i++) {
        const char *url = ocspHasUrl() ? worker.options.responder_url : cert->id->urls[i];
        unsigned char *body = NULL;
        size_t len = 0;
        ocspError err = {0};
        ocspFetchResult result;
        int taken;

        ocspCleanText(cert->url, sizeof(cert->url), url);
        worker.asking = cert->id->leaf;
        result = ocsp_env.fetch(url, cert->id->request, cert->id->request_len, cert->id->store,
                                (int64_t)worker.options.timeout * 1000, &wait, &body, &len, &err);
        worker.asking = NULL;
        if (result == OCSP_FETCH_CANCELLED) return -1;
        taken = result == OCSP_FETCH_OK && ocspAcceptResponse(cert, body, len, OCSP_SOURCE_NETWORK, ocspNow(), &err);
        ocspFree(body);
        if (taken) return 1;
        *kind = err.kind;
        ocspAppendError(text, size, cert->url, err.text);
    }
    return 0;
}

/* Reads the supplied file. 1: taken, 0: failed, 2: it is about other certificates, which is no failure. */
static int ocspReadSupplied(ocspCert *cert, char *text, size_t size, ocspErrorKind *kind) {
    unsigned char *der = NULL;
    size_t len = 0;
    int64_t mtime = 0;
    ocspError err = {0};
    char clean[OCSP_OUTSIDE_TEXT_MAX + 1];
    int ok;

    ocspUnlockOpenSSL();
    ok = ocsp_env.read_file(worker.options.response_file, &der, &len, &mtime, &err);
    ocspLockOpenSSL();
    cert->url[0] = '\0';
    ok = ok && ocspAcceptResponse(cert, der, len, OCSP_SOURCE_FILE, mtime, &err);
    ocspFree(der);
    if (ok) return 1;
    *kind = err.kind;
    ocspAppendError(text, size, ocspCleanText(clean, sizeof(clean), worker.options.response_file), err.text);
    return err.no_matching_certid ? 2 : 0;
}

/* One finished round counts once, however many URLs it asked. Returns 1 good, 0 failed, 2 a file about others, -1
 * cancelled. */
static int ocspRefreshCert(ocspCert *cert) {
    int was_asked = cert->asked, outcome;
    int64_t began = ocsp_env.mono_ms();
    char text[OCSP_REFRESH_ERROR_MAX] = "";
    ocspErrorKind kind = OCSP_ERR_NETWORK;

    cert->asked = cert->refresh_now = 0;
    outcome = ocspHasFile() ? ocspReadSupplied(cert, text, sizeof(text), &kind)
                            : ocspAskResponders(cert, text, sizeof(text), &kind);
    if (outcome < 0) { /* the next step looks at what has changed */
        cert->asked = was_asked;
        cert->refresh_now = 1;
        return -1;
    }
    cert->last_round_ms = ocsp_env.mono_ms();
    cert->last_fetch_ms = cert->last_round_ms - began;
    worker.report.refreshes++;
    if (outcome == 1) {
        worker.manual_ok++;
        return 1;
    }
    snprintf(cert->last_error, sizeof(cert->last_error), "%s", text);
    if (outcome == 2) {
        ocspLog(OCSP_LOG_NOTICE, "%s. It is not stapled; what was held stays", text);
        snprintf(worker.manual_note, sizeof(worker.manual_note), "%s", text);
        cert->retry_at_ms = 0;
        return 2;
    }
    ocspFailed(cert, kind, was_asked);
    return 0;
}

/* ---- the disk ---------------------------------------------------------------------------------------------------- */

static int ocspCaches(void) {
    return worker.options.cache_dir && *worker.options.cache_dir && !ocspHasFile();
}

static void ocspLoadCached(ocspCert *cert) {
    unsigned char *der = NULL;
    size_t len = 0;
    int64_t mtime = 0;
    ocspError err = {0};
    int found;

    if (cert->cache_checked || !cert->active || !ocspCaches() || !cert->id->issuer || ocspHoldsValid(cert)) return;
    if (cert->load_at_ms && ocsp_env.mono_ms() < cert->load_at_ms) return;
    ocspUnlockOpenSSL();
    found = ocsp_env.cache_load(worker.options.cache_dir, cert->id, &der, &len, &mtime, &err);
    ocspLockOpenSSL();
    if (found && ocspAcceptResponse(cert, der, len, OCSP_SOURCE_CACHE, mtime, &err)) {
        if (cert->current.source == OCSP_SOURCE_CACHE) cert->last_success = mtime < ocspNow() ? mtime : ocspNow();
        cert->cache_checked = 1;
    } else if (err.kind == OCSP_ERR_NONE) {
        cert->cache_checked = 1;
    } else {
        /* Memory or descriptors may have run out: what can be stapled must not lie there until the next restart. */
        cert->load_at_ms = ocsp_env.mono_ms() + OCSP_STORE_AGAIN_MS;
        if (!cert->logged_unusable_cache)
            ocspLog(OCSP_LOG_NOTICE,
                    "the kept response for the certificate with serial %s is not used: %s. A new one is "
                    "asked for",
                    cert->id->serial, err.text);
        cert->logged_unusable_cache = 1;
    }
    ocspFree(der);
}

/* What lies on disk for a certificate, against what is held. */
typedef enum {
    OCSP_CACHED_HARMLESS, /* nothing, or a response that says the same, or nothing that could be stapled */
    OCSP_CACHED_NEWER,    /* newer than what is held */
    OCSP_CACHED_CONTRADICTS, /* an older response with another status, or, for a revoked certificate, one that may be that */
} ocspCachedState;

/* Compares what `dir` holds for `cert` with what is held, and with `adopt` takes it if it is newer. OCSP thread, in
 * OpenSSL, which is left for the disk. For a revoked certificate a file that cannot be read or does not verify now (memory
 * has run out, the clock is wrong) counts as good, because it may be read and verify after a restart. */
static ocspCachedState ocspCompareCached(ocspCert *cert, const char *dir, int adopt) {
    ocspCachedState kept = cert->current.revoked ? OCSP_CACHED_CONTRADICTS : OCSP_CACHED_HARMLESS;
    unsigned char *der = NULL;
    size_t len = 0;
    int64_t mtime = 0;
    ocspResponse found;
    ocspError err = {0};
    int ok;

    ocspUnlockOpenSSL();
    ok = ocsp_env.cache_load(dir, cert->id, &der, &len, &mtime, &err);
    ocspLockOpenSSL();
    if ((!ok && err.kind == OCSP_ERR_NONE) ||
        (ok && len == cert->current.len && memcmp(der, cert->current.der, len) == 0)) {
        kept = OCSP_CACHED_HARMLESS;
    } else if (ok && ocspVerifyFile(cert, der, len, mtime, &found, &err)) {
        kept = found.revoked == cert->current.revoked ? OCSP_CACHED_HARMLESS : OCSP_CACHED_CONTRADICTS;
        if (ocspCompare(&cert->current, &found, ocspNow()) == OCSP_FRESH_NEWER) kept = OCSP_CACHED_NEWER;
        ocspResponseClear(&found);
    }
    if (kept == OCSP_CACHED_NEWER && adopt && !ocspAcceptResponse(cert, der, len, OCSP_SOURCE_CACHE, mtime, &err))
        kept = OCSP_CACHED_HARMLESS; /* no memory to take it: it is no reason not to store what is held */
    ocspFree(der);
    return kept;
}

/* Removes what `dir` holds for `cert` if it contradicts what is held; with `adopt` takes it if it is newer. Returns what
 * is there then. */
static ocspCachedState ocspRemoveContradicting(ocspCert *cert, const char *dir, int adopt, ocspError *err) {
    ocspCachedState kept = ocspCompareCached(cert, dir, adopt);
    int removed;

    if (kept != OCSP_CACHED_CONTRADICTS) return kept;
    ocspUnlockOpenSSL();
    removed = ocsp_env.cache_remove(dir, cert->id, err);
    ocspLockOpenSSL();
    return removed ? OCSP_CACHED_HARMLESS : kept;
}

/* Tells once what a restart would do after the disk refused: `outdated`: there lies what contradicts what is held;
 * `cache_dirty`: what is held is not there. */
static void ocspLogDisk(ocspCert *cert, const ocspError *outdated, const ocspError *cache_dirty) {
    if (outdated && !cert->logged_outdated) {
        ocspLog(
            OCSP_LOG_WARNING,
            "%s. It may hold an older response that says %s for the certificate with serial %s, and after a restart "
            "that would be stapled until it expires: remove the file, or make its directory writable",
            outdated->text, cert->current.revoked ? "good" : "revoked", cert->id->serial);
    } else if (!outdated && cert->logged_outdated) {
        ocspLog(OCSP_LOG_NOTICE, "no outdated response for the certificate with serial %s is on disk any more",
                cert->id->serial);
    }
    cert->logged_outdated = outdated != NULL;
    if (cache_dirty && !outdated && !worker.logged_disk)
        ocspLog(OCSP_LOG_WARNING,
                "%s. It is stapled from memory all the same, but a restart would begin without it: make "
                "cache-dir writable, or choose another",
                cache_dirty->text);
    if (cache_dirty) worker.logged_disk = 1;
}

/* Brings the disk in line with what is held for `cert`: what contradicts it is removed first, so that a kill or a full
 * disk in the middle leaves nothing rather than a response that a restart must not staple; then it is stored. A newer
 * response that another server left in the same directory is taken instead of being overwritten. Between the look and
 * the rename another server may still store one: that window is a few milliseconds, and closes with the next response.
 * Returns 1 when something was stored. OCSP thread, in OpenSSL. */
static int ocspStoreCert(ocspCert *cert) {
    const char *dir = worker.options.cache_dir ? worker.options.cache_dir : "";
    /* Without the issuer, which a reload may have taken away, what lies there cannot be judged: that is put off. */
    int i, judged = cert->id->issuer != NULL, storing = cert->cache_dirty && ocspCaches(), stored = 0, outdated = 0;
    ocspCachedState kept = OCSP_CACHED_HARMLESS;
    ocspError stale = {0}, err = {0};

    for (i = 0; judged && i < OCSP_PREVIOUS_DIRS && worker.previous_dirs[i]; i++)
        outdated |= ocspRemoveContradicting(cert, worker.previous_dirs[i], 0, &stale) == OCSP_CACHED_CONTRADICTS;
    if (judged && *dir) kept = ocspRemoveContradicting(cert, dir, ocspCaches(), &stale);
    if (storing && kept != OCSP_CACHED_NEWER) {
        ocspUnlockOpenSSL();
        stored = ocsp_env.cache_store(dir, cert->id, cert->current.der, cert->current.len, &err);
        ocspLockOpenSSL();
        if (stored) kept = OCSP_CACHED_HARMLESS;
        cert->cache_dirty = !stored;
    }
    if (judged) cert->outdated = outdated || kept == OCSP_CACHED_CONTRADICTS;
    ocspLogDisk(cert, cert->outdated && (judged || cert->logged_outdated) ? &stale : NULL,
                storing && cert->cache_dirty ? &err : NULL);
    if ((judged && cert->outdated) || (storing && cert->cache_dirty))
        cert->store_at_ms = ocsp_env.mono_ms() + OCSP_STORE_AGAIN_MS;
    if (stored && worker.logged_disk) {
        ocspLog(OCSP_LOG_NOTICE, "responses are kept on disk again");
        worker.logged_disk = 0;
    }
    return stored;
}

/* Is there something to store, or to compare? Without the issuer, which a reload may have taken away, nothing that lies
 * there can be verified. */
static int ocspDiskIsBehind(const ocspCert *cert) {
    return cert->current.der && ((cert->outdated && cert->id->issuer) || (cert->cache_dirty && ocspCaches()));
}

static void ocspStoreDirty(void) {
    ocspIoHooks wait = ocspWorkerWait();
    int i, stored = 0;

    for (i = 0; i < worker.count; i++) {
        ocspCert *cert = worker.certs[i];
        if (!ocspDiskIsBehind(cert) || (cert->store_at_ms && ocsp_env.mono_ms() < cert->store_at_ms)) continue;
        stored |= ocspStoreCert(cert);
    }
    if (stored && ocsp_env.mono_ms() >= worker.prune_at_ms) {
        worker.prune_at_ms = ocsp_env.mono_ms() + OCSP_PRUNE_MS;
        ocspUnlockOpenSSL();
        ocsp_env.cache_prune(worker.options.cache_dir, ocspNow(), &wait);
        ocspLockOpenSSL();
    }
}

/* cache-dir was `dir` and is another one now. What lies there is left for whoever may use it, another server or a restart
 * with the old directive, but from now on nothing is stored there: what contradicts a later response must be removed all
 * the same. Takes `dir`. */
static void ocspKeepPreviousDirectory(char *dir) {
    const char *now = worker.options.cache_dir ? worker.options.cache_dir : "";
    int i, kept = 0;

    for (i = 0; i < OCSP_PREVIOUS_DIRS; i++) { /* neither the one in use, nor one twice */
        char *left = worker.previous_dirs[i];
        worker.previous_dirs[i] = NULL;
        if (left && (strcmp(left, now) == 0 || strcmp(left, dir) == 0)) {
            ocspFree(left);
            left = NULL;
        }
        if (left) worker.previous_dirs[kept++] = left;
    }
    if (!*dir) {
        ocspFree(dir);
        return;
    }
    ocspFree(worker.previous_dirs[OCSP_PREVIOUS_DIRS - 1]);
    memmove(worker.previous_dirs + 1, worker.previous_dirs,
            sizeof(worker.previous_dirs) - sizeof(worker.previous_dirs[0]));
    worker.previous_dirs[0] = dir;
}

/* ---- what main handed over --------------------------------------------------------------------------------------- */

static void ocspCertFree(ocspCert *cert) {
    ocspIdentityFree(cert->id);
    ocspResponseClear(&cert->current);
    ocspFree(cert);
}

static void ocspUntrackCert(int i) {
    ocspCertFree(worker.certs[i]);
    worker.count--;
    memmove(&worker.certs[i], &worker.certs[i + 1], (size_t)(worker.count - i) * sizeof(worker.certs[0]));
}

static ocspCertState ocspStateOf(const ocspIdentity *id) {
    if (id->self_signed) return OCSP_STATE_SELF_SIGNED;
    if (!id->issuer) return OCSP_STATE_NO_ISSUER;
    return id->url_count || ocspHasUrl() || ocspHasFile() ? OCSP_STATE_PENDING : OCSP_STATE_NO_RESPONDER;
}

static ocspCert *ocspFindCert(const ocspIdentity *id) {
    int i;

    for (i = 0; i < worker.count; i++)
        if (memcmp(worker.certs[i]->id->sha256, id->sha256, sizeof(id->sha256)) == 0) return worker.certs[i];
    return NULL;
}

static void ocspAskAll(void) {
    int i;

    for (i = 0; i < worker.count; i++)
        if (worker.certs[i]->active && worker.certs[i]->state == OCSP_STATE_PENDING) worker.certs[i]->asked = 1;
}

/* Makes room for one more certificate: the oldest that is neither in service nor was until this reload. There is one
 * whenever the list is full, as a context holds at most half as many certificates as are followed. */
static void ocspMakeRoom(void) {
    int i;

    if (worker.count < OCSP_MAX_CERTS) return;
    for (i = 0; i < worker.count; i++)
        if (!worker.certs[i]->active && !worker.certs[i]->served) break;
    if (i < worker.count) ocspUntrackCert(i);
}

/* Follows a certificate of a newly attached context. One that is known keeps all it has: a staple belongs to the
 * certificate, not to the SSL_CTX (HAProxy stapled the old certificate's response after a renewal). Takes `id`; 0 when
 * out of memory. */
static int ocspTrackCert(ocspIdentity *id, int index) {
    ocspCert *cert = ocspFindCert(id);

    if (cert) {
        ocspIdentity *known = cert->id;
        /* Another module's context may have the same certificate without its chain: an issuer that is known stays. */
        int keep = known->issuer && !id->issuer;
        ocspIdentityFree(keep ? id : known);
        if (keep) id = known;
        /* A context that was expected is no reload of it: what was begun for it goes on. */
        if (worker.attached_before) cert->refresh_now = 1;
    } else {
        ocspMakeRoom();
        cert = worker.count < OCSP_MAX_CERTS ? ocspAlloc(sizeof(*cert)) : NULL;
        if (!cert) {
            ocspIdentityFree(id);
            return 0;
        }
        cert->logged_state = -1;
        cert->refresh_now = 1;
        worker.certs[worker.count++] = cert;
    }
    cert->id = id;
    cert->active = 1;
    cert->index = index;
    ocspShowUrl(cert);
    return 1;
}

/* The certificate in service that has this place in its context; NULL if there was no memory to follow it. */
static ocspCert *ocspCertAt(int index) {
    int i;

    for (i = 0; i < worker.count; i++)
        if (worker.certs[i]->active && worker.certs[i]->index == index) return worker.certs[i];
    return NULL;
}

/* Is it worth to put `id` in the place of what is known? */
static int ocspMoreComplete(const ocspIdentity *id, const ocspIdentity *known) {
    return (id->issuer && !known->issuer) || id->url_count > known->url_count || id->must_staple > known->must_staple ||
           id->self_signed > known->self_signed;
}

/* Identifies the certificates of worker.attachment: all of them, or those that are not known in full. All are identified
 * and those that are known are marked before the first one is followed, because following a new one may forget an old
 * one that is not in service. */
static void ocspIdentifyAll(int only_unsure) {
    const ocspContextCerts *a = worker.attachment;
    ocspIdentity *ids[OCSP_MAX_CERTS / 2] = {NULL};
    int i, missing = 0, unsure = 0;

    for (i = 0; i < a->count; i++) {
        const ocspCert *known = only_unsure ? ocspCertAt(i) : NULL;
        ocspCert *same;
        if (known && !known->id->incomplete) continue;
        ids[i] = ocspIdentityNew(a->leaf[i], a->chain[i], a->store);
        if (ids[i] && known && !ocspMoreComplete(ids[i], known->id)) {
            ocspIdentityFree(ids[i]);
            ids[i] = NULL;
            unsure = 1;
            continue;
        }
        if (!ids[i]) missing = 1;
        same = ids[i] ? ocspFindCert(ids[i]) : NULL;
        if (same) same->active = 1;
    }
    for (i = 0; i < a->count; i++) {
        if (!ids[i]) continue;
        unsure |= ids[i]->incomplete;
        if (!ocspTrackCert(ids[i], i)) missing = 1;
    }
    if (missing && !worker.identify_at_ms)
        ocspLog(OCSP_LOG_WARNING, "out of memory: a certificate is not stapled for until it is looked at again");
    /* What lacks something is looked at once more soon, as memory may have run out for a moment, and then now and then. */
    worker.identify_at_ms = 0;
    if (missing || unsure)
        worker.identify_at_ms = ocsp_env.mono_ms() + (missing || !only_unsure ? OCSP_STEP_MS : OCSP_IDENTIFY_AGAIN_MS);
}

/* Takes `a`, or with NULL looks again at the attachment in service. */
static void ocspAdoptContext(ocspContextCerts *a) {
    int i;

    if (a) {
        ocspContextCertsFree(worker.attachment);
        worker.attachment = a;
        worker.identify_at_ms = 0;
        for (i = 0; i < worker.count; i++) {
            worker.certs[i]->served = worker.certs[i]->active;
            worker.certs[i]->active = 0;
        }
    }
    ocspIdentifyAll(!a);
    worker.empty_state = worker.attachment->expected ? OCSP_STATE_NO_TLS : OCSP_STATE_NO_CERTIFICATE;
    /* A start is no reload: what the disk holds is stapled and refreshed in its time, or a fleet's restart would ask
     * for everything again. */
    for (i = 0; i < worker.count; i++) {
        ocspCert *cert = worker.certs[i];
        if (!cert->active) cert->asked = cert->refresh_now = 0;
        cert->state = ocspStateOf(cert->id);
        if (worker.options.stapling) ocspLoadCached(cert);
        if (!worker.attached_before && ocspHoldsValid(cert)) cert->refresh_now = 0;
    }
    if (!worker.attachment->expected) worker.attached_before = 1;
    if (worker.manual_refresh) ocspAskAll(); /* who waits for a refresh means the certificate that is served now */
    ocspPublish();
}

static int ocspDiffers(const char *a, const char *b) {
    return strcmp(a ? a : "", b ? b : "") != 0;
}

static void ocspApplyOptions(void) {
    ocspOptions old = worker.options;
    const ocspOptions *new = &worker.options;
    int i, source_changed, disk_changed;

    worker.options.responder_url = worker.options.cache_dir = worker.options.response_file = NULL;
    if (!ocspTakeOptions(&worker.options)) {
        worker.options = old;
        return;
    }
    disk_changed = ocspDiffers(old.cache_dir, new->cache_dir) || ocspDiffers(old.response_file, new->response_file);
    if (ocspDiffers(old.cache_dir, new->cache_dir)) {
        worker.logged_disk = 0;
        worker.prune_at_ms = 0;
        if (old.cache_dir) ocspKeepPreviousDirectory((char *)old.cache_dir);
        old.cache_dir = NULL;
    }
    source_changed =
        ocspDiffers(old.responder_url, new->responder_url) || ocspDiffers(old.response_file, new->response_file);
    if (ocspDiffers(old.response_file, new->response_file)) worker.file_signature = 0;
    for (i = 0; i < worker.count; i++) {
        ocspCert *cert = worker.certs[i];
        cert->state = ocspStateOf(cert->id);
        if (source_changed) {
            cert->refresh_now = cert->active;
            cert->attempt = 0;
            ocspShowUrl(cert);
        }
        if (disk_changed) {
            cert->outdated = 1;
            cert->cache_checked = cert->logged_unusable_cache = 0;
            cert->load_at_ms = 0;
            cert->cache_dirty = ocspHoldsValid(cert) && cert->current.source != OCSP_SOURCE_FILE;
            cert->store_at_ms = 0;
        }
        if (new->stapling && !old.stapling) cert->refresh_if_empty = cert->active;
        if (cert->current.der && new->refresh_margin != old.refresh_margin)
            cert->refresh_at_ms =
                ocspRefreshAtMs(&cert->current, new->refresh_margin, ocsp_env.wall_ms(), ocsp_env.random());
        if (cert->retry_at_ms && new->retry_delay != old.retry_delay) {
            int64_t at = ocsp_env.mono_ms() + ocspRetryDelayMs(new->retry_delay, cert->attempt, ocspRemainingMs(cert),
                                                               cert->id->must_staple, ocsp_env.random());
            if (at < cert->retry_at_ms) cert->retry_at_ms = at;
        }
    }
    ocspFreeOptions(&old);
}

/* ---- requested refreshes ----------------------------------------------------------------------------------------- */

static void ocspAnswer(ocspWaiter **waiters, const char *error) {
    while (*waiters) {
        ocspWaiter *waiter = *waiters;
        *waiters = waiter->next;
        waiter->done(waiter->arg, error);
        ocspFree(waiter);
    }
}

static void ocspBeginManualRefresh(void) {
    worker.manual_refresh = 1;
    worker.manual_ok = 0;
    worker.manual_error[0] = worker.manual_note[0] = '\0';
    ocspAskAll();
}

/* Ends the batch when each certificate had its round. Requests that came in meanwhile are served by it if it went well;
 * if not, one more follows at once. */
static void ocspEndManualRefresh(void) {
    ocspWaiter *late = NULL;
    const char *error;
    int i, again;

    for (i = 0; i < worker.count; i++)
        if (ocspDueIn(worker.certs[i]) <= 0 && worker.certs[i]->asked) return;
    again =
        ocspAnythingNew() ? 0 : ocspTakeRequests(&late); /* new options or certificates: asked for those, next step */
    error = worker.manual_error[0]                           ? worker.manual_error
            : worker.manual_ok == 0 && worker.manual_note[0] ? worker.manual_note
            : worker.manual_ok == 0                          ? "there is nothing to ask for"
                                                             : NULL;
    ocspStoreDirty();   /* before the answer: who waited may restart the server next */
    ocspReportStatus(); /* and who waited may look at INFO next */
    ocspAnswer(&worker.waiters, error);
    worker.manual_refresh = 0;
    if (!error) {
        ocspAnswer(&late, NULL);
    } else if (again) {
        worker.waiters = late;
        ocspBeginManualRefresh();
    }
}

/* ---- the step ---------------------------------------------------------------------------------------------------- */

/* A supplied file that changed is read again: by mtime, size and inode, through symbolic links (Kubernetes swaps
 * those). */
static void ocspWatchFile(void) {
    uint64_t mark;
    int i;

    if (!ocspHasFile()) return;
    ocspUnlockOpenSSL();
    mark = ocsp_env.file_signature(worker.options.response_file);
    ocspLockOpenSSL();
    if (mark == worker.file_signature) return;
    worker.file_signature = mark;
    for (i = 0; i < worker.count; i++) worker.certs[i]->refresh_now = worker.certs[i]->active;
}

/* Waits shrink with what they depend on: an hour's wait for a retry must not outlast the response, whatever the clock
 * does. */
static void ocspCapRetry(ocspCert *cert) {
    int64_t latest = ocsp_env.mono_ms() + ocspRetryCapMs(ocspRemainingMs(cert), cert->id->must_staple);

    if (cert->retry_at_ms > latest) cert->retry_at_ms = latest;
}

/* The wall clock went back: what was reckoned by the old one must not last longer than the policy says. */
static void ocspCapByClock(ocspCert *cert) {
    int64_t now_ms = ocsp_env.wall_ms(), hourly = now_ms + (int64_t)OCSP_REVOKED_RECHECK * 1000;

    if (!cert->current.der) return;
    if (cert->current.revoked && cert->refresh_at_ms > hourly) cert->refresh_at_ms = hourly;
    if (cert->current.next_update == 0 && cert->current.expires_at > now_ms / 1000 + OCSP_DEFAULT_VALIDITY) {
        cert->current.expires_at = (int64_t)(now_ms / 1000) + OCSP_DEFAULT_VALIDITY;
        cert->refresh_at_ms = ocspRefreshAtMs(&cert->current, worker.options.refresh_margin, now_ms, ocsp_env.random());
        ocspPublish();
    }
}

/* One step. With ask_network 0 nothing is asked but the disk. Returns milliseconds until the next, -1 for "when
 * woken". */
static int64_t ocspStep(int ask_network) {
    ocspContextCerts *a;
    int64_t wait = OCSP_STEP_MS;
    int i, requests, ran = 0, failed = 0, askable = 0, behind = 0;

    /* Requests first: what main had set before it asked is then taken after, and so known when the request is
     * served. */
    requests = ocspTakeRequests(&worker.waiters);
    ocspApplyOptions();
    a = ocspTakeContextCerts();
    if (a || (worker.identify_at_ms && ocsp_env.mono_ms() >= worker.identify_at_ms)) ocspAdoptContext(a);
    if (worker.unpublished) ocspPublish();
    if (!worker.options.stapling) {
        ocspAnswer(&worker.waiters, "OCSP stapling was turned off");
        worker.manual_refresh = 0;
        /* What a restart must not staple is removed all the same. */
        ocspStoreDirty();
        for (i = 0; i < worker.count; i++) {
            worker.certs[i]->asked = worker.certs[i]->refresh_now = 0;
            behind |= ocspDiskIsBehind(worker.certs[i]);
        }
        ocspReportStatus();
        /* there was no memory to take what is new: nobody wakes us again */
        return behind || ocspAnythingNew() ? OCSP_STEP_MS : -1;
    }
    ocspWatchFile();
    for (i = 0; i < worker.count; i++) {
        ocspCert *cert = worker.certs[i];
        ocspLogState(cert);
        ocspLoadCached(cert);
        ocspCapByClock(cert);
        if (cert->refresh_if_empty && !ocspHoldsValid(cert)) cert->refresh_now = 1;
        cert->refresh_if_empty = 0;
    }
    if (requests) ocspBeginManualRefresh();
    ocspReportStatus();

    for (i = 0; i < worker.count; i++) {
        ocspCert *cert = worker.certs[i];
        int outcome;
        ocspCapRetry(cert);
        askable += cert->active && cert->state == OCSP_STATE_PENDING;
        if (ocspDueIn(cert) > 0 || (!ask_network && !ocspHasFile())) continue;
        if (ran) ocspStoreDirty(); /* what is published is stored before another responder may hang */
        outcome = ocspRefreshCert(cert);
        ran += outcome >= 0;
        failed += outcome != 1;
        if (outcome < 0) break;
    }
    if (worker.manual_refresh) {
        ocspEndManualRefresh();
    } else if (ran > 0 && ran == askable && !failed && !ocspAnythingNew()) {
        ocspWaiter *served = NULL; /* asked for while this round was under way, which went well */
        ocspTakeRequests(&served);
        ocspStoreDirty();
        ocspReportStatus();
        ocspAnswer(&served, NULL);
    }
    if (ask_network) ocspStoreDirty(); /* not on main before the first accept */
    for (i = 0; i < worker.count; i++) {
        ocspCert *cert = worker.certs[i];
        if (cert->active) ocspLogTime(cert);
        if (ocspDueIn(cert) < wait) wait = ocspDueIn(cert);
    }
    ocspReportStatus();
    /* After a round the pipe may have been drained by it: look at what main handed over before waiting. */
    return ran || failed || wait < 0 ? 0 : wait;
}

int64_t ocspWorkerStep(void) {
    int64_t wait;

    ocspLockOpenSSL();
    wait = ocspStep(1);
    ocspUnlockOpenSSL();
    return wait;
}

void ocspWorkerPrime(void) {
    ocspLockOpenSSL();
    ocspStep(0);
    ocspUnlockOpenSSL();
}

/* ---- the thread itself ------------------------------------------------------------------------------------------- */

static void *ocspThreadMain(void *unused) {
    (void)unused;
#if defined(__linux__)
    pthread_setname_np(pthread_self(), OCSP_THREAD_NAME);
#elif defined(__APPLE__)
    pthread_setname_np(OCSP_THREAD_NAME);
#endif
    ocspThreadStarted();
    while (!atomic_load_explicit(&stopping, memory_order_relaxed)) {
        struct pollfd wake = {wake_pipe[0], POLLIN, 0};
        int64_t wait = ocspWorkerStep();
        if (wait != 0) poll(&wake, 1, (int)wait);
        ocspDrainPipe();
    }
    return NULL;
}

/* Opens the pipe that wakes the thread; both ends do not block, and no program that the server starts inherits them.
 * 1, or 0 with errno set. Main thread. With pipe2 both flags are there from the start; where there is none, another
 * thread that forks and executes in the moment before fcntl passes the descriptors on. */
static int ocspOpenPipe(void) {
    if (wake_pipe[0] >= 0) return 1;
#if OCSP_HAVE_PIPE2
    return pipe2(wake_pipe, O_CLOEXEC | O_NONBLOCK) == 0;
#else
    int i;

    if (pipe(wake_pipe) != 0) return 0;
    for (i = 0; i < 2; i++) {
        fcntl(wake_pipe[i], F_SETFD, FD_CLOEXEC);
        fcntl(wake_pipe[i], F_SETFL, O_NONBLOCK);
    }
    return 1;
#endif
}

int ocspThreadStart(void) {
    static int exit_handler;
    pthread_attr_t attr;
    sigset_t all, before;
    int fault;

    if (thread_started) return 1;
    if (!ocspOpenPipe()) return 0;
    /* After OpenSSL's own handler, so that it runs before it: make sure that OpenSSL has registered. */
    if (!exit_handler) {
        OPENSSL_init_ssl(0, NULL);
        exit_handler = atexit(ocspAtExit) == 0;
    }
    atomic_store_explicit(&stopping, 0, memory_order_relaxed);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, OCSP_THREAD_STACK);
    /* Signals are the server's business, and SIGPIPE of a responder that goes away is nobody's. A crash must reach the
     * server's handler all the same. */
    sigfillset(&all);
    sigdelset(&all, SIGSEGV);
    sigdelset(&all, SIGBUS);
    sigdelset(&all, SIGFPE);
    sigdelset(&all, SIGILL);
    sigdelset(&all, SIGABRT);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    thread_owner = getpid();
    fault = pthread_create(&thread, &attr, ocspThreadMain, NULL);
    thread_started = fault == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attr);
    errno = fault;
    return thread_started;
}

void ocspThreadStop(void) {
    int i;

    if (thread_started) {
        atomic_store_explicit(&stopping, 1, memory_order_relaxed);
        if (openssl_locked_at_exit) pthread_mutex_unlock(&openssl_lock);
        if (turnstile_locked_at_exit) pthread_mutex_unlock(&openssl_turnstile);
        openssl_locked_at_exit = turnstile_locked_at_exit = 0;
        ocspThreadWake();
        pthread_join(thread, NULL);
        thread_started = 0;
    }
    for (i = 0; i < 2; i++) {
        if (wake_pipe[i] >= 0) close(wake_pipe[i]);
        wake_pipe[i] = -1;
    }
    ocspAnswer(&worker.waiters, "the server is shutting down");
    while (worker.count > 0) ocspUntrackCert(0);
    ocspContextCertsFree(worker.attachment);
    ocspFreeOptions(&worker.options);
    for (i = 0; i < OCSP_PREVIOUS_DIRS; i++) ocspFree(worker.previous_dirs[i]);
    memset(&worker, 0, sizeof(worker));
}

#endif /* OCSP_SUPPORTED */
