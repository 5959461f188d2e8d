//! The client's half of SMTP and LMTP, without a network (RFC 5321, RFC 2033, RFC 2920, RFC 3030).
//!
//! [`response`] reads what a server says, [`capabilities`] what it offers, [`dots`] writes a message
//! the way DATA wants it. [`transaction`] puts them together: it says what to send next, is told each
//! reply, and in the end knows one answer for each recipient. A test of it is a list of replies.
//! [`login`] is how we log in, [`origin`] how a next hop is told whose message it is.

pub mod capabilities;
pub mod commands;
pub mod dots;
pub mod login;
pub mod origin;
pub mod response;
pub mod shape;
pub mod transaction;

/// Which of the two protocols a server speaks. They differ in the greeting, and in that LMTP
/// answers once for each recipient after the message (RFC 2033 §4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// RFC 5321
    Smtp,
    /// RFC 2033
    Lmtp,
}

impl Protocol {
    /// The command that asks for the extensions.
    pub fn hello(self) -> &'static str {
        match self {
            Protocol::Smtp => "EHLO",
            Protocol::Lmtp => "LHLO", // RFC 2033 §4.1
        }
    }
}
