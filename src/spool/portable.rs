//! A queued message outside of the spool: `NAME.eml` with its octets as they are stored, and
//! `NAME.json` with all else. docs/queue.md tells operators of each key.
//!
//! Only `from` and `recipients` are needed, so that a message can be put into the queue by hand.
//! A key that is not known is a fault, so that a slip of the pen is not taken for a default.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::SystemTime;

use jiff::Timestamp;
use memchr::memchr2_iter;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::envelope::Body;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Notify;
use crate::mail::envelope::Recipient;
use crate::mail::envelope::Ret;
use crate::mail::id::SpoolId;
use crate::spool::Mark;
use crate::spool::record::State;
use crate::spool::record::micros;

/// The version of the form.
const VERSION: u32 = 1;

/// All about a message but its octets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Portable {
    /// In the spool that it comes from.
    pub(super) id: Option<SpoolId>,
    pub(super) envelope: Envelope,
    /// Microseconds since 1970.
    pub(super) arrived: u64,
    pub(super) state: State,
    /// What became of those recipients of whom that is known.
    pub(super) marks: BTreeMap<usize, Mark>,
}

/// What every version of the file says.
#[derive(Debug, Deserialize)]
struct Versioned {
    #[serde(default = "version")]
    version: u32,
}

/// The file `NAME.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default = "version")]
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<SpoolId>,
    /// Of NAME.eml, in octets, and its CRC32C; looked at where they are given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<usize>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    crc32c: Option<String>,
    from: String,
    recipients: Vec<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    arrived: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    due: Option<String>,
    #[serde(default)]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    held: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<BodyName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    smtputf8: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ret: Option<RetName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    envid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client: Option<IpAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hello: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    login: Option<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    forged: bool,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    requiretls: bool,
}

/// A recipient, where it is more than its address.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipientDocument {
    address: Address,
    #[serde(default)]
    state: RecipientState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notify: Option<Vec<NotifyName>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    orcpt: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RecipientState {
    #[default]
    Open,
    Delivered,
    Failed,
    /// One of the last two; which of them, the log does not say any more.
    Done,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum NotifyName {
    Never,
    Success,
    Failure,
    Delay,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum BodyName {
    #[serde(rename = "7bit")]
    SevenBit,
    EightBitMime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RetName {
    Full,
    Headers,
}

fn version() -> u32 {
    VERSION
}

impl Portable {
    /// The text of the JSON file beside a message of this size and checksum.
    pub(super) fn write(&self, size: usize, checksum: u32) -> Result<String, serde_json::Error> {
        let recipients = self.envelope.recipients.iter().enumerate();
        let recipients = recipients.map(|(at, recipient)| {
            let closed = self
                .state
                .marked
                .iter()
                .any(|marked| *marked as usize == at);
            serde_json::to_value(describe(recipient, closed, self.marks.get(&at)))
        });
        let envelope = &self.envelope;
        let document = Document {
            version: VERSION,
            id: self.id,
            size: Some(size),
            crc32c: Some(format!("{checksum:08x}")),
            from: envelope
                .from
                .address()
                .map(ToString::to_string)
                .unwrap_or_default(),
            recipients: recipients.collect::<Result<_, _>>()?,
            arrived: timestamp(self.arrived),
            due: timestamp(self.state.due),
            attempts: self.state.attempts,
            held: self.state.held.clone(),
            body: Some(match envelope.body {
                Body::SevenBit => BodyName::SevenBit,
                Body::EightBitMime => BodyName::EightBitMime,
            }),
            smtputf8: Some(envelope.smtputf8),
            ret: envelope.ret.map(|ret| match ret {
                Ret::Full => RetName::Full,
                Ret::Headers => RetName::Headers,
            }),
            envid: envelope.envid.clone(),
            client: envelope.client,
            hello: envelope.hello.clone(),
            login: envelope.login.clone(),
            forged: envelope.forged,
            requiretls: envelope.requiretls,
        };
        serde_json::to_string_pretty(&document).map(|text| text + "\n")
    }

    /// Reads the JSON file that stands beside `message`. The error says what is wrong with either.
    pub(super) fn read(text: &[u8], message: &[u8], now: SystemTime) -> Result<Portable, String> {
        let wrong_json = |error: serde_json::Error| error.to_string();
        let Versioned { version } = serde_json::from_slice(text).map_err(wrong_json)?;
        if version != VERSION {
            return Err(format!("version {version} is not known here; {VERSION} is"));
        }
        let document: Document = serde_json::from_slice(text).map_err(wrong_json)?;
        check_message(&document, message)?;
        let (recipients, marks, marked) = read_recipients(&document.recipients)?;
        let from = match document.from.as_str() {
            "" | "<>" => ReversePath::Null,
            text if text.starts_with('<') => ReversePath::parse(text).map_err(wrong("from"))?,
            text => ReversePath::Address(Address::parse(text).map_err(wrong("from"))?),
        };
        let arrived =
            read_time("arrived", document.arrived.as_deref())?.unwrap_or_else(|| micros(now));
        let due = read_time("due", document.due.as_deref())?.unwrap_or(arrived);
        let all_ascii = recipients
            .iter()
            .all(|to: &Recipient| to.address.is_ascii())
            && from.address().is_none_or(Address::is_ascii);
        let body = document.body.unwrap_or(match message.is_ascii() {
            true => BodyName::SevenBit,
            false => BodyName::EightBitMime,
        });
        let envelope = Envelope {
            from,
            recipients,
            body: match body {
                BodyName::SevenBit => Body::SevenBit,
                BodyName::EightBitMime => Body::EightBitMime,
            },
            smtputf8: document.smtputf8.unwrap_or(!all_ascii),
            ret: document.ret.map(|ret| match ret {
                RetName::Full => Ret::Full,
                RetName::Headers => Ret::Headers,
            }),
            envid: document.envid,
            client: document.client,
            hello: document.hello,
            login: document.login,
            forged: document.forged,
            requiretls: document.requiretls,
        };
        let state = State {
            due,
            attempts: document.attempts,
            held: document.held,
            marked,
        };
        Ok(Portable {
            id: document.id,
            envelope,
            arrived,
            state,
            marks,
        })
    }
}

fn wrong(key: &str) -> impl Fn(crate::mail::address::Error) -> String {
    move |error| format!("`{key}` is not an address, because {error}")
}

/// As RFC 3339 writes times.
fn timestamp(micros: u64) -> Option<String> {
    let micros = i64::try_from(micros).ok()?;
    Timestamp::from_microsecond(micros)
        .ok()
        .map(|time| time.to_string())
}

fn read_time(key: &str, text: Option<&str>) -> Result<Option<u64>, String> {
    let micros = |text: &str| {
        let time: Timestamp = text.parse().ok()?;
        u64::try_from(time.as_microsecond()).ok()
    };
    let fault = || format!("`{key}` is not a time after 1970 such as 2026-11-24T05:01:02Z");
    text.map(|text| micros(text).ok_or_else(fault)).transpose()
}

fn describe(recipient: &Recipient, closed: bool, mark: Option<&Mark>) -> RecipientDocument {
    let (state, reason) = match mark {
        _ if !closed => (RecipientState::Open, None),
        None => (RecipientState::Done, None),
        Some(Mark::Delivered) => (RecipientState::Delivered, None),
        Some(Mark::Failed(reason)) => (RecipientState::Failed, Some(reason.clone())),
    };
    let notify = match recipient.notify {
        Notify::Unsaid => None,
        Notify::Never => Some(vec![NotifyName::Never]),
        Notify::On {
            success,
            failure,
            delay,
        } => {
            let all = [
                (success, NotifyName::Success),
                (failure, NotifyName::Failure),
                (delay, NotifyName::Delay),
            ];
            Some(
                all.into_iter()
                    .filter(|(on, _)| *on)
                    .map(|(_, name)| name)
                    .collect(),
            )
        }
    };
    RecipientDocument {
        address: recipient.address.clone(),
        state,
        reason,
        notify,
        orcpt: recipient.orcpt.clone(),
    }
}

type Recipients = (Vec<Recipient>, BTreeMap<usize, Mark>, Vec<u32>);

/// The recipients, what became of them, and which are done with.
fn read_recipients(values: &[Value]) -> Result<Recipients, String> {
    let (mut recipients, mut marks, mut marked) = (Vec::new(), BTreeMap::new(), Vec::new());
    for (at, value) in values.iter().enumerate() {
        let fault = |error: &dyn std::fmt::Display| format!("recipient {}: {error}", at + 1);
        let document = match value {
            Value::String(text) => RecipientDocument {
                address: Address::parse(text)
                    .map_err(|error| fault(&format!("not an address, because {error}")))?,
                state: RecipientState::Open,
                reason: None,
                notify: None,
                orcpt: None,
            },
            other => serde_json::from_value::<RecipientDocument>(other.clone())
                .map_err(|error| fault(&error))?,
        };
        let mark = match document.state {
            RecipientState::Open | RecipientState::Done => None,
            RecipientState::Delivered => Some(Mark::Delivered),
            RecipientState::Failed => Some(Mark::Failed(document.reason.unwrap_or_default())),
        };
        marks.extend(mark.map(|mark| (at, mark)));
        if document.state != RecipientState::Open {
            marked.extend(u32::try_from(at));
        }
        recipients.push(Recipient {
            address: document.address,
            notify: read_notify(document.notify.as_deref()).map_err(|error| fault(&error))?,
            orcpt: document.orcpt,
        });
    }
    if marked.len() == recipients.len() {
        return Err("there is no recipient left to deliver to".to_owned());
    }
    Ok((recipients, marks, marked))
}

// RFC 3461 §4.1: NEVER stands alone.
fn read_notify(names: Option<&[NotifyName]>) -> Result<Notify, &'static str> {
    match names {
        None | Some([]) => Ok(Notify::Unsaid),
        Some([NotifyName::Never]) => Ok(Notify::Never),
        Some(names) if names.contains(&NotifyName::Never) => {
            Err("`notify` has \"never\" beside others")
        }
        Some(names) => Ok(Notify::On {
            success: names.contains(&NotifyName::Success),
            failure: names.contains(&NotifyName::Failure),
            delay: names.contains(&NotifyName::Delay),
        }),
    }
}

/// Whether it is the message that the document tells of, and one that may be sent.
fn check_message(document: &Document, message: &[u8]) -> Result<(), String> {
    if let Some(size) = document.size.filter(|size| *size != message.len()) {
        let found = message.len();
        return Err(format!(
            "the message has {found} octets and `size` says {size}; it was cut off or changed"
        ));
    }
    let checksum = format!("{:08x}", crc32c::crc32c(message));
    if document
        .crc32c
        .as_ref()
        .is_some_and(|told| *told != checksum)
    {
        return Err("the message is not as it was exported: `crc32c` differs".to_owned());
    }
    if message.is_empty() {
        return Err("the message is empty".to_owned());
    }
    // RFC 5321 §2.3.8: each CR and LF is half of a CRLF. Others could smuggle a message through.
    let bare = memchr2_iter(b'\r', b'\n', message).find(|at| match message[*at] {
        b'\r' => message.get(at + 1) != Some(&b'\n'),
        _ => *at == 0 || message[at - 1] != b'\r',
    });
    match bare {
        None => Ok(()),
        Some(at) => {
            let line = 1 + message[..at]
                .iter()
                .filter(|octet| **octet == b'\n')
                .count();
            Err(format!(
                "line {line} of the message does not end in CRLF; convert it, such as with unix2dos"
            ))
        }
    }
}

#[cfg(test)]
#[path = "portable_tests.rs"]
mod tests;
