//! What happens to an incident, and what it asks of the world.

use super::state::{Approval, Rank, Reading};
use crate::{
    artifact::{Artifact, Flags, SummaryEvent, SummaryReading},
    decision::{BlastRadius, Fault, Judgement, Proposal, Risk},
    finding::Finding,
    id::{DecisionId, Digest, IncidentId, NodeId, PrincipalId},
    order::{Direction, IdempotencyKey, Outcome},
    plan::{PlanHash, World},
    policy::Posture,
    subject::{Subject, Target},
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// The decisions that led here, for evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Context {
    pub decision: DecisionId,
    pub component: Digest,
    pub name: String,
}

/// The first event of every incident.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Opening {
    pub incident: IncidentId,
    pub finding: Finding,
    pub subject: Subject,
    pub workloads: Vec<Subject>,
    pub readings: Vec<SummaryReading>,
    pub events: Vec<SummaryEvent>,
    /// The window that the scorers looked at.
    pub window_ms: u64,
    pub decisions: Vec<Context>,
    pub unknown: Vec<String>,
    pub flags: Flags,
    /// No component found anything: a person asks for this to be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<Requested>,
}

/// A person's wish. It takes the planners' place and nobody else's: the gates judge it, and somebody else approves it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Requested {
    pub by: PrincipalId,
    pub name: String,
    pub rank: Rank,
    pub proposal: Proposal,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlannerAnswer {
    pub by: Context,
    pub outcome: Result<Vec<Proposal>, Fault>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateAnswer {
    pub by: Context,
    pub outcome: Result<Judgement, Fault>,
}

/// What was begun on the same trouble before, within the guard's window: the rungs of a ladder that were stood on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    pub rungs: Vec<Rung>,
    /// How often one rung may be tried; 0: as often as the guard lets it.
    pub per_rung: u32,
}

/// One way of acting, by the verbs of its steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rung {
    pub verbs: Vec<String>,
    pub attempts: u32,
}

impl Tried {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// How often a plan of these steps was tried, if that is as often as it may.
    pub fn exhausted(&self, steps: &[crate::plan::Step]) -> Option<u32> {
        let same = |rung: &&Rung| rung.verbs.iter().eq(steps.iter().map(|step| &step.verb));
        let attempts = self.rungs.iter().find(same).map_or(0, |rung| rung.attempts);
        (self.per_rung > 0 && attempts >= self.per_rung).then_some(attempts)
    }
}

/// What the gates were told besides the proposal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateContext {
    pub blast: BlastRadius,
    pub posture: Posture,
    pub bundle: Digest,
    /// Who asked for it, when a person did: their approval does not count.
    pub requester: Option<PrincipalId>,
    /// The plan that was begun last on the same trouble. It makes another attempt another plan: with a hash, an
    /// approval and idempotency keys of its own.
    pub parent: Option<PlanHash>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    Opened(Box<Opening>),
    /// The same shape was seen again while this incident is open.
    Recurred {
        risk: Risk,
    },
    /// It was closed as done, and the trouble came back soon after: this incident goes on, and no new one is opened.
    Relapsed(Box<Opening>),
    /// The planners answered; `world` is what was known when they did.
    Proposed {
        answers: Vec<PlannerAnswer>,
        world: World,
        posture: Posture,
        #[serde(default, skip_serializing_if = "Tried::is_nothing")]
        tried: Tried,
    },
    Judged {
        answers: Vec<GateAnswer>,
        context: GateContext,
        before: Vec<Reading>,
    },
    Approved(Approval),
    Denied(Approval),
    /// An approver takes the approval back, before the first dispatch.
    Withdrawn {
        by: PrincipalId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        comment: Option<String>,
    },
    /// A person has the execution stopped: the step under way is called off, and what was done is undone.
    CalledOff {
        by: PrincipalId,
        rank: Rank,
        comment: String,
    },
    TimerFired {
        timer: TimerKind,
    },
    Reserved {
        key: IdempotencyKey,
        fence: u64,
        execute_by: Time,
    },
    ReservationRefused {
        key: IdempotencyKey,
        code: String,
        reason: String,
    },
    /// The agent refused the order before doing anything.
    DispatchRefused {
        key: IdempotencyKey,
        code: String,
        reason: String,
    },
    Accepted {
        key: IdempotencyKey,
        journal: u64,
    },
    Finished {
        key: IdempotencyKey,
        outcome: Outcome,
    },
    /// The success conditions as read just now.
    Read {
        readings: Vec<Reading>,
        /// How often the driver means to look; what it did not look at for longer counts as a gap. None in journals of
        /// hosts that did not say: those know no gaps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        every_ms: Option<u64>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TimerKind {
    Approval,
    Step { step: u32, direction: Direction },
    Watch,
}

/// One step to be written into the ledger before it is dispatched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reservation {
    pub key: IdempotencyKey,
    pub plan: PlanHash,
    pub step: u32,
    pub direction: Direction,
    pub verb: String,
    pub node: NodeId,
    pub target: Target,
    pub inputs: BTreeMap<String, String>,
}

/// What the driver must do. `Record` is committed with the event; the rest is performed after.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Record(Box<Artifact>),
    /// Ask the planner slot; answer with [`Event::Proposed`].
    Plan,
    /// Ask the gates about the proposal; answer with [`Event::Judged`].
    Judge,
    /// Tell approvers that the plan waits.
    AskApproval {
        plan: PlanHash,
    },
    /// Ask the guard and the ledger; answer with `Reserved` or `ReservationRefused`.
    Reserve(Reservation),
    /// Sign and send. Repeating it is harmless.
    Dispatch {
        reservation: Reservation,
        fence: u64,
        execute_by: Time,
    },
    /// Ask the agent to give the step up, or never to begin it. What comes of it is the step's outcome, or that it was
    /// refused; repeating it is harmless.
    CallOff {
        node: NodeId,
        key: IdempotencyKey,
        reason: String,
    },
    /// Read the success conditions each tick; answer with [`Event::Read`].
    Watch,
    Arm {
        timer: TimerKind,
        at: Time,
    },
    Disarm {
        timer: TimerKind,
    },
    /// A person has to look.
    Tell {
        message: String,
    },
    /// The incident is closed: release its targets, clear its timers.
    Close,
}
