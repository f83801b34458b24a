#!/usr/bin/env tclsh
# run.tcl - `make test-matrix`: the Tcl suites against the packaged servers of three Debian releases, the Debian packages
# on them, and the C unit tests with each OpenSSL from 3.5 to 4, which no server of Debian uses yet.
#
#   tclsh tests/matrix/run.tcl [options]
#     --release NAME    only this release (may be given several times)
#     --server NAME     only this server, valkey-server or redis-server; no unit tests, no packages
#     -j N              number of roots or servers at once, by default 3
#     --suites "..."    options for tests/run.tcl, e.g. "--single unit/ocsp-links"; no unit tests, no packages
#     --packages        only the packages
#     --arch arm64      instead of all that: some suites and the C unit tests on arm64, which is emulated
#
# Makes the roots that are missing (tests/matrix/root), copies the tree, builds the module once, in the oldest root, and
# runs tests/run.tcl in each root against each server with that module. The C unit tests are built again in each root but
# the oldest, whose OpenSSL is that of `make test`, and run there. In the root of Debian's experimental suite a module with
# OpenSSL 4 is loaded into a server which uses OpenSSL 3. The Debian packages are built on this system, and tried with
# unit/ocsp-package on the releases that are not older: libraries of an older one may not do. The output of each job is in
# build/matrix/NAME.log; its /tmp, with the logs of failed suites, is build/matrix/NAME. A root that cannot be made, or a
# build or run that ends early, counts as a failure. Ends with a table and a line "N passed, M failed".
#
# With --arch arm64 (make test-matrix ARCH=arm64) the same sources are built for arm64 by Debian's cross compiler, and the
# C unit tests and the suites of $arm64_suites run against Debian's arm64 valkey-server in a root of that architecture,
# under qemu's emulation of a processor. An emulated processor does not reorder memory accesses as a real one may; for
# that, herd7 checks the slot's instructions in a second root (tests/model/run).
#
# The table is made from those logs, so a run of one server alone updates its row. When every server has been tested in
# full, the table is written into docs/tested-on.md, and the tables of clients into docs/clients.md. A run with --suites
# changes neither.
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

set project [file dirname [file dirname [file dirname [file normalize [info script]]]]]
set out [file join $project build matrix]
set tree [file join $out tree]
set root [file join $project tests matrix root]
if {[info exists env(MATRIX_ROOTS)]} {
    set roots $env(MATRIX_ROOTS)
} elseif {[info exists env(XDG_CACHE_HOME)]} {
    set roots $env(XDG_CACHE_HOME)/valkey-ocsp/roots
} else {
    set roots $env(HOME)/.cache/valkey-ocsp/roots
}
set roots [file normalize $roots]
set env(MATRIX_ROOTS) $roots

proc stop {sentence} {
    puts stderr "tests/matrix/run.tcl: $sentence"
    exit 2
}

# ---- options --------------------------------------------------------------------------------------------------------

set all_releases [exec sh $root list] ;# oldest first
set unit_releases [exec sh $root list-unit]
set all_servers {valkey-server redis-server}
set releases {}
set servers {}
set at_once 3
set suites {}
set only_packages 0
set arch {}
set arm64_suites {unit/tls-ocsp unit/ocsp-reload unit/ocsp-iothreads unit/ocsp-peers}
for {set i 0} {$i < [llength $argv]} {incr i} {
    set option [lindex $argv $i]
    if {$option eq "--packages"} {
        set only_packages 1
        continue
    }
    if {$option ni {--release --server -j --suites --arch} || $i + 1 >= [llength $argv]} {
        stop "there is no option $option, or its value is missing; see the head of this file"
    }
    set value [lindex $argv [incr i]]
    switch -- $option {
        --release {
            set known [concat $all_releases $unit_releases]
            if {$value ni $known} {stop "there is no release $value here: [join $known {, }]"}
            lappend releases $value
        }
        --server {
            if {$value ni $all_servers} {stop "there is no server $value here: [join $all_servers {, }]"}
            lappend servers $value
        }
        -j {set at_once $value}
        --arch {
            if {$value ne {arm64}} {stop "there is no architecture $value here: arm64"}
            set arch $value
        }
        --suites {set suites $value}
    }
}
if {$releases eq {}} {set releases [lsort -unique [concat $all_releases $unit_releases]]}
set units [lmap release $releases {expr {$release in $unit_releases ? $release : [continue]}}]
if {$servers ne {} || $suites ne {} || $only_packages} {set units {}}
set with_packages [expr {$servers eq {} && $suites eq {}}]
set releases [lmap release $all_releases {expr {$release in $releases ? $release : [continue]}}]
if {$servers eq {}} {set servers $all_servers}
if {$arch ne {}} {
    if {[exec dpkg --print-architecture] eq $arch} {stop "this system is $arch itself: leave ARCH out"}
    lassign [exec sh $root list-$arch] arch_root herd_root
    lassign {} releases units
    set with_packages 0
}
if {[exec id -u] != 0} {
    stop "this needs root, because it makes Debian systems with debootstrap and runs servers in them with chroot.\
        Run it as root: sudo make test-matrix"
}

# ---- jobs -----------------------------------------------------------------------------------------------------------

# name -> dict: command, after (names of jobs), state (waiting, running, good, bad), line (its result).
set jobs [dict create]
set times [dict create] ;# name -> seconds that it took last time
set began [clock seconds]

# Estimates for the very first run.
proc guess {name} {
    if {[dict exists $::times $name]} {return [dict get $::times $name]}
    switch -glob -- $name {
        root-* {return 120}
        build {return 15}
        default {return 150}
    }
}

proc job {name after command} {
    dict set ::jobs $name [dict create command $command after $after state waiting line {} began 0 left 0]
}

# A run of some suites has a log of its own.
proc log_of {name} {file join $::out $name[expr {$::suites ne {} ? ".part" : {}}].log}

proc in_root {release tree tmp args} {
    file mkdir $tmp
    return [list env NETWORK=no sh $::root enter $release $tree $tmp {*}$args]
}

# Copies the sources.
proc copy_tree {tree} {
    file delete -force $tree
    file mkdir $tree
    exec tar -C $::project --exclude=./build --exclude=./.git --exclude=*.so --exclude=*.o -cf - . | tar -C $tree -xf -
}

proc clock_of {seconds} {format %d:%02d [expr {$seconds / 60}] [expr {$seconds % 60}]}

# Returns the estimated seconds to the end, given how many jobs run at once.
proc time_left {} {
    set sum 0
    set longest 0
    dict for {name job} $::jobs {
        set seconds 0
        switch -- [dict get $job state] {
            waiting {set seconds [guess $name]}
            running {
                # The time of the last run or, once that is over, by the suites that are left: the long ones run first.
                set spent [expr {[clock seconds] - [dict get $job began]}]
                set seconds [expr {max([guess $name] - $spent, $spent * [dict get $job left] / 2, 5)}]
            }
        }
        incr sum [expr {int($seconds)}]
        set longest [expr {max($longest, int($seconds))}]
    }
    return [expr {max($sum / $::at_once, $longest)}]
}

proc progress {} {
    set done 0
    dict for {name job} $::jobs {incr done [expr {[dict get $job state] in {good bad}}]}
    return "\[[clock_of [expr {[clock seconds] - $::began}]], $done of [dict size $::jobs] done,\
        about [clock_of [time_left]] to go\]"
}

proc running {} {
    set names {}
    dict for {name job} $::jobs {if {[dict get $job state] eq "running"} {lappend names $name}}
    return $names
}

proc start_jobs {} {
    dict for {name job} $::jobs {
        if {[dict get $job state] ne "waiting"} continue
        set states [lmap needed [dict get $job after] {dict get $::jobs $needed state}]
        if {"bad" in $states} {
            dict set ::jobs $name state bad
            dict set ::jobs $name line "not run"
            puts "$name: not run, because what it needs has failed"
            # Other jobs may depend on this one.
            return [start_jobs]
        }
        if {"waiting" in $states || "running" in $states || [llength [running]] >= $::at_once} continue
        dict set ::jobs $name state running
        dict set ::jobs $name began [clock seconds]
        set log [open [log_of $name] w]
        fconfigure $log -buffering line
        puts "$name: begins  [progress]"
        # A job ends with this process at the latest.
        set channel [open |[list setpriv --pdeathsig KILL {*}[dict get $job command] </dev/null 2>@1] r]
        fconfigure $channel -blocking 0 -encoding utf-8
        fileevent $channel readable [list hear $name $channel $log]
    }
    if {[running] eq {}} {set ::finished 1}
}

proc hear {name channel log} {
    if {[gets $channel line] < 0} {
        if {![eof $channel]} return
        close $log
        fconfigure $channel -blocking 1
        set failed [catch {close $channel} why]
        job_ended $name [expr {!$failed}] $why
        return
    }
    puts $log $line
    if {[regexp {(\d+) of (\d+) suites left\]$} $line - left of]} {
        dict set ::jobs $name left [expr {double($left) / $of}]
    }
    switch -regexp -matchvar match -- $line {
        {^\d+ passed, \d+ failed} {dict set ::jobs $name line $line}
        {note: (.*)} {
            puts "$name: [lindex $match 1]"
        }
        {^  FAILED} - {^            } - {^  ----} {puts "$name:$line"}
    }
}

proc job_ended {name good why} {
    set took [expr {[clock seconds] - [dict get $::jobs $name began]}]
    # Skip roots that existed already, and runs of some suites only: they say nothing about the time of a full job.
    if {$good && $::suites eq {} && !([string match root-* $name] && $took < 5)} {dict set ::times $name $took}
    dict set ::jobs $name state [expr {$good ? "good" : "bad"}]
    set line [dict get $::jobs $name line]
    if {!$good && $line eq {}} {
        puts "$name: FAILED ($why). The end of [log_of $name]:"
        catch {puts [exec tail -n 15 [log_of $name]]}
    }
    puts "$name: [expr {$line ne {} ? $line : $good ? "done" : "FAILED"}]  [progress]"
    start_jobs
}

proc watch {} {
    puts "...  running: [join [running] {, }]  [progress]"
    after 30000 watch
}

# ---- the run --------------------------------------------------------------------------------------------------------

fconfigure stdout -buffering line
file mkdir $roots $out
# Only one run at a time: the roots and build/matrix are shared. The lock is released when this process ends.
set lock [open |[list flock --nonblock $roots/lock sh -c {echo locked; exec cat}] r+]
if {[gets $lock] ne "locked"} {stop "another run of the matrix is under way"}
catch {
    set channel [open $roots/times]
    set times [dict create {*}[read $channel]]
    close $channel
}

if {$arch eq {}} {copy_tree $tree}
set oldest [lindex $all_releases 0]
set needed [expr {$releases eq {} ? {} : $oldest}]
foreach release [lsort -unique [concat $needed $releases $units]] {
    job root-$release {} [list sh $root make $release]
}
if {$releases ne {}} {
    job build [list root-$oldest] [in_root $oldest $tree [file join $out build.tmp] make -C /src V=1 module client-library]
}
foreach release $releases {
    foreach server $servers {
        if {$only_packages} break
        set name $release-[string map {-server {}} $server]
        file delete -force [file join $out $name] [log_of $name]
        # The shell stays: as process 1 of its namespace it reaps orphans. So it does for the unit tests.
        job $name [list build root-$release] [in_root $release $tree [file join $out $name] sh -c {
            openssl version
            CLIENT_TABLE=/tmp/client-verdicts.md tclsh /src/tests/run.tcl --silence 600 --server "$0" "$@"
            exit $?
        } /usr/bin/$server {*}$suites]
    }
}
# The releases on which packages that are built here can be installed.
set here {}
catch {regexp -line {^VERSION_CODENAME=(\w+)} [exec cat /etc/os-release] - here}
set from [lsearch $all_releases $here]
if {$with_packages && $from < 0} {puts "packages: not tried, because this system is none of [join $all_releases {, }]"}
foreach release [expr {$with_packages && $from >= 0 ? $releases : {}}] {
    if {[lsearch $all_releases $release] < $from} continue
    if {![dict exists $jobs packages]} {
        job packages {} [list sh [file join $project utils packaging build-deb] [file join $out packages]]
    }
    foreach server $all_servers {
        job $release-[string map {-server {}} $server]-packages [list packages build root-$release] [list \
            env OCSP_PACKAGES=[file join $out packages] OCSP_PACKAGE_ROOT=[file join $roots $release] \
            OCSP_PACKAGE_SERVICE=$server tclsh [file join $project tests run.tcl] \
            --module [file join $tree src valkey-ocsp.so] --single unit/ocsp-package]
    }
}
foreach release $units {
    set own_tree [file join $out tree-$release]
    copy_tree $own_tree
    foreach {name after command} [list \
        $release-unit root-$release {openssl version && make -C /src unit} \
        $release-mixed $release-unit {make -C /src module && tclsh /src/tests/run.tcl \
            --server /usr/bin/valkey-server --single unit/ocsp-modules --only 'no-tls: a server and a module*'}] {
        if {$name eq "$release-mixed" && $release in $all_releases} continue
        file delete -force [file join $out $name] [log_of $name]
        job $name [list $after] [in_root $release $own_tree [file join $out $name] sh -c "$command; exit \$?"]
    }
}
if {$arch ne {}} {
    set own_tree [file join $out tree-$arch]
    copy_tree $own_tree
    set sysroot [file join $roots $arch_root]
    job root-$arch_root {} [list sh $root make $arch_root]
    job root-$herd_root {} [list sh $root make $herd_root]
    # -B: the root's libc rather than that of the cross compiler, which may be older than the root's OpenSSL demands.
    job build-$arch root-$arch_root [list make -C $own_tree V=1 \
        "CC=aarch64-linux-gnu-gcc --sysroot=$sysroot -B$sysroot/usr/lib/aarch64-linux-gnu/" \
        AR=aarch64-linux-gnu-ar LD=aarch64-linux-gnu-ld OBJCOPY=aarch64-linux-gnu-objcopy test-programs]
    set chosen [expr {$suites ne {} ? $suites : [concat {*}[lmap suite $arm64_suites {list --single $suite}]]}]
    # The factors are for two cores, with the jobs side by side; that of the unit tests also thins out test_alloc. Two
    # suites at once: an emulated server uses a core, where a native one mostly waits.
    foreach {name patience command arguments} [list \
        $arch_root-valkey 15 {tclsh /src/tests/run.tcl -j 2 --server /usr/bin/valkey-server "$@"} $chosen \
        $arch_root-unit 20 {cd /src && sh tests/all.sh unit build/test_* build/fuzz-replay} {}] {
        if {$suites ne {} && $name eq "$arch_root-unit"} continue
        file delete -force [file join $out $name] [log_of $name]
        job $name build-$arch [in_root $arch_root $own_tree [file join $out $name] sh -c "
            openssl version
            export OCSP_TEST_PATIENCE=$patience OCSP_TEST_EMULATED=yes
            $command
            exit \$?
        " sh {*}$arguments]
    }
    # Writes into its tree.
    job $herd_root-model [list root-$herd_root build-$arch] \
        [in_root $herd_root $own_tree [file join $out $herd_root] sh /src/tests/model/run herd7]
}
puts "roots: $roots, made from [exec sh $root mirror]\nlogs: $out"
after 30000 watch
start_jobs
if {![info exists finished]} {vwait finished}

set channel [open $roots/times w]
puts $channel $times
close $channel

# ---- results --------------------------------------------------------------------------------------------------------

set passed 0
set failed 0
dict for {name job} $jobs {
    set good [expr {[dict get $job state] eq "good"}]
    if {[scan [dict get $job line] {%d passed, %d failed} one two] == 2} {
        incr passed $one
        incr failed [expr {!$good && $two == 0 ? 1 : $two}]
    } elseif {!$good} {
        incr failed
        puts "$name FAILED: see [log_of $name]"
    }
}

# Returns a row of the table, or "" when that server was not tested in full.
proc row_of {release server} {
    set log [log_of $release-$server]
    if {[catch {open $log} channel]} return
    set text [read $channel]
    close $channel
    if {![regexp -line {^OpenSSL (\S+)} $text - openssl] || ![regexp -line {^(\w+) server v=(\S+)} $text - kind version]
        || ![regexp -line {^\d+ passed, \d+ failed.*} $text tests]} return
    # First with the server's own choice, then with every handshake on I/O threads where possible.
    set shares {}
    foreach {- share} [regexp -all -inline {(\d+ %) of the handshakes on I/O threads} $text] {lappend shares $share}
    return "| $release | $openssl | $kind $version | $tests | [join $shares {, }] |\
        [clock format [file mtime $log] -format %Y-%m-%d] |"
}

# Returns the row of a release whose unit tests were run, or "".
proc unit_row_of {release} {
    set log [log_of $release-unit]
    if {[catch {open $log} channel]} return
    set text [read $channel]
    close $channel
    if {![regexp -line {^OpenSSL (\S+)} $text - openssl] || ![regexp -line {^\d+ passed, \d+ failed.*} $text tests]} return
    set subject [expr {$release in $::all_releases ? "the" : "none uses it yet: the"}]
    return "| $release | $openssl | $subject C unit tests | $tests | |\
        [clock format [file mtime $log] -format %Y-%m-%d] |"
}

set table "| Debian | OpenSSL | server | tests | handshakes on I/O threads: by load, always | tried |\n"
append table "|---|---|---|---|---|---|\n"
set complete [expr {$suites eq {} && !$only_packages}]
foreach release $all_releases {
    foreach server $all_servers {
        set row [row_of $release [string map {-server {}} $server]]
        if {$row eq {}} {set complete 0} else {append table $row\n}
    }
}
foreach release $unit_releases {
    set row [unit_row_of $release]
    if {$row eq {}} {set complete 0} else {append table $row\n}
}

# Returns the row of the emulated arm64, or "".
proc arm64_row {} {
    set unit {}
    catch {regexp -line {^\d+ passed, \d+ failed.*} [exec cat [log_of $::arch_root-unit]] unit}
    set cells [split [row_of $::arch_root valkey] |]
    if {$unit eq {} || $cells eq {}} return
    lset cells 1 " [string map {- {, }} $::arch_root], emulated "
    lset cells 4 "[lindex $cells 4]in [llength $::arm64_suites] suites; C unit tests: $unit "
    return [join $cells |]
}

proc read_document {name} {
    set channel [open [file join $::project docs $name]]
    fconfigure $channel -encoding utf-8
    set document [read $channel]
    close $channel
    return $document
}

# Returns the positions of the first character between the comments that mark a place in a document and of the first one
# after it, or "".
proc marked {name document mark} {
    set begin "<!-- $mark: written by make test-matrix -->\n"
    set from [string first $begin $document]
    set to [string first "<!-- $mark: end -->" $document]
    if {$from < 0 || $to < $from} {
        puts "docs/$name has no place for the table \"$mark\": it is not written there"
        return
    }
    return [list [expr {$from + [string length $begin]}] $to]
}

# Replaces the text between the comments that mark its place in a file of docs/.
proc into_document {name mark text} {
    set document [read_document $name]
    set place [marked $name $document $mark]
    if {$place eq {}} return
    lassign $place from to
    set channel [open [file join $::project docs $name] w]
    fconfigure $channel -encoding utf-8
    puts -nonewline $channel [string range $document 0 $from-1]$text[string range $document $to end]
    close $channel
}

# Returns the lines of the table in docs/tested-on.md that are about arm64, or all others.
proc kept_lines {about_arm64} {
    set document [read_document tested-on.md]
    lassign [marked tested-on.md $document matrix] from to
    set kept {}
    foreach line [split [string trimright [string range $document $from $to-1] \n] \n] {
        if {[string match {|*, arm64, emulated |*} $line] == $about_arm64} {append kept $line\n}
    }
    return $kept
}

if {$arch ne {}} {
    set row [arm64_row]
    puts "\n$row"
    if {$suites eq {} && $row ne {}} {into_document tested-on.md matrix "[kept_lines 0]$row\n"}
} else {
    puts "\n$table"
    if {$complete} {
        into_document tested-on.md matrix "One module for all, built on Debian's $oldest:\n\n$table[kept_lines 1]"
        foreach file [glob -nocomplain [file join $out * client-verdicts.md]] {
            set channel [open $file]
            fconfigure $channel -encoding utf-8
            set text [string trim [read $channel]]
            close $channel
            into_document clients.md clients "Tried on [clock format [file mtime $file] -format %Y-%m-%d], $text\n\n"
        }
    }
}
puts "took [clock_of [expr {[clock seconds] - $began}]]"
puts "$passed passed, $failed failed"
exit [expr {$failed > 0 || $passed == 0}]
