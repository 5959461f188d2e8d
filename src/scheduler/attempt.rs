//! One job from start to end: have the message, try, settle who has it and who will not.
//!
//! What did not come off goes back to the scheduler, which decides when it is tried again.

use std::fmt::Display;
use std::sync::Arc;
use std::time::SystemTime;

use super::Route;
use super::lane::Road;
use super::patience::Patience;
use super::verdict::Left;
use super::verdict::Verdict;
use crate::delivery::Delivery;
use crate::delivery::outcome::Cause;
use crate::delivery::outcome::Fate;
use crate::delivery::outcome::Outcome;
use crate::delivery::target::Target;
use crate::mail::address::Address;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::report::Reporter;
use crate::spool;
use crate::spool::Arrival;
use crate::spool::Spool;

/// All that an attempt needs.
pub(super) struct Attempt {
    pub(super) route: Route,
    pub(super) road: Road,
    pub(super) id: SpoolId,
    /// Attempts before this one.
    pub(super) attempts: u32,
    /// Without its content where that is large.
    pub(super) message: Box<Arrival>,
    /// For those that were set aside: what was said when their destination was left alone.
    pub(super) why_down: Option<Arc<Outcome>>,
    pub(super) patience: Patience,
}

/// What an attempt works with.
pub(super) struct Means<'a> {
    pub(super) spool: &'a Spool,
    pub(super) delivery: &'a Delivery,
    pub(super) reporter: &'a Reporter,
}

/// What came of it.
pub(super) enum Ended {
    /// The message, to be put into the lanes of its recipients.
    Spread(Box<Arrival>),
    Tried(Tried),
    /// What was set aside goes back into the lane of its destination.
    Back(Arc<Target>),
    /// Nothing is left to do here: it is finished, held or deleted.
    Gone,
    Unreadable(spool::Error),
}

/// The recipients of an attempt that are left.
pub(super) struct Tried {
    pub(super) envelope: Arc<Envelope>,
    pub(super) arrived: SystemTime,
    pub(super) left: Vec<Left>,
    pub(super) contact: Contact,
    /// Whether none of the message's recipients wait in another lane.
    pub(super) alone: bool,
}

/// What an attempt showed of its destination.
pub(super) enum Contact {
    Made,
    NotMade(Arc<Outcome>),
    /// It was not asked.
    NotTried,
}

impl Attempt {
    /// Makes the attempt. Ends by the deadlines of the delivery. Not cancel safe: when dropped, recipients
    /// may have the message without a mark.
    pub(super) async fn make(mut self, means: &Means<'_>) -> Ended {
        // It may have been in memory for a while, and an order have held or finished it since.
        match means.spool.standing(self.id) {
            Some(standing) if !standing.held => self.message.open = standing.open,
            Some(_) | None => return Ended::Gone,
        }
        match self.road.clone() {
            Road::Spread => {
                // What waits in a lane must not hold the memory that attempts wait for.
                (self.message.content, self.message.memory) = (None, None);
                Ended::Spread(self.message)
            }
            Road::Nowhere => self.give_no_route(means).await,
            Road::Aside(target) => self.look_after(target, means).await,
            Road::To(target) => self.deliver(&target, means).await,
        }
    }

    async fn give_no_route(mut self, means: &Means<'_>) -> Ended {
        let which = self.recipients(None);
        if let Err(ended) = self.load(means.spool).await {
            return ended;
        }
        let envelope = &self.message.envelope;
        let outcome = |index: usize| {
            let text = format!("no route for {}", envelope.recipients[index].address.host());
            (index, Outcome::no_route(&text))
        };
        let outcomes = which.into_iter().map(outcome).collect();
        self.settle(outcomes, Contact::NotTried, &"none", means)
            .await
    }

    /// The destination is down: senders hear of it all the same when it is time.
    async fn look_after(mut self, target: Arc<Target>, means: &Means<'_>) -> Ended {
        let now = SystemTime::now();
        let waited = self.message.arrived.elapsed().unwrap_or_default();
        let is_over_age = waited >= self.patience.of(&self.message.envelope);
        let Some(why) = self.why_down.clone() else {
            return Ended::Back(target);
        };
        if !is_over_age && !self.patience.is_warned(&self.message, now) {
            return Ended::Back(target);
        }
        let which = self.recipients(Some(&target));
        if let Err(ended) = self.load(means.spool).await {
            return ended;
        }
        let outcomes = which.into_iter().map(|index| (index, (*why).clone()));
        let (id, attempts, patience) = (self.id, self.attempts, self.patience);
        let arrived = self.message.arrived;
        let ended = self
            .settle(outcomes.collect(), Contact::NotTried, &target, means)
            .await;
        match ended {
            // It was not tried, so it waits on where it was.
            Ended::Tried(tried) if !is_over_age && !tried.left.is_empty() => {
                means
                    .spool
                    .defer(id, patience.due(arrived, now, now), attempts);
                Ended::Back(target)
            }
            ended => ended,
        }
    }

    async fn deliver(mut self, target: &Target, means: &Means<'_>) -> Ended {
        if let Err(ended) = self.load(means.spool).await {
            return ended;
        }
        let message = &self.message;
        let which = self.recipients(Some(target));
        let Some(content) = message.content.as_ref().filter(|_| !which.is_empty()) else {
            return Ended::Gone;
        };
        let outcomes = means
            .delivery
            .attempt(target, self.id, &message.envelope, &which, content)
            .await;
        let not_made = |outcome: &&Outcome| outcome.fate == Fate::Deferred(Cause::Destination);
        let contact = match outcomes.iter().rfind(not_made) {
            Some(outcome) => Contact::NotMade(Arc::new(outcome.clone())),
            None => Contact::Made,
        };
        let outcomes = which.into_iter().zip(outcomes).collect();
        self.settle(outcomes, contact, target, means).await
    }

    /// Has the content in memory, as a report may need it too.
    async fn load(&mut self, spool: &Spool) -> Result<(), Ended> {
        if self.message.content.is_some() {
            return Ok(());
        }
        match spool.load(self.id).await {
            Ok(message) if message.held => Err(Ended::Gone),
            Ok(message) => {
                *self.message = message;
                Ok(())
            }
            Err(spool::Error::Unknown { .. }) => Err(Ended::Gone),
            Err(error) => Err(Ended::Unreadable(error)),
        }
    }

    async fn settle(
        self,
        outcomes: Vec<(usize, Outcome)>,
        contact: Contact,
        host: &(dyn Display + Sync),
        means: &Means<'_>,
    ) -> Ended {
        let verdict = Verdict {
            id: self.id,
            attempt: self.attempts.saturating_add(1),
            message: &self.message,
            host,
            patience: self.patience,
            spool: means.spool,
            reporter: means.reporter,
        };
        let left = verdict.settle(outcomes).await;
        let alone = !left.is_empty() && roads(&self.message, &self.route).len() == 1;
        Ended::Tried(Tried {
            envelope: Arc::clone(&self.message.envelope),
            arrived: self.message.arrived,
            left,
            contact,
            alone,
        })
    }

    /// The recipients of this lane: those that are open and are routed here.
    fn recipients(&self, target: Option<&Target>) -> Vec<usize> {
        open(&self.message)
            .filter(|index| target_of(&self.route, &self.message, *index).as_ref() == target)
            .collect()
    }
}

/// The roads that the open recipients of a message take, each once.
pub(super) fn roads(message: &Arrival, route: &Route) -> Vec<Road> {
    let mut roads = Vec::with_capacity(1);
    for index in open(message) {
        let road = match target_of(route, message, index) {
            Some(target) => Road::To(Arc::new(target)),
            None => Road::Nowhere,
        };
        if !roads.contains(&road) {
            roads.push(road);
        }
    }
    roads
}

fn open(message: &Arrival) -> impl Iterator<Item = usize> {
    let named = message.envelope.recipients.len();
    let open = message.open.iter().copied();
    open.filter(move |index| *index < named)
}

fn target_of(route: &Route, message: &Arrival, index: usize) -> Option<Target> {
    let envelope = &message.envelope;
    let from = envelope.from.address().and_then(Address::domain);
    let recipient = envelope.recipients.get(index)?;
    route(from, recipient.address.host())
}
