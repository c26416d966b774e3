//! Signals to a workload: from a short list, and only where the workload handles them.

use crate::{
    act::{check::Task, hands::Failure, run::Run, verbs::Done},
    process::{Condition, ProcessRef},
    workloads::{Entry, State},
};
use aether_core::{catalogue::argument, value::Value};
use procfs::process::Process;
use rustix::process::Signal;

const SENDING: &str = "sending";

pub fn root(entry: Option<&Entry>) -> Result<ProcessRef, Failure> {
    let running = entry.filter(|entry| entry.state == State::Running);
    let root = running.and_then(Entry::root);
    root.ok_or_else(|| Failure::new("workload.state", "the workload does not run"))
}

/// The signal and the processes that are meant: each catches it, or ignores it.
pub fn targets(task: &Task, entry: Option<&Entry>) -> Result<(Signal, Vec<ProcessRef>), Failure> {
    let text = |name: &str| task.arguments.get(name).and_then(Value::as_text);
    let signal = match text(argument::SIGNAL) {
        Some("HUP") => Signal::HUP,
        Some("USR1") => Signal::USR1,
        Some("USR2") => Signal::USR2,
        other => return Err(Failure::new("order.arguments", format!("`{other:?}` is no signal that is sent"))),
    };
    let root = root(entry)?;
    let mut meant = vec![root];
    if text(argument::SCOPE) == Some("tree") {
        meant.extend(root.descendants());
    }
    let would_end = meant.iter().find(|process| process.is_alive() && !handles(process, signal));
    if let Some(process) = would_end {
        let name = text(argument::SIGNAL).unwrap_or_default();
        let message = format!("the process {} has no handler for SIG{name} and would end by it", process.pid);
        return Err(Failure::new("signal.unhandled", message));
    }
    Ok((signal, meant))
}

fn handles(process: &ProcessRef, signal: Signal) -> bool {
    let bit = 1u64 << (signal.as_raw() - 1);
    let status = i32::try_from(process.pid).ok().and_then(|pid| Process::new(pid).ok()?.status().ok());
    status.is_some_and(|status| (status.sigcgt | status.sigign) & bit != 0)
}

pub fn send(run: &Run, entry: Option<&Entry>) -> Done {
    let nothing = |failure: Failure| Done::failed(failure.code, format!("{}; no signal was sent", failure.message));
    let (signal, meant) = match targets(run.task(), entry) {
        Ok(found) => found,
        Err(failure) => return nothing(failure),
    };
    if let Err(error) = run.phase(SENDING) {
        return nothing(Failure::new("agent.journal", error.to_string()));
    }
    let mut taken = 0i64;
    for process in &meant {
        match process.signal(signal) {
            Ok(true) => taken += 1,
            Ok(false) => {}
            Err(error) => {
                let message = format!("{taken} of {} processes took it, and then: {error}", meant.len());
                return if taken == 0 {
                    Done::failed("signal.refused", message)
                } else {
                    Done::unknown("signal.refused", message)
                };
            }
        }
    }
    match taken {
        0 => Done::failed("workload.state", "the workload ended before the signal reached it"),
        taken => Done::ok(format!("{taken} processes took the signal")).evidence("processes", Value::Integer(taken)),
    }
}

/// SIGTERM to the root, and its end awaited.
pub fn terminate(run: &Run, entry: Option<&Entry>) -> Done {
    let root = match root(entry) {
        Ok(root) => root,
        Err(failure) => return Done::failed(failure.code, format!("{}; no signal was sent", failure.message)),
    };
    if let Err(error) = run.phase(SENDING) {
        return Done::failed("agent.journal", format!("{error}; no signal was sent"));
    }
    match root.signal(Signal::TERM) {
        Ok(true) => {}
        Ok(false) => return Done::ok("the workload had ended already"),
        Err(error) => return Done::failed("signal.refused", format!("no signal was sent: {error}")),
    }
    match run.poll(|| (root.condition() == Condition::Gone).then_some(())) {
        Ok(()) => Done::ok("the workload has ended").evidence("took-to-end", Value::Duration(run.elapsed_ms())),
        Err(interrupted) => {
            Done::unknown(interrupted.code(), "it was asked to end and has not; it was not killed, and may still end")
        }
    }
}

/// After a crash: whether a signal went out cannot be seen.
pub fn settle(phase: Option<&str>) -> Done {
    match phase {
        None => Done::failed("agent.restarted", "the agent was restarted before the signal was sent"),
        Some(_) => Done::unknown(
            "agent.restarted",
            "the agent was restarted while it sent the signal, and whether the workload has it cannot be seen",
        ),
    }
}
