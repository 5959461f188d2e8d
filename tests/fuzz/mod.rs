//! What others send us, made up: each target is fed the files of its corpus, then changes of them, and
//! has to hold what it promises.
//!
//! A target is a test. It takes octets, checks, and gives back what it saw (which replies, which fault);
//! an input that shows what none has shown before is kept and changed further, so that the search goes
//! on from what is interesting without a compiler that counts branches. By itself a target gets the
//! same inputs each time, for a second at most, so that no change is blamed for what another brought.
//! With `FUZZ_SECONDS=600` each gets new ones for as long: `make soak`.
//!
//! An input that fails is made smaller, shown, and written into the corpus, where it stays once the fault
//! is mended.

mod addresses;
mod changes;
mod commands;
mod configuration;
mod dialogue;
mod handover;
mod headers;
mod logins;
mod messages;
mod replies;
mod sasl;

use std::collections::HashSet;
use std::env;
use std::fs;
use std::hash::DefaultHasher;
use std::hash::Hash;
use std::hash::Hasher;
use std::panic;
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

use rand::SeedableRng;
use rand::rngs::SmallRng;

use changes::Changes;

/// How many changed inputs a target gets, where no time is asked for.
const INPUTS: usize = 20_000;
/// And for how long at most.
const AT_MOST: Duration = Duration::from_secs(1);
/// Longer inputs find little that shorter ones do not.
const LONGEST: usize = 8192;
/// How many inputs are kept to be changed.
const KEPT: usize = 4096;
/// What one input may take, on a machine with much to do. Nothing we read may take long.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many smaller inputs are tried where one fails.
const TRIES: usize = 2000;

/// Feeds `target` the corpus `name` and changes of it. What it gives says in what an input differs from
/// others; it must be one of few things.
pub(crate) fn run<Seen: Hash>(name: &str, target: impl Fn(&[u8]) -> Seen) {
    let folder = corpus(name);
    let mut kept = read(&folder);
    assert!(!kept.is_empty(), "{}: no seeds", folder.display());
    let mut search = Search {
        folder,
        target: |input: &[u8]| {
            let mut hasher = DefaultHasher::new();
            target(input).hash(&mut hasher);
            hasher.finish()
        },
        seen: HashSet::new(),
    };
    for seed in &kept {
        search.feed(seed);
    }
    let (inputs, time, rng) = match seconds() {
        Some(time) => (usize::MAX, time, SmallRng::from_os_rng()),
        None => (INPUTS, AT_MOST, SmallRng::seed_from_u64(1)),
    };
    let mut changes = Changes::new(rng, &kept);
    let begin = Instant::now();
    let mut fed = 0;
    while fed < inputs && begin.elapsed() < time {
        let input = changes.of(&kept, LONGEST);
        fed += 1;
        if search.feed(&input) && kept.len() < KEPT {
            kept.push(input);
        }
    }
    // Shown where a test is run with --nocapture.
    println!("{name}: {fed} inputs, {} kept", kept.len());
}

/// A generator that is the same for the same input: to cut it, or to answer it.
pub(crate) fn chance(input: &[u8]) -> SmallRng {
    SmallRng::seed_from_u64(u64::from(crc32c::crc32c(input)))
}

/// The lines of an input that is a script.
pub(crate) fn lines(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    input.split(|octet| *octet == b'\n')
}

fn corpus(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    folder.join(name)
}

/// The files of a folder, in the order of their names.
fn read(folder: &Path) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read(file).unwrap()).collect()
}

fn seconds() -> Option<Duration> {
    let text = env::var("FUZZ_SECONDS").ok()?;
    let seconds = text.parse().expect("FUZZ_SECONDS is a number of seconds");
    Some(Duration::from_secs(seconds))
}

struct Search<Target> {
    folder: PathBuf,
    target: Target,
    seen: HashSet<u64>,
}

impl<Target: Fn(&[u8]) -> u64> Search<Target> {
    /// Gives one input; says whether it shows something new.
    fn feed(&mut self, input: &[u8]) -> bool {
        let begin = Instant::now();
        let Ok(seen) = panic::catch_unwind(AssertUnwindSafe(|| (self.target)(input))) else {
            self.fail(input);
        };
        let took = begin.elapsed();
        if took > PATIENCE {
            let file = self.keep(input);
            panic!("took {took:?}, now in {}", file.display());
        }
        self.seen.insert(seen)
    }

    /// Makes the input as small as it can be and still fail, keeps it, and ends the test.
    fn fail(&self, input: &[u8]) -> ! {
        let hook = panic::take_hook();
        panic::set_hook(Box::new(|_| ()));
        let small = smallest(input, |input| {
            panic::catch_unwind(AssertUnwindSafe(|| (self.target)(input))).is_err()
        });
        panic::set_hook(hook);
        let file = self.keep(&small);
        eprintln!("\"{}\", now in {}", small.escape_ascii(), file.display());
        (self.target)(&small);
        panic!("fails once and not again");
    }

    fn keep(&self, input: &[u8]) -> PathBuf {
        let name = format!("found-{:08x}", crc32c::crc32c(input));
        let file = self.folder.join(name);
        fs::write(&file, input).unwrap();
        file
    }
}

/// Leaves out of the input, in ever smaller pieces, what it does not take to fail.
fn smallest(input: &[u8], fails: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let mut small = input.to_vec();
    let mut tries = TRIES;
    let mut piece = small.len().div_ceil(2);
    while piece > 0 {
        let mut at = 0;
        while at < small.len() && tries > 0 {
            let end = (at + piece).min(small.len());
            let less = [&small[..at], &small[end..]].concat();
            tries -= 1;
            if fails(&less) {
                small = less;
            } else {
                at = end;
            }
        }
        piece /= 2;
    }
    small
}

#[test]
fn what_fails_is_made_as_small_as_it_can_be() {
    let fails = |input: &[u8]| input.contains(&b'x') && input.contains(&b'y');
    assert_eq!(smallest(b"abcxdefghyijk", fails), b"xy");
    assert_eq!(smallest(b"yx", fails), b"yx");
}
