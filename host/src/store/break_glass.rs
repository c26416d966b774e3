//! Leaves to approve alone: who took one, why, until when, what was approved under it, and who looked at it afterwards.

use super::{Error, Store, audit::append};
use aether_core::{
    audit::Act,
    id::{BreakGlassId, PrincipalId},
    incident::Rank,
    plan::PlanHash,
    time::Time,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, sqlite::SqliteRow};
use utoipa::ToSchema;

/// The newest that are listed; those that are open or owe a review are always among them.
const LIST_MAXIMUM: u32 = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakGlass {
    pub id: BreakGlassId,
    pub principal: PrincipalId,
    /// Of the principal, for people.
    pub name: String,
    pub rank: Rank,
    pub reason: String,
    pub opened_at: Time,
    pub expires_at: Time,
    /// Given back before it expired.
    pub ended_at: Option<Time>,
    /// None: the review is owed.
    pub review: Option<Review>,
    /// The plans that were approved under it.
    pub plans: Vec<PlanHash>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = BreakGlassReview)]
pub struct Review {
    pub by: PrincipalId,
    pub at: Time,
    pub comment: String,
}

impl BreakGlass {
    pub fn is_open(&self, now: Time) -> bool {
        self.ended_at.is_none() && now < self.expires_at
    }
}

impl Store {
    /// False if the principal holds one already; nothing is written then.
    pub async fn open_break_glass(&self, glass: &BreakGlass, act: Act) -> Result<bool, Error> {
        let BreakGlass { id, principal, name, rank, reason, opened_at, expires_at, ended_at: _, review: _, plans: _ } =
            glass;
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let held = sqlx::query("SELECT 1 FROM break_glass WHERE principal = ? AND ended_at IS NULL AND expires_at > ?")
            .bind(principal.as_str())
            .bind(opened_at.0)
            .fetch_optional(&mut *tx)
            .await?;
        if held.is_some() {
            return Ok(false);
        }
        sqlx::query(
            "INSERT INTO break_glass (id, principal, name, rank, reason, opened_at, expires_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(id.as_str())
        .bind(principal.as_str())
        .bind(name)
        .bind(rank.name())
        .bind(reason)
        .bind(opened_at.0)
        .bind(expires_at.0)
        .execute(&mut *tx)
        .await?;
        append(&mut tx, *opened_at, act).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Those that are open or owe a review first, then the newest.
    pub async fn break_glass(&self) -> Result<Vec<BreakGlass>, Error> {
        let rows =
            sqlx::query("SELECT * FROM break_glass ORDER BY reviewed_at IS NOT NULL, opened_at DESC, id DESC LIMIT ?")
                .bind(i64::from(LIST_MAXIMUM))
                .fetch_all(&self.pool)
                .await?;
        self.with_plans(rows).await
    }

    /// Those whose review is owed; an open one owes it already.
    pub async fn owed_break_glass(&self) -> Result<Vec<BreakGlass>, Error> {
        let rows = sqlx::query("SELECT * FROM break_glass WHERE reviewed_at IS NULL ORDER BY opened_at, id LIMIT ?")
            .bind(i64::from(LIST_MAXIMUM))
            .fetch_all(&self.pool)
            .await?;
        self.with_plans(rows).await
    }

    pub async fn one_break_glass(&self, id: &BreakGlassId) -> Result<Option<BreakGlass>, Error> {
        let row =
            sqlx::query("SELECT * FROM break_glass WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        Ok(self.with_plans(row.into_iter().collect()).await?.pop())
    }

    /// The one that the principal holds now.
    pub async fn held_break_glass(&self, by: &PrincipalId, now: Time) -> Result<Option<BreakGlassId>, Error> {
        let row = sqlx::query("SELECT id FROM break_glass WHERE principal = ? AND ended_at IS NULL AND expires_at > ?")
            .bind(by.as_str())
            .bind(now.0)
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| Ok(BreakGlassId(row.try_get("id")?))).transpose()
    }

    /// False if it is over already.
    pub async fn end_break_glass(&self, id: &BreakGlassId, at: Time, act: Act) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let ended =
            sqlx::query("UPDATE break_glass SET ended_at = ? WHERE id = ? AND ended_at IS NULL AND expires_at > ?")
                .bind(at.0)
                .bind(id.as_str())
                .bind(at.0)
                .execute(&mut *tx)
                .await?;
        if ended.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, at, act).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// False if somebody has reviewed it already.
    pub async fn review_break_glass(&self, id: &BreakGlassId, review: &Review, act: Act) -> Result<bool, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let reviewed = sqlx::query(
            "UPDATE break_glass SET reviewed_at = ?, reviewed_by = ?, review = ? WHERE id = ? AND reviewed_at IS NULL",
        )
        .bind(review.at.0)
        .bind(review.by.as_str())
        .bind(&review.comment)
        .bind(id.as_str())
        .execute(&mut *tx)
        .await?;
        if reviewed.rows_affected() == 0 {
            return Ok(false);
        }
        append(&mut tx, review.at, act).await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn with_plans(&self, rows: Vec<SqliteRow>) -> Result<Vec<BreakGlass>, Error> {
        let mut all = Vec::with_capacity(rows.len());
        for row in rows {
            let mut glass = of(&row)?;
            // The audit has each approval with what it was said under. Ids are letters, digits and `-`.
            let approved = sqlx::query(
                "SELECT target FROM audit WHERE action = 'plan.approve' AND outcome = 'done' AND at >= ? AND at <= ? AND detail LIKE ? ORDER BY number",
            )
            .bind(glass.opened_at.0)
            .bind(glass.expires_at.0)
            .bind(format!("%\"break-glass\":\"{}\"%", glass.id))
            .fetch_all(&self.pool)
            .await?;
            for row in &approved {
                glass.plans.push(PlanHash(row.try_get("target")?));
            }
            all.push(glass);
        }
        Ok(all)
    }
}

fn of(row: &SqliteRow) -> Result<BreakGlass, Error> {
    let rank: String = row.try_get("rank")?;
    let reviewed_at: Option<i64> = row.try_get("reviewed_at")?;
    let (by, comment): (Option<String>, Option<String>) = (row.try_get("reviewed_by")?, row.try_get("review")?);
    let review = reviewed_at.map(|at| Review {
        by: PrincipalId(by.unwrap_or_default()),
        at: Time(at),
        comment: comment.unwrap_or_default(),
    });
    Ok(BreakGlass {
        id: BreakGlassId(row.try_get("id")?),
        principal: PrincipalId(row.try_get("principal")?),
        name: row.try_get("name")?,
        rank: Rank::parse(&rank).ok_or_else(|| Error::Conflict(format!("`{rank}` is no rank")))?,
        reason: row.try_get("reason")?,
        opened_at: Time(row.try_get("opened_at")?),
        expires_at: Time(row.try_get("expires_at")?),
        ended_at: row.try_get::<Option<i64>, _>("ended_at")?.map(Time),
        review,
        plans: vec![],
    })
}
