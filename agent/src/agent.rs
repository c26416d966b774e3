//! The agent, wired: collector, spool, uplink and executor as one task set.

use crate::{
    act::{
        Desk,
        address::Network,
        control::{Control, cgroup::Cgroups, gpu::Gpus, node::Drain, power::Power},
        criu::{Criu, Missing},
        cuda::Cuda,
        hands::{Hands, native::Native, simulated::Simulated},
        images::Images,
        journal::Journal,
        snapshot::ahead::Ahead,
        verbs::Executor,
    },
    capabilities::{self, Findings, Probed},
    clock,
    collect::{Collector, Watched},
    config::Config,
    drill::{self, Drills, Stage},
    durable,
    sampler::Sampler,
    signals,
    spool::{self, Spool},
    state::{self, StateFolder},
    uplink::{self, Parts, Uplink},
    workloads::{self, Registry},
};
use std::{sync::Arc, time::Duration};
use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{error, info, warn};

/// Orders that wait for the executor.
const INBOUND_MAXIMUM: usize = 256;
/// Drills that wait to be looked at.
const DRILLS_MAXIMUM: usize = 8;
/// How long the end may take before what hangs is left behind.
const SHUTDOWN_WITHIN: Duration = Duration::from_secs(20);

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    State(#[from] state::Error),
    #[error(transparent)]
    Spool(#[from] spool::Error),
    #[error(transparent)]
    Workloads(#[from] workloads::Error),
    #[error(transparent)]
    Uplink(#[from] uplink::Error),
    #[error("the journal of orders cannot be opened, and without it nothing may be done: {0}")]
    Journal(std::io::Error),
    #[error("a thread cannot be started: {0}")]
    Thread(std::io::Error),
    #[error("whether this node takes new work cannot be read: {0}")]
    Drain(durable::Error),
    #[error("whether a drill was cut short cannot be read: {0}")]
    Drill(durable::Error),
}

/// Runs the agent until `shutdown`.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let config = Arc::new(config);
    let state = Arc::new(StateFolder::open(&config.state)?);
    let boot = capabilities::boot_id();
    let registry = Arc::new(Registry::open(&state.registry(), boot.clone())?);
    let spool = Arc::new(Spool::open(&state.spool(), config.node.clone(), boot.clone(), config.spool)?);
    let gpus = find_gpus(&config).await;
    let cgroups = Cgroups::probe();
    let stage = Stage::default();
    let watched = Watched {
        registry: registry.clone(),
        cgroups: cgroups.clone(),
        gpus: gpus.clone(),
        stage: stage.clone(),
        externals: config.externals.clone(),
    };
    let mut collector = Collector::new(config.node.clone(), state.path(), watched)
        .with_bpf(&registry, &cgroups, config.bpf_budget)
        .at_intervals(&config.intervals);

    let criu = find_criu(&config, state.path()).await;
    let sources = collector.probe(&config.disabled_sources);
    let namespaces = Criu::probe_namespaces();
    let cuda = Cuda::find(config.cuda_checkpoint.as_deref());
    let network = Network::find();
    let bounded = cgroups.can_make();
    let power = Power::probe(&config.power.sys, config.power.wake_port);
    let findings = Findings::new(
        &config,
        &Probed {
            criu: &criu,
            namespaces: &namespaces,
            cuda: &cuda,
            cgroups: &cgroups,
            gpus: &gpus,
            power: &power,
            bounded: &bounded,
            sources: &sources,
            network: &network,
        },
    );
    for finding in findings.capabilities.iter().filter(|finding| !finding.available) {
        let reason = finding.reason.as_deref().unwrap_or_default();
        warn!(capability = finding.name, reason, advice = finding.advice, "is not to be had on this machine");
    }
    let (report, capabilities) = watch::channel(findings.report());
    let report = Arc::new(report);
    let drain = Drain::open(state.drain(), report.clone()).map_err(Error::Drain)?;
    let (drill_in, drills_asked) = mpsc::channel(DRILLS_MAXIMUM);
    let (cut, cut_out) = watch::channel(false);
    let (inbound, orders) = mpsc::channel(INBOUND_MAXIMUM);
    let images = Images::new(state.snapshots(), config.images_memory_bytes);
    let ahead = Ahead::begin(images.clone()).map_err(Error::Thread)?;
    let parts = Parts {
        config: config.clone(),
        state: state.clone(),
        boot,
        spool: spool.clone(),
        registry: registry.clone(),
        capabilities,
        inbound,
        ahead: ahead.clone(),
        drills: drill_in,
        cut: cut_out,
    };
    let (uplink, ends) = Uplink::new(parts)?;

    let drills = Drills::open(
        drill::Parts {
            node: config.node.clone(),
            settings: config.drill.clone(),
            state: state.path().to_owned(),
            registry: registry.clone(),
            cgroups: cgroups.clone(),
            stage,
            host_key: ends.host_key.clone(),
            report: report.clone(),
            cut,
        },
        drill::capabilities(&config.drill, config.simulate, &bounded, &gpus),
    )
    .map_err(Error::Drill)?;
    registry.begin(&config.workloads, &state.workloads(), config.simulate);

    let hands: Box<dyn Hands> = if config.simulate {
        Box::new(Simulated)
    } else {
        Box::new(Native {
            criu,
            namespaces,
            cuda,
            registry: registry.clone(),
            network,
            output: state.workloads(),
            lazy_from_bytes: config.lazy_restore_bytes,
        })
    };
    let journal = Arc::new(Journal::open(&state.journal()).map_err(Error::Journal)?);
    let control = Control {
        simulate: config.simulate,
        cgroups,
        gpus,
        drain,
        power,
        bounded,
        runbooks: state.runbooks(),
        registry: registry.clone(),
        journal: journal.clone(),
    };
    let desk = Desk {
        node: config.node.clone(),
        journal,
        registry: registry.clone(),
        executor: Arc::new(Executor {
            node: config.node.clone(),
            hands,
            registry: registry.clone(),
            control,
            images,
            ahead,
        }),
        link: ends.link,
        host_key: ends.host_key,
        generation: ends.generation,
        lease: ends.lease,
        latest: collector.latest(),
        concurrent_maximum: config.concurrent_maximum,
    };

    let sampler = Sampler::begin(collector, spool.clone(), ends.wishes, report).map_err(Error::Thread)?;
    let tasks = TaskTracker::new();
    tasks.spawn(sampler.run(shutdown.clone()));
    tasks.spawn(signals::run(config.signals.clone(), config.node.clone(), spool.clone(), shutdown.clone()));
    tasks.spawn(uplink.run(shutdown.clone()));
    tasks.spawn(desk.run(orders, shutdown.clone()));
    tasks.spawn(drills.run(drills_asked, shutdown.clone()));
    tasks.close();
    info!(node.id = %config.node, host = %config.host, state = %state.path().display(), "the agent runs");

    shutdown.cancelled().await;
    info!("stopping");
    if tokio::time::timeout(SHUTDOWN_WITHIN, tasks.wait()).await.is_err() {
        error!("something did not end in time and is left behind; the journal knows of it");
    }
    spool.close();
    if config.stop_workloads_on_exit {
        registry.end_all();
    }
    Ok(())
}

/// What this machine can do, without an agent running.
pub fn examine(config: &Config) -> Result<Findings, Error> {
    let folder = std::env::temp_dir().join(format!("aether-agent-doctor-{}.json", clock::new_id()));
    let registry = Arc::new(Registry::open(&folder, capabilities::boot_id())?);
    // The registry of nothing; a leftover of a few bytes hurts nobody.
    let _ = std::fs::remove_file(&folder);
    let cgroups = Cgroups::probe();
    let gpus = Gpus::probe(config.nvml.as_deref());
    let watched = Watched {
        registry: registry.clone(),
        cgroups: cgroups.clone(),
        gpus: gpus.clone(),
        stage: Stage::default(),
        externals: config.externals.clone(),
    };
    let mut collector = Collector::new(config.node.clone(), &std::env::temp_dir(), watched)
        .with_bpf(&registry, &cgroups, config.bpf_budget)
        .at_intervals(&config.intervals);
    let sources = collector.probe(&config.disabled_sources);
    let probed = Probed {
        criu: &Criu::find(config.criu.as_deref()),
        namespaces: &Criu::probe_namespaces(),
        cuda: &Cuda::find(config.cuda_checkpoint.as_deref()),
        cgroups: &cgroups,
        gpus: &gpus,
        power: &Power::probe(&config.power.sys, config.power.wake_port),
        bounded: &cgroups.can_make(),
        sources: &sources,
        network: &Network::find(),
    };
    Ok(Findings::new(config, &probed))
}

/// NVML may take a while: a driver that nobody keeps loaded is loaded for it. [`Gpus::probe`] waits for it within a bound.
async fn find_gpus(config: &Config) -> Gpus {
    let asked = config.nvml.clone();
    let found = tokio::task::spawn_blocking(move || Gpus::probe(asked.as_deref())).await;
    found.unwrap_or_else(|error| Gpus::absent(error.to_string()))
}

async fn find_criu(config: &Config, state: &std::path::Path) -> Result<Criu, Missing> {
    let (asked, state) = (config.criu.clone(), state.to_owned());
    let found = tokio::task::spawn_blocking(move || {
        let mut criu = Criu::find(asked.as_deref())?;
        criu.remember_kernel(&state);
        Ok(criu)
    })
    .await;
    found.unwrap_or_else(|error| {
        Err(Missing { code: "criu.broken", reason: error.to_string(), advice: "see the agent's log".into() })
    })
}
