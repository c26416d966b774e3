//! The binary `aether`: the server, a local fleet, and the client.

mod serve;
mod up;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Control plane for GPU and AI infrastructure.
#[derive(Debug, Parser)]
#[command(name = "aether", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the control plane.
    Serve(serve::Serve),
    /// Run a whole fleet on this machine: a server, two agents and a demo workload.
    Up(up::Up),
}

/// Parses the arguments and does what they say.
pub fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match cli.command {
            Command::Serve(serve) => {
                log();
                serve::run(serve, serve::stop_signal().await?).await
            }
            Command::Up(up) => {
                log();
                up::run(up, serve::stop_signal().await?).await
            }
        }
    })
}

/// Structured lines on standard error; `RUST_LOG` chooses what.
fn log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
}

/// A line for the person at the terminal.
#[allow(clippy::print_stdout, reason = "the command line speaks to a person")]
fn say(line: &str) {
    println!("{line}");
}
