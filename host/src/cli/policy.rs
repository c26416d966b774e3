//! `aether policy test`: a bundle's fixtures, on this machine, without a host.

use super::{say, show};
use aether_runtime::{Engine, EngineSettings, bundle};
use anyhow::Context;
use clap::Subcommand;
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, Subcommand)]
pub(super) enum Policy {
    /// Activate a bundle and run its fixtures, each twice.
    Test {
        /// The folder with `policy.toml` and `fixtures/`.
        #[arg(default_value = "policies/default")]
        folder: PathBuf,
        /// The folder with the components.
        #[arg(long, env = "AETHER_POLICY_PLUGINS_DIR", default_value = "build/plugins")]
        plugins: PathBuf,
    },
}

pub(super) async fn run(policy: Policy, json: bool) -> anyhow::Result<ExitCode> {
    let Policy::Test { folder, plugins } = policy;
    let tested = tokio::task::spawn_blocking(move || {
        let engine = Engine::new(EngineSettings::default())?;
        anyhow::Ok(bundle::test(&engine, &folder, &plugins)?)
    });
    let report = tested.await.context("the thread that ran the fixtures died")??;
    if json {
        show::json(&report.to_json())?;
    } else {
        say(&report.to_string());
    }
    Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
