//! Histograms that the kernel fills, and what is told of them: how many, how long in all, and percentiles of what came
//! since the last sample.
//!
//! A bucket is a power of two of nanoseconds, so a percentile is right to within a factor of two; inside a bucket it is
//! taken to be spread evenly by its logarithm. Each processor has slots of its own (`agent/bpf/aether.h`), which are
//! added up here.

use super::{Missing, Sink, program::Attached};
use aether_core::subject::SubjectRef;
use std::collections::BTreeMap;

pub(super) const BUCKETS: usize = 32;
/// The first bucket is below two to this many nanoseconds.
const FIRST_BITS: i32 = 10;
/// A slot: what it is of plus one, nanoseconds in all, and the buckets.
const WORDS: usize = 2 + BUCKETS;
/// Samples between two looks at slots that were free, where some were taken since. What is in these is told with the next
/// look.
const LOOK_EVERY: u32 = 4;

/// Durations, counted by how long they were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Histogram {
    pub(super) sum_ns: u64,
    pub(super) buckets: [u64; BUCKETS],
}

impl Histogram {
    pub(super) fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.sum_ns += other.sum_ns;
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
    }

    /// What came since an earlier reading.
    fn since(&self, earlier: &Self) -> Self {
        let mut since = Self { sum_ns: self.sum_ns.saturating_sub(earlier.sum_ns), ..Self::default() };
        for (index, bucket) in since.buckets.iter_mut().enumerate() {
            *bucket = self.buckets[index].saturating_sub(earlier.buckets[index]);
        }
        since
    }

    /// The duration, in seconds, that this share of all of them do not exceed.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let count = self.count();
        let rank = (count as f64 * share).max(1.0);
        let mut below = 0.0;
        for (bucket, here) in (0i32..).zip(&self.buckets).filter(|(_, here)| **here > 0) {
            let here = *here as f64;
            if below + here >= rank {
                let within = (rank - below) / here;
                let ns = match bucket {
                    0 => within * f64::from(1 << FIRST_BITS),
                    bucket => 2f64.powf(f64::from(FIRST_BITS + bucket - 1) + within),
                };
                return Some(ns / 1e9);
            }
            below += here;
        }
        None
    }
}

/// What came since the last sample, and all that came, of one thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) new: Histogram,
    pub(super) all: Histogram,
}

/// The reader of one map of histograms.
pub(super) struct Histograms {
    map: &'static str,
    /// Slots that were seen in use, how many samples must pass before the next look at all of them, and how many slots
    /// had been taken at the last one.
    used: Vec<u32>,
    look_in: u32,
    taken: Option<u64>,
    /// What the kernel's counts were; they begin anew with each load.
    seen: BTreeMap<u64, Histogram>,
    readings: BTreeMap<u64, Reading>,
}

impl Histograms {
    pub(super) fn of(map: &'static str) -> Self {
        Self { map, used: vec![], look_in: 0, taken: None, seen: BTreeMap::new(), readings: BTreeMap::new() }
    }

    /// The object was loaded anew, or is about to be.
    pub(super) fn begin_anew(&mut self) {
        (self.used, self.look_in, self.taken, self.seen) = (vec![], 0, None, BTreeMap::new());
    }

    /// How many things have a slot.
    pub(super) fn len(&self) -> usize {
        self.seen.len()
    }

    /// What there is, by what it is of. `taken` is how many slots have been, read before.
    pub(super) fn read(&mut self, attached: &Attached, taken: u64) -> Result<&BTreeMap<u64, Reading>, Missing> {
        let map = attached.array::<WORDS>(self.map)?;
        let mut now: BTreeMap<u64, Histogram> = BTreeMap::new();
        let look = self.look_in == 0 && self.taken != Some(taken);
        if look {
            (self.look_in, self.taken) = (LOOK_EVERY, Some(taken));
        } else {
            self.look_in = self.look_in.saturating_sub(1);
        }
        let slots: Vec<u32> = if look { (0..map.len()).collect() } else { std::mem::take(&mut self.used) };
        self.used.clear();
        for slot in slots {
            let each =
                map.get(&slot, 0).map_err(|error| Missing::new(format!("`{}` cannot be read: {error}", self.map)))?;
            let mut taken = false;
            for [tag, sum_ns, buckets @ ..] in each.iter().filter(|[tag, ..]| *tag != 0) {
                taken = true;
                now.entry(tag - 1).or_default().add(&Histogram { sum_ns: *sum_ns, buckets: *buckets });
            }
            if taken {
                self.used.push(slot);
            }
        }
        self.readings.retain(|key, _| now.contains_key(key));
        for (key, histogram) in &now {
            let reading = self.readings.entry(*key).or_default();
            reading.new = histogram.since(&self.seen.get(key).copied().unwrap_or_default());
            reading.all.add(&reading.new);
        }
        self.seen = now;
        Ok(&self.readings)
    }
}

/// The names that a latency is told by.
pub(super) struct Names {
    pub(super) p50: &'static str,
    pub(super) p99: &'static str,
    pub(super) count: &'static str,
    pub(super) count_unit: &'static str,
    pub(super) time: &'static str,
}

impl Names {
    /// Percentiles only where something came: a repeated value would look fresh.
    pub(super) fn tell(&self, into: &mut Sink<'_>, subject: &SubjectRef, attributes: &[(&str, &str)], of: &Reading) {
        for (name, share) in [(self.p50, 0.5), (self.p99, 0.99)] {
            if let Some(seconds) = of.new.quantile(share) {
                into.put(subject.clone(), name, "s", attributes, seconds);
            }
        }
        into.put(subject.clone(), self.count, self.count_unit, attributes, of.all.count() as f64);
        into.put(subject.clone(), self.time, "s", attributes, of.all.sum_ns as f64 / 1e9);
    }
}

/// All of them as one.
pub(super) fn total<'a>(readings: impl Iterator<Item = &'a Reading>) -> Reading {
    readings.fold(Reading::default(), |mut total, reading| {
        total.new.add(&reading.new);
        total.all.add(&reading.all);
        total
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(counts: &[(usize, u64)]) -> Histogram {
        let mut histogram = Histogram::default();
        for (bucket, count) in counts {
            histogram.buckets[*bucket] = *count;
        }
        histogram
    }

    #[test]
    fn percentiles_lie_in_the_bucket_that_holds_them() {
        // Ninety-nine of 1 to 2 µs, one of 1 to 2 ms.
        let histogram = of(&[(1, 99), (11, 1)]);
        let p50 = histogram.quantile(0.5).unwrap();
        assert!((1.024e-6..2.048e-6).contains(&p50), "{p50}");
        assert!(histogram.quantile(0.99).unwrap() <= 2.048e-6);
        let p999 = histogram.quantile(0.999).unwrap();
        assert!((1.048e-3..=2.1e-3).contains(&p999), "{p999}");
        assert!(of(&[(0, 1)]).quantile(0.5).unwrap() <= 1.024e-6);
        assert!(of(&[(BUCKETS - 1, 1)]).quantile(0.5).unwrap().is_finite());
        assert_eq!(Histogram::default().quantile(0.5), None, "of nothing there is none");
    }

    #[test]
    fn what_came_since_is_never_less_than_nothing() {
        let before = Histogram { sum_ns: 9, ..of(&[(3, 5)]) };
        let after = Histogram { sum_ns: 10, ..of(&[(3, 7), (4, 1)]) };
        assert_eq!(after.since(&before), Histogram { sum_ns: 1, ..of(&[(3, 2), (4, 1)]) });
        assert_eq!(before.since(&after), Histogram::default());
    }
}
