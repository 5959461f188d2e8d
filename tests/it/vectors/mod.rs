//! Other people's suites, run through our verifier: the RFC 7208 suite of the openspf project and
//! the examples of RFC 6376 and RFC 8463.
//!
//! They are fetched from where their publishers ship them, into `target/vectors`, and not kept
//! here. Where they cannot be had the test says so loudly and passes; with `REQUIRE_PEERS=1` it fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

mod dkim;
mod fetch;
mod spf;
