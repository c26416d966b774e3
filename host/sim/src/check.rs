//! The checkers, apart from the system: they know what the nodes really executed, what people approved, and what the
//! store holds at the end.

use crate::{
    machine::{Begun, World},
    people::Book,
};
use aether_core::{
    artifact::Body,
    catalogue::verb,
    id::{IncidentId, WorkloadId},
    incident::{Event, Resolution},
    order::{Direction, IdempotencyKey, OutcomeStatus},
    plan::{Plan, PlanHash},
    subject::SubjectRef,
};
use aether_host::store::{IncidentSummary, Store};
use std::collections::{BTreeMap, BTreeSet};

/// A step that begins later than this after the last reason for it acts on an old story: five minutes that a finding may
/// be old, what people and hosts are given to approve and begin, and clocks that are wrong.
const EVIDENCE_MS: u64 = 300_000 + 60_000 + 90_000 + 2 * 40_000 + 30_000;

/// How long a message may be on its way, and what reads it be busy.
const MESSAGE_MS: u64 = 10_000;

/// What the store holds of one incident.
pub(crate) struct Story {
    pub summary: IncidentSummary,
    pub events: Vec<Event>,
    /// All that were judged.
    pub plans: Vec<Plan>,
}

pub(crate) async fn stories(store: Store) -> Result<Vec<Story>, aether_host::store::Error> {
    let mut stories = Vec::new();
    for summary in store.incidents(None, None, 10_000).await? {
        let events = store.journal(&summary.id).await?.into_iter().map(|(_, event)| event).collect();
        let mut plans = Vec::new();
        for artifact in store.artifacts(&summary.id).await? {
            if let Body::ExecutionPlan { plan, .. } = artifact.body {
                plans.push(plan);
            }
        }
        stories.push(Story { summary, events, plans });
    }
    stories.sort_by(|a, b| (a.summary.opened_at, &a.summary.id).cmp(&(b.summary.opened_at, &b.summary.id)));
    Ok(stories)
}

/// What the stories, the world and the book say against the system. Empty: nothing.
pub(crate) fn all(stories: &[Story], world: &World, book: &Book, workloads: &BTreeSet<WorkloadId>) -> Vec<String> {
    let mut broken = world.broken.clone();
    for story in stories {
        ends_well(story, world, &mut broken);
        recovery_is_free(story, world, &mut broken);
    }
    reserved_alone(stories, world, &mut broken);
    one_after_the_other(world, &mut broken);
    for begun in &world.begun {
        on_fresh_evidence(begun, stories, book, &mut broken);
        not_called_off(begun, stories, book, &mut broken);
    }
    for id in workloads {
        nothing_is_lost(id, stories, world, &mut broken);
    }
    broken
}

fn id(story: &Story) -> &IncidentId {
    &story.summary.id
}

/// It is over, and where a step failed it says so: as the node that did the step knows it, whatever it told.
fn ends_well(story: &Story, world: &World, broken: &mut Vec<String>) {
    let Some(resolution) = story.summary.resolution else {
        broken.push(format!("{} is still {} after all faults stopped", id(story), story.summary.phase));
        return;
    };
    let failed = story.events.iter().any(|event| match event {
        Event::DispatchRefused { .. } => true,
        Event::Finished { outcome, .. } => outcome.status != OutcomeStatus::Succeeded,
        Event::Reserved { key, .. } => world.ended.get(key).is_some_and(|ended| *ended != OutcomeStatus::Succeeded),
        _ => false,
    });
    let told = matches!(resolution, Resolution::Undone | Resolution::Unknown | Resolution::Stuck | Resolution::Refused);
    if failed && !told {
        broken.push(format!("{}: a step did not succeed, and the incident ended {resolution:?}", id(story)));
    }
}

/// No limit, breaker or cooldown stands in the way of an undoing, at the host or at an agent.
fn recovery_is_free(story: &Story, world: &World, broken: &mut Vec<String>) {
    for plan in &story.plans {
        let hash = plan.hash();
        let undoing = |key: &IdempotencyKey| {
            (0u32..).zip(&plan.steps).any(|(number, step)| {
                IdempotencyKey::derive(&hash, number, Direction::Compensate, &step.target) == *key
            })
        };
        for event in &story.events {
            if let Event::ReservationRefused { key, code, reason } = event
                && undoing(key)
            {
                broken.push(format!("{}: an undoing was stopped by {code}: {reason}", id(story)));
            }
        }
        for (_, code) in world.refused.iter().filter(|(key, _)| undoing(key)) {
            broken.push(format!("{}: an undoing was stopped at its agent by {code}", id(story)));
        }
    }
}

fn reserves(story: &Story, begun: &Begun) -> bool {
    story.events.iter().any(|event| matches!(event, Event::Reserved { key, .. } if *key == begun.key))
}

/// Whatever ran had been reserved, by one incident.
fn reserved_alone(stories: &[Story], world: &World, broken: &mut Vec<String>) {
    for begun in &world.begun {
        let by = stories.iter().filter(|story| reserves(story, begun)).count();
        if by != 1 {
            broken.push(format!("{} of {} ran, reserved by {by} incidents", begun.verb, begun.subject));
        }
    }
}

/// On one target one plan is carried out after the other, and none goes on once another has begun.
fn one_after_the_other(world: &World, broken: &mut Vec<String>) {
    let mut over: BTreeSet<(&SubjectRef, &PlanHash)> = BTreeSet::new();
    let mut last: BTreeMap<&SubjectRef, &PlanHash> = BTreeMap::new();
    for begun in &world.begun {
        if let Some(before) = last.insert(&begun.subject, &begun.plan)
            && *before != begun.plan
        {
            over.insert((&begun.subject, before));
        }
        if over.contains(&(&begun.subject, &begun.plan)) {
            let plan = begun.plan.short();
            broken.push(format!("{} of plan {plan} on {} went on after another had begun", begun.verb, begun.subject));
        }
    }
}

/// Nobody begins to act on a node that has been well for long.
fn on_fresh_evidence(begun: &Begun, stories: &[Story], book: &Book, broken: &mut Vec<String>) {
    let plans = stories.iter().flat_map(|story| &story.plans);
    let Some(plan) = plans.into_iter().find(|plan| plan.hash() == begun.plan) else { return };
    let first = plan.key(0, Direction::Forward).is_some_and(|key| key == begun.key);
    if first && !book.had_reason(&plan.shape.subject.id, begun.at, EVIDENCE_MS) {
        let what = format!("{} of {} began at {}", begun.verb, begun.subject, begun.at);
        broken.push(format!("{what}, long after there was a reason to act on {}", plan.shape.subject));
    }
}

/// What makes or takes a copy does not begin any more once its plan was called off, however late the order comes. What
/// was on its way may: so long as a message takes at most.
fn not_called_off(begun: &Begun, stories: &[Story], book: &Book, broken: &mut Vec<String>) {
    let copies = [verb::CHECKPOINT, verb::RESTORE].contains(&begun.verb.as_str());
    let of = stories.iter().find(|story| reserves(story, begun));
    let called_off = of.and_then(|story| book.called_off.get(&(id(story).clone(), begun.plan.clone())));
    if let Some(called_off) = called_off.filter(|at| copies && begun.at > **at + MESSAGE_MS) {
        let (what, plan) = (format!("{} of {}", begun.verb, begun.subject), begun.plan.short());
        broken.push(format!("{what} began at {}, and its plan {plan} was called off at {called_off}", begun.at));
    }
}

/// Each workload runs, once; or an incident about it has called a person.
fn nothing_is_lost(workload: &WorkloadId, stories: &[Story], world: &World, broken: &mut Vec<String>) {
    let running = world.running(workload);
    if running.len() == 1 {
        return;
    }
    // Whoever touched it last must have called somebody.
    let touched = world.begun.iter().rev().find(|begun| begun.subject.id == workload.as_str());
    let story = touched.and_then(|begun| stories.iter().find(|story| reserves(story, begun)));
    let called =
        story.is_some_and(|story| matches!(story.summary.resolution, Some(Resolution::Unknown | Resolution::Stuck)));
    if !called {
        broken.push(format!("{workload} runs on the nodes {running:?}, and nobody was told"));
    }
}
