//! `aether drill`: troubles to practise on. The host starts them and the node's agent makes and undoes them; this only
//! asks, and shows how the story goes.

use super::{
    client::{Client, escaped},
    complain, say, show,
};
use crate::{
    api::view::{Drills, StartDrill},
    fabric::{NodeView, WorkloadState},
    store::drills::Drill as Run,
};
use aether_core::{
    drill::{Kind, Line, Verdict},
    id::NodeId,
};
use anyhow::{anyhow, bail};
use clap::Subcommand;
use std::{process::ExitCode, time::Duration};

/// Between two looks at a drill.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The story did not go as expected.
const NOT_MET: u8 = 3;

#[derive(Debug, Subcommand)]
pub(super) enum Drill {
    /// Start a drill against a node whose agent allows it.
    Start {
        /// Which; `list` tells.
        #[arg(default_value = "spot-reclaim", value_parser = named)]
        name: Kind,
        /// The node that it happens to [default: the first that can, and has a running workload].
        #[arg(long)]
        node: Option<String>,
        /// How long the disturbance lasts at most, in seconds [default: as the drill has it].
        #[arg(long, value_name = "SECONDS")]
        limit: Option<u64>,
        /// Wait until it is over and show the score. Exits with 3 where a line is not met.
        #[arg(long)]
        wait: bool,
    },
    /// End the drill that runs: its disturbance is undone, and it is scored.
    Stop {
        /// Only this one.
        #[arg(value_parser = named)]
        name: Option<Kind>,
        /// Only on this node.
        #[arg(long)]
        node: Option<String>,
    },
    /// The drills that there are: what happens, and what is expected to follow.
    List,
    /// The drill that runs.
    Status,
    /// How a drill was scored. Exits with 3 where a line is not met.
    Score {
        /// [default: the newest]
        id: Option<String>,
    },
}

fn named(name: &str) -> Result<Kind, String> {
    Kind::parse(name).ok_or_else(|| {
        let names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
        format!("there are {}", names.join(", "))
    })
}

pub(super) async fn run(
    drill: Drill,
    client: &impl Fn() -> anyhow::Result<Client>,
    json: bool,
) -> anyhow::Result<ExitCode> {
    match drill {
        Drill::List => list(json)?,
        Drill::Status => status(&client()?, json).await?,
        Drill::Start { name, node, limit, wait } => return start(name, node, limit, wait, &client()?, json).await,
        Drill::Stop { name, node } => stop(name, node, &client()?, json).await?,
        Drill::Score { id } => {
            let client = client()?;
            let id = match id {
                Some(id) => id,
                None => {
                    let Drills { drills, .. } = client.get("drills").await?;
                    drills.into_iter().next().ok_or_else(|| anyhow!("no drill was started yet"))?.id.0
                }
            };
            return told(&client.get(&format!("drills/{}", escaped(&id))).await?, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(json: bool) -> anyhow::Result<()> {
    if json {
        let all = Kind::ALL.map(|kind| {
            serde_json::json!({ "name": kind.name(), "disturbance": kind.disturbance(), "expectation": kind.expectation() })
        });
        return show::json(&all);
    }
    for kind in Kind::ALL {
        say(&format!("{}\n  {}\n  Expected: {}.", kind.name(), kind.disturbance(), kind.expectation()));
    }
    Ok(())
}

async fn status(client: &Client, json: bool) -> anyhow::Result<()> {
    let Drills { drills, .. } = client.get("drills").await?;
    let running: Vec<Run> = drills.into_iter().filter(|drill| drill.over_at.is_none()).collect();
    if json {
        return show::json(&running);
    }
    match running.as_slice() {
        [] => say("No drill runs."),
        running => running.iter().for_each(print),
    }
    Ok(())
}

async fn start(
    kind: Kind,
    node: Option<String>,
    limit: Option<u64>,
    wait: bool,
    client: &Client,
    json: bool,
) -> anyhow::Result<ExitCode> {
    let node = match node {
        Some(node) => NodeId(node),
        None => chosen(kind, client).await?,
    };
    let asked = StartDrill { kind, node, limit_ms: limit.map(|seconds| seconds.saturating_mul(1_000)) };
    let mut drill: Run = client.post("drills", &asked).await?;
    if !json {
        say(&format!("{} begins on {} ({}). {}", kind.name(), drill.node, drill.id, kind.disturbance()));
        say("What follows is real. Watch with `aether incidents`; end it with `aether drill stop`.");
    }
    if !wait {
        if json {
            show::json(&drill)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut known: Vec<Line> = vec![];
    while drill.over_at.is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
        match client.get::<Run>(&format!("drills/{}", escaped(drill.id.as_str()))).await {
            Ok(now) => drill = now,
            Err(error) => complain(&format!("{error:#}; the drill goes on, and ends by itself")),
        }
        if !json && drill.over_at.is_none() {
            let news = drill.score.iter().filter(|line| line.verdict == Verdict::Met && !known.contains(line));
            news.for_each(|line| say(&row(line)));
            known.clone_from(&drill.score);
        }
    }
    told(&drill, json)
}

/// The first node that can, best with a workload that runs.
async fn chosen(kind: Kind, client: &Client) -> anyhow::Result<NodeId> {
    let nodes: Vec<NodeView> = client.get("nodes").await?;
    let capability = kind.capability();
    let can =
        |node: &&NodeView| node.live && node.capabilities.iter().any(|one| one.name == capability && one.available);
    let busy = |node: &&NodeView| node.workloads.iter().any(|one| one.state == WorkloadState::Running);
    let found = nodes.iter().filter(can).find(busy).or_else(|| nodes.iter().find(can));
    if let Some(node) = found {
        return Ok(node.id.clone());
    }
    let why = nodes.iter().filter(|node| node.live).find_map(|node| {
        let found = node.capabilities.iter().find(|one| one.name == capability)?;
        Some(format!("{}: {}", node.id, found.reason))
    });
    match why {
        Some(why) => bail!("no live node can make this drill; {why}"),
        None => bail!("no node is live, so there is nothing to drill; `aether nodes` lists those that there are"),
    }
}

async fn stop(kind: Option<Kind>, node: Option<String>, client: &Client, json: bool) -> anyhow::Result<()> {
    let Drills { drills, .. } = client.get("drills").await?;
    let mine = |drill: &Run| {
        drill.over_at.is_none()
            && kind.is_none_or(|kind| drill.kind == kind)
            && node.as_ref().is_none_or(|node| drill.node.as_str() == node)
    };
    let Some(drill) = drills.into_iter().find(mine) else {
        if json {
            return show::json(&[(); 0]);
        }
        say("No such drill runs.");
        return Ok(());
    };
    let path = format!("drills/{}", escaped(drill.id.as_str()));
    let mut drill: Run = client.post(&format!("{path}/stop"), &()).await?;
    while drill.over_at.is_none() {
        tokio::time::sleep(LOOK_EVERY).await;
        drill = client.get(&path).await?;
    }
    if json {
        return show::json(&[drill]);
    }
    print(&drill);
    Ok(())
}

fn told(drill: &Run, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        show::json(drill)?;
    } else {
        print(drill);
    }
    Ok(if drill.passed == Some(true) { ExitCode::SUCCESS } else { ExitCode::from(NOT_MET) })
}

fn print(drill: &Run) {
    let state = match (drill.over_at, drill.passed) {
        (None, _) => "it runs".to_owned(),
        (Some(_), Some(true)) => "as expected".to_owned(),
        (Some(_), _) => "not as expected".to_owned(),
    };
    say(&format!(
        "{} on {} ({}), begun {}: {state}",
        drill.kind.name(),
        drill.node,
        drill.id,
        show::ago(Some(drill.started_at))
    ));
    drill.score.iter().for_each(|line| say(&row(line)));
}

fn row(line: &Line) -> String {
    let Line { expected, verdict, after_ms, saw } = line;
    let verdict = match verdict {
        Verdict::Met => "met",
        Verdict::NotMet => "not met",
        Verdict::NotReached => "not reached",
    };
    let after = after_ms.map_or_else(String::new, |ms| format!("{:.1} s", ms as f64 / 1_000.0));
    let saw = if saw.is_empty() { String::new() } else { format!(": {saw}") };
    format!("  {verdict:<11}  {after:>8}  {expected}{saw}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_its_verdict_time_and_what_was_seen() {
        let line = Line {
            expected: "a finding within 15 s".into(),
            verdict: Verdict::NotMet,
            after_ms: Some(16_240),
            saw: "inc-1".into(),
        };
        assert_eq!(row(&line), "  not met        16.2 s  a finding within 15 s: inc-1");
        let bare = Line { verdict: Verdict::NotReached, after_ms: None, saw: String::new(), ..line };
        assert_eq!(row(&bare), "  not reached            a finding within 15 s");
    }
}
