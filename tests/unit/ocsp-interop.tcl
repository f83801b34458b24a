# ocsp-interop.tcl - OCSP responders built on other libraries and HTTP servers (support/responders/; scenario 34).
#
# Each of them has its own CA. A server is taken through the same steps with each: good, revoked, hold lifted, responder
# down, restart without it, responder back. A responder whose software is not installed is skipped: deps/install.sh
# installs that of the first four, and one release in tests/matrix/root has the software of all.
#
# Weight: 60
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set programs [file join $::ocsp_support_dir responders]

# ---- the responders -------------------------------------------------------------------------------------------------

# Each prepare_... makes what its program needs and returns the command line without DIR and PORT, or raises the reason
# why the responder cannot run.

proc prepare_python {} {
    foreach python {python3 /usr/bin/python3} {
        if {![catch {exec $python -c {import cryptography.x509.ocsp} 2>@1}]} {
            return [list $python [file join $::programs python.py]]
        }
    }
    error "python3-cryptography is not installed"
}

proc prepare_ruby {} {
    if {[catch {exec ruby -e {require "webrick"; require "openssl"} 2>@1}]} {
        error "ruby or ruby-webrick is not installed"
    }
    return [list ruby [file join $::programs ruby.rb]]
}

proc prepare_erlang {} {
    set check {[] = [M || M <- [public_key, httpd], code:ensure_loaded(M) =/= {module, M}], halt(0).}
    if {[catch {exec erl -noshell -eval $check 2>@1}]} {
        error "erlang-public-key or erlang-inets is not installed"
    }
    return [list escript [file join $::programs erlang.escript]]
}

proc prepare_nss {} {
    foreach tool {httpserv certutil pk12util} {
        if {[auto_execok $tool] eq {}} {error "libnss3-tools is not installed"}
    }
    return [list [info nameofexecutable] [file join $::programs nss.tcl]]
}

proc prepare_go {} {
    if {[auto_execok go] eq {}} {error "golang-go is not installed"}
    if {![file exists /usr/share/gocode/src/golang.org/x/crypto/ocsp]} {
        error "golang-golang-x-crypto-dev is not installed"
    }
    set program [file join $::workdir go_responder]
    exec env GO111MODULE=off GOPATH=/usr/share/gocode go build -o $program [file join $::programs go.go] 2>@1
    return [list $program]
}

proc prepare_java {} {
    if {[auto_execok javac] eq {}} {error "a JDK is not installed"}
    set jars [lmap name {bcprov bcpkix bcutil} {set _ /usr/share/java/$name.jar}]
    foreach jar $jars {if {![file exists $jar]} {error "libbcpkix-java is not installed"}}
    set classes [file join $::workdir java_responder]
    file mkdir $classes
    exec javac -d $classes -cp [join $jars :] [file join $::programs Java.java] 2>@1
    return [list java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp [join [linsert $jars 0 $classes] :] Java]
}

proc prepare_node {} {
    if {[auto_execok node] eq {}} {error "nodejs is not installed"}
    # Debian's libraries, which a Node.js from elsewhere does not find by itself.
    lappend path {*}[expr {[info exists ::env(NODE_PATH)] ? $::env(NODE_PATH) : {}}] /usr/share/nodejs
    set environment [list env NODE_PATH=[join $path :]]
    if {[catch {exec {*}$environment node -e {require("asn1.js")} 2>@1}]} {error "node-asn1.js is not installed"}
    return [list {*}$environment node [file join $::programs node.js]]
}

# name -> options:
#   prepare CMD     see above                 key ec|rsa       type of all keys
#   delegate 0|1    who signs: the CA (0) or an authorized responder (1)
#   path            the URL's path            more {...}       arguments after DIR and PORT
#   rereads 0|1     whether it reads a changed index.txt without a restart
#   reason 0|1      whether it sends a revocation reason
set responders {
    {Python (cryptography, http.server)} {prepare prepare_python key ec delegate 1}
    {Ruby (OpenSSL::OCSP, WEBrick)} {prepare prepare_ruby key rsa delegate 1}
    {Erlang (public_key, inets)} {prepare prepare_erlang key ec delegate 0}
    {NSS (httpserv)} {prepare prepare_nss key rsa delegate 0 path ocsp rereads 0 reason 0 more loopback_only}
    {Go (x/crypto/ocsp, net/http)} {prepare prepare_go key rsa delegate 1}
    {Java (Bouncy Castle, com.sun.net.httpserver)} {prepare prepare_java key ec delegate 1}
    {Node.js (asn1.js, http)} {prepare prepare_node key rsa delegate 1}
}

# Starts the responder that `config` describes for the CA in its `dir`. It ends with this process at the latest.
proc interop_start {config} {
    set command [list {*}[dict get $config command] [dict get $config dir] [dict get $config port]]
    foreach tool [dict get $config more] {lappend command [ocsp_tool $tool]}
    set errors [file join [dict get $config dir] stderr]
    set channel [open |[list {*}$command 2>>$errors] r+]
    fconfigure $channel -blocking 0 -buffering line
    wait_for_condition 1200 50 {[gets $channel url] >= 0 || [eof $channel]} else {
        fail "the responder printed no URL: [read_text $errors]"
    }
    if {$url ne [dict get $config url]} {fail "the responder did not start: [read_text $errors]"}
    return $channel
}

# Stops a responder. May be called twice.
proc interop_stop {channel} {
    if {[catch {pid $channel} pids]} return
    catch {close $channel write}
    for {set i 0} {$i < 200 && [llength [lmap pid $pids {if {![is_alive $pid]} continue}]] > 0} {incr i} {after 50}
    foreach pid $pids {if {[is_alive $pid]} {send_signal $pid KILL}}
    catch {close $channel}
}

# Makes the responder use a changed index.txt, and waits until its next response is newer than the current one.
proc interop_reread {config channel} {
    if {![dict get $config rereads]} {
        interop_stop $channel
        set channel [interop_start $config]
    }
    set produced [ocsp_info produced_at]
    while {[clock seconds] <= max($produced, [ocsp_info this_update])} {after 50}
    return $channel
}

# ---- the steps ------------------------------------------------------------------------------------------------------

proc interop_tests {name config} {
    set dir [dict get $config dir]
    set ca [ocsp_pki_ca $dir ca -key [dict get $config key]]
    set leaf [ocsp_pki_leaf $ca server -key [dict get $config key] -aia [list [dict get $config url]]]
    if {[dict get $config delegate]} {ocsp_pki_delegate $ca responder -key [dict get $config key]}
    set index [ocsp_pki_index [file join $dir index.txt] $leaf]
    set channel [interop_start $config]

    # Some of the responders take seconds for their first answer, on a busy machine more than the default timeout.
    start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 60] {
        ocsp_wait_info state good

        test "interop: $name: good (34.1)" {
            assert_equal [ocsp_info response_source] network
            assert_equal [ocsp_info responder_url] [dict get $config url]
            assert_equal [ocsp_info refresh_failures] 0
            ocsp_assert_good $ca
        }

        test "interop: $name: revoked, with the reason certificateHold (34.2)" {
            ocsp_pki_revoke $index $leaf certificateHold
            set channel [interop_reread $config $channel]
            assert_equal [r ocsp.refresh] OK
            assert_equal [ocsp_info state] revoked
            ocsp_assert_staple revoked
            if {[dict get $config reason]} {
                assert_match {*hold*} [string tolower [dict get [ocsp_handshake] reason]]
            }
            ocsp_assert_refused $ca
        }

        test "interop: $name: the hold is lifted (34.3)" {
            ocsp_pki_restore $index $leaf
            set channel [interop_reread $config $channel]
            assert_equal [r ocsp.refresh] OK
            assert_equal [ocsp_info state] good
            ocsp_assert_good $ca
        }

        test "interop: $name: the responder is down, the staple stays and INFO has the reason (34.4)" {
            interop_stop $channel
            set before [ocsp_info failures_network]
            assert_error "*[dict get $config url]*" {r ocsp.refresh}
            assert_equal [ocsp_info failures_network] [expr {$before + 1}]
            assert_match "*[dict get $config url]*" [ocsp_info last_error]
            # A responder that is ending may still accept a connection and then close it.
            assert {[ocsp_info last_error_code] in {connect closed}}
            ocsp_assert_good $ca
        }

        test "interop: $name: a restart without the responder staples from the cache (34.5)" {
            restart_server 0 true false
            assert_equal [ocsp_staple] good
            assert_equal [ocsp_info response_source] cache
            ocsp_assert_good $ca
        }

        test "interop: $name: the responder is back (34.6)" {
            interop_stop $channel
            set channel [interop_start $config]
            set channel [interop_reread $config $channel]
            assert_equal [r ocsp.refresh] OK
            assert_equal [ocsp_info last_error] {}
            ocsp_assert_good $ca
        }
    }
    interop_stop $channel
}

dict for {name options} $responders {
    set config [dict merge {path {} more {} rereads 1 reason 1} $options]
    if {[catch {[dict get $config prepare]} command]} {
        skip_test "interop: $name (34)" [lindex [split $command \n] end]
        continue
    }
    dict set config command $command
    dict set config dir [ocsp_tmpdir interop]
    dict set config port [find_available_port]
    dict set config url http://127.0.0.1:[dict get $config port]/[dict get $config path]
    interop_tests $name $config
}
