# ocsp_selftest.tcl - tests the test tools themselves (ocsp_der.tcl, ocsp_responder.tcl, ../../utils/ocsp-pki.tcl)
# against `openssl ocsp` and `openssl verify`:   tclsh tests/support/ocsp_selftest.tcl
#
# Takes about 20 seconds. The last line is `N passed, N failed`; the exit status is 1 when any failed. Needs openssl,
# and bash, because its `cat` distinguishes an RST from an orderly close, which Tcl does not.
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6-

set here [file dirname [file normalize [info script]]]
source [file join $here ocsp_der.tcl]
source [file join $here .. .. utils ocsp-pki.tcl]
source [file join $here ocsp_responder.tcl]

set passed 0
set failed 0
set dir [file join [expr {[info exists env(TMPDIR)] ? $env(TMPDIR) : "/tmp"}] ocsp-selftest.[pid]]

# Runs a check, a script that must return true. Anything else, or an error, is printed as a failure.
proc check {name script} {
    if {[catch {uplevel #0 $script} result]} {
        set seen "error: $::errorInfo"
    } elseif {[string is true -strict $result]} {
        incr ::passed
        return
    } else {
        set seen $result
    }
    incr ::failed
    puts "\[failed\] $name\n    $seen"
}

# For checks: true, or a sentence about what was found instead.
proc same {seen wanted} { expr {$seen eq $wanted ? 1 : "saw '$seen' and not '$wanted'"} }
proc has {text pattern} { expr {[string match -nocase $pattern $text] ? 1 : "no '$pattern' in: $text"} }

proc until {condition {ms 5000}} {
    set end [expr {[clock milliseconds] + $ms}]
    while {![uplevel 1 [list expr $condition]]} {
        if {[clock milliseconds] > $end} { return "still not, after $ms ms: $condition" }
        after 10
    }
    return 1
}

proc run {args} {
    catch {exec {*}$args < /dev/null 2>@1} output
    return $output
}

proc ocsp_ask {leaf issuer root url args} {
    run openssl ocsp -issuer [dict get $issuer cert] -cert [dict get $leaf cert] -CAfile [dict get $root cert] \
        -url $url -timeout 5 {*}$args
}

proc ocsp_judge {leaf issuer root file args} {
    run openssl ocsp -issuer [dict get $issuer cert] -cert [dict get $leaf cert] -CAfile [dict get $root cert] \
        -respin $file {*}$args
}

# Makes one HTTP exchange, until the responder closes, `ms` have passed or `enough` bytes have come. Returns {how
# bytes}: closed (also by RST, which Tcl does not distinguish), open (nobody closed) or refused.
proc wire {port request {ms 3000} {enough 1000000} {address 127.0.0.1}} {
    if {[catch {socket $address $port} sock]} { return [list refused $sock] }
    fconfigure $sock -translation binary -blocking 0
    puts -nonewline $sock $request
    set ::wire_how ""
    set ::wire_bytes ""
    fileevent $sock readable [list wire_read $sock $enough]
    if {[catch {flush $sock}]} { set ::wire_how closed }
    set timer [after $ms {set ::wire_how open}]
    while {$::wire_how eq ""} { vwait ::wire_how }
    after cancel $timer
    catch {close $sock}
    list $::wire_how $::wire_bytes
}

# The same in one string, for patterns, without the quoting of a list.
proc wired {args} { join [wire {*}$args] " " }

# Whether the request is answered with an RST, as `cat` under bash reports it.
proc is_reset {port request} {
    set text [binary encode hex $request]
    regsub -all {..} $text {\\x&} text
    set script "exec 3<>/dev/tcp/127.0.0.1/$port; printf '$text' >&3; LC_ALL=C cat <&3 >/dev/null"
    string match "*reset by peer*" [run bash -c $script]
}

proc wire_read {sock enough} {
    if {[catch {read $sock} bytes]} {
        set ::wire_how closed
        return
    }
    append ::wire_bytes $bytes
    if {[eof $sock]} {
        set ::wire_how closed
    } elseif {[string length $::wire_bytes] >= $enough} {
        set ::wire_how open
    }
}

proc post {der {path /} {version 1.1}} {
    return "POST $path HTTP/$version\r\nHost: localhost\r\nContent-Type: application/ocsp-request\r\nContent-Length:\
            [string length $der]\r\n\r\n$der"
}

proc get {der {path ""}} {
    set text [string map {+ %2B / %2F = %3D} [binary encode base64 $der]]
    return "GET $path/$text HTTP/1.1\r\nHost: localhost\r\n\r\n"
}

proc wire_body {bytes} { string range $bytes [string first \r\n\r\n $bytes]+4 end }

# ---- DER ------------------------------------------------------------------------------------------------------------

proc der_checks {} {
    foreach {number hex} {
        0 020100 127 02017f 128 02020080 255 020200ff 256 02020100 -1 0201ff -128 020180 -129 0202ff7f
    } {
        check "INTEGER $number" [list same [binary encode hex [ocsp_der_int $number]] $hex]
        check "INTEGER $number, back" [list same [ocsp_der_toint [string range [ocsp_der_int $number] 2 end]] $number]
    }
    foreach oid {1.2.840.10045.4.3.2 2.25.1 2.5.29.17 1.3.6.1.5.5.7.48.1.2} {
        check "OID $oid" [list same [ocsp_der_oidname [dict get [ocsp_der_read [ocsp_der_oid $oid]] content]] $oid]
    }
    foreach length {0 127 128 255 256 65535 65536} {
        set element [ocsp_der_octets [string repeat x $length]]
        check "length $length" [list same [string length [dict get [ocsp_der_read $element] content]] $length]
    }
    check "2049 is UTCTime" { same [string index [ocsp_der_time 2524607999] 0] \x17 }
    check "2050 is GeneralizedTime" { same [string index [ocsp_der_time 2524608000] 0] \x18 }
    check "cut off DER is told" { has [catch {ocsp_der_read \x30\x05\x01} words]$words "1*cut off*" }
}

# ---- certificates ---------------------------------------------------------------------------------------------------

proc pki_checks {} {
    global dir
    foreach key {ec ec384 rsa} {
        set ca [ocsp_pki_ca $dir ca-$key -key $key]
        set middle [ocsp_pki_intermediate $ca middle-$key -key $key]
        set leaf [ocsp_pki_leaf $middle leaf-$key -key $key]
        check "a $key chain verifies" [list has [run openssl verify -x509_strict -CAfile [dict get $ca cert] \
            -untrusted [dict get $leaf chain] [dict get $leaf cert]] *OK]
        check "a $key key fits" [list same [run openssl x509 -noout -pubkey -in [dict get $leaf cert]] \
            [run openssl pkey -pubout -in [dict get $leaf key]]]
        check "the chain has no root" [list same [llength [ocsp_pem_read [dict get $leaf chain]]] 2]
        check "the full chain has it" [list same [llength [ocsp_pem_read [dict get $leaf full]]] 3]
    }
    set ca [ocsp_pki_ca $dir ca -subject "/O=Ours & Co/CN=Test CA"]
    set twin [ocsp_pki_ca $dir twin -subject [dict get $ca subject]]
    set leaf [ocsp_pki_leaf $ca server -aia {http://127.0.0.1:1/a http://b.invalid/} -aia-other http://c.invalid/ca \
        -must-staple 1 -serial 00AB]
    set same [ocsp_pki_leaf $twin same -serial [dict get $leaf serial] -aki 0]
    set text [run openssl x509 -noout -text -in [dict get $leaf cert]]
    foreach pattern {
        "*OCSP - URI:http://127.0.0.1:1/a*OCSP - URI:http://b.invalid/*" "*CA Issuers - URI:http://c.invalid/ca*"
        "*TLS Feature:*status_request*" "*DNS:localhost, IP Address:127.0.0.1, IP Address:0:0:0:0:0:0:0:1*"
        "*CA:FALSE*" "*Serial Number: 171 (0xab)*"
    } { check "a leaf has $pattern" [list has $text $pattern] }
    check "the order of URLs" [list same [run openssl x509 -noout -ocsp_uri -in [dict get $leaf cert]] \
        "http://127.0.0.1:1/a\nhttp://b.invalid/"]
    check "the serial as openssl prints it" [list same serial=[dict get $leaf serial] \
        [run openssl x509 -noout -serial -in [dict get $leaf cert]]]
    check "same name" [list same [run openssl x509 -noout -subject -in [dict get $ca cert]] \
        [run openssl x509 -noout -subject -in [dict get $twin cert]]]
    check "same name, another key" [list has [run openssl verify -CAfile [dict get $ca cert] [dict get $same cert]] \
        "*error*"]
    check "its own issuer" [list has [run openssl verify -CAfile [dict get $twin cert] [dict get $same cert]] *OK]
    check "no key identifiers" [list same [string match "*Authority Key*" \
        [run openssl x509 -noout -text -in [dict get $same cert]]] 0]
    check "no AIA unless asked" [list same [run openssl x509 -noout -ocsp_uri -in [dict get $same cert]] ""]
    set negative [ocsp_pki_leaf $ca negative -serial -5]
    check "a negative serial" [list has [run openssl x509 -noout -serial -in [dict get $negative cert]] serial=-05]
    check "a negative serial's handle" [list same [dict get $negative serial] -05]

    set brief [ocsp_pki_leaf $ca brief -from @1700000000 -to @1700000007]
    check "chosen dates" [list same [run openssl x509 -noout -dates -in [dict get $brief cert]] \
        "notBefore=Nov 14 22:13:20 2023 GMT\nnotAfter=Nov 14 22:13:27 2023 GMT"]
    check "dates read back" [list same [dict get [ocsp_cert_info $brief] not_after] 1700000007]
    set far [ocsp_pki_leaf $ca far -to @2600000000]
    check "a date after 2050" [list has [run openssl x509 -noout -enddate -in [dict get $far cert]] "*2052 GMT"]
    set alone [ocsp_pki_selfsigned $dir alone]
    check "self-signed" [list has [run openssl verify -CAfile [dict get $alone cert] [dict get $alone cert]] *OK]
    set delegate [ocsp_pki_delegate $ca delegate]
    check "a delegate's EKU" [list has [run openssl x509 -noout -text -in [dict get $delegate cert]] \
        "*OCSP Signing*OCSP No Check*"]
    set renewed [ocsp_pki_leaf $ca renewed -key $leaf]
    check "a key used again" [list same [ocsp_file_read [dict get $renewed key]] [ocsp_file_read [dict get $leaf key]]]
    set forged [ocsp_pki_leaf $ca forged -signkey $twin]
    check "a forged one" [list has [run openssl verify -CAfile [dict get $ca cert] [dict get $forged cert]] "*error*"]
    set print [run openssl x509 -noout -fingerprint -sha256 -in [dict get $leaf cert]]
    check "the cache file's name" [list has [string map {: {}} $print] *=[ocsp_cert_sha256 $leaf]]
    set odd [ocsp_pki_leaf $ca odd -aia [list http://a\x01\nb\xff/]]
    check "any bytes in a URL" [list has [dict get [ocsp_cert_info $odd] der] *http://a\x01\nb\xff/*]
    ocsp_pki_keys [file join $dir keys]
    set one [ocsp_pki_leaf $ca kept -key rsa -dir [file join $dir one]]
    set two [ocsp_pki_leaf $ca kept -key rsa -dir [file join $dir two]]
    check "kept RSA keys" [list same [ocsp_file_read [dict get $one key]] [ocsp_file_read [dict get $two key]]]
    set pem [ocsp_pki_file [file join $dir both.pem] $leaf $ca]
    check "certificates in one file" [list same [llength [ocsp_pem_read $pem]] 2]
    check "a wrong option is told" { has [catch {ocsp_pki_ca $::dir x -colour red} words]$words "1There is no option*" }
    check "a request is openssl's" [list same [binary encode hex [ocsp_request_der $leaf $ca]] [binary encode hex \
        [ocsp_openssl "" ocsp -issuer [dict get $ca cert] -cert [dict get $leaf cert] -no_nonce -reqout -]]]
}

# ---- responses as files ---------------------------------------------------------------------------------------------

proc answer_checks {} {
    global dir
    foreach key {ec rsa} {
        set ca [ocsp_pki_ca $dir ca2-$key -key $key]
        set other [ocsp_pki_ca $dir other-$key -subject [dict get $ca subject]]
        set leaf [ocsp_pki_leaf $ca leaf2-$key -key $key]
        set delegate [ocsp_pki_delegate $ca delegate2-$key -key $key]
        set plain [ocsp_pki_delegate $ca plain-$key -eku {}]
        set foreign [ocsp_pki_delegate $other foreign-$key]
        # behaviour -> what openssl prints.
        set table [list \
            good "*verify OK*: good*" \
            revoked "*verify OK*: revoked*" \
            {revoked reason keyCompromise revoked_at @1700000000} "*: revoked*keyCompromise*Nov 14 22:13:20 2023*" \
            {revoked reason certificateHold} "*: revoked*Reason: certificateHold*" \
            {revoked reason aACompromise next none} "*: revoked*" \
            unknown "*verify OK*: unknown*" \
            tryLater "*trylater (3)*" malformedRequest "*malformedrequest (1)*" internalError "*internalerror (2)*" \
            sigRequired "*sigrequired (5)*" unauthorized "*unauthorized (6)*" \
            {responder_id key} "*verify OK*: good*" \
            [list signer $delegate] "*verify OK*: good*" \
            [list signer $delegate responder_id key] "*verify OK*: good*" \
            [list signer $delegate certs none] "*Response Verify Failure*" \
            [list signer $delegate certs [list $leaf $delegate $ca]] "*verify OK*: good*" \
            [list certs [list $ca]] "*verify OK*: good*" \
            [list signer $plain] "*Response Verify Failure*" \
            [list signer $foreign] "*Response Verify Failure*" \
            [list signer $other] "*Response Verify Failure*" \
            [list signer $leaf] "*Response Verify Failure*" \
            [list signer [dict replace $delegate key [dict get $plain key]]] "*Response Verify Failure*" \
            bad-signature "*Response Verify Failure*" {signature empty} "*Response Verify Failure*" \
            {digest sha384} "*verify OK*: good*" {digest sha512} "*verify OK*: good*" \
            several "*verify OK*: good*" ours-first "*verify OK*: good*" ours-last "*verify OK*: good*" \
            ours-missing "*ERROR: No Status found*" no-entries "*ERROR: No Status found*" \
            other-serial "*ERROR: No Status found*" other-issuer "*ERROR: No Status found*" \
            other-issuer-key "*ERROR: No Status found*" \
            {entries {{serial 77 status revoked} ours}} "*verify OK*: good*" \
            [list for [list [dict get $leaf serial] {status revoked}]] "*verify OK*: revoked*" \
            future-200 "*verify OK*: good*" future-400 "*Status times invalid*" expired "*Status times invalid*" \
            no-next "*verify OK*: good*" {this -5 next 15} "*verify OK*: good*" \
            {size 65536} "*verify OK*: good*" {size 1000} "*verify OK*: good*" {size 65537} "*verify OK*: good*" \
        ]
        foreach {behaviour pattern} $table {
            set file [file join $dir answer.der]
            check "$key: [string range $behaviour 0 60]" [list answer_check $file $leaf $ca $behaviour $pattern]
        }
        ocsp_response_file $file $leaf $ca sha256
        check "$key: SHA-256 CertIDs" [list has [run openssl ocsp -sha256 -issuer [dict get $ca cert] \
            -cert [dict get $leaf cert] -CAfile [dict get $ca cert] -respin $file] "*verify OK*: good*"]
        # openssl accepts SingleResponses of several CAs only from a signer that it is told to trust (-VAfile).
        foreach behaviour [list several-cas [list entries [list [list of $leaf issuer $other] {serial 77} ours]]] {
            ocsp_response_file $file $leaf $ca $behaviour
            check "$key: several CAs" [list has [ocsp_judge $leaf $ca $ca $file -VAfile [dict get $ca cert]] \
                "*verify OK*: good*"]
        }
    }
    foreach size {1000 65536 65537} {
        check "exactly $size bytes" [list same [string length [ocsp_response_der $leaf $ca [list size $size]]] $size]
    }
    set info [ocsp_response_info [ocsp_response_der $leaf $ca {revoked this @1700000000 next @1700000020 produced \
        @1700000001 reason superseded revoked_at @1600000000 hash sha256 entries {serial ours}}]]
    set entry [lindex [dict get $info entries] 1]
    foreach {key wanted} {this 1700000000 next 1700000020 status revoked reason 4 revoked_at 1600000000 hash sha256} {
        check "read back: $key" [list same [dict get $entry $key] $wanted]
    }
    check "read back: produced" [list same [dict get $info produced] 1700000001]
    check "read back: serial" [list same [dict get $entry serial] [dict get $leaf serial]]
    check "read back: no nextUpdate" [list same [dict get [lindex [dict get [ocsp_response_info \
        [ocsp_response_der $leaf $ca no-next]] entries] 0] next] 0]
    foreach {behaviour length} {empty 0 one-byte 1} {
        check "$behaviour as a file" [list same [string length [ocsp_response_der $leaf $ca $behaviour]] $length]
    }
    foreach wrong {nonsense {status perhaps} {colour red} {this soon}} {
        check "$wrong is refused" [list has [catch {ocsp_response_der $leaf $ca $wrong} words]$words 1*]
    }
}

proc answer_check {file leaf ca behaviour pattern} {
    ocsp_response_file $file $leaf $ca $behaviour
    has [ocsp_judge $leaf $ca $ca $file] $pattern
}

# ---- the responder --------------------------------------------------------------------------------------------------

proc responder_checks {} {
    global dir r der port ca leaf
    set ca [ocsp_pki_ca $dir ca3]
    set ca_rsa [ocsp_pki_ca $dir ca3-rsa -key rsa]
    set r [ocsp_responder_start -cas [list $ca $ca_rsa]]
    set port [dict get $r port]
    set leaf [ocsp_pki_leaf $ca leaf3 -aia [list [dict get $r url]]]
    set leaf_rsa [ocsp_pki_leaf $ca_rsa leaf3-rsa]
    set middle [ocsp_pki_intermediate $ca middle3]
    set delegate [ocsp_pki_delegate $ca delegate3]
    set der [ocsp_request_der $leaf $ca]
    set url [dict get $r url]

    foreach {behaviour pattern} [list good "*verify OK*: good*" revoked "*: revoked*" unknown "*: unknown*" \
        tryLater "*trylater*" [list signer $delegate] "*verify OK*: good*" http-1.0 "*: good*" keep-alive "*: good*" \
        pieces "*: good*" reset "*Error querying*" short "*Error querying*" html "*Error querying*" \
        http-404 "*404*" {nonce none} "*no nonce*: good*"] {
        ocsp_responder_behave $r $behaviour
        check "openssl asks: $behaviour" [list has [ocsp_ask $leaf $ca $ca $url] $pattern]
    }
    ocsp_responder_behave $r good
    check "the nonce comes back" [list same [string match "*nonce*" [ocsp_ask $leaf $ca $ca $url]] 0]
    check "the CA that was asked for signs" [list has [ocsp_ask $leaf_rsa $ca_rsa $ca_rsa $url] "*verify OK*: good*"]
    check "SHA-256 when asked so" [list has [run openssl ocsp -sha256 -issuer [dict get $ca cert] \
        -cert [dict get $leaf cert] -CAfile [dict get $ca cert] -url $url] "*verify OK*: good*"]
    ocsp_responder_behave $r [list for [list [dict get $leaf serial] revoked]]
    check "by serial: ours" [list has [ocsp_ask $leaf $ca $ca $url] "*: revoked*"]
    check "by serial: another" [list has [ocsp_ask $leaf_rsa $ca_rsa $ca_rsa $url] "*: good*"]

    # paths and queues
    ocsp_responder_behave $r good
    ocsp_responder_behave $r revoked /a
    ocsp_responder_queue $r 2 unknown /a
    ocsp_responder_queue $r 1 tryLater /a
    foreach wanted {unknown unknown trylater revoked revoked} {
        check "the queue of a path: $wanted" [list has [ocsp_ask $leaf $ca $ca [ocsp_responder_url $r /a]] *$wanted*]
    }
    check "beside the path" [list has [ocsp_ask $leaf $ca $ca [ocsp_responder_url $r /b]] "*: good*"]
    check "count by path" { same [ocsp_responder_count $r -path /a] 5 }

    # the log
    ocsp_responder_forget $r
    ocsp_responder_behave $r good
    check "GET is answered" { has [wired $port [get $der]] "closed*HTTP/1.1 200 OK*application/ocsp-response*" }
    check "GET below a path" { has [wired $port [get $der /deep/er]] "closed*HTTP/1.1 200 OK*" }
    check "GET unescaped" {
        has [wired $port "GET /x/[binary encode base64 $der] HTTP/1.0\r\n\r\n"] "closed*HTTP/1.1 200 OK*"
    }
    check "POST is answered" { has [wired $port [post $der /deep/er/]] "closed*200 OK*" }
    check "absolute form" { has [wired $port [post $der http://ocsp.invalid/p]] "closed*200 OK*" }
    set seen ""
    foreach entry [ocsp_responder_log $r] {
        lappend seen [dict get $entry method] [dict get $entry path] [dict get $entry proxy]
        check "the log's serial" [list same [dict get $entry serial] [dict get $leaf serial]]
        check "the log's request" [list same [dict get $entry der] [binary encode hex $der]]
        check "the log's hash and nonce" [list same "[dict get $entry hash] [dict get $entry nonce]" "sha1 0"]
        check "the log's end" [list same [dict get $entry end] sent]
    }
    check "the log" [list same $seen {GET / 0 GET /deep/er 0 GET /x 0 POST /deep/er 0 POST /p 1}]
    check "count by method" { same [ocsp_responder_count $r -method GET] 3 }

    # Each misbehaviour as sent: preset, how the connection ended, a pattern for the bytes.
    foreach {behaviour how pattern} {
        get-only closed "*405 Method*Content-Length: 0\r\n*" post-400 closed "* 400 *" post-403 closed "* 403 *"
        post-404 closed "* 404 *" post-429 closed "* 429 *" post-501 closed "* 501 *"
        redirect closed "*302*Location: /moved*"
        http-500 closed "* 500 *Length: 0\r\n*" http-502 closed "* 502 *" http-503 closed "* 503 *"
        http-500-html closed "* 500 *text/html*<html>*" http-500-right closed "* 500 *application/ocsp-response*"
        html closed "*200 OK*text/html*<html>*" html-as-ocsp closed "*application/ocsp-response*<html>*"
        wrong-type closed "*text/plain*" charset closed "*application/ocsp-response; charset=utf-8*"
        chunked-ext closed "*ing: chunked*;name=\"a;b\"\r\n*\r\n0\r\nX-Trailer: *\r\n\r\n"
        chunked-bad closed "*ing: chunked*h\r\n*" gzip closed "*Content-Encoding: gzip*\r\n\r\n\x1f\x8b*"
        {encode gzip-te} closed "*Transfer-Encoding: gzip*\r\n\r\n\x1f\x8b*"
        interim closed "HTTP/1.1 100 *\r\n\r\nHTTP/1.1 103 *\r\n\r\nHTTP/1.1 200*"
        line-feeds closed "HTTP/1.1 200 OK\n*\n\n*" {length twice} closed "*Length: *, *\r\nContent-Length: *"
        http-1.1-only closed "*200 OK*"
        chunked closed "*Transfer-Encoding: chunked*\r\n0\r\n\r\n" huge closed "*Content-Length: 70000*"
        empty closed "*200 OK*Content-Length: 0*" one-byte closed "*Length: 1*\r\n\r\n0" no-length closed "*200 OK*"
        http-1.0 closed "HTTP/1.0 200*" lower-case closed "*content-type: application*content-length: *"
        reset closed "" close closed "" close-accept * "" reset-mid closed * short closed "*200 OK*"
        {status_line "HTP 200"} closed "HTP 200\r\n*"
        {before "HTTP/1.1 100 Continue\r\n\r\n"} closed "*100 Continue*200 OK*"
        {headers {"X-More: 1"}} closed "*X-More: 1*" pieces closed "*200 OK*" pieces-all closed "*200 OK*"
    } {
        ocsp_responder_behave $r $behaviour
        check "on the wire: $behaviour" [list wire_check [wire $port [post $der]] $how $pattern]
    }
    foreach {behaviour pattern} {
        hang "" endless "*\x00\x00*" endless-headers "*X-Filler*X-Filler*" endless-line "*aaaaaaaa" drip "H*"
        drip-body "*\r\n\r\n*" keep-alive "*200 OK*keep-alive*"
        keep-no-length "*200 OK*keep-alive\r\n\r\n0*"
    } {
        ocsp_responder_behave $r $behaviour
        ocsp_responder_forget $r
        check "without an end: $behaviour" [list wire_check [wire $port [post $der] 1200 100000] open $pattern]
        check "the log of $behaviour" {
            until {[dict get [lindex [ocsp_responder_log $r] 0] end] in {client-closed sent}}
        }
    }
    foreach {behaviour status} {http-1.1-only 426 {min_version 1.1 refuse_old 505} 505} {
        ocsp_responder_behave $r $behaviour
        check "HTTP/1.0 refused with $status" [list has [wired $port [string map {HTTP/1.1 HTTP/1.0} [get $der]]] \
            "*HTTP/1.1 $status *Content-Length: 0\r\n*"]
    }
    ocsp_responder_behave $r no-type
    check "no type" { same [string match -nocase *content-type* [lindex [wire $port [post $der]] 1]] 0 }
    ocsp_responder_behave $r no-length
    check "no length" { same [string match -nocase *content-length* [lindex [wire $port [post $der]] 1]] 0 }
    ocsp_responder_behave $r post-only
    check "post-only: GET" { has [wired $port [get $der]] "*405*" }
    check "post-only: POST" { has [wired $port [post $der]] "*200 OK*" }
    ocsp_responder_behave $r {get-only refused_body ocsp}
    check "refused with the right body" { has [wired $port [post $der]] "*405*application/ocsp-response*" }
    foreach {behaviour delta} {trailing 1 truncated -1} {
        ocsp_responder_behave $r $behaviour
        check "$behaviour body" [list body_check $behaviour]
    }
    ocsp_responder_behave $r {endless headers {} }
    check "endless passes 64 KiB soon" {
        set count [string length [lindex [wire $port [post $der] 5000 70000] 1]]
        expr {$count >= 70000 ? 1 : $count}
    }
    ocsp_responder_behave $r {drip piece_ms 100}
    check "dripping drips" {
        set count [string length [lindex [wire $port [post $der] 1050] 1]]
        expr {$count >= 2 && $count <= 12 ? 1 : $count}
    }
    ocsp_responder_behave $r reset
    check "POST is reset" { same [is_reset $port [post $der]] 1 }
    check "GET is reset, too" { same [is_reset $port [get $der]] 1 }
    ocsp_responder_behave $r reset-mid
    check "reset in the middle" { same [is_reset $port [post $der]] 1 }
    check "GET reset in the middle" { same [is_reset $port [get $der]] 1 }
    ocsp_responder_behave $r close
    check "closed and not reset" { same [is_reset $port [post $der]] 0 }
    ocsp_responder_behave $r short
    check "short and not reset" { same [is_reset $port [post $der]] 0 }
    ocsp_responder_behave $r {reset-mid delay 100}
    check "a delayed reset" { same [is_reset $port [post $der]] 1 }

    # The same bytes for every request; after another behaviour, other bytes
    ocsp_responder_behave $r presigned
    set first [wire_body [lindex [wire $port [post $der]] 1]]
    after 1100
    check "presigned: the same bytes" [list same [wire_body [lindex [wire $port [post $der]] 1]] $first]
    ocsp_responder_behave $r presigned
    check "presigned anew" [list same [expr {[wire_body [lindex [wire $port [post $der]] 1]] eq $first}] 0]
    ocsp_responder_behave $r {this @1700000000 next @4000000000}
    check "fixed thisUpdate" {
        set info [ocsp_response_info [wire_body [lindex [wire $port [post $der]] 1]]]
        same [dict get [lindex [dict get $info entries] 0] this] 1700000000
    }

    # keep-alive: two requests on one connection, also when the second is sent early
    ocsp_responder_behave $r keep-alive
    ocsp_responder_forget $r
    check "two requests on a connection" { has [wired $port [post $der][get $der] 1000] "open*200 OK*200 OK*" }
    check "both are in the log" { same [ocsp_responder_count $r] 2 }

    # hang and release; a client that leaves while its request hangs
    ocsp_responder_behave $r hang
    ocsp_responder_forget $r
    set f [open |[list openssl ocsp -issuer [dict get $ca cert] -cert [dict get $leaf cert] \
        -CAfile [dict get $ca cert] -url $url 2>@1] r]
    ocsp_responder_wait $r 1 -end hanging
    check "one request hangs" { same [dict get [ocsp_responder_stats $r] hanging] 1 }
    check "releasing says how many" { same [ocsp_responder_release $r revoked] 1 }
    check "the released is answered" [list has [read $f] "*: revoked*"]
    catch {close $f}
    check "waiting in vain is told" { has [catch {ocsp_responder_wait $r 99 50} words]$words "1The responder saw*" }
    check "nothing hangs any more" { until {[dict get [ocsp_responder_stats $r] open] == 0} }
    check "a wrong behaviour is told to the test" {
        has [catch {ocsp_responder_behave $r nonsense} words]$words "1There is no behaviour*"
    }
    check "the mock made no mistakes" { same [dict get [ocsp_responder_stats $r] errors] "" }

    # CONNECT
    ocsp_responder_behave $r good
    check "a tunnel" { has [wired $port "CONNECT anywhere.invalid:$port HTTP/1.1\r\n\r\n" 500] "open*200 Connection*" }
    ocsp_responder_behave $r {good proxy_status 403}
    check "a refused tunnel" { has [wired $port "CONNECT a.invalid:$port HTTP/1.1\r\n\r\n"] "closed*403*" }
    ocsp_responder_behave $r good
    check "absolute form, by openssl" {
        has [ocsp_ask $leaf $ca $ca http://127.0.0.1:$port/ -proxy http://127.0.0.1:$port] "*verify OK*: good*"
    }

    # stop, and start again on the same port
    ocsp_responder_stop $r
    ocsp_responder_stop $r
    check "stopped" { same [lindex [wire $port [post $der]] 0] refused }
    set r [ocsp_responder_start -ca $ca -port $port -behave revoked]
    check "again on its port" [list has [ocsp_ask $leaf $ca $ca $url] "*: revoked*"]
    check "a taken port is told" {
        has [catch {ocsp_responder_start -ca $ca -port $port} words]$words "1*cannot listen*choose a free port*"
    }
    ocsp_responder_stop $r
}

proc wire_check {seen how pattern} {
    lassign $seen ended bytes
    if {![string match $how $ended]} { return "ended '$ended' and not '$how'" }
    has $bytes $pattern
}

proc body_check {behaviour} {
    set body [wire_body [lindex [wire $::port [post $::der]] 1]]
    set whole [dict get [ocsp_der_read $body\x00[string repeat \x00 2000]] next]
    same [expr {$behaviour eq "trailing" ? [string length $body] - $whole : $whole > [string length $body]}] 1
}

# Skips what needs IPv6 or the Tcl package tls where these are missing.
proc family_checks {} {
    global dir to
    set ca [ocsp_pki_ca $dir ca4]
    set server [ocsp_pki_leaf $ca https4]
    set leaf [ocsp_pki_leaf $ca leaf4]
    if {![catch {socket -server list -myaddr ::1 0} probe]} {
        close $probe
        set r [ocsp_responder_start -ca $ca -host both]
        set port [dict get $r port]
        set der [ocsp_request_der $leaf $ca]
        foreach address {127.0.0.1 ::1} {
            check "over $address" [list has [wired $port [post $der] 3000 1000000 $address] "closed*200 OK*"]
        }
        set local {}
        foreach entry [ocsp_responder_log $r] { lappend local [dict get $entry local] }
        check "the log says which" [list same $local {127.0.0.1 ::1}]
        ocsp_responder_stop $r
        set r [ocsp_responder_start -ca $ca -host ::1]
        check "on ::1 alone" [list has [ocsp_ask $leaf $ca $ca [dict get $r url]] "*verify OK*: good*"]
        ocsp_responder_stop $r
    } else {
        puts "\[skipped\] no IPv6 loopback"
    }
    if {![catch {package require tls}]} {
        set r [ocsp_responder_start -ca $ca -tls $server]
        set text [ocsp_ask $leaf $ca $ca [dict get $r url]]
        check "https" [list has $text "*verify OK*: good*"]
        set to [dict get $r port]
        foreach version {tls1_2 tls1_3} {
            set text [run openssl s_client -connect 127.0.0.1:$to -CAfile [dict get $ca cert] \
                -verify_hostname localhost -$version -brief]
            check "https: $version" [list has $text "*Verification: OK*"]
        }
        check "https: a client that leaves" { has [wired $to "no handshake"] "*" }
        set proxy [ocsp_responder_start -ca $ca]
        set text [ocsp_ask $leaf $ca $ca [dict get $r url] -proxy http://127.0.0.1:[dict get $proxy port]]
        check "https through CONNECT" [list has $text "*verify OK*: good*"]
        set entry [lindex [ocsp_responder_log $proxy] 0]
        check "CONNECT is in the proxy's log" [list same [dict get $entry target] localhost:$to]
        check "https: no mistakes" [list same [dict get [ocsp_responder_stats $r] errors] ""]
        ocsp_responder_behave $r keep-alive
        check "https: keep-alive" [list has [ocsp_ask $leaf $ca $ca [dict get $r url]] "*: good*"]
        ocsp_responder_behave $r {delay 50}
        check "https: delay" [list has [ocsp_ask $leaf $ca $ca [dict get $r url]] "*: good*"]
        ocsp_responder_stop $r
        ocsp_responder_stop $proxy
    } else {
        puts "\[skipped\] no Tcl package tls (Debian: tcl-tls)"
    }
}

# ---- the command line, with `openssl ocsp` as the responder ---------------------------------------------------------

proc demo_checks {} {
    global dir here
    set demo [file join $dir demo]
    set pki [list [info nameofexecutable] [file join $here .. .. utils ocsp-pki.tcl]]
    check "demo" [list has [run {*}$pki demo $demo --url http://127.0.0.1:8888/ --must-staple] "Created in*"]
    check "a second certificate" [list has [run {*}$pki leaf $demo second --url http://127.0.0.1:8888/ --key rsa] \
        "Created in*"]
    check "its files" [list same [lsort [glob -tails -directory $demo *]] {ca.crt ca.key index.txt index.txt.attr\
        responder.crt responder.key second.crt second.key server.crt server.key}]
    # openssl answers a request from index.txt and writes a file: no port and no waiting.
    foreach {verb name wanted} {
        "" server good "revoke --reason keyCompromise" server "revoked*Reason: keyCompromise" restore server good
        "revoke --reason certificateHold" server "revoked*Reason: certificateHold" "" second good revoke second revoked
    } {
        if {$verb ne ""} {
            set options [lassign $verb verb]
            check "$verb $name" [list has [run {*}$pki $verb $demo $name {*}$options] "*in *index.txt: $name*"]
        }
        set text [run openssl ocsp -index $demo/index.txt -CA $demo/ca.crt -rsigner $demo/responder.crt -rkey \
            $demo/responder.key -nmin 5 -issuer $demo/ca.crt -cert $demo/$name.crt -CAfile $demo/ca.crt -no_nonce \
            -respout $demo/out.der]
        append text [run openssl ocsp -issuer $demo/ca.crt -cert $demo/$name.crt -CAfile $demo/ca.crt \
            -respin $demo/out.der]
        check "openssl's answer: $name is $wanted" [list has $text "*verify OK*: $wanted*"]
        file delete $demo/out.der
    }
    check "usage" [list has [run {*}$pki] "Usage:*"]
    check "an unknown name is told" [list has [run {*}$pki revoke $demo nobody] "There is no nobody.crt*"]
}

file mkdir $dir
foreach part {der_checks pki_checks answer_checks responder_checks family_checks demo_checks} {
    if {[catch {$part} words]} {
        incr failed
        puts "\[failed\] $part ended early\n    $errorInfo"
    }
}
ocsp_responder_stop_all
file delete -force -- $dir
puts "$passed passed, $failed failed"
exit [expr {$failed > 0}]
