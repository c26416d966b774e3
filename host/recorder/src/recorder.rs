//! The recorder itself: takes batches, seals them, answers reads.
//!
//! Locks, in the order in which they may nest: `compacting` and `sealing` (held across awaits; neither waits for the
//! other), then `origins`, then `pending`. The window's shards are never locked together with these.

mod compact;
mod excerpt;
mod export;
mod restore;
mod seal;

pub use compact::Compacted;
pub use excerpt::{Excerpt, ExcerptQuery, Excerpts};
pub use export::{Export, Frozen};

use crate::{
    Error, Rejected, Safe, Settings, admission,
    aside::aside,
    counters,
    positions::{Origin, Taken},
    range::{RangeAnswer, RangeQuery, RangeSeries, downsample},
    segment,
    shelf::{Entry, Shelf},
    window::{Feed, Limits, Source, Window},
};
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use excerpt::Gathered;
use foldhash::fast::RandomState;
use object_store::ObjectStore;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};
use tokio::sync::{Notify, broadcast, watch};

/// Origins that can be remembered.
const ORIGINS_LIMIT: usize = 100_000;
/// Batches that one who listens in may be behind.
const TAP_BATCHES: usize = 4_096;
/// Segments that a query reads at a time.
const READ_AHEAD: usize = 4;

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Taken, and visible in the hot window.
    New,
    /// Had before: acknowledge it when [`Recorder::safe`] says so, and do nothing else.
    Duplicate,
}

/// What one seal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    pub batches: usize,
    pub samples: u64,
    pub events: u64,
    /// Size of the new segment; 0 when there was nothing to seal.
    pub bytes: u64,
    pub path: Option<String>,
}

/// One series of the hot window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesInfo {
    pub key: SeriesKey,
    pub samples: usize,
    pub first: Time,
    pub last: Time,
    /// Where its newest sample comes from.
    pub origin: NodeId,
}

/// The recorder in numbers. Counts are since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    pub series: usize,
    pub samples: usize,
    pub hot_bytes: usize,
    /// Of the hot window.
    pub oldest: Option<Time>,
    pub newest: Option<Time>,
    /// From here on the hot window holds everything; what is older has to be read from segments.
    pub complete_from: Option<Time>,
    pub unsealed_batches: usize,
    pub unsealed_bytes: usize,
    pub segments: usize,
    pub segment_bytes: u64,
    pub last_sealed: Option<Time>,
    /// Why the last seal failed, if it did. Nothing is lost by it: the batches wait for the next one.
    pub seal_error: Option<String>,
    pub evicted_samples: u64,
    /// Samples that found no room in the hot window; they are sealed all the same.
    pub hidden_samples: u64,
    /// Samples that were no finite number.
    pub dropped_samples: u64,
    pub duplicate_batches: u64,
    pub rejected_batches: u64,
    /// Batches that senders said they lost.
    pub lost_batches: u64,
    /// Files in the segments' folder that could not be read as segments.
    pub unreadable_segments: u64,
}

/// The flight recorder. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Recorder {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    shelf: Shelf,
    window: Window,
    origins: Mutex<HashMap<NodeId, Known, RandomState>>,
    pending: Mutex<Vec<Unsealed>>,
    unsealed_bytes: AtomicUsize,
    unsealed_batches: AtomicUsize,
    index: Mutex<Index>,
    /// What the seal that is under way, or was cut off, is to hold.
    attempt: Mutex<Option<seal::Attempt>>,
    /// One seal or one pass of retention at a time.
    sealing: tokio::sync::Mutex<()>,
    /// One merge at a time.
    compacting: tokio::sync::Mutex<()>,
    /// One change of frozen evidence at a time.
    freezing: tokio::sync::Mutex<()>,
    wanted: Notify,
    tap: broadcast::Sender<Arc<Batch>>,
    counts: Counts,
}

struct Known {
    origin: Origin,
    feed: Arc<Feed>,
}

#[derive(Clone)]
struct Unsealed {
    batch: Arc<Batch>,
    /// As it was counted when it came.
    weight: usize,
}

#[derive(Default)]
struct Index {
    /// By number.
    segments: Vec<Entry>,
    bytes: u64,
    next: u64,
    /// The newest segment that names every origin. Retention leaves it and what follows it.
    complete: Option<u64>,
    last_sealed: Option<Time>,
    seal_error: Option<String>,
    /// Merged into others, and to be removed when nobody reads them.
    superseded: Vec<Entry>,
    /// Numbers that are being merged: retention leaves them alone.
    merging: Option<(u64, u64)>,
    /// Numbers of segments that cannot be merged, because they cannot be read whole.
    unmergeable: BTreeSet<u64>,
}

impl Index {
    fn push(&mut self, entry: Entry) {
        self.bytes = self.bytes.saturating_add(entry.bytes);
        self.next = self.next.max(entry.number.saturating_add(1));
        self.segments.push(entry);
    }
}

#[derive(Default)]
struct Counts {
    dropped: AtomicU64,
    duplicates: AtomicU64,
    rejected: AtomicU64,
    lost: AtomicU64,
    unreadable: AtomicU64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panicking holder left is whole: each critical section changes one thing at a time.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Recorder {
    /// Opens the recorder on its segments: rebuilds the positions of all origins from footers, and the hot window from
    /// the segments that reach into it. A file that cannot be read is left out with a warning and counted.
    pub async fn open(settings: Settings, store: Arc<dyn ObjectStore>, now: Time) -> Result<Self, Error> {
        settings.check()?;
        let shelf = Shelf::new(store, settings.footer_cache_bytes);
        let (all, foreign) = shelf.list().await?;
        let inner = Inner {
            window: Window::new(Limits {
                window_ms: settings.hot_window_ms,
                samples_per_series: settings.hot_samples_limit,
                series: settings.hot_series_limit,
                bytes: settings.hot_bytes_limit,
                events_per_subject: settings.hot_events_limit,
            }),
            settings,
            shelf,
            origins: Mutex::default(),
            pending: Mutex::default(),
            unsealed_bytes: AtomicUsize::new(0),
            unsealed_batches: AtomicUsize::new(0),
            index: Mutex::default(),
            attempt: Mutex::default(),
            sealing: tokio::sync::Mutex::default(),
            compacting: tokio::sync::Mutex::default(),
            freezing: tokio::sync::Mutex::default(),
            wanted: Notify::new(),
            tap: broadcast::Sender::new(TAP_BATCHES),
            counts: Counts::default(),
        };
        inner.counts.unreadable.store(foreign, Relaxed);
        let (entries, superseded) = inner.standing(all).await;
        inner.restore_positions(&entries).await;
        inner.restore_window(&entries, now).await;
        {
            let mut index = lock(&inner.index);
            index.next = 1;
            entries.into_iter().for_each(|entry| index.push(entry));
            index.superseded = superseded;
        }
        // What cannot be removed now is tried again before the next merge.
        drop(inner.remove_superseded().await);
        inner.report_levels();
        Ok(Self { inner: Arc::new(inner) })
    }

    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    /// Whether a sample of this series and time would be taken, but for what only a whole batch shows: for a caller
    /// that would rather leave one out than have all refused.
    pub fn check(&self, key: &SeriesKey, at: Time, now: Time) -> Result<(), Rejected> {
        let (origin, samples) = (NodeId::new("check"), [Sample { at, value: 0.0 }]);
        let series = vec![SeriesSamples { key: key.clone().into(), samples: samples.into() }];
        let mut batch = Batch { origin, epoch: 0, sequence: 0, series: series.into(), events: vec![] };
        admission::admit(&mut batch, Some(&[]), &self.inner.settings, now).map(|_| ())
    }

    /// Takes a batch: visible in the hot window at once, safe when [`Recorder::safe`] says so.
    ///
    /// A batch of an origin, epoch and sequence that was had before is a duplicate, whatever it holds. A malformed one is
    /// refused whole, and its sequence counts as settled. Samples that are no finite number are dropped and counted.
    pub fn append(&self, mut batch: Batch, now: Time) -> Result<Appended, Rejected> {
        let inner = &self.inner;
        let feed = match lock(&inner.origins).get(&batch.origin) {
            Some(known) if known.origin.has(batch.epoch, batch.sequence) => return Ok(inner.duplicate()),
            known => known.map(|known| Arc::clone(&known.feed)),
        };
        let had = feed.as_ref().map_or_else(|| Some(vec![]), |feed| feed.had(batch.series.layout()));
        let checked = admission::admit(&mut batch, had.as_deref(), &inner.settings, now);
        let source = feed.as_ref().map(|feed| &feed.source);
        let dropped = match checked.and_then(|dropped| inner.check_series(&batch, source).map(|()| dropped)) {
            Ok(dropped) => dropped,
            Err(rejected) => {
                if aether_core::id::is_name(batch.origin.as_str()) {
                    self.refuse(&batch.origin, batch.epoch, batch.sequence);
                }
                return Err(inner.rejected(rejected));
            }
        };
        let weight = admission::weigh(&batch);
        let unsealed_bytes = inner.unsealed_bytes.load(Relaxed);
        let limit = inner.settings.unsealed_bytes_limit;
        if unsealed_bytes.saturating_add(weight) > limit {
            inner.wanted.notify_one();
            return Err(inner.rejected(Rejected::Full { unsealed_bytes, limit }));
        }

        let batch = Arc::new(batch);
        let feed = {
            let mut origins = lock(&inner.origins);
            let Some(known) = inner.known(&mut origins, &batch.origin) else {
                let text = format!("{ORIGINS_LIMIT} origins are known, which is the limit");
                return Err(inner.rejected(Rejected::Malformed { code: "telemetry.too_many_origins", text }));
            };
            match known.origin.take(batch.epoch, batch.sequence) {
                Taken::New => {}
                Taken::Duplicate => return Ok(inner.duplicate()),
                Taken::Scattered => {
                    let text = "this epoch has too many gaps: the sender must say what it still holds".to_owned();
                    return Err(inner.rejected(Rejected::Malformed { code: "telemetry.too_many_gaps", text }));
                }
            }
            // Under the lock of the positions, so that no seal sees one without the other.
            inner.unsealed_bytes.fetch_add(weight, Relaxed);
            inner.unsealed_batches.fetch_add(1, Relaxed);
            lock(&inner.pending).push(Unsealed { batch: Arc::clone(&batch), weight });
            Arc::clone(&known.feed)
        };
        if unsealed_bytes.saturating_add(weight) >= inner.settings.seal_bytes {
            inner.wanted.notify_one();
        }
        inner.window.take(&feed, &batch, now);
        for event in &batch.events {
            inner.window.insert_event(event, now);
        }
        inner.counts.dropped.fetch_add(dropped, Relaxed);
        if dropped > 0 {
            counters::dropped(dropped);
        }
        if inner.tap.receiver_count() > 0 {
            // That nobody listens any more is no matter.
            drop(inner.tap.send(Arc::clone(&batch)));
        }
        counters::samples(count(batch.series.values().len()));
        Ok(Appended::New)
    }

    /// Every batch that is taken from now on, once. Who is more than 4,096 batches behind is told how many it missed.
    pub fn tap(&self) -> broadcast::Receiver<Arc<Batch>> {
        self.inner.tap.subscribe()
    }

    /// Whether the batch was had before, or is known to be lost or refused.
    pub fn has(&self, origin: &NodeId, epoch: u64, sequence: u64) -> bool {
        lock(&self.inner.origins).get(origin).is_some_and(|known| known.origin.has(epoch, sequence))
    }

    /// The sender holds nothing below `oldest` in this epoch. What is missing below is lost, and no longer holds up
    /// [`Recorder::safe`]. To be called when a sender of an epoch of which nothing is safe yet begins. Answers how many
    /// batches are thereby newly known to be lost.
    ///
    /// A sender that is never asked counts as holding from the first sequence that comes: right for one that sends in
    /// order, wrong for one that sends its newest first.
    pub fn sender_holds_from(&self, origin: &NodeId, epoch: u64, oldest: u64) -> u64 {
        self.lost(origin, |known| known.holds_from(epoch, oldest))
    }

    /// The sender holds none of `first..=last`. Those of them that are missing are lost, and no longer hold up
    /// [`Recorder::safe`]. Answers how many are thereby newly known to be lost.
    pub fn sender_lost(&self, origin: &NodeId, epoch: u64, first: u64, last: u64) -> u64 {
        self.lost(origin, |known| known.lose(epoch, first, last))
    }

    fn lost(&self, origin: &NodeId, told: impl FnOnce(&mut Origin) -> u64) -> u64 {
        let lost = self.inner.known(&mut lock(&self.inner.origins), origin).map_or(0, |known| told(&mut known.origin));
        if lost > 0 {
            self.inner.counts.lost.fetch_add(lost, Relaxed);
            counters::lost(lost);
            tracing::warn!(node.id = %origin, lost, "batches were lost before they came here");
        }
        lost
    }

    /// The batch will never be taken: it is settled without being kept.
    pub fn refuse(&self, origin: &NodeId, epoch: u64, sequence: u64) {
        if let Some(known) = self.inner.known(&mut lock(&self.inner.origins), origin) {
            known.origin.refuse(epoch, sequence);
        }
    }

    /// Whether more than half of what may wait for a seal does: what can come later should.
    pub fn is_half_full(&self) -> bool {
        self.inner.unsealed_bytes.load(Relaxed) > self.inner.settings.unsealed_bytes_limit / 2
    }

    /// What of the origin's current epoch is sealed and synced (or lost, or refused): what may be acknowledged. `None`
    /// until something is.
    pub fn safe(&self, origin: &NodeId) -> watch::Receiver<Option<Safe>> {
        match self.inner.known(&mut lock(&self.inner.origins), origin) {
            Some(known) => known.origin.watch(),
            None => watch::Sender::new(None).subscribe(),
        }
    }

    /// Resolves when so much is unsealed that the seal should not wait for its interval. For one driver.
    pub async fn seal_wanted(&self) {
        self.inner.wanted.notified().await;
    }

    /// Writes what is unsealed as one segment, synced. When that fails, everything stays for the next try, and the
    /// status says why. Cancelling it is as safe as a failure, save that a segment already written is found on the next
    /// start rather than on the next seal.
    pub async fn seal(&self, now: Time) -> Result<Sealed, Error> {
        let inner = &self.inner;
        let _one = inner.sealing.lock().await;
        let swept = Arc::clone(inner);
        aside(move || swept.window.sweep(now)).await?;
        let began = tokio::time::Instant::now();
        let result = inner.seal(now).await;
        match &result {
            Ok(sealed) if sealed.path.is_none() => {}
            Ok(_) => {
                counters::sealed(Some(began.elapsed().as_secs_f64()));
                lock(&inner.index).seal_error = None;
            }
            Err(error) => {
                counters::sealed(None);
                lock(&inner.index).seal_error = Some(chain(error));
            }
        }
        inner.report_levels();
        result
    }

    /// Removes the oldest segments until the rest is within `retain_bytes` and `retain_ms`, and frozen evidence beyond its
    /// own bounds. Answers how many segments went.
    pub async fn enforce_retention(&self, now: Time) -> Result<usize, Error> {
        let inner = &self.inner;
        let _one = inner.sealing.lock().await;
        let horizon = now.minus_ms(inner.settings.retain_ms);
        let mut removed = 0;
        loop {
            let (entry, limit) = {
                let mut index = lock(&inner.index);
                let over = index.bytes > inner.settings.retain_bytes;
                let oldest = |from: u64, index: &Index| {
                    let due = index.segments.iter().filter(|e| {
                        let merging = index.merging.is_some_and(|(first, last)| e.first >= first && e.number <= last);
                        e.number < from && (over || e.to < horizon) && !merging
                    });
                    due.min_by_key(|e| (e.to, e.number)).cloned()
                };
                match index.complete.and_then(|from| oldest(from, &index)) {
                    Some(entry) => (entry, if over { "bytes" } else { "age" }),
                    None => {
                        if oldest(u64::MAX, &index).is_some() {
                            // It holds positions that are nowhere else. The next seal writes them anew; then it may go.
                            index.complete = None;
                        }
                        break;
                    }
                }
            };
            inner.shelf.remove(&entry).await?;
            let mut index = lock(&inner.index);
            index.bytes = index.bytes.saturating_sub(entry.bytes);
            index.segments.retain(|e| e.path != entry.path);
            drop(index);
            counters::removed(limit);
            removed += 1;
        }
        inner.report_levels();
        inner.enforce_evidence(now).await?;
        Ok(removed)
    }

    /// The newest sample of each series of the metric, in order of unit and attributes.
    pub fn latest(&self, subject: &SubjectRef, metric: &str) -> Vec<(SeriesKey, Sample)> {
        let views = self.inner.window.views(subject, metric, None, Time(i64::MIN), Time(i64::MAX));
        let key =
            |unit, attributes| SeriesKey { subject: subject.clone(), metric: metric.to_owned(), unit, attributes };
        views.into_iter().filter_map(|v| Some((key(v.unit, v.attributes), *v.samples.last()?))).collect()
    }

    /// The series of the hot window, of one subject or of all, in order.
    pub fn series(&self, subject: Option<&SubjectRef>) -> Vec<SeriesInfo> {
        let mut out = Vec::new();
        self.inner.window.each_series(subject, |key, samples, origin| {
            if let (Some(first), Some(last)) = (samples.first(), samples.last()) {
                out.push(SeriesInfo { key, samples: samples.len(), first: first.at, last: last.at, origin });
            }
        });
        out.sort_by(|a, b| a.key.cmp(&b.key));
        out
    }

    /// A stretch of time for a chart, from the hot window alone.
    pub fn range(&self, query: &RangeQuery) -> Vec<RangeSeries> {
        let bucket_ms = query.bucket_ms();
        let (after, until) = (query.from.minus_ms(1), query.to.minus_ms(1));
        let views = self.inner.window.views(&query.subject, &query.metric, None, after, until);
        let key = |unit, attributes| SeriesKey {
            subject: query.subject.clone(),
            metric: query.metric.clone(),
            unit,
            attributes,
        };
        let series = |v: crate::window::View| RangeSeries {
            buckets: downsample(&v.samples, bucket_ms),
            key: key(v.unit, v.attributes),
            bucket_ms,
        };
        views.into_iter().map(series).collect()
    }

    /// As [`Recorder::range`], from sealed segments too where the hot window does not reach back.
    pub async fn range_deep(&self, query: &RangeQuery) -> Result<RangeAnswer, Error> {
        if query.from >= self.inner.window.complete_from() {
            return Ok(RangeAnswer { series: self.range(query), cut: false, unreadable: 0 });
        }
        let (bucket_ms, mut series) = (query.bucket_ms(), Vec::new());
        let wanted = ExcerptQuery {
            subjects: Some(BTreeSet::from([query.subject.clone()])),
            names: BTreeSet::from([query.metric.clone()]),
            from: query.from,
            to: query.to.minus_ms(1),
        };
        let Gathered { runs, events: _, cut, unreadable } = self.inner.gather(&wanted).await;
        for (key, origins) in runs {
            let samples = excerpt::merged(origins);
            if !samples.is_empty() {
                series.push(RangeSeries { key, bucket_ms, buckets: downsample(&samples, bucket_ms) });
            }
        }
        Ok(RangeAnswer { series, cut, unreadable })
    }

    /// The hot window's events since `since` (inclusive), of one subject or of all, newest last.
    pub fn recent_events(&self, subject: Option<&SubjectRef>, since: Time) -> Vec<DiscreteEvent> {
        self.inner.window.events(subject, since.minus_ms(1), Time(i64::MAX))
    }

    pub fn status(&self) -> Status {
        let inner = &self.inner;
        let tally = inner.window.tally();
        let span = inner.window.span();
        let complete_from = inner.window.complete_from();
        let index = lock(&inner.index);
        Status {
            series: tally.series.load(Relaxed),
            samples: tally.samples.load(Relaxed),
            hot_bytes: tally.bytes.load(Relaxed),
            oldest: span.map(|s| s.0),
            newest: span.map(|s| s.1),
            complete_from: (complete_from.0 > i64::MIN).then_some(complete_from),
            unsealed_batches: inner.unsealed_batches.load(Relaxed),
            unsealed_bytes: inner.unsealed_bytes.load(Relaxed),
            segments: index.segments.len(),
            segment_bytes: index.bytes,
            last_sealed: index.last_sealed,
            seal_error: index.seal_error.clone(),
            evicted_samples: tally.evicted.load(Relaxed),
            hidden_samples: tally.hidden.load(Relaxed),
            dropped_samples: inner.counts.dropped.load(Relaxed),
            duplicate_batches: inner.counts.duplicates.load(Relaxed),
            rejected_batches: inner.counts.rejected.load(Relaxed),
            lost_batches: inner.counts.lost.load(Relaxed),
            unreadable_segments: inner.counts.unreadable.load(Relaxed),
        }
    }
}

impl Inner {
    fn duplicate(&self) -> Appended {
        self.counts.duplicates.fetch_add(1, Relaxed);
        counters::duplicate();
        Appended::Duplicate
    }

    fn rejected(&self, rejected: Rejected) -> Rejected {
        self.counts.rejected.fetch_add(1, Relaxed);
        counters::rejected(rejected.code());
        rejected
    }

    /// The origin, made known if there is room.
    fn known<'a>(&self, origins: &'a mut HashMap<NodeId, Known, RandomState>, id: &NodeId) -> Option<&'a mut Known> {
        if !origins.contains_key(id) {
            if origins.len() >= ORIGINS_LIMIT {
                return None;
            }
            let known = Known { origin: Origin::default(), feed: Arc::new(Feed::new(id.clone())) };
            origins.insert(id.clone(), known);
        }
        origins.get_mut(id)
    }

    /// Refuses a batch whose new series would take its origin over its limit.
    fn check_series(&self, batch: &Batch, source: Option<&Arc<Source>>) -> Result<(), Rejected> {
        let has = source.map_or(0, |s| s.series.load(Relaxed));
        let limit = self.settings.origin_series_limit;
        if has.saturating_add(batch.series.len()) <= limit {
            return Ok(());
        }
        let keys: BTreeSet<&SeriesKey> = batch.series.layout().keys().map(|key| &**key).collect();
        let new = keys.into_iter().filter(|key| source.is_none_or(|s| !self.window.knows(key, s))).count();
        if has.saturating_add(new) <= limit {
            return Ok(());
        }
        let text = format!(
            "{} has {has} series and the batch brings {new} more, and {limit} is the limit: look for an attribute whose value always changes",
            batch.origin
        );
        Err(Rejected::Malformed { code: "telemetry.too_many_series", text })
    }

    fn unreadable(&self, entry: &Entry, error: &Error) {
        self.counts.unreadable.fetch_add(1, Relaxed);
        counters::unreadable();
        tracing::warn!(path = %entry.path, error = chain(error), "a segment cannot be read: it is left out");
    }

    /// Says it where a segment could be read in part only.
    fn damaged(&self, entry: &Entry, rows: &segment::Rows) -> bool {
        if rows.damaged > 0 {
            counters::damaged(rows.damaged);
            let why = rows.damage.as_deref().unwrap_or("damaged");
            tracing::warn!(path = %entry.path, rows = rows.damaged, error = why, "pages of a segment are damaged: the rows in them are left out, the rest is read");
        }
        rows.damaged > 0
    }

    fn report_levels(&self) {
        let tally = self.window.tally();
        let (segments, bytes) = {
            let index = lock(&self.index);
            (index.segments.len(), index.bytes)
        };
        counters::levels(
            tally.series.load(Relaxed),
            tally.bytes.load(Relaxed),
            self.unsealed_bytes.load(Relaxed),
            segments,
            bytes,
        );
    }
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// An error with its causes, for a log line.
fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
