//! A Postfix smtp-sink that fails at each step and then does not any more: each recipient has the message once,
//! or was reported to the sender.

use std::fs;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use tempfile::TempDir;

use super::delivery::sink_at;
use crate::next_hops::history;
use crate::support::client::Client;
use crate::support::free_port;
use crate::support::gateway::Site;
use crate::support::mails::mail;
use crate::support::next_hop::NextHop;
use crate::support::process;
use crate::support::wait_until;

const LOCALS: [&str; 2] = ["one", "two"];

/// How long until what was put off has been tried again.
const TRIED_AGAIN: Duration = Duration::from_secs(40);

/// With 4xx, with 5xx, without a word, with 421 and a hang-up.
const OPTIONS: [&str; 4] = ["-r", "-f", "-q", "-Q"];

/// What becomes of a message at first, by option.
const STEPS: &[(&str, [&str; 4])] = &[
    ("connect", ["deferred"; 4]),
    // It is greeted with HELO then.
    ("ehlo", ["deferred", "delivered", "deferred", "deferred"]),
    ("mail", ["deferred", "failed", "deferred", "deferred"]),
    ("rcpt", ["deferred", "failed", "deferred", "deferred"]),
    ("data", ["deferred", "failed", "deferred", "deferred"]),
    (".", ["deferred", "failed", "deferred", "deferred"]),
    ("quit", ["delivered"; 4]),
];

/// One sink, and what becomes of a message for it at first.
struct Case {
    option: &'static str,
    step: &'static str,
    first: &'static str,
    port: u16,
}

#[test]
fn a_sink_that_fails_at_a_step_has_each_message_once_when_it_is_well_again() {
    if !process::present(&["smtp-sink"]) {
        return;
    }
    let folder = TempDir::new().expect("a temporary folder");
    // The sinks write there as somebody else.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).expect("it is ours");
    let kept = |when: &str, port: u16| folder.path().join(format!("{when}-{port}"));
    let cases: Vec<_> = STEPS.iter().flat_map(cases).collect();
    let start = |case: &Case, when, options: &[&str]| {
        let file = kept(when, case.port).display().to_string();
        sink_at(case.port, &[options, &["-D", &file]].concat()).0
    };
    let ill: Vec<_> = cases
        .iter()
        .map(|case| start(case, "ill", &[case.option, case.step]))
        .collect();

    let home = NextHop::start(&[], |_| None);
    let mut site = Site::new().with(&format!(
        "[delivery.reuse]\nconnections = 0\n\
         [domains.\"client.example\"]\ndeliver = \"{}\"\nrecipients = \"any\"\n",
        home.target("lmtp")
    ));
    site.queue =
        "retry_factor = 1.0\npause_first = \"1s\"\npause_max = \"1s\"\njitter = 0.0".to_owned();
    for Case { port, .. } in &cases {
        site = site.with(&format!(
            "[domains.\"d{port}.example\"]\ndeliver = \"smtp:127.0.0.1:{port}\"\nrecipients = \"any\"\n"
        ));
    }
    let gateway = site.start();
    let mut client = Client::hello(gateway.smtp());
    let addresses = |port| LOCALS.map(|local| format!("{local}@d{port}.example"));
    for Case { port, .. } in &cases {
        let to = addresses(*port);
        let message = mail("a@client.example", &format!("for {port}"));
        let reply =
            client.try_deliver_to_all("a@client.example", &to.each_ref().map(|to| &**to), &message);
        assert!(reply.expect("a reply").starts_with("250"));
    }
    let wait_for = |address: &str, wanted: &dyn Fn(&[String]) -> bool| {
        wait_until(TRIED_AGAIN, &format!("what becomes of {address}"), || {
            Some(history(&gateway.process, address)).filter(|history| wanted(history))
        })
    };
    for Case {
        port,
        first,
        option,
        step,
    } in &cases
    {
        for address in addresses(*port) {
            let history = wait_for(&address, &|history| !history.is_empty());
            assert!(
                history[0].starts_with(first),
                "{option} {step}: {history:?}"
            );
        }
    }
    drop(ill);
    let _well: Vec<_> = cases.iter().map(|case| start(case, "well", &[])).collect();
    for Case {
        port,
        first,
        option,
        step,
    } in &cases
    {
        for address in addresses(*port) {
            let history = wait_for(&address, &|history| {
                history
                    .last()
                    .is_some_and(|entry| !entry.starts_with("deferred"))
            });
            let last = if *first == "failed" {
                "failed"
            } else {
                "delivered"
            };
            assert!(
                history.last().is_some_and(|entry| entry.starts_with(last)),
                "{history:?}"
            );
            let copies = |when| copies(&kept(when, *port), &address);
            let want = match *first {
                "delivered" => (1, 0),
                "failed" => (copies("ill"), 0),
                // What one that hangs up at the end has kept is not known.
                _ => (copies("ill"), 1),
            };
            assert_eq!(
                (copies("ill"), copies("well")),
                want,
                "{option} {step} {address}"
            );
        }
    }
}

fn cases((step, firsts): &'static (&'static str, [&'static str; 4])) -> impl Iterator<Item = Case> {
    OPTIONS.into_iter().zip(firsts).map(|(option, first)| Case {
        option,
        step,
        first,
        port: free_port(),
    })
}

/// How often a sink has kept a message for this recipient.
fn copies(file: &PathBuf, address: &str) -> usize {
    let text = fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    text.matches(&format!("X-Rcpt-Args: <{address}>")).count()
}
