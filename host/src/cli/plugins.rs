//! `aether plugin`: what stands where. The commands of the registry are in `registry`, those for authors in `kit`.

use super::{client::Client, kit::Kit, registry, registry::Registry, say, show};
use crate::api::view::{Plugin as Known, Slots};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Plugin {
    /// What stands in which slot and how it does, and what the registry has.
    List,
    #[command(flatten)]
    Kit(Kit),
    #[command(flatten)]
    Registry(Registry),
}

pub(super) async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let slots: Slots = client.get("slots").await?;
    let plugins: Vec<Known> = client.get("plugins").await?;
    if json {
        return show::json(&serde_json::json!({ "slots": slots, "plugins": plugins }));
    }
    if let Some(bundle) = &slots.bundle {
        say(&format!("bundle {} {} ({})\n", bundle.name, bundle.version, bundle.digest.short()));
    }
    let microseconds = |us: Option<u64>| us.map_or_else(|| "-".into(), |us| format!("{us} us"));
    let rows: Vec<_> = slots
        .slots
        .iter()
        .flat_map(|slot| slot.entries.iter().map(move |entry| (slot, entry)))
        .map(|(slot, entry)| {
            let faults: u64 = entry.figures.figures.faults.values().sum();
            [
                slot.id.0.clone(),
                show::name(&slot.role),
                entry.name.clone(),
                entry.version.clone(),
                entry.digest.short().to_owned(),
                entry.figures.figures.evaluations.to_string(),
                faults.to_string(),
                microseconds(entry.figures.figures.latency_us_p50),
            ]
        })
        .collect();
    show::table(["SLOT", "ROLE", "COMPONENT", "VERSION", "DIGEST", "ASKED", "FAULTS", "MEDIAN"], &rows);
    for missing in &slots.missing {
        say(&format!(
            "\n{} is missing from {}: {} [{}]",
            missing.component, missing.slot, missing.reason, missing.code
        ));
    }
    if plugins.iter().any(|plugin| plugin.registered.is_some()) {
        say("");
        registry::list(&plugins);
    }
    Ok(())
}
