//! What this machine can do for Aether, and for what it cannot: why, and what to do. Told to the host and by `doctor`.

use crate::{
    act::{
        address::Network,
        control::{Absent, Control, cgroup::Cgroups, gpu::Gpus, power::Power},
        criu::{Criu, Missing},
        cuda::Cuda,
    },
    collect::{Standing, inventory},
    config::Config,
    drill,
};
use aether_core::catalogue::{capability, fact};
use aether_proto::v1;
use serde::Serialize;
use std::collections::BTreeMap;

/// One capability as found here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: String,
    pub available: bool,
    /// Why it is missing.
    pub reason: Option<String>,
    /// What took over.
    pub fallback: Option<String>,
    /// What a person can do about it.
    pub advice: Option<String>,
    /// The executor only pretends.
    pub simulated: bool,
}

/// All that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Findings {
    pub capabilities: Vec<Finding>,
    pub facts: BTreeMap<String, String>,
}

/// What was probed, each with why it is missing.
#[derive(Clone, Copy)]
pub struct Probed<'a> {
    pub criu: &'a Result<Criu, Missing>,
    pub namespaces: &'a Result<(), Missing>,
    pub cuda: &'a Result<Cuda, Missing>,
    pub cgroups: &'a Cgroups,
    pub gpus: &'a Gpus,
    pub power: &'a Power,
    /// Whether scripts can be held to bounds.
    pub bounded: &'a Result<(), Absent>,
    pub sources: &'a [Standing],
    /// Whether addresses can move with their workloads.
    pub network: &'a Result<Network, Missing>,
}

/// TCP connections of a workload move with its address.
const MOVE_TCP: &str = "process.tcp.move";

impl Findings {
    pub fn new(config: &Config, probed: &Probed<'_>) -> Self {
        let Probed { criu, namespaces, cuda, cgroups, gpus, power, bounded, sources, network } = *probed;
        let mut capabilities = Vec::new();
        let mut facts = facts(config);
        if let Ok(criu) = criu {
            facts.insert("criu.version".into(), criu.version.clone());
        }
        if !config.simulate {
            if let Some(card) = power.card() {
                facts.insert(fact::WAKE_MAC.into(), card.mac);
                facts.insert(fact::WAKE_NETWORK.into(), card.network.to_string());
            }
            let gpus = gpus.found.iter().flatten();
            facts.extend(gpus.map(|gpu| (format!("{}{}", fact::GPU, gpu.uuid), gpu.model.clone())));
        }
        let checkpoint = criu.as_ref().map(|_| ());
        let restore = checkpoint.and(namespaces.as_ref().copied());
        let gpu = restore.and(cuda.as_ref().map(|_| ()));
        let tcp = restore.and(network.as_ref().map(|_| ()));
        for (name, found) in [
            (capability::CHECKPOINT, checkpoint),
            (capability::RESTORE, restore),
            (capability::CHECKPOINT_GPU, gpu),
            (MOVE_TCP, tcp),
        ] {
            // A simulating agent has no contexts and no connections to pretend with.
            let pretends = config.simulate && ![capability::CHECKPOINT_GPU, MOVE_TCP].contains(&name);
            let missing = if pretends { None } else { found.err() };
            capabilities.push(Finding {
                name: name.into(),
                available: missing.is_none(),
                reason: missing.map(|missing| missing.reason.clone()),
                fallback: None,
                advice: missing.map(|missing| missing.advice.clone()),
                simulated: pretends,
            });
        }
        let control = Control::capabilities(config.simulate, cgroups, gpus, power, bounded).into_iter();
        let drills = drill::capabilities(&config.drill, config.simulate, bounded, gpus);
        for (name, found) in control.map(|(name, found)| (name.to_string(), found)).chain(drills) {
            let absent = found.err();
            capabilities.push(Finding {
                name,
                available: absent.is_none(),
                reason: absent.as_ref().map(|absent| absent.reason.clone()),
                fallback: None,
                advice: absent.map(|absent| absent.advice),
                simulated: false,
            });
        }
        capabilities.extend(sources.iter().map(standing));
        Self { capabilities, facts }
    }

    pub fn report(&self) -> v1::CapabilityReport {
        let capabilities = self.capabilities.iter().map(|finding| {
            let Finding { name, available, reason, fallback, advice, simulated } = finding;
            let reason = match (reason, advice) {
                (Some(reason), Some(advice)) => format!("{reason}; {advice}"),
                (reason, _) => reason.clone().unwrap_or_default(),
            };
            let (name, available, simulated) = (name.clone(), *available, *simulated);
            v1::Capability { name, available, reason, fallback: fallback.clone().unwrap_or_default(), simulated }
        });
        let facts = self.facts.clone().into_iter().collect();
        v1::CapabilityReport { capabilities: capabilities.collect(), facts }
    }
}

/// A source of telemetry as a capability.
fn standing(standing: &Standing) -> Finding {
    let Standing { source, missing } = standing;
    Finding {
        name: format!("{TELEMETRY}{source}"),
        available: missing.is_none(),
        reason: missing.as_ref().map(|missing| missing.reason.clone()),
        fallback: missing.as_ref().and_then(|missing| missing.fallback.clone()),
        advice: None,
        simulated: false,
    }
}

/// Puts how the sources stand now into a report that was made before.
pub fn renew(report: &mut v1::CapabilityReport, sources: &[Standing]) {
    for Finding { name, available, reason, fallback, advice: _, simulated: _ } in sources.iter().map(standing) {
        if let Some(told) = report.capabilities.iter_mut().find(|told| told.name == name) {
            told.available = available;
            told.reason = reason.unwrap_or_default();
            told.fallback = fallback.unwrap_or_default();
        }
    }
}

/// What the name of a source's capability begins with.
const TELEMETRY: &str = "telemetry.";

/// The kernel's id of this boot.
pub fn boot_id() -> String {
    procfs::sys::kernel::random::boot_id().unwrap_or_default().trim().to_string()
}

fn facts(config: &Config) -> BTreeMap<String, String> {
    let uname = rustix::system::uname();
    let text = |value: &std::ffi::CStr| value.to_string_lossy().into_owned();
    let mut facts = BTreeMap::from([
        ("host.arch".into(), std::env::consts::ARCH.into()),
        ("host.name".into(), text(uname.nodename())),
        ("os.kernel.release".into(), text(uname.release())),
        ("agent.version".into(), env!("CARGO_PKG_VERSION").into()),
        ("agent.simulated".into(), config.simulate.to_string()),
    ]);
    facts.extend(config.labels.iter().map(|(name, value)| (format!("label.{name}"), value.clone())));
    facts.extend(inventory::facts(&inventory::Roots::default()));
    facts
}
