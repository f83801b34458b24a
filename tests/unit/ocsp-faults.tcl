# ocsp-faults.tcl - faults on a real server (scenario 33): allocations of the module that fail one at a time, no file
# descriptors left, a disk that is really full, interrupted system calls, a responder that is stopped during its answer,
# the server killed at each step of writing the cache and at random moments.
#
# After each fault the server runs (or was killed by the test), nothing but a valid response was stapled, and once the
# fault is over the server staples again by itself.
#
# Environment: FAULT_ALLOCATIONS, how many allocations of each phase fail (default 20, chosen at random; "all": every
# one in turn); FAULT_KILLS, how many times the server is killed at a random moment (default 25).
#
# Weight: 60
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

proc environment {name default} {
    return [expr {[info exists ::env($name)] && $::env($name) ne {} ? $::env($name) : $default}]
}

set allocations [environment FAULT_ALLOCATIONS 20]
set kills [environment FAULT_KILLS 25]

ocsp_setup
set second [ocsp_lab_leaf $lab second]
set cache [file join $dir cache]
file mkdir $cache
set file [ocsp_cache_file $cache $leaf]

# ---- control of support/fault_nth.c ----------------------------------------------------------------------------------

set control [tmpfile control]
ocsp_file_write $control [string repeat \0 56]

proc control_set {index value} {
    set channel [open $::control r+b]
    seek $channel [expr {$index * 8}]
    puts -nonewline $channel [binary format w $value]
    close $channel
}

proc control_get {index} {
    binary scan [ocsp_file_read $::control] w* all
    return [lindex $all $index]
}

# Makes the N-th allocation from now on fail; 0: none.
proc fail_allocation {n} {
    control_set 0 0
    control_set 1 0
    control_set 2 0
    control_set 0 $n
}

proc kill_at_step {n} {
    control_set 3 0
    control_set 4 0
    control_set 3 $n
}

# Returns which of the allocations 1 ... `count` are to fail, in order: all of them, or some at random.
proc chosen {count} {
    if {$::allocations eq "all" || $::allocations >= $count} {
        set which {}
        for {set i 1} {$i <= $count} {incr i} {lappend which $i}
        return $which
    }
    for {set i 0} {$i < $::allocations} {incr i} {lappend which [expr {1 + [randomInt $count]}]}
    return [lsort -integer -unique $which]
}

# Prints progress every 20 seconds, so that the runner sees that a long test goes on.
proc progress {what done count} {
    if {![info exists ::printed_at]} {set ::printed_at [clock seconds]}
    if {[clock seconds] - $::printed_at < 20} return
    set ::printed_at [clock seconds]
    puts "$what: $done of $count"
}

# Asserts that handshakes complete, with a good staple or none. Returns which.
proc assert_good_or_none {when} {
    set staple [ocsp_staple]
    if {$staple ni {good none}} {fail "$when: the staple is $staple"}
    return $staple
}

set preload [list LD_PRELOAD [ocsp_tool fault_nth] FAULT_NTH $control FAULT_WARM [dict get $leaf cert]]
set server [concat [ocsp_server $leaf $ca cache-dir $cache retry-delay 1 timeout 2] [list env $preload]]

# ---- memory ----------------------------------------------------------------------------------------------------------

# Counts the allocations of one start, then starts a server for each of those that are to fail.
test {memory: each allocation of the start fails in turn: the server runs, and staples once memory is back (33.1)} {
    ocsp_responder_behave $responder {next 7200}
    fail_allocation [expr {1 << 60}]
    start_server $server {
        ocsp_wait_info state good
        ocsp_assert_good $ca
        set count [control_get 1]
    }
    assert_morethan $count 500
    set refused 0
    set done 0
    set not_loaded 0
    set which [chosen $count]
    foreach n $which {
        progress "starts" [incr done] [llength $which]
        file delete -force {*}[glob -nocomplain $cache/*]
        fail_allocation $n
        if {[catch {start_server $server} instance]} {
            # Without memory to load it, the module refuses, the log says so, and the server does not start.
            fail_allocation 0
            set log_dir [file dirname $::last_log]
            assert_equal [exit_status $log_dir] 1 "allocation $n"
            assert_match "*the module cannot be loaded*" [read_text $::last_log] "allocation $n"
            incr not_loaded
            incr refused
            continue
        }
        lappend ::servers $instance
        reconnect
        assert_good_or_none "allocation $n of the start"
        wait_for_condition 100 20 {[control_get 2] || [ocsp_info state] eq "good"} else {
            fail "allocation $n did not fail, and no staple came: [ocsp_situation]"
        }
        incr refused [control_get 2]
        fail_allocation 0
        ocsp_wait_staple good
        assert_equal [r ping] PONG
        set why [stop_server [pop_server]]
        if {$why ne {}} {fail "allocation $n: $why"}
    }
    puts "start: $count allocations until the first staple; $refused of the $done chosen ones failed,\
        $not_loaded of them before the module was loaded"
    # The number of allocations varies a little (a new connection, the first error of a second thread).
    assert_morethan $refused [expr {$done * 9 / 10 - 2}]
}

start_server $server {
    fail_allocation 0
    ocsp_wait_info state good

    # Runs `code` with one failing allocation after another; `recovered` must become true after each. `prepare` runs
    # first.
    proc walk {name prepare code recovered} {
        # The first run makes allocations that no later one makes again. The smaller of two counts, because a refresh of
        # the server's own may fall into one.
        set counts {}
        foreach run {first second third} {
            uplevel 1 $prepare
            fail_allocation [expr {1 << 60}]
            uplevel 1 $code
            lappend counts [control_get 1]
        }
        set count [expr {min([lindex $counts 1], [lindex $counts 2])}]
        set done 0
        set refused 0
        set which [chosen $count]
        foreach n $which {
            progress $name [incr done] [llength $which]
            fail_allocation 0
            uplevel 1 $prepare
            fail_allocation $n
            if {[catch {uplevel 1 $code} why] && ![string match {*memory*} $why]} {fail "$name, allocation $n: $why"}
            assert_good_or_none "$name, allocation $n"
            incr refused [control_get 2]
            fail_allocation 0
            wait_for_condition 300 50 {[uplevel 1 [list expr $recovered]]} else {
                fail "$name: no recovery from the failure of allocation $n ([ocsp_situation])"
            }
            assert_equal [r ping] PONG
        }
        puts "$name: $count allocations; $refused of the $done chosen ones failed"
        assert_morethan $refused [expr {$done / 2}]
    }

    # Waits until the refresh has ended or an allocation has failed.
    proc wait_for_outcome {} {
        for {set i 0} {$i < 40 && ![control_get 2] && [ocsp_info state] ne "good"} {incr i} {after 25}
        ocsp_staple
        ocsp_staple 0 -tls1_2
    }

    test {memory: each allocation of a reload with another certificate fails in turn (33.2)} {
        walk reload {
            ocsp_load_certificate $second
            ocsp_wait_info cert_serial [dict get $second serial]
            file delete -force {*}[glob -nocomplain $cache/*]
        } {
            ocsp_load_certificate $leaf
            wait_for_outcome
        } {
            [ocsp_info cert_serial] eq [dict get $leaf serial] && [ocsp_staple] eq "good"
        }
    }

    test {memory: each allocation of a refresh fails in turn: the current response stays (33.3)} {
        walk refresh {
            ocsp_staple
        } {
            catch {r ocsp.refresh}
            ocsp_staple
        } {
            [ocsp_staple] eq "good" && ![catch {r ocsp.refresh}]
        }
    }

    test {memory: each allocation of reading a response file fails in turn (33.4)} {
        set supplied [file join $dir supplied.der]
        ocsp_response_file $supplied $leaf $ca {next 7200}
        walk "response file" {
            ocsp_set response-file {}
            wait_for_condition 200 50 {![catch {r ocsp.refresh}] && [ocsp_info response_source] eq "network"} else {
                fail "no fetch after the response file was removed: [ocsp_situation]"
            }
        } {
            ocsp_set response-file $supplied
            for {set i 0} {$i < 60 && ![control_get 2] && [ocsp_info response_source] ne "file"} {incr i} {after 25}
            ocsp_staple
        } {
            [ocsp_get response-file] ne $supplied && [ocsp_set response-file $supplied] eq {} ||
            [ocsp_info response_source] eq "file" && [ocsp_staple] eq "good"
        }
        ocsp_set response-file {}
    }

    test {memory: allocations that fail while the server exits do not change the exit (33.5)} {
        foreach n {1 2 3 5 8} {
            ocsp_wait_info state good
            set busy [valkey_deferring_client]
            for {set i 0} {$i < 50} {incr i} {$busy ocsp.refresh}
            fail_allocation $n
            send_signal [srv pid] TERM
            assert_equal [wait_exit [srv dir] [srv pid]] 0 "allocation $n"
            fail_allocation 0
            catch {$busy close}
            restart_server 0 true false
            ocsp_wait_staple good
        }
    }
}

# ---- file descriptors ------------------------------------------------------------------------------------------------

start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 1 timeout 2] {
    # Lowers the limit to the number of descriptors that are open now.
    proc no_more_descriptors {} {
        # The next call would get the lowest number that is free.
        set open [lsort -integer [glob -tails -directory /proc/[srv pid]/fd *]]
        set free 0
        while {$free in $open} {incr free}
        exec prlimit --pid [srv pid] --nofile=$free:
    }

    test {descriptors: with none left, fetches, stores and files fail with a reason, and recover (33.6)} {
        ocsp_wait_info state good
        set before [lindex [exec prlimit --pid [srv pid] --nofile --output SOFT --noheadings] 0]
        set supplied [file join $dir supplied.der]
        ocsp_response_file $supplied $leaf $ca {next 7200}

        no_more_descriptors
        assert_error {*Too many open files*} {r ocsp.refresh}
        assert_equal [ocsp_info state] good
        ocsp_set response-file $supplied
        assert_error {*Too many open files*} {r ocsp.refresh}
        assert_equal [r ping] PONG
        exec prlimit --pid [srv pid] --nofile=$before:
        ocsp_wait_info response_source file
        ocsp_assert_good $ca

        # The fetch gives its descriptor back, and then there is none for the file.
        ocsp_set response-file {}
        ocsp_refresh
        file delete $file
        ocsp_set cache-dir {}
        ocsp_refresh ;# the thread has seen cache-dir change, so it will notice the next change
        no_more_descriptors
        ocsp_set cache-dir $cache
        wait_for_condition 200 50 {[llength [ocsp_log_lines 0 {*cannot write OCSP cache*Too many open files*}]] > 0} else {
            fail "the log does not say that the response could not be stored: [ocsp_log_lines]"
        }
        exec prlimit --pid [srv pid] --nofile=$before:
        ocsp_pass_this_update
        ocsp_refresh
        ocsp_wait_file $file
        ocsp_assert_good $ca
    } {undefined} {needs:prlimit}
}

# ---- a full disk -----------------------------------------------------------------------------------------------------

# A file system of 64 kB in memory, in a mount namespace of the server's own.
set disk [file join $dir disk]
file mkdir $disk
set wrapper [file join $dir with-disk]
ocsp_file_write $wrapper "#!/bin/sh\nmount -t tmpfs -o size=64k,mode=777 none '$disk' && exec '$::server_binary' \"\$@\"\n"
file attributes $wrapper -permissions 00755
if {[catch {exec unshare --mount --propagation private mount -t tmpfs -o size=64k none $disk} why]} {
    skip_test {full disk: a real file system (33.7)} "this user may not mount a file system (run as root): $why"
} else {
    set binary $::server_binary
    set ::server_binary [auto_execok unshare]
    # start_server passes the configuration file first, so unshare gets its arguments from a script.
    set outer [file join $dir in-namespace]
    ocsp_file_write $outer "#!/bin/sh\nexec unshare --mount --propagation private '$wrapper' \"\$@\"\n"
    file attributes $outer -permissions 00755
    set ::server_binary $outer
    start_server [ocsp_server $leaf $ca cache-dir $disk retry-delay 1] {
        set ::server_binary $binary
        test {full disk: a warning, the stored file stays whole, no temporary file, stored once there is room (33.7)} {
            # The path in the server's mount namespace.
            set seen /proc/[srv pid]/root$disk
            set kept [file join $seen [file tail $file]]
            ocsp_wait_info state good
            ocsp_wait_file $kept
            set stored [ocsp_file_read $kept]
            catch {exec dd if=/dev/zero of=$seen/fill bs=4k 2>@1}
            ocsp_pass_this_update
            ocsp_refresh
            assert_equal [dict get [ocsp_handshake] this] [ocsp_info this_update]
            wait_for_condition 100 50 {[llength [ocsp_log_lines 0 {*No space left*}]] > 0} else {
                fail "the full disk is not in the log: [ocsp_log_lines]"
            }
            assert_equal [ocsp_file_read $kept] $stored
            assert_equal [lsort [glob -tails -directory $seen *]] [lsort [list fill [file tail $file]]]
            file delete $seen/fill
            ocsp_pass_this_update
            ocsp_refresh
            wait_for_condition 100 50 {[ocsp_file_read $kept] ne $stored} else {fail "not stored once there was room"}
            ocsp_assert_good $ca
        }
    }
    set ::server_binary $binary
}

# ---- interrupted calls -----------------------------------------------------------------------------------------------

file delete -force {*}[glob -nocomplain $cache/*]
control_set 5 1
start_server [concat [ocsp_server $leaf $ca cache-dir $cache retry-delay 1 timeout 30] \
    [list env [concat $preload {FAULT_STORM 100}]]] {
    test {signals: the thread's system calls are interrupted all the time: fetches, stores and waits work (33.8)} {
        foreach behaviour {good pieces {next 7200 piece 200 piece_ms 1} no-length post-405} {
            ocsp_responder_behave $responder $behaviour
            assert_equal [r ocsp.refresh] OK $behaviour
            ocsp_assert_staple good
        }
        ocsp_wait_file $file
        assert_equal [ocsp_info refresh_failures] 0
        wait_for_condition 600 50 {[control_get 6] > 1000} else {fail "only [control_get 6] signals"}
        # Waiting for a responder that does not answer, it neither gives up early nor keeps the processor busy.
        ocsp_responder_behave $responder hang
        ocsp_set timeout 2
        set began [clock milliseconds]
        assert_error {*in time*} {r ocsp.refresh}
        assert_morethan_equal [expr {[clock milliseconds] - $began}] 1900
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        puts "signals: [control_get 6] to the thread"
    }
}
control_set 5 0

# ---- a responder that is stopped -------------------------------------------------------------------------------------

start_server [ocsp_server $leaf $ca cache-dir {} retry-delay 1 timeout 2] {
    proc stopped_in {behaviour} {
        upvar 1 responder responder
        ocsp_responder_behave $responder good
        ocsp_wait_info state good
        ocsp_responder_behave $responder $behaviour
        set failures [ocsp_info refresh_failures]
        if {$behaviour eq "good"} {
            # The kernel accepts connections, and nobody reads from them.
            exec kill -s STOP [dict get $responder pid]
            r debug ocsp-refresh
        } else {
            ocsp_responder_forget $responder
            r debug ocsp-refresh
            ocsp_responder_wait $responder 1
            after 300
            exec kill -s STOP [dict get $responder pid]
        }
        set failed [catch {
            ocsp_assert_staple good
            ocsp_wait_above refresh_failures $failures
            assert_equal [ocsp_info last_error_code] timeout
            ocsp_assert_staple good
            assert_equal [r ping] PONG
        } why]
        exec kill -s CONT [dict get $responder pid]
        if {$failed} {fail $why}
        ocsp_responder_behave $responder good
        ocsp_wait_info consecutive_failures 0
        ocsp_assert_staple good
    }

    test {stopped responder: SIGSTOP before it accepts: timeout, handshakes go on, SIGCONT ends the outage (33.9)} {
        stopped_in good
    }
    test {stopped responder: SIGSTOP during the header of its answer: the same (33.10)} {
        stopped_in drip
    }
    test {stopped responder: SIGSTOP during the body of its answer: the same (33.11)} {
        stopped_in {piece 100 piece_ms 200}
    }
}

# ---- killed ----------------------------------------------------------------------------------------------------------

proc our_files {} {lsort [glob -nocomplain -tails -directory $::cache ocsp-*]}

# Makes temporary files that a kill has left an hour old, so that the next store removes them. Returns how many were
# newer.
proc age_leftovers {} {
    set found 0
    foreach name [our_files] {
        set path [file join $::cache $name]
        if {$name eq [file tail $::file] || [file mtime $path] < [clock seconds] - 3600} continue
        file mtime $path [expr {[clock seconds] - 3700}]
        incr found
    }
    return $found
}

# Asserts that the cache has a whole response, and that a restart with the responder down staples it from the start.
proc assert_cached {when} {
    upvar #0 file file
    if {![file exists $file]} {fail "$when: the file is gone"}
    assert_equal [dict get [ocsp_response_info [ocsp_file_read $file]] response_status] successful $when
    restart_server 0 true false
    assert_equal [ocsp_staple] good $when
    assert_equal [ocsp_info response_source] cache $when
    assert_equal [ocsp_info handshakes_unstapled] 0 $when
}

file delete -force {*}[glob -nocomplain $cache/*]
kill_at_step 0
ocsp_responder_behave $responder {next 7200}
start_server $server {
    test {kill: at each step of writing the cache: the cached response is stapled after the restart (33.12)} {
        ocsp_wait_info state good
        ocsp_wait_file $file
        kill_at_step [expr {1 << 60}]
        ocsp_pass_this_update
        assert_equal [r ocsp.refresh] OK
        set steps [control_get 4]
        # Create, set the mode, write and half of a write, sync, close, rename, sync and close the directory.
        assert_morethan_equal $steps 9
        server_may_die
        set leftovers 0
        for {set n 1} {$n <= $steps} {incr n} {
            ocsp_responder_behave $responder {next 7200}
            ocsp_wait_info state good
            ocsp_pass_this_update
            kill_at_step $n
            catch {r ocsp.refresh}
            wait_for_condition 400 10 {[exit_status [srv dir]] ne {}} else {fail "step $n of $steps: not killed"}
            kill_at_step 0
            ocsp_responder_behave $responder {drop close}
            assert_cached "step $n of $steps"
            incr leftovers [age_leftovers]
        }
        # Kills that leave no temporary file have missed the write.
        assert_morethan $leftovers 3
        ocsp_responder_behave $responder {next 7200}
        ocsp_pass_this_update
        assert_equal [r ocsp.refresh] OK
        wait_for_condition 100 50 {[our_files] eq [list [file tail $file]]} else {fail "left over: [our_files]"}
        puts "kill: $steps steps, $leftovers of the kills left a temporary file"
    }

    test "kill: SIGKILL at $kills random moments loses no cached response (33.13)" {
        server_may_die
        set down 0
        set leftovers 0
        ocsp_responder_behave $responder {next 7200}
        ocsp_wait_info state good
        ocsp_wait_file $file
        for {set i 1} {$i <= $kills} {incr i} {
            progress "kills" $i $kills
            # Another response may be about to be stored at this moment.
            set busy [valkey_deferring_client]
            for {set j [randomInt 4]} {$j > 0} {incr j -1} {$busy ocsp.refresh}
            after [randomInt 80]
            send_signal [srv pid] KILL
            wait_exit [srv dir] [srv pid]
            catch {$busy close}
            set kept [ocsp_file_read $file]
            set info [ocsp_response_info $kept]
            assert_equal [dict get $info response_status] successful "kill $i"
            # At random the responder is down, and only the cache has a response.
            set down [randomInt 2]
            ocsp_responder_behave $responder [expr {$down ? {drop close} : {next 7200}}]
            if {[randomInt 4] == 0} {
                # Killed again while it starts.
                restart_server 0 false false 0
                after [randomInt 60]
                send_signal [srv pid] KILL
                wait_exit [srv dir] [srv pid]
            }
            restart_server 0 true false
            assert_equal [ocsp_staple] good "kill $i, the responder is [expr {$down ? "down" : "up"}]"
            assert_equal [ocsp_info handshakes_unstapled] 0 "kill $i"
            incr leftovers [age_leftovers]
            if {$down} {ocsp_responder_behave $responder {next 7200}}
        }
        ocsp_pass_this_update
        assert_equal [r ocsp.refresh] OK
        wait_for_condition 100 50 {[our_files] eq [list [file tail $file]]} else {fail "left over: [our_files]"}
        puts "kill: killed $kills times, $leftovers times during a write"
    }
}
