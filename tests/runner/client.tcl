# client.tcl - a RESP client for the suites: `valkey HOST PORT ?defer? ?tls? ?tlsoptions?` returns a command.
#
# "$c set key value" sends a command and returns its reply; an error reply is raised as an error. A client with defer 1
# only sends, and "$c read" returns one reply. Other words with a meaning of their own: close, channel, write, flush.
# Reading blocks: if the server hangs, run.tcl notices that the suite has been silent.
#
# SPDX-License-Identifier: BSD-3-Clause

namespace eval resp {
    variable count 0
    variable channel      ;# id -> socket
    variable deferred     ;# id -> 1 when replies are read by `read`
    array set channel {}
    array set deferred {}
}

proc valkey {{host 127.0.0.1} {port 6379} {defer 0} {tls 0} {tlsoptions {}}} {
    if {$tls} {
        package require tls
        # No verification here: openssl and gnutls-cli verify certificates for the suites.
        set sock [::tls::socket -request 0 -require 0 {*}$tlsoptions $host $port]
    } else {
        set sock [socket $host $port]
    }
    fconfigure $sock -translation binary -buffering full
    set id [incr ::resp::count]
    set ::resp::channel($id) $sock
    set ::resp::deferred($id) $defer
    interp alias {} ::resp::client$id {} ::resp::call $id
    return ::resp::client$id
}

proc ::resp::call {id verb args} {
    variable channel
    variable deferred
    if {![info exists channel($id)]} {error "I/O error: this client is closed"}
    set sock $channel($id)
    switch -exact -- $verb {
        close {
            catch {close $sock}
            unset channel($id) deferred($id)
            interp alias {} ::resp::client$id {}
            return
        }
        channel {return $sock}
        read {return [read_reply $sock]}
        write {puts -nonewline $sock [lindex $args 0]; return}
        flush {flush $sock; return}
    }
    set out "*[expr {[llength $args] + 1}]\r\n"
    foreach word [list $verb {*}$args] {
        append out "\$[string length $word]\r\n$word\r\n"
    }
    if {[catch {puts -nonewline $sock $out; flush $sock} why]} {error "I/O error writing: $why"}
    if {!$deferred($id)} {return [read_reply $sock]}
}

# Reads one line, without its end. An end of file is an error.
proc ::resp::read_line {sock} {
    if {[catch {gets $sock line} n]} {error "I/O error reading reply: $n"}
    if {$n < 0} {error "I/O error reading reply"}
    return [string trimright $line \r]
}

proc ::resp::read_bytes {sock len} {
    if {[catch {read $sock [expr {$len + 2}]} bytes]} {error "I/O error reading reply: $bytes"}
    if {[string length $bytes] < $len + 2} {error "I/O error reading reply"}
    return [string range $bytes 0 end-2]
}

# Reads `count` replies as a list. An error among them is raised after all of them were read, or the next command would
# get the rest.
proc ::resp::read_many {sock count} {
    set all {}
    set bad {}
    for {set i 0} {$i < $count} {incr i} {
        if {[catch {read_reply $sock} one]} {
            if {$bad eq {}} {set bad $one}
        } else {
            lappend all $one
        }
    }
    if {$bad ne {}} {error $bad}
    return $all
}

proc ::resp::read_reply {sock} {
    set line [read_line $sock]
    set rest [string range $line 1 end]
    switch -exact -- [string index $line 0] {
        + - : - , - ( {return $rest}
        - {return -code error $rest}
        _ {return {}}
        # {return [expr {$rest eq "t"}]}
        $ {return [expr {$rest < 0 ? {} : [read_bytes $sock $rest]}]}
        = {return [string range [read_bytes $sock $rest] 4 end]}
        * - ~ - > {return [read_many $sock $rest]}
        % {return [read_many $sock [expr {2 * $rest}]]}
        | {read_many $sock [expr {2 * $rest}]; return [read_reply $sock]}
        default {error "Bad protocol: a reply cannot begin with '[string range $line 0 40]'"}
    }
}
