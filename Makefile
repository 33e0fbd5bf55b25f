# What a person types: `make demo` to see it work, `make test` to see that it does.

TOOLS := tests/interop/install-tools
BINARY := target/release/mailwren

.PHONY: help demo test build lint check-tools interop clean

help:
	@echo 'make demo         build and run a mail server on 127.0.0.1:2525, without configuration'
	@echo 'make test         install what the tests need, and run them all'
	@echo 'make build        build $(BINARY)'
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
