//! What people want of agents' telemetry, each change a row.

use super::{Error, Store, audit::append, from_json, signed, to_json, unsigned};
use crate::fabric::Configured;
use aether_core::{
    audit::Act,
    id::{NodeId, PrincipalId},
    time::Time,
};
use sqlx::Row;

impl Store {
    /// The newest word on the fleet and on each node.
    pub async fn agent_configs(&self) -> Result<Vec<Configured>, Error> {
        let rows = sqlx::query(
            "SELECT version, node, collection, principal, name, at, reason FROM agent_configs
             WHERE version IN (SELECT MAX(version) FROM agent_configs GROUP BY node) ORDER BY version",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let collection: Option<String> = row.try_get("collection")?;
                Ok(Configured {
                    version: unsigned(row.try_get("version")?),
                    node: row.try_get::<Option<String>, _>("node")?.map(NodeId),
                    collection: collection.map(|json| from_json("what an agent collects", &json)).transpose()?,
                    by: PrincipalId(row.try_get("principal")?),
                    name: row.try_get("name")?,
                    at: Time(row.try_get("at")?),
                    reason: row.try_get("reason")?,
                })
            })
            .collect()
    }

    /// Keeps a word; gives it back with the version that it got.
    pub async fn configure_agents(&self, word: Configured, act: Act) -> Result<Configured, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "INSERT INTO agent_configs (version, node, collection, principal, name, at, reason)
             VALUES ((SELECT COALESCE(MAX(version), 0) + 1 FROM agent_configs), ?, ?, ?, ?, ?, ?) RETURNING version",
        )
        .bind(word.node.as_ref().map(NodeId::as_str))
        .bind(word.collection.as_ref().map(to_json))
        .bind(word.by.as_str())
        .bind(&word.name)
        .bind(word.at.0)
        .bind(&word.reason)
        .fetch_one(&mut *tx)
        .await?;
        let version = unsigned(row.try_get("version")?);
        // Of what was wanted before nothing is read again, and the audit has it.
        sqlx::query("DELETE FROM agent_configs WHERE node IS ? AND version < ?")
            .bind(word.node.as_ref().map(NodeId::as_str))
            .bind(signed(version))
            .execute(&mut *tx)
            .await?;
        append(&mut tx, word.at, act).await?;
        tx.commit().await?;
        Ok(Configured { version, ..word })
    }
}
