//! The threads that connections are served on, with all that is done for one before its answer.
//!
//! Frames of a fleet's telemetry are small and come one by one. To wake a thread for each costs about as much as to take
//! it. So where many come, a thread that found nothing to do rests before it waits for the next: what came meanwhile is
//! taken at once. Network cards moderate their interrupts the same way. In such times an answer may take up to [`REST`]
//! longer for each thing that it waits for; what the control plane does of itself is on other threads, which never rest.

use crate::fabric;
use std::{cell::Cell, io, time::Duration};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::JoinHandle,
    time::Instant,
};

const REST: Duration = Duration::from_millis(2);
/// Frames a second from which on threads rest.
const BUSY: f64 = 500.0;
/// Frames are counted over so long at least.
const COUNTED: Duration = Duration::from_millis(20);

#[derive(Clone, Copy)]
struct Pace {
    since: Instant,
    frames: u64,
    is_busy: bool,
}

impl Pace {
    /// As it is now that `frames` came in all.
    fn at(self, now: Instant, frames: u64) -> Self {
        let passed = now.saturating_duration_since(self.since);
        if passed < COUNTED {
            return self;
        }
        let came = u32::try_from(frames.saturating_sub(self.frames)).unwrap_or(u32::MAX);
        Self { since: now, frames, is_busy: f64::from(came) >= BUSY * passed.as_secs_f64() }
    }
}

pub(super) struct Connections {
    threads: Handle,
    /// Until the end.
    runtime: Option<Runtime>,
}

impl Connections {
    pub(super) fn new() -> io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        threads.enable_all().thread_name("aether-connections").on_thread_park(before_waiting);
        threads.build().map(|runtime| Self { threads: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.threads.spawn(work)
    }
}

impl Drop for Connections {
    /// Nothing is waited for, as where all of a program's threads end with it.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Called by each thread when it found nothing to do.
fn before_waiting() {
    thread_local! {
        static PACE: Cell<Option<Pace>> = const { Cell::new(None) };
    }
    let (now, frames) = (Instant::now(), fabric::frames());
    let pace = PACE.get().unwrap_or(Pace { since: now, frames, is_busy: false }).at(now, frames);
    PACE.set(Some(pace));
    if pace.is_busy {
        std::thread::sleep(REST);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_rest_while_many_frames_come_and_not_after() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let quiet = Pace { since: begin, frames: 0, is_busy: false };
        assert!(!quiet.at(at(5), 100).is_busy, "too short to tell");
        let busy = quiet.at(at(20), 10);
        assert!(busy.is_busy);
        assert!(busy.at(at(39), 10).is_busy);
        assert!(!busy.at(at(40), 19).is_busy);
        assert!(!busy.at(at(10_000), 1_000).is_busy, "100 a second");
    }
}
