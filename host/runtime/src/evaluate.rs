//! One evaluation: a fresh store, an instance that knows its config, the question, and whatever comes of it as an answer
//! or a typed fault.

use crate::{
    Assets, Configured, Engine, clock,
    component::{Active, Bound, Lanes, Loaded},
    convert::{self, Invalid},
    engine::Inner,
    host::{Source, State},
    limit::Hit,
    metric, snapshot,
    verb::Verb,
    wasi,
};
use aether_core::{
    decision::{Answer, Description, Fault, FaultKind, HostCall, Limits, LogLine, Question},
    observation::{EventInput, Input, MetricInput},
};
use bumpalo::Bump;
use std::{sync::Arc, time::Duration};
use wasmtime::{Store, Trap, WasmBacktrace, component::Instance};

/// What came of one question, with what it cost. All but `duration` is the same on every run.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub outcome: Result<Answer, Fault>,
    /// Used by the question alone; what the configuration took is told by the activation.
    pub fuel: u64,
    /// The most that all memories and tables took at one time.
    pub memory_bytes: u64,
    /// Without the wait for the pool.
    pub duration: Duration,
    pub log: Vec<LogLine>,
    pub host_calls: Vec<HostCall>,
}

/// What a guest's function gave: a value, or an error on the way.
pub(crate) type Called<T> = Result<T, Failure>;

pub(crate) enum Failure {
    /// wasmtime's words.
    Engine(wasmtime::Error),
    /// The guest's own `err`.
    Refused(String),
    /// The answer breaks the contract.
    Invalid(Invalid),
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Self {
        Failure::Engine(error)
    }
}

/// Asks `active` the question. Gives back the source, which a replay looks at.
pub(crate) fn evaluate(
    active: &Active,
    limits: &Limits,
    question: &Question,
    source: Source,
) -> (Evaluation, Option<Source>) {
    let loaded = &active.loaded;
    if question.role() != loaded.role {
        let message = format!(
            "a {} was asked the question of a {}; nothing was evaluated",
            loaded.role.world(),
            question.role().world()
        );
        return (nothing(Fault { kind: FaultKind::Refused, message }), Some(source));
    }
    let Some((outcome, run)) = in_store(&loaded.engine, limits, &active.assets, &active.seed, |lane, store| {
        ask(active, lane, limits, question, source, store)
    }) else {
        let fault = overloaded(&loaded.engine);
        loaded.figures.failed(FaultKind::Overloaded.into_label());
        return (nothing(fault), None);
    };
    match &outcome {
        Ok(_) => loaded.figures.answered(),
        Err(fault) => loaded.figures.failed(fault.kind.into_label()),
    }
    loaded.figures.cost(run.fuel, run.duration);
    let State { meter, log, host_calls, source, .. } = run.state;
    let evaluation = Evaluation {
        outcome,
        fuel: run.fuel,
        memory_bytes: meter.peak_bytes(),
        duration: run.duration,
        log,
        host_calls,
    };
    (evaluation, Some(source))
}

/// Asks a component what it is; the inner error: its exports do not have their world's types.
pub(crate) fn describe(engine: &Engine, lanes: &Lanes) -> Result<wasmtime::Result<Description>, Fault> {
    let called = in_store(engine, &Limits::default(), &Assets::default(), &Arc::default(), |lane, store| {
        let bound = lanes.of(lane);
        let instance = bound.pre.instantiate(&mut *store)?;
        let plugin = match bound.verb.check(store, &instance).and_then(|()| bound.plugin.load(&mut *store, &instance)) {
            Ok(plugin) => plugin,
            Err(error) => return Ok(Err(error)),
        };
        Ok(Ok(convert::description(plugin.call_describe(&mut *store)?)))
    });
    called.map_or_else(|| Err(overloaded(engine)), |(outcome, _)| outcome)
}

/// What a component made of its config: the component's own error, or what it cost and, from its `bytes`, a snapshot.
type Taken = Result<(Configured, Result<Vec<u8>, String>), String>;

/// Hands a component its config and takes a snapshot of what it is then.
pub(crate) fn configure(
    loaded: &Loaded,
    config: &str,
    seed: &Arc<str>,
    limits: &Limits,
    assets: &Assets,
    bytes: Result<&[u8], &str>,
) -> Result<Taken, Fault> {
    // Paid once: a language's start may take more than any question. Where it is paid each time, it may not.
    let limits = match bytes {
        Ok(_) => &Limits { fuel: Limits::MAXIMUM.fuel, deadline_ms: Limits::MAXIMUM.deadline_ms, ..limits.clone() },
        Err(_) => limits,
    };
    let called = in_store(&loaded.engine, limits, assets, seed, |lane, store| {
        let bound = loaded.bound.of(lane);
        let instance = bound.pre.instantiate(&mut *store)?;
        let plugin = bound.plugin.load(&mut *store, &instance)?;
        if let Err(message) = plugin.call_configure(&mut *store, config)? {
            return Ok(Err(message));
        }
        store.data_mut().end_lines()?;
        let state = store.data();
        let configured = Configured {
            fuel: used(store, limits),
            memory_bytes: state.meter.peak_bytes(),
            log: state.log.clone(),
            host_calls: state.host_calls.clone(),
        };
        let snapshot = match bytes {
            Ok(bytes) => {
                // The reading is ours: it is not to end by the guest's limits.
                store.set_fuel(u64::MAX)?;
                store.set_hostcall_fuel(usize::MAX);
                store.set_epoch_deadline(u64::MAX / 2);
                store.data_mut().meter.lift();
                snapshot::take(bytes, store, instance)
            }
            Err(reason) => Err(reason.to_owned()),
        };
        Ok(Ok((configured, snapshot)))
    });
    called.map_or_else(|| Err(overloaded(&loaded.engine)), |(outcome, _)| outcome)
}

/// A declared input must be one that a recorder can serve.
pub(crate) fn check_input(input: &Input) -> Result<(), String> {
    match input {
        Input::Metric(MetricInput { name, unit, window_ms, step_ms, aggregation: _ }) => {
            if name.is_empty() || name.len() > 256 || unit.len() > 64 {
                return Err(format!("the name or unit of its input `{name}` is empty or too long"));
            }
            if *step_ms == 0 || window_ms < step_ms {
                return Err(format!(
                    "its input `{name}` has a window of {window_ms} ms in steps of {step_ms} ms: a step is at least 1 ms, a window at least one step"
                ));
            }
            if window_ms / step_ms > 100_000 {
                return Err(format!("its input `{name}` has more than 100,000 steps in its window"));
            }
        }
        Input::Events(EventInput { name, window_ms, at_most }) => {
            if name.is_empty() || name.len() > 256 {
                return Err(format!("the name of its input `{name}` is empty or too long"));
            }
            if *window_ms == 0 || *at_most == 0 || *at_most > 10_000 {
                return Err(format!(
                    "its input `{name}` asks for {at_most} events of {window_ms} ms: 1 to 10,000 events of at least 1 ms"
                ));
            }
        }
    }
    Ok(())
}

/// What a store leaves behind.
struct Run {
    state: State,
    fuel: u64,
    duration: Duration,
}

/// Runs `call` in a fresh store with all limits on; none if the pool had no room in time. Until told otherwise, the guest
/// finds the environment in which configs are taken.
fn in_store<T>(
    engine: &Engine,
    limits: &Limits,
    assets: &Assets,
    seed: &Arc<str>,
    call: impl FnOnce(usize, &mut Store<State>) -> Called<T>,
) -> Option<(Result<T, Fault>, Run)> {
    let inner: &Inner = &engine.0;
    let Some(place) = inner.enter() else {
        metrics::counter!(metric::LIMIT_HITS, "limit" => "pool").increment(1);
        return None;
    };
    let begun = clock::now();
    let mut store = Store::new(
        &inner.lanes[place.lane()].engine,
        State::new(limits, assets.clone(), Source::Activation { seed: Arc::clone(seed) }),
    );
    let called = match limit_store(&mut store, limits) {
        Ok(()) => call(place.lane(), &mut store),
        Err(error) => Err(Failure::Engine(error)),
    };
    let outcome = called.map_err(|failure| fault(failure, limits, store.data().meter.hit()));
    // A guest that failed may have left its last words open, too. Its failure stands, whatever becomes of them.
    let ended = store.data_mut().end_lines();
    let outcome = outcome.and_then(|answer| match ended {
        Ok(()) => Ok(answer),
        Err(error) => Err(fault(Failure::Engine(error), limits, store.data().meter.hit())),
    });
    let fuel = used(&store, limits);
    let state = store.into_data();
    let duration = clock::now().saturating_duration_since(begun);
    Some((outcome, Run { state, fuel, duration }))
}

/// Turns all limits on.
pub(crate) fn limit_store(store: &mut Store<State>, limits: &Limits) -> wasmtime::Result<()> {
    store.limiter(|state| &mut state.meter);
    store.set_epoch_deadline(Inner::ticks(limits.deadline_ms));
    store.set_hostcall_fuel(usize::try_from(limits.output_bytes).unwrap_or(usize::MAX));
    store.set_fuel(limits.fuel)
}

/// Fuel that the store's guest used of its limit.
fn used(store: &Store<State>, limits: &Limits) -> u64 {
    limits.fuel.saturating_sub(store.get_fuel().unwrap_or(0))
}

/// An instance that knows its config.
pub(crate) fn ready<'a>(active: &'a Active, lane: usize, store: &mut Store<State>) -> Called<(&'a Bound, Instance)> {
    if let Some(lanes) = &active.snapshot {
        let bound = lanes.of(lane);
        return Ok((bound, bound.pre.instantiate(&mut *store)?));
    }
    let bound = active.loaded.bound.of(lane);
    let instance = bound.pre.instantiate(&mut *store)?;
    let plugin = bound.plugin.load(&mut *store, &instance)?;
    plugin.call_configure(&mut *store, &active.config)?.map_err(Failure::Refused)?;
    Ok((bound, instance))
}

/// Makes an instance and asks it.
fn ask(
    active: &Active,
    lane: usize,
    limits: &Limits,
    question: &Question,
    source: Source,
    store: &mut Store<State>,
) -> Called<Answer> {
    let (bound, instance) = ready(active, lane, store)?;
    // From here on all is the question's, however the instance came to be.
    store.set_fuel(limits.fuel)?;
    store.set_hostcall_fuel(usize::try_from(limits.output_bytes).unwrap_or(usize::MAX));
    store.data_mut().turn(source);
    call(bound, &instance, question, store)
}

/// Asks an instance that knows its config.
pub(crate) fn call(
    bound: &Bound,
    instance: &Instance,
    question: &Question,
    store: &mut Store<State>,
) -> Called<Answer> {
    let bump = &Bump::new();
    match (&bound.verb, question) {
        (Verb::Score(score), Question::Score(observation)) => {
            let answer = score.call(store, instance, (&convert::observation(bump, observation),))?;
            let assessment = convert::assessment(answer.map_err(Failure::Refused)?).map_err(Failure::Invalid)?;
            Ok(Answer::Assessment(assessment))
        }
        (Verb::Plan(plan), Question::Plan { finding, evidence, candidates, catalogue }) => {
            let candidates: Vec<_> = candidates.iter().map(|item| convert::candidate(bump, item)).collect();
            let catalogue: Vec<_> = catalogue.iter().map(|item| convert::verb(bump, item)).collect();
            let finding = convert::finding(bump, finding);
            let evidence = convert::observation(bump, evidence);
            let answer = plan.call(store, instance, (&finding, &evidence, &candidates, &catalogue))?;
            let proposals = convert::proposals(answer.map_err(Failure::Refused)?).map_err(Failure::Invalid)?;
            Ok(Answer::Proposals(proposals))
        }
        (Verb::Judge(judge), Question::Judge(question)) => {
            let answer = judge.call(store, instance, (&convert::gate_question(bump, question),))?;
            let judgement = convert::judgement(answer.map_err(Failure::Refused)?).map_err(Failure::Invalid)?;
            Ok(Answer::Judgement(judgement))
        }
        (Verb::Route(route), Question::Route(question)) => {
            let answer = route.call(store, instance, (&convert::routing_question(bump, question),))?;
            let choices = convert::choices(answer.map_err(Failure::Refused)?).map_err(Failure::Invalid)?;
            Ok(Answer::Choices(choices))
        }
        // `evaluate` compared the roles before it made a store.
        (Verb::Score(_) | Verb::Plan(_) | Verb::Judge(_) | Verb::Route(_), _) => {
            Err(Failure::Invalid(Invalid("asked another role's question".into())))
        }
    }
}

/// What stopped an evaluation, in the host's words. Deterministic: no addresses, no times.
fn fault(failure: Failure, limits: &Limits, hit: Option<Hit>) -> Fault {
    let (kind, limit, message) = match failure {
        Failure::Refused(message) => {
            (FaultKind::Refused, None, format!("the component answered with an error: {message}"))
        }
        Failure::Invalid(Invalid(message)) => {
            (FaultKind::BadOutput, None, format!("the component's answer breaks the contract: {message}"))
        }
        Failure::Engine(error) => engine_fault(&error, limits, hit),
    };
    if let Some(limit) = limit {
        metrics::counter!(metric::LIMIT_HITS, "limit" => limit).increment(1);
    }
    Fault { kind, message }
}

fn engine_fault(
    error: &wasmtime::Error,
    limits: &Limits,
    hit: Option<Hit>,
) -> (FaultKind, Option<&'static str>, String) {
    match hit {
        Some(Hit::Memory) => {
            let message = format!("wanted more than {} bytes of memory and tables", limits.memory_bytes);
            return (FaultKind::OutOfMemory, Some("memory"), message);
        }
        Some(Hit::LogLines) => {
            let message = format!("wrote more than {} log lines", limits.log_lines);
            return (FaultKind::HostCall, Some("log-lines"), message);
        }
        Some(Hit::HostCalls) => {
            let message = format!("made more than {} host calls", limits.host_calls);
            return (FaultKind::HostCall, Some("host-calls"), message);
        }
        Some(Hit::WasiCalls) => {
            let message = format!("made more than {} calls of WASI functions", wasi::CALLS_MAXIMUM);
            return (FaultKind::HostCall, Some("wasi-calls"), message);
        }
        Some(Hit::WasiHandles) => {
            let message = format!("held more than {} handles of WASI at one time", wasi::HANDLES_MAXIMUM);
            return (FaultKind::HostCall, Some("wasi-handles"), message);
        }
        None => {}
    }
    if let Some(exit) = error.downcast_ref::<wasi::Exit>() {
        return (FaultKind::Trapped, None, exit.to_string());
    }
    // wasmtime attaches a backtrace to what goes wrong while the guest runs, its calls into the host included. Without
    // one the guest had returned, and its answer could not be read.
    let running = error.downcast_ref::<WasmBacktrace>().is_some();
    match error.downcast_ref::<Trap>() {
        Some(Trap::OutOfFuel) => (FaultKind::OutOfFuel, Some("fuel"), format!("used up its fuel of {}", limits.fuel)),
        Some(Trap::Interrupt) => {
            let message = format!("took longer than {} ms and was stopped by the watchdog", limits.deadline_ms);
            (FaultKind::TimedOut, Some("deadline"), message)
        }
        Some(Trap::StackOverflow) => (FaultKind::StackOverflow, Some("stack"), "ran out of stack".into()),
        // Segments that do not fit trap before any code of the guest runs.
        Some(trap @ (Trap::MemoryOutOfBounds | Trap::TableOutOfBounds)) => (FaultKind::Trapped, None, trap.to_string()),
        Some(trap) if running => (FaultKind::Trapped, None, trap.to_string()),
        // The host believes nothing of what a guest's allocator says.
        _ if root(error).starts_with("realloc return") => {
            let message = format!("its `cabi_realloc` gave a place that is none: {}", root(error));
            (FaultKind::BadOutput, None, message)
        }
        _ if running => (FaultKind::HostCall, None, format!("a host call failed: {}", root(error))),
        _ => {
            let message = format!(
                "its answer could not be read: {} (strings and lists together are limited to {} bytes)",
                root(error),
                limits.output_bytes
            );
            (FaultKind::BadOutput, Some("output"), message)
        }
    }
}

/// The innermost cause, which alone says what happened.
fn root(error: &wasmtime::Error) -> String {
    error.root_cause().to_string()
}

fn overloaded(engine: &Engine) -> Fault {
    let message = format!(
        "no room for another evaluation within {} ms: nothing was evaluated; raise the runtime's concurrency if this recurs",
        engine.0.wait().as_millis()
    );
    Fault { kind: FaultKind::Overloaded, message }
}

fn nothing(fault: Fault) -> Evaluation {
    Evaluation {
        outcome: Err(fault),
        fuel: 0,
        memory_bytes: 0,
        duration: Duration::ZERO,
        log: vec![],
        host_calls: vec![],
    }
}

/// A fault's kind as a label.
trait IntoLabel {
    fn into_label(self) -> &'static str;
}

impl IntoLabel for FaultKind {
    fn into_label(self) -> &'static str {
        match self {
            FaultKind::OutOfFuel => "out_of_fuel",
            FaultKind::TimedOut => "timed_out",
            FaultKind::OutOfMemory => "out_of_memory",
            FaultKind::StackOverflow => "stack_overflow",
            FaultKind::Trapped => "trapped",
            FaultKind::BadOutput => "bad_output",
            FaultKind::HostCall => "host_call",
            FaultKind::Refused => "refused",
            FaultKind::Overloaded => "overloaded",
        }
    }
}
