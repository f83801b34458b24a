# server.tcl - servers for the suites: start_server, restart_server, srv, r, s, and procs that read their logs.
#
# A server listens on 127.0.0.1, on a plain port, for commands of the tests, and on a TLS port, which is tested. It
# has a directory of its own below the work directory, where its log (stdout, stderr) stays if a test failed. A shell
# command around each server records its pid and, when it ends, its exit status: so the runner kills only what it has
# started, and notices when a server dies.
#
# SPDX-License-Identifier: BSD-3-Clause

set ::servers {}        ;# the stack of running servers, innermost last; each a dict
set ::server_count 0

# ---- processes ------------------------------------------------------------------------------------------------------

# Starts `command` in the background, with its output appended to DIR/stdout and DIR/stderr, and returns its pid.
# `env` is a list NAME value ... to add to the environment. DIR/pid has the pid, DIR/exit the exit status once there
# is one.
proc start_process {dir command {env {}}} {
    file delete $dir/pid $dir/exit
    set assignments {}
    foreach {name value} $env {lappend assignments $name=$value}
    exec /bin/sh -c {
        dir=$1; shift
        "$@" >>"$dir/stdout" 2>>"$dir/stderr" </dev/null &
        echo $! >"$dir/pid.new" && mv "$dir/pid.new" "$dir/pid"
        wait $!
        echo $? >"$dir/exit.new" && mv "$dir/exit.new" "$dir/exit"
    } sh $dir env {*}$assignments {*}$command >/dev/null 2>/dev/null &
    while {![file exists $dir/pid]} {after 2}
    set pid [string trim [read_text $dir/pid]]
    report spawned $pid $dir
    return $pid
}

proc read_text {path} {
    if {[catch {open $path rb} channel]} {return {}}
    set text [read $channel]
    close $channel
    return $text
}

proc append_text {path text} {
    set channel [open $path a]
    puts -nonewline $channel $text
    close $channel
}

proc is_alive {pid} {
    # A zombie still has a directory in /proc, but no memory map.
    if {[catch {open /proc/$pid/stat r} channel]} {return 0}
    set stat [read $channel]
    close $channel
    return [expr {![regexp {\) [ZX] } $stat]}]
}

proc send_signal {pid name} {
    catch {exec kill -s $name $pid}
}

# Returns the exit status of the process started in `dir`, or "" while it runs. 128 + N means signal N.
proc exit_status {dir} {
    return [string trim [read_text $dir/exit]]
}

# Waits for a process to end and returns its status; after `seconds` kills it and returns "hung".
proc wait_exit {dir pid {seconds 30}} {
    for {set i 0} {$i < $seconds * 100 * $::patience} {incr i} {
        set status [exit_status $dir]
        if {$status ne {}} {return $status}
        after 10
    }
    send_signal $pid ABRT
    for {set i 0} {$i < 300 && [exit_status $dir] eq {}} {incr i} {after 10}
    if {[exit_status $dir] eq {}} {send_signal $pid KILL}
    return hung
}

# Returns a line of a server's log that shows a crash or a sanitizer's finding, or "". Logs may be long: a suite
# restarts a server hundreds of times.
proc log_trouble {dir} {
    foreach name {stdout stderr} {
        set text [read_text $dir/$name]
        foreach sign {
            {crashed by signal} {BUG REPORT START} {Sanitizer: } {runtime error: } {ASSERTION FAILED} {Guru Meditation}
        } {
            set at [string first $sign $text]
            if {$at < 0} continue
            set from [string last \n $text $at]
            return [lindex [split [string range $text $from+1 $at+1000] \n] 0]
        }
    }
    return {}
}

# Returns sentences about servers that ended unexpectedly, or whose logs have such a line; each server once.
proc servers_in_trouble {} {
    set found {}
    for {set i 0} {$i < [llength $::servers]} {incr i} {
        set server [lindex $::servers $i]
        if {[dict exists $server reported]} continue
        set dir [dict get $server dir]
        set status [exit_status $dir]
        set trouble [log_trouble $dir]
        if {$status ni {{} 0} || $trouble ne {}} {
            lappend found "The server on port [dict get $server port] [expr {$status eq {} ? "runs, but its log says"
                : "ended with status $status"}] $trouble"
            dict set server reported 1
            lset ::servers $i $server
        }
    }
    return $found
}

# ---- ports and directories -------------------------------------------------------------------------------------------

# Returns a port without a listener. Ports are taken from below the range for outgoing connections, from a part that
# other suites do not use at the same time; +10000 is still a valid port, for the cluster bus.
proc find_available_port {{start 0} {count 0}} {
    if {![info exists ::next_port]} {set ::next_port [expr {11000 + ($::slot * 700 + [pid] * 37) % 11000}]}
    for {set tries 0} {$tries < 3000} {incr tries} {
        set port $::next_port
        set ::next_port [expr {$port >= 21990 ? 11000 : $port + 1}]
        if {![catch {socket -server {} -myaddr 127.0.0.1 $port} probe]} {
            close $probe
            return $port
        }
    }
    error "no free port"
}

# Creates a directory under the suite's work directory.
proc tmpdir {name} {
    set dir [file join $::workdir $name.[incr ::server_count]]
    file mkdir $dir
    return $dir
}

proc tmpfile {name} {
    return [file join $::workdir $name.[incr ::server_count]]
}

# ---- the stack of servers -------------------------------------------------------------------------------------------

# srv ?level? property: a property of the innermost server, or with level -1, -2... of a server around it.
proc srv {args} {
    set level 0
    if {[string is integer -strict [lindex $args 0]]} {set args [lassign $args level]}
    return [dict get [lindex $::servers end+$level] [lindex $args 0]]
}

proc r {args} {
    set level 0
    if {[string is integer -strict [lindex $args 0]]} {set args [lassign $args level]}
    return [[srv $level client] {*}$args]
}

proc status {client field} {getInfoProperty [{*}$client info] $field}

proc s {args} {
    set level 0
    if {[string is integer -strict [lindex $args 0]]} {set args [lassign $args level]}
    return [status [srv $level client] [lindex $args 0]]
}

proc valkey_client {args} {
    set level 0
    if {[string is integer -strict [lindex $args 0]]} {set level [lindex $args 0]}
    return [valkey [srv $level host] [srv $level pport]]
}

proc valkey_deferring_client {args} {
    set level 0
    if {[string is integer -strict [lindex $args 0]]} {set level [lindex $args 0]}
    return [valkey [srv $level host] [srv $level pport] 1]
}

# Opens a new connection for `r`.
proc reconnect {{level 0}} {
    set server [lindex $::servers end+$level]
    if {[dict exists $server client]} {catch {[dict get $server client] close}}
    dict set server client [valkey [dict get $server host] [dict get $server pport]]
    lset ::servers end+$level $server
}

# ---- start and stop -------------------------------------------------------------------------------------------------

# Returns a line of a configuration file. Values that are already quoted stay as they are.
proc config_line {name value} {
    if {$value eq {}} {set value {""}}
    return "$name $value\n"
}

# start_server OPTIONS ?CODE?: starts a server, runs CODE with it as the innermost server, stops it. Options, a list:
#   overrides {name value ...}  directives      config_lines {name value ...}  further ones; names may repeat
#   omit {name ...}             directives to leave out
#   args {...}                  further arguments of the server
#   env {NAME value ...}        environment     keep_persistence, wait_ready   booleans
#   tags {...}                  see assert.tcl
# Without CODE, the server keeps running and its dict is returned; stop_server stops it.
proc start_server {options {code undefined}} {
    array set opt {
        overrides {} config_lines {} omit {} args {} env {} tags {} config {} keep_persistence 0 wait_ready 1
    }
    array set opt $options
    set tags_before $::tags
    lappend ::tags {*}$opt(tags)
    set refused [tags_refused $opt(tags)]
    if {$refused ne {}} {
        set ::tags $tags_before
        skip_test "$::curfile: a server tagged '$opt(tags)'" $refused
        return
    }
    set began [catch {launch_server [array get opt]} server]
    if {$began} {
        set ::tags $tags_before
        if {$::cur_test ne {}} {error $server}
        fail_test "(starting a server of $::curfile)" $server
        return
    }
    if {$code eq {undefined}} {
        set ::tags $tags_before
        return $server
    }
    set depth [llength $::servers]
    lappend ::servers $server
    if {$opt(wait_ready)} {reconnect}
    set failed [catch {uplevel 1 $code} result result_options]
    # First servers that CODE has left running, then this one, whose dict restart_server may have changed.
    while {[llength $::servers] > $depth + 1} {stop_server [pop_server]}
    set why [stop_server [pop_server]]
    set ::tags $tags_before
    if {$::cur_test ne {}} {
        # Inside a test, which fails.
        if {$failed == 1} {return -options $result_options $result}
        if {$why ne {}} {fail $why}
    } else {
        if {$failed == 1} {
            regsub {^assertion:} $result {} result
            append why "$result\n[join [lrange [split [dict get $result_options -errorinfo] \n] 1 8] \n]"
        }
        if {$why ne {}} {fail_test "(between the tests of $::curfile)" $why}
    }
    return
}

proc pop_server {} {
    set server [lindex $::servers end]
    set ::servers [lrange $::servers 0 end-1]
    return $server
}

proc launch_server {options} {
    array set opt $options
    set dir [tmpdir server]
    set ::last_log $dir/stdout
    set config [dict create \
        bind 127.0.0.1 dir $dir logfile {} daemonize no save {} appendonly no loglevel notice \
        always-show-logo no repl-diskless-sync-delay 0 shutdown-on-sigterm force \
        enable-protected-configs yes enable-debug-command yes enable-module-command yes \
        unixsocket $dir/socket]
    foreach {name value} $opt(overrides) {
        # What a slow server needs longer for, it would take for a failure.
        if {$name eq {cluster-node-timeout}} {set value [expr {$value * $::patience}]}
        dict set config $name $value
    }
    for {set attempt 0} {1} {incr attempt} {
        if {![dict exists $opt(overrides) port]} {dict set config port [find_available_port]}
        if {![dict exists $opt(overrides) tls-port]} {dict set config tls-port [find_available_port]}
        set live $config
        foreach name $opt(omit) {dict unset live $name}
        set text {}
        dict for {name value} $live {append text [config_line $name $value]}
        foreach {name value} $opt(config_lines) {append text [config_line $name $value]}
        file delete $dir/valkey.conf
        append_text $dir/valkey.conf $text
        if {$::cur_test ne {}} {append_text $dir/stdout "### Starting server for test $::cur_test\n"}
        set server [dict create dir $dir config_file $dir/valkey.conf config $live host 127.0.0.1 \
            stdout $dir/stdout stderr $dir/stderr unixsocket $dir/socket args $opt(args) env $opt(env) \
            port [dict get $config tls-port] pport [dict get $config port] keep $opt(keep_persistence)]
        dict set server pid [start_process $dir [list $::server_binary $dir/valkey.conf {*}$opt(args)] $opt(env)]
        set verdict [expr {$opt(wait_ready) ? [wait_ready $server 0] : "ready"}]
        if {$verdict eq "ready"} {return $server}
        if {$verdict eq "busy" && $attempt < 20} {
            wait_exit $dir [dict get $server pid]
            file rename -force $dir/stdout $dir/stdout.busy$attempt
            continue
        }
        send_signal [dict get $server pid] KILL
        error "The server did not start ($verdict); its log $dir/stdout ends:\n[join [lrange \
            [split [string trim "[read_text $dir/stdout][read_text $dir/stderr]"] \n] end-5 end] \n]"
    }
}

# Waits until the log says, after its first `from` bytes, that connections are accepted. Returns "ready", "busy" (a port
# was taken) or a description of what happened instead.
proc wait_ready {server from} {
    set dir [dict get $server dir]
    # Since Valkey 7.2 the log has a line for each kind of connection; older servers write one line for all.
    set sign [expr {[dict get $server port] == 0 ? {connections( tcp|\s)} : {connections( tls|\s*\n)}}]
    for {set i 0} {$i < 3000 * $::patience} {incr i} {
        set log [string range [read_text $dir/stdout] $from end]
        if {[regexp "Ready to accept $sign" $log]} {return ready}
        set status [exit_status $dir]
        if {$status ne {}} {
            return [expr {[regexp {in use|Failed listening} $log] ? "busy" : "it ended with status $status"}]
        }
        after 10
    }
    return "it was not ready after [expr {30 * $::patience}] seconds"
}

# Stops a server with SIGTERM. Returns what was wrong with it, or "".
proc stop_server {server} {
    if {[dict exists $server client]} {catch {[dict get $server client] close}}
    set dir [dict get $server dir]
    set pid [dict get $server pid]
    set terminated 0
    if {[exit_status $dir] eq {}} {
        send_signal $pid CONT
        send_signal $pid TERM
        set terminated 1
    }
    set status [wait_exit $dir $pid]
    report gone $pid
    set trouble [log_trouble $dir]
    if {[dict exists $server reported]} {return {}}
    if {$trouble ne {}} {return "The server in $dir: $trouble"}
    if {$status eq "hung"} {return "The server in $dir did not end on SIGTERM"}
    if {$status != 0 && ![dict exists $server may_die]} {
        return "The server in $dir ended with status $status [expr {$terminated ? "on SIGTERM" : "by itself"}]"
    }
    if {!$::keep && ![dict get $server keep]} {
        # Data may be large. Logs and configuration stay.
        file delete -force {*}[glob -nocomplain $dir/*.rdb $dir/appendonlydir]
    }
    return {}
}

# As in Valkey's runner.
proc kill_server {server} {stop_server $server}

proc stop_all_servers {} {
    while {[llength $::servers] > 0} {catch {stop_server [pop_server]}}
}

# restart_server LEVEL WAIT_READY ROTATE_LOGS ?RECONNECT? ?HOW?: ends the server with SIGTERM (HOW sigterm), SIGKILL
# (sigkill) or SHUTDOWN HOW, and starts it again with its configuration file as it is now.
proc restart_server {level wait_ready rotate_logs {reconnect 1} {how sigterm}} {
    set server [lindex $::servers end+$level]
    set dir [dict get $server dir]
    if {$how eq "sigkill"} {
        send_signal [dict get $server pid] KILL
        wait_exit $dir [dict get $server pid]
    } elseif {$how ne "sigterm"} {
        catch {[dict get $server client] shutdown $how}
    }
    if {[dict exists $server client]} {catch {[dict get $server client] close}}
    dict unset server client
    dict set server keep 1
    if {$how ne "sigkill"} {
        set why [stop_server $server]
        if {$why ne {}} {fail $why}
    }
    if {$rotate_logs} {
        file rename -force $dir/stdout $dir/stdout.[clock milliseconds]
    }
    set before [string length [read_text $dir/stdout]]
    if {$::cur_test ne {}} {append_text $dir/stdout "### Restarting server for test $::cur_test\n"}
    dict set server pid [start_process $dir [list $::server_binary [dict get $server config_file] \
        {*}[dict get $server args]] [dict get $server env]]
    if {$wait_ready} {
        set verdict [wait_ready $server $before]
        if {$verdict ne "ready"} {fail "The server did not start again: $verdict"}
    }
    lset ::servers end+$level $server
    if {$reconnect} {reconnect $level}
}

# Allows a server to end with any exit status.
proc server_may_die {{level 0}} {
    set server [lindex $::servers end+$level]
    dict set server may_die 1
    lset ::servers end+$level $server
}

# ---- logs -----------------------------------------------------------------------------------------------------------

proc note_in_log {server line} {
    catch {append_text [dict get $server stdout] $line\n}
}

proc log_lines {level} {
    return [split [string trimright [read_text [srv $level stdout]] \n] \n]
}

proc count_log_lines {level} {llength [log_lines $level]}

# Returns how many lines contain `text`. (Valkey's proc takes a basic regular expression: use no special characters.)
proc count_log_message {level text} {
    set found 0
    foreach line [log_lines $level] {
        if {[string first $text $line] >= 0 && ![string match {### *} $line]} {incr found}
    }
    return $found
}

# Waits for a line after line `from` that matches one of `patterns`. Returns the line and its number.
proc wait_for_log_messages {level patterns from maxtries delay} {
    for {set i 0} {$i < $maxtries * $::patience} {incr i} {
        set number $from
        foreach line [lrange [log_lines $level] $from end] {
            incr number
            foreach pattern $patterns {
                if {[string match $pattern $line]} {return [list $line $number]}
            }
        }
        after $delay
    }
    fail "No line like '$patterns' in [srv $level stdout] after line $from"
}

proc verify_log_message {level pattern from} {
    foreach line [lrange [log_lines $level] $from end] {
        if {[string match $pattern $line]} return
    }
    fail "No line like '$pattern' in [srv $level stdout] after line $from"
}

proc verify_no_log_message {level pattern from} {
    foreach line [lrange [log_lines $level] $from end] {
        if {[string match $pattern $line]} {fail "A line like '$pattern' in [srv $level stdout]: $line"}
    }
}

# ---- waiting for servers --------------------------------------------------------------------------------------------

proc wait_for_sync {client} {
    wait_for_condition 300 100 {[status $client master_link_status] eq "up"} else {
        fail "the replica did not synchronize"
    }
}

proc waitForBgsave {client} {
    wait_for_condition 600 50 {[status $client rdb_bgsave_in_progress] eq 0} else {fail "BGSAVE did not end"}
}

proc waitForBgrewriteaof {client} {
    wait_for_condition 600 50 {
        [status $client aof_rewrite_in_progress] eq 0 && [status $client aof_rewrite_scheduled] eq 0
    } else {
        fail "BGREWRITEAOF did not end"
    }
}
