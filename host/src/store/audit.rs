//! The audit as it is kept: one table that only grows, each entry holding the hash of the one before.

use super::{Error, Store, batch::Batch, from_json, signed, to_json, unsigned};
use aether_core::{
    audit::{Broken, Walk},
    id::{Digest, PrincipalId},
    incident::Rank,
    time::Time,
};
use sqlx::{Row, Sqlite, Transaction, sqlite::SqliteRow};

pub use aether_core::audit::{Act, ActOutcome, Entry, Head};

/// Entries that are read at once while the chain is walked.
pub const WALK_PAGE: u32 = 1_000;

impl Store {
    /// Appends one entry and answers with it.
    pub async fn audit(&self, at: Time, act: Act) -> Result<Entry, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let entry = append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(entry)
    }

    /// Newest first. `before`: below this number.
    pub async fn audit_entries(&self, before: Option<u64>, limit: u32) -> Result<Vec<Entry>, Error> {
        let before = before.map_or(i64::MAX, signed);
        let rows = sqlx::query("SELECT * FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?")
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(entry).collect()
    }

    /// Oldest first, above `after`, at most [`WALK_PAGE`].
    pub async fn audit_after(&self, after: u64) -> Result<Vec<Entry>, Error> {
        self.audit_rows(after).await?.iter().map(entry).collect()
    }

    /// How far the chain goes.
    pub async fn audit_head(&self) -> Result<Head, Error> {
        let mut tx = self.pool.begin().await?;
        head(&mut tx).await
    }

    /// The newest entry of this action.
    pub async fn last_audited(&self, action: &str) -> Result<Option<Entry>, Error> {
        let row = sqlx::query("SELECT * FROM audit WHERE action = ? ORDER BY number DESC LIMIT 1")
            .bind(action)
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(entry).transpose()
    }

    /// Walks the whole chain: how far it goes, or where it is first not whole.
    pub async fn verify_audit(&self, noted: Vec<Head>) -> Result<Result<Head, Broken>, Error> {
        let mut walk = Walk::new(noted);
        let mut after = 0;
        loop {
            let rows = self.audit_rows(after).await?;
            if rows.is_empty() {
                return Ok(walk.end());
            }
            for row in &rows {
                let taken = match entry(row) {
                    Ok(entry) => walk.take(&entry),
                    // What is there and is no entry was changed by somebody.
                    Err(error @ (Error::Corrupt { .. } | Error::Conflict(_))) => {
                        Err(walk.unreadable(error.to_string()))
                    }
                    Err(error) => return Err(error),
                };
                if let Err(broken) = taken {
                    return Ok(Err(broken));
                }
                after = unsigned(row.try_get("number")?);
            }
        }
    }

    async fn audit_rows(&self, after: u64) -> Result<Vec<SqliteRow>, Error> {
        let rows = sqlx::query("SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?")
            .bind(signed(after))
            .bind(i64::from(WALK_PAGE))
            .fetch_all(&self.pool)
            .await?;
        Ok(rows)
    }
}

async fn head(tx: &mut Transaction<'_, Sqlite>) -> Result<Head, Error> {
    let last =
        sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetch_optional(&mut **tx).await?;
    Ok(match last {
        Some(row) => Head { number: unsigned(row.try_get("number")?), hash: Digest(row.try_get("hash")?) },
        None => Head::start(),
    })
}

/// Appends within a transaction that has the write lock: what is told and what it is told of are there together.
pub(super) async fn append(tx: &mut Transaction<'_, Sqlite>, at: Time, act: Act) -> Result<Entry, Error> {
    let entry = head(tx).await?.next(at, act);
    let mut batch = Batch::default();
    insert(&mut batch, &entry);
    batch.run(tx).await?;
    Ok(entry)
}

/// The same as part of a batch. Whoever adds it knows the chain's head, and has the write lock since.
pub(super) fn insert(batch: &mut Batch, entry: &Entry) {
    batch
        .statement(
            "INSERT INTO audit (number, at, principal, rank, action, target, outcome, detail, previous, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(signed(entry.number))
        .bind(entry.at.0)
        .bind(entry.principal.as_str())
        .bind(entry.rank.map(Rank::name))
        .bind(entry.action.as_str())
        .bind(entry.target.as_str())
        .bind(entry.outcome.name())
        .bind(to_json(&entry.detail))
        .bind(entry.previous.0.as_str())
        .bind(entry.hash.0.as_str());
}

fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    let rank: Option<String> = row.try_get("rank")?;
    let outcome: String = row.try_get("outcome")?;
    let odd = |what: &str, text: &str| Error::Conflict(format!("`{text}` is no {what}"));
    Ok(Entry {
        number: unsigned(row.try_get("number")?),
        at: Time(row.try_get("at")?),
        principal: PrincipalId(row.try_get("principal")?),
        rank: rank.map(|rank| Rank::parse(&rank).ok_or_else(|| odd("rank", &rank))).transpose()?,
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        outcome: ActOutcome::parse(&outcome).ok_or_else(|| odd("outcome", &outcome))?,
        detail: from_json("audit detail", row.try_get("detail")?)?,
        previous: Digest(row.try_get("previous")?),
        hash: Digest(row.try_get("hash")?),
    })
}
