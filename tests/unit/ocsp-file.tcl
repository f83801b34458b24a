# ocsp-file.tcl - response-file: a response that the operator supplies, for hosts that cannot reach a responder
# (scenario 24).
#
# Weight: 36
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set file [file join $dir supplied.der]

# Writes a response for `leaf` to the file. Returns its DER.
proc supply {leaf behaviour} {
    return [ocsp_response_file $::file $leaf $::ca $behaviour]
}

supply $leaf {this -300 next 3600}

start_server [ocsp_server $leaf $ca response-file $file retry-delay 1] {
    test {response-file: a good one is stapled from the first handshake on, without any request (24.1)} {
        ocsp_assert_good $ca
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info response_source] file
        assert_equal [ocsp_responder_count $responder] 0
    }

    test {response-file: replaced while the server runs, it is read again (24.2)} {
        supply $leaf {this -200 next 5000}
        set next [dict get [lindex [dict get [ocsp_response_info [ocsp_file_read $file]] entries] 0] next]
        ocsp_wait_info next_update $next
        assert_equal [dict get [ocsp_handshake] next] $next
        ocsp_assert_good $ca
    }

    test {response-file: an older response than the current one is stapled, too (24.3)} {
        supply $leaf {this -2000 next 4000}
        set next [dict get [lindex [dict get [ocsp_response_info [ocsp_file_read $file]] entries] 0] next]
        ocsp_wait_info next_update $next
        ocsp_assert_good $ca
    }

    test {response-file: revoked, and good again (24.4)} {
        supply $leaf {this -100 next 4000 status revoked}
        ocsp_wait_info state revoked
        ocsp_assert_staple revoked
        ocsp_assert_refused $ca
        supply $leaf {this -90 next 4000}
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }

    set number 4
    # Contents that must not be stapled. The current response stays.
    foreach {name make kind code} {
        {an expired response}           {supply $leaf {this -7200 next -3600}}                      verify expired
        {a bad signature}               {supply $leaf {signature bad next 7000}}                    verify signature
        {certStatus unknown}            {supply $leaf {status unknown next 7000}}                   response unknown
        {tryLater}                      {supply $leaf {response_status tryLater}}                   response responder-status
        {an empty file}                 {ocsp_file_write $file {}}                                  response der
        {text}                          {ocsp_file_write $file "-----BEGIN OCSP RESPONSE-----\n"}   response der
        {70,000 bytes}                  {ocsp_file_write $file [string repeat \x30 70000]}          response der
        {a directory}                   {file delete $file; file mkdir $file}                       network file
    } {
        test "response-file: $name is not stapled, and the current response stays (24.[incr number])" {
            set before [ocsp_info_all]
            eval $make
            ocsp_wait_above refresh_failures [dict get $before refresh_failures]
            assert_equal [ocsp_info state] good
            assert_equal [ocsp_info next_update] [dict get $before next_update]
            # A read between removal and writing finds no file.
            wait_for_condition 200 50 {[ocsp_info last_error_code] eq $code} else {
                fail "the code is [ocsp_info last_error_code], not $code: [ocsp_info last_error]"
            }
            assert_morethan [ocsp_info failures_$kind] [dict get $before failures_$kind] [ocsp_info last_error]
            ocsp_assert_good $ca
            # A good file again is read by itself.
            catch {file delete -force $file}
            set next [expr {5000 + $number * 10}]
            set der [supply $leaf [list this -80 next $next]]
            ocsp_wait_info consecutive_failures 0
            ocsp_wait_info next_update [dict get [lindex [dict get [ocsp_response_info $der] entries] 0] next]
        }
    }

    test {response-file: removed, the current response stays; put back, it is read (24)} {
        set next [ocsp_info next_update]
        file delete $file
        r debug ocsp-refresh
        ocsp_wait_above consecutive_failures 0
        assert_match "*supplied.der*" [ocsp_info last_error]
        assert_equal [ocsp_info last_error_code] file
        ocsp_assert_good $ca
        set der [supply $leaf {this -70 next 6500}]
        ocsp_wait_info next_update [dict get [lindex [dict get [ocsp_response_info $der] entries] 0] next]
        ocsp_assert_good $ca
    }

    test {response-file: replaced through a symbolic link, as Kubernetes does it (24)} {
        # DIR/secret/tls.ocsp -> ..data/tls.ocsp, ..data -> v1: only the target of ..data changes.
        foreach {version next} {v1 7001 v2 7002} {
            file mkdir [file join $dir secret $version]
            set swapped($version) [ocsp_response_file [file join $dir secret $version tls.ocsp] $leaf $ca \
                [list this -60 next $next]]
        }
        exec ln -s v1 [file join $dir secret ..data]
        exec ln -s ..data/tls.ocsp [file join $dir secret tls.ocsp]
        ocsp_set response-file [file join $dir secret tls.ocsp]
        foreach version {v1 v2 v1} {
            exec ln -s $version [file join $dir secret ..new]
            # mv -T: Tcl would move it into the directory that ..data points to.
            exec mv -T [file join $dir secret ..new] [file join $dir secret ..data]
            ocsp_wait_info next_update \
                [dict get [lindex [dict get [ocsp_response_info $swapped($version)] entries] 0] next]
            ocsp_assert_good $ca
        }
        ocsp_set response-file $file
    }

    test {response-file: a response for a certificate that is not loaded yet is no error, and is stapled later (24)} {
        set renewed [ocsp_lab_leaf $lab renewed]
        supply $leaf {this -50 next 6600}
        ocsp_wait_info consecutive_failures 0
        # Kubernetes replaces certificate and response one after the other: the response first...
        set failures [ocsp_info refresh_failures]
        set der [supply $renewed {this -40 next 6700}]
        # The file is checked every second.
        after 2500
        assert_equal [ocsp_info refresh_failures] $failures
        assert_equal [ocsp_info last_error_code] no-entry
        ocsp_assert_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $leaf serial]
        ocsp_load_certificate $renewed
        ocsp_wait_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $renewed serial]
        assert_equal [ocsp_info next_update] [dict get [lindex [dict get [ocsp_response_info $der] entries] 0] next]
        ocsp_assert_good $ca
        # ... or the certificate first: no other certificate's response may be stapled meanwhile.
        set next_one [ocsp_lab_leaf $lab nextone]
        ocsp_load_certificate $next_one
        ocsp_assert_staple none
        supply $next_one {this -30 next 6800}
        ocsp_wait_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $next_one serial]
        ocsp_load_certificate $leaf
        supply $leaf {this -20 next 6900}
        ocsp_wait_staple good
    }

    test {response-file: every byte flipped in turn: no crash, and a staple verifies (24)} {
        # OCSP.REFRESH waits until the file has been read: a byte takes milliseconds.
        supply $leaf {this -10 next 6000}
        r ocsp.refresh
        set bytes [ocsp_file_read $file]
        set taken 0
        for {set i 0} {$i < [string length $bytes]} {incr i} {
            binary scan [string index $bytes $i] cu byte
            # Replaced by rename, so that the file has a different inode each time.
            ocsp_file_write $file [string replace $bytes $i $i [binary format c [expr {$byte ^ 0x01}]]]
            if {[catch {r ocsp.refresh} why]} {
                assert_no_match {*I/O error*} $why
            } else {
                incr taken
                assert_equal [dict get [ocsp_gnutls $ca] exit] 0 "byte $i was taken"
            }
        }
        # Most of the bytes matter.
        assert_lessthan $taken [expr {[string length $bytes] / 2}]
        assert_equal [r ping] PONG
        supply $leaf {this -5 next 6100}
        r ocsp.refresh
        ocsp_assert_good $ca
    } {} {needs:gnutls-cli}

    test {response-file: no request is sent while it is set, and one is sent once it is not (24)} {
        assert_equal [ocsp_responder_count $responder] 0
        ocsp_set response-file ""
        ocsp_responder_wait $responder 1
        ocsp_wait_info response_source network
        ocsp_assert_good $ca
    }
}

test {response-file: missing at the start: the server starts, staples nothing, and reads the file once it exists (24)} {
    file delete -force $file
    ocsp_responder_forget $responder
    start_server [ocsp_server $leaf $ca response-file $file cache-dir {} retry-delay 1] {
        assert_equal [r ping] PONG
        ocsp_assert_staple none
        assert_equal [ocsp_info state] pending
        supply $leaf {next 3600}
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_equal [ocsp_responder_count $responder] 0
    }
}

test {response-file: a response that expires is no longer stapled (24)} {
    supply $leaf {this 0 next 10}
    start_server [ocsp_server $leaf $ca response-file $file cache-dir {}] {
        ocsp_assert_staple good
        ocsp_wait_info state expired
        ocsp_assert_staple none
        supply $leaf {this 0 next 3600}
        ocsp_wait_info state good
    }
}

test {response-file: serves a certificate without a responder URL (24)} {
    set plain [ocsp_pki_leaf $ca plain]
    supply $plain {next 3600}
    start_server [ocsp_server $plain $ca response-file $file] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}
