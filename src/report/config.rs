//! `[bounces]`: what senders are told, and how.

use std::time::Duration;

use bytesize::ByteSize;
use serde::Deserialize;

use crate::mail::address::Address;

/// `[bounces]`
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Who stands in From. Default: MAILER-DAEMON at our host name.
    pub from: Option<Address>,
    /// How long a message waits before its sender is told so, once. None: they are not told.
    pub delay_warning: DelayWarning,
    /// The largest message of which a report of failure carries all, where the sender did not say (RFC 3461
    /// §4.3). Of a larger one it carries the header.
    pub full_up_to: ByteSize,
    /// Who is told where mail without a return path has failed: a bounce, mostly. None: nobody.
    pub double_bounce_to: Option<Address>,
}

/// `"off"`, or a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DelayWarning(pub Option<Duration>);

impl TryFrom<String> for DelayWarning {
    type Error = String;

    fn try_from(text: String) -> Result<DelayWarning, String> {
        if text == "off" {
            return Ok(DelayWarning(None));
        }
        let time = humantime_serde::re::humantime::parse_duration(&text);
        match time {
            Ok(time) if !time.is_zero() => Ok(DelayWarning(Some(time))),
            Ok(_) | Err(_) => Err(format!(
                "{text:?} is no time to wait; write \"off\", or a duration, as in \"4h\""
            )),
        }
    }
}

impl Default for Config {
    fn default() -> Config {
        Config {
            from: None,
            delay_warning: DelayWarning::default(),
            full_up_to: ByteSize::kib(50),
            double_bounce_to: None,
        }
    }
}

impl Config {
    /// What is wrong, by key below `[bounces]`, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let is_ascii = |address: &Option<Address>| address.as_ref().is_none_or(Address::is_ascii);
        if is_ascii(&self.from) {
            return Vec::new();
        }
        // A report has to reach servers without SMTPUTF8, too.
        let text = "not every server takes this address; write one in ASCII";
        vec![("from".to_owned(), text.to_owned())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_comes_after_a_time_or_not_at_all() {
        let read = |text: &str| DelayWarning::try_from(text.to_owned()).ok();
        let hours = Duration::from_secs(4 * 3600);
        assert_eq!(read("off"), Some(DelayWarning(None)));
        assert_eq!(read("4h"), Some(DelayWarning(Some(hours))));
        assert_eq!(read("0s"), None);
        assert_eq!(read("soon"), None);
    }
}
