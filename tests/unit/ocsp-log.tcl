# ocsp-log.tcl - the lines about a certificate in the log: each begins as docs/behavior.md says, at the documented level,
# so that one pattern finds them and the first words tell them apart.
#
# Weight: 20
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Returns the rows of the table in docs/behavior.md, each {pattern level}: the pattern is a regular expression for what
# follows "certificate SERIAL: ".
proc documented_lines {} {
    set text [read_text [file join $::project_dir docs behavior.md]]
    set from [string first "| first words | level | when |" $text]
    set rows {}
    foreach line [split [string range $text $from [string first "\n\n" $text $from]] \n] {
        if {![regexp {^\| (`.*`) \| (notice|warning|debug) \| } $line - words level]} continue
        foreach {- begin} [regexp -all -inline {`([^`]+)`} $words] {
            lappend rows [list ^[string map {( \\( ) \\) WORD [a-z-]+} $begin] $level]
        }
    }
    return $rows
}

# Matches each line about a certificate with the table. Returns the patterns that occurred.
proc matched_lines {serial} {
    set marks [dict create notice * warning # debug .]
    set seen {}
    foreach line [ocsp_log_lines] {
        if {![regexp {^\S+ .* ([.*#-]) <ocsp> (.*)$} $line - mark sentence]} {fail "not a line of the log: $line"}
        if {![string match {certificate *} $sentence]} continue
        if {![regexp {^certificate ([0-9A-F]+): (.*)$} $sentence - of rest]} {fail "no documented beginning: $line"}
        set found {}
        foreach row [documented_lines] {
            lassign $row pattern level
            if {![regexp $pattern $rest]} continue
            assert_equal $mark [dict get $marks $level] "the level of: $line"
            lappend found $pattern
        }
        assert_equal [llength $found] 1 "first words in docs/behavior.md that match: $line"
        if {$of eq $serial} {lappend seen [lindex $found 0]}
    }
    return $seen
}

# Waits until a line with these first words was logged `count` times.
proc wait_line {words {count 1}} {
    wait_for_condition 600 50 {[llength [ocsp_log_lines 0 "*: $words*"]] >= $count} else {
        fail "never logged: $words ([ocsp_situation])"
    }
}

ocsp_setup -must-staple 1 -behave {http 503}

start_server [ocsp_server $leaf $ca retry-delay 1 refresh-margin 80] {
    test {log: a life of a certificate: each change is one line, which begins as documented} {
        wait_line {OCSP refresh failed (http-status): }
        wait_line {must-staple}
        ocsp_responder_behave $responder {this 0 next 6}
        ocsp_refresh
        wait_line {stapling a response}
        ocsp_responder_behave $responder {drop close}
        wait_line {OCSP refresh failed (closed): }
        wait_line {half of the refresh window elapsed}
        wait_line {the OCSP response expired}
        wait_line {must-staple} 2
        ocsp_responder_behave $responder {this 0 next 3600}
        ocsp_refresh
        wait_line {OCSP refresh recovered}
        ocsp_pass_this_update
        ocsp_responder_behave $responder {status revoked next 3600}
        ocsp_refresh
        wait_line {REVOKED on}
        ocsp_pass_this_update
        ocsp_responder_behave $responder {next 3600}
        ocsp_refresh
        wait_line {good again}
        # The same response again after a failure.
        set again [list this @[ocsp_info this_update] produced @[ocsp_info produced_at] next 3600]
        ocsp_responder_behave $responder {response_status tryLater}
        ocsp_refresh
        wait_line {OCSP refresh failed (responder-status): }
        ocsp_responder_behave $responder $again
        ocsp_refresh
        wait_line {the responder answers again}
        # The cache and the response file.
        set blocked [file join $dir blocked]
        ocsp_file_write $blocked {}
        ocsp_set cache-dir $blocked
        wait_line {response not cached (file): }
        set other [ocsp_response_file [file join $dir other.der] [ocsp_lab_leaf $lab other] $ca {next 3600}]
        ocsp_set response-file [file join $dir other.der]
        wait_line {response file ignored (no-entry): }
        assert_equal [ocsp_info last_error_code] no-entry
        ocsp_set response-file ""
        ocsp_set cache-dir ""

        set seen [matched_lines [dict get $leaf serial]]
        foreach words {
            {stapling a response} {half of the refresh window elapsed} {OCSP refresh recovered} {good again}
            {the responder answers again} {the OCSP response expired} {REVOKED on}
        } {
            assert_equal [llength [lsearch -all -exact $seen ^$words]] 1 "$words: $seen"
        }
        assert_equal [llength [lsearch -all -exact $seen ^must-staple]] 2 $seen
    }

    test {log: certificates for which nothing can be fetched have a line with the same beginning} {
        set quiet [ocsp_pki_leaf $ca quiet]
        ocsp_load_certificate $quiet
        wait_line {names no OCSP responder}
        assert_equal [matched_lines [dict get $quiet serial]] [list {^names no OCSP responder}]
        set own [ocsp_pki_ca $dir own]
        ocsp_load_certificate $own
        wait_line {self-signed}
        matched_lines {}
    }
}
ocsp_lab_close $lab
