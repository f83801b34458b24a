# tls-ocsp.tcl - OCSP stapling, the core: staple, restart from disk, revoked, a hung responder, reload, and the knobs.
#
# This file runs in two places without a change: under tests/run.tcl against a stock server with the module, and under
# Valkey's own runner in a patched tree (./runtest --tls --single unit/tls-ocsp). The numbers are those of the list of
# scenarios in tests/README.md; the other suites, ocsp-*.tcl, go through them one by one.
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Where TLS is a module of its own (Valkey's --tls-module), the server says that it cannot staple by itself.
if {$::tls && !([info exists ::tls_module] && $::tls_module)} {

set lab [ocsp_lab]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]

start_server [ocsp_server $leaf $ca retry-delay 1 timeout 1] {
    test {OCSP 4.1 the staple is fetched, verified and sent, in TLS 1.2 and 1.3} {
        ocsp_wait_info state good
        ocsp_assert_good $ca
        set shake [ocsp_handshake 0]
        assert_equal [dict get $shake serial] [ocsp_info cert_serial]
        assert_equal [dict get $shake this] [ocsp_info this_update]
        assert_equal [dict get $shake next] [ocsp_info next_update]
        assert_equal [ocsp_info response_source] network
        assert_equal [ocsp_info responder_url] [lindex [dict get $lab urls] 0]
    }

    test {OCSP handshakes with and without a staple are counted} {
        set before [ocsp_info handshakes_stapled]
        ocsp_assert_staple good
        assert_equal [ocsp_info handshakes_stapled] [expr {$before + 2}]
        ocsp_set stapling no
        set before [ocsp_info handshakes_unstapled]
        ocsp_assert_staple none
        assert_equal [ocsp_info handshakes_unstapled] [expr {$before + 2}]
        ocsp_set stapling yes
    }

    test {OCSP stapling off and on again: the next handshake follows, from what is held} {
        set asked [ocsp_responder_count $responder]
        ocsp_set stapling no
        ocsp_assert_staple none
        assert_equal [ocsp_info state] disabled
        ocsp_set stapling yes
        ocsp_assert_staple good
        assert_equal [ocsp_responder_count $responder] $asked "what is held was not used"
    }

    test {OCSP 15 restart with the responder down: the first handshake is stapled from disk} {
        set this_update [ocsp_info this_update]
        ocsp_responder_behave $responder {drop close}
        restart_server 0 true false
        set shake [ocsp_handshake 0]
        assert_equal [dict get $shake staple] good
        assert_equal [dict get $shake this] $this_update
        assert_equal [ocsp_info response_source] cache
        ocsp_assert_good $ca
        ocsp_responder_behave $responder good
    }

    test {OCSP a hung responder delays no handshake and no command, and what is held stays} {
        ocsp_responder_behave $responder hang
        ocsp_set timeout 60
        r debug ocsp-refresh
        wait_for_condition 200 50 {[dict get [ocsp_responder_stats $responder] held] > 0} else {
            fail "the responder was not asked"
        }
        # All of this happens while the one fetch hangs: had anything waited for it, its 60 seconds would show.
        for {set i 0} {$i < 10} {incr i} {
            assert_equal [r ping] PONG
            ocsp_assert_staple good
        }
        assert_equal [dict get [ocsp_responder_stats $responder] held] 1
        ocsp_set timeout 1
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
    }

    test {OCSP a responder that does not answer is a failure of kind network; the staple stays; recovery clears it} {
        # The round that was released just now ends first, or it would be counted below.
        wait_for_condition 200 50 {
            [dict get [ocsp_responder_stats $responder] held] == 0 && [ocsp_info last_error] eq {}
        } else {
            fail "the released round does not end ([ocsp_situation])"
        }
        after 1100
        ocsp_round
        set failures [ocsp_info refresh_failures]
        set network [ocsp_info failures_network]
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        ocsp_wait_above refresh_failures $failures
        assert_morethan [ocsp_info failures_network] $network
        assert_match "*[lindex [dict get $lab urls] 0]*" [ocsp_info last_error]
        assert_equal [ocsp_info state] good
        ocsp_assert_staple good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        r debug ocsp-refresh
        ocsp_wait_info consecutive_failures 0
        assert_equal [ocsp_info last_error] {}
    }

    test {OCSP revoked is published at once, and good again when the hold is lifted} {
        # Answers of one second have the same times: let the next ones be later.
        after 1100
        ocsp_responder_behave $responder {status revoked reason certificateHold}
        r debug ocsp-refresh
        ocsp_wait_info state revoked
        assert_equal [ocsp_info revoked] 1
        ocsp_assert_staple revoked
        ocsp_assert_refused $ca
        after 1100
        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_info state good
        assert_equal [ocsp_info revoked] 0
        ocsp_assert_good $ca
    }

    test {OCSP an answer that does not verify is never stapled} {
        set this_update [ocsp_info this_update]
        set verify [ocsp_info failures_verify]
        after 1100
        ocsp_responder_behave $responder {signature bad}
        r debug ocsp-refresh
        ocsp_wait_above failures_verify $verify
        assert_equal [ocsp_info this_update] $this_update
        assert_equal [dict get [ocsp_handshake 0] this] $this_update
        ocsp_assert_good $ca
        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_info consecutive_failures 0
    }

    test {OCSP 17 reload of the same certificate keeps the staple and asks again} {
        set asked [ocsp_responder_count $responder]
        ocsp_responder_behave $responder hang
        ocsp_load_certificate $leaf
        ocsp_assert_staple good
        ocsp_responder_wait $responder [expr {$asked + 1}]
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        ocsp_wait_info consecutive_failures 0
        ocsp_assert_good $ca
    }

    test {OCSP 17 a renewed certificate gets its own staple, never that of the old one} {
        set renewed [ocsp_lab_leaf $lab renewed]
        ocsp_responder_behave $responder hang
        ocsp_load_certificate $renewed
        set shake [ocsp_handshake 0]
        assert_equal [dict get $shake serial] [dict get $renewed serial]
        assert_equal [dict get $shake staple] none
        ocsp_wait_info cert_serial [dict get $renewed serial]
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_equal [dict get [ocsp_handshake 0] serial] [dict get $renewed serial]
        # Back: the old one's response is still valid.
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_staple good
    }

    test {OCSP a supplied file is stapled in place of asking} {
        set file [file join [dict get $lab dir] supplied.der]
        ocsp_response_file $file $leaf $ca {this -120 next +7200}
        ocsp_set response-file $file
        ocsp_wait_info response_source file
        assert_equal [dict get [ocsp_handshake 0] next] [ocsp_info next_update]
        ocsp_assert_good $ca
        ocsp_set response-file ""
    }

    test {OCSP bad values are refused with a sentence, and what was set stays} {
        foreach {directive value} {
            stapling maybe  refresh-margin 0  refresh-margin 100  refresh-margin 5x  retry-delay 0  retry-delay 3601
            timeout 0  timeout 61  responder-url ftp://localhost/  responder-url http://user:secret@localhost/
        } {
            set before [ocsp_get $directive]
            assert_error {*CONFIG SET failed*} {ocsp_set $directive $value} "$directive $value"
            assert_equal [ocsp_get $directive] $before
        }
    }

    test {OCSP DEBUG OCSP-REFRESH answers at once, and says why when it cannot} {
        assert_match {Background OCSP refresh started} [r debug ocsp-refresh]
        ocsp_set stapling no
        assert_error {*stapling*} {r debug ocsp-refresh}
        ocsp_set stapling yes
    }
}

start_server [ocsp_server $leaf $ca stapling no] {
    test {OCSP off by default: nothing is asked, nothing is stapled} {
        ocsp_responder_forget $responder
        ocsp_responder_behave $responder good
        assert_equal [ocsp_info state] disabled
        ocsp_assert_staple none
        assert_equal [ocsp_responder_count $responder] 0
    }

    test {OCSP switched on at run time, stapling begins without a restart} {
        ocsp_set stapling yes
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

# To turn stapling on may need the TLS files to be read again, which must not block the server.
set cert_file [file join [dict get $lab dir] replaced.pem]
file copy [dict get $leaf cert] $cert_file
start_server [ocsp_server [dict replace $leaf cert $cert_file] $ca stapling no] {
    test {OCSP turning it on where tls-cert-file has become a named pipe does not block the server} {
        file delete $cert_file
        exec mkfifo $cert_file
        catch {ocsp_set stapling yes}
        assert_equal [r ping] PONG
        file delete $cert_file
        file copy [dict get $leaf cert] $cert_file
        ocsp_set stapling no
        ocsp_set stapling yes
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

# The server as a client: a primary whose certificate is revoked gets no new link from its replica.
set primary_leaf [ocsp_lab_leaf $lab primary]
set next_leaf [ocsp_lab_leaf $lab next]
ocsp_responder_behave $responder [list for [dict create [dict get $primary_leaf serial] {status revoked}]]
start_server [ocsp_server $primary_leaf $ca tls-replication yes] {
    start_server [ocsp_server $leaf $ca tls-replication yes verify-peers soft] {
        test {OCSP verify-peers: a replica refuses its revoked primary, until that has a new certificate} {
            ocsp_wait_info state revoked -1
            r replicaof [srv -1 host] [srv -1 port]
            ocsp_wait_above peers_rejected 1
            assert_match {*REVOKED*} [ocsp_info last_peer_error]
            assert_equal [s master_link_status] down
            ocsp_load_certificate $next_leaf -1
            wait_for_sync r
            assert_morethan [ocsp_info peers_verified] 0
            wait_for_condition 100 50 {[ocsp_info last_peer_error] eq {}} else {fail "the error is still told"}
        }

        test {OCSP verify-peers: a primary that staples nothing is let through by soft, and refused by require} {
            ocsp_set stapling no -1
            r -1 client kill type replica
            wait_for_sync r
            wait_for_condition 100 50 {[ocsp_info peers_missing] > 0} else {fail "not counted"}
            ocsp_set verify-peers require
            set before [ocsp_info peers_rejected]
            r -1 client kill type replica
            ocsp_wait_above peers_rejected [expr {$before + 1}]
            assert_equal [s master_link_status] down
            ocsp_set verify-peers no
            wait_for_sync r
        }
    }
}

ocsp_lab_close $lab

}
