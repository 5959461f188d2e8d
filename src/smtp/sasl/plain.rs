//! PLAIN: name and password in one message (RFC 4616 §2); LOGIN sends the two one by one.

use super::Credentials;
use super::Secret;

/// Longest name or password, in octets (RFC 4616 §2 asks for 255 at least).
const LONGEST: usize = 1024;

/// Reads `[authzid] NUL authcid NUL passwd`.
pub(super) fn parse(message: &[u8]) -> Option<Credentials> {
    let mut parts = message.split(|octet| *octet == 0);
    let (authorize_as, name, password) = (parts.next()?, parts.next()?, parts.next()?);
    if parts.next().is_some() {
        return None;
    }
    let name = text(name)?;
    let authorize_as = match authorize_as {
        [] => None,
        other => Some(text(other)?),
    };
    Some(Credentials {
        authorize_as: authorize_as.filter(|other| *other != name),
        name,
        password: Secret::new(text(password)?),
    })
}

/// UTF-8, not empty, without NUL.
pub(super) fn text(octets: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(octets).ok()?;
    let is_right = (1..=LONGEST).contains(&text.len()) && !text.contains('\0');
    is_right.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_plain_is_read_as_the_rfc_has_it() {
        for (message, want) in [
            (&b"\0tim\0tanstaaftanstaaf"[..], Some((None, "tim"))),
            (b"Ursel\0Kurt\0xipj3plmq", Some((Some("Ursel"), "Kurt"))),
            (b"tim\0tim\0x", Some((None, "tim"))),
            ("\0gr\u{fc}n\0\u{fc}".as_bytes(), Some((None, "gr\u{fc}n"))),
            (b"\0tim\0", None),
            (b"\0\0x", None),
            (b"\0tim", None),
            (b"\0tim\0x\0", None),
            (b"\0t\xff\0x", None),
            (b"", None),
        ] {
            let got = parse(message);
            let got = got
                .as_ref()
                .map(|c| (c.authorize_as.as_deref(), c.name.as_str()));
            assert_eq!(got, want, "{}", message.escape_ascii());
        }
    }
}
