//! Labels: when something happened to whom, as somebody who knows has written down.
//!
//! Two forms are read:
//! - CSV with a header line: `subject,from,to` with the optional columns `at`, `id` and `summary`. Without `at` lead is
//!   measured to `from`; a row whose `to` is empty is a point.
//! - The Numenta Anomaly Benchmark's JSON: an object from a file's name to its windows (`[[from, to], ...]`) or points
//!   (`[at, ...]`). NAB centres each window on the labelled time, so lead is measured to a window's middle. Files that
//!   are not of this history are passed over.

use super::{Error, Imported, history::subject_of, when};
use aether_core::{backtest::Event, subject::SubjectRef, time::Time};
use std::{collections::BTreeMap, path::Path};

/// Labels of one history.
const LABELS_LIMIT: usize = 100_000;

/// Reads labels of either form; JSON begins with a brace.
pub fn labels(name: &str, bytes: &[u8], imported: Option<&Imported>) -> Result<Vec<Event>, Error> {
    let first = bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let events = if first == Some(&b'{') { nab(name, bytes, imported)? } else { csv_labels(name, bytes)? };
    if events.len() > LABELS_LIMIT {
        let reason = format!("it holds {} labels, over the limit of {LABELS_LIMIT}", events.len());
        return Err(Error::Form { name: name.to_owned(), reason });
    }
    Ok(events)
}

fn event(id: String, subject: SubjectRef, from: Time, to: Time, at: Time, summary: String) -> Result<Event, String> {
    if to < from {
        return Err("its window ends before it begins".into());
    }
    Ok(Event { id, subject, from, to, at, summary })
}

fn csv_labels(name: &str, bytes: &[u8]) -> Result<Vec<Event>, Error> {
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::All).from_reader(bytes);
    let form = |reason: String| Error::Form { name: name.to_owned(), reason };
    let header = reader.headers().map_err(|error| form(error.to_string()))?.clone();
    let column = |wanted: &str| header.iter().position(|title| title.eq_ignore_ascii_case(wanted));
    let (Some(subject), Some(from), Some(to)) = (column("subject"), column("from"), column("to")) else {
        return Err(form("its first line must name subject,from,to (and may name at,id,summary)".into()));
    };
    let (at, id, summary) = (column("at"), column("id"), column("summary"));
    let mut events = Vec::new();
    for record in reader.records() {
        let record = record.map_err(|error| form(error.to_string()))?;
        let line = record.position().map_or(0, csv::Position::line);
        let wrong = |reason: String| Error::Line { name: name.to_owned(), line, reason };
        let cell = |number: usize| record.get(number).unwrap_or_default();
        let optional = |number: Option<usize>| number.map(cell).filter(|text| !text.is_empty());
        let begins = when::time(cell(from)).map_err(wrong)?;
        let ends = optional(Some(to)).map_or(Ok(begins), when::time).map_err(wrong)?;
        let at = optional(at).map_or(Ok(begins), when::time).map_err(wrong)?;
        let id = optional(id).map_or_else(|| format!("{}", events.len() + 1), str::to_owned);
        let subject = subject_of(cell(subject)).map_err(wrong)?;
        let summary = optional(summary).unwrap_or_default().to_owned();
        events.push(event(id, subject, begins, ends, at, summary).map_err(wrong)?);
    }
    Ok(events)
}

#[derive(serde::Deserialize)]
#[serde(untagged)]
enum Mark {
    Window(String, String),
    Point(String),
}

fn nab(name: &str, bytes: &[u8], imported: Option<&Imported>) -> Result<Vec<Event>, Error> {
    let form = |reason: String| Error::Form { name: name.to_owned(), reason };
    let files: BTreeMap<String, Vec<Mark>> = serde_json::from_slice(bytes).map_err(|error| {
        form(format!("it is not an object from files to their windows, as NAB's combined_windows.json is: {error}"))
    })?;
    let mut events = Vec::new();
    for (file, marks) in files {
        let stem = Path::new(&file).file_stem().and_then(|stem| stem.to_str()).unwrap_or(&file);
        let subject = match imported {
            None => SubjectRef::node(stem),
            Some(imported) => match imported.subject_of(stem) {
                Some(subject) => subject.clone(),
                None => continue,
            },
        };
        for (number, mark) in (1..).zip(marks) {
            let (from, to) = match &mark {
                Mark::Window(from, to) => (when::time(from), when::time(to)),
                Mark::Point(at) => (when::time(at), when::time(at)),
            };
            let wrong = |reason: String| form(format!("{file}, window {number}: {reason}"));
            let (from, to) = (from.map_err(wrong)?, to.map_err(wrong)?);
            let middle = from.plus_ms(to.since_ms(from) / 2);
            let id = format!("{stem}#{number}");
            events.push(event(id, subject.clone(), from, to, middle, String::new()).map_err(wrong)?);
        }
    }
    Ok(events)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::backtest::Mapping;

    #[test]
    fn csv_windows_and_points() {
        let text = "subject,from,to,at,id,summary\nnode/a,0,60000,30000,e1,disk full\ngpu/7,120000,,,,\n";
        let events = labels("l", text.as_bytes(), None).expect("reads");
        let told: Vec<_> =
            events.iter().map(|e| (e.id.as_str(), e.subject.to_string(), e.from.0, e.to.0, e.at.0)).collect();
        assert_eq!(
            told,
            [("e1", "node/a".to_owned(), 0, 60_000, 30_000), ("2", "gpu/7".to_owned(), 120_000, 120_000, 120_000)]
        );
    }

    #[test]
    fn nab_windows_are_of_the_files_that_were_read_and_centred() {
        let csv: &[u8] = b"timestamp,value\n2014-02-26 13:45:00,1\n";
        let mapping = Mapping { subject: Some(SubjectRef::node("web-1")), ..Mapping::default() };
        let imported = Imported::read([("cpu_1", csv)], &mapping).expect("reads");
        let json = br#"{"real/cpu_1.csv": [["2014-02-26 13:45:00.000000", "2014-02-26 14:45:00.000000"]],
                        "real/other.csv": [["2014-02-26 13:45:00.000000", "2014-02-26 14:45:00.000000"]]}"#;
        let events = labels("windows", json, Some(&imported)).expect("reads");
        assert_eq!(events.len(), 1);
        assert_eq!((events[0].subject.clone(), events[0].id.as_str()), (SubjectRef::node("web-1"), "cpu_1#1"));
        assert_eq!(events[0].at.since_ms(events[0].from), 1_800_000);
        let points = labels("labels", br#"{"cpu_1.csv": ["2014-02-26 13:45:00"]}"#, Some(&imported)).expect("reads");
        assert_eq!((points[0].from, points[0].to), (points[0].at, points[0].at));
    }

    #[test]
    fn what_is_wrong_is_told() {
        for (text, told) in [
            ("who,from,to\n", "must name subject,from,to"),
            ("subject,from,to\nnode/a,5,4\n", "line 2: its window ends before it begins"),
            ("subject,from,to\nnode/a,soon,4\n", "`soon` is no time"),
            ("{\"a.csv\": 5}", "combined_windows.json"),
            ("{\"a.csv\": [[\"2014-02-26\", \"soon\"]]}", "a.csv, window 1: `soon` is no time"),
        ] {
            let error = labels("l", text.as_bytes(), None).expect_err(text).to_string();
            assert!(error.contains(told), "{error}");
        }
    }
}
