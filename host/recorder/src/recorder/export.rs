//! Rows that leave: exports of a part of history, and evidence that is frozen so that it outlives retention.
//!
//! Both are files of the segments' format, with one difference: which batch a row came in is not told (`epoch` and
//! `sequence` are 0), and of two rows of one series, origin and time only the one that stands is there.
//!
//! Evidence is one file for each name, `evidence/<name>.parquet`. Freezing more under a name adds to what is there. All
//! of it is bounded by `evidence_bytes` and `evidence_retain_ms`; what was frozen longest ago goes first.

use super::{ExcerptQuery, Inner, READ_AHEAD, Recorder, count, lock};
use crate::{
    Error, counters,
    segment::{self, Content, Rows, Wanted},
    shelf::Entry,
};
use aether_core::{
    id::NodeId,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey},
    time::Time,
};
use bytes::Bytes;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Rows of one export or of one name's evidence, at most: they are in memory.
const ROWS_LIMIT: usize = 2_000_000;
const NAME_BYTES: usize = 128;

/// A part of history as it was recorded, by origin.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Export {
    /// Samples by series and origin, in order of time.
    pub series: BTreeMap<(SeriesKey, NodeId), BTreeMap<Time, f64>>,
    pub events: BTreeSet<(Time, NodeId, DiscreteEvent)>,
    /// Segments that could not be read, or not wholly: what they held is missing.
    pub unreadable: usize,
    rows: usize,
}

/// What is frozen under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frozen {
    pub samples: u64,
    pub events: u64,
    pub bytes: u64,
}

impl Export {
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// As a file of the segments' format.
    pub fn parquet(&self, now: Time) -> Result<Bytes, Error> {
        let times = self.series.values().flat_map(|samples| [samples.first_key_value(), samples.last_key_value()]);
        let times = times.flatten().map(|(at, _)| *at).chain(self.events.iter().map(|(at, _, _)| *at));
        let (from, to) = times.map(|at| (at, at)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).unwrap_or((now, now));
        let samples = count(self.series.values().map(BTreeMap::len).sum());
        let events = count(self.events.len());
        segment::encode_parts(&self.series, &self.events, &Content::apart(now, from, to, samples, events))
    }

    fn sample(&mut self, key: &SeriesKey, origin: &NodeId, samples: &[Sample]) -> Result<(), Error> {
        if samples.is_empty() {
            return Ok(());
        }
        let all = self.series.entry((key.clone(), origin.clone())).or_default();
        let before = all.len();
        all.extend(samples.iter().map(|sample| (sample.at, sample.value)));
        self.rows += all.len() - before;
        self.check()
    }

    fn event(&mut self, origin: &NodeId, event: DiscreteEvent) -> Result<(), Error> {
        self.rows += usize::from(self.events.insert((event.at, origin.clone(), event)));
        self.check()
    }

    fn add(&mut self, rows: Rows) -> Result<(), Error> {
        for (key, origin, samples) in rows.series {
            self.sample(&key, &origin, &samples)?;
        }
        for (origin, event) in rows.events {
            self.event(&origin, event)?;
        }
        Ok(())
    }

    fn add_unsealed(&mut self, batches: &[Arc<Batch>], query: &ExcerptQuery) -> Result<(), Error> {
        let ExcerptQuery { subjects, names, from, to } = query;
        let of_subject = |subject: &SubjectRef| subjects.as_ref().is_none_or(|all| all.contains(subject));
        let of_name = |name: &String| names.is_empty() || names.contains(name);
        for batch in batches {
            for series in batch.series.iter().filter(|s| of_subject(&s.key.subject) && of_name(&s.key.metric)) {
                let samples: Vec<Sample> =
                    series.samples().filter(|sample| (*from..=*to).contains(&sample.at)).collect();
                self.sample(series.key, &batch.origin, &samples)?;
            }
            for event in batch.events.iter().filter(|e| of_subject(&e.subject) && of_name(&e.name)) {
                if (*from..=*to).contains(&event.at) {
                    self.event(&batch.origin, event.clone())?;
                }
            }
        }
        Ok(())
    }

    fn check(&self) -> Result<(), Error> {
        if self.rows > ROWS_LIMIT { Err(Error::TooMuch { limit: ROWS_LIMIT }) } else { Ok(()) }
    }
}

impl Recorder {
    /// A part of history with everything that was taken until now, sealed or not. No name means all names.
    /// More rows than 2,000,000, or more bytes of segments than `query_bytes_limit`, are refused: ask for less at a time.
    pub async fn export(&self, query: &ExcerptQuery) -> Result<Export, Error> {
        let mut export = Export::default();
        self.inner.export(query, &mut export).await?;
        Ok(export)
    }

    /// Keeps these parts of history under `name`, beyond retention. Adds to what is frozen under it already.
    pub async fn freeze(&self, name: &str, parts: &[ExcerptQuery], now: Time) -> Result<Frozen, Error> {
        let inner = &self.inner;
        check_name(name)?;
        let _one = inner.freezing.lock().await;
        let mut export = Export::default();
        if let Some(bytes) = inner.shelf.evidence(name).await? {
            let rows = tokio::task::spawn_blocking(move || segment::decode_whole(bytes, &Wanted::default())).await;
            export.add(rows.map_err(|_| Error::Stopped)??)?;
        }
        for part in parts {
            inner.export(part, &mut export).await?;
        }
        let samples = count(export.series.values().map(BTreeMap::len).sum());
        let events = count(export.events.len());
        if export.rows() == 0 {
            return Ok(Frozen { samples, events, bytes: 0 });
        }
        let bytes = tokio::task::spawn_blocking(move || export.parquet(now)).await.map_err(|_| Error::Stopped)??;
        let size = count(bytes.len());
        inner.shelf.put_evidence(name, bytes).await?;
        counters::frozen();
        Ok(Frozen { samples, events, bytes: size })
    }

    /// What is frozen under a name, as the Parquet file that it is.
    pub async fn frozen(&self, name: &str) -> Result<Option<Bytes>, Error> {
        check_name(name)?;
        self.inner.shelf.evidence(name).await
    }
}

fn check_name(name: &str) -> Result<(), Error> {
    let sane = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if name.is_empty() || name.len() > NAME_BYTES || !name.chars().all(sane) {
        return Err(Error::Name(name.chars().take(NAME_BYTES).collect()));
    }
    Ok(())
}

impl Inner {
    async fn export(&self, query: &ExcerptQuery, out: &mut Export) -> Result<(), Error> {
        let ExcerptQuery { subjects, names, from, to } = query;
        // What is not sealed first: what is sealed meanwhile is then in both, and there once all the same.
        let unsealed = super::seal::batches_of(&lock(&self.pending));
        let wanted =
            Wanted { subjects: subjects.clone().map(Arc::new), names: Arc::new(names.clone()), from: *from, to: *to };
        let inside = |entry: &&Entry| entry.to >= *from && entry.from <= *to;
        let entries: Vec<Entry> = lock(&self.index).segments.iter().filter(inside).cloned().collect();
        let mut bytes = 0u64;
        for few in entries.chunks(READ_AHEAD) {
            let weights = futures::future::join_all(few.iter().map(|entry| self.shelf.weigh(entry, &wanted))).await;
            bytes = bytes.saturating_add(weights.into_iter().map(|weight| weight.unwrap_or(0)).sum());
            if bytes > self.settings.query_bytes_limit {
                counters::cut();
                return Err(Error::TooMuch { limit: ROWS_LIMIT });
            }
            let reads = futures::future::join_all(few.iter().map(|entry| self.shelf.rows(entry, &wanted))).await;
            for (entry, rows) in few.iter().zip(reads) {
                match rows {
                    Ok(rows) => {
                        out.unreadable += usize::from(self.damaged(entry, &rows));
                        out.add(rows)?;
                    }
                    // Retention came first.
                    Err(Error::Read { source: object_store::Error::NotFound { .. }, .. }) => {}
                    Err(error) => {
                        out.unreadable += 1;
                        self.unreadable(entry, &error);
                    }
                }
            }
        }
        // A large fleet's is long to look through.
        let (query, mut all) = (query.clone(), std::mem::take(out));
        let looked = tokio::task::spawn_blocking(move || all.add_unsealed(&unsealed, &query).map(|()| all)).await;
        *out = looked.map_err(|_| Error::Stopped)??;
        Ok(())
    }

    /// Removes what was frozen longest ago until the rest is within `evidence_bytes` and `evidence_retain_ms`.
    pub(super) async fn enforce_evidence(&self, now: Time) -> Result<usize, Error> {
        let _one = self.freezing.lock().await;
        let mut all = self.shelf.list_evidence().await?;
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, _, bytes)| bytes).sum();
        let horizon = now.minus_ms(self.settings.evidence_retain_ms);
        let mut removed = 0;
        for (at, name, size) in all {
            if bytes <= self.settings.evidence_bytes && at >= horizon {
                break;
            }
            self.shelf.remove_evidence(&name).await?;
            tracing::info!(name, bytes = size, "frozen evidence was removed: it is beyond its bounds");
            bytes = bytes.saturating_sub(size);
            removed += 1;
        }
        Ok(removed)
    }
}
