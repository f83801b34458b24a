/* fleet.c - 100,000 nodes that were started in the same minute, four weeks, and what their CA gets to do.
 *
 *     fleet [--nodes N] [--seed N] [--out DIR]
 *
 * For responses signed at each request and for responses signed in advance, for lives of 1, 3.5 and 7 days and
 * margins of 10 % and 50 %: requests per minute with our chance and without it, and with the CA away for two hours.
 * Required:
 *
 *   spread    from the first refresh on, the busiest minute has at least 50 times fewer requests than without chance
 *   return    after two hours away, at the busiest time near the middle, no minute has more than 3 times the mean of
 *             the hour that follows the return; and when the two hours are moved, by 20 minutes and again, over 6
 *             hours around that time, no minute either that is above the level which `spread` allows
 *   rules     never later than the formula, a second between rounds (in every node's life; lives of 10 minutes and 20
 *             seconds too)
 *   engine    some nodes of each case are lived through by the engine's own steps: the same milliseconds
 *
 * Exit status 0 when all hold, 1 when not. The table goes to stdout and, with what the plot is made of, into DIR.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "fleet.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define FLEET_SPREAD 50
#define FLEET_RETURN 3
#define FLEET_AWAY (2 * 60)    /* minutes */
#define FLEET_MOVES 9          /* how often the two hours are moved by FLEET_MOVE, either way */
#define FLEET_MOVE 20          /* minutes */
#define FLEET_SAMPLE 3         /* nodes that the engine lives through, of each case */
#define FLEET_NODES_SHORT 1000 /* of the short lives */
#define FLEET_PLOT_BEFORE 180  /* minutes before the outage that the plot shows, */
#define FLEET_PLOT_AFTER 300   /* and after it */

static int nodes = 100000, failed;
static uint64_t seed = 1;
static const char *out = "build/fleet";
static FILE *table;

/* ---- one fleet --------------------------------------------------------------------------------------------------- */

typedef struct fleetCount {
    int minute[FLEET_MINUTES]; /* requests, without the first one of each node */
    long all;
} fleetCount;

static void fleetCountAsk(void *arg, int64_t at, int first) {
    fleetCount *count = arg;

    if (first) return;
    count->minute[at / FLEET_MINUTE]++;
    count->all++;
}

static void fleetRun(const fleetCase *c, fleetCount *count) {
    int i;

    memset(count, 0, sizeof(*count));
    for (i = 0; i < nodes; i++)
        if (!fleetNode(c, i, fleetCountAsk, count)) exit(1);
}

static int fleetPeak(const fleetCount *count, int from, int until) {
    int i, most = 0;

    for (i = from; i < until && i < FLEET_MINUTES; i++)
        if (count->minute[i] > most) most = count->minute[i];
    return most;
}

static double fleetMean(const fleetCount *count, int from, int until) {
    long sum = 0;
    int i;

    for (i = from; i < until; i++) sum += count->minute[i];
    return (double)sum / (until - from);
}

/* The first minute of the two hours with the most requests in the ten days around the middle. */
static int fleetBusiest(const fleetCount *count) {
    int from = (FLEET_DAYS / 2 - 5) * 24 * 60, until = (FLEET_DAYS / 2 + 5) * 24 * 60, at = from, i;
    double most = -1;

    for (i = from; i + FLEET_AWAY <= until; i++) {
        double mean = fleetMean(count, i, i + FLEET_AWAY);
        if (mean > most) {
            most = mean;
            at = i;
        }
    }
    return at;
}

/* ---- the rows ---------------------------------------------------------------------------------------------------- */

typedef struct fleetKind {
    const char *name, *file;
    double signs; /* part of the life; 0: at each request */
    int required; /* 0: told, but the figures are the CA's doing */
} fleetKind;

static const fleetKind kinds[] = {
    {"on demand", "demand", 0, 1},
    {"in advance, each 1/4 of the life", "quarter", 0.25, 1},
    {"in advance, each 1/2 of the life", "half", 0.5, 1},
    /* From the formula until the next signature each node asks in vain, as a quarter of what is left and the hour want
     * it: that is the policy, not chance, and no chance takes it away. */
    {"in advance, each 95 % of the life", "late", 0.95, 0},
};

static const double lives[] = {1, 3.5, 7}; /* days */
static const int margins[] = {10, 50};

static void fleetMiss(const char *promise, const fleetKind *kind, double days, int margin, const char *what) {
    failed++;
    fprintf(stderr, "MISSED %s: %s, life %.1f days, margin %d %%: %s\n", promise, kind->name, days, margin, what);
}

static FILE *fleetOpen(const char *name) {
    char path[512];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", out, name);
    if ((f = fopen(path, "w")) == NULL) {
        fprintf(stderr, "fleet: cannot write %s. Make the directory first, or name another with --out\n", path);
        exit(2);
    }
    return f;
}

static void fleetTell(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void fleetTell(const char *fmt, ...) {
    char text[1000];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fputs(text, stdout);
    fflush(stdout);
    fputs(text, table);
}

/* Half hours, by their busiest minute: day, without, with. */
static void fleetPlotWeeks(const char *name, const fleetCount *without, const fleetCount *with) {
    FILE *f = fleetOpen(name);
    int i;

    for (i = 0; i < FLEET_MINUTES; i += 30)
        fprintf(f, "%.4f %d %d\n", i / 1440.0, fleetPeak(without, i, i + 30), fleetPeak(with, i, i + 30));
    fclose(f);
}

/* Minutes around the outage: hours since its begin, requests. */
static void fleetPlotOutage(const char *name, const fleetCount *count, int away) {
    FILE *f = fleetOpen(name);
    int i;

    for (i = away - FLEET_PLOT_BEFORE; i < away + FLEET_AWAY + FLEET_PLOT_AFTER; i++)
        fprintf(f, "%.4f %d\n", (i - away) / 60.0, count->minute[i]);
    fclose(f);
}

/* ---- one case ---------------------------------------------------------------------------------------------------- */

static fleetCount without, with, outage; /* large: not on the stack */
static long engine_asked;
static int engine_nodes;

static void fleetEngine(const fleetCase *c) {
    int i;

    for (i = 0; i < FLEET_SAMPLE; i++, engine_nodes++)
        if (!fleetEngineAgrees(c, (int)((i * (int64_t)7919 + 13) % nodes), &engine_asked)) failed++;
}

static void fleetAway(fleetCase *c, int minute) {
    c->down = minute * FLEET_MINUTE;
    c->up = c->down + FLEET_AWAY * FLEET_MINUTE;
}

static void fleetRow(const fleetKind *kind, double days, int margin) {
    fleetCase c = {.life = (int64_t)(days * (double)FLEET_DAY),
                   .margin = margin,
                   .until = FLEET_DAYS * FLEET_DAY,
                   .seed = seed};
    char what[200], name[100];
    int away, back, peak_without, peak_with, peak_away, peak_back, i;
    double mean, ratio, spread, worst = 0, per_day = 1.0 / nodes / FLEET_DAYS;

    c.signs = (int64_t)(kind->signs * (double)c.life);
    c.phase = c.signs / 2;
    fleetRun(&c, &without);
    fleetEngine(&c);
    c.jitter = 1;
    fleetRun(&c, &with);
    peak_without = fleetPeak(&without, 0, FLEET_MINUTES);
    peak_with = fleetPeak(&with, 0, FLEET_MINUTES);
    spread = (double)peak_without / peak_with;

    away = fleetBusiest(&with);
    back = away + FLEET_AWAY;
    fleetAway(&c, away);
    fleetRun(&c, &outage);
    fleetEngine(&c);
    peak_away = fleetPeak(&outage, away, back);
    peak_back = fleetPeak(&outage, back, FLEET_MINUTES);
    mean = fleetMean(&outage, back, back + 60);
    ratio = peak_back / mean;
    snprintf(name, sizeof(name), "%s-%g-%d.dat", kind->file, days, margin);
    fleetPlotWeeks(name, &without, &with);
    snprintf(name, sizeof(name), "%s-%g-%d-outage.dat", kind->file, days, margin);
    fleetPlotOutage(name, &outage, away);

    for (i = -FLEET_MOVES; kind->required && i <= FLEET_MOVES; i++) {
        int from = away + i * FLEET_MOVE, most;
        fleetAway(&c, from);
        c.until = c.up + FLEET_HOUR;
        fleetRun(&c, &outage);
        most = fleetPeak(&outage, from + FLEET_AWAY, from + FLEET_AWAY + 60);
        if (most * FLEET_SPREAD <= peak_without) continue;
        mean = fleetMean(&outage, from + FLEET_AWAY, from + FLEET_AWAY + 60);
        if (most / mean > worst) worst = most / mean;
    }
    mean = peak_back / ratio;

    fleetTell("%4.1f %5d%% | %7d %6d %5.0f | %6.3f %6.3f | %6.2f %7d %7d %6.0f %5.2f %5.2f\n", days, margin,
              peak_without, peak_with, spread, (double)without.all * per_day, (double)with.all * per_day, away / 1440.0,
              peak_away, peak_back, mean, ratio, worst);
    if (!kind->required) return;
    if (spread < FLEET_SPREAD) {
        snprintf(what, sizeof(what), "the busiest minute is only %.1f times lower with chance", spread);
        fleetMiss("spread", kind, days, margin, what);
    }
    if (ratio > FLEET_RETURN) {
        snprintf(what, sizeof(what), "after the outage a minute has %.2f times the mean of the hour", ratio);
        fleetMiss("return", kind, days, margin, what);
    }
    if (worst > FLEET_RETURN) {
        snprintf(what, sizeof(what), "after an outage some hours off a minute has %.2f times the mean", worst);
        fleetMiss("return", kind, days, margin, what);
    }
}

/* ---- short lives ------------------------------------------------------------------------------------------------- */

static struct {
    int64_t last, shortest, longest;
    long asks;
} gaps;

static void fleetGap(void *arg, int64_t at, int first) {
    (void)arg;
    if (!first) {
        if (at - gaps.last < gaps.shortest) gaps.shortest = at - gaps.last;
        if (at - gaps.last > gaps.longest) gaps.longest = at - gaps.last;
        gaps.asks++;
    }
    gaps.last = at;
}

static void fleetShort(const char *name, int64_t life, int64_t signs, int margin) {
    fleetCase c = {.life = life, .signs = signs, .margin = margin, .jitter = 1, .until = 100 * life, .seed = seed};
    int i;

    c.phase = signs / 2;
    memset(&gaps, 0, sizeof(gaps));
    gaps.shortest = INT64_MAX;
    for (i = 0; i < FLEET_NODES_SHORT; i++)
        if (!fleetNode(&c, i, fleetGap, NULL)) exit(1);
    fleetEngine(&c);
    fleetTell("%6llds %5d%% | %-34s | %6.2f | %8.1f %8.1f\n", (long long)life / 1000, margin, name,
              (double)gaps.asks / FLEET_NODES_SHORT / 100, (double)gaps.shortest / 1000, (double)gaps.longest / 1000);
}

/* ---- main -------------------------------------------------------------------------------------------------------- */

static long fleetNumber(const char *option, const char *text, long least) {
    char *end = NULL;
    long value = text ? strtol(text, &end, 10) : 0;

    if (!text || *end || end == text || value < least) {
        fprintf(stderr, "fleet: %s needs a whole number, %ld or more\n", option, least);
        exit(2);
    }
    return value;
}

int main(int argc, char **argv) {
    const int all = (int)(sizeof(kinds) / sizeof(kinds[0]));
    time_t began = time(NULL);
    int i, l, m, done = 0;

    for (i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : NULL;
        if (strcmp(argv[i], "--nodes") == 0) {
            nodes = (int)fleetNumber(argv[i], value, 20000); /* below that minutes are too empty to compare */
        } else if (strcmp(argv[i], "--seed") == 0) {
            seed = (uint64_t)fleetNumber(argv[i], value, 0);
        } else if (strcmp(argv[i], "--out") == 0 && value) {
            out = value;
        } else {
            fprintf(stderr, "usage: fleet [--nodes N] [--seed N] [--out DIR]\n");
            return 2;
        }
    }
    table = fleetOpen("table.txt");
    fleetTell(
        "%d nodes started in the same minute, %d days, seed %llu. Requests per minute at the CA from the first\n"
        "refresh on; requests per node and day; the CA away for two hours from the day given: the busiest minute\n"
        "meanwhile, the busiest after, the mean of the hour after, the busiest's times of that; and the most such\n"
        "times when the two hours are moved (0: no minute above the level that %d times lower allows).\n",
        nodes, FLEET_DAYS, (unsigned long long)seed, FLEET_SPREAD);
    for (i = 0; i < all; i++) {
        fleetTell(
            "\n%s%s\nlife margin | without   with times | without  with | away at  tries   after   mean times moved\n",
            kinds[i].name, kinds[i].required ? "" : " (told, not required: for hours nothing newer is to be had)");
        for (l = 0; l < 3; l++) {
            for (m = 0; m < 2; m++) {
                fleetRow(&kinds[i], lives[l], margins[m]);
                done++;
                if (isatty(2))
                    fprintf(stderr, "  %d of %d cases, about %ld s to go\r", done, all * 6,
                            (long)(time(NULL) - began) * (all * 6 - done) / done);
            }
        }
    }
    fleetTell("\nshort lives: requests per node and life; the shortest and the longest time between two, in seconds\n");
    for (m = 0; m < 2; m++) {
        fleetShort("on demand", 20 * FLEET_SECOND, 0, margins[m]);
        fleetShort("in advance, each 1/2 of the life", 20 * FLEET_SECOND, 10 * FLEET_SECOND, margins[m]);
        fleetShort("on demand", 10 * FLEET_MINUTE, 0, margins[m]);
        fleetShort("in advance, each 1/2 of the life", 10 * FLEET_MINUTE, 5 * FLEET_MINUTE, margins[m]);
    }
    fleetTell("\nengine: %d nodes lived through by its own steps, %ld requests, %s\n", engine_nodes, engine_asked,
              failed ? "see above" : "each at the same millisecond");
    fleetTell("fleet: %s\n", failed ? "FAILED" : "passed");
    fclose(table);
    return failed ? 1 : 0;
}
