# ocsp-reload.tcl - reloads of the certificate (scenario 17) and changes of directives (18), both under handshakes;
# 10,000 handshakes while the response is refreshed again and again.
#
# support/tls_hammer.c makes the handshakes, on several threads, and verifies every staple in full.
#
# Weight: 26
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

set renewed [ocsp_lab_leaf $lab renewed]

start_server [ocsp_server $leaf $ca retry-delay 1 timeout 2] {
    ocsp_wait_info state good

    test {reload: the same certificate: no handshake without a staple, and a request is sent (17.1)} {
        ocsp_wait_info state good
        set unstapled [ocsp_info handshakes_unstapled]
        for {set i 1} {$i <= 5} {incr i} {
            set requests [ocsp_responder_count $responder]
            ocsp_load_certificate $leaf
            assert_equal [ocsp_staple] good
            ocsp_responder_wait $responder [expr {$requests + 1}]
        }
        assert_equal [ocsp_info handshakes_unstapled] $unstapled
    }

    test {reload: a renewed certificate gets its own staple or none, never the old certificate's (17.2)} {
        ocsp_load_certificate $renewed
        # Right after the reload.
        for {set i 0} {$i < 20} {incr i} {
            set shake [ocsp_handshake]
            assert_equal [dict get $shake serial] [dict get $renewed serial]
            assert {[dict get $shake staple] in {none good}}
        }
        ocsp_wait_staple good
        ocsp_assert_good $ca
    }

    test {reload: a renewed certificate in the same files, as certbot writes them (17.3)} {
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

    test {reload: a certificate of another CA (17.4)} {
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

    test {reload: a certificate of another CA with the same serial number (17.5)} {
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

    test {reload: a broken file is refused, and nothing changes (17.6)} {
        ocsp_wait_info state good
        set broken [file join $dir broken.pem]
        ocsp_file_write $broken "-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n"
        set before [ocsp_info_all]
        foreach file [list $broken $dir/nosuch.pem [dict get $leaf key]] {
            assert_error {*CONFIG SET failed*} {r config set tls-cert-file $file}
            ocsp_assert_good $ca
        }
        # A certificate that does not match the key.
        assert_error {*CONFIG SET failed*} {r config set tls-cert-file [dict get $renewed cert]}
        ocsp_assert_good $ca
        assert_equal [ocsp_info cert_serial] [dict get $before cert_serial]
        assert_morethan_equal [ocsp_info this_update] [dict get $before this_update]
    }

    test {reload: during a fetch for the old certificate: that is cancelled, and one for the new is made (17.7)} {
        ocsp_responder_behave $responder hang
        ocsp_set timeout 60
        r debug ocsp-refresh
        ocsp_wait_hanging $responder
        ocsp_responder_behave $responder good
        set next_one [ocsp_lab_leaf $lab nextone]
        ocsp_load_certificate $next_one
        # It must not wait for the hanging fetch, which may take 60 seconds.
        ocsp_wait_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $next_one serial]
        wait_for_condition 200 50 {[ocsp_responder_count $responder -end client-closed] > 0} else {
            fail "the fetch for the old certificate was not cancelled"
        }
        ocsp_responder_release $responder
        ocsp_set timeout 2
        ocsp_load_certificate $leaf
        ocsp_wait_staple good
    }

    test {reload: 1,000 times the same certificate under handshakes: each has a staple, and all verify (17.8)} {
        ocsp_wait_info state good
        set hammer [ocsp_hammer_start [dict get $ca cert]]
        for {set i 0} {$i < 1000} {incr i} {ocsp_load_certificate $leaf}
        set result [ocsp_hammer_stop $hammer]
        ocsp_assert_hammer $result
        assert_equal [dict get $result unstapled] 0 $result
        assert_equal [ocsp_info state] good
        ocsp_assert_good $ca
    }

    test {reload: 300 times between two certificates under handshakes: never a foreign staple (17.9)} {
        set hammer [ocsp_hammer_start [dict get $ca cert]]
        for {set i 0} {$i < 150} {incr i} {
            ocsp_load_certificate $renewed
            ocsp_load_certificate $leaf
        }
        ocsp_assert_hammer [ocsp_hammer_stop $hammer]
        ocsp_wait_staple good
    }

    test {directives: stapling off and on under handshakes: none fails, and every staple verifies (18.1)} {
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

    test {directives: each of them changed under handshakes (18.2)} {
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

    test {handshakes: 10,000 while the response is refreshed in a loop: none fails, none is without a staple} {
        ocsp_set timeout 20
        ocsp_load_certificate $leaf
        ocsp_wait_staple good
        # The responder first answers what the tests before have asked and cancelled. Emulated, it has a minute's work with that.
        wait_for_condition 100 50 {![catch {r ocsp.refresh}]} else {fail "no refresh succeeds: [ocsp_situation]"}
        set hammer [ocsp_hammer_start [dict get $ca cert] 0 --count 10000 --threads 4]
        unset -nocomplain ::hammered
        # Remove the handler: the channel stays readable until the result is read.
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

    test {handshakes: INFO counts what the clients saw} {
        set before [ocsp_info handshakes_stapled]
        set hammer [ocsp_hammer_start [dict get $ca cert] 0 --count 500 --threads 4]
        ocsp_assert_hammer [ocsp_hammer_result $hammer]
        assert_equal [ocsp_info handshakes_stapled] [expr {$before + 500}]
        # Clients that request no status are not counted.
        set before [ocsp_info_all]
        ocsp_hammer_result [ocsp_hammer_start [dict get $ca cert] 0 --count 50 --no-ask]
        assert_equal [ocsp_info handshakes_stapled] [dict get $before handshakes_stapled]
        assert_equal [ocsp_info handshakes_unstapled] [dict get $before handshakes_unstapled]
    }
}

test {reload: with I/O threads, under handshakes (17)} {
    set options [ocsp_server $leaf $ca io-threads 4]
    start_server $options {
        ocsp_wait_info state good
        # Before 8.1, I/O threads need this directive; later servers may not have it.
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
