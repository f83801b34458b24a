# ocsp-responders.tcl - scenarios 4 (whom is asked), 5 (responder-url), 6 (who signs), 8 (entries) and 9 (dates).
#
# Scenarios 6, 8 and 9 are tables: each row gets a new certificate, so that nothing is held from the row before it.
#
# Weight: 17
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lab [ocsp_lab]
set dir [dict get $lab dir]
set ca [dict get $lab ca]
set responder [dict get $lab responder]
set url [lindex [dict get $lab urls] 0]

# A port where nobody listens.
set dead http://127.0.0.1:[find_available_port]/dead

# Loads a new certificate with these URLs while the responder behaves so; returns it.
proc fresh {name urls behaviour args} {
    set leaf [ocsp_pki_leaf $::ca $name -aia $urls {*}$args]
    ocsp_responder_behave $::responder $behaviour
    ocsp_responder_forget $::responder
    ocsp_load_certificate $leaf
    ocsp_wait_info cert_serial [dict get $leaf serial]
    return $leaf
}

proc asked_for {leaf} {
    set words {}
    foreach request [ocsp_responder_log $::responder] {
        if {[dict get $request serial] eq [dict get $leaf serial]} {
            lappend words [dict get $request method][dict get $request path]
        }
    }
    return $words
}

start_server [ocsp_server [dict get $lab leaf] $ca retry-delay 3600 timeout 20] {
    test {4.1 a responder that takes POST only} {
        set leaf [fresh leaf41 [list ${url}p] {get 405}]
        ocsp_wait_info state good
        assert_equal [asked_for $leaf] POST/p
        ocsp_assert_good $ca
    }

    test {4.2 a responder that takes GET only} {
        set leaf [fresh leaf42 [list ${url}p] {post 405}]
        ocsp_wait_info state good
        assert_equal [asked_for $leaf] {POST/p GET/p}
        ocsp_assert_good $ca
    }

    test {4.3 the first URL of two is dead} {
        set leaf [fresh leaf43 [list $dead ${url}p] good]
        ocsp_wait_info state good
        assert_equal [asked_for $leaf] POST/p
        assert_equal [ocsp_info responder_url] ${url}p
        ocsp_assert_good $ca
    }

    test {4.4 all URLs are dead: the error names each, and it is one failure} {
        set before [ocsp_info_all]
        set leaf [fresh leaf44 [list $dead/1 $dead/2 $dead/3] good]
        ocsp_wait_above refresh_failures [dict get $before refresh_failures]
        foreach n {1 2 3} {assert_match "*$dead/$n*" [ocsp_info last_error]}
        assert_equal [ocsp_info state] pending
        assert_equal [ocsp_info failures_network] [expr {[dict get $before failures_network] + 1}]
        assert_equal [ocsp_info refresh_failures] [expr {[dict get $before refresh_failures] + 1}]
        ocsp_assert_staple none
    }

    test {4.5 a kind of its own by each URL: the last one's counts} {
        set before [ocsp_info_all]
        set leaf [ocsp_pki_leaf $ca leaf45 -aia [list $dead ${url}a ${url}b]]
        ocsp_responder_behave $responder {http 500} /a
        ocsp_responder_behave $responder {signature bad} /b
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_above failures_verify [dict get $before failures_verify]
        assert_equal [ocsp_info refresh_failures] [expr {[dict get $before refresh_failures] + 1}]
        foreach kind {network http} {assert_equal [ocsp_info failures_$kind] [dict get $before failures_$kind]}
        ocsp_assert_staple none
    }

    test {4.6 what is asked: a SHA-1 CertID, no nonce, the right type} {
        set leaf [fresh leaf46 [list ${url}p] good]
        ocsp_wait_info state good
        set request [lindex [ocsp_responder_log $responder] 0]
        assert_equal [dict get $request hash] sha1
        assert_equal [dict get $request nonce] 0
        assert_equal [dict get $request headers content-type] application/ocsp-request
        assert_equal [dict get $request der] [binary encode hex [ocsp_request_der $leaf $ca sha1]]
    }

    test {4.6 URLs are asked in the certificate's order, whatever their alphabet says} {
        set leaf [ocsp_pki_leaf $ca leaf46b -aia [list ${url}z ${url}b ${url}m ${url}a]]
        foreach path {/z /b /m} {ocsp_responder_behave $responder {http 500} $path}
        ocsp_responder_behave $responder good /a
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_info state good
        assert_equal [asked_for $leaf] {POST/z POST/b POST/m POST/a}
        foreach path {/z /b /m /a} {ocsp_responder_behave $responder good $path}
    }

    test {5 responder-url overrides, and taken back the certificate's own URL is asked again} {
        set leaf [fresh leaf5 [list ${url}own] good]
        ocsp_wait_info state good
        # At once: nobody forces a round here.
        ocsp_set responder-url ${url}other
        ocsp_responder_wait $responder 1 20000 -path /other
        ocsp_wait_info responder_url ${url}other
        assert_equal [ocsp_responder_count $responder -path /own] 1
        ocsp_set responder-url ""
        ocsp_responder_wait $responder 2 20000 -path /own
        ocsp_wait_info responder_url ${url}own
        assert_equal [ocsp_responder_count $responder -path /other] 1
        ocsp_assert_good $ca
    }

    test {5 responder-url serves a certificate that has no URL} {
        set leaf [fresh leaf5b {} good]
        ocsp_wait_info state no-responder
        ocsp_set responder-url ${url}other
        ocsp_wait_info state good
        ocsp_assert_good $ca
        ocsp_set responder-url ""
    }

    # ---- 6: who signs ----
    set delegate [ocsp_pki_delegate $ca delegate]
    set no_eku [ocsp_pki_delegate $ca noeku -eku {}]
    set other_ca [ocsp_pki_ca $dir otherca]
    set foreign [ocsp_pki_delegate $other_ca foreign]
    set twin [ocsp_pki_ca $dir twin -subject [dict get $ca subject] -aki 0]
    set twin_delegate [ocsp_pki_delegate $twin twindelegate]
    set expired_delegate [ocsp_pki_delegate $ca olddelegate -from -86400 -to -60]
    set rsa_delegate [ocsp_pki_delegate $ca rsadelegate -key rsa]

    foreach {name behaviour verdict} [list \
        {the CA's key}                                  {signer ca}                                     good \
        {the CA's key, its certificate sent along}      [list signer ca certs [list $ca]]               good \
        {the CA's key, named by its key's hash}         {signer ca responder_id key}                    good \
        {a delegate with OCSPSigning}                   [list signer $delegate]                         good \
        {a delegate, named by its key's hash}           [list signer $delegate responder_id key]        good \
        {a delegate with an RSA key}                    [list signer $rsa_delegate]                     good \
        {a delegate, SHA-512}                           [list signer $delegate digest sha512]           good \
        {a delegate whose certificate is not sent}      [list signer $delegate certs none]              verify \
        {a certificate of the CA without the EKU}       [list signer $no_eku]                           verify \
        {a delegate that has expired}                   [list signer $expired_delegate]                 verify \
        {a delegate of another CA}                      [list signer $foreign]                          verify \
        {a delegate of another CA, that CA sent along}  [list signer $foreign certs [list $foreign $other_ca]] verify \
        {another CA's own key}                          [list signer $other_ca certs [list $other_ca]]  verify \
        {a CA of the same name with another key}        [list signer $twin certs [list $twin]]          verify \
        {a delegate of that CA}                         [list signer $twin_delegate certs [list $twin_delegate $twin]] \
                                                                                                        verify \
        {a flipped bit in the signature}                {signature bad}                                 verify \
        {no signature}                                  {signature empty}                               verify \
    ] {
        test "6.[incr six] signed by $name -> $verdict" {
            set before [ocsp_info_all]
            set leaf [fresh leaf6$six [list $url] $behaviour]
            ocsp_wait_above refreshes [dict get $before refreshes]
            if {$verdict eq "good"} {
                assert_equal [ocsp_info state] good [ocsp_info last_error]
                ocsp_assert_good $ca
            } else {
                assert_equal [ocsp_info state] pending
                assert_equal [ocsp_info failures_verify] [expr {[dict get $before failures_verify] + 1}] \
                    [ocsp_info last_error]
                ocsp_assert_staple none
            }
        }
    }

    test "6.[incr six] signed by the server's own leaf -> verify" {
        set before [ocsp_info_all]
        # The key that signs must be that of the certificate asked about: the behaviour needs the leaf first.
        set leaf [ocsp_pki_leaf $ca leaf6own -aia [list $url]]
        ocsp_responder_behave $responder [list signer $leaf]
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_above failures_verify [dict get $before failures_verify]
        assert_equal [ocsp_info state] pending
        ocsp_assert_staple none
    }

    # ---- 8: entries ----
    foreach {name behaviour verdict} {
        {ours alone}                                        {entries ours}                      good
        {ours first of three}                               {entries {ours serial issuer}}      good
        {ours in the middle}                                {entries {serial ours issuer}}      good
        {ours last}                                         {entries {serial issuer ours}}      good
        {SHA-256 CertIDs}                                   {hash sha256}                       good
        {SHA-256 CertIDs, several}                          {hash sha256 entries {serial issuer ours}} good
        {ours good among revoked ones}
            {entries {{serial 0A0B0C status revoked} ours {serial 0D0E0F status revoked}}}      good
        {ours missing: no entry at all}                     {entries {}}                        verify
        {another serial}                                    {entries serial}                    verify
        {the same serial of another issuer}                 {entries issuer}                    verify
        {both of these}                                     {entries {serial issuer}}           verify
        {another serial by SHA-256}                         {hash sha256 entries {serial issuer}} verify
    } {
        test "8.[incr eight] $name -> $verdict" {
            set before [ocsp_info_all]
            set leaf [fresh leaf8$eight [list $url] $behaviour]
            ocsp_wait_above refreshes [dict get $before refreshes]
            if {$verdict eq "good"} {
                assert_equal [ocsp_info state] good [ocsp_info last_error]
                ocsp_assert_staple good
            } else {
                assert_equal [ocsp_info state] pending [ocsp_info last_error]
                # An answer without entries does not even parse for some: both words would be right.
                set counted [expr {[ocsp_info failures_verify] - [dict get $before failures_verify]}]
                if {$name eq "ours missing: no entry at all"} {
                    incr counted [expr {[ocsp_info failures_response] - [dict get $before failures_response]}]
                }
                assert_equal $counted 1 [ocsp_info last_error]
                ocsp_assert_staple none
            }
        }
    }

    test "8.[incr eight] ours revoked among good ones -> revoked" {
        fresh leaf8$eight [list $url] {status revoked entries {{serial 0A0B0C status good} ours}}
        ocsp_wait_info state revoked
        ocsp_assert_staple revoked
        ocsp_assert_refused $ca
    }

    # ---- 9: dates ----
    foreach {name behaviour verdict} {
        {thisUpdate in the future by 200 s}     {this 200 next 7200}                good
        {thisUpdate in the future by 400 s}     {this 400 next 7200}                verify
        {nextUpdate in the past}                {this -7200 next -10}               verify
        {nextUpdate before thisUpdate}          {this -100 next -200}               verify
        {thisUpdate long ago, nextUpdate ahead} {this -8640000 next 3600}           good
    } {
        test "9.[incr nine] $name -> $verdict" {
            set before [ocsp_info_all]
            fresh leaf9$nine [list $url] $behaviour
            ocsp_wait_above refreshes [dict get $before refreshes]
            if {$verdict eq "good"} {
                assert_equal [ocsp_info state] good [ocsp_info last_error]
                ocsp_assert_staple good
            } else {
                assert_equal [ocsp_info state] pending
                assert_equal [ocsp_info failures_verify] [expr {[dict get $before failures_verify] + 1}] \
                    [ocsp_info last_error]
                ocsp_assert_staple none
            }
        }
    }

    test "9.[incr nine] no nextUpdate -> good for 10 minutes, asked again at half of that" {
        set leaf [fresh leaf9$nine [list $url] {next none}]
        ocsp_wait_info state good
        assert_equal [ocsp_info next_update] 0
        assert_range [ocsp_info expires_in_seconds] 500 600
        assert_range [ocsp_info next_refresh_in_seconds] 200 300
        ocsp_assert_staple good
    }

    test "9.[incr nine] nextUpdate beyond the certificate's own end -> good until that" {
        set leaf [fresh leaf9$nine [list $url] {next 86400} -to +300]
        ocsp_wait_info state good
        assert_range [ocsp_info expires_in_seconds] 200 300
        ocsp_assert_staple good
    }

    test "9.[incr nine] nextUpdate beyond the signer's end -> good until that" {
        set brief [ocsp_pki_delegate $ca briefdelegate -to +300]
        set leaf [fresh leaf9$nine [list $url] [list next 86400 signer $brief]]
        ocsp_wait_info state good
        assert_range [ocsp_info expires_in_seconds] 200 300
        ocsp_assert_staple good
    }

    test {9 an older answer than the one held is a failure of kind response, the same one is none} {
        set leaf [fresh leaf9old [list $url] {this -100 produced -90 next 3600}]
        ocsp_wait_info state good
        set before [ocsp_info_all]
        ocsp_responder_behave $responder {this -1000 next 3600}
        ocsp_round
        assert_equal [ocsp_info failures_response] [expr {[dict get $before failures_response] + 1}]
        assert_equal [ocsp_info this_update] [dict get $before this_update]
        ocsp_responder_behave $responder [list this @[dict get $before this_update] \
            produced @[dict get $before produced_at] next 3600]
        ocsp_round
        assert_equal [ocsp_info failures_response] [expr {[dict get $before failures_response] + 1}]
        assert_equal [ocsp_info consecutive_failures] 0
        # At an equal thisUpdate the later producedAt is newer; where that is equal, too, revoked replaces good and never
        # the reverse.
        foreach {produced status want} {
            -60 revoked revoked   -60 good revoked   -50 good good   -50 revoked revoked   -55 good revoked
        } {
            ocsp_responder_behave $responder [list this @[dict get $before this_update] next 3600 \
                produced @[expr {[dict get $before this_update] + 100 + $produced}] status $status]
            ocsp_round
            assert_equal [ocsp_info state] $want "producedAt $produced, $status"
        }
        assert_equal [ocsp_staple] revoked
    }
}

# ---- 4: names, addresses, https, proxies. The server is told by a preloaded library what a name resolves to. ----

set names [file join $dir names]
set preload [list LD_PRELOAD [ocsp_tool fault_inject] FAULT_NAMES $names]
set port [dict get $responder port]

foreach {number name addresses} {
    7 {without a route}     {2001:db8::1 127.0.0.1}
    8 {refusing}            {127.0.0.3 127.0.0.1}
    9 {a black hole}        {127.0.0.2 127.0.0.1}
} {
    test "4.$number a name with two addresses, the first one $name" {
        ocsp_file_write $names "two.test $addresses\n"
        set hole {}
        if {$name eq "a black hole"} {
            set hole [open |[list [ocsp_tool black_hole] 127.0.0.2 $port] r+]
            assert_equal [gets $hole] ready
        }
        set leaf [ocsp_pki_leaf $ca leaf4x$number -aia [list http://two.test:$port/two]]
        ocsp_responder_behave $responder good
        ocsp_responder_forget $responder
        start_server [concat [ocsp_server $leaf $ca retry-delay 3600 timeout 8] [list env $preload]] {
            ocsp_wait_info state good
            assert_equal [ocsp_info refresh_failures] 0
            assert_equal [ocsp_responder_count $responder -path /two] 1
            ocsp_assert_good $ca
        }
        if {$hole ne {}} {close $hole}
    }
}

test {4.10 a name that does not resolve -> network} {
    ocsp_file_write $names "none.test\n"
    set leaf [ocsp_pki_leaf $ca leaf410 -aia [list http://none.test:$port/]]
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600] [list env $preload]] {
        ocsp_wait_info failures_network 1
        assert_match {*none.test*} [ocsp_info last_error]
        assert_equal [ocsp_info state] pending
        ocsp_assert_staple none
    }
}

test {4.11 an https responder: trusted by tls-ca-cert-file and its name, or not asked} {
    set tls_leaf [ocsp_pki_leaf $ca tlsresponder -san DNS:localhost]
    set secure [ocsp_responder_start -ca $ca -tls $tls_leaf]
    set leaf [ocsp_pki_leaf $ca leaf411 -aia [list [dict get $secure url]]]
    start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 20] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
        # The same responder by a name that its certificate does not have.
        ocsp_set responder-url https://127.0.0.1:[dict get $secure port]/
        ocsp_wait_above refresh_failures 0
        assert_equal [ocsp_info failures_network] 1 [ocsp_info last_error]
        assert_match {*not valid for the name 127.0.0.1: *} [ocsp_info last_error]
    }
    ocsp_responder_stop $secure

    # Of a CA that nobody told us of.
    set stranger [ocsp_responder_start -ca $ca -tls [ocsp_pki_leaf $other_ca stranger]]
    set leaf [ocsp_pki_leaf $ca leaf411b -aia [list [dict get $stranger url]]]
    start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 20] {
        ocsp_wait_info failures_network 1
        assert_equal [ocsp_info state] pending
        assert_equal [ocsp_responder_count $stranger] 0
    }
    ocsp_responder_stop $stranger
}

test {4.12 a proxy from http_proxy is asked in absolute form, but not for what no_proxy names} {
    set proxy [ocsp_responder_start -ca $ca]
    ocsp_file_write $names "far.test 127.0.0.9\n"
    set leaf [ocsp_pki_leaf $ca leaf412 -aia [list http://far.test:$port/far]]
    set environment [list http_proxy [dict get $proxy url] {*}$preload]
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600 timeout 20] [list env $environment]] {
        ocsp_wait_info state good
        set request [lindex [ocsp_responder_log $proxy] 0]
        assert_equal [dict get $request proxy] 1
        assert_equal [dict get $request target] http://far.test:$port/far
        ocsp_assert_good $ca
        # A failure names the proxy too.
        ocsp_responder_behave $proxy {http 503}
        r debug ocsp-refresh
        ocsp_wait_info refresh_failures 1
        assert_equal [count_log_message 0 127.0.0.1:[dict get $proxy port]] 1
    }
    ocsp_responder_forget $proxy
    set leaf [ocsp_lab_leaf $lab leaf412b]
    ocsp_responder_behave $responder good
    lappend environment no_proxy 127.0.0.1
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600] [list env $environment]] {
        ocsp_wait_info state good
        assert_equal [ocsp_responder_count $proxy] 0
    }
    ocsp_responder_stop $proxy
}

ocsp_lab_close $lab
