//! Backtests with what they found, and the names of histories that were brought in.

use super::{Error, Store, from_json, to_json};
use crate::plugins::backtest::{BacktestInfo, BacktestRequest, BacktestState, HistoryAbout, HistoryInfo};
use aether_core::{
    backtest::{Event, Report, Short},
    id::{Digest, PrincipalId, SlotId},
    time::Time,
};
use sqlx::{Row, sqlite::SqliteRow};

/// Backtests that are kept; the oldest go first.
const BACKTESTS_MAXIMUM: u32 = 200;

impl Store {
    pub async fn insert_backtest(
        &self,
        id: &str,
        at: Time,
        by: &PrincipalId,
        request: &BacktestRequest,
    ) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::query(
            "INSERT INTO backtests (id, slot, at, requested_by, request, state) VALUES (?, ?, ?, ?, ?, 'running')",
        )
        .bind(id)
        .bind(request.slot.as_str())
        .bind(at.0)
        .bind(by.as_str())
        .bind(to_json(request))
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM backtests WHERE state <> 'running' AND id NOT IN (SELECT id FROM backtests ORDER BY at DESC, id DESC LIMIT ?)",
        )
        .bind(i64::from(BACKTESTS_MAXIMUM))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    /// Writes what came of it. A backtest that has ended stays as it is.
    pub async fn finish_backtest(
        &self,
        id: &str,
        at: Time,
        outcome: Result<(&Report, &[Short]), (BacktestState, &str)>,
    ) -> Result<(), Error> {
        let (state, failure, report, short) = match outcome {
            Ok((report, short)) => (BacktestState::Done, None, Some(to_json(report)), Some(to_json(&short))),
            Err((state, failure)) => (state, Some(failure), None, None),
        };
        sqlx::query(
            "UPDATE backtests SET state = ?, finished_at = ?, failure = ?, report = ?, short = ? WHERE id = ? AND state = 'running'",
        )
        .bind(state.name())
        .bind(at.0)
        .bind(failure)
        .bind(report)
        .bind(short)
        .bind(id)
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// Those that ran when a host stopped. Nothing of them was kept.
    pub async fn end_backtests(&self, at: Time) -> Result<(), Error> {
        sqlx::query("UPDATE backtests SET state = 'stopped', finished_at = ?, failure = 'the host stopped; ask for it again' WHERE state = 'running'")
            .bind(at.0)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    /// The newest first.
    pub async fn backtests(&self, slot: Option<&SlotId>, limit: u32) -> Result<Vec<BacktestInfo>, Error> {
        let slot = slot.map(SlotId::as_str);
        let rows = sqlx::query(
            "SELECT id, at, requested_by, request, state, finished_at, failure, short FROM backtests
             WHERE (? IS NULL OR slot = ?) ORDER BY at DESC, id DESC LIMIT ?",
        )
        .bind(slot)
        .bind(slot)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(info).collect()
    }

    pub async fn backtest(&self, id: &str) -> Result<Option<(BacktestInfo, Option<Report>)>, Error> {
        let row = sqlx::query("SELECT * FROM backtests WHERE id = ?").bind(id).fetch_optional(&self.pool).await?;
        row.map(|row| {
            let report: Option<String> = row.try_get("report")?;
            Ok((info(&row)?, report.as_deref().map(|text| from_json("backtest", text)).transpose()?))
        })
        .transpose()
    }

    /// Names a history. One of that name is replaced.
    pub async fn put_history(&self, history: &HistoryInfo) -> Result<(), Error> {
        sqlx::query(
            "INSERT INTO histories (name, digest, about, labels, uploaded_at, uploaded_by) VALUES (?, ?, ?, NULL, ?, ?)
             ON CONFLICT (name) DO UPDATE SET digest = excluded.digest, about = excluded.about, labels = NULL,
             uploaded_at = excluded.uploaded_at, uploaded_by = excluded.uploaded_by",
        )
        .bind(&history.name)
        .bind(&history.digest.0)
        .bind(to_json(&history.about))
        .bind(history.uploaded_at.0)
        .bind(history.uploaded_by.as_str())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    /// False: there is no such history.
    pub async fn put_labels(&self, name: &str, labels: &[Event]) -> Result<bool, Error> {
        let updated = sqlx::query("UPDATE histories SET labels = ? WHERE name = ?")
            .bind(to_json(&labels))
            .bind(name)
            .execute(&self.pool)
            .await?;
        Ok(updated.rows_affected() == 1)
    }

    /// In order of name.
    pub async fn histories(&self) -> Result<Vec<HistoryInfo>, Error> {
        let rows = sqlx::query("SELECT * FROM histories ORDER BY name").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(history(row)?.0)).collect()
    }

    pub async fn history(&self, name: &str) -> Result<Option<(HistoryInfo, Option<Vec<Event>>)>, Error> {
        let row = sqlx::query("SELECT * FROM histories WHERE name = ?").bind(name).fetch_optional(&self.pool).await?;
        row.as_ref().map(history).transpose()
    }

    /// False: there is no such history.
    pub async fn delete_history(&self, name: &str) -> Result<bool, Error> {
        let deleted = sqlx::query("DELETE FROM histories WHERE name = ?").bind(name).execute(&self.pool).await?;
        Ok(deleted.rows_affected() == 1)
    }
}

fn info(row: &SqliteRow) -> Result<BacktestInfo, Error> {
    let short: Option<String> = row.try_get("short")?;
    let state: String = row.try_get("state")?;
    Ok(BacktestInfo {
        id: row.try_get("id")?,
        at: Time(row.try_get("at")?),
        requested_by: PrincipalId(row.try_get("requested_by")?),
        request: from_json("backtest", row.try_get("request")?)?,
        state: BacktestState::of(&state),
        finished_at: row.try_get::<Option<i64>, _>("finished_at")?.map(Time),
        failure: row.try_get("failure")?,
        short: short.as_deref().map(|text| from_json("backtest", text)).transpose()?.unwrap_or_default(),
        done: 0,
        of: 0,
    })
}

fn history(row: &SqliteRow) -> Result<(HistoryInfo, Option<Vec<Event>>), Error> {
    let labels: Option<String> = row.try_get("labels")?;
    let labels: Option<Vec<Event>> = labels.as_deref().map(|text| from_json("history", text)).transpose()?;
    let about: HistoryAbout = from_json("history", row.try_get("about")?)?;
    let info = HistoryInfo {
        name: row.try_get("name")?,
        digest: Digest(row.try_get("digest")?),
        about,
        labels: labels.as_ref().map(|labels| u64::try_from(labels.len()).unwrap_or(u64::MAX)),
        uploaded_at: Time(row.try_get("uploaded_at")?),
        uploaded_by: PrincipalId(row.try_get("uploaded_by")?),
    };
    Ok((info, labels))
}
