//! `aether serve`: the control plane, until it is told to stop.

use crate::{config::Config, serve::Host};
use clap::Args;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// A TOML file; `aether.example.toml` shows every setting.
    #[arg(long, env = "AETHER_CONFIG")]
    config: Option<PathBuf>,
}

pub(super) fn load_config(file: Option<&Path>) -> anyhow::Result<Config> {
    Ok(Config::load(file, std::env::vars())?)
}

pub(super) async fn run(serve: Serve, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = load_config(serve.config.as_deref())?;
    let data = config.server.data_dir.clone();
    let host = Host::start(&config).await?;
    super::say(&format!("Aether listens on {}", host.url));
    if host.first_start {
        super::say(&format!("The administrator's token is in {}", data.join("admin.token").display()));
    }
    if config.posture.dry_run {
        super::say("Posture: dry run. Everything is checked and nothing is changed; see [posture] in the configuration.");
    }
    host.run(stop).await?;
    Ok(())
}

/// Done when the process is asked to stop.
pub(super) async fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
