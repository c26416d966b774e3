//! What the window keeps of one series from one origin, and how one series is made of what several origins sent.

use super::feed::Source;
use aether_core::{id::NodeId, telemetry::Sample, time::Time};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// An origin silent for longer than this has stopped telling of a series; when it begins again, that is a new stretch.
pub(crate) const SILENCE_MS: u64 = 15_000;
pub(super) const SAMPLE_BYTES: usize = size_of::<Sample>();

/// The samples of one series that one origin sent.
#[derive(Debug)]
pub(crate) struct Run {
    pub(super) source: Arc<Source>,
    kept: Mutex<Kept>,
}

/// Those of them that the window keeps, in order of time.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) samples: VecDeque<Sample>,
    /// When the stretch began that the oldest kept sample is of: eviction must not make an old stretch look new.
    since: Time,
    /// The window has let go of the run: what comes later belongs in another.
    pub(super) is_gone: bool,
}

impl Run {
    pub(super) fn new(source: Arc<Source>) -> Self {
        let kept = Kept { samples: VecDeque::new(), since: Time(i64::MAX), is_gone: false };
        Self { source, kept: Mutex::new(kept) }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The samples in `(after, until]`.
    pub(super) fn cut(&self, after: Time, until: Time) -> Vec<Sample> {
        self.lock().cut(after, until)
    }
}

impl Kept {
    /// In order of time; a second value for one time replaces the first.
    pub(super) fn insert(&mut self, sample: Sample) {
        match self.samples.back() {
            Some(last) if last.at >= sample.at => {
                let i = self.samples.partition_point(|s| s.at < sample.at);
                match self.samples.get_mut(i).filter(|s| s.at == sample.at) {
                    Some(same) => *same = sample,
                    None => self.samples.insert(i, sample),
                }
            }
            _ => self.samples.push_back(sample),
        }
        self.since = self.since.min(sample.at);
    }

    pub(super) fn pop(&mut self) -> Option<Sample> {
        let gone = self.samples.pop_front()?;
        if let Some(next) = self.samples.front()
            && next.at.since_ms(gone.at) > SILENCE_MS
        {
            self.since = next.at;
        }
        Some(gone)
    }

    pub(super) fn bytes(&self) -> usize {
        self.samples.capacity() * SAMPLE_BYTES
    }

    pub(super) fn cut(&self, after: Time, until: Time) -> Vec<Sample> {
        let from = self.samples.partition_point(|s| s.at <= after);
        let to = self.samples.partition_point(|s| s.at <= until).max(from);
        self.samples.range(from..to).copied().collect()
    }
}

pub(super) fn read_runs(runs: &[Arc<Run>], after: Time, until: Time) -> Option<(Vec<Sample>, NodeId)> {
    if let [run] = runs {
        let samples = run.cut(after, until);
        return (!samples.is_empty()).then(|| (samples, run.source.id.clone()));
    }
    // Who has the word is settled over everything that is kept, so that the cut does not change it.
    let whole = |run: &Arc<Run>| {
        let kept = run.lock();
        (run.source.id.clone(), kept.since, kept.cut(Time(i64::MIN), Time(i64::MAX)))
    };
    let all: Vec<_> = runs.iter().map(whole).collect();
    let merged = merge(&all);
    let from = merged.partition_point(|(s, _)| s.at <= after);
    let to = merged.partition_point(|(s, _)| s.at <= until).max(from);
    let (_, origin) = *merged.get(from..to)?.last()?;
    Some((merged[from..to].iter().map(|(s, _)| *s).collect(), all[origin].0.clone()))
}

/// One series of what several origins sent: (origin, beginning of its first stretch, samples in order of time).
///
/// An origin's samples fall into stretches, parted by silences longer than [`SILENCE_MS`]. The stretch that began last
/// has the word from its beginning until [`SILENCE_MS`] after its end; what others say meanwhile is not seen. So the
/// agent that restored a workload speaks for it, also when the former one has not yet noticed; and when the workload
/// moves back, the former one begins a new stretch and has the word again. Answers each sample with the index of its
/// origin.
pub(crate) fn merge(runs: &[(NodeId, Time, Vec<Sample>)]) -> Vec<(Sample, usize)> {
    struct Stretch<'a> {
        begin: Time,
        origin: usize,
        samples: &'a [Sample],
    }
    let mut stretches = Vec::new();
    for (origin, (_, since, samples)) in runs.iter().enumerate() {
        let parts = samples.chunk_by(|a, b| b.at.since_ms(a.at) <= SILENCE_MS);
        for (i, part) in parts.enumerate() {
            let Some(first) = part.first() else { continue };
            let begin = if i == 0 { (*since).min(first.at) } else { first.at };
            stretches.push(Stretch { begin, origin, samples: part });
        }
    }
    // The newest beginning first; of two that begin together, the greater name has the word.
    stretches.sort_by(|a, b| (b.begin, &runs[b.origin].0).cmp(&(a.begin, &runs[a.origin].0)));
    let mut taken: Vec<(Time, Time, usize)> = Vec::new();
    let mut out = Vec::new();
    for stretch in stretches {
        // Whatever is taken begins after this stretch does, so only ends have to be looked at. `taken` has its
        // earliest at the end; one's own silence does not hide one's own word.
        let mut mask = taken.iter().rev().filter(|t| t.2 != stretch.origin).peekable();
        for sample in stretch.samples {
            while mask.next_if(|t| t.1 < sample.at).is_some() {}
            if mask.peek().is_none_or(|t| sample.at < t.0) {
                out.push((*sample, stretch.origin));
            }
        }
        if let Some(last) = stretch.samples.last() {
            taken.push((stretch.begin, last.at.plus_ms(SILENCE_MS), stretch.origin));
        }
    }
    out.sort_by_key(|(sample, _)| sample.at);
    out
}
