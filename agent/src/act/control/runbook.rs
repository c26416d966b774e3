//! Runbooks: a script of the policy bundle, run once, as the plan that was approved says.
//!
//! The plan holds the script's BLAKE3, the order brings the script, and what does not hash to it is not run. No shell
//! reads an argument: they are environment variables, and the script's first line says which program reads it. It runs in
//! a cgroup of its own with bounds of processor time, memory, processes, wall-clock time and output; when it has ended,
//! whatever it left running is killed.

use super::cgroup::{Bounds, Cgroups, Made};
use crate::{
    act::{check::Task, hands::Failure, run::Run, verbs::Done},
    process::ProcessRef,
};
use aether_core::{catalogue::argument, id::Digest, policy::SCRIPT_BYTES_MAXIMUM, value::Value};
use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, PipeReader, Read, Write},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    time::Duration,
};
use tracing::warn;

/// What an order's `inputs` must bring: the script's text.
pub const SCRIPT: &str = "script";
/// The output's name among an outcome's outputs.
const OUTPUT: &str = "output";
const RUNNING: &str = "running";
const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// How long what a script left running may take to be gone.
const LEFT_WITHIN: Duration = Duration::from_secs(5);

/// The script of an order, once it is the one that was approved.
fn script(task: &Task) -> Result<&str, Failure> {
    let approved = task.arguments.get(argument::SCRIPT).and_then(Value::as_text).unwrap_or_default();
    let text = task.order.inputs.get(SCRIPT).map(String::as_str);
    let text = text.ok_or_else(|| Failure::new("order.inputs", "the order does not bring the script"))?;
    if text.len() > SCRIPT_BYTES_MAXIMUM || Digest::of(text.as_bytes()).0 != approved {
        return Err(Failure::new("runbook.other-script", "the script that came is not the one that was approved"));
    }
    if !text.starts_with("#!/") {
        return Err(Failure::new("runbook.interpreter", "the script's first line names no program that reads it"));
    }
    Ok(text)
}

pub fn ready(task: &Task) -> Result<(), Failure> {
    script(task).map(|_| ())
}

fn bounds(task: &Task) -> Bounds {
    let number = |name: &str| task.arguments.get(name).and_then(Value::as_f64).unwrap_or_default();
    let whole = |name: &str| match task.arguments.get(name) {
        Some(Value::Bytes(bytes)) => *bytes,
        Some(Value::Integer(count)) => u64::try_from(*count).unwrap_or_default(),
        _ => 0,
    };
    Bounds { cpus: number(argument::CPUS), memory_bytes: whole(argument::MEMORY_MAX), pids: whole(argument::PIDS) }
}

/// `arg.some-name` becomes `AETHER_ARG_SOME_NAME`.
fn environment(task: &Task) -> BTreeMap<String, String> {
    let arguments = task.arguments.iter().filter_map(|(name, value)| {
        let name = name.strip_prefix(argument::OF_RUNBOOK)?;
        let name: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        let value = match value {
            Value::Duration(number) | Value::Bytes(number) => number.to_string(),
            Value::Text(_) | Value::Integer(_) | Value::Number(_) | Value::Flag(_) => value.to_string(),
        };
        Some((format!("AETHER_ARG_{name}"), value))
    });
    let mut all: BTreeMap<String, String> = arguments.collect();
    all.insert("PATH".into(), SEARCH_PATH.into());
    all.insert("LANG".into(), "C".into());
    all.insert("AETHER_NODE".into(), task.order.node.0.clone());
    all.insert("AETHER_PLAN".into(), task.order.plan.0.clone());
    all
}

/// What a script came to.
struct Ended {
    status: ExitStatus,
    output: Vec<u8>,
    /// All that it wrote, of which `output` is the beginning.
    written: u64,
}

pub fn carry_out(run: &Run, cgroups: &Cgroups, folders: &Path) -> Done {
    let task = run.task();
    let nothing = |failure: Failure| Done::failed(failure.code, format!("{}; nothing was run", failure.message));
    let text = match script(task) {
        Ok(text) => text,
        Err(failure) => return nothing(failure),
    };
    let folder = folders.join(&task.order.key.0);
    let prepared = prepare(&folder, text);
    let made = prepared
        .map_err(|error| Failure::new("agent.disk", format!("the script cannot be written: {error}")))
        .and_then(|program| Ok((program, cgroups.make(&name(task), &bounds(task))?)));
    let done = match made {
        Ok((program, made)) => {
            let done = attend(run, &program, &folder, &made);
            made.remove(LEFT_WITHIN);
            done
        }
        Err(failure) => nothing(failure),
    };
    forget(&folder);
    done
}

fn name(task: &Task) -> String {
    format!("aether-runbook-{}", task.order.key.0.get(..16).unwrap_or_default())
}

fn prepare(folder: &Path, text: &str) -> io::Result<PathBuf> {
    forget(folder);
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let program = folder.join("script");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o500).open(&program)?;
    file.write_all(text.as_bytes())?;
    Ok(program)
}

fn forget(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        warn!(%error, folder = %folder.display(), "the folder of a runbook could not be removed");
    }
}

/// Runs the script to its end, or ends it.
fn attend(run: &Run, program: &Path, folder: &Path, made: &Made) -> Done {
    let task = run.task();
    let limit = match task.arguments.get(argument::OUTPUT) {
        Some(Value::Bytes(bytes)) => usize::try_from(*bytes).unwrap_or_default(),
        _ => 0,
    };
    if let Err(error) = run.phase(RUNNING) {
        return Done::failed("agent.journal", format!("{error}; nothing was run"));
    }
    match watch(run, program, folder, made, limit) {
        Ok(Ended { status, output, written }) => {
            let text = String::from_utf8_lossy(&output).into_owned();
            let cut = u64::try_from(output.len()).unwrap_or(u64::MAX) < written;
            let done = match status.code() {
                Some(0) => Done::ok("the script ended with status 0"),
                Some(code) => Done::failed(
                    "runbook.status",
                    format!("the script ended with status {code}; what it did up to there is its own to tell"),
                ),
                None if made.out_of_memory() => {
                    Done::failed("runbook.memory", "the script was killed: it went over its memory")
                }
                None => Done::failed("runbook.killed", format!("the script was ended by a signal ({status})")),
            };
            let code = status.code().map_or(-1, i64::from);
            let mut done = done
                .evidence("status", Value::Integer(code))
                .evidence("written", Value::Bytes(written))
                .evidence("output-cut", Value::Flag(cut));
            done.outputs.insert(OUTPUT.into(), text);
            done
        }
        Err(failure) if failure.code == "runbook.start" => {
            Done::failed(failure.code, format!("{}; nothing was run", failure.message))
        }
        Err(failure) => {
            let message = format!(
                "the script was ended in the middle: {}. What it did up to there is not known",
                failure.message
            );
            Done::unknown(failure.code, message)
        }
    }
}

fn watch(run: &Run, program: &Path, folder: &Path, made: &Made, limit: usize) -> Result<Ended, Failure> {
    let start = |error: io::Error| Failure::new("runbook.start", format!("the script cannot be started: {error}"));
    let (reader, writer) = io::pipe().map_err(start)?;
    // This very program, which enters the cgroup and becomes the script: so nothing of it ever runs outside.
    let mut command = Command::new("/proc/self/exe");
    command.arg("enter").args(made.folders()).arg("--").arg(program);
    command.env_clear().envs(environment(run.task())).current_dir(folder).stdin(Stdio::null());
    command.stdout(writer.try_clone().map_err(start)?).stderr(writer);
    let mut child = command.spawn().map_err(start)?;
    drop(command);
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(drink(reader, limit));
    });
    let ended = run.poll(|| child.try_wait().transpose());
    // Also what it began and left: a runbook has an end.
    let gone = made.kill(LEFT_WITHIN);
    let status = match ended {
        Ok(Ok(status)) => status,
        Ok(Err(error)) => return Err(Failure::new("runbook.watch", error.to_string())),
        Err(interrupted) => {
            let _ = child.kill();
            let _ = child.wait();
            return Err(interrupted.into());
        }
    };
    if !gone {
        return Err(Failure::new("process.left", "something that it began does not end, though it was killed"));
    }
    let (output, written) = told.recv_timeout(LEFT_WITHIN).unwrap_or_default();
    Ok(Ended { status, output, written })
}

/// Reads all, keeps the beginning.
fn drink(mut reader: PipeReader, limit: usize) -> (Vec<u8>, u64) {
    let (mut kept, mut written) = (Vec::new(), 0u64);
    let mut piece = [0u8; 8_192];
    while let Ok(length) = reader.read(&mut piece) {
        if length == 0 {
            break;
        }
        written = written.saturating_add(u64::try_from(length).unwrap_or(u64::MAX));
        let room = limit.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(&piece[..room]);
    }
    (kept, written)
}

/// After a crash: what was left is killed; what the script did is not known.
pub fn settle(task: &Task, phase: Option<&str>, cgroups: &Cgroups, folders: &Path) -> Done {
    forget(&folders.join(&task.order.key.0));
    if phase.is_none() {
        return Done::failed("agent.restarted", "the agent was restarted before the script was run");
    }
    let left = cgroups.found(&name(task));
    let gone = left.kill(LEFT_WITHIN);
    left.remove(LEFT_WITHIN);
    let rest =
        if gone { "whatever was left of it is ended" } else { "something of it does not end, though it was killed" };
    Done::unknown(
        "agent.restarted",
        format!("the agent was restarted while the script ran; {rest}, and what it did is not known"),
    )
}

/// Enters the cgroups and becomes the program. Returns only if that fails.
pub fn enter(folders: &[PathBuf], program: &Path) -> io::Error {
    let me = std::process::id().to_string();
    for folder in folders {
        if let Err(error) = fs::write(folder.join("cgroup.procs"), &me) {
            return error;
        }
    }
    Command::new(program).exec()
}

/// Processes by their pids, as far as they live.
pub(super) fn alive(pids: &[u32]) -> Vec<ProcessRef> {
    pids.iter().filter_map(|pid| ProcessRef::find(*pid)).collect()
}
