# servers.tcl - starts the servers that `make bench` measures, with the same certificate, response and responder, on one
# core; creates the certificates and the responder. Sourced by run.tcl.
#
#   bench_pki                         certificates (RSA and ECDSA), the response for each, the mock responder
#   bench_chain COUNT                 a certificate below COUNT intermediate CAs, for -key chainCOUNT
#   startServer KIND ?option value ...?   a handle: a dict with kind, port (TLS), plain (port without TLS, "" for none),
#                                     pid, dir
# KIND valkey, module (valkey with it), patched, patched-off (stapling no), redis, redis-module, nginx, haproxy,
#               apache, minimal (valkey with minimal.c preloaded), empty (valkey with a module that does nothing)
#     -key ec   or rsa; or chain1 ..., whose file has the intermediate CAs, and whose certificates have their own URLs
#     -url ""   the responder; "" for none
#     -cache DIR    the cache directory of a server with this engine (default: the server's own, new directory)
#     -run {}   words before the command, for valgrind for example
#     -env {}   environment, name value ...
#     -set {}   further directives of Valkey and Redis
#     -hold 0   1: do not start the server; the handle has its command instead of a pid
#   stopServer HANDLE, stopAll
#   serverPids HANDLE                 the process ids of the server and its children
#   ask HANDLE COMMAND ...            sends a command to the plain port; returns the reply as one line
#   hangServer HANDLE                 makes the server's fetch hang; isHanging HANDLE
#
# SPDX-License-Identifier: BSD-3-Clause

source utils/ocsp-pki.tcl
source tests/support/ocsp_responder.tcl

array set running {} ;# pid -> name of each process to stop at exit

proc freePort {} {
    set listener [socket -server list -myaddr 127.0.0.1 0]
    set port [lindex [fconfigure $listener -sockname] 2]
    close $listener
    return $port
}

# Runs the event loop until the script returns true.
proc waitUntil {seconds script sentence} {
    set end [expr {[clock milliseconds] + 1000 * $seconds}]
    while {![uplevel 1 $script]} {
        if {[clock milliseconds] > $end} {error $sentence}
        after 10 {set ::tick 1}
        vwait ::tick
    }
}

proc isAlive {pid} {
    if {[catch {open /proc/$pid/stat} file]} {return 0}
    set state [lindex [split [lindex [split [read $file] ")"] end]] 1]
    close $file
    return [expr {$state ne "Z"}]
}

proc endProcess {pid} {
    catch {exec kill $pid}
    set end [expr {[clock milliseconds] + 10000}]
    while {[isAlive $pid]} {
        if {[clock milliseconds] > $end} {catch {exec kill -KILL $pid}}
        after 5
    }
    unset -nocomplain ::running($pid)
}

proc stopAll {} {
    foreach pid [array names ::running] {endProcess $pid}
    catch {ocsp_responder_stop_all}
}

# ---- certificates and the responder ---------------------------------------------------------------------------------

proc bench_pki {} {
    global dir ca leaf responder staple
    ocsp_pki_keys $dir/pki
    set ca [ocsp_pki_ca $dir/pki ca]
    set delegate [ocsp_pki_delegate $ca responder]
    set responder [ocsp_responder_start -ca $ca]
    foreach key {ec rsa} {
        set leaf($key) [ocsp_pki_leaf $ca server-$key -key $key -to +864000 \
            -aia [list [ocsp_responder_url $responder /good-$key]]]
        set staple($key) [serveResponse good-$key $leaf($key) $ca $delegate]
    }
}

# Signs a response, which the responder sends at /NAME. Returns its file.
proc serveResponse {name cert issuer delegate} {
    set file [file normalize $::dir/pki/$name.der]
    ocsp_response_file $file $cert $issuer [list this -60 next +604800 signer $delegate]
    ocsp_responder_behave $::responder [list body [list file $file]] /$name
    return $file
}

# The response for each certificate is signed by an authorized responder of its issuer.
proc bench_chain {count} {
    set cert $::ca
    for {set i $count} {$i >= 0} {incr i -1} {
        set issuer $cert
        set name chain$count-$i
        set create [expr {$i > 0 ? "ocsp_pki_intermediate" : "ocsp_pki_leaf"}]
        set cert [$create $issuer $name -to +864000 -aia [list [ocsp_responder_url $::responder /$name]]]
        serveResponse $name $cert $issuer [ocsp_pki_delegate $issuer $name-responder]
    }
    dict set cert cert [dict get $cert chain]
    set ::leaf(chain$count) $cert
}

proc goodUrl {key} {ocsp_responder_url $::responder /good-$key}

# ---- starting -------------------------------------------------------------------------------------------------------

set server_count 0

proc startServer {kind args} {
    set option [dict merge {-key ec -url "" -cache "" -run {} -env {} -set {} -hold 0} $args]
    set home [file normalize $::dir/servers/[incr ::server_count]-$kind]
    file mkdir $home
    set server [dict create kind $kind port [freePort] plain "" dir $home url [dict get $option -url]]
    dict set server key [dict get $option -key]
    switch $kind {
        nginx - haproxy - apache {set command [${kind}Command $server $option]}
        default {
            dict set server plain [freePort]
            set command [valkeyCommand $server $option]
        }
    }
    set environment {}
    foreach {name value} [dict get $option -env] {lappend environment $name=$value}
    if {$kind eq "minimal"} {
        lappend environment LD_PRELOAD=[file normalize build/bench_minimal.so] \
            BENCH_STAPLE=[file normalize $::staple([dict get $option -key])]
    }
    if {[dict get $option -hold]} {
        dict set server command [concat $::server_core $command]
        return $server
    }
    set pid [exec {*}[concat $::server_core env $environment [dict get $option -run] $command] >$home/log 2>@1 &]
    set ::running($pid) $kind
    dict set server pid $pid
    waitUntil 60 {expr {![catch {close [socket 127.0.0.1 [dict get $server port]]}] || ![isAlive $pid]}} \
        "$kind did not start: see $home"
    if {![isAlive $pid]} {error "$kind did not start: see $home"}
    return $server
}

proc stopServer {server} {endProcess [dict get $server pid]}

proc serverPids {server} {
    set pid [dict get $server pid]
    if {[catch {exec pgrep -P $pid} children]} {set children {}}
    return [concat $pid $children]
}

proc valkeyCommand {server option} {
    set kind [dict get $server kind]
    set cert $::leaf([dict get $option -key])
    set home [dict get $server dir]
    set program [dict get {valkey valkey-server module valkey-server empty valkey-server minimal valkey-server redis redis-server
        redis-module redis-server patched "" patched-off ""} $kind]
    if {[string match patched* $kind]} {set program $::env(VALKEY_PATCHED)}
    set command [list $program --bind 127.0.0.1 --port [dict get $server plain] --tls-port [dict get $server port] \
        --save "" --dir $home --loglevel warning --tls-auth-clients no --tls-cert-file [dict get $cert cert] \
        --tls-key-file [dict get $cert key] --tls-ca-cert-file [dict get $::ca cert]]
    foreach {name value} [dict get $option -set] {lappend command --$name $value}
    if {$kind eq "empty"} {lappend command --loadmodule [file normalize build/bench_empty.so]}
    if {$kind in {module redis-module}} {
        lappend command --loadmodule [file normalize src/valkey-ocsp.so]
        set prefix --ocsp.
    } elseif {$kind eq "patched"} {
        lappend command --enable-debug-command local
        set prefix --tls-ocsp-
    } else {
        return $command
    }
    set cache [dict get $option -cache]
    if {$cache eq ""} {set cache $home}
    lappend command ${prefix}stapling yes ${prefix}cache-dir [file normalize $cache] ${prefix}timeout 60 \
        ${prefix}retry-delay 1
    if {[dict get $option -url] ne ""} {lappend command ${prefix}responder-url [dict get $option -url]}
    return $command
}

proc writeFile {file text} {
    set f [open $file w]
    puts $f $text
    close $f
}

proc nginxCommand {server option} {
    set home [dict get $server dir]
    set cert $::leaf([dict get $option -key])
    set stapling off
    set url [dict get $option -url]
    if {$url ne ""} {set stapling on}
    # A single process if its instructions are counted.
    set master [expr {[llength [dict get $option -run]] ? "master_process off;" : ""}]
    writeFile $home/nginx.conf "
        daemon off; $master worker_processes 1; pid $home/pid; error_log $home/error.log crit;
        events { worker_connections 512; }
        http {
            access_log off;
            client_body_temp_path $home/body; proxy_temp_path $home/proxy; fastcgi_temp_path $home/fastcgi;
            uwsgi_temp_path $home/uwsgi; scgi_temp_path $home/scgi;
            server {
                listen 127.0.0.1:[dict get $server port] ssl;
                ssl_protocols TLSv1.2 TLSv1.3;
                ssl_certificate [dict get $cert cert]; ssl_certificate_key [dict get $cert key];
                ssl_trusted_certificate [dict get $::ca cert];
                ssl_stapling $stapling; [expr {$url eq "" ? "" : "ssl_stapling_responder $url;"}]
            }
        }"
    return [list [program nginx] -p $home -c $home/nginx.conf]
}

# HAProxy 2.6 queries no responder: it reads the response from a file. With -url the file is written before the start.
proc haproxyCommand {server option} {
    set home [dict get $server dir]
    set key [dict get $option -key]
    set cert $::leaf($key)
    writeFile $home/server.pem "[readFile [dict get $cert cert]][readFile [dict get $cert key]]"
    file copy [dict get $::ca cert] $home/server.pem.issuer
    if {[dict get $option -url] ne ""} {file copy $::staple($key) $home/server.pem.ocsp}
    writeFile $home/haproxy.cfg "global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
frontend tls
    bind 127.0.0.1:[dict get $server port] ssl crt $home/server.pem
    http-request return status 200"
    return [list [program haproxy] -db -f $home/haproxy.cfg]
}

proc apacheCommand {server option} {
    set home [dict get $server dir]
    set cert $::leaf([dict get $option -key])
    set url [dict get $option -url]
    set modules /usr/lib/apache2/modules
    set user [expr {[exec id -u] == 0 ? "User www-data\nGroup www-data" : ""}]
    writeFile $home/httpd.conf "ServerRoot $home
DefaultRuntimeDir $home
PidFile $home/pid
ErrorLog $home/error.log
LogLevel crit
LoadModule mpm_event_module $modules/mod_mpm_event.so
LoadModule authz_core_module $modules/mod_authz_core.so
LoadModule socache_shmcb_module $modules/mod_socache_shmcb.so
LoadModule ssl_module $modules/mod_ssl.so
$user
StartServers 1
ServerLimit 1
ThreadsPerChild 25
MaxRequestWorkers 25
Listen 127.0.0.1:[dict get $server port]
SSLStaplingCache shmcb:$home/stapling(65536)
SSLSessionCache none
<VirtualHost 127.0.0.1:[dict get $server port]>
    ServerName localhost
    SSLEngine on
    SSLCertificateFile [dict get $cert cert]
    SSLCertificateKeyFile [dict get $cert key]
    SSLCACertificateFile [dict get $::ca cert]
[expr {$url eq "" ? "" : "    SSLUseStapling on\n    SSLStaplingForceURL $url"}]
</VirtualHost>"
    return [list [program apache2] -DFOREGROUND -f $home/httpd.conf]
}

proc readFile {file} {
    set f [open $file]
    set text [read $f]
    close $f
    return $text
}

# Debian's directories of servers that are usually started as services.
proc program {name} {
    foreach place [concat [split $::env(PATH) :] /usr/sbin /sbin] {
        if {[file executable $place/$name]} {return $place/$name}
    }
    return ""
}

# ---- talking to them ------------------------------------------------------------------------------------------------

array set links {}

proc link {server} {
    set port [dict get $server plain]
    if {![info exists ::links($port)]} {
        set ::links($port) [socket 127.0.0.1 $port]
        fconfigure $::links($port) -translation binary -buffering none
    }
    return $::links($port)
}

proc ask {server args} {
    set channel [link $server]
    puts -nonewline $channel "*[llength $args]\r\n"
    foreach word $args {puts -nonewline $channel "$[string length $word]\r\n$word\r\n"}
    set line [string trimright [gets $channel] \r]
    switch [string index $line 0] {
        "$" {
            set text [read $channel [expr {[string range $line 1 end] + 2}]]
            return [string range $text 0 end-2]
        }
        "-" {error [string range $line 1 end]}
        default {return [string range $line 1 end]}
    }
}

proc unlink {server} {
    set port [dict get $server plain]
    if {[info exists ::links($port)]} {close $::links($port)}
    unset -nocomplain ::links($port)
}

proc infoField {server section field} {
    if {![regexp -line "^$field:(\[^\r\n\]*)" [ask $server INFO $section] -> value]} {error "INFO has no $field"}
    return $value
}

proc isStapling {server} {expr {[infoField $server ocsp ocsp_state] eq "good"}}

proc waitStapling {server} {
    waitUntil 20 {isStapling $server} "[dict get $server kind] got no staple: see [dict get $server dir]"
}

proc hangUrl {name} {
    ocsp_responder_behave $::responder hang /hang-$name
    return [ocsp_responder_url $::responder /hang-$name]
}

proc isHanging {server} {
    regexp {/hang-.*$} [dict get $server url] path
    return [expr {[ocsp_responder_count $::responder -path $path -end hanging] > 0}]
}

# A fetch that timed out is followed by a delay: request a refresh again, so that no round falls into that delay.
proc hangServer {server} {
    if {[isHanging $server]} return
    if {[dict get $server kind] in {module redis-module patched}} {
        set refresh [expr {[dict get $server kind] eq "patched" ? {DEBUG OCSP-REFRESH} : {OCSP.REFRESH}}]
        set channel [socket 127.0.0.1 [dict get $server plain]]
        puts $channel "$refresh\r"
        flush $channel
        waitUntil 10 {isHanging $server} "[dict get $server kind] did not ask the hung responder"
        close $channel
    }
}
