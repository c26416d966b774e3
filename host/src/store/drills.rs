//! Drills: one at a time, each with what was seen of it and its score.

use super::{Error, Store, audit::append, from_json, to_json};
use aether_core::{
    audit::Act,
    drill::{Facts, Kind, Line},
    id::{DrillId, NodeId, PrincipalId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use utoipa::ToSchema;

/// The newest that are listed.
const LIST_MAXIMUM: u32 = 100;

/// One drill that was started.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Drill {
    pub id: DrillId,
    pub kind: Kind,
    pub node: NodeId,
    pub by: PrincipalId,
    /// Of the principal, for people.
    pub name: String,
    pub started_at: Time,
    /// The disturbance ends by itself then.
    pub until: Time,
    /// Somebody asked for its end.
    pub stopped_at: Option<Time>,
    /// None: it runs, or is being undone.
    pub over_at: Option<Time>,
    pub facts: Facts,
    /// The expected story, line by line, as far as it is known.
    pub score: Vec<Line>,
    /// Whether every line is met. None: it is not over.
    pub passed: Option<bool>,
}

impl Store {
    /// False if one runs already; nothing is written then.
    pub async fn start_drill(&self, drill: &Drill, act: Act) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let taken = sqlx::query("INSERT OR IGNORE INTO drills (id, started_at, running, body) VALUES (?, ?, 1, ?)")
            .bind(drill.id.as_str())
            .bind(drill.started_at.0)
            .bind(to_json(drill))
            .execute(&mut *tx)
            .await?;
        if taken.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, drill.started_at, act).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Keeps what is known of it now; once it is over, another can be started.
    pub async fn keep_drill(&self, drill: &Drill, at: Time, act: Option<Act>) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE drills SET running = ?, body = ? WHERE id = ?")
            .bind(drill.over_at.is_none().then_some(1_i64))
            .bind(to_json(drill))
            .bind(drill.id.as_str())
            .execute(&mut *tx)
            .await?;
        if let Some(act) = act {
            append(&mut tx, at, act).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The newest first.
    pub async fn drills(&self) -> Result<Vec<Drill>, Error> {
        let rows = sqlx::query("SELECT body FROM drills ORDER BY started_at DESC, id DESC LIMIT ?")
            .bind(i64::from(LIST_MAXIMUM))
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(|row| from_json("drill", row.try_get("body")?)).collect()
    }

    pub async fn drill(&self, id: &DrillId) -> Result<Option<Drill>, Error> {
        let row =
            sqlx::query("SELECT body FROM drills WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.map(|row| from_json("drill", row.try_get("body")?)).transpose()
    }

    pub async fn running_drill(&self) -> Result<Option<Drill>, Error> {
        let row = sqlx::query("SELECT body FROM drills WHERE running = 1").fetch_optional(&self.pool).await?;
        row.map(|row| from_json("drill", row.try_get("body")?)).transpose()
    }

    /// Steps that were reserved for a node within a time.
    pub async fn reserved_on(&self, node: &NodeId, from: Time, to: Time) -> Result<u32, Error> {
        let row = sqlx::query(
            "SELECT count(*) AS steps FROM ledger WHERE node = ? AND reserved_at >= ? AND reserved_at <= ?",
        )
        .bind(node.as_str())
        .bind(from.0)
        .bind(to.0)
        .fetch_one(&self.pool)
        .await?;
        Ok(u32::try_from(row.try_get::<i64, _>("steps")?).unwrap_or(u32::MAX))
    }
}
