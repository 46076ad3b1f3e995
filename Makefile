# Steady. `make run` and `make test` do everything on a fresh Debian or Ubuntu; `make help` lists the rest.
.DEFAULT_GOAL := all
BUILD   ?= build
CC      ?= cc
CFLAGS  ?= -O2 -g
WARN     = -Wall -Wextra -Wconversion -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla
ARCH    := $(shell uname -m)
MCX16   := $(if $(filter x86_64,$(ARCH)),-mcx16)
PKGS     = hiredis
ALL_CFLAGS = -std=c11 -D_GNU_SOURCE $(CFLAGS) $(WARN) $(MCX16) -fPIC -fvisibility=hidden -pthread -Iinclude -Isrc -I$(BUILD) \
             $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
LIBS     = $(shell pkg-config --libs $(PKGS) 2>/dev/null) -pthread

SRC  := $(wildcard src/*.c)
OBJ  := $(SRC:src/%.c=$(BUILD)/obj/%.o)

all: $(BUILD)/libsteady.a $(BUILD)/libsteady.so

$(BUILD)/scripts.h: scripts/embed-lua $(wildcard lua/*.lua)
	@mkdir -p $(@D)
	scripts/embed-lua lua/consume.lua lua/peek.lua lua/reset.lua > $@

$(BUILD)/obj/%.o: src/%.c $(BUILD)/scripts.h
	@mkdir -p $(@D)
	$(CC) $(ALL_CFLAGS) -MMD -MP -c $< -o $@

$(BUILD)/libsteady.a: $(OBJ)
	$(AR) rcs $@ $^

$(BUILD)/libsteady.so: $(OBJ)
	$(CC) $(CFLAGS) -shared -Wl,-soname,libsteady.so.0 -Wl,-z,now -Wl,-z,relro -o $@ $^ $(LIBS)

clean:
	rm -rf $(BUILD)

.PHONY: all clean
-include $(OBJ:.o=.d)
