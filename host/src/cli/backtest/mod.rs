//! `aether backtest`: what a component would have said of history, and what would have been otherwise with it.
//!
//! Without a server, on files: `--component FILE --history FILE...`. With one, on what it has recorded: `--slot S
//! --candidate C --from --to`. Both are the same runner, and both hold the result against bars for CI.

mod host;
mod print;

use super::{SHORT, client::Client, show};
use crate::{
    clock,
    plugins::backtest::{self, Bounds, History, Imported, Mapping, Progress, Sides, Test, subject_of, when},
};
use aether_core::{
    backtest::{Bars, Measure, Report, Tolerance},
    decision::{Level, Limits},
    finding::Hysteresis,
    subject::SubjectRef,
};
use aether_runtime::{Assets, Engine, EngineSettings, Prepared};
use anyhow::{Context, bail};
use cap_std::{ambient_authority, fs::Dir};
use clap::{Args, ValueEnum};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Backtest {
    #[command(subcommand)]
    manage: Option<host::OnHost>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    files: Files,
    /// Begin here: a time such as 2026-11-21T02:00:00Z, or how long ago, such as 7d [default for files: their first sample].
    #[arg(long, value_name = "WHEN", help_heading = "Time")]
    from: Option<String>,
    /// End here [default for files: their last sample; for a host: now].
    #[arg(long, value_name = "WHEN", help_heading = "Time")]
    to: Option<String>,
    /// Between two evaluations of a subject [default: 1s, or the step of the data if that is longer].
    #[arg(long, value_name = "DURATION", value_parser = when::duration_ms, help_heading = "Time")]
    tick: Option<u64>,
    /// An alarm this long before an event's window still catches it [default: 0s; for recorded incidents 10m].
    #[arg(long, value_name = "DURATION", value_parser = when::duration_ms, help_heading = "Time")]
    lead: Option<u64>,
    /// An alarm this long after an event's window still catches it [default: 0s].
    #[arg(long, value_name = "DURATION", value_parser = when::duration_ms, help_heading = "Time")]
    late: Option<u64>,
    #[command(flatten)]
    detector: Detector,
    #[command(flatten)]
    bars: BarArgs,
}

/// On what a host has.
#[derive(Debug, Args)]
#[command(next_help_heading = "On a host")]
struct HostArgs {
    /// The slot, such as risk.
    #[arg(long, requires = "candidate", conflicts_with = "component")]
    slot: Option<String>,
    /// An entry of the slot, or a component of the registry by digest or name.
    #[arg(long, requires = "slot")]
    candidate: Option<String>,
    /// The active entry in whose place it is thought [default: the one of the same name].
    #[arg(long, value_name = "ENTRY", requires = "slot")]
    replaces: Option<String>,
    /// The set of assets of a candidate from the registry.
    #[arg(long, value_name = "DIGEST", requires = "slot")]
    assets_digest: Option<String>,
    /// Test on this imported history, and not on what the host has recorded.
    #[arg(long, value_name = "HISTORY", requires = "slot")]
    imported: Option<String>,
    /// Do not wait: print the id and go.
    #[arg(long, requires = "slot")]
    no_wait: bool,
}

/// Without a host.
#[derive(Debug, Args)]
#[command(next_help_heading = "On files, without a host")]
struct Files {
    /// The candidate: a component's file.
    #[arg(long, value_name = "FILE", requires = "history")]
    component: Option<PathBuf>,
    /// The candidate's config, as JSON.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the candidate's assets.
    #[arg(long, value_name = "FOLDER", requires = "component")]
    assets: Option<PathBuf>,
    /// Compare with this component.
    #[arg(long, value_name = "FILE", requires = "component")]
    against: Option<PathBuf>,
    /// That one's config, as JSON.
    #[arg(long, value_name = "FILE", requires = "against")]
    against_config: Option<PathBuf>,
    /// CSV files: `timestamp,value`, or `timestamp,subject,metric,unit,value`.
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "component")]
    history: Vec<PathBuf>,
    /// What happened: CSV `subject,from,to[,at,id,summary]`, or windows as NAB writes them in JSON.
    #[arg(long, value_name = "FILE", requires = "component")]
    labels: Option<PathBuf>,
    /// The metric of files with two columns.
    #[arg(long, value_name = "NAME", default_value = "aether.imported.value")]
    metric: String,
    /// Its unit.
    #[arg(long, value_name = "UNIT", default_value = "1")]
    unit: String,
    /// Its subject, such as node/web-1 [default: the node of the file's name].
    #[arg(long, value_name = "SUBJECT", value_parser = subject_of)]
    subject: Option<SubjectRef>,
    /// Evaluations at one time.
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
}

/// When evaluations become an alarm. A host uses its own settings.
#[derive(Debug, Args)]
#[command(next_help_heading = "Alarms")]
struct Detector {
    /// From this level on an evaluation counts.
    #[arg(long, value_enum, default_value_t = AlarmLevel::Critical)]
    raise_level: AlarmLevel,
    /// So many in a row raise an alarm.
    #[arg(long, value_name = "NUMBER", default_value_t = Hysteresis::default().raise_after, value_parser = clap::value_parser!(u32).range(1..))]
    raise_after: u32,
    /// So many below it in a row clear it.
    #[arg(long, value_name = "NUMBER", default_value_t = Hysteresis::default().clear_after, value_parser = clap::value_parser!(u32).range(1..))]
    clear_after: u32,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AlarmLevel {
    Elevated,
    High,
    Critical,
}

/// What must be reached. Exit code 3 if one is not.
#[derive(Debug, Args)]
#[command(next_help_heading = "Bars (exit code 3 if one is not reached)")]
struct BarArgs {
    /// Share of events that are caught, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    min_recall: Option<f64>,
    /// Share of catches among catches and false alarms, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    min_precision: Option<f64>,
    /// False alarms for each subject and day.
    #[arg(long, value_name = "NUMBER")]
    max_false_per_day: Option<f64>,
    /// The median lead of what is caught.
    #[arg(long, value_name = "DURATION", value_parser = when::duration_ms)]
    min_lead: Option<u64>,
    /// Answers that would have led to another deed.
    #[arg(long, value_name = "NUMBER")]
    max_changed: Option<u64>,
    /// Events that are caught now and would be missed.
    #[arg(long, value_name = "NUMBER")]
    max_newly_missed: Option<u64>,
    /// Evaluations that ended in a fault.
    #[arg(long, value_name = "NUMBER")]
    max_faults: Option<u64>,
    /// Median fuel against that of what stands now.
    #[arg(long, value_name = "RATIO")]
    max_fuel_ratio: Option<f64>,
}

impl BarArgs {
    fn bars(&self) -> Bars {
        Bars {
            min_recall: self.min_recall,
            min_precision: self.min_precision,
            max_false_per_day: self.max_false_per_day,
            min_lead_ms: self.min_lead.map(|ms| i64::try_from(ms).unwrap_or(i64::MAX)),
            max_changed: self.max_changed,
            max_newly_missed: self.max_newly_missed,
            max_faults: self.max_faults,
            max_fuel_ratio: self.max_fuel_ratio,
        }
    }
}

pub(super) async fn run(
    mut backtest: Backtest,
    client: impl Fn() -> anyhow::Result<Client>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(manage) = backtest.manage.take() {
        return host::manage(manage, &client()?, json).await;
    }
    if backtest.host.slot.is_some() {
        return host::run(backtest, &client()?, json).await;
    }
    let bars = backtest.bars.bars();
    let report = local(backtest).await?;
    told(&report, &bars, json)
}

/// Prints the report, and says by the exit code whether it reaches the bars.
fn told(report: &Report, bars: &Bars, json: bool) -> anyhow::Result<ExitCode> {
    let short = bars.short(report);
    if json {
        show::json(&serde_json::json!({ "report": report, "short": short }))?;
    } else {
        print::report(report);
        for short in &short {
            super::say(&format!("not reached: {short}"));
        }
    }
    Ok(if short.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(SHORT) })
}

async fn local(backtest: Backtest) -> anyhow::Result<Report> {
    let Backtest { manage: _, host: _, files, from, to, tick, lead, late, detector, bars: _ } = backtest;
    let now = clock::now();
    let when =
        |text: Option<String>| text.map(|text| when::time_or_ago(&text, now)).transpose().map_err(anyhow::Error::msg);
    let (from, to) = (when(from)?, when(to)?);
    let test = move || -> anyhow::Result<Report> {
        let Some(component) = &files.component else {
            bail!("say what to test: `--component FILE --history FILE...`, or `--slot S --candidate C` on a host");
        };
        let engine = Engine::new(EngineSettings::default())?;
        let candidate = prepare(&engine, component, files.config.as_deref(), files.assets.as_deref())?;
        let current = match &files.against {
            Some(path) => Some(vec![prepare(&engine, path, files.against_config.as_deref(), None)?]),
            None => None,
        };
        let (history, labels) = read(&files)?;
        let measure = if labels.is_some() { Measure::Labels } else { Measure::Nothing };
        let raise_level = match detector.raise_level {
            AlarmLevel::Elevated => Level::Elevated,
            AlarmLevel::High => Level::High,
            AlarmLevel::Critical => Level::Critical,
        };
        let Detector { raise_after, clear_after, .. } = detector;
        let test = Test {
            slot: None,
            sides: Sides { candidate: vec![candidate], current },
            hysteresis: Hysteresis { raise_level, raise_after, clear_after },
            history: History::Imported(Arc::new(history)),
            known: BTreeMap::new(),
            from,
            to,
            tick_ms: tick,
            live_tick_ms: crate::control::Settings::default().tick_ms,
            measure,
            events: labels.unwrap_or_default(),
            tolerance: Tolerance { lead_ms: lead.unwrap_or(0), late_ms: late.unwrap_or(0) },
            decisions: vec![],
        };
        let bounds = Bounds { threads: usize::from(files.threads), ..Bounds::default() };
        Ok(backtest::run(test, &bounds, &Progress::default())?)
    };
    tokio::task::spawn_blocking(test).await.context("the thread that ran the backtest died")?
}

/// A component from its file, with its config.
pub(super) fn prepare(
    engine: &Engine,
    component: &Path,
    config: Option<&Path>,
    assets: Option<&Path>,
) -> anyhow::Result<Prepared> {
    let bytes = contents(component)?;
    let config: Map<String, Value> = match config {
        None => Map::new(),
        Some(path) => self::config(path)?,
    };
    let assets = match assets {
        None => Assets::default(),
        Some(folder) => {
            let opened = Dir::open_ambient_dir(folder, ambient_authority());
            Assets::read(&opened.with_context(|| format!("the folder {} cannot be opened", folder.display()))?)?
        }
    };
    // The watchdog stops what hangs; a busy machine must not change a report.
    let limits = Limits { deadline_ms: Limits::MAXIMUM.deadline_ms, ..Limits::default() };
    Ok(engine.load(&bytes)?.activate(&config, &limits, &assets)?)
}

fn config(path: &Path) -> anyhow::Result<Map<String, Value>> {
    serde_json::from_slice(&contents(path)?).with_context(|| format!("{} is not a JSON object", path.display()))
}

fn contents(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("the file {} cannot be read", path.display()))
}

fn stem(path: &Path) -> String {
    path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
}

fn read(files: &Files) -> anyhow::Result<(Imported, Option<Vec<aether_core::backtest::Event>>)> {
    if files.subject.is_some() && files.history.len() > 1 {
        bail!("--subject names the subject of one file, and {} were given", files.history.len());
    }
    let mapping = Mapping { metric: files.metric.clone(), unit: files.unit.clone(), subject: files.subject.clone() };
    let read: Vec<(String, Vec<u8>)> =
        files.history.iter().map(|path| Ok((stem(path), contents(path)?))).collect::<anyhow::Result<_>>()?;
    let imported = Imported::read(read.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())), &mapping)?;
    let labels = match &files.labels {
        None => None,
        Some(path) => Some(backtest::labels(&path.display().to_string(), &contents(path)?, Some(&imported))?),
    };
    Ok((imported, labels))
}
