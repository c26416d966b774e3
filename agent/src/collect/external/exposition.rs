//! Prometheus' text format, as far as samples go: `name{label="value"} number`, with or without a time behind.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>; OpenMetrics differs in comments and in what stands
//! behind the number, which are passed over. The crates that there are either refuse a whole page for one bad line
//! (openmetrics-parser) or are not kept up (prometheus-parse); this one is told of a bad line and goes on.

use std::collections::BTreeMap;

/// Labels of one sample, and bytes of one name or value.
pub(super) const LABELS_MAXIMUM: usize = 16;
const TEXT_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) value: f64,
}

/// What a line is not, in words.
type Bad = &'static str;

/// One line. None: it holds no sample.
pub(super) fn parse(line: &str) -> Result<Option<Line>, Bad> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (name, rest) = name(line, true).ok_or("does not begin with a name")?;
    let (labels, rest) = match rest.trim_start().strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (BTreeMap::new(), rest),
    };
    let value = rest.split_ascii_whitespace().next().ok_or("has no value")?;
    let value = match value {
        "+Inf" | "Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        "NaN" => f64::NAN,
        // Rust reads other words as numbers, too.
        other if other.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c)) => {
            other.parse().map_err(|_| "has a value that is no number")?
        }
        _ => return Err("has a value that is no number"),
    };
    if name.len() > TEXT_BYTES {
        return Err("has a name that is too long");
    }
    Ok(Some(Line { name: name.into(), labels, value }))
}

/// The name at the beginning, and what is behind it. Those of labels have no colon.
fn name(text: &str, metric: bool) -> Option<(&str, &str)> {
    let is = |at: usize, c: char| {
        c.is_ascii_alphabetic() || c == '_' || (metric && c == ':') || (at > 0 && c.is_ascii_digit())
    };
    let end = text.char_indices().find(|(at, c)| !is(*at, *c)).map_or(text.len(), |(at, _)| at);
    (end > 0).then(|| text.split_at(end))
}

/// What is behind `{`: the labels, and what is behind `}`.
fn labels(mut rest: &str) -> Result<(BTreeMap<String, String>, &str), Bad> {
    let mut labels = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((labels, behind));
        }
        let (label, behind) = name(rest, false).ok_or("has a label without a name")?;
        let behind = behind.trim_start().strip_prefix('=').ok_or("has a label without a value")?;
        let quoted = behind.trim_start().strip_prefix('"').ok_or("has a label whose value is not quoted")?;
        let (value, behind) = unquote(quoted)?;
        if label.len() > TEXT_BYTES || value.len() > TEXT_BYTES {
            return Err("has a label that is too long");
        }
        if labels.insert(label.to_string(), value).is_some() {
            return Err("has a label twice");
        }
        if labels.len() > LABELS_MAXIMUM {
            return Err("has too many labels");
        }
        rest = behind.trim_start();
        // A comma may stand behind the last.
        if let Some(behind) = rest.strip_prefix(',') {
            rest = behind;
        } else if !rest.starts_with('}') {
            return Err("has labels that do not end");
        }
    }
}

/// What is behind the opening quote: the text, and what is behind the closing one.
fn unquote(text: &str) -> Result<(String, &str), Bad> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Ok((value, &text[at + 1..])),
            '\\' => match characters.next().map(|(_, c)| c) {
                Some('n') => value.push('\n'),
                Some(c @ ('\\' | '"')) => value.push(c),
                Some(_) | None => return Err("has a backslash that means nothing"),
            },
            c => value.push(c),
        }
    }
    Err("has a quote that is not closed")
}

/// The unit that a name ends with, by Prometheus' own conventions.
pub(super) fn unit(name: &str) -> &'static str {
    let stem = name.strip_suffix("_total").or_else(|| name.strip_suffix("_sum")).unwrap_or(name);
    let units =
        [("_bytes", "By"), ("_seconds", "s"), ("_celsius", "Cel"), ("_joules", "J"), ("_volts", "V"), ("_meters", "m")];
    units.into_iter().find(|(suffix, _)| stem.ends_with(suffix)).map_or("1", |(_, unit)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn line(text: &str) -> (String, String, f64) {
        let Line { name, labels, value } = parse(text).unwrap().unwrap();
        (name, format!("{labels:?}"), value)
    }

    #[test]
    fn lines_are_read_as_the_format_has_them() {
        assert_eq!(parse("# HELP http_requests_total The total."), Ok(None));
        assert_eq!(parse("  "), Ok(None));
        assert_eq!(
            line("metric_without_timestamp_and_labels 12.47"),
            ("metric_without_timestamp_and_labels".into(), "{}".into(), 12.47)
        );
        assert_eq!(
            line(r#"http_requests_total{method="post",code="200"} 1027 1395066363000"#),
            ("http_requests_total".into(), r#"{"code": "200", "method": "post"}"#.into(), 1027.0)
        );
        assert_eq!(
            line(r#"msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9"#).1,
            r#"{"error": "Cannot find file:\n\"FILE.TXT\"", "path": "C:\\DIR\\FILE.TXT"}"#
        );
        assert_eq!(line(r#"a:b { x = "1" , } -Inf"#), ("a:b".into(), r#"{"x": "1"}"#.into(), f64::NEG_INFINITY));
        assert_eq!(line(r#"h_bucket{le="+Inf"} 17 # {trace_id="x"} 0.67"#).2, 17.0);
        assert!(line("x NaN").2.is_nan());
    }

    #[test]
    fn what_is_no_sample_is_refused_in_words() {
        for (text, why) in [
            ("1abc 3", "name"),
            ("a", "no value"),
            ("a{b} 1", "label without a value"),
            ("a{b=c} 1", "not quoted"),
            (r#"a{b="c 1"#, "not closed"),
            (r#"a{b="c" d="e"} 1"#, "do not end"),
            (r#"a{b="c",b="d"} 1"#, "twice"),
            (r#"a{b="\x"} 1"#, "backslash"),
            ("a infinity", "no number"),
            ("a one", "no number"),
        ] {
            let bad = parse(text).unwrap_err();
            assert!(bad.contains(why), "{text}: {bad}");
        }
        let many: String = (0..20).map(|index| format!("l{index}=\"x\",")).collect();
        assert!(parse(&format!("a{{{many}}} 1")).unwrap_err().contains("too many"));
        assert!(parse(&format!("a{{b=\"{}\"}} 1", "x".repeat(300))).unwrap_err().contains("too long"));
    }

    #[test]
    fn units_are_those_of_the_name() {
        for (name, wanted) in
            [("x_bytes_total", "By"), ("x_seconds", "s"), ("x_seconds_sum", "s"), ("x_total", "1"), ("x", "1")]
        {
            assert_eq!(unit(name), wanted, "{name}");
        }
    }

    proptest! {
        #[test]
        fn whatever_stands_there_is_read_or_refused(text in "\\PC{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_was_written_comes_back(value in "[^\\x00-\\x08]{0,40}", number in any::<f64>().prop_filter("a number", |n| n.is_finite())) {
            let quoted = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // A carriage return is as good as blank to `trim` at the ends of a line, never within a quote.
            let read = parse(&format!("m{{l=\"{quoted}\"}} {number:e}")).unwrap().unwrap();
            prop_assert_eq!(&read.labels["l"], &value);
            prop_assert_eq!(read.value, number);
        }
    }
}
