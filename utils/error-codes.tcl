#!/usr/bin/env tclsh
# error-codes.tcl - compares the table of reasons in docs/behavior.md with the one in src/ocsp_util.c: both must have the
# same words, each with the same kinds of failure. `make lint` runs it.
#
#   tclsh utils/error-codes.tcl     exits with 1 if the tables differ
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6
source [file join [file dirname [file normalize [info script]]] directives.tcl]

namespace eval error_codes {
    variable project [file dirname [file dirname [file normalize [info script]]]]
}

# Returns a dict of the engine's words: {kind ...}, each kind once.
proc error_codes::of_engine {} {
    variable project
    set text [directives::read_text [file join $project src ocsp_util.c]]
    set row {\n    \[OCSP_FAIL_\w+\] = \{"([a-z-]*)", OCSP_ERR_(\w+)\},}
    set words {}
    set rows 0
    foreach {- word kind} [regexp -all -inline $row $text] {
        incr rows
        if {$word ne ""} {dict lappend words $word [string tolower $kind]}
    }
    set all [regexp -all {\n    \[OCSP_FAIL_} $text]
    if {$rows != $all || $all == 0} {
        error "src/ocsp_util.c has $all error codes, of which $rows can be parsed: use one form for all rows"
    }
    return [sorted $words]
}

# Returns the same of the documentation: rows "| `word` | kind, kind | reason | what to do |" after the table's head.
proc error_codes::of_documentation {} {
    variable project
    set text [directives::read_text [file join $project docs behavior.md]]
    set from [string first "\n| word | counted as |" $text]
    if {$from < 0} {error "docs/behavior.md has no table with the head \"| word | counted as |\""}
    set table [string range $text $from [string first "\n\n" $text $from]]
    set words {}
    foreach {- word kinds} [regexp -all -inline {\n\| `([a-z-]+)` \| ([a-z, ]+) \| [^|]+ \| [^|]+ \|} $table] {
        dict lappend words $word {*}[split [string map {", " ,} $kinds] ,]
    }
    return [sorted $words]
}

proc error_codes::sorted {words} {
    dict map {word kinds} $words {lsort -unique $kinds}
}

set engine [error_codes::of_engine]
set documentation [error_codes::of_documentation]
set faults 0
foreach word [lsort -unique [concat [dict keys $engine] [dict keys $documentation]]] {
    set here [expr {[dict exists $engine $word] ? [dict get $engine $word] : {}}]
    set there [expr {[dict exists $documentation $word] ? [dict get $documentation $word] : {}}]
    if {$here eq $there} continue
    puts stderr "docs/behavior.md: the error code \"$word\" is [expr {$there eq {} ? {missing} : "counted as $there"}];\
        in src/ocsp_util.c it is [expr {$here eq {} ? {missing} : "counted as $here"}]"
    incr faults
}
exit [expr {$faults > 0}]
