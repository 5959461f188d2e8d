//! Where what survives a kill goes to, and by where it comes in.

use std::fs;
use std::fs::Permissions;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;

use rand::Rng;
use rand::seq::IndexedRandom;

use crate::support::dovecot;
use crate::support::dovecot::Dovecot;
use crate::support::gateway::Gateway;
use crate::support::gateway::HOSTNAME;
use crate::support::gateway::Site;
use crate::support::load::Entrance;
use crate::support::mailbox::Mailbox;
use crate::support::mails::DkimKey;
use crate::support::next_hop::Conduct;
use crate::support::next_hop::NextHop;
use crate::support::next_hop::Step;
use crate::support::postfix;
use crate::support::postfix::Onward;
use crate::support::postfix::Postfix;
use crate::support::submission;

/// All who get mail.
const RECIPIENTS: &[&str] = &[
    "user@gate.example",
    "second@gate.example",
    "third@other.example",
    "fourth@other.example",
];
/// Those of them whom the world has.
pub(super) const FAR: &[&str] = &["third@other.example", "fourth@other.example"];
/// Who sends to the world, by a password that is quick to verify.
const USER: &str = "anna@gate.example";
const PASSWORD: &str = "tanstaaftanstaaf";
const HASH: &str = "{SHA256}qaiXMtHAITyGmQjHmwWvrwODspMrrEN6KSrCT9cgKPE=";
/// Attempts at once to one destination.
pub(super) const ATTEMPTS: usize = 8;

/// Where mail goes.
pub(super) enum Sinks {
    Servers(Dovecot, Postfix),
    /// The gateway's own Maildirs.
    Maildirs,
    /// The two mail exchangers of a domain, of which the second fails every now and then.
    Exchangers(Postfix, NextHop),
}

impl Sinks {
    /// Real ones; None where they are not there.
    pub(super) fn servers() -> Option<Sinks> {
        let present = dovecot::present() && postfix::present();
        present.then(|| Sinks::Servers(Dovecot::start(), Postfix::start(Onward::Mailboxes)))
    }

    /// A real one beside one that refuses, puts off or hangs up, and keeps only what it answers for.
    pub(super) fn exchangers() -> Option<Sinks> {
        postfix::present().then(|| {
            let postfix = Postfix::start(Onward::Mailboxes);
            let beside = SocketAddr::from((Ipv4Addr::new(127, 0, 0, 2), postfix.smtp.port()));
            let listener = TcpListener::bind(beside).expect("nobody else is there");
            Sinks::Exchangers(
                postfix,
                NextHop::serve(listener, &[], |step, _| moody(step)),
            )
        })
    }

    pub(super) fn site(&self) -> Site {
        let site = Site::new();
        let own = site.deliver.clone();
        let (first, second) = match self {
            Sinks::Servers(dovecot, postfix) => (dovecot.unix(), local(&postfix.target())),
            Sinks::Maildirs => (own.clone(), local(&own)),
            Sinks::Exchangers(postfix, _) => (own, relaying(&site, postfix.smtp.port())),
        };
        let mut site = site.delivering_to(first).with(&format!(
            "{second}\n[spool]\nlarge_message = \"64KiB\"\nsegment_size = \"8MiB\"\n"
        ));
        site.queue = format!(
            "attempts_per_destination = {ATTEMPTS}\npause_first = \"1s\"\npause_max = \"1s\""
        );
        site
    }

    /// By where the clients come in, and to whom they write.
    pub(super) fn entrance(&self, gateway: &Gateway) -> (Entrance, &'static [&'static str]) {
        match self {
            Sinks::Servers(..) | Sinks::Maildirs => (Entrance::Open(gateway.smtp()), RECIPIENTS),
            Sinks::Exchangers(..) => {
                let entrance = Entrance::Submission {
                    address: (Ipv4Addr::LOCALHOST, submission::port(gateway)).into(),
                    host: HOSTNAME,
                    root: gateway.site.certificate.der.clone(),
                    user: USER,
                    password: PASSWORD,
                };
                (entrance, FAR)
            }
        }
    }

    /// How many there are for [`ATTEMPTS`].
    pub(super) fn destinations(&self) -> usize {
        match self {
            Sinks::Servers(..) | Sinks::Maildirs => 2,
            Sinks::Exchangers(..) => 1,
        }
    }

    /// Otherwise the one that fails was not tried.
    pub(super) fn assert_each_exchanger_had_a_part(&self) {
        if let Sinks::Exchangers(postfix, hop) = self {
            assert!(!hop.taken().is_empty());
            assert!(!postfix.mailbox("third").messages().is_empty());
        }
    }

    /// What a recipient has; the site is asked for its own Maildirs.
    pub(super) fn messages(&self, site: Option<&Site>, recipient: &str) -> Vec<String> {
        let (local, domain) = recipient.split_once('@').expect("an address");
        match (self, domain) {
            (Sinks::Servers(dovecot, _), "gate.example") => dovecot.mailbox(local).messages(),
            (Sinks::Servers(_, postfix), _) => postfix.mailbox(local).messages(),
            (Sinks::Maildirs, _) => {
                let folders = site.map(|site| site.path("mail").join(domain).join(local));
                folders
                    .iter()
                    .flat_map(|folder| Mailbox::at(folder).messages())
                    .collect()
            }
            (Sinks::Exchangers(postfix, hop), _) => {
                let mut messages = postfix.mailbox(local).messages();
                let path = format!("<{recipient}>");
                let taken = hop.taken().into_iter();
                let for_it =
                    taken.filter(|taken| taken.rcpt.iter().any(|line| line.contains(&path)));
                messages.extend(for_it.map(|taken| taken.message.replace("\r\n.", "\r\n")));
                messages
            }
        }
    }
}

/// other.example is ours, too.
fn local(deliver: &str) -> String {
    format!("[domains.\"other.example\"]\ndeliver = \"{deliver}\"\nrecipients = \"any\"\n")
}

/// other.example is somebody else's, with two exchangers at this port; a user may write there, and is
/// signed for.
fn relaying(site: &Site, port: u16) -> String {
    site.dns
        .record("other.example", "MX", "10 mx1.other.example")
        .record("other.example", "MX", "10 mx2.other.example")
        .host("mx1.other.example", "127.0.0.1")
        .host("mx2.other.example", "127.0.0.2");
    let folder = site.path("data/dkim/gate.example");
    fs::create_dir_all(&folder).expect("a folder for the key");
    let (key, users) = (folder.join("s1.pem"), site.path("users"));
    fs::write(&key, DkimKey::new().pem()).expect("written");
    fs::write(&users, format!("{USER} {HASH}\n")).expect("written");
    for secret in [&key, &users] {
        fs::set_permissions(secret, Permissions::from_mode(0o600)).expect("it is ours");
    }
    let users = format!("users = \"file:{}\"\n", users.display());
    format!(
        "[routes.world]\nto = \"mx:{port}\"\nrecipient_domains = [\"other.example\"]\n{}\
         [submission.limits]\nexempt = [\"{USER}\"]\n",
        submission::section(&users)
    )
}

/// One of five connections is refused in some way, and one of ten transactions comes to nothing.
fn moody(step: Step) -> Conduct {
    let some = |conducts: &[Conduct], often: u32| match rand::rng().random_ratio(1, often) {
        true => conducts
            .choose(&mut rand::rng())
            .cloned()
            .unwrap_or(Conduct::Usual),
        false => Conduct::Usual,
    };
    match step {
        Step::Connect => some(
            &[Conduct::HangsUp, Conduct::Says("554 5.3.2 no mail today")],
            5,
        ),
        Step::Hello => some(&[Conduct::HangsUp, Conduct::Says("421 4.3.2 busy")], 20),
        Step::Rcpt => some(
            &[Conduct::HangsUp, Conduct::Says("450 4.7.1 greylisted")],
            20,
        ),
        Step::Message => some(&[Conduct::HangsUp], 30),
        Step::Dot => some(&[Conduct::HangsUp, Conduct::Says("452 4.3.1 full")], 20),
        Step::StartTls | Step::Mail | Step::Data | Step::Quit => Conduct::Usual,
    }
}
