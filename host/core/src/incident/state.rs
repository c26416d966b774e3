//! The state of one incident, as folded from its journal.

use super::event::{Effect, Opening, Reservation, TimerKind};
use crate::{
    artifact::{Artifact, Flags, TimelineEntry},
    decision::{Condition, Demand, Judgement, OnFailure, Proposal},
    id::{BreakGlassId, Digest, IncidentId, NodeId, PrincipalId},
    order::{Direction, IdempotencyKey, Outcome},
    plan::{Plan, PlanHash, Resolved, Shape},
    time::Time,
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// What a person or a token may do; each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    Viewer,
    Operator,
    Approver,
    PolicyAuthor,
    Admin,
}

impl Rank {
    pub const ALL: [Rank; 5] = [Rank::Viewer, Rank::Operator, Rank::Approver, Rank::PolicyAuthor, Rank::Admin];

    pub fn name(self) -> &'static str {
        match self {
            Rank::Viewer => "viewer",
            Rank::Operator => "operator",
            Rank::Approver => "approver",
            Rank::PolicyAuthor => "policy-author",
            Rank::Admin => "admin",
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|rank| rank.name() == name)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Approval {
    pub plan: PlanHash,
    pub by: PrincipalId,
    pub rank: Rank,
    pub at: Time,
    pub approved: bool,
    pub comment: Option<String>,
    /// The break-glass under which it was said: it counts for as many as are asked for, of whatever role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub break_glass: Option<BreakGlassId>,
}

/// The newest value of a condition's metric. `value` is none when nothing was sampled; it is always finite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Reading {
    pub condition: Condition,
    pub value: Option<f64>,
    pub sampled_at: Option<Time>,
}

impl Reading {
    /// Whether the bound holds on a sample that is fresh and was taken after `since`.
    pub fn holds(&self, now: Time, since: Time) -> bool {
        let (Some(value), Some(at)) = (self.value, self.sampled_at) else { return false };
        at > since
            && away_ms(now, at) <= self.condition.fresh_within_ms
            && self.condition.minimum.is_none_or(|minimum| value >= minimum)
            && self.condition.maximum.is_none_or(|maximum| value <= maximum)
    }
}

/// How far from now a sample was taken. One from a clock that is ahead says as little of now as one that is old: it may
/// have been taken long ago, before that clock was put right.
fn away_ms(now: Time, at: Time) -> u64 {
    now.since_ms(at).max(at.since_ms(now))
}

impl Reading {
    /// Why a precondition does not hold, for a person; none if it does.
    pub fn broken(&self, now: Time) -> Option<String> {
        let Condition { metric, target, minimum, maximum, fresh_within_ms } = &self.condition;
        let what = format!("{metric} of {}", target.subject());
        let (Some(value), Some(at)) = (self.value, self.sampled_at) else {
            return Some(format!("{what} was not sampled"));
        };
        if away_ms(now, at) > *fresh_within_ms {
            let old_ms = now.since_ms(at);
            return Some(match at > now {
                false => format!("{what} was last seen {old_ms} ms ago, and must be fresher than {fresh_within_ms} ms"),
                true => format!("{what} was last seen {} ms in the future: a clock is wrong", at.since_ms(now)),
            });
        }
        if let Some(minimum) = minimum.filter(|minimum| value < *minimum) {
            return Some(format!("{what} is {value}, and must be at least {minimum}"));
        }
        maximum
            .filter(|maximum| value > *maximum)
            .map(|maximum| format!("{what} is {value}, and must be at most {maximum}"))
    }
}

/// What became of one step, forward or back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct StepRecord {
    pub step: u32,
    pub direction: Direction,
    pub verb: String,
    pub node: NodeId,
    pub key: IdempotencyKey,
    /// None while it runs.
    pub outcome: Option<Outcome>,
}

/// Where one step stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StepStage {
    /// The ledger was asked.
    Reserving,
    /// Reserved under this fence, and dispatched or about to be.
    Dispatched { fence: u64, execute_by: Time },
    /// The agent has it in its journal.
    Accepted { fence: u64, execute_by: Time },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    Planning,
    /// The gates have the proposal.
    Gating,
    AwaitingApproval {
        approve_by: Time,
    },
    Executing {
        step: u32,
        stage: StepStage,
    },
    /// Undoing `step`; `left` are still to be undone after it, in order.
    Compensating {
        step: u32,
        stage: StepStage,
        left: Vec<u32>,
    },
    /// Since when, and until when success must show. `held_since`: all conditions have held since then.
    /// `read_at`: when the conditions were read last; `samples`: how many different samples success rests on so far;
    /// `gaps`: how often nobody looked for so long that the window began anew.
    Verifying {
        since: Time,
        until: Time,
        held_since: Option<Time>,
        #[serde(default)]
        read_at: Option<Time>,
        #[serde(default)]
        samples: u32,
        #[serde(default)]
        gaps: u32,
    },
    Closed {
        resolution: Resolution,
    },
}

/// Why an execution was not called off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallOffRefused {
    #[error("nothing has begun; deny the plan instead")]
    NotBegun,
    #[error("the step under way is the one that cannot be undone: stopping now would leave it half done")]
    TooLate,
    #[error("it was called off already; the step under way is being given up")]
    Twice,
    #[error("it is being undone already")]
    Undoing,
    #[error("all steps are done; what they did is undone by another plan")]
    Done,
    #[error("the incident is closed")]
    Closed,
}

/// How an incident ended. Every failure ends undone, unknown or stuck.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Resolution {
    /// Done, and verified on fresh evidence.
    Resolved,
    /// Done, and nothing was checked: the plan named no condition of success.
    Unchecked,
    /// Done, but success did not show within the watch window.
    NotVerified,
    /// No proposal stands.
    NoPlan,
    /// Every way that was proposed has been tried as often as it may: a person must decide.
    Escalated,
    /// The evidence was too weak to act on: proposed only.
    ProposalOnly,
    /// A gate denied.
    DeniedByGate,
    /// A person denied or withdrew.
    DeniedByPerson,
    /// No approval came in time.
    Expired,
    /// A guard refused the reservation, and nothing was done.
    Refused,
    /// Failed, and everything that was done is undone.
    Undone,
    /// Nobody knows whether a step was done: a person must look.
    Unknown,
    /// Failed, and not everything could be undone: a person must act.
    Stuck,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Incident {
    pub id: IncidentId,
    pub shape: Shape,
    pub opened_at: Time,
    /// When the trouble was last found: opened, or come back.
    pub found_at: Time,
    pub opening: Opening,
    pub phase: Phase,
    pub recurrences: u32,
    /// How often it was closed as done, and the trouble came back.
    pub relapses: u32,
    pub flags: Flags,
    pub proposal: Option<Proposal>,
    pub planner: Option<Digest>,
    pub resolved: Option<Resolved>,
    pub judgement: Option<Judgement>,
    pub plan: Option<Plan>,
    /// Of `plan`; kept so that it is computed once.
    pub hash: Option<PlanHash>,
    pub demand: Option<Demand>,
    /// Who asked for the plan, when a person did: their approval does not count.
    pub requester: Option<PrincipalId>,
    /// After this no further step begins.
    pub execute_by: Option<Time>,
    pub approvals: Vec<Approval>,
    pub steps: Vec<StepRecord>,
    /// Success conditions as read before the first step.
    pub before: Vec<Reading>,
    /// Success conditions as last read after the last step.
    pub after: Vec<Reading>,
    pub timeline: Vec<TimelineEntry>,
    /// Why the step under way was called off, once a person did: no further step begins.
    pub called_off: Option<String>,
    /// Why it is being undone or ended.
    pub failure: Option<String>,
    pub artifacts: u32,
    pub last_artifact: Option<Artifact>,
}

impl Incident {
    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed { .. })
    }

    /// Whether a step has been dispatched that may still be changing something.
    pub fn is_acting(&self) -> bool {
        matches!(self.phase, Phase::Executing { .. } | Phase::Compensating { .. })
    }

    /// Whether the execution can be called off now, so that what was done is undone.
    pub fn check_call_off(&self) -> Result<(), CallOffRefused> {
        match &self.phase {
            Phase::Planning | Phase::Gating | Phase::AwaitingApproval { .. } => Err(CallOffRefused::NotBegun),
            Phase::Executing { step, stage: _ } if self.on_failure(*step) == OnFailure::Stop => {
                Err(CallOffRefused::TooLate)
            }
            Phase::Executing { .. } if self.called_off.is_some() => Err(CallOffRefused::Twice),
            Phase::Executing { .. } => Ok(()),
            Phase::Compensating { .. } => Err(CallOffRefused::Undoing),
            Phase::Verifying { .. } => Err(CallOffRefused::Done),
            Phase::Closed { resolution: _ } => Err(CallOffRefused::Closed),
        }
    }

    /// The effects that were promised and not confirmed, for a host that has just started (or lost a participant).
    pub fn pending(&self) -> Vec<Effect> {
        match &self.phase {
            Phase::Planning => vec![Effect::Plan],
            Phase::Gating => vec![Effect::Judge],
            Phase::AwaitingApproval { approve_by } => {
                let ask = self.hash.clone().map(|plan| Effect::AskApproval { plan });
                let arm = Effect::Arm { timer: TimerKind::Approval, at: *approve_by };
                ask.into_iter().chain([arm]).collect()
            }
            Phase::Executing { step, stage } => self.pending_step(*step, Direction::Forward, stage),
            Phase::Compensating { step, stage, left: _ } => self.pending_step(*step, Direction::Compensate, stage),
            Phase::Verifying { since: _, until, held_since: _, read_at: _, samples: _, gaps: _ } => {
                vec![Effect::Watch, Effect::Arm { timer: TimerKind::Watch, at: *until }]
            }
            Phase::Closed { resolution: _ } => vec![],
        }
    }

    fn pending_step(&self, step: u32, direction: Direction, stage: &StepStage) -> Vec<Effect> {
        let Some(reservation) = self.reservation(step, direction) else { return vec![] };
        match stage {
            StepStage::Reserving => vec![Effect::Reserve(reservation)],
            // Dispatching again is harmless: the agent answers a repeat from its journal. What was called off is not
            // dispatched again: where it never arrived it must not begin.
            StepStage::Dispatched { fence, execute_by } | StepStage::Accepted { fence, execute_by } => {
                let at = self.step_deadline(step, *execute_by);
                let reason = self.called_off.clone().filter(|_| direction == Direction::Forward);
                let again = match reason {
                    Some(reason) => Effect::CallOff { node: reservation.node, key: reservation.key, reason },
                    None => Effect::Dispatch { reservation, fence: *fence, execute_by: *execute_by },
                };
                vec![again, Effect::Arm { timer: TimerKind::Step { step, direction }, at }]
            }
        }
    }

    /// When a step that has not answered counts as unknown.
    pub(super) fn step_deadline(&self, step: u32, execute_by: Time) -> Time {
        let timeout = usize::try_from(step)
            .ok()
            .and_then(|step| self.plan.as_ref()?.steps.get(step))
            .map_or(crate::plan::STEP_TIMEOUT_DEFAULT_MS, crate::plan::Step::timeout_ms);
        execute_by.plus_ms(timeout)
    }

    /// What the ledger is asked to reserve for `step`.
    pub fn reservation(&self, step: u32, direction: Direction) -> Option<Reservation> {
        let plan = self.plan.as_ref()?;
        let hash = self.hash.clone()?;
        let planned = plan.steps.get(usize::try_from(step).ok()?)?;
        let key = IdempotencyKey::derive(&hash, step, direction, &planned.target);
        let (verb, node) = match direction {
            Direction::Forward => (planned.verb.clone(), planned.node.clone()),
            Direction::Compensate => {
                let undo = planned.compensation.as_ref()?;
                (undo.verb.clone(), undo.node.clone())
            }
        };
        let inputs = planned
            .checkpoint_step()
            .or(Some(step))
            .and_then(|source| self.steps.iter().find(|r| r.step == source && r.direction == Direction::Forward))
            .and_then(|record| record.outcome.as_ref())
            .map(|outcome| outcome.outputs.clone())
            .unwrap_or_default();
        Some(Reservation { key, plan: hash, step, direction, verb, node, target: planned.target.clone(), inputs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::{SubjectKind, Target};

    #[test]
    fn a_precondition_holds_only_on_a_fresh_sample_within_its_bounds() {
        let target = Target { kind: SubjectKind::Node, id: "node-b".into(), generation: 1 };
        let broken = |minimum, maximum, value, at: Option<i64>| {
            let condition =
                Condition { metric: "m".into(), target: target.clone(), minimum, maximum, fresh_within_ms: 100 };
            Reading { condition, value, sampled_at: at.map(Time) }.broken(Time(1_000))
        };
        assert_eq!(broken(Some(1.0), Some(2.0), Some(1.5), Some(900)), None);
        for (minimum, maximum, value, at, word) in [
            (Some(1.0), None, None, None, "was not sampled"),
            (Some(1.0), None, Some(1.5), Some(899), "fresher than 100 ms"),
            (Some(1.0), None, Some(1.5), Some(1_101), "101 ms in the future"),
            (Some(1.0), None, Some(0.5), Some(1_000), "at least 1"),
            (None, Some(2.0), Some(2.5), Some(1_000), "at most 2"),
        ] {
            let why = broken(minimum, maximum, value, at).unwrap_or_default();
            assert!(why.contains(word), "{why}");
        }
    }
}
