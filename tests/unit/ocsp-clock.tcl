# ocsp-clock.tcl - scenario 14: the wall clock jumps by a day, forward and back.
#
# The server's clock is moved by a preloaded library (support/clock_shift.c); the responder's and ours stay, so that the
# responder is told what the time is for the server.
#
# Weight: 24
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set day 86400

# The behaviour of a responder whose clock is ahead by `shift`.
proc behave_at {responder shift} {
    ocsp_responder_behave $responder \
        [list this [format %+d $shift] produced [format %+d $shift] next [format %+d [expr {$shift + 3600}]]]
}

proc with_clock {lab code} {
    uplevel 1 [list set shift [file join [dict get $lab dir] shift]]
    uplevel 1 {ocsp_file_write $shift 0}
    set preload [list LD_PRELOAD [ocsp_tool clock_shift] CLOCK_SHIFT_FILE [file join [dict get $lab dir] shift]]
    uplevel 1 [list start_server [concat [ocsp_server [dict get $lab leaf] [dict get $lab ca] retry-delay 1] \
        [list env $preload]] $code]
}

test {14 the server's clock is the shifted one} {
    set lab [ocsp_lab]
    with_clock $lab {
        set now [lindex [r time] 0]
        ocsp_file_write $shift $day
        assert_range [expr {[lindex [r time] 0] - $now}] $day [expr {$day + 60}]
    }
    ocsp_lab_close $lab
}

test {14 forward by a day: nothing is stapled past its end, and a new response is fetched} {
    set lab [ocsp_lab -to +864000]
    set responder [dict get $lab responder]
    with_clock $lab {
        ocsp_wait_info state good
        assert_equal [ocsp_staple] good
        behave_at $responder $day
        ocsp_responder_forget $responder
        ocsp_responder_behave $responder {http 503}
        ocsp_file_write $shift $day
        # With the next handshake.
        assert_equal [ocsp_staple] none
        # Without anybody's help: it notices that the time has come.
        ocsp_responder_wait $responder 1 30000
        behave_at $responder $day
        ocsp_wait_info state good 0 30
        assert_equal [ocsp_staple] good
        assert_morethan [ocsp_info this_update] [expr {[clock seconds] + $day - 600}]
    }
    ocsp_lab_close $lab
}

test {14 back by a day: the server runs, asks again, and takes the response of the new present} {
    set lab [ocsp_lab -from -864000 -to +864000]
    set responder [dict get $lab responder]
    with_clock $lab {
        ocsp_wait_info state good
        ocsp_file_write $shift -$day
        behave_at $responder -$day
        assert_equal [dict get [ocsp_handshake] ok] 1
        assert_equal [r ping] PONG
        # What is held now lies in the future: an answer of the present is no failure for being older.
        r debug ocsp-refresh
        wait_for_condition 400 50 {[ocsp_info this_update] < [clock seconds] - $day + 600} else {
            fail "the answer of the present was not taken ([ocsp_situation])"
        }
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info consecutive_failures] 0
        assert_equal [ocsp_staple] good
    }
    ocsp_lab_close $lab
}

test {14 forward and back again within a breath: what was held is stapled again} {
    set lab [ocsp_lab]
    set responder [dict get $lab responder]
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
        ocsp_assert_good [dict get $lab ca]
    }
    ocsp_lab_close $lab
}
