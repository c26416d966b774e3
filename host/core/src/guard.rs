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
    /// Attempts for one shape within `attempt_window_ms`.
    pub attempts: u32,
    pub attempt_window_ms: u64,
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self { concurrent: 4, attempts: 3, attempt_window_ms: 3_600_000 }
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
}

impl Stop {
    pub fn code(&self) -> &'static str {
        match self {
            Stop::TargetBusy { .. } => "guard.target-busy",
            Stop::TooManyAtOnce { .. } => "guard.too-many-at-once",
            Stop::TooManyAttempts { .. } => "guard.too-many-attempts",
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Guard {
    limits: GuardLimits,
    holders: BTreeMap<SubjectRef, IncidentId>,
    attempts: BTreeMap<Shape, Vec<Time>>,
}

impl Guard {
    pub fn new(limits: GuardLimits) -> Self {
        Self { limits, holders: BTreeMap::new(), attempts: BTreeMap::new() }
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
            let attempts = self.attempts.entry(shape.clone()).or_default();
            if attempts.len() >= usize::try_from(self.limits.attempts).unwrap_or(usize::MAX) {
                let (attempts, window_ms) = (self.limits.attempts, self.limits.attempt_window_ms);
                return Err(Stop::TooManyAttempts { attempts, window_ms });
            }
            attempts.push(now);
        }
        self.holders.insert(target.clone(), incident.clone());
        Ok(())
    }

    /// After a restart: `incident` was acting on `target`.
    pub fn restore(&mut self, incident: &IncidentId, target: SubjectRef) {
        self.holders.insert(target, incident.clone());
    }

    pub fn restore_attempt(&mut self, shape: Shape, at: Time) {
        self.attempts.entry(shape).or_default().push(at);
    }

    pub fn release(&mut self, incident: &IncidentId) {
        self.holders.retain(|_, holder| holder != incident);
    }
}
