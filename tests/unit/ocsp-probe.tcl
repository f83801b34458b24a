# ocsp-probe.tcl - scenario 35: what ocsp-probe says of a response that verifies and that clients find no status in.
#
# Weight: 6
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Compiled here: the matrix has a tree without it.
set probe [file join $::workdir ocsp-probe]
set rooms [lmap file [glob [file join $::project_dir src ocsp_*.c]] {
    if {[file tail $file] in {ocsp_module.c ocsp_builtin.c}} continue
    set file
}]
exec cc -std=gnu11 -O1 -I[file join $::project_dir src] -I[file join $::project_dir deps] \
    [file join $::project_dir utils ocsp-probe.c] {*}$rooms -o $probe -lssl -lcrypto -lpthread

set lab [ocsp_lab]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]

# {exit-status output} of the probe.
proc probe {args} {
    if {![catch {exec $::probe --cafile [dict get $::ca cert] {*}$args 2>@1} text options]} {return [list 0 $text]}
    set how [dict get $options -errorcode]
    return [list [expr {[lindex $how 0] eq "CHILDSTATUS" ? [lindex $how 2] : -1}] $text]
}

foreach {hash exit} {sha1 0 sha256 1 sha384 1} {
    test "35.1 ocsp-probe --ask: CertIDs with $hash" {
        ocsp_responder_behave $responder [list hash $hash]
        lassign [probe --ask [dict get $leaf cert]] status text
        assert_equal $status $exit $text
        assert_match "*: good*certid *[string toupper $hash]*" $text
        assert_equal [string match {*look for SHA-1*answer with the CertID of the request*} $text] $exit $text
        lassign [probe --json --ask [dict get $leaf cert]] status text
        assert_equal $status $exit
        assert_match "*\"status\": \"good\"*\"certid_digest\": \"[string toupper $hash]\"*" $text
        lassign [probe --prometheus --ask [dict get $leaf cert]] status text
        assert_match "*\nocsp_probe_certid_sha1{*} [expr {$hash eq "sha1"}]\n*" $text
    }
}

test {35.2 ocsp-probe: a revocation stays critical, whatever its CertID} {
    ocsp_responder_behave $responder {hash sha256 status revoked}
    lassign [probe --ask [dict get $leaf cert]] status text
    assert_equal $status 2 $text
    assert_match {*: revoked*look for SHA-1*} $text
}

test {35.3 a server that staples such a response: the probe warns, and the log says so once} {
    ocsp_responder_behave $responder {hash sha256}
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        ocsp_assert_staple good
        lassign [probe 127.0.0.1:[srv 0 port]] status text
        assert_equal $status 1 $text
        assert_match {*: good (warning)*look for SHA-1*} $text
        foreach round {1 2} {ocsp_round}
        assert_equal [llength [ocsp_log_lines 0 {*CertID with SHA256*configure the responder*}]] 1
    }
}

ocsp_lab_close $lab
