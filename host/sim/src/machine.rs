//! The machines and what runs on them: where an order has its effect, and where the effects are counted.
//!
//! [`World`] is what a node really executed, whatever anybody says of it. [`Machine`] carries orders out in it as the
//! agent's own executor does on a real one: phases in the agent's journal, and outcomes that promise the same.

use crate::{
    dice::{Rng, happens},
    faults::Fault,
    island::Death,
    shared::{Mutation, Shared},
};
use aether_agent::{
    act::{
        Work,
        check::{Refusal, Task},
        journal::Witness,
        run::Run,
    },
    clock,
    workloads::{Body, Entry, Registry, State},
};
use aether_core::{
    catalogue::verb,
    id::WorkloadId,
    order::{Direction, IdempotencyKey, Outcome, OutcomeStatus},
    plan::PlanHash,
    subject::SubjectRef,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// One copy of a workload on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    pub running: bool,
    pub generation: u64,
}

/// One order that was begun.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub at: u64,
    pub node: usize,
    pub key: IdempotencyKey,
    pub plan: PlanHash,
    pub subject: SubjectRef,
    pub verb: String,
}

/// All that really is.
#[derive(Default)]
pub(crate) struct World {
    copies: BTreeMap<(usize, WorkloadId), Copy>,
    /// Orders that had an effect, in order.
    pub begun: Vec<Begun>,
    /// How each order really ended.
    pub ended: BTreeMap<IdempotencyKey, OutcomeStatus>,
    /// Undoings that agents refused, and why.
    pub refused: Vec<(IdempotencyKey, &'static str)>,
    /// The newest lease of all, and the newest that each node was welcomed under.
    pub lease: u64,
    pub welcomed: BTreeMap<usize, u64>,
    /// What is done to a target now, by which order of which plan.
    acting: BTreeMap<SubjectRef, (usize, IdempotencyKey)>,
    pub executed: u64,
    /// Orders that never end, as a process in an uninterruptible sleep does not.
    pub hung: BTreeSet<IdempotencyKey>,
    /// What must never be.
    pub broken: Vec<String>,
}

impl World {
    pub(crate) fn copies(&self) -> &BTreeMap<(usize, WorkloadId), Copy> {
        &self.copies
    }

    pub(crate) fn running(&self, id: &WorkloadId) -> Vec<usize> {
        let copies = self.copies.iter().filter(|((_, other), copy)| other == id && copy.running);
        copies.map(|((node, _), _)| *node).collect()
    }

    /// A workload that its agent has started, as it is told to when there is none.
    pub(crate) fn started(&mut self, node: usize, id: &WorkloadId, generation: u64) {
        self.set(node, id, Some(Copy { running: true, generation }));
    }

    fn set(&mut self, node: usize, id: &WorkloadId, copy: Option<Copy>) {
        match copy {
            Some(copy) => drop(self.copies.insert((node, id.clone()), copy)),
            None => drop(self.copies.remove(&(node, id.clone()))),
        }
        let running = self.running(id);
        if running.len() > 1 {
            self.broken.push(format!("two copies of {id} run at once, on the nodes {running:?}"));
        }
    }

    fn begin(&mut self, at: u64, node: usize, task: &Task) {
        self.executed += 1;
        let (key, subject) = (&task.order.key, task.target.subject());
        let before = self.begun.iter().find(|begun| begun.key == *key).map(|begun| begun.node);
        // Looking at progress changes nothing and may be done again.
        match before.filter(|_| task.verb != verb::CONFIRM) {
            Some(before) => {
                self.broken.push(format!("{} of {subject} ran twice: on node {before} and on {node}", task.verb));
            }
            None => {
                if before.is_none() && self.welcomed.get(&node).is_some_and(|newest| task.order.lease < *newest) {
                    let of = task.order.lease;
                    self.broken.push(format!("{} of {subject} ran under the lease {of}, which was over", task.verb));
                }
            }
        }
        let plan = task.order.plan.clone();
        self.begun.push(Begun { at, node, key: key.clone(), plan, subject: subject.clone(), verb: task.verb.clone() });
        if let Some((other, key)) = self.acting.insert(subject.clone(), (node, task.order.key.clone()))
            && key != task.order.key
        {
            self.broken.push(format!("two actions on {subject} at once, on the nodes {other} and {node}"));
        }
    }

    fn end(&mut self, task: &Task) {
        let subject = task.target.subject();
        if self.acting.get(&subject).is_some_and(|(_, key)| *key == task.order.key) {
            self.acting.remove(&subject);
        }
    }

    /// What its agent did ends with it.
    pub(crate) fn agent_died(&mut self, node: usize) {
        self.acting.retain(|_, (acting, _)| *acting != node);
    }
}

/// Where one life of an agent ends by itself: the so manieth time that it comes to a place.
pub(crate) struct Fuse {
    aim: Mutex<Option<(&'static str, u64)>>,
    death: Arc<Death>,
    shared: Arc<Shared>,
    node: usize,
}

impl Fuse {
    pub(crate) fn new(
        aim: Option<(&'static str, u64)>,
        death: Arc<Death>,
        shared: Arc<Shared>,
        node: usize,
    ) -> Arc<Self> {
        Arc::new(Self { aim: Mutex::new(aim), death, shared, node })
    }

    fn burns(&self, place: &str) -> bool {
        let mut aim = self.aim.lock().unwrap_or_else(PoisonError::into_inner);
        let here = match &mut *aim {
            Some((aimed, 0)) if *aimed == place => true,
            Some((aimed, left)) if *aimed == place => {
                *left -= 1;
                false
            }
            Some(_) | None => false,
        };
        if here && !self.shared.is_quiet() {
            *aim = None;
            self.shared.death(self.node, place);
            return true;
        }
        false
    }

    async fn at(&self, place: &str) {
        if self.burns(place) {
            self.death.die().await;
        }
    }
}

impl Witness for Fuse {
    fn at(&self, step: &str, written: bool) {
        let place = format!("{} {step}", if written { "after" } else { "before" });
        if self.burns(&place) {
            self.death.mark();
            // Whatever was at work is cut off here.
            std::panic::resume_unwind(Box::new("the agent died"));
        }
    }
}

/// Carries out orders on one node, for one life of its agent.
pub(crate) struct Machine {
    pub node: usize,
    pub shared: Arc<Shared>,
    pub registry: Arc<Registry>,
    pub fuse: Arc<Fuse>,
    pub dice: Mutex<Rng>,
}

struct Done {
    status: OutcomeStatus,
    code: &'static str,
    message: String,
    manifest: Option<String>,
}

fn done(status: OutcomeStatus, code: &'static str, message: impl Into<String>) -> Done {
    Done { status, code, message: message.into(), manifest: None }
}
fn ok(message: impl Into<String>) -> Done {
    done(OutcomeStatus::Succeeded, "ok", message)
}
fn failed(code: &'static str, message: impl Into<String>) -> Done {
    done(OutcomeStatus::Failed, code, message)
}
fn unknown(code: &'static str, message: impl Into<String>) -> Done {
    done(OutcomeStatus::Unknown, code, message)
}

impl Machine {
    fn rolls(&self, fault: Fault, task: &Task) -> bool {
        let happens = !self.shared.is_quiet()
            && happens(&mut self.dice.lock().unwrap_or_else(PoisonError::into_inner), self.shared.odds.get(fault));
        if happens {
            self.shared.fault(fault, format!("node {}: {}", self.node, task.verb));
        }
        happens
    }

    /// Something that takes a while. An error says why it must not go on.
    async fn work(&self, run: &Run) -> Result<(), Done> {
        let takes = self.dice.lock().unwrap_or_else(PoisonError::into_inner).u64(50..2_000);
        tokio::time::sleep(Duration::from_millis(takes)).await;
        if self.rolls(Fault::StepHung, run.task()) {
            let for_ever = self.dice.lock().unwrap_or_else(PoisonError::into_inner).bool();
            if for_ever {
                self.shared.world().hung.insert(run.task().order.key.clone());
                std::future::pending::<()>().await;
            }
            while run.check().is_ok() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        run.check().map_err(|interrupted| failed(interrupted.code(), interrupted.to_string()))?;
        if self.rolls(Fault::StepFailed, run.task()) {
            return Err(failed("sim.failed", "it failed, as was wanted"));
        }
        Ok(())
    }

    fn phase(run: &Run, phase: &str) -> Result<(), Done> {
        run.phase(phase).map_err(|error| failed("agent.disk", error.to_string()))
    }

    fn put(&self, entry: &Entry, generation: u64, state: State) -> Result<(), Done> {
        let entry = Entry { generation, state, since: clock::now(), ..entry.clone() };
        self.registry.put(entry).map_err(|error| unknown("agent.disk", error.to_string()))
    }

    /// The truth of it, in the trace too.
    fn becomes(&self, id: &WorkloadId, copy: Option<Copy>, why: &str) {
        self.shared.note(format!("node {}: {id} becomes {copy:?} ({why})", self.node));
        self.shared.world().set(self.node, id, copy);
    }

    async fn checkpoint(&self, run: &Run) -> Result<Done, Done> {
        let task = run.task();
        let entry = self.registry.get(&task.workload).ok_or_else(|| failed("target.missing", "it left"))?;
        Self::phase(run, "dumping")?;
        self.work(run).await?;
        let stopped = Copy { running: false, generation: entry.generation };
        self.becomes(&task.workload, Some(stopped), "dumped");
        self.fuse.at("dumped").await;
        self.put(&entry, entry.generation, State::Stopped)?;
        let stored = match Self::phase(run, "storing") {
            Ok(()) => self.work(run).await,
            Err(done) => Err(done),
        };
        match stored {
            Ok(()) => {
                let manifest = blake3::hash(task.order.key.0.as_bytes()).to_hex().to_string();
                Ok(Done { manifest: Some(manifest), ..ok("dumped and stored; the source is stopped") })
            }
            Err(why) => Err(self.goes_on(&entry, why)),
        }
    }

    /// As in the agent's own executor: the source goes on as the next generation.
    fn goes_on(&self, entry: &Entry, why: Done) -> Done {
        if self.shared.is_broken(Mutation::LeavesStopped) {
            return why;
        }
        let running = Copy { running: true, generation: entry.generation + 1 };
        self.becomes(&entry.spec.id, Some(running), "goes on");
        match self.put(entry, entry.generation + 1, State::Running) {
            Ok(()) => why,
            Err(lost) => lost,
        }
    }

    async fn restore(&self, run: &Run) -> Result<Done, Done> {
        let task = run.task();
        Self::phase(run, "verifying")?;
        self.work(run).await?;
        Self::phase(run, "restoring")?;
        self.work(run).await?;
        let generation = task.target.generation + 1;
        self.becomes(&task.workload, Some(Copy { running: true, generation }), "restored");
        self.fuse.at("restored").await;
        let entry = self.entry(task, generation);
        self.put(&entry, generation, State::Running)?;
        if self.rolls(Fault::StepUnknown, task) {
            return Err(unknown("sim.unknown", "nobody can say what became of it, as was wanted"));
        }
        Ok(ok("restored"))
    }

    fn entry(&self, task: &Task, generation: u64) -> Entry {
        Entry {
            spec: crate::node::workload(task.workload.as_str()),
            generation,
            state: State::Running,
            since: clock::now(),
            body: Body::Simulated { base: 0, since: clock::now() },
            adopted: false,
            tcp: Default::default(),
        }
    }

    async fn confirm(&self, run: &Run) -> Result<Done, Done> {
        self.work(run).await?;
        let wanted = run.task().target.generation + 1;
        match self.registry.get(&run.task().workload) {
            Some(entry) if entry.generation == wanted && entry.state == State::Running => Ok(ok("it progresses")),
            Some(_) | None => Err(failed("progress.none", "the restored workload is not here")),
        }
    }

    fn resume(&self, task: &Task) -> Done {
        match self.registry.get(&task.workload) {
            Some(entry) if entry.generation == task.target.generation => self.goes_on(&entry, ok("the source goes on")),
            Some(entry) if entry.generation == task.target.generation + 1 && entry.state == State::Running => {
                ok("the source goes on")
            }
            Some(_) | None => failed("source.lost", "the source is not known here any more"),
        }
    }

    fn leave(&self, task: &Task, message: &str) -> Done {
        let Some(entry) = self.registry.get(&task.workload) else { return ok(message) };
        self.becomes(&task.workload, None, message);
        match self.registry.depart(&task.workload, entry.generation) {
            Ok(()) => ok(message),
            Err(error) => unknown("agent.disk", error.to_string()),
        }
    }

    /// A copy that a crash left and that is in no register.
    fn clear_up(&self, task: &Task) {
        let known = self.registry.get(&task.workload).is_some();
        let there = self.shared.world().copies().contains_key(&(self.node, task.workload.clone()));
        if there && !known {
            self.becomes(&task.workload, None, "cleared up");
        }
    }

    fn outcome(&self, task: &Task, done: Done, started_at: aether_core::time::Time) -> Outcome {
        let Done { status, code, message, manifest } = done;
        self.shared.world().ended.insert(task.order.key.clone(), status);
        self.shared.note(format!("node {}: {status:?} {code}: {message}", self.node));
        Outcome {
            status,
            code: code.into(),
            message,
            evidence: BTreeMap::new(),
            outputs: manifest.map(|manifest| ("manifest".to_string(), manifest)).into_iter().collect(),
            simulated: true,
            started_at,
            ended_at: clock::now(),
        }
    }
}

#[tonic::async_trait]
impl Work for Machine {
    fn ready(&self, task: &Task) -> Result<(), Refusal> {
        if self.shared.is_broken(Mutation::LimitsUndoing) && task.order.direction == Direction::Compensate {
            let code = "breaker.open";
            self.shared.world().refused.push((task.order.key.clone(), code));
            return Err(Refusal { code, reason: "as the mutation wants".into() });
        }
        Ok(())
    }

    fn settle(&self, task: &Task, phase: Option<&str>) -> Option<Outcome> {
        const CODE: &str = "agent.restarted";
        self.shared.note(format!("node {}: settles {} in {phase:?}", self.node, task.verb));
        let entry = self.registry.get(&task.workload);
        let settled = match task.verb.as_str() {
            verb::CONFIRM => return None,
            _ if task.dry_run => return None,
            verb::CHECKPOINT => match entry.filter(|entry| entry.generation == task.target.generation) {
                Some(entry) => self.goes_on(&entry, failed(CODE, "cut short; the source runs")),
                None => unknown(CODE, "cut short, and the source is not known here"),
            },
            verb::RESUME => self.resume(task),
            verb::RESTORE => match entry.filter(|entry| entry.generation == task.target.generation + 1) {
                Some(_) => ok("restored; the agent was restarted before it could say so"),
                None => {
                    self.clear_up(task);
                    failed(CODE, "cut short; nothing of a copy is left")
                }
            },
            verb::DISCARD => {
                self.clear_up(task);
                self.leave(task, "the copy is gone")
            }
            verb::RETIRE => match entry {
                None => ok("the source is gone"),
                Some(_) => failed(CODE, "cut short; the source is still there, stopped"),
            },
            _ => unknown(CODE, "cut short"),
        };
        Some(self.outcome(task, settled, clock::now()))
    }

    async fn carry_out(self: Arc<Self>, run: Run) -> Outcome {
        let started_at = clock::now();
        let task = run.task();
        self.shared
            .note(format!("node {}: begins {} of {} (fence {})", self.node, task.verb, task.target, task.order.fence));
        if let Some(why) = self.shared.book().not_approved(&task.order.plan) {
            self.shared.world().broken.push(format!("{} of {} ran {why}", task.verb, task.target));
        }
        self.shared.world().begin(self.shared.now(), self.node, task);
        let ended = match task.verb.as_str() {
            _ if task.dry_run => Ok(ok("all checks passed; nothing was done")),
            verb::CHECKPOINT => self.checkpoint(&run).await,
            verb::RESTORE => self.restore(&run).await,
            verb::CONFIRM => self.confirm(&run).await,
            verb::RESUME => Ok(self.resume(task)),
            verb::DISCARD => {
                self.clear_up(task);
                Ok(self.leave(task, "the copy is gone"))
            }
            verb::RETIRE => match self.work(&run).await {
                Ok(()) => Ok(self.leave(task, "the source is gone")),
                Err(why) => Err(why),
            },
            _ => Ok(ok("done")),
        };
        self.shared.world().end(task);
        self.outcome(task, ended.unwrap_or_else(|why| why), started_at)
    }

    fn forget_all_images(&self) {}
}
