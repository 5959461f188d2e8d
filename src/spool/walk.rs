//! Reads a segment's octets: which records in it count, what is damage, what is merely torn.
//!
//! As each batch is synced before the next is written, a bad place with a later batch behind it is
//! damage; everything that is sound is kept. A newest batch without its end mark, or with a record
//! missing, was never acknowledged: all of it is left out. No I/O.

use crate::spool::head::Head;
use crate::spool::head::START;
use crate::spool::record::ALIGN;
use crate::spool::record::End;
use crate::spool::record::FRAME;
use crate::spool::record::Record;

/// What a segment holds.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    /// Each acknowledged record and its offset.
    pub(super) records: Vec<(u64, Record<'a>)>,
    /// Where the acknowledged part ends.
    pub(super) end: u64,
    pub(super) next_sequence: u64,
    /// Offsets in the acknowledged part at which there is something else.
    pub(super) faults: Vec<u64>,
    /// Octets behind it that a write which was not finished left.
    pub(super) torn: u64,
}

/// Reads a segment whose acknowledged part ends at `end`, where that is known.
pub(super) fn walk<'a>(segment: &'a [u8], head: &Head, end: Option<u64>) -> Walk<'a> {
    let size = (end.unwrap_or(head.capacity) as usize).min(segment.len());
    let mut records = Vec::new();
    let mut at = START as usize;
    while at < size {
        match Record::read(&segment[at..size], head.seal) {
            Some(record) => {
                records.push((at as u64, record));
                at += record.frame.length();
            }
            // Also behind what looks like the end, where nothing but damage can leave one of ours.
            None => at += ALIGN,
        }
    }
    let written = records.last().map_or(START, end_of);
    if end.is_none() && !ends_whole(&records) {
        let torn = records.last().map(|(_, record)| record.frame.batch());
        records.retain(|(_, record)| Some(record.frame.batch()) != torn);
    }
    let mut faults = Vec::new();
    let mut position = START;
    let mut sequence = head.first_sequence;
    for (offset, record) in &records {
        if *offset != position || record.frame.sequence != sequence {
            faults.push(position);
        }
        position = end_of(&(*offset, *record));
        sequence = record.frame.sequence.wrapping_add(1);
    }
    let mut torn = 0;
    match end {
        Some(end) if position != end => {
            faults.push(position);
            position = end;
        }
        Some(_) => (),
        None => torn = (written - position).max(unfinished(segment, position)),
    }
    Walk {
        records,
        end: position,
        next_sequence: sequence,
        faults,
        torn,
    }
}

fn end_of((offset, record): &(u64, Record<'_>)) -> u64 {
    offset + record.frame.length() as u64
}

/// Whether the newest batch is there from its first record to its end mark.
fn ends_whole(records: &[(u64, Record<'_>)]) -> bool {
    let Some((_, last)) = records.last() else {
        return true;
    };
    let batch = records.iter().rev().map(|(_, record)| record.frame);
    let batch = batch.take_while(|frame| frame.batch() == last.frame.batch());
    last.frame.end == End::OfBatch && batch.count() == usize::from(last.frame.number) + 1
}

/// Octets of something that was begun where a clean end would leave a blank frame.
fn unfinished(segment: &[u8], end: u64) -> u64 {
    let rest = segment.get(end as usize..).unwrap_or_default();
    let frame = &rest[..rest.len().min(FRAME)];
    if frame.iter().all(|octet| *octet == 0) {
        0
    } else {
        FRAME as u64
    }
}

#[cfg(test)]
#[path = "../../tests/fuzz/segments.rs"]
mod fuzz;
