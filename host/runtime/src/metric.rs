//! Names of the metrics that this crate emits through the `metrics` facade, in one place, and the figures of a component.

use aether_core::{decision::Role, id::Digest};
use metrics::{Counter, Histogram, SharedString};
use std::{sync::Arc, time::Duration};

/// Counter. Labels: `component` (short digest), `name`, `role`, `outcome` (`ok` or the fault's kind).
pub const EVALUATIONS: &str = "aether_runtime_evaluations_total";
/// Histogram of fuel used by one evaluation, configuration not included. Labels: `component`, `name`, `role`.
pub const FUEL: &str = "aether_runtime_evaluation_fuel";
/// Histogram of seconds for one evaluation, without the wait for the pool. Labels: `component`, `name`, `role`.
pub const DURATION: &str = "aether_runtime_evaluation_seconds";
/// Counter of limits that were hit. Label `limit`: fuel, deadline, memory, stack, output, log-lines, log-line-bytes,
/// host-calls, wasi-calls, wasi-handles, pool.
pub const LIMIT_HITS: &str = "aether_runtime_limit_hits_total";
/// Counter of compilations, of components and of snapshots. Label `outcome`: `ok` or the error's code.
pub const COMPILATIONS: &str = "aether_runtime_compilations_total";
/// Histogram of seconds for one compilation, the wait for a place included.
pub const COMPILE_SECONDS: &str = "aether_runtime_compile_seconds";
/// Counter of what became of compiled code on disk. Label `outcome`: hit, miss, rejected (not what this host wrote),
/// stored, evicted.
pub const COMPILE_CACHE: &str = "aether_runtime_compile_cache_total";
/// Counter of activations. Label `preparation`: snapshotted, configured-each-time.
pub const ACTIVATIONS: &str = "aether_runtime_activations_total";

/// The figures of one component. What every evaluation counts is looked up once, not in every evaluation: the registry
/// is shared by all threads.
pub(crate) struct Figures {
    component: SharedString,
    name: SharedString,
    role: &'static str,
    answered: Counter,
    fuel: Histogram,
    duration: Histogram,
}

impl Figures {
    pub(crate) fn new(digest: &Digest, name: &str, role: Role) -> Self {
        let (component, name): (Arc<str>, Arc<str>) = (digest.short().into(), name.into());
        let (component, name) = (SharedString::from(component), SharedString::from(name));
        let role = role.world();
        Self {
            answered: metrics::counter!(EVALUATIONS, "component" => component.clone(), "name" => name.clone(), "role" => role, "outcome" => "ok"),
            fuel: metrics::histogram!(FUEL, "component" => component.clone(), "name" => name.clone(), "role" => role),
            duration: metrics::histogram!(DURATION, "component" => component.clone(), "name" => name.clone(), "role" => role),
            component,
            name,
            role,
        }
    }

    pub(crate) fn answered(&self) {
        self.answered.increment(1);
    }

    pub(crate) fn failed(&self, outcome: &'static str) {
        metrics::counter!(EVALUATIONS, "component" => self.component.clone(), "name" => self.name.clone(), "role" => self.role, "outcome" => outcome)
            .increment(1);
    }

    pub(crate) fn cost(&self, fuel: u64, duration: Duration) {
        // Exact up to 2^53, far above any fuel limit.
        #[allow(clippy::cast_precision_loss, reason = "a histogram's value")]
        self.fuel.record(fuel as f64);
        self.duration.record(duration.as_secs_f64());
    }
}
