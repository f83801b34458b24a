/* requests.c - computes how many requests a CA gets from one server per day: a simulated year of the engine's schedule
 * (the unmodified src/ocsp_schedule.c), with the engine's jitter.
 *
 * Prints lines: requests CASE LIFE_SECONDS PER_DAY for several validity intervals with a responder that signs on
 * demand, and for a responder that is down all day, with and without a current response.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#include <stdio.h>
#include <stdlib.h>

#define DAY 86400
#define DAYS 365
#define MARGIN 10 /* percent; seconds below: the directives' defaults */
#define RETRY_DELAY 10

static uint32_t chance(void) {
    return (uint32_t)random() << 16 ^ (uint32_t)random();
}

/* Returns the requests per day with responses valid for `life` seconds; 0: without nextUpdate. */
static double healthy(time_t life) {
    static unsigned char der[1];
    int64_t now = 0, end = (int64_t)DAYS * DAY * 1000;
    long count = 0;

    while (now < end) {
        ocspResponse held = {.der = der, .len = 1, .this_update = (time_t)(now / 1000)};
        int64_t at, floor = now + OCSP_MIN_INTERVAL_MS;
        held.next_update = life ? held.this_update + life : 0;
        held.expires_at = held.this_update + (life ? life : OCSP_DEFAULT_VALIDITY);
        count++;
        at = ocspRefreshAtMs(&held, MARGIN, now, chance());
        now = at > floor ? at : floor;
    }
    return (double)count / DAYS;
}

/* Returns the refreshes per day of an outage; `remaining`: validity of the current response at its start, 0: none. */
static double down(int64_t remaining) {
    long count = 0;
    int day;

    for (day = 0; day < DAYS; day++) {
        int64_t now = 0;
        unsigned attempt = 0;
        while (now < (int64_t)DAY * 1000) {
            count++;
            now += ocspRetryDelayMs(RETRY_DELAY, ++attempt, remaining - now, 0, chance());
        }
    }
    return (double)count / DAYS;
}

int main(void) {
    static const time_t lives[] = {0, 3600, DAY, 7 * DAY};
    size_t i;

    srandom(1);
    for (i = 0; i < sizeof(lives) / sizeof(*lives); i++)
        printf("requests healthy %ld %.2f\n", (long)lives[i], healthy(lives[i]));
    printf("requests down-held %d %.2f\n", 7 * DAY, down((int64_t)7 * DAY * 1000));
    printf("requests down-empty 0 %.2f\n", down(0));
    return 0;
}
