//! The runner: steps the virtual clock over a history, asks every component once a step, and hands what was said to the
//! trial in order of time. Synchronous, on threads of its own; what it may take is bounded, and it can be stopped.

use super::{Error, History, history::Part};
use crate::clock;
use aether_core::{
    backtest::{Asked, Costs, Event, Measure, Report, Told, Tolerance, Trial},
    combine,
    decision::{Answer, Assessment, Envelope, Fault, FaultKind, Question, Role},
    finding::Hysteresis,
    id::{Digest, SlotId},
    observation::{Column, Input, MetricInput, Observation},
    plan::canonical,
    slot,
    subject::{Subject, SubjectKind, SubjectRef},
    time::Time,
};
use aether_recorder::Excerpt;
use aether_runtime::{Environment, Prepared};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

/// Steps that are asked before the trial takes them: enough to keep threads busy, few enough to hold.
const BATCH: usize = 4_096;
/// The least stretch of recorded history that is read at one time.
const SLICE_MS: u64 = 3_600_000;
/// How often a full pool is asked again; each time it lets one wait for up to a second by itself.
const POOL_TRIES: u32 = 30;

/// The two that are compared.
#[derive(Clone)]
pub struct Sides {
    /// Everything that would answer together with the candidate in its place.
    pub candidate: Vec<Prepared>,
    /// Everything that answers now. None: the candidate alone; recorded decisions are then compared with what was
    /// recorded.
    pub current: Option<Vec<Prepared>>,
}

/// What is tested, on what, and what it is measured against.
pub struct Test {
    pub slot: Option<SlotId>,
    pub sides: Sides,
    pub hysteresis: Hysteresis,
    pub history: History,
    /// Subjects as components see them, labels included. A subject that is not among them has no labels.
    pub known: BTreeMap<SubjectRef, Subject>,
    /// Narrows an imported history; a recorded one has its own ends.
    pub from: Option<Time>,
    pub to: Option<Time>,
    /// None: the live tick, or the step of the data if that is longer.
    pub tick_ms: Option<u64>,
    pub live_tick_ms: u64,
    pub measure: Measure,
    pub events: Vec<Event>,
    pub tolerance: Tolerance,
    /// What planners, gates and routers were asked; scorers are asked observations instead.
    pub decisions: Vec<Envelope>,
}

/// What a backtest may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Evaluations at one time, 1 to 64.
    pub threads: usize,
    pub evaluations: u64,
    pub time_ms: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { threads: 2, evaluations: 5_000_000, time_ms: 3_600_000 }
    }
}

/// How far it is, and the word to stop.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicU64,
    of: AtomicU64,
    stop: AtomicBool,
}

impl Progress {
    pub fn stop(&self) {
        self.stop.store(true, Relaxed);
    }

    /// Evaluations done, and of how many as far as is known.
    pub fn told(&self) -> (u64, u64) {
        (self.done.load(Relaxed), self.of.load(Relaxed))
    }
}

/// Runs the test. Blocks: not for an async thread.
pub fn run(test: Test, bounds: &Bounds, progress: &Progress) -> Result<Report, Error> {
    let cast = Asking::new(&test.sides)?;
    let ends = clock::now().plus_ms(bounds.time_ms);
    let runner = Runner { key: key(&test, &cast), cast, bounds, progress, ends, test };
    match runner.cast.role {
        Role::RiskScorer => runner.scorers(),
        Role::RemediationPlanner | Role::PolicyGate | Role::Router => runner.decisions(),
    }
}

/// What the seeds of a test begin with: the same for the same components, configs and history.
fn key(test: &Test, cast: &Asking) -> String {
    let asked: Vec<Asked> = cast.all.iter().map(asked).collect();
    Digest::of(&canonical(&(asked, test.history.key()))).0
}

/// Each component of both sides once, with who of them is on which side.
struct Asking {
    role: Role,
    all: Vec<Prepared>,
    candidate: Vec<usize>,
    current: Option<Vec<usize>>,
}

impl Asking {
    fn new(sides: &Sides) -> Result<Self, Error> {
        let mut all: Vec<Prepared> = Vec::new();
        let mut number = |prepared: &Prepared| {
            let same = |other: &Prepared| asked(other) == asked(prepared) && other.limits() == prepared.limits();
            all.iter().position(same).unwrap_or_else(|| {
                all.push(prepared.clone());
                all.len() - 1
            })
        };
        let candidate = sides.candidate.iter().map(&mut number).collect();
        let current = sides.current.as_ref().map(|current| current.iter().map(&mut number).collect());
        let roles: BTreeSet<Role> = all.iter().map(Prepared::role).collect();
        match roles.first() {
            Some(role) if roles.len() == 1 => Ok(Self { role: *role, all, candidate, current }),
            _ => Err(Error::Roles(roles.iter().map(|role| role.world()).collect::<Vec<_>>().join(", "))),
        }
    }
}

fn asked(prepared: &Prepared) -> Asked {
    let description = prepared.description();
    Asked {
        name: description.name.clone(),
        version: description.version.clone(),
        component: prepared.digest().clone(),
        config: prepared.config_digest().clone(),
        assets: prepared.assets_digest().cloned(),
    }
}

/// What one component said, with what it cost.
struct Said {
    outcome: Result<Answer, Fault>,
    fuel: u64,
    memory_bytes: u64,
}

/// One question to all components.
struct Step {
    at: Time,
    seed: String,
    question: Asks,
    lookback: Arc<Lookback>,
}

enum Asks {
    /// Each component gets the columns that it declared.
    Observe {
        subject: Subject,
        excerpt: Arc<Excerpt>,
    },
    Recorded(Box<Question>),
}

struct Runner<'a> {
    test: Test,
    cast: Asking,
    key: String,
    bounds: &'a Bounds,
    progress: &'a Progress,
    ends: Time,
}

impl Runner<'_> {
    fn scorers(&self) -> Result<Report, Error> {
        let Test { history, known, hysteresis, .. } = &self.test;
        let inputs: Vec<Input> =
            self.cast.all.iter().flat_map(|prepared| prepared.description().inputs.clone()).collect();
        let mut costs = vec![Costs::default(); self.cast.all.len()];
        let mut trial = Trial::new(hysteresis, self.cast.current.is_some());
        let (mut notes, mut read, mut there) = (BTreeSet::new(), false, BTreeSet::new());
        let slices = self.slices(&inputs)?;
        let tick_ms = slices.tick_ms;
        for (from, to) in slices.parts {
            let Part { subjects, cut, unreadable } = history.excerpts(&inputs, None, from, to)?;
            if cut {
                notes.insert("Some of the history was too large to read at one time and is missing: raise `recorder.query_bytes_limit`.".to_owned());
            }
            if unreadable > 0 {
                notes.insert("Some segments of the history could not be read; what they held is missing.".to_owned());
            }
            let lookback = Arc::new(Lookback::new(history.clone(), from, to));
            let mut steps = Vec::new();
            for (subject, excerpt) in subjects {
                // Live, nodes are scored and nothing else.
                let recorded = matches!(history, History::Recorded { .. });
                if recorded && subject.kind != SubjectKind::Node {
                    continue;
                }
                if !reads(&inputs, &excerpt) {
                    there.extend(excerpt.names().into_iter().map(|(name, unit)| named(name, unit)));
                    continue;
                }
                read = true;
                let Some((first, last)) = self.span(&excerpt, from, to) else { continue };
                let seen = known.get(&subject).cloned().unwrap_or_else(|| Subject {
                    kind: subject.kind,
                    id: subject.id.clone(),
                    generation: 1,
                    labels: BTreeMap::new(),
                });
                let mut at = first;
                while at <= last {
                    steps.push((subject.clone(), self.step(&seen, &excerpt, at, &lookback)));
                    at = at.plus_ms(tick_ms);
                    if steps.len() == BATCH {
                        self.score(std::mem::take(&mut steps), &mut trial, &mut costs)?;
                    }
                }
            }
            self.score(steps, &mut trial, &mut costs)?;
        }
        if !read {
            return Err(nothing(&inputs, &there));
        }
        if let Some(reach) = history.reach_ms()
            && inputs.iter().any(|input| matches!(input, Input::Metric(metric) if metric.window_ms > reach))
        {
            notes.insert(format!(
                "A component asks for a longer window than the {} min that the host holds in memory; it was shown what it would have been shown live.",
                reach / 60_000
            ));
        }
        Ok(self.report(trial, costs, Some(tick_ms), notes))
    }

    fn step(&self, subject: &Subject, excerpt: &Arc<Excerpt>, at: Time, lookback: &Arc<Lookback>) -> Step {
        Step {
            at,
            seed: format!("{}/{}/{}", self.key, subject.subject(), at.0),
            question: Asks::Observe { subject: subject.clone(), excerpt: Arc::clone(excerpt) },
            lookback: Arc::clone(lookback),
        }
    }

    /// When a subject is asked first and last within a slice.
    fn span(&self, excerpt: &Excerpt, from: Time, to: Time) -> Option<(Time, Time)> {
        match &self.test.history {
            History::Recorded { .. } => Some((from, to)),
            History::Imported(_) => {
                let (first, last) = excerpt.span()?;
                Some((first.max(self.test.from.unwrap_or(first)), last.min(self.test.to.unwrap_or(last))))
            }
        }
    }

    /// The stretches that are read one after another, and the tick.
    fn slices(&self, inputs: &[Input]) -> Result<Slices, Error> {
        let Test { history, tick_ms, live_tick_ms, .. } = &self.test;
        let asked = u64::try_from(self.cast.all.len()).unwrap_or(u64::MAX);
        match history {
            History::Imported(imported) => {
                let step = imported.subjects().filter_map(|(_, excerpt)| excerpt.step_ms()).min();
                let tick_ms = tick_ms.unwrap_or_else(|| step.unwrap_or(0).max(*live_tick_ms)).max(1);
                let spans = imported.subjects().filter_map(|(_, excerpt)| self.span(excerpt, Time(0), Time(0)));
                let steps =
                    spans.filter(|(first, last)| first <= last).map(|(first, last)| last.since_ms(first) / tick_ms + 1);
                self.bound(steps.fold(0u64, u64::saturating_add).saturating_mul(asked))?;
                Ok(Slices { tick_ms, parts: vec![(Time(i64::MIN), Time(i64::MAX))] })
            }
            History::Recorded { from, to, .. } => {
                let tick_ms = tick_ms.unwrap_or(*live_tick_ms).max(1);
                let nodes = u64::try_from(self.test.known.len().max(1)).unwrap_or(u64::MAX);
                self.bound((to.since_ms(*from) / tick_ms + 1).saturating_mul(nodes).saturating_mul(asked))?;
                let reach = inputs.iter().map(|input| match input {
                    Input::Metric(metric) => metric.window_ms,
                    Input::Events(events) => events.window_ms,
                });
                let longest = reach.max().unwrap_or(0).min(history.reach_ms().unwrap_or(u64::MAX));
                // As long as what is looked back on, so that nothing is read more than about twice; whole ticks, so that
                // the clock goes on evenly.
                let length = SLICE_MS.max(longest).next_multiple_of(tick_ms);
                let mut parts = Vec::new();
                let mut begin = *from;
                while begin <= *to {
                    let next = begin.plus_ms(length);
                    parts.push((begin, next.minus_ms(1).min(*to)));
                    begin = next;
                }
                Ok(Slices { tick_ms, parts })
            }
        }
    }

    fn bound(&self, evaluations: u64) -> Result<(), Error> {
        self.progress.of.store(evaluations, Relaxed);
        let limit = self.bounds.evaluations;
        if evaluations > limit { Err(Error::TooMany { given: evaluations, limit }) } else { Ok(()) }
    }

    fn score(&self, steps: Vec<(SubjectRef, Step)>, trial: &mut Trial, costs: &mut [Costs]) -> Result<(), Error> {
        let answers = self.ask(steps.iter().map(|(_, step)| step).collect())?;
        for ((subject, step), answers) in steps.iter().zip(answers) {
            count(costs, &answers);
            let assessments: Vec<(&str, Result<&Assessment, &Fault>)> = self
                .cast
                .all
                .iter()
                .zip(&answers)
                .map(|(prepared, said)| (prepared.description().name.as_str(), assessment(&said.outcome)))
                .collect();
            let scored = |side: &[usize]| combine::scores(side.iter().map(|number| assessments[*number]));
            let current = self.cast.current.as_deref().map(scored);
            trial.observe(subject, step.at, &scored(&self.cast.candidate), current.as_ref());
        }
        Ok(())
    }

    fn decisions(&self) -> Result<Report, Error> {
        let role = self.cast.role;
        let mut recorded: Vec<&Envelope> =
            self.test.decisions.iter().filter(|envelope| envelope.question.role() == role).collect();
        recorded.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        // Every entry of a slot was asked the same; each question is asked again once.
        let mut known = BTreeSet::new();
        recorded.retain(|envelope| known.insert(Digest::of(&canonical(&(envelope.at, &envelope.question)))));
        if recorded.is_empty() {
            return Err(Error::Nothing(format!(
                "no decision of a {} is kept for this stretch of time; those that incidents refer to are",
                role.world()
            )));
        }
        let asked = u64::try_from(recorded.len() * self.cast.all.len()).unwrap_or(u64::MAX);
        self.bound(asked)?;
        let mut costs = vec![Costs::default(); self.cast.all.len()];
        let mut trial = Trial::new(&self.test.hysteresis, true);
        let (mut then, mut then_costs) = (Vec::new(), Costs::default());
        for batch in recorded.chunks(BATCH) {
            let steps: Vec<Step> = batch
                .iter()
                .map(|envelope| Step {
                    at: envelope.at,
                    seed: envelope.id.0.clone(),
                    question: Asks::Recorded(Box::new(envelope.question.clone())),
                    lookback: Arc::new(Lookback::new(self.test.history.clone(), envelope.at, envelope.at)),
                })
                .collect();
            let answers = self.ask(steps.iter().collect())?;
            for (envelope, answers) in batch.iter().zip(answers) {
                count(&mut costs, &answers);
                let combined = |side: &[usize]| {
                    let answers = side
                        .iter()
                        .map(|number| (self.cast.all[*number].description().name.as_str(), &answers[*number].outcome));
                    together(role, answers.collect())
                };
                let candidate = combined(&self.cast.candidate);
                let current = match &self.cast.current {
                    Some(current) => combined(current),
                    None => {
                        let Envelope { component_name, component_version, component, config, assets, .. } = envelope;
                        let asked = Asked {
                            name: component_name.clone(),
                            version: component_version.clone(),
                            component: component.clone(),
                            config: config.clone(),
                            assets: assets.clone(),
                        };
                        if !then.contains(&asked) {
                            then.push(asked);
                        }
                        let fault = envelope.outcome.as_ref().err().map(|fault| fault.kind);
                        then_costs.count(envelope.fuel, envelope.memory_bytes, fault);
                        envelope.outcome.clone()
                    }
                };
                trial.decide(&envelope.id, &slot::key(&envelope.question), envelope.at, &candidate, &current);
            }
        }
        let mut told = self.told(costs, None, BTreeSet::new());
        told.current = told.current.or(Some((then, then_costs)));
        Ok(trial.report(told))
    }

    /// Asks every component each step's question, on the bounded number of threads, in order.
    fn ask(&self, steps: Vec<&Step>) -> Result<Vec<Vec<Said>>, Error> {
        if steps.is_empty() {
            return Ok(vec![]);
        }
        let part = steps.len().div_ceil(self.bounds.threads.clamp(1, 64));
        let asked: Result<Vec<Vec<Vec<Said>>>, Error> = std::thread::scope(|scope| {
            let threads: Vec<_> = steps
                .chunks(part)
                .map(|steps| scope.spawn(move || steps.iter().map(|step| self.ask_all(step)).collect()))
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Died))).collect()
        });
        Ok(asked?.into_iter().flatten().collect())
    }

    fn ask_all(&self, step: &Step) -> Result<Vec<Said>, Error> {
        let (done, of) = self.progress.told();
        if self.progress.stop.load(Relaxed) {
            return Err(Error::Stopped { done, of });
        }
        if clock::now() > self.ends {
            return Err(Error::TimeLimit { limit_ms: self.bounds.time_ms });
        }
        let said = self.cast.all.iter().map(|prepared| self.ask_one(prepared, step)).collect();
        self.progress.done.fetch_add(u64::try_from(self.cast.all.len()).unwrap_or(0), Relaxed);
        Ok(said)
    }

    fn ask_one(&self, prepared: &Prepared, step: &Step) -> Said {
        let question = match &step.question {
            Asks::Recorded(question) => (**question).clone(),
            Asks::Observe { subject, excerpt } => {
                let inputs = &prepared.description().inputs;
                Question::Score(Observation {
                    subject: subject.clone(),
                    at: step.at,
                    columns: excerpt.columns(inputs, step.at, self.test.history.reach_ms()),
                    events: excerpt.events(inputs, step.at),
                })
            }
        };
        let environment = || Environment {
            at: step.at,
            seed: step.seed.clone(),
            history: Some(Arc::new(At { lookback: Arc::clone(&step.lookback), at: step.at })),
        };
        let mut evaluation = prepared.evaluate(&question, environment());
        for _ in 0..POOL_TRIES {
            let full = matches!(&evaluation.outcome, Err(fault) if fault.kind == FaultKind::Overloaded);
            if !full || self.progress.stop.load(Relaxed) {
                break;
            }
            evaluation = prepared.evaluate(&question, environment());
        }
        Said { outcome: evaluation.outcome, fuel: evaluation.fuel, memory_bytes: evaluation.memory_bytes }
    }

    fn report(&self, trial: Trial, costs: Vec<Costs>, tick_ms: Option<u64>, notes: BTreeSet<String>) -> Report {
        trial.report(self.told(costs, tick_ms, notes))
    }

    fn told(&self, costs: Vec<Costs>, tick_ms: Option<u64>, mut notes: BTreeSet<String>) -> Told {
        let Test { slot, measure, events, tolerance, .. } = &self.test;
        let side = |numbers: &[usize]| {
            let mut all = Costs::default();
            for number in numbers {
                all.add(&costs[*number]);
            }
            (numbers.iter().map(|number| asked(&self.cast.all[*number])).collect::<Vec<_>>(), all)
        };
        let host = [FaultKind::TimedOut, FaultKind::StackOverflow, FaultKind::Overloaded];
        if costs.iter().any(|costs| host.iter().any(|kind| costs.faults(*kind) > 0)) {
            notes.insert("The host stopped some evaluations by the clock or for want of room; how many depends on the machine, so this report may differ elsewhere.".into());
        }
        Told {
            role: self.cast.role,
            slot: slot.clone(),
            tick_ms,
            measure: *measure,
            events: events.clone(),
            tolerance: *tolerance,
            candidate: side(&self.cast.candidate),
            current: self.cast.current.as_deref().map(side),
            notes: notes.into_iter().collect(),
        }
    }
}

/// Whether a subject has anything of what is read.
fn reads(inputs: &[Input], excerpt: &Excerpt) -> bool {
    let names = excerpt.names();
    inputs.iter().any(|input| match input {
        Input::Metric(metric) => names.contains(&(metric.name.as_str(), Some(metric.unit.as_str()))),
        Input::Events(events) => names.contains(&(events.name.as_str(), None)),
    })
}

fn named(name: &str, unit: Option<&str>) -> String {
    unit.map_or_else(|| format!("{name} (event)"), |unit| format!("{name} [{unit}]"))
}

/// Why nobody could be asked: what is read, and what there is.
fn nothing(inputs: &[Input], there: &BTreeSet<String>) -> Error {
    let declared: BTreeSet<String> = inputs
        .iter()
        .map(|input| match input {
            Input::Metric(metric) => named(&metric.name, Some(&metric.unit)),
            Input::Events(events) => named(&events.name, None),
        })
        .collect();
    let listed = |names: &BTreeSet<String>| match names.is_empty() {
        true => "nothing".to_owned(),
        false => names.iter().cloned().collect::<Vec<_>>().join(", "),
    };
    Error::Nothing(format!(
        "the history holds nothing that the components read. They read {}; it holds {}",
        listed(&declared),
        listed(there)
    ))
}

struct Slices {
    tick_ms: u64,
    parts: Vec<(Time, Time)>,
}

fn count(costs: &mut [Costs], answers: &[Said]) {
    for (costs, said) in costs.iter_mut().zip(answers) {
        costs.count(said.fuel, said.memory_bytes, said.outcome.as_ref().err().map(|fault| fault.kind));
    }
}

/// What a scorer said. Another kind of answer cannot come from the runtime.
fn assessment(outcome: &Result<Answer, Fault>) -> Result<&Assessment, &Fault> {
    static OTHER: std::sync::LazyLock<Fault> = std::sync::LazyLock::new(|| Fault {
        kind: FaultKind::BadOutput,
        message: "the answer is of another role".into(),
    });
    match outcome {
        Ok(Answer::Assessment(assessment)) => Ok(assessment),
        Ok(Answer::Proposals(_) | Answer::Judgement(_) | Answer::Choices(_)) => Err(&OTHER),
        Err(fault) => Err(fault),
    }
}

/// The answers of one side as its slot would combine them. One alone is as it is, faults included.
fn together(role: Role, answers: Vec<(&str, &Result<Answer, Fault>)>) -> Result<Answer, Fault> {
    if let [(_, one)] = answers[..] {
        return one.clone();
    }
    Ok(match role {
        Role::PolicyGate => {
            let judged = answers.iter().filter_map(|(name, answer)| match answer {
                Ok(Answer::Judgement(judgement)) => Some((*name, Ok(judgement))),
                Ok(Answer::Assessment(_) | Answer::Proposals(_) | Answer::Choices(_)) => None,
                Err(fault) => Some((*name, Err(fault))),
            });
            Answer::Judgement(combine::judgements(judged))
        }
        Role::Router => {
            let chosen = answers.into_iter().filter_map(|(_, answer)| match answer {
                Ok(Answer::Choices(choices)) => Some(choices.clone()),
                Ok(Answer::Assessment(_) | Answer::Proposals(_) | Answer::Judgement(_)) | Err(_) => None,
            });
            Answer::Choices(combine::choices(chosen.collect()))
        }
        Role::RemediationPlanner | Role::RiskScorer => {
            let proposed = answers.into_iter().filter_map(|(_, answer)| match answer {
                Ok(Answer::Proposals(proposals)) => Some(proposals.clone()),
                Ok(Answer::Assessment(_) | Answer::Judgement(_) | Answer::Choices(_)) | Err(_) => None,
            });
            Answer::Proposals(combine::proposals(proposed.collect()))
        }
    })
}

/// Look-backs of components within one slice: each series is read once.
struct Lookback {
    history: History,
    from: Time,
    to: Time,
    read: Mutex<BTreeMap<(SubjectRef, MetricInput), Arc<Excerpt>>>,
}

impl Lookback {
    fn new(history: History, from: Time, to: Time) -> Self {
        Self { history, from, to, read: Mutex::default() }
    }

    fn columns(&self, subject: &SubjectRef, metric: &MetricInput, at: Time) -> Result<Vec<Column>, String> {
        let inputs = [Input::Metric(metric.clone())];
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let excerpt = match read.get(&(subject.clone(), metric.clone())) {
            Some(excerpt) => Arc::clone(excerpt),
            None => {
                let only = BTreeSet::from([subject.clone()]);
                let mut part = self
                    .history
                    .excerpts(&inputs, Some(only), self.from, self.to)
                    .map_err(|_| "the recorded history could not be read".to_owned())?;
                let excerpt = part.subjects.remove(subject).unwrap_or_default();
                read.insert((subject.clone(), metric.clone()), Arc::clone(&excerpt));
                excerpt
            }
        };
        drop(read);
        Ok(excerpt.columns(&inputs, at, self.history.reach_ms()))
    }
}

/// A look-back at one time: nothing after it is seen.
struct At {
    lookback: Arc<Lookback>,
    at: Time,
}

impl aether_runtime::History for At {
    fn query(&self, subject: &Subject, metric: &MetricInput) -> Result<Vec<Column>, String> {
        self.lookback.columns(&subject.subject(), metric, self.at)
    }
}
