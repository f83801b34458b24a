/* ocsp_schedule.c - when to ask next. Pure arithmetic: no clock, no thread, no OpenSSL state; chance is an argument.
 *
 * The rules, each with the server that taught it:
 *  - Never later than the margin formula, and earlier by chance, so that a fleet that started together does not ask
 *    together.
 *  - Retries back off and saturate. HAProxy shifted a delay left by the number of failures: after 26 it overflowed and
 *    hammered the responder. Redis Enterprise gave up after 5 tries.
 *  - Nobody is slowest when worst off: the wait shrinks with the life that is left, and is short when nothing is held.
 *  - Never a spin: NATS halves its interval down to nothing; ours has a floor of a second.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED

/* Part of `span` that `random` chooses: 0 to span. In 128 bits' stead, span is below 2^43 ms (a thousand years). */
static int64_t ocspShare(int64_t span, uint32_t random) {
    return (span >> 32) * random + (((span & UINT32_MAX) * (uint64_t)random) >> 32);
}

/* A random part of at most a tenth of `window_ms`, and of the time that is left: with a wide margin a part of the
 * window can be longer than the wait, and would make each answer due at once. */
static int64_t ocspSpread(int64_t window_ms, int64_t left_ms, uint32_t random) {
    if (left_ms < window_ms) window_ms = left_ms > 0 ? left_ms : 0;
    return ocspShare(window_ms / 10, random);
}

/* The window before the end in which refreshing is due, in seconds. */
static int64_t ocspMarginWindow(const ocspResponse *held, int margin_percent) {
    int64_t life;

    if (held->next_update == 0) return OCSP_LIFE_WITHOUT_END / 2; /* its thisUpdate tells nothing about its life */
    life = (int64_t)held->end - held->this_update;
    return life > 0 ? life * margin_percent / 100 : 0;
}

time_t ocspRefreshFormula(const ocspResponse *held, int margin_percent) {
    return held->end - (time_t)ocspMarginWindow(held, margin_percent);
}

int64_t ocspRefreshAtMs(const ocspResponse *held, int margin_percent, int64_t now_ms, uint32_t random) {
    int64_t life_ms = ((int64_t)held->end - held->this_update) * 1000;
    int64_t window_ms = ocspMarginWindow(held, margin_percent) * 1000;
    int64_t hour_ms = (int64_t)OCSP_REVOKED_RECHECK * 1000;
    int64_t at, hourly;

    /* In milliseconds, so that a response of a few seconds has a window too. */
    if (held->next_update != 0 && life_ms > 0) window_ms = life_ms / 100 * margin_percent;
    at = (int64_t)held->end * 1000 - window_ms;
    at -= ocspSpread(window_ms, at - now_ms, random);
    /* A lifted hold (certificateHold) must be seen within the hour, however long the revoked answer may live. */
    hourly = now_ms + hour_ms - ocspShare(hour_ms / 10, random);
    return held->revoked && at > hourly ? hourly : at;
}

int64_t ocspRetryCapMs(int64_t remaining_ms, int must_staple) {
    if (remaining_ms <= 0) return must_staple ? OCSP_RETRY_MAX_MUST_MS : OCSP_RETRY_MAX_EMPTY_MS;
    if (remaining_ms / 4 < OCSP_ROUND_FLOOR_MS) return OCSP_ROUND_FLOOR_MS;
    return remaining_ms / 4 < OCSP_RETRY_MAX_MS ? remaining_ms / 4 : OCSP_RETRY_MAX_MS;
}

int64_t ocspRetryDelayMs(int retry_delay, unsigned attempt, int64_t remaining_ms, int must_staple, uint32_t random) {
    int64_t cap = ocspRetryCapMs(remaining_ms, must_staple);
    int64_t base = (int64_t)retry_delay * 1000;
    int64_t low, high;

    while (attempt > 1 && base < cap) { /* doubling stops at the cap: there is no exponent to overflow */
        base *= 2;
        attempt--;
    }
    if (base > cap) base = cap;
    low = base - base / 5;
    high = base + base / 5;
    if (high > cap) high = cap; /* at the cap the spread goes below it, or a fleet would meet there */
    base = low + ocspShare(high - low, random);
    return base > OCSP_ROUND_FLOOR_MS ? base : OCSP_ROUND_FLOOR_MS;
}

#endif /* OCSP_SUPPORTED */
