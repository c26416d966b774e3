//! A slot: the components that answer one kind of question, each at its stage from *candidate* to *retired*.
//!
//! Pure, like the rest of this crate: [`Slot::apply`] makes the next generation or says why not, [`Slot::cast`] says who
//! answers for a subject, and [`Watch`] says when an entry has used up its budget. Which bytes an entry stands for, and
//! what is committed when, is the host's.
//!
//! ```text
//! candidate -> shadow -> canary -> active -> retired
//!     self-test   compared   a share     replaces     kept for replay, can come back
//! ```
//! Every change makes a new generation of the whole slot. Evaluations hold the generation that they began with, so a
//! swap loses none and mixes none.

mod watch;

pub use watch::{Baseline, Breach, Budget, Figures, Sample, Watch};

use crate::{
    combine::CombiningRule,
    decision::{Answer, Assessment, Fault, Limits, Question, Role, RoutingQuestion},
    id::{DecisionId, Digest, EntryId, PrincipalId, SlotId},
    subject::SubjectRef,
    time::Time,
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use thiserror::Error;
use utoipa::ToSchema;

/// Entries of one slot that are not retired.
pub const ENTRIES_MAXIMUM: usize = 32;
/// Retired entries that a generation still lists; older ones are in older generations.
pub const RETIRED_MAXIMUM: usize = 16;

/// How far an entry has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Self-tested, asked nothing yet.
    Candidate,
    /// Asked beside those that answer and compared with them; its answers have no effect.
    Shadow,
    /// Answers for a share of the subjects, 1 to 99 percent, chosen by a stable hash.
    Canary {
        percent: u8,
    },
    Active,
    /// Asked nothing any more.
    Retired,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Stage::Candidate => "candidate",
            Stage::Shadow => "shadow",
            Stage::Canary { .. } => "canary",
            Stage::Active => "active",
            Stage::Retired => "retired",
        }
    }
}

/// An import that an entry may use. What its world grants is the most; an entry can be granted less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Grant {
    Log,
    Assets,
    History,
    /// The virtual, deterministic WASI that a language's runtime insists on.
    Wasi,
}

impl Grant {
    /// As it is written in a slot's entry.
    pub fn name(self) -> &'static str {
        match self {
            Grant::Log => "log",
            Grant::Assets => "assets",
            Grant::History => "history",
            Grant::Wasi => "wasi",
        }
    }

    /// Everything that the world of `role` can grant.
    pub fn of(role: Role) -> BTreeSet<Grant> {
        match role {
            Role::RiskScorer | Role::RemediationPlanner => {
                BTreeSet::from([Grant::Log, Grant::Assets, Grant::History, Grant::Wasi])
            }
            Role::PolicyGate | Role::Router => BTreeSet::from([Grant::Log, Grant::Assets, Grant::Wasi]),
        }
    }
}

/// One component with its config, limits and assets, on its way through a slot. A new config or new assets are a new
/// entry: they are proved like new code.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    pub id: EntryId,
    pub component: Digest,
    /// As the component describes itself.
    pub name: String,
    pub version: String,
    #[schema(value_type = Object)]
    pub config: serde_json::Map<String, serde_json::Value>,
    pub limits: Limits,
    /// The set of files that its `assets` are; none: it has none.
    #[serde(default)]
    pub assets: Option<Digest>,
    pub grants: BTreeSet<Grant>,
    pub stage: Stage,
    /// When it came to this stage.
    pub since: Time,
    /// The entry in whose place it is to stand; none: it stands beside the others.
    #[serde(default)]
    pub replaces: Option<EntryId>,
    /// One for each step that it was promoted.
    #[serde(default)]
    pub proofs: Vec<Proof>,
    /// Why it was retired; none while it is not, and where a successor took its place.
    #[serde(default)]
    pub quarantine: Option<Quarantine>,
}

/// What a promotion was made on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Proof {
    pub to: Stage,
    pub at: Time,
    pub by: PrincipalId,
    /// Fixtures of the bundle that were asked of it, and how many passed.
    pub self_test: Option<SelfTest>,
    /// Id of the backtest that was looked at.
    pub backtest: Option<String>,
    /// What it did at the stage that it leaves.
    pub figures: Option<Figures>,
    /// Why the step was taken without the evidence that it asks for; recorded as an override.
    pub overridden: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SelfTest {
    pub passed: u32,
    pub failed: u32,
}

/// Why an entry was taken out, with what is needed to see it fail again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Quarantine {
    pub at: Time,
    pub reason: String,
    /// The decision to replay.
    pub reproducer: Option<DecisionId>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = SlotGeneration)]
pub struct Slot {
    pub id: SlotId,
    pub role: Role,
    pub rule: CombiningRule,
    pub budget: Budget,
    /// From 1; each change adds one.
    pub generation: u64,
    /// In order of evaluation, retired ones last.
    pub entries: Vec<Entry>,
}

/// What can be done to a slot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// Puts a new entry in, as candidate.
    Add(Box<Entry>),
    /// One step on; more than one step, or a step without its evidence, needs `overridden`.
    Promote { entry: EntryId, to: Stage, proof: Box<Proof> },
    /// Takes an entry out, for good reasons that are not its fault.
    Retire { entry: EntryId },
    /// Takes an entry out because it failed. Where it had replaced another, that one is active again.
    RollBack { entry: EntryId, quarantine: Quarantine },
}

/// Why a change was not made. The slot is as it was.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    #[error("the slot has no entry `{0}`")]
    NoEntry(EntryId),
    #[error("the slot has an entry `{0}` already")]
    Known(EntryId),
    #[error("the slot holds {ENTRIES_MAXIMUM} entries; retire one first")]
    Full,
    #[error("`{0}` is retired; add it again as a candidate")]
    Retired(EntryId),
    #[error("`{entry}` is {from} and cannot become {to}")]
    Step { entry: EntryId, from: &'static str, to: &'static str },
    #[error("a canary's share is 1 to 99 percent, not {0}")]
    Share(u8),
    #[error("the step from {from} to {to} asks for {missing}; give a reason to take it without")]
    Unproved { from: &'static str, to: &'static str, missing: String },
    #[error("`{0}` is the only one that answers in this slot; put another in its place instead")]
    LastAnswering(EntryId),
    #[error("`{entry}` replaces `{replaced}`, which does not answer in this slot")]
    Replaces { entry: EntryId, replaced: EntryId },
}

/// Who is asked about one subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast<'a> {
    /// Their answers are combined by the slot's rule.
    pub answering: Vec<&'a Entry>,
    /// Asked and compared, without effect; each with the one whose answer it is compared with, if that one answers.
    pub shadows: Vec<(&'a Entry, Option<&'a Entry>)>,
}

impl Slot {
    /// The next generation.
    pub fn apply(&self, change: Change, at: Time) -> Result<Slot, Refused> {
        let mut next = self.clone();
        next.generation += 1;
        match change {
            Change::Add(entry) => next.add(*entry, at)?,
            Change::Promote { entry, to, proof } => next.promote(&entry, to, *proof, at)?,
            Change::Retire { entry } => {
                let answering = next.entries.iter().filter(|other| other.stage == Stage::Active).count();
                let found = next.open_mut(&entry)?;
                if found.stage == Stage::Active && answering == 1 {
                    return Err(Refused::LastAnswering(entry));
                }
                (found.stage, found.since) = (Stage::Retired, at);
            }
            Change::RollBack { entry, quarantine } => next.roll_back(&entry, quarantine, at)?,
        }
        next.settle();
        Ok(next)
    }

    pub fn entry(&self, id: &EntryId) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == *id)
    }

    /// Who answers for the subject that `key` names, and who is only watched.
    pub fn cast(&self, key: &str) -> Cast<'_> {
        let canary =
            |entry: &&Entry| matches!(entry.stage, Stage::Canary { percent } if self.share(&entry.id, key) < percent);
        let canaries: Vec<&Entry> = self.entries.iter().filter(canary).collect();
        let displaced = |entry: &Entry| canaries.iter().any(|canary| canary.replaces.as_ref() == Some(&entry.id));
        let mut answering: Vec<&Entry> =
            self.entries.iter().filter(|entry| entry.stage == Stage::Active && !displaced(entry)).collect();
        answering.extend(&canaries);
        let shadows = self
            .entries
            .iter()
            .filter(|entry| entry.stage == Stage::Shadow)
            .map(|entry| {
                let beside = answering.iter().find(|other| entry.replaces.as_ref() == Some(&other.id));
                (entry, beside.copied())
            })
            .collect();
        Cast { answering, shadows }
    }

    /// 0 to 99, the same for one entry and key for ever.
    fn share(&self, entry: &EntryId, key: &str) -> u8 {
        let hash = blake3::hash(format!("{}\n{entry}\n{key}", self.id).as_bytes());
        let number = hash.as_bytes().iter().take(4).fold(0u32, |number, byte| (number << 8) | u32::from(*byte));
        u8::try_from(number % 100).unwrap_or(0)
    }

    fn open_mut(&mut self, id: &EntryId) -> Result<&mut Entry, Refused> {
        let found =
            self.entries.iter_mut().find(|entry| entry.id == *id).ok_or_else(|| Refused::NoEntry(id.clone()))?;
        if found.stage == Stage::Retired { Err(Refused::Retired(id.clone())) } else { Ok(found) }
    }

    fn add(&mut self, mut entry: Entry, at: Time) -> Result<(), Refused> {
        if self.entry(&entry.id).is_some() {
            return Err(Refused::Known(entry.id));
        }
        if self.entries.iter().filter(|entry| entry.stage != Stage::Retired).count() >= ENTRIES_MAXIMUM {
            return Err(Refused::Full);
        }
        if let Some(replaced) = &entry.replaces
            && self.entry(replaced).is_none_or(|found| found.stage != Stage::Active)
        {
            return Err(Refused::Replaces { entry: entry.id, replaced: replaced.clone() });
        }
        (entry.stage, entry.since) = (Stage::Candidate, at);
        self.entries.push(entry);
        Ok(())
    }

    fn promote(&mut self, id: &EntryId, to: Stage, proof: Proof, at: Time) -> Result<(), Refused> {
        let budget = self.budget.clone();
        let found = self.open_mut(id)?;
        let from = found.stage;
        let step = || Refused::Step { entry: id.clone(), from: from.name(), to: to.name() };
        if let Stage::Canary { percent } = to
            && !(1..=99).contains(&percent)
        {
            return Err(Refused::Share(percent));
        }
        let widened =
            matches!((from, to), (Stage::Canary { percent: was }, Stage::Canary { percent: is }) if is != was);
        if (to <= from && !widened) || matches!(to, Stage::Candidate | Stage::Retired) {
            return Err(step());
        }
        if proof.overridden.is_none()
            && let Some(missing) = missing(from, to, &proof, &budget)
        {
            return Err(Refused::Unproved { from: from.name(), to: to.name(), missing });
        }
        (found.stage, found.since) = (to, at);
        found.proofs.push(proof);
        if to == Stage::Active
            && let Some(replaced) = found.replaces.clone()
            && let Some(replaced) = self.entries.iter_mut().find(|entry| entry.id == replaced)
        {
            (replaced.stage, replaced.since) = (Stage::Retired, at);
        }
        Ok(())
    }

    fn roll_back(&mut self, id: &EntryId, quarantine: Quarantine, at: Time) -> Result<(), Refused> {
        let found = self.open_mut(id)?;
        let was = found.stage;
        (found.stage, found.since) = (Stage::Retired, at);
        found.quarantine = Some(quarantine);
        if was != Stage::Active {
            return Ok(());
        }
        // The last good version: the nearest one before it that was not taken out for failing.
        let mut before = found.replaces.clone();
        while let Some(id) = before {
            let Some(entry) = self.entries.iter_mut().find(|entry| entry.id == id) else { break };
            if entry.quarantine.is_none() {
                if entry.stage == Stage::Retired {
                    (entry.stage, entry.since) = (Stage::Active, at);
                }
                break;
            }
            before = entry.replaces.clone();
        }
        Ok(())
    }

    /// Answering first, retired last, and of the retired only the newest.
    fn settle(&mut self) {
        let (mut open, mut retired): (Vec<Entry>, Vec<Entry>) =
            self.entries.drain(..).partition(|entry| entry.stage != Stage::Retired);
        retired.sort_by_key(|entry| std::cmp::Reverse(entry.since));
        // What an open entry would fall back to stays, however old.
        let kept: BTreeSet<EntryId> = open.iter().filter_map(|entry| entry.replaces.clone()).collect();
        let mut room = RETIRED_MAXIMUM;
        retired.retain(|entry| {
            let within = room > 0;
            room = room.saturating_sub(1);
            within || kept.contains(&entry.id)
        });
        open.append(&mut retired);
        self.entries = open;
    }
}

/// What the step lacks, for a person.
fn missing(from: Stage, to: Stage, proof: &Proof, budget: &Budget) -> Option<String> {
    if matches!(proof.self_test, Some(SelfTest { failed, .. }) if failed > 0) {
        return Some("a self-test without failures".into());
    }
    let step = match (from, to) {
        (Stage::Candidate, Stage::Shadow) => None,
        (Stage::Shadow, Stage::Canary { .. }) | (Stage::Canary { .. }, Stage::Canary { .. } | Stage::Active) => {
            Some(proof.figures.as_ref())
        }
        _ => return Some("the stages between".into()),
    };
    match step {
        None => None,
        Some(Some(figures)) if figures.evaluations >= u64::from(budget.least_evaluations) => None,
        Some(figures) => Some(format!(
            "{} evaluations at the stage it leaves, of which it has {}",
            budget.least_evaluations,
            figures.map_or(0, |figures| figures.evaluations)
        )),
    }
}

/// Whether two answers to one question would lead to different deeds. Wording, confidence and small differences of a
/// score do not count.
pub fn diverges(a: &Result<Answer, Fault>, b: &Result<Answer, Fault>) -> bool {
    match (a, b) {
        (Ok(Answer::Assessment(a)), Ok(Answer::Assessment(b))) => match (a, b) {
            (Assessment::Risk(a), Assessment::Risk(b)) => a.level != b.level,
            (Assessment::Insufficient(_), Assessment::Insufficient(_)) => false,
            (Assessment::Risk(_), Assessment::Insufficient(_)) | (Assessment::Insufficient(_), Assessment::Risk(_)) => {
                true
            }
        },
        (Ok(Answer::Judgement(a)), Ok(Answer::Judgement(b))) => a.verdict != b.verdict,
        (Ok(Answer::Proposals(a)), Ok(Answer::Proposals(b))) => match (a.first(), b.first()) {
            (Some(a), Some(b)) => a.steps != b.steps,
            (None, None) => false,
            (Some(_), None) | (None, Some(_)) => true,
        },
        (Ok(Answer::Choices(a)), Ok(Answer::Choices(b))) => a.first().map(|a| &a.id) != b.first().map(|b| &b.id),
        (Err(_), Err(_)) => false,
        (Ok(Answer::Assessment(_) | Answer::Judgement(_) | Answer::Proposals(_) | Answer::Choices(_)) | Err(_), _) => {
            true
        }
    }
}

/// What decides on whose side of a canary's share a question falls.
pub fn key(question: &Question) -> String {
    let of = |subject: SubjectRef| subject.to_string();
    match question {
        Question::Score(observation) => of(observation.subject.subject()),
        Question::Plan { finding, .. } => of(finding.subject.subject()),
        Question::Judge(question) => {
            question.proposal.steps.first().map_or_else(String::new, |step| of(step.target.subject()))
        }
        Question::Route(RoutingQuestion::Placement(placement)) => of(placement.workload.subject()),
        Question::Route(RoutingQuestion::Message(message)) => format!("topic/{}", message.topic),
    }
}
