# tls-ocsp.tcl - the core of OCSP stapling: fetch, restart from the cache, revocation, a responder that hangs, reload,
# directives, showing and pushing a response, verify-peers.
#
# This file runs unchanged under two runners: tests/run.tcl, against a stock server with the module, and Valkey's own,
# in a patched tree (./runtest --tls --single unit/tls-ocsp). It therefore uses only what both runners have.
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# A server whose TLS is a module of its own (Valkey's --tls-module) cannot staple.
if {$::tls && !([info exists ::tls_module] && $::tls_module)} {

ocsp_setup

start_server [ocsp_server $leaf $ca retry-delay 1 timeout 1] {
    ocsp_wait_info state good

    test {OCSP: the response is fetched, verified and stapled in TLS 1.2 and 1.3} {
        ocsp_assert_good $ca
        set shake [ocsp_handshake 0]
        assert_equal [dict get $shake serial] [ocsp_info cert_serial]
        assert_equal [dict get $shake this] [ocsp_info this_update]
        assert_equal [dict get $shake next] [ocsp_info next_update]
        assert_equal [ocsp_info response_source] network
        assert_equal [ocsp_info responder_url] $url
    }

    test {OCSP: INFO counts handshakes with and without a staple} {
        set before [ocsp_info handshakes_stapled]
        ocsp_assert_staple good
        assert_equal [ocsp_info handshakes_stapled] [expr {$before + 2}]
        ocsp_set stapling no
        set before [ocsp_info handshakes_unstapled]
        ocsp_assert_staple none
        assert_equal [ocsp_info handshakes_unstapled] [expr {$before + 2}]
        ocsp_set stapling yes
    }

    test {OCSP: stapling off and on takes effect with the next handshake, and keeps the current response} {
        set requests [ocsp_responder_count $responder]
        ocsp_set stapling no
        ocsp_assert_staple none
        assert_equal [ocsp_info state] disabled
        ocsp_set stapling yes
        ocsp_assert_staple good
        assert_equal [ocsp_responder_count $responder] $requests "the current response was not used"
    }

    test {OCSP: a restart with the responder down staples the first handshake from the cache} {
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

    test {OCSP: a responder that hangs delays no handshake and no command, and the staple stays} {
        ocsp_responder_behave $responder hang
        ocsp_set timeout 60
        r debug ocsp-refresh
        ocsp_wait_hanging $responder
        # The fetch may hang for 60 seconds: if any of these waited for it, the test would show it.
        for {set i 0} {$i < 10} {incr i} {
            assert_equal [r ping] PONG
            ocsp_assert_staple good
        }
        assert_equal [dict get [ocsp_responder_stats $responder] hanging] 1
        ocsp_set timeout 1
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
    }

    test {OCSP: no answer from the responder is a network failure: the staple stays, a success clears the error} {
        # Wait for the end of the refresh that was released in the test before, or it would be counted here.
        wait_for_condition 200 50 {
            [dict get [ocsp_responder_stats $responder] hanging] == 0 && [ocsp_info last_error] eq {}
        } else {
            fail "the released refresh did not end ([ocsp_situation])"
        }
        after 1100
        ocsp_refresh
        set failures [ocsp_info refresh_failures]
        set network [ocsp_info failures_network]
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        ocsp_wait_above refresh_failures $failures
        assert_morethan [ocsp_info failures_network] $network
        assert_match "*$url*" [ocsp_info last_error]
        assert_equal [ocsp_info last_error_code] timeout
        assert_equal [ocsp_info state] good
        ocsp_assert_staple good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        r debug ocsp-refresh
        ocsp_wait_info consecutive_failures 0
        assert_equal [ocsp_info last_error] {}
        assert_equal [ocsp_info last_error_code] {}
    }

    # The option --cert-status of the tools, which only a patched tree has.
    foreach {tool command} {valkey-cli {PING} valkey-benchmark {-n 20 -c 2 -t ping -q}} {
        set program [file join src $tool]
        if {![file executable $program] || ![string match *--cert-status* [catch {exec $program --help 2>@1} help]$help]} continue
        test "OCSP: $tool --cert-status accepts a good staple, and refuses a missing and a revoked one" {
            set run [list $program -h 127.0.0.1 -p [srv 0 port] --cert-status --cacert [dict get $ca cert]]
            ocsp_responder_behave $responder good
            r debug ocsp-refresh
            ocsp_wait_info state good
            assert_equal [catch {exec {*}$run {*}$command 2>@1} text] 0 $text
            ocsp_set stapling no
            assert_equal [catch {exec {*}$run {*}$command 2>@1} text] 1
            assert_equal [llength [lsearch -all -regexp [split $text \n] OCSP]] 1 $text
            assert_match "*stapled no OCSP response*" $text
            ocsp_set stapling yes
            after 1100
            ocsp_responder_behave $responder {status revoked}
            r debug ocsp-refresh
            ocsp_wait_info state revoked
            foreach insecure {{} --insecure} {
                assert_equal [catch {exec {*}$run {*}$insecure {*}$command 2>@1} text] 1
                assert_equal [llength [lsearch -all -regexp [split $text \n] REVOKED]] 1 $text
            }
            # Without the option the tool goes on.
            set plain [lreplace $run [set at [lsearch $run --cert-status]] $at --tls]
            assert_equal [catch {exec {*}$plain {*}$command 2>@1} text] 0 $text
            after 1100
            ocsp_responder_behave $responder good
            r debug ocsp-refresh
            ocsp_wait_info state good
        }
    }

    test {OCSP: a revocation is stapled at once, and so is good when a certificateHold is lifted} {
        # Responses signed in the same second have equal times: wait, so that the next one is newer.
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

    test {OCSP: a response with a bad signature is never stapled} {
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

    test {OCSP: a reload of the same certificate keeps the staple and sends a request} {
        set requests [ocsp_responder_count $responder]
        ocsp_responder_behave $responder hang
        ocsp_load_certificate $leaf
        ocsp_assert_staple good
        ocsp_responder_wait $responder [expr {$requests + 1}]
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        ocsp_wait_info consecutive_failures 0
        ocsp_assert_good $ca
    }

    test {OCSP: a renewed certificate gets its own staple, never the old certificate's} {
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
        # Back to the old certificate, whose response is still valid.
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_staple good
    }

    test {OCSP: response-file is stapled, and replaces fetching} {
        set file [file join $dir supplied.der]
        ocsp_response_file $file $leaf $ca {this -120 next +7200}
        ocsp_set response-file $file
        ocsp_wait_info response_source file
        assert_equal [dict get [ocsp_handshake 0] next] [ocsp_info next_update]
        ocsp_assert_good $ca
        # Set to its own value, the file is read again. A module is not told of a value that stays the same.
        if {![ocsp_is_module]} {
            set refreshes [ocsp_info refreshes]
            ocsp_set response-file $file
            ocsp_wait_above refreshes $refreshes
            ocsp_assert_good $ca
        }
        assert_match "*[ocsp_directive response-file] is set*" [ocsp_push [ocsp_response_der $leaf $ca {this 0 next +7200}]]
        ocsp_set response-file ""
    }

    test {OCSP: proxy is used, and its password is not in INFO, the log, SLOWLOG and replies} {
        set proxy [ocsp_responder_start -ca $ca]
        set value http://user:S%65cret@127.0.0.1:[dict get $proxy port]
        r config set slowlog-log-slower-than 0
        ocsp_set proxy $value
        ocsp_refresh
        set request [lindex [ocsp_responder_log $proxy] 0]
        assert_equal [dict get $request headers proxy-authorization] "Basic [binary encode base64 user:Secret]"
        ocsp_responder_behave $proxy {http 407}
        ocsp_refresh
        assert_match {*through the proxy 127.0.0.1:*} [ocsp_info last_error]
        catch {ocsp_set proxy $value/path} why
        set texts [list $why [r info everything] [ocsp_file_read [srv 0 stdout]]]
        # The module API drops the flag of a sensitive directive.
        if {![ocsp_is_module]} {lappend texts [r slowlog get -1]}
        foreach text $texts {
            foreach secret [list S%65cret Secret@ [binary encode base64 user:Secret]] {
                assert_equal [string first $secret $text] -1 $text
            }
        }
        assert_equal [ocsp_get proxy] $value
        # A changed proxy is tried at once after a failure.
        ocsp_set proxy none
        ocsp_wait_info consecutive_failures 0
        ocsp_set proxy ""
        r config set slowlog-log-slower-than 10000
        ocsp_responder_stop $proxy
    }

    test {OCSP: invalid values of directives are rejected with an explanation, and the old value stays} {
        foreach {directive value} {
            stapling maybe  refresh-margin 0  refresh-margin 100  refresh-margin 5x  retry-delay 0  retry-delay 3601
            max-interval 1  max-interval 59  max-interval 604801
            timeout 0  timeout 61  responder-url ftp://localhost/  responder-url http://user:secret@localhost/
            proxy localhost:3128  proxy http://user:secret@localhost
        } {
            set before [ocsp_get $directive]
            assert_error {*CONFIG SET failed*} {ocsp_set $directive $value} "$directive $value"
            assert_equal [ocsp_get $directive] $before
        }
    }

    test {OCSP: DEBUG OCSP-REFRESH replies at once, or with the reason why it cannot refresh} {
        assert_match {Background OCSP refresh started} [r debug ocsp-refresh]
        ocsp_set stapling no
        assert_error {*stapling*} {r debug ocsp-refresh}
        ocsp_set stapling yes
    }

    # No event tells a module of CONFIG RESETSTAT.
    if {![ocsp_is_module]} {
        test {OCSP: CONFIG RESETSTAT resets the counters, and nothing else} {
            ocsp_wait_info state good
            ocsp_assert_good $ca
            assert_morethan [ocsp_info refreshes] 0
            assert_morethan [ocsp_info refresh_failures] 0
            assert_morethan [ocsp_info handshakes_stapled] 0
            # From here on no refresh ends.
            ocsp_responder_behave $responder hang
            set requests [ocsp_responder_count $responder]
            r debug ocsp-refresh
            ocsp_responder_wait $responder [expr {$requests + 1}]
            set this_update [ocsp_info this_update]
            r config resetstat
            foreach field {refreshes refresh_failures failures_network failures_http failures_response failures_verify
                handshakes_stapled handshakes_unstapled peers_verified peers_rejected peers_missing} {
                assert_equal [ocsp_info $field] 0 $field
            }
            assert_equal [ocsp_info this_update] $this_update
            assert_equal [ocsp_info state] good
            ocsp_responder_behave $responder good
            ocsp_responder_release $responder
            ocsp_wait_above refreshes 0
        }
    }

    # The module's directives have a test of their own, tests/unit/ocsp-config.tcl.
    if {![ocsp_is_module]} {
        test {OCSP: CONFIG REWRITE and a restart keep the directives} {
            set values [list stapling yes refresh-margin 33% max-interval 4321 retry-delay 44 timeout 55 \
                responder-url ${url}rewritten]
            set before [lmap {directive -} $values {list $directive [ocsp_get $directive]}]
            foreach {directive value} $values {ocsp_set $directive $value}
            r config rewrite
            restart_server 0 true false
            foreach {directive value} $values {assert_equal [ocsp_get $directive] $value $directive}
            foreach pair $before {ocsp_set {*}$pair}
            r config rewrite
            restart_server 0 true false
            foreach pair $before {assert_equal [ocsp_get [lindex $pair 0]] [lindex $pair 1]}
            ocsp_wait_info state good
            ocsp_assert_good $ca
        }
    }

    # Valkey 9.2 has a second certificate.
    if {![ocsp_is_module] && [r config get tls-alt-cert-file] ne {}} {
        test {OCSP: with tls-alt-cert-file each of the two certificates has its own staple} {
            set alt [ocsp_lab_leaf $lab alternative -key rsa]
            r config set tls-alt-cert-file [dict get $alt cert] tls-alt-key-file [dict get $alt key]
            ocsp_wait_info alt_state good
            assert_equal [ocsp_info alt_cert_serial] [dict get $alt serial]
            foreach {signature certificate} [list ecdsa_secp256r1_sha256 $leaf rsa_pss_rsae_sha256 $alt] {
                set shake [ocsp_handshake 0 -sigalgs $signature]
                assert_equal [dict get $shake serial] [dict get $certificate serial]
                assert_equal [dict get $shake staple] good
            }
            r config set tls-alt-cert-file "" tls-alt-key-file ""
        }
    }

    test {OCSP: the stapled response is shown as DER, as base64 and as text} {
        # From here on no refresh replaces it: those started before have ended, or fail.
        ocsp_responder_behave $responder {http 503}
        r debug ocsp-refresh
        wait_for_condition 400 50 {[string match *503* [ocsp_info last_error]]} else {
            fail "the refresh did not fail ([ocsp_situation])"
        }
        set der [ocsp_show der]
        assert_equal [string length $der] [ocsp_info response_bytes]
        assert_equal [binary decode base64 [ocsp_show base64 [dict get $leaf serial]]] $der
        assert_match "responseStatus: successful*certStatus: good*([ocsp_info this_update])*" [ocsp_show]
        assert_error {*serial number*} {ocsp_show der 0123}
        assert_error {*DER, BASE64 or TEXT*} {ocsp_show pem}
        assert_error {*} {ocsp_show der 01 02}
    }

    test {OCSP: a response that was fetched elsewhere can be pushed, an older one is refused} {
        after 1100
        ocsp_responder_behave $responder {drop close}
        set der [ocsp_response_der $leaf $ca {this 0 next +7200}]
        assert_match [expr {[ocsp_is_module] ? {OK} : {Background*started}}] [ocsp_push $der]
        ocsp_wait_info response_source pushed
        assert_equal [ocsp_show der] $der
        ocsp_assert_good $ca
        ocsp_push [ocsp_response_der $leaf $ca {this -1000 next +7200}]
        wait_for_condition 200 50 {[string match {pushed response: *older*} [ocsp_info last_error]]} else {
            fail "an older response was not refused ([ocsp_situation])"
        }
        assert_equal [ocsp_show der] $der
        assert_match {*empty*} [ocsp_push {}]
        ocsp_responder_behave $responder good
    }
}

set elsewhere [ocsp_pki_ca $dir elsewhere]
start_server [ocsp_server $leaf $elsewhere issuer-file [file join $dir issuer.pem]] {
    test {OCSP: issuer-file completes a chain that the TLS files do not, once the file is there} {
        ocsp_wait_info state no-issuer
        ocsp_assert_staple none
        file copy -force [dict get $ca cert] [file join $dir issuer.pem]
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

set mid [ocsp_pki_intermediate $ca mid -aia [list $url]]
set mid_responder [ocsp_responder_start -ca $mid]
set below [ocsp_pki_leaf $mid below -aia [list [ocsp_responder_url $mid_responder]]]
start_server [ocsp_server [dict replace $below cert [dict get $below chain]] $ca staple-chain yes] {
    test {OCSP: staple-chain staples for the intermediate CA, too, or INFO says that this OpenSSL cannot} {
        ocsp_wait_info state good
        wait_for_condition 400 50 {[ocsp_info chain_good] == 1 || [ocsp_info chain_last_error] ne {}} else {
            fail "neither a response for the CA nor a reason ([ocsp_situation])"
        }
        set expected [list [dict get $below serial]]
        if {[ocsp_info chain_good] == 1} {
            assert_equal [ocsp_info chain_followed] 1
            # An older client shows the first response alone.
            regexp {OpenSSL (\d+)\.(\d+)} [exec $openssl version] - major minor
            if {$major > 3 || $minor >= 6} {lappend expected [dict get $mid serial]}
        } else {
            assert_match {*3.6*} [ocsp_info chain_last_error]
            assert_equal [ocsp_info chain_followed] 0
        }
        set text [dict get [ocsp_handshake 0 -tls1_3] text]
        set seen [regexp -all -inline {Certificate ID:(?:(?!Serial Number).)*Serial Number: ([0-9A-F]+)} $text]
        assert_equal [lmap {- serial} $seen {set serial}] $expected
        assert_equal [ocsp_info handshakes_chain_stapled] [ocsp_info chain_good]
        ocsp_assert_staple good
        ocsp_set staple-chain no
        set text [dict get [ocsp_handshake 0 -tls1_3] text]
        assert_equal [regexp -all {Certificate ID:} $text] 1
    }
}
ocsp_responder_stop $mid_responder

# Linux tells where a thread may run.
set cpus {}
if {![ocsp_is_module] && ![catch {ocsp_file_read /proc/self/status} status]} {
    regexp {Cpus_allowed_list:\s*(\d+)([-,]\d+)} $status - cpus
}
if {$cpus ne {}} {
    start_server [ocsp_server $leaf $ca bio-cpulist $cpus] {
        test {OCSP: the thread follows bio-cpulist} {
            ocsp_wait_info state good
            set found {}
            foreach task [glob /proc/[srv 0 pid]/task/*] {
                set status [ocsp_file_read $task/status]
                if {[regexp {Name:\s*bio_ocsp} $status]} {regexp {Cpus_allowed_list:\s*(\S+)} $status - found}
            }
            assert_equal $found $cpus
        }
    }
}

start_server [ocsp_server $leaf $ca stapling no] {
    test {OCSP: stapling is off by default: no request, no staple} {
        ocsp_responder_forget $responder
        ocsp_responder_behave $responder good
        assert_equal [ocsp_info state] disabled
        ocsp_assert_staple none
        assert_equal [ocsp_responder_count $responder] 0
    }

    test {OCSP: stapling switched on at run time needs no restart} {
        ocsp_set stapling yes
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

# Turning stapling on may read the TLS files again, which must not block the server.
set cert_file [file join $dir replaced.pem]
file copy [dict get $leaf cert] $cert_file
start_server [ocsp_server [dict replace $leaf cert $cert_file] $ca stapling no] {
    test {OCSP: turning stapling on while tls-cert-file is a named pipe does not block the server} {
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

# The server as a TLS client: a replica opens no new link to a primary whose certificate is revoked.
set primary_leaf [ocsp_lab_leaf $lab primary]
set next_leaf [ocsp_lab_leaf $lab next]
ocsp_responder_behave $responder [list for [dict create [dict get $primary_leaf serial] {status revoked}]]
start_server [ocsp_server $primary_leaf $ca tls-replication yes] {
    start_server [ocsp_server $leaf $ca tls-replication yes verify-peers soft] {
        test {OCSP: verify-peers: a replica rejects its revoked primary until that has a new certificate} {
            ocsp_wait_info state revoked -1
            r replicaof [srv -1 host] [srv -1 port]
            ocsp_wait_above peers_rejected 1
            assert_match {*REVOKED*} [ocsp_info last_peer_error]
            assert_equal [s master_link_status] down
            ocsp_load_certificate $next_leaf -1
            wait_for_sync r
            # It may have connected before there was a response for the new certificate, which "soft" accepts.
            ocsp_wait_info state good -1
            r -1 client kill type replica
            ocsp_wait_above peers_verified 0
            wait_for_condition 100 50 {[ocsp_info last_peer_error] eq {}} else {fail "last_peer_error was not cleared"}
        }

        test {OCSP: verify-peers: soft accepts a primary without a staple, require rejects it} {
            ocsp_set stapling no -1
            r replicaof [srv -1 host] [srv -1 port]
            # A link that the primary does not know as a replica's yet is not closed: try again.
            wait_for_condition 200 50 {[r -1 client kill type replica; ocsp_info peers_missing] > 0} else {
                fail "peers_missing stayed 0"
            }
            wait_for_sync r
            ocsp_set verify-peers require
            set before [ocsp_info peers_rejected]
            wait_for_condition 200 50 {[r -1 client kill type replica; ocsp_info peers_rejected] > $before + 1} else {
                fail "peers_rejected stayed [ocsp_info peers_rejected]"
            }
            assert_equal [s master_link_status] down
            ocsp_set verify-peers no
            wait_for_sync r
        }
    }
}

# Sentinel opens its links in a file of its own. It loads no modules.
if {![ocsp_is_module]} {
    start_server [ocsp_server $leaf $ca stapling no tls-replication yes] {
        test {OCSP: verify-peers: a Sentinel opens no link to a primary without a staple} {
            set port [find_available_port $::baseport $::portcount]
            set config [file join $dir sentinel.conf]
            set log [file join $dir sentinel.log]
            set channel [open $config w]
            puts $channel "port 0\ntls-port $port\nbind 127.0.0.1\ndir $dir\nlogfile $log\ntls-replication yes"
            puts $channel "tls-cert-file [dict get $leaf cert]\ntls-key-file [dict get $leaf key]"
            puts $channel "tls-ca-cert-file [dict get $ca cert]\ntls-auth-clients no\ntls-ocsp-verify-peers require"
            puts $channel "sentinel monitor checked [srv 0 host] [srv 0 port] 1"
            close $channel
            set server [expr {[info exists ::VALKEY_SERVER_BIN] ? $::VALKEY_SERVER_BIN : "src/valkey-server"}]
            set pid [exec $server $config --sentinel >/dev/null 2>@1 &]
            set line "*peer [srv 0 host]:[srv 0 port] * refused: the peer staples no OCSP response*"
            wait_for_condition 100 100 {
                [file exists $log] && [string match $line [exec cat $log]]
            } else {
                exec kill $pid
                fail "the Sentinel did not refuse the link: [exec cat $log]"
            }
            exec kill $pid
        }
    }
}

ocsp_lab_close $lab

}
