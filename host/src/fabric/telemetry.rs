//! Telemetry of one session on its way to the recorder: decoded, checked for whose it is, kept in order.
//!
//! A batch is had once and in order. One that comes again is a duplicate; one that comes too early is a gap, unless
//! the agent says that what is missing was lost by its spool; one that will never be acceptable is refused and settled,
//! so that it does not hold up what comes after. What is acknowledged is decided by the recorder alone.

use super::{counters, registry::Pulse};
use aether_core::{id::NodeId, subject::SubjectRef, time::Time};
use aether_proto::{
    telemetry::{DecodeError, Decoder},
    v1::{TelemetryBatch, TelemetryRejected},
};
use aether_recorder::{Appended, Recorder, Rejected};
use std::sync::atomic::Ordering::Relaxed;

/// Bytes of one series definition.
const DEFINITION_BYTES: usize = 8 << 10;

/// The telemetry side of one session.
pub(crate) struct Intake {
    origin: NodeId,
    decoder: Decoder,
    /// Bytes of the definitions that the decoder holds.
    dictionary_bytes: usize,
    /// The epoch and the sequence that should come next.
    next: Option<(u64, u64)>,
    batch_bytes: usize,
    dictionary_limit: usize,
    full_retry_ms: u32,
}

#[derive(Debug, PartialEq)]
pub(crate) enum Verdict {
    Taken,
    /// Had already; the acknowledgement may have got lost.
    Duplicate,
    Rejected(TelemetryRejected),
    /// No room now.
    Full(TelemetryRejected),
}

/// Why a batch is refused for good.
struct Refused {
    code: &'static str,
    reason: String,
}

impl Refused {
    fn new(code: &'static str, reason: impl Into<String>) -> Self {
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
            next: None,
            batch_bytes: settings.batch_bytes,
            dictionary_limit: settings.dictionary_bytes,
            full_retry_ms: settings.full_retry_ms,
        }
    }

    /// Takes one batch. `speaks_for` says whether a subject is this node's to speak of.
    pub(crate) fn take(
        &mut self,
        batch: TelemetryBatch,
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
            return Verdict::Rejected(rejected("malformed", reason, self.next.map_or(1, |(_, next)| next), 0));
        }
        let known = match self.next {
            Some((current, next)) if current == epoch => Some(next),
            _ => {
                let safe = *recorder.safe(&self.origin).borrow();
                safe.filter(|safe| safe.epoch == epoch).map(|safe| safe.sequence.saturating_add(1))
            }
        };
        let first = sequence.saturating_sub(lost_before).max(1);
        match known {
            Some(next) if sequence < next => {
                self.next = Some((epoch, next));
                pulse.duplicates.fetch_add(1, Relaxed);
                counters::batch("duplicate");
                return Verdict::Duplicate;
            }
            Some(next) if first > next => {
                let reason = format!(
                    "batch {next} should come next: send again from there, or say by `lost_before` what the spool no longer holds"
                );
                return Verdict::Rejected(rejected("gap", reason, next, 0));
            }
            Some(_) | None => {}
        }
        // The first of an epoch that is new to this host begins it: what came before it is not asked for.
        let told = sequence.saturating_sub(known.unwrap_or(first));
        if known != Some(sequence) {
            recorder.sender_holds_from(&self.origin, epoch, sequence);
        }
        if told > 0 {
            pulse.lost.fetch_add(told, Relaxed);
            counters::lost(told);
        }
        let after = sequence + 1;
        let checked = decoded.and_then(|batch| {
            let subjects = batch.series.iter().map(|s| &s.key.subject).chain(batch.events.iter().map(|e| &e.subject));
            let mut last: Option<&SubjectRef> = None;
            for subject in subjects {
                if last != Some(subject) && !speaks_for(subject) {
                    let text = format!("{} is not {}'s to speak of: the batch was not taken", subject, self.origin);
                    return Err(Refused::new("malformed", text));
                }
                last = Some(subject);
            }
            Ok(batch)
        });
        match checked.map(|batch| recorder.append(batch, now)) {
            Ok(Ok(Appended::New)) => {
                self.next = Some((epoch, after));
                pulse.batches.fetch_add(1, Relaxed);
                counters::batch("taken");
                Verdict::Taken
            }
            Ok(Ok(Appended::Duplicate)) => {
                self.next = Some((epoch, after));
                pulse.duplicates.fetch_add(1, Relaxed);
                counters::batch("duplicate");
                Verdict::Duplicate
            }
            Ok(Err(full @ Rejected::Full { .. })) => {
                self.next = Some((epoch, sequence));
                Verdict::Full(rejected("full", full.to_string(), sequence, self.full_retry_ms))
            }
            Ok(Err(malformed @ Rejected::Malformed { .. })) => {
                // The recorder has settled it.
                self.next = Some((epoch, after));
                pulse.rejected.fetch_add(1, Relaxed);
                let reason = format!("{} ({})", malformed, malformed.code());
                Verdict::Rejected(rejected("malformed", reason, after, 0))
            }
            Err(Refused { code, reason }) => {
                self.next = Some((epoch, after));
                recorder.sender_holds_from(&self.origin, epoch, after);
                pulse.rejected.fetch_add(1, Relaxed);
                Verdict::Rejected(rejected(code, reason, after, 0))
            }
        }
    }

    fn decode(&mut self, mut batch: TelemetryBatch) -> Result<aether_core::telemetry::Batch, Refused> {
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
            let size = batch.samples.len();
            counters::limit("batch_bytes");
            // The definitions stay known; the samples go.
            batch.samples = Vec::new();
            batch.samples_crc32 = 0;
            self.decoder.decode(&self.origin, batch)?;
            let text =
                format!("the batch has {size} bytes, and {} is the limit: send smaller batches", self.batch_bytes);
            return Err(Refused::new("oversized", text));
        }
        Ok(self.decoder.decode(&self.origin, batch)?)
    }
}
