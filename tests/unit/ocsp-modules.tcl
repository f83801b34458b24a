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

# Redis 7.0 reads its key, and listens, before it loads modules.
if {[regexp {Redis server v=7\.0} [exec $::server_binary --version]]} {
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
            wait_for_log_messages 0 [list "*stapling for the certificate with serial [dict get $leaf serial]*"] 0 100 50
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

# ---- a server that cannot be served ----

test {31.5 a server with an OpenSSL of its own: state no-tls, one line in the log, and nothing else happens} {
    set options [ocsp_server $leaf $ca]
    lappend options env [list LD_PRELOAD [ocsp_tool foreign_openssl]]
    start_server $options {
        set line {*cannot be seen*Build the patched server instead*}
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

ocsp_lab_close $lab
