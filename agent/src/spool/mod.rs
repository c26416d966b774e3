//! Telemetry that the host has not made safe yet: batches in segment files, bounded by bytes and age, oldest dropped
//! first and the gap told.
//!
//! A record is its length, a CRC-32, its sequence, its time and the batch in the wire's own form, compressed. A
//! segment is named by the first sequence that it may hold, so that numbers go on after all was acknowledged. A tail
//! that a crash tore is cut off when the spool opens.
//!
//! **What is synced when.** A batch is synced before it is first sent, so that a crash of the machine never gives its
//! number to another: when it is put in, while all before it were sent right away; while the host is away, every
//! `sync_interval_ms`. A crash of the agent alone costs nothing.
//!
//! **A full disk** stops nothing: batches stay in a small ring in memory, are sent from there, and go to disk when it
//! takes them again. What the ring cannot hold is dropped, counted and told.

mod medium;
mod wire;

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
use aether_proto::{telemetry::Decoder, v1};
use medium::{Folder, Medium};
use prost::Message;
use serde::{Deserialize, Serialize};
use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};
use wire::Dictionary;
use zstd::bulk::Compressor;

/// Bytes after which a segment is closed and the next begun; a small spool has smaller ones.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Length, checksum, sequence and time.
const HEADER_BYTES: usize = 24;
/// Level of zstd.
const COMPRESSION: i32 = 1;
/// No batch is larger, so a length beyond it is damage.
const RECORD_BYTES_MAXIMUM: usize = 4 << 20;

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
}

/// A batch to be sent.
#[derive(Clone, Debug, PartialEq)]
pub struct Next {
    pub batch: Batch,
    /// Batches between the one before and this that will never come.
    pub lost_before: u64,
}

struct Record {
    sequence: u64,
    at: Time,
    offset: u64,
    length: usize,
}

struct Segment {
    first: u64,
    length: u64,
    records: VecDeque<Record>,
    synced: bool,
}

struct Waiting {
    sequence: u64,
    at: Time,
    bytes: Vec<u8>,
}

struct Inner {
    node: NodeId,
    medium: Box<dyn Medium>,
    limits: SpoolLimits,
    epoch: u64,
    next_sequence: u64,
    /// What `next_sequence` was when the spool was opened.
    opened_at: u64,
    /// Oldest first; the last is written to.
    segments: VecDeque<Segment>,
    /// What the disk has not taken, all newer than what it has.
    memory: VecDeque<Waiting>,
    /// The newest batch, until it is first read: mostly it is sent right away, and need not be had from the disk for that.
    fresh: Option<Batch>,
    dictionary: Dictionary,
    /// Made with the first batch: it takes memory that need not be cleared for each.
    compressor: Option<Compressor<'static>>,
    acknowledged: u64,
    /// Stretches beyond a gap that the host has, too; both ends in them.
    beyond: Vec<(u64, u64)>,
    lost: u64,
    /// Why the disk takes nothing, while it does not.
    trouble: Option<String>,
    synced: Stopwatch,
}

/// The spool, shared by the collector that fills it and the uplink that drains it.
pub struct Spool {
    inner: Mutex<Inner>,
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
    pub fn open(path: &Path, node: NodeId, limits: SpoolLimits) -> Result<Self, Error> {
        let meta = path.join("spool.json");
        let epoch = match durable::read::<Meta>(&meta)? {
            Some(Meta { epoch }) => epoch,
            None => {
                let epoch = clock::new_epoch();
                durable::write(&meta, &Meta { epoch })?;
                epoch
            }
        };
        Self::over(Box::new(Folder::at(path)), node, epoch, limits)
    }

    fn over(medium: Box<dyn Medium>, node: NodeId, epoch: u64, limits: SpoolLimits) -> Result<Self, Error> {
        let mut inner = Inner {
            node,
            medium,
            limits,
            epoch,
            next_sequence: 1,
            opened_at: 1,
            segments: VecDeque::new(),
            memory: VecDeque::new(),
            fresh: None,
            dictionary: Dictionary::default(),
            compressor: None,
            acknowledged: 0,
            beyond: Vec::new(),
            lost: 0,
            trouble: None,
            synced: Stopwatch::start(),
        };
        inner.recover().map_err(Error::Open)?;
        inner.opened_at = inner.next_sequence;
        let newest = watch::Sender::new(inner.next_sequence - 1);
        Ok(Self { inner: Mutex::new(inner), newest })
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

    /// The first batch beyond `after` that the host has not, synced. Blocks on the disk.
    pub fn next_after(&self, after: u64) -> Option<Next> {
        self.lock().next_after(after)
    }

    /// The newest batch if it is the one right beyond `after`, and synced: without a look at the disk, and without waiting
    /// for whoever has one. None says nothing of what there is.
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
        let waiting = kept.chain(inner.memory.iter().map(|waiting| (waiting.sequence, waiting.at)));
        let mut waiting = waiting.filter(|(sequence, _)| !inner.is_safe(*sequence));
        let oldest = waiting.next().map(|(_, at)| at);
        let batches = waiting.count() as u64 + u64::from(oldest.is_some());
        Depth { batches, oldest, lost: inner.lost, trouble: inner.trouble.clone() }
    }

    /// Before the agent ends.
    pub fn sync(&self) {
        self.lock().sync();
    }
}

impl Inner {
    fn recover(&mut self) -> io::Result<()> {
        for first in self.medium.list()? {
            let bytes = self.medium.read(first)?;
            let (records, length) = scan(&bytes);
            if length < bytes.len() as u64 {
                let cut = bytes.len() as u64 - length;
                warn!(segment = first, cut_bytes = cut, "the tail of a segment was torn; it is cut off, the rest kept");
                self.medium.truncate(first, length)?;
            }
            self.next_sequence = self.next_sequence.max(first);
            if let Some(last) = records.back() {
                self.next_sequence = self.next_sequence.max(last.sequence + 1);
            }
            self.segments.push_back(Segment { first, length, records, synced: false });
        }
        Ok(())
    }

    fn append(&mut self, series: Vec<SeriesSamples>, events: Vec<DiscreteEvent>, now: Time) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let batch = Batch { origin: self.node.clone(), epoch: self.epoch, sequence, series: series.into(), events };
        let wire = self.dictionary.encode(&batch);
        // Compression of bytes in memory has no way to fail but for the lack of it.
        let bytes = self.compress(&wire).unwrap_or_default();
        self.memory.push_back(Waiting { sequence, at: now, bytes });
        // Whoever took the one before right away takes this one: it is synced here, where waiting for the disk holds up
        // nobody, as it would be before it is sent.
        let is_awaited = self.fresh.replace(batch).is_none();
        self.drain_memory();
        while self.memory.len() > self.limits.memory_batches {
            self.memory.pop_front();
            self.lost += 1;
        }
        self.shed(now);
        if is_awaited || self.synced.elapsed() >= self.limits.sync_interval {
            self.sync();
        }
        sequence
    }

    fn compress(&mut self, wire: &[u8]) -> io::Result<Vec<u8>> {
        let compressor = match &mut self.compressor {
            Some(compressor) => compressor,
            none => none.insert(Compressor::new(COMPRESSION)?),
        };
        compressor.compress(wire)
    }

    fn ready_after(&mut self, after: u64) -> Option<Next> {
        let sequence = after + 1;
        let written = self.segments.back()?;
        let is_synced = written.synced && written.records.back().is_some_and(|record| record.sequence == sequence);
        if !is_synced || self.is_safe(sequence) {
            return None;
        }
        let batch = self.fresh.take_if(|fresh| fresh.sequence == sequence)?;
        Some(Next { batch, lost_before: 0 })
    }

    fn drain_memory(&mut self) {
        while let Some(waiting) = self.memory.front() {
            let record = encode_record(waiting);
            let (sequence, at) = (waiting.sequence, waiting.at);
            match self.write(sequence, at, &record) {
                Ok(()) => {
                    self.memory.pop_front();
                    if self.trouble.take().is_some() {
                        info!("the spool's disk takes batches again");
                    }
                }
                Err(error) => {
                    if self.trouble.is_none() {
                        warn!(%error, "the spool's disk takes nothing; batches stay in memory, sampling goes on");
                    }
                    self.trouble = Some(error.to_string());
                    return;
                }
            }
        }
    }

    fn write(&mut self, sequence: u64, at: Time, record: &[u8]) -> io::Result<()> {
        let full = SEGMENT_BYTES.min(self.limits.bytes / 4);
        if self.segments.back().is_none_or(|segment| segment.length >= full) {
            self.sync();
            let segment = Segment { first: sequence, length: 0, records: VecDeque::new(), synced: true };
            self.segments.push_back(segment);
        }
        let Some(segment) = self.segments.back_mut() else { return Err(io::Error::other("no segment is open")) };
        if let Err(error) = self.medium.append(segment.first, record) {
            // A part may have been written: cut it off, so that what follows can be read.
            let _ = self.medium.truncate(segment.first, segment.length);
            return Err(error);
        }
        let length = record.len();
        segment.records.push_back(Record { sequence, at, offset: segment.length, length });
        segment.length += length as u64;
        segment.synced = false;
        Ok(())
    }

    fn sync(&mut self) {
        self.synced = Stopwatch::start();
        for segment in self.segments.iter_mut().filter(|segment| !segment.synced && !segment.records.is_empty()) {
            match self.medium.sync(segment.first) {
                Ok(()) => segment.synced = true,
                Err(error) => warn!(%error, segment = segment.first, "the spool could not be synced"),
            }
        }
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
                let waiting = self.memory.iter().find(|waiting| waiting.sequence > after)?;
                let (sequence, batch) = (waiting.sequence, decode(&self.node, &waiting.bytes));
                match batch {
                    Some(batch) => return Some(Next { batch, lost_before: sequence - after - 1 }),
                    None => self.memory.retain(|waiting| waiting.sequence != sequence),
                }
                self.lost += 1;
                continue;
            };
            if !self.segments[index].synced {
                self.sync();
            }
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
    fn read(&self, segment: usize, record: usize) -> Option<Batch> {
        let segment = self.segments.get(segment)?;
        let record = segment.records.get(record)?;
        let bytes = self.medium.read_at(segment.first, record.offset, record.length).ok()?;
        check(&bytes).and_then(|found| decode(&self.node, found.payload))
    }

    fn is_safe(&self, sequence: u64) -> bool {
        let within = |&(first, last): &(u64, u64)| (first..=last).contains(&sequence);
        sequence <= self.acknowledged || self.beyond.iter().any(within)
    }

    fn acknowledge(&mut self, ack: &v1::TelemetryAck) -> bool {
        let v1::TelemetryAck { epoch, sequence, beyond } = ack;
        if *epoch != self.epoch {
            return false;
        }
        self.acknowledged = self.acknowledged.max((*sequence).min(self.next_sequence - 1));
        self.beyond = beyond.iter().map(|range| (range.first, range.last)).collect();
        while self.segments.len() > 1
            && self.segments[0].records.iter().rev().all(|record| self.is_safe(record.sequence))
        {
            self.remove_oldest();
        }
        let mut memory = std::mem::take(&mut self.memory);
        memory.retain(|waiting| !self.is_safe(waiting.sequence));
        self.memory = memory;
        true
    }

    fn resume(&mut self, ack: &v1::TelemetryAck) -> u64 {
        self.acknowledged = 0;
        self.beyond.clear();
        if ack.epoch != self.epoch {
            // A host that knows nothing of this spool, or of another: all that is here is news to it.
            return 0;
        }
        let seen = ack.beyond.iter().map(|range| range.last).fold(ack.sequence, u64::max);
        let is_behind = seen >= self.next_sequence;
        self.next_sequence = self.next_sequence.max(seen.saturating_add(1));
        let in_memory = self.memory.len();
        self.acknowledge(ack);
        if is_behind {
            // Batches were sent from memory and lost with it; the host takes what has their numbers now for them.
            let kept = self.segments.iter().flat_map(|segment| &segment.records).map(|record| record.sequence);
            let kept = kept.filter(|n| *n >= self.opened_at && self.is_safe(*n)).count();
            let taken_for_others = (kept + in_memory - self.memory.len()) as u64;
            warn!(
                seen,
                lost = taken_for_others,
                "the host has seen numbers that this spool has not given yet; it goes on after"
            );
            self.lost += taken_for_others;
        }
        ack.sequence
    }

    fn give_up(&mut self, sequence: u64) {
        self.lost += 1;
        for segment in &mut self.segments {
            segment.records.retain(|record| record.sequence != sequence);
        }
        self.memory.retain(|waiting| waiting.sequence != sequence);
    }
}

fn encode_record(waiting: &Waiting) -> Vec<u8> {
    let Waiting { sequence, at, bytes } = waiting;
    let mut body = Vec::with_capacity(16 + bytes.len());
    body.extend(sequence.to_le_bytes());
    body.extend(at.0.to_le_bytes());
    body.extend(bytes);
    let mut record = Vec::with_capacity(8 + body.len());
    record.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    record.extend(crc32fast::hash(&body).to_le_bytes());
    record.extend(body);
    record
}

struct Found<'a> {
    sequence: u64,
    at: Time,
    payload: &'a [u8],
    length: usize,
}

/// The record at the beginning of `bytes`, if a whole one is there.
fn check(bytes: &[u8]) -> Option<Found<'_>> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok().filter(|length| *length <= RECORD_BYTES_MAXIMUM)?;
    let body = rest.get(..16 + length)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (sequence, rest) = body.split_first_chunk::<8>()?;
    let (at, payload) = rest.split_first_chunk::<8>()?;
    let (sequence, at) = (u64::from_le_bytes(*sequence), Time(i64::from_le_bytes(*at)));
    Some(Found { sequence, at, payload, length: HEADER_BYTES + length })
}

/// The whole records of a segment and where they end.
fn scan(bytes: &[u8]) -> (VecDeque<Record>, u64) {
    let (mut records, mut offset) = (VecDeque::<Record>::new(), 0);
    while let Some(Found { sequence, at, payload: _, length }) = check(&bytes[offset..]) {
        if records.back().is_some_and(|last| last.sequence >= sequence) {
            break;
        }
        records.push_back(Record { sequence, at, offset: offset as u64, length });
        offset += length;
    }
    (records, offset as u64)
}

fn decode(node: &NodeId, payload: &[u8]) -> Option<Batch> {
    let wire = zstd::bulk::decompress(payload, RECORD_BYTES_MAXIMUM).ok()?;
    let wire = v1::TelemetryBatch::decode(wire.as_slice()).ok()?;
    Decoder::default().decode(node, &wire).ok()
}

#[cfg(test)]
mod tests;
