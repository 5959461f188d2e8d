//! Whether the gateway can do its work, as the parts themselves say.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// Says what is wrong with a part, if anything is.
type Question = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// What stands in the way of the work. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Health {
    troubles: Arc<Mutex<BTreeMap<&'static str, String>>>,
    questions: Vec<(&'static str, Question)>,
}

impl Health {
    /// All is well until somebody says otherwise.
    pub fn new() -> Health {
        Health::default()
    }

    /// `part` is asked each time that somebody asks us; it should know at once.
    pub fn asking(
        mut self,
        part: &'static str,
        question: impl Fn() -> Option<String> + Send + Sync + 'static,
    ) -> Health {
        self.questions.push((part, Arc::new(question)));
        self
    }

    /// From here on `part` (`draining` ...) is in trouble.
    pub fn trouble(&self, part: &'static str, reason: impl Into<String>) {
        self.troubles().insert(part, reason.into());
    }

    /// `part` works again.
    pub fn well(&self, part: &'static str) {
        self.troubles().remove(part);
    }

    /// One line for each part in trouble; none when all is well.
    pub fn reasons(&self) -> Vec<String> {
        let mut troubles = self.troubles().clone();
        for (part, question) in &self.questions {
            troubles.extend(question().map(|reason| (*part, reason)));
        }
        troubles
            .iter()
            .map(|(part, reason)| format!("{part}: {reason}"))
            .collect()
    }

    fn troubles(&self) -> MutexGuard<'_, BTreeMap<&'static str, String>> {
        // The map is whole between any two calls, whoever panicked in between.
        self.troubles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::atomic::Ordering;

    use super::*;

    #[test]
    fn a_part_is_in_trouble_until_it_is_well_again() {
        let health = Health::new();
        health.trouble("spool", "the disk is full");
        health.trouble("spool", "still full");
        assert_eq!(health.clone().reasons(), ["spool: still full"]);
        health.well("spool");
        assert!(health.reasons().is_empty());
    }

    #[test]
    fn a_part_that_is_asked_says_how_it_is_now() {
        let full = Arc::new(AtomicBool::new(true));
        let disk = Arc::clone(&full);
        let health = Health::new().asking("spool", move || {
            disk.load(Ordering::Relaxed).then(|| "full".to_owned())
        });
        assert_eq!(health.clone().reasons(), ["spool: full"]);
        full.store(false, Ordering::Relaxed);
        assert!(health.reasons().is_empty());
    }
}
