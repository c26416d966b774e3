//! `aether doctor`: can Aether run on this machine, and if not, what is to be done?

use super::{say, serve::load_config, show};
use clap::Args;
use serde::Serialize;
use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

#[derive(Debug, Args)]
pub(super) struct Doctor {
    /// The server's configuration.
    #[arg(long, env = "AETHER_CONFIG")]
    config: Option<PathBuf>,
    /// CRIU [default: looked for as agents do, on the PATH and then where `make setup` puts it].
    #[arg(long, env = "AETHER_CRIU")]
    criu: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Ok,
    /// Something is missing that Aether can do without.
    Limited,
    Bad,
}

#[derive(Debug, Serialize)]
struct Finding {
    check: &'static str,
    state: State,
    found: String,
    /// What to do about it; empty where nothing is to be done.
    advice: String,
}

impl Finding {
    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self { check, state: State::Ok, found: found.into(), advice: String::new() }
    }

    fn limited(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Limited, found: found.into(), advice: advice.into() }
    }

    fn bad(check: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { check, state: State::Bad, found: found.into(), advice: advice.into() }
    }
}

pub(super) async fn run(doctor: Doctor, json: bool) -> anyhow::Result<ExitCode> {
    // Programs are run and waited for, so not on a thread of the runtime.
    let findings = tokio::task::spawn_blocking(move || examine(&doctor)).await?;
    let bad = findings.iter().any(|finding| finding.state == State::Bad);
    if json {
        show::json(&findings)?;
    } else {
        for finding in &findings {
            let mark = match finding.state {
                State::Ok => "ok      ",
                State::Limited => "limited ",
                State::Bad => "BAD     ",
            };
            say(&format!("{mark} {:<12} {}", finding.check, finding.found));
            if !finding.advice.is_empty() {
                say(&format!("{:22}{}", "", finding.advice));
            }
        }
    }
    Ok(if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn examine(doctor: &Doctor) -> Vec<Finding> {
    let mut findings = Vec::new();
    match load_config(doctor.config.as_deref()) {
        Ok(config) => {
            findings.push(Finding::ok("config", "the configuration is right"));
            findings.push(port(config.server.listen));
            findings.push(data(&config.server.data_dir));
            findings.push(bundle(&config.policy.bundle_dir, &config.policy.plugins_dir));
        }
        Err(error) => {
            findings.push(Finding::bad("config", format!("{error:#}"), "mend the file or the variable named"))
        }
    }
    let criu = criu(&doctor.criu.clone().unwrap_or_else(find_criu));
    let has_criu = criu.state == State::Ok;
    findings.push(criu);
    findings.push(privileges(has_criu));
    findings.push(pressure());
    findings.push(guest_target());
    findings
}

fn port(listen: std::net::SocketAddr) -> Finding {
    match TcpListener::bind(listen) {
        Ok(_) => Finding::ok("port", format!("{listen} is free")),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => Finding::limited(
            "port",
            format!("{listen} is in use, perhaps by a running host"),
            "if not, choose another: `server.listen`, or `aether up --listen 127.0.0.1:7701`",
        ),
        Err(error) => Finding::bad("port", format!("{listen} cannot be listened on: {error}"), "set `server.listen`"),
    }
}

fn data(folder: &Path) -> Finding {
    let existing = folder.ancestors().find(|path| path.exists() || path.as_os_str().is_empty());
    let existing = existing.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match rustix::fs::access(existing, rustix::fs::Access::WRITE_OK) {
        Ok(()) => Finding::ok("data folder", format!("{} can be written", folder.display())),
        Err(error) => Finding::bad(
            "data folder",
            format!("{} cannot be written: {error}", existing.display()),
            "run as its owner, or set `server.data_dir`",
        ),
    }
}

fn bundle(folder: &Path, plugins: &Path) -> Finding {
    match aether_runtime::bundle::read(folder) {
        Err(error) => Finding::bad(
            "policy",
            format!("the bundle in {} cannot be read: {error}", folder.display()),
            "run in the project's folder, or set `policy.bundle_dir`",
        ),
        Ok(bundle) => {
            let wanted = bundle.slots.values().flat_map(|slot| &slot.entries).map(|entry| entry.component.as_str());
            let missing: Vec<&str> = wanted.filter(|name| !plugins.join(format!("{name}.wasm")).is_file()).collect();
            if missing.is_empty() {
                Finding::ok(
                    "policy",
                    format!("{} {}, and its components are in {}", bundle.name, bundle.version, plugins.display()),
                )
            } else {
                Finding::bad(
                    "policy",
                    format!("{} lacks {}", plugins.display(), missing.join(", ")),
                    "run `make guests`, or set `policy.plugins_dir`",
                )
            }
        }
    }
}

/// What a program prints first, if it runs.
fn first_line(program: &Path, arguments: &[&str]) -> Result<String, String> {
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    let line = String::from_utf8_lossy(text).lines().next().unwrap_or_default().trim().to_owned();
    if output.status.success() { Ok(line) } else { Err(line) }
}

fn find_criu() -> PathBuf {
    let on_path = PathBuf::from("criu");
    if first_line(&on_path, &["--version"]).is_ok() {
        return on_path;
    }
    let folder = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home.join(".cache")));
    cache.map(|cache| cache.join("aether/criu/bin/criu")).filter(|path| path.is_file()).unwrap_or(on_path)
}

fn criu(program: &Path) -> Finding {
    let advice = "run `make setup`, which installs a CRIU that works with this kernel, and put it on the PATH or name it \
                  with --criu; without it nodes refuse to checkpoint, with this reason";
    let version = match first_line(program, &["--version"]) {
        Ok(line) => line.trim_start_matches("Version:").trim().to_owned(),
        Err(error) => return Finding::limited("criu", format!("{} cannot be run: {error}", program.display()), advice),
    };
    match first_line(program, &["check"]) {
        Ok(_) => Finding::ok("criu", format!("{version}, and it works with this kernel")),
        Err(line) => Finding::limited("criu", format!("{version}, but it does not work here: {line}"), advice),
    }
}

/// CAP_SYS_ADMIN (21) or CAP_CHECKPOINT_RESTORE (40), by the kernel's numbers (capability.h).
const CAN_CHECKPOINT: u64 = 1 << 21 | 1 << 40;

fn privileges(has_criu: bool) -> Finding {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    match effective {
        Some(mask) if mask & CAN_CHECKPOINT != 0 => Finding::ok("privileges", "may checkpoint and restore processes"),
        Some(_) => Finding::limited(
            "privileges",
            "neither CAP_SYS_ADMIN nor CAP_CHECKPOINT_RESTORE is held",
            if has_criu {
                "run agents as root or with CAP_CHECKPOINT_RESTORE; the server itself needs no privilege"
            } else {
                "only agents that checkpoint need it"
            },
        ),
        None => Finding::limited("privileges", "/proc/self/status does not tell the capabilities", "is /proc mounted?"),
    }
}

fn pressure() -> Finding {
    match std::fs::read_to_string("/proc/pressure/cpu") {
        Ok(_) => Finding::ok("pressure", "the kernel tells pressure stalls (PSI)"),
        Err(error) => Finding::limited(
            "pressure",
            format!("/proc/pressure/cpu cannot be read: {error}"),
            "start the kernel with psi=1; without it agents tell load and utilization alone",
        ),
    }
}

fn guest_target() -> Finding {
    const TARGET: &str = "wasm32-unknown-unknown";
    let sysroot = match first_line(Path::new("rustc"), &["--print", "sysroot"]) {
        Ok(line) => PathBuf::from(line),
        Err(error) => {
            return Finding::limited(
                "toolchain",
                format!("rustc cannot be run: {error}"),
                "only building plugins needs it: install Rust from https://rustup.rs",
            );
        }
    };
    if sysroot.join("lib/rustlib").join(TARGET).is_dir() {
        Finding::ok("toolchain", format!("rustc builds plugins ({TARGET})"))
    } else {
        Finding::limited(
            "toolchain",
            format!("rustc lacks the target {TARGET}"),
            format!("only building plugins needs it: `rustup target add {TARGET}`"),
        )
    }
}
