//! From a finding to its incident: a new one, one that goes on, or one that is open still.

use super::{Driven, Live, Word, recorded};
use crate::{
    clock,
    control::Control,
    store::{self, Commit},
};
use aether_core::{
    audit,
    decision::{Envelope, Risk},
    finding::Finding,
    id::IncidentId,
    incident::{Event, Incident, Opening, Phase},
    time::Time,
};
use std::sync::PoisonError;

/// Whether a trouble that was found is one that an open incident is about: it was gone for a while.
pub(in crate::control) enum Known {
    No,
    /// Something is to be done about it, and the finding is that incident's now.
    Waits,
    /// Something is being done about it; whether it stays is known when that is over.
    Underway,
}

impl Control {
    /// One trouble is one incident, also when it goes away and comes back before that is closed.
    pub(in crate::control) async fn known(&self, finding: &Finding) -> Result<Known, store::Error> {
        let Some(id) = self.open_about(&finding.shape) else { return Ok(Known::No) };
        let Some(driven) = self.find(&id) else { return Ok(Known::No) };
        // It cannot close before the finding is noted as its own.
        let mut live = driven.lock().await;
        let known = match live.incident.phase {
            Phase::Closed { resolution: _ } => return Ok(Known::No),
            Phase::Planning | Phase::Gating | Phase::AwaitingApproval { approve_by: _ } => {
                self.0.store.raise_finding(finding, &id).await?;
                Known::Waits
            }
            Phase::Executing { .. } | Phase::Compensating { .. } | Phase::Verifying { .. } => Known::Underway,
        };
        self.note_recurrence(&mut live, finding.risk.clone()).await?;
        Ok(known)
    }

    /// Opens an incident; false if it could not be committed.
    pub(in crate::control) async fn begin(&self, opening: Opening, envelopes: &[Envelope], now: Time) -> bool {
        let id = opening.incident.clone();
        let (incident, effects) = Incident::open(now, opening.clone());
        let artifacts = recorded(&effects);
        let event = Event::Opened(Box::new(opening));
        let commit = Commit {
            incident: &incident,
            number: 1,
            at: now,
            event: &event,
            artifacts: &artifacts,
            envelopes,
            acts: audit::told(None, &event, &incident),
        };
        let committed = async { self.0.store.write().await?.commit(commit).await };
        if let Err(error) = committed.await {
            tracing::error!(incident.id = %id, error = &error as &dyn std::error::Error, "an incident could not be opened");
            return false;
        }
        tracing::warn!(incident.id = %id, subject = %incident.shape.subject, cause = incident.shape.cause, "incident opened");
        metrics::counter!("aether_incidents_opened_total").increment(1);
        let live = Driven::new(incident, 1);
        self.0.live.write().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), live.clone());
        let mut live = live.lock().await;
        self.perform_all(&mut live, effects).await;
        true
    }

    /// Goes on with an incident of the same trouble that was closed as done a short time ago; false if there is none, or
    /// if it does not take it.
    pub(in crate::control) async fn relapse(&self, opening: &Opening, envelopes: &[Envelope], now: Time) -> bool {
        let since = now.minus_ms(self.0.settings.relapse_within_ms);
        let again = async {
            let Some(id) = self.0.store.closed_as_done(&opening.finding.shape, since).await? else { return Ok(None) };
            let journal = self.0.store.journal(&id).await?;
            let Some(incident) = Incident::fold(journal.iter().map(|(at, event)| (*at, event))) else {
                return Ok(None);
            };
            let driven = Driven::new(incident, journal.len() as u64);
            let opening = Opening { incident: id.clone(), ..opening.clone() };
            let relapsed = Word::Event(Event::Relapsed(Box::new(opening)));
            let mut live = driven.lock().await;
            let effects = self.commit(&mut live, &relapsed, envelopes).await?;
            let again = !live.incident.is_closed();
            drop(live);
            Ok::<_, store::Error>(again.then_some((id, driven, effects)))
        };
        let (id, driven, effects) = match again.await {
            Ok(Some(found)) => found,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "a relapse could not be noted; a new incident is opened"
                );
                return false;
            }
        };
        let mut live = driven.lock().await;
        tracing::warn!(incident.id = %id, relapses = live.incident.relapses, "the trouble came back; the incident goes on");
        metrics::counter!("aether_incidents_relapsed_total").increment(1);
        self.0.live.write().unwrap_or_else(PoisonError::into_inner).insert(id, driven.clone());
        self.perform_all(&mut live, effects).await;
        true
    }

    /// The trouble of an open incident was seen again.
    pub(in crate::control) async fn recur(&self, id: &IncidentId, risk: Risk) {
        let Some(live) = self.find(id) else { return };
        let mut live = live.lock().await;
        if let Err(error) = self.note_recurrence(&mut live, risk).await {
            tracing::error!(incident.id = %id, error = &error as &dyn std::error::Error, "a recurrence could not be noted");
        }
    }

    /// Told once per incident and minute at most: the journal is not for every tick.
    async fn note_recurrence(&self, live: &mut Live, risk: Risk) -> Result<(), store::Error> {
        const EVERY_MS: u64 = 60_000;
        let told = live.incident.opened_at.plus_ms(u64::from(live.incident.recurrences + 1) * EVERY_MS);
        if clock::now() < told {
            return Ok(());
        }
        self.take(live, Event::Recurred { risk }, vec![]).await
    }
}
