/* simulate.c - runs worlds until enough years have passed, or one world again by its number.
 *
 *     simulate [--years N] [--minutes N] [--seed S] [--long | --short]     many worlds, from number S on
 *     simulate --replay S [--long | --short]                               one, told line by line
 *
 * The first broken promise ends it: the world is run again and again with less in it, as long as the same promise
 * breaks, and the shortest history found is printed.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "sim.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define SIM_SHRINK_SECONDS 20

static simWorld world; /* large: not on the stack */
static volatile uint64_t running;

static double simClock(void) {
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void simCrashed(int signal_number) {
    char line[120];
    int n = snprintf(line, sizeof(line), "\nsimulate: signal %d in world %llu\n", signal_number,
                     (unsigned long long)running);

    if (n > 0) (void)!write(2, line, (size_t)n);
    _exit(3);
}

/* ---- the shortest history ---------------------------------------------------------------------------------------- */

static int simStillBreaks(const simWorld *candidate, const simOutcome *first, simOutcome *again) {
    simRun(candidate, 0, again);
    return again->broken && strcmp(again->promise, first->promise) == 0;
}

/* Leaves events out, in ever smaller groups, then makes the rest simpler. */
static void simShrink(simWorld *w, const simOutcome *first) {
    static simWorld smaller;
    double until = simClock() + SIM_SHRINK_SECONDS;
    simOutcome again;
    int size, i, j, better = 1;

    sim_most_steps = first->steps * 2 + 1000;
    for (i = 0; i < w->event_count; i++)
        if (w->events[i].at > first->at) w->events[i].off = 1;
    w->ends = first->at + SIM_MINUTE;
    while (better && simClock() < until) {
        better = 0;
        for (size = w->event_count; size >= 1; size /= 2) {
            for (i = 0; i < w->event_count && simClock() < until; i += size) {
                int left_out = 0;
                smaller = *w;
                for (j = i; j < i + size && j < w->event_count; j++) {
                    left_out += !smaller.events[j].off;
                    smaller.events[j].off = 1;
                }
                if (!left_out || !simStillBreaks(&smaller, first, &again)) continue;
                *w = smaller;
                w->ends = again.at + SIM_MINUTE;
                better = 1;
            }
        }
    }
    for (i = 0; i < 10 && simClock() < until; i++) {
        smaller = *w;
        if (i == 0) smaller.presign = 0;
        if (i == 1) smaller.backdate = 0;
        if (i == 2) smaller.delegate_life = 0;
        if (i == 3) smaller.urls = 1;
        if (i == 4) smaller.must_staple = 0;
        if (i == 5) smaller.two_certs = 0;
        if (i == 6) smaller.options = (ocspOptions)OCSP_OPTIONS_DEFAULT, smaller.options.stapling = 1;
        if (i == 7) smaller.latency = 1;
        if (i == 8) smaller.cert_life = 10 * 366 * 86400;
        if (i == 9) smaller.no_next = 0;
        if (memcmp(&smaller, w, sizeof(smaller)) == 0 || !simStillBreaks(&smaller, first, &again)) continue;
        *w = smaller;
        w->ends = again.at + SIM_MINUTE;
    }
    for (i = 0; i < w->event_count; i++) { /* shorter */
        while (!w->events[i].off && w->events[i].lasts > 2 * SIM_SECOND && simClock() < until) {
            smaller = *w;
            smaller.events[i].lasts /= 2;
            if (!simStillBreaks(&smaller, first, &again)) break;
            *w = smaller;
        }
    }
    sim_most_steps = INT64_MAX;
}

static void simTellHistory(const simOutcome *first, const char *class_option) {
    simOutcome last;
    int i, left = 0;

    fflush(stdout);
    simShrink(&world, first);
    for (i = 0; i < world.event_count; i++) left += !world.events[i].off;
    printf("The shortest history found (%d of %d events):\n", left, world.event_count);
    simPrintWorld(&world);
    printf("Its last half hour:\n");
    simRun(&world, 0, &last);
    sim_trace_from = last.at - SIM_HOUR / 2;
    simRun(&world, 1, &last);
    printf("Again: simulate --replay %llu%s\n", (unsigned long long)world.number, class_option);
}

/* ---- the command line -------------------------------------------------------------------------------------------- */

static void simUsage(void) {
    fprintf(stderr, "usage: simulate [--years N] [--minutes N] [--seed S] [--long | --short] | --replay S [--trace]\n");
    exit(2);
}

int main(int argc, char **argv) {
    double years = 1000, minutes = 0, began, told = 0, now, lived = 0;
    uint64_t seed = (uint64_t)time(NULL) * 1000003u % 1000000000u * 1000u;
    int replay = 0, trace = 0, i;
    long long worlds = 0, starts = 0, handshakes = 0, steps = 0, answers = 0;
    simClass class = SIM_ANY;
    const char *class_option = "";
    simOutcome outcome;

    for (i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--long") == 0) {
            class = SIM_LONG;
            class_option = " --long";
        } else if (strcmp(argv[i], "--short") == 0) {
            class = SIM_SHORT;
            class_option = " --short";
        } else if (strcmp(argv[i], "--trace") == 0) {
            trace = 1;
        } else if (i + 1 == argc) {
            simUsage();
        } else if (strcmp(argv[i], "--years") == 0) {
            years = atof(argv[++i]);
        } else if (strcmp(argv[i], "--minutes") == 0) {
            minutes = atof(argv[++i]);
            years = 1e12;
        } else if (strcmp(argv[i], "--seed") == 0) {
            seed = strtoull(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--replay") == 0) {
            seed = strtoull(argv[++i], NULL, 10);
            replay = 1;
        } else {
            simUsage();
        }
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    signal(SIGSEGV, simCrashed);
    signal(SIGABRT, simCrashed);
    if (replay) {
        simMakeWorld(&world, seed, class);
        running = seed;
        if (trace) simPrintWorld(&world);
        simRun(&world, trace, &outcome);
        printf("  %lld starts, %lld steps, %lld answers that differ, %lld looks at the staple, %.2f years\n",
               outcome.starts, outcome.steps, outcome.answers, outcome.handshakes,
               (double)outcome.lived / (double)SIM_YEAR);
        printf("world %llu: %s%s%s\n", (unsigned long long)seed, outcome.broken ? outcome.promise : "all promises hold",
               outcome.broken ? ": " : "", outcome.text);
        if (outcome.broken && !trace) simTellHistory(&outcome, class_option);
        return outcome.broken;
    }

    printf("simulate: worlds from number %llu on (simulate --seed %llu%s does the same again)\n",
           (unsigned long long)seed, (unsigned long long)seed, class_option);
    began = simClock();
    for (;;) {
        simMakeWorld(&world, seed + (uint64_t)worlds, class);
        running = world.number;
        simRun(&world, 0, &outcome);
        worlds++;
        lived += (double)outcome.lived / (double)SIM_YEAR;
        starts += outcome.starts;
        handshakes += outcome.handshakes;
        steps += outcome.steps;
        answers += outcome.answers;
        if (outcome.broken) {
            printf("BROKEN in world %llu after %.1f years: %s: %s\n", (unsigned long long)world.number, lived,
                   outcome.promise, outcome.text);
            simTellHistory(&outcome, class_option);
            return 1;
        }
        now = simClock() - began;
        if (lived >= years || (minutes > 0 && now >= minutes * 60)) break;
        if (now - told >= (isatty(1) ? 1 : 10)) {
            double left = minutes > 0 ? minutes * 60 - now : (years - lived) * now / lived;
            printf("  %.0f s: %.0f years in %lld worlds, %.0f years a minute, %.0f s to go\n", now, lived, worlds,
                   lived / now * 60, left);
            fflush(stdout);
            told = now;
        }
    }
    printf("simulate: %.1f years in %lld worlds from %llu on, no promise broken (%lld starts, %lld steps, %lld answers "
           "that differ, %lld looks at the staple; %.0f s, %.0f years a minute)\n",
           lived, worlds, (unsigned long long)seed, starts, steps, answers, handshakes, now, lived / now * 60);
    return 0;
}
