//! The wire: bytes to meaning and back (RFC 5321, RFC 3030, RFC 2033). No I/O, no clock.
//!
//! [`mod@line`] finds where a command ends, [`command`] reads what it says, [`server`] knows what to do next, [`data`] takes the message
//! apart from the dialogue, [`sasl`] is how a client proves who it is, [`reply`] holds every word that we say. [`client`] is the other half: what
//! to send to the next hop and what its replies mean.

pub mod client;
pub mod command;
pub mod data;
pub mod line;
pub mod reply;
pub mod sasl;
pub mod server;
