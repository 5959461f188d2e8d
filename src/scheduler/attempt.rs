//! One job from start to end, in a task of its own: load the message, try, mark who has it.
//!
//! What did not come off goes back to the scheduler, which decides what that means.

use std::sync::Arc;
use std::time::Duration;
use std::time::SystemTime;

use super::Route;
use super::lanes::Road;
use crate::delivery::Delivery;
use crate::delivery::outcome::Cause;
use crate::delivery::outcome::Outcome;
use crate::delivery::target::Target;
use crate::mail::envelope::Envelope;
use crate::mail::id::SpoolId;
use crate::spool;
use crate::spool::Arrival;
use crate::spool::Mark;
use crate::spool::Spool;
use crate::telemetry::events;

/// All that an attempt needs.
pub(super) struct Attempt {
    pub(super) spool: Spool,
    pub(super) delivery: Arc<Delivery>,
    pub(super) route: Route,
    pub(super) road: Road,
    pub(super) id: SpoolId,
    /// Attempts before this one.
    pub(super) attempts: u32,
    pub(super) message: Option<Box<Arrival>>,
    /// Recipients that have failed for good, as indexes.
    pub(super) failed: Vec<usize>,
    /// Set where the destination was down: why.
    pub(super) trial: Option<Arc<str>>,
    pub(super) give_up_after: Duration,
}

/// What came of it.
pub(super) enum Ended {
    /// The message, to be put into the lanes of its recipients.
    Spread(Box<Arrival>),
    Tried(Tried),
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
    pub(super) async fn make(mut self) -> Ended {
        let mut message = match self.message.take() {
            Some(message) if message.content.is_some() => message,
            _ => match self.spool.load(self.id).await {
                Ok(message) => Box::new(message),
                Err(spool::Error::Unknown { .. }) => return Ended::Gone,
                Err(error) => return Ended::Unreadable(error),
            },
        };
        if message.held {
            return Ended::Gone;
        }
        match &self.road {
            Road::Spread => {
                // What waits in a lane must not hold the memory that attempts wait for.
                (message.content, message.memory) = (None, None);
                Ended::Spread(message)
            }
            Road::Nowhere => self.give_no_route(&message),
            Road::To(target) => self.deliver(target, &message).await,
        }
    }

    fn give_no_route(&self, message: &Arrival) -> Ended {
        let reason = |index: usize| {
            let recipient = &message.envelope.recipients[index].address;
            let text = format!(
                "no route for {}: the domain is not in the configuration any more",
                recipient.host()
            );
            (index, Left::Deferred(text))
        };
        let which = self.recipients(message, None);
        self.tried(
            message,
            which.into_iter().map(reason).collect(),
            Contact::NotTried,
        )
    }

    async fn deliver(&self, target: &Target, message: &Arrival) -> Ended {
        let which = self.recipients(message, Some(target));
        let Some(content) = message.content.as_ref().filter(|_| !which.is_empty()) else {
            return Ended::Gone;
        };
        let waited = message.arrived.elapsed().unwrap_or_default();
        if let Some(reason) = self
            .trial
            .as_deref()
            .filter(|_| waited >= self.give_up_after)
        {
            let left = |index| (index, Left::Deferred(reason.to_owned()));
            let left = which.into_iter().map(left).collect();
            return self.tried(message, left, Contact::NotTried);
        }
        let outcomes = self
            .delivery
            .attempt(target, self.id, &message.envelope, &which, content)
            .await;
        self.sort(target, message, &which, outcomes)
    }

    /// Marks and logs the delivered recipients, and keeps the others.
    fn sort(
        &self,
        target: &Target,
        message: &Arrival,
        which: &[usize],
        outcomes: Vec<Outcome>,
    ) -> Ended {
        let delay = message.arrived.elapsed().unwrap_or_default();
        let mut contact = Contact::Made;
        let (mut marks, mut left) = (Vec::with_capacity(which.len()), Vec::new());
        for (index, outcome) in which.iter().zip(outcomes) {
            let recipient = &message.envelope.recipients[*index].address;
            match outcome {
                Outcome::Delivered { reply } => {
                    let attempt = self.attempts + 1;
                    events::delivered(self.id, recipient, target, &reply, attempt, delay);
                    marks.push((*index, Mark::Delivered));
                }
                Outcome::Deferred { reason, cause } => {
                    if cause == Cause::Destination {
                        contact = Contact::NotMade(reason.to_string());
                    }
                    left.push((*index, Left::Deferred(reason.to_string())));
                }
                Outcome::Failed { reason } => {
                    left.push((*index, Left::Failed(reason.to_string())));
                }
            }
        }
        if !marks.is_empty() {
            self.spool.mark(self.id, marks);
        }
        self.tried(message, left, contact)
    }

    /// The recipients of this lane: those that are open, have not failed, and are routed here.
    fn recipients(&self, message: &Arrival, target: Option<&Target>) -> Vec<usize> {
        let open = open(message, &self.failed);
        open.filter(|index| target_of(&self.route, message, *index).as_ref() == target)
            .collect()
    }

    fn tried(&self, message: &Arrival, left: Vec<(usize, Left)>, contact: Contact) -> Ended {
        Ended::Tried(Tried {
            envelope: Arc::clone(&message.envelope),
            arrived: message.arrived,
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
    let recipient = message.envelope.recipients.get(index)?;
    recipient.address.domain().and_then(|domain| route(domain))
}
