/* main.c - main() of every unit test program: runs the tests of its file in their order; see TEST in support.h.
 *
 * SPDX-License-Identifier: BSD-3-Clause */

#include "support.h"

#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static testCase *cases; /* by line */
static void (*program_set_up)(void), (*program_tear_down)(void);

void testRegister(testCase *one) {
    testCase **at = &cases;
    while (*at && (*at)->line < one->line) at = &(*at)->next;
    one->next = *at;
    *at = one;
}

void testRegisterProgram(void (*set_up)(void), void (*tear_down)(void)) {
    program_set_up = set_up;
    program_tear_down = tear_down;
}

/* cmocka's functions: *state is the testCase. */
static int setUpCase(void **state) {
    testCase *one = *state;
    if (one->set_up) one->set_up();
    return 0;
}

static void runCase(void **state) {
    testCase *one = *state;
    one->run();
}

static int tearDownCase(void **state) {
    testCase *one = *state;
    if (one->tear_down) one->tear_down();
    return 0;
}

static int setUpProgram(void **state) {
    (void)state;
    if (program_set_up) program_set_up();
    return 0;
}

static int tearDownProgram(void **state) {
    (void)state;
    if (program_tear_down) program_tear_down();
    return 0;
}

static int isSelected(const testCase *one) {
    const char *only = getenv("OCSP_TEST_ONLY");
    return !only || !*only || fnmatch(only, one->name, 0) == 0 || strcmp(only, one->scenario) == 0;
}

int main(int argc, char **argv) {
    struct CMUnitTest tests[TEST_MAX_CASES] = {{0}}; /* cmocka skips those without a name */
    const testCase *fixture = NULL;
    size_t count = 0;

    (void)argc;
    setvbuf(stdout, NULL, _IOLBF, 0); /* a program that dies has said which test it was in */
    for (testCase *one = cases; one; one = one->next) {
        if (!one->run) {
            fixture = one;
        } else if (isSelected(one)) {
            if (fixture) {
                one->set_up = fixture->set_up;
                one->tear_down = fixture->tear_down;
            }
            if (count == TEST_MAX_CASES) abort();
            tests[count++] = (struct CMUnitTest){one->name, runCase, setUpCase, tearDownCase, one};
        }
    }
    if (count == 0) {
        fprintf(stderr, "%s: no test matches OCSP_TEST_ONLY\n", argv[0]);
        return 1;
    }
    return cmocka_run_group_tests_name(argv[0], tests, setUpProgram, tearDownProgram);
}
