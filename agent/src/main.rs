//! The agent's command line.

use aether_agent::{
    config::{Config, Overrides},
    privileges,
};
use anyhow::Context;
use clap::{Args, Parser, Subcommand};
use std::{path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// What loading eBPF takes for a moment is given back: see `docs/decisions/0012-allocator.md`.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Aether's node agent: telemetry up, approved actions down.
#[derive(Parser)]
#[command(name = "aether-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the agent until SIGTERM or SIGINT.
    Run {
        #[command(flatten)]
        settings: Settings,
    },
    /// Say what this machine can do for Aether, and for what it cannot: why, and what to do.
    Doctor {
        #[command(flatten)]
        settings: Settings,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Enter cgroups and become a program. The agent runs it on itself, for a runbook's script.
    #[command(hide = true)]
    Enter {
        folders: Vec<PathBuf>,
        #[arg(last = true)]
        program: PathBuf,
    },
    /// Disturb the node, in cgroups and until a time. The agent runs it on itself, for a drill.
    #[command(hide = true)]
    Disturb {
        what: String,
        #[arg(long)]
        until_ms: i64,
        folders: Vec<PathBuf>,
    },
    /// Print a commented configuration with every setting and its default.
    ExampleConfig,
}

#[derive(Args)]
struct Settings {
    /// A TOML file; see `example-config`.
    #[arg(long, env = "AETHER_CONFIG")]
    config: Option<PathBuf>,
    /// The name of this node in the fleet.
    #[arg(long, env = "AETHER_NODE")]
    node: Option<String>,
    /// The host's address [default: http://127.0.0.1:7700].
    #[arg(long, env = "AETHER_HOST")]
    host: Option<String>,
    /// A PEM file with the authority that signed the host's certificate.
    #[arg(long, env = "AETHER_HOST_CA")]
    host_ca: Option<PathBuf>,
    /// A folder for this agent alone.
    #[arg(long, env = "AETHER_STATE")]
    state: Option<PathBuf>,
    /// The one-time token to join with.
    #[arg(long, env = "AETHER_JOIN_TOKEN", hide_env_values = true)]
    join_token: Option<String>,
    /// A file with that token.
    #[arg(long, env = "AETHER_JOIN_TOKEN_FILE")]
    join_token_file: Option<PathBuf>,
    /// CRIU [default: looked for on the PATH, then where `make setup` puts it].
    #[arg(long, env = "AETHER_CRIU")]
    criu: Option<PathBuf>,
    /// NVML, the NVIDIA driver's library [default: looked for by the loader].
    #[arg(long, env = "AETHER_NVML")]
    nvml: Option<PathBuf>,
    /// NVIDIA's cuda-checkpoint [default: looked for on the PATH].
    #[arg(long, env = "AETHER_CUDA_CHECKPOINT")]
    cuda_checkpoint: Option<PathBuf>,
    /// Only pretend to act, and say so everywhere.
    #[arg(long)]
    simulate: bool,
    /// End the workloads when the agent ends; usually they go on.
    #[arg(long)]
    stop_workloads_on_exit: bool,
}

impl Settings {
    fn load(self, defaults: Overrides) -> anyhow::Result<Config> {
        let overrides = Overrides {
            node: self.node.or(defaults.node),
            host: self.host,
            host_ca: self.host_ca,
            state: self.state.or(defaults.state),
            join_token: self.join_token,
            join_token_file: self.join_token_file,
            criu: self.criu,
            nvml: self.nvml,
            cuda_checkpoint: self.cuda_checkpoint,
            simulate: self.simulate,
            stop_workloads_on_exit: self.stop_workloads_on_exit,
        };
        Config::load(self.config.as_deref(), overrides, |name| std::env::var(name).ok())
            .context("the configuration is not right; nothing was started [AE0040]")
    }
}

#[allow(clippy::print_stderr, reason = "the command line speaks to a person")]
fn main() -> ExitCode {
    match act(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("aether-agent: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn act(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Run { settings } => {
            let filter = EnvFilter::try_from_env("AETHER_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
            tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
            let config = settings.load(Overrides::default())?;
            // Before there is a second thread, which would keep them.
            match privileges::give_up() {
                Ok(surplus) if surplus.is_empty() => {}
                Ok(surplus) => {
                    tracing::info!(given_up = surplus.join(" "), "the agent keeps the privileges that it uses")
                }
                Err(error) => tracing::warn!(%error, "privileges that are not used could not be given up"),
            }
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .context("the runtime cannot be started")?;
            runtime.block_on(run(config))
        }
        Command::Doctor { settings, json } => doctor(settings, json),
        Command::Enter { folders, program } => {
            let error = aether_agent::act::control::runbook::enter(&folders, &program);
            Err(error).with_context(|| format!("{} could not be begun", program.display()))
        }
        Command::Disturb { what, until_ms, folders } => {
            let until = aether_core::time::Time(until_ms);
            aether_agent::drill::disturb::run(&what, until, &folders).context("the drill's process could not disturb")
        }
        Command::ExampleConfig => {
            print(aether_agent::config::EXAMPLE);
            Ok(())
        }
    }
}

async fn run(config: Config) -> anyhow::Result<()> {
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let agent = aether_agent::agent::run(config, shutdown.clone());
    tokio::pin!(agent);
    loop {
        tokio::select! {
            ended = &mut agent => return Ok(ended?),
            _ = terminate.recv() => shutdown.cancel(),
            _ = interrupt.recv() => shutdown.cancel(),
        }
    }
}

fn doctor(settings: Settings, json: bool) -> anyhow::Result<()> {
    // A machine can be asked before it has a name or a folder.
    let defaults = Overrides { node: Some("doctor".into()), state: Some(std::env::temp_dir()), ..Overrides::default() };
    let named = settings.node.is_some() || settings.config.is_some();
    let config = settings.load(if named { Overrides::default() } else { defaults })?;
    let findings = aether_agent::agent::examine(&config)?;
    if json {
        print(&format!("{}\n", serde_json::to_string_pretty(&findings)?));
        return Ok(());
    }
    for (name, value) in &findings.facts {
        print(&format!("{name:<24} {value}\n"));
    }
    for finding in &findings.capabilities {
        let state = match (finding.available, finding.simulated) {
            (true, true) => "simulated",
            (true, false) => "ok",
            (false, _) => "missing",
        };
        print(&format!("{:<24} {state}\n", finding.name));
        for line in [&finding.reason, &finding.advice].into_iter().flatten() {
            print(&format!("{:<24}   {line}\n", ""));
        }
        if let Some(fallback) = &finding.fallback {
            print(&format!("{:<24}   instead: {fallback}\n", ""));
        }
    }
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this is the command line")]
fn print(text: &str) {
    print!("{text}");
}
