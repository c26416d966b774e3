//! Telemetry that the host has not made safe yet: batches in segment files, bounded by bytes and age, oldest dropped
//! first and the gap told.
//!
//! A segment is named by the first sequence that it may hold, so that numbers go on after all was acknowledged. A tail
//! that a crash tore is cut off when the spool opens. Each life of the agent begins a segment of its own.
//!
//! **What is synced when.** Every `sync_interval_ms`, and after [`UNSYNCED_MAXIMUM`] batches at the latest. A crash of the
//! agent alone costs nothing. One of the machine costs what was neither synced nor sent; and since numbers may have been
//! given that the disk has not seen, so many are left out afterwards, and none is given twice. Where the disk had taken
//! nothing for longer, the host's first word says how far it is, and what was put in before that may be lost, and is counted.
//!
//! **A full disk** stops nothing: batches stay in a small ring in memory, are sent from there, and go to disk when it
//! takes them again. What the ring cannot hold is dropped, counted and told.

mod medium;
mod record;

use crate::{
    clock::{self, Stopwatch},
    config::SpoolLimits,
    durable,
};
use aether_core::{
    id::NodeId,
    telemetry::{Batch, DiscreteEvent, SeriesSamples},
    time::Time,
};
use aether_proto::{telemetry::SERIES_MAXIMUM, v1};
use medium::{Folder, Medium};
use record::{Reader, Record, Span, Writer, scan};
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

/// Bytes after which a segment is closed and the next begun; a small spool has smaller ones.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Batches that may be in the spool without having been synced.
const UNSYNCED_MAXIMUM: u64 = 8;

#[derive(Debug, Error)]
pub enum Error {
    #[error("the spool cannot be opened")]
    Open(#[source] io::Error),
    #[error(transparent)]
    Durable(#[from] durable::Error),
}

/// What the spool keeps beside its segments.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Meta {
    epoch: u64,
    /// The machine's boot in which the spool was opened. None: it was closed since, with all that is in it synced.
    #[serde(default)]
    boot: Option<String>,
    /// The first sequence that was not given when it was opened.
    #[serde(default)]
    next: u64,
}

/// A batch to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    pub batch: Batch,
    /// Batches between the one before and this that will never come.
    pub lost_before: u64,
}

struct Segment {
    first: u64,
    length: u64,
    records: VecDeque<Record>,
    /// Records that define series, for all of the segment.
    defining: Vec<Span>,
    synced: bool,
}

impl Segment {
    fn new(first: u64) -> Self {
        Self { first, length: 0, records: VecDeque::new(), defining: vec![], synced: true }
    }
}

struct Waiting {
    at: Time,
    batch: Batch,
}

impl Waiting {
    fn sequence(&self) -> u64 {
        self.batch.sequence
    }
}

struct Inner {
    node: NodeId,
    medium: Box<dyn Medium>,
    limits: SpoolLimits,
    /// After so many a segment is closed.
    segment_bytes: u64,
    epoch: u64,
    next_sequence: u64,
    /// What `next_sequence` was when the spool was opened.
    opened_at: u64,
    /// Whether a host has said since what it has.
    resumed: bool,
    /// Oldest first.
    segments: VecDeque<Segment>,
    /// Of the last segment. None: the next batch begins another.
    writer: Option<Writer>,
    /// Of the segment that was read last.
    reader: Option<Reader>,
    /// What the disk has not taken, all newer than what it has.
    memory: VecDeque<Waiting>,
    /// The newest batch, until it is first read: mostly it is sent right away, and need not be had from the disk for that.
    fresh: Option<Batch>,
    acknowledged: u64,
    /// Stretches beyond a gap that the host has, too; both ends in them.
    beyond: Vec<(u64, u64)>,
    lost: u64,
    /// Why the disk takes nothing, while it does not.
    trouble: Option<String>,
    synced: Stopwatch,
    /// Batches since then.
    unsynced: u64,
}

/// The spool, shared by the collector that fills it and the uplink that drains it.
pub struct Spool {
    inner: Mutex<Inner>,
    meta: PathBuf,
    /// The last sequence that was given.
    newest: watch::Sender<u64>,
}

/// How full the spool is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Depth {
    pub batches: u64,
    /// When the oldest of them was put in.
    pub oldest: Option<Time>,
    pub lost: u64,
    /// Why the disk takes nothing, if so.
    pub trouble: Option<String>,
}

impl Spool {
    /// `boot`: which boot of the machine this is.
    pub fn open(path: &Path, node: NodeId, boot: String, limits: SpoolLimits) -> Result<Self, Error> {
        let file = path.join("spool.json");
        let found = durable::read::<Meta>(&file)?;
        let is_new = found.is_none();
        let meta = found.unwrap_or_else(|| Meta { epoch: clock::new_epoch(), boot: None, next: 1 });
        let mut inner = Inner::new(Box::new(Folder::at(path)), node, meta.epoch, limits);
        inner.recover().map_err(Error::Open)?;
        inner.next_sequence = inner.next_sequence.max(meta.next);
        if meta.boot.is_some_and(|before| before != boot) {
            warn!(
                left_out = UNSYNCED_MAXIMUM,
                "the machine stopped without a word to this agent: what was put into the spool in its last moments may \
                 be lost where the host has not got it. So many numbers are left out, and may be told as lost"
            );
            inner.next_sequence += UNSYNCED_MAXIMUM;
        }
        let spool = Self::over(inner, file);
        match spool.note(Some(boot)) {
            Err(error) if is_new => return Err(error.into()),
            // Numbers are left out once more at the next start, and no more than that.
            Err(error) => warn!(%error, "the spool's own file cannot be written"),
            Ok(()) => {}
        }
        Ok(spool)
    }

    fn over(mut inner: Inner, meta: PathBuf) -> Self {
        inner.opened_at = inner.next_sequence;
        let newest = watch::Sender::new(inner.next_sequence - 1);
        Self { inner: Mutex::new(inner), newest, meta }
    }

    fn note(&self, boot: Option<String>) -> Result<(), durable::Error> {
        let (epoch, next) = {
            let inner = self.lock();
            (inner.epoch, inner.next_sequence)
        };
        durable::write(&self.meta, &Meta { epoch, boot, next })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn epoch(&self) -> u64 {
        self.lock().epoch
    }

    /// Takes a batch and gives it the next sequence. Blocks on the disk.
    pub fn append(&self, series: Vec<SeriesSamples>, events: Vec<DiscreteEvent>, now: Time) {
        let sequence = self.lock().append(series, events, now);
        self.newest.send_replace(sequence);
    }

    /// The last sequence that was given; wakes when a batch has been appended.
    pub fn newest(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }

    /// The first batch beyond `after` that the host has not. Blocks on the disk.
    pub fn next_after(&self, after: u64) -> Option<Next> {
        self.lock().next_after(after)
    }

    /// The newest batch if it is the one right beyond `after`: without a look at the disk, and without waiting for whoever
    /// has one. None says nothing of what there is.
    pub fn ready_after(&self, after: u64) -> Option<Next> {
        self.inner.try_lock().ok()?.ready_after(after)
    }

    /// What the host has. False: it speaks of another spool.
    pub fn acknowledge(&self, ack: &v1::TelemetryAck) -> bool {
        self.lock().acknowledge(ack)
    }

    /// Whether the host has said that it has this batch.
    pub fn is_safe(&self, sequence: u64) -> bool {
        self.lock().is_safe(sequence)
    }

    /// What the host says it has when a stream begins: sending goes on after the sequence that comes back.
    pub fn resume(&self, ack: &v1::TelemetryAck) -> u64 {
        self.lock().resume(ack)
    }

    /// The host will never take this batch.
    pub fn give_up(&self, sequence: u64) {
        self.lock().give_up(sequence);
    }

    pub fn depth(&self) -> Depth {
        let inner = self.lock();
        let kept = inner.segments.iter().flat_map(|segment| &segment.records);
        let kept = kept.map(|record| (record.sequence, record.at));
        let waiting = kept.chain(inner.memory.iter().map(|waiting| (waiting.sequence(), waiting.at)));
        let mut waiting = waiting.filter(|(sequence, _)| !inner.is_safe(*sequence));
        let oldest = waiting.next().map(|(_, at)| at);
        let batches = waiting.count() as u64 + u64::from(oldest.is_some());
        Depth { batches, oldest, lost: inner.lost, trouble: inner.trouble.clone() }
    }

    /// Before the agent ends.
    pub fn close(&self) {
        if !self.lock().sync() {
            return;
        }
        if let Err(error) = self.note(None) {
            warn!(%error, "that the spool is closed could not be noted");
        }
    }
}

impl Inner {
    fn new(medium: Box<dyn Medium>, node: NodeId, epoch: u64, limits: SpoolLimits) -> Self {
        Self {
            node,
            medium,
            segment_bytes: SEGMENT_BYTES.min(limits.bytes / 4),
            limits,
            epoch,
            next_sequence: 1,
            opened_at: 1,
            resumed: false,
            segments: VecDeque::new(),
            writer: None,
            reader: None,
            memory: VecDeque::new(),
            fresh: None,
            acknowledged: 0,
            beyond: Vec::new(),
            lost: 0,
            trouble: None,
            synced: Stopwatch::start(),
            unsynced: 0,
        }
    }

    fn recover(&mut self) -> io::Result<()> {
        for first in self.medium.list()? {
            let bytes = self.medium.read(first)?;
            let (records, defining, length) = scan(&bytes);
            if length < bytes.len() as u64 {
                let cut = bytes.len() as u64 - length;
                warn!(segment = first, cut_bytes = cut, "the tail of a segment was torn; it is cut off, the rest kept");
                self.medium.truncate(first, length)?;
            }
            self.next_sequence = self.next_sequence.max(first);
            if let Some(last) = records.back() {
                self.next_sequence = self.next_sequence.max(last.sequence + 1);
            }
            self.segments.push_back(Segment { first, length, records, defining, synced: false });
        }
        Ok(())
    }

    fn append(&mut self, series: Vec<SeriesSamples>, events: Vec<DiscreteEvent>, now: Time) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let batch = Batch { origin: self.node.clone(), epoch: self.epoch, sequence, series: series.into(), events };
        self.memory.push_back(Waiting { at: now, batch });
        self.drain_memory();
        self.unsynced += 1;
        while self.memory.len() > self.limits.memory_batches {
            self.memory.pop_front();
            self.lost += 1;
        }
        self.shed(now);
        if self.unsynced >= UNSYNCED_MAXIMUM || self.synced.elapsed() >= self.limits.sync_interval {
            self.sync();
        }
        sequence
    }

    fn ready_after(&mut self, after: u64) -> Option<Next> {
        let sequence = after + 1;
        if self.is_safe(sequence) {
            return None;
        }
        let batch = self.fresh.take_if(|fresh| fresh.sequence == sequence)?;
        Some(Next { batch, lost_before: 0 })
    }

    fn drain_memory(&mut self) {
        while let Some(waiting) = self.memory.pop_front() {
            match self.write(&waiting) {
                Ok(()) => {
                    self.fresh = Some(waiting.batch);
                    if self.trouble.take().is_some() {
                        info!("the spool's disk takes batches again");
                    }
                }
                Err(error) => {
                    self.memory.push_front(waiting);
                    if self.trouble.is_none() {
                        warn!(%error, "the spool's disk takes nothing; batches stay in memory, sampling goes on");
                    }
                    self.trouble = Some(error.to_string());
                    return;
                }
            }
        }
    }

    fn write(&mut self, waiting: &Waiting) -> io::Result<()> {
        let Waiting { at, batch } = waiting;
        let mut writer = match (self.writer.take(), self.segments.back()) {
            (Some(writer), Some(last))
                if last.length < self.segment_bytes && writer.defined + batch.series.len() <= SERIES_MAXIMUM =>
            {
                writer
            }
            (writer, _) => {
                self.sync();
                // One that is empty yet has the name that the next would have.
                if self.segments.back().is_none_or(|last| last.first < batch.sequence) {
                    self.segments.push_back(Segment::new(batch.sequence));
                }
                Writer::of_next(writer)?
            }
        };
        let Some(segment) = self.segments.back_mut() else { return Err(io::Error::other("no segment is open")) };
        let (record, defines) = writer.record(batch, *at)?;
        if let Err(error) = self.medium.append(segment.first, &record) {
            // A part may have been written: cut it off, so that what was before can be read. What this defines is not
            // there, so that the next begins a segment.
            let _ = self.medium.truncate(segment.first, segment.length);
            if segment.records.is_empty() {
                let _ = self.segments.pop_back().map(|segment| self.medium.remove(segment.first));
            }
            return Err(error);
        }
        let span = Span { offset: segment.length, length: record.len() };
        segment.records.push_back(Record { sequence: batch.sequence, at: *at, span });
        segment.defining.extend(defines.then_some(span));
        segment.length += record.len() as u64;
        segment.synced = false;
        self.writer = Some(writer);
        Ok(())
    }

    /// Whether all is synced.
    fn sync(&mut self) -> bool {
        (self.synced, self.unsynced) = (Stopwatch::start(), 0);
        for segment in self.segments.iter_mut().filter(|segment| !segment.synced && !segment.records.is_empty()) {
            match self.medium.sync(segment.first) {
                Ok(()) => segment.synced = true,
                Err(error) => warn!(%error, segment = segment.first, "the spool could not be synced"),
            }
        }
        self.memory.is_empty() && self.segments.iter().all(|segment| segment.synced || segment.records.is_empty())
    }

    /// Drops the oldest segments beyond the limits. The one that is written to stays.
    fn shed(&mut self, now: Time) {
        let age = u64::try_from(self.limits.age.as_millis()).unwrap_or(u64::MAX);
        loop {
            let total: u64 = self.segments.iter().map(|segment| segment.length).sum();
            let Some(oldest) = self.segments.front() else { return };
            let old = oldest.records.back().is_some_and(|record| record.at < now.minus_ms(age));
            if self.segments.len() < 2 || (total <= self.limits.bytes && !old) {
                return;
            }
            let dropped = oldest.records.iter().filter(|record| !self.is_safe(record.sequence)).count() as u64;
            if dropped > 0 {
                self.lost += dropped;
                warn!(dropped, lost = self.lost, old, "the spool is at its limit; the oldest batches were dropped");
            }
            self.remove_oldest();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(segment) = self.segments.pop_front()
            && let Err(error) = self.medium.remove(segment.first)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(%error, segment = segment.first, "a segment of the spool could not be removed");
        }
    }

    fn next_after(&mut self, after: u64) -> Option<Next> {
        loop {
            let on_disk = self.segments.iter().enumerate().find_map(|(index, segment)| {
                let from = segment.records.partition_point(|record| record.sequence <= after);
                let mut rest = segment.records.iter().enumerate().skip(from);
                let (place, record) = rest.find(|(_, record)| !self.is_safe(record.sequence))?;
                Some((index, place, record.sequence))
            });
            let Some((index, place, sequence)) = on_disk else {
                // What was kept for reading is needed no more, mostly.
                self.reader = None;
                let waiting = self.memory.iter().find(|waiting| waiting.sequence() > after)?;
                return Some(Next { batch: waiting.batch.clone(), lost_before: waiting.sequence() - after - 1 });
            };
            let batch = self.fresh.take_if(|fresh| fresh.sequence == sequence).or_else(|| self.read(index, place));
            if let Some(batch) = batch {
                return Some(Next { batch, lost_before: sequence - after - 1 });
            }
            warn!(sequence, "a batch of the spool cannot be read any more; it is dropped");
            self.segments[index].records.remove(place);
            self.lost += 1;
        }
    }

    /// The batch of a record on disk, if it is whole.
    fn read(&mut self, segment: usize, record: usize) -> Option<Batch> {
        let Segment { first, records, defining, .. } = self.segments.get(segment)?;
        let span = records.get(record)?.span;
        let mut reader = match self.reader.take() {
            Some(reader) if reader.segment == *first => reader,
            _ => Reader::of(*first),
        };
        let batch = reader.read(&*self.medium, defining, span, &self.node);
        self.reader = Some(reader).filter(|reader| !reader.lacks);
        batch
    }

    fn is_safe(&self, sequence: u64) -> bool {
        let within = |&(first, last): &(u64, u64)| (first..=last).contains(&sequence);
        sequence <= self.acknowledged || self.beyond.iter().any(within)
    }

    fn acknowledge(&mut self, ack: &v1::TelemetryAck) -> bool {
        if ack.epoch != self.epoch {
            return false;
        }
        self.take_in(ack);
        self.let_go();
        true
    }

    fn take_in(&mut self, ack: &v1::TelemetryAck) {
        self.acknowledged = self.acknowledged.max(ack.sequence.min(self.next_sequence - 1));
        self.beyond = ack.beyond.iter().map(|range| (range.first, range.last)).collect();
    }

    /// Of what the host has.
    fn let_go(&mut self) {
        while self.segments.len() > 1
            && self.segments[0].records.iter().rev().all(|record| self.is_safe(record.sequence))
        {
            self.remove_oldest();
        }
        let mut memory = std::mem::take(&mut self.memory);
        memory.retain(|waiting| !self.is_safe(waiting.sequence()));
        self.memory = memory;
    }

    fn resume(&mut self, ack: &v1::TelemetryAck) -> u64 {
        self.acknowledged = 0;
        self.beyond.clear();
        let is_first = !std::mem::replace(&mut self.resumed, true);
        if ack.epoch != self.epoch {
            // A host that knows nothing of this spool, or of another: all that is here is news to it.
            return 0;
        }
        let seen = ack.beyond.iter().map(|range| range.last).fold(ack.sequence, u64::max);
        let is_behind = seen >= self.next_sequence;
        self.next_sequence = self.next_sequence.max(seen.saturating_add(1));
        self.take_in(ack);
        // Of this life nothing was sent before: the host takes what has these numbers for others, which were lost.
        let of_this_life = |sequence: &u64| is_first && *sequence >= self.opened_at && self.is_safe(*sequence);
        let kept = self.segments.iter().flat_map(|segment| &segment.records).map(|record| record.sequence);
        let lost = kept.chain(self.memory.iter().map(Waiting::sequence)).filter(of_this_life).count() as u64;
        if is_behind || lost > 0 {
            warn!(seen, lost, "the host has seen numbers that this spool has not given yet; it goes on after");
        }
        self.lost += lost;
        self.let_go();
        ack.sequence
    }

    fn give_up(&mut self, sequence: u64) {
        self.lost += 1;
        for segment in &mut self.segments {
            segment.records.retain(|record| record.sequence != sequence);
        }
        self.memory.retain(|waiting| waiting.sequence() != sequence);
    }
}

#[cfg(test)]
mod tests;
