//! How a record stands in a segment: its length, a CRC-32 of what follows, its sequence, its time, and the batch in the
//! wire's own form, compressed.
//!
//! A batch tells what its series' numbers stand for where a batch before it in the segment has not: such a record says so
//! in its length, and is read before any other. In segments of former versions each record tells all of its own.

use super::medium::Medium;
use aether_core::{id::NodeId, telemetry::Batch, time::Time};
use aether_proto::{
    telemetry::{Decoder, Encoder},
    v1,
};
use prost::Message;
use std::{collections::VecDeque, io};
use zstd::bulk::Compressor;

/// Length, checksum, sequence and time.
const HEADER_BYTES: usize = 24;
/// Set in the length of a record that tells what numbers of series stand for.
const DEFINES: u32 = 1 << 31;
/// No batch is larger, so a length beyond it is damage.
const BYTES_MAXIMUM: usize = 4 << 20;
/// Level of zstd.
const COMPRESSION: i32 = 1;

/// Where bytes of a segment are.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) offset: u64,
    pub(super) length: usize,
}

pub(super) struct Record {
    pub(super) sequence: u64,
    pub(super) at: Time,
    pub(super) span: Span,
}

/// Makes the records of one segment.
pub(super) struct Writer {
    encoder: Encoder,
    compressor: Compressor<'static>,
    /// Series that were defined.
    pub(super) defined: usize,
}

impl Writer {
    /// For the next segment, by what is left of the one before: the compressor takes memory that need not be cleared.
    pub(super) fn of_next(before: Option<Self>) -> io::Result<Self> {
        let compressor = before.map_or_else(|| Compressor::new(COMPRESSION), |before| Ok(before.compressor))?;
        Ok(Self { encoder: Encoder::default(), compressor, defined: 0 })
    }

    /// The bytes, and whether they define series.
    pub(super) fn record(&mut self, batch: &Batch, at: Time) -> io::Result<(Vec<u8>, bool)> {
        let wire = self.encoder.encode(batch, 0);
        self.defined += wire.dictionary.len();
        let payload = self.compressor.compress(&wire.encode_to_vec())?;
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        let defines = !wire.dictionary.is_empty();
        let mut record = Vec::with_capacity(HEADER_BYTES + payload.len());
        record.extend((length | if defines { DEFINES } else { 0 }).to_le_bytes());
        record.extend([0; 4]);
        record.extend(batch.sequence.to_le_bytes());
        record.extend(at.0.to_le_bytes());
        record.extend(payload);
        let checksum = crc32fast::hash(&record[8..]);
        record[4..8].copy_from_slice(&checksum.to_le_bytes());
        Ok((record, defines))
    }
}

struct Found<'a> {
    sequence: u64,
    at: Time,
    payload: &'a [u8],
    defines: bool,
    length: usize,
}

impl<'a> Found<'a> {
    /// The record at the beginning of `bytes`, if a whole one is there.
    fn of(bytes: &'a [u8]) -> Option<Self> {
        let (length, rest) = bytes.split_first_chunk::<4>()?;
        let (checksum, rest) = rest.split_first_chunk::<4>()?;
        let length = u32::from_le_bytes(*length);
        let defines = length & DEFINES != 0;
        let length = usize::try_from(length & !DEFINES).ok().filter(|length| *length <= BYTES_MAXIMUM)?;
        let body = rest.get(..16 + length)?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let (sequence, rest) = body.split_first_chunk::<8>()?;
        let (at, payload) = rest.split_first_chunk::<8>()?;
        let (sequence, at) = (u64::from_le_bytes(*sequence), Time(i64::from_le_bytes(*at)));
        Some(Found { sequence, at, payload, defines, length: HEADER_BYTES + length })
    }

    fn batch(&self) -> Option<v1::TelemetryBatch> {
        let wire = zstd::bulk::decompress(self.payload, BYTES_MAXIMUM).ok()?;
        v1::TelemetryBatch::decode(wire.as_slice()).ok()
    }
}

/// The whole records of a segment, which of them define series, and where they end.
pub(super) fn scan(bytes: &[u8]) -> (VecDeque<Record>, Vec<Span>, u64) {
    let (mut records, mut defining, mut offset) = (VecDeque::<Record>::new(), vec![], 0);
    while let Some(Found { sequence, at, payload: _, defines, length }) = Found::of(&bytes[offset..]) {
        if records.back().is_some_and(|last| last.sequence >= sequence) {
            break;
        }
        let span = Span { offset: offset as u64, length };
        records.push_back(Record { sequence, at, span });
        defining.extend(defines.then_some(span));
        offset += length;
    }
    (records, defining, offset as u64)
}

/// Reads batches of one segment, in any order.
pub(super) struct Reader {
    pub(super) segment: u64,
    decoder: Decoder,
    /// How many of the records that define series were looked at.
    looked: usize,
    /// One of them could not be read: what builds on it may be readable another time, by another reader.
    pub(super) lacks: bool,
}

impl Reader {
    pub(super) fn of(segment: u64) -> Self {
        Self { segment, decoder: Decoder::default(), looked: 0, lacks: false }
    }

    /// The batch of a record, if it is whole and all of its series were defined. `defining`: all records of the segment
    /// that define any.
    pub(super) fn read(
        &mut self,
        medium: &dyn Medium,
        defining: &[Span],
        wanted: Span,
        node: &NodeId,
    ) -> Option<Batch> {
        let bytes = |span: Span| medium.read_at(self.segment, span.offset, span.length).ok();
        for span in defining.iter().skip(self.looked) {
            self.looked += 1;
            // Where one is damaged, those that build on it cannot be read, and others can.
            let found = bytes(*span);
            let defining = found.as_deref().and_then(Found::of).and_then(|found| found.batch());
            self.lacks |= defining.is_none_or(|batch| self.decoder.define(&batch.dictionary).is_err());
        }
        let batch = Found::of(&bytes(wanted)?)?.batch()?;
        self.decoder.decode(node, &batch).ok()
    }
}
