# ocsp-kubernetes.tcl - the steps of utils/kubernetes/valkey-ocsp.yaml without Kubernetes: its configuration, its
# command of the init container and its probe, under support/under_pod, which imitates the pod's volumes, user and
# read-only root. The secret is replaced as kubelet replaces it.
#
# Needs root, for a mount namespace.
#
# Weight: 12
# SPDX-License-Identifier: BSD-3-Clause

source [file join [file dirname [info script]] .. support ocsp_util.tcl]

# Returns why a pod cannot be imitated here, or "".
proc why_not {} {
    if {[exec id -u] != 0} {return "this needs root"}
    foreach tool {unshare setpriv} {if {![has_tool $tool]} {return "$tool is not installed"}}
    if {[catch {exec unshare --mount true 2>@1} why]} {return "no mount namespaces here: $why"}
    if {![regexp {\moverlay\M} [read_text /proc/filesystems]]} {return "this kernel has no overlay file system"}
    return {}
}

set why [why_not]
if {$why ne {}} {
    skip_test {kubernetes: the steps of the manifest} $why
} else {

ocsp_setup
set manifest [read_text [file join $::project_dir utils kubernetes valkey-ocsp.yaml]]
set skeleton [tmpdir skeleton]
set secret [tmpdir secret]
set modules [tmpdir modules]
set data [tmpdir data]

# Returns the elements of the manifest's line `command: [...]` that begins with `program`.
proc manifest_command {program} {
    foreach {- list} [regexp -all -inline -line {^ *command: \[(.*)\]$} $::manifest] {
        set words [lmap {- word} [regexp -all -inline {"([^"]*)"} $list] {set word}]
        if {[lindex $words 0] eq $program} {return $words}
    }
    fail "the manifest has no command $program"
}

# Returns name and value of each line of valkey.conf in the manifest, without loadmodule, which the runner writes.
proc manifest_config {} {
    regexp {valkey\.conf: \|\n(.*?)\n---} $::manifest - text
    set settings {}
    foreach line [split $text \n] {
        if {[regexp {^    ([a-z][a-z.-]*) (.*)$} $line - name value]} {lappend settings $name $value}
    }
    return $settings
}

# Replaces the content of the secret as kubelet does: the files go to a new folder, then the symbolic link ..data is
# replaced by rename. tls.crt and the others are links to ..data/NAME, made once.
proc swap_secret {leaf} {
    set version ..version.[clock clicks]
    file mkdir $::secret/$version
    set pem [read_text [dict get $leaf cert]][read_text [dict get $::ca cert]]
    ocsp_file_write $::secret/$version/tls.crt $pem
    ocsp_file_write $::secret/$version/tls.key [read_text [dict get $leaf key]]
    ocsp_file_write $::secret/$version/ca.crt [read_text [dict get $::ca cert]]
    foreach file {tls.crt tls.key ca.crt} {file attributes $::secret/$version/$file -permissions 0440 -group 999}
    set before [expr {[file exists $::secret/..data] ? [file readlink $::secret/..data] : {}}]
    exec ln -s $version $::secret/..new
    exec mv -T $::secret/..new $::secret/..data
    if {$before ne {}} {
        file delete -force $::secret/$before
        return
    }
    foreach file {tls.crt tls.key ca.crt} {exec ln -s ..data/$file $::secret/$file}
}

# The init container, with the paths of the manifest mapped to ours.
exec {*}[string map [list /valkey-ocsp.so $::ocsp_module_path /modules/valkey-ocsp.so $modules/valkey-ocsp.so] \
    [manifest_command install]]
swap_secret $leaf
file attributes $data -owner 999 -group 999
for {set path $data} {$path ne "/"} {set path [file dirname $path]} {
    if {[string first $::workdir $path] == 0} {file attributes $path -permissions a+x}
}

set wrapper [tmpfile server]
ocsp_file_write $wrapper "#!/bin/sh\nexec [file join $::ocsp_support_dir under_pod] $skeleton $secret $modules $data\
    $::workdir $::server_binary \"\$@\"\n"
file attributes $wrapper -permissions 0755
set plain $::server_binary
set ::server_binary $wrapper

set settings [manifest_config]
foreach name {port tls-port} {dict unset settings $name}
set options [list overrides [concat $settings {loadmodule /modules/valkey-ocsp.so unixsocket /data/socket}] \
    omit {tls-client-cert-file tls-client-key-file tls-dh-params-file} tags {tls ocsp external:skip needs:debug}]

start_server $options {
    test {kubernetes: the manifest's configuration staples, without root and on a read-only root} {
        ocsp_wait_info state good
        ocsp_assert_good $ca
        set status [read_text /proc/[srv 0 pid]/status]
        assert_match "*\nUid:\t999\t999\t999\t999\n*" $status
        assert_match "*\nCapEff:\t0000000000000000\n*" $status
        assert_match "* / / ro*" [read_text /proc/[srv 0 pid]/mountinfo]
        # The response is in the volume of the data.
        ocsp_wait_file [ocsp_cache_file $data $leaf]
        assert_equal [llength [glob -nocomplain $modules/* $secret/ocsp-*]] 1
    }

    test {kubernetes: the readiness probe of the manifest succeeds} {
        set command [string map [list /tls/ $secret/] [manifest_command valkey-cli]]
        set cli [file join [file dirname [auto_execok $plain]] [string map {server cli} [file tail $plain]]]
        assert_equal [exec $cli {*}[lrange $command 1 end-1] -p [srv 0 port] [lindex $command end]] PONG
    }

    test {kubernetes: a replaced secret is served after CONFIG SET tls-cert-file with its own value, with its staple} {
        set renewed [ocsp_lab_leaf $lab renewed]
        swap_secret $renewed
        # Until then the server goes on with what it has read, and staples.
        assert_equal [dict get [ocsp_handshake] serial] [dict get $leaf serial]
        assert_equal [ocsp_staple] good
        r config set tls-cert-file /tls/tls.crt
        assert_equal [dict get [ocsp_handshake] serial] [dict get $renewed serial]
        ocsp_wait_staple good
        ocsp_assert_good $ca
        assert_equal [ocsp_info cert_serial] [dict get $renewed serial]
        ocsp_wait_file [ocsp_cache_file $data $renewed]
    }

    test {kubernetes: a pod that is started again staples from the volume, with the responder down} {
        ocsp_responder_behave $responder {drop close}
        restart_server 0 true false
        assert_equal [ocsp_staple] good
        assert_equal [ocsp_info response_source] cache
        ocsp_responder_behave $responder good
    }

    test {kubernetes: a key that does not belong to the certificate is refused, and the server goes on} {
        # What a secret with single files under subPath, or copied one after the other, can show.
        set other [ocsp_lab_leaf $lab other]
        set serial [dict get [ocsp_handshake] serial]
        swap_secret [dict replace $other key [dict get $leaf key]]
        assert_error {*} {r config set tls-cert-file /tls/tls.crt}
        assert_equal [dict get [ocsp_handshake] serial] $serial
        assert_equal [ocsp_staple] good
        swap_secret $other
        r config set tls-cert-file /tls/tls.crt
        assert_equal [dict get [ocsp_handshake] serial] [dict get $other serial]
        ocsp_wait_staple good
    }

    if {[r config get tls-auto-reload-interval] eq {}} {
        skip_test {kubernetes: a server that reloads by itself} {this server does not}
    } else {
        test {kubernetes: a server with tls-auto-reload-interval follows the replaced secret by itself} {
            r config set tls-auto-reload-interval 1
            set later [ocsp_lab_leaf $lab later]
            # Valkey compares times in whole seconds.
            after 1100
            swap_secret $later
            wait_for_condition 400 50 {[dict get [ocsp_handshake] serial] eq [dict get $later serial]} else {
                fail "the server does not serve the replaced certificate"
            }
            ocsp_wait_staple good
            ocsp_assert_good $ca
        }
    }
}
set ::server_binary $plain

}
