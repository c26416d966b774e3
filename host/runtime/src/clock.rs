//! The crate's one clock. Only durations are read from it, for the record; guests never see it.

use std::time::Instant;

/// Reads the monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is the crate's clock module")]
pub(crate) fn now() -> Instant {
    Instant::now()
}
