# make test    everything: unit tests, dialogues, the gateway on loopback, real peers (as root these are
#              installed where missing), doc tests
# make check   format, lints and the quick tests, which need no network; before every commit
# make bench   what must stay fast, and the gateway beside Postfix (as root)
# make docs    the documentation of the code

.PHONY: test check bench docs peers
.DEFAULT_GOAL := check

# nextest runs tests side by side in processes of their own; plain cargo serves, too.
TESTS := $(shell if cargo nextest --version >/dev/null 2>&1; then echo nextest run; else echo test --lib --bins --tests; fi)

test: peers
	cargo $(TESTS)
	cargo test --doc

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo $(TESTS) -- --skip peers:: --skip crash:: --skip vectors::

bench:
	cargo bench
	benches/beside-postfix

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

peers:
	tests/peers-install
