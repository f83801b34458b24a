# Makefile - every verb of the project. `make help` lists them.
#
# Built: src/valkey-ocsp.so (the module) and utils/ocsp-probe; all else lands in build/. Nothing built is committed.
# Variables that people set: CC, CFLAGS, LDFLAGS; SAN=address|thread|undefined for `make test`; OPENSSL=/prefix to
# build against another OpenSSL than the system's; ARGS="..." for the Tcl runner and the benchmark; V=1 to see whole
# commands; DESTDIR, MODULEDIR, BINDIR for `make install`.
#
# SPDX-License-Identifier: BSD-3-Clause

CC ?= cc
CFLAGS ?= -O2 -g
LDFLAGS ?=
DESTDIR ?=
# Debian's packaged unit lets the server execute files under /usr/lib only, so a module must not lie under /usr/local.
MODULEDIR ?= /usr/lib/valkey/modules
BINDIR ?= /usr/local/bin
SAN ?=
ARGS ?=
# Each step shows as a word and a file; V=1 shows the command.
Q := $(if $(V),,@)

# ---- what is built from what --------------------------------------------------------------------------------------

# The engine is every src/ocsp_*.c but the two hosts: the module and the glue of a patched server.
MODULE_HOST := $(sort $(wildcard src/ocsp_module*.c))
HOSTS := $(MODULE_HOST) src/ocsp_builtin.c
ENGINE := $(filter-out $(HOSTS),$(sort $(wildcard src/ocsp_*.c)))
UNIT := $(sort $(wildcard tests/c/test_*.c))
UNIT_SHARED := $(filter-out $(UNIT),$(sort $(wildcard tests/c/*.c)))
SCRIPTS := deps/install.sh .ci/run tests/all.sh utils/check-built utils/check-files utils/ocsp-demo utils/git-hooks/pre-commit \
    tests/fuzz/run tests/model/run tests/matrix/root tests/support/under_unit
C_FILES := $(sort $(wildcard src/*.[ch] deps/*.h utils/*.[ch] utils/*/*.[ch] tests/*/*.[ch]))

MODULE := src/valkey-ocsp.so
PROBE := utils/ocsp-probe

ifeq ($(SAN),)
B := build
SAN_FLAGS :=
else ifneq ($(filter $(SAN),address thread undefined),)
# A sanitizer's objects live apart from the plain ones, so that neither run spoils the other.
B := build/san-$(SAN)
SAN_FLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -O1
ifeq ($(SAN),undefined)
SAN_FLAGS += -fno-sanitize-recover=all
endif
else
$(error SAN=$(SAN) is no sanitizer of this project: use SAN=address, SAN=thread or SAN=undefined)
endif

ifneq ($(OPENSSL),)
OPENSSL_LIB := $(firstword $(wildcard $(OPENSSL)/lib64 $(OPENSSL)/lib))
OPENSSL_CPPFLAGS := -I$(OPENSSL)/include
OPENSSL_LDFLAGS := -L$(OPENSSL_LIB) -Wl,-rpath,$(OPENSSL_LIB)
endif

override CPPFLAGS += -Ideps -Isrc $(OPENSSL_CPPFLAGS)
WARN := -Wall -Wextra -Werror

# As Debian builds its packages, which bring CFLAGS and LDFLAGS of the same kind. A sanitizer has checks of its own, and
# FORTIFY needs an optimizing compiler. HARDEN= turns it off.
MACHINE := $(shell $(CC) -dumpmachine 2>/dev/null)
BRANCHES := $(if $(filter x86_64-%,$(MACHINE)),-fcf-protection,$(if $(filter aarch64-%,$(MACHINE)),-mbranch-protection=standard))
ifeq ($(SAN),)
HARDEN ?= -fstack-protector-strong $(BRANCHES) \
    $(if $(filter -O -O1 -O2 -O3 -Os,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=2)
HARDEN_LINK ?= -Wl,-z,relro,-z,now,-z,noexecstack
endif

COMPILE = $(CC) -std=gnu11 $(CPPFLAGS) $(HARDEN) $(CFLAGS) $(WARN) $(SAN_FLAGS) -fPIC -fvisibility=hidden -pthread -MMD -MP
LINK = $(CC) $(CFLAGS) $(SAN_FLAGS) $(HARDEN_LINK) $(LDFLAGS) $(OPENSSL_LDFLAGS) -pthread
LIBS := -lssl -lcrypto -lpthread

object = $(patsubst %.c,$(B)/%.o,$(1))
ENGINE_OBJECTS := $(call object,$(ENGINE))
LIBRARY := $(B)/libocsp.a
UNIT_LIBRARY := $(B)/libtest.a
UNIT_PROGRAMS := $(patsubst tests/c/%.c,$(B)/%,$(UNIT)) $(B)/fuzz-replay

comma := ,

.DEFAULT_GOAL := all
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all module probe unit test demo run bench lint docs format install uninstall hooks patch clean help

all: module probe ## build the module and the probe (the default)
	@: # so that make does not say that there was nothing to do

module: $(MODULE) ## build src/valkey-ocsp.so alone

probe: $(PROBE) ## build utils/ocsp-probe alone

# Asked once, before anything is compiled, so that a missing header is one sentence and not a page of errors.
build/openssl-ok:
	@mkdir -p build
	@echo '#include <openssl/opensslv.h>' >build/openssl.c
	@$(CC) $(CPPFLAGS) -E build/openssl.c >/dev/null 2>&1 || { \
	    echo "make: OpenSSL's headers (or the compiler $(CC)) are missing. Run: sh deps/install.sh build" >&2; exit 1; }
	@echo '#if !defined(OPENSSL_VERSION_MAJOR) || OPENSSL_VERSION_MAJOR < 3' >>build/openssl.c
	@printf '#error\n#endif\n' >>build/openssl.c
	@$(CC) $(CPPFLAGS) -E build/openssl.c >/dev/null 2>&1 || { \
	    echo "make: OpenSSL's headers are older than 3.0. Install OpenSSL 3.0 or later (Debian 12 and 13 have it)," \
	         "or name one with: make OPENSSL=/its/prefix" >&2; exit 1; }
	@rm -f build/openssl.c
	@touch $@

$(B)/%.o: %.c | build/openssl-ok
	@mkdir -p $(@D)
	@echo "  compile $<"
	$(Q)$(COMPILE) -c -o $@ $<

# -z defs: whatever is not found in libssl, libcrypto or libc would be missing in the server too.
$(MODULE): $(ENGINE_OBJECTS) $(call object,$(MODULE_HOST))
	@echo "  link    $@"
	$(Q)$(LINK) -shared -Wl,-z,defs -o $@ $^ $(LIBS)

# Archives, so that the probe and each unit test are linked with the rooms that they use, and with no others.
$(LIBRARY): $(ENGINE_OBJECTS)
$(UNIT_LIBRARY): $(call object,$(UNIT_SHARED))
$(LIBRARY) $(UNIT_LIBRARY):
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(PROBE): $(call object,utils/ocsp-probe.c) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -pie -o $@ $^ $(LIBS)

BENCH_LOADED := $(B)/bench_minimal.so $(B)/bench_bad_disk.so $(B)/bench_empty.so
BENCH_PROGRAMS := $(B)/bench_load $(B)/bench_callback $(B)/bench_requests $(BENCH_LOADED)

$(B)/bench_%: $(B)/utils/bench/%.o $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS)

# Loaded by a server, so their functions must be seen.
$(BENCH_LOADED): $(B)/bench_%.so: utils/bench/%.c
	@echo "  link    $@"
	$(Q)$(CC) -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(WARN) -shared -fPIC -o $@ $< -ldl

# See tests/c/counted.c.
COUNTED := $(foreach name,OCSP_basic_verify X509_verify OCSP_cert_to_id OCSP_response_get1_basic,-Wl$(comma)--wrap=$(name))

$(B)/test_%: $(B)/tests/c/test_%.o $(UNIT_LIBRARY) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) $(COUNTED) -o $@ $< -Wl,--start-group $(UNIT_LIBRARY) $(LIBRARY) -Wl,--end-group -lcmocka $(LIBS)

# ---- fuzzing and the model ----------------------------------------------------------------------------------------

FUZZ := $(sort $(wildcard tests/fuzz/*.c))
FUZZ_FLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

# connect() is another one in these two programs: see tests/fuzz/http.c.
FUZZ_WRAPS := -Wl,--wrap=connect $(COUNTED)
FUZZ_SHARED := tests/c/support.c tests/c/reply.c tests/c/counted.c
FUZZ_OBJECTS := $(patsubst %.c,build/fuzz/%.o,$(ENGINE) $(filter-out tests/fuzz/replay.c,$(FUZZ)) $(FUZZ_SHARED))

$(B)/fuzz-replay: $(call object,$(filter-out tests/fuzz/fuzzer.c,$(FUZZ)) $(FUZZ_SHARED)) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) $(FUZZ_WRAPS) -o $@ $^ -lcmocka $(LIBS)

build/fuzz/%.o: %.c | build/openssl-ok
	@mkdir -p $(@D)
	@echo "  compile $< for the fuzzer"
	$(Q)clang -std=gnu11 $(CPPFLAGS) $(WARN) $(FUZZ_FLAGS) -fsanitize=fuzzer-no-link -pthread -MMD -MP -c -o $@ $<

build/fuzz/fuzzer: $(FUZZ_OBJECTS)
	@echo "  link    $@"
	$(Q)clang $(FUZZ_FLAGS) -fsanitize=fuzzer $(OPENSSL_LDFLAGS) -pthread $(FUZZ_WRAPS) -o $@ $^ -lcmocka $(LIBS)

.PHONY: fuzz fuzz-programs model simulate fleet
fuzz-programs: build/fuzz/fuzzer $(B)/fuzz-replay

fuzz: ## feed foreign bytes to the engine for TIME seconds in all (default 300); findings land in build/fuzz/findings
	@sh deps/install.sh fuzz
	@$(MAKE) --no-print-directory fuzz-programs
	@TIME=$(or $(TIME),300) sh tests/fuzz/run

model: ## explore the model of the slot in full, and show that it can fail
	@sh deps/install.sh model
	@sh tests/model/run

# ---- the simulation -----------------------------------------------------------------------------------------------

# The engine as it is; the linker puts the simulated world in place of threads, files and signature checks.
SIM_OBJECTS := $(call object,$(sort $(wildcard tests/simulation/*.c)) tests/c/reply.c)
SIM_WRAPS := d2i_OCSP_RESPONSE OCSP_response_get1_basic OCSP_basic_verify X509_verify SSL_CTX_get_cert_store \
    pthread_create pthread_join pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock open close read write \
    fsync fchmod rename unlink unlinkat fstat stat lstat fstatat opendir readdir closedir dirfd ocspSetReport \
    ocspPeekNextUpdate
YEARS ?= 1000

$(B)/simulate: $(SIM_OBJECTS) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) $(foreach name,$(SIM_WRAPS),-Wl$(comma)--wrap=$(name)) -o $@ $^ $(LIBS) -lm

simulate: ## live through simulated years of outages, jumps and restarts: YEARS=1000, ARGS="--seed N"
	@sh deps/install.sh build
	@$(MAKE) --no-print-directory $(B)/simulate
	@$(B)/simulate --self-test
	@$(B)/simulate --years $(YEARS) $(ARGS)

# ---- the fleet ----------------------------------------------------------------------------------------------------

$(B)/fleet-run: $(call object,$(sort $(wildcard tests/fleet/*.c)) tests/c/support.c tests/c/reply.c) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -o $@ $^ -lcmocka $(LIBS)

fleet: ## 100,000 nodes for four weeks: requests per minute at their CA, as table and plot; ARGS="--seed N"
	@sh deps/install.sh fleet
	@$(MAKE) --no-print-directory $(B)/fleet-run
	@mkdir -p build/fleet
	@$(B)/fleet-run --out build/fleet $(ARGS) || bad=1; cd build/fleet && gnuplot ../../tests/fleet/plot.gp && \
	    echo "table and plot: build/fleet/table.txt, build/fleet/fleet.svg"; exit $${bad:-0}

# ---- mutants ------------------------------------------------------------------------------------------------------

.PHONY: mutants
mutants: ## break the engine's rules one at a time and want a test to fail on each; ARGS="'verify-*'" picks some
	@sh deps/install.sh test model
	@tclsh tests/mutants/run.tcl $(ARGS)

unit: $(UNIT_PROGRAMS) ## build and run the C unit tests alone
	@SAN=$(SAN) sh tests/all.sh unit $(UNIT_PROGRAMS)

# What is missing is installed first, in a make of its own: only then do the headers exist that the rest is built from.
ifeq ($(SAN),)
test: ## install what is missing, build, run every test; SAN=address|thread|undefined: the engine's under that sanitizer
	@sh deps/install.sh test
	@$(MAKE) --no-print-directory test-programs
	@sh tests/all.sh all $(UNIT_PROGRAMS) -- $(ARGS)
else
test:
	@sh deps/install.sh test
	@$(MAKE) --no-print-directory SAN=$(SAN) unit
endif

# MATRIX_ROOTS says where the roots lie (by default in the user's cache folder), MATRIX_MIRROR what they are made from.
.PHONY: test-matrix matrix-clean
test-matrix: ## the suites against the servers of Debian 12, 13 and testing, in roots made by debootstrap; needs root
	@sh deps/install.sh matrix
	@tclsh tests/matrix/run.tcl $(ARGS)

matrix-clean: ## remove the roots that test-matrix made
	@sh tests/matrix/root clean

.PHONY: test-programs bench-programs
test-programs: all $(UNIT_PROGRAMS) $(B)/simulate
bench-programs: all $(BENCH_PROGRAMS)

.PHONY: kills soak
kills: ## kill a server 500 times and refuse every allocation, some hours (ALLOCATIONS=300: half of one): KILLS=500
	@sh deps/install.sh test
	@$(MAKE) --no-print-directory all $(B)/test_alloc
	@FAULT_STRIDE=1 $(B)/test_alloc
	@FAULT_KILLS=$(or $(KILLS),500) FAULT_ALLOCATIONS=$(or $(ALLOCATIONS),all) \
	    tclsh tests/run.tcl --single unit/ocsp-faults $(ARGS)

soak: ## everything at once for MINUTES (default 60): memory, descriptors and threads must stay flat; build/soak/soak.svg
	@sh deps/install.sh soak
	@$(MAKE) --no-print-directory all
	@tclsh tests/soak/soak.tcl --minutes $(or $(MINUTES),60) $(ARGS)

demo: ## install what is missing, build, and show stapling on a stock server, to a revocation and back down
	@sh deps/install.sh run
	@$(MAKE) --no-print-directory all
	@sh utils/ocsp-demo

run: ## as demo, but stay up until Ctrl-C and print what to try
	@sh deps/install.sh run
	@$(MAKE) --no-print-directory all
	@sh utils/ocsp-demo --stay

bench: ## measure stapling beside nginx, HAProxy, Apache and Redis (12 minutes; ARGS=--quick: 2), tables and pictures
	@sh deps/install.sh bench
	@$(MAKE) --no-print-directory bench-programs
	@tclsh utils/bench/run.tcl $(ARGS)

# Versions of clang-format disagree in details, so one of them decides: that of Debian 12. Another one is not asked.
FORMAT_MAJOR := 14
IS_FORMAT_MAJOR = clang-format --version | grep -q 'version $(FORMAT_MAJOR)\.'

# cppcheck reads neither OpenSSL's headers, so it is told the version, nor cmocka's: it takes a test that skips or fails
# for one that goes on, and finds faults that are none. The sanitizers look at those.
CPPCHECK_FILES := $(filter-out tests/c/%,$(filter %.c,$(C_FILES)))

lint: ## clang-format check, cppcheck, shellcheck, license lines, line lengths, links, how module and probe are built
	@sh deps/install.sh lint
	@echo "lint: clang-format" && if $(IS_FORMAT_MAJOR); then clang-format --dry-run --Werror $(C_FILES); else \
	    echo "lint: the sources are formatted with clang-format $(FORMAT_MAJOR), which is not installed: not checked"; fi
	@echo "lint: cppcheck" && cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --error-exitcode=1 -j 2 \
	    -DOPENSSL_VERSION_MAJOR=3 -Ideps -Isrc $(CPPCHECK_FILES)
	@echo "lint: shellcheck" && shellcheck $(wildcard $(SCRIPTS))
	@echo "lint: license lines and lengths" && sh utils/check-files
	@echo "lint: the documentation's links and table of directives" && tclsh utils/check-links && \
	    tclsh utils/directives.tcl check
	@echo "lint: the list of mutants follows the engine" && tclsh tests/mutants/run.tcl --check
	@$(MAKE) --no-print-directory all
	@echo "lint: hardening and exported symbols" && sh utils/check-built $(MODULE) $(PROBE)
	@echo "lint: lengths of functions, and calls between floors" && \
	    tclsh utils/check-code $(ENGINE_OBJECTS) $(call object,$(MODULE_HOST))

# dot writes its version into a comment of two lines, which would change from machine to machine.
docs: ## write what is generated: the drawing in docs/design.svg from docs/design.dot, the README's table of directives
	@sh deps/install.sh docs
	@tclsh utils/directives.tcl write
	@mkdir -p build
	@echo "  draw    docs/design.svg"
	$(Q)dot -Tsvg docs/design.dot >build/design.svg
	$(Q)sed '/^<!-- Generated by graphviz/,/-->$$/d' build/design.svg >docs/design.svg

format: ## rewrite the C sources in the project's style
	@sh deps/install.sh lint
	@$(IS_FORMAT_MAJOR) || { echo "make format: needs clang-format $(FORMAT_MAJOR), which Debian 12 has" >&2; exit 1; }
	clang-format -i $(C_FILES)

install: all ## copy the module to DESTDIR/MODULEDIR and the probe to DESTDIR/BINDIR
	install -d $(DESTDIR)$(MODULEDIR) $(DESTDIR)$(BINDIR)
	install -m 755 $(MODULE) $(DESTDIR)$(MODULEDIR)/valkey-ocsp.so # the server refuses a module that is not executable
	install -m 755 $(PROBE) $(DESTDIR)$(BINDIR)/ocsp-probe
	@echo "In the server's configuration: loadmodule $(MODULEDIR)/valkey-ocsp.so"

uninstall: ## take both away again
	rm -f $(DESTDIR)$(MODULEDIR)/valkey-ocsp.so $(DESTDIR)$(BINDIR)/ocsp-probe

hooks: ## run `make lint` before every commit in this clone
	git config core.hooksPath utils/git-hooks
	@echo "To switch it off again: git config --unset core.hooksPath"

patch: ## put stapling into a Valkey source tree: make patch VALKEY=DIR (utils/valkey-patch can undo it)
	@[ -n "$(VALKEY)" ] || { echo "make patch: say where the tree is: make patch VALKEY=/path/to/valkey" >&2; exit 1; }
	@tclsh utils/valkey-patch apply "$(VALKEY)"

clean: ## remove everything that was built
	rm -rf build $(MODULE) $(PROBE)

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

-include $(wildcard $(B)/src/*.d $(B)/utils/*.d $(B)/utils/*/*.d $(B)/tests/*/*.d build/fuzz/*/*.d build/fuzz/*/*/*.d)
