//! What this machine can do for Aether, and for what it cannot: why, and what to do. Told to the host and by `doctor`.

use crate::{
    act::{
        control::{Absent, Control, cgroup::Cgroups, gpu::Gpus, power::Power},
        criu::{Criu, Missing},
        cuda::Cuda,
    },
    collect::Standing,
    config::Config,
    drill,
};
use aether_core::catalogue::{capability, fact};
use aether_proto::v1;
use procfs::{CpuInfo, Current};
use serde::Serialize;
use std::collections::BTreeMap;

/// One capability as found here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub name: String,
    pub available: bool,
    /// Why it is missing.
    pub reason: Option<String>,
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
}

impl Findings {
    pub fn new(config: &Config, probed: &Probed<'_>) -> Self {
        let Probed { criu, namespaces, cuda, cgroups, gpus, power, bounded, sources } = *probed;
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
        for (name, found) in
            [(capability::CHECKPOINT, checkpoint), (capability::RESTORE, restore), (capability::CHECKPOINT_GPU, gpu)]
        {
            // A simulating agent has no contexts to pretend with.
            let pretends = config.simulate && name != capability::CHECKPOINT_GPU;
            let missing = if pretends { None } else { found.err() };
            capabilities.push(Finding {
                name: name.into(),
                available: missing.is_none(),
                reason: missing.map(|missing| missing.reason.clone()),
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
                advice: absent.map(|absent| absent.advice),
                simulated: false,
            });
        }
        for Standing { source, missing } in sources {
            capabilities.push(Finding {
                name: format!("telemetry.{source}"),
                available: missing.is_none(),
                reason: missing.clone(),
                advice: None,
                simulated: false,
            });
        }
        Self { capabilities, facts }
    }

    pub fn report(&self) -> v1::CapabilityReport {
        let capabilities = self.capabilities.iter().map(|finding| {
            let Finding { name, available, reason, advice, simulated } = finding;
            let reason = match (reason, advice) {
                (Some(reason), Some(advice)) => format!("{reason}; {advice}"),
                (reason, _) => reason.clone().unwrap_or_default(),
            };
            let (name, available, simulated) = (name.clone(), *available, *simulated);
            v1::Capability { name, available, reason, fallback: String::new(), simulated }
        });
        let facts = self.facts.clone().into_iter().collect();
        v1::CapabilityReport { capabilities: capabilities.collect(), facts }
    }
}

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
    if let Some(model) = CpuInfo::current().ok().and_then(|info| info.model_name(0).map(str::to_string)) {
        facts.insert("cpu.model".into(), model);
    }
    facts
}
