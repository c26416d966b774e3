//! The crate's one clock. Durations are read from it, for the record, and the age of cached files; guests never see it.

use std::time::{Instant, SystemTime};

/// Reads the monotonic clock.
#[allow(clippy::disallowed_methods, reason = "this is the crate's clock module")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Reads the system's clock.
#[allow(clippy::disallowed_methods, reason = "this is the crate's clock module")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}
