# ocsp-peers.tcl - verify-peers: the server as a TLS client of its peers. Which links it opens, by policy, staple, TLS
# version and kind of context; and what happens to a primary, or a cluster node, whose certificate is revoked.
#
# The ideas are from NATS' suite (routes rejected after a revocation, open links stay, a new certificate repairs them)
# and MongoDB's (a one-byte staple on a heartbeat). A peer that sends staples which no server of ours would send is
# support/tls_peer.c. MIGRATE opens links to it, because it connects at once and reports the result.
#
# Weight: 60
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set client_leaf [ocsp_lab_leaf $lab client]
set peer_leaf [ocsp_lab_leaf $lab peer]
set must_leaf [ocsp_lab_leaf $lab must -must-staple 1]
set other_leaf [ocsp_lab_leaf $lab other]
set staple_file [file join $dir peer-staple.der]

proc peer_start {leaf version args} {
    set channel [open |[list [ocsp_tool tls_peer] --cert [dict get $leaf cert] --key [dict get $leaf key] \
        --staple $::staple_file --tls $version {*}$args] r]
    if {![regexp {port=(\d+) openssl=([0-9a-f]+)} [gets $channel] - port openssl]} {fail "tls_peer did not start"}
    return [dict create channel $channel port $port early_check [expr {"0x$openssl" >= 0x30600000}]]
}

proc peer_stop {peer} {
    exec kill [pid [dict get $peer channel]]
    catch {close [dict get $peer channel]}
}

# Opens a link from the server at `level` to that peer. Returns what the peer observed, as a dict.
proc link_to {peer {level 0}} {
    r $level set key value
    catch {r $level migrate 127.0.0.1 [dict get $peer port] key 0 5000} why
    set seen {}
    foreach {- name value} [regexp -all -inline {(\w+)=(\S+)} [gets [dict get $peer channel]]] {
        dict set seen $name $value
    }
    dict set seen why $why
    return $seen
}

# Sets the staple that the peer sends; {} means none.
proc peer_staples {behaviour {leaf {}}} {
    if {$leaf eq {}} {set leaf $::peer_leaf}
    file delete $::staple_file
    switch -- [lindex $behaviour 0] {
        {} {}
        byte {ocsp_file_write $::staple_file \x30}
        foreign {ocsp_response_file $::staple_file $::other_leaf $::ca good}
        default {ocsp_response_file $::staple_file $leaf $::ca $behaviour}
    }
}

set links {tls-cluster yes tls-replication yes}
set own_client [list tls-client-cert-file [dict get $client_leaf cert] tls-client-key-file [dict get $client_leaf key]]
set forged [list signer [ocsp_pki_leaf $ca forger] certs auto]

# ---- every staple with every policy ---------------------------------------------------------------------------------

foreach {context args} [list {one context for both roles} {} {a client certificate of its own} $own_client] {
    foreach version {1.2 1.3} {
        test "peers: $context, TLS $version: each staple with each policy" {
            set options [ocsp_server $leaf $ca {*}$links {*}$args]
            dict set options omit {}
            start_server $options {
                set peer [peer_start $peer_leaf $version]
                # - opened, no counter; v opened, peers_verified; m opened, peers_missing; r rejected, peers_rejected.
                foreach {name behaviour no soft require} [list \
                    {good}                  {this -60}                     -  v  v \
                    {none}                  {}                             -  m  r \
                    {expired}               {this -7200 next -60}          -  m  r \
                    {revoked}               {status revoked}               -  r  r \
                    {foreign}               foreign                        -  r  r \
                    {another CA's}          {entries issuer-key}           -  r  r \
                    {one byte}              byte                           -  r  r \
                    {unauthorized signer}   $forged                        -  r  r \
                    {a bad signature}       {signature bad}                -  r  r \
                    {tryLater}              {response_status tryLater}     -  r  r \
                    {no nextUpdate, fresh}  {next none}                    -  v  v \
                    {no nextUpdate, old}    {this -1200 next none}         -  m  r \
                ] {
                    # From 3.6 OpenSSL sends only a response, and only one with the certificate's serial number and the
                    # issuer's name.
                    if {[dict get $peer early_check] && $name in {foreign {one byte}}} continue
                    peer_staples $behaviour
                    foreach policy {no soft require} {
                        ocsp_set verify-peers $policy
                        set before [ocsp_info_all]
                        set seen [link_to $peer]
                        set verdict [set $policy]
                        assert_equal [dict get $seen done] [expr {$verdict ne "r"}] "$name, $policy: $seen"
                        assert_equal [dict get $seen asked] [expr {$policy ne "no"}] "$name, $policy: $seen"
                        assert_equal [dict get $seen reused] 0
                        foreach {letter field} {v peers_verified m peers_missing r peers_rejected} {
                            assert_equal [ocsp_info $field] \
                                [expr {[dict get $before $field] + ($verdict eq $letter)}] "$name, $policy: $field"
                        }
                        assert_equal [r ping] PONG
                    }
                }
                peer_stop $peer
            }
        }
    }
}

# From 3.6 OpenSSL receives the staples of the whole chain, and returns the first one that there is.
start_server [ocsp_server $leaf $ca {*}$links verify-peers soft] {
    test {peers: a staple for the CA above the peer alone counts as missing} {
        set above [ocsp_pki_intermediate $ca above]
        set below [ocsp_pki_leaf $above below]
        dict set below cert [ocsp_pki_file $dir/below-chain.crt $below $above]
        ocsp_response_file $staple_file $above $ca {this -60}
        foreach version {1.2 1.3} {
            set peer [peer_start $below $version --for ca]
            set before [ocsp_info peers_missing]
            ocsp_set verify-peers soft
            assert_equal [dict get [link_to $peer] done] 1
            assert_equal [ocsp_info peers_missing] [expr {$before + 1}]
            ocsp_set verify-peers require
            assert_equal [dict get [link_to $peer] done] 0
            wait_for_condition 100 50 {[string match {*staples no OCSP response*} [ocsp_info last_peer_error]]} else {
                fail "last_peer_error: [ocsp_info last_peer_error]"
            }
            peer_stop $peer
        }
    }
}

start_server [ocsp_server $leaf $ca {*}$links verify-peers soft] {
    set peer [peer_start $must_leaf 1.3]
    test {peers: for a must-staple certificate, soft means require} {
        foreach {behaviour done} {{} 0 {this -7200 next -60} 0 {this -60} 1} {
            peer_staples $behaviour $must_leaf
            assert_equal [dict get [link_to $peer] done] $done "staple: $behaviour"
        }
    }
    peer_stop $peer

    set peer [peer_start $peer_leaf 1.3]
    test {peers: the log has the peer's address, its serial and the reason, once for each change} {
        set address "127.0.0.1:[dict get $peer port]"
        set serial [dict get $peer_leaf serial]
        foreach {behaviour pattern level} {
            {}                 {*accepted without a valid staple*staples no OCSP response*}   notice
            {status revoked}   {*refused*REVOKED*}                        warning
            {this -60}         {*verified again*}                         notice
        } {
            peer_staples $behaviour
            for {set i 0} {$i < 5} {incr i} {link_to $peer}
            wait_for_condition 100 50 {[llength [ocsp_log_lines 0 $pattern]] > 0} else {fail "no line like $pattern"}
            foreach line [ocsp_log_lines 0 $pattern] {
                if {![string match *$address* $line]} continue
                assert_match "*$address (certificate $serial)*" $line
                incr found($pattern)
            }
            assert_equal $found($pattern) 1
        }
        peer_staples {status revoked}
        link_to $peer
        wait_for_condition 100 50 {[ocsp_info last_peer_error] ne {}} else {fail "last_peer_error is empty"}
        assert_match "$address*$serial*REVOKED*" [ocsp_info last_peer_error]
        peer_staples {this -60}
        link_to $peer
        ocsp_wait_info last_peer_error {}
    }

    test {peers: verify-peers takes no, soft and require only, and CONFIG REWRITE keeps it} {
        foreach value {no require soft} {
            ocsp_set verify-peers $value
            assert_equal [ocsp_get verify-peers] $value
        }
        assert_error {*} {ocsp_set verify-peers yes}
        assert_error {*} {ocsp_set verify-peers {}}
        assert_equal [ocsp_get verify-peers] soft
        ocsp_set verify-peers require
        r config rewrite
        restart_server 0 true false
        assert_equal [ocsp_get verify-peers] require
        peer_staples {}
        assert_equal [dict get [link_to $peer] done] 0
        peer_staples {this -60}
        assert_equal [dict get [link_to $peer] done] 1
    }

    test {peers: with stapling off here, peers are verified nevertheless} {
        ocsp_set stapling no
        peer_staples {status revoked}
        assert_equal [dict get [link_to $peer] done] 0
        peer_staples {this -60}
        assert_equal [dict get [link_to $peer] done] 1
        assert_equal [ocsp_info state] disabled
        ocsp_set stapling yes
    }

    test {peers: the first link right after a TLS reload requests a status} {
        peer_staples {status revoked}
        for {set i 0} {$i < 10} {incr i} {
            # In one transaction, so that the server does not run its event loop in between.
            r set key value
            r multi
            r config set tls-cert-file [dict get $leaf cert]
            r migrate 127.0.0.1 [dict get $peer port] key 0 5000
            catch {r exec}
            assert_match {*done=0 asked=1*} [gets [dict get $peer channel]]
        }
    }
    peer_stop $peer
}

# A module that is loaded at run time makes the server create its TLS context again. While that fails nothing is
# checked, and INFO and the log must say so.
if {[ocsp_is_module]} {
    set options [ocsp_server $leaf $ca {*}$links]
    dict lappend options omit loadmodule [ocsp_directive stapling]
    start_server $options {
        test {peers: module loaded while tls-cert-file cannot be read: reported, tried again, then checked} {
            set peer [peer_start $peer_leaf 1.3]
            peer_staples {status revoked}
            file rename [dict get $leaf cert] [dict get $leaf cert].away
            r module loadex $::ocsp_module_path CONFIG ocsp.verify-peers require
            wait_for_condition 100 50 {[string match {*NOT checked*tls-cert-file*} [ocsp_info last_peer_error]]} else {
                fail "last_peer_error does not report it: [ocsp_info_all]"
            }
            assert_equal [llength [ocsp_log_lines 0 {*NOT checked*}]] 1
            file rename [dict get $leaf cert].away [dict get $leaf cert]
            ocsp_set verify-peers soft
            ocsp_wait_info last_peer_error {}
            assert_match {done 0 asked 1 *} [link_to $peer]
            peer_stop $peer
        }
    }
}

# ocsp-links.tcl compares the handshakes of clients; here it is the server's own ClientHello.
test {peers: with verify-peers no, the ClientHello is that of a server without the module} {
    peer_staples {this -60}
    foreach {name policy omit} {without no loadmodule no no {} soft soft {} back no {}} {
        set options [ocsp_server $leaf $ca {*}$links verify-peers [expr {$name eq "back" ? "soft" : $policy}]]
        if {$omit ne {}} {dict lappend options omit $omit [ocsp_directive stapling] [ocsp_directive verify-peers]}
        start_server $options {
            if {$name eq "back"} {ocsp_set verify-peers no}
            foreach version {1.2 1.3} {
                set peer [peer_start $peer_leaf $version]
                set hello($name,$version) [dict get [link_to $peer] hello]
                peer_stop $peer
            }
        }
    }
    foreach version {1.2 1.3} {
        assert_equal $hello(no,$version) $hello(without,$version)
        assert_equal $hello(back,$version) $hello(without,$version)
        # Extension 5 is status_request.
        assert_match *,5,* $hello(soft,$version)
        assert_no_match *,5,* $hello(no,$version)
    }
}

# ---- a primary and its replica --------------------------------------------------------------------------------------

set primary_leaf [ocsp_lab_leaf $lab primary]
set next_leaf [ocsp_lab_leaf $lab next]

proc revoke {args} {
    set for {}
    foreach leaf $args {dict set for [dict get $leaf serial] {status revoked}}
    ocsp_responder_behave $::responder [list for $for]
}

proc link_status {{level 0}} {status [srv $level client] master_link_status}

# Asserts that the link stays down for several attempts. Attempts are counted, not timed.
proc stays_down {level before} {
    ocsp_wait_above peers_rejected [expr {$before + 2}] $level
    assert_equal [link_status $level] down
}

foreach {context args} [list {one context for both roles} {} {a client certificate of its own} $own_client] {
    foreach version {TLSv1.2 TLSv1.3} {
        test "peers: $context, $version: a primary that is revoked, and gets a new certificate" {
            revoke
            set options [ocsp_server $primary_leaf $ca {*}$links tls-protocols $version]
            set replica [ocsp_server $leaf $ca {*}$links {*}$args verify-peers require tls-protocols $version]
            dict set replica omit {}
            start_server $options {
                start_server $replica {
                    foreach level {0 -1} {ocsp_wait_info state good $level}
                    r replicaof 127.0.0.1 [srv -1 port]
                    wait_for_sync r
                    assert_morethan [ocsp_info peers_verified] 0
                    assert_equal [ocsp_info peers_rejected] 0

                    # Revoked: a link that is open stays open.
                    revoke $primary_leaf
                    after 1100
                    r -1 debug ocsp-refresh
                    ocsp_wait_info state revoked -1
                    r -1 set during revocation
                    wait_for_condition 200 50 {[r get during] eq {revocation}} else {fail "the open link was closed"}
                    assert_equal [link_status] up

                    # With require and soft no new link is opened, with no it is.
                    foreach policy {require soft} {
                        ocsp_set verify-peers $policy
                        set before [ocsp_info peers_rejected]
                        r -1 client kill type replica
                        stays_down 0 $before
                    }
                    assert_equal [llength [ocsp_log_lines 0 {*refused*REVOKED*}]] 1
                    ocsp_set verify-peers no
                    wait_for_sync r
                    ocsp_set verify-peers require
                    assert_equal [link_status] up
                    set before [ocsp_info peers_rejected]
                    r -1 client kill type replica
                    stays_down 0 $before

                    # A new certificate repairs it, without a restart.
                    ocsp_load_certificate $next_leaf -1
                    ocsp_wait_info state good -1
                    wait_for_sync r
                    r -1 set after rotation
                    wait_for_condition 200 50 {[r get after] eq {rotation}} else {fail "the key did not arrive"}
                    ocsp_wait_info last_peer_error {}
                    assert_equal [llength [ocsp_log_lines 0 {*verified again*}]] 1

                    # A primary without a staple.
                    ocsp_set stapling no -1
                    set before [ocsp_info peers_rejected]
                    r -1 client kill type replica
                    stays_down 0 $before
                    ocsp_set verify-peers soft
                    wait_for_sync r
                    assert_morethan [ocsp_info peers_missing] 0
                }
            }
        }
    }
}

# ---- a cluster ------------------------------------------------------------------------------------------------------

# Returns how the node at `level` sees the node with that id: its flags, and whether the link to it is connected.
proc node_seen {level id} {
    foreach line [split [r $level cluster nodes] \n] {
        if {[lindex $line 0] eq $id} {return [list [lindex $line 2] [lindex $line 7]]}
    }
    return {unknown unknown}
}

set levels {0 -1 -2 -3 -4 -5}

proc whole {{count 6}} {
    foreach level $::levels {
        foreach line [split [string trim [r $level cluster nodes]] \n] {
            if {[lindex $line 7] ne "connected" || [string match *fail* [lindex $line 2]]} {return 0}
        }
        if {[getInfoProperty [r $level cluster info] cluster_state] ne "ok"} {return 0}
        if {[getInfoProperty [r $level cluster info] cluster_known_nodes] != $count} {return 0}
    }
    return 1
}

foreach {context args} [list {one context for both roles} {} {a client certificate of its own} $own_client] {
    test "peers: $context: a cluster of six in which one node is revoked" {
        revoke
        set options {}
        for {set i 0} {$i < 6} {incr i} {
            set node($i) [ocsp_lab_leaf $lab [clock clicks]node$i]
            set option [ocsp_server $node($i) $ca {*}$links {*}$args cluster-enabled yes cluster-node-timeout 15000 \
                tls-auth-clients [expr {$args eq {} ? "no" : "yes"}] verify-peers require]
            dict set option omit {}
            lappend options $option
        }
        start_server [lindex $options 0] {start_server [lindex $options 1] {start_server [lindex $options 2] {
        start_server [lindex $options 3] {start_server [lindex $options 4] {start_server [lindex $options 5] {
            # Every node has a staple before it meets the others.
            foreach level $levels {ocsp_wait_info state good $level}
            r cluster addslotsrange 0 5000
            r -1 cluster addslotsrange 5001 10000
            r -2 cluster addslotsrange 10001 16383
            foreach level [lrange $levels 1 end] {r cluster meet 127.0.0.1 [srv $level port]}
            wait_for_condition 1200 50 {[whole]} else {fail "no cluster: [r cluster nodes]"}
            foreach {replica primary} {-3 0 -4 -1 -5 -2} {
                set primary_id [r $primary cluster myid]
                wait_for_condition 200 50 {[node_seen $replica $primary_id] ne {unknown unknown}} else {
                    fail "the replica does not know its primary: [r $replica cluster nodes]"
                }
                r $replica cluster replicate $primary_id
            }
            foreach level {-3 -4 -5} {wait_for_sync [srv $level client]}
            set rejected {}
            foreach level $levels {lappend rejected [ocsp_info peers_rejected $level]}
            assert_equal $rejected {0 0 0 0 0 0}

            # The fourth server, a replica, is revoked. Open links stay open.
            revoke $node(2)
            after 1100
            r -3 debug ocsp-refresh
            ocsp_wait_info state revoked -3
            assert_equal [whole] 1
            # Each node closes its link to it, as after a restart or a network outage, and opens no new one.
            set id [r -3 cluster myid]
            foreach level {0 -1 -2 -4 -5} {r $level debug clusterlink kill to $id}
            foreach level {0 -1 -2 -4 -5} {
                ocsp_wait_above peers_rejected 0 $level
                # During an attempt the server reports a link as connected that it has only begun to open.
                wait_for_condition 200 50 {[lindex [node_seen $level $id] 1] eq "disconnected"} else {
                    fail "the link to the revoked node is connected"
                }
            }
            # No other link is affected, in either direction: these nodes reject nobody else.
            foreach level {0 -1 -2 -4 -5} {
                foreach line [split [string trim [r $level cluster nodes]] \n] {
                    if {[lindex $line 0] ne $id} {assert_equal [lindex $line 7] connected "level $level: $line"}
                }
                assert_match "*(certificate [dict get $node(2) serial])*" [ocsp_info last_peer_error $level]
            }
            assert_equal [ocsp_info peers_rejected -3] 0

            # A new certificate repairs it.
            revoke
            set renewed [ocsp_lab_leaf $lab [clock clicks]renewed]
            ocsp_load_certificate $renewed -3
            ocsp_wait_info state good -3
            wait_for_condition 1200 50 {[whole]} else {fail "the cluster did not recover: [r cluster nodes]"}
            r set {} healed
            wait_for_condition 400 50 {[catch {r -3 readonly; r -3 get {}} value] == 0 && $value eq {healed}} else {
                fail "the replica did not get the key: [r -3 info replication]"
            }
        }}}}}}
    }
}

# Runs `code` with three primaries and, at level -3, a replica of the one at level -2; all of them require a staple of
# each other. ::node(3) is the certificate at level 0, ::node(0) that at level -3.
proc with_a_small_cluster {code} {
    global lab ca links levels node
    revoke
    set options {}
    for {set i 0} {$i < 4} {incr i} {
        set node($i) [ocsp_lab_leaf $lab [clock clicks]node$i]
        set option [ocsp_server $node($i) $ca {*}$links cluster-enabled yes cluster-node-timeout 3000 verify-peers require]
        dict set option omit {}
        lappend options $option
    }
    start_server [lindex $options 0] {start_server [lindex $options 1] {start_server [lindex $options 2] {
    start_server [lindex $options 3] {
        set levels {0 -1 -2 -3}
        foreach level $levels {ocsp_wait_info state good $level}
        r cluster addslotsrange 0 5000
        r -1 cluster addslotsrange 5001 10000
        r -2 cluster addslotsrange 10001 16383
        foreach level {-1 -2 -3} {r cluster meet 127.0.0.1 [srv $level port]}
        wait_for_condition 1200 50 {[whole 4]} else {fail "no cluster: [r cluster nodes]"}
        r -3 cluster replicate [r -2 cluster myid]
        wait_for_sync [srv -3 client]
        foreach level {0 -1} {
            wait_for_condition 400 50 {[string match *slave* [node_seen $level [r -3 cluster myid]]]} else {
                fail "not known as a replica: [r $level cluster nodes]"
            }
        }
        uplevel 1 $code
    }}}}
}

# The limit of rejecting links: the revoked node still opens links to the others, so they still count it as a member.
test {peers: a revoked primary keeps its slots until its replica takes them over} {
    with_a_small_cluster {
        set id [r -2 cluster myid]
        set replica_id [r -3 cluster myid]
        revoke $::node(1)
        after 1100
        r -2 debug ocsp-refresh
        ocsp_wait_info state revoked -2
        foreach level {0 -1 -3} {
            r $level debug clusterlink kill to $id
            ocsp_wait_above peers_rejected 0 $level
        }
        r -3 client kill type master
        wait_for_condition 200 50 {[s -3 master_link_status] eq {down}} else {fail "the replica's link is still up"}
        # Ten times as many attempts as a change would need.
        foreach level {0 -1 -3} {ocsp_wait_above peers_rejected 30 $level}
        foreach level {0 -1 -3} {
            # Between two attempts, as above.
            wait_for_condition 200 50 {[node_seen $level $id] eq {master disconnected}} else {
                fail "level $level sees it as [node_seen $level $id]"
            }
        }
        assert_equal [getInfoProperty [r cluster info] cluster_state] ok
        assert_equal [s -3 role] slave
        # The remedy that the README gives.
        r -3 cluster failover takeover
        set looks 0
        foreach level {0 -1} {
            # The revoked node hears of it through its own links, and may take a higher epoch than the replica: repeat.
            wait_for_condition 800 50 {
                ([incr looks] % 60 || [s -3 role] eq {master} || [r -3 cluster failover takeover] eq {OK})
                && [lindex [node_seen $level $replica_id] 0] eq {master}
                && [string match slave* [node_seen $level $id]]
            } else {fail "the replica did not take over: [r $level cluster nodes]"}
        }
        wait_for_condition 400 50 {[getInfoProperty [r cluster info] cluster_state] eq {ok}} else {
            fail "cluster_state is not ok: [r cluster nodes]"
        }
    }
}

# A node sends its vote over a link that it opens to the candidate: without such links, a candidate is not elected.
test {peers: failover: a revoked candidate is not elected, with a new certificate it is} {
    with_a_small_cluster {
        # The server at -2 is the primary that will die, and the one at -3 is its only replica.
        set primary_id [r -2 cluster myid]
        set id [r -3 cluster myid]
        revoke $::node(0)
        after 1100
        r -3 debug ocsp-refresh
        ocsp_wait_info state revoked -3
        foreach level {0 -1 -2} {
            r $level debug clusterlink kill to $id
            ocsp_wait_above peers_rejected 0 $level
        }
        server_may_die -2
        send_signal [srv -2 pid] KILL
        foreach level {0 -1} {
            wait_for_condition 1200 50 {[lindex [node_seen $level $primary_id] 0] eq {master,fail}} else {
                fail "the dead primary is not marked as failed: [r $level cluster nodes]"
            }
        }
        # It starts an election twice and gets no vote.
        wait_for_condition 1200 50 {[count_log_message -3 {Starting a failover election}]
            + [count_log_message -3 {Start of election}] >= 2} else {
            fail "no election was started"
        }
        assert_equal [s -3 role] slave
        assert_equal [count_log_message -3 {election won}] 0
        revoke
        ocsp_load_certificate [ocsp_lab_leaf $lab [clock clicks]renewed] -3
        wait_for_condition 1200 50 {[s -3 role] eq {master}} else {fail "it was not elected: [r -3 cluster nodes]"}
        foreach level {0 -1} {
            wait_for_condition 400 50 {[getInfoProperty [r $level cluster info] cluster_state] eq {ok}} else {
                fail "cluster_state is not ok: [r $level cluster nodes]"
            }
        }
    }
}

# ---- a hostile peer -------------------------------------------------------------------------------------------------

# Returns the behaviour for a staple of nearly 64 KiB full of certificates with the responder's name, each of which
# the CA might have signed. Anybody with a certificate of the CA can send such a staple.
proc hostile_staple {ca leaf} {
    set forger [ocsp_pki_delegate $ca forger -signkey $leaf]
    set none [string length [ocsp_response_der $leaf $ca [list signer $forger certs none]]]
    set one [expr {[string length [ocsp_response_der $leaf $ca [list signer $forger]]] - $none}]
    return [list signer $forger certs [lrepeat [expr {(65000 - $none) / $one}] $forger]]
}

# Returns sorted latencies of PING in ms, while another client makes the server open some 20 links a second to `peer`.
proc pings_while_linking {peer seconds} {
    set linker [open |[list [info nameofexecutable] - [srv 0 host] [srv 0 port] [dict get $peer port] $::tls] r+]
    puts $linker [list source [file join $::tests_dir runner client.tcl]]
    puts $linker {
        lassign $argv - host server_port peer_port tls
        set client [valkey $host $server_port 0 $tls]
        while 1 {
            catch {$client set key value; $client migrate 127.0.0.1 $peer_port key 0 5000}
            after 50
        }
    }
    close $linker write
    set until [expr {[clock milliseconds] + 1000 * $seconds}]
    set times {}
    while {[clock milliseconds] < $until} {
        set began [clock microseconds]
        r ping
        lappend times [expr {([clock microseconds] - $began) / 1000.0}]
        after 1
    }
    exec kill [pid $linker]
    catch {close $linker}
    return [lsort -real $times]
}

# OCSP_TEST_HOSTILE=SECONDS measures the latency of PING next to a hostile peer and next to a good one, in turn.
foreach key {ec ec384 rsa} {
    set key_ca [ocsp_pki_ca $dir ca-$key -key $key]
    set key_leaf [ocsp_pki_leaf $key_ca server-$key]
    set key_peer [ocsp_pki_leaf $key_ca peer-$key]
    start_server [ocsp_server $key_leaf $key_ca {*}$links stapling no verify-peers require] {
        set peer [peer_start $key_peer 1.3]
        test "peers: $key: a hostile peer's staple is rejected before it is parsed" {
            ocsp_response_file $staple_file $key_peer $key_ca [hostile_staple $key_ca $key_peer]
            assert_equal [dict get [link_to $peer] done] 0
            assert_match {*the response * more than *} [ocsp_info last_peer_error]
            ocsp_response_file $staple_file $key_peer $key_ca good
            assert_equal [dict get [link_to $peer] done] 1
            assert_equal [ocsp_info last_peer_error] {}
        }
        if {[info exists ::env(OCSP_TEST_HOSTILE)]} {
            foreach turn {1 2} {
                foreach what {good hostile} {
                    set behaviour [expr {$what eq "good" ? "good" : [hostile_staple $key_ca $key_peer]}]
                    ocsp_response_file $staple_file $key_peer $key_ca $behaviour
                    set times [pings_while_linking $peer $::env(OCSP_TEST_HOSTILE)]
                    set count [llength $times]
                    puts [format "%s, %s peer: %d PINGs, p50 %.2f ms, p99 %.2f ms, the longest %.2f ms" $key $what $count \
                        [lindex $times [expr {$count / 2}]] [lindex $times [expr {$count * 99 / 100}]] [lindex $times end]]
                }
            }
        }
        peer_stop $peer
    }
}
