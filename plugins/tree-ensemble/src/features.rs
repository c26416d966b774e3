//! `features.json`: what each of the model's features is, and what its prediction means. The format is in
//! `docs/plugins.md`.

use crate::forest::FEATURES_MAXIMUM;
use aether_plugin::{Check, series};
use anomaly::{
    Grid,
    contract::aether::plugin::types::{Aggregation, Column, Input, MetricInput},
};
use serde::Deserialize;
use std::collections::BTreeMap;

/// The metrics that a feature can be of; each is declared on both grids, in this order.
pub(crate) const METRICS: [(&str, &str, Aggregation); 12] = [
    ("system.cpu.utilization", "1", Aggregation::Mean),
    ("system.cpu.logical.count", "{cpu}", Aggregation::Last),
    ("system.cpu.load_average.1m", "{thread}", Aggregation::Mean),
    ("system.memory.utilization", "1", Aggregation::Mean),
    ("system.linux.memory.available", "By", Aggregation::Mean),
    ("system.filesystem.utilization", "1", Aggregation::Last),
    ("system.disk.io", "By", Aggregation::Rate),
    ("system.disk.io_time", "s", Aggregation::Rate),
    ("system.network.io", "By", Aggregation::Rate),
    ("aether.system.pressure.some", "1", Aggregation::Mean),
    ("system.uptime", "s", Aggregation::Last),
    ("aether.imported.value", "1", Aggregation::Mean),
];

pub(crate) fn inputs() -> Vec<Input> {
    let input = |(name, unit, aggregation): (&str, &str, Aggregation), grid: Grid| {
        let (window, step) = (grid.window_ms(), grid.step_ms());
        Input::Metric(MetricInput { name: name.into(), unit: unit.into(), window, step, aggregation })
    };
    METRICS.into_iter().flat_map(|metric| Grid::ALL.map(|grid| input(metric, grid))).collect()
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Features {
    /// In the order of the model's.
    pub(crate) features: Vec<Feature>,
    #[serde(default)]
    pub(crate) levels: Levels,
    /// The predictions that are a score of 0 and of 1; the second may be the lower one.
    #[serde(default = "unit")]
    pub(crate) range: [f64; 2],
    #[serde(default = "cause")]
    pub(crate) cause: String,
    #[serde(default)]
    pub(crate) horizon_ms: Option<u64>,
}

fn unit() -> [f64; 2] {
    [0.0, 1.0]
}

fn cause() -> String {
    "model.risk".into()
}

/// Scores from which on a risk is of a level.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Levels {
    pub(crate) elevated: f64,
    pub(crate) high: f64,
    pub(crate) critical: f64,
}

impl Default for Levels {
    fn default() -> Self {
        Self { elevated: 0.5, high: 0.7, critical: 0.9 }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Feature {
    pub(crate) name: String,
    pub(crate) metric: String,
    pub(crate) of: Statistic,
    /// The newest cells that it is of.
    pub(crate) cells: usize,
    #[serde(default)]
    pub(crate) grid: Resolution,
    /// Series whose attributes hold all of these; none: all of the metric's.
    #[serde(default)]
    pub(crate) attributes: BTreeMap<String, String>,
    /// How several series become one number.
    #[serde(default)]
    pub(crate) across: Across,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Resolution {
    #[default]
    Live,
    History,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Statistic {
    Last,
    Mean,
    Min,
    Max,
    /// Standard deviation of the population.
    Deviation,
    /// Of the least-squares line, per cell.
    Slope,
    /// The last sampled value less the first.
    Change,
    /// How many cells were sampled.
    Count,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Across {
    #[default]
    Max,
    Min,
    Sum,
    Mean,
}

impl Check for Features {
    fn check(&self) -> Result<(), String> {
        if !(1..=FEATURES_MAXIMUM).contains(&self.features.len()) {
            return Err(format!("`features` holds {}; 1 to {FEATURES_MAXIMUM} are supported", self.features.len()));
        }
        for (i, feature) in self.features.iter().enumerate() {
            let wrong = |what: String| Err(format!("feature {i} (`{:.60}`): {what}", feature.name));
            if feature.metric().is_none() {
                let known: Vec<&str> = METRICS.iter().map(|(name, ..)| *name).collect();
                return wrong(format!("`metric` is `{:.60}`; known are {}", feature.metric, known.join(", ")));
            }
            let most = feature.grid().cells();
            if !(1..=most).contains(&feature.cells) {
                return wrong(format!("`cells` is {}; give a whole number from 1 to {most}", feature.cells));
            }
        }
        let Levels { elevated, high, critical } = self.levels;
        if !(elevated <= high && high <= critical) {
            return Err(format!("`levels` are {elevated}, {high} and {critical}; they must not fall"));
        }
        let [zero, one] = self.range;
        if !(zero.is_finite() && one.is_finite() && zero != one) {
            return Err(format!("`range` is {zero} to {one}; give two numbers that differ"));
        }
        if !(1..=128).contains(&self.cause.len()) {
            return Err("`cause` has 1 to 128 bytes".into());
        }
        Ok(())
    }
}

impl Features {
    /// From a prediction to a score.
    pub(crate) fn score(&self, prediction: f64) -> f64 {
        let [zero, one] = self.range;
        ((prediction - zero) / (one - zero)).clamp(0.0, 1.0)
    }
}

impl Feature {
    fn metric(&self) -> Option<usize> {
        METRICS.iter().position(|(name, ..)| *name == self.metric)
    }

    pub(crate) fn grid(&self) -> Grid {
        match self.grid {
            Resolution::Live => Grid::Live,
            Resolution::History => Grid::History,
        }
    }

    /// Index of the declared input.
    pub(crate) fn input(&self) -> u32 {
        let metric = self.metric().unwrap_or_default();
        let grid = Grid::ALL.iter().position(|grid| *grid == self.grid()).unwrap_or_default();
        u32::try_from(metric * Grid::ALL.len() + grid).unwrap_or_default()
    }

    /// The feature's value; NaN if nothing was sampled.
    pub(crate) fn of(&self, columns: &[Column]) -> f64 {
        let input = self.input();
        let has = |column: &Column, (key, value): (&String, &String)| {
            column.attributes.iter().any(|attribute| attribute.key == *key && attribute.value == *value)
        };
        let each: Vec<f64> = columns
            .iter()
            .filter(|column| column.input == input && self.attributes.iter().all(|wanted| has(column, wanted)))
            .map(|column| self.of.of(&column.values[column.values.len().saturating_sub(self.cells)..]))
            .filter(|value| value.is_finite())
            .collect();
        match self.across {
            Across::Max => each.iter().copied().fold(f64::NAN, f64::max),
            Across::Min => each.iter().copied().fold(f64::NAN, f64::min),
            Across::Sum if each.is_empty() => f64::NAN,
            Across::Sum => each.iter().sum(),
            Across::Mean => series::mean(&each).unwrap_or(f64::NAN),
        }
    }
}

impl Statistic {
    fn of(self, cells: &[f64]) -> f64 {
        let sampled = series::sampled(cells);
        let found = match self {
            Statistic::Last => sampled.last().copied(),
            Statistic::Mean => series::mean(&sampled),
            Statistic::Min => sampled.iter().copied().min_by(f64::total_cmp),
            Statistic::Max => sampled.iter().copied().max_by(f64::total_cmp),
            Statistic::Deviation => series::deviation(&sampled),
            Statistic::Slope => slope(cells),
            Statistic::Change => sampled.first().zip(sampled.last()).map(|(first, last)| last - first),
            Statistic::Count => Some(sampled.len() as f64),
        };
        found.unwrap_or(f64::NAN)
    }
}

/// Of the least-squares line through the sampled cells; none with fewer than two.
fn slope(cells: &[f64]) -> Option<f64> {
    let points: Vec<(f64, f64)> =
        cells.iter().enumerate().filter(|(_, y)| y.is_finite()).map(|(x, y)| (x as f64, *y)).collect();
    if points.len() < 2 {
        return None;
    }
    let count = points.len() as f64;
    let x_mean = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let y_mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean) * (x - x_mean)).sum();
    Some(covariance / variance)
}

#[cfg(test)]
mod tests {
    use super::*;
    use anomaly::contract::aether::plugin::types::Attribute;

    fn feature(json: &str) -> Feature {
        serde_json::from_str(json).expect("a feature")
    }

    #[test]
    fn statistics_pass_over_gaps() {
        let cells = [f64::NAN, 1.0, 3.0, f64::NAN, 7.0];
        for (of, expected) in [
            (Statistic::Last, 7.0),
            (Statistic::Mean, 11.0 / 3.0),
            (Statistic::Min, 1.0),
            (Statistic::Max, 7.0),
            (Statistic::Change, 6.0),
            (Statistic::Count, 3.0),
            (Statistic::Slope, 2.0),
            (Statistic::Deviation, (56.0f64 / 9.0).sqrt()),
        ] {
            assert!((of.of(&cells) - expected).abs() < 1e-12, "{of:?}: {}", of.of(&cells));
        }
        assert!(Statistic::Mean.of(&[f64::NAN]).is_nan());
        assert!(Statistic::Slope.of(&[1.0]).is_nan());
        assert!(Statistic::Count.of(&[f64::NAN]).abs() < 1e-12);
    }

    #[test]
    fn series_are_chosen_by_attributes_and_become_one_number() {
        let column = |device: &str, values: Vec<f64>| Column {
            input: 15,
            attributes: vec![Attribute { key: "system.device".into(), value: device.into() }],
            start: 0,
            step: 300_000,
            values,
        };
        let columns = [column("sda", vec![9.0, 1.0, 3.0]), column("sdb", vec![9.0, 4.0, 6.0])];
        let of = |rest: &str| {
            let json = r#"{"name":"x","metric":"system.disk.io_time","grid":"history","of":"mean","cells":2"#;
            feature(&format!("{json}{rest}}}")).of(&columns)
        };
        let near = |value: f64, expected: f64| assert!((value - expected).abs() < 1e-12, "{value}");
        near(of(""), 5.0);
        near(of(r#","across":"sum""#), 7.0);
        near(of(r#","across":"min""#), 2.0);
        near(of(r#","across":"mean""#), 3.5);
        near(of(r#","attributes":{"system.device":"sda"}"#), 2.0);
        assert!(of(r#","attributes":{"system.device":"sdc"},"across":"sum""#).is_nan());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |json: &str| aether_plugin::parse::<Features>(json).unwrap_err();
        let one = |rest: &str| {
            format!(r#"{{"features":[{{"name":"x","metric":"system.uptime","of":"last","cells":1}}]{rest}}}"#)
        };
        assert!(aether_plugin::parse::<Features>(&one("")).is_ok());
        assert_eq!(refused(r#"{"features":[]}"#), "`features` holds 0; 1 to 1024 are supported");
        assert!(
            refused(&one("").replace("uptime", "up")).starts_with("feature 0 (`x`): `metric` is `system.up`; known")
        );
        assert!(
            refused(&one("").replace(":1}", ":361}")).ends_with("`cells` is 361; give a whole number from 1 to 360")
        );
        assert!(
            refused(&one("").replace("last", "first")).starts_with("unknown variant `first`, expected one of `last`")
        );
        assert!(refused(&one(r#","levels":{"high":0.95}"#)).ends_with("they must not fall"));
        assert_eq!(refused(&one(r#","range":[1,1]"#)), "`range` is 1 to 1; give two numbers that differ");
        assert!(refused(&one(r#","cause":"""#)).starts_with("`cause`"));
        assert!(refused(&one(r#","colour":1"#)).starts_with("unknown field `colour`"));
    }

    #[test]
    fn a_range_may_fall() {
        let mut features: Features = serde_json::from_str(r#"{"features":[],"range":[100,0]}"#).expect("features");
        for (hours, score) in [(100.0, 0.0), (25.0, 0.75), (-5.0, 1.0), (200.0, 0.0)] {
            assert!((features.score(hours) - score).abs() < 1e-12);
        }
        features.range = [0.0, 1.0];
        assert!((features.score(0.3) - 0.3).abs() < 1e-12);
    }
}
