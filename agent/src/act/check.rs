//! Whether an order may be carried out here. Pure: what is known comes in, a refusal or the order's meaning comes out.
//!
//! Verb, target and arguments come from the plan that was hashed and approved, never from the order itself, so that
//! nothing that an approver saw can differ from what is done.

use crate::workloads::{Entry, State};
use aether_core::{
    catalogue::{self, Standing, verb},
    decision::Condition,
    id::{NodeId, WorkloadId},
    order::{Direction, IdempotencyKey, Order, Provenance},
    plan::{Plan, PlanHash},
    subject::{SubjectKind, Target},
    telemetry::Sample,
    time::Time,
    value::Value,
};
use aether_proto::v1;
use ed25519_dalek::{Signature, VerifyingKey};
use std::collections::BTreeMap;
use thiserror::Error;

/// What an order's `inputs` must bring for a restore.
pub const MANIFEST: &str = "manifest";

/// Why nothing was done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{code}: {reason}")]
pub struct Refusal {
    /// Stable; listed in `docs/agent.md`.
    pub code: &'static str,
    pub reason: String,
}

pub(crate) fn refuse<T>(code: &'static str, reason: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { code, reason: reason.into() })
}

/// An order whose words are in order: signed by the host, of the plan that it names, and for this node.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    pub order: Order,
    pub verb: String,
    pub target: Target,
    pub workload: WorkloadId,
    pub arguments: BTreeMap<String, Value>,
    pub preconditions: Vec<Condition>,
    pub timeout_ms: u64,
    pub dry_run: bool,
    /// An earlier step of the plan drains the target.
    pub drained_before: bool,
    /// Of the step's forward side: what a compensation undoes.
    pub forward: IdempotencyKey,
}

/// The key that a dispatch names, for an answer; nothing about it has been checked.
pub fn claimed_key(dispatch: &v1::Dispatch) -> String {
    let order: Option<Order> = serde_json::from_slice(&dispatch.order).ok();
    order.map(|order| order.key.0).unwrap_or_default()
}

/// Checks what does not depend on the time or on what is here.
pub fn read(dispatch: &v1::Dispatch, host_key: Option<&VerifyingKey>, node: &NodeId) -> Result<Task, Refusal> {
    let v1::Dispatch { plan, order, signature } = dispatch;
    let Some(host_key) = host_key else {
        return refuse("order.signature", "this agent has not joined a host, so no key is pinned");
    };
    let signature = Signature::from_slice(signature);
    let signed = [Order::DOMAIN, order].concat();
    let good = signature.is_ok_and(|signature| host_key.verify_strict(&signed, &signature).is_ok());
    if !good {
        return refuse("order.signature", "the order is not signed by the host that this agent joined");
    }
    meaning(plan, order, node)
}

/// What the bytes of an order say, once its signature has been checked.
pub fn meaning(plan_bytes: &[u8], order_bytes: &[u8], node: &NodeId) -> Result<Task, Refusal> {
    let order: Order = match serde_json::from_slice(order_bytes) {
        Ok(order) => order,
        Err(error) => return refuse("order.malformed", format!("the order cannot be read: {error}")),
    };
    if aether_core::plan::canonical(&order) != order_bytes {
        return refuse("order.malformed", "the order's bytes are not its canonical form");
    }
    let hash = PlanHash::of_canonical(plan_bytes);
    if hash != order.plan {
        let reason =
            format!("the order names the plan {}, but the plan with it is {}", order.plan.short(), hash.short());
        return refuse("order.plan-hash", reason);
    }
    let plan = match Plan::from_canonical(plan_bytes) {
        Ok(plan) => plan,
        Err(error) => return refuse("order.plan", error.to_string()),
    };
    if plan.schema_version != Plan::SCHEMA_VERSION {
        return refuse("order.plan", format!("plans of schema version {} are not known here", plan.schema_version));
    }
    if order.node != *node {
        return refuse("order.node", format!("the order is for `{}`, and this is `{node}`", order.node));
    }
    let step = usize::try_from(order.step).ok().and_then(|index| plan.steps.get(index));
    let Some(step) = step else {
        return refuse("order.step", format!("the plan has no step {}", order.step));
    };
    let (name, step_node, arguments) = match (order.direction, &step.compensation) {
        (Direction::Forward, _) => (&step.verb, &step.node, &step.arguments),
        (Direction::Compensate, Some(undo)) => (&undo.verb, &undo.node, &undo.arguments),
        (Direction::Compensate, None) => {
            return refuse("order.verb", format!("step {} of the plan has no undoing", order.step));
        }
    };
    if step_node != node {
        let reason = format!("step {} of the plan is for `{step_node}`, and this is `{node}`", order.step);
        return refuse("order.node", reason);
    }
    if order.target != step.target {
        let reason =
            format!("the order is for {}, and step {} of the plan for {}", order.target, order.step, step.target);
        return refuse("order.target", reason);
    }
    if order.decided_by != Provenance::of(&plan) {
        return refuse("order.provenance", "the order names other components or another policy than its plan");
    }
    let found = catalogue::find(name).ok().filter(|found| found.standing != Standing::Composite);
    let Some(found) = found else {
        return refuse("order.verb", format!("this agent does not know how to do `{name}`"));
    };
    if let Err(error) = found.verb.check(arguments) {
        return refuse("order.arguments", error.to_string());
    }
    if step.target.kind != found.target {
        let kind = found.target.name();
        return refuse("order.target", format!("`{name}` is for a {kind}, and the target is {}", step.target));
    }
    if order.key != IdempotencyKey::derive(&hash, order.step, order.direction, &step.target) {
        return refuse("order.key", "the order's key is not that of its plan, step, direction and target");
    }
    let timeout_ms = match arguments.get(catalogue::argument::TIMEOUT) {
        Some(Value::Duration(ms)) => *ms,
        _ => aether_core::plan::STEP_TIMEOUT_DEFAULT_MS,
    };
    let mut earlier = plan.steps.iter().take(usize::try_from(order.step).unwrap_or_default());
    let drained_before = earlier.any(|earlier| earlier.verb == verb::DRAIN && earlier.target == step.target);
    Ok(Task {
        verb: name.clone(),
        target: step.target.clone(),
        workload: WorkloadId(step.target.id.clone()),
        arguments: arguments.clone(),
        preconditions: if order.direction == Direction::Forward { step.preconditions.clone() } else { vec![] },
        timeout_ms,
        dry_run: plan.dry_run,
        drained_before,
        forward: IdempotencyKey::derive(&hash, order.step, Direction::Forward, &step.target),
        order,
    })
}

/// What is here, at the moment when an order comes.
pub struct Here<'a> {
    pub now: Time,
    /// The newest lease of a host that is known here.
    pub lease: u64,
    /// The highest fence that was taken for the target.
    pub fence: u64,
    pub entry: Option<&'a Entry>,
    /// The highest generation of the workload that is known here.
    pub generation: Option<u64>,
    /// This node's, as the host last said.
    pub node_generation: Option<u64>,
    /// The last sample that this agent took of a metric, if it takes it.
    pub latest: &'a dyn Fn(&Condition) -> Option<Sample>,
}

/// Checks what depends on the time and on what is here.
pub fn admit(task: &Task, here: &Here<'_>) -> Result<(), Refusal> {
    let Here { now, lease, fence, entry, generation, node_generation, latest } = here;
    let order = &task.order;
    if *now > order.execute_by {
        let late_ms = now.since_ms(order.execute_by);
        return refuse(
            "order.expired",
            format!("it was to begin {late_ms} ms ago at the latest, by this machine's clock"),
        );
    }
    if order.lease < *lease {
        let reason = format!(
            "it was sent under the lease {}, and {lease} is known here: another host is in charge",
            order.lease
        );
        return refuse("order.lease", reason);
    }
    if order.fence < *fence {
        let reason =
            format!("its fence is {}, and {fence} was seen for this target: a newer host is in charge", order.fence);
        return refuse("order.fence", reason);
    }
    match task.target.kind {
        SubjectKind::Workload => check_target(task, *entry, *generation)?,
        SubjectKind::Node | SubjectKind::Gpu | SubjectKind::Pool | SubjectKind::Participant => {
            check_place(task, *node_generation)?;
        }
    }
    for condition in &task.preconditions {
        let Some(sample) = latest(condition) else { continue };
        let old_ms = now.since_ms(sample.at);
        let what = || format!("{} of {}", condition.metric, condition.target.subject());
        if old_ms > condition.fresh_within_ms {
            let reason = format!("{} was last seen {old_ms} ms ago, and must be fresher", what());
            return refuse("order.precondition", reason);
        }
        let ahead_ms = sample.at.since_ms(*now);
        if ahead_ms > condition.fresh_within_ms {
            let reason = format!("{} was last seen {ahead_ms} ms in the future: the clock was put back since", what());
            return refuse("order.precondition", reason);
        }
        let low = condition.minimum.is_some_and(|minimum| sample.value < minimum);
        let high = condition.maximum.is_some_and(|maximum| sample.value > maximum);
        if low || high {
            return refuse("order.precondition", format!("{} is {}, out of the plan's bounds", what(), sample.value));
        }
    }
    Ok(())
}

/// A node, or a part of one: it must be this, and as old. Only one that is to be woken is another; how old that one is
/// cannot be seen from here.
fn check_place(task: &Task, generation: Option<u64>) -> Result<(), Refusal> {
    let Task { target, .. } = task;
    if task.verb == verb::WAKE {
        let own = target.id == task.order.node.as_str();
        return if own { refuse("order.target", "this node is awake: it took the order") } else { Ok(()) };
    }
    let node = match target.kind {
        SubjectKind::Gpu => target.id.split_once('/').map(|(node, _)| node),
        SubjectKind::Node => Some(target.id.as_str()),
        SubjectKind::Workload | SubjectKind::Pool | SubjectKind::Participant => None,
    };
    if node != Some(task.order.node.as_str()) {
        return refuse("target.missing", format!("{} is not under this agent", target.subject()));
    }
    match generation {
        Some(found) if found == target.generation => Ok(()),
        Some(found) => {
            let wanted = target.generation;
            refuse("order.generation", format!("this node is of generation {found}, and the order needs {wanted}"))
        }
        None => refuse("order.generation", "the host has not yet said of which generation this node is"),
    }
}

fn check_target(task: &Task, entry: Option<&Entry>, known: Option<u64>) -> Result<(), Refusal> {
    let Task { target, .. } = task;
    let name = target.subject();
    let here = |wanted: u64| match entry {
        None => refuse("target.missing", format!("{name} is not under this agent")),
        Some(entry) if entry.generation != wanted => {
            let found = entry.generation;
            refuse("order.generation", format!("{name} is of generation {found} here, and the order needs {wanted}"))
        }
        Some(entry) => Ok(entry),
    };
    match task.verb.as_str() {
        verb::CHECKPOINT => match here(target.generation)?.state {
            State::Running => Ok(()),
            State::Stopped => refuse("workload.state", format!("{name} is stopped, so there is nothing to move")),
            State::Exited => refuse("workload.state", format!("{name} has ended, so there is nothing to move")),
        },
        verb::RESUME => here(target.generation).map(|_| ()),
        verb::FREEZE | verb::THAW | verb::LIMIT | verb::UNLIMIT | verb::SIGNAL | verb::TERMINATE => {
            match here(target.generation)?.state {
                State::Running | State::Stopped => Ok(()),
                State::Exited => refuse("workload.state", format!("{name} has ended")),
            }
        }
        verb::RETIRE => match here(target.generation)?.state {
            State::Running if !task.dry_run => {
                refuse("workload.state", format!("{name} runs here: only a stopped source is retired"))
            }
            State::Running | State::Stopped | State::Exited => Ok(()),
        },
        verb::RESTORE => {
            if let Some(known) = known.filter(|known| target.generation < *known) {
                let reason = format!(
                    "generation {known} of {name} was here already, and the order restores from {}",
                    target.generation
                );
                return refuse("order.generation", reason);
            }
            if entry.is_some_and(|entry| entry.state != State::Exited) {
                return refuse("workload.state", format!("{name} is under this agent already"));
            }
            if !task.dry_run && !task.order.inputs.contains_key(MANIFEST) {
                return refuse("order.inputs", "the order does not say which snapshot to restore");
            }
            Ok(())
        }
        // It is about no workload that is here; what it reads must be what its plan names.
        verb::RESTORE_DRILL => {
            let named = task.arguments.get(catalogue::argument::MANIFEST).and_then(Value::as_text);
            if named.is_some() && named == task.order.inputs.get(MANIFEST).map(String::as_str) {
                return Ok(());
            }
            refuse("order.inputs", "the order names another snapshot than its plan")
        }
        verb::CONFIRM if task.dry_run => Ok(()),
        verb::CONFIRM => here(target.generation + 1).map(|_| ()),
        // What is not here needs no discarding, and saying so is the outcome.
        verb::DISCARD if entry.is_none() => Ok(()),
        verb::DISCARD => here(target.generation + 1).map(|_| ()),
        other => refuse("order.verb", format!("this agent does not know how to do `{other}`")),
    }
}

#[cfg(test)]
mod tests;
