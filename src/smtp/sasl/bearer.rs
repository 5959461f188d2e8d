//! Who a message of a mechanism that somebody else judges is about, as far as the client says so.

use super::Mechanism;
use super::scram::First;

/// The user whom the first message of a mechanism names; None where it names none. It is what the
/// client claims, and good for counting its attempts, for nothing else.
pub fn claimed_user(mechanism: Mechanism, message: &[u8]) -> Option<String> {
    match mechanism {
        Mechanism::ScramSha256 | Mechanism::ScramSha256Plus => First::claimed_user(message),
        // RFC 7628 §3.1: n,a=user,^A...; before it: user=user^A...
        Mechanism::OAuthBearer => {
            let text = std::str::from_utf8(message).ok()?;
            let header = text.split('\u{1}').next()?;
            let user = header.split(',').find_map(|part| part.strip_prefix("a="))?;
            Some(user.replace("=2C", ",").replace("=3D", "="))
        }
        Mechanism::XOAuth2 => {
            let text = std::str::from_utf8(message).ok()?;
            let first = text.split('\u{1}').next()?;
            first.strip_prefix("user=").map(str::to_owned)
        }
        Mechanism::Plain | Mechanism::Login => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_of_a_token_is_read() {
        let bearer =
            b"n,a=user@example.com,\x01host=server.example.com\x01auth=Bearer vF9df\x01\x01";
        let older = b"user=user@example.com\x01auth=Bearer vF9df\x01\x01";
        let scram = b"n,,n=user@example.com,r=rOprNGfwEbeRWgbNEkqO";
        for (mechanism, message, want) in [
            (
                Mechanism::OAuthBearer,
                &bearer[..],
                Some("user@example.com"),
            ),
            (Mechanism::XOAuth2, older, Some("user@example.com")),
            (Mechanism::ScramSha256, scram, Some("user@example.com")),
            (
                Mechanism::OAuthBearer,
                b"n,,\x01auth=Bearer vF9df\x01\x01",
                None,
            ),
            (Mechanism::XOAuth2, b"auth=Bearer vF9df\x01\x01", None),
            (Mechanism::ScramSha256, b"\xff", None),
        ] {
            let got = claimed_user(mechanism, message);
            assert_eq!(
                got.as_deref(),
                want,
                "{mechanism} {}",
                message.escape_ascii()
            );
        }
    }
}
