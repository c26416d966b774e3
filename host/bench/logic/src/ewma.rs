//! The scorer: how far the newest sample is from the exponentially weighted mean of those before it, measured by their
//! exponentially weighted variance (T. Finch, "Incremental calculation of weighted mean and variance", 2009, section 9).

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// Oldest first; NaN, which only Aether's columns carry, is a gap.
    pub values: Vec<f64>,
}

/// How the series is weighed, and from which z on a level begins.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// Weight of the newest sample, over 0 and below 1.
    pub alpha: f64,
    pub elevated: f64,
    pub high: f64,
    pub critical: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    Low,
    Elevated,
    High,
    Critical,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Risk {
    pub level: Level,
    /// 0 to 1.
    pub score: f64,
    pub mean: f64,
    pub variance: f64,
    pub reason: String,
}

/// Scores a series; none: fewer than two samples.
#[must_use]
pub fn score(values: &[f64], rules: &Rules) -> Option<Risk> {
    let mut samples = values.iter().copied().filter(|value| value.is_finite());
    let (mut mean, mut variance) = (samples.next()?, 0.0);
    let mut newest = samples.next()?;
    for next in samples {
        let difference = newest - mean;
        let step = rules.alpha * difference;
        mean += step;
        variance = (1.0 - rules.alpha) * (variance + difference * step);
        newest = next;
    }
    let difference = newest - mean;
    // Squares are compared, because Rego has no square root.
    let squared = if variance > 0.0 { difference * difference / variance } else { 0.0 };
    let level = match squared {
        z if z >= rules.critical * rules.critical => Level::Critical,
        z if z >= rules.high * rules.high => Level::High,
        z if z >= rules.elevated * rules.elevated => Level::Elevated,
        _ => Level::Low,
    };
    let score = squared / (squared + rules.critical * rules.critical);
    let reason = format!("{newest} is at {squared} squared deviations from {mean}");
    Some(Risk { level, score, mean, variance, reason })
}
