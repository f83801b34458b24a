/* load.c - the load of `make bench`: full TLS handshakes with and without a status request, PINGs of many busy clients,
 * the first handshakes after a start, and the time of a start. Only measures; run.tcl evaluates.
 *
 *   bench_load shake --port P [--tls 1.2|1.3] [--ask both|yes|no] [--threads 1] [--block 1] [--pairs 100] [--each]
 *                    [--warm 0] [--pids 12,34] [--against P2 [--unasked]]
 * blocks of full handshakes in pairs: one block requests a status, one does not. The order alternates from pair to
 *       pair, so that drift affects both. A line for each block:
 * block a|n WALL_US CPU_US STAPLED FAILED a: asked, n: not asked; CPU_US: CPU time of the processes --pids
 *       --against: blocks a use the server on P, blocks n the server on P2; all request a status, with --unasked none
 *       --warm: handshakes without a status request that come first and are not measured, for lazy loading and caches
 *       --each: also a line for each handshake, from connect() to the return of SSL_connect():
 *           shake a|n US
 *   bench_load ping --port P [--clients 50] [--millis 1000]
 *       clients that send the next PING when they get a reply:  ping COUNT P50 P99 P99.9 MAX  (us)
 *   bench_load first --port P [--count 100]
 *       waits until the port accepts, then performs COUNT handshakes with a status request:
 *           first STAPLED COUNT LAST_UNSTAPLED STARTED_US CONNECTED_US DONE_US
 * LAST_UNSTAPLED counts from 1, 0: none; the times (wall clock) are: the last handshake without a staple began, the
 *       first connection was accepted, and its handshake was complete
 *   bench_load start --port P COMMAND...
 * runs the server COMMAND: start US PID from exec to the first PONG on the plain port P; then waits for the exit
 *
 * Servers are on 127.0.0.1. Certificates are not verified, which saves CPU time of the load; the suites verify them.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <openssl/err.h>
#include <openssl/ssl.h>

#define MAX_THREADS 16
#define MAX_PIDS 64
#define MAX_CLIENTS 1000
#define MAX_SAMPLES 8000000
#define PATIENCE 30     /* seconds for one step: a server that hangs ends the run instead of stalling it */
#define SETTLE_US 1000  /* after a block: until the server has closed its sockets, too */
#define POLL_NAP_US 100 /* between two tries to connect to a starting server */

static const char ping[] = "*1\r\n$4\r\nPING\r\n";
static const char pong[] = "+PONG\r\n";

static struct sockaddr_in address = {.sin_family = AF_INET}, other = {.sin_family = AF_INET};
static SSL_CTX *ctx[2]; /* 1: requests a status */
static int block = 1, thread_count = 1, warm, unasked;
static int pids[MAX_PIDS], pid_count;

static double clockUs(clockid_t which) {
    struct timespec ts;

    clock_gettime(which, &ts);
    return (double)ts.tv_sec * 1e6 + (double)ts.tv_nsec / 1e3;
}

static double nowUs(void) {
    return clockUs(CLOCK_MONOTONIC);
}

static void die(const char *what) {
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    fprintf(stderr, "bench_load: %s: %s\n", what, reason ? reason : strerror(errno));
    exit(1);
}

static void *need(void *memory) {
    if (!memory) die("out of memory");
    return memory;
}

/* Returns the CPU time of the processes --pids in microseconds: all threads, as counted by the scheduler. */
static double serversCpuUs(void) {
    unsigned long long total = 0;
    int i;

    for (i = 0; i < pid_count; i++) {
        char path[300];
        struct dirent *entry;
        DIR *dir;

        snprintf(path, sizeof(path), "/proc/%d/task", pids[i]);
        dir = opendir(path);
        while (dir && (entry = readdir(dir))) {
            unsigned long long ran;
            FILE *file;
            snprintf(path, sizeof(path), "/proc/%d/task/%s/schedstat", pids[i], entry->d_name);
            file = entry->d_name[0] == '.' ? NULL : fopen(path, "r");
            if (file && fscanf(file, "%llu", &ran) == 1) total += ran;
            if (file) fclose(file);
        }
        if (dir) closedir(dir);
    }
    return (double)total / 1e3;
}

/* ---- handshakes -------------------------------------------------------------------------------------------------- */

static SSL_CTX *makeContext(int version, int ask) {
    SSL_CTX *made = need(SSL_CTX_new(TLS_client_method()));

    SSL_CTX_set_verify(made, SSL_VERIFY_NONE, NULL);
    SSL_CTX_set_session_cache_mode(made, SSL_SESS_CACHE_OFF);
    if (version && !(SSL_CTX_set_min_proto_version(made, version) && SSL_CTX_set_max_proto_version(made, version)))
        die("this OpenSSL does not speak that version of TLS");
    if (ask) SSL_CTX_set_tlsext_status_type(made, TLSEXT_STATUSTYPE_ocsp);
    return made;
}

/* Returns a connected socket, or -1. */
static int connectOnce(const struct sockaddr_in *to) {
    struct timeval patience = {.tv_sec = PATIENCE};
    struct linger hard = {.l_onoff = 1, .l_linger = 0}; /* no TIME_WAIT, which would use up the ports */
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0) die("no socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    if (connect(fd, (const struct sockaddr *)to, sizeof(*to)) == 0) return fd;
    close(fd);
    return -1;
}

/* Performs a handshake; NULL if it failed. */
static SSL *shakeHands(int ask) {
    int is_other = other.sin_port && !ask, fd;
    SSL *ssl = need(SSL_new(ctx[(ask || is_other) && !unasked]));

    fd = connectOnce(is_other ? &other : &address);
    if (fd >= 0 && SSL_set_fd(ssl, fd) && SSL_connect(ssl) == 1) return ssl;
    ERR_clear_error();
    SSL_free(ssl);
    if (fd >= 0) close(fd);
    return NULL;
}

static void hangUp(SSL *ssl) {
    int fd = SSL_get_fd(ssl);

    SSL_shutdown(ssl); /* without it the server logs an error */
    SSL_free(ssl);
    close(fd);
}

/* Returns 1 if the staple is a "successful" response: its first element is ENUMERATED 0. (Apache also staples
 * tryLater.) */
static int isStapled(SSL *ssl) {
    const unsigned char *der;
    long len = SSL_get_tlsext_status_ocsp_resp(ssl, &der), head = 2;

    if (len > 2 && der[1] & 0x80) head += der[1] & 0x7f;
    return len > head + 2 && der[0] == 0x30 && memcmp(der + head, "\x0a\x01\x00", 3) == 0;
}

/* A block is performed by all threads together. */
static pthread_barrier_t begin, end;
static atomic_int left, stapled, failed;
static int asking, quitting; /* written by main between the barriers */
static double *took;         /* microseconds of each handshake of the block; < 0: failed */

static void *shaker(void *unused) {
    for (;;) {
        int i;
        pthread_barrier_wait(&begin);
        if (quitting) return unused;
        while ((i = atomic_fetch_sub(&left, 1) - 1) >= 0) {
            double began = nowUs();
            SSL *ssl = shakeHands(asking);
            took[i] = ssl ? nowUs() - began : -1;
            if (!ssl) {
                atomic_fetch_add(&failed, 1);
                continue;
            }
            if (isStapled(ssl)) atomic_fetch_add(&stapled, 1);
            hangUp(ssl);
        }
        pthread_barrier_wait(&end);
    }
}

static void runBlock(int ask, int each) {
    double cpu = serversCpuUs(), began = nowUs(), wall;
    int i;

    asking = ask;
    atomic_store(&stapled, 0);
    atomic_store(&failed, 0);
    atomic_store(&left, block);
    pthread_barrier_wait(&begin);
    pthread_barrier_wait(&end);
    wall = nowUs() - began;
    if (pid_count) usleep(SETTLE_US);
    printf("block %c %.1f %.1f %d %d\n", ask ? 'a' : 'n', wall, serversCpuUs() - cpu, atomic_load(&stapled),
           atomic_load(&failed));
    for (i = 0; each && i < block; i++)
        if (took[i] >= 0) printf("shake %c %.1f\n", ask ? 'a' : 'n', took[i]);
}

static void shake(const char *ask, int pairs, int each) {
    pthread_t threads[MAX_THREADS];
    int i, both = strcmp(ask, "both") == 0, first = strcmp(ask, "no") != 0;

    for (i = 0; i < warm; i++) {
        SSL *ssl = shakeHands(other.sin_port && i % 2);
        if (ssl) hangUp(ssl);
    }
    took = need(calloc((size_t)block, sizeof(*took)));
    pthread_barrier_init(&begin, NULL, (unsigned)thread_count + 1);
    pthread_barrier_init(&end, NULL, (unsigned)thread_count + 1);
    for (i = 0; i < thread_count; i++)
        if (pthread_create(&threads[i], NULL, shaker, NULL) != 0) die("no thread");
    for (i = 0; i < pairs; i++) {
        runBlock(first, each);
        if (both) runBlock(!first, each);
        if (both) first = !first;
    }
    quitting = 1;
    pthread_barrier_wait(&begin);
    for (i = 0; i < thread_count; i++) pthread_join(threads[i], NULL);
    free(took);
}

/* ---- busy clients ------------------------------------------------------------------------------------------------ */

typedef struct busyClient {
    SSL *ssl;
    double sent_at;
    int got; /* bytes of the reply */
} busyClient;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double percentile(const double *sorted, int count, double p) {
    int i = (int)((double)count * p / 100.0);

    return sorted[i < count ? i : count - 1];
}

static void sendPing(busyClient *client) {
    client->got = 0;
    client->sent_at = nowUs();
    if (SSL_write(client->ssl, ping, sizeof(ping) - 1) <= 0) die("PING could not be sent");
}

/* Reads the available bytes; returns 1 when the reply is complete. */
static int readPong(busyClient *client) {
    char reply[sizeof(pong)];
    int n = SSL_read(client->ssl, reply, (int)sizeof(pong) - 1 - client->got);

    if (n <= 0) {
        if (SSL_get_error(client->ssl, n) == SSL_ERROR_WANT_READ) return 0;
        die("PING was not answered");
    }
    if (memcmp(reply, pong + client->got, (size_t)n) != 0) die("PING was answered with something else than PONG");
    client->got += n;
    return client->got == (int)sizeof(pong) - 1;
}

static void pings(int count, int millis) {
    busyClient *clients = need(calloc((size_t)count, sizeof(*clients)));
    double *samples = need(malloc(MAX_SAMPLES * sizeof(*samples))), until;
    int i, ready, sample_count = 0, poll = epoll_create1(0);

    for (i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &clients[i]};
        if (!(clients[i].ssl = shakeHands(0))) die("the handshake failed");
        fcntl(SSL_get_fd(clients[i].ssl), F_SETFL, O_NONBLOCK);
        if (epoll_ctl(poll, EPOLL_CTL_ADD, SSL_get_fd(clients[i].ssl), &event) != 0) die("epoll_ctl");
    }
    for (i = 0; i < count; i++) sendPing(&clients[i]);
    until = nowUs() + millis * 1e3;
    while (nowUs() < until) {
        struct epoll_event events[64];
        ready = epoll_wait(poll, events, 64, PATIENCE * 1000);
        if (ready == 0) die("nobody answers");
        for (i = 0; i < ready; i++) {
            busyClient *client = events[i].data.ptr;
            if (!readPong(client)) continue;
            if (sample_count < MAX_SAMPLES) samples[sample_count++] = nowUs() - client->sent_at;
            sendPing(client);
        }
    }
    qsort(samples, (size_t)sample_count, sizeof(*samples), ascending);
    printf("ping %d %.1f %.1f %.1f %.1f\n", sample_count, percentile(samples, sample_count, 50),
           percentile(samples, sample_count, 99), percentile(samples, sample_count, 99.9), samples[sample_count - 1]);
    for (i = 0; i < count; i++) hangUp(clients[i].ssl);
    close(poll);
    free(samples);
    free(clients);
}

/* ---- starts ------------------------------------------------------------------------------------------------------ */

static int awaitPort(void) {
    double until = nowUs() + PATIENCE * 1e6;

    for (;;) {
        int fd = connectOnce(&address);
        if (fd >= 0) return fd;
        if (nowUs() > until) die("the server takes no connection");
        usleep(POLL_NAP_US);
    }
}

static void firstOnes(int count) {
    int i, with = 0, last_without = 0, fd = awaitPort();
    double connected = clockUs(CLOCK_REALTIME), done = 0, started = 0;

    for (i = 1; i <= count; i++) {
        SSL *ssl;
        double began = clockUs(CLOCK_REALTIME);
        if (i == 1) {
            ssl = need(SSL_new(ctx[1]));
            if (!SSL_set_fd(ssl, fd) || SSL_connect(ssl) != 1) die("the first handshake failed");
        } else if (!(ssl = shakeHands(1))) {
            die("the handshake failed");
        }
        if (i == 1) done = clockUs(CLOCK_REALTIME);
        if (isStapled(ssl)) {
            with++;
        } else {
            last_without = i;
            started = began;
        }
        hangUp(ssl);
    }
    printf("first %d %d %d %.0f %.0f %.0f\n", with, count, last_without, started, connected, done);
}

static void start(char **command) {
    char reply[sizeof(pong)] = "";
    double began;
    int fd, status;
    pid_t pid;

    fflush(stdout);
    began = nowUs();
    pid = fork();
    if (pid < 0) die("fork");
    if (pid == 0) {
        int nowhere = open("/dev/null", O_RDWR);
        dup2(nowhere, 1); /* keeps its log out of the output */
        dup2(nowhere, 2);
        execvp(command[0], command);
        _exit(127);
    }
    fd = awaitPort();
    if (write(fd, ping, sizeof(ping) - 1) < 0 || read(fd, reply, sizeof(reply) - 1) <= 0 || strcmp(reply, pong) != 0)
        die("the server that was started does not answer PING");
    printf("start %.0f %d\n", nowUs() - began, (int)pid);
    fflush(stdout);
    close(fd);
    waitpid(pid, &status, 0);
}

/* ------------------------------------------------------------------------------------------------------------------ */

static int number(const char *text, int least, int most, const char *what) {
    long value = strtol(text, NULL, 10);

    if (value < least || value > most) {
        fprintf(stderr, "bench_load: %s is a number from %d to %d\n", what, least, most);
        exit(2);
    }
    return (int)value;
}

int main(int argc, char **argv) {
    int pairs = 100, each = 0, count = 100, clients = 50, millis = 1000, version = TLS1_3_VERSION, i;
    const char *mode = argc > 1 ? argv[1] : "", *ask = "both";

    for (i = 2; i < argc && argv[i][0] == '-'; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(name, "--each") == 0) {
            each = 1;
            continue;
        }
        if (strcmp(name, "--unasked") == 0) {
            unasked = 1;
            continue;
        }
        if (strcmp(name, "--port") == 0) address.sin_port = htons((uint16_t)number(value, 1, 65535, name));
        if (strcmp(name, "--against") == 0) other.sin_port = htons((uint16_t)number(value, 1, 65535, name));
        if (strcmp(name, "--tls") == 0) version = strcmp(value, "1.2") == 0 ? TLS1_2_VERSION : TLS1_3_VERSION;
        if (strcmp(name, "--ask") == 0) ask = value;
        if (strcmp(name, "--threads") == 0) thread_count = number(value, 1, MAX_THREADS, name);
        if (strcmp(name, "--block") == 0) block = number(value, 1, 1000000, name);
        if (strcmp(name, "--warm") == 0) warm = number(value, 0, 1000, name);
        if (strcmp(name, "--pairs") == 0) pairs = number(value, 1, 1000000, name);
        if (strcmp(name, "--count") == 0) count = number(value, 1, 1000000, name);
        if (strcmp(name, "--clients") == 0) clients = number(value, 1, MAX_CLIENTS, name);
        if (strcmp(name, "--millis") == 0) millis = number(value, 1, 3600000, name);
        for (; strcmp(name, "--pids") == 0 && *value && pid_count < MAX_PIDS; value += *value == ',')
            pids[pid_count++] = (int)strtol(value, (char **)&value, 10);
        i++;
    }
    signal(SIGPIPE, SIG_IGN);
    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    other.sin_addr = address.sin_addr;
    ctx[0] = makeContext(version, 0);
    ctx[1] = makeContext(version, 1);
    if (!address.sin_port) mode = "";
    if (strcmp(mode, "shake") == 0) {
        shake(ask, pairs, each);
    } else if (strcmp(mode, "ping") == 0) {
        pings(clients, millis);
    } else if (strcmp(mode, "first") == 0) {
        firstOnes(count);
    } else if (strcmp(mode, "start") == 0 && i < argc) {
        start(argv + i);
    } else {
        fputs("usage: bench_load shake|ping|first|start --port P ...: the head of utils/bench/load.c tells all\n",
              stderr);
        return 2;
    }
    SSL_CTX_free(ctx[0]);
    SSL_CTX_free(ctx[1]);
    return 0;
}
