//! The one place of this crate that reads a clock or draws a random number.

use aether_core::time::Time;
use std::{
    cell::RefCell,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Where time and randomness come from, in the stead of the machine's.
pub trait Source: Send + Sync {
    fn now(&self) -> Time;
    fn random(&self) -> u64;
}

thread_local! {
    static SOURCE: RefCell<Option<Arc<dyn Source>>> = const { RefCell::new(None) };
}

/// From now on this thread has its time and randomness from there; with none, from the machine again.
pub fn set_source(source: Option<Arc<dyn Source>>) {
    SOURCE.set(source);
}

/// Whether this thread has its time from elsewhere.
pub(crate) fn is_simulated() -> bool {
    SOURCE.with_borrow(Option::is_some)
}

fn source() -> Option<Arc<dyn Source>> {
    SOURCE.with_borrow(Clone::clone)
}

/// UTC now.
#[allow(clippy::disallowed_methods, reason = "this is the clock module")]
pub fn now() -> Time {
    if let Some(source) = source() {
        return source.now();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Nanoseconds by the clock that the kernel's own records are written by (CLOCK_MONOTONIC).
pub(crate) fn monotonic_ns() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let (seconds, ns) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    seconds * 1_000_000_000 + ns
}

/// Measures how long something takes, unmoved by changes of the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(tokio::time::Instant);

impl Stopwatch {
    pub fn start() -> Self {
        Self(tokio::time::Instant::now())
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
    let random = source().map_or_else(|| uuid::Uuid::now_v7().as_u64_pair().1, |source| source.random());
    random & (u64::MAX >> 2)
}

/// A new id, such as of this instance of the agent.
#[allow(clippy::disallowed_methods, reason = "this is the module of ids")]
pub fn new_id() -> String {
    let uuid = match source() {
        None => uuid::Uuid::now_v7(),
        Some(source) => uuid::Uuid::from_u64_pair(source.random(), source.random()),
    };
    uuid.to_string()
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
