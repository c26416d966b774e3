//! Cordons that people set, kept until a person lifts them.

use super::{Error, Store, audit::append};
use crate::fabric::Cordon;
use aether_core::{
    audit::Act,
    id::{NodeId, PrincipalId},
    time::Time,
};
use sqlx::Row;

impl Store {
    pub async fn cordons(&self) -> Result<Vec<(NodeId, Cordon)>, Error> {
        let rows = sqlx::query("SELECT node, principal, name, at, reason FROM cordons").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let cordon = Cordon {
                    by: PrincipalId(row.try_get("principal")?),
                    name: row.try_get("name")?,
                    at: Time(row.try_get("at")?),
                    reason: row.try_get("reason")?,
                };
                Ok((NodeId(row.try_get("node")?), cordon))
            })
            .collect()
    }

    /// Sets a cordon where there is none, or lifts the one that there is. False: another was quicker, and nothing changed.
    pub async fn set_cordon(&self, node: &NodeId, cordon: Option<&Cordon>, at: Time, act: Act) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let changed = match cordon {
            Some(Cordon { by, name, at, reason }) => {
                sqlx::query(
                    "INSERT INTO cordons (node, principal, name, at, reason) VALUES (?, ?, ?, ?, ?)
                     ON CONFLICT (node) DO NOTHING",
                )
                .bind(node.as_str())
                .bind(by.as_str())
                .bind(name)
                .bind(at.0)
                .bind(reason)
                .execute(&mut *tx)
                .await?
            }
            None => sqlx::query("DELETE FROM cordons WHERE node = ?").bind(node.as_str()).execute(&mut *tx).await?,
        };
        if changed.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(true)
    }
}
