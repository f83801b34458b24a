# ocsp_der.tcl - DER for certificates and OCSP: a writer, a small reader, PEM, and calls of `openssl` for hashes and
# signatures. Used by ../../utils/ocsp-pki.tcl (certificates) and ocsp_responder.tcl (responses).
#
# WRITING. Each proc returns a byte string that is one complete DER element. Elements can be concatenated.
#
#   ocsp_der_tlv TAG CONTENT            any element; TAG is a number such as 0x30
#   ocsp_der_seq ?ELEMENT ...?          SEQUENCE of the elements;   ocsp_der_set: SET
#   ocsp_der_int NUMBER                 INTEGER from a Tcl integer of any size, also negative
#   ocsp_der_enum NUMBER                ENUMERATED
#   ocsp_der_bool 0|1, ocsp_der_null
#   ocsp_der_oid 1.2.840.10045.4.3.2    OBJECT IDENTIFIER
#   ocsp_der_octets BYTES, ocsp_der_bits BYTES ?UNUSED?, ocsp_der_utf8 TEXT, ocsp_der_printable TEXT, ocsp_der_ia5 BYTES
#   ocsp_der_gentime SECONDS            GeneralizedTime, whole seconds;   ocsp_der_utctime: UTCTime
#   ocsp_der_time SECONDS               for certificates: UTCTime up to 2049, then GeneralizedTime
#   ocsp_der_explicit N ELEMENT         [N] EXPLICIT;   ocsp_der_implicit N CONTENT ?constructed?: [N] IMPLICIT
#
# READING. Errors are raised as sentences.
#
#   ocsp_der_read BYTES ?POS?           dict: tag, content, whole, next (the position after the element)
#   ocsp_der_children BYTES             list of such dicts, for the elements that BYTES (a content) consists of
#   ocsp_der_toint CONTENT              an INTEGER's content as a Tcl integer
#   ocsp_der_oidname CONTENT            an OBJECT IDENTIFIER's content as 1.2.3
#   ocsp_cert_info CERT                 CERT: a PEM or DER file, or a handle of ocsp-pki.tcl. dict:
#                                         der, serial (upper-case hex as INFO prints it), serial_number (integer),
#                                         subject, issuer, spki (DER elements), key_bits (the input of issuerKeyHash),
#                                         key_type (rsa or ec), ski (bytes, may be empty), not_before, not_after
#   ocsp_cert_sha256 CERT               lower-case hex of the SHA-256 of its DER: the name of its cache file,
#                                         ocsp-<that>.der
#   ocsp_cert_id CERT ISSUER ?sha1|sha256|sha384|sha512?   the DER CertID
#   ocsp_request_info DER               of an OCSPRequest. dict: nonce (0|1), nonce_ext (DER), certids: list of dicts
#                                         hash (sha1, sha256, or the OID), name_hash, key_hash (hex), serial (hex),
#                                         der (the CertID as received)
#   ocsp_request_der CERT ISSUER ?sha1|sha256?   an OCSPRequest without nonce
#   ocsp_response_info DER              of an OCSPResponse, not verified. dict: response_status; when successful also
#                                         produced, responder_id (name|key), signature_algorithm (OID), certs (count),
#                                         nonce (0|1), entries: list of dicts hash, name_hash, key_hash, serial,
#                                         status, this, next (0: none), revoked_at, reason
#
# PEM AND OPENSSL
#
#   ocsp_pem_read FILE                  list of {LABEL DER} of a file; a DER file is one {DER bytes}
#   ocsp_pem_write FILE LABEL DER       writes one block;   ocsp_pem_text LABEL DER: returns it
#   ocsp_file_read FILE, ocsp_file_write FILE BYTES    whole binary files; written by rename
#   ocsp_digest sha1|sha256 BYTES       the hash, as bytes
#   ocsp_sign KEYFILE BYTES ?sha256?    the signature, as bytes;  both cache their results
#   ocsp_sign_algorithm rsa|ec|ed25519 ?sha256?   the AlgorithmIdentifier of the signature. The digest "pss" is
#                                       RSASSA-PSS with SHA-256; for Ed25519 the digest is ignored
#   ocsp_openssl INPUT ARG ...          runs `openssl ARG ...` with bytes on stdin, returns stdout as bytes
#
# The program is `openssl` from PATH, or $env(OPENSSL).
#
# SPDX-License-Identifier: BSD-3-Clause


package require Tcl 8.6-

namespace eval ::ocsp {
    variable memo           ;# hashes and signatures that openssl has made, by input
    array set memo {}
    variable memo_max 4000  ;# entries after which it is emptied
    variable hash_oids {
        1.3.14.3.2.26 sha1 2.16.840.1.101.3.4.2.1 sha256 2.16.840.1.101.3.4.2.2 sha384 2.16.840.1.101.3.4.2.3 sha512
    }
}

# ---- writing --------------------------------------------------------------------------------------------------------

proc ocsp_der_tlv {tag content} {
    set n [string length $content]
    if {$n < 128} {
        return [binary format cc $tag $n]$content
    }
    set octets ""
    while {$n > 0} {
        set octets [binary format c [expr {$n & 255}]]$octets
        set n [expr {$n >> 8}]
    }
    return [binary format cc $tag [expr {128 | [string length $octets]}]]$octets$content
}

proc ocsp_der_seq {args} { ocsp_der_tlv 0x30 [join $args ""] }
proc ocsp_der_set {args} { ocsp_der_tlv 0x31 [join $args ""] }

# The shortest two's complement, as DER requires.
proc ocsp_der_int_content {number} {
    set octets ""
    while 1 {
        set octet [expr {$number & 255}]
        set octets [binary format c $octet]$octets
        set number [expr {$number >> 8}]
        if {($number == 0 && $octet < 128) || ($number == -1 && $octet >= 128)} { return $octets }
    }
}

proc ocsp_der_int {number} { ocsp_der_tlv 0x02 [ocsp_der_int_content $number] }
proc ocsp_der_enum {number} { ocsp_der_tlv 0x0a [ocsp_der_int_content $number] }
proc ocsp_der_bool {yes} { ocsp_der_tlv 0x01 [binary format c [expr {$yes ? 255 : 0}]] }
proc ocsp_der_null {} { ocsp_der_tlv 0x05 "" }
proc ocsp_der_octets {bytes} { ocsp_der_tlv 0x04 $bytes }
proc ocsp_der_bits {bytes {unused 0}} { ocsp_der_tlv 0x03 [binary format c $unused]$bytes }
proc ocsp_der_utf8 {text} { ocsp_der_tlv 0x0c [encoding convertto utf-8 $text] }
proc ocsp_der_printable {text} { ocsp_der_tlv 0x13 $text }
proc ocsp_der_ia5 {bytes} { ocsp_der_tlv 0x16 $bytes }

proc ocsp_der_oid {dotted} {
    set arcs [lassign [split $dotted .] first second]
    set content ""
    foreach arc [linsert $arcs 0 [expr {$first * 40 + $second}]] {
        set octets [binary format c [expr {$arc & 127}]]
        while {[set arc [expr {$arc >> 7}]] > 0} {
            set octets [binary format c [expr {128 | ($arc & 127)}]]$octets
        }
        append content $octets
    }
    ocsp_der_tlv 0x06 $content
}

proc ocsp_der_gentime {seconds} {
    ocsp_der_tlv 0x18 [clock format $seconds -gmt 1 -format %Y%m%d%H%M%SZ]
}

proc ocsp_der_utctime {seconds} {
    ocsp_der_tlv 0x17 [clock format $seconds -gmt 1 -format %y%m%d%H%M%SZ]
}

proc ocsp_der_time {seconds} {
    # RFC 5280 section 4.1.2.5: through 2049 as UTCTime.
    if {$seconds < 2524608000} { ocsp_der_utctime $seconds } else { ocsp_der_gentime $seconds }
}

proc ocsp_der_explicit {n element} { ocsp_der_tlv [expr {0xa0 | $n}] $element }
proc ocsp_der_implicit {n content {constructed 0}} {
    ocsp_der_tlv [expr {($constructed ? 0xa0 : 0x80) | $n}] $content
}

# ---- reading --------------------------------------------------------------------------------------------------------

proc ocsp_der_read {bytes {pos 0}} {
    if {[binary scan $bytes @${pos}cucu tag len] != 2} {
        error "The DER ends where an element should begin, at byte $pos: give the whole structure."
    }
    set at [expr {$pos + 2}]
    if {$len >= 128} {
        set count [expr {$len & 127}]
        if {$count == 0 || $count > 4 || $at + $count > [string length $bytes]} {
            error "The length of the DER element at byte $pos is not readable: this is not DER."
        }
        binary scan [string range $bytes $at [expr {$at + $count - 1}]] cu* octets
        set len 0
        foreach octet $octets { set len [expr {$len << 8 | $octet}] }
        incr at $count
    }
    set next [expr {$at + $len}]
    if {$next > [string length $bytes]} {
        error "The DER element at byte $pos is cut off: it should end at byte $next of [string length $bytes]."
    }
    dict create tag $tag content [string range $bytes $at [expr {$next - 1}]] \
        whole [string range $bytes $pos [expr {$next - 1}]] next $next
}

proc ocsp_der_children {bytes} {
    set list {}
    set pos 0
    while {$pos < [string length $bytes]} {
        set element [ocsp_der_read $bytes $pos]
        set pos [dict get $element next]
        lappend list $element
    }
    return $list
}

proc ocsp_der_toint {content} {
    if {[binary scan $content c* octets] < 1 || $octets eq ""} {
        error "An INTEGER without content: this is not DER."
    }
    set octets [lassign $octets number] ;# the first octet is signed, the others are not
    foreach octet $octets { set number [expr {$number << 8 | ($octet & 255)}] }
    return $number
}

proc ocsp_der_oidname {content} {
    binary scan $content cu* octets
    set arcs {}
    set arc 0
    foreach octet $octets {
        set arc [expr {$arc << 7 | ($octet & 127)}]
        if {$octet < 128} {
            if {$arcs eq ""} {
                set first [expr {min($arc / 40, 2)}]
                lappend arcs $first [expr {$arc - 40 * $first}]
            } else {
                lappend arcs $arc
            }
            set arc 0
        }
    }
    join $arcs .
}

# Seconds since 1970 from a UTCTime or GeneralizedTime element.
proc ::ocsp::seconds {element} {
    set text [dict get $element content]
    if {[dict get $element tag] == 0x17} {
        set text [expr {[string range $text 0 1] < "50" ? "20" : "19"}]$text
    }
    clock scan [string range $text 0 13] -gmt 1 -format %Y%m%d%H%M%S
}

# `yes ? a : b` for strings: expr would turn a serial number such as 01E5 into a floating-point number.
proc ::ocsp::pick {yes a b} {
    if {$yes} { return $a }
    return $b
}

# As INFO and `openssl x509 -serial` print serial numbers: upper case, whole bytes, a sign in front.
proc ::ocsp::serial_hex {number} {
    set hex [format %llX [expr {abs($number)}]]
    if {[string length $hex] % 2} { set hex 0$hex }
    pick [expr {$number < 0}] -$hex $hex
}

proc ::ocsp::serial_number {hex} {
    if {![regexp -nocase {^(-?)(?:0x)?([0-9a-f]+)$} $hex -> sign digits]} {
        error "'$hex' is not a serial number: give hexadecimal digits such as 01AB."
    }
    set number 0
    scan $digits %llx number
    expr {$sign eq "-" ? -$number : $number}
}

proc ::ocsp::hex {bytes} { binary encode hex $bytes }

# Returns the child with this tag, or an empty string.
proc ::ocsp::tagged {children tag} {
    foreach child $children {
        if {[dict get $child tag] == $tag} { return $child }
    }
}

# Returns the file of a certificate: a handle of ocsp-pki.tcl, a dict {cert FILE ...}, or a file name.
proc ::ocsp::cert_file {cert} {
    if {![catch {dict exists $cert cert} is_handle] && $is_handle} { return [dict get $cert cert] }
    return $cert
}

# Returns Unix seconds for a time of the API: seconds from now, or @Unix seconds.
proc ::ocsp::when {time now} {
    if {[regexp {^@(-?\d+)$} $time -> seconds]} { return $seconds }
    if {[regexp {^([+-]?)0*(\d+)$} $time -> sign seconds]} { return [expr "$now + ${sign}1 * $seconds"] }
    error "'$time' is not a time: give seconds from now such as 20 or -20, or Unix seconds such as @1700000000."
}

proc ocsp_cert_info {cert} {
    set file [::ocsp::cert_file $cert]
    set der ""
    foreach block [ocsp_pem_read $file] {
        lassign $block label der
        if {$label in {CERTIFICATE DER}} break
    }
    set parts [ocsp_der_children [dict get [ocsp_der_read $der] content]]
    set tbs [ocsp_der_children [dict get [lindex $parts 0] content]]
    if {[dict get [lindex $tbs 0] tag] == 0xa0} { set tbs [lrange $tbs 1 end] } ;# the version
    lassign $tbs serial algorithm issuer validity subject spki
    lassign [ocsp_der_children [dict get $validity content]] from to
    lassign [ocsp_der_children [dict get $spki content]] key_algorithm key
    set type [ocsp_der_oidname [dict get [ocsp_der_read [dict get $key_algorithm content]] content]]
    set ski ""
    set extensions [::ocsp::tagged $tbs 0xa3]
    if {$extensions ne ""} {
        foreach extension [ocsp_der_children [dict get [ocsp_der_read [dict get $extensions content]] content]] {
            set fields [ocsp_der_children [dict get $extension content]]
            if {[ocsp_der_oidname [dict get [lindex $fields 0] content]] eq "2.5.29.14"} {
                set ski [dict get [ocsp_der_read [dict get [lindex $fields end] content]] content]
            }
        }
    }
    set number [ocsp_der_toint [dict get $serial content]]
    dict create der $der serial [::ocsp::serial_hex $number] serial_number $number \
        subject [dict get $subject whole] issuer [dict get $issuer whole] spki [dict get $spki whole] \
        key_bits [string range [dict get $key content] 1 end] \
        key_type [::ocsp::key_type $type] ski $ski \
        not_before [::ocsp::seconds $from] not_after [::ocsp::seconds $to]
}

# Returns the type of a key, by the algorithm in its SubjectPublicKeyInfo.
proc ::ocsp::key_type {oid} {
    switch -- $oid {
        1.2.840.113549.1.1.1 { return rsa }
        1.3.101.112 { return ed25519 }
        default { return ec }
    }
}

proc ocsp_cert_sha256 {cert} { ::ocsp::hex [ocsp_digest sha256 [dict get [ocsp_cert_info $cert] der]] }

# Returns a CertID (RFC 6960 section 4.1.1) for the issuer's name and key bits, and a serial number.
proc ::ocsp::cert_id {name key_bits serial_number hash} {
    variable hash_oids
    set oid ""
    foreach {known label} $hash_oids { if {$label eq $hash} { set oid $known } }
    if {$oid eq ""} { error "'$hash' is no hash for CertIDs here: choose sha1, sha256, sha384 or sha512." }
    ocsp_der_seq [ocsp_der_seq [ocsp_der_oid $oid] [ocsp_der_null]] [ocsp_der_octets [ocsp_digest $hash $name]] \
        [ocsp_der_octets [ocsp_digest $hash $key_bits]] [ocsp_der_int $serial_number]
}

proc ocsp_cert_id {cert issuer {hash sha1}} {
    set i [ocsp_cert_info $issuer]
    ::ocsp::cert_id [dict get $i subject] [dict get $i key_bits] [dict get [ocsp_cert_info $cert] serial_number] $hash
}

proc ::ocsp::cert_id_info {element} {
    variable hash_oids
    lassign [ocsp_der_children [dict get $element content]] algorithm name key serial
    set oid [ocsp_der_oidname [dict get [ocsp_der_read [dict get $algorithm content]] content]]
    set hash $oid
    if {[dict exists $hash_oids $oid]} { set hash [dict get $hash_oids $oid] }
    dict create hash $hash name_hash [hex [dict get $name content]] key_hash [hex [dict get $key content]] \
        serial [serial_hex [ocsp_der_toint [dict get $serial content]]] der [dict get $element whole]
}

# Returns the nonce's Extension in the content of an Extensions, or an empty string.
proc ::ocsp::find_nonce {extensions} {
    foreach extension [ocsp_der_children $extensions] {
        set oid [dict get [ocsp_der_read [dict get $extension content]] content]
        if {[ocsp_der_oidname $oid] eq "1.3.6.1.5.5.7.48.1.2"} { return [dict get $extension whole] }
    }
}

proc ocsp_request_info {der} {
    set request [ocsp_der_read $der]
    if {[dict get $request tag] != 0x30 || [dict get $request next] != [string length $der]} {
        error "This is not one whole OCSPRequest: [string length $der] bytes, of which the first element takes\
               [dict get $request next]."
    }
    set fields [ocsp_der_children [dict get [ocsp_der_read [dict get $request content]] content]]
    set certids {}
    foreach single [ocsp_der_children [dict get [::ocsp::tagged $fields 0x30] content]] {
        lappend certids [::ocsp::cert_id_info [ocsp_der_read [dict get $single content]]]
    }
    set nonce ""
    set extensions [::ocsp::tagged $fields 0xa2]
    if {$extensions ne ""} {
        set nonce [::ocsp::find_nonce [dict get [ocsp_der_read [dict get $extensions content]] content]]
    }
    dict create nonce [expr {$nonce ne ""}] nonce_ext $nonce certids $certids
}

proc ocsp_request_der {cert issuer {hash sha1}} {
    ocsp_der_seq [ocsp_der_seq [ocsp_der_seq [ocsp_der_seq [ocsp_cert_id $cert $issuer $hash]]]]
}

proc ocsp_response_info {der} {
    set response [ocsp_der_read $der]
    if {[dict get $response next] != [string length $der]} {
        error "There are bytes after the OCSPResponse: it takes [dict get $response next] of [string length $der]."
    }
    lassign [ocsp_der_children [dict get $response content]] status bytes
    set number [ocsp_der_toint [dict get $status content]]
    set names {successful malformedRequest internalError tryLater 4 sigRequired unauthorized}
    set info [dict create response_status [expr {$number < 7 ? [lindex $names $number] : $number}]]
    if {$bytes eq ""} { return $info }
    set basic [lindex [ocsp_der_children [dict get [ocsp_der_read [dict get $bytes content]] content]] 1]
    lassign [ocsp_der_children [dict get [ocsp_der_read [dict get $basic content]] content]] data algorithm sig certs
    set fields [ocsp_der_children [dict get $data content]]
    if {[dict get [lindex $fields 0] tag] == 0xa0} { set fields [lrange $fields 1 end] } ;# the version
    lassign $fields responder produced singles extensions
    dict set info produced [::ocsp::seconds $produced]
    dict set info responder_id [expr {[dict get $responder tag] == 0xa1 ? "name" : "key"}]
    set oid [dict get [ocsp_der_read [dict get $algorithm content]] content]
    dict set info signature_algorithm [ocsp_der_oidname $oid]
    dict set info certs 0
    if {$certs ne ""} {
        set list [dict get [ocsp_der_read [dict get $certs content]] content]
        dict set info certs [llength [ocsp_der_children $list]]
    }
    dict set info nonce 0
    if {$extensions ne ""} {
        set list [dict get [ocsp_der_read [dict get $extensions content]] content]
        dict set info nonce [expr {[::ocsp::find_nonce $list] ne ""}]
    }
    set entries {}
    foreach single [ocsp_der_children [dict get $singles content]] {
        set rest [lassign [ocsp_der_children [dict get $single content]] certid status this]
        set entry [dict remove [::ocsp::cert_id_info $certid] der]
        dict set entry status [dict get {128 good 161 revoked 130 unknown} [dict get $status tag]]
        dict set entry this [::ocsp::seconds $this]
        dict set entry next 0
        dict set entry revoked_at 0
        dict set entry reason ""
        set next [::ocsp::tagged $rest 0xa0]
        if {$next ne ""} { dict set entry next [::ocsp::seconds [ocsp_der_read [dict get $next content]]] }
        if {[dict get $entry status] eq "revoked"} {
            lassign [ocsp_der_children [dict get $status content]] at reason
            dict set entry revoked_at [::ocsp::seconds $at]
            if {$reason ne ""} {
                set number [dict get [ocsp_der_read [dict get $reason content]] content]
                dict set entry reason [ocsp_der_toint $number]
            }
        }
        lappend entries $entry
    }
    dict set info entries $entries
}

# ---- files and PEM --------------------------------------------------------------------------------------------------

proc ocsp_file_read {file} {
    set f [open $file rb]
    try { return [read $f] } finally { close $f }
}

# Replaces the file by rename, so that nobody reads half of it.
proc ocsp_file_write {file bytes} {
    set beside $file.[pid].tmp
    set f [open $beside wb]
    try { puts -nonewline $f $bytes } finally { close $f }
    file rename -force -- $beside $file
}

proc ocsp_pem_read {file} {
    set bytes [ocsp_file_read $file]
    set blocks {}
    set at 0
    set pattern {-----BEGIN ([A-Z0-9 ]+)-----([A-Za-z0-9+/=\s]*)-----END }
    while {[regexp -start $at -indices -- $pattern $bytes all label body]} {
        lappend blocks [list [string range $bytes {*}$label] [binary decode base64 [string range $bytes {*}$body]]]
        set at [lindex $all 1]
    }
    if {$blocks eq ""} {
        if {[string index $bytes 0] ne "0"} { ;# a SEQUENCE's tag, 0x30, is the digit 0
            error "$file holds neither PEM nor DER: give a certificate's or a key's file."
        }
        lappend blocks [list DER $bytes]
    }
    return $blocks
}

proc ocsp_pem_text {label der} {
    return "-----BEGIN $label-----\n[binary encode base64 -maxlen 64 $der]\n-----END $label-----\n"
}

proc ocsp_pem_write {file label der} { ocsp_file_write $file [ocsp_pem_text $label $der] }

# ---- openssl --------------------------------------------------------------------------------------------------------

proc ocsp_openssl {input args} {
    set program openssl
    if {[info exists ::env(OPENSSL)] && $::env(OPENSSL) ne ""} { set program $::env(OPENSSL) }
    if {[catch {open |[list $program {*}$args] r+b} pipe]} {
        error "Cannot run $program: install OpenSSL's command line (Debian: openssl), or name it in the variable\
               OPENSSL."
    }
    # The input fits into the pipe's buffer, or openssl reads all of it before it writes: this cannot deadlock.
    catch {
        puts -nonewline $pipe $input
        chan close $pipe write
    }
    set output [read $pipe]
    # Output on stderr makes close fail as well; only the exit status counts.
    if {[catch {close $pipe} words options] && [lindex [dict get $options -errorcode] 0] ne "NONE"} {
        error "`openssl [join $args]` failed: [string trim $words]"
    }
    return $output
}

proc ::ocsp::remember {key script} {
    variable memo
    variable memo_max
    if {![info exists memo($key)]} {
        if {[array size memo] > $memo_max} { array unset memo }
        set memo($key) [uplevel 1 $script]
    }
    return $memo($key)
}

proc ocsp_digest {hash bytes} {
    ::ocsp::remember [list digest $hash $bytes] { ocsp_openssl $bytes dgst -$hash -binary }
}

proc ocsp_sign {keyfile bytes {digest sha256}} {
    # By the content of the key's file: another key may have been made under the same name.
    ::ocsp::remember [list sign [ocsp_file_read $keyfile] $digest $bytes] {
        ::ocsp::sign $keyfile $bytes $digest
    }
}

proc ::ocsp::sign {keyfile bytes digest} {
    if {[::ocsp::is_ed25519 $keyfile]} {
        # OpenSSL 3.0 signs with Ed25519 only what comes from a file.
        close [file tempfile path ocsp-sign]
        ocsp_file_write $path $bytes
        set signature [ocsp_openssl "" pkeyutl -sign -inkey $keyfile -rawin -in $path]
        file delete $path
        return $signature
    }
    if {$digest eq "pss"} {
        return [ocsp_openssl $bytes dgst -sha256 -sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:digest \
            -sign $keyfile -binary]
    }
    ocsp_openssl $bytes dgst -$digest -sign $keyfile -binary
}

# The algorithm is in the first bytes of a PKCS #8 key.
proc ::ocsp::is_ed25519 {keyfile} {
    set der [lindex [lindex [ocsp_pem_read $keyfile] 0] 1]
    expr {[string first [ocsp_der_oid 1.3.101.112] $der] == 7}
}

# RFC 4055 section 3.1: SHA-256, MGF1 with SHA-256, a salt as long as the digest.
proc ::ocsp::pss_algorithm {} {
    set sha256 [ocsp_der_seq [ocsp_der_oid 2.16.840.1.101.3.4.2.1] [ocsp_der_null]]
    ocsp_der_seq [ocsp_der_oid 1.2.840.113549.1.1.10] [ocsp_der_seq [ocsp_der_explicit 0 $sha256] \
        [ocsp_der_explicit 1 [ocsp_der_seq [ocsp_der_oid 1.2.840.113549.1.1.8] $sha256]] \
        [ocsp_der_explicit 2 [ocsp_der_int 32]]]
}

proc ocsp_sign_algorithm {key_type {digest sha256}} {
    if {$key_type eq "ed25519"} { return [ocsp_der_seq [ocsp_der_oid 1.3.101.112]] }
    if {"$key_type,$digest" eq "rsa,pss"} { return [::ocsp::pss_algorithm] }
    set oids {
        rsa,sha1 1.2.840.113549.1.1.5 rsa,sha256 1.2.840.113549.1.1.11
        rsa,sha384 1.2.840.113549.1.1.12 rsa,sha512 1.2.840.113549.1.1.13
        ec,sha1 1.2.840.10045.4.1 ec,sha256 1.2.840.10045.4.3.2
        ec,sha384 1.2.840.10045.4.3.3 ec,sha512 1.2.840.10045.4.3.4
    }
    if {![dict exists $oids $key_type,$digest]} {
        error "There is no signature of a $key_type key with $digest here: choose sha1, sha256, sha384 or sha512."
    }
    set oid [ocsp_der_oid [dict get $oids $key_type,$digest]]
    # RSA's parameters are NULL (RFC 4055), ECDSA's are absent (RFC 5758).
    if {$key_type eq "rsa"} { ocsp_der_seq $oid [ocsp_der_null] } else { ocsp_der_seq $oid }
}
