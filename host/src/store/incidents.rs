//! Incidents: journal, artifacts, plans, the ledger of reservations, raised findings, decision envelopes.

use super::{Error, Store, audit, batch::Batch, from_json, signed, to_json, unsigned};
use aether_core::{
    artifact::{Artifact, Flags},
    audit::{Act, Head},
    decision::{Activity, Envelope},
    finding::Finding,
    id::{DecisionId, Digest, IncidentId},
    incident::{Event, Incident, Phase, Reservation, Resolution},
    order::{Direction, IdempotencyKey, OutcomeStatus},
    plan::{Plan, PlanHash, Shape},
    subject::{SubjectRef, Target},
    time::Time,
};
use serde::{Deserialize, Serialize};
use sqlx::{Row, Sqlite, SqliteConnection, Transaction, sqlite::SqliteRow};
use utoipa::ToSchema;

/// An incident in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct IncidentSummary {
    pub id: IncidentId,
    pub shape: Shape,
    pub opened_at: Time,
    pub closed_at: Option<Time>,
    pub resolution: Option<Resolution>,
    /// `planning`, `gating`, `awaiting_approval`, `executing`, `compensating`, `verifying`, `closed`.
    pub phase: String,
    pub summary: String,
    /// Whether it is a drill, a dry run, or acted on by a simulated executor.
    pub flags: Flags,
    /// The plan that waits or ran.
    pub plan: Option<PlanHash>,
    pub updated_at: Time,
}

/// An incident with all that is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Story {
    pub summary: IncidentSummary,
    pub journal: Vec<(Time, Event)>,
    pub artifacts: Vec<Artifact>,
}

/// What the ledger holds of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reserved {
    pub fence: u64,
    pub execute_by: Time,
}

/// One event with all that is committed together with it.
pub struct Commit<'a> {
    /// The incident after the event.
    pub incident: &'a Incident,
    /// The event's number in the journal, from 1.
    pub number: u64,
    pub at: Time,
    pub event: &'a Event,
    pub artifacts: &'a [Artifact],
    /// The decisions that the event tells of.
    pub envelopes: &'a [Envelope],
    /// What the audit is told of the event.
    pub acts: Vec<Act>,
}

/// A plan that was begun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    pub shape: Shape,
    /// Of its first step.
    pub target: SubjectRef,
    pub plan: PlanHash,
    pub at: Time,
}

/// Decisions kept beyond those of open incidents; the oldest go first.
pub const DECISIONS_MAXIMUM: u32 = 100_000;

/// What is being written of an incident. Dropped before it is committed it leaves nothing.
pub struct Writing {
    tx: Transaction<'static, Sqlite>,
    /// Where the audit's chain ends.
    audit: Head,
}

impl Writing {
    /// Reserves a step, or says what was reserved before under the same key: asking twice is harmless.
    pub async fn reserve(
        &mut self,
        incident: &IncidentId,
        reservation: &Reservation,
        now: Time,
        execute_by: Time,
    ) -> Result<Reserved, Error> {
        let row = sqlx::query(
            "INSERT INTO ledger (key, incident_id, plan_hash, step, direction, verb, node, target, inputs, fence, execute_by, reserved_at, status)
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, (SELECT COALESCE(MAX(fence), 0) + 1 FROM ledger), ?, ?, 'reserved')
             ON CONFLICT (key) DO UPDATE SET key = excluded.key RETURNING incident_id, fence, execute_by",
        )
        .bind(&reservation.key.0)
        .bind(incident.as_str())
        .bind(&reservation.plan.0)
        .bind(i64::from(reservation.step))
        .bind(direction_name(reservation.direction))
        .bind(&reservation.verb)
        .bind(reservation.node.as_str())
        .bind(to_json(&reservation.target))
        .bind(to_json(&reservation.inputs))
        .bind(execute_by.0)
        .bind(now.0)
        .fetch_one(&mut *self.tx)
        .await?;
        if row.try_get::<String, _>("incident_id")? != incident.0 {
            return Err(Error::Conflict(format!("step {} is reserved by another incident", reservation.step + 1)));
        }
        Ok(Reserved { fence: unsigned(row.try_get("fence")?), execute_by: Time(row.try_get("execute_by")?) })
    }

    /// Writes an event, its artifacts and decisions, the plan, the finding that it raises, what it changes in the ledger,
    /// and all that was written before, or nothing.
    pub async fn commit(mut self, commit: Commit<'_>) -> Result<(), Error> {
        let Commit { incident, number, at, event, artifacts, envelopes, acts } = commit;
        let id = incident.id.as_str();
        let mut batch = Batch::default();
        if number == 1 {
            insert_incident(&mut batch, incident, at);
        } else {
            update_incident(&mut batch, incident, at);
        }
        batch
            .statement("INSERT INTO journal (incident_id, number, at, event) VALUES (?, ?, ?, ?)")
            .bind(id)
            .bind(signed(number))
            .bind(at.0)
            .bind(to_json(event));
        for artifact in artifacts {
            batch
                .statement("INSERT INTO artifacts (id, incident_id, number, kind, at, hash, body) VALUES (?, ?, (SELECT COUNT(*) + 1 FROM artifacts WHERE incident_id = ?), ?, ?, ?, ?)")
                .bind(artifact.id.as_str())
                .bind(id)
                .bind(id)
                .bind(artifact.body.kind().name())
                .bind(artifact.at.0)
                .bind(artifact.hash.0.as_str())
                .bind(to_json(artifact));
        }
        if let (Some(plan), Some(hash)) = (&incident.plan, &incident.hash) {
            batch
                .statement("INSERT INTO plans (hash, incident_id, at, canonical) VALUES (?, ?, ?, ?) ON CONFLICT (hash) DO UPDATE SET incident_id = excluded.incident_id, at = excluded.at")
                .bind(hash.0.as_str())
                .bind(id)
                .bind(at.0)
                .bind(plan.canonical());
        }
        for envelope in envelopes {
            insert_decision(&mut batch, envelope);
        }
        if let Event::Opened(opening) | Event::Relapsed(opening) = event
            && opening.requested.is_none()
        {
            raise_finding(&mut batch, &opening.finding, &incident.id);
        }
        update_ledger(&mut batch, event);
        let mut head = self.audit;
        for act in acts {
            let entry = head.next(at, act);
            audit::insert(&mut batch, &entry);
            head = Head { number: entry.number, hash: entry.hash };
        }
        let written = batch.run(&mut self.tx).await;
        if let Err(Error::Database(sqlx::Error::Database(refused))) = &written
            && refused.is_unique_violation()
        {
            return Err(Error::Conflict(format!("journal entry {number} of {id} exists already: {refused}")));
        }
        written?;
        self.tx.commit().await?;
        Ok(())
    }
}

impl Store {
    /// Begins to write of an incident. Until that is committed or dropped, nobody else writes.
    pub async fn write(&self) -> Result<Writing, Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let row = sqlx::query(
            "SELECT (SELECT epoch FROM lease WHERE id = 1) AS epoch, last.number, last.hash FROM (SELECT 1)
             LEFT JOIN (SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1) AS last",
        )
        .fetch_one(&mut *tx)
        .await?;
        self.in_charge(row.try_get("epoch")?)?;
        let audit = match (row.try_get("number")?, row.try_get("hash")?) {
            (Some(number), Some(hash)) => Head { number: unsigned(number), hash: Digest(hash) },
            _ => Head::start(),
        };
        Ok(Writing { tx, audit })
    }

    /// Whether an open incident waits for the end of this step, whichever host drives it.
    pub async fn awaits(&self, key: &IdempotencyKey) -> Result<bool, Error> {
        let row = sqlx::query(
            "SELECT 1 FROM ledger l JOIN incidents i ON i.id = l.incident_id
             WHERE l.key = ? AND l.status IN ('reserved', 'accepted') AND i.closed_at IS NULL",
        )
        .bind(&key.0)
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.is_some())
    }

    /// The journals of all incidents that are not closed, oldest first.
    pub async fn open_journals(&self) -> Result<Vec<(IncidentId, Vec<(Time, Event)>)>, Error> {
        let ids = sqlx::query("SELECT id FROM incidents WHERE closed_at IS NULL ORDER BY opened_at, id")
            .fetch_all(&self.pool)
            .await?;
        let mut journals = Vec::with_capacity(ids.len());
        for row in ids {
            let id = IncidentId(row.try_get("id")?);
            let journal = self.journal(&id).await?;
            journals.push((id, journal));
        }
        Ok(journals)
    }

    /// The journals of the newest incidents, at most `limit`.
    pub async fn recent_journals(&self, limit: u32) -> Result<Vec<Vec<(Time, Event)>>, Error> {
        let rows = sqlx::query(
            "SELECT incident_id, at, event FROM journal WHERE incident_id IN
             (SELECT id FROM incidents ORDER BY opened_at DESC, id DESC LIMIT ?) ORDER BY incident_id, number",
        )
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        let mut journals: Vec<(String, Vec<(Time, Event)>)> = Vec::new();
        for row in &rows {
            let id: String = row.try_get("incident_id")?;
            let entry = (Time(row.try_get("at")?), from_json("journal event", row.try_get("event")?)?);
            match journals.last_mut() {
                Some((last, journal)) if *last == id => journal.push(entry),
                _ => journals.push((id, vec![entry])),
            }
        }
        Ok(journals.into_iter().map(|(_, journal)| journal).collect())
    }

    pub async fn journal(&self, id: &IncidentId) -> Result<Vec<(Time, Event)>, Error> {
        journal(&mut *self.pool.acquire().await?, id).await
    }

    /// All that is told of an incident, as of one moment: what is committed while it is read is in none of it.
    pub async fn story(&self, id: &IncidentId) -> Result<Option<Story>, Error> {
        let mut tx = self.pool.begin().await?;
        let row =
            sqlx::query("SELECT * FROM incidents WHERE id = ?").bind(id.as_str()).fetch_optional(&mut *tx).await?;
        let Some(row) = row else { return Ok(None) };
        let story = Story {
            summary: summary(&row)?,
            journal: journal(&mut tx, id).await?,
            artifacts: artifacts(&mut tx, id).await?,
        };
        tx.rollback().await?;
        Ok(Some(story))
    }

    /// Newest first. `open`: only open or only closed ones. `before`: opened before this time.
    pub async fn incidents(
        &self,
        open: Option<bool>,
        before: Option<Time>,
        limit: u32,
    ) -> Result<Vec<IncidentSummary>, Error> {
        let rows = sqlx::query(
            "SELECT * FROM incidents
             WHERE (? IS NULL OR (closed_at IS NULL) = ?) AND opened_at < ?
             ORDER BY opened_at DESC, id DESC LIMIT ?",
        )
        .bind(open)
        .bind(open)
        .bind(before.map_or(i64::MAX, |time| time.0))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(summary).collect()
    }

    pub async fn incident(&self, id: &IncidentId) -> Result<Option<IncidentSummary>, Error> {
        let row =
            sqlx::query("SELECT * FROM incidents WHERE id = ?").bind(id.as_str()).fetch_optional(&self.pool).await?;
        row.as_ref().map(summary).transpose()
    }

    pub async fn artifacts(&self, id: &IncidentId) -> Result<Vec<Artifact>, Error> {
        artifacts(&mut *self.pool.acquire().await?, id).await
    }

    /// A plan and the newest incident that it belongs to.
    pub async fn plan(&self, hash: &PlanHash) -> Result<Option<(Plan, IncidentId)>, Error> {
        let Some(row) = sqlx::query("SELECT incident_id, canonical FROM plans WHERE hash = ?")
            .bind(&hash.0)
            .fetch_optional(&self.pool)
            .await?
        else {
            return Ok(None);
        };
        let canonical: Vec<u8> = row.try_get("canonical")?;
        let plan = serde_json::from_slice(&canonical)
            .map_err(|source| Error::Corrupt { document: format!("plan {hash}"), source })?;
        Ok(Some((plan, IncidentId(row.try_get("incident_id")?))))
    }

    /// What was done lately to `targets`, newest first, for the gates.
    pub async fn recent_activity(&self, targets: &[Target], since: Time, limit: u32) -> Result<Vec<Activity>, Error> {
        let rows = sqlx::query("SELECT verb, target, reserved_at, status FROM ledger WHERE reserved_at >= ? ORDER BY reserved_at DESC LIMIT 1000")
            .bind(since.0)
            .fetch_all(&self.pool)
            .await?;
        let mut recent = Vec::new();
        for row in &rows {
            let target: Target = from_json("target", row.try_get("target")?)?;
            if targets.iter().any(|wanted| wanted.subject() == target.subject()) {
                let status: String = row.try_get("status")?;
                recent.push(Activity {
                    verb: row.try_get("verb")?,
                    target_id: target.id,
                    at: Time(row.try_get("reserved_at")?),
                    succeeded: match status.as_str() {
                        "succeeded" => Some(true),
                        "failed" | "refused" => Some(false),
                        _ => None,
                    },
                });
            }
        }
        recent.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        Ok(recent)
    }

    /// Each plan that was begun since `since`, with its trouble and its first target: the attempts that the guard counts.
    pub async fn attempts(&self, since: Time) -> Result<Vec<Attempt>, Error> {
        let rows = sqlx::query(
            "SELECT i.shape, l.target, l.plan_hash, l.reserved_at FROM ledger l JOIN incidents i ON i.id = l.incident_id
             WHERE l.step = 0 AND l.direction = 'forward' AND l.reserved_at >= ? ORDER BY l.fence",
        )
        .bind(since.0)
        .fetch_all(&self.pool)
        .await?;
        rows.iter()
            .map(|row| {
                let target: Target = from_json("target", row.try_get("target")?)?;
                Ok(Attempt {
                    shape: from_json("shape", row.try_get("shape")?)?,
                    target: target.subject(),
                    plan: PlanHash(row.try_get("plan_hash")?),
                    at: Time(row.try_get("reserved_at")?),
                })
            })
            .collect()
    }

    /// The newest incident of this shape that was closed as done since `since`: what a relapse goes on with.
    pub async fn closed_as_done(&self, shape: &Shape, since: Time) -> Result<Option<IncidentId>, Error> {
        let done = [Resolution::Resolved, Resolution::Unchecked, Resolution::NotVerified].map(|done| to_json(&done));
        let row = sqlx::query(
            "SELECT id, resolution FROM incidents WHERE shape = ? AND closed_at >= ? ORDER BY closed_at DESC LIMIT 1",
        )
        .bind(to_json(shape))
        .bind(since.0)
        .fetch_optional(&self.pool)
        .await?;
        let Some(row) = row else { return Ok(None) };
        let resolution: String = row.try_get("resolution")?;
        Ok(done.contains(&resolution).then_some(IncidentId(row.try_get("id")?)))
    }

    /// The plan that was begun last on the same trouble, if any.
    pub async fn last_begun_plan(&self, shape: &Shape) -> Result<Option<PlanHash>, Error> {
        let row = sqlx::query(
            "SELECT l.plan_hash FROM ledger l JOIN incidents i ON i.id = l.incident_id WHERE i.shape = ? ORDER BY l.fence DESC LIMIT 1",
        )
        .bind(to_json(shape))
        .fetch_optional(&self.pool)
        .await?;
        row.map(|row| Ok(PlanHash(row.try_get("plan_hash")?))).transpose()
    }

    /// Notes a finding as that of an incident that was opened before. What opens one is noted with its event.
    pub async fn raise_finding(&self, finding: &Finding, incident: &IncidentId) -> Result<(), Error> {
        let mut tx = self.write().await?.tx;
        let mut batch = Batch::default();
        raise_finding(&mut batch, finding, incident);
        batch.run(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    pub async fn clear_finding(&self, subject: &SubjectRef) -> Result<(), Error> {
        let (kind, id) = subject_columns(subject);
        sqlx::query("DELETE FROM findings WHERE subject_kind = ? AND subject_id = ?")
            .bind(kind)
            .bind(id)
            .execute(&self.pool)
            .await?;
        Ok(())
    }

    pub async fn raised_findings(&self) -> Result<Vec<(Shape, Time)>, Error> {
        let rows = sqlx::query("SELECT shape, first_seen FROM findings").fetch_all(&self.pool).await?;
        rows.iter()
            .map(|row| Ok((from_json("shape", row.try_get("shape")?)?, Time(row.try_get("first_seen")?))))
            .collect()
    }

    pub async fn decision(&self, id: &DecisionId) -> Result<Option<Envelope>, Error> {
        let row = sqlx::query("SELECT envelope FROM decisions WHERE id = ?")
            .bind(id.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| from_json("decision", row.try_get("envelope")?)).transpose()
    }

    /// Keeps decisions that no incident refers to: what shadows said, and what showed that a component fails.
    pub async fn keep_decisions(&self, envelopes: &[Envelope]) -> Result<(), Error> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await?;
        let mut batch = Batch::default();
        for envelope in envelopes {
            insert_decision(&mut batch, envelope);
        }
        batch.run(&mut tx).await?;
        tx.commit().await?;
        Ok(())
    }

    /// The newest decisions, optionally of one slot.
    pub async fn decisions(&self, slot: Option<&str>, limit: u32) -> Result<Vec<Envelope>, Error> {
        let rows = sqlx::query(
            "SELECT envelope FROM decisions WHERE (? IS NULL OR slot = ?) ORDER BY at DESC, id DESC LIMIT ?",
        )
        .bind(slot)
        .bind(slot)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        rows.iter().map(|row| from_json("decision", row.try_get("envelope")?)).collect()
    }

    /// Forgets the oldest decisions beyond [`DECISIONS_MAXIMUM`]; says how many.
    pub async fn prune_decisions(&self) -> Result<u64, Error> {
        let result = sqlx::query(
            "DELETE FROM decisions WHERE at < (SELECT at FROM decisions ORDER BY at DESC LIMIT 1 OFFSET ?)",
        )
        .bind(i64::from(DECISIONS_MAXIMUM))
        .execute(&self.pool)
        .await?;
        Ok(result.rows_affected())
    }
}

fn insert_incident(batch: &mut Batch, incident: &Incident, at: Time) {
    let (kind, id) = subject_columns(&incident.shape.subject);
    batch.statement(
        "INSERT INTO incidents (id, shape, subject_kind, subject_id, cause, opened_at, phase, summary, flags, updated_at)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(incident.id.as_str())
    .bind(to_json(&incident.shape))
    .bind(kind)
    .bind(id)
    .bind(incident.shape.cause.as_str())
    .bind(incident.opened_at.0)
    .bind(phase_name(&incident.phase))
    .bind(incident.opening.finding.risk.reason.as_str())
    .bind(to_json(&incident.flags))
    .bind(at.0);
}

fn update_incident(batch: &mut Batch, incident: &Incident, at: Time) {
    let resolution = match &incident.phase {
        Phase::Closed { resolution } => Some(*resolution),
        _ => None,
    };
    batch.statement(
        "UPDATE incidents SET phase = ?, closed_at = ?, resolution = ?, flags = ?, plan_hash = ?, updated_at = ? WHERE id = ?",
    )
    .bind(phase_name(&incident.phase))
    .bind(resolution.map(|_| at.0))
    .bind(resolution.map(|resolution| to_json(&resolution)))
    .bind(to_json(&incident.flags))
    .bind(incident.hash.as_ref().map(|hash| hash.0.as_str()))
    .bind(at.0)
    .bind(incident.id.as_str());
}

fn raise_finding(batch: &mut Batch, finding: &Finding, incident: &IncidentId) {
    let (kind, id) = subject_columns(&finding.shape.subject);
    batch
        .statement(
            "INSERT INTO findings (subject_kind, subject_id, shape, first_seen, incident_id) VALUES (?, ?, ?, ?, ?)
             ON CONFLICT (subject_kind, subject_id) DO UPDATE SET shape = excluded.shape, first_seen = excluded.first_seen, incident_id = excluded.incident_id",
        )
        .bind(kind)
        .bind(id)
        .bind(to_json(&finding.shape))
        .bind(finding.first_seen.0)
        .bind(incident.as_str());
}

fn insert_decision(batch: &mut Batch, envelope: &Envelope) {
    let subject = match &envelope.question {
        aether_core::decision::Question::Score(observation) => observation.subject.subject().to_string(),
        aether_core::decision::Question::Plan { finding, .. } => finding.subject.subject().to_string(),
        aether_core::decision::Question::Judge(_) | aether_core::decision::Question::Route(_) => String::new(),
    };
    batch.statement("INSERT INTO decisions (id, slot, component, assets, subject, at, envelope) VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING")
        .bind(envelope.id.as_str())
        .bind(envelope.slot.as_str())
        .bind(envelope.component.0.as_str())
        .bind(envelope.assets.as_ref().map(|assets| assets.0.as_str()))
        .bind(subject)
        .bind(envelope.at.0)
        .bind(to_json(envelope));
}

/// What an event says of a reserved step. A settled outcome is never overwritten.
fn update_ledger(batch: &mut Batch, event: &Event) {
    let (key, status, outcome): (&IdempotencyKey, &str, Option<String>) = match event {
        Event::Accepted { key, .. } => (key, "accepted", None),
        Event::DispatchRefused { key, .. } => (key, "refused", None),
        Event::Finished { key, outcome } => {
            let status = match outcome.status {
                OutcomeStatus::Succeeded => "succeeded",
                OutcomeStatus::Failed => "failed",
                OutcomeStatus::Unknown => "unknown",
            };
            (key, status, Some(to_json(outcome)))
        }
        _ => return,
    };
    batch.statement("UPDATE ledger SET status = ?, outcome = COALESCE(?, outcome) WHERE key = ? AND status IN ('reserved', 'accepted')")
        .bind(status)
        .bind(outcome)
        .bind(key.0.as_str());
}

async fn journal(connection: &mut SqliteConnection, id: &IncidentId) -> Result<Vec<(Time, Event)>, Error> {
    let rows = sqlx::query("SELECT at, event FROM journal WHERE incident_id = ? ORDER BY number")
        .bind(id.as_str())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| Ok((Time(row.try_get("at")?), from_json("journal event", row.try_get("event")?)?))).collect()
}

async fn artifacts(connection: &mut SqliteConnection, id: &IncidentId) -> Result<Vec<Artifact>, Error> {
    let rows = sqlx::query("SELECT body FROM artifacts WHERE incident_id = ? ORDER BY number")
        .bind(id.as_str())
        .fetch_all(connection)
        .await?;
    rows.iter().map(|row| from_json("artifact", row.try_get("body")?)).collect()
}

fn summary(row: &SqliteRow) -> Result<IncidentSummary, Error> {
    let resolution: Option<String> = row.try_get("resolution")?;
    Ok(IncidentSummary {
        id: IncidentId(row.try_get("id")?),
        shape: from_json("shape", row.try_get("shape")?)?,
        opened_at: Time(row.try_get("opened_at")?),
        closed_at: row.try_get::<Option<i64>, _>("closed_at")?.map(Time),
        resolution: resolution.as_deref().map(|text| from_json("resolution", text)).transpose()?,
        phase: row.try_get("phase")?,
        summary: row.try_get("summary")?,
        flags: from_json("flags", row.try_get("flags")?)?,
        plan: row.try_get::<Option<String>, _>("plan_hash")?.map(PlanHash),
        updated_at: Time(row.try_get("updated_at")?),
    })
}

/// The phase as lists and the API call it.
pub fn phase_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Planning => "planning",
        Phase::Gating => "gating",
        Phase::AwaitingApproval { .. } => "awaiting_approval",
        Phase::Executing { .. } => "executing",
        Phase::Compensating { .. } => "compensating",
        Phase::Verifying { .. } => "verifying",
        Phase::Closed { .. } => "closed",
    }
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Forward => "forward",
        Direction::Compensate => "compensate",
    }
}

fn subject_columns(subject: &SubjectRef) -> (String, String) {
    let text = subject.to_string();
    let kind = text.split('/').next().unwrap_or_default().to_string();
    (kind, subject.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::{
        decision::{Level, Risk},
        id::NodeId,
        incident::Opening,
        subject::{Subject, SubjectKind},
    };

    #[tokio::test]
    async fn a_step_is_reserved_once_for_one_incident_and_what_is_not_committed_is_not_reserved() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let ids = ["inc-a", "inc-b"].map(|id| IncidentId(id.into()));
        for id in &ids {
            sqlx::query("INSERT INTO incidents (id, shape, subject_kind, subject_id, cause, opened_at, phase, summary, flags, updated_at) VALUES (?, '', '', '', '', 0, '', '', '', 0)")
                .bind(id.as_str())
                .execute(&store.pool)
                .await
                .unwrap();
        }
        let reservation = Reservation {
            key: IdempotencyKey("key".into()),
            plan: PlanHash("plan".into()),
            step: 0,
            direction: Direction::Forward,
            verb: "process.checkpoint".into(),
            node: NodeId::new("node-a"),
            target: Target { kind: SubjectKind::Node, id: "node-a".into(), generation: 1 },
            inputs: Default::default(),
        };
        let mut dropped = store.write().await.unwrap();
        dropped.reserve(&ids[0], &reservation, Time(1), Time(9)).await.unwrap();
        drop(dropped);
        assert_eq!(store.dispatched(Time(0)).await.unwrap(), []);

        let mut writing = store.write().await.unwrap();
        let first = writing.reserve(&ids[0], &reservation, Time(1), Time(9)).await.unwrap();
        assert_eq!(first, Reserved { fence: 1, execute_by: Time(9) });
        let again = writing.reserve(&ids[0], &reservation, Time(2), Time(99)).await.unwrap();
        assert_eq!(again, first, "the first word stands");
        let other = writing.reserve(&ids[1], &reservation, Time(2), Time(9)).await.unwrap_err();
        assert!(matches!(other, Error::Conflict(_)), "{other:?}");
        writing.tx.commit().await.unwrap();
        let outstanding = store.dispatched(Time(1)).await.unwrap();
        assert_eq!(outstanding.iter().map(|row| (row.key.0.as_str(), row.at)).collect::<Vec<_>>(), [("key", Time(1))]);
        assert_eq!(store.dispatched(Time(2)).await.unwrap(), [], "it is given up in time");
    }

    #[tokio::test]
    async fn a_finding_is_noted_with_the_incident_that_it_opens_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("aether.db")).await.unwrap();
        let node = SubjectRef::node("node-a");
        let shape = Shape { cause: "spot.rebalance".into(), subject: node.clone() };
        let risk = Risk {
            level: Level::Critical,
            score: 0.9,
            confidence: 0.9,
            horizon_ms: None,
            cause: shape.cause.clone(),
            reason: String::new(),
            contributions: vec![],
        };
        let opening = Opening {
            incident: IncidentId("inc-a".into()),
            finding: Finding { shape: shape.clone(), risk, first_seen: Time(5), consecutive: 2 },
            subject: Subject { kind: node.kind, id: node.id.clone(), generation: 1, labels: Default::default() },
            workloads: vec![],
            readings: vec![],
            events: vec![],
            window_ms: 0,
            decisions: vec![],
            unknown: vec![],
            flags: Flags::default(),
            requested: None,
        };
        let (incident, _) = Incident::open(Time(6), opening.clone());
        let event = Event::Opened(Box::new(opening));
        let commit = |number| Commit {
            incident: &incident,
            number,
            at: Time(6),
            event: &event,
            artifacts: &[],
            envelopes: &[],
            acts: vec![],
        };
        store.write().await.unwrap().commit(commit(1)).await.unwrap();
        assert_eq!(store.raised_findings().await.unwrap(), [(shape, Time(5))]);

        store.clear_finding(&node).await.unwrap();
        store.write().await.unwrap().commit(commit(1)).await.unwrap_err();
        assert_eq!(store.raised_findings().await.unwrap(), [], "the incident was open already");
    }
}
