/* ocsp_schedule.c - when to ask next. Pure arithmetic: no clock, no thread, no OpenSSL state; chance is an argument.
 *
 * The rules, each with the server that taught it:
 *  - Never later than the margin deadline, and earlier by chance, so that a fleet that started together does not ask
 *    together. How much earlier was measured: `make fleet`.
 *  - Retries back off and saturate. HAProxy shifted a delay left by the number of failures: after 26 it overflowed and
 *    hammered the responder. Redis Enterprise gave up after 5 tries. A few quick ones for a hiccup, then patience.
 *  - Nobody is slowest when worst off: the wait shrinks with the life that is left, and is short when nothing is held.
 *  - Never a spin: NATS halves its interval down to nothing; ours has a floor of a second.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED

/* Part of `span` that `random` chooses: 0 to span. In 128 bits' stead, span is below 2^43 ms (a thousand years). */
static int64_t ocspScaleRandom(int64_t span, uint32_t random) {
    return (span >> 32) * random + (((span & UINT32_MAX) * (uint64_t)random) >> 32);
}

/* The window before the end in which refreshing is due, in seconds. */
static int64_t ocspMarginWindow(const ocspResponse *current, int margin_percent) {
    int64_t life;

    if (current->next_update == 0) return OCSP_DEFAULT_VALIDITY / 2; /* its thisUpdate tells nothing about its life */
    life = (int64_t)current->expires_at - current->this_update;
    return life > 0 ? life * margin_percent / 100 : 0;
}

int64_t ocspRefreshDeadline(const ocspResponse *current, int margin_percent) {
    return current->expires_at - (int64_t)ocspMarginWindow(current, margin_percent);
}

/* The formula in milliseconds, so that a response of a few seconds has a window too; and when the wait for it began. */
static int64_t ocspDeadlineMs(const ocspResponse *current, int margin_percent, int64_t *from_ms) {
    int64_t end_ms = (int64_t)current->expires_at * 1000, life_ms = end_ms - (int64_t)current->this_update * 1000,
            window_ms;

    if (current->next_update == 0) life_ms = (int64_t)OCSP_DEFAULT_VALIDITY * 1000;
    if (life_ms < 0) life_ms = 0;
    window_ms = current->next_update == 0 ? life_ms / 2 : life_ms / 100 * margin_percent;
    *from_ms = end_ms - life_ms;
    return end_ms - window_ms;
}

/* How much earlier than the formula chance may move a refresh. A tenth of the margin's window is enough for one
 * server, and is little for a fleet whose CA signs in advance, so that all hold the same times: of waits of more than half
 * an hour, a fifth of what is beyond that. Part of the time that is left is kept: what came late in its life would
 * else be due as it arrives. */
static int64_t ocspMaxJitterMs(int64_t window_ms, int64_t wait_ms, int64_t left_ms) {
    int64_t usual, wide;

    if (left_ms <= 0) return 0;
    usual = (window_ms < left_ms ? window_ms : left_ms) / 10;
    wide = (wait_ms - OCSP_JITTER_BEYOND_MS) / OCSP_JITTER_DIV;
    if (wide > left_ms / 2) wide = left_ms / 2;
    return wide > usual ? wide : usual;
}

int64_t ocspRefreshAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random) {
    int64_t from_ms, at = ocspDeadlineMs(current, margin_percent, &from_ms);
    int64_t hour_ms = (int64_t)OCSP_REVOKED_RECHECK * 1000, hourly;

    at -= ocspScaleRandom(ocspMaxJitterMs((int64_t)current->expires_at * 1000 - at, at - from_ms, at - now_ms), random);
    /* A lifted hold (certificateHold) must be seen within the hour, however long the revoked answer may live. */
    hourly = now_ms + hour_ms - ocspScaleRandom(ocspMaxJitterMs(0, hour_ms, hour_ms), random);
    return current->revoked && at > hourly ? hourly : at;
}

/* Behind the deadline, not at it: a fleet that asked early and got the same would meet there. */
int64_t ocspRecheckAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random) {
    int64_t from_ms, deadline = ocspDeadlineMs(current, margin_percent, &from_ms);
    int64_t quarter = ((int64_t)current->expires_at * 1000 - deadline) / 4;

    if (now_ms >= deadline) return 0;
    return deadline + ocspScaleRandom(quarter < OCSP_RETRY_MAX_MS ? quarter : OCSP_RETRY_MAX_MS, random);
}

int64_t ocspRetryCapMs(int64_t remaining_ms, int must_staple) {
    if (remaining_ms <= 0) return must_staple ? OCSP_RETRY_MAX_MUST_MS : OCSP_RETRY_MAX_EMPTY_MS;
    if (remaining_ms / 4 < OCSP_MIN_INTERVAL_MS) return OCSP_MIN_INTERVAL_MS;
    return remaining_ms / 4 < OCSP_RETRY_MAX_MS ? remaining_ms / 4 : OCSP_RETRY_MAX_MS;
}

int64_t ocspOutageDelayMs(int64_t remaining_ms, int must_staple, uint32_t random) {
    int64_t cap = ocspRetryCapMs(remaining_ms, must_staple);
    int64_t wait = cap / 2 + ocspScaleRandom(cap / 2, random);

    return wait > OCSP_MIN_INTERVAL_MS ? wait : OCSP_MIN_INTERVAL_MS;
}

int64_t ocspRetryDelayMs(int retry_delay, unsigned attempt, int64_t remaining_ms, int must_staple, uint32_t random) {
    int64_t cap = ocspRetryCapMs(remaining_ms, must_staple);
    int64_t base = (int64_t)retry_delay * 1000;
    int64_t low, high;
    int outage;

    while (attempt > 1 && base < cap) { /* doubling stops at the cap: there is no exponent to overflow */
        base *= 2;
        attempt--;
    }
    outage = base > OCSP_OUTAGE_AFTER_MS && base > (int64_t)retry_delay * 1000 && remaining_ms > 0;
    if (base > cap) base = cap;
    low = base - base / 5;
    high = base + base / 5;
    /* No hiccup, an outage: who can wait leaves the quick steps, which a whole fleet would take at the same time, again
     * and again, and which would greet the responder when it returns. */
    if (outage) {
        high = cap;
        if (low < cap / 2) low = cap / 2;
    }
    if (high > cap) high = cap; /* at the cap the spread goes below it, or a fleet would meet there */
    base = low + ocspScaleRandom(high - low, random);
    return base > OCSP_MIN_INTERVAL_MS ? base : OCSP_MIN_INTERVAL_MS;
}

#endif /* OCSP_SUPPORTED */
