//! `aether snapshot`: what is stored of workloads, and what becomes of it.

use super::{SHORT, client::Client, say, show};
use crate::{
    api::view::{DrillSnapshot, PinSnapshot},
    snapshots::{Snapshot as Stored, SnapshotDetail, SnapshotVerified, Snapshots},
    store::snapshots::{Drill, DrillResult},
};
use aether_core::id::NodeId;
use anyhow::bail;
use clap::{Args, Subcommand};
use std::{process::ExitCode, time::Duration};

#[derive(Debug, Subcommand)]
pub(super) enum Snapshot {
    /// All of them, the newest first.
    List,
    /// One, with its files.
    Show(Which),
    /// Keep one whatever the limits say.
    Pin {
        #[command(flatten)]
        which: Which,
        /// What it is kept for.
        #[arg(long)]
        comment: String,
    },
    /// Let one go when its time has come.
    Unpin(Which),
    /// Remove one that nothing needs. It cannot be brought back.
    Rm(Which),
    /// Read one anew from the store and check every byte; exits with 3 if it is not whole.
    Verify(Which),
    /// Have an agent really restore one, stopped and apart from everything, and end the copy; exits with 3 if it cannot.
    Drill {
        #[command(flatten)]
        which: Which,
        /// Where [default: where it was taken, else anywhere].
        #[arg(long)]
        node: Option<String>,
    },
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// As the list names it: the digest of its manifest, or how that begins.
    snapshot: String,
}

/// Between two looks at a drill that runs.
const LOOK_EVERY: Duration = Duration::from_millis(300);
/// The least of a digest that is taken for one.
const DIGITS_LEAST: usize = 6;
const DIGITS: usize = 64;

async fn find(client: &Client, which: &Which) -> anyhow::Result<String> {
    let wanted = &which.snapshot;
    if wanted.len() == DIGITS {
        return Ok(wanted.clone());
    }
    if wanted.len() < DIGITS_LEAST {
        bail!("`{wanted}` is too short: {DIGITS_LEAST} digits of the snapshot's digest are wanted at least");
    }
    let all: Snapshots = client.get("snapshots").await?;
    let mut found = all.snapshots.into_iter().map(|stored| stored.view.manifest.0).filter(|id| id.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one),
        (Some(_), Some(_)) => bail!("more than one snapshot begins with `{wanted}`: give more of it"),
        (None, _) => bail!("no snapshot begins with `{wanted}`; `aether snapshot list` shows those that there are"),
    }
}

pub(super) async fn run(snapshot: Snapshot, client: &Client, json: bool) -> anyhow::Result<ExitCode> {
    match snapshot {
        Snapshot::List => list(&client.get("snapshots").await?, json)?,
        Snapshot::Show(which) => {
            let id = find(client, &which).await?;
            detail(&client.get(&format!("snapshots/{id}")).await?, json)?;
        }
        Snapshot::Pin { which, comment } => {
            let id = find(client, &which).await?;
            let stored: Stored = client.post(&format!("snapshots/{id}/pin"), &PinSnapshot { comment }).await?;
            done(&stored, "It stays until it is unpinned.", json)?;
        }
        Snapshot::Unpin(which) => {
            let id = find(client, &which).await?;
            let stored: Stored = client.post(&format!("snapshots/{id}/unpin"), &()).await?;
            done(&stored, "It goes when its time has come.", json)?;
        }
        Snapshot::Rm(which) => {
            let id = find(client, &which).await?;
            client.delete(&format!("snapshots/{id}")).await?;
            say("It is removed. Chunks that nothing else names follow.");
        }
        Snapshot::Verify(which) => {
            let id = find(client, &which).await?;
            return verified(&client.post_slowly(&format!("snapshots/{id}/verify"), &()).await?, json);
        }
        Snapshot::Drill { which, node } => {
            let id = find(client, &which).await?;
            let asked = DrillSnapshot { node: node.map(NodeId) };
            let begun: Drill = client.post(&format!("snapshots/{id}/drill"), &asked).await?;
            return drilled(&wait(client, begun).await?, json);
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Until it has ended; the host bounds how long that takes.
async fn wait(client: &Client, mut drill: Drill) -> anyhow::Result<Drill> {
    let mut look = tokio::time::interval(LOOK_EVERY);
    while drill.ended_at.is_none() {
        look.tick().await;
        let detail: SnapshotDetail = client.get(&format!("snapshots/{}", drill.manifest)).await?;
        drill = detail.snapshot.drill.unwrap_or(drill);
    }
    Ok(drill)
}

fn drilled(drill: &Drill, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        show::json(drill)?;
    } else {
        let Drill { node, code, message, .. } = drill;
        match drill.result {
            DrillResult::Restored => say(&format!("It restores on {node}: {message}.")),
            _ => say(&format!("It was not restored on {node} ({}): {message} [{code}]", drill.result.name())),
        }
    }
    Ok(if drill.result == DrillResult::Restored { ExitCode::SUCCESS } else { ExitCode::from(SHORT) })
}

fn last_drill(drill: Option<&Drill>) -> String {
    drill.map_or_else(
        || "-".into(),
        |drill| match drill.ended_at {
            Some(at) => format!("{}, {}", drill.result.name(), show::ago(Some(at))),
            None => drill.result.name().into(),
        },
    )
}

fn drill_words(drill: Option<&Drill>) -> String {
    match drill {
        None => "never".into(),
        Some(drill) => format!("{} on {}: {}", last_drill(Some(drill)), drill.node, drill.message),
    }
}

fn stays(stored: &Stored) -> String {
    let pinned = stored.pin.as_ref().map(|pin| format!("pinned by {}: {}", pin.name, pin.comment));
    let needed = stored.needed_by.clone();
    let missing = (stored.view.missing_chunks > 0).then(|| "NOT WHOLE".to_owned());
    [missing, needed, pinned].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn list(all: &Snapshots, json: bool) -> anyhow::Result<()> {
    if json {
        return show::json(all);
    }
    let rows: Vec<_> = all
        .snapshots
        .iter()
        .map(|stored| {
            let view = &stored.view;
            [
                view.manifest.short().to_owned(),
                view.workload.to_string(),
                view.source.to_string(),
                show::ago(Some(view.taken_at)),
                show::bytes(view.total_bytes),
                view.tier.name().to_owned(),
                view.key.clone().unwrap_or_else(|| "-".into()),
                last_drill(stored.drill.as_ref()),
                stays(stored),
            ]
        })
        .collect();
    match rows.is_empty() {
        true => say("No snapshot is stored."),
        false => {
            show::table(["SNAPSHOT", "WORKLOAD", "FROM", "TAKEN", "SIZE", "TIER", "KEY", "DRILL", "STAYS FOR"], &rows)
        }
    }
    for locked in &all.locked {
        say(&format!(
            "{} more are sealed with the key {}, which the host does not have: add it to its `snapshots.key_file`.",
            locked.snapshots, locked.key
        ));
    }
    Ok(())
}

fn detail(detail: &SnapshotDetail, json: bool) -> anyhow::Result<()> {
    if json {
        return show::json(detail);
    }
    let view = &detail.snapshot.view;
    let stays = Some(stays(&detail.snapshot)).filter(|stays| !stays.is_empty());
    let rows = [
        ["manifest".into(), view.manifest.to_string()],
        ["order".into(), view.snapshot.to_string()],
        ["workload".into(), format!("{}, generation {}, from {}", view.workload, view.generation, view.source)],
        ["taken".into(), show::time(view.taken_at)],
        ["progress".into(), detail.progress.map_or_else(|| "told none".into(), |progress| progress.to_string())],
        ["size".into(), format!("{} in {} chunks, {}", show::bytes(view.total_bytes), view.chunks, view.tier.name())],
        ["sealed".into(), view.key.as_ref().map_or_else(|| "no".into(), |key| format!("with the key {key}"))],
        ["signed".into(), if detail.signed { "by this host".into() } else { "NOT by this host".into() }],
        ["taken by".into(), format!("CRIU {}, Linux {}", detail.criu_version, detail.kernel_release)],
        ["drill".into(), drill_words(detail.snapshot.drill.as_ref())],
        ["stays for".into(), stays.unwrap_or_else(|| "nothing in particular".into())],
    ];
    show::table(["SNAPSHOT", ""], &rows);
    let files: Vec<_> = detail.files.iter().map(|file| [file.name.clone(), show::bytes(file.size_bytes)]).collect();
    show::table(["FILE", "SIZE"], &files);
    Ok(())
}

fn done(stored: &Stored, said: &str, json: bool) -> anyhow::Result<()> {
    if json {
        return show::json(stored);
    }
    say(said);
    Ok(())
}

fn verified(verified: &SnapshotVerified, json: bool) -> anyhow::Result<ExitCode> {
    let SnapshotVerified { whole, signed, found } = verified;
    if json {
        show::json(verified)?;
    } else {
        let read = format!("{} chunks, {}", found.chunks, show::bytes(found.bytes));
        match (whole, signed) {
            (true, _) => say(&format!("It is whole: {read}, every byte as it was stored, and signed by this host.")),
            (false, false) => say("It is not signed by this host: no agent restores it."),
            (false, true) => {
                say(&format!("It is not whole: {} chunks are missing or damaged.", found.damaged_count));
                found.damaged.iter().for_each(|digest| say(&format!("  {digest}")));
            }
        }
    }
    Ok(if *whole { ExitCode::SUCCESS } else { ExitCode::from(SHORT) })
}
