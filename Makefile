# Makefile - building, trying, installing. `make help` lists these verbs and those of tests/rules.mk (tests, linters) and
# utils/bench/rules.mk (benchmarks).
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
.DEFAULT_GOAL := all
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all module probe demo run install uninstall patch clean help

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

# Archives, so that the probe and each unit test are linked with the files that they use, and with no others.
$(LIBRARY): $(ENGINE_OBJECTS)
$(LIBRARY) $(B)/libtest.a:
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(PROBE): $(call object,utils/ocsp-probe.c) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -pie -o $@ $^ $(LIBS)

demo: ## install what is missing, build, and show stapling on a stock server, to a revocation and back down
	@sh deps/install.sh run
	@$(MAKE) --no-print-directory all
	@sh utils/ocsp-demo

run: ## as demo, but stay up until Ctrl-C and print what to try
	@sh deps/install.sh run
	@$(MAKE) --no-print-directory all
	@sh utils/ocsp-demo --stay

install: all ## copy the module to DESTDIR/MODULEDIR and the probe to DESTDIR/BINDIR
	install -d $(DESTDIR)$(MODULEDIR) $(DESTDIR)$(BINDIR)
	install -m 755 $(MODULE) $(DESTDIR)$(MODULEDIR)/valkey-ocsp.so # the server refuses a module that is not executable
	install -m 755 $(PROBE) $(DESTDIR)$(BINDIR)/ocsp-probe
	@echo "In the server's configuration: loadmodule $(MODULEDIR)/valkey-ocsp.so"

uninstall: ## remove both
	rm -f $(DESTDIR)$(MODULEDIR)/valkey-ocsp.so $(DESTDIR)$(BINDIR)/ocsp-probe

patch: ## put stapling into a Valkey source tree: make patch VALKEY=DIR (utils/valkey-patch can undo it)
	@[ -n "$(VALKEY)" ] || { echo "make patch: say where the tree is: make patch VALKEY=/path/to/valkey" >&2; exit 1; }
	@tclsh utils/valkey-patch apply "$(VALKEY)"

clean: ## remove everything that was built
	rm -rf build $(MODULE) $(PROBE)

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(filter Makefile %.mk,$(MAKEFILE_LIST))

include tests/rules.mk
-include utils/bench/rules.mk

-include $(wildcard $(B)/src/*.d $(B)/utils/*.d $(B)/utils/*/*.d $(B)/tests/*/*.d build/fuzz/*/*.d build/fuzz/*/*/*.d)
