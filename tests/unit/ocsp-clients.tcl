# ocsp-clients.tcl - TLS clients of other projects, and what they do with a staple (scenario 30): every client that
# checks staples accepts what the product staples; and how each client treats staples that the product would never
# send, for the tables in docs/clients.md.
#
# Those staples come from support/tls_peer.c. A client that is not installed is reported as skipped. With
# CLIENT_TABLE=FILE in the environment, and every client installed, the table is written to FILE.
#
# Weight: 130
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set intermediate [ocsp_pki_intermediate $ca intermediate]
set other [ocsp_lab_leaf $lab other]
set ca_file [dict get $ca cert]
set client_leaf [ocsp_lab_leaf $lab client]
set programs [file join $::ocsp_support_dir clients]

# ---- the clients ----------------------------------------------------------------------------------------------------

# Each prepare_... makes what a client needs, or raises the reason why the client cannot run.
proc prepare_java {} {exec javac -d $::dir [file join $::programs StapleClient.java] 2>@1}

proc prepare_go {} {
    set ::env(GO111MODULE) off
    exec go build -o [file join $::dir staple_client] [file join $::programs staple_client.go] 2>@1
}

proc prepare_python {} {exec python3 -c {import redis, cryptography, requests, OpenSSL} 2>@1}

proc prepare_nss {} {
    file mkdir $::dir/nss
    exec certutil -N -d sql:$::dir/nss --empty-password 2>@1
    exec certutil -A -d sql:$::dir/nss -n ca -t C,, -i $::ca_file 2>@1
    # With -F, tstclnt verifies again by itself, without the chain that the server sent.
    exec certutil -A -d sql:$::dir/nss -n intermediate -t ,, -i [dict get $::intermediate cert] 2>@1
}

# Programs with build/libocsp-staple.a, which `make` builds.
proc c_program {program source args} {
    set root [file dirname [file dirname $::ocsp_support_dir]]
    exec gcc -I[file join $root src] -o [file join $::dir $program] $source \
        [file join $root build libocsp-staple.a] {*}$args -lssl -lcrypto -lpthread 2>@1
}

proc prepare_c {} {c_program staple_client [file join $::programs staple_client.c]}

proc prepare_hiredis {} {
    set root [file dirname [file dirname $::ocsp_support_dir]]
    c_program hiredis_client [file join $root utils clients c example.c] -lhiredis_ssl -lhiredis
}

# The option exists in a patched tree only.
proc prepare_cli {} {
    catch {exec valkey-cli --help 2>@1} help
    if {![string match *--cert-status* $help]} {error "this valkey-cli has no --cert-status"}
}

set clients {}

# client NAME OPTIONS COMMAND...   adds a row to the table. PORT in COMMAND stands for the port. Options, a list:
#   needs {..}     programs without which it is skipped       prepare CMD   run once, before the first use
#   accepts {0}, refuses {1}    exit statuses; any other one is an error of the test
#   judges 1       the client is documented to check staples  version CMD   prints its version in the first line
proc client {name options args} {
    lappend ::clients [dict merge {needs {} prepare {} accepts 0 refuses 1 judges 0 version {}} $options \
        [list name $name command $args]]
}

set curl {curl --silent --show-error --http0.9 --max-time 20 --cacert}
set java [list java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp $dir StapleClient PORT $ca_file]
set python [list python3 [file join $programs staple_client.py] PORT $ca_file]
set tstclnt [list tstclnt -h 127.0.0.1 -p PORT -d sql:$dir/nss -T]

client {`openssl s_client -status`} {needs openssl version {openssl version}} \
    openssl s_client -connect 127.0.0.1:PORT -CAfile $ca_file -verify_return_error -status
client {`gnutls-cli`} {needs gnutls-cli judges 1 version {gnutls-cli --version}} \
    gnutls-cli --x509cafile $ca_file --port PORT 127.0.0.1
# A server of the RESP protocol answers GET with an error or closes the connection: that is after the handshake.
client {`curl --cert-status`} {needs curl judges 1 accepts {0 1 52 56} refuses 91 version {curl --version}} \
    {*}$curl $ca_file --cert-status https://127.0.0.1:PORT/
client {`curl`} {needs curl accepts {0 1 52 56} refuses {35 60 91}} {*}$curl $ca_file https://127.0.0.1:PORT/
client {Java, revocation checking on} {needs {java javac} prepare prepare_java refuses 3 judges 1
    version {java --version}} {*}$java check
client {Java, default} {needs {java javac} prepare prepare_java refuses 3} {*}$java plain
client {Go `crypto/tls`} {needs go prepare prepare_go refuses 3 version {go version}} \
    [file join $dir staple_client] PORT $ca_file
client {Python `redis`, `ssl_validate_ocsp_stapled=True`} {needs python3 prepare prepare_python refuses {1 3} judges 1
    version {python3 -c {import redis; print("redis-py", redis.__version__)}}} \
    {*}$python stapled [dict get $client_leaf cert] [dict get $client_leaf key]
client {Python `redis`, default} {needs python3 prepare prepare_python refuses 3} {*}$python plain - -
client {NSS `tstclnt -T -F`} {needs {tstclnt certutil} prepare prepare_nss refuses {2 3} judges 1} {*}$tstclnt -O -F -M 1
client {NSS `tstclnt -T`} {needs {tstclnt certutil} prepare prepare_nss refuses {1 254}} {*}$tstclnt -O -Q
client {C, `libocsp-staple.a`} {needs gcc prepare prepare_c refuses 3 judges 1} $dir/staple_client PORT $ca_file require
client {C, `libocsp-staple.a`, hiredis} {needs gcc prepare prepare_hiredis judges 1} \
    $dir/hiredis_client 127.0.0.1 PORT $ca_file
client {`valkey-cli --cert-status`, patched} {needs valkey-cli prepare prepare_cli judges 1} \
    valkey-cli -h 127.0.0.1 -p PORT --cert-status --cacert $ca_file PING
client {`valkey-cli`} {needs valkey-cli version {valkey-cli --version}} \
    valkey-cli -h 127.0.0.1 -p PORT --tls --cacert $ca_file PING

# Runs a client once. Returns {accepts OUTPUT} or {refuses OUTPUT}.
proc verdict_of {client port} {
    dict with client {}
    set status 0
    if {[catch {exec timeout 240 {*}[string map [list PORT $port] $command] </dev/null 2>@1} text options]} {
        set how [dict get $options -errorcode]
        set status [expr {[lindex $how 0] eq "CHILDSTATUS" ? [lindex $how 2] : -1}]
    }
    if {$status in $accepts} {return [list accepts $text]}
    if {$status in $refuses} {return [list refuses $text]}
    fail "$name ended with status $status, which means neither accepted nor refused: $text"
}

# ---- the clients that are installed ---------------------------------------------------------------------------------

set present {}
set versions {}
foreach client $clients {
    dict with client {}
    set why {}
    foreach program $needs {if {![has_tool $program]} {set why "$program is not installed"}}
    if {$why eq {} && $prepare ne {} && ![info exists prepared($prepare)]} {
        set prepared($prepare) [expr {[catch {$prepare} text] ? $text : {}}]
    }
    if {$why eq {} && $prepare ne {}} {set why [lindex [split $prepared($prepare) \n] end]}
    if {$why ne {}} {
        skip_test "clients: $name (30)" $why
        continue
    }
    lappend present $client
    if {$version ne {}} {
        catch {exec {*}$version </dev/null 2>@1} text
        lappend versions [lindex [regexp -inline {^\D+\d[\d.]*} $text] 0]
    }
}

# ---- what the product staples ---------------------------------------------------------------------------------------

set delegate [ocsp_pki_delegate $ca delegate]
set deep_responder [ocsp_responder_start -ca $intermediate]
set deep_leaf [ocsp_pki_leaf $intermediate deep -aia [list [dict get $deep_responder url]]]
set rsa_leaf [ocsp_lab_leaf $lab rsa -key rsa -must-staple 1]

set number 0
foreach {what served behaviour} [list \
    {signed by the CA} $leaf good \
    {signed by a delegate} $leaf [list signer $delegate] \
    {without nextUpdate} $leaf {next none} \
    {for an RSA certificate that is must-staple} $rsa_leaf good \
    {for a certificate of an intermediate CA} $deep_leaf good \
] {
    test "clients: every client accepts the staple of a response $what (30.[incr number])" {
        ocsp_responder_behave $responder $behaviour
        start_server [ocsp_server $served $ca tls-cert-file [dict get $served full]] {
            ocsp_wait_info state good
            set before [ocsp_info handshakes_stapled]
            foreach client $present {
                # Java checks the intermediate as well, for which no staple is sent here.
                if {$served eq $deep_leaf} {
                    dict set client command [string map {check leaf} [dict get $client command]]
                }
                lassign [verdict_of $client [srv 0 port]] verdict text
                assert_equal $verdict accepts "[dict get $client name]: $text"
            }
            # The clients that check staples did get one.
            set judges [llength [lmap client $present {if {![dict get $client judges]} continue}]]
            assert_morethan_equal [ocsp_info handshakes_stapled] [expr {$before + $judges}]
            assert_equal [ocsp_info handshakes_unstapled] 0
        }
    }
}
ocsp_responder_stop $deep_responder

# ---- verdicts -------------------------------------------------------------------------------------------------------

set staple_file [file join $dir staple.der]

# case -> command that writes its staple to that file
set cases [list \
    good [list ocsp_response_file $staple_file $leaf $ca {this -60}] \
    no-nextUpdate [list ocsp_response_file $staple_file $leaf $ca {this -60 next none}] \
    revoked [list ocsp_response_file $staple_file $leaf $ca {this -60 status revoked}] \
    expired [list ocsp_response_file $staple_file $leaf $ca {this -7200 next -3600}] \
    foreign [list ocsp_response_file $staple_file $other $ca {this -60}] \
    missing [list file delete $staple_file] \
]

set rows {}
foreach client $present {
    set name [dict get $client name]
    test "clients: $name: good, revoked, expired, foreign and missing staples (30.[incr number])" {
        set row [list $name]
        set asks {}
        foreach {case prepare} $cases {
            {*}$prepare
            # The server also sends the CA's certificate: curl looks for the signer there, or in the response.
            set peer [open |[list [ocsp_tool tls_peer] --cert [dict get $leaf full] --key [dict get $leaf key] \
                --staple $staple_file] r]
            regexp {port=(\d+)} [gets $peer] - port
            lappend row [lindex [verdict_of $client $port] 0]
            # It prints a line for each connection when that ends; Python's redis opens two.
            exec kill [pid $peer]
            dict set asks [regexp {asked=1} [read $peer]] 1
            catch {close $peer}
        }
        # A client requests a status always or never, whatever it is sent.
        assert_equal [dict size $asks] 1
        set row [linsert $row 1 [expr {[dict exists $asks 1] ? "yes" : "no"}]]
        assert_equal [lrange $row 2 3] {accepts accepts}
        if {[dict get $client judges]} {
            assert_equal [lindex $row 1] yes
            assert_equal [lindex $row 4] refuses "revoked"
        }
        lappend rows $row
    }
}

# ---- what a response may use ----------------------------------------------------------------------------------------

set rsa_delegate [ocsp_pki_delegate $ca rsa_delegate -key rsa]
set ed25519_delegate [ocsp_pki_delegate $ca ed25519_delegate -key ed25519]

# feature of a response -> behaviour of the responder, and whether every client has to accept it. All are good and
# verify.
set uses [list \
    {CertID with SHA-1, ECDSA P-256 with SHA-256, signed by the CA} {} 1 \
    {CertID with SHA-256} {hash sha256} 0 \
    {CertID with SHA-384} {hash sha384} 0 \
    {responder named by its key} {responder_id key} 1 \
    {several SingleResponses} {entries {serial ours {serial 7F01}}} 0 \
    {authorized responder, ECDSA P-256} [list signer $delegate] 1 \
    {authorized responder, RSA (PKCS #1) with SHA-256} [list signer $rsa_delegate] 1 \
    {authorized responder, RSASSA-PSS with SHA-256} [list signer $rsa_delegate digest pss] 0 \
    {authorized responder, Ed25519} [list signer $ed25519_delegate] 0 \
    {ECDSA P-256 with SHA-1} {digest sha1} 0 \
    {no nextUpdate} {next none} 1 \
]

# Go's crypto/tls does not check staples, and no client of `openssl` rejects one. These two verify the response itself.
set judge [file join $dir ocsp_judge]
set ::env(GO111MODULE) off
set judge_missing [catch {
    exec env GOPATH=/usr/share/gocode go build -o $judge [file join $programs ocsp_judge.go] 2>@1
}]
set verifiers [list {`openssl ocsp`} [list sh -c {
    text=$(openssl ocsp -respin "$0" -issuer "$2" -cert "$1" -CAfile "$2" -no_nonce 2>&1)
    case $text in *"Response verify OK"*": good"*) exit 0 ;; esac
    exit 3
}]]
if {$judge_missing} {
    skip_test "clients: Go `x/crypto/ocsp` (30)" "golang-golang-x-crypto-dev is not installed"
} else {
    lappend verifiers {Go `x/crypto/ocsp`} [list $judge]
}

# Returns accepts or refuses, for the staple in the file.
proc client_verdict {client} {
    set peer [open |[list [ocsp_tool tls_peer] --cert [dict get $::leaf full] --key [dict get $::leaf key] \
        --staple $::staple_file] r]
    regexp {port=(\d+)} [gets $peer] - port
    set verdict [lindex [verdict_of $client $port] 0]
    exec kill [pid $peer]
    catch {close $peer}
    return $verdict
}

proc verifier_verdict {command} {
    if {[catch {exec {*}$command $::staple_file [dict get $::leaf cert] $::ca_file 2>@1} text options]} {
        assert_equal [lindex [dict get $options -errorcode] 2] 3 $text
        return refuses
    }
    return accepts
}

set judging [lmap client $present {if {![dict get $client judges]} continue; set client}]
set use_rows {}
foreach {what behaviour for_all} $uses {
    test "clients: which of them accept a response with: $what (30.[incr number])" {
        ocsp_response_file $staple_file $leaf $ca [concat {this -60} $behaviour]
        set row [list $what]
        foreach client $judging {lappend row [client_verdict $client]}
        foreach {- command} $verifiers {lappend row [verifier_verdict $command]}
        if {$for_all} {assert_equal [lsearch -all -inline [lrange $row 1 end] refuses] {} $row}
        lappend use_rows $row
    }
}

# Writes the second table, below the first one.
proc put_uses_table {channel} {
    set names [concat [lmap client $::judging {dict get $client name}] [dict keys $::verifiers]]
    puts $channel "\nWhat a response may use, all of them good and verified by this engine:\n"
    puts $channel "| the response | [join $names { | }] |"
    puts $channel "|[string repeat ---| [expr {[llength $names] + 1}]]"
    foreach row $::use_rows {
        puts $channel "| [join [lmap cell $row {expr {$cell eq "refuses" ? "**refuses**" : $cell}}] { | }] |"
    }
}

if {[info exists env(CLIENT_TABLE)] && [llength $rows] == [llength $clients]} {
    set channel [open $env(CLIENT_TABLE) w]
    fconfigure $channel -encoding utf-8
    puts $channel "[join $versions {, }]; TLS 1.3:\n"
    puts $channel "| client | asks | [join [dict keys $cases] { | }] |"
    puts $channel "|[string repeat ---| [expr {[dict size $cases] + 2}]]"
    foreach row $rows {
        # Bold: a client that is sent a revoked status and goes on.
        if {[lindex $row 4] eq "accepts"} {lset row 4 **accepts**}
        puts $channel "| [join $row { | }] |"
    }
    put_uses_table $channel
    close $channel
}
