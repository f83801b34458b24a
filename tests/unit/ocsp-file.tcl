# ocsp-file.tcl - scenario 24: a supplied response file, for hosts that cannot ask.
#
# Weight: 36
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lab [ocsp_lab]
set dir [dict get $lab dir]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]
set file [file join $dir supplied.der]

# Gives the file another content, and waits until that has been looked at.
proc supply {leaf behaviour} {
    return [ocsp_response_file $::file $leaf $::ca $behaviour]
}

supply $leaf {this -300 next 3600}

start_server [ocsp_server $leaf $ca response-file $file retry-delay 1] {
    test {24.1 a good file: stapled from the first handshake on, and nobody is asked} {
        ocsp_assert_good $ca
        assert_equal [ocsp_info state] good
        assert_equal [ocsp_info response_source] file
        assert_equal [ocsp_responder_count $responder] 0
    }

    test {24.2 replaced while running: read again without being told} {
        supply $leaf {this -200 next 5000}
        set next [dict get [lindex [dict get [ocsp_response_info [ocsp_file_read $file]] entries] 0] next]
        ocsp_wait_info next_update $next
        assert_equal [dict get [ocsp_handshake] next] $next
        ocsp_assert_good $ca
    }

    test {24.3 an older one than what is held: a supplied file is exempt, what it validly holds is stapled} {
        supply $leaf {this -2000 next 4000}
        set next [dict get [lindex [dict get [ocsp_response_info [ocsp_file_read $file]] entries] 0] next]
        ocsp_wait_info next_update $next
        ocsp_assert_good $ca
    }

    test {24.4 revoked, and good again} {
        supply $leaf {this -100 next 4000 status revoked}
        ocsp_wait_info state revoked
        ocsp_assert_staple revoked
        ocsp_assert_refused $ca
        supply $leaf {this -90 next 4000}
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }

    set number 4
    # What a file may hold that must not be stapled. What was held before stays.
    foreach {name make kind} {
        {an expired response}           {supply $leaf {this -7200 next -3600}}                      verify
        {a forged one}                  {supply $leaf {signature bad next 7000}}                    verify
        {certStatus unknown}            {supply $leaf {status unknown next 7000}}                   response
        {tryLater}                      {supply $leaf {response_status tryLater}}                   response
        {nothing}                       {ocsp_file_write $file {}}                                  any
        {text}                          {ocsp_file_write $file "-----BEGIN OCSP RESPONSE-----\n"}   response
        {70,000 bytes}                  {ocsp_file_write $file [string repeat \x30 70000]}          any
        {a directory}                   {file delete $file; file mkdir $file}                       any
    } {
        test "24.[incr number] $name: not stapled, current response kept" {
            set held [ocsp_info_all]
            eval $make
            ocsp_wait_above refresh_failures [dict get $held refresh_failures]
            assert_equal [ocsp_info state] good
            assert_equal [ocsp_info next_update] [dict get $held next_update]
            if {$kind ne "any"} {
                assert_morethan [ocsp_info failures_$kind] [dict get $held failures_$kind] [ocsp_info last_error]
            }
            ocsp_assert_good $ca
            # And a good one again: read without being told.
            catch {file delete -force $file}
            set next [expr {5000 + $number * 10}]
            set der [supply $leaf [list this -80 next $next]]
            ocsp_wait_info consecutive_failures 0
            ocsp_wait_info next_update [dict get [lindex [dict get [ocsp_response_info $der] entries] 0] next]
        }
    }

    test {24 removed: current response kept; put back, it is read} {
        set next [ocsp_info next_update]
        file delete $file
        r debug ocsp-refresh
        ocsp_wait_above consecutive_failures 0
        assert_match "*supplied.der*" [ocsp_info last_error]
        ocsp_assert_good $ca
        set der [supply $leaf {this -70 next 6500}]
        ocsp_wait_info next_update [dict get [lindex [dict get [ocsp_response_info $der] entries] 0] next]
        ocsp_assert_good $ca
    }

    test {24 swapped by a symbolic link, as Kubernetes does it} {
        # DIR/secret/tls.ocsp -> ..data/tls.ocsp, ..data -> v1: what changes is only where ..data points.
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

    test {24 the response of a certificate that is not loaded yet is no error, and is stapled once it is} {
        set renewed [ocsp_lab_leaf $lab renewed]
        supply $leaf {this -50 next 6600}
        ocsp_wait_info consecutive_failures 0
        # Kubernetes swaps certificate and response not at the same moment: the response first...
        set failures [ocsp_info refresh_failures]
        set der [supply $renewed {this -40 next 6700}]
        # It is looked at every second.
        after 2500
        assert_equal [ocsp_info refresh_failures] $failures
        ocsp_assert_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $leaf serial]
        ocsp_load_certificate $renewed
        ocsp_wait_staple good
        assert_equal [dict get [ocsp_handshake] serial] [dict get $renewed serial]
        assert_equal [ocsp_info next_update] [dict get [lindex [dict get [ocsp_response_info $der] entries] 0] next]
        ocsp_assert_good $ca
        # ... or the certificate first: nothing foreign is stapled meanwhile.
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

    test {24 every byte flipped in turn: no crash, and whatever is stapled verifies} {
        # Through the command that waits for the file to be read: one byte takes milliseconds.
        supply $leaf {this -10 next 6000}
        r ocsp.refresh
        set bytes [ocsp_file_read $file]
        set taken 0
        for {set i 0} {$i < [string length $bytes]} {incr i} {
            binary scan [string index $bytes $i] cu byte
            # In place of the file by rename, so that it has another inode each time.
            ocsp_file_write $file [string replace $bytes $i $i [binary format c [expr {$byte ^ 0x01}]]]
            if {[catch {r ocsp.refresh} why]} {
                assert_no_match {*I/O error*} $why
            } else {
                incr taken
                assert_equal [dict get [ocsp_gnutls $ca] exit] 0 "byte $i was taken"
            }
        }
        # Nearly every byte matters.
        assert_lessthan $taken [expr {[string length $bytes] / 2}]
        assert_equal [r ping] PONG
        supply $leaf {this -5 next 6100}
        r ocsp.refresh
        ocsp_assert_good $ca
    } {} {needs:gnutls-cli}

    test {24 there is no falling back to the network, and taken back the network is asked} {
        assert_equal [ocsp_responder_count $responder] 0
        ocsp_set response-file ""
        ocsp_responder_wait $responder 1
        ocsp_wait_info response_source network
        ocsp_assert_good $ca
    }
}

test {24 a file that is not there at the start: the server starts, nothing is stapled, then it comes} {
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

test {24 a file that expires while held is not stapled past its end} {
    supply $leaf {this 0 next 10}
    start_server [ocsp_server $leaf $ca response-file $file cache-dir {}] {
        ocsp_assert_staple good
        ocsp_wait_info state expired
        ocsp_assert_staple none
        supply $leaf {this 0 next 3600}
        ocsp_wait_info state good
    }
}

test {24 a certificate without a URL is served by a file} {
    set plain [ocsp_pki_leaf $ca plain]
    supply $plain {next 3600}
    start_server [ocsp_server $plain $ca response-file $file] {
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

ocsp_lab_close $lab
