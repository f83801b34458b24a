#!/usr/bin/env tclsh
# run.tcl - measures the cost of stapling, and servers whose responder hangs: Valkey with and without the module,
# patched Valkey, Redis, nginx, HAProxy and Apache httpd on this machine. Run by `make bench`.
#
# usage: tclsh utils/bench/run.tcl [--quick] [--only PART,PART] [--merge] [--draw] [--list]
#        VALKEY_PATCHED=/path/to/valkey-server measures a patched server too
#   --only    measures only these parts; --list lists them
#   --merge   keeps the last run's results for all other parts. To repeat a part, or on a busy machine to measure parts
#             (except callback) with real-time priority: chrt -r 1 tclsh utils/bench/run.tcl --only ...
#   --draw    measures nothing: prints and plots the last run's results again
#
# Servers run on one core, the load on another, in alternating rounds. Results are medians of paired ratios with a 95 %
# interval that makes no assumption about the noise. If the interval contains 1, the result is "within the noise".
# Instructions are counted by callgrind, independent of noise. Output: build/bench/result.json, *.svg. The exit status
# does not depend on the figures, since they differ between machines. Servers listen on loopback.
#
# SPDX-License-Identifier: BSD-3-Clause

cd [file dirname [file dirname [file dirname [file normalize [info script]]]]]
set dir build/bench
foreach file {servers.tcl stats.tcl report.tcl} {source utils/bench/$file}

# The engine honors http_proxy, and a proxy cannot reach this machine's loopback interface.
set env(no_proxy) 127.0.0.1

# The parts, with the approximate seconds that each takes.
set parts {callback 45 instructions 70 commands 20 handshakes 100 chain 120 responder 125 ping 95 getset 170 starts 45
    first 35 requests 1}

set quick 0
set merge 0
set only ""
foreach word $argv {
    switch -glob -- $word {
        --quick {set quick 1}
        --merge {set merge 1}
        --draw {set merge 1; set only draw}
        --only {set only next}
        --list {
            puts [dict keys $parts]
            exit 0
        }
        default {
            if {$only ne "next"} {
                puts stderr "bench: unknown option $word; see the head of utils/bench/run.tcl."
                exit 1
            }
            set only [split $word ,]
        }
    }
}
foreach part $only {
    if {![dict exists $parts $part] && $part ne "draw"} {
        puts stderr "bench: there is no part \"$part\": the parts are [join [dict keys $parts] {, }]."
        exit 1
    }
}
if {$only eq ""} {set only [dict keys $parts]}

# Selects a number of rounds: for the full run, or for --quick.
proc rounds {full short} {return [expr {$::quick ? $short : $full}]}

# ---- progress -------------------------------------------------------------------------------------------------------

set expected 0
dict for {part seconds} $parts {if {$part in $only} {incr expected $seconds}}
set done_seconds 0
set part_began 0
set began [clock seconds]
set last_line 0

proc minutes {seconds} {format %d:%02d [expr {int($seconds) / 60}] [expr {int($seconds) % 60}]}

# Reports a part's progress (0 to 1). The estimate increasingly relies on this run's own speed.
proc progress {part fraction what} {
    set now [clock seconds]
    if {$fraction > 0 && $fraction < 1 && $now - $::last_line < 5} return
    set ::last_line $now
    set scale [expr {$::quick ? 0.22 : 1.0}]
    set behind [expr {($::done_seconds + $fraction * [dict get $::parts $part]) * $scale}]
    set pace [expr {$behind > 10 ? ($now - $::began) / $behind : 1.0}]
    set left [expr {max(0, $::expected * $scale - $behind) * $pace}]
    puts [format "%6s gone, about %s to go: %s, %s" [minutes [expr {$now - $::began}]] [minutes $left] $part $what]
    flush stdout
}

proc rotate {list by} {
    set by [expr {$by % max(1, [llength $list])}]
    return [concat [lrange $list $by end] [lrange $list 0 $by-1]]
}

# ---- the load -------------------------------------------------------------------------------------------------------

# Runs a measuring program while the event loop runs the periodic commands. Returns the program's output lines.
proc load {args} {
    set pipe [open |[concat $::load_core [file normalize build/bench_load] $args 2>@1]]
    fconfigure $pipe -blocking 0
    set ::load_output ""
    fileevent $pipe readable [list loadRead $pipe]
    vwait ::load_done
    fconfigure $pipe -blocking 1
    if {[catch {close $pipe}]} {error "bench_load $args: [string range $::load_output 0 300]"}
    return [split [string trim $::load_output] \n]
}

proc loadRead {pipe} {
    append ::load_output [read $pipe]
    if {[eof $pipe]} {
        fileevent $pipe readable {}
        set ::load_done 1
    }
}

proc shakesOf {lines letter} {
    set list {}
    foreach line $lines {
        lassign $line word which us
        if {$word eq "shake" && $which eq $letter} {lappend list $us}
    }
    return $list
}

proc stapledOf {lines letter} {
    set sum 0
    foreach line $lines {
        if {[lindex $line 0] eq "block" && [lindex $line 1] eq $letter} {incr sum [lindex $line 4]}
    }
    return $sum
}

proc failedOf {lines} {
    set sum 0
    foreach line $lines {if {[lindex $line 0] eq "block"} {incr sum [lindex $line 5]}}
    return $sum
}

# Returns a server's CPU time in nanoseconds, as counted by the scheduler.
proc cpuNs {server} {
    set sum 0
    foreach file [glob -nocomplain /proc/[dict get $server pid]/task/*/schedstat] {
        catch {incr sum [lindex [readFile $file] 0]}
    }
    return $sum
}

# ---- results --------------------------------------------------------------------------------------------------------

set results {} ;# part -> list of flat dicts, in the order of the JSON

proc record {part args} {dict lappend ::results $part $args}

# Returns the records of a part with these values of its keys.
proc found {part args} {
    set list {}
    if {![dict exists $::results $part]} {return {}}
    foreach record [dict get $::results $part] {
        set ok 1
        foreach {key value} $args {if {![dict exists $record $key] || [dict get $record $key] ne $value} {set ok 0}}
        if {$ok} {lappend list $record}
    }
    return $list
}

proc stapling {} {
    return [concat module [expr {[info exists ::env(VALKEY_PATCHED)] ? "patched" : ""}] redis-module nginx haproxy apache]
}

# ---- the callback alone ---------------------------------------------------------------------------------------------

proc part_callback {} {
    set rounds [rounds 5 1]
    set pipe [open |[list build/bench_callback --bytes [file size $::staple(ec)] --millis [rounds 150 60] \
        --rounds $rounds]]
    set seen 0
    while {[gets $pipe line] >= 0} {
        lassign $line - name readers writer read_ns per_second waits writes p50 p99 max
        foreach value {read_ns per_second waits writes p50 p99 max} {
            lappend all($name,$readers,$writer,$value) [set $value]
        }
        progress callback [expr {[incr seen] / (56.0 * $rounds)}] "$readers readers"
    }
    close $pipe
    foreach name {callback malloc minimal slot mutex rwlock refcount} {
        foreach readers {1 2 4 8} {
            foreach writer {0 1} {
                set key $name,$readers,$writer
                record callback way $name readers $readers writer $writer read_ns [median $all($key,read_ns)] \
                    reads_per_second [median $all($key,per_second)] waits_per_million [median $all($key,waits)] \
                    writes [median $all($key,writes)] write_p50_ns [median $all($key,p50)] \
                    write_p99_ns [median $all($key,p99)] write_max_ns [percentile $all($key,max) 100]
            }
        }
    }
}

# ---- instructions ---------------------------------------------------------------------------------------------------

# Returns the counts of a callgrind dump: total, `ours` (inside the module's file), and inclusive `callback` (the status
# callback) and `parse` (OpenSSL's parse of responses).
proc readCounts {file} {
    set total 0
    set ours 0
    set callback 0
    set parse 0
    set calls 0
    set skip 0
    set object ""
    set callee ""
    array set names {}
    set f [open $file]
    while {[gets $f line] >= 0} {
        switch -glob -- $line {
            summary:* {set total [lindex $line 1]}
            ob=* - cfn=* {
                regexp {^(ob|cfn)=(\([0-9]+\)) ?(.*)$} $line -> kind id name
                set kind [string map {cfn fn} $kind]
                if {$name ne ""} {set names($kind$id) $name}
                if {$kind eq "ob"} {set object $names($kind$id)} else {set callee $names($kind$id)}
            }
            fn=* {
                if {[regexp {^fn=(\([0-9]+\)) (.+)$} $line -> id name]} {set names(fn$id) $name}
            }
            cob=* {
                if {[regexp {^cob=(\([0-9]+\)) (.+)$} $line -> id name]} {set names(ob$id) $name}
            }
            calls=* {
                set skip 1
                scan $line calls=%d count
            }
            {[-+*0-9]*} {
                set cost [lindex $line 1]
                if {$skip} {
                    if {$callee in {ocspStatusCallback ocspLateStatusCallback staple}} {
                        incr callback $cost
                        incr calls $count
                    } elseif {$callee eq "d2i_OCSP_RESPONSE"} {
                        incr parse $cost
                    }
                } elseif {[string match *valkey-ocsp.so $object]} {
                    incr ours $cost
                }
                set skip 0
            }
        }
    }
    close $f
    return [dict create total $total ours $ours callback $callback parse $parse calls $calls]
}

proc callgrind {out args} {
    return [list valgrind --tool=callgrind --callgrind-out-file=$out {*}$args]
}

# Counts a server's instructions while a script runs.
proc countWhile {server out script} {
    exec callgrind_control --zero [dict get $server pid] >/dev/null 2>@1
    uplevel 1 $script
    foreach old [glob -nocomplain $out.*] {file delete $old}
    exec callgrind_control --dump [dict get $server pid] >/dev/null 2>@1
    waitUntil 20 {llength [glob -nocomplain $out.*]} "callgrind wrote no counts"
    set counts [readCounts [lindex [glob $out.*] 0]]
    return $counts
}

# Counts instructions per handshake, only inside SSL_do_handshake, to exclude the server's timers. The median of several
# dumps, because signing takes a different path each time.
proc countHandshakes {server out tls ask shakes} {
    set totals {}
    for {set i 0} {$i < 3} {incr i} {
        set counts [countWhile $server $out {
            load shake --port [dict get $server port] --tls $tls --ask $ask --pairs $shakes
        }]
        lappend totals [expr {[dict get $counts total] / double($shakes)}]
    }
    dict set counts total [median $totals]
    foreach what {ours callback parse} {dict set counts $what [expr {[dict get $counts $what] / double($shakes)}]}
    return $counts
}

proc part_instructions {} {
    set shakes [rounds 25 15]
    set jobs {module ec minimal ec nginx ec haproxy ec module rsa minimal rsa}
    if {[info exists ::env(VALKEY_PATCHED)]} {set jobs [linsert $jobs 2 patched ec]}
    if {$::quick} {set jobs {module ec minimal ec}}
    set steps [expr {[llength $jobs] / 2.0}]
    set step 0
    foreach {kind key} $jobs {
        progress instructions [expr {$step / $steps}] "handshakes of $kind under callgrind, $key"
        set out [file normalize $::dir/callgrind-$kind-$key]
        set server [startServer $kind -key $key -url [goodUrl $key] \
            -run [callgrind $out --toggle-collect=SSL_do_handshake]]
        # The first handshakes include lazy loading, and nginx's fetch.
        if {$kind in {module patched}} {waitStapling $server}
        foreach tls [expr {$::quick || $kind in {nginx haproxy} ? "1.3" : "1.3 1.2"}] {
            load shake --port [dict get $server port] --tls $tls --ask both --pairs 8
            set plain [countHandshakes $server $out $tls no $shakes]
            set asked [countHandshakes $server $out $tls yes $shakes]
            record instructions server $kind key $key tls $tls not_asked [dict get $plain total] \
                asked [dict get $asked total] callback [dict get $asked callback] ours [dict get $asked ours]
        }
        stopServer $server
        incr step
    }
}

# Counts all instructions for a GET or SET of one client with one event loop iteration each: the worst case.
proc part_commands {} {
    set step 0
    foreach kind {valkey empty module} {
        progress commands [expr {$step / 3.0}] $kind
        set out [file normalize $::dir/callgrind-$kind-commands]
        set server [startServer $kind -url [goodUrl ec] -run [callgrind $out] -set {hz 1}]
        if {$kind eq "module"} {waitStapling $server}
        foreach test {get set} {
            set bench [list valkey-benchmark -h 127.0.0.1 -p [dict get $server plain] -c 1 -t $test --csv -q]
            exec {*}$bench -n 500 2>@1
            set totals {}
            for {set i 0} {$i < 3} {incr i} {
                set counts [countWhile $server $out {exec {*}$::load_core {*}$bench -n 2000 2>@1}]
                lappend totals [expr {[dict get $counts total] / 2000.0}]
            }
            record commands server $kind command $test per_command [median $totals] \
                ours [expr {[dict get $counts ours] / 2000.0}]
        }
        unlink $server
        stopServer $server
        incr step
    }
}

# ---- handshakes with and without a status request -------------------------------------------------------------------

# Adds the pairs of blocks in the load's output to the array `pairs`: block a against block n.
proc addPairs {pairs index lines size} {
    upvar 1 $pairs all
    foreach {a n} $lines {
        if {[lindex $a 1] eq "n"} {lassign [list $a $n] n a}
        lappend all($index,ratio) [expr {[lindex $n 2] / [lindex $a 2]}]
        lappend all($index,cpu_ratio) [expr {double([lindex $n 3]) / max(1, [lindex $a 3])}]
        lappend all($index,per_second) [expr {$size / [lindex $a 2] * 1e6}]
        lappend all($index,cpu_us) [expr {[lindex $a 3] / $size}]
    }
}

# Returns the medians, and the intervals of the ratios, as names and values for `record`.
proc pairResults {pairs index} {
    upvar 1 $pairs all
    lassign [signInterval $all($index,ratio)] low high
    lassign [signInterval $all($index,cpu_ratio)] cpu_low cpu_high
    return [list pairs [llength $all($index,ratio)] ratio [median $all($index,ratio)] low $low high $high \
        cpu_ratio [median $all($index,cpu_ratio)] cpu_low $cpu_low cpu_high $cpu_high \
        per_second [median $all($index,per_second)] cpu_us [median $all($index,cpu_us)]]
}

proc part_handshakes {} {
    set kinds [concat valkey [stapling]]
    set rounds [rounds 10 3]
    set latency_pairs [rounds 150 60]
    set keys [expr {$::quick ? "ec" : "ec rsa"}]
    set steps [expr {$rounds * [llength $keys] * 1.0}]
    set step 0
    foreach key $keys {
        set servers {}
        foreach kind $kinds {
            dict set servers $kind [startServer $kind -key $key -url [goodUrl $key]]
            # Every server has fetched before the first round.
            load shake --port [dict get $servers $kind port] --ask yes --pairs 5
            dict set pids $kind [join [serverPids [dict get $servers $kind]] ,]
        }
        foreach kind {module patched redis-module} {
            if {[dict exists $servers $kind]} {waitStapling [dict get $servers $kind]}
        }
        for {set round 0} {$round < $rounds} {incr round} {
            progress handshakes [expr {$step / $steps}] "$key, round [expr {$round + 1}] of $rounds"
            foreach kind [rotate $kinds $round] {
                set port [dict get $servers $kind port]
                foreach tls [expr {$::quick ? "1.3" : "1.3 1.2"}] {
                    set size [expr {$key eq "ec" ? 24 : 12}]
                    set lines [load shake --port $port --tls $tls --threads 2 --block $size --pairs 10 --warm 4 \
                        --pids [dict get $pids $kind]]
                    incr failed($kind,$key,$tls) [failedOf $lines]
                    incr stapled($kind,$key,$tls) [stapledOf $lines a]
                    incr asked($kind,$key,$tls) [expr {10 * $size}]
                    addPairs pairs $kind,$key,$tls $lines $size
                }
                if {$key eq "ec"} {
                    set lines [load shake --port $port --tls 1.3 --each --pairs $latency_pairs --warm 8]
                    lappend latency($kind,a) [shakesOf $lines a]
                    lappend latency($kind,n) [shakesOf $lines n]
                }
            }
            incr step
        }
        foreach kind $kinds {stopServer [dict get $servers $kind]}
    }
    set indexes {}
    foreach kind $kinds {foreach key $keys {lappend indexes {*}[lsort [array names stapled $kind,$key,*]]}}
    foreach index $indexes {
        lassign [split $index ,] kind key tls
        record handshakes server $kind key $key tls $tls {*}[pairResults pairs $index] stapled $stapled($index) \
            asked $asked($index) failed $failed($index)
    }
    foreach kind $kinds {
        foreach letter {a n} {
            set all [concat {*}$latency($kind,$letter)]
            record latency server $kind asked [expr {$letter eq "a"}] count [llength $all] p50 [percentile $all 50] \
                p99 [percentile $all 99] p999 [percentile $all 99.9] max [percentile $all 100]
        }
    }
}

# ---- a response for each certificate of the chain -------------------------------------------------------------------

# Starts a server that serves `count` intermediate CAs and waits for its responses. Returns "" if its OpenSSL cannot
# staple for them.
proc startChain {count staple_chain args} {
    set server [startServer module -key chain$count -set [list ocsp.staple-chain $staple_chain] {*}$args]
    waitStapling $server
    if {!$staple_chain} {return $server}
    set why [infoField $server ocsp ocsp_chain_last_error]
    if {[string match "*cannot staple a chain*" $why]} {
        puts "chain: left out: $why"
        endServers [list module $server]
        return
    }
    waitUntil 20 {expr {[infoField $server ocsp ocsp_chain_good] == $count}} \
        "no response for the chain: see [dict get $server dir]"
    return $server
}

# Returns the number of handshakes in which the server has stapled for the chain.
proc chainStapled {server} {infoField $server ocsp ocsp_handshakes_chain_stapled}

# Servers with staple-chain yes against servers with no: both send the same certificates, and staple for the leaf.
proc part_chain {} {
    set rounds [rounds 20 4]
    set counts {1 2}
    foreach count $counts {bench_chain $count}
    set servers {}
    for {set round 0} {$round < $rounds} {incr round} {
        # As for GET and SET: two processes differ by their memory layout.
        if {$round % 4 == 0} {
            endServers $servers
            set servers {}
            foreach count $counts {
                foreach staple_chain [rotate {yes no} [expr {$round / 4}]] {
                    set server [startChain $count $staple_chain]
                    if {$server eq ""} {
                        endServers $servers
                        incr ::expected -[dict get $::parts chain]
                        dict set ::parts chain 0
                        return
                    }
                    dict set servers $count,$staple_chain $server
                }
            }
        }
        progress chain [expr {0.6 * $round / $rounds}] "round [expr {$round + 1}] of $rounds"
        foreach count [rotate $counts $round] {
            foreach staple_chain {yes no} {
                set server [dict get $servers $count,$staple_chain]
                set port($staple_chain) [dict get $server port]
                set pid($staple_chain) [dict get $server pid]
            }
            foreach asked {yes no} {
                set before [chainStapled [dict get $servers $count,yes]]
                set lines [load shake --port $port(yes) --against $port(no) {*}[expr {$asked ? "" : "--unasked"}] \
                    --threads 2 --block 24 --pairs 10 --warm 4 --pids $pid(yes),$pid(no)]
                incr failed($count,$asked) [failedOf $lines]
                # Without the two of the warming that were that server's.
                incr stapled($count,$asked) \
                    [expr {[chainStapled [dict get $servers $count,yes]] - $before - ($asked ? 2 : 0)}]
                addPairs pairs $count,$asked $lines 24
            }
        }
    }
    endServers $servers
    foreach count $counts {
        foreach asked {yes no} {
            record chain intermediates $count asked $asked {*}[pairResults pairs $count,$asked] \
                stapled $stapled($count,$asked) handshakes [expr {$rounds * 240}] failed $failed($count,$asked)
        }
    }
    set step 0
    foreach count $counts {
        foreach staple_chain {no yes} {
            progress chain [expr {0.6 + 0.1 * $step}] "under callgrind, intermediate CAs: $count, staple-chain $staple_chain"
            incr step
            set out [file normalize $::dir/callgrind-chain$count-$staple_chain]
            set server [startChain $count $staple_chain -run [callgrind $out --toggle-collect=SSL_do_handshake]]
            load shake --port [dict get $server port] --ask both --pairs 8
            foreach asked {no yes} {
                set found [countHandshakes $server $out 1.3 $asked [rounds 25 15]]
                record chain_instructions intermediates $count staple_chain $staple_chain asked $asked {*}$found
            }
            endServers [list module $server]
        }
    }
}

# ---- a responder that is healthy, hangs, is down --------------------------------------------------------------------

proc part_responder {} {
    set rounds [rounds 24 5]
    set shakes [rounds 150 60]
    set down http://127.0.0.1:[freePort]/
    # The cache that the servers with this engine start with.
    set cache [file normalize $::dir/cache]
    file mkdir $cache
    set server [startServer module -url [goodUrl ec] -cache $cache]
    waitStapling $server
    waitUntil 10 {llength [glob -nocomplain $cache/ocsp-*.der]} "nothing was kept on disk"
    stopServer $server

    set names {"valkey healthy"}
    dict set servers "valkey healthy" [startServer valkey]
    foreach kind [stapling] {
        foreach state [expr {$kind eq "haproxy" ? "healthy" : "healthy hung down"}] {
            set url [dict get [list healthy [goodUrl ec] hung [hangUrl $kind] down $down] $state]
            set warm [expr {$state ne "healthy" && $kind in {module patched redis-module} ? $cache : ""}]
            if {$warm ne ""} {
                file copy $cache $::dir/cache-$kind-$state
                set warm $::dir/cache-$kind-$state
            }
            lappend names "$kind $state"
            dict set servers "$kind $state" [startServer $kind -url $url -cache $warm]
        }
    }
    foreach name $names {
        set stapled($name) 0
        set hung($name) 0
    }
    for {set round 0} {$round < $rounds} {incr round} {
        progress responder [expr {double($round) / $rounds}] "round [expr {$round + 1}] of $rounds"
        foreach name [rotate $names $round] {
            set server [dict get $servers $name]
            lassign $name kind state
            # Servers with this engine hang in a fetch during the round; the others query when a client connects.
            if {$state eq "hung"} {hangServer $server}
            set lines [load shake --port [dict get $server port] --ask yes --each --pairs $shakes --warm 8]
            lappend took($name) [shakesOf $lines a]
            incr stapled($name) [stapledOf $lines a]
            if {$state eq "hung" && [isHanging $server]} {incr hung($name)}
        }
        # This engine, compared with a healthy server connection by connection, so that noise affects both.
        foreach name $names {
            lassign $name kind state
            if {$state eq "healthy" || $kind ni {module patched redis-module}} continue
            if {$state eq "hung"} {hangServer [dict get $servers $name]}
            set lines [load shake --port [dict get $servers $name port] --each --pairs $shakes --warm 16 \
                --against [dict get $servers [list $kind healthy] port]]
            lappend ill($name) [shakesOf $lines a]
            lappend well($name) [shakesOf $lines n]
        }
    }
    foreach name $names {
        lassign $name kind state
        set all [concat {*}$took($name)]
        record responder server $kind state $state count [expr {$rounds * $shakes}] stapled $stapled($name) \
            p50 [percentile $all 50] p99 [percentile $all 99] p999 [percentile $all 99.9] max [percentile $all 100] \
            rounds $rounds hung $hung($name)
        if {$state eq "healthy" || $kind ni {module patched redis-module}} continue
        lassign [bootstrapRatio $ill($name) $well($name) 99] ratio low high
        lassign [bootstrapRatio $ill($name) $well($name) 50] ratio50 low50 high50
        record responder_ratio server $kind state $state p99_ratio $ratio low $low high $high p50_ratio $ratio50 \
            p50_low $low50 p50_high $high50
    }
    foreach name $names {stopServer [dict get $servers $name]}
}

# ---- PINGs of busy clients ------------------------------------------------------------------------------------------

# Repeats a command on a server while the load measures.
proc repeat {server command} {
    if {!$::repeating} return
    if {[catch {ask $server {*}$command} why] && $::repeat_error eq ""} {set ::repeat_error $why}
    incr ::repeated
    after 50 [list repeat $server $command]
}

# Signs enough newer responses in advance that each refresh publishes and stores one.
proc newerResponses {count path} {
    for {set i 0} {$i < $count} {incr i} {
        set file [file normalize $::dir/pki/newer-$i.der]
        if {![file exists $file]} {
            ocsp_response_file $file $::leaf(ec) $::ca [list this [expr {$i - 86400}] next +604800]
        }
        ocsp_responder_queue $::responder 1 [list body [list file $file]] $path
    }
    ocsp_responder_behave $::responder [list body [list file $file]] /never
}

proc part_ping {} {
    set rounds [rounds 24 4]
    set millis [rounds 500 300]
    progress ping 0 "signing responses"
    set newer [expr {int($rounds * $millis / 50 * 1.3) + 20}]
    foreach path {/newer-refresh /newer-disk} {newerResponses $newer $path}
    dict set servers without [startServer valkey]
    foreach {name url} [list quiet [goodUrl ec] refresh [ocsp_responder_url $::responder /newer-refresh] \
            hung [hangUrl ping] disk [ocsp_responder_url $::responder /newer-disk]] {
        set environment {}
        if {$name eq "disk"} {
            set environment [list LD_PRELOAD [file normalize build/bench_bad_disk.so]]
        }
        dict set servers $name [startServer module -url $url -env $environment]
        if {$name ne "hung"} {waitStapling [dict get $servers $name]}
    }
    set reload [list CONFIG SET tls-cert-file [dict get $::leaf(ec) cert]]
    # condition, its server, the command that is repeated
    set conditions [list without without {} quiet quiet {} refresh refresh OCSP.REFRESH hung hung {} disk disk \
        OCSP.REFRESH reload quiet $reload "reload without" without $reload]
    set names {}
    foreach {name - -} $conditions {
        lappend names $name
        set hung($name) 0
        set repeats($name) 0
    }
    for {set round 0} {$round < $rounds} {incr round} {
        progress ping [expr {double($round) / $rounds}] "round [expr {$round + 1}] of $rounds"
        foreach name [rotate $names $round] {
            set at [lsearch -exact [lmap {a - -} $conditions {set a}] $name]
            set server [dict get $servers [lindex $conditions [expr {$at * 3 + 1}]]]
            set command [lindex $conditions [expr {$at * 3 + 2}]]
            if {$name eq "hung"} {hangServer $server}
            set ::repeating [expr {$command ne ""}]
            set ::repeated 0
            set ::repeat_error ""
            if {$::repeating} {after 5 [list repeat $server $command]}
            lassign [lindex [load ping --port [dict get $server port] --millis $millis] end] - count p50 p99 p999 max
            set ::repeating 0
            if {$::repeat_error ne ""} {error "$command: $::repeat_error"}
            incr repeats($name) $::repeated
            foreach value {count p50 p99 p999 max} {lappend all($name,$value) [set $value]}
            if {$name eq "hung" && [isHanging $server]} {incr hung($name)}
            after 60 {set ::tick 1}
            vwait ::tick
        }
    }
    foreach name $names {
        set base [expr {$name eq "reload" ? "reload without" : $name in {quiet "reload without"} ? "without" : "quiet"}]
        foreach value {p50 p99} {
            set ratios [lmap a $all($name,$value) b $all($base,$value) {expr {$a / $b}}]
            set ratio($value) [median $ratios]
            lassign [signInterval $ratios] low($value) high($value)
        }
        record ping condition $name rounds $rounds pings [expr {int([::tcl::mathop::+ {*}$all($name,count)])}] \
            p50 [median $all($name,p50)] p99 [median $all($name,p99)] p999 [median $all($name,p999)] \
            max [percentile $all($name,max) 100] against $base \
            p50_ratio $ratio(p50) p50_low $low(p50) p50_high $high(p50) \
            p99_ratio $ratio(p99) p99_low $low(p99) p99_high $high(p99) done $repeats($name) hung $hung($name)
    }
    foreach name {refresh disk} {
        set server [dict get $servers $name]
        record ping_check condition $name refreshes [infoField $server ocsp ocsp_refreshes] \
            failures [infoField $server ocsp ocsp_refresh_failures] \
            files [llength [glob -nocomplain [dict get $server dir]/ocsp-*.der]]
    }
    dict for {name server} $servers {
        unlink $server
        stopServer $server
    }
}

# ---- GET and SET ----------------------------------------------------------------------------------------------------

proc endServers {servers} {
    dict for {kind server} $servers {
        unlink $server
        stopServer $server
    }
}

proc part_getset {} {
    set rounds [rounds 60 5]
    set servers {}
    for {set round 0} {$round < $rounds} {incr round} {
        # Two processes of one program differ by their memory layout, so restart both now and then.
        if {$round % 10 == 0} {
            endServers $servers
            foreach kind [rotate {valkey module} [expr {$round / 10}]] {
                dict set servers $kind [startServer $kind -url [goodUrl ec]]
            }
            waitStapling [dict get $servers module]
        }
        progress getset [expr {double($round) / $rounds}] "round [expr {$round + 1}] of $rounds"
        foreach way {plain tls} {
            foreach test {get set} {
                foreach kind [rotate {valkey module} $round] {
                    set server [dict get $servers $kind]
                    set command [list valkey-benchmark -h 127.0.0.1 -t $test -n 30000 -c 50 -d 64 --csv -p]
                    if {$way eq "plain"} {
                        lappend command [dict get $server plain]
                    } else {
                        lappend command [dict get $server port] --tls --cacert [dict get $::ca cert]
                    }
                    set cpu [cpuNs $server]
                    set csv [exec {*}$::load_core {*}$command 2>@1]
                    set cpu [expr {[cpuNs $server] - $cpu}]
                    if {![regexp -line -nocase "^\"$test\",\"(\[0-9.\]+)\"" $csv -> rps]} {
                        error "valkey-benchmark said: $csv"
                    }
                    lappend all($way,$test,$kind,rps) $rps
                    lappend all($way,$test,$kind,cpu) [expr {$cpu / 30000.0}]
                }
            }
        }
    }
    foreach way {plain tls} {
        foreach test {get set} {
            set key $way,$test
            set ratios [lmap a $all($key,module,rps) b $all($key,valkey,rps) {expr {$a / $b}}]
            set cpu_ratios [lmap a $all($key,module,cpu) b $all($key,valkey,cpu) {expr {$b / $a}}]
            lassign [signInterval $ratios] low high
            lassign [signInterval $cpu_ratios] cpu_low cpu_high
            record getset test $test way $way rounds $rounds rps_without [median $all($key,valkey,rps)] \
                rps_with [median $all($key,module,rps)] ratio [median $ratios] low $low high $high \
                cpu_ratio [median $cpu_ratios] cpu_low $cpu_low cpu_high $cpu_high \
                cpu_ns_without [median $all($key,valkey,cpu)] cpu_ns_with [median $all($key,module,cpu)]
        }
    }
    endServers $servers
}

# ---- starts: time and memory ----------------------------------------------------------------------------------------

proc memoryOf {pid} {
    set text [readFile /proc/$pid/smaps_rollup]
    foreach {name field} {rss Rss anonymous Anonymous} {
        regexp -line "^$field: *(\[0-9\]+) kB" $text -> kib
        dict set memory $name $kib
    }
    return $memory
}

proc part_starts {} {
    set rounds [rounds 30 6]
    set cache [file normalize $::dir/cache-starts]
    file mkdir $cache
    set kinds {valkey module}
    # A different build than the distribution's: compared with itself.
    if {[info exists ::env(VALKEY_PATCHED)]} {lappend kinds patched-off patched}
    for {set round -1} {$round < $rounds} {incr round} { ;# the first, number -1, warms the disk and fills the cache
        progress starts [expr {max(0.0, double($round) / $rounds)}] "start [expr {$round + 1}] of $rounds"
        foreach kind [rotate $kinds [expr {$round + 1}]] {
            set server [startServer $kind -url [goodUrl ec] -cache $cache -hold 1]
            set pipe [open |[concat $::load_core [file normalize build/bench_load] start \
                --port [dict get $server plain] [dict get $server command] 2>@1]]
            if {[scan [gets $pipe] "start %f %d" us pid] != 2} {error "$kind did not start: [read $pipe]"}
            dict set server pid $pid
            set ::running($pid) $kind
            if {$kind in {module patched}} {waitStapling $server}
            load shake --port [dict get $server port] --ask yes --pairs 20
            after 300
            set memory [memoryOf $pid]
            dict set memory used [expr {[infoField $server memory used_memory] / 1024.0}]
            unlink $server
            stopServer $server
            catch {close $pipe}
            if {$round < 0} continue
            lappend all($kind,ms) [expr {$us / 1000.0}]
            dict for {name kib} $memory {lappend all($kind,$name) $kib}
        }
    }
    foreach kind $kinds {
        set base [expr {[string match patched* $kind] ? "patched-off" : "valkey"}]
        set differences [lmap a $all($kind,ms) b $all($base,ms) {expr {$a - $b}}]
        lassign [signInterval $differences] low high
        set values {}
        foreach name {rss anonymous used} {
            lappend values ${name}_kib [median $all($kind,$name)] \
                ${name}_added_kib [median [lmap a $all($kind,$name) b $all($base,$name) {expr {$a - $b}}]]
        }
        record starts server $kind rounds $rounds ms [median $all($kind,ms)] added_ms [median $differences] low $low \
            high $high {*}$values
    }
}

# ---- the first handshakes -------------------------------------------------------------------------------------------

# Starts a server and performs the first 100 handshakes as soon as the port accepts. Returns {stapled last late leads}:
# the number of stapled ones; the number of the last unstapled one; whether that one began more than 5 ms after the
# responder's answer, when the response must have been verified and published; by how many ms the request reached the
# responder before the first connection, and before the end of its handshake.
proc firstHandshakes {kind url cache} {
    ocsp_responder_forget $::responder
    set server [startServer $kind -url $url -cache $cache -hold 1]
    set pipe [open |[concat $::load_core [file normalize build/bench_load] first --count 100 --port \
        [dict get $server port] 2>@1]]
    set pid [exec {*}[dict get $server command] >[dict get $server dir]/log 2>@1 &]
    set ::running($pid) $kind
    dict set server pid $pid
    set line [gets $pipe]
    if {[scan $line "first %d %d %d %f %f %f" stapled count last started connected done] != 6} {
        error "first handshakes of $kind: $line"
    }
    close $pipe
    set asked [lindex [ocsp_responder_log $::responder] 0]
    set leads {}
    set late 0
    if {$asked ne ""} {
        set leads [lmap us [list $connected $done] {expr {$us / 1000.0 - [dict get $asked ms]}}]
        set late [expr {$started / 1000.0 > [dict get $asked end_ms] + 5}]
    }
    stopServer $server
    return [list $stapled $last $late $leads]
}

proc part_first {} {
    set rounds [rounds 7 2]
    set down http://127.0.0.1:[freePort]/
    set kinds [stapling]
    set steps [expr {double([llength $kinds])}]
    set step 0
    foreach kind $kinds {
        progress first [expr {$step / $steps}] $kind
        incr step
        set ours [expr {$kind in {module patched redis-module}}]
        foreach situation {cold warm down hung} {
            # HAProxy queries no responder: cold is without the file, all else with it. Apache delays the first
            # handshakes.
            if {$kind eq "haproxy" && $situation in {down hung}} continue
            set url [dict get [list cold [goodUrl ec] warm [goodUrl ec] down $down hung [hangUrl first]] $situation]
            if {$kind eq "haproxy" && $situation eq "cold"} {set url ""}
            set some {}
            set connect {}
            set done {}
            set lasts {}
            set lates 0
            for {set round 0} {$round < ($situation eq "hung" && !$ours ? 1 : $rounds)} {incr round} {
                set cache ""
                if {$ours && $situation ne "cold"} {
                    set cache [file normalize $::dir/cache-first-$kind]
                    if {![file exists $cache]} {
                        file mkdir $cache
                        set server [startServer $kind -url [goodUrl ec] -cache $cache]
                        waitStapling $server
                        waitUntil 10 {llength [glob -nocomplain $cache/ocsp-*.der]} "nothing was kept on disk"
                        unlink $server
                        stopServer $server
                    }
                }
                lassign [firstHandshakes $kind $url $cache] stapled last late leads
                lappend some $stapled
                lappend lasts $last
                incr lates $late
                if {$leads ne ""} {
                    lappend connect [lindex $leads 0]
                    lappend done [lindex $leads 1]
                }
            }
            record first server $kind situation $situation rounds [llength $some] stapled_median [median $some] \
                stapled_least [percentile $some 0] last_unstapled [percentile $lasts 100] late $lates \
                before_connect_ms [expr {[llength $connect] ? [median $connect] : ""}] \
                before_done_ms [expr {[llength $done] ? [median $done] : ""}]
        }
    }
}

# ---- requests at the CA ---------------------------------------------------------------------------------------------

proc part_requests {} {
    progress requests 0 "a year by the engine's own arithmetic"
    foreach line [split [exec build/bench_requests] \n] {
        lassign $line - what life per_day
        record requests case $what life_seconds $life per_day $per_day
    }
}

if {[info exists env(VALKEY_PATCHED)]} {
    if {$env(VALKEY_PATCHED) eq ""} {
        unset env(VALKEY_PATCHED)
    } elseif {![file executable $env(VALKEY_PATCHED)]} {
        puts stderr "bench: VALKEY_PATCHED is not a program: $env(VALKEY_PATCHED)"
        exit 1
    }
}

# ---- main -----------------------------------------------------------------------------------------------------------

foreach file {src/valkey-ocsp.so build/bench_load build/bench_callback build/bench_requests build/bench_minimal.so
        build/bench_bad_disk.so build/bench_empty.so} {
    if {![file exists $file]} {
        puts stderr "bench: $file is not built. Run: make bench"
        exit 1
    }
}
set server_core {}
set load_core {}
if {![catch {exec nproc} cores] && $cores > 1 && ![catch {exec taskset -c 0 true}]} {
    set server_core {taskset -c 0}
    set load_core {taskset -c 1}
    exec taskset -pc 1 [pid] ;# the driver, and with it the responder
} else {
    puts "This machine has one core, or no taskset: servers and load share cores."
}
# Stop all servers when this program ends, in whatever way.
if {![catch {exec setpriv --pdeathsig TERM true}]} {set server_core [concat setpriv --pdeathsig TERM $server_core]}
if {$merge && [file exists $dir/results.tcl]} {lassign [readFile $dir/results.tcl] facts results}
if {$only eq "draw"} {
    report
    exit 0
}
if {!$merge} {file delete -force $dir}
foreach old {pki servers cache callgrind} {file delete -force {*}[glob -nocomplain $dir/$old*]}
file mkdir $dir

set status [catch {
    bench_pki
    machineFacts
    foreach part [dict keys $parts] {
        if {$part ni $only} continue
        if {[dict exists $results $part]} {dict unset results $part}
        foreach extra {latency chain_instructions responder_ratio ping_check} {
            if {[string match $part* $extra] || $part eq "handshakes" && $extra eq "latency"} {
                if {[dict exists $results $extra]} {dict unset results $extra}
            }
        }
        part_$part
        incr done_seconds [dict get $parts $part]
    }
} why options]
stopAll
if {$status} {
    puts stderr "bench: $why"
    if {[info exists env(BENCH_TRACE)]} {puts stderr [dict get $options -errorinfo]}
    exit 1
}
writeFile $dir/results.tcl [list $facts $results]
report
