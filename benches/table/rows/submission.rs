//! Mail of a site's users, one message a connection over 20 connections: STARTTLS with a whole handshake,
//! AUTH PLAIN, a signature with RSA of 2048 bits, relayed by SMTP. Against Postfix with Dovecot's
//! authentication and OpenDKIM; what the handshake alone costs is shown beside it.
//!
//! Both have the same users, passwords, certificate (ECDSA, P-256) and signing key, and relay to smtp-sinks
//! without TLS. Passwords are stored by {SSHA512}, which costs next to nothing, and in a second sending by
//! {SHA512-CRYPT} with 5,000 rounds, as most systems have them. The gateway remembers for a minute that a
//! password was right; Dovecot's cache is on, too, but spares it only looking up the hash.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::anyhow;
use anyhow::bail;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use gatepost::mail::address::Domain;
use gatepost::sign::Signer;
use nix::time::ClockId;

use crate::classic_submission::Accounts;
use crate::classic_submission::ClassicSubmission;
use crate::client::Client;
use crate::client::HONEST;
use crate::client::Trust;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::mail;
use crate::mail::Key;
use crate::nameserver::Nameserver;
use crate::sending::CLIENT;
use crate::sending::SIZE;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Series;
use crate::table::Unit;
use crate::wait;
use crate::wait::LONG;

const CONNECTIONS: usize = 20;
/// Where the users are.
const DOMAIN: &str = "gate.example";
const PASSWORD: &str = "correct horse battery staple";
/// Whom they write to.
const FAR: &str = "someone@elsewhere.example";

/// How passwords are stored.
#[derive(Debug, Clone, Copy)]
enum Scheme {
    Ssha512,
    Sha512Crypt,
}

/// [`PASSWORD`], by `openssl passwd -6`.
const SHA512_CRYPT: &str = "$6$Gatepost$/h9oS3Z0du06ho2s1uJK2OsiHd5wCXUP5R0m8Q1HKt.Z6JfKF5KvqPAE8Y8119V7sJV3JPlzY7A0MQ9scYhEx1";

/// One user, who writes as itself.
struct User {
    address: String,
    /// With its scheme.
    hash: String,
    login: String,
    message: String,
}

/// What one server made of one sending.
struct Figures {
    /// A second, until the last was at the sink.
    relayed: f64,
    /// Messages a second of processor time.
    economy: f64,
}

/// Ours and theirs.
type Pair<T> = (T, T);

struct Round {
    /// With passwords that cost nothing.
    plain: Pair<Figures>,
    /// With others.
    crypt: Pair<Figures>,
    /// Milliseconds of processor time for STARTTLS and what belongs to it.
    handshake: Pair<f64>,
    /// The same for a signature.
    signature: f64,
}

/// A server, as the row sees it.
struct Side<'a> {
    server: SocketAddr,
    sink: &'a Sink,
    trust: &'a Trust,
    messages: usize,
    cpu: &'a (dyn Fn() -> Result<Duration> + Sync),
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let users = |scheme| (0..CONNECTIONS).map(move |number| User::new(scheme, number));
    let plain: Vec<_> = users(Scheme::Ssha512).collect();
    let crypt: Vec<_> = users(Scheme::Sha512Crypt).collect();
    let all = || plain.iter().chain(&crypt);
    let folder = setting.folder("users")?;
    let (trust, certificate) = Trust::make(&folder)?;
    let trust = trust.without_resumption();
    let key = Key::make()?;
    let next_hops = [wait::free_address()?, wait::free_address()?];
    let start = |kind| -> Result<[Sink; 2]> {
        let [ours, theirs] = next_hops.map(|address| Sink::start_at(setting, kind, address));
        Ok([ours?, theirs?])
    };
    let kept = start(Kind::KeepingSmtp)?;
    let classic = Accounts {
        passwords: all().map(|user| user.line(":")).collect(),
        domain: DOMAIN,
        dkim: key.pem(),
        certificate: &certificate,
    };
    let classic = ClassicSubmission::start(setting, &kept[1], &classic)?;
    let dns = Nameserver::start(Duration::ZERO, "")?;
    let submission = wait::free_address()?;
    let known: String = all().map(|user| user.line(" ")).collect();
    let sections = sections(submission, next_hops[0], &folder, &key, &known)?;
    let sections = sections + &certificate.section();
    let nobody = format!("lmtp:{}", wait::free_address()?);
    let gateway = Gateway::start(setting, &Config::new(nobody, dns.address, &sections))?;
    wait::until_open(submission, "gatepost")?;
    let servers = [submission, classic.postfix.address];
    for (name, server, sink) in [
        ("gatepost", servers[0], &kept[0]),
        ("postfix", servers[1], &kept[1]),
    ] {
        signs_and_relays(server, sink, &plain[0], &trust)
            .with_context(|| format!("{name} does not do what is measured"))?;
    }
    drop(kept);
    let sinks = start(Kind::CountingSmtp)?;
    let many = setting.options.messages();
    let theirs = Side {
        server: servers[1],
        sink: &sinks[1],
        trust: &trust,
        messages: many / 5,
        cpu: &|| classic.cpu(),
    };
    let ours = Side {
        server: servers[0],
        sink: &sinks[0],
        trust: &trust,
        messages: many,
        cpu: &|| gateway.cpu(),
    };
    let measured = rounds(setting.options.rounds(), || {
        let pair = |users| Ok::<_, anyhow::Error>((ours.send(users)?, theirs.send(users)?));
        Ok(Round {
            plain: pair(&plain)?,
            crypt: pair(&crypt)?,
            handshake: (ours.handshake(&plain)?, theirs.handshake(&plain)?),
            signature: signature(&key, &plain[0])?,
        })
    })?;
    Ok(lines(&measured))
}

/// What the gateway's file has more: a submission port, its users, who signs, and where it relays to.
fn sections(
    submission: SocketAddr,
    next_hop: SocketAddr,
    folder: &Path,
    key: &Key,
    users: &str,
) -> Result<String> {
    let (passwords, dkim) = (folder.join("passwords"), folder.join("s1.pem"));
    mail::write_secret(&passwords, users)?;
    mail::write_secret(&dkim, key.pem())?;
    // The first line goes on with the section of the domain.
    Ok(format!(
        "dkim = [{{ selector = \"s1\", key = {dkim:?} }}]\n\
         [routes.far]\nto = \"smtp:{next_hop}\"\nrecipient_domains = [\"elsewhere.example\"]\n\
         [[listen]]\nservice = \"submission\"\naddress = \"{submission}\"\n\
         [submission]\nusers = \"file:{passwords}\"\n\
         [submission.limits]\nmessages_per_hour = 0\nrecipients_per_hour = 0\n\
         messages_per_day = 0\nrecipients_per_day = 0\n",
        passwords = passwords.display(),
    ))
}

fn lines(measured: &[Round]) -> Vec<Line> {
    let classic = "Postfix, Dovecot, OpenDKIM";
    let economy = |what, pair: fn(&Round) -> &Pair<Figures>| {
        let pairs = measured.iter().map(pair);
        let rates = pairs
            .clone()
            .map(|(ours, theirs)| (ours.economy, theirs.economy));
        let bound = Bound::AtLeast(10.0);
        let line = Line::new(what, Unit::PerCpuSecond, (classic, bound), rates);
        let median = |figures: Vec<f64>| Unit::Milliseconds.show(Series(figures).median());
        line.note(format!(
            "CPU a message: ours {}, theirs {}",
            median(pairs.clone().map(|(ours, _)| 1e3 / ours.economy).collect()),
            median(pairs.map(|(_, theirs)| 1e3 / theirs.economy).collect()),
        ))
    };
    let relayed = measured.iter().map(|round| &round.plain);
    let relayed = relayed.map(|(ours, theirs)| (ours.relayed, theirs.relayed));
    let handshakes = measured.iter().map(|round| round.handshake);
    let signature = Series::of(measured.iter().map(|round| round.signature));
    vec![
        economy("TLS, AUTH, RSA, relayed", |round| &round.plain),
        economy("the same, SHA512-CRYPT", |round| &round.crypt),
        Line::new("relayed", Unit::PerSecond, (classic, Bound::None), relayed),
        Line::new(
            "CPU of STARTTLS and QUIT alone",
            Unit::Milliseconds,
            (classic, Bound::None),
            handshakes,
        )
        .note(format!(
            "a signature alone: {}",
            Unit::Milliseconds.show(signature.median())
        )),
    ]
}

impl User {
    fn new(scheme: Scheme, number: usize) -> User {
        let address = format!("{}{number:02}@{DOMAIN}", scheme.name().to_lowercase());
        let hash = format!("{{{}}}{}", scheme.name(), scheme.hash(&address));
        let login = BASE64_STANDARD.encode(format!("\0{address}\0{PASSWORD}"));
        let author = format!("From: Ann Author <ann@{DOMAIN}>");
        let own = format!("From: Ann Author <{address}>");
        let message = mail::message(DOMAIN, SIZE).replace(&author, &own);
        User {
            address,
            hash,
            login,
            message,
        }
    }

    /// The user's line in a file of users.
    fn line(&self, separator: &str) -> String {
        format!("{}{separator}{}\n", self.address, self.hash)
    }

    fn send(&self, server: SocketAddr, trust: &Trust) -> Result<()> {
        let client = Client::hello(server, HONEST, CLIENT)?;
        let mut client = client.start_tls(trust, CLIENT)?;
        client.expect(&format!("AUTH PLAIN {}", self.login), 235)?;
        client.begin_at_once(&self.address, FAR)?;
        client.send(format!("{}.\r\n", self.message).as_bytes())?;
        let answer = client.reply()?;
        if answer != 250 {
            bail!("the message was answered {answer}");
        }
        Ok(client.expect("QUIT", 221)?)
    }
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Ssha512 => "SSHA512",
            Scheme::Sha512Crypt => "SHA512-CRYPT",
        }
    }

    /// Of [`PASSWORD`].
    fn hash(self, salt: &str) -> String {
        match self {
            Scheme::Ssha512 => {
                let salted = [PASSWORD, salt].concat();
                let digest = digest::digest(&digest::SHA512, salted.as_bytes());
                BASE64_STANDARD.encode([digest.as_ref(), salt.as_bytes()].concat())
            }
            Scheme::Sha512Crypt => SHA512_CRYPT.to_owned(),
        }
    }
}

impl Side<'_> {
    /// Has users send messages, and waits until all are relayed.
    fn send(&self, users: &[User]) -> Result<Figures> {
        let (before, cpu_before) = (self.sink.count()?, (self.cpu)()?);
        let began = Instant::now();
        at_once(users, self.messages, |user| {
            user.send(self.server, self.trust)
        })?;
        let all_there = self.sink.wait_for(before + self.messages as u64, LONG)?;
        let cpu = (self.cpu)()? - cpu_before;
        let messages = self.messages as f64;
        Ok(Figures {
            relayed: messages / (all_there - began).as_secs_f64(),
            economy: messages / cpu.as_secs_f64(),
        })
    }

    /// Milliseconds of processor time for a connection that does nothing but begin TLS.
    fn handshake(&self, users: &[User]) -> Result<f64> {
        let cpu_before = (self.cpu)()?;
        at_once(users, self.messages, |_| {
            let client = Client::hello(self.server, HONEST, CLIENT)?;
            let mut client = client.start_tls(self.trust, CLIENT)?;
            Ok(client.expect("QUIT", 221)?)
        })?;
        let cpu = (self.cpu)()? - cpu_before;
        Ok(cpu.as_secs_f64() * 1e3 / self.messages as f64)
    }
}

/// Milliseconds of processor time for the signature of a user's message.
fn signature(key: &Key, user: &User) -> Result<f64> {
    const TIMES: u32 = 200;
    let clock = ClockId::CLOCK_THREAD_CPUTIME_ID;
    let signer = Signer::from_pem(key.pem(), &Domain::parse(DOMAIN)?, "s1")?;
    let before = Duration::from(clock.now()?);
    for _ in 0..TIMES {
        signer.sign(user.message.as_bytes())?;
    }
    let cpu = Duration::from(clock.now()?) - before;
    Ok(cpu.as_secs_f64() * 1e3 / f64::from(TIMES))
}

/// Lets all users do it side by side, one after the other each, until it was done so often.
fn at_once(users: &[User], count: usize, act: impl Fn(&User) -> Result<()> + Sync) -> Result<()> {
    let left = AtomicUsize::new(count);
    let more = || {
        let less = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        less.is_ok() && !wait::is_stopped()
    };
    thread::scope(|scope| {
        let users: Vec<_> = users
            .iter()
            .map(|user| {
                scope.spawn(|| {
                    while more() {
                        act(user)?;
                    }
                    Ok(())
                })
            })
            .collect();
        users
            .into_iter()
            .try_for_each(|user| user.join().map_err(|_| anyhow!("a client panicked"))?)
    })
}

/// A server that leaves something out would win for doing nothing.
fn signs_and_relays(server: SocketAddr, sink: &Sink, user: &User, trust: &Trust) -> Result<()> {
    let mut unknown = Client::hello(server, HONEST, CLIENT)?.start_tls(trust, CLIENT)?;
    let wrong = BASE64_STANDARD.encode(format!("\0{}\0guess", user.address));
    unknown.expect(&format!("AUTH PLAIN {wrong}"), 535)?;
    user.send(server, trust)?;
    let signed = wait::until(LONG, "a message at the sink", || {
        Ok(Some(sink.kept()?).filter(|text| text.contains("sixty octets")))
    })?;
    for part in ["DKIM-Signature:", "a=rsa-sha256", "with ESMTPSA"] {
        if !signed.contains(part) {
            bail!("what it relays lacks {part:?}:\n{signed}");
        }
    }
    Ok(())
}
