//! The segments on the object store: their names, the list of them, putting, reading parts of them and removing.
//!
//! A name tells what the file covers and its number, so that a listing is enough to know which files a query needs:
//! `segments/<yyyy>/<mm>/<dd>/<from>-<to>-<number>.parquet`, times in UTC milliseconds, the folder after `from`. One that
//! was merged of others has two numbers, `<first>-<number>`, and stands for all segments with numbers between them.

use crate::{
    Error, counters,
    positions::Ranges,
    segment::{self, Parts, Step, Wanted},
};
use aether_core::time::Time;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use parquet::file::metadata::ParquetMetaData;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

const ROOT: &str = "segments";
const EVIDENCE: &str = "evidence";
/// Read from a file's end at first: enough for the footer of a small fleet's segment.
const TAIL: u64 = 64 << 10;
/// Parts of one file that are fetched at the same time.
const AT_ONCE: usize = 8;
/// Steps in which a footer can be had: its length, itself, its page index, and one to spare.
const FOOTER_STEPS: usize = 4;

/// One segment as its name and its size tell it.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    /// Lower than `number` for one that was merged of others.
    pub(crate) first: u64,
    pub(crate) from: Time,
    pub(crate) to: Time,
    pub(crate) bytes: u64,
    pub(crate) path: Path,
    /// Held by whoever reads it: what was merged into another is removed when nobody does.
    readers: Arc<()>,
}

impl Entry {
    pub(crate) fn new(path: Path, from: Time, to: Time, first: u64, number: u64, bytes: u64) -> Self {
        Self { number, first, from, to, bytes, path, readers: Arc::default() }
    }

    /// Whether some clone of it is held elsewhere.
    pub(crate) fn is_read(&self) -> bool {
        Arc::strong_count(&self.readers) > 1
    }
}

pub(crate) struct Shelf {
    store: Arc<dyn ObjectStore>,
    footers: Mutex<Footers>,
}

/// Footers with their page indexes, by path; those that were not used for longest go first.
struct Footers {
    limit: usize,
    bytes: usize,
    clock: u64,
    known: HashMap<Path, (Arc<ParquetMetaData>, usize, u64)>,
}

impl Footers {
    fn get(&mut self, path: &Path) -> Option<Arc<ParquetMetaData>> {
        self.clock += 1;
        let (footer, _, used) = self.known.get_mut(path)?;
        *used = self.clock;
        Some(Arc::clone(footer))
    }

    fn add(&mut self, path: Path, footer: Arc<ParquetMetaData>) {
        let bytes = footer.memory_size().saturating_add(path.as_ref().len());
        self.forget(&path);
        self.clock += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.known.insert(path, (footer, bytes, self.clock));
        while self.bytes > self.limit {
            let oldest = self.known.iter().min_by_key(|(_, (_, _, used))| *used).map(|(path, _)| path.clone());
            let Some(oldest) = oldest else { break };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, path: &Path) {
        if let Some((_, bytes, _)) = self.known.remove(path) {
            self.bytes = self.bytes.saturating_sub(bytes);
        }
    }
}

/// Year, month and day of a time, after the proleptic Gregorian calendar.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn date(at: Time) -> (i64, i64, i64) {
    let days = at.0.div_euclid(86_400_000) + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

pub(crate) fn path_of(from: Time, to: Time, first: u64, number: u64) -> Path {
    let (year, month, day) = date(from);
    let merged = if first < number { format!("{first:010}-") } else { String::new() };
    Path::from(format!("{ROOT}/{year:04}/{month:02}/{day:02}/{:013}-{:013}-{merged}{number:010}.parquet", from.0, to.0))
}

/// From, to, first number and number.
fn parse(path: &Path) -> Option<(Time, Time, u64, u64)> {
    let name = path.filename()?.strip_suffix(".parquet")?;
    let parts: Option<Vec<u64>> = name.split('-').map(|part| part.parse::<u64>().ok()).collect();
    let (from, to, first, number) = match parts?.as_slice() {
        [from, to, number] => (*from, *to, *number, *number),
        [from, to, first, number] if first < number => (*from, *to, *first, *number),
        _ => return None,
    };
    let (from, to) = (Time(i64::try_from(from).ok()?), Time(i64::try_from(to).ok()?));
    // A file that was moved or renamed by hand is not ours to count or to remove.
    (path_of(from, to, first, number) == *path).then_some((from, to, first, number))
}

/// Parts `entries` into those that stand and those for which a merged one stands. Of two that hold the same, the one
/// that holds more stands.
pub(crate) fn superseded(mut entries: Vec<Entry>) -> (Vec<Entry>, Vec<Entry>) {
    entries.sort_by_key(|entry| (std::cmp::Reverse(entry.number - entry.first), entry.number));
    let mut merged = Ranges::default();
    let (gone, mut stand): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| {
        let gone = merged.holds(entry.first, entry.number);
        if entry.first < entry.number {
            merged.insert(entry.first, entry.number);
        }
        gone
    });
    stand.sort_by(|a, b| (a.number, &a.path).cmp(&(b.number, &b.path)));
    (stand, gone)
}

impl Shelf {
    pub(crate) fn new(store: Arc<dyn ObjectStore>, footer_cache_bytes: usize) -> Self {
        let footers = Footers { limit: footer_cache_bytes, bytes: 0, clock: 0, known: HashMap::new() };
        Self { store, footers: Mutex::new(footers) }
    }

    fn footers(&self) -> std::sync::MutexGuard<'_, Footers> {
        self.footers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All segments, and how many files are none of ours.
    pub(crate) async fn list(&self) -> Result<(Vec<Entry>, u64), Error> {
        let mut entries = Vec::new();
        let mut foreign = 0u64;
        let mut listing = self.store.list(Some(&Path::from(ROOT)));
        while let Some(meta) = listing.try_next().await.map_err(Error::List)? {
            match parse(&meta.location) {
                Some((from, to, first, number)) => {
                    entries.push(Entry::new(meta.location, from, to, first, number, meta.size));
                }
                None => {
                    foreign += 1;
                    counters::unreadable();
                    tracing::warn!(path = %meta.location, "this file is not a segment of the recorder: it is left alone");
                }
            }
        }
        Ok((entries, foreign))
    }

    /// Puts the segment under its name. `false` when that name is taken.
    pub(crate) async fn put(&self, path: &Path, bytes: Bytes) -> Result<bool, Error> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(path, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
            Err(source) => Err(Error::Write { path: path.to_string(), source }),
        }
    }

    /// The segment that is there under a name.
    pub(crate) async fn find(&self, path: Path, from: Time, to: Time, first: u64, number: u64) -> Result<Entry, Error> {
        let meta = self.store.head(&path).await;
        let meta = meta.map_err(|source| Error::Read { path: path.to_string(), source })?;
        Ok(Entry::new(path, from, to, first, number, meta.size))
    }

    /// The whole file.
    pub(crate) async fn get(&self, entry: &Entry) -> Result<Bytes, Error> {
        let read = |source| Error::Read { path: entry.path.to_string(), source };
        let bytes = self.store.get(&entry.path).await.map_err(read)?.bytes().await.map_err(read)?;
        counters::read(count(bytes.len()));
        Ok(bytes)
    }

    async fn part(&self, path: &Path, range: std::ops::Range<u64>) -> Result<(u64, Bytes), Error> {
        let start = range.start;
        let read = |source| Error::Read { path: path.to_string(), source };
        let bytes = self.store.get_range(path, range).await.map_err(read)?;
        counters::read(count(bytes.len()));
        Ok((start, bytes))
    }

    /// Adds what `parts` lacks of `ranges`.
    async fn fetch(&self, path: &Path, ranges: Vec<std::ops::Range<u64>>, parts: &mut Parts) -> Result<(), Error> {
        let missing: Vec<_> = ranges.into_iter().filter(|range| !parts.has(range)).collect();
        let mut fetched = futures::stream::iter(missing).map(|range| self.part(path, range)).buffer_unordered(AT_ONCE);
        while let Some((offset, bytes)) = fetched.try_next().await? {
            parts.add(offset, bytes);
        }
        Ok(())
    }

    /// What the footer says, without reading the rows.
    pub(crate) async fn content(&self, entry: &Entry) -> Result<segment::Content, Error> {
        let foreign = || Error::Foreign("it does not end as a Parquet file".to_owned());
        let start = entry.bytes.saturating_sub(TAIL);
        let (_, mut tail) = self.part(&entry.path, start..entry.bytes).await?;
        let length = segment::footer_bytes(&tail).ok_or_else(foreign)?;
        let wanted = count(length).saturating_add(8);
        if wanted > entry.bytes {
            return Err(foreign());
        }
        if length + 8 > tail.len() {
            tail = self.part(&entry.path, entry.bytes - wanted..entry.bytes).await?.1;
        }
        let footer =
            tail.len().checked_sub(length + 8).map(|from| tail.slice(from..tail.len() - 8)).ok_or_else(foreign)?;
        // A damaged footer may make a decoder panic; that must not take the recorder along.
        tokio::task::spawn_blocking(move || segment::read_footer(&footer)).await.map_err(|_| Error::Stopped)?
    }

    /// The footer with its page index, and what was fetched for it.
    async fn footer(&self, entry: &Entry) -> Result<(Arc<ParquetMetaData>, Parts), Error> {
        let mut parts = Parts::new(entry.bytes);
        if let Some(footer) = self.footers().get(&entry.path) {
            return Ok((footer, parts));
        }
        let (start, tail) = self.part(&entry.path, entry.bytes.saturating_sub(TAIL)..entry.bytes).await?;
        parts.add(start, tail);
        for _ in 0..FOOTER_STEPS {
            let so_far = parts.clone();
            let step = tokio::task::spawn_blocking(move || segment::footer(&so_far)).await;
            match step.map_err(|_| Error::Stopped)?? {
                Step::Done(footer) => {
                    let footer = Arc::from(footer);
                    self.footers().add(entry.path.clone(), Arc::clone(&footer));
                    return Ok((footer, parts));
                }
                Step::Wants(ranges) => self.fetch(&entry.path, ranges, &mut parts).await?,
            }
        }
        Err(Error::Foreign("its footer is not where it should be".to_owned()))
    }

    /// Bytes that reading the wanted rows takes.
    pub(crate) async fn weigh(&self, entry: &Entry, wanted: &Wanted) -> Result<u64, Error> {
        let (footer, _) = self.footer(entry).await?;
        let wanted = wanted.clone();
        let plan = tokio::task::spawn_blocking(move || segment::plan(&footer, &wanted)).await;
        Ok(plan.map_err(|_| Error::Stopped)?.bytes)
    }

    /// The wanted rows; only the pages that can hold some of them are fetched.
    pub(crate) async fn rows(&self, entry: &Entry, wanted: &Wanted) -> Result<segment::Rows, Error> {
        let (footer, mut parts) = self.footer(entry).await?;
        let (of, these) = (Arc::clone(&footer), wanted.clone());
        let plan = tokio::task::spawn_blocking(move || segment::plan(&of, &these)).await.map_err(|_| Error::Stopped)?;
        self.fetch(&entry.path, plan.ranges.clone(), &mut parts).await?;
        let wanted = wanted.clone();
        let rows = tokio::task::spawn_blocking(move || segment::decode(&footer, parts, &plan, &wanted)).await;
        rows.map_err(|_| Error::Stopped)?
    }

    /// What is frozen under this name.
    pub(crate) async fn evidence(&self, name: &str) -> Result<Option<Bytes>, Error> {
        let path = evidence_path(name);
        let read = |source| Error::Read { path: path.to_string(), source };
        match self.store.get(&path).await {
            Ok(found) => Ok(Some(found.bytes().await.map_err(read)?)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(source) => Err(read(source)),
        }
    }

    /// Puts it in the place of what was there.
    pub(crate) async fn put_evidence(&self, name: &str, bytes: Bytes) -> Result<(), Error> {
        let path = evidence_path(name);
        let put = self.store.put(&path, PutPayload::from(bytes)).await;
        put.map(drop).map_err(|source| Error::Write { path: path.to_string(), source })
    }

    /// When each was last written, its name and its bytes.
    pub(crate) async fn list_evidence(&self) -> Result<Vec<(Time, String, u64)>, Error> {
        let mut all = Vec::new();
        let mut listing = self.store.list(Some(&Path::from(EVIDENCE)));
        while let Some(meta) = listing.try_next().await.map_err(Error::List)? {
            let name = meta.location.filename().and_then(|file| file.strip_suffix(".parquet")).map(str::to_owned);
            // Others' files are not ours to count or to remove.
            if let Some(name) = name.filter(|name| evidence_path(name) == meta.location) {
                all.push((Time(meta.last_modified.timestamp_millis()), name, meta.size));
            }
        }
        Ok(all)
    }

    pub(crate) async fn remove_evidence(&self, name: &str) -> Result<(), Error> {
        let path = evidence_path(name);
        match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Remove { path: path.to_string(), source }),
        }
    }

    /// Removing what is gone already is no failure.
    pub(crate) async fn remove(&self, entry: &Entry) -> Result<(), Error> {
        self.footers().forget(&entry.path);
        match self.store.delete(&entry.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Remove { path: entry.path.to_string(), source }),
        }
    }
}

fn evidence_path(name: &str) -> Path {
    Path::from(format!("{EVIDENCE}/{name}.parquet"))
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    #[test]
    fn a_name_tells_what_the_file_covers() {
        let path = path_of(NOW, NOW.plus_ms(9_000), 42, 42);
        assert_eq!(path.as_ref(), "segments/2026/11/21/1795226400000-1795226409000-0000000042.parquet");
        assert_eq!(parse(&path), Some((NOW, NOW.plus_ms(9_000), 42, 42)));
        let merged = path_of(NOW, NOW.plus_ms(9_000), 7, 42);
        let name = "segments/2026/11/21/1795226400000-1795226409000-0000000007-0000000042.parquet";
        assert_eq!(merged.as_ref(), name);
        assert_eq!(parse(&merged), Some((NOW, NOW.plus_ms(9_000), 7, 42)));
        for other in [
            "segments/2026/11/22/1795226400000-1795226409000-0000000042.parquet",
            "segments/2026/11/21/1795226400000-1795226409000-42.parquet",
            "segments/2026/11/21/1795226400000-0000000042.parquet",
            "segments/2026/11/21/1795226400000-1795226409000-0000000042-0000000042.parquet",
            "segments/notes.txt",
        ] {
            assert_eq!(parse(&Path::from(other)), None, "{other}");
        }
    }

    #[test]
    fn a_merged_segment_stands_for_those_it_was_merged_of() {
        let entry = |first, number| Entry::new(path_of(NOW, NOW, first, number), NOW, NOW, first, number, 1);
        let all = [(1, 1), (2, 2), (3, 3), (1, 3), (4, 4), (5, 5), (1, 5), (6, 6), (7, 9)].map(|(a, b)| entry(a, b));
        let (stand, gone) = superseded(all.into());
        let numbers = |all: &[Entry]| all.iter().map(|e| (e.first, e.number)).collect::<Vec<_>>();
        assert_eq!(numbers(&stand), [(1, 5), (6, 6), (7, 9)]);
        assert_eq!(gone.len(), 6);
    }

    #[test]
    fn dates() {
        let days = [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (11_017, (2000, 3, 1)),
            (20_818, (2026, 12, 31)),
        ];
        for (day, expected) in days {
            assert_eq!(date(Time(day * 86_400_000 + 86_399_999)), expected);
        }
    }
}
