//! The nouns: addresses, envelopes, headers, the message itself, and the id it is known by.
//!
//! Pure values. What exists is valid: whoever holds an [`address::Address`] never checks it again.
//! No socket, no file, no clock.

pub mod address;
pub mod content;
pub mod envelope;
pub mod headers;
pub mod id;
