//! What a message asks of TLS for itself (RFC 8689).

use crate::mail::content::Content;
use crate::mail::envelope::Envelope;
use crate::mail::headers;

/// What a message asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::delivery) enum Wish {
    /// Nothing.
    Usual,
    /// No server gets it that is not proven (REQUIRETLS).
    Required,
    /// It is to go, even where the destination's own wish for TLS cannot be met (`TLS-Required: No`).
    NotRequired,
}

impl Wish {
    /// By the envelope, and where that says nothing by the header (RFC 8689 §4.1, §5).
    ///
    /// A field that lies across two chunks would not be seen; chunks are cut between fields.
    pub(in crate::delivery) fn of(envelope: &Envelope, content: &Content) -> Wish {
        if envelope.requiretls {
            return Wish::Required;
        }
        for chunk in content.chunks() {
            let mut fields = headers::fields(chunk);
            let mut wishes = fields.by_ref().filter(|field| field.is("TLS-Required"));
            // RFC 8689 §3: there is one value, in whatever case.
            if wishes.any(|field| field.value.trim_ascii().eq_ignore_ascii_case(b"no")) {
                return Wish::NotRequired;
            }
            if fields.position() != chunk.len() {
                break;
            }
        }
        Wish::Usual
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::mail::address::ReversePath;

    #[test]
    fn the_envelope_counts_before_the_header() {
        for (requiretls, message, want) in [
            (false, "A: b\r\n\r\nTLS-Required: No\r\n", Wish::Usual),
            (
                false,
                "A: b\r\ntls-required: NO \r\n\r\n",
                Wish::NotRequired,
            ),
            (false, "TLS-Required: Yes\r\n\r\n", Wish::Usual),
            (true, "TLS-Required: No\r\n\r\n", Wish::Required),
        ] {
            let mut envelope = Envelope::new(ReversePath::Null, Vec::new());
            envelope.requiretls = requiretls;
            let content = Content::from(Bytes::from_static(message.as_bytes()));
            assert_eq!(Wish::of(&envelope, &content), want, "{message:?}");
            let prefix = Content::from(Bytes::from_static(b"Received: x\r\n"));
            let content = Content::join([prefix, content]);
            assert_eq!(Wish::of(&envelope, &content), want, "{message:?}");
        }
    }
}
