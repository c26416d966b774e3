//! Chunks on this machine's disk, beside a store that is elsewhere: what was put or read lately is read from here.
//!
//! Only a cache: it holds what the store holds, sealed as it is there; what is read from it is verified like anything
//! else; and it may be deleted at any time.

use super::{Error, counters, place};
use bytes::Bytes;
use futures::TryStreamExt as _;
use object_store::{ObjectStore, ObjectStoreExt as _, path::Path as Location};
use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
struct Known {
    /// Size and last use.
    objects: BTreeMap<String, (u64, u64)>,
    bytes: u64,
    uses: u64,
}

#[derive(Debug)]
pub(super) struct Hot {
    store: Arc<dyn ObjectStore>,
    limit: u64,
    known: Mutex<Known>,
}

impl Hot {
    /// What a former life left is used again, in no order of use.
    pub(super) async fn open(folder: &Path, limit: u64) -> Result<Self, Error> {
        let store = place::folder(folder)?;
        let mut known = Known::default();
        let mut listed = store.list(None);
        while let Some(meta) = listed.try_next().await? {
            known.bytes += meta.size;
            known.objects.insert(meta.location.to_string(), (meta.size, 0));
        }
        drop(listed);
        let hot = Self { store, limit, known: Mutex::new(known) };
        hot.make_room(0).await;
        Ok(hot)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn bytes(&self) -> u64 {
        self.known().bytes
    }

    pub(super) async fn get(&self, location: &str) -> Option<Bytes> {
        {
            let mut known = self.known();
            known.uses += 1;
            let uses = known.uses;
            known.objects.get_mut(location)?.1 = uses;
        }
        match self.store.get(&Location::from(location)).await {
            Ok(found) => found.bytes().await.ok(),
            Err(_) => {
                self.forget(location);
                None
            }
        }
    }

    /// Keeps it, if there is room for it at all. A cache that fails costs time and nothing else.
    pub(super) async fn put(&self, location: &str, data: &Bytes) {
        let size = u64::try_from(data.len()).unwrap_or(u64::MAX);
        if size > self.limit || self.known().objects.contains_key(location) {
            return;
        }
        self.make_room(size).await;
        if let Err(error) = self.store.put(&Location::from(location), data.clone().into()).await {
            tracing::warn!(%error, "a chunk could not be kept on this machine's disk");
            return;
        }
        let mut known = self.known();
        known.uses += 1;
        let entry = (size, known.uses);
        if known.objects.insert(location.to_owned(), entry).is_none() {
            known.bytes += size;
        }
    }

    pub(super) async fn remove(&self, location: &str) {
        if self.forget(location) {
            // What stays of it is found at the next start.
            let _ = self.store.delete(&Location::from(location)).await;
        }
    }

    fn forget(&self, location: &str) -> bool {
        let mut known = self.known();
        let gone = known.objects.remove(location);
        known.bytes = known.bytes.saturating_sub(gone.map_or(0, |(size, _)| size));
        gone.is_some()
    }

    async fn make_room(&self, size: u64) {
        loop {
            let oldest = {
                let known = self.known();
                if known.bytes.saturating_add(size) <= self.limit {
                    return;
                }
                known.objects.iter().min_by_key(|(_, (_, used))| *used).map(|(at, _)| at.clone())
            };
            let Some(oldest) = oldest else { return };
            counters::evicted();
            self.remove(&oldest).await;
        }
    }
}
