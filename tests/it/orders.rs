//! The queue in an operator's hands: what `gatepost queue` and `gatepost status` say of a running
//! gateway, and what they make it do.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::support::SOON;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::Running;
use crate::support::gateway::Site;
use crate::support::gateway::gatepost;
use crate::support::mailbox::Mailbox;
use crate::support::mailbox::field;
use crate::support::mails::mail;
use crate::support::next_hop::NextHop;
use crate::support::process;
use crate::support::wait_until;

/// What a command ends with and says.
fn command(site: &Site, words: &[&str]) -> (i32, String) {
    // As it was written for the start: a gateway that reloads may be reading it.
    let config = site.path("gatepost.toml");
    let mut command = gatepost(words);
    let output = command.arg("--config").arg(config).output();
    let output = output.expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().expect("a status"), text)
}

/// What a command says that has to come off.
#[track_caller]
fn told(site: &Site, words: &[&str]) -> String {
    let (status, text) = command(site, words);
    assert_eq!(status, 0, "{words:?}: {text}");
    text
}

/// The messages that `queue list` names with these options.
#[track_caller]
fn listed(site: &Site, options: &[&str]) -> Vec<Value> {
    let words = [&["queue", "list", "--json"], options].concat();
    let text = told(site, &words);
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).expect("a JSON object"))
        .collect()
}

/// A gateway whose next hop is the other site's gateway, which does not run yet.
fn gateway_before(next: &Site) -> Gateway {
    Site::new()
        .delivering_to(format!("smtp:{}", next.smtp))
        .knowing("any")
        .start()
}

fn send(gateway: &Gateway, from: &str, to: &str) -> String {
    let mut client = Client::hello(gateway.smtp());
    let reply = client.hand_over(from, to, &mail(from, "orders"));
    let id = reply.rsplit(' ').next().expect("an id").trim();
    id.to_owned()
}

#[test]
fn an_operator_lists_shows_holds_releases_retries_and_deletes() {
    let next = Site::new();
    let gateway = gateway_before(&next);
    let site = &gateway.site;
    let first = send(&gateway, "anna@client.example", "user@gate.example");
    let second = send(&gateway, "bert@client.example", "second@gate.example");
    gateway.process.wait_for("deferred");

    let all = listed(site, &[]);
    assert_eq!(all.len(), 2, "{all:?}");
    assert_eq!(all[0]["id"], first.as_str());
    assert_eq!(all[0]["from"], "anna@client.example");
    assert_eq!(all[0]["recipients"][0]["address"], "user@gate.example");
    let reply = &all[0]["recipients"][0]["reply"];
    let text = reply["text"].as_str().expect("a reply");
    assert!(text.contains("refused"), "{reply}");
    assert!(reply["attempt"].as_u64() >= Some(1), "{reply}");
    assert!(reply["at"].as_str().is_some_and(|at| at.ends_with('Z')));
    assert_eq!(
        listed(site, &["--from", "bert@*"])[0]["id"],
        second.as_str()
    );
    assert_eq!(
        listed(site, &["--to", "user@*", "--domain", "gate.example"]).len(),
        1
    );
    // Filters are all to be met.
    assert!(listed(site, &["--from", "bert@*", "--to", "user@*"]).is_empty());
    assert!(listed(site, &[&first, "--from", "bert@*"]).is_empty());
    assert!(listed(site, &["--older-than", "1h"]).is_empty());
    assert_eq!(listed(site, &["--older-than", "0s"]).len(), 2);
    assert!(listed(site, &["--state", "held"]).is_empty());

    let shown = told(site, &["queue", "show", &first]);
    assert!(shown.contains("Subject: orders"), "{shown}");
    assert!(!shown.contains("\r"), "{shown}");
    assert!(shown.contains("          in attempt "), "{shown}");
    let whole = told(site, &["queue", "show", "--body", &first]);
    assert!(
        whole.starts_with("Received: ") || whole.contains("\r\n\r\n"),
        "{whole}"
    );

    told(site, &["queue", "hold", &first, "--reason", "to be asked"]);
    let held = listed(site, &["--state", "held"]);
    assert_eq!(
        (held.len(), &held[0]["held"]),
        (1, &Value::from("to be asked"))
    );
    let again = told(site, &["queue", "hold", &first, "--json"]);
    assert!(
        again.contains(r#"{"done":0,"failed":0,"matched":1,"#),
        "{again}"
    );

    let status = told(site, &["status"]);
    assert!(status.contains("2 messages"), "{status}");
    assert!(status.contains("rests, and is tried again in"), "{status}");

    let next = next.start();
    told(site, &["queue", "retry", "--all"]);
    next.site.mailbox("second").wait_for(1);
    told(site, &["queue", "release", &first]);
    next.site.mailbox("user").wait_for(1);
    wait_until(SOON, "an empty queue", || {
        listed(site, &[]).is_empty().then_some(())
    });
    let orders = gateway.process.events("ordered");
    let orders: Vec<&str> = orders
        .iter()
        .filter_map(|order| order["order"].as_str())
        .collect();
    assert_eq!(orders[..3], ["hold", "retry", "release"]);
}

#[test]
fn what_is_deleted_is_gone_and_delivered_to_nobody() {
    let next = Site::new();
    let mut gateway = gateway_before(&next);
    let first = send(&gateway, "anna@client.example", "user@gate.example");
    send(&gateway, "bert@client.example", "second@gate.example");
    gateway.process.wait_for("deferred");
    told(&gateway.site, &["queue", "delete", &first]);
    assert_eq!(listed(&gateway.site, &[]).len(), 1);
    gateway.process.stop();
    gateway.restart();
    wait_until(SOON, "one message", || {
        (listed(&gateway.site, &[]).len() == 1).then_some(())
    });
    let next = next.start();
    told(&gateway.site, &["queue", "retry", "--all"]);
    next.site.mailbox("second").wait_for(1);
    assert!(next.site.mailbox("user").messages().is_empty());
}

#[test]
fn a_wrong_question_is_told_what_would_be_right() {
    let gateway = Gateway::start();
    let site = &gateway.site;
    for (words, status, hint) in [
        (&["queue", "delete"][..], 64, "--all"),
        (&["queue", "delete", "01JDQ4T9X2K.1"], 1, "no message"),
        (&["queue", "show", "01JDQ4T9X2K.1"], 1, "no message"),
        (&["queue", "show", "x"], 64, "01JDQ4T9X2K.1"),
        (&["queue", "list", "--state", "odd"], 64, "held"),
    ] {
        let (found, text) = command(site, words);
        assert_eq!(found, status, "{words:?}: {text}");
        assert!(text.contains(hint), "{words:?}: {text}");
    }
}

/// A next hop that puts each recipient off until it is let go, and says then what it is told to; and who
/// is asked for.
struct Slow {
    hop: NextHop,
    asked: Receiver<String>,
    answers: Sender<Option<&'static str>>,
}

impl Slow {
    fn start() -> Slow {
        let (ask, asked) = mpsc::channel();
        let (answers, next) = mpsc::channel();
        let (ask, next) = (Mutex::new(ask), Mutex::new(next));
        let hop = NextHop::start(&[], move |rcpt| {
            let ask = ask.lock().expect("no thread panics with it");
            ask.send(rcpt.to_owned()).expect("the test listens");
            let next = next.lock().expect("no thread panics with it");
            let answer: Option<&str> = next.recv().expect("the test answers");
            answer.map(str::to_owned)
        });
        Slow {
            hop,
            asked,
            answers,
        }
    }

    /// Waits until a recipient is asked for.
    fn is_asked(&self) {
        self.asked.recv_timeout(SOON).expect("an attempt");
    }

    fn answers(&self, answer: Option<&'static str>) {
        self.answers.send(answer).expect("somebody is asked");
    }
}

const LATER: Option<&str> = Some("450 4.2.0 come back later");

/// gate.example is behind this hop; what comes for client.example lands in a mailbox of the gateway.
fn gateway_with(hop: &NextHop) -> Gateway {
    let site = Site::new().delivering_to(hop.target("smtp")).knowing("any");
    let mailboxes = site.path("mail").display().to_string();
    let site = site.with(&format!(
        "[domains.\"client.example\"]\n\
         deliver = \"maildir:{mailboxes}/{{domain}}/{{local}}\"\nrecipients = \"any\"\n"
    ));
    site.start()
}

/// What the sender got.
fn reports(gateway: &Gateway) -> Vec<String> {
    let mailbox = gateway.site.path("mail/client.example/anna");
    Mailbox::at(mailbox).messages()
}

#[test]
fn who_sent_what_is_given_up_gets_a_report_and_only_for_those_that_were_open() {
    let hop = NextHop::start(&[], |rcpt| {
        rcpt.contains("later")
            .then(|| LATER.unwrap_or_default().to_owned())
    });
    let mut gateway = gateway_with(&hop);
    let mut client = Client::hello(gateway.smtp());
    client.expect("MAIL FROM:<anna@client.example>", "250");
    for to in ["one", "later", "later.too"] {
        client.expect(&format!("RCPT TO:<{to}@gate.example>"), "250");
    }
    client.expect("DATA", "354");
    client.send(mail("anna@client.example", "given up").as_bytes());
    let reply = client.expect(".", "250");
    let id = reply.rsplit(' ').next().expect("an id").trim().to_owned();
    gateway.process.wait_for_nth("deferred", 2);

    let text = told(&gateway.site, &["queue", "bounce", "--to", "later@*"]);
    assert_eq!(text.trim(), "bounce: 1 message");
    wait_until(SOON, "the report", || {
        (!reports(&gateway).is_empty()).then_some(())
    });
    let report = reports(&gateway).remove(0);
    assert_eq!(field(&report, "Subject"), ["Not delivered: given up"]);
    assert_eq!(field(&report, "To"), ["<anna@client.example>"]);
    let parts = of_report(&report);
    assert_eq!(parts.len(), 3, "for the message, and for each recipient");
    for (part, to) in parts[1..].iter().zip(["later", "later.too"]) {
        let to = format!("rfc822; {to}@gate.example");
        assert_eq!(field(part, "Final-Recipient"), [to]);
        assert_eq!(field(part, "Action"), ["failed"]);
        assert_eq!(field(part, "Status"), ["5.3.0"]);
        let code = field(part, "Diagnostic-Code").join(" ");
        assert!(
            code.contains("the postmaster of this site gave the message up"),
            "{code}"
        );
    }
    assert!(
        report.contains("The postmaster of this server can tell why."),
        "{report}"
    );

    assert!(listed(&gateway.site, &[]).is_empty());
    let ordered = gateway.process.wait_for("ordered");
    assert_eq!(
        (&ordered["order"], &ordered["id"]),
        (&"bounce".into(), &id.as_str().into())
    );
    assert_eq!(gateway.process.events("failed").len(), 2);
    // A restart brings nothing of it back.
    gateway.process.stop();
    gateway.restart();
    assert!(listed(&gateway.site, &[]).is_empty());
    assert_eq!((reports(&gateway).len(), hop.taken().len()), (1, 1));
}

/// The groups of fields in a report's part for programs.
fn of_report(report: &str) -> Vec<String> {
    let (_, part) = report
        .split_once("Content-Type: message/delivery-status")
        .expect("such a part");
    let (_, fields) = part
        .split_once("\r\n\r\n")
        .or_else(|| part.split_once("\n\n"))
        .expect("a body");
    let (fields, _) = fields.split_once("\n--").expect("an end");
    let fields = fields.replace('\r', "");
    fields
        .split("\n\n")
        .map(|group| group.trim().to_owned() + "\n")
        .filter(|group| group.len() > 1)
        .collect()
}

#[test]
fn no_report_is_made_for_what_has_no_return_path_and_none_of_what_is_deleted() {
    let hop = NextHop::start(&[], |_| LATER.map(str::to_owned));
    let gateway = gateway_with(&hop);
    let bounce = mail("anna@client.example", "no path");
    Client::hello(gateway.smtp()).hand_over("", "user@gate.example", &bounce);
    let deleted = send(&gateway, "anna@client.example", "user@gate.example");
    gateway.process.wait_for_nth("deferred", 2);
    let text = told(
        &gateway.site,
        &["queue", "bounce", "--from", "<>", "--json"],
    );
    let done: Value = serde_json::from_str(&text).expect("a JSON object");
    assert_eq!((&done["matched"], &done["done"]), (&1.into(), &1.into()));
    gateway.process.wait_for("failure not reported");
    // What is held can be given up and dropped, too.
    told(&gateway.site, &["queue", "hold", &deleted]);
    told(&gateway.site, &["queue", "delete", &deleted]);
    assert!(listed(&gateway.site, &[]).is_empty());
    assert!(gateway.process.events("reported").is_empty());
}

#[test]
fn a_recipient_whose_delivery_is_under_way_comes_to_one_end_only() {
    for (order, answer, reported) in [
        ("bounce", None, 0),
        ("bounce", LATER, 1),
        ("delete", None, 0),
        ("delete", LATER, 0),
    ] {
        let case = format!("{order} {answer:?}");
        let slow = Slow::start();
        let gateway = gateway_with(&slow.hop);
        let id = send(&gateway, "anna@client.example", "user@gate.example");
        slow.is_asked();
        let ordered = thread::scope(|scope| {
            let command = scope.spawn(|| command(&gateway.site, &["queue", order, &id, "--json"]));
            wait_until(SOON, "the order", || {
                has_arrived(&gateway.site).then_some(())
            });
            assert!(!command.is_finished(), "{case}: it waits for the attempt");
            slow.answers(answer);
            command.join().expect("an answer").1
        });
        let done = i32::from(answer.is_some());
        assert!(
            ordered.contains(&format!("\"done\":{done},")),
            "{case}: {ordered}"
        );
        wait_until(SOON, &case, || {
            listed(&gateway.site, &[]).is_empty().then_some(())
        });
        let taken = usize::from(answer.is_none());
        // The log is written a moment later.
        (0..taken).for_each(|_| drop(gateway.process.wait_for("delivered")));
        (0..reported).for_each(|_| drop(gateway.process.wait_for("reported")));
        assert_eq!(slow.hop.taken().len(), taken, "{case}");
        assert_eq!(
            gateway.process.events("delivered").len() - reported_home(&gateway),
            taken,
            "{case}"
        );
        assert_eq!(gateway.process.events("reported").len(), reported, "{case}");
        assert!(
            slow.asked.try_recv().is_err(),
            "{case}: it is not tried again"
        );
    }
}

/// Whether somebody is connected to the control socket, whose path the system knows by its first name.
fn has_arrived(site: &Site) -> bool {
    let path = site.path("data").join("control.new").display().to_string();
    let sockets = fs::read_to_string("/proc/net/unix").expect("the system's list");
    let connected = |line: &&str| line.ends_with(&path) && line.split(' ').nth(5) == Some("03");
    sockets.lines().any(|line| connected(&line))
}

/// How many reports were delivered to their sender.
fn reported_home(gateway: &Gateway) -> usize {
    let delivered = gateway.process.events("delivered");
    let home = |event: &&Value| event["rcpt"] == "anna@client.example";
    delivered.iter().filter(home).count()
}

#[test]
fn orders_amid_deliveries_lose_nothing_and_end_nothing_twice() {
    const MESSAGES: usize = 60;
    const ROUNDS: usize = 6;
    let refuses = Arc::new(AtomicBool::new(true));
    let (says, asked) = (Arc::clone(&refuses), AtomicUsize::new(0));
    let hop = NextHop::start(&[], move |_| {
        thread::sleep(Duration::from_millis(50));
        let odd = asked.fetch_add(1, Ordering::Relaxed) % 4 != 0;
        let later = odd && says.load(Ordering::Relaxed);
        later.then(|| LATER.unwrap_or_default().to_owned())
    });
    let gateway = gateway_with(&hop);
    let site = &gateway.site;
    let mut client = Client::hello(gateway.smtp());
    let message = mail("anna@client.example", "amid");
    let ids: Vec<String> = (0..MESSAGES)
        .map(|number| {
            let to = format!("to{number}@gate.example");
            let reply = client.hand_over("anna@client.example", &to, &message);
            reply.rsplit(' ').next().expect("an id").trim().to_owned()
        })
        .collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..ROUNDS {
                told(site, &["queue", "hold", "--all"]);
                told(site, &["queue", "retry", "--all"]);
                told(site, &["queue", "release", "--all"]);
                told(site, &["queue", "retry", "--to", "to*"]);
            }
        });
        scope.spawn(|| {
            for round in 0..ROUNDS {
                gateway.process.signal(Signal::SIGHUP);
                told(site, &["queue", "bounce", "--to", &format!("to{round}*")]);
                command(site, &["queue", "delete", &ids[MESSAGES - 1 - round]]);
            }
        });
    });
    refuses.store(false, Ordering::Relaxed);
    wait_until(3 * SOON, "an empty queue", || {
        told(site, &["queue", "release", "--all"]);
        told(site, &["queue", "retry", "--all"]);
        listed(site, &[]).is_empty().then_some(())
    });
    let of = |event: &str, id: &str| {
        let events = gateway.process.events(event).into_iter();
        events.filter(|event| event["id"] == id).collect::<Vec<_>>()
    };
    for (number, id) in ids.iter().enumerate() {
        let delivered = of("delivered", id).len();
        let deleted = of("ordered", id);
        let deleted = deleted.iter().filter(|order| order["order"] == "delete");
        let ends = delivered + of("failed", id).len() + deleted.count();
        assert_eq!(ends, 1, "{id}");
        let line = format!("RCPT TO:<to{number}@gate.example>");
        let taken = hop.taken();
        let taken = taken.iter().filter(|taken| taken.rcpt[0] == line);
        assert_eq!(taken.count(), delivered, "{id}");
    }
    let failed = gateway.process.events("failed").len();
    assert!(failed > 0);
    assert_eq!(
        (reports(&gateway).len(), reported_home(&gateway)),
        (failed, failed)
    );
}

#[test]
fn what_takes_too_long_is_left_as_it_was_and_said_to_be() {
    let slow = Slow::start();
    let gateway = gateway_with(&slow.hop);
    let id = send(&gateway, "anna@client.example", "user@gate.example");
    slow.is_asked();
    let (status, text) = command(&gateway.site, &["queue", "bounce", &id]);
    assert_eq!(status, 1, "{text}");
    assert!(text.contains("a delivery is under way"), "{text}");
    slow.answers(LATER);
    // It goes on as if nothing had been said.
    slow.is_asked();
    slow.answers(None);
    slow.hop.wait_for(1);
    wait_until(SOON, "the end", || {
        listed(&gateway.site, &[]).is_empty().then_some(())
    });
    assert_eq!((slow.hop.taken().len(), reports(&gateway).len()), (1, 0));
}

#[test]
fn what_is_held_while_it_is_under_way_stays_until_released_and_is_delivered_once() {
    let slow = Slow::start();
    let mut gateway = gateway_with(&slow.hop);
    let id = send(&gateway, "anna@client.example", "user@gate.example");
    slow.is_asked();
    told(&gateway.site, &["queue", "hold", &id]);
    slow.answers(LATER);
    gateway.process.wait_for("deferred");
    // Not tried when it would be due, nor when that is asked for, nor after a restart.
    let text = command(&gateway.site, &["queue", "retry", "--all"]).1;
    assert!(
        text.contains("held, and tried only when released"),
        "{text}"
    );
    wait_until(SOON, "the mark on the disk", || {
        let text = told(&gateway.site, &["queue", "verify", "--json"]);
        let found: Value = serde_json::from_str(&text).expect("a JSON object");
        (found["queue"]["held"] == 1).then_some(())
    });
    gateway.process.kill9();
    gateway.restart();
    let held = listed(&gateway.site, &["--state", "held"]);
    assert_eq!((held.len(), &held[0]["attempts"]), (1, &1.into()));
    thread::sleep(Duration::from_secs(2)); // retry_first is 1s
    assert!(slow.asked.try_recv().is_err());

    told(&gateway.site, &["queue", "release", &id]);
    slow.is_asked();
    // Held and released while it is under way: there is still one of it.
    told(&gateway.site, &["queue", "hold", &id]);
    told(&gateway.site, &["queue", "release", &id]);
    slow.answers(None);
    wait_until(SOON, "the end", || {
        listed(&gateway.site, &[]).is_empty().then_some(())
    });
    assert_eq!(slow.hop.taken().len(), 1);
}

#[test]
fn a_message_is_tried_before_its_time_when_asked_for() {
    let answer = Arc::new(Mutex::new(LATER));
    let says = Arc::clone(&answer);
    let hop = NextHop::start(&[], move |_| {
        says.lock()
            .expect("no thread panics with it")
            .map(str::to_owned)
    });
    let site = Site::new().delivering_to(hop.target("smtp")).knowing("any");
    let config = site
        .config()
        .replace("retry_first = \"1s\"", "retry_first = \"1h\"");
    let file = site.path("gatepost.toml");
    fs::write(&file, config).expect("written");
    let gateway = Gateway {
        process: Running::start(&file),
        site,
    };
    gateway.process.wait_for("started");
    send(&gateway, "anna@client.example", "user@gate.example");
    gateway.process.wait_for("deferred");
    let waits = listed(&gateway.site, &["--state", "deferred"]);
    assert_eq!(waits.len(), 1);
    *answer.lock().expect("no thread panics with it") = None;
    told(
        &gateway.site,
        &["queue", "retry", "--domain", "GATE.example"],
    );
    hop.wait_for(1);
    let status = told(&gateway.site, &["status", "--json"]);
    let status: Value = serde_json::from_str(&status).expect("a JSON object");
    let rates = status["rates"].as_array().expect("rates");
    let delivered = rates.iter().find(|rate| rate["what"] == "delivered");
    wait_until(SOON, "an empty queue", || {
        listed(&gateway.site, &[]).is_empty().then_some(())
    });
    assert!(
        delivered.is_some_and(|rate| rate["total"].is_number()),
        "{status}"
    );
    assert_eq!(status["loading"], false);
}

#[test]
fn the_socket_is_ours_alone_and_a_gateway_that_is_away_is_said_to_be() {
    let mut gateway = Gateway::start();
    let socket = gateway.site.path("data").join("control");
    let mode = std::fs::metadata(&socket)
        .expect("a socket")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    gateway.process.kill9();
    let (status, text) = command(&gateway.site, &["status"]);
    assert_eq!(status, 69, "{text}");
    for words in [
        "is it running?",
        &socket.display().to_string(),
        "queue verify, export",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    gateway.restart(); // The socket that the dead one left is replaced.
    told(&gateway.site, &["status", "--json"]);
}

#[test]
fn who_may_not_open_the_socket_is_told_who_may() {
    if !process::root() || !process::present(&["setpriv"]) {
        return;
    }
    let site = Site::new();
    // The file may be read by all; the socket may not be opened.
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let socket = folder.path().join("control");
    let config = site
        .config()
        .replace("[admin]\n", &format!("[admin]\nsocket = {socket:?}\n"));
    let file = folder.path().join("gatepost.toml");
    fs::write(&file, config).expect("written");
    let gateway = Running::start(&file);
    gateway.wait_for("started");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(gatepost(&[]).get_program())
        .args(["status", "--config"])
        .arg(&file)
        .stdin(Stdio::null())
        .output();
    let output = output.expect("setpriv is there");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(69), "{text}");
    assert!(
        text.contains("only root and the gateway's own user may"),
        "{text}"
    );
}

#[test]
fn what_is_no_request_is_refused_and_the_door_stays_open() {
    let gateway = Gateway::start();
    let socket = gateway.site.path("data").join("control");
    for (request, want) in [
        ("POST /queue/delete", "400"),
        ("POST /queue/drop", "400"),
        ("GET /queue/x", "404"),
        ("GET /", "404"),
    ] {
        let mut stream = UnixStream::connect(&socket).expect("it listens");
        let body = "{\"filter\":{}}";
        write!(
            stream,
            "{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {want}")),
            "{request}: {answer}"
        );
    }
    let mut noise = UnixStream::connect(&socket).expect("it listens");
    noise.write_all(&[0xff; 20_000]).expect("sent");
    told(&gateway.site, &["status"]);
}
