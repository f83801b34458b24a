#!/bin/sh
# all.sh - runs test programs and prints a summary as its last line: "N passed, N failed".
#
# usage: sh tests/all.sh unit PROGRAM...                   the C programs (cmocka) alone
#        sh tests/all.sh all PROGRAM... -- [RUN.TCL'S ARGUMENTS...]   the C programs, 20 seconds of the simulation, then
#                                                                     the Tcl suites of tests/run.tcl
#
# A program's output is written to build/test-logs/ and printed only if a test failed. A program that crashes, or that
# exits with a failure although all its tests passed (for example a sanitizer's finding), counts as one more failure.
# What cannot be run, because something is not installed, is named and counts as one failure.
#
# SAN=address|thread|undefined names the sanitizer that the programs were built with. With OCSP_TEST_PATIENCE=N, for a slow
# machine, a program may take N times as long.
#
# SPDX-License-Identifier: BSD-3-Clause
set -u

cd "$(dirname "$0")/.." || exit 1
mode=${1:?usage: unit or all; see the head of this file}
shift
san=${SAN:-}
logs=build/test-logs${san:+/$san}
mkdir -p "$logs"
passed=0
failed=0

# A finding makes the program exit with status 66; leaks are findings. OpenSSL is not built for ThreadSanitizer, so
# races between two of OpenSSL's own functions are suppressed: see the suppressions file, if there is one.
export ASAN_OPTIONS="detect_leaks=1:exitcode=66${ASAN_OPTIONS:+:$ASAN_OPTIONS}"
export UBSAN_OPTIONS="print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}"
tsan="exitcode=66:second_deadlock_stack=1"
[ ! -f tests/c/tsan.supp ] || tsan="$tsan:suppressions=$(pwd)/tests/c/tsan.supp"
export TSAN_OPTIONS="$tsan${TSAN_OPTIONS:+:$TSAN_OPTIONS}"

# ThreadSanitizer needs a memory layout that newer kernels randomize too much for it.
prefix=
if [ "$san" = thread ] && setarch "$(uname -m)" -R true 2>/dev/null; then
    prefix="setarch $(uname -m) -R"
fi

# runUnit PROGRAM : runs a cmocka program, adds its results to $passed and $failed, and prints a line.
runUnit() {
    name=$(basename "$1")
    log=$logs/$name.log
    # shellcheck disable=SC2086 # $prefix is words
    timeout "$((300 * ${OCSP_TEST_PATIENCE:-1}))" $prefix "$1" >"$log" 2>&1
    status=$?
    # cmocka prints RUN for each test, then OK or SKIPPED: a test that has neither has failed or crashed.
    started=$(grep -c '^\[ RUN      \]' "$log")
    good=$(grep -c '^\[       OK \]' "$log")
    skipped=$(grep -c '^\[  SKIPPED \] [a-zA-Z_0-9]*$' "$log")
    [ "$skipped" -le $((started - good)) ] || skipped=$((started - good)) # cmocka lists skipped tests again at its end
    bad=$((started - good - skipped))
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    if [ "$started" -eq 0 ] && [ "$bad" -eq 0 ]; then bad=1; fi # a program without a test is a failure
    passed=$((passed + good))
    failed=$((failed + bad))
    if [ "$bad" -gt 0 ]; then
        cat "$log"
        printf '%s: %s passed, %s FAILED, exit status %s; output: %s\n' "$name" "$good" "$bad" "$status" "$log"
    else
        [ "$skipped" -eq 0 ] || skips=", $skipped skipped (they need root; see $log)"
        printf '%s: %s passed%s\n' "$name" "$good" "${skips:-}"
        skips=
    fi
}

# notRun WHAT PACKAGE : counts a part that cannot be run.
notRun() {
    echo "NOT RUN: $1, because $2 is not installed (sh deps/install.sh test)"
    failed=$((failed + 1))
}

echo "C unit tests${san:+ under SAN=$san}"
absent=
while [ $# -gt 0 ]; do
    case $1 in
    --)
        shift
        break
        ;;
    esac
    if [ -x "$1" ]; then runUnit "$1"; else absent=yes; fi
    shift
done
[ -z "$absent" ] || notRun "C unit tests" cmocka

# runTcl TITLE PROGRAM ARGUMENTS... : runs a Tcl program whose last line is "N passed, N failed", and prints its output
# while it runs.
runTcl() {
    what=$1
    shift
    echo "$what"
    log=$logs/$(basename "$1" .tcl).log
    {
        tclsh "$@"
        echo $? >"$log.status"
    } 2>&1 | tee "$log" | if [ "$what" = "$suites" ]; then cat; else grep -v -E '^ *ok|^[0-9]+ passed'; fi
    status=$(cat "$log.status")
    line=$(sed -n 's/^\([0-9][0-9]*\) passed, \([0-9][0-9]*\) failed.*$/\1 \2/p' "$log" | tail -n 1)
    good=${line% *}
    bad=${line#* }
    [ -n "$line" ] || good=0 bad=1
    [ "$status" -eq 0 ] || [ "$bad" -gt 0 ] || bad=1
    [ "$what" = "$suites" ] || echo "  $good passed, $bad failed"
    passed=$((passed + good))
    failed=$((failed + bad))
}

# runSimulation SUFFIX ARGUMENTS... : runs build/simulate, which exits with status 0, or reports a broken promise and
# the shortest history that leads to it.
runSimulation() {
    name=simulate$1
    log=$logs/$name.log
    shift
    timeout 300 build/simulate "$@" >"$log" 2>&1
    status=$?
    if [ "$status" -eq 0 ]; then
        passed=$((passed + 1))
        sed -n 's/^\(simulate\|self-test\): /  /p' "$log"
    else
        failed=$((failed + 1))
        cat "$log"
        printf '%s: FAILED, exit status %s; output: %s\n' "$name" "$status" "$log"
    fi
}

if [ "$mode" = all ]; then
    echo "The engine in virtual time, in new random worlds"
    runSimulation -self-test --self-test
    runSimulation '' --minutes 0.3
    suites="Tcl suites on a real server"
    if command -v tclsh >/dev/null; then
        runTcl "The mock responder, checked by openssl ocsp" tests/support/ocsp_selftest.tcl
        runTcl "deps/install.sh, with apt and dpkg replaced" tests/install.tcl
        [ ! -f tests/patch.tcl ] || runTcl "The patch tool, on small trees" tests/patch.tcl
        runTcl "$suites" tests/run.tcl "$@"
    else
        notRun "everything in Tcl" tcl
    fi
    echo "In total:"
fi

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
