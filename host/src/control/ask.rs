//! Asking the components: one evaluation at a time becomes one envelope, on a bounded number of blocking threads, so
//! that the async runtime never waits for a guest.

use super::Control;
use crate::plugins::Entry;
use aether_core::{
    decision::{Answer, Envelope, Fault, FaultKind, Question},
    id::{DecisionId, EntryId, SlotId},
    incident::Context,
    observation::{Column, Input, MetricInput, Observation},
    slot::Stage,
    subject::Subject,
    time::Time,
};
use aether_recorder::Recorder;
use aether_runtime::{ENGINE_VERSION, Environment, Evaluation, History, WIT_VERSION};
use std::{sync::Arc, time::Duration};

impl Control {
    /// Asks one component. Never fails: what goes wrong is a fault in the envelope.
    pub(super) async fn ask(&self, slot: &SlotId, entry: &Arc<Entry>, at: Time, question: Question) -> Envelope {
        let prepared = entry.prepared.clone();
        let history = RecordedHistory { recorder: self.0.recorder.clone(), at };
        let id = DecisionId(crate::clock::id("dec"));
        let environment = Environment { at, seed: id.0.clone(), history: Some(Arc::new(history)) };
        let asked = question.clone();
        let permit = self.0.evaluating.clone().acquire_owned().await;
        let evaluation = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            prepared.evaluate(&asked, environment)
        })
        .await
        .unwrap_or_else(|_| panicked());
        entry.figures.count(&evaluation, at);
        let Evaluation { outcome, fuel, memory_bytes, duration, log, host_calls } = evaluation;
        let description = entry.prepared.description();
        Envelope {
            schema_version: 1,
            id,
            slot: slot.clone(),
            generation: 1,
            entry: EntryId(description.name.clone()),
            stage: Stage::Active,
            component: entry.prepared.digest().clone(),
            component_name: description.name.clone(),
            component_version: description.version.clone(),
            config: entry.prepared.config_digest().clone(),
            assets: entry.prepared.assets_digest().cloned(),
            wit_version: WIT_VERSION.into(),
            engine_version: ENGINE_VERSION.into(),
            limits: entry.prepared.limits().clone(),
            at,
            question,
            host_calls,
            log,
            outcome,
            fuel,
            memory_bytes,
            duration_us: u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
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
}

pub(super) fn context(envelope: &Envelope) -> Context {
    Context {
        decision: envelope.id.clone(),
        component: envelope.component.clone(),
        name: envelope.component_name.clone(),
    }
}

/// The answer of the kind that `pick` takes; another kind cannot come from the runtime and is a fault all the same.
pub(super) fn outcome<T>(envelope: &Envelope, pick: impl Fn(&Answer) -> Option<T>) -> Result<T, Fault> {
    match &envelope.outcome {
        Ok(answer) => pick(answer)
            .ok_or_else(|| Fault { kind: FaultKind::BadOutput, message: "the answer is of another role".into() }),
        Err(fault) => Err(fault.clone()),
    }
}

fn panicked() -> Evaluation {
    let message = "the evaluation ended without a word; this is a defect of the host, and nothing was decided".into();
    Evaluation {
        outcome: Err(Fault { kind: FaultKind::Trapped, message }),
        fuel: 0,
        memory_bytes: 0,
        duration: Duration::ZERO,
        log: vec![],
        host_calls: vec![],
    }
}

/// Look-backs of one evaluation, all up to the evaluation's time.
struct RecordedHistory {
    recorder: Recorder,
    at: Time,
}

impl History for RecordedHistory {
    fn query(&self, subject: &Subject, metric: &MetricInput) -> Result<Vec<Column>, String> {
        Ok(self.recorder.columns(&subject.subject(), &[Input::Metric(metric.clone())], self.at))
    }
}
