# ocsp_util.tcl - shared by the OCSP suites: names that differ between the module and a patched server, the set-up
# with a CA, a responder and a certificate ("lab"), TLS handshakes that request a staple, and INFO.
#
# The suites run against two forms of the product. Under this project's runner (run.tcl sets ::ocsp_module_path) a
# stock server loads the module: directives are called ocsp.*, and INFO ocsp has every field. Under Valkey's runner in
# a patched tree, directives are called tls-ocsp-*, and the two refresh counters are in INFO stats.
# tests/unit/tls-ocsp.tcl runs under both, so what it calls in this file uses only the vocabulary that both runners
# have. Suites name directives without a prefix: stapling, retry-delay...
#
# SPDX-License-Identifier: BSD-3-Clause

set ::ocsp_support_dir [file dirname [file normalize [info script]]]
source [file join $::ocsp_support_dir .. .. utils ocsp-pki.tcl]
source [file join $::ocsp_support_dir ocsp_responder.tcl]

set ::openssl [expr {[info exists ::env(OPENSSL)] ? $::env(OPENSSL) : "openssl"}]

# ---- module or patched server --------------------------------------------------------------------------------------

proc ocsp_is_module {} {info exists ::ocsp_module_path}

# Returns the full name of a directive.
proc ocsp_directive {short} {
    return [expr {[ocsp_is_module] ? "ocsp.$short" : "tls-ocsp-$short"}]
}

proc ocsp_set {short value {level 0}} {r $level config set [ocsp_directive $short] [ocsp_patient $short $value]}

proc ocsp_get {short {level 0}} {lindex [r $level config get [ocsp_directive $short]] 1}

# Returns the INFO fields, without the prefix ocsp_ (in a patched Valkey from 9.1 on, with its section tls: tls_ocsp_),
# as a dict.
proc ocsp_info_all {{level 0}} {
    set text [r $level info ocsp]
    if {![ocsp_is_module]} {append text \n [r $level info tls] \n [r $level info stats]}
    set fields {}
    foreach line [split $text \n] {
        if {[regexp {^(?:tls_)?ocsp_([a-z_0-9]+):(.*?)\r?$} $line - name value]} {dict set fields $name $value}
    }
    return $fields
}

proc ocsp_info {field {level 0}} {
    set fields [ocsp_info_all $level]
    if {![dict exists $fields $field]} {fail "INFO has no field ocsp_$field"}
    return [dict get $fields $field]
}

# Returns the fields that explain a failure, as text for a failure message.
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

# Waits until a counter is above `before`.
proc ocsp_wait_above {field before {level 0} {seconds 20}} {
    wait_for_condition [expr {$seconds * 50}] 20 {[ocsp_info $field $level] > $before} else {
        fail "ocsp_$field did not rise above $before ([ocsp_situation $level])"
    }
}

# Forces a refresh and waits until it has ended, successfully or not.
proc ocsp_refresh {{level 0}} {
    set before [ocsp_info refreshes $level]
    r $level debug ocsp-refresh
    ocsp_wait_above refreshes $before $level
}

# Returns the stapled response, as OCSP.GET or DEBUG OCSP-GET shows it.
proc ocsp_show {args} {
    return [r {*}[expr {[ocsp_is_module] ? {ocsp.get} : {debug ocsp-get}}] {*}$args]
}

# Pushes a response with OCSP.SET, which waits for the verification, or with DEBUG OCSP-SET, which does not. Returns the
# reply or the error.
proc ocsp_push {der} {
    catch {r {*}[expr {[ocsp_is_module] ? {ocsp.set} : {debug ocsp-set}}] [binary encode base64 $der]} reply
    return $reply
}

# Waits until the clock is past the current response's thisUpdate: times in responses are whole seconds, and only a
# response with a later thisUpdate is newer than the current one.
proc ocsp_pass_this_update {{level 0}} {
    set this_update [ocsp_info this_update $level]
    while {[clock seconds] <= $this_update} {after 20}
}

# Waits until exactly `count` requests hang at a responder whose behaviour is `hang`.
proc ocsp_wait_hanging {responder {count 1} {seconds 20}} {
    wait_for_condition [expr {$seconds * 20}] 50 {[dict get [ocsp_responder_stats $responder] hanging] == $count} else {
        fail "[dict get [ocsp_responder_stats $responder] hanging] requests hang at the responder, not $count"
    }
}

# ---- set-up --------------------------------------------------------------------------------------------------------

proc ocsp_tmpdir {name} {
    # Valkey's runner deletes directories whose names begin with "server".
    set dir [file normalize [tmpdir server-$name]]
    file mkdir $dir
    return $dir
}

# Creates a CA, a mock responder for it and a certificate that names this responder. Returns a dict: dir, ca, responder,
# leaf (the certificate), urls. Options are those of ocsp_pki_leaf, and -behave BEHAVIOUR for the responder, -paths LIST
# for the paths of the responder URLs in the certificate (default: one, "/").
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

# Creates another certificate of the lab's CA that names the lab's responder.
proc ocsp_lab_leaf {lab name args} {
    return [ocsp_pki_leaf [dict get $lab ca] $name -aia [dict get $lab urls] {*}$args]
}

# The first line of nearly every suite: creates a lab, with the options of ocsp_lab, and sets these variables of the
# caller: lab, dir, ca, leaf, responder, and url (the first responder URL). Our runner stops responders at the end of
# the suite.
proc ocsp_setup {args} {
    set lab [ocsp_lab {*}$args]
    uplevel 1 [list set lab $lab]
    foreach name {dir ca leaf responder} {uplevel 1 [list set $name [dict get $lab $name]]}
    uplevel 1 [list set url [lindex [dict get $lab urls] 0]]
}

# Returns the path of the cached response for `leaf` in the directory `dir`.
proc ocsp_cache_file {dir leaf} {
    return [file join $dir ocsp-[ocsp_cert_sha256 [dict get $leaf cert]].der]
}

proc ocsp_wait_file {file} {
    wait_for_condition 200 50 {[file exists $file]} else {fail "$file does not exist ([ocsp_situation])"}
}

# Stops the lab's responder.
proc ocsp_lab_close {lab} {
    ocsp_responder_stop [dict get $lab responder]
}

# Quotes a value for a configuration file, if it needs quotes.
proc ocsp_quoted {value} {
    if {$value eq {} || [regexp {[\s"'#]} $value]} {return "\"$value\""}
    return $value
}

# Returns the value of a directive, on a slow machine (see run.tcl) a longer timeout, for the responder is slow as well.
proc ocsp_patient {name value} {
    if {$name ne {timeout} || ![info exists ::patience] || ![string is integer -strict $value]} {return $value}
    return [expr {min($value * $::patience, max($value, 60))}]
}

# Returns options for start_server: TLS with the certificate `leaf` of `ca`, stapling on, and the directives in `args`.
# Our directives are given by short name; any other name is passed to the server as it is.
proc ocsp_server {leaf ca args} {
    set ours {stapling refresh-margin max-interval retry-delay timeout responder-url cache-dir response-file \
        verify-peers issuer-file proxy staple-chain}
    set overrides [list tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key] \
        tls-ca-cert-file [dict get $ca cert] tls-auth-clients no]
    # A module's directives may come before or after loadmodule.
    if {[ocsp_is_module]} {lappend overrides loadmodule $::ocsp_module_path}
    foreach {name value} [concat {stapling yes} $args] {
        if {$name in $ours} {
            lappend overrides [ocsp_directive $name] [ocsp_quoted [ocsp_patient $name $value]]
        } else {
            lappend overrides $name $value
        }
    }
    return [list overrides $overrides omit {tls-client-cert-file tls-client-key-file tls-dh-params-file} \
        tags {tls ocsp external:skip needs:debug}]
}

# Writes certificate and key of `leaf` to `place` (the same keys) as tools for renewal do: new files, renamed over the old ones.
proc ocsp_put_certificate {leaf place} {
    foreach part {cert key} {
        file copy -force [dict get $leaf $part] [dict get $place $part].new
        file rename -force [dict get $place $part].new [dict get $place $part]
    }
}

# Loads another certificate, or the same one again, with CONFIG SET. The server serves it from the next handshake on;
# INFO follows once the OCSP thread has adopted the new TLS context.
proc ocsp_load_certificate {leaf {level 0}} {
    r $level config set tls-cert-file [dict get $leaf cert] tls-key-file [dict get $leaf key]
}

# ---- handshakes ----------------------------------------------------------------------------------------------------

# Returns the Unix time of a time as OpenSSL prints it.
proc ocsp_seconds {text} {
    return [clock scan [regsub -all {\s+} [string trim $text] { }] -format {%b %d %H:%M:%S %Y GMT} -gmt 1]
}

# Returns the serial number of a certificate in PEM, in hexadecimal as `openssl x509 -serial` prints it.
proc ocsp_pem_serial {pem} {
    regexp -- {-----BEGIN CERTIFICATE-----([^-]+)} $pem - base64
    set certificate [ocsp_der_read [binary decode base64 $base64]]
    set fields [ocsp_der_children [dict get [ocsp_der_read [dict get $certificate content]] content]]
    # An INTEGER; the version before it is in a context-specific tag.
    return [::ocsp::serial_hex [ocsp_der_toint [dict get [::ocsp::tagged $fields 0x02] content]]]
}

# Makes a handshake with `openssl s_client -status`, to which `args` are further options (such as -tls1_2). Returns a
# dict:
#   ok           1 when the handshake was completed
#   serial       serial number of the certificate that was served
#   staple       status in the SingleResponse for that certificate: good, revoked or unknown; none: there was no staple;
#                foreign: there was one, without a SingleResponse for that certificate
#   this, next, produced   the staple's thisUpdate, nextUpdate (0: absent) and producedAt in Unix seconds
#   reason       revocation reason
#   text         the output of s_client
proc ocsp_handshake {{level 0} args} {
    catch {
        exec $::openssl s_client -connect [srv $level host]:[srv $level port] -status {*}$args </dev/null 2>@1
    } text
    return [ocsp_read_handshake $text]
}

# Reads the output of s_client into the dict that ocsp_handshake returns.
proc ocsp_read_handshake {text} {
    set result [dict create ok 0 serial {} staple none this 0 next 0 produced 0 reason {} text $text]
    # An authorized responder's certificate in the staple is printed in the same form, before the server's.
    if {![regexp -- {Server certificate\s+(-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----)} $text - pem]
        || [regexp {Cipher is \(NONE\)|alert (?:internal error|handshake failure)|:error:} $text]} {
        return $result
    }
    dict set result ok 1
    dict set result serial [ocsp_pem_serial $pem]
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

# Makes a handshake and returns the status in the staple.
proc ocsp_staple {{level 0} args} {
    set shake [ocsp_handshake $level {*}$args]
    if {![dict get $shake ok]} {return "no handshake: [lsearch -all -inline [split [dict get $shake text] \n] *rror:*]"}
    return [dict get $shake staple]
}

# Asserts that handshakes in TLS 1.2 and 1.3 complete with a staple of that status.
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

# Makes a handshake with gnutls-cli, which verifies the staple. Returns a dict: exit (0: certificate and staple
# accepted), text (its output), der (the staple). `version` is VERS-TLS1.2 or VERS-TLS1.3.
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

# Asserts that openssl and gnutls-cli accept the staple as good, in TLS 1.2 and 1.3.
proc ocsp_assert_good {ca {level 0}} {
    ocsp_assert_staple good $level
    if {[auto_execok gnutls-cli] eq {}} return
    foreach version {VERS-TLS1.2 VERS-TLS1.3} {
        set verdict [ocsp_gnutls $ca $level $version]
        assert_equal [dict get $verdict exit] 0 "gnutls-cli with $version: [dict get $verdict text]"
    }
}

# Asserts that gnutls-cli rejects the handshake: its staple is revoked, expired, foreign or forged, or required and
# absent.
proc ocsp_assert_refused {ca {level 0}} {
    if {[auto_execok gnutls-cli] eq {}} return
    foreach version {VERS-TLS1.2 VERS-TLS1.3} {
        set verdict [ocsp_gnutls $ca $level $version]
        assert_equal [dict get $verdict exit] 1 "gnutls-cli with $version: [dict get $verdict text]"
    }
}

# ---- programs and libraries in C, compiled when a suite needs them (our own runner only) ---------------------------

# Compiles support/NAME.c, once per suite, and returns the path of the program or library.
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

# Starts tls_hammer, which makes handshakes without pause against the server at `level` until ocsp_hammer_stop. `args`
# are further options of tls_hammer.
proc ocsp_hammer_start {ca_file {level 0} args} {
    set until [tmpfile hammer-until]
    set channel [open |[list [ocsp_tool tls_hammer] --port [srv $level port] --ca $ca_file --until $until --begun \
        {*}$args] r]
    gets $channel ;# handshakes are being made from here on
    return [dict create channel $channel until $until]
}

# Stops tls_hammer and returns its counters as a dict.
proc ocsp_hammer_stop {hammer} {
    append_text [dict get $hammer until] {}
    return [ocsp_hammer_result $hammer]
}

# Waits until a tls_hammer that was started with --count has ended, and returns its counters.
proc ocsp_hammer_result {hammer} {
    set line [gets [dict get $hammer channel]]
    close [dict get $hammer channel]
    set result {}
    foreach {- name value} [regexp -all -inline {(\w+)=(\d+)} $line] {dict set result $name $value}
    regexp {why=(.*)} $line - why
    dict set result why $why
    return $result
}

# Asserts that no handshake failed and that every staple verified.
proc ocsp_assert_hammer {result} {
    assert_morethan [dict get $result handshakes] 0 $result
    assert_equal [dict get $result failed] 0 $result
    assert_equal [dict get $result bad] 0 $result
}

# Our runner calls this at the end of a suite.
proc stop_helpers {} {
    ocsp_responder_stop_all
}

# Runs ocsp-probe with the trust anchor `ca` and returns {exit-status output}. It is compiled here, because the matrix tests
# a tree in which it is not built.
proc ocsp_probe {ca args} {
    if {[catch {exec [ocsp_probe_path] --cafile [dict get $ca cert] {*}$args 2>@1} text options]} {
        set how [dict get $options -errorcode]
        return [list [expr {[lindex $how 0] eq "CHILDSTATUS" ? [lindex $how 2] : -1}] $text]
    }
    return [list 0 $text]
}

proc ocsp_probe_path {} {
    set out [file join $::workdir ocsp-probe]
    if {[file exists $out]} {return $out}
    set files [glob [file join $::project_dir utils ocsp-*.c]]
    foreach file [glob [file join $::project_dir src ocsp_*.c]] {
        if {[string match ocsp_module* [file tail $file]] || [file tail $file] in {ocsp_builtin.c ocsp_tools.c}} continue
        lappend files $file
    }
    exec cc -std=gnu11 -O1 -I[file join $::project_dir src] -I[file join $::project_dir deps] {*}$files -o $out \
        -lssl -lcrypto -lpthread
    return $out
}

# Returns the lines of the server's log that the module wrote, which the server marks with the module's name.
proc ocsp_log_lines {{level 0} {pattern *}} {
    set found {}
    foreach line [log_lines $level] {
        if {[string match {*<ocsp> *} $line] && [string match $pattern $line]} {
            lappend found $line
        }
    }
    return $found
}
