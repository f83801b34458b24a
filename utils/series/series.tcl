# series.tcl - part of valkey-patch: the patch as a series of steps, each of which builds and passes its own tests.
#
# steps.tcl describes the steps as data: in which step a file, a directive or an insertion appears, and what of a final
# file is left out before a step. This file interprets that. The last step is what `valkey-patch apply` makes: nothing is
# left out there, and `make test` compares the two.
#
# HOW A FILE IS REDUCED: by edits, each of which holds until a step. Its pattern must match exactly one line of the final
# file, so that a change of the engine that an edit does not fit fails in `make test` and not at a maintainer's. A section
# of a header whose title names an engine file, as in "slot (ocsp_slot.c)", appears with that file. A few files have a
# stand-in until a step, in a directory of this one.
#
# SPDX-License-Identifier: BSD-3-Clause

namespace eval series {
    variable home [file dirname [file normalize [info script]]]
    variable steps {}     ;# step -> {subject body}
    variable last 0
    variable first {}     ;# path -> the step in which it appears; patterns of paths are allowed
    variable insertions {} ;# description of an insertion -> the step
    variable directives {} ;# directive -> the step
    variable edits {}     ;# path -> list of {step kind arguments}
    variable stand_ins {} ;# path -> list of {step file}: before the step, the content is that of the file
    variable used {}      ;# the edits and patterns that matched something, for `unused`
}

# ---- the words of steps.tcl ------------------------------------------------------------------------------------------

# step SUBJECT BODY: begins the next step. The words below up to the next `step` belong to it.
proc series::step {subject body} {
    variable steps
    variable last
    incr last
    dict set steps $last [list $subject [string trim $body \n]]
}

# These appear in this step.
proc series::files {args} {
    variable first
    variable last
    foreach path $args {dict set first $path $last}
}
proc series::inserts {args} {
    variable insertions
    variable last
    foreach what $args {dict set insertions $what $last}
}
proc series::adds {args} {
    variable directives
    variable last
    foreach name $args {dict set directives $name $last}
}

# before PATH EDITS: until this step, parts of PATH are left out or are others. Edits, one a line:
#   function NAME...        leave out definitions or declarations, with the comment above
#   functions NAME...       the same, for names that are defined in several branches of an #if
#   type NAME...            type definitions, with the comment above
#   lines PATTERN...        single lines
#   every PATTERN...        all lines that match
#   block FIRST LAST        the lines from one that matches FIRST to the next that matches LAST, and an empty line after
#                           them if there is one above
#   upto FIRST NEXT         the same without the line that matches NEXT
#   instead FIRST LAST TEXT the same as `block`, but TEXT takes their place
#   sub PATTERN TEXT        the part of one line that matches is TEXT
#   gsub PATTERN TEXT       the same, in all lines that match
#   member NAME             an unnamed struct within a struct, whose member it is
#   head TEXT               the comment at the head of a C file is this one
#   as FILE NAME...         the definitions of functions, with the comment above, are those in a file beside steps.tcl
# Braces in patterns are written as \x7b and \x7d.
proc series::before {path body} {
    variable edits
    variable last
    foreach kind {function functions type lines every} {
        interp alias {} ::series::edit::$kind {} ::series::edit_each $path $kind
    }
    foreach kind {block upto instead sub gsub member head} {
        interp alias {} ::series::edit::$kind {} ::series::edit $path $kind
    }
    interp alias {} ::series::edit::as {} ::series::edit_as $path
    namespace eval edit $body
}
proc series::edit {path kind args} {
    variable edits
    variable last
    dict lappend edits $path [list $last $kind {*}$args]
}
proc series::edit_each {path kind args} {
    foreach what $args {edit $path $kind $what}
}
proc series::edit_as {path file args} {
    foreach name $args {edit $path as $file $name}
}

# Until this step, PATH has the content of a file beside steps.tcl.
proc series::stand_in {path file} {
    variable stand_ins
    variable last
    dict lappend stand_ins $path [list $last $file]
}

# ---- what is in a step -----------------------------------------------------------------------------------------------

# The step in which a path, an insertion or a directive appears; 0: steps.tcl does not say.
proc series::step_of {kind name} {
    variable used
    foreach {pattern step} [set series::$kind] {
        if {[string match $pattern $name]} {
            dict set used $kind:$pattern 1
            return $step
        }
    }
    return 0
}

# Of `names`, those that are there in step `step` (0: the last).
proc series::there {kind names step} {
    if {$step == 0} {return $names}
    return [lmap name $names {
        set first [step_of $kind $name]
        if {$first == 0} {error "utils/series/steps.tcl does not say in which step this appears ($kind): $name"}
        expr {$first <= $step ? $name : [continue]}
    }]
}

proc series::read_stand_in {file} {
    variable home
    set channel [open [file join $home $file] rb]
    try {return [read $channel]} finally {close $channel}
}

# ---- reducing --------------------------------------------------------------------------------------------------------

# The index of the only line that matches, from `from` on.
proc series::only {lines pattern} {
    set found [lsearch -all -regexp $lines $pattern]
    if {[llength $found] != 1} {error "[llength $found] lines match $pattern, where one must"}
    return [lindex $found 0]
}

# Removes the lines `from` to `to`, and the empty line after them if that would become a second one, or one at the head of
# a block.
proc series::cut {lines from to} {
    if {[string trim [lindex $lines $to+1]] eq {} && ($from == 0 || [regexp {^\s*$|\{$} [lindex $lines $from-1]])} {
        incr to
    }
    return [lreplace $lines $from $to]
}

proc series::function_pattern {name} {
    return "^(?:STACK_OF\\(\\w+\\)|\[A-Za-z_\])\[^;{}()\]*\\m$name\\("
}

# Where the comment above a line begins, which is not the heading of a section; the line itself if there is none.
proc series::comment_above {lines from} {
    if {![regexp {^(?:/\*| \*).*\*/$} [lindex $lines $from-1]]} {return $from}
    set at [expr {$from - 1}]
    while {[regexp {^ \*} [lindex $lines $at]]} {incr at -1}
    return [expr {[regexp {^/\* ----} [lindex $lines $at]] ? $from : $at}]
}

# The lines of a function: {first last}, with the comment above unless that is about a declaration below, too. `from`: its
# line, if there may be several.
proc series::function_lines {lines name {from {}}} {
    if {$from eq {}} {set from [only $lines [function_pattern $name]]}
    set to $from
    while {![regexp {;(?:\s*/\*.*)?$|\{$} [lindex $lines $to]]} {incr to}
    if {[regexp {\{$} [lindex $lines $to]]} {
        set to [lsearch -start $to -regexp $lines {^\}}]
    } else {
        # A comment may begin behind a declaration.
        while {[regexp {/\*} [lindex $lines $to]] && ![regexp {\*/} [lindex $lines $to]]} {incr to}
    }
    if {[regexp {^\s*$|^/\*|^#|^\}} [lindex $lines $to+1]]} {set from [comment_above $lines $from]}
    return [list $from $to]
}

proc series::apply_edit {lines kind arguments} {
    switch -- $kind {
        function {return [cut $lines {*}[function_lines $lines [lindex $arguments 0]]]}
        functions {
            set name [lindex $arguments 0]
            set found [lreverse [lsearch -all -regexp $lines [function_pattern $name]]]
            if {$found eq {}} {error "no such function"}
            foreach at $found {set lines [cut $lines {*}[function_lines $lines $name $at]]}
            return $lines
        }
        type {
            set to [only $lines "^\\x7d [lindex $arguments 0];"]
            set from [lindex [lsearch -all -regexp [lrange $lines 0 $to] {^typedef}] end]
            return [cut $lines [comment_above $lines $from] $to]
        }
        lines {
            set at [only $lines [lindex $arguments 0]]
            return [cut $lines $at $at]
        }
        every {
            set found [lsearch -all -regexp $lines [lindex $arguments 0]]
            if {$found eq {}} {error "no line matches"}
            foreach at [lreverse $found] {set lines [cut $lines $at $at]}
            return $lines
        }
        block - upto {
            set from [only $lines [lindex $arguments 0]]
            set to [lsearch -start [expr {$from + ($kind eq "upto")}] -regexp $lines [lindex $arguments 1]]
            if {$to < 0} {error "no line matches [lindex $arguments 1] after [lindex $arguments 0]"}
            return [cut $lines $from [expr {$kind eq "upto" ? $to - 1 : $to}]]
        }
        instead {
            set from [only $lines [lindex $arguments 0]]
            set to [lsearch -start $from -regexp $lines [lindex $arguments 1]]
            if {$to < 0} {error "no line matches [lindex $arguments 1] after [lindex $arguments 0]"}
            return [lreplace $lines $from $to {*}[split [string trim [lindex $arguments 2] \n] \n]]
        }
        sub - gsub {
            lassign $arguments pattern text
            if {$kind eq "gsub"} {
                set found [lsearch -all -regexp $lines $pattern]
                if {$found eq {}} {error "no line matches"}
                foreach at $found {lset lines $at [regsub $pattern [lindex $lines $at] $text]}
                return $lines
            }
            set at [only $lines $pattern]
            return [lreplace $lines $at $at {*}[split [regsub $pattern [lindex $lines $at] [regsub -all & $text {\\&}]] \n]]
        }
        member {
            set to [only $lines "^    \\x7d [lindex $arguments 0];"]
            set from [lindex [lsearch -all -regexp [lrange $lines 0 $to] {^    struct \x7b}] end]
            return [cut $lines $from $to]
        }
        head {
            set to [lsearch -regexp $lines { SPDX-License-Identifier}]
            return [lreplace $lines 0 $to-1 {*}[split "/* [lindex $arguments 0]" \n] { *}]
        }
        as {
            lassign $arguments file name
            lassign [function_lines $lines $name] from to
            set other [split [read_stand_in $file] \n]
            return [lreplace $lines $from $to {*}[lrange $other {*}[function_lines $other $name]]]
        }
    }
    error "unknown kind of edit: $kind"
}

# Removes the sections of a header whose file appears after `step`.
proc series::cut_sections {lines step} {
    while 1 {
        set gone 0
        foreach at [lsearch -all -regexp $lines {^/\* -{4} .*\(\w+\.c\) -+ \*/$}] {
            regexp {\((\w+\.c)\)} [lindex $lines $at] - name
            if {[step_of first src/$name] <= $step} continue
            set end [lsearch -start [expr {$at + 1}] -regexp $lines {^/\* -{4} |^#endif}]
            set lines [lreplace $lines $at $end-1]
            set gone 1
            break
        }
        if {!$gone} {return $lines}
    }
}

# The content of `path` in step `step`, made of the final content.
proc series::content {path final step} {
    variable stand_ins
    variable edits
    variable last
    variable used
    if {$step == 0 || $step == $last} {return $final}
    if {[dict exists $stand_ins $path]} {
        foreach stand_in [dict get $stand_ins $path] {
            lassign $stand_in until file
            if {$step >= $until} continue
            return [read_stand_in $file]
        }
    }
    set lines [split $final \n]
    # Edits that hold longer come first: what is left out until an earlier step may contain their lines.
    if {[dict exists $edits $path]} {
        foreach edit [lsort -integer -decreasing -index 0 [dict get $edits $path]] {
            set arguments [lassign $edit until kind]
            if {$step >= $until} continue
            if {[catch {apply_edit $lines $kind $arguments} changed]} {
                error "utils/series/steps.tcl, step $until, before $path $kind [lindex $arguments 0]: $changed"
            }
            set lines $changed
            dict set used [list $path {*}$edit] 1
        }
    }
    if {[string match *.h $path]} {set lines [cut_sections $lines $step]}
    return [join $lines \n]
}

namespace eval series {source [file join $home steps.tcl]}
