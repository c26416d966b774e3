//! `aether status` and `aether nodes`.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    api::view::{ConfigureAgents, CordonWord, Status, SubjectRisk},
    fabric::{Collection, Configured, Cordon, NodeView},
};
use aether_core::{catalogue::fact, subject::SubjectRef};
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(super) struct Nodes {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One node: what it can do, why not what not, and what runs on it.
    Show {
        /// Such as `node-a`.
        node: String,
    },
    /// Have nothing placed on a node until a person lifts it; what runs there goes on.
    Cordon {
        node: String,
        /// Everybody reads it where the node is shown.
        #[arg(long)]
        reason: String,
    },
    /// Have agents collect otherwise, at once: all of them, or one node's. What is not given stays as the host and the
    /// node have it, and an agent never does more than its own file permits.
    Configure(Configure),
    /// Lift a person's cordon. A drain by a plan is not lifted by it.
    Uncordon {
        node: String,
        /// It stays in the audit.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
struct Configure {
    /// The node; without it, all that have no word of their own.
    node: Option<String>,
    /// Sample this often, in milliseconds: 100 to 600,000.
    #[arg(long, value_name = "MS")]
    sample_interval: Option<u32>,
    /// Send a batch this often, in milliseconds: 100 to 600,000.
    #[arg(long, value_name = "MS")]
    batch_interval: Option<u32>,
    /// Switch a source off, or a group of them; may be given again. docs/metrics.md has them all.
    #[arg(long, value_name = "SOURCE")]
    disable: Vec<String>,
    /// Sample one source this often, such as `perf=5000`; may be given again.
    #[arg(long, value_name = "SOURCE=MS", value_parser = interval)]
    interval: Vec<(String, u32)>,
    /// What all eBPF sources together may take of the time that processors are busy, in thousandths.
    #[arg(long, value_name = "PERMILLE")]
    bpf_budget: Option<u32>,
    /// Take back what was wanted before.
    #[arg(long, conflicts_with_all = ["sample_interval", "batch_interval", "disable", "interval", "bpf_budget"])]
    clear: bool,
    /// It stays in the audit.
    #[arg(long)]
    reason: String,
}

fn interval(text: &str) -> Result<(String, u32), String> {
    let (source, ms) = text.split_once('=').ok_or("it is SOURCE=MS, such as `perf=5000`")?;
    Ok((source.to_owned(), ms.parse().map_err(|_| format!("`{ms}` is no number of milliseconds"))?))
}

pub(super) async fn status(client: &Client, json: bool) -> anyhow::Result<()> {
    let status: Status = client.get("status").await?;
    if json {
        return show::json(&status);
    }
    let posture = if status.posture.dry_run {
        "dry run: everything is checked, nothing is changed".to_owned()
    } else {
        let approval = if status.posture.approval_required { "with approval" } else { "gates alone decide" };
        format!("live up to {}, {approval}", show::name(&status.posture.highest_live_class))
    };
    say(&format!("Aether {}, up for {}", status.version, show::duration(status.uptime_ms)));
    say(&format!("posture    {posture}"));
    if let Some(bundle) = &status.bundle {
        say(&format!("policy     {} {} ({})", bundle.name, bundle.version, bundle.digest.short()));
    }
    say(&format!("nodes      {} of {} live", status.live_nodes, status.nodes));
    say(&format!("incidents  {} open, {} wait for approval", status.open_incidents, status.waiting_plans));
    say(&format!("telemetry  {} series, newest {}", status.recorder.series, show::ago(status.recorder.newest)));
    if let Some(error) = &status.recorder.seal_error {
        say(&format!("           the last seal failed: {error}"));
    }
    for drill in &status.drills {
        say(&format!("drill      {} on {}, {}", drill.name, drill.node, show::ago(Some(drill.since))));
    }
    for node in &status.simulated_nodes {
        say(&format!("simulated  {node}: its executor only pretends"));
    }
    Ok(())
}

pub(super) async fn run(nodes: Nodes, client: &Client, json: bool) -> anyhow::Result<()> {
    match nodes.command {
        None => list(client, json).await,
        Some(Command::Show { node }) => one(client, &node, json).await,
        Some(Command::Cordon { node, reason }) => cordon(client, &node, reason, "cordon", json).await,
        Some(Command::Configure(wanted)) => configure(client, wanted, json).await,
        Some(Command::Uncordon { node, reason }) => cordon(client, &node, reason, "uncordon", json).await,
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let nodes: Vec<NodeView> = client.get("nodes").await?;
    if json {
        return show::json(&nodes);
    }
    if nodes.is_empty() {
        say("No node has joined. `aether join-token create` makes a token to join with.");
        return Ok(());
    }
    let risks: Vec<SubjectRisk> = client.get("risks").await?;
    let rows: Vec<_> = nodes
        .iter()
        .map(|node| {
            [
                node.id.0.clone(),
                [
                    match &node.asleep {
                        _ if node.live => "live".into(),
                        Some(asleep) => format!("asleep, {}", show::ago(Some(asleep.since))),
                        None => format!("away, seen {}", show::ago(node.last_seen)),
                    },
                    if node.takes_work() { String::new() } else { ", takes no work".into() },
                ]
                .concat(),
                risk_of(&risks, node).0,
                node.workloads.len().to_string(),
                risk_of(&risks, node).1,
            ]
        })
        .collect();
    show::table(["NODE", "STATE", "RISK", "WORKLOADS", "WHY"], &rows);
    Ok(())
}

async fn cordon(client: &Client, node: &str, reason: String, deed: &str, json: bool) -> anyhow::Result<()> {
    let node: NodeView = client.post(&format!("nodes/{}/{deed}", escaped(node)), &CordonWord { reason }).await?;
    if json {
        return show::json(&node);
    }
    say(&match (&node.cordon, node.takes_work()) {
        (Some(_), _) => format!("Nothing is placed on {} until somebody lifts it. What runs there goes on.", node.id),
        (None, true) => format!("{} takes work again.", node.id),
        (None, false) => format!("The cordon is lifted; {} is still drained by a plan.", node.id),
    });
    Ok(())
}

async fn configure(client: &Client, wanted: Configure, json: bool) -> anyhow::Result<()> {
    let Configure { node, sample_interval, batch_interval, disable, interval, bpf_budget, clear, reason } = wanted;
    let collection = Collection {
        sample_interval_ms: sample_interval,
        batch_interval_ms: batch_interval,
        disabled_sources: disable.into_iter().collect(),
        intervals_ms: interval.into_iter().collect(),
        bpf_budget_permille: bpf_budget,
    };
    if !clear && collection == Collection::default() {
        anyhow::bail!("nothing is wanted: name an interval, a source or a budget, or take back with --clear");
    }
    let body = ConfigureAgents { node, collection: (!clear).then_some(collection), reason };
    let word: Configured = client.post("agent-config", &body).await?;
    if json {
        return show::json(&word);
    }
    let whose = word.node.as_ref().map_or("every agent without a word of its own".into(), |node| node.to_string());
    say(&match &word.collection {
        Some(collection) => format!(
            "Version {} for {whose}: {}. `aether nodes show` tells what an agent follows.",
            word.version,
            wants(collection)
        ),
        None => format!("Version {}: nothing is wanted of {whose} any more.", word.version),
    });
    Ok(())
}

/// In a few words.
fn wants(collection: &Collection) -> String {
    let Collection { sample_interval_ms, batch_interval_ms, disabled_sources, intervals_ms, bpf_budget_permille } =
        collection;
    let mut words = Vec::new();
    words.extend(sample_interval_ms.map(|ms| format!("sample every {ms} ms")));
    words.extend(batch_interval_ms.map(|ms| format!("send every {ms} ms")));
    words.extend(intervals_ms.iter().map(|(source, ms)| format!("{source} every {ms} ms")));
    words.extend(disabled_sources.iter().map(|source| format!("{source} off")));
    words.extend(bpf_budget_permille.map(|permille| format!("eBPF within {permille} thousandths")));
    words.join(", ")
}

/// What people want of a node's telemetry, and what its agent makes of it; none if nobody wants anything.
fn collection(node: &NodeView, words: &[Configured]) -> Option<String> {
    let word = [Some(&node.id), None].into_iter().find_map(|of| words.iter().find(|word| word.node.as_ref() == of))?;
    let wanted = wants(word.collection.as_ref()?);
    let whose = if word.node.is_some() { "" } else { " of the fleet" };
    let followed = node.facts.get(fact::CONFIG_VERSION).and_then(|version| version.parse::<u64>().ok());
    let stands = match followed {
        Some(followed) if followed >= word.version => match node.facts.get(fact::CONFIG_WITHHELD) {
            None => "its agent follows".to_owned(),
            Some(withheld) => format!("its agent follows, but for {withheld}"),
        },
        _ => "its agent has not said yet that it follows".to_owned(),
    };
    Some(format!("{} {}{whose} wants {wanted}: {}; {stands}", word.name, show::ago(Some(word.at)), word.reason))
}

/// Why a node takes no work, if it does not.
fn closed(node: &NodeView) -> Option<String> {
    let person =
        |cordon: &Cordon| format!("cordoned by {} {}: {}", cordon.name, show::ago(Some(cordon.at)), cordon.reason);
    let drained = || node.facts.get(fact::DRAINED).map(|why| format!("drained: {why}"));
    node.cordon.as_ref().map(person).or_else(drained)
}

fn risk_of(risks: &[SubjectRisk], node: &NodeView) -> (String, String) {
    let subject = SubjectRef::node(node.id.as_str());
    match risks.iter().find(|risk| risk.subject == subject) {
        Some(SubjectRisk { risk: Some(risk), .. }) => (show::name(&risk.level), show::short(&risk.reason, 80)),
        Some(SubjectRisk { unknown, .. }) => {
            ("unknown".into(), show::short(unknown.as_deref().unwrap_or_default(), 80))
        }
        None => ("-".into(), String::new()),
    }
}

async fn one(client: &Client, node: &str, json: bool) -> anyhow::Result<()> {
    let node: NodeView = client.get(&format!("nodes/{}", escaped(node))).await?;
    if json {
        return show::json(&node);
    }
    let state = match &node.asleep {
        _ if node.live => "live",
        Some(_) => "asleep",
        None => "away",
    };
    say(&format!("{} (generation {}), {state}, seen {}", node.id, node.generation, show::ago(node.last_seen)));
    if let Some(asleep) = &node.asleep {
        let now = crate::clock::now();
        let alarm = match (asleep.overdue_ms(now), asleep.wakes_at) {
            (Some(late_ms), _) => format!("; its clock was to wake it {} ago: look at it", show::duration(late_ms)),
            (None, Some(at)) => format!("; its clock wakes it in {}", show::duration(at.since_ms(now))),
            (None, None) => String::new(),
        };
        say(&format!("sleeps on order {}, announced {}{alarm}", asleep.how(), show::ago(Some(asleep.since))));
    }
    if let Some(why) = closed(&node) {
        say(&format!("takes no work, {why}"));
    }
    if let Some(collection) = collection(&node, &client.get::<Vec<Configured>>("agent-config").await?) {
        say(&format!("telemetry {collection}"));
    }
    say(&format!("agent {}\n", node.software_version));
    let rows: Vec<_> = node
        .workloads
        .iter()
        .map(|workload| {
            [
                workload.id.0.clone(),
                show::name(&workload.state),
                show::name(&workload.tier),
                workload.generation.to_string(),
                workload.pid.to_string(),
            ]
        })
        .collect();
    show::table(["WORKLOAD", "STATE", "TIER", "GENERATION", "PID"], &rows);
    say("");
    let rows: Vec<_> = node
        .capabilities
        .iter()
        .map(|capability| {
            let has = match (capability.available, capability.simulated) {
                (true, true) => "simulated",
                (true, false) => "yes",
                (false, _) => "no",
            };
            let mut why = capability.reason.clone();
            if !capability.fallback.is_empty() {
                why = format!("{why}; instead: {}", capability.fallback);
            }
            [capability.name.clone(), has.into(), why]
        })
        .collect();
    show::table(["CAPABILITY", "THERE", "WHY NOT"], &rows);
    Ok(())
}
