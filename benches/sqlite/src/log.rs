//! A log in SQLite, with the promises of the segments: a batch is a transaction, in a write-ahead log
//! that is synced (`synchronous = FULL`) before it returns.
//!
//! It is as fast as we could make it: statements are prepared once, messages are found by their row,
//! which is kept in memory, and the write-ahead log is folded back as seldom as segments are begun.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::OptionalExtension;
use rusqlite::Transaction;
use rusqlite::params;

use gatepost::mail::content::Content;
use gatepost::mail::id::SpoolId;
use gatepost::spool::Error;
use gatepost::spool::log::Body;
use gatepost::spool::log::Draft;
use gatepost::spool::log::Failed;
use gatepost::spool::log::Index;
use gatepost::spool::log::Kept;
use gatepost::spool::log::Kind;
use gatepost::spool::log::Log;
use gatepost::spool::log::Part;
use gatepost::spool::log::Place;
use gatepost::spool::log::Reader;
use gatepost::spool::log::Trace;

/// The pages of the write-ahead log after which it is folded back: 64 MiB, as a segment has.
const FOLD_BACK: u32 = 16_384;

const TABLES: &str = "
    CREATE TABLE messages (
        row INTEGER PRIMARY KEY, session INTEGER, serial INTEGER, meta BLOB, body BLOB,
        length INTEGER, checksum INTEGER);
    CREATE TABLE notes (row INTEGER, kind INTEGER, meta BLOB);
    CREATE INDEX notes_by_row ON notes (row);";

fn connect(file: &Path) -> rusqlite::Result<Connection> {
    let connection = Connection::open(file)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", FOLD_BACK)?;
    connection.pragma_update(None, "cache_size", -65_536)?;
    Ok(connection)
}

/// The writing half.
pub struct SqliteLog {
    file: PathBuf,
    connection: Connection,
    rows: HashMap<SpoolId, i64>,
    next: i64,
}

impl SqliteLog {
    /// A new database in this directory.
    pub fn create(directory: &Path) -> rusqlite::Result<(SqliteLog, Arc<SqliteReader>)> {
        let file = directory.join("spool.db");
        let connection = connect(&file)?;
        connection.execute_batch(TABLES)?;
        let reader = SqliteReader(Mutex::new(connect(&file)?));
        let log = SqliteLog {
            file,
            connection,
            rows: HashMap::new(),
            next: 1,
        };
        Ok((log, Arc::new(reader)))
    }

    fn write(&mut self, batch: &[Draft]) -> rusqlite::Result<Vec<Place>> {
        let transaction = self.connection.transaction()?;
        let mut places = Vec::with_capacity(batch.len());
        let mut done = Vec::new();
        for draft in batch {
            let mut row = self.rows.get(&draft.id()).copied().unwrap_or_default();
            match draft.kind() {
                Kind::Accept => {
                    // Where it was there already, it is the same message.
                    if row == 0 {
                        row = self.next;
                        self.next += 1;
                        accept(&transaction, row, draft)?;
                        self.rows.insert(draft.id(), row);
                    }
                }
                Kind::Done => {
                    for statement in [
                        "DELETE FROM messages WHERE row = ?1",
                        "DELETE FROM notes WHERE row = ?1",
                    ] {
                        transaction.prepare_cached(statement)?.execute([row])?;
                    }
                    done.push(draft.id());
                }
                Kind::Result | Kind::Defer | Kind::Hold | Kind::Release => {
                    let mut insert =
                        transaction.prepare_cached("INSERT INTO notes VALUES (?1, ?2, ?3)")?;
                    insert.execute(params![row, draft.kind() as u8, draft.meta()])?;
                }
            }
            places.push(Place {
                generation: 0,
                offset: row as u32,
                length: draft.length() as u32,
            });
        }
        transaction.commit()?;
        for id in done {
            self.rows.remove(&id);
        }
        Ok(places)
    }
}

fn accept(transaction: &Transaction<'_>, row: i64, draft: &Draft) -> rusqlite::Result<()> {
    let (body, length) = match draft.body() {
        Body::Here(content) => (Some(content.to_bytes()), content.len() as u32),
        Body::InFile { length } => (None, *length),
        Body::Nothing => (None, 0),
    };
    let statement = "INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    transaction.prepare_cached(statement)?.execute(params![
        row,
        draft.id().session.0 as i64,
        draft.id().serial,
        draft.meta(),
        body.as_deref(),
        length,
        draft.body_checksum()
    ])?;
    Ok(())
}

impl Log for SqliteLog {
    fn append(&mut self, batch: &[Draft]) -> Result<Vec<Place>, Failed> {
        self.write(batch).map_err(|error| Failed {
            error: Error::Append {
                path: self.file.clone(),
                source: Arc::new(io::Error::other(error)),
            },
            // The transaction was rolled back.
            trace: Trace::None,
        })
    }

    fn room(&self) -> Result<(), Error> {
        Ok(())
    }

    fn loaded(&mut self) {}

    fn free(&mut self, _: &Mutex<Index>) {}

    fn reclaim(&mut self, _: &Mutex<Index>) -> Vec<SpoolId> {
        Vec::new()
    }

    fn set_aside(&mut self, _: Place) {}

    fn place(&self) -> PathBuf {
        self.file.clone()
    }

    fn largest_batch(&self) -> usize {
        64 * 1024 * 1024
    }
}

/// The reading half, a connection of its own.
#[derive(Debug)]
pub struct SqliteReader(Mutex<Connection>);

impl Reader for SqliteReader {
    fn read(&self, _: SpoolId, place: Place, part: Part) -> io::Result<Option<Kept>> {
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row = connection
            .prepare_cached("SELECT meta, length, checksum, body FROM messages WHERE row = ?1")
            .and_then(|mut select| {
                let row = select.query_row([place.offset], |row| {
                    let body: Option<Vec<u8>> = match part {
                        Part::Whole => row.get(3)?,
                        Part::Envelope => None,
                    };
                    let meta: Vec<u8> = row.get(0)?;
                    Ok((meta, row.get(1)?, row.get(2)?, body))
                });
                row.optional()
            })
            .map_err(io::Error::other)?;
        Ok(row.and_then(|(meta, length, checksum, body)| {
            let content = body.map(|body| Content::from(Bytes::from(body)));
            Kept::read(&meta, length, checksum, content)
        }))
    }
}
