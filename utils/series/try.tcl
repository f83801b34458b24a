# try.tcl - part of valkey-patch: `try-series DIR` applies the series to a copy of a Valkey tree with `git am`, one patch
# after the other, builds each step and runs its tests. It prints a line for each step and fetches nothing.
#
# SPDX-License-Identifier: BSD-3-Clause

# Runs a command in `dir` with its output in the file `log`. Returns 1 if it succeeded.
proc try_run {dir log args} {
    return [expr {![catch {exec sh -c {cd "$1" && log=$2 && shift 2 && exec "$@" >>"$log" 2>&1 </dev/null} - $dir $log \
        {*}$args}]}]
}

proc try_fail {log what} {
    puts stderr "valkey-patch: $what; the end of $log:"
    catch {puts stderr [exec tail -n 30 $log]}
    exit 1
}

# How the tree runs its unit tests of the engine: {target of make, directory, program, arguments}; {}: it has none.
proc try_unit {dir} {
    switch -- [unit_tests $dir] {
        src/unit/test_ocsp.c {return {src valkey-unit-tests src/valkey-unit-tests {--single test_ocsp.c}}}
        src/unit/test_ocsp.cpp {
            return {src/unit valkey-unit-gtests src/unit/valkey-unit-gtests {--gtest_filter=Ocsp*}}
        }
    }
    return {}
}

# The tests of one step. Returns what ran, or ends the program.
proc try_tests {tree log make} {
    set ran {}
    set unit [try_unit $tree]
    if {$unit ne {}} {
        lassign $unit where target program arguments
        if {![try_run $tree $log make -C $where $target {*}$make]} {try_fail $log "the unit tests do not build"}
        if {![try_run $tree $log ./$program {*}$arguments]} {try_fail $log "the unit tests fail"}
        lappend ran "unit tests"
    }
    if {[file exists [file join $tree tests unit tls-ocsp.tcl]]} {
        if {![file exists [file join $tree tests tls ca.crt]] && ![try_run $tree $log sh utils/gen-test-certs.sh]} {
            try_fail $log "utils/gen-test-certs.sh fails"
        }
        # Ports of its own, as another run of Valkey's tests may be under way.
        set port [expr {22000 + [pid] % 40 * 200}]
        if {![try_run $tree $log ./runtest --tls --single unit/tls-ocsp --baseport $port]} {
            try_fail $log "unit/tls-ocsp fails"
        }
        lappend ran "unit/tls-ocsp"
    }
    return [join $ran { and }]
}

proc try_series {dir make} {
    if {$make eq {}} {set make {BUILD_TLS=yes}}
    set base [file join [expr {[info exists ::env(TMPDIR)] ? $::env(TMPDIR) : "/tmp"}] valkey-series.[pid]]
    set tree [file join $base tree]
    set series [file join $base series]
    file mkdir $base
    puts "copying the tree to $tree"
    exec cp -a $dir $tree
    file delete -force [file join $tree .git]
    # The tree in use may have been built: objects that still fit are not built again.
    set git [list git -C $tree -c user.name=valkey-patch -c user.email=valkey-patch@localhost -c core.autocrlf=false]
    exec {*}$git init -q
    exec {*}$git add -A
    exec {*}$git add -f {*}[lmap path [all_targets $tree] {
        expr {[file exists [file join $tree $path]] ? $path : [continue]}}]
    exec {*}$git commit -q --no-verify -m before
    set survey [diffable $tree]
    if {[dict get $survey state] ne "clean"} {give_up [list "the tree has the patch: revert it first"]}
    write_series $tree $survey $series
    set step 0
    foreach patch [lsort [glob -directory $series *.patch]] {
        incr step
        set log [file join $base step-$step.log]
        set began [clock seconds]
        if {![try_run $tree $log {*}$git am -q $patch]} {try_fail $log "[file tail $patch] does not apply"}
        set stat [lrange [split [exec {*}$git diff --shortstat HEAD~1] ,] 1 end]
        if {![try_run $tree $log make {*}$make]} {try_fail $log "step $step does not build"}
        set warnings [regexp -all -line {^(?:src/)?ocsp_[^\n]*warning:} [read_bytes $log]]
        if {$warnings} {try_fail $log "step $step builds with warnings"}
        set ran [try_tests $tree $log $make]
        puts "step $step:[join $stat ,]; built, $ran passed ([expr {[clock seconds] - $began}] s): [file tail $patch]"
    }
    try_last $dir $tree $survey
    file delete -force $base
    puts "The last step is what `apply` makes, and `revert` gives the tree back."
}

# Compares the last step with what `apply` makes of the tree.
proc try_last {dir tree survey} {
    set wanted [step_content $survey $::series::last]
    set differ {}
    dict for {path -} $wanted {
        set bytes [expr {[dict exists $survey copies $path] ? [ours $path] :
            [join [patched [dict get $survey files $path]] \n]}]
        if {[read_bytes [file join $tree $path]] ne $bytes} {lappend differ $path}
    }
    if {$differ ne {}} {give_up [list "the last step differs from apply: [join $differ {, }]"]}
    verb_revert $tree 0
    set rest [exec git -C $tree diff --stat HEAD~$::series::last]
    if {$rest ne {}} {give_up [list "revert after the last step leaves: $rest"]}
}
