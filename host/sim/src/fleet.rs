//! One run: hosts and nodes take their turns, things go wrong for a while, then all is mended and must come to rest.

use crate::{
    QUANTUM_MS,
    check::{self, Story},
    dice::{Rng, dice, happens},
    faults::{Counts, Fault},
    host::{Host, Started, template},
    minds::Rules,
    net::{self, HostId, Packet},
    node::{self, Node},
    shared::{Mutation, Shared},
};
use aether_core::id::WorkloadId;
use anyhow::Context as _;
use std::{
    cell::RefCell,
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Once,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
};

const NODES: usize = 3;
const SECOND: u64 = 1_000;
/// Faults are injected up to then, or so long beside the hours without a host.
const FAULTS_MS: u64 = 100 * SECOND;
/// No clock is more wrong than this.
const SKEW_MS: i64 = 40_000;
/// All must have come to rest by then.
const REST_WITHIN_MS: u64 = 3 * 3_600 * SECOND;
/// Machines that hosts run on.
const HOSTS: usize = 2;

/// What one seed came to.
pub struct Report {
    pub seed: u64,
    pub faults: Counts,
    /// What the checkers found. Empty: all is as it must be.
    pub broken: Vec<String>,
    /// The hash of all that happened, in order.
    pub trace: String,
    /// All that happened, if it was wanted.
    pub lines: Vec<String>,
    pub incidents: u64,
    pub executed: u64,
    /// How the incidents ended.
    pub ends: Vec<String>,
    /// Virtual time from the last fault until all had come to rest, in milliseconds.
    pub rested_ms: u64,
}

thread_local! {
    /// What panicked in this thread's run. A runtime swallows the panic of a task.
    static PANICS: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn watch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            PANICS.with_borrow_mut(|panics| panics.push(panic.to_string()));
            before(panic);
        }));
    });
    PANICS.with_borrow_mut(Vec::clear);
}

/// Runs one seed.
pub fn run(seed: u64, keep_trace: bool) -> anyhow::Result<Report> {
    run_with(seed, keep_trace, None)
}

/// The same of a system that is broken in one way, if in any.
pub fn run_with(seed: u64, keep_trace: bool, mutation: Option<Mutation>) -> anyhow::Result<Report> {
    watch_panics();
    let folder = folder()?;
    let mut fleet = Fleet::new(Shared::new(seed, keep_trace, mutation), folder.path())?;
    let mut told = fleet.run()?;
    told.broken.extend(PANICS.take().into_iter().map(|panic| format!("something panicked: {panic}")));
    let (trace, lines) = fleet.shared.trace();
    let executed = fleet.shared.world().executed;
    let ends = told.stories.iter().map(|story| format!("{:?}", story.summary.resolution)).collect();
    Ok(Report {
        seed,
        faults: fleet.shared.counts(),
        broken: told.broken,
        trace,
        lines,
        incidents: told.stories.len() as u64,
        executed,
        ends,
        rested_ms: fleet.shared.now() - fleet.mended_at,
    })
}

/// In memory where there is such a place: the disk is synced often.
fn folder() -> anyhow::Result<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let builder = tempfile::Builder::new().prefix("aether-sim-").tempdir_in(memory);
    builder.or_else(|_| tempfile::tempdir()).context("a folder for the run")
}

struct Fleet {
    shared: Arc<Shared>,
    database: PathBuf,
    rules: Rules,
    dice: Rng,
    hosts: Vec<Host>,
    hosts_started: u64,
    /// Of each machine that hosts run on: when one starts there again, and how wrong its clock is.
    host_wakes_at: [u64; HOSTS],
    host_skew_ms: [Arc<AtomicI64>; HOSTS],
    /// Faults are injected up to then.
    mended_at: u64,
    nodes: Vec<Node>,
    workloads: BTreeSet<WorkloadId>,
    /// Of each node: until when its telemetry does not come, or its load is too high.
    stale_until: Vec<u64>,
    loaded_until: Vec<u64>,
}

struct Told {
    stories: Vec<Story>,
    broken: Vec<String>,
}

impl Fleet {
    fn new(shared: Arc<Shared>, folder: &Path) -> anyhow::Result<Self> {
        let seed = shared.seed;
        let rules = Rules::of(seed);
        shared.book().approvers = rules.approvers;
        let database = folder.join("aether.db");
        let tokens = template(&database, NODES)?;
        let mut workloads = BTreeSet::new();
        let mut nodes = Vec::new();
        for (number, token) in tokens.into_iter().enumerate() {
            // Two on each node but the last.
            let here: Vec<String> =
                (0..2).filter(|_| number < NODES - 1).map(|n| format!("work-{number}-{n}")).collect();
            workloads.extend(here.iter().map(|id| WorkloadId(id.clone())));
            nodes.push(Node::new(number, shared.clone(), folder.join(format!("node-{number}")), token, here));
        }
        let stands_still = shared.odds.get(Fault::ReplicaBeside) > 0.0;
        Ok(Self {
            dice: dice(seed, "fleet"),
            shared,
            database,
            rules,
            hosts: vec![],
            hosts_started: 0,
            // A second one waits for the lease, where one may stand still.
            host_wakes_at: [0, if stands_still { 2 * SECOND } else { u64::MAX }],
            host_skew_ms: Default::default(),
            mended_at: FAULTS_MS,
            nodes,
            workloads,
            stale_until: vec![0; NODES],
            loaded_until: vec![0; NODES],
        })
    }

    fn run(&mut self) -> anyhow::Result<Told> {
        loop {
            let now = self.shared.now() + self.quantum();
            self.shared.set_now(now);
            if now >= self.mended_at && !self.shared.is_quiet() {
                self.mend(now);
            }
            if now.is_multiple_of(SECOND) {
                self.each_second(now);
            }
            self.start_what_is_down(now)?;
            self.deliver(now);
            self.turns(now);
            if self.shared.is_quiet()
                && now.is_multiple_of(5 * SECOND)
                && now > self.mended_at + 20 * SECOND
                && let Some(told) = self.at_rest(now)?
            {
                return Ok(told);
            }
        }
    }

    /// How long the next turn is. Where nothing can happen but waiting it is longer.
    fn quantum(&self) -> u64 {
        let now = self.shared.now();
        let nobody = self.hosts.is_empty() && self.host_wakes_at.iter().all(|at| *at > now + 10 * SECOND);
        let waits = self.shared.is_quiet() && now > self.mended_at + 600 * SECOND;
        if (nobody || waits) && now.is_multiple_of(SECOND) { SECOND } else { QUANTUM_MS }
    }

    fn roll(&mut self, fault: Fault) -> bool {
        let odds = self.shared.odds.get(fault);
        !self.shared.is_quiet() && happens(&mut self.dice, odds)
    }

    /// Nothing goes wrong any more; what is down comes up, clocks are right, and one host remains.
    fn mend(&mut self, now: u64) {
        self.shared.note("all is mended");
        self.shared.calm();
        self.shared.book().end_trouble(u64::MAX);
        for place in 0..HOSTS {
            self.host_skew_ms[place].store(0, SeqCst);
            self.host_wakes_at[place] = self.host_wakes_at[place].min(if place == 0 { now } else { u64::MAX });
        }
        for number in 0..NODES {
            (self.stale_until[number], self.loaded_until[number]) = (0, 0);
            self.nodes[number].skew_ms.store(0, SeqCst);
            self.nodes[number].wakes_at = now;
        }
        for host in &mut self.hosts {
            host.still_until = host.still_until.map(|_| now);
        }
    }

    fn each_second(&mut self, now: u64) {
        let quiet = self.shared.is_quiet();
        self.shared.book().end_trouble(now);
        if !quiet && !self.hosts.is_empty() {
            self.trouble(now);
            self.clocks();
            self.hosts_in_trouble(now);
        }
        self.telemetry(now);
        // Somebody looks now and then, at any host that answers.
        if self.dice.bool() && !self.hosts.is_empty() {
            let which = self.dice.usize(0..self.hosts.len());
            if self.hosts[which].still_until.is_none() {
                self.hosts[which].people_look();
            }
        }
    }

    fn trouble(&mut self, now: u64) {
        if happens(&mut self.dice, 0.15) {
            let running: Vec<usize> = {
                let world = self.shared.world();
                world.copies().iter().filter(|(_, copy)| copy.running).map(|((node, _), _)| *node).collect()
            };
            let any = self.dice.usize(0..NODES);
            let which = self.dice.choice(running).unwrap_or(any);
            let until = now + SECOND * self.dice.u64(4..20);
            self.shared.note(format!("node {which} is in trouble until {until}"));
            self.shared.book().begin_trouble(node::id(which).as_str(), until);
        }
        for number in 0..NODES {
            if self.nodes[number].is_up() && self.roll(Fault::AgentKilled) {
                self.shared.fault(Fault::AgentKilled, format!("node {number}"));
                self.nodes[number].die(now);
            }
            if self.roll(Fault::TelemetryStale) {
                self.stale_until[number] = now + SECOND * self.dice.u64(5..40);
                self.shared.fault(Fault::TelemetryStale, format!("node {number} until {}", self.stale_until[number]));
            }
            if self.roll(Fault::PreconditionBroken) {
                self.loaded_until[number] = now + SECOND * self.dice.u64(2..20);
                self.shared.fault(Fault::PreconditionBroken, format!("node {number} has too much to do"));
            }
        }
    }

    fn clocks(&mut self) {
        for (fault, sign) in [(Fault::HostClockForward, 1), (Fault::HostClockBack, -1)] {
            for place in 0..HOSTS {
                if self.roll(fault) {
                    let by = sign * self.dice.i64(500..20_000);
                    step_clock(&self.host_skew_ms[place], by);
                    self.shared.fault(fault, format!("of the machine {place} by {by} ms"));
                }
            }
        }
        for (fault, sign) in [(Fault::AgentClockForward, 1), (Fault::AgentClockBack, -1)] {
            for number in 0..NODES {
                if self.roll(fault) {
                    let by = sign * self.dice.i64(500..20_000);
                    step_clock(&self.nodes[number].skew_ms, by);
                    self.shared.fault(fault, format!("of node {number} by {by} ms"));
                }
            }
        }
    }

    fn hosts_in_trouble(&mut self, now: u64) {
        if !self.hosts.is_empty() && self.roll(Fault::HostDied) {
            self.shared.fault(Fault::HostDied, "between two of its turns");
            let which = self.dice.usize(0..self.hosts.len());
            self.host_dies(which, now);
        }
        if !self.hosts.is_empty() && self.mended_at == FAULTS_MS && self.roll(Fault::HostsAway) {
            let away = SECOND * self.dice.u64(1_800..4 * 3_600);
            self.shared.fault(Fault::HostsAway, format!("for {away} ms"));
            while !self.hosts.is_empty() {
                self.host_dies(0, now);
            }
            self.host_wakes_at = self.host_wakes_at.map(|at| at.saturating_add(away).max(now + away));
            self.mended_at += away;
            // Whatever was wrong is long over when they are back.
            self.shared.book().end_trouble(u64::MAX);
        }
        let drives = self.hosts.iter().position(|host| host.drives() && host.still_until.is_none());
        if let Some(which) = drives.filter(|_| self.hosts.len() == HOSTS)
            && self.roll(Fault::ReplicaBeside)
        {
            let until = now + SECOND * self.dice.u64(1..30);
            let host = &mut self.hosts[which];
            host.still_until = Some(until);
            self.shared.fault(Fault::ReplicaBeside, format!("host {} stands still until {until}", host.id.0));
        }
        for which in 0..self.hosts.len() {
            if self.roll(Fault::DatabaseRefused) {
                let until = now + QUANTUM_MS * self.dice.u64(1..40);
                self.shared.fault(Fault::DatabaseRefused, format!("until {until}"));
                self.hosts[which].refuse_writes(until);
            }
            if self.roll(Fault::DatabaseConflict) {
                // More than the driver tries, at times.
                self.hosts[which].fail_commits(self.dice.u64(1..8));
            }
        }
    }

    fn telemetry(&mut self, now: u64) {
        for number in 0..NODES {
            let load = if self.loaded_until[number] > now { 1.0 } else { 0.3 };
            let node = &mut self.nodes[number];
            if self.shared.book().in_trouble(node::id(number).as_str()) {
                self.shared.book().reason(node::id(number).as_str(), now);
            }
            node.sample(load);
            if !node.is_up() || self.stale_until[number] > now {
                continue;
            }
            for host in self.hosts.iter_mut().filter(|host| host.still_until.is_none()) {
                host.telemetry(number, node);
            }
        }
    }

    fn start_what_is_down(&mut self, now: u64) -> anyhow::Result<()> {
        for place in 0..HOSTS {
            if now < self.host_wakes_at[place] || self.hosts.iter().any(|host| host.place == place) {
                continue;
            }
            self.hosts_started += 1;
            let id = HostId(self.hosts_started);
            let dice = self.dice.fork();
            let skew = self.host_skew_ms[place].clone();
            match Host::start((id, place), self.shared.clone(), &self.database, skew, self.rules, dice)? {
                Started::Up(host) => self.hosts.push(*host),
                Started::Died => self.host_wakes_at[place] = now + SECOND,
            }
        }
        for node in &mut self.nodes {
            if !node.is_up() && now >= node.wakes_at {
                node.start(now)?;
            }
        }
        Ok(())
    }

    fn host_dies(&mut self, which: usize, now: u64) {
        let told = self.dice.bool();
        let host = self.hosts.remove(which);
        self.shared.note(format!("host {} is gone", host.id.0));
        self.shared.net().host_gone(now, host.id, told);
        self.host_wakes_at[host.place] = now + QUANTUM_MS * self.dice.u64(1..100);
        drop(host);
    }

    fn deliver(&mut self, now: u64) {
        let due = self.shared.net().due(now);
        for packet in due {
            match packet {
                Packet::Open { stream } => {
                    let to = self.shared.net().host_of(stream);
                    match self.hosts.iter().find(|host| Some(host.id) == to) {
                        Some(host) if host.take_in(stream) => {}
                        Some(_) | None => self.shared.net().refuse(now, stream),
                    }
                }
                Packet::Up { stream, frame } => {
                    let what = frame.as_deref().map_or_else(|| "end".to_string(), net::client_kind);
                    self.shared.note(format!("stream {stream} up {what}"));
                    self.shared.net().deliver_up(stream, frame);
                }
                Packet::Down { stream, frame } => {
                    let what = frame.as_deref().map_or_else(|| "end".to_string(), net::server_kind);
                    self.shared.note(format!("stream {stream} down {what}"));
                    let knows = frame.as_ref().and_then(|frame| self.shared.net().agent_knows(stream, frame));
                    if let Some((node, lease)) = knows {
                        let mut world = self.shared.world();
                        let newest = world.welcomed.entry(node).or_default();
                        *newest = lease.max(*newest);
                    }
                    self.shared.net().deliver_down(stream, frame);
                }
                Packet::Order { node, dispatch } => {
                    self.shared.note(format!("node {node}: an order comes again, beside the stream"));
                    self.nodes[node].hand_in(net::order(*dispatch));
                }
            }
        }
        self.shared.net().forget_closed();
    }

    fn turns(&mut self, now: u64) {
        let mut which = 0;
        while which < self.hosts.len() {
            if self.hosts[which].run_until(now) {
                which += 1;
            } else {
                self.host_dies(which, now);
            }
        }
        for node in &mut self.nodes {
            node.run_until(now);
        }
    }

    /// The end, if nothing is left to do, or too much time has passed.
    fn at_rest(&mut self, now: u64) -> anyhow::Result<Option<Told>> {
        let Some(host) = self.hosts.iter().find(|host| host.drives()) else { return Ok(None) };
        let late = now >= self.mended_at + REST_WITHIN_MS;
        let open = host.ask(|store| async move { store.incidents(Some(true), None, 100).await });
        let open = open.context("the host died when nothing went wrong")??;
        let unsettled: usize = self.nodes.iter().map(Node::unsettled).sum();
        if !late && (!open.is_empty() || unsettled > 0) {
            return Ok(None);
        }
        let stories = host.ask(check::stories).context("the host died when nothing went wrong")??;
        for story in &stories {
            self.shared.note(format!("{} ended {:?}", story.summary.id, story.summary.resolution));
            for event in &story.events {
                self.shared.note(format!("  {}", brief(event)));
            }
        }
        let mut broken = {
            let (world, book) = (self.shared.world(), self.shared.book());
            check::all(&stories, &world, &book, &self.workloads)
        };
        if unsettled > 0 {
            broken.push(format!("{unsettled} orders are unsettled at their agents after all faults stopped"));
        }
        Ok(Some(Told { stories, broken }))
    }
}

fn step_clock(skew_ms: &AtomicI64, by: i64) {
    let skew = skew_ms.load(SeqCst).saturating_add(by);
    skew_ms.store(skew.clamp(-SKEW_MS, SKEW_MS), SeqCst);
}

/// An event on one line.
fn brief(event: &aether_core::incident::Event) -> String {
    let text = format!("{event:?}");
    text.chars().take(240).collect()
}
