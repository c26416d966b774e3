//! What bounds the recorder. Each setting has a default and a range; [`Settings::check`] refuses what lies outside.

use crate::Error;
use serde::{Deserialize, Serialize};

/// Bounds of the recorder. Build it from [`Settings::default`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// How far back the hot window reaches. Default 1 h, 1 min to 24 h. Too short and scorers see gaps where they
    /// declared a longer window; too long and `hot_bytes_limit` is what decides.
    pub hot_window_ms: u64,
    /// Samples kept in the hot window per series and origin. Default 7,200, 16 to 100,000.
    pub hot_samples_limit: usize,
    /// Series in the hot window over all subjects. Default 200,000, 1 to 10,000,000. Samples of a series beyond it are
    /// still sealed and safe, but not shown until others have aged out.
    pub hot_series_limit: usize,
    /// Bytes of the hot window. Default 512 MiB, 1 MiB to 1 TiB. When it is reached the oldest samples of all series go
    /// first.
    pub hot_bytes_limit: usize,
    /// Series that one origin may have in the hot window. Default 5,000, 1 to 1,000,000. A batch that would exceed it is
    /// refused: it is the mark of a runaway attribute.
    pub origin_series_limit: usize,
    /// Discrete events kept per subject in the hot window. Default 1,000, 1 to 100,000.
    pub hot_events_limit: usize,
    /// Time between two seals. Default 10 s, 100 ms to 10 min. What an agent's spool has to hold at least; each seal
    /// is one file.
    pub seal_interval_ms: u64,
    /// Unsealed bytes at which [`crate::Recorder::seal_wanted`] asks for a seal before its time. Default 128 MiB, 64 KiB to
    /// 1 GiB. Each series costs once for each seal: the more samples of it there are in one, the less each of them costs.
    pub seal_bytes: usize,
    /// Unsealed bytes at which a batch is answered with `Full`. Default 512 MiB, at least `seal_bytes`, at most 16 GiB.
    pub unsealed_bytes_limit: usize,
    /// Bytes of sealed segments. Default 8 GiB, 1 MiB to 1 PiB. The oldest segments go first.
    pub retain_bytes: u64,
    /// Age at which a segment goes. Default 30 days, 1 h to 10 years.
    pub retain_ms: u64,
    /// How far a sample's time may lie ahead of the host's clock. Default 10 min, 0 to 1 day.
    pub ahead_limit_ms: u64,
    /// Bytes of segments that one query may read. Default 1 GiB, 1 MiB to 1 TiB. A query that needs more says that it
    /// was cut.
    pub query_bytes_limit: u64,
    /// Footers and page indexes of segments kept in memory, in bytes. Default 64 MiB, 1 MiB to 16 GiB. With too few, each
    /// query reads them anew.
    pub footer_cache_bytes: usize,
    /// How often is looked for segments to merge. Default 30 s, 1 s to 1 day.
    pub compact_interval_ms: u64,
    /// How much of the time merging may take, in percent. Default 10, 1 to 100. Too little and files pile up, which makes
    /// queries and starts slow.
    pub compact_share_percent: u32,
    /// Segments of one size that are merged into one. Default 20, 2 to 64. Fewer: fewer files, and each row rewritten
    /// more often.
    pub compact_after: usize,
    /// The span of time that one merged segment covers at most. Default 1 h, 1 min to 7 days.
    pub compact_span_ms: u64,
    /// Bytes of segments that become one. Default 64 MiB, 64 KiB to 1 GiB. Merging takes two to three times as much
    /// memory; a segment that is larger is not merged.
    pub compact_bytes: u64,
    /// Bytes of frozen evidence. Default 256 MiB, 1 MiB to 1 TiB. What was frozen longest ago goes first.
    pub evidence_bytes: u64,
    /// Age at which frozen evidence goes. Default 1 year, 1 h to 10 years.
    pub evidence_retain_ms: u64,
}

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

impl Default for Settings {
    fn default() -> Self {
        Self {
            hot_window_ms: HOUR,
            hot_samples_limit: 7_200,
            hot_series_limit: 200_000,
            hot_bytes_limit: 512 << 20,
            origin_series_limit: 5_000,
            hot_events_limit: 1_000,
            seal_interval_ms: 10_000,
            seal_bytes: 128 << 20,
            unsealed_bytes_limit: 512 << 20,
            retain_bytes: 8 * GIB,
            retain_ms: 30 * DAY,
            ahead_limit_ms: 10 * MINUTE,
            query_bytes_limit: GIB,
            footer_cache_bytes: 64 << 20,
            compact_interval_ms: 30_000,
            compact_share_percent: 10,
            compact_after: 20,
            compact_span_ms: HOUR,
            compact_bytes: 64 * MIB,
            evidence_bytes: 256 * MIB,
            evidence_retain_ms: 365 * DAY,
        }
    }
}

impl Settings {
    /// Refuses a value outside its range, by name.
    pub fn check(&self) -> Result<(), Error> {
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let ranges = [
            ("hot_window_ms", self.hot_window_ms, MINUTE, DAY),
            ("hot_samples_limit", wide(self.hot_samples_limit), 16, 100_000),
            ("hot_series_limit", wide(self.hot_series_limit), 1, 10_000_000),
            ("hot_bytes_limit", wide(self.hot_bytes_limit), MIB, TIB),
            ("origin_series_limit", wide(self.origin_series_limit), 1, 1_000_000),
            ("hot_events_limit", wide(self.hot_events_limit), 1, 100_000),
            ("seal_interval_ms", self.seal_interval_ms, 100, 10 * MINUTE),
            ("seal_bytes", wide(self.seal_bytes), 64 << 10, GIB),
            ("unsealed_bytes_limit", wide(self.unsealed_bytes_limit), wide(self.seal_bytes), 16 * GIB),
            ("retain_bytes", self.retain_bytes, MIB, 1 << 50),
            ("retain_ms", self.retain_ms, HOUR, 3_650 * DAY),
            ("ahead_limit_ms", self.ahead_limit_ms, 0, DAY),
            ("query_bytes_limit", self.query_bytes_limit, MIB, TIB),
            ("footer_cache_bytes", wide(self.footer_cache_bytes), MIB, 16 * GIB),
            ("compact_interval_ms", self.compact_interval_ms, 1_000, DAY),
            ("compact_share_percent", self.compact_share_percent.into(), 1, 100),
            ("compact_after", wide(self.compact_after), 2, 64),
            ("compact_span_ms", self.compact_span_ms, MINUTE, 7 * DAY),
            ("compact_bytes", self.compact_bytes, 64 << 10, GIB),
            ("evidence_bytes", self.evidence_bytes, MIB, TIB),
            ("evidence_retain_ms", self.evidence_retain_ms, HOUR, 3_650 * DAY),
        ];
        for (name, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(Error::Setting { name, value, least, most });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_legal_and_a_value_out_of_range_is_named() {
        Settings::default().check().expect("the default");
        let error = Settings { seal_interval_ms: 1, ..Settings::default() }.check().expect_err("too short");
        assert_eq!(error.to_string(), "recorder setting seal_interval_ms is 1: it must be between 100 and 600000");
        let below = Settings { seal_bytes: 1 << 20, unsealed_bytes_limit: 1 << 19, ..Settings::default() };
        assert!(below.check().is_err());
    }
}
