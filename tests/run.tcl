#!/usr/bin/env tclsh
# run.tcl - runs the Tcl suites in tests/unit against a real server with the module, several suites at once.
#
#   tclsh tests/run.tcl [options]
#     --single FILE     run this suite only, e.g. unit/ocsp-answers (may be given several times)
#     --only PATTERN    run only tests with a part of their name that matches, e.g. 'reload: *' or '(17.3)'
#     --server PATH     the server, by default valkey-server (or redis-server) from PATH
#     --module PATH     the module, by default src/valkey-ocsp.so
#     -j N              number of suites at once, by default 4: suites mostly wait
#     --silence N       seconds without output after which a suite counts as hung, by default 150
#                       OCSP_TEST_PATIENCE=N in the environment, for a slow machine: all waits are N times as long;
#                       OCSP_TEST_EMULATED=yes: leave out what an emulated processor cannot do
#     --keep            keep the work directory even if no test failed
#     --list            print the names of the suites
#
# Each suite runs in a process of its own (this file with --worker), which reports line by line. The run ends with one
# line, "N passed, N failed". It fails if a test failed, a suite ended early or a server died.
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

set ::tests_dir [file dirname [file normalize [info script]]]
set ::project_dir [file dirname $::tests_dir]
# Seconds without output after which a suite counts as hung.
set ::silence_limit [expr {150 * ([info exists ::env(OCSP_TEST_PATIENCE)] ? int($::env(OCSP_TEST_PATIENCE)) : 1)}]

proc usage {message} {
    puts stderr "$message\nTry: tclsh tests/run.tcl \[--single FILE\] \[--only PATTERN\] \[--server PATH\]\
        \[--module PATH\] \[-j N\] \[--silence N\] \[--keep\] \[--list\]"
    exit 2
}

# ---- a worker: one suite ---------------------------------------------------------------------------------------------

proc run_suite {file} {
    foreach part {client assert server} {uplevel #0 [list source [file join $::tests_dir runner $part.tcl]]}
    # As in Valkey's runner: under TLS, `srv port` is the TLS port and `srv pport` the plain one.
    set ::tls 1
    set ::external 0
    set ::verbose 0
    set ::curfile [string map [list $::tests_dir/ {}] $file]
    fconfigure stdout -buffering line
    expr {srand([pid] + [clock clicks])}
    file mkdir $::workdir
    set failed [catch {uplevel #0 [list source $file]} why options]
    if {$failed == 1} {
        regsub {^assertion:} $why {} why
        fail_test "(outside the tests of $::curfile)" \
            "$why\n[join [lrange [split [dict get $options -errorinfo] \n] 1 8] \n]"
    }
    stop_all_servers
    catch {stop_helpers}
    report done $::num_passed $::num_failed $::num_skipped
    exit 0
}

# ---- the master -----------------------------------------------------------------------------------------------------

# Returns the seconds that a suite takes, about, from a line "Weight: N" at its head. The longest suites start first.
proc weight_of {file} {
    set channel [open $file]
    set head [read $channel 2000]
    close $channel
    return [expr {[regexp {Weight: (\d+)} $head - weight] ? $weight : 10}]
}

proc heavier {a b} {expr {[weight_of $b] - [weight_of $a]}}

proc short {file} {file rootname [file tail $file]}

proc start_next {} {
    while {[llength $::waiting] > 0 && [dict size $::running] < $::jobs} {
        set ::waiting [lassign $::waiting file]
        set slot 0
        while {$slot in [lmap {channel worker} $::running {dict get $worker slot}]} {incr slot}
        set command [list [info nameofexecutable] $::argv0 --worker $file --work [file join $::work [short $file]] \
            --slot $slot --server $::server_binary --module $::ocsp_module_path --only $::only]
        if {$::keep} {lappend command --keep}
        set channel [open |[list {*}$command 2>@1] r]
        fconfigure $channel -blocking 0 -buffering line -encoding utf-8
        dict set ::running $channel [dict create file $file slot $slot test {} heard [clock seconds] \
            began [clock milliseconds] pids {} ended 0]
        fileevent $channel readable [list hear $channel]
    }
    if {[dict size $::running] == 0} {set ::finished 1}
}

proc progress {} {
    set left [expr {[dict size $::running] + [llength $::waiting]}]
    return "\[[expr {$::passed + $::failed}] done, $left of $::suites suites left\]"
}

# Handles a line from a worker.
proc hear {channel} {
    if {[gets $channel line] < 0} {
        if {![eof $channel]} return
        worker_ended $channel
        return
    }
    dict set ::running $channel heard [clock seconds]
    if {[string index $line 0] ne "@" || [catch {
        encoding convertfrom utf-8 [binary decode base64 [string range $line 1 end]]
    } event]} {
        puts "    ([short [dict get $::running $channel file]]) $line"
        return
    }
    set file [dict get $::running $channel file]
    set rest [lassign $event kind]
    switch -- $kind {
        testing {dict set ::running $channel test [lindex $rest 0]}
        ok {
            incr ::passed
            puts [format {  ok      %s  (%.1f s)  %s} [lindex $rest 0] [expr {[lindex $rest 1] / 1000.0}] [progress]]
        }
        skip {
            incr ::skipped
            puts "  skipped [lindex $rest 0]: [lindex $rest 1]"
        }
        failed {lassign $rest name why logs ms; add_failure $file $name $why $logs $ms}
        spawned {dict set ::running $channel pids [lindex $rest 0] [lindex $rest 1]}
        gone {
            set pids [dict get $::running $channel pids]
            dict unset pids [lindex $rest 0]
            dict set ::running $channel pids $pids
        }
        done {dict set ::running $channel ended 1}
    }
}

proc add_failure {file name why logs {ms 0}} {
    incr ::failed
    set text [format "  FAILED  %s  (tests/unit/%s, %.1f s)\n" $name [file tail $file] [expr {$ms / 1000.0}]]
    foreach line [split $why \n] {append text "            $line\n"}
    foreach log $logs {append text "            server log: $log\n"}
    append text "            again: tclsh tests/run.tcl --single unit/[short $file]"
    # As a pattern: what the shell or `string match` would interpret becomes "?".
    if {$name ne {} && ![string match (* $name]} {append text " --only '[regsub -all {['*\[\]\\]} $name ?]'"}
    puts $text
    lappend ::failures $text
}

proc worker_ended {channel} {
    set worker [dict get $::running $channel]
    set code [catch {fconfigure $channel -blocking 1; close $channel} why]
    dict unset ::running $channel
    if {![dict get $worker ended]} {
        set logs [lmap {pid dir} [dict get $worker pids] {set _ $dir/stdout}]
        add_failure [dict get $worker file] "[dict get $worker test]" "the suite ended early: $why" $logs
    }
    kill_left_over $worker
    puts [format {  ----    %s done in %.0f s  %s} [short [dict get $worker file]] \
        [expr {([clock milliseconds] - [dict get $worker began]) / 1000.0}] [progress]]
    start_next
}

# Kills processes that a suite has left running: only those that it reported, and only if the pid is still that process,
# which means that it runs in the work directory or has a file of it on its command line.
proc kill_left_over {worker} {
    dict for {pid dir} [dict get $worker pids] {
        if {[file exists $dir/exit]} continue
        set signs {}
        catch {append signs [file readlink /proc/$pid/cwd]}
        catch {
            set channel [open /proc/$pid/cmdline rb]
            append signs [read $channel]
            close $channel
        }
        if {[string first $::work $signs] >= 0} {catch {exec kill -s KILL $pid}}
    }
}

# Every second: ends suites that hang. Every 20 seconds: prints what is running.
proc watch {} {
    set now [clock seconds]
    dict for {channel worker} $::running {
        if {$now - [dict get $worker heard] > $::silence_limit} {
            set logs [lmap {pid dir} [dict get $worker pids] {set _ $dir/stdout}]
            add_failure [dict get $worker file] [dict get $worker test] \
                "no output for $::silence_limit seconds: killed" $logs
            dict set ::running $channel ended 1
            dict set ::running $channel heard $now
            catch {exec kill -s KILL [pid $channel]}
        }
    }
    if {$now - $::printed >= 20} {
        set ::printed $now
        puts "  ....    running: [join [lmap {channel worker} $::running {
            set _ "[short [dict get $worker file]] ([dict get $worker test])"}] {; }]"
        if {$::waiting ne {}} {puts "  ....    waiting: [join [lmap file $::waiting {short $file}] {, }]"}
    }
    after 1000 watch
}

# ---- options --------------------------------------------------------------------------------------------------------

set ::server_binary {}
set ::ocsp_module_path [file join $::project_dir src valkey-ocsp.so]
set ::jobs 4
set ::only {}
set ::keep 0
set ::work {}
set ::slot 0
set worker_file {}
set chosen {}
set list_only 0
for {set i 0} {$i < [llength $argv]} {incr i} {
    set option [lindex $argv $i]
    if {$option ni {--keep --list --help -h} && $i + 1 >= [llength $argv]} {usage "$option needs a value"}
    switch -- $option {
        --single {lappend chosen [lindex $argv [incr i]]}
        --only {set ::only [lindex $argv [incr i]]}
        --server {set ::server_binary [lindex $argv [incr i]]}
        --module {set ::ocsp_module_path [file normalize [lindex $argv [incr i]]]}
        --work {set ::work [file normalize [lindex $argv [incr i]]]}
        --slot {set ::slot [lindex $argv [incr i]]}
        --worker {set worker_file [lindex $argv [incr i]]}
        -j {set ::jobs [lindex $argv [incr i]]}
        --silence {set ::silence_limit [lindex $argv [incr i]]}
        --keep {set ::keep 1}
        --list {set list_only 1}
        default {usage [expr {$option in {--help -h} ? {} : "unknown option $option"}]}
    }
}

if {$worker_file ne {}} {
    set ::workdir $::work
    run_suite $worker_file
}

if {$::server_binary eq {}} {
    foreach name {valkey-server redis-server} {
        if {[auto_execok $name] ne {}} {set ::server_binary [lindex [auto_execok $name] 0]; break}
    }
}
if {!$list_only} {
    if {$::server_binary eq {} || ![file executable $::server_binary]} {
        usage "no valkey-server found: run deps/install.sh, or name one with --server"
    }
    set ::server_binary [file normalize $::server_binary]
    if {![file exists $::ocsp_module_path]} {usage "there is no module at $::ocsp_module_path: run make first"}
}

set files {}
foreach name $chosen {
    set file [file join $::tests_dir unit [short $name].tcl]
    if {![file exists $file]} {usage "there is no suite $name"}
    lappend files $file
}
if {$files eq {}} {set files [lsort [glob -nocomplain [file join $::tests_dir unit *.tcl]]]}
set ::waiting [lsort -command heavier $files]
if {$list_only} {
    foreach file [lsort $files] {puts unit/[short $file]}
    exit 0
}

if {$::work eq {}} {
    set base [expr {[info exists ::env(TMPDIR)] ? $::env(TMPDIR) : "/tmp"}]
    set ::work [file normalize [file join $base valkey-ocsp-tests.[pid]]]
}
file mkdir $::work
# A copy, so that a build during the run does not replace the module under a running suite.
file copy -force $::ocsp_module_path [file join $::work valkey-ocsp.so]
set ::module_given $::ocsp_module_path
set ::ocsp_module_path [file join $::work valkey-ocsp.so]
set ::running {}
set ::suites [llength $::waiting]
set ::passed 0
set ::failed 0
set ::skipped 0
set ::failures {}
set ::printed [clock seconds]
fconfigure stdout -buffering line
puts "[exec $::server_binary --version]\nmodule: $::module_given\nlogs: $::work\n$::suites suites, $::jobs at once"
set begin [clock seconds]
after 1000 watch
start_next
if {![info exists ::finished]} {vwait ::finished}

puts "\n[clock format [expr {[clock seconds] - $begin}] -gmt 1 -format {took %M:%S}]"
if {$::failed > 0} {
    puts "\nFailed:\n[join $::failures \n]\n\nlogs are kept in $::work\n"
} elseif {!$::keep} {
    catch {file delete -force $::work}
}
puts "$::passed passed, $::failed failed[expr {$::skipped > 0 ? ", $::skipped skipped" : {}}]"
exit [expr {$::failed > 0 || $::passed == 0}]
