# ocsp-time.tcl - when the server fetches and when a staple ends: refresh at the margin (scenario 10), retries (11),
# expiry (12), no busy loop (13), jumps of the wall clock (14).
#
# Responses last for seconds, and the responder's log says when each request came. No test demands that something is
# fast: they check what must not happen too early or too often, and what must happen before a response expires. The
# exact schedule is tested in C, in c/test_schedule.
#
# Weight: 95
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Returns the times of requests since the responder's log was emptied, in milliseconds.
proc request_times {responder args} {
    set times {}
    foreach request [ocsp_responder_log $responder {*}$args] {lappend times [dict get $request ms]}
    return $times
}

test {refresh: a 20-second response is refreshed no later than its margin, for 10 % and 50 % (10)} {
    # Two servers and two responders, so that both margins are waited for at the same time.
    set ten [ocsp_lab -behave {this 0 next 20}]
    set fifty [ocsp_lab -behave {this 0 next 20}]
    start_server [ocsp_server [dict get $ten leaf] [dict get $ten ca] refresh-margin 10%] {
        start_server [ocsp_server [dict get $fifty leaf] [dict get $fifty ca] refresh-margin 50%] {
            foreach {lab level margin} [list $ten -1 10 $fifty 0 50] {
                ocsp_wait_info state good $level
                set this_update [ocsp_info this_update $level]
                assert_equal [ocsp_info next_update $level] [expr {$this_update + 20}]
                set due($margin) [expr {1000 * ($this_update + 20) - 200 * $margin}]
            }
            foreach {lab level margin} [list $fifty 0 50 $ten -1 10] {
                set responder [dict get $lab responder]
                ocsp_responder_wait $responder 2 40000
                set requested [lindex [request_times $responder] 1]
                # Early by a tenth of the margin window at most; late only by the delays of a busy machine.
                assert_morethan_equal $requested [expr {$due($margin) - 20 * $margin - 50}]
                assert_lessthan_equal $requested [expr {$due($margin) + 1000}]
                ocsp_wait_above refreshes 1 $level
                assert_equal [ocsp_info state $level] good
                assert_equal [ocsp_staple $level] good
                assert_equal [ocsp_info refresh_failures $level] 0
            }
        }
    }
    ocsp_lab_close $ten
    ocsp_lab_close $fifty
}

test {retry: five failures back off as documented, a success resets the delay, the log has two lines (11)} {
    ocsp_setup
    start_server [ocsp_server $leaf $ca retry-delay 1] {
        ocsp_wait_info state good
        set lines [llength [ocsp_log_lines]]
        ocsp_responder_behave $responder {http 503}
        ocsp_responder_forget $responder
        r debug ocsp-refresh
        ocsp_responder_wait $responder 5 60000
        ocsp_wait_info consecutive_failures 5
        set times [request_times $responder]
        # 1, 2, 4 and 8 seconds, +- 20 %.
        for {set i 0} {$i < 4} {incr i} {
            set gap [expr {[lindex $times $i+1] - [lindex $times $i]}]
            assert_morethan_equal $gap [expr {int(800 * 2**$i) - 20}] "gap $i of $times"
            assert_lessthan_equal $gap [expr {int(1200 * 2**$i) + 1500}] "gap $i of $times"
        }
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_staple] good
        # The sixth attempt is due in 16 seconds, +- 20 %.
        assert_range [ocsp_info next_refresh_in_seconds] 8 20
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 1}] [ocsp_log_lines]

        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_info consecutive_failures 0
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 2}] [ocsp_log_lines]

        # The success has reset the delay: after the next failure it is one second again.
        ocsp_responder_behave $responder {http 503}
        ocsp_responder_forget $responder
        r debug ocsp-refresh
        ocsp_responder_wait $responder 2 20000
        lassign [request_times $responder] first second
        assert_range [expr {$second - $first}] 780 2700
    }
    ocsp_lab_close $lab
}

test {expiry: a response that expires while the responder is down is not stapled, and handshakes go on (12)} {
    ocsp_setup -behave {this 0 next 7}
    start_server [ocsp_server $leaf $ca retry-delay 1 refresh-margin 1] {
        ocsp_wait_info state good
        set end [ocsp_info next_update]
        ocsp_responder_behave $responder {http 503}
        set seen {}
        while {[clock seconds] <= $end + 1} {
            set before [clock seconds]
            set shake [ocsp_handshake]
            assert_equal [dict get $shake ok] 1
            if {[dict get $shake staple] eq "good"} {
                # The time was read before the handshake: at that time a stapled response must not have expired.
                assert_morethan [dict get $shake next] $before "stapled past its end"
            }
            lappend seen [dict get $shake staple]
            after 100
        }
        assert_equal [lindex $seen 0] good
        assert_equal [lindex $seen end] none
        ocsp_wait_info state expired
        ocsp_assert_staple none
        assert_equal [ocsp_info expires_in_seconds] -1
        assert_equal [llength [ocsp_log_lines 0 {*: the OCSP response expired on *}]] 1 [ocsp_log_lines]
        # The next retry succeeds.
        ocsp_responder_behave $responder good
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_equal [ocsp_info last_error] {}
    }
    ocsp_lab_close $lab
}

test {expiry: one warning when half of the refresh window has passed without success (12)} {
    ocsp_setup -behave {this 0 next 10}
    start_server [ocsp_server $leaf $ca retry-delay 1 refresh-margin 80] {
        ocsp_wait_info state good
        set lines [llength [ocsp_log_lines]]
        ocsp_responder_behave $responder {http 503}
        ocsp_wait_info state expired
        # The first failure, the warning, the expiry, however many attempts there were.
        assert_range [expr {[llength [ocsp_log_lines]] - $lines}] 2 3
        assert_morethan [ocsp_info refresh_failures] 1
    }
    ocsp_lab_close $lab
}

test {refresh: the same response again and again causes neither a busy loop nor a failure (13)} {
    ocsp_setup -behave {this 0 next 12 freeze 1}
    start_server [ocsp_server $leaf $ca retry-delay 1 refresh-margin 50] {
        ocsp_wait_info state good
        set end [ocsp_info next_update]
        # From the sixth second on, refreshes are due, and each of them gets the same response.
        while {[clock seconds] < $end - 1} {after 100}
        set fields [ocsp_info_all]
        assert_equal [dict get $fields refresh_failures] 0
        assert_equal [dict get $fields state] good
        # One request before the sixth second, and at most one per second afterwards.
        assert_range [ocsp_responder_count $responder] 2 8
    }
    ocsp_lab_close $lab
}

test {refresh: responses that are due as they arrive are fetched at most once a second (13)} {
    # The responder backdates each response so far that its refresh is overdue.
    ocsp_setup -behave {this -3600 next 9}
    start_server [ocsp_server $leaf $ca retry-delay 1 refresh-margin 99] {
        ocsp_wait_info state good
        ocsp_responder_wait $responder 3 60000
        set times [request_times $responder]
        for {set i 1} {$i < [llength $times]} {incr i} {
            # A refresh starts no earlier than a second after the one before.
            assert_morethan_equal [expr {[lindex $times $i] - [lindex $times $i-1]}] 950 $times
        }
        assert_equal [ocsp_info refresh_failures] 0
        assert_equal [ocsp_staple] good
    }
    ocsp_lab_close $lab
}

test {refresh: a short-lived revoked response is refreshed again and again, at most once a second (13)} {
    ocsp_setup -behave {status revoked this 0 next 4}
    start_server [ocsp_server $leaf $ca retry-delay 1 refresh-margin 50] {
        ocsp_wait_info state revoked
        ocsp_responder_wait $responder 3 20000
        set times [request_times $responder]
        assert_morethan_equal [expr {[lindex $times 1] - [lindex $times 0]}] 950
        assert_equal [ocsp_info state] revoked
        assert_equal [ocsp_info refresh_failures] 0
        ocsp_responder_behave $responder good
        ocsp_wait_info state good
    }
    ocsp_lab_close $lab
}

# ---- max-interval ----

# Waits until the next refresh is planned in at least `low` and at most `high` seconds.
proc wait_next {low high} {
    wait_for_condition 400 50 {
        [ocsp_info next_refresh_in_seconds] >= $low && [ocsp_info next_refresh_in_seconds] <= $high
    } else {
        fail "the next refresh is not in $low to $high seconds ([ocsp_situation])"
    }
}

test {max-interval: CONFIG SET plans the next refresh anew: shorter is earlier, 0 is as before (18)} {
    ocsp_setup -to +8640000 -behave {this 0 next 8640000}
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        set by_margin [ocsp_info next_refresh_in_seconds]
        assert_morethan $by_margin 1000000
        foreach {interval low} {604800 300000 3600 1500 36000 18000} {
            ocsp_set max-interval $interval
            wait_next $low $interval
        }
        ocsp_set max-interval 0
        wait_next [expr {$by_margin - 1000}] $by_margin
        assert_equal [ocsp_responder_count $responder] 1
        ocsp_set max-interval 60
        wait_next 0 60
        assert_equal [ocsp_info refresh_failures] 0
    }
    ocsp_lab_close $lab
}

test {max-interval: a restart counts from the time of the cached response, and what is overdue follows soon (15)} {
    ocsp_setup -to +8640000 -behave {this 0 next 8640000}
    set cache [file join $dir interval]
    file mkdir $cache
    set options [ocsp_server $leaf $ca cache-dir $cache max-interval 36000]
    start_server $options {
        ocsp_wait_info state good
        wait_next 18000 36000
        ocsp_wait_file [ocsp_cache_file $cache $leaf]
    }
    set file [ocsp_cache_file $cache $leaf]
    foreach {age low high} {20000 3000 16000 34000 0 3600 360000 0 3600} {
        file mtime $file [expr {[clock seconds] - $age}]
        start_server $options {
            assert_equal [ocsp_staple] good
            wait_next $low $high
        }
    }
    ocsp_lab_close $lab
}

# ---- jumps of the wall clock (14) ----

# A preloaded library, support/clock_shift.c, moves the server's clock. The responder's clock stays, so the test tells
# the responder which times to write.

set day 86400

# Makes the responder answer as at a time `shift` seconds from now.
proc behave_at {responder shift} {
    ocsp_responder_behave $responder \
        [list this [format %+d $shift] produced [format %+d $shift] next [format %+d [expr {$shift + 3600}]]]
}

# Runs `code` with a server that has the lab's certificate; its clock is ahead by the number of seconds in the file
# $shift.
proc with_clock {lab code} {
    set file [file join [dict get $lab dir] shift]
    ocsp_file_write $file 0
    uplevel 1 [list set shift $file]
    set preload [list LD_PRELOAD [ocsp_tool clock_shift] CLOCK_SHIFT_FILE $file]
    uplevel 1 [list start_server [concat [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1] \
        [list env $preload]] $code]
}

test {clock: the server's time is shifted by the preloaded library (14)} {
    ocsp_setup
    with_clock $lab {
        set now [lindex [r time] 0]
        ocsp_file_write $shift $day
        # Servers answer TIME from a clock that they cache for up to an iteration of the event loop.
        wait_for_condition 100 20 {[lindex [r time] 0] - $now >= $day} else {
            fail "TIME is [lindex [r time] 0], and was $now before the shift"
        }
        assert_lessthan_equal [expr {[lindex [r time] 0] - $now}] [expr {$day + 60}]
    }
    ocsp_lab_close $lab
}

test {clock: max-interval asks again after an unchanged answer, and after a failure backs off (13, 14)} {
    ocsp_setup -to +864000 -behave {this 0 next 864000 freeze 1}
    with_clock $lab {
        ocsp_set max-interval 36000
        ocsp_wait_info state good
        set this_update [ocsp_info this_update]
        for {set i 1} {$i <= 2} {incr i} { ;# the wall clock is ahead by more than the interval, as after a suspend
            ocsp_file_write $shift [expr {$i * 36100}]
            ocsp_responder_wait $responder [expr {$i + 1}] 30000
            ocsp_wait_above refreshes $i
            wait_next 18000 36000
        }
        assert_equal [ocsp_info this_update] $this_update
        assert_equal [ocsp_info refresh_failures] 0
        # Set back: at most the interval, by the clock that was not set.
        ocsp_file_write $shift 0
        wait_next 18000 36000
        ocsp_responder_behave $responder {http 503}
        ocsp_file_write $shift [expr {3 * 36100}]
        ocsp_wait_info consecutive_failures 3
        ocsp_responder_behave $responder {this 0 next 864000}
        ocsp_wait_info consecutive_failures 0
        wait_next 18000 36000
        assert_equal [ocsp_staple] good
    }
    ocsp_lab_close $lab
}

test {clock: forward by a day: an expired response is not stapled, and a new one is fetched (14)} {
    ocsp_setup -to +864000
    with_clock $lab {
        ocsp_wait_info state good
        assert_equal [ocsp_staple] good
        behave_at $responder $day
        ocsp_responder_forget $responder
        ocsp_responder_behave $responder {http 503}
        ocsp_file_write $shift $day
        # Expired for the very next handshake.
        assert_equal [ocsp_staple] none
        # The thread notices the jump by itself.
        ocsp_responder_wait $responder 1 30000
        behave_at $responder $day
        ocsp_wait_info state good 0 30
        assert_equal [ocsp_staple] good
        assert_morethan [ocsp_info this_update] [expr {[clock seconds] + $day - 600}]
    }
    ocsp_lab_close $lab
}

test {clock: back by a day: the server fetches and accepts a response of the new present (14)} {
    ocsp_setup -from -864000 -to +864000
    with_clock $lab {
        ocsp_wait_info state good
        ocsp_file_write $shift -$day
        behave_at $responder -$day
        assert_equal [dict get [ocsp_handshake] ok] 1
        assert_equal [r ping] PONG
        # The current response is now in the future: a response of the present is older, and yet no failure.
        r debug ocsp-refresh
        wait_for_condition 400 50 {[ocsp_info this_update] < [clock seconds] - $day + 600} else {
            fail "the response of the present was not accepted ([ocsp_situation])"
        }
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info consecutive_failures] 0
        assert_equal [ocsp_staple] good
    }
    ocsp_lab_close $lab
}

test {clock: forward by a day and back at once: the current response is stapled again (14)} {
    ocsp_setup
    with_clock $lab {
        ocsp_wait_info state good
        set this_update [ocsp_info this_update]
        ocsp_responder_behave $responder {http 503}
        ocsp_file_write $shift $day
        assert_equal [ocsp_staple] none
        ocsp_file_write $shift 0
        ocsp_wait_staple good
        assert_equal [dict get [ocsp_handshake] this] $this_update
        ocsp_responder_behave $responder good
        ocsp_wait_info consecutive_failures 0
        ocsp_assert_good $ca
    }
    ocsp_lab_close $lab
}
