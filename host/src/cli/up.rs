//! `aether up`: a fleet on this machine. A server, two agents and a demo workload, for trying Aether out; whatever it
//! starts it ends.

use super::serve::load_config;
use crate::{clock, config::Config, serve::Host, store::Store};
use aether_core::{catalogue::SafetyClass, id::NodeId};
use anyhow::{Context, bail};
use clap::Args;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};
use tokio::process::{Child, Command};

const NODES: [&str; 2] = ["node-a", "node-b"];
/// How long an agent may take to end what it started.
const STOP_LIMIT: Duration = Duration::from_secs(15);
const JOIN_TOKEN_MS: u64 = 600_000;

#[derive(Debug, Args)]
pub(super) struct Up {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:7700")]
    listen: std::net::SocketAddr,
    /// Where the fleet keeps its state. The same folder is the same fleet.
    #[arg(long, default_value = ".aether")]
    dir: PathBuf,
    /// CRIU [default: as agents find it].
    #[arg(long, env = "AETHER_CRIU")]
    criu: Option<PathBuf>,
    /// The policy bundle.
    #[arg(long, default_value = "policies/default")]
    bundle: PathBuf,
    /// The folder with the bundle's components.
    #[arg(long, default_value = "build/plugins")]
    plugins: PathBuf,
}

pub(super) async fn run(up: Up, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    fs::create_dir_all(&up.dir).with_context(|| format!("cannot make the folder {}", up.dir.display()))?;
    let dir = up.dir.canonicalize()?;
    let config = config(&up, &dir)?;
    let host = Host::start(&config).await?;
    let mut agents = Vec::new();
    let store = Store::open(&config.server.data_dir.join("aether.db")).await?;
    for node in NODES {
        agents.push((node, start_agent(&up, &dir, node, &host.url, &store).await?));
    }
    store.close().await;
    greet(&host, &dir);
    let mut died = None;
    let mut failed = None;
    host.run(async {
        let (a, b) = agents.split_at_mut(1);
        died = tokio::select! {
            () = stop => None,
            status = a[0].1.wait() => Some((NODES[0], status)),
            status = b[0].1.wait() => Some((NODES[1], status)),
        };
        super::say("Stopping: agents, workloads, server.");
        if let Err(error) = stop_agents(&mut agents).await {
            failed = Some(error);
        }
    })
    .await?;
    if let Some(error) = failed {
        return Err(error);
    }
    if let Some((node, status)) = died {
        bail!("the agent of {node} ended by itself ({}); see {}", status?, dir.join(format!("{node}.log")).display());
    }
    Ok(())
}

/// The local fleet acts for real, which the defaults do not; every other setting is as it stands.
fn config(up: &Up, dir: &Path) -> anyhow::Result<Config> {
    let mut config = load_config(None)?;
    config.server.listen = up.listen;
    config.server.data_dir = dir.join("host");
    config.policy.bundle_dir.clone_from(&up.bundle);
    config.policy.plugins_dir.clone_from(&up.plugins);
    config.posture.dry_run = false;
    config.posture.approval_required = true;
    config.posture.highest_live_class = SafetyClass::Impactful;
    config.control.grace_ms = 2_000;
    config.recorder.seal_interval_ms = 2_000;
    if !config.server.listen.ip().is_loopback() {
        bail!("`aether up` is for this machine alone: listen on 127.0.0.1, or run `aether serve` with TLS");
    }
    Ok(config)
}

fn greet(host: &Host, dir: &Path) {
    super::say(&format!(
        "\nAether is running.\n\n  web page   {url}\n  sign in    {token}\n\n\
         The fleet: node-a with a demo workload that counts, and node-b. Both are this machine.\n\
         Posture: live. Changes up to `impactful` run for real once a person has approved them.\n\n\
         Try it     {aether} drill start\n\
         \x20          plays a spot reclaim against node-a; then approve on the page, or\n\
         \x20          {aether} incidents\n\
         State      {dir}   (logs: node-a.log, node-b.log)\n\n\
         Ctrl-C stops everything that this has started.\n",
        url = host.url,
        token = host.token,
        dir = dir.display(),
        aether = own_name(),
    ));
}

/// How this program is called from the folder that it was started in.
fn own_name() -> String {
    let name = std::env::current_exe().ok().map(|path| {
        let here = std::env::current_dir().ok();
        here.and_then(|here| path.strip_prefix(here).ok().map(Path::to_owned)).unwrap_or(path)
    });
    name.map_or_else(|| "aether".into(), |path| path.display().to_string())
}

async fn start_agent(up: &Up, dir: &Path, node: &str, url: &str, store: &Store) -> anyhow::Result<Child> {
    let state = dir.join(node);
    fs::create_dir_all(&state)?;
    let config = dir.join(format!("{node}.toml"));
    fs::write(&config, agent_config(dir, node, url)?)?;
    let program = beside("aether-agent")?;
    let log = File::options().create(true).append(true).open(dir.join(format!("{node}.log")))?;
    let token = store.create_join_token(Some(&NodeId::new(node)), clock::now().plus_ms(JOIN_TOKEN_MS)).await?;
    let mut command = std::process::Command::new(&program);
    command
        .args(["run", "--stop-workloads-on-exit", "--config"])
        .arg(&config)
        .arg("--state")
        .arg(&state)
        .env("AETHER_JOIN_TOKEN", token)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own, so that Ctrl-C in the terminal reaches this program alone, which then ends the agents.
        .process_group(0);
    if let Some(criu) = &up.criu {
        command.arg("--criu").arg(criu);
    }
    die_with_us(&mut command);
    let mut command = Command::from(command);
    command.kill_on_drop(true);
    command.spawn().with_context(|| format!("cannot start {}", program.display()))
}

/// However this program ends, kill -9 included, the agent is asked to end, too. The kernel asks when the *thread* that
/// started it ends: here that is the main thread, which lasts as long as the program.
#[allow(unsafe_code, reason = "there is no safe way to do something between fork and exec")]
fn die_with_us(command: &mut std::process::Command) {
    let ask = || rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).map_err(std::io::Error::from);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed; this makes one system call, prctl, and
    // touches no memory that another thread could hold locked.
    unsafe { command.pre_exec(ask) };
}

fn agent_config(dir: &Path, node: &str, url: &str) -> anyhow::Result<String> {
    let text = |value: &Path| toml::Value::String(value.display().to_string()).to_string();
    // This machine alone, and for trying out: drills may disturb it.
    let mut config = format!("node = \"{node}\"\nhost = \"{url}\"\n\n[drill]\nallowed = true\n");
    if node == NODES[0] {
        let file = dir.join("demo-counter.progress");
        config.push_str(&format!(
            "\n[[workloads]]\nid = \"demo-counter\"\nname = \"Demo counter\"\ntier = \"standard\"\n\
             command = [{program}, \"--file\", {file}]\nprogress_file = {file}\n",
            program = text(&beside("aether-demo-workload")?),
            file = text(&file),
        ));
    }
    Ok(config)
}

/// A program that was built beside this one.
fn beside(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(name);
    if !path.exists() {
        bail!("{} is not there; build it with `cargo build -p aether-agent`", path.display());
    }
    Ok(path)
}

/// Asks, waits, and only then insists.
async fn stop_agents(agents: &mut [(&str, Child)]) -> anyhow::Result<()> {
    for (_, agent) in agents.iter() {
        if let Some(pid) = agent.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
    }
    for (node, agent) in agents {
        if tokio::time::timeout(STOP_LIMIT, agent.wait()).await.is_err() {
            tracing::warn!(node, "the agent did not end in time and is killed; its workloads may still run");
            agent.kill().await?;
        }
    }
    Ok(())
}
