# ocsp-chain.tcl - staple-chain: responses for the intermediate CAs of the served chain (scenario 39).
#
# OpenSSL 3.6 can send them. With an older one the leaf's response alone is stapled, after one notice. The clients that
# check a whole chain are Java, gnutls-cli and NSS; one that is not installed is reported as skipped.
#
# Weight: 20
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

regexp {OpenSSL (\d+)\.(\d+)} [exec $openssl version] - major minor
set sends_chains [expr {$major > 3 || ($major == 3 && $minor >= 6)}]

set dir [ocsp_tmpdir chain]
set ca [ocsp_pki_ca $dir root -key rsa]
# One responder for all CAs; the path shows in its log who is asked about.
set responder [ocsp_responder_start -ca $ca]
set mid [ocsp_pki_intermediate $ca mid -key rsa -aia [list [ocsp_responder_url $responder /mid]]]
set sub [ocsp_pki_intermediate $mid sub -key rsa -aia [list [ocsp_responder_url $responder /sub]]]
set other [ocsp_pki_intermediate $mid other -key rsa -aia [list [ocsp_responder_url $responder /other]]]
ocsp_responder_stop $responder
proc start_responder {} {
    set ::responder [ocsp_responder_start -cas [list $::ca $::mid $::sub $::other] -port [dict get $::responder port]]
}
start_responder
set four [ocsp_pki_leaf $other four -key rsa -aia [list [ocsp_responder_url $responder /four]]]
set five [ocsp_pki_leaf $other five -key rsa -aia [list [ocsp_responder_url $responder /five]]]
set three [ocsp_pki_leaf $sub three -key rsa -aia [list [ocsp_responder_url $responder /three]]]

# Returns 1 if it accepts the server, 0 if it refuses, with the output in `why`. A program that
# is missing is the error "skip".
set clients(java) {
    if {[auto_execok javac] eq {}} {error skip}
    set support [file join $::ocsp_support_dir clients]
    set recipes [file join $::project_dir utils clients java]
    if {![file exists $::dir/StapleClient.class]} {
        exec javac -d $::dir $recipes/StapledTls.java $support/StapleClient.java 2>@1
    }
    set command [list java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp $::dir StapleClient [srv 0 port] \
        [dict get $::ca cert] check]
    list $command {0 3}
}
set clients(gnutls-cli) {
    if {[auto_execok gnutls-cli] eq {}} {error skip}
    list [list gnutls-cli --x509cafile [dict get $::ca cert] --port [srv 0 port] 127.0.0.1] {0 1}
}
# It looks at the leaf's status only, and so accepts the server in each of the cases.
set clients(tstclnt) {
    if {[auto_execok tstclnt] eq {} || [auto_execok certutil] eq {}} {error skip}
    if {![file exists $::dir/nss]} {
        file mkdir $::dir/nss
        exec certutil -N -d sql:$::dir/nss --empty-password 2>@1
        exec certutil -A -d sql:$::dir/nss -n root -t C,, -i [dict get $::ca cert] 2>@1
    }
    list [list tstclnt -h 127.0.0.1 -p [srv 0 port] -d sql:$::dir/nss -T -O -Q] {0 254}
}

proc client_accepts {name reason} {
    upvar 1 $reason text
    lassign [eval $::clients($name)] command statuses
    set status 0
    if {[catch {exec timeout 120 {*}$command </dev/null 2>@1} text options]} {
        set how [dict get $options -errorcode]
        set status [expr {[lindex $how 0] eq "CHILDSTATUS" ? [lindex $how 2] : -1}]
    }
    if {$status ni $statuses} {fail "$name ended with status $status: $text"}
    return [expr {$status == 0}]
}

# Asserts what each client that is installed does while no responder can be reached, which Java would ask: `verdicts` is
# name -> 1 (accepts) or 0 (refuses); Java's reason matches `java_says`. The responder's log and behaviour are new afterwards.
proc assert_clients {verdicts {java_says *}} {
    ocsp_responder_stop $::responder
    dict for {name wanted} $verdicts {
        if {[catch {client_accepts $name why} got]} {
            if {$got eq "skip"} continue
            fail $got
        }
        assert_equal $got $wanted "$name: $why"
        if {$name eq "java"} {assert_match $java_says $why}
    }
    start_responder
}

# As tls-cert-file usually is: the leaf, then its issuers without the root.
proc with_chain {leaf} {dict replace $leaf cert [dict get $leaf chain]}

# Returns the serial numbers of the certificates that have a response in a handshake, in its order.
proc stapled_serials {args} {
    set text [dict get [ocsp_handshake 0 {*}$args] text]
    return [lmap entry [lrange [split [string map [list "Certificate ID:" \x01] $text] \x01] 1 end] {
        regexp {Serial Number: ([0-9A-F]+)} $entry - serial
        set serial
    }]
}

proc serials {args} {lmap handle $args {dict get $handle serial}}

# Asserts that a TLS 1.3 handshake has responses for the leaf and these CAs; with an older OpenSSL, for the leaf alone.
proc assert_chain {leaf args} {
    if {!$::sends_chains} {set args {}}
    assert_equal [stapled_serials -tls1_3] [serials $leaf {*}$args] [ocsp_situation]
    assert_equal [stapled_serials -tls1_2] [serials $leaf]
}

# Asserts what ocsp-probe shows with TLS 1.3: its exit status, and a state for each handle of an intermediate certificate.
# Returns the output for people.
proc assert_probe {exit args} {
    set target 127.0.0.1:[srv 0 port]
    lassign [ocsp_probe $::ca --tls1.3 $target] status text
    assert_equal $status $exit $text
    lassign [ocsp_probe $::ca --tls1.3 --json $target] status json
    assert_equal $status $exit $json
    set shown {}
    foreach {- serial state} [regexp -all -inline \
        {"serial": "([0-9A-F]+)", "status": "(\w+)"} [lindex [regexp -inline {"chain": \[.*\]} $json] 0]] {
        lappend shown $serial $state
    }
    set wanted {}
    foreach {handle state} $args {lappend wanted [dict get $handle serial] $state}
    assert_equal $shown $wanted $json
    foreach {serial state} $wanted {
        set word [expr {$state eq "none" ? "no staple" : "$state, valid until"}]
        assert_match "*intermediate *(serial $serial): $word*" $text
    }
    set metrics [lindex [ocsp_probe $::ca --tls1.3 --prometheus $target] 1]
    foreach {name wanted} [list certificates [expr {[llength $args] / 2}] good [llength [lsearch -all $args good]] \
        revoked [llength [lsearch -all $args revoked]]] {
        assert_match "*\nocsp_probe_chain_$name{target=\"$target\"} $wanted\n*" $metrics
    }
    return $text
}

# What it shows where the handshake or its OpenSSL cannot have the responses.
proc assert_probe_cannot {reason args} {
    lassign [ocsp_probe $::ca {*}$args 127.0.0.1:[srv 0 port]] status text
    assert_equal $status 0 $text
    assert_match "*\n  chain *CN=sub; CN=mid ($reason*)*" $text
    assert_no_match {*intermediate*} $text
    assert_no_match {*"chain"*} [lindex [ocsp_probe $::ca {*}$args --json 127.0.0.1:[srv 0 port]] 1]
    assert_no_match "*\nocsp_probe_chain_*\x7b*" [lindex [ocsp_probe $::ca {*}$args --prometheus 127.0.0.1:[srv 0 port]] 1]
}

start_server [ocsp_server [with_chain $three] $ca cache-dir {}] {
    ocsp_wait_info state good

    test {staple-chain: off by default (39.1)} {
        assert_equal [ocsp_get staple-chain] no
        assert_equal [ocsp_info chain_followed] 0
        assert_equal [ocsp_responder_count $responder -path /mid] 0
        assert_equal [stapled_serials -tls1_3] [serials $three]
    }

    test {staple-chain: without it Java has no status of the CAs, and refuses (39.8)} {
        assert_clients {java 0 gnutls-cli 1 tstclnt 1} *CertPathValidatorException*
    }

    if {$sends_chains} {
        test {staple-chain: every certificate has its response, in order (39.2)} {
            ocsp_set staple-chain yes
            ocsp_wait_info chain_good 2
            assert_equal [ocsp_info chain_followed] 2
            assert_equal [ocsp_info chain_last_error] {}
            set before [ocsp_info handshakes_chain_stapled]
            assert_chain $three $sub $mid
            assert_equal [ocsp_info handshakes_chain_stapled] [expr {$before + 1}]
            foreach name {mid sub} {assert_equal [ocsp_responder_count $responder -path /$name] 1}
        }

        test {staple-chain: ocsp-probe shows the response of each intermediate certificate (39.11)} {
            assert_match {*: good: *} [assert_probe 0 $sub good $mid good]
            assert_probe_cannot TLSv1.2 --tls1.2
        }

        test {staple-chain: clients that check the whole chain accept it (39.9)} {
            assert_clients {java 1 gnutls-cli 1 tstclnt 1}
        }

        test {staple-chain: a response that is missing leaves the others in place (39.3)} {
            ocsp_responder_behave $responder tryLater /other
            ocsp_load_certificate [with_chain $four]
            ocsp_wait_info cert_serial [dict get $four serial]
            ocsp_wait_info state good
            assert_match "certificate [dict get $other serial]: *trylater*" [ocsp_info chain_last_error]
            assert_equal [ocsp_info chain_followed] 2
            assert_equal [ocsp_info chain_good] 1
            assert_chain $four $mid
            assert_probe 0 $other none $mid good
            ocsp_load_certificate [with_chain $three]
            ocsp_wait_info cert_serial [dict get $three serial]
            ocsp_wait_info chain_good 2
            assert_chain $three $sub $mid
        }

        test {staple-chain: ocsp-probe does not take a CA's response for the server's (39.12)} {
            ocsp_responder_behave $responder tryLater /five
            ocsp_load_certificate [with_chain $five]
            ocsp_wait_info cert_serial [dict get $five serial]
            ocsp_wait_info state pending
            set text [assert_probe 2 $other none $mid good]
            assert_match {*: none: *only for a CA above it*} $text
            ocsp_load_certificate [with_chain $three]
            ocsp_wait_info cert_serial [dict get $three serial]
            ocsp_wait_info chain_good 2
        }

        test {staple-chain: a revoked CA is stapled, and INFO tells it from the leaf (39.4)} {
            ocsp_pass_this_update
            ocsp_responder_behave $responder {status revoked} /mid
            catch {r ocsp.refresh}
            ocsp_wait_info chain_revoked 1
            assert_equal [ocsp_info state] good
            assert_equal [ocsp_info revoked] 0
            assert_chain $three $sub $mid
            assert_equal [llength [ocsp_log_lines 0 "*[dict get $mid serial]*REVOKED*"]] 1
        }

        test {staple-chain: a revoked CA is critical for ocsp-probe (39.13)} {
            set text [assert_probe 2 $sub good $mid revoked]
            assert_match "*: good (critical): *note *[dict get $mid serial]*revoked at*" $text
        }

        test {staple-chain: clients that check the whole chain refuse a revoked CA (39.10)} {
            assert_clients {java 0 gnutls-cli 0 tstclnt 1} {*has been revoked*authority: CN=root*}
        }

        test {staple-chain: OCSP.GET shows a CA's response by its serial number (39.5)} {
            assert_match {*certStatus: revoked*} [ocsp_show [dict get $mid serial]]
            assert_match {*certStatus: good*} [ocsp_show]
        }

        test {staple-chain: OCSP.SET accepts a response for a CA (39.6)} {
            ocsp_pass_this_update
            assert_equal [ocsp_push [ocsp_response_der $mid $ca {next 4000}]] OK
            assert_equal [ocsp_info chain_revoked] 0
            assert_chain $three $sub $mid
        }

        test {staple-chain: from response files, which ocsp-probe writes for each certificate (39.17)} {
            set file [file join [tmpdir files] three.der]
            foreach {handle issuer suffix} [list $three $sub {} $sub $mid .1 $mid $ca .2] {
                lassign [ocsp_probe $ca --ask [dict get $handle cert] --issuer [dict get $issuer cert] \
                    --replace $file$suffix] status text
                assert_equal $status 0 $text
            }
            set requests [ocsp_responder_count $responder]
            ocsp_set staple-chain no
            ocsp_set response-file $file
            ocsp_wait_info response_source file
            ocsp_set staple-chain yes
            ocsp_wait_info chain_good 2
            assert_chain $three $sub $mid
            file delete $file.1
            catch {r ocsp.refresh}
            assert_chain $three $sub $mid ;# the response that is held stays
            assert_equal [ocsp_responder_count $responder] $requests
            ocsp_set response-file {}
            ocsp_wait_info chain_good 2
        }

        # The server with that chain is the peer of another one, which opens links to it by MIGRATE.
        set links {tls-cluster yes tls-replication yes}
        set options [ocsp_server [with_chain $four] $ca cache-dir {} {*}$links]
        dict set options omit {}
        start_server $options {
            # The link of the MIGRATE before is closed, or it would be used again.
            proc links_up {} {
                r -1 client kill type normal skipme yes
                r set key value
                return [expr {[catch {r migrate 127.0.0.1 [srv -1 port] key 0 5000 replace} why] == 0}]
            }
            proc refresh_peer {behaviour} {
                ocsp_pass_this_update -1
                ocsp_responder_behave $::responder $behaviour /mid
                catch {r -1 ocsp.refresh}
                ocsp_wait_info chain_revoked [expr {$behaviour ne "good"}] -1
            }

            test {staple-chain: a peer whose chain has a revoked CA is refused (39.15)} {
                foreach policy {soft require} {
                    ocsp_set verify-peers $policy
                    refresh_peer good
                    set rejected [ocsp_info peers_rejected]
                    assert_equal [links_up] 1 [ocsp_situation]
                    assert_equal [ocsp_info peers_rejected] $rejected
                    refresh_peer {status revoked}
                    assert_equal [links_up] 0
                    assert_morethan [ocsp_info peers_rejected] $rejected
                    assert_match "*certificate [dict get $mid serial] of a CA in the peer's chain was REVOKED*" \
                        [ocsp_info last_peer_error]
                }
                ocsp_set verify-peers no
                assert_equal [links_up] 1
            }

            test {staple-chain: a peer without a response for a CA is accepted (39.16)} {
                ocsp_set staple-chain no -1
                foreach policy {soft require} {
                    ocsp_set verify-peers $policy
                    assert_equal [links_up] 1 [ocsp_situation]
                }
            }
        }
    } else {
        test {staple-chain: with an older OpenSSL it is a notice, and nothing else changes (39.7)} {
            ocsp_set staple-chain yes
            wait_for_condition 200 50 {[string match *3.6* [ocsp_info chain_last_error]]} else {
                fail "no reason in INFO: [ocsp_situation]"
            }
            assert_equal [ocsp_info chain_followed] 0
            assert_equal [llength [ocsp_log_lines 0 *staple-chain*3.6*]] 1
            assert_equal [ocsp_responder_count $responder -path /mid] 0
            assert_chain $three
        }

        test {staple-chain: ocsp-probe says that an older OpenSSL cannot show the chain (39.14)} {
            foreach version {--tls1.2 --tls1.3} {assert_probe_cannot {OpenSSL 3.*3.6} $version}
        }
    }
}

# The server makes that TLS context on a thread of its own, and the module sees it in its first handshake.
if {$sends_chains} {
    set place [dict create cert [file join $dir place.crt] key [file join $dir place.key]]
    ocsp_put_certificate [with_chain $three] $place
    start_server [ocsp_server $place $ca staple-chain yes cache-dir {}] {
        set name {staple-chain: a renewed intermediate beside the same certificate, reloaded by the server itself (39.18)}
        if {[r config get tls-auto-reload-interval] eq {}} {
            skip_test $name {this server does not reload certificates by itself}
        } else {
            test $name {
                ocsp_responder_behave $responder good /mid
                r config set tls-auto-reload-interval 1
                catch {r ocsp.refresh}
                ocsp_wait_info chain_good 2
                assert_chain $three $sub $mid
                set renewed [ocsp_pki_intermediate $ca renewed -key $mid -subject [dict get $mid subject] \
                    -aia [list [ocsp_responder_url $responder /renewed]]]
                set chain [ocsp_pki_file [file join $dir renewed-chain.pem] $three $sub $renewed]
                # Valkey compares times in whole seconds.
                ocsp_pass_this_update
                ocsp_put_certificate [dict replace $three cert $chain] $place
                wait_for_condition 400 50 {[stapled_serials -tls1_3] eq [serials $three $sub $renewed]} else {
                    fail "the renewed intermediate is not followed: [ocsp_situation]"
                }
                assert_equal [ocsp_info chain_followed] 2
                assert_equal [ocsp_responder_count $responder -path /renewed] 1
            }
        }
    }
}
