# ocsp-probe.tcl - ocsp-probe: a response that verifies, but whose CertID clients do not recognize, and the words of
# errors; the option --replace (scenario 35).
#
# Weight: 8
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

foreach {hash exit} {sha1 0 sha256 1 sha384 1} {
    test "probe: --ask warns of a CertID other than SHA-1: $hash (35.1)" {
        ocsp_responder_behave $responder [list hash $hash]
        lassign [ocsp_probe $ca --ask [dict get $leaf cert]] status text
        assert_equal $status $exit $text
        assert_match "*: good*certid *[string toupper $hash]*" $text
        assert_equal [string match {*look for SHA-1*answer with the CertID of the request*} $text] $exit $text
        lassign [ocsp_probe $ca --json --ask [dict get $leaf cert]] status text
        assert_equal $status $exit
        assert_match "*\"status\": \"good\"*\"certid_digest\": \"[string toupper $hash]\"*" $text
        lassign [ocsp_probe $ca --prometheus --ask [dict get $leaf cert]] status text
        assert_match "*\nocsp_probe_certid_sha1{*} [expr {$hash eq "sha1"}]\n*" $text
    }
}

test {probe: revoked is critical, whatever the hash of the CertID (35.2)} {
    ocsp_responder_behave $responder {hash sha256 status revoked}
    lassign [ocsp_probe $ca --ask [dict get $leaf cert]] status text
    assert_equal $status 2 $text
    assert_match {*: revoked*look for SHA-1*} $text
}

test {probe: warns of a server that staples a CertID with SHA-256, and the server logs it once (35.3)} {
    ocsp_responder_behave $responder {hash sha256}
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        ocsp_assert_staple good
        lassign [ocsp_probe $ca 127.0.0.1:[srv 0 port]] status text
        assert_equal $status 1 $text
        assert_match {*: good (warning)*look for SHA-1*} $text
        foreach round {1 2} {ocsp_refresh}
        assert_equal [llength [ocsp_log_lines 0 {*CertID with SHA256*configure the responder*}]] 1
    }
}

# The reason of a failure is one word in JSON and in the metrics; a responder that answers has none.
foreach {name behaviour exit code} {
    {a good answer}             good                    0 {}
    {revoked}                   {status revoked}        2 {}
    {a bad signature}           {signature bad}         2 signature
    {expired}                   {this -7200 next -10}   2 expired
    {another certificate's}     {entries serial}        2 no-entry
    {unknown}                   {status unknown}        2 unknown
    {tryLater}                  {response_status tryLater} 2 responder-status
    {a page}                    {body html}             2 der
    {HTTP 503}                  {http 503}              3 http-status
    {text/html}                 {type text/html}        3 http-type
    {silence}                   {drop hang}             3 timeout
} {
    test "probe: the code of the error: $name (35.4)" {
        ocsp_responder_behave $responder $behaviour
        set arguments [list --timeout [expr {$code eq "timeout" ? 1 : 20}] --ask [dict get $leaf cert]]
        lassign [ocsp_probe $ca --json {*}$arguments] status text
        assert_equal $status $exit $text
        assert_equal [lindex [regexp -inline {"error_code": "([^"]*)"} $text] 1] $code $text
        lassign [ocsp_probe $ca --prometheus {*}$arguments] status text
        assert_equal $status $exit $text
        assert_equal [lindex [regexp -inline {\nocsp_probe_error\{target="[^"]*",code="([^"]*)"\} 1(?:\n|$)} $text] 1] \
            $code $text
    }
}

test {probe: the code of the error: no connection, an unknown name, no file; none after a second URL (35.4)} {
    ocsp_responder_behave $responder good
    foreach {arguments code} [list \
        [list 127.0.0.1:1] connect \
        [list nobody.invalid:1] dns \
        [list --ask /nowhere/cert.pem] file \
        [list --url http://127.0.0.1:1/ --url $url --ask [dict get $leaf cert]] {} \
    ] {
        lassign [ocsp_probe $ca --json {*}$arguments] status text
        assert_equal [lindex [regexp -inline {"error_code": "([^"]*)"} $text] 1] $code $text
    }
}

set kept [file join $dir kept.der]

# Asks the responder and replaces the file, with further options. Returns {exit-status output}.
proc replace_file {args} {
    return [ocsp_probe $::ca --timeout 5 --ask [dict get $::leaf cert] --replace $::kept {*}$args]
}

proc kept_next {} {
    return [dict get [lindex [dict get [ocsp_response_info [ocsp_file_read $::kept]] entries] 0] next]
}

test {probe: --replace writes a good response, which a server staples that has it as response-file (35.5)} {
    ocsp_responder_behave $responder {this -60 next 3600}
    lassign [replace_file] status text
    assert_equal $status 0 $text
    start_server [ocsp_server $leaf $ca response-file $kept] {
        ocsp_assert_good $ca
        assert_equal [ocsp_info response_source] file
        # A new one, written while the server runs and reads; with a warning, which is good as well.
        ocsp_responder_behave $responder {this -50 next 7200}
        lassign [replace_file --warn 100000] status text
        assert_equal $status 1 $text
        ocsp_wait_info next_update [kept_next]
        # Revoked: the server must not go on with good.
        ocsp_responder_behave $responder {this -40 next 7300 status revoked}
        lassign [replace_file] status text
        assert_equal $status 2 $text
        ocsp_wait_info state revoked
        ocsp_assert_refused $ca
    }
}

foreach {name behaviour exit} {
    {a bad signature}       {signature bad}                 2
    {expired}               {this -7200 next -10}           2
    {another certificate's} {entries serial}                2
    {unknown}               {status unknown}                2
    {tryLater}              {response_status tryLater}      2
    {a page}                {body html}                     2
    {HTTP 503}              {http 503}                      3
    {silence}               {drop close}                    3
} {
    test "probe: --replace leaves the file as it was: $name (35.6)" {
        ocsp_responder_behave $responder good
        assert_equal [lindex [replace_file] 0] 0
        set bytes [ocsp_file_read $kept]
        file stat $kept before
        ocsp_responder_behave $responder $behaviour
        lassign [replace_file] status text
        assert_equal $status $exit $text
        file stat $kept after
        assert_equal $after(ino) $before(ino)
        assert_equal [ocsp_file_read $kept] $bytes
        assert_equal [glob -nocomplain $kept.*] {}
    }
}

test {probe: --replace replaces by rename: a reader keeps the complete old file (35.7)} {
    ocsp_responder_behave $responder {this -60 next 3600}
    replace_file
    set bytes [ocsp_file_read $kept]
    set reader [open $kept rb]
    ocsp_responder_behave $responder {this -50 next 9000}
    assert_equal [lindex [replace_file] 0] 0
    assert_equal [read $reader] $bytes
    close $reader
    assert_not_equal [ocsp_file_read $kept] $bytes
}

test {probe: --replace where the file cannot be written: status 3 and the reason; without --ask: wrong usage (35.8)} {
    ocsp_responder_behave $responder good
    lassign [ocsp_probe $ca --ask [dict get $leaf cert] --replace /nowhere/kept.der] status text
    assert_equal $status 3 $text
    assert_match {*/nowhere/kept.der*No such file*} $text
    file mkdir $dir/folder.der
    lassign [ocsp_probe $ca --ask [dict get $leaf cert] --replace $dir/folder.der] status text
    assert_equal $status 3 $text
    assert_match {*cannot replace*folder.der*} $text
    assert_equal [glob -nocomplain $dir/folder.der.*] {}
    lassign [ocsp_probe $ca --replace $kept 127.0.0.1:1] status text
    assert_equal $status 3 $text
    assert_match {*--replace*require --ask*} $text
}
