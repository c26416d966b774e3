//! What one store may take: memories and tables are totalled, so that many small ones count like a large one.

use aether_core::decision::Limits;
use wasmtime::ResourceLimiter;

/// No component needs more elements in one table; what a pool's slot is sized for.
pub(crate) const TABLE_ELEMENTS: usize = 20_000;
/// What a table's element costs.
const ELEMENT_BYTES: usize = size_of::<usize>();

/// Which limit an evaluation ran into, for the fault and the metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hit {
    Memory,
    LogLines,
    HostCalls,
    WasiCalls,
    WasiHandles,
}

/// Totals the memories and tables of a store.
#[derive(Debug)]
pub(crate) struct Meter {
    maximum_bytes: usize,
    used_bytes: usize,
    peak_bytes: usize,
    hit: Option<Hit>,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        let maximum_bytes = usize::try_from(limits.memory_bytes).unwrap_or(usize::MAX);
        Self { maximum_bytes, used_bytes: 0, peak_bytes: 0, hit: None }
    }

    /// The most that was in use at one time.
    pub(crate) fn peak_bytes(&self) -> u64 {
        self.peak_bytes as u64
    }

    /// From here on nothing is a limit: what follows is the host's own doing.
    pub(crate) fn lift(&mut self) {
        self.maximum_bytes = usize::MAX;
    }

    pub(crate) fn hit(&self) -> Option<Hit> {
        self.hit
    }

    pub(crate) fn note(&mut self, hit: Hit) {
        self.hit = Some(hit);
    }

    fn grow(&mut self, current: usize, desired: usize, what: &str) -> wasmtime::Result<bool> {
        let total = self.used_bytes.saturating_sub(current).saturating_add(desired);
        if total > self.maximum_bytes {
            self.hit = Some(Hit::Memory);
            // An error traps at once. To answer -1 instead would let a guest go on in a state that no author tested.
            return Err(wasmtime::format_err!(
                "growing a {what} to {desired} bytes would bring the total to {total}, over the limit of {}",
                self.maximum_bytes
            ));
        }
        self.used_bytes = total;
        self.peak_bytes = self.peak_bytes.max(total);
        Ok(true)
    }
}

impl ResourceLimiter for Meter {
    fn memory_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(current, desired, "memory")
    }

    fn table_growing(&mut self, current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS {
            self.hit = Some(Hit::Memory);
            return Err(wasmtime::format_err!("a table of {desired} elements is over the limit of {TABLE_ELEMENTS}"));
        }
        self.grow(current.saturating_mul(ELEMENT_BYTES), desired.saturating_mul(ELEMENT_BYTES), "table")
    }
}
