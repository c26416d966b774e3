//! The names that the sources tell by: those that others know, too ([`aether_core::metric`]), and those of what only a
//! person looks at. docs/metrics.md has all of them.

pub(super) use aether_core::metric::*;

/// CPU seconds of one logical CPU, attributes `cpu.logical_number` and `cpu.mode`. Cumulative. Unit `s`.
pub(super) const CPU_EACH_TIME: &str = "aether.system.cpu.each.time";
/// Interrupts. Cumulative. Unit `{interrupt}`.
pub(super) const INTERRUPTS: &str = "aether.system.interrupts";
/// What was put off by interrupts, attribute `kind`. Cumulative. Unit `{interrupt}`.
pub(super) const SOFT_INTERRUPTS: &str = "aether.system.soft_interrupts";
/// Threads. Unit `{thread}`.
pub(super) const THREADS: &str = "aether.system.threads";
/// How many there may be. Unit `{thread}`.
pub(super) const THREADS_LIMIT: &str = "aether.system.threads.limit";
/// Open files of all processes. Unit `{file_descriptor}`.
pub(super) const FILES: &str = "aether.system.file_descriptors";
/// How many there may be. Unit `{file_descriptor}`.
pub(super) const FILES_LIMIT: &str = "aether.system.file_descriptors.limit";
/// Share of the last ten seconds in which nothing that had something to do could, attribute `resource` (io, memory). Unit `1`.
pub(super) const PRESSURE_FULL: &str = "aether.system.pressure.full";
/// Memory that may be committed, where the kernel keeps to it. Unit `By`.
pub(super) const MEMORY_COMMIT_LIMIT: &str = "aether.system.memory.commit.limit";
/// Huge pages that were set aside, attribute `state` (used, free, reserved). Unit `{page}`.
pub(super) const HUGE_PAGES: &str = "aether.system.memory.huge_pages";
/// Pages that were taken back, attribute `by` (kswapd, direct). Cumulative. Unit `{page}`.
pub(super) const RECLAIMED: &str = "aether.system.memory.reclaimed";
/// Pages that were wanted again soon after they were taken back, attribute `kind` (file, anonymous). Cumulative. Unit
/// `{page}`.
pub(super) const REFAULTS: &str = "aether.system.memory.refaults";
/// Processes that the kernel killed for want of memory. Cumulative. Unit `{process}`.
pub(super) const OOM_KILLED: &str = "aether.system.memory.oom_kills";
/// Attempts to make room in one piece, attribute `outcome` (stalled, done, failed). Cumulative. Unit `{attempt}`.
pub(super) const COMPACTIONS: &str = "aether.system.memory.compactions";
/// Transparent huge pages, attribute `event` (allocated, fallback, collapsed, split). Cumulative. Unit `{page}`.
pub(super) const THP: &str = "aether.system.memory.thp";
/// Pages that could not be moved elsewhere in memory. Cumulative. Unit `{page}`.
pub(super) const MIGRATION_FAILED: &str = "aether.system.memory.migration.failed";
/// Pages by the NUMA node that they came from, attribute `kind`, and of one node `numa.node`. Cumulative. Unit `{page}`.
pub(super) const NUMA_PAGES: &str = "aether.system.numa.pages";
/// Memory of a NUMA node, attributes `numa.node` and `state`. Unit `By`.
pub(super) const NUMA_MEMORY: &str = "aether.system.numa.memory.usage";
/// Bytes of one disk, attributes `system.device` and `disk.io.direction`. Cumulative. Unit `By`.
pub(super) const DISK_EACH_IO: &str = "aether.system.disk.each.io";
/// Requests that became one with another, attributes `system.device` and `disk.io.direction`. Cumulative. Unit `{operation}`.
pub(super) const DISK_MERGED: &str = "system.disk.merged";
/// Seconds that requests were under way, times how many were; attribute `system.device`. Cumulative. Unit `s`.
pub(super) const DISK_QUEUE_TIME: &str = "aether.system.disk.queue.time";
/// What went wrong on an interface in one way, attributes `network.interface.name` and `kind`. Cumulative. Unit `{error}`.
pub(super) const LINK_ERRORS: &str = "aether.network.link.errors";
/// Packets of IP, attribute `network.io.direction`. Cumulative. Unit `{packet}`.
pub(super) const IP_PACKETS: &str = "aether.ip.packets";
/// Packets of IP that were thrown away, attribute `reason`. Cumulative. Unit `{packet}`.
pub(super) const IP_DISCARDED: &str = "aether.ip.discarded";
/// Packets of IP that a router marked, for the sender to slow down. Cumulative. Unit `{packet}`.
pub(super) const IP_CONGESTION: &str = "aether.ip.congestion";
/// Messages of ICMP, attribute `network.io.direction`. Cumulative. Unit `{message}`.
pub(super) const ICMP_MESSAGES: &str = "aether.icmp.messages";
/// That something cannot be reached, attribute `network.io.direction`. Cumulative. Unit `{message}`.
pub(super) const ICMP_UNREACHABLE: &str = "aether.icmp.unreachable";
/// TCP segments received. Cumulative. Unit `{segment}`.
pub(super) const TCP_RECEIVED: &str = "aether.tcp.segments.received";
/// TCP segments that were received before one that precedes them. Cumulative. Unit `{segment}`.
pub(super) const TCP_OUT_OF_ORDER: &str = "aether.tcp.segments.out_of_order";
/// TCP segments that were thrown away, attribute `reason`. Cumulative. Unit `{segment}`.
pub(super) const TCP_DROPPED: &str = "aether.tcp.segments.dropped";
/// How TCP made up for losses, attribute `event`. Cumulative. Unit `{event}`.
pub(super) const TCP_RECOVERY: &str = "aether.tcp.recovery";
/// Resets that this machine sent. Cumulative. Unit `{segment}`.
pub(super) const TCP_RESETS_SENT: &str = "aether.tcp.resets.sent";
/// Connections that did not come about. Cumulative. Unit `{connection}`.
pub(super) const TCP_FAILED: &str = "aether.tcp.connections.failed";
/// Connections that this machine gave up, attribute `reason`. Cumulative. Unit `{connection}`.
pub(super) const TCP_ABORTED: &str = "aether.tcp.connections.aborted";
/// Times that TCP was short of memory. Cumulative. Unit `{event}`.
pub(super) const TCP_MEMORY_PRESSURES: &str = "aether.tcp.memory.pressures";
/// Times that a receiver had no room left. Cumulative. Unit `{event}`.
pub(super) const TCP_WINDOWS_CLOSED: &str = "aether.tcp.windows.closed";
/// Requests for a connection that were answered without keeping them. Cumulative. Unit `{connection}`.
pub(super) const TCP_SYN_COOKIES: &str = "aether.tcp.syn_cookies";
/// UDP datagrams, attribute `network.io.direction`. Cumulative. Unit `{datagram}`.
pub(super) const UDP_DATAGRAMS: &str = "aether.udp.datagrams";
/// Sockets, attribute `kind`. Unit `{socket}`.
pub(super) const SOCKETS: &str = "aether.sockets";
/// Memory of the buffers of sockets, attribute `network.transport`. Unit `By`.
pub(super) const SOCKETS_MEMORY: &str = "aether.sockets.memory";
/// Packets that were received, attribute `outcome` (processed, dropped); and times that there was more to do than time,
/// `squeezed`. Cumulative. Unit `{packet}`.
pub(super) const SOFTNET: &str = "aether.network.softnet";
/// Connections that the firewall follows. Unit `{connection}`.
pub(super) const CONNTRACK: &str = "aether.network.conntrack";
/// How many it can. Unit `{connection}`.
pub(super) const CONNTRACK_LIMIT: &str = "aether.network.conntrack.limit";
/// 1 while the kernel's clock is kept by another, 0 while it runs alone. Unit `1`.
pub(super) const CLOCK_SYNCHRONIZED: &str = "aether.clock.synchronized";
/// What the clock is still to be moved by. Unit `s`.
pub(super) const CLOCK_OFFSET: &str = "aether.clock.offset";
/// How far off the clock may be at most, as who keeps it says. Unit `s`.
pub(super) const CLOCK_ERROR: &str = "aether.clock.error.maximum";
/// How much the clock is made to run faster than it does by itself. Unit `1`.
pub(super) const CLOCK_FREQUENCY: &str = "aether.clock.frequency";
/// 1 while a port has a link that is in use, 0 otherwise; attributes `hw.name` and `port`. Unit `1`.
pub(super) const INFINIBAND_UP: &str = "aether.infiniband.up";
/// The speed of a port's link. Unit `bit/s`.
pub(super) const INFINIBAND_SPEED: &str = "aether.infiniband.speed";
/// Bytes of a port, attribute `network.io.direction`. Cumulative. Unit `By`.
pub(super) const INFINIBAND_IO: &str = "aether.infiniband.io";
/// Packets of a port, attribute `network.io.direction`. Cumulative. Unit `{packet}`.
pub(super) const INFINIBAND_PACKETS: &str = "aether.infiniband.packets";
/// Ticks in which a port had something to send and might not. Cumulative. Unit `{tick}`.
pub(super) const INFINIBAND_WAITS: &str = "aether.infiniband.waits";
/// What went wrong on a port, attribute `kind`. Cumulative. Unit `{error}`.
pub(super) const INFINIBAND_ERRORS: &str = "aether.infiniband.errors";
/// How RoCE dealt with congestion, attribute `event`. Cumulative. Unit `{event}`.
pub(super) const INFINIBAND_CONGESTION: &str = "aether.infiniband.congestion";
