# client.tcl - a RESP client for the suites: `valkey HOST PORT ?defer? ?tls? ?tlsoptions?` gives a command to talk with.
#
# A command is sent by naming it ("$c set key value") and its answer is returned; an error answer is raised. A client
# made with defer 1 only sends, and "$c read" returns one answer. Other verbs that are not sent: close, channel, write,
# flush. Reading blocks: a server that hangs is noticed by the runner, which watches how long a suite has been silent.
#
# SPDX-License-Identifier: BSD-3-Clause

namespace eval resp {
    variable count 0
    variable channel      ;# id -> socket
    variable deferred     ;# id -> 1 when answers are read by hand
    array set channel {}
    array set deferred {}
}

proc valkey {{host 127.0.0.1} {port 6379} {defer 0} {tls 0} {tlsoptions {}}} {
    if {$tls} {
        package require tls
        # The suites verify certificates with openssl and gnutls-cli; here TLS is only a road.
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

# One line without its end; an end of file is an error.
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

# `count` answers as a list. An error among them is raised only after all were read, or the next command would read
# them.
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
        default {error "Bad protocol: an answer cannot begin with '[string range $line 0 40]'"}
    }
}
