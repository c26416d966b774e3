//! The fabric's own metrics, by name in one place.

use metrics::{counter, gauge};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Of this process, whoever takes them: a level for its threads, no metric.
static FRAMES: AtomicU64 = AtomicU64::new(0);

/// Live sessions.
const SESSIONS: &str = "aether_fabric_sessions";
/// Sessions that ended, by `code`.
const ENDED: &str = "aether_fabric_sessions_ended_total";
/// Streams that were not let in, by `code`.
const REFUSED: &str = "aether_fabric_refused_total";
/// Batches of telemetry, by `result`: `taken`, `duplicate`, or why it was rejected.
const BATCHES: &str = "aether_fabric_batches_total";
/// What became of refused batches, by `result`: `kept`, `told` (too large to be kept whole), `known`, `failed`, `replayed`,
/// `replayed_before`, `replay_refused`.
const DEAD_LETTERS: &str = "aether_fabric_dead_letters_total";
/// Dead letters that went to make room or for their age.
const DEAD_LETTERS_EVICTED: &str = "aether_fabric_dead_letters_evicted_total";
/// Batches that agents' spools dropped.
const LOST: &str = "aether_fabric_lost_batches_total";
/// Payloads that were not taken, by `payload`.
const UNSUPPORTED: &str = "aether_fabric_unsupported_total";
/// What agents said of orders, by `state`; `dispatched` for those sent.
const ORDERS: &str = "aether_fabric_orders_total";
/// Parts of snapshots, by `part` (`chunk`, `manifest`, `read`) and `result` (`ok` or the error's code).
const SNAPSHOTS: &str = "aether_fabric_snapshot_parts_total";
/// Limits that were hit, by `limit`.
const LIMITS: &str = "aether_fabric_limits_total";

pub(crate) fn sessions(n: usize) {
    gauge!(SESSIONS).set(u32::try_from(n).unwrap_or(u32::MAX));
}
pub(crate) fn ended(code: &'static str) {
    counter!(ENDED, "code" => code).increment(1);
}
pub(crate) fn refused(code: &'static str) {
    counter!(REFUSED, "code" => code).increment(1);
}
/// Batches of telemetry that came since the start, whatever became of them.
pub(crate) fn frames() -> u64 {
    FRAMES.load(Relaxed)
}

pub(crate) fn batch(result: &'static str) {
    FRAMES.fetch_add(1, Relaxed);
    counter!(BATCHES, "result" => result).increment(1);
}
pub(crate) fn dead_letter(result: &'static str) {
    counter!(DEAD_LETTERS, "result" => result).increment(1);
}
pub(crate) fn dead_letters_evicted(n: u64) {
    counter!(DEAD_LETTERS_EVICTED).increment(n);
}
pub(crate) fn lost(n: u64) {
    counter!(LOST).increment(n);
}
pub(crate) fn unsupported(payload: &'static str) {
    counter!(UNSUPPORTED, "payload" => payload).increment(1);
}
pub(crate) fn order(state: &'static str) {
    counter!(ORDERS, "state" => state).increment(1);
}
pub(crate) fn snapshot(part: &'static str, result: &'static str) {
    counter!(SNAPSHOTS, "part" => part, "result" => result).increment(1);
}
pub(crate) fn limit(limit: &'static str) {
    counter!(LIMITS, "limit" => limit).increment(1);
}
