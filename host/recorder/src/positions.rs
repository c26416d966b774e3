//! Which batches of which origin are had, and which are safe.
//!
//! An origin numbers its batches within an epoch. A sequence is *had* from the moment it is accepted, so that a second
//! one is a duplicate; it is *settled* once its segment is synced, or once it is known that it will never come (lost at
//! the sender) or never be accepted (refused). The safe position is the end of the settled stretch that begins at the
//! epoch's base. The base is the first sequence that came, or what the sender said it still holds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use tokio::sync::watch;

/// Epochs remembered per origin. A sender makes a new one when its spool is created, so an older one cannot come again.
const EPOCHS_KEPT: usize = 4;
/// Gaps that one epoch may have: a sender in order has none.
const RANGES_LIMIT: usize = 1_024;

/// Stretches beyond a gap that a sender is told of.
const BEYOND_TOLD: usize = 16;

/// What of an origin's current epoch is settled: what may be acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Safe {
    pub epoch: u64,
    /// Everything up to here.
    pub sequence: u64,
    /// Stretches after a gap, both ends in them, in order; of many the newest few.
    pub beyond: Vec<(u64, u64)>,
}

/// A set of sequences as sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    pub(crate) fn contains(&self, n: u64) -> bool {
        let i = self.0.partition_point(|&(_, end)| end < n);
        self.0.get(i).is_some_and(|&(start, _)| start <= n)
    }

    /// Adds `start..=end` and answers how many of them were not there.
    pub(crate) fn insert(&mut self, start: u64, end: u64) -> u64 {
        if start > end {
            return 0;
        }
        // Everything that overlaps or touches becomes one range.
        let from = self.0.partition_point(|&(_, e)| e.saturating_add(1) < start);
        let to = self.0.partition_point(|&(s, _)| s <= end.saturating_add(1));
        let (mut low, mut high, mut had) = (start, end, 0u64);
        for &(s, e) in self.0.get(from..to).unwrap_or(&[]) {
            low = low.min(s);
            high = high.max(e);
            let (os, oe) = (s.max(start), e.min(end));
            if os <= oe {
                had = had.saturating_add((oe - os).saturating_add(1));
            }
        }
        self.0.splice(from..to, [(low, high)]);
        (end - start).saturating_add(1).saturating_sub(had)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().copied()
    }

    /// Whether all of `start..=end` is in it.
    pub(crate) fn holds(&self, start: u64, end: u64) -> bool {
        self.end_of(start).is_some_and(|last| last >= end)
    }

    /// The end of the range that holds `n`.
    fn end_of(&self, n: u64) -> Option<u64> {
        let i = self.0.partition_point(|&(_, end)| end < n);
        self.0.get(i).filter(|&&(start, _)| start <= n).map(|&(_, end)| end)
    }

    fn would_split(&self, n: u64) -> bool {
        let i = self.0.partition_point(|&(_, end)| end.saturating_add(1) < n);
        self.0.get(i).is_none_or(|&(start, _)| start > n.saturating_add(1))
    }

    /// Whether the ranges are what this type promises. False only for a damaged file.
    fn is_sound(&self) -> bool {
        self.0.len() <= 2 * RANGES_LIMIT
            && self.0.iter().all(|&(s, e)| s <= e)
            && self.0.windows(2).all(|w| w[0].1.saturating_add(1) < w[1].0)
    }
}

/// One epoch of one origin as a segment's metadata carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EpochRecord {
    pub(crate) epoch: u64,
    pub(crate) base: u64,
    pub(crate) settled: Ranges,
}

#[derive(Clone, Debug)]
struct Epoch {
    epoch: u64,
    base: u64,
    had: Ranges,
    settled: Ranges,
    /// Had and kept, waiting for their seal.
    unsealed: BTreeSet<u64>,
}

impl Epoch {
    /// None until something is settled.
    fn safe(&self) -> Option<Safe> {
        let (_, newest) = *self.settled.0.last()?;
        // What is before the base nobody waits for.
        let sequence = self.settled.end_of(self.base).unwrap_or(self.base.saturating_sub(1));
        let mut beyond = Vec::new();
        if sequence < newest {
            let after = self.settled.0.partition_point(|&(start, _)| start <= sequence);
            beyond.extend_from_slice(&self.settled.0[after.max(self.settled.0.len().saturating_sub(BEYOND_TOLD))..]);
        }
        Some(Safe { epoch: self.epoch, sequence, beyond })
    }
}

/// What became of a sequence that was offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    New,
    Duplicate,
    /// One gap too many.
    Scattered,
}

/// The positions of one origin. The last epoch is the current one.
#[derive(Debug)]
pub(crate) struct Origin {
    epochs: Vec<Epoch>,
    safe: watch::Sender<Option<Safe>>,
}

impl Default for Origin {
    fn default() -> Self {
        Self { epochs: Vec::new(), safe: watch::Sender::new(None) }
    }
}

impl Origin {
    pub(crate) fn watch(&self) -> watch::Receiver<Option<Safe>> {
        self.safe.subscribe()
    }

    pub(crate) fn has(&self, epoch: u64, sequence: u64) -> bool {
        self.epochs.iter().any(|e| e.epoch == epoch && e.had.contains(sequence))
    }

    pub(crate) fn take(&mut self, epoch: u64, sequence: u64) -> Taken {
        let e = self.current(epoch, sequence);
        if e.had.contains(sequence) {
            return Taken::Duplicate;
        }
        if e.had.0.len() >= RANGES_LIMIT && e.had.would_split(sequence) {
            return Taken::Scattered;
        }
        e.had.insert(sequence, sequence);
        e.unsealed.insert(sequence);
        Taken::New
    }

    /// A refused batch: settled without being kept.
    pub(crate) fn refuse(&mut self, epoch: u64, sequence: u64) {
        if self.take(epoch, sequence) == Taken::New {
            self.settle(&[(epoch, sequence)]);
        }
    }

    /// The sender holds nothing below `oldest`. Answers how many sequences are thereby known to be lost.
    pub(crate) fn holds_from(&mut self, epoch: u64, oldest: u64) -> u64 {
        let e = self.current(epoch, oldest);
        e.base = e.base.min(oldest);
        let base = e.base;
        // An epoch first heard of now has its base here, so that its past is nobody's loss.
        oldest.checked_sub(1).map_or(0, |below| self.lose(epoch, base, below))
    }

    /// The sender holds none of `first..=last`: those that are not had will never come. Answers how many those are.
    pub(crate) fn lose(&mut self, epoch: u64, first: u64, last: u64) -> u64 {
        let e = self.current(epoch, last.saturating_add(1));
        let mut from = first.max(e.base);
        if from > last {
            return 0;
        }
        let lost = e.had.insert(from, last);
        for &kept in e.unsealed.range(from..=last) {
            if let Some(before) = kept.checked_sub(1) {
                e.settled.insert(from, before);
            }
            from = kept.saturating_add(1);
        }
        e.settled.insert(from, last);
        self.publish();
        lost
    }

    /// These (epoch, sequence) are sealed and synced.
    pub(crate) fn settle(&mut self, sequences: &[(u64, u64)]) {
        for &(epoch, n) in sequences {
            if let Some(e) = self.epochs.iter_mut().find(|e| e.epoch == epoch) {
                e.unsealed.remove(&n);
                e.settled.insert(n, n);
            }
        }
        self.publish();
    }

    /// As it will be once `pending` (epoch, sequence) are settled: what goes into the segment that settles them.
    pub(crate) fn record(&self, pending: &[(u64, u64)]) -> Vec<EpochRecord> {
        self.epochs
            .iter()
            .map(|e| {
                let mut settled = e.settled.clone();
                for &(_, n) in pending.iter().filter(|(epoch, _)| *epoch == e.epoch) {
                    settled.insert(n, n);
                }
                EpochRecord { epoch: e.epoch, base: e.base, settled }
            })
            .filter(|record| !record.settled.0.is_empty())
            .collect()
    }

    /// Rebuilds from a segment's metadata. `None` when the record is damaged.
    pub(crate) fn restore(records: Vec<EpochRecord>) -> Option<Self> {
        if records.len() > EPOCHS_KEPT || !records.iter().all(|r| r.settled.is_sound()) {
            return None;
        }
        let epochs = records
            .into_iter()
            .map(|r| Epoch {
                epoch: r.epoch,
                base: r.base,
                had: r.settled.clone(),
                settled: r.settled,
                unsealed: BTreeSet::new(),
            })
            .collect();
        let origin = Self { epochs, ..Self::default() };
        origin.publish();
        Some(origin)
    }

    /// The epoch, made the current one if it is new.
    fn current(&mut self, epoch: u64, base: u64) -> &mut Epoch {
        let at = match self.epochs.iter().position(|e| e.epoch == epoch) {
            Some(at) => at,
            None => {
                if self.epochs.len() == EPOCHS_KEPT {
                    self.epochs.remove(0);
                }
                self.epochs.push(Epoch {
                    epoch,
                    base,
                    had: Ranges::default(),
                    settled: Ranges::default(),
                    unsealed: BTreeSet::new(),
                });
                self.epochs.len() - 1
            }
        };
        &mut self.epochs[at]
    }

    fn publish(&self) {
        let safe = self.epochs.last().and_then(Epoch::safe);
        self.safe.send_if_modified(|now| {
            // Within an epoch the safe position never goes back.
            let changed = *now != safe
                && !matches!((&*now, &safe), (Some(a), Some(b)) if a.epoch == b.epoch && a.sequence > b.sequence);
            if changed {
                *now = safe;
            }
            changed
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn safe(origin: &Origin) -> Option<(u64, u64)> {
        origin.watch().borrow().as_ref().map(|safe| (safe.epoch, safe.sequence))
    }

    fn beyond(origin: &Origin) -> Vec<(u64, u64)> {
        origin.watch().borrow().as_ref().map_or_else(Vec::new, |safe| safe.beyond.clone())
    }

    #[test]
    fn safe_is_the_contiguous_settled_stretch() {
        let mut origin = Origin::default();
        for n in [1, 2, 3, 5] {
            assert_eq!(origin.take(7, n), Taken::New);
        }
        assert_eq!(origin.take(7, 2), Taken::Duplicate);
        assert_eq!(safe(&origin), None, "had is not safe");
        origin.settle(&[(7, 1), (7, 2), (7, 3), (7, 5)]);
        assert_eq!((safe(&origin), beyond(&origin)), (Some((7, 3)), vec![(5, 5)]));
        assert_eq!(origin.take(7, 4), Taken::New);
        origin.settle(&[(7, 4)]);
        assert_eq!(safe(&origin), Some((7, 5)));
    }

    #[test]
    fn what_the_sender_lost_does_not_hold_up_what_came_after() {
        let mut origin = Origin::default();
        origin.take(7, 1);
        origin.take(7, 2);
        origin.take(7, 9);
        origin.settle(&[(7, 1), (7, 9)]);
        assert_eq!(origin.holds_from(7, 9), 6, "3 to 8 are lost; 2 is here");
        assert_eq!(safe(&origin), Some((7, 1)), "2 is not sealed yet");
        origin.settle(&[(7, 2)]);
        assert_eq!(safe(&origin), Some((7, 9)));
        assert_eq!(origin.holds_from(7, 9), 0);
        assert_eq!(origin.take(7, 5), Taken::Duplicate, "what was given up is settled");
    }

    #[test]
    fn a_sender_that_drains_its_newest_first_says_where_it_begins() {
        let mut origin = Origin::default();
        assert_eq!(origin.holds_from(7, 10), 0, "what an earlier store acknowledged is no loss");
        origin.take(7, 12);
        origin.settle(&[(7, 12)]);
        assert_eq!((safe(&origin), beyond(&origin)), (Some((7, 9)), vec![(12, 12)]));
        origin.take(7, 10);
        origin.take(7, 11);
        origin.settle(&[(7, 10), (7, 11)]);
        assert_eq!((safe(&origin), beyond(&origin)), (Some((7, 12)), vec![]));
    }

    #[test]
    fn a_loss_amid_what_came_ahead_is_of_that_stretch_alone() {
        let mut origin = Origin::default();
        origin.holds_from(7, 1);
        for n in [1, 50, 53] {
            origin.take(7, n);
        }
        assert_eq!(origin.lose(7, 51, 52), 2);
        origin.settle(&[(7, 1), (7, 50), (7, 53)]);
        assert_eq!((safe(&origin), beyond(&origin)), (Some((7, 1)), vec![(50, 53)]), "2 to 49 are still to come");
        assert_eq!(origin.lose(7, 2, 49), 48);
        assert_eq!(origin.lose(7, 2, 49), 0, "told again");
        assert_eq!((safe(&origin), beyond(&origin)), (Some((7, 53)), vec![]));
        assert_eq!(origin.lose(8, 1, 9), 0, "what was before a new epoch is nobody's loss");
    }

    #[test]
    fn of_many_stretches_the_newest_are_told() {
        let mut origin = Origin::default();
        origin.holds_from(7, 1);
        for n in (1..100).step_by(2) {
            origin.take(7, n);
            origin.settle(&[(7, n)]);
        }
        assert_eq!(safe(&origin), Some((7, 1)));
        assert_eq!(beyond(&origin), (69..100).step_by(2).map(|n| (n, n)).collect::<Vec<_>>());
    }

    #[test]
    fn a_refused_batch_does_not_hold_up_the_next() {
        let mut origin = Origin::default();
        origin.refuse(7, 1);
        origin.take(7, 2);
        origin.settle(&[(7, 2)]);
        assert_eq!(safe(&origin), Some((7, 2)));
    }

    #[test]
    fn a_new_epoch_is_the_current_one_and_few_are_kept() {
        let mut origin = Origin::default();
        for epoch in 1..=10 {
            origin.take(epoch, 1);
            origin.settle(&[(epoch, 1)]);
            assert_eq!(safe(&origin), Some((epoch, 1)));
        }
        assert_eq!(origin.record(&[]).len(), EPOCHS_KEPT);
        assert!(origin.has(7, 1) && !origin.has(6, 1));
    }

    #[test]
    fn gaps_are_bounded() {
        let mut origin = Origin::default();
        let mut n = 0;
        while origin.take(1, n) == Taken::New {
            n += 2;
        }
        assert_eq!(n, 2 * u64::try_from(RANGES_LIMIT).expect("small"));
        assert_eq!(origin.take(1, n), Taken::Scattered);
        assert_eq!(origin.take(1, 1), Taken::New, "a gap that closes is welcome");
        assert_eq!(origin.take(1, n), Taken::New);
    }

    #[test]
    fn a_damaged_record_is_not_believed() {
        let record = |text: &str| Origin::restore(serde_json::from_str(text).expect("JSON"));
        assert!(record(r#"[{"epoch":1,"base":1,"settled":[[1,4],[6,9]]}]"#).is_some());
        assert!(record(r#"[{"epoch":1,"base":1,"settled":[[4,1]]}]"#).is_none());
        assert!(record(r#"[{"epoch":1,"base":1,"settled":[[1,4],[3,9]]}]"#).is_none());
    }

    proptest! {
        #[test]
        fn ranges_are_a_set(inserts in proptest::collection::vec((0u64..60, 0u64..8), 0..40)) {
            let mut ranges = Ranges::default();
            let mut model = BTreeSet::new();
            for (start, length) in inserts {
                let before = model.len();
                model.extend(start..=start + length);
                let new = ranges.insert(start, start + length);
                prop_assert_eq!(new, u64::try_from(model.len() - before).expect("small"));
                prop_assert!(ranges.is_sound());
            }
            for n in 0..80 {
                prop_assert_eq!(ranges.contains(n), model.contains(&n));
            }
        }

        /// However batches come, repeat, get sealed and the recorder restarts: each is taken once, and nothing is safe
        /// that is not sealed.
        #[test]
        fn each_batch_is_taken_once_and_safe_means_sealed(
            steps in proptest::collection::vec((0u8..8, 1u64..20), 1..120),
        ) {
            let mut origin = Origin::default();
            origin.holds_from(1, 1);
            let (mut pending, mut sealed) = (Vec::new(), BTreeSet::new());
            for (what, n) in steps {
                match what {
                    0..=4 => {
                        let new = origin.take(1, n) == Taken::New;
                        prop_assert_eq!(new, !sealed.contains(&n) && !pending.contains(&n));
                        if new {
                            pending.push(n);
                        }
                    }
                    5 | 6 => {
                        origin.settle(&pending.iter().map(|n| (1, *n)).collect::<Vec<_>>());
                        sealed.extend(pending.drain(..));
                    }
                    _ => {
                        let record = serde_json::to_string(&origin.record(&[])).expect("JSON");
                        origin = Origin::restore(serde_json::from_str(&record).expect("JSON")).expect("sound");
                        origin.holds_from(1, 1);
                        pending.clear();
                    }
                }
                let told = origin.watch().borrow().clone();
                let told = told.map_or_else(Vec::new, |safe| [vec![(1, safe.sequence)], safe.beyond].concat());
                let told: BTreeSet<u64> = told.into_iter().flat_map(|(first, last)| first..=last).collect();
                prop_assert_eq!(told, sealed.clone());
            }
        }
    }
}
