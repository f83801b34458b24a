#!/usr/bin/env tclsh
# man-pages.tcl - keeps the manual pages in docs/man in step with the sources: writes the lists of directives (from
# src/ocsp_config.c), commands, states, fields and error codes (from docs/behavior.md) into valkey-ocsp.7, and compares
# the options in ocsp-probe.1 with those in utils/ocsp-probe.c.
#
#   tclsh utils/man-pages.tcl write     writes the lists (`make docs`)
#   tclsh utils/man-pages.tcl check     exits with 1 if a list or the options differ (`make lint`)
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6
source [file join [file dirname [file normalize [info script]]] directives.tcl]

namespace eval man_pages {
    variable project $directives::project
    variable folder [file join $project docs man]
}

# Returns Markdown text as text for roff: code and strong text in bold, links as their text; one line for each sentence,
# as mdoc asks for, and none longer than 78 columns.
proc man_pages::roff {text} {
    regsub -all {!?\[([^\]]*)\]\([^)]*\)} $text {\1} text
    set out ""
    set code 0
    foreach part [split [string map {\\ \\e ** \u0060} $text] \u0060] {
        # A hyphen in code must remain one when it is copied from the page.
        append out [expr {$code ? "\\fB[string map {- \\-} $part]\\fR" : $part}]
        set code [expr {!$code}]
    }
    set out [string map {\u2212 \\(mi \u00b1 \\(+- \u2192 \\(-> \u2013 \\(en} $out]
    regsub -all {([.?;])\s+(?=[A-Z\\])} $out "\\1\n" out
    set lines {}
    foreach sentence [split $out \n] {
        set line ""
        foreach word [split $sentence] {
            if {$line ne "" && [string length "$line $word"] > 78} {
                lappend lines $line
                set line ""
            }
            append line [expr {$line eq "" ? "" : " "}] $word
        }
        lappend lines $line
    }
    return [join [lmap line $lines {regsub {^([.'])} $line {\\\&\1}}] \n]
}

# Returns a text as one or more sentences.
proc man_pages::sentence {text} {
    set text [string toupper [string index $text 0]][string range $text 1 end]
    return $text[expr {[string index $text end] in {. ?} ? "" : "."}]
}

# Returns the rows of the table in docs/behavior.md whose head begins with `head`, each a list of its cells.
proc man_pages::table {head} {
    variable project
    set text [directives::read_text [file join $project docs behavior.md]]
    set from [string first "\n$head" $text]
    if {$from < 0} {error "docs/behavior.md has no table with the head \"$head\""}
    set lines [split [string range $text $from+1 [string first "\n\n" $text $from]] \n]
    return [lmap line [lrange $lines 2 end] {
        if {$line eq {}} continue
        lmap cell [split [string map {\\| \u0001} [string trim $line |]] |] {string trim [string map {\u0001 |} $cell]}
    }]
}

# Returns a list, made from tags and texts in Markdown.
proc man_pages::tagged {items} {
    set lines [list ".Bl -tag -width Ds"]
    foreach {tag text} $items {
        set text [string map {"; see below" "" "see above" "one of the states above"} $text]
        lappend lines ".It [string map {\n { }} [roff $tag]]" [roff [sentence $text]]
    }
    return [join [lappend lines .El] \n]
}

proc man_pages::list_of {name} {
    set items {}
    switch -- $name {
        directives {
            foreach row [directives::rows] {
                dict with row {
                    if {$type eq "STRING" && $fallback eq ""} {set fallback {""}}
                    lappend items "`ocsp.$name` `$fallback`" \
                        "[sentence $meaning] Values: $values.[expr {$guarded ? { Protected.} : {}}]"
                }
            }
        }
        commands {foreach row [table "| command | answers"] {lappend items {*}$row}}
        states {foreach row [table "| `ocsp_state` | meaning"] {lappend items {*}$row}}
        fields {foreach row [table "| field | meaning"] {lappend items {*}$row}}
        codes {
            foreach row [table "| word | counted as |"] {
                lassign $row word - reason remedy
                lappend items $word "[sentence $reason] Remedy: [sentence "\u0002$remedy"]"
            }
            set items [string map {\u0002 {}} $items]
        }
        default {error "valkey-ocsp.7 asks for a list \"$name\", which this script cannot make"}
    }
    return [tagged $items]
}

# Replaces what is between the lines `.\" NAME: written by make docs` and `.\" /NAME`.
proc man_pages::with_lists {text} {
    set lines {}
    set inside ""
    foreach line [split $text \n] {
        if {$inside ne "" && $line ne ".\\\" /$inside"} continue
        set inside ""
        lappend lines $line
        if {[regexp {^\.\\" (\w+): written by make docs$} $line - inside]} {lappend lines [list_of $inside]}
    }
    if {$inside ne ""} {error "valkey-ocsp.7: the list \"$inside\" has no end"}
    return [join $lines \n]
}

# Returns the options that a text names, sorted.
proc man_pages::options {pattern text} {
    return [lsort -unique [lmap {- option} [regexp -all -inline -- $pattern $text] {set option}]]
}

proc man_pages::check_options {} {
    variable project
    variable folder
    set source [directives::read_text [file join $project utils ocsp-probe.c]]
    regexp {static void printHelp.*?\n\}} $source help
    set wanted [options {--([a-z0-9.-]+)} [join [regexp -all -inline -line {^ *"  --.{22}} $help] \n]]
    set page [directives::read_text [file join $folder ocsp-probe.1]]
    set shown [options {(?n)^\.It Fl -([a-z0-9.-]+)} $page]
    set faults 0
    foreach option [lsort -unique [concat $wanted $shown]] {
        if {($option in $wanted) == ($option in $shown)} continue
        incr faults
        set where [expr {$option in $wanted ? "has no entry \".It Fl -$option\"" : "describes --$option"}]
        puts stderr "docs/man/ocsp-probe.1 $where, unlike the help text in utils/ocsp-probe.c"
    }
    return $faults
}

proc man_pages::main {verb} {
    variable folder
    set path [file join $folder valkey-ocsp.7]
    set text [directives::read_text $path]
    set wanted [with_lists $text]
    if {$verb eq "write" && $wanted ne $text} {
        set channel [open $path w]
        fconfigure $channel -encoding utf-8
        puts -nonewline $channel $wanted
        close $channel
    }
    if {$verb eq "check"} {
        set faults [check_options]
        if {$wanted ne $text} {
            puts stderr "docs/man/valkey-ocsp.7: a list differs from its source; run: make docs"
            incr faults
        }
        exit [expr {$faults > 0}]
    }
}

if {$argv ni {write check}} {
    puts stderr "usage: tclsh utils/man-pages.tcl write | check"
    exit 2
}
man_pages::main [lindex $argv 0]
