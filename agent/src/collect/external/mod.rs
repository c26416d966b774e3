//! Metrics from elsewhere on this node: what a command prints, or an endpoint serves, in Prometheus' text format.
//!
//! Each is a source of its own on a thread of its own, held to a time, to a number of bytes and to a number of series. A
//! command runs in a process group that is killed as a whole when its time is over, and after it: nothing of it stays.
//! Names and labels are kept as they are, with the attribute `external` beside them; a Prometheus name cannot be one of
//! Aether's own, which have dots.

mod exposition;
mod fetch;

use super::{
    names::{Names, OTHER},
    source::{Missing, Sink, Source},
};
use aether_core::{drill, subject::SubjectRef};
use std::{path::PathBuf, time::Duration};

/// What the configuration says of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct External {
    pub name: String,
    pub from: Origin,
    pub interval: Duration,
    pub timeout: Duration,
    pub output_bytes: usize,
    pub series_maximum: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A program, by its absolute path, and its arguments.
    Command(PathBuf, Vec<String>),
    /// An `http` address.
    Url(String),
}

/// Names of the attribute that says which one it came from.
const ATTRIBUTE: &str = "external";

pub(super) struct Scrape {
    external: External,
    name: String,
    /// The series that it may have: those that were there first.
    series: Names,
}

impl Scrape {
    pub(super) fn of(external: External) -> Self {
        let series = Names::at_most(external.series_maximum);
        Self { name: format!("external.{}", external.name), series, external }
    }
}

impl Source for Scrape {
    fn name(&self) -> &str {
        &self.name
    }

    fn interval(&self) -> Option<Duration> {
        Some(self.external.interval)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let External { name, from, timeout, output_bytes, series_maximum, interval: _ } = &self.external;
        let fetched = match from {
            Origin::Command(program, arguments) => fetch::command(program, arguments, *timeout, *output_bytes),
            Origin::Url(url) => fetch::url(url, *timeout, *output_bytes),
        };
        let bytes = fetched.map_err(|why| Missing::new(format!("{why}; nothing of it was taken")))?;
        let text =
            String::from_utf8(bytes).map_err(|_| Missing::new("what came is not UTF-8; nothing of it was taken"))?;
        let (mut taken, mut beyond, mut bad) = (0usize, 0usize, None);
        for (index, line) in text.lines().enumerate() {
            let line = match exposition::parse(line) {
                Ok(Some(line)) => line,
                Ok(None) => continue,
                Err(why) => {
                    bad = bad.or(Some((index + 1, why)));
                    continue;
                }
            };
            let key = format!("{}{:?}", line.name, line.labels);
            if self.series.admit(&key, into.at) == OTHER {
                beyond += 1;
                continue;
            }
            let mut attributes: Vec<(&str, &str)> = vec![(ATTRIBUTE, name)];
            // These two say something of Aether's own.
            let own = line.labels.iter().filter(|(label, _)| *label != ATTRIBUTE && *label != drill::ATTRIBUTE);
            attributes.extend(own.map(|(label, value)| (label.as_str(), value.as_str())));
            let subject = SubjectRef::node(into.node.as_str());
            into.put(subject, &line.name, exposition::unit(&line.name), &attributes, line.value);
            taken += 1;
        }
        if beyond > 0 {
            let reason = format!("it has {beyond} series beyond `series_maximum` ({series_maximum})");
            return Err(Missing::new(reason).instead("the series that were there first"));
        }
        if let Some((number, why)) = bad {
            return Err(
                Missing::new(format!("line {number} {why}")).instead(format!("the {taken} lines that are right"))
            );
        }
        if taken == 0 {
            return Err(Missing::new("it told no metric"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
