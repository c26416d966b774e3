//! What the API asks of the running host beside the store and the recorder. The server's assembly implements it; so
//! the API knows nothing of sessions, slots and drivers, and can be served before all of them have come up.

use super::view::{BundleInfo, Plugin, SlotNews, Slots, SubjectRisk};
use crate::{
    control::{Ask, NotAsked},
    drills::Drills,
    fabric::{Configured, Cordon, NodeView, NotReplayed, Replayed},
    plugins::{self, Added, By, Deed as SlotDeed, backtest::Backtests, replay::Replays},
    snapshots::Desk,
    store::dead_letters::DeadLetter,
};
use aether_core::{
    audit::Act,
    breaker::{Scope, Standing},
    decision::Envelope,
    id::{BreakGlassId, DecisionId, IncidentId, NodeId, PrincipalId, SlotId},
    incident::{ApprovalRefused, CallOffRefused, Rank},
    plan::PlanHash,
    telemetry::Batch,
    time::Time,
};
use async_trait::async_trait;

/// What a person said of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Approve,
    Deny,
    Withdraw,
    /// Have what runs given up and undone.
    CallOff,
}

impl Deed {
    /// As in "the plan was not approved".
    pub fn participle(self) -> &'static str {
        match self {
            Deed::Approve => "approved",
            Deed::Deny => "denied",
            Deed::Withdraw => "withdrawn",
            Deed::CallOff => "called off",
        }
    }

    /// As the audit calls it.
    pub fn action(self) -> &'static str {
        match self {
            Deed::Approve => "plan.approve",
            Deed::Deny => "plan.deny",
            Deed::Withdraw => "plan.withdraw",
            Deed::CallOff => "plan.call-off",
        }
    }
}

/// A word on the plan with exactly this hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub deed: Deed,
    pub incident: IncidentId,
    pub plan: PlanHash,
    pub by: PrincipalId,
    pub rank: Rank,
    pub comment: Option<String>,
    pub break_glass: Option<BreakGlassId>,
    pub at: Time,
}

/// Why a word on a plan changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum NotDecided {
    #[error(transparent)]
    Refused(#[from] ApprovalRefused),
    #[error(transparent)]
    CallOff(CallOffRefused),
    #[error("the incident is not open any more")]
    Closed,
    #[error("execution has begun; an approval can be taken back only before the first step")]
    Begun,
    #[error("you have not approved this plan, so there is nothing to withdraw")]
    NothingToWithdraw,
    #[error("the control driver could not take it: {0}")]
    Driver(String),
}

/// One thing that must work before this host is ready, and why it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub name: &'static str,
    pub failure: Option<String>,
}

/// What tries components on the past, with no effect on the fleet.
#[derive(Clone)]
pub struct Proofs {
    pub replays: Replays,
    pub backtests: Backtests,
}

#[async_trait]
pub trait Plane: Send + Sync + 'static {
    /// All nodes that ever joined, in order of id.
    fn nodes(&self) -> Vec<NodeView>;
    fn node(&self, id: &NodeId) -> Option<NodeView>;
    /// The newest word on every subject that is scored.
    fn risks(&self) -> Vec<SubjectRisk>;
    fn bundle(&self) -> Option<BundleInfo>;
    fn slots(&self) -> Slots;
    /// The change that each slot saw last.
    fn slot_news(&self) -> Vec<SlotNews>;
    /// Returns once it is committed and in force, or refused, and in the audit.
    async fn act_on_slot(&self, slot: &SlotId, deed: SlotDeed, by: By) -> Result<Option<Added>, plugins::Error>;
    fn plugins(&self) -> Vec<Plugin>;
    /// Returns once the word is in the incident's journal.
    async fn decide(&self, word: Word) -> Result<(), NotDecided>;
    /// The breakers that are open or have something to count.
    fn breakers(&self) -> Vec<Standing> {
        vec![]
    }
    /// Returns once it is closed, on disk and in the audit; false if it is not open.
    async fn reset_breaker(&self, _scope: &Scope, _act: Act) -> Result<bool, crate::store::Error> {
        Ok(false)
    }
    /// Sets a cordon where there is none, or lifts it; false if there was nothing to change. Returns once it is on disk and
    /// in the audit.
    async fn set_cordon(
        &self,
        _node: &NodeId,
        _cordon: Option<Cordon>,
        _at: Time,
        _act: Act,
    ) -> Result<bool, crate::store::Error> {
        Ok(false)
    }
    /// What people want of agents' telemetry.
    fn agent_configs(&self) -> Vec<Configured> {
        vec![]
    }
    /// Returns once it is on disk, in the audit, and on its way to the agents; with the version that it got.
    async fn configure_agents(&self, word: Configured, _act: Act) -> Result<Configured, crate::store::Error> {
        Ok(word)
    }
    /// Opens an incident for what a person asks for. Returns once it is in its journal and in the audit.
    async fn request(&self, ask: Ask) -> Result<IncidentId, NotAsked> {
        Err(NotAsked::UnknownTarget(ask.target))
    }
    /// A refused batch, and what it says as far as it can be read now.
    async fn read_dead_letter(
        &self,
        _number: u64,
    ) -> Result<Option<(DeadLetter, Result<Batch, NotReplayed>)>, crate::store::Error> {
        Ok(None)
    }
    /// Returns once what it holds is safe on disk and in the audit.
    async fn replay_dead_letter(&self, number: u64, _act: Act) -> Result<Replayed, NotReplayed> {
        Err(NotReplayed::Unknown(number))
    }
    /// A secret with which one node can join, once.
    async fn create_join_token(&self, node: Option<&NodeId>, expires_at: Time) -> Result<String, crate::store::Error>;
    /// A decision of the newest evaluations, which no incident has committed.
    fn recent_decision(&self, id: &DecisionId) -> Option<Envelope>;
    /// None: they are not up.
    fn drills(&self) -> Option<Drills> {
        None
    }
    /// None: they are not up.
    fn proofs(&self) -> Option<Proofs> {
        None
    }
    /// None: they are not up.
    fn snapshots(&self) -> Option<Desk> {
        None
    }
    /// What must work beside the store and the recorder.
    fn checks(&self) -> Vec<Check>;
}
