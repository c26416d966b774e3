//! One run: hosts and nodes take their turns, things go wrong for a while, then all is mended and must come to rest.

use crate::{
    QUANTUM_MS,
    check::{self, Story},
    dice::{Rng, dice, happens},
    faults::{Counts, Fault},
    host::{Host, Started, template},
    minds::{self, Rules},
    net::{self, HostId, Packet},
    node::{self, Node},
    shared::Shared,
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
/// Faults are injected up to then.
const FAULTS_MS: u64 = 100 * SECOND;
/// All must have come to rest by then.
const REST_WITHIN_MS: u64 = 3 * 3_600 * SECOND;
/// Replicas at one time.
const HOSTS_MAXIMUM: usize = 2;

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
    /// Virtual time, in milliseconds.
    pub took_ms: u64,
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
    watch_panics();
    let folder = folder()?;
    let mut fleet = Fleet::new(seed, keep_trace, folder.path())?;
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
        took_ms: fleet.shared.now(),
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
    host_wakes_at: u64,
    host_skew_ms: Arc<AtomicI64>,
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
    fn new(seed: u64, keep_trace: bool, folder: &Path) -> anyhow::Result<Self> {
        let shared = Shared::new(seed, keep_trace);
        let rules = Rules::of(seed);
        shared.book().approvers = rules.approvers;
        let database = folder.join("aether.db");
        let tokens = template(&database, NODES)?;
        let mut workloads = BTreeSet::new();
        let mut nodes = Vec::new();
        for (number, token) in tokens.into_iter().enumerate() {
            // Two on the first node, one on the second, none on the last.
            let here: Vec<String> = (number..NODES - 1).map(|n| format!("work-{number}-{n}")).collect();
            workloads.extend(here.iter().map(|id| WorkloadId(id.clone())));
            nodes.push(Node::new(number, shared.clone(), folder.join(format!("node-{number}")), token, here));
        }
        Ok(Self {
            dice: dice(seed, "fleet"),
            shared,
            database,
            rules,
            hosts: vec![],
            hosts_started: 0,
            host_wakes_at: 0,
            host_skew_ms: Arc::default(),
            nodes,
            workloads,
            stale_until: vec![0; NODES],
            loaded_until: vec![0; NODES],
        })
    }

    fn run(&mut self) -> anyhow::Result<Told> {
        loop {
            let now = self.shared.now() + QUANTUM_MS;
            self.shared.set_now(now);
            if now == FAULTS_MS {
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
                && now > FAULTS_MS + 20 * SECOND
                && let Some(told) = self.at_rest(now)?
            {
                return Ok(told);
            }
        }
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
        self.host_skew_ms.store(0, SeqCst);
        self.host_wakes_at = now;
        for number in 0..NODES {
            (self.stale_until[number], self.loaded_until[number]) = (0, 0);
            self.nodes[number].skew_ms.store(0, SeqCst);
            self.nodes[number].wakes_at = now;
        }
        // What one replica opens another learns of when it starts; and one that stands still is as good as dead.
        if self.shared.counts().get(Fault::ReplicaBeside) > 0 {
            while !self.hosts.is_empty() {
                self.host_dies(0, now);
            }
            self.host_wakes_at = now;
        }
    }

    fn each_second(&mut self, now: u64) {
        let quiet = self.shared.is_quiet();
        self.shared.book().end_trouble(now);
        if !quiet {
            self.trouble(now);
            self.clocks();
            self.hosts_in_trouble(now);
        }
        self.telemetry(now);
        // Somebody looks every few seconds, at any replica that answers.
        if self.dice.u8(0..3) == 0 && !self.hosts.is_empty() {
            let which = self.dice.usize(0..self.hosts.len());
            if self.hosts[which].still_until.is_none() {
                self.hosts[which].people_look();
            }
        }
    }

    fn trouble(&mut self, now: u64) {
        if happens(&mut self.dice, 0.08) {
            let running: Vec<usize> = {
                let world = self.shared.world();
                world.copies().iter().filter(|(_, copy)| copy.running).map(|((node, _), _)| *node).collect()
            };
            let any = self.dice.usize(0..NODES);
            let which = self.dice.choice(running).unwrap_or(any);
            let until = now + SECOND * self.dice.u64(5..40);
            self.shared.note(format!("node {which} is in trouble until {until}"));
            self.shared.book().begin_trouble(node::id(which).as_str(), until);
        }
        for number in 0..NODES {
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
        if self.roll(Fault::HostClockStepped) {
            let skew = self.dice.i64(-20_000..20_000);
            self.host_skew_ms.store(skew, SeqCst);
            self.shared.fault(Fault::HostClockStepped, format!("to {skew} ms"));
        }
        for number in 0..NODES {
            if self.roll(Fault::AgentClockStepped) {
                let skew = self.dice.i64(-20_000..20_000);
                self.nodes[number].skew_ms.store(skew, SeqCst);
                self.shared.fault(Fault::AgentClockStepped, format!("node {number} to {skew} ms"));
            }
        }
    }

    fn hosts_in_trouble(&mut self, now: u64) {
        if !self.hosts.is_empty() && self.roll(Fault::HostDied) {
            self.shared.fault(Fault::HostDied, "between two of its turns");
            let which = self.dice.usize(0..self.hosts.len());
            self.host_dies(which, now);
        }
        if self.hosts.len() == 1 && HOSTS_MAXIMUM > 1 && self.roll(Fault::ReplicaBeside) {
            let until = now + SECOND * self.dice.u64(1..30);
            let host = &mut self.hosts[0];
            host.still_until = Some(until);
            self.shared.fault(Fault::ReplicaBeside, format!("host {} stands still until {until}", host.id.0));
            self.host_wakes_at = now + SECOND * self.dice.u64(0..5);
        }
        for which in 0..self.hosts.len() {
            if self.roll(Fault::DatabaseRefused) {
                let until = now + QUANTUM_MS * self.dice.u64(1..40);
                self.shared.fault(Fault::DatabaseRefused, format!("until {until}"));
                self.hosts[which].refuse_writes(until);
            }
        }
    }

    fn telemetry(&mut self, now: u64) {
        for number in 0..NODES {
            if !self.nodes[number].is_up() || self.stale_until[number] > now {
                continue;
            }
            let load = if self.loaded_until[number] > now { 1.0 } else { 0.3 };
            let running: Vec<String> = {
                let world = self.shared.world();
                let here = world.copies().iter().filter(|((node, _), copy)| *node == number && copy.running);
                here.map(|((_, id), _)| id.0.clone()).collect()
            };
            for host in self.hosts.iter().filter(|host| host.still_until.is_none()) {
                host.telemetry(minds::telemetry(number, now / SECOND, now, load, &running));
            }
        }
    }

    fn start_what_is_down(&mut self, now: u64) -> anyhow::Result<()> {
        let standing = self.hosts.iter().all(|host| host.still_until.is_some());
        if standing && self.hosts.len() < HOSTS_MAXIMUM && now >= self.host_wakes_at {
            self.hosts_started += 1;
            let id = HostId(self.hosts_started);
            let dice = self.dice.fork();
            let skew = self.host_skew_ms.clone();
            match Host::start(id, self.shared.clone(), &self.database, skew, self.rules, dice)? {
                Started::Up(host) => self.hosts.push(*host),
                Started::Died => self.host_wakes_at = now + SECOND,
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
        drop(host);
        self.host_wakes_at = now + QUANTUM_MS * self.dice.u64(1..100);
    }

    fn deliver(&mut self, now: u64) {
        let due = self.shared.net().due(now);
        for packet in due {
            match packet {
                Packet::Open { stream } => {
                    let to = self.shared.net().host_of(stream);
                    match self.hosts.iter().find(|host| Some(host.id) == to) {
                        Some(host) => host.take_in(stream),
                        None => self.shared.net().refuse(now, stream),
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
        let Some(host) = self.hosts.last() else { return Ok(None) };
        let late = now >= FAULTS_MS + REST_WITHIN_MS;
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

/// An event on one line.
fn brief(event: &aether_core::incident::Event) -> String {
    let text = format!("{event:?}");
    text.chars().take(240).collect()
}
