//! Evidence outlives telemetry: what an incident's artifacts refer to is frozen by the recorder under the incident's name.
//!
//! Looked at is what the store says and not what happens to be told: so an incident that was opened right before a crash
//! gets its evidence after it, and one that goes on (verification reads other windows than the opening) has more added.

use crate::{
    clock,
    store::{self, IncidentSummary, Store},
};
use aether_core::{
    artifact::{Artifact, Body, Evidence},
    id::IncidentId,
    subject::SubjectRef,
    time::Time,
};
use aether_recorder::{ExcerptQuery, Recorder};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// The newest incidents are looked at, and of those what changed since.
const INCIDENTS: u32 = 200;
/// An incident that was closed longer ago has what it can have.
const CLOSED_MS: u64 = 86_400_000;

type Window = (SubjectRef, String, Time, Time);

/// Freezes until `stop`. A failure is tried again.
pub(crate) async fn keep(store: Store, recorder: Recorder, stop: CancellationToken) {
    let mut known = Known::default();
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = looks.tick() => {}
        }
        if let Err(error) = known.look(&store, &recorder, clock::now()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "incidents could not be read for their evidence; tried again"
            );
        }
    }
}

/// When each incident had changed last when it was looked at, and what of it is frozen.
#[derive(Default)]
struct Known(BTreeMap<IncidentId, (Time, BTreeSet<Window>)>);

impl Known {
    async fn look(&mut self, store: &Store, recorder: &Recorder, now: Time) -> Result<(), store::Error> {
        let incidents = store.incidents(None, None, INCIDENTS).await?;
        let names: BTreeSet<&IncidentId> = incidents.iter().map(|incident| &incident.id).collect();
        self.0.retain(|id, _| names.contains(id));
        for IncidentSummary { id, updated_at, closed_at, .. } in &incidents {
            let done = self.0.get(id).is_some_and(|(at, _)| at == updated_at);
            if done || closed_at.is_some_and(|at| at < now.minus_ms(CLOSED_MS)) {
                continue;
            }
            let windows = windows(&store.artifacts(id).await?);
            let (_, frozen) = self.0.get(id).cloned().unwrap_or_default();
            let new = queries(windows.difference(&frozen));
            if !new.is_empty()
                && let Err(error) = recorder.freeze(id.as_str(), &new, now).await
            {
                tracing::warn!(incident.id = %id, error = &error as &dyn std::error::Error, "the evidence of an incident could not be frozen; it is tried again while the telemetry is there");
                continue;
            }
            self.0.insert(id.clone(), (*updated_at, windows));
        }
        Ok(())
    }
}

/// The series that artifacts refer to, and the events that the first one tells of.
fn windows(artifacts: &[Artifact]) -> BTreeSet<Window> {
    let mut all = BTreeSet::new();
    for artifact in artifacts {
        let mut events_of: Option<(SubjectRef, Time, Time)> = None;
        for evidence in &artifact.evidence {
            if let Evidence::Series { subject, metric, from, to } = evidence {
                all.insert((subject.clone(), metric.clone(), *from, *to));
                events_of = Some((subject.clone(), *from, *to));
            }
        }
        if let Body::ObservationSummary { subject, events, .. } = &artifact.body {
            for event in events {
                let of = events_of.clone().unwrap_or((subject.subject(), event.at, event.at));
                all.insert((of.0, event.name.clone(), of.1.min(event.at), of.2.max(event.at)));
            }
        }
    }
    all
}

/// What is of one subject and time is asked for at once: each question looks through all that is not sealed yet.
fn queries<'a>(windows: impl Iterator<Item = &'a Window>) -> Vec<ExcerptQuery> {
    let mut alike: BTreeMap<(&SubjectRef, Time, Time), BTreeSet<String>> = BTreeMap::new();
    for (subject, name, from, to) in windows {
        alike.entry((subject, *from, *to)).or_default().insert(name.clone());
    }
    let query = |((subject, from, to), names): ((&SubjectRef, Time, Time), BTreeSet<String>)| ExcerptQuery {
        subjects: Some(BTreeSet::from([subject.clone()])),
        names,
        from,
        to,
    };
    alike.into_iter().map(query).collect()
}
