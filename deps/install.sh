#!/bin/sh
# install.sh - installs what building, the demo, the tests and the linters need, from Debian's or Ubuntu's own packages.
#
# With nothing missing it says nothing, asks no network and returns within a fraction of a second, so every make
# verb can call it. `sh deps/install.sh --help` tells the rest.
#
# SPDX-License-Identifier: BSD-3-Clause
set -eu

# ---- the packages, by what needs them -------------------------------------------------------------------------------

BUILD="gcc libc6-dev make libssl-dev"
# Needed by `make demo`, `make run` and `make bench`: a real server, a real responder, the strictest client there is.
RUN="valkey-server valkey-tools openssl tcl procps gnutls-bin"
# tcl-tls lets Tcl speak to a server that speaks only TLS.
TEST="libcmocka-dev tcl-tls"
# OCSP responders of four kinds for tests/unit/ocsp-interop.tcl: about 70 MB. Those that need Go, Java or Node.js run where
# these are installed already, and in one root of `make test-matrix`.
RESPONDERS="python3-cryptography ruby ruby-webrick erlang-public-key erlang-inets libnss3-tools"
LINT="binutils clang-format cppcheck shellcheck git tcl"
# dot draws docs/design.svg.
DOCS="graphviz"
MODEL="spin gcc libc6-dev"
# `make test-matrix` makes Debian systems and runs commands in them.
MATRIX="debootstrap debian-archive-keyring util-linux iproute2 tcl tar"
PLOT="libcmocka-dev gnuplot-nox"
# Servers to measure beside, instruction counts, pictures. apache2-bin is httpd without its service.
BENCH="nginx haproxy apache2-bin redis-server gnuplot-nox valgrind"
# Those of all these packages that bring a service.
SERVICES="valkey-server redis-server nginx haproxy"

# The sanitizers' and the fuzzer's runtime is a package with clang's version in its name.
fuzzPackages() {
    major=$(clang --version 2>/dev/null | sed -n 's/.*clang version \([0-9]*\).*/\1/p')
    [ -n "$major" ] || major=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    echo "clang libclang-rt-${major:-14}-dev libcmocka-dev"
}

OLDEST_VALKEY=8 # the module needs Valkey 8.0 or later

# ---- small helpers --------------------------------------------------------------------------------------------------

say() { printf 'deps/install.sh: %s\n' "$*"; }
die() {
    say "$*" >&2
    exit 1
}

usage() {
    cat <<'HELP'
usage: sh deps/install.sh [--list | --check] [GROUP...]

Installs what is missing and is quiet when nothing is. Needs root only when something is missing.

  GROUP     build   compiler, make, OpenSSL's headers
            run     build, and what `make demo` and `make run` use, among it the real valkey-server
            test    run, and what `make test` uses
            lint    build, and what `make lint` and `make format` use
            docs    what `make docs` uses
            fuzz    build, and what `make fuzz` uses
            model   what `make model` uses
            matrix  what `make test-matrix` uses
            fleet   build, and what `make fleet` uses
            soak    test, and what `make soak` draws with
            bench   run, and what `make bench` uses: nginx, HAProxy, Apache httpd, Redis, gnuplot, valgrind
            all     everything but bench (this is the default)

  --list    prints the packages of the groups, one a line, and installs nothing
  --check   installs nothing; prints what is missing and exits 1 if anything is
  --help    prints this

On Debian 12 valkey-server is in the suite bookworm-backports. If apt does not know that suite, the script adds it as
/etc/apt/sources.list.d/valkey-ocsp-backports.sources, from the mirror that apt uses already and signed by the same key,
and says so. It does not leave a server running that was not running before.
HELP
}

# missing PACKAGE...: prints those of them that dpkg does not have installed. One call of dpkg-query for all of them.
missing() {
    installed=" $(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "$@" 2>/dev/null |
        awk '$2 == "installed" {printf "%s ", $1}') "
    for package in "$@"; do
        case $installed in
        *" $package "*) ;;
        *) printf '%s\n' "$package" ;;
        esac
    done
}

# quietly COMMAND...: runs it, and shows what it printed only if it failed.
quietly() {
    if ! "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        return 1
    fi
}

apt() { DEBIAN_FRONTEND=noninteractive quietly apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }

# The version that apt would install, "" for none.
candidate() { LC_ALL=C apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'; }

# ---- Debian 12: the suite that has Valkey ---------------------------------------------------------------------------

# signedBy FILE URI SUITE: prints the Signed-By field of the source in FILE (deb822 or one-line style) that has this URI
# and suite, in deb822 style: a key in the file itself spans several lines, so the lines are printed as they are.
signedBy() {
    case $1 in
    *.sources)
        awk -v uri="${2%/}" -v suite="$3" '
            function flush() {
                if (has_uri && has_suite && signed != "") printf "%s", signed
                has_uri = has_suite = in_signed = 0; signed = ""
            }
            /^[ \t]*$/ { flush(); next }
            /^#/ { next }
            /^[^ \t]/ { field = tolower($1); in_signed = (field == "signed-by:") }
            in_signed { signed = signed $0 "\n" }
            {
                for (i = 1; i <= NF; i++) {
                    word = $i; sub(/\/$/, "", word)
                    if (field == "uris:" && word == uri) has_uri = 1
                    if (field == "suites:" && $i == suite) has_suite = 1
                }
            }
            END { flush() }' "$1"
        ;;
    *)
        awk -v uri="${2%/}" -v suite="$3" '
            $1 == "deb" {
                line = $0; options = ""
                if (match(line, /\[[^]]*\]/)) {
                    options = substr(line, RSTART + 1, RLENGTH - 2)
                    line = substr(line, 1, RSTART - 1) substr(line, RSTART + RLENGTH)
                }
                split(line, word, /[ \t]+/); sub(/\/$/, "", word[2])
                if (word[2] != uri || word[3] != suite) next
                count = split(options, option, /[ \t]+/)
                for (i = 1; i <= count; i++)
                    if (sub(/^signed-by=/, "", option[i])) { gsub(/,/, " ", option[i]); print "Signed-By: " option[i] }
                exit
            }' "$1"
        ;;
    esac
}

addBackports() {
    suite=$codename-backports
    list=/etc/apt/sources.list.d/valkey-ocsp-backports.sources
    # The mirror of the release itself: its codename is that of this system, which tells it from -updates and -security.
    target=$(apt-get indextargets --format "\$(REPO_URI)|\$(RELEASE)|\$(SOURCESENTRY)" \
        'Created-By: Packages' 'Origin: Debian' 'Component: main' "Codename: $codename" | head -n 1)
    [ -n "$target" ] || die "apt has no mirror of Debian $codename configured, so $suite, which holds valkey-server," \
        "cannot be added. Add it to apt's sources by hand and run this again."
    uri=${target%%|*}
    entry=${target##*|}
    release=${target#*|}
    release=${release%%|*}
    {
        echo "# Added by deps/install.sh of OCSP stapling for Valkey: $codename itself has no valkey-server."
        echo "# Packages from it are installed only when asked for. Remove this file to take the suite away."
        echo "Types: deb"
        echo "URIs: $uri"
        echo "Suites: $suite"
        echo "Components: main"
        signedBy "${entry%:*}" "$uri" "$release"
    } >"$work/source"
    cp "$work/source" "$list"
    chmod 644 "$list"
    say "added the suite $suite of the mirror that apt uses already, as $list."
    if ! apt update; then
        rm -f "$list"
        die "the mirror did not give its suite $suite (see above), so $list was taken away again." \
            "Add a mirror that has it to apt's sources and run this again."
    fi
}

# ---- not leaving a server running -----------------------------------------------------------------------------------

# Debian starts a service when its package is installed. A program that installs what a demo needs has no business
# taking port 6379, so for the time of the installation these services alone are told not to start.
policy=/usr/sbin/policy-rc.d
policy_mark="written by deps/install.sh of OCSP stapling for Valkey"
policy_ours=no

holdService() {
    if [ -e "$policy" ] && ! grep -q "$policy_mark" "$policy"; then
        return # the administrator's own: not ours to touch, see releaseService
    fi
    cat >"$policy" <<POLICY
#!/bin/sh
# $policy_mark while it runs; safe to remove.
case "\$1" in valkey-server* | redis-server* | nginx* | haproxy*) exit 101 ;; esac
exit 0
POLICY
    chmod 755 "$policy"
    policy_ours=yes
}

releaseService() {
    if [ "$policy_ours" = yes ]; then
        rm -f "$policy"
        policy_ours=no
    fi
}

serviceRuns() { # serviceRuns NAME
    if [ -d /run/systemd/system ]; then
        systemctl is-active --quiet "$1"
    else
        service "$1" status >/dev/null 2>&1
    fi
}

# ---- main -----------------------------------------------------------------------------------------------------------

mode=install
groups=
for argument in "$@"; do
    case $argument in
    --list) mode=list ;;
    --check) mode=check ;;
    -h | --help)
        usage
        exit 0
        ;;
    build | run | test | lint | docs | fuzz | model | matrix | fleet | soak | bench | all) groups="$groups $argument" ;;
    *)
        usage >&2
        die "there is no option or group \"$argument\"; see above for those there are."
        ;;
    esac
done

packages=
for group in ${groups:-all}; do
    case $group in
    build) packages="$packages $BUILD" ;;
    run) packages="$packages $BUILD $RUN" ;;
    test) packages="$packages $BUILD $RUN $TEST $RESPONDERS" ;;
    lint) packages="$packages $BUILD $LINT" ;;
    docs) packages="$packages $DOCS" ;;
    fuzz) packages="$packages $BUILD $(fuzzPackages)" ;;
    model) packages="$packages $MODEL" ;;
    matrix) packages="$packages $MATRIX" ;;
    fleet) packages="$packages $BUILD $PLOT" ;;
    soak) packages="$packages $BUILD $RUN $TEST $PLOT" ;;
    bench) packages="$packages $BUILD $RUN $BENCH" ;;
    all) packages="$packages $BUILD $RUN $TEST $RESPONDERS $LINT $DOCS $MODEL $MATRIX $PLOT $(fuzzPackages)" ;;
    esac
done
# shellcheck disable=SC2086 # a list of words, here and below
packages=$(printf '%s\n' $packages | awk '!seen[$0]++')

if [ "$mode" = list ]; then
    printf '%s\n' "$packages"
    exit 0
fi

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    say "this system has no apt and dpkg, so nothing was installed or checked. What is needed, by Debian's names:" >&2
    # shellcheck disable=SC2086
    say $packages >&2
    # A build on another system is welcome to try with what it has; make says what it misses.
    exit 0
fi

# shellcheck disable=SC2086
needed=$(missing $packages)
[ -n "$needed" ] || exit 0
needed_line=$(printf '%s' "$needed" | tr '\n' ' ')

if [ "$mode" = check ]; then
    printf '%s\n' "$needed"
    exit 1
fi

[ "$(id -u)" = 0 ] || die "these packages are missing: $needed_line." \
    "Installing them needs root; run this, then the same make again: sudo sh deps/install.sh${groups}"

work=$(mktemp -d)
trap 'releaseService; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

say "installing: $needed_line"
apt update || die "apt-get update failed (see above). Mend apt's sources or the network, then run this again."

case " $needed_line " in
*" valkey-server "*)
    version=$(candidate valkey-server)
    if [ -z "$version" ] || dpkg --compare-versions "$version" lt "$OLDEST_VALKEY"; then
        id=$(sed -n 's/^ID=//p' /etc/os-release | tr -d '"')
        codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release | tr -d '"')
        if [ "$id" = debian ] && [ -n "$codename" ]; then
            addBackports
            version=$(candidate valkey-server)
        fi
        if [ -z "$version" ] || dpkg --compare-versions "$version" lt "$OLDEST_VALKEY"; then
            die "apt has ${version:-no} valkey-server here, and the module needs $OLDEST_VALKEY.0 or later." \
                "Use Debian 12 with its backports, Debian 13 or later, or put such a valkey-server in PATH yourself."
        fi
    fi
    ;;
esac

# Those that come with this installation, and of them those that do not run yet.
new_services=
for service in $SERVICES; do
    case " $needed_line " in *" $service "*) serviceRuns "$service" || new_services="$new_services $service" ;; esac
done
[ -z "$new_services" ] || holdService

# shellcheck disable=SC2086
apt install --yes --no-install-recommends $needed ||
    die "apt-get could not install: $needed_line (see above). Mend that and run this again."
releaseService

for service in $new_services; do
    # Only where the administrator's own policy let the service start: it was not installed before, so it is not in use.
    if serviceRuns "$service"; then
        if [ -d /run/systemd/system ]; then systemctl stop "$service"; else service "$service" stop >/dev/null; fi
    fi
    if [ -d /run/systemd/system ]; then
        say "$service was not started. It is with the next boot, unless: systemctl disable $service"
    fi
done

# shellcheck disable=SC2086
still=$(missing $needed)
# shellcheck disable=SC2086
[ -z "$still" ] || die "apt-get said that all is well, yet these are not installed:" $still
