//! The only SQL of the host: what must survive. SQLite, embedded, in a dialect that PostgreSQL shares where it can.
//!
//! Writes are committed and synced (`synchronous = FULL`, WAL) before a method returns: whoever got an `Ok` may tell
//! others. Telemetry never comes here; it goes to the recorder.

mod agent_configs;
pub mod audit;
mod backtests;
mod batch;
pub mod break_glass;
pub mod breakers;
mod checkpoints;
mod components;
mod cordons;
pub mod dead_letters;
pub mod drills;
mod incidents;
mod lease;
pub mod nodes;
pub mod slots;
pub mod snapshots;
pub mod tokens;

pub use incidents::{Attempt, Commit, DECISIONS_MAXIMUM, IncidentSummary, Reserved, Story, Writing, phase_name};
pub use lease::Lease;

use sqlx::{
    Connection as _, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use std::{path::Path, time::Duration};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Error {
    #[error("the database could not be used")]
    Database(#[from] sqlx::Error),
    #[error("the database could not be brought to this version's schema")]
    Migration(#[from] sqlx::migrate::MigrateError),
    #[error("a stored document could not be read: {document}")]
    Corrupt { document: String, source: serde_json::Error },
    #[error("what was to be written is not there or has changed: {0}")]
    Conflict(String),
    #[error("another host drives since: its lease is {newest}, and this one's was {lease}; nothing was written")]
    NotInCharge { lease: u64, newest: u64 },
}

#[derive(Clone, Debug)]
pub struct Store {
    pool: SqlitePool,
    /// The epoch that is driven under; 0: whatever drives is not checked.
    lease: u64,
}

impl Store {
    /// Opens or makes the database and brings it to this version's schema.
    pub async fn open(path: &Path) -> Result<Self, Error> {
        // A connection is looked at when it comes back: asking it again before each use would only cost time.
        let pool = SqlitePoolOptions::new().max_connections(4).test_before_acquire(false);
        Self::open_with(path, pool.after_release(|connection, _| Box::pin(is_sound(connection)))).await
    }

    /// The same, with as many connections, and with what is done to each, as the caller wants.
    pub async fn open_with(path: &Path, pool: SqlitePoolOptions) -> Result<Self, Error> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = pool.connect_with(options).await?;
        sqlx::migrate!("./migrations").run(&pool).await?;
        Ok(Self { pool, lease: 0 })
    }

    /// Answers if the database does.
    pub async fn ping(&self) -> Result<(), Error> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// Whether no statement is under way.
    pub fn is_idle(&self) -> bool {
        self.pool.num_idle() == usize::try_from(self.pool.size()).unwrap_or(usize::MAX)
    }

    /// Waits for the writes under way and closes the file.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}

/// Whether a connection that is given back can be used again. Where a commit fails, as on a full disk, SQLite has rolled
/// back by itself, and the driver still believes in the transaction: it would begin none on that connection any more.
pub async fn is_sound(connection: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    // What the connection was told before has been done when this is answered.
    connection.ping().await?;
    Ok(!connection.is_in_transaction())
}

/// A document column as JSON.
fn to_json<T: serde::Serialize>(document: &T) -> String {
    serde_json::to_string(document).expect("documents have string keys and finite numbers")
}

fn from_json<T: serde::de::DeserializeOwned>(what: &str, json: &str) -> Result<T, Error> {
    serde_json::from_str(json).map_err(|source| Error::Corrupt { document: what.into(), source })
}

/// SQL integers are signed; ours stay far below the difference.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}
