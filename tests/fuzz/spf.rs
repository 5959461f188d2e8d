//! SPF records: any text is one that can be evaluated for any question, or is refused.

use std::net::IpAddr;

use super::*;
use crate::fuzz::run;
use crate::verify::spf::Question;
use crate::verify::spf::macros::Values;

#[test]
fn any_record_is_refused_or_can_be_evaluated() {
    run("spf", |input| {
        if !is_spf(input) {
            return None;
        }
        let Ok(record) = Record::parse(input) else {
            return Some((0, 0));
        };
        assert!(input.is_ascii());
        assert!(record.directives.len() <= input.len() / 2);
        let names = record
            .directives
            .iter()
            .filter_map(|directive| name(&directive.mechanism));
        let names: Vec<_> = names
            .chain(record.redirect.as_ref())
            .chain(record.explanation.as_ref())
            .collect();
        for name in &names {
            assert_expands(name, "192.0.2.3".parse().unwrap());
            assert_expands(name, "2001:db8::cb01".parse().unwrap());
        }
        Some((record.directives.len().min(5), 1 + names.len().min(5)))
    });
}

fn name(mechanism: &Mechanism) -> Option<&MacroString> {
    match mechanism {
        Mechanism::All | Mechanism::Ip(_) => None,
        Mechanism::Include(name) | Mechanism::Exists(name) => Some(name),
        Mechanism::A(name, prefixes) | Mechanism::Mx(name, prefixes) => {
            assert!(prefixes.v4 <= 32 && prefixes.v6 <= 128);
            name.as_ref()
        }
        Mechanism::Ptr(name) => name.as_ref(),
    }
}

fn assert_expands(name: &MacroString, ip: IpAddr) {
    let question = Question {
        ip,
        local: "strong-bad",
        domain: "email.example",
        helo: "mx.email.example",
        receiver: "mx.gate.example",
    };
    let values = Values {
        question: &question,
        domain: "email.example",
        validated_name: "unknown",
        now: 0,
    };
    let name = name.expand_domain(&values);
    assert!(name.is_ascii() && !name.contains(|c: char| c.is_ascii_control()));
    // One that is a single label too long for a name is not asked for.
    assert!(name.len() <= 253 || !name.contains('.'));
}
