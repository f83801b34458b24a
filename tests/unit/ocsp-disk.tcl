# ocsp-disk.tcl - scenarios 15 (restart from disk) and 16 (whatever a disk can do). Every byte of the file flipped in
# turn is a suite of its own, ocsp-bytes.tcl: that takes as long as all of these.
#
# Weight: 33
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Where the response of `leaf` lies below the directory `dir`.
proc cache_file {dir leaf} {
    return [file join $dir ocsp-[ocsp_cert_sha256 [dict get $leaf cert]].der]
}

# The files of ours in a directory.
proc cache_files {dir} {
    lsort [glob -nocomplain -directory $dir -tails *ocsp-* .*ocsp-*]
}

# A lab whose responder can be taken away without losing its address, and a directory for the cache.
proc disk_lab {args} {
    set lab [ocsp_lab {*}$args]
    set cache [file join [dict get $lab dir] cache]
    file mkdir $cache
    return [dict merge $lab [list cache $cache file [cache_file $cache [dict get $lab leaf]]]]
}

set lab [disk_lab]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]
set cache [dict get $lab cache]
set file [dict get $lab file]

start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 3600 timeout 10] {
    test {16.1 the response lies in its file: bare DER, readable by the server alone, written right after publication} {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists $file]} else {fail "no file $file"}
        assert_equal [file attributes $file -permissions] 00600
        set info [ocsp_response_info [ocsp_file_read $file]]
        assert_equal [dict get $info response_status] successful
        assert_equal [string length [ocsp_file_read $file]] [ocsp_info response_bytes]
        assert_equal [cache_files $cache] [list [file tail $file]]
    }

    test {15.1 restart with the responder down: the first handshake is stapled from disk} {
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

    test {15.2 restart with a responder that hangs: the same, and the server is up at once} {
        ocsp_responder_behave $responder hang
        restart_server 0 true false
        assert_equal [ocsp_staple] good
        assert_equal [r ping] PONG
        ocsp_responder_behave $responder {drop close}
        ocsp_responder_release $responder
    }

    set good_bytes [ocsp_file_read $file]

    # What may lie in the file's place, and whether the first handshake after a start is stapled.
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
        test "16.[incr disk] at the start there is $name: nothing is stapled, the server runs" {
            eval $make
            restart_server 0 true false
            ocsp_assert_staple none
            assert_equal [ocsp_info response_source] none
            assert_equal [r ping] PONG
            file delete -force $file
        }
    }

    test {16 after all of these a good answer is stored again} {
        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file isfile $file] && [file size $file] == [ocsp_info response_bytes]} else {
            fail "the response was not stored ([ocsp_log_lines])"
        }
        ocsp_assert_good $ca
    }

    test {16 a revoked response on disk is stapled after a restart} {
        ocsp_responder_behave $responder {drop close}
        ocsp_response_file $file $leaf $ca {status revoked next 7200}
        restart_server 0 true false
        ocsp_assert_staple revoked
        assert_equal [ocsp_info state] revoked
        assert_equal [ocsp_info response_source] cache
    }

    test {16 the file is replaced or removed while the server runs: what is held is not touched} {
        ocsp_response_file $file $leaf $ca {next 7200}
        restart_server 0 true false
        set this_update [ocsp_info this_update]
        ocsp_file_write $file garbage
        assert_equal [dict get [ocsp_handshake] this] $this_update
        file delete $file
        assert_equal [dict get [ocsp_handshake] this] $this_update
        while {[clock seconds] <= $this_update} {after 50}
        ocsp_responder_behave $responder good
        r debug ocsp-refresh
        wait_for_condition 200 50 {[file exists $file]} else {fail "not written again"}
        ocsp_assert_good $ca
    }
}

test {16 a directory that is missing, or a file in its place: a warning, and stapling goes on} {
    ocsp_responder_behave $responder good
    ocsp_file_write [file join $cache plainfile] x
    foreach place {nosuch nosuch/below plainfile plainfile/below} {
        start_server [ocsp_server $leaf $ca cache-dir [file join $cache $place] retry-delay 1] {
            ocsp_wait_info state good
            ocsp_assert_good $ca
            foreach i {1 2 3} {
                set this_update [ocsp_info this_update]
                while {[clock seconds] <= $this_update} {after 50}
                ocsp_round
            }
            assert_equal [ocsp_info refresh_failures] 0
            # Told, and not with every response.
            assert_range [llength [ocsp_log_lines 0 *$place*]] 1 2
        }
    }
    file delete [file join $cache plainfile]
}

test {16 a full disk: a warning, what was stored stays whole, what is in memory is served} {
    set flag [file join [dict get $lab dir] full]
    file delete -force $file
    set environment [list LD_PRELOAD [ocsp_tool fault_inject] FAULT_DISK_FULL $flag]
    start_server [concat [ocsp_server $leaf $ca cache-dir $cache] [list env $environment]] {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored"}
        set stored [ocsp_file_read $file]
        set this_update [ocsp_info this_update]
        while {[clock seconds] <= $this_update} {after 50}
        ocsp_file_write $flag {}
        ocsp_round
        assert_morethan [ocsp_info this_update] $this_update
        assert_equal [dict get [ocsp_handshake] this] [ocsp_info this_update]
        wait_for_condition 100 50 {[llength [ocsp_log_lines 0 *space*]] > 0} else {
            fail "no word about the full disk: [ocsp_log_lines]"
        }
        assert_equal [ocsp_file_read $file] $stored
        # No half files are left.
        assert_equal [cache_files $cache] [list [file tail $file]]
        file delete $flag
        set this_update [ocsp_info this_update]
        while {[clock seconds] <= $this_update} {after 50}
        ocsp_round
        wait_for_condition 100 50 {[ocsp_file_read $file] ne $stored} else {fail "not stored after the disk had room"}
    }
}

# Good is on disk, the CA revokes, and the disk refuses the revoked response. What a restart staples then, with the
# responder down: nothing.
test {16 a revocation that a full disk refuses is not undone by a restart} {
    set flag [file join [dict get $lab dir] full]
    file delete -force $flag $file
    ocsp_responder_behave $responder good
    set environment [list LD_PRELOAD [ocsp_tool fault_inject] FAULT_DISK_FULL $flag]
    start_server [concat [ocsp_server $leaf $ca cache-dir $cache] [list env $environment]] {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored"}
        set this_update [ocsp_info this_update]
        while {[clock seconds] <= $this_update} {after 50}
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
        wait_for_condition 100 50 {[file exists $file]} else {fail "the revoked response was not stored"}
        ocsp_responder_behave $responder {drop close}
        restart_server 0 true false
        ocsp_assert_staple revoked
    }
    file delete -force $file
    ocsp_responder_behave $responder good
}

test {16 cache-dir "" stores nothing and reads nothing; set at run time it begins} {
    file delete -force $file
    start_server [ocsp_server $leaf $ca cache-dir {}] {
        ocsp_wait_info state good
        after 300
        assert_equal [cache_files $cache] {}
        assert_equal [cache_files [srv 0 dir]] {}
        ocsp_set cache-dir $cache
        set this_update [ocsp_info this_update]
        while {[clock seconds] <= $this_update} {after 50}
        ocsp_round
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored in the new cache-dir"}
    }
}

test {16 cache-dir "." is the server's own directory} {
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists [cache_file [srv 0 dir] $leaf]]} else {fail "no file in dir"}
    }
}

test {16 killed again and again while it writes: the file is whole or not there, and no litter stays} {
    file delete -force $file
    ocsp_responder_behave $responder {next 7200}
    start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 1] {
        server_may_die
        for {set i 0} {$i < 10} {incr i} {
            # A new response is on its way to the disk at about this time.
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

test {16 ten renewed certificates in a row: each has its own file and its own staple} {
    file delete -force {*}[glob -nocomplain $cache/*]
    ocsp_responder_behave $responder good
    start_server [ocsp_server $leaf $ca cache-dir $cache] {
        ocsp_wait_info state good
        set names [list [file tail $file]]
        for {set i 0} {$i < 10} {incr i} {
            set renewed [ocsp_lab_leaf $lab renewed$i]
            lappend names [file tail [cache_file $cache $renewed]]
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

test {16 files of ours whose response ended 7 days ago are removed, and no others} {
    file delete -force {*}[glob -nocomplain $cache/*]
    set day 86400
    set other [ocsp_lab_leaf $lab other16]
    set old [string repeat a 64]
    set recent [string repeat b 64]
    ocsp_response_file $cache/ocsp-$old.der $other $ca [list this [expr {-20 * $day}] next [expr {-8 * $day}]]
    ocsp_response_file $cache/ocsp-$recent.der $other $ca [list this [expr {-20 * $day}] next [expr {-6 * $day}]]
    # Not ours: other names.
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

test {16 a response without nextUpdate lives for 10 minutes from its file's time after a restart} {
    file delete -force {*}[glob -nocomplain $cache/*]
    ocsp_responder_behave $responder {next none}
    start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 3600] {
        ocsp_wait_info state good
        wait_for_condition 100 50 {[file exists $file]} else {fail "not stored"}
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

ocsp_lab_close $lab
