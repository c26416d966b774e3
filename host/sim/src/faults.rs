//! What can go wrong, how often it does under a seed, and how often it did.

use crate::dice::{dice, happens};
use std::collections::BTreeMap;

/// A kind of fault that is injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    MessageDropped,
    MessageDuplicated,
    MessageReordered,
    MessageDelayed,
    /// Both ends see that the stream broke.
    StreamCut,
    /// Neither end sees it.
    StreamSilent,
    /// A signed order comes once more, by another way and late.
    OrderRepeated,
    AgentDied,
    HostDied,
    /// One replica stands still, another takes over, and the first wakes up again beside it.
    ReplicaBeside,
    HostClockStepped,
    AgentClockStepped,
    TelemetryStale,
    GuestFaulted,
    DatabaseRefused,
    StepFailed,
    StepUnknown,
    StepHung,
    PreconditionBroken,
}

impl Fault {
    pub const ALL: [Fault; 19] = [
        Fault::MessageDropped,
        Fault::MessageDuplicated,
        Fault::MessageReordered,
        Fault::MessageDelayed,
        Fault::StreamCut,
        Fault::StreamSilent,
        Fault::OrderRepeated,
        Fault::AgentDied,
        Fault::HostDied,
        Fault::ReplicaBeside,
        Fault::HostClockStepped,
        Fault::AgentClockStepped,
        Fault::TelemetryStale,
        Fault::GuestFaulted,
        Fault::DatabaseRefused,
        Fault::StepFailed,
        Fault::StepUnknown,
        Fault::StepHung,
        Fault::PreconditionBroken,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::MessageDropped => "message dropped",
            Fault::MessageDuplicated => "message duplicated",
            Fault::MessageReordered => "message reordered",
            Fault::MessageDelayed => "message delayed",
            Fault::StreamCut => "stream cut",
            Fault::StreamSilent => "stream silent",
            Fault::OrderRepeated => "order repeated late",
            Fault::AgentDied => "agent died",
            Fault::HostDied => "host died",
            Fault::ReplicaBeside => "second replica beside",
            Fault::HostClockStepped => "host clock stepped",
            Fault::AgentClockStepped => "agent clock stepped",
            Fault::TelemetryStale => "telemetry stale",
            Fault::GuestFaulted => "guest faulted",
            Fault::DatabaseRefused => "database refused writes",
            Fault::StepFailed => "step failed",
            Fault::StepUnknown => "step unknown",
            Fault::StepHung => "step hung",
            Fault::PreconditionBroken => "precondition broken",
        }
    }

    /// Of a message, a second, a step or a question, whichever the fault befalls.
    fn usual(self) -> f64 {
        match self {
            Fault::MessageDropped | Fault::MessageDuplicated | Fault::MessageReordered => 0.01,
            Fault::MessageDelayed => 0.03,
            Fault::StreamCut | Fault::StreamSilent => 0.004,
            Fault::OrderRepeated => 0.4,
            Fault::AgentDied => 0.6,
            Fault::HostDied => 0.02,
            Fault::ReplicaBeside => 0.008,
            Fault::HostClockStepped | Fault::AgentClockStepped => 0.01,
            Fault::TelemetryStale => 0.02,
            Fault::GuestFaulted => 0.1,
            Fault::DatabaseRefused => 0.03,
            Fault::StepFailed => 0.12,
            Fault::StepUnknown => 0.06,
            Fault::StepHung => 0.04,
            Fault::PreconditionBroken => 0.01,
        }
    }
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
                odds.insert(fault, (fault.usual() * wild).min(0.9));
            }
        }
        Self(odds)
    }

    pub(crate) fn get(&self, fault: Fault) -> f64 {
        self.0.get(&fault).copied().unwrap_or(0.0)
    }
}

/// How often each fault was injected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts(BTreeMap<Fault, u64>);

impl Counts {
    pub fn add(&mut self, fault: Fault) {
        *self.0.entry(fault).or_default() += 1;
    }

    pub fn get(&self, fault: Fault) -> u64 {
        self.0.get(&fault).copied().unwrap_or(0)
    }

    pub fn merge(&mut self, other: &Counts) {
        for (fault, count) in &other.0 {
            *self.0.entry(*fault).or_default() += count;
        }
    }
}
