# Mingle's few verbs. `make demo` first, `make test` second; CONTRIBUTING.md tells the rest.
STATIC := .build-static
VMMFLAGS := -c release --scratch-path $(STATIC) --static-swift-stdlib -Xswiftc -static-executable

.PHONY: all guests release
all: release guests

guests:
	$(MAKE) -C guests
	$(MAKE) -C guests/linux

release:
	swift build $(VMMFLAGS) --product mingle
	swift build $(VMMFLAGS) --product mingle-vmm
	swift build $(VMMFLAGS) --product mingle-broker
