//! What of the snapshot store can be set, and its bounds.

use super::Error;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Bounds of the snapshot store, and where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Snapshots that are kept. Default 64, 1 to 100,000. The oldest go first; those that are pinned or that an open
    /// incident or an outstanding order needs stay.
    pub snapshots_maximum: usize,
    /// Snapshots of one workload that are kept. Default 16, 1 to 100,000. The oldest go first.
    pub workload_maximum: usize,
    /// How long a snapshot is kept. Default 30 days, 1 min to 10 years; 0: for ever.
    pub age_ms: u64,
    /// Bytes of all chunks in the main store, as they are kept. Default 64 GiB, 16 MiB to 1 PiB. The oldest snapshots go
    /// first; when that makes no room, new chunks are refused as `store.full`.
    pub bytes_maximum: u64,
    /// How long a chunk may wait for its manifest before it is removed. Default 24 h, 1 min to 30 days.
    pub orphan_ms: u64,
    /// Bytes of chunks that are kept on this machine's disk beside a store that is elsewhere. Default 1 GiB, 0 (none) to
    /// 1 TiB. What was used least lately goes first.
    pub hot_bytes: u64,
    /// How often a snapshot is restored as a drill. Default 0 (never), else 1 h to 1 year.
    pub drill_every_ms: u64,
    /// The file with the keys that snapshots are sealed with. None: they are kept as they are, unless the variable
    /// `AETHER_SNAPSHOT_KEYS` has keys.
    pub key_file: Option<PathBuf>,
    /// Where the store is, if not in a folder of `data_dir`.
    pub s3: Option<S3>,
    /// Where snapshots go when they have become old. None: they stay where they are.
    pub cold: Option<Cold>,
}

/// A bucket of S3, or of what speaks like it. What is not set here is taken from the usual variables (`AWS_REGION`,
/// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`, and those of web identity and containers).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3 {
    pub bucket: String,
    /// Below which all keys lie, so that several hosts can share a bucket. Each needs one of its own.
    #[serde(default = "prefix")]
    pub prefix: String,
    pub region: Option<String>,
    /// Of another service than Amazon's, such as `https://s3.example.org`. Plain `http` is taken for loopback alone.
    pub endpoint: Option<String>,
    pub access_key_id: Option<String>,
    /// A file that holds the secret key, and is readable by its owner alone.
    pub secret_access_key_file: Option<PathBuf>,
    /// How long a request is tried again while the service does not answer. Default 20 s, 0 to 10 min.
    #[serde(default = "retry_ms")]
    pub retry_ms: u64,
}

fn prefix() -> String {
    "aether".into()
}

fn retry_ms() -> u64 {
    20_000
}

/// The store of what is seldom needed: a bucket, or a folder on a large and slow disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cold {
    /// How old a snapshot is when it goes there. 1 min to 10 years.
    pub after_ms: u64,
    /// Bytes of all chunks in it. Default 1 TiB, 16 MiB to 1 PiB. The oldest snapshots go first.
    #[serde(default = "cold_bytes")]
    pub bytes_maximum: u64,
    pub folder: Option<PathBuf>,
    pub s3: Option<S3>,
}

fn cold_bytes() -> u64 {
    1 << 40
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            snapshots_maximum: 64,
            workload_maximum: 16,
            age_ms: 30 * 86_400_000,
            bytes_maximum: 64 << 30,
            orphan_ms: 86_400_000,
            hot_bytes: 1 << 30,
            drill_every_ms: 0,
            key_file: None,
            s3: None,
            cold: None,
        }
    }
}

const HOUR_MS: u64 = 3_600_000;
const YEAR_MS: u64 = 365 * 86_400_000;
const TEN_YEARS_MS: u64 = 3_650 * 86_400_000;

impl Settings {
    /// Refuses a value outside its range, by name.
    pub fn check(&self) -> Result<(), Error> {
        let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let mut ranges = vec![
            ("snapshots_maximum", count(self.snapshots_maximum), 1, 100_000),
            ("workload_maximum", count(self.workload_maximum), 1, 100_000),
            ("age_ms", if self.age_ms == 0 { TEN_YEARS_MS } else { self.age_ms }, 60_000, TEN_YEARS_MS),
            ("bytes_maximum", self.bytes_maximum, 16 << 20, 1 << 50),
            ("orphan_ms", self.orphan_ms, 60_000, 30 * 86_400_000),
            ("hot_bytes", self.hot_bytes, 0, 1 << 40),
            ("drill_every_ms", if self.drill_every_ms == 0 { HOUR_MS } else { self.drill_every_ms }, HOUR_MS, YEAR_MS),
        ];
        if let Some(s3) = &self.s3 {
            ranges.push(("s3.retry_ms", s3.retry_ms, 0, 600_000));
        }
        if let Some(cold) = &self.cold {
            ranges.push(("cold.after_ms", cold.after_ms, 60_000, TEN_YEARS_MS));
            ranges.push(("cold.bytes_maximum", cold.bytes_maximum, 16 << 20, 1 << 50));
            ranges.push(("cold.s3.retry_ms", cold.s3.as_ref().map_or(0, |s3| s3.retry_ms), 0, 600_000));
            if cold.folder.is_some() == cold.s3.is_some() {
                return Err(Error::Cold);
            }
        }
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(Error::Setting { name, value, least, most });
            }
        }
        Ok(())
    }
}
