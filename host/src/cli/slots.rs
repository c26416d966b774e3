//! `aether slot`.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    api::view::{AddedEntry, Promotion, Retirement, RollBack, SlotEntry, SlotHistory, SlotStatus, Slots},
    plugins::NewEntry,
};
use aether_core::{
    decision::Limits,
    id::{Digest, EntryId},
    slot::{Grant, Proof, Stage},
};
use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(super) enum Slot {
    /// Every slot with what stands in it, and how it does.
    List,
    /// One slot: its entries with their proofs, figures and budget.
    Show {
        /// Such as `risk`.
        slot: String,
    },
    /// The changes of a slot, newest first: what, by whom, why.
    History {
        slot: String,
        #[arg(long, default_value_t = 20)]
        limit: u32,
    },
    /// Put a component of the registry into a slot, as a candidate: activated, self-tested, asked nothing yet.
    Add(Add),
    /// Take an entry one step on.
    Promote(Promote),
    /// Take an entry out that did nothing wrong.
    Retire {
        slot: String,
        entry: String,
        #[arg(long)]
        comment: Option<String>,
        /// Only if the slot is still at this generation [default: the present one].
        #[arg(long)]
        generation: Option<u64>,
    },
    /// Take an entry out because it fails: the one before it answers again.
    Rollback {
        slot: String,
        entry: String,
        /// What it did wrong.
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Add {
    slot: String,
    /// Digest of the component, as `aether plugin list` shows it.
    component: String,
    /// A JSON file with its config [default: an empty one].
    #[arg(long)]
    config: Option<PathBuf>,
    /// A JSON file with its limits; what it leaves out is the default.
    #[arg(long)]
    limits: Option<PathBuf>,
    /// Digest of its set of assets.
    #[arg(long)]
    assets: Option<String>,
    /// What it may import: log, assets, history, wasi. Give it once for each [default: what the entry that it replaces
    /// was granted, or else log].
    #[arg(long, value_parser = grant)]
    grant: Vec<Grant>,
    /// The active entry in whose place it is to stand [default: it is to stand beside the others].
    #[arg(long)]
    replaces: Option<String>,
    /// Only if the slot is still at this generation [default: the present one].
    #[arg(long)]
    generation: Option<u64>,
}

#[derive(Debug, Args)]
pub(super) struct Promote {
    slot: String,
    entry: String,
    /// `shadow`, `canary:PERCENT` or `active`.
    #[arg(long, value_parser = stage)]
    to: Stage,
    #[arg(long)]
    comment: Option<String>,
    /// Id of the backtest that was looked at.
    #[arg(long)]
    backtest: Option<String>,
    /// Why the step is taken without the evidence that it asks for.
    #[arg(long = "override", value_name = "REASON")]
    overridden: Option<String>,
    /// Only if the slot is still at this generation [default: the present one].
    #[arg(long)]
    generation: Option<u64>,
}

fn stage(text: &str) -> Result<Stage, String> {
    match text.split_once(':') {
        None if text == "shadow" => Ok(Stage::Shadow),
        None if text == "active" => Ok(Stage::Active),
        Some(("canary", percent)) => {
            let percent = percent.trim_end_matches('%').parse().map_err(|_| "the share is 1 to 99".to_owned())?;
            Ok(Stage::Canary { percent })
        }
        None | Some(_) => Err("it is `shadow`, `canary:PERCENT` or `active`".into()),
    }
}

fn grant(text: &str) -> Result<Grant, String> {
    let all = [Grant::Log, Grant::Assets, Grant::History, Grant::Wasi];
    all.into_iter().find(|grant| grant.name() == text).ok_or_else(|| "it is log, assets, history or wasi".into())
}

pub(super) async fn run(command: Slot, client: &Client, json: bool) -> anyhow::Result<()> {
    match command {
        Slot::List => list(client, json).await,
        Slot::Show { slot } => {
            let found = find(client, &slot).await?;
            if json { show::json(&found) } else { shown(&found) }
        }
        Slot::History { slot, limit } => history(client, &slot, limit, json).await,
        Slot::Add(command) => add(command, client, json).await,
        Slot::Promote(Promote { slot, entry, to, comment, backtest, overridden, generation }) => {
            let generation = present(client, &slot, generation).await?;
            let body = Promotion { generation, to, comment, backtest, overridden };
            act(client, &slot, &entry, "promote", &body, json).await
        }
        Slot::Retire { slot, entry, comment, generation } => {
            let generation = present(client, &slot, generation).await?;
            act(client, &slot, &entry, "retire", &Retirement { generation, comment }, json).await
        }
        Slot::Rollback { slot, entry, reason } => {
            act(client, &slot, &entry, "roll-back", &RollBack { reason }, json).await
        }
    }
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let slots: Slots = client.get("slots").await?;
    if json {
        return show::json(&slots);
    }
    if let Some(bundle) = &slots.bundle {
        say(&format!("bundle {} {}, policy {}\n", bundle.name, bundle.version, bundle.digest.short()));
    }
    let open = slots.slots.iter().flat_map(|slot| {
        let entries = slot.entries.iter().filter(|entry| entry.stage != Stage::Retired);
        entries.map(move |entry| (slot, entry))
    });
    let rows: Vec<_> = open
        .map(|(slot, entry)| {
            let figures = &entry.figures.figures;
            [
                slot.id.0.clone(),
                slot.generation.to_string(),
                entry.id.0.clone(),
                staged(entry),
                entry.version.clone(),
                entry.digest.short().to_owned(),
                figures.evaluations.to_string(),
                figures.faults.values().sum::<u64>().to_string(),
                figures.fuel_p50.map_or_else(|| "-".into(), |fuel| fuel.to_string()),
                figures.latency_us_p50.map_or_else(|| "-".into(), |us| format!("{us} us")),
            ]
        })
        .collect();
    show::table(["SLOT", "GEN", "ENTRY", "STAGE", "VERSION", "DIGEST", "ASKED", "FAULTS", "FUEL", "MEDIAN"], &rows);
    for missing in &slots.missing {
        say(&format!(
            "\n{} is missing from {}: {} [{}]",
            missing.component, missing.slot, missing.reason, missing.code
        ));
    }
    Ok(())
}

fn shown(slot: &SlotStatus) -> anyhow::Result<()> {
    let last = &slot.last;
    say(&format!(
        "{} ({}, {}), generation {}: {} by {}, {}",
        slot.id,
        show::name(&slot.role),
        show::name(&slot.rule),
        slot.generation,
        last.why,
        last.by,
        show::time(last.at)
    ));
    let budget = &slot.budget;
    say(&format!(
        "budget: {} % faults, {} faults in a row, {} % other deeds, {} times the latency, {} times the fuel, of the newest {}",
        budget.fault_percent,
        budget.faults_in_row,
        budget.divergence_percent,
        budget.latency_ratio,
        budget.fuel_ratio,
        budget.window
    ));
    for entry in &slot.entries {
        let figures = &entry.figures.figures;
        say(&format!("\n{}  {}  {} {} ({})", entry.id, staged(entry), entry.name, entry.version, entry.digest.short()));
        say(&format!("  since {}", show::time(entry.since)));
        if !entry.config.is_empty() {
            say(&format!("  config {}", serde_json::to_string(&entry.config)?));
        }
        if let Some(assets) = &entry.assets {
            say(&format!("  assets {}", assets.short()));
        }
        let grants: Vec<&str> = entry.grants.iter().map(|grant| grant.name()).collect();
        say(&format!("  may import {}", if grants.is_empty() { "nothing".into() } else { grants.join(", ") }));
        if let Some(replaced) = &entry.replaces {
            say(&format!("  in the place of {replaced}"));
        }
        if let Some(before) = &entry.predecessor {
            say(&format!("  rolled back, {before} answers again"));
        }
        for proof in &entry.proofs {
            say(&format!("  {}", proved(proof)));
        }
        if figures.evaluations > 0 {
            say(&format!("  asked {} times: {}", figures.evaluations, figured(figures)));
        }
        if let Some(quarantine) = &entry.quarantine {
            let reproducer = quarantine.reproducer.as_ref().map_or_else(String::new, |id| format!("; see {id}"));
            say(&format!("  FAILED {}: {}{reproducer}", show::time(quarantine.at), quarantine.reason));
        }
    }
    Ok(())
}

fn proved(proof: &Proof) -> String {
    let mut text = format!("{} {} by {}", stage_name(proof.to), show::time(proof.at), proof.by);
    if let Some(test) = &proof.self_test {
        text.push_str(&format!("; self-test {} passed, {} failed", test.passed, test.failed));
    }
    if let Some(backtest) = &proof.backtest {
        text.push_str(&format!("; backtest {backtest}"));
    }
    if let Some(figures) = &proof.figures {
        text.push_str(&format!("; before that asked {} times: {}", figures.evaluations, figured(figures)));
    }
    if let Some(reason) = &proof.overridden {
        text.push_str(&format!("; OVERRIDDEN: {reason}"));
    }
    text
}

fn figured(figures: &aether_core::slot::Figures) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "-".into(), |value| value.to_string());
    let mut text = format!("{} faults", figures.faults.values().sum::<u64>());
    if figures.compared > 0 {
        text.push_str(&format!(", {} of {} another deed", figures.diverged, figures.compared));
    }
    text.push_str(&format!(
        ", fuel {} (99 % {}), {} us (99 % {}), {} KiB at most, {} log lines",
        number(figures.fuel_p50),
        number(figures.fuel_p99),
        number(figures.latency_us_p50),
        number(figures.latency_us_p99),
        figures.memory_bytes_max / 1_024,
        figures.log_lines
    ));
    text
}

fn staged(entry: &SlotEntry) -> String {
    let flagged = entry.stage == Stage::Active && entry.quarantine.is_some();
    let silent = matches!(entry.stage, Stage::Active | Stage::Canary { .. } | Stage::Shadow) && !entry.ready;
    let mark = if silent {
        " (not ready)"
    } else if flagged {
        " (fails)"
    } else {
        ""
    };
    format!("{}{mark}", stage_name(entry.stage))
}

fn stage_name(stage: Stage) -> String {
    match stage {
        Stage::Canary { percent } => format!("canary {percent} %"),
        Stage::Candidate | Stage::Shadow | Stage::Active | Stage::Retired => stage.name().into(),
    }
}

async fn history(client: &Client, slot: &str, limit: u32, json: bool) -> anyhow::Result<()> {
    let history: SlotHistory = client.get(&format!("slots/{}/generations?limit={limit}", escaped(slot))).await?;
    if json {
        return show::json(&history);
    }
    let rows: Vec<_> = history
        .generations
        .iter()
        .map(|made| {
            [
                made.slot.generation.to_string(),
                show::time(made.at),
                made.change.name().to_owned(),
                made.change.entry().map_or_else(|| "-".into(), |entry| entry.0.clone()),
                made.by.0.clone(),
                show::short(&made.why, 80),
            ]
        })
        .collect();
    show::table(["GEN", "AT", "CHANGE", "ENTRY", "BY", "WHY"], &rows);
    Ok(())
}

async fn add(command: Add, client: &Client, json: bool) -> anyhow::Result<()> {
    let Add { slot, component, config, limits, assets, grant, replaces, generation } = command;
    let config = match config {
        Some(path) => read(&path)?,
        None => serde_json::Map::new(),
    };
    let limits: Limits = match limits {
        Some(path) => read(&path)?,
        None => Limits::default(),
    };
    let new = NewEntry {
        generation: present(client, &slot, generation).await?,
        component: Digest(component),
        config,
        limits,
        assets: assets.map(Digest),
        grants: (!grant.is_empty()).then(|| grant.into_iter().collect()),
        replaces: replaces.map(EntryId),
    };
    let added: AddedEntry = client.post(&format!("slots/{}/entries", escaped(&slot)), &new).await?;
    if json {
        return show::json(&added);
    }
    say(&format!("{} is a candidate in {slot}, generation {}.", added.entry, added.slot.generation));
    for fixture in &added.self_test {
        let word = if fixture.problems.is_empty() { "ok  " } else { "FAIL" };
        say(&format!("  {word}  {}: {}", fixture.name, fixture.summary));
        for problem in &fixture.problems {
            say(&format!("        {problem}"));
        }
    }
    if added.self_test.is_empty() {
        say("  The bundle has no fixture for it.");
    }
    say(&format!("Go on with `aether slot promote {slot} {} --to shadow`.", added.entry));
    Ok(())
}

async fn act(
    client: &Client,
    slot: &str,
    entry: &str,
    deed: &str,
    body: &impl serde::Serialize,
    json: bool,
) -> anyhow::Result<()> {
    let path = format!("slots/{}/entries/{}/{deed}", escaped(slot), escaped(entry));
    let slot: SlotStatus = client.post(&path, body).await?;
    if json {
        return show::json(&slot);
    }
    say(&format!("{} is at generation {}.", slot.id, slot.generation));
    let rows: Vec<_> = slot.entries.iter().map(|entry| [entry.id.0.clone(), staged(entry)]).collect();
    show::table(["ENTRY", "STAGE"], &rows);
    Ok(())
}

/// The generation that was named, or the one that the slot is at.
async fn present(client: &Client, slot: &str, named: Option<u64>) -> anyhow::Result<u64> {
    match named {
        Some(generation) => Ok(generation),
        None => Ok(find(client, slot).await?.generation),
    }
}

async fn find(client: &Client, id: &str) -> anyhow::Result<SlotStatus> {
    let slots: Slots = client.get("slots").await?;
    let known: Vec<String> = slots.slots.iter().map(|slot| slot.id.0.clone()).collect();
    match slots.slots.into_iter().find(|slot| slot.id.0 == id) {
        Some(slot) => Ok(slot),
        None => bail!("there is no slot `{id}`; there are {}", known.join(", ")),
    }
}

fn read<T: serde::de::DeserializeOwned>(path: &std::path::Path) -> anyhow::Result<T> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{} is not right", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_and_grants_are_read_as_they_are_written() {
        assert_eq!(stage("shadow"), Ok(Stage::Shadow));
        assert_eq!(stage("canary:5"), Ok(Stage::Canary { percent: 5 }));
        assert_eq!(stage("canary:5%"), Ok(Stage::Canary { percent: 5 }));
        assert_eq!(stage("active"), Ok(Stage::Active));
        for wrong in ["retired", "canary", "canary:x", "canary:300", "shadow:1", ""] {
            assert!(stage(wrong).is_err(), "{wrong}");
        }
        assert_eq!(grant("history"), Ok(Grant::History));
        assert!(grant("network").is_err());
    }
}
