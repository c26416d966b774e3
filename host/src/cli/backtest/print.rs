//! A report as a table that a stranger understands.

use crate::cli::{
    say,
    show::{self, duration, time},
};
use aether_core::backtest::{Alarm, Asked, Changes, EventRow, Figures, Measure, Outcome, Report, Side, SubjectRow};

/// Rows of each list; `--json` has the rest.
const ROWS: usize = 20;

pub(super) fn report(report: &Report) {
    let Report { period, measure, candidate, current, changes, events, subjects, false_alarms, notes, .. } = report;
    say(&format!("candidate  {}", names(&candidate.asked)));
    if let Some(current) = current {
        say(&format!("current    {}", names(&current.asked)));
    }
    let tick = period
        .tick_ms
        .map_or_else(|| "recorded decisions asked again".to_owned(), |ms| format!("asked every {}", duration(ms)));
    let subjects_told = if period.subjects == 1 { "1 subject".into() } else { format!("{} subjects", period.subjects) };
    say(&format!("history    {} to {}, {subjects_told}, {tick}", time(period.from), time(period.to)));
    say(&format!(
        "measure    {}\n",
        match measure {
            Measure::Labels => "the labels that came with the history",
            Measure::Incidents =>
                "incidents that were opened at the time: what the components of then missed is not among them",
            Measure::Nothing => "none: alarms and changes are told, precision and recall are not known",
        }
    ));
    figures(candidate, current.as_ref(), *measure);
    if !events.is_empty() {
        event_table(events, current.is_some());
    }
    if subjects.len() > 1 && candidate.figures.is_some() {
        subject_table(subjects, *measure);
    }
    if let Some(changes) = changes {
        change_table(changes);
    }
    if !false_alarms.is_empty() {
        alarm_table(false_alarms, candidate.figures.as_ref().map_or(0, |figures| figures.false_alarms));
    }
    if report.events_outside > 0 {
        let many = report.events_outside;
        say(&format!("\n{many} events lie outside of this history and count nowhere."));
    }
    for note in notes {
        say(&format!("\nnote: {note}"));
    }
}

fn names(asked: &[Asked]) -> String {
    let one = |asked: &Asked| {
        format!("{} {} ({}, config {})", asked.name, asked.version, asked.component.short(), asked.config.short())
    };
    asked.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// A row's name, and what it says of one side.
type Row = (&'static str, fn(&Side) -> String);

fn figures(candidate: &Side, current: Option<&Side>, measure: Measure) {
    let mut rows: Vec<Row> = Vec::new();
    if candidate.figures.is_some() {
        if measure == Measure::Nothing {
            rows.push(("alarms", |side| of(side, |figures| figures.alarms.to_string())));
        } else {
            rows.push(("events caught", |side| of(side, |f| format!("{} of {}", f.caught, f.events))));
            rows.push(("recall", |side| of(side, |figures| percent(figures.recall))));
            rows.push(("precision", |side| of(side, |figures| percent(figures.precision))));
            rows.push(("F1", |side| of(side, |figures| ratio(figures.f1))));
            rows.push(("false alarms", |side| of(side, |figures| figures.false_alarms.to_string())));
            rows.push(("  for each subject and day", |side| of(side, |f| format!("{:.3}", f.false_per_day))));
            rows.push(("alarms in a caught event again", |side| of(side, |figures| figures.repeated.to_string())));
            rows.push(("missed, an older alarm standing", |side| of(side, |figures| figures.standing.to_string())));
            rows.push(("median lead", |side| of(side, |figures| lead(figures.lead_ms_p50))));
            rows.push(("least lead", |side| of(side, |figures| lead(figures.lead_ms_least))));
        }
    }
    rows.push(("evaluations", |side| side.cost.evaluations.to_string()));
    if candidate.figures.is_some() {
        rows.push(("  that could say nothing", |side| side.unknown.to_string()));
    }
    rows.push(("  that ended in a fault", |side| {
        let total: u64 = side.cost.faults.values().sum();
        let kinds: Vec<String> =
            side.cost.faults.iter().map(|(kind, count)| format!("{} {count}", show::name(kind))).collect();
        if total == 0 { "0".into() } else { kinds.join(", ") }
    }));
    rows.push(("median fuel", |side| number(side.cost.fuel_p50)));
    rows.push(("99th percentile of fuel", |side| number(side.cost.fuel_p99)));
    rows.push(("most memory", |side| format!("{} KiB", side.cost.memory_bytes_max.div_ceil(1_024))));
    match current {
        Some(current) => {
            let rows: Vec<_> =
                rows.iter().map(|(name, get)| [(*name).to_owned(), get(candidate), get(current)]).collect();
            show::table(["", "CANDIDATE", "CURRENT"], &rows);
        }
        None => {
            let rows: Vec<_> = rows.iter().map(|(name, get)| [(*name).to_owned(), get(candidate)]).collect();
            show::table(["", "CANDIDATE"], &rows);
        }
    }
}

fn event_table(events: &[EventRow], compared: bool) {
    say("");
    let head = |row: &EventRow| {
        let event = &row.event;
        [
            event.id.clone(),
            event.subject.to_string(),
            format!("{} + {}", time(event.from), duration(event.to.since_ms(event.from))),
        ]
    };
    let shown = events.iter().take(ROWS);
    if compared {
        let rows: Vec<_> = shown
            .map(|row| {
                let [id, subject, window] = head(row);
                [id, subject, window, outcome(&row.candidate), row.current.as_ref().map_or_else(String::new, outcome)]
            })
            .collect();
        show::table(["EVENT", "SUBJECT", "WINDOW", "CANDIDATE", "CURRENT"], &rows);
    } else {
        let rows: Vec<_> = shown
            .map(|row| {
                let [id, subject, window] = head(row);
                [id, subject, window, outcome(&row.candidate)]
            })
            .collect();
        show::table(["EVENT", "SUBJECT", "WINDOW", "CANDIDATE"], &rows);
    }
    more(events.len(), "events");
}

fn subject_table(subjects: &[SubjectRow], measure: Measure) {
    say("");
    let cells = |figures: &Figures| match measure {
        Measure::Nothing => figures.alarms.to_string(),
        Measure::Labels | Measure::Incidents => {
            format!("{} of {} caught, {} false", figures.caught, figures.events, figures.false_alarms)
        }
    };
    let rows: Vec<_> = subjects
        .iter()
        .take(ROWS)
        .map(|row| {
            [row.subject.to_string(), cells(&row.candidate), row.current.as_ref().map_or_else(String::new, cells)]
        })
        .collect();
    let compared = subjects.iter().any(|row| row.current.is_some());
    show::table(["SUBJECT", "CANDIDATE", if compared { "CURRENT" } else { "" }], &rows);
    more(subjects.len(), "subjects");
}

fn change_table(changes: &Changes) {
    say(&format!("\n{} of {} answers would have led to another deed.", changes.changed, changes.compared));
    for (told, ids) in [("Newly caught", &changes.caught), ("No longer caught", &changes.missed)] {
        if !ids.is_empty() {
            say(&format!("{told}: {}", ids.join(", ")));
        }
    }
    if changes.earlier + changes.later > 0 {
        say(&format!("Caught by both: {} earlier, {} later.", changes.earlier, changes.later));
    }
    if changes.rows.is_empty() {
        return;
    }
    say("");
    let rows: Vec<_> = changes
        .rows
        .iter()
        .take(ROWS)
        .map(|row| {
            [
                row.about.clone(),
                time(row.at),
                row.times.to_string(),
                show::short(&row.current, 48),
                show::short(&row.candidate, 48),
            ]
        })
        .collect();
    show::table(["ABOUT", "FROM", "TIMES", "CURRENT", "CANDIDATE"], &rows);
    more(usize::try_from(changes.runs).unwrap_or(usize::MAX), "changes");
}

fn alarm_table(alarms: &[Alarm], all: u64) {
    say("\nFalse alarms:");
    let rows: Vec<_> = alarms
        .iter()
        .take(ROWS)
        .map(|alarm| {
            let stood = alarm.cleared.map_or_else(|| "to the end".into(), |to| duration(to.since_ms(alarm.at)));
            [alarm.subject.to_string(), time(alarm.at), stood, alarm.cause.clone(), show::short(&alarm.reason, 80)]
        })
        .collect();
    show::table(["SUBJECT", "RAISED", "STOOD", "CAUSE", "REASON"], &rows);
    more(usize::try_from(all).unwrap_or(usize::MAX), "false alarms");
}

fn more(all: usize, what: &str) {
    if let Some(rest) = all.checked_sub(ROWS).filter(|rest| *rest > 0) {
        say(&format!("and {rest} more {what}; --json has them"));
    }
}

fn of(side: &Side, get: fn(&Figures) -> String) -> String {
    side.figures.as_ref().map_or_else(|| "-".into(), get)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "-".into(), |share| format!("{:.1} %", share * 100.0))
}

fn ratio(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.3}"))
}

fn number(value: Option<u64>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

fn lead(ms: Option<i64>) -> String {
    match ms {
        None => "-".into(),
        Some(ms) if ms < 0 => format!("{} after", duration(ms.unsigned_abs())),
        Some(ms) => format!("{} before", duration(ms.unsigned_abs())),
    }
}

fn outcome(outcome: &Outcome) -> String {
    match outcome.caught_at {
        Some(_) => format!("caught {}", lead(outcome.lead_ms)),
        None if outcome.standing => "missed (an older alarm stood)".into(),
        None => "missed".into(),
    }
}
