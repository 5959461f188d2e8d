//! The DNS cold and 20 ms away: 256 signed messages at once, each from an address and of a domain of its
//! own, against the longest chain of lookups.
//!
//! The chain is counted on one message alone: the most questions of it of which each was asked only
//! after the one before was answered. Its length times 20 ms is the least that it could take.

use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;
use std::time::Instant;

use anyhow::Context;
use anyhow::Result;
use anyhow::bail;

use crate::client::Client;
use crate::gateway::CHECKED;
use crate::gateway::Config;
use crate::gateway::Gateway;
use crate::mail::Key;
use crate::nameserver::Nameserver;
use crate::nameserver::Question;
use crate::process;
use crate::sending::RECIPIENT;
use crate::setting::Setting;
use crate::setting::rounds;
use crate::sink::Kind;
use crate::sink::Sink;
use crate::table::Bound;
use crate::table::Line;
use crate::table::Series;
use crate::table::Unit;

const AWAY: Duration = Duration::from_millis(20);

/// One client of the row: where it comes from, and what it sends.
struct Mail {
    from: IpAddr,
    domain: String,
    message: String,
}

struct Round {
    /// Milliseconds for all messages.
    all: f64,
    /// Milliseconds for one alone.
    one: f64,
    /// Milliseconds of CPU while all were sent: the gateway's, and ours, who are clients and DNS server.
    cpu: [f64; 2],
    chain: Vec<String>,
}

pub(crate) fn run(setting: &Setting) -> Result<Vec<Line>> {
    let key = Key::make()?;
    let count = setting.options.number(256);
    let mails = (0..count + 2).map(|number| mail(&key, number));
    let mails = mails.collect::<Result<Vec<_>>>()?;
    let (first, mails) = mails.split_at(1);
    let (alone, together) = mails.split_at(1);
    let measured = rounds(setting.options.rounds(), || {
        let dns = Nameserver::start(AWAY, key.record())?;
        let sink = Sink::start(setting, Kind::CountingLmtp)?;
        let config = Config::new(sink.target(), dns.address, CHECKED);
        let gateway = Gateway::start(setting, &config)?;
        // What a gateway does once in its life, on disk and elsewhere, is no matter of the DNS.
        send(gateway.smtp, first)?;
        dns.take_questions();
        let one = send(gateway.smtp, alone)?;
        let chain = chain(dns.take_questions());
        let used = || -> Result<_> { Ok([gateway.cpu()?, process::cpu_of(std::process::id())?]) };
        let before = used()?;
        let all = send(gateway.smtp, together)?;
        let after = used()?;
        let cpu = [0, 1].map(|whose| (after[whose] - before[whose]).as_secs_f64() * 1e3);
        Ok(Round {
            all,
            one,
            cpu,
            chain,
        })
    })?;
    let least = |round: &Round| (AWAY * round.chain.len() as u32).as_secs_f64() * 1e3;
    let figures = measured.iter().map(|round| (round.all, least(round)));
    let against = ("longest chain of lookups x 20 ms", Bound::AtMost(1.3));
    let what = format!("{count} messages at once");
    let line = Line::new(what, Unit::Milliseconds, against, figures);
    let one = Series::of(measured.iter().map(|round| round.one)).median();
    let chain = measured.last().context("no round")?.chain.join(", ");
    let line = line.note(format!(
        "one message alone: {}",
        Unit::Milliseconds.show(one)
    ));
    let line = line.note(format!("its chain: {chain}"));
    let cpu = [0, 1].map(|whose| {
        let of_rounds = Series::of(measured.iter().map(|round| round.cpu[whose]));
        Unit::Milliseconds.show(of_rounds.median())
    });
    Ok(vec![line.note(format!(
        "CPU meanwhile: the gateway {}, clients and DNS server {}",
        cpu[0], cpu[1]
    ))])
}

fn mail(key: &Key, number: usize) -> Result<Mail> {
    let domain = format!("d{number}.example");
    let [high, low] = u16::try_from(number)?.to_be_bytes();
    Ok(Mail {
        from: Ipv4Addr::new(127, 1 + high, low, 1).into(),
        message: key.signed(&domain)? + ".\r\n",
        domain,
    })
}

/// Sends all at once; milliseconds until the last has its 250.
fn send(server: SocketAddr, mails: &[Mail]) -> Result<f64> {
    let ready = Barrier::new(mails.len() + 1);
    thread::scope(|scope| {
        let one = |mail: &Mail| -> Result<()> {
            ready.wait();
            let mut client = Client::hello(server, mail.from, &mail.domain)?;
            client.begin_at_once(&format!("ann@{}", mail.domain), RECIPIENT)?;
            client.send(mail.message.as_bytes())?;
            match client.reply()? {
                250 => Ok(()),
                other => bail!("a message of {} was answered {other}", mail.domain),
            }
        };
        let clients: Vec<_> = mails
            .iter()
            .map(|mail| scope.spawn(move || one(mail)))
            .collect();
        ready.wait();
        let began = Instant::now();
        for client in clients {
            match client.join() {
                Ok(sent) => sent?,
                Err(_) => bail!("a client panicked"),
            }
        }
        Ok(began.elapsed().as_secs_f64() * 1e3)
    })
}

/// The most questions of which each was asked after the one before was answered: of those that are
/// left, always the one that is answered first.
fn chain(mut questions: Vec<Question>) -> Vec<String> {
    questions.sort_by_key(|question| question.answered);
    let mut chain: Vec<Question> = Vec::new();
    for question in questions {
        if chain
            .last()
            .is_none_or(|last| last.answered <= question.asked)
        {
            chain.push(question);
        }
    }
    chain.into_iter().map(|question| question.text).collect()
}
