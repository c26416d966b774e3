//! The catalogue as a page for people: `docs/verbs.md`, held to the code by a golden.

use super::{ArgumentSpec, Definition, DryRun, Standing, definitions};
use crate::value::ValueKind;
use std::fmt::Write;

const HEAD: &str = "\
# The verb catalogue

Every action that Aether can take is one of these verbs. The catalogue is the host's: a planner is shown it and can name
a verb, it cannot make one, widen a bound or lower a class. This page is written from the table in
`host/core/src/catalogue/definitions.rs`, and a test fails when the two differ.

**Class.** `read-only` changes nothing; `reversible` can be undone without loss; `impactful` is felt or interrupts work;
`destructive` cannot be undone. The posture's `highest_live_class` says up to which class plans run live.

**Standing.** A *composite* verb is proposed by planners and expanded into other verbs, which are what is approved. A
*proposable* one is one step of an agent. An *internal* one comes from such an expansion, or undoes a step.

**Dry run.** What a dry run of the verb is worth, in each outcome as `dry-run` and in the metric
`aether_dry_run_steps_total`. *simulated*: the agent reads what would be changed, checks it against the bounds of the
machine, and tells from what to what. *precondition-checked*: it checks all that must hold before; the deed itself cannot
be foretold. *not-simulable*: only the order is checked, so a dry run says little; read what would be done.

**Undoing.** Before a verb changes a setting the agent journals what it was. Undoing puts exactly that back, and only
where the setting still is what the step made it: what somebody else changed since is left alone, and the incident ends
*stuck* with both values named. Where nothing was recorded, nothing is undone.

**Capability.** What the agent on the node must report. One that is missing is reported with its reason, shown by
`aether-agent doctor` and on the node's page; a proposal that needs it is refused with that reason.

Every argument is typed and bounded; one that is unknown, of another kind or out of bounds refuses the whole proposal.
`timeout` is how long the step may take before its outcome counts as unknown (two minutes where it is not given).
";

/// `docs/verbs.md`.
pub fn document() -> String {
    let mut page = HEAD.to_string();
    page.push_str(
        "\n| verb | target | class | standing | dry run | undone by | capability |\n|---|---|---|---|---|---|---|\n",
    );
    for Definition { verb, standing, target, dry_run, undone_by, .. } in definitions() {
        let code = |text: &Option<String>| text.as_ref().map_or("–".to_string(), |text| format!("`{text}`"));
        let class = serde_json::to_value(verb.class).ok().and_then(|class| class.as_str().map(str::to_string));
        let row = [
            format!("[`{}`](#{})", verb.name, verb.name.replace('.', "")),
            target.name().into(),
            class.unwrap_or_default(),
            standing_name(standing).into(),
            dry_run.name().into(),
            code(&undone_by),
            code(&verb.capability),
        ];
        // Writing to a string does not fail.
        let _ = writeln!(page, "| {} |", row.join(" | "));
    }
    for definition in definitions() {
        section(&mut page, &definition);
    }
    page
}

fn section(page: &mut String, definition: &Definition) {
    let Definition { verb, preconditions, verified_by, dry_run, .. } = definition;
    let _ = write!(page, "\n## `{}`\n{}\n\n", verb.name, verb.summary);
    for precondition in preconditions {
        let _ = writeln!(page, "- Before: {precondition}");
    }
    let _ = writeln!(page, "- Done when: {verified_by}");
    if *dry_run == DryRun::NotSimulable {
        let _ = writeln!(page, "- A dry run cannot tell what it would do.");
    }
    if verb.arguments.is_empty() {
        return;
    }
    page.push_str("\n| argument | | kind | bounds |\n|---|---|---|---|\n");
    for ArgumentSpec { name, required, kind, minimum, maximum, choices } in &verb.arguments {
        let bounds = match (minimum, maximum) {
            (Some(minimum), Some(maximum)) => format!("{} to {}", amount(*kind, *minimum), amount(*kind, *maximum)),
            _ if choices.is_empty() => "any".into(),
            _ => choices.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", "),
        };
        let needed = if *required { "required" } else { "" };
        let _ = writeln!(page, "| `{name}` | {needed} | {} | {bounds} |", value_kind(*kind));
    }
}

fn amount(kind: ValueKind, value: f64) -> String {
    match kind {
        ValueKind::Bytes => {
            let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
            let mut value = value;
            let mut unit = 0;
            while value >= 1_024.0 && unit + 1 < units.len() {
                value /= 1_024.0;
                unit += 1;
            }
            format!("{value} {}", units[unit])
        }
        ValueKind::Duration => format!("{} s", value / 1_000.0),
        ValueKind::Integer | ValueKind::Number | ValueKind::Text | ValueKind::Flag => format!("{value}"),
    }
}

fn standing_name(standing: Standing) -> &'static str {
    match standing {
        Standing::Composite => "composite",
        Standing::Proposable => "proposable",
        Standing::Internal => "internal",
    }
}

fn value_kind(kind: ValueKind) -> &'static str {
    match kind {
        ValueKind::Text => "text",
        ValueKind::Integer => "integer",
        ValueKind::Number => "number",
        ValueKind::Flag => "flag",
        ValueKind::Duration => "duration",
        ValueKind::Bytes => "bytes",
    }
}
