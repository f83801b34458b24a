# ocsp-identity.tcl - where the issuer is found (scenario 1), certificates without OCSP (2), kinds of certificates (3).
#
# Weight: 28
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

# A CA of the same name with another key; without key identifiers, nothing but the signature tells the two apart.
set real [ocsp_pki_ca $dir real -aki 0]
set twin [ocsp_pki_ca $dir twin -subject [dict get $real subject] -aki 0]
set elsewhere [ocsp_pki_ca $dir elsewhere]

test {issuer: found in the chain of tls-cert-file (1.1)} {
    # tls-ca-cert-file has another CA, so only the chain has the issuer.
    set file [file join $dir chain11.pem]
    ocsp_pki_file $file $leaf $ca
    start_server [ocsp_server [dict replace $leaf cert $file] $elsewhere] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

test {issuer: found in tls-ca-cert-file (1.2)} {
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

test {issuer: found in tls-ca-cert-file among other CAs (1.3)} {
    set file [file join $dir bundle13.pem]
    ocsp_pki_file $file $elsewhere $twin $ca
    start_server [ocsp_server $leaf [dict replace $ca cert $file]] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

test {issuer: found in tls-ca-cert-dir (1.4)} {
    set ca_dir [file join $dir cadir]
    file mkdir $ca_dir
    file copy -force [dict get $ca cert] $ca_dir/ca.pem
    file copy -force [dict get $elsewhere cert] $ca_dir/elsewhere.pem
    exec $::openssl rehash $ca_dir
    set options [ocsp_server $leaf $ca tls-ca-cert-dir $ca_dir]
    dict lappend options omit tls-ca-cert-file
    start_server $options {
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

test {issuer: a CA of the same name with another key is not taken (1.5)} {
    set real_responder [ocsp_responder_start -cas [list $real $twin]]
    set mine [ocsp_pki_leaf $real mine -aki 0 -aia [list [dict get $real_responder url]]]
    start_server [ocsp_server $mine $twin] {
        ocsp_wait_info state no-issuer
        ocsp_assert_staple none
        assert_equal [ocsp_responder_count $real_responder] 0
    }
    ocsp_responder_stop $real_responder
}

test {issuer: the right one is found next to a wrong one of the same name (1.6)} {
    set real_responder [ocsp_responder_start -cas [list $real $twin]]
    set mine [ocsp_pki_leaf $real mine16 -aki 0 -aia [list [dict get $real_responder url]]]
    foreach {name order} [list wrong-first [list $twin $real] right-first [list $real $twin]] {
        set file [file join $dir bundle-$name.pem]
        ocsp_pki_file $file {*}$order
        start_server [ocsp_server $mine [dict replace $real cert $file]] {
            ocsp_wait_info state good
            assert_equal [ocsp_staple] good
        }
    }
    # The wrong one in the chain, the right one in tls-ca-cert-file.
    set file [file join $dir chain16.pem]
    ocsp_pki_file $file $mine $twin
    start_server [ocsp_server [dict replace $mine cert $file] $real] {
        ocsp_wait_info state good
        assert_equal [ocsp_staple] good
    }
    ocsp_responder_stop $real_responder
}

# DEBUG OCSP-REFRESH says why it cannot refresh, once the OCSP thread has reported that; until then it starts one.
proc wait_refresh_refused {pattern} {
    wait_for_condition 50 100 {[catch {r debug ocsp-refresh} answer]} else {fail "not refused: $answer"}
    assert_match $pattern $answer
}

test {issuer: in issuer-file, set at run time, and after a restart (1.7)} {
    start_server [ocsp_server $leaf $elsewhere] {
        ocsp_wait_info state no-issuer
        assert_equal [count_log_message 0 {or name it in tls-ca-cert-file or in ocsp.issuer-file}] 1
        wait_refresh_refused {*issuer-file*}
        ocsp_set issuer-file [dict get $ca cert]
        ocsp_wait_info state good
        ocsp_assert_good $ca
        r config rewrite
        ocsp_responder_behave $responder {drop close}
        # Main reads both files before the first accept.
        restart_server 0 true false
        ocsp_assert_good $ca
        assert_equal [ocsp_info response_source] cache
        ocsp_responder_behave $responder good
    }
}

test {issuer: in issuer-file, the wrong one of the same name, then the right one by rename (1.8)} {
    set real_responder [ocsp_responder_start -cas [list $real $twin]]
    set mine [ocsp_pki_leaf $real mine18 -aki 0 -aia [list [dict get $real_responder url]]]
    start_server [ocsp_server $mine $elsewhere] {
        # A relative path is relative to the server's directory.
        set home [lindex [r config get dir] 1]
        file copy -force [dict get $twin cert] [file join $home issuer.pem]
        ocsp_set issuer-file issuer.pem
        # The file is looked at every second.
        after 2500
        assert_equal [ocsp_info state] no-issuer
        ocsp_assert_staple none
        assert_equal [ocsp_responder_count $real_responder] 0
        assert_equal [count_log_message 0 {issuer-file: }] 0
        ocsp_pki_file [file join $home new.pem] $twin $real
        file rename -force [file join $home new.pem] [file join $home issuer.pem]
        ocsp_wait_info state good
        assert_equal [ocsp_staple] good
        # Once found, it stays: for a reload of the same certificate the file is not needed.
        file delete [file join $home issuer.pem]
        ocsp_load_certificate $mine
        after 2500
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_staple] good
    }
    ocsp_responder_stop $real_responder
}

test {issuer: in issuer-file, which is missing or broken at the start: the server starts, warns once, reads it later (1.9)} {
    set number 0
    foreach {name words make} {
        missing {cannot be opened}          {}
        fifo    {is not a regular file}     {exec mkfifo $file}
        text    {has no certificate in PEM} {ocsp_file_write $file "no certificate\n"}
        cut     {has a damaged certificate} {ocsp_file_write $file [string range [ocsp_file_read [dict get $ca cert]] 0 200]}
        folder  {is not a regular file}     {file mkdir $file}
        huge    {1 to 1048576 are allowed}  {ocsp_file_write $file [string repeat x 1048577]}
    } {
        set file [file join $dir issuer-$name.pem]
        eval $make
        start_server [ocsp_server $leaf $elsewhere issuer-file $file cache-dir {}] {
            ocsp_wait_info state no-issuer
            ocsp_assert_staple none
            after 2500
            assert_equal [count_log_message 0 {issuer-file: }] 1 $name
            assert_equal [count_log_message 0 $words] 1 $name
            assert_equal [r ping] PONG
            file delete $file
            file copy [dict get $ca cert] $file.new
            file rename -force $file.new $file
            ocsp_wait_info state good
            ocsp_assert_good $ca
        }
    }
}

test {issuer: in issuer-file, it is no trust anchor, neither for https responders nor for clients (1.10)} {
    set secure [ocsp_responder_start -ca $ca -tls [ocsp_pki_leaf $ca tlsresponder -san DNS:localhost]]
    set mine [ocsp_pki_leaf $ca mine110 -aia [list [dict get $secure url]]]
    set friend [ocsp_pki_leaf $elsewhere friend]
    start_server [ocsp_server $mine $elsewhere issuer-file [dict get $ca cert] tls-auth-clients yes retry-delay 3600] {
        ocsp_wait_info failures_network 1
        assert_match {*certificate*} [ocsp_info last_error]
        assert_equal [ocsp_responder_count $secure] 0
        foreach {client accepted} [list $friend 1 $mine 0] {
            catch {exec $::openssl s_client -connect [srv 0 host]:[srv 0 port] -tls1_2 -cert [dict get $client cert] \
                -key [dict get $client key] << "" 2>@1} words
            assert_equal [string match {*alert unknown ca*} $words] [expr {!$accepted}] $words
        }
    }
    ocsp_responder_stop $secure
}

# ---- certificates without OCSP (2) ----

# Loads `certificate` and expects that state, with one line in the log at most, also after reloads and DEBUG
# OCSP-REFRESH.
proc expect_no_ocsp {certificate ca state {notice {}}} {
    start_server [ocsp_server $certificate $ca retry-delay 1] {
        ocsp_wait_info state $state
        ocsp_assert_staple none
        set lines [llength [ocsp_log_lines]]
        assert_lessthan_equal $lines 1 [ocsp_log_lines]
        if {$notice ne {}} {
            assert_equal [count_log_message 0 $notice] 1
        }
        wait_refresh_refused {*}
        ocsp_load_certificate $certificate
        ocsp_load_certificate $certificate
        # Longer than the first retry-delay: there must be no attempt and no further line.
        after 2500
        assert_equal [ocsp_info state] $state
        assert_equal [ocsp_info refreshes] 0
        assert_equal [ocsp_info next_refresh_in_seconds] -1
        assert_equal [ocsp_info response_source] none
        assert_equal [llength [ocsp_log_lines]] $lines [ocsp_log_lines]
        ocsp_assert_staple none
        assert_equal [ocsp_info handshakes_stapled] 0
        assert_morethan [ocsp_info handshakes_unstapled] 3
        # With another certificate stapling starts.
        ocsp_load_certificate $::leaf
        r config set tls-ca-cert-file [dict get $::ca cert]
        ocsp_wait_info state good
        ocsp_assert_good $::ca
    }
}

test {no OCSP: a self-signed certificate: state self-signed (2.1)} {
    set self [ocsp_pki_selfsigned $dir selfsigned]
    expect_no_ocsp $self $self self-signed
}

test {no OCSP: a self-signed certificate with a responder URL: state self-signed, no request (2.2)} {
    ocsp_responder_forget $responder
    set self [ocsp_pki_selfsigned $dir selfsigned2 -aia [list ${url}self]]
    expect_no_ocsp $self $self self-signed
    assert_equal [ocsp_responder_count $responder -path /self] 0
}

test {no OCSP: a certificate without AIA: state no-responder, one notice that names responder-url (2.3)} {
    set plain [ocsp_pki_leaf $ca plain]
    expect_no_ocsp $plain $ca no-responder responder-url
}

test {no OCSP: a certificate whose AIA has other URL schemes only: state no-responder (2.4)} {
    set odd [ocsp_pki_leaf $ca odd -aia {ldap://127.0.0.1/ ftp://127.0.0.1/ocsp}]
    expect_no_ocsp $odd $ca no-responder responder-url
}

test {no OCSP: a certificate whose AIA has caIssuers only: state no-responder (2.5)} {
    set issuers [ocsp_pki_leaf $ca issuers -aia-other [list ${url}ca.crt]]
    expect_no_ocsp $issuers $ca no-responder responder-url
}

test {no OCSP: a certificate whose issuer is unknown: state no-issuer (2.6)} {
    expect_no_ocsp $leaf $elsewhere no-issuer
}

test {no OCSP: TLS not configured: state no-tls, and the server starts (2.7)} {
    set overrides [list tls-port 0]
    if {[ocsp_is_module]} {lappend overrides loadmodule $::ocsp_module_path}
    start_server [list overrides [list {*}$overrides [ocsp_directive stapling] yes]] {
        assert_equal [ocsp_info state] no-tls
        wait_refresh_refused {*}
        assert_equal [ocsp_info refreshes] 0
        assert_equal [r ping] PONG
    }
}

# ---- kinds of certificates (3) ----

foreach {name options} {
    {RSA, 2048 bits}    {-key rsa}
    {ECDSA, P-256}      {-key ec}
    {ECDSA, P-384}      {-key ec384}
    {signed by SHA-384} {-digest sha384}
    {a long serial}     {-serial 7F00112233445566778899AABBCCDDEEFF001122}
    {a serial with its highest bit set}     {-serial F0112233}
    {the serial 0}      {-serial 00}
    {a negative serial} {-serial -5}
} {
    test "certificate: $name (3.[incr kind])" {
        set one [ocsp_pki_leaf $ca kind$kind -aia [list $url] {*}$options]
        start_server [ocsp_server $one $ca] {
            ocsp_wait_info state good
            # Leading zeros do not matter.
            assert_equal [regsub {^(-?)0+(?=.)} [ocsp_info cert_serial] {\1}] \
                [regsub {^(-?)0+(?=.)} [dict get $one serial] {\1}]
            if {[string match {*negative*} $name]} {
                # gnutls-cli rejects such a certificate, whatever its staple.
                assert_equal [ocsp_info response_source] network
            } else {
                ocsp_assert_good $ca
            }
        }
    }
}

test "certificate: a chain with an intermediate CA (3.[incr kind])" {
    set middle [ocsp_pki_intermediate $ca middle]
    set low_responder [ocsp_responder_start -cas [list $middle $ca]]
    set low [ocsp_pki_leaf $middle low -aia [list [dict get $low_responder url]]]
    # The usual configuration: the chain in tls-cert-file, the root in tls-ca-cert-file.
    start_server [ocsp_server [dict replace $low cert [dict get $low chain]] $ca] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_equal [dict get [lindex [ocsp_responder_log $low_responder] 0] serial] [dict get $low serial]
        # The root's authorized responder may not sign for the intermediate CA.
        set root_delegate [ocsp_pki_delegate $ca rootdelegate]
        ocsp_responder_behave $low_responder [list signer $root_delegate]
        r debug ocsp-refresh
        ocsp_wait_info failures_verify 1
    }
    # The server knows the intermediate CA only; it does not need the root.
    start_server [ocsp_server $low $middle] {
        ocsp_responder_behave $low_responder good
        r debug ocsp-refresh
        ocsp_wait_info state good
        assert_equal [ocsp_staple] good
    }
    ocsp_responder_stop $low_responder
}

test "certificate: must-staple, with and without a staple (3.[incr kind])" {
    set must [ocsp_pki_leaf $ca must -aia [list $url] -must-staple 1]
    ocsp_responder_behave $responder {http 503}
    start_server [ocsp_server $must $ca retry-delay 1] {
        ocsp_wait_above refresh_failures 0
        assert_equal [ocsp_info must_staple] 1
        ocsp_assert_staple none
        ocsp_assert_refused $ca
        # One warning that there is nothing to staple.
        assert_equal [llength [ocsp_log_lines 0 {*must*staple*}]] 1 [ocsp_log_lines]
        ocsp_responder_behave $responder good
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        assert_equal [ocsp_info must_staple] 0
    }
}

test "certificate: a URL with control bytes is cleaned and cut before INFO and the log show it (3.[incr kind])" {
    set nasty "http://127.0.0.1:[dict get $responder port]/x\r\nocsp_state:fake\x1b\[31m[string repeat y 400]"
    set one [ocsp_pki_leaf $ca nasty -aia [list $nasty]]
    start_server [ocsp_server $one $ca retry-delay 3600 timeout 1] {
        ocsp_wait_info cert_serial [dict get $one serial]
        assert_not_equal [ocsp_info state] fake
        assert_lessthan_equal [string length [ocsp_info responder_url]] 200
        foreach line [log_lines 0] {
            assert_no_match "*\x1b*" $line
            assert_no_match {ocsp_state:fake*} $line
        }
        assert_equal [r ping] PONG
    }
}
