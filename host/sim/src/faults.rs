//! What can go wrong, how often it does under a seed, and how often it did.

use crate::dice::{dice, happens};
use std::collections::{BTreeMap, BTreeSet};

/// The kinds of fault, each with its name and how likely it is: of a message, a second, a step or a question, whichever
/// it befalls.
macro_rules! faults {
    ($($(#[$doc:meta])* $kind:ident, $name:literal, $usual:literal;)*) => {
        /// A kind of fault that is injected.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault {
            $($(#[$doc])* $kind,)*
        }

        impl Fault {
            pub const ALL: &[Fault] = &[$(Fault::$kind,)*];

            pub fn name(self) -> &'static str {
                match self {
                    $(Fault::$kind => $name,)*
                }
            }

            fn usual(self) -> f64 {
                match self {
                    $(Fault::$kind => $usual,)*
                }
            }
        }
    };
}

faults! {
    MessageDropped, "message dropped", 0.006;
    MessageDuplicated, "message duplicated", 0.004;
    MessageReordered, "message reordered", 0.004;
    MessageDelayed, "message delayed", 0.02;
    /// Both ends see that the stream broke.
    StreamCut, "stream cut", 0.002;
    /// Neither end sees it.
    StreamSilent, "stream silent", 0.002;
    /// A signed order comes once more, by another way and late.
    OrderRepeated, "order repeated late", 0.4;
    /// At a record of its journal, before or after it is written.
    AgentDied, "agent died at a journal step", 0.9;
    AgentKilled, "agent died at any time", 0.003;
    /// A part of a record is at the end of the journal when the agent starts again.
    JournalTorn, "agent's journal torn", 0.6;
    HostDied, "host died at any time", 0.01;
    /// At a use of its database.
    HostDiedWriting, "host died between two writes", 0.3;
    /// All is committed, the order is signed, and is not on its way yet.
    HostDiedUndispatched, "host died before it dispatched", 0.6;
    /// For hours: what was found is old when it comes back.
    HostsAway, "no host for hours", 0.003;
    /// The host that drives stands still, another takes over, and the first wakes up again beside it.
    ReplicaBeside, "second host takes over", 0.015;
    HostClockForward, "host clock put forward", 0.007;
    HostClockBack, "host clock put back", 0.007;
    AgentClockForward, "agent clock put forward", 0.007;
    AgentClockBack, "agent clock put back", 0.007;
    /// Nothing comes for a while, and then all of it at once.
    TelemetryStale, "telemetry stale, then late", 0.01;
    /// A host that has just begun is sent all that a spool still holds.
    TelemetryAgain, "old telemetry sent again", 0.7;
    GuestTrapped, "guest trapped", 0.01;
    GuestOutOfFuel, "guest out of fuel", 0.01;
    GuestTimedOut, "guest out of time", 0.01;
    GuestWrong, "guest answered wrongly", 0.015;
    DatabaseRefused, "database refused writes", 0.015;
    /// A transaction fails when it is to be committed.
    DatabaseConflict, "database commit failed", 0.008;
    StepFailed, "step failed", 0.12;
    StepUnknown, "step unknown", 0.4;
    StepHung, "step hung", 0.1;
    PreconditionBroken, "precondition broken", 0.008;
}

/// How likely each fault is under one seed. About half of the kinds are left out, so that each is also seen alone.
#[derive(Clone, Debug)]
pub(crate) struct Odds(BTreeMap<Fault, f64>);

impl Odds {
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = dice(seed, "odds");
        let mut odds = BTreeMap::new();
        for fault in Fault::ALL {
            let wild = 0.3 + 1.7 * dice.f64();
            if happens(&mut dice, 0.5) {
                odds.insert(*fault, (fault.usual() * wild).min(0.9));
            }
        }
        Self(odds)
    }

    pub(crate) fn get(&self, fault: Fault) -> f64 {
        self.0.get(&fault).copied().unwrap_or(0.0)
    }
}

/// How often each fault was injected, and at which step of their journals agents died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    faults: BTreeMap<Fault, u64>,
    deaths: BTreeMap<String, u64>,
}

impl Counts {
    pub(crate) fn add(&mut self, fault: Fault) {
        *self.faults.entry(fault).or_default() += 1;
    }

    pub(crate) fn add_death(&mut self, place: &str) {
        *self.deaths.entry(place.into()).or_default() += 1;
    }

    pub fn get(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or(0)
    }

    /// How often agents died at each of [`DEATHS`].
    pub fn deaths(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let places: BTreeSet<&'static str> = DEATHS.iter().copied().collect();
        places.into_iter().map(|place| (place, self.deaths.get(place).copied().unwrap_or(0)))
    }

    pub fn merge(&mut self, other: &Counts) {
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        for (place, count) in &other.deaths {
            *self.deaths.entry(place.clone()).or_default() += count;
        }
    }
}

/// Where an agent can die: before and after each record of its journal, and between what it did and the next record.
/// What few orders come to stands twice, and is drawn twice as often.
pub const DEATHS: &[&str] = &[
    "before accepted",
    "after accepted",
    "before refused",
    "after refused",
    "before refused",
    "after refused",
    "before dumping",
    "after dumping",
    "dumped",
    "before storing",
    "after storing",
    "before verifying",
    "after verifying",
    "before storing",
    "after storing",
    "before verifying",
    "after verifying",
    "before restoring",
    "after restoring",
    "restored",
    "before outcome",
    "after outcome",
    "before acknowledged",
    "after acknowledged",
];
