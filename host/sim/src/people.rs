//! People: they look at what waits for them and approve it, deny it, change their minds, are late, or mistake one plan
//! for another. The book keeps what they did, beside the system's own.

use crate::{
    dice::{Rng, happens},
    shared::{Mutation, Shared},
};
use aether_core::{
    audit::Act,
    id::{IncidentId, PrincipalId},
    incident::{Approval, Rank},
    plan::PlanHash,
    time::Time,
};
use aether_host::{
    control::Control,
    store::{IncidentSummary, Store},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// What people did and what is wrong in the world, as those know it who did it.
#[derive(Default)]
pub(crate) struct Book {
    /// Who said yes to exactly this plan, with the rank for it, in which incident: a later one about the same trouble may
    /// have the same plan. Noted before it is said: the host may die meanwhile.
    approved: BTreeMap<PlanHash, BTreeMap<IncidentId, BTreeSet<PrincipalId>>>,
    /// How many must have. None: plans run by themselves.
    pub approvers: Option<u32>,
    /// When an incident's plan was called off in the middle, and the host had taken that. Another incident may have the
    /// same plan, and the same one another plan after a relapse, and people may want it then.
    pub called_off: BTreeMap<(IncidentId, PlanHash), u64>,
    /// Nodes that are in trouble, and until when.
    trouble: BTreeMap<String, u64>,
    /// When there was a reason to act on a node: trouble, or a false alarm of whoever scores.
    reasons: Vec<(String, u64)>,
}

impl Book {
    /// Why a plan may not run; none if it may.
    pub(crate) fn not_approved(&self, plan: &PlanHash) -> Option<String> {
        let needed = usize::try_from(self.approvers?).unwrap_or(usize::MAX);
        let given =
            self.approved.get(plan).into_iter().flat_map(BTreeMap::values).map(BTreeSet::len).max().unwrap_or(0);
        (given < needed).then(|| format!("with {given} of {needed} approvals of its plan {}", plan.short()))
    }

    pub(crate) fn begin_trouble(&mut self, node: &str, until: u64) {
        self.trouble.insert(node.into(), until);
    }

    pub(crate) fn end_trouble(&mut self, now: u64) {
        self.trouble.retain(|_, until| *until > now);
    }

    /// There is a reason to act on a node now.
    pub(crate) fn reason(&mut self, node: &str, now: u64) {
        let known = self.reasons.iter_mut().rev().find(|(known, at)| known == node && now.saturating_sub(*at) <= 1_000);
        match known {
            Some((_, at)) => *at = now,
            None => self.reasons.push((node.into(), now)),
        }
    }

    /// Whether there was one within `within` before `at`.
    pub(crate) fn had_reason(&self, node: &str, at: u64, within: u64) -> bool {
        self.reasons.iter().any(|(known, last)| known == node && *last + within >= at)
    }

    pub(crate) fn in_trouble(&self, node: &str) -> bool {
        self.trouble.contains_key(node)
    }
}

/// One look at what waits.
pub(crate) async fn look(shared: Arc<Shared>, control: Control, store: Store, mut dice: Rng) {
    reset_breakers(&shared, &control, &mut dice).await;
    let Ok(open) = store.incidents(Some(true), None, 50).await else { return };
    asked_once(&shared, &open);
    for acting in open.iter().filter(|incident| incident.phase == "executing") {
        call_off(&shared, &control, acting, &mut dice).await;
    }
    for waiting in open.into_iter().filter(|incident| incident.phase == "awaiting_approval") {
        let Some(plan) = waiting.plan else { continue };
        let person = PrincipalId(format!("person-{}", dice.u8(1..=3)));
        let rank = if happens(&mut dice, 0.9) { Rank::Approver } else { Rank::Viewer };
        let comment = happens(&mut dice, 0.8).then(|| "looked at it".to_string());
        let mut word = Approval { plan, by: person, rank, at: Time(0), approved: true, comment, break_glass: None };
        let choice = dice.u8(0..100);
        let (what, done) = match choice {
            0..=69 => {
                if word.rank >= Rank::Approver {
                    let mut book = shared.book();
                    let of_plan = book.approved.entry(word.plan.clone()).or_default();
                    of_plan.entry(waiting.id.clone()).or_default().insert(word.by.clone());
                }
                ("approves", control.approve(&waiting.id, word.clone()).await)
            }
            70..=79 => {
                if !shared.is_broken(Mutation::TakesAnyHash) {
                    word.plan = PlanHash(blake3::hash(word.plan.0.as_bytes()).to_hex().to_string());
                }
                ("approves another plan", control.approve(&waiting.id, word.clone()).await)
            }
            80..=84 => {
                word.approved = false;
                ("denies", control.deny(&waiting.id, word.clone()).await)
            }
            85..=89 => ("withdraws", control.withdraw(&waiting.id, &word.plan, &word.by, None).await),
            _ => continue,
        };
        if what == "withdraws"
            && done.is_ok()
            && let Some(given) =
                shared.book().approved.get_mut(&word.plan).and_then(|of_plan| of_plan.get_mut(&waiting.id))
        {
            given.remove(&word.by);
        }
        let came = done.map_or_else(|error| error.to_string(), |()| "taken".to_string());
        shared.note(format!("{} ({}) {what} of {}: {came}", word.by, word.rank.name(), waiting.id));
    }
}

/// Nobody is asked twice about one trouble.
fn asked_once(shared: &Shared, open: &[IncidentSummary]) {
    let mut about = BTreeMap::new();
    for incident in open {
        if let Some(other) = about.insert((&incident.shape.subject, &incident.shape.cause), &incident.id) {
            let of = format!("{} of {}", incident.shape.cause, incident.shape.subject);
            shared.world().broken.push(format!("{other} and {} are open at once about {of}", incident.id));
        }
    }
}

/// Somebody thinks better of what is being done.
async fn call_off(shared: &Shared, control: &Control, acting: &IncidentSummary, dice: &mut Rng) {
    let Some(plan) = &acting.plan else { return };
    if !happens(dice, 0.2) {
        return;
    }
    let person = PrincipalId(format!("person-{}", dice.u8(1..=3)));
    let called = control.call_off(&acting.id, plan, &person, Rank::Operator, "thought better of it".into()).await;
    if called.is_ok() {
        shared.book().called_off.insert((acting.id.clone(), plan.clone()), shared.now());
    }
    let came = called.map_or_else(|error| error.to_string(), |()| "taken".to_string());
    shared.note(format!("{person} calls {} off: {came}", acting.id));
}

/// Somebody looks at the breakers that are open, and closes them again.
async fn reset_breakers(shared: &Shared, control: &Control, dice: &mut Rng) {
    for breaker in control.breakers().into_iter().filter(|breaker| breaker.opened_at.is_some()) {
        if happens(dice, 0.3) {
            let act = Act::by_itself("breaker.reset", format!("breaker/{}", breaker.scope), BTreeMap::new());
            let reset = control.reset_breaker(&breaker.scope, act).await;
            shared.note(format!("somebody resets the breaker {}: {}", breaker.scope, reset.is_ok()));
        }
    }
}
