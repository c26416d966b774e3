//! The table of verbs. A new one needs a row here, a hand in the agent (`agent/src/act`), and nothing else: plans, gates,
//! pages and `docs/verbs.md` take it from here.

use super::{
    ArgumentSpec, Definition, DryRun, SafetyClass, Standing, Verb,
    names::{argument, capability, verb},
};
use crate::{
    subject::SubjectKind::{self, Gpu, Node, Workload},
    value::ValueKind,
};
use DryRun::{NotSimulable, PreconditionChecked, Simulated};
use SafetyClass::{Destructive, Impactful, ReadOnly, Reversible};
use Standing::{Composite, Internal, Proposable};

const MIB: f64 = 1_048_576.0;
/// 2^53 - 1 bytes, the most that canonical JSON carries exactly, is 8 PiB; no machine has a quarter of it.
const MEMORY_MAXIMUM: f64 = 2_251_799_813_685_248.0;

/// The longest alarm: thirty days.
const ALARM_MAXIMUM_MS: f64 = 2_592_000_000.0;

/// One row, before its defaults.
struct Row(Definition);

fn row(name: &str, target: SubjectKind, class: SafetyClass, standing: Standing, summary: &str) -> Row {
    Row(Definition {
        verb: Verb {
            name: name.into(),
            summary: summary.into(),
            class,
            compensable: false,
            capability: None,
            arguments: vec![],
        },
        standing,
        target,
        dry_run: PreconditionChecked,
        undone_by: None,
        preconditions: vec![],
        verified_by: String::new(),
    })
}

impl Row {
    fn needs(mut self, capability: &str) -> Self {
        self.0.verb.capability = Some(capability.into());
        self
    }
    fn undone_by(mut self, verb: &str) -> Self {
        self.0.verb.compensable = true;
        self.0.undone_by = Some(verb.into());
        self
    }
    fn takes(mut self, arguments: impl IntoIterator<Item = ArgumentSpec>) -> Self {
        self.0.verb.arguments.extend(arguments);
        self
    }
    /// The last argument of every verb: how long it may take.
    fn within(self, maximum_ms: f64) -> Self {
        self.takes([number(argument::TIMEOUT, ValueKind::Duration, 1_000.0, maximum_ms)])
    }
    fn dry(mut self, dry_run: DryRun) -> Self {
        self.0.dry_run = dry_run;
        self
    }
    fn if_(mut self, precondition: &str) -> Self {
        self.0.preconditions.push(precondition.into());
        self
    }
    fn seen(mut self, verified_by: &str) -> Definition {
        self.0.verified_by = verified_by.into();
        self.0
    }
}

fn number(name: &str, kind: ValueKind, minimum: f64, maximum: f64) -> ArgumentSpec {
    let (minimum, maximum) = (Some(minimum), Some(maximum));
    ArgumentSpec { name: name.into(), required: false, kind, minimum, maximum, choices: vec![] }
}

fn text(name: &str, choices: &[&str]) -> ArgumentSpec {
    let choices = choices.iter().map(|choice| (*choice).into()).collect();
    ArgumentSpec { name: name.into(), required: false, kind: ValueKind::Text, minimum: None, maximum: None, choices }
}

fn required(spec: ArgumentSpec) -> ArgumentSpec {
    ArgumentSpec { required: true, ..spec }
}

fn checkpoint_step() -> ArgumentSpec {
    required(number(argument::CHECKPOINT_STEP, ValueKind::Integer, 0.0, 63.0))
}

/// Every verb with all that is known of it, in order of name.
pub fn definitions() -> Vec<Definition> {
    let mut all = migration();
    all.extend(process());
    all.extend(gpu());
    all.extend(node());
    all.extend(runbook());
    all.sort_by(|a, b| a.verb.name.cmp(&b.verb.name));
    all
}

fn migration() -> Vec<Definition> {
    vec![
        row(
            verb::CHECKPOINT,
            Workload,
            Reversible,
            Internal,
            "Dump a workload's process tree with CRIU, store it in hashed chunks, and leave the source stopped.",
        )
        .needs(capability::CHECKPOINT)
        .undone_by(verb::RESUME)
        .within(900_000.0)
        .if_("The workload runs here, in the generation that the plan names.")
        .seen("CRIU reports success, the tree is stopped, and the store has every chunk and the manifest."),
        row(
            verb::CONFIRM,
            Workload,
            ReadOnly,
            Internal,
            "Wait until the restored workload has made progress beyond its snapshot.",
        )
        .takes([checkpoint_step()])
        .within(300_000.0)
        .if_("The restored workload is here, in the next generation.")
        .seen("Its progress is beyond the snapshot's; where it tells none, it is alive and used processor time."),
        row(
            verb::DISCARD,
            Workload,
            Destructive,
            Internal,
            "End a restored copy, so that the source can go on. Undoes process.restore.",
        )
        .within(300_000.0)
        .if_("What is here of the workload is the copy.")
        .seen("No process of the copy is left."),
        row(
            verb::MIGRATE,
            Workload,
            Impactful,
            Composite,
            "Move a workload to another node: checkpoint, restore, confirm progress, and only then retire the source.",
        )
        .needs(capability::CHECKPOINT)
        .undone_by(verb::RESUME)
        .takes([required(text(argument::TO, &[]))])
        .within(900_000.0)
        .if_("The target node is live, able to restore, takes placements, and is not the source.")
        .seen("Each of its steps is seen to be done."),
        row(verb::RESTORE, Workload, Impactful, Internal, "Verify a snapshot chunk by chunk and restore it with CRIU.")
            .needs(capability::RESTORE)
            .undone_by(verb::DISCARD)
            .takes([checkpoint_step()])
            .within(900_000.0)
            .if_("The workload is not here, and no later generation of it was.")
            .seen("Manifest and chunks have the hashes that the order names, and the restored root runs."),
        row(
            verb::RESTORE_DRILL,
            Workload,
            ReadOnly,
            Internal,
            "Restore a snapshot in namespaces of its own, keep the copy stopped, look at it and end it.",
        )
        .needs(capability::RESTORE)
        .takes([required(text(argument::MANIFEST, &[]))])
        .within(900_000.0)
        .if_("There is memory for the copy, and restoring it touches nothing that others use.")
        .seen("Manifest and chunks have the hashes that the order names, and CRIU has rebuilt every process."),
        row(verb::RESUME, Workload, Reversible, Internal, "Let a stopped source go on. Undoes process.checkpoint.")
            .within(300_000.0)
            .if_("The source is here, in the generation that was stopped.")
            .seen("The source's root runs."),
        row(
            verb::RETIRE,
            Workload,
            Destructive,
            Internal,
            "End the stopped source of a migration whose copy is known to progress.",
        )
        .within(300_000.0)
        .if_("The source is stopped.")
        .seen("No process of the source is left."),
    ]
}

fn process() -> Vec<Definition> {
    vec![
        row(
            verb::FREEZE,
            Workload,
            Reversible,
            Proposable,
            "Stop a workload where it stands: by its cgroup's freezer, or SIGSTOP to its whole tree where it shares a cgroup.",
        )
        .needs(capability::FREEZE)
        .undone_by(verb::THAW)
        .within(60_000.0)
        .dry(Simulated)
        .if_("The workload is here and has not ended.")
        .seen("The cgroup says that it is frozen, or every process of the tree is stopped."),
        row(
            verb::THAW,
            Workload,
            Reversible,
            Proposable,
            "Let a frozen workload go on. Undoing process.freeze, it puts back what was found then.",
        )
        .needs(capability::FREEZE)
        .undone_by(verb::FREEZE)
        .within(60_000.0)
        .dry(Simulated)
        .if_("The workload is here and has not ended.")
        .seen("The cgroup says that it is thawed, and no process of the tree is stopped."),
        row(
            verb::SIGNAL,
            Workload,
            Impactful,
            Proposable,
            "Send a signal that the workload handles: HUP to read its configuration again, USR1 or USR2 for what it defines.",
        )
        .needs(capability::SIGNAL)
        .takes([
            required(text(argument::SIGNAL, &["HUP", "USR1", "USR2"])),
            text(argument::SCOPE, &["root", "tree"]),
        ])
        .within(60_000.0)
        .if_("The workload runs.")
        .if_("Each process that is meant catches the signal: one that does not would end by it.")
        .seen("The kernel took the signal for each process that was meant. What the workload does with it is its own."),
        row(
            verb::TERMINATE,
            Workload,
            Destructive,
            Proposable,
            "Ask a workload to end with SIGTERM, and wait until it has. It is not killed.",
        )
        .needs(capability::SIGNAL)
        .within(900_000.0)
        .if_("The workload runs.")
        .seen("The workload's root has ended within the step's time; otherwise the step has failed."),
        row(
            verb::LIMIT,
            Workload,
            Reversible,
            Proposable,
            "Limit a workload's processor time and memory by the cgroup that is its own.",
        )
        .needs(capability::LIMIT)
        .undone_by(verb::UNLIMIT)
        .takes([
            number(argument::CPUS, ValueKind::Number, 0.01, 4_096.0),
            number(argument::MEMORY_HIGH, ValueKind::Bytes, 16.0 * MIB, MEMORY_MAXIMUM),
            number(argument::MEMORY_MAX, ValueKind::Bytes, 16.0 * MIB, MEMORY_MAXIMUM),
        ])
        .within(60_000.0)
        .dry(Simulated)
        .if_("The workload is alone in its cgroup, and the cgroup has the controller.")
        .if_("At least one limit is named, and `memory-max` is not below what the workload uses: that would kill it.")
        .seen("Every limit reads as it was written."),
        row(
            verb::UNLIMIT,
            Workload,
            Reversible,
            Internal,
            "Put a workload's former limits back. Undoes cgroup.limit.",
        )
        .needs(capability::LIMIT)
        .within(60_000.0)
        .dry(Simulated)
        .if_("Each limit still is what the step made it: what somebody else changed since is left alone, and told.")
        .seen("Every limit reads as it did before the step."),
    ]
}

fn gpu() -> Vec<Definition> {
    vec![
        row(verb::POWER_LIMIT, Gpu, Reversible, Proposable, "Set the most that a GPU may draw.")
            .needs(capability::GPU)
            .undone_by(verb::RESTORE_GPU)
            .takes([required(number(argument::WATTS, ValueKind::Number, 1.0, 10_000.0))])
            .within(60_000.0)
            .dry(Simulated)
            .if_("The limit is within what the GPU itself says it can be set to.")
            .seen("NVML reads the limit as it was set."),
        row(
            verb::LOCK_CLOCKS,
            Gpu,
            Reversible,
            Proposable,
            "Hold a GPU's graphics clock between two bounds, to steady it or to cool it.",
        )
        .needs(capability::GPU)
        .undone_by(verb::RESET_CLOCKS)
        .takes([
            required(number(argument::MIN_MHZ, ValueKind::Integer, 1.0, 20_000.0)),
            required(number(argument::MAX_MHZ, ValueKind::Integer, 1.0, 20_000.0)),
        ])
        .within(60_000.0)
        .if_("The lower bound is not above the upper, and the upper not above the GPU's highest clock.")
        .seen("NVML took the lock, and the clock is read and not above the upper bound. NVML does not tell a lock, so a former one is not known."),
        row(
            verb::RESET_CLOCKS,
            Gpu,
            Reversible,
            Proposable,
            "Give a GPU's graphics clock back to the driver. Undoes gpu.lock_clocks.",
        )
        .needs(capability::GPU)
        .within(60_000.0)
        .if_("The GPU answers.")
        .seen("NVML took it."),
        row(verb::COMPUTE_MODE, Gpu, Impactful, Proposable, "Say which contexts a GPU admits.")
            .needs(capability::GPU)
            .undone_by(verb::RESTORE_GPU)
            .takes([required(text(argument::MODE, &["default", "exclusive-process", "prohibited"]))])
            .within(60_000.0)
            .dry(Simulated)
            .if_("The GPU answers. Contexts that are open stay open.")
            .seen("NVML reads the mode as it was set."),
        row(
            verb::RESET_GPU,
            Gpu,
            Impactful,
            Proposable,
            "Reset a GPU by `nvidia-smi --gpu-reset`, which clears what only a reset clears (some Xid and ECC errors).",
        )
        .needs(capability::RESET_GPU)
        .within(300_000.0)
        .if_("No process has a compute or graphics context on the GPU.")
        .seen("The tool reports success, and the GPU answers by its UUID again."),
        row(
            verb::RESTORE_GPU,
            Gpu,
            Reversible,
            Internal,
            "Put a GPU's former setting back. Undoes gpu.power_limit and gpu.compute_mode.",
        )
        .needs(capability::GPU)
        .within(60_000.0)
        .dry(Simulated)
        .if_("The setting still is what the step made it: what somebody else changed since is left alone, and told.")
        .seen("NVML reads the setting as it was before the step."),
    ]
}

fn node() -> Vec<Definition> {
    vec![
        row(
            verb::DRAIN,
            Node,
            Reversible,
            Proposable,
            "Have a node take no new work: nothing is placed or moved there. What runs goes on; to move it, add process.migrate.",
        )
        .needs(capability::DRAIN)
        .undone_by(verb::UNDRAIN)
        .within(60_000.0)
        .dry(Simulated)
        .if_("The node is this one, in this boot.")
        .seen("The agent has kept the drain on disk and reports it; the host refuses placements there."),
        row(
            verb::UNDRAIN,
            Node,
            Reversible,
            Proposable,
            "Let a drained node take work again. A cordon that a person set stays.",
        )
        .needs(capability::DRAIN)
        .undone_by(verb::DRAIN)
        .within(60_000.0)
        .dry(Simulated)
        .if_("The node is this one, in this boot.")
        .seen("The agent has forgotten the drain on disk and reports none."),
        row(
            verb::SLEEP,
            Node,
            Impactful,
            Proposable,
            "Put a drained node to sleep, `mem` unless `state` says otherwise. It is undone only where `via` names the node that wakes it.",
        )
        .needs(capability::SLEEP)
        .undone_by(verb::WAKE)
        .takes([
            text(argument::STATE, &["mem", "standby", "freeze", "disk"]),
            number(argument::WAKE_AFTER, ValueKind::Duration, 10_000.0, ALARM_MAXIMUM_MS),
            text(argument::VIA, &[]),
        ])
        .within(300_000.0)
        .if_("The node is drained, by an earlier plan or an earlier step of this one; no workload is there, and no other order is under way.")
        .if_("The kernel offers the state.")
        .if_("Something is known that wakes it: a network card that is armed for Wake-on-LAN, or an alarm (`wake-after`).")
        .seen("The agent has announced the sleep, the host has written that down, and the node has been silent since. A sleep that the kernel refused has failed. The plan succeeds when the node stays asleep for its watch."),
        row(
            verb::WAKE,
            Node,
            Reversible,
            Proposable,
            "Wake a node that sleeps on order: the agent of `via` sends Wake-on-LAN's magic packet on the sleeper's network. The host fills in `mac` and `network`, as the node reported them.",
        )
        .needs(capability::WAKE)
        .takes([text(argument::VIA, &[]), text(argument::MAC, &[]), text(argument::NETWORK, &[])])
        .within(60_000.0)
        .if_("The node sleeps on order, and reported the card that wakes it.")
        .if_("The agent of `via` is on the card's network.")
        .seen("The packets were sent; whether the node woke cannot be seen from there. The plan succeeds when the host has samples of the node that were taken after it."),
    ]
}

fn runbook() -> Vec<Definition> {
    vec![
        row(
            verb::RUNBOOK,
            Node,
            Destructive,
            Composite,
            "Run a runbook of the policy bundle on a node. Its own arguments are named `arg.<name>`, typed and bounded by the bundle.",
        )
        .needs(capability::RUNBOOK)
        .takes([required(text(argument::RUNBOOK, &[]))])
        .dry(NotSimulable)
        .if_("The bundle has the runbook, its script is signed by a trusted key, and every argument is within its bounds.")
        .seen("Its one step, `runbook.script`, is seen to be done."),
        row(
            verb::SCRIPT,
            Node,
            Destructive,
            Internal,
            "Run one script, known by its BLAKE3, in a cgroup of its own with these bounds. What the plan holds is what is run.",
        )
        .needs(capability::RUNBOOK)
        .takes([
            required(text(argument::RUNBOOK, &[])),
            required(text(argument::SCRIPT, &[])),
            required(number(argument::CPUS, ValueKind::Number, 0.01, 64.0)),
            required(number(argument::MEMORY_MAX, ValueKind::Bytes, 16.0 * MIB, 65_536.0 * MIB)),
            required(number(argument::PIDS, ValueKind::Integer, 1.0, 4_096.0)),
            required(number(argument::OUTPUT, ValueKind::Bytes, 0.0, 32_768.0)),
        ])
        .within(900_000.0)
        .dry(NotSimulable)
        .if_("The script that came hashes to what was approved, and its first line names the program that reads it.")
        .seen("It ended with status 0 within its bounds. What it wrote is in the incident's execution result."),
    ]
}
