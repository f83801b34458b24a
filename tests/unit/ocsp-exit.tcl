# ocsp-exit.tcl - scenario 20: 200 exits while a fetch hangs and while responses are verified, and what else a server
# does in the background meanwhile.
#
# A server's exit() runs OpenSSL's clean-up under the thread; without care that crashes most of the time. Servers are
# started a few at a time, and ended in turns by SHUTDOWN and by SIGTERM. No time is demanded of an exit, but a fetch
# may hang for 60 seconds here, and an exit that waited for it would be noticed.
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lab [ocsp_lab]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]

# Starts `count` servers one after another, without waiting for the end of any; returns their dicts.
proc start_many {count args} {
    set all {}
    for {set i 0} {$i < $count} {incr i} {
        lappend all [start_server [ocsp_server $::leaf $::ca cache-dir {} retry-delay 1 {*}$args]]
    }
    return $all
}

# Ends each, by turns in both ways, and returns sentences about those that did not end well.
proc end_many {many} {
    set wrong {}
    set turn 0
    foreach server $many {
        if {[incr turn] % 2} {
            send_signal [dict get $server pid] TERM
        } else {
            set client [valkey 127.0.0.1 [dict get $server pport] 1]
            $client shutdown nosave
            lappend clients $client
        }
    }
    foreach server $many {
        # Half of what a hanging fetch may take.
        set status [wait_exit [dict get $server dir] [dict get $server pid] 30]
        report gone [dict get $server pid]
        set trouble [log_trouble [dict get $server dir]]
        if {$status ne "0" || $trouble ne {}} {
            lappend wrong "status $status in [dict get $server dir]: $trouble"
        } else {
            file delete -force [dict get $server dir]
        }
    }
    foreach client $clients {catch {$client close}}
    return $wrong
}

set batch 10

test {20.1 100 exits while a fetch hangs: none crashes, none waits for it} {
    set wrong {}
    ocsp_responder_behave $responder hang
    for {set done 0} {$done < 100} {incr done $batch} {
        set many [start_many $batch timeout 60]
        wait_for_condition 400 50 {[dict get [ocsp_responder_stats $responder] held] >= $batch} else {
            fail "not all have asked"
        }
        lappend wrong {*}[end_many $many]
        wait_for_condition 400 50 {[dict get [ocsp_responder_stats $responder] held] == 0} else {
            fail "the connections of ended servers stay open"
        }
    }
    assert_equal $wrong {}
}

test {20.2 100 exits while responses are fetched and verified without a pause: none crashes} {
    set wrong {}
    # The same bytes each time, so that the responder is no brake; a file costs even less, so half of them read one.
    ocsp_responder_behave $responder {next 7200 freeze 1}
    set file [file join [dict get $lab dir] supplied.der]
    ocsp_response_file $file $leaf $ca {next 7200}
    for {set done 0} {$done < 100} {incr done $batch} {
        set many [concat [start_many [expr {$batch / 2}]] [start_many [expr {$batch / 2}] response-file $file]]
        set busy {}
        foreach server $many {
            # A stream of refreshes that is still being worked off when the end comes.
            set client [valkey 127.0.0.1 [dict get $server pport] 1]
            for {set i 0} {$i < 200} {incr i} {$client ocsp.refresh}
            lappend busy $client
        }
        after [randomInt 60]
        lappend wrong {*}[end_many $many]
        foreach client $busy {catch {$client close}}
    }
    assert_equal $wrong {}
}

test {20.3 exits at any moment of the first half second} {
    set wrong {}
    ocsp_responder_behave $responder {next 7200}
    for {set i 0} {$i < 20} {incr i} {
        set many [start_many 2]
        after [randomInt 40]
        lappend wrong {*}[end_many $many]
    }
    assert_equal $wrong {}
}

start_server [ocsp_server $leaf $ca timeout 60 save {3600 1}] {
    test {20.4 BGSAVE, BGREWRITEAOF and DEBUG RELOAD while a fetch hangs} {
        ocsp_responder_behave $responder good
        ocsp_wait_info state good
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        wait_for_condition 200 50 {[dict get [ocsp_responder_stats $responder] held] == 1} else {fail "not asked"}
        r set key value
        r bgsave
        waitForBgsave r
        assert_equal [s rdb_last_bgsave_status] ok
        r bgrewriteaof
        waitForBgrewriteaof r
        assert_equal [s aof_last_bgrewrite_status] ok
        r config set appendonly yes
        waitForBgrewriteaof r
        assert_equal [r debug reload] OK
        assert_equal [r get key] value
        assert_equal [dict get [ocsp_responder_stats $responder] held] 1
        ocsp_assert_staple good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        ocsp_wait_info consecutive_failures 0
    }

    test {20.5 BGSAVE, BGREWRITEAOF and DEBUG RELOAD while responses are verified} {
        set busy [valkey_deferring_client]
        for {set i 0} {$i < 100} {incr i} {$busy ocsp.refresh}
        for {set i 0} {$i < 5} {incr i} {
            r bgsave
            waitForBgsave r
            assert_equal [s rdb_last_bgsave_status] ok
            r bgrewriteaof
            waitForBgrewriteaof r
            assert_equal [s aof_last_bgrewrite_status] ok
            assert_equal [r debug reload] OK
            ocsp_assert_staple good
        }
        $busy close
        assert_equal [r get key] value
    }

    test {20.6 SHUTDOWN with a save, and a restart, while a fetch hangs} {
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        wait_for_condition 200 50 {[dict get [ocsp_responder_stats $responder] held] == 1} else {fail "not asked"}
        restart_server 0 true false 1 save
        assert_equal [r get key] value
        assert_equal [ocsp_staple] good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
    }
}

ocsp_lab_close $lab
