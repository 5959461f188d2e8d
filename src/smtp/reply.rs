//! All that the gateway says to a client: code, enhanced code (RFC 3463, RFC 5248) and text.
//!
//! The whole voice stands here, so that it can be read in one place. A text tells a human at the
//! other end what to do, and nothing about our inside.

use std::borrow::Cow;
use std::fmt;

/// A reply of one or more lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// RFC 5321 §4.2: 2xx, 3xx, 4xx or 5xx.
    pub code: u16,
    /// RFC 3463; not in greetings, answers to EHLO and 3xx (RFC 2034 §4).
    pub enhanced: Option<(u8, u16, u16)>,
    /// Lines without line ends, at least one.
    pub text: Cow<'static, str>,
}
