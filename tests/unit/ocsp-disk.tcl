# ocsp-disk.tcl - the response cache: restarts (scenario 15), and every fault of a disk or a cached file (16).
#
# Weight: 50
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set cache [file join $dir cache]
set file [ocsp_cache_file $cache $leaf]
file mkdir $cache

# Returns the names of cached responses, and of temporary files for them, in a directory.
proc cache_files {dir} {
    lsort [glob -nocomplain -directory $dir -tails *ocsp-* .*ocsp-*]
}

start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 3600 timeout 10] {
    ocsp_wait_info state good
    ocsp_wait_file $file
    set good_bytes [ocsp_file_read $file]

    test {disk: a response is stored once it is stapled, as DER, readable by the server's user alone (16.1)} {
        assert_equal [file attributes $file -permissions] 00600
        set info [ocsp_response_info [ocsp_file_read $file]]
        assert_equal [dict get $info response_status] successful
        assert_equal [string length [ocsp_file_read $file]] [ocsp_info response_bytes]
        assert_equal [cache_files $cache] [list [file tail $file]]
    }

    test {disk: a restart with the responder down staples the first handshake from the cache (15.1)} {
        set this_update [ocsp_info this_update]
        ocsp_responder_behave $responder {drop close}
        foreach how {sigterm nosave sigkill} {
            restart_server 0 true false 1 $how
            set shake [ocsp_handshake]
            assert_equal [dict get $shake staple] good $how
            assert_equal [dict get $shake this] $this_update
            assert_equal [ocsp_info response_source] cache
            assert_equal [ocsp_info handshakes_unstapled] 0
        }
        ocsp_assert_good $ca
    }

    test {disk: a restart with a responder that hangs staples from the cache, and the server is up at once (15.2)} {
        ocsp_responder_behave $responder hang
        restart_server 0 true false
        assert_equal [ocsp_staple] good
        assert_equal [r ping] PONG
        ocsp_responder_behave $responder {drop close}
        ocsp_responder_release $responder
    }

    # What the server finds in place of the response when it starts. None of these may be stapled.
    ocsp_responder_behave $responder {drop close}
    set other [ocsp_lab_leaf $lab other]
    set disk 1
    foreach {name make} [list \
        {an empty file}                 {ocsp_file_write $file {}} \
        {one byte}                      {ocsp_file_write $file 0} \
        {half of it}                    {ocsp_file_write $file [string range $good_bytes 0 200]} \
        {all but the last byte}         {ocsp_file_write $file [string range $good_bytes 0 end-1]} \
        {a byte too much}               {ocsp_file_write $file $good_bytes\x00} \
        {text}                          {ocsp_file_write $file "this is no response\n"} \
        {70,000 bytes}                  {ocsp_file_write $file [string repeat \x30 70000]} \
        {the response of another certificate}  {ocsp_response_file $file $other $ca} \
        {an expired response}           {ocsp_response_file $file $leaf $ca {this -7200 next -3600}} \
        {a response from the future}    {ocsp_response_file $file $leaf $ca {this 4000 next 8000}} \
        {a forged response}             {ocsp_response_file $file $leaf $ca {signature bad}} \
        {certStatus unknown}            {ocsp_response_file $file $leaf $ca {status unknown}} \
        {tryLater}                      {ocsp_response_file $file $leaf $ca {response_status tryLater}} \
        {a directory}                   {file delete $file; file mkdir $file} \
        {a symbolic link to nowhere}    {file delete -force $file; exec ln -s $cache/nowhere $file} \
        {a symbolic link to itself}     {file delete $file; exec ln -s $file $file} \
        {a pipe}                        {file delete $file; exec mkfifo $file} \
    ] {
        test "disk: with $name in place of the response, the server starts and staples nothing (16.[incr disk])" {
            eval $make
            restart_server 0 true false
            ocsp_assert_staple none
            assert_equal [ocsp_info response_source] none
            assert_equal [r ping] PONG
            file delete -force $file
        }
    }

    test {disk: after all of these, a good response is stored again (16)} {
        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file isfile $file] && [file size $file] == [ocsp_info response_bytes]} else {
            fail "the response was not stored ([ocsp_log_lines])"
        }
        ocsp_assert_good $ca
    }

    test {disk: a revoked response is stapled from the cache after a restart (16)} {
        ocsp_responder_behave $responder {drop close}
        ocsp_response_file $file $leaf $ca {status revoked next 7200}
        restart_server 0 true false
        ocsp_assert_staple revoked
        assert_equal [ocsp_info state] revoked
        assert_equal [ocsp_info response_source] cache
    }

    test {disk: replacing or removing the file while the server runs does not change the current response (16)} {
        ocsp_response_file $file $leaf $ca {next 7200}
        restart_server 0 true false
        set this_update [ocsp_info this_update]
        ocsp_file_write $file garbage
        assert_equal [dict get [ocsp_handshake] this] $this_update
        file delete $file
        assert_equal [dict get [ocsp_handshake] this] $this_update
        ocsp_pass_this_update
        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_file $file
        ocsp_assert_good $ca
        ocsp_assert_good $ca
    }

    # Every byte of the stored response is flipped, one at a time, and the server started with it. Not every byte is
    # signed, so some of these responses are accepted: gnutls-cli must then accept the staple as good. ocsp-file.tcl
    # does the same with a response file.
    ocsp_responder_behave $responder {drop close}
    set bytes [ocsp_response_file $file $leaf $ca {next 7200}]

    test {disk: a restart with the unmodified response staples it from the cache (16)} {
        restart_server 0 true false 1 nosave
        assert_equal [ocsp_info response_source] cache
        ocsp_assert_good $ca
    }

    # 40 bytes a test, so that one failure does not hide the others and the runner sees progress.
    set length [string length $bytes]
    for {set from 0} {$from < $length} {incr from 40} {
        set to [expr {min($from + 40, $length)}]
        test "disk: bytes $from to [expr {$to - 1}] flipped in turn: no crash, and a staple verifies (16)" {
            for {set i $from} {$i < $to} {incr i} {
                binary scan [string index $bytes $i] cu byte
                ocsp_file_write $file [string replace $bytes $i $i [binary format c [expr {$byte ^ 1 << ($i % 8)}]]]
                # SHUTDOWN ends the server at once, SIGTERM when its cron runs next.
                restart_server 0 true false 1 nosave
                if {[ocsp_info response_source] eq "cache"} {
                    assert_equal [dict get [ocsp_gnutls $ca] exit] 0 "gnutls-cli, byte $i"
                    assert_equal [ocsp_staple] good "byte $i"
                } else {
                    assert_equal [ocsp_staple] none "byte $i"
                }
            }
        } {} {needs:gnutls-cli}
    }

    test {disk: with the unmodified response again, it is stapled after a restart (16)} {
        ocsp_file_write $file $bytes
        restart_server 0 true false
        ocsp_assert_good $ca
    }
}

ocsp_responder_behave $responder good

test {disk: a missing directory, or a file in its place, is a warning, and stapling goes on (16)} {
    ocsp_file_write [file join $cache plainfile] x
    foreach place {nosuch nosuch/below plainfile plainfile/below} {
        start_server [ocsp_server $leaf $ca cache-dir [file join $cache $place] retry-delay 1] {
            ocsp_wait_info state good
            ocsp_assert_good $ca
            foreach i {1 2 3} {
                ocsp_pass_this_update
                ocsp_refresh
            }
            assert_equal [ocsp_info refresh_failures] 0
            # Logged, but not again for every response.
            assert_range [llength [ocsp_log_lines 0 *$place*]] 1 2
        }
    }
    file delete [file join $cache plainfile]
}

test {disk: a full disk is a warning, the stored response stays whole, the newer one is stapled (16)} {
    set flag [file join $dir full]
    file delete -force $file
    set environment [list LD_PRELOAD [ocsp_tool fault_inject] FAULT_DISK_FULL $flag]
    start_server [concat [ocsp_server $leaf $ca cache-dir $cache] [list env $environment]] {
        ocsp_wait_info state good
        ocsp_wait_file $file
        set stored [ocsp_file_read $file]
        set this_update [ocsp_info this_update]
        ocsp_pass_this_update
        ocsp_file_write $flag {}
        ocsp_refresh
        assert_morethan [ocsp_info this_update] $this_update
        assert_equal [dict get [ocsp_handshake] this] [ocsp_info this_update]
        wait_for_condition 100 50 {[llength [ocsp_log_lines 0 *space*]] > 0} else {
            fail "the full disk is not in the log: [ocsp_log_lines]"
        }
        assert_equal [ocsp_file_read $file] $stored
        # No partly written file is left.
        assert_equal [cache_files $cache] [list [file tail $file]]
        file delete $flag
        ocsp_pass_this_update
        ocsp_refresh
        wait_for_condition 100 50 {[ocsp_file_read $file] ne $stored} else {fail "not stored once the disk had room"}
    }
}

# The cache has a good response, the CA revokes the certificate, and the disk is too full for the revoked response. A
# restart with the responder down must then staple nothing.
test {disk: a restart does not undo a revocation that the full disk could not store (16)} {
    set flag [file join $dir full]
    file delete -force $flag $file
    ocsp_responder_behave $responder good
    set environment [list LD_PRELOAD [ocsp_tool fault_inject] FAULT_DISK_FULL $flag]
    start_server [concat [ocsp_server $leaf $ca cache-dir $cache] [list env $environment]] {
        ocsp_wait_info state good
        ocsp_wait_file $file
        ocsp_pass_this_update
        ocsp_file_write $flag {}
        ocsp_responder_behave $responder {status revoked next 7200}
        r debug ocsp-refresh
        ocsp_wait_info state revoked
        ocsp_assert_staple revoked
        wait_for_condition 100 50 {![file exists $file]} else {fail "the good response is still on disk"}
        assert_equal [llength [ocsp_log_lines 0 *restart\ will\ refetch*]] 1
        ocsp_responder_behave $responder {drop close}
        foreach how {sigterm sigkill} {
            restart_server 0 true false 1 $how
            ocsp_assert_staple none
            assert_equal [ocsp_info response_source] none
        }
        file delete $flag
        ocsp_responder_behave $responder {status revoked next 7200}
        r debug ocsp-refresh
        ocsp_wait_info state revoked
        ocsp_wait_file $file
        ocsp_responder_behave $responder {drop close}
        restart_server 0 true false
        ocsp_assert_staple revoked
    }
    file delete -force $file
    ocsp_responder_behave $responder good
}

test {disk: cache-dir "" neither stores nor reads; set at run time, the next response is stored (16)} {
    file delete -force $file
    start_server [ocsp_server $leaf $ca cache-dir {}] {
        ocsp_wait_info state good
        after 300
        assert_equal [cache_files $cache] {}
        assert_equal [cache_files [srv 0 dir]] {}
        ocsp_set cache-dir $cache
        ocsp_pass_this_update
        ocsp_refresh
        ocsp_wait_file $file
    }
}

test {disk: cache-dir "." is the server's working directory (16)} {
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        ocsp_wait_file [ocsp_cache_file [srv 0 dir] $leaf]
    }
}

test {disk: SIGKILL while a response is being stored leaves a whole file or none, and no temporary file (16)} {
    file delete -force $file
    ocsp_responder_behave $responder {next 7200}
    start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 1] {
        server_may_die
        for {set i 0} {$i < 10} {incr i} {
            # About now a new response is being stored.
            ocsp_wait_info state good
            set refresher [valkey_deferring_client]
            $refresher debug ocsp-refresh
            after [randomInt 60]
            restart_server 0 true false 1 sigkill
            catch {$refresher close}
            assert_equal [ocsp_staple] good "round $i"
            if {[file exists $file]} {
                assert_equal [dict get [ocsp_response_info [ocsp_file_read $file]] response_status] successful
            }
        }
        ocsp_assert_good $ca
    }
}

test {disk: ten renewed certificates in a row each have their own file and their own staple (16)} {
    file delete -force {*}[glob -nocomplain $cache/*]
    ocsp_responder_behave $responder good
    start_server [ocsp_server $leaf $ca cache-dir $cache] {
        ocsp_wait_info state good
        set names [list [file tail $file]]
        for {set i 0} {$i < 10} {incr i} {
            set renewed [ocsp_lab_leaf $lab renewed$i]
            lappend names [file tail [ocsp_cache_file $cache $renewed]]
            ocsp_load_certificate $renewed
            ocsp_wait_info cert_serial [dict get $renewed serial]
            ocsp_wait_info state good
            set shake [ocsp_handshake]
            assert_equal [dict get $shake serial] [dict get $renewed serial]
            assert_equal [dict get $shake staple] good
        }
        wait_for_condition 100 50 {[cache_files $cache] eq [lsort $names]} else {
            fail "files: [cache_files $cache], expected: [lsort $names]"
        }
    }
}

test {disk: responses that expired 7 days ago are removed, and no other file (16)} {
    file delete -force {*}[glob -nocomplain $cache/*]
    set day 86400
    set other [ocsp_lab_leaf $lab other16]
    set old [string repeat a 64]
    set recent [string repeat b 64]
    ocsp_response_file $cache/ocsp-$old.der $other $ca [list this [expr {-20 * $day}] next [expr {-8 * $day}]]
    ocsp_response_file $cache/ocsp-$recent.der $other $ca [list this [expr {-20 * $day}] next [expr {-6 * $day}]]
    # Other names are not the module's files.
    foreach name [list ocsp-notes.txt ocsp-$old.der.bak precious-ocsp-$old.der] {
        file copy $cache/ocsp-$old.der $cache/$name
    }
    start_server [ocsp_server $leaf $ca cache-dir $cache] {
        ocsp_wait_info state good
        wait_for_condition 200 50 {![file exists $cache/ocsp-$old.der]} else {fail "the old file is still there"}
        assert_equal [file exists $cache/ocsp-$recent.der] 1
        foreach name [list ocsp-notes.txt ocsp-$old.der.bak precious-ocsp-$old.der] {
            assert_equal [file exists $cache/$name] 1 $name
        }
    }
}

test {disk: after a restart, a response without nextUpdate lasts 10 minutes from its file's modification time (16)} {
    file delete -force {*}[glob -nocomplain $cache/*]
    ocsp_responder_behave $responder {next none}
    start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 3600] {
        ocsp_wait_info state good
        ocsp_wait_file $file
        ocsp_responder_behave $responder {drop close}
        file mtime $file [expr {[clock seconds] - 500}]
        restart_server 0 true false
        assert_equal [ocsp_staple] good
        assert_range [ocsp_info expires_in_seconds] 0 100
        file mtime $file [expr {[clock seconds] - 700}]
        restart_server 0 true false
        assert_equal [ocsp_staple] none
    }
}
