//! Other people's suites, run through our verifier: the RFC 7208 suite of the openspf project and
//! the examples of RFC 6376 and RFC 8463.
//!
//! They are fetched from where their publishers ship them, into `target/vectors`, and not kept
//! here. Where they cannot be had the test says so loudly and passes; with `REQUIRE_PEERS=1` it fails.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on should stop")]

#[path = "vectors/dkim.rs"]
mod dkim;
#[path = "vectors/fetch.rs"]
mod fetch;
#[path = "support/peer.rs"]
mod peer;
#[path = "vectors/spf.rs"]
mod spf;
#[path = "support/zone.rs"]
#[expect(dead_code, reason = "the tests of verify use all of it")]
mod zone;
