# ocsp-nodes.tcl - ocsp-probe --all-nodes against a real cluster, primaries with replicas, and Sentinels: each node is
# found and probed once, and the exit status is the worst (scenario 37).
#
# Weight: 40
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
array set leaves {}
foreach name {a b c d} {set leaves($name) [ocsp_lab_leaf $lab $name]}

# Returns options for a node with its own certificate.
proc node {name args} {
    set options [ocsp_server $::leaves($name) $::ca tls-replication yes {*}$args]
    dict set options omit {}
    return $options
}

proc port {level} {srv $level port}

# Runs the probe and returns {exit-status lines}, with each line cut after the status: "127.0.0.1:7000: good".
proc nodes {args} {
    lassign [ocsp_probe $::ca --all-nodes {*}$args] status text
    set lines [lmap line [split [string trimright $text] \n] {
        if {[string match {child process exited*} $line]} continue
        regsub {^(\S+: [a-z]+)( \(warning\))?: .*$} $line {\1}
    }]
    return [list $status $lines]
}

# Returns the lines that are expected: pairs of a level or a name, and a status; the first node first, the others by port.
proc expected {args} {
    set lines {}
    foreach {node status} $args {
        lappend lines "[expr {[string is integer $node] ? "127.0.0.1:[port $node]" : $node}]: $status"
    }
    return [list [lindex $lines 0] {*}[lsort -dictionary [lrange $lines 1 end]]]
}

# ---- a cluster ----

start_server [node a tls-cluster yes cluster-enabled yes] {
start_server [node b tls-cluster yes cluster-enabled yes] {
start_server [node c tls-cluster yes cluster-enabled yes] {
start_server [node d tls-cluster yes cluster-enabled yes] {
    set all {0 -1 -2 -3}

    test {all-nodes: a cluster of three primaries and a replica: one line a node, the worst status (37.1)} {
        foreach level {0 -1 -2} from {0 5461 10923} to {5460 10922 16383} {r $level cluster addslotsrange $from $to}
        foreach level {-1 -2 -3} {r $level cluster meet 127.0.0.1 [port 0]}
        wait_for_condition 1200 50 {
            [lsort -unique [lmap level $all {getInfoProperty [r $level cluster info] cluster_known_nodes}]] eq 4
            && [lsort -unique [lmap level $all {getInfoProperty [r $level cluster info] cluster_state}]] eq {ok}
        } else {fail "no cluster: [lmap level $all {r $level cluster info}]"}
        wait_for_condition 400 50 {![catch {r -3 cluster replicate [r 0 cluster myid]} why]} else {fail $why}
        wait_for_sync {r -3}
        foreach level $all {ocsp_wait_info state good $level}
        # CLUSTER SHARDS of another node has the replica once gossip has told it.
        foreach level $all {
            wait_for_condition 400 50 {
                [regexp -all {tls-port} [r $level cluster shards]] == 4
            } else {fail "[r $level cluster shards]"}
            assert_equal [nodes 127.0.0.1:[port $level]] [list 0 [expected $level good {*}[concat {*}[lmap other $all {
                if {$other == $level} continue
                list $other good
            }]]]]
        }
    }

    test {all-nodes: a node by another name, or given twice, is one line (37.2)} {
        lassign [nodes localhost:[port 0] 127.0.0.1:[port 0] 127.0.0.1:[port -1]] status lines
        assert_equal $status 0
        assert_equal $lines [list "localhost:[port 0]: good" "127.0.0.1:[port -1]: good" \
            {*}[lrange [expected -1 good -2 good -3 good] 1 end]]
    }

    test {all-nodes: hostnames, and nodes without an endpoint of their own (37.3)} {
        foreach level $all {
            r $level config set cluster-announce-hostname localhost
            r $level config set cluster-preferred-endpoint-type hostname
        }
        wait_for_condition 400 50 {[regexp -all {endpoint localhost} [r cluster shards]] == 4} else {fail "no hostnames"}
        assert_equal [nodes localhost:[port 0]] [list 0 [concat [list "localhost:[port 0]: good"] [lsort -dictionary [lmap level {
            -1 -2 -3} {set _ "localhost:[port $level]: good"}]]]]
        foreach level $all {r $level config set cluster-preferred-endpoint-type unknown-endpoint}
        assert_equal [lindex [nodes 127.0.0.1:[port 0]] 1] [expected 0 good -1 good -2 good -3 good]
        foreach level $all {r $level config set cluster-preferred-endpoint-type ip}
    }

    test {all-nodes: the worst of good, no staple, revoked, unreachable; JSON and metrics have each node (37.4)} {
        ocsp_pass_this_update -2
        ocsp_responder_behave $responder {status revoked}
        ocsp_refresh -2
        ocsp_responder_behave $responder good
        assert_equal [nodes 127.0.0.1:[port 0]] [list 2 [expected 0 good -1 good -2 revoked -3 good]]
        ocsp_set stapling no -1
        assert_equal [nodes 127.0.0.1:[port 0]] [list 2 [expected 0 good -1 none -2 revoked -3 good]]

        lassign [ocsp_probe $ca --all-nodes --json 127.0.0.1:[port 0]] status text
        foreach {level what} {0 good -1 none -2 revoked -3 good} {
            assert_match "*\{\"target\": \"127.0.0.1:[port $level]\", \"status\": \"$what\"*" $text
        }
        assert_equal [regexp -all {"nodes": 4} $text] 1
        lassign [ocsp_probe $ca --all-nodes --prometheus 127.0.0.1:[port 0]] status text
        assert_equal [regexp -all {\nocsp_probe_up\{target="[^"]*"\} 1} $text] 4
        assert_match "*\nocsp_probe_revoked{target=\"127.0.0.1:[port -2]\"} 1\n*" $text
        assert_match "*\nocsp_probe_nodes_known{target=\"127.0.0.1:[port 0]\"} 1\n*" $text
        assert_equal [regexp -all {ocsp_probe_nodes_known\{} $text] 1

        # A dead node is a line, not the end; critical is worse than unknown, and unknown worse than good.
        send_signal [srv -3 pid] TERM
        wait_exit [srv -3 dir] [srv -3 pid]
        assert_equal [nodes 127.0.0.1:[port 0]] [list 2 [expected 0 good -1 none -2 revoked -3 unreachable]]
        ocsp_set stapling yes -1
        ocsp_refresh -2
        wait_for_condition 200 50 {[nodes 127.0.0.1:[port 0]] eq
            [list 3 [expected 0 good -1 good -2 good -3 unreachable]]} else {fail [nodes 127.0.0.1:[port 0]]}
        # The server that is asked is the dead one: its nodes are unknown.
        assert_equal [nodes 127.0.0.1:[port -3]] [list 3 [expected -3 unreachable]]
        lassign [ocsp_probe $ca --all-nodes --prometheus 127.0.0.1:[port -3]] status text
        assert_match "*\nocsp_probe_nodes_known{target=\"127.0.0.1:[port -3]\"} 0\n*" $text
    }
}
}
}
}

# ---- a primary and its replicas, with passwords ----

start_server [node a] {
start_server [node b] {
start_server [node c] {
    test {all-nodes: a primary, its replica, and that one's replica, from each of them (37.5)} {
        r -1 replicaof 127.0.0.1 [port 0]
        wait_for_sync {r -1}
        r -2 replicaof 127.0.0.1 [port -1]
        wait_for_sync {r -2}
        wait_for_condition 200 50 {[s 0 connected_slaves] == 1 && [s -1 connected_slaves] == 1} else {fail "no replicas"}
        foreach level {0 -1 -2} {ocsp_wait_info state good $level}
        foreach {one two three} {0 -1 -2 -1 0 -2 -2 0 -1} {
            assert_equal [nodes 127.0.0.1:[port $one]] [list 0 [expected $one good $two good $three good]]
        }
    }

    test {all-nodes: the password of the environment or a file, and what an ACL must allow (37.6)} {
        foreach level {0 -1 -2} {
            r $level acl setuser monitor reset on >secret +info
            r $level acl setuser default resetpass >other
        }
        set ::env(REDISCLI_AUTH) wrong
        set file [file join $dir password]
        set channel [open $file w]
        puts $channel secret
        close $channel
        set good [expected 0 good -1 good -2 good]
        # Without a password that is right, the server's own line, which says why there are no others.
        lassign [ocsp_probe $ca --all-nodes --user monitor 127.0.0.1:[port 0]] status text
        assert_equal $status 3
        assert_match {127.0.0.1:*: good: valid for * all of its nodes are unknown: AUTH was refused: WRONGPASS*} $text
        assert_equal [nodes --user monitor --password-file $file 127.0.0.1:[port 0]] [list 0 $good]
        set ::env(VALKEYCLI_AUTH) secret ;# comes first
        assert_equal [nodes --user monitor 127.0.0.1:[port 0]] [list 0 $good]
        unset ::env(VALKEYCLI_AUTH)
        set ::env(REDISCLI_AUTH) other
        assert_equal [nodes 127.0.0.1:[port 0]] [list 0 $good]
        unset ::env(REDISCLI_AUTH)
        lassign [ocsp_probe $ca --all-nodes 127.0.0.1:[port 0]] status text
        assert_match {*good: *all of its nodes are unknown: INFO was refused: NOAUTH *} $text
        assert_equal [lindex [ocsp_probe $ca --all-nodes --password-file /nowhere 127.0.0.1:[port 0]] 0] 3
        assert_equal [lindex [ocsp_probe $ca --user monitor 127.0.0.1:[port 0]] 0] 3 ;# requires --all-nodes
    }

    test {all-nodes: no password goes to a server whose certificate does not verify or is revoked (37.7)} {
        set ::env(REDISCLI_AUTH) other
        set stranger [ocsp_pki_ca $dir stranger]
        set count [getInfoProperty [r info commandstats] cmdstat_auth]
        lassign [ocsp_probe $stranger --all-nodes 127.0.0.1:[port 0]] status text
        assert_equal $status 2
        assert_match {*no password is sent to a server whose certificate does not verify*} $text
        ocsp_pass_this_update
        ocsp_responder_behave $responder {status revoked}
        ocsp_refresh
        lassign [ocsp_probe $ca --all-nodes 127.0.0.1:[port 0]] status text
        assert_equal $status 2
        assert_match {*: revoked: *no password is sent to a server whose certificate is revoked*} $text
        assert_equal [getInfoProperty [r info commandstats] cmdstat_auth] $count
        unset ::env(REDISCLI_AUTH)
        ocsp_responder_behave $responder good
        foreach level {0 -1 -2} {r $level acl setuser default nopass}
    }

    # ---- Sentinels: without the module, and so without a staple ----

    # Starts a Sentinel and returns its TLS port.
    proc sentinel {name primary_port} {
        set dir [tmpdir sentinel-$name]
        set leaf $::leaves($name)
        set port [find_available_port]
        set channel [open $dir/sentinel.conf w]
        puts $channel [join [list "port 0" "tls-port $port" "bind 127.0.0.1" "dir $dir" "tls-replication yes" \
            "tls-auth-clients no" "tls-cert-file [dict get $leaf cert]" "tls-key-file [dict get $leaf key]" \
            "tls-ca-cert-file [dict get $::ca cert]" "sentinel monitor main 127.0.0.1 $primary_port 2"] \n]
        close $channel
        lappend ::sentinels [start_process $dir [list $::server_binary $dir/sentinel.conf --sentinel]] $dir
        return $port
    }

    test {all-nodes: a Sentinel names primary, replicas and the other Sentinels (37.8)} {
        set sentinels {}
        r -2 replicaof 127.0.0.1 [port 0]
        wait_for_sync {r -2}
        wait_for_condition 200 50 {[s 0 connected_slaves] == 2} else {fail "no replicas"}
        ocsp_pass_this_update
        ocsp_refresh
        set one [sentinel d [port 0]]
        set two [sentinel c [port 0]]
        set lines [concat [list "127.0.0.1:$one: none"] [lsort -dictionary [list "127.0.0.1:$two: none" \
            {*}[expected 0 good -1 good -2 good]]]]
        wait_for_condition 100 500 {[set found [nodes 127.0.0.1:$one]] eq [list 2 $lines]} else {
            fail "found $found, not $lines"
        }
        foreach {pid sentinel_dir} $sentinels {
            send_signal $pid TERM
            wait_exit $sentinel_dir $pid
            report gone $pid
        }
    }
}
}
}

# ---- the terminal ----

set terminal_test {all-nodes: progress on a terminal in a run that takes long, and only there (37.9)}
if {[catch {exec script -qec true /dev/null </dev/null} why] && [string match *pseudo-terminal* $why]} {
    skip_test $terminal_test "there are no pseudo-terminals here"
} else {
    test $terminal_test {
        set port [find_available_port]
        set hole [open |[list [ocsp_tool black_hole] 127.0.0.1 $port] r+]
        gets $hole
        set command "[ocsp_probe_path] --all-nodes --timeout 2 127.0.0.1:$port 127.0.0.1:1"
        catch {exec script -qec $command /dev/null </dev/null} text
        assert_match "*ocsp-probe: 2 of 2: 127.0.0.1:1\x1b\\\[K\[\r\n]\x1b\\\[K127.0.0.1:$port: unreachable*" $text
        catch {exec script -qec "$command --quiet" /dev/null </dev/null} text
        assert_no_match {*2 of 2*} $text
        catch {exec {*}$command 2>@1} text
        assert_no_match {*2 of 2*} $text
        close $hole
    } undefined {needs:script}
}
