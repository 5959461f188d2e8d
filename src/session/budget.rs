//! What all messages on their way in may hold in memory together.
//!
//! Never waits: who comes when it is used up is told to try again, which is better than a gateway
//! in which everybody holds half a message and nobody can finish.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use bytesize::ByteSize;

pub(super) struct Budget {
    free: AtomicU64,
}

/// One message's part of the budget, given back when it is dropped.
pub(super) struct Share<'a> {
    budget: &'a Budget,
    held: u64,
    exhausted: bool,
}

impl Budget {
    pub(super) fn new(size: ByteSize) -> Budget {
        Budget {
            free: AtomicU64::new(size.as_u64()),
        }
    }

    /// An empty part of it.
    pub(super) fn share(&self) -> Share<'_> {
        Share {
            budget: self,
            held: 0,
            exhausted: false,
        }
    }
}

impl Share<'_> {
    /// Grows to `octets`; false where there is no more to be had, now and ever after.
    pub(super) fn covers(&mut self, octets: usize) -> bool {
        let wanted = (octets as u64).saturating_sub(self.held);
        if self.exhausted || wanted == 0 {
            return !self.exhausted;
        }
        let taken = self
            .budget
            .free
            .try_update(Ordering::Relaxed, Ordering::Relaxed, |free| {
                free.checked_sub(wanted)
            });
        match taken {
            Ok(_) => self.held += wanted,
            Err(_) => {
                self.exhausted = true;
                self.give_back();
            }
        }
        !self.exhausted
    }

    /// Whether the message was dropped for want of memory.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    fn give_back(&mut self) {
        self.budget.free.fetch_add(self.held, Ordering::Relaxed);
        self.held = 0;
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.give_back();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_on_top_gets_nothing_and_what_was_held_comes_back() {
        let budget = Budget::new(ByteSize::b(100));
        let mut first = budget.share();
        let mut second = budget.share();
        assert!(first.covers(60));
        assert!(first.covers(50), "it has more than that already");
        assert!(second.covers(40));
        assert!(!second.covers(41));
        assert!(second.is_exhausted());
        assert!(first.covers(100), "the second gave its part back");
        drop(first);
        assert!(budget.share().covers(100));
    }
}
