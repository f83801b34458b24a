# ocsp-modules.tcl - scenario 31: other modules in the same server, before us and after us, also ones that speak TLS for
# themselves; and servers that the module cannot serve.
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lab [ocsp_lab]
set dir [dict get $lab dir]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]
set theirs [ocsp_lab_leaf $lab theirs]

# Options for a server that loads the other module at that place.
proc with_other {place args} {
    set options [ocsp_server $::leaf $::ca {*}$args]
    set other [list [ocsp_tool other_module] [dict get $::theirs cert] [dict get $::theirs key]]
    if {$place eq "before"} {
        # A directive of this name holds one value in a dict: ours moves to the lines at the end.
        set overrides [dict get $options overrides]
        dict set overrides loadmodule $other
        dict set options overrides $overrides
        dict set options config_lines [list loadmodule $::ocsp_module_path]
    } else {
        dict set options config_lines [list loadmodule $other]
    }
    return $options
}

foreach place {before after} {
    test "31.1 loadmodule $place us, of a module with TLS contexts of its own: only the server's is stapled for" {
        start_server [with_other $place] {
            ocsp_wait_info state good
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            ocsp_assert_good $ca
            # Contexts that it makes later are none of ours either.
            for {set i 0} {$i < 20} {incr i} {
                assert_equal [r other.context] OK
                assert_equal [ocsp_staple] good
            }
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            # The server's own reload is.
            set renewed [ocsp_lab_leaf $lab renewed$place]
            ocsp_load_certificate $renewed
            assert_equal [r other.context] OK
            ocsp_wait_info cert_serial [dict get $renewed serial]
            ocsp_wait_staple good
            ocsp_assert_good $ca
            assert_equal [ocsp_responder_count $responder -serial [dict get $theirs serial]] 0
        }
    }
}

test {31.2 the same, turned on at run time} {
    start_server [with_other after stapling no] {
        assert_equal [r other.context] OK
        ocsp_set stapling yes
        ocsp_wait_info state good
        assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
        ocsp_assert_good $ca
        assert_equal [ocsp_responder_count $responder -serial [dict get $theirs serial]] 0
    }
}

# Redis 7.0 reads its certificate and its key, and listens, before it loads modules.
set modules_come_late [regexp {Redis server v=7\.0} [exec $::server_binary --version]]
if {$modules_come_late} {
    skip_test "31.3 the responder is asked before the server listens" "this server listens before it loads modules"
} else {
    test {31.3 the responder is asked before the server listens, and the very first handshake of all is stapled} {
        ocsp_responder_forget $responder
        # The server waits for its key in the middle of making its context, before it listens.
        set key [file join $dir key]
        exec mkfifo $key
        set options [ocsp_server $leaf $ca]
        dict set options wait_ready 0
        set overrides [dict get $options overrides]
        dict set overrides tls-key-file $key
        dict set options overrides $overrides
        start_server $options {
            ocsp_responder_wait $responder 1 -serial [dict get $leaf serial]
            wait_for_log_messages 0 [list "*certificate [dict get $leaf serial]: stapling a response*"] 0 100 50
            assert_equal [ocsp_log_lines 0 {*Ready to accept*}] {}
            assert_error {*refused*} {close [socket 127.0.0.1 [srv port]]}
            exec cp [dict get $leaf key] $key
            assert_equal [wait_ready [lindex $::servers end] 0] ready
            assert_equal [ocsp_staple] good
            reconnect
            assert_equal [ocsp_info handshakes_unstapled] 0
            # That the context came is no reload: it was not asked again.
            ocsp_assert_good $ca
            assert_equal [ocsp_info refreshes] 1
            assert_equal [ocsp_responder_count $responder -serial [dict get $leaf serial]] 1
        }
    }
}

test {31.4 a certificate that a run-time load finds, and a key that is gone: no-tls, as nothing is stapled} {
    set key [file join $dir gone.key]
    file copy -force [dict get $leaf key] $key
    set options [ocsp_server $leaf $ca]
    set overrides [dict get $options overrides]
    foreach name {loadmodule ocsp.stapling} {dict unset overrides $name}
    dict set overrides tls-key-file $key
    dict set options overrides $overrides
    start_server $options {
        file delete $key
        r module loadex $::ocsp_module_path CONFIG ocsp.stapling yes
        wait_for_log_messages 0 {{*does not load its tls-cert-file again*}} 0 100 50
        ocsp_wait_info state no-tls
        ocsp_assert_staple none
    }
}

# ---- another module's listener ----

# A handshake there that asks for a status, and the server's main thread given the occasion to take something from it.
proc handshake_elsewhere {port} {
    catch {exec $::openssl s_client -connect 127.0.0.1:$port -status </dev/null 2>@1} text
    set shake [ocsp_read_handshake $text]
    assert_equal [dict get $shake ok] 1 "at the other module's port: $text"
    after 250
    r ping
    return $shake
}

# The server's own certificate `leaf` is followed, asked for and stapled.
proc assert_follows {leaf} {
    assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
    assert_equal [ocsp_info state] good
    assert_equal [r ocsp.refresh] OK
    assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
    ocsp_assert_staple good
}

# A certificate of a CA that this server does not know.
set stranger [ocsp_pki_leaf [ocsp_pki_ca $dir elsewhere] stranger -aia [dict get $lab urls]]

foreach thread {main thread} {
    foreach what {own known stranger} {
        test "31.7 handshakes at another module's listener, context made on $thread, $what certificate: the server's\
                is followed as before, through reloads, and its revocation is seen" {
            ocsp_responder_behave $responder good
            set serving [ocsp_lab_leaf $lab serving$thread$what]
            set next [ocsp_lab_leaf $lab next$thread$what]
            start_server [with_other after retry-delay 3600] {
                r config set tls-cert-file [dict get $serving cert] tls-key-file [dict get $serving key]
                ocsp_wait_info cert_serial [dict get $serving serial]
                ocsp_wait_info state good
                set foreign [dict get [dict create own $serving known $theirs stranger $stranger] $what]
                set listen [list other.listen $thread [dict get $foreign cert] [dict get $foreign key]]
                set before [r {*}$listen]
                handshake_elsewhere $before
                assert_follows $serving
                # Between reloads, also of the same certificate.
                ocsp_load_certificate $serving
                ocsp_wait_info state good
                handshake_elsewhere $before
                set between [r {*}$listen]
                set shake [handshake_elsewhere $between]
                # A staple is the certificate's: who shows the server's own may show its staple.
                assert_equal [dict get $shake staple] [expr {$what eq "own" ? "good" : "none"}]
                assert_follows $serving
                # And after one that brings another certificate.
                ocsp_load_certificate $next
                ocsp_wait_info cert_serial [dict get $next serial]
                ocsp_wait_info state good
                foreach port [list $before $between [r {*}$listen]] {
                    handshake_elsewhere $port
                    assert_follows $next
                }
                ocsp_responder_behave $responder [list for [list [dict get $next serial] {status revoked}]]
                after 1100
                r debug ocsp-refresh
                ocsp_wait_info state revoked
                assert_equal [ocsp_info cert_serial] [dict get $next serial]
                foreach known [list $theirs $stranger] {
                    assert_equal [ocsp_responder_count $responder -serial [dict get $known serial]] 0
                }
                ocsp_responder_behave $responder good
            }
        }
    }
}

# OpenSSL has locks of its own, and about one such child in a thousand hangs in those, with and without us.
test {31.8 the server forks while other threads make and free contexts: no child hangs in one that it frees} {
    start_server [with_other after stapling no] {
        assert_lessthan [r other.fork 30] 2
        assert_equal [r ping] PONG
    }
}

# ---- a server that cannot be served ----

test {31.5 a server with an OpenSSL of its own: state no-tls, one line in the log, and nothing else happens} {
    set options [ocsp_server $leaf $ca]
    lappend options env [list LD_PRELOAD [ocsp_tool foreign_openssl]]
    start_server $options {
        set line {*cannot be seen*Build a patched server instead*}
        wait_for_log_messages 0 [list $line] 0 100 50
        assert_equal [ocsp_info state] no-tls
        ocsp_assert_staple none
        # Whatever is tried: it neither staples nor asks, and says no more.
        ocsp_load_certificate $theirs
        ocsp_set stapling no
        ocsp_set stapling yes
        # The one that waits first: until the thread has seen the change, the other cannot know that it is in vain.
        assert_error {*ERR*} {r ocsp.refresh}
        assert_error {*ERR*} {r debug ocsp-refresh}
        assert_equal [dict get [ocsp_handshake] serial] [dict get $theirs serial]
        assert_equal [ocsp_info state] no-tls
        assert_equal [llength [ocsp_log_lines 0 $line]] 1
        # A check of peers that does not happen is told whenever it is turned on.
        for {set i 0} {$i < 2} {incr i} {
            assert_equal [ocsp_info last_peer_error] {}
            ocsp_set verify-peers require
            wait_for_condition 100 50 {[string match {*NOT checked*} [ocsp_info last_peer_error]]} else {
                fail "not told: [ocsp_info last_peer_error]"
            }
            ocsp_set verify-peers no
        }
    }
}

test {31.6 a server that has TLS and does not use it: state no-tls, and a line that says which} {
    set options [ocsp_server $leaf $ca tls-port 0]
    lappend options omit {tls-cert-file tls-key-file tls-ca-cert-file}
    start_server $options {
        wait_for_log_messages 0 {{*TLS is not configured*}} 0 100 50
        assert_equal [ocsp_info state] no-tls
        assert_equal [llength [ocsp_log_lines 0 {*built without TLS*}]] 0
        # Configured later, it is served.
        r config set tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key] \
            tls-ca-cert-file [dict get $ca cert] tls-port [find_available_port]
        ocsp_wait_info state good
    }
}


# ---- settings that cannot be read -----

# A certificate of its own for the links that the server opens.
set client_leaf [ocsp_lab_leaf $lab client]
set own_client [list tls-client-cert-file [dict get $client_leaf cert] tls-client-key-file [dict get $client_leaf key]]

proc wait_unchecked {why} {
    wait_for_condition 100 50 {[string match "*NOT checked*$why*" [ocsp_info last_peer_error]]} else {
        fail "not told: '[ocsp_info last_peer_error]'"
    }
}

test {31.9 CONFIG is disabled, loaded at the start: the certificate that serves is followed, not that for links} {
    set options [ocsp_server $leaf $ca {*}$own_client rename-command {CONFIG ""} verify-peers require]
    dict set options omit {}
    ocsp_responder_forget $responder
    start_server $options {
        if {$modules_come_late} {
            wait_unchecked CONFIG
            assert_equal [ocsp_info state] no-tls
            assert_equal [llength [ocsp_log_lines 0 {*nothing is stapled*CONFIG*}]] 1
        } else {
            wait_for_log_messages 0 {{*stapling begins after the first handshake*CONFIG*}} 0 100 50
            ocsp_wait_staple good
            ocsp_wait_info state good
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            assert_equal [ocsp_info last_peer_error] {}
            ocsp_assert_good $ca
            assert_equal [r ocsp.refresh] OK
        }
        assert_equal [ocsp_responder_count $responder -serial [dict get $client_leaf serial]] 0
        # Whether DEBUG is enabled cannot be known: what takes its place is told.
        assert_equal [llength [ocsp_log_lines 0 {*DEBUG OCSP-REFRESH is not available*OCSP.REFRESH*}]] 1
        assert_error {*ERR*} {r debug ocsp-refresh}
        assert_equal [llength [ocsp_log_lines 0 {*NOT checked*}]] $modules_come_late
    }
}

test {31.10 CONFIG is renamed, loaded at run time: that no link is checked is a warning, and in INFO} {
    set options [ocsp_server $leaf $ca tls-replication yes rename-command {CONFIG S3CRET}]
    dict lappend options omit loadmodule [ocsp_directive stapling]
    start_server [ocsp_server $theirs $ca stapling no] {
        start_server $options {
            r module loadex $::ocsp_module_path CONFIG ocsp.verify-peers require
            wait_unchecked CONFIG
            assert_equal [llength [ocsp_log_lines 0 {*NOT checked*CONFIG*}]] 1
            # Each time that the check is turned on.
            r s3cret set ocsp.verify-peers no
            assert_equal [ocsp_info last_peer_error] {}
            r s3cret set ocsp.verify-peers soft
            wait_unchecked CONFIG
            # Who knows the new name may have the server make its context anew.
            r s3cret set ocsp.verify-peers require
            r s3cret set ocsp.stapling yes
            wait_for_log_messages 0 {{*nothing is stapled*CONFIG*}} 0 100 50
            r s3cret set tls-cert-file [dict get $leaf cert]
            ocsp_wait_staple good
            ocsp_wait_info last_peer_error {}
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            # From here on they are checked: this one staples nothing.
            r replicaof 127.0.0.1 [srv -1 port]
            ocsp_wait_above peers_rejected 0
            assert_equal [s master_link_status] down
        }
    }
}

test {31.11 DEBUG is disabled or renamed: OCSP.REFRESH is for those who may run it} {
    foreach name {{""} HIDDEN} {
        start_server [ocsp_server $leaf $ca rename-command "DEBUG $name"] {
            ocsp_wait_info state good
            assert_equal [r ocsp.refresh] OK
            assert_error {*unknown*debug*} {r debug ocsp-refresh}
            r acl setuser bob on >secret ~* &* +@all -ocsp.refresh
            r acl setuser carol on >secret ~* &* -@all +ocsp.refresh
            foreach {user may} {bob 0 carol 1} {
                set client [valkey_client]
                $client auth $user secret
                if {$may} {
                    assert_equal [$client ocsp.refresh] OK
                } else {
                    assert_error {*NOPERM*} {$client ocsp.refresh}
                }
                $client close
            }
        }
    }
}

# ---- files that are none ----

# Options for a server that reads `leaf` through a pipe at `pipe`, in the setting `name`.
proc with_pipe {leaf name pipe args} {
    set options [ocsp_server $leaf $::ca {*}$args]
    set overrides [dict get $options overrides]
    dict set overrides $name $pipe
    if {$name eq "tls-client-cert-file"} {
        dict set overrides tls-client-key-file [dict get $::client_leaf key]
        dict set options omit {}
    }
    dict set options overrides $overrides
    dict set options wait_ready 0
    file delete $pipe
    exec mkfifo $pipe
    return $options
}

# Writes `cert` into the pipe, each time that somebody opens it, at most `times` times, until the server is ready.
# Returns how often.
proc feed {pipe cert times} {
    set fed 0
    set server [lindex $::servers end]
    for {set i 0} {$i < 400} {incr i} {
        if {[regexp {Ready to accept connections} [ocsp_file_read [dict get $server stdout]]]} {return $fed}
        # Opening it without a reader fails at once.
        if {$fed < $times && ![catch {open $pipe {WRONLY NONBLOCK}} channel]} {
            puts -nonewline $channel [ocsp_file_read $cert]
            close $channel
            incr fed
        }
        after 50
    }
    fail "the server hangs, after its pipe was filled $fed times"
}

foreach {name file} [list tls-cert-file [dict get $leaf cert] tls-client-cert-file [dict get $client_leaf cert]] {
    test "31.12 $name is a named pipe: we never read from it, nor have the server read it again" {
        set pipe [file join $dir pipe.$name]
        set off [with_pipe $leaf $name $pipe stapling no]
        # As often as a server without us reads it.
        set without $off
        dict lappend without omit loadmodule [ocsp_directive stapling]
        start_server $without {set times [feed $pipe $file 100]}
        foreach {stapling peers} {no no yes no no require yes require} {
            start_server [with_pipe $leaf $name $pipe stapling $stapling verify-peers $peers] {
                feed $pipe $file $times
                assert_equal [wait_ready [lindex $::servers end] 0] ready
                reconnect
                assert_equal [dict get [ocsp_handshake] serial] [dict get $leaf serial]
                # Turned on and off at run time.
                ocsp_set stapling yes
                if {$name eq "tls-cert-file" && $modules_come_late} {
                    wait_for_log_messages 0 {{*nothing is stapled*tls-cert-file is not a regular file*}} 0 100 50
                } elseif {$modules_come_late} {
                    wait_for_log_messages 0 {{*tls-client-cert-file is not a regular file*}} 0 100 50
                } else {
                    ocsp_wait_staple good
                    assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
                    assert_equal [ocsp_info last_peer_error] {}
                }
                ocsp_set stapling $stapling
                assert_equal [r ping] PONG
            }
        }
    }
}

ocsp_lab_close $lab
