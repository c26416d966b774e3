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
        let track = Track {
            first_seen: Some(first_seen),
            above: self.hysteresis.raise_after,
            below: 0,
            raised: Some(shape.clone()),
        };
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
            // A spike that raised nothing is over: the finding of a later one did not begin with it.
            if track.raised.is_none() {
                track.first_seen = None;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn scored(level: Level, cause: &str) -> Scored {
        Scored::Risk(Risk {
            level,
            score: 0.9,
            confidence: 0.9,
            horizon_ms: None,
            cause: cause.into(),
            reason: String::new(),
            contributions: vec![],
        })
    }

    /// One letter an evaluation, one a second: `C`ritical, critical for another `cause`, `h`igh, `l`ow, `u`nknown.
    fn play(detector: &mut Detector, letters: &str) -> String {
        let subject = SubjectRef::node("node-a");
        letters
            .chars()
            .enumerate()
            .map(|(index, letter)| {
                let scored = match letter {
                    'C' => scored(Level::Critical, "spot.rebalance"),
                    'X' => scored(Level::Critical, "gpu.xid.79"),
                    'h' => scored(Level::High, "spot.price"),
                    'l' => scored(Level::Low, "none"),
                    'u' => Scored::Unknown("no data".into()),
                    other => panic!("no such letter: {other}"),
                };
                let change = match detector.observe(&subject, Time(i64::try_from(index).unwrap()), &scored) {
                    None => ".".into(),
                    Some(Change::Raised(f)) => {
                        format!("raised({}, since {}, {})", f.shape.cause, f.first_seen.0, f.consecutive)
                    }
                    Some(Change::Continues(shape)) => format!("goes on({})", shape.cause),
                    Some(Change::Cleared(shape)) => format!("cleared({})", shape.cause),
                };
                format!("{letter} {change}\n")
            })
            .collect()
    }

    fn check(letters: &str, expected: Expect) {
        let hysteresis = Hysteresis { raise_level: Level::Critical, raise_after: 2, clear_after: 3 };
        expected.assert_eq(&play(&mut Detector::new(hysteresis), letters));
    }

    #[test]
    fn one_spike_opens_nothing_and_one_dip_closes_nothing() {
        check(
            "lClhCl",
            expect![[r#"
            l .
            C .
            l .
            h .
            C .
            l .
        "#]],
        );
        check(
            "CCllCC",
            expect![[r#"
            C .
            C raised(spot.rebalance, since 0, 2)
            l .
            l .
            C goes on(spot.rebalance)
            C goes on(spot.rebalance)
        "#]],
        );
    }

    #[test]
    fn a_finding_begins_with_the_evaluations_that_raised_it() {
        check(
            "ClCC",
            expect![[r#"
            C .
            l .
            C .
            C raised(spot.rebalance, since 2, 2)
        "#]],
        );
    }

    #[test]
    fn cleared_after_enough_in_a_row_and_raised_anew() {
        check(
            "CClhllCC",
            expect![[r#"
            C .
            C raised(spot.rebalance, since 0, 2)
            l .
            h .
            l cleared(spot.rebalance)
            l .
            C .
            C raised(spot.rebalance, since 6, 2)
        "#]],
        );
    }

    #[test]
    fn unknown_counts_neither_way() {
        check(
            "CuCulullu",
            expect![[r#"
            C .
            u .
            C raised(spot.rebalance, since 0, 2)
            u .
            l .
            u .
            l .
            l cleared(spot.rebalance)
            u .
        "#]],
        );
    }

    #[test]
    fn another_cause_on_the_same_subject_is_the_same_trouble() {
        check(
            "CCX",
            expect![[r#"
            C .
            C raised(spot.rebalance, since 0, 2)
            X goes on(spot.rebalance)
        "#]],
        );
    }

    #[test]
    fn what_was_raised_before_a_restart_goes_on_and_clears() {
        let shape = Shape { cause: "spot.rebalance".into(), subject: SubjectRef::node("node-a") };
        let mut detector = Detector::new(Hysteresis { clear_after: 2, ..Hysteresis::default() });
        detector.restore(shape, Time(-5));
        expect![[r#"
            C goes on(spot.rebalance)
            l .
            C goes on(spot.rebalance)
            l .
            l cleared(spot.rebalance)
        "#]]
        .assert_eq(&play(&mut detector, "ClCll"));
    }

    #[test]
    fn subjects_do_not_mix_and_can_be_forgotten() {
        let mut detector = Detector::new(Hysteresis { raise_after: 2, ..Hysteresis::default() });
        let critical = scored(Level::Critical, "c");
        let (a, b) = (SubjectRef::node("a"), SubjectRef::node("b"));
        assert_eq!(detector.observe(&a, Time(0), &critical), None);
        assert_eq!(detector.observe(&b, Time(1), &critical), None);
        detector.forget(&a);
        assert_eq!(detector.observe(&a, Time(2), &critical), None);
        assert!(matches!(detector.observe(&b, Time(3), &critical), Some(Change::Raised(_))));
    }
}
