# make test    everything: unit tests, dialogues, the gateway on loopback, real peers (as root these are
#              installed where missing), doc tests
# make check   format, lints and the quick tests, which need no network; before every commit
# make soak    the long runs: ten minutes for each fuzz target, 100 rounds of kill -9, a million messages
#              that come and go (docs/testing.md)
# make bench   what must stay fast: the table beside smtp-sink, Postfix and the classic stack (as root, for
#              those), the log beside SQLite, and the parts alone
# make docs    the documentation of the code

.PHONY: test check soak bench docs peers bench-peers
.DEFAULT_GOAL := check

# nextest runs tests side by side in processes of their own; plain cargo serves, too.
TESTS := $(shell if cargo nextest --version >/dev/null 2>&1; then echo nextest run; else echo test --lib --bins --tests; fi)

# How long the long runs are.
FUZZ_SECONDS ?= 600
CRASH_ROUNDS ?= 100
CHURN_STORES ?= 1000000

test: peers
	cargo $(TESTS)
	cargo test --doc

check:
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo $(TESTS) -- --skip peers:: --skip crash:: --skip vectors::

soak: peers
	FUZZ_SECONDS=$(FUZZ_SECONDS) CRASH_ROUNDS=$(CRASH_ROUNDS) CHURN_STORES=$(CHURN_STORES) \
	NEXTEST_PROFILE=soak cargo $(TESTS) -- fuzz:: crash:: hour_of_churn

bench: bench-peers
	cargo bench --bench table
	cargo run --release -p beside-sqlite
	cargo bench --bench checks --bench protocol --bench spool

docs:
	RUSTDOCFLAGS="-D warnings" cargo doc --no-deps

peers:
	tests/peers-install

bench-peers:
	tests/peers-install opendkim opendmarc postfix-policyd-spf-python
