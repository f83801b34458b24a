#!/usr/bin/env tclsh
# ocsp-pki.tcl - creates test certificates for OCSP stapling: a small command line, and when sourced a Tcl library for
# the tests. Not for production certificates.
#
# COMMAND LINE
#
#   tclsh utils/ocsp-pki.tcl demo DIR --url URL [--key ec|rsa] [--days N] [--must-staple] [--name CN]
#       creates DIR:     ca.crt ca.key                 the CA (self-signed)
#                        server.crt server.key         CN=localhost (or --name), SAN localhost 127.0.0.1 ::1, the OCSP
#                                                      URL (--url, also several times); tls-ca-cert-file is ca.crt
#                        responder.crt responder.key   the authorized responder (EKU OCSPSigning)
#                        index.txt                     the CA's database, for `openssl ocsp -index`
#       To run a responder: `tclsh utils/openssl-responder.tcl DIR --port 8888`, which runs `openssl ocsp`. By hand
#       (rereads index.txt when it changes, but with OpenSSL 3.0 listens on all addresses of the machine):
#           openssl ocsp -index DIR/index.txt -CA DIR/ca.crt -rsigner DIR/responder.crt -rkey DIR/responder.key \
#               -port 8888 -nmin 5
#   tclsh utils/ocsp-pki.tcl leaf DIR NAME --url URL [same options]   another certificate NAME.crt/NAME.key, added to
#                                                      index.txt
#   tclsh utils/ocsp-pki.tcl revoke DIR [NAME] [--reason keyCompromise]   revokes NAME (default: server)
#   tclsh utils/ocsp-pki.tcl restore DIR [NAME]        undoes a revocation, like lifting a certificateHold
#
# LIBRARY. A certificate is a handle, a dict of plain text (safe to print and to send to another process):
#
#   name, dir, cert (PEM file, this certificate alone), key (PEM file), chain (PEM file: this, then its issuers without
#   the root), full (PEM file: chain and the root), serial (upper-case hex), subject (text), not_before, not_after (Unix
#   seconds), issuer_cert, issuer_key (files; its own when self-signed)
#
#   ocsp_pki_ca DIR NAME ?opt value ...?        a root CA:            DIR/NAME.crt, DIR/NAME.key ...
#   ocsp_pki_intermediate CA NAME ?opt ...?     a CA below CA (a handle);  files beside the CA's unless -dir
#   ocsp_pki_leaf CA NAME ?opt ...?             a server certificate (EKU serverAuth, clientAuth)
#   ocsp_pki_delegate CA NAME ?opt ...?         an authorized responder (EKU OCSPSigning); with -eku {} without the EKU
#   ocsp_pki_selfsigned DIR NAME ?opt ...?      a server certificate without a CA
#   ocsp_pki_file FILE BYTES|HANDLE ...         concatenates handles' certificates into a PEM file, in that order
#   ocsp_pki_index FILE HANDLE ...              writes index.txt (all valid) for `openssl ocsp -index`
#   ocsp_pki_revoke FILE HANDLE|SERIAL ?REASON? marks one as revoked in it;   ocsp_pki_restore FILE HANDLE|SERIAL
#   ocsp_pki_keys DIR                           caches RSA keys, which are slow to generate, in DIR for other runs and
#                                               processes, by NAME: same NAME, same key
#
#   Options, with their defaults:
#   -key ec              ec (P-256), ec384, rsa (2048 bits), ed25519, or a handle whose key is reused
#   -subject NAME        the CN; or "/O=Some CA/CN=Root". Two CAs may have the same CN: their files differ by NAME
#   -serial HEX          random 64 bits; 0x is optional. "01AB", "00" and "-5" are valid. Two CAs may use the same
#   -from -3600          notBefore. Times are seconds from now (20, +20, -20) or absolute (@1700000000)
#   -to +86400           notAfter (CAs, delegates: +10 years)
#   -aia {}              list of OCSP URLs (any bytes), in that order
#   -aia-other {}        list of caIssuers URLs, put before the OCSP ones
#   -must-staple 0       the TLS feature extension of RFC 7633
#   -san {DNS:localhost IP:127.0.0.1 IP:::1}    leaves only; {} for none
#   -eku LIST            serverAuth, clientAuth, OCSPSigning, or OIDs; {} for none
#   -ca 0|1              basicConstraints
#   -aki 1               0 omits the key identifiers, so that only the signature distinguishes two CAs of one name
#   -nocheck 1           delegates: id-pkix-ocsp-nocheck
#   -digest sha256       of the signature: sha256, sha384, sha512, sha1
#   -dir DIR             where the files go
#   -signkey HANDLE      sign with that certificate's key instead of the issuer's (a forgery)
#
#   Examples:
#     set ca    [ocsp_pki_ca $dir ca]
#     set leaf  [ocsp_pki_leaf $ca server -aia [list http://127.0.0.1:$port/] -must-staple 1]
#     set twin  [ocsp_pki_ca $dir twin -subject [dict get $ca subject]]     ;# same name, another key
#     set same  [ocsp_pki_leaf $twin same -serial [dict get $leaf serial]]  ;# same serial, another CA
#     set brief [ocsp_pki_leaf $ca brief -to +8]
#     tls-cert-file is [dict get $leaf cert] (or chain), tls-key-file [dict get $leaf key], tls-ca-cert-file the CA's
#     cert (or leaf's full without the first)
#
# SPDX-License-Identifier: BSD-3-Clause


package require Tcl 8.6-

namespace eval ::ocsp::pki {
    variable here [file dirname [file normalize [info script]]]
    variable key_dir ""   ;# ocsp_pki_keys
    variable ten_years [expr {3650 * 86400}]
    variable eku_oids {serverAuth 1.3.6.1.5.5.7.3.1 clientAuth 1.3.6.1.5.5.7.3.2 OCSPSigning 1.3.6.1.5.5.7.3.9}
    variable name_oids {CN 2.5.4.3 C 2.5.4.6 L 2.5.4.7 ST 2.5.4.8 O 2.5.4.10 OU 2.5.4.11}
    variable reasons {
        unspecified keyCompromise CACompromise affiliationChanged superseded cessationOfOperation certificateHold
        removeFromCRL
    }
}

# The DER of the certificates is encoded here, with the mock responder's encoder, and signed with `openssl dgst`: the
# commands of OpenSSL 3.0 cannot set dates to the second, serial numbers and unusual extensions without a CA directory.
if {[info procs ocsp_der_seq] eq ""} {
    source [file join $::ocsp::pki::here .. tests support ocsp_der.tcl]
}

# ---- keys -----------------------------------------------------------------------------------------------------------

proc ocsp_pki_keys {dir} {
    file mkdir $dir
    set ::ocsp::pki::key_dir $dir
}

proc ::ocsp::pki::make_key {type file} {
    switch -- $type {
        ec { ocsp_openssl "" genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out $file }
        ec384 { ocsp_openssl "" genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out $file }
        rsa { ocsp_openssl "" genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out $file }
        ed25519 { ocsp_openssl "" genpkey -algorithm ED25519 -out $file }
        default { error "'$type' is not a key type: choose ec, ec384, rsa or ed25519." }
    }
}

# Writes a private key to `file`: a new one, one from the cache of RSA keys, or that of another handle.
proc ::ocsp::pki::provide_key {type name file} {
    variable key_dir
    if {![catch {dict exists $type key} is_handle] && $is_handle} {
        if {[file normalize [dict get $type key]] ne [file normalize $file]} {
            file copy -force -- [dict get $type key] $file
        }
    } elseif {$type eq "rsa" && $key_dir ne ""} {
        set stored [file join $key_dir rsa-$name.key]
        if {![file exists $stored]} {
            make_key rsa $stored.[pid]
            file rename -force -- $stored.[pid] $stored
        }
        file copy -force -- $stored $file
    } else {
        make_key $type $file
    }
}

# Returns {SubjectPublicKeyInfo type} of a PKCS #8 private key. Parsed here, which saves a process for each certificate.
proc ::ocsp::pki::public_key {file} {
    lassign [lindex [ocsp_pem_read $file] 0] label der
    if {$label ne "PRIVATE KEY"} {
        error "$file contains a '$label': create a PKCS #8 key with `openssl genpkey`."
    }
    lassign [ocsp_der_children [dict get [ocsp_der_read $der] content]] version algorithm octets
    set oid [ocsp_der_oidname [dict get [ocsp_der_read [dict get $algorithm content]] content]]
    # The file contains the private key only.
    if {$oid eq "1.3.101.112"} { return [list [ocsp_openssl "" pkey -in $file -pubout -outform DER] ed25519] }
    set inner [ocsp_der_children [dict get [ocsp_der_read [dict get $octets content]] content]]
    if {$oid eq "1.2.840.113549.1.1.1"} {
        set bits [ocsp_der_seq [dict get [lindex $inner 1] whole] [dict get [lindex $inner 2] whole]] ;# n, e
        return [list [ocsp_der_seq [dict get $algorithm whole] [ocsp_der_bits $bits]] rsa]
    }
    set bits [ocsp_der_read [dict get [::ocsp::tagged $inner 0xa1] content]]
    list [ocsp_der_seq [dict get $algorithm whole] [dict get $bits whole]] ec
}

# ---- parts of a certificate -----------------------------------------------------------------------------------------

# "/O=Some CA/CN=Root", or plain text for a CN alone.
proc ::ocsp::pki::name_der {text} {
    variable name_oids
    if {[string index $text 0] ne "/"} { set text /CN=$text }
    set rdns ""
    foreach part [split [string range $text 1 end] /] {
        if {![regexp {^([A-Z]+)=(.+)$} $part -> type value] || ![dict exists $name_oids $type]} {
            error "'$text' is not a subject name: give a common name, or /TYPE=value/... with\
                   [join [dict keys $name_oids] {, }]."
        }
        # A country is a PrintableString by its definition.
        set string [::ocsp::pick [expr {$type eq "C"}] [ocsp_der_printable $value] [ocsp_der_utf8 $value]]
        append rdns [ocsp_der_set [ocsp_der_seq [ocsp_der_oid [dict get $name_oids $type]] $string]]
    }
    ocsp_der_seq $rdns
}

proc ::ocsp::pki::extension {oid value {critical 0}} {
    if {$critical} { return [ocsp_der_seq [ocsp_der_oid $oid] [ocsp_der_bool 1] [ocsp_der_octets $value]] }
    ocsp_der_seq [ocsp_der_oid $oid] [ocsp_der_octets $value]
}

proc ::ocsp::pki::ip_bytes {text} {
    if {![string match *:* $text]} { return [binary format c4 [split $text .]] }
    lassign [split [string map {:: |} $text] |] head tail
    set head [split $head :]
    set tail [split $tail :]
    set zeros [expr {[string match *::* $text] ? 8 - [llength $head] - [llength $tail] : 0}]
    set bytes ""
    foreach group [concat $head [lrepeat $zeros 0] $tail] { append bytes [binary format S [scan $group %x]] }
    return $bytes
}

proc ::ocsp::pki::san_der {list} {
    set names ""
    foreach name $list {
        switch -glob -- $name {
            DNS:* { append names [ocsp_der_implicit 2 [string range $name 4 end]] }
            IP:* { append names [ocsp_der_implicit 7 [ip_bytes [string range $name 3 end]]] }
            default { error "'$name' is not a subject alternative name: give DNS:name or IP:address." }
        }
    }
    ocsp_der_seq $names
}

# Derives a key identifier of 20 bytes from the key; RFC 5280 section 4.2.1.2 leaves the method open. The last bytes of
# an RSA key are the exponent, the same for all keys, and are skipped.
proc ::ocsp::pki::key_id {spki} { string range $spki end-25 end-6 }

proc ::ocsp::pki::serial {hex} {
    if {$hex eq "random"} {
        set number [expr {0x10 + int(rand() * 0x60)}] ;# first byte: makes the number positive and always 8 bytes long
        for {set i 0} {$i < 7} {incr i} { set number [expr {$number << 8 | int(rand() * 256)}] }
        return $number
    }
    ::ocsp::serial_number $hex
}

# ---- certificates ---------------------------------------------------------------------------------------------------

# Creates a certificate; the public procs differ in defaults. `issuer` is a handle; empty: self-signed.
proc ::ocsp::pki::certificate {issuer name defaults options} {
    variable eku_oids
    variable ten_years
    set o {
        -key ec -subject "" -serial random -from -3600 -to 86400 -aia {} -aia-other {} -must-staple 0 -san {} -eku {}
        -ca 0 -aki 1 -nocheck 0 -digest sha256 -dir "" -signkey ""
    }
    foreach {key value} [concat $defaults $options] {
        if {![dict exists $o $key]} {
            error "There is no option '$key' for a certificate: choose among [join [dict keys $o] {, }]."
        }
        dict set o $key $value
    }
    dict with o {} ;# options become variables, named -key and so on
    if {${-dir} eq ""} { set -dir [dict get $issuer dir] }
    if {${-subject} eq ""} { set -subject $name }
    file mkdir ${-dir}
    set base [file join [file normalize ${-dir}] $name]
    provide_key ${-key} $name $base.key
    lassign [public_key $base.key] spki key_type
    set subject [name_der ${-subject}]
    if {$issuer eq ""} {
        set signer [dict create key $base.key key_type $key_type subject_der $subject ski [key_id $spki]]
    } else {
        set info [ocsp_cert_info $issuer]
        set signer [dict create key [dict get $issuer key] key_type [dict get $info key_type] \
            subject_der [dict get $info subject] ski [dict get $info ski]]
    }
    if {${-signkey} ne ""} {
        dict set signer key [dict get ${-signkey} key]
        dict set signer key_type [lindex [public_key [dict get ${-signkey} key]] 1]
    }
    set number [serial ${-serial}]
    set now [clock seconds]
    set from [::ocsp::when ${-from} $now]
    set to [::ocsp::when ${-to} $now]

    set extensions ""
    # CA:FALSE is the default value, which DER omits.
    append extensions [extension 2.5.29.19 [ocsp_der_seq {*}[expr {${-ca} ? [list [ocsp_der_bool 1]] : {}}]] 1]
    # keyUsage: digitalSignature, for CAs with keyCertSign and cRLSign, for RSA keys of servers with keyEncipherment.
    if {${-ca}} {
        append extensions [extension 2.5.29.15 [ocsp_der_bits \x86 1] 1]
    } elseif {$key_type eq "rsa"} {
        append extensions [extension 2.5.29.15 [ocsp_der_bits \xa0 5] 1]
    } else {
        append extensions [extension 2.5.29.15 [ocsp_der_bits \x80 7] 1]
    }
    if {${-eku} ne ""} {
        set oids ""
        foreach use ${-eku} {
            if {[dict exists $eku_oids $use]} { set use [dict get $eku_oids $use] }
            append oids [ocsp_der_oid $use]
        }
        append extensions [extension 2.5.29.37 [ocsp_der_seq $oids]]
    }
    if {${-aki}} {
        append extensions [extension 2.5.29.14 [ocsp_der_octets [key_id $spki]]]
        if {[dict get $signer ski] ne ""} {
            append extensions [extension 2.5.29.35 [ocsp_der_seq [ocsp_der_implicit 0 [dict get $signer ski]]]]
        }
    }
    if {${-san} ne ""} { append extensions [extension 2.5.29.17 [san_der ${-san}]] }
    set access ""
    foreach {oid urls} [list 1.3.6.1.5.5.7.48.2 ${-aia-other} 1.3.6.1.5.5.7.48.1 ${-aia}] {
        foreach url $urls { append access [ocsp_der_seq [ocsp_der_oid $oid] [ocsp_der_implicit 6 $url]] }
    }
    if {$access ne ""} { append extensions [extension 1.3.6.1.5.5.7.1.1 [ocsp_der_seq $access]] }
    if {${-must-staple}} { append extensions [extension 1.3.6.1.5.5.7.1.24 [ocsp_der_seq [ocsp_der_int 5]]] }
    if {${-nocheck}} { append extensions [extension 1.3.6.1.5.5.7.48.1.5 [ocsp_der_null]] }

    set algorithm [ocsp_sign_algorithm [dict get $signer key_type] ${-digest}]
    set tbs [ocsp_der_seq [ocsp_der_explicit 0 [ocsp_der_int 2]] [ocsp_der_int $number] $algorithm \
        [dict get $signer subject_der] [ocsp_der_seq [ocsp_der_time $from] [ocsp_der_time $to]] $subject $spki \
        [ocsp_der_explicit 3 [ocsp_der_seq $extensions]]]
    set der [ocsp_der_seq $tbs $algorithm [ocsp_der_bits [ocsp_sign [dict get $signer key] $tbs ${-digest}]]]

    set handle [dict create name $name dir [file normalize ${-dir}] cert $base.crt key $base.key chain $base-chain.pem \
        full $base-full.pem serial [::ocsp::serial_hex $number] subject ${-subject} not_before $from not_after $to]
    set pem [ocsp_pem_text CERTIFICATE $der]
    ocsp_file_write $base.crt $pem
    if {$issuer eq ""} {
        dict set handle issuer_cert $base.crt
        dict set handle issuer_key $base.key
        set chain $pem
        set full $pem
    } else {
        dict set handle issuer_cert [dict get $issuer cert]
        dict set handle issuer_key [dict get $issuer key]
        set is_root [expr {[dict get $issuer issuer_cert] eq [dict get $issuer cert]}]
        set chain $pem
        if {!$is_root} { append chain [ocsp_file_read [dict get $issuer chain]] }
        set full $pem[ocsp_file_read [dict get $issuer full]]
    }
    ocsp_file_write $base-chain.pem $chain
    ocsp_file_write $base-full.pem $full
    return $handle
}

proc ocsp_pki_ca {dir name args} {
    ::ocsp::pki::certificate "" $name [list -dir $dir -ca 1 -to $::ocsp::pki::ten_years] $args
}

proc ocsp_pki_intermediate {ca name args} {
    ::ocsp::pki::certificate $ca $name [list -ca 1 -to $::ocsp::pki::ten_years] $args
}

proc ocsp_pki_leaf {ca name args} {
    ::ocsp::pki::certificate $ca $name {-san {DNS:localhost IP:127.0.0.1 IP:::1} -eku {serverAuth clientAuth}} $args
}

proc ocsp_pki_delegate {ca name args} {
    ::ocsp::pki::certificate $ca $name [list -eku OCSPSigning -nocheck 1 -to $::ocsp::pki::ten_years] $args
}

proc ocsp_pki_selfsigned {dir name args} {
    ::ocsp::pki::certificate "" $name \
        [list -dir $dir -san {DNS:localhost IP:127.0.0.1 IP:::1} -eku {serverAuth clientAuth}] $args
}

proc ocsp_pki_file {file args} {
    set pem ""
    foreach cert $args { append pem [ocsp_file_read [::ocsp::cert_file $cert]] }
    ocsp_file_write $file $pem
    return $file
}

# ---- the CA's database, in the format of `openssl ca` and `openssl ocsp -index` --------------------------------------

proc ::ocsp::pki::book_time {seconds} { clock format $seconds -gmt 1 -format %y%m%d%H%M%SZ }

proc ::ocsp::pki::book_line {handle} {
    # status, expiry, revocation, serial, file, subject
    set subject [dict get $handle subject]
    if {[string index $subject 0] ne "/"} { set subject /CN=$subject }
    join [list V [book_time [dict get $handle not_after]] "" [dict get $handle serial] unknown $subject] \t
}

proc ocsp_pki_index {file args} {
    set lines ""
    foreach handle $args { append lines [::ocsp::pki::book_line $handle]\n }
    ocsp_file_write $file $lines
    # OpenSSL reads this file, too; without it two certificates could not have the same subject.
    ocsp_file_write $file.attr "unique_subject = no\n"
    return $file
}

proc ::ocsp::pki::book_mark {file cert status when} {
    if {[catch {dict get $cert serial} serial]} { set serial $cert }
    set serial [::ocsp::serial_hex [::ocsp::serial_number $serial]]
    set found 0
    set lines ""
    foreach line [split [string trimright [ocsp_file_read $file] \n] \n] {
        set fields [split $line \t]
        if {[lindex $fields 3] eq $serial} {
            set fields [lreplace $fields 0 2 $status [lindex $fields 1] $when]
            set found 1
        }
        append lines [join $fields \t]\n
    }
    if {!$found} { error "The certificate with the serial number $serial is not in $file: add it there first." }
    ocsp_file_write $file $lines
}

proc ocsp_pki_revoke {file cert {reason ""}} {
    if {$reason ne "" && $reason ni $::ocsp::pki::reasons} {
        error "'$reason' is not a revocation reason: choose among [join $::ocsp::pki::reasons {, }]."
    }
    set when [::ocsp::pki::book_time [clock seconds]]
    if {$reason eq "certificateHold"} {
        set reason holdInstruction,1.2.840.10040.2.2 ;# with an instruction (callIssuer), as openssl writes it
    }
    if {$reason ne ""} { append when , $reason }
    ::ocsp::pki::book_mark $file $cert R $when
}

proc ocsp_pki_restore {file cert} { ::ocsp::pki::book_mark $file $cert V "" }

# ---- command line ---------------------------------------------------------------------------------------------------

proc ::ocsp::pki::usage {} {
    return "Usage:
  ocsp-pki.tcl demo DIR --url URL \[--key ec|rsa\] \[--days N\] \[--must-staple\] \[--name CN\]
  ocsp-pki.tcl leaf DIR NAME --url URL \[the same options\]
  ocsp-pki.tcl revoke DIR \[NAME\] \[--reason REASON\]
  ocsp-pki.tcl restore DIR \[NAME\]
demo makes a CA, a server certificate whose status is asked at URL (an http URL; may be given several times), a
delegate that signs OCSP answers, and index.txt for `openssl ocsp`. The first comment of this file has an example."
}

# Returns {words options}: options as a dict; --url accumulates.
proc ::ocsp::pki::parse {args} {
    set words {}
    set options {url {} key ec days 30 must-staple 0 name localhost reason ""}
    while {$args ne ""} {
        set args [lassign $args word]
        if {![string match --* $word]} { lappend words $word; continue }
        set option [string range $word 2 end]
        if {![dict exists $options $option]} { error "There is no option $word.\n[usage]" }
        if {$option eq "must-staple"} { dict set options $option 1; continue }
        if {$args eq ""} { error "The option $word requires a value.\n[usage]" }
        set args [lassign $args value]
        if {$option eq "url"} { dict lappend options url $value } else { dict set options $option $value }
    }
    list $words $options
}

proc ::ocsp::pki::leaf_options {options} {
    if {![regexp {^\d+$} [dict get $options days]]} { error "--days requires an integer, such as 30." }
    list -aia [dict get $options url] -key [dict get $options key] -subject [dict get $options name] \
        -must-staple [dict get $options must-staple] -to [expr {[dict get $options days] * 86400}]
}

# Rebuilds a handle from NAME.crt in the directory, so that each verb can be a separate run.
proc ::ocsp::pki::main {args} {
    lassign [parse {*}$args] words options
    lassign $words verb dir name
    switch -- $verb,[llength $words] {
        demo,2 {
            if {[dict get $options url] eq ""} {
                error "demo requires the responder's URL, such as --url http://127.0.0.1:8888/"
            }
            set ca [ocsp_pki_ca $dir ca -subject "/O=ocsp demo/CN=Demo CA" -key [dict get $options key]]
            set server [ocsp_pki_leaf $ca server {*}[leaf_options $options]]
            set signer [ocsp_pki_delegate $ca responder -subject "/O=ocsp demo/CN=Demo OCSP responder" \
                -key [dict get $options key]]
            ocsp_pki_index [file join $dir index.txt] $server
            file delete {*}[glob -nocomplain -directory $dir {{ca,server,responder}-{chain,full}.pem}]
            puts "Created in $dir: ca.crt, server.crt (serial [dict get $server serial]), responder.crt, their keys,\
                  index.txt."
        }
        leaf,3 {
            set ca [dict create dir $dir cert [file join $dir ca.crt] key [file join $dir ca.key] \
                issuer_cert [file join $dir ca.crt] full [file join $dir ca.crt]]
            if {![file exists [dict get $ca cert]]} {
                error "There is no ca.crt in $dir: create it with `demo $dir --url URL`."
            }
            set server [ocsp_pki_leaf $ca $name {*}[leaf_options $options]]
            foreach unused {chain full} { file delete [dict get $server $unused] }
            set index [file join $dir index.txt]
            set lines ""
            if {[file exists $index]} { set lines [ocsp_file_read $index] }
            ocsp_file_write $index $lines[book_line $server]\n
            puts "Created in $dir: $name.crt (serial [dict get $server serial]) and its key; added to index.txt."
        }
        revoke,2 - revoke,3 - restore,2 - restore,3 {
            if {$name eq ""} { set name server }
            set cert [file join $dir $name.crt]
            if {![file exists $cert]} { error "There is no $name.crt in $dir: name a certificate in $dir." }
            set serial [dict get [ocsp_cert_info $cert] serial]
            if {$verb eq "revoke"} {
                ocsp_pki_revoke [file join $dir index.txt] $serial [dict get $options reason]
                puts "Revoked in [file join $dir index.txt]: $name.crt, serial $serial."
            } else {
                ocsp_pki_restore [file join $dir index.txt] $serial
                puts "Valid again in [file join $dir index.txt]: $name.crt, serial $serial."
            }
        }
        default { error [usage] }
    }
}

if {[info exists ::argv0] && [file normalize $::argv0] eq [file normalize [info script]]} {
    if {[catch {::ocsp::pki::main {*}$::argv} sentence]} {
        puts stderr $sentence
        exit 1
    }
}
