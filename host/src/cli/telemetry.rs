//! `aether telemetry`: what of the telemetry needs a person.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::api::view::{DeadLetterDetail, DeadLetterList, DeadLetterReplay};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Telemetry {
    /// Batches that the host refused for good.
    #[command(subcommand)]
    DeadLetters(DeadLetters),
}

#[derive(Debug, Subcommand)]
pub(super) enum DeadLetters {
    /// What was refused and why, newest first.
    List {
        /// Of this node alone.
        #[arg(long)]
        origin: Option<String>,
        /// Below this number, for older ones.
        #[arg(long)]
        before: Option<u64>,
        /// How many.
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=200))]
        limit: u32,
    },
    /// One of them: what it says, and what stands in the way now.
    Show { number: u64 },
    /// Offer one again: it goes through the checks of today. A second time doubles nothing.
    Replay { number: u64 },
    /// Remove one.
    Rm { number: u64 },
}

pub(super) async fn run(telemetry: Telemetry, client: &Client, json: bool) -> anyhow::Result<()> {
    let Telemetry::DeadLetters(letters) = telemetry;
    match letters {
        DeadLetters::List { origin, before, limit } => {
            let mut path = format!("telemetry/dead-letters?limit={limit}");
            if let Some(origin) = origin {
                path += &format!("&origin={}", escaped(&origin));
            }
            if let Some(before) = before {
                path += &format!("&before={before}");
            }
            let found: DeadLetterList = client.get(&path).await?;
            if json {
                return show::json(&found);
            }
            if found.letters.is_empty() {
                say("Nothing was refused.");
                return Ok(());
            }
            let rows: Vec<_> = found
                .letters
                .iter()
                .map(|letter| {
                    [
                        letter.number.to_string(),
                        show::ago(Some(letter.at)),
                        letter.origin.0.clone(),
                        letter.sequence.clone(),
                        letter.code.clone(),
                        show::bytes(letter.bytes),
                        match letter.replayed_at {
                            Some(at) => format!("replayed {}", show::ago(Some(at))),
                            None if letter.kept => "kept".into(),
                            None => "too large, not kept".into(),
                        },
                        show::short(&letter.reason, 80),
                    ]
                })
                .collect();
            show::table(["NUMBER", "REFUSED", "ORIGIN", "SEQUENCE", "CODE", "SIZE", "BATCH", "WHY"], &rows);
            if let Some(next) = found.next_before {
                say(&format!("There are older ones: --before {next}"));
            }
        }
        DeadLetters::Show { number } => {
            let found: DeadLetterDetail = client.get(&format!("telemetry/dead-letters/{number}")).await?;
            if json {
                return show::json(&found);
            }
            let letter = &found.letter;
            say(&format!(
                "{} of {}: batch {} of epoch {}, refused {} as {}",
                letter.number,
                letter.origin,
                letter.sequence,
                letter.epoch,
                show::time(letter.at),
                letter.code
            ));
            say(&format!("  why     {}", letter.reason));
            match &found.obstacle {
                Some(obstacle) => say(&format!("  now     {obstacle}")),
                None => say("  now     nothing is seen that stands in the way of a replay"),
            }
            if let Some(at) = letter.replayed_at {
                say(&format!("  taken   by a replay, {}", show::time(at)));
            }
            if found.parts.is_empty() {
                return Ok(());
            }
            say(&format!("  holds   {} samples and {} events", found.samples, found.events));
            let rows: Vec<_> = found
                .parts
                .iter()
                .map(|part| {
                    let attributes: Vec<_> =
                        part.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
                    [
                        part.subject.to_string(),
                        part.name.clone(),
                        if part.samples == 0 { "event".into() } else { part.samples.to_string() },
                        part.first.map_or_else(String::new, show::time),
                        part.last.map_or_else(String::new, show::time),
                        attributes.join(" "),
                    ]
                })
                .collect();
            show::table(["SUBJECT", "NAME", "SAMPLES", "FROM", "TO", "ATTRIBUTES"], &rows);
            if found.cut {
                say("Further ones were left out.");
            }
        }
        DeadLetters::Replay { number } => {
            let done: DeadLetterReplay = client.post(&format!("telemetry/dead-letters/{number}/replay"), &()).await?;
            if json {
                return show::json(&done);
            }
            say(&match done.doubled_nothing {
                false => format!("{number} was taken, and is safe on the host's disk."),
                true => format!("{number} had been taken before; nothing was doubled."),
            });
        }
        DeadLetters::Rm { number } => {
            client.delete(&format!("telemetry/dead-letters/{number}")).await?;
            say(&format!("{number} is removed."));
        }
    }
    Ok(())
}
