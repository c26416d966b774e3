//! `aether history`: telemetry of elsewhere on a host, to test candidates on; and the host's own, to take elsewhere.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    clock,
    plugins::backtest::{HistoryInfo, when},
};
use anyhow::Context;
use clap::{Subcommand, ValueEnum};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

#[derive(Debug, Subcommand)]
pub(super) enum History {
    /// The histories of the host.
    List,
    /// Bring a CSV in, with its labels; one of that name is replaced.
    Put {
        /// What it is called from now on. A file of two columns is of the node of this name, unless --subject says else.
        name: String,
        /// `timestamp,value`, or `timestamp,subject,metric,unit,value`; at most 64 MiB.
        file: PathBuf,
        /// CSV `subject,from,to[,at,id,summary]`, or windows as NAB writes them in JSON.
        #[arg(long, value_name = "FILE")]
        labels: Option<PathBuf>,
        /// The metric of a file with two columns.
        #[arg(long, value_name = "NAME")]
        metric: Option<String>,
        /// Its unit.
        #[arg(long, value_name = "UNIT")]
        unit: Option<String>,
        /// Its subject, such as node/web-1.
        #[arg(long, value_name = "SUBJECT")]
        subject: Option<String>,
    },
    /// Take a part of what the recorder holds, as Parquet (for pandas, DuckDB and the like) or CSV (which `put` takes).
    Export {
        /// The file to write [default: standard output].
        file: Option<PathBuf>,
        /// Such as node/web-1; can be repeated [default: all].
        #[arg(long, value_name = "SUBJECT")]
        subject: Vec<String>,
        /// A metric or an event; can be repeated [default: all].
        #[arg(long, value_name = "NAME")]
        metric: Vec<String>,
        /// From when on: 2026-11-21T02:00:00Z, or how long ago, such as 2h [default: 1h].
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Until when [default: now].
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// Default: what the file's name ends with, or parquet.
        #[arg(long, value_enum)]
        format: Option<Format>,
        /// The evidence of this incident instead, which is there when the segments are gone; always Parquet.
        #[arg(long, value_name = "ID", conflicts_with_all = ["subject", "metric", "from", "to", "format"])]
        incident: Option<String>,
    },
    /// Delete one. Reports of backtests on it stay.
    Delete { name: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    Parquet,
    Csv,
}

pub(super) async fn run(history: History, client: &Client, json: bool) -> anyhow::Result<()> {
    match history {
        History::List => {
            let found: Vec<HistoryInfo> = client.get("histories").await?;
            if json {
                return show::json(&found);
            }
            if found.is_empty() {
                say("No history. Bring one in with `aether history put NAME FILE`.");
                return Ok(());
            }
            let rows: Vec<_> = found.iter().map(row).collect();
            show::table(["HISTORY", "SUBJECTS", "SAMPLES", "FROM", "TO", "LABELS", "OF"], &rows);
        }
        History::Put { name, file, labels, metric, unit, subject } => {
            let path = format!("histories/{}", escaped(&name));
            let mapping = [("metric", metric), ("unit", unit), ("subject", subject)];
            let mapping: Vec<String> =
                mapping.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped(&value?)))).collect();
            let query = if mapping.is_empty() { String::new() } else { format!("?{}", mapping.join("&")) };
            let mut info: HistoryInfo = client.put(&format!("{path}{query}"), contents(&file)?).await?;
            if let Some(labels) = labels {
                info = client.put(&format!("{path}/labels"), contents(&labels)?).await?;
            }
            if json {
                return show::json(&info);
            }
            show::table(["HISTORY", "SUBJECTS", "SAMPLES", "FROM", "TO", "LABELS", "OF"], &[row(&info)]);
        }
        History::Export { file, incident: Some(id), .. } => {
            let bytes = written(client, &format!("incidents/{}/evidence", escaped(&id)), file.as_deref()).await?;
            return told(file.as_deref(), bytes, json);
        }
        History::Export { file, subject, metric, from, to, format, incident: None } => {
            let now = clock::now();
            let time = |text: &str| when::time_or_ago(text, now).map_err(anyhow::Error::msg);
            let from = time(from.as_deref().unwrap_or("1h"))?;
            let to = to.as_deref().map(time).transpose()?.unwrap_or(now);
            let ends =
                |end: &str| file.as_deref().and_then(Path::extension).is_some_and(|of| of.eq_ignore_ascii_case(end));
            let format = match format {
                Some(Format::Csv) => "csv",
                None if ends("csv") => "csv",
                Some(Format::Parquet) | None => "parquet",
            };
            let mut query = format!("telemetry/export?from={}&to={}&format={format}", from.0, to.0);
            for (name, values) in [("subject", subject), ("metric", metric)] {
                if !values.is_empty() {
                    query.push_str(&format!("&{name}={}", escaped(&values.join(","))));
                }
            }
            let bytes = written(client, &query, file.as_deref()).await?;
            return told(file.as_deref(), bytes, json);
        }
        History::Delete { name } => {
            client.delete(&format!("histories/{}", escaped(&name))).await?;
            say(&format!("{name} is deleted."));
        }
    }
    Ok(())
}

/// Writes what the host answers with, to a file whole or not at all. Answers how many bytes.
async fn written(client: &Client, path: &str, file: Option<&Path>) -> anyhow::Result<u64> {
    let mut bytes = 0u64;
    let Some(file) = file else {
        let mut out = std::io::stdout().lock();
        client.stream(path, |piece| Ok(out.write_all(piece)?)).await?;
        return Ok(bytes);
    };
    let unwritten = || format!("the file {} cannot be written", file.display());
    let part = file.with_extension("part");
    let mut out = File::create(&part).with_context(unwritten)?;
    let fetched = client
        .stream(path, |piece| {
            bytes += piece.len() as u64;
            out.write_all(piece).with_context(unwritten)
        })
        .await;
    let kept = fetched.and_then(|()| {
        out.sync_all().with_context(unwritten)?;
        std::fs::rename(&part, file).with_context(unwritten)
    });
    if kept.is_err() {
        drop(std::fs::remove_file(&part));
    }
    kept.map(|()| bytes)
}

fn told(file: Option<&Path>, bytes: u64, json: bool) -> anyhow::Result<()> {
    match file {
        None => Ok(()),
        Some(file) if json => show::json(&serde_json::json!({ "file": file, "bytes": bytes })),
        Some(file) => {
            say(&format!("{} holds {bytes} bytes.", file.display()));
            Ok(())
        }
    }
}

fn row(info: &HistoryInfo) -> [String; 7] {
    let about = &info.about;
    let time = |at: Option<aether_core::time::Time>| at.map_or_else(|| "-".into(), show::time);
    [
        info.name.clone(),
        about.subjects.to_string(),
        about.samples.to_string(),
        time(about.from),
        time(about.to),
        info.labels.map_or_else(|| "none".into(), |labels| labels.to_string()),
        show::short(&about.names.join(", "), 80),
    ]
}

fn contents(path: &Path) -> anyhow::Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("the file {} cannot be read", path.display()))
}
