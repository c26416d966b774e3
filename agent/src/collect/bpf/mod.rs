//! What only the kernel sees: waits, latencies, exits. By programs that run inside of it (`agent/bpf`).
//!
//! | source | tells | programs at |
//! |---|---|---|
//! | [`scheduler`] | waiting for a processor, being off it | each context switch |
//! | [`block`] | requests to block devices | each completion |
//! | [`tcp`] | connections being made, segments sent again | changes of a socket's state, retransmissions |
//! | [`exits`] | processes that ended, with their code | each end of a thread |
//! | [`oom`] | processes killed for want of memory | each of those |
//! | [`cost`] | what all of these cost, and keeps it within a budget | |
//!
//! Those that are watched pay for it, so what happens often is counted where it happens, in histograms of each
//! processor, and only what is rare becomes a record in a ring. Every map has a fixed size; what finds no room is
//! counted and told. A source that cannot run says what is lacking, and which other source tells something of the same.

mod block;
mod cgroups;
mod cost;
mod exits;
mod histogram;
mod oom;
mod program;
mod record;
mod scheduler;
mod tcp;

use super::{Budget, Missing, Sink, Source};
use crate::{
    act::control::cgroup::{Cgroups, Kind},
    clock,
    process::ProcessRef,
    workloads::Registry,
};
use aether_core::{id::WorkloadId, metric, subject::SubjectRef, telemetry::DiscreteEvent, time::Time};
use cgroups::Places;
use histogram::{Histograms, Names, Reading, total};
use program::{Attached, COUNTERS, LOST, Program, TAKEN};
use record::{Head, Record};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Cgroups whose latencies are told one by one: those that waited longest since the last sample.
const CGROUPS_MAXIMUM: usize = 32;
/// Slots of a map (`agent/bpf/aether.h`).
const SLOTS: usize = 256;
/// An object whose slots are taken by cgroups that are gone is loaded anew, but not more often than this.
const RENEW_EVERY_MS: u64 = 60_000;
/// Records that are read with one sample; more wait in the ring for the next.
const RECORDS_MAXIMUM: usize = 4_096;

/// The sources, in the order in which they are to be sampled. `budget` is the share of the time that processors are busy
/// that all of them may cost.
pub(super) fn sources(registry: &Arc<Registry>, cgroups: &Cgroups, budget: Budget) -> Vec<Box<dyn Source>> {
    let board = cost::Board::default();
    let places = |kind| Places::of(cgroups.clone(), registry.clone(), kind);
    vec![
        Box::new(scheduler::Scheduler::of(places(Kind::Cpu), board.clone())),
        Box::new(block::Block::of(board.clone())),
        Box::new(tcp::Tcp::of(places(Kind::Cpu), board.clone())),
        Box::new(exits::Exits::of(places(Kind::Cpu), Roots::of(registry.clone()), board.clone())),
        Box::new(oom::Oom::of(places(Kind::Memory), Roots::of(registry.clone()), board.clone())),
        Box::new(cost::Keeper::of(board, budget)),
    ]
}

/// An object's counters, counted on where the object is loaded anew.
#[derive(Default)]
struct Counters {
    seen: [u64; COUNTERS],
    all: [u64; COUNTERS],
    /// What this side left out.
    left_out: u64,
}

impl Counters {
    fn read(&mut self, attached: &Attached) -> Result<(), Missing> {
        let now = attached.counters()?;
        for ((all, now), seen) in self.all.iter_mut().zip(now).zip(self.seen) {
            *all += now.saturating_sub(seen);
        }
        self.seen = now;
        Ok(())
    }

    /// Slots that were taken since the object was loaded, as last read.
    fn taken(&self) -> u64 {
        self.seen[TAKEN]
    }

    /// The object is about to be loaded anew, and its counters with it.
    fn begin_anew(&mut self) {
        self.seen = [0; COUNTERS];
    }

    fn tell_lost(&self, source: &str, into: &mut Sink<'_>) {
        let lost = self.all[LOST] + self.left_out;
        into.node(metric::BPF_LOST, "{record}", &[("source", source)], lost as f64);
    }
}

/// Tells latencies of the node, of the cgroups that waited most, and of workloads in cgroups of their own.
fn tell_by_cgroup(names: &Names, readings: &BTreeMap<u64, Reading>, places: &Places, into: &mut Sink<'_>) {
    let node = SubjectRef::node(into.node.as_str());
    names.tell(into, &node, &[], &total(readings.values()));
    let mut waited: Vec<_> = readings.iter().filter(|(_, reading)| reading.new.count() > 0).collect();
    waited.sort_by_key(|(_, reading)| std::cmp::Reverse(reading.new.sum_ns));
    // What is in the root is what is in no other.
    let named = waited.iter().filter_map(|(number, reading)| Some((places.path(**number)?, reading)));
    for (path, reading) in named.filter(|(path, _)| *path != "/").take(CGROUPS_MAXIMUM) {
        names.tell(into, &node, &[("process.linux.cgroup", path)], reading);
    }
    for (number, reading) in readings {
        if let Some(workload) = places.workload(*number) {
            names.tell(into, &SubjectRef::workload(workload.as_str()), &[], reading);
        }
    }
}

/// When objects were loaded anew because cgroups that are gone took the slots.
#[derive(Default)]
struct Renewal(Option<Time>);

impl Renewal {
    fn is_due(&mut self, at: Time, histograms: &Histograms, readings: usize, gone: usize) -> bool {
        let crowded = histograms.len() > SLOTS / 2 && gone * 2 > readings;
        let due = crowded && self.0.is_none_or(|last| at.since_ms(last) >= RENEW_EVERY_MS);
        if due {
            self.0 = Some(at);
        }
        due
    }
}

/// Records that waited in the ring, and how many of them could not be read.
fn drain(attached: &mut Attached) -> (Vec<Record>, u64) {
    let (mut records, mut unreadable) = (Vec::new(), 0);
    let Some(ring) = &mut attached.ring else { return (records, 0) };
    while records.len() < RECORDS_MAXIMUM
        && let Some(item) = ring.next()
    {
        match Record::parse(&item) {
            Ok(record) => records.push(record),
            Err(_) => unreadable += 1,
        }
    }
    (records, unreadable)
}

/// The first process of each workload, as last seen alive: when it has ended it is in no list any more.
struct Roots {
    registry: Arc<Registry>,
    last: BTreeMap<WorkloadId, ProcessRef>,
}

impl Roots {
    fn of(registry: Arc<Registry>) -> Self {
        Self { registry, last: BTreeMap::new() }
    }

    /// Adds those that are here now. What has ended since, or left, is still among them.
    fn refresh(&mut self) {
        let entries = self.registry.all();
        self.last.extend(entries.iter().filter_map(|entry| Some((entry.spec.id.clone(), entry.root()?))));
    }

    /// Forgets those that are not under this agent any more.
    fn forget(&mut self) {
        let here: BTreeSet<_> = self.registry.all().into_iter().map(|entry| entry.spec.id).collect();
        self.last.retain(|id, _| here.contains(id));
    }

    /// The workload whose first process this was.
    fn workload(&self, pid: u32, started_ns: u64) -> Option<&WorkloadId> {
        let start_time = started_ns / (1_000_000_000 / procfs::ticks_per_second().max(1));
        let process = ProcessRef { pid, start_time };
        self.last.iter().find_map(|(id, root)| (*root == process).then_some(id))
    }
}

/// Something that happened to a process.
struct Happening<'a> {
    name: &'static str,
    head: Head,
    started_ns: u64,
    cgroup: u64,
    comm: &'a str,
    uid: u32,
}

impl Happening<'_> {
    fn tell(&self, attributes: &[(&str, String)], places: &Places, roots: &Roots, into: &mut Sink<'_>) {
        let Self { name, head, started_ns, cgroup, comm, uid } = *self;
        // The subject is the node: what ended may be a copy of what lives elsewhere by now, and is another node's to
        // speak of.
        let subject = SubjectRef::node(into.node.as_str());
        let workload = roots.workload(head.pid, started_ns).or_else(|| places.workload(cgroup));
        let mut all: BTreeMap<String, String> = BTreeMap::from([
            ("process.pid".into(), head.pid.to_string()),
            ("process.executable.name".into(), comm.to_string()),
            ("process.user.id".into(), uid.to_string()),
        ]);
        all.extend(places.path(cgroup).map(|path| ("process.linux.cgroup".to_string(), path.to_string())));
        all.extend(workload.map(|workload| ("workload".to_string(), workload.as_str().to_string())));
        all.extend(attributes.iter().map(|(name, value)| ((*name).to_string(), value.clone())));
        let ago_ms = clock::monotonic_ns().saturating_sub(head.at_ns) / 1_000_000;
        into.happened(DiscreteEvent { subject, name: name.into(), at: into.at.minus_ms(ago_ms), attributes: all });
    }
}
