//! What waits to be sent: series of batches that the recorder has taken, without a copy of their samples.
//!
//! A backlog, which an agent sends beside what is new, waits apart and goes in requests of its own. Prometheus takes
//! samples that are older than what it has only where it is set up so, and else refuses all that comes with them.

use aether_core::{
    id::NodeId,
    telemetry::{Batch, Series, SeriesKey},
};
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// One series of one batch.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    batch: Arc<Batch>,
    place: usize,
}

impl Entry {
    pub(super) fn series(&self) -> Series<'_> {
        self.batch.series.at(self.place)
    }
}

/// Bounded by samples; the oldest go first.
#[derive(Debug)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// Older than what had come of their origins already.
    backlog: VecDeque<Entry>,
    /// The newest epoch and sequence of each origin.
    newest: HashMap<NodeId, (u64, u64)>,
    samples: usize,
    limit: usize,
}

impl Queue {
    pub(super) fn new(limit: usize) -> Self {
        Self { entries: VecDeque::new(), backlog: VecDeque::new(), newest: HashMap::new(), samples: 0, limit }
    }

    pub(super) fn samples(&self) -> usize {
        self.samples
    }

    pub(super) fn has_backlog(&self) -> bool {
        !self.backlog.is_empty()
    }

    /// Takes what is wanted of a batch. Answers how many samples went to make room.
    pub(super) fn push(&mut self, batch: &Arc<Batch>, wanted: impl Fn(&SeriesKey) -> bool) -> usize {
        let (epoch, sequence) = (batch.epoch, batch.sequence);
        let is_backlog = match self.newest.get_mut(&batch.origin) {
            Some((of, newest)) if *of == epoch && *newest > sequence => true,
            Some(newest) => {
                *newest = (epoch, sequence);
                false
            }
            None => {
                self.newest.insert(batch.origin.clone(), (epoch, sequence));
                false
            }
        };
        let waiting = if is_backlog { &mut self.backlog } else { &mut self.entries };
        for (place, series) in batch.series.iter().enumerate() {
            if !series.times.is_empty() && wanted(series.key) {
                self.samples += series.times.len();
                waiting.push_back(Entry { batch: batch.clone(), place });
            }
        }
        let mut dropped = 0;
        while self.samples > self.limit
            && let Some(oldest) = self.backlog.pop_front().or_else(|| self.entries.pop_front())
        {
            let samples = oldest.series().times.len();
            self.samples -= samples;
            dropped += samples;
        }
        dropped
    }

    /// The oldest, up to so many samples, and one entry at least if there is one; of a backlog when nothing else waits.
    pub(super) fn take(&mut self, samples: usize) -> Vec<Entry> {
        let (mut taken, mut entries) = (0, vec![]);
        let waiting = if self.entries.is_empty() { &mut self.backlog } else { &mut self.entries };
        while let Some(next) = waiting.front() {
            let more = next.series().times.len();
            if !entries.is_empty() && taken + more > samples {
                break;
            }
            taken += more;
            entries.extend(waiting.pop_front());
        }
        self.samples -= taken;
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::{
        id::NodeId,
        subject::SubjectRef,
        telemetry::{Sample, SeriesSamples},
        time::Time,
    };

    fn batch(sequence: u64, samples: i64) -> Arc<Batch> {
        let key = SeriesKey {
            subject: SubjectRef::node("node-a"),
            metric: format!("m{sequence}"),
            unit: "1".into(),
            attributes: [].into(),
        };
        let samples = (0..samples).map(|at| Sample { at: Time(at), value: 1.0 }).collect();
        let series = vec![SeriesSamples { key: key.into(), samples }].into();
        Arc::new(Batch { origin: NodeId::new("node-a"), epoch: 1, sequence, series, events: vec![] })
    }

    #[test]
    fn the_oldest_go_first_and_what_is_taken_is_bounded() {
        let mut queue = Queue::new(10);
        let dropped: Vec<_> = (1..=4).map(|sequence| queue.push(&batch(sequence, 4), |_| true)).collect();
        assert_eq!((dropped, queue.samples()), (vec![0, 0, 4, 4], 8));
        assert_eq!(queue.push(&batch(5, 4), |_| false), 0);
        let names = |entries: Vec<Entry>| entries.iter().map(|e| e.series().key.metric.clone()).collect::<Vec<_>>();
        assert_eq!(names(queue.take(3)), ["m3"], "one at least");
        assert_eq!(names(queue.take(3)), ["m4"]);
        assert!(queue.take(3).is_empty() && queue.samples() == 0);
        assert_eq!(queue.push(&batch(6, 11), |_| true), 11, "larger than the queue");
    }

    #[test]
    fn a_backlog_goes_apart_and_is_the_first_to_make_room() {
        let mut queue = Queue::new(10);
        for sequence in [1, 9, 2, 10, 3] {
            queue.push(&batch(sequence, 2), |_| true);
        }
        let names = |entries: Vec<Entry>| entries.iter().map(|e| e.series().key.metric.clone()).collect::<Vec<_>>();
        assert_eq!(queue.push(&batch(11, 2), |_| true), 2, "2 made room");
        assert_eq!(names(queue.take(99)), ["m1", "m9", "m10", "m11"]);
        assert!(queue.has_backlog());
        assert_eq!(names(queue.take(99)), ["m3"]);
        assert!(!queue.has_backlog() && queue.samples() == 0);
    }
}
