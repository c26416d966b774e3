//! What this machine and its workloads are doing, sampled at a steady pace.
//!
//! Each source is one file with its own probe ("can I run here, and if not, why?"). Names and units are those of
//! [`aether_core::metric`]. A source that fails later is told once, and tried again at the next sample.

mod cpu;
mod disk;
mod filesystem;
mod gpu;
mod load;
mod memory;
mod network;
mod pressure;
mod process;
mod uptime;

use crate::{
    act::control::{cgroup::Cgroups, gpu::Gpus},
    drill::Stage,
    workloads::Registry,
};
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};
use thiserror::Error;
use tracing::warn;

/// Why a source cannot tell anything, for a person.
#[derive(Debug, Error)]
#[error("{0}")]
pub struct Missing(String);

impl From<procfs::ProcError> for Missing {
    fn from(error: procfs::ProcError) -> Self {
        Missing(error.to_string())
    }
}

/// One place where numbers come from.
trait Source: Send {
    /// What it is called in the configuration; its capability is `telemetry.<name>`.
    fn name(&self) -> &'static str;
    /// Takes one sample of everything it knows. Also the probe: one that works here works later.
    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing>;
}

/// Where a source puts its readings.
struct Sink<'a> {
    node: &'a NodeId,
    at: Time,
    series: &'a mut BTreeMap<SeriesKey, Vec<Sample>>,
}

impl Sink<'_> {
    fn node(&mut self, metric: &str, unit: &str, attributes: &[(&str, &str)], value: f64) {
        let subject = SubjectRef::node(self.node.as_str());
        self.put(subject, metric, unit, attributes, value);
    }

    /// A value that is no number says nothing, and is left out.
    fn put(&mut self, subject: SubjectRef, metric: &str, unit: &str, attributes: &[(&str, &str)], value: f64) {
        if !value.is_finite() {
            return;
        }
        let attributes = attributes.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let key = SeriesKey { subject, metric: metric.into(), unit: unit.into(), attributes };
        self.series.entry(key).or_default().push(Sample { at: self.at, value });
    }
}

/// The last sample of each metric, for preconditions: they are checked once more where an order is carried out.
#[derive(Clone, Debug, Default)]
pub struct Latest(Arc<Mutex<BTreeMap<SubjectRef, BTreeMap<String, Sample>>>>);

impl Latest {
    pub fn get(&self, subject: &SubjectRef, metric: &str) -> Option<Sample> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(subject)?.get(metric).copied()
    }

    /// Series with attributes are parts of something; a condition names none.
    fn replace(&self, series: &BTreeMap<SeriesKey, Vec<Sample>>) {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, samples) in series.iter().filter(|(key, _)| key.attributes.is_empty()) {
            if let Some(last) = samples.last() {
                latest.entry(key.subject.clone()).or_default().insert(key.metric.clone(), *last);
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
    pub source: &'static str,
    /// None: it works.
    pub missing: Option<String>,
}

/// All sources of this machine.
pub struct Collector {
    node: NodeId,
    sources: Vec<Box<dyn Source>>,
    /// Sources whose last sample failed, so that each failure is told once.
    failing: BTreeSet<&'static str>,
    pending: BTreeMap<SeriesKey, Vec<Sample>>,
    latest: Latest,
}

/// What sources look at beside the machine itself.
pub struct Watched {
    pub registry: Arc<Registry>,
    pub cgroups: Cgroups,
    pub gpus: Gpus,
    pub stage: Stage,
}

impl Watched {
    /// These workloads, and nothing else.
    pub fn only(registry: Arc<Registry>) -> Self {
        let gpus = Gpus::absent("nobody looked".into());
        Self { registry, cgroups: Cgroups::default(), gpus, stage: Stage::default() }
    }
}

/// How long the last samples of a subject that tells nothing any more are kept.
const LATEST_KEPT_MS: u64 = 3_600_000;

impl Collector {
    pub fn new(node: NodeId, state: &Path, watched: Watched) -> Self {
        let Watched { registry, cgroups, gpus, stage } = watched;
        let sources: Vec<Box<dyn Source>> = vec![
            Box::new(cpu::Cpu::default()),
            Box::new(memory::Memory),
            Box::new(load::Load),
            Box::new(disk::Disk),
            Box::new(network::Network),
            Box::new(filesystem::FileSystem::of(state, stage.clone())),
            Box::new(pressure::Pressure),
            Box::new(uptime::Uptime),
            Box::new(process::Workloads::of(registry, cgroups, stage.clone())),
            Box::new(gpu::Gpu::of(gpus, stage)),
        ];
        Self { node, sources, failing: BTreeSet::new(), pending: BTreeMap::new(), latest: Latest::default() }
    }

    pub fn latest(&self) -> Latest {
        self.latest.clone()
    }

    /// Asks each source whether it can run here.
    pub fn probe(&mut self, disabled: &BTreeSet<String>) -> Vec<Standing> {
        let mut series = BTreeMap::new();
        let mut sink = Sink { node: &self.node, at: Time(0), series: &mut series };
        let mut stand = |source: &mut Box<dyn Source>| {
            let missing = if disabled.contains(source.name()) {
                Some("switched off by `disabled_sources` of the configuration".into())
            } else {
                source.sample(&mut sink).err().map(|missing| missing.to_string())
            };
            Standing { source: source.name(), missing }
        };
        self.sources.iter_mut().map(&mut stand).collect()
    }

    /// Takes one sample of every source that is on.
    pub fn sample(&mut self, at: Time, disabled: &BTreeSet<String>) {
        let mut sink = Sink { node: &self.node, at, series: &mut self.pending };
        for source in self.sources.iter_mut().filter(|source| !disabled.contains(source.name())) {
            match source.sample(&mut sink) {
                Ok(()) => {
                    self.failing.remove(source.name());
                }
                Err(missing) if self.failing.insert(source.name()) => {
                    warn!(source = source.name(), %missing, "a source of telemetry tells nothing; it is tried again");
                }
                Err(_) => {}
            }
        }
        self.latest.replace(&self.pending);
    }

    /// Puts a reading of the agent's own beside those of the sources.
    pub fn note(&mut self, at: Time, metric: &str, unit: &str, value: f64) {
        Sink { node: &self.node, at, series: &mut self.pending }.node(metric, unit, &[], value);
    }

    /// What was sampled since the last call.
    pub fn take(&mut self) -> Vec<SeriesSamples> {
        std::mem::take(&mut self.pending).into_iter().map(|(key, samples)| SeriesSamples { key, samples }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::metric;

    #[test]
    fn this_machine_tells_what_the_catalogue_of_metrics_names() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
        let mut collector = Collector::new(NodeId::new("node-a"), folder.path(), Watched::only(registry));
        collector.sample(Time(1_000), &BTreeSet::new());
        crate::process::poll(std::time::Duration::from_millis(50), || None::<()>);
        collector.sample(Time(2_000), &BTreeSet::from(["load".into()]));
        let taken = collector.take();
        let count = |name: &str| taken.iter().filter(|s| s.key.metric == name).map(|s| s.samples.len()).sum::<usize>();
        // A share needs two readings of the counters.
        assert_eq!(count(metric::CPU_UTILIZATION), 1);
        assert_eq!(count(metric::LOAD_1M), 1);
        for name in [metric::MEMORY_UTILIZATION, metric::MEMORY_AVAILABLE, metric::CPU_COUNT, metric::UPTIME] {
            assert_eq!(count(name), 2, "{name}");
        }
        assert_eq!(count(metric::FILESYSTEM_UTILIZATION), 2);
        let shares = [metric::CPU_UTILIZATION, metric::MEMORY_UTILIZATION, metric::FILESYSTEM_UTILIZATION];
        for series in taken.iter().filter(|series| shares.contains(&series.key.metric.as_str())) {
            assert!(series.samples.iter().all(|sample| (0.0..=1.0).contains(&sample.value)), "{series:?}");
        }
        assert!(collector.take().is_empty());
    }

    #[test]
    fn what_is_switched_off_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Arc::new(Registry::open(&folder.path().join("workloads.json"), "boot".into()).unwrap());
        let mut collector = Collector::new(NodeId::new("node-a"), folder.path(), Watched::only(registry));
        let standing = collector.probe(&BTreeSet::from(["cpu".into()]));
        let cpu = standing.iter().find(|standing| standing.source == "cpu").unwrap();
        assert!(cpu.missing.as_deref().unwrap().contains("disabled_sources"));
    }
}
