//! The name of a session and of each message that comes through it.
//!
//! One id follows a message from the connection to the last delivery: a message is known by its
//! session's id and its number in that session, `01JDQ4T9X2K.3`. It stands in each line of the mail
//! log, in our Received field and in the 250 reply.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::Serialize;

/// Crockford's base 32: no I, L, O, U, so that nobody reads one for another.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A session, by the microsecond at which it began; unique in one spool directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Eleven digits hold 55 bits: microseconds until the year 3111.
        let mut text = [b'0'; 11];
        let mut rest = self.0;
        for digit in text.iter_mut().rev() {
            *digit = DIGITS[(rest % 32) as usize];
            rest /= 32;
        }
        f.write_str(&String::from_utf8_lossy(&text))
    }
}

impl FromStr for SessionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<SessionId, Error> {
        if text.len() != 11 {
            return Err(Error);
        }
        text.bytes()
            .try_fold(0u64, |sum, byte| {
                let byte = byte.to_ascii_uppercase();
                let digit = DIGITS.iter().position(|digit| *digit == byte)?;
                Some(sum * 32 + digit as u64)
            })
            .map(SessionId)
            .ok_or(Error)
    }
}

/// A message in the spool: its session, and which of the session's messages it is, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SpoolId {
    /// In which it came.
    pub session: SessionId,
    /// From 1.
    pub serial: u32,
}

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.session, self.serial)
    }
}

impl FromStr for SpoolId {
    type Err = Error;

    fn from_str(text: &str) -> Result<SpoolId, Error> {
        let (session, serial) = text.split_once('.').ok_or(Error)?;
        Ok(SpoolId {
            session: session.parse()?,
            serial: serial.parse().map_err(|_| Error)?,
        })
    }
}

impl TryFrom<String> for SpoolId {
    type Error = Error;

    fn try_from(text: String) -> Result<SpoolId, Error> {
        text.parse()
    }
}

impl From<SpoolId> for String {
    fn from(id: SpoolId) -> String {
        id.to_string()
    }
}

/// A [`SpoolId`] in twelve octets instead of sixteen, in the same order: for where there are millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackedId([u32; 3]);

impl From<SpoolId> for PackedId {
    fn from(id: SpoolId) -> PackedId {
        let session = id.session.0;
        PackedId([(session >> 32) as u32, session as u32, id.serial])
    }
}

impl From<PackedId> for SpoolId {
    fn from(PackedId([high, low, serial]): PackedId) -> SpoolId {
        SpoolId {
            session: SessionId(u64::from(high) << 32 | u64::from(low)),
            serial,
        }
    }
}

/// A text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a message id; one looks like 01JDQ4T9X2K.1")]
pub struct Error;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_as_it_was_written() {
        for session in [0, 1, 31, 32, 1_764_000_000_000_000, (1 << 55) - 1] {
            let id = SpoolId {
                session: SessionId(session),
                serial: 7,
            };
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for text in ["", "1", "0000000000I.1", "00000000000.", "00000000000.x"] {
            assert_eq!(text.parse::<SpoolId>(), Err(Error), "{text:?}");
        }
    }

    #[test]
    fn an_id_is_the_same_after_packing() {
        let id = |session, serial| SpoolId {
            session: SessionId(session),
            serial,
        };
        let ids = [
            id(0, u32::MAX),
            id(1, 0),
            id(u64::from(u32::MAX) + 1, 0),
            id(0x0123_4567_89ab_cdef, u32::MAX),
        ];
        let packed = ids.map(PackedId::from);
        assert_eq!(packed.map(SpoolId::from), ids);
        assert!(packed.is_sorted());
        assert_eq!(size_of::<PackedId>(), 12);
    }
}
