//! Addresses and the paths around them: what is read, is written so that it is read as the same.

use super::run;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::mail::address::ForwardPath;
use crate::mail::address::Host;
use crate::mail::address::ReversePath;

#[test]
fn an_address_is_read_back_as_it_was_written_and_within_its_limits() {
    run("addresses", |input| {
        let text = String::from_utf8_lossy(input);
        (
            path(&text),
            address(text.trim_matches(['<', '>'])),
            host(&text),
        )
    });
}

fn address(text: &str) -> Result<(bool, bool), String> {
    let address = Address::parse(text).map_err(|error| error.to_string())?;
    let written = address.to_string();
    assert_eq!(Address::parse(&written), Ok(address.clone()), "{written:?}");
    assert!(!written.contains(char::is_control), "{written:?}");
    // RFC 5321 §4.5.3.1
    assert!(address.local().len() <= 64 && written.len() <= 254);
    assert_eq!(address.is_ascii(), written.is_ascii());
    Ok((written.starts_with('"'), address.domain().is_some()))
}

fn path(text: &str) -> Result<bool, String> {
    let reverse = ReversePath::parse(text);
    if let Ok(path) = &reverse {
        let written = path.to_string();
        assert!(written.len() <= 256);
        assert_eq!(ReversePath::parse(&written), reverse, "{written:?}");
    }
    let forward = ForwardPath::parse(text);
    if let Ok(path) = &forward {
        let written = path.to_string();
        assert!(written.len() <= 256);
        assert_eq!(ForwardPath::parse(&written), forward, "{written:?}");
    }
    reverse
        .map(|path| path.address().is_some())
        .map_err(|error| error.to_string())
}

fn host(text: &str) -> Option<bool> {
    let host = Host::parse(text).ok()?;
    assert_eq!(Host::parse(&host.to_string()), Ok(host.clone()));
    if let Some(domain) = host.domain() {
        let name = domain.as_str();
        assert!(name.len() <= 253 && name.is_ascii() && !name.contains(char::is_uppercase));
        assert_eq!(Domain::parse(name).as_ref(), Ok(domain));
    }
    Some(host.domain().is_some())
}
