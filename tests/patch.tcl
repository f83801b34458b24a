#!/usr/bin/env tclsh
# patch.tcl - tests of utils/valkey-patch on small trees written for them: these have the lines that it looks for, and
# nothing else of Valkey. Needs no server, no network and no privileges; for some tests a C compiler and git.
#
#   tclsh tests/patch.tcl [PATTERN]     only tests whose name matches
#
# Ends with one line "N passed, N failed".
#
# SPDX-License-Identifier: BSD-3-Clause

package require Tcl 8.6

set ::project [file dirname [file dirname [file normalize [info script]]]]
set ::tool [file join $::project utils valkey-patch]
set ::base [expr {[info exists ::env(TMPDIR)] ? $::env(TMPDIR) : "/tmp"}]
set ::work [file join $::base valkey-ocsp-patch-tests.[pid]]
set ::only [expr {[llength $argv] ? [lindex $argv 0] : "*"}]
set ::passed 0
set ::failed 0
set ::skipped 0

# ---- a small tree ----------------------------------------------------------------------------------------------------

# The files of a tree, as path -> lines. Lines that an anchor matches end in a mark, so that tests find them.
proc tree_files {} {
    set mark "/* anchor */"
    return [dict create \
        src/version.h {{#define VALKEY_VERSION "8.0.1"}} \
        src/Makefile {
            {ENGINE_SERVER_OBJ=one.o two.o}
            {ENGINE_CLI_NAME=cli # anchor}
            {ENGINE_BENCHMARK_OBJ=three.o}
            {ENGINE_CHECK_RDB_NAME=rdb # anchor}
            {all: server}
        } \
        cmake/Modules/SourceFiles.cmake {
            {set(VALKEY_SERVER_SRCS one.c two.c)}
            {}
            {# the client}
            {set(VALKEY_CLI_SRCS # anchor}
            {    three.c)}
            {set(VALKEY_BENCHMARK_SRCS}
            {    four.c)}
            {set(VALKEY_RDMA_MODULE_SRCS five.c) # anchor}
        } \
        src/cli_common.h [list \
            "    int skip_cert_verify; $mark" \
            {    char *cert;}] \
        src/cli_common.c [list \
            "#include <openssl/err.h> $mark" \
            {int cliSecureConnection(void *c) {}} \
            "    return valkeyInitiateTLS(c, ssl); $mark" \
            "\}"] \
        src/valkey-cli.c [list \
            {static int parseOptions(int argc) {}} \
            "        \} else if (!strcmp(argv\[i\], \"--insecure\")) \{ $mark" \
            "\}" \
            {static void usage(int err) {}} \
            "        \"  --insecure         No checks.\\n\" $mark" \
            "\}"] \
        src/valkey-benchmark.c [list \
            {int parseOptions(int argc) {}} \
            "        \} else if (!strcmp(argv\[i\], \"--insecure\")) \{ $mark" \
            "        \" --insecure         No checks.\\n\" $mark" \
            "\}"] \
        src/server.h [list \
            {typedef struct configEnum {}} \
            "\} configEnum; $mark" \
            {int after;}] \
        src/tls.c [list \
            {/* a file */} \
            {#include "server.h"} \
            {static void drop(void) {}} \
            {    valkey_tls_ctx = NULL;} \
            "\}" \
            {static int tlsConfigure(void *unused) {}} \
            {        valkey_tls_ctx = fresh;} \
            "        valkey_tls_client_ctx = fresh_too; $mark" \
            {        return 0;} \
            "\}" \
            {void tlsApplyPendingReload(void) {}} \
            {    valkey_tls_ctx = pending.ctx;} \
            "    valkey_tls_client_ctx = pending.client_ctx; $mark" \
            "\}" \
            {static connection *createTLSConnection(int client_side) {}} \
            "    conn->ssl = SSL_new(ctx); $mark" \
            "\}"] \
        src/sentinel.c [list \
            {#include "server.h"} \
            {static int instanceLinkNegotiateTLS(void *context) {}} \
            "    if (!ssl) return C_ERR; $mark" \
            "\}"] \
        src/config.c [list \
            {#include "server.h"} \
            {struct table rows[] = {}} \
            "    createStringConfig(\"tls-ciphersuites\", 1), $mark" \
            "\};"] \
        src/debug.c [list \
            {#include "server.h"} \
            {void debugCommand(client *c) {}} \
            "    help(\"A\"," \
            "         \"OOM\", $mark" \
            "         \"RELOAD \[how\]\");" \
            "    if (0) \{" \
            "    \} else if (!strcasecmp(text(c->argv\[1\]), \"reload\")) \{ $mark" \
            "    \}" \
            "\}" \
            {void killThreads(void) {}} \
            "    bioKillThreads(); $mark" \
            "\}"] \
        src/server.c [list \
            {#include "server.h"} \
            {void resetServerStats(void) {}} \
            "    lazyfreeResetStats(); $mark" \
            "\}" \
            {void InitServerLast(void) {}} \
            "    bioInit();" \
            "    server.initial_memory_usage = zmalloc_used_memory(); $mark" \
            "\}" \
            {sds genValkeyInfoString(dict *section_dict) {}} \
            "    if (1) \{" \
            "        info = genValkeyInfoStringACLStats(info); $mark" \
            "    \}" \
            {    /* the keys */} \
            "    if (all || dictFind(section_dict, \"keyspace\")) info = 0; $mark" \
            {    return info;} \
            "\}"] \
        valkey.conf {
            {# tls-session-cache-timeout 1 # anchor}
            {}
            {# the next chapter}
        }]
}

# In the lists above, "{}" at the end of a line that opens a body keeps the braces balanced.
proc tree_lines {lines} {
    return [lmap line $lines {regsub {\{\}$} $line "\{"}]
}

# What Valkey's trees have besides: unit tests in its own framework, or in GoogleTest and a section TLS in INFO.
proc tree_of_2025 {} {
    return [list -lines {src/unit/test_help.h {}} -lines {src/unit/test_files.h {
        {int test_object(int argc, char **argv, int flags);}
        {int test_raxOne(int argc, char **argv, int flags);}
        {int test_raxTwo(int argc, char **argv, int flags);}
        {}
        {unitTest __test_object_c[] = {{"test_object", test_object}, {NULL, NULL}};}
        {unitTest __test_rax_c[] = {{"test_raxOne", test_raxOne}, {"test_raxTwo", test_raxTwo}, {NULL, NULL}};}
        {unitTest __test_sds_c[] = {{NULL, NULL}};}
        {} {struct unitTestSuite {}} {unitTestSuite[] = {}}
        {    {"test_object.c", __test_object_c},}
        {    {"test_rax.c", __test_rax_c},}
        {    {"test_sds.c", __test_sds_c},}
    }}]
}

proc tree_of_9_1 {} {
    set lines {}
    foreach line [dict get [tree_files] src/server.c] {
        lappend lines $line
        if {[string match {*genValkeyInfoString(*} $line]} {
            lappend lines {    info = sdscatprintf(info, "# TLS\r\n" FMTARGS(} \
                {                "tls_ca_cert_expires_in_seconds:%lld\r\n", 1));}
        }
    }
    return [list -lines {src/unit/main.cpp {}} -lines {src/unit/Makefile {
        {ifeq ($(BUILD_TLS),yes)} "\tLD_LIBS += \$(TLS_LIBS)" {endif}}} -lines [list src/server.c $lines]]
}

# Creates a tree named `name` and returns its path. Changes: -without PATH, -lines PATH LINES, -eol STRING, -end STRING
# (what ends the last line of each file).
proc make_tree {name args} {
    set dir [file join $::work $name]
    file delete -force $dir
    set files [tree_files]
    set eol "\n"
    set end "\n"
    foreach {option value} $args {
        switch -- $option {
            -without {dict unset files $value}
            -lines {dict set files [lindex $value 0] [lindex $value 1]}
            -eol {set eol $value}
            -end {set end $value}
        }
    }
    foreach path {src tests/unit tests/support utils} {file mkdir [file join $dir $path]}
    dict for {path lines} $files {
        file mkdir [file dirname [file join $dir $path]]
        write_bytes [file join $dir $path] [join [tree_lines $lines] $eol]$end
    }
    return $dir
}

proc write_bytes {path bytes} {
    set channel [open $path wb]
    puts -nonewline $channel $bytes
    close $channel
}

proc read_bytes {path} {
    set channel [open $path rb]
    set bytes [read $channel]
    close $channel
    return $bytes
}

# Returns everything in a tree: paths, kinds, modes, bytes. Trees with equal snapshots are equal.
proc snapshot {dir {under {}}} {
    set all {}
    foreach path [lsort [concat [glob -nocomplain -directory [file join $dir $under] *] \
        [glob -nocomplain -types hidden -directory [file join $dir $under] *]]] {
        set name [file tail $path]
        if {$name in {. .. .git}} continue
        set inner [file join $under $name]
        if {[file type $path] eq "link"} {
            lappend all $inner [list link [file link $path]]
        } elseif {[file isdirectory $path]} {
            lappend all $inner [list directory [file attributes $path -permissions]] {*}[snapshot $dir $inner]
        } else {
            lappend all $inner [list file [file attributes $path -permissions] [read_bytes $path]]
        }
    }
    return $all
}

# ---- running and judging ---------------------------------------------------------------------------------------------

# Runs the tool. Sets ::status and ::said (its output on stdout and stderr).
proc run {args} {
    run_with {} {*}$args
}

# The same with arguments of env(1) in `with`.
proc run_with {with args} {
    set ::status 0
    if {[catch {
        exec env LC_ALL=C.UTF-8 {*}$with [info nameofexecutable] $::tool {*}$args </dev/null 2>@1
    } ::said how]} {
        set code [dict get $how -errorcode]
        set ::status [expr {[lindex $code 0] eq "CHILDSTATUS" ? [lindex $code 2] : -1}]
    }
}

proc expect {condition what} {
    if {![uplevel 1 [list expr $condition]]} {error "$what (exit $::status)\n$::said" {} EXPECTED}
}

proc expect_said {args} {
    foreach pattern $args {
        if {![string match *$pattern* $::said]} {error "it did not say: $pattern (exit $::status)\n$::said" {} EXPECTED}
    }
}

proc expect_same {dir before} {
    set after [snapshot $dir]
    if {$after eq $before} return
    set differ {}
    dict for {path what} $after {
        if {![dict exists $before $path]} {
            lappend differ "$path is new"
        } elseif {[dict get $before $path] ne $what} {
            lappend differ "$path has changed"
        }
    }
    dict for {path what} $before {
        if {![dict exists $after $path]} {lappend differ "$path is gone"}
    }
    error "the tree is not as it was: [join $differ {, }]\n$::said" {} EXPECTED
}

# Asserts that check, apply and diff change nothing, and all say why.
proc expect_refused {dir args} {
    set before [snapshot $dir]
    foreach verb {check diff apply} {
        run $verb $dir
        expect {$::status == 1} "$verb did not fail"
        expect_said "nothing was changed" {*}$args
        expect_same $dir $before
    }
}

proc test {name body} {
    if {![string match $::only $name]} return
    set ::said {}
    set ::status {}
    if {[catch {uplevel #0 $body} why how]} {
        if {$why eq "SKIP"} {
            incr ::skipped
            puts "  skipped $name"
            return
        }
        incr ::failed
        if {[dict get $how -errorcode] ne "EXPECTED"} {set why [dict get $how -errorinfo]}
        puts "  FAILED  $name\n            [string map [list \n "\n            "] $why]"
        return
    }
    incr ::passed
    puts "  ok      $name"
}

# Returns {path index line} of each line with the mark.
proc anchors {} {
    set found {}
    dict for {path lines} [tree_files] {
        set at 0
        foreach line $lines {
            if {[string match {*anchor*} $line]} {lappend found [list $path $at $line]}
            incr at
        }
    }
    return $found
}

proc make_applied {name args} {
    set dir [make_tree $name {*}$args]
    run apply $dir
    expect {$::status == 0} "apply failed"
    return $dir
}

# ---- apply and back --------------------------------------------------------------------------------------------------

file mkdir $::work

test "check: finds every anchor, counts lines, and writes nothing" {
    set dir [make_tree check]
    set before [snapshot $dir]
    run check $dir
    expect {$::status == 0} "check failed"
    expect_said "Valkey 8.0.1" "src/tls.c:8,13:" "src/tls.c:16:" "All anchors were found" "lines inserted in existing source"
    expect_same $dir $before
}

test "apply: inserts at every anchor, and copies files byte for byte" {
    set dir [make_applied apply]
    set tls [read_bytes $dir/src/tls.c]
    set ::serve "ocspBuiltinServe(valkey_tls_ctx, valkey_tls_client_ctx);\n"
    expect {[string first "fresh_too; /* anchor */\n        $::serve" $::tls] > 0} "here"
    expect {[string first "pending.client_ctx; /* anchor */\n    $::serve" $::tls] > 0} "and there"
    expect {[string first "(ctx); /* anchor */\n    if (client_side) ocspBuiltinLink(conn->ssl);\n" $::tls] > 0} "links"
    expect {[regexp -all ocspBuiltinServe $::tls] == 2} "twice and no more"
    expect {[regexp -all ocspBuiltinLink $::tls] == 1} "once, where links are made"
    expect {[string first ", &sections);\n\n    /* the keys */\n" [read_bytes $::dir/src/server.c]] > 0} \
        "above a comment"
    set rows [regexp -all {\n    \[OCSP_D_\w+\] =} [read_bytes $::project/src/ocsp_config.c]]
    expect {[regexp -all {create\w+Config\("tls-ocsp-} [read_bytes $::dir/src/config.c]] == $rows && $rows > 7} \
        "each directive of the engine's table"
    expect {[string first "\"tls-ocsp-proxy\", NULL, MODIFIABLE_CONFIG | PROTECTED_CONFIG | SENSITIVE_CONFIG," \
        [read_bytes $::dir/src/config.c]] > 0} "the flags of the proxy"
    foreach name {response-file issuer-file} {
        expect {[string first "\"tls-ocsp-$::name\", NULL, VOLATILE_CONFIG | MODIFIABLE_CONFIG | PROTECTED_CONFIG," \
            [read_bytes $::dir/src/config.c]] > 0} "the flags of $name"
    }
    set ::debug [read_bytes $::dir/src/debug.c]
    expect {[string first " (!strncasecmp(text(c->argv\[1\]), \"ocsp-\", 5))" $::debug] > 0} \
        "the subcommand is compared as its neighbour is"
    expect {[string first "c->argc > 2 ? text(c->argv\[2\]) : NULL, c->argc > 3 ? text(c->argv\[3\]) : NULL);" $::debug] > 0} \
        "the arguments are read as its neighbour's are"
    foreach path {src/ocsp_slot.c src/ocsp_builtin.c tests/unit/tls-ocsp.tcl utils/ocsp-pki.tcl} {
        expect {[read_bytes $::dir/$::path] eq [read_bytes $::project/$::path]} "$path"
    }
    # Files with a last part for the module and the tests are copied up to that part.
    foreach {path name} {src/ocsp.h ocspShutdown src/ocsp_thread.c ocspThreadStop} {
        set ::copy [read_bytes $::dir/$path]
        set ::own [read_bytes $::project/$path]
        set ::name $name
        set ::end [string range $::own [string last "\n#endif" $::own]+1 end]
        expect {[string first $::name $::copy] < 0 && [string first "$::name\(" $::own] > 0} "$::name stays out"
        set ::keep [expr {[string length $::copy] - [string length $::end] - 1}]
        expect {$::copy eq "[string range $::own 0 $::keep]$::end"} \
            "all else of $path is the same"
    }
    foreach name {ocsp_module.c ocsp_late.c ocsp_late.h ocsp_wait.c} {
        expect {![file exists $::dir/src/$::name]} "$::name stays out"
    }
    expect {[glob -nocomplain -directory $::dir/src *valkey-patch*] eq {}} "temporary files are gone"
}

test "apply: a second time, it says that the patch is applied, and so does check" {
    set dir [make_applied again]
    set before [snapshot $dir]
    foreach verb {apply check} {
        run $verb $dir
        expect {$::status == 0} "$verb failed"
        expect_said "applied already"
        expect_same $dir $before
    }
}

foreach {variant options} [list \
    {a plain tree} {} \
    {lines that end in CR LF} {-eol "\r\n" -end "\r\n"} \
    {files without a last line end} {-end {}} \
    {a tree without CMake} {-without cmake/Modules/SourceFiles.cmake} \
    {a tree of 2025} [tree_of_2025] \
    {a tree of 9.1} [tree_of_9_1] \
] {
    test "revert: restores the tree byte for byte: $variant" {
        set dir [make_tree revert {*}$options]
        file attributes $dir/src/tls.c -permissions 0o755
        set before [snapshot $dir]
        run apply $dir
        expect {$::status == 0} "apply failed"
        expect {[snapshot $::dir] ne $::before} "nothing happened"
        run check $dir
        expect_said "applied already"
        run revert $dir
        expect {$::status == 0} "revert failed"
        expect_same $dir $before
        run revert $dir
        expect {$::status == 0} "a second revert failed"
        expect_said "not applied"
    }
}

test "apply: an untested release is patched with a warning" {
    set dir [make_tree release -lines {src/version.h {{#define VALKEY_VERSION "77.1.2"}}}]
    run apply $dir
    expect {$::status == 0} "apply failed"
    expect_said "Valkey 77.1.2" "warning: the patch was not tested with this release"
}

test "apply: a directory that is not a Valkey tree stays unchanged" {
    set dir [make_tree other -lines {src/version.h {{#define REDIS_VERSION "7.0.15"}}}]
    expect_refused $dir "is not a Valkey source tree"
    foreach arguments {{} check {check a b} {check --force x} {explode .}} {
        run {*}$arguments
        expect {$::status == 2} "usage was not told for: $arguments"
        expect_said usage
    }
    run check $::work/nowhere
    expect {$::status == 1} "a directory that does not exist"
}

# ---- anchors ---------------------------------------------------------------------------------------------------------

foreach anchor [anchors] {
    lassign $anchor path at line
    test "anchors: missing: $path: [string trim $line]" {
        set lines [lreplace [dict get [tree_files] $path] $at $at {    something = else;}]
        expect_refused [make_tree missing -lines [list $path $lines]] "$path: no line" "matches"
    }
    test "anchors: not unique: $path: [string trim $line]" {
        set lines [linsert [dict get [tree_files] $path] $at $line]
        expect_refused [make_tree doubled -lines [list $path $lines]] \
            "$path: lines [expr {$at + 1}], [expr {$at + 2}]" "where only one may"
    }
}

foreach {path function} {
    src/tls.c tlsConfigure  src/debug.c debugCommand  src/debug.c killThreads  src/server.c InitServerLast
    src/server.c genValkeyInfoString  src/tls.c createTLSConnection  src/sentinel.c instanceLinkNegotiateTLS
} {
    test "anchors: function missing: $function" {
        set lines [lmap line [dict get [tree_files] $path] {string map [list $function some_other] $line}]
        expect_refused [make_tree function -lines [list $path $lines]] "$path: the function $function was not found"
    }
}

test "anchors: a TLS context is put into use at an unknown place" {
    set lines [linsert [dict get [tree_files] src/tls.c] end {void third(void) {}} {    valkey_tls_client_ctx = sudden;} "\}"]
    expect_refused [make_tree third -lines [list src/tls.c $lines]] "src/tls.c: lines 8, 13, 19" "more than"
}

test "anchors: before Valkey 9.1 there is one such place" {
    set dir [make_applied one -lines [list src/tls.c [lreplace [dict get [tree_files] src/tls.c] 10 13]]]
    expect {[regexp -all ocspBuiltinServe [read_bytes $::dir/src/tls.c]] == 1} "once"
}

foreach path {src/Makefile src/server.h src/tls.c src/sentinel.c src/config.c src/debug.c src/server.c valkey.conf} {
    test "anchors: file missing: $path" {
        expect_refused [make_tree file -without $path] "$path does not exist"
    }
}

test "anchors: directory missing" {
    set dir [make_tree directory]
    file delete -force $dir/tests/support
    expect_refused $dir "the directory tests/support does not exist"
}

test "anchors: a definition missing that inserted lines use" {
    set lines [lreplace [dict get [tree_files] src/Makefile] 0 0 {OTHER_OBJ=one.o}]
    expect_refused [make_tree needs -lines [list src/Makefile $lines]] "src/Makefile: no line matches" "build"
}

test "anchors: several faults are reported at once" {
    expect_refused [make_tree several -without src/tls.c -lines {src/config.c {nothing}}] \
        "src/tls.c does not" "src/config.c: no"
}

# ---- partly applied ----------------------------------------------------------------------------------------------------

foreach path {
    src/Makefile src/server.h src/tls.c src/sentinel.c src/config.c src/debug.c src/server.c valkey.conf
    cmake/Modules/SourceFiles.cmake
} {
    test "partly applied: $path is unpatched, the rest is patched" {
        set dir [make_tree half]
        set before [snapshot $dir]
        set bytes [read_bytes $dir/$path]
        run apply $dir
        write_bytes $dir/$path $bytes
        expect_refused $dir "patched in part"
        run revert $dir
        expect {$::status == 0} "revert failed"
        expect_same $dir $before
    }
}

test "partly applied: a copied file is missing" {
    set dir [make_tree half]
    set before [snapshot $dir]
    run apply $dir
    file delete $dir/src/ocsp_fetch.c
    expect_refused $dir "patched in part" "but not src/ocsp_fetch.c"
    run revert $dir
    expect_same $dir $before
}

test "partly applied: one of the directives was removed by hand, which revert does not touch" {
    set dir [make_applied half]
    write_bytes $dir/src/config.c [regsub {[^\n]*tls-ocsp-timeout[^\n]*\n} [read_bytes $dir/src/config.c] {}]
    expect_refused $dir "src/config.c: an inserted line is there without" "tls-ocsp-cache-dir"
    set before [snapshot $dir]
    run revert $dir
    expect {$::status == 1} "revert did not fail"
    expect_said "tls-ocsp-cache-dir"
    expect_same $dir $before
}

test "partly applied: an inserted line is at a wrong place" {
    set dir [make_applied half]
    set line "    ocspBuiltinStart();\n"
    write_bytes $dir/src/server.c [string map [list $line {}] [read_bytes $dir/src/server.c]]$line
    expect_refused $dir "src/server.c: the inserted lines are not where they belong"
    set before [snapshot $dir]
    run revert $dir
    expect {$::status == 1} "revert did not fail"
    expect_same $dir $before
}

test "partly applied: an inserted line is there twice" {
    set dir [make_applied half]
    set line "    ocspBuiltinStart();\n"
    write_bytes $dir/src/server.c [string map [list $line $line$line] [read_bytes $dir/src/server.c]]
    expect_refused $dir "2 times instead of 1"
}

test "partly applied: a single inserted line in a clean tree" {
    set dir [make_tree half]
    write_bytes $dir/src/server.h "[read_bytes $dir/src/server.h]#include \"ocsp_builtin.h\"\n"
    expect_refused $dir "patched in part" "src/server.h"
}

test "partly applied: a copied file has changed: apply reports it, revert requires --force" {
    set dir [make_tree changed]
    set before [snapshot $dir]
    run apply $dir
    write_bytes $dir/src/ocsp_fetch.c "something else\n"
    set changed [snapshot $dir]
    run apply $dir
    expect {$::status == 0} "apply failed"
    expect_said "these files differ from this project's: src/ocsp_fetch.c"
    run revert $dir
    expect {$::status == 1} "revert did not fail"
    expect_said "src/ocsp_fetch.c" "--force"
    expect_same $dir $changed
    run revert --force $dir
    expect {$::status == 0} "revert --force failed"
    expect_same $dir $before
}

test "apply: another file is in the place of a copied one" {
    set dir [make_tree foreign]
    write_bytes $dir/src/ocsp.h "not ours\n"
    expect_refused $dir "src/ocsp.h exists and differs from the file"
}

test "revert: changes around inserted lines stay" {
    set dir [make_tree around]
    write_bytes $dir/src/server.c [string map {{return info} {return more}} [read_bytes $dir/src/server.c]]
    set wanted [snapshot $dir]
    set dir [make_applied around]
    write_bytes $dir/src/server.c [string map {{return info} {return more}} [read_bytes $dir/src/server.c]]
    run revert $dir
    expect_same $dir $wanted
}

# ---- writing that fails ----------------------------------------------------------------------------------------------

test "apply: read-only files and directories are reported, not overwritten" {
    foreach path {src/config.c src/tls.c utils src} {
        set dir [make_tree readonly]
        file attributes $dir/$path -permissions u-w
        set before [snapshot $dir]
        foreach verb {check apply} {
            run $verb $dir
            expect {$::status == 1} "$verb did not fail"
            expect_said "$::path is read-only"
            expect_same $dir $before
        }
        file attributes $dir/$path -permissions u+w
    }
    set dir [make_applied readonly]
    file attributes $dir/src/ocsp_slot.c -permissions 0o444
    set before [snapshot $dir]
    run revert $dir
    expect {$::status == 1} "revert did not fail"
    expect_said "src/ocsp_slot.c is read-only"
    expect_same $dir $before
}

test "apply: a symbolic link in the place of a file stays unchanged" {
    set dir [make_tree link]
    file rename $dir/src/config.c $dir/src/real.c
    file link -symbolic $dir/src/config.c real.c
    expect_refused $dir "src/config.c is not a regular file"
}

# A limit on the size of files acts like a disk that fills up: smaller files are written, larger ones are not.
test "apply: a disk that fills up during the writing: the tree stays unchanged" {
    foreach blocks {1 4 20 60} {
        set dir [make_tree full]
        set before [snapshot $dir]
        set script "trap '' XFSZ; ulimit -f $blocks; exec [info nameofexecutable] $::tool apply $dir"
        set ::status [catch {exec sh -c $script 2>@1} ::said]
        expect {$::status == 1} "apply did not fail with $blocks blocks"
        expect_said "what was written was undone" "nothing was changed"
        expect_same $dir $before
    }
}

proc preload {} {
    set library [file join $::work fail_at.so]
    if {![file exists $library]} {
        if {[catch {exec cc -shared -fPIC -o $library [file join $::project tests patch fail_at.c] -ldl 2>@1} why]} {
            puts "            (no preload: $why)"
            error SKIP
        }
    }
    return $library
}

foreach verb {apply revert} {
    test "$verb: each step of replacing files fails in turn, and the steps before it are undone" {
        set library [preload]
        set reached 0
        for {set n 1} {$n < 60} {incr n} {
            set dir [expr {$verb eq "apply" ? [make_tree step] : [make_applied step]}]
            set before [snapshot $dir]
            run_with [list LD_PRELOAD=$library FAIL_AT=$n] $verb $dir
            if {$::status == 0} break
            expect_said "nothing was changed"
            expect_same $dir $before
            incr reached
        }
        expect {$::reached >= 24} "only $reached steps failed"
    }

    test "$verb: killed at each step in turn, revert restores the clean tree" {
        set library [preload]
        set dir [make_tree step]
        set clean [snapshot $dir]
        set reached 0
        for {set n 1} {$n < 60} {incr n} {
            set dir [expr {$verb eq "apply" ? [make_tree step] : [make_applied step]}]
            run_with [list LD_PRELOAD=$library FAIL_AT=$n FAIL_HARD=1] $verb $dir
            if {$::status == 0} break
            run check $dir
            run revert $dir
            expect {$::status == 0} "revert failed after step $n"
            expect_same $dir $clean
            incr reached
        }
        expect {$::reached >= 24} "only $reached steps were cut short"
    }
}

# ---- diff ------------------------------------------------------------------------------------------------------------

proc need_git {} {
    if {[auto_execok git] eq {}} {error SKIP}
}

proc git {dir args} {
    exec git -C $dir -c user.name=Test -c user.email=test@example.com -c core.autocrlf=false {*}$args 2>@1
}

foreach {variant options} {
    {a plain tree} {}
    {files without a last line end} {-end {}}
    {anchors at the end of files} {-lines {valkey.conf {{# tls-session-cache-timeout 1}}}}
} {
    test "diff: with git apply and with git am it does what apply does: $variant" {
        need_git
        set dir [make_applied wanted {*}$options]
        set wanted [snapshot $dir]
        exec [info nameofexecutable] $::tool diff $dir >[file join $::work b.patch] 2>[file join $::work b.err]
        foreach how {apply am} {
            set dir [make_tree git {*}$options]
            git $dir init -q
            git $dir add -A
            git $dir commit -q -m before
            set ::status [catch {
                exec [info nameofexecutable] $::tool diff $dir >[file join $::work a.patch] 2>[file join $::work a.err]
            }]
            expect {$::status == 0} "diff failed"
            set ::said [git $dir $how [file join $::work a.patch]]
            expect_same $dir $wanted
        }
        # From a patched tree it is the same, except for the time.
        foreach name {a b} {
            set $name [regsub {\nFrom: [^\n]*\nDate: [^\n]*} [read_bytes [file join $::work $name.patch]] {}]
        }
        expect {$::a eq $::b} "differs from that of the applied tree"
        run revert $dir
        expect {$::status == 0} "revert after git am failed"
    }
}

test "diff: --stat counts the inserted lines, and they are few" {
    set dir [make_tree stat]
    set before [snapshot $dir]
    run diff --stat $dir
    expect {$::status == 0} "diff --stat failed"
    expect {[regexp {(\d+) lines inserted in existing source and build files, (\d+) in valkey.conf} $::said - \
        source docs]} "the sum"
    expect_same $dir $before
    expect {$::source <= 70} "more than 70 lines"
    run apply $dir
    set grown 0
    dict for {path what} $before {
        if {[lindex $what 0] eq "file"} {
            incr grown [expr {[llength [split [read_bytes $dir/$path] \n]] - [llength [split [lindex $what 2] \n]]}]
        }
    }
    expect {$::grown == $::source + $::docs} "the files grew by $grown lines"
}

test "diff: in a tree with unit tests in Valkey's framework, they are listed as its generator lists them" {
    set dir [make_applied listed {*}[tree_of_2025]]
    set list [read_bytes $dir/src/unit/test_files.h]
    expect {[string first "test_object(int argc, char **argv, int flags);\nint test_ocspIdentity(int argc, char **argv,\
        int flags);\nint test_ocspVerify(int argc, char **argv, int flags);\nint test_raxOne" $::list] > 0} "declarations"
    expect {[string first "unitTest __test_ocsp_c\[\] = \{\{\"test_ocspIdentity\", test_ocspIdentity\},\
        \{\"test_ocspVerify\", test_ocspVerify\}, \{NULL, NULL\}\};\nunitTest __test_rax" $::list] > 0} "the tests of the file"
    expect {[string first "test_object_c\},\n    \{\"test_ocsp.c\", __test_ocsp_c\},\n    \{\"test_rax" $::list] > 0} "the file"
    expect {[file exists $::dir/src/unit/test_ocsp.c] && ![file exists $::dir/src/unit/test_ocsp.cpp]} "the form"
}

test "diff: in a tree whose INFO has a section TLS, the fields stand there" {
    set dir [make_applied info {*}[tree_of_9_1]]
    set server [read_bytes $dir/src/server.c]
    expect {[string first ", 1));\n        info = genOcspInfoString(info, \"tls_ocsp_\");\n" $::server] > 0} "the section"
    expect {[string first "genOcspInfoStatsString(info, \"tls_ocsp_\");" $::server] > 0} "the counters"
    expect {[string first "genOcspInfoSection" $::server] < 0} "no section of its own"
    expect {[file exists $::dir/src/unit/test_ocsp.cpp] && ![file exists $::dir/src/unit/test_ocsp.c]} "the form"
}

# ---- the series ------------------------------------------------------------------------------------------------------

# The tool's procedures, in an interpreter of their own.
proc tool {args} {
    if {![interp exists patcher]} {
        interp create patcher
        patcher eval [list source $::tool]
    }
    return [patcher eval $args]
}

# What the patch has in any tree.
proc every_file {} {
    set all {}
    foreach name {plain old new} options [list {} [tree_of_2025] [tree_of_9_1]] {
        lappend all {*}[tool copied_files [make_tree copied-$name {*}$options]]
    }
    return [lsort -unique $all]
}

test "series: every file, directive and insertion of the patch is in one step, and steps.tcl names nothing else" {
    set used {}
    foreach path [every_file] {tool series::there first [list $path] 1}
    foreach row [tool directives::rows] {tool series::there directives [list [dict get $row name]] 1}
    tool insertions 1
    for {set step 1} {$step <= [tool set series::last]} {incr step} {
        foreach path [every_file] {
            if {[tool series::there first [list $path] $step] ne {}} {
                tool series::content $path [tool ours $path] $step
            }
        }
        tool conf_lines $step
    }
    set used [tool set series::used]
    foreach kind {first insertions directives} {
        foreach pattern [dict keys [tool set series::$kind]] {
            expect {[dict exists $::used $::kind:$::pattern]} "utils/series/steps.tcl: nothing is $pattern ($kind)"
        }
    }
    dict for {path edits} [tool set series::edits] {
        foreach edit $edits {
            expect {[dict exists $::used [list $::path {*}$::edit]]} "utils/series/steps.tcl: never applied: $path $edit"
        }
    }
}

test "series: the engine's files of each step compile without a warning, and call nothing that a later step brings" {
    if {[auto_execok cc] eq {}} {error SKIP}
    set flags [list -std=gnu11 -Wall -Wextra -Werror -O0]
    if {[info exists env(CPPFLAGS)]} {lappend flags {*}$env(CPPFLAGS)}
    set engine [lmap name [tool engine_files] {set _ src/$name}]
    for {set step 1} {$step < [tool set series::last]} {incr step} {
        set dir [file join $::work step-$step]
        file mkdir $dir/src
        set sources {}
        foreach path [concat $engine {src/ocsp.h src/ocsp_internal.h src/ocsp_worker.h src/ocsp_staple.h}] {
            if {[tool series::there first [list $path] $step] eq {}} continue
            write_bytes $dir/$path [tool series::content $path [tool ours $path] $step]
            if {[string match *.c $path]} {lappend sources $path}
        }
        set ::said {}
        set ::status [catch {
            exec sh -c {cd "$1" && xargs -P 2 -I '{}' cc $2 -Isrc -c '{}' -o '{}.o' 2>&1} - $dir $flags << [join $sources \n]
        } ::said]
        expect {$::status == 0} "step $step does not compile"
        set defined {}
        set needed {}
        foreach line [split [exec nm {*}[lmap path $sources {set _ $dir/$path.o}]] \n] {
            if {[regexp {U (ocsp\w+)$} $line - symbol]} {lappend needed $symbol}
            if {[regexp { [A-TV-Z] (ocsp\w+)$} $line - symbol]} {lappend defined $symbol}
        }
        foreach symbol [lsort -unique $needed] {
            expect {$::symbol in $::defined} "step $step calls $symbol, which it does not have"
        }
    }
}

foreach {variant options} [list {a plain tree} {} {a tree of 2025} [tree_of_2025] {a tree of 9.1} [tree_of_9_1] \
    {lines that end in CR LF} {-eol "\r\n" -end "\r\n"}] {
    test "series: with git am, one step after the other, the last is what apply makes: $variant" {
        need_git
        set dir [make_applied wanted {*}$options]
        set wanted [snapshot $dir]
        set dir [make_tree git {*}$options]
        set clean [snapshot $dir]
        git $dir init -q
        git $dir add -A
        git $dir commit -q -m before
        file delete -force $::work/series $::work/series-again
        run diff --series $::work/series $dir
        expect {$::status == 0} "diff --series failed"
        expect_same $dir $clean
        set patches [lsort [glob -directory $::work/series *.patch]]
        expect {[llength $::patches] == 7} "[llength $::patches] patches"
        foreach patch $patches {set ::said [git $dir am -s --keep-cr $patch]}
        expect_same $dir $wanted
        expect {[string match "*Signed-off-by: Test*" [git $::dir log -1 --format=%B]]} "git am -s"
        # A tree that has the patch gives the same series.
        run diff --series $::work/series-again $dir
        expect {$::status == 0} "diff --series of an applied tree failed"
        foreach patch $patches {
            foreach name {a b} under {series series-again} {
                set $name [regsub {\nDate: [^\n]*} [read_bytes $::work/$under/[file tail $patch]] {}]
            }
            expect {$::a eq $::b} "[file tail $patch] differs"
        }
        run revert $dir
        expect {$::status == 0} "revert failed"
        expect_same $dir $clean
    }
}

test "series: the directory for the patches must be empty, and the tree clean or patched as a whole" {
    set dir [make_tree full]
    file mkdir $::work/taken
    write_bytes $::work/taken/0001-old.patch {}
    run diff --series $::work/taken $dir
    expect {$::status == 1} "did not fail"
    expect_said "name an empty directory"
    write_bytes $dir/src/ocsp.h "not ours\n"
    run diff --series $::work/none $dir
    expect {$::status == 1} "did not fail"
    expect_said "src/ocsp.h exists"
    expect {![file exists $::work/none]} "it made the directory"
}

# ---- what is copied --------------------------------------------------------------------------------------------------

test "copied files: the suite finds everything that it sources in the tree" {
    set dir [make_applied sources]
    set todo tests/unit/tls-ocsp.tcl
    set seen {}
    while {$todo ne {}} {
        set todo [lassign $todo path]
        lappend seen $path
        foreach {- words} [regexp -all -inline -line {^\s*source \[file join (.*?)\]?\]\s*$} [read_bytes $dir/$path]] {
            set name [file tail [lindex $words end]]
            set found [lmap dirname {tests/support utils} {
                expr {[file exists $dir/$dirname/$name] ? "$dirname/$name" : [continue]}}]
            expect {[llength $::found] == 1} "$path sources $name, which is not copied"
            if {[lindex $found 0] ni [concat $seen $todo]} {lappend todo [lindex $found 0]}
        }
    }
    expect {[llength $::seen] >= 5} "only [join $seen {, }]"
}

test "copied files: every object of the engine is built, and only with TLS" {
    set dir [make_applied objects]
    set make [read_bytes $dir/src/Makefile]
    foreach path [glob -directory $dir/src -tails ocsp_*.c] {
        expect {[regexp "\\m[file rootname $::path]\\.o\\M" $::make]} "$path is not in src/Makefile"
    }
    expect {[regexp {ocsp_builtin\.o \$\(if \$\(filter yes,\$\(BUILD_TLS\)\),[^\n]*ocsp_thread\.o[^\n]*\)\n} $::make]} \
        "the condition"
}

file delete -force $::work
puts "$::passed passed, $::failed failed[expr {$::skipped ? ", $::skipped skipped" : {}}]"
exit [expr {$::failed > 0 || $::passed == 0}]
