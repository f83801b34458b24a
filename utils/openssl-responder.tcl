#!/usr/bin/env tclsh
# openssl-responder.tcl - serves `openssl ocsp` over HTTP on loopback: a real responder for the demo, and for the suite
# that needs responses of another implementation than the mock responder.
#
# `openssl ocsp -port` would be enough, but with OpenSSL 3.0 it listens on all interfaces, which cannot be changed. Here
# each request starts `openssl ocsp` once, which rereads index.txt, so that a revocation shows in the next response.
#
# usage: tclsh utils/openssl-responder.tcl DIR [--port N] [--nmin MINUTES] [--log FILE]
#        DIR is the directory of `tclsh utils/ocsp-pki.tcl demo DIR` with ca.crt, responder.crt, responder.key and
# index.txt. Nothing is read before the first request, so they may be created later. Prints http://127.0.0.1:PORT/ when
# it listens (--port 0, the default, selects a free port), then serves until it is terminated. --nmin: validity
#        of a response in minutes, default 5.
#
# SPDX-License-Identifier: BSD-3-Clause

set requestMax 65536 ;# bytes of a request with header and body; larger ones are rejected

proc parseArguments {argv} {
    array set ::option {--port 0 --nmin 5 --log ""}
    set ::dir [lindex $argv 0]
    foreach {name value} [lrange $argv 1 end] {
        if {![info exists ::option($name)]} {
            puts stderr "openssl-responder.tcl: unknown option $name; see the head of the file."
            exit 1
        }
        set ::option($name) $value
    }
    if {$::dir eq ""} {
        puts stderr "openssl-responder.tcl: name the directory of `tclsh utils/ocsp-pki.tcl demo DIR`."
        exit 1
    }
}

proc note {sentence} {
    if {$::option(--log) eq ""} return
    set log [open $::option(--log) a]
    puts $log "[clock format [clock seconds] -format %H:%M:%S] $sentence"
    close $log
}

proc accept {channel host port} {
    fconfigure $channel -translation binary -blocking 0 -buffering full
    set ::received($channel) ""
    fileevent $channel readable [list receive $channel]
}

proc hangUp {channel} {
    catch {close $channel}
    unset -nocomplain ::received($channel)
}

# Reads until the request is complete. Drops a client that disconnects or sends too much.
proc receive {channel} {
    if {[catch {read $channel} bytes]} {hangUp $channel; return}
    append ::received($channel) $bytes
    set text $::received($channel)
    set head [string first "\r\n\r\n" $text]
    if {$head >= 0} {
        set length 0
        regexp -nocase {\r\ncontent-length: *([0-9]+)} [string range $text 0 $head+1] -> length
        scan $length %lld length
        set body [string range $text $head+4 end]
        if {[string length $body] >= $length} {
            fileevent $channel readable {}
            answer $channel [string range $text 0 $head-1] [string range $body 0 $length-1]
            return
        }
    }
    if {[eof $channel] || [string length $text] > $::requestMax} {hangUp $channel}
}

# Returns the OCSPRequest of a GET, which is its path: base64, percent-encoded (RFC 6960 appendix A).
proc requestOfPath {path} {
    set plain ""
    foreach {whole literal hex} [regexp -all -inline {([^%])|%([0-9a-fA-F]{2})} $path] {
        append plain [expr {$hex eq "" ? $literal : [format %c 0x$hex]}]
    }
    return [binary decode base64 [string trimleft $plain /]]
}

proc answer {channel head body} {
    set status "200 OK"
    set type application/ocsp-response
    set method [lindex [split $head " "] 0]
    if {[catch {
        switch $method {
            POST {set request $body}
            GET {set request [requestOfPath [lindex [split $head " "] 1]]}
            default {error "OCSP does not use the method $method"}
        }
        set reply [askOpenssl $request]
        note "$method: answered with [string length $reply] bytes"
    } why]} {
        set status "500 Internal Server Error"
        set type text/plain
        set reply "$why\n"
        note "$method: failed: $why"
    }
    catch {
        puts -nonewline $channel "HTTP/1.1 $status\r\nContent-Type: $type\r\nContent-Length: [string length $reply]\r\n"
        puts -nonewline $channel "Connection: close\r\n\r\n$reply"
    }
    hangUp $channel ;# a non-blocking channel still sends its buffer after close
}

proc askOpenssl {request} {
    close [file tempfile requestFile]
    close [file tempfile replyFile]
    try {
        set f [open $requestFile wb]
        puts -nonewline $f $request
        close $f
        exec openssl ocsp -index $::dir/index.txt -CA $::dir/ca.crt -rsigner $::dir/responder.crt \
            -rkey $::dir/responder.key -nmin $::option(--nmin) -reqin $requestFile -respout $replyFile >/dev/null 2>@1
        set f [open $replyFile rb]
        set reply [read $f]
        close $f
        if {$reply eq ""} {error "openssl ocsp returned no response"}
        return $reply
    } finally {
        file delete $requestFile $replyFile
    }
}

parseArguments $argv
set listener [socket -server accept -myaddr 127.0.0.1 $option(--port)]
puts "http://127.0.0.1:[lindex [fconfigure $listener -sockname] 2]/"
flush stdout
vwait forever
