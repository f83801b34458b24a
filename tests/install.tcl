#!/usr/bin/env tclsh
# install.tcl - tests of deps/install.sh on releases that it knows, with programs in place of apt, dpkg-query and id that
# only read and write files. Changes nothing on this system, and needs no network and no privileges.
#
#   tclsh tests/install.tcl
#
# Ends with one line "N passed, N failed".
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

set ::script [file join [file dirname [file dirname [file normalize [info script]]]] deps install.sh]
set ::base [expr {[info exists ::env(TMPDIR)] ? $::env(TMPDIR) : "/tmp"}]
set ::work [file join $::base valkey-ocsp-install-tests.[pid]]
set ::passed 0
set ::failed 0

proc put {name text {mode 0644}} {
    set channel [open [file join $::work $name] w]
    puts $channel $text
    close $channel
    file attributes [file join $::work $name] -permissions $mode
}

proc get {name} {
    set channel [open [file join $::work $name]]
    set text [read $channel]
    close $channel
    return [string trim $text]
}

# A system on which nothing is installed: its os-release, who the user is, whether its mirror answers, and the versions
# that apt has of packages with other than the usual one; "" means that apt does not have it.
proc system {release {uid 0} {mirror yes} {versions {}}} {
    file delete -force $::work
    file mkdir $::work/bin
    put os-release $release
    put installed {}
    put calls {}
    put versions [join [lmap {name version} $versions {set _ "$name [expr {$version eq {} ? "(none)" : $version}]"}] \n]
    # Tools without which the script does not run, and none of this system's servers.
    foreach tool {sh awk sed tr mktemp rm cat chmod grep head cp dpkg} {
        file link -symbolic $::work/bin/$tool [lindex [auto_execok $tool] 0]
    }
    put bin/id "#!/bin/sh\necho $uid" 0755
    put bin/dpkg-query "#!/bin/sh\nexec sed 's/\$/ installed/' $::work/installed" 0755
    put bin/apt-cache "#!/bin/sh
        version=\$(awk -v name=\"\$2\" '\$1 == name {print \$2}' $::work/versions)
        echo \"  Candidate: \${version:-9.0}\"" 0755
    put bin/apt-get "#!/bin/sh
        echo \"\$@\" >>$::work/calls
        update= words=
        for word; do
            case \$word in
            update) \[ $mirror = yes ] || { echo 'no route to the mirror'; exit 100; } ;;
            -* | DPkg* | install) ;;
            *) echo \"\$word\" >>$::work/installed ;;
            esac
        done" 0755
    put bin/service "#!/bin/sh\nexit 3" 0755
}

# Runs the script: sets ::status, and ::output with what it printed on both channels.
proc install {args} {
    set ::status [catch {
        exec env -i PATH=$::work/bin OS_RELEASE=$::work/os-release POLICY_RC_D=$::work/policy TMPDIR=$::work \
            sh $::script {*}$args 2>@1
    } ::output]
}

proc expect {condition} {
    if {![uplevel 1 [list expr $condition]]} {error "not true: $condition\n$::output"}
}

proc test {name code} {
    if {[catch {uplevel 1 $code} why]} {
        incr ::failed
        puts "  FAILED  $name\n[regsub -all -line {^} $why {            }]"
    } else {
        incr ::passed
        puts "  ok      $name"
    }
}

proc has {package} {expr {$package in [get installed]}}

set trixie "ID=debian\nVERSION_CODENAME=trixie"
set jammy "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=jammy\nUBUNTU_CODENAME=jammy"
set noble "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\nUBUNTU_CODENAME=noble"

test {Debian 13: Valkey is installed, and then nothing is left to do} {
    system $trixie
    install run
    expect {$::status == 0 && [has valkey-server] && [has valkey-tools] && ![has redis-server]}
    put calls {}
    install run
    expect {$::status == 0 && $::output eq {} && [get calls] eq {}}
}

test {Ubuntu 24.04: Redis in place of Valkey 7.2} {
    system $noble 0 yes {valkey-server 7.2.8}
    install test
    expect {$::status == 0 && [has redis-server] && [has redis-tools] && [has libcmocka-dev] && ![has valkey-server]}
    put calls {}
    install test
    expect {$::status == 0 && $::output eq {} && [get calls] eq {}}
}

test {Ubuntu 22.04: a sentence says that the server is missing, and the rest is installed} {
    system $jammy 0 yes {valkey-server {} redis-server 5:6.0.16}
    install test
    expect {$::status == 0 && [has libcmocka-dev] && ![has valkey-server] && ![has redis-server]}
    expect {[string match {*Ubuntu 22.04 has no server that the module supports*} $::output]}
    install build
    expect {$::status == 0 && $::output eq {}}
}

test {Ubuntu 22.04: no such sentence with a valkey-server in PATH} {
    system $jammy
    put bin/valkey-server "#!/bin/sh" 0755
    install test
    expect {$::status == 0 && ![string match {*has no server*} $::output]}
}

test {a system made from Ubuntu: as that release} {
    system "ID=linuxmint\nID_LIKE=\"ubuntu debian\"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble"
    install --list run
    expect {$::status == 0 && "redis-server" in $::output && "valkey-server" ni $::output}
}

test {a later Ubuntu: Valkey} {
    system "ID=ubuntu\nVERSION_CODENAME=plucky\nUBUNTU_CODENAME=plucky"
    install --list run
    expect {"valkey-server" in $::output && "redis-server" ni $::output}
}

test {without root: names what is missing and the command, and changes nothing} {
    system $trixie 1000
    put installed [join {gcc libc6-dev make libssl-dev openssl tcl procps gnutls-bin valkey-tools} \n]
    install run
    expect {$::status == 1 && [get calls] eq {}}
    expect {[string match {*missing: valkey-server*sudo sh deps/install.sh run*} $::output]}
}

test {without a network: says that the mirror did not answer, and installs nothing} {
    system $trixie 0 no
    install build
    expect {$::status == 1 && [string match {*no route to the mirror*apt-get update failed*} $::output]}
    expect {[get installed] eq {}}
}

test {a package that apt does not have is named, and the others are installed} {
    system $trixie 0 yes {libcmocka-dev {}}
    install test
    expect {$::status == 1 && [has gcc] && [has valkey-server] && ![has libcmocka-dev]}
    expect {[string match {*apt does not have these packages*libcmocka-dev*} $::output]}
}

test {a Valkey that is too old is left out, with a sentence} {
    system "ID=ubuntu\nVERSION_CODENAME=plucky" 0 yes {valkey-server 7.2.8}
    install run
    expect {$::status == 1 && [has gcc] && ![has valkey-server]}
    expect {[string match {*apt has 7.2.8 valkey-server, and the module requires 8.0*} $::output]}
}

file delete -force $::work
puts "$::passed passed, $::failed failed"
exit [expr {$::failed > 0}]
