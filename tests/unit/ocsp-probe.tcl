# ocsp-probe.tcl - ocsp-probe: a response that verifies, but whose CertID clients do not recognize, and the words of
# errors (scenario 35).
#
# Weight: 6
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
