# ocsp-bytes.tcl - scenario 16: every byte of the stored response is flipped in turn, and the server started with it.
#
# Not every byte is signed, so that some are taken; whatever is stapled must verify, by a judge who is not ours, and
# nothing may crash. The same is done with a supplied file in ocsp-file.tcl.
#
# Weight: 45
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lab [ocsp_lab]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set cache [file join [dict get $lab dir] cache]
set file [file join $cache ocsp-[ocsp_cert_sha256 [dict get $leaf cert]].der]
file mkdir $cache
ocsp_responder_behave [dict get $lab responder] {drop close}
ocsp_response_file $file $leaf $ca {next 7200}
set bytes [ocsp_file_read $file]

start_server [ocsp_server $leaf $ca cache-dir $cache retry-delay 3600] {
    test {16 the response as it was made is stapled from disk} {
        assert_equal [ocsp_info response_source] cache
        ocsp_assert_good $ca
    }

    # In portions, so that one failure does not hide the rest, and the runner hears of us.
    set length [string length $bytes]
    for {set from 0} {$from < $length} {incr from 40} {
        set to [expr {min($from + 40, $length)}]
        test "16 bytes $from to [expr {$to - 1}] flipped in turn: no crash, and whatever is stapled verifies" {
            for {set i $from} {$i < $to} {incr i} {
                binary scan [string index $bytes $i] cu byte
                ocsp_file_write $file [string replace $bytes $i $i [binary format c [expr {$byte ^ 1 << ($i % 8)}]]]
                restart_server 0 true false
                if {[ocsp_info response_source] eq "cache"} {
                    assert_equal [dict get [ocsp_gnutls $ca] exit] 0 "byte $i was taken"
                    assert_equal [ocsp_staple] good "byte $i"
                } else {
                    assert_equal [ocsp_staple] none "byte $i"
                }
            }
        } {} {needs:gnutls-cli}
    }

    test {16 the whole response again: stapled} {
        ocsp_file_write $file $bytes
        restart_server 0 true false
        ocsp_assert_good $ca
    }
}

ocsp_lab_close $lab
