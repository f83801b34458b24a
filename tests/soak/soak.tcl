#!/usr/bin/env tclsh
# soak.tcl - runs one server for a long time while everything happens at once. Its memory, file descriptors and threads
# must stay flat.
#
#   tclsh tests/soak/soak.tcl [--minutes 60] [--out build/soak] [--server PATH] [--module PATH]
#   tclsh tests/soak/soak.tcl --judge build/soak/soak.csv          evaluates and draws the record of an earlier run
#
# Handshakes of all kinds run without pause (support/tls_hammer.c, --mix), while certificates are reloaded, refreshes
# are forced, every directive is changed, BGSAVE, INFO and CONFIG REWRITE run, and the mock responder misbehaves.
# Again and again all of that stops: directives get their initial values, a refresh succeeds, and the server is
# measured at rest. soak.csv has a line for every other second and for each measurement at rest (rest is 1); soak.svg
# shows them.
#
# FLAT means, at rest: the numbers of file descriptors and threads are those of the first measurement; and the medians
# of the resident memory and of used_memory in the last quarter of the run are at most GROWTH above those of the
# second quarter. The first quarter is for warming up. The result says how large a leak would have been found.
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

set here [file dirname [file normalize [info script]]]
set tests [file dirname $here]

# How much the medians may differ, in kB: several times the difference without a leak, and a fraction of what a leak
# of a few bytes per handshake adds up to.
set GROWTH 512
# A run that would have missed a leak of so many bytes per handshake fails: it was too short.
set BLIND 64

# Only the runner's servers and helpers are used here: there are no tests to report.
foreach part {client assert server} {source [file join $tests runner $part.tcl]}
proc report {args} {}

set minutes 60
set out [file join [file dirname $tests] build soak]
set judge {}
set ::server_binary {}
set ::ocsp_module_path [file join [file dirname $tests] src valkey-ocsp.so]
foreach {option value} $argv {
    switch -- $option {
        --minutes {set minutes $value}
        --out {set out [file normalize $value]}
        --judge {set judge [file normalize $value]}
        --server {set ::server_binary [file normalize $value]}
        --module {set ::ocsp_module_path [file normalize $value]}
        default {
            puts stderr "soak: there is no option $option; the head of [info script] has them all"
            exit 2
        }
    }
}

# ---- evaluation -----------------------------------------------------------------------------------------------------

set columns {seconds rest rss_kb used_memory_kb fds threads handshakes resumed aborted stapled reloads refreshes flips
    saves}

proc read_csv {path} {
    set rows {}
    foreach line [lrange [split [string trim [read_text $path]] \n] 1 end] {
        set row {}
        foreach name $::columns value [split $line ,] {dict set row $name $value}
        lappend rows $row
    }
    return $rows
}

proc median {values} {
    set sorted [lsort -real $values]
    set n [llength $sorted]
    if {$n % 2} {return [lindex $sorted [expr {$n / 2}]]}
    return [expr {([lindex $sorted [expr {$n / 2 - 1}]] + [lindex $sorted [expr {$n / 2}]]) / 2.0}]
}

# Returns the values of a column at rest, in a quarter of the run, 1 to 4.
proc in_quarter {rows quarter end name} {
    set values {}
    foreach row $rows {
        if {![dict get $row rest]} continue
        set at [dict get $row seconds]
        if {$at > $end * ($quarter - 1) / 4.0 && $at <= $end * $quarter / 4.0} {lappend values [dict get $row $name]}
    }
    return $values
}

# Prints the figures, and returns sentences about what is not flat.
proc judge {path} {
    set rows [read_csv $path]
    set rests [lmap row $rows {if {![dict get $row rest]} continue; set row}]
    set end [dict get [lindex $rows end] seconds]
    set wrong {}
    foreach quarter {2 4} {
        if {[llength [in_quarter $rows $quarter $end rss_kb]] < 3} {
            return [list "the run was too short: it needs three measurements at rest in each quarter"]
        }
    }
    set first [lindex $rests 0]
    set last [lindex $rests end]
    puts [format {%d measurements at rest in %d:%02d minutes} [llength $rests] [expr {$end / 60}] [expr {$end % 60}]]
    foreach {name words} {fds {file descriptors} threads threads} {
        set seen [lsort -unique -integer [lmap row $rests {dict get $row $name}]]
        puts "$words at rest: [join $seen {, }]"
        if {[llength $seen] != 1} {lappend wrong "$words at rest are not the same all the time: [join $seen {, }]"}
    }
    foreach {name words} {rss_kb {resident memory} used_memory_kb used_memory} {
        set second [median [in_quarter $rows 2 $end $name]]
        set fourth [median [in_quarter $rows 4 $end $name]]
        set growth [expr {$fourth - $second}]
        puts [format {%s: first %d kB, last %d kB; median of the 2nd quarter %.0f kB, of the 4th %.0f kB: %+.0f kB} \
            $words [dict get $first $name] [dict get $last $name] $second $fourth $growth]
        if {$growth > $::GROWTH} {
            lappend wrong [format {%s grows: by %.0f kB from the second quarter to the last, and %d are allowed} \
                $words $growth $::GROWTH]
        }
        if {$name eq "rss_kb"} {set rss_growth $growth}
    }
    # From the middle of the second quarter to the middle of the last.
    foreach {name words} {handshakes handshake refreshes refresh reloads reload flips {flip of a directive}} {
        set n [expr {[median [in_quarter $rows 4 $end $name]] - [median [in_quarter $rows 2 $end $name]]}]
        if {$n <= 0} {
            lappend wrong "no $words between the quarters that are compared"
            continue
        }
        set bytes [expr {($::GROWTH - $rss_growth) * 1024.0 / $n}]
        lappend seen_from [format {%.1f bytes a %s} $bytes $words]
        if {$name eq "handshakes" && $bytes > $::BLIND} {
            lappend wrong "too little happened to distinguish a leak from noise: run it longer"
        }
        lappend totals "[dict get $last $name] $name"
    }
    if {[info exists totals]} {puts "in all: [join $totals {, }]"}
    if {[info exists totals] && $rss_growth < $::GROWTH} {
        puts "a leak would have been found from: [join $seen_from {, or }]"
    }
    return $wrong
}

proc draw {path} {
    set svg [file rootname $path].svg
    if {[auto_execok gnuplot] eq {}} {
        puts "gnuplot is not installed: no plot (sh deps/install.sh soak)"
        return
    }
    # Columns of the CSV are given by their numbers. The second one is 1 for measurements at rest.
    set script {
        set terminal svg size 1000,760 font "sans,13" background "white"
        set output "@SVG@"
        set datafile separator ","
        set style line 1 lc rgb "#c0c0c0"
        set style line 2 pt 7 ps 0.4 lc rgb "#c00000"
        set style line 3 pt 7 ps 0.4 lc rgb "#0050c0"
        set multiplot layout 3,1 title "Soak: one server under handshakes, reloads, refreshes, flips and saves"
        set key outside right
        set lmargin 12
        set rmargin 26
        set yrange [0:*]
        set ylabel "MB"
        plot "@CSV@" every ::1 using ($1/60):($3/1024) with lines ls 1 title "resident, busy", \
             "" every ::1 using ($2==1?$1/60:1/0):($3/1024) with points ls 2 title "resident, at rest", \
             "" every ::1 using ($2==1?$1/60:1/0):($4/1024) with points ls 3 title "used\\_memory, at rest"
        set ylabel "number"
        plot "@CSV@" every ::1 using ($1/60):5 with lines ls 1 title "descriptors, busy", \
             "" every ::1 using ($2==1?$1/60:1/0):5 with points ls 2 title "descriptors, at rest", \
             "" every ::1 using ($2==1?$1/60:1/0):6 with points ls 3 title "threads, at rest"
        set ylabel "thousands"
        set xlabel "minutes"
        plot "@CSV@" every ::1 using ($1/60):($7/1000) with lines lw 2 lc rgb "#408040" title "handshakes", \
             "" every ::1 using ($1/60):($12/1000) with lines lw 2 lc rgb "#c08000" title "refreshes", \
             "" every ::1 using ($1/60):($11/1000) with lines lw 2 lc rgb "#8040a0" title "reloads"
        unset multiplot
    }
    exec gnuplot << [string map [list @SVG@ $svg @CSV@ $path] $script]
    puts "plot: $svg"
}

# Prints the result; returns the exit status.
proc verdict {wrong} {
    foreach sentence $wrong {puts "FAILED: $sentence"}
    if {$wrong eq {}} {puts "flat"}
    return [expr {$wrong ne {}}]
}

if {$judge ne {}} {
    set wrong [judge $judge]
    draw $judge
    exit [verdict $wrong]
}

# ---- the server and the load ----------------------------------------------------------------------------------------

if {$::server_binary eq {}} {
    foreach name {valkey-server redis-server} {
        if {[auto_execok $name] ne {}} {set ::server_binary [lindex [auto_execok $name] 0]; break}
    }
}
if {$::server_binary eq {} || ![file exists $::ocsp_module_path]} {
    puts stderr "soak: there is no server or no module: run `sh deps/install.sh soak` and `make`, or use make soak"
    exit 2
}
set ::tls 1
set ::external 0
set ::verbose 0
set ::only {}
set ::keep 0
set ::slot 5
set ::curfile soak
set ::workdir [file join $out work]
file delete -force $::workdir
file mkdir $::workdir
# A copy, so that a build during the run does not replace the module under the server.
file copy -force $::ocsp_module_path [file join $::workdir valkey-ocsp.so]
set ::ocsp_module_path [file join $::workdir valkey-ocsp.so]
expr {srand([pid] + [clock clicks])}
fconfigure stdout -buffering line
source [file join $tests support ocsp_util.tcl]

proc pick {list} {lindex $list [randomInt [llength $list]]}

set lab [ocsp_lab]
set ca [dict get $lab ca]
set responder [dict get $lab responder]
set url [ocsp_responder_url $responder /]
set leaves [list [dict get $lab leaf] [ocsp_lab_leaf $lab rsa -key rsa] [ocsp_lab_leaf $lab second] \
    [ocsp_lab_leaf $lab must -must-staple 1]]
set home [lindex $leaves 0]
set caches {}
foreach name {a b} {
    lappend caches [file join $::workdir cache-$name]
    file mkdir [lindex $caches end]
}
set supplied [file join $::workdir supplied.der]
ocsp_response_file $supplied $home $ca {next 86400}
set hold [file join $::workdir hold]

# All presets of the responder except two: OpenSSL's verification, which the clients use, rejects responses about
# several CAs, whoever signed them; and a response from the future would remain the current one until its time has
# come.
set presets [lmap name [dict keys $::ocsp::responder::PRESETS] {
    if {$name in {several-cas future-200}} continue
    set name
}]
set baseline [list stapling yes refresh-margin 10% max-interval 0 retry-delay 10 timeout 5 responder-url {} \
    cache-dir [lindex $caches 0] response-file {}]
foreach name {reloads flips saves infos errors} {set did($name) 0}
set complaints {}
set counts {handshakes 0 resumed 0 aborted 0 stapled 0 failed 0 bad 0 busy 0 why -}

proc complain {sentence} {
    incr ::did(errors)
    if {[llength $::complaints] < 10} {
        lappend ::complaints $sentence
        puts "  !! $sentence"
    }
}

# Reads what tls_hammer has printed since the last call.
proc listen {} {
    while {[gets $::hammer line] >= 0} {
        foreach {- name value} [regexp -all -inline {(\w+)=(\d+)} $line] {dict set ::counts $name $value}
        regexp {why=(.*)} $line - why
        dict set ::counts why $why
    }
}

proc reload {leaf} {
    ocsp_load_certificate $leaf
    incr ::did(reloads)
}

proc flip {name value} {
    ocsp_set $name $value
    incr ::did(flips)
}

proc behave {behaviour} {
    ocsp_responder_behave $::responder $behaviour
    ocsp_responder_release $::responder
    # The log of requests is not used, and would fill the mock's memory.
    ocsp_responder_forget $::responder
}

# Sends many commands at once on a connection of their own, and reads the replies, whatever they are.
proc burst {count args} {
    set client [valkey_deferring_client]
    for {set i 0} {$i < $count} {incr i} {$client {*}$args}
    for {set i 0} {$i < $count} {incr i} {catch {$client read}}
    $client close
}

# Does one of the things that happen to a server, at random.
proc act {} {
    global responder caches leaves supplied url presets

    switch [randomInt 20] {
        0 - 1 - 2 {reload [pick $leaves]}
        3 {flip stapling no; after [randomInt 200]; flip stapling yes}
        4 {flip refresh-margin [randomRange 1 100]%; flip max-interval [pick {0 60 3600}]}
        5 {flip retry-delay [randomRange 1 30]}
        6 {flip timeout [randomRange 1 4]}
        7 {flip responder-url [pick [list {} $url http://127.0.0.1:1/ [ocsp_responder_url $responder /other]]]}
        8 {flip cache-dir [pick [list {*}$caches {} /nonexistent]]}
        9 {flip response-file [pick [list {} {} $supplied /nonexistent]]}
        10 {behave [pick $presets]}
        11 {behave revoked}
        12 - 13 {behave {next 86400 freeze 1}; burst 50 ocsp.refresh}
        14 - 15 {behave good; burst 10 ocsp.refresh}
        16 {catch {r debug ocsp-refresh}}
        17 {catch {r bgsave}; incr ::did(saves)}
        18 {r config rewrite}
        19 {burst 20 info ocsp; burst 3 info everything; incr ::did(infos) 23}
    }
}

proc process_field {pid name} {
    regexp "$name:\\s+(\\d+)" [read_text /proc/$pid/status] - value
    return $value
}

proc descriptors {pid} {llength [glob -nocomplain -tails -directory /proc/$pid/fd *]}

proc sample {rest} {
    global counts did csv began
    set pid [srv pid]
    listen
    set row [list [expr {([clock milliseconds] - $began) / 1000}] $rest [process_field $pid VmRSS] \
        [expr {[s used_memory] / 1024}] [descriptors $pid] [process_field $pid Threads]]
    foreach name {handshakes resumed aborted stapled} {lappend row [dict get $counts $name]}
    lappend row $did(reloads) [ocsp_info refreshes] $did(flips) $did(saves)
    puts $csv [join $row ,]
    flush $csv
    return $row
}

# Stops everything, restores the initial state and measures the server.
proc rest {} {
    global hold baseline home counts first_fds
    ocsp_file_write $hold {}
    behave good
    r config set {*}[concat {*}[lmap {name value} $baseline {list [ocsp_directive $name] $value}]]
    reload $home
    # After a revocation in this second, only a response of the next second is newer.
    for {set tries 0} {[catch {r ocsp.refresh} why]} {incr tries} {
        if {$tries > 200} {complain "at rest a refresh does not succeed: $why"; break}
        after 100
    }
    wait_for_condition 600 50 {[s rdb_bgsave_in_progress] eq 0} else {complain "BGSAVE does not end"}
    wait_for_condition 600 50 {[listen; dict get $counts busy] == 0} else {complain "handshakes do not end"}
    wait_for_condition 200 50 {[s connected_clients] == 1} else {complain "[s connected_clients] clients at rest"}
    catch {r memory purge}
    if {[info exists first_fds]} {
        wait_for_condition 200 50 {[descriptors [srv pid]] == $first_fds} else {
            complain "[descriptors [srv pid]] descriptors at rest, $first_fds at first"
        }
    } else {
        after 1000
        set first_fds [descriptors [srv pid]]
    }
    if {[ocsp_info state] ne "good"} {complain "at rest the state is [ocsp_info state]: [ocsp_situation]"}
    set row [sample 1]
    # Without any load the staple must be good.
    set staple [ocsp_staple]
    if {$staple ne "good"} {complain "at rest the staple is $staple ([ocsp_situation])"}
    file delete $hold
    return $row
}

lappend ::servers [start_server [ocsp_server $home $ca cache-dir [lindex $caches 0]]]
reconnect
r config set loglevel warning ;# hours of notices would fill the disk
for {set i 0} {$i < 1000} {incr i} {r set key:$i [string repeat x 100]}
set hammer [open |[list [ocsp_tool tls_hammer] --port [srv port] --ca [dict get $ca cert] --threads 4 --mix --pause 25 \
    --every 1 --hold $hold --until [file join $::workdir until]] r]
fconfigure $hammer -blocking 0
set csv_path [file join $out soak.csv]
set csv [open $csv_path w]
puts $csv [join $columns ,]
set began [clock milliseconds]
set end [expr {$began + int($minutes * 60000)}]
# Long phases of load would leave too few measurements at rest, short ones too little load in between.
set storm [expr {int(min(max($minutes * 500, 3000), 25000))}]
puts "[exec $::server_binary --version]\nsoak for $minutes minutes; server [srv pid], log [srv stdout]"
puts "record: $csv_path"

set told 0
set died 0
while {[clock milliseconds] < $end && !$died} {
    set broken [catch {
        set row [rest]
        set until [expr {[clock milliseconds] + $storm}]
        set sampled [clock milliseconds]
        while {[clock milliseconds] < $until} {
            act
            after [randomInt 150]
            if {[clock milliseconds] - $sampled > 2000} {
                sample 0
                set sampled [clock milliseconds]
            }
        }
    } why options]
    if {$broken} {complain "$why [lrange [split [dict get $options -errorinfo] \n] 1 6]"}
    set died [expr {![is_alive [srv pid]]}]
    if {$died} {complain "the server died"}
    # After an error, replies may be left on the connection.
    if {$broken && !$died} {catch {reconnect}}
    if {[clock milliseconds] - $told > 30000} {
        set told [clock milliseconds]
        listen
        puts [format "%5.1f of %s min, %d to go: %d kB, %s handshakes (%s resumed, %s broken off), %d reloads,\
            %s refreshes, %d flips, %d saves, %d complaints" [expr {($told - $began) / 60000.0}] \
            $minutes [expr {int(ceil(($end - $told) / 60000.0))}] [lindex $row 2] \
            [dict get $counts handshakes] [dict get $counts resumed] [dict get $counts aborted] $did(reloads) \
            [lindex $row 11] $did(flips) $did(saves) $did(errors)]
    }
}
if {!$died} {catch {rest}}
append_text [file join $::workdir until] {}
fconfigure $hammer -blocking 1
set line [string trim [read $hammer]]
catch {close $hammer}
puts "tls_hammer: [lindex [split $line \n] end]"
foreach {- name value} [regexp -all -inline {(\w+)=(\d+)} [lindex [split $line \n] end]] {dict set counts $name $value}
close $csv

set wrong $complaints
foreach {name words} {failed "handshakes failed" bad "staples did not verify"} {
    if {[dict get $counts $name] != 0} {lappend wrong "[dict get $counts $name] $words ([dict get $counts why])"}
}
set trouble [stop_server [pop_server]]
if {$trouble ne {}} {lappend wrong $trouble}
ocsp_lab_close $lab
stop_helpers
lappend wrong {*}[judge $csv_path]
draw $csv_path
if {$wrong eq {}} {file delete -force $::workdir}
exit [verdict $wrong]
