# rules.mk - build and run the benchmarks. Included by the Makefile.
#
# SPDX-License-Identifier: BSD-3-Clause

BENCH_LOADED := $(B)/bench_minimal.so $(B)/bench_bad_disk.so $(B)/bench_empty.so
BENCH_PROGRAMS := $(B)/bench_load $(B)/bench_callback $(B)/bench_requests $(BENCH_LOADED)

$(B)/bench_%: $(B)/utils/bench/%.o $(LIBRARY)
	@echo "  link    $@"
	$(Q)$(LINK) -o $@ $^ $(LIBS)

# Loaded by a server: their functions must be exported.
$(BENCH_LOADED): $(B)/bench_%.so: utils/bench/%.c
	@echo "  link    $@"
	$(Q)$(CC) -std=gnu11 $(CPPFLAGS) $(CFLAGS) $(WARN) -shared -fPIC -o $@ $< -ldl

.PHONY: bench bench-programs
bench-programs: all $(BENCH_PROGRAMS)

bench: ## compare stapling with nginx, HAProxy, Apache and Redis, tables and plots (12 minutes; ARGS=--quick: 2)
	@sh deps/install.sh bench
	@$(MAKE) --no-print-directory bench-programs
	@tclsh utils/bench/run.tcl $(ARGS)
