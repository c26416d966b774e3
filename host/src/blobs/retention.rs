//! What does not stay: snapshots beyond the limits, chunks that nobody names, and what goes to the cold store.
//!
//! Uploads go on meanwhile. A chunk goes only if no snapshot names it, nobody has claimed it since this began, and no
//! checkpoint is under way that may have claimed it before; while its object is being removed, a new upload of the same
//! chunk waits.

use super::{
    AT_ONCE, Blobs, Error, StoreTier, chunk_at, counters,
    index::{Sweep, distinct},
};
use aether_core::{
    id::{Digest, SnapshotId, WorkloadId},
    time::Time,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::collections::{BTreeMap, BTreeSet};

/// What must stay, whatever the limits say.
#[derive(Clone, Debug, Default)]
pub struct Needed {
    pub manifests: BTreeSet<Digest>,
    pub snapshots: BTreeSet<SnapshotId>,
    /// The oldest checkpoint that is under way.
    pub uploads_since: Option<Time>,
}

impl Needed {
    pub fn has(&self, view: &super::SnapshotView) -> bool {
        self.manifests.contains(&view.manifest) || self.snapshots.contains(&view.snapshot)
    }
}

/// A moment: what is claimed after it stays.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// What a round of [`Blobs::retain`] did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Removed.
    pub snapshots: usize,
    pub chunks: usize,
    pub bytes: u64,
    /// Moved to the cold store.
    pub cooled: usize,
}

impl Blobs {
    /// Removes a snapshot; its chunks go with the next [`Blobs::retain`], unless others share them.
    pub async fn delete_snapshot(&self, manifest: &Digest) -> Result<(), Error> {
        self.forget(manifest, "asked").await
    }

    async fn forget(&self, digest: &Digest, reason: &'static str) -> Result<(), Error> {
        let (kept, chunks) = match self.find_manifest(digest).await {
            Ok((kept, key, _, manifest)) => (kept, distinct(&manifest, |digest| chunk_at(key, digest))?),
            // Damaged since: which chunks it named is known again at the next start.
            Err(Error::Manifest(_)) => {
                let kept = self.index().await?.snapshots.get(digest).cloned();
                (kept.ok_or_else(|| Error::Missing(digest.clone()))?, BTreeSet::new())
            }
            Err(error) => return Err(error),
        };
        self.remove(StoreTier::Warm, &kept.location).await?;
        let mut index = self.index().await?;
        if let Some(kept) = index.snapshots.remove(digest) {
            let counted = chunks.difference(&kept.missing).cloned().collect();
            index.release(&counted, kept.view.tier == StoreTier::Cold);
        }
        counters::removed(reason);
        tracing::info!(manifest = %digest, snapshot = %kept.view.snapshot, reason, "a snapshot was removed");
        self.tell(&index);
        Ok(())
    }

    /// To be taken before it is seen what is needed.
    pub async fn mark(&self) -> Result<Mark, Error> {
        Ok(Mark(self.index().await?.word()))
    }

    /// Removes the oldest snapshots beyond the limits of age, count (of a workload and in all) and bytes, except what
    /// is needed; then chunks that nobody names; then moves what has become old.
    pub async fn retain(&self, mark: Mark, needed: &Needed, now: Time) -> Result<Retained, Error> {
        let mut done = Retained::default();
        let settings = &self.inner.settings;
        for (digest, reason) in self.surplus(needed, now).await? {
            self.forget(&digest, reason).await?;
            done.snapshots += 1;
        }
        let limits = [
            (StoreTier::Warm, settings.bytes_maximum),
            (StoreTier::Cold, settings.cold.as_ref().map_or(u64::MAX, |cold| cold.bytes_maximum)),
        ];
        for (tier, limit) in limits {
            while self.index().await?.named_bytes(tier) > limit {
                let oldest =
                    self.snapshots().await?.into_iter().rev().find(|view| view.tier == tier && !needed.has(view));
                let Some(oldest) = oldest else { break };
                self.forget(&oldest.manifest, "bytes").await?;
                done.snapshots += 1;
            }
        }
        self.collect(needed, now, mark, &mut done).await?;
        if let Some(cold) = &settings.cold {
            let old = |view: &super::SnapshotView| now.since_ms(view.taken_at) > cold.after_ms && !needed.has(view);
            let views = self.snapshots().await?;
            for view in views.into_iter().rev().filter(|view| view.tier == StoreTier::Warm && old(view)) {
                if self.index().await?.bytes(StoreTier::Cold) >= cold.bytes_maximum {
                    break;
                }
                self.cool(&view.manifest).await?;
                done.cooled += 1;
            }
        }
        let index = self.index().await?;
        self.tell(&index);
        Ok(done)
    }

    /// By age and count. What is needed counts, and stays.
    async fn surplus(&self, needed: &Needed, now: Time) -> Result<Vec<(Digest, &'static str)>, Error> {
        let settings = &self.inner.settings;
        let (mut count, mut of_workload) = (0, BTreeMap::<WorkloadId, usize>::new());
        let mut surplus = Vec::new();
        for view in self.snapshots().await? {
            let same = of_workload.entry(view.workload.clone()).or_default();
            let old = settings.age_ms > 0 && now.since_ms(view.taken_at) > settings.age_ms;
            let reason = if old {
                Some("age")
            } else if *same >= settings.workload_maximum {
                Some("workload")
            } else if count >= settings.snapshots_maximum {
                Some("count")
            } else {
                None
            };
            match reason.filter(|_| !needed.has(&view)) {
                Some(reason) => surplus.push((view.manifest, reason)),
                None => {
                    count += 1;
                    *same += 1;
                }
            }
        }
        Ok(surplus)
    }

    async fn collect(&self, needed: &Needed, now: Time, mark: Mark, done: &mut Retained) -> Result<(), Error> {
        let sweep =
            Sweep { now, orphan_ms: self.inner.settings.orphan_ms, word: mark.0, uploads_since: needed.uploads_since };
        let gone = self.index().await?.sweep(sweep);
        let mut removals = stream::iter(gone)
            .map(async |(location, held)| {
                let mut failure = None;
                for tier in StoreTier::ALL.into_iter().filter(|tier| held.is_in(*tier)) {
                    let removed = self.remove(tier, &location).await;
                    let still = removed.is_err().then_some((held, tier));
                    self.index().await?.left(&location, still);
                    failure = failure.or(removed.err());
                }
                self.inner.left.notify_waiters();
                if let Some(hot) = &self.inner.hot {
                    hot.remove(&location).await;
                }
                failure.map_or(Ok(held.size), Err)
            })
            .buffer_unordered(AT_ONCE);
        // All are tried, so that none stays marked as leaving; the first failure is told.
        let mut failure = None;
        while let Some(removed) = removals.next().await {
            match removed {
                Ok(size) => {
                    done.chunks += 1;
                    done.bytes += size;
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        counters::collected(done.chunks);
        failure.map_or(Ok(()), Err)
    }

    /// Moves a snapshot's chunks to the cold store, but for those that a warm one names as well: each is written there
    /// before it is removed here, so at every moment one whole copy is there.
    async fn cool(&self, digest: &Digest) -> Result<(), Error> {
        let (kept, key, _, manifest) = self.find_manifest(digest).await?;
        let mut chunks = distinct(&manifest, |digest| chunk_at(key, digest))?;
        chunks.retain(|chunk| !kept.missing.contains(chunk));
        let to_cool = {
            let mut index = self.index().await?;
            let Some(kept) = index.snapshots.get_mut(digest) else { return Ok(()) };
            if kept.view.tier == StoreTier::Warm {
                kept.view.tier = StoreTier::Cold;
                index.cool(&chunks);
            }
            index.to_cool(&chunks)
        };
        let moved = stream::iter(to_cool)
            .map(async |(location, held)| {
                if !held.cold {
                    let Some(data) = self.fetch(StoreTier::Warm, &location).await? else { return Ok(()) };
                    self.write(StoreTier::Cold, &location, data).await?;
                    counters::written("cold");
                    let mut index = self.index().await?;
                    if index.get(&location).is_some() {
                        index.add(location.clone(), held.size, StoreTier::Cold, held.claimed());
                    }
                }
                if self.index().await?.drop_warm(&location) {
                    let removed = self.remove(StoreTier::Warm, &location).await;
                    let still = removed.is_err().then_some((held, StoreTier::Warm));
                    self.index().await?.left(&location, still);
                    self.inner.left.notify_waiters();
                    removed?;
                }
                Ok(())
            })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await;
        if let Err(error) = moved {
            // What is there already stays there; the rest is moved by the next round.
            let mut index = self.index().await?;
            if let Some(kept) = index.snapshots.get_mut(digest) {
                kept.view.tier = StoreTier::Warm;
                index.heat(&chunks);
            }
            return Err(error);
        }
        counters::cooled();
        tracing::info!(manifest = %digest, "a snapshot went to the cold store");
        Ok(())
    }
}
