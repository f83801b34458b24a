/* tls_hammer.c - load generator: handshakes on several threads, which request a staple and verify it.
 *
 *   tls_hammer --port P --ca FILE [--threads N] [--count N] [--until FILE] [--tls 1.2|1.3] [--no-ask]
 *              [--begun] [--mix] [--pause MS] [--hold FILE] [--every SECONDS]
 *
 * Makes --count handshakes in all (0: no limit), or runs until the file --until exists. Each staple is verified in full:
 * the signature of the CA or of an authorized responder, a SingleResponse for the certificate of this handshake, the
 * times. FILE may have several CAs. Prints one line at the end, and exits with 0 whatever the result:
 *
 *   handshakes=N failed=N stapled=N unstapled=N good=N revoked=N bad=N resumed=N aborted=N busy=N why=...
 *
 * failed: handshakes that were not completed; bad: staples that do not verify; why: the first reason of either. SIGTERM
 * or the end of --count ends it. --begun prints "begun" after the first handshake. --no-ask requests no status.
 *
 * For the soak: --mix varies the handshakes (TLS 1.2 or 1.3, with or without a status request, resuming a session,
 * aborted on purpose, which counts as aborted), --pause sleeps for up to so long after each, --every prints the line
 * periodically, and while the file --hold exists, no handshake starts (busy: threads that are still in one).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ocsp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#define MAX_THREADS 16
#define MAX_CAS 16
#define CLOCK_SKEW 300    /* seconds that thisUpdate may be in the future, as in the engine */
#define SOCKET_TIMEOUT 30 /* seconds without an answer after which a handshake has failed */

static int port, thread_count = 2, ask = 1;
static int mix, pause_ms, every;
static long count;
static const char *until, *hold;
static SSL_CTX *ctx;
static X509 *cas[MAX_CAS];
static int ca_count;
static STACK_OF(X509) *signers; /* the same CAs: a CA that signs responses need not send its certificate */
static X509_STORE *trust;
static atomic_long started, handshakes, failed, stapled, unstapled, good, revoked, bad, resumed, aborted, busy;
static atomic_int stop, begun;
static int say_begun;
static pthread_mutex_t why_lock = PTHREAD_MUTEX_INITIALIZER;
static char why[256] = "-";

static void note(const char *sentence) {
    pthread_mutex_lock(&why_lock);
    if (strcmp(why, "-") == 0) snprintf(why, sizeof(why), "%s", sentence);
    pthread_mutex_unlock(&why_lock);
}

static void onSignal(int sig) {
    (void)sig;
    atomic_store(&stop, 1);
}

/* Returns the CA whose key signed `leaf`, not just one of the same name. */
static X509 *issuerOf(X509 *leaf) {
    for (int i = 0; i < ca_count; i++) {
        if (X509_NAME_cmp(X509_get_issuer_name(leaf), X509_get_subject_name(cas[i])) != 0) continue;
        if (X509_verify(leaf, X509_get0_pubkey(cas[i])) == 1) return cas[i];
    }
    ERR_clear_error();
    return NULL;
}

/* Finds the SingleResponse for `leaf`, with a CertID of digest `md`. */
static int findEntry(OCSP_BASICRESP *basic,
                     const EVP_MD *md,
                     X509 *leaf,
                     X509 *issuer,
                     int *status,
                     ASN1_GENERALIZEDTIME **this_update,
                     ASN1_GENERALIZEDTIME **next_update) {
    OCSP_CERTID *id = OCSP_cert_to_id(md, leaf, issuer);
    int found = id != NULL && OCSP_resp_find_status(basic, id, status, NULL, NULL, this_update, next_update);

    OCSP_CERTID_free(id);
    return found;
}

/* Verifies a staple. Returns V_OCSP_CERTSTATUS_..., or -1 after a call of note(). */
static int judge(const unsigned char *der, long len, X509 *leaf) {
    const unsigned char *p = der;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, len);
    OCSP_BASICRESP *basic = NULL;
    ASN1_GENERALIZEDTIME *this_update, *next_update;
    X509 *issuer = issuerOf(leaf);
    int status = -1, verdict = -1;

    if (response == NULL || p != der + len) {
        note("the staple does not parse");
    } else if (OCSP_response_status(response) != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        note("the staple is not a successful response");
    } else if (issuer == NULL) {
        note("the server's certificate is not of a given CA");
    } else if ((basic = OCSP_response_get1_basic(response)) == NULL) {
        note("the staple is not a basic response");
    } else if (OCSP_basic_verify(basic, signers, trust, 0) != 1) {
        char text[200];

        snprintf(text, sizeof(text), "the staple's signature does not verify: %s",
                 ERR_reason_error_string(ERR_peek_error()));
        note(text);
    } else if (!findEntry(basic, EVP_sha1(), leaf, issuer, &status, &this_update, &next_update) &&
               !findEntry(basic, EVP_sha256(), leaf, issuer, &status, &this_update, &next_update)) {
        note("the staple is for another certificate");
    } else if (next_update != NULL && !OCSP_check_validity(this_update, next_update, CLOCK_SKEW, -1)) {
        note("the staple is not valid now");
    } else {
        verdict = status;
    }
    ERR_clear_error();
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    return verdict;
}

/* Per thread: the session to resume, and the random state. */
static _Thread_local SSL_SESSION *session;
static _Thread_local unsigned seed;

static int chance(int of) {
    return (int)((unsigned)rand_r(&seed) % (unsigned)of);
}

static int keepSession(SSL *ssl, SSL_SESSION *fresh) {
    (void)ssl;
    SSL_SESSION_free(session);
    session = fresh;
    return 1; /* the session now belongs to this function's thread */
}

/* Aborts a handshake: before its first byte, after garbage, after the ClientHello, or with an alert. */
static void breakOff(SSL *ssl, int fd) {
    int how = chance(4);

    atomic_fetch_add(&aborted, 1);
    if (how == 0) return;
    if (how == 1) {
        (void)!send(fd, "PING\r\n", 6, MSG_NOSIGNAL);
        return;
    }
    if (how == 3) /* the name does not match: an alert */
        X509_VERIFY_PARAM_set1_host(SSL_get0_param(ssl), "another.test.invalid", 0);
    if (how == 3) SSL_set_verify(ssl, SSL_VERIFY_PEER, NULL);
    if (how == 2) {
        struct timeval soon = {.tv_usec = 1};

        /* Does not wait for the answer. */
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
    }
    SSL_connect(ssl);
}

static void judgeStaple(SSL *ssl) {
    unsigned char *der = NULL;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der);
    X509 *leaf;
    int status;

    if (der == NULL || len <= 0) {
        atomic_fetch_add(&unstapled, 1);
        return;
    }
    leaf = SSL_get1_peer_certificate(ssl);
    status = judge(der, len, leaf);
    atomic_fetch_add(&stapled, 1);
    atomic_fetch_add(status == V_OCSP_CERTSTATUS_GOOD      ? &good
                     : status == V_OCSP_CERTSTATUS_REVOKED ? &revoked
                                                           : &bad,
                     1);
    X509_free(leaf);
}

static void oneHandshake(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)port)};
    struct timeval timeout = {.tv_sec = SOCKET_TIMEOUT};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;
    SSL *ssl = SSL_new(ctx);
    char answer[64];

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    /* Close by reset: tens of thousands of handshakes must not use up the ports in TIME_WAIT. */
    struct linger hard = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    SSL_set_fd(ssl, fd);
    if (mix) {
        int version = chance(2) ? TLS1_2_VERSION : TLS1_3_VERSION;

        SSL_set_min_proto_version(ssl, version);
        SSL_set_max_proto_version(ssl, version);
        if (session != NULL && chance(3) == 0 && SSL_SESSION_get_protocol_version(session) == version)
            SSL_set_session(ssl, session);
    }
    if (mix ? chance(4) != 0 : ask) SSL_set_tlsext_status_type(ssl, TLSEXT_STATUSTYPE_ocsp);
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        atomic_fetch_add(&failed, 1);
        note("connect failed");
    } else if (mix && chance(8) == 0) {
        breakOff(ssl, fd);
    } else if (SSL_connect(ssl) != 1) {
        char text[200];

        ERR_error_string_n(ERR_peek_error(), text, sizeof(text));
        atomic_fetch_add(&failed, 1);
        note(text);
    } else {
        atomic_fetch_add(&handshakes, 1);
        judgeStaple(ssl);
        if (SSL_session_reused(ssl)) atomic_fetch_add(&resumed, 1);
        /* In TLS 1.3, tickets come after the handshake. */
        if (mix && chance(2) && SSL_write(ssl, "PING\r\n", 6) == 6) (void)!SSL_read(ssl, answer, sizeof(answer));
        if (mix && chance(8) != 0) SSL_shutdown(ssl); /* or OpenSSL does not resume the session */
    }
    ERR_clear_error();
    SSL_free(ssl);
    close(fd);
}

static void *hammer(void *number) {
    seed = (unsigned)getpid() ^ ((unsigned)(size_t)number << 24);
    while (!atomic_load(&stop)) {
        if (count > 0 && atomic_fetch_add(&started, 1) >= count) break;
        if (until != NULL && access(until, F_OK) == 0) break;
        if (hold != NULL) {
            if (access(hold, F_OK) == 0) {
                usleep(20000);
                continue;
            }
            atomic_fetch_add(&busy, 1);
        }
        oneHandshake();
        if (say_begun && !atomic_exchange(&begun, 1)) {
            puts("begun");
            fflush(stdout);
        }
        if (hold != NULL) atomic_fetch_sub(&busy, 1);
        if (pause_ms > 0) usleep((unsigned)chance(pause_ms * 1000));
    }
    SSL_SESSION_free(session);
    return NULL;
}

static void printCounts(void) {
    printf("handshakes=%ld failed=%ld stapled=%ld unstapled=%ld good=%ld revoked=%ld bad=%ld resumed=%ld aborted=%ld "
           "busy=%ld why=%s\n",
           atomic_load(&handshakes), atomic_load(&failed), atomic_load(&stapled), atomic_load(&unstapled),
           atomic_load(&good), atomic_load(&revoked), atomic_load(&bad), atomic_load(&resumed), atomic_load(&aborted),
           atomic_load(&busy), why);
    fflush(stdout);
}

/* Thread: prints the counters every --every seconds. */
static void *tell(void *unused) {
    for (int slept = 0; !atomic_load(&stop); slept++) {
        if (until != NULL && access(until, F_OK) == 0) break;
        if (slept % (every * 5) == 0) printCounts();
        usleep(200000);
    }
    return unused;
}

int main(int argc, char **argv) {
    pthread_t threads[MAX_THREADS], teller;
    const char *ca_file = NULL;
    FILE *file;
    int version = 0;

    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";

        if (strcmp(argv[i], "--no-ask") == 0) {
            ask = 0;
            continue;
        }
        if (strcmp(argv[i], "--mix") == 0) {
            mix = 1;
            continue;
        }
        if (strcmp(argv[i], "--begun") == 0) {
            say_begun = 1;
            continue;
        }
        if (strcmp(argv[i], "--port") == 0) port = atoi(value);
        if (strcmp(argv[i], "--ca") == 0) ca_file = value;
        if (strcmp(argv[i], "--threads") == 0) thread_count = atoi(value);
        if (strcmp(argv[i], "--count") == 0) count = atol(value);
        if (strcmp(argv[i], "--until") == 0) until = value;
        if (strcmp(argv[i], "--pause") == 0) pause_ms = atoi(value);
        if (strcmp(argv[i], "--hold") == 0) hold = value;
        if (strcmp(argv[i], "--every") == 0) every = atoi(value);
        if (strcmp(argv[i], "--tls") == 0) version = strcmp(value, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
        i++;
    }
    if (port == 0 || ca_file == NULL || thread_count < 1 || thread_count > MAX_THREADS ||
        (file = fopen(ca_file, "r")) == NULL) {
        fprintf(stderr,
                "usage: tls_hammer --port P --ca FILE [--threads N] [--count N] [--until FILE] [--tls 1.2|1.3]\n");
        return 2;
    }
    signal(SIGTERM, onSignal);
    signal(SIGPIPE, SIG_IGN);
    trust = X509_STORE_new();
    signers = sk_X509_new_null();
    while (ca_count < MAX_CAS && (cas[ca_count] = PEM_read_X509(file, NULL, NULL, NULL)) != NULL) {
        X509_STORE_add_cert(trust, cas[ca_count]);
        sk_X509_push(signers, cas[ca_count++]);
    }
    fclose(file);
    ERR_clear_error();
    /* An intermediate CA among them is trusted without its root. */
    X509_STORE_set_flags(trust, X509_V_FLAG_PARTIAL_CHAIN);
    ctx = SSL_CTX_new(TLS_client_method());
    if (mix) {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(ctx, keepSession);
    } else {
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    }
    if (version != 0) {
        SSL_CTX_set_min_proto_version(ctx, version);
        SSL_CTX_set_max_proto_version(ctx, version);
    }
    if (every > 0) pthread_create(&teller, NULL, tell, NULL);
    for (int i = 0; i < thread_count; i++) pthread_create(&threads[i], NULL, hammer, (void *)(size_t)(i + 1));
    for (int i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
    atomic_store(&stop, 1);
    if (every > 0) pthread_join(teller, NULL);
    printCounts();
    return 0;
}
