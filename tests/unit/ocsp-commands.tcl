# ocsp-commands.tcl - OCSP.GET, which shows the response being stapled, and OCSP.SET, with which an operator pushes one
# that was fetched elsewhere.
#
# Weight: 50
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Certificates of the CA that the tests below push responses for.
ocsp_setup
set quiet [ocsp_pki_leaf $ca quiet]
set other [ocsp_lab_leaf $lab other]
set twin_ca [ocsp_pki_ca $dir twin]

# Returns a response in base64.
proc encoded {behaviour {cert {}} {ca {}}} {
    if {$cert eq {}} {set cert $::leaf}
    if {$ca eq {}} {set ca $::ca}
    return [binary encode base64 [ocsp_response_der $cert $ca $behaviour]]
}

# Sends commands, one per argument, to the port without TLS. Returns the lines of their replies as they are.
proc raw_lines {args} {
    set plain [socket [srv 0 host] [srv 0 pport]]
    fconfigure $plain -translation binary -buffering line
    foreach line [concat $args {{echo --end--}}] {puts -nonewline $plain $line\r\n}
    flush $plain
    set lines {}
    while {[set line [string trimright [gets $plain] \r]] ne "--end--"} {lappend lines $line}
    close $plain
    return [lrange $lines 0 end-1]
}

# Returns the value of a line of OCSP.GET's text.
proc text_line {text name} {
    foreach line [split $text \n] {
        if {[string match "$name: *" $line]} {return [string range $line [string length "$name: "] end]}
    }
    fail "the text has no line '$name': $text"
}

start_server [ocsp_server $leaf $ca retry-delay 1 timeout 1] {
    ocsp_wait_info state good

    test {OCSP.GET: DER and BASE64 are the bytes that clients get} {
        set der [r ocsp.get der]
        assert_equal [string length $der] [ocsp_info response_bytes]
        set base64 [r OCSP.GET Base64]
        assert_equal [binary decode base64 $base64] $der
        assert_no_match "*\n*" $base64
        if {[auto_execok gnutls-cli] ne {}} {assert_equal [dict get [ocsp_gnutls $ca] der] $der}
    }

    test {OCSP.GET: TEXT, also without an argument, describes the response in the terms of RFC 6960} {
        set text [r ocsp.get]
        # The seconds that are left may differ.
        assert_match "[lindex [split $text ,] 0]*" [r ocsp.get text]
        assert_equal [text_line $text responseStatus] successful
        assert_equal [text_line $text certStatus] good
        assert_match "* UTC ([ocsp_info this_update])" [text_line $text thisUpdate]
        assert_match "* UTC ([ocsp_info next_update])" [text_line $text nextUpdate]
        assert_match "* UTC ([ocsp_info produced_at])" [text_line $text producedAt]
        assert_match "* UTC ([ocsp_info next_update]), * seconds left" [text_line $text {stapled until}]
        assert_match "byName *CN=*" [text_line $text responderID]
        assert_equal [text_line $text signer] {the issuer of the certificate}
        assert_match "*CN=*" [text_line $text {signer subject}]
        assert_equal [text_line $text {CertID hashAlgorithm}] sha1
        assert_equal [text_line $text {CertID serialNumber}] [dict get $leaf serial]
        assert_match {[0-9A-F]*} [text_line $text {CertID issuerKeyHash}]
        assert_equal [string length [text_line $text {CertID issuerNameHash}]] 40
        assert_match {*SHA256*} [string toupper [text_line $text signatureAlgorithm]]
        assert_equal [text_line $text source] network
        assert_equal [text_line $text size] "[ocsp_info response_bytes] bytes"
        assert_equal [text_line $text responseExtensions] none
    }

    test {OCSP.GET: a serial number in either letter case, before or after which nothing is needed} {
        set serial [dict get $leaf serial]
        set der [r ocsp.get der]
        assert_equal [r ocsp.get der $serial] $der
        assert_equal [r ocsp.get der [string tolower $serial]] $der
        assert_match "*certStatus: good*" [r ocsp.get [string tolower $serial]]
        assert_error "ERR no certificate in service has the serial number 1234abcd: use $serial" {r ocsp.get der 1234abcd}
    }

    test {OCSP.GET: wrong arguments} {
        assert_error {*wrong number of arguments*} {r ocsp.get der 01 02}
        foreach words {{pem} {der base64} {01 der} {""} {der ""}} {
            assert_error {ERR the arguments are DER, BASE64 or TEXT*} {r ocsp.get {*}$words} $words
        }
    }

    test {OCSP.GET: in MULTI, in a script, and RESP3's verbatim text} {
        r multi
        r ocsp.get base64
        r ocsp.get
        lassign [r exec] base64 text
        assert_equal $base64 [r ocsp.get base64]
        assert_match {*certStatus: good*} $text
        assert_equal [r eval {return redis.call('ocsp.get', 'base64')} 0] $base64
        assert_match {=*} [lsearch -inline [raw_lines {hello 3} {ocsp.get text}] =*]
        assert_match {*txt:responseStatus*} [raw_lines {hello 3} {ocsp.get}]
        assert_match {$[0-9]*} [lindex [raw_lines {ocsp.get text}] 0]
    }

    test {OCSP.GET: with stapling off, as nothing is stapled, null} {
        ocsp_set stapling no
        assert_equal [raw_lines ocsp.get] [list {$-1}]
        assert_equal [raw_lines {ocsp.get der}] [list {$-1}]
        assert_equal [lindex [raw_lines {hello 3} {ocsp.get der}] end] _
        ocsp_set stapling yes
        assert_match {*certStatus: good*} [r ocsp.get]
    }

    test {OCSP.GET: a user needs the right to it and to DEBUG} {
        r acl setuser bob on >secret ~* &* +@all -debug
        set bob [valkey_client]
        $bob auth bob secret
        assert_error {*NOPERM*debug*} {$bob ocsp.get}
        r acl setuser bob +debug -ocsp.get
        assert_error {*NOPERM*} {$bob ocsp.get}
        r acl setuser bob +ocsp.get
        assert_match {*certStatus: good*} [$bob ocsp.get]
        $bob close
    }

    test {OCSP.GET and OCSP.SET: COMMAND INFO has the flags: neither writes, so neither is replicated} {
        foreach {name flag} {ocsp.get admin ocsp.set admin} {
            set flags [lindex [lindex [r command info $name] 0] 2]
            assert_morethan_equal [lsearch $flags $flag] 0 $flags
            assert_equal [lsearch $flags write] -1
        }
        set offset [s master_repl_offset]
        set dirty [s rdb_changes_since_last_save]
        after 1100
        assert_equal [r ocsp.set [encoded good]] OK
        assert_equal [s master_repl_offset] $offset
        assert_equal [s rdb_changes_since_last_save] $dirty
    }

    test {OCSP.SET: a newer response is stapled, cached, and replaced by a newer one from the responder} {
        after 1100
        set refreshes [ocsp_info refreshes]
        set lines [llength [ocsp_log_lines 0 {*from an operator*}]]
        set base64 [encoded {next 7200}]
        assert_equal [r ocsp.set $base64] OK
        assert_equal [r ocsp.get base64] $base64
        assert_equal [ocsp_info response_source] pushed
        assert_equal [text_line [r ocsp.get] source] pushed
        assert_equal [ocsp_info refreshes] $refreshes
        assert_equal [ocsp_file_read [ocsp_cache_file [lindex [r config get dir] 1] $leaf]] [r ocsp.get der]
        assert_equal [dict get [ocsp_handshake] next] [ocsp_info next_update]
        ocsp_assert_good $ca
        assert_equal [llength [ocsp_log_lines 0 {*from an operator*}]] [expr {$lines + 1}]
        after 1100
        assert_equal [r ocsp.refresh] OK
        assert_equal [ocsp_info response_source] network
    }

    test {OCSP.SET: the same again is OK, an older response is refused with the reason} {
        after 1100
        set base64 [encoded {this 0}]
        assert_equal [r ocsp.set $base64] OK
        assert_equal [r ocsp.set $base64] OK
        assert_error {ERR certificate *: the response is older than the current response*} {
            r ocsp.set [encoded {this -100}]}
        assert_match {pushed response: *} [ocsp_info last_error]
        assert_equal [ocsp_info last_error_code] older
        assert_equal [ocsp_info consecutive_failures] 0
        assert_equal [r ocsp.get base64] $base64
        assert_morethan [llength [ocsp_log_lines 0 {*pushed OCSP response refused (older)*}]] 0
        after 1100
        assert_equal [r ocsp.set [encoded good]] OK
        assert_equal [ocsp_info last_error] {}
    }

    test {OCSP.SET: line ends are allowed in base64} {
        after 1100
        set der [ocsp_response_der $leaf $ca good]
        foreach eol [list \n \r\n] {
            assert_equal [r ocsp.set [binary encode base64 -maxlen 64 -wrapchar $eol $der]$eol] OK
            assert_equal [r ocsp.get der] $der
        }
    }

    # What must not be stapled: the current response stays.
    foreach {name base64 reason} [list \
        {an expired response}      {[encoded {this -7200 next -3600}]}      {*has expired*} \
        {a bad signature}          {[encoded {signature bad next 7000}]}    {*signature does not verify*} \
        {another certificate's}    {[encoded {next 7000} $other]}           {*no SingleResponse matches*} \
        {another CA's}             {[encoded {next 7000 signer ca} $leaf $twin_ca]} {*no SingleResponse matches*} \
        {certStatus unknown}       {[encoded {status unknown next 7000}]}   {*status unknown*} \
        {tryLater}                 {[encoded {response_status tryLater}]}   {*trylater*} \
        {no argument's text}       {}                                       {*empty*} \
        {a number of digits that is no multiple of four} {[encoded good]A}  {*not base64*} \
        {text}                     {-----BEGIN OCSP RESPONSE-----}          {*not base64*} \
        {padding in the middle}    {MA==MA==}                               {*not base64*} \
        {bits after the end}       {MB==}                                   {*not base64*} \
        {base64 of something else} {aGVsbG8gd29ybGQ=}                       {*not a complete DER-encoded*} \
        {more than 64 KiB}         {[string repeat AAAA 21846]}             {*more than 65536 bytes*} \
        {more than 128 KiB}        {[string repeat A 140000]}               {*more than 65536 bytes*} \
    ] {
        test "OCSP.SET: refused, and the current response stays: $name" {
            set before [r ocsp.get base64]
            set kinds [ocsp_info refresh_failures]
            assert_error $reason {r ocsp.set [subst $base64]}
            assert_equal [r ocsp.get base64] $before
            assert_equal [ocsp_info refresh_failures] $kinds
            ocsp_assert_staple good
        }
    }

    test {OCSP.SET: revoked, and good again} {
        after 1100
        assert_equal [r ocsp.set [encoded {status revoked reason keyCompromise}]] OK
        assert_equal [ocsp_info state] revoked
        ocsp_assert_staple revoked
        set text [r ocsp.get]
        assert_equal [text_line $text certStatus] revoked
        assert_equal [text_line $text revocationReason] keyCompromise
        assert_match {* UTC (*)} [text_line $text revocationTime]
        after 1100
        assert_equal [r ocsp.set [encoded good]] OK
        assert_equal [ocsp_info state] good
        ocsp_assert_good $ca
    }

    test {OCSP.GET: an authorized responder, named by its key, and a response without nextUpdate} {
        after 1100
        set signer [ocsp_pki_leaf $ca signer -eku OCSPSigning]
        assert_equal [r ocsp.set [encoded [list signer $signer responder_id key next none]]] OK
        set text [r ocsp.get]
        assert_equal [text_line $text signer] {an authorized responder}
        assert_equal [text_line $text {signer serialNumber}] [dict get $signer serial]
        assert_match {* UTC (*)} [text_line $text {signer notAfter}]
        assert_match {byKey [0-9A-F]*} [text_line $text responderID]
        assert_equal [text_line $text nextUpdate] absent
        after 1100
        assert_equal [r ocsp.refresh] OK
    }

    test {OCSP.SET: a response with SingleResponses for other certificates too} {
        after 1100
        assert_equal [r ocsp.set [encoded {entries {serial ours issuer}}]] OK
        assert_equal [text_line [r ocsp.get] SingleResponses] 3
        assert_equal [text_line [r ocsp.get] {CertID serialNumber}] [dict get $leaf serial]
        ocsp_assert_staple good
    }

    test {OCSP.SET: is served during a fetch that hangs, which then follows if it is still due} {
        ocsp_set timeout 60
        ocsp_responder_behave $responder hang
        after 1100
        ocsp_responder_forget $responder
        set waiting [valkey_deferring_client]
        $waiting ocsp.refresh
        ocsp_wait_hanging $responder
        # The fetch may hang for 60 seconds: if this waited for it, the suite would show it.
        set base64 [encoded good]
        assert_equal [r ocsp.set $base64] OK
        assert_equal [r ocsp.get base64] $base64
        assert_error {*older*} {r ocsp.set [encoded {this -1000}]}
        # The refresh that was requested is not lost.
        ocsp_wait_hanging $responder
        after 1100
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        assert_equal [$waiting read] OK
        $waiting close
        assert_equal [ocsp_info response_source] network
        ocsp_set timeout 1
    }

    test {OCSP.SET: with a dead responder it counts as a success for the back-off} {
        # No retry of its own takes place during the test.
        set delay [ocsp_get retry-delay]
        ocsp_set retry-delay 3600
        ocsp_responder_behave $responder {drop close}
        assert_error {*} {r ocsp.refresh}
        assert_morethan [ocsp_info consecutive_failures] 0
        after 1100
        set before [ocsp_info refreshes]
        assert_equal [r ocsp.set [encoded good]] OK
        assert_equal [ocsp_info consecutive_failures] 0
        assert_equal [ocsp_info last_error] {}
        # The next refresh is by the formula: 3600 seconds with 10 %, less jitter.
        assert_range [ocsp_info next_refresh_in_seconds] 2000 3240
        after 2500
        assert_equal [ocsp_info refreshes] $before "a refresh that was not due"
        ocsp_responder_behave $responder good
        ocsp_set retry-delay $delay
    }

    test {OCSP.SET: wrong number of arguments, MULTI, scripts} {
        assert_error {*wrong number of arguments*} {r ocsp.set}
        assert_error {*wrong number of arguments*} {r ocsp.set MA== MA==}
        r multi
        catch {r ocsp.set MA==} queued
        assert_error {*OCSP.SET waits*} {r exec}
        assert_error {*} {r eval {return redis.call('ocsp.set', 'MA==')} 0}
        assert_equal [s blocked_clients] 0
    }

    test {OCSP.SET: a user without the right to DEBUG may not run it} {
        r acl setuser carol on >secret ~* &* +@all -debug
        set carol [valkey_client]
        $carol auth carol secret
        assert_error {*NOPERM*} {$carol ocsp.set [encoded good]}
        $carol close
    }

    test {OCSP.SET: is not DEBUG OCSP-SET, which is for patched servers} {
        assert_error {ERR*} {r debug ocsp-set MA==}
        assert_error {ERR*} {r debug ocsp-get der}
    }

    test {OCSP.SET: clients that disconnect while they wait do no harm} {
        after 1100
        for {set i 0} {$i < 40} {incr i} {
            set gone [valkey_deferring_client]
            $gone ocsp.set [encoded good]
            $gone flush
            $gone close
        }
        wait_for_condition 200 50 {[s blocked_clients] == 0} else {fail "[s blocked_clients] clients are still blocked"}
        # Not before: with more than 16 waiting, the answer would be that the server is busy.
        assert_equal [r ocsp.set [encoded good]] OK
    }

    test {OCSP.SET: refused with stapling off, and with a response-file, which is named} {
        ocsp_set stapling no
        assert_error {*stapling is off*} {r ocsp.set [encoded good]}
        ocsp_set stapling yes
        set file [file join $dir supplied.der]
        ocsp_response_file $file $leaf $ca {this -120 next +7200}
        ocsp_set response-file $file
        ocsp_wait_info response_source file
        assert_error {*response-file*} {r ocsp.set [encoded good]}
        ocsp_set response-file ""
    }
}

start_server [ocsp_server $quiet $ca] {
    test {OCSP.SET: a certificate that names no responder: stapled, and after a restart too, until it expires} {
        ocsp_wait_info state no-responder
        assert_equal [raw_lines ocsp.get] [list {$-1}]
        assert_error {ERR*no certificate in service*serial*} {r ocsp.get der 99}
        assert_equal [r ocsp.set [encoded {next 25} $quiet]] OK
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info next_refresh_in_seconds] -1
        ocsp_assert_good $ca
        restart_server 0 true false
        assert_equal [ocsp_staple] good
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info response_source] cache
        ocsp_wait_info state expired 0 60
        assert_equal [raw_lines ocsp.get] [list {$-1}]
        ocsp_assert_staple none
        after 1100
        assert_equal [r ocsp.set [encoded good $quiet]] OK
        assert_equal [ocsp_info state] good
        ocsp_assert_good $ca
    }
}

test {OCSP.SET: the documented way: openssl ocsp elsewhere, base64, valkey-cli} {
    set cli [file join [file dirname $::server_binary] valkey-cli]
    if {![file executable $cli]} {set cli [lindex [auto_execok redis-cli] 0]}
    start_server [ocsp_server $quiet $ca] {
        ocsp_wait_info state no-responder
        set response [file join $dir resp.der]
        exec $::openssl ocsp -issuer [dict get $ca cert] -cert [dict get $quiet cert] -url $url \
            -CAfile [dict get $ca cert] -no_nonce -respout $response 2>@1
        set command "\"$cli\" -p [srv 0 pport] OCSP.SET \"\$(base64 -w0 \"$response\")\""
        assert_match {OK*} [exec sh -c $command]
        ocsp_assert_good $ca
        assert_equal [r ocsp.get der] [ocsp_file_read $response]
        assert_match {responseStatus: successful*} [exec $cli -p [srv 0 pport] OCSP.GET]
    }
}

test {OCSP.SET: a self-signed certificate is refused with that reason} {
    start_server [ocsp_server [dict create cert [dict get $ca cert] key [dict get $ca key]] $ca] {
        ocsp_wait_info state self-signed
        assert_error {*self-signed*} {r ocsp.set [encoded good]}
    }
}

ocsp_lab_close $lab
