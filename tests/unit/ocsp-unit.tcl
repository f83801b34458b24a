# ocsp-unit.tcl - scenario 32: the packaged server as it is really run, with the user, the read-only file system and the
# ban on executing files that Debian's own unit gives it (support/under_unit imitates those, and says what it does not).
#
# Needs root, and the package's unit file.
#
# Weight: 8
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set service [file rootname [file tail $::server_binary]].service
set unit {}
foreach place {/usr/lib/systemd/system /lib/systemd/system} {
    if {[file exists $place/$service]} {set unit $place/$service}
}

# Why it cannot be imitated here, or "".
proc why_not {} {
    if {$::unit eq {}} {return "there is no unit file $::service"}
    if {[exec id -u] != 0} {return "this needs root"}
    foreach tool {unshare setpriv} {if {![has_tool $tool]} {return "$tool is not installed"}}
    if {[catch {exec unshare --mount true 2>@1} why]} {return "no mount namespaces here: $why"}
    if {![regexp {\moverlay\M} [read_text /proc/filesystems]]} {return "this kernel has no overlay file system"}
    return {}
}

set why [why_not]
if {$why ne {}} {
    skip_test {32.1 and 32.2} $why
} else {

set lab [ocsp_lab]
set dir [dict get $lab dir]
set ca [dict get $lab ca]
set leaf [dict get $lab leaf]
set responder [dict get $lab responder]
regexp -line {^User=(\S+)} [read_text $unit] - user
regexp -line {^ReadWritePaths=-?(\S+)} [read_text $unit] - state_folder

# The module where `make install` puts it, and the state folder.
set lib [tmpdir lib]
set state [tmpdir state]
file mkdir $lib/valkey/modules
file copy $::ocsp_module_path $lib/valkey/modules/valkey-ocsp.so
exec chown -R $user $state $dir
# The user has to get there; folders of tests are open to others, or the whole suite's is.
for {set path $state} {$path ne "/"} {set path [file dirname $path]} {
    if {[string first $::workdir $path] == 0} {file attributes $path -permissions a+x}
}

# A program that starts the server so, in place of the server.
set wrapper [tmpfile server]
ocsp_file_write $wrapper "#!/bin/sh\nexec [file join $::ocsp_support_dir under_unit] $unit $state $lib\
    $::server_binary \"\$@\"\n"
file attributes $wrapper -permissions 0755

proc as_packaged {code} {
    set plain $::server_binary
    set ::server_binary $::wrapper
    set failed [catch {uplevel 1 $code} result options]
    set ::server_binary $plain
    return -options $options $result
}

test "32.1 under $service: loads from /usr/lib, staples, keeps its response, and staples the first handshake from it" {
    as_packaged {
        set options [ocsp_server $leaf $ca dir $state_folder unixsocket $state_folder/socket \
            loadmodule /usr/lib/valkey/modules/valkey-ocsp.so]
        start_server $options {
            ocsp_wait_info state good
            ocsp_assert_good $ca
            assert_equal [llength [glob -nocomplain $state/ocsp-*.der]] 1
            # It really is that user, without rights, and the file system is read-only for it.
            set status [read_text /proc/[srv 0 pid]/status]
            assert_match "*\nUid:\t[exec id -u $user]\t*" $status
            assert_match "*\nCapEff:\t0000000000000000\n*" $status
            assert_match "*\nNoNewPrivs:\t1\n*" $status
            ocsp_set cache-dir /var
            ocsp_round
            assert_equal [ocsp_info state] good
            assert_morethan [llength [ocsp_log_lines 0 {*/var*}]] 0
            ocsp_set cache-dir .
            ocsp_responder_behave $responder {drop close}
            restart_server 0 true false
            assert_equal [ocsp_staple] good
            assert_equal [ocsp_info response_source] cache
            ocsp_responder_behave $responder good
        }
    }
}

test "32.2 under $service: not from elsewhere, and the server says so" {
    set elsewhere [tmpdir elsewhere]
    file copy $::ocsp_module_path $elsewhere/valkey-ocsp.so
    as_packaged {
        set failed [catch {
            start_server [ocsp_server $leaf $ca dir $state_folder unixsocket $state_folder/socket \
                loadmodule $elsewhere/valkey-ocsp.so] {}
        } why]
    }
    assert_equal $failed 1
    assert_match {*failed to map segment*} $why
}

ocsp_lab_close $lab
}
