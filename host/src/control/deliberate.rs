//! What planners, routers and gates are asked about an incident, and with what they are told of the world.

use super::{Control, ask, observe};
use crate::{
    clock,
    fabric::{Glimpse, fact_of_label},
};
use aether_core::{
    artifact::SummaryEvent,
    catalogue, combine,
    decision::{
        Answer, BlastRadius, Candidate, Envelope, Fault, FaultKind, GateQuestion, Placement, PlanningFinding, Question,
        Role, RoutingQuestion,
    },
    id::{DecisionId, Digest, IncidentId, NodeId, WorkloadId},
    incident::{Context, Event, GateAnswer, GateContext, Incident, PlannerAnswer, Rung, Tried},
    metric,
    observation::{Input, Observation},
    plan::{Forecast, PlanHash, Resolved, World, forecast},
    subject::{Subject, SubjectKind, SubjectRef},
    time::Time,
};
use std::collections::{BTreeMap, BTreeSet};

/// Recent actions that gates are told of, and how far back.
const RECENT_MAXIMUM: u32 = 50;
const RECENT_WINDOW_MS: u64 = 86_400_000;
/// Nodes that planners are shown as places to go, the best of those that the routers ranked.
const PLANNED_MAXIMUM: usize = 16;

/// When the provider takes the incident's node back, if it was told. One that is there after that time was spared.
fn leaves_at(incident: &Incident) -> Option<Time> {
    let deadline = |event: &SummaryEvent| event.attributes.get("deadline")?.parse().ok().map(Time);
    incident.opening.events.iter().filter_map(deadline).min()
}

impl Control {
    pub(super) async fn plan(&self, incident: Incident) {
        if let Some(requested) = &incident.opening.requested {
            let event = self.as_requested(requested);
            self.feed(&incident.id, event, vec![]).await;
            return;
        }
        let at = clock::now();
        let mut envelopes = Vec::new();
        let mut candidates = self.candidates(&incident, at, &mut envelopes).await;
        candidates.truncate(PLANNED_MAXIMUM);
        let world = self.world(&incident, &candidates, at).await;
        let tried = self.tried(&incident, at).await;
        let finding = PlanningFinding {
            id: incident.id.0.clone(),
            subject: incident.opening.subject.clone(),
            risk: incident.opening.finding.risk.clone(),
            first_seen: incident.opening.finding.first_seen,
            recurrences: incident.recurrences,
            attempts: u32::try_from(tried.len()).unwrap_or(u32::MAX),
            workloads: self.workloads_on(&incident),
        };
        let mut answers = Vec::new();
        let question = |inputs: &[Input]| {
            let evidence = self.observation(&incident.opening.subject, inputs, at);
            let candidates = candidates
                .iter()
                .map(|node| Candidate { node: node.clone(), free: vec![self.observation(node, inputs, at)] })
                .collect();
            let catalogue = catalogue::catalogue_with(&world.runbooks);
            Question::Plan { finding: finding.clone(), evidence, candidates, catalogue }
        };
        for panel in self.0.panels.of(Role::RemediationPlanner) {
            for envelope in panel.ask(at, &question).await {
                let outcome = ask::outcome(&envelope, |answer| match answer {
                    Answer::Proposals(proposals) => Some(proposals.clone()),
                    Answer::Assessment(_) | Answer::Judgement(_) | Answer::Choices(_) => None,
                });
                answers.push(PlannerAnswer { by: ask::context(&envelope), outcome });
                envelopes.push(envelope);
            }
        }
        let tried = self.rungs(tried).await;
        let event = Event::Proposed { answers, world, posture: self.0.posture.clone(), tried };
        self.feed(&incident.id, event, envelopes).await;
    }

    /// What runs on the incident's subject now, if it is a node.
    fn workloads_on(&self, incident: &Incident) -> Vec<Subject> {
        let node = NodeId(incident.opening.subject.id.clone());
        let mut workloads = self.0.fabric.node(&node).map(|node| observe::workload_subjects(&node)).unwrap_or_default();
        for workload in &mut workloads {
            let samples = self.0.recorder.latest(&workload.subject(), metric::PROCESS_MEMORY);
            if let Some((_, newest)) = samples.into_iter().max_by_key(|(_, sample)| sample.at) {
                workload.labels.insert("memory-bytes".into(), format!("{:.0}", newest.value));
            }
        }
        workloads
    }

    /// The plans that were begun on this trouble before, within the guard's window.
    async fn tried(&self, incident: &Incident, at: Time) -> Vec<PlanHash> {
        match self.0.store.attempts(at.minus_ms(self.0.attempt_window_ms)).await {
            Ok(attempts) => {
                let same = attempts.into_iter().filter(|attempt| attempt.shape == incident.shape);
                same.map(|attempt| attempt.plan).collect()
            }
            Err(error) => {
                tracing::error!(incident.id = %incident.id, error = &error as &dyn std::error::Error,
                    "earlier attempts could not be counted; the guard counts its own");
                vec![]
            }
        }
    }

    /// The rungs that these plans stood on, by the verbs of their steps.
    async fn rungs(&self, plans: Vec<PlanHash>) -> Tried {
        let mut rungs: Vec<Rung> = Vec::new();
        for hash in plans {
            let plan = match self.0.store.plan(&hash).await {
                Ok(Some((plan, _))) => plan,
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(plan.hash = %hash, error = &error as &dyn std::error::Error,
                        "an earlier plan could not be read; it does not count for its rung");
                    continue;
                }
            };
            let verbs: Vec<String> = plan.steps.into_iter().map(|step| step.verb).collect();
            match rungs.iter_mut().find(|rung| rung.verbs == verbs) {
                Some(rung) => rung.attempts = rung.attempts.saturating_add(1),
                None => rungs.push(Rung { verbs, attempts: 1 }),
            }
        }
        Tried { rungs, per_rung: self.0.attempts_per_rung }
    }

    /// What a proposal can name: what the planners are shown of the fleet, and what policy has. It goes into the
    /// incident's journal, so it does not grow with the fleet.
    async fn world(&self, incident: &Incident, candidates: &[Subject], at: Time) -> World {
        let shown: BTreeSet<&str> =
            candidates.iter().map(|node| &*node.id).chain([&*incident.opening.subject.id]).collect();
        let mut sleepers = 0;
        let mut world = self.0.fabric.world_of(|node| {
            sleepers += u32::from(node.asleep);
            shown.contains(node.id.as_str()) || (node.asleep && sleepers <= self.0.settings.candidates)
        });
        world.workloads.retain(|_, workload| shown.contains(workload.node.as_str()));
        world.runbooks = self.0.panels.runbooks().known().clone();
        let node = NodeId(incident.opening.subject.id.clone());
        if let Some(known) = world.nodes.get_mut(&node) {
            known.leaves_in_ms = leaves_at(incident).filter(|gone| *gone > at).map(|gone| gone.since_ms(at));
        }
        for (id, known) in world.workloads.iter_mut().filter(|(_, known)| known.node == node) {
            known.forecast = self.forecast(id, &node).await;
        }
        world
    }

    /// What a checkpoint of a workload would take on its node.
    async fn forecast(&self, workload: &WorkloadId, node: &NodeId) -> Option<Forecast> {
        let subject = SubjectRef { kind: SubjectKind::Workload, id: workload.0.clone() };
        let samples = self.0.recorder.latest(&subject, metric::PROCESS_MEMORY);
        let (_, newest) = samples.into_iter().max_by_key(|(_, sample)| sample.at)?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates; a size in bytes")]
        let bytes = newest.value as u64;
        match self.0.store.checkpoints(node).await {
            Ok(taken) => forecast::forecast(&taken, bytes),
            Err(error) => {
                tracing::warn!(node.id = %node, error = &error as &dyn std::error::Error,
                    "what checkpoints took could not be read; none is foretold");
                None
            }
        }
    }

    /// Other live nodes that take work, best first as the routers rank them; those that no router named come last. Of a
    /// fleet with many, a draw of `control.candidates`.
    async fn candidates(&self, incident: &Incident, at: Time, envelopes: &mut Vec<Envelope>) -> Vec<Subject> {
        let is_open = |node: &Glimpse<'_>| node.live && node.takes_work() && node.id.0 != incident.opening.subject.id;
        let open = self.0.fabric.survey(|nodes| nodes.filter(is_open).map(|node| node.id.clone()).collect());
        let most = usize::try_from(self.0.settings.candidates).unwrap_or(usize::MAX);
        let drawn = drawn(open, &incident.id, most).into_iter();
        let others: Vec<_> =
            drawn.filter_map(|node| self.0.fabric.node(&node)).map(|node| observe::node_subject(&node)).collect();
        if others.is_empty() {
            return others;
        }
        let workload =
            self.workloads_on(incident).into_iter().next().unwrap_or_else(|| incident.opening.subject.clone());
        let mut answers = Vec::new();
        let question = |inputs: &[Input]| {
            let nodes: Vec<Observation> = others.iter().map(|node| self.observation(node, inputs, at)).collect();
            let placement = Placement { workload: workload.clone(), needs: BTreeMap::new(), nodes };
            Question::Route(RoutingQuestion::Placement(placement))
        };
        for panel in self.0.panels.of(Role::Router) {
            for envelope in panel.ask(at, &question).await {
                let outcome = ask::outcome(&envelope, |answer| match answer {
                    Answer::Choices(choices) => Some(choices.clone()),
                    Answer::Assessment(_) | Answer::Judgement(_) | Answer::Proposals(_) => None,
                });
                answers.extend(outcome.ok());
                envelopes.push(envelope);
            }
        }
        let ranked = combine::choices(answers);
        let place = |id: &str| ranked.iter().position(|choice| choice.id == id).unwrap_or(usize::MAX);
        let mut others = others;
        others.sort_by_key(|node| (place(&node.id), node.id.clone()));
        others
    }

    pub(super) async fn judge(&self, incident: Incident) {
        let (Some(resolved), Some(proposal)) = (incident.resolved.clone(), incident.proposal.clone()) else { return };
        let at = clock::now();
        let blast = self.0.fabric.survey(|nodes| blast(&resolved, nodes));
        let targets: Vec<_> = resolved.steps.iter().map(|step| step.target.clone()).collect();
        let since = at.minus_ms(RECENT_WINDOW_MS);
        let recent = self.0.store.recent_activity(&targets, since, RECENT_MAXIMUM).await;
        let parent = self.0.store.last_begun_plan(&incident.shape).await;
        let (recent, parent) = match (recent, parent) {
            (Ok(recent), Ok(parent)) => (recent, parent),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(incident.id = %incident.id, error = &error as &dyn std::error::Error,
                    "the ledger could not be read; the gates are asked again");
                if let Some(live) = self.find(&incident.id) {
                    live.lock().await.again = true;
                }
                return;
            }
        };
        let dry_run = self.0.posture.makes_dry(resolved.class);
        let mut answers = Vec::new();
        let mut envelopes = Vec::new();
        let question = |_: &[Input]| {
            Question::Judge(GateQuestion {
                at,
                utc_offset_minutes: self.0.settings.utc_offset_minutes,
                proposal: proposal.clone(),
                risk: incident.opening.finding.risk.clone(),
                class: resolved.class,
                blast: blast.clone(),
                recent: recent.clone(),
                dry_run,
            })
        };
        // The plan names the very policy under which it is judged.
        let (in_force, bundle) = self.0.panels.in_force();
        for panel in in_force.iter().filter(|panel| panel.role() == Role::PolicyGate) {
            for envelope in panel.ask(at, &question).await {
                let outcome = ask::outcome(&envelope, |answer| match answer {
                    Answer::Judgement(judgement) => Some(judgement.clone()),
                    Answer::Assessment(_) | Answer::Proposals(_) | Answer::Choices(_) => None,
                });
                answers.push(GateAnswer { by: ask::context(&envelope), outcome });
                envelopes.push(envelope);
            }
            // A gate that could not be activated is not asked, and its silence denies.
            answers.extend(panel.silent().iter().map(silent_gate));
        }
        let requester = incident.opening.requested.as_ref().map(|requested| requested.by.clone());
        let context = GateContext { blast, posture: self.0.posture.clone(), bundle, requester, parent };
        let before = self.readings(&resolved.success);
        self.feed(&incident.id, Event::Judged { answers, context, before }, envelopes).await;
    }
}

/// At most `most` of these nodes. Which ones is drawn by the incident, so that a fleet's work spreads, and asking again
/// about the same incident asks about the same nodes.
fn drawn(mut nodes: Vec<NodeId>, incident: &IncidentId, most: usize) -> Vec<NodeId> {
    if nodes.len() > most {
        nodes.sort_by_cached_key(|node| {
            let mut lot = blake3::Hasher::new();
            lot.update(incident.0.as_bytes()).update(&[0]).update(node.0.as_bytes());
            *lot.finalize().as_bytes()
        });
        nodes.truncate(most);
    }
    nodes
}

/// How far a plan reaches, as counts and as shares of what is known. The pool's share is that of the pool which is
/// touched most; nodes without a label are a pool of their own.
fn blast<'a>(resolved: &Resolved, all: impl Iterator<Item = Glimpse<'a>>) -> BlastRadius {
    let pool = fact_of_label("pool");
    let touched: BTreeSet<&NodeId> = resolved.steps.iter().map(|step| &step.node).collect();
    let mut pools: BTreeMap<Option<&str>, (u32, u32)> = BTreeMap::new();
    let mut fleet = (0, 0);
    for node in all {
        let hit = u32::from(touched.contains(node.id));
        for (hits, size) in [pools.entry(node.label(&pool)).or_default(), &mut fleet] {
            *hits += hit;
            *size += 1;
        }
    }
    let percent = |(hits, size): (u32, u32)| if size == 0 { 0.0 } else { f64::from(hits) * 100.0 / f64::from(size) };
    BlastRadius {
        nodes: resolved.blast.nodes,
        gpus: resolved.blast.gpus,
        workloads: resolved.blast.workloads,
        pool_percent: pools.into_values().map(percent).fold(0.0, f64::max),
        fleet_percent: percent(fleet),
    }
}

fn silent_gate(failure: &aether_runtime::bundle::Failure) -> GateAnswer {
    let by = Context {
        decision: DecisionId(String::new()),
        component: Digest(String::new()),
        name: failure.component.clone(),
    };
    let message = format!("it could not be activated: {}", failure.reason);
    GateAnswer { by, outcome: Err(Fault { kind: FaultKind::Refused, message }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::{
        catalogue::SafetyClass,
        decision::OnFailure,
        plan::{BlastCount, Step},
        subject::{SubjectKind, Target},
    };

    type Known = (NodeId, BTreeMap<String, String>);

    fn node(name: &str, pool: Option<&str>) -> Known {
        let facts = pool.map(|pool| (fact_of_label("pool"), pool.to_owned())).into_iter().collect();
        (NodeId::new(name), facts)
    }

    fn glimpse((id, facts): &Known) -> Glimpse<'_> {
        Glimpse { id, live: true, facts, cordoned: false, asleep: false }
    }

    fn on(nodes: &[&str]) -> Resolved {
        let step = |node: &&str| Step {
            verb: catalogue::verb::DRAIN.into(),
            node: NodeId::new(*node),
            target: Target { kind: SubjectKind::Node, id: (*node).into(), generation: 1 },
            arguments: BTreeMap::new(),
            preconditions: vec![],
            on_failure: OnFailure::Compensate,
            compensation: None,
        };
        let blast = BlastCount { nodes: u32::try_from(nodes.len()).unwrap_or(0), gpus: 0, workloads: 0 };
        let steps = nodes.iter().map(step).collect();
        Resolved { steps, success: vec![], watch_ms: 0, class: SafetyClass::Reversible, blast }
    }

    #[test]
    fn the_pools_share_is_of_the_pool_that_is_touched_most() {
        let mut all: Vec<Known> = (0..10).map(|n| node(&format!("big-{n}"), Some("big"))).collect();
        all.extend([node("small-0", Some("small")), node("small-1", Some("small"))]);
        all.extend((0..8).map(|n| node(&format!("bare-{n}"), None)));
        for (touched, pool, fleet) in [
            (&["big-0"][..], 10.0, 5.0),
            (&["small-0"], 50.0, 5.0),
            (&["big-0", "small-0"], 50.0, 10.0),
            (&["bare-0", "bare-1"], 25.0, 10.0),
            (&["gone"], 0.0, 0.0),
        ] {
            let blast = blast(&on(touched), all.iter().map(glimpse));
            assert_eq!((blast.pool_percent, blast.fleet_percent), (pool, fleet), "{touched:?}");
        }
        assert_eq!(blast(&on(&["big-0"]), std::iter::empty()).fleet_percent, 0.0, "of nothing nothing is touched");
    }

    #[test]
    fn of_many_nodes_an_incident_draws_the_same_and_another_incident_others() {
        let all: Vec<NodeId> = (0..200).map(|n| NodeId(format!("node-{n}"))).collect();
        let names = |incident: &str, all: &[NodeId]| drawn(all.to_vec(), &IncidentId(incident.into()), 64);
        let one = names("inc-1", &all);
        assert_eq!((one.len(), one.iter().collect::<BTreeSet<_>>().len()), (64, 64));
        let mut turned = all.clone();
        turned.reverse();
        assert_eq!(one, names("inc-1", &turned), "whatever order they come in");
        assert_ne!(one, names("inc-2", &all));
        assert_eq!(names("inc-1", &all[..64]).len(), 64, "a fleet that small is taken as it is");
    }
}
