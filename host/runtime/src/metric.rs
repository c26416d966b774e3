//! Names of the metrics that this crate emits through the `metrics` facade, in one place.

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
