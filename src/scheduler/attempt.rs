//! One job from start to end: have the message, try, mark who has it.
//!
//! What did not come off goes back to the scheduler, which decides what that means.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use super::Route;
use super::lane::Road;
use crate::delivery::Delivery;
use crate::delivery::outcome::Cause;
use crate::delivery::outcome::Fate;
use crate::delivery::outcome::Outcome;
use crate::delivery::target::Target;
use crate::mail::address::Address;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool;
use crate::spool::Arrival;
use crate::spool::Mark;
use crate::spool::Spool;
use crate::telemetry::events;

/// All that an attempt needs.
pub(super) struct Attempt {
    pub(super) route: Route,
    pub(super) road: Road,
    pub(super) id: SpoolId,
    /// Attempts before this one.
    pub(super) attempts: u32,
    /// Without its content where that is large.
    pub(super) message: Box<Arrival>,
    /// Recipients that have failed for good, as indexes.
    pub(super) failed: Vec<usize>,
    /// For those that seem to be over age: why their destination is left alone.
    pub(super) why_down: Option<Arc<str>>,
    pub(super) give_up_after: Duration,
}

/// What came of it.
pub(super) enum Ended {
    /// The message, to be put into the lanes of its recipients.
    Spread(Box<Arrival>),
    Tried(Tried),
    /// The destination is not down any more, or the message is not over age after all.
    NotOverAge(Arc<Target>),
    /// Nothing is left to do here: it is finished, held or deleted.
    Gone,
    Unreadable(spool::Error),
}

/// The recipients of an attempt that were not delivered.
pub(super) struct Tried {
    pub(super) envelope: Arc<Envelope>,
    pub(super) arrived: SystemTime,
    pub(super) left: Vec<(usize, Left)>,
    pub(super) contact: Contact,
}

/// Why a recipient is left.
pub(super) enum Left {
    Deferred(String),
    Failed(String),
}

/// What an attempt showed of its destination.
pub(super) enum Contact {
    Made,
    NotMade(String),
    /// It was not asked.
    NotTried,
}

impl Attempt {
    /// Makes the attempt. Ends by the deadlines of the delivery. Not cancel safe: when dropped, recipients
    /// may have the message without a mark.
    pub(super) async fn make(mut self, spool: &Spool, delivery: &Delivery) -> Ended {
        if self.message.held {
            return Ended::Gone;
        }
        let target = match &self.road {
            Road::Spread => {
                // What waits in a lane must not hold the memory that attempts wait for.
                (self.message.content, self.message.memory) = (None, None);
                return Ended::Spread(self.message);
            }
            Road::Nowhere => return self.give_no_route(),
            Road::OverAge(target) => return self.give_up(target),
            Road::To(target) => Arc::clone(target),
        };
        if self.message.content.is_none() {
            match spool.load(self.id).await {
                Ok(message) => *self.message = message,
                Err(spool::Error::Unknown { .. }) => return Ended::Gone,
                Err(error) => return Ended::Unreadable(error),
            }
        }
        self.deliver(&target, spool, delivery).await
    }

    fn give_no_route(&self) -> Ended {
        let message = &self.message;
        let reason = |index: usize| {
            let recipient = &message.envelope.recipients[index].address;
            let text = format!("no route for {}", recipient.host());
            (index, Left::Deferred(text))
        };
        let which = self.recipients(None);
        self.tried(which.into_iter().map(reason).collect(), Contact::NotTried)
    }

    fn give_up(&self, target: &Arc<Target>) -> Ended {
        let waited = self.message.arrived.elapsed().unwrap_or_default();
        match &self.why_down {
            Some(reason) if waited >= self.give_up_after => {
                let which = self.recipients(Some(target));
                let left = |index| (index, Left::Deferred(reason.to_string()));
                self.tried(which.into_iter().map(left).collect(), Contact::NotTried)
            }
            Some(_) | None => Ended::NotOverAge(Arc::clone(target)),
        }
    }

    async fn deliver(&self, target: &Target, spool: &Spool, delivery: &Delivery) -> Ended {
        let message = &self.message;
        let which = self.recipients(Some(target));
        let Some(content) = message.content.as_ref().filter(|_| !which.is_empty()) else {
            return Ended::Gone;
        };
        let outcomes = delivery
            .attempt(target, self.id, &message.envelope, &which, content)
            .await;
        self.sort(target, spool, &which, outcomes)
    }

    /// Marks and logs the delivered recipients, and keeps the others.
    fn sort(
        &self,
        target: &Target,
        spool: &Spool,
        which: &[usize],
        outcomes: Vec<Outcome>,
    ) -> Ended {
        let message = &self.message;
        let delay = message.arrived.elapsed().unwrap_or_default();
        let mut contact = Contact::Made;
        let (mut marks, mut left) = (Vec::with_capacity(which.len()), Vec::new());
        for (index, outcome) in which.iter().zip(outcomes) {
            let recipient = &message.envelope.recipients[*index].address;
            let reply = outcome.reply.to_string();
            match outcome.fate {
                Fate::Delivered(_) => {
                    let attempt = self.attempts + 1;
                    let host: &dyn Display = match &outcome.peer {
                        Some(peer) => peer,
                        None => target,
                    };
                    events::delivered(self.id, recipient, host, &reply, attempt, delay);
                    marks.push((*index, Mark::Delivered));
                }
                Fate::Deferred(cause) => {
                    if cause == Cause::Destination {
                        contact = Contact::NotMade(reply.clone());
                    }
                    left.push((*index, Left::Deferred(reply)));
                }
                Fate::Failed => left.push((*index, Left::Failed(reply))),
            }
        }
        if !marks.is_empty() {
            spool.mark(self.id, marks);
        }
        self.tried(left, contact)
    }

    /// The recipients of this lane: those that are open, have not failed, and are routed here.
    fn recipients(&self, target: Option<&Target>) -> Vec<usize> {
        let open = open(&self.message, &self.failed);
        open.filter(|index| target_of(&self.route, &self.message, *index).as_ref() == target)
            .collect()
    }

    fn tried(&self, left: Vec<(usize, Left)>, contact: Contact) -> Ended {
        Ended::Tried(Tried {
            envelope: Arc::clone(&self.message.envelope),
            arrived: self.message.arrived,
            left,
            contact,
        })
    }
}

/// The roads that the open recipients of a message take, each once.
pub(super) fn roads(message: &Arrival, failed: &[usize], route: &Route) -> Vec<Road> {
    let mut roads = Vec::with_capacity(1);
    for index in open(message, failed) {
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

fn open(message: &Arrival, failed: &[usize]) -> impl Iterator<Item = usize> {
    let named = message.envelope.recipients.len();
    let open = message.open.iter().copied();
    open.filter(move |index| *index < named && !failed.contains(index))
}

fn target_of(route: &Route, message: &Arrival, index: usize) -> Option<Target> {
    let envelope = &message.envelope;
    let from = envelope.from.address().and_then(Address::domain);
    let recipient = envelope.recipients.get(index)?;
    route(from, recipient.address.host())
}
