//! Which word counts: a table of what an operator, a message and a destination ask for.

use super::*;
use crate::tls::dane::Association;

fn policy(mode: &str) -> Kept {
    let text = format!("version: STSv1\nmode: {mode}\nmx: mx.example\nmax_age: 100\n");
    Kept {
        id: "1".into(),
        fetched: std::time::SystemTime::UNIX_EPOCH,
        policy: sts::Policy::parse(&text).unwrap(),
    }
}

fn pinned() -> Dane {
    let base = Domain::parse("mx.example").unwrap();
    let pins = Pins {
        associations: vec![Association::new(3, 1, 1, &[1; 32]).unwrap()],
        base: base.clone(),
        names: vec![base],
    };
    Dane::Pinned {
        pins: Arc::new(pins),
        at: "t".into(),
    }
}

#[test]
fn an_operators_word_comes_first_then_dane_then_the_policy() {
    use Origin::Exchanger;
    use Origin::Named;
    let unusable = || Dane::Unusable { at: "t".into() };
    let (enforce, testing, none) = (policy("enforce"), policy("testing"), policy("none"));
    type Row<'a> = (Tls, Wish, Origin, Dane, Option<&'a Kept>, &'a str, &'a str);
    let rows: &[Row] = &[
        (
            Tls::None,
            Wish::Usual,
            Exchanger,
            pinned(),
            None,
            "mx.example",
            "none: configured",
        ),
        (
            Tls::May,
            Wish::Usual,
            Exchanger,
            pinned(),
            Some(&enforce),
            "mx.example",
            "may: configured",
        ),
        (
            Tls::Encrypt,
            Wish::NotRequired,
            Exchanger,
            pinned(),
            None,
            "mx.example",
            "encrypt: configured",
        ),
        (
            Tls::Verify,
            Wish::Usual,
            Exchanger,
            Dane::Unproven,
            None,
            "mx.example",
            "verify: configured",
        ),
        (
            Tls::Verify,
            Wish::Required,
            Exchanger,
            Dane::Unproven,
            None,
            "mx.example",
            "no-policy-found validation-failure",
        ),
        (
            Tls::Verify,
            Wish::Required,
            Exchanger,
            pinned(),
            None,
            "mx.example",
            "verify: configured",
        ),
        (
            Tls::Verify,
            Wish::Required,
            Named,
            Dane::Unproven,
            None,
            "mx.example",
            "verify: configured",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            pinned(),
            Some(&enforce),
            "x.example",
            "dane: 1 TLSA record at t",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            unusable(),
            Some(&enforce),
            "x.example",
            "encrypt: no usable TLSA record at t",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            Dane::Absent,
            Some(&enforce),
            "mx.example",
            "verify: MTA-STS enforce 1",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            Dane::Unproven,
            Some(&enforce),
            "x.example",
            "sts validation-failure",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            Dane::Unproven,
            Some(&testing),
            "mx.example",
            "trial: MTA-STS testing 1",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            Dane::Unproven,
            Some(&testing),
            "x.example",
            "may: MTA-STS testing 1",
        ),
        (
            Tls::Published,
            Wish::Usual,
            Exchanger,
            Dane::Unproven,
            Some(&none),
            "x.example",
            "may: nothing published",
        ),
        (
            Tls::Published,
            Wish::NotRequired,
            Exchanger,
            pinned(),
            Some(&enforce),
            "x.example",
            "may: TLS-Required: No",
        ),
        (
            Tls::DaneOnly,
            Wish::NotRequired,
            Exchanger,
            pinned(),
            None,
            "x.example",
            "dane: 1 TLSA record at t",
        ),
        (
            Tls::DaneOnly,
            Wish::Usual,
            Exchanger,
            Dane::Absent,
            None,
            "x.example",
            "tlsa dane-required",
        ),
        (
            Tls::DaneOnly,
            Wish::Usual,
            Exchanger,
            unusable(),
            None,
            "x.example",
            "tlsa tlsa-invalid",
        ),
        (
            Tls::May,
            Wish::Required,
            Exchanger,
            pinned(),
            None,
            "x.example",
            "dane: 1 TLSA record at t",
        ),
        (
            Tls::May,
            Wish::Required,
            Exchanger,
            Dane::Unproven,
            Some(&testing),
            "mx.example",
            "verify: MTA-STS testing 1",
        ),
        (
            Tls::May,
            Wish::Required,
            Exchanger,
            Dane::Unproven,
            Some(&testing),
            "x.example",
            "sts validation-failure",
        ),
        (
            Tls::May,
            Wish::Required,
            Exchanger,
            Dane::Absent,
            None,
            "x.example",
            "verify: REQUIRETLS",
        ),
        (
            Tls::None,
            Wish::Required,
            Named,
            Dane::Unproven,
            None,
            "x.example",
            "verify: REQUIRETLS",
        ),
        (
            Tls::Published,
            Wish::Required,
            Exchanger,
            Dane::Unproven,
            None,
            "x.example",
            "no-policy-found validation-failure",
        ),
        (
            Tls::Published,
            Wish::Required,
            Exchanger,
            unusable(),
            None,
            "x.example",
            "tlsa tlsa-invalid",
        ),
    ];
    for (asked, wish, origin, dane, sts, host, want) in rows {
        let got = match decide(*asked, *wish, *origin, dane, *sts, host) {
            Ok(security) => security.to_string(),
            Err(refusal) => format!("{} {}", refusal.policy_type.name(), refusal.failure),
        };
        assert_eq!(got, *want, "{asked:?} {wish:?} {dane:?} {host}");
    }
}
