//! Names of verbs, capabilities and arguments, as they stand in plans, reports and documents.

/// Names of verbs.
pub mod verb {
    pub const CHECKPOINT: &str = "process.checkpoint";
    pub const RESTORE: &str = "process.restore";
    pub const CONFIRM: &str = "process.confirm";
    pub const RETIRE: &str = "process.retire";
    pub const RESUME: &str = "process.resume";
    pub const DISCARD: &str = "process.discard";
    pub const RESTORE_DRILL: &str = "snapshot.drill";
    pub const MIGRATE: &str = "process.migrate";
    pub const FREEZE: &str = "process.freeze";
    pub const THAW: &str = "process.thaw";
    pub const SIGNAL: &str = "process.signal";
    pub const TERMINATE: &str = "process.terminate";
    pub const LIMIT: &str = "cgroup.limit";
    pub const UNLIMIT: &str = "cgroup.restore";
    pub const POWER_LIMIT: &str = "gpu.power_limit";
    pub const LOCK_CLOCKS: &str = "gpu.lock_clocks";
    pub const RESET_CLOCKS: &str = "gpu.reset_clocks";
    pub const COMPUTE_MODE: &str = "gpu.compute_mode";
    pub const RESET_GPU: &str = "gpu.reset";
    pub const RESTORE_GPU: &str = "gpu.restore";
    pub const DRAIN: &str = "node.drain";
    pub const UNDRAIN: &str = "node.undrain";
    pub const SLEEP: &str = "node.sleep";
    pub const WAKE: &str = "node.wake";
    pub const RUNBOOK: &str = "runbook.run";
    pub const SCRIPT: &str = "runbook.script";
}

/// Names of agents' capabilities.
pub mod capability {
    pub const CHECKPOINT: &str = "process.checkpoint";
    pub const RESTORE: &str = "process.restore";
    /// Workloads with GPU contexts too.
    pub const CHECKPOINT_GPU: &str = "process.checkpoint.gpu";
    pub const FREEZE: &str = "process.freeze";
    pub const SIGNAL: &str = "process.signal";
    pub const LIMIT: &str = "cgroup.limit";
    pub const GPU: &str = "gpu.control";
    pub const RESET_GPU: &str = "gpu.reset";
    pub const DRAIN: &str = "node.drain";
    pub const SLEEP: &str = "node.sleep";
    /// A clock of the machine can wake it.
    pub const SLEEP_ALARM: &str = "node.sleep.alarm";
    /// Others can be woken from here.
    pub const WAKE: &str = "node.wake";
    pub const RUNBOOK: &str = "runbook.run";
    /// `drill.<name>`: the agent allows this drill, and can make its disturbance.
    pub const DRILL: &str = "drill.";
}

/// Names of evidence that the host itself looks at.
pub mod evidence {
    /// Text: what the dry run of this step is worth; one of [`super::super::DryRun::name`].
    pub const DRY_RUN: &str = "dry-run";
    /// Bytes: memory that a workload had in use when its checkpoint began.
    pub const RESIDENT: &str = "resident";
    /// Duration: the whole step, as its agent measured it.
    pub const TOOK: &str = "took";
}

/// Facts of an agent's report that say what can be aimed at, or must not be.
pub mod fact {
    /// `gpu.<id>`: a GPU, with its model. Its subject is `<node>/<id>`.
    pub const GPU: &str = "gpu.";
    /// Why the node takes no new work, as far as Aether itself asked for it.
    pub const DRAINED: &str = "node.drained";
    /// The version of what the host wants of the agent's telemetry, as far as the agent has taken it.
    pub const CONFIG_VERSION: &str = "config.version";
    /// What of that the agent's own file does not permit, or what it does not know.
    pub const CONFIG_WITHHELD: &str = "config.withheld";
    /// The address of a network card that is armed for Wake-on-LAN, such as `02:00:5e:10:00:01`.
    pub const WAKE_MAC: &str = "node.wake.mac";
    /// The IPv4 network that this card is on, such as `192.0.2.0/24`.
    pub const WAKE_NETWORK: &str = "node.wake.network";
}

/// Argument names.
pub mod argument {
    /// Text: the node to which a workload goes.
    pub const TO: &str = "to";
    /// Integer: the index of the plan's step that took the snapshot.
    pub const CHECKPOINT_STEP: &str = "checkpoint-step";
    /// Text: the digest of a snapshot's manifest.
    pub const MANIFEST: &str = "manifest";
    /// Duration: how long a step may take before it counts as unknown.
    pub const TIMEOUT: &str = "timeout";
    /// Text: a signal's name without `SIG`.
    pub const SIGNAL: &str = "signal";
    /// Text: `root` for the first process alone, `tree` for all of the workload.
    pub const SCOPE: &str = "scope";
    /// Number: processors' worth of time.
    pub const CPUS: &str = "cpus";
    /// Bytes: above this the workload is slowed down and its memory reclaimed.
    pub const MEMORY_HIGH: &str = "memory-high";
    /// Bytes: the workload never gets more.
    pub const MEMORY_MAX: &str = "memory-max";
    /// Number: the most that a GPU may draw.
    pub const WATTS: &str = "watts";
    /// Integer: bounds of a GPU's graphics clock.
    pub const MIN_MHZ: &str = "min-mhz";
    pub const MAX_MHZ: &str = "max-mhz";
    /// Text: which contexts a GPU admits.
    pub const MODE: &str = "mode";
    /// Text: how deep a node sleeps, as `/sys/power/state` calls it.
    pub const STATE: &str = "state";
    /// Duration: after this the machine's own clock wakes it.
    pub const WAKE_AFTER: &str = "wake-after";
    /// Text: the node whose agent wakes another.
    pub const VIA: &str = "via";
    /// Text: the address of the network card that wakes a node. The host fills it in.
    pub const MAC: &str = "mac";
    /// Text: the IPv4 network that the card is on. The host fills it in.
    pub const NETWORK: &str = "network";
    /// Text: a runbook of the policy bundle.
    pub const RUNBOOK: &str = "runbook";
    /// Text: BLAKE3 of the runbook's script.
    pub const SCRIPT: &str = "script";
    /// Integer: processes at one time.
    pub const PIDS: &str = "pids";
    /// Bytes: of output that is kept.
    pub const OUTPUT: &str = "output-bytes";
    /// Before the names of a runbook's own arguments.
    pub const OF_RUNBOOK: &str = "arg.";
}
