//! `aether serve`: the control plane, until it is told to stop.

use crate::{config::Config, serve::Host};
use anyhow::Context;
use clap::Args;
use std::path::{Path, PathBuf};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Debug, Args)]
pub(super) struct Serve {
    /// A TOML file; `aether config example` prints one with every setting.
    #[arg(long, env = "AETHER_CONFIG")]
    config: Option<PathBuf>,
}

impl Serve {
    pub(super) fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }
}

pub(super) fn load_config(file: Option<&Path>) -> anyhow::Result<Config> {
    // A variable that is not Unicode cannot be one of ours.
    let environment =
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(Config::load(file, environment)?)
}

pub(super) async fn run(serve: Serve, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
    let config = load_config(serve.config())?;
    let data = config.server.data_dir.clone();
    let host = Host::start(&config).await?;
    super::say(&format!("Aether listens on {}", host.url));
    if host.first_start {
        super::say(&format!("Administrator's token, also in {}: {}", data.join("admin.token").display(), host.token));
    }
    if config.posture.dry_run {
        super::say(
            "Posture: dry run. Everything is checked and nothing is changed; see [posture] in the configuration.",
        );
    }
    host.run(stop).await?;
    Ok(())
}

/// Done when the process is asked to stop.
pub(super) fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("signals cannot be received")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("signals cannot be received")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}
