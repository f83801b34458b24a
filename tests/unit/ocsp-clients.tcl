# ocsp-clients.tcl - TLS clients of other projects, and what they do with a staple (scenario 30): every client that
# checks staples accepts what the product staples; how each client treats staples that the product would never send, as
# it comes and with the recipe in utils/clients, for the tables in docs/clients.md; and the rules of those recipes.
#
# Those staples come from support/tls_peer.c. A client that is not installed is reported as skipped; npm packages are
# looked for in build/node_modules (npm install --prefix build tests/support/clients) and where tests/matrix/root puts
# them. With CLIENT_TABLE=FILE in the environment, and every client installed, the tables are written to FILE. No server
# takes part in the verdicts, so they are not repeated where the server is Redis.
#
# Weight: 200
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

ocsp_setup
set intermediate [ocsp_pki_intermediate $ca intermediate]
set other [ocsp_lab_leaf $lab other]
set ca_file [dict get $ca cert]
set client_leaf [ocsp_lab_leaf $lab client]
set programs [file join $::ocsp_support_dir clients]
set recipes [file normalize [file join $::ocsp_support_dir .. .. utils clients]]

# ---- the clients ----------------------------------------------------------------------------------------------------

# Each prepare_... makes what a client needs, or raises the reason why the client cannot run.
proc prepare_java {} {
    exec javac -d $::dir [file join $::recipes java StapledTls.java] [file join $::programs StapleClient.java] \
        [file join $::recipes java Example.java] 2>@1
}

set env(GO111MODULE) off
set env(GOPATH) /usr/share/gocode

# Runs a command and raises `missing` if it fails.
proc require_for {missing args} {if {[catch {exec {*}$args 2>@1}]} {error $missing}}

proc prepare_go {} {exec go build -o [file join $::dir go_client] [file join $::programs staple_client.go] 2>@1}

proc prepare_go_recipe {} {
    require_for "golang-golang-x-crypto-dev or golang-github-gomodule-redigo-dev is not installed" \
        go build -o [file join $::dir go_example] {*}[glob [file join $::recipes go *.go]]
}

set env(PYTHONDONTWRITEBYTECODE) 1

proc prepare_python {} {
    require_for "python3-redis, -cryptography, -requests or -openssl is not installed" \
        python3 -c {import redis, cryptography, requests, OpenSSL}
}

set env(NODE_PATH) \
    [file normalize [file join $recipes .. .. build node_modules]]:/usr/local/lib/valkey-ocsp/node_modules

proc prepare_node {} {
    require_for "the npm packages in tests/support/clients/package.json are not installed" \
        node -e {for (const name of ["ioredis", "iovalkey", "redis", "pkijs", "@valkey/valkey-glide"]) require(name)}
}

proc prepare_perl {} {
    require_for "libredis-perl or libio-socket-ssl-perl is not installed" perl -MIO::Socket::SSL -MRedis -e 1
}

proc prepare_php {} {require_for "php-redis is not installed" php -r {exit(class_exists("Redis") ? 0 : 1);}}

proc prepare_ruby {} {require_for "ruby-redis-client is not installed" ruby -r redis-client -e 1}

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

proc prepare_c {} {
    c_program staple_client [file join $::programs staple_client.c]
    # The example needs hiredis 1.0, which Debian 12 does not have.
    catch {c_program c_example [file join $::recipes c example.c] -lhiredis_ssl -lhiredis}
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
#   by peer        it accepted the server if it sent a command, whatever its exit status says
#   bends 1        documented to refuse good staples, under the conditions in its name
#   recipe LIST    a recipe of utils/clients, for these clients (their names). One row of each recipe has
#                  policy {require soft}: the word in its command to replace, so that it accepts a missing staple.
#                  strict 0: then also that of a must-staple certificate
proc client {name options args} {
    lappend ::clients [dict merge {needs {} prepare {} accepts 0 refuses 1 judges 0 version {} by status bends 0
        recipe {} policy {} strict 1 optional 0} $options [list name $name command $args]]
}

set curl {curl --silent --show-error --http0.9 --max-time 20 --cacert}
set java [list java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp $dir StapleClient PORT $ca_file]
set python [list python3 [file join $programs staple_client.py] PORT $ca_file]
set redis_py [list {*}$python stapled [dict get $client_leaf cert] [dict get $client_leaf key]]
set node [list node [file join $programs node_client.js]]
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
client {Java, `utils/clients/java`} {needs {java javac} prepare prepare_java refuses 3 judges 1 recipe {{Java, default}}
    policy {require soft} strict 0} {*}$java require
client {Java, `utils/clients/java`, whole chain} {needs {java javac} prepare prepare_java refuses 3 judges 1
    recipe {{Java, default}}} {*}$java chain
client {Go `crypto/tls`} {needs go prepare prepare_go refuses 3 version {go version}} \
    [file join $dir go_client] PORT $ca_file
client {Go `redigo`, `utils/clients/go`} {needs go prepare prepare_go_recipe judges 1 recipe {{Go `crypto/tls`}}
    policy {require soft}} [file join $dir go_example] 127.0.0.1:PORT $ca_file require
foreach library {ioredis iovalkey redis} extra {pkijs Node.js {}} {
    client "Node.js `$library`" [list needs node prepare prepare_node refuses 3 \
        version [list {*}$node version $library]] {*}$node $library plain PORT $ca_file
    client "Node.js `$library`, `utils/clients/node`" [list needs node prepare prepare_node refuses 3 judges 1 \
        recipe [list "Node.js `$library`"] policy [expr {$library eq "ioredis" ? {require soft} : {}}] \
        version [expr {$extra eq {} ? {} : [list {*}$node version $extra]}]] {*}$node $library require PORT $ca_file
}
client {Node.js `valkey-glide`} [list needs node prepare prepare_node refuses 3 by peer \
    version [list {*}$node version @valkey/valkey-glide]] {*}$node glide plain PORT $ca_file
client {Python `redis`, `ssl_validate_ocsp_stapled=True`} {needs python3 prepare prepare_python refuses {1 3} judges 1
    version {python3 -c {import redis; print("redis-py", redis.__version__)}}} {*}$redis_py
client {the same, 8 hours behind UTC} {needs python3 prepare prepare_python refuses {1 3} bends 1} \
    env TZ=PST8 {*}$redis_py
client {the same, 9 hours ahead of UTC} {needs python3 prepare prepare_python refuses {1 3} bends 1} \
    env TZ=JST-9 {*}$redis_py
client {Python `redis`, default} {needs python3 prepare prepare_python refuses 3} {*}$python plain - -
client {Python `redis`, `utils/clients/python`} {needs python3 prepare prepare_python refuses 3 judges 1
    recipe {{Python `redis`, default} {Python `redis`, `ssl_validate_ocsp_stapled=True`}}
    policy {require soft}} {*}$python require - -
client {`utils/clients/python`, 8 hours behind UTC} {needs python3 prepare prepare_python refuses 3 judges 1
    recipe {{the same, 8 hours behind UTC}}} env TZ=PST8 {*}$python require - -
client {PHP `redis`} {needs php prepare prepare_php refuses 3 by peer
    version {php -r {echo "phpredis ", phpversion("redis"), "\n";}}} \
    php [file join $programs php_client.php] PORT $ca_file
client {Ruby `redis-client`} {needs ruby prepare prepare_ruby refuses 3 by peer
    version {ruby -r redis-client -e {puts "redis-client #{RedisClient::VERSION}"}}} \
    ruby [file join $programs ruby_client.rb] PORT $ca_file
client {Perl `Redis`} {needs perl prepare prepare_perl refuses 3 by peer
    version {perl -MIO::Socket::SSL -e {print "IO::Socket::SSL $IO::Socket::SSL::VERSION\n"}}} \
    perl [file join $programs perl_client.pl] plain PORT $ca_file
client {Perl `Redis`, `SSL_ocsp_mode`} {needs perl prepare prepare_perl refuses 3 by peer} \
    perl [file join $programs perl_client.pl] require PORT $ca_file
client {NSS `tstclnt -T -F`} {needs {tstclnt certutil} prepare prepare_nss refuses {2 3} judges 1} {*}$tstclnt -O -F -M 1
client {NSS `tstclnt -T`} {needs {tstclnt certutil} prepare prepare_nss refuses {1 254}} {*}$tstclnt -O -Q
client {C, OpenSSL (as `hiredis` and `libvalkey` use it)} {needs gcc prepare prepare_c refuses 3} \
    $dir/staple_client PORT $ca_file plain
client {C, `utils/clients/c`} {needs gcc prepare prepare_c refuses 3 judges 1
    recipe {{C, OpenSSL (as `hiredis` and `libvalkey` use it)}} policy {require soft}} \
    $dir/staple_client PORT $ca_file require
client {`valkey-cli --cert-status`, patched} {needs valkey-cli prepare prepare_cli judges 1 optional 1
    recipe {`valkey-cli`}} \
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
            set requests [ocsp_responder_count $responder]
            foreach client $present {
                # Java checks the intermediate as well, for which no staple is sent here.
                if {$served eq $deep_leaf} {
                    dict set client command [string map {check leaf chain require} [dict get $client command]]
                }
                if {[dict get $client bends]} continue
                lassign [verdict_of $client [srv 0 port]] verdict text
                assert_equal $verdict accepts "[dict get $client name]: $text"
            }
            # The clients that check staples did get one.
            set judges [llength [lmap client $present {if {![dict get $client judges]} continue}]]
            assert_morethan_equal [ocsp_info handshakes_stapled] [expr {$before + $judges}]
            assert_equal [ocsp_info handshakes_unstapled] 0
            assert_equal [ocsp_responder_count $responder] $requests "requests of clients to the responder"
        }
    }
}
ocsp_responder_stop $deep_responder

# The client by whose preparation an example can run -> the example, and what it prints.
foreach {name command reply} [list \
    {Go `redigo`, `utils/clients/go`} [list $dir/go_example 127.0.0.1:PORT $ca_file] "PONG <nil>" \
    {Java, `utils/clients/java`} [list java -cp $dir Example 127.0.0.1 PORT $ca_file] +PONG \
    {Node.js `ioredis`, `utils/clients/node`} [list node $recipes/node/example.js 127.0.0.1 PORT $ca_file] PONG \
    {Python `redis`, `utils/clients/python`} [list python3 $recipes/python/example.py 127.0.0.1 PORT $ca_file] True \
    {C, `utils/clients/c`} [list $dir/c_example 127.0.0.1 PORT $ca_file] PONG \
] {
    if {$name ni [lmap client $present {dict get $client name}] || [auto_execok [lindex $command 0]] eq {}} continue
    test "clients: the example of $name pings a server with a staple only (30.[incr number])" {
        ocsp_responder_behave $responder good
        start_server [ocsp_server $leaf $ca] {
            ocsp_wait_info state good
            set command [string map [list PORT [srv 0 port]] $command]
            assert_equal [string trim [exec {*}$command 2>@1]] $reply
            ocsp_set stapling no
            assert_error * {exec {*}$command 2>@1}
        }
    }
}

# ---- verdicts -------------------------------------------------------------------------------------------------------

if {[file tail $::server_binary] eq "redis-server"} {
    skip_test "clients: verdicts (30)" "no server takes part in them: they are run with valkey-server"
    return
}

set staple_file [file join $dir staple.der]
# Authorized responders that are none: without the EKU OCSPSigning, and named as the CA's but signed by another key.
set no_eku [ocsp_pki_delegate $ca no_eku -eku {}]
set self_made [ocsp_pki_delegate $ca self_made -signkey $other]
# A CA with the CA's name but another key, whose certificate the server sends instead of the CA's.
set impostor [ocsp_pki_ca $dir impostor -subject [dict get $ca subject]]
set with_impostor [dict merge $leaf [list full [ocsp_pki_file $dir/with_impostor.pem $leaf $impostor]]]

# case -> command that writes its staple to that file
set cases [list \
    good [list ocsp_response_file $staple_file $leaf $ca {this -60}] \
    no-nextUpdate [list ocsp_response_file $staple_file $leaf $ca {this -60 next none}] \
    several [list ocsp_response_file $staple_file $leaf $ca {this -60 entries {serial ours {serial 7F01}}}] \
    revoked [list ocsp_response_file $staple_file $leaf $ca {this -60 status revoked}] \
    expired [list ocsp_response_file $staple_file $leaf $ca {this -43200 next -3600}] \
    foreign [list ocsp_response_file $staple_file $other $ca {this -60}] \
    no-EKU [list ocsp_response_file $staple_file $leaf $ca [list this -60 signer $no_eku]] \
    self-made [list ocsp_response_file $staple_file $leaf $ca [list this -60 signer $self_made]] \
    one-byte [list ocsp_response_file $staple_file $leaf $ca {body byte}] \
    missing [list file delete $staple_file] \
]
set good_cases {good no-nextUpdate several}
set bad_cases [lrange [dict keys $cases] 3 end]
# Recipes are tried with these as well. They are not in the tables: whoever maintains a client that accepts one is told
# first.
set recipe_cases [list impostor [list ocsp_response_file $staple_file $leaf $impostor {this -60}]]

# Runs a client against tls_peer, which serves `cert` with the chain in its file `chain` and the staple in the file.
# Returns a dict: verdict, text (the client's output), asked, done, reused (1 if that is so in one of its connections).
proc against_peer {client {cert {}} {chain full} args} {
    if {$cert eq {}} {set cert $::leaf}
    set peer [open |[list [ocsp_tool tls_peer] --cert [dict get $cert $chain] --key [dict get $cert key] \
        --staple $::staple_file {*}$args] r]
    regexp {port=(\d+)} [gets $peer] - port
    lassign [verdict_of $client $port] verdict text
    # It prints a line for each connection when that ends; Python's redis opens two.
    exec kill [pid $peer]
    set log [read $peer]
    catch {close $peer}
    foreach word {asked done reused} {set $word [regexp $word=1 $log]}
    if {[dict get $client by] eq "peer"} {set verdict [expr {$done ? "accepts" : "refuses"}]}
    return [dict create verdict $verdict text $text asked $asked done $done reused $reused]
}

proc is_recipe {client} {expr {[dict get $client recipe] ne {}}}

set rows {}
foreach client $present {
    set name [dict get $client name]
    test "clients: $name: good, revoked, expired, foreign, forged and missing staples (30.[incr number])" {
        set verdicts {}
        set asks {}
        ocsp_responder_forget $responder
        foreach {case prepare} [concat $cases [expr {[is_recipe $client] ? $recipe_cases : {}}]] {
            {*}$prepare
            set run [against_peer $client [expr {$case eq "impostor" ? $with_impostor : $leaf}]]
            dict set verdicts $case [dict get $run verdict]
            dict set asks [dict get $run asked] 1
            # A server that is refused must not see the first command, which may be AUTH.
            if {[is_recipe $client] && [dict get $run verdict] eq "refuses"} {
                assert_equal [dict get $run done] 0 "$case: [dict get $run text]"
            }
        }
        # A client requests a status always or never, whatever it is sent.
        assert_equal [dict size $asks] 1
        if {![dict get $client bends]} {assert_equal [dict get $verdicts good] accepts}
        if {[dict get $client judges]} {
            assert_equal [dict keys $asks] 1
            assert_equal [dict get $verdicts revoked] refuses
        }
        if {[is_recipe $client]} {
            foreach case $good_cases {assert_equal [dict get $verdicts $case] accepts $case}
            foreach case [concat $bad_cases [dict keys $recipe_cases]] {
                assert_equal [dict get $verdicts $case] refuses $case
            }
            assert_equal [ocsp_responder_count $responder] 0 "requests of the client to the responder"
        }
        lappend rows [list $name [expr {[dict exists $asks 1] ? "yes" : "no"}] \
            {*}[lmap case [dict keys $cases] {dict get $verdicts $case}]]
    }
}

# ---- recipes --------------------------------------------------------------------------------------------------------

set must_staple_leaf [ocsp_lab_leaf $lab must_staple -must-staple 1]
set peer_checks [expr {[package vcompare [regexp -inline {\d+\.\d+} [exec openssl version]] 3.6] >= 0}]

foreach client $present {
    if {[dict get $client policy] eq {}} continue
    set soft $client
    dict set soft command [string map [dict get $client policy] [dict get $client command]]
    test "clients: [dict get $client name], soft: refuses bad staples, accepts a missing one (30.[incr number])" {
        foreach {case expected} {good accepts revoked refuses expired refuses foreign refuses no-EKU refuses
            self-made refuses one-byte refuses missing accepts} {
            # From 3.6 OpenSSL sends only a response, and only one with the certificate's serial number.
            if {$peer_checks && $case in {foreign one-byte}} continue
            {*}[dict get $cases $case]
            assert_equal [dict get [against_peer $soft] verdict] $expected $case
        }
        # A must-staple certificate obliges its server (RFC 7633), and a responder's error is no status. Java's
        # SOFT_FAIL takes both for a missing staple.
        set expected [expr {[dict get $client strict] ? "refuses" : "accepts"}]
        assert_equal [dict get [against_peer $soft $must_staple_leaf] verdict] $expected must-staple
        ocsp_response_file $staple_file $leaf $ca tryLater
        assert_equal [dict get [against_peer $soft] verdict] $expected tryLater
    }

    test "clients: [dict get $client name]: TLS 1.2, and a certificate of an intermediate CA (30.[incr number])" {
        foreach {case expected} {good accepts revoked refuses missing refuses} {
            {*}[dict get $cases $case]
            assert_equal [dict get [against_peer $client {} full --tls 1.2] verdict] $expected $case
        }
        ocsp_response_file $staple_file $deep_leaf $intermediate {this -60}
        set run [against_peer $client $deep_leaf chain]
        assert_equal [dict get $run verdict] accepts [dict get $run text]
        ocsp_response_file $staple_file $deep_leaf $ca {this -60}
        assert_equal [dict get [against_peer $client $deep_leaf chain] verdict] refuses "signed by the root"
    }
}

foreach client $present {
    if {[dict get $client name] ne {Java, `utils/clients/java`}} continue
    test "clients: Java resumes sessions, with utils/clients/java none after a second (30.[incr number])" {
        {*}[dict get $cases good]
        foreach {how expected} {plain 1 require 0} {
            dict set client command [concat [string map [list require $how] [dict get $client command]] 2]
            set run [against_peer $client]
            assert_equal [dict get $run verdict] accepts [dict get $run text]
            assert_equal [dict get $run reused] $expected $how
            dict set client command [concat [lrange [dict get $client command] 0 end-2] require]
        }
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
set judge_missing [catch {exec go build -o $judge [file join $programs ocsp_judge.go] 2>@1}]
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

proc verifier_verdict {command} {
    if {[catch {exec {*}$command $::staple_file [dict get $::leaf cert] $::ca_file 2>@1} text options]} {
        assert_equal [lindex [dict get $options -errorcode] 2] 3 $text
        return refuses
    }
    return accepts
}

# Each recipe once.
set judging [lmap client $present {
    if {![dict get $client judges]
        || [regexp {Java, `utils|iovalkey|`redis`, `utils.*node|UTC} [dict get $client name]]} continue
    set client
}]
set use_rows {}
foreach {what behaviour for_all} $uses {
    test "clients: which of them accept a response with: $what (30.[incr number])" {
        ocsp_response_file $staple_file $leaf $ca [concat {this -60} $behaviour]
        set row [list $what]
        foreach client $judging {lappend row [dict get [against_peer $client] verdict]}
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

# Writes the first table: which bad staples each client accepts, as it comes and with its recipes.
proc put_verdicts_table {channel} {
    puts $channel "| client | requests a staple | bad staples accepted as it comes | with the recipe |"
    puts $channel "|---|---|---|---|"
    foreach client $::clients {
        if {[is_recipe $client]} continue
        set name [dict get $client name]
        set with [expr {[bad_accepted $name] eq "none" ? {} : "no recipe"}]
        foreach recipe $::clients {
            set by [dict get $recipe name]
            if {$name in [dict get $recipe recipe] && [row_value $by 0] ne {}} {set with [bad_accepted $by]}
        }
        puts $channel "| $name | [row_value $name 1] | [bad_accepted $name] | $with |"
    }
}

proc row_value {name index} {lindex [lsearch -inline -exact -index 0 $::rows $name] $index}

proc bad_accepted {name} {
    set accepted {}
    foreach case $::bad_cases {
        if {[row_value $name [expr {2 + [lsearch [dict keys $::cases] $case]}]] eq "accepts"} {lappend accepted $case}
    }
    if {$accepted eq $::bad_cases} {return "**all [llength $accepted]**"}
    if {$accepted eq {}} {return none}
    return [join [lmap case $accepted {expr {$case eq "missing" ? $case : "**$case**"}}] {, }]
}

set missing [lmap client $clients {
    if {[dict get $client optional] || $client in $present} continue
    dict get $client name
}]
if {[info exists env(CLIENT_TABLE)] && $missing eq {} && [llength $rows] == [llength $present]} {
    set channel [open $env(CLIENT_TABLE) w]
    fconfigure $channel -encoding utf-8
    puts $channel "[join $versions {, }]; TLS 1.3:\n"
    put_verdicts_table $channel
    puts $channel "\nThe verdict on each staple:\n"
    puts $channel "| client | [join [dict keys $cases] { | }] |"
    puts $channel "|[string repeat ---| [expr {[dict size $cases] + 1}]]"
    foreach row $rows {
        # Bold: a bad staple is accepted, or a good one refused.
        set cells [lmap case [dict keys $cases] verdict [lrange $row 2 end] {
            expr {$case ne "missing" && ($case in $good_cases) != ($verdict eq "accepts") ? "**$verdict**" : $verdict}
        }]
        puts $channel "| [join [concat [list [lindex $row 0]] $cells] { | }] |"
    }
    put_uses_table $channel
    close $channel
}
