//! The configuration file as one struct of the parts' own Configs.
//!
//! [`Config::read`] gives a configuration that may be put in force, or every fault of the file at
//! once, each with its line, its key, what is wrong and what would be right. What can only be seen
//! outside of the file (a port in use, a directory that is not there) is not looked at here.

pub mod document;
pub mod domains;
pub mod fault;
mod node;
pub mod reader;
pub mod routes;
pub mod sendmail;
#[cfg(test)]
mod shipped;
pub mod submission;
mod tls_terms;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::Deserialize;

use crate::accept;
use crate::accept::Defaults;
use crate::acme;
use crate::admin;
use crate::config::document::Document;
use crate::config::document::KeyPath;
use crate::config::domains::Domains;
use crate::config::fault::Fault;
use crate::config::fault::Faults;
use crate::config::reader::Reading;
use crate::config::sendmail::Sendmail;
use crate::config::submission::Submission;
use crate::delivery;
use crate::delivery::route::Route;
use crate::delivery::routing;
use crate::delivery::routing::Way;
use crate::directory;
use crate::dns;
use crate::http;
use crate::mail::address::Address;
use crate::mail::address::Domain;
use crate::pipeline;
use crate::report;
use crate::scheduler;
use crate::session;
use crate::session::Service;
use crate::session::TlsMode;
use crate::sign;
use crate::spool;
use crate::telemetry::log;
use crate::tls;
use crate::verify;

/// Where the file is looked for.
pub const DEFAULT_PATH: &str = "/etc/gatepost/gatepost.toml";

/// The whole file.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name we greet with, as the world's DNS knows this machine. No default.
    pub hostname: Domain,
    /// Where the spool, made certificates and Maildirs live.
    pub data_dir: PathBuf,
    /// Whom to become once the ports are bound, when started as root. Default: nobody else.
    pub user: Option<String>,
    /// Where connections are taken. Default: mail from the world on port 25.
    pub listen: Vec<accept::Listen>,
    /// How many connections, and from whom.
    pub limits: accept::Limits,
    /// `[tls]`: certificates, and how old a TLS may be.
    pub tls: tls::Config,
    /// `[acme]`: certificates that the gateway gets for itself.
    pub acme: acme::Config,
    /// `[http]`: where the Web's protocols are taken, for those who ask whether a name is ours.
    pub http: http::Config,
    /// `[dns]`: who is asked, and for how long.
    pub dns: dns::Config,
    /// `[spool]`: where messages are kept until they are delivered, and how much room is left free.
    pub spool: spool::Config,
    /// `[delivery]`: how the next hop is spoken to.
    pub delivery: delivery::Config,
    /// `[queue]`: how much is tried at once, and how often.
    pub queue: scheduler::Config,
    /// `[bounces]`: what senders are told of their mail.
    pub bounces: report::Config,
    /// `[session]`: the limits of one dialogue.
    pub session: session::Config,
    /// `[submission]`: who may log in, as whom they may send, and how much.
    pub submission: Submission,
    /// `[sendmail]`: mail of this machine's own users.
    pub sendmail: Sendmail,
    /// `[directory]`: how long an answer about a recipient is believed.
    pub directory: directory::Config,
    /// `[internal]`: whose mail is taken without a login.
    pub internal: pipeline::internal::Config,
    /// `[spf]`: what becomes of a client that SPF does not let pass.
    pub spf: pipeline::spf::Config,
    /// `[structure]`: what becomes of a message that is not well formed.
    pub structure: pipeline::structure::Config,
    /// `[dmarc]`: what becomes of a message that DMARC does not let pass.
    pub dmarc: pipeline::authenticity::Config,
    /// `[signing]`: what our DKIM signatures cover, and which keys sign for whom.
    pub signing: sign::Config,
    /// `[verify]`: the limits of the checks.
    pub verify: verify::Config,
    /// `[admin]`: the door for metrics and health.
    pub admin: admin::Config,
    /// `[log]`: what is written, how and where.
    pub log: log::Config,
    /// Where mail goes that is not for one of our domains, and that no route names: a route, or a next
    /// hop. Default: to the mail exchangers of its domain.
    pub relay: Way,
    /// `[routes.NAME]`: ways out, and how they are gone.
    pub routes: BTreeMap<String, Route>,
    /// Whom we take mail for. No default.
    pub domains: Domains,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            hostname: missing_hostname(),
            data_dir: PathBuf::from("/var/lib/gatepost"),
            user: None,
            listen: Vec::new(),
            limits: accept::Limits::default(),
            tls: tls::Config::default(),
            acme: acme::Config::default(),
            http: http::Config::default(),
            dns: dns::Config::default(),
            spool: spool::Config::default(),
            delivery: delivery::Config::default(),
            queue: scheduler::Config::default(),
            bounces: report::Config::default(),
            session: session::Config::default(),
            submission: Submission::default(),
            sendmail: Sendmail::default(),
            directory: directory::Config::default(),
            internal: pipeline::internal::Config::default(),
            spf: pipeline::spf::Config::default(),
            structure: pipeline::structure::Config::default(),
            dmarc: pipeline::authenticity::Config::default(),
            signing: sign::Config::default(),
            verify: verify::Config::default(),
            admin: admin::Config::default(),
            log: log::Config::default(),
            relay: Way::Route(routing::INTERNET.to_owned()),
            routes: BTreeMap::new(),
            domains: Domains::new(),
        }
    }
}

/// Stands where no name was given, so that the rest can be judged; a file without a name is at fault.
#[expect(clippy::expect_used, reason = "the name is a constant")]
fn missing_hostname() -> Domain {
    // RFC 6761 §6.4: this name cannot exist.
    Domain::parse("missing.invalid").expect("the constant is a valid name")
}

impl Config {
    /// Reads and judges the file at `path`.
    pub fn read(path: &Path) -> Result<Config, Faults> {
        let bytes = std::fs::read(path).map_err(|source| Faults::Unreadable {
            path: path.to_owned(),
            source,
        })?;
        let text = std::str::from_utf8(&bytes).map_err(|error| vec![not_text(&bytes, error)]);
        let config = text.and_then(Config::parse);
        config.map_err(|faults| Faults::Wrong {
            path: path.to_owned(),
            faults,
        })
    }

    /// Reads and judges the text of a file. Faults are in the order of their lines.
    pub fn parse(text: &str) -> Result<Config, Vec<Fault>> {
        let document = Document::parse(text)?;
        let mut faults = domains::name_faults(&document);
        let struck = faults.iter().map(|(path, _)| path.clone()).collect();
        let reading: Reading<Config> = reader::read(&document, struck);

        let top = reading.sections.get(&KeyPath::default());
        let top = top.copied().unwrap_or_default();
        for (path, problem) in &reading.faults {
            let value = document.value(path);
            let path = match problem {
                reader::Problem::MissingKey(key) => path.key(key),
                _ => path.clone(),
            };
            faults.push((path, fault::words(problem, value, top)));
        }
        if let Some(config) = &reading.value {
            let found = config.faults();
            let found = found.into_iter().map(|(path, message)| {
                let path = document.with_struck_elements(&path, &reading.struck);
                (domains::as_written(&document, path), message)
            });
            faults.extend(found.filter(|(path, _)| {
                !is_touched(path, &reading.struck) && !reading.is_misspelt(&document, path)
            }));
        }
        match reading.value {
            Some(config) if faults.is_empty() => Ok(config),
            _ => Err(placed(&document, faults)),
        }
    }

    /// What is wrong with the values, each alone or together, with where it stands.
    pub fn faults(&self) -> Vec<(KeyPath, String)> {
        let mut faults = Vec::new();
        let mut section = |path: &str, found: Vec<(String, String)>| {
            let path = KeyPath::parse(path);
            let found = found.into_iter();
            faults.extend(found.map(|(key, message)| (path.join(&KeyPath::parse(&key)), message)));
        };
        section("", self.top_faults());
        section("listen", accept::Listen::faults(&self.listen));
        section("tls", self.tls.faults());
        section("listen", self.listener_tls_faults());
        section("internal", self.unasked_certificates());
        section("limits", self.limits.faults());
        section("acme", self.acme.faults());
        section("dns", self.dns.faults());
        section("spool", self.spool.faults());
        section("delivery", self.delivery.faults());
        section("queue", self.queue.faults());
        section("bounces", self.bounces.faults());
        section("session", self.session.faults());
        section("submission", self.submission.faults());
        section("listen", self.submission_faults());
        section("sendmail", self.sendmail.faults());
        section("directory", self.directory.faults());
        section("internal", self.internal.faults());
        section("spf", self.spf.faults());
        section("structure", self.structure.faults());
        section("signing", self.signing.faults());
        section("verify", self.verify.faults());
        section("admin", self.admin.faults());
        section("directory", self.postmaster_faults());
        faults.extend(self.route_faults());
        faults
    }

    /// The keys that the file names for each domain that we sign for: ours, and our own name, from
    /// which bounces come.
    pub fn signing_domains(&self) -> sign::Domains {
        let ours = self.domains.iter();
        let ours = ours.map(|(name, section)| (name.clone(), section.dkim.clone()));
        [(self.hostname.clone(), None)]
            .into_iter()
            .chain(ours)
            .collect()
    }

    /// The certificates: those that the file names, and those that the gateway gets for itself.
    pub fn certificates(&self) -> tls::Config {
        let wanted = self.acme.wanted(&self.hostname);
        let obtained = wanted.iter().map(|wanted| wanted.files(&self.data_dir));
        tls::Config {
            obtained: obtained.collect(),
            ..self.tls.clone()
        }
    }

    /// What is listened on where the file has no `[[listen]]`.
    pub fn default_listeners(&self) -> Defaults {
        match self.submission.users {
            Some(_) => Defaults::MxAndSubmission,
            None => Defaults::Mx,
        }
    }

    /// What is put behind a name without a domain in mail of this machine's own users.
    pub fn local_domain(&self) -> &Domain {
        let is_ours = self.domains.contains_key(&self.hostname);
        let first = self.domains.keys().next().filter(|_| !is_ours);
        let named = self.sendmail.domain.as_ref();
        named.or(first).unwrap_or(&self.hostname)
    }

    /// What the pipeline is told of mail of ours.
    pub fn submission_stages(&self) -> pipeline::submission::Config {
        let accounts = self.sendmail.accounts(self.local_domain(), &self.hostname);
        self.submission.stages(accounts)
    }

    /// The networks whose machines may send to anywhere without a login; none without a listener for them.
    pub fn relaying_networks(&self) -> &[IpNet] {
        let mut listeners = self.listen.iter();
        match listeners.any(|listen| listen.service == Service::Internal) {
            true => &self.internal.networks,
            false => &[],
        }
    }

    /// Each listener in a few words, with the defaults filled in.
    pub fn listeners(&self) -> Vec<String> {
        let words = |service: Service, tls| {
            let tls = match tls {
                TlsMode::Off => "off",
                TlsMode::Starttls => "starttls",
                TlsMode::Implicit => "implicit",
            };
            format!("({}, tls {tls})", service.name())
        };
        if self.listen.is_empty() {
            let ports = self.default_listeners().ports().iter();
            let shown = ports.map(|(port, service, tls)| {
                format!("port {port} of all addresses {}", words(*service, *tls))
            });
            return shown.collect();
        }
        let listener = |listen: &accept::Listen| {
            let addresses: Vec<_> = listen.address.iter().map(ToString::to_string).collect();
            format!(
                "{} {}",
                addresses.join(" "),
                words(listen.service, listen.tls)
            )
        };
        self.listen.iter().map(listener).collect()
    }

    /// Listeners for users of whom there are none.
    fn submission_faults(&self) -> Vec<(String, String)> {
        if self.submission.users.is_some() {
            return Vec::new();
        }
        let right = "nobody could log in; say who may with the key users of [submission]";
        let listeners = self.listen.iter().enumerate();
        let idle = listeners.filter(|(_, listen)| listen.service == Service::Submission);
        idle.map(|(index, _)| (format!("{index}.service"), right.to_owned()))
            .collect()
    }

    fn postmaster_faults(&self) -> Vec<(String, String)> {
        let domain = self.directory.postmaster.as_ref().map(Address::domain);
        let is_ours = |domain: &Domain| self.domains.contains_key(domain);
        if domain.is_none_or(|domain| domain.is_some_and(is_ours)) {
            return Vec::new();
        }
        let right = "we take no mail for this address; give one in a domain that has a section \
                     [domains.\"...\"]";
        vec![("postmaster".to_owned(), right.to_owned())]
    }

    fn top_faults(&self) -> Vec<(String, String)> {
        let mut faults = Vec::new();
        let mut fault = |key: &str, message: &str| faults.push((key.into(), message.into()));
        if self.hostname == missing_hostname() {
            fault(
                "hostname",
                "missing; give the name that the DNS has for this machine, such as \"mx.example.com\"",
            );
        } else if !is_world_name(&self.hostname) && !self.is_on_loopback_only() {
            fault(
                "hostname",
                "the world does not know this name; give the full name that the DNS has for this \
                 machine, such as \"mx.example.com\"",
            );
        }
        if !self.data_dir.is_absolute() {
            fault("data_dir", "give the full path, from the first / on");
        } else if let Err(error) = self.maildirs() {
            fault(
                "data_dir",
                &format!("Maildirs cannot be kept there: {error}"),
            );
        }
        if self.user.as_deref() == Some("root") {
            fault(
                "user",
                "must not be root; give a user who may do nothing else",
            );
        }
        if self.domains.is_empty() {
            fault(
                "domains",
                "no domain to take mail for; add a section such as [domains.\"example.com\"]",
            );
        }
        faults
    }

    /// Whether nobody but this machine can reach us.
    pub fn is_on_loopback_only(&self) -> bool {
        // Without a section we listen on all addresses.
        let mut addresses = self.listen.iter().flat_map(|listen| &listen.address);
        !self.listen.is_empty()
            && addresses.all(|address| address.ip().to_canonical().is_loopback())
    }
}

/// RFC 5321 §2.3.5: only resolvable, fully qualified names; RFC 6761, RFC 6762 and RFC 8375: what cannot be one.
fn is_world_name(hostname: &Domain) -> bool {
    let name = hostname.as_str();
    let top = name.rsplit('.').next().unwrap_or(name);
    let local = [
        "localhost",
        "localdomain",
        "local",
        "invalid",
        "lan",
        "internal",
    ];
    name.contains('.')
        && !name.contains('_')
        && !local.contains(&top)
        && !top.bytes().all(|b| b.is_ascii_digit())
}

/// Whether a fault of value may only follow from something that was struck out.
fn is_touched(path: &KeyPath, struck: &BTreeSet<KeyPath>) -> bool {
    struck
        .iter()
        .any(|other| path.holds(other) || other.holds(path))
}

/// Gives each fault its line; one fault a key is enough.
fn placed(document: &Document<'_>, faults: Vec<(KeyPath, String)>) -> Vec<Fault> {
    let mut faults: Vec<_> = faults
        .into_iter()
        .map(|(path, message)| Fault {
            line: document.line_of(&path),
            column: None,
            key: path.to_string(),
            message,
        })
        .collect();
    faults.sort_by_key(|fault| fault.line);
    faults
}

fn not_text(bytes: &[u8], error: std::str::Utf8Error) -> Fault {
    let before = &bytes[..error.valid_up_to()];
    Fault {
        line: memchr::memchr_iter(b'\n', before).count() + 1,
        column: None,
        key: String::new(),
        message: "not UTF-8; save the file as UTF-8".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        let faults = Config::parse(text).err().unwrap_or_default();
        faults.iter().map(Fault::to_string).collect()
    }

    const GOOD: &str = "hostname = 'mx.example.com'\n[domains.'example.com']\n";

    #[test]
    fn two_lines_are_a_configuration() {
        let config = Config::parse(GOOD).unwrap();
        let domains = config.domains.clone();
        assert_eq!(
            config,
            Config {
                hostname: Domain::parse("mx.example.com").unwrap(),
                domains,
                ..Config::default()
            }
        );
    }

    #[test]
    fn every_fault_is_said_at_once_with_line_key_and_remedy() {
        for (text, want) in [
            (
                "",
                vec![
                    "1: hostname: missing; give the name that the DNS has for this machine, such \
                     as \"mx.example.com\"",
                    "1: domains: no domain to take mail for; add a section such as \
                     [domains.\"example.com\"]",
                ],
            ),
            (
                "hostname = 'mx example'\nuser = 5\n[domains.'example.com']\ndelivr = 'x'\n\
                 recipients = 'cal_out'\n[domains.'b.example']\ndeliver = 'lmpt:unix:/x'\n\
                 [admin]\nlisten = '192.0.2.1:80'\n[log]\nformat = 'xml'\nlevel = 'inof'\n[dnss]\n",
                vec![
                    "1: hostname: \"mx example\": the domain is not valid",
                    "2: user: 5 is not text in quotes",
                    "4: domains.\"example.com\".delivr: unknown key; did you mean deliver?",
                    "5: domains.\"example.com\".recipients: \"cal_out\" is unknown; give \"any\", \
                     \"callout\" or the full path of a file",
                    "7: domains.\"b.example\".deliver: \"lmpt:unix:/x\" is no delivery target; write \
                     lmtp:unix:/PATH, lmtp:HOST:PORT, smtp:HOST:PORT, mx or \
                     maildir:/PATH/{domain}/{local}",
                    "9: admin.listen: 192.0.2.1:80 can be reached from outside, and this door asks \
                     nobody who they are; give a loopback address, such as \"127.0.0.1:80\"",
                    "11: log.format: \"xml\" is unknown; allowed: \"text\", \"json\"",
                    "12: log.level: \"inof\" is unknown; did you mean \"info\"? allowed: \"error\", \
                     \"warn\", \"info\", \"debug\", \"trace\"",
                    "13: dnss: unknown key; did you mean dns?",
                ],
            ),
            (
                "hostname = 'mx.example.com'\ndata_dir = 'spool'\nuser = 'root'\n\
                 [domains.'*']\n[domains.'example.com']\n[domains.'Example.COM']\n\
                 [domains.'192.0.2.1']\n[domains.'a..b']\n[domains.b.example]\ndeliver = 'lmtp:x'\n",
                vec![
                    "2: data_dir: give the full path, from the first / on",
                    "3: user: must not be root; give a user who may do nothing else",
                    "4: domains.\"*\": there are no wildcards, they would make an open relay; name \
                     each domain",
                    "6: domains.\"Example.COM\": the domain was given before, in line 5; keep one \
                     of them",
                    "7: domains.\"192.0.2.1\": an IP address is not a domain; give its name",
                    "8: domains.\"a..b\": this is not the name of a domain: the domain is not valid",
                    "9: domains.b: a name with dots needs quotes here: [domains.\"b.example\"]",
                ],
            ),
            (
                "hostname = 'localhost'\nlisten = []\n[domains.'*.example.com']",
                vec![
                    "1: hostname: the world does not know this name; give the full name that the \
                     DNS has for this machine, such as \"mx.example.com\"",
                    "3: domains.\"*.example.com\": there are no wildcards, they would make an open \
                     relay; name each domain",
                ],
            ),
            (
                "hostname = 'mail.local'\n[domains.'example.com']\n[[listen]]\nadress = 'x'\n\
                 [[listen]]\nservice = 'mx'\naddress = '[::]:25'\n[[listen]]\n\
                 service = 'mx'\naddress = ['[::1]:25', '[::]:25']\n",
                vec![
                    "1: hostname: the world does not know this name; give the full name that the \
                     DNS has for this machine, such as \"mx.example.com\"",
                    "3: listen[1].service: missing; this key has no default",
                    "4: listen[1].adress: unknown key; did you mean address?",
                    "10: listen[3].address: [::]:25 is given twice; one of them has to go",
                ],
            ),
            (
                "hostname = 'mx.example.com'\ndata_dir = '/x/{y}'\n[domains.'Example.com']\n\
                 recipients = 'callout'\n",
                vec![
                    "2: data_dir: Maildirs cannot be kept there: {y} has no meaning in a maildir \
                     path; there are {domain} and {local}",
                    "4: domains.\"Example.com\".recipients: a Maildir cannot be asked; give \
                     \"any\" or the full path of a file",
                ],
            ),
            (
                "hostname = 'mx.example.com'\n[domains.'example.com']\n[[listen]]\n\
                 service = 'mx'\naddress = 25\n",
                vec!["5: listen[1].address: 25: an address with port or a list of such"],
            ),
            (
                "hostnam = 'mx.example.com'\n[domain.'example.com']\n",
                vec![
                    "1: hostnam: unknown key; did you mean hostname?",
                    "2: domain: unknown key; did you mean domains?",
                ],
            ),
            (
                "[queue]\njitter = 2.0\n[delivery.deadlines]\nmail = '0s'\n[verify]\n\
                 min_key_bits = 512\n[domains.'example.com']\n",
                vec![
                    "1: hostname: missing; give the name that the DNS has for this machine, such \
                     as \"mx.example.com\"",
                    "2: queue.jitter: write a number from 0 to 1, as in 0.2",
                    "4: delivery.deadlines.mail: no server answers in no time; write a duration, \
                     as in \"5min\"",
                    "6: verify.min_key_bits: must be 1024 or more: shorter keys are broken by \
                     anyone (RFC 8301)",
                ],
            ),
            (
                "hostname = 'mx.example.com'\n[directory]\npostmaster = 'a@b.example'\n\
                 [domains.'example.com']\n",
                vec![
                    "3: directory.postmaster: we take no mail for this address; give one in a \
                     domain that has a section [domains.\"...\"]",
                ],
            ),
            (
                "hostname = mx.example.com\n[limits\n",
                vec![
                    "1:12: not TOML: string values must be quoted, expected literal string",
                    "2:8: not TOML: unclosed table, expected `]`",
                ],
            ),
        ] {
            assert_eq!(lines(text), want, "{text}");
        }
    }

    #[test]
    fn the_values_of_each_section_are_judged() {
        for (section, wrong) in [
            ("limits", "connections = 0"),
            ("dns", "attempts = 0"),
            ("delivery", "recipients = 0"),
            ("queue", "attempts = 0"),
            ("submission", "timeout = '0s'"),
            ("sendmail", "directory = 'spool'"),
            ("internal", "networks = ['0.0.0.0/0']"),
            ("spf", "fail = 'hold'"),
            ("structure", "missing_date = 'mark'"),
            ("verify", "min_key_bits = 512"),
            ("admin", "listen = '192.0.2.1:80'"),
        ] {
            let key = wrong.split(' ').next().unwrap();
            let found = lines(&format!("{GOOD}[{section}]\n{wrong}\n"));
            assert_eq!(found.len(), 1, "{section}: {found:?}");
            assert!(
                found[0].starts_with(&format!("4: {section}.{key}")),
                "{found:?}"
            );
        }
    }

    #[test]
    fn a_name_without_a_domain_gets_one_of_ours() {
        for (text, want) in [
            (
                "[domains.'b.example']\n[domains.'a.example']\n",
                "a.example",
            ),
            (
                "[domains.'a.example']\n[domains.'mx.example.com']\n",
                "mx.example.com",
            ),
            (
                "[sendmail]\ndomain = 'c.example'\n[domains.'a.example']\n",
                "c.example",
            ),
        ] {
            let config = Config::parse(&format!("hostname = 'mx.example.com'\n{text}")).unwrap();
            assert_eq!(config.local_domain().as_str(), want, "{text}");
        }
    }

    #[test]
    fn submission_needs_users_and_tls() {
        let listen = "[[listen]]\nservice = 'submission'\naddress = '127.0.0.1:587'\n";
        let found = lines(&format!("{GOOD}{listen}"));
        assert!(
            found[0].starts_with("4: listen[1].service: nobody could log in;"),
            "{found:?}"
        );
        let found = lines(&format!(
            "{GOOD}{listen}tls = 'off'\n[submission]\nusers = 'file'\n"
        ));
        assert!(found[0].starts_with("6: listen[1].tls: "), "{found:?}");
        let found = lines(&format!("{GOOD}[submission]\nusers = 'dovecot'\n"));
        assert!(
            found[0].contains("\"dovecot\" is unknown; give \"file\""),
            "{found:?}"
        );
        let config = Config::parse(&format!("{GOOD}[submission]\nusers = 'file'\n")).unwrap();
        let ports: Vec<_> = config
            .listeners()
            .iter()
            .map(|text| text[..8].to_owned())
            .collect();
        assert_eq!(ports, ["port 25 ", "port 465", "port 587"]);
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_typed_is_read_or_has_a_fault(
            text in "([a-z_]{1,8}|domains|listen|limits|hostname|address|[\\[\\]{}=.,'\"\n *5é]){0,40}"
        ) {
            if let Err(faults) = Config::parse(&text) {
                assert!(!faults.is_empty());
            }
        }
    }

    #[test]
    fn a_name_for_this_machine_alone_is_right_where_only_this_machine_listens() {
        let text = "hostname = 'localhost'\n[domains.'example.com']\n[[listen]]\nservice = 'mx'\naddress = ";
        assert_eq!(
            lines(&format!("{text}'127.0.0.1:2525'")),
            Vec::<String>::new()
        );
        assert_eq!(lines(&format!("{text}'0.0.0.0:2525'")).len(), 1);
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("none.toml");
        for path in [missing.as_path(), folder.path()] {
            let faults = Config::read(path).unwrap_err();
            assert!(matches!(faults, Faults::Unreadable { .. }), "{faults:?}");
        }
        let latin = folder.path().join("latin.toml");
        std::fs::write(&latin, b"hostname = 'x'\n# gr\xfc\xdfe\n").unwrap();
        assert_eq!(
            Config::read(&latin).unwrap_err().to_string(),
            format!("{}:2: not UTF-8; save the file as UTF-8", latin.display())
        );
    }
}
