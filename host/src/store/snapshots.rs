//! What is known of snapshots beside the object store: who pinned which, and which an open incident took.

use super::{Error, Store, audit::append};
use aether_core::{
    audit::Act,
    catalogue::verb,
    id::{Digest, IncidentId, PrincipalId, SnapshotId},
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
