//! One seal: what is unsealed becomes one segment, exactly once.
//!
//! What a segment is to hold, and so its name, is settled before it is written, and stays so until it is known to be there.
//! A write that was cut off, or that failed without saying whether it had happened, is thereby found again by the next
//! try; a batch is never in two segments.

use super::{Inner, Known, Sealed, count, lock};
use crate::{
    Error, admission,
    positions::EpochRecord,
    segment::{self, Content},
    shelf::{Entry, path_of},
};
use aether_core::{id::NodeId, telemetry::Batch, time::Time};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Every so many segments, one names the positions of all origins; a start reads footers back to that one.
const COMPLETE_EVERY: u64 = 64;

/// What one segment is to hold.
#[derive(Clone)]
pub(super) struct Attempt {
    content: Content,
    /// The first so many of what is pending.
    batches: usize,
}

impl Inner {
    /// All that is unsealed; what an earlier try was to hold is a segment of its own.
    pub(super) async fn seal(&self, now: Time) -> Result<Sealed, Error> {
        let left = lock(&self.attempt).is_some();
        let first = self.seal_once(now).await?;
        if !left {
            return Ok(first);
        }
        let rest = self.seal_once(now).await?;
        Ok(Sealed {
            batches: first.batches + rest.batches,
            samples: first.samples + rest.samples,
            events: first.events + rest.events,
            bytes: first.bytes + rest.bytes,
            path: rest.path.or(first.path),
        })
    }

    async fn seal_once(&self, now: Time) -> Result<Sealed, Error> {
        let Some((attempt, batches)) = self.attempt(now) else { return Ok(Sealed::default()) };
        let Attempt { mut content, batches: _ } = attempt;
        let entry = loop {
            let path = path_of(content.from, content.to, content.number, content.number);
            let (this, rows) = (content.clone(), batches.clone());
            let bytes = tokio::task::spawn_blocking(move || segment::encode(&rows, &this))
                .await
                .map_err(|_| Error::Stopped)??;
            let (from, to, number) = (content.from, content.to, content.number);
            let size = count(bytes.len());
            if self.shelf.put(&path, bytes).await? {
                break Entry::new(path, from, to, number, number, size);
            }
            let found = self.shelf.find(path, from, to, number, number).await?;
            if self.shelf.content(&found).await.is_ok_and(|there| there == content) {
                break found;
            }
            // Another file has this name: take the next number, and leave that file alone.
            content.number = content.number.saturating_add(1);
            *lock(&self.attempt) = Some(Attempt { content: content.clone(), batches: batches.len() });
        };

        let mut by_epoch: BTreeMap<(&NodeId, u64), Vec<u64>> = BTreeMap::new();
        for batch in &batches {
            by_epoch.entry((&batch.origin, batch.epoch)).or_default().push(batch.sequence);
        }
        {
            let mut origins = lock(&self.origins);
            for ((origin, epoch), sequences) in by_epoch {
                if let Some(known) = origins.get_mut(origin) {
                    known.origin.settle(epoch, &sequences);
                }
            }
            lock(&self.pending).drain(..batches.len());
            *lock(&self.attempt) = None;
        }
        self.unsealed_bytes.fetch_sub(batches.iter().map(|b| admission::weigh(b)).sum(), super::Relaxed);
        self.unsealed_batches.fetch_sub(batches.len(), super::Relaxed);
        let sealed = Sealed {
            batches: batches.len(),
            samples: content.samples,
            events: content.events,
            bytes: entry.bytes,
            path: Some(entry.path.to_string()),
        };
        let mut index = lock(&self.index);
        if content.complete {
            index.complete = Some(entry.number);
        }
        index.last_sealed = Some(now);
        index.push(entry);
        Ok(sealed)
    }

    /// What was to be sealed when the last try did not come to its end, or else all that is unsealed now.
    fn attempt(&self, now: Time) -> Option<(Attempt, Vec<Arc<Batch>>)> {
        let origins = lock(&self.origins);
        let pending = lock(&self.pending);
        let mut attempt = lock(&self.attempt);
        if attempt.is_none() && !pending.is_empty() {
            let (number, complete) = {
                let index = lock(&self.index);
                let due = index.complete.is_none_or(|at| index.next.saturating_sub(at) >= COMPLETE_EVERY);
                (index.next, due)
            };
            let content = content(number, now, &pending, &origins, complete);
            *attempt = Some(Attempt { content, batches: pending.len() });
        }
        let attempt = attempt.clone()?;
        let batches = pending.get(..attempt.batches)?.to_vec();
        Some((attempt, batches))
    }
}

/// What the footer of the segment of these batches says.
fn content(
    number: u64,
    now: Time,
    batches: &[Arc<Batch>],
    origins: &HashMap<NodeId, Known>,
    complete: bool,
) -> Content {
    let mut pending: BTreeMap<&NodeId, Vec<(u64, u64)>> = BTreeMap::new();
    for batch in batches {
        pending.entry(&batch.origin).or_default().push((batch.epoch, batch.sequence));
    }
    let mut positions: BTreeMap<NodeId, Vec<EpochRecord>> = BTreeMap::new();
    for (id, known) in origins {
        let of_origin = pending.get(id);
        if complete || of_origin.is_some() {
            let record = known.origin.record(of_origin.map_or(&[], Vec::as_slice));
            if !record.is_empty() {
                positions.insert(id.clone(), record);
            }
        }
    }
    let (from, to) = segment::span(batches).unwrap_or((now, now));
    Content {
        number,
        first: None,
        sealed_at: now,
        from,
        to,
        samples: count(batches.iter().flat_map(|b| &b.series).map(|s| s.samples.len()).sum()),
        events: count(batches.iter().map(|b| b.events.len()).sum()),
        covers: segment::covers(batches),
        complete,
        positions,
    }
}
