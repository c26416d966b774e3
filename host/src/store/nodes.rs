//! Nodes and how they join: what a restart of the host must not forget of them.
//!
//! Of tokens and credentials only hashes are kept. Both are 32 random bytes, so a plain hash of them cannot be searched.

use super::{Error, Store, from_json, signed, to_json, unsigned};
use crate::clock;
use aether_core::{id::NodeId, order::IdempotencyKey, time::Time};
use serde::{Serialize, de::DeserializeOwned};
use sqlx::Row;
use std::collections::BTreeMap;

/// A node as it is registered. `report` is the fabric's own document.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeRow<R> {
    pub id: NodeId,
    pub instance: String,
    pub boot: String,
    pub generation: u64,
    pub credential_hash: String,
    pub registered_at: Time,
    pub last_seen_at: Option<Time>,
    pub report: R,
}

/// A join token as people see it in a list: what it is for and whether it was used; never the token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct JoinTokenView {
    /// The first digits of its hash.
    pub id: String,
    /// The one node that may use it; none: any name that is not taken.
    pub node: Option<NodeId>,
    pub created_at: Time,
    pub expires_at: Time,
    pub used_by: Option<NodeId>,
}

/// An order that was sent and whose end is not in the journal yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchedRow {
    pub key: IdempotencyKey,
    pub node: NodeId,
    pub verb: String,
    pub inputs: BTreeMap<String, String>,
    pub at: Time,
}

/// What is known of a join token that is valid now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinToken {
    /// It was made for one node by name, so it may also register that node anew.
    pub named: bool,
    /// It was used by this very node and instance before.
    pub used: bool,
}

const TOKEN_PREFIX: &str = "aether-join-";

/// What is stored of a token or credential.
pub fn secret_hash(secret: &str) -> blake3::Hash {
    blake3::hash(secret.as_bytes())
}

fn hex<const N: usize>(bytes: [u8; N]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 random bytes behind a prefix by which a leaked one can be found.
pub fn draw_secret(prefix: &str) -> Result<String, getrandom::Error> {
    Ok(format!("{prefix}{}", hex(clock::secret::<32>()?)))
}

impl Store {
    /// Makes a token by which one node may join until `expires_at`. With a `node` only that one can use it, and it may
    /// replace a machine of that name; without, any name that is not taken. It is not kept: show it now or never.
    pub async fn create_join_token(&self, node: Option<&NodeId>, expires_at: Time) -> Result<String, Error> {
        let token =
            draw_secret(TOKEN_PREFIX).map_err(|error| sqlx::Error::Io(std::io::Error::other(error.to_string())))?;
        let now = clock::now();
        // What expired a week ago is of no interest to anybody.
        sqlx::query("DELETE FROM join_tokens WHERE expires_at < $1")
            .bind(now.minus_ms(7 * 86_400_000).0)
            .execute(&self.pool)
            .await?;
        sqlx::query("INSERT INTO join_tokens (hash, node, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(secret_hash(&token).to_hex().as_str())
            .bind(node.map(NodeId::as_str))
            .bind(now.0)
            .bind(expires_at.0)
            .execute(&self.pool)
            .await?;
        Ok(token)
    }

    /// The newest first; at most 1,000.
    pub async fn join_tokens(&self) -> Result<Vec<JoinTokenView>, Error> {
        let rows = sqlx::query(
            "SELECT hash, node, created_at, expires_at, used_by_node FROM join_tokens ORDER BY created_at DESC LIMIT 1000",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                Ok(JoinTokenView {
                    id: row.try_get::<String, _>("hash")?.chars().take(12).collect(),
                    node: row.try_get::<Option<String>, _>("node")?.map(NodeId),
                    created_at: Time(row.try_get("created_at")?),
                    expires_at: Time(row.try_get("expires_at")?),
                    used_by: row.try_get::<Option<String>, _>("used_by_node")?.map(NodeId),
                })
            })
            .collect()
    }

    /// Whether this node and instance could use the token now. Unknown, expired and used by another are one answer.
    pub async fn find_join_token(
        &self,
        token: &str,
        node: &NodeId,
        instance: &str,
        now: Time,
    ) -> Result<Option<JoinToken>, Error> {
        let hash = secret_hash(token);
        let row =
            sqlx::query("SELECT node, expires_at, used_by_node, used_by_instance FROM join_tokens WHERE hash = $1")
                .bind(hash.to_hex().as_str())
                .fetch_optional(&self.pool)
                .await?;
        let Some(row) = row else { return Ok(None) };
        let named: Option<String> = row.try_get("node")?;
        let used_by: Option<String> = row.try_get("used_by_node")?;
        let used_instance: Option<String> = row.try_get("used_by_instance")?;
        let valid = Time(row.try_get("expires_at")?) > now
            && named.as_deref().is_none_or(|named| named == node.as_str())
            && used_by.as_deref().is_none_or(|used| used == node.as_str())
            && used_instance.as_deref().is_none_or(|used| used == instance);
        Ok(valid.then_some(JoinToken { named: named.is_some(), used: used_by.is_some() }))
    }

    /// Writes a node's registration; with a join token, binds the token to it in the same transaction.
    pub async fn register_node<R: Serialize>(
        &self,
        node: &NodeRow<R>,
        join_token: Option<&str>,
        now: Time,
    ) -> Result<(), Error> {
        let mut transaction = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        if let Some(token) = join_token {
            let bound = sqlx::query(
                "UPDATE join_tokens SET used_by_node = $2, used_by_instance = $3, used_at = $4
                 WHERE hash = $1 AND expires_at > $4 AND (node IS NULL OR node = $2)
                   AND (used_by_node IS NULL OR (used_by_node = $2 AND used_by_instance = $3))",
            )
            .bind(secret_hash(token).to_hex().as_str())
            .bind(node.id.as_str())
            .bind(&node.instance)
            .bind(now.0)
            .execute(&mut *transaction)
            .await?;
            if bound.rows_affected() != 1 {
                return Err(Error::Conflict("the join token was used by another node meanwhile".into()));
            }
        }
        sqlx::query(
            "INSERT INTO nodes (id, instance, boot, generation, credential_hash, registered_at, last_seen_at, report)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
             ON CONFLICT (id) DO UPDATE SET instance = excluded.instance, boot = excluded.boot,
               generation = excluded.generation, credential_hash = excluded.credential_hash,
               registered_at = excluded.registered_at, last_seen_at = excluded.last_seen_at, report = excluded.report",
        )
        .bind(node.id.as_str())
        .bind(&node.instance)
        .bind(&node.boot)
        .bind(signed(node.generation))
        .bind(&node.credential_hash)
        .bind(node.registered_at.0)
        .bind(node.last_seen_at.map(|at| at.0))
        .bind(to_json(&node.report))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Keeps what a node last reported, and when it was seen. Not called for heartbeats.
    pub async fn update_node_report<R: Serialize>(&self, node: &NodeId, report: &R, seen: Time) -> Result<(), Error> {
        sqlx::query("UPDATE nodes SET report = $2, last_seen_at = $3 WHERE id = $1")
            .bind(node.as_str())
            .bind(to_json(report))
            .bind(seen.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// All registered nodes.
    pub async fn registered_nodes<R: DeserializeOwned>(&self) -> Result<Vec<NodeRow<R>>, Error> {
        let rows = sqlx::query(
            "SELECT id, instance, boot, generation, credential_hash, registered_at, last_seen_at, report FROM nodes",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let id: String = row.try_get("id")?;
                let report = from_json(&format!("report of node {id}"), row.try_get("report")?)?;
                Ok(NodeRow {
                    id: NodeId(id),
                    instance: row.try_get("instance")?,
                    boot: row.try_get("boot")?,
                    generation: unsigned(row.try_get("generation")?),
                    credential_hash: row.try_get("credential_hash")?,
                    registered_at: Time(row.try_get("registered_at")?),
                    last_seen_at: row.try_get::<Option<i64>, _>("last_seen_at")?.map(Time),
                    report,
                })
            })
            .collect()
    }

    /// Notes that an order of no incident goes out; a repeat is fine. Others stand in the ledger.
    pub async fn note_dispatched(&self, order: &DispatchedRow) -> Result<(), Error> {
        let mut tx = self.begin_driving().await?;
        sqlx::query(
            "INSERT INTO dispatched (key, node, verb, inputs, at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (key) DO UPDATE SET inputs = excluded.inputs, at = excluded.at",
        )
        .bind(&order.key.0)
        .bind(order.node.as_str())
        .bind(&order.verb)
        .bind(to_json(&order.inputs))
        .bind(order.at.0)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The order has ended.
    pub async fn forget_dispatched(&self, key: &IdempotencyKey) -> Result<(), Error> {
        sqlx::query("DELETE FROM dispatched WHERE key = $1").bind(&key.0).execute(&self.pool).await?;
        Ok(())
    }

    /// Orders that may be outstanding: those of no incident, and the steps whose end the ledger does not know. What is of
    /// before `since` is given up.
    pub async fn dispatched(&self, since: Time) -> Result<Vec<DispatchedRow>, Error> {
        sqlx::query("DELETE FROM dispatched WHERE at < $1").bind(since.0).execute(&self.pool).await?;
        let rows = sqlx::query(
            "SELECT key, node, verb, inputs, at FROM dispatched
             UNION ALL
             SELECT key, node, verb, inputs, reserved_at AS at FROM ledger
             WHERE reserved_at >= $1 AND status IN ('reserved', 'accepted') AND inputs IS NOT NULL",
        )
        .bind(since.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let key: String = row.try_get("key")?;
                Ok(DispatchedRow {
                    inputs: from_json(&format!("inputs of order {key}"), row.try_get("inputs")?)?,
                    key: IdempotencyKey(key),
                    node: NodeId(row.try_get("node")?),
                    verb: row.try_get("verb")?,
                    at: Time(row.try_get("at")?),
                })
            })
            .collect()
    }
}
