//! The lines of a segment's digest: one a record, in about ten octets.
//!
//! A line has the record's kind with flags, how far it is from the end of the one before where it is
//! apart, its length, session and serial, and what its [`Change`] has. Numbers have seven bits an
//! octet, the lowest first; a session stands as its distance from the one before, a time as its
//! distance from the session. No I/O.

use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::spool::change::Change;
use crate::spool::entry::Place;
use crate::spool::entry::Stored;
use crate::spool::head::START;
use crate::spool::record::ALIGN;
use crate::spool::record::Deferral;
use crate::spool::record::Kind;
use crate::spool::record::State;

/// In a line's first octet, beside the kind.
const KIND: u8 = 7;
/// It does not begin where the one before it ends.
const APART: u8 = 8;
/// The message stands in a file of its own.
const LARGE: u8 = 16;
/// The message was tried, held or marked when the record was written.
const MOVED: u8 = 32;

/// The lines, and what the next one is written against.
#[derive(Debug)]
pub(super) struct Lines {
    octets: Vec<u8>,
    session: u64,
    end: u64,
}

impl Default for Lines {
    fn default() -> Lines {
        Lines::of(&[])
    }
}

impl Lines {
    /// Lines that were written earlier, to be read.
    pub(super) fn of(octets: &[u8]) -> Lines {
        Lines {
            octets: octets.to_vec(),
            session: 0,
            end: START,
        }
    }

    pub(super) fn octets(&self) -> &[u8] {
        &self.octets
    }

    /// Reads all of them, which are of this segment.
    pub(super) fn read(&self, generation: u32) -> Reader<'_> {
        Reader {
            rest: &self.octets,
            generation,
            session: 0,
            end: START,
        }
    }

    /// Writes the next one.
    pub(super) fn push(&mut self, id: SpoolId, place: Place, change: &Change) {
        let apart = u64::from(place.offset).saturating_sub(self.end);
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let (kind, flags) = match change {
            Change::Accept { stored, state, .. } => {
                let large = flag(LARGE, *stored == Stored::InFile);
                (Kind::Accept, large | flag(MOVED, !is_new(state)))
            }
            Change::Result(_) => (Kind::Result, 0),
            Change::Defer(_) => (Kind::Defer, 0),
            Change::Hold(_) => (Kind::Hold, 0),
            Change::Release(_) => (Kind::Release, 0),
            Change::Done => (Kind::Done, 0),
        };
        let session = id.session.0;
        let line = &mut self.octets;
        line.push(kind as u8 | flags | flag(APART, apart > 0));
        if apart > 0 {
            put(line, apart / ALIGN as u64);
        }
        put(line, u64::from(place.length) / ALIGN as u64);
        put(line, distance(self.session, session));
        put(line, id.serial.into());
        put_change(line, session, flags, change);
        self.session = session;
        self.end = u64::from(place.offset) + u64::from(place.length);
    }
}

/// Whether a message in this state has just come.
fn is_new(state: &State) -> bool {
    state.attempts == 0 && state.held.is_none() && state.marked.is_empty()
}

fn put(line: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        line.push(number as u8 | 0x80);
        number >>= 7;
    }
    line.push(number as u8);
}

/// How far it is between two numbers, in either direction; the lowest bit says which.
fn distance(from: u64, to: u64) -> u64 {
    let distance = to.wrapping_sub(from) as i64;
    (distance << 1 ^ distance >> 63) as u64
}

fn put_change(line: &mut Vec<u8>, session: u64, flags: u8, change: &Change) {
    match change {
        Change::Accept {
            recipients,
            size,
            state,
            ..
        } => {
            put(line, (*recipients).into());
            put(line, distance(session, state.due));
            if flags & LARGE != 0 {
                put(line, (*size).into());
            }
            if flags & MOVED != 0 {
                put(line, state.attempts.into());
                put_all(line, &state.marked);
                put(line, state.held.is_some().into());
                put_text(line, state.held.as_deref().unwrap_or_default());
            }
        }
        Change::Result(marked) => put_all(line, marked),
        Change::Defer(Deferral { due, attempts }) => {
            put(line, distance(session, *due));
            put(line, (*attempts).into());
        }
        Change::Hold(reason) => put_text(line, reason),
        Change::Release(now) => put(line, distance(session, *now)),
        Change::Done => (),
    }
}

fn put_all(line: &mut Vec<u8>, numbers: &[u32]) {
    put(line, numbers.len() as u64);
    numbers
        .iter()
        .for_each(|number| put(line, (*number).into()));
}

fn put_text(line: &mut Vec<u8>, text: &str) {
    put(line, text.len() as u64);
    line.extend_from_slice(text.as_bytes());
}

/// Reads the lines. Ends at one that is not as we write them.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    generation: u32,
    session: u64,
    end: u64,
}

impl Iterator for Reader<'_> {
    type Item = (SpoolId, Place, Change);

    fn next(&mut self) -> Option<(SpoolId, Place, Change)> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        if first & APART != 0 {
            self.end = self.end.checked_add(self.octets()?)?;
        }
        let offset = self.end;
        let length = self.octets()?;
        self.end = offset.checked_add(length)?;
        self.session = self.near(self.session)?;
        let id = SpoolId {
            session: SessionId(self.session),
            serial: self.number()?,
        };
        let place = Place {
            generation: self.generation,
            offset: offset.try_into().ok()?,
            length: length.try_into().ok()?,
        };
        let change = self.change(Kind::read(first & KIND)?, *first)?;
        Some((id, place, change))
    }
}

impl Reader<'_> {
    /// Where the last record ends, once all lines are read. None where one could not be.
    pub(super) fn end(&self) -> Option<u64> {
        self.rest.is_empty().then_some(self.end)
    }

    fn change(&mut self, kind: Kind, flags: u8) -> Option<Change> {
        Some(match kind {
            Kind::Accept => {
                let recipients = self.number()?;
                let due = self.near(self.session)?;
                let large = flags & LARGE != 0;
                let mut state = State {
                    due,
                    ..State::default()
                };
                let size = if large { self.number()? } else { 0 };
                if flags & MOVED != 0 {
                    state.attempts = self.number()?;
                    state.marked = self.all()?;
                    let held = self.long()? != 0;
                    state.held = Some(self.text()?).filter(|_| held);
                }
                Change::Accept {
                    recipients,
                    size,
                    stored: if large { Stored::InFile } else { Stored::InLog },
                    state,
                }
            }
            Kind::Result => Change::Result(self.all()?),
            Kind::Defer => Change::Defer(Deferral {
                due: self.near(self.session)?,
                attempts: self.number()?,
            }),
            Kind::Hold => Change::Hold(self.text()?),
            Kind::Release => Change::Release(self.near(self.session)?),
            Kind::Done => Change::Done,
        })
    }

    fn long(&mut self) -> Option<u64> {
        let (mut number, mut shift) = (0, 0);
        while shift < u64::BITS {
            let (octet, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Some(number);
            }
            shift += 7;
        }
        None
    }

    fn number(&mut self) -> Option<u32> {
        self.long()?.try_into().ok()
    }

    /// A length in the segment.
    fn octets(&mut self) -> Option<u64> {
        self.long()?.checked_mul(ALIGN as u64)
    }

    /// A number by its [`distance`] from this one.
    fn near(&mut self, from: u64) -> Option<u64> {
        let distance = self.long()?;
        let distance = (distance >> 1) as i64 ^ -((distance & 1) as i64);
        Some(from.wrapping_add(distance as u64))
    }

    fn all(&mut self) -> Option<Vec<u32>> {
        let count = self.long()?;
        (0..count).map(|_| self.number()).collect()
    }

    fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.long()?).ok()?;
        let (text, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        String::from_utf8(text.to_vec()).ok()
    }
}
