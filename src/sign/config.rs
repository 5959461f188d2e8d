//! `[signing]` and the keys of `[domains.NAME]`: what is signed, how, and with which keys.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::sign::name::KeyName;
use crate::sign::name::Selector;
use crate::sign::pattern::Pattern;

/// RFC 6376 §5.4.1 and what shows a message in another light where somebody adds it.
const OVERSIGNED: &[&str] = &[
    "From",
    "Reply-To",
    "Subject",
    "Date",
    "To",
    "Cc",
    "Message-ID",
    "In-Reply-To",
    "References",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
];

/// RFC 6376 §5.4.1: what mailing lists and those who send a message again may add.
const SIGNED: &[&str] = &[
    "Sender",
    "Resent-Date",
    "Resent-From",
    "Resent-Sender",
    "Resent-To",
    "Resent-Cc",
    "List-Id",
    "List-Help",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
];

/// RFC 6376 §5.4: what is taken out, added or put first on the way.
const CHANGING: &[&str] = &[
    "Return-Path",
    "Received",
    "Bcc",
    "Resent-Bcc",
    "DKIM-Signature",
    "Authentication-Results",
];

/// A signature that ends sooner could end in a queue.
const SHORTEST_EXPIRE: Duration = Duration::from_secs(24 * 3600);

/// `[signing]`: what our signatures cover, and which keys sign for whom.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How much header and body may change on the way (RFC 6376 §3.4).
    pub canonicalization: Canonicalization,
    /// Fields that are signed once more than they occur, so that none can be added.
    pub oversign: Vec<String>,
    /// Fields that are signed where they occur.
    pub fields: Vec<String>,
    /// After what time a signature counts no more (RFC 6376 §3.5, x=). Default: never.
    #[serde(with = "humantime_serde")]
    pub expire: Option<Duration>,
    /// Whom a signature names as the one it is for (RFC 6376 §3.5, i=).
    pub identity: Identity,
    /// Whether the keys of a domain sign for authors in its subdomains too.
    pub subdomains: bool,
    /// Who signs for whom, other than by the author's domain. The first that fits decides.
    pub rule: Vec<Rule>,
}

impl Default for Config {
    fn default() -> Config {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect();
        Config {
            canonicalization: Canonicalization::default(),
            oversign: names(OVERSIGNED),
            fields: names(SIGNED),
            expire: None,
            identity: Identity::Domain,
            subdomains: false,
            rule: Vec::new(),
        }
    }
}

impl Config {
    /// What is wrong: the key, and what would be right.
    pub fn faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let lists = [("oversign", &self.oversign), ("fields", &self.fields)];
        for (key, list) in lists {
            for (index, name) in list.iter().enumerate() {
                if let Some(message) = field_fault(name) {
                    faults.push((format!("{key}.{index}"), message));
                }
            }
        }
        let mut names = self.oversign.iter().chain(&self.fields);
        // RFC 6376 §5.4
        if !names.any(|name| name.eq_ignore_ascii_case("From")) {
            let right = "\"From\" must be signed; add it, best here";
            faults.push(("oversign".to_owned(), right.to_owned()));
        }
        if self.expire.is_some_and(|expire| expire < SHORTEST_EXPIRE) {
            let right = "must be \"1day\" or more: a message may wait that long in a queue";
            faults.push(("expire".to_owned(), right.to_owned()));
        }
        if let Identity::Given(_) = self.identity {
            let right = "an address can only be given in a [[signing.rule]]; give \"domain\" or \
                         \"author\" here";
            faults.push(("identity".to_owned(), right.to_owned()));
        }
        for (index, rule) in self.rule.iter().enumerate() {
            if let Some(message) = rule.fault() {
                faults.push((format!("rule.{index}.identity"), message));
            }
        }
        faults
    }
}

fn field_fault(name: &str) -> Option<String> {
    // RFC 5322 §3.6.8
    let is_name = !name.is_empty() && name.bytes().all(|b| (33..=126).contains(&b) && b != b':');
    if !is_name {
        return Some(format!(
            "{name:?} is not the name of a field, such as \"Subject\""
        ));
    }
    let is_changing = CHANGING
        .iter()
        .any(|field| field.eq_ignore_ascii_case(name));
    is_changing
        .then(|| format!("{name} changes on the way and would break the signature; leave it out"))
}

/// RFC 6376 §3.4: header, then body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub enum Canonicalization {
    /// White space may change in both.
    #[default]
    #[serde(rename = "relaxed/relaxed")]
    RelaxedRelaxed,
    /// White space may change in the header alone.
    #[serde(rename = "relaxed/simple")]
    RelaxedSimple,
    /// White space may change in the body alone.
    #[serde(rename = "simple/relaxed")]
    SimpleRelaxed,
    /// Nothing may change but empty lines at the end.
    #[serde(rename = "simple/simple")]
    SimpleSimple,
}

/// Whom a signature names in i=.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum Identity {
    /// Nobody but the domain that signs: there is no i=.
    Domain,
    /// The author's address.
    Author,
    /// This address, or a domain with @ before it.
    Given(Named),
}

/// An address without a name before the @, or with one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    text: String,
    domain: Domain,
}

impl Named {
    /// What stands right of the @.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// As it stands in i=.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Identity {
    type Error = String;

    fn try_from(text: String) -> Result<Identity, String> {
        match text.as_str() {
            "domain" => return Ok(Identity::Domain),
            "author" => return Ok(Identity::Author),
            _ => {}
        }
        let wrong = || {
            format!(
                "{text:?} is unknown; give \"domain\", \"author\" or an address such as \
                 \"@news.example.com\""
            )
        };
        let (local, domain) = text.rsplit_once('@').ok_or_else(wrong)?;
        let domain = Domain::parse(domain).map_err(|_| wrong())?;
        let text = format!("{local}@{domain}");
        let is_local = local.is_empty() || Address::parse(&text).is_ok();
        if !is_local {
            return Err(wrong());
        }
        Ok(Identity::Given(Named { text, domain }))
    }
}

/// `[[signing.rule]]`: keys for some authors.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Whose mail: an address in which `*` stands for any text.
    pub from: Pattern,
    /// The keys, each of which signs. None: such mail is not signed.
    pub keys: Vec<KeyName>,
    /// The same as in `[signing]`, for this rule.
    #[serde(default)]
    pub identity: Option<Identity>,
}

impl Rule {
    fn fault(&self) -> Option<String> {
        let Some(Identity::Given(named)) = &self.identity else {
            return None;
        };
        // RFC 6376 §3.5: i= is the domain of d= or below it.
        let stranger = self
            .keys
            .iter()
            .find(|key| !is_within(named.domain(), &key.domain))?;
        Some(format!(
            "must be in {0} or below it, for the key {stranger} signs as {0}",
            stranger.domain
        ))
    }
}

/// Whether `domain` is `parent` or below it.
pub(super) fn is_within(domain: &Domain, parent: &Domain) -> bool {
    let rest = domain.as_str().strip_suffix(parent.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// One of `dkim` in `[domains.NAME]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyFile {
    /// The name under which its public key is published.
    pub selector: Selector,
    /// The private key, in PEM.
    pub key: PathBuf,
}

impl KeyFile {
    /// What is wrong with the keys of a domain: the key of the file, and what would be right.
    pub fn faults(list: &[KeyFile]) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        for (index, file) in list.iter().enumerate() {
            if !file.key.is_absolute() {
                let right = "give the full path, from the first / on";
                faults.push((format!("{index}.key"), right.to_owned()));
            }
            let before = &list[..index];
            if before.iter().any(|other| other.selector == file.selector) {
                let right = "the domain has a key of this selector already; keep one of them";
                faults.push((format!("{index}.selector"), right.to_owned()));
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_say_what_would_be_right() {
        let rule = |identity: &str| Rule {
            from: "*@news.example.com".to_owned().try_into().unwrap(),
            keys: vec!["example.com/s1".to_owned().try_into().unwrap()],
            identity: Some(identity.to_owned().try_into().unwrap()),
        };
        let config = Config {
            oversign: vec!["Subject".to_owned()],
            fields: vec!["To:".to_owned(), "received".to_owned()],
            expire: Some(Duration::from_secs(3600)),
            identity: "a@example.com".to_owned().try_into().unwrap(),
            rule: vec![rule("@news.example.com"), rule("@other.example")],
            ..Config::default()
        };
        let faults = config.faults();
        let keys: Vec<_> = faults.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(
            keys,
            [
                "fields.0",
                "fields.1",
                "oversign",
                "expire",
                "identity",
                "rule.1.identity"
            ]
        );
        assert_eq!(Config::default().faults(), []);
    }

    #[test]
    fn what_is_no_identity_is_refused() {
        for text in [
            "nobody",
            "a b@example.com",
            "@",
            "a@b@example.com",
            "<a@b.c>",
        ] {
            assert!(Identity::try_from(text.to_owned()).is_err(), "{text:?}");
        }
    }

    #[test]
    fn keys_of_a_domain_are_told_apart_by_their_selectors() {
        let file = |selector: &str, key: &str| KeyFile {
            selector: selector.parse().unwrap(),
            key: key.into(),
        };
        let faults = KeyFile::faults(&[file("a", "/k"), file("A", "k"), file("b", "/k")]);
        let keys: Vec<_> = faults.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["1.key", "1.selector"]);
    }

    #[test]
    fn a_domain_is_within_itself_and_its_parents() {
        let within =
            |a: &str, b: &str| is_within(&Domain::parse(a).unwrap(), &Domain::parse(b).unwrap());
        assert!(within("example.com", "example.com"));
        assert!(within("a.b.example.com", "example.com"));
        assert!(!within("badexample.com", "example.com"));
        assert!(!within("example.com", "a.example.com"));
    }

    #[test]
    fn a_fault_names_its_line_and_what_would_be_right() {
        let text = "hostname = 'mx.example.com'\n[signing]\ncanonicalization = 'relaxed'\n\
                    oversign = ['From', 'Received']\nexpire = '1h'\n[[signing.rule]]\nfrom = 'news'\n\
                    keys = ['example.com']\n[domains.'example.com']\n\
                    dkim = [{ selector = 'a b', key = '/k' }, { selector = 'c', key = 'k' }]\n";
        let faults = crate::config::Config::parse(text).unwrap_err();
        let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
        let starts = [
            "3: signing.canonicalization: \"relaxed\" is unknown; allowed:",
            "4: signing.oversign[2]: Received changes on the way",
            "5: signing.expire: must be \"1day\" or more",
            "7: signing.rule[1].from: \"news\" can fit no address; give one,",
            "8: signing.rule[1].keys[1]: \"example.com\" is no key; give domain and selector",
            "10: domains.\"example.com\".dkim[1].selector: \"a b\" is no selector",
            "10: domains.\"example.com\".dkim[2].key: give the full path",
        ];
        assert_eq!(lines.len(), starts.len(), "{lines:#?}");
        for (line, start) in lines.iter().zip(starts) {
            assert!(line.starts_with(start), "{line}\n{start}");
        }
    }
}
