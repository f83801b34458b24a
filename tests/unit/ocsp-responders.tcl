# ocsp-responders.tcl - requests and their order (scenario 4), responder-url (5), who signs (6), SingleResponses (8),
# times in a response (9), host names, https and proxies (4 again).
#
# Scenarios 6, 8 and 9 are tables. Each row gets a new certificate, so that there is no response from the row before it.
#
# Weight: 17
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

# A port without a listener.
set dead http://127.0.0.1:[find_available_port]/dead

# Sets the responder's behaviour and loads a new certificate with these URLs, which it returns.
proc fresh {name urls behaviour args} {
    set leaf [ocsp_pki_leaf $::ca $name -aia $urls {*}$args]
    ocsp_responder_behave $::responder $behaviour
    ocsp_responder_forget $::responder
    ocsp_load_certificate $leaf
    ocsp_wait_info cert_serial [dict get $leaf serial]
    return $leaf
}

proc requests_for {leaf} {
    set words {}
    foreach request [ocsp_responder_log $::responder] {
        if {[dict get $request serial] eq [dict get $leaf serial]} {
            lappend words [dict get $request method][dict get $request path]
        }
    }
    return $words
}

start_server [ocsp_server [dict get $lab leaf] $ca retry-delay 3600 timeout 20] {
    test {fetch: a responder that accepts POST only (4.1)} {
        set leaf [fresh leaf41 [list ${url}p] {get 405}]
        ocsp_wait_info state good
        assert_equal [requests_for $leaf] POST/p
        ocsp_assert_good $ca
    }

    test {fetch: a responder that accepts GET only (4.2)} {
        set leaf [fresh leaf42 [list ${url}p] {post 405}]
        ocsp_wait_info state good
        assert_equal [requests_for $leaf] {POST/p GET/p}
        ocsp_assert_good $ca
    }

    test {fetch: the first of two URLs refuses connections (4.3)} {
        set leaf [fresh leaf43 [list $dead ${url}p] good]
        ocsp_wait_info state good
        assert_equal [requests_for $leaf] POST/p
        assert_equal [ocsp_info responder_url] ${url}p
        ocsp_assert_good $ca
    }

    test {fetch: all URLs refuse connections: last_error names each, and it is one failure (4.4)} {
        set before [ocsp_info_all]
        set leaf [fresh leaf44 [list $dead/1 $dead/2 $dead/3] good]
        ocsp_wait_above refresh_failures [dict get $before refresh_failures]
        foreach n {1 2 3} {assert_match "*$dead/$n*" [ocsp_info last_error]}
        assert_equal [ocsp_info last_error_code] connect
        assert_equal [ocsp_info state] pending
        assert_equal [ocsp_info failures_network] [expr {[dict get $before failures_network] + 1}]
        assert_equal [ocsp_info refresh_failures] [expr {[dict get $before refresh_failures] + 1}]
        ocsp_assert_staple none
    }

    test {fetch: each URL fails in a different way: the failure of the last one is counted (4.5)} {
        set before [ocsp_info_all]
        set leaf [ocsp_pki_leaf $ca leaf45 -aia [list $dead ${url}a ${url}b]]
        ocsp_responder_behave $responder {http 500} /a
        ocsp_responder_behave $responder {signature bad} /b
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_above failures_verify [dict get $before failures_verify]
        assert_equal [ocsp_info refresh_failures] [expr {[dict get $before refresh_failures] + 1}]
        foreach kind {network http} {assert_equal [ocsp_info failures_$kind] [dict get $before failures_$kind]}
        assert_equal [ocsp_info last_error_code] signature
        ocsp_assert_staple none
    }

    test {fetch: the request has a SHA-1 CertID, no nonce and the right Content-Type (4.6)} {
        set leaf [fresh leaf46 [list ${url}p] good]
        ocsp_wait_info state good
        set request [lindex [ocsp_responder_log $responder] 0]
        assert_equal [dict get $request hash] sha1
        assert_equal [dict get $request nonce] 0
        assert_equal [dict get $request headers content-type] application/ocsp-request
        assert_equal [dict get $request der] [binary encode hex [ocsp_request_der $leaf $ca sha1]]
    }

    test {fetch: URLs are tried in the order of the certificate (4.6)} {
        set leaf [ocsp_pki_leaf $ca leaf46b -aia [list ${url}z ${url}b ${url}m ${url}a]]
        foreach path {/z /b /m} {ocsp_responder_behave $responder {http 500} $path}
        ocsp_responder_behave $responder good /a
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_info state good
        assert_equal [requests_for $leaf] {POST/z POST/b POST/m POST/a}
        foreach path {/z /b /m /a} {ocsp_responder_behave $responder good $path}
    }

    test {responder-url: overrides the certificate's URL, which is used again once it is empty (5)} {
        set leaf [fresh leaf5 [list ${url}own] good]
        ocsp_wait_info state good
        # The change itself causes a fetch.
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

    test {responder-url: serves a certificate without a URL (5)} {
        set leaf [fresh leaf5b {} good]
        ocsp_wait_info state no-responder
        ocsp_set responder-url ${url}other
        ocsp_wait_info state good
        ocsp_assert_good $ca
        ocsp_set responder-url ""
    }

    # ---- who signs (6) ----
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
        {the CA's key, its certificate sent}             [list signer ca certs [list $ca]]               good \
        {the CA's key, ResponderID byKey}                {signer ca responder_id key}                    good \
        {an authorized responder (OCSPSigning)}          [list signer $delegate]                         good \
        {an authorized responder, ResponderID byKey}     [list signer $delegate responder_id key]        good \
        {an authorized responder with an RSA key}        [list signer $rsa_delegate]                     good \
        {an authorized responder, SHA-512}               [list signer $delegate digest sha512]           good \
        {an authorized responder, certificate not sent}  [list signer $delegate certs none]              signer \
        {a certificate of the CA without the EKU}       [list signer $no_eku]                           signer \
        {an authorized responder that has expired}       [list signer $expired_delegate]                 expired \
        {an authorized responder of another CA}          [list signer $foreign]                          signer \
        {an authorized responder of another CA, with that CA} [list signer $foreign certs [list $foreign $other_ca]] \
                                                                                                        signer \
        {another CA's own key}                          [list signer $other_ca certs [list $other_ca]]  signer \
        {a CA of the same name with another key}        [list signer $twin certs [list $twin]]          signer \
        {an authorized responder of that CA}             [list signer $twin_delegate certs [list $twin_delegate $twin]] \
                                                                                                        signer \
        {a flipped bit in the signature}                {signature bad}                                 signature \
        {no signature}                                  {signature empty}                               signature \
    ] {
        test "signer: $name: $verdict (6.[incr six])" {
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
                assert_equal [ocsp_info last_error_code] $verdict [ocsp_info last_error]
                ocsp_assert_staple none
            }
        }
    }

    test "signer: the server's own certificate: signer (6.[incr six])" {
        set before [ocsp_info_all]
        # The signer is the certificate that is asked about, so it must exist before the behaviour is set.
        set leaf [ocsp_pki_leaf $ca leaf6own -aia [list $url]]
        ocsp_responder_behave $responder [list signer $leaf]
        ocsp_load_certificate $leaf
        ocsp_wait_info cert_serial [dict get $leaf serial]
        ocsp_wait_above failures_verify [dict get $before failures_verify]
        assert_equal [ocsp_info state] pending
        assert_equal [ocsp_info last_error_code] signer [ocsp_info last_error]
        ocsp_assert_staple none
    }

    # ---- SingleResponses (8) ----
    foreach {name behaviour verdict} {
        {ours alone}                                        {entries ours}                      good
        {ours first of three}                               {entries {ours serial issuer}}      good
        {ours in the middle}                                {entries {serial ours issuer}}      good
        {ours last}                                         {entries {serial issuer ours}}      good
        {SHA-256 CertIDs}                                   {hash sha256}                       good
        {SHA-256 CertIDs, several}                          {hash sha256 entries {serial issuer ours}} good
        {ours good among revoked ones}
            {entries {{serial 0A0B0C status revoked} ours {serial 0D0E0F status revoked}}}      good
        {no SingleResponse}                                 {entries {}}                        no-entry
        {another serial}                                    {entries serial}                    no-entry
        {the same serial of another issuer}                 {entries issuer}                    no-entry
        {another serial, and the same of another issuer}    {entries {serial issuer}}           no-entry
        {another serial, SHA-256}                           {hash sha256 entries {serial issuer}} no-entry
    } {
        test "SingleResponse: $name: $verdict (8.[incr eight])" {
            set before [ocsp_info_all]
            set leaf [fresh leaf8$eight [list $url] $behaviour]
            ocsp_wait_above refreshes [dict get $before refreshes]
            if {$verdict eq "good"} {
                assert_equal [ocsp_info state] good [ocsp_info last_error]
                ocsp_assert_staple good
            } else {
                assert_equal [ocsp_info state] pending [ocsp_info last_error]
                # Whether a response without any SingleResponse parses depends on OpenSSL: both kinds are right.
                set counted [expr {[ocsp_info failures_verify] - [dict get $before failures_verify]}]
                if {$name eq "no SingleResponse"} {
                    incr counted [expr {[ocsp_info failures_response] - [dict get $before failures_response]}]
                }
                assert_equal $counted 1 [ocsp_info last_error]
                if {$name ne "no SingleResponse"} {
                    assert_equal [ocsp_info last_error_code] $verdict [ocsp_info last_error]
                }
                ocsp_assert_staple none
            }
        }
    }

    test "SingleResponse: ours revoked among good ones: revoked (8.[incr eight])" {
        fresh leaf8$eight [list $url] {status revoked entries {{serial 0A0B0C status good} ours}}
        ocsp_wait_info state revoked
        ocsp_assert_staple revoked
        ocsp_assert_refused $ca
    }

    # ---- times (9) ----
    foreach {name behaviour verdict} {
        {thisUpdate in the future by 200 s}     {this 200 next 7200}                good
        {thisUpdate in the future by 400 s}     {this 400 next 7200}                not-yet-valid
        {nextUpdate in the past}                {this -7200 next -10}               expired
        {nextUpdate before thisUpdate}          {this -100 next -200}               expired
        {thisUpdate long ago, nextUpdate ahead} {this -8640000 next 3600}           good
    } {
        test "times: $name: $verdict (9.[incr nine])" {
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
                assert_equal [ocsp_info last_error_code] $verdict [ocsp_info last_error]
                ocsp_assert_staple none
            }
        }
    }

    test "times: no nextUpdate: good for 10 minutes, refreshed after half of that (9.[incr nine])" {
        set leaf [fresh leaf9$nine [list $url] {next none}]
        ocsp_wait_info state good
        assert_equal [ocsp_info next_update] 0
        assert_range [ocsp_info expires_in_seconds] 500 600
        assert_range [ocsp_info next_refresh_in_seconds] 200 300
        ocsp_assert_staple good
    }

    test "times: nextUpdate after the certificate's notAfter: good until notAfter (9.[incr nine])" {
        set leaf [fresh leaf9$nine [list $url] {next 86400} -to +300]
        ocsp_wait_info state good
        assert_range [ocsp_info expires_in_seconds] 200 300
        ocsp_assert_staple good
    }

    test "times: nextUpdate after the notAfter of the signer's certificate: good until notAfter (9.[incr nine])" {
        set brief [ocsp_pki_delegate $ca briefdelegate -to +300]
        set leaf [fresh leaf9$nine [list $url] [list next 86400 signer $brief]]
        ocsp_wait_info state good
        assert_range [ocsp_info expires_in_seconds] 200 300
        ocsp_assert_staple good
    }

    test {times: a response older than the current one is a response failure, the same one is none (9)} {
        set leaf [fresh leaf9old [list $url] {this -100 produced -90 next 3600}]
        ocsp_wait_info state good
        set before [ocsp_info_all]
        ocsp_responder_behave $responder {this -1000 next 3600}
        ocsp_refresh
        assert_equal [ocsp_info failures_response] [expr {[dict get $before failures_response] + 1}]
        assert_equal [ocsp_info last_error_code] older
        assert_equal [ocsp_info this_update] [dict get $before this_update]
        ocsp_responder_behave $responder [list this @[dict get $before this_update] \
            produced @[dict get $before produced_at] next 3600]
        ocsp_refresh
        assert_equal [ocsp_info failures_response] [expr {[dict get $before failures_response] + 1}]
        assert_equal [ocsp_info consecutive_failures] 0
        # Of two responses with the same thisUpdate, the one with the later producedAt is newer. With the same
        # producedAt as well, revoked replaces good, and good never replaces revoked.
        foreach {produced status want} {
            -60 revoked revoked   -60 good revoked   -50 good good   -50 revoked revoked   -55 good revoked
        } {
            ocsp_responder_behave $responder [list this @[dict get $before this_update] next 3600 \
                produced @[expr {[dict get $before this_update] + 100 + $produced}] status $status]
            ocsp_refresh
            assert_equal [ocsp_info state] $want "producedAt $produced, $status"
        }
        assert_equal [ocsp_staple] revoked
    }
}

# ---- host names, https, proxies (4). A preloaded library, support/fault_inject.c, resolves the names. ----

set names [file join $dir names]
set preload [list LD_PRELOAD [ocsp_tool fault_inject] FAULT_NAMES $names]
set port [dict get $responder port]

foreach {number name addresses} {
    7 {has no route}        {2001:db8::1 127.0.0.1}
    8 {refuses connections} {127.0.0.3 127.0.0.1}
    9 {drops packets}       {127.0.0.2 127.0.0.1}
} {
    test "fetch: a name with two addresses, the first of which $name (4.$number)" {
        ocsp_file_write $names "two.test $addresses\n"
        set hole {}
        if {$name eq "drops packets"} {
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

test {fetch: a name that does not resolve is a network failure (4.10)} {
    ocsp_file_write $names "none.test\n"
    set leaf [ocsp_pki_leaf $ca leaf410 -aia [list http://none.test:$port/]]
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600] [list env $preload]] {
        ocsp_wait_info failures_network 1
        assert_match {*none.test*} [ocsp_info last_error]
        assert_equal [ocsp_info last_error_code] dns
        assert_equal [ocsp_info state] pending
        ocsp_assert_staple none
    }
}

test {fetch: an https responder must be trusted through tls-ca-cert-file and have the right name (4.11)} {
    set tls_leaf [ocsp_pki_leaf $ca tlsresponder -san DNS:localhost]
    set secure [ocsp_responder_start -ca $ca -tls $tls_leaf]
    set leaf [ocsp_pki_leaf $ca leaf411 -aia [list [dict get $secure url]]]
    start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 20] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
        # The same responder under a name that is not in its certificate.
        ocsp_set responder-url https://127.0.0.1:[dict get $secure port]/
        ocsp_wait_above refresh_failures 0
        assert_equal [ocsp_info failures_network] 1 [ocsp_info last_error]
        assert_match {*the name 127.0.0.1*} [ocsp_info last_error]
        assert_equal [ocsp_info last_error_code] tls
    }
    ocsp_responder_stop $secure

    # A responder with a certificate of another CA.
    set stranger [ocsp_responder_start -ca $ca -tls [ocsp_pki_leaf $other_ca stranger]]
    set leaf [ocsp_pki_leaf $ca leaf411b -aia [list [dict get $stranger url]]]
    start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 20] {
        ocsp_wait_info failures_network 1
        assert_equal [ocsp_info last_error_code] tls
        assert_equal [ocsp_info state] pending
        assert_equal [ocsp_responder_count $stranger] 0
    }
    ocsp_responder_stop $stranger
}

test {fetch: a proxy from http_proxy gets requests in absolute form, except for hosts in no_proxy (4.12)} {
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
        # The log names the proxy when a refresh fails.
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

# ---- the directive proxy ----

# Checks that nothing that an operator reads has the password of `proxy`, as written or decoded, nor its base64.
proc assert_no_password {where text} {
    foreach secret [list S%65cret SecretPassword [string trimright [binary encode base64 user:SecretPassword] =]] {
        if {[string first $secret $text] >= 0} {fail "$where has the proxy's password: $secret"}
    }
}

test {proxy: with credentials, used for every host, and its password is not in INFO, log and replies (4.13)} {
    set proxy [ocsp_responder_start -ca $ca]
    set value http://user:S%65cretPassword@127.0.0.1:[dict get $proxy port]
    set expected "Basic [binary encode base64 user:SecretPassword]"
    ocsp_file_write $names "far.test 127.0.0.9\n"
    set leaf [ocsp_pki_leaf $ca leaf413 -aia [list http://far.test:$port/far]]
    # no_proxy is for the proxy of the environment.
    set environment [list no_proxy * http_proxy http://127.0.0.1:1 {*}$preload]
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600 timeout 20 proxy $value slowlog-log-slower-than 0 \
        loglevel debug] [list env $environment]] {
        ocsp_wait_info state good
        set request [lindex [ocsp_responder_log $proxy] 0]
        assert_equal [dict get $request proxy] 1
        assert_equal [dict get $request target] http://far.test:$port/far
        assert_equal [dict get $request headers proxy-authorization] $expected
        ocsp_assert_good $ca
        # Failures of every kind, and values that are refused.
        foreach behaviour {{http 407} {http 503} {drop close} {type text/html}} {
            ocsp_responder_behave $proxy $behaviour
            ocsp_refresh
            assert_match "*through the proxy 127.0.0.1:[dict get $proxy port]*" [ocsp_info last_error]
            assert_no_password INFO [r info everything]
            catch {r ocsp.refresh} why
            assert_no_password "the reply" $why
        }
        foreach bad [list $value/path http://user:SecretPassword@proxy http://user:S%65cretPassword%@proxy:3128 \
            http://user:SecretPassword@proxy:99999 https://user:SecretPassword@proxy:3128] {
            catch {ocsp_set proxy $bad} why
            assert_match {*CONFIG SET failed*} $why
            assert_no_password "the reply" $why
        }
        # Several directives at once, of which another one is refused.
        catch {r config set [ocsp_directive proxy] $value [ocsp_directive timeout] 0} why
        assert_no_password "the reply" $why
        ocsp_set proxy none
        ocsp_set proxy $value
        assert_equal [ocsp_get proxy] $value
        ocsp_responder_behave $proxy good
        r config rewrite
        # SLOWLOG of a stock server has it: the module API takes the flag "sensitive" and drops it (seen in
        # Valkey 8.0 and Redis 7.0). tls-ocsp.tcl checks a patched server.
        if {![ocsp_is_module]} {assert_no_password SLOWLOG [r slowlog get -1]}
        assert_no_password "CLIENT LIST" [r client list]
        assert_no_password "the log" [read_text [srv 0 stdout]]
        restart_server 0 true false
        assert_equal [ocsp_get proxy] $value
        ocsp_responder_forget $proxy
        ocsp_refresh
        assert_equal [dict get [lindex [ocsp_responder_log $proxy] 0] headers proxy-authorization] $expected
        assert_no_password "the log" [read_text [srv 0 stdout]]
    }
    ocsp_responder_stop $proxy
}

test {proxy: none beats the environment, and a changed proxy is tried at once after a failure (4.14)} {
    ocsp_responder_behave $responder good
    set leaf [ocsp_lab_leaf $lab leaf414]
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600 proxy none] \
        [list env {http_proxy http://user:SecretPassword@127.0.0.1:1}]] {
        ocsp_wait_info state good
        assert_equal [ocsp_info refresh_failures] 0
        ocsp_set proxy ""
        ocsp_refresh
        assert_match {*through the proxy 127.0.0.1:1: *} [ocsp_info last_error]
        assert_no_password INFO [r info everything]
        # No retry is due for an hour.
        ocsp_set proxy none
        ocsp_wait_info consecutive_failures 0
        # What works is not tried again.
        set refreshes [ocsp_info refreshes]
        ocsp_set proxy http://127.0.0.1:1
        after 2500
        assert_equal [ocsp_info refreshes] $refreshes
        assert_no_password "the log" [read_text [srv 0 stdout]]
    }
    # A dead proxy from the start, then none.
    start_server [ocsp_server $leaf $ca retry-delay 3600 cache-dir {} proxy http://user:SecretPassword@127.0.0.1:1] {
        ocsp_wait_info refresh_failures 1
        assert_equal [count_log_message 0 {through the proxy 127.0.0.1:1}] 1
        assert_equal [ocsp_info state] pending
        ocsp_set proxy none
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_no_password "the log" [read_text [srv 0 stdout]]
    }
}

test {proxy: a changed one ends a fetch that hangs in the old one (4.15)} {
    set proxy [ocsp_responder_start -ca $ca -behave hang]
    set leaf [ocsp_lab_leaf $lab leaf415]
    start_server [ocsp_server $leaf $ca timeout 60 proxy [string trimright [dict get $proxy url] /]] {
        ocsp_wait_hanging $proxy
        ocsp_set proxy none
        ocsp_wait_info state good
        assert_equal [ocsp_info refresh_failures] 0
    }
    ocsp_responder_stop $proxy
}

test {proxy: an https responder is reached by CONNECT (4.16)} {
    set proxy [ocsp_responder_start -ca $ca]
    set secure [ocsp_responder_start -ca $ca -tls [ocsp_pki_leaf $ca tls416 -san DNS:localhost]]
    set leaf [ocsp_pki_leaf $ca leaf416 -aia [list [dict get $secure url]]]
    start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 20 \
        proxy http://user:SecretPassword@127.0.0.1:[dict get $proxy port]] {
        ocsp_wait_info state good
        set request [lindex [ocsp_responder_log $proxy] 0]
        assert_equal [dict get $request method] CONNECT
        assert_match {Basic *} [dict get $request headers proxy-authorization]
        # The responder behind the tunnel does not get the password.
        assert {![dict exists [lindex [ocsp_responder_log $secure] 0] headers proxy-authorization]}
        ocsp_assert_good $ca
    }
    ocsp_responder_stop $secure
    ocsp_responder_stop $proxy
}
