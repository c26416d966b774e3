//! The one place where this crate reads a clock or draws an id, so that a simulator can set both.

use aether_core::time::Time;
use std::time::{SystemTime, UNIX_EPOCH};

/// UTC now. Before 1970 it says 1970.
#[allow(clippy::disallowed_methods, reason = "the one clock of this crate")]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A fresh id that sorts by time: `<prefix>-<UUIDv7 without dashes>`.
#[allow(clippy::disallowed_methods, reason = "the one source of ids of this crate")]
pub fn id(prefix: &str) -> String {
    format!("{prefix}-{}", uuid::Uuid::now_v7().simple())
}

/// Bytes that nobody can guess, for tokens and nonces.
pub fn secret<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}
