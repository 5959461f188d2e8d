//! kill -9 under load, again and again: whatever was answered 250 arrives, whole, and a second time only
//! where the first was on its way when the gateway died. After SIGTERM nothing arrives twice.
//!
//! Twenty clients send all the time, small mail and large, to one recipient and to several. They are
//! strangers, and one domain goes to Dovecot by LMTP, the other to Postfix by SMTP; or they are users who log
//! in, and what they send is signed and relayed by MX to Postfix and to a host that fails every now and then.
//! `CRASH_ROUNDS=100` kills more often: `make soak`.

mod sinks;

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::env;
use std::thread;
use std::time::Duration;
use std::time::SystemTime;

use jiff::Timestamp;
use rand::Rng;
use serde_json::Value;

use self::sinks::ATTEMPTS;
use self::sinks::FAR;
use self::sinks::Sinks;
use crate::support::SOON;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::load::Load;
use crate::support::load::Outbox;
use crate::support::load::checksum;
use crate::support::mailbox::body;
use crate::support::mailbox::field;
use crate::support::wait_until;

/// How often the gateway is ended, where `CRASH_ROUNDS` does not say.
const ROUNDS: usize = 5;
const CLIENTS: usize = 20;
/// Recipients of one message, at most.
const MOST: usize = 3;
/// A mark is synced a second after it was made at the latest; the rest is for a disk that others use, too.
const MARKS: Duration = Duration::from_millis(2500);
/// How long it may take until all is delivered, for each round.
const DRAIN: Duration = Duration::from_secs(10);

/// One recipient of one message, by the name under which it was stored.
type Handover = (String, String);

/// What the gateway said it had delivered before its end, and when.
struct Life {
    delivered: Vec<(Handover, SystemTime)>,
    end: SystemTime,
}

/// What lies in the mailboxes: how often, by Message-ID and recipient.
type Arrived = BTreeMap<(String, &'static str), usize>;

/// How the gateway is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Kill9,
    Sigterm,
}

/// What was sent, what came of it, and the gateway's lives in between.
struct Run {
    outbox: Outbox,
    arrived: Arrived,
    /// Recipients that can be on their way at once.
    at_once: usize,
    /// The last one was not cut short.
    lives: Vec<Life>,
}

#[test]
fn after_kill_9_nothing_acknowledged_is_missing_and_only_what_was_on_its_way_comes_twice() {
    if let Some(sinks) = Sinks::servers() {
        let run = run(&sinks, End::Kill9);
        run.assert_twice_only_what_was_on_its_way();
        run.report("killed");
    }
}

#[test]
fn after_kill_9_nothing_acknowledged_is_missing_from_our_own_maildirs() {
    let run = run(&Sinks::Maildirs, End::Kill9);
    run.assert_twice_only_what_was_on_its_way();
    run.report("killed beside its Maildirs");
}

#[test]
fn after_kill_9_nothing_that_a_user_sent_to_the_world_is_missing_and_all_is_signed() {
    if let Some(sinks) = Sinks::exchangers() {
        let run = run(&sinks, End::Kill9);
        run.assert_twice_only_what_was_on_its_way();
        run.report("killed while it relayed");
        sinks.assert_each_exchanger_had_a_part();
        for message in FAR.iter().flat_map(|to| sinks.messages(None, to)) {
            let signatures = field(&message, "DKIM-Signature");
            let is_signed = |field: &String| field.contains("d=gate.example");
            assert_eq!(
                signatures.iter().filter(|field| is_signed(field)).count(),
                1,
                "{message}"
            );
        }
    }
}

#[test]
fn after_sigterm_nothing_acknowledged_is_missing_and_nothing_comes_twice() {
    if let Some(sinks) = Sinks::servers() {
        let run = run(&sinks, End::Sigterm);
        assert_eq!(run.twice().count(), 0, "{:?}", run.twice().next());
        run.report("stopped");
    }
}

/// Ends the gateway again and again under load, lets it deliver the rest, and checks what holds however it
/// was ended: nothing is missing, torn, or there without having been sent.
fn run(sinks: &Sinks, end: End) -> Run {
    let mut gateway = sinks.site().start();
    let (entrance, recipients) = sinks.entrance(&gateway);
    let most = MOST.min(recipients.len());
    let load = Load::start(&entrance, CLIENTS, recipients, most);
    let rounds = rounds();
    let mut lives: Vec<_> = (0..rounds)
        .map(|_| round(&mut gateway, &load, end))
        .collect();
    gateway.process.wait_for("started");
    let outbox = load.stop();
    let patience = DRAIN * u32::try_from(rounds).expect("some rounds");
    wait_until(patience, "an empty queue", || {
        let metrics = gateway.site.get("/metrics");
        let is_empty = |line| line == "gatepost_queue_messages 0";
        metrics.lines().any(is_empty).then_some(())
    });
    assert!(gateway.process.stop().success());
    lives.push(Life::of(&gateway.process, SystemTime::now()));
    if let Sinks::Servers(_, postfix) | Sinks::Exchangers(postfix, _) = sinks {
        wait_until(patience, "an idle postfix", || {
            postfix.is_idle().then_some(())
        });
    }
    let arrived = arrived(&outbox, recipients, |recipient| {
        sinks.messages(Some(&gateway.site), recipient)
    });
    assert_none_missing(&outbox, &arrived);
    Run {
        outbox,
        arrived,
        at_once: sinks.destinations() * ATTEMPTS * most,
        lives,
    }
}

fn rounds() -> usize {
    let rounds = env::var("CRASH_ROUNDS").ok();
    rounds.map_or(ROUNDS, |text| {
        text.parse().expect("CRASH_ROUNDS is a number")
    })
}

/// One life of the gateway under load: most end in the middle of it, some before they have well begun.
fn round(gateway: &mut Gateway, load: &Load, end: End) -> Life {
    let mut rng = rand::rng();
    match rng.random_range(0..5) {
        // It may be dead before it has read its spool.
        0 if end == End::Kill9 => thread::sleep(Duration::from_millis(rng.random_range(0..100))),
        0 => drop(gateway.process.wait_for("started")),
        _ => {
            let before = load.acknowledged();
            wait_until(SOON, "some mail", || {
                (load.acknowledged() > before + CLIENTS).then_some(())
            });
            thread::sleep(Duration::from_millis(rng.random_range(0..1500)));
        }
    }
    match end {
        End::Kill9 => gateway.process.kill9(),
        End::Sigterm => assert!(gateway.process.stop().success()),
    }
    let ended = SystemTime::now();
    gateway.process.ended();
    let life = Life::of(&gateway.process, ended);
    gateway.process = Running::start(&gateway.site.write_config());
    life
}

impl Life {
    fn of(process: &Running, end: SystemTime) -> Life {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let events = process.events("delivered").into_iter().map(|event| {
            let time: Timestamp = text(&event["time"]).parse().expect("a time");
            ((text(&event["id"]), text(&event["rcpt"])), time.into())
        });
        Life {
            delivered: events.collect(),
            end,
        }
    }
}

impl Run {
    /// What is there more than once: Message-ID, recipient, how often.
    fn twice(&self) -> impl Iterator<Item = (&str, &'static str, usize)> {
        let all = self.arrived.iter();
        let all = all.map(|((id, recipient), count)| (id.as_str(), *recipient, *count));
        all.filter(|(_, _, count)| *count > 1)
    }

    /// A copy too many was delivered so shortly before a kill that its mark was not synced, or was in
    /// the middle of an attempt that the gateway could not tell of any more.
    fn assert_twice_only_what_was_on_its_way(&self) {
        let kills = self.lives.len() - 1;
        let mut untold = 0;
        for (id, recipient, count) in self.twice() {
            assert!(count <= 1 + kills, "{id} came {count} times");
            let name = self.outbox[id].stored_as.clone().unwrap_or_default();
            let mut told = self.deliveries(&(name, recipient.to_owned()));
            // The last one counts: its mark is what the others lacked.
            told.pop();
            untold += (count - 1).saturating_sub(told.len());
            for before in told {
                assert!(
                    before <= MARKS,
                    "{id} was delivered {before:?} before the end, and again"
                );
            }
        }
        let under_way = self.at_once * kills;
        assert!(
            untold <= under_way,
            "{untold} came twice, {under_way} were under way"
        );
    }

    /// How long before the end of its life each delivery of this was, in their order.
    fn deliveries(&self, what: &Handover) -> Vec<Duration> {
        let told = self.lives.iter().flat_map(|life| {
            let told = life.delivered.iter().filter(|(told, _)| told == what);
            told.map(|(_, time)| life.end.duration_since(*time).unwrap_or_default())
        });
        told.collect()
    }

    /// Shown where a test is run with --nocapture.
    fn report(&self, how: &str) {
        let sent = self.outbox.values();
        println!(
            "{how} {} times: {} messages sent, {} acknowledged, 0 missing; {} arrivals, {} of them a \
             second time",
            self.lives.len() - 1,
            self.outbox.len(),
            sent.filter(|sent| sent.stored_as.is_some()).count(),
            self.arrived.values().sum::<usize>(),
            self.twice().map(|(_, _, count)| count - 1).sum::<usize>(),
        );
    }
}

/// Counts what these recipients have. Each is a message that was sent, to whom it was sent, and whole.
fn arrived(
    outbox: &Outbox,
    recipients: &[&'static str],
    messages: impl Fn(&str) -> Vec<String>,
) -> Arrived {
    let mut arrived = Arrived::new();
    for recipient in recipients {
        for message in messages(recipient) {
            let id = field(&message, "Message-ID").concat();
            let id = id.trim_matches(['<', '>']).to_owned();
            let sent = outbox.get(&id);
            let sent = sent.unwrap_or_else(|| panic!("nobody sent {id:?}:\n{message}"));
            assert!(
                sent.recipients.contains(recipient),
                "{id} is not for {recipient}"
            );
            assert_eq!(
                checksum(&body(&message)),
                sent.body,
                "{id} is torn:\n{message}"
            );
            *arrived.entry((id, *recipient)).or_default() += 1;
        }
    }
    arrived
}

fn assert_none_missing(outbox: &Outbox, arrived: &Arrived) {
    let acknowledged = outbox.iter().filter(|(_, sent)| sent.stored_as.is_some());
    let due = acknowledged.flat_map(|(id, sent)| sent.recipients.iter().map(move |to| (id, *to)));
    let missing: BTreeSet<_> = due
        .filter(|(id, to)| !arrived.contains_key(&((*id).clone(), *to)))
        .collect();
    assert!(missing.is_empty(), "acknowledged and missing: {missing:?}");
}
