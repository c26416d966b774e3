//! `aether break-glass`: leave to approve alone for a short time, and the review that it owes.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::{
    api::view::{OpenBreakGlass, ReviewBreakGlass},
    clock,
    store::break_glass::BreakGlass,
};
use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(super) enum Glass {
    /// Who may approve alone now, who could, and what is still to be reviewed.
    List,
    /// Take leave to approve alone: `aether approve PLAN --break-glass --comment WHY`. It is told to everybody, and somebody
    /// else owes it a review.
    Open {
        /// Why it cannot wait for another person.
        #[arg(long)]
        reason: String,
        /// How long, in minutes; 480 (8 h) at most.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=480))]
        minutes: u32,
    },
    /// Give it back before it ends by itself.
    End { id: String },
    /// Say that you looked at what was done under it. Whoever held it cannot.
    Review {
        id: String,
        /// What you found.
        #[arg(long)]
        comment: String,
    },
}

pub(super) async fn run(glass: Glass, client: &Client, json: bool) -> anyhow::Result<()> {
    let one: BreakGlass = match glass {
        Glass::List => return list(client, json).await,
        Glass::Open { reason, minutes } => {
            let open = OpenBreakGlass { reason, valid_for_ms: Some(u64::from(minutes) * 60_000) };
            client.post("break-glass", &open).await?
        }
        Glass::End { id } => client.post(&format!("break-glass/{}/end", escaped(&id)), &()).await?,
        Glass::Review { id, comment } => {
            client.post(&format!("break-glass/{}/review", escaped(&id)), &ReviewBreakGlass { comment }).await?
        }
    };
    if json {
        return show::json(&one);
    }
    say(&format!("{} {}", one.id, standing(&one)));
    Ok(())
}

async fn list(client: &Client, json: bool) -> anyhow::Result<()> {
    let all: Vec<BreakGlass> = client.get("break-glass").await?;
    if json {
        return show::json(&all);
    }
    if all.is_empty() {
        say("Nobody has ever taken it.");
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|glass| {
            let plans: Vec<&str> = glass.plans.iter().map(aether_core::plan::PlanHash::short).collect();
            [
                glass.id.0.clone(),
                glass.principal.0.clone(),
                show::time(glass.opened_at),
                standing(glass),
                plans.join(" "),
                glass.reason.clone(),
            ]
        })
        .collect();
    show::table(["BREAK-GLASS", "WHO", "SINCE", "STANDS", "APPROVED", "WHY"], &rows);
    Ok(())
}

fn standing(glass: &BreakGlass) -> String {
    match &glass.review {
        Some(review) => format!("reviewed by {}", review.by),
        None if glass.is_open(clock::now()) => format!("open until {}", show::time(glass.expires_at)),
        None => "over, review owed".into(),
    }
}
