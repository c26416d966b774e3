//! What is known of snapshots beside the object store: who pinned which, which an open incident took, and how drills of
//! them ended.

use super::{Error, Store, audit::append};
use aether_core::{
    audit::Act,
    catalogue::verb,
    id::{Digest, IncidentId, NodeId, PrincipalId, SnapshotId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use sqlx::Row;
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Somebody wants a snapshot kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SnapshotPin)]
pub struct Pin {
    pub at: Time,
    pub by: PrincipalId,
    /// Of the principal, for people.
    pub name: String,
    pub comment: String,
}

impl Store {
    pub async fn snapshot_pins(&self) -> Result<BTreeMap<Digest, Pin>, Error> {
        let rows = sqlx::query("SELECT manifest, pinned_at, principal, name, comment FROM snapshot_pins");
        let rows = rows.fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let pin = Pin {
                    at: Time(row.try_get("pinned_at")?),
                    by: PrincipalId(row.try_get("principal")?),
                    name: row.try_get("name")?,
                    comment: row.try_get("comment")?,
                };
                Ok((Digest(row.try_get("manifest")?), pin))
            })
            .collect()
    }

    /// False if it is pinned already; nothing is written then.
    pub async fn pin_snapshot(&self, manifest: &Digest, pin: &Pin, act: Act) -> Result<bool, Error> {
        let Pin { at, by, name, comment } = pin;
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query(
            "INSERT INTO snapshot_pins (manifest, pinned_at, principal, name, comment) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (manifest) DO NOTHING",
        )
        .bind(&manifest.0)
        .bind(at.0)
        .bind(by.as_str())
        .bind(name)
        .bind(comment)
        .execute(&mut *tx)
        .await?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, *at, act).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// False if it is not pinned; nothing is written then.
    pub async fn unpin_snapshot(&self, manifest: &Digest, at: Time, act: Act) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let done = sqlx::query("DELETE FROM snapshot_pins WHERE manifest = ?").bind(&manifest.0).execute(&mut *tx);
        if done.await?.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// The snapshots that open incidents took, and which.
    pub async fn snapshots_of_open_incidents(&self) -> Result<BTreeMap<SnapshotId, IncidentId>, Error> {
        // A snapshot's id is the key of the order that took it.
        let rows = sqlx::query(
            "SELECT ledger.key, ledger.incident_id FROM ledger JOIN incidents ON incidents.id = ledger.incident_id
             WHERE incidents.closed_at IS NULL AND ledger.verb = ?",
        )
        .bind(verb::CHECKPOINT)
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((SnapshotId(row.try_get("key")?), IncidentId(row.try_get("incident_id")?)))).collect()
    }
}

/// How a restore drill ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum DrillResult {
    Running,
    /// CRIU rebuilt the processes; they were seen, and ended.
    Restored,
    Failed,
    /// Nobody knows: the agent or the host was not there to tell.
    Unknown,
}

impl DrillResult {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Restored => "restored",
            Self::Failed => "failed",
            Self::Unknown => "unknown",
        }
    }

    fn parse(name: &str) -> Option<Self> {
        [Self::Running, Self::Restored, Self::Failed, Self::Unknown].into_iter().find(|result| result.name() == name)
    }
}

/// One restore drill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = SnapshotDrill)]
pub struct Drill {
    pub id: String,
    pub manifest: Digest,
    pub node: NodeId,
    /// A principal, or `schedule`.
    pub asked_by: String,
    pub began_at: Time,
    pub ended_at: Option<Time>,
    pub result: DrillResult,
    pub code: String,
    pub message: String,
}

/// Drills that are kept; the newest of a snapshot is among them for as long as that is among the newest.
const DRILLS_MAXIMUM: u32 = 10_000;

impl Store {
    pub async fn begin_drill(&self, drill: &Drill, act: Act) -> Result<(), Error> {
        let Drill { id, manifest, node, asked_by, began_at, ended_at: _, result, code, message } = drill;
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO snapshot_drills (id, manifest, node, asked_by, began_at, result, code, message)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id)
        .bind(&manifest.0)
        .bind(node.as_str())
        .bind(asked_by)
        .bind(began_at.0)
        .bind(result.name())
        .bind(code)
        .bind(message)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM snapshot_drills WHERE id NOT IN (SELECT id FROM snapshot_drills ORDER BY began_at DESC LIMIT ?)",
        )
        .bind(DRILLS_MAXIMUM)
        .execute(&mut *tx)
        .await?;
        append(&mut tx, *began_at, act).await?;
        tx.commit().await?;
        Ok(())
    }

    pub async fn end_drill(&self, drill: &Drill, act: Act) -> Result<(), Error> {
        let at = drill.ended_at.unwrap_or(drill.began_at);
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("UPDATE snapshot_drills SET ended_at = ?, result = ?, code = ?, message = ? WHERE id = ?")
            .bind(at.0)
            .bind(drill.result.name())
            .bind(&drill.code)
            .bind(&drill.message)
            .bind(&drill.id)
            .execute(&mut *tx)
            .await?;
        append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(())
    }

    /// Drills that ran when the host stopped: nobody knows how they ended.
    pub async fn cut_drills_short(&self, at: Time) -> Result<(), Error> {
        sqlx::query(
            "UPDATE snapshot_drills SET ended_at = ?, result = ?, code = ?, message = ? WHERE ended_at IS NULL",
        )
        .bind(at.0)
        .bind(DrillResult::Unknown.name())
        .bind("host.restarted")
        .bind("the host stopped before the agent told how it ended; nothing of the copy stays either way")
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// The newest drill of each snapshot.
    pub async fn newest_drills(&self) -> Result<BTreeMap<Digest, Drill>, Error> {
        let rows = sqlx::query(
            "SELECT id, manifest, node, asked_by, began_at, ended_at, result, code, message FROM snapshot_drills
             ORDER BY began_at, id",
        );
        let rows = rows.fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let result: String = row.try_get("result")?;
                let odd = || Error::Conflict(format!("`{result}` is no result of a drill"));
                let drill = Drill {
                    id: row.try_get("id")?,
                    manifest: Digest(row.try_get("manifest")?),
                    node: NodeId(row.try_get("node")?),
                    asked_by: row.try_get("asked_by")?,
                    began_at: Time(row.try_get("began_at")?),
                    ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(Time),
                    result: DrillResult::parse(&result).ok_or_else(odd)?,
                    code: row.try_get("code")?,
                    message: row.try_get("message")?,
                };
                Ok((drill.manifest.clone(), drill))
            })
            .collect()
    }
}
