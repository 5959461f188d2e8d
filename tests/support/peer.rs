//! What a test does where a program that it needs is not there.

use std::fmt::Display;
use std::io::Write;
use std::io::stderr;

/// Says loudly that a test does not run. Panics where `REQUIRE_PEERS=1` says that this is a failure.
pub(crate) fn skip(what: &str, reason: &dyn Display) {
    let text = format!("SKIPPED: {what}: {reason}");
    let required = std::env::var("REQUIRE_PEERS").is_ok_and(|value| value == "1");
    assert!(!required, "{text}");
    // Not eprintln: that is shown only where a test fails.
    let _ = writeln!(stderr(), "{text}");
}
