//! One order, from its names to the certificate (RFC 8555 §7.4): one attempt, with an end.

use std::time::Duration;

use instant_acme::Account;
use instant_acme::AuthorizationStatus;
use instant_acme::CertificateIdentifier;
use instant_acme::ChallengeType;
use instant_acme::Identifier;
use instant_acme::NewOrder;
use instant_acme::Order;
use instant_acme::OrderStatus;
use instant_acme::RetryPolicy;
use tokio::time::timeout;

use super::Error;
use super::answers::Answers;
use super::answers::Shown;
use super::config::Challenge;
use super::error::words;
use super::wanted::Wanted;

/// How long the authority may look, and then how long it may take to sign.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// How long it may take in all until the authority has seen all names; records take their time.
const PROVEN_WITHIN: Duration = Duration::from_secs(15 * 60);

/// Orders a certificate and shows that its names are ours. What `replaces` names is renewed by it, which
/// some authorities treat better (RFC 9773 §5).
pub(super) async fn authorized(
    account: &Account,
    wanted: &Wanted,
    replaces: Option<CertificateIdentifier<'static>>,
    answers: &Answers,
) -> Result<Order, Error> {
    let names = wanted.names.iter().cloned();
    let identifiers: Vec<_> = names.map(Identifier::Dns).collect();
    let order = NewOrder::new(&identifiers);
    let mut order = match replaces {
        Some(old) => match account.new_order(&order.replaces(old)).await {
            Ok(order) => order,
            // It may have been replaced by another order, or be unknown: then this is a first one.
            Err(_) => account.new_order(&NewOrder::new(&identifiers)).await?,
        },
        None => account.new_order(&order).await?,
    };
    let mut shown = Shown::default();
    let proven = prove(&mut order, wanted.challenge, answers, &mut shown);
    let proven = timeout(PROVEN_WITHIN, proven).await;
    answers.withdraw(shown).await;
    proven.unwrap_or(Err(Error::Late)).map(|()| order)
}

/// Shows what is asked for each name, and waits until the authority has seen it.
async fn prove(
    order: &mut Order,
    challenge: Challenge,
    answers: &Answers,
    shown: &mut Shown,
) -> Result<(), Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        match authorization.status {
            AuthorizationStatus::Valid => continue,
            AuthorizationStatus::Pending => {}
            AuthorizationStatus::Invalid
            | AuthorizationStatus::Revoked
            | AuthorizationStatus::Expired
            | AuthorizationStatus::Deactivated => return Err(Error::NotReady),
        }
        // What is asked for a wildcard is shown at the name below the star.
        let name = match authorization.identifier().identifier {
            Identifier::Dns(name) => name.clone(),
            other => format!("{other:?}"),
        };
        let asked = authorization.challenge(kind(challenge));
        let mut asked = asked.ok_or_else(|| Error::NoChallenge {
            name: name.clone(),
            challenge,
        })?;
        let value = asked.key_authorization();
        let token = asked.token.clone();
        answers
            .show(challenge, &name, &token, &value, shown)
            .await?;
        // It may have looked already when it answers.
        let told = asked.set_ready().await;
        told.map_err(|error| unproven(&name, error))?;
    }
    let of_the_order = match order.poll_ready(&PATIENCE).await {
        Ok(OrderStatus::Ready | OrderStatus::Valid) => return Ok(()),
        Ok(OrderStatus::Invalid | OrderStatus::Pending | OrderStatus::Processing) => {
            Error::NotReady
        }
        Err(error @ instant_acme::Error::Api(_)) => unproven("a name", error),
        Err(error) => return Err(error.into()),
    };
    // Some say it of the order, some only of the name; the latter tells more.
    Err(what_it_saw(order).await.unwrap_or(of_the_order))
}

fn unproven(name: &str, error: instant_acme::Error) -> Error {
    match error {
        instant_acme::Error::Api(problem) => Error::Unproven {
            name: name.to_owned(),
            reason: words(&problem),
        },
        error => error.into(),
    }
}

/// Why the authority does not believe that a name is ours, where it says so.
async fn what_it_saw(order: &mut Order) -> Option<Error> {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            continue;
        };
        let mut failed = state.challenges.iter().filter_map(|one| one.error.as_ref());
        if let Some(problem) = failed.next() {
            return Some(Error::Unproven {
                name: state.identifier().to_string(),
                reason: words(problem),
            });
        }
    }
    None
}

/// Has the authority sign a request for what was authorized; gives the chain in PEM.
pub(super) async fn signed(order: &mut Order, request: &[u8]) -> Result<String, Error> {
    order.finalize_csr(request).await?;
    Ok(order.poll_certificate(&PATIENCE).await?)
}

fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Http01 => ChallengeType::Http01,
        Challenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Challenge::Dns01 => ChallengeType::Dns01,
    }
}
