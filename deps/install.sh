#!/bin/sh
# install.sh - installs the packages for building, the demo, the tests and the linters, from Debian or Ubuntu.
#
# If nothing is missing, the script is silent, uses no network and returns within a fraction of a second, so every make
# target can call it. See `sh deps/install.sh --help`.
#
# SPDX-License-Identifier: BSD-3-Clause
set -eu

# ---- packages, by purpose -------------------------------------------------------------------------------------------

BUILD="gcc libc6-dev make libssl-dev"
# For `make demo`, `make run` and `make bench`: a real server, a real responder, and GnuTLS, the strictest client.
RUN="valkey-server valkey-tools openssl tcl procps gnutls-bin"
# tcl-tls lets Tcl connect to a TLS-only server.
TEST="libcmocka-dev tcl-tls"
# Four OCSP responders for tests/unit/ocsp-interop.tcl, about 70 MB. Responders in Go, Java and Node.js run if those are
# installed already, and in one root of `make test-matrix`.
RESPONDERS="python3-cryptography ruby ruby-webrick erlang-public-key erlang-inets libnss3-tools"
LINT="binutils clang-format cppcheck shellcheck mandoc git tcl"
# kubectl decodes utils/kubernetes/ without a cluster. One of another origin than Debian's will do.
command -v kubectl >/dev/null 2>&1 || LINT="$LINT kubernetes-client"
# `make deb` and `make rpm`.
PACKAGE="build-essential debhelper dpkg-dev lintian mandoc git rpm rpmlint"
# dot draws docs/design.svg.
DOCS="graphviz"
# herd7 (herdtools7), which `make model` uses too, is in Debian testing only.
MODEL="spin gcc libc6-dev g++ relacy-dev"
# `make test-matrix` creates Debian root file systems and runs commands in them.
MATRIX="debootstrap debian-archive-keyring util-linux iproute2 tcl tar"
# One of these file systems gets clients from npm. An npm of another origin than Debian's will do.
command -v npm >/dev/null 2>&1 || MATRIX="$MATRIX npm"
# `make test-matrix ARCH=arm64` builds for arm64 and emulates it.
ARM64="gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user-static"
PLOT="libcmocka-dev gnuplot-nox"
# Servers to compare with, instruction counts, plots. apache2-bin is httpd without its service.
BENCH="nginx haproxy apache2-bin redis-server gnuplot-nox valgrind"
# `make test-monitoring`, about 120 MB: a Prometheus that reads the probe's metrics, and a collector of INFO.
MONITORING="prometheus prometheus-node-exporter prometheus-redis-exporter gnuplot-nox"
# Packages that install a service.
SERVICES="valkey-server redis-server nginx haproxy prometheus prometheus-node-exporter prometheus-redis-exporter"

# The package of the sanitizer and fuzzer runtime has clang's version in its name.
fuzzPackages() {
    major=$(clang --version 2>/dev/null | sed -n 's/.*clang version \([0-9]*\).*/\1/p')
    [ -n "$major" ] || major=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n 1)
    echo "clang libclang-rt-${major:-14}-dev libcmocka-dev"
}

OLDEST_VALKEY=8 # the module needs Valkey 8.0 or later
RELEASE_FILE=${OS_RELEASE:-/etc/os-release}

# ---- helpers --------------------------------------------------------------------------------------------------------

say() { printf 'deps/install.sh: %s\n' "$*"; }
die() {
    say "$*" >&2
    exit 1
}

usage() {
    cat <<'HELP'
usage: sh deps/install.sh [--list | --check] [GROUP...]

Installs the missing packages of each GROUP. Prints nothing if none is missing. Requires root only to install.

  GROUP     build   compiler, make, OpenSSL headers
            run     build, and packages for `make demo` and `make run`, including valkey-server
            test    run, and packages for `make test`
            lint    build, and packages for `make lint` and `make format`
            package build, and packages for `make deb` and `make rpm`
            docs    packages for `make docs`
            fuzz    build, and packages for `make fuzz`
            model   packages for `make model`
            matrix  packages for `make test-matrix`
            arm64   packages for `make test-matrix ARCH=arm64`, in addition to matrix and build
            fleet   build, and packages for `make fleet`
            soak    test, and packages for the plot of `make soak`
            bench   run, and packages for `make bench`: nginx, HAProxy, Apache httpd, Redis, gnuplot, valgrind
            monitoring  test, and packages for `make test-monitoring`: Prometheus and two of its exporters
            all     everything except bench, monitoring and arm64 (default)

  --list    print the packages of the groups, one per line; install nothing
  --check   print the missing packages, and exit with 1 if there are any; install nothing
  --help    print this help

On Debian 12 valkey-server is in the suite bookworm-backports. If apt does not know that suite, the script adds it as
/etc/apt/sources.list.d/valkey-ocsp-backports.sources, with the mirror and the key that apt uses already, and prints a
message. Services that were not running before are not left running.

On Ubuntu 24.04, whose Valkey is 7.2, it installs Redis 7.0 in place of Valkey. Ubuntu 22.04 has no server that the module
supports (its Redis is 6.0): the server has to be in PATH. The packages come from main and universe.

A package that apt does not have is named and left out, the others are installed, and the exit status is 1. `make demo`
and `make test` then go on with what is there.
HELP
}

# osRelease NAME: prints a field of /etc/os-release.
osRelease() { sed -n "s/^$1=//p" "$RELEASE_FILE" 2>/dev/null | tr -d '"'; }

# The Ubuntu release that this system is, or was made from: jammy (22.04), noble (24.04), ...; nothing on Debian.
ubuntu() {
    name=$(osRelease UBUNTU_CODENAME)
    if [ -z "$name" ] && [ "$(osRelease ID)" = ubuntu ]; then name=$(osRelease VERSION_CODENAME); fi
    printf '%s\n' "$name"
}

# forRelease PACKAGE...: prints the packages by the names of this release.
forRelease() {
    case $(ubuntu) in
    # Its Redis, 6.0, is no replacement; its clang contains the runtime.
    jammy) printf '%s\n' "$@" | sed '/^valkey-/d; /^libclang-rt-/d' ;;
    noble) printf '%s\n' "$@" | sed 's/^valkey-/redis-/' ;;
    *) printf '%s\n' "$@" ;;
    esac
}

# missing PACKAGE...: prints the packages that are not installed, with one call of dpkg-query.
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

# quietly COMMAND...: runs the command and prints its output only if it fails.
quietly() {
    if ! "$@" >"$work/log" 2>&1; then
        cat "$work/log" >&2
        return 1
    fi
}

apt() { DEBIAN_FRONTEND=noninteractive quietly apt-get -q -o DPkg::Lock::Timeout=300 "$@"; }

# candidate PACKAGE: prints the version that apt would install, or nothing.
candidate() { LC_ALL=C apt-cache policy "$1" | awk '$1 == "Candidate:" && $2 != "(none)" {print $2}'; }

# ---- Debian 12: the suite with Valkey -------------------------------------------------------------------------------

# signedBy FILE URI SUITE: prints the Signed-By field of the source in FILE (deb822 or one-line style) with this URI and
# suite, in deb822 style. Lines are printed unchanged, because a key embedded in the file spans several lines.
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
    # The mirror of the release itself: only its codename equals the system's, unlike those of -updates and -security.
    target=$(apt-get indextargets --format "\$(REPO_URI)|\$(RELEASE)|\$(SOURCESENTRY)" \
        'Created-By: Packages' 'Origin: Debian' 'Component: main' "Codename: $codename" | head -n 1)
    [ -n "$target" ] || die "apt has no mirror of Debian $codename, so the suite $suite, which has valkey-server," \
        "cannot be added. Add the suite to apt's sources and run this script again."
    uri=${target%%|*}
    entry=${target##*|}
    release=${target#*|}
    release=${release%%|*}
    {
        echo "# Added by deps/install.sh of OCSP stapling for Valkey, because $codename itself has no valkey-server."
        echo "# Packages from this suite are installed only on request. To remove the suite, remove this file."
        echo "Types: deb"
        echo "URIs: $uri"
        echo "Suites: $suite"
        echo "Components: main"
        signedBy "${entry%:*}" "$uri" "$release"
    } >"$work/source"
    cp "$work/source" "$list"
    chmod 644 "$list"
    say "added the suite $suite of the mirror in use: $list."
    if ! apt update; then
        rm -f "$list"
        die "the mirror does not provide the suite $suite (see above), so $list was removed again." \
            "Add a mirror that has the suite to apt's sources and run this script again."
    fi
}

# ---- services stay stopped ------------------------------------------------------------------------------------------

# Debian starts a service when its package is installed. Installing packages for a demo should not occupy port 6379, so
# a policy-rc.d keeps these services from starting during the installation.
policy=${POLICY_RC_D:-/usr/sbin/policy-rc.d}
policy_mark="written by deps/install.sh of OCSP stapling for Valkey"
policy_ours=no

holdService() {
    if [ -e "$policy" ] && ! grep -q "$policy_mark" "$policy"; then
        return # written by the administrator: left alone, see releaseService
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
    build | run | test | lint | package | docs | fuzz | model | matrix | arm64 | fleet | soak | bench | monitoring | all)
        groups="$groups $argument"
        ;;
    *)
        usage >&2
        die "unknown option or group \"$argument\"; see the usage above."
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
    package) packages="$packages $BUILD $PACKAGE" ;;
    docs) packages="$packages $DOCS" ;;
    fuzz) packages="$packages $BUILD $(fuzzPackages)" ;;
    model) packages="$packages $MODEL" ;;
    matrix) packages="$packages $MATRIX" ;;
    arm64) packages="$packages $BUILD $ARM64" ;;
    fleet) packages="$packages $BUILD $PLOT" ;;
    soak) packages="$packages $BUILD $RUN $TEST $PLOT" ;;
    bench) packages="$packages $BUILD $RUN $BENCH" ;;
    monitoring) packages="$packages $BUILD $RUN $TEST $MONITORING" ;;
    all) packages="$packages $BUILD $RUN $TEST $RESPONDERS $LINT $PACKAGE $DOCS $MODEL $MATRIX $PLOT $(fuzzPackages)" ;;
    esac
done
# shellcheck disable=SC2086 # a list of words, here and below
packages=$(forRelease $packages | awk '!seen[$0]++')

if [ "$mode" = list ]; then
    printf '%s\n' "$packages"
    exit 0
fi

if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
    say "this system has no apt and dpkg, so nothing was installed or checked. The required packages on Debian:" >&2
    # shellcheck disable=SC2086
    say $packages >&2
    # Not an error: the build may work on other systems, and make reports what is missing.
    exit 0
fi

case " ${groups:-all} " in
*" run "* | *" test "* | *" soak "* | *" bench "* | *" all "*)
    if [ "$(ubuntu)" = jammy ] && ! command -v valkey-server >/dev/null 2>&1; then
        say "Ubuntu 22.04 has no server that the module supports, as its Redis is 6.0. Put a valkey-server of" \
            "$OLDEST_VALKEY.0 or later in PATH; what needs no server works without." >&2
    fi
    ;;
esac

# shellcheck disable=SC2086
needed=$(missing $packages)
[ -n "$needed" ] || exit 0
needed_line=$(printf '%s' "$needed" | tr '\n' ' ')

if [ "$mode" = check ]; then
    printf '%s\n' "$needed"
    exit 1
fi

[ "$(id -u)" = 0 ] || die "these packages are missing: $needed_line." \
    "Installing them requires root. Run: sudo sh deps/install.sh${groups}"

work=$(mktemp -d)
trap 'releaseService; rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

say "installing: $needed_line"
left_out=
apt update || die "apt-get update failed (see above). Fix apt's sources or the network, then run this script again."

case " $needed_line " in
*" valkey-server "*)
    version=$(candidate valkey-server)
    if [ -z "$version" ] || dpkg --compare-versions "$version" lt "$OLDEST_VALKEY"; then
        codename=$(osRelease VERSION_CODENAME)
        if [ "$(osRelease ID)" = debian ] && [ -n "$codename" ]; then
            addBackports
            version=$(candidate valkey-server)
        fi
        if [ -z "$version" ] || dpkg --compare-versions "$version" lt "$OLDEST_VALKEY"; then
            say "apt has ${version:-no} valkey-server, and the module requires $OLDEST_VALKEY.0 or later." \
                "Use Debian 12 with backports, Debian 13 or later, or install such a valkey-server in PATH." >&2
            needed=$(printf '%s\n' "$needed" | sed '/^valkey-/d')
            left_out="valkey-server"
        fi
    fi
    ;;
esac

# apt would install nothing at all if it does not know one of them.
known=
for package in $needed; do
    if [ -n "$(candidate "$package")" ]; then
        known="$known $package"
    else
        left_out="$left_out $package"
    fi
done
needed=$known
needed_line=${needed# }

# Services that this run installs and that are not running yet.
new_services=
for service in $SERVICES; do
    case " $needed_line " in *" $service "*) serviceRuns "$service" || new_services="$new_services $service" ;; esac
done
[ -z "$new_services" ] || holdService

# shellcheck disable=SC2086
[ -z "$needed" ] || apt install --yes --no-install-recommends $needed ||
    die "apt-get could not install: $needed_line (see above). Fix that and run this script again."
releaseService

for service in $new_services; do
    # Running only if the administrator's policy-rc.d allowed it. The service was just installed, so it is not in use.
    if serviceRuns "$service"; then
        if [ -d /run/systemd/system ]; then systemctl stop "$service"; else service "$service" stop >/dev/null; fi
    fi
    if [ -d /run/systemd/system ]; then
        say "$service was not started. It starts at the next boot; to prevent that: systemctl disable $service"
    fi
done

# shellcheck disable=SC2086
still=$(missing $needed)
# shellcheck disable=SC2086
[ -z "$still" ] || die "apt-get reported success, but these packages are not installed:" $still
[ -z "$left_out" ] || die "apt does not have these packages, and the rest is installed: ${left_out# }"
