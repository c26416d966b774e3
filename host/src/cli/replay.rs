//! `aether replay`: a recorded decision executed again, on its host or from a file on any machine.

use super::{
    SHORT,
    client::{Client, escaped},
    say, show,
};
use crate::plugins::replay::{File, ReplayVerdict, Replayed};
use aether_runtime::{Engine, EngineSettings};
use anyhow::{Context, bail};
use clap::Args;
use std::{path::PathBuf, process::ExitCode};

#[derive(Debug, Args)]
pub(super) struct Replay {
    /// The decision's id. Its host executes it.
    #[arg(required_unless_present = "file", conflicts_with = "file")]
    decision: Option<String>,
    /// A file of `aether decisions export`. This program executes it, without a host.
    #[arg(long)]
    file: Option<PathBuf>,
}

/// Exit codes: 0 identical, 3 it differs, 1 it could not be executed.
pub(super) async fn run(
    replay: Replay,
    client: impl Fn() -> anyhow::Result<Client>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let replayed: Replayed = match (replay.decision, replay.file) {
        (_, Some(path)) => {
            let bytes = std::fs::read(&path).with_context(|| format!("the file {} cannot be read", path.display()))?;
            let replayed = tokio::task::spawn_blocking(move || {
                let engine = Engine::new(EngineSettings::default())?;
                anyhow::Ok(File::parse(&bytes)?.replay(&engine)?)
            });
            replayed.await.context("the thread that executed it died")??
        }
        (Some(decision), None) => client()?.post(&format!("decisions/{}/replay", escaped(&decision)), &()).await?,
        (None, None) => bail!("say which decision, or which --file"),
    };
    if json {
        show::json(&replayed)?;
    } else {
        print(&replayed);
    }
    Ok(match replayed.verdict {
        ReplayVerdict::Identical => ExitCode::SUCCESS,
        ReplayVerdict::OutputDiffers | ReplayVerdict::HostCallDiverges | ReplayVerdict::ComponentMismatch => {
            ExitCode::from(SHORT)
        }
        ReplayVerdict::EngineMismatch | ReplayVerdict::HostVerdict => ExitCode::FAILURE,
    })
}

fn print(replayed: &Replayed) {
    let Replayed { decision, verdict, summary, component, component_name, component_version, engine, differences } =
        replayed;
    let word = match verdict {
        ReplayVerdict::Identical => "identical",
        ReplayVerdict::OutputDiffers => "output differs",
        ReplayVerdict::HostCallDiverges => "host call diverges",
        ReplayVerdict::EngineMismatch => "engine mismatch",
        ReplayVerdict::ComponentMismatch => "component mismatch",
        ReplayVerdict::HostVerdict => "host's verdict",
    };
    say(&format!("{word}: {summary}"));
    say(&format!("{decision}, {component_name} {component_version} ({}), {engine}", component.short()));
    if !differences.is_empty() {
        let rows: Vec<_> = differences
            .iter()
            .map(|difference| {
                [
                    difference.at.clone(),
                    show::short(&difference.recorded.to_string(), 60),
                    show::short(&difference.replayed.to_string(), 60),
                ]
            })
            .collect();
        say("");
        show::table(["WHERE", "RECORDED", "REPLAYED"], &rows);
    }
}
