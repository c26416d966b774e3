//! What a plugin costs: fuel and memory, which are the same everywhere, and time, which is this machine's.

use super::{cases, load, project::Project};
use crate::cli::{say, show};
use aether_runtime::{
    Engine, EngineSettings,
    fixture::{self, Activations},
};
use anyhow::{Context, ensure};
use serde::Serialize;
use std::{path::Path, time::Duration};
use tokio::time::Instant;

/// One plugin on one machine.
#[derive(Debug, Serialize)]
pub(super) struct Figures {
    plugin: String,
    digest: String,
    /// From bytes to something that can be activated.
    load_us: u64,
    /// From a config to something that can be asked.
    activate_us: u64,
    rounds: u32,
    /// A host that was built without optimisation measures itself.
    debug_host: bool,
    fixtures: Vec<Figure>,
}

/// One question.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    fuel: u64,
    memory_bytes: u64,
    median_us: f64,
    p99_us: f64,
}

pub(super) fn bench(project: &Project, component: &Path, rounds: u32) -> anyhow::Result<Figures> {
    // Measured without what an earlier run left behind.
    let engine = Engine::new(EngineSettings::default())?;
    let started = Instant::now();
    let component = load(&engine, component)?;
    let load_us = micros(started.elapsed());
    let assets = project.assets()?;
    let digest = component.digest().to_string();
    let manifest = &project.manifest;
    let mut activations = Activations::new(component, manifest.config.clone(), manifest.limits.clone(), assets);
    let (mut activate_us, mut fixtures) = (0, Vec::new());
    for file in cases(project)? {
        let case = file.parsed.map_err(anyhow::Error::msg).with_context(|| format!("the fixture {}", file.name))?;
        let started = Instant::now();
        // A config that is refused by intent answers no question.
        let Ok(prepared) = activations.of(&case) else { continue };
        activate_us = activate_us.max(micros(started.elapsed()));
        // The first ones fill caches that a running host has full.
        let warm_up = rounds.div_ceil(10);
        let runs: Vec<_> = (0..warm_up + rounds)
            .map(|_| prepared.evaluate(&case.question, fixture::environment(&case.question)))
            .collect();
        let mut times: Vec<Duration> = runs.iter().skip(warm_up as usize).map(|run| run.duration).collect();
        times.sort_unstable();
        let at = |share: f64| {
            // At most the last of `rounds`.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a small count")]
            let index = (times.len() as f64 * share) as usize;
            times.get(index.min(times.len() - 1)).map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        let Some(run) = runs.last() else { continue };
        let (fuel, memory_bytes) = (run.fuel, run.memory_bytes);
        fixtures.push(Figure { name: file.name, fuel, memory_bytes, median_us: at(0.5), p99_us: at(0.99) });
    }
    ensure!(!fixtures.is_empty(), "{} has no fixture to measure", project.folder.join("fixtures").display());
    Ok(Figures {
        plugin: project.manifest.name.clone(),
        digest,
        load_us,
        activate_us,
        rounds,
        debug_host: cfg!(debug_assertions),
        fixtures,
    })
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl Figures {
    pub(super) fn show(&self) {
        let rows: Vec<_> = self
            .fixtures
            .iter()
            .map(|figure| {
                [
                    figure.name.clone(),
                    figure.fuel.to_string(),
                    format!("{} KiB", figure.memory_bytes.div_ceil(1024)),
                    format!("{:.0} us", figure.median_us),
                    format!("{:.0} us", figure.p99_us),
                ]
            })
            .collect();
        show::table(["FIXTURE", "FUEL", "MEMORY", "MEDIAN", "P99"], &rows);
        let Figures { load_us, activate_us, rounds, .. } = self;
        say(&format!(
            "{rounds} rounds each; compiled in {:.1} ms, activated in {:.1} ms",
            *load_us as f64 / 1e3,
            *activate_us as f64 / 1e3
        ));
        if self.debug_host {
            say(
                "This `aether` was built without optimisation: its own part of the times is several times what it should be.",
            );
        }
    }
}
