//! `aether incidents`, `aether approve`, `aether deny`.

use super::{
    client::{Client, escaped},
    say, show,
};
use crate::api::view::{Decide, Decided, IncidentDetail, IncidentPage, PlanDetail};
use aether_core::{
    catalogue::{self, SafetyClass},
    plan::Step,
};
use anyhow::bail;
use clap::{Args, Subcommand};
use std::io::{BufRead as _, IsTerminal as _};

#[derive(Debug, Args)]
pub(super) struct Incidents {
    #[command(subcommand)]
    command: Option<Command>,
    /// Only open ones.
    #[arg(long)]
    open: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// One incident as a story: what was seen, planned, approved, done and verified.
    Show {
        /// Its id, or the beginning of it.
        incident: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Approve {
    /// The plan's hash, or enough of its beginning to be the only one.
    plan: String,
    /// Why. Some plans demand it.
    #[arg(long)]
    comment: Option<String>,
    /// Alone, under the break-glass that you hold; needs a comment.
    #[arg(long)]
    break_glass: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(super) struct CallOff {
    /// The plan's hash, or enough of its beginning to be the only one.
    plan: String,
    /// Why; it stays in the audit and in the incident's report.
    #[arg(long)]
    comment: String,
}

/// Has an execution given up, and what was done undone.
pub(super) async fn call_off(word: CallOff, client: &Client, json: bool) -> anyhow::Result<()> {
    let hash = whole_hash(client, &word.plan).await?;
    let body = Decide { comment: Some(word.comment), break_glass: false };
    let decided: Decided = client.post(&format!("plans/{}/call-off", escaped(&hash)), &body).await?;
    if json {
        return show::json(&decided);
    }
    say("Called off: the step under way is being given up, and what was done is undone.");
    say(&format!(
        "The incident is now: {}. Watch it with `aether incidents show {}`.",
        show::name(&decided.phase),
        decided.incident.id
    ));
    Ok(())
}

pub(super) async fn run(incidents: Incidents, client: &Client, json: bool) -> anyhow::Result<()> {
    match incidents.command {
        None => list(client, incidents.open, json).await,
        Some(Command::Show { incident }) => one(client, &incident, json).await,
    }
}

async fn list(client: &Client, open: bool, json: bool) -> anyhow::Result<()> {
    let page: IncidentPage = client.get(if open { "incidents?open=true" } else { "incidents" }).await?;
    if json {
        return show::json(&page);
    }
    if page.incidents.is_empty() {
        say("No incident.");
        return Ok(());
    }
    let rows: Vec<_> = page
        .incidents
        .iter()
        .map(|incident| {
            [
                incident.id.0.clone(),
                show::ago(Some(incident.opened_at)),
                incident.shape.subject.to_string(),
                incident.resolution.as_ref().map_or_else(|| incident.phase.clone(), show::name),
                incident.plan.as_ref().map_or_else(|| "-".into(), |plan| plan.short().to_owned()),
                show::short(&incident.summary, 70),
            ]
        })
        .collect();
    show::table(["INCIDENT", "OPENED", "SUBJECT", "STATE", "PLAN", "WHY"], &rows);
    Ok(())
}

async fn one(client: &Client, wanted: &str, json: bool) -> anyhow::Result<()> {
    let page: IncidentPage = client.get("incidents?limit=200").await?;
    let ids: Vec<&str> = page.incidents.iter().map(|incident| incident.id.as_str()).collect();
    let id = only("incident", wanted, &ids)?.unwrap_or(wanted);
    let detail: IncidentDetail = client.get(&format!("incidents/{}", escaped(id))).await?;
    if json {
        return show::json(&detail);
    }
    let incident = &detail.incident;
    let state = incident.resolution.as_ref().map_or_else(|| incident.phase.clone(), show::name);
    say(&format!("{}: {} on {}, {state}", incident.id, incident.shape.cause, incident.shape.subject));
    say(&incident.summary);
    for (flag, text) in [
        (detail.flags.drill, "This is a drill."),
        (detail.flags.dry_run, "This is a dry run: nothing is changed."),
        (detail.flags.simulated, "An executor only pretended: nothing that it reports was done."),
    ] {
        if flag {
            say(text);
        }
    }
    say("");
    for entry in &detail.timeline {
        say(&format!("{}  {}", show::time(entry.at), entry.text));
    }
    say("");
    let kinds: Vec<&str> = detail.artifacts.iter().map(|artifact| artifact.body.kind().name()).collect();
    let chain = match &detail.chain_broken_at {
        None => "their chain of hashes is whole".to_owned(),
        Some(id) => format!("THEIR CHAIN OF HASHES IS BROKEN at {id}"),
    };
    say(&format!("{} artifacts ({}); {chain}", kinds.len(), kinds.join(", ")));
    if let Some(plan) = &incident.plan {
        say(&format!("plan {plan}"));
    }
    Ok(())
}

/// Shows the plan, asks, and sends the word with the whole hash of what was shown.
pub(super) async fn decide(approve: bool, word: Approve, client: &Client, json: bool) -> anyhow::Result<()> {
    let hash = whole_hash(client, &word.plan).await?;
    let plan: PlanDetail = client.get(&format!("plans/{}", escaped(&hash))).await?;
    if word.break_glass && !approve {
        bail!("a denial needs no break-glass: one word is enough");
    }
    let (deed, done) = if approve { ("approve", "Approved") } else { ("deny", "Denied") };
    if !json {
        tell(&plan);
    }
    if !word.yes {
        if json || !std::io::stdin().is_terminal() {
            bail!("nobody can be asked here; say --yes if the plan is known");
        }
        super::print(&format!("\nType yes to {deed} exactly this plan: "));
        let mut answer = String::new();
        std::io::stdin().lock().read_line(&mut answer)?;
        if answer.trim() != "yes" {
            bail!("nothing was said to the host; the plan waits as before");
        }
    }
    let decided: Decided = client
        .post(
            &format!("plans/{}/{deed}", escaped(plan.hash.0.as_str())),
            &Decide { comment: word.comment, break_glass: word.break_glass },
        )
        .await?;
    if json {
        return show::json(&decided);
    }
    say(&format!("{done}. The incident is now: {}", show::name(&decided.phase)));
    Ok(())
}

/// A short form is for people; what is approved is named in full.
async fn whole_hash(client: &Client, wanted: &str) -> anyhow::Result<String> {
    if wanted.len() == 64 {
        return Ok(wanted.into());
    }
    let page: IncidentPage = client.get("incidents?limit=200").await?;
    let mut hashes: Vec<&str> =
        page.incidents.iter().filter_map(|incident| incident.plan.as_ref()).map(|plan| plan.0.as_str()).collect();
    hashes.sort_unstable();
    hashes.dedup();
    match only("plan", wanted, &hashes)? {
        Some(hash) => Ok(hash.into()),
        None => bail!("no plan of a recent incident begins with `{wanted}`; `aether incidents` lists them"),
    }
}

/// The one that begins so, if there is one.
fn only<'a>(what: &str, wanted: &str, all: &[&'a str]) -> anyhow::Result<Option<&'a str>> {
    if wanted.is_empty() {
        bail!("no {what} is named");
    }
    let mut found = all.iter().filter(|id| id.starts_with(wanted));
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(Some(one)),
        (Some(_), Some(_)) => bail!("several {what}s begin with `{wanted}`; give more of it"),
        (None, _) => Ok(None),
    }
}

fn tell(detail: &PlanDetail) {
    say(&format!("Plan {}", detail.hash));
    if let Some(proposal) = &detail.proposal {
        say(&format!("{}. {}", proposal.title, proposal.rationale));
    }
    say(&format!("incident   {}: {}", detail.incident.id, detail.incident.summary));
    say(&format!("class      {}", show::name(&detail.plan.class)));
    let blast = &detail.plan.blast;
    let share =
        detail.blast.as_ref().map_or_else(String::new, |blast| format!(", {:.0} % of the fleet", blast.fleet_percent));
    say(&format!("touches    {} nodes, {} workloads, {} GPUs{share}", blast.nodes, blast.workloads, blast.gpus));
    if detail.plan.dry_run {
        say("           a dry run: nothing will be changed");
    }
    if detail.flags.drill {
        say("           a drill: somebody asked for the disturbance, what is done is real");
    }
    let age = detail.evidence_age_ms.map_or_else(|| "unknown".into(), |ms| format!("{} old", show::duration(ms)));
    say(&format!("evidence   {age}"));
    if let Some(demand) = &detail.demand {
        let given = detail.approvals.iter().filter(|approval| approval.approved).count();
        let role = if demand.role.is_empty() { "any rank" } else { demand.role.as_str() };
        say(&format!("needs      {} of rank {role}; {given} given", demand.approvers));
    }
    match detail.approve_by {
        Some(by) => say(&format!("expires    {}", show::time(by))),
        None => say("expires    it does not wait for an approval"),
    }
    say("\nsteps");
    for (number, step) in detail.plan.steps.iter().enumerate() {
        say(&format!("  {}. {}", number + 1, step_line(step, detail.plan.dry_run)));
    }
}

fn step_line(step: &Step, dry_run: bool) -> String {
    let arguments: Vec<String> = step.arguments.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let undo = step.compensation.as_ref().map_or_else(
        || match catalogue::find(&step.verb) {
            Ok(found) if found.verb.class == SafetyClass::ReadOnly => "changes nothing".to_owned(),
            Ok(_) | Err(_) => "cannot be undone".to_owned(),
        },
        |compensation| format!("undone by {} on {}", compensation.verb, compensation.node),
    );
    let dry = match catalogue::find(&step.verb) {
        Ok(found) if dry_run => format!("; dry run: {}", found.dry_run.name()),
        Ok(_) | Err(_) => String::new(),
    };
    format!("{} {} on {}  {}  ({undo}{dry})", step.verb, step.target, step.node, arguments.join(" "))
}

#[cfg(test)]
mod tests {
    use super::only;

    #[test]
    fn a_short_form_must_be_the_only_one() {
        let all = ["abc", "abd", "xyz"];
        assert_eq!(only("plan", "x", &all).expect("one"), Some("xyz"));
        assert_eq!(only("plan", "q", &all).expect("none"), None);
        assert!(only("plan", "ab", &all).is_err());
        assert!(only("plan", "", &all).is_err());
    }
}
