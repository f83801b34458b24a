# OCSP stapling from a file. Responses are made with the openssl tool and the CA of utils/gen-test-certs.sh.
#
# SPDX-License-Identifier: BSD-3-Clause

# A server whose TLS is a module of its own (--tls-module) cannot staple.
if {$::tls && !([info exists ::tls_module] && $::tls_module)} {

set ::ocsp_dir [file normalize [tmpdir server-ocsp]]
file mkdir $::ocsp_dir
set ::ocsp_tls [file normalize tests/tls]

# Writes the CA's response about a certificate into `file`: V is good, R is revoked.
proc ocsp_respond {file cert status} {
    set serial [lindex [split [string trim [exec openssl x509 -in $cert -noout -serial]] =] 1]
    set index [open $::ocsp_dir/index.txt w]
    puts $index [join [list $status 400101000000Z [expr {$status eq "R" ? "250101000000Z" : ""}] $serial unknown /CN=x] \t]
    close $index
    exec openssl ocsp -issuer $::ocsp_tls/ca.crt -cert $cert -no_nonce -reqout $::ocsp_dir/request.der 2>@1
    exec openssl ocsp -index $::ocsp_dir/index.txt -CA $::ocsp_tls/ca.crt -rsigner $::ocsp_tls/ca.crt -rkey $::ocsp_tls/ca.key \
        -reqin $::ocsp_dir/request.der -respout $file -ndays 1 -resp_no_certs 2>@1
}

# Returns the status that the server staples in TLS `version`, or none.
proc ocsp_stapled {{version -tls1_3}} {
    set text [exec openssl s_client -connect [srv 0 host]:[srv 0 port] -status $version </dev/null 2>@1]
    return [expr {[regexp {Cert Status: (\w+)} $text - status] ? $status : "none"}]
}

# An INFO field, in the section tls of servers that have it, else in the section ocsp.
proc ocsp_info {field} {
    if {![regexp "ocsp_$field:(\[^\\r\\n\]*)" "[r info tls][r info ocsp]" - value]} {fail "INFO has no field ocsp_$field"}
    return $value
}

ocsp_respond $::ocsp_dir/good.der $::ocsp_tls/server.crt V
ocsp_respond $::ocsp_dir/other.der $::ocsp_tls/client.crt V
file copy -force $::ocsp_dir/good.der $::ocsp_dir/response.der

start_server [list tags {tls} overrides [list tls-auth-clients no tls-ocsp-stapling yes \
    tls-ocsp-response-file $::ocsp_dir/response.der]] {
    test {OCSP: the response in the file is stapled in TLS 1.2 and 1.3} {
        assert_equal [ocsp_stapled -tls1_2] good
        assert_equal [ocsp_stapled -tls1_3] good
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info response_source] file
        assert_equal [ocsp_info response_bytes] [file size $::ocsp_dir/response.der]
    }

    test {OCSP: a revocation is stapled, once the directive is set to its own value} {
        ocsp_respond $::ocsp_dir/response.der $::ocsp_tls/server.crt R
        assert_equal [ocsp_stapled] good
        r config set tls-ocsp-response-file $::ocsp_dir/response.der
        assert_equal [ocsp_stapled] revoked
        assert_equal [ocsp_info state] revoked
        assert_equal [ocsp_info revoked] 1
    }

    test {OCSP: a response for another certificate, a damaged and a missing one are not stapled} {
        set damaged [open $::ocsp_dir/damaged.der wb]
        set good [open $::ocsp_dir/good.der rb]
        puts -nonewline $damaged [string range [read $good] 0 end-1]!
        close $good
        close $damaged
        foreach name {other damaged missing} {
            r config set tls-ocsp-response-file $::ocsp_dir/$name.der
            assert_equal [ocsp_stapled] none
            assert_equal [ocsp_info state] pending
            assert_morethan [string length [ocsp_info last_error]] 0
        }
        r config set tls-ocsp-response-file $::ocsp_dir/good.der
        assert_equal [ocsp_stapled] good
        assert_equal [ocsp_info last_error] {}
    }

    test {OCSP: after a reload with another certificate the old one's response is not stapled} {
        r config set tls-cert-file $::ocsp_tls/valkey.crt tls-key-file $::ocsp_tls/valkey.key
        assert_equal [ocsp_stapled] none
        r config set tls-cert-file $::ocsp_tls/server.crt tls-key-file $::ocsp_tls/server.key
        assert_equal [ocsp_stapled] good
    }

    test {OCSP: stapling is turned off and on} {
        r config set tls-ocsp-stapling no
        assert_equal [ocsp_stapled] none
        assert_equal [ocsp_info state] disabled
        r config set tls-ocsp-stapling yes
        assert_equal [ocsp_stapled] good
    }
}

}
