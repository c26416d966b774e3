//! `aether drill`: troubles to practise on, played by the same API that a real feeder of signals uses. What follows
//! (risk, incident, plan, approval, migration) is real.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    api::view::{DrillStatus, Notice, NoticeKind, Price, Series, Signals, SignalsTaken, Status},
    clock,
    fabric::NodeView,
};
use aether_core::{id::NodeId, metric, time::Time};
use anyhow::bail;
use clap::{Subcommand, ValueEnum};

#[derive(Debug, Subcommand)]
pub(super) enum Drill {
    /// Play a trouble.
    Start {
        #[arg(value_enum, default_value_t = Trouble::SpotReclaim)]
        trouble: Trouble,
        /// The node that it happens to [default: the first live one with a running workload].
        #[arg(long)]
        node: Option<String>,
    },
    /// Calm the signals of drills that run.
    Stop {
        #[arg(value_enum)]
        trouble: Option<Trouble>,
        /// Only on this node.
        #[arg(long)]
        node: Option<String>,
    },
    /// The troubles that can be played.
    List,
    /// The drills that run.
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Trouble {
    /// The spot market takes a node back: the price climbs, then the provider recommends to leave.
    SpotReclaim,
}

impl Trouble {
    fn name(self) -> &'static str {
        match self {
            Trouble::SpotReclaim => "spot-reclaim",
        }
    }
}

/// Samples of the price before it climbs, and while it does, one each ten seconds.
const CALM_SAMPLES: u32 = 30;
const CLIMB_SAMPLES: u32 = 12;
const SAMPLE_MS: u64 = 10_000;
const CALM_PRICE: f64 = 0.31;
/// Enough to be seen, and not so much that the price alone is an alarm for an hour after the drill.
const PEAK_PRICE: f64 = 0.40;

pub(super) async fn run(drill: Drill, client: &impl Fn() -> anyhow::Result<Client>, json: bool) -> anyhow::Result<()> {
    match drill {
        Drill::List => {
            let text = "The spot market takes a node back: the price climbs, then the provider recommends to leave.";
            if json {
                return show::json(&serde_json::json!([{ "name": "spot-reclaim", "summary": text }]));
            }
            say(&format!("spot-reclaim  {text}"));
            Ok(())
        }
        Drill::Status => {
            let status: Status = client()?.get("status").await?;
            if json {
                return show::json(&status.drills);
            }
            if status.drills.is_empty() {
                say("No drill runs.");
            }
            for drill in status.drills {
                say(&format!("{} on {}, begun {}", drill.name, drill.node, show::ago(Some(drill.since))));
            }
            Ok(())
        }
        Drill::Start { trouble, node } => start(trouble, node, &client()?, json).await,
        Drill::Stop { trouble, node } => stop(trouble, node, &client()?, json).await,
    }
}

async fn start(trouble: Trouble, node: Option<String>, client: &Client, json: bool) -> anyhow::Result<()> {
    let node = match node {
        Some(node) => NodeId(node),
        None => chosen(client).await?,
    };
    let since = newest_price(client, &node).await?;
    let taken: SignalsTaken = client.post("signals", &climb(trouble, &node, clock::now(), since)).await?;
    if json {
        return show::json(&taken);
    }
    say(&format!(
        "{} plays on {node}: its spot price climbs by a third, and the provider recommends to leave.",
        trouble.name()
    ));
    say("What follows is real. Watch with `aether incidents`; end the signals with `aether drill stop`.");
    Ok(())
}

async fn chosen(client: &Client) -> anyhow::Result<NodeId> {
    let nodes: Vec<NodeView> = client.get("nodes").await?;
    let live = || nodes.iter().filter(|node| node.live);
    let busy = live().find(|node| node.workloads.iter().any(|w| w.state == crate::fabric::WorkloadState::Running));
    match busy.or_else(|| live().next()) {
        Some(node) => Ok(node.id.clone()),
        None => bail!("no node is live, so there is nothing to drill; `aether nodes` lists those that there are"),
    }
}

/// What the market said last of this node: nothing is told of the time before.
async fn newest_price(client: &Client, node: &NodeId) -> anyhow::Result<Option<Time>> {
    let series: Vec<Series> = client.get(&format!("nodes/{}/series", escaped(node.as_str()))).await?;
    Ok(series.into_iter().filter(|series| series.key.metric == metric::MARKET_PRICE).map(|series| series.last).max())
}

/// Calm prices, a climb, and the provider's notice, as a feeder would have sent them since `since` and until now.
fn climb(trouble: Trouble, node: &NodeId, now: Time, since: Option<Time>) -> Signals {
    let samples = CALM_SAMPLES + CLIMB_SAMPLES;
    let prices = (0..samples)
        .map(|sample| {
            let at = now.minus_ms(u64::from(samples - 1 - sample) * SAMPLE_MS);
            let climbed = f64::from(sample.saturating_sub(CALM_SAMPLES - 1)) / f64::from(CLIMB_SAMPLES);
            // A little restless, as markets are, and the same each time.
            let ripple = f64::from(sample % 3) * 0.001;
            Price { at: Some(at), usd_per_hour: CALM_PRICE + ripple + climbed * (PEAK_PRICE - CALM_PRICE) }
        })
        .filter(|price| price.at > since)
        .collect();
    let notices = vec![Notice { at: Some(now), kind: NoticeKind::Rebalance, deadline: None }];
    Signals { node: node.clone(), drill: Some(trouble.name().into()), prices, notices }
}

async fn stop(trouble: Option<Trouble>, node: Option<String>, client: &Client, json: bool) -> anyhow::Result<()> {
    let status: Status = client.get("status").await?;
    let mine = |drill: &&DrillStatus| {
        trouble.is_none_or(|trouble| drill.name == trouble.name())
            && node.as_ref().is_none_or(|node| drill.node.as_str() == node)
    };
    let mut stopped = Vec::new();
    for drill in status.drills.iter().filter(mine) {
        let now = clock::now();
        let signals = Signals {
            node: drill.node.clone(),
            drill: Some(drill.name.clone()),
            prices: vec![Price { at: Some(now), usd_per_hour: CALM_PRICE }],
            notices: vec![Notice { at: Some(now), kind: NoticeKind::RebalanceCleared, deadline: None }],
        };
        let _: SignalsTaken = client.post("signals", &signals).await?;
        stopped.push(drill.clone());
    }
    if json {
        return show::json(&stopped);
    }
    if stopped.is_empty() {
        say("No such drill runs.");
    }
    for drill in stopped {
        say(&format!(
            "{} on {} is over: the price is calm, and the recommendation is taken back.",
            drill.name, drill.node
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_climbs_from_calm_and_ends_now_with_the_notice() {
        let now = Time(1_000_000_000);
        let signals = climb(Trouble::SpotReclaim, &NodeId::new("node-a"), now, None);
        let prices: Vec<f64> = signals.prices.iter().map(|price| price.usd_per_hour).collect();
        assert!(prices[..CALM_SAMPLES as usize].iter().all(|price| *price < CALM_PRICE * 1.05));
        assert!(prices.last().is_some_and(|price| (PEAK_PRICE..PEAK_PRICE + 0.01).contains(price)));
        assert!(signals.prices.windows(2).all(|pair| pair[0].at < pair[1].at));
        assert_eq!(signals.prices.last().and_then(|price| price.at), Some(now));
        assert_eq!(signals.notices.len(), 1);
        assert_eq!(signals.drill.as_deref(), Some("spot-reclaim"));
    }

    #[test]
    fn a_second_drill_tells_nothing_of_the_time_of_the_first() {
        let now = Time(1_000_000_000);
        let since = now.minus_ms(3 * SAMPLE_MS);
        let signals = climb(Trouble::SpotReclaim, &NodeId::new("node-a"), now, Some(since));
        assert!(signals.prices.iter().all(|price| price.at > Some(since)));
        assert_eq!(signals.prices.len(), 3);
    }
}
