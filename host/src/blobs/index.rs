//! What is in the store, known without asking it: read once, kept in step with every write and removal of this host.
//!
//! So a chunk that is there is not looked for, and whether one may be removed is decided under one lock, while uploads
//! go on. The store belongs to this host alone: what something else puts there is seen at the next start, and what
//! something else removes is an error when it is read.

use super::{Error, StoreTier};
use aether_core::{id::Digest, snapshot::Manifest, time::Time};
use std::collections::{BTreeMap, BTreeSet};

/// A chunk that is kept, by where it lies.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) size: u64,
    pub(super) warm: bool,
    pub(super) cold: bool,
    /// Snapshots that name it, and how many of those are not cold.
    refs: u32,
    warm_refs: u32,
    /// When somebody last said that a manifest will name it.
    claimed: Time,
    /// The number of that word among all.
    word: u64,
    /// The last snapshot that named it was removed.
    freed: bool,
}

/// A snapshot that can be read.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    pub(super) view: super::SnapshotView,
    pub(super) location: String,
    /// Chunks that were not there when the store was read: not counted, and so never to be counted out.
    pub(super) missing: BTreeSet<String>,
}

/// Snapshots that are sealed with a key which this host does not have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize, utoipa::ToSchema)]
pub struct Locked {
    /// The key's id.
    pub key: String,
    pub snapshots: usize,
}

/// What may go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    pub(super) now: Time,
    pub(super) orphan_ms: u64,
    /// Words that were said later protect what they are about.
    pub(super) word: u64,
    /// Since when a checkpoint is under way whose manifest has not come.
    pub(super) uploads_since: Option<Time>,
}

#[derive(Debug)]
pub(super) struct Index {
    chunks: BTreeMap<String, Held>,
    pub(super) snapshots: BTreeMap<Digest, Kept>,
    pub(super) locked: Vec<Locked>,
    /// Copies of chunks that are being removed: nothing may be put in their place meanwhile.
    leaving: BTreeSet<String>,
    words: u64,
    bytes: [u64; 2],
    /// When it was read: what was claimed before is not known any more.
    opened: Time,
}

/// Where the distinct chunks of a manifest lie.
pub(super) fn distinct(
    manifest: &Manifest,
    at: impl Fn(&Digest) -> Result<String, Error>,
) -> Result<BTreeSet<String>, Error> {
    manifest.files.iter().flat_map(|file| &file.chunks).map(|chunk| at(&chunk.digest)).collect()
}

impl Index {
    pub(super) fn new(opened: Time) -> Self {
        let (chunks, snapshots, locked, leaving) = Default::default();
        Self { chunks, snapshots, locked, leaving, words: 0, bytes: [0; 2], opened }
    }

    pub(super) fn bytes(&self, tier: StoreTier) -> u64 {
        self.bytes[tier.number()]
    }

    pub(super) fn word(&self) -> u64 {
        self.words
    }

    /// Notes a copy of a chunk that was found or put.
    pub(super) fn add(&mut self, location: String, size: u64, tier: StoreTier, at: Time) {
        self.words += 1;
        let word = self.words;
        let fresh = Held { size, warm: false, cold: false, refs: 0, warm_refs: 0, claimed: at, word, freed: false };
        let held = self.chunks.entry(location).or_insert(fresh);
        let copy = match tier {
            StoreTier::Warm => &mut held.warm,
            StoreTier::Cold => &mut held.cold,
        };
        if !std::mem::replace(copy, true) {
            self.bytes[tier.number()] += size;
        }
        (held.claimed, held.word, held.freed) = (held.claimed.max(at), word, false);
    }

    pub(super) fn get(&self, location: &str) -> Option<Held> {
        self.chunks.get(location).copied()
    }

    pub(super) fn is_leaving(&self, location: &str) -> bool {
        self.leaving.contains(location)
    }

    /// A manifest will name it: it stays. None if it is not there.
    pub(super) fn claim(&mut self, location: &str, now: Time) -> Option<Held> {
        self.words += 1;
        let word = self.words;
        let held = self.chunks.get_mut(location)?;
        (held.claimed, held.word, held.freed) = (now, word, false);
        Some(*held)
    }

    /// Counts a snapshot's chunks; names the first that is not there, and counts none then.
    pub(super) fn refer(&mut self, chunks: &BTreeSet<String>, cold: bool) -> Result<(), String> {
        if let Some(missing) = chunks.iter().find(|chunk| !self.chunks.contains_key(*chunk)) {
            return Err(missing.clone());
        }
        for chunk in chunks {
            if let Some(held) = self.chunks.get_mut(chunk) {
                held.refs += 1;
                held.warm_refs += u32::from(!cold);
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self, chunks: &BTreeSet<String>, cold: bool) {
        for chunk in chunks {
            if let Some(held) = self.chunks.get_mut(chunk) {
                held.refs = held.refs.saturating_sub(1);
                held.warm_refs = held.warm_refs.saturating_sub(u32::from(!cold));
                held.freed |= held.refs == 0;
            }
        }
    }

    /// Counts a snapshot's chunks as warm again.
    pub(super) fn heat(&mut self, chunks: &BTreeSet<String>) {
        for chunk in chunks {
            if let Some(held) = self.chunks.get_mut(chunk) {
                held.warm_refs += 1;
            }
        }
    }

    /// Counts a snapshot's chunks as cold.
    pub(super) fn cool(&mut self, chunks: &BTreeSet<String>) {
        for chunk in chunks {
            if let Some(held) = self.chunks.get_mut(chunk) {
                held.warm_refs = held.warm_refs.saturating_sub(1);
            }
        }
    }

    /// Bytes of a tier that snapshots name.
    pub(super) fn named_bytes(&self, tier: StoreTier) -> u64 {
        let named = self.chunks.values().filter(|held| held.refs > 0 && held.is_in(tier));
        named.map(|held| held.size).sum()
    }

    /// Takes out what nobody names and nobody will: its copies are leaving until [`Index::left`].
    pub(super) fn sweep(&mut self, sweep: Sweep) -> Vec<(String, Held)> {
        let Sweep { now, orphan_ms, word, uploads_since } = sweep;
        let opened = self.opened;
        let idle = |held: &Held| {
            let old = held.freed || now.since_ms(held.claimed) > orphan_ms;
            held.refs == 0
                && old
                && held.word <= word
                && uploads_since.is_none_or(|since| held.claimed.max(opened) < since)
        };
        let chosen: Vec<_> =
            self.chunks.iter().filter(|(_, held)| idle(held)).map(|(at, held)| (at.clone(), *held)).collect();
        for (location, held) in &chosen {
            self.chunks.remove(location);
            self.leaving.insert(location.clone());
            self.count_out(held, held.warm, held.cold);
        }
        chosen
    }

    /// Whether the warm copy of a chunk is not needed, now that a cold one is there: then it is leaving.
    pub(super) fn drop_warm(&mut self, location: &str) -> bool {
        let Some(held) = self.chunks.get_mut(location) else { return false };
        let over = held.warm && held.cold && held.warm_refs == 0 && held.refs > 0;
        if over {
            held.warm = false;
            self.bytes[0] = self.bytes[0].saturating_sub(held.size);
            self.leaving.insert(location.to_owned());
        }
        over
    }

    /// Chunks that only cold snapshots name and that are not cold yet, of these.
    pub(super) fn to_cool(&self, chunks: &BTreeSet<String>) -> Vec<(String, Held)> {
        let found = chunks.iter().filter_map(|chunk| Some((chunk.clone(), *self.chunks.get(chunk)?)));
        found.filter(|(_, held)| held.warm && held.warm_refs == 0 && held.refs > 0).collect()
    }

    fn count_out(&mut self, held: &Held, warm: bool, cold: bool) {
        for (number, gone) in [warm, cold].into_iter().enumerate() {
            if gone {
                self.bytes[number] = self.bytes[number].saturating_sub(held.size);
            }
        }
    }

    /// A copy that was leaving is gone, or could not be removed and is still there.
    pub(super) fn left(&mut self, location: &str, still: Option<(Held, StoreTier)>) {
        self.leaving.remove(location);
        if let Some((held, tier)) = still {
            self.add(location.to_owned(), held.size, tier, held.claimed);
        }
    }

    /// Those of these that are not there.
    pub(super) fn missing(&self, chunks: &BTreeSet<String>) -> BTreeSet<String> {
        chunks.iter().filter(|chunk| !self.chunks.contains_key(*chunk)).cloned().collect()
    }

    pub(super) fn is_cold(&self, chunks: &BTreeSet<String>) -> bool {
        !chunks.is_empty() && chunks.iter().all(|chunk| self.chunks.get(chunk).is_some_and(|held| !held.warm))
    }
}

impl Held {
    pub(super) fn claimed(&self) -> Time {
        self.claimed
    }

    pub(super) fn is_in(&self, tier: StoreTier) -> bool {
        match tier {
            StoreTier::Warm => self.warm,
            StoreTier::Cold => self.cold,
        }
    }
}
