//! The audit: an append-only chain of what people and programs did through the API, refusals included.
//! Each entry's hash covers the hash of the one before, so that a changed or missing entry shows.

use super::{Error, Store, from_json, to_json};
use aether_core::{
    id::{Digest, PrincipalId},
    incident::Rank,
    time::Time,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    pub principal: PrincipalId,
    /// None where nobody was signed in.
    pub rank: Option<Rank>,
    /// Such as `plan.approve`, `token.create`, `signals.post`, `session.create`.
    pub action: String,
    /// What it was done to.
    pub target: String,
    pub outcome: ActOutcome,
    pub detail: BTreeMap<String, String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ActOutcome {
    Done,
    Refused,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = AuditEntry)]
pub struct Entry {
    /// From 1, without gaps.
    pub number: u64,
    pub at: Time,
    pub principal: PrincipalId,
    pub rank: Option<Rank>,
    pub action: String,
    pub target: String,
    pub outcome: ActOutcome,
    pub detail: BTreeMap<String, String>,
    /// Hash of the entry before; 64 zeros for the first.
    pub previous: Digest,
    /// BLAKE3 of the canonical JSON of all the above.
    pub hash: Digest,
}

impl Entry {
    /// The hash that the entry ought to have.
    pub fn computed_hash(&self) -> Digest {
        let mut unhashed = self.clone();
        unhashed.hash = Digest(String::new());
        let mut bytes = b"aether.audit.v1\n".to_vec();
        bytes.extend(aether_core::plan::canonical(&unhashed));
        Digest::of(&bytes)
    }
}

fn first() -> Digest {
    Digest("0".repeat(64))
}

/// Entries that are read at once while the chain is verified.
const VERIFY_PAGE: i64 = 1_000;

impl Store {
    /// Appends one entry and answers with it.
    pub async fn audit(&self, at: Time, act: Act) -> Result<Entry, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let last =
            sqlx::query("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1").fetch_optional(&mut *tx).await?;
        let (number, previous) = match last {
            Some(row) => (row.try_get::<i64, _>("number")?.saturating_add(1), Digest(row.try_get("hash")?)),
            None => (1, first()),
        };
        let Act { principal, rank, action, target, outcome, detail } = act;
        let mut entry = Entry {
            number: u64::try_from(number).unwrap_or_default(),
            at,
            principal,
            rank,
            action,
            target,
            outcome,
            detail,
            previous,
            hash: Digest(String::new()),
        };
        entry.hash = entry.computed_hash();
        sqlx::query(
            "INSERT INTO audit (number, at, principal, rank, action, target, outcome, detail, previous, hash)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(number)
        .bind(entry.at.0)
        .bind(entry.principal.as_str())
        .bind(entry.rank.map(Rank::name))
        .bind(&entry.action)
        .bind(&entry.target)
        .bind(match entry.outcome {
            ActOutcome::Done => "done",
            ActOutcome::Refused => "refused",
        })
        .bind(to_json(&entry.detail))
        .bind(&entry.previous.0)
        .bind(&entry.hash.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(entry)
    }

    /// Newest first. `before`: below this number.
    pub async fn audit_entries(&self, before: Option<u64>, limit: u32) -> Result<Vec<Entry>, Error> {
        let before = before.and_then(|number| i64::try_from(number).ok()).unwrap_or(i64::MAX);
        let rows = sqlx::query("SELECT * FROM audit WHERE number < ? ORDER BY number DESC LIMIT ?")
            .bind(before)
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(entry).collect()
    }

    /// Walks the whole chain. The number of the first entry that is not whole, if any.
    pub async fn verify_audit(&self) -> Result<Option<u64>, Error> {
        let (mut after, mut previous) = (0_i64, first());
        loop {
            let rows = sqlx::query("SELECT * FROM audit WHERE number > ? ORDER BY number LIMIT ?")
                .bind(after)
                .bind(VERIFY_PAGE)
                .fetch_all(&self.pool)
                .await?;
            if rows.is_empty() {
                return Ok(None);
            }
            for row in &rows {
                let entry = entry(row)?;
                after += 1;
                if i64::try_from(entry.number) != Ok(after)
                    || entry.previous != previous
                    || entry.hash != entry.computed_hash()
                {
                    return Ok(Some(u64::try_from(after).unwrap_or_default()));
                }
                previous = entry.hash;
            }
        }
    }
}

fn entry(row: &SqliteRow) -> Result<Entry, Error> {
    let rank: Option<String> = row.try_get("rank")?;
    let outcome: String = row.try_get("outcome")?;
    Ok(Entry {
        number: u64::try_from(row.try_get::<i64, _>("number")?).unwrap_or_default(),
        at: Time(row.try_get("at")?),
        principal: PrincipalId(row.try_get("principal")?),
        rank: rank.as_deref().and_then(Rank::parse),
        action: row.try_get("action")?,
        target: row.try_get("target")?,
        outcome: if outcome == "done" { ActOutcome::Done } else { ActOutcome::Refused },
        detail: from_json("audit detail", row.try_get("detail")?)?,
        previous: Digest(row.try_get("previous")?),
        hash: Digest(row.try_get("hash")?),
    })
}
