# Makefile - build, demo, install. `make help` lists the targets of this file, of tests/rules.mk (tests, linters) and of
# utils/bench/rules.mk (benchmarks).
#
# Output: src/valkey-ocsp.so (the module), utils/ocsp-probe, and everything else in build/. None of it is committed.
# Variables: CC, CFLAGS, LDFLAGS; SAN=address|thread|undefined for `make test`; OPENSSL=/prefix to build against another
# OpenSSL than the system's; ARGS="..." for Tcl and benchmark; V=1 to print commands; DESTDIR, MODULEDIR, BINDIR,
# MANDIR, PREFIX, LIBDIR.
#
# SPDX-License-Identifier: BSD-3-Clause

CC ?= cc
CFLAGS ?= -O2 -g
LDFLAGS ?=
OBJCOPY ?= objcopy
DESTDIR ?=
# Debian's packaged unit lets the server execute files under /usr/lib only, so a module under /usr/local does not load.
MODULEDIR ?= /usr/lib/valkey/modules
BINDIR ?= /usr/local/bin
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
MANDIR ?= $(PREFIX)/share/man
SAN ?=
ARGS ?=
# Each step prints a word and a file; V=1 prints the command.
Q := $(if $(V),,@)

# ---- sources and flags --------------------------------------------------------------------------------------------

# The engine is every src/ocsp_*.c except what calls it: the module, and for a patched tree ocsp_builtin.c (the server)
# and ocsp_tools.c (valkey-cli).
MODULE_HOST := $(sort $(wildcard src/ocsp_module*.c))
HOSTS := $(MODULE_HOST) src/ocsp_builtin.c src/ocsp_tools.c
ENGINE := $(filter-out $(HOSTS),$(sort $(wildcard src/ocsp_*.c)))
MODULE := src/valkey-ocsp.so
PROBE := utils/ocsp-probe
# What a TLS client in C needs to check a server's staple.
CLIENT_PARTS := client verify signer identity der config util time

ifeq ($(SAN),)
B := build
SAN_FLAGS :=
else ifneq ($(filter $(SAN),address thread undefined),)
# Objects with a sanitizer have their own directory.
B := build/san-$(SAN)
SAN_FLAGS := -fsanitize=$(SAN) -fno-omit-frame-pointer -O1
ifeq ($(SAN),undefined)
SAN_FLAGS += -fno-sanitize-recover=all
endif
else
$(error SAN=$(SAN) is not supported: use SAN=address, SAN=thread or SAN=undefined)
endif

ifneq ($(OPENSSL),)
OPENSSL_LIB := $(firstword $(wildcard $(OPENSSL)/lib64 $(OPENSSL)/lib))
OPENSSL_CPPFLAGS := -I$(OPENSSL)/include
OPENSSL_LDFLAGS := -L$(OPENSSL_LIB) -Wl,-rpath,$(OPENSSL_LIB)
endif

override CPPFLAGS += -Ideps -Isrc $(OPENSSL_CPPFLAGS)
WARN := -Wall -Wextra -Wno-missing-field-initializers -Werror

# Hardening as in Debian's package builds. Not with a sanitizer, which has its own checks; FORTIFY requires
# optimization. Set HARDEN= to turn it off.
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
CLIENT_LIBRARY := $(B)/libocsp-staple.a
.DEFAULT_GOAL := all
.SUFFIXES:
.SECONDARY:
.DELETE_ON_ERROR:
.PHONY: all module probe client-library demo run install install-dev uninstall deb rpm patch clean help

all: module probe client-library ## build the module, the probe and the library for clients (default)
	@: # suppresses make's message "Nothing to be done"

module: $(MODULE) ## build src/valkey-ocsp.so only

probe: $(PROBE) ## build utils/ocsp-probe only

# Checked once, before anything is compiled, so that a missing header is reported in one sentence.
build/openssl-ok:
	@mkdir -p build
	@echo '#include <openssl/opensslv.h>' >build/openssl.c
	@$(CC) $(CPPFLAGS) -E build/openssl.c >/dev/null 2>&1 || { \
	    echo "make: OpenSSL's headers (or the compiler $(CC)) are missing. Run: sh deps/install.sh build" >&2; exit 1; }
	@echo '#if !defined(OPENSSL_VERSION_MAJOR) || OPENSSL_VERSION_MAJOR < 3' >>build/openssl.c
	@printf '#error\n#endif\n' >>build/openssl.c
	@$(CC) $(CPPFLAGS) -E build/openssl.c >/dev/null 2>&1 || { \
	    echo "make: OpenSSL's headers are older than 3.0. Install OpenSSL 3.0 or later (Debian 12 and 13 have it)," \
	         "or name its prefix: make OPENSSL=/opt/openssl" >&2; exit 1; }
	@rm -f build/openssl.c
	@touch $@

$(B)/%.o: %.c | build/openssl-ok
	@mkdir -p $(@D)
	@echo "  compile $<"
	$(Q)$(COMPILE) -c -o $@ $<

# -z defs: a symbol that is not in libssl, libcrypto or libc would be missing in the server, too.
$(MODULE): $(ENGINE_OBJECTS) $(call object,$(MODULE_HOST))
	@echo "  link    $@"
	$(Q)$(LINK) -shared -Wl,-z,defs -o $@ $^ $(LIBS)

# Archives, so that the probe and each unit test are linked with the files that they use, and with no others.
$(LIBRARY): $(ENGINE_OBJECTS)
$(LIBRARY) $(B)/libtest.a:
	@rm -f $@
	$(Q)$(AR) rcs $@ $^

$(PROBE): $(call object,utils/ocsp-probe.c utils/ocsp-nodes.c) $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -pie -o $@ $^ $(LIBS)

# One object, in which only the functions of ocsp_staple.h are visible.
$(CLIENT_LIBRARY): $(foreach part,$(CLIENT_PARTS),$(B)/src/ocsp_$(part).o)
	@echo "  archive $@"
	$(Q)$(LD) -r -o $(B)/ocsp-staple.o $^
	$(Q)$(OBJCOPY) --wildcard --keep-global-symbol='ocspStaple*' $(B)/ocsp-staple.o
	@rm -f $@
	$(Q)$(AR) rcs $@ $(B)/ocsp-staple.o

client-library: $(CLIENT_LIBRARY) ## build libocsp-staple.a: the check of a server's staple for TLS clients in C
	@: # suppresses make's message "Nothing to be done"

install-dev: client-library ## install libocsp-staple.a and its header to DESTDIR/LIBDIR and DESTDIR/PREFIX
	install -d $(DESTDIR)$(LIBDIR) $(DESTDIR)$(PREFIX)/include
	install -m 644 $(CLIENT_LIBRARY) $(DESTDIR)$(LIBDIR)/libocsp-staple.a
	install -m 644 src/ocsp_staple.h $(DESTDIR)$(PREFIX)/include/ocsp_staple.h

demo: ## install missing packages, build, and show stapling on a stock server, including a revocation
	@sh deps/install.sh run || echo "make demo: going on with what is installed" >&2
	@$(MAKE) --no-print-directory all
	@sh utils/ocsp-demo

run: ## like demo, but keep the server running until Ctrl-C, with commands to try
	@sh deps/install.sh run
	@$(MAKE) --no-print-directory all
	@sh utils/ocsp-demo --stay

install: all ## install the module to DESTDIR/MODULEDIR, the probe to DESTDIR/BINDIR, man pages to DESTDIR/MANDIR
	install -d $(DESTDIR)$(MODULEDIR) $(DESTDIR)$(BINDIR) $(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man7
	install -m 755 $(MODULE) $(DESTDIR)$(MODULEDIR)/valkey-ocsp.so # the server refuses a module that is not executable
	install -m 755 $(PROBE) $(DESTDIR)$(BINDIR)/ocsp-probe
	install -m 644 docs/man/ocsp-probe.1 $(DESTDIR)$(MANDIR)/man1/ocsp-probe.1
	install -m 644 docs/man/valkey-ocsp.7 $(DESTDIR)$(MANDIR)/man7/valkey-ocsp.7
	@echo "Add to the server's configuration: loadmodule $(MODULEDIR)/valkey-ocsp.so"

uninstall: ## remove what install and install-dev installed
	rm -f $(DESTDIR)$(MODULEDIR)/valkey-ocsp.so $(DESTDIR)$(BINDIR)/ocsp-probe
	rm -f $(DESTDIR)$(MANDIR)/man1/ocsp-probe.1 $(DESTDIR)$(MANDIR)/man7/valkey-ocsp.7
	rm -f $(DESTDIR)$(LIBDIR)/libocsp-staple.a $(DESTDIR)$(PREFIX)/include/ocsp_staple.h

deb: ## build the Debian packages valkey-ocsp, ocsp-probe and libocsp-staple-dev in build/deb, and check them with lintian
	@sh deps/install.sh package
	@sh utils/packaging/build-deb build/deb

rpm: ## build RPM packages in build/rpm, and check them with rpmlint
	@sh deps/install.sh package
	@sh utils/packaging/build-rpm build/rpm

patch: ## add stapling to a Valkey source tree: VALKEY=DIR (to undo: utils/valkey-patch revert DIR)
	@[ -n "$(VALKEY)" ] || { echo "make patch: name the source tree: make patch VALKEY=/path/to/valkey" >&2; exit 1; }
	@tclsh utils/valkey-patch apply "$(VALKEY)"

clean: ## remove all build output
	rm -rf build $(MODULE) $(PROBE)

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(filter Makefile %.mk,$(MAKEFILE_LIST))

include tests/rules.mk
-include utils/bench/rules.mk

-include $(wildcard $(B)/src/*.d $(B)/utils/*.d $(B)/utils/*/*.d $(B)/tests/*/*.d build/fuzz/*/*.d build/fuzz/*/*/*.d)
