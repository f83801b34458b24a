# ocsp-unit.tcl - the packaged server with the user, the read-only file system and the ban on executing files of
# Debian's own systemd unit (scenario 32). support/under_unit imitates these restrictions, and its head says which it
# does not.
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

# Returns why the unit cannot be imitated here, or "".
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
    skip_test {systemd unit (32.1 and 32.2)} $why
} else {

ocsp_setup
regexp -line {^User=(\S+)} [read_text $unit] - user
regexp -line {^ReadWritePaths=-?(\S+)} [read_text $unit] - state_dir

# The module where `make install` puts it, and the server's state directory.
set lib [tmpdir lib]
set state [tmpdir state]
file mkdir $lib/valkey/modules
file copy $::ocsp_module_path $lib/valkey/modules/valkey-ocsp.so
exec chown -R $user $state $dir
# The server's user must be able to reach it, through the suite's directory and those below.
for {set path $state} {$path ne "/"} {set path [file dirname $path]} {
    if {[string first $::workdir $path] == 0} {file attributes $path -permissions a+x}
}

# A script that starts the server under the unit's restrictions, used in place of the server.
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

test "systemd unit: under $service, loads from /usr/lib, staples, caches, and staples from the cache (32.1)" {
    as_packaged {
        set options [ocsp_server $leaf $ca dir $state_dir unixsocket $state_dir/socket \
            loadmodule /usr/lib/valkey/modules/valkey-ocsp.so]
        start_server $options {
            ocsp_wait_info state good
            ocsp_assert_good $ca
            assert_equal [llength [glob -nocomplain $state/ocsp-*.der]] 1
            # The server has that user, no capabilities, and a read-only file system.
            set status [read_text /proc/[srv 0 pid]/status]
            assert_match "*\nUid:\t[exec id -u $user]\t*" $status
            assert_match "*\nCapEff:\t0000000000000000\n*" $status
            assert_match "*\nNoNewPrivs:\t1\n*" $status
            ocsp_set cache-dir /var
            ocsp_refresh
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

test "systemd unit: under $service, a module outside /usr/lib does not load, and the server says so (32.2)" {
    set elsewhere [tmpdir elsewhere]
    file copy $::ocsp_module_path $elsewhere/valkey-ocsp.so
    as_packaged {
        set failed [catch {
            start_server [ocsp_server $leaf $ca dir $state_dir unixsocket $state_dir/socket \
                loadmodule $elsewhere/valkey-ocsp.so] {}
        } why]
    }
    assert_equal $failed 1
    assert_match {*failed to map segment*} $why
}

}
