//! The verbs that change a setting of a process, a cgroup, a GPU or the node, rather than move a workload; and the two
//! that put a node to sleep and wake another.
//!
//! Most are a set of [`settings`]: read, journaled, written, read back; so one flow does, undoes, settles and foretells
//! all of them, and what a verb has of its own is only how its settings are read and written.

pub mod cgroup;
pub mod freezer;
pub mod gpu;
pub mod node;
pub mod power;
pub mod runbook;
pub mod settings;
pub mod signal;
pub mod wake;

use super::{
    check::{Refusal, Task, refuse},
    hands::Failure,
    journal::Journal,
    run::Run,
    verbs::Done,
};
use crate::workloads::{Entry, Registry, State};
use aether_core::{
    catalogue::{self, DryRun, capability, evidence, verb},
    order::{Direction, OutcomeStatus},
    value::Value,
};
use cgroup::Cgroups;
use gpu::Gpus;
use node::Drain;
use power::Power;
use settings::{Settings, Values};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// Why something cannot be done here, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Absent {
    pub reason: String,
    pub advice: String,
}

impl Absent {
    pub fn new(reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { reason: reason.into(), advice: advice.into() }
    }
}

/// What of this machine can be controlled, as it was probed.
pub struct Control {
    /// Nothing of the machine is touched.
    pub simulate: bool,
    pub cgroups: Cgroups,
    pub gpus: Gpus,
    pub drain: Drain,
    pub power: Power,
    /// Whether scripts can be held to bounds here.
    pub bounded: Result<(), Absent>,
    /// Where a script lies while it runs.
    pub runbooks: PathBuf,
    pub registry: Arc<Registry>,
    pub journal: Arc<Journal>,
}

impl Control {
    /// Every capability of this module, with why it is missing.
    pub fn capabilities(
        simulate: bool,
        cgroups: &Cgroups,
        gpus: &Gpus,
        power: &Power,
        bounded: &Result<(), Absent>,
    ) -> Vec<(&'static str, Result<(), Absent>)> {
        if simulate {
            let pretends = Absent::new(
                "a simulating agent pretends checkpoint and restore, and nothing else",
                "run the agent without `--simulate`",
            );
            let real = [
                capability::FREEZE,
                capability::SIGNAL,
                capability::LIMIT,
                capability::GPU,
                capability::RESET_GPU,
                capability::SLEEP,
                capability::SLEEP_ALARM,
                capability::WAKE,
                capability::RUNBOOK,
            ];
            let mut all: Vec<_> = real.map(|name| (name, Err(pretends.clone()))).into();
            all.push((capability::DRAIN, Ok(())));
            return all;
        }
        vec![
            (capability::FREEZE, Ok(())),
            (capability::SIGNAL, Ok(())),
            (capability::LIMIT, cgroups.can_limit()),
            (capability::GPU, gpus.can_control()),
            (capability::RESET_GPU, gpus.can_reset()),
            (capability::DRAIN, Ok(())),
            (capability::SLEEP, power.can_sleep()),
            (capability::SLEEP_ALARM, power.has_alarm()),
            (capability::WAKE, Ok(())),
            (capability::RUNBOOK, bounded.clone()),
        ]
    }

    /// Whether `verb` is one of this module.
    pub fn knows(verb: &str) -> bool {
        [
            verb::FREEZE,
            verb::THAW,
            verb::SIGNAL,
            verb::TERMINATE,
            verb::LIMIT,
            verb::UNLIMIT,
            verb::POWER_LIMIT,
            verb::LOCK_CLOCKS,
            verb::RESET_CLOCKS,
            verb::COMPUTE_MODE,
            verb::RESET_GPU,
            verb::RESTORE_GPU,
            verb::DRAIN,
            verb::UNDRAIN,
            verb::SLEEP,
            verb::WAKE,
            verb::SCRIPT,
        ]
        .contains(&verb)
    }

    /// What must hold on this machine right before the deed. Nothing is changed.
    pub fn ready(&self, task: &Task) -> Result<(), Refusal> {
        self.available(&task.verb)?;
        let entry = self.registry.get(&task.workload);
        let checked = match (task.order.direction, task.verb.as_str()) {
            // It also undoes the sleep of another node, and needs the same then.
            (_, verb::WAKE) => wake::ready(task).map(|_| ()),
            // An undoing is judged by what was recorded, when it is done.
            (Direction::Compensate, _) => Ok(()),
            (Direction::Forward, verb::SIGNAL) => signal::targets(task, entry.as_ref()).map(|_| ()),
            (Direction::Forward, verb::TERMINATE) => signal::root(entry.as_ref()).map(|_| ()),
            (Direction::Forward, verb::SCRIPT) => runbook::ready(task),
            (Direction::Forward, verb::SLEEP) => {
                self.drain.read(node::DRAINED).and_then(|why| self.power.ready(task, !why.is_empty(), &self.registry))
            }
            (Direction::Forward, verb::LOCK_CLOCKS | verb::RESET_CLOCKS | verb::RESET_GPU) => {
                self.gpus.ready(gpu_of(task), task)
            }
            (Direction::Forward, _) => self.prepare(task).map(|_| ()),
        };
        checked.or_else(|failure| refuse("verb.precondition", format!("{} ({})", failure.message, failure.code)))
    }

    fn available(&self, verb: &str) -> Result<(), Refusal> {
        let needed = catalogue::find(verb).ok().and_then(|found| found.verb.capability);
        let all = Self::capabilities(self.simulate, &self.cgroups, &self.gpus, &self.power, &self.bounded);
        let found = all.into_iter().find(|(name, _)| Some(*name) == needed.as_deref());
        match found {
            Some((_, Err(Absent { reason, advice }))) => {
                refuse("capability.missing", format!("`{verb}` cannot be done here: {reason}; {advice}"))
            }
            Some((_, Ok(()))) | None => Ok(()),
        }
    }

    /// The settings that a verb changes, and to what.
    fn prepare(&self, task: &Task) -> Result<(Box<dyn Settings>, Values), Failure> {
        let settings = self.settings(task)?;
        let wanted = match task.verb.as_str() {
            verb::FREEZE => freezer::wanted(&self.entry(task)?, &self.cgroups, freezer::FROZEN)?,
            verb::THAW => freezer::wanted(&self.entry(task)?, &self.cgroups, freezer::THAWED)?,
            verb::LIMIT => self.cgroups.limits_wanted(&self.entry(task)?, &task.arguments)?,
            verb::POWER_LIMIT | verb::COMPUTE_MODE => self.gpus.wanted(gpu_of(task), task)?,
            verb::DRAIN => {
                let why = format!("drained by the approved plan {}", task.order.plan.short());
                Values::from([(node::DRAINED.to_string(), why)])
            }
            verb::UNDRAIN => Values::from([(node::DRAINED.to_string(), String::new())]),
            other => return Err(Failure::new("order.verb", format!("`{other}` only undoes"))),
        };
        Ok((settings, wanted))
    }

    /// The settings that a verb, or the verb that it undoes, is about.
    fn settings(&self, task: &Task) -> Result<Box<dyn Settings>, Failure> {
        match task.verb.as_str() {
            verb::FREEZE | verb::THAW => Ok(Box::new(freezer::Freezer::of(&self.entry(task)?, &self.cgroups)?)),
            verb::LIMIT | verb::UNLIMIT => Ok(Box::new(self.cgroups.limits_of(&self.entry(task)?)?)),
            verb::POWER_LIMIT | verb::COMPUTE_MODE | verb::RESTORE_GPU => {
                Ok(Box::new(self.gpus.settings(gpu_of(task))))
            }
            verb::DRAIN | verb::UNDRAIN => Ok(Box::new(self.drain.clone())),
            other => Err(Failure::new("order.verb", format!("`{other}` has no settings"))),
        }
    }

    fn entry(&self, task: &Task) -> Result<Entry, Failure> {
        let found = self.registry.get(&task.workload).filter(|entry| entry.generation == task.target.generation);
        let found = found.ok_or_else(|| Failure::new("target.missing", "the workload is not here any more"))?;
        if found.state == State::Exited {
            return Err(Failure::new("workload.state", "the workload has ended"));
        }
        Ok(found)
    }

    /// Carries out an admitted order.
    pub fn carry_out(&self, run: &Run) -> Done {
        let task = run.task();
        if let Err(refusal) = self.ready(task) {
            return Done::failed(refusal.code, format!("{}; nothing was done", refusal.reason));
        }
        match (task.order.direction, task.verb.as_str()) {
            (_, verb::SIGNAL) => signal::send(run, self.registry.get(&task.workload).as_ref()),
            (_, verb::TERMINATE) => signal::terminate(run, self.registry.get(&task.workload).as_ref()),
            (_, verb::SLEEP) => self.power.sleep(run),
            (_, verb::WAKE) => wake::send(run, self.power.wake_port),
            (_, verb::SCRIPT) => runbook::carry_out(run, &self.cgroups, &self.runbooks),
            (_, verb::LOCK_CLOCKS) => self.gpus.lock_clocks(run, gpu_of(task)),
            (_, verb::RESET_CLOCKS) => self.gpus.reset_clocks(gpu_of(task)),
            (_, verb::RESET_GPU) => self.gpus.reset(run, gpu_of(task)),
            (Direction::Compensate, _) => self.undo(task),
            (Direction::Forward, _) => match self.prepare(task) {
                Ok((settings, wanted)) => settings::apply(&self.journal, &task.order.key, &*settings, wanted),
                Err(failure) => Done::failed(failure.code, format!("{}; nothing was done", failure.message)),
            },
        }
    }

    fn undo(&self, task: &Task) -> Done {
        match self.settings(task) {
            Ok(settings) => settings::undo(&self.journal, &task.forward, &*settings),
            Err(failure) => Done::failed(failure.code, format!("{}; nothing was put back", failure.message)),
        }
    }

    /// What a dry run of the order would have done; nothing is changed.
    pub fn foretell(&self, task: &Task) -> Done {
        if let Err(refusal) = self.ready(task) {
            return Done::failed(refusal.code, format!("{}; nothing was done", refusal.reason));
        }
        let kind = catalogue::find(&task.verb).map_or(DryRun::NotSimulable, |found| found.dry_run);
        let told = match (kind, self.prepare(task)) {
            (DryRun::Simulated, Ok((settings, wanted))) => settings::foretell(&*settings, &wanted),
            (DryRun::Simulated, Err(failure)) => Err(failure),
            (DryRun::PreconditionChecked | DryRun::NotSimulable, _) => Ok((String::new(), BTreeMap::new())),
        };
        match told {
            Ok((would, evidence)) => dry(task, &would, evidence),
            Err(failure) => Done::failed(failure.code, format!("{}; nothing was done", failure.message)),
        }
    }

    /// What became of an order that a crash cut short; none if it may simply be run again.
    pub fn settle(&self, task: &Task, phase: Option<&str>) -> Option<Done> {
        match (task.order.direction, task.verb.as_str()) {
            (_, verb::SIGNAL | verb::TERMINATE) => Some(signal::settle(phase)),
            (_, verb::SLEEP) => Some(self.power.settle(task, phase)),
            // Packets that come twice wake nobody twice.
            (_, verb::WAKE) => None,
            (_, verb::SCRIPT) => Some(runbook::settle(task, phase, &self.cgroups, &self.runbooks)),
            (_, verb::LOCK_CLOCKS | verb::RESET_GPU) => Some(Gpus::settle(phase)),
            // Giving a clock back twice is giving it back.
            (_, verb::RESET_CLOCKS) => Some(self.gpus.reset_clocks(gpu_of(task))),
            (Direction::Compensate, _) => Some(self.undo(task)),
            (Direction::Forward, _) => Some(match self.settings(task) {
                Ok(settings) => settings::settle(&self.journal, &task.order.key, &*settings),
                Err(failure) => Done::unknown(
                    "agent.restarted",
                    format!("the agent was restarted in the middle of it, and {failure}"),
                ),
            }),
        }
    }
}

/// The GPU that an order is about: its UUID.
fn gpu_of(task: &Task) -> &str {
    task.target.id.split_once('/').map_or("", |(_, uuid)| uuid)
}

/// The outcome of a dry run: what its kind is worth, and what would have been done.
pub fn dry(task: &Task, would: &str, evidence: BTreeMap<String, Value>) -> Done {
    let kind = catalogue::find(&task.verb).map_or(DryRun::NotSimulable, |found| found.dry_run);
    let (verb, target) = (&task.verb, &task.target);
    let message = match kind {
        DryRun::Simulated if would.is_empty() => format!("{verb} on {target} would change nothing; nothing was done"),
        DryRun::Simulated => format!("{verb} on {target} would set {would}; nothing was done"),
        DryRun::PreconditionChecked => format!("all checks of {verb} on {target} passed; nothing was done"),
        DryRun::NotSimulable => {
            format!(
                "the order for {verb} on {target} is in order; what it would do cannot be told, and nothing was done"
            )
        }
    };
    let mut done = Done::with(OutcomeStatus::Succeeded, "dry-run", message);
    done.evidence = evidence;
    done.evidence(evidence::DRY_RUN, Value::Text(kind.name().into()))
}
