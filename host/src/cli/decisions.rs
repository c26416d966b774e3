//! `aether decisions`.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{api::view::DecisionSummary, plugins::replay::File};
use aether_core::decision::Envelope;
use anyhow::Context;
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Decisions {
    /// The newest decisions that incidents refer to.
    List {
        /// Only of this slot, such as `risk`.
        #[arg(long)]
        slot: Option<String>,
    },
    /// One decision with everything that is needed to run it again.
    Show {
        /// Its id.
        decision: String,
    },
    /// Write one into a file, with everything that it needs to replay on another machine.
    Export {
        /// Its id.
        decision: String,
        /// The file, which is written anew.
        #[arg(long, short)]
        output: std::path::PathBuf,
    },
}

pub(super) async fn run(decisions: Decisions, client: &Client, json: bool) -> anyhow::Result<()> {
    match decisions {
        Decisions::List { slot } => {
            let filter = slot.map_or_else(String::new, |slot| format!("?slot={}", escaped(&slot)));
            let found: Vec<DecisionSummary> = client.get(&format!("decisions{filter}")).await?;
            if json {
                return show::json(&found);
            }
            let rows: Vec<_> = found
                .iter()
                .map(|decision| {
                    [
                        decision.id.0.clone(),
                        show::ago(Some(decision.at)),
                        decision.slot.0.clone(),
                        decision.component_name.clone(),
                        show::short(&decision.outcome, 70),
                    ]
                })
                .collect();
            show::table(["DECISION", "MADE", "SLOT", "COMPONENT", "OUTCOME"], &rows);
        }
        Decisions::Export { decision, output } => {
            let file: File = client.get(&format!("decisions/{}/export", escaped(&decision))).await?;
            let text = serde_json::to_vec(&file)?;
            std::fs::write(&output, &text)
                .with_context(|| format!("the file {} cannot be written", output.display()))?;
            say(&format!(
                "{}: {} KiB. `aether replay --file {0}` executes it again.",
                output.display(),
                text.len().div_ceil(1_024)
            ));
        }
        Decisions::Show { decision } => {
            let envelope: Envelope = client.get(&format!("decisions/{}", escaped(&decision))).await?;
            if json {
                return show::json(&envelope);
            }
            say(&format!("{} in slot {}, {}", envelope.id, envelope.slot, show::time(envelope.at)));
            let Envelope { component_name, component_version, component, .. } = &envelope;
            say(&format!("{component_name} {component_version} ({})", component.short()));
            say(&format!(
                "fuel {}, {} us, {} host calls",
                envelope.fuel,
                envelope.duration_us,
                envelope.host_calls.len()
            ));
            for line in &envelope.log {
                say(&format!("  {}: {}", show::name(&line.severity), line.message));
            }
            match &envelope.outcome {
                Ok(answer) => say(&serde_json::to_string_pretty(answer)?),
                Err(fault) => say(&format!("fault {}: {}", show::name(&fault.kind), fault.message)),
            }
        }
    }
    Ok(())
}
