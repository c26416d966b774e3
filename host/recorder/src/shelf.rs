//! The segments on the object store: their names, the list of them, putting, getting and removing.
//!
//! A name tells what the file covers and its number, so that a listing is enough to know which files a query needs:
//! `segments/<yyyy>/<mm>/<dd>/<from>-<to>-<number>.parquet`, times in UTC milliseconds, the folder after `from`.

use crate::{Error, counters, segment};
use aether_core::time::Time;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, path::Path};
use std::sync::Arc;

const ROOT: &str = "segments";
/// Read from a file's end at first: enough for the footer of a small fleet's segment.
const TAIL: u64 = 64 << 10;

/// One segment as its name and its size tell it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Entry {
    pub(crate) number: u64,
    pub(crate) from: Time,
    pub(crate) to: Time,
    pub(crate) bytes: u64,
    pub(crate) path: Path,
}

pub(crate) struct Shelf {
    store: Arc<dyn ObjectStore>,
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

pub(crate) fn path_of(from: Time, to: Time, number: u64) -> Path {
    let (year, month, day) = date(from);
    Path::from(format!("{ROOT}/{year:04}/{month:02}/{day:02}/{:013}-{:013}-{number:010}.parquet", from.0, to.0))
}

fn parse(path: &Path) -> Option<(Time, Time, u64)> {
    let name = path.filename()?.strip_suffix(".parquet")?;
    let mut parts = name.split('-').map(|part| part.parse::<u64>().ok());
    let (from, to, number) = (parts.next()??, parts.next()??, parts.next()??);
    let (from, to) = (Time(i64::try_from(from).ok()?), Time(i64::try_from(to).ok()?));
    // A file that was moved or renamed by hand is not ours to count or to remove.
    (parts.next().is_none() && path_of(from, to, number) == *path).then_some((from, to, number))
}

impl Shelf {
    pub(crate) fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { store }
    }

    /// All segments by number, and how many files are none of ours.
    pub(crate) async fn list(&self) -> Result<(Vec<Entry>, u64), Error> {
        let mut entries = Vec::new();
        let mut foreign = 0u64;
        let mut listing = self.store.list(Some(&Path::from(ROOT)));
        while let Some(meta) = listing.try_next().await.map_err(Error::List)? {
            match parse(&meta.location) {
                Some((from, to, number)) => {
                    entries.push(Entry { number, from, to, bytes: meta.size, path: meta.location })
                }
                None => {
                    foreign += 1;
                    counters::unreadable();
                    tracing::warn!(path = %meta.location, "this file is not a segment of the recorder: it is left alone");
                }
            }
        }
        entries.sort();
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

    pub(crate) async fn get(&self, entry: &Entry) -> Result<Bytes, Error> {
        let read = |source| Error::Read { path: entry.path.to_string(), source };
        self.store.get(&entry.path).await.map_err(read)?.bytes().await.map_err(read)
    }

    /// What the footer says, without reading the rows.
    pub(crate) async fn content(&self, entry: &Entry) -> Result<segment::Content, Error> {
        let read = |source| Error::Read { path: entry.path.to_string(), source };
        let foreign = || Error::Foreign("it does not end as a Parquet file".to_owned());
        let start = entry.bytes.saturating_sub(TAIL);
        let mut tail = self.store.get_range(&entry.path, start..entry.bytes).await.map_err(read)?;
        let length = segment::footer_bytes(&tail).ok_or_else(foreign)?;
        let wanted = u64::try_from(length).unwrap_or(u64::MAX).saturating_add(8);
        if wanted > entry.bytes {
            return Err(foreign());
        }
        if length + 8 > tail.len() {
            tail = self.store.get_range(&entry.path, entry.bytes - wanted..entry.bytes).await.map_err(read)?;
        }
        let footer =
            tail.len().checked_sub(length + 8).map(|from| tail.slice(from..tail.len() - 8)).ok_or_else(foreign)?;
        // A damaged footer may make a decoder panic; that must not take the recorder along.
        tokio::task::spawn_blocking(move || segment::read_footer(&footer)).await.map_err(|_| Error::Stopped)?
    }

    pub(crate) async fn rows(&self, entry: &Entry, wanted: &segment::Wanted) -> Result<segment::Rows, Error> {
        let bytes = self.get(entry).await?;
        let wanted = wanted.clone();
        tokio::task::spawn_blocking(move || segment::decode(bytes, &wanted)).await.map_err(|_| Error::Stopped)?
    }

    /// Removing what is gone already is no failure.
    pub(crate) async fn remove(&self, entry: &Entry) -> Result<(), Error> {
        match self.store.delete(&entry.path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(source) => Err(Error::Remove { path: entry.path.to_string(), source }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::NOW;

    #[test]
    fn a_name_tells_what_the_file_covers() {
        let path = path_of(NOW, NOW.plus_ms(9_000), 42);
        assert_eq!(path.as_ref(), "segments/2026/11/21/1795226400000-1795226409000-0000000042.parquet");
        assert_eq!(parse(&path), Some((NOW, NOW.plus_ms(9_000), 42)));
        for other in [
            "segments/2026/11/22/1795226400000-1795226409000-0000000042.parquet",
            "segments/2026/11/21/1795226400000-1795226409000-42.parquet",
            "segments/2026/11/21/1795226400000-0000000042.parquet",
            "segments/notes.txt",
        ] {
            assert_eq!(parse(&Path::from(other)), None, "{other}");
        }
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
