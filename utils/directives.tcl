#!/usr/bin/env tclsh
# directives.tcl - reads the table of directives in src/ocsp_config.c, from which the README's table (this file) and the
# rows for Valkey's config.c (utils/valkey-patch) are generated.
#
#   tclsh utils/directives.tcl write     writes the table into README.md (`make docs`)
#   tclsh utils/directives.tcl check     exits with 1 if the table in README.md differs (`make lint`)
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

namespace eval directives {
    variable project [file dirname [file dirname [file normalize [info script]]]]
    variable begin "<!-- directives: written by make docs -->"
    variable end "<!-- /directives -->"
}

proc directives::read_text {path} {
    set channel [open $path]
    fconfigure $channel -encoding utf-8
    set text [read $channel]
    close $channel
    return $text
}

# Returns the rows, each a dict: name, type (BOOL, NUMBER, PERCENT, STRING, PEERS), field (of ocspOptions), fallback,
# min, max, guarded, check (a C function or NULL), values, meaning, sensitive.
proc directives::rows {} {
    variable project
    set text [read_text [file join $project src ocsp_config.c]]
    set string {"((?:[^"\\]|\\.)*)"}
    set parts [list $string {OCSP_(\w+)} {FIELD\((\w+)\)} $string {(\w+)} {(\w+)} {([01])} {(\w+)} $string $string]
    set sensitive {(?:,\s*\.sensitive = ([01]))?}
    set row "\\\{[join $parts {,\s*}]$sensitive\\\}"
    set rows {}
    foreach {- name type field fallback min max guarded check values meaning sensitive} [regexp -all -inline $row $text] {
        lappend rows [dict create name $name type $type field $field fallback $fallback min $min max $max \
            guarded $guarded check $check values [string map {\\\" \"} $values] \
            meaning [string map {\\\" \"} $meaning] sensitive [string equal $sensitive 1]]
    }
    set all [regexp -all {\n    \[OCSP_D_\w+\] =} $text]
    if {[llength $rows] != $all || $all == 0} {
        error "src/ocsp_config.c has $all directives, of which [llength $rows] can be parsed: use one form for all rows"
    }
    return $rows
}

proc directives::table {} {
    set lines {{| directive | default | values | at run time | meaning |} |---|---|---|---|---|}
    foreach row [rows] {
        dict with row {
            if {$type eq "STRING" && $fallback eq ""} {set fallback {""}}
            lappend lines "| `ocsp.$name` | `$fallback` | $values | [expr {$guarded ? {protected} : {yes}}] | $meaning |"
        }
    }
    return [join $lines \n]
}

proc directives::with_table {text} {
    variable begin
    variable end
    set from [string first $begin $text]
    set to [string first $end $text]
    if {$from < 0 || $to < $from} {error "README.md has no lines \"$begin\" and \"$end\""}
    return [string replace $text $from $to-1 "$begin\n[table]\n"]
}

proc directives::main {verb} {
    variable project
    set path [file join $project README.md]
    set text [read_text $path]
    set wanted [with_table $text]
    if {$verb eq "check" && $wanted ne $text} {
        puts stderr "README.md: the table of directives differs from src/ocsp_config.c; run: make docs"
        exit 1
    }
    if {$verb eq "write" && $wanted ne $text} {
        set channel [open $path w]
        fconfigure $channel -encoding utf-8
        puts -nonewline $channel $wanted
        close $channel
    }
}

if {[info exists argv0] && [file normalize $argv0] eq [file normalize [info script]]} {
    if {$argv ni {write check}} {
        puts stderr "usage: tclsh utils/directives.tcl write | check"
        exit 2
    }
    directives::main [lindex $argv 0]
}
