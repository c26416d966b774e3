//! Backtests on a host: asked for, waited for, listed and stopped.

use super::{Backtest, told};
use crate::{
    api::view::{BacktestDetail, BacktestList},
    cli::{
        client::{Client, escaped},
        say, show,
    },
    clock,
    plugins::backtest::{BacktestInfo, BacktestRequest, BacktestState, when},
};
use aether_core::{
    backtest::Tolerance,
    id::{Digest, EntryId, SlotId},
};
use anyhow::{Context, bail};
use clap::Subcommand;
use std::{io::IsTerminal as _, process::ExitCode, time::Duration};

/// Between two looks at how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(300);

#[derive(Debug, Subcommand)]
pub(super) enum OnHost {
    /// The backtests of the host, newest first.
    List {
        /// Only of this slot, such as `risk`.
        #[arg(long)]
        slot: Option<String>,
    },
    /// One backtest, with its report.
    Show {
        /// Its id.
        backtest: String,
    },
    /// Stop one that runs or waits.
    Stop {
        /// Its id.
        backtest: String,
    },
}

pub(super) async fn manage(what: OnHost, client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    match what {
        OnHost::List { slot } => {
            let filter = slot.map_or_else(String::new, |slot| format!("?slot={}", escaped(&slot)));
            let found: BacktestList = client.get(&format!("backtests{filter}")).await?;
            if json {
                show::json(&found)?;
                return Ok(ExitCode::SUCCESS);
            }
            let rows: Vec<_> = found
                .backtests
                .iter()
                .map(|info| {
                    let came = info.failure.clone().unwrap_or_else(|| match info.short.len() {
                        0 if info.state == BacktestState::Done => "every bar reached".into(),
                        0 => String::new(),
                        short => format!("{short} bars not reached"),
                    });
                    [
                        info.id.clone(),
                        show::ago(Some(info.at)),
                        info.request.slot.0.clone(),
                        show::short(&info.request.candidate, 24),
                        show::name(&info.state),
                        show::short(&came, 80),
                    ]
                })
                .collect();
            if rows.is_empty() {
                say("No backtest.");
            } else {
                show::table(["BACKTEST", "ASKED", "SLOT", "CANDIDATE", "STATE", ""], &rows);
            }
        }
        OnHost::Show { backtest } => return ended(client.get(&path(&backtest)).await?, json),
        OnHost::Stop { backtest } => {
            client.done(&format!("{}/stop", path(&backtest))).await?;
            say("Stopped.");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks for the backtest, and waits for its report.
pub(super) async fn run(backtest: Backtest, client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    let now = clock::now();
    let when = |text: &Option<String>| {
        text.as_ref().map(|text| when::time_or_ago(text, now)).transpose().map_err(anyhow::Error::msg)
    };
    let (Some(slot), Some(candidate)) = (&backtest.host.slot, &backtest.host.candidate) else {
        bail!("say which --slot and which --candidate");
    };
    let config = match &backtest.files.config {
        None => serde_json::Map::new(),
        Some(path) => super::config(path)?,
    };
    let tolerance = match (backtest.lead, backtest.late) {
        (None, None) => None,
        (lead, late) => Some(Tolerance { lead_ms: lead.unwrap_or(0), late_ms: late.unwrap_or(0) }),
    };
    let request = BacktestRequest {
        slot: SlotId(slot.clone()),
        candidate: candidate.clone(),
        config,
        limits: None,
        assets: backtest.host.assets_digest.clone().map(Digest),
        replaces: backtest.host.replaces.clone().map(EntryId),
        history: backtest.host.imported.clone(),
        from: when(&backtest.from)?,
        to: when(&backtest.to)?,
        tick_ms: backtest.tick,
        tolerance,
        bars: backtest.bars.bars(),
    };
    let begun: BacktestInfo = client.post("backtests", &request).await?;
    if backtest.host.no_wait {
        if json {
            show::json(&begun)?;
        } else {
            say(&begun.id);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        let detail: BacktestDetail = client.get(&path(&begun.id)).await?;
        if detail.backtest.state != BacktestState::Running {
            tell_progress("");
            return ended(detail, json);
        }
        tell_progress(&format!("{} of {} evaluations", detail.backtest.done, detail.backtest.of));
    }
}

fn ended(detail: BacktestDetail, json: bool) -> anyhow::Result<ExitCode> {
    let BacktestDetail { backtest, report } = detail;
    if backtest.state == BacktestState::Running {
        say(&format!("{} runs: {} of {} evaluations", backtest.id, backtest.done, backtest.of));
        return Ok(ExitCode::SUCCESS);
    }
    let Some(report) = report else {
        bail!("{}", backtest.failure.context("it ended without a report")?);
    };
    if !json {
        say(&format!("backtest   {}", backtest.id));
    }
    told(&report, &backtest.request.bars, json)
}

/// One line that is written over, for a person who waits.
#[allow(clippy::print_stderr, reason = "the command line speaks to a person")]
fn tell_progress(text: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[2K{text}");
    }
}

fn path(backtest: &str) -> String {
    format!("backtests/{}", escaped(backtest))
}
