# What a person types: `make demo` to see it work, `make test` to see that it does, `make install`
# or `make deb` to have it.

TOOLS := tests/interop/install-tools
BINARY := target/release/mailwren
# Where it is installed. DESTDIR is the root of a package; the configuration is always in /etc.
DESTDIR :=
PREFIX := /usr/local
# Of the Debian package: the architecture of BINARY, and the version.
ARCH := $(shell dpkg --print-architecture 2>/dev/null)
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)-1

.PHONY: help demo test build lint check-tools interop from-nothing install uninstall deb clean

help:
	@echo 'make demo         build and run a mail server on 127.0.0.1:2525, without configuration'
	@echo 'make test         install what the tests need, and run them all'
	@echo 'make build        build $(BINARY)'
	@echo 'make install      put it into PREFIX=$(PREFIX), below DESTDIR='
	@echo 'make uninstall    take it away again, but for configuration and mail'
	@echo 'make deb          make a Debian package of it; ARCH= and BINARY= for another machine'
	@echo 'make from-nothing show it: an empty Debian, setup, and cron has mail at a provider'
	@echo 'make lint         check the format, the lints and the links of the documentation'
	@echo 'make check-tools  say which programs are missing for the build and the tests'
	@echo 'make arm64        build target/aarch64-unknown-linux-gnu/release/mailwren; also armhf, musl'
	@echo 'make test-arm64   run the core of the tests on arm64 under qemu; also test-armhf, test-musl'
	@echo 'make clean        remove everything that was built'

demo:
	$(TOOLS) build
	cargo build --release --locked
	$(BINARY) demo

test:
	$(TOOLS) build test
	$(MAKE) lint
	cargo test --locked
	$(MAKE) build
	tests/interop/run

build:
	cargo build --release --locked

lint:
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --quiet

# The tests against real programs alone; `tests/interop/run PATTERN…` runs some of them.
interop: build
	tests/interop/run

# The package in a Debian of its own: setup, a job of cron that fails, and its mail at a provider.
from-nothing:
	tests/interop/from-nothing

install:
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' etc/install $(BINARY)

uninstall:
	DESTDIR='$(DESTDIR)' PREFIX='$(PREFIX)' etc/install --remove

deb:
	etc/debian/build $(BINARY) $(ARCH) $(VERSION)

check-tools:
	$(TOOLS) --check build test

clean:
	cargo clean

# For other machines: fetched, built and tested below target/ alone (tests/cross/build tells more).
.PHONY: arm64 armhf musl test-arm64 test-armhf test-musl
arm64 armhf musl:
	tests/cross/build $@

# The core of the tests, under qemu; arm64 by a build that takes less long than the real one.
test-arm64:
	PROFILE=debug tests/cross/test arm64 --library

test-armhf test-musl:
	tests/cross/test $(@:test-%=%)
