//! The recorder's own metrics, by name in one place. Gauges are set at each seal, counters as things happen.

use metrics::{counter, gauge, histogram};

/// Samples taken into the recorder.
const SAMPLES: &str = "aether_recorder_samples_total";
/// Batches that came a second time.
const DUPLICATES: &str = "aether_recorder_duplicate_batches_total";
/// Batches refused, by `code`.
const REJECTED: &str = "aether_recorder_rejected_batches_total";
/// Samples dropped because they were no finite number.
const DROPPED: &str = "aether_recorder_dropped_samples_total";
/// Samples or events that left the hot window before their time, by the `limit` that was hit.
const EVICTED: &str = "aether_recorder_evicted_total";
/// Samples or events that found no room in the hot window; they are sealed all the same.
const HIDDEN: &str = "aether_recorder_hidden_total";
/// Sequences that a sender said it lost.
const LOST: &str = "aether_recorder_lost_batches_total";
/// Seals, by `outcome`.
const SEALS: &str = "aether_recorder_seals_total";
/// Seconds that a seal took, encoding and synced write together.
const SEAL_SECONDS: &str = "aether_recorder_seal_seconds";
/// Segments removed, by the `limit` that was hit.
const REMOVED: &str = "aether_recorder_removed_segments_total";
/// Files in the segments' folder that could not be read as segments.
const UNREADABLE: &str = "aether_recorder_unreadable_segments_total";
/// Rows of segments that could not be read because a page is damaged.
const DAMAGED: &str = "aether_recorder_damaged_rows_total";
/// Parts of history that were frozen as evidence.
const FROZEN: &str = "aether_recorder_frozen_total";
/// Bytes that were read from the store.
const READ: &str = "aether_recorder_read_bytes_total";
/// Merges of segments, by `outcome`.
const COMPACTIONS: &str = "aether_recorder_compactions_total";
/// Seconds that a merge took, reading and synced write together.
const COMPACTION_SECONDS: &str = "aether_recorder_compaction_seconds";
/// Segments that were merged into others.
const COMPACTED: &str = "aether_recorder_compacted_segments_total";
/// Queries that were cut at the byte limit.
const CUT: &str = "aether_recorder_cut_queries_total";
const HOT_SERIES: &str = "aether_recorder_hot_series";
const HOT_BYTES: &str = "aether_recorder_hot_bytes";
const UNSEALED_BYTES: &str = "aether_recorder_unsealed_bytes";
const SEGMENT_BYTES: &str = "aether_recorder_segment_bytes";
const SEGMENTS: &str = "aether_recorder_segments";

pub(crate) fn samples(n: u64) {
    counter!(SAMPLES).increment(n);
}
pub(crate) fn duplicate() {
    counter!(DUPLICATES).increment(1);
}
pub(crate) fn rejected(code: &'static str) {
    counter!(REJECTED, "code" => code).increment(1);
}
pub(crate) fn dropped(n: u64) {
    counter!(DROPPED).increment(n);
}
pub(crate) fn evicted(n: u64, limit: &'static str) {
    counter!(EVICTED, "limit" => limit).increment(n);
}
pub(crate) fn hidden(n: u64) {
    counter!(HIDDEN).increment(n);
}
pub(crate) fn lost(n: u64) {
    counter!(LOST).increment(n);
}
pub(crate) fn sealed(seconds: Option<f64>) {
    counter!(SEALS, "outcome" => if seconds.is_some() { "succeeded" } else { "failed" }).increment(1);
    if let Some(seconds) = seconds {
        histogram!(SEAL_SECONDS).record(seconds);
    }
}
pub(crate) fn removed(limit: &'static str) {
    counter!(REMOVED, "limit" => limit).increment(1);
}
pub(crate) fn unreadable() {
    counter!(UNREADABLE).increment(1);
}
pub(crate) fn damaged(rows: u64) {
    counter!(DAMAGED).increment(rows);
}
pub(crate) fn frozen() {
    counter!(FROZEN).increment(1);
}
pub(crate) fn read(bytes: u64) {
    counter!(READ).increment(bytes);
}
pub(crate) fn compacted(segments: u64, seconds: f64) {
    counter!(COMPACTIONS, "outcome" => "succeeded").increment(1);
    counter!(COMPACTED).increment(segments);
    histogram!(COMPACTION_SECONDS).record(seconds);
}
pub(crate) fn not_compacted() {
    counter!(COMPACTIONS, "outcome" => "failed").increment(1);
}
pub(crate) fn cut() {
    counter!(CUT).increment(1);
}
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(crate) fn levels(series: usize, hot: usize, unsealed: usize, segments: usize, segment_bytes: u64) {
    gauge!(HOT_SERIES).set(series as f64);
    gauge!(HOT_BYTES).set(hot as f64);
    gauge!(UNSEALED_BYTES).set(unsealed as f64);
    gauge!(SEGMENTS).set(segments as f64);
    gauge!(SEGMENT_BYTES).set(segment_bytes as f64);
}
