#!/usr/bin/env tclsh
# run.tcl - breaks the engine's rules one at a time, as list.txt defines, and expects a test to fail on each mutant.
#
#   tclsh tests/mutants/run.tcl [options] [ID...]      ID may be a pattern: 'verify-*'
#     --simulation      run the simulation alone, to see what it finds without the unit tests; lists what it misses
#     --seed N          the simulation's first world, by default 1
#     --worlds N        the number of worlds simulated with each mutant, by default 100
#     --list            print ids and rules
#     --check           only check that list.txt matches the engine: each old text occurs once where its entry says
#
# Works on a copy in build/mutants/tree, so that the tree itself is never mutated. First the unmutated copy has to pass,
# also each test that list.txt names, run alone; with IDs, only what they need. Then each mutant is compiled and run by
# its likely killer, the other unit programs, the replayed fuzz seeds and the simulation. The model is the killer where
# list.txt names a fault of the model. The first failure kills the mutant. A crash kills, and so does a hang: no output for
# ten times as long as unmutated, plus 20 seconds. A mutant that does not compile, or whose old text does not occur exactly
# once, proves nothing and is an error.
#
# Exit status 0: every mutant was killed, except those whose entry explains why it lives, and at least 48 of 50.
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

set ::project [file dirname [file dirname [file dirname [file normalize [info script]]]]]
set ::tree $::project/build/mutants/tree
set ::copied {
    Makefile utils/ocsp-nodes.c utils/ocsp-nodes.h tests/rules.mk src deps tests/c tests/fuzz tests/simulation tests/model
}
set ::simulation_only 0
set ::seed 1
set ::worlds 100
array set ::patience {} ;# seconds without output after which a killer counts as hanging

proc stop_with {sentence} {
    puts stderr "mutants: $sentence"
    exit 2
}

# ---- the list ---------------------------------------------------------------------------------------------------------

proc read_file {path} {
    set channel [open $path]
    fconfigure $channel -encoding utf-8
    set text [read $channel]
    close $channel
    return $text
}

# Returns the entries of list.txt, each a dictionary.
proc read_list {} {
    set entries {}
    set entry {}
    set key ""
    set number 0
    foreach line [split [read_file $::project/tests/mutants/list.txt]\n \n] {
        incr number
        if {[string match "#*" $line]} continue
        if {[string trim $line] eq ""} {
            if {[dict size $entry] > 0} {lappend entries [complete $entry $number]}
            set entry {}
        } elseif {[regexp {^ +(.*)$} $line - more] && $key ne ""} {
            dict append entry $key " $more"
        } elseif {[regexp {^(id|file|in|old|new|rule|by|lives)(?: +(.*))?$} $line - key value] &&
                  ![dict exists $entry $key]} {
            dict set entry $key $value
        } else {
            stop_with "list.txt, line $number: \"$line\" is not part of an entry; the head of the list describes the format"
        }
    }
    set ids [lmap entry $entries {dict get $entry id}]
    foreach id [lsort -unique $ids] {
        if {[llength [lsearch -all -exact $ids $id]] > 1} {stop_with "list.txt has two entries with the id $id"}
    }
    return $entries
}

proc complete {entry number} {
    foreach key {id old new rule by} {
        if {![dict exists $entry $key]} {stop_with "list.txt: the entry before line $number has no \"$key\""}
    }
    if {![dict exists $entry file]} {
        dict set entry file src/ocsp_[regsub -- {-.*} [dict get $entry id] {}].c
    }
    lassign [killer_of [dict get $entry by]] kind program test
    if {$kind eq "unit" && $test ne "" && ![regexp "\\m$test\\M" [read_file $::project/tests/c/$program.c]]} {
        stop_with "[dict get $entry id]: there is no test $test in tests/c/$program.c; update list.txt"
    }
    return $entry
}

# Returns the mutated text of the entry's file.
proc mutate {entry} {
    set id [dict get $entry id]
    set file [dict get $entry file]
    if {![file exists $::project/$file]} {stop_with "$id: there is no file $file; update list.txt"}
    set text [read_file $::project/$file]
    set from 0
    set to [string length $text]
    set where $file
    if {[dict exists $entry in]} {
        set name [dict get $entry in]
        set where "$name in $file"
        # The definition starts in the first column and ends at the next closing brace in the first column.
        if {![regexp -indices -line "^\[a-z\].*\\m$name\\(\[^;\]*\$" $text begins]} {
            stop_with "$id: there is no function $name in $file; update list.txt"
        }
        set from [lindex $begins 0]
        set to [string first "\n\}" $text $from]
    }
    set old [dict get $entry old]
    set found {}
    set at $from
    while {[set at [string first $old $text $at]] >= 0 && $at < $to} {
        lappend found $at
        incr at
    }
    if {[llength $found] != 1} {
        stop_with "$id: the old text occurs [llength $found] times in $where and must occur there once; update list.txt: $old"
    }
    set at [lindex $found 0]
    return [string replace $text $at [expr {$at + [string length $old] - 1}] [dict get $entry new]]
}

# ---- the copy ---------------------------------------------------------------------------------------------------------

# Writes a file only if its text differs, so that make compiles only what changed.
proc put {path text} {
    if {[file exists $path] && [read_file $path] eq $text} return
    file mkdir [file dirname $path]
    set channel [open $path w]
    fconfigure $channel -encoding utf-8
    puts -nonewline $channel $text
    close $channel
}

proc files_below {root path} {
    if {[file isfile $root/$path]} {return [list $path]}
    set all {}
    foreach name [lsort [glob -nocomplain -tails -directory $root/$path *]] {
        lappend all {*}[files_below $root $path/$name]
    }
    return $all
}

proc copy_tree {} {
    foreach part $::copied {
        set files [lsearch -all -inline -not -regexp [files_below $::project $part] {\.(so|o)$}]
        foreach file $files {put $::tree/$file [read_file $::project/$file]}
        foreach file [files_below $::tree $part] {
            if {$file ni $files} {file delete $::tree/$file}
        }
    }
}

# Builds targets in the copy. Returns make's output if make failed, else "". Warnings are not errors here: a deleted rule
# can leave a variable unused.
proc build {targets} {
    set failed [catch {exec make -C $::tree --no-print-directory -j2 WARN= {*}$targets 2>@1} said]
    return [expr {$failed ? $said : ""}]
}

# ---- the killers ------------------------------------------------------------------------------------------------------

# A killer is a list: unit PROGRAM ?TEST?, simulate, or model MUTANT.
proc killer_of {by} {
    if {[lindex $by 0] in {simulate model}} {return $by}
    return [list unit {*}$by]
}

proc command_of {killer dir} {
    if {[lindex $killer 0] eq "simulate"} {
        return [list $dir/simulate --seed $::seed --worlds $::worlds]
    }
    set test [lindex $killer 2]
    return [concat [expr {$test eq "" ? {} : [list env OCSP_TEST_ONLY=$test]}] $dir/[lindex $killer 1]]
}

# Returns what killed the mutant according to one line of a killer's output, or "".
proc verdict {killer line} {
    if {[regexp {^\[  FAILED  \] (\w+)} $line - test]} {return "[lindex $killer 1] $test"}
    if {[regexp {^BROKEN in world (\d+) after ([\d.]+) years: ([^:]*)} $line - world years property]} {
        return "simulate: $property (world $world, after $years years)"
    }
    return ""
}

# Runs a killer from `dir` until its output ends, shows a failure, or stops for `patience` seconds. Returns the killer and
# the failure, or "". Sets ::silence to the longest time without output, in seconds.
proc try {killer patience dir} {
    set name [expr {[lindex $killer 0] eq "unit" ? [join [lrange $killer 1 end]] : "simulate:"}]
    set ::silence 0
    set killed ""
    set tests 0
    set heard [clock milliseconds]
    set channel [open |[list {*}[command_of $killer $dir] 2>@1] r]
    fconfigure $channel -blocking 0
    fileevent $channel readable {set ::heard word}
    while {$killed eq "" && ![eof $channel]} {
        set timer [after [expr {$patience * 1000}] {set ::heard nothing}]
        vwait ::heard
        after cancel $timer
        set ::silence [expr {max($::silence, ([clock milliseconds] - $heard) / 1000.0)}]
        set heard [clock milliseconds]
        if {$::heard eq "nothing"} {set killed "$name hangs"}
        while {$killed eq "" && [gets $channel line] >= 0} {
            set killed [verdict $killer $line]
            incr tests [string match {\[       OK \]*} $line]
        }
    }
    if {$killed ne ""} { ;# the rest of the run is not needed
        catch {exec kill -KILL {*}[pid $channel]}
        catch {close $channel}
        return $killed
    }
    fconfigure $channel -blocking 1
    if {[catch {close $channel} why options]} {return "$name dies ([lindex [dict get $options -errorcode] end])"}
    if {[lindex $killer 0] eq "unit" && $tests == 0} {return "$name runs no test"}
    return ""
}

# Runs a killer without a mutant: it has to pass. Its longest silence sets the limit for mutants.
proc pass_unmutated {killer} {
    set killed [try $killer 900 sound]
    if {$killed ne ""} {
        stop_with "without a mutant: $killed. Fix this first (make test), or the test that list.txt names"
    }
    set ::patience($killer) [expr {20 + round(10 * $::silence)}]
}

# Runs a killer on the mutant. After a hang, runs it without the mutant too, to tell a hang from a busy machine.
proc show {killer} {
    if {![info exists ::patience($killer)]} {pass_unmutated $killer}
    while 1 {
        set killed [try $killer $::patience($killer) build]
        if {![string match "* hangs" $killed]} {return $killed}
        set before $::patience($killer)
        pass_unmutated $killer
        if {$::patience($killer) < $before * 2} {return $killed}
    }
}

# Sets ::found_by_model to the model's mutants that Spin finds. The model is explored once, with all of them.
proc explore_model {} {
    set failed [catch {exec sh $::tree/tests/model/run 2>@1} said]
    if {$failed} {stop_with "the model has an error, or does not find its own mutants: make model\n$said"}
    set ::found_by_model {}
    foreach line [split $said \n] {
        if {[regexp {^([A-Z_]+) +\w+ +found: (.*)$} $line - name fault]} {dict set ::found_by_model $name $fault}
    }
}

# ---- the run ----------------------------------------------------------------------------------------------------------

set patterns {}
set list_only 0
set check_only 0
for {set i 0} {$i < [llength $argv]} {incr i} {
    set argument [lindex $argv $i]
    switch -glob -- $argument {
        --simulation {set ::simulation_only 1}
        --seed - --worlds {
            set value [lindex $argv [incr i]]
            if {![string is integer -strict $value] || $value < 1} {stop_with "$argument needs a number above 0"}
            set ::[string range $argument 2 end] $value
        }
        --list {set list_only 1}
        --check {set check_only 1}
        -* {stop_with "there is no option $argument; the head of tests/mutants/run.tcl lists the options"}
        default {lappend patterns $argument}
    }
}

set entries {}
foreach entry [read_list] {
    foreach pattern [expr {[llength $patterns] ? $patterns : "*"}] {
        if {[string match $pattern [dict get $entry id]]} {
            lappend entries $entry
            break
        }
    }
}
if {[llength $entries] == 0} {stop_with "no id in list.txt matches [join $patterns { or }]; see --list"}
if {$list_only} {
    foreach entry $entries {puts [format "%-36s %s" [dict get $entry id] [dict get $entry rule]]}
    exit 0
}
if {$check_only} {
    foreach entry $entries {mutate $entry}
    exit 0
}
foreach entry $entries {mutate $entry} ;# reports an outdated entry before anything is built

fconfigure stdout -buffering line
set began [clock seconds]
file mkdir $::tree
cd $::tree
copy_tree
set programs [lmap file [lsort [glob -directory $::tree/tests/c test_*.c]] {file rootname [file tail $file]}]
set everything [concat [lmap program $programs {list unit $program}] {{unit fuzz-replay} simulate}]
puts "mutants: [llength $entries]; building and testing without one first"
set said [build [concat [lmap program $programs {string cat build/ $program}] build/fuzz-replay build/simulate]]
if {$said ne ""} {stop_with "the tree does not build without a mutant:\n$said"}
file delete -force sound ;# the programs without a mutant
file mkdir sound
foreach program [concat $programs fuzz-replay simulate] {file copy build/$program sound/$program}
set hints [lsort -unique [lmap entry $entries {killer_of [dict get $entry by]}]]
if {$::simulation_only} {
    set everything simulate
    set hints {}
}
foreach killer $everything {
    if {[llength $patterns] > 0} break ;# each is run when it is needed
    set since [clock milliseconds]
    pass_unmutated $killer
    puts [format "  passes: %-24s %.1f s" [join $killer] [expr {([clock milliseconds] - $since) / 1000.0}]]
}
foreach killer $hints {
    if {[lindex $killer 0] ne "model" && ![info exists ::patience($killer)]} {pass_unmutated $killer}
}
if {"model" in [lmap killer $hints {lindex $killer 0}]} {
    explore_model
    puts "  passes: the model, which finds [dict size $::found_by_model] mutants of its own"
}
puts "  ready after [expr {[clock seconds] - $began}] s"

set results [open $::project/build/mutants/results w]
set mutants_began [clock milliseconds]
set done 0
set killed_by [dict create unit 0 simulation 0 model 0]
set explained {}
set unexplained {}
foreach entry $entries {
    set id [dict get $entry id]
    set file [dict get $entry file]
    set original [read_file $::project/$file]
    set hint [killer_of [dict get $entry by]]
    put $::tree/$file [mutate $entry]
    # Where the model is the likely killer, test_slot runs first, as it may fail sooner.
    set first [expr {[lindex $hint 0] eq "model" ? [list [list unit test_slot] $hint] : [list $hint [lrange $hint 0 1]]}]
    if {$::simulation_only} {set first {}}
    set by ""
    set tried {}
    foreach killer [concat $first $everything] {
        if {$killer in $tried} continue
        lappend tried $killer
        if {[lindex $killer 0] eq "model"} {
            set fault [lindex $killer 1]
            if {![dict exists $::found_by_model $fault]} {stop_with "$id: tests/model/run finds no mutant $fault"}
            set by "model $fault: [dict get $::found_by_model $fault]"
        } else {
            set said [build build/[lindex [concat $killer simulate] [expr {[lindex $killer 0] eq "unit"}]]]
            if {$said ne ""} {
                puts stderr "$id does not compile and proves nothing:\n$said"
                break
            }
            set by [show $killer]
        }
        if {$by ne ""} break
    }
    put $::tree/$file $original
    incr done
    set left [expr {[llength $entries] - $done}]
    set to_go [expr {([clock milliseconds] - $mutants_began) * $left / $done / 1000}]
    if {$by ne ""} {
        switch -glob $by {
            simulate* {dict incr killed_by simulation}
            model* {dict incr killed_by model}
            default {dict incr killed_by unit}
        }
        set words "killed by [string range $by 0 90]"
        if {[dict exists $entry lives]} {append words " - list.txt has a `lives` line for it: delete that line"}
    } elseif {[dict exists $entry lives]} {
        set words "lives, as explained"
        lappend explained $entry
    } else {
        set words "LIVES: [dict get $entry rule]"
        lappend unexplained $entry
    }
    puts [format "%3d/%d %-34s %s%s" $done [llength $entries] $id $words \
        [expr {$left > 0 ? "; $left left, about $to_go s" : ""}]]
    puts $results "$id\t$by"
    flush $results
}
close $results

set lives [expr {[llength $explained] + [llength $unexplained]}]
set killed [expr {$done - $lives}]
puts "by the unit tests [dict get $killed_by unit], by the simulation [dict get $killed_by simulation],\
    by the model [dict get $killed_by model]; [expr {[clock seconds] - $began}] s"
foreach entry [concat $explained $unexplained] {
    puts "lives: [dict get $entry id] ([dict get $entry rule]): [expr {[dict exists $entry lives] ?
        [dict get $entry lives] : "not explained: a test is missing"}]"
}
puts "$killed of $done killed"
exit [expr {!$::simulation_only && ([llength $unexplained] > 0 || $killed * 50 < $done * 48)}]
