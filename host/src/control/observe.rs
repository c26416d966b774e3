//! Each tick: every live node is scored, findings are raised and cleared, and conditions that are watched are read.

use super::{Control, Panel, ask, incidents::Known, locked};
use crate::{
    clock,
    fabric::{NodeView, WorkloadState},
};
use aether_core::{
    artifact::{Flags, SummaryEvent, SummaryReading},
    combine::{self, Scored},
    decision::{Answer, Assessment, Condition, Envelope, Fault, Question, Role},
    finding::{Change, Finding},
    id::{IncidentId, NodeId},
    incident::{Event, Opening, Reading},
    observation::{Input, Observation},
    subject::{Subject, SubjectKind},
    time::Time,
};
use futures::{StreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::pin,
    sync::Arc,
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// Attribute of signals that belong to a drill; its value is the drill's name.
pub(super) const DRILL: &str = "drill";
/// Of each tick, scoring waits for this part at most until what is pressing is done.
const GIVES_WAY: u32 = 2;
/// Events of one opening that are kept in its summary.
const SUMMARY_EVENTS_MAXIMUM: usize = 20;

/// What the components of a panel said.
type Said = Arc<[Envelope]>;

/// A node, and what was said of it.
struct Look {
    node: NodeView,
    subject: Subject,
    now: Time,
    said: Vec<(Arc<dyn Panel>, Said)>,
}

impl Control {
    /// Some nodes at a time, and what comes of it is seen to one after the other, in their order.
    pub(super) async fn score_nodes(&self) {
        let mut patience = Duration::from_millis(self.0.settings.tick_ms) / GIVES_WAY;
        let known: Vec<NodeId> = self.0.fabric.survey(|nodes| nodes.map(|node| node.id.clone()).collect());
        patience = self.give_way(patience).await;
        let at_once = self.0.panels.at_once();
        let mut looks = pin!(stream::iter(known).map(|node| self.look(node)).buffered(at_once));
        while let Some(look) = looks.next().await {
            if self.0.stop.is_cancelled() {
                return;
            }
            if let Some(look) = look {
                self.see_to(look).await;
            }
            patience = self.give_way(patience).await;
        }
    }

    /// Asks the scorers about a node, if it is still known.
    async fn look(&self, node: NodeId) -> Option<Look> {
        let node = self.0.fabric.node(&node)?;
        let (subject, now) = (node_subject(&node), clock::now());
        let mut said = Vec::new();
        if node.live {
            let question = |inputs: &[Input]| Question::Score(self.observation(&subject, inputs, now));
            for panel in self.0.panels.of(Role::RiskScorer) {
                let envelopes = panel.ask(now, &question).await.into();
                said.push((panel, envelopes));
            }
        }
        Some(Look { node, subject, now, said })
    }

    async fn see_to(&self, look: Look) {
        let Look { node, subject, now, said } = look;
        if !node.live {
            let why = match &node.asleep {
                Some(asleep) => match asleep.overdue_ms(now) {
                    None => format!("it sleeps on order, {}, so nothing fresh is known", asleep.how()),
                    Some(late_ms) => format!(
                        "it was put to sleep on order, {}, and its alarm was to wake it {late_ms} ms ago: look at it",
                        asleep.how()
                    ),
                },
                None => "the node's agent has no live session, so nothing fresh is known".to_string(),
            };
            self.0.risks.tell(subject.subject(), now, Scored::Unknown(why), Arc::default());
        }
        for (panel, envelopes) in said {
            self.weigh(&node, &subject, (&*panel, envelopes), now).await;
        }
    }

    /// What was found goes before looking for more: waits while something presses, for `patience` at most; gives what is
    /// left of that.
    async fn give_way(&self, patience: Duration) -> Duration {
        if self.0.pressing.borrow().is_empty() {
            return patience;
        }
        let begun = Instant::now();
        let mut pressing = self.0.pressing.subscribe();
        // Whether it ended or took too long, scoring goes on.
        drop(timeout(patience, pressing.wait_for(BTreeSet::is_empty)).await);
        patience.saturating_sub(begun.elapsed())
    }

    async fn weigh(&self, node: &NodeView, subject: &Subject, (panel, envelopes): (&dyn Panel, Said), now: Time) {
        let answers: Vec<(String, Result<Assessment, Fault>)> = envelopes
            .iter()
            .map(|envelope| {
                let assessment = ask::outcome(envelope, |answer| match answer {
                    Answer::Assessment(assessment) => Some(assessment.clone()),
                    Answer::Proposals(_) | Answer::Judgement(_) | Answer::Choices(_) => None,
                });
                (envelope.component_name.clone(), assessment)
            })
            .collect();
        let scored = combine::scores(answers.iter().map(|(name, answer)| (name.as_str(), answer.as_ref())));
        let change = locked(&self.0.detector).observe(&subject.subject(), now, &scored);
        self.0.risks.tell(subject.subject(), now, scored.clone(), envelopes.clone());
        match change {
            None => {}
            Some(Change::Raised(finding)) => {
                let unknown = answers.iter().filter_map(|(name, answer)| said_nothing(name, answer)).collect();
                self.open(node, subject, finding, (panel, &envelopes), unknown, now).await;
            }
            Some(Change::Continues(shape)) => {
                if let (Scored::Risk(risk), Some(incident)) = (scored, self.open_about(&shape)) {
                    self.recur(&incident, risk).await;
                }
            }
            Some(Change::Cleared(shape)) => {
                tracing::info!(subject = %shape.subject, cause = shape.cause, "the finding has cleared");
                if let Err(error) = self.0.store.clear_finding(&shape.subject).await {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        "a cleared finding could not be forgotten"
                    );
                }
            }
        }
    }

    async fn open(
        &self,
        node: &NodeView,
        subject: &Subject,
        finding: Finding,
        (panel, envelopes): (&dyn Panel, &[Envelope]),
        unknown: Vec<String>,
        now: Time,
    ) {
        let shape = finding.shape.clone();
        let is_noted = match self.known(&finding).await {
            Ok(Known::Waits) => true,
            Ok(Known::Underway) => false,
            Ok(Known::No) => {
                let opening = opening(node, subject, finding, (panel, envelopes), unknown);
                self.relapse(&opening, envelopes, now).await || self.begin(opening, envelopes, now).await
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a finding could not be noted");
                false
            }
        };
        if !is_noted {
            // Later ticks raise it again, if it is still there.
            locked(&self.0.detector).forget(&shape.subject);
        }
    }

    /// Reads the success conditions of incidents in verification.
    pub(super) async fn read_conditions(&self) {
        for (id, conditions) in self.watched().await {
            let readings = self.readings(&conditions);
            let every_ms = Some(self.0.settings.tick_ms);
            self.feed(&id, Event::Read { readings, every_ms }, vec![]).await;
        }
    }

    /// What `inputs` show of a subject, up to `at`.
    pub(super) fn observation(&self, subject: &Subject, inputs: &[Input], at: Time) -> Observation {
        let named = subject.subject();
        Observation {
            subject: subject.clone(),
            at,
            columns: self.0.recorder.columns(&named, inputs, at),
            events: self.0.recorder.events(&named, inputs, at),
        }
    }

    /// The newest sample of each condition's metric.
    pub(super) fn readings(&self, conditions: &[Condition]) -> Vec<Reading> {
        conditions
            .iter()
            .map(|condition| {
                let samples = self.0.recorder.latest(&condition.target.subject(), &condition.metric);
                let newest = samples.into_iter().map(|(_, sample)| sample).max_by_key(|sample| sample.at);
                let newest = newest.filter(|sample| sample.value.is_finite());
                Reading {
                    condition: condition.clone(),
                    value: newest.map(|sample| sample.value),
                    sampled_at: newest.map(|sample| sample.at),
                }
            })
            .collect()
    }
}

/// An incident that begins with a finding.
fn opening(
    node: &NodeView,
    subject: &Subject,
    finding: Finding,
    (panel, envelopes): (&dyn Panel, &[Envelope]),
    unknown: Vec<String>,
) -> Opening {
    let (readings, events, window_ms) = summarise(panel, envelopes);
    let drilled = |attributes: &BTreeMap<String, String>| attributes.contains_key(DRILL);
    let drill = events.iter().any(|event| drilled(&event.attributes))
        || readings.iter().any(|reading| drilled(&reading.attributes));
    Opening {
        incident: IncidentId(clock::id("inc")),
        finding,
        subject: subject.clone(),
        workloads: workload_subjects(node),
        readings,
        events,
        window_ms,
        decisions: envelopes.iter().map(ask::context).collect(),
        unknown,
        // Whatever is done about this node is only pretended, and every artifact has to say so.
        flags: Flags {
            drill,
            simulated: node.capabilities.iter().any(|capability| capability.simulated),
            ..Flags::default()
        },
        requested: None,
    }
}

fn said_nothing(name: &str, answer: &Result<Assessment, Fault>) -> Option<String> {
    match answer {
        Ok(Assessment::Risk(_)) => None,
        Ok(Assessment::Insufficient(missing)) => Some(format!("{name}: {missing}")),
        Err(fault) => Some(format!("{name}: {}", fault.message)),
    }
}

/// A node as components see it: its labels say what its agent can do.
pub(crate) fn node_subject(node: &NodeView) -> Subject {
    let mut labels: BTreeMap<String, String> = node
        .capabilities
        .iter()
        .map(|capability| (format!("capability.{}", capability.name), capability.available.to_string()))
        .collect();
    labels.extend(node.facts.clone());
    Subject { kind: SubjectKind::Node, id: node.id.0.clone(), generation: node.generation, labels }
}

/// What runs (or is stopped) on a node.
pub(super) fn workload_subjects(node: &NodeView) -> Vec<Subject> {
    node.workloads
        .iter()
        .filter(|workload| workload.state == WorkloadState::Running)
        .map(|workload| Subject {
            kind: SubjectKind::Workload,
            id: workload.id.0.clone(),
            generation: workload.generation,
            labels: BTreeMap::from([
                ("node".into(), node.id.0.clone()),
                ("name".into(), workload.name.clone()),
                ("tier".into(), tier_name(workload.tier).into()),
            ]),
        })
        .collect()
}

fn tier_name(tier: aether_core::snapshot::Tier) -> &'static str {
    use aether_core::snapshot::Tier;
    match tier {
        Tier::BestEffort => "best-effort",
        Tier::Standard => "standard",
        Tier::Critical => "critical",
    }
}

/// The newest value of every input that the scorers looked at, the events they saw, and the longest window.
fn summarise(panel: &dyn Panel, envelopes: &[Envelope]) -> (Vec<SummaryReading>, Vec<SummaryEvent>, u64) {
    let mut readings = Vec::new();
    let mut events: Vec<SummaryEvent> = Vec::new();
    let mut window = 0;
    for envelope in envelopes {
        let Question::Score(Observation { columns, events: seen, subject: _, at: _ }) = &envelope.question else {
            continue;
        };
        let inputs = panel.inputs(&envelope.entry);
        let input = |index: u32| usize::try_from(index).ok().and_then(|index| inputs.get(index));
        for column in columns {
            let Some(Input::Metric(metric)) = input(column.input) else { continue };
            window = window.max(metric.window_ms);
            let newest = column.values.iter().enumerate().rev().find(|(_, value)| value.is_finite());
            let at = newest.map(|(index, _)| column.start.plus_ms(column.step_ms.saturating_mul(index as u64)));
            let samples = column.values.iter().filter(|value| value.is_finite()).count();
            readings.push(SummaryReading {
                metric: metric.name.clone(),
                unit: metric.unit.clone(),
                attributes: column.attributes.clone(),
                value: newest.map(|(_, value)| *value),
                at,
                samples: u32::try_from(samples).unwrap_or(u32::MAX),
            });
        }
        for event in seen {
            let Some(Input::Events(declared)) = input(event.input) else { continue };
            window = window.max(declared.window_ms);
            events.push(SummaryEvent {
                name: declared.name.clone(),
                at: event.at,
                attributes: event.attributes.clone(),
            });
        }
    }
    events.sort_by_key(|event| event.at);
    let surplus = events.len().saturating_sub(SUMMARY_EVENTS_MAXIMUM);
    events.drain(..surplus);
    (readings, events, window)
}
