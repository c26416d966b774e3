//! What this machine and its workloads are doing, sampled at a steady pace.
//!
//! Each source is one file or folder with its own probe ("can I run here, and if not, why, and what instead?"). Names and
//! units are those of [`metric`]; docs/metrics.md has all of them. A source has an interval of its own, and
//! one that may take long has a thread of its own ([`apart`]). One that fails later is told once, and tried again.

mod apart;
mod bpf;
mod cgroup;
mod cpu;
mod disk;
mod edac;
pub mod external;
mod file;
mod filesystem;
mod gpu;
mod infiniband;
pub mod inventory;
mod limits;
mod links;
mod load;
mod memory;
mod mounts;
mod names;
mod netlink;
mod network;
mod numa;
mod paging;
mod perf;
mod pressure;
mod process;
mod programs;
mod protocols;
mod sensors;
mod sockets;
mod source;
mod taskstats;
mod timekeeping;
mod uptime;

use crate::{
    act::control::{cgroup::Cgroups, gpu::Gpus},
    clock::{self, Stopwatch},
    drill::Stage,
    workloads::Registry,
};
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{DiscreteEvent, Sample, SeriesSamples},
    time::Time,
};
use apart::{Answer, Apart};
use source::{Readings, Sink, Source};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tracing::{info, warn};

pub use external::External;
pub use source::Missing;

/// The last sample of each metric, for preconditions: they are checked once more where an order is carried out.
#[derive(Clone, Debug, Default)]
pub struct Latest(Arc<Mutex<BTreeMap<SubjectRef, BTreeMap<String, Sample>>>>);

impl Latest {
    pub fn get(&self, subject: &SubjectRef, metric: &str) -> Option<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(subject)?.get(metric).copied()
    }

    /// Series with attributes are parts of something; a condition names none.
    fn replace(&self, readings: &Readings) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for SeriesSamples { key, samples } in readings.told().filter(|told| told.key.attributes.is_empty()) {
            let Some(last) = samples.last() else { continue };
            match latest.get_mut(&key.subject).and_then(|metrics| metrics.get_mut(&key.metric)) {
                Some(known) => *known = *last,
                None => {
                    latest.entry(key.subject.clone()).or_default().insert(key.metric.clone(), *last);
                }
            }
        }
        // What was last seen long ago is of a workload that left.
        let newest = latest.values().flat_map(BTreeMap::values).map(|sample| sample.at).max().unwrap_or_default();
        latest.retain(|_, metrics| metrics.values().any(|sample| newest.since_ms(sample.at) < LATEST_KEPT_MS));
    }
}

/// How one source stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    pub source: String,
    /// None: it works.
    pub missing: Option<Missing>,
}

/// One source, when it was last asked, and how it stood then.
struct Slot {
    name: String,
    place: Place,
    /// As the source, or the node's configuration, has it: it is never asked more often.
    own: Duration,
    interval: Duration,
    last: Option<Time>,
    missing: Option<Missing>,
}

/// Where a source does its work.
enum Place {
    /// On the collector's own thread: it answers at once.
    Here(Box<dyn Source>),
    /// On a thread of its own.
    Apart(Apart),
}

impl Slot {
    fn new(name: &str, interval: Duration, place: Place) -> Self {
        Self { name: name.into(), place, own: interval, interval, last: None, missing: None }
    }

    fn here(source: Box<dyn Source>) -> Self {
        let interval = source.interval().unwrap_or_default();
        let name = source.name().to_string();
        Self::new(&name, interval, Place::Here(source))
    }

    fn apart(source: Box<dyn Source>, node: &NodeId, patience: Duration) -> Self {
        let interval = source.interval().unwrap_or_default();
        let name = source.name().to_string();
        Self::new(&name, interval, Place::Apart(Apart::of(source, node, patience)))
    }

    /// A source is named, or the group that it is of: `external` for `external.billing`.
    fn is_off(&self, disabled: &BTreeSet<String>) -> bool {
        let group = self.name.split_once('.').map(|(group, _)| group);
        disabled.contains(&self.name) || group.is_some_and(|group| disabled.contains(group))
    }

    /// A clock that was set back makes all due. One that fails, with nothing in its stead, is not asked each time; nor is
    /// one that no decision needs, while the host has too little room.
    fn is_due(&self, at: Time, pressure: Pressed) -> bool {
        let Some(last) = self.last else { return true };
        let barren = self.missing.as_ref().is_some_and(|missing| missing.fallback.is_none());
        let interval = if barren { self.interval.max(RETRY_EVERY) } else { self.interval };
        let Some(interval) = pressure.slowed(interval, DECISIVE.contains(&self.name.as_str())) else { return false };
        at < last || Duration::from_millis(at.since_ms(last) + SLACK_MS) >= interval
    }

    /// Takes down how it went; true if that is news.
    fn judge(&mut self, result: Result<(), Missing>) -> bool {
        let missing = result.err();
        match (&self.missing, &missing) {
            (None, Some(missing)) => {
                warn!(source = self.name, %missing, "a source of telemetry does not tell what it should; it is tried again");
            }
            (Some(_), None) => info!(source = self.name, "a source of telemetry tells again"),
            (Some(before), Some(missing)) if before.fallback != missing.fallback => {
                warn!(source = self.name, %missing, "a source of telemetry tells otherwise than before");
            }
            // In other words each time, perhaps: the first ones stand.
            (Some(_), Some(_)) => return false,
            (None, None) => return false,
        }
        self.missing = missing;
        true
    }

    fn standing(&self, disabled: &BTreeSet<String>) -> Standing {
        let off = || Missing::new("switched off by `disabled_sources`");
        let missing = if self.is_off(disabled) { Some(off()) } else { self.missing.clone() };
        Standing { source: self.name.clone(), missing }
    }
}

/// How much less the host wants to be told, in percent: none at 0, and at 100 only what decisions need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pressed(pub u32);

impl Pressed {
    /// The interval of a source under this; none: it is not asked.
    fn slowed(self, interval: Duration, decisive: bool) -> Option<Duration> {
        match self.0 {
            0 => Some(interval),
            _ if decisive => Some(interval),
            percent @ 1..100 => Some(interval.max(PRESSED_LEAST) * (1 + PRESSED_SLOWDOWN * percent / 100)),
            _ => None,
        }
    }
}

/// Sources that scorers, planners and the conditions of plans go by. All others are cheap to lose.
const DECISIVE: [&str; 11] =
    ["cgroup", "cpu", "disk", "filesystem", "gpu", "load", "memory", "network", "pressure", "process", "uptime"];
/// A source without an interval of its own has this one when it is slowed.
const PRESSED_LEAST: Duration = Duration::from_secs(1);
/// So many times slower, and once more, is what is cheap to lose before it is not asked at all.
const PRESSED_SLOWDOWN: u32 = 20;
/// A failing source is tried again this often.
const RETRY_EVERY: Duration = Duration::from_secs(10);
/// A sample comes this much early at most: the pace of the collector is not exact.
const SLACK_MS: u64 = 50;
/// How long a sample waits for the sources on threads of their own, all together. What comes later is in the next batch.
const GRACE: Duration = Duration::from_millis(20);
/// How long the probe waits for them.
const PROBE_WITHIN: Duration = Duration::from_secs(5);
/// How long one of them may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// The share of the time that processors are busy that something may take. Clones are one budget.
#[derive(Clone, Debug, Default)]
struct Budget(Arc<AtomicU64>);

impl Budget {
    fn set(&self, share: f64) {
        self.0.store(share.to_bits(), Relaxed);
    }

    fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }
}

/// All sources of this machine.
pub struct Collector {
    node: NodeId,
    slots: Vec<Slot>,
    pending: Readings,
    latest: Latest,
    bpf_budget: Budget,
    /// A source began to fail, or works again, since the last look.
    news: bool,
}

/// What sources look at beside the machine itself.
pub struct Watched {
    pub registry: Arc<Registry>,
    pub cgroups: Cgroups,
    pub gpus: Gpus,
    pub stage: Stage,
    pub externals: Vec<External>,
}

impl Watched {
    /// These workloads, and nothing else.
    pub fn only(registry: Arc<Registry>) -> Self {
        let gpus = Gpus::absent("nobody looked".into());
        Self { registry, cgroups: Cgroups::default(), gpus, stage: Stage::default(), externals: vec![] }
    }
}

/// How long the last samples of a subject that tells nothing any more are kept.
const LATEST_KEPT_MS: u64 = 3_600_000;

impl Collector {
    pub fn new(node: NodeId, state: &Path, watched: Watched) -> Self {
        let Watched { registry, cgroups, gpus, stage, externals } = watched;
        let sys = Path::new("/sys");
        let here: Vec<Box<dyn Source>> = vec![
            Box::new(cpu::Cpu::default()),
            Box::new(memory::Memory::default()),
            Box::new(paging::Paging::default()),
            Box::new(load::Load::default()),
            Box::new(disk::Disk::default()),
            Box::new(network::Network::default()),
            Box::new(protocols::Protocols::default()),
            Box::new(filesystem::FileSystem::of(state, stage.clone())),
            Box::new(pressure::Pressure::default()),
            Box::new(uptime::Uptime::default()),
            Box::new(process::Workloads::of(registry.clone(), cgroups.clone(), stage.clone())),
            Box::new(cgroup::ControlGroups::of(cgroups, registry.clone())),
            Box::new(links::Links::default()),
            Box::new(limits::Limits::default()),
            Box::new(numa::Numa::at(sys)),
            Box::new(timekeeping::Timekeeping),
            Box::new(taskstats::TaskStats::of(registry)),
            Box::new(perf::Perf::default()),
            Box::new(perf::PerfHardware::default()),
            Box::new(sensors::Rapl::at(sys)),
        ];
        // What may take long: a lock of a process's memory map, very many sockets, a disk that hangs, a chip on a slow bus.
        let apart: Vec<Box<dyn Source>> = vec![
            Box::new(programs::Programs::default()),
            Box::new(sockets::Sockets::default()),
            Box::new(mounts::Mounts),
            Box::new(sensors::Hwmon::at(sys)),
            Box::new(sensors::Thermal::at(sys)),
            Box::new(edac::Edac::at(sys)),
            Box::new(infiniband::Infiniband::at(sys)),
        ];
        let mut slots: Vec<Slot> = here.into_iter().map(Slot::here).collect();
        slots.extend(apart.into_iter().map(|source| Slot::apart(source, &node, PATIENCE)));
        slots.extend(externals.into_iter().map(|external| {
            let patience = external.timeout + PATIENCE;
            Slot::apart(Box::new(external::Scrape::of(external)), &node, patience)
        }));
        slots.push(Slot::new(gpu::NAME, Duration::ZERO, Place::Apart(gpu::begin(&node, gpus, stage))));
        Self {
            node,
            slots,
            pending: Readings::default(),
            latest: Latest::default(),
            bpf_budget: Budget::default(),
            news: false,
        }
    }

    /// And what only programs inside of the kernel see. They may cost this share of the time that processors are busy.
    #[must_use]
    pub fn with_bpf(mut self, registry: &Arc<Registry>, cgroups: &Cgroups, budget: f64) -> Self {
        self.bpf_budget.set(budget);
        self.slots.extend(bpf::sources(registry, cgroups, self.bpf_budget.clone()).into_iter().map(Slot::here));
        self
    }

    /// With other intervals than those of the sources themselves.
    #[must_use]
    pub fn at_intervals(mut self, intervals: &BTreeMap<String, Duration>) -> Self {
        for slot in &mut self.slots {
            if let Some(interval) = intervals.get(&slot.name) {
                (slot.own, slot.interval) = (*interval, *interval);
            }
        }
        self
    }

    /// Takes other intervals for single sources, and another budget for those inside of the kernel; gives back, in words,
    /// what of it is not followed. A source that is not named is asked as often as it was at the start.
    pub fn follow(&mut self, intervals: &BTreeMap<String, Duration>, bpf_budget: f64) -> Vec<String> {
        self.bpf_budget.set(bpf_budget);
        let mut withheld = Vec::new();
        for slot in &mut self.slots {
            let wanted = intervals.get(&slot.name).copied();
            if let Some(wanted) = wanted.filter(|wanted| *wanted < slot.own) {
                let (name, wanted, own) = (&slot.name, wanted.as_millis(), slot.own.as_millis());
                withheld.push(format!("{name} every {wanted} ms (it is asked every {own} ms here)"));
            }
            slot.interval = wanted.unwrap_or_default().max(slot.own);
        }
        let known: BTreeSet<&str> = self.slots.iter().map(|slot| &*slot.name).collect();
        let unknown = intervals.keys().filter(|name| !known.contains(name.as_str()));
        withheld.extend(unknown.map(|name| format!("`{name}`, which is no source of this agent")));
        withheld
    }

    pub fn latest(&self) -> Latest {
        self.latest.clone()
    }

    /// Asks each source whether it can run here. What they tell is not kept.
    pub fn probe(&mut self, disabled: &BTreeSet<String>) -> Vec<Standing> {
        self.ask(clock::now(), disabled, Pressed::default(), PROBE_WITHIN);
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_off(disabled)) {
            if let Place::Apart(apart) = &slot.place
                && apart.is_fresh(PROBE_WITHIN * 2)
            {
                slot.judge(Err(Missing::new(format!("no answer within {} s", PROBE_WITHIN.as_secs()))));
            }
            slot.last = None;
        }
        self.pending = Readings::default();
        self.news = false;
        self.standings(disabled)
    }

    /// How each source stands.
    pub fn standings(&self, disabled: &BTreeSet<String>) -> Vec<Standing> {
        self.slots.iter().map(|slot| slot.standing(disabled)).collect()
    }

    /// Whether a source stands otherwise than when this was last asked.
    pub fn has_news(&mut self) -> bool {
        std::mem::take(&mut self.news)
    }

    /// Takes one sample of every source that is on and due.
    pub fn sample(&mut self, at: Time, disabled: &BTreeSet<String>, pressure: Pressed) {
        self.ask(at, disabled, pressure, GRACE);
        self.latest.replace(&self.pending);
    }

    fn ask(&mut self, at: Time, disabled: &BTreeSet<String>, pressure: Pressed, grace: Duration) {
        // Those with threads of their own work while the others do.
        for slot in &mut self.slots {
            let (off, due) = (slot.is_off(disabled), slot.is_due(at, pressure));
            match &mut slot.place {
                Place::Here(source) if off => source.rest(),
                Place::Here(_) => {}
                Place::Apart(apart) if off => apart.rest(),
                Place::Apart(apart) if due => {
                    slot.last = Some(at);
                    apart.ask(at);
                }
                Place::Apart(_) => {}
            }
        }
        for slot in self.slots.iter_mut().filter(|slot| !slot.is_off(disabled) && slot.is_due(at, pressure)) {
            if let Place::Here(source) = &mut slot.place {
                slot.last = Some(at);
                let result = source.sample(&mut Sink { node: &self.node, at, readings: &mut self.pending });
                self.news |= slot.judge(result);
            }
        }
        let watch = Stopwatch::start();
        for slot in &mut self.slots {
            let Place::Apart(apart) = &mut slot.place else { continue };
            // One that owes since long is not waited for.
            let within = if apart.is_fresh(grace) { grace.saturating_sub(watch.elapsed()) } else { Duration::ZERO };
            if let Some(Answer { readings, result }) = apart.hear(within) {
                self.pending.absorb(readings);
                self.news |= slot.judge(result);
            }
        }
    }

    /// Puts a reading of the agent's own beside those of the sources.
    pub fn note(&mut self, at: Time, metric: &str, unit: &str, value: f64) {
        Sink { node: &self.node, at, readings: &mut self.pending }.node(metric, unit, &[], value);
    }

    /// What was sampled, and what happened, since the last call. Each series in order of time, also where the clock was
    /// put back meanwhile.
    pub fn take(&mut self) -> (Vec<SeriesSamples>, Vec<DiscreteEvent>) {
        let (mut series, events) = self.pending.take();
        for SeriesSamples { samples, .. } in series.iter_mut().filter(|series| series.samples.len() > 1) {
            samples.sort_by_key(|sample| sample.at);
            // Of two of one time the later word counts.
            samples.dedup_by(|later, kept| {
                let is_same = later.at == kept.at;
                if is_same {
                    kept.value = later.value;
                }
                is_same
            });
        }
        (series, events)
    }
}

#[cfg(test)]
mod tests;
