//! The hot window: the newest samples and events of every subject, in memory, for scorers, charts and evidence.
//!
//! Sharded by subject; a read locks one shard for as long as it copies. It is a cache of what is also unsealed or
//! sealed: dropping anything here loses nothing. Samples are kept per series *and origin*, because a workload's series
//! comes from another agent after a migration; [`merge`] makes one series of them.
//!
//! Locks, in the order in which they nest: the places of a feed, a shard, what waits of a source, a run.

mod feed;
mod run;

use feed::Waiting;
pub(crate) use feed::{Feed, Source};
use run::{Run, SAMPLE_BYTES, read_runs};
pub(crate) use run::{SILENCE_MS, merge};

use crate::counters;
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, Series, SeriesKey},
    time::Time,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher,
    sync::{
        Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

const SHARDS: usize = 64;
/// The window is not squeezed below this by memory: then new samples are left out instead.
const LEAST_WINDOW_MS: u64 = 10_000;
/// The window is swept each time that such a part of it has passed.
const SWEPT_PARTS: u64 = 32;
/// What a series costs beside its samples and texts, roughly.
const SERIES_BYTES: usize = 256;
const EVENT_BYTES: usize = 256;
/// So much of one origin waits at most before it is put into its runs.
const BATCHES_WAIT: usize = 16;
const SAMPLES_WAIT: usize = 8_192;

/// Bounds of the window.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) window_ms: u64,
    pub(crate) samples_per_series: usize,
    pub(crate) series: usize,
    pub(crate) bytes: usize,
    pub(crate) events_per_subject: usize,
}

/// One series of one subject, from all its origins.
#[derive(Debug)]
struct Held {
    unit: String,
    attributes: BTreeMap<String, String>,
    runs: Vec<Arc<Run>>,
}

#[derive(Debug, Default)]
struct Subject {
    /// By metric, each in order of unit and attributes.
    metrics: BTreeMap<String, Vec<Held>>,
    /// In order of time.
    events: VecDeque<DiscreteEvent>,
}

type Shard = HashMap<SubjectRef, Subject>;

/// What a batch adds to the window; what it takes away goes around the other end.
#[derive(Default)]
struct Growth {
    bytes: usize,
    samples: usize,
    evicted: u64,
}

/// What the window holds and what its limits have cost.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) series: AtomicUsize,
    pub(crate) samples: AtomicUsize,
    pub(crate) bytes: AtomicUsize,
    pub(crate) evicted: AtomicU64,
    pub(crate) hidden: AtomicU64,
}

pub(crate) struct Window {
    limits: Limits,
    shards: Vec<RwLock<Shard>>,
    hasher: RandomState,
    tally: Tally,
    /// The window as memory allows it now: at most `limits.window_ms`.
    reach_ms: AtomicU64,
    /// When what had aged out was last dropped.
    swept_at: AtomicI64,
    /// When memory last forced a squeeze.
    squeezed_at: AtomicI64,
    /// From here on the window holds everything it was given.
    complete_from: AtomicI64,
}

/// A series as it is read.
pub(crate) struct View {
    pub(crate) unit: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) samples: Vec<Sample>,
}

impl Window {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            reach_ms: AtomicU64::new(limits.window_ms),
            limits,
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            tally: Tally::default(),
            swept_at: AtomicI64::new(i64::MIN),
            squeezed_at: AtomicI64::new(i64::MIN),
            complete_from: AtomicI64::new(i64::MIN),
        }
    }

    pub(crate) fn tally(&self) -> &Tally {
        &self.tally
    }

    pub(crate) fn complete_from(&self) -> Time {
        Time(self.complete_from.load(Relaxed))
    }

    pub(crate) fn incomplete_before(&self, at: Time) {
        self.complete_from.fetch_max(at.0, Relaxed);
    }

    fn shard(&self, subject: &SubjectRef) -> &RwLock<Shard> {
        let shards = u64::try_from(SHARDS).unwrap_or(1);
        let i = usize::try_from(self.hasher.hash_one(subject) % shards).unwrap_or(0);
        &self.shards[i]
    }

    fn read(&self, subject: &SubjectRef) -> RwLockReadGuard<'_, Shard> {
        self.shard(subject).read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(shard: &RwLock<Shard>) -> RwLockWriteGuard<'_, Shard> {
        shard.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this origin already feeds the series.
    pub(crate) fn knows(&self, key: &SeriesKey, source: &Arc<Source>) -> bool {
        let shard = self.read(&key.subject);
        let found = shard.get(&key.subject).and_then(|s| s.metrics.get(&key.metric)).and_then(|all| {
            all.binary_search_by(|s| (&s.unit, &s.attributes).cmp(&(&key.unit, &key.attributes))).ok().map(|i| &all[i])
        });
        found.is_some_and(|s| s.runs.iter().any(|r| Arc::ptr_eq(&r.source, source)))
    }

    /// Takes the samples of a batch: all that read see them from here on.
    pub(crate) fn take(&self, feed: &Feed, batch: &Arc<Batch>, now: Time) {
        let columns = &batch.series;
        let horizon = now.minus_ms(self.reach_ms.load(Relaxed));
        let mut has_room = self.has_room(now);
        let mut places = feed.places();
        let gone = {
            let mut waiting = feed.source.waiting();
            let is_fresh = || columns.times().all(|times| times.first().is_none_or(|first| *first >= horizon));
            if has_room
                && is_fresh()
                && let Some(runs) = places.runs(columns.layout(), waiting.gone)
            {
                let samples = columns.values().len();
                waiting.batches.push((Arc::clone(batch), runs));
                waiting.samples += samples;
                self.grow(Growth { bytes: samples * SAMPLE_BYTES, samples, evicted: 0 });
                if waiting.batches.len() >= BATCHES_WAIT || waiting.samples >= SAMPLES_WAIT {
                    self.put(&mut waiting);
                }
                return;
            }
            self.put(&mut waiting);
            waiting.gone
        };
        let mut growth = Growth::default();
        for series in columns.iter() {
            let old = series.times.partition_point(|at| *at < horizon);
            let fresh = Series { times: &series.times[old..], values: &series.values[old..], ..series };
            if fresh.times.is_empty() {
                continue;
            }
            if !has_room {
                self.hide(fresh);
                continue;
            }
            if places.run(fresh.key).is_some_and(|run| self.push(run, [fresh], &mut growth)) {
                continue;
            }
            // A series that is new here: what it takes is counted at once.
            self.grow(std::mem::take(&mut growth));
            if let Some(run) = self.insert(&feed.source, fresh, now) {
                places.keep(fresh.key, run, feed.source.series.load(Relaxed));
            }
            has_room = self.has_room(now);
        }
        self.grow(growth);
        places.learn(columns.layout(), gone, feed.source.series.load(Relaxed));
    }

    /// Puts what waits into its runs.
    fn put(&self, waiting: &mut Waiting) {
        if waiting.batches.is_empty() {
            return;
        }
        let samples = std::mem::take(&mut waiting.samples);
        // They were counted when they came.
        let counted = |n: usize| 0usize.wrapping_sub(n);
        let mut growth = Growth { bytes: counted(samples * SAMPLE_BYTES), samples: counted(samples), evicted: 0 };
        for same in waiting.batches.chunk_by(|(_, a), (_, b)| Arc::ptr_eq(a, b)) {
            let runs = same.first().map_or(&[][..], |(_, runs)| runs);
            for (at, run) in runs.iter().enumerate() {
                let all = same.iter().map(|(batch, _)| batch.series.at(at));
                if !self.push(run, all.clone(), &mut growth) {
                    all.for_each(|series| self.hide(series));
                }
            }
        }
        waiting.batches.clear();
        self.grow(growth);
    }

    /// The runs with all that came.
    fn current<'a>(&self, runs: &'a [Arc<Run>]) -> &'a [Arc<Run>] {
        runs.iter().for_each(|run| self.put(&mut run.source.waiting()));
        runs
    }

    /// As [`Window::take`], of one series that is found by its texts. None: there was no room.
    pub(crate) fn insert(&self, source: &Arc<Source>, series: Series<'_>, now: Time) -> Option<Arc<Run>> {
        let Series { key, times, values } = series;
        let horizon = now.minus_ms(self.reach_ms.load(Relaxed));
        let old = times.partition_point(|at| *at < horizon);
        let fresh = Series { key, times: &times[old..], values: &values[old..] };
        if fresh.times.is_empty() {
            return None;
        }
        if !self.has_room(now) {
            self.hide(fresh);
            return None;
        }
        let mut shard = Self::write(self.shard(&key.subject));
        let subject = match shard.get_mut(&key.subject) {
            Some(subject) => subject,
            None => shard.entry(key.subject.clone()).or_default(),
        };
        let all = match subject.metrics.get_mut(&key.metric) {
            Some(all) => all,
            None => subject.metrics.entry(key.metric.clone()).or_default(),
        };
        let slot = all.binary_search_by(|s| (&s.unit, &s.attributes).cmp(&(&key.unit, &key.attributes)));
        let known = slot.ok().and_then(|i| all[i].runs.iter().find(|r| Arc::ptr_eq(&r.source, source)));
        let run = match known {
            Some(run) => Arc::clone(run),
            None => {
                if self.tally.series.load(Relaxed) >= self.limits.series {
                    drop(shard);
                    self.hide(fresh);
                    return None;
                }
                let i = slot.unwrap_or_else(|i| {
                    all.insert(
                        i,
                        Held { unit: key.unit.clone(), attributes: key.attributes.clone(), runs: Vec::new() },
                    );
                    i
                });
                let run = Arc::new(Run::new(Arc::clone(source)));
                all[i].runs.push(Arc::clone(&run));
                source.series.fetch_add(1, Relaxed);
                self.tally.series.fetch_add(1, Relaxed);
                self.tally.bytes.fetch_add(SERIES_BYTES + text_bytes(key), Relaxed);
                run
            }
        };
        // Within the shard's lock, so that nobody lets go of the run before its first sample.
        let mut growth = Growth::default();
        self.push(&run, [fresh], &mut growth);
        drop(shard);
        self.grow(growth);
        Some(run)
    }

    /// False if the window has let go of the run.
    fn push<'a>(&self, run: &Run, fresh: impl IntoIterator<Item = Series<'a>>, growth: &mut Growth) -> bool {
        let mut kept = run.lock();
        if kept.is_gone {
            return false;
        }
        let (bytes, count) = (kept.bytes(), kept.samples.len());
        for sample in fresh.into_iter().flat_map(Series::samples) {
            kept.insert(sample);
            if kept.samples.len() > self.limits.samples_per_series
                && let Some(gone) = kept.pop()
            {
                growth.evicted += 1;
                self.incomplete_before(gone.at.plus_ms(1));
            }
        }
        growth.bytes = growth.bytes.wrapping_add(kept.bytes().wrapping_sub(bytes));
        growth.samples = growth.samples.wrapping_add(kept.samples.len().wrapping_sub(count));
        true
    }

    fn grow(&self, growth: Growth) {
        let Growth { bytes, samples, evicted } = growth;
        self.tally.bytes.fetch_add(bytes, Relaxed);
        self.tally.samples.fetch_add(samples, Relaxed);
        self.count_evicted(evicted, "series");
    }

    /// Whether there is room for more, if need be after a squeeze.
    fn has_room(&self, now: Time) -> bool {
        let is_full = || self.tally.bytes.load(Relaxed) >= self.limits.bytes;
        if is_full() {
            self.squeeze(now);
        }
        !is_full()
    }

    pub(crate) fn insert_event(&self, event: &DiscreteEvent, now: Time) {
        if event.at < now.minus_ms(self.reach_ms.load(Relaxed)) {
            return;
        }
        if !self.has_room(now) {
            counters::hidden(1);
            return;
        }
        let mut shard = Self::write(self.shard(&event.subject));
        let events = &mut shard.entry(event.subject.clone()).or_default().events;
        let i =
            events.partition_point(|e| (e.at, &e.name, &e.attributes) <= (event.at, &event.name, &event.attributes));
        if i.checked_sub(1).and_then(|before| events.get(before)) == Some(event) {
            // A segment written twice by a seal that was cut off.
            return;
        }
        events.insert(i, event.clone());
        self.tally.bytes.fetch_add(EVENT_BYTES, Relaxed);
        if events.len() > self.limits.events_per_subject {
            events.pop_front();
            self.tally.bytes.fetch_sub(EVENT_BYTES, Relaxed);
            counters::evicted(1, "events");
        }
    }

    fn hide(&self, series: Series<'_>) {
        let count = u64::try_from(series.times.len()).unwrap_or(u64::MAX);
        self.tally.hidden.fetch_add(count, Relaxed);
        counters::hidden(count);
        if let Some(last) = series.times.last() {
            self.incomplete_before(last.plus_ms(1));
        }
    }

    fn count_evicted(&self, count: u64, limit: &'static str) {
        if count > 0 {
            self.tally.evicted.fetch_add(count, Relaxed);
            counters::evicted(count, limit);
        }
    }

    /// Drops what has aged out, and lets a squeezed window grow again when there is room. It looks at every series, so
    /// what has aged by a small part of the window only waits for the next time.
    pub(crate) fn sweep(&self, now: Time) {
        let reach = self.reach_ms.load(Relaxed);
        let last = self.swept_at.load(Relaxed);
        if (last..last.saturating_add_unsigned(reach / SWEPT_PARTS)).contains(&now.0) {
            return;
        }
        self.swept_at.store(now.0, Relaxed);
        if reach < self.limits.window_ms && self.tally.bytes.load(Relaxed) < self.limits.bytes / 2 {
            self.reach_ms.store((reach + reach / 4 + 1).min(self.limits.window_ms), Relaxed);
        }
        self.drop_before(now.minus_ms(self.reach_ms.load(Relaxed)));
    }

    /// Shortens the window until its bytes are below 7/8 of their limit. At most once a second of the caller's clock.
    fn squeeze(&self, now: Time) {
        let last = self.squeezed_at.load(Relaxed);
        if (last..last.saturating_add(1_000)).contains(&now.0)
            || self.squeezed_at.compare_exchange(last, now.0, Relaxed, Relaxed).is_err()
        {
            return;
        }
        let mut reach = self.reach_ms.load(Relaxed);
        loop {
            let gone = self.drop_before(now.minus_ms(reach));
            self.count_evicted(gone, "bytes");
            if self.tally.bytes.load(Relaxed) < self.limits.bytes / 8 * 7 || reach <= LEAST_WINDOW_MS {
                break;
            }
            reach = (reach / 4 * 3).max(LEAST_WINDOW_MS);
            self.reach_ms.store(reach, Relaxed);
        }
        tracing::warn!(reach_ms = reach, "the hot window is full: it now reaches back less far");
    }

    fn drop_before(&self, horizon: Time) -> u64 {
        self.incomplete_before(horizon);
        let mut gone = 0u64;
        for shard in &self.shards {
            let mut shard = Self::write(shard);
            shard.retain(|id, subject| {
                subject.metrics.retain(|metric, all| {
                    all.retain_mut(|series| {
                        series.runs.retain(|run| {
                            // Held until it is known whether the run stays: nothing comes to wait for it meanwhile.
                            let mut waiting = run.source.waiting();
                            self.put(&mut waiting);
                            let mut kept = run.lock();
                            let (bytes, count) = (kept.bytes(), kept.samples.len());
                            while kept.samples.front().is_some_and(|s| s.at < horizon) {
                                kept.pop();
                                gone += 1;
                            }
                            if kept.samples.capacity() / 4 > kept.samples.len().max(16) {
                                let twice = kept.samples.len() * 2;
                                kept.samples.shrink_to(twice);
                            }
                            let empty = kept.samples.is_empty();
                            shift(&self.tally.samples, count, kept.samples.len());
                            shift(&self.tally.bytes, bytes, if empty { 0 } else { kept.bytes() });
                            if empty {
                                kept.is_gone = true;
                                waiting.gone += 1;
                                run.source.series.fetch_sub(1, Relaxed);
                                self.tally.series.fetch_sub(1, Relaxed);
                                let texts =
                                    id.id.len() + metric.len() + series.unit.len() + map_bytes(&series.attributes);
                                self.tally.bytes.fetch_sub(SERIES_BYTES + texts, Relaxed);
                            }
                            !empty
                        });
                        !series.runs.is_empty()
                    });
                    !all.is_empty()
                });
                while subject.events.front().is_some_and(|e| e.at < horizon) {
                    subject.events.pop_front();
                    self.tally.bytes.fetch_sub(EVENT_BYTES, Relaxed);
                }
                !(subject.metrics.is_empty() && subject.events.is_empty())
            });
        }
        gone
    }

    /// Every series of the metric (of that unit, if one is given), in order of unit and attributes, with its samples in
    /// `(after, until]`. Series without any are left out.
    pub(crate) fn views(
        &self,
        subject: &SubjectRef,
        metric: &str,
        unit: Option<&str>,
        after: Time,
        until: Time,
    ) -> Vec<View> {
        let shard = self.read(subject);
        let Some(all) = shard.get(subject).and_then(|s| s.metrics.get(metric)) else { return Vec::new() };
        let wanted = all.iter().filter(|s| unit.is_none_or(|unit| unit == s.unit));
        wanted
            .filter_map(|series| {
                let (samples, _) = read_runs(self.current(&series.runs), after, until)?;
                Some(View { unit: series.unit.clone(), attributes: series.attributes.clone(), samples })
            })
            .collect()
    }

    pub(crate) fn subjects(&self) -> BTreeSet<SubjectRef> {
        let shards = self.shards.iter().map(|shard| shard.read().unwrap_or_else(PoisonError::into_inner));
        shards.flat_map(|shard| shard.keys().cloned().collect::<Vec<_>>()).collect()
    }

    /// The runs themselves, for a reader that has more of each elsewhere.
    pub(crate) fn stretches(
        &self,
        subject: &SubjectRef,
        metric: &str,
        after: Time,
        until: Time,
    ) -> Vec<(SeriesKey, NodeId, Vec<Sample>)> {
        let shard = self.read(subject);
        let Some(all) = shard.get(subject).and_then(|s| s.metrics.get(metric)) else { return Vec::new() };
        let mut out = Vec::new();
        for series in all {
            for run in self.current(&series.runs) {
                let samples = run.cut(after, until);
                if !samples.is_empty() {
                    let key = SeriesKey {
                        subject: subject.clone(),
                        metric: metric.to_owned(),
                        unit: series.unit.clone(),
                        attributes: series.attributes.clone(),
                    };
                    out.push((key, run.source.id.clone(), samples));
                }
            }
        }
        out
    }

    /// Calls `see` for each series (key, merged samples, newest origin), one shard after another.
    pub(crate) fn each_series(&self, only: Option<&SubjectRef>, mut see: impl FnMut(SeriesKey, &[Sample], NodeId)) {
        let mut visit = |id: &SubjectRef, subject: &Subject| {
            for (metric, all) in &subject.metrics {
                for series in all {
                    if let Some((samples, origin)) =
                        read_runs(self.current(&series.runs), Time(i64::MIN), Time(i64::MAX))
                    {
                        let key = SeriesKey {
                            subject: id.clone(),
                            metric: metric.clone(),
                            unit: series.unit.clone(),
                            attributes: series.attributes.clone(),
                        };
                        see(key, &samples, origin);
                    }
                }
            }
        };
        match only {
            Some(id) => {
                if let Some(subject) = self.read(id).get(id) {
                    visit(id, subject);
                }
            }
            None => {
                for shard in &self.shards {
                    for (id, subject) in shard.read().unwrap_or_else(PoisonError::into_inner).iter() {
                        visit(id, subject);
                    }
                }
            }
        }
    }

    /// Events with `after < at <= until`, in order of time.
    pub(crate) fn events(&self, only: Option<&SubjectRef>, after: Time, until: Time) -> Vec<DiscreteEvent> {
        let mut out = Vec::new();
        let mut visit = |subject: &Subject| {
            let from = subject.events.partition_point(|e| e.at <= after);
            let to = subject.events.partition_point(|e| e.at <= until).max(from);
            out.extend(subject.events.range(from..to).cloned());
        };
        match only {
            Some(id) => {
                if let Some(subject) = self.read(id).get(id) {
                    visit(subject);
                }
            }
            None => {
                for shard in &self.shards {
                    shard.read().unwrap_or_else(PoisonError::into_inner).values().for_each(&mut visit);
                }
                out.sort_by(|a, b| {
                    (a.at, &a.subject, &a.name, &a.attributes).cmp(&(b.at, &b.subject, &b.name, &b.attributes))
                });
            }
        }
        out
    }

    /// The oldest and newest sample of all.
    pub(crate) fn span(&self) -> Option<(Time, Time)> {
        let mut span: Option<(Time, Time)> = None;
        for shard in &self.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let runs = shard.values().flat_map(|s| s.metrics.values()).flatten().flat_map(|s| self.current(&s.runs));
            let ends = |run: &Arc<Run>| {
                let kept = run.lock();
                Some((kept.samples.front()?.at, kept.samples.back()?.at))
            };
            for (first, last) in runs.filter_map(ends) {
                span = Some(span.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
            }
        }
        span
    }
}

fn text_bytes(key: &SeriesKey) -> usize {
    key.subject.id.len() + key.metric.len() + key.unit.len() + map_bytes(&key.attributes)
}

fn map_bytes(map: &BTreeMap<String, String>) -> usize {
    map.iter().map(|(k, v)| k.len() + v.len() + 64).sum()
}

fn shift(total: &AtomicUsize, before: usize, after: usize) {
    if after >= before {
        total.fetch_add(after - before, Relaxed);
    } else {
        total.fetch_sub(before - after, Relaxed);
    }
}

#[cfg(test)]
mod tests;
