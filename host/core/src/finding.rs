//! From risks to findings: hysteresis, so that one spike opens nothing and one dip closes nothing, and
//! de-duplication by shape, so that one trouble is one incident.

use crate::{
    combine::Scored,
    decision::{Level, Risk},
    plan::Shape,
    subject::SubjectRef,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Something is wrong with a subject, and has been for several evaluations in a row.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Finding {
    pub shape: Shape,
    pub risk: Risk,
    pub first_seen: Time,
    pub consecutive: u32,
}

/// When a finding is raised and when it is cleared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Hysteresis {
    /// From this level on an evaluation counts.
    pub raise_level: Level,
    /// So many counting evaluations in a row raise a finding.
    pub raise_after: u32,
    /// So many evaluations below the level in a row clear it. Unknown counts neither way.
    pub clear_after: u32,
}

impl Default for Hysteresis {
    fn default() -> Self {
        Self { raise_level: Level::Critical, raise_after: 2, clear_after: 5 }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    Raised(Finding),
    /// Still there.
    Continues(Shape),
    Cleared(Shape),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Track {
    first_seen: Option<Time>,
    above: u32,
    below: u32,
    raised: Option<Shape>,
}

/// One track per subject. Bounded by the fleet's size.
#[derive(Clone, Debug, Default)]
pub struct Detector {
    hysteresis: Hysteresis,
    tracks: BTreeMap<SubjectRef, Track>,
}

impl Detector {
    pub fn new(hysteresis: Hysteresis) -> Self {
        Self { hysteresis, tracks: BTreeMap::new() }
    }

    /// A finding that was raised before a restart and not cleared.
    pub fn restore(&mut self, shape: Shape, first_seen: Time) {
        let track = Track { first_seen: Some(first_seen), above: self.hysteresis.raise_after, below: 0, raised: Some(shape.clone()) };
        self.tracks.insert(shape.subject, track);
    }

    /// Forgets a subject that left the fleet.
    pub fn forget(&mut self, subject: &SubjectRef) {
        self.tracks.remove(subject);
    }

    pub fn observe(&mut self, subject: &SubjectRef, now: Time, scored: &Scored) -> Option<Change> {
        let track = self.tracks.entry(subject.clone()).or_default();
        let risk = match scored {
            Scored::Unknown(_) => return None,
            Scored::Risk(risk) => risk,
        };
        if risk.level < self.hysteresis.raise_level {
            track.above = 0;
            track.below = track.below.saturating_add(1);
            if track.below >= self.hysteresis.clear_after {
                track.first_seen = None;
                return track.raised.take().map(Change::Cleared);
            }
            return None;
        }
        track.below = 0;
        track.above = track.above.saturating_add(1);
        let first_seen = *track.first_seen.get_or_insert(now);
        match &track.raised {
            // A new cause on a subject whose former one still stands is the same trouble told differently.
            Some(shape) => Some(Change::Continues(shape.clone())),
            None if track.above >= self.hysteresis.raise_after => {
                let shape = Shape { cause: risk.cause.clone(), subject: subject.clone() };
                track.raised = Some(shape.clone());
                Some(Change::Raised(Finding { shape, risk: risk.clone(), first_seen, consecutive: track.above }))
            }
            None => None,
        }
    }
}
