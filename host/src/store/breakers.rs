//! Breakers that are open, when each was reset last, and what was begun, so that a restart forgets none of it.

use super::{Error, Store, audit::append};
use aether_core::{
    audit::Act,
    breaker::Scope,
    id::{IncidentId, NodeId, PrincipalId},
    time::Time,
};
use sqlx::Row;

/// One breaker as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    pub scope: Scope,
    /// Since when it is open, and why.
    pub open: Option<(Time, String)>,
    pub reset_at: Option<Time>,
}

/// An incident that began to act.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begun {
    pub incident: IncidentId,
    pub node: NodeId,
    /// Of its first step.
    pub verb: String,
    pub at: Time,
}

impl Store {
    pub async fn breakers(&self) -> Result<Vec<Kept>, Error> {
        let rows = sqlx::query("SELECT scope, opened_at, reason, reset_at FROM breakers").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| {
                let scope: String = row.try_get("scope")?;
                let odd = || Error::Conflict(format!("`{scope}` is no breaker's scope"));
                let opened_at: Option<i64> = row.try_get("opened_at")?;
                let reason: Option<String> = row.try_get("reason")?;
                Ok(Kept {
                    scope: Scope::parse(&scope).ok_or_else(odd)?,
                    open: opened_at.map(|at| (Time(at), reason.unwrap_or_default())),
                    reset_at: row.try_get::<Option<i64>, _>("reset_at")?.map(Time),
                })
            })
            .collect()
    }

    pub async fn open_breaker(
        &self,
        scope: &Scope,
        at: Time,
        reason: &str,
        incident: &IncidentId,
        act: Act,
    ) -> Result<(), Error> {
        let mut tx = self.begin_driving().await?;
        sqlx::query(
            "INSERT INTO breakers (scope, opened_at, reason, incident_id) VALUES (?, ?, ?, ?)
             ON CONFLICT (scope) DO UPDATE SET opened_at = excluded.opened_at, reason = excluded.reason, incident_id = excluded.incident_id",
        )
        .bind(scope.to_string())
        .bind(at.0)
        .bind(reason)
        .bind(incident.as_str())
        .execute(&mut *tx)
        .await?;
        append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(())
    }

    pub async fn reset_breaker(&self, scope: &Scope, at: Time, by: &PrincipalId, act: Act) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO breakers (scope, reset_at, reset_by) VALUES (?, ?, ?)
             ON CONFLICT (scope) DO UPDATE SET opened_at = NULL, reason = NULL, incident_id = NULL, reset_at = excluded.reset_at, reset_by = excluded.reset_by",
        )
        .bind(scope.to_string())
        .bind(at.0)
        .bind(by.as_str())
        .execute(&mut *tx)
        .await?;
        append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(())
    }

    /// What began to act since `since`, oldest first.
    pub async fn begun(&self, since: Time) -> Result<Vec<Begun>, Error> {
        let rows = sqlx::query(
            "SELECT incident_id, node, verb, reserved_at FROM ledger
             WHERE step = 0 AND direction = 'forward' AND reserved_at >= ? ORDER BY fence",
        )
        .bind(since.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(Begun {
                    incident: IncidentId(row.try_get("incident_id")?),
                    node: NodeId(row.try_get("node")?),
                    verb: row.try_get("verb")?,
                    at: Time(row.try_get("reserved_at")?),
                })
            })
            .collect()
    }
}
