//! Gets what a command prints or an endpoint serves, within a time and a number of bytes.

use crate::clock::Stopwatch;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};
use std::{
    io::Read,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

/// Between two looks at whether a program that closed its output has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);

pub(super) fn url(url: &str, within: Duration, bytes: usize) -> Result<Vec<u8>, String> {
    let config = ureq::Agent::config_builder()
        .timeout_global(Some(within))
        // What was configured is what is asked: not where it points to, and not by way of a proxy.
        .max_redirects(0)
        .proxy(None)
        .max_idle_connections(0)
        .user_agent(concat!("aether-agent/", env!("CARGO_PKG_VERSION")))
        .accept("text/plain;version=0.0.4")
        .build();
    let mut answer = ureq::Agent::new_with_config(config).get(url).call().map_err(|error| error.to_string())?;
    if answer.status() != 200 {
        return Err(format!("it answered {}", answer.status()));
    }
    let limit = u64::try_from(bytes).unwrap_or(u64::MAX);
    answer.body_mut().with_config().limit(limit).read_to_vec().map_err(|error| match error {
        ureq::Error::BodyExceedsLimit(_) => format!("it is longer than `output_bytes` ({bytes})"),
        other => other.to_string(),
    })
}

/// A program in a process group of its own. It sees of the environment no more than PATH: the agent's own has secrets.
pub(super) fn command(program: &Path, arguments: &[String], within: Duration, bytes: usize) -> Result<Vec<u8>, String> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
    let watch = Stopwatch::start();
    let mut child = command.spawn().map_err(|error| format!("{} cannot be run: {error}", program.display()))?;
    let left = || within.saturating_sub(watch.elapsed());
    let read = child.stdout.take().ok_or("it has no output".to_string()).and_then(|out| read(out, bytes, &left));
    let read = read.and_then(|read| if has_ended(&child, &left) { Ok(read) } else { Err(OVER.to_string()) });
    // It is not reaped yet, so that its group is still its own, and no stranger is hit.
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    match read {
        Ok(read) if status.success() => Ok(read),
        Ok(_) => Err(format!("it ended with {status}")),
        Err(why) if why == OVER => Err(format!("it took longer than {} ms and was killed", within.as_millis())),
        Err(why) => Err(why),
    }
}

const OVER: &str = "its time is over";

fn read(mut out: ChildStdout, bytes: usize, left: &dyn Fn() -> Duration) -> Result<Vec<u8>, String> {
    let mut read = Vec::new();
    let mut piece = [0u8; 8 << 10];
    loop {
        let wait = Timespec::try_from(left()).map_err(|error| error.to_string())?;
        match poll(&mut [PollFd::new(&out, PollFlags::IN)], Some(&wait)) {
            Ok(0) => return Err(OVER.into()),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.to_string()),
        }
        // There is something, or its end: this does not wait.
        match out.read(&mut piece).map_err(|error| error.to_string())? {
            0 => return Ok(read),
            count => read.extend_from_slice(&piece[..count]),
        }
        if read.len() > bytes {
            return Err(format!("it printed more than `output_bytes` ({bytes}) and was killed"));
        }
    }
}

/// Waits for its end, and leaves it unreaped.
fn has_ended(child: &Child, left: &dyn Fn() -> Duration) -> bool {
    let Some(pid) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) else { return true };
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    loop {
        if !matches!(waitid(WaitId::Pid(pid), options), Ok(None)) {
            return true;
        }
        if left().is_zero() {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
