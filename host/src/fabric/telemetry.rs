//! Telemetry of one session on its way to the recorder: decoded, checked for whose it is.
//!
//! A batch is had once, in whatever order. One that comes again is a duplicate; one that comes before others is taken,
//! and those are waited for unless the agent says that its spool lost them; one that will never be acceptable is refused
//! and settled, so that it does not hold up what comes after. What is acknowledged is decided by the recorder alone.
//!
//! What comes after a newer one is backlog, which an agent sends beside what it samples. It is put off where there is
//! little room, so that it never takes the room of what is new.
//!
//! What is refused for good becomes a dead letter, whole, so that it can be read and taken later without this stream.

use super::{convert::shown, counters, registry::Pulse};
use crate::store::dead_letters::Refusal;
use aether_core::{id::NodeId, subject::SubjectRef, telemetry::Batch, time::Time};
use aether_proto::{
    telemetry::{DecodeError, Decoder},
    v1::{TelemetryBatch, TelemetryRejected},
};
use aether_recorder::{Appended, Recorder, Rejected};
use prost::Message as _;
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of one series definition.
const DEFINITION_BYTES: usize = 8 << 10;
/// Dead letters of one session within a minute. Each is a write to the database, which a runaway agent must not own.
const LETTERS_PER_MINUTE: u32 = 60;

/// The telemetry side of one session.
pub(crate) struct Intake {
    origin: NodeId,
    decoder: Decoder,
    /// Bytes of the definitions that the decoder holds.
    dictionary_bytes: usize,
    /// The epoch that the agent sends, and the newest sequence of it that was settled in this session; 0: none yet.
    newest: Option<(u64, u64)>,
    batch_bytes: usize,
    dictionary_limit: usize,
    full_retry_ms: u32,
    /// Since when dead letters are counted, and how many there were.
    letters: (Time, u32),
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Taken,
    /// Had already; the acknowledgement may have got lost.
    Duplicate,
    /// With what is kept of it, unless it is to come again or there were too many of late.
    Rejected(TelemetryRejected, Option<Box<Refusal>>),
    /// No room now.
    Full(TelemetryRejected),
    /// Room, but for what is new.
    Later(TelemetryRejected),
}

/// Why a batch is refused for good.
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) reason: String,
}

impl Refused {
    pub(super) fn new(code: &'static str, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into() }
    }
}

impl From<DecodeError> for Refused {
    fn from(error: DecodeError) -> Self {
        let code = match &error {
            DecodeError::Schema(_) => "schema",
            DecodeError::Oversized(_) => "oversized",
            DecodeError::Checksum | DecodeError::Malformed(_) => "malformed",
        };
        Self::new(code, error.to_string())
    }
}

impl Intake {
    pub(crate) fn new(origin: NodeId, settings: &super::Settings) -> Self {
        Self {
            origin,
            decoder: Decoder::default(),
            dictionary_bytes: 0,
            newest: None,
            batch_bytes: settings.batch_bytes,
            dictionary_limit: settings.dictionary_bytes,
            full_retry_ms: settings.full_retry_ms,
            letters: (Time(0), 0),
        }
    }

    /// Takes one batch. `speaks_for` says whether a subject is this node's to speak of.
    pub(crate) fn take(
        &mut self,
        batch: &TelemetryBatch,
        recorder: &Recorder,
        pulse: &Pulse,
        speaks_for: impl Fn(&SubjectRef) -> bool,
        now: Time,
    ) -> Verdict {
        let (epoch, sequence, lost_before) = (batch.epoch, batch.sequence, batch.lost_before);
        let rejected = |code: &'static str, reason: String, expected: u64, retry_after_ms: u32| {
            counters::batch(code);
            TelemetryRejected { epoch, sequence, code: code.into(), reason, expected, retry_after_ms }
        };
        // Definitions count as known to the sender whatever becomes of the batch: decode first, judge then.
        let decoded = self.decode(batch);
        if sequence == 0 || sequence == u64::MAX {
            pulse.rejected.fetch_add(1, Relaxed);
            let reason = "the batch's sequence is out of range: sequences count from 1".to_owned();
            let expected = self.newest.map_or(1, |(_, newest)| newest + 1);
            return self.refuse(rejected("malformed", reason, expected, 0), batch, now);
        }
        let newest = self.newest.filter(|(known, _)| *known == epoch).map(|(_, newest)| newest);
        self.newest = Some((epoch, newest.unwrap_or(0)));
        // One that finds no room comes again, and is no backlog because of that.
        let settled = Some((epoch, newest.map_or(sequence, |newest| newest.max(sequence))));
        let mut lost = 0;
        if newest.is_none() && recorder.safe(&self.origin).borrow().as_ref().is_none_or(|safe| safe.epoch != epoch) {
            // The oldest that the agent holds begins an epoch of which nothing is safe here: what came before is not
            // asked for. Said whatever becomes of the batch, so that no later one begins it.
            lost += recorder.sender_holds_from(&self.origin, epoch, sequence);
        }
        if lost_before > 0 {
            let first = sequence.saturating_sub(lost_before).max(1);
            lost += recorder.sender_lost(&self.origin, epoch, first, sequence - 1);
        }
        if lost > 0 {
            pulse.lost.fetch_add(lost, Relaxed);
            counters::lost(lost);
        }
        let checked = decoded.and_then(|batch| check(batch, &self.origin, speaks_for));
        // What comes in its order is mostly new, and the recorder says so as it takes it.
        let may_be_known = checked.is_err() || newest.is_none_or(|newest| sequence <= newest);
        if may_be_known && recorder.has(&self.origin, epoch, sequence) {
            self.newest = settled;
            pulse.duplicates.fetch_add(1, Relaxed);
            counters::batch("duplicate");
            return Verdict::Duplicate;
        }
        if newest.is_some_and(|newest| sequence < newest) && recorder.is_half_full() {
            let reason =
                "what waits for its seal leaves room for new telemetry alone: send the backlog later".to_owned();
            return Verdict::Later(rejected("full", reason, sequence, self.full_retry_ms));
        }
        let after = sequence + 1;
        match checked.map(|batch| recorder.append(batch, now)) {
            Ok(Ok(Appended::New)) => {
                self.newest = settled;
                pulse.batches.fetch_add(1, Relaxed);
                counters::batch("taken");
                Verdict::Taken
            }
            Ok(Ok(Appended::Duplicate)) => {
                self.newest = settled;
                pulse.duplicates.fetch_add(1, Relaxed);
                counters::batch("duplicate");
                Verdict::Duplicate
            }
            Ok(Err(full @ Rejected::Full { .. })) => {
                Verdict::Full(rejected("full", full.to_string(), sequence, self.full_retry_ms))
            }
            Ok(Err(malformed @ Rejected::Malformed { .. })) => {
                // The recorder has settled it.
                self.newest = settled;
                pulse.rejected.fetch_add(1, Relaxed);
                let reason = format!("{} ({})", malformed, malformed.code());
                self.refuse(rejected("malformed", reason, after, 0), batch, now)
            }
            Err(Refused { code, reason }) => {
                self.newest = settled;
                recorder.refuse(&self.origin, epoch, sequence);
                pulse.rejected.fetch_add(1, Relaxed);
                self.refuse(rejected(code, reason, after, 0), batch, now)
            }
        }
    }

    fn refuse(&mut self, rejected: TelemetryRejected, batch: &TelemetryBatch, now: Time) -> Verdict {
        if now.since_ms(self.letters.0) >= 60_000 {
            self.letters = (now, 0);
        }
        self.letters.1 += 1;
        if self.letters.1 > LETTERS_PER_MINUTE {
            counters::limit("dead_letters_per_minute");
            return Verdict::Rejected(rejected, None);
        }
        let refusal = Refusal {
            at: now,
            origin: self.origin.clone(),
            epoch: batch.epoch,
            sequence: batch.sequence,
            code: rejected.code.clone(),
            reason: shown(&rejected.reason),
            batch: self.decoder.whole(batch).encode_to_vec(),
        };
        Verdict::Rejected(rejected, Some(Box::new(refusal)))
    }

    fn decode(&mut self, batch: &TelemetryBatch) -> Result<Batch, Refused> {
        let definition = |d: &aether_proto::v1::SeriesDefinition| {
            let attributes: usize = d.attributes.iter().map(|(k, v)| k.len() + v.len() + 64).sum();
            d.metric.len()
                + d.unit.len()
                + d.subject.as_ref().map_or(0, |s| s.id.len() + s.kind.len())
                + attributes
                + 128
        };
        let sizes: Vec<usize> = batch.dictionary.iter().map(definition).collect();
        let bytes = self.dictionary_bytes.saturating_add(sizes.iter().sum());
        if bytes > self.dictionary_limit || sizes.iter().any(|size| *size > DEFINITION_BYTES) {
            counters::limit("dictionary_bytes");
            return Err(Refused::new(
                "oversized",
                format!(
                    "the stream's series definitions take {bytes} bytes, and {} is the limit, or one takes more than {DEFINITION_BYTES}",
                    self.dictionary_limit
                ),
            ));
        }
        self.dictionary_bytes = bytes;
        if batch.samples.len() > self.batch_bytes {
            counters::limit("batch_bytes");
            // The definitions stay known; the samples go.
            self.decoder.define(&batch.dictionary)?;
        }
        read(&mut self.decoder, &self.origin, batch, self.batch_bytes)
    }
}

/// A batch within its bounds, decoded.
pub(super) fn read(
    decoder: &mut Decoder,
    origin: &NodeId,
    batch: &TelemetryBatch,
    batch_bytes: usize,
) -> Result<Batch, Refused> {
    let size = batch.samples.len();
    if size > batch_bytes {
        let text = format!("the batch has {size} bytes, and {batch_bytes} is the limit: send smaller batches");
        return Err(Refused::new("oversized", text));
    }
    Ok(decoder.decode(origin, batch)?)
}

/// The batch, if all of its subjects are the origin's to speak of.
pub(super) fn check(batch: Batch, origin: &NodeId, speaks_for: impl Fn(&SubjectRef) -> bool) -> Result<Batch, Refused> {
    let mut subjects = batch.series.layout().subjects().chain(batch.events.iter().map(|event| &event.subject));
    if let Some(subject) = subjects.find(|subject| !speaks_for(subject)) {
        let text = format!("{subject} is not {origin}'s to speak of: the batch was not taken");
        return Err(Refused::new("malformed", text));
    }
    drop(subjects);
    Ok(batch)
}
