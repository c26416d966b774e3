//! What the islands, the network and the checkers have in common: the time, the trace, the counts and the odds.

use crate::{
    faults::{Counts, Fault, Odds},
    machine::World,
    net::Net,
    people::Book,
};
use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};

/// What happened, in order. Two runs of one seed have the same.
#[derive(Default)]
pub(crate) struct Trace {
    hasher: blake3::Hasher,
    /// Kept only where somebody wants to read it.
    lines: Option<Vec<String>>,
}

/// A system that is broken on purpose, so that the checkers have something to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// An agent begins with an empty journal.
    ForgetsJournal,
    /// The host asks nobody, though approvals are due.
    AsksNobody,
    /// An approval of another plan is taken for one of the plan that waits.
    TakesAnyHash,
    /// The next step of a plan is sent together with the first.
    SendsAhead,
    /// A host goes on when another has its lease.
    HostIgnoresLease,
    /// An agent takes orders under whatever lease.
    AgentIgnoresLease,
    /// A failure is told as success.
    TellsSuccess,
    /// A limit counts undoings.
    LimitsUndoing,
    /// A source that ought to go on is left stopped.
    LeavesStopped,
    /// What a spool held is sent as if it were of now.
    Restamps,
    /// No outcome ever comes to the host.
    TellsNothing,
}

pub(crate) struct Shared {
    mutation: Option<Mutation>,
    pub seed: u64,
    pub odds: Odds,
    now: AtomicU64,
    /// Nothing more goes wrong from now on.
    quiet: AtomicBool,
    trace: Mutex<Trace>,
    counts: Mutex<Counts>,
    world: Mutex<World>,
    net: Mutex<Net>,
    book: Mutex<Book>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(seed: u64, keep_trace: bool, mutation: Option<Mutation>) -> Arc<Self> {
        let lines = keep_trace.then(Vec::new);
        Arc::new(Self {
            mutation,
            seed,
            odds: Odds::of(seed),
            now: AtomicU64::new(0),
            quiet: AtomicBool::new(false),
            trace: Mutex::new(Trace { hasher: blake3::Hasher::new(), lines }),
            counts: Mutex::default(),
            world: Mutex::default(),
            net: Mutex::new(Net::new(seed)),
            book: Mutex::default(),
        })
    }

    pub(crate) fn is_broken(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub(crate) fn now(&self) -> u64 {
        self.now.load(SeqCst)
    }
    pub(crate) fn set_now(&self, now: u64) {
        self.now.store(now, SeqCst);
    }
    pub(crate) fn is_quiet(&self) -> bool {
        self.quiet.load(SeqCst)
    }
    pub(crate) fn calm(&self) {
        self.quiet.store(true, SeqCst);
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        locked(&self.world)
    }
    pub(crate) fn net(&self) -> MutexGuard<'_, Net> {
        locked(&self.net)
    }
    pub(crate) fn book(&self) -> MutexGuard<'_, Book> {
        locked(&self.book)
    }
    pub(crate) fn counts(&self) -> Counts {
        locked(&self.counts).clone()
    }

    pub(crate) fn note(&self, what: impl AsRef<str>) {
        let line = format!("{:>8} {}", self.now(), what.as_ref());
        let mut trace = locked(&self.trace);
        trace.hasher.update(line.as_bytes());
        trace.hasher.update(b"\n");
        if let Some(lines) = &mut trace.lines {
            lines.push(line);
        }
    }

    /// A fault is injected.
    pub(crate) fn fault(&self, fault: Fault, what: impl AsRef<str>) {
        locked(&self.counts).add(fault);
        self.note(format!("FAULT {}: {}", fault.name(), what.as_ref()));
    }

    /// An agent dies at a step of its journal.
    pub(crate) fn death(&self, node: usize, place: &str) {
        locked(&self.counts).add_death(place);
        self.fault(Fault::AgentDied, format!("node {node} {place}"));
    }

    pub(crate) fn trace(&self) -> (String, Vec<String>) {
        let trace = locked(&self.trace);
        (trace.hasher.finalize().to_hex().to_string(), trace.lines.clone().unwrap_or_default())
    }
}
