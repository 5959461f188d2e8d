//! What is done to the spool in a run of the model, as a list that a person can read.

use std::fmt;
use std::time::Duration;

use nix::errno::Errno;
use proptest::prelude::Just;
use proptest::prelude::any;
use proptest::prelude::prop;
use proptest::prelude::prop_oneof;
use proptest::strategy::Strategy;

use crate::spool::faults::Fault;
use crate::spool::faults::On;
use crate::spool::model_tests::RECIPIENTS;

/// What is done to the spool. A message is picked by its place among those that are there.
#[derive(Debug, Clone)]
pub(super) enum Step {
    /// At the same time: the sizes, and whether they are held.
    Store(Vec<(usize, Held)>),
    Mark(usize, Vec<usize>),
    Defer(usize),
    Hold(usize),
    Release(usize),
    Load(usize),
    /// Until notes have gone to the disk by themselves.
    Wait,
    Fail(On, Fault),
    Heal,
    Reopen,
    /// The process dies after so many calls; what it wrote does not.
    Kill(u32),
    /// The power goes after so many calls.
    Cut(u32),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Held {
    No,
    Yes,
}

/// Steps, and the seed of what chance decides.
#[derive(Clone)]
pub(super) struct Schedule(pub(super) u64, pub(super) Vec<Step>);

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.0)?;
        let steps = self.1.iter().enumerate();
        steps
            .into_iter()
            .try_for_each(|(n, step)| writeln!(f, "{n:3} {step:?}"))
    }
}

pub(super) fn schedules() -> impl Strategy<Value = Schedule> {
    let size = prop_oneof![4 => 0..2500usize, 1 => 4000..9000usize];
    let held = prop_oneof![9 => Just(Held::No), 1 => Just(Held::Yes)];
    let which = || 0..60usize;
    let error = prop_oneof![2 => Just(Errno::EIO), 1 => Just(Errno::ENOSPC)];
    let full = error.clone().prop_map(Fault::Error);
    let broken = Just(Fault::Error(Errno::EIO));
    let fault = prop_oneof![
        3 => full.clone().prop_map(|fault| (On::Write, fault)),
        2 => (1..9000usize).prop_map(|octets| (On::Write, Fault::Short(octets))),
        4 => broken.prop_map(|fault| (On::Sync, fault)),
        1 => Just((On::Sync, Fault::Late(Duration::ZERO))),
        1 => Just((On::Sync, Fault::Late(Duration::from_millis(3)))),
        2 => broken.prop_map(|fault| (On::SyncDirectory, fault)),
        2 => full.clone().prop_map(|fault| (On::Allocate, fault)),
        1 => Just((On::Allocate, Fault::Error(Errno::EINTR))),
        2 => full.clone().prop_map(|fault| (On::Create, fault)),
        1 => full.prop_map(|fault| (On::Rename, fault)),
        1 => broken.prop_map(|fault| (On::Open, fault)),
        1 => broken.prop_map(|fault| (On::Remove, fault)),
        2 => broken.prop_map(|fault| (On::Read, fault)),
    ];
    let step = prop_oneof![
        300 => prop::collection::vec((size, held), 1..5).prop_map(Step::Store),
        250 => (which(), prop::collection::vec(0..RECIPIENTS, 1..4))
            .prop_map(|(which, at)| Step::Mark(which, at)),
        150 => which().prop_map(|which| Step::Mark(which, (0..RECIPIENTS).collect())),
        40 => which().prop_map(Step::Defer),
        25 => which().prop_map(Step::Hold),
        25 => which().prop_map(Step::Release),
        40 => which().prop_map(Step::Load),
        2 => Just(Step::Wait),
        120 => fault.prop_map(|(on, fault)| Step::Fail(on, fault)),
        20 => Just(Step::Heal),
        25 => Just(Step::Reopen),
        25 => (0..30u32).prop_map(Step::Kill),
        40 => (0..30u32).prop_map(Step::Cut),
    ];
    let steps = prop::collection::vec(step, 1..80);
    (any::<u64>(), steps).prop_map(|(seed, steps)| Schedule(seed, steps))
}
