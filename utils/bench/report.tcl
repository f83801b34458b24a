# report.tcl - the output of `make bench`: tables, expectations, JSON, SVG. Sourced by run.tcl, whose `found` looks up
# results.
#
# SPDX-License-Identifier: BSD-3-Clause

set full_names {valkey "Valkey, no module" module "Valkey + module" patched "Valkey, patched" patched-off "patched, off"
    redis-module "Redis + module" nginx nginx haproxy HAProxy apache "Apache httpd" minimal "least that staples"
    empty "a module, empty"}

proc nameOf {kind} {dict get $::full_names $kind}

# ---- the machine ----------------------------------------------------------------------------------------------------

proc versionOf {args} {
    if {[catch {exec {*}$args 2>@1} text] || ![regexp {[0-9]+\.[0-9]+[0-9.a-z]*} $text version]} {return ""}
    return $version
}

proc machineFacts {} {
    global facts
    set model "unknown processor"
    regexp -line {^model name\s*: (.*)$} [readFile /proc/cpuinfo] -> model
    set facts [dict create date [clock format [clock seconds] -format %Y-%m-%d] cpu $model cores [exec nproc --all] \
        kernel [exec uname -r] load [lindex [readFile /proc/loadavg] 0] openssl [versionOf openssl version] \
        valkey [versionOf valkey-server --version] redis [versionOf redis-server --version] \
        nginx [versionOf [program nginx] -v] haproxy [versionOf [program haproxy] -v] \
        apache [versionOf [program apache2] -v]]
    if {[info exists ::env(VALKEY_PATCHED)]} {dict set facts patched [versionOf $::env(VALKEY_PATCHED) --version]}
    catch {
        regexp -line {^PRETTY_NAME="?([^"]*)} [readFile /etc/os-release] -> system
        dict set facts system $system
    }
    dict set facts response_bytes [file size $::staple(ec)]
    puts [factsLine]
}

proc factsLine {} {
    global facts
    set line "[dict get $facts cpu], [dict get $facts cores] cores; [dict get $facts system], OpenSSL"
    append line " [dict get $facts openssl], Valkey [dict get $facts valkey][expr {[dict exists $facts patched] ?
        " (patched: [dict get $facts patched])" : ""}], Redis [dict get $facts redis], nginx [dict get $facts nginx], HAProxy"
    append line " [dict get $facts haproxy], Apache httpd [dict get $facts apache]; [dict get $facts date]"
    return $line
}

proc writeJson {file} {
    set f [open $file w]
    puts $f "{\n\"machine\": [jsonRecord $::facts]"
    dict for {part records} $::results {
        puts $f ",\n\"$part\": \[\n  [join [lmap record $records {jsonRecord $record}] ",\n  "]\n\]"
    }
    puts $f "}"
    close $f
}

# ---- tables ---------------------------------------------------------------------------------------------------------

# `columns`: a title and a width for each; negative widths align left.
proc table {title columns rows} {
    puts "\n$title"
    set format [join [lmap {name width} $columns {string cat % $width s}] "  "]
    puts "  [string trimright [format $format {*}[lmap {name width} $columns {set name}]]]"
    foreach row $rows {puts "  [string trimright [format $format {*}$row]]"}
}

proc us {value} {format %.0f $value}

proc interval {ratio low high} {
    set text [format "%.4f  %.4f-%.4f" $ratio $low $high]
    return [expr {$low <= 1 && $high >= 1 ? "$text  within the noise" : $text}]
}

proc report {} {
    set rows {}
    foreach r [found callback] {
        dict with r {
            lappend rows [list $way $readers [expr {$writer ? "yes" : "no"}] [format %.1f $read_ns] \
                [format %.1f [expr {$reads_per_second / 1e6}]] [format %.1f $waits_per_million] \
                {*}[expr {$writer && $writes > 0 ? [list [us $writes] [us $write_p50_ns] [us $write_p99_ns] \
                    [us [expr {$write_max_ns / 1000}]]] : [list [expr {$writer ? 0 : "-"}] - - -]}]]
        }
    }
    if {[llength $rows]} {
        table "The callback alone ([dict get $::facts response_bytes] bytes; processor time of a reader; publications)" \
            {way -9 readers 7 writer 6 ns/read 8 Mreads/s 8 "waits/Mread" 11 writes 7 "write p50 ns" 12 "p99 ns" 8
                "max us" 8} $rows
    }

    set rows {}
    foreach r [found instructions] {
        dict with r {
            set least [found instructions server minimal key $key tls $tls]
            set beyond -
            if {$server in {module patched} && [llength $least]} {
                set beyond [expr {100.0 * ($callback - [dict get [lindex $least 0] callback]) / $not_asked}]
                set beyond [format %.3f $beyond]
            }
            lappend rows [list [nameOf $server] $key $tls [us $not_asked] [us $asked] [us [expr {$asked - $not_asked}]] \
                [expr {$callback > 0 ? [us $callback] : "-"}] $beyond \
                [expr {$server eq "module" ? [format %.3f [expr {100.0 * $ours / $asked}]] : "-"}]]
        }
    }
    if {[llength $rows]} {
        table "Instructions of one handshake (callgrind, inside SSL_do_handshake)" {server -18 key -3 TLS 3 "not asked" 10 \
            asked 10 added 7 callback 8 "beyond OpenSSL's %" 18 "our code %" 10} $rows
    }
    set rows {}
    foreach command {get set} {
        set absent [first [found commands server valkey command $command]]
        foreach r [found commands command $command] {
            dict with r {
                lappend rows [list $command [nameOf $server] [us $per_command] \
                    [format %.1f [expr {100.0 * ($per_command / [dict get $absent per_command] - 1)}]] [us $ours]]
            }
        }
    }
    if {[llength $rows]} {
        table "Instructions of one command, one client, a turn of the event loop for each (callgrind)" \
            {command -7 server -20 "per command" 11 "added %" 8 "our code" 8} $rows
    }

    set rows {}
    foreach r [found handshakes] {
        dict with r {
            lappend rows [list [nameOf $server] $key $tls [us $per_second] [us $cpu_us] [interval $ratio $low $high] \
                [interval $cpu_ratio $cpu_low $cpu_high] $stapled/$asked]
        }
    }
    if {[llength $rows]} {
        table "Handshakes, asked against not asked (ratio of speeds, of the server's processor time; above 1 is faster)" \
            {server -18 key -3 TLS 3 "per s" 6 "cpu us" 6 "speed, 95 %" -38 "cpu, 95 %" -38 stapled 11} $rows
    }
    set rows {}
    foreach r [found latency] {
        dict with r {
            lappend rows [list [nameOf $server] [expr {$asked ? "yes" : "no"}] [us $p50] [us $p99] [us $p999] [us $max]]
        }
    }
    if {[llength $rows]} {
        table "Latency of a handshake, one at a time, ECDSA, TLS 1.3 (us)" \
            {server -18 asked 5 p50 7 p99 7 p99.9 7 max 9} $rows
    }

    set rows {}
    foreach r [found chain] {
        dict with r {
            lappend rows [list $intermediates $asked [us $per_second] [us $cpu_us] [interval $ratio $low $high] \
                [interval $cpu_ratio $cpu_low $cpu_high] $stapled/$handshakes]
        }
    }
    if {[llength $rows]} {
        table "Responses for the whole chain against the leaf's alone (ECDSA, TLS 1.3; ratios as above)" \
            {intermediates 13 asked -5 "per s" 6 "cpu us" 6 "speed, 95 %" -38 "cpu, 95 %" -38 "chain stapled" 13} $rows
    }
    set rows {}
    foreach r [found chain_instructions] {
        dict with r {
            lappend rows [list $intermediates $staple_chain $asked [us $total] [us $callback] [us $parse] [us $ours] \
                [format %.3f [expr {100.0 * $ours / $total}]]]
        }
    }
    if {[llength $rows]} {
        table "Instructions of one handshake (callgrind, inside SSL_do_handshake)" {intermediates 13 staple-chain -12
            asked -5 total 10 callback 8 "of it, parsing" 14 "our code" 8 "our code %" 10} $rows
    }

    set rows {}
    foreach r [found responder] {
        dict with r {
            lappend rows [list [nameOf $server] $state [us $p50] [us $p99] [us $p999] [us $max] $stapled/$count \
                [expr {$state eq "hung" && $server in {module patched redis-module} ? "$hung/$rounds" : ""}]]
        }
    }
    if {[llength $rows]} {
        table "By state of the responder (handshakes with a request, us; hangs, down: module and patch have a cached response)" \
            {server -18 responder -9 p50 7 p99 7 p99.9 7 max 9 stapled 11 "hung in rounds" 14} $rows
    }
    set rows {}
    foreach r [found responder_ratio] {
        dict with r {
            lappend rows [list [nameOf $server] $state [interval $p50_ratio $p50_low $p50_high] \
                [interval $p99_ratio $low $high]]
        }
    }
    if {[llength $rows]} {table "Against healthy, connection by connection" \
        {server -18 responder -9 "p50, 95 %" -38 "p99, 95 %" -38} $rows}

    set rows {}
    foreach r [found ping] {
        dict with r {
            lappend rows [list $condition [us $p50] [us $p99] [us $p999] [us $max] $against \
                [interval $p50_ratio $p50_low $p50_high] [interval $p99_ratio $p99_low $p99_high]]
        }
    }
    if {[llength $rows]} {
        table "PING of 50 busy TLS clients (us; medians of the rounds, max of all)" {condition -15 p50 6 p99 6 p99.9 6
            max 7 against -15 "p50 ratio, 95 %" -38 "p99 ratio, 95 %" -38} $rows
    }

    set rows {}
    foreach r [found getset] {
        dict with r {
            lappend rows [list $test $way [us $rps_without] [us $rps_with] [interval $ratio $low $high] \
                [us $cpu_ns_without] [us $cpu_ns_with] [interval $cpu_ratio $cpu_low $cpu_high]]
        }
    }
    if {[llength $rows]} {
        table "GET and SET, valkey-benchmark, 50 clients (per second; ns of the server's processor time)" \
            {command -7 clients -7 absent 7 loaded 7 "speed ratio, 95 %" -38 "ns absent" 9 "ns loaded" 9
                "cpu ratio, 95 %" -38} $rows
    }

    set rows {}
    foreach r [found starts] {
        dict with r {
            lappend rows [list [nameOf $server] [format %.2f $ms] [format "%.2f  %.2f to %.2f" $added_ms $low $high] \
                [us $rss_kib] [us $rss_added_kib] [us $anonymous_kib] [us $anonymous_added_kib] \
                [format %.1f $used_added_kib]]
        }
    }
    if {[llength $rows]} {
        table "From exec to the first PONG (ms), and memory once a response is stapled (KiB, medians)" \
            {server -18 ms 7 "added, 95 %" -22 RSS 6 added 6 "its own" 8 added 6 "used_memory added" 17} $rows
    }

    set rows {}
    foreach r [found first] {
        dict with r {
            lappend rows [list [nameOf $server] $situation $rounds [us $stapled_median] $stapled_least $last_unstapled \
                {*}[lmap value [list $before_connect_ms $before_done_ms] {
                    if {$value eq ""} {set value} else {format %.1f $value}
                }]]
        }
    }
    if {[llength $rows]} {
        table "The first 100 handshakes after a start (cold: the very first start; else a restart, by the responder)" \
            {server -18 situation -9 starts 6 stapled 7 least 5 "last without" 12 \
                "asked ms before a connection" 28 "before a handshake" 18} $rows
    }

    set rows {}
    foreach r [found requests] {
        dict with r {
            lappend rows [list $case [expr {$life_seconds ? [format "%.4g h" [expr {$life_seconds / 3600.0}]] : "-"}] \
                [format %.2f $per_day]]
        }
    }
    if {[llength $rows]} {
        table "Requests at the CA per day and server (a simulated year of the engine's schedule)" \
            {responder -11 life -8 "per day" 8} $rows
    }

    dict unset ::results claims
    requirements
    writeJson $::dir/result.json
    plots
    set pictures [lmap file [lsort [glob -nocomplain $::dir/*.svg]] {file tail $file}]
    puts "\nEverything is in $::dir: result.json, [join $pictures {, }]"
}

# ---- expectations ---------------------------------------------------------------------------------------------------

proc first {list} {lindex $list 0}

proc claim {text measured met} {
    set word [dict get {1 met 0 MISSED -1 "within the noise"} $met]
    puts [format "  %-16s %s: %s" $word $text $measured]
    record claims claim $text measured $measured verdict $word
}

# Expects a ratio of at least (or, with `most`, at most) `bound`: missed only if the whole interval is beyond it.
proc bounded {ratio low high bound {most 0}} {
    if {$most ? $ratio <= $bound : $ratio >= $bound} {return 1}
    return [expr {($most ? $low <= $bound : $high >= $bound) ? -1 : 0}]
}

proc ahead {ms} {format "%.1f ms %s" [expr {abs($ms)}] [expr {$ms >= 0 ? "before" : "after"}]}

proc requirements {} {
    puts "\nWhat it was to show"
    foreach server {module patched redis-module} {
        foreach r [found handshakes server $server] {
            dict with r {
                set others {}
                set best 1
                foreach other {nginx haproxy} {
                    foreach o [found handshakes server $other key $key tls $tls] {
                        lappend others "$other [format %.4f [dict get $o ratio]]"
                        if {$ratio < [dict get $o ratio] && $high < [dict get $o low]} {set best 0}
                    }
                }
                claim "[nameOf $server], $key, TLS $tls: asked against not asked at least 0.99" \
                    "[ratioText $ratio $low $high]; [join $others {, }]" \
                    [expr {$best ? [bounded $ratio $low $high 0.99] : 0}]
            }
        }
    }
    foreach r [found instructions server module] {
        dict with r {
            set least [first [found instructions server minimal key $key tls $tls]]
            if {$least eq ""} continue
            set beyond [expr {100.0 * ($callback - [dict get $least callback]) / $not_asked}]
            claim "$key, TLS $tls: instructions beyond OpenSSL's own at most 0.5 %" \
                [format "%.0f of %.0f, %.3f %%" [expr {$callback - [dict get $least callback]}] $not_asked $beyond] \
                [expr {$beyond <= 0.5}]
            claim "$key, TLS $tls: our code in a handshake's profile at most 0.5 %" \
                [format "%.0f of %.0f, %.3f %%" $ours $asked [expr {100.0 * $ours / $asked}]] \
                [expr {$ours / $asked <= 0.005}]
        }
    }
    foreach r [found chain_instructions staple_chain yes] {
        dict with r {
            set what "chain, intermediate CAs: $intermediates"
            if {$asked} {
                set beyond [expr {$callback - $parse}]
                claim "$what: the callback without OpenSSL's parse, in a handshake's profile at most 0.5 %" \
                    [format "%.0f of %.0f, %.3f %%" $beyond $total [expr {100.0 * $beyond / $total}]] \
                    [expr {$callback > 0 && $beyond <= 0.005 * $total}]
            } else {
                set alone [first [found chain_instructions intermediates $intermediates staple_chain no asked no]]
                claim "$what: the callback is not called in a handshake that does not ask" \
                    [format "our code %.0f instructions, without staple-chain %.0f" $ours [dict get $alone ours]] \
                    [expr {$callback == 0}]
            }
        }
    }
    foreach r [found getset] {
        dict with r {
            claim "$test, $way: loaded against absent at least 0.995" \
                "[ratioText $ratio $low $high], by processor time [ratioText $cpu_ratio $cpu_low $cpu_high]" \
                [bounded $ratio $low $high 0.995]
        }
    }
    foreach r [found responder_ratio] {
        dict with r {
            claim "[nameOf $server], responder $state against healthy: p99 of a handshake at most 1.02" \
                [ratioText $p99_ratio $low $high] [bounded $p99_ratio $low $high 1.02 1]
        }
    }
    foreach r [found ping condition hung] {
        dict with r {
            claim "PING, responder hung against healthy: p99 at most 1.02" [ratioText $p99_ratio $p99_low $p99_high] \
                [bounded $p99_ratio $p99_low $p99_high 1.02 1]
        }
    }
    foreach r [found first] {
        dict with r {
            if {$server ni {module patched redis-module}} continue
            if {$situation eq "cold"} {
                claim "[nameOf $server], cold: the responder is asked before the first client can connect" \
                    "[ahead $before_connect_ms] the kernel took it, [ahead $before_done_ms] its handshake was done" \
                    [expr {$before_connect_ms >= 0}]
                claim "[nameOf $server], cold: all stapled after the first answer" \
                    "$stapled_median of 100; none without after number $last_unstapled" [expr {$late == 0}]
            } else {
                set state [expr {$situation eq "warm" ? "healthy" : $situation}]
                claim "[nameOf $server], warm, responder $state: all of the first 100 stapled" \
                    "$stapled_least of 100 in each of $rounds starts" [expr {$stapled_least == 100}]
            }
        }
    }
    foreach writer {0 1} {
        set one [first [found callback way callback readers 1 writer $writer]]
        if {$one eq ""} continue
        set cores [expr {min(8, max(1, [dict get $::facts cores]))}]
        while {![llength [found callback way callback readers $cores writer $writer]]} {incr cores -1}
        set each [first [found callback way callback readers $cores writer $writer]]
        set eight [first [found callback way callback readers 8 writer $writer]]
        set with [expr {$writer ? "a writer" : "no writer"}]
        claim "the callback without OpenSSL's allocation, $with: at most 150 ns" \
            [format "%.1f ns" [dict get $one read_ns]] [expr {[dict get $one read_ns] <= 150}]
        claim "the callback, $with: eight readers no slower than one per core ($cores)" \
            [format "%.1f ns against %.1f ns" [dict get $eight read_ns] [dict get $each read_ns]] \
            [expr {[dict get $eight read_ns] <= [dict get $each read_ns] * 1.02 ? 1 :
                [dict get $eight read_ns] <= [dict get $each read_ns] * 1.1 ? -1 : 0}]
    }
    foreach readers {1 8} {
        foreach r [found callback way callback readers $readers writer 1] {
            dict with r {
                claim "a publication (swap, wait, free the old) waits no longer than a reader copies, beside $readers" \
                    [format "p50 %.0f ns, p99 %.0f ns, longest %.0f us" $write_p50_ns $write_p99_ns \
                        [expr {$write_max_ns / 1000.0}]] [expr {$writes > 0 && $write_p99_ns <= 10 * $read_ns}]
            }
        }
    }
    foreach server {module patched} {
        foreach r [found starts server $server] {
            dict with r {
                claim "[nameOf $server] adds at most 512 KiB" \
                    [format "RSS %.0f KiB, of its own (not files' pages) %.0f KiB, used_memory %.0f KiB" \
                        $rss_added_kib $anonymous_added_kib $used_added_kib] [expr {$rss_added_kib <= 512}]
                claim "[nameOf $server] adds at most 5 ms to the start" \
                    [format "%.2f ms (%.2f to %.2f)" $added_ms $low $high] [expr {$added_ms <= 5}]
            }
        }
    }
}

# ---- plots ----------------------------------------------------------------------------------------------------------

# Writes a gnuplot script with its data and runs it to draw an SVG next to it. The palette suits the color-blind.
proc plot {name width height script} {
    writeFile $::dir/$name.gnuplot "set terminal svg size $width,$height font 'sans-serif,13' background '#ffffff'
set output '$::dir/$name.svg'
set border 3 lc '#666666'
set tics nomirror textcolor '#333333'
set grid lc '#dddddd' lt 1
set key textcolor '#333333'
set style line 1 lc '#0072b2' lw 2 pt 7 ps 0.9
set style line 2 lc '#d55e00' lw 2 pt 5 ps 0.9
set style line 3 lc '#009e73' lw 2 pt 9 ps 1.1
set style line 4 lc '#cc79a7' lw 2 pt 13 ps 1.1
set style line 5 lc '#999999' lw 2 pt 4 ps 0.9
$script"
    if {[catch {exec gnuplot $::dir/$name.gnuplot 2>@1} words]} {puts "gnuplot about $name: $words"}
}

# Quotes words, but not numbers.
proc dataCell {cell} {
    if {$cell eq "NaN" || [string is double -strict $cell]} {return $cell}
    return "\"$cell\""
}

proc dataBlock {name rows} {
    return "\$$name << EOD\n[join [lmap row $rows {join [lmap cell $row {dataCell $cell}] " "}] \n]\nEOD\n"
}

proc nameInLines {kind} {string map {" + " "\\n+ " ", " ",\\n"} [nameOf $kind]}

proc plots {} {
    if {[catch {exec gnuplot --version}]} return
    # With and without a status request.
    set rows {}
    set y 0
    foreach r [lreverse [found handshakes tls 1.3 key ec]] {
        dict with r {lappend rows [list [nameOf $server] $ratio $low $high [incr y]]}
    }
    if {[llength $rows]} {
        plot asked 760 [expr {110 + 32 * [llength $rows]}] "[dataBlock D $rows]
set title 'Handshakes per second, status asked against not asked (ECDSA, TLS 1.3; paired, 95 %)'
unset key
set yrange \[0.4:$y.6\]
set xrange \[*<0.98:1.005<*\]
set arrow 1 from 1,0.4 to 1,$y.6 nohead lc '#333333' lw 1
set arrow 2 from 0.99,0.4 to 0.99,$y.6 nohead lc '#d55e00' dt 2 lw 1
set ytics out
plot \$D using 2:5:3:4:ytic(1) with xerrorbars ls 1"
    }
    # The responder's states.
    set servers {}
    foreach r [found responder] {if {[dict get $r server] ni $servers} {lappend servers [dict get $r server]}}
    set blocks ""
    set lines {}
    set style 0
    foreach state {healthy hung down} {
        incr style
        set rows {}
        set unstapled {}
        foreach r [found responder state $state] {
            dict with r {
                set x [expr {[lsearch -exact $servers $server] + ($style - 2) * 0.22}]
                lappend rows [list $x $p50 $p99 $max]
                set beside [expr {$max > 4e5 ? 0.1 : 0}]
                if {$stapled == 0} {
                    lappend unstapled [list [expr {$x + $beside}] [expr {min(4e5, $max * 1.7)}] "no staple"]
                }
            }
        }
        if {![llength $rows]} continue
        append blocks [dataBlock "S$state" $rows]
        if {[llength $unstapled]} {
            append blocks [dataBlock "N$state" $unstapled]
            lappend lines "\$N$state using 1:2:3 with labels left rotate offset 0.1,0 font ',11' tc ls $style notitle"
        }
        lappend lines "\$S$state using 1:2:2:4 with yerrorbars ls $style pt 0 notitle" \
            "\$S$state using 1:2 with points ls $style pt 7 title 'responder $state'" \
            "\$S$state using 1:3 with points ls $style pt 2 notitle" \
            "\$S$state using 1:4 with points ls $style pt 8 notitle"
    }
    if {[llength $lines]} {
        set i -1
        set tics {}
        foreach server $servers {
            lappend tics "\"[nameInLines $server]\" [incr i]"
        }
        plot responder 760 400 "$blocks
set title 'A handshake that asks, by what the responder does (dot: p50, cross: p99, triangle: longest)'
set logscale y
set bmargin 3.5
set yrange \[100:30000000\]
set ytics ('0.1 ms' 100, '1 ms' 1000, '10 ms' 10000, '0.1 s' 100000, '1 s' 1000000, '10 s' 10000000)
set xrange \[-0.5:[llength $servers].0-0.5\]
set xtics ([join $tics ,])
set key top left horizontal
plot [join $lines {, }]"
    }
    # The callback, with a writer that publishes continuously.
    set blocks ""
    set style 0
    foreach way {slot mutex rwlock refcount callback} {
        incr style
        set rows [lmap r [found callback way $way writer 1] {
            list [dict get $r readers] [dict get $r read_ns] [dict get $r waits_per_million]
        }]
        if {![llength $rows]} continue
        append blocks [dataBlock $way $rows]
        set title [dict get {slot "our slot" mutex mutex rwlock "reader-writer lock" refcount "reference count" \
            callback "whole callback"} $way]
        foreach column {2 3} {lappend lines$column "\$$way using 1:$column with linespoints ls $style title '$title'"}
    }
    if {[info exists lines2]} {
        plot callback 760 360 "$blocks
set multiplot layout 1,2 title 'Readers of the staple, beside a writer that publishes without pause'
set logscale x 2
set xrange \[0.8:10\]
set xtics (1,2,4,8)
set xlabel 'reader threads'
set yrange \[0:*\]
set key at graph 0.95,0.75
set title 'processor time of one read (ns)'
plot [join $lines2 {, }]
unset key
set title 'times that a reader had to sleep, per million reads'
set yrange \[-0.1:2<*\]
plot [join $lines3 {, }]
unset multiplot"
    }
    # PINGs.
    set rows {}
    set x 0
    foreach r [found ping] {
        set name [dict get {without "no module" quiet module refresh refreshing hung "responder\\nhung" disk "bad disk"
            reload reloading "reload without" "reloading,\\nno module"} [dict get $r condition]]
        dict with r {lappend rows [list [incr x] $name [expr {$p50 / 1000}] [expr {$p99 / 1000}] [expr {$p999 / 1000}]]}
    }
    if {[llength $rows]} {
        plot ping 760 340 "[dataBlock D $rows]
set title 'PING of 50 busy TLS clients (milliseconds; medians of the rounds)'
set bmargin 3.5
set xrange \[0.5:$x.5\]
set yrange \[0:*\]
set key outside top right horizontal
plot \$D using 1:3:xtic(2) with points ls 1 title 'p50', '' using 1:4 with points ls 2 title 'p99', \\
    '' using 1:5 with points ls 3 title 'p99.9'"
    }
    # The first 100.
    set rows {}
    foreach kind {module patched redis-module nginx haproxy apache} {
        if {![llength [found first server $kind]]} continue
        set row [list [nameInLines $kind]]
        foreach situation {cold warm down hung} {
            set r [first [found first server $kind situation $situation]]
            if {$r eq ""} {lappend row NaN} else {lappend row [dict get $r stapled_median]}
        }
        lappend rows $row
    }
    if {[llength [found first]]} {
        plot first 760 340 "[dataBlock D $rows]
set title 'Stapled among the first 100 handshakes after a start (median)'
set style data histogram
set style histogram cluster gap 1
set style fill solid 0.85
set boxwidth 0.9
set bmargin 3.5
set yrange \[0:125\]
set ytics 25
set key top right horizontal
plot \$D using 2:xtic(1) lc '#56b4e9' title 'very first start', '' using 3 lc '#0072b2' title 'restart', \\
    '' using 4 lc '#009e73' title 'restart, responder down', '' using 5 lc '#d55e00' title 'restart, responder hung'"
    }
}
