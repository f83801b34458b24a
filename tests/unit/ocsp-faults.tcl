# ocsp-faults.tcl - scenario 33: faults on the real server. Allocations of the module that fail one at a time, no file
# descriptors left, a disk that is really full, calls that are interrupted, the server killed at each step of writing
# the cache and at any moment, a responder that is stopped in the middle.
#
# After each: the server lives (or is killed by us), nothing that is not valid was stapled, and when the fault is over
# the staple comes by itself.
#
# In the environment: FAULT_ALLOCATIONS is how many allocations of each phase are refused (default 20, chosen by chance;
# "all": every one in turn); FAULT_KILLS how many times the server is killed at a random moment (default 25).
#
# Weight: 60
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

proc environment {name default} {
    return [expr {[info exists ::env($name)] && $::env($name) ne {} ? $::env($name) : $default}]
}

set allocations [environment FAULT_ALLOCATIONS 20]
set kills [environment FAULT_KILLS 25]

set lab [ocsp_lab]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set second [ocsp_lab_leaf $lab second]
set responder [dict get $lab responder]
set cache [file join [dict get $lab dir] cache]
file mkdir $cache
set file [file join $cache ocsp-[ocsp_cert_sha256 [dict get $leaf cert]].der]

# ---- the control of support/fault_nth.c ------------------------------------------------------------------------------

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

# The N-th allocation from now on fails; 0: none.
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

# Which of 1 ... `count` are tried: all, or some by chance, in order.
proc chosen {count} {
    if {$::allocations eq "all" || $::allocations >= $count} {
        set which {}
        for {set i 1} {$i <= $count} {incr i} {lappend which $i}
        return $which
    }
    for {set i 0} {$i < $::allocations} {incr i} {lappend which [expr {1 + [randomInt $count]}]}
    return [lsort -integer -unique $which]
}

# So that a long walk is seen to go on; what is no event goes to the screen as it is.
proc progress {what done count} {
    if {![info exists ::told_at]} {set ::told_at [clock seconds]}
    if {[clock seconds] - $::told_at < 20} return
    set ::told_at [clock seconds]
    puts "$what: $done of $count"
}

# A staple that is there must hold, whatever is going on.
proc assert_nothing_wrong {when} {
    set staple [ocsp_staple]
    if {$staple ni {good none}} {fail "$when: the staple is $staple"}
    return $staple
}

set preload [list LD_PRELOAD [ocsp_tool fault_nth] FAULT_NTH $control FAULT_WARM [dict get $leaf cert]]
set server [concat [ocsp_server $leaf $ca cache-dir $cache retry-delay 1 timeout 2] [list env $preload]]

# ---- memory ----------------------------------------------------------------------------------------------------------

# Counts what one start needs, then starts anew for each of them.
test {33.1 each allocation of the module's start fails in turn: the server lives, and is stapled once memory is back} {
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
    set not_begun 0
    set which [chosen $count]
    foreach n $which {
        progress "starts" [incr done] [llength $which]
        file delete -force {*}[glob -nocomplain $cache/*]
        fail_allocation $n
        if {[catch {start_server $server} instance]} {
            # Without the memory to be loaded the module says no, and the server does not start. It must say so.
            fail_allocation 0
            set dir [file dirname $::last_log]
            assert_equal [exit_status $dir] 1 "allocation $n"
            assert_match "*the module cannot be loaded*" [read_text $::last_log] "allocation $n"
            incr not_begun
            incr refused
            continue
        }
        lappend ::servers $instance
        reconnect
        assert_nothing_wrong "allocation $n of the start"
        wait_for_condition 100 20 {[control_get 2] || [ocsp_info state] eq "good"} else {
            fail "allocation $n: [ocsp_situation]"
        }
        incr refused [control_get 2]
        fail_allocation 0
        ocsp_wait_staple good
        assert_equal [r ping] PONG
        set why [stop_server [pop_server]]
        if {$why ne {}} {fail "allocation $n: $why"}
    }
    puts "33.1: $count allocations from the start to the staple; $refused of $done tried were refused,\
        $not_begun of them before the module was loaded"
    # Chance decides a little about how many there are (a new connection, a second thread's first error).
    assert_morethan $refused [expr {$done * 9 / 10 - 2}]
}

start_server $server {
    fail_allocation 0
    ocsp_wait_info state good

    # `code` runs with one allocation failing after another; `heal` must then come true. `prepare` runs before each.
    proc walk {name prepare code heal} {
        uplevel 1 $prepare
        fail_allocation [expr {1 << 60}]
        uplevel 1 $code
        set count [control_get 1]
        set done 0
        set refused 0
        set which [chosen $count]
        foreach n $which {
            progress $name [incr done] [llength $which]
            fail_allocation 0
            uplevel 1 $prepare
            fail_allocation $n
            if {[catch {uplevel 1 $code} why] && ![string match {*memory*} $why]} {fail "$name, allocation $n: $why"}
            assert_nothing_wrong "$name, allocation $n"
            incr refused [control_get 2]
            fail_allocation 0
            wait_for_condition 300 50 {[uplevel 1 [list expr $heal]]} else {
                fail "$name: not well again after allocation $n was refused ([ocsp_situation])"
            }
            assert_equal [r ping] PONG
        }
        puts "$name: $count allocations; $refused of $done tried were refused"
        assert_morethan $refused [expr {$done / 2}]
    }

    # Until the round that was asked for is over, one way or the other.
    proc let_it_run {} {
        for {set i 0} {$i < 40 && ![control_get 2] && [ocsp_info state] ne "good"} {incr i} {after 25}
        ocsp_staple
        ocsp_staple 0 -tls1_2
    }

    test {33.2 each allocation of a reload of another certificate fails in turn} {
        walk "33.2" {
            ocsp_load_certificate $second
            ocsp_wait_info cert_serial [dict get $second serial]
            file delete -force {*}[glob -nocomplain $cache/*]
        } {
            ocsp_load_certificate $leaf
            let_it_run
        } {
            [ocsp_info cert_serial] eq [dict get $leaf serial] && [ocsp_staple] eq "good"
        }
    }

    test {33.3 each allocation of a refresh fails in turn: what is held stays, and is refreshed afterwards} {
        walk "33.3" {
            ocsp_staple
        } {
            catch {r ocsp.refresh}
            ocsp_staple
        } {
            [ocsp_staple] eq "good" && ![catch {r ocsp.refresh}]
        }
    }

    test {33.4 each allocation of reading a response file fails in turn} {
        set supplied [file join [dict get $lab dir] supplied.der]
        ocsp_response_file $supplied $leaf $ca {next 7200}
        walk "33.4" {
            ocsp_set response-file {}
            wait_for_condition 200 50 {![catch {r ocsp.refresh}] && [ocsp_info response_source] eq "network"} else {
                fail "not asked again: [ocsp_situation]"
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

    test {33.5 allocations fail while the server exits: it exits as ever} {
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
    # As many as are open now, or the limit of before.
    proc no_more_descriptors {} {
        # The lowest free number is the one that the next call would get.
        set open [lsort -integer [glob -tails -directory /proc/[srv pid]/fd *]]
        set free 0
        while {$free in $open} {incr free}
        exec prlimit --pid [srv pid] --nofile=$free:
    }

    test {33.6 no file descriptors: fetches, stores and files fail with a reason, and are well again with them} {
        ocsp_wait_info state good
        set before [lindex [exec prlimit --pid [srv pid] --nofile --output SOFT --noheadings] 0]
        set supplied [file join [dict get $lab dir] supplied.der]
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

        # Between the answer and the disk: the descriptor that the fetch gives back is all there is, and then it is gone.
        ocsp_set response-file {}
        ocsp_round
        file delete $file
        ocsp_set cache-dir {}
        ocsp_round ;# by now the thread knows of the change, and will of the next
        no_more_descriptors
        ocsp_set cache-dir $cache
        wait_for_condition 200 50 {[llength [ocsp_log_lines 0 {*cannot write OCSP cache*Too many open files*}]] > 0} else {
            fail "no word that it cannot be stored: [ocsp_log_lines]"
        }
        exec prlimit --pid [srv pid] --nofile=$before:
        while {[clock seconds] <= [ocsp_info this_update]} {after 50}
        ocsp_round
        wait_for_condition 200 50 {[file exists $file]} else {fail "not stored when there were descriptors again"}
        ocsp_assert_good $ca
    } {undefined} {needs:prlimit}
}

# ---- a full disk -----------------------------------------------------------------------------------------------------

# The file system of the test's own: 64 kB of memory, in a mount namespace that only the server lives in.
set disk [file join [dict get $lab dir] disk]
file mkdir $disk
set wrapper [file join [dict get $lab dir] with-disk]
ocsp_file_write $wrapper "#!/bin/sh\nmount -t tmpfs -o size=64k,mode=777 none '$disk' && exec '$::server_binary' \"\$@\"\n"
file attributes $wrapper -permissions 00755
if {[catch {exec unshare --mount --propagation private mount -t tmpfs -o size=64k none $disk} why]} {
    skip_test {33.7 a disk that is really full} "this user may not mount a file system (run as root): $why"
} else {
    set binary $::server_binary
    set ::server_binary [auto_execok unshare]
    # start_server puts the configuration file first, so unshare's own words come by the wrapper's name alone.
    set outer [file join [dict get $lab dir] in-namespace]
    ocsp_file_write $outer "#!/bin/sh\nexec unshare --mount --propagation private '$wrapper' \"\$@\"\n"
    file attributes $outer -permissions 00755
    set ::server_binary $outer
    start_server [ocsp_server $leaf $ca cache-dir $disk retry-delay 1] {
        set ::server_binary $binary
        test {33.7 a disk that is really full: a warning, the old file stays whole, no litter, and stored when there is room} {
            # As the server sees it.
            set seen /proc/[srv pid]/root$disk
            set kept [file join $seen [file tail $file]]
            ocsp_wait_info state good
            wait_for_condition 100 50 {[file exists $kept]} else {fail "not stored"}
            set stored [ocsp_file_read $kept]
            catch {exec dd if=/dev/zero of=$seen/fill bs=4k 2>@1}
            while {[clock seconds] <= [ocsp_info this_update]} {after 50}
            ocsp_round
            assert_equal [dict get [ocsp_handshake] this] [ocsp_info this_update]
            wait_for_condition 100 50 {[llength [ocsp_log_lines 0 {*No space left*}]] > 0} else {
                fail "no word about the full disk: [ocsp_log_lines]"
            }
            assert_equal [ocsp_file_read $kept] $stored
            assert_equal [lsort [glob -tails -directory $seen *]] [lsort [list fill [file tail $file]]]
            file delete $seen/fill
            while {[clock seconds] <= [ocsp_info this_update]} {after 50}
            ocsp_round
            wait_for_condition 100 50 {[ocsp_file_read $kept] ne $stored} else {fail "not stored when there was room"}
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
    test {33.8 the module's thread is interrupted all the time: fetches, stores and waits go on} {
        foreach behaviour {good pieces {next 7200 piece 200 piece_ms 1} no-length post-405} {
            ocsp_responder_behave $responder $behaviour
            assert_equal [r ocsp.refresh] OK $behaviour
            ocsp_assert_staple good
        }
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored"}
        assert_equal [ocsp_info refresh_failures] 0
        set signals [control_get 6]
        assert_morethan $signals 1000
        # Waiting for a responder that does not answer, it neither gives up early nor spins.
        ocsp_responder_behave $responder hang
        ocsp_set timeout 2
        set began [clock milliseconds]
        assert_error {*in time*} {r ocsp.refresh}
        assert_morethan_equal [expr {[clock milliseconds] - $began}] 1900
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        puts "33.8: [control_get 6] signals to the thread"
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
            # Before it can accept: the kernel does, and nobody reads.
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
            assert_match {*in time*} [ocsp_info last_error]
            ocsp_assert_staple good
            assert_equal [r ping] PONG
        } why]
        exec kill -s CONT [dict get $responder pid]
        if {$failed} {fail $why}
        ocsp_responder_behave $responder good
        ocsp_wait_info consecutive_failures 0
        ocsp_assert_staple good
    }

    test {33.9 SIGSTOP of the responder before it accepts: the time-out ends it, handshakes go on, SIGCONT heals} {
        stopped_in good
    }
    test {33.10 SIGSTOP of the responder in the middle of its answer's header: the same} {
        stopped_in drip
    }
    test {33.11 SIGSTOP of the responder in the middle of its answer's body: the same} {
        stopped_in {piece 100 piece_ms 200}
    }
}

# ---- killed ----------------------------------------------------------------------------------------------------------

proc our_files {} {lsort [glob -nocomplain -tails -directory $::cache ocsp-*]}

# Temporary files that a kill has left are an hour old now: the next response that is stored clears them away. Returns how
# many there were that were not that old yet.
proc age_litter {} {
    set found 0
    foreach name [our_files] {
        set path [file join $::cache $name]
        if {$name eq [file tail $::file] || [file mtime $path] < [clock seconds] - 3600} continue
        file mtime $path [expr {[clock seconds] - 3700}]
        incr found
    }
    return $found
}

# After a restart with the responder down: what the disk held is stapled from the first handshake on.
proc assert_kept {when} {
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
    test {33.12 killed at each step of writing the cache: what was kept is stapled after the restart, litter goes} {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored"}
        kill_at_step [expr {1 << 60}]
        while {[clock seconds] <= [ocsp_info this_update]} {after 20}
        assert_equal [r ocsp.refresh] OK
        set steps [control_get 4]
        # Make, mode, write and half of it, sync, close, rename, the directory's sync and close.
        assert_morethan_equal $steps 9
        server_may_die
        set litter 0
        for {set n 1} {$n <= $steps} {incr n} {
            ocsp_responder_behave $responder {next 7200}
            ocsp_wait_info state good
            while {[clock seconds] <= [ocsp_info this_update]} {after 20}
            kill_at_step $n
            catch {r ocsp.refresh}
            wait_for_condition 400 10 {[exit_status [srv dir]] ne {}} else {fail "step $n of $steps: not killed"}
            kill_at_step 0
            ocsp_responder_behave $responder {drop close}
            assert_kept "step $n of $steps"
            incr litter [age_litter]
        }
        # A kill that never leaves a temporary file did not hit the writing.
        assert_morethan $litter 3
        ocsp_responder_behave $responder {next 7200}
        while {[clock seconds] <= [ocsp_info this_update]} {after 20}
        assert_equal [r ocsp.refresh] OK
        wait_for_condition 100 50 {[our_files] eq [list [file tail $file]]} else {fail "litter: [our_files]"}
        puts "33.12: $steps steps, $litter of the kills left a temporary file"
    }

    test "33.13 SIGKILL at $kills random moments: nothing that was on disk is lost" {
        server_may_die
        set down 0
        set litter 0
        ocsp_responder_behave $responder {next 7200}
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored"}
        for {set i 1} {$i <= $kills} {incr i} {
            progress "kills" $i $kills
            # Another response may be on its way to the disk at this moment.
            set busy [valkey_deferring_client]
            for {set j [randomInt 4]} {$j > 0} {incr j -1} {$busy ocsp.refresh}
            after [randomInt 80]
            send_signal [srv pid] KILL
            wait_exit [srv dir] [srv pid]
            catch {$busy close}
            set kept [ocsp_file_read $file]
            set info [ocsp_response_info $kept]
            assert_equal [dict get $info response_status] successful "kill $i"
            # By chance the responder is down: then the disk is all there is.
            set down [randomInt 2]
            ocsp_responder_behave $responder [expr {$down ? {drop close} : {next 7200}}]
            if {[randomInt 4] == 0} {
                # And killed again while it starts.
                restart_server 0 false false 0
                after [randomInt 60]
                send_signal [srv pid] KILL
                wait_exit [srv dir] [srv pid]
            }
            restart_server 0 true false
            assert_equal [ocsp_staple] good "kill $i, the responder is [expr {$down ? "down" : "up"}]"
            assert_equal [ocsp_info handshakes_unstapled] 0 "kill $i"
            incr litter [age_litter]
            if {$down} {ocsp_responder_behave $responder {next 7200}}
        }
        while {[clock seconds] <= [ocsp_info this_update]} {after 20}
        assert_equal [r ocsp.refresh] OK
        wait_for_condition 100 50 {[our_files] eq [list [file tail $file]]} else {fail "litter: [our_files]"}
        puts "33.13: killed $kills times, $litter times in the middle of writing"
    }
}

ocsp_lab_close $lab
