/* fleet.c - simulates 100,000 nodes that start in the same minute, for four weeks, and counts the requests at their CA.
 *
 *     fleet [--nodes N] [--seed N] [--out DIR]
 *
 * For responses signed at each request and for responses signed in advance, valid for 1, 3.5 and 7 days, with margins
 * of 10 % and 50 %: requests per minute with and without jitter, and with an outage of the CA of two hours. Required:
 *
 *   spread    from the first refresh on, the busiest minute has at least 50 times fewer requests than without jitter
 *   return    after an outage in the busiest two hours near the middle, no minute has more than 3 times the mean of the
 *             first hour after it. The outage is then shifted in steps of 20 minutes, over 6 hours around that time:
 *             the same for each minute that is above the level which `spread` allows
 *   interval  with max-interval 3600, no minute has more than 3 times the mean: after a start of all nodes in the same
 *             minute, after a restart, and after an outage of the CA. Where every node is overdue after a restart, none has
 *             more than 10 times the mean: after a stop of two hours, and where the cached response is an old one, because
 *             the CA signs in advance
 *   chain     with staple-chain, a CA whose responses are valid for a week or longer costs at most two requests in each
 *             validity interval
 *   rules     no refresh after the deadline or after max-interval, a second between refreshes (for every node; for a
 *             validity of 10 minutes and of 20 seconds too)
 *   engine    the whole engine, run for some nodes of each case, sends its requests at the same milliseconds
 *
 * Exit status 0 if all hold, else 1. The table goes to stdout and, with the data of the plot, into DIR.
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
#define FLEET_OUTAGE (2 * 60) /* minutes */
#define FLEET_INTERVAL 3600   /* max-interval, seconds */
#define FLEET_OVERDUE 10      /* after a stop longer than max-interval */
#define FLEET_INTERVAL_DAYS 3
#define FLEET_CHAIN 2 /* requests for a CA of a chain in one validity interval */
#define FLEET_CHAIN_INTERVALS 50
#define FLEET_EVENT (36 * 60)  /* minute in which all nodes stop, or the CA's outage begins */
#define FLEET_SHIFTS 9         /* the outage is shifted by FLEET_SHIFT this often, both ways */
#define FLEET_SHIFT 20         /* minutes */
#define FLEET_SAMPLE 3         /* nodes of each case that the whole engine simulates */
#define FLEET_NODES_SHORT 1000 /* nodes with a short validity */
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

static void fleetCountRequest(void *arg, int64_t at, int first) {
    fleetCount *count = arg;

    if (first) return;
    count->minute[at / FLEET_MINUTE]++;
    count->all++;
}

static void fleetRun(const fleetCase *c, fleetCount *count) {
    int i;

    memset(count, 0, sizeof(*count));
    for (i = 0; i < nodes; i++)
        if (!fleetNode(c, i, fleetCountRequest, count)) exit(1);
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

/* Returns the first minute of the busiest two hours in the ten days around the middle. */
static int fleetBusiest(const fleetCount *count) {
    int from = (FLEET_DAYS / 2 - 5) * 24 * 60, until = (FLEET_DAYS / 2 + 5) * 24 * 60, at = from, i;
    double most = -1;

    for (i = from; i + FLEET_OUTAGE <= until; i++) {
        double mean = fleetMean(count, i, i + FLEET_OUTAGE);
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
    double sign_fraction; /* fraction of the validity between two signatures; 0: at each request */
    int required;         /* 0: printed only, because the CA's interval determines the figures */
} fleetKind;

static const fleetKind kinds[] = {
    {"on demand", "demand", 0, 1},
    {"in advance, every 1/4 of validity", "quarter", 0.25, 1},
    {"in advance, every 1/2 of validity", "half", 0.5, 1},
    /* From its deadline until the next signature each node repeats its request in vain, after a quarter of the
     * remaining validity, at most an hour. That is the policy, and no jitter changes it. */
    {"in advance, every 95 % of validity", "late", 0.95, 0},
};

static const double validities[] = {1, 3.5, 7}; /* days */
static const int margins[] = {10, 50};

static void fleetReportMiss(const char *promise, const fleetKind *kind, double days, int margin, const char *what) {
    failed++;
    fprintf(stderr, "MISSED %s: %s, validity %.1f days, margin %d %%: %s\n", promise, kind->name, days, margin, what);
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

static void fleetPrint(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void fleetPrint(const char *fmt, ...) {
    char text[1000];
    va_list args;

    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    fputs(text, stdout);
    fflush(stdout);
    fputs(text, table);
}

/* Writes the busiest minute of each half hour: day, without jitter, with jitter. */
static void fleetPlotWeeks(const char *name, const fleetCount *without, const fleetCount *with) {
    FILE *f = fleetOpen(name);
    int i;

    for (i = 0; i < FLEET_MINUTES; i += 30)
        fprintf(f, "%.4f %d %d\n", i / 1440.0, fleetPeak(without, i, i + 30), fleetPeak(with, i, i + 30));
    fclose(f);
}

/* Writes the minutes around the outage: hours since its start, requests. */
static void fleetPlotOutage(const char *name, const fleetCount *count, int outage_start) {
    FILE *f = fleetOpen(name);
    int i;

    for (i = outage_start - FLEET_PLOT_BEFORE; i < outage_start + FLEET_OUTAGE + FLEET_PLOT_AFTER; i++)
        fprintf(f, "%.4f %d\n", (i - outage_start) / 60.0, count->minute[i]);
    fclose(f);
}

/* ---- one case ---------------------------------------------------------------------------------------------------- */

static fleetCount without, with, outage; /* large: not on the stack */
static long engine_requests;
static int engine_nodes;

static void fleetCompareEngine(const fleetCase *c) {
    int i;

    for (i = 0; i < FLEET_SAMPLE; i++, engine_nodes++)
        if (!fleetEngineAgrees(c, (int)((i * (int64_t)7919 + 13) % nodes), &engine_requests)) failed++;
}

static void fleetSetOutage(fleetCase *c, int minute) {
    c->down = minute * FLEET_MINUTE;
    c->up = c->down + FLEET_OUTAGE * FLEET_MINUTE;
}

static void fleetRow(const fleetKind *kind, double days, int margin) {
    fleetCase c = {.validity = (int64_t)(days * (double)FLEET_DAY),
                   .margin = margin,
                   .until = FLEET_DAYS * FLEET_DAY,
                   .seed = seed};
    char what[200], name[100];
    int outage_start, outage_end, peak_without, peak_with, peak_outage, peak_after, i;
    double mean, ratio, spread, worst = 0, per_day = 1.0 / nodes / FLEET_DAYS;

    c.sign_interval = (int64_t)(kind->sign_fraction * (double)c.validity);
    c.phase = c.sign_interval / 2;
    fleetRun(&c, &without);
    fleetCompareEngine(&c);
    c.jitter = 1;
    fleetRun(&c, &with);
    peak_without = fleetPeak(&without, 0, FLEET_MINUTES);
    peak_with = fleetPeak(&with, 0, FLEET_MINUTES);
    spread = (double)peak_without / peak_with;

    outage_start = fleetBusiest(&with);
    outage_end = outage_start + FLEET_OUTAGE;
    fleetSetOutage(&c, outage_start);
    fleetRun(&c, &outage);
    fleetCompareEngine(&c);
    peak_outage = fleetPeak(&outage, outage_start, outage_end);
    peak_after = fleetPeak(&outage, outage_end, FLEET_MINUTES);
    mean = fleetMean(&outage, outage_end, outage_end + 60);
    ratio = peak_after / mean;
    snprintf(name, sizeof(name), "%s-%g-%d.dat", kind->file, days, margin);
    fleetPlotWeeks(name, &without, &with);
    snprintf(name, sizeof(name), "%s-%g-%d-outage.dat", kind->file, days, margin);
    fleetPlotOutage(name, &outage, outage_start);

    for (i = -FLEET_SHIFTS; kind->required && i <= FLEET_SHIFTS; i++) {
        int from = outage_start + i * FLEET_SHIFT, most;
        fleetSetOutage(&c, from);
        c.until = c.up + FLEET_HOUR;
        fleetRun(&c, &outage);
        most = fleetPeak(&outage, from + FLEET_OUTAGE, from + FLEET_OUTAGE + 60);
        if (most * FLEET_SPREAD <= peak_without) continue;
        mean = fleetMean(&outage, from + FLEET_OUTAGE, from + FLEET_OUTAGE + 60);
        if (most / mean > worst) worst = most / mean;
    }
    mean = peak_after / ratio;

    fleetPrint("%4.1f %5d%% | %7d %6d %5.0f | %6.3f %6.3f | %6.2f %7d %7d %6.0f %5.2f %5.2f\n", days, margin,
               peak_without, peak_with, spread, (double)without.all * per_day, (double)with.all * per_day,
               outage_start / 1440.0, peak_outage, peak_after, mean, ratio, worst);
    if (!kind->required) return;
    if (spread < FLEET_SPREAD) {
        snprintf(what, sizeof(what), "the busiest minute is only %.1f times lower with jitter", spread);
        fleetReportMiss("spread", kind, days, margin, what);
    }
    if (ratio > FLEET_RETURN) {
        snprintf(what, sizeof(what), "after the outage a minute has %.2f times the mean of the hour", ratio);
        fleetReportMiss("return", kind, days, margin, what);
    }
    if (worst > FLEET_RETURN) {
        snprintf(what, sizeof(what), "after a shifted outage a minute has %.2f times the mean of the hour", worst);
        fleetReportMiss("return", kind, days, margin, what);
    }
}

/* ---- max-interval ------------------------------------------------------------------------------------------------ */

/* Returns the ratio of the busiest minute to the mean one; both from minute `from` on. */
static double fleetRatio(const fleetCount *count, int from) {
    return fleetPeak(count, from, FLEET_INTERVAL_DAYS * 24 * 60) /
           fleetMean(count, from + 2 * FLEET_INTERVAL / 60, FLEET_INTERVAL_DAYS * 24 * 60);
}

static void fleetRequireRatio(const fleetKind *kind, double ratio, double most, const char *when) {
    char what[200];

    if (ratio <= most) return;
    snprintf(what, sizeof(what), "%s, a minute has %.2f times the mean", when, ratio);
    fleetReportMiss("interval", kind, 7, 10, what);
}

/* Stops all nodes for `minutes` and returns the ratio after that; with `is_outage` it is the CA that is down. */
static double fleetStopped(fleetCase c, int minutes, int is_outage) {
    int64_t from = FLEET_EVENT * FLEET_MINUTE, until = from + minutes * FLEET_MINUTE;

    *(is_outage ? &c.down : &c.stop) = from;
    *(is_outage ? &c.up : &c.start) = until;
    fleetRun(&c, &outage);
    fleetCompareEngine(&c);
    return fleetRatio(&outage, FLEET_EVENT + minutes);
}

static void fleetIntervalRow(const fleetKind *kind) {
    fleetCase c = {.validity = 7 * FLEET_DAY,
                   .margin = 10,
                   .max_interval = FLEET_INTERVAL,
                   .until = FLEET_INTERVAL_DAYS * FLEET_DAY,
                   .seed = seed};
    double start_without, start, restart, overdue, returned;

    c.sign_interval = (int64_t)(kind->sign_fraction * (double)c.validity);
    c.phase = c.sign_interval / 2;
    fleetRun(&c, &without);
    start_without = fleetRatio(&without, 0);
    c.jitter = 1;
    fleetRun(&c, &with);
    fleetCompareEngine(&c);
    start = fleetRatio(&with, 0);
    restart = fleetStopped(c, 2, 0);
    overdue = fleetStopped(c, FLEET_OUTAGE, 0);
    returned = fleetStopped(c, FLEET_OUTAGE, 1);
    fleetPrint("%-34s | %7d %6.0f %6.2f %6.2f | %7.2f %7.2f %7.2f | %6.2f\n", kind->name,
               fleetPeak(&with, 0, FLEET_INTERVAL_DAYS * 24 * 60),
               fleetMean(&with, 2 * FLEET_INTERVAL / 60, FLEET_INTERVAL_DAYS * 24 * 60), start_without, start, restart,
               overdue, returned, (double)with.all / nodes / FLEET_INTERVAL_DAYS);
    fleetRequireRatio(kind, start, FLEET_RETURN, "after a start");
    /* Where the CA has nothing newer, the cached response was received long ago, so that a restart is as a long stop. */
    fleetRequireRatio(kind, restart, kind->sign_fraction > 0 ? FLEET_OVERDUE : FLEET_RETURN, "after a restart");
    fleetRequireRatio(kind, overdue, FLEET_OVERDUE, "after a stop of two hours");
    fleetRequireRatio(kind, returned, FLEET_RETURN, "after an outage");
}

/* ---- short validity ---------------------------------------------------------------------------------------------- */

static struct {
    int64_t last, shortest, longest;
    long requests;
} gaps;

static void fleetGap(void *arg, int64_t at, int first) {
    (void)arg;
    if (!first) {
        if (at - gaps.last < gaps.shortest) gaps.shortest = at - gaps.last;
        if (at - gaps.last > gaps.longest) gaps.longest = at - gaps.last;
        gaps.requests++;
    }
    gaps.last = at;
}

static void fleetShortRow(const char *name, int64_t validity, int64_t sign_interval, int margin) {
    fleetCase c = {.validity = validity,
                   .sign_interval = sign_interval,
                   .margin = margin,
                   .jitter = 1,
                   .until = 100 * validity,
                   .seed = seed};
    int i;

    c.phase = sign_interval / 2;
    memset(&gaps, 0, sizeof(gaps));
    gaps.shortest = INT64_MAX;
    for (i = 0; i < FLEET_NODES_SHORT; i++)
        if (!fleetNode(&c, i, fleetGap, NULL)) exit(1);
    fleetCompareEngine(&c);
    fleetPrint("%6llds %5d%% | %-34s | %6.2f | %8.1f %8.1f\n", (long long)validity / 1000, margin, name,
               (double)gaps.requests / FLEET_NODES_SHORT / 100, (double)gaps.shortest / 1000,
               (double)gaps.longest / 1000);
}

/* ---- chains ------------------------------------------------------------------------------------------------------ */

static void fleetAddRequest(void *arg, int64_t at, int first) {
    (void)at;
    *(long *)arg += !first;
}

/* Returns the requests for one certificate, for each node and day. */
static double fleetRate(const fleetKind *kind, double days) {
    /* Many refreshes, as the first and the end count for none. */
    fleetCase c = {.validity = (int64_t)(days * (double)FLEET_DAY), .margin = 10, .jitter = 1, .seed = seed};
    long requests = 0;
    int i;

    c.until = FLEET_CHAIN_INTERVALS * c.validity;
    c.sign_interval = (int64_t)(kind->sign_fraction * (double)c.validity);
    c.phase = c.sign_interval / 2;
    for (i = 0; i < FLEET_NODES_SHORT; i++)
        if (!fleetNode(&c, i, fleetAddRequest, &requests)) exit(1);
    return (double)requests / FLEET_NODES_SHORT / (FLEET_CHAIN_INTERVALS * days);
}

/* Each certificate of a chain is refreshed as if it were alone, so that the sums are those of the certificates. */
static void fleetChainRows(const fleetKind *kind) {
    static const double authorities[] = {7, 30, 90}; /* days */
    double alone[3], ca;
    char what[200];
    int i, l;

    for (l = 0; l < 3; l++) alone[l] = fleetRate(&kinds[0], validities[l]);
    for (i = 0; i < 3; i++) {
        ca = fleetRate(kind, authorities[i]);
        fleetPrint("%-36s %3.0f | %6.3f", kind->name, authorities[i], ca);
        for (l = 0; l < 3; l++) fleetPrint(" | %6.3f %6.3f %6.3f", alone[l], alone[l] + ca, alone[l] + 2 * ca);
        fleetPrint("\n");
        if (!kind->required || ca * authorities[i] <= FLEET_CHAIN) continue;
        snprintf(what, sizeof(what), "%.2f requests in each validity interval", ca * authorities[i]);
        fleetReportMiss("chain", kind, authorities[i], 10, what);
    }
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
            nodes = (int)fleetNumber(argv[i], value, 20000); /* with fewer, minutes have too few requests to compare */
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
    fleetPrint(
        "%d nodes started in the same minute, %d days, seed %llu. Columns: validity in days, refresh-margin;\n"
        "requests at the CA in the busiest minute from the first refresh on, without and with jitter, and their\n"
        "ratio; requests per node and day; an outage of two hours: its start (day), the busiest minute during it\n"
        "and after it, the mean minute of the hour after it, the ratio of the last two, and the largest ratio when\n"
        "the outage is moved (0: no minute above 1/%d of the busiest minute without jitter).\n",
        nodes, FLEET_DAYS, (unsigned long long)seed, FLEET_SPREAD);
    for (i = 0; i < all; i++) {
        fleetPrint(
            "\n%s%s\ndays margin | without   with ratio | without  with | outage  during   after   mean ratio moved\n",
            kinds[i].name, kinds[i].required ? "" : " (printed, not required: for hours the CA has nothing newer)");
        for (l = 0; l < 3; l++) {
            for (m = 0; m < 2; m++) {
                fleetRow(&kinds[i], validities[l], margins[m]);
                done++;
                if (isatty(2))
                    fprintf(stderr, "  %d of %d cases, about %ld s to go\r", done, all * 6,
                            (long)(time(NULL) - began) * (all * 6 - done) / done);
            }
        }
    }
    fleetPrint(
        "\nmax-interval %d, responses valid for 7 days, margin 10 %%: all nodes started in the same minute, the\n"
        "busiest minute from the first refresh on, the mean one, and their ratio without and with jitter; the\n"
        "ratio after all nodes were stopped for 2 minutes and for %d, and after an outage of %d minutes;\n"
        "requests per node and day\n",
        FLEET_INTERVAL, FLEET_OUTAGE, FLEET_OUTAGE);
    for (i = 0; i < all - 1; i++) fleetIntervalRow(&kinds[i]);
    fleetPrint("\nshort validity: requests per node and validity interval; shortest and longest interval in seconds\n");
    for (m = 0; m < 2; m++) {
        fleetShortRow("on demand", 20 * FLEET_SECOND, 0, margins[m]);
        fleetShortRow("in advance, every 1/2 of validity", 20 * FLEET_SECOND, 10 * FLEET_SECOND, margins[m]);
        fleetShortRow("on demand", 10 * FLEET_MINUTE, 0, margins[m]);
        fleetShortRow("in advance, every 1/2 of validity", 10 * FLEET_MINUTE, 5 * FLEET_MINUTE, margins[m]);
    }
    fleetPrint(
        "\nstaple-chain, margin 10 %%: how the CAs' responses are signed, and their validity in days; requests per node\n"
        "and day for one such CA; and for a leaf whose responses are signed on demand and valid for %g, %g and %g days:\n"
        "alone, in a chain of two, and of three\n",
        validities[0], validities[1], validities[2]);
    for (i = 0; i < all; i++) fleetChainRows(&kinds[i]);
    fleetPrint("\nengine: %d nodes simulated with the whole engine, %ld requests, %s\n", engine_nodes, engine_requests,
               failed ? "see above" : "each at the same millisecond");
    fleetPrint("fleet: %s\n", failed ? "FAILED" : "passed");
    fclose(table);
    return failed ? 1 : 0;
}
