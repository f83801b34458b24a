# ocsp-iothreads.tcl - features of newer servers: handshakes on I/O threads (scenario 25), changing their number at run
# time (26), certificates that the server reloads by itself (27), unloading of modules at shutdown (28).
#
# The suite probes the server for each feature and does not look at its version. What the server lacks is skipped.
#
# Weight: 40
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

# ---- features of this server ----

# directive -> its value, for directives that this server has
set has {}
start_server [ocsp_server $leaf $ca] {
    foreach name {io-threads events-per-io-thread io-threads-always-active tls-auto-reload-interval} {
        if {[r config get $name] ne {}} {dict set has $name [lindex [r config get $name] 1]}
    }
    set accepts_on_threads [string match *io_threaded_accept_processed:* [r info stats]]
    set changes_threads [expr {![catch {r config set io-threads [dict get $has io-threads]}]}]
}

# Returns directives for I/O threads. With `always`, every handshake that can be moved to an I/O thread is moved, even
# if there is only one; otherwise the server decides by its load.
proc io_threads {count {always 0}} {
    set directives [list io-threads $count]
    if {$always && [dict exists $::has events-per-io-thread]} {lappend directives events-per-io-thread 0}
    if {$always && [dict exists $::has io-threads-always-active]} {lappend directives io-threads-always-active yes}
    return $directives
}

# Adds to server options a preloaded library that records which thread stapled each handshake. Returns the options and
# the file with the record.
proc with_threads_noted {options} {
    set file [tmpfile threads]
    lappend options env [list LD_PRELOAD [ocsp_tool accept_threads] ACCEPT_THREADS_FILE $file]
    return [list $options $file]
}

# Reads the record: thread id -> {name count}.
proc threads_noted {file} {
    set threads {}
    foreach line [lrange [split [read_text $file] \n] 0 end-1] {
        lassign $line id name
        set before [expr {[dict exists $threads $id] ? [lindex [dict get $threads $id] 1] : 0}]
        dict set threads $id [list $name [expr {$before + 1}]]
    }
    return $threads
}

# Returns how many handshakes the main thread stapled, how many other threads did, and the number of these threads.
proc shares {threads} {
    lassign {0 0 0} main others count
    dict for {id noted} $threads {
        lassign $noted name number
        if {$name eq "main"} {
            incr main $number
        } else {
            assert_match {io_thd_*} $name
            incr others $number
            incr count
        }
    }
    return [list $main $others $count]
}

# ---- handshakes on I/O threads (25) ----

set number 0
foreach {setting always} {{as its load demands} 0 {wherever it may} 1} {
    test "I/O threads: handshakes on them, $setting: each one is stapled, on whichever thread (25.[incr number])" {
        lassign [with_threads_noted [ocsp_server $leaf $ca {*}[io_threads 3 $always]]] options file
        start_server $options {
            ocsp_wait_info state good
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 8 --count 400]
            set result [ocsp_hammer_result $hammer]
            ocsp_assert_hammer $result
            assert_equal [dict get $result unstapled] 0
            # The record (a moment later) and INFO have every staple that the clients saw.
            wait_for_condition 200 50 {
                [lassign [shares [threads_noted $file]] main others threads] eq {}
                && $main + $others == [dict get $result stapled]
            } else {
                fail "the record [threads_noted $file] does not add up to $result"
            }
            assert_equal [ocsp_info handshakes_stapled] [dict get $result stapled]
            if {$accepts_on_threads} {
                assert_morethan [s io_threaded_accept_processed] 0
                if {$always} {assert_morethan $threads 1}
            } else {
                assert_equal $others 0
            }
            puts "note: [expr {$others * 100 / ($main + $others)}] % of the handshakes on I/O threads,\
                $setting ($others on $threads threads, $main on the main thread)"
        }
    }
}

if {!$accepts_on_threads} {
    skip_test {I/O threads: 25.3 to 25.5} {this server makes handshakes on its main thread}
} else {
    test {I/O threads: the main thread and I/O threads staple at the same time (25.3)} {
        lassign [with_threads_noted [ocsp_server $leaf $ca {*}[io_threads 2]]] options file
        start_server $options {
            ocsp_wait_info state good
            # Until both kinds of thread have stapled: the server decides by its load.
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 6]
            wait_for_condition 600 50 {
                [lindex [shares [threads_noted $file]] 0] > 10 && [lindex [shares [threads_noted $file]] 1] > 10
            } else {
                fail "only one kind of thread stapled: [threads_noted $file]"
            }
            ocsp_assert_hammer [ocsp_hammer_stop $hammer]
        }
    }

    test {I/O threads: refreshes, revocation, stapling off and on, and reloads, under handshakes (25.4)} {
        set other [ocsp_lab_leaf $lab other]
        lassign [with_threads_noted [ocsp_server $leaf $ca {*}[io_threads 4 1]]] options file
        start_server $options {
            ocsp_wait_info state good
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 6]
            for {set i 0} {$i < 40} {incr i} {
                ocsp_responder_behave $responder [expr {$i % 8 == 7 ? {status revoked} : "good"}]
                r debug ocsp-refresh
                if {$i % 4 == 1} {ocsp_load_certificate [expr {$i % 8 == 1 ? $other : $leaf}]}
                if {$i % 4 == 2} {ocsp_set stapling no}
                after [randomInt 40]
                if {$i % 4 == 2} {ocsp_set stapling yes}
            }
            ocsp_responder_behave $responder good
            set result [ocsp_hammer_stop $hammer]
            ocsp_assert_hammer $result
            assert_morethan [dict get $result good] 0
            assert_morethan [lindex [shares [threads_noted $file]] 1] 0
            after 1100 ;# of two responses with equal times, revoked stays
            ocsp_load_certificate $leaf
            ocsp_wait_info state good
            ocsp_assert_good $ca
        }
    }

    test {I/O threads: the first handshake after a start is stapled from the cache with the responder down (25.5)} {
        lassign [with_threads_noted [ocsp_server $leaf $ca {*}[io_threads 4 1]]] options file
        start_server $options {
            ocsp_wait_info state good
            ocsp_responder_behave $responder hang
            for {set i 0} {$i < 5} {incr i} {
                restart_server 0 true false
                assert_equal [ocsp_staple] good
                assert_equal [ocsp_info handshakes_unstapled] 0
            }
            ocsp_responder_behave $responder good
            ocsp_responder_release $responder
        }
    }
}

# ---- the number of I/O threads (26) ----

if {!$changes_threads} {
    skip_test {I/O threads: their number changes under handshakes (26.1)} {io-threads cannot be set at run time}
} else {
    test {I/O threads: their number changes under handshakes (26.1)} {
        lassign [with_threads_noted [ocsp_server $leaf $ca {*}[io_threads 2 1]]] options file
        start_server $options {
            ocsp_wait_info state good
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 6]
            for {set i 0} {$i < 60} {incr i} {
                r config set io-threads [lindex {1 4 2 8 1 3} [expr {$i % 6}]]
                if {$i % 5 == 0} {r debug ocsp-refresh}
                if {$i % 10 == 0} {ocsp_load_certificate $leaf}
                after [randomInt 60]
            }
            set result [ocsp_hammer_stop $hammer]
            ocsp_assert_hammer $result
            assert_equal [dict get $result unstapled] 0
            lassign [shares [threads_noted $file]] main others threads
            assert_morethan $main 0
            assert_morethan $others 0
            # More than exist at any time: threads are created and end, and so does what the module keeps per thread.
            assert_morethan $threads 8
            ocsp_assert_good $ca
        }
    }
}

# ---- certificates that the server reloads by itself (27) ----

if {![dict exists $has tls-auto-reload-interval]} {
    skip_test {auto-reload: 27.1 to 27.5} {this server does not reload certificates by itself}
} else {
    set place [dict create cert [file join $dir place.crt] key [file join $dir place.key]]
    ocsp_put_certificate $leaf $place
    set mended [ocsp_lab_leaf $lab mended]
    start_server [ocsp_server $place $ca tls-auto-reload-interval 1 {*}[io_threads 4 1]] {
        ocsp_wait_info state good

        test {auto-reload: a renewed certificate gets its own staple or none, never the old certificate's (27.1)} {
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 4]
            foreach name {auto1 auto2 auto3} {
                set renewed [ocsp_lab_leaf $lab $name]
                ocsp_put_certificate $renewed $place
                wait_for_condition 400 50 {[dict get [ocsp_handshake] serial] eq [dict get $renewed serial]} else {
                    fail "the server does not serve its new certificate"
                }
                ocsp_wait_info cert_serial [dict get $renewed serial]
                ocsp_wait_info state good
                ocsp_wait_staple good
                ocsp_assert_good $ca
            }
            ocsp_assert_hammer [ocsp_hammer_stop $hammer]
        }

        test {auto-reload: files that are touched, with the same certificate: no handshake without a staple (27.2)} {
            set unstapled [ocsp_info handshakes_unstapled]
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 4]
            for {set i 0} {$i < 3} {incr i} {
                set from [count_log_lines 0]
                # Valkey compares times in whole seconds.
                after 1100
                file mtime [dict get $place key] [clock seconds]
                file mtime [dict get $place cert] [clock seconds]
                # New TLS contexts with the same certificate: only the log shows them.
                wait_for_log_messages 0 {{*TLS materials reloaded*}} $from 400 50
                ocsp_assert_staple good
            }
            set result [ocsp_hammer_stop $hammer]
            ocsp_assert_hammer $result
            assert_equal [dict get $result unstapled] 0
            assert_equal [ocsp_info handshakes_unstapled] $unstapled
        }

        test {auto-reload: a broken certificate file: the old certificate and its staple stay (27.3)} {
            set serial [ocsp_info cert_serial]
            set broken [file join $dir auto-broken.pem]
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 4]
            foreach content [list "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n" {} \
                [read_text [dict get [ocsp_lab_leaf $lab mismatch] cert]]] {
                set from [count_log_lines 0]
                ocsp_file_write $broken $content
                file rename -force $broken [dict get $place cert]
                # The server makes a TLS context on its own thread, finds the fault and frees it there.
                wait_for_log_messages 0 {{*reload*fail*} {*Fail*reload*} {*Failed to*} {*failed to*}} $from 400 50
                assert_equal [ocsp_info cert_serial] $serial
                assert_equal [ocsp_info state] good
                ocsp_assert_good $ca
            }
            set result [ocsp_hammer_stop $hammer]
            ocsp_assert_hammer $result
            assert_equal [dict get $result unstapled] 0
        }

        test {auto-reload: once the file is repaired, the new certificate gets its own staple (27.4)} {
            ocsp_put_certificate $mended $place
            wait_for_condition 400 50 {[dict get [ocsp_handshake] serial] eq [dict get $mended serial]} else {
                fail "the server does not serve its new certificate"
            }
            ocsp_wait_info cert_serial [dict get $mended serial]
            ocsp_wait_staple good
            ocsp_assert_good $ca
        }

        test {auto-reload: at the same time as CONFIG SET, under handshakes (27.5)} {
            set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 4]
            set leaves [list $mended [ocsp_lab_leaf $lab both]]
            for {set i 0} {$i < 12} {incr i} {
                ocsp_put_certificate [lindex $leaves [expr {$i % 2}]] $place
                # The server may have noticed the change, be loading, or not have checked yet.
                after [randomInt 1500]
                ocsp_load_certificate $place
            }
            ocsp_assert_hammer [ocsp_hammer_stop $hammer]
            ocsp_put_certificate $mended $place
            ocsp_load_certificate $place
            ocsp_wait_info cert_serial [dict get $mended serial]
            ocsp_wait_staple good
            ocsp_assert_good $ca
        }
    }
}

# ---- shutdown (28) ----

set name {shutdown: under handshakes on I/O threads, also while the responder hangs: each exit is clean (28.1)}
if {[info exists ::env(OCSP_TEST_EMULATED)]} {
    # OpenSSL's clean-up takes so long there that I/O threads, which do not end before it, often fall into it.
    skip_test $name {on an emulated processor the server crashes in some of these exits without the module, too}
} else {
    # Valkey 9.1 unloads modules at shutdown. This module refuses, which must change nothing.
    test $name {
        for {set i 0} {$i < 10} {incr i} {
            ocsp_responder_behave $responder [expr {$i % 2 ? "hang" : "good"}]
            start_server [ocsp_server $leaf $ca {*}[io_threads 4 1]] {
                if {$i % 2 == 0} {ocsp_wait_info state good}
                set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 4 --count 2000]
                after [randomInt 200]
                set from [count_log_lines 0]
                catch {r shutdown nosave}
                assert_equal [wait_exit [srv 0 dir] [srv 0 pid]] 0
                assert_equal [log_trouble [srv 0 dir]] {}
                # That the module cannot be unloaded is not worth a line at shutdown.
                verify_no_log_message 0 {*cannot be unloaded*} $from
                # Connections of the clients are refused now, but no staple may have been bad.
                assert_equal [dict get [ocsp_hammer_stop $hammer] bad] 0
            }
        }
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
    }
}
