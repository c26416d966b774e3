//! The chart, as plain functions of a series.
//!
//! The series is smoothed (S. W. Roberts, "Control Chart Tests Based on Geometric Moving Averages", 1959), and the
//! smoothed value is compared with its own exponentially weighted mean and variance (T. Finch, "Incremental calculation
//! of weighted mean and variance", 2009). The textbook's limit, the deviation of the raw values times
//! sqrt(λ/(2-λ)), holds for independent values; telemetry is autocorrelated, so the variance is that of the smoothed
//! values themselves.

use aether_plugin::Check;
use anomaly::{Direction, Grid, Metric, Surprise, check_from, check_limits};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) metrics: Vec<Metric>,
    pub(crate) direction: Direction,
    pub(crate) smoothing: f64,
    pub(crate) half_life_share: f64,
    pub(crate) deviations_critical: f64,
    pub(crate) record_margin: f64,
    pub(crate) least_share: f64,
    pub(crate) recent_cells: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            metrics: Metric::ALL.to_vec(),
            direction: Direction::Both,
            smoothing: 0.7,
            half_life_share: 0.33,
            deviations_critical: 5.0,
            record_margin: 1.3,
            least_share: 0.17,
            recent_cells: 3,
        }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_from("smoothing", self.smoothing, 0.01, 1.0)?;
        check_from("half_life_share", self.half_life_share, 0.01, 1.0)?;
        check_limits(self.deviations_critical, self.record_margin, self.least_share, self.recent_cells)
    }
}

/// A step of the baseline moves by at most this many deviations, so that an outlier does not become what is usual.
const CLAMP: f64 = 3.0;

/// How far the newest cells are from the chart's mean; none with less than `least_share` of the window.
pub(crate) fn surprise(values: &[f64], grid: Grid, floor: f64, config: &Config) -> Option<Surprise> {
    let least = grid.share(config.least_share);
    let cells = values.iter().filter(|value| value.is_finite()).count();
    if cells <= least {
        return None;
    }
    let decay = 0.5f64.powf(1.0 / grid.share(config.half_life_share) as f64);
    let recent = values.len().saturating_sub(config.recent_cells as usize);
    let (mut smooth, mut mean, mut variance, mut count) = (None, 0.0, 0.0, 0usize);
    // How far it went before the recent cells, down and up, in the series' unit: deviations change, what happened does not.
    let mut record = [0.0f64; 2];
    let mut greatest: Option<Surprise> = None;
    for (i, value) in values.iter().enumerate().filter(|(_, value)| value.is_finite()) {
        let now = smooth.map_or(*value, |before: f64| before + config.smoothing * (value - before));
        smooth = Some(now);
        count += 1;
        if count <= least {
            // Welford's mean and variance until the chart begins.
            let from = now - mean;
            mean += from / count as f64;
            variance += (from * (now - mean) - variance) / count as f64;
            continue;
        }
        let deviation = anomaly::deviation(variance.sqrt(), mean, floor);
        let distance = (now - mean) / deviation;
        let side = &mut record[usize::from(distance > 0.0)];
        if i < recent {
            *side = side.max((now - mean).abs());
        } else if config.direction.counts(distance) {
            let limit = anomaly::limit(config.deviations_critical, config.record_margin, *side / deviation);
            let this = Surprise { seen: now, usual: mean, distance, limit, of: "the smoothed value", cells };
            if greatest.is_none_or(|greatest| this.ratio() > greatest.ratio()) {
                greatest = Some(this);
            }
        }
        let step = (now - mean).clamp(-CLAMP * deviation, CLAMP * deviation);
        mean += (1.0 - decay) * step;
        variance = decay * (variance + (1.0 - decay) * step * step);
    }
    // Nothing was sampled lately, or all of it went the way that does not count.
    greatest.or_else(|| {
        let seen = values.get(recent..)?.iter().copied().rfind(|value| value.is_finite())?;
        let limit = config.deviations_critical;
        Some(Surprise { seen, usual: mean, distance: 0.0, limit, of: "the smoothed value", cells })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A noise that repeats after 997 cells, from -0.5 to 0.5.
    fn noise(i: usize) -> f64 {
        ((i * 619 + 7) % 997) as f64 / 997.0 - 0.5
    }

    fn series(cells: usize, at: impl Fn(usize) -> f64) -> Vec<f64> {
        (0..cells).map(|i| at(i) + noise(i)).collect()
    }

    fn ratio(values: &[f64], config: &Config) -> f64 {
        surprise(values, Grid::History, 0.0, config).expect("enough values").ratio()
    }

    #[test]
    fn noise_is_calm_and_a_step_is_not() {
        let config = Config::default();
        assert!(ratio(&series(864, |_| 50.0), &config) < 0.6);
        let stepped = series(864, |i| if i < 861 { 50.0 } else { 70.0 });
        let found = surprise(&stepped, Grid::History, 0.0, &config).expect("enough values");
        assert!(found.ratio() >= 1.0 && found.distance > 0.0, "{found:?}");
        assert!((found.usual - 50.0).abs() < 0.5 && (found.limit - 5.0).abs() < 1.0, "{found:?}");
        let fallen = series(864, |i| if i < 861 { 50.0 } else { 30.0 });
        assert!(ratio(&fallen, &config) >= 1.0);
        assert!(ratio(&fallen, &Config { direction: Direction::Up, ..config.clone() }) < 0.6);
        assert!(ratio(&fallen, &Config { direction: Direction::Down, ..config }) >= 1.0);
    }

    #[test]
    fn an_outlier_is_told_while_it_is_recent() {
        let spike = |at: usize| series(864, |i| if i == at { 150.0 } else { 50.0 });
        let config = Config::default();
        assert!(ratio(&spike(863), &config) >= 1.0);
        assert!(ratio(&spike(861), &config) >= 1.0);
        assert!(ratio(&spike(840), &config) < 0.6);
    }

    #[test]
    fn what_happens_every_day_is_no_news() {
        let config = Config::default();
        // A job of half an hour each day; the newest cells end the third run.
        let daily = |height: f64| {
            series(864, |i| 20.0 + if i % 288 >= 282 { if i > 860 { height } else { 60.0 } } else { 0.0 })
        };
        assert!(ratio(&daily(60.0), &config) < 1.0);
        assert!(ratio(&daily(140.0), &config) >= 1.0, "more than it ever did");
        let forgetful = Config { record_margin: 0.0, ..config };
        assert!(ratio(&daily(60.0), &forgetful) >= 1.0);
    }

    #[test]
    fn a_level_that_stays_becomes_usual() {
        let config = Config::default();
        let shifted = series(864, |i| if i < 400 { 20.0 } else { 40.0 });
        assert!(ratio(&shifted, &config) < 0.6);
    }

    #[test]
    fn a_constant_series_counts_in_twentieths_of_itself() {
        let config = Config::default();
        let last = |value: f64| [vec![10.0; 861], vec![value; 3]].concat();
        assert!(ratio(&last(11.0), &config) < 0.6);
        assert!(ratio(&last(16.0), &config) >= 1.0);
        // A floor forgives more.
        assert!(surprise(&last(16.0), Grid::History, 5.0, &config).expect("enough").ratio() < 0.6);
        assert!(ratio(&vec![0.0; 864], &config).abs() < 1e-9);
    }

    #[test]
    fn too_few_or_too_old_values_say_nothing() {
        let config = Config::default();
        let short = [vec![f64::NAN; 720], series(144, |_| 5.0)].concat();
        assert_eq!(surprise(&short, Grid::History, 0.0, &config), None);
        let ended = [series(861, |_| 5.0), vec![f64::NAN; 3]].concat();
        assert_eq!(surprise(&ended, Grid::History, 0.0, &config), None);
        assert_eq!(surprise(&[], Grid::Live, 0.0, &config), None);
        // Ten minutes are enough live.
        assert!(surprise(&series(62, |_| 5.0), Grid::Live, 0.0, &config).is_some());
    }

    #[test]
    fn wild_values_are_survived() {
        let wild = [vec![f64::MAX; 400], vec![f64::MIN; 461], vec![f64::MAX; 3]].concat();
        let found = surprise(&wild, Grid::History, 0.0, &Config::default()).expect("enough values");
        assert!(found.ratio().is_finite());
    }

    #[test]
    fn the_schema_tells_the_defaults() {
        let schema: serde_json::Value = serde_json::from_str(include_str!("schema.json")).unwrap();
        let defaults: serde_json::Map<String, serde_json::Value> = schema["properties"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(field, property)| (field.clone(), property["default"].clone()))
            .collect();
        let text = serde_json::to_string(&defaults).unwrap();
        assert_eq!(aether_plugin::parse::<Config>(&text).unwrap(), Config::default());
    }

    #[test]
    fn a_wrong_config_is_told() {
        let refused = |json| aether_plugin::parse::<Config>(json).unwrap_err();
        assert_eq!(refused(r#"{"smoothing":0}"#), "`smoothing` is 0; give a number from 0.01 to 1");
        assert_eq!(refused(r#"{"recent_cells":0}"#), "`recent_cells` is 0; give a whole number from 1 to 36");
        assert_eq!(
            refused(r#"{"deviations_critical":0}"#),
            "`deviations_critical` is 0; give a number from 0.1 to 1000"
        );
        assert!(refused(r#"{"metrics":["gpu"]}"#).starts_with("unknown variant `gpu`, expected one of `cpu`"));
    }
}
