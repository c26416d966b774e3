//! `aether verbs`: what can be done to the fleet.

use super::{client::Client, say, show};
use aether_core::catalogue::{ArgumentSpec, Definition};
use anyhow::bail;
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Verbs {
    /// One of them, with its arguments, what must hold before and what undoes it.
    verb: Option<String>,
}

pub(super) async fn run(verbs: Verbs, client: &Client, json: bool) -> anyhow::Result<()> {
    let mut all: Vec<Definition> = client.get("verbs").await?;
    if let Some(name) = &verbs.verb {
        all.retain(|definition| definition.verb.name == *name);
        if all.is_empty() {
            bail!("there is no verb `{name}`; `aether verbs` lists them");
        }
    }
    if json {
        return show::json(&all);
    }
    if let (Some(_), [only]) = (&verbs.verb, &all[..]) {
        one(only);
        return Ok(());
    }
    let rows: Vec<_> = all
        .iter()
        .map(|definition| {
            [
                definition.verb.name.clone(),
                show::name(&definition.verb.class),
                show::name(&definition.target),
                show::name(&definition.standing),
                definition.dry_run.name().into(),
                definition.undone_by.clone().unwrap_or_else(|| "-".into()),
            ]
        })
        .collect();
    show::table(["VERB", "CLASS", "TARGET", "STANDING", "DRY RUN", "UNDONE BY"], &rows);
    Ok(())
}

fn one(definition: &Definition) {
    let Definition { verb, standing, target, dry_run, undone_by, preconditions, verified_by } = definition;
    say(&format!("{}: {}", verb.name, verb.summary));
    say(&format!("class      {}, {}, of a {}", show::name(&verb.class), show::name(standing), show::name(target)));
    say(&format!("dry run    {}", dry_run.name()));
    say(&format!("undone by  {}", undone_by.as_deref().unwrap_or("nothing")));
    if let Some(capability) = &verb.capability {
        say(&format!("needs      the agent's capability `{capability}`"));
    }
    preconditions.iter().for_each(|before| say(&format!("before     {before}")));
    say(&format!("done when  {verified_by}\n"));
    let rows: Vec<_> = verb
        .arguments
        .iter()
        .map(|argument| {
            let required = if argument.required { "required" } else { "" };
            [argument.name.clone(), show::name(&argument.kind), required.into(), bounds(argument)]
        })
        .collect();
    show::table(["ARGUMENT", "KIND", "", "BOUNDS"], &rows);
}

fn bounds(argument: &ArgumentSpec) -> String {
    match (argument.minimum, argument.maximum) {
        _ if !argument.choices.is_empty() => argument.choices.join(", "),
        (Some(least), Some(most)) => format!("{least} to {most}"),
        (Some(least), None) => format!("at least {least}"),
        (None, Some(most)) => format!("at most {most}"),
        (None, None) => String::new(),
    }
}
