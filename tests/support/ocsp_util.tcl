# ocsp_util.tcl - what the OCSP suites share: names that differ between the module and a patched server, a lab (CA,
# responder, certificate), handshakes that ask for the staple, and INFO.
#
# Two forms. Under our own runner (run.tcl sets ::ocsp_module_path) a stock server loads the module: directives are
# called ocsp.*, and all fields stand in INFO ocsp. Under Valkey's runner in a patched tree they are called tls-ocsp-*,
# and the two refresh counters stand in INFO stats. tests/unit/tls-ocsp.tcl runs in both, so what it uses of this file
# keeps to the vocabulary that both runners have. Suites name directives without a prefix: stapling, retry-delay...
#
# SPDX-License-Identifier: BSD-3-Clause

set ::ocsp_support_dir [file dirname [file normalize [info script]]]
source [file join $::ocsp_support_dir .. .. utils ocsp-pki.tcl]
source [file join $::ocsp_support_dir ocsp_responder.tcl]

set ::openssl [expr {[info exists ::env(OPENSSL)] ? $::env(OPENSSL) : "openssl"}]

# ---- the two forms -------------------------------------------------------------------------------------------------

proc ocsp_is_module {} {info exists ::ocsp_module_path}

# The full name of a directive.
proc ocsp_directive {short} {
    return [expr {[ocsp_is_module] ? "ocsp.$short" : "tls-ocsp-$short"}]
}

proc ocsp_set {short value {level 0}} {r $level config set [ocsp_directive $short] $value}

proc ocsp_get {short {level 0}} {lindex [r $level config get [ocsp_directive $short]] 1}

# The INFO sections of ours, without the prefix ocsp_, as a dict.
proc ocsp_info_all {{level 0}} {
    set text [r $level info ocsp]
    if {![ocsp_is_module]} {append text \n [r $level info stats]}
    set fields {}
    foreach line [split $text \n] {
        if {[regexp {^ocsp_([a-z_0-9]+):(.*?)\r?$} $line - name value]} {dict set fields $name $value}
    }
    return $fields
}

proc ocsp_info {field {level 0}} {
    set fields [ocsp_info_all $level]
    if {![dict exists $fields $field]} {fail "INFO has no field ocsp_$field"}
    return [dict get $fields $field]
}

# What to say when waiting was in vain.
proc ocsp_situation {{level 0}} {
    if {[catch {ocsp_info_all $level} fields]} {return "no INFO: $fields"}
    set words {}
    foreach field {state refreshes refresh_failures consecutive_failures last_error next_refresh_in_seconds} {
        if {[dict exists $fields $field]} {lappend words "$field=[dict get $fields $field]"}
    }
    return [join $words {, }]
}

proc ocsp_wait_info {field value {level 0} {seconds 20}} {
    wait_for_condition [expr {$seconds * 20}] 50 {[ocsp_info $field $level] eq $value} else {
        fail "ocsp_$field did not become '$value' ([ocsp_situation $level])"
    }
}

# Waits until a counter has risen above `before`.
proc ocsp_wait_above {field before {level 0} {seconds 20}} {
    wait_for_condition [expr {$seconds * 50}] 20 {[ocsp_info $field $level] > $before} else {
        fail "ocsp_$field did not rise above $before ([ocsp_situation $level])"
    }
}

# Forces a round and waits for its end.
proc ocsp_round {{level 0}} {
    set before [ocsp_info refreshes $level]
    r $level debug ocsp-refresh
    ocsp_wait_above refreshes $before $level
}

# ---- the lab -------------------------------------------------------------------------------------------------------

proc ocsp_tmpdir {name} {
    # Valkey's runner clears away what begins with "server".
    set dir [file normalize [tmpdir server-$name]]
    file mkdir $dir
    return $dir
}

# A CA, a mock responder for it and a certificate that names it: a dict with dir, ca, responder, leaf. Options are
# those of ocsp_pki_leaf, and -behave for the responder, -paths for the paths of the certificate's URLs (default: one,
# "/").
proc ocsp_lab {args} {
    set behave good
    set paths {/}
    set leaf_options {}
    foreach {option value} $args {
        switch -- $option {
            -behave {set behave $value}
            -paths {set paths $value}
            default {lappend leaf_options $option $value}
        }
    }
    set dir [ocsp_tmpdir lab]
    set ca [ocsp_pki_ca $dir ca]
    set responder [ocsp_responder_start -ca $ca -behave $behave]
    set urls {}
    foreach path $paths {lappend urls [ocsp_responder_url $responder $path]}
    set leaf [ocsp_pki_leaf $ca server -aia $urls {*}$leaf_options]
    return [dict create dir $dir ca $ca responder $responder leaf $leaf urls $urls]
}

# A further certificate of the lab's CA that names the lab's responder.
proc ocsp_lab_leaf {lab name args} {
    return [ocsp_pki_leaf [dict get $lab ca] $name -aia [dict get $lab urls] {*}$args]
}

proc ocsp_lab_close {lab} {
    ocsp_responder_stop [dict get $lab responder]
}

# What a file of directives must say so that the value arrives as it is.
proc ocsp_quoted {value} {
    if {$value eq {} || [regexp {[\s"'#]} $value]} {return "\"$value\""}
    return $value
}

# Options for start_server: TLS with the certificate `leaf` of `ca`, stapling on, and directives of ours by short name.
# Names with a dot or the prefix tls-, and others that are no directives of ours, are taken as they are.
proc ocsp_server {leaf ca args} {
    set ours {stapling refresh-margin retry-delay timeout responder-url cache-dir response-file verify-peers}
    set overrides [list tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key] \
        tls-ca-cert-file [dict get $ca cert] tls-auth-clients no]
    # A module's directives may stand before or after loadmodule.
    if {[ocsp_is_module]} {lappend overrides loadmodule $::ocsp_module_path}
    foreach {name value} [concat {stapling yes} $args] {
        if {$name in $ours} {
            lappend overrides [ocsp_directive $name] [ocsp_quoted $value]
        } else {
            lappend overrides $name $value
        }
    }
    return [list overrides $overrides omit {tls-client-cert-file tls-client-key-file tls-dh-params-file} \
        tags {tls ocsp external:skip needs:debug}]
}

# Loads another certificate (or the same again) as an operator does. From the next handshake on it is served; INFO
# follows a moment later, when the OCSP thread has taken it up.
proc ocsp_load_certificate {leaf {level 0}} {
    r $level config set tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key]
}

# ---- handshakes ----------------------------------------------------------------------------------------------------

proc ocsp_seconds {text} {
    return [clock scan [regsub -all {\s+} [string trim $text] { }] -format {%b %d %H:%M:%S %Y GMT} -gmt 1]
}

# A handshake by `openssl s_client -status` with more options of s_client in `args` (such as -tls1_2). A dict:
#   ok           1 when the handshake was completed
#   serial       of the certificate served
#   staple       none, good, revoked, unknown: of that certificate's entry; foreign: there is a staple without such an
# entry
#   this, next, produced   of the staple in Unix seconds (next is 0 when there is none);  reason  of a revocation
#   text         all that was printed
proc ocsp_handshake {{level 0} args} {
    catch {
        exec $::openssl s_client -connect [srv $level host]:[srv $level port] -status {*}$args </dev/null 2>@1
    } text
    return [ocsp_read_handshake $text]
}

proc ocsp_read_handshake {text} {
    set result [dict create ok 0 serial {} staple none this 0 next 0 produced 0 reason {} text $text]
    # A delegate's certificate within the staple is printed in the same shape, before the server's.
    if {![regexp -- {Server certificate\s+(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----)} $text - pem]
        || [regexp {Cipher is \(NONE\)|alert (?:internal error|handshake failure)|:error:} $text]} {
        return $result
    }
    dict set result ok 1
    regexp {serial=(-?[0-9A-F]+)} [exec $::openssl x509 -noout -serial << $pem] - serial
    dict set result serial $serial
    if {[regexp {OCSP response: no response sent} $text] || ![regexp {OCSP Response Data:} $text]} {return $result}
    dict set result staple foreign
    if {[regexp {Produced At: ([^\n]*)} $text - at]} {dict set result produced [ocsp_seconds $at]}
    foreach entry [lrange [split [string map [list "Certificate ID:" \x01] $text] \x01] 1 end] {
        if {![regexp {Serial Number: (-?[0-9A-Fa-f]+)} $entry - serial]} continue
        if {[string toupper $serial] ne [dict get $result serial]} continue
        if {[regexp {Cert Status: (\w+)} $entry - status]} {dict set result staple $status}
        if {[regexp {This Update: ([^\n]*)} $entry - at]} {dict set result this [ocsp_seconds $at]}
        if {[regexp {Next Update: ([^\n]*)} $entry - at]} {dict set result next [ocsp_seconds $at]}
        regexp {Revocation Reason: (\w+)} $entry - reason
        if {[info exists reason]} {dict set result reason $reason}
    }
    return $result
}

# Only the staple's status.
proc ocsp_staple {{level 0} args} {
    set shake [ocsp_handshake $level {*}$args]
    if {![dict get $shake ok]} {return "no handshake: [lsearch -all -inline [split [dict get $shake text] \n] *rror:*]"}
    return [dict get $shake staple]
}

# What must hold at any time: both TLS versions complete a handshake and show `status`.
proc ocsp_assert_staple {status {level 0}} {
    foreach version {-tls1_2 -tls1_3} {
        assert_equal [ocsp_staple $level $version] $status "staple with $version; [ocsp_situation $level]"
    }
}

proc ocsp_wait_staple {status {level 0} {seconds 20}} {
    wait_for_condition [expr {$seconds * 10}] 100 {[ocsp_staple $level] eq $status} else {
        fail "the staple is [ocsp_staple $level], not $status ([ocsp_situation $level])"
    }
}

# A handshake by gnutls-cli, which judges the staple itself: a dict with exit (0: all is well), text, der (the staple).
# `priority` chooses the version: VERS-TLS1.2 or VERS-TLS1.3.
proc ocsp_gnutls {ca {level 0} {version VERS-TLS1.3}} {
    set file [file join [dict get $ca dir] staple.[clock clicks].der]
    set code [catch {
        exec gnutls-cli --x509cafile [dict get $ca cert] --save-ocsp $file --port [srv $level port] \
            --priority NORMAL:-VERS-ALL:+$version [srv $level host] </dev/null 2>@1
    } text options]
    set exit 0
    if {$code} {
        set how [dict get $options -errorcode]
        set exit [expr {[lindex $how 0] eq "CHILDSTATUS" ? [lindex $how 2] : -1}]
    }
    set der {}
    if {[file exists $file]} {
        set der [ocsp_file_read $file]
        file delete $file
    }
    return [dict create exit $exit text $text der $der]
}

# Both oracles and both versions agree that the staple is good.
proc ocsp_assert_good {ca {level 0}} {
    ocsp_assert_staple good $level
    if {[auto_execok gnutls-cli] eq {}} return
    foreach version {VERS-TLS1.2 VERS-TLS1.3} {
        set verdict [ocsp_gnutls $ca $level $version]
        assert_equal [dict get $verdict exit] 0 "gnutls-cli with $version says: [dict get $verdict text]"
    }
}

# And that it is not: gnutls-cli refuses (revoked, expired, foreign, forged, or missing where it must not be).
proc ocsp_assert_refused {ca {level 0}} {
    if {[auto_execok gnutls-cli] eq {}} return
    foreach version {VERS-TLS1.2 VERS-TLS1.3} {
        set verdict [ocsp_gnutls $ca $level $version]
        assert_equal [dict get $verdict exit] 1 "gnutls-cli with $version says: [dict get $verdict text]"
    }
}

# ---- programs of ours, made when a suite needs them (our own runner only) ------------------------------------------

# Compiles support/NAME.c, once for each suite, and returns the program's or library's path.
proc ocsp_tool {name} {
    set library [expr {$name in {
        clock_shift fault_inject fault_nth accept_threads foreign_openssl other_module loopback_only
    }}]
    set out [file join $::workdir $name[expr {$library ? ".so" : {}}]]
    if {[file exists $out]} {return $out}
    set source [file join $::ocsp_support_dir $name.c]
    if {$library} {
        exec cc -std=c11 -O1 -Wall -shared -fPIC $source -o $out -ldl -Wl,--as-needed -lssl -lcrypto
    } else {
        exec cc -std=c11 -D_GNU_SOURCE -O1 -Wall $source -o $out -lssl -lcrypto -lpthread
    }
    return $out
}

# Handshakes without a pause against the server at `level`, until ocsp_hammer_stop, which returns what tls_hammer
# counted as a dict. `args` are more options of tls_hammer.
proc ocsp_hammer_start {ca_file {level 0} args} {
    set until [tmpfile hammer-until]
    set channel [open |[list [ocsp_tool tls_hammer] --port [srv $level port] --ca $ca_file --until $until --begun \
        {*}$args] r]
    gets $channel ;# what is done to the server from here on is done under handshakes
    return [dict create channel $channel until $until]
}

proc ocsp_hammer_stop {hammer} {
    append_text [dict get $hammer until] {}
    return [ocsp_hammer_result $hammer]
}

# Waits for a hammer with --count to come to its end.
proc ocsp_hammer_result {hammer} {
    set line [gets [dict get $hammer channel]]
    close [dict get $hammer channel]
    set result {}
    foreach {- name value} [regexp -all -inline {(\w+)=(\d+)} $line] {dict set result $name $value}
    regexp {why=(.*)} $line - why
    dict set result why $why
    return $result
}

# No handshake failed and nothing was stapled that does not verify.
proc ocsp_assert_hammer {result} {
    assert_morethan [dict get $result handshakes] 0 $result
    assert_equal [dict get $result failed] 0 $result
    assert_equal [dict get $result bad] 0 $result
}

# Called by our runner at a suite's end.
proc stop_helpers {} {
    ocsp_responder_stop_all
}

# Lines in the server's log that the module wrote: the server puts its name before them.
proc ocsp_log_lines {{level 0} {pattern *}} {
    set found {}
    foreach line [log_lines $level] {
        if {[string match {*<ocsp> *} $line] && [string match $pattern $line]} {
            lappend found $line
        }
    }
    return $found
}
