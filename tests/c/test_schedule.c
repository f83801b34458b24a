/* test_schedule.c - when to refresh next: the refresh deadline, its jitter, and the waits after failures, each compared
 * with the table in docs/behavior.md over wide ranges. No clock runs here. At the end a small fleet, which is what the
 * rules are for (`make fleet` is the large one).
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <limits.h>
#include <string.h>

static ocspResponse currentResponse(time_t from, time_t until) {
    return (ocspResponse){.this_update = from, .next_update = until, .expires_at = until};
}

/* Random numbers: both ends, the middle, and any. */
static uint32_t someRandom(int i) {
    static const uint32_t special[] = {0, 1, 0x7fffffff, 0x80000000, UINT32_MAX - 1, UINT32_MAX};
    return i < 6 ? special[i] : testRandom();
}

static int64_t between(int64_t low, int64_t high) {
    uint64_t r = (uint64_t)testRandom() << 32 | testRandom();
    return low + (int64_t)(r % (uint64_t)(high - low + 1));
}

/* ---- when to refresh --------------------------------------------------------------------------------------------- */

TEST(deadline_followsFromTheMargin, "10") {
    ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + 1000);
    assert_int_equal(ocspRefreshDeadline(&current, 10), TEST_NOW + 900);
    assert_int_equal(ocspRefreshDeadline(&current, 50), TEST_NOW + 500);
    assert_int_equal(ocspRefreshDeadline(&current, 1), TEST_NOW + 990);
    assert_int_equal(ocspRefreshDeadline(&current, 99), TEST_NOW + 10);
}

TEST(refreshAt_twentySecondResponse, "10") {
    ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + 20);
    int64_t start = (int64_t)TEST_NOW * 1000;
    assert_int_equal(ocspRefreshAtMs(&current, 10, start, 0), start + 18000);
    assert_int_equal(ocspRefreshAtMs(&current, 50, start, 0), start + 10000);
    for (int i = 0; i < 1000; i++) {
        int64_t at = ocspRefreshAtMs(&current, 50, start, someRandom(i));
        assert_true(at <= start + 10000 && at >= start + 9000);
    }
}

TEST(refreshAt_neverAfterTheDeadline, "10") {
    for (int margin = 1; margin <= 99; margin++) {
        for (int i = 0; i < 300; i++) {
            time_t from = TEST_NOW - (time_t)between(0, 400 * TEST_DAY);
            int64_t validity = i < 30 ? i + 1 : between(1, i % 2 ? 3600 : 4000LL * TEST_DAY);
            ocspResponse current = currentResponse(from, from + (time_t)validity);
            /* Exact, in milliseconds, by other arithmetic than in ocsp_schedule.c. */
            __int128 window = (__int128)validity * 1000 * margin / 100;
            int64_t deadline = (int64_t)((__int128)current.expires_at * 1000 - window);
            int64_t now = (int64_t)TEST_NOW * 1000, at = ocspRefreshAtMs(&current, margin, now, someRandom(i));
            assert_true(at <= deadline);
            /* A tenth of the margin's window, or a fifth of the wait beyond half an hour. */
            __int128 tenth = window / 10, fifth = (deadline - (int64_t)from * 1000 - 1800000) / 5;
            assert_true(at >= deadline - (int64_t)(tenth > fifth ? tenth : fifth) - 1);
            /* A refresh that is not due is not due within half of the remaining time either. */
            assert_true(deadline > now ? at >= now + (deadline - now) / 2 : at == deadline);
            if (fifth <= 0 && deadline > now) assert_true(at >= deadline - (deadline - now) / 10 - 1);
            /* The one in seconds is the same to a second. */
            time_t seconds = ocspRefreshDeadline(&current, margin);
            assert_true((int64_t)seconds * 1000 >= deadline - 1000 && (int64_t)seconds * 1000 <= deadline + 1000);
        }
    }
}

TEST(jitter_coversItsWholeRange) {
    /* The deadline is after 9 days, and jitter a fifth of that without the first half hour. */
    ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + 10 * TEST_DAY);
    int64_t deadline = (int64_t)(TEST_NOW + 9 * TEST_DAY) * 1000, whole = (9LL * TEST_DAY - 1800) * 200;
    int64_t nows[] = {(int64_t)TEST_NOW * 1000, deadline - 3600 * 1000}; /* in the last hour: half an hour */
    for (int n = 0; n < 2; n++, whole = 1800 * 1000) {
        int64_t least = INT64_MAX, most = 0;
        for (int i = 0; i < 2000; i++) {
            int64_t early = deadline - ocspRefreshAtMs(&current, 10, nows[n], someRandom(i));
            if (early < least) least = early;
            if (early > most) most = early;
        }
        assert_true(least <= whole / 100);
        assert_true(most >= whole - whole / 100 && most <= whole);
    }
}

/* An early refresh that brought nothing newer: the next one is soon after the deadline, spread over the allowed
 * range. */
TEST(recheck_isSpreadAfterTheDeadline) {
    static const struct {
        int64_t validity;
        int margin;
        int64_t longest; /* ms: a quarter of the window, an hour at most */
    } rows[] = {{7 * TEST_DAY, 50, 3600000},
                {TEST_DAY, 10, 2160000},
                {TEST_DAY, 50, 3600000},
                {20, 50, 2500},
                {20, 10, 500},
                {600, 10, 15000},
                {600, 99, 148500}};
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + (time_t)rows[r].validity);
        int64_t deadline = (int64_t)current.expires_at * 1000 - rows[r].validity * 10 * rows[r].margin,
                least = INT64_MAX, most = 0;
        for (int i = 0; i < 1000; i++) {
            int64_t late = ocspRecheckAtMs(&current, rows[r].margin, deadline - 1 - i, someRandom(i)) - deadline;
            if (late < least) least = late;
            if (late > most) most = late;
        }
        assert_true(least >= 0 && least <= rows[r].longest / 100);
        assert_true(most <= rows[r].longest && most >= rows[r].longest * 99 / 100 - 1);
        /* Not early: it is for the caller to wait. */
        assert_int_equal(ocspRecheckAtMs(&current, rows[r].margin, deadline, 7), 0);
        assert_int_equal(ocspRecheckAtMs(&current, rows[r].margin, deadline + 1000000, 7), 0);
    }
}

/* A response may expire before nextUpdate, with the certificate: the margin counts back from that. */
TEST(deadline_countsFromTheEndOfTheCertificate, "9") {
    ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + 1000000);
    current.expires_at = TEST_NOW + 1000;
    assert_int_equal(ocspRefreshDeadline(&current, 10), TEST_NOW + 900);
    assert_true(ocspRefreshAtMs(&current, 10, (int64_t)TEST_NOW * 1000, 0) <= (int64_t)(TEST_NOW + 900) * 1000);
}

TEST(deadline_withoutNextUpdateIsFiveMinutes) {
    /* thisUpdate is old: only the receipt counts. */
    ocspResponse current = {.this_update = TEST_NOW - 30 * TEST_DAY, .next_update = 0, .expires_at = TEST_NOW + 600};
    for (int margin = 1; margin <= 99; margin += 7) {
        assert_int_equal(ocspRefreshDeadline(&current, margin), TEST_NOW + 300);
        for (int i = 0; i < 100; i++) {
            int64_t at = ocspRefreshAtMs(&current, margin, (int64_t)TEST_NOW * 1000, someRandom(i));
            assert_true(at <= (int64_t)(TEST_NOW + 300) * 1000);
            assert_true(at >= (int64_t)(TEST_NOW + 300 - 30) * 1000);
        }
    }
}

TEST(refreshAt_revokedAtLeastHourly) {
    ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + 30 * TEST_DAY);
    current.revoked = 1;
    int64_t now = (int64_t)(TEST_NOW + TEST_DAY) * 1000;
    for (int i = 0; i < 500; i++) {
        int64_t at = ocspRefreshAtMs(&current, 10, now, someRandom(i));
        assert_true(at <= now + 3600 * 1000);
        assert_true(at >= now + 2880 * 1000 - 1); /* and a fifth earlier at most */
    }
    /* A shorter validity comes before the hour. */
    current.expires_at = current.next_update = TEST_NOW + 1000;
    assert_true(ocspRefreshAtMs(&current, 10, (int64_t)TEST_NOW * 1000, 0) == (int64_t)(TEST_NOW + 900) * 1000);
    /* A good response is not refreshed hourly. */
    current = currentResponse(TEST_NOW, TEST_NOW + 30 * TEST_DAY);
    assert_true(ocspRefreshAtMs(&current, 10, (int64_t)TEST_NOW * 1000, 0) ==
                (int64_t)(TEST_NOW + 27 * TEST_DAY) * 1000);
}

/* From the year 0 to the year 9999, as ASN.1 can say it, in both orders: no overflow (the undefined-behaviour sanitizer
 * watches), and never after the end. */
TEST(refreshAt_extremeDatesStayInBounds) {
    static const int64_t years[] = {-62167219200, -2208988800, 1, 2, TEST_NOW, 4102444800, 253402300799};
    for (size_t a = 0; a < 7; a++) {
        for (size_t b = 0; b < 7; b++) {
            for (int margin = 1; margin <= 99; margin++) {
                ocspResponse current = currentResponse((time_t)years[a], (time_t)years[b]);
                assert_true(ocspRefreshDeadline(&current, margin) <= current.expires_at);
                for (int i = 0; i < 8; i++) {
                    int64_t at = ocspRefreshAtMs(&current, margin, (int64_t)TEST_NOW * 1000, someRandom(i));
                    assert_true(at <= (int64_t)current.expires_at * 1000);
                    /* Never before the window of the largest margin and its tenth. */
                    int64_t validity = years[b] > years[a] ? years[b] - years[a] : 0;
                    assert_true(at >= (int64_t)current.expires_at * 1000 - validity * 1100);
                }
            }
        }
    }
}

/* ---- max-interval ------------------------------------------------------------------------------------------------ */

static const int intervals[] = {60, 61, 3600, 86400, 604800};

/* Just after an answer: the interval, or up to a third earlier. */
TEST(interval_isNeverExceededAndUpToAThirdShorter) {
    for (size_t n = 0; n < sizeof(intervals) / sizeof(intervals[0]); n++) {
        int64_t ms = intervals[n] * INT64_C(1000);
        assert_int_equal(ocspIntervalDelayMs(intervals[n], 0, 0), ms);
        testAssertRange(ocspIntervalDelayMs(intervals[n], 0, UINT32_MAX), ms * 2 / 3, ms * 2 / 3 + 2);
        for (int i = 0; i < 1000; i++) {
            int64_t in = ocspIntervalDelayMs(intervals[n], 0, someRandom(i));
            assert_true(in <= ms && in >= ms * 2 / 3);
        }
    }
}

/* Later, as after a restart or CONFIG SET: the rest of the interval at most. Jitter takes no more than the rest. */
TEST(interval_countsFromTheLastAnswer) {
    for (int i = 0; i < 10000; i++) {
        int interval = intervals[i % 5];
        int64_t ms = interval * INT64_C(1000), since = between(0, ms - ms / 10),
                in = ocspIntervalDelayMs(interval, since, someRandom(i / 5)), third = ms / 3;
        assert_true(in <= ms - since);
        assert_true(in >= ms - since - (third < ms - since ? third : ms - since));
    }
}

/* Overdue, or nearly: within a tenth of the interval, evenly spread from now on. */
TEST(interval_overdueIsSpreadOverATenth) {
    for (size_t n = 0; n < sizeof(intervals) / sizeof(intervals[0]); n++) {
        int64_t ms = intervals[n] * INT64_C(1000), tenth = ms / 10;
        const int64_t sinces[] = {ms - tenth, ms - 1, ms, ms + 1, ms * 1000, INT64_C(1) << 50};
        for (size_t s = 0; s < sizeof(sinces) / sizeof(sinces[0]); s++) {
            int quarter[4] = {0};
            assert_int_equal(ocspIntervalDelayMs(intervals[n], sinces[s], 0), tenth);
            testAssertRange(ocspIntervalDelayMs(intervals[n], sinces[s], UINT32_MAX), 0, 1);
            for (int i = 0; i < 4000; i++) {
                int64_t in = ocspIntervalDelayMs(intervals[n], sinces[s], testRandom());
                assert_true(in >= 0 && in <= tenth);
                quarter[in * 4 / (tenth + 1)]++;
            }
            for (int q = 0; q < 4; q++) testAssertRange(quarter[q], 800, 1200);
        }
    }
}

/* ---- after failures ---------------------------------------------------------------------------------------------- */

/* The cap as the table has it. */
static int64_t tableCap(int64_t remaining_ms, int must_staple) {
    if (remaining_ms <= 0) return must_staple ? 60000 : 300000;
    int64_t cap = remaining_ms / 4;
    if (cap > 3600000) cap = 3600000;
    return cap < 1000 ? 1000 : cap;
}

TEST(retryCap_table) {
    assert_int_equal(ocspRetryCapMs(0, 0), 300000);
    assert_int_equal(ocspRetryCapMs(-5000, 0), 300000);
    assert_int_equal(ocspRetryCapMs(0, 1), 60000);
    assert_int_equal(ocspRetryCapMs(INT64_MIN, 1), 60000);
    assert_int_equal(ocspRetryCapMs(40000, 0), 10000);
    assert_int_equal(ocspRetryCapMs(40000, 1), 10000);
    assert_int_equal(ocspRetryCapMs(4 * 3600 * 1000 - 4, 0), 3600 * 1000 - 1);
    assert_int_equal(ocspRetryCapMs(INT64_MAX, 0), 3600 * 1000);
    assert_int_equal(ocspRetryCapMs(INT64_MAX, 1), 3600 * 1000);
    assert_int_equal(ocspRetryCapMs(1, 0), 1000); /* the floor beats the quarter */
    for (int i = 0; i < 20000; i++) {
        int64_t remaining = between(-10000, i % 2 ? 60000 : 100LL * TEST_DAY * 1000);
        assert_int_equal(ocspRetryCapMs(remaining, i % 3 == 0), tableCap(remaining, i % 3 == 0));
    }
}

/* Quick retries first: doubling up to a minute, which is three failures by default and more with a short
 * retry-delay. */
TEST(retry_doublesUpToAMinute, "11") {
    static const int rows[][2] = {{10, 3}, {1, 6}, {2, 5}, {3600, 1}}; /* retry-delay, failures */
    int64_t far = 100LL * TEST_DAY * 1000;
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        for (int attempt = 1; attempt <= rows[r][1]; attempt++) {
            int64_t middle = rows[r][0] * 1000LL << (attempt - 1), most = middle * 12 / 10;
            if (most > 3600000) most = 3600000;
            for (int i = 0; i < 500; i++) {
                int64_t wait = ocspRetryDelayMs(rows[r][0], (unsigned)attempt, far, 0, someRandom(i));
                assert_true(wait >= middle * 8 / 10 && wait <= most);
            }
            /* Both ends are reached: 0 and UINT32_MAX are more than a third apart. */
            int64_t low = ocspRetryDelayMs(rows[r][0], (unsigned)attempt, far, 0, 0),
                    high = ocspRetryDelayMs(rows[r][0], (unsigned)attempt, far, 0, UINT32_MAX);
            assert_true(high - low >= (most - middle * 8 / 10) * 95 / 100 - 1000);
        }
        if (rows[r][0] < 3600)
            assert_true(ocspRetryDelayMs(rows[r][0], (unsigned)rows[r][1] + 1, far, 0, 0) >= 1800000);
    }
}

/* In an outage: the upper half of the cap, and not below what doubling gives. */
TEST(retry_outageWaitsInTheUpperHalfOfTheCap, "11") {
    static const struct {
        int delay;
        unsigned attempt;
        int64_t remaining, low, high;
    } rows[] = {
        {10, 4, 100LL * TEST_DAY * 1000, 1800000, 3600000},
        {10, 8, 100LL * TEST_DAY * 1000, 1800000, 3600000},
        {10, 10, 100LL * TEST_DAY * 1000, 2880000, 3600000}, /* 5120 s are more than the hour: 20 % below it */
        {10, 5, 8640000, 1080000, 2160000},
        {1, 4, 40000, 6400, 9600},     /* 8 s: still a quick retry */
        {1, 8, 400000, 80000, 100000}, /* 128 s, and 100 s at most */
        {1, 8, 600000, 102400, 150000},
        {3600, 4, INT64_MAX, 2880000, 3600000},
    };
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        int64_t low = INT64_MAX, high = 0, span = rows[r].high - rows[r].low;
        for (int i = 0; i < 1000; i++) {
            int64_t wait = ocspRetryDelayMs(rows[r].delay, rows[r].attempt, rows[r].remaining, i % 2, someRandom(i));
            if (wait < low) low = wait;
            if (wait > high) high = wait;
        }
        if (low < rows[r].low || low > rows[r].low + span / 50) fail_msg("row %zu: %lld", r, (long long)low);
        assert_true(high <= rows[r].high && high >= rows[r].high - span / 50 - 1);
    }
}

/* Without a valid response no wait is longer than doubling gives. */
TEST(retry_withoutResponseKeepsDoubling) {
    for (int must = 0; must < 2; must++) {
        for (unsigned attempt = 1; attempt <= 20; attempt++) {
            int64_t cap = must ? 60000 : 300000, middle = attempt < 10 ? 10000LL << (attempt - 1) : cap;
            if (middle > cap) middle = cap;
            for (int i = 0; i < 200; i++) {
                int64_t wait = ocspRetryDelayMs(10, attempt, 0, must, someRandom(i));
                assert_true(wait >= middle * 8 / 10 && wait <= middle * 12 / 10 && wait <= cap);
            }
        }
    }
}

TEST(retry_liesBetweenFloorAndCap) {
    static const int delays[] = {1, 2, 5, 10, 59, 60, 300, 3600};
    static const int64_t remaining[] = {INT64_MIN, -1,    0,       1,        999,          4000,
                                        5000,      39999, 1200000, 14400000, 999999999999, INT64_MAX};
    static const unsigned attempts[] = {
        1, 2, 3, 9, 25, 26, 27, 31, 32, 33, 63, 64, 65, 1000, INT_MAX, (unsigned)INT_MAX + 1, UINT_MAX - 1, UINT_MAX};
    for (size_t d = 0; d < 8; d++) {
        for (size_t l = 0; l < 12; l++) {
            for (size_t a = 0; a < 18; a++) {
                for (int must = 0; must < 2; must++) {
                    for (int i = 0; i < 8; i++) {
                        int64_t cap = tableCap(remaining[l], must);
                        long double plain = (long double)delays[d] * 1000;
                        for (unsigned n = 1; n < attempts[a] && plain < cap; n++) plain *= 2;
                        if (plain > cap) plain = cap;
                        int64_t wait = ocspRetryDelayMs(delays[d], attempts[a], remaining[l], must, someRandom(i));
                        assert_true(wait >= 1000);
                        assert_true(wait <= cap);
                        if (plain <= 60000 || plain <= delays[d] * 1000 || remaining[l] <= 0)
                            assert_true(wait <= plain * 1.2L + 1);
                        assert_true(wait >= plain * 0.8L - 1);
                    }
                }
            }
        }
    }
}

/* HAProxy's shift overflowed after 26 failures; here the wait never falls again. */
TEST(retry_neverGetsShorterWithMoreFailures) {
    for (int must = 0; must < 2; must++) {
        int64_t before = 0;
        for (unsigned attempt = 1; attempt < 5000; attempt++) {
            int64_t wait = ocspRetryDelayMs(10, attempt, 100LL * TEST_DAY * 1000, must, 0x80000000);
            assert_true(wait >= before);
            before = wait;
        }
        assert_true(before >= 3600 * 1000 * 8 / 10);
        assert_true(ocspRetryDelayMs(10, UINT_MAX, 100LL * TEST_DAY * 1000, must, 0x80000000) == before);
    }
}

TEST(retry_nearExpiryGoesBelowRetryDelay) {
    for (int i = 0; i < 200; i++) {
        int64_t wait = ocspRetryDelayMs(3600, 1, 20000, 0, someRandom(i));
        assert_true(wait >= 4000 && wait <= 5000);
        assert_int_equal(ocspRetryDelayMs(3600, 9, 3000, 0, someRandom(i)), 1000);
        assert_int_equal(ocspRetryDelayMs(1, 1, 1, 1, someRandom(i)), 1000);
    }
}

/* ---- a fleet ----------------------------------------------------------------------------------------------------- */

#define FLEET_NODES 20000
#define FLEET_WINDOW 720 /* minutes before the deadline and after it that are counted */

static int fleet_minute[2 * FLEET_WINDOW];

/* Nodes with the same current response: their first refresh after it and, with the CA down from `down` to `up` (minutes
 * relative to the deadline), their retries until one succeeds. */
static void simulateFleet(int64_t validity, int margin, int without_jitter, int64_t down, int64_t up) {
    ocspResponse current = currentResponse(TEST_NOW, TEST_NOW + (time_t)validity);
    int64_t deadline = (int64_t)current.expires_at * 1000 - validity * 10 * margin,
            end = (int64_t)current.expires_at * 1000;
    memset(fleet_minute, 0, sizeof(fleet_minute));
    for (int i = 0; i < FLEET_NODES; i++) {
        uint32_t random = without_jitter ? 0 : testRandom();
        int64_t at = ocspRefreshAtMs(&current, margin, (int64_t)TEST_NOW * 1000 + i * 3, random);
        for (unsigned failed = 1;; failed++) {
            int64_t minute = (at - deadline + FLEET_WINDOW * 60000LL) / 60000;
            assert_true(minute >= 0 && minute < 2 * FLEET_WINDOW && at < end);
            fleet_minute[minute]++;
            if (minute - FLEET_WINDOW < down || minute - FLEET_WINDOW >= up) break;
            at += ocspRetryDelayMs(10, failed, end - at, 0, without_jitter ? 0 : testRandom());
        }
    }
}

static int busiestMinute(int from, int until) {
    int most = 0;
    for (int i = from + FLEET_WINDOW; i < until + FLEET_WINDOW; i++)
        if (fleet_minute[i] > most) most = fleet_minute[i];
    return most;
}

TEST(fleet_isSpreadFiftyfold) {
    for (int days = 1; days <= 2; days++) { /* longer validities spread wider than is counted here */
        for (int margin = 10; margin <= 50; margin += 40) {
            simulateFleet(days * TEST_DAY, margin, 1, 0, 0);
            assert_int_equal(busiestMinute(-FLEET_WINDOW, FLEET_WINDOW), FLEET_NODES);
            simulateFleet(days * TEST_DAY, margin, 0, 0, 0);
            assert_true(busiestMinute(-FLEET_WINDOW, FLEET_WINDOW) * 50 <= FLEET_NODES);
        }
    }
}

/* The CA is down for two hours, in the middle of the refreshes or until their last minute: no rush when it returns. */
TEST(fleet_doesNotRushAReturningResponder) {
    static const struct {
        int days, margin, up;
    } rows[] = {{1, 10, -60}, {1, 50, 0}, {1, 50, -12}, {2, 10, -60}, {2, 10, -200}, {2, 50, 0}, {2, 50, -60}};
    for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
        int up = rows[r].up, sum = 0;
        simulateFleet(rows[r].days * TEST_DAY, rows[r].margin, 0, up - 120, up);
        for (int i = up + FLEET_WINDOW; i < up + FLEET_WINDOW + 60; i++) sum += fleet_minute[i];
        int most = busiestMinute(up, FLEET_WINDOW);
        if (most * 60 > sum * 3) fail_msg("row %zu: %d in a minute, %d in the hour", r, most, sum);
    }
}
