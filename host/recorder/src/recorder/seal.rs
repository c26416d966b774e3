//! One seal: what is unsealed becomes one segment, exactly once.
//!
//! What a segment is to hold, and so its name, is settled before it is written, and stays so until it is known to be there.
//! A write that was cut off, or that failed without saying whether it had happened, is thereby found again by the next
//! try; a batch is never in two segments.

use super::{Inner, Known, Sealed, Unsealed, count, lock};
use crate::{
    Error,
    aside::aside,
    positions::EpochRecord,
    segment::{self, Content},
    shelf::{Entry, path_of},
};
use aether_core::{id::NodeId, telemetry::Batch, time::Time};
use foldhash::fast::RandomState;
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Every so many segments, one names the positions of all origins; a start reads footers back to that one.
const COMPLETE_EVERY: u64 = 64;
/// Origins that are told of a seal before others have their turn.
const TOLD_AT_ONCE: usize = 32;
const TOLD_PAUSE: Duration = Duration::from_millis(1);

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
        let Some((mut content, batches)) = self.attempt(now).await? else { return Ok(Sealed::default()) };
        let entry = loop {
            let path = path_of(content.from, content.to, content.number, content.number);
            let (this, rows) = (content.clone(), batches.clone());
            let bytes = aside(move || segment::encode(&rows, &this)).await??;
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

        let these = batches.clone();
        let told: Vec<_> = aside(move || sequences(&these)).await?.into_iter().collect();
        for (turn, few) in told.chunks(TOLD_AT_ONCE).enumerate() {
            if turn > 0 {
                // Each of them is told at once, by a task of its own, maybe on other threads: what else is to be done
                // there has its turn in between.
                tokio::time::sleep(TOLD_PAUSE).await;
            }
            let mut origins = lock(&self.origins);
            for (origin, sequences) in few {
                if let Some(known) = origins.get_mut(origin) {
                    known.origin.settle(sequences);
                }
            }
        }
        // From here on nothing is waited for: a seal that is cut off has either all of this to do again, or none.
        let sealed = Sealed {
            batches: batches.len(),
            samples: content.samples,
            events: content.events,
            bytes: entry.bytes,
            path: Some(entry.path.to_string()),
        };
        {
            let mut index = lock(&self.index);
            if content.complete {
                index.complete = Some(entry.number);
            }
            index.last_sealed = Some(now);
            index.push(entry);
        }
        let gone: Vec<_> = {
            let mut pending = lock(&self.pending);
            *lock(&self.attempt) = None;
            pending.drain(..batches.len()).collect()
        };
        self.unsealed_bytes.fetch_sub(gone.iter().map(|unsealed| unsealed.weight).sum(), super::Relaxed);
        self.unsealed_batches.fetch_sub(batches.len(), super::Relaxed);
        // Letting go of so much takes its time, too.
        drop(tokio::task::spawn_blocking(move || drop((batches, gone))));
        Ok(sealed)
    }

    /// What was to be sealed when the last try did not come to its end, or else all that is unsealed now.
    async fn attempt(&self, now: Time) -> Result<Option<(Content, Vec<Arc<Batch>>)>, Error> {
        let left = lock(&self.attempt).clone();
        if let Some(Attempt { content, batches }) = left {
            return Ok(lock(&self.pending).get(..batches).map(|few| (content, batches_of(few))));
        }
        let batches = batches_of(&lock(&self.pending));
        if batches.is_empty() {
            return Ok(None);
        }
        let (number, complete) = {
            let index = lock(&self.index);
            let due = index.complete.is_none_or(|at| index.next.saturating_sub(at) >= COMPLETE_EVERY);
            (index.next, due)
        };
        let these = batches.clone();
        let pending = aside(move || sequences(&these)).await?;
        let positions = positions(&pending, &lock(&self.origins), complete);
        let these = batches.clone();
        let content = aside(move || content(number, now, &these, complete, positions)).await?;
        *lock(&self.attempt) = Some(Attempt { content: content.clone(), batches: batches.len() });
        Ok(Some((content, batches)))
    }
}

pub(super) fn batches_of(unsealed: &[Unsealed]) -> Vec<Arc<Batch>> {
    unsealed.iter().map(|unsealed| Arc::clone(&unsealed.batch)).collect()
}

/// The epoch and the sequence of each batch, by origin.
fn sequences(batches: &[Arc<Batch>]) -> HashMap<NodeId, Vec<(u64, u64)>> {
    let mut all: HashMap<&NodeId, Vec<(u64, u64)>, RandomState> = HashMap::default();
    for batch in batches {
        all.entry(&batch.origin).or_default().push((batch.epoch, batch.sequence));
    }
    all.into_iter().map(|(origin, sequences)| (origin.clone(), sequences)).collect()
}

/// How far each origin is settled once `pending` are; of origins that have none only where all are to be told.
fn positions(
    pending: &HashMap<NodeId, Vec<(u64, u64)>>,
    origins: &HashMap<NodeId, Known, RandomState>,
    complete: bool,
) -> BTreeMap<NodeId, Vec<EpochRecord>> {
    let mut positions = BTreeMap::new();
    for (id, known) in origins {
        let of_origin = pending.get(id);
        if complete || of_origin.is_some() {
            let record = known.origin.record(of_origin.map_or(&[], Vec::as_slice));
            if !record.is_empty() {
                positions.insert(id.clone(), record);
            }
        }
    }
    positions
}

/// What the footer of the segment of these batches says.
fn content(
    number: u64,
    now: Time,
    batches: &[Arc<Batch>],
    complete: bool,
    positions: BTreeMap<NodeId, Vec<EpochRecord>>,
) -> Content {
    let (from, to) = segment::span(batches).unwrap_or((now, now));
    Content {
        number,
        first: None,
        sealed_at: now,
        from,
        to,
        samples: count(batches.iter().map(|b| b.series.values().len()).sum()),
        events: count(batches.iter().map(|b| b.events.len()).sum()),
        covers: segment::covers(batches),
        complete,
        positions,
    }
}
