//! Which feeds of signals the host asks.

use crate::outbound;
use aether_core::id::{NodeId, is_name};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};
use thiserror::Error;

const FEEDS: usize = 64;
const NODES: usize = 10_000;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Feeds. Default: none; at most 64.
    pub feeds: Vec<Feed>,
}

/// How a feed answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// As `aws ec2 describe-spot-price-history` writes it.
    AwsSpotPriceHistory,
    /// `https://prices.azure.com/api/retail/prices`, with a filter.
    AzureRetailPrices,
    /// Electricity Maps, `/v3/carbon-intensity/latest`.
    ElectricityMaps,
    /// WattTime, `/v3/signal-index` or `/v3/historical`.
    Watttime,
    /// WattTime, `/v3/forecast`.
    WatttimeForecast,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Feed {
    /// Names it in its series' attribute `feed`, in metrics and the log: 1 to 63 of a-z, 0-9, `-` and `.`.
    pub name: String,
    pub format: Format,
    /// Asked by GET, with its query.
    pub url: String,
    /// Nodes whose price it is, or that draw from the grid. A price without nodes is nobody's.
    #[serde(default)]
    pub nodes: Vec<NodeId>,
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Headers whose values are in files, such as `auth-token`. Read each time.
    #[serde(default)]
    pub header_files: BTreeMap<String, PathBuf>,
    /// Where a bearer token is had for a name and a password, as WattTime wants it.
    #[serde(default)]
    pub login: Option<Login>,
    /// Between two questions. Default 5 min, 1 s to 1 day.
    #[serde(default = "interval_ms")]
    pub interval_ms: u64,
    /// How long an answer may take. Default 30 s, 100 ms to 5 min.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    pub url: String,
    pub user: String,
    pub password_file: PathBuf,
}

fn interval_ms() -> u64 {
    300_000
}
fn timeout_ms() -> u64 {
    30_000
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Wrong {
    #[error("signals.feeds has {0}, and {most} is the most", most = FEEDS)]
    TooMany(usize),
    #[error("signals.feeds `{name}`: {reason}")]
    Wrong { name: String, reason: String },
}

impl Settings {
    /// Refuses what cannot work, by name.
    pub fn check(&self) -> Result<(), Wrong> {
        if self.feeds.len() > FEEDS {
            return Err(Wrong::TooMany(self.feeds.len()));
        }
        for (place, feed) in self.feeds.iter().enumerate() {
            let twice = self.feeds.iter().take(place).any(|other| other.name == feed.name);
            let checked = if twice { Err("another feed has this name".into()) } else { feed.check() };
            checked.map_err(|reason| Wrong::Wrong { name: feed.name.clone(), reason })?;
        }
        Ok(())
    }
}

impl Feed {
    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err("`name` must be 1 to 63 of a-z, 0-9, `-` and `.`".into());
        }
        let secrets = !self.header_files.is_empty() || self.login.is_some();
        outbound::check(&self.url, secrets)?;
        if let Some(login) = &self.login {
            outbound::check(&login.url, true)?;
        }
        outbound::check_names(self.headers.keys().chain(self.header_files.keys()))?;
        if let Some(node) = self.nodes.iter().find(|node| !is_name(node.as_str())) {
            return Err(format!("`{node}` is no name of a node"));
        }
        if self.nodes.len() > NODES {
            return Err(format!("more than {NODES} nodes"));
        }
        let is_price = matches!(self.format, Format::AwsSpotPriceHistory | Format::AzureRetailPrices);
        if is_price && self.nodes.is_empty() {
            return Err("a price needs `nodes`: whose is it?".into());
        }
        for (setting, value, least, most) in
            [("interval_ms", self.interval_ms, 1_000, 86_400_000), ("timeout_ms", self.timeout_ms, 100, 300_000)]
        {
            if !(least..=most).contains(&value) {
                return Err(format!("{setting} is {value}: it must be between {least} and {most}"));
            }
        }
        Ok(())
    }
}
