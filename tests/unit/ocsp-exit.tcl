# ocsp-exit.tcl - the server exits, forks and saves while a fetch hangs and while responses are verified (scenario 20).
#
# exit() runs OpenSSL's clean-up, possibly while the OCSP thread is inside OpenSSL: without a lock around that, the
# server crashes in most of these tests. Servers are started a few at a time, and ended in turn by SHUTDOWN and by
# SIGTERM. No test demands a fast exit, but a fetch may hang for 60 seconds here, and a test fails if an exit waits
# for that.
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

# Starts `count` servers one after another, without waiting for anything further. Returns their dicts.
proc start_many {count args} {
    set all {}
    for {set i 0} {$i < $count} {incr i} {
        lappend all [start_server [ocsp_server $::leaf $::ca cache-dir {} retry-delay 1 {*}$args]]
    }
    return $all
}

# Ends each of the servers, in turn by SIGTERM and by SHUTDOWN, and returns sentences about those that did not end well.
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
        # Half of the time that a hanging fetch may take.
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

test {exit: 100 exits while a fetch hangs: none crashes, none waits for the fetch (20.1)} {
    set wrong {}
    ocsp_responder_behave $responder hang
    for {set done 0} {$done < 100} {incr done $batch} {
        set many [start_many $batch timeout 60]
        ocsp_wait_hanging $responder $batch
        lappend wrong {*}[end_many $many]
        ocsp_wait_hanging $responder 0
    }
    assert_equal $wrong {}
}

test {exit: 100 exits while responses are fetched and verified without pause: none crashes (20.2)} {
    set wrong {}
    # The responder sends the same bytes each time, which is fast; half of the servers read a file, which is faster.
    ocsp_responder_behave $responder {next 7200 freeze 1}
    set file [file join [dict get $lab dir] supplied.der]
    ocsp_response_file $file $leaf $ca {next 7200}
    for {set done 0} {$done < 100} {incr done $batch} {
        set many [concat [start_many [expr {$batch / 2}]] [start_many [expr {$batch / 2}] response-file $file]]
        set busy {}
        foreach server $many {
            # More refreshes than are done when the server exits.
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

test {exit: at any moment in the first half second (20.3)} {
    set wrong {}
    ocsp_responder_behave $responder {next 7200}
    for {set i 0} {$i < 20} {incr i} {
        set many [start_many 2]
        after [randomInt 40]
        lappend wrong {*}[end_many $many]
    }
    assert_equal $wrong {}
}

ocsp_responder_behave $responder good
start_server [ocsp_server $leaf $ca timeout 60 save {3600 1}] {
    ocsp_wait_info state good
    r set key value

    test {exit: BGSAVE, BGREWRITEAOF and DEBUG RELOAD while a fetch hangs (20.4)} {
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        ocsp_wait_hanging $responder
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
        assert_equal [dict get [ocsp_responder_stats $responder] hanging] 1
        ocsp_assert_staple good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        ocsp_wait_info consecutive_failures 0
    }

    test {exit: BGSAVE, BGREWRITEAOF and DEBUG RELOAD while responses are verified (20.5)} {
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

    test {exit: SHUTDOWN SAVE and a restart while a fetch hangs (20.6)} {
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        ocsp_wait_hanging $responder
        restart_server 0 true false 1 save
        assert_equal [r get key] value
        assert_equal [ocsp_staple] good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
    }
}
