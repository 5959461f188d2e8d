//! Before the log is read: what an earlier run left in the kernel's memory alone is brought to the
//! disk, or forgotten.
//!
//! A process that is killed leaves writes that are not synced, and one whose disk failed leaves pages
//! that the kernel takes for written and are not. Who starts next would read them, build on them (a
//! copy of a message, say, whose old place is then written over), and lose both to a power cut.
//! Only the newest segment can have any: each other one was synced up to where the next says it ends.

use std::fs;
use std::io;
use std::path::Path;

use crate::spool::disk::Disk;
use crate::spool::segment::path;
use crate::telemetry::events;

/// Settles the segments in this directory. A sync that fails is reported and no more: what is read
/// then is what the disk has.
pub(super) fn settle(disk: &Disk, segments: &Path) -> io::Result<()> {
    if let Err(error) = disk.sync_directory(segments) {
        events::spool_failed(segments, &error);
    }
    let mut newest = None;
    for entry in fs::read_dir(segments)? {
        let name = entry?.file_name();
        let name = name.to_str().filter(|name| name.len() == 10);
        newest = newest.max(name.and_then(|name| name.parse::<u32>().ok()));
    }
    let Some(newest) = newest else { return Ok(()) };
    let newest = path(segments, newest);
    let settled = disk.open(&newest).and_then(|file| disk.settle(&file));
    if let Err(error) = settled {
        events::spool_failed(&newest, &error);
    }
    Ok(())
}
