//! Asking the components: one evaluation at a time becomes one envelope, on a bounded number of blocking threads, so
//! that the async runtime never waits for a guest. Whoever answers is asked first; shadows are asked beside, afterwards,
//! and dropped where too many wait, so that they never delay a live answer.

use super::Control;
use crate::plugins::{Asked, Generation, Live};
use aether_core::{
    decision::{Answer, Envelope, Fault, FaultKind, Question, Role},
    id::DecisionId,
    incident::Context,
    observation::{Column, Input, MetricInput, Observation},
    slot::{self, Spoken},
    subject::Subject,
    time::Time,
};
use aether_recorder::Recorder;
use aether_runtime::{ENGINE_VERSION, Environment, Evaluation, History, WIT_VERSION};
use std::{sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tracing::Instrument as _;

/// Questions with shadows that may wait; of more, shadows are not asked.
pub(super) const SHADOWS_WAITING: usize = 64;

impl Control {
    /// Asks whoever answers in this generation of a slot, in order, and then, without waiting for them, its shadows.
    /// `question` makes what is asked from the inputs that a component declares.
    pub(super) async fn ask_slot(
        &self,
        generation: &Arc<Generation>,
        at: Time,
        question: impl Fn(&[Input]) -> Question,
    ) -> Vec<Envelope> {
        let Asked { answering, shadows } = generation.cast(&slot::key(&question(&[])));
        let mut envelopes = Vec::with_capacity(answering.len());
        for live in &answering {
            let inputs = &live.prepared.description().inputs;
            let envelope = self.ask(generation, live, at, question(inputs), &self.0.evaluating).await;
            self.count(generation, live, &envelope, None);
            envelopes.push(envelope);
        }
        if !shadows.is_empty() {
            match Arc::clone(&self.0.shadows_waiting).try_acquire_owned() {
                Ok(place) => {
                    let asked = shadows.into_iter().map(|live| {
                        let question = question(&live.prepared.description().inputs);
                        (live, question)
                    });
                    let (control, generation, asked) = (self.clone(), Arc::clone(generation), asked.collect());
                    let answered = envelopes.clone();
                    self.0.tasks.spawn(async move { control.shadow(generation, at, asked, answered, place).await });
                }
                Err(_) => shadows.iter().for_each(|live| live.drop_one()),
            }
        }
        envelopes
    }

    /// Asks shadows what was answered already, and compares.
    async fn shadow(
        self,
        generation: Arc<Generation>,
        at: Time,
        asked: Vec<(Arc<Live>, Question)>,
        answered: Vec<Envelope>,
        _place: OwnedSemaphorePermit,
    ) {
        let mut kept = Vec::new();
        for (live, question) in asked {
            let envelope = tokio::select! {
                () = self.0.stop.cancelled() => return,
                envelope = self.ask(&generation, &live, at, question, &self.0.shadowing) => envelope,
            };
            let spoken: Vec<Spoken<'_>> =
                answered.iter().map(|e| Spoken { entry: &e.entry, outcome: &e.outcome }).collect();
            let role = generation.slot().role;
            let diverged = slot::compare(role, &spoken, &live.entry, &envelope.outcome);
            self.count(&generation, &live, &envelope, diverged);
            // Scorers are asked every second of every node; the others as rarely as there is trouble.
            if role != Role::RiskScorer {
                kept.push(envelope);
            }
        }
        if !kept.is_empty()
            && let Err(error) = self.0.store.keep_decisions(&kept).await
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "what shadows said could not be kept");
        }
    }

    /// Counts an evaluation, and sees to an entry whose budget is used up.
    fn count(&self, generation: &Arc<Generation>, live: &Arc<Live>, envelope: &Envelope, diverged: Option<bool>) {
        if let Some(exhausted) = generation.count(live, envelope, diverged) {
            let (slots, live) = (self.0.slots.clone(), Arc::clone(live));
            self.0.tasks.spawn(async move { slots.take_out(&live, exhausted).await });
        }
    }

    /// Asks one component. Never fails: what goes wrong is a fault in the envelope.
    async fn ask(
        &self,
        generation: &Generation,
        live: &Live,
        at: Time,
        question: Question,
        places: &Arc<Semaphore>,
    ) -> Envelope {
        let prepared = live.prepared.clone();
        let history = RecordedHistory { recorder: self.0.recorder.clone(), at };
        let id = DecisionId(crate::clock::id("dec"));
        let environment = Environment { at, seed: id.0.clone(), history: Some(Arc::new(history)) };
        let asked = question.clone();
        let permit = Arc::clone(places).acquire_owned().await;
        let span = tracing::info_span!("evaluate", slot.id = %live.slot, slot.generation = generation.number(),
            slot.entry = %live.entry.id, slot.stage = live.entry.stage.name(), plugin.digest = prepared.digest().short(),
            decision.id = %id, fuel.used = tracing::field::Empty, fault = tracing::field::Empty);
        let inside = span.clone();
        let evaluation = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            inside.in_scope(|| prepared.evaluate(&asked, environment))
        })
        .instrument(span.clone())
        .await
        .unwrap_or_else(|_| panicked());
        let Evaluation { outcome, fuel, memory_bytes, duration, log, host_calls } = evaluation;
        span.record("fuel.used", fuel);
        if let Err(fault) = &outcome {
            span.record("fault", fault.message.as_str());
        }
        let description = live.prepared.description();
        Envelope {
            schema_version: 1,
            id,
            slot: live.slot.clone(),
            generation: generation.number(),
            entry: live.entry.id.clone(),
            stage: live.entry.stage,
            component: live.prepared.digest().clone(),
            component_name: description.name.clone(),
            component_version: description.version.clone(),
            config: live.prepared.config_digest().clone(),
            assets: live.prepared.assets_digest().cloned(),
            wit_version: WIT_VERSION.into(),
            engine_version: ENGINE_VERSION.into(),
            limits: live.prepared.limits().clone(),
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
