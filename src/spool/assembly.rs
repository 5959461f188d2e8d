//! Puts a spool together of its parts, over whichever log.

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

use tokio::sync::Semaphore;
use tokio::sync::watch;

use crate::spool::Arrivals;
use crate::spool::Config;
use crate::spool::Error;
use crate::spool::SessionClock;
use crate::spool::Shared;
use crate::spool::Spool;
use crate::spool::arrivals::Handover;
use crate::spool::committer::Committer;
use crate::spool::condition::Condition;
use crate::spool::disk::Disk;
use crate::spool::library::Library;
use crate::spool::loading::Loader;
use crate::spool::log::Log;
use crate::spool::notes;
use crate::spool::recovery::Rest;

/// What a spool is made of.
pub(super) struct Parts {
    pub(super) log: Box<dyn Log>,
    pub(super) library: Library,
    pub(super) condition: Arc<Condition>,
    pub(super) clock: Arc<SessionClock>,
    pub(super) rest: Rest,
    pub(super) disk: Disk,
    pub(super) began: Instant,
}

impl Parts {
    /// Puts the parts together, and starts the committer and the reading of what is left to be read.
    pub(super) fn assemble(self, config: &Config) -> Result<(Spool, Arrivals), Error> {
        let Parts {
            log,
            library,
            condition,
            clock,
            rest,
            disk,
            began,
        } = self;
        let (largest, place) = (log.largest_batch(), log.place());
        let library = Arc::new(library);
        let notes = Arc::<notes::Line>::default();
        let handover = Arc::<Handover>::default();
        let in_memory = u32::try_from(config.in_memory.as_u64()).unwrap_or(u32::MAX);
        let (jobs, line) = mpsc::channel();
        let (loaded, is_loaded) = watch::channel(false);
        let loading = Loader {
            rest,
            disk,
            library: Arc::clone(&library),
            handover: Arc::clone(&handover),
            jobs: jobs.clone(),
            loaded,
            began,
        };
        let committer = Committer::new(
            loading.start().map_err(|e| Error::directory(&place, e))?,
            log,
            Arc::clone(&library),
            Arc::clone(&notes),
            Arc::clone(&handover),
            Arc::clone(&condition),
            Arc::new(Semaphore::new(in_memory as usize)),
        );
        thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || committer.run(&line))
            .map_err(|e| Error::directory(&place, e))?;

        let queue_size = u32::try_from(config.waiting.as_u64()).unwrap_or(u32::MAX);
        let arrivals = Arrivals::new(Arc::clone(&handover), Arc::clone(&library));
        let spool = Spool(Arc::new(Shared {
            jobs,
            queue: Arc::new(Semaphore::new(queue_size as usize)),
            queue_size,
            loads: Arc::new(Semaphore::new(in_memory as usize)),
            loads_size: in_memory,
            ahead: Arc::new(Semaphore::new(in_memory as usize / 4)),
            library,
            notes,
            handover,
            condition,
            clock,
            loaded: is_loaded,
            large_message: config.large_message.as_u64() as usize,
            largest,
            keep_free: config.keep_free.as_u64(),
        }));
        Ok((spool, arrivals))
    }
}
