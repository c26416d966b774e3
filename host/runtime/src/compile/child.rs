//! The compiler as a process of its own. The host writes one line of JSON and the component's bytes to its standard
//! input, and reads one line of JSON and the code from its standard output; what goes wrong is one line of JSON on its
//! standard error.
//!
//! The child limits itself before it reads the first byte of a component: processor time, memory, no files, no core
//! dump, a low priority, and it dies with its parent. The parent keeps the clock. So a component that would take
//! hours or all memory costs its uploader an error.

use super::{CompileError, CompileLimits, Head, Kind, artifact::Artifact, work};
use crate::engine;
use rustix::process::{
    DumpableBehavior, Pid, PidfdFlags, Resource, Rlimit, Signal, pidfd_open, pidfd_send_signal, set_dumpable_behavior,
    set_parent_process_death_signal, setpriority_process, setrlimit,
};
use serde::{Deserialize, Serialize};
use std::{
    ffi::OsString,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Command, ExitCode, ExitStatus, Stdio},
    sync::mpsc,
    thread,
};

const LINE_BYTES_MAX: u64 = 64 << 10;
/// Low: a tenth of what the host's threads get, where both want the processor. At the very lowest, a compilation on a busy
/// machine would never end.
const PRIORITY: i32 = 10;
/// From the signal that ends the child to the one that cannot be caught.
const CPU_GRACE_S: u64 = 2;
const OPEN_FILES: u64 = 32;

/// What the parent wants; the component's bytes follow.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    kind: Kind,
    stack_bytes: usize,
    cpu_s: u64,
    memory_bytes: u64,
}

/// What the child made; `bytes` of code follow.
#[derive(Debug, Serialize, Deserialize)]
struct Made {
    #[serde(flatten)]
    head: Head,
    bytes: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct Refusal {
    error: String,
}

/// The main of the child: reads a component, writes its code, and returns.
#[must_use]
pub fn serve() -> ExitCode {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let served = (|| -> Result<(), String> {
        let told = |error: io::Error| error.to_string();
        let order: Order = read_line(&mut input).map_err(told)?;
        confine(&order).map_err(|error| format!("the compiler cannot limit itself: {error}"))?;
        let mut bytes = Vec::new();
        input.read_to_end(&mut bytes).map_err(told)?;
        let engine = wasmtime::Engine::new(&engine::compile_only(order.stack_bytes)).map_err(|e| format!("{e:#}"))?;
        let (head, code) = work(&engine, order.kind, &bytes)?;
        let made = serde_json::to_string(&Made { head, bytes: code.len() as u64 }).map_err(|e| e.to_string())?;
        writeln!(output, "{made}").and_then(|()| output.write_all(&code)).and_then(|()| output.flush()).map_err(told)
    })();
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If nobody listens any more, the exit code still tells.
            if let Ok(line) = serde_json::to_string(&Refusal { error }) {
                let _ = writeln!(io::stderr(), "{line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn confine(order: &Order) -> rustix::io::Result<()> {
    let limit =
        |resource, soft: u64, hard: u64| setrlimit(resource, Rlimit { current: Some(soft), maximum: Some(hard) });
    setpriority_process(None, PRIORITY)?;
    // Dies with the thread that waits for it, and so with the host.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    limit(Resource::Core, 0, 0)?;
    limit(Resource::Fsize, 0, 0)?;
    limit(Resource::Nofile, OPEN_FILES, OPEN_FILES)?;
    // What is written to, not what is reserved: allocators and threads reserve much that they never touch.
    limit(Resource::Data, order.memory_bytes, order.memory_bytes)?;
    limit(Resource::Cpu, order.cpu_s, order.cpu_s.saturating_add(CPU_GRACE_S))
}

/// What came of a child.
struct Ended {
    status: ExitStatus,
    overdue: bool,
    output: Output,
    complaint: String,
}

enum Output {
    Whole(Head, Vec<u8>),
    TooLarge,
    /// Cut short, or nonsense.
    Broken,
}

/// Compiles `bytes` in a child. Blocks until it is done or was stopped.
pub(super) fn compile(
    program: &Path,
    arguments: &[OsString],
    limits: &CompileLimits,
    kind: Kind,
    stack_bytes: usize,
    bytes: &[u8],
) -> Result<(Head, Artifact), CompileError> {
    let order = Order { kind, stack_bytes, cpu_s: limits.cpu_s, memory_bytes: limits.memory_bytes };
    let ended = run(program, arguments, limits, &order, bytes).map_err(CompileError::Unavailable)?;
    match ended.output {
        Output::Whole(head, code) if ended.status.success() => return Ok((head, Artifact::compiled(code))),
        Output::TooLarge => return Err(CompileError::Size { bytes: limits.artifact_bytes }),
        Output::Whole(..) | Output::Broken => {}
    }
    Err(verdict(&ended, limits))
}

/// Why a child gave no code.
fn verdict(ended: &Ended, limits: &CompileLimits) -> CompileError {
    if ended.overdue {
        return CompileError::Time { seconds: limits.wall.as_secs() };
    }
    if ended.status.signal() == Some(Signal::XCPU.as_raw()) {
        return CompileError::Time { seconds: limits.cpu_s };
    }
    // What Rust says before it aborts, and what the kernel says to a refused mapping.
    if ended.complaint.contains("memory allocation of") || ended.complaint.contains("(os error 12)") {
        return CompileError::Memory { bytes: limits.memory_bytes };
    }
    if let Some(Refusal { error }) = ended.complaint.lines().find_map(|line| serde_json::from_str(line).ok()) {
        return CompileError::Refused(error);
    }
    let said: String = ended.complaint.lines().next().unwrap_or("it said nothing").chars().take(300).collect();
    CompileError::Killed(format!("{} ({said})", ended.status))
}

fn run(
    program: &Path,
    arguments: &[OsString],
    limits: &CompileLimits,
    order: &Order,
    bytes: &[u8],
) -> io::Result<Ended> {
    let mut line = serde_json::to_string(order)?;
    line.push('\n');
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // Names this child and no other, also after it ended.
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
    let handle = match handle {
        Ok(handle) => handle,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error.into());
        }
    };
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (stdin, stdout, stderr) else {
        return Err(io::Error::other("the compiler has no pipes"));
    };
    let (ended, end) = mpsc::channel();
    thread::scope(|scope| {
        scope.spawn(move || {
            // A child that ends early closes its pipe; why is told by its end.
            let _ = stdin.write_all(line.as_bytes()).and_then(|()| stdin.write_all(bytes));
        });
        let output = scope.spawn(move || read_output(stdout, limits.artifact_bytes));
        let complaint = scope.spawn(move || {
            let mut complaint = Vec::new();
            let _ = stderr.take(LINE_BYTES_MAX).read_to_end(&mut complaint);
            String::from_utf8_lossy(&complaint).into_owned()
        });
        scope.spawn(move || {
            // The receiver is there until this has been sent.
            let _ = ended.send(child.wait());
        });
        let (status, overdue) = match end.recv_timeout(limits.wall) {
            Ok(status) => (status?, false),
            Err(_) => {
                // It may have ended just now; then there is nobody to stop.
                let _ = pidfd_send_signal(&handle, Signal::KILL);
                (end.recv().map_err(io::Error::other)??, true)
            }
        };
        let output = output.join().unwrap_or(Output::Broken);
        let complaint = complaint.join().unwrap_or_default();
        Ok(Ended { status, overdue, output, complaint })
    })
}

/// Ends the reading, and with it the child, as soon as there is more than may be.
fn read_output(stdout: impl Read, bytes_maximum: u64) -> Output {
    let mut stdout = BufReader::new(stdout);
    let Ok(Made { head, bytes }) = read_line(&mut stdout) else { return Output::Broken };
    if bytes > bytes_maximum {
        return Output::TooLarge;
    }
    let mut code = Vec::new();
    match stdout.take(bytes.saturating_add(1)).read_to_end(&mut code) {
        Ok(read) if read as u64 == bytes => Output::Whole(head, code),
        Ok(_) | Err(_) => Output::Broken,
    }
}

fn read_line<T: for<'a> Deserialize<'a>>(input: &mut impl io::BufRead) -> io::Result<T> {
    let mut line = Vec::new();
    input.take(LINE_BYTES_MAX).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line)?)
}
