# ocsp_responder.tcl - the mock OCSP responder: an HTTP server on loopback that signs real responses and can misbehave
# in every way that the suites need. Run as a script, it is the responder's process; sourced, it
# provides the procs with which tests start a responder, set its behaviour and read its log.
#
# START AND STOP
#
#   set r [ocsp_responder_start -ca $ca ?opt value ...?]      returns a handle, a dict: url (http://127.0.0.1:PORT/),
#                                 port, pid, control (its control port). The process ends with ours at the latest.
#     -ca HANDLE|LIST             the CA whose certificates it answers for (a handle of ocsp-pki.tcl). Of several CAs,
#                                 the one in the request signs, unless the behaviour says otherwise; give several as
#                                 -cas: -cas [list $ca1 $ca2]
#     -host 127.0.0.1             or ::1, or both (same port on both)
#     -port 0                     0: any free one. With a fixed port, a responder can be started again where it was
#     -tls HANDLE                 https with that certificate (needs the Tcl package tls); url is then
#                                 https://localhost:PORT/
#     -behave BEHAVIOUR           initial behaviour (default: good)
#   ocsp_responder_stop $r        stops it; connections are refused from then on. May be called twice
#   ocsp_responder_stop_all       stops all that this interpreter has started
#   ocsp_responder_url $r ?PATH?  its URL with a path: [ocsp_responder_url $r /a] is http://127.0.0.1:PORT/a
#
# BEHAVIOUR (set at run time; it is in force when the call returns)
#
#   ocsp_responder_behave $r BEHAVIOUR ?PATH?        for every request from now on (queues and paths are removed), or
#                                                    for one URL path such as /a: one responder can serve several URLs
#   ocsp_responder_queue $r N BEHAVIOUR ?PATH?       for the next N requests only. Calls append. A POST and the GET that
#                                                    follows it are two requests
#   ocsp_responder_release $r ?BEHAVIOUR?            answers requests that hang (good, or as given). Returns how many
#                                                    there were
#
#   A BEHAVIOUR is a list: optionally the name of a preset, then keys and values that override it. Examples:
#     good        {status revoked reason keyCompromise}        {tryLater}        {http-500-right status revoked}
#     {this -30 next +20}         {next none}        {entries {serial issuer ours}}        {hang}        {delay 300}
#   Presets: the table PRESETS below; [ocsp_responder_presets] returns it as a list {name sentence ...}.
#
#   The response:
#     status good            good, revoked, unknown
#     reason ""              unspecified keyCompromise cACompromise affiliationChanged superseded cessationOfOperation
#                            certificateHold removeFromCRL privilegeWithdrawn aACompromise, or a number; "": absent
#     revoked_at -60         times: seconds from the time of the request (20, +20, -20) or absolute (@1700000000)
#     this 0, next +3600, produced 0      thisUpdate, nextUpdate (none: absent), producedAt
#     hash request           hash of the CertIDs: request (as in the request), sha1, sha256, sha384, sha512
#     entries {ours}         the SingleResponses, in this order: ours (the certificate of the request); serial (another
#                            serial number of this CA); issuer (the same serial number of another CA); issuer-key (of a
#                            CA of the same name with another key); or a dict of CertID and SingleResponse keys, such as
#                            {serial 0A1B status revoked next +20 this -5} or {of HANDLE issuer HANDLE hash sha256},
#                            whose other keys are those of the response
#     for {}                 dict: serial number (hex, as in a handle) -> keys of the response (not of the HTTP answer)
#                            for that certificate: {for {0A1B {status revoked}}}
#     response_status successful    malformedRequest internalError tryLater sigRequired unauthorized, or a number
#     signer ca              ca, or a handle (an authorized responder, the leaf, another CA), or {cert FILE key FILE}
#     certs auto             auto: the signer's certificate, unless the CA signs; none; or a list of handles or files
#     responder_id name      ResponderID: name, key
#     signature good         good, bad (one bit flipped), empty
#     digest sha256          sha1, sha256, sha384, sha512; pss: RSASSA-PSS with SHA-256
#     nonce echo             echo (if the request has one), none
#     size 0                 pad the DER to exactly so many bytes (with an unknown extension); 0: no padding
#     freeze 0               1: sign once, without a nonce, and send the same bytes until the behaviour changes
#
#   The HTTP answer:
#     body ocsp              ocsp, empty, byte (the first), truncated, trailing (one byte more), html, {file PATH} or
#                            {hex DIGITS}
#     http 200               the status; 3xx add Location (key location)
#     post 0, get 0          not 0: that method is answered with this status and the body refused_body
#     refused_body empty     as body
#     type application/ocsp-response      the Content-Type; none: absent
#     version 1.1            or 1.0;   status_line "": if not "", sent in place of the whole status line
#     min_version 1.0        1.1: requests in HTTP/1.0 are answered with refuse_old and without a body
#     refuse_old 426         that status
#     before ""              bytes sent before the status line, such as an interim answer
#     line_end crlf          lf: the lines of the header end with LF alone
#     length right           right, none (without keep, the close ends the body), short (announces 100 bytes more than
#                            are sent, and closes), chunked, chunked-ext (with extensions and trailers), chunked-bad (an
#                            invalid chunk size), twice (the right one, two times), huge (announces and sends 70000),
#                            endless (no length, no end)
#     encode none            gzip: the body is compressed, with Content-Encoding; gzip-te: with Transfer-Encoding
#     keep 0                 1: the connection stays open after the body
#     case normal            lower: header names in lower case
#     headers {}             list of further header lines, sent as they are
#     piece 0, piece_ms 20   not 0: send so many bytes at a time, with a pause in between
#     piece_from body        body, or start: from the status line on
#     delay 0                ms before the answer
#     drop no                reset (RST instead of an answer), reset-mid (RST after half of the body), close (FIN
#                            instead of an answer), accept (close right after accept, before the request is read; only
#                            without a path), hang (no answer until released), headers (header lines without end), line
#                            (one header line without end). With -tls, a reset is a plain close
#
# LOG OF REQUESTS
#
#   ocsp_responder_log $r         list of dicts in the order of arrival: n (1...), ms (Unix milliseconds), method,
#                                 target (as received), path (of the responder URL, without the GET's base64), version,
#                                 host, headers (dict, lower-case names), local (127.0.0.1 or ::1), proxy (0|1: absolute
#                                 form), der (hex of the OCSPRequest), certids (as ocsp_request_info), hash, serial (of
#                                 the first CertID), nonce (0|1), answer (the BEHAVIOUR as given), http (status sent, 0:
#                                 none), end (open, sent, client-closed, dropped, hanging), end_ms. The last byte of a
#                                 POST that is answered with a reset is not read: its der ends with 00
#   ocsp_responder_count $r ?-method POST? ?-path /a? ?-serial HEX? ?-end hanging?   how many such requests there were
#   ocsp_responder_wait $r N ?TIMEOUT_MS? ?-method ...?     waits until there are at least N; returns how many, or
#                                 raises an error after 10 seconds
#   ocsp_responder_forget $r      empties the log (n is not reset)
#   ocsp_responder_stats $r       dict: connections (accepted so far), open, hanging, signed (signatures made),
#                                 requests, errors (of the mock itself: a list, empty unless a test requires the
#                                 impossible)
#
# PROXY. Requests in absolute form (GET http://other/...) are answered as if the responder had that name; their log
# entries have proxy 1 and the target. CONNECT host:port opens a tunnel to that port on loopback, whatever the host, and
# is logged with method CONNECT. The behaviour key proxy_status, if not 0, refuses CONNECT with that status and a page.
#
# WITHOUT HTTP
#
#   ocsp_response_der CERT CA ?BEHAVIOUR?        returns the DER of a response for CERT (handle)
#   ocsp_response_file FILE CERT CA ?BEHAVIOUR?  also writes it to FILE, by rename
#
# BY HAND   tclsh tests/support/ocsp_responder.tcl --ca ca.crt --cakey ca.key [--host H] [--port P] [--behave B]
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6-

namespace eval ::ocsp::responder {
    variable script [file normalize [info script]]
    variable here [file dirname $script]
}
if {[info procs ocsp_der_seq] eq ""} {
    source [file join $::ocsp::responder::here ocsp_der.tcl]
}

namespace eval ::ocsp::responder {
    variable DEFAULTS {
        status good reason "" revoked_at -60 this 0 next +3600 produced 0 hash request entries ours for {}
        response_status successful signer ca certs auto responder_id name signature good digest sha256 nonce echo size 0
        freeze 0
        body ocsp http 200 location /moved post 0 get 0 refused_body empty type application/ocsp-response version 1.1
        status_line "" min_version 1.0 refuse_old 426 before "" line_end crlf length right
        encode none keep 0 case normal headers {} piece 0 piece_ms 20 piece_from body delay 0
        drop no proxy_status 0
    }

    # name {sentence behaviour}
    variable PRESETS {
        good {"a fresh, good answer" {}}
        revoked {"revoked a minute ago" {status revoked}}
        unknown {"certStatus unknown" {status unknown}}
        malformedRequest {"this response status, without a response" {response_status malformedRequest}}
        internalError {"the same" {response_status internalError}}
        tryLater {"the same" {response_status tryLater}}
        sigRequired {"the same" {response_status sigRequired}}
        unauthorized {"the same" {response_status unauthorized}}
        bad-signature {"one bit of the signature is wrong" {signature bad}}
        several {"ours in the middle of three SingleResponses of our CA" {entries {serial ours {serial 7F01}}}}
        ours-first {"ours, then two others of our CA" {entries {ours serial {serial 7F01}}}}
        ours-last {"two others of our CA, then ours" {entries {serial {serial 7F01} ours}}}
        several-cas {"ours among SingleResponses of other CAs" {entries {issuer-key ours issuer}}}
        ours-missing {"two SingleResponses, neither of which is ours" {entries {serial issuer}}}
        no-entries {"no SingleResponse" {entries {}}}
        other-serial {"another serial number of our CA" {entries serial}}
        other-issuer {"our serial number, another CA" {entries issuer}}
        other-issuer-key {"our serial number, a CA of the same name with another key" {entries issuer-key}}
        sha256 {"CertIDs with SHA-256" {hash sha256}}
        presigned {"the same bytes for every request, signed at the first one" {freeze 1}}
        future-200 {"thisUpdate in 200 seconds" {this 200}}
        future-400 {"thisUpdate in 400 seconds" {this 400}}
        expired {"nextUpdate an hour ago" {this -7200 next -3600}}
        no-next {"no nextUpdate" {next none}}
        empty {"no body" {body empty}}
        one-byte {"a body of one byte" {body byte}}
        truncated {"the first half of the DER" {body truncated}}
        trailing {"one byte after the DER" {body trailing}}
        html {"a page, with its own type" {body html type text/html}}
        html-as-ocsp {"a page, with the right type" {body html}}
        wrong-type {"the right body with the type text/plain" {type text/plain}}
        no-type {"the right body without a type" {type none}}
        charset {"the type with a parameter" {type "application/ocsp-response; charset=utf-8"}}
        chunked {"200, chunked" {length chunked}}
        chunked-ext {"chunked, with extensions and trailers" {length chunked-ext}}
        chunked-bad {"chunked, with an invalid chunk size" {length chunked-bad}}
        gzip {"compressed, with Content-Encoding" {encode gzip}}
        interim {"100 and 103 before the answer"
            {before "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"}}
        line-feeds {"a header whose lines end with LF alone" {line_end lf}}
        http-1.1-only {"426 to HTTP/1.0" {min_version 1.1}}
        keep-no-length {"open after the body, without a length" {length none keep 1}}
        huge {"70000 bytes, announced and sent" {length huge}}
        endless {"a body without an end" {length endless}}
        no-length {"the close ends the body" {length none}}
        short {"100 bytes less than announced, then closed" {length short}}
        redirect {"302 to /moved with the right body" {http 302}}
        http-400 {"this status for every method" {http 400 body empty}}
        http-404 {"the same" {http 404 body empty}}
        http-500 {"500 without a body" {http 500 body empty}}
        http-502 {"502 without a body" {http 502 body empty}}
        http-503 {"503 without a body" {http 503 body empty}}
        http-500-html {"500 with a page" {http 500 body html type text/html}}
        http-502-html {"502 with a page" {http 502 body html type text/html}}
        http-503-html {"503 with a page" {http 503 body html type text/html}}
        http-500-right {"500 with the right body and type" {http 500}}
        http-502-right {"502 with the right body and type" {http 502}}
        http-503-right {"503 with the right body and type" {http 503}}
        get-only {"405 to POST" {post 405}}
        post-only {"405 to GET" {get 405}}
        post-400 {"this status to POST, good to GET" {post 400}}
        post-403 {"the same" {post 403}}
        post-404 {"the same" {post 404}}
        post-405 {"the same" {post 405}}
        post-429 {"the same" {post 429}}
        post-501 {"the same" {post 501}}
        post-500 {"500 to POST, good to GET, which must not be sent then" {post 500}}
        http-1.0 {"HTTP/1.0, closed after the body" {version 1.0}}
        keep-alive {"HTTP/1.1, open after the body" {keep 1}}
        lower-case {"header names in lower case" {case lower}}
        pieces {"the header at once, then seven bytes at a time" {piece 7 piece_ms 2}}
        pieces-all {"seven bytes at a time, the header too" {piece 7 piece_ms 2 piece_from start}}
        drip {"one byte a second" {piece 1 piece_ms 1000 piece_from start}}
        drip-body {"the header at once, then one byte a second" {piece 1 piece_ms 1000}}
        reset {"RST instead of an answer" {drop reset}}
        reset-mid {"RST after half of the body" {drop reset-mid}}
        close {"closed without an answer" {drop close}}
        close-accept {"closed right after accept" {drop accept}}
        hang {"never answers" {drop hang}}
        endless-headers {"header lines without an end" {drop headers}}
        endless-line {"one header line without an end" {drop line}}
    }

    variable words {
        response_status {successful malformedRequest internalError tryLater 4 sigRequired unauthorized}
        reason {unspecified keyCompromise cACompromise affiliationChanged superseded cessationOfOperation
            certificateHold 7 removeFromCRL privilegeWithdrawn aACompromise}
    }
    variable choices {
        status {good revoked unknown} hash {request sha1 sha256 sha384 sha512} responder_id {name key} signature {good bad empty}
        digest {sha1 sha256 sha384 sha512 pss} nonce {echo none} line_end {crlf lf}
        length {right none short chunked chunked-ext chunked-bad twice huge endless} encode {none gzip gzip-te}
        min_version {1.0 1.1}
        case {normal lower} piece_from {body start} drop {no reset reset-mid close accept hang headers line}
    }
    variable huge_bytes 70000
    variable page "<html><head><title>It works</title></head><body><p>This is no OCSP response.</p></body></html>\n"
    variable phrases {
        200 OK 301 "Moved Permanently" 302 Found 307 "Temporary Redirect" 308 "Permanent Redirect" 400 "Bad Request"
        403 Forbidden 404 "Not Found" 405 "Method Not Allowed"
        407 "Proxy Authentication Required" 426 "Upgrade Required" 429 "Too Many Requests"
        500 "Internal Server Error" 501 "Not Implemented" 502 "Bad Gateway" 503 "Service Unavailable"
        505 "HTTP Version Not Supported"
    }
    variable made 0        ;# signatures made, for ocsp_responder_stats
    variable running       ;# in the tests' process: pid -> pipe of each responder that was started here
    array set running {}
}

# ---- behaviours -----------------------------------------------------------------------------------------------------

proc ocsp_responder_presets {} {
    set list {}
    foreach {name preset} $::ocsp::responder::PRESETS { lappend list $name [lindex $preset 0] }
    return $list
}

# Returns a behaviour with all its keys. Checks them, so that a typing error fails in the test that has it.
proc ::ocsp::responder::expand {behaviour} {
    variable DEFAULTS
    variable PRESETS
    variable choices
    set overrides $behaviour
    set full $DEFAULTS
    if {[llength $behaviour] % 2} {
        set overrides [lassign $behaviour name]
        if {![dict exists $PRESETS $name]} {
            error "There is no behaviour '$name': choose among [join [dict keys $PRESETS] {, }], or give keys and\
                   values."
        }
        set full [dict merge $full [lindex [dict get $PRESETS $name] 1]]
    }
    foreach {key value} $overrides {
        if {![dict exists $full $key]} {
            error "There is no key '$key' in a behaviour: choose among [join [dict keys $full] {, }]."
        }
        if {[dict exists $choices $key] && $value ni [dict get $choices $key]} {
            error "'$value' is no value for '$key': choose among [join [dict get $choices $key] {, }]."
        }
        dict set full $key $value
    }
    foreach key {this next produced revoked_at} {
        if {$key ne "next" || [dict get $full next] ne "none"} { ::ocsp::when [dict get $full $key] 0 }
    }
    dict for {serial keys} [dict get $full for] { expand $keys }
    return $full
}

# ---- the answer: RFC 6960 section 4.2.1 -----------------------------------------------------------------------------

# Returns the number of a word from one of the lists, or the number itself.
proc ::ocsp::responder::number {key word} {
    variable words
    set at [lsearch -exact [dict get $words $key] $word]
    if {$at >= 0} { return $at }
    if {[string is integer -strict $word]} { return $word }
    error "'$word' is no $key: choose among [join [dict get $words $key] {, }], or give a number."
}

proc ::ocsp::responder::same_hashes {certid ca} {
    set hash [dict get $certid hash]
    if {$hash ni {sha1 sha256 sha384 sha512}} { return 0 }
    expr {[::ocsp::hex [ocsp_digest $hash [dict get $ca subject]]] eq [dict get $certid name_hash] &&
          [::ocsp::hex [ocsp_digest $hash [dict get $ca key_bits]]] eq [dict get $certid key_hash]}
}

# Returns the CA of a CertID, {handle info}; the first CA if it is none of them, so that tests can request the status of
# foreign certificates.
proc ::ocsp::responder::find_ca {certid cas} {
    set first ""
    foreach handle $cas {
        set info [ocsp_cert_info $handle]
        if {$first eq ""} { set first [list $handle $info] }
        if {[same_hashes $certid $info]} { return [list $handle $info] }
    }
    if {$first eq ""} { error "This responder has no CA to sign with: start it with -ca." }
    return $first
}

proc ::ocsp::responder::single_response {entry certid ca spec now} {
    set hash [dict get $spec hash]
    if {$hash eq "request"} { set hash [expr {[dict get $certid hash] eq "sha256" ? "sha256" : "sha1"}] }
    set name [dict get $ca subject]
    set key_bits [dict get $ca key_bits]
    set serial [::ocsp::serial_number [dict get $certid serial]]
    set id ""
    switch -- $entry {
        ours { if {[dict get $spec hash] eq "request"} { set id [dict get $certid der] } }
        serial { incr serial }
        issuer {
            set name "another name"
            set key_bits "another key"
        }
        issuer-key { set key_bits "another key" }
        default {
            if {[llength $entry] % 2} {
                error "'$entry' is no SingleResponse: choose ours, serial, issuer, issuer-key, or give keys and values."
            }
            foreach {key value} $entry {
                switch -- $key {
                    serial { set serial [::ocsp::serial_number $value] }
                    of { set serial [dict get [ocsp_cert_info $value] serial_number] }
                    issuer {
                        set info [ocsp_cert_info $value]
                        set name [dict get $info subject]
                        set key_bits [dict get $info key_bits]
                    }
                    hash { set hash $value }
                    default { dict set spec $key $value }
                }
            }
        }
    }
    if {$id eq ""} { set id [::ocsp::cert_id $name $key_bits $serial $hash] }
    switch -- [dict get $spec status] {
        good { set status [ocsp_der_implicit 0 ""] }
        unknown { set status [ocsp_der_implicit 2 ""] }
        revoked {
            set content [ocsp_der_gentime [::ocsp::when [dict get $spec revoked_at] $now]]
            if {[dict get $spec reason] ne ""} {
                append content [ocsp_der_explicit 0 [ocsp_der_enum [number reason [dict get $spec reason]]]]
            }
            set status [ocsp_der_implicit 1 $content 1]
        }
    }
    set next ""
    if {[dict get $spec next] ne "none"} {
        set next [ocsp_der_explicit 0 [ocsp_der_gentime [::ocsp::when [dict get $spec next] $now]]]
    }
    ocsp_der_seq $id $status [ocsp_der_gentime [::ocsp::when [dict get $spec this] $now]] $next
}

# Returns the DER of the response to a request (a dict as of ocsp_request_info).
proc ::ocsp::responder::answer_der {spec request cas now} {
    variable made
    set certid [lindex [dict get $request certids] 0]
    if {$certid ne "" && [dict exists $spec for [dict get $certid serial]]} {
        set overlay [dict get $spec for [dict get $certid serial]]
        if {[llength $overlay] % 2} {
            set overlay [dict merge [lindex [dict get $::ocsp::responder::PRESETS [lindex $overlay 0]] 1] \
                [lrange $overlay 1 end]]
        }
        set spec [dict merge $spec $overlay]
    }
    set response_status [number response_status [dict get $spec response_status]]
    if {$response_status != 0} { return [ocsp_der_seq [ocsp_der_enum $response_status]] }
    if {$certid eq ""} { return [ocsp_der_seq [ocsp_der_enum 1]] } ;# malformedRequest: no CertID

    lassign [find_ca $certid $cas] ca ca_info
    set signer [dict get $spec signer]
    if {$signer eq "ca"} { set signer $ca }
    set signer_info [ocsp_cert_info $signer]
    set singles ""
    foreach entry [dict get $spec entries] {
        if {$entry eq "ours"} { ;# all CertIDs of the request
            foreach id [dict get $request certids] { append singles [single_response ours $id $ca_info $spec $now] }
        } else {
            append singles [single_response $entry $certid $ca_info $spec $now]
        }
    }
    if {[dict get $spec responder_id] eq "name"} {
        set id [ocsp_der_explicit 1 [dict get $signer_info subject]]
    } else {
        set id [ocsp_der_explicit 2 [ocsp_der_octets [ocsp_digest sha1 [dict get $signer_info key_bits]]]]
    }
    set certs [dict get $spec certs]
    if {$certs eq "auto"} {
        set certs [::ocsp::pick [expr {[dict get $signer_info der] eq [dict get $ca_info der]}] "" [list $signer]]
    } elseif {$certs eq "none"} {
        set certs ""
    }
    set cert_list ""
    foreach cert $certs { append cert_list [dict get [ocsp_cert_info $cert] der] }
    if {$cert_list ne ""} { set cert_list [ocsp_der_explicit 0 [ocsp_der_seq $cert_list]] }
    set nonce ""
    if {[dict get $spec nonce] eq "echo"} { set nonce [dict get $request nonce_ext] }
    set algorithm [ocsp_sign_algorithm [dict get $signer_info key_type] [dict get $spec digest]]

    # For a given size, try paddings: the length of length fields changes, and ECDSA signatures differ by a byte or two.
    set padding 0
    for {set try 0} {$try < 200} {incr try} {
        set extensions $nonce
        if {$padding > 0} {
            append extensions [ocsp_der_seq [ocsp_der_oid 2.25.1] \
                [ocsp_der_octets [binary format Ia[expr {$padding + 4}] $try ""]]]
        }
        if {$extensions ne ""} { set extensions [ocsp_der_explicit 1 [ocsp_der_seq $extensions]] }
        set data [ocsp_der_seq $id [ocsp_der_gentime [::ocsp::when [dict get $spec produced] $now]] \
            [ocsp_der_seq $singles] $extensions]
        incr made
        set signature [ocsp_sign [dict get $signer key] $data [dict get $spec digest]]
        switch -- [dict get $spec signature] {
            bad {
                # In both kinds of signature, the last byte belongs to a number: the DER stays valid.
                binary scan [string index $signature end] cu last
                set signature [string range $signature 0 end-1][binary format c [expr {$last ^ 1}]]
            }
            empty { set signature "" }
        }
        set basic [ocsp_der_seq $data $algorithm [ocsp_der_bits $signature] $cert_list]
        set der [ocsp_der_seq [ocsp_der_enum 0] [ocsp_der_explicit 0 [ocsp_der_seq \
            [ocsp_der_oid 1.3.6.1.5.5.7.48.1.1] [ocsp_der_octets $basic]]]]
        set missing [expr {[dict get $spec size] - [string length $der]}]
        if {[dict get $spec size] == 0 || $missing == 0} { return $der }
        if {$missing < -8 && $padding == 0} {
            error "The answer has [string length $der] bytes already: ask for a size that is larger."
        }
        set padding [expr {max(1, $padding + $missing)}]
    }
    error "No response of exactly [dict get $spec size] bytes was found: ask for a size that is some bytes larger."
}

proc ocsp_response_der {cert ca {behaviour good}} {
    set der [ocsp_cert_id $cert $ca]
    set request [dict create nonce 0 nonce_ext "" certids [list [::ocsp::cert_id_info [ocsp_der_read $der]]]]
    set spec [::ocsp::responder::expand $behaviour]
    set answer [::ocsp::responder::answer_der $spec $request [list $ca] [clock seconds]]
    ::ocsp::responder::body [dict get $spec body] $answer
}

proc ocsp_response_file {file cert ca {behaviour good}} {
    set der [ocsp_response_der $cert $ca $behaviour]
    ocsp_file_write $file $der
    return $der
}

proc ::ocsp::responder::body {kind der} {
    variable page
    switch -- [lindex $kind 0] {
        ocsp { return $der }
        empty { return "" }
        byte { return [string index $der 0] }
        truncated { return [string range $der 0 [expr {[string length $der] / 2 - 1}]] }
        trailing { return $der\x00 }
        html { return $page }
        file { return [ocsp_file_read [lindex $kind 1]] }
        hex { return [binary decode hex [lindex $kind 1]] }
    }
    error "'$kind' is no body: choose ocsp, empty, byte, truncated, trailing, html, {file PATH} or {hex DIGITS}."
}

# ---- in the tests' process ------------------------------------------------------------------------------------------

proc ocsp_responder_start {args} {
    variable ::ocsp::responder::running
    array set o {-ca "" -cas {} -host 127.0.0.1 -port 0 -tls "" -behave good}
    foreach {option value} $args {
        if {![info exists o($option)]} {
            error "There is no option '$option' for a responder: choose among [join [lsort [array names o]] {, }]."
        }
        set o($option) $value
    }
    if {$o(-ca) ne ""} { set o(-cas) [linsert $o(-cas) 0 $o(-ca)] }
    ::ocsp::responder::expand $o(-behave)
    set options [list cas $o(-cas) host $o(-host) port $o(-port) tls $o(-tls) behave $o(-behave)]
    set pipe [open |[list [info nameofexecutable] $::ocsp::responder::script --child $options] r+]
    if {[gets $pipe line] < 0} {
        catch {close $pipe} words
        error "The mock responder did not start: $words"
    }
    lassign $line port control
    set running([pid $pipe]) $pipe
    set host [expr {$o(-tls) ne "" ? "localhost" : $o(-host) eq "::1" ? "\[::1\]" : "127.0.0.1"}]
    set scheme [expr {$o(-tls) ne "" ? "https" : "http"}]
    dict create url $scheme://$host:$port/ port $port pid [pid $pipe] control $control
}

proc ocsp_responder_stop {responder} {
    variable ::ocsp::responder::running
    set pid [dict get $responder pid]
    if {![info exists running($pid)]} return
    set pipe $running($pid)
    unset running($pid)
    # The responder exits when its stdin ends; close waits for it.
    catch {chan close $pipe write}
    fconfigure $pipe -blocking 0
    for {set i 0} {$i < 250 && ![eof $pipe]} {incr i} {
        read $pipe
        if {![eof $pipe]} { after 20 }
    }
    if {![eof $pipe]} { catch {exec kill -9 $pid} }
    fconfigure $pipe -blocking 1
    catch {close $pipe}
}

proc ocsp_responder_stop_all {} {
    foreach pid [array names ::ocsp::responder::running] { ocsp_responder_stop [dict create pid $pid] }
}

proc ocsp_responder_url {responder {path /}} {
    return [string range [dict get $responder url] 0 end-1]/[string trimleft $path /]
}

# Sends a command over the control channel: a count of bytes on a line, then a list. The reply has the same form, with
# ok or error as the first element.
proc ::ocsp::responder::call {responder args} {
    if {[catch {socket 127.0.0.1 [dict get $responder control]} sock]} {
        error "The mock responder of process [dict get $responder pid] is gone: start it again."
    }
    try {
        fconfigure $sock -translation binary -blocking 1
        set bytes [encoding convertto utf-8 $args]
        puts -nonewline $sock "[string length $bytes]\n$bytes"
        flush $sock
        if {[gets $sock count] < 0} { error "The mock responder ended during the call: see its stderr." }
        set answer [encoding convertfrom utf-8 [read $sock $count]]
    } finally {
        close $sock
    }
    lassign $answer verdict result
    if {$verdict ne "ok"} { error $result }
    return $result
}

proc ocsp_responder_behave {responder behaviour {path ""}} {
    ::ocsp::responder::call $responder behave $behaviour $path
}

proc ocsp_responder_queue {responder count behaviour {path ""}} {
    ::ocsp::responder::call $responder queue $count $behaviour $path
}

proc ocsp_responder_release {responder {behaviour good}} { ::ocsp::responder::call $responder release $behaviour }
proc ocsp_responder_log {responder} { ::ocsp::responder::call $responder log }
proc ocsp_responder_forget {responder} { ::ocsp::responder::call $responder forget }
proc ocsp_responder_stats {responder} { ::ocsp::responder::call $responder stats }
proc ocsp_responder_count {responder args} { ::ocsp::responder::call $responder count $args }

proc ocsp_responder_wait {responder count args} {
    set timeout 10000
    if {[llength $args] % 2} { set args [lassign $args timeout] }
    set end [expr {[clock milliseconds] + $timeout}]
    while {[set seen [ocsp_responder_count $responder {*}$args]] < $count} {
        if {[clock milliseconds] > $end} {
            error "The responder saw $seen requests ($args) in $timeout ms, and not $count."
        }
        after 20
    }
    return $seen
}

# ---- the responder's process: state ---------------------------------------------------------------------------------

namespace eval ::ocsp::responder {
    variable cas {}
    variable tls ""
    variable rules         ;# path ("" for all) -> dict: queue {{left behaviour full id} ...}, stand {behaviour full id}
    array set rules {}
    variable frozen        ;# id of a rule, request -> the response that was signed once
    array set frozen {}
    variable last_id 0
    variable journal       ;# n -> log entry
    array set journal {}
    variable last_n 0
    variable conn          ;# connection,field: ahead (bytes read too early)
    array set conn {}
    variable hanging {}    ;# coroutines of the connections that hang
    variable connections 0
    variable open 0
    variable errors {}
}

proc ::ocsp::responder::new_rule {behaviour} {
    variable last_id
    list $behaviour [expand $behaviour] [incr last_id]
}

proc ::ocsp::responder::set_behaviour {behaviour path} {
    variable rules
    set rule [new_rule $behaviour]
    if {$path eq ""} { array unset rules }
    set rules([normal_path $path]) [dict create queue {} stand $rule]
    return
}

proc ::ocsp::responder::add_to_queue {count behaviour path} {
    variable rules
    set path [normal_path $path]
    set rule [new_rule $behaviour]
    if {![info exists rules($path)]} { set rules($path) [dict create queue {} stand [dict get $rules() stand]] }
    dict lappend rules($path) queue [list $count {*}$rule]
    return
}

proc ::ocsp::responder::normal_path {path} {
    if {$path eq ""} { return "" }
    return /[string trim $path /]
}

# Returns the rule for a request to `path`: {behaviour full id}. With `take` 0 the queue is not advanced.
proc ::ocsp::responder::choose {path {take 1}} {
    variable rules
    if {![info exists rules($path)]} { set path "" }
    set queue [dict get $rules($path) queue]
    if {$queue eq ""} { return [dict get $rules($path) stand] }
    set rule [lassign [lindex $queue 0] left]
    if {$take} {
        set rest [lrange $queue 1 end]
        if {$left > 1} { set rest [linsert $rest 0 [list [expr {$left - 1}] {*}$rule]] }
        dict set rules($path) queue $rest
    }
    return $rule
}

proc ::ocsp::responder::note {n args} {
    variable journal
    if {[info exists journal($n)]} { set journal($n) [dict merge $journal($n) $args] }
}

proc ::ocsp::responder::ended {n how} { note $n end $how end_ms [clock milliseconds] }

proc ::ocsp::responder::matches {entry filter} {
    foreach {option value} $filter {
        set key [string range $option 1 end]
        if {![dict exists $entry $key]} { error "The log has no '$key' to count by: choose among [dict keys $entry]." }
        if {[dict get $entry $key] ne $value} { return 0 }
    }
    return 1
}

proc ::ocsp::responder::command {verb args} {
    variable journal
    variable hanging
    switch -- $verb {
        behave { set_behaviour {*}$args }
        queue { add_to_queue {*}$args }
        release {
            expand [lindex $args 0]
            set waiting $hanging
            set hanging {}
            # From the event loop, after the reply to this command.
            foreach coroutine $waiting { after 0 [list ::ocsp::responder::resume $coroutine [list release {*}$args]] }
            return [llength $waiting]
        }
        log {
            set entries {}
            foreach n [lsort -integer [array names journal]] { lappend entries $journal($n) }
            return $entries
        }
        count {
            set count 0
            foreach n [array names journal] { incr count [matches $journal($n) [lindex $args 0]] }
            return $count
        }
        forget { array unset journal }
        stats {
            variable connections
            variable open
            variable made
            variable last_n
            variable errors
            return [dict create connections $connections open $open hanging [llength $hanging] signed $made \
                requests $last_n errors $errors]
        }
        default { error "The mock responder knows no command '$verb'." }
    }
}

proc ::ocsp::responder::resume {coroutine value} {
    if {[info commands $coroutine] ne ""} { $coroutine $value }
}

# ---- the responder's process: one connection ------------------------------------------------------------------------

proc ::ocsp::responder::accepted {sock address port} {
    variable connections
    variable open
    variable conn
    set id [incr connections]
    incr open
    lassign [choose "" 0] behaviour full
    if {[dict get $full drop] eq "accept"} {
        choose ""
        incr open -1
        close $sock
        return
    }
    fconfigure $sock -blocking 0 -translation binary -buffering none
    set conn($id,ahead) ""
    coroutine ::ocsp::responder::connection$id ::ocsp::responder::guarded $sock $id
}

proc ::ocsp::responder::background_error {words options} {
    lappend ::ocsp::responder::errors [dict get $options -errorinfo]
}

# An error of the mock must not pass for a requested misbehaviour: it goes into the statistics.
proc ::ocsp::responder::guarded {sock id} {
    variable open
    variable conn
    variable errors
    if {[catch {connection $sock $id} words options]} { lappend errors [dict get $options -errorinfo] }
    catch {close $sock}
    array unset conn $id,*
    incr open -1
}

# Reads the next byte from the client, or "" when there is no more.
proc ::ocsp::responder::next_byte {sock id} {
    variable conn
    if {$conn($id,ahead) ne ""} {
        set byte [string index $conn($id,ahead) 0]
        set conn($id,ahead) [string range $conn($id,ahead) 1 end]
        return $byte
    }
    while 1 {
        if {[catch {read $sock 1} byte]} { return "" }
        if {$byte ne "" || [eof $sock]} { return $byte }
        fileevent $sock readable [list [info coroutine] readable]
        yield
        fileevent $sock readable {}
    }
}

# Waits during an answer. Returns time, gone (the client closed), or the arguments of a release.
proc ::ocsp::responder::pause {sock id ms} {
    variable conn
    set me [info coroutine]
    set timer [expr {$ms eq "forever" ? "" : [after $ms [list ::ocsp::responder::resume $me time]]}]
    fileevent $sock readable [list $me readable]
    try {
        while 1 {
            set why [yield]
            if {$why ne "readable"} { return $why }
            if {[catch {read $sock 1} byte]} { return gone }
            if {$byte ne ""} {
                append conn($id,ahead) $byte
            } elseif {[eof $sock]} {
                return gone
            }
        }
    } finally {
        after cancel $timer
        catch {fileevent $sock readable {}}
    }
}

# Waits without reading: for `reset`, which leaves the request's last byte unread.
proc ::ocsp::responder::blind_wait {ms} {
    if {$ms > 0} {
        after $ms [list ::ocsp::responder::resume [info coroutine] time]
        yield
    }
}

# Writes; returns 0 when the client is gone. What does not fit into the socket waits in the channel.
proc ::ocsp::responder::send {sock bytes} {
    if {[eof $sock]} { return 0 }
    expr {![catch {
        puts -nonewline $sock $bytes
        flush $sock
    }]}
}

# Reads a request but for its last byte, which stays in the socket. Returns an empty dict when the client left before.
proc ::ocsp::responder::read_request {sock id} {
    set head ""
    while {[string range $head end-2 end] ne "\r\n\r"} {
        set byte [next_byte $sock $id]
        if {$byte eq ""} { return "" }
        append head $byte
        if {[string length $head] > 65536} { error "A request had a header of more than 64 KiB." }
    }
    set lines [split [string map {\r\n \n} [string trimright $head \r\n]] \n]
    lassign [split [lindex $lines 0] " "] method target version
    set headers {}
    foreach line [lrange $lines 1 end] {
        if {[regexp {^([^:]+):\s*(.*?)\s*$} $line -> name value]} { dict set headers [string tolower $name] $value }
    }
    set body ""
    set length 0
    if {[dict exists $headers content-length]} { set length [dict get $headers content-length] }
    if {![string is integer -strict $length] || $length < 0 || $length > 1000000} {
        error "A request had the Content-Length '$length'."
    }
    if {$length > 0} {
        if {[next_byte $sock $id] eq ""} { return "" } ;# the last byte of the header
        while {[string length $body] < $length - 1} {
            set byte [next_byte $sock $id]
            if {$byte eq ""} { return "" }
            append body $byte
        }
    }
    dict create method $method target $target version [string range $version 5 end] headers $headers body $body \
        length $length
}

proc ::ocsp::responder::url_decode {text} {
    set bytes ""
    while {[regexp {^([^%]*)%([0-9A-Fa-f]{2})(.*)$} $text -> before hex text]} {
        append bytes $before [binary decode hex $hex]
    }
    return $bytes$text
}

# Splits a GET's target into the responder's path and the DER. Both may contain slashes: the first split that yields a
# whole OCSPRequest counts.
proc ::ocsp::responder::split_get {path} {
    for {set at 0} {[set at [string first / $path $at]] >= 0} {incr at} {
        set text [url_decode [string range $path $at+1 end]]
        if {[string length $text] < 16 || ![regexp {^[A-Za-z0-9+/]+={0,2}$} $text]} continue
        if {[catch {binary decode base64 $text} der]} continue
        if {![catch {ocsp_request_info $der}]} { return [list [normal_path [string range $path 0 $at]] $der] }
    }
    list [normal_path $path] ""
}

proc ::ocsp::responder::connection {sock id} {
    variable tls
    if {$tls ne ""} {
        if {![handshake $sock]} return
    }
    while 1 {
        # Read single bytes: the kernel sends RST when a socket is closed with unread bytes, and Tcl has no other way to
        # cause one. For `reset` the last byte of the request stays unread.
        if {$tls eq ""} { fconfigure $sock -buffersize 1 }
        set request [read_request $sock $id]
        if {$request eq "" || ![answer $sock $id $request]} return
    }
}

proc ::ocsp::responder::handshake {sock} {
    variable tls
    tls::import $sock -server 1 -certfile [dict get $tls cert] -keyfile [dict get $tls key] -request 0 -require 0 \
        -ssl2 0 -ssl3 0 -tls1 0 -tls1.1 0 -tls1.2 1 -tls1.3 1 -command ::ocsp::responder::tls_event
    fconfigure $sock -blocking 0 -translation binary -buffering none -buffersize 4096
    while 1 {
        if {[catch {tls::handshake $sock} done]} {
            if {[eof $sock] || ![string match *unavailable* $done]} { return 0 } ;# e.g. the client rejects us
        } elseif {$done} {
            return 1
        }
        fileevent $sock readable [list [info coroutine] readable]
        yield
        fileevent $sock readable {}
        if {[eof $sock]} { return 0 }
    }
}

# Silences the package tls, which would report clients that reject the certificate, or speak no TLS, as errors.
proc ::ocsp::responder::tls_event {args} { return 1 }

# Answers one request; returns 1 when the connection stays open.
proc ::ocsp::responder::answer {sock id request} {
    variable journal
    variable last_n
    variable hanging
    set target [dict get $request target]
    set method [dict get $request method]
    set proxy [regexp {^[a-z]+://[^/]*(/.*)?$} $target -> path]
    if {!$proxy} { set path $target }
    if {$path eq ""} { set path / }
    set der ""
    switch -- $method {
        GET { lassign [split_get $path] path der }
        CONNECT {}
        default { set path [normal_path $path] }
    }
    lassign [choose $path] behaviour full rule_id
    set drop [dict get $full drop]
    set body [dict get $request body]
    if {$drop ni {reset reset-mid}} {
        set last [next_byte $sock $id]
        if {$last eq ""} { return 0 }
        if {[dict get $request length] > 0} { append body $last }
    } elseif {[dict get $request length] > 0} {
        append body \x00 ;# in place of the unread byte, most likely the last one of a serial number
    }
    if {$method eq "POST"} { set der $body }

    set info [dict create nonce 0 nonce_ext "" certids {}]
    if {$der ne ""} { catch { set info [ocsp_request_info $der] } }
    set certid [lindex [dict get $info certids] 0]
    set headers [dict get $request headers]
    set host ""
    if {[dict exists $headers host]} { set host [dict get $headers host] }
    set hash ""
    set serial ""
    if {$certid ne ""} {
        set hash [dict get $certid hash]
        set serial [dict get $certid serial]
    }
    set n [incr last_n]
    set journal($n) [dict create n $n ms [clock milliseconds] method $method target $target path $path \
        version [dict get $request version] host $host headers $headers \
        local [lindex [fconfigure $sock -sockname] 0] proxy $proxy der [::ocsp::hex $der] \
        certids [log_certids $info] hash $hash serial $serial nonce [dict get $info nonce] answer $behaviour \
        http 0 end open end_ms 0]

    if {$drop ne "reset"} { fconfigure $sock -buffersize 4096 } ;# for writing as well
    switch -- $drop {
        reset - close {
            blind_wait [dict get $full delay]
            ended $n dropped
            return 0
        }
        hang {
            note $n end hanging
            lappend hanging [info coroutine]
            set why [pause $sock $id forever]
            set at [lsearch -exact $hanging [info coroutine]]
            if {$at >= 0} { set hanging [lreplace $hanging $at $at] }
            if {[lindex $why 0] ne "release"} {
                ended $n client-closed
                return 0
            }
            lassign [new_rule [lindex $why 1]] behaviour full rule_id
            note $n end open
        }
        headers - line { return [endless_headers $sock $id $n $drop] }
    }
    if {$method eq "CONNECT"} { return [tunnel $sock $id $n $target [dict get $full proxy_status]] }
    if {$drop eq "reset-mid"} {
        blind_wait [dict get $full delay]
    } elseif {[dict get $full delay] > 0 && [pause $sock $id [dict get $full delay]] eq "gone"} {
        ended $n client-closed
        return 0
    }
    if {[dict get $request version] < [dict get $full min_version]} {
        dict set full http [dict get $full refuse_old]
        dict set full body empty
    }
    respond $sock $id $n $method $full $rule_id $info
}

proc ::ocsp::responder::log_certids {info} {
    set list {}
    foreach certid [dict get $info certids] { lappend list [dict remove $certid der] }
    return $list
}

proc ::ocsp::responder::content {full rule_id info} {
    variable cas
    variable frozen
    set kind [dict get $full body]
    if {[lindex $kind 0] in {empty html file hex}} { return [body $kind ""] }
    set key $rule_id,[log_certids $info]
    if {[dict get $full freeze] && [info exists frozen($key)]} { return [body $kind $frozen($key)] }
    if {[dict get $full freeze]} { dict set full nonce none } ;# a response signed in advance has no nonce
    set der [answer_der $full $info $cas [clock seconds]]
    if {[dict get $full freeze]} { set frozen($key) $der }
    body $kind $der
}

proc ::ocsp::responder::respond {sock id n method full rule_id info} {
    variable phrases
    variable page
    variable huge_bytes
    set status [dict get $full http]
    set refused [expr {$method eq "POST" ? [dict get $full post] : $method eq "GET" ? [dict get $full get] : 405}]
    if {$refused != 0} {
        set status $refused
        dict set full body [dict get $full refused_body]
    }
    set body [content $full $rule_id $info]
    set length [dict get $full length]
    set keep [expr {[dict get $full keep] && $length ni {short endless}}]
    set headers [list "Server: ocsp mock"]
    if {[dict get $full type] ne "none"} { lappend headers "Content-Type: [dict get $full type]" }
    if {$status / 100 == 3} { lappend headers "Location: [dict get $full location]" }
    if {$status == 405} { lappend headers "Allow: [expr {$method eq "POST" ? "GET" : "POST"}]" }
    switch -- [dict get $full encode] {
        gzip {
            set body [zlib gzip $body]
            lappend headers "Content-Encoding: gzip"
        }
        gzip-te {
            set body [zlib gzip $body]
            lappend headers "Transfer-Encoding: gzip"
        }
    }
    switch -- $length {
        right { lappend headers "Content-Length: [string length $body]" }
        twice {
            set size [string length $body]
            lappend headers "Content-Length: $size, $size" "Content-Length: $size"
        }
        short { lappend headers "Content-Length: [expr {[string length $body] + 100}]" }
        huge {
            set body [binary format a$huge_bytes $body]
            lappend headers "Content-Length: $huge_bytes"
        }
        chunked - chunked-ext - chunked-bad {
            lappend headers "Transfer-Encoding: chunked"
            set half [expr {[string length $body] / 2}]
            set extension [expr {$length eq "chunked-ext" ? " ;name=\"a;b\"" : $length eq "chunked-bad" ? "h" : ""}]
            set trailer [expr {$length eq "chunked-ext" ? "X-Trailer: after the body\r\n" : ""}]
            set chunks ""
            foreach chunk [list [string range $body 0 $half-1] [string range $body $half end]] {
                if {$chunk ne ""} { append chunks [format %x [string length $chunk]] $extension \r\n $chunk \r\n }
            }
            set body ${chunks}0\r\n$trailer\r\n
        }
    }
    lappend headers "Connection: [expr {$keep ? "keep-alive" : "close"}]"
    if {[dict get $full case] eq "lower"} {
        set lowered {}
        foreach header $headers {
            set at [string first : $header]
            lappend lowered [string tolower [string range $header 0 $at-1]][string range $header $at end]
        }
        set headers $lowered
    }
    set phrase [expr {[dict exists $phrases $status] ? [dict get $phrases $status] : "Whatever"}]
    set first [dict get $full status_line]
    if {$first eq ""} { set first "HTTP/[dict get $full version] $status $phrase" }
    set head [dict get $full before][join [concat [list $first] $headers [dict get $full headers]] \r\n]\r\n\r\n
    if {[dict get $full line_end] eq "lf"} { set head [string map {\r\n \n} $head] }
    note $n http $status
    if {[dict get $full drop] eq "reset-mid"} {
        send $sock $head[string range $body 0 [expr {[string length $body] / 2 - 1}]]
        ended $n dropped
        return 0 ;# closing with the last byte of the request unread sends RST
    }

    set gone 0
    if {[dict get $full piece] <= 0} {
        set gone [expr {![send $sock $head$body]}]
    } else {
        set rest $head$body
        if {[dict get $full piece_from] eq "body"} {
            set gone [expr {![send $sock $head]}]
            set rest $body
        }
        while {!$gone && $rest ne ""} {
            set gone [expr {![send $sock [string range $rest 0 [dict get $full piece]-1]]}]
            set rest [string range $rest [dict get $full piece] end]
            if {!$gone && $rest ne ""} { set gone [expr {[pause $sock $id [dict get $full piece_ms]] eq "gone"}] }
        }
    }
    if {!$gone && $length eq "endless"} { set gone [flood $sock $id [string repeat \x00 4096]] }
    ended $n [expr {$gone ? "client-closed" : "sent"}]
    expr {!$gone && $keep}
}

# Sends the same bytes again and again until the client leaves: slowly enough for this machine, fast enough to exceed
# any limit of a client within a second.
proc ::ocsp::responder::flood {sock id bytes} {
    while {[send $sock $bytes]} {
        # Wait until the client has read what is in the channel.
        while {1} {
            if {[pause $sock $id 5] eq "gone"} { return 1 }
            if {[chan pending output $sock] == 0} break
        }
    }
    return 1
}

proc ::ocsp::responder::endless_headers {sock id n kind} {
    set start "HTTP/1.1 200 OK\r\nContent-Type: application/ocsp-response\r\n"
    if {$kind eq "line"} {
        send $sock "${start}X-Filler: "
        flood $sock $id [string repeat a 2048]
    } else {
        send $sock $start
        flood $sock $id [string repeat "X-Filler: [string repeat a 50]\r\n" 32]
    }
    ended $n client-closed
    return 0
}

# A CONNECT proxy, to ports on loopback only.
proc ::ocsp::responder::tunnel {sock id n target refuse} {
    if {$refuse == 0 && (![regexp {:(\d+)$} $target -> port] || [catch {socket 127.0.0.1 $port} other])} {
        if {![info exists port] || [catch {socket ::1 $port} other]} { set refuse 502 }
    }
    if {$refuse != 0} {
        note $n http $refuse
        send $sock "HTTP/1.1 $refuse Refused\r\nContent-Type: text/html\r\nContent-Length: [string length \
            $::ocsp::responder::page]\r\nConnection: close\r\n\r\n$::ocsp::responder::page"
        ended $n sent
        return 0
    }
    note $n http 200
    send $sock "HTTP/1.1 200 Connection established\r\n\r\n"
    fconfigure $sock -buffersize 4096
    fconfigure $other -blocking 0 -translation binary -buffering none
    set me [info coroutine]
    fcopy $sock $other -command [list ::ocsp::responder::copied $me]
    fcopy $other $sock -command [list ::ocsp::responder::copied $me]
    yield ;# until one direction ends, which ends the tunnel
    close $other
    ended $n sent
    return 0
}

proc ::ocsp::responder::copied {coroutine args} {
    after 0 [list ::ocsp::responder::resume $coroutine done]
}

# ---- the responder's process: control and start ---------------------------------------------------------------------

proc ::ocsp::responder::control_accepted {sock address port} {
    fconfigure $sock -blocking 0 -translation binary
    fileevent $sock readable [list ::ocsp::responder::control_readable $sock]
    set ::ocsp::responder::conn(control,$sock) ""
}

proc ::ocsp::responder::control_readable {sock} {
    variable conn
    if {[catch {read $sock} bytes]} { set bytes "" }
    append conn(control,$sock) $bytes
    if {[regexp -indices {^\d+\n} $conn(control,$sock) line]} {
        set start [expr {[lindex $line 1] + 1}]
        set count [string trim [string range $conn(control,$sock) 0 $start-1]]
        if {[string length $conn(control,$sock)] >= $start + $count} {
            set words [encoding convertfrom utf-8 [string range $conn(control,$sock) $start end]]
            set verdict [expr {[catch {command {*}$words} result] ? "error" : "ok"}]
            set answer [encoding convertto utf-8 [list $verdict $result]]
            catch { puts -nonewline $sock "[string length $answer]\n$answer" }
            unset conn(control,$sock)
            catch { close $sock }
            return
        }
    }
    if {[eof $sock]} {
        unset conn(control,$sock)
        close $sock
    }
}

# Listens on one port of each address. With two addresses and any port, the second may be taken: then tries again.
proc ::ocsp::responder::listen {host port} {
    set addresses [expr {$host eq "both" ? {127.0.0.1 ::1} : [list $host]}]
    foreach address $addresses {
        if {$address ni {127.0.0.1 ::1}} {
            error "The mock responder does not listen on '$address': choose 127.0.0.1, ::1 or both."
        }
    }
    for {set try 0} {$try < 20} {incr try} {
        set sockets {}
        set chosen $port
        foreach address $addresses {
            if {[catch {socket -server ::ocsp::responder::accepted -myaddr $address $chosen} sock]} {
                foreach s $sockets { close $s }
                if {$port != 0} {
                    error "The mock responder cannot listen on $address port $port ($sock): choose a free port."
                }
                break
            }
            lappend sockets $sock
            set chosen [lindex [fconfigure $sock -sockname] 2]
        }
        if {[llength $sockets] == [llength $addresses]} { return $chosen }
    }
    error "The mock responder found no free port on $host ($sock): is there a loopback of that family?"
}

proc ::ocsp::responder::run {options} {
    variable cas
    variable tls
    set cas [dict get $options cas]
    set tls [dict get $options tls]
    if {$tls ne "" && [catch {package require tls} words]} {
        error "An https responder needs the Tcl package tls ($words): install it (Debian: tcl-tls)."
    }
    set_behaviour [dict get $options behave] ""
    set port [listen [dict get $options host] [dict get $options port]]
    set control [socket -server ::ocsp::responder::control_accepted -myaddr 127.0.0.1 0]
    list $port [lindex [fconfigure $control -sockname] 2]
}

proc ::ocsp::responder::main {args} {
    if {[lindex $args 0] eq "--child"} {
        puts [run [lindex $args 1]]
        flush stdout
        # When the process that started this one is gone, stdin ends.
        interp bgerror {} ::ocsp::responder::background_error
        fconfigure stdin -blocking 0
        fileevent stdin readable { read stdin; if {[eof stdin]} { exit 0 } }
        vwait forever
    }
    array set o {--ca "" --cakey "" --host 127.0.0.1 --port 0 --behave good}
    foreach {option value} $args {
        if {![info exists o($option)] || $value eq ""} {
            error "Usage: ocsp_responder.tcl --ca ca.crt --cakey ca.key \[--host H\] \[--port P\] \[--behave B\]"
        }
        set o($option) $value
    }
    if {$o(--ca) eq "" || $o(--cakey) eq ""} { error "Give a CA's certificate and key: --ca ca.crt --cakey ca.key" }
    set ca [list [dict create cert $o(--ca) key $o(--cakey)]]
    lassign [run [list cas $ca host $o(--host) port $o(--port) tls "" behave $o(--behave)]] port
    puts "The mock responder listens on $o(--host) port $port. Ctrl-C ends it."
    vwait forever
}

if {[info exists ::argv0] && [file normalize $::argv0] eq $::ocsp::responder::script} {
    if {[catch {::ocsp::responder::main {*}$::argv} sentence]} {
        puts stderr $sentence
        exit 1
    }
}
