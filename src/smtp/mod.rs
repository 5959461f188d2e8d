//! The wire: bytes to meaning and back (RFC 5321, RFC 3030, RFC 2033). No I/O, no clock.

pub mod reply;
