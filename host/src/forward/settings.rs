//! Where telemetry is forwarded to.

use crate::outbound;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use thiserror::Error;

/// Destinations of one host.
const DESTINATIONS: usize = 16;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Destinations. Default: none; at most 16.
    pub forward: Vec<Destination>,
}

/// How a destination is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// OTLP over HTTP, protobuf, gzip; the URL with its path (`/v1/metrics`).
    Otlp,
    /// Prometheus remote-write 1.0; the URL with its path (`/api/v1/write`).
    RemoteWrite,
}

/// One destination. Each has a queue of its own, so that a slow one delays no other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// Names it in metrics and the log: 1 to 63 of a-z, 0-9, `-` and `.`.
    pub name: String,
    pub kind: Kind,
    pub url: String,
    /// Sent with each request.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The same, each value from a file: read at every request, so that a secret can be changed while the host runs.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Metrics that are forwarded: names, or beginnings that end in `*`. Default: all.
    #[serde(default = "all")]
    pub metrics: Vec<String>,
    /// Metrics that are not, whatever `metrics` says. Default: none.
    #[serde(default)]
    pub except: Vec<String>,
    /// Also what came here by OTLP. Two hosts that forward to each other would never stop.
    #[serde(default)]
    pub received: bool,
    /// Labels (attributes of the resource) that every series gets, such as the name of this host's site.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Samples of one request. Default 2,000, 1 to 50,000.
    #[serde(default = "batch_samples")]
    pub batch_samples: usize,
    /// How long samples wait for a request to be full. Default 5 s, 100 ms to 10 min.
    #[serde(default = "interval_ms")]
    pub interval_ms: u64,
    /// Samples that wait. Default 200,000, 1,000 to 10,000,000. The oldest go first.
    #[serde(default = "queue_samples")]
    pub queue_samples: usize,
    /// How long an answer may take. Default 30 s, 100 ms to 5 min.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
    /// How long one request is tried again before its samples are given up. Default 10 min, 0 to 1 day.
    #[serde(default = "retry_ms")]
    pub retry_ms: u64,
}

fn all() -> Vec<String> {
    vec!["*".into()]
}
fn batch_samples() -> usize {
    2_000
}
fn interval_ms() -> u64 {
    5_000
}
fn queue_samples() -> usize {
    200_000
}
fn timeout_ms() -> u64 {
    30_000
}
fn retry_ms() -> u64 {
    600_000
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Wrong {
    #[error("telemetry.forward has {0} destinations, and {most} is the most", most = DESTINATIONS)]
    TooMany(usize),
    #[error("telemetry.forward `{name}`: {setting} is {value}: it must be between {least} and {most}")]
    OutOfRange { name: String, setting: &'static str, value: u64, least: u64, most: u64 },
    #[error("telemetry.forward `{name}`: {reason}")]
    Wrong { name: String, reason: String },
}

impl Settings {
    /// Refuses what cannot work, by name.
    pub fn check(&self) -> Result<(), Wrong> {
        if self.forward.len() > DESTINATIONS {
            return Err(Wrong::TooMany(self.forward.len()));
        }
        for (place, destination) in self.forward.iter().enumerate() {
            destination.check()?;
            if self.forward.iter().take(place).any(|other| other.name == destination.name) {
                let reason = "another destination has this name".into();
                return Err(Wrong::Wrong { name: destination.name.clone(), reason });
            }
        }
        Ok(())
    }
}

impl Destination {
    fn check(&self) -> Result<(), Wrong> {
        const MINUTE: u64 = 60_000;
        let wrong = |reason: String| Err(Wrong::Wrong { name: self.name.clone(), reason });
        if !aether_core::id::is_name(&self.name) {
            return wrong("`name` must be 1 to 63 of a-z, 0-9, `-` and `.`".into());
        }
        let checked = outbound::check(&self.url, !self.header_files.is_empty())
            .and_then(|()| outbound::check_names(self.headers.keys().chain(self.header_files.keys())));
        if let Err(reason) = checked {
            return wrong(reason);
        }
        let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
        let ranges = [
            ("batch_samples", wide(self.batch_samples), 1, 50_000),
            ("interval_ms", self.interval_ms, 100, 10 * MINUTE),
            ("queue_samples", wide(self.queue_samples), 1_000, 10_000_000),
            ("timeout_ms", self.timeout_ms, 100, 5 * MINUTE),
            ("retry_ms", self.retry_ms, 0, 24 * 60 * MINUTE),
        ];
        for (setting, value, least, most) in ranges {
            if !(least..=most).contains(&value) {
                return Err(Wrong::OutOfRange { name: self.name.clone(), setting, value, least, most });
            }
        }
        Ok(())
    }

    /// Whether a metric goes there.
    pub(super) fn wants(&self, metric: &str) -> bool {
        let fits = |pattern: &String| match pattern.strip_suffix('*') {
            Some(beginning) => metric.starts_with(beginning),
            None => metric == pattern,
        };
        self.metrics.iter().any(fits) && !self.except.iter().any(fits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination(text: &str) -> Destination {
        toml::from_str(&format!("name = \"here\"\nkind = \"remote_write\"\nurl = \"http://127.0.0.1:9/w\"\n{text}"))
            .unwrap()
    }

    #[test]
    fn metrics_are_chosen_by_name_and_by_beginning() {
        let chosen = destination("metrics = [\"system.*\", \"process.cpu.time\"]\nexcept = [\"system.disk.*\"]");
        let of = ["system.cpu.utilization", "system.disk.io", "process.cpu.time", "process.cpu.times"];
        assert_eq!(of.map(|metric| chosen.wants(metric)), [true, false, true, false]);
        assert!(destination("").wants("anything"));
    }

    #[test]
    fn what_cannot_work_is_named() {
        let check =
            |text: &str| Settings { forward: vec![destination(text)] }.check().map_err(|wrong| wrong.to_string());
        assert_eq!(check(""), Ok(()));
        assert!(check("batch_samples = 0").unwrap_err().contains("batch_samples is 0"));
        assert!(check("headers = { \"a b\" = \"c\" }").unwrap_err().contains("`a b`"));
        let secret = Destination { url: "http://example.org/w".into(), ..destination("header_files = { a = \"/b\" }") };
        assert!(secret.check().unwrap_err().to_string().contains("plain text"));
        let no_url = Destination { url: "prometheus:9090".into(), ..destination("") };
        assert!(no_url.check().unwrap_err().to_string().contains("no http"));
        let twice = Settings { forward: vec![destination(""), destination("")] };
        assert!(twice.check().unwrap_err().to_string().contains("another destination"));
    }
}
