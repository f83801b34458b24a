# ocsp-links.tcl - replication and cluster links over TLS (scenario 21), clients that request no status (22).
#
# Weight: 18
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set primary_leaf [dict get $lab leaf]
set replica_leaf [ocsp_lab_leaf $lab replica]
set client_leaf [ocsp_lab_leaf $lab client]

# ---- links (21) ----

foreach {name args} [list \
    {no client certificates} {tls-auth-clients no} \
    {client certificates required, one context in both roles} {tls-auth-clients yes} \
    {client certificates of their own} [list tls-auth-clients yes tls-client-cert-file [dict get $client_leaf cert] \
        tls-client-key-file [dict get $client_leaf key]] \
] {
    test "replication: over TLS, with stapling on both sides, $name (21.[incr number])" {
        set links [list tls-replication yes {*}$args]
        set options {}
        foreach leaf [list $primary_leaf $replica_leaf] {
            set option [ocsp_server $leaf $ca {*}$links]
            dict set option omit {}
            lappend options $option
        }
        start_server [lindex $options 0] {
            r set before 1
            start_server [lindex $options 1] {
                foreach level {0 -1} {ocsp_wait_info state good $level}
                r replicaof [srv -1 host] [srv -1 port]
                wait_for_sync r
                r -1 set after 2
                wait_for_condition 200 50 {[r get after] eq 2} else {fail "the key did not arrive"}
                assert_equal [r get before] 1
                # Both servers staple (with -cert where the server requests a client certificate).
                set identity [list -cert [dict get $client_leaf cert] -key [dict get $client_leaf key]]
                foreach level {0 -1} {
                    assert_equal [ocsp_staple $level {*}$identity -tls1_2] good
                    assert_equal [ocsp_staple $level {*}$identity -tls1_3] good
                }
                # A reload on both sides, links are closed, and the replica connects again.
                ocsp_load_certificate $replica_leaf 0
                ocsp_load_certificate $primary_leaf -1
                r -1 client kill type replica
                wait_for_condition 400 50 {[status [srv -1 client] connected_slaves] == 1} else {fail "no replica"}
                wait_for_sync r
                r -1 set again 3
                wait_for_condition 200 50 {[r get again] eq 3} else {fail "the key did not arrive"}
                # A revoked certificate breaks no link: as a client, Valkey requests no status.
                after 1100
                ocsp_responder_behave $responder {status revoked}
                foreach level {0 -1} {
                    r $level debug ocsp-refresh
                    ocsp_wait_info state revoked $level
                }
                r -1 client kill type replica
                r -1 set revoked 4
                wait_for_condition 400 50 {[r get revoked] eq 4} else {fail "the key did not arrive"}
                after 1100
                ocsp_responder_behave $responder good
            }
        }
    }
}

foreach {name args} [list \
    {no client certificates} {tls-auth-clients no} \
    {client certificates} {tls-auth-clients yes} \
] {
    test "cluster: three nodes over TLS, with stapling on each, $name (21.[incr number])" {
        set options {}
        for {set i 0} {$i < 3} {incr i} {
            set node [ocsp_lab_leaf $lab node$number$i]
            set option [ocsp_server $node $ca tls-cluster yes tls-replication yes cluster-enabled yes \
                cluster-node-timeout 5000 {*}$args]
            dict set option omit {}
            lappend options $option
        }
        start_server [lindex $options 0] {
            start_server [lindex $options 1] {
                start_server [lindex $options 2] {
                    r cluster addslotsrange 0 5000
                    r -1 cluster addslotsrange 5001 10000
                    r -2 cluster addslotsrange 10001 16383
                    foreach level {-1 -2} {r cluster meet 127.0.0.1 [srv $level port]}
                    foreach level {0 -1 -2} {
                        wait_for_condition 600 50 {
                            [getInfoProperty [r $level cluster info] cluster_state] eq "ok"
                            && [getInfoProperty [r $level cluster info] cluster_known_nodes] == 3
                        } else {
                            fail "no cluster: [r $level cluster info]"
                        }
                        ocsp_wait_info state good $level
                    }
                    # A reload on each node: the cluster stays.
                    foreach level {0 -1 -2} {
                        r $level config set tls-cert-file [lindex [r $level config get tls-cert-file] 1]
                    }
                    set identity [list -cert [dict get $client_leaf cert] -key [dict get $client_leaf key]]
                    foreach level {0 -1 -2} {
                        assert_equal [ocsp_staple $level {*}$identity] good
                        assert_equal [getInfoProperty [r $level cluster info] cluster_state] ok
                    }
                }
            }
        }
    }
}

# ---- handshakes without a status request (22) ----

# Returns the messages of a handshake of `openssl s_client`, {direction version kind type length} each. With an RSA
# certificate and without session tickets, the same messages always have the same length.
proc message_sizes {args} {
    catch {
        exec $::openssl s_client -connect [srv 0 host]:[srv 0 port] -msg {*}$args </dev/null 2>@1
    } text
    set sizes {}
    foreach line [split $text \n] {
        if {[regexp {^(<<<|>>>) ([^,]+), (Handshake|ChangeCipherSpec|Alert)[^\[]*\[length ([0-9a-f]+)\](?:, (\w+))?} \
            $line - direction version kind length type]} {
            # Tickets contain times of varying length; the alerts at the end depend on who closes first.
            if {$type eq "NewSessionTicket" || $kind eq "Alert"} continue
            lappend sizes [list $direction $version $kind $type $length]
        }
    }
    if {[llength $sizes] < 5} {fail "no handshake: $text"}
    return $sizes
}

# The same certificate on servers without the module, with it and stapling off, with it and stapling on.
test {handshake bytes: equal to those of a server without stapling if the client requests no status (22.1)} {
    set rsa [ocsp_lab_leaf $lab rsa -key rsa -must-staple 1]
    set seen {}
    foreach {name stapling omit} {without yes loadmodule off no {} on yes {}} {
        set options [ocsp_server $rsa $ca stapling $stapling]
        if {$omit ne {}} {dict lappend options omit $omit [ocsp_directive stapling]}
        start_server $options {
            if {$name eq "on"} {
                ocsp_wait_info state good
                assert_equal [ocsp_staple] good
            }
            foreach version {-tls1_2 -tls1_3} {
                dict set seen $version $name [message_sizes $version]
            }
            # Nor does INFO count such a client.
            if {$name eq "on"} {
                set before [ocsp_info_all]
                message_sizes -tls1_2
                assert_equal [ocsp_info handshakes_stapled] [dict get $before handshakes_stapled]
                assert_equal [ocsp_info handshakes_unstapled] [dict get $before handshakes_unstapled]
            }
        }
    }
    foreach version {-tls1_2 -tls1_3} {
        foreach name {off on} {
            assert_equal [dict get $seen $version $name] [dict get $seen $version without] "$version, $name"
        }
        assert_no_match {*CertificateStatus*} [dict get $seen $version on]
    }
}

test {handshake bytes: a status request adds one message in TLS 1.2, and bytes to Certificate in TLS 1.3 (22.2)} {
    set rsa [ocsp_lab_leaf $lab rsa2 -key rsa]
    start_server [ocsp_server $rsa $ca] {
        ocsp_wait_info state good
        assert_match {*CertificateStatus*} [message_sizes -tls1_2 -status]
        assert_no_match {*CertificateStatus*} [message_sizes -tls1_2]
        assert_not_equal [message_sizes -tls1_3 -status] [message_sizes -tls1_3]
        # Without a response, a client that requests a status gets the same messages as from a server without stapling.
        set on [message_sizes -tls1_2]
        ocsp_set stapling no
        assert_no_match {*CertificateStatus*} [message_sizes -tls1_2 -status]
        assert_equal [message_sizes -tls1_2] $on
    }
}

test {handshake bytes: other protocols, and clients that disconnect during a handshake, do no harm (22.3)} {
    start_server [ocsp_server $primary_leaf $ca] {
        ocsp_wait_info state good
        for {set i 0} {$i < 50} {incr i} {
            # Something else on the TLS port, half of a ClientHello, nothing.
            set broken [socket 127.0.0.1 [srv 0 port]]
            fconfigure $broken -translation binary -buffering none
            catch {puts -nonewline $broken [lindex [list "PING\r\n" "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" {}] \
                [expr {$i % 3}]]}
            close $broken
        }
        assert_equal [r ping] PONG
        ocsp_assert_good $ca
    }
}
