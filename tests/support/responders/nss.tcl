#!/usr/bin/env tclsh
# nss.tcl - OCSP responder for tests/unit/ocsp-interop.tcl: httpserv of libnss3-tools, with NSS's own signatures and HTTP.
#
# usage: tclsh nss.tcl DIR PORT PRELOAD (README.md in this folder describes the first two)
#
# httpserv reads revocations from a CRL at startup. This program generates the CRL from index.txt, so that a changed
# index.txt takes effect after a restart. httpserv signs with the CA's key and SHA-1, omits the reason of a revocation,
# and responds at the path /ocsp. By default it listens on all interfaces: PRELOAD, the compiled
# tests/support/loopback_only.c, makes it listen on 127.0.0.1.
#
# SPDX-License-Identifier: BSD-3-Clause

lassign $argv dir port preload
set work [file join $dir nss.[pid]]
set database sql:$work
file mkdir $work

proc write {name text} {
    set channel [open [file join $::work $name] w]
    puts $channel $text
    close $channel
}

proc free_port {} {
    set probe [socket -server {} -myaddr 127.0.0.1 0]
    set port [lindex [fconfigure $probe -sockname] 2]
    close $probe
    return $port
}

# OpenSSL and NSS write to standard error on success, too.
exec certutil -N -d $database --empty-password 2>@1
exec openssl pkcs12 -export -in $dir/ca.crt -inkey $dir/ca.key -name ca -passout pass: -out $work/ca.p12 2>@1
exec pk12util -d $database -i $work/ca.p12 -W {} 2>@1
exec certutil -M -d $database -n ca -t C,, 2>@1
write ca.cnf "\[ca]\ndefault_ca = book\n\[book]\ndatabase = $dir/index.txt\ndefault_md = sha256\ndefault_crl_days = 1"
exec openssl ca -gencrl -config $work/ca.cnf -cert $dir/ca.crt -keyfile $dir/ca.key -out $work/crl.pem 2>@1
exec openssl crl -in $work/crl.pem -outform DER -out $work/crl.der 2>@1

if {$port == 0} {set port [free_port]}
set server [exec setpriv --pdeathsig KILL env LD_PRELOAD=$preload httpserv -p $port -d $database -A ca -C $work/crl.der \
    -O all >$work/log 2>@1 &]
for {set i 0} {$i < 200 && [catch {close [socket 127.0.0.1 $port]} why]} {incr i} {after 50}
if {$why ne {}} {
    puts stderr "httpserv does not answer on port $port: $why"
    exit 1
}
puts "http://127.0.0.1:$port/ocsp"
flush stdout
gets stdin
catch {exec kill $server}
