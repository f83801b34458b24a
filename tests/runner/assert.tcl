# assert.tcl - tests and assertions: test, tags, assert..., wait_for_condition.
#
# Names and arguments are those of Valkey's own test suite, so that people who know that one can read and write these
# suites, and tests/unit/tls-ocsp.tcl runs under both. Differences: any error fails the test in which it happens, and
# the suite goes on; and a server that dies fails the test during which it died.
#
# SPDX-License-Identifier: BSD-3-Clause

set ::num_passed 0
set ::num_failed 0
set ::num_skipped 0
set ::cur_test {}
set ::tags {}
# All waits are this many times as long: for a slow machine, such as an emulated one.
set ::patience [expr {[info exists ::env(OCSP_TEST_PATIENCE)] ? int($::env(OCSP_TEST_PATIENCE)) : 1}]

# Sends an event to run.tcl, on one line, base64-encoded. If run.tcl is gone, stops the servers and exits.
proc report {args} {
    if {[catch {puts "@[binary encode base64 [encoding convertto utf-8 $args]]"; flush stdout}]} {
        stop_all_servers
        exit 1
    }
}

proc fail {why} {
    error "assertion:$why"
}

# Raises an assertion, with the detail that the caller of the assert... command gave.
proc unmet {sentence detail} {
    fail "$sentence[expr {$detail eq {} ? {} : " ($detail)"}]"
}

proc assert {condition} {
    if {![uplevel 1 [list expr $condition]]} {
        unmet "Expected [string trim $condition], which is [uplevel 1 [list subst -nocommands $condition]]" {}
    }
}

proc assert_equal {value expected {detail {}}} {
    if {$value ne $expected} {unmet "Expected '$value' to be equal to '$expected'" $detail}
}

proc assert_not_equal {value expected {detail {}}} {
    if {$value eq $expected} {unmet "Expected '$value' not to be equal to '$expected'" $detail}
}

proc assert_match {pattern value {detail {}}} {
    if {![string match $pattern $value]} {unmet "Expected '$value' to match '$pattern'" $detail}
}

proc assert_no_match {pattern value {detail {}}} {
    if {[string match $pattern $value]} {unmet "Expected '$value' not to match '$pattern'" $detail}
}

proc assert_morethan {value bound {detail {}}} {
    if {!($value > $bound)} {unmet "Expected '$value' to be more than '$bound'" $detail}
}

proc assert_morethan_equal {value bound {detail {}}} {
    if {!($value >= $bound)} {unmet "Expected '$value' to be at least '$bound'" $detail}
}

proc assert_lessthan {value bound {detail {}}} {
    if {!($value < $bound)} {unmet "Expected '$value' to be less than '$bound'" $detail}
}

proc assert_lessthan_equal {value bound {detail {}}} {
    if {!($value <= $bound)} {unmet "Expected '$value' to be at most '$bound'" $detail}
}

proc assert_range {value least most {detail {}}} {
    if {!($value >= $least && $value <= $most)} {unmet "Expected '$value' to be from '$least' to '$most'" $detail}
}

proc assert_error {pattern code {detail {}}} {
    if {![catch {uplevel 1 $code} answer]} {
        unmet "Expected an error like '$pattern' but the answer was '$answer'" $detail
    }
    assert_match $pattern $answer $detail
}

# Evaluates `condition` up to `maxtries` times, `delay` milliseconds apart, until it is true; if it never is, runs
# `message`. With OCSP_TEST_PATIENCE=N, N times as often.
proc wait_for_condition {maxtries delay condition else message} {
    for {set i 0} {$i < $maxtries * $::patience} {incr i} {
        if {[uplevel 1 [list expr $condition]]} {return}
        after $delay
    }
    uplevel 1 $message
}

# Returns the first reason not to run a test with these tags, or "".
proc tags_refused {tags} {
    foreach tag $tags {
        if {[string match needs:* $tag] && ![has_tool [string range $tag 6 end]]} {
            return "[string range $tag 6 end] is not installed"
        }
    }
    return {}
}

# Whether the tag needs:NAME is satisfied: a test with this tag is skipped where there is no program NAME. Other tags
# are for Valkey's own runner (external:skip, ...).
proc has_tool {name} {
    expr {$name in {debug repl config-maxmemory} || [auto_execok $name] ne {}}
}

proc tags {list code} {
    set before $::tags
    lappend ::tags {*}$list
    set code [catch {uplevel 1 $code} result options]
    set ::tags $before
    return -options $options $result
}

proc test {name code {okpattern undefined} {tags {}}} {
    if {$::only ne {} && ![string match $::only $name] && ![string match "*$::only*" $name]} return
    set reason [tags_refused [concat $::tags $tags]]
    if {$reason ne {}} {
        incr ::num_skipped
        report skip $name $reason
        return
    }
    set outer $::cur_test
    set ::cur_test $name
    report testing $name
    foreach server $::servers {note_in_log $server "### Starting test $name"}
    set started [clock milliseconds]
    set failed [catch {uplevel 1 $code} result options]
    set why {}
    if {$failed == 1} {
        set why $result
        if {![string match assertion:* $why]} {
            # An error that is no failed assertion: add where it happened.
            append why \n [join [lrange [split [dict get $options -errorinfo] \n] 1 8] \n]
        }
    } elseif {$okpattern ne {undefined} && $result ne $okpattern && ![string match $okpattern $result]} {
        set why "Expected '$result' to match '$okpattern'"
    }
    regsub {^assertion:} $why {} why
    foreach trouble [servers_in_trouble] {append why [expr {$why eq {} ? {} : "\n"}]$trouble}
    set ::cur_test $outer
    if {$why ne {}} {
        fail_test $name $why [expr {[clock milliseconds] - $started}]
    } else {
        incr ::num_passed
        report ok $name [expr {[clock milliseconds] - $started}]
    }
}

proc fail_test {name why {ms 0}} {
    incr ::num_failed
    set logs {}
    foreach server $::servers {lappend logs [dict get $server stdout]}
    if {$logs eq {} && [info exists ::last_log]} {lappend logs $::last_log}
    report failed $name $why $logs $ms
}

proc skip_test {name reason} {
    if {$::only ne {} && ![string match $::only $name] && ![string match "*$::only*" $name]} return
    incr ::num_skipped
    report skip $name $reason
}

proc randomInt {max} {expr {int(rand() * $max)}}
proc randomRange {min max} {expr {int(rand() * ($max - $min)) + $min}}

proc getInfoProperty {info property} {
    foreach line [split $info \n] {
        if {[string match "$property:*" $line]} {
            return [string trimright [string range $line [string length $property]+1 end] \r]
        }
    }
}
