//! The words of MAIL and RCPT, and what cannot be said to a server
//! (RFC 5321 §4.1.1, RFC 1870, RFC 3461, RFC 6152, RFC 6531).
//!
//! An extension is used only where it is offered. What a server has no extension for is refused here:
//! a message too large, 8-bit octets, internationalised addresses or headers.

use super::capabilities::Capabilities;
use super::response::Response;
use super::shape::Octets;
use super::shape::Shape;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Recipient;
use crate::mail::envelope::Ret;

pub(super) fn no_utf8_address() -> Response {
    let text = "the next hop takes no internationalised addresses (SMTPUTF8)";
    Response::ours(553, (5, 6, 7), text)
}

/// What this server cannot take, whoever it is for.
pub fn refused_for_all(
    offered: &Capabilities,
    envelope: &Envelope,
    shape: Shape,
) -> Option<Response> {
    if let Some(limit) = offered.size_limit.filter(|limit| shape.size > *limit) {
        let size = shape.size;
        let text = format!("{size} octets are more than the next hop takes ({limit})");
        return Some(Response::ours(552, (5, 3, 4), &text)); // RFC 1870 §6.2
    }
    let eight_bit = shape.header == Octets::EightBit || shape.body == Octets::EightBit;
    if eight_bit && !offered.eight_bit_mime {
        let text = "the next hop takes no 8-bit messages (8BITMIME)";
        return Some(Response::ours(554, (5, 6, 3), text)); // RFC 6152 §3
    }
    if !offered.smtputf8 && needs_smtputf8(envelope, shape) {
        if envelope.from.address().is_some_and(|from| !from.is_ascii()) {
            return Some(no_utf8_address()); // RFC 6531 §3.5
        }
        let text = "the next hop takes no internationalised headers (SMTPUTF8)";
        return Some(Response::ours(554, (5, 6, 9), text));
    }
    None
}

/// Whether sender or header need SMTPUTF8; a recipient can need it for itself. A message that came with
/// SMTPUTF8 and makes no use of it goes without (RFC 6531 §3.4). Raw 8-bit header octets of a client
/// that did not ask for SMTPUTF8 are passed on as they came.
pub fn needs_smtputf8(envelope: &Envelope, shape: Shape) -> bool {
    envelope.from.address().is_some_and(|from| !from.is_ascii())
        || envelope.smtputf8 && shape.header == Octets::EightBit
}

/// The MAIL command with its CRLF, and what of the envelope the server understands.
pub fn mail(offered: &Capabilities, envelope: &Envelope, shape: Shape, smtputf8: bool) -> String {
    let mut line = format!("MAIL FROM:{}", envelope.from);
    if offered.size {
        line.push_str(&format!(" SIZE={}", shape.size)); // RFC 1870 §3
    }
    if shape.header == Octets::EightBit || shape.body == Octets::EightBit {
        line.push_str(" BODY=8BITMIME"); // RFC 6152 §2
    }
    if smtputf8 {
        line.push_str(" SMTPUTF8"); // RFC 6531 §3.4
    }
    if envelope.requiretls && offered.requiretls {
        line.push_str(" REQUIRETLS"); // RFC 8689 §4.2.1
    }
    if offered.dsn {
        match envelope.ret {
            Some(Ret::Full) => line.push_str(" RET=FULL"), // RFC 3461 §4.3
            Some(Ret::Headers) => line.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(envid) = envelope.envid.as_deref().filter(|text| is_printable(text)) {
            line.push_str(&format!(" ENVID={envid}")); // RFC 3461 §4.4
        }
    }
    line.push_str("\r\n");
    line
}

/// The RCPT command with its CRLF.
pub fn rcpt(offered: &Capabilities, recipient: &Recipient) -> String {
    let mut line = format!("RCPT TO:<{}>", recipient.address);
    if offered.dsn {
        if let Some(notify) = notify(recipient.notify) {
            line.push_str(&format!(" NOTIFY={notify}")); // RFC 3461 §4.1
        }
        if let Some(orcpt) = recipient.orcpt.as_deref().filter(|text| is_printable(text)) {
            line.push_str(&format!(" ORCPT={orcpt}")); // RFC 3461 §4.2
        }
    }
    line.push_str("\r\n");
    line
}

fn notify(wishes: Notify) -> Option<String> {
    let (success, failure, delay) = match wishes {
        Notify::Unsaid => return None,
        Notify::Never => return Some("NEVER".to_owned()),
        Notify::On {
            success,
            failure,
            delay,
        } => (success, failure, delay),
    };
    let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
    let said: Vec<&str> = words.iter().filter(|w| w.0).map(|w| w.1).collect();
    (!said.is_empty()).then(|| said.join(","))
}

/// A text that stays one parameter of one command, whatever it says.
fn is_printable(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| (33..=126).contains(&byte))
}

/// The commands of a callout: does the server take mail for this recipient?
pub fn callout(recipient: &Recipient, offered: &Capabilities) -> Option<[String; 3]> {
    let utf8 = match (recipient.address.is_ascii(), offered.smtputf8) {
        (true, _) => "",
        (false, true) => " SMTPUTF8",
        (false, false) => return None,
    };
    let from = ReversePath::Null;
    Some([
        format!("MAIL FROM:{from}{utf8}\r\n"),
        format!("RCPT TO:<{}>\r\n", recipient.address),
        "RSET\r\n".to_owned(),
    ])
}
