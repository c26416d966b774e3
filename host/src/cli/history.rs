//! `aether history`: telemetry of elsewhere on a host, to test candidates on.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::plugins::backtest::HistoryInfo;
use anyhow::Context;
use clap::Subcommand;
use std::path::{Path, PathBuf};

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
    /// Delete one. Reports of backtests on it stay.
    Delete { name: String },
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
        History::Delete { name } => {
            client.delete(&format!("histories/{}", escaped(&name))).await?;
            say(&format!("{name} is deleted."));
        }
    }
    Ok(())
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
