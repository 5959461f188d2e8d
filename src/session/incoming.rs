//! The message on its way in: read after DATA or BDAT, within its limits, deadlines and memory.

use tokio::time::Instant;

use crate::smtp::data::Fault;
use crate::smtp::data::Limits;
use crate::smtp::data::Progress;
use crate::smtp::data::Receiver;
use crate::telemetry::events;

use super::Ended;
use super::Session;
use super::budget;
use super::budget::Share;

/// A message of which not all has come.
pub(super) struct Incoming {
    pub(super) receiver: Receiver,
    pub(super) octets: Vec<u8>,
    pub(super) share: Share,
    /// When the whole of it has to be here.
    pub(super) deadline: Instant,
}

impl Incoming {
    /// Gives all memory back when there is no more to be had; the rest of the message is dropped.
    fn keep_to_budget(&mut self) {
        if !self.share.covers(self.octets.len()) {
            self.octets = Vec::new();
        }
    }
}

impl Session<'_> {
    /// Reads the message after DATA to its end, or to where its end was lost.
    pub(super) async fn receive_data(&mut self) -> Result<Option<Fault>, Ended> {
        let mut incoming = self.begin_message();
        loop {
            let deadline = incoming
                .deadline
                .min(self.deadline(self.shared.config.data_timeout));
            let mut progress = Progress::More;
            let read = self.stream.receive(deadline, |input| {
                progress = incoming.receiver.dotted(input, &mut incoming.octets);
                incoming.keep_to_budget();
                match progress {
                    Progress::More => input.len(),
                    Progress::End { taken } => taken,
                }
            });
            read.await?;
            if matches!(progress, Progress::End { .. }) {
                let fault = incoming.receiver.fault();
                self.incoming = Some(incoming);
                return Ok(fault);
            }
        }
    }

    /// Reads a chunk and adds it to the message, which begins with the first one.
    pub(super) async fn receive_chunk(&mut self, size: u64) -> Result<(), Ended> {
        let mut incoming = match self.incoming.take() {
            Some(incoming) => incoming,
            None => self.begin_message(),
        };
        let mut rest = size;
        while rest > 0 {
            let deadline = incoming
                .deadline
                .min(self.deadline(self.shared.config.data_timeout));
            self.flush().await?;
            let read = self.stream.receive(deadline, |input| {
                let taken = input.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                incoming
                    .receiver
                    .chunk(&input[..taken], &mut incoming.octets);
                incoming.keep_to_budget();
                rest -= taken as u64;
                taken
            });
            read.await?;
        }
        self.incoming = Some(incoming);
        Ok(())
    }

    /// Reads a chunk that is not wanted.
    pub(super) async fn skip(&mut self, size: u64) -> Result<(), Ended> {
        let all = self.deadline(self.shared.config.message_timeout);
        let mut rest = size;
        while rest > 0 {
            let deadline = all.min(self.deadline(self.shared.config.data_timeout));
            self.flush().await?;
            let read = self.stream.receive(deadline, |input| {
                let taken = input.len().min(usize::try_from(rest).unwrap_or(usize::MAX));
                rest -= taken as u64;
                taken
            });
            read.await?;
        }
        Ok(())
    }

    /// A message that is refused for its form is refused like any other.
    pub(super) fn log_fault(&self, fault: Option<Fault>) {
        let (Some(fault), Some(transaction)) = (fault, self.server.transaction()) else {
            return;
        };
        events::refused(
            self.id(),
            self.connection.peer.ip(),
            "data",
            &transaction.mail.from,
            &transaction.recipients.len(),
            &self.server.reply_to(fault),
        );
    }

    fn begin_message(&self) -> Incoming {
        let config = &self.shared.config;
        let limits = Limits {
            size: config.size.as_u64(),
            line: usize::try_from(config.line.as_u64()).unwrap_or(usize::MAX),
        };
        let memory = budget::Limits {
            in_all: config.memory,
            per_client: config.memory_per_client,
        };
        Incoming {
            receiver: Receiver::new(limits),
            octets: Vec::new(),
            share: self.shared.budget.share(self.connection.peer.ip(), memory),
            deadline: self.deadline(config.message_timeout),
        }
    }
}
