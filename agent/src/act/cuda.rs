//! GPU contexts of a workload that is moved, through NVIDIA's `cuda-checkpoint`.
//!
//! CRIU cannot dump what a process has on a GPU. The tool moves it into the process's own memory first (lock, so that no
//! call is under way; checkpoint) and back after (restore, unlock). Whatever goes wrong in between, a source that goes on
//! is given its GPU back: by what the tool says of each process, not by what we remember.

use super::{
    criu::{Missing, on_path},
    hands::Failure,
    run::Run,
};
use crate::process::{self, ProcessRef};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tracing::info;

/// A file among the images: the snapshot needs `cuda-checkpoint` where it is restored.
pub const MARK: &str = "cuda-checkpoint.img";
/// How long a process may take to come to rest; the tool's own `--timeout`.
const LOCK_WITHIN: Duration = Duration::from_secs(10);
/// How long one call of the tool may take: it copies all of a GPU's memory.
const CALL_WITHIN: Duration = Duration::from_secs(300);
/// How long it may take to say a state.
const STATE_WITHIN: Duration = Duration::from_secs(10);

/// What the tool says of a process. One that has no CUDA context has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Running,
    Locked,
    Checkpointed,
    Failed,
}

/// The tool, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cuda {
    path: PathBuf,
}

impl Cuda {
    /// Looks where it was asked for, else on the PATH, and sees that it speaks `--action`.
    pub fn find(asked: Option<&Path>) -> Result<Self, Missing> {
        const ADVICE: &str = "install `cuda-checkpoint` and an NVIDIA driver of version 570 or newer, or name it with `--cuda-checkpoint`";
        let missing = |code, reason: String| Missing { code, reason, advice: ADVICE.into() };
        let path = match asked {
            Some(path) if path.is_file() => path.to_owned(),
            Some(path) => {
                return Err(missing("cuda.missing", format!("there is no cuda-checkpoint at {}", path.display())));
            }
            None => on_path("cuda-checkpoint").ok_or_else(|| {
                missing(
                    "cuda.missing",
                    "`cuda-checkpoint` is not on the PATH, so workloads with GPU contexts cannot be moved".into(),
                )
            })?,
        };
        let said = Command::new(&path).arg("--help").stdin(Stdio::null()).output();
        let said =
            said.map_err(|error| missing("cuda.broken", format!("{} cannot be run: {error}", path.display())))?;
        if !String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).contains("--action") {
            let reason = format!("{} is too old: it does not know `--action`", path.display());
            return Err(missing("cuda.old", reason));
        }
        Ok(Self { path })
    }

    /// Whether a process has anything of a GPU open.
    pub fn is_on_gpu(process: &ProcessRef) -> bool {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fd", process.pid)) else { return false };
        let open = entries.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
        open.into_iter().any(|target| target.to_str().is_some_and(|target| target.starts_with("/dev/nvidia")))
    }

    fn state(&self, process: &ProcessRef) -> Option<State> {
        let said = self.call(&["--get-state", "--pid", &process.pid.to_string()], STATE_WITHIN).ok()?;
        match said.trim() {
            "running" => Some(State::Running),
            "locked" => Some(State::Locked),
            "checkpointed" => Some(State::Checkpointed),
            _ => Some(State::Failed),
        }
    }

    fn act(&self, action: &str, process: &ProcessRef) -> Result<(), Failure> {
        let pid = process.pid.to_string();
        let timeout = LOCK_WITHIN.as_millis().to_string();
        let mut words = vec!["--action", action, "--pid", &pid];
        if action == "lock" {
            words.extend(["--timeout", &timeout]);
        }
        let failed = |why: String| {
            Failure::new("cuda.refused", format!("cuda-checkpoint could not {action} the process {pid}: {why}"))
        };
        self.call(&words, CALL_WITHIN).map(|_| ()).map_err(failed)
    }

    /// What it says, or why it failed.
    fn call(&self, words: &[&str], within: Duration) -> Result<String, String> {
        let mut command = Command::new(&self.path);
        command.args(words).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let ended = process::poll(within, || child.try_wait().transpose());
        if ended.is_none() {
            let _ = child.kill();
        }
        let said = child.wait_with_output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_string();
        match ended {
            Some(Ok(status)) if status.success() => Ok(text(&said.stdout)),
            Some(Ok(status)) => {
                let why = text(&[said.stderr, said.stdout].concat());
                Err(if why.is_empty() { status.to_string() } else { why })
            }
            Some(Err(error)) => Err(error.to_string()),
            None => Err("it did not end in time".into()),
        }
    }

    /// Moves what the processes have on GPUs into their own memory; how many there were. All are locked before the first
    /// is checkpointed, so that none waits for a peer that stands still. At a failure the caller has the workload go on.
    pub fn take_off(&self, processes: &[ProcessRef], run: &Run) -> Result<usize, Failure> {
        let mut on_gpu = Vec::new();
        for process in processes {
            match self.state(process) {
                Some(State::Running) => on_gpu.push(process),
                Some(state @ (State::Locked | State::Checkpointed | State::Failed)) => {
                    let pid = process.pid;
                    let message =
                        format!("the GPU context of the process {pid} is {state:?} already; somebody else is at it");
                    return Err(Failure::new("cuda.state", message));
                }
                None => {}
            }
        }
        for action in ["lock", "checkpoint"] {
            for process in &on_gpu {
                run.check()?;
                self.act(action, process)?;
            }
        }
        if !on_gpu.is_empty() {
            info!(processes = on_gpu.len(), "GPU contexts are taken off their GPUs");
        }
        Ok(on_gpu.len())
    }

    /// Gives GPUs back to whatever of the processes was taken off one; how many there were.
    pub fn put_back(&self, processes: &[ProcessRef]) -> Result<usize, Failure> {
        let states: Vec<_> = processes.iter().map(|process| (process, self.state(process))).collect();
        let of =
            |wanted: State| states.iter().filter(move |(_, state)| *state == Some(wanted)).map(|(process, _)| *process);
        for process in of(State::Checkpointed) {
            self.act("restore", process)?;
        }
        let mut given = 0;
        for process in of(State::Checkpointed).chain(of(State::Locked)) {
            self.act("unlock", process)?;
            given += 1;
        }
        if let Some(process) = of(State::Failed).next() {
            let message =
                format!("cuda-checkpoint says that the GPU context of the process {} has failed", process.pid);
            return Err(Failure::new("cuda.state", message));
        }
        Ok(given)
    }
}
