//! Generations of slots, and the configs that stood in them.

use super::{Error, Store, from_json, signed, to_json};
use aether_core::{
    id::{Digest, PrincipalId, SlotId},
    slot::{Change, Slot},
    time::Time,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sqlx::{Row, sqlite::SqliteRow};
use utoipa::ToSchema;

/// A generation of a slot with what made it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = SlotGenerationRecord)]
pub struct Made {
    pub slot: Slot,
    pub change: Change,
    pub at: Time,
    /// `aether` where the host did it by itself.
    pub by: PrincipalId,
    pub why: String,
}

impl Store {
    /// Writes a generation with the configs of its entries, or nothing. `seed`: what the bundle declared, where it was
    /// made from one.
    pub async fn insert_generation(&self, made: &Made, seed: Option<&str>) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let inserted = sqlx::query(
            "INSERT INTO slot_generations (slot, generation, at, made_by, why, change, state, seed) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(made.slot.id.as_str())
        .bind(signed(made.slot.generation))
        .bind(made.at.0)
        .bind(made.by.as_str())
        .bind(&made.why)
        .bind(to_json(&made.change))
        .bind(to_json(&made.slot))
        .bind(seed)
        .execute(&mut *tx)
        .await?;
        if inserted.rows_affected() != 1 {
            let what = format!("generation {} of the slot {} exists already", made.slot.generation, made.slot.id);
            return Err(Error::Conflict(what));
        }
        for entry in &made.slot.entries {
            let config = aether_core::plan::canonical(&entry.config);
            sqlx::query("INSERT INTO configs (digest, config) VALUES (?, ?) ON CONFLICT DO NOTHING")
                .bind(Digest::of(&config).0)
                .bind(String::from_utf8_lossy(&config).into_owned())
                .execute(&mut *tx)
                .await?;
        }
        tx.commit().await?;
        Ok(())
    }

    /// The newest generation of a slot.
    pub async fn newest_generation(&self, slot: &SlotId) -> Result<Option<Made>, Error> {
        Ok(self.generations(slot, None, 1).await?.pop())
    }

    /// What a bundle declared of the slot when it was last made from one.
    pub async fn newest_seed(&self, slot: &SlotId) -> Result<Option<String>, Error> {
        let row = sqlx::query(
            "SELECT seed FROM slot_generations WHERE slot = ? AND seed IS NOT NULL ORDER BY generation DESC LIMIT 1",
        )
        .bind(slot.as_str())
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(|row| row.try_get("seed")).transpose()?)
    }

    /// Newest first. `before`: below this generation.
    pub async fn generations(&self, slot: &SlotId, before: Option<u64>, limit: u32) -> Result<Vec<Made>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM slot_generations WHERE slot = ? AND generation < ? ORDER BY generation DESC LIMIT ?",
        )
        .bind(slot.as_str())
        .bind(before.map_or(i64::MAX, signed))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(made).collect()
    }

    /// One generation of a slot.
    pub async fn generation(&self, slot: &SlotId, generation: u64) -> Result<Option<Made>, Error> {
        let row = sqlx::query("SELECT * FROM slot_generations WHERE slot = ? AND generation = ?")
            .bind(slot.as_str())
            .bind(signed(generation))
            .fetch_optional(&self.pool)
            .await?;
        row.as_ref().map(made).transpose()
    }

    /// A config that ever stood in a slot, by its digest.
    pub async fn config(&self, digest: &Digest) -> Result<Option<Map<String, Value>>, Error> {
        let row = sqlx::query("SELECT config FROM configs WHERE digest = ?")
            .bind(&digest.0)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| from_json("config", row.try_get("config")?)).transpose()
    }
}

fn made(row: &SqliteRow) -> Result<Made, Error> {
    Ok(Made {
        slot: from_json("slot", row.try_get("state")?)?,
        change: from_json("slot change", row.try_get("change")?)?,
        at: Time(row.try_get("at")?),
        by: PrincipalId(row.try_get("made_by")?),
        why: row.try_get("why")?,
    })
}
