//! The one place of this crate that reads a clock or draws a random number.

use aether_core::time::Time;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// UTC now.
#[allow(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Measures how long something takes, unmoved by changes of the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    #[allow(clippy::disallowed_methods, reason = "this is the clock module")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
    pub fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// Sixty-two random bits.
#[allow(clippy::disallowed_methods, reason = "this is the module of ids")]
pub fn random() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1 & (u64::MAX >> 2)
}

/// A new id, such as of this instance of the agent.
#[allow(clippy::disallowed_methods, reason = "this is the module of ids")]
pub fn new_id() -> String {
    uuid::Uuid::now_v7().to_string()
}

/// A number that no earlier spool had: the time with eight random bits behind, within what a signed 64-bit column
/// and an exact double both hold.
pub fn new_epoch() -> u64 {
    (u64::try_from(now().0).unwrap_or(0) << 8) | (random() & 0xff)
}

/// `full`, less a random part of up to a half: so that agents that lost the host together do not return together.
pub fn jittered(full: Duration) -> Duration {
    let permille = u32::try_from(random() % 500).unwrap_or(0);
    full.mul_f64(1.0 - f64::from(permille) / 1000.0)
}
