//! Settings: what can be read, written and read back.
//!
//! The former values are in the journal before the first is changed. So undoing puts back exactly those, only where the
//! setting still is what we made it (what somebody else changed since is not ours to change), and a crash in the middle
//! is settled by reading: all new is done, all old is not done, anything else is for a person.

use crate::act::{
    hands::Failure,
    journal::{Former, Journal},
    verbs::Done,
};
use aether_core::{order::IdempotencyKey, value::Value};
use std::collections::BTreeMap;

/// Settings by name, in the words of the machine.
pub type Values = BTreeMap<String, String>;

pub trait Settings {
    fn read(&self, name: &str) -> Result<String, Failure>;

    /// Writes, and waits until it holds. What cannot be written is left as it was.
    fn write(&self, name: &str, value: &str) -> Result<(), Failure>;
}

fn read_all(settings: &dyn Settings, names: &Values) -> Result<Values, Failure> {
    names.keys().map(|name| Ok((name.clone(), settings.read(name)?))).collect()
}

/// `a: 1 -> 2, b: ...` of what differs.
fn difference(from: &Values, to: &Values) -> String {
    let changed = to.iter().filter(|(name, value)| from.get(*name) != Some(value));
    let words = changed.map(|(name, value)| {
        let from = from.get(name).map_or("?", String::as_str);
        format!("{name} from `{from}` to `{value}`")
    });
    words.collect::<Vec<_>>().join(", ")
}

fn evidence(done: Done, prefix: &str, values: &Values) -> Done {
    values
        .iter()
        .fold(done, |done, (name, value)| done.evidence(&format!("{prefix}.{name}"), Value::Text(value.clone())))
}

/// What a deed would change.
pub fn foretell(settings: &dyn Settings, wanted: &Values) -> Result<(String, BTreeMap<String, Value>), Failure> {
    let now = read_all(settings, wanted)?;
    let mut facts = BTreeMap::new();
    for (prefix, values) in [("former", &now), ("wanted", wanted)] {
        facts.extend(values.iter().map(|(name, value)| (format!("{prefix}.{name}"), Value::Text(value.clone()))));
    }
    Ok((difference(&now, wanted), facts))
}

/// Journals the former values, writes the wanted ones, and reads them back.
pub fn apply(journal: &Journal, key: &IdempotencyKey, settings: &dyn Settings, wanted: Values) -> Done {
    let nothing = |failure: Failure| Done::failed(failure.code, format!("{}; nothing was changed", failure.message));
    let former = match read_all(settings, &wanted) {
        Ok(former) => former,
        Err(failure) => return nothing(failure),
    };
    let recorded = Former { former: former.clone(), wanted: wanted.clone() };
    if let Err(error) = journal.former(key, recorded) {
        return nothing(Failure::new("agent.journal", format!("the former values cannot be journaled ({error})")));
    }
    if former == wanted {
        let done = Done::ok("it was so already; nothing was changed");
        return evidence(evidence(done, "former", &former), "now", &wanted);
    }
    let written = wanted.iter().try_for_each(|(name, value)| match former.get(name) == Some(value) {
        true => Ok(()),
        false => settings.write(name, value),
    });
    let now = read_all(settings, &wanted);
    match (written, now) {
        (Ok(()), Ok(now)) if now == wanted => {
            let done = Done::ok(format!("set {}, and read back", difference(&former, &wanted)));
            evidence(evidence(done, "former", &former), "now", &now)
        }
        (Ok(()), Ok(now)) => {
            let why = format!("it was written, and yet it is not so: {}", difference(&wanted, &now));
            back(settings, &former, Failure::new("setting.not-kept", why))
        }
        (Ok(()), Err(failure)) | (Err(failure), _) => back(settings, &former, failure),
    }
}

/// After a failure in the middle: all as it was, or the truth about it.
fn back(settings: &dyn Settings, former: &Values, failure: Failure) -> Done {
    let Failure { code, message } = failure;
    let put_back = former.iter().try_for_each(|(name, value)| match settings.read(name)? == *value {
        true => Ok(()),
        false => settings.write(name, value),
    });
    match (put_back, read_all(settings, former)) {
        (Ok(()), Ok(now)) if now == *former => Done::failed(code, format!("{message}. All is as it was")),
        (Err(lost), _) | (Ok(()), Err(lost)) => Done::unknown(code, format!("{message}. And then: {lost}")),
        (Ok(()), Ok(now)) => {
            let left = difference(former, &now);
            Done::unknown(code, format!("{message}. And what was changed could not be put back: {left}"))
        }
    }
}

/// Puts back what the step `forward` found, where the settings still are what it made them.
pub fn undo(journal: &Journal, forward: &IdempotencyKey, settings: &dyn Settings) -> Done {
    let Some(Former { former, wanted }) = journal.get(forward).and_then(|known| known.former) else {
        return Done::failed(
            "setting.unrecorded",
            "this agent has no record of what was before the step, so nothing was put back: look at the target",
        );
    };
    let unread = |failure: Failure| Done::failed(failure.code, format!("{}; nothing was put back", failure.message));
    let now = match read_all(settings, &wanted) {
        Ok(now) => now,
        Err(failure) => return unread(failure),
    };
    let foreign: Values = now
        .iter()
        .filter(|(name, value)| wanted.get(*name) != Some(value) && former.get(*name) != Some(value))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !foreign.is_empty() {
        let what = difference(&wanted, &foreign);
        let message = format!(
            "somebody else changed {what} since the step; what we did not do we do not undo, and nothing was put back"
        );
        return evidence(Done::failed("setting.foreign", message), "former", &former);
    }
    let written = former.iter().try_for_each(|(name, value)| match now.get(name) == Some(value) {
        true => Ok(()),
        false => settings.write(name, value),
    });
    match (written, read_all(settings, &former)) {
        (Ok(()), Ok(after)) if after == former => {
            let what = difference(&now, &former);
            let message =
                if what.is_empty() { "all was as before the step already".into() } else { format!("put back {what}") };
            evidence(Done::ok(message), "now", &after)
        }
        (Ok(()), Ok(after)) => {
            let what = difference(&former, &after);
            Done::failed("setting.not-kept", format!("it was put back, and yet it is not so: {what}"))
        }
        (Err(failure), _) | (Ok(()), Err(failure)) => {
            Done::failed(failure.code, format!("it could not be put back: {}", failure.message))
        }
    }
}

/// What became of a deed that the end of the agent cut short: told by reading.
pub fn settle(journal: &Journal, key: &IdempotencyKey, settings: &dyn Settings) -> Done {
    const CODE: &str = "agent.restarted";
    let Some(Former { former, wanted }) = journal.get(key).and_then(|known| known.former) else {
        return Done::failed(CODE, "the agent was restarted before anything was changed");
    };
    match read_all(settings, &wanted) {
        Ok(now) if now == wanted => {
            let message =
                format!("set {}; the agent was restarted before it could say so", difference(&former, &wanted));
            evidence(Done::ok(message), "former", &former)
        }
        Ok(now) if now == former => Done::failed(CODE, "the agent was restarted in the middle of it; all is as it was"),
        Ok(now) => {
            let left = difference(&former, &now);
            Done::unknown(CODE, format!("the agent was restarted in the middle of it, and it is half done: {left}"))
        }
        Err(failure) => Done::unknown(CODE, format!("the agent was restarted in the middle of it, and {failure}")),
    }
}

#[cfg(test)]
mod tests;
