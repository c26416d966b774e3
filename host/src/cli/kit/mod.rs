//! `aether plugin new`, `build`, `test`, `bench` and `toolchain`: from an empty folder to a component with figures. No
//! host is asked, and nothing of this repository is needed: the kits of `sdk/kits/` are in the binary.

mod bench;
mod bindings;
mod build;
mod component;
mod project;
mod script;

use super::{say, show};
use crate::serve::code_key;
use aether_core::decision::Role;
use aether_runtime::{
    CacheKey, CacheSettings, Component, Engine, EngineSettings,
    fixture::{self, Activations, Case, FixtureResult},
};
use anyhow::{Context, bail};
use clap::{Subcommand, ValueEnum};
use project::Project;
use rust_embed::RustEmbed;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

/// One folder a language, and the cases that all of them answer.
#[derive(RustEmbed)]
#[folder = "../sdk/kits"]
struct Kits;

/// What plugins in Rust share, which a project in Rust gets a copy of.
#[derive(RustEmbed)]
#[folder = "../sdk/rust/src"]
struct RustKit;

/// The contract, which every project gets a copy of.
const WIT: &str = include_str!("../../../../wit/aether.wit");

#[derive(Debug, Subcommand)]
pub(super) enum Kit {
    /// Start a plugin: a folder with source, fixtures and the contract, ready to build.
    New {
        /// The component's name: 1 to 63 of `a-z 0-9 - .`.
        name: String,
        #[arg(long)]
        lang: Lang,
        /// What it is for.
        #[arg(long, value_parser = world)]
        world: Role,
        /// Where to put it [default: a folder of that name].
        #[arg(long)]
        folder: Option<PathBuf>,
    },
    /// Build the plugin in a folder into a component.
    Build {
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Build it if its source has changed, and ask it its fixtures, each twice.
    Test {
        #[arg(default_value = ".")]
        folder: PathBuf,
    },
    /// Build it if its source has changed, and measure fuel, memory and latency of its fixtures.
    Bench {
        #[arg(default_value = ".")]
        folder: PathBuf,
        /// Evaluations of each fixture.
        #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        rounds: u32,
    },
    /// Get what a language needs to build plugins, below `~/.cache/aether`.
    Toolchain {
        lang: Lang,
        /// Only say what is there.
        #[arg(long)]
        check: bool,
    },
}

/// A language that has a kit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(super) enum Lang {
    Rust,
    Js,
    Python,
    C,
    Go,
}

impl Lang {
    /// As on the command line, in `plugin.toml`, and as the kit's folder is called.
    fn name(self) -> &'static str {
        match self {
            Lang::Rust => "rust",
            Lang::Js => "js",
            Lang::Python => "python",
            Lang::C => "c",
            Lang::Go => "go",
        }
    }
}

fn world(text: &str) -> Result<Role, String> {
    Role::ALL.into_iter().find(|role| role.world() == text).ok_or_else(|| {
        let worlds: Vec<_> = Role::ALL.iter().map(|role| role.world()).collect();
        format!("give one of {}", worlds.join(", "))
    })
}

pub(super) async fn run(kit: Kit, json: bool) -> anyhow::Result<ExitCode> {
    // All of it waits for compilers and components.
    tokio::task::spawn_blocking(move || act(kit, json)).await.context("the thread that did the work died")?
}

fn act(kit: Kit, json: bool) -> anyhow::Result<ExitCode> {
    match kit {
        Kit::New { name, lang, world, folder } => {
            let folder = folder.unwrap_or_else(|| PathBuf::from(&name));
            let project = Project::create(&folder, &name, lang, world)?;
            if json {
                show::json(&json!({ "folder": project.folder, "name": name, "lang": lang, "world": world }))?;
            } else {
                let at = folder.display();
                say(&format!("{at} is a {} in {}. Its README says what to change; then", world.world(), lang.name()));
                say(&format!("  aether plugin test {at}\n  aether plugin bench {at}"));
            }
        }
        Kit::Build { folder } => {
            let project = Project::open(&folder)?;
            let built = build::build(&project)?;
            if json {
                show::json(&built)?;
            } else {
                say(&built.to_string());
            }
        }
        Kit::Test { folder } => {
            let project = Project::open(&folder)?;
            let built = build::build(&project)?;
            let report = test(&project, &built.component)?;
            let passed = !report.is_empty() && report.iter().all(FixtureResult::passed);
            if json {
                let fixtures: Vec<_> = report.iter().map(FixtureResult::to_json).collect();
                show::json(&json!({ "plugin": project.manifest.name, "passed": passed, "fixtures": fixtures }))?;
            } else {
                let good = report.iter().filter(|result| result.passed()).count();
                let lines: String = report.iter().map(ToString::to_string).collect();
                say(&format!("{built}\n{lines}{good} of {} fixtures passed", report.len()));
                if report.is_empty() {
                    say("a plugin without fixtures does not pass: put a question into fixtures/");
                }
            }
            return Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Kit::Bench { folder, rounds } => {
            let project = Project::open(&folder)?;
            let built = build::build(&project)?;
            let figures = bench::bench(&project, &built.component, rounds)?;
            if json {
                show::json(&figures)?;
            } else {
                say(&built.to_string());
                figures.show();
            }
        }
        Kit::Toolchain { lang, check } => {
            let there = script::present(lang);
            match there {
                Ok(what) => say(&format!("{}: {what}", lang.name())),
                Err(why) if check => bail!("{}: {why}", lang.name()),
                Err(_) => {
                    script::install(lang)?;
                    say(&format!("{}: {}", lang.name(), script::present(lang).map_err(anyhow::Error::msg)?));
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Compiled code is kept beside the project: a component with a language's runtime in it takes seconds.
fn engine(project: &Project) -> anyhow::Result<Engine> {
    const CODE_BYTES_MAX: u64 = 1 << 30;
    let scratch = project.scratch();
    let key = CacheKey(code_key(&scratch.join("code.key"))?);
    let cache = CacheSettings { folder: scratch.join("code"), key, bytes: CODE_BYTES_MAX };
    Ok(Engine::new(EngineSettings { cache: Some(cache), ..EngineSettings::default() })?)
}

fn load(engine: &Engine, component: &Path) -> anyhow::Result<Component> {
    let bytes = std::fs::read(component).with_context(|| format!("cannot read {}", component.display()))?;
    engine.load(&bytes).with_context(|| format!("{} is no plugin", component.display()))
}

fn cases(project: &Project) -> anyhow::Result<Vec<fixture::File<Case>>> {
    Ok(fixture::read_all(&project.folder.join("fixtures"))?)
}

fn test(project: &Project, component: &Path) -> anyhow::Result<Vec<FixtureResult>> {
    let component = load(&engine(project)?, component)?;
    let assets = project.assets()?;
    let manifest = &project.manifest;
    let mut activations = Activations::new(component, manifest.config.clone(), manifest.limits.clone(), assets);
    let results = cases(project)?.into_iter().map(|fixture::File { name, parsed }| match parsed {
        Err(problem) => FixtureResult::invalid(name, problem),
        Ok(case) => case.run(name, activations.of(&case)),
    });
    Ok(results.collect())
}
