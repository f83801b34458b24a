/* ocsp_schedule.c - computes refresh and retry times. Pure arithmetic: no clock, no thread, no OpenSSL state;
 * randomness is an argument.
 *
 * The rules:
 *
 *  - A refresh is never later than the margin deadline, and earlier by jitter, so that a fleet that started together
 *    does not refresh together. How much was measured in a simulated fleet.
 *  - max-interval bounds the wait after an answer, for those who want to know of a revocation sooner than the validity
 *    requires. Jitter is a third of it, as short waits repeat often and a fleet that starts together must spread in its
 *    first interval. What is overdue after a stop is spread, too.
 *  - Retries back off, a few quick ones first, then the outage back-off. The delay saturates, and retries never end.
 *  - The retry cap shrinks with the remaining validity, and is short without a valid response.
 *  - Never a spin: the minimum is a second.
 *
 * Copyright (c) Valkey Contributors. All rights reserved.
 * SPDX-License-Identifier: BSD-3-Clause */

#include "ocsp_internal.h"
#if OCSP_SUPPORTED

/* Returns span * random / 2^32 without 128-bit arithmetic; span is below 2^43 ms (a thousand years). */
static int64_t ocspScaleRandom(int64_t span, uint32_t random) {
    return (span >> 32) * random + (((span & UINT32_MAX) * (uint64_t)random) >> 32);
}

/* Returns the margin window in seconds: from the refresh deadline to expiry. */
static int64_t ocspMarginWindow(const ocspResponse *current, int margin_percent) {
    int64_t validity;

    if (current->next_update == 0) return OCSP_DEFAULT_VALIDITY / 2; /* validity does not begin at thisUpdate */
    validity = (int64_t)current->expires_at - current->this_update;
    return validity > 0 ? validity * margin_percent / 100 : 0;
}

int64_t ocspRefreshDeadline(const ocspResponse *current, int margin_percent) {
    return current->expires_at - (int64_t)ocspMarginWindow(current, margin_percent);
}

/* Returns the refresh deadline in milliseconds, so that a validity of a few seconds has a window too, and sets *from_ms
 * to the start of the validity interval. */
static int64_t ocspDeadlineMs(const ocspResponse *current, int margin_percent, int64_t *from_ms) {
    int64_t end_ms = (int64_t)current->expires_at * 1000, life_ms = end_ms - (int64_t)current->this_update * 1000,
            window_ms;

    if (current->next_update == 0) life_ms = (int64_t)OCSP_DEFAULT_VALIDITY * 1000;
    if (life_ms < 0) life_ms = 0;
    window_ms = current->next_update == 0 ? life_ms / 2 : life_ms / 100 * margin_percent;
    *from_ms = end_ms - life_ms;
    return end_ms - window_ms;
}

/* Returns the maximum jitter before the refresh deadline. A tenth of the margin window is enough for one server, but
 * little for a fleet whose CA signs in advance, so that all have the same dates: of waits longer than half an hour, a
 * fifth of the part beyond that. Jitter never uses up the time left: a response that arrives late in its validity would
 * be due at once. */
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
    /* certificateHold may be lifted: noticed within the hour, however long the revoked response is valid. */
    hourly = now_ms + hour_ms - ocspScaleRandom(ocspMaxJitterMs(0, hour_ms, hour_ms), random);
    return current->revoked && at > hourly ? hourly : at;
}

/* After the deadline, spread: a fleet that refreshed early and got the same response would otherwise meet at the
 * deadline. */
int64_t ocspRecheckAtMs(const ocspResponse *current, int margin_percent, int64_t now_ms, uint32_t random) {
    int64_t from_ms, deadline = ocspDeadlineMs(current, margin_percent, &from_ms);
    int64_t quarter = ((int64_t)current->expires_at * 1000 - deadline) / 4;

    if (now_ms >= deadline) return 0;
    return deadline + ocspScaleRandom(quarter < OCSP_RETRY_MAX_MS ? quarter : OCSP_RETRY_MAX_MS, random);
}

int64_t ocspIntervalDelayMs(int max_interval, int64_t since_ms, uint32_t random) {
    int64_t interval_ms = (int64_t)max_interval * 1000, jitter = interval_ms / OCSP_INTERVAL_JITTER_DIV,
            left = interval_ms - since_ms;

    if (left < interval_ms / OCSP_INTERVAL_OVERDUE_DIV) left = interval_ms / OCSP_INTERVAL_OVERDUE_DIV;
    return left - ocspScaleRandom(jitter < left ? jitter : left, random);
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

    while (attempt > 1 && base < cap) { /* stops at the cap: no exponent can overflow */
        base *= 2;
        attempt--;
    }
    outage = base > OCSP_OUTAGE_AFTER_MS && base > (int64_t)retry_delay * 1000 && remaining_ms > 0;
    if (base > cap) base = cap;
    low = base - base / 5;
    high = base + base / 5;
    /* An outage: with a valid response, leave the quick steps, which a whole fleet would take at the same time, again
     * and again, and which would hit the responder as it recovers. */
    if (outage) {
        high = cap;
        if (low < cap / 2) low = cap / 2;
    }
    if (high > cap) high = cap; /* at the cap, spread below it, so that a fleet does not retry in step */
    base = low + ocspScaleRandom(high - low, random);
    return base > OCSP_MIN_INTERVAL_MS ? base : OCSP_MIN_INTERVAL_MS;
}

#endif /* OCSP_SUPPORTED */
