# ocsp-reload.tcl - scenarios 17 (reloads) and 18 (directives at run time, under handshakes), and 10,000 handshakes
# while the response is refreshed in a loop.
#
# tls_hammer (support/tls_hammer.c) makes the handshakes, on several threads, and judges every staple in full.
#
# Weight: 26
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lab [ocsp_lab]
set dir [dict get $lab dir]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]
set url [lindex [dict get $lab urls] 0]

start_server [ocsp_server $leaf $ca retry-delay 1 timeout 2] {
    test {17.1 the same file: the staple is kept without an unstapled handshake, and a fetch is started} {
        ocsp_wait_info state good
        set unstapled [ocsp_info handshakes_unstapled]
        for {set i 1} {$i <= 5} {incr i} {
            set asked [ocsp_responder_count $responder]
            ocsp_load_certificate $leaf
            assert_equal [ocsp_staple] good
            ocsp_responder_wait $responder [expr {$asked + 1}]
        }
        assert_equal [ocsp_info handshakes_unstapled] $unstapled
    }

    test {17.2 a renewed certificate: its own staple, or none, never the old one's} {
        set renewed [ocsp_lab_leaf $lab renewed]
        ocsp_load_certificate $renewed
        # From the first handshake on.
        for {set i 0} {$i < 20} {incr i} {
            set shake [ocsp_handshake]
            assert_equal [dict get $shake serial] [dict get $renewed serial]
            assert {[dict get $shake staple] in {none good}}
        }
        ocsp_wait_staple good
        ocsp_assert_good $ca
    }

    test {17.3 a renewed certificate in the same files, as certbot does it} {
        set one [ocsp_lab_leaf $lab inplace1]
        set two [ocsp_lab_leaf $lab inplace2]
        set place [dict create cert [file join $dir place.crt] key [file join $dir place.key]]
        foreach which [list $one $two] {
            file copy -force [dict get $which cert] [dict get $place cert]
            file copy -force [dict get $which key] [dict get $place key]
            ocsp_load_certificate $place
            assert_equal [dict get [ocsp_handshake] serial] [dict get $which serial]
            ocsp_wait_info cert_serial [dict get $which serial]
            ocsp_wait_staple good
            assert_equal [dict get [ocsp_handshake] serial] [dict get $which serial]
        }
    }

    test {17.4 a certificate of another CA} {
        set other_ca [ocsp_pki_ca $dir otherca]
        set other_responder [ocsp_responder_start -ca $other_ca]
        set other [ocsp_pki_leaf $other_ca other -aia [list [dict get $other_responder url]]]
        r config set tls-cert-file [dict get $other cert] tls-key-file [dict get $other key] \
            tls-ca-cert-file [dict get $other_ca cert]
        ocsp_wait_info cert_serial [dict get $other serial]
        ocsp_wait_staple good
        ocsp_assert_good $other_ca
        r config set tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key] \
            tls-ca-cert-file [dict get $ca cert]
        ocsp_wait_staple good
        ocsp_assert_good $ca
        ocsp_responder_stop $other_responder
    }

    test {17.5 a certificate of another CA with the same serial number} {
        set twin [ocsp_pki_ca $dir twin -subject [dict get $ca subject]]
        set twin_responder [ocsp_responder_start -ca $twin -behave hang]
        set same [ocsp_pki_leaf $twin same -serial [dict get $leaf serial] -aia [list [dict get $twin_responder url]]]
        r config set tls-cert-file [dict get $same cert] tls-key-file [dict get $same key] \
            tls-ca-cert-file [dict get $twin cert]
        ocsp_assert_staple none
        ocsp_responder_behave $twin_responder good
        ocsp_responder_release $twin_responder
        ocsp_wait_staple good
        ocsp_assert_good $twin
        r config set tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key] \
            tls-ca-cert-file [dict get $ca cert]
        ocsp_wait_staple good
        ocsp_responder_stop $twin_responder
    }

    test {17.6 a broken file: refused, and everything goes on as before} {
        ocsp_wait_info state good
        set broken [file join $dir broken.pem]
        ocsp_file_write $broken "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"
        set before [ocsp_info_all]
        foreach file [list $broken $dir/nosuch.pem [dict get $leaf key]] {
            assert_error {*CONFIG SET failed*} {r config set tls-cert-file $file}
            ocsp_assert_good $ca
        }
        # A certificate that does not go with the key.
        assert_error {*CONFIG SET failed*} {r config set tls-cert-file [dict get $renewed cert]}
        ocsp_assert_good $ca
        assert_equal [ocsp_info cert_serial] [dict get $before cert_serial]
        assert_morethan_equal [ocsp_info this_update] [dict get $before this_update]
    }

    test {17.7 while a fetch for the old certificate is under way: it is cancelled, the new one is asked for} {
        ocsp_responder_behave $responder hang
        ocsp_set timeout 60
        r debug ocsp-refresh
        wait_for_condition 200 50 {[dict get [ocsp_responder_stats $responder] held] > 0} else {
            fail "the responder was not asked"
        }
        ocsp_responder_behave $responder good
        set next_one [ocsp_lab_leaf $lab nextone]
        ocsp_load_certificate $next_one
        # Not after the 60 seconds that the hanging one may take.
        ocsp_wait_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $next_one serial]
        wait_for_condition 200 50 {[ocsp_responder_count $responder -end client-closed] > 0} else {
            fail "the fetch for the old certificate was not given up"
        }
        ocsp_responder_release $responder
        ocsp_set timeout 2
        ocsp_load_certificate $leaf
        ocsp_wait_staple good
    }

    test {17.8 1,000 reloads of the same certificate under handshakes: each is stapled and verifies} {
        ocsp_wait_info state good
        set hammer [ocsp_hammer_start [dict get $ca cert]]
        for {set i 0} {$i < 1000} {incr i} {ocsp_load_certificate $leaf}
        set result [ocsp_hammer_stop $hammer]
        ocsp_assert_hammer $result
        assert_equal [dict get $result unstapled] 0 $result
        assert_equal [ocsp_info state] good
        ocsp_assert_good $ca
    }

    test {17.9 300 reloads between two certificates under handshakes: never a foreign staple} {
        set hammer [ocsp_hammer_start [dict get $ca cert]]
        for {set i 0} {$i < 150} {incr i} {
            ocsp_load_certificate $renewed
            ocsp_load_certificate $leaf
        }
        ocsp_assert_hammer [ocsp_hammer_stop $hammer]
        ocsp_wait_staple good
    }

    test {18.1 stapling off and on under handshakes: none fails, none has a staple that does not verify} {
        ocsp_wait_info state good
        set hammer [ocsp_hammer_start [dict get $ca cert]]
        for {set i 0} {$i < 500} {incr i} {
            ocsp_set stapling no
            ocsp_set stapling yes
        }
        ocsp_assert_hammer [ocsp_hammer_stop $hammer]
        ocsp_assert_good $ca
        ocsp_set stapling no
        ocsp_assert_staple none
        ocsp_set stapling yes
        ocsp_assert_staple good
    }

    test {18.2 every directive changed under handshakes} {
        set file [file join $dir supplied.der]
        ocsp_response_file $file $leaf $ca {next 7200}
        set hammer [ocsp_hammer_start [dict get $ca cert]]
        for {set i 0} {$i < 30} {incr i} {
            foreach {directive value} [list refresh-margin 50% retry-delay 3 timeout 3 responder-url ${url}other \
                cache-dir $dir response-file $file response-file {} cache-dir . responder-url {} timeout 2 \
                retry-delay 1 refresh-margin 10] {
                ocsp_set $directive $value
            }
        }
        ocsp_assert_hammer [ocsp_hammer_stop $hammer]
        ocsp_wait_staple good
        ocsp_assert_good $ca
    }

    test {10,000 handshakes while the response is refreshed in a loop: none fails, none without a staple} {
        ocsp_set timeout 20
        ocsp_load_certificate $leaf
        ocsp_wait_staple good
        set hammer [ocsp_hammer_start [dict get $ca cert] 0 --count 10000 --threads 4]
        unset -nocomplain ::hammered
        # Once: the channel stays readable until the result is read.
        set channel [dict get $hammer channel]
        fileevent $channel readable [list apply {channel {
            fileevent $channel readable {}
            set ::hammered 1
        }} $channel]
        set rounds 0
        while {![info exists ::hammered]} {
            r ocsp.refresh
            incr rounds
            update
        }
        set result [ocsp_hammer_result $hammer]
        assert_equal [dict get $result handshakes] 10000 $result
        assert_equal [dict get $result good] 10000 $result
        assert_morethan $rounds 5
    }

    test {10,000 handshakes: what INFO counted is what the clients saw} {
        set before [ocsp_info handshakes_stapled]
        set hammer [ocsp_hammer_start [dict get $ca cert] 0 --count 500 --threads 4]
        ocsp_assert_hammer [ocsp_hammer_result $hammer]
        assert_equal [ocsp_info handshakes_stapled] [expr {$before + 500}]
        # Clients that do not ask are not counted.
        set before [ocsp_info_all]
        ocsp_hammer_result [ocsp_hammer_start [dict get $ca cert] 0 --count 50 --no-ask]
        assert_equal [ocsp_info handshakes_stapled] [dict get $before handshakes_stapled]
        assert_equal [ocsp_info handshakes_unstapled] [dict get $before handshakes_unstapled]
    }
}

test {17 with I/O threads: reloads under handshakes} {
    set options [ocsp_server $leaf $ca io-threads 4]
    start_server $options {
        ocsp_wait_info state good
        # Before 8.1 it is one of those that want a word more; later ones do not know it any more.
        catch {r config set events-per-io-thread 0}
        set hammer [ocsp_hammer_start [dict get $ca cert] 0 --threads 4]
        for {set i 0} {$i < 150} {incr i} {
            ocsp_load_certificate $leaf
            if {$i % 10 == 0} {r debug ocsp-refresh}
        }
        set result [ocsp_hammer_stop $hammer]
        ocsp_assert_hammer $result
        assert_equal [dict get $result unstapled] 0 $result
    }
}

ocsp_lab_close $lab
