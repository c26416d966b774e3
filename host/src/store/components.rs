//! Components and sets of assets: what is known of them. Their bytes are in the registry's object store.

use super::{Error, Store, from_json, signed, to_json, unsigned};
use crate::plugins::registry::{AssetsRecord, ComponentRecord, Quarantined};
use aether_core::{
    decision::Role,
    id::{Digest, PrincipalId},
    time::Time,
};
use sqlx::{Row, sqlite::SqliteRow};
use std::collections::{BTreeMap, BTreeSet};

impl Store {
    /// Keeps what is known of a component. False: it was known already, and stays as it was.
    pub async fn insert_component(&self, record: &ComponentRecord) -> Result<bool, Error> {
        let inserted = sqlx::query(
            "INSERT INTO components (digest, name, version, role, bytes, description, imports, provenance, signature,
             uploaded_at, uploaded_by, used_at, quarantine) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING",
        )
        .bind(&record.digest.0)
        .bind(&record.name)
        .bind(&record.version)
        .bind(record.role.world())
        .bind(signed(record.bytes))
        .bind(to_json(&record.description))
        .bind(to_json(&record.imports))
        .bind(to_json(&record.provenance))
        .bind(record.signature.as_ref().map(to_json))
        .bind(record.uploaded_at.0)
        .bind(record.uploaded_by.as_str())
        .bind(record.used_at.0)
        .bind(record.quarantine.as_ref().map(to_json))
        .execute(&self.pool)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    /// Says who signed a component that was known without a signature.
    pub async fn sign_component(
        &self,
        digest: &Digest,
        signature: &crate::plugins::registry::SignedBy,
    ) -> Result<(), Error> {
        sqlx::query("UPDATE components SET signature = ? WHERE digest = ? AND signature IS NULL")
            .bind(to_json(signature))
            .bind(&digest.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub async fn component(&self, digest: &Digest) -> Result<Option<ComponentRecord>, Error> {
        let row =
            sqlx::query("SELECT * FROM components WHERE digest = ?").bind(&digest.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(component).transpose()
    }

    /// By name, and of one name the newest first.
    pub async fn components(&self) -> Result<Vec<ComponentRecord>, Error> {
        let rows = sqlx::query("SELECT * FROM components ORDER BY name, uploaded_at DESC, digest")
            .fetch_all(&self.pool)
            .await?;
        rows.iter().map(component).collect()
    }

    /// Sets or lifts the quarantine. False: there is no such component.
    pub async fn set_quarantine(&self, digest: &Digest, quarantine: Option<&Quarantined>) -> Result<bool, Error> {
        let updated = sqlx::query("UPDATE components SET quarantine = ? WHERE digest = ?")
            .bind(quarantine.map(to_json))
            .bind(&digest.0)
            .execute(&self.pool)
            .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// Forgets a component. False: there is none.
    pub async fn delete_component(&self, digest: &Digest) -> Result<bool, Error> {
        let deleted =
            sqlx::query("DELETE FROM components WHERE digest = ?").bind(&digest.0).execute(&self.pool).await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Keeps what is known of a set of assets. False: it was known already.
    pub async fn insert_assets(&self, record: &AssetsRecord) -> Result<bool, Error> {
        let inserted = sqlx::query(
            "INSERT INTO assets (digest, name, files, bytes, uploaded_at, uploaded_by, used_at)
             VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        )
        .bind(&record.digest.0)
        .bind(&record.name)
        .bind(to_json(&record.files))
        .bind(signed(record.bytes))
        .bind(record.uploaded_at.0)
        .bind(record.uploaded_by.as_str())
        .bind(record.used_at.0)
        .execute(&self.pool)
        .await?;
        Ok(inserted.rows_affected() == 1)
    }

    pub async fn asset_set(&self, digest: &Digest) -> Result<Option<AssetsRecord>, Error> {
        let row =
            sqlx::query("SELECT * FROM assets WHERE digest = ?").bind(&digest.0).fetch_optional(&self.pool).await?;
        row.as_ref().map(asset_set).transpose()
    }

    /// By name, and of one name the newest first.
    pub async fn asset_sets(&self) -> Result<Vec<AssetsRecord>, Error> {
        let rows =
            sqlx::query("SELECT * FROM assets ORDER BY name, uploaded_at DESC, digest").fetch_all(&self.pool).await?;
        rows.iter().map(asset_set).collect()
    }

    pub async fn delete_assets(&self, digest: &Digest) -> Result<bool, Error> {
        let deleted = sqlx::query("DELETE FROM assets WHERE digest = ?").bind(&digest.0).execute(&self.pool).await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Notes that these components and sets of assets were needed at `at`.
    pub async fn touch_plugins(&self, digests: impl IntoIterator<Item = &Digest>, at: Time) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        for digest in digests {
            for table in ["components", "assets"] {
                let update = format!("UPDATE {table} SET used_at = ? WHERE digest = ? AND used_at < ?");
                sqlx::query(sqlx::AssertSqlSafe(update))
                    .bind(at.0)
                    .bind(&digest.0)
                    .bind(at.0)
                    .execute(&mut *tx)
                    .await?;
            }
        }
        tx.commit().await?;
        Ok(())
    }

    /// Components and sets of assets that any generation of a slot refers to, with the slot.
    pub async fn stood_in(&self) -> Result<BTreeMap<Digest, BTreeSet<String>>, Error> {
        let rows = sqlx::query(
            "SELECT DISTINCT g.slot AS slot, entry.value ->> '$.component' AS component, entry.value ->> '$.assets' AS assets
             FROM slot_generations g, json_each(g.state, '$.entries') entry",
        )
        .fetch_all(&self.pool)
        .await?;
        let mut found: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        for row in rows {
            let slot: String = row.try_get("slot")?;
            for digest in [row.try_get::<Option<String>, _>("component")?, row.try_get("assets")?].into_iter().flatten()
            {
                found.entry(Digest(digest)).or_default().insert(slot.clone());
            }
        }
        Ok(found)
    }

    /// Components and sets of assets that kept decisions refer to, with how many do.
    pub async fn decided_with(&self) -> Result<BTreeMap<Digest, u64>, Error> {
        let rows = sqlx::query(
            "SELECT component AS digest, COUNT(*) AS times FROM decisions GROUP BY component UNION ALL
             SELECT assets, COUNT(*) FROM decisions WHERE assets IS NOT NULL GROUP BY assets",
        )
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| Ok((Digest(row.try_get("digest")?), unsigned(row.try_get("times")?)))).collect()
    }
}

fn component(row: &SqliteRow) -> Result<ComponentRecord, Error> {
    let world: String = row.try_get("role")?;
    let role = Role::ALL.into_iter().find(|role| role.world() == world);
    let signature: Option<String> = row.try_get("signature")?;
    let quarantine: Option<String> = row.try_get("quarantine")?;
    Ok(ComponentRecord {
        digest: Digest(row.try_get("digest")?),
        name: row.try_get("name")?,
        version: row.try_get("version")?,
        role: role.ok_or_else(|| Error::Conflict(format!("a component of the world `{world}`, which is not known")))?,
        bytes: unsigned(row.try_get("bytes")?),
        description: from_json("description", row.try_get("description")?)?,
        imports: from_json("imports", row.try_get("imports")?)?,
        provenance: from_json("provenance", row.try_get("provenance")?)?,
        signature: signature.as_deref().map(|text| from_json("signature", text)).transpose()?,
        uploaded_at: Time(row.try_get("uploaded_at")?),
        uploaded_by: PrincipalId(row.try_get("uploaded_by")?),
        used_at: Time(row.try_get("used_at")?),
        quarantine: quarantine.as_deref().map(|text| from_json("quarantine", text)).transpose()?,
    })
}

fn asset_set(row: &SqliteRow) -> Result<AssetsRecord, Error> {
    Ok(AssetsRecord {
        digest: Digest(row.try_get("digest")?),
        name: row.try_get("name")?,
        files: from_json("files", row.try_get("files")?)?,
        bytes: unsigned(row.try_get("bytes")?),
        uploaded_at: Time(row.try_get("uploaded_at")?),
        uploaded_by: PrincipalId(row.try_get("uploaded_by")?),
        used_at: Time(row.try_get("used_at")?),
    })
}
