//! Segments of the spool: whatever becomes of one on the disk, no record is read that was not written,
//! and none goes missing without a word.
//!
//! An input is a script of what happens to a sound segment, a line each. Places are counted in octets
//! from the first record:
//!
//! ```text
//! octet PLACE VALUE           flip PLACE BIT         zero PLACE LENGTH      cut PLACE
//! copy PLACE LENGTH TO        text PLACE TEXT        head PLACE VALUE (from 64: of the second copy)
//! end BATCH                   the next segment says that this one ends with this batch, from 0
//! seal PLACE                  makes the checksum of what stands there right, as no accident would
//! trust                       makes those of the heads right
//! ```

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use memchr::memmem;

use super::*;
use crate::fuzz::lines;
use crate::fuzz::run;
use crate::mail::address::Address;
use crate::mail::address::ReversePath;
use crate::mail::content::Content;
use crate::mail::envelope;
use crate::mail::envelope::Envelope;
use crate::mail::envelope::Recipient;
use crate::mail::id::SessionId;
use crate::mail::id::SpoolId;
use crate::spool::head::COPIES;
use crate::spool::record::Body;
use crate::spool::record::Draft;
use crate::spool::record::Kind;
use crate::spool::record::Meta;
use crate::spool::record::Seal;
use crate::spool::record::State;
use crate::spool::record::checksum;

const SIZE: usize = START as usize + 4096;
const SEAL: Seal = Seal {
    generation: 7,
    salt: 0xfeed,
};
const FIRST: u64 = 100;

/// A sound segment, and what was written to it.
struct Sound {
    octets: Vec<u8>,
    /// Each record without what pads it, with the sequence of its batch.
    written: Vec<(u64, Vec<u8>)>,
    /// Where each batch ends.
    ends: Vec<u64>,
}

/// What a script makes of it.
struct Damaged {
    octets: Vec<u8>,
    end: Option<u64>,
    /// A checksum was forged: what is read need not have been written.
    is_forged: bool,
    has_copies: bool,
}

#[test]
fn no_record_is_read_that_was_not_written_and_none_is_lost_in_silence() {
    let sound = sound();
    run("segments", |input| {
        let damaged = damaged(&sound, input);
        let head = Head::read(&damaged.octets).ok()?;
        let walk = walk(&damaged.octets, &head, damaged.end);
        assert!(walk.records.len() <= SIZE / FRAME);
        assert!(walk.faults.len() <= walk.records.len() + 1);
        for (offset, record) in &walk.records {
            let at = *offset as usize;
            let octets = &damaged.octets[at..at + record.frame.length()];
            // What pads a record says nothing, and no checksum covers it.
            let mut written = sound.written.iter();
            let is_written = written.any(|(_, record)| octets.starts_with(record));
            assert!(is_written || damaged.is_forged);
            // Whatever it says, it is read or refused.
            let _ = record.parse::<Meta<'_>>().map(drop);
        }
        if !damaged.is_forged && !damaged.has_copies && damaged.end.is_none() {
            assert_newest_is_whole(&sound, &damaged.octets, &walk);
        }
        let is_silent = walk.faults.is_empty() && walk.torn == 0;
        if is_silent && !damaged.is_forged {
            assert_whole_batches(&sound, &walk);
        }
        Some((walk.records.len(), walk.faults.len(), walk.torn > 0))
    });
}

/// Where nothing is reported, the first batches are there, each whole, and nothing else.
fn assert_whole_batches(sound: &Sound, walk: &Walk<'_>) {
    let sequences = walk.records.iter().map(|(_, record)| record.frame.sequence);
    assert!(sequences.eq(FIRST..FIRST + walk.records.len() as u64));
    let count = walk.records.len();
    let cut = sound.written.get(count);
    let last = count
        .checked_sub(1)
        .and_then(|last| sound.written.get(last));
    if let (Some((next, _)), Some((batch, _))) = (cut, last) {
        assert_ne!(next, batch, "half a batch");
    }
}

/// A batch that was not finished was never acknowledged, and what is there of it does not count; one that
/// any record of a later batch stands behind was.
fn assert_newest_is_whole(sound: &Sound, damaged: &[u8], walk: &Walk<'_>) {
    let sequences = walk.records.iter().map(|(_, record)| record.frame.sequence);
    let sequences: BTreeSet<_> = sequences.collect();
    let newest = walk.records.last().map(|(_, record)| record.frame.batch());
    let mut later = sound
        .written
        .iter()
        .filter(|(batch, _)| Some(*batch) > newest);
    if later.any(|(_, record)| memmem::find(damaged, record).is_some()) {
        return;
    }
    for (sequence, (batch, _)) in (FIRST..).zip(&sound.written) {
        let is_there = sequences.contains(&sequence);
        assert!(is_there || Some(*batch) != newest, "without {sequence}");
    }
}

fn sound() -> Sound {
    let batches = [
        vec![accept(1, 20), accept(2, 33)],
        vec![accept(3, 0)],
        vec![note(Kind::Done, 2), accept(4, 70), note(Kind::Release, 4)],
        vec![accept(5, 7), accept(6, 7)],
    ];
    let head = Head {
        seal: SEAL,
        first_sequence: FIRST,
        previous_end: 0,
        capacity: SIZE as u64,
        clock: 1,
    };
    let mut octets = vec![0; SIZE];
    for at in COPIES {
        octets[at..at + 64].copy_from_slice(&head.bytes());
    }
    let mut at = START as usize;
    let mut sequence = FIRST;
    let (mut written, mut ends) = (Vec::new(), Vec::new());
    for batch in &batches {
        let first = sequence;
        for (number, draft) in batch.iter().enumerate() {
            let end = match number + 1 == batch.len() {
                true => End::OfBatch,
                false => End::More,
            };
            let mut record = draft.frame(SEAL, sequence, number as u16, end).to_vec();
            draft
                .parts()
                .for_each(|part| record.extend_from_slice(part));
            octets[at..at + record.len()].copy_from_slice(&record);
            at += draft.length();
            sequence += 1;
            written.push((first, record));
        }
        ends.push(at as u64);
    }
    Sound {
        octets,
        written,
        ends,
    }
}

fn accept(serial: u32, size: usize) -> Draft {
    let envelope = Envelope {
        body: envelope::Body::SevenBit,
        ..Envelope::new(
            ReversePath::Null,
            vec![Recipient::new(Address::parse("b@there.example").unwrap())],
        )
    };
    let meta = Meta {
        envelope: Cow::Owned(envelope),
        arrived: 1,
        state: State::default(),
    };
    let content = Content::from(Bytes::from(vec![b'x'; size]));
    let checksum = checksum(&content);
    Draft::accept(id(serial), &meta, Body::Here(content), checksum)
}

fn note(kind: Kind, serial: u32) -> Draft {
    Draft::note(kind, id(serial), &())
}

fn id(serial: u32) -> SpoolId {
    SpoolId {
        session: SessionId(77),
        serial,
    }
}

fn damaged(sound: &Sound, script: &[u8]) -> Damaged {
    let mut damaged = Damaged {
        octets: sound.octets.clone(),
        end: None,
        is_forged: false,
        has_copies: false,
    };
    for line in lines(script).take(40) {
        let line = String::from_utf8_lossy(line);
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<usize>().ok());
        let place = START as usize + number(1).unwrap_or(0) % (SIZE - START as usize);
        let (second, third) = (number(2).unwrap_or(0), number(3).unwrap_or(0));
        match words[0] {
            "end" => damaged.end = sound.ends.get(number(1).unwrap_or(0)).copied(),
            what => damaged.happen(what, place, second, third, &line),
        }
    }
    damaged
}

impl Damaged {
    fn happen(&mut self, what: &str, place: usize, second: usize, third: usize, line: &str) {
        let size = self.octets.len();
        let until = |length: usize| place.saturating_add(length).min(size);
        match what {
            "octet" if place < size => self.octets[place] = second as u8,
            "flip" if place < size => self.octets[place] ^= 1 << (second % 8),
            "zero" if place < size => self.octets[place..until(second)].fill(0),
            "cut" if place < size => self.octets.truncate(place),
            "copy" if place < size => {
                let piece = self.octets[place..until(second)].to_vec();
                self.has_copies = true;
                self.put(START as usize + third % size, &piece);
            }
            "text" => {
                let text = line.splitn(3, ' ').nth(2).unwrap_or_default();
                self.put(place, text.as_bytes());
            }
            "head" => {
                let place = place - START as usize;
                self.octets[COPIES[place / 64 % 2] + place % 64] = second as u8;
            }
            "trust" => self.trust(),
            "seal" => self.seal(place / ALIGN * ALIGN),
            _ => {}
        }
    }

    fn put(&mut self, at: usize, piece: &[u8]) {
        let into = self.octets.iter_mut().skip(at);
        into.zip(piece).for_each(|(octet, new)| *octet = *new);
    }

    fn trust(&mut self) {
        for at in COPIES {
            let head = &self.octets[at..at + 64];
            let checksum = crc32c::crc32c_append(crc32c::crc32c(&head[..12]), &head[16..]);
            self.put(at + 12, &checksum.to_le_bytes());
        }
        self.is_forged = true;
    }

    fn seal(&mut self, at: usize) {
        let Some(frame) = self.octets.get(at..at + FRAME) else {
            return;
        };
        let meta = u32::from_le_bytes([frame[36], frame[37], frame[38], frame[39]]);
        let end = (at + FRAME).saturating_add(meta as usize);
        let end = end.min(self.octets.len());
        let salt = crc32c::crc32c(&SEAL.salt.to_le_bytes());
        let checksum = crc32c::crc32c_append(salt, &self.octets[at + 8..end]);
        self.put(at + 4, &checksum.to_le_bytes());
        self.is_forged = true;
    }
}
