//! The matrix as a document: what ran, which must be the same everywhere, and what it cost, which depends on the
//! toolchain.

use crate::{Found, Outcome};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

/// Cases passed by language and subject, as a table.
pub fn table(found: &Found, outcomes: &[Outcome]) -> String {
    let subjects: BTreeSet<&str> = outcomes.iter().map(|outcome| outcome.subject.as_str()).collect();
    let mut rows: BTreeMap<&str, BTreeMap<&str, String>> = BTreeMap::new();
    for outcome in outcomes {
        let passed = outcome.results.iter().filter(|result| result.passed()).count();
        let cell = format!("{passed} of {}", outcome.results.len());
        rows.entry(&outcome.lang).or_default().insert(&outcome.subject, cell);
    }
    let mut text = format!("| | {} |\n|---|", subjects.iter().copied().collect::<Vec<_>>().join(" | "));
    text.push_str(&"---|".repeat(subjects.len()));
    text.push('\n');
    for (lang, cells) in &rows {
        let cells: Vec<&str> = subjects.iter().map(|subject| cells.get(subject).map_or("-", String::as_str)).collect();
        let _ = writeln!(text, "| {lang} | {} |", cells.join(" | "));
    }
    for (lang, reason) in &found.skipped {
        let _ = writeln!(text, "\nSkipped: {lang} ({reason}).");
    }
    text
}

/// Size and fuel by guest, as a table.
pub fn figures(outcomes: &[Outcome]) -> String {
    let mut text = String::from("| | component | fuel of a case |\n|---|---:|---:|\n");
    for Outcome { lang, subject, bytes, fuel: (least, most), results: _ } in outcomes {
        let _ = writeln!(text, "| {lang}, {subject} | {} KiB | {least} to {most} |", bytes.div_ceil(1024));
    }
    text
}
