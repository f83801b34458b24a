# ocsp-answers.tcl - answers of a responder, and what each of them means (scenario 7).
#
# One server, one responder, a certificate with two responder URLs (/a and /b). Each row of a table is a test: both
# URLs answer in that way. The refresh must fail with the kind of failure in the table, name both URLs, make the
# requests that are due after such an answer, and leave the current response in place. Then /b answers well, and a
# refresh must succeed.
#
# Weight: 35
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# name, behaviour, kind of failure, its word, next request: url (the next URL, no GET) or get (GET to the same URL, then the next)
set rows {
    {tryLater}                                  {response_status tryLater}        response responder-status url
    {internalError}                             {response_status internalError}   response responder-status url
    {malformedRequest}                          {response_status malformedRequest} response responder-status url
    {sigRequired}                               {response_status sigRequired}     response responder-status url
    {unauthorized}                              {response_status unauthorized}    response responder-status url
    {an undefined response status}              {response_status 9}               response responder-status url
    {certStatus unknown}                        {status unknown}                  response unknown url
    {empty body}                                {body empty}                      response der url
    {one byte}                                  {body byte}                       response der url
    {truncated DER}                             {body truncated}                  response der url
    {bytes after the DER}                       {body trailing}                   response der url
    {HTML with status 200 and its own type}     {body html type text/html}        http http-type url
    {right body with a wrong type}              {type application/octet-stream}   http http-type url
    {right body without a type}                 {type none}                       http http-type url
    {chunked, a size that is no number}         {length chunked-bad}              http http-body url
    {body over 64 KiB, announced}               {length huge}                     http http-body url
    {body over 64 KiB, endless}                 {length endless body html}        http http-body url
    {301 to a right answer}                     {http 301 location /c}            http http-status url
    {302 to a right answer}                     {http 302 location /c}            http http-status url
    {307 to a right answer}                     {http 307 location /c}            http http-status url
    {308 to a right answer}                     {http 308 location /c}            http http-status url
    {500 with HTML}                             {http 500 body html type text/html} http http-status url
    {500 with a right body}                     {http 500}                        http http-status url
    {502 with HTML}                             {http 502 body html type text/html} http http-status url
    {502 with a right body}                     {http 502}                        http http-status url
    {503 with HTML}                             {http 503 body html type text/html} http http-status url
    {503 with a right body}                     {http 503}                        http http-status url
    {400 to a POST}                             {http 400 body html type text/html} http http-status get
    {403 to a POST}                             {http 403 body html type text/html} http http-status get
    {404 to a POST}                             {http 404 body html type text/html} http http-status get
    {404 with a right body}                     {http 404}                        http http-status get
    {405 to a POST}                             {http 405 body html type text/html} http http-status get
    {429 to a POST}                             {http 429 body html type text/html} http http-status get
    {501 to a POST}                             {http 501 body html type text/html} http http-status get
    {body shorter than Content-Length}          {length short}                    network closed url
    {reset}                                     {drop reset}                      network closed url
    {reset in the middle of the body}           {drop reset-mid}                  network closed url
    {closed at once}                            {drop close}                      network closed url
    {never answers}                             {drop hang}                       network timeout url
    {one byte a second}                         {piece 1 piece_ms 1000 piece_from start} network timeout url
    {one byte of the body a second}             {piece 1 piece_ms 1000}           network timeout url
    {endless headers}                           {drop headers}                    network http-header url
}

# Answers of other HTTP servers: name, behaviour, kind of failure, its word, what last_error must name.
set explained_rows {
    {compressed without being requested}
        {encode gzip} http http-body {*Content-Encoding is gzip*}
    {Transfer-Encoding: gzip}
        {encode gzip-te} http http-body {*Transfer-Encoding is gzip*}
    {Transfer-Encoding: gzip, chunked}
        {length chunked headers {{Transfer-Encoding: gzip}}} http http-body {*Transfer-Encoding is gzip*}
    {Content-Type twice, different}
        {headers {{Content-Type: text/html}}} http http-type {*application/ocsp-response and text/html*}
    {two Content-Lengths that differ}
        {headers {{Content-Length: 1}}} http http-body {*}
    {a byte order mark before the status line}
        {before \xef\xbb\xbf} http http-header {*BOM*}
    {HTTP/2}
        {status_line {HTTP/2 200}} http http-header {*"HTTP/2 200"*}
    {a redirect}
        {http 302 location http://new.example/ocsp} http http-status {*302*http://new.example/ocsp*}
    {a redirect with control bytes}
        {http 307 location http://new.example/\x07\x1b\[31m/ocsp} http http-status {*307*http://new.example/\[31m/ocsp*}
    {a switch of protocols}
        {http 101} http http-status {*101*}
    {an interim answer alone}
        {before "HTTP/1.1 100 Continue\r\n\r\n" status_line "HTTP/1.1 199 Wait" body empty} network closed {*}
}

# Unusual answers that are right.
set good_rows {
    {HTTP/1.0}                          {version 1.0}
    {HTTP/1.1 kept open}                {keep 1}
    {type with a charset}               {type {application/ocsp-response; charset=utf-8}}
    {type in capitals}                  {type Application/OCSP-Response}
    {lower-case headers}                {case lower}
    {body in many small pieces}         {piece 7 piece_ms 1}
    {the whole answer in small pieces}  {piece 11 piece_ms 1 piece_from start}
    {type twice}                        {headers {{content-type: Application/OCSP-Response;x=y}}}
    {an empty line before the status line}  {before "\r\n"}
    {interim answers}                   {before "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: </>\r\n\r\n"}
    {chunked}                           {length chunked}
    {chunked and kept open}             {length chunked keep 1}
    {chunked, extensions and trailers}  {length chunked-ext}
    {chunked in many small pieces}      {length chunked-ext piece 3 piece_ms 1 piece_from start}
    {Transfer-Encoding: identity}       {headers {{Transfer-Encoding: identity}}}
    {line feeds alone}                  {line_end lf}
    {Content-Length three times, equal} {length twice}
    {no length}                         {length none}
    {no length and kept open}           {length none keep 1}
    {426 to HTTP/1.0}                   {min_version 1.1}
    {505 to HTTP/1.0}                   {min_version 1.1 refuse_old 505}
    {further headers}                   {headers {{Cache-Control: max-age=3600} {X-Nothing: at all} {ETag: "0"}}}
}

# Returns the requests since the responder's log was emptied, in the form "POST/a GET/a POST/b".
proc requests {responder} {
    set words {}
    foreach request [ocsp_responder_log $responder] {
        lappend words [dict get $request method][dict get $request path]
    }
    return $words
}

ocsp_setup -paths {/a /b}
set requests_of {url {POST/a POST/b} get {POST/a GET/a POST/b GET/b}}

# Returns the timeout for a row of the table, in seconds: short where the answer never comes in full, and otherwise long
# enough for a busy machine.
proc timeout_for {behaviour while_failing} {
    set never_complete {hang headers piece_ms}
    foreach word $behaviour {
        if {$word in $never_complete} {return [expr {$while_failing ? 1 : 3}]}
    }
    return 20
}

# Retries are an hour apart, so that every refresh here is forced by the test.
start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 20] {
    ocsp_wait_info state good

    test {answer: a good response is current before any bad answer (7)} {
        assert_equal [ocsp_info state] good
        ocsp_assert_good $ca
    }

    foreach {name behaviour kind code next} $rows {
        set then [expr {$next eq "get" ? "GET, then " : {}}]
        test "answer: $name: $kind failure, then ${then}the next URL (7.[incr number])" {
            ocsp_set timeout [timeout_for $behaviour 1]
            set before [ocsp_info_all]
            foreach path {/a /b} {ocsp_responder_behave $responder $behaviour $path}
            ocsp_responder_forget $responder
            r debug ocsp-refresh
            ocsp_wait_above refresh_failures [dict get $before refresh_failures]
            set after [ocsp_info_all]

            # One failure, of this kind and no other.
            foreach each {network http response verify} {
                assert_equal [dict get $after failures_$each] \
                    [expr {[dict get $before failures_$each] + ($each eq $kind)}] \
                    "failures_$each; last_error: [dict get $after last_error]"
            }
            assert_equal [dict get $after last_error_code] $code [dict get $after last_error]
            assert_equal [dict get $after refreshes] [expr {[dict get $before refreshes] + 1}]
            assert_match "*$url*" [dict get $after last_error]
            assert_match "*[lindex [dict get $lab urls] 1]*" [dict get $after last_error]
            # The requests that it made.
            assert_equal [requests $responder] [dict get $requests_of $next]
            # The current response stays, and handshakes still get it.
            foreach field {state this_update next_update response_bytes response_source} {
                assert_equal [dict get $after $field] [dict get $before $field] $field
            }
            set shake [ocsp_handshake]
            assert_equal [dict get $shake staple] good
            assert_equal [dict get $shake this] [dict get $before this_update]
            assert_equal [r ping] PONG

            # With a good answer from the next URL the refresh succeeds.
            ocsp_set timeout [timeout_for $behaviour 0]
            ocsp_responder_behave $responder good /b
            ocsp_responder_forget $responder
            r debug ocsp-refresh
            ocsp_wait_above refreshes [dict get $after refreshes]
            set recovered [ocsp_info_all]
            assert_equal [dict get $recovered refresh_failures] [dict get $after refresh_failures] \
                [dict get $recovered last_error]
            assert_equal [dict get $recovered last_error] {}
            assert_equal [dict get $recovered last_error_code] {}
            assert_equal [requests $responder] [lrange [dict get $requests_of $next] 0 end-[expr {$next eq "get"}]]
        }
    }

    ocsp_set timeout 20
    foreach {name behaviour kind code pattern} $explained_rows {
        test "answer: $name: $kind failure, last_error has the details (7.[incr number])" {
            set before [ocsp_info_all]
            foreach path {/a /b} {ocsp_responder_behave $responder $behaviour $path}
            r debug ocsp-refresh
            ocsp_wait_above refresh_failures [dict get $before refresh_failures]
            assert_equal [ocsp_info last_error_code] $code [ocsp_info last_error]
            assert_match $pattern [ocsp_info last_error]
            assert_equal [ocsp_info failures_$kind] [expr {[dict get $before failures_$kind] + 1}] [ocsp_info last_error]
            assert_equal [ocsp_info this_update] [dict get $before this_update]
            assert_equal [dict get [ocsp_handshake] staple] good
            ocsp_responder_behave $responder good /b
            ocsp_refresh
        }
    }

    foreach {name behaviour} $good_rows {
        test "answer: $name: good (7.[incr number])" {
            # A newer response than the current one, so that INFO shows its acceptance.
            ocsp_pass_this_update
            ocsp_responder_behave $responder $behaviour /a
            ocsp_responder_behave $responder {drop close} /b
            ocsp_responder_forget $responder
            set before [ocsp_info_all]
            r debug ocsp-refresh
            ocsp_wait_above refreshes [dict get $before refreshes]
            assert_equal [ocsp_info last_error] {}
            assert_equal [ocsp_info refresh_failures] [dict get $before refresh_failures]
            assert_morethan [ocsp_info this_update] [dict get $before this_update]
            assert_equal [requests $responder] {POST/a}
            set request [lindex [ocsp_responder_log $responder] 0]
            assert_equal [dict get $request version] 1.1
            assert_match 127.0.0.1:* [dict get $request host]
            assert_equal [dict get $request headers connection] close
            assert_equal [dict get [ocsp_handshake] this] [ocsp_info this_update]
        }
    }

    test "answer: a large response is good and fails no handshake, over 64 KiB: http failure (7.[incr number])" {
        # TLS 1.3 has room for 65535 bytes of extensions with a certificate, 8 of which are not the response. In TLS
        # 1.2, OpenSSL's clients abort the handshake when the CertificateStatus message, 4 bytes longer, exceeds 16384
        # bytes. A response that does not fit is left out: the handshake completes without a staple.
        foreach {size in_tls12 in_tls13} {
            16380 good good
            16381 none good
            65527 none good
            65528 none none
            65536 none none
        } {
            ocsp_pass_this_update
            foreach path {/a /b} {ocsp_responder_behave $responder [list size $size] $path}
            set before [ocsp_info_all]
            ocsp_refresh
            assert_equal [ocsp_info response_bytes] $size
            assert_equal [ocsp_info refresh_failures] [dict get $before refresh_failures]
            foreach {version staple} [list -tls1_2 $in_tls12 -tls1_3 $in_tls13] {
                set shake [ocsp_handshake 0 $version]
                assert_equal [dict get $shake ok] 1 "handshake with $version and a response of $size bytes"
                assert_equal [dict get $shake staple] $staple "$version, $size bytes"
            }
        }
        foreach path {/a /b} {ocsp_responder_behave $responder {size 65537} $path}
        set before [ocsp_info_all]
        r debug ocsp-refresh
        ocsp_wait_above failures_http [dict get $before failures_http]
    }

    test {answer: after all of these openssl and gnutls-cli accept the staple, and the log is not flooded (7)} {
        foreach path {/a /b} {ocsp_responder_behave $responder good $path}
        ocsp_pass_this_update
        ocsp_refresh
        ocsp_assert_good $ca
        # Each failed refresh was followed by a good one: one line for the failure, one for the recovery.
        assert_lessthan_equal [llength [ocsp_log_lines]] [expr {3 * ($number + 5)}]
    }
}

# A connection that is closed right after accept has no path yet: this needs a certificate with one URL.
test "answer: connection closed right after accept: network failure (7.[incr number])" {
    set lab2 [ocsp_lab]
    start_server [ocsp_server [dict get $lab2 leaf] [dict get $lab2 ca] retry-delay 3600] {
        ocsp_wait_info state good
        ocsp_responder_behave [dict get $lab2 responder] {drop accept}
        r debug ocsp-refresh
        ocsp_wait_info failures_network 1
        assert_equal [ocsp_info last_error_code] closed [ocsp_info last_error]
        assert_match "*[lindex [dict get $lab2 urls] 0]*" [ocsp_info last_error]
        ocsp_assert_good [dict get $lab2 ca]
    }
    ocsp_lab_close $lab2
}

# Faults of a proxy, or of an https responder. Each row has its own server.
set responder2 [ocsp_responder_start -ca $ca]
set secure [ocsp_responder_start -ca $ca -tls [ocsp_pki_leaf $ca localhostonly -san DNS:localhost]]
set proxy http://127.0.0.1:[dict get $responder2 port]
set plain [ocsp_responder_url $responder2 /x]
set password p%40ss%2Fw:rd
foreach {name behaviour environment url kind code pattern} [list \
    {a proxy that answers 407 with a page} \
        {http 407 body html type text/html} [list http_proxy $proxy] http://far.invalid/x http proxy \
        {*through the proxy 127.0.0.1:*requires a user and a password*http_proxy*} \
    {a proxy that answers 407 to a wrong password} \
        {http 407 body html type text/html} [list http_proxy [string map [list // //user:$password@] $proxy]] \
        http://far.invalid/x http proxy \
        {*rejects the user and the password*http_proxy*} \
    {a proxy that answers 407 to CONNECT} \
        {proxy_status 407} [list https_proxy $proxy] https://far.invalid/x network proxy \
        {*requires a user and a password*https_proxy*} \
    {a proxy that refuses CONNECT} \
        {proxy_status 403} [list https_proxy $proxy] https://far.invalid/x network proxy \
        {*403*CONNECT*443*no_proxy*} \
    {a password for the proxy that is not percent-encoded} \
        good [list http_proxy http://user:secret%@127.0.0.1:1] http://far.invalid/x network proxy \
        {*http_proxy*%25*} \
    {a certificate for another name} \
        good {} https://127.0.0.1:[dict get $secure port]/ network tls \
        {*the name 127.0.0.1*} \
] {
    test "answer: $name: $kind failure, last_error has the details (7.[incr number])" {
        ocsp_responder_behave $responder2 $behaviour
        ocsp_responder_forget $responder2
        set leaf [ocsp_pki_leaf $ca leaf7$number -aia [list $url]]
        start_server [concat [ocsp_server $leaf $ca retry-delay 3600] [list env $environment]] {
            ocsp_wait_info failures_$kind 1
            assert_equal [ocsp_info last_error_code] $code [ocsp_info last_error]
            assert_match $pattern [ocsp_info last_error]
            foreach secret {secret p@ss p%40ss} {assert_no_match *$secret* [ocsp_info last_error]}
            if {$environment ne {} && $behaviour ne "good"} {
                assert_equal [llength [ocsp_responder_log $responder2]] 1
            }
            assert_equal [ocsp_info state] pending
        }
    }
}

test "answer: user and password in http_proxy are percent-decoded (7.[incr number])" {
    ocsp_responder_behave $responder2 good
    ocsp_responder_forget $responder2
    set leaf [ocsp_pki_leaf $ca leaf7$number -aia [list http://far.invalid/x]]
    set environment [list http_proxy [string map {// //us%65r:p%40ss%3Aw%2Frd@} $proxy]]
    start_server [concat [ocsp_server $leaf $ca retry-delay 3600] [list env $environment]] {
        ocsp_wait_info state good
        set request [lindex [ocsp_responder_log $responder2] 0]
        assert_equal [dict get $request proxy] 1
        assert_equal [dict get $request headers proxy-authorization] \
            "Basic [binary encode base64 user:p@ss:w/rd]"
    }
}
ocsp_responder_stop $responder2
ocsp_responder_stop $secure

# A certificate that has no response yet.
test "answer: without a current response, no answer of the table is ever stapled (7.[incr number])" {
    set lab3 [ocsp_lab -behave {http 404}]
    set r3 [dict get $lab3 responder]
    start_server [ocsp_server [dict get $lab3 leaf] [dict get $lab3 ca] retry-delay 3600] {
        foreach {name behaviour kind code next} $rows {
            # Slow answers differ from the others in time only.
            if {$kind eq "network" && $name ne "body shorter than Content-Length"} continue
            ocsp_responder_behave $r3 $behaviour
            ocsp_refresh
            assert_equal [ocsp_info state] pending $name
            assert_equal [ocsp_staple] none $name
        }
        assert_equal [ocsp_info response_source] none
        assert_equal [ocsp_info response_bytes] 0
    }
    ocsp_lab_close $lab3
}
