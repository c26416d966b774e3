//! Batches of telemetry that were refused for good, within bounds of number, bytes and age: the oldest go first.

use super::{Error, Store, audit::append, signed, unsigned};
use aether_core::{audit::Act, id::NodeId, time::Time};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};
use utoipa::ToSchema;

/// What is kept of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub at: Time,
    pub origin: NodeId,
    pub epoch: u64,
    pub sequence: u64,
    pub code: String,
    pub reason: String,
    /// The encoded `aether.v1.TelemetryBatch` with all definitions that it needs.
    pub batch: Vec<u8>,
}

/// A refused batch, without its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeadLetter {
    pub number: u64,
    /// When it was refused.
    pub at: Time,
    /// The node whose agent sent it.
    pub origin: NodeId,
    /// The place in the origin's stream; in decimal, because it uses all 64 bits.
    pub epoch: String,
    pub sequence: String,
    /// `malformed`, `schema` or `oversized`.
    pub code: String,
    pub reason: String,
    pub bytes: u64,
    /// Whether the batch itself is kept; one that is too large is not, and cannot be replayed.
    pub kept: bool,
    /// When a replay of it was taken and safe on disk.
    pub replayed_at: Option<Time>,
}

/// What bounds the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub count: usize,
    pub bytes: u64,
    pub age_ms: u64,
    pub batch_bytes: usize,
}

/// What became of a refused batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Whole,
    /// Without the batch itself.
    Told,
    /// The same was there already.
    Known,
}

const COLUMNS: &str =
    "number, at, origin, epoch, sequence, code, reason, bytes, batch IS NOT NULL AS kept, replayed_at";

impl Store {
    /// Keeps it, and lets go what is beyond the bounds. Answers what became of it and how many went.
    pub async fn keep_dead_letter(&self, refusal: &Refusal, bounds: &Bounds) -> Result<(Kept, u64), Error> {
        let Refusal { at, origin, epoch, sequence, code, reason, batch } = refusal;
        let fits = batch.len() <= bounds.batch_bytes;
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let inserted = sqlx::query(
            "INSERT INTO dead_letters (at, origin, epoch, sequence, code, reason, bytes, batch)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (origin, epoch, sequence) DO NOTHING",
        )
        .bind(at.0)
        .bind(origin.as_str())
        .bind(epoch.to_string())
        .bind(sequence.to_string())
        .bind(code)
        .bind(reason)
        .bind(signed(u64::try_from(batch.len()).unwrap_or(u64::MAX)))
        .bind(fits.then_some(batch.as_slice()))
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() == 0 {
            return Ok((Kept::Known, 0));
        }
        let mut gone = sqlx::query("DELETE FROM dead_letters WHERE at < ?")
            .bind(at.minus_ms(bounds.age_ms).0)
            .execute(&mut *tx)
            .await?
            .rows_affected();
        // The newest stay while their sum is within the bytes, and at most so many.
        gone += sqlx::query(
            "DELETE FROM dead_letters WHERE number IN (
                SELECT number FROM (
                    SELECT number,
                        SUM(COALESCE(LENGTH(batch), 0) + LENGTH(reason)) OVER (ORDER BY number DESC) AS total,
                        ROW_NUMBER() OVER (ORDER BY number DESC) AS place
                    FROM dead_letters)
                WHERE total > ? OR place > ?)",
        )
        .bind(signed(bounds.bytes))
        .bind(signed(u64::try_from(bounds.count).unwrap_or(u64::MAX)))
        .execute(&mut *tx)
        .await?
        .rows_affected();
        tx.commit().await?;
        Ok((if fits { Kept::Whole } else { Kept::Told }, gone))
    }

    /// Newest first, below `before`; of one origin, or of all.
    pub async fn dead_letters(
        &self,
        origin: Option<&NodeId>,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<DeadLetter>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM dead_letters WHERE number < ? AND (? IS NULL OR origin = ?)
             ORDER BY number DESC LIMIT ?"
        )))
        .bind(before.map_or(i64::MAX, signed))
        .bind(origin.map(NodeId::as_str))
        .bind(origin.map(NodeId::as_str))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(letter).collect()
    }

    /// One of them, with the encoded batch if that is kept.
    pub async fn dead_letter(&self, number: u64) -> Result<Option<(DeadLetter, Option<Vec<u8>>)>, Error> {
        let row =
            sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS}, batch FROM dead_letters WHERE number = ?")))
                .bind(signed(number))
                .fetch_optional(&self.pool)
                .await?;
        row.map(|row| Ok((letter(&row)?, row.try_get("batch")?))).transpose()
    }

    /// The stream and the place under which a dead letter is offered to the recorder: the same each time, until it is
    /// [given up](Self::give_up_place). None: there is no such letter.
    pub async fn dead_letter_place(&self, number: u64, now: Time) -> Result<Option<(u64, u64)>, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query("SELECT stream, place FROM dead_letters WHERE number = ?")
            .bind(signed(number))
            .fetch_optional(&mut *tx)
            .await?;
        let Some(row) = row else { return Ok(None) };
        let (stream, place): (Option<i64>, Option<i64>) = (row.try_get("stream")?, row.try_get("place")?);
        if let (Some(stream), Some(place)) = (stream, place) {
            return Ok(Some((unsigned(stream), unsigned(place))));
        }
        // The stream is named after the database's first replay: another database's places are never taken for these.
        let row = sqlx::query(
            "INSERT INTO dead_letter_stream (id, stream, next) VALUES (1, ?, 2)
             ON CONFLICT (id) DO UPDATE SET next = next + 1 RETURNING stream, next - 1 AS place",
        )
        .bind(now.0)
        .fetch_one(&mut *tx)
        .await?;
        let (stream, place): (i64, i64) = (row.try_get("stream")?, row.try_get("place")?);
        sqlx::query("UPDATE dead_letters SET stream = ?, place = ? WHERE number = ?")
            .bind(stream)
            .bind(place)
            .bind(signed(number))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(Some((unsigned(stream), unsigned(place))))
    }

    /// The recorder has refused it under its place, which is thereby used up.
    pub async fn give_up_place(&self, number: u64) -> Result<(), Error> {
        sqlx::query("UPDATE dead_letters SET stream = NULL, place = NULL WHERE number = ?")
            .bind(signed(number))
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// A replay of it was taken and is safe.
    pub async fn note_replayed(&self, number: u64, now: Time, act: Act) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE dead_letters SET replayed_at = COALESCE(replayed_at, ?) WHERE number = ?")
            .bind(now.0)
            .bind(signed(number))
            .execute(&mut *tx)
            .await?;
        append(&mut tx, now, act).await?;
        tx.commit().await?;
        Ok(())
    }

    /// False: there is no such letter.
    pub async fn remove_dead_letter(&self, number: u64, now: Time, act: Act) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let removed = sqlx::query("DELETE FROM dead_letters WHERE number = ?")
            .bind(signed(number))
            .execute(&mut *tx)
            .await?
            .rows_affected();
        if removed == 0 {
            return Ok(false);
        }
        append(&mut tx, now, act).await?;
        tx.commit().await?;
        Ok(true)
    }
}

fn letter(row: &SqliteRow) -> Result<DeadLetter, Error> {
    Ok(DeadLetter {
        number: unsigned(row.try_get("number")?),
        at: Time(row.try_get("at")?),
        origin: NodeId(row.try_get("origin")?),
        epoch: row.try_get("epoch")?,
        sequence: row.try_get("sequence")?,
        code: row.try_get("code")?,
        reason: row.try_get("reason")?,
        bytes: unsigned(row.try_get("bytes")?),
        kept: row.try_get("kept")?,
        replayed_at: row.try_get::<Option<i64>, _>("replayed_at")?.map(Time),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(sequence: u64, bytes: usize) -> Refusal {
        Refusal {
            at: Time(1_000_000 + i64::try_from(sequence % 1_000).unwrap()),
            origin: NodeId::new("node-a"),
            epoch: u64::MAX,
            sequence,
            code: "malformed".into(),
            reason: "no".into(),
            batch: vec![7; bytes],
        }
    }

    async fn sequences(store: &Store) -> Vec<String> {
        store.dead_letters(None, None, 100).await.unwrap().into_iter().map(|letter| letter.sequence).collect()
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_by_number_bytes_and_age() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let bounds = Bounds { count: 3, bytes: 100, age_ms: 500, batch_bytes: 50 };
        for sequence in 1..=4 {
            assert_eq!(store.keep_dead_letter(&refusal(sequence, 10), &bounds).await.unwrap().0, Kept::Whole);
        }
        assert_eq!(store.keep_dead_letter(&refusal(4, 10), &bounds).await.unwrap(), (Kept::Known, 0));
        assert_eq!(sequences(&store).await, ["4", "3", "2"], "three at most");
        assert_eq!(store.keep_dead_letter(&refusal(5, 45), &bounds).await.unwrap(), (Kept::Whole, 1));
        assert_eq!(store.keep_dead_letter(&refusal(6, 45), &bounds).await.unwrap(), (Kept::Whole, 2));
        assert_eq!(sequences(&store).await, ["6", "5"], "a hundred bytes at most");
        assert_eq!(store.keep_dead_letter(&refusal(7, 51), &bounds).await.unwrap(), (Kept::Told, 0));
        let all = store.dead_letters(None, None, 1).await.unwrap();
        assert!(!all[0].kept && all[0].bytes == 51 && all[0].epoch == u64::MAX.to_string());
        assert_eq!(store.keep_dead_letter(&refusal(900, 1), &bounds).await.unwrap(), (Kept::Whole, 3));
        assert_eq!(sequences(&store).await, ["900"], "half a second at most");
        assert!(store.dead_letters(Some(&NodeId::new("node-b")), None, 9).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_letter_keeps_its_place_until_the_place_is_used_up() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let bounds = Bounds { count: 9, bytes: 1_000, age_ms: 5_000, batch_bytes: 50 };
        store.keep_dead_letter(&refusal(1, 10), &bounds).await.unwrap();
        store.keep_dead_letter(&refusal(2, 10), &bounds).await.unwrap();
        assert_eq!(store.dead_letter_place(1, Time(70)).await.unwrap(), Some((70, 1)));
        assert_eq!(store.dead_letter_place(1, Time(80)).await.unwrap(), Some((70, 1)));
        assert_eq!(store.dead_letter_place(2, Time(90)).await.unwrap(), Some((70, 2)));
        store.give_up_place(1).await.unwrap();
        assert_eq!(store.dead_letter_place(1, Time(99)).await.unwrap(), Some((70, 3)));
        assert_eq!(store.dead_letter_place(3, Time(99)).await.unwrap(), None);
    }
}
