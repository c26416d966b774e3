//! The newest word on each subject, with the envelopes behind it: in memory, since every tick says it anew. What an
//! incident refers to is committed with the incident.

use super::locked;
use aether_core::{
    combine::Scored,
    decision::{Envelope, Risk},
    id::{DecisionId, IncidentId},
    subject::SubjectRef,
    time::Time,
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

#[derive(Clone, Debug, PartialEq)]
pub struct SubjectRisk {
    pub subject: SubjectRef,
    pub at: Time,
    /// None: nothing can be said, and `unknown` says why. Not the same as no risk.
    pub risk: Option<Risk>,
    pub unknown: Option<String>,
    /// The decision of the scorer that stands.
    pub decision: Option<DecisionId>,
    pub incident: Option<IncidentId>,
}

#[derive(Debug)]
struct Word {
    at: Time,
    scored: Scored,
    decision: Option<DecisionId>,
    envelopes: Arc<[Envelope]>,
}

#[derive(Debug, Default)]
pub(super) struct Risks(Mutex<BTreeMap<SubjectRef, Word>>);

impl Risks {
    pub(super) fn tell(&self, subject: SubjectRef, at: Time, scored: Scored, envelopes: Arc<[Envelope]>) {
        let decision = envelopes.iter().find(|envelope| stands(envelope, &scored)).map(|envelope| envelope.id.clone());
        locked(&self.0).insert(subject, Word { at, scored, decision, envelopes });
    }

    pub(super) fn all(&self, open: &BTreeMap<SubjectRef, IncidentId>) -> Vec<SubjectRisk> {
        locked(&self.0)
            .iter()
            .map(|(subject, word)| {
                let (risk, unknown) = match &word.scored {
                    Scored::Risk(risk) => (Some(risk.clone()), None),
                    Scored::Unknown(why) => (None, Some(why.clone())),
                };
                SubjectRisk {
                    subject: subject.clone(),
                    at: word.at,
                    risk,
                    unknown,
                    decision: word.decision.clone(),
                    incident: open.get(subject).cloned(),
                }
            })
            .collect()
    }

    pub(super) fn decision(&self, id: &DecisionId) -> Option<Envelope> {
        locked(&self.0).values().flat_map(|word| &*word.envelopes).find(|envelope| envelope.id == *id).cloned()
    }
}

/// Whether this envelope's answer is the one that the combining rule let stand.
fn stands(envelope: &Envelope, scored: &Scored) -> bool {
    use aether_core::decision::{Answer, Assessment};
    match (&envelope.outcome, scored) {
        (Ok(Answer::Assessment(Assessment::Risk(risk))), Scored::Risk(standing)) => risk == standing,
        _ => false,
    }
}
