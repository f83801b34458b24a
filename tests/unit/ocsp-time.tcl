# ocsp-time.tcl - scenarios 10 (refresh at the margin), 11 (waiting after failures), 12 (expiry) and 13 (no spin).
#
# Responses of seconds, and the order of events as the responder wrote it down. Nothing here demands that something is
# quick; what is checked is what must not happen too early or too often, and that things happen before a response ends.
# The exact arithmetic is tested in C (tests/c). The four scenarios run one after another on one server each, but where
# two can wait at the same time they do.
#
# Weight: 75
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# When the requests came, in milliseconds, since the log was emptied.
proc request_times {responder args} {
    set times {}
    foreach request [ocsp_responder_log $responder {*}$args] {lappend times [dict get $request ms]}
    return $times
}

test {10 a 20-second response is refreshed at the margin, with 10 % and with 50 %, never later} {
    # Both wait together: two responders, two servers.
    set ten [ocsp_lab -behave {this 0 next 20}]
    set fifty [ocsp_lab -behave {this 0 next 20}]
    start_server [ocsp_server [dict get $ten leaf] [dict get $ten ca] refresh-margin 10%] {
        start_server [ocsp_server [dict get $fifty leaf] [dict get $fifty ca] refresh-margin 50%] {
            foreach {lab level margin} [list $ten -1 10 $fifty 0 50] {
                ocsp_wait_info state good $level
                set this_update [ocsp_info this_update $level]
                assert_equal [ocsp_info next_update $level] [expr {$this_update + 20}]
                set formula($margin) [expr {1000 * ($this_update + 20) - 200 * $margin}]
            }
            foreach {lab level margin} [list $fifty 0 50 $ten -1 10] {
                set responder [dict get $lab responder]
                ocsp_responder_wait $responder 2 40000
                set asked [lindex [request_times $responder] 1]
                # At most a tenth of the margin window early; and late only by what a busy machine needs to run us.
                assert_morethan_equal $asked [expr {$formula($margin) - 20 * $margin - 50}]
                assert_lessthan_equal $asked [expr {$formula($margin) + 1000}]
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

test {11 five failures in a row wait as the policy says; the recovery resets it; the log has two lines} {
    set lab [ocsp_lab]
    set responder [dict get $lab responder]
    start_server [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1] {
        ocsp_wait_info state good
        set lines [llength [ocsp_log_lines]]
        ocsp_responder_behave $responder {http 503}
        ocsp_responder_forget $responder
        r debug ocsp-refresh
        ocsp_responder_wait $responder 5 60000
        ocsp_wait_info consecutive_failures 5
        set times [request_times $responder]
        # 1, 2, 4, 8 seconds, each 20 % more or less.
        for {set i 0} {$i < 4} {incr i} {
            set gap [expr {[lindex $times $i+1] - [lindex $times $i]}]
            assert_morethan_equal $gap [expr {int(800 * 2**$i) - 20}] "gap $i of $times"
            assert_lessthan_equal $gap [expr {int(1200 * 2**$i) + 1500}] "gap $i of $times"
        }
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_staple] good
        # What is announced for the sixth: 16 seconds, 20 % more or less.
        assert_range [ocsp_info next_refresh_in_seconds] 8 20
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 1}] [ocsp_log_lines]

        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_info consecutive_failures 0
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 2}] [ocsp_log_lines]

        # The recovery has reset it: the next failure waits one second again.
        ocsp_responder_behave $responder {http 503}
        ocsp_responder_forget $responder
        r debug ocsp-refresh
        ocsp_responder_wait $responder 2 20000
        lassign [request_times $responder] first second
        assert_range [expr {$second - $first}] 780 2700
    }
    ocsp_lab_close $lab
}

test {12 the held response expires while the responder is down: handshakes go on without a staple} {
    set lab [ocsp_lab -behave {this 0 next 7}]
    set responder [dict get $lab responder]
    start_server [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1 refresh-margin 1] {
        ocsp_wait_info state good
        set end [ocsp_info next_update]
        ocsp_responder_behave $responder {http 503}
        set seen {}
        while {[clock seconds] <= $end + 1} {
            set before [clock seconds]
            set shake [ocsp_handshake]
            assert_equal [dict get $shake ok] 1
            if {[dict get $shake staple] eq "good"} {
                # Looked up before the handshake: a staple then says that its end lay ahead.
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
        assert_equal [llength [ocsp_log_lines 0 {*expired*}]] 1 [ocsp_log_lines]
        # Back, without anybody's help.
        ocsp_responder_behave $responder good
        ocsp_wait_info state good
        ocsp_assert_good [dict get $lab ca]
        assert_equal [ocsp_info last_error] {}
    }
    ocsp_lab_close $lab
}

test {12 half of the refresh window gone without success is one warning} {
    set lab [ocsp_lab -behave {this 0 next 10}]
    set responder [dict get $lab responder]
    start_server [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1 refresh-margin 80] {
        ocsp_wait_info state good
        set lines [llength [ocsp_log_lines]]
        ocsp_responder_behave $responder {http 503}
        ocsp_wait_info state expired
        # First failure, the warning, the end; however many tries there were.
        assert_range [expr {[llength [ocsp_log_lines]] - $lines}] 2 3
        assert_morethan [ocsp_info refresh_failures] 1
    }
    ocsp_lab_close $lab
}

test {13 the same response again and again: no spin, and no failure} {
    set lab [ocsp_lab -behave {this 0 next 12 freeze 1}]
    set responder [dict get $lab responder]
    start_server [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1 refresh-margin 50] {
        ocsp_wait_info state good
        set end [ocsp_info next_update]
        # From the sixth second on it is asked for a newer one and gets the same.
        while {[clock seconds] < $end - 1} {after 100}
        set fields [ocsp_info_all]
        assert_equal [dict get $fields refresh_failures] 0
        assert_equal [dict get $fields state] good
        # Once before the sixth second, and at most once a second in those that follow.
        assert_range [ocsp_responder_count $responder] 2 8
    }
    ocsp_lab_close $lab
}

test {13 a responder that backdates: the floor of one second beats the formula} {
    # Each answer is new, and by the formula should long have been refreshed.
    set lab [ocsp_lab -behave {this -3600 next 9}]
    set responder [dict get $lab responder]
    start_server [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1 refresh-margin 99] {
        ocsp_wait_info state good
        ocsp_responder_wait $responder 3 60000
        set times [request_times $responder]
        for {set i 1} {$i < [llength $times]} {incr i} {
            # A round begins a second after the one before it at the earliest.
            assert_morethan_equal [expr {[lindex $times $i] - [lindex $times $i-1]}] 950 $times
        }
        assert_equal [ocsp_info refresh_failures] 0
        assert_equal [ocsp_staple] good
    }
    ocsp_lab_close $lab
}

test {13 revoked with a short life is asked again and again, at most once a second} {
    set lab [ocsp_lab -behave {status revoked this 0 next 4}]
    set responder [dict get $lab responder]
    start_server [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1 refresh-margin 50] {
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
