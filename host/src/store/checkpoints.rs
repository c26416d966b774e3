//! What checkpoints took, by node: bounded to what is learned from.

use super::{Error, Store, signed, unsigned};
use aether_core::{
    id::NodeId,
    order::IdempotencyKey,
    plan::forecast::{LEARNED_MAXIMUM, Taken},
    time::Time,
};
use sqlx::Row;

impl Store {
    /// Notes one; a repeat is known by its order. The oldest of the node beyond those that are learned from go.
    pub async fn note_checkpoint(
        &self,
        key: &IdempotencyKey,
        node: &NodeId,
        at: Time,
        taken: Taken,
    ) -> Result<(), Error> {
        let most = signed(LEARNED_MAXIMUM as u64);
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO checkpoints (key, node, at, bytes, took_ms) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        )
        .bind(&key.0)
        .bind(node.as_str())
        .bind(at.0)
        .bind(signed(taken.bytes))
        .bind(signed(taken.took_ms))
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM checkpoints WHERE node = $1 AND key NOT IN
             (SELECT key FROM checkpoints WHERE node = $1 ORDER BY at DESC, key LIMIT $2)",
        )
        .bind(node.as_str())
        .bind(most)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Those of a node, the oldest first.
    pub async fn checkpoints(&self, node: &NodeId) -> Result<Vec<Taken>, Error> {
        let rows = sqlx::query("SELECT bytes, took_ms FROM checkpoints WHERE node = $1 ORDER BY at, key")
            .bind(node.as_str())
            .fetch_all(&self.pool)
            .await?;
        let taken = |row: &sqlx::sqlite::SqliteRow| {
            Ok(Taken { bytes: unsigned(row.try_get("bytes")?), took_ms: unsigned(row.try_get("took_ms")?) })
        };
        rows.iter().map(taken).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_of_each_node_are_kept_and_a_repeat_counts_once() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let (a, b) = (NodeId::new("node-a"), NodeId::new("node-b"));
        let taken = |took_ms| Taken { bytes: 1 << 40, took_ms };
        for n in 0..40u64 {
            let key = IdempotencyKey(format!("key-{n:02}"));
            let at = Time(i64::try_from(n).unwrap());
            store.note_checkpoint(&key, &a, at, taken(n)).await.unwrap();
            store.note_checkpoint(&key, &a, at, taken(7_777)).await.unwrap();
        }
        store.note_checkpoint(&IdempotencyKey("other".into()), &b, Time(0), taken(5)).await.unwrap();
        let expected: Vec<Taken> = (8..40).map(taken).collect();
        assert_eq!(store.checkpoints(&a).await.unwrap(), expected);
        assert_eq!(store.checkpoints(&b).await.unwrap(), [taken(5)]);
    }
}
