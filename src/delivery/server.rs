//! A message to a server: as many transactions as its recipients need, over connections that are
//! used again.

use tokio::time::timeout_at;

use super::Delivery;
use super::Until;
use super::broken::Broken;
use super::connect::Connected;
use super::exchange::Again;
use super::outcome::Cause;
use super::outcome::Fate;
use super::outcome::Outcome;
use super::security::Wish;
use super::target::Target;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::smtp::client::origin::Origin;
use crate::smtp::client::response::Response;

/// What is handed over.
pub(super) struct Mail<'a> {
    pub(super) id: SpoolId,
    pub(super) envelope: &'a Envelope,
    pub(super) pieces: &'a [&'a [u8]],
    /// What it asks of TLS.
    pub(super) wish: Wish,
}

/// Whether a connection was used before, and so may have died unseen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    New,
    Used,
}

impl Delivery {
    /// One outcome for each of `which`, in their order.
    pub(super) async fn to_server(
        &self,
        until: Until,
        target: &Target,
        mail: &Mail<'_>,
        which: &[usize],
    ) -> Vec<Outcome> {
        let mut outcomes = vec![None; which.len()];
        let mut places: Vec<usize> = (0..which.len()).collect();
        while !places.is_empty() {
            let wanted: Vec<usize> = places.iter().map(|place| which[*place]).collect();
            let batch = timeout_at(until.time, self.transaction(target, mail, &wanted)).await;
            let batch = batch.unwrap_or_else(|_| vec![until.passed(); wanted.len()]);
            let gets_on = batch
                .iter()
                .any(|outcome| matches!(outcome.fate, Fate::Delivered(_)));
            let last = batch.last().cloned();
            let mut rest = places.split_off(batch.len().min(places.len()));
            for (place, outcome) in places.into_iter().zip(batch) {
                // One too many for this transaction is not for the next; each settles somebody.
                if gets_on && is_one_too_many(&outcome.reply) {
                    rest.push(place);
                } else {
                    outcomes[place] = Some(outcome);
                }
            }
            places = rest;
            if let Some(last) = last
                && last.fate == Fate::Deferred(Cause::Destination)
            {
                places
                    .drain(..)
                    .for_each(|place| outcomes[place] = Some(last.clone()));
            }
        }
        let unsaid = || Outcome::unreachable(nothing_said());
        outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(unsaid))
            .collect()
    }

    /// One transaction for as many of `which` as go into one, from the first on; at least one outcome.
    async fn transaction(&self, target: &Target, mail: &Mail<'_>, which: &[usize]) -> Vec<Outcome> {
        let (mut wanted, mut bdat) = (Age::Used, true);
        loop {
            let (mut connection, age) = match self.connection(target, wanted, mail.wish).await {
                Ok(connection) => connection,
                Err(outcome) => return vec![outcome; which.len()],
            };
            match (self.introduce(&mut connection, target, mail).await, age) {
                (Ok(()), _) => {}
                (Err(_), Age::Used) => {
                    self.pool.forget(target);
                    wanted = Age::New;
                    continue;
                }
                (Err(broken), Age::New) => {
                    let outcome = Outcome::unreachable(broken.response());
                    return vec![outcome.from(connection.peer()); which.len()];
                }
            }
            connection.offered.chunking &= bdat;
            let offered = connection.offered.recipient_limit.unwrap_or(usize::MAX);
            let batch = &which[..which.len().min(self.recipients).min(offered)];
            let done = connection.transact(mail.envelope, batch, mail.pieces).await;
            match (done.again, age) {
                (Again::Safe, Age::Used) => {
                    // It died while idle, and the others with it most likely.
                    self.pool.forget(target);
                    wanted = Age::New;
                    continue;
                }
                (Again::WithoutBdat, _) => {
                    (wanted, bdat) = (Age::New, false);
                    continue;
                }
                (Again::Safe | Again::No, _) => {}
            }
            let reason = done.broken.map_or_else(nothing_said, Broken::response);
            let outcome = |answer: Option<Response>| {
                let reply = answer.unwrap_or_else(|| reason.clone());
                let outcome = if wants_tls(&reply) && connection.offered.starttls {
                    Outcome::unreachable(reply)
                } else {
                    Outcome::of(reply, done.handover)
                };
                outcome.from(connection.peer())
            };
            let outcomes = done.answers.into_iter().map(outcome).collect();
            // One for mail that may do without is not for mail that may not.
            let may_serve_others = age == Age::Used || mail.wish != Wish::NotRequired;
            if connection.settle(done.connection).await && may_serve_others {
                self.keep(target, connection).await;
            }
            return outcomes;
        }
    }

    async fn introduce(
        &self,
        connection: &mut Connected,
        target: &Target,
        mail: &Mail<'_>,
    ) -> Result<(), Broken> {
        let route = target.route();
        if !route.xclient && !route.xforward {
            return Ok(());
        }
        let origin = Origin {
            client: mail.envelope.client,
            hello: mail.envelope.hello.as_deref(),
            login: mail.envelope.login.as_deref(),
            id: &mail.id.to_string(),
        };
        let hello = route.hello.as_ref().unwrap_or(&self.hostname);
        connection.introduce(route, hello, &origin).await
    }

    /// `wanted` is `New` where a used connection will not do.
    pub(super) async fn connection(
        &self,
        target: &Target,
        wanted: Age,
        wish: Wish,
    ) -> Result<(Connected, Age), Outcome> {
        // How safe one is that is kept, and what it offers, was decided for others.
        while wanted == Age::Used
            && wish != Wish::Required
            && let Some(mut connection) = self.pool.take(target)
        {
            if connection.is_idle().await {
                return Ok((connection, Age::Used));
            }
        }
        let connected = self.connector.connect(target, wish).await?;
        Ok((connected, Age::New))
    }

    pub(super) async fn keep(&self, target: &Target, connection: Connected) {
        if let Some(connection) = self.pool.keep(target, connection) {
            connection.quit().await;
        }
    }
}

/// RFC 5321 §4.5.3.1.10
fn is_one_too_many(reply: &Response) -> bool {
    reply.code == 452 && matches!(reply.enhanced, None | Some((4, 5, 3)))
}

/// RFC 3207 §4: a server that takes nothing in the clear says so of each command. It offers TLS, which did
/// not come off this time, so there is a next time.
fn wants_tls(reply: &Response) -> bool {
    reply.code == 530
}

fn nothing_said() -> Response {
    Response::ours(451, (4, 3, 0), "nothing was said of it")
}
