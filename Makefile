# SPDX-License-Identifier: MIT
# Steady. `make run` and `make test` do everything on a fresh Debian or Ubuntu; `make help` lists the rest.
# Settings: CC CFLAGS LDFLAGS BUILD PREFIX LIBDIR DESTDIR. TLS=no builds without OpenSSL, HIREDIS=no without
# libsteady-hiredis, SERVE=no without the daemon. V=1 shows the commands. SETUP=no installs no packages.
.DEFAULT_GOAL := all
BUILD  ?= build

# build/settings records the settings of the last build: CC as BUILT_CC, and so on. `make install` uses them, unless
# they are set again. So it installs what was built.
HASH     := \#
SETTINGS := CC CFLAGS LDFLAGS TLS HIREDIS SERVE MACHINE CAS_16 NEEDED HIREDIS_CFLAGS HIREDIS_LIBS TLS_CFLAGS TLS_LIBS
GIVEN    := CC CFLAGS LDFLAGS TLS HIREDIS SERVE
$(eval $(file <$(BUILD)/settings))
ifdef BUILT_CC
ifneq ($(filter install,$(MAKECMDGOALS))$(AS_BUILT),)
$(foreach s,$(GIVEN),$(if $(filter undefined default,$(origin $s)),$(eval $s := $$(BUILT_$s))))
ifeq ($(foreach s,$(GIVEN),[$(strip $($s))]),$(foreach s,$(GIVEN),[$(strip $(BUILT_$s))]))
KNOWN    := yes
endif
endif
endif

PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
CFLAGS ?= -O2 -g
CLANG  ?= clang
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
Q      := $(if $(V),,@)
SAY     = @printf '  %-5s %s\n'
SUB     = $(MAKE) --no-print-directory $(if $(findstring j,$(MAKEFLAGS)),,-j$(JOBS))

VERSION := $(shell sed -n 's/^.define STEADY_VERSION "\(.*\)"/\1/p' include/steady.h)
SONAME  := libsteady.so.0
HIREDIS_SONAME := libsteady-hiredis.so.0

# The compiler decides the target. For another machine, ar and pkg-config of that target are used, or no pkg-config.
MACHINE := $(or $(if $(KNOWN),$(BUILT_MACHINE)),$(shell $(CC) $(CFLAGS) -dumpmachine 2>/dev/null),$(shell uname -m))
ARCH    := $(firstword $(subst -, ,$(MACHINE)))
ifneq ($(ARCH),$(shell uname -m))
of_target = $(shell command -v $(MACHINE)-$(1) 2>/dev/null)
AR      := $(if $(filter default,$(origin AR)),$(or $(call of_target,ar),$(AR)),$(AR))
PKG_CONFIG ?= $(or $(call of_target,pkg-config),false)
endif
PKG_CONFIG ?= pkg-config
pkg      = $(shell $(PKG_CONFIG) $(1) 2>/dev/null)

# Flags that are always used, beside CFLAGS. The hardening follows the OpenSSF guide, and tests/test_hardening.py checks
# it in the files. Three flags of the guide are left out:
#   -ftrivial-auto-var-init   slows a decision down
#   -fstrict-flex-arrays      gcc 12 does not know it
#   -z nodlopen               has no effect on a program, and is wrong for libraries that servers and languages load
WARN   := -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef \
          -Werror=format-security -Werror=implicit -Werror=incompatible-pointer-types -Werror=int-conversion
# With -fno-strict-overflow UBSan would miss overflows, so sanitized builds omit these flags.
HARDEN_UNSANITIZED := -fno-strict-overflow $(if $(filter -O1 -O2 -O3 -Os,$(CFLAGS)),-U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3)
HARDEN := -fstack-protector-strong -fstack-clash-protection -fno-delete-null-pointer-checks \
          $(if $(filter x86_64,$(ARCH)),-fcf-protection=full) $(if $(filter aarch64,$(ARCH)),-mbranch-protection=standard) \
          -fno-strict-aliasing $(if $(filter -fsanitize=%,$(CFLAGS)),,$(HARDEN_UNSANITIZED))
WIDE   := $(if $(filter x86_64,$(ARCH)),-mcx16)
NEEDED := -std=c11 -D_GNU_SOURCE $(WARN) $(HARDEN) $(WIDE) -pthread
LINK    = $(CC) $(CFLAGS) -pthread -Wl,-z,relro,-z,now,-z,noexecstack,--as-needed $(LDFLAGS)

# OpenSSL 3 is used if the compiler finds it. TLS=no builds without it.
ifeq ($(origin TLS),undefined)
FIND_TLS := '$(HASH)include <openssl/ssl.h>\n$(HASH)if OPENSSL_VERSION_MAJOR < 3\n$(HASH)error\n$(HASH)endif\n'
TLS := $(or $(shell printf $(FIND_TLS) | $(CC) $(CFLAGS) $(call pkg,--cflags libssl) -E - >/dev/null 2>&1 && echo yes),no)
endif
TLS_PKGS := $(if $(filter-out no,$(TLS)),libssl libcrypto)
ifdef KNOWN
$(foreach s,HIREDIS_CFLAGS HIREDIS_LIBS TLS_CFLAGS TLS_LIBS,$(eval $s := $$(BUILT_$s)))
else
HIREDIS_CFLAGS := $(call pkg,--cflags hiredis)
HIREDIS_LIBS   := $(or $(call pkg,--libs hiredis),-lhiredis)
TLS_CFLAGS     := $(if $(TLS_PKGS),$(call pkg,--cflags $(TLS_PKGS)))
TLS_LIBS       := $(if $(TLS_PKGS),$(or $(call pkg,--libs $(TLS_PKGS)),-lssl -lcrypto))
endif
LIBS := $(TLS_LIBS)

# libsteady-hiredis is built if the compiler finds hiredis, header and library. libsteady does not need hiredis.
ifeq ($(origin HIREDIS),undefined)
FIND_HIREDIS := 'int main(void) { redisFree(0); return 0; }\n'
HIREDIS := $(or $(shell printf $(FIND_HIREDIS) | $(CC) $(CFLAGS) $(HIREDIS_CFLAGS) -include hiredis/hiredis.h -x c - \
                    -o /dev/null $(LDFLAGS) $(HIREDIS_LIBS) >/dev/null 2>&1 && echo yes),no)
endif
WITH_HIREDIS := $(filter-out no,$(HIREDIS))

# steadyd, the daemon of `steady serve`, is built if pkg-config finds all its libraries. Nothing else needs them.
SERVE_PKGS := libuv libnghttp2 yaml-0.1 jansson libprotobuf-c libsodium
ifeq ($(origin SERVE),undefined)
SERVE := $(or $(shell $(PKG_CONFIG) --exists $(SERVE_PKGS) 2>/dev/null && command -v protoc-c >/dev/null && echo yes),no)
endif
WITH_SERVE := $(filter-out no,$(SERVE))
SERVE_CFLAGS := $(if $(WITH_SERVE),$(call pkg,--cflags $(SERVE_PKGS)))
SERVE_LIBS   := $(if $(WITH_SERVE),$(call pkg,--libs $(SERVE_PKGS)))
TEST_PKGS      := cmocka jansson libuv libevent lua5.1 libsodium
TEST_CFLAGS    := $(foreach p,$(TEST_PKGS),$(call pkg,--cflags $p))
TEST_LIBS      := $(HIREDIS_LIBS) $(foreach p,$(TEST_PKGS),$(call pkg,--libs $p)) -lev -lm -ldl

obj   = $(patsubst %.c,$(BUILD)/obj/%.o,$(wildcard $(1)))
BRIDGE := $(call obj,src/hiredis/*.c)
# The embedded store needs a 16-byte compare-and-swap, which 32-bit processors do not have.
CAS_16 := $(if $(KNOWN),$(BUILT_CAS_16),$(or $(if $(filter aarch64,$(ARCH)),yes),$(shell echo | $(CC) $(CFLAGS) $(WIDE) -dM -E - \
              2>/dev/null | grep -q 'HAVE_SYNC_COMPARE_AND_SWAP_16' && echo yes),no))
LOCAL_SRC := %/local/local_store.o %/local/local_group.o %/local/table.o %/local/region.o
SRC  := $(filter-out %/$(if $(TLS_PKGS),tls_none,tls).o $(if $(filter yes,$(CAS_16)),%/local_none.o,$(LOCAL_SRC)) $(BRIDGE),$(call obj,src/*.c src/*/*.c))
CLI  := $(call obj,cli/*.c)
# tests/prog_X.c is a program that tests start. The tests share all other files that are not tests.
UNIT := $(patsubst tests/%.c,$(BUILD)/test/%,$(wildcard tests/unit_*.c))
LIVE := $(patsubst tests/%.c,$(BUILD)/test/%,$(wildcard tests/live_*.c))
PROG := $(patsubst tests/%.c,$(BUILD)/test/%,$(wildcard tests/prog_*.c))
ifeq ($(TLS_PKGS),)
UNIT := $(filter-out %tls,$(UNIT))
LIVE := $(filter-out %tls,$(LIVE))
endif
# These tests see the inside of the daemon.
OF_DAEMON := $(addprefix $(BUILD)/test/unit_,http1 top rules rules_match log_time formats input reorder keys series)
OF_DAEMON += $(BUILD)/test/unit_report $(BUILD)/test/prog_report
ifeq ($(WITH_SERVE),)
UNIT := $(filter-out $(OF_DAEMON),$(UNIT))
PROG := $(filter-out $(OF_DAEMON),$(PROG))
endif
HELP := $(filter-out $(call obj,tests/unit_*.c tests/live_*.c tests/prog_*.c tests/vectors.c) \
          $(if $(TLS_PKGS),,%/tls_server.o),$(call obj,tests/*.c))
FAULTS := $(patsubst tests/faults/%.c,$(BUILD)/faults/%,$(filter-out %_shim.c,$(wildcard tests/faults/*.c)))
BENCH := $(patsubst bench/%.c,$(BUILD)/bench/%,$(wildcard bench/*.c))
# Shared objects that servers load: modules for measurements and tests, and a shim for modules with ASan.
LOADED := $(BUILD)/floor.so $(BUILD)/other.so $(BUILD)/asan_shim.so $(BUILD)/boot_clock.so

INSTALLED := $(BUILD)/steady $(BUILD)/libsteady.so $(BUILD)/libsteady.a $(BUILD)/steady.so \
             $(if $(WITH_HIREDIS),$(BUILD)/libsteady-hiredis.so $(BUILD)/libsteady-hiredis.a) \
             $(if $(WITH_SERVE),$(BUILD)/steadyd)
all: $(INSTALLED) ## builds the command, the daemon, the library (static and shared) and the module
	$(NOTE_TLS)
	$(NOTE_HIREDIS)
	$(NOTE_SERVE)
NOTE_TLS = $(if $(TLS_PKGS),,@echo '*** TLS IS OFF: this build refuses rediss:// URLs. $(WHY_NO_TLS)')
WHY_NO_TLS = $(if $(filter file,$(origin TLS)),OpenSSL 3 was not found. Install it with: apt-get update && apt-get install -y libssl-dev,TLS=$(TLS) was set.)
NOTE_HIREDIS = $(if $(WITH_HIREDIS),,@echo '*** libsteady-hiredis is not built. $(WHY_NO_HIREDIS)')
WHY_NO_HIREDIS = $(if $(filter file,$(origin HIREDIS)),hiredis was not found. Install it with: apt-get update && apt-get install -y libhiredis-dev,HIREDIS=$(HIREDIS) was set.)
NOTE_SERVE = $(if $(WITH_SERVE),,@echo '*** The daemon (steady serve) is not built. $(WHY_NO_SERVE)')
WHY_NO_SERVE = $(if $(filter file,$(origin SERVE)),Run scripts/setup build serve to install its libraries.,SERVE=$(SERVE) was set.)
tests: all $(BUILD)/steady_test.so $(LOADED) $(BUILD)/demo $(UNIT) $(LIVE) $(PROG) $(if $(wildcard tests/vectors.c),$(BUILD)/vectors) ## builds the test programs
faulty: tests $(FAULTS) $(BUILD)/faults/clock_shim.so ## builds the programs of make faults
# These targets fuzz the daemon.
FUZZ_SERVE := rules rules_match http1 http2 resp grpc formats
FUZZ_SRC := $(filter-out $(if $(WITH_SERVE),,$(FUZZ_SERVE:%=fuzz/%.c)),$(wildcard fuzz/*.c))
everything: faulty $(BUILD)/sim $(BUILD)/hostile $(BENCH) $(EXAMPLES) $(patsubst fuzz/%.c,$(BUILD)/obj/fuzz/%.o,$(FUZZ_SRC))
EXAMPLES := $(filter-out $(if $(WITH_HIREDIS),,%/hiredis.o),$(call obj,examples/*.c))

# ---- Building ----

# Objects are rebuilt when a setting changes.
ifneq ($(foreach s,$(SETTINGS),[$(strip $($s))]),$(foreach s,$(SETTINGS),[$(strip $(BUILT_$s))]))
$(BUILD)/settings: force
endif
in_make  = $(subst $(HASH),\$(HASH),$(subst $$,$$$$,$(1)))
in_shell = '$(subst ','\'',$(1))'
$(BUILD)/settings:
	@mkdir -p $(@D)
	@printf '%s\n' $(foreach s,$(SETTINGS),$(call in_shell,BUILT_$s := $(call in_make,$(strip $($s))))) >$@

SCRIPTS = consume peek reset consume_all peek_all settle reset_all
$(BUILD)/scripts.h: scripts/embed-lua $(wildcard lua/*.lua)
	@mkdir -p $(@D)
	$(Q)scripts/embed-lua $(SCRIPTS:%=lua/%.lua) >$@

$(BUILD)/obj/src/%.o: OWN = -fPIC -fvisibility=hidden -Iinclude -Isrc -I$(BUILD) $(TLS_CFLAGS)
$(BUILD)/obj/src/hiredis/%.o: OWN = -fPIC -fvisibility=hidden -Iinclude $(HIREDIS_CFLAGS)
$(BUILD)/obj/module/%.o: OWN = -fPIC -fvisibility=hidden -Iinclude -Isrc
$(BUILD)/obj/test_clock/%.o: OWN = -fPIC -fvisibility=hidden -Iinclude -Isrc -DSTEADY_TEST_CLOCK
$(BUILD)/obj/cli/%.o: OWN = -fPIE -Iinclude
$(BUILD)/obj/examples/%.o: OWN = -fPIE -Iinclude $(HIREDIS_CFLAGS) $(TEST_CFLAGS)
$(BUILD)/obj/bench/%.o: OWN = -fPIE -Iinclude -Isrc -I$(BUILD)
$(BUILD)/obj/tests/%.o: OWN = -fPIE -Iinclude -Isrc -Itests -I$(BUILD) $(HIREDIS_CFLAGS) $(TEST_CFLAGS)
COMPILE = $(CC) $(CFLAGS) $(NEEDED) $(OWN) -MMD -MP -c $< -o $@
$(BUILD)/obj/test_clock/%.o: module/%.c $(BUILD)/settings
	@mkdir -p $(@D)
	$(Q)$(COMPILE)
$(BUILD)/obj/%.o: %.c $(BUILD)/settings | $(BUILD)/scripts.h
	@mkdir -p $(@D)
	$(SAY) CC $<
	$(Q)$(COMPILE)

$(BUILD)/libsteady.a: $(SRC)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

# A thread of a name lookup may outlive the last store. So dlclose must not unload the code: nodelete.
$(BUILD)/libsteady.so: $(SRC)
	$(SAY) LINK $@
	$(Q)$(LINK) -shared -Wl,-soname,$(SONAME) -Wl,-z,defs,-z,nodelete -o $@ $^ $(LIBS)

$(BUILD)/libsteady-hiredis.a: $(BRIDGE)
	$(Q)rm -f $@ && $(AR) rcs $@ $^

$(BUILD)/libsteady-hiredis.so: $(BRIDGE) $(BUILD)/libsteady.so
	$(SAY) LINK $@
	$(Q)$(LINK) -shared -Wl,-soname,$(HIREDIS_SONAME) -Wl,-z,defs -o $@ $^ $(HIREDIS_LIBS)

$(BUILD)/steady $(BUILD)/demo: $(BUILD)/libsteady.a
	$(SAY) LINK $@
	$(Q)$(LINK) -pie -o $@ $(filter-out %.a,$^) $< $(LIBS)
$(BUILD)/steady: $(CLI)
$(BUILD)/demo: $(BUILD)/obj/examples/demo.o

# The daemon reads RESP commands by the module's own code. Its pages are strings in headers.
DAEMON := $(call obj,server/*.c rules/*.c replay/*.c)
DAEMON_MADE := $(BUILD)/ratelimit.pb-c.h $(BUILD)/admin_page.h $(BUILD)/report_page.h
$(BUILD)/obj/server/%.o $(BUILD)/obj/rules/%.o $(BUILD)/obj/replay/%.o: OWN = -fPIE -Iinclude -Isrc -I. -I$(BUILD) $(SERVE_CFLAGS)
$(DAEMON): | $(DAEMON_MADE)
$(BUILD)/ratelimit.pb-c.c $(BUILD)/ratelimit.pb-c.h &: server/ratelimit.proto
	@mkdir -p $(@D)
	$(Q)protoc-c --proto_path=server --c_out=$(BUILD) $<
$(BUILD)/admin_page.h: server/dashboard.html scripts/embed-file
	@mkdir -p $(@D)
	$(Q)scripts/embed-file admin_page_html $< >$@
$(BUILD)/report_page.h: replay/report.html scripts/embed-file
	@mkdir -p $(@D)
	$(Q)scripts/embed-file report_page_html $< >$@
$(BUILD)/obj/ratelimit.o: $(BUILD)/ratelimit.pb-c.c
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS) -fPIE $(HARDEN) $(SERVE_CFLAGS) -c $< -o $@
DAEMON_LINKED := $(DAEMON) $(BUILD)/obj/ratelimit.o $(BUILD)/obj/module/arguments.o $(BUILD)/obj/module/parts_arguments.o
DAEMON_INSIDE := $(filter-out %/server/main.o,$(DAEMON_LINKED))
$(BUILD)/steadyd: $(DAEMON_LINKED) $(BUILD)/libsteady.a
	$(SAY) LINK $@
	$(Q)$(LINK) -pie -o $@ $(filter-out %.a,$^) $(filter %.a,$^) $(LIBS) $(SERVE_LIBS) -lm

# The module is bucket.c, limit.c and the code that a server needs around them. In steady_test.so tests set the time.
MODULE_SRC = core/bucket core/parts core/limit core/error core/redact core/url
$(BUILD)/steady.so: $(call obj,module/*.c)
$(BUILD)/steady_test.so: $(patsubst module/%.c,$(BUILD)/obj/test_clock/%.o,$(wildcard module/*.c))
$(BUILD)/steady.so $(BUILD)/steady_test.so: $(MODULE_SRC:%=$(BUILD)/obj/src/%.o) module/exports.map
	$(SAY) LINK $@
	$(Q)$(LINK) -shared -Wl,-z,defs -Wl,--version-script=module/exports.map -o $@ $(filter %.o,$^)
module: $(BUILD)/steady.so ## builds the module for Redis and Valkey: build/steady.so

PYTHON ?= python3
python: ## builds the Python package for PYTHON=python3, and prints the folder for PYTHONPATH
	$(Q)$(PYTHON) tests/aiosteady_build.py $(BUILD)/python

PYTHONS ?=
wheels: ## builds an sdist and a manylinux wheel with TLS for each Python here, or for PYTHONS="..."; tests each wheel
	@scripts/setup build test
	@BUILD=$(BUILD) scripts/wheels $(PYTHONS)
	@BUILD=$(BUILD) scripts/run-tests -m wheels tests/test_wheels.py

$(BUILD)/test/libhelp.a: $(HELP)
	$(Q)rm -f $@ && mkdir -p $(@D) && $(AR) rcs $@ $^

$(BUILD)/floor.so: $(BUILD)/obj/bench/modules/floor.o $(BUILD)/obj/module/abi.o
$(BUILD)/other.so: $(BUILD)/obj/tests/modules/other.o $(BUILD)/obj/module/abi.o
$(BUILD)/asan_shim.so: $(BUILD)/obj/tests/modules/asan_shim.o
$(BUILD)/boot_clock.so: $(BUILD)/obj/tests/modules/boot_clock.o
$(LOADED):
	$(Q)$(LINK) -shared -o $@ $^
$(BUILD)/obj/bench/modules/%.o $(BUILD)/obj/tests/modules/%.o: OWN = -fPIC -Imodule

# A test sees the internal symbols too: it is linked with the archives. The tests need hiredis.
LIBRARIES = $(BUILD)/libsteady-hiredis.a $(BUILD)/libsteady.a
WRAPPED = malloc calloc realloc aligned_alloc strdup mmap free
LDFLAGS_unit_alloc = $(WRAPPED:%=-Wl,--wrap=%)
LDFLAGS_unit_node_table = $(LDFLAGS_unit_alloc)
LDFLAGS_live_alloc = $(LDFLAGS_unit_alloc)
LDFLAGS_live_loop_faults = $(LDFLAGS_unit_alloc)
LDFLAGS_live_names = -Wl,--wrap=getaddrinfo
LDFLAGS_live_hostile = $(LDFLAGS_live_names)
LDFLAGS_live_secrets = $(LDFLAGS_live_names)
LDFLAGS_unit_resolve = $(LDFLAGS_live_names)
LDFLAGS_unit_sentinel_slow = $(LDFLAGS_live_names)
LDFLAGS_unit_unload = -Wl,--export-dynamic-symbol=getaddrinfo
LDFLAGS_unit_cluster_map = -Wl,--wrap=strcasecmp
$(OF_DAEMON): $(DAEMON_INSIDE)
$(OF_DAEMON): TEST_LIBS += $(SERVE_LIBS)
$(OF_DAEMON:$(BUILD)/test/%=$(BUILD)/obj/tests/%.o): OWN += -I. $(SERVE_CFLAGS)
$(OF_DAEMON:$(BUILD)/test/%=$(BUILD)/obj/tests/%.o): | $(DAEMON_MADE)
$(UNIT) $(LIVE) $(PROG): $(BUILD)/test/%: $(BUILD)/obj/tests/%.o $(BUILD)/test/libhelp.a $(LIBRARIES)
	$(SAY) LINK $@
	$(Q)$(LINK) -pie -Wl,-u,choose_test $(LDFLAGS_$*) -o $@ $(filter-out %.a,$^) $(filter %.a,$^) $(LIBS) $(TEST_LIBS)

# Programs that only `make faults` runs, and a library that it preloads into a server.
LDFLAGS_clocks = -Wl,--wrap=clock_gettime
FAILING = socket connect setsockopt getsockopt send recv eventfd pthread_create
LDFLAGS_syscalls = $(FAILING:%=-Wl,--wrap=%)
$(FAULTS): $(BUILD)/faults/%: $(BUILD)/obj/tests/faults/%.o $(BUILD)/test/libhelp.a $(LIBRARIES)
	@mkdir -p $(@D)
	$(SAY) LINK $@
	$(Q)$(LINK) -pie -Wl,-u,choose_test $(LDFLAGS_$*) -o $@ $^ $(LIBS) $(TEST_LIBS)
$(BUILD)/obj/tests/faults/clock_shim.o: OWN = -fPIC
$(BUILD)/faults/clock_shim.so: $(BUILD)/obj/tests/faults/clock_shim.o
	@mkdir -p $(@D)
	$(Q)$(LINK) -shared -o $@ $^

$(BUILD)/vectors: $(BUILD)/obj/tests/vectors.o $(BUILD)/test/libhelp.a $(BUILD)/libsteady.a
	$(Q)$(LINK) -pie -o $@ $^ $(LIBS) $(TEST_LIBS)

# The asynchronous store in a simulated world. The allocator is wrapped to find leaks.
SIM := $(call obj,tests/sim/*.c)
$(BUILD)/sim: $(SIM) $(BUILD)/test/libhelp.a $(BUILD)/libsteady.a
	$(SAY) LINK $@
	$(Q)$(LINK) -pie $(LDFLAGS_unit_alloc) -o $@ $^ $(LIBS) $(TEST_LIBS)

# The store against a hostile server, in a process of its own.
$(BUILD)/hostile: $(call obj,tests/hostile/*.c) $(BUILD)/test/libhelp.a $(BUILD)/libsteady.a
	$(SAY) LINK $@
	$(Q)$(LINK) -pie $(LDFLAGS_live_names) -o $@ $^ $(LIBS) $(TEST_LIBS)

FUZZ := $(patsubst fuzz/%.c,$(BUILD)/fuzz/%,$(FUZZ_SRC))
FUZZ_FLAGS = -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=all
$(BUILD)/obj/fuzz/%.o: OWN = -fPIE -Iinclude -Isrc -Icli -I$(BUILD)
$(FUZZ_SERVE:%=$(BUILD)/obj/fuzz/%.o): OWN = -fPIE -Iinclude -Isrc -I. -I$(BUILD) $(SERVE_CFLAGS)
$(FUZZ_SERVE:%=$(BUILD)/obj/fuzz/%.o): | $(DAEMON_MADE)
$(FUZZ_SERVE:%=$(BUILD)/%): $(DAEMON_INSIDE)
$(FUZZ_SERVE:%=$(BUILD)/%): FUZZ_LIBS = $(SERVE_LIBS) -lm
$(patsubst fuzz/%.c,$(BUILD)/%,$(FUZZ_SRC)): $(BUILD)/%: $(BUILD)/obj/fuzz/%.o $(filter-out %/steady.o,$(CLI)) $(BUILD)/libsteady.a
	$(SAY) LINK $@
	$(Q)$(LINK) -fsanitize=fuzzer -pie -o $@ $(filter-out %.a,$^) $(filter %.a,$^) $(LIBS) $(FUZZ_LIBS)

$(BENCH): $(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(BUILD)/libsteady.a
	@mkdir -p $(@D)
	$(Q)$(LINK) -pie -o $@ $^ $(LIBS) -lm

# ---- Running ----

run: ## builds, and runs a demo; with REDIS_URL set, on that server
	@scripts/setup build
	@$(SUB) $(BUILD)/demo
	$(NOTE_TLS)
	@$(BUILD)/demo

ifeq ($(filter bench,$(MAKECMDGOALS)),)
serve: ## installs missing packages, builds, and runs the daemon with an example on 127.0.0.1:4780
	@scripts/setup build serve
	@$(SUB) $(BUILD)/steady $(BUILD)/steadyd
	@BUILD=$(BUILD) exec scripts/serve-example

LOG ?=
replay: ## installs missing packages, builds, and says which limit fits an example log, or LOG=access.log
	@scripts/setup build serve
	@$(SUB) $(BUILD)/steady $(BUILD)/steadyd
	@BUILD=$(BUILD) exec scripts/replay-example $(LOG)
else
serve replay: # of `make bench serve` and `make bench replay`
	@:
endif

# Each sanitizer has a build directory of its own.
SAN_asan = -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
SAN_tsan = -O1 -g -fsanitize=thread
sanitized = BUILD=$(BUILD)/$(1) CFLAGS="$(SAN_$(1))"
ASAN = $(patsubst $(BUILD)/%,$(BUILD)/asan/%,$(UNIT) $(LIVE))
TSAN = $(patsubst $(BUILD)/%,$(BUILD)/tsan/%,$(UNIT) $(LIVE))
RUN_TESTS = BUILD=$(BUILD) scripts/run-tests

# A marker names the tests of a file that `make test` leaves to another target.
PYTESTS = $(wildcard tests/test_*.py)
marked  = $(shell grep -l '$(1)' $(PYTESTS))

test: ## installs missing packages, builds, and runs all functional tests: C, Python, simulation; at most six minutes
	@scripts/setup build serve test
	@$(SUB) tests $(BUILD)/sim $(BUILD)/hostile
	@$(RUN_TESTS) -m 'not sanitizers and not other_servers and not wheels and not packages and not faults' $(UNIT) $(LIVE) $(BUILD)/sim $(BUILD)/hostile $(PYTESTS)

sanitize: ## runs the C tests, the simulation, the module, the daemon and the Python package under ASan with UBSan, and TSan
	@scripts/setup build serve test
	@$(SUB) all
	@$(SUB) $(call sanitized,asan) tests $(BUILD)/asan/sim $(BUILD)/asan/hostile
	@$(SUB) $(call sanitized,tsan) tests
	@$(RUN_TESTS) -m 'sanitizers and not other_servers' $(BUILD)/asan/sim $(BUILD)/asan/hostile $(ASAN) $(TSAN) \
	    $(call marked,mark.sanitizers)

packages: ## tests with other packages, such as clients of Redis and type checkers; installs them below build/
	@scripts/setup build serve test
	@$(SUB) all
	@$(RUN_TESTS) -m packages $(call marked,mark.packages)

servers: ## the module in Redis 8 and Valkey 8, in a Debian 13 that it makes; takes root and a network
	@scripts/setup build test servers
	@$(SUB) tests
	@$(SUB) $(call sanitized,asan) module
	@$(RUN_TESTS) -m other_servers $(call marked,^from loaded import chroot)

unit: tests ## runs the C tests that need no server
	@$(RUN_TESTS) $(UNIT)
live: tests ## runs the C tests that start a redis-server
	@$(RUN_TESTS) $(LIVE)
asan: ## runs the C tests under AddressSanitizer and UBSan
	@$(SUB) $(call sanitized,asan) tests
	@$(RUN_TESTS) $(ASAN)
tsan: ## runs the C tests under ThreadSanitizer
	@$(SUB) $(call sanitized,tsan) tests
	@$(RUN_TESTS) $(TSAN)

SEEDS ?= 10000
FROM  ?= 1
sim: ## runs SEEDS=n seeds of the simulation; build/sim --seed N --verbose prints the history of a seed
	@scripts/setup build test
	@$(SUB) $(BUILD)/sim
	@$(BUILD)/sim --from $(FROM) --seeds $(SEEDS)

ROWS ?=
faults: ## runs every row of docs/explanation/guarantees.md, or ROWS="F21 B03", in at most ten minutes
	@scripts/setup build serve test
	@$(SUB) faulty
	@BUILD=$(BUILD) tests/faults/run $(ROWS)

SECONDS ?= 60
hostile: ## runs a hostile server against the library, under AddressSanitizer, for SECONDS=60; SEED=n sets the first seed
	@scripts/setup build test
	@$(SUB) $(call sanitized,asan) $(BUILD)/asan/hostile
	@$(BUILD)/asan/hostile --seconds $(SECONDS) $(if $(SEED),--seed $(SEED))

soak: ## runs the daemon under 10,000 connections and clients that misbehave for SECONDS=60
	@scripts/setup build serve
	@$(SUB) $(BUILD)/steady $(BUILD)/steadyd
	@BUILD=$(BUILD) python3 tests/soak/serve.py --seconds $(SECONDS)

fuzz: ## runs each fuzz target for SECONDS=60; needs clang
	@scripts/setup build serve fuzz
	@$(SUB) BUILD=$(BUILD)/fuzz CC=$(CLANG) CFLAGS="$(FUZZ_FLAGS)" $(FUZZ)
	@SECONDS_EACH=$(SECONDS) fuzz/run $(BUILD)/fuzz $(notdir $(FUZZ))

FILE ?= tests/vectors/bucket.jsonl
vectors: ## runs FILE=some.jsonl against the C code and the Lua scripts
	@scripts/setup build test
	@$(SUB) $(BUILD)/vectors
	@$(BUILD)/vectors $(FILE)

bench: ## measures against baselines of the same run; prints a table and writes build/bench.json; make bench python: Python only; make bench serve: the daemon only; make bench replay: replay only
	@scripts/setup build bench $(if $(filter serve replay,$(MAKECMDGOALS)),serve)
	@$(SUB) all module $(BUILD)/floor.so $(BENCH)
	@BUILD=$(BUILD) scripts/bench $(filter python serve replay,$(MAKECMDGOALS))

check: ## runs gcc and clang with -Werror, clang-tidy, cppcheck, clang-format and shellcheck; prints only findings
	@scripts/setup build serve test check
	@BUILD=$(BUILD) CLANG=$(CLANG) scripts/check

# ---- Installing ----

INCLUDE = $(DESTDIR)$(PREFIX)/include
MAN     = $(DESTDIR)$(PREFIX)/share/man
COMPLETIONS = $(DESTDIR)$(PREFIX)/share/bash-completion/completions

# Missing files are built first, unless root would build in the folder of another user.
AS_BUILT_SUB = $(SUB) AS_BUILT=yes
OWNER = $$(stat -c %u $(BUILD) 2>/dev/null || stat -c %u $(dir $(BUILD)))
define install_so
install -m 755 $(BUILD)/$(1).so $(DESTDIR)$(LIBDIR)/$(1).so.$(VERSION)
	ln -sf $(1).so.$(VERSION) $(DESTDIR)$(LIBDIR)/$(2)
	ln -sf $(2) $(DESTDIR)$(LIBDIR)/$(1).so
endef
define install_pc
sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@LIBDIR@|$(LIBDIR)|' -e 's|@VERSION@|$(VERSION)|' -e 's|@LIBS@|$(2)|' src/$(1).pc.in \
	    >$(DESTDIR)$(LIBDIR)/pkgconfig/$(1).pc
endef
install: ## installs into PREFIX (/usr/local) under DESTDIR; builds only missing files
	@$(AS_BUILT_SUB) -q $(INSTALLED) 2>/dev/null || [ "$$(id -u)" != 0 ] || [ "$(OWNER)" = 0 ] || { \
	    echo 'make install: $(BUILD) belongs to another user, and is not up to date. Run make as that user first.' >&2; exit 1; }
	@$(AS_BUILT_SUB) $(INSTALLED)
	install -d $(INCLUDE)/steady $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(LIBDIR)/steady \
	    $(MAN)/man1 $(MAN)/man3 $(MAN)/man5 $(MAN)/man7 $(COMPLETIONS)
	install -m 644 include/steady.h $(INCLUDE)
	install -m 644 $(filter-out $(if $(WITH_HIREDIS),,%/hiredis.h),$(wildcard include/steady/*.h)) $(INCLUDE)/steady
	install -m 644 $(filter %.a,$(INSTALLED)) $(DESTDIR)$(LIBDIR)
	$(call install_so,libsteady,$(SONAME))
	$(call install_pc,steady,$(LIBS))
	$(if $(WITH_HIREDIS),$(call install_so,libsteady-hiredis,$(HIREDIS_SONAME)))
	$(if $(WITH_HIREDIS),$(call install_pc,steady-hiredis,$(HIREDIS_LIBS)))
	install -m 755 $(BUILD)/steady $(if $(WITH_SERVE),$(BUILD)/steadyd) $(DESTDIR)$(PREFIX)/bin
	install -m 644 man/*.1 $(MAN)/man1
	install -m 644 man/*.3 $(MAN)/man3
	install -m 644 man/*.5 $(MAN)/man5
	install -m 644 man/*.7 $(MAN)/man7
	install -m 755 $(BUILD)/steady.so $(DESTDIR)$(LIBDIR)/steady
	install -m 644 scripts/completion.bash $(COMPLETIONS)/steady
	$(if $(DESTDIR),,-ldconfig 2>/dev/null) # otherwise programs do not find the library until the next ldconfig

uninstall: ## removes the installed files
	rm -f $(INCLUDE)/steady.h $(DESTDIR)$(PREFIX)/bin/steady $(DESTDIR)$(PREFIX)/bin/steadyd $(COMPLETIONS)/steady
	rm -f $(foreach l,steady steady-hiredis,$(addprefix $(DESTDIR)$(LIBDIR)/,lib$l.a lib$l.so* pkgconfig/$l.pc))
	rm -f $(patsubst man/%,$(MAN)/man1/%,$(wildcard man/*.1)) $(patsubst man/%,$(MAN)/man3/%,$(wildcard man/*.3))
	rm -f $(patsubst man/%,$(MAN)/man5/%,$(wildcard man/*.5)) $(patsubst man/%,$(MAN)/man7/%,$(wildcard man/*.7))
	rm -rf $(INCLUDE)/steady $(DESTDIR)$(LIBDIR)/steady

clean: ## removes the build directory
	rm -rf $(BUILD)

help:
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 18

force:
.PHONY: replay all module python wheels tests everything run serve test packages sanitize servers unit live asan tsan sim faults hostile fuzz vectors bench check install uninstall clean help force soak
.SECONDARY:
-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
