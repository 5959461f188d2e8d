//! DMARC: records found by the tree walk, alignment, policies, and what the DNS leaves open.

use gatepost::verify::Author;
use gatepost::verify::Dmarc;
use gatepost::verify::DmarcPolicy;
use gatepost::verify::DmarcResult;
use gatepost::verify::Spf;
use gatepost::verify::SpfIdentity;
use gatepost::verify::SpfResult;

use crate::support::dns::Nameserver;
use crate::verify::domain;
use crate::verify::key_line;
use crate::verify::signed;
use crate::verify::signer;
use crate::verify::verifier;

const ZONE: &str = "
    _dmarc.reject.example TXT v=DMARC1; p=reject
    there.reject.example TXT exists
    _dmarc.own.reject.example TXT v=DMARC1; p=none

    _dmarc.strict.example TXT v=DMARC1; p=reject; aspf=s; adkim=s
    _dmarc.test.example TXT v=DMARC1; p=reject; t=y; pct=0
    _dmarc.quarter.example TXT v=DMARC1; p=quarantine; pct=0
    _dmarc.sub.example TXT v=DMARC1; p=none; sp=quarantine; np=reject
    there.sub.example TXT exists
    broken.sub.example SERVFAIL
    _dmarc.unit.org.example TXT v=DMARC1; p=reject; psd=n
    _dmarc.org.example TXT v=DMARC1; p=none

    _dmarc.psd TXT v=DMARC1; p=reject; sp=quarantine; psd=y
    agency.psd TXT exists
    _dmarc.twice.example TXT v=DMARC1; p=reject
    _dmarc.twice.example TXT v=DMARC1; p=reject
    _dmarc.bad.example TXT v=DMARC1; p=rejectt
    _dmarc.unsure.example TXT v=DMARC1; p=rejectt; rua=mailto:a@unsure.example
    _dmarc.broken.example SERVFAIL
    _dmarc.own.broken.example TXT v=DMARC1; p=reject
    _dmarc.mild.broken.example TXT v=DMARC1; p=none
";

fn spf(identity: SpfIdentity, result: SpfResult, domain: &str) -> Spf {
    Spf {
        result,
        identity,
        domain: domain.to_owned(),
        explanation: None,
    }
}

/// The verdict on mail from `from`, whose sender gave `result` for `sender`.
async fn judge(server: &Nameserver, from: &str, result: SpfResult, sender: &str) -> Dmarc {
    let message = format!("From: {from}\r\n\r\nbody\r\n");
    let spf = [
        spf(SpfIdentity::Helo, SpfResult::Pass, "mx.elsewhere.example"),
        spf(SpfIdentity::MailFrom, result, sender),
    ];
    verifier(server)
        .message(message.as_bytes(), &spf)
        .await
        .dmarc
}

fn found(dmarc: &Dmarc) -> (DmarcResult, DmarcPolicy, Option<&str>) {
    let at = dmarc.policy_domain.as_ref().map(|name| name.as_str());
    (dmarc.result, dmarc.policy, at)
}

#[tokio::test]
async fn mail_that_nobody_speaks_for_meets_the_policy_that_applies() {
    use DmarcPolicy::None as Nothing;
    use DmarcPolicy::Quarantine;
    use DmarcPolicy::Reject;
    use DmarcResult::Fail;
    use DmarcResult::None as NoRecord;
    use DmarcResult::TempError;
    let server = Nameserver::with(ZONE);
    for (from, want) in [
        ("reject.example", (Fail, Reject, Some("reject.example"))),
        (
            "there.reject.example",
            (Fail, Reject, Some("reject.example")),
        ),
        (
            "own.reject.example",
            (Fail, Nothing, Some("own.reject.example")),
        ),
        ("test.example", (Fail, Quarantine, Some("test.example"))),
        (
            "quarter.example",
            (Fail, Quarantine, Some("quarter.example")),
        ),
        ("sub.example", (Fail, Nothing, Some("sub.example"))),
        ("there.sub.example", (Fail, Quarantine, Some("sub.example"))),
        ("gone.sub.example", (Fail, Reject, Some("sub.example"))),
        // Whether it exists cannot be told now, and it matters.
        (
            "broken.sub.example",
            (TempError, Reject, Some("sub.example")),
        ),
        (
            "a.unit.org.example",
            (Fail, Reject, Some("unit.org.example")),
        ),
        ("agency.psd", (Fail, Quarantine, Some("psd"))),
        ("twice.example", (NoRecord, Nothing, None)),
        ("bad.example", (NoRecord, Nothing, None)),
        ("unsure.example", (Fail, Nothing, Some("unsure.example"))),
        ("nothing.example", (NoRecord, Nothing, None)),
        // The record cannot be looked up: it may ask for the worst.
        ("broken.example", (TempError, Reject, None)),
        // The domain's own record decides what to do, but who is aligned is not known.
        (
            "own.broken.example",
            (TempError, Reject, Some("own.broken.example")),
        ),
        // What was found on the way is not the organisation's record; that cannot be looked up.
        ("a.mild.broken.example", (TempError, Reject, None)),
    ] {
        let from = format!("a@{from}");
        let dmarc = judge(&server, &from, SpfResult::None, "elsewhere.example").await;
        assert_eq!(found(&dmarc), want, "{from}");
    }
}

#[tokio::test]
async fn spf_speaks_for_aligned_domains_only() {
    use DmarcResult::Fail;
    use DmarcResult::Pass;
    use DmarcResult::TempError;
    let server = Nameserver::with(ZONE);
    for (from, result, sender, want) in [
        ("reject.example", SpfResult::Pass, "reject.example", Pass),
        (
            "reject.example",
            SpfResult::Pass,
            "bounce.reject.example",
            Pass,
        ),
        (
            "a.reject.example",
            SpfResult::Pass,
            "b.reject.example",
            Pass,
        ),
        ("a.reject.example", SpfResult::Pass, "reject.example", Pass),
        ("reject.example", SpfResult::Pass, "badreject.example", Fail),
        ("reject.example", SpfResult::Fail, "reject.example", Fail),
        (
            "reject.example",
            SpfResult::SoftFail,
            "reject.example",
            Fail,
        ),
        ("strict.example", SpfResult::Pass, "strict.example", Pass),
        ("strict.example", SpfResult::Pass, "a.strict.example", Fail),
        // psd=n parts an organisation from what is above it.
        (
            "a.unit.org.example",
            SpfResult::Pass,
            "b.unit.org.example",
            Pass,
        ),
        ("a.unit.org.example", SpfResult::Pass, "org.example", Fail),
        ("org.example", SpfResult::Pass, "unit.org.example", Fail),
        // Below a public suffix each name is an organisation.
        ("agency.psd", SpfResult::Pass, "www.agency.psd", Pass),
        ("agency.psd", SpfResult::Pass, "other.psd", Fail),
        // Might have passed.
        (
            "reject.example",
            SpfResult::TempError,
            "reject.example",
            TempError,
        ),
        (
            "reject.example",
            SpfResult::TempError,
            "elsewhere.example",
            Fail,
        ),
        (
            "own.broken.example",
            SpfResult::Pass,
            "own.broken.example",
            Pass,
        ),
    ] {
        let dmarc = judge(&server, &format!("a@{from}"), result, sender).await;
        assert_eq!(dmarc.result, want, "{from}, {result:?} for {sender}");
        assert_eq!(dmarc.spf_aligned, want == Pass, "{from} {sender}");
    }
}

#[tokio::test]
async fn the_helo_name_speaks_for_mail_without_a_sender() {
    let server = Nameserver::with(ZONE);
    let helo = spf(SpfIdentity::Helo, SpfResult::Pass, "mx.reject.example");
    let raw = b"From: a@reject.example\r\n\r\n";
    let dmarc = verifier(&server).message(raw, &[helo]).await.dmarc;
    assert_eq!(dmarc.result, DmarcResult::Pass);
}

#[tokio::test]
async fn a_signature_rescues_a_forwarded_message() {
    let (own, other) = (signer("mail.reject.example"), signer("other.example"));
    let zone = format!("{ZONE}\n{}{}", key_line(&own), key_line(&other));
    let server = Nameserver::with(&zone);
    let message = "From: a@reject.example\r\n\r\nbody\r\n";
    let failed = [spf(
        SpfIdentity::MailFrom,
        SpfResult::Fail,
        "forwarder.example",
    )];
    for (signed, want) in [
        (signed(&own, message), DmarcResult::Pass),
        (signed(&other, message), DmarcResult::Fail),
        (signed(&own, message) + "added\r\n", DmarcResult::Fail),
        (message.to_owned(), DmarcResult::Fail),
    ] {
        let evidence = verifier(&server).message(signed.as_bytes(), &failed).await;
        assert_eq!(evidence.dmarc.result, want, "{signed}");
        assert_eq!(evidence.dmarc.dkim_aligned, want == DmarcResult::Pass);
    }
}

#[tokio::test]
async fn a_signature_whose_key_has_no_answer_leaves_the_result_open() {
    let own = signer("reject.example");
    let server = Nameserver::with(&format!("{ZONE}\n{} SERVFAIL", own.dns_name()));
    let message = signed(&own, "From: a@reject.example\r\n\r\nbody\r\n");
    let evidence = verifier(&server).message(message.as_bytes(), &[]).await;
    assert_eq!(evidence.dmarc.result, DmarcResult::TempError);
    assert_eq!(evidence.dmarc.policy, DmarcPolicy::Reject);
}

#[tokio::test]
async fn of_several_authors_the_strictest_result_counts() {
    let server = Nameserver::with(ZONE);
    for (from, want) in [
        (
            "a@reject.example, b@quarter.example",
            (DmarcResult::Fail, DmarcPolicy::Quarantine),
        ),
        (
            "a@quarter.example, b@strict.example",
            (DmarcResult::Fail, DmarcPolicy::Reject),
        ),
        (
            "a@reject.example, b@nothing.example",
            (DmarcResult::None, DmarcPolicy::None),
        ),
    ] {
        let dmarc = judge(&server, from, SpfResult::Pass, "reject.example").await;
        assert_eq!((dmarc.result, dmarc.policy), want, "{from}");
    }
    // Two fields are read like two authors.
    let raw = b"From: a@nothing.example\r\nFrom: b@strict.example\r\n\r\n";
    let evidence = verifier(&server).message(raw, &[]).await;
    assert_eq!(evidence.author, Author::Fields(2));
    assert_eq!(evidence.dmarc.policy, DmarcPolicy::Reject);
}

#[tokio::test]
async fn whether_a_domain_publishes_dmarc_is_told_or_left_open() {
    let server = Nameserver::with(ZONE);
    let verifier = verifier(&server);
    for (name, want) in [
        ("reject.example", Ok(true)),
        ("a.b.reject.example", Ok(true)),
        ("bad.example", Ok(false)),
        ("nothing.example", Ok(false)),
        ("own.broken.example", Ok(true)),
        ("broken.example", Err(())),
    ] {
        let got = verifier.publishes_dmarc(&domain(name)).await.map_err(drop);
        assert_eq!(got, want, "{name}");
    }
}

#[tokio::test]
async fn a_name_of_many_labels_costs_eight_questions() {
    let server = Nameserver::with(ZONE);
    let name = "a.b.c.d.e.f.g.h.i.j.mail.nothing.example";
    assert_eq!(
        verifier(&server).publishes_dmarc(&domain(name)).await,
        Ok(false)
    );
    let asked = |name: &str| server.times_asked(&format!("{name} TXT"));
    assert_eq!(asked(&format!("_dmarc.{name}")), 1);
    assert_eq!(asked("_dmarc.b.c.d.e.f.g.h.i.j.mail.nothing.example"), 0);
    assert_eq!(asked("_dmarc.g.h.i.j.mail.nothing.example"), 1);
    assert_eq!(asked("_dmarc.example"), 1);
}

#[tokio::test]
async fn whom_the_very_domain_speaks_for_is_not_put_off_for_its_record() {
    let server = Nameserver::with(ZONE);
    for (sender, aligned, policy) in [
        ("broken.example", true, DmarcPolicy::None),
        ("a.broken.example", false, DmarcPolicy::Reject),
    ] {
        let dmarc = judge(&server, "a@broken.example", SpfResult::Pass, sender).await;
        assert_eq!(
            found(&dmarc),
            (DmarcResult::TempError, policy, None),
            "{sender}"
        );
        assert_eq!(dmarc.spf_aligned, aligned, "{sender}");
    }
}
