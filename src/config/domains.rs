//! `[domains.NAME]`: the domains that we take mail for, where it goes and who is known there.
//!
//! This list is the only permission to relay. A name stands for itself alone: there are no
//! wildcards, and a subdomain is a domain of its own.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::Deserialize;

use crate::config::document::Document;
use crate::config::document::KeyPath;
use crate::config::document::Step;
use crate::delivery::next_hop::NextHop;
use crate::delivery::route::Route;
use crate::delivery::routing::Way;
use crate::directory::Recipients;
use crate::mail::address::Domain;
use crate::sign::KeyFile;

/// All of `[domains]`.
pub type Domains = BTreeMap<Domain, Section>;

/// One `[domains.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Section {
    /// Where its mail goes: a next hop, or the name of a route. Default: a Maildir for each recipient
    /// under the data directory.
    pub deliver: Option<Way>,
    /// Who is known there. Default: whom the next hop knows, or anybody where we keep the Maildirs.
    pub recipients: Option<Recipients>,
    /// The keys that sign its mail, each on its own. Default: those in `dkim/NAME/` of the data directory.
    pub dkim: Option<Vec<KeyFile>>,
}

/// What becomes of mail for a domain: its section with the defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InForce {
    /// Where its mail goes.
    pub route: Route,
    /// Who is known there.
    pub recipients: Recipients,
}

impl Section {
    /// What is in force for the domain of this section, whose mail goes by `route`.
    pub(super) fn in_force(&self, route: Route) -> InForce {
        let recipients = match (&self.recipients, &route.to) {
            (Some(recipients), _) => recipients.clone(),
            (None, NextHop::Maildir(_)) => Recipients::Any,
            (None, NextHop::LmtpUnix(_) | NextHop::Lmtp(_) | NextHop::Smtp(_) | NextHop::Mx(_)) => {
                Recipients::Callout
            }
        };
        InForce { route, recipients }
    }

    /// What is wrong with the values taken together. `to` is None for the Maildirs of the default, where
    /// they cannot be kept.
    pub(super) fn faults(&self, to: Option<&NextHop>) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        if let (None | Some(NextHop::Maildir(_)), Some(Recipients::Callout)) =
            (to, &self.recipients)
        {
            let right = "a Maildir cannot be asked; give \"any\" or the full path of a file";
            faults.push(("recipients".to_owned(), right.to_owned()));
        }
        let keys = KeyFile::faults(self.dkim.as_deref().unwrap_or_default());
        faults.extend(
            keys.into_iter()
                .map(|(key, right)| (format!("dkim.{key}"), right)),
        );
        faults
    }
}

/// What is wrong with the names under `[domains]`: each is the right to send us mail.
pub(super) fn name_faults(document: &Document<'_>) -> Vec<(KeyPath, String)> {
    let domains = KeyPath::default().key("domains");
    let mut seen = BTreeMap::new();
    let mut faults = Vec::new();
    let mut names = document.keys(&domains);
    names.sort_by_key(|name| document.line_of(&domains.key(name)));
    for name in names {
        let path = domains.key(name);
        let message = match Domain::parse(name) {
            _ if name.contains('*') => {
                "there are no wildcards, they would make an open relay; name each domain".to_owned()
            }
            _ if name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() => {
                "an IP address is not a domain; give its name".to_owned()
            }
            Ok(_) if !name.contains('.') && is_split(document, &path) => format!(
                "a name with dots needs quotes here: [domains.\"{}\"]",
                joined(document, &path, name)
            ),
            Ok(domain) => match seen.insert(domain, path.clone()) {
                Some(first) => format!(
                    "the domain was given before, in line {}; keep one of them",
                    document.line_of(&first)
                ),
                None => continue,
            },
            Err(reason) => format!("this is not the name of a domain: {reason}"),
        };
        faults.push((path, message));
    }
    faults
}

/// The path with the domain in it as the file spells it.
pub(super) fn as_written(document: &Document<'_>, path: KeyPath) -> KeyPath {
    let [Step::Key(section), Step::Key(name), rest @ ..] = path.steps() else {
        return path;
    };
    if section != "domains" {
        return path;
    }
    let domains = KeyPath::default().key("domains");
    let spelled = document
        .keys(&domains)
        .into_iter()
        .find(|key| Domain::parse(key).is_ok_and(|domain| domain.as_str() == name));
    match spelled {
        Some(key) => domains.key(key).join(&rest.iter().cloned().collect()),
        None => path,
    }
}

/// Whether `[domains.a.example]` was written: TOML takes that for a table within a table.
fn is_split(document: &Document<'_>, path: &KeyPath) -> bool {
    let known = ["deliver", "recipients", "dkim"];
    document.keys(path).iter().any(|key| {
        !known.contains(key)
            && matches!(
                document.value(&path.key(key)),
                Some(toml::de::DeValue::Table(_))
            )
    })
}

/// The name that was meant by nested tables.
fn joined(document: &Document<'_>, path: &KeyPath, name: &str) -> String {
    match document.keys(path).first() {
        Some(next) if is_split(document, path) => {
            format!("{name}.{}", joined(document, &path.key(next), next))
        }
        _ => name.to_owned(),
    }
}
