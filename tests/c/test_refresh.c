/* test_refresh.c - when the engine fetches again: refreshes in time, retries after failures, and jumps of
 * the wall clock.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "world.h"
#include "ocsp_worker.h"

FIXTURE(worldSetUp, worldTearDown);
PROGRAM_FIXTURE(worldOpen, worldClose);

/* ---- refreshes in time ------------------------------------------------------------------------------------------- */

static void assertRefreshedAtTheMargin(int validity, int margin) {
    options.refresh_margin = margin;
    applyOptions();
    responder.validity = validity;
    SSL_CTX *ctx = loadLeaf();
    runFor((int64_t)validity * 1000 * 12);
    assert_true(requestCount() >= 12);
    for (int i = 1; i < requestCount(); i++) {
        int64_t window = (int64_t)validity * margin * 10, from = responder.at_wall[i - 1] / 1000 * 1000;
        int64_t deadline = from + (int64_t)validity * 1000 - window, fifth = (deadline - from) / 5;
        if (deadline < responder.at_wall[i - 1] + 1000) deadline = responder.at_wall[i - 1] + 1000; /* the floor */
        assert_true(responder.at_wall[i] <= deadline);
        assert_true(responder.at_wall[i] >= deadline - fifth - 1);
    }
    assert_true(isStapled(ctx));
    assert_int_equal(infoNumber("refresh_failures"), 0);
    SSL_CTX_free(ctx);
}

TEST(deadline_twentySecondsTenPercent, "10") {
    assertRefreshedAtTheMargin(20, 10);
}

TEST(deadline_twentySecondsFiftyPercent, "10") {
    assertRefreshedAtTheMargin(20, 50);
}

TEST(deadline_oneHour, "10") {
    assertRefreshedAtTheMargin(3600, 10);
}

/* Every response is past its refresh time when it arrives: requests must be frequent enough that the staple never
 * expires, and never closer than a second. */
TEST(refresh_backdatedResponsesDoNotSpin, "10") {
    responder.validity = 1000;
    responder.backdate = 950;
    SSL_CTX *ctx = loadLeaf();
    for (int i = 0; i < 500; i++) {
        runFor(1000);
        assert_true(isStapledTo(ctx, tls13));
    }
    assert_true(requestCount() <= 500 / 8 + 2); /* as after failures, 10 seconds at first */
    assert_true(requestCount() >= 500 / 50);    /* each response is valid for 50 more seconds */
    for (int i = 1; i < requestCount(); i++) assert_true(responder.at_mono[i] - responder.at_mono[i - 1] >= 1000);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(refresh_unchangedResponseIsNoFailure, "13") {
    responder.this_update = TEST_NOW;
    responder.validity = 40000;
    SSL_CTX *ctx = loadLeaf();
    runFor(28799 * 1000); /* no request before the refresh time */
    assert_int_equal(requestCount(), 1);
    runFor(9001 * 1000); /* once before the deadline, once soon after it, then rarely: no failure, no quick retries */
    assert_true(requestCount() >= 4 && requestCount() <= 6);
    int64_t deadline = (int64_t)(TEST_NOW + 36000) * 1000;
    assert_true(responder.at_wall[1] <= deadline);
    assert_true(responder.at_wall[2] >= deadline && responder.at_wall[2] <= deadline + 1000 * 1000);
    for (int i = 3; i < requestCount(); i++) {
        int64_t longest = ((int64_t)(TEST_NOW + 40000) * 1000 - responder.at_wall[i - 1]) / 4;
        int64_t waited = responder.at_mono[i] - responder.at_mono[i - 1];
        assert_true(waited >= longest / 2 && waited <= longest + 1);
    }
    assert_int_equal(infoNumber("refresh_failures"), 0);
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    assert_string_equal(infoText("last_error"), "");
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, NULL), 1);
    assert_true(isStapled(ctx));
    responder.this_update = 0; /* now a new response */
    runFor(600 * 1000);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    assert_true(infoNumber("this_update") > TEST_NOW);
    SSL_CTX_free(ctx);
}

TEST(deadline_withoutNextUpdateIsFiveMinutes) {
    responder.no_next_update = 1;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    assert_int_equal(infoNumber("next_update"), 0);
    assert_int_equal(infoNumber("expires_in_seconds"), 600);
    runFor(300 * 1000);
    assert_int_equal(requestCount(), 2);
    responder.down = 1;
    runFor(299 * 1000);
    assert_true(isStapled(ctx));
    runFor(302 * 1000);
    assert_false(isStapled(ctx));
    assertState("expired");
    SSL_CTX_free(ctx);
}

/* ---- max-interval ------------------------------------------------------------------------------------------------ */

static void useInterval(int seconds, int validity) {
    options.max_interval = seconds;
    applyOptions();
    responder.validity = validity;
}

/* Checks that request `i` follows within the interval of request `i - 1`, and in its last third. */
static void assertInterval(int i, int seconds) {
    int64_t waited = responder.at_mono[i] - responder.at_mono[i - 1];
    assert_true(waited <= seconds * INT64_C(1000) && waited >= seconds * INT64_C(1000) * 2 / 3);
}

TEST(maxInterval_boundsTheWaitAfterANewResponse) {
    useInterval(3600, 7 * TEST_DAY);
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    testAssertRange(infoNumber("next_refresh_in_seconds"), 2400, 3600);
    runFor(2LL * TEST_DAY * 1000);
    testAssertRange(requestCount(), 48, 73);
    for (int i = 1; i < requestCount(); i++) assertInterval(i, 3600);
    responder.revoked = 1; /* shows within the interval, not after days */
    runFor(3601 * 1000);
    assertState("revoked");
    SSL_CTX_free(ctx);
}

/* The same response again is an answer, too: no failure, no spin, and the deadline of the margin holds as well. */
TEST(maxInterval_boundsTheWaitAfterAnUnchangedResponse) {
    useInterval(600, 40000);
    responder.this_update = TEST_NOW;
    SSL_CTX *ctx = loadLeaf();
    runFor(35000 * 1000); /* the deadline is at 36,000 */
    testAssertRange(requestCount(), 58, 89);
    runFor(4000 * 1000); /* past it, where the margin alone would ask after 500 seconds or more at first */
    for (int i = 1; i < requestCount(); i++) {
        int64_t waited = responder.at_mono[i] - responder.at_mono[i - 1];
        assert_true(waited <= 600 * 1000 && waited >= 1000);
    }
    testAssertRange(requestCount(), 64, 130);
    assert_int_equal(infoNumber("refresh_failures"), 0);
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, NULL), 1);
    SSL_CTX_free(ctx);
}

/* Longer than the policy's waits, it changes none of them: not the deadline, not the hour of a revoked response, not the
 * recheck after the deadline. */
TEST(maxInterval_neverPostpones) {
    useInterval(7 * TEST_DAY, 3600);
    SSL_CTX *ctx = loadLeaf();
    runFor(3240 * 1000);
    assert_int_equal(requestCount(), 2);
    responder.validity = 10 * TEST_DAY;
    responder.revoked = 1;
    runFor(3240 * 1000);
    assertState("revoked");
    int n = requestCount();
    runFor(3600 * 1000);
    assert_int_equal(requestCount(), n + 1);
    useInterval(600, 10 * TEST_DAY); /* the shorter one */
    n = requestCount();
    runFor(3600 * 1000);
    testAssertRange(requestCount() - n, 6, 10);
    SSL_CTX_free(ctx);
}

TEST(maxInterval_recheckAfterTheDeadlineIsNotWeakened) {
    useInterval(30000, 40000);
    responder.this_update = TEST_NOW;
    SSL_CTX *ctx = loadLeaf();
    runFor(39000 * 1000);
    int64_t deadline = (int64_t)(TEST_NOW + 36000) * 1000, last = 0;
    for (int i = 1; i < requestCount(); i++) {
        if (responder.at_wall[i] < deadline) continue;
        if (last) assert_true(responder.at_wall[i] - last <= ((int64_t)(TEST_NOW + 40000) * 1000 - last) / 4 + 1);
        last = responder.at_wall[i];
    }
    assert_true(last);
    SSL_CTX_free(ctx);
}

/* A failed refresh is followed by the retries, not by a request each second because the interval is over. A failed
 * request of the operator does not postpone what the interval requires. */
TEST(maxInterval_failuresBackOff) {
    useInterval(3600, 7 * TEST_DAY);
    options.retry_delay = 3600;
    applyOptions();
    SSL_CTX *ctx = loadLeaf();
    runFor(600 * 1000);
    responder.down = 1;
    unsigned number;
    assert_null(ocspPutRequest(&number));
    runFor(1000);
    assert_int_equal(requestCount(), 2);
    testAssertRange(infoNumber("next_refresh_in_seconds"), 1, 3000);
    runFor(3000 * 1000);
    testAssertRange(requestCount(), 3, 4); /* the interval's, and perhaps the retry before it */
    int n = requestCount();
    runFor(TEST_DAY * INT64_C(1000));
    testAssertRange(requestCount() - n, 23, 48);
    responder.down = 0;
    runFor(3601 * 1000);
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    testAssertRange(infoNumber("next_refresh_in_seconds"), 1, 3600);
    SSL_CTX_free(ctx);
}

TEST(maxInterval_wallClockSetBackDoesNotPostpone, "14") {
    useInterval(3600, 30 * TEST_DAY);
    SSL_CTX *ctx = loadLeaf();
    runFor(1800 * 1000);
    moveWallClock(-(int64_t)TEST_DAY * 1000);
    runFor(1000);
    testAssertRange(infoNumber("next_refresh_in_seconds"), 598, 1800);
    useInterval(7200, 30 * TEST_DAY); /* counts from the answer by the clock that was not set */
    runFor(1000);
    testAssertRange(infoNumber("next_refresh_in_seconds"), 2995, 5400);
    useInterval(3600, 30 * TEST_DAY);
    runFor(1800 * 1000);
    assert_int_equal(requestCount(), 2);
    SSL_CTX_free(ctx);
}

/* In a suspend the monotonic clock stops: the wall clock counts. */
TEST(maxInterval_suspendCounts, "14") {
    useInterval(3600, 30 * TEST_DAY);
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    moveWallClock(3601 * 1000);
    runFor(1000);
    assert_int_equal(requestCount(), 2);
    moveWallClock(1000 * 1000);
    useInterval(4600, 30 * TEST_DAY);
    runFor(1000);
    assert_true(infoNumber("next_refresh_in_seconds") <= 3600);
    SSL_CTX_free(ctx);
}

/* ---- failures, retries and recovery ------------------------------------------------------------------------------ */

TEST(retry_backsOffAndRecoveryResetsIt, "11") {
    responder.validity = 10 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    forgetLog();
    responder.down = 1;
    advance((72LL * TEST_DAY / 10 - 1) * 1000); /* to where jitter may begin */
    while (requestCount() < 6) runFor(1000);
    for (int i = 2; i <= 5; i++) { /* three quick retries, then the outage delay */
        int64_t waited = responder.at_mono[i] - responder.at_mono[i - 1], middle = 10000LL << (i - 2);
        int64_t least = i < 5 ? middle * 8 / 10 : 1800 * 1000, most = i < 5 ? middle * 12 / 10 : 3600 * 1000;
        assert_true(waited >= least && waited <= most);
    }
    assert_int_equal(infoNumber("consecutive_failures"), 5);
    assert_true(isStapled(ctx));
    responder.down = 0;
    while (infoNumber("consecutive_failures")) runFor(1000);
    runFor(5000);
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, NULL), 2); /* the first failure, the recovery */
    assert_int_equal(logLines(OCSP_LOG_WARNING, TEST_URL), 1);

    responder.down = 1; /* the next failure starts the back-off anew */
    int n = requestCount();
    advance((72LL * TEST_DAY / 10 - 60) * 1000);
    while (requestCount() < n + 2) runFor(60000);
    int64_t waited = responder.at_mono[n + 1] - responder.at_mono[n];
    assert_true(waited >= 8000 && waited <= 12000);
    SSL_CTX_free(ctx);
}

/* After a recovery neither the failures nor the last retry time count: only the refresh time does. */
TEST(recovery_forgetsTheFailures) {
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runFor(100 * 1000);
    assert_true(infoNumber("consecutive_failures") > 2);
    responder.down = 0;
    runFor(300 * 1000);
    assertState("good");
    assert_int_equal(infoNumber("consecutive_failures"), 0);
    int n = requestCount();
    runFor(3600 * 1000);
    assert_int_equal(requestCount(), n);
    SSL_CTX_free(ctx);
}

TEST(retry_withoutResponseAtMostFiveMinutesApart, "11") {
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runFor((int64_t)TEST_DAY * 1000);
    assertState("pending");
    int n = requestCount();
    assert_true(n >= TEST_DAY / 300 && n < TEST_DAY / 300 * 14 / 10);
    for (int i = 1; i < n; i++) assert_true(responder.at_mono[i] - responder.at_mono[i - 1] <= 300 * 1000);
    assert_int_equal(logLines(OCSP_LOG_VERBOSE, NULL), 1);
    assert_int_equal(infoNumber("consecutive_failures"), n);
    responder.down = 0;
    runFor(300 * 1000);
    assertState("good");
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(retry_mustStapleAtMostAMinuteApart, "11") {
    responder.down = 1;
    SSL_CTX *ctx = loadContext(pki->must_leaf, pki->leaf_key, pki->ca);
    runFor(3600 * 1000);
    assert_int_equal(infoNumber("must_staple"), 1);
    for (int i = 1; i < requestCount(); i++) {
        assert_true(responder.at_mono[i] - responder.at_mono[i - 1] <= 60 * 1000);
    }
    assert_int_equal(logLines(OCSP_LOG_WARNING, "must-staple"), 1);
    responder.down = 0;
    runFor(60 * 1000);
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

/* A wait is at most a quarter of the remaining validity, and at least a second. */
TEST(retry_growsDenserTowardsExpiry, "11") {
    responder.validity = 4000;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    options.retry_delay = 3600;
    applyOptions();
    int64_t ends = ((int64_t)TEST_NOW + 4000) * 1000;
    runFor(4000 * 1000 - 1);
    int n = requestCount();
    assert_true(n > 5);
    for (int i = 2; i < n; i++) {
        int64_t cap = (ends - responder.at_wall[i - 1]) / 4;
        if (cap < 1000) cap = 1000;
        assert_true(responder.at_mono[i] - responder.at_mono[i - 1] <= cap + 1);
        assert_true(responder.at_mono[i] - responder.at_mono[i - 1] >= 1000);
    }
    SSL_CTX_free(ctx);
}

TEST(retry_halfOfTheWindowGoneIsLoggedOnce, "12") {
    responder.validity = 10000;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    runFor(9400 * 1000);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "half"), 0);
    runFor(200 * 1000);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "half"), 1);
    runFor(300 * 1000);
    assert_int_equal(logLines(OCSP_LOG_WARNING, "half"), 1);
    SSL_CTX_free(ctx);
}

/* ---- jumps of the wall clock ------------------------------------------------------------------------------------- */

TEST(wallClock_forwardByADay, "14") {
    responder.validity = 3600;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    moveWallClock((int64_t)TEST_DAY * 1000);
    assert_false(isStapled(ctx)); /* expired at once */
    runFor(2000);
    assert_true(isStapled(ctx));
    assert_int_equal(requestCount(), 2);
    SSL_CTX_free(ctx);
}

TEST(wallClock_forwardDuringAnOutage, "14") {
    responder.validity = 4 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.down = 1;
    advance(35LL * TEST_DAY * 100);
    runFor(3LL * TEST_DAY * 100); /* retries are now an hour apart */
    responder.down = 0;
    moveWallClock(2LL * TEST_DAY * 1000);
    runFor(300 * 1000 + 1000); /* no valid response: within five minutes */
    assert_true(isStapled(ctx));
    SSL_CTX_free(ctx);
}

TEST(wallClock_backByADay, "14") {
    responder.validity = 3600;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    int before = requestCount();
    moveWallClock(-(int64_t)TEST_DAY * 1000);
    runFor(26LL * 3600 * 1000);
    assert_true(isStapled(ctx));
    assert_true(requestCount() - before < 60); /* no spin: the usual interval at most */
    SSL_CTX_free(ctx);
}

TEST(wallClock_backByADayWhileTheResponderFails, "14") {
    responder.down = 1;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    moveWallClock(-(int64_t)TEST_DAY * 1000);
    int before = requestCount();
    runFor(3600 * 1000); /* delays follow the monotonic clock */
    assert_true(requestCount() - before >= 12);
    assert_true(requestCount() - before < 30);
    SSL_CTX_free(ctx);
}

/* A revoked response is refreshed at least hourly, and one without nextUpdate is valid for ten minutes: a wall clock
 * set back by a day must not delay either by a day. */
TEST(wallClock_backByADayWithARevokedResponse, "14") {
    responder.revoked = 1;
    responder.validity = 30 * TEST_DAY;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    responder.revoked = 0;
    moveWallClock(-(int64_t)TEST_DAY * 1000);
    responder.backdate = -TEST_DAY - 10; /* the responder's clock did not move */
    int before = requestCount();
    runFor(3601 * 1000);
    assert_true(requestCount() > before);
    SSL_CTX_free(ctx);
}

TEST(wallClock_backByADayWithoutNextUpdate, "14") {
    responder.no_next_update = 1;
    SSL_CTX *ctx = loadLeaf();
    runUntilIdle();
    moveWallClock(-(int64_t)TEST_DAY * 1000);
    int before = requestCount();
    runFor(601 * 1000);
    assert_true(requestCount() > before);
    SSL_CTX_free(ctx);
}
