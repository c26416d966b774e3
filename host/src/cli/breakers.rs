//! `aether breaker`: how breakers stand, and closing one after somebody looked.

use super::{client::Client, say, show};
use crate::api::view::ResetBreaker;
use aether_core::breaker::Standing;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Breaker {
    /// Those that are open, and what was begun within the window.
    List,
    /// Close one: what was begun in its scope before counts no more.
    Reset {
        /// As the list names it: `fleet`, `node/node-a`, `pool/spot`.
        scope: String,
        /// What you found when you looked.
        #[arg(long)]
        comment: String,
    },
}

pub(super) async fn run(breaker: Breaker, client: &Client, json: bool) -> anyhow::Result<()> {
    let all: Vec<Standing> = match breaker {
        Breaker::List => client.get("breakers").await?,
        Breaker::Reset { scope, comment } => client.post("breakers/reset", &ResetBreaker { scope, comment }).await?,
    };
    if json {
        return show::json(&all);
    }
    if all.is_empty() {
        say("All are closed, and nothing was begun within the window.");
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|standing| {
            [
                standing.scope.to_string(),
                standing.opened_at.map_or_else(|| "closed".into(), |at| format!("open since {}", show::time(at))),
                format!("{} of {}", standing.begun, standing.limit.count),
                format!("{} (at most {} %)", standing.nodes, standing.limit.percent),
                standing.reason.clone().unwrap_or_default(),
            ]
        })
        .collect();
    show::table(["BREAKER", "STANDS", "BEGUN", "NODES", "WHY"], &rows);
    Ok(())
}
