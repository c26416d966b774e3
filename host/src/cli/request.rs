//! `aether request`: ask for one verb on one target. The gates judge it, and somebody else approves it.

use super::{client::Client, say, show};
use crate::api::view::{RequestPlan, RequestedPlan};
use aether_core::{
    catalogue::Definition,
    value::{Value, ValueKind},
};
use anyhow::{Context as _, anyhow, bail};
use clap::Args;
use std::collections::BTreeMap;

#[derive(Debug, Args)]
pub(super) struct Request {
    /// Such as `node.sleep`; `aether verbs` lists them.
    verb: String,
    /// `<kind>/<id>`, such as `node/node-a`.
    target: String,
    /// An argument of the verb; times as `90s`, `10min`, `8h` or milliseconds. Can be given several times.
    #[arg(long = "arg", value_name = "NAME=VALUE")]
    arguments: Vec<String>,
    /// Why; approvers and the audit see it.
    #[arg(long)]
    reason: String,
}

pub(super) async fn run(request: Request, client: &Client, json: bool) -> anyhow::Result<()> {
    let Request { verb, target, arguments, reason } = request;
    let all: Vec<Definition> = client.get("verbs").await?;
    let found = all.iter().find(|definition| definition.verb.name == verb);
    let found = found.ok_or_else(|| anyhow!("there is no verb `{verb}`; `aether verbs` lists them"))?;
    let arguments = arguments.iter().map(|given| argument(found, given)).collect::<anyhow::Result<BTreeMap<_, _>>>()?;
    let asked = RequestPlan { verb, target, arguments, reason };
    let RequestedPlan { incident } = client.post("requests", &asked).await?;
    if json {
        return show::json(&RequestedPlan { incident });
    }
    say(&format!("Asked for, in the incident {incident}. `aether incidents show {incident}` tells how it goes."));
    Ok(())
}

fn argument(definition: &Definition, given: &str) -> anyhow::Result<(String, Value)> {
    let (name, text) = given.split_once('=').with_context(|| format!("`{given}` is not NAME=VALUE"))?;
    let kind = definition.verb.arguments.iter().find(|spec| spec.name == name).map(|spec| spec.kind);
    // A runbook's own are bounded by the bundle, which the host has: a number there is a number.
    let kind = kind.or_else(|| {
        let own = name.starts_with(aether_core::catalogue::argument::OF_RUNBOOK);
        own.then(|| if text.parse::<i64>().is_ok() { ValueKind::Integer } else { ValueKind::Text })
    });
    let Some(kind) = kind else {
        let names: Vec<&str> = definition.verb.arguments.iter().map(|spec| spec.name.as_str()).collect();
        bail!("`{}` has no argument `{name}`; it takes {}", definition.verb.name, names.join(", "));
    };
    let value = parsed(kind, text).with_context(|| format!("`{text}` is no {} for `{name}`", show::name(&kind)))?;
    Ok((name.to_owned(), value))
}

fn parsed(kind: ValueKind, text: &str) -> Option<Value> {
    Some(match kind {
        ValueKind::Text => Value::Text(text.into()),
        ValueKind::Integer => Value::Integer(text.parse().ok()?),
        ValueKind::Number => Value::Number(text.parse().ok()?),
        ValueKind::Flag => Value::Flag(text.parse().ok()?),
        ValueKind::Bytes => Value::Bytes(text.parse().ok()?),
        ValueKind::Duration => {
            let units = [("ms", 1), ("min", 60_000), ("s", 1_000), ("h", 3_600_000), ("d", 86_400_000)];
            let unit = units.into_iter().find_map(|(unit, ms)| Some((text.strip_suffix(unit)?, ms)));
            let (number, ms) = unit.unwrap_or((text, 1));
            Value::Duration(number.parse::<u64>().ok()?.checked_mul(ms)?)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_is_read_as_the_kind_that_the_verb_takes() {
        let sleep = aether_core::catalogue::find("node.sleep").unwrap();
        let said = |given: &str| argument(&sleep, given).map_err(|error| error.to_string());
        assert_eq!(said("state=mem"), Ok(("state".into(), Value::Text("mem".into()))));
        for (text, ms) in [
            ("90s", 90_000),
            ("10min", 600_000),
            ("8h", 28_800_000),
            ("2d", 172_800_000),
            ("1500ms", 1_500),
            ("1500", 1_500),
        ] {
            assert_eq!(said(&format!("wake-after={text}")), Ok(("wake-after".into(), Value::Duration(ms))), "{text}");
        }
        assert_eq!(said("wake-after=soon"), Err("`soon` is no duration for `wake-after`".into()));
        assert_eq!(said("state"), Err("`state` is not NAME=VALUE".into()));
        assert!(said("deep=1").unwrap_err().contains("it takes state, wake-after, via, timeout"));
    }
}
