//! `wasi:clocks`: the wall clock stands at the evaluation's time, the monotonic one steps by itself.

use crate::{
    host::State,
    wasi::{
        Moment,
        bindings::wasi::clocks::{monotonic_clock, wall_clock},
        io::Pollable,
    },
};
use wasmtime::component::Resource;

/// How far the monotonic clock goes at each reading, so that whoever waits by reading it comes to an end.
const STEP_NS: u64 = 1_000;
/// Where an evaluation's monotonic clock begins, and where that of an activation stands still: so a component that keeps
/// an instant from its activation never sees time go back.
const EVALUATION_NS: u64 = 3_600_000_000_000;

/// A clock that only its readers and sleepers move.
pub(super) struct Monotonic {
    now_ns: u64,
    maximum_ns: u64,
}

impl Monotonic {
    pub(super) fn new(moment: &Moment<'_>) -> Self {
        match moment {
            Moment::Activation { .. } => Self { now_ns: 0, maximum_ns: EVALUATION_NS },
            Moment::Evaluation { .. } => Self { now_ns: EVALUATION_NS, maximum_ns: u64::MAX },
        }
    }

    fn read(&mut self) -> u64 {
        let now = self.now_ns;
        self.sleep_until(now.saturating_add(STEP_NS));
        now
    }

    pub(super) fn has_come(&self, when_ns: u64) -> bool {
        self.now_ns >= when_ns.min(self.maximum_ns)
    }

    /// Nobody waits: the clock is set forward.
    pub(super) fn sleep_until(&mut self, when_ns: u64) {
        self.now_ns = self.now_ns.max(when_ns.min(self.maximum_ns));
    }
}

impl wall_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        let at_ms = u64::try_from(self.wasi()?.at.0).unwrap_or(0);
        let nanoseconds = u32::try_from(at_ms % 1_000 * 1_000_000).unwrap_or(0);
        Ok(wall_clock::Datetime { seconds: at_ms / 1_000, nanoseconds })
    }

    fn resolution(&mut self) -> wasmtime::Result<wall_clock::Datetime> {
        self.wasi()?;
        Ok(wall_clock::Datetime { seconds: 0, nanoseconds: 1_000_000 })
    }
}

impl monotonic_clock::Host for State {
    fn now(&mut self) -> wasmtime::Result<u64> {
        Ok(self.wasi()?.monotonic.read())
    }

    fn resolution(&mut self) -> wasmtime::Result<u64> {
        self.wasi()?;
        Ok(STEP_NS)
    }

    fn subscribe_instant(&mut self, when: u64) -> wasmtime::Result<Resource<Pollable>> {
        self.wasi()?;
        self.hand(Pollable::At(when))
    }

    fn subscribe_duration(&mut self, when: u64) -> wasmtime::Result<Resource<Pollable>> {
        let begun = self.wasi()?.monotonic.read();
        self.hand(Pollable::At(begun.saturating_add(when)))
    }
}
