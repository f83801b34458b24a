# rules.mk - build and run tests, fuzzers, simulations and linters. Included by the Makefile, which documents the
# variables.
#
# SPDX-License-Identifier: BSD-3-Clause

UNIT := $(sort $(wildcard tests/c/test_*.c))
UNIT_SHARED := $(filter-out $(UNIT),$(sort $(wildcard tests/c/*.c)))
UNIT_PROGRAMS := $(patsubst tests/c/%.c,$(B)/%,$(UNIT)) $(B)/fuzz-replay

comma := ,

.PHONY: unit test lint format docs hooks test-programs

# See tests/c/counted.c.
COUNTED := $(foreach name,OCSP_basic_verify X509_verify OCSP_cert_to_id OCSP_response_get1_basic,-Wl$(comma)--wrap=$(name))

UNIT_LIBRARY := $(B)/libtest.a
$(UNIT_LIBRARY): $(call object,$(UNIT_SHARED) utils/ocsp-nodes.c)

$(B)/test_%: $(B)/tests/c/test_%.o $(UNIT_LIBRARY) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) $(COUNTED) -o $@ $< -Wl,--start-group $(UNIT_LIBRARY) $(LIBRARY) -Wl,--end-group -lcmocka $(LIBS)

# They take what an OpenSSL before 3.6 cannot send.
$(B)/test_chain $(B)/test_alloc: COUNTED += -Wl,--wrap=SSL_ctrl

# Its clock is the test's: the client's check asks time() itself.
$(B)/test_client: COUNTED += -Wl,--wrap=time

unit: $(UNIT_PROGRAMS) ## build and run the C unit tests only
	@SAN=$(SAN) sh tests/all.sh unit $(UNIT_PROGRAMS)

# Missing packages are installed first; a second make then builds, because only then the headers exist.
ifeq ($(SAN),)
test: ## install missing packages, build, run all tests; SAN=address|thread|undefined: the C tests, sanitized
	@sh deps/install.sh test || echo "make test: going on with what is installed" >&2
	@$(MAKE) --no-print-directory all $(B)/simulate
	@if echo '#include <cmocka.h>' | $(CC) -E - >/dev/null 2>&1; then $(MAKE) --no-print-directory test-programs; fi
	@sh tests/all.sh all $(UNIT_PROGRAMS) -- $(ARGS)
else
test:
	@sh deps/install.sh test
	@$(MAKE) --no-print-directory SAN=$(SAN) unit
endif

test-programs: all $(UNIT_PROGRAMS) $(B)/simulate

# ---- fuzzing and the model ----------------------------------------------------------------------------------------

FUZZ := $(sort $(wildcard tests/fuzz/*.c))
FUZZ_FLAGS := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all

# connect() and SSL_ctrl are replaced in these two programs, see tests/fuzz/http.c and tests/fuzz/chain.c.
FUZZ_WRAPS := -Wl,--wrap=connect -Wl,--wrap=SSL_ctrl $(COUNTED)
FUZZ_SHARED := tests/c/support.c tests/c/reply.c tests/c/counted.c utils/ocsp-nodes.c
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

fuzz: ## fuzz the engine's parsers for TIME seconds in total (default 300); findings are in build/fuzz/findings
	@sh deps/install.sh fuzz
	@$(MAKE) --no-print-directory fuzz-programs
	@TIME=$(or $(TIME),300) sh tests/fuzz/run

model: ## explore the slot's model exhaustively, and show that it detects faults
	@sh deps/install.sh model
	@sh tests/model/run

# ---- the simulation -----------------------------------------------------------------------------------------------

# The unmodified engine; the linker replaces threads, files and signature checks by simulated ones.
SIM_OBJECTS := $(call object,$(sort $(wildcard tests/simulation/*.c)) tests/c/reply.c)
SIM_WRAPS := d2i_OCSP_RESPONSE OCSP_response_get1_basic OCSP_basic_verify X509_verify ocspAttachContext \
    pthread_create pthread_join pthread_mutex_lock pthread_mutex_trylock pthread_mutex_unlock open close read write \
    fsync fchmod rename unlink unlinkat fstat stat lstat fstatat opendir readdir closedir dirfd ocspSetReport \
    ocspPeekNextUpdate ocspServePush ocspFillReport SSL_ctrl
YEARS ?= 1000

$(B)/simulate: $(SIM_OBJECTS) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) $(foreach name,$(SIM_WRAPS),-Wl$(comma)--wrap=$(name)) -o $@ $^ $(LIBS) -lm

simulate: ## simulate years of outages, clock jumps and restarts: YEARS=1000, ARGS="--seed N"
	@sh deps/install.sh build
	@$(MAKE) --no-print-directory $(B)/simulate
	@$(B)/simulate --self-test
	@$(B)/simulate --years $(YEARS) $(ARGS)

# ---- the fleet ----------------------------------------------------------------------------------------------------

$(B)/fleet-run: $(call object,$(sort $(wildcard tests/fleet/*.c)) tests/c/support.c tests/c/reply.c) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -o $@ $^ -lcmocka $(LIBS)

fleet: ## simulate 100,000 servers for four weeks; table and plot of requests per minute at their CA; ARGS="--seed N"
	@sh deps/install.sh fleet
	@$(MAKE) --no-print-directory $(B)/fleet-run
	@mkdir -p build/fleet
	@$(B)/fleet-run --out build/fleet $(ARGS) || bad=1; cd build/fleet && gnuplot ../../tests/fleet/plot.gp && \
	    echo "table and plot: build/fleet/table.txt, build/fleet/fleet.svg"; exit $${bad:-0}

# ---- mutants ------------------------------------------------------------------------------------------------------

.PHONY: mutants
mutants: ## break the engine's rules one at a time; a test has to fail on each; ARGS="'verify-*'" selects some
	@sh deps/install.sh test model
	@tclsh tests/mutants/run.tcl $(ARGS)

# ---- servers ------------------------------------------------------------------------------------------------------

# MATRIX_ROOTS is the directory of the roots (default: in the user's cache directory), MATRIX_MIRROR their Debian
# mirror. ARCH=arm64 runs part of the suites on an emulated arm64 instead.
.PHONY: test-matrix matrix-clean
test-matrix: ## run suites and packages on Debian 12, 13, testing, C tests with OpenSSL 3.5 to 4; ARCH=arm64: emulated; needs root
	@sh deps/install.sh $(if $(ARCH),matrix arm64,matrix test package)
	@tclsh tests/matrix/run.tcl $(if $(ARCH),--arch $(ARCH)) $(ARGS)

matrix-clean: ## remove the roots of test-matrix
	@sh tests/matrix/root clean

.PHONY: kills soak
kills: ## kill a server KILLS=500 times and fail every allocation; takes hours (ALLOCATIONS=300: half an hour)
	@sh deps/install.sh test
	@$(MAKE) --no-print-directory all $(B)/test_alloc
	@FAULT_STRIDE=1 $(B)/test_alloc
	@FAULT_KILLS=$(or $(KILLS),500) FAULT_ALLOCATIONS=$(or $(ALLOCATIONS),all) \
	    tclsh tests/run.tcl --single unit/ocsp-faults $(ARGS)

soak: ## run everything at once for MINUTES=60; memory, descriptors, threads must not grow; plot in build/soak/soak.svg
	@sh deps/install.sh soak
	@$(MAKE) --no-print-directory all
	@tclsh tests/soak/soak.tcl --minutes $(or $(MINUTES),60) $(ARGS)

.PHONY: test-monitoring
test-monitoring: ## fire each alert in a real Prometheus, run the dashboard's queries, draw build/monitoring/monitoring.svg
	@sh deps/install.sh monitoring
	@$(MAKE) --no-print-directory all
	@OCSP_PICTURES=$(CURDIR)/build/monitoring tclsh tests/run.tcl --silence 400 --single unit/ocsp-monitoring $(ARGS)

# ---- style ---------------------------------------------------------------------------------------------------------

SCRIPTS := deps/install.sh .ci/run tests/all.sh utils/check-built utils/check-files utils/check-kubernetes utils/ocsp-demo \
    $(wildcard utils/git-hooks/*) tests/fuzz/run tests/model/run tests/matrix/root tests/support/under_unit \
    tests/support/under_pod tests/support/scratch_root utils/packaging/build-deb utils/packaging/build-rpm \
    $(wildcard utils/packaging/debian/*.p*)
# Parts of patches, which are compiled in a Valkey tree: see utils/series.
PATCH_FILES := $(sort $(wildcard src/unit/*.c src/unit/*.cpp utils/series/*/*.[ch]))
C_FILES := $(sort $(wildcard src/*.[ch] deps/*.h utils/*.[ch] utils/*/*.[ch] tests/*/*.[ch]))

# Versions of clang-format differ in details, so only that of Debian 12 is used.
FORMAT_MAJOR := 14
IS_FORMAT_MAJOR = clang-format --version | grep -q 'version $(FORMAT_MAJOR)\.'

# cppcheck does not read OpenSSL's headers, so the version is defined here. It does not read cmocka's either: unaware
# that a skipped or failed test ends there, it reports false positives. Tests are checked by the sanitizers instead.
CPPCHECK_FILES := $(filter-out tests/c/%,$(filter %.c,$(C_FILES)))

lint: ## run clang-format, cppcheck and shellcheck; check man pages, license lines, links, mutants and hardening
	@sh deps/install.sh lint
	@echo "lint: clang-format" && if $(IS_FORMAT_MAJOR); then clang-format --dry-run --Werror $(C_FILES) $(PATCH_FILES); else \
	    echo "lint: clang-format $(FORMAT_MAJOR) is not installed: formatting not checked"; fi
	@echo "lint: cppcheck" && cppcheck --quiet --std=c11 --enable=warning,performance,portability --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches --error-exitcode=1 -j 2 \
	    -DOPENSSL_VERSION_MAJOR=3 -Ideps -Isrc $(CPPCHECK_FILES)
	@echo "lint: shellcheck" && shellcheck $(wildcard $(SCRIPTS))
	@echo "lint: license lines and lengths" && sh utils/check-files
	@echo "lint: the documentation's links and its tables of directives and error codes" && tclsh utils/check-links && \
	    tclsh utils/directives.tcl check && tclsh utils/error-codes.tcl
	@echo "lint: manual pages" && tclsh utils/man-pages.tcl check && \
	    if ! command -v mandoc >/dev/null; then echo "lint: mandoc is not installed: the pages' form not checked"; \
	    elif mandoc -T lint $(wildcard docs/man/*) 2>/dev/null | grep -v 'STYLE: referenced manual not found'; then \
	    exit 1; fi
	@echo "lint: the example for Kubernetes" && sh utils/check-kubernetes
	@echo "lint: the list of mutants matches the engine" && tclsh tests/mutants/run.tcl --check
	@$(MAKE) --no-print-directory all
	@echo "lint: hardening and exported symbols" && sh utils/check-built $(MODULE) $(PROBE)
	@echo "lint: function lengths, and calls between floors" && \
	    tclsh utils/check-code $(ENGINE_OBJECTS) $(call object,$(MODULE_HOST))

format: ## rewrite the C sources in the project's style
	@sh deps/install.sh lint
	@$(IS_FORMAT_MAJOR) || { echo "make format: needs clang-format $(FORMAT_MAJOR), which Debian 12 has" >&2; exit 1; }
	clang-format -i $(C_FILES) $(PATCH_FILES)

# The sed removes dot's comment with its version, which differs between machines.
docs: ## generate docs/design.svg from docs/design.dot, the README's table of directives, and lists in the man pages
	@sh deps/install.sh docs
	@tclsh utils/directives.tcl write
	@tclsh utils/man-pages.tcl write
	@mkdir -p build
	@echo "  draw    docs/design.svg"
	$(Q)dot -Tsvg docs/design.dot >build/design.svg
	$(Q)sed '/^<!-- Generated by graphviz/,/-->$$/d' build/design.svg >docs/design.svg

hooks: ## enable git hooks in this clone: `make lint` before every commit, and a check of the commit message
	git config core.hooksPath utils/git-hooks
	@echo "To disable the hooks: git config --unset core.hooksPath"
