# ocsp-config.tcl - what an operator uses and sees: directives (scenario 18), DEBUG OCSP-REFRESH and OCSP.REFRESH (19),
# INFO, the log, and loading the module at run time.
#
# Weight: 17
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup

# Returns how many command filters INFO modules gives for the module.
proc filters {} {
    foreach line [split [r info modules] \n] {
        if {[regexp {name=ocsp,.*filters=(\d+)} $line - count]} {return $count}
    }
    fail "no module ocsp in INFO modules"
}

# ---- directives ----

start_server [ocsp_server $leaf $ca] {
    test {directives: defaults are as documented (18.3)} {
        foreach {directive value} {
            refresh-margin 10% max-interval 0 retry-delay 10 timeout 5 responder-url {} cache-dir . response-file {}
            issuer-file {} proxy {}
        } {
            assert_equal [ocsp_get $directive] $value $directive
        }
    }

    foreach {directive goods bads} {
        stapling
            {no yes}
            {maybe 2 {} 1.5}
        refresh-margin
            {10% 10 1 1% 99 99% 50%}
            {0 0% 100 100% -5 {} % abc 10%% 1.5 10x {10 %} 4294967306}
        max-interval
            {0 60 3600 604800}
            {1 59 -1 604801 {} abc 60s 1.5 99999999999999999999}
        retry-delay
            {1 10 3600}
            {0 -1 3601 {} abc 99999999999999999999}
        timeout
            {1 5 60}
            {0 -1 61 {} abc}
        responder-url
            {http://127.0.0.1:9/ https://localhost/ocsp http://[::1]:9/x http://a.example/p?q=1 {}}
            {ftp://localhost/ localhost http:// https:// http:///path http://user:secret@localhost/
             http://user@localhost/ {http://local host/} http://localhost:0/ http://localhost:65536/
             http://localhost:port/}
        cache-dir
            {. ./elsewhere {}}
            {}
        response-file
            {{} /nonexistent/response.der}
            {}
        issuer-file
            {{} /nonexistent/issuer.pem}
            {}
        proxy
            {{} none http://127.0.0.1:9 http://user:secret@localhost:3128/ http://[::1]:9}
            {no https://127.0.0.1:9 http://127.0.0.1 127.0.0.1:9 http://user:secret@localhost
             http://user:secret@localhost:0 http://user:my@secret@localhost:3128 http://user:secret%@localhost:3128
             http://secret@localhost:3128 http://user:3/secret@localhost:3128 {http://user:a secret@localhost:3128}
             http://localhost:3128/secret}
    } {
        test "directives: $directive takes valid values at run time and rejects others with an explanation (18.4)" {
            set default [ocsp_get $directive]
            foreach value $goods {
                ocsp_set $directive $value
                set shown [ocsp_get $directive]
                if {$directive eq "refresh-margin"} {
                    assert_equal [string trimright $shown %] [string trimright $value %]
                } else {
                    assert_equal $shown $value
                }
            }
            ocsp_set $directive $default
            foreach value $bads {
                if {![catch {ocsp_set $directive $value} sentence]} {
                    fail "[ocsp_directive $directive] accepted the value '$value'"
                }
                assert_match {*CONFIG SET failed*} $sentence "$directive '$value'"
                # More than the bare refusal: it says which values are valid.
                assert_morethan [string length $sentence] 60 $sentence
                assert_equal [ocsp_get $directive] $default "$directive after '$value'"
                assert_no_match {*secret*} $sentence
            }
            assert_equal [r ping] PONG
        }
    }

    test {directives: one CONFIG SET of several directives sets all of them or none (18.5)} {
        r config set [ocsp_directive timeout] 7 [ocsp_directive retry-delay] 8
        assert_equal [ocsp_get timeout] 7
        assert_equal [ocsp_get retry-delay] 8
        catch {r config set [ocsp_directive timeout] 9 [ocsp_directive retry-delay] 0}
        assert_equal [ocsp_get timeout] 7
        assert_equal [ocsp_get retry-delay] 8
    }

    test {directives: max-interval between 0 and 60 is refused with the values that are valid (18.4)} {
        foreach value {1 59} {
            assert_error {*use 60 to 604800 (a week), or 0 *} {ocsp_set max-interval $value}
        }
    }

    test {directives: a new refresh-margin applies to the current response (18.5)} {
        ocsp_set responder-url ""
        ocsp_wait_info state good
        # The response lasts an hour. With 10 %, the refresh is due 6 minutes before its end, and jitter makes it
        # earlier by up to a fifth of what the wait exceeds 30 minutes; with 60 %, by up to a tenth of the margin
        # window.
        foreach {margin least most} {10% 2850 3241 60% 1100 1441 10 2850 3241} {
            ocsp_set refresh-margin $margin
            wait_for_condition 100 50 {
                [ocsp_info next_refresh_in_seconds] >= $least && [ocsp_info next_refresh_in_seconds] <= $most
            } else {
                fail "with $margin: [ocsp_situation]"
            }
        }
        ocsp_assert_good $ca
    }

    test {directives: CONFIG REWRITE and a restart keep each of them (18.6)} {
        set values [list stapling yes refresh-margin 33% max-interval 4321 retry-delay 44 timeout 55 \
            responder-url ${url}rewritten cache-dir $dir response-file {} issuer-file $dir/issuer.pem \
            proxy none]
        foreach {directive value} $values {ocsp_set $directive $value}
        r config rewrite
        restart_server 0 true false
        foreach {directive value} $values {
            assert_equal [ocsp_get $directive] $value $directive
        }
        r debug ocsp-refresh
        ocsp_responder_wait $responder 1 20000 -path /rewritten
        ocsp_set issuer-file ""
        ocsp_set response-file $dir/nothere.der
        ocsp_set stapling no
        r config rewrite
        restart_server 0 true false
        assert_equal [ocsp_get response-file] $dir/nothere.der
        assert_equal [ocsp_get stapling] no
    }
}

test {directives: an invalid value in the configuration file keeps the server from starting (18.7)} {
    # As with any other directive in the server's configuration file.
    foreach {directive value} {
        retry-delay 0 refresh-margin 100% max-interval 59 responder-url ftp://localhost/ proxy localhost:3128
    } {
        set failed [catch {
            set server [start_server [ocsp_server $leaf $ca $directive $value]]
            stop_server $server
        } why]
        assert_equal $failed 1 "the server started with $directive $value"
    }
}

test {directives: enable-protected-configs decides on URLs, directories, files and the proxy (18.8)} {
    foreach {setting allowed} {no 0 local 1 yes 1} {
        start_server [ocsp_server $leaf $ca enable-protected-configs $setting] {
            foreach {directive value} [list responder-url $url cache-dir $dir response-file $dir/nothere.der \
                issuer-file $dir/nothere.pem proxy http://user:secret@127.0.0.1:9] {
                set refused [catch {ocsp_set $directive $value} why]
                assert_equal $refused [expr {!$allowed}] "$directive with enable-protected-configs $setting: $why"
                if {!$allowed} {assert_match {*protected*} $why}
                assert_no_match {*secret*} $why
            }
            # The other directives are not protected.
            foreach {directive value} {stapling no stapling yes refresh-margin 20% retry-delay 9 timeout 4} {
                ocsp_set $directive $value
            }
        }
    }
}

test {directives: on the command line, and in the file after loadmodule (18.9)} {
    start_server [concat [ocsp_server $leaf $ca] [list args [list --ocsp.timeout 17] \
        config_lines [list ocsp.retry-delay 18 ocsp.refresh-margin 19%]]] {
        assert_equal [ocsp_get timeout] 17
        assert_equal [ocsp_get retry-delay] 18
        assert_equal [ocsp_get refresh-margin] 19%
        ocsp_wait_info state good
    }
}

# ---- INFO ----

set state_fields {state revoked cert_serial responder_url must_staple this_update next_update produced_at
    response_bytes response_source next_refresh_in_seconds expires_in_seconds consecutive_failures last_error
    last_error_code last_success_time last_fetch_ms handshakes_stapled handshakes_unstapled peers_verified
    peers_rejected peers_missing last_peer_error failures_network failures_http
    failures_response failures_verify chain_followed chain_good chain_revoked chain_last_error handshakes_chain_stapled}
set counter_fields {refreshes refresh_failures}
set text_fields {state cert_serial responder_url response_source last_error last_error_code last_peer_error
    chain_last_error}

start_server [ocsp_server $leaf $ca stapling no retry-delay 3600] {
    test {INFO: has exactly the documented fields before anything has happened} {
        set fields [ocsp_info_all]
        assert_equal [lsort [dict keys $fields]] [lsort [concat $state_fields $counter_fields]]
        foreach {field value} {
            state disabled revoked 0 must_staple 0 this_update 0 next_update 0 produced_at 0 response_bytes 0
            response_source none next_refresh_in_seconds -1 expires_in_seconds -1 consecutive_failures 0 last_error {}
            last_error_code {} last_success_time 0 handshakes_stapled 0 failures_network 0 failures_http 0 failures_response 0
            failures_verify 0 refreshes 0 refresh_failures 0
        } {
            assert_equal [dict get $fields $field] $value $field
        }
    }

    test {INFO: fields and values after a successful refresh} {
        ocsp_responder_behave $responder {this -100 next 3600 produced -50}
        ocsp_set stapling yes
        ocsp_wait_info state good
        ocsp_assert_staple good
        set fields [ocsp_info_all]
        assert_equal [lsort [dict keys $fields]] [lsort [concat $state_fields $counter_fields]]
        foreach field [concat $state_fields $counter_fields] {
            if {$field ni $text_fields} {assert {[string is wideinteger -strict [dict get $fields $field]]}}
        }
        set now [clock seconds]
        assert_equal [dict get $fields cert_serial] [dict get $leaf serial]
        assert_equal [dict get $fields responder_url] $url
        assert_range [dict get $fields this_update] [expr {$now - 160}] [expr {$now - 99}]
        assert_range [dict get $fields produced_at] [expr {$now - 110}] [expr {$now - 49}]
        assert_range [dict get $fields expires_in_seconds] 3500 3600
        # Due 10 % of 3700 s before the end, which is 3330 s from thisUpdate; jitter takes up to a fifth of the wait
        # beyond 30 minutes.
        assert_range [dict get $fields next_refresh_in_seconds] 2800 3231
        assert_range [dict get $fields last_success_time] [expr {$now - 60}] $now
        assert_equal [dict get $fields response_source] network
        assert_morethan [dict get $fields response_bytes] 100
        assert_morethan_equal [dict get $fields last_fetch_ms] 0
        assert_equal [dict get $fields handshakes_stapled] 2
        assert_equal [dict get $fields refreshes] 1
        assert_equal [dict get $fields refresh_failures] 0
    }

    test {INFO: has the sections ocsp and ocsp_stats, and prints neither by default} {
        set text [r info ocsp]
        assert_match {*# ocsp*} $text
        assert_match {*# ocsp_stats*} $text
        # The counters are below the second heading.
        assert_morethan [string first ocsp_refreshes: $text] [string first {# ocsp_stats} $text]
        assert_lessthan [string first ocsp_state: $text] [string first {# ocsp_stats} $text]
        assert_no_match {*ocsp_state*} [r info]
        assert_match {*ocsp_refreshes*} [r info ocsp_stats]
        assert_match {*ocsp_state*} [r info everything]
    }

    test {log: each change of state is one line, and no retry repeats it} {
        ocsp_set stapling yes
        ocsp_wait_info state good
        assert_equal [llength [ocsp_log_lines]] [llength [lsort -unique [lmap line [ocsp_log_lines] {
            regsub {^\S+ \d+ \w+ \d+ [\d:.]+ \S } $line {}
        }]]]
        set lines [llength [ocsp_log_lines]]
        for {set i 0} {$i < 5} {incr i} {ocsp_refresh}
        # A success after a success is not logged.
        assert_equal [llength [ocsp_log_lines]] $lines [ocsp_log_lines]
        ocsp_responder_behave $responder {http 503}
        for {set i 0} {$i < 5} {incr i} {ocsp_refresh}
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 1}] [ocsp_log_lines]
        set line [lindex [ocsp_log_lines] end]
        assert_match "*$url*" $line
        assert_match {*503*} $line
        assert_match {*retrying in*} $line
        ocsp_responder_behave $responder good
        for {set i 0} {$i < 3} {incr i} {ocsp_refresh}
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 2}] [ocsp_log_lines]
        after 1100
        ocsp_responder_behave $responder {status revoked}
        for {set i 0} {$i < 3} {incr i} {ocsp_refresh}
        assert_equal [llength [ocsp_log_lines]] [expr {$lines + 3}] [ocsp_log_lines]
        assert_match {*revoked*} [lindex [ocsp_log_lines] end]
        # The server marks a warning with #.
        assert_match {* # *} [lindex [ocsp_log_lines] end]
        after 1100
        ocsp_responder_behave $responder good
        ocsp_refresh
        assert_equal [ocsp_info state] good
    }
}

# ---- commands (19) ----

start_server [ocsp_server $leaf $ca retry-delay 3600 timeout 60] {
    test {DEBUG OCSP-REFRESH: replies at once, and many calls during one fetch are one refresh (19.1)} {
        ocsp_wait_info state good
        ocsp_responder_forget $responder
        ocsp_responder_behave $responder hang
        for {set i 0} {$i < 50} {incr i} {
            assert_equal [r debug ocsp-refresh] {Background OCSP refresh started}
        }
        ocsp_wait_hanging $responder
        for {set i 0} {$i < 50} {incr i} {r debug ocsp-refresh}
        assert_equal [ocsp_responder_count $responder] 1
        set refreshes [ocsp_info refreshes]
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        ocsp_wait_above refreshes $refreshes
        # No further refresh follows.
        after 1500
        assert_equal [ocsp_responder_count $responder] 1
        assert_equal [ocsp_info refreshes] [expr {$refreshes + 1}]
    }

    test {DEBUG OCSP-REFRESH: calls during a fetch that fails start one more refresh at once (19.2)} {
        ocsp_responder_forget $responder
        ocsp_responder_behave $responder hang
        r debug ocsp-refresh
        ocsp_wait_hanging $responder
        for {set i 0} {$i < 20} {incr i} {r debug ocsp-refresh}
        set before [ocsp_info_all]
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder {http 503}
        ocsp_responder_wait $responder 2
        ocsp_wait_info consecutive_failures 0
        after 1500
        assert_equal [ocsp_responder_count $responder] 2
        assert_equal [ocsp_info refreshes] [expr {[dict get $before refreshes] + 2}]
        assert_equal [ocsp_info refresh_failures] [expr {[dict get $before refresh_failures] + 1}]
    }

    test {DEBUG OCSP-REFRESH: in any letter case, inline, in MULTI, pipelined (19.3)} {
        foreach words {{debug ocsp-refresh} {DEBUG OCSP-REFRESH} {Debug Ocsp-Refresh}} {
            assert_equal [r {*}$words] {Background OCSP refresh started}
        }
        r multi
        r debug ocsp-refresh
        r ping
        assert_equal [r exec] {{Background OCSP refresh started} PONG}
        set plain [socket [srv 0 host] [srv 0 pport]]
        fconfigure $plain -translation binary
        puts -nonewline $plain "debug ocsp-refresh\r\nDEBUG  OCSP-Refresh\r\nping\r\n"
        flush $plain
        foreach answer {{+Background OCSP refresh started} {+Background OCSP refresh started} +PONG} {
            assert_equal [string trim [gets $plain]] $answer
        }
        close $plain
        set pipelined [valkey_deferring_client]
        for {set i 0} {$i < 20} {incr i} {$pipelined debug ocsp-refresh}
        for {set i 0} {$i < 20} {incr i} {assert_equal [$pipelined read] {Background OCSP refresh started}}
        $pipelined close
        # Other subcommands go to the server.
        assert_error {ERR*} {r debug ocsp-refresh too many words}
        assert_error {*nosuchthing*} {r debug nosuchthing}
        assert_equal [r debug sleep 0] OK
    }

    test {OCSP.REFRESH: waits, and replies OK or the reason of the failure (19.4)} {
        assert_equal [r ocsp.refresh] OK
        ocsp_responder_behave $responder {http 503}
        assert_error {*503*} {r ocsp.refresh}
        assert_error "*$url*" {r ocsp.refresh}
        ocsp_responder_behave $responder good
        assert_equal [r OCSP.Refresh] OK
        assert_error {*wrong number of arguments*} {r ocsp.refresh now}
    }

    test {OCSP.REFRESH: does not block the server, and waits for the end of the refresh (19.5)} {
        ocsp_responder_behave $responder hang
        set waiting [valkey_deferring_client]
        $waiting ocsp.refresh
        ocsp_wait_hanging $responder
        assert_equal [r ping] PONG
        assert_equal [s blocked_clients] 1
        ocsp_assert_staple good
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        assert_equal [$waiting read] OK
        $waiting close
    }

    test {OCSP.REFRESH: clients that disconnect while they wait do no harm (19.6)} {
        ocsp_responder_behave $responder hang
        for {set i 0} {$i < 5} {incr i} {
            set gone [valkey_deferring_client]
            $gone ocsp.refresh
            $gone flush
            lappend leaving $gone
        }
        wait_for_condition 200 50 {[s blocked_clients] == 5} else {fail "[s blocked_clients] of 5 clients are blocked"}
        foreach gone $leaving {$gone close}
        wait_for_condition 200 50 {[s blocked_clients] == 0} else {fail "[s blocked_clients] clients are still blocked"}
        ocsp_responder_behave $responder good
        ocsp_responder_release $responder
        assert_equal [r ocsp.refresh] OK
    }

    test {OCSP.REFRESH: an error in MULTI and in a script (19.7)} {
        r multi
        catch {r ocsp.refresh} queued
        assert_error {*} {r exec}
        assert_error {*} {r eval {return redis.call('ocsp.refresh')} 0}
        assert_equal [r ping] PONG
        assert_equal [s blocked_clients] 0
    }

    test {OCSP.REFRESH: the same response again is no failure and causes no busy loop (19.8)} {
        # A response that is newer than the current one, and then the same bytes for every request.
        after 1100
        ocsp_responder_behave $responder {this 0 next 3600 freeze 1}
        ocsp_refresh
        set before [ocsp_info_all]
        ocsp_responder_forget $responder
        for {set i 0} {$i < 5} {incr i} {ocsp_refresh}
        assert_equal [ocsp_info this_update] [dict get $before this_update]
        assert_equal [ocsp_info refresh_failures] [dict get $before refresh_failures]
        assert_equal [ocsp_info consecutive_failures] 0
        after 1500
        assert_equal [ocsp_responder_count $responder] 5
        ocsp_responder_behave $responder good
    }

    test {refresh commands: with stapling off both say so (19.9)} {
        ocsp_set stapling no
        assert_error {*stapling*} {r debug ocsp-refresh}
        assert_error {*stapling*} {r ocsp.refresh}
        ocsp_set stapling yes
    }

    test {refresh commands: a user without the right to DEBUG may run neither (19.10)} {
        r acl setuser bob on >secret ~* &* +@all -debug
        set bob [valkey_client]
        $bob auth bob secret
        assert_error {*NOPERM*} {$bob debug ocsp-refresh}
        assert_error {*NOPERM*} {$bob ocsp.refresh}
        $bob close
        # One of the two rights is not enough. (A patched server requires DEBUG alone; with the module, the filter has
        # replaced DEBUG by OCSP.REFRESH before the server checks ACLs.)
        foreach rights {+debug +ocsp.refresh} {
            r acl setuser carol reset on >secret ~* &* -@all +ping $rights
            set carol [valkey_client]
            $carol auth carol secret
            assert_error {*NOPERM*} {$carol debug ocsp-refresh} $rights
            assert_error {*NOPERM*} {$carol ocsp.refresh} $rights
            $carol close
        }
        r acl setuser dave on >secret ~* &* -@all +debug +ocsp.refresh
        set dave [valkey_client]
        $dave auth dave secret
        assert_equal [$dave debug ocsp-refresh] {Background OCSP refresh started}
        assert_equal [$dave ocsp.refresh] OK
        $dave close
    }

    test {refresh commands: a command filter is registered where DEBUG is enabled (19.11)} {
        assert_equal [filters] 1
    }

    test {refresh commands: a client that is not authenticated gets NOAUTH (19.12)} {
        r config set requirepass secret
        set stranger [valkey_client]
        assert_error {*NOAUTH*} {$stranger debug ocsp-refresh}
        assert_error {*NOAUTH*} {$stranger ocsp.refresh}
        $stranger close
        r auth secret
        r config set requirepass ""
    }
}

test {DEBUG OCSP-REFRESH: enable-debug-command no: refused by the server, without a command filter (19.13)} {
    start_server [ocsp_server $leaf $ca enable-debug-command no] {
        ocsp_wait_info state good
        assert_equal [filters] 0
        assert_error {*DEBUG command not allowed*} {r debug sleep 0}
        assert_error {*DEBUG command not allowed*} {r debug ocsp-refresh}
        # Without DEBUG, a reload of the certificate forces a refresh.
        set requests [ocsp_responder_count $responder]
        ocsp_load_certificate $leaf
        ocsp_responder_wait $responder [expr {$requests + 1}]
    }
}

test {DEBUG OCSP-REFRESH: enable-debug-command local: from loopback and from the Unix socket (19.14)} {
    start_server [ocsp_server $leaf $ca enable-debug-command local] {
        ocsp_wait_info state good
        assert_equal [filters] 1
        assert_equal [r debug ocsp-refresh] {Background OCSP refresh started}
        # Tcl has no Unix sockets: use valkey-cli, if it is installed.
        set cli [file join [file dirname $::server_binary] valkey-cli]
        if {[file executable $cli]} {
            assert_match {*Background OCSP refresh started*} \
                [exec $cli -s [srv 0 unixsocket] debug ocsp-refresh]
        }
    }
}

# ---- loading the module ----

# Returns options for a server without the module, so that a test can load it.
proc plain_server {args} {
    set options [ocsp_server $::leaf $::ca {*}$args]
    dict lappend options omit loadmodule {*}[lmap short {stapling} {ocsp_directive $short}]
    return $options
}

test {module load: MODULE LOAD at run time starts stapling without a restart} {
    ocsp_responder_behave $responder good
    start_server [plain_server] {
        ocsp_assert_staple none
        r module load $::ocsp_module_path
        assert_equal [ocsp_info state] disabled
        ocsp_assert_staple none
        ocsp_set stapling yes
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_equal [r debug ocsp-refresh] {Background OCSP refresh started}
        # A second load fails and does no harm.
        assert_error {*} {r module load $::ocsp_module_path}
        ocsp_load_certificate $leaf
        ocsp_assert_good $ca
        r config rewrite
        restart_server 0 true false
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

test {module load: MODULE LOADEX with CONFIG staples from the start} {
    start_server [plain_server] {
        r module loadex $::ocsp_module_path config ocsp.stapling yes config ocsp.timeout 3
        ocsp_wait_info state good
        assert_equal [ocsp_get timeout] 3
        ocsp_assert_good $ca
    }
}

test {module load: an invalid CONFIG value is refused, and reloads of the certificate still work} {
    start_server [plain_server] {
        assert_error {*} {r module loadex $::ocsp_module_path config ocsp.timeout 0}
        # A failed OnLoad must leave no callback behind: the next TLS context would call it.
        for {set i 0} {$i < 3} {incr i} {
            ocsp_load_certificate $leaf
            ocsp_assert_staple none
        }
        assert_equal [r ping] PONG
        r module load $::ocsp_module_path
        ocsp_set stapling yes
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

# Asserts that a refused load has left nothing behind: the server works as if the load had not been tried.
proc assert_untouched {} {
    assert_no_match {*name=ocsp*} [r info modules]
    assert_no_match {*ocsp_state*} [r info everything]
    ocsp_assert_staple none
    ocsp_load_certificate $::leaf
    ocsp_assert_staple none
    catch {r debug ocsp-refresh} answer
    assert_no_match {*Background*} $answer
    assert_equal [r bgsave] {Background saving started}
    waitForBgsave r
    assert_equal [r ping] PONG
}

# What is wrong with a load, and the words after the module's path.
set refused_loads {
    {an unknown setting}               {CONFIG ocsp.retry_delay 5}
    {an unknown setting among others}
        {CONFIG ocsp.stapling yes CONFIG ocsp.retry_delay 5 CONFIG ocsp.verify-peers require}
    {a name without the prefix ocsp.}   {CONFIG stapling yes}
    {another module's setting}         {CONFIG other.stapling yes}
    {a number out of range}            {CONFIG ocsp.timeout 0}
    {not a number}                     {CONFIG ocsp.stapling yes CONFIG ocsp.timeout soon}
    {an invalid enum value}            {CONFIG ocsp.verify-peers maybe}
    {an invalid URL}                   {CONFIG ocsp.stapling yes CONFIG ocsp.responder-url ftp://localhost/}
    {an invalid margin}                {CONFIG ocsp.refresh-margin 100%}
    {a setting without a value}        {CONFIG ocsp.timeout}
    {no setting after CONFIG}          {CONFIG}
    {a word other than CONFIG}         {SETTING ocsp.timeout 5}
}

test {module load: MODULE LOADEX with any mistake is refused and leaves nothing behind, and then a right one works} {
    start_server [plain_server stapling yes save {}] {
        foreach {what words} $refused_loads {
            set from [count_log_lines 0]
            assert_equal [catch {r module loadex $::ocsp_module_path {*}$words} why] 1 "$what: was loaded"
            assert_match {*ERR*} $why $what
            assert_untouched
            # The server itself rejects an unknown setting, after OnLoad has succeeded.
            assert_equal [llength [lsearch -all -inline [lrange [log_lines 0] $from end] *OnUnload*failed*]] 0 $what
        }
        r module loadex $::ocsp_module_path CONFIG ocsp.stapling yes
        ocsp_wait_info state good
        ocsp_assert_good $ca
        # A second load says why it is refused, and the first one goes on.
        set from [count_log_lines 0]
        assert_error {*} {r module loadex $::ocsp_module_path CONFIG ocsp.stapling yes}
        verify_log_message 0 {*loaded already*} $from
        ocsp_load_certificate $leaf
        ocsp_wait_info state good
        ocsp_assert_good $ca
        assert_equal [r ocsp.refresh] OK
    }
}

test {module load: load and unload in one transaction} {
    start_server [plain_server] {
        for {set i 0} {$i < 3} {incr i} {
            r multi
            r module loadex $::ocsp_module_path CONFIG ocsp.stapling yes
            r module unload ocsp
            assert_equal [r exec] {OK OK}
            assert_untouched
        }
        # A TLS context that the server makes in between keeps the module loaded.
        r multi
        r module loadex $::ocsp_module_path CONFIG ocsp.stapling yes
        r config set tls-cert-file [dict get $leaf cert]
        r module unload ocsp
        catch {r exec}
        assert_match {*name=ocsp*} [r info modules]
        ocsp_wait_info state good
        ocsp_assert_good $ca
    }
}

test {module load: the same mistakes in the configuration file keep the server from starting, and the log says why} {
    foreach {what lines sentence} [list \
        {an unknown setting} {ocsp.retry_delay 5} {*Module Configuration*} \
        {a number out of range} {ocsp.timeout 0} {*ocsp.timeout*} \
        {a setting without a value} {ocsp.timeout {}} {*timeout*} \
        {an invalid enum value} {ocsp.verify-peers maybe} {*verify-peers*} \
        {the module loaded twice} [list loadmodule $::ocsp_module_path] {*loaded already*} \
    ] {
        set failed [catch {
            set server [start_server [concat [ocsp_server $leaf $ca] [list config_lines $lines]]]
            stop_server $server
        } why]
        assert_equal $failed 1 "$what: the server started"
        assert_match {*ended with status 1*} $why $what
        assert_match $sentence [ocsp_file_read $::last_log] $what
    }
    # Words after the module's path are no settings: the log says so, and the rest of the file applies.
    set options [ocsp_server $leaf $ca]
    dict set options overrides [dict replace [dict get $options overrides] loadmodule \
        "$::ocsp_module_path stapling no"]
    start_server $options {
        ocsp_wait_info state good
        assert_equal [llength [ocsp_log_lines 0 {*takes no arguments*}]] 1
    }
}

test {module load: MODULE UNLOAD is refused with a line in the log, and stapling goes on} {
    start_server [ocsp_server $leaf $ca] {
        ocsp_wait_info state good
        set from [count_log_lines 0]
        assert_error {*} {r module unload ocsp}
        verify_log_message 0 {*[Uu]nload*} $from
        ocsp_assert_good $ca
        ocsp_load_certificate $leaf
        ocsp_assert_good $ca
        assert_match {*ocsp*} [r module list]
    }
}

test {directives: TLS switched on at run time starts stapling} {
    start_server [ocsp_server $leaf $ca tls-port 0] {
        assert_equal [r ping] PONG
        r config set tls-port [find_available_port]
        ocsp_wait_info state good
    }
}
