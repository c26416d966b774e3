//! From assets to a model that is ready, and from an observation to a risk.

use crate::{
    features::{Features, Levels},
    forest::{Forest, Link},
    isolation, lightgbm, xgboost,
};
use aether_plugin::Check;
use anomaly::{
    contract::aether::plugin::types::{Contribution, Level, Observation, Risk},
    scoring::Assessment,
};
use serde::Deserialize;

/// Features that are told of, those that were asked most first.
const TOLD: usize = 8;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) least_share: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self { least_share: 0.5 }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        aether_plugin::check_share("least_share", self.least_share)
    }
}

/// A model with what it is asked.
#[derive(Debug)]
pub(crate) struct Model {
    config: Config,
    features: Features,
    forest: Forest,
}

impl Model {
    /// Reads `features.json` and the one of `model.json` and `model.txt` that is there.
    pub(crate) fn read(config: &str, asset: impl Fn(&str) -> Option<Vec<u8>>) -> Result<Self, String> {
        let config = aether_plugin::parse(config)?;
        let features = asset("features.json").ok_or(
            "the assets hold no `features.json`, which says what the model's features are; see docs/plugins.md",
        )?;
        let features = std::str::from_utf8(&features).map_err(|_| "`features.json` is not UTF-8".to_owned())?;
        let features: Features = aether_plugin::parse(features).map_err(|wrong| format!("`features.json`: {wrong}"))?;
        let (name, forest) = match (asset("model.json"), asset("model.txt")) {
            (Some(_), Some(_)) => return Err("the assets hold `model.json` and `model.txt`; leave one".into()),
            (Some(json), None) if is_isolation(&json) => ("model.json", isolation::read(&json)),
            (Some(json), None) => ("model.json", xgboost::read(&json)),
            (None, Some(text)) => ("model.txt", lightgbm::read(&text)),
            (None, None) => {
                return Err("the assets hold neither `model.json` (XGBoost, or an isolation forest of scikit-learn) \
                            nor `model.txt` (LightGBM)"
                    .into());
            }
        };
        let forest = forest.map_err(|wrong| format!("`{name}`: {wrong}"))?;
        let (told, read) = (features.features.len(), forest.features);
        if told != read {
            return Err(format!("`features.json` tells of {told} features, and `{name}` reads {read}"));
        }
        for (i, (feature, name)) in features.features.iter().zip(&forest.names).enumerate() {
            if feature.name != *name {
                let told = &feature.name;
                return Err(format!("feature {i} is `{name:.60}` in the model and `{told:.60}` in `features.json`"));
            }
        }
        Ok(Self { config, features, forest })
    }

    #[cfg(test)]
    pub(crate) fn predict(&self, row: &[f64]) -> crate::forest::Prediction {
        self.forest.predict(row, &mut vec![0; row.len()])
    }

    pub(crate) fn assess(&self, observation: &Observation) -> Assessment {
        let features = &self.features.features;
        let row: Vec<f64> = features.iter().map(|feature| feature.of(&observation.columns)).collect();
        let known = row.iter().filter(|value| value.is_finite()).count();
        if known == 0 || (known as f64) < self.config.least_share * row.len() as f64 {
            let missing = features.iter().zip(&row).find(|(_, value)| value.is_nan());
            let example = missing.map_or("", |(feature, _)| feature.name.as_str());
            return Assessment::Insufficient(format!(
                "{known} of the model's {} features are known; `{example:.60}`, for one, is not",
                row.len()
            ));
        }
        let mut used = vec![0; row.len()];
        let prediction = self.forest.predict(&row, &mut used);
        if !prediction.value.is_finite() {
            return Assessment::Insufficient("the trees' sum is beyond all numbers".into());
        }
        let score = self.features.score(prediction.value);
        let Levels { elevated, high, critical } = self.features.levels;
        let level = match score {
            score if score >= critical => Level::Critical,
            score if score >= high => Level::High,
            score if score >= elevated => Level::Elevated,
            _ => Level::Low,
        };
        let asked: u32 = used.iter().sum();
        let mut order: Vec<usize> = (0..row.len()).filter(|i| used[*i] > 0).collect();
        order.sort_by_key(|i| std::cmp::Reverse(used[*i]));
        let note = |i: usize| format!("{:.60} is {}", features[i].name, number(row[i]));
        let most: Vec<String> = order.iter().take(3).map(|i| note(*i)).collect();
        let what = match self.forest.link {
            Link::Isolation { .. } => "anomaly score",
            Link::Sigmoid { .. } => "probability",
            Link::Identity | Link::Mean { .. } => "prediction",
        };
        let reason = format!(
            "The model's {what} for {} is {:.4} (score {score:.2}; critical from {critical:.2}) over {} trees, with {known} \
             of {} features known. Asked most: {}.",
            observation.subject.id,
            prediction.value,
            self.forest.trees(),
            row.len(),
            most.join(", "),
        );
        let contributions = order.iter().take(TOLD).map(|i| Contribution {
            input: features[*i].input(),
            weight: f64::from(used[*i]) / f64::from(asked.max(1)),
            note: format!("{}, asked at {} of {asked} nodes", note(*i), used[*i]),
        });
        Assessment::Risk(Risk {
            level,
            score,
            // What is missing took the model's default directions; nothing more is known of how sure it is.
            confidence: 0.9 * known as f64 / row.len() as f64,
            horizon: self.features.horizon_ms,
            cause: self.features.cause.clone(),
            reason,
            contributions: contributions.collect(),
        })
    }
}

/// Whether the file says of itself what the exporter writes, within its first bytes.
fn is_isolation(json: &[u8]) -> bool {
    let head = &json[..json.len().min(256)];
    head.windows(isolation::FORMAT.len()).any(|window| window == isolation::FORMAT.as_bytes())
}

fn number(value: f64) -> String {
    if value.is_nan() { "missing".into() } else { format!("{value:.4}") }
}
