# ocsp-monitoring.tcl - utils/monitoring: the alert rules, in promtool and in a real Prometheus that reads the probe's
# metrics of real servers from a real node exporter; the dashboard's queries there; what redis_exporter reads of INFO ocsp
# (scenario 38).
#
# Skipped where Prometheus is not installed: `make test-monitoring` installs it, and sets OCSP_PICTURES, a directory for
# pictures of the dashboard.
#
# Weight: 30
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]
package require http

set monitoring [file join $::project_dir utils monitoring]

test {monitoring: promtool accepts the rules, and each fires when it should, and not before (38.1)} {
    exec promtool check rules $monitoring/ocsp-alerts.yml
    exec promtool test rules $monitoring/ocsp-alerts-test.yml
    # Each alert has a test, and a row in the table of what to do.
    set tests [read_text $monitoring/ocsp-alerts-test.yml]
    set readme [read_text $monitoring/README.md]
    set alerts [regexp -all -inline {alert: (\w+)} [read_text $monitoring/ocsp-alerts.yml]]
    assert_equal [llength $alerts] 22
    foreach {- alert} $alerts {
        assert_morethan [regexp -all "\\m$alert\\M" $tests] 1 $alert
        assert_match "*\n| `$alert` |*" $readme
    }
} undefined {needs:promtool}

# ---- a dashboard ----

# Returns the queries of the dashboard: a list of pairs of a panel's title and its query.
proc queries {} {
    set found {}
    set title {}
    foreach line [split [read_text $::monitoring/ocsp-dashboard.json] \n] {
        regexp {"title": "([^"]*)"} $line - title
        if {[regexp {"expr": "((?:[^"\\]|\\.)*)"} $line - query]} {
            lappend found [list $title [string map {\\\" \" $target .*} $query]]
        }
    }
    return $found
}

test {monitoring: the dashboard's panels have different ids, do not overlap, and ask for metrics of the probe (38.2)} {
    set text [read_text $monitoring/ocsp-dashboard.json]
    set ids [lmap {- id} [regexp -all -inline {"id": (\d+)} $text] {set id}]
    assert_equal [llength [lsort -unique $ids]] 13
    set taken {}
    foreach {- x y w h} [regexp -all -inline {"x": (\d+), "y": (\d+), "w": (\d+), "h": (\d+)} $text] {
        assert_lessthan_equal [expr {$x + $w}] 24
        for {set i $x} {$i < $x + $w} {incr i} {
            for {set j $y} {$j < $y + $h} {incr j} {lappend taken $i,$j}
        }
    }
    assert_equal [llength [lsort -unique $taken]] [llength $taken]
    assert_equal [llength [queries]] 13
    lassign [ocsp_probe {cert /dev/null} --prometheus 127.0.0.1:1] - metrics
    foreach query [queries] {
        foreach name [regexp -all -inline {ocsp_probe_\w+} $query] {assert_match "*# TYPE $name gauge*" $metrics}
    }
}

# ---- a real Prometheus ----

proc start {name args} {
    set dir [tmpdir $name]
    lappend ::started [start_process $dir [string map [list %dir $dir] $args]] $dir
    return $dir
}

proc stop_started {} {
    foreach {pid dir} $::started {
        send_signal $pid TERM
        wait_exit $dir $pid
        report gone $pid
    }
    set ::started {}
}

proc get {url} {
    set token [::http::geturl $url -timeout 10000]
    set body [::http::data $token]
    ::http::cleanup $token
    return $body
}

# Returns the values of an instant query, or of a range query over the last `seconds`.
proc query {expression {seconds 0}} {
    set now [clock seconds]
    set path [expr {$seconds ? "query_range?start=[expr {$now - $seconds}]&end=$now&step=1&" : "query?"}]
    set body [get http://127.0.0.1:$::prometheus_port/api/v1/$path[::http::formatQuery query $expression]]
    if {![string match {*"status":"success"*} $body]} {fail "$expression: $body"}
    return [lmap {- value} [regexp -all -inline {\[[0-9.]+,"([^"]*)"\]} $body] {set value}]
}

proc firing {alert target} {
    set labels [expr {$target eq {} ? {} : ",target=\"$target\""}]
    return [expr {[llength [query "ALERTS{alertname=\"$alert\",alertstate=\"firing\"$labels}"]] > 0}]
}

proc wait_firing {alert target} {
    wait_for_condition 200 100 {[firing $alert $target]} else {
        fail "$alert does not fire for $target: [get http://127.0.0.1:$::prometheus_port/api/v1/alerts]"
    }
}

# Writes the answer to a range query for gnuplot, a block for each target in the dict `names`: lines of time and value. Times
# count from `from`. A blank line interrupts the line where there is no value. With `runs`, lines of time, value and how
# long it stayed. Returns the number of values.
proc write_range {path expression from seconds names runs} {
    set range "start=$from&end=[expr {$from + $seconds}]&step=2"
    set body [get http://127.0.0.1:$::prometheus_port/api/v1/query_range?$range&[::http::formatQuery query $expression]]
    set channel [open $path w]
    set written 0
    foreach series [split [string map {\"metric\": \x01} $body] \x01] {
        if {![regexp {"target":"([^"]*)"} $series - target] || ![dict exists $names $target]} continue
        puts $channel "# [dict get $names $target]"
        set before $from
        set began $from
        set last {}
        foreach {- time value} [regexp -all -inline {\[([0-9.]+),"([^"]*)"\]} $series] {
            incr written
            if {!$runs} {
                if {$time - $before > 2} {puts $channel {}}
                puts $channel "[expr {$time - $from}] $value"
            } elseif {$value ne $last} {
                if {$last ne {}} {puts $channel "[expr {$began - $from}] $last [expr {$time - $began}]"}
                set began $time
                set last $value
            }
            set before $time
        }
        if {$runs} {puts $channel "[expr {$began - $from}] $last [expr {$before - $began}]"}
        puts $channel "\n"
    }
    close $channel
    return $written
}

# Replaces the file that the node exporter reads, as the timer does.
proc run_probe {args} {
    ocsp_probe $::ca --prometheus --output $::textfiles/ocsp.prom {*}$args
}

set started {}
set tools {needs:prometheus needs:prometheus-node-exporter}

if {[auto_execok prometheus] ne {} && [auto_execok prometheus-node-exporter] ne {}} {
    ocsp_setup
    foreach name {revoked missing promised ending} {
        set leaves($name) [ocsp_lab_leaf $lab $name -must-staple [expr {$name eq "promised"}]]
    }
    set behaviour [list for [list [dict get $leaves(revoked) serial] {status revoked} \
        [dict get $leaves(ending) serial] {this -3600 next +120}]]
    ocsp_responder_behave $responder $behaviour
    set textfiles [tmpdir textfiles]
    set exporter_port [find_available_port]
    set prometheus_port [find_available_port]
    start exporter prometheus-node-exporter --collector.disable-defaults --collector.textfile \
        --collector.textfile.directory=$textfiles --web.listen-address=127.0.0.1:$exporter_port
    # Without their `for`, which promtool tests: so that they fire within seconds.
    set rules [file join [tmpdir rules] ocsp-alerts.yml]
    set channel [open $rules w]
    puts -nonewline $channel [regsub -all -line {^ *for: .*\n} [read_text $monitoring/ocsp-alerts.yml] {}]
    close $channel
    set config [file join [tmpdir config] prometheus.yml]
    set channel [open $config w]
    puts $channel "global: {scrape_interval: 1s, evaluation_interval: 1s}
rule_files: \[$rules\]
scrape_configs:
  - job_name: node
    static_configs: \[{targets: \['127.0.0.1:$exporter_port'\]}\]"
    close $channel
    start prometheus prometheus --config.file=$config --storage.tsdb.path=%dir/data \
        --web.listen-address=127.0.0.1:$prometheus_port --log.level=warn
    wait_for_condition 200 100 {![catch {query up}]} else {fail "Prometheus does not answer"}

    start_server [ocsp_server $leaf $ca] {
    start_server [ocsp_server $leaves(revoked) $ca] {
    start_server [ocsp_server $leaves(missing) $ca stapling no] {
    start_server [ocsp_server $leaves(promised) $ca stapling no] {
    start_server [ocsp_server $leaves(ending) $ca] {
        foreach {name level} {ending 0 promised -1 missing -2 revoked -3 good -4} {
            set target($name) 127.0.0.1:[srv $level port]
        }
        set target(unreachable) 127.0.0.1:1
        # Valkey never staples an expired response; another server does.
        set stale [file join $dir stale.der]
        ocsp_responder_behave $responder {this -7200 next -60}
        ocsp_probe $ca --ask [dict get $leaf cert] --save $stale
        ocsp_responder_behave $responder $behaviour
        set port [find_available_port]
        set target(expired) 127.0.0.1:$port
        start stale $::openssl s_server -accept 127.0.0.1:$port -cert [dict get $leaf cert] -key [dict get $leaf key] \
            -status_file $stale -www
        set all [lsort [array names target]]
        set targets [lmap name $all {set target($name)}]

        test {monitoring: no metrics, and then those of servers in every state: the alerts fire in Prometheus (38.3)} {
            wait_firing OcspProbeAbsent {}
            foreach {level state} {-4 good -3 revoked 0 good} {ocsp_wait_info state $state $level}
            r -4 config set requirepass secret
            wait_for_condition 100 100 {[string match {*: expired: *} [lindex [ocsp_probe $ca $target(expired)] 1]]} else {
                fail [ocsp_probe $ca $target(expired)]
            }
            run_probe --all-nodes {*}$targets
            foreach {alert names} {
                OcspCertificateRevoked revoked
                OcspNoStaple {missing promised}
                OcspNoStapleThoughPromised promised
                OcspStapleNotAccepted expired
                OcspStapleNearEnd ending
                OcspProbeCannotConnect unreachable
                OcspNodesUnknown {good unreachable}
            } {
                foreach name $names {wait_firing $alert $target($name)}
                # For no other server. (s_server does not speak RESP: its nodes are unknown, too.)
                foreach name $all {
                    if {$name ni $names && "$alert $name" ne "OcspNodesUnknown expired"} {
                        assert_equal [firing $alert $target($name)] 0 "$alert fires for $name"
                    }
                }
            }
            wait_for_condition 100 100 {![firing OcspProbeAbsent {}]} else {fail "OcspProbeAbsent does not end"}
            foreach name $all {assert_equal [firing OcspProbeNotRunning $target($name)] 0}
        } undefined $tools

        test {monitoring: every query of the dashboard returns data (38.4)} {
            foreach one [queries] {
                lassign $one title expression
                foreach seconds {0 10} {
                    wait_for_condition 50 100 {[llength [query $expression $seconds]] > 0} else {
                        fail "$title: no data: $expression"
                    }
                }
            }
            assert_equal [query {count(ocsp_probe_up == 0)}] 1
        } undefined $tools

        test {monitoring: a probe that has stopped: its metrics are old (38.5)} {
            # As if the timer had stopped 1,000 seconds ago.
            set text [read_text $textfiles/ocsp.prom]
            set old {}
            foreach line [split $text \n] {
                if {[regexp {^(ocsp_probe_time_seconds\{.*\}) (\d+)$} $line - name value]} {
                    set line "$name [expr {$value - 1000}]"
                }
                lappend old $line
            }
            set channel [open $textfiles/new w]
            puts -nonewline $channel [join $old \n]
            close $channel
            file rename -force $textfiles/new $textfiles/ocsp.prom
            wait_firing OcspProbeNotRunning $target(good)
            run_probe {*}$targets
            wait_for_condition 100 100 {![firing OcspProbeNotRunning $target(good)]} else {fail "it does not end"}
            wait_for_condition 100 100 {![firing OcspNodesUnknown $target(good)]} else {fail "it does not end"}
        } undefined $tools

        test {monitoring: CAs of the chain: one is revoked, and another's response is missing (38.8)} {
            run_probe {*}$targets
            set text [read_text $textfiles/ocsp.prom]
            # What a probe with OpenSSL 3.6 writes of a chain; this one may have an older OpenSSL.
            foreach {good revoked} {2 0 1 0 0 1} {
                set channel [open $textfiles/new w]
                foreach line [split $text \n] {
                    if {[string match *$target(good)* $line] && [string match {ocsp_probe_chain_*} $line]} continue
                    puts $channel $line
                    foreach {name value} [list certificates 2 good $good revoked $revoked] {
                        if {[string match "# TYPE ocsp_probe_chain_$name gauge" $line]} {
                            puts $channel "ocsp_probe_chain_$name{target=\"$target(good)\"} $value"
                        }
                    }
                }
                close $channel
                file rename -force $textfiles/new $textfiles/ocsp.prom
                wait_for_condition 100 100 {[query ocsp_probe_chain_good{target="$target(good)"}] eq $good} else {
                    fail "Prometheus has not read that $good responses are good"
                }
                foreach {alert fires} [list OcspChainNoLongerStapled [expr {$good < 2 && !$revoked}] OcspCaRevoked $revoked] {
                    wait_for_condition 100 100 {[firing $alert $target(good)] == $fires} else {
                        fail "$alert: $good good, $revoked revoked"
                    }
                }
            }
        } undefined $tools

        if {[info exists ::env(OCSP_PICTURES)]} {
            test {monitoring: pictures of the dashboard: refreshes, a revocation, an outage that outlasts the staple (38.7)} {
                set names [dict create $target(ending) refreshed $target(revoked) revoked $target(missing) outage]
                foreach name {ending revoked missing} {set serial($name) [dict get $leaves($name) serial]}
                set short {this 0 next +40}
                ocsp_responder_behave $responder $short
                after 1100 ;# the short responses are newer than the long ones
                ocsp_set stapling yes -2
                foreach level {0 -2 -3} {
                    r $level debug ocsp-refresh
                    wait_for_condition 200 50 {[ocsp_info state $level] eq "good"
                        && [ocsp_info expires_in_seconds $level] <= 40} else {fail [ocsp_situation $level]}
                }
                run_probe {*}[dict keys $names]
                after 2000 ;# a scrape
                set began [clock seconds]
                foreach {until outage status} {30 {} {} 80 {status unknown} {} 110 {status unknown} {status revoked}
                        150 {} {status revoked}} {
                    ocsp_responder_behave $responder [concat $short [list for [list $serial(missing) $outage \
                        $serial(revoked) $status $serial(ending) {}]]]
                    foreach level {-2 -3} {r $level debug ocsp-refresh}
                    while {[clock seconds] < $began + $until} {
                        run_probe {*}[dict keys $names]
                        after 1000
                    }
                }
                file mkdir $::env(OCSP_PICTURES)
                set panels {}
                foreach {title unit} {State {} {Validity left} seconds {Validity left, in part} part
                        {Age of the response} seconds {Certificate's validity left} seconds {Size of the response} bytes} {
                    lappend panels $title
                    lappend units [expr {$unit eq {} ? "-" : $unit}]
                    set expression [lindex [lsearch -inline -index 0 -exact [queries] $title] 1]
                    set path [file join $::env(OCSP_PICTURES) panel-[llength $panels].dat]
                    assert_morethan [write_range $path $expression $began 150 $names \
                        [expr {$title eq "State"}]] 100 $title
                }
                exec gnuplot -e "folder='$::env(OCSP_PICTURES)'; out='$::env(OCSP_PICTURES)/monitoring.svg';\
                    panels=\"[join $panels |]\"; units='$units'; servers='[dict values $names]'" \
                    $monitoring/dashboard.gp
            } undefined {needs:prometheus needs:prometheus-node-exporter needs:gnuplot}
        }

        test {monitoring: redis_exporter: drops what it does not know, and gets the numbers of INFO ocsp by a script (38.6)} {
            # INFO and INFO all, which collectors ask for, have no sections of modules.
            foreach {section present} {default 0 all 0 modules 1 everything 1 ocsp 1} {
                assert_equal [string match *ocsp_state:* [r -3 info $section]] $present $section
            }
            foreach {options present} [list {} 0 [list -script $monitoring/redis-exporter.lua] 1] {
                set port [find_available_port]
                set command [list prometheus-redis-exporter -redis.addr rediss://127.0.0.1:[srv -3 port] \
                    -tls-ca-cert-file [dict get $ca cert] -skip-tls-verification -web.listen-address 127.0.0.1:$port]
                start redis-exporter {*}$command {*}$options
                wait_for_condition 200 100 {
                    ![catch {get http://127.0.0.1:$port/metrics} text] && [string match "*\nredis_up 1\n*" $text]
                } else {fail $text}
                assert_equal [string match *ocsp_revoked* $text] $present
            }
            set numbers [dict map {name value} [ocsp_info_all -3] {
                if {![string is wideinteger -strict $value] || $name eq "cert_serial"} continue
                set value
            }]
            dict set numbers state_revoked 1
            assert_morethan [dict size $numbers] 20
            foreach {name value} $numbers {
                set found {}
                regexp "\\nredis_script_values{key=\"ocsp_$name\"} (\\S+)\\n" $text - found
                # Seconds and counters go on.
                if {![string is double -strict $found] || ($found != $value && ![string match *_in_seconds $name]
                    && ![string match handshakes_* $name])} {fail "ocsp_$name is $value, and for the exporter '$found'"}
            }
        } undefined {needs:prometheus-redis-exporter}
    }
    }
    }
    }
    }
    stop_started
} else {
    foreach {number what} {3 {the alerts fire} 4 {the dashboard's queries return data} 5 {old metrics} \
            6 {redis_exporter}} {
        test "monitoring: in a real Prometheus: $what (38.$number)" {} undefined $tools
    }
}
