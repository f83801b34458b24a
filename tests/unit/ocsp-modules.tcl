# ocsp-modules.tcl - other modules in the same server, loaded before and after this one, with TLS contexts of their own;
# servers for which the module cannot staple; CONFIG and DEBUG renamed; pipes in place of files (scenario 31).
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set theirs [ocsp_lab_leaf $lab theirs]

# Returns options for a server that loads support/other_module.c before or after this module.
proc with_other {place args} {
    set options [ocsp_server $::leaf $::ca {*}$args]
    set other [list [ocsp_tool other_module] [dict get $::theirs cert] [dict get $::theirs key]]
    if {$place eq "before"} {
        # A dict has one value per directive: this module's loadmodule moves to the lines at the end.
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
    test "other modules: one with TLS contexts, loaded $place this module: only the server's is stapled (31.1)" {
        start_server [with_other $place] {
            ocsp_wait_info state good
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            ocsp_assert_good $ca
            # Nor are contexts stapled that it makes later.
            for {set i 0} {$i < 20} {incr i} {
                assert_equal [r other.context] OK
                assert_equal [ocsp_staple] good
            }
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            # After a reload of the server's certificate, the new one is.
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

test {other modules: the same, with stapling turned on at run time (31.2)} {
    start_server [with_other after stapling no] {
        assert_equal [r other.context] OK
        ocsp_set stapling yes
        ocsp_wait_info state good
        assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
        ocsp_assert_good $ca
        assert_equal [ocsp_responder_count $responder -serial [dict get $theirs serial]] 0
    }
}

# Redis 7.0 reads its certificate and key, and listens, before it loads modules.
set modules_come_late [regexp {Redis server v=7\.0} [exec $::server_binary --version]]
if {$modules_come_late} {
    skip_test "start: a request is sent before the server listens (31.3)" "this server listens before it loads modules"
} else {
    test {start: a request is sent before the server listens, and the very first handshake is stapled (31.3)} {
        ocsp_responder_forget $responder
        # The server makes its TLS context before it listens, and waits there for its key, which is a pipe.
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
            # The context is not mistaken for a reload: there is no second request.
            ocsp_assert_good $ca
            assert_equal [ocsp_info refreshes] 1
            assert_equal [ocsp_responder_count $responder -serial [dict get $leaf serial]] 1
        }
    }
}

test {no-tls: loaded at run time, with the key's file gone, the module staples nothing (31.4)} {
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

# Makes a handshake with a status request at that port, and gives the server's main thread time to notice its context.
proc handshake_elsewhere {port} {
    catch {exec $::openssl s_client -connect 127.0.0.1:$port -status </dev/null 2>@1} text
    set shake [ocsp_read_handshake $text]
    assert_equal [dict get $shake ok] 1 "at the other module's port: $text"
    after 250
    r ping
    return $shake
}

# Asserts that the module fetches and staples a response for the server's own certificate `leaf`.
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
        test "other modules: handshakes at a listener of one, context made on $thread, $what certificate: the server's\
                own certificate is still stapled, through reloads and a revocation (31.7)" {
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
                # A reload of the same certificate, with handshakes before and after.
                ocsp_load_certificate $serving
                ocsp_wait_info state good
                handshake_elsewhere $before
                set between [r {*}$listen]
                set shake [handshake_elsewhere $between]
                # A listener with the server's own certificate may send its staple.
                assert_equal [dict get $shake staple] [expr {$what eq "own" ? "good" : "none"}]
                assert_follows $serving
                # A reload with another certificate.
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

# OpenSSL has locks of its own: with and without this module, about one such child in a thousand hangs in one of them.
test {other modules: the server forks while threads make and free contexts: no child hangs (31.8)} {
    start_server [with_other after stapling no] {
        assert_lessthan [r other.fork 30] 2
        assert_equal [r ping] PONG
    }
}

# ---- servers for which the module cannot staple ----

test {no-tls: a server with its own OpenSSL: one line in the log, and no effect (31.5)} {
    set options [ocsp_server $leaf $ca]
    lappend options env [list LD_PRELOAD [ocsp_tool foreign_openssl]]
    start_server $options {
        set line {*cannot be seen*linked statically, into */foreign_openssl.so. Build a patched server instead*}
        wait_for_log_messages 0 [list $line] 0 100 50
        assert_equal [ocsp_info state] no-tls
        ocsp_assert_staple none
        # Whatever is tried, it neither staples nor sends a request, and logs nothing more.
        ocsp_load_certificate $theirs
        ocsp_set stapling no
        ocsp_set stapling yes
        # First the command that waits: until the thread has seen the change, the other one cannot know of the failure.
        assert_error {*ERR*} {r ocsp.refresh}
        assert_error {*ERR*} {r debug ocsp-refresh}
        assert_equal [dict get [ocsp_handshake] serial] [dict get $theirs serial]
        assert_equal [ocsp_info state] no-tls
        assert_equal [llength [ocsp_log_lines 0 $line]] 1
        # Each time that verify-peers is turned on, INFO says that peers are not checked.
        for {set i 0} {$i < 2} {incr i} {
            assert_equal [ocsp_info last_peer_error] {}
            ocsp_set verify-peers require
            wait_for_condition 100 50 {[string match {*NOT checked*} [ocsp_info last_peer_error]]} else {
                fail "last_peer_error: [ocsp_info last_peer_error]"
            }
            ocsp_set verify-peers no
        }
    }
}

# Asserts that a server with another libssl than the module's starts, does not staple, and names both in its log.
proc assert_foreign_libssl {theirs ours environment} {
    set options [ocsp_server $::leaf $::ca]
    lappend options env $environment
    start_server $options {
        set number [string range $theirs [string length libssl.so.] end]
        set line "*cannot be seen*server uses */$theirs, and this module is linked to $ours.*depends on $theirs (Debian's\
            package is libssl$number)*"
        wait_for_log_messages 0 [list $line] 0 100 50
        assert_equal [ocsp_info state] no-tls
        ocsp_assert_staple none
        ocsp_load_certificate $::leaf
        ocsp_assert_staple none
        assert_equal [llength [ocsp_log_lines 0 $line]] 1
    }
}

# Returns the file name of the libssl that a program or library is linked to, or "".
proc libssl_of {file} {
    set name {}
    regexp {libssl\.so\.\S+} [exec ldd $file] name
    return $name
}

test {no-tls: a server that uses the libssl of another major version: the log names it and what to install} {
    set dir [ocsp_tmpdir libssl]
    ocsp_file_write $dir/versions "FOREIGN_99 { *; };\n"
    exec cc -shared -fPIC [file join $::ocsp_support_dir foreign_libssl.c] -o $dir/libssl.so.99 \
        -Wl,--version-script=$dir/versions
    assert_foreign_libssl libssl.so.99 [libssl_of $::ocsp_module_path] [list LD_PRELOAD $dir/libssl.so.99]
}

# In the matrix: a module built for OpenSSL 4, in a server that uses OpenSSL 3.
set server_libssl [libssl_of $server_binary]
set module_libssl [libssl_of $ocsp_module_path]
if {$server_libssl ni [list {} $module_libssl]} {
    test {no-tls: a server and a module that were built for different major versions of OpenSSL} {
        assert_foreign_libssl $::server_libssl $::module_libssl {}
    }
}

test {no-tls: a server whose TLS is not configured: the log says so (31.6)} {
    set options [ocsp_server $leaf $ca tls-port 0]
    lappend options omit {tls-cert-file tls-key-file tls-ca-cert-file}
    start_server $options {
        wait_for_log_messages 0 {{*TLS is not configured*}} 0 100 50
        assert_equal [ocsp_info state] no-tls
        assert_equal [llength [ocsp_log_lines 0 {*built without TLS*}]] 0
        # Configured later, it staples.
        r config set tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key] \
            tls-ca-cert-file [dict get $ca cert] tls-port [find_available_port]
        ocsp_wait_info state good
    }
}


# ---- settings that cannot be read ----

# A client certificate, which the server uses for the links that it opens.
set client_leaf [ocsp_lab_leaf $lab client]
set own_client [list tls-client-cert-file [dict get $client_leaf cert] tls-client-key-file [dict get $client_leaf key]]

proc wait_unchecked {why} {
    wait_for_condition 100 50 {[string match "*NOT checked*$why*" [ocsp_info last_peer_error]]} else {
        fail "last_peer_error: '[ocsp_info last_peer_error]'"
    }
}

test {CONFIG: disabled, module loaded at the start: the server's certificate is stapled, not its client's (31.9)} {
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
        # The module cannot know whether DEBUG is enabled: the log names the command to use instead.
        assert_equal [llength [ocsp_log_lines 0 {*DEBUG OCSP-REFRESH is not available*OCSP.REFRESH*}]] 1
        assert_error {*ERR*} {r debug ocsp-refresh}
        assert_equal [llength [ocsp_log_lines 0 {*NOT checked*}]] $modules_come_late
    }
}

test {CONFIG: renamed, module loaded at run time: a warning, and INFO, say that no link is checked (31.10)} {
    set options [ocsp_server $leaf $ca tls-replication yes rename-command {CONFIG S3CRET}]
    dict lappend options omit loadmodule [ocsp_directive stapling]
    start_server [ocsp_server $theirs $ca stapling no] {
        start_server $options {
            r module loadex $::ocsp_module_path CONFIG ocsp.verify-peers require
            wait_unchecked CONFIG
            assert_equal [llength [ocsp_log_lines 0 {*NOT checked*CONFIG*}]] 1
            # Again each time that the check is turned on.
            r s3cret set ocsp.verify-peers no
            assert_equal [ocsp_info last_peer_error] {}
            r s3cret set ocsp.verify-peers soft
            wait_unchecked CONFIG
            # An operator who knows the new name can reload the certificate.
            r s3cret set ocsp.verify-peers require
            r s3cret set ocsp.stapling yes
            wait_for_log_messages 0 {{*nothing is stapled*CONFIG*}} 0 100 50
            r s3cret set tls-cert-file [dict get $leaf cert]
            ocsp_wait_staple good
            ocsp_wait_info last_peer_error {}
            assert_equal [ocsp_info cert_serial] [dict get $leaf serial]
            # From now on links are checked: this primary has no staple.
            r replicaof 127.0.0.1 [srv -1 port]
            ocsp_wait_above peers_rejected 0
            assert_equal [s master_link_status] down
        }
    }
}

test {DEBUG: disabled or renamed: OCSP.REFRESH needs the right to OCSP.REFRESH alone (31.11)} {
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

# ---- pipes in place of files ----

# Returns options for a server with the certificate `leaf` whose setting `name` is a pipe, `pipe`.
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

# Whether the process has the file open.
proc has_open {pid path} {
    foreach fd [glob -nocomplain -directory /proc/$pid/fd *] {
        if {![catch {file readlink $fd} target] && $target eq $path} {return 1}
    }
    return 0
}

# Writes `cert` to the pipe each time that it is opened for reading, at most `times` times, until the server is ready.
# Returns how many times it was opened.
proc feed {pipe cert times} {
    set fed 0
    set server [lindex $::servers end]
    for {set i 0} {$i < 400} {incr i} {
        if {[regexp {Ready to accept connections} [ocsp_file_read [dict get $server stdout]]]} {return $fed}
        # Opening a pipe for writing fails if nobody reads from it. While the server has not closed it yet, it would
        # succeed a second time for the same reader.
        if {$fed < $times && ![has_open [dict get $server pid] $pipe]
                && ![catch {open $pipe {WRONLY NONBLOCK}} channel]} {
            puts -nonewline $channel [ocsp_file_read $cert]
            close $channel
            incr fed
        }
        after 50
    }
    fail "the server hangs, after it has read from the pipe $fed times"
}

foreach {name file} [list tls-cert-file [dict get $leaf cert] tls-client-cert-file [dict get $client_leaf cert]] {
    test "pipe: $name is a named pipe: neither the module nor the server reads it once more (31.12)" {
        set pipe [file join $dir pipe.$name]
        set off [with_pipe $leaf $name $pipe stapling no]
        # How many times a server without the module reads it.
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
