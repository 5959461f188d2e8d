//! The RFC 7208 suite of the openspf project, every case of it, against a real DNS server.

use std::time::Duration;

use gatepost::verify::SpfResult;
use gatepost::verify::spf::Question;
use gatepost::verify::spf::check_host;
use hickory_resolver::proto::rr::RecordType;
use serde::Deserialize;
use serde_norway::Mapping;
use serde_norway::Value;
use tokio::task::JoinSet;

use crate::support::dns::Behaviour;
use crate::support::dns::Nameserver;
use crate::vectors::fetch::source_distribution;

/// Cases in which we differ on purpose, each with its reason.
const DIFFERENCES: &[(&str, &str)] = &[];

/// Runs every case of every scenario and names all that fail.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_case_of_the_rfc_7208_suite_gives_its_result() {
    let Some(folder) = source_distribution("pyspf", "2.0.14") else {
        return;
    };
    let text = std::fs::read_to_string(folder.join("test/rfc7208-tests.yml")).unwrap();
    let mut scenarios = JoinSet::new();
    for document in serde_norway::Deserializer::from_str(&text) {
        let Value::Mapping(scenario) = Value::deserialize(document).unwrap() else {
            continue;
        };
        scenarios.spawn(run(scenario));
    }
    let (mut cases, mut wrong) = (0, Vec::new());
    for (ran, failed) in scenarios.join_all().await {
        cases += ran;
        wrong.extend(failed);
    }
    assert!(cases > 190, "the suite has lost cases: {cases}");
    assert!(
        wrong.is_empty(),
        "{} of {cases}:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// One scenario: its zone, and its cases all at once. Gives how many there were and what was wrong.
async fn run(scenario: Mapping) -> (usize, Vec<String>) {
    let server = nameserver(&scenario);
    let dns = server.dns();
    let tests = scenario["tests"].as_mapping().unwrap().clone();
    let mut cases = JoinSet::new();
    for (id, test) in tests {
        let (id, dns) = (string(&id), dns.clone());
        cases.spawn(async move {
            let sender = string(&test["mailfrom"]);
            let helo = string(&test["helo"]);
            let (local, domain) = sender.rsplit_once('@').unwrap_or(("", &helo));
            let question = Question {
                ip: string(&test["host"]).parse().unwrap(),
                local,
                domain,
                helo: &helo,
                receiver: "receiver.example",
            };
            let answer = check_host(&dns, &question, Duration::from_secs(20)).await;
            let difference = fault(&test, name(answer.result), answer.explanation.as_deref())?;
            let meant = DIFFERENCES.iter().any(|(known, _)| *known == id);
            (!meant).then(|| format!("{id}: {difference}"))
        });
    }
    let results = cases.join_all().await;
    (results.len(), results.into_iter().flatten().collect())
}

/// What is wrong with an answer, where something is.
fn fault(test: &Value, result: &str, explanation: Option<&str>) -> Option<String> {
    let wanted: Vec<String> = match &test["result"] {
        Value::Sequence(any) => any.iter().map(string).collect(),
        one => vec![string(one)],
    };
    if !wanted.iter().any(|wanted| wanted == result) {
        return Some(format!(
            "{result}, not {wanted:?} (RFC 7208 §{})",
            string(&test["spec"])
        ));
    }
    let wanted = test.get("explanation").map(string)?;
    // The suite names the receiver's own text "DEFAULT".
    let explanation = explanation.unwrap_or("DEFAULT");
    (explanation != wanted).then(|| format!("explained by {explanation:?}, not {wanted:?}"))
}

fn nameserver(scenario: &Mapping) -> Nameserver {
    let server = Nameserver::start();
    for (name, entries) in scenario["zonedata"].as_mapping().unwrap() {
        let name = string(name);
        let entries = entries.as_sequence().unwrap();
        let has_txt = entries.iter().any(|entry| entry.get("TXT").is_some());
        for entry in entries {
            match entry {
                Value::Mapping(entry) => {
                    for (kind, data) in entry {
                        add(&server, &name, &string(kind), data, has_txt);
                    }
                }
                _ => {
                    server.except(&name, None, Behaviour::Silent);
                }
            }
        }
    }
    server
}

/// Adds one record of the suite. Where a name has no TXT of its own, its SPF records are given as
/// such (the suite's rule for RFC 7208, which knows no type SPF).
fn add(server: &Nameserver, name: &str, kind: &str, data: &Value, has_txt: bool) {
    match (kind, data) {
        ("SPF", _) if has_txt => {}
        ("TXT" | "SPF", Value::String(text)) if text == "NONE" => {}
        ("TXT" | "SPF", Value::String(text)) if text == "TIMEOUT" => {
            server.except(name, Some(RecordType::TXT), Behaviour::Silent);
        }
        // No strings at all cannot be sent (RFC 1035 §3.3.14: one or more); an empty one can.
        ("TXT" | "SPF", Value::Sequence(strings)) if strings.is_empty() => {
            server.strings(name, &[b""]);
        }
        ("TXT" | "SPF", Value::Sequence(strings)) => {
            let strings: Vec<String> = strings.iter().map(string).collect();
            let strings: Vec<&[u8]> = strings.iter().map(|text| text.as_bytes()).collect();
            server.strings(name, &strings);
        }
        ("TXT" | "SPF", text) => {
            server.txt(name, &string(text));
        }
        ("MX", Value::Sequence(pair)) => {
            let (preference, host) = (string(&pair[0]), string(&pair[1]));
            // An empty name is the root: an MX that leads nowhere.
            server.record(name, "MX", &format!("{preference} {host}"));
        }
        ("A", data) if data == "TIMEOUT" => {
            server.except(name, Some(RecordType::A), Behaviour::Silent);
        }
        ("AAAA", data) if data == "TIMEOUT" => {
            server.except(name, Some(RecordType::AAAA), Behaviour::Silent);
        }
        (kind, data) => {
            server.record(name, kind, &string(data));
        }
    }
}

fn string(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        Value::Null => String::new(),
        other => panic!("no text: {other:?}"),
    }
}

fn name(result: SpfResult) -> &'static str {
    match result {
        SpfResult::None => "none",
        SpfResult::Neutral => "neutral",
        SpfResult::Pass => "pass",
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::TempError => "temperror",
        SpfResult::PermError => "permerror",
    }
}
