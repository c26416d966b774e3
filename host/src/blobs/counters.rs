//! The snapshot store's own metrics, by name in one place.

use metrics::{counter, gauge};

/// Bytes of chunks, by `tier`: `hot`, `warm`, `cold`.
const BYTES: &str = "aether_snapshots_bytes";
/// Snapshots, by `tier`, and those whose key is missing as `locked`.
const SNAPSHOTS: &str = "aether_snapshots";
/// Chunks that were read, by `tier`.
const READS: &str = "aether_snapshots_chunk_reads_total";
/// Chunks that were written, by `tier`.
const WRITES: &str = "aether_snapshots_chunk_writes_total";
/// Snapshots that were removed, by `reason`: `count`, `workload`, `age`, `bytes`, `asked`.
const REMOVED: &str = "aether_snapshots_removed_total";
/// Chunks that nobody named any more.
const COLLECTED: &str = "aether_snapshots_chunks_collected_total";
/// Snapshots that went to the cold store.
const COOLED: &str = "aether_snapshots_cooled_total";
/// Chunks that left the hot tier for others.
const EVICTED: &str = "aether_snapshots_hot_evictions_total";
/// Requests to a store that failed for good, by `tier`.
const FAILED: &str = "aether_snapshots_store_failures_total";
/// Objects that were not what they ought to be, by `tier`.
const DAMAGED: &str = "aether_snapshots_damaged_total";

#[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
pub(super) fn bytes(tier: &'static str, bytes: u64) {
    gauge!(BYTES, "tier" => tier).set(bytes as f64);
}
pub(super) fn snapshots(tier: &'static str, n: usize) {
    gauge!(SNAPSHOTS, "tier" => tier).set(u32::try_from(n).unwrap_or(u32::MAX));
}
pub(super) fn read(tier: &'static str) {
    counter!(READS, "tier" => tier).increment(1);
}
pub(super) fn written(tier: &'static str) {
    counter!(WRITES, "tier" => tier).increment(1);
}
pub(super) fn removed(reason: &'static str) {
    counter!(REMOVED, "reason" => reason).increment(1);
}
pub(super) fn collected(n: usize) {
    counter!(COLLECTED).increment(u64::try_from(n).unwrap_or(u64::MAX));
}
pub(super) fn cooled() {
    counter!(COOLED).increment(1);
}
pub(super) fn evicted() {
    counter!(EVICTED).increment(1);
}
pub(super) fn failed(tier: &'static str) {
    counter!(FAILED, "tier" => tier).increment(1);
}
pub(super) fn damaged(tier: &'static str) {
    counter!(DAMAGED, "tier" => tier).increment(1);
}
