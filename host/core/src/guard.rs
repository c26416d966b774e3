//! Fleet-wide safety that no single incident can see: one action per target, a limit of attempts per shape, a limit of
//! actions at once. Asked before every reservation. It limits what is begun; it never stands in the way of undoing.

use crate::{id::IncidentId, order::Direction, plan::Shape, subject::SubjectRef, time::Time};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use thiserror::Error;
use utoipa::ToSchema;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct GuardLimits {
    /// Incidents that act at the same time, in the fleet.
    pub concurrent: u32,
    /// Attempts for one cause on one subject, and on one target, within `attempt_window_ms`.
    pub attempts: u32,
    pub attempt_window_ms: u64,
    /// After an incident has ended, nothing begins on what it acted on for so long.
    pub cooldown_ms: u64,
    /// Attempts of the same kind (the verbs of a plan) for one shape, before the next kind is due, or a person.
    pub attempts_per_rung: u32,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { concurrent: 4, attempts: 3, attempt_window_ms: 3_600_000, cooldown_ms: 60_000, attempts_per_rung: 2 }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Stop {
    #[error("incident {holder} is already acting on {subject}")]
    TargetBusy { subject: SubjectRef, holder: IncidentId },
    #[error("{limit} incidents are acting already; the fleet's limit")]
    TooManyAtOnce { limit: u32 },
    #[error("{attempts} attempts were made on this trouble within the last {window_ms} ms; a person should look")]
    TooManyAttempts { attempts: u32, window_ms: u64 },
    #[error("{subject} was acted on lately; nothing begins on it for another {left_ms} ms")]
    Cooling { subject: SubjectRef, left_ms: u64 },
}

impl Stop {
    pub fn code(&self) -> &'static str {
        match self {
            Stop::TargetBusy { .. } => "guard.target-busy",
            Stop::TooManyAtOnce { .. } => "guard.too-many-at-once",
            Stop::TooManyAttempts { .. } => "guard.too-many-attempts",
            Stop::Cooling { .. } => "guard.cooling",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Guard {
    limits: GuardLimits,
    holders: BTreeMap<SubjectRef, IncidentId>,
    /// By cause, with the subject of the trouble and with the target of the action: a workload that is chased from node
    /// to node is of many subjects, and still one target.
    attempts: BTreeMap<Shape, Vec<Time>>,
    /// When an incident that acted on it ended.
    rested: BTreeMap<SubjectRef, Time>,
}

impl Guard {
    pub fn new(limits: GuardLimits) -> Self {
        Self { limits, holders: BTreeMap::new(), attempts: BTreeMap::new(), rested: BTreeMap::new() }
    }

    /// Whether `incident` may act on `target` now. Undoing is always admitted, and so is going on with what is held.
    pub fn admit(
        &mut self,
        now: Time,
        incident: &IncidentId,
        shape: &Shape,
        target: &SubjectRef,
        direction: Direction,
    ) -> Result<(), Stop> {
        if direction == Direction::Compensate {
            return Ok(());
        }
        if let Some(holder) = self.holders.get(target) {
            return if holder == incident {
                Ok(())
            } else {
                Err(Stop::TargetBusy { subject: target.clone(), holder: holder.clone() })
            };
        }
        let already_acting = self.holders.values().any(|holder| holder == incident);
        if !already_acting {
            let acting: std::collections::BTreeSet<_> = self.holders.values().collect();
            if acting.len() >= usize::try_from(self.limits.concurrent).unwrap_or(usize::MAX) {
                return Err(Stop::TooManyAtOnce { limit: self.limits.concurrent });
            }
            let since = now.minus_ms(self.limits.attempt_window_ms);
            // All shapes, so that the map holds no more than what was tried within the window.
            self.attempts.retain(|_, attempts| {
                attempts.retain(|at| *at >= since);
                !attempts.is_empty()
            });
            self.rested.retain(|_, at| now.since_ms(*at) < self.limits.cooldown_ms);
            if let Some(at) = self.rested.get(target) {
                let left_ms = self.limits.cooldown_ms.saturating_sub(now.since_ms(*at));
                return Err(Stop::Cooling { subject: target.clone(), left_ms });
            }
            let most = usize::try_from(self.limits.attempts).unwrap_or(usize::MAX);
            let counted = counted(shape, target);
            if counted.iter().any(|shape| self.attempts.get(shape).map_or(0, Vec::len) >= most) {
                let (attempts, window_ms) = (self.limits.attempts, self.limits.attempt_window_ms);
                return Err(Stop::TooManyAttempts { attempts, window_ms });
            }
            for shape in counted {
                self.attempts.entry(shape).or_default().push(now);
            }
        }
        self.holders.insert(target.clone(), incident.clone());
        Ok(())
    }

    /// After a restart: `incident` was acting on `target`.
    pub fn restore(&mut self, incident: &IncidentId, target: SubjectRef) {
        self.holders.insert(target, incident.clone());
    }

    /// What was begun before a restart. It cools from then on: when it ended is not known any more.
    pub fn restore_attempt(&mut self, shape: &Shape, target: &SubjectRef, at: Time) {
        for shape in counted(shape, target) {
            self.attempts.entry(shape).or_default().push(at);
        }
        let rested = self.rested.entry(target.clone()).or_insert(at);
        *rested = at.max(*rested);
    }

    /// The incident has ended: what it acted on is free, once it has cooled.
    pub fn release(&mut self, now: Time, incident: &IncidentId) {
        let held = self.holders.iter().filter(|(_, holder)| *holder == incident).map(|(target, _)| target.clone());
        self.rested.extend(held.map(|target| (target, now)));
        self.holders.retain(|_, holder| holder != incident);
    }
}

/// What an attempt counts for.
fn counted(shape: &Shape, target: &SubjectRef) -> Vec<Shape> {
    let on_target = Shape { cause: shape.cause.clone(), subject: target.clone() };
    if on_target == *shape { vec![on_target] } else { vec![shape.clone(), on_target] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{prelude::*, test_runner::RngSeed};
    use std::collections::BTreeSet;

    fn incident(n: u8) -> IncidentId {
        IncidentId::new(format!("inc-{n}"))
    }

    fn shape(n: u8) -> Shape {
        Shape { cause: "c".into(), subject: SubjectRef::node(format!("n{n}")) }
    }

    fn workload(n: u8) -> SubjectRef {
        SubjectRef::workload(format!("w{n}"))
    }

    fn forward(guard: &mut Guard, at: i64, of: u8, on: u8) -> Result<(), Stop> {
        guard.admit(Time(at), &incident(of), &shape(of), &workload(on), Direction::Forward)
    }

    #[test]
    fn one_action_per_target() {
        let mut guard = Guard::new(GuardLimits { cooldown_ms: 0, ..GuardLimits::default() });
        assert_eq!(forward(&mut guard, 0, 1, 7), Ok(()));
        assert_eq!(forward(&mut guard, 1, 1, 7), Ok(()), "going on with what is held");
        assert!(matches!(forward(&mut guard, 2, 2, 7), Err(Stop::TargetBusy { holder, .. }) if holder == incident(1)));
        guard.release(Time(0), &incident(1));
        assert_eq!(forward(&mut guard, 3, 2, 7), Ok(()));
    }

    #[test]
    fn so_many_at_once_counts_incidents_not_targets() {
        let mut guard = Guard::new(GuardLimits { concurrent: 2, cooldown_ms: 0, ..GuardLimits::default() });
        assert_eq!(forward(&mut guard, 0, 1, 1), Ok(()));
        assert_eq!(forward(&mut guard, 0, 1, 2), Ok(()));
        assert_eq!(forward(&mut guard, 0, 2, 3), Ok(()));
        assert_eq!(forward(&mut guard, 0, 3, 4), Err(Stop::TooManyAtOnce { limit: 2 }));
        guard.release(Time(0), &incident(1));
        assert_eq!(forward(&mut guard, 0, 3, 4), Ok(()));
    }

    #[test]
    fn attempts_on_one_shape_are_limited_within_the_window() {
        let limits =
            GuardLimits { attempts: 2, attempt_window_ms: 100, concurrent: 9, cooldown_ms: 0, attempts_per_rung: 2 };
        let mut guard = Guard::new(limits.clone());
        for at in [0, 50] {
            assert_eq!(forward(&mut guard, at, 1, 1), Ok(()));
            assert_eq!(forward(&mut guard, at, 1, 2), Ok(()), "another target of the same attempt");
            guard.release(Time(0), &incident(1));
        }
        assert_eq!(forward(&mut guard, 60, 1, 1), Err(Stop::TooManyAttempts { attempts: 2, window_ms: 100 }));
        assert_eq!(
            forward(&mut guard, 60, 2, 1),
            Err(Stop::TooManyAttempts { attempts: 2, window_ms: 100 }),
            "the same target, chased from another node"
        );
        assert_eq!(forward(&mut guard, 60, 2, 3), Ok(()), "another trouble");
        guard.release(Time(0), &incident(2));
        assert_eq!(forward(&mut guard, 101, 1, 1), Ok(()), "the first has aged out");

        // A restart forgets neither.
        let mut guard = Guard::new(limits);
        guard.restore_attempt(&shape(1), &workload(1), Time(0));
        guard.restore_attempt(&shape(1), &workload(1), Time(50));
        guard.restore(&incident(9), workload(9));
        assert!(matches!(forward(&mut guard, 60, 1, 1), Err(Stop::TooManyAttempts { .. })));
        assert!(matches!(forward(&mut guard, 60, 2, 9), Err(Stop::TargetBusy { .. })));
        assert_eq!(forward(&mut guard, 60, 9, 9), Ok(()));
    }

    #[test]
    fn what_was_acted_on_cools_and_undoing_does_not_wait() {
        let mut guard = Guard::new(GuardLimits { cooldown_ms: 100, ..GuardLimits::default() });
        assert_eq!(forward(&mut guard, 0, 1, 7), Ok(()));
        guard.release(Time(50), &incident(1));
        assert_eq!(forward(&mut guard, 60, 2, 7), Err(Stop::Cooling { subject: workload(7), left_ms: 90 }));
        assert_eq!(forward(&mut guard, 60, 2, 8), Ok(()), "another target");
        let undo = guard.admit(Time(60), &incident(3), &shape(3), &workload(7), Direction::Compensate);
        assert_eq!(undo, Ok(()));
        assert_eq!(forward(&mut guard, 150, 4, 7), Ok(()));
    }

    #[test]
    fn old_attempts_are_dropped_for_every_shape() {
        let mut guard = Guard::new(GuardLimits { attempt_window_ms: 10, cooldown_ms: 10, ..GuardLimits::default() });
        for n in 0..100 {
            guard.restore_attempt(&shape(n), &workload(n), Time(0));
        }
        forward(&mut guard, 1_000, 200, 1).unwrap();
        assert_eq!((guard.attempts.len(), guard.rested.len()), (2, 0));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, rng_seed: RngSeed::Fixed(4), ..ProptestConfig::default() })]

        #[test]
        fn never_two_on_one_target_nor_too_many_at_once(
            limits in (0u32..4, 0u32..4, 1u64..200),
            deeds in prop::collection::vec((0u8..6, 0u8..6, 0u8..4, 0i64..50), 0..80),
        ) {
            let (concurrent, attempts, attempt_window_ms) = limits;
            let mut guard = Guard::new(GuardLimits { concurrent, attempts, attempt_window_ms, cooldown_ms: 20, attempts_per_rung: 0 });
            // What was admitted and not released, as the world sees it.
            let mut acting: BTreeMap<SubjectRef, IncidentId> = BTreeMap::new();
            let mut at = 0;
            for (who, on, what, later) in deeds {
                at += later;
                if what == 0 {
                    guard.release(Time(at), &incident(who));
                    acting.retain(|_, holder| *holder != incident(who));
                    continue;
                }
                let undo = guard.admit(Time(at), &incident(who), &shape(who), &workload(on), Direction::Compensate);
                prop_assert_eq!(undo, Ok(()), "an undoing is never stopped");
                if forward(&mut guard, at, who, on).is_ok() {
                    let before = acting.insert(workload(on), incident(who));
                    prop_assert!(before.is_none_or(|holder| holder == incident(who)));
                }
                let incidents: BTreeSet<&IncidentId> = acting.values().collect();
                prop_assert!(incidents.len() <= concurrent as usize);
            }
        }
    }
}
