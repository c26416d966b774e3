//! What planners, routers and gates are asked about an incident, and with what they are told of the world.

use super::{Control, ask, observe};
use crate::clock;
use aether_core::{
    catalogue, combine,
    decision::{
        Answer, BlastRadius, Candidate, Envelope, Fault, FaultKind, GateQuestion, Placement, PlanningFinding, Question,
        Role, RoutingQuestion,
    },
    id::{DecisionId, Digest, NodeId},
    incident::{Context, Event, GateAnswer, GateContext, Incident, PlannerAnswer, Rung, Tried},
    metric,
    observation::{Input, Observation},
    plan::{PlanHash, World},
    time::Time,
};
use std::collections::BTreeMap;

/// Recent actions that gates are told of, and how far back.
const RECENT_MAXIMUM: u32 = 50;
const RECENT_WINDOW_MS: u64 = 86_400_000;

impl Control {
    pub(super) async fn plan(&self, incident: Incident) {
        let at = clock::now();
        let mut envelopes = Vec::new();
        let world = World { runbooks: self.0.panels.runbooks().known().clone(), ..self.0.fabric.world() };
        let candidates = self.candidates(&incident, at, &mut envelopes).await;
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
    fn workloads_on(&self, incident: &Incident) -> Vec<aether_core::subject::Subject> {
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

    /// The other live nodes, best first as the routers rank them; those that no router named come last.
    async fn candidates(
        &self,
        incident: &Incident,
        at: Time,
        envelopes: &mut Vec<Envelope>,
    ) -> Vec<aether_core::subject::Subject> {
        let others: Vec<_> = self
            .0
            .fabric
            .nodes()
            .iter()
            .filter(|node| {
                node.live
                    && !node.facts.contains_key(catalogue::fact::DRAINED)
                    && node.id.0 != incident.opening.subject.id
            })
            .map(observe::node_subject)
            .collect();
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
        let nodes = self.0.fabric.nodes().len();
        let percent = if nodes == 0 { 0.0 } else { f64::from(resolved.blast.nodes) * 100.0 / nodes as f64 };
        let blast = BlastRadius {
            nodes: resolved.blast.nodes,
            gpus: resolved.blast.gpus,
            workloads: resolved.blast.workloads,
            // Until pools are declared the whole fleet is one pool.
            pool_percent: percent,
            fleet_percent: percent,
        };
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
        let context = GateContext { blast, posture: self.0.posture.clone(), bundle, requester: None, parent };
        let before = self.readings(&resolved.success);
        self.feed(&incident.id, Event::Judged { answers, context, before }, envelopes).await;
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
