//! The names of metrics and events that cross a boundary, in one place: OpenTelemetry's where it has one, ours under
//! `aether.` where it has none.

/// Share of CPU time not idle, over all logical CPUs. Unit `1`. Subject: node.
pub const CPU_UTILIZATION: &str = "system.cpu.utilization";
/// Logical CPUs. Unit `{cpu}`. Subject: node.
pub const CPU_COUNT: &str = "system.cpu.logical.count";
/// Run-queue load average over one minute. Unit `{thread}`. Subject: node.
pub const LOAD_1M: &str = "system.cpu.load_average.1m";
/// Share of memory that is not available. Unit `1`. Subject: node.
pub const MEMORY_UTILIZATION: &str = "system.memory.utilization";
/// Memory available without swapping. Unit `By`. Subject: node.
pub const MEMORY_AVAILABLE: &str = "system.linux.memory.available";
/// Bytes read and written, attribute `disk.io.direction`. Cumulative. Unit `By`. Subject: node.
pub const DISK_IO: &str = "system.disk.io";
/// Seconds during which a disk was busy, attribute `system.device`. Cumulative. Unit `s`. Subject: node.
pub const DISK_IO_TIME: &str = "system.disk.io_time";
/// Used share of the file system that holds the agent's state. Unit `1`. Subject: node.
pub const FILESYSTEM_UTILIZATION: &str = "system.filesystem.utilization";
/// Bytes received and sent, attribute `network.io.direction`. Cumulative. Unit `By`. Subject: node.
pub const NETWORK_IO: &str = "system.network.io";
/// Share of time in which some task waited, attribute `resource` (cpu, io, memory), from PSI avg10. Unit `1`. Subject: node.
pub const PRESSURE_SOME: &str = "aether.system.pressure.some";
/// Seconds since boot. Unit `s`. Subject: node.
pub const UPTIME: &str = "system.uptime";

/// CPU seconds used, attribute `cpu.mode`. Cumulative. Unit `s`. Subject: workload.
pub const PROCESS_CPU_TIME: &str = "process.cpu.time";
/// Resident memory. Unit `By`. Subject: workload; and node, of each workload's whole tree, with the attributes `workload`
/// and `tier`.
pub const PROCESS_MEMORY: &str = "process.memory.usage";
/// What the workload says of its own progress (the first number on the last line of its progress file). Unit `{step}`. Subject: workload.
pub const WORKLOAD_PROGRESS: &str = "aether.workload.progress";
/// Steps a second over the last few samples. Unit `{step}/s`. Subject: workload.
pub const WORKLOAD_PROGRESS_RATE: &str = "aether.workload.progress.rate";
/// 1 while the workload's process runs, 0 while it is stopped or gone. Unit `1`. Subject: workload.
pub const WORKLOAD_RUNNING: &str = "aether.workload.running";

/// Share of the node's processors that a workload uses or waits for, at most what its cgroup lets it have. Unit `1`.
/// Subject: workload; and node, with the attributes `workload` and `tier`.
pub const WORKLOAD_CPU_DEMAND: &str = "aether.workload.cpu.demand";
/// Share of the node's memory that its cgroup lets a workload have. Unit `1`. Subject: workload; and node, as before.
pub const WORKLOAD_MEMORY_REACH: &str = "aether.workload.memory.reach";

/// 1 while a GPU answers, 0 once it has fallen off the bus; attribute `gpu`. Unit `1`. Subject: node.
pub const GPU_AVAILABLE: &str = "aether.gpu.available";

/// Spot price of the node's instance type. Unit `{USD}/h`. Subject: node.
pub const MARKET_PRICE: &str = "aether.market.price";
/// Event: the provider recommends to rebalance away from this node (the spot instance is at elevated risk of interruption).
pub const MARKET_REBALANCE: &str = "aether.market.rebalance";
/// Event: the provider will reclaim this node. Attribute `deadline` is a time in UTC milliseconds.
pub const MARKET_TERMINATION: &str = "aether.market.termination";

/// Carbon intensity of the grid, attributes `zone` and whence it comes. Unit `g/kW.h`, or `%` for a percentile. Subject:
/// participant `grid/<zone>`, and each node that is said to draw from it.
pub const CARBON_INTENSITY: &str = "aether.carbon.intensity";
/// What is foretold of it, attribute `ahead` (`1h`, `6h`, `24h`). Unit and subject: as before.
pub const CARBON_FORECAST: &str = "aether.carbon.forecast";

/// Whether the metric only rises, but for a beginning from zero.
pub fn is_cumulative(metric: &str) -> bool {
    [DISK_IO, DISK_IO_TIME, NETWORK_IO, PROCESS_CPU_TIME, SPOOL_LOST].contains(&metric)
}

/// A series that has no name here, as it was imported from a file: a gauge of any unit, taken as a number. Unit `1`. Subject: node.
pub const IMPORTED_VALUE: &str = "aether.imported.value";

/// 1 while the cloud's metadata service answers, 0 while it does not; attribute `cloud`. Unit `1`. Subject: node.
pub const SIGNALS_AVAILABLE: &str = "aether.agent.signals.available";

/// Batches waiting in the agent's spool. Unit `{batch}`. Subject: node.
pub const SPOOL_DEPTH: &str = "aether.agent.spool.depth";
/// Batches that the agent's spool dropped, since its start. Cumulative. Unit `{batch}`. Subject: node.
pub const SPOOL_LOST: &str = "aether.agent.spool.lost";
