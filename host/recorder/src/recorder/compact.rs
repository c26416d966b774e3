//! Compaction: neighbouring segments become one, so that an hour is one file and not hundreds.
//!
//! The merged one is written and synced under a name that says which numbers it stands for, and only then are the
//! originals dropped: from the index in one step, and from the store when nobody reads them any more. A crash in between
//! leaves both, and a start removes the originals because of that name. So rows are never lost and never twice.
//!
//! Which ones: of the span of time that still grows, as many of one size as `compact_after` says, so that a row is
//! rewritten few times; of a span that has passed, all there are. A merged one spans at most `compact_span_ms` and comes
//! of at most `compact_bytes`.

use super::{Inner, Recorder, chain, count, lock};
use crate::{
    Error, Settings,
    aside::aside,
    counters,
    segment::{self, Content},
    shelf::{Entry, path_of},
};
use aether_core::time::Time;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Segments that are merged at a time, at most: each has a page of every column in memory.
const AT_ONCE: usize = 64;

/// What one merge did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Compacted {
    /// Segments that became one; 0 when there was nothing to merge.
    pub segments: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
}

impl Recorder {
    /// Merges a few neighbouring segments into one, if there are any that should be. To be called again while it answers
    /// that it did. Takes as long as it takes: how often, and how much of the time, is for the caller to bound. Cancelling
    /// it is as safe as a crash.
    pub async fn compact(&self, now: Time) -> Result<Compacted, Error> {
        let inner = &self.inner;
        let _one = inner.compacting.lock().await;
        // Else a file that nobody knows of could come to overlap what is merged next.
        inner.remove_superseded().await?;
        let Some(originals) = inner.begin_merge(now) else { return Ok(Compacted::default()) };
        let _merging = Merging(inner);
        let began = tokio::time::Instant::now();
        let result = inner.merge(&originals).await;
        match &result {
            Ok(done) => {
                drop(originals);
                // What cannot be removed now is tried again before the next merge, and by the next start.
                drop(inner.remove_superseded().await);
                counters::compacted(count(done.segments), began.elapsed().as_secs_f64());
            }
            Err(_) => counters::not_compacted(),
        }
        inner.report_levels();
        result
    }
}

/// Lets retention have the originals again, however the merge ended.
struct Merging<'a>(&'a Inner);

impl Drop for Merging<'_> {
    fn drop(&mut self) {
        lock(&self.0.index).merging = None;
    }
}

impl Inner {
    fn begin_merge(&self, now: Time) -> Option<Vec<Entry>> {
        let mut index = lock(&self.index);
        let originals = choose(&index.segments, &index.unmergeable, &self.settings, now)?;
        index.merging = Some((originals.first()?.first, originals.last()?.number));
        Some(originals)
    }

    async fn merge(&self, originals: &[Entry]) -> Result<Compacted, Error> {
        let mut files = Vec::with_capacity(originals.len());
        for entry in originals {
            files.push(self.shelf.get(entry).await?);
        }
        // A damaged file may make a decoder panic; that must not take the recorder along.
        let merged = aside(move || segment::merge(&files)).await;
        let (bytes, content) = match merged.unwrap_or_else(|stopped| Err((None, stopped))) {
            Ok(merged) => merged,
            Err((at, error)) => {
                let spoiled = at.map_or(originals, |at| originals.get(at..=at).unwrap_or(originals));
                let mut index = lock(&self.index);
                for entry in spoiled {
                    tracing::warn!(path = %entry.path, error = chain(&error), "a segment cannot be merged: it stays as it is");
                    index.unmergeable.insert(entry.number);
                }
                return Err(error);
            }
        };
        let merged = self.put_merged(bytes, &content, originals).await?;
        let done = Compacted {
            segments: originals.len(),
            bytes_before: originals.iter().map(|entry| entry.bytes).sum(),
            bytes_after: merged.bytes,
        };
        let mut index = lock(&self.index);
        let (gone, mut stand): (Vec<Entry>, Vec<Entry>) = std::mem::take(&mut index.segments)
            .into_iter()
            .partition(|entry| entry.first >= merged.first && entry.number <= merged.number);
        if index.complete.is_some_and(|at| (merged.first..=merged.number).contains(&at)) {
            index.complete = Some(merged.number);
        }
        index.bytes = index.bytes.saturating_add(merged.bytes);
        index.bytes = index.bytes.saturating_sub(gone.iter().map(|entry| entry.bytes).sum());
        let at = stand.partition_point(|entry| entry.number < merged.number);
        stand.insert(at, merged);
        index.segments = stand;
        index.superseded.extend(gone);
        Ok(done)
    }

    /// Puts the merged segment, or finds that it is there already, left by a try that was cut off.
    async fn put_merged(&self, bytes: Bytes, content: &Content, originals: &[Entry]) -> Result<Entry, Error> {
        let first = content.first.unwrap_or(content.number);
        let path = path_of(content.from, content.to, first, content.number);
        let size = count(bytes.len());
        let merged = Entry::new(path.clone(), content.from, content.to, first, content.number, size);
        match self.shelf.put(&path, bytes).await {
            Ok(true) => return Ok(merged),
            Ok(false) => {}
            Err(error) => {
                // It may be there all the same.
                lock(&self.index).superseded.push(merged);
                return Err(error);
            }
        }
        let found = self.shelf.find(path, content.from, content.to, first, content.number).await?;
        match self.shelf.content(&found).await {
            Ok(there) if there == *content => Ok(found),
            other => {
                let why = "another file has the name that the merged segment should have".to_owned();
                let error = other.err().unwrap_or(Error::Foreign(why));
                self.unreadable(&found, &error);
                lock(&self.index).unmergeable.extend(originals.iter().map(|entry| entry.number));
                Err(error)
            }
        }
    }

    /// Removes from the store what was merged into others and is not read any more, and what of a failed merge may be there.
    pub(super) async fn remove_superseded(&self) -> Result<(), Error> {
        let due: Vec<Entry> = {
            let mut index = lock(&self.index);
            let (read, due) = std::mem::take(&mut index.superseded).into_iter().partition(Entry::is_read);
            index.superseded = read;
            due
        };
        let mut result = Ok(());
        for entry in due {
            if let Err(error) = self.shelf.remove(&entry).await {
                tracing::warn!(path = %entry.path, error = chain(&error), "a merged segment's original stays for now");
                lock(&self.index).superseded.push(entry);
                result = Err(error);
            }
        }
        result
    }
}

/// Neighbours, by number, that should become one.
fn choose(segments: &[Entry], unmergeable: &BTreeSet<u64>, settings: &Settings, now: Time) -> Option<Vec<Entry>> {
    let span = i64::try_from(settings.compact_span_ms).unwrap_or(i64::MAX).max(1);
    let passed = now.minus_ms(settings.seal_interval_ms.saturating_mul(2)).0.div_euclid(span);
    // Data that came late does not part its neighbours: it counts to the span that had begun.
    let mut newest = i64::MIN;
    let spans: Vec<(i64, &Entry)> = segments
        .iter()
        .map(|entry| {
            newest = newest.max(entry.to.0.div_euclid(span));
            (newest, entry)
        })
        .collect();
    let mergeable = |entry: &Entry| !unmergeable.contains(&entry.number) && entry.bytes < settings.compact_bytes;
    let runs = spans.chunk_by(|(a, x), (b, y)| a == b && mergeable(x) && mergeable(y));
    for run in runs.filter(|run| run.len() > 1) {
        let entries = || run.iter().map(|(_, entry)| *entry);
        if run.first().is_some_and(|(of, _)| *of < passed) {
            let mut rest = entries().collect::<Vec<_>>();
            while rest.len() > 1 {
                let fitting = fitting(&rest, settings.compact_bytes);
                if fitting > 1 {
                    return Some(rest[..fitting].iter().map(|entry| (*entry).clone()).collect());
                }
                rest.remove(0);
            }
        } else {
            let level = |entry: &Entry| (entry.number - entry.first + 1).ilog(wide(settings.compact_after));
            let all: Vec<&Entry> = entries().collect();
            let of_one_size = all.chunk_by(|a, b| level(a) == level(b));
            for same in of_one_size.filter(|same| same.len() >= settings.compact_after) {
                let fitting = fitting(&same[..settings.compact_after], settings.compact_bytes);
                if fitting > 1 {
                    return Some(same[..fitting].iter().map(|entry| (*entry).clone()).collect());
                }
            }
        }
    }
    None
}

/// How many from the first on are within the bounds of one merge.
fn fitting(entries: &[&Entry], limit: u64) -> usize {
    let mut bytes = 0u64;
    let within = entries.iter().take(AT_ONCE).take_while(|entry| {
        bytes = bytes.saturating_add(entry.bytes);
        bytes <= limit
    });
    within.count()
}

fn wide(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;
    use proptest::prelude::*;

    const HOUR: u64 = 3_600_000;

    fn entry(first: u64, number: u64, from_s: u64, to_s: u64, bytes: u64) -> Entry {
        let (from, to) = (NOW.plus_ms(from_s * 1_000), NOW.plus_ms(to_s * 1_000));
        Entry::new(path_of(from, to, first, number), from, to, first, number, bytes)
    }

    fn chosen(segments: &[Entry], settings: &Settings, now_s: u64) -> Option<(u64, u64)> {
        let all = choose(segments, &BTreeSet::new(), settings, NOW.plus_ms(now_s * 1_000))?;
        Some((all.first()?.first, all.last()?.number))
    }

    #[test]
    fn an_hour_that_grows_waits_for_enough_and_one_that_passed_does_not() {
        let settings = Settings { compact_after: 4, ..Settings::default() };
        let of = |n: u64| (1..=n).map(|i| entry(i, i, i * 10 - 10, i * 10, 1_000)).collect::<Vec<_>>();
        assert_eq!(chosen(&of(3), &settings, 40), None);
        assert_eq!(chosen(&of(4), &settings, 40), Some((1, 4)));
        assert_eq!(chosen(&of(9), &settings, 100), Some((1, 4)), "no more at a time");
        assert_eq!(chosen(&of(3), &settings, 3_700), Some((1, 3)), "the hour is over");
        assert_eq!(chosen(&of(1), &settings, 3_700), None);
        // Merged ones wait for others of their size, and the hour's end takes all.
        let mut levels = vec![entry(1, 4, 0, 40, 3_000)];
        levels.extend((5..8).map(|i| entry(i, i, i * 10 - 10, i * 10, 1_000)));
        assert_eq!(chosen(&levels, &settings, 80), None);
        assert_eq!(chosen(&levels, &settings, 3_700), Some((1, 7)));
    }

    #[test]
    fn bytes_span_and_damage_part_what_is_merged() {
        let settings = Settings { compact_after: 2, compact_bytes: 1 << 20, ..Settings::default() };
        let half = 600 << 10;
        let large: Vec<_> = (1..=4).map(|i| entry(i, i, i, i, if i == 3 { 100 } else { half })).collect();
        assert_eq!(chosen(&large, &settings, 10_000), Some((2, 3)), "two halves are too much");
        let apart = [entry(1, 1, 0, 3_590, 10), entry(2, 2, 3_600, 3_610, 10)];
        assert_eq!(chosen(&apart, &settings, 100_000), None, "not over the end of an hour");
        let all: Vec<_> = (1..=3).map(|i| entry(i, i, i, i, 10)).collect();
        let spoiled = BTreeSet::from([2]);
        assert!(choose(&all, &spoiled, &settings, NOW.plus_ms(100 * HOUR)).is_none());
    }

    proptest! {
        /// Merging comes to an end, with few files, and rewrites each byte few times.
        #[test]
        fn it_ends_with_few_files(seals in 2u64..600, after in 2usize..40) {
            let settings = Settings { compact_after: after, ..Settings::default() };
            let (mut segments, mut rewritten) = (Vec::new(), 0u64);
            let mut merge = |segments: &mut Vec<Entry>, now: u64| -> bool {
                let Some(all) = choose(segments, &BTreeSet::new(), &settings, NOW.plus_ms(now * 1_000)) else { return false };
                let (first, number) = (all[0].first, all[all.len() - 1].number);
                let bytes: u64 = all.iter().map(|e| e.bytes).sum();
                rewritten += bytes;
                let to = all.iter().map(|e| e.to).max().expect("some");
                let merged = Entry::new(path_of(all[0].from, to, first, number), all[0].from, to, first, number, bytes);
                let at = segments.iter().position(|e| e.first == first).expect("there");
                segments.splice(at..at + all.len(), [merged]);
                true
            };
            for i in 1..=seals {
                segments.push(entry(i, i, i * 10 - 10, i * 10 - 1, 1_000));
                while merge(&mut segments, i * 10) {}
            }
            while merge(&mut segments, seals * 10 + 10_000) {}
            prop_assert!(segments.len() as u64 <= seals * 10 / 3_600 + 1, "{} files", segments.len());
            prop_assert!(segments.windows(2).all(|w| w[0].number + 1 == w[1].first));
            let levels = f64::from(u32::try_from(360.min(seals)).expect("small")).log(after as f64).ceil() + 2.0;
            prop_assert!(rewritten as f64 <= seals as f64 * 1_000.0 * levels, "{rewritten} of {seals} in {levels}");
        }
    }
}
