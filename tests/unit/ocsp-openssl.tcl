# ocsp-openssl.tcl - the core scenarios with `openssl ocsp` as the responder.
#
# utils/openssl-responder.tcl puts it behind HTTP on loopback. The CA's database is an index.txt as `openssl ca` keeps
# it, and certificates are made with the command line that the demo uses. These tests find errors that the mock
# responder and the engine have in common.
#
# Weight: 16
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set pki [file join $::project_dir utils ocsp-pki.tcl]
set tclsh [info nameofexecutable]

# Starts a responder for the CA in `dir`; returns {work-directory pid url}.
proc real_responder {dir {port 0}} {
    set work [tmpdir responder]
    set script [file join $::project_dir utils openssl-responder.tcl]
    set pid [start_process $work [list $::tclsh $script $dir --port $port]]
    wait_for_condition 200 50 {[regexp {http://127\.0\.0\.1:\d+/} [read_text $work/stdout] url]} else {
        fail "the responder printed no URL: [read_text $work/stderr]"
    }
    return [list $work $pid $url]
}

proc end_responder {responder} {
    lassign $responder work pid
    send_signal $pid TERM
    wait_exit $work $pid
    report gone $pid
}

# Handles, as the procs of ocsp_util.tcl take them, for the files of `ocsp-pki.tcl demo`.
proc demo_leaf {dir name} {dict create dir $dir cert $dir/$name.crt key $dir/$name.key}
proc demo_ca {dir} {dict create dir $dir cert $dir/ca.crt}

foreach {kind options} {{ECDSA} {--key ec} {RSA} {--key rsa} {must-staple} {--must-staple}} {
    set dir [file join [ocsp_tmpdir openssl] pki]
    set responder [real_responder $dir]
    set url [lindex $responder 2]
    exec $tclsh $pki demo $dir --url $url {*}$options
    set leaf [demo_leaf $dir server]
    set ca [demo_ca $dir]

    start_server [ocsp_server $leaf $ca retry-delay 1] {
        ocsp_wait_info state good

        test "openssl ocsp: $kind: fetched and stapled (4)" {
            ocsp_assert_good $ca
            assert_equal [ocsp_info responder_url] $url
            assert_equal [ocsp_info must_staple] [expr {$kind eq "must-staple"}]
        }

        test "openssl ocsp: $kind: refreshed (19)" {
            set this_update [ocsp_info this_update]
            ocsp_pass_this_update
            assert_equal [r ocsp.refresh] OK
            assert_morethan [ocsp_info this_update] $this_update
            ocsp_assert_good $ca
        }

        test "openssl ocsp: $kind: revoked, and the hold lifted" {
            after 1100
            exec $tclsh $pki revoke $dir server --reason certificateHold
            assert_equal [r ocsp.refresh] OK
            assert_equal [ocsp_info state] revoked
            ocsp_assert_staple revoked
            assert_match {*hold*} [string tolower [dict get [ocsp_handshake] reason]]
            ocsp_assert_refused $ca
            after 1100
            exec $tclsh $pki restore $dir server
            assert_equal [r ocsp.refresh] OK
            assert_equal [ocsp_info state] good
            ocsp_assert_good $ca
        }

        test "openssl ocsp: $kind: responder down, restart from the cache, responder back (15)" {
            end_responder $responder
            assert_error {*} {r ocsp.refresh}
            assert_equal [ocsp_info failures_network] 1
            ocsp_assert_good $ca
            restart_server 0 true false
            assert_equal [ocsp_staple] good
            assert_equal [ocsp_info response_source] cache
            regexp {:(\d+)/} $url - port
            set responder [real_responder $dir $port]
            # A response signed in the same second would not be newer than the cached one.
            ocsp_pass_this_update
            assert_equal [r ocsp.refresh] OK
            assert_equal [ocsp_info response_source] network
            ocsp_assert_good $ca
        }

        test "openssl ocsp: $kind: a certificate that index.txt does not have is a response failure" {
            set index [ocsp_file_read $dir/index.txt]
            exec $tclsh $pki leaf $dir stranger --url $url
            ocsp_file_write $dir/index.txt $index
            ocsp_load_certificate [demo_leaf $dir stranger]
            ocsp_wait_above failures_response 0
            assert_equal [ocsp_info state] pending
            ocsp_assert_staple none
        }

        test "openssl ocsp: $kind: a renewed certificate (17)" {
            exec $tclsh $pki leaf $dir renewed --url $url {*}$options
            ocsp_load_certificate [demo_leaf $dir renewed]
            ocsp_wait_staple good
            ocsp_assert_good $ca
            assert_equal [dict get [ocsp_handshake] serial] [ocsp_info cert_serial]
        }
    }
    end_responder $responder
}

test {openssl ocsp: `openssl ocsp -respin` verifies the staple and the cached file} {
    set dir [file join [ocsp_tmpdir openssl] pki]
    set responder [real_responder $dir]
    exec $tclsh $pki demo $dir --url [lindex $responder 2]
    set ca [demo_ca $dir]
    start_server [ocsp_server [demo_leaf $dir server] $ca] {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[glob -nocomplain [srv 0 dir]/ocsp-*.der] ne {}} else {fail "no response was stored"}
        set files [glob [srv 0 dir]/ocsp-*.der]
        if {[auto_execok gnutls-cli] ne {}} {
            ocsp_file_write $dir/staple.der [dict get [ocsp_gnutls $ca] der]
            lappend files $dir/staple.der
        }
        foreach file $files {
            set text [exec $::openssl ocsp -respin $file -issuer $dir/ca.crt -cert $dir/server.crt -CAfile $dir/ca.crt \
                -no_nonce 2>@1]
            assert_match {*Response verify OK*} $text
            assert_match {*server.crt: good*} $text
        }
    }
    end_responder $responder
}
