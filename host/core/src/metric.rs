//! The names of metrics and events that cross a boundary, in one place: OpenTelemetry's where it has one, ours under
//! `aether.` where it has none.

/// Share of CPU time not idle, over all logical CPUs. Unit `1`. Subject: node.
pub const CPU_UTILIZATION: &str = "system.cpu.utilization";
/// Share of its time that the busiest logical CPU was not idle. Unit `1`. Subject: node.
pub const CPU_BUSIEST: &str = "aether.system.cpu.busiest";
/// CPU seconds of all logical CPUs, attribute `cpu.mode`. Cumulative. Unit `s`. Subject: node.
pub const CPU_TIME: &str = "system.cpu.time";
/// Processes and threads made since boot. Cumulative. Unit `{process}`. Subject: node.
pub const PROCESSES_CREATED: &str = "system.process.created";
/// Threads that run or could, and that wait for a disk; attribute `state` (running, blocked). Unit `{thread}`. Subject: node.
pub const TASKS: &str = "aether.system.tasks";
/// Logical CPUs. Unit `{cpu}`. Subject: node.
pub const CPU_COUNT: &str = "system.cpu.logical.count";
/// Run-queue load average over one minute. Unit `{thread}`. Subject: node.
pub const LOAD_1M: &str = "system.cpu.load_average.1m";
/// Over five minutes. Unit `{thread}`. Subject: node.
pub const LOAD_5M: &str = "system.cpu.load_average.5m";
/// Over fifteen minutes. Unit `{thread}`. Subject: node.
pub const LOAD_15M: &str = "system.cpu.load_average.15m";
/// Share of memory that is not available. Unit `1`. Subject: node.
pub const MEMORY_UTILIZATION: &str = "system.memory.utilization";
/// Memory available without swapping. Unit `By`. Subject: node.
pub const MEMORY_AVAILABLE: &str = "system.linux.memory.available";
/// Memory of the node. Unit `By`. Subject: node.
pub const MEMORY_LIMIT: &str = "system.memory.limit";
/// Memory by attribute `system.memory.state` (used, free, buffers, cached), which add up. Unit `By`. Subject: node.
pub const MEMORY_USAGE: &str = "system.memory.usage";
/// Memory of the kernel's own objects, attribute `linux.memory.slab.state`. Unit `By`. Subject: node.
pub const MEMORY_SLAB: &str = "system.linux.memory.slab.usage";
/// What memory is used for, attribute `kind`; these overlap. Unit `By`. Subject: node.
pub const MEMORY_KIND: &str = "aether.system.memory.usage";
/// Swap, attribute `system.paging.state` (used, free). Unit `By`. Subject: node.
pub const PAGING_USAGE: &str = "system.paging.usage";
/// Pages read from and written to swap, attribute `system.paging.direction` (in, out). Cumulative. Unit `{operation}`.
/// Subject: node.
pub const PAGING_OPERATIONS: &str = "system.paging.operations";
/// Pages looked at for memory that could be taken back, attribute `by` (kswapd, direct). Cumulative. Unit `{page}`.
/// Subject: node.
pub const RECLAIM_SCANNED: &str = "aether.system.memory.reclaim.scanned";
/// Allocations that had to wait for memory to be taken back. Cumulative. Unit `{allocation}`. Subject: node.
pub const RECLAIM_STALLS: &str = "aether.system.memory.reclaim.stalls";
/// Bytes read and written, attribute `disk.io.direction`. Cumulative. Unit `By`. Subject: node.
pub const DISK_IO: &str = "system.disk.io";
/// Seconds during which a disk was busy, attribute `system.device`. Cumulative. Unit `s`. Subject: node.
pub const DISK_IO_TIME: &str = "system.disk.io_time";
/// Requests that a disk has answered, attributes `system.device` and `disk.io.direction`. Cumulative. Unit `{operation}`.
/// Subject: node.
pub const DISK_OPERATIONS: &str = "system.disk.operations";
/// Seconds that requests took, added up; attributes as before. Cumulative. Unit `s`. Subject: node.
pub const DISK_OPERATION_TIME: &str = "system.disk.operation_time";
/// Requests that a disk has not answered yet, attribute `system.device`. Unit `{operation}`. Subject: node.
pub const DISK_PENDING: &str = "aether.system.disk.pending";
/// Bytes of a file system, attributes `system.filesystem.mountpoint`, `system.filesystem.type` and
/// `system.filesystem.state` (used, free, reserved). Unit `By`. Subject: node.
pub const FILESYSTEM_USAGE: &str = "system.filesystem.usage";
/// Inodes of a file system, attributes as before. Unit `{inode}`. Subject: node.
pub const FILESYSTEM_INODES: &str = "aether.system.filesystem.inodes";
/// Used share of the file system that holds the agent's state. Unit `1`. Subject: node.
pub const FILESYSTEM_UTILIZATION: &str = "system.filesystem.utilization";
/// Bytes received and sent, attribute `network.io.direction`. Cumulative. Unit `By`. Subject: node.
pub const NETWORK_IO: &str = "system.network.io";
/// Bytes that an interface received and sent, attributes `network.interface.name` and `network.io.direction`. Cumulative.
/// Unit `By`. Subject: node.
pub const LINK_IO: &str = "aether.network.link.io";
/// Packets that an interface received and sent, attributes as before. Cumulative. Unit `{packet}`. Subject: node.
pub const NETWORK_PACKETS: &str = "system.network.packet.count";
/// Packets that an interface received or sent with errors, attributes `network.interface.name` and
/// `network.io.direction`. Cumulative. Unit `{error}`. Subject: node.
pub const NETWORK_ERRORS: &str = "system.network.errors";
/// Packets that an interface dropped, attributes as before. Cumulative. Unit `{packet}`. Subject: node.
pub const NETWORK_DROPPED: &str = "system.network.packet.dropped";
/// 1 while an interface has a link, attribute `network.interface.name`. Unit `1`. Subject: node.
pub const LINK_UP: &str = "aether.network.link.up";
/// How fast the link is, attribute as before. Unit `bit/s`. Subject: node.
pub const LINK_SPEED: &str = "aether.network.link.speed";
/// How often the link came or went, attribute as before. Cumulative. Unit `{change}`. Subject: node.
pub const LINK_CHANGES: &str = "aether.network.link.changes";
/// Sockets by state, attributes `network.connection.state` and `network.transport`. Unit `{connection}`. Subject: node.
pub const NETWORK_CONNECTIONS: &str = "system.network.connection.count";
/// TCP segments sent. Cumulative. Unit `{segment}`. Subject: node.
pub const TCP_SENT: &str = "aether.tcp.segments.sent";
/// TCP connections that were ended by a reset. Cumulative. Unit `{connection}`. Subject: node.
pub const TCP_RESETS: &str = "aether.tcp.connections.reset";
/// TCP connections made, attribute `network.io.direction`: accepted are received, asked for are transmitted. Cumulative.
/// Unit `{connection}`. Subject: node.
pub const TCP_OPENED: &str = "aether.tcp.connections.opened";
/// UDP datagrams that were lost here, attribute `reason` (receive-buffer, send-buffer, malformed). Cumulative. Unit
/// `{datagram}`. Subject: node.
pub const UDP_LOST: &str = "aether.udp.datagrams.lost";
/// TCP segments sent again. Cumulative. Unit `{segment}`. Subject: node.
pub const TCP_RETRANSMITTED: &str = "aether.tcp.segments.retransmitted";
/// TCP connections that wait for an answer and send again now. Unit `{connection}`. Subject: node.
pub const TCP_RETRANSMITTING: &str = "aether.tcp.connections.retransmitting";
/// How full the fullest accept queue is. Unit `1`. Subject: node.
pub const TCP_LISTEN_BACKLOG: &str = "aether.tcp.listen.backlog.utilization";
/// Connections that found an accept queue full. Cumulative. Unit `{connection}`. Subject: node.
pub const TCP_LISTEN_OVERFLOWS: &str = "aether.tcp.listen.overflows";
/// Connections that a listener dropped, for whatever reason. Cumulative. Unit `{connection}`. Subject: node.
pub const TCP_LISTEN_DROPS: &str = "aether.tcp.listen.drops";
/// Switches from one thread to another. Cumulative. Unit `{context_switch}`. Subject: node.
pub const CONTEXT_SWITCHES: &str = "aether.system.context_switches";
/// Threads moved to another processor. Cumulative. Unit `{migration}`. Subject: node.
pub const CPU_MIGRATIONS: &str = "aether.system.cpu.migrations";
/// Page faults, attribute `system.paging.fault.type` (minor, major). Cumulative. Unit `{fault}`. Subject: node.
pub const PAGING_FAULTS: &str = "system.paging.faults";
/// Cycles of all processors, where they count them. Cumulative. Unit `{cycle}`. Subject: node.
pub const CPU_CYCLES: &str = "aether.system.cpu.cycles";
/// Instructions of all processors, where they count them. Cumulative. Unit `{instruction}`. Subject: node.
pub const CPU_INSTRUCTIONS: &str = "aether.system.cpu.instructions";
/// Processes by state, attribute `process.state`. Unit `{process}`. Subject: node.
pub const PROCESS_COUNT: &str = "system.process.count";
/// Processors that a program keeps busy, attribute `process.executable.name`. Unit `{cpu}`. Subject: node.
pub const PROGRAM_CPU: &str = "aether.program.cpu";
/// Resident memory of a program's processes, attribute as before; shared memory counts for each. Unit `By`. Subject: node.
pub const PROGRAM_MEMORY: &str = "aether.program.memory.usage";
/// Memory of a program's processes, with what is shared shared out; attribute as before. Unit `By`. Subject: node.
pub const PROGRAM_PSS: &str = "aether.program.memory.pss";
/// Swapped out memory of a program's processes, attribute as before. Unit `By`. Subject: node.
pub const PROGRAM_SWAP: &str = "aether.program.memory.swap";
/// Open descriptors of a program's processes, attribute as before. Unit `{file_descriptor}`. Subject: node.
pub const PROGRAM_FILES: &str = "aether.program.file_descriptors";
/// What a program reads from and writes to disks, attribute as before. Unit `By/s`. Subject: node.
pub const PROGRAM_IO: &str = "aether.program.disk.io";
/// Share of time in which some task waited, attribute `resource` (cpu, io, memory), from PSI avg10. Unit `1`. Subject: node.
pub const PRESSURE_SOME: &str = "aether.system.pressure.some";
/// Seconds since boot. Unit `s`. Subject: node.
pub const UPTIME: &str = "system.uptime";

/// 1 while a node sleeps on order: silent since it announced that it goes. Told by the host. Unit `1`. Subject: node.
pub const NODE_ASLEEP: &str = "aether.node.asleep";

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

/// How long a workload's threads waited, attribute `resource` (cpu, io, swap, reclaim). Cumulative. Unit `s`. Subject:
/// workload.
pub const WORKLOAD_DELAY: &str = "aether.workload.delay";
/// How often a workload's threads gave up a processor or were taken off it, attribute `process.context_switch.type`
/// (voluntary, involuntary). Cumulative. Unit `{context_switch}`. Subject: workload.
pub const PROCESS_CONTEXT_SWITCHES: &str = "process.context_switches";

/// CPU seconds that a control group used. Cumulative. Unit `s`. Subject: workload, of its own group; and node, with the
/// attribute `cgroup`. So are those that follow.
pub const CGROUP_CPU_TIME: &str = "aether.cgroup.cpu.time";
/// Seconds for which its quota held it back, once it did. Cumulative. Unit `s`.
pub const CGROUP_THROTTLED_TIME: &str = "aether.cgroup.cpu.throttled.time";
/// Memory that is charged to it. Unit `By`.
pub const CGROUP_MEMORY_USAGE: &str = "aether.cgroup.memory.usage";
/// The most memory that it may have, where there is a limit. Unit `By`.
pub const CGROUP_MEMORY_LIMIT: &str = "aether.cgroup.memory.limit";
/// Attribute `event`: `oom` (it was at its limit and nothing could be reclaimed), `oom_kill` (a process was killed).
/// Cumulative. Unit `{event}`.
pub const CGROUP_MEMORY_EVENTS: &str = "aether.cgroup.memory.events";
/// Bytes read and written, attribute `disk.io.direction`. Cumulative. Unit `By`.
pub const CGROUP_IO: &str = "aether.cgroup.io";
/// Processes and threads in it. Unit `{process}`.
pub const CGROUP_PIDS: &str = "aether.cgroup.pids";
/// Share of time in which some task of it waited, attribute `resource`, from PSI avg10. Unit `1`.
pub const CGROUP_PRESSURE: &str = "aether.cgroup.pressure.some";

/// 1 while a GPU answers, 0 once it has fallen off the bus; attribute `gpu`. Unit `1`. Subject: node.
pub const GPU_AVAILABLE: &str = "aether.gpu.available";
/// Share of time in which some kernel ran on the GPU. Unit `1`. Subject: gpu.
pub const GPU_UTILIZATION: &str = "hw.gpu.utilization";
/// Device memory in use. Unit `By`. Subject: gpu.
pub const GPU_MEMORY_USAGE: &str = "hw.gpu.memory.usage";
/// Device memory that there is. Unit `By`. Subject: gpu.
pub const GPU_MEMORY_LIMIT: &str = "hw.gpu.memory.limit";
/// Share of device memory in use. Unit `1`. Subject: gpu.
pub const GPU_MEMORY_UTILIZATION: &str = "hw.gpu.memory.utilization";
/// Share of time in which device memory was read or written. Unit `1`. Subject: gpu.
pub const GPU_MEMORY_BANDWIDTH: &str = "aether.gpu.memory.bandwidth.utilization";
/// The power limit that is enforced. Unit `W`. Subject: gpu.
pub const GPU_POWER_LIMIT: &str = "aether.gpu.power.limit";
/// A clock, attribute `clock` (graphics, memory). Unit `Hz`. Subject: gpu.
pub const GPU_CLOCK: &str = "aether.gpu.clock";
/// 1 while the clocks are held back; attribute `reason` for one reason alone. Unit `1`. Subject: gpu.
pub const GPU_THROTTLED: &str = "aether.gpu.throttled";
/// NVLinks that are up. Unit `{link}`. Subject: gpu.
pub const GPU_NVLINK_ACTIVE: &str = "aether.gpu.nvlink.active";
/// Processes with a context on the GPU. Unit `{process}`. Subject: gpu.
pub const GPU_PROCESSES: &str = "aether.gpu.process.count";
/// Device memory of the programs that have most of it, attribute `process.executable.name`. Unit `By`. Subject: gpu.
pub const GPU_PROCESS_MEMORY: &str = "aether.gpu.process.memory";
/// MIG instances of the GPU. Unit `{instance}`. Subject: gpu.
pub const GPU_MIG_INSTANCES: &str = "aether.gpu.mig.instances";
/// Event: the driver reported an error of a GPU; attribute `xid` is its number. Subject: gpu.
pub const GPU_XID: &str = "aether.gpu.xid";

/// A temperature. Unit `Cel`. Subject: gpu; and node, with the attribute `hw.name`.
pub const HW_TEMPERATURE: &str = "hw.temperature";
/// Power drawn. Unit `W`. Subject: gpu; and node, with the attribute `hw.name`.
pub const HW_POWER: &str = "hw.power";
/// The slowest fan of a chip. Unit `rpm`. Subject: node, with the attribute `hw.name`.
pub const HW_FAN_SPEED: &str = "hw.fan.speed";
/// Energy used, since the agent's start. Cumulative. Unit `J`. Subject: node, with the attribute `hw.name`.
pub const HW_ENERGY: &str = "hw.energy";
/// Errors of hardware, attribute `error.type`. Cumulative. Unit `{error}`. Subject: gpu.
pub const HW_ERRORS: &str = "hw.errors";

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
/// How long the oldest of them has waited. Unit `s`. Subject: node.
pub const SPOOL_AGE: &str = "aether.agent.spool.age";
/// Batches that the agent's spool dropped, since its start. Cumulative. Unit `{batch}`. Subject: node.
pub const SPOOL_LOST: &str = "aether.agent.spool.lost";

/// How long tasks waited on a run queue before they ran, in the time since the last sample: half of them, and 99 of 100,
/// at most so long. Unit `s`. Subject: node; node with the attribute `process.linux.cgroup`; workload.
pub const RUN_QUEUE_P50: &str = "aether.system.run_queue.latency.p50";
pub const RUN_QUEUE_P99: &str = "aether.system.run_queue.latency.p99";
/// How often they waited. Cumulative. Unit `{wait}`. Subjects as before.
pub const RUN_QUEUE_WAITS: &str = "aether.system.run_queue.waits";
/// How long they waited in all. Cumulative. Unit `s`. Subjects as before.
pub const RUN_QUEUE_TIME: &str = "aether.system.run_queue.time";
/// How long threads were off the processor after they had blocked, of a sample of the threads. Unit `s`. Subjects as before.
pub const OFF_CPU_P50: &str = "aether.system.off_cpu.duration.p50";
pub const OFF_CPU_P99: &str = "aether.system.off_cpu.duration.p99";
/// How often those were. Cumulative. Unit `{absence}`. Subjects as before.
pub const OFF_CPU_COUNT: &str = "aether.system.off_cpu.absences";
/// How long those were in all. Cumulative. Unit `s`. Subjects as before.
pub const OFF_CPU_TIME: &str = "aether.system.off_cpu.time";
/// How long requests to block devices took. Unit `s`. Subject: node; node with `system.device` and `disk.io.direction`
/// (read, write, flush, discard, other).
pub const BLOCK_P50: &str = "aether.system.disk.latency.p50";
pub const BLOCK_P99: &str = "aether.system.disk.latency.p99";
/// How many were completed. Cumulative. Unit `{operation}`. Subjects as before.
pub const BLOCK_REQUESTS: &str = "aether.system.disk.requests";
/// How long they took in all. Cumulative. Unit `s`. Subjects as before.
pub const BLOCK_TIME: &str = "aether.system.disk.time";
/// How long TCP connections that this machine asked for took to be made. Unit `s`. Subjects as of the run queue's.
pub const TCP_CONNECT_P50: &str = "aether.system.tcp.connect.latency.p50";
pub const TCP_CONNECT_P99: &str = "aether.system.tcp.connect.latency.p99";
/// How many were made. Cumulative. Unit `{connection}`. Subjects as before.
pub const TCP_CONNECTS: &str = "aether.system.tcp.connects";
/// How long that took in all. Cumulative. Unit `s`. Subjects as before.
pub const TCP_CONNECT_TIME: &str = "aether.system.tcp.connect.time";
/// Connections that were asked for and not made. Cumulative. Unit `{connection}`. Subject: node.
pub const TCP_CONNECT_FAILURES: &str = "aether.system.tcp.connect.failures";
/// Segments that were sent again. Cumulative. Unit `{segment}`. Subject: node.
pub const TCP_RETRANSMITS: &str = "aether.system.tcp.retransmits";
/// Processes that ended, attribute `outcome` (ok, failed, killed). Cumulative. Unit `{process}`. Subject: node.
pub const PROCESS_EXITS: &str = "aether.system.process.exits";
/// Processes that were killed because memory ran out. Cumulative. Unit `{process}`. Subject: node.
pub const OOM_KILLS: &str = "aether.system.oom_kills";
/// Event: a process failed or was killed, or was a workload's first. Attributes `process.pid`, `process.parent_pid`,
/// `process.executable.name`, `process.user.id`, `process.exit.code` or `process.exit.signal`, `process.linux.cgroup`, and
/// `workload` where it was of one. Subject: node.
pub const PROCESS_EXIT: &str = "aether.process.exit";
/// Event: the kernel killed a process because memory ran out. Attributes as before, with `process.oom_score_adj` and
/// `process.memory.virtual`. Subject as before.
pub const PROCESS_OOM_KILL: &str = "aether.process.oom_kill";
/// Share of the time that processors were busy that an eBPF source's programs took, attribute `source`. Unit `1`. Subject: node.
pub const BPF_COST: &str = "aether.agent.bpf.cost";
/// Share of the time in which an eBPF source looks, attribute `source`. Unit `1`. Subject: node.
pub const BPF_DUTY: &str = "aether.agent.bpf.duty";
/// What an eBPF source found no room for, could not read or did not tell, attribute `source`. Cumulative. Unit `{record}`. Subject: node.
pub const BPF_LOST: &str = "aether.agent.bpf.lost";
/// CPU seconds of one logical CPU, attributes `cpu.logical_number` and `cpu.mode`. Cumulative. Unit `s`.
pub const CPU_EACH_TIME: &str = "aether.system.cpu.each.time";
/// Interrupts. Cumulative. Unit `{interrupt}`.
pub const INTERRUPTS: &str = "aether.system.interrupts";
/// What was put off by interrupts, attribute `kind`. Cumulative. Unit `{interrupt}`.
pub const SOFT_INTERRUPTS: &str = "aether.system.soft_interrupts";
/// Threads. Unit `{thread}`.
pub const THREADS: &str = "aether.system.threads";
/// How many there may be. Unit `{thread}`.
pub const THREADS_LIMIT: &str = "aether.system.threads.limit";
/// Open files of all processes. Unit `{file_descriptor}`.
pub const FILES: &str = "aether.system.file_descriptors";
/// How many there may be. Unit `{file_descriptor}`.
pub const FILES_LIMIT: &str = "aether.system.file_descriptors.limit";
/// Share of the last ten seconds in which nothing that had something to do could, attribute `resource` (io, memory). Unit `1`.
pub const PRESSURE_FULL: &str = "aether.system.pressure.full";
/// Memory that may be committed, where the kernel keeps to it. Unit `By`.
pub const MEMORY_COMMIT_LIMIT: &str = "aether.system.memory.commit.limit";
/// Huge pages that were set aside, attribute `state` (used, free, reserved). Unit `{page}`.
pub const HUGE_PAGES: &str = "aether.system.memory.huge_pages";
/// Pages that were taken back, attribute `by` (kswapd, direct). Cumulative. Unit `{page}`.
pub const RECLAIMED: &str = "aether.system.memory.reclaimed";
/// Pages that were wanted again soon after they were taken back, attribute `kind` (file, anonymous). Cumulative. Unit
/// `{page}`.
pub const REFAULTS: &str = "aether.system.memory.refaults";
/// Processes that the kernel killed for want of memory. Cumulative. Unit `{process}`.
pub const OOM_KILLED: &str = "aether.system.memory.oom_kills";
/// Attempts to make room in one piece, attribute `outcome` (stalled, done, failed). Cumulative. Unit `{attempt}`.
pub const COMPACTIONS: &str = "aether.system.memory.compactions";
/// Transparent huge pages, attribute `event` (allocated, fallback, collapsed, split). Cumulative. Unit `{page}`.
pub const THP: &str = "aether.system.memory.thp";
/// Pages that could not be moved elsewhere in memory. Cumulative. Unit `{page}`.
pub const MIGRATION_FAILED: &str = "aether.system.memory.migration.failed";
/// Pages by the NUMA node that they came from, attribute `kind`, and of one node `numa.node`. Cumulative. Unit `{page}`.
pub const NUMA_PAGES: &str = "aether.system.numa.pages";
/// Memory of a NUMA node, attributes `numa.node` and `state`. Unit `By`.
pub const NUMA_MEMORY: &str = "aether.system.numa.memory.usage";
/// Bytes of one disk, attributes `system.device` and `disk.io.direction`. Cumulative. Unit `By`.
pub const DISK_EACH_IO: &str = "aether.system.disk.each.io";
/// Requests that became one with another, attributes `system.device` and `disk.io.direction`. Cumulative. Unit `{operation}`.
pub const DISK_MERGED: &str = "system.disk.merged";
/// Seconds that requests were under way, times how many were; attribute `system.device`. Cumulative. Unit `s`.
pub const DISK_QUEUE_TIME: &str = "aether.system.disk.queue.time";
/// What went wrong on an interface in one way, attributes `network.interface.name` and `kind`. Cumulative. Unit `{error}`.
pub const LINK_ERRORS: &str = "aether.network.link.errors";
/// Packets of IP, attribute `network.io.direction`. Cumulative. Unit `{packet}`.
pub const IP_PACKETS: &str = "aether.ip.packets";
/// Packets of IP that were thrown away, attribute `reason`. Cumulative. Unit `{packet}`.
pub const IP_DISCARDED: &str = "aether.ip.discarded";
/// Packets of IP that a router marked, for the sender to slow down. Cumulative. Unit `{packet}`.
pub const IP_CONGESTION: &str = "aether.ip.congestion";
/// Messages of ICMP, attribute `network.io.direction`. Cumulative. Unit `{message}`.
pub const ICMP_MESSAGES: &str = "aether.icmp.messages";
/// That something cannot be reached, attribute `network.io.direction`. Cumulative. Unit `{message}`.
pub const ICMP_UNREACHABLE: &str = "aether.icmp.unreachable";
/// TCP segments received. Cumulative. Unit `{segment}`.
pub const TCP_RECEIVED: &str = "aether.tcp.segments.received";
/// TCP segments that were received before one that precedes them. Cumulative. Unit `{segment}`.
pub const TCP_OUT_OF_ORDER: &str = "aether.tcp.segments.out_of_order";
/// TCP segments that were thrown away, attribute `reason`. Cumulative. Unit `{segment}`.
pub const TCP_DROPPED: &str = "aether.tcp.segments.dropped";
/// How TCP made up for losses, attribute `event`. Cumulative. Unit `{event}`.
pub const TCP_RECOVERY: &str = "aether.tcp.recovery";
/// Resets that this machine sent. Cumulative. Unit `{segment}`.
pub const TCP_RESETS_SENT: &str = "aether.tcp.resets.sent";
/// Connections that did not come about. Cumulative. Unit `{connection}`.
pub const TCP_FAILED: &str = "aether.tcp.connections.failed";
/// Connections that this machine gave up, attribute `reason`. Cumulative. Unit `{connection}`.
pub const TCP_ABORTED: &str = "aether.tcp.connections.aborted";
/// Times that TCP was short of memory. Cumulative. Unit `{event}`.
pub const TCP_MEMORY_PRESSURES: &str = "aether.tcp.memory.pressures";
/// Times that a receiver had no room left. Cumulative. Unit `{event}`.
pub const TCP_WINDOWS_CLOSED: &str = "aether.tcp.windows.closed";
/// Requests for a connection that were answered without keeping them. Cumulative. Unit `{connection}`.
pub const TCP_SYN_COOKIES: &str = "aether.tcp.syn_cookies";
/// UDP datagrams, attribute `network.io.direction`. Cumulative. Unit `{datagram}`.
pub const UDP_DATAGRAMS: &str = "aether.udp.datagrams";
/// Sockets, attribute `kind`. Unit `{socket}`.
pub const SOCKETS: &str = "aether.sockets";
/// Memory of the buffers of sockets, attribute `network.transport`. Unit `By`.
pub const SOCKETS_MEMORY: &str = "aether.sockets.memory";
/// Packets that were received, attribute `outcome` (processed, dropped); and times that there was more to do than time,
/// `squeezed`. Cumulative. Unit `{packet}`.
pub const SOFTNET: &str = "aether.network.softnet";
/// Connections that the firewall follows. Unit `{connection}`.
pub const CONNTRACK: &str = "aether.network.conntrack";
/// How many it can. Unit `{connection}`.
pub const CONNTRACK_LIMIT: &str = "aether.network.conntrack.limit";
/// 1 while the kernel's clock is kept by another, 0 while it runs alone. Unit `1`.
pub const CLOCK_SYNCHRONIZED: &str = "aether.clock.synchronized";
/// What the clock is still to be moved by. Unit `s`.
pub const CLOCK_OFFSET: &str = "aether.clock.offset";
/// How far off the clock may be at most, as who keeps it says. Unit `s`.
pub const CLOCK_ERROR: &str = "aether.clock.error.maximum";
/// How much the clock is made to run faster than it does by itself. Unit `1`.
pub const CLOCK_FREQUENCY: &str = "aether.clock.frequency";
/// 1 while a port has a link that is in use, 0 otherwise; attributes `hw.name` and `port`. Unit `1`.
pub const INFINIBAND_UP: &str = "aether.infiniband.up";
/// The speed of a port's link. Unit `bit/s`.
pub const INFINIBAND_SPEED: &str = "aether.infiniband.speed";
/// Bytes of a port, attribute `network.io.direction`. Cumulative. Unit `By`.
pub const INFINIBAND_IO: &str = "aether.infiniband.io";
/// Packets of a port, attribute `network.io.direction`. Cumulative. Unit `{packet}`.
pub const INFINIBAND_PACKETS: &str = "aether.infiniband.packets";
/// Ticks in which a port had something to send and might not. Cumulative. Unit `{tick}`.
pub const INFINIBAND_WAITS: &str = "aether.infiniband.waits";
/// What went wrong on a port, attribute `kind`. Cumulative. Unit `{error}`.
pub const INFINIBAND_ERRORS: &str = "aether.infiniband.errors";
/// How RoCE dealt with congestion, attribute `event`. Cumulative. Unit `{event}`.
pub const INFINIBAND_CONGESTION: &str = "aether.infiniband.congestion";
