# ocsp-topology.tcl - a cluster of six nodes, and a primary with two replicas (scenario 29). All links use TLS and every
# server staples: they form, fail over and resynchronise, and the module makes no outgoing link fail.
#
# Weight: 90
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set client_leaf [ocsp_lab_leaf $lab client]
set identity [list -cert [dict get $client_leaf cert] -key [dict get $client_leaf key]]

# How servers authenticate as TLS clients: name, and directives.
set forms [list \
    {without client certificates} {tls-auth-clients no} \
    {with client certificates, one context in both roles} {tls-auth-clients yes} \
    {with client certificates of their own} [list tls-auth-clients yes \
        tls-client-cert-file [dict get $client_leaf cert] tls-client-key-file [dict get $client_leaf key]] \
]

# Returns options for a node with its own certificate.
proc node {name args} {
    set options [ocsp_server [ocsp_lab_leaf $::lab $name] $::ca tls-replication yes {*}$args]
    dict set options omit {}
    return $options
}

# I/O threads, where the server has them: incoming links make their handshake there, outgoing ones on the main thread.
proc io_threads {} {list io-threads 2}

# Runs `code` with the servers of `options` around it, the first of them innermost: r 0, r -1, ...
proc with_servers {options code} {
    if {$options eq {}} {return [uplevel #0 $code]}
    start_server [lindex $options end] [list with_servers [lrange $options 0 end-1] $code]
}

# Asserts that the log has no sign of a rejected link. A peer that went away during a handshake is not one.
proc assert_no_link_refused {level} {
    foreach line [log_lines $level] {
        foreach sign {{*certificate verify*} {*bad certificate*} {*tlsv1*alert*} {*handshake failure*}
                {*invalid status response*} {*ocsp*error*} {*callback failed*}} {
            if {[string match -nocase $sign $line] && ![string match {### *} $line]} {fail "a link was rejected: $line"}
        }
    }
}

proc assert_stapling {levels} {
    foreach level $levels {
        ocsp_wait_info state good $level
        foreach version {-tls1_2 -tls1_3} {assert_equal [ocsp_staple $level {*}$::identity $version] good}
    }
}

# ---- a primary and two replicas ----

proc in_sync {primary replicas} {
    wait_for_condition 600 50 {[s $primary connected_slaves] == [llength $replicas]} else {
        fail "[s $primary connected_slaves] of [llength $replicas] replicas connected"
    }
    foreach level $replicas {wait_for_sync [list r $level]}
    set token [clock microseconds]
    r $primary set token $token
    foreach level $replicas {
        wait_for_condition 400 50 {[r $level get token] eq $token} else {fail "the key did not arrive at $level"}
    }
}

foreach {form directives} $forms {
    test "replication: a primary with two replicas $form: forms, fails over, resynchronises (29.[incr number])" {
        set options [lmap name {one two three} {node $name$number {*}$directives {*}[io_threads]}]
        with_servers $options {
            foreach level {-1 -2} {r $level replicaof [srv 0 host] [srv 0 port]}
            in_sync 0 {-1 -2}
            assert_stapling {0 -1 -2}

            # A planned failover, and back with REPLICAOF.
            r failover to [srv -1 host] [srv -1 port]
            wait_for_condition 400 50 {[s 0 role] eq "slave" && [s -1 role] eq "master"} else {fail "no failover"}
            r -2 replicaof [srv -1 host] [srv -1 port]
            in_sync -1 {0 -2}
            r -2 replicaof no one
            foreach level {0 -1} {r $level replicaof [srv -2 host] [srv -2 port]}
            in_sync -2 {0 -1}

            # A partial and a full resynchronisation, with reloads in between and every certificate revoked.
            foreach level {0 -1 -2} {
                r $level config set tls-cert-file [lindex [r $level config get tls-cert-file] 1]
            }
            set partial [s -2 sync_partial_ok]
            r -2 client kill type replica
            wait_for_condition 400 50 {[s -2 sync_partial_ok] >= $partial + 2} else {fail "no partial sync"}
            in_sync -2 {0 -1}
            after 1100
            ocsp_responder_behave $responder {status revoked}
            foreach level {0 -1 -2} {
                r $level debug ocsp-refresh
                ocsp_wait_info state revoked $level
            }
            set full [s -2 sync_full]
            foreach level {0 -1} {
                r $level replicaof no one
                r $level debug change-repl-id
                r $level replicaof [srv -2 host] [srv -2 port]
            }
            in_sync -2 {0 -1}
            assert_morethan_equal [s -2 sync_full] [expr {$full + 2}]
            after 1100
            ocsp_responder_behave $responder good

            # One replica is killed and started again.
            restart_server -1 true false true sigkill
            r -1 replicaof [srv -2 host] [srv -2 port]
            in_sync -2 {0 -1}
            foreach level {0 -1 -2} {
                r $level debug ocsp-refresh
                assert_no_link_refused $level
            }
            assert_stapling {0 -1 -2}
        }
    }
}

# ---- a cluster of six ----

proc cluster_ok {levels nodes} {
    foreach level $levels {
        set info [r $level cluster info]
        if {[getInfoProperty $info cluster_state] ne "ok" || [getInfoProperty $info cluster_known_nodes] != $nodes} {
            return 0
        }
    }
    return 1
}

proc wait_for_cluster {levels nodes} {
    wait_for_condition 1200 50 {[cluster_ok $levels $nodes]} else {
        fail "no cluster: [lmap level $levels {r $level cluster info}]"
    }
}

foreach {form directives} [lrange $forms 0 3] {
    test "cluster: six nodes $form: forms, fails over, takes a killed node back (29.[incr number])" {
        set options [lmap name {a b c d e f} {
            node $name$number tls-cluster yes cluster-enabled yes cluster-node-timeout 3000 {*}$directives \
                {*}[io_threads]
        }]
        with_servers $options {
            set primaries {0 -1 -2}
            set replicas {-3 -4 -5}
            set all [concat $primaries $replicas]
            foreach level $primaries from {0 5461 10923} to {5460 10922 16383} {
                r $level cluster addslotsrange $from $to
            }
            foreach level [lrange $all 1 end] {r $level cluster meet 127.0.0.1 [srv 0 port]}
            wait_for_cluster $all 6
            foreach primary $primaries replica $replicas {
                # The replica must know its primary before it can follow it.
                wait_for_condition 400 50 {![catch {r $replica cluster replicate [r $primary cluster myid]} why]} else {
                    fail "CLUSTER REPLICATE fails: $why"
                }
            }
            foreach level $replicas {wait_for_sync [list r $level]}
            assert_stapling $all

            # A reload on each node: the cluster stays.
            foreach level $all {
                r $level config set tls-cert-file [lindex [r $level config get tls-cert-file] 1]
            }
            wait_for_cluster $all 6

            # The first primary is killed, and its replica takes over.
            server_may_die 0
            set dead [srv 0 dir]
            send_signal [srv 0 pid] KILL
            wait_exit $dead [srv 0 pid]
            wait_for_condition 1200 50 {[s -3 role] eq "master"} else {fail "the replica did not take over"}
            set rest [lrange $all 1 end]
            wait_for_cluster $rest 6
            assert_stapling $rest

            # The killed node is started again, and becomes a replica of the new primary.
            restart_server 0 true false true sigkill
            wait_for_condition 1200 50 {[s 0 role] eq "slave" && [s 0 master_link_status] eq "up"} else {
                fail "the restarted node does not replicate: [s 0 role] [s 0 master_link_status]"
            }
            wait_for_cluster $all 6

            # A planned failover makes it a primary again. The server gives up after five seconds, which may be too
            # short on a busy machine: repeat.
            for {set tries 0} {$tries < 10 && [s 0 role] ne "master"} {incr tries} {
                catch {r cluster failover}
                for {set i 0} {$i < 120 && [s 0 role] ne "master"} {incr i} {after 50}
            }
            wait_for_condition 1200 50 {[s 0 role] eq "master" && [s -3 role] eq "slave"} else {fail "no failover"}
            wait_for_cluster $all 6
            foreach level $all {assert_no_link_refused $level}
            assert_stapling $all
        }
    }
}
