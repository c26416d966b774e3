//! The checkers, apart from the system: they know what the nodes really executed, what people approved, and what the
//! store holds at the end.

use crate::{machine::World, people::Book};
use aether_core::{
    id::{IncidentId, WorkloadId},
    incident::{Event, Resolution},
    order::{Direction, IdempotencyKey},
    plan::Plan,
};
use aether_host::store::{IncidentSummary, Store};
use std::collections::BTreeSet;

/// What the store holds of one incident.
pub(crate) struct Story {
    pub summary: IncidentSummary,
    pub events: Vec<Event>,
    pub plan: Option<Plan>,
}

pub(crate) async fn stories(store: Store) -> Result<Vec<Story>, aether_host::store::Error> {
    let mut stories = Vec::new();
    for summary in store.incidents(None, None, 10_000).await? {
        let events = store.journal(&summary.id).await?.into_iter().map(|(_, event)| event).collect();
        let plan = match &summary.plan {
            Some(hash) => store.plan(hash).await?.map(|(plan, _)| plan),
            None => None,
        };
        stories.push(Story { summary, events, plan });
    }
    stories.sort_by(|a, b| (a.summary.opened_at, &a.summary.id).cmp(&(b.summary.opened_at, &b.summary.id)));
    Ok(stories)
}

/// What the stories, the world and the book say against the system. Empty: nothing.
pub(crate) fn all(stories: &[Story], world: &World, _book: &Book, workloads: &BTreeSet<WorkloadId>) -> Vec<String> {
    let mut broken = world.broken.clone();
    for story in stories {
        ends_well(story, &mut broken);
        recovery_is_free(story, &mut broken);
    }
    for id in workloads {
        nothing_is_lost(id, stories, world, &mut broken);
    }
    broken
}

fn id(story: &Story) -> &IncidentId {
    &story.summary.id
}

/// It is over, and where a step failed it says so.
fn ends_well(story: &Story, broken: &mut Vec<String>) {
    let Some(resolution) = story.summary.resolution else {
        broken.push(format!("{} is still {} after all faults stopped", id(story), story.summary.phase));
        return;
    };
    use aether_core::order::OutcomeStatus;
    let failed = story.events.iter().any(|event| match event {
        Event::DispatchRefused { .. } => true,
        Event::Finished { outcome, .. } => outcome.status != OutcomeStatus::Succeeded,
        _ => false,
    });
    let told = matches!(resolution, Resolution::Undone | Resolution::Unknown | Resolution::Stuck | Resolution::Refused);
    if failed && !told {
        broken.push(format!("{}: a step did not succeed, and the incident ended {resolution:?}", id(story)));
    }
}

/// No limit, breaker or cooldown stands in the way of an undoing.
fn recovery_is_free(story: &Story, broken: &mut Vec<String>) {
    let Some(plan) = &story.plan else { return };
    let hash = plan.hash();
    let undoing = |key: &IdempotencyKey| {
        (0u32..)
            .zip(&plan.steps)
            .any(|(number, step)| IdempotencyKey::derive(&hash, number, Direction::Compensate, &step.target) == *key)
    };
    for event in &story.events {
        if let Event::ReservationRefused { key, code, reason } = event
            && undoing(key)
            && code != "ledger"
        {
            broken.push(format!("{}: an undoing was stopped by {code}: {reason}", id(story)));
        }
    }
}

/// Each workload runs, once; or an incident about it has called a person.
fn nothing_is_lost(workload: &WorkloadId, stories: &[Story], world: &World, broken: &mut Vec<String>) {
    let running = world.running(workload);
    if running.len() == 1 {
        return;
    }
    let called = stories.iter().any(|story| {
        let about = story.plan.iter().flat_map(|plan| &plan.steps).any(|step| step.target.id == workload.as_str());
        about && matches!(story.summary.resolution, Some(Resolution::Unknown | Resolution::Stuck))
    });
    if !called {
        broken.push(format!("{workload} runs on the nodes {running:?}, and nobody was told"));
    }
}
