/* simulate.c - runs worlds until enough years have passed, or replays one world by its number.
 *
 *     simulate [--years N | --minutes N | --worlds N] [--seed S] [--long | --short] [--chain]     worlds from number S on
 *     simulate --replay S [--long | --short] [--chain] [--trace]                        one; --trace: line by line
 *     simulate --self-test                                                              see sim_ca.c
 *
 * One of four worlds is short (responses valid for less than a day), unless --long or --short selects, and one of four has
 * intermediate CAs, with --chain all. The first broken
 * promise ends the run with status 1. Before that, the world is reduced and run again, as long as the same promise
 * breaks, and the shortest history found is printed (--brief: no such search).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "sim.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define SIM_SHRINK_SECONDS 30

typedef struct simPlan {
    uint64_t seed;
    simClass class;
    const char *class_option;
    int chain; /* only worlds with a chain */
    int brief;
    double years, minutes;
    long long worlds; /* of each bound 0: none */
} simPlan;

static simWorld world; /* large: not on the stack */
static volatile uint64_t running;

static double simClock(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Returns the processor time of this process in seconds, which other load on the machine does not change. */
static double simCpu(void) {
    struct rusage used;

    getrusage(RUSAGE_SELF, &used);
    return (double)used.ru_utime.tv_sec + (double)used.ru_utime.tv_usec / 1e6 + (double)used.ru_stime.tv_sec +
           (double)used.ru_stime.tv_usec / 1e6;
}

static void simCrashed(int signal_number) {
    char line[120];
    int n = snprintf(line, sizeof(line), "\nsimulate: signal %d in world %llu\n", signal_number,
                     (unsigned long long)running);

    if (n > 0) (void)!write(2, line, (size_t)n);
    _exit(3);
}

/* ---- the shortest history ---------------------------------------------------------------------------------------- */

#define SIM_SALTS 4

/* Whether the reduced world breaks the same promise. It may need other random numbers for that: SIM_SALTS are tried. */
static int simStillBreaks(simWorld *candidate, const simOutcome *first, simOutcome *again) {
    int i;

    for (i = 0; i < SIM_SALTS; i++) {
        simRun(candidate, 0, again);
        if (again->broken && strcmp(again->promise, first->promise) == 0) return 1;
        candidate->salt++;
    }
    return 0;
}

/* Moves all events to the start of the world, so that the empty time before them is not simulated. Returns 1 if the
 * world still breaks. */
static int simMoveEarlier(simWorld *w, const simOutcome *first, simOutcome *again) {
    static simWorld earlier;
    int64_t by = 0;
    int i;

    for (i = 0; i < w->event_count && !by; i++)
        if (!w->events[i].off) by = w->events[i].at - SIM_HOUR;
    for (; by > SIM_HOUR; by /= 2) {
        earlier = *w;
        for (i = 0; i < w->event_count; i++) earlier.events[i].at -= by;
        earlier.end_at -= by;
        if (!simStillBreaks(&earlier, first, again)) continue;
        *w = earlier;
        w->end_at = again->at + SIM_MINUTE;
        return 1;
    }
    return 0;
}

/* Removes events in ever smaller groups, then simplifies the parameters, then shortens events, for half a minute. */
static void simShrink(simWorld *w, const simOutcome *first) {
    static simWorld smaller;
    double until = simClock() + SIM_SHRINK_SECONDS;
    simOutcome again;
    int size, i, j, better = 1;

    if (w->max_steps > first->steps * 2 + 1000) w->max_steps = first->steps * 2 + 1000;
    for (i = 0; i < w->event_count; i++)
        if (w->events[i].at > first->at) w->events[i].off = 1;
    w->end_at = first->at + SIM_MINUTE;
    while (better && simClock() < until) {
        better = 0;
        for (size = w->event_count; size >= 1; size /= 2) {
            if (size < 4 && simMoveEarlier(w, first, &again)) better = 1;
            for (i = 0; i < w->event_count && simClock() < until; i += size) {
                int left_out = 0;
                smaller = *w;
                for (j = i; j < i + size && j < w->event_count; j++) {
                    left_out += !smaller.events[j].off;
                    smaller.events[j].off = 1;
                }
                if (!left_out || !simStillBreaks(&smaller, first, &again)) continue;
                *w = smaller;
                w->end_at = again.at + SIM_MINUTE;
                better = 1;
            }
        }
    }
    for (i = 0; i < 12 && simClock() < until; i++) {
        smaller = *w;
        if (i == 0) smaller.presign = 0;
        if (i == 1) smaller.backdate = 0;
        if (i == 2) smaller.signer_validity = 0;
        if (i == 3) smaller.urls = 1;
        if (i == 4) smaller.must_staple = 0;
        if (i == 5) smaller.two_certs = 0;
        if (i == 6) smaller.options = (ocspOptions)OCSP_OPTIONS_DEFAULT, smaller.options.stapling = 1;
        if (i == 7) smaller.latency = 1;
        if (i == 8) smaller.cert_validity = 10 * 366 * 86400;
        if (i == 9) smaller.no_next_update = 0;
        if (i == 10) smaller.round_to = 0;
        if (i == 11) memset(smaller.chain.padding, 0, sizeof(smaller.chain.padding));
        if (memcmp(&smaller, w, sizeof(smaller)) == 0 || !simStillBreaks(&smaller, first, &again)) continue;
        *w = smaller;
        w->end_at = again.at + SIM_MINUTE;
    }
    for (i = 0; i < w->event_count; i++) {
        while (!w->events[i].off && w->events[i].duration > 2 * SIM_SECOND && simClock() < until) {
            smaller = *w;
            smaller.events[i].duration /= 2;
            if (!simStillBreaks(&smaller, first, &again)) break;
            *w = smaller;
        }
    }
}

static void simPrintHistory(const simOutcome *first, const simPlan *plan) {
    simOutcome last;
    int i, left = 0;

    fflush(stdout);
    simShrink(&world, first);
    for (i = 0; i < world.event_count; i++) left += !world.events[i].off;
    printf("The shortest history found (%d of %d events):\n", left, world.event_count);
    simPrintWorld(&world);
    printf("The last half hour of this history:\n");
    simRun(&world, 0, &last);
    sim_trace_from = last.at - SIM_HOUR / 2;
    simRun(&world, 1, &last);
    printf("To replay the world: simulate --replay %llu%s%s\n", (unsigned long long)world.number, plan->class_option,
           plan->chain ? " --chain" : "");
}

/* ---- many worlds ------------------------------------------------------------------------------------------------- */

typedef struct simTally {
    long long worlds;
    double years, cpu;
} simTally;

typedef struct simTotal {
    simTally of[3]; /* by class; SIM_ANY is all */
    long long starts, handshakes, steps, refreshes, answers;
} simTotal;

static void simAdd(simTally *tally, const simOutcome *outcome, double cpu) {
    tally->worlds++;
    tally->years += (double)outcome->simulated_ms / (double)SIM_YEAR;
    tally->cpu += cpu;
}

static double simPerMinute(double years, double seconds) {
    return seconds > 0 ? years / seconds * 60 : 0;
}

static void simPrintTally(const char *what, const simTally *tally) {
    if (tally->worlds)
        printf("  %lld %s worlds, %.1f years, %.0f years per minute of processor time\n", tally->worlds, what,
               tally->years, simPerMinute(tally->years, tally->cpu));
}

static double simProgress(const simPlan *plan, const simTotal *total, double now) {
    double share = 0;

    if (plan->years > 0) share = total->of[SIM_ANY].years / plan->years;
    if (plan->minutes > 0 && now / 60 / plan->minutes > share) share = now / 60 / plan->minutes;
    if (plan->worlds && (double)total->of[SIM_ANY].worlds / (double)plan->worlds > share)
        share = (double)total->of[SIM_ANY].worlds / (double)plan->worlds;
    return share;
}

static int simRunWorlds(const simPlan *plan) {
    double began = simClock(), printed_at = 0, now = 0, share = 0, cpu;
    static simTotal total;
    simOutcome outcome;

    printf("simulate: worlds from number %llu on (the same again: simulate --seed %llu%s%s)\n",
           (unsigned long long)plan->seed, (unsigned long long)plan->seed, plan->class_option,
           plan->chain ? " --chain" : "");
    while (share < 1) {
        cpu = simCpu();
        simMakeWorld(&world, plan->seed + (uint64_t)total.of[SIM_ANY].worlds, plan->class, plan->chain);
        running = world.number;
        simRun(&world, 0, &outcome);
        cpu = simCpu() - cpu;
        simAdd(&total.of[SIM_ANY], &outcome, cpu);
        simAdd(&total.of[world.class], &outcome, cpu);
        total.starts += outcome.starts;
        total.handshakes += outcome.handshakes;
        total.steps += outcome.steps;
        total.refreshes += outcome.refreshes;
        total.answers += outcome.answers;
        if (outcome.broken) {
            printf("BROKEN in world %llu after %.1f years: %s: %s\n", (unsigned long long)world.number,
                   total.of[SIM_ANY].years, outcome.promise, outcome.text);
            if (!plan->brief) simPrintHistory(&outcome, plan);
            return 1;
        }
        now = simClock() - began;
        share = simProgress(plan, &total, now);
        if (share >= 1 || now - printed_at < (isatty(1) ? 1 : 10)) continue;
        printf("  %.0f s: %.0f years in %lld worlds, %.0f years per minute, %.0f s left\n", now,
               total.of[SIM_ANY].years, total.of[SIM_ANY].worlds, simPerMinute(total.of[SIM_ANY].years, now),
               now * (1 - share) / share);
        fflush(stdout);
        printed_at = now;
    }
    printf("simulate: %.1f years in %lld worlds from %llu on, no promise broken\n", total.of[SIM_ANY].years,
           total.of[SIM_ANY].worlds, (unsigned long long)plan->seed);
    simPrintTally("long", &total.of[SIM_LONG]);
    simPrintTally("short", &total.of[SIM_SHORT]);
    printf("  %lld starts, %lld steps, %lld refreshes, %lld different answers, %lld checks of the staple; %.0f s, "
           "%.0f s of processor time\n",
           total.starts, total.steps, total.refreshes, total.answers, total.handshakes, now, simCpu());
    return 0;
}

static int simReplayWorld(const simPlan *plan, int trace) {
    simOutcome outcome;

    simMakeWorld(&world, plan->seed, plan->class, plan->chain);
    running = plan->seed;
    if (trace) simPrintWorld(&world);
    simRun(&world, trace, &outcome);
    printf("  %lld starts, %lld steps, %lld refreshes, %lld different answers, %lld checks of the staple, %.2f years, "
           "%.2f s\n",
           outcome.starts, outcome.steps, outcome.refreshes, outcome.answers, outcome.handshakes,
           (double)outcome.simulated_ms / (double)SIM_YEAR, simCpu());
    printf("world %llu: %s%s%s\n", (unsigned long long)plan->seed,
           outcome.broken ? outcome.promise : "all promises hold", outcome.broken ? ": " : "", outcome.text);
    if (outcome.broken && !trace) simPrintHistory(&outcome, plan);
    return outcome.broken;
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static void simUsage(void) {
    fprintf(stderr,
            "usage: simulate [--years N | --minutes N | --worlds N] [--seed S] [--long | --short] [--chain] [--brief]\n"
            "       simulate --replay S [--long | --short] [--chain] [--trace]\n"
            "       simulate --self-test\n");
    exit(2);
}

int main(int argc, char **argv) {
    simPlan plan = {.seed = (uint64_t)time(NULL) * 1000003u % 1000000000u * 1000u, .class_option = ""};
    int replay = 0, trace = 0, self_test = 0, i;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--long") == 0) {
            plan.class = SIM_LONG;
            plan.class_option = " --long";
        } else if (strcmp(argv[i], "--short") == 0) {
            plan.class = SIM_SHORT;
            plan.class_option = " --short";
        } else if (strcmp(argv[i], "--chain") == 0) {
            plan.chain = 1;
        } else if (strcmp(argv[i], "--trace") == 0) {
            trace = 1;
        } else if (strcmp(argv[i], "--brief") == 0) {
            plan.brief = 1;
        } else if (strcmp(argv[i], "--self-test") == 0) {
            self_test = 1;
        } else if (i + 1 == argc) {
            simUsage();
        } else if (strcmp(argv[i], "--years") == 0) {
            plan.years = atof(argv[++i]);
        } else if (strcmp(argv[i], "--minutes") == 0) {
            plan.minutes = atof(argv[++i]);
        } else if (strcmp(argv[i], "--worlds") == 0) {
            plan.worlds = atoll(argv[++i]);
        } else if (strcmp(argv[i], "--seed") == 0) {
            plan.seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--replay") == 0) {
            plan.seed = strtoull(argv[++i], NULL, 10);
            replay = 1;
        } else {
            simUsage();
        }
    }
    if (plan.years <= 0 && plan.minutes <= 0 && plan.worlds <= 0) plan.years = 1000;
    simOpenSslBegin();
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, simCrashed);
    signal(SIGABRT, simCrashed);
    if (self_test) return simCaSelfTest();
    return replay ? simReplayWorld(&plan, trace) : simRunWorlds(&plan);
}
