# ocsp-package.tcl - the Debian packages: their files, lintian, the same bytes from two builds; and, in a copy of this
# system that vanishes afterwards (support/scratch_root), their installation, a server under its packaged unit, an
# upgrade while it runs, removal, purge and reinstallation (scenario 36).
#
# Needs debhelper and lintian (sh deps/install.sh package); the installation needs root and the server's package.
# `make test-matrix` runs the second half for each release: OCSP_PACKAGES is a folder with packages, which are then not
# built, OCSP_PACKAGE_ROOT the root of the system to install them in, OCSP_PACKAGE_SERVICE valkey-server or redis-server.
#
# Weight: 50
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

set lower [expr {[info exists ::env(OCSP_PACKAGE_ROOT)] ? $::env(OCSP_PACKAGE_ROOT) : "/"}]
set build_deb [file join $::project_dir utils packaging build-deb]
set names {valkey-ocsp ocsp-probe libocsp-staple-dev}

# ---- the packages ---------------------------------------------------------------------------------------------------

# Returns why packages cannot be built here, or "".
proc why_no_build {} {
    if {[file exists /etc/matrix-stamp]} {return "make test-matrix tries the packages in jobs of their own"}
    foreach tool {dpkg-buildpackage dh lintian} {
        if {![has_tool $tool]} {return "$tool is not installed (sh deps/install.sh package)"}
    }
    return {}
}

# Builds the packages in a folder of the suite. Returns the folder.
proc build_packages {name args} {
    set folder [tmpdir $name]
    if {[catch {exec env {*}$args sh $::build_deb $folder 2>@1} text]} {fail "the packages were not built: $text"}
    return $folder
}

# Returns the path of a package.
proc package_file {folder name} {
    set found [glob -nocomplain $folder/${name}_*.deb]
    if {[llength $found] != 1} {fail "there is no package $name in $folder"}
    return [lindex $found 0]
}

set folder {}
set why_no_packages {}
if {[info exists ::env(OCSP_PACKAGES)]} {
    set folder $::env(OCSP_PACKAGES)
} elseif {[set why_no_packages [why_no_build]] ne {}} {
    skip_test {packages: built, checked by lintian, reproducible (36.1 to 36.3)} $why_no_packages
} else {

test {packages: build, and lintian has no objection (36.1)} {
    set ::folder [build_packages packages]
    # Libraries are chosen by what the binaries link to, and the module needs the OpenSSL of the server.
    foreach name {valkey-ocsp ocsp-probe} {
        assert_match {*libssl[0-9]*} [exec dpkg-deb --field [package_file $::folder $name] Depends]
    }
}

test {packages: have exactly the files that they should have (36.2)} {
    set wanted [dict create \
        valkey-ocsp {
            /usr/lib/valkey/modules/valkey-ocsp.so /usr/share/doc/valkey-ocsp/README.md.gz
            /usr/share/doc/valkey-ocsp/behavior.md.gz /usr/share/doc/valkey-ocsp/changelog.gz
            /usr/share/doc/valkey-ocsp/clients.md.gz /usr/share/doc/valkey-ocsp/copyright
            /usr/share/doc/valkey-ocsp/examples/ocsp-alerts.yml
            /usr/share/doc/valkey-ocsp/examples/ocsp-dashboard.json
            /usr/share/doc/valkey-ocsp/examples/ocsp.conf
            /usr/share/doc/valkey-ocsp/examples/redis-exporter.lua
            /usr/share/doc/valkey-ocsp/examples/valkey-ocsp.yaml /usr/share/doc/valkey-ocsp/operations.md.gz
            /usr/share/doc/valkey-ocsp/verify-peers.md.gz /usr/share/man/man7/valkey-ocsp.7.gz
        } ocsp-probe {
            /etc/default/ocsp-probe /lib/systemd/system/ocsp-probe.service /lib/systemd/system/ocsp-probe.timer
            /lib/systemd/system/ocsp-response@.service /lib/systemd/system/ocsp-response@.timer
            /usr/bin/ocsp-probe /usr/share/doc/ocsp-probe/changelog.gz /usr/share/doc/ocsp-probe/copyright
            /usr/share/man/man1/ocsp-probe.1.gz
        } libocsp-staple-dev {
            /usr/include/ocsp_staple.h /usr/lib/*/libocsp-staple.a
            /usr/share/doc/libocsp-staple-dev/changelog.gz /usr/share/doc/libocsp-staple-dev/copyright
        }]
    dict for {name files} $wanted {
        set found {}
        foreach line [split [exec dpkg-deb --contents [package_file $::folder $name]] \n] {
            if {[regexp {^-(\S+)\s+(\S+).* \.(/\S+)$} $line - mode owner path]} {
                assert_equal $owner root/root $line
                # Units are in /usr/lib with the debhelper of Debian 13 and later.
                regsub {^/usr(/lib/systemd)} $path {\1} path
                regsub {^/usr/lib/[^/]+-linux-[^/]+/} $path {/usr/lib/*/} path
                lappend found $path
                if {[string match *.so $path] || [string match /usr/bin/* $path]} {
                    assert_match rwxr-xr-x $mode $line
                }
            }
        }
        assert_equal [lsort $found] [lsort $files] "the files of $name"
    }
}

test {packages: the same tree gives the same bytes in another folder (36.3)} {
    set other [build_packages another/folder LINTIAN=no TZ=Asia/Tokyo]
    foreach name $::names {
        set one [package_file $::folder $name]
        set two [package_file $other $name]
        assert_equal [lindex [exec sha256sum $one] 0] [lindex [exec sha256sum $two] 0] "$name: compare $one with $two"
    }
}

}

# ---- their installation ---------------------------------------------------------------------------------------------

set service [file rootname [file tail $::server_binary]]
if {[info exists ::env(OCSP_PACKAGE_SERVICE)]} {set service $::env(OCSP_PACKAGE_SERVICE)}
set etc /etc/[string map {-server {}} $service]
set unit {}
foreach place {/usr/lib/systemd/system /lib/systemd/system} {
    if {[file exists $lower/$place/$service.service]} {set unit $place/$service.service}
}

# Returns why the packages cannot be installed here, or "".
proc why_no_install {} {
    if {$::folder eq {}} {return [expr {$::why_no_packages ne {} ? $::why_no_packages : "there are no packages"}]}
    if {$::unit eq {}} {return "there is no unit file $::service.service"}
    if {[exec id -u] != 0} {return "this needs root"}
    foreach tool {unshare setpriv} {if {![has_tool $tool]} {return "$tool is not installed"}}
    if {[catch {exec unshare --mount --pid --fork true 2>@1} why]} {return "no namespaces here: $why"}
    if {![regexp {\moverlay\M} [read_text /proc/filesystems]]} {return "this kernel has no overlay file system"}
    return {}
}

set why [why_no_install]
if {$why ne {}} {
    skip_test {packages: installed, upgraded, removed, purged, reinstalled (36.4 to 36.10)} $why
} else {

ocsp_setup
regexp -line {^User=(\S+)} [read_text $lower/$unit] - user
regexp -line {^ExecStart=(.*)$} [read_text $lower/$unit] - exec_start
set port [find_available_port]
set state [tmpdir state]
set shared [tmpdir shared]
set module /usr/lib/valkey/modules/valkey-ocsp.so

# The certificates and what the scratch root needs of this tree.
foreach {key file} [list cert server.crt key server.key] {file copy [dict get $leaf $key] $shared/$file}
file copy [dict get $ca cert] $shared/ca.crt
file copy [file join $::ocsp_support_dir under_unit] $shared/under_unit
foreach name $names {file copy [package_file $folder $name] $shared/$name.deb}
file mkdir $shared/nothing $shared/state
# The server's user, whose number the other system decides, must be able to read this.
exec chmod -R a+rX $shared
file attributes $shared/state -permissions a+rwx
for {set path $shared} {$path ne "/"} {set path [file dirname $path]} {
    if {[string first $::workdir $path] == 0} {file attributes $path -permissions a+x}
}

# An older version: the same package with another number.
exec dpkg-deb --raw-extract $shared/valkey-ocsp.deb $shared/old
set control [read_text $shared/old/DEBIAN/control]
set channel [open $shared/old/DEBIAN/control w]
puts -nonewline $channel [regsub -line {^Version: .*$} $control {Version: 0.9.0}]
close $channel
exec dpkg-deb --root-owner-group --build $shared/old $shared/valkey-ocsp-old.deb

# A shell in the scratch root, which lives as long as this suite.
set scratch [open |[list sh [file join $::ocsp_support_dir scratch_root] $lower $shared sh 2>@1] r+]
fconfigure $scratch -buffering line

# Runs a script in the scratch root. Returns {exit-status output}.
proc inside {script} {
    set channel [open $::shared/step w]
    puts $channel $script
    close $channel
    puts $::scratch "sh $::shared/step >$::shared/output 2>&1 </dev/null; echo ended \$?"
    if {[gets $::scratch line] < 0 || ![regexp {^ended (\d+)$} $line - status]} {
        fail "the scratch root ended: [expr {[info exists line] ? $line : {}}]"
    }
    return [list $status [string trim [read_text $::shared/output]]]
}

# Runs a script that must succeed. Returns its output.
proc does {script} {
    lassign [inside $script] status text
    assert_equal $status 0 "$script: $text"
    return $text
}

proc apt {args} {
    return [does "apt-get -q -y --no-install-recommends --allow-downgrades $args"]
}

# Starts the server as its unit does. Returns its process id in the scratch root.
proc start_packaged {} {
    return [does "sh $::shared/under_unit $::unit $::shared/state $::shared/nothing $::exec_start\
        >$::shared/stdout 2>&1 </dev/null & echo \$!"]
}

proc stop_packaged {pid} {
    does "kill $pid; while kill -0 $pid 2>/dev/null; do sleep 0.05; done"
}

proc log_text {} {
    lassign [inside "cat $::shared/stdout /var/log/[file tail $::etc]/*.log"] - text
    return $text
}

proc handshake {} {
    catch {exec $::openssl s_client -connect 127.0.0.1:$::port -status </dev/null 2>@1} text
    return [ocsp_read_handshake $text]
}

proc wait_packaged_staple {wanted} {
    set shake [handshake]
    for {set tries 0} {$tries < 300 && !([dict get $shake ok] && [dict get $shake staple] eq $wanted)} {incr tries} {
        if {[lindex [inside "kill -0 $::pid"] 0] != 0} {fail "the server has ended; its log: [log_text]"}
        after 100
        set shake [handshake]
    }
    assert_equal [dict get $shake staple] $wanted "the server's log: [log_text]"
}

test {packages: install with apt, and the packaged server with two more lines staples under its unit (36.4)} {
    # Processing all manual pages of the system takes long.
    does {rm -f /var/lib/man-db/auto-update}
    apt install $::shared/valkey-ocsp-old.deb
    does "cp /usr/share/doc/valkey-ocsp/examples/ocsp.conf $::etc/ocsp.conf"
    does "
        conf=\$(ls $::etc/*.conf | grep -v ocsp.conf | grep -v sentinel)
        cat >>\$conf <<END
port 0
tls-port $::port
tls-cert-file $::shared/server.crt
tls-key-file $::shared/server.key
tls-ca-cert-file $::shared/ca.crt
tls-auth-clients no
include $::etc/ocsp.conf
END
    "
    set ::pid [start_packaged]
    wait_packaged_staple good
    # The server's user has no rights but those of the unit.
    assert_match "*\nNoNewPrivs:\t1\n*" [does "cat /proc/$::pid/status"]
}

test {packages: an upgrade while the server runs names its process, which goes on; a restart uses the new one (36.5)} {
    set text [apt install $::shared/valkey-ocsp.deb]
    assert_match "*previous module until they are restarted: $::pid*" $text
    does "kill -0 $::pid"
    assert_equal [does "[string map {-server -cli} $::service] --tls --cacert $::shared/ca.crt -p $::port OCSP.REFRESH"] OK
    wait_packaged_staple good
    stop_packaged $::pid
    set ::pid [start_packaged]
    wait_packaged_staple good
}

test {packages: a removal names the configuration that loads the module; the server runs, and does not start again (36.6)} {
    set text [apt remove valkey-ocsp]
    assert_match "*$::etc/ocsp.conf loads $::module, which is being removed:*delete*or the server will not start*" $text
    does "test ! -e $::module"
    wait_packaged_staple good
    stop_packaged $::pid
    set ::pid [start_packaged]
    wait_for_condition 300 100 {[lindex [inside "kill -0 $::pid"] 0] != 0} else {fail "the server starts without the module"}
    assert_match "*$::module*" [log_text]
}

test {packages: nothing is left of a removal; reinstalled, the server starts with the same configuration (36.7)} {
    assert_equal [does {find /usr /lib /var/lib/dpkg -name '*valkey-ocsp*' ! -path '/usr/local/*'}] {}
    apt install $::shared/valkey-ocsp.deb
    set ::pid [start_packaged]
    wait_packaged_staple good
    # A purge warns, too, and removes no more than a removal: the package has no configuration of its own.
    assert_match "*$::etc/ocsp.conf loads $::module*" [apt purge valkey-ocsp]
    does "test -e $::etc/ocsp.conf"
    apt install $::shared/valkey-ocsp.deb
}

test {packages: with the lines deleted first, a removal says nothing, and the server starts without staples (36.8)} {
    does "sed -i '/ocsp.conf/d' $::etc/*.conf && rm $::etc/ocsp.conf"
    assert_no_match {*valkey-ocsp: *} [apt remove valkey-ocsp]
    stop_packaged $::pid
    set ::pid [start_packaged]
    wait_packaged_staple none
    stop_packaged $::pid
}

test {packages: the probe's timer is off until enabled; its service writes metrics (36.9)} {
    apt install $::shared/ocsp-probe.deb $::shared/valkey-ocsp.deb
    assert_equal [does {find /etc/systemd/system -name 'ocsp-probe*'}] {}
    does "cp /usr/share/doc/valkey-ocsp/examples/ocsp.conf $::etc/ &&\
        echo 'include $::etc/ocsp.conf' >>\$(ls $::etc/*.conf | grep -v -e ocsp.conf -e sentinel)"
    set ::pid [start_packaged]
    wait_packaged_staple good
    does "sed -i -e 's/^SERVERS=.*/SERVERS=\"127.0.0.1:$::port\"/' -e 's,^OPTIONS=.*,OPTIONS=\"--cafile $::shared/ca.crt\",'\
        /etc/default/ocsp-probe"
    set probe_unit [does {cat /lib/systemd/system/ocsp-probe.service}]
    regexp -line {^ExecStart=(.*)$} $probe_unit - command
    does "mkdir -p /var/lib/prometheus/node-exporter && . /etc/default/ocsp-probe && $command"
    assert_match "*\nocsp_probe_good{target=\"127.0.0.1:$::port\"} 1\n*" \
        [does {cat /var/lib/prometheus/node-exporter/ocsp.prom}]
    lassign [inside {command -v systemd-analyze}] missing
    if {!$missing} {
        assert_equal [does {systemd-analyze verify --man=no /lib/systemd/system/ocsp-probe.service\
            /lib/systemd/system/ocsp-probe.timer 2>&1 | grep ocsp-probe || true}] {}
    }
    stop_packaged $::pid
}

test {packages: the unit that fetches a response is off until enabled; its command writes what a server staples (36.10)} {
    assert_equal [does {find /etc/systemd/system -name 'ocsp-response*'}] {}
    does "printf 'CERT=%s\nOPTIONS=\"--issuer %s\"\n' $::shared/server.crt $::shared/ca.crt >/etc/default/ocsp-response-db"
    set text [string map {%i db} [does {cat /lib/systemd/system/ocsp-response@.service}]]
    regexp -line {^ExecStart=(.*)$} $text - command
    # StateDirectory= creates it.
    does "mkdir -p /var/lib/ocsp-response && . /etc/default/ocsp-response-db && $command"
    does "cp /var/lib/ocsp-response/db.der $::shared/response.der"
    assert_equal [dict get [lindex [dict get [ocsp_response_info [ocsp_file_read $::shared/response.der]] entries] 0] serial] \
        [dict get $::leaf serial]
    lassign [inside {command -v systemd-analyze}] missing
    if {!$missing} {
        assert_equal [does {systemd-analyze verify --man=no /lib/systemd/system/ocsp-response@.timer 2>&1 |
            grep ocsp-response || true}] {}
    }
    does {rm /etc/default/ocsp-response-db}
    # The administrator's settings survive a removal, and end with a purge.
    apt remove ocsp-probe
    does {test -e /etc/default/ocsp-probe}
    apt purge ocsp-probe
    does {test ! -e /etc/default/ocsp-probe}
}

close $scratch

}
