//! The envelope: who sent a message, who is to get it, and what was asked for on the way
//! (RFC 5321 §2.3.1, RFC 3461, RFC 6152, RFC 6531, RFC 8689).

use std::net::IpAddr;

use serde::Deserialize;
use serde::Serialize;

use crate::mail::address::Address;
use crate::mail::address::ReversePath;

/// All that travels beside the message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// Who gets a bounce.
    pub from: ReversePath,
    /// At least one once the message is stored.
    pub recipients: Vec<Recipient>,
    /// What the client said of the octets of the message.
    #[serde(default)]
    pub body: Body,
    /// The client asked for SMTPUTF8, so the next hop has to offer it (RFC 6531 §3.4).
    #[serde(default)]
    pub smtputf8: bool,
    /// How much of the message a bounce is to carry (RFC 3461 §4.3).
    #[serde(default)]
    pub ret: Option<Ret>,
    /// The sender's own name for this envelope, as xtext (RFC 3461 §4.4).
    #[serde(default)]
    pub envid: Option<String>,
    /// Who gave it to us. None for mail that we wrote ourselves.
    #[serde(default)]
    pub client: Option<IpAddr>,
    /// How that client named itself in EHLO, as written: printable ASCII, at most 255 octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hello: Option<String>,
    /// As whom that client had logged in (RFC 4954).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<String>,
    /// The sender is likely not who it claims to be (SPF and DMARC failed), so it gets no bounce.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub forged: bool,
    /// No server may get it without TLS, and none that is not known to be the right one (RFC 8689).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requiretls: bool,
}

impl Envelope {
    /// One that says no more than who sends and who is to get it.
    pub fn new(from: ReversePath, recipients: Vec<Recipient>) -> Envelope {
        Envelope {
            from,
            recipients,
            body: Body::default(),
            smtputf8: false,
            ret: None,
            envid: None,
            client: None,
            hello: None,
            login: None,
            forged: false,
            requiretls: false,
        }
    }
}

/// One recipient with its wishes for notifications.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// As the next hop is told it.
    pub address: Address,
    /// When the sender wants to hear about it.
    #[serde(default)]
    pub notify: Notify,
    /// `type;address` as the client wrote it, as xtext (RFC 3461 §4.2).
    #[serde(default)]
    pub orcpt: Option<String>,
}

impl Recipient {
    /// A recipient without wishes.
    pub fn new(address: Address) -> Recipient {
        Recipient {
            address,
            notify: Notify::default(),
            orcpt: None,
        }
    }
}

/// Whether a message holds octets above 127 (RFC 6152).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// None; what a client that says nothing means.
    #[default]
    SevenBit,
    /// There may be some, in lines.
    EightBitMime,
}

/// RFC 3461 §4.3
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    /// All of it.
    Full,
    /// Its header alone.
    Headers,
}

/// When the sender wants to hear about a recipient (RFC 3461 §4.1). `Never` stands alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Notify {
    /// The client did not say: failures, and delays if we like.
    #[default]
    Unsaid,
    /// Not of anything.
    Never,
    /// Of those that are true; at least one is.
    On {
        /// It was delivered.
        success: bool,
        /// It will never be delivered.
        failure: bool,
        /// It takes longer than usual.
        delay: bool,
    },
}
