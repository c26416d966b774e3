//! Which batch of the spool goes next.
//!
//! They go in order, but for one case: when more waits than the host takes at a time, as after an outage, what is
//! sampled from then on goes ahead of it in a lane of its own, and the backlog follows beside it at the pace at which the
//! host makes it safe, never taking the room of what is new. Where the host takes batches in order alone there is one lane.

use std::collections::BTreeSet;
use tokio::time::Instant;

/// The share of what the host takes at a time that is kept from the backlog.
const KEPT_FROM_BACKLOG: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// From the oldest on.
    Backlog,
    /// From what was newest when this lane was opened.
    Ahead,
}

/// The lane of what is new.
#[derive(Clone, Copy, Debug)]
struct Ahead {
    /// Up to here it is the backlog's.
    from: u64,
    /// The last that was sent.
    after: u64,
}

/// What of the spool was sent in a stream.
#[derive(Debug)]
pub(super) struct Lanes {
    /// The last of the backlog that was sent, or is safe.
    after: u64,
    ahead: Option<Ahead>,
    /// Sent, and not known to be safe.
    in_flight: BTreeSet<u64>,
    /// How many may be.
    limit: usize,
    any_order: bool,
    /// The oldest that the spool holds was sent: before it no other may be.
    begun: bool,
    /// Nothing is sent before: the host is full.
    paused_until: Option<Instant>,
    /// Nothing of the backlog is.
    backlog_paused_until: Option<Instant>,
}

impl Lanes {
    pub(super) fn new(after: u64, limit: usize, any_order: bool) -> Self {
        Self {
            after,
            ahead: None,
            in_flight: BTreeSet::new(),
            limit,
            any_order,
            begun: false,
            paused_until: None,
            backlog_paused_until: None,
        }
    }

    /// The lane whose turn it is, and where in the spool it goes on; `newest` is the last that the spool holds.
    pub(super) fn turn(&mut self, newest: u64, but: Option<Lane>) -> Option<(Lane, u64)> {
        if let Some(ahead) = self.ahead.filter(|ahead| self.after >= ahead.from) {
            // The backlog has caught up.
            self.after = self.after.max(ahead.after);
            self.ahead = None;
            self.backlog_paused_until = None;
        }
        let kept = self.limit.div_ceil(KEPT_FROM_BACKLOG);
        if self.ahead.is_none() && self.any_order && self.begun && behind(newest, self.after) >= kept {
            self.ahead = Some(Ahead { from: newest, after: newest });
        }
        if self.paused_until.is_some() || self.in_flight.len() >= self.limit {
            return None;
        }
        let Some(ahead) = self.ahead else {
            return (newest > self.after && but != Some(Lane::Backlog)).then_some((Lane::Backlog, self.after));
        };
        if newest > ahead.after && but != Some(Lane::Ahead) {
            return Some((Lane::Ahead, ahead.after));
        }
        let has_room = self.in_flight.range(..=ahead.from).count() < self.limit.saturating_sub(kept).max(1);
        let may = has_room && self.backlog_paused_until.is_none() && but != Some(Lane::Backlog);
        may.then_some((Lane::Backlog, self.after))
    }

    /// This was found where [`Lanes::turn`] said, and is sent.
    pub(super) fn sent(&mut self, lane: Lane, sequence: u64) {
        self.begun = true;
        self.in_flight.insert(sequence);
        match (lane, &mut self.ahead) {
            (Lane::Ahead, Some(ahead)) => ahead.after = sequence,
            _ => self.after = sequence,
        }
    }

    pub(super) fn forget_safe(&mut self, is_safe: impl Fn(u64) -> bool) {
        self.in_flight.retain(|sent| !is_safe(*sent));
    }

    /// The host will never take it.
    pub(super) fn forget(&mut self, sequence: u64) {
        self.in_flight.remove(&sequence);
    }

    /// It is to be sent once more, and with it what was sent after it in its lane.
    pub(super) fn again(&mut self, sequence: u64) {
        self.in_flight.remove(&sequence);
        let before = sequence.saturating_sub(1);
        match &mut self.ahead {
            Some(ahead) if sequence > ahead.from => ahead.after = ahead.after.min(before),
            _ => self.after = self.after.min(before),
        }
    }

    /// The host takes batches in order, and this is the next one that it wants.
    pub(super) fn back_to(&mut self, sequence: u64) {
        self.after = sequence.saturating_sub(1);
        self.ahead = None;
        self.in_flight.clear();
    }

    /// The host had no room for this one: nothing of its lane is sent before, and if it was new, nothing at all.
    pub(super) fn pause(&mut self, sequence: u64, until: Instant) {
        match &self.ahead {
            Some(ahead) if sequence <= ahead.from => self.backlog_paused_until = Some(until),
            _ => self.paused_until = Some(until),
        }
    }

    /// When a pause ends.
    pub(super) fn resumes_at(&self) -> Option<Instant> {
        self.paused_until.into_iter().chain(self.backlog_paused_until).min()
    }

    pub(super) fn resume(&mut self, now: Instant) {
        for pause in [&mut self.paused_until, &mut self.backlog_paused_until] {
            pause.take_if(|until| *until <= now);
        }
    }
}

fn behind(newest: u64, after: u64) -> usize {
    usize::try_from(newest.saturating_sub(after)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
