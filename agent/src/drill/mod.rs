//! Drills on this node: disturbances that are real, bounded, and undone.
//!
//! The host asks for one, signed; this agent makes it only where its own configuration allows it, one at a time, and
//! ends it by itself when its time is over, whatever has become of the host. What it is about to make is on disk before
//! it is made, so an agent that was killed in the middle undoes it when it starts again. What the host sees of it are
//! facts of the capability report.

pub mod disturb;
mod make;

use crate::{
    act::control::{Absent, cgroup::Cgroups, gpu::Gpus},
    clock, durable,
    workloads::Registry,
};
use aether_core::{
    drill::{Disturb, Kind, fact},
    id::{DrillId, NodeId, WorkloadId},
    time::Time,
};
use aether_proto::v1::{self, CapabilityReport};
use ed25519_dalek::{Signature, VerifyingKey};
use make::Maker;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

/// No disturbance lasts longer, whatever the host asks for.
const LONGEST_MS: u64 = 3_600_000;
/// Between the news that the link will be cut and the cutting.
const NEWS_MS: u64 = 1_500;

/// What this agent allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub allowed: bool,
    /// The state of the stand-in that this agent has for NVML.
    pub nvml_stand_in: Option<PathBuf>,
}

/// What collectors and the uplink have to know of the drill that runs.
#[derive(Clone, Debug, Default)]
pub struct Stage(Arc<Mutex<Set>>);

#[derive(Debug, Default)]
struct Set {
    workload: Option<(WorkloadId, Kind)>,
    filesystem: Option<PathBuf>,
    gpu: bool,
}

impl Stage {
    fn set(&self, change: impl FnOnce(&mut Set)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The drill that this workload is of.
    pub fn of_workload(&self, id: &WorkloadId) -> Option<&'static str> {
        let set = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        set.workload.as_ref().filter(|(workload, _)| workload == id).map(|(_, kind)| kind.name())
    }

    /// The file system that is made to fill up.
    pub fn filesystem(&self) -> Option<PathBuf> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).filesystem.clone()
    }

    /// Whether GPUs are made to be lost.
    pub fn gpu(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).gpu
    }
}

/// What is made, or about to be: enough to undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    drill: DrillId,
    kind: Kind,
    until: Time,
    /// What the stand-in for NVML said before.
    former: Option<String>,
    over: bool,
}

/// Which drills can be made here, and why not.
pub fn capabilities(
    settings: &Settings,
    simulate: bool,
    bounded: &Result<(), Absent>,
    gpus: &Gpus,
) -> Vec<(String, Result<(), Absent>)> {
    let can = |kind: Kind| -> Result<(), Absent> {
        if !settings.allowed {
            return Err(Absent::new(
                "this agent is not configured to allow drills",
                "set `allowed = true` under `[drill]`",
            ));
        }
        let touches = !matches!(kind, Kind::SpotReclaim | Kind::HostDeath);
        if simulate && touches {
            return Err(Absent::new("a simulating agent disturbs nothing", "run the agent without `--simulate`"));
        }
        match kind {
            Kind::SpotReclaim | Kind::HostDeath => Ok(()),
            Kind::MemoryLeak | Kind::NoisyNeighbour => bounded.clone(),
            Kind::DiskFilling if !rustix::process::geteuid().is_root() => Err(Absent::new(
                "file systems are mounted by root, and the agent does not run as root",
                "run the agent as root",
            )),
            Kind::DiskFilling => Ok(()),
            Kind::GpuLost if settings.nvml_stand_in.is_none() => Err(Absent::new(
                "this agent has no stand-in for NVML, and a real GPU is not taken off its bus",
                "start the agent with one (docs/drills.md), on a machine where that does no harm",
            )),
            Kind::GpuLost => gpus.found.as_ref().map(|_| ()).map_err(Clone::clone),
        }
    };
    Kind::ALL.into_iter().map(|kind| (kind.capability(), can(kind))).collect()
}

/// Everything that drills work with.
pub struct Parts {
    pub node: NodeId,
    pub settings: Settings,
    pub state: PathBuf,
    pub registry: Arc<Registry>,
    pub cgroups: Cgroups,
    pub stage: Stage,
    pub host_key: watch::Receiver<Option<VerifyingKey>>,
    pub report: Arc<watch::Sender<CapabilityReport>>,
    /// True: the link to the host is cut.
    pub cut: watch::Sender<bool>,
}

/// Makes the disturbances of this node, one at a time.
pub struct Drills {
    node: NodeId,
    path: PathBuf,
    maker: Arc<Maker>,
    host_key: watch::Receiver<Option<VerifyingKey>>,
    report: Arc<watch::Sender<CapabilityReport>>,
    cut: watch::Sender<bool>,
    capabilities: BTreeMap<String, Result<(), Absent>>,
    last: Option<Record>,
}

impl Drills {
    /// Undoes what an agent that was killed has left, and reports it.
    pub fn open(parts: Parts, capabilities: Vec<(String, Result<(), Absent>)>) -> Result<Self, durable::Error> {
        let Parts { node, settings, state, registry, cgroups, stage, host_key, report, cut } = parts;
        let path = state.join("drill.json");
        let last = durable::read::<Record>(&path)?;
        let maker = Arc::new(Maker { settings, state, registry, cgroups, stage });
        let capabilities = capabilities.into_iter().collect();
        let mut drills = Self { node, path, maker, host_key, report, cut, capabilities, last };
        if let Some(record) = drills.last.clone() {
            if record.over {
                drills.tell(&record.drill, fact::OVER, "");
            } else {
                warn!(drill = %record.drill, "a drill was cut short by the end of the agent, and is undone now");
                let left = drills.maker.undo(&record);
                drills.ended(record, left);
            }
        }
        Ok(drills)
    }

    /// Takes what the host asks until `shutdown`; what runs is then undone.
    pub async fn run(mut self, mut inbound: mpsc::Receiver<v1::Drill>, shutdown: CancellationToken) {
        loop {
            let until = self.running().map(|record| record.until.since_ms(clock::now()));
            let over = Instant::now() + Duration::from_millis(until.unwrap_or(LONGEST_MS));
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = sleep_until(over), if until.is_some() => self.end("its time is over").await,
                Some(asked) = inbound.recv() => self.take(&asked).await,
            }
        }
        self.end("the agent stops").await;
    }

    fn running(&self) -> Option<&Record> {
        self.last.as_ref().filter(|record| !record.over)
    }

    async fn take(&mut self, asked: &v1::Drill) {
        let asked = match read(asked, self.host_key.borrow().as_ref(), &self.node) {
            Ok(asked) => asked,
            Err(why) => return warn!(why, "the host asks for a drill, and it is not taken"),
        };
        let Disturb { drill, node: _, kind, begin, until } = asked;
        if !begin {
            if self.running().is_some_and(|record| record.drill == drill) {
                self.end("the host asks for it").await;
            }
            return;
        }
        if self.last.as_ref().is_some_and(|record| record.drill == drill) {
            return;
        }
        let now = clock::now();
        let absent = self.capabilities.get(&kind.capability()).and_then(|can| can.as_ref().err());
        let refusal = match absent {
            Some(Absent { reason, advice }) => Some(format!("{reason}; {advice}")),
            None if self.running().is_some() => Some("another drill runs on this node".into()),
            None if until <= now => Some("its time is over by this machine's clock".into()),
            None => None,
        };
        if let Some(why) = refusal {
            warn!(%drill, kind = kind.name(), why, "a drill is refused");
            return self.tell(&drill, fact::REFUSED, &why);
        }
        let until = until.min(now.plus_ms(LONGEST_MS));
        let record = Record { drill: drill.clone(), kind, until, former: self.maker.former(kind), over: false };
        if let Err(error) = durable::write(&self.path, &record) {
            return self.tell(
                &drill,
                fact::REFUSED,
                &format!("it cannot be written down ({error}), so it is not begun"),
            );
        }
        self.last = Some(record.clone());
        let maker = self.maker.clone();
        let made = {
            let record = record.clone();
            tokio::task::spawn_blocking(move || maker.make(&record)).await
        };
        match made.unwrap_or_else(|error| Err(error.to_string())) {
            Ok(()) => {
                warn!(%drill, kind = kind.name(), until = until.0, "a drill begins");
                self.tell(&drill, fact::RUNNING, "");
                if kind == Kind::HostDeath {
                    sleep_until(Instant::now() + Duration::from_millis(NEWS_MS)).await;
                    self.cut.send_replace(true);
                }
            }
            Err(why) => {
                let left = self.undone(record.clone()).await;
                self.ended(record, left);
                self.tell(&drill, fact::REFUSED, &why);
            }
        }
    }

    async fn undone(&self, record: Record) -> Option<String> {
        let maker = self.maker.clone();
        let undone = tokio::task::spawn_blocking(move || maker.undo(&record)).await;
        undone.unwrap_or_else(|error| Some(error.to_string()))
    }

    async fn end(&mut self, why: &str) {
        let Some(record) = self.running().cloned() else { return };
        self.cut.send_replace(false);
        let left = self.undone(record.clone()).await;
        info!(drill = %record.drill, why, left, "a drill ends");
        self.ended(record, left);
    }

    fn ended(&mut self, record: Record, left: Option<String>) {
        let record = Record { over: true, ..record };
        if let Err(error) = durable::write(&self.path, &record) {
            error!(%error, "that a drill is over could not be kept; it is undone once more at the next start");
        }
        let state = if left.is_some() { fact::LEFT } else { fact::OVER };
        self.tell(&record.drill, state, left.as_deref().unwrap_or_default());
        self.last = Some(record);
    }

    fn tell(&self, drill: &DrillId, state: &str, reason: &str) {
        self.report.send_modify(|report| {
            for (name, value) in [(fact::ID, drill.as_str()), (fact::STATE, state), (fact::REASON, reason)] {
                report.facts.insert(name.into(), value.into());
            }
        });
    }
}

/// What the host asks, once its signature has been checked.
fn read(asked: &v1::Drill, key: Option<&VerifyingKey>, node: &NodeId) -> Result<Disturb, String> {
    let v1::Drill { order, signature } = asked;
    let key = key.ok_or("this agent has not joined a host")?;
    let disturb: Disturb = serde_json::from_slice(order).map_err(|error| format!("it cannot be read: {error}"))?;
    let signature = Signature::from_slice(signature).map_err(|_| "its signature is none")?;
    let good = aether_core::plan::canonical(&disturb) == *order
        && key.verify_strict(&disturb.signed_bytes(), &signature).is_ok();
    if !good {
        return Err("it is not signed by the host that this agent joined".into());
    }
    if disturb.node != *node {
        return Err(format!("it is for {}", disturb.node));
    }
    Ok(disturb)
}

/// Where the file system that fills up is mounted.
fn disk(state: &Path) -> PathBuf {
    state.join("drill-disk")
}
