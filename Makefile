# Mingle's few verbs. `make demo` first, `make test` second; CONTRIBUTING.md tells the rest.
PREFIX ?= /usr/local
DESTDIR ?=
STATIC := .build-static
# Each function in a section of its own: the linker leaves out what a program does not call.
VMMFLAGS := -c release --scratch-path $(STATIC) --static-swift-stdlib -Xswiftc -static-executable \
	-Xswiftc -Xfrontend -Xswiftc -function-sections
SOURCES := Package.swift Sources Tests Benchmarks
export MINGLE_SHARE := $(CURDIR)/.build-guests

.PHONY: all demo test soak bench guests release install format lint clean deps-build deps-all
all: release guests

# Each prints what is missing and installs it when root or in CI; otherwise it says the command.
deps-build:
	@scripts/deps build
deps-all:
	@scripts/deps all

demo: deps-all
	@scripts/demo

test: deps-all
	@scripts/test

soak: deps-all release guests
	@scripts/soak

bench: deps-all release guests
	@scripts/bench

guests:
	$(MAKE) -C guests
	$(MAKE) -C guests/linux

# Static programs: they run in the lab, and on any distribution.
release:
	swift build $(VMMFLAGS) --product mingle
	swift build $(VMMFLAGS) --product mingle-vmm
	swift build $(VMMFLAGS) --product mingle-broker
	swift build $(VMMFLAGS) --product mingle-bench

# After `make`, so that nothing is built as root.
install:
	@test -x $(STATIC)/release/mingle -a -d .build-guests/linux || { echo "run make first" >&2; exit 1; }
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/mingle/payloads $(DESTDIR)$(PREFIX)/share/mingle/linux
	install -m 0755 $(STATIC)/release/mingle $(STATIC)/release/mingle-vmm $(STATIC)/release/mingle-broker $(DESTDIR)$(PREFIX)/bin/
	install -m 0644 .build-guests/payloads/*.elf $(DESTDIR)$(PREFIX)/share/mingle/payloads/
	install -m 0755 .build-guests/linux/init .build-guests/linux/mingle-guest $(DESTDIR)$(PREFIX)/share/mingle/linux/

format:
	swift format -i -r $(SOURCES) guests/payloads

lint:
	swift format lint --strict -r $(SOURCES) guests/payloads
	scripts/check-structure

clean:
	rm -rf .build .build-guests $(STATIC)
