//! API tokens and the browser sessions made from them. Only hashes are stored: whoever reads the file can call nothing.

use super::{Error, Store};
use aether_core::{
    id::{Digest, PrincipalId},
    incident::Rank,
    time::Time,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};
use utoipa::ToSchema;

/// What a token is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TokenScope)]
pub enum Scope {
    /// The API, as far as its rank goes.
    #[default]
    Full,
    /// Writing metrics by OTLP, and nothing else.
    Telemetry,
}

impl Scope {
    pub fn name(self) -> &'static str {
        match self {
            Scope::Full => "full",
            Scope::Telemetry => "telemetry",
        }
    }
}

/// A token without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TokenInfo {
    /// Also the principal that calls made with it are put down to.
    pub id: PrincipalId,
    pub name: String,
    pub rank: Rank,
    #[serde(default)]
    pub scope: Scope,
    pub created_at: Time,
    pub created_by: String,
    pub expires_at: Option<Time>,
}

/// The most tokens that can be valid at a time.
pub const TOKENS_MAXIMUM: u32 = 1_000;
/// Browser sessions of one token; the oldest go first.
pub const SESSIONS_PER_TOKEN: u32 = 20;

const COLUMNS: &str = "t.id, t.name, t.rank, t.scope, t.created_at, t.created_by, t.expires_at";

impl Store {
    /// Keeps a new token. Refused beyond [`TOKENS_MAXIMUM`].
    pub async fn create_token(&self, info: &TokenInfo, hash: &Digest) -> Result<(), Error> {
        let inserted = sqlx::query(
            "INSERT INTO tokens (id, name, rank, scope, hash, created_at, created_by, expires_at)
             SELECT ?, ?, ?, ?, ?, ?, ?, ? WHERE (SELECT COUNT(*) FROM tokens WHERE deleted_at IS NULL) < ?",
        )
        .bind(info.id.as_str())
        .bind(&info.name)
        .bind(info.rank.name())
        .bind(info.scope.name())
        .bind(&hash.0)
        .bind(info.created_at.0)
        .bind(&info.created_by)
        .bind(info.expires_at.map(|at| at.0))
        .bind(i64::from(TOKENS_MAXIMUM))
        .execute(&self.pool)
        .await?;
        match inserted.rows_affected() {
            1 => Ok(()),
            _ => Err(Error::Conflict(format!("{TOKENS_MAXIMUM} tokens exist already; delete one that is not used"))),
        }
    }

    /// The token with this hash, if it is good at `now`.
    pub async fn token(&self, hash: &Digest, now: Time) -> Result<Option<TokenInfo>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM tokens t
             WHERE t.hash = ? AND t.deleted_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?)"
        )))
        .bind(&hash.0)
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await?;
        row.as_ref().map(info).transpose()
    }

    /// Tokens that are not deleted, oldest first. Expired ones are among them, so that somebody sees and deletes them.
    pub async fn tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM tokens t WHERE t.deleted_at IS NULL ORDER BY t.created_at, t.id"
        )))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(info).collect()
    }

    /// Makes a token and its sessions useless. False: there is no such token.
    pub async fn delete_token(&self, id: &PrincipalId, now: Time) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM sessions WHERE token_id = ?").bind(id.as_str()).execute(&mut *tx).await?;
        let deleted = sqlx::query("UPDATE tokens SET deleted_at = ? WHERE id = ? AND deleted_at IS NULL")
            .bind(now.0)
            .bind(id.as_str())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(deleted.rows_affected() == 1)
    }

    /// Keeps a browser's session, and forgets those that are over.
    pub async fn create_session(
        &self,
        token: &PrincipalId,
        hash: &Digest,
        now: Time,
        expires_at: Time,
    ) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query("DELETE FROM sessions WHERE expires_at <= ?").bind(now.0).execute(&mut *tx).await?;
        sqlx::query("INSERT INTO sessions (hash, token_id, created_at, expires_at) VALUES (?, ?, ?, ?)")
            .bind(&hash.0)
            .bind(token.as_str())
            .bind(now.0)
            .bind(expires_at.0)
            .execute(&mut *tx)
            .await?;
        sqlx::query(
            "DELETE FROM sessions WHERE token_id = ? AND hash NOT IN
             (SELECT hash FROM sessions WHERE token_id = ? ORDER BY created_at DESC, rowid DESC LIMIT ?)",
        )
        .bind(token.as_str())
        .bind(token.as_str())
        .bind(i64::from(SESSIONS_PER_TOKEN))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// The token behind a session, with the session's end, if both are good at `now`.
    pub async fn session(&self, hash: &Digest, now: Time) -> Result<Option<(TokenInfo, Time)>, Error> {
        let row = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS}, s.expires_at AS session_ends FROM sessions s JOIN tokens t ON t.id = s.token_id
             WHERE s.hash = ? AND s.expires_at > ? AND t.deleted_at IS NULL AND (t.expires_at IS NULL OR t.expires_at > ?)"
        )))
        .bind(&hash.0)
        .bind(now.0)
        .bind(now.0)
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok((info(&row)?, Time(row.try_get("session_ends")?)))).transpose()
    }

    pub async fn delete_session(&self, hash: &Digest) -> Result<(), Error> {
        sqlx::query("DELETE FROM sessions WHERE hash = ?").bind(&hash.0).execute(&self.pool).await?;
        Ok(())
    }
}

fn info(row: &SqliteRow) -> Result<TokenInfo, Error> {
    let (rank, scope): (String, String) = (row.try_get("rank")?, row.try_get("scope")?);
    Ok(TokenInfo {
        id: PrincipalId(row.try_get("id")?),
        name: row.try_get("name")?,
        // A rank that this version does not know gives the least power.
        rank: Rank::parse(&rank).unwrap_or(Rank::Viewer),
        // So does a scope.
        scope: if scope == Scope::Full.name() { Scope::Full } else { Scope::Telemetry },
        created_at: Time(row.try_get("created_at")?),
        created_by: row.try_get("created_by")?,
        expires_at: row.try_get::<Option<i64>, _>("expires_at")?.map(Time),
    })
}
