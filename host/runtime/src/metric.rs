//! Names of the metrics that this crate emits through the `metrics` facade, in one place.

/// Counter. Labels: `component` (short digest), `name`, `role`, `outcome` (`ok` or the fault's kind).
pub const EVALUATIONS: &str = "aether_runtime_evaluations_total";
/// Histogram of fuel used by one evaluation, configuration included. Labels: `component`, `name`, `role`.
pub const FUEL: &str = "aether_runtime_evaluation_fuel";
/// Histogram of seconds for one evaluation, without the wait for the pool. Labels: `component`, `name`, `role`.
pub const DURATION: &str = "aether_runtime_evaluation_seconds";
/// Counter of limits that were hit. Label `limit`: fuel, deadline, memory, stack, output, log-lines, log-line-bytes,
/// host-calls, pool.
pub const LIMIT_HITS: &str = "aether_runtime_limit_hits_total";
