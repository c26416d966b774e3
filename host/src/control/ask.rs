//! Asking the components: each evaluation becomes one envelope, on a bounded number of blocking threads, so
//! that the async runtime never waits for a guest. Whoever answers is asked first; shadows are asked beside, afterwards,
//! and dropped where too many wait, so that they never delay a live answer.

use crate::{
    plugins::{Asked, Generation, Live, Slots, runbooks::Runbooks},
    store::Store,
};
use aether_core::{
    decision::{Answer, Envelope, Fault, FaultKind, Question, Role},
    id::{DecisionId, Digest, EntryId},
    incident::Context,
    observation::{Column, Input, MetricInput},
    slot::{self, Spoken},
    subject::Subject,
    time::Time,
};
use aether_recorder::Recorder;
use aether_runtime::{ENGINE_VERSION, Environment, Evaluation, History, WIT_VERSION, bundle::Failure};
use async_trait::async_trait;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Span;

/// Questions with shadows that may wait; of more, shadows are not asked.
const SHADOWS_WAITING: usize = 64;

/// Makes what is asked from the inputs that a component declares.
pub type Asking<'a> = dyn Fn(&[Input]) -> Question + Sync + 'a;

/// One slot as it is asked: it stays of one generation for as long as it is held.
#[async_trait]
pub trait Panel: Send + Sync {
    fn role(&self) -> Role;

    /// Asks whoever answers, in order.
    async fn ask(&self, at: Time, question: &Asking<'_>) -> Vec<Envelope>;

    /// What the component of an entry declared that it reads.
    fn inputs(&self, entry: &EntryId) -> &[Input];

    /// Those in whose place nobody answers. Where they are gates, their silence denies.
    fn silent(&self) -> Vec<Failure>;
}

/// All slots: the seam at which a simulation puts decisions of its own.
pub trait Panels: Send + Sync {
    /// Every slot as it stands now, in order of id, with the digest of the policy that they are.
    fn in_force(&self) -> (Vec<Arc<dyn Panel>>, Digest);

    /// The runbooks of the bundle.
    fn runbooks(&self) -> &Runbooks;

    /// How many may be asked at one time, so that everything else has its turn.
    fn at_once(&self) -> usize;

    fn of(&self, role: Role) -> Vec<Arc<dyn Panel>> {
        self.in_force().0.into_iter().filter(|panel| panel.role() == role).collect()
    }
}

/// The slots, with what it takes to ask their components. Cheap to clone.
#[derive(Clone)]
pub struct Components(Arc<Inner>);

struct Inner {
    slots: Slots,
    store: Store,
    recorder: Recorder,
    /// Evaluations at one time whose answers count.
    evaluating: Arc<Semaphore>,
    /// One at a time is enough for what has no effect.
    shadowing: Arc<Semaphore>,
    shadows_waiting: Arc<Semaphore>,
    at_once: usize,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// A generation of one of them.
struct Seat {
    components: Components,
    generation: Arc<Generation>,
}

impl Panels for Components {
    fn runbooks(&self) -> &Runbooks {
        self.0.slots.runbooks()
    }

    fn at_once(&self) -> usize {
        self.0.at_once
    }

    fn in_force(&self) -> (Vec<Arc<dyn Panel>>, Digest) {
        let generations = self.0.slots.all();
        let digest = self.0.slots.digest_of(&generations);
        let seat = |generation| -> Arc<dyn Panel> { Arc::new(Seat { components: self.clone(), generation }) };
        (generations.into_iter().map(seat).collect(), digest)
    }

    fn of(&self, role: Role) -> Vec<Arc<dyn Panel>> {
        let seat = |generation| -> Arc<dyn Panel> { Arc::new(Seat { components: self.clone(), generation }) };
        self.0.slots.of(role).into_iter().map(seat).collect()
    }
}

#[async_trait]
impl Panel for Seat {
    fn role(&self) -> Role {
        self.generation.slot().role
    }

    async fn ask(&self, at: Time, question: &Asking<'_>) -> Vec<Envelope> {
        self.components.ask_slot(&self.generation, at, question).await
    }

    fn inputs(&self, entry: &EntryId) -> &[Input] {
        self.generation.inputs(entry)
    }

    fn silent(&self) -> Vec<Failure> {
        self.components.0.slots.silent(&self.generation)
    }
}

impl Components {
    /// `evaluations`: so many at one time.
    pub fn new(
        slots: Slots,
        store: Store,
        recorder: Recorder,
        evaluations: u32,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Self {
        let evaluations = usize::try_from(evaluations).unwrap_or(1);
        let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self(Arc::new(Inner {
            slots,
            store,
            recorder,
            evaluating: Arc::new(Semaphore::new(evaluations)),
            // One processor is left: telemetry that waits is worse than a score that does.
            at_once: evaluations.min(processors - 1).max(1),
            shadowing: Arc::new(Semaphore::new(1)),
            shadows_waiting: Arc::new(Semaphore::new(SHADOWS_WAITING)),
            tasks,
            stop,
        }))
    }

    /// Asks whoever answers in this generation of a slot, in order, and then, without waiting for them, its shadows.
    /// `question` makes what is asked from the inputs that a component declares.
    async fn ask_slot(&self, generation: &Arc<Generation>, at: Time, question: &Asking<'_>) -> Vec<Envelope> {
        let Asked { answering, shadows } = generation.cast(&slot::key(&question(&[])));
        let ask = |live: &Arc<Live>| (Arc::clone(live), question(&live.prepared.description().inputs));
        let asked = answering.iter().map(ask).collect();
        let envelopes = self.ask(generation, at, asked, &self.0.evaluating).await;
        for (live, envelope) in answering.iter().zip(&envelopes) {
            self.count(generation, live, envelope, None);
        }
        if !shadows.is_empty() {
            match Arc::clone(&self.0.shadows_waiting).try_acquire_owned() {
                Ok(place) => {
                    let asked = shadows.iter().map(ask).collect();
                    let (components, generation) = (self.clone(), Arc::clone(generation));
                    let answered = envelopes.clone();
                    self.0.tasks.spawn(async move { components.shadow(generation, at, asked, answered, place).await });
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
            let envelopes = tokio::select! {
                () = self.0.stop.cancelled() => return,
                envelopes = self.ask(&generation, at, vec![(live.clone(), question)], &self.0.shadowing) => envelopes,
            };
            let Some(envelope) = envelopes.into_iter().next() else { continue };
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

    /// Asks components one after another, on one blocking thread. What goes wrong is a fault in the envelope.
    async fn ask(
        &self,
        generation: &Generation,
        at: Time,
        asked: Vec<(Arc<Live>, Question)>,
        places: &Arc<Semaphore>,
    ) -> Vec<Envelope> {
        let permit = Arc::clone(places).acquire_owned().await;
        let (recorder, generation, span) = (self.0.recorder.clone(), generation.number(), Span::current());
        let answered = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            let _inside = span.enter();
            asked.into_iter().map(|(live, question)| answer(&recorder, generation, &live, at, question)).collect()
        });
        match answered.await {
            Ok(envelopes) => envelopes,
            // The runtime is ending, and nothing may be concluded from a silence.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Asks one component, on this thread.
fn answer(recorder: &Recorder, generation: u64, live: &Live, at: Time, question: Question) -> Envelope {
    let history = RecordedHistory { recorder: recorder.clone(), at };
    let id = DecisionId(crate::clock::id("dec"));
    let environment = Environment { at, seed: id.0.clone(), history: Some(Arc::new(history)) };
    let prepared = &live.prepared;
    let span = tracing::info_span!("evaluate", slot.id = %live.slot, slot.generation = generation,
        slot.entry = %live.entry.id, slot.stage = live.entry.stage.name(), plugin.digest = prepared.digest().short(),
        decision.id = %id, fuel.used = tracing::field::Empty, fault = tracing::field::Empty);
    let evaluation = span.in_scope(|| catch_unwind(AssertUnwindSafe(|| prepared.evaluate(&question, environment))));
    let Evaluation { outcome, fuel, memory_bytes, duration, log, host_calls } =
        evaluation.unwrap_or_else(|_| panicked());
    span.record("fuel.used", fuel);
    if let Err(fault) = &outcome {
        span.record("fault", fault.message.as_str());
    }
    let description = prepared.description();
    Envelope {
        schema_version: 1,
        id,
        slot: live.slot.clone(),
        generation,
        entry: live.entry.id.clone(),
        stage: live.entry.stage,
        component: prepared.digest().clone(),
        component_name: description.name.clone(),
        component_version: description.version.clone(),
        config: prepared.config_digest().clone(),
        assets: prepared.assets_digest().cloned(),
        wit_version: WIT_VERSION.into(),
        engine_version: ENGINE_VERSION.into(),
        limits: prepared.limits().clone(),
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
