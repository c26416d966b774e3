//! A node: its machine, its disk, and the lives of its agent. The agent is the real one (uplink, desk, journal, spool,
//! register of workloads) but for what collects telemetry and what touches processes.

use crate::{
    dice::{Rng, dice, happens},
    faults::{DEATHS, Fault},
    island::Island,
    machine::{Fuse, Machine},
    minds,
    net::Wire,
    shared::{Mutation, Shared},
};
use aether_agent::{
    act::{
        Desk,
        images::Images,
        journal::{Journal, Witness},
        snapshot::ahead::Ahead,
    },
    clock,
    collect::Latest,
    config::{Config, Declared, JoinToken, SpoolLimits},
    spool::Spool,
    state::StateFolder,
    uplink::{Inbound, Parts, Uplink},
    workloads::{Registry, State, Tcp},
};
use aether_core::{
    catalogue::capability,
    id::{NodeId, WorkloadId},
    snapshot::{Tier, WorkloadSpec},
    telemetry::Batch,
};
use aether_proto::v1;
use anyhow::Context as _;
use std::{
    collections::VecDeque,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex, atomic::AtomicI64},
    time::Duration,
};
use tokio::sync::{mpsc, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Batches that a spool holds.
const SPOOL_BATCHES: usize = 1_200;
/// Orders that wait for the desk.
const INBOUND: usize = 256;

pub(crate) fn id(node: usize) -> NodeId {
    NodeId(format!("node-{node}"))
}

pub(crate) fn workload(id: &str) -> WorkloadSpec {
    WorkloadSpec {
        id: WorkloadId(id.into()),
        name: id.into(),
        tier: Tier::Standard,
        command: vec![],
        progress_file: None,
    }
}

/// One life of an agent.
struct Life {
    island: Island,
    inbound: mpsc::Sender<Inbound>,
    journal: Arc<Journal>,
    /// As long as it lives, the uplink knows what the node can do.
    _capabilities: watch::Sender<v1::CapabilityReport>,
}

pub(crate) struct Node {
    number: usize,
    shared: Arc<Shared>,
    folder: PathBuf,
    join_token: String,
    workloads: Vec<String>,
    pub skew_ms: Arc<AtomicI64>,
    dice: Rng,
    life: Option<Life>,
    /// When its agent is started again.
    pub wakes_at: u64,
    lives: u64,
    /// Its journal ends in the middle of a record.
    torn: bool,
    /// What it has sampled, oldest first, as its spool holds it; with how much of it was dropped.
    spool: VecDeque<Batch>,
    forgotten: u64,
}

impl Node {
    pub(crate) fn new(
        number: usize,
        shared: Arc<Shared>,
        folder: PathBuf,
        join_token: String,
        workloads: Vec<String>,
    ) -> Self {
        let dice = dice(shared.seed, &format!("node {number}"));
        Self {
            number,
            shared,
            folder,
            join_token,
            workloads,
            skew_ms: Arc::default(),
            dice,
            life: None,
            wakes_at: 0,
            lives: 0,
            torn: false,
            spool: VecDeque::new(),
            forgotten: 0,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Starts the agent on what its former lives left.
    pub(crate) fn start(&mut self, now: u64) -> anyhow::Result<()> {
        self.lives += 1;
        let island = Island::new(now, self.skew_ms.clone(), self.dice.fork())?;
        let aimed = happens(&mut self.dice, self.shared.odds.get(Fault::AgentDied));
        let fuse = aimed.then(|| (DEATHS[self.dice.usize(0..DEATHS.len())], u64::from(self.dice.u8(0..4) == 0)));
        let fuse = Fuse::new(fuse, island.death.clone(), self.shared.clone(), self.number);
        let machine_dice = self.dice.fork();
        let torn = happens(&mut self.dice, self.shared.odds.get(Fault::JournalTorn));
        self.torn = torn && self.lives > 1 && !self.shared.is_quiet();
        let begun = island.inside(|| -> anyhow::Result<_> {
            let config = Arc::new(self.config());
            let state = Arc::new(StateFolder::open(&config.state)?);
            let registry = Arc::new(Registry::open(&state.registry(), "the one boot".into())?);
            let spool =
                Arc::new(Spool::open(&state.spool(), config.node.clone(), "the one boot".into(), config.spool)?);
            self.what_is_left_of_the_journal(&state)?;
            let witness: Arc<dyn Witness> = fuse.clone();
            let journal = Journal::open_before(&state.journal(), Some(witness)).context("the journal of orders")?;
            let journal = Arc::new(journal);
            let (capabilities, report) = watch::channel(capabilities());
            let (inbound, orders) = mpsc::channel(INBOUND);
            let ahead = Ahead::begin(Images::new(state.snapshots(), config.images_memory_bytes))?;
            let wire = Wire { node: self.number, shared: self.shared.clone(), tasks: TaskTracker::new() };
            let parts = Parts {
                config: config.clone(),
                state: state.clone(),
                boot: "the one boot".into(),
                spool,
                registry: registry.clone(),
                capabilities: report,
                inbound: inbound.clone(),
                ahead,
                // No drills here: nobody takes them, and nobody cuts the link this way.
                drills: mpsc::channel(1).0,
                cut: watch::channel(false).1,
            };
            let (uplink, ends) = Uplink::over(Box::new(wire), parts)?;
            registry.begin(&config.workloads, &state.workloads(), true);
            for entry in registry.all().into_iter().filter(|entry| entry.state == State::Running) {
                let mut world = self.shared.world();
                if !world.copies().contains_key(&(self.number, entry.spec.id.clone())) {
                    world.started(self.number, &entry.spec.id, entry.generation);
                }
            }
            let machine = Machine {
                node: self.number,
                shared: self.shared.clone(),
                registry: registry.clone(),
                fuse,
                dice: Mutex::new(machine_dice),
            };
            let desk = Desk {
                node: config.node.clone(),
                journal: journal.clone(),
                registry,
                executor: Arc::new(machine),
                link: ends.link,
                host_key: ends.host_key,
                generation: ends.generation,
                lease: if self.shared.is_broken(Mutation::AgentIgnoresLease) {
                    watch::channel(0).1
                } else {
                    ends.lease
                },
                latest: Latest::default(),
                concurrent_maximum: config.concurrent_maximum,
            };
            Ok((uplink, desk, orders, inbound, journal, capabilities, ends.wishes, ends.connected))
        });
        let (uplink, desk, orders, inbound, journal, capabilities, wishes, connected) = begun?;
        let forever = CancellationToken::new();
        island.spawn(desk.run(orders, forever.clone()));
        island.spawn(async move {
            // Nobody else holds these ends, and the uplink wants somebody to.
            let _held = (wishes, connected);
            uplink.run(forever).await;
        });
        self.life = Some(Life { island, inbound, journal, _capabilities: capabilities });
        self.shared.note(format!("node {}: its agent starts, life {}", self.number, self.lives));
        Ok(())
    }

    /// A death in the middle of a write leaves a part of a record that nothing was begun on the word of.
    fn what_is_left_of_the_journal(&self, state: &StateFolder) -> anyhow::Result<()> {
        let path = state.journal().join("journal");
        if self.torn
            && let Ok(mut file) = std::fs::File::options().append(true).open(&path)
        {
            file.write_all(&[0x55; 21])?;
            self.shared.fault(Fault::JournalTorn, format!("node {}", self.number));
        }
        if self.shared.is_broken(Mutation::ForgetsJournal) && path.exists() {
            std::fs::remove_file(&path)?;
        }
        Ok(())
    }

    fn config(&self) -> Config {
        let declared = |id: &String| Declared { spec: workload(id), adopt_pid: None, tcp: Tcp::Refuse };
        Config {
            node: id(self.number),
            host: "http://simulated".into(),
            host_ca: None,
            state: self.folder.clone(),
            join_token: Some(JoinToken(self.join_token.clone())),
            criu: None,
            nvml: None,
            cuda_checkpoint: None,
            labels: Default::default(),
            simulate: true,
            stop_workloads_on_exit: false,
            sample_interval: Duration::from_secs(1),
            batch_interval: Duration::from_secs(1),
            disabled_sources: Default::default(),
            intervals: Default::default(),
            externals: vec![],
            bpf_budget: 0.02,
            spool: SpoolLimits {
                bytes: 1 << 20,
                age: Duration::from_secs(3_600),
                memory_batches: 16,
                sync_interval: Duration::from_secs(5),
            },
            concurrent_maximum: 4,
            images_memory_bytes: 0,
            lazy_restore_bytes: 0,
            power: Default::default(),
            drill: Default::default(),
            signals: Default::default(),
            workloads: self.workloads.iter().map(declared).collect(),
        }
    }

    /// Lets the agent go on up to `now`.
    pub(crate) fn run_until(&mut self, now: u64) {
        if let Some(life) = &self.life
            && !life.island.run_until(now)
        {
            self.die(now);
        }
    }

    /// Ends the agent as kill -9 does. What it had written stays.
    pub(crate) fn die(&mut self, now: u64) {
        let told = self.dice.bool();
        let away = self.dice.u64(2..200) * crate::QUANTUM_MS;
        if let Some(life) = self.life.take() {
            drop(life);
            self.shared.note(format!("node {}: its agent is gone, back in {away} ms", self.number));
            self.shared.world().agent_died(self.number);
            self.shared.net().agent_gone(now, self.number, told);
        }
        self.wakes_at = now + away;
    }

    /// Samples what there is, by its own clock.
    pub(crate) fn sample(&mut self, load: f64) {
        let Some(life) = &self.life else { return };
        let trouble = self.shared.book().in_trouble(id(self.number).as_str());
        let running: Vec<String> = {
            let world = self.shared.world();
            let here = world.copies().iter().filter(|((node, _), copy)| *node == self.number && copy.running);
            here.map(|((_, id), _)| id.0.clone()).collect()
        };
        let at = life.island.inside(clock::now);
        let sequence = self.forgotten + self.spool.len() as u64 + 1;
        self.spool.push_back(minds::telemetry(self.number, sequence, at, load, trouble, &running));
        while self.spool.len() > SPOOL_BATCHES {
            self.spool.pop_front();
            self.forgotten += 1;
        }
    }

    /// What it has sampled after the first `taken`.
    pub(crate) fn spooled(&self, taken: u64) -> impl Iterator<Item = &Batch> {
        self.spool.iter().filter(move |batch| batch.sequence > taken)
    }

    /// How much it has sampled.
    pub(crate) fn sampled(&self) -> u64 {
        self.forgotten + self.spool.len() as u64
    }

    /// Hands an order to the desk, beside the stream.
    pub(crate) fn hand_in(&self, order: Inbound) {
        if let Some(life) = &self.life {
            drop(life.inbound.try_send(order));
        }
    }

    /// Orders in its journal whose outcome it does not know, or has not been able to tell.
    pub(crate) fn unsettled(&self) -> usize {
        let Some(life) = &self.life else { return 1 };
        let world = self.shared.world();
        let unfinished = life.journal.unfinished();
        let unfinished = unfinished.iter().filter(|known| !world.hung.contains(&known.accepted.key)).count();
        unfinished + life.journal.untold().len()
    }
}

fn capabilities() -> v1::CapabilityReport {
    let able = |name: &str| v1::Capability {
        name: name.into(),
        available: true,
        reason: String::new(),
        fallback: String::new(),
        simulated: true,
    };
    let capabilities = vec![able(capability::CHECKPOINT), able(capability::RESTORE)];
    v1::CapabilityReport { capabilities, facts: Default::default() }
}
