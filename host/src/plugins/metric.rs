//! Names of the metrics of slots, in one place. `component` is the short digest, `name` the component's own.

/// Counter. Labels: `slot`, `component`, `name`, `stage`.
pub const EVALUATIONS: &str = "aether_slot_evaluations_total";
/// Counter. Labels: `slot`, `component`, `name`, `kind`.
pub const FAULTS: &str = "aether_slot_faults_total";
/// Histogram of fuel. Labels: `slot`, `component`, `name`.
pub const FUEL: &str = "aether_slot_evaluation_fuel";
/// Histogram of seconds. Labels: `slot`, `component`, `name`.
pub const DURATION: &str = "aether_slot_evaluation_seconds";
/// Gauge: the most that one evaluation took at the entry's present stage. Labels: `slot`, `component`, `name`.
pub const MEMORY: &str = "aether_slot_memory_high_water_bytes";
/// Counter. Labels: `slot`, `component`, `name`.
pub const LOG_LINES: &str = "aether_slot_log_lines_total";
/// Counter of answers of shadows that were compared. Labels: `slot`, `component`, `name`, `deed` (`same` or `another`).
pub const COMPARISONS: &str = "aether_slot_comparisons_total";
/// Counter of questions that no shadow was asked, because too many waited. Labels: `slot`, `name`.
pub const SHADOWS_DROPPED: &str = "aether_slot_shadows_dropped_total";
/// Gauge. Label: `slot`.
pub const GENERATION: &str = "aether_slot_generation";
/// Counter of new generations. Labels: `slot`, `change` (`seed`, `add`, `promote`, `retire`, `roll_back`, `flag`).
pub const CHANGES: &str = "aether_slot_changes_total";
/// Counter of entries that the host took out, or flagged, by itself. Labels: `slot`, `breach`.
pub const TAKEN_OUT: &str = "aether_slot_taken_out_total";

/// Upper bounds of the fuel histogram: from an empty component to the largest limit.
pub const FUEL_BUCKETS: [f64; 13] = [1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 5e7, 2e8, 1e9, 5e9];
/// Upper bounds of the histogram of seconds: from an instantiation to the longest deadline.
pub const SECONDS_BUCKETS: [f64; 15] =
    [0.000_02, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];
