//! The statistics, as plain functions of a series.
//!
//! The robust z-score is (value - median) / (1.4826 · MAD), where MAD is the median absolute deviation: half of all
//! values may be outliers without moving it (B. Iglewicz and D. Hoaglin, "How to Detect and Handle Outliers", 1993).
//! Where more than half of the values are equal MAD is zero, and 1.2533 times the mean absolute deviation takes its
//! place, as those authors advise.

use aether_plugin::{Check, series};
use anomaly::{Direction, Grid, Metric, Surprise, check_from, check_limits};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) metrics: Vec<Metric>,
    pub(crate) direction: Direction,
    pub(crate) deviations_critical: f64,
    pub(crate) record_margin: f64,
    pub(crate) least_share: f64,
    pub(crate) recent_cells: u32,
    pub(crate) shift_critical: f64,
    pub(crate) season: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            metrics: Metric::ALL.to_vec(),
            direction: Direction::Both,
            deviations_critical: 8.0,
            record_margin: 1.3,
            least_share: 0.33,
            recent_cells: 3,
            shift_critical: 8.0,
            season: true,
        }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        check_from("shift_critical", self.shift_critical, 0.0, 1_000.0)?;
        check_limits(self.deviations_critical, self.record_margin, self.least_share, self.recent_cells)
    }
}

/// Cells of a day of the history; the live window holds less than one.
const DAY: usize = 288;
/// Cells before and after this time of the day that count as the same time.
const AROUND: usize = 6;

/// Cells of a block of which the median is one level.
fn block(grid: Grid) -> usize {
    match grid {
        Grid::Live => 30,
        Grid::History => 12,
    }
}

/// Median of finite values, which are put into another order; none of none.
fn median(values: &mut [f64]) -> Option<f64> {
    let half = values.len() / 2;
    if values.is_empty() {
        return None;
    }
    let even = values.len().is_multiple_of(2);
    let (below, upper, _) = values.select_nth_unstable_by(half, f64::total_cmp);
    let upper = *upper;
    let lower = below.iter().copied().max_by(f64::total_cmp).filter(|_| even);
    Some(lower.map_or(upper, |lower| lower / 2.0 + upper / 2.0))
}

/// What is usual: the middle of the values and their scale.
struct Usual {
    median: f64,
    scale: f64,
}

impl Usual {
    fn of(mut values: Vec<f64>, floor: f64) -> Option<Self> {
        let median = median(&mut values)?;
        for value in &mut values {
            *value = (*value - median).abs();
        }
        let mean = series::mean(&values)?;
        let absolute = self::median(&mut values)?;
        let measured = if absolute > 0.0 { 1.4826 * absolute } else { 1.2533 * mean };
        Some(Self { median, scale: anomaly::deviation(measured, median, floor) })
    }

    fn distance(&self, value: f64) -> f64 {
        (value - self.median) / self.scale
    }

    /// The greatest distances down and up.
    fn record(&self, values: impl Iterator<Item = f64>) -> [f64; 2] {
        values
            .map(|value| self.distance(value))
            .fold([0.0, 0.0], |[down, up], distance| [f64::max(down, -distance), f64::max(up, distance)])
    }

    /// The distance from what is usual or, where that is less, from `then`: what was at this time of the days before.
    fn distance_with(&self, value: f64, then: Option<f64>) -> f64 {
        let plain = self.distance(value);
        let seasonal = then.map(|then| (value - then) / self.scale);
        match seasonal {
            // On the other side of what was usual at this time, or nearer to it: that is the smaller news.
            Some(seasonal) if seasonal * plain <= 0.0 => 0.0,
            Some(seasonal) if seasonal.abs() < plain.abs() => seasonal,
            _ => plain,
        }
    }
}

/// How far the newest cells, or the level of the newest block, are from what is usual; none with less than
/// `least_share` of the window, or without a recent value.
pub(crate) fn surprise(values: &[f64], grid: Grid, floor: f64, config: &Config) -> Option<Surprise> {
    let recent = values.len().saturating_sub(config.recent_cells as usize);
    let (before, newest) = values.split_at(recent);
    let reference = series::sampled(before);
    if reference.len() < grid.share(config.least_share) || newest.iter().all(|value| !value.is_finite()) {
        return None;
    }
    let cells = reference.len() + series::sampled(newest).len();
    let season = config.season && grid == Grid::History;
    let usual = Usual::of(reference, floor)?;
    let record = usual.record(before.iter().copied().filter(|value| value.is_finite()));
    let told = |seen, distance: f64, least, record: [f64; 2], of| {
        let counted = if config.direction.counts(distance) { distance } else { 0.0 };
        let limit = anomaly::limit(least, config.record_margin, record[usize::from(counted > 0.0)]);
        Surprise { seen, usual: usual.median, distance: counted, limit, of, cells }
    };
    let points = (recent..values.len()).filter(|i| values[*i].is_finite()).map(|i| {
        let distance = usual.distance_with(values[i], season.then(|| same_time(values, i)).flatten());
        told(values[i], distance, config.deviations_critical, record, "the value")
    });
    let shift = (config.shift_critical > 0.0).then(|| levels(values, block(grid))).flatten().map(|(levels, newest)| {
        let then = if season { same_time_level(values, block(grid)) } else { None };
        let distance = usual.distance_with(newest, then);
        let record = usual.record(levels.into_iter());
        told(newest, distance, config.shift_critical, record, "the level")
    });
    points.chain(shift).max_by(|one, other| one.ratio().total_cmp(&other.ratio()))
}

/// The median around the same time of the days before; none with less than half of those cells sampled.
fn same_time(values: &[f64], i: usize) -> Option<f64> {
    let mut then = Vec::new();
    for day in (DAY..=i).step_by(DAY) {
        let from = (i - day).saturating_sub(AROUND);
        then.extend(values[from..=i - day + AROUND].iter().copied().filter(|value| value.is_finite()));
    }
    if then.len() <= AROUND { None } else { median(&mut then) }
}

/// The median of the newest block's time a day before.
fn same_time_level(values: &[f64], block: usize) -> Option<f64> {
    let end = values.len().checked_sub(DAY)?;
    let mut then = series::sampled(&values[end.checked_sub(block)?..end]);
    if then.len() * 2 < block { None } else { median(&mut then) }
}

/// The medians of the blocks before, and of the newest one; none if less than half of that was sampled.
fn levels(values: &[f64], block: usize) -> Option<(Vec<f64>, f64)> {
    let mut levels: Vec<Option<f64>> = values
        .rchunks(block)
        .map(|cells| {
            let mut cells = series::sampled(cells);
            if cells.len() * 2 < block { None } else { median(&mut cells) }
        })
        .collect();
    let newest = levels.remove(0)?;
    Some((levels.into_iter().flatten().collect(), newest))
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

    fn found(values: &[f64], config: &Config) -> Surprise {
        surprise(values, Grid::History, 0.0, config).expect("enough values")
    }

    fn ratio(values: &[f64], config: &Config) -> f64 {
        found(values, config).ratio()
    }

    #[test]
    fn the_median_of_even_and_odd() {
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!((median(&mut [7.0]), median(&mut [])), (Some(7.0), None));
    }

    #[test]
    fn noise_is_calm_and_an_outlier_is_not() {
        let config = Config::default();
        assert!(ratio(&series(864, |_| 50.0), &config) < 0.6);
        let spike = series(864, |i| if i == 862 { 80.0 } else { 50.0 });
        let told = found(&spike, &config);
        assert!(told.ratio() >= 1.0 && told.of == "the value", "{told:?}");
        // MAD is below a twentieth of the median, which takes its place: (80 - 50) / 2.5.
        assert!((told.distance - 12.0).abs() < 0.3, "{told:?}");
        assert!(ratio(&spike, &Config { direction: Direction::Down, ..config }) < 0.6);
    }

    #[test]
    fn half_of_the_window_may_be_outliers() {
        let config = Config { record_margin: 0.0, shift_critical: 0.0, ..Config::default() };
        let noisy = series(864, |i| if i % 5 < 2 && i < 850 { 1_000.0 } else { 50.0 });
        let told = found(&noisy, &config);
        assert!(told.ratio() < 0.6 && (told.usual - 50.0).abs() < 1.0, "{told:?}");
    }

    #[test]
    fn with_equal_values_the_mean_deviation_takes_over() {
        let config = Config { season: false, ..Config::default() };
        // A disk that writes 100 in one cell of twelve, and 0 else: the MAD is zero.
        let bursts = |last: f64| {
            let mut values: Vec<f64> = (0..864).map(|i| if i % 12 == 0 { 100.0 } else { 0.0 }).collect();
            values[863] = last;
            values
        };
        let usual = Usual::of(bursts(0.0), 0.0).expect("values");
        assert!((usual.scale - 1.2533 * 100.0 / 12.0).abs() < 1e-9, "{}", usual.scale);
        assert!(ratio(&bursts(100.0), &config) < 1.0, "as far as it went before");
        assert!(ratio(&bursts(140.0), &config) >= 1.0);
        assert!(ratio(&vec![0.0; 864], &config).abs() < 1e-9);
        let still = [vec![10.0; 863], vec![14.5]].concat();
        assert!(ratio(&still, &config) >= 1.0, "a constant series counts in twentieths of itself");
        assert!(
            surprise(&still, Grid::History, 5.0, &config).expect("enough").ratio() < 0.6,
            "unless a floor forgives"
        );
    }

    #[test]
    fn a_shift_of_level_is_told_though_no_value_is_far_out() {
        let config = Config { season: false, ..Config::default() };
        let shifted = series(864, |i| if i < 852 { 50.0 } else { 72.0 });
        let told = found(&shifted, &config);
        assert!(told.ratio() >= 1.0 && told.of == "the level", "{told:?}");
        assert!(ratio(&shifted, &Config { shift_critical: 0.0, ..config }) < 1.0);
    }

    #[test]
    fn what_is_usual_at_this_time_of_the_day_is_no_news() {
        // An hour of work at the end of each day, higher each time.
        let work = |i: usize| if i % DAY >= DAY - 12 { 50.0 + 40.0 * (i / DAY + 1) as f64 } else { 50.0 };
        let daily = series(864, work);
        let config = Config { record_margin: 0.0, ..Config::default() };
        assert!(ratio(&daily, &config) >= 1.0, "from 130 to 170");
        let same = series(864, |i| work(i % DAY));
        assert!(ratio(&same, &config) < 0.6);
        assert!(ratio(&same, &Config { season: false, ..config }) >= 1.0);
    }

    #[test]
    fn too_few_or_too_old_values_say_nothing() {
        let config = Config::default();
        let short = [vec![f64::NAN; 580], series(284, |_| 5.0)].concat();
        assert_eq!(surprise(&short, Grid::History, 0.0, &config), None);
        let ended = [series(861, |_| 5.0), vec![f64::NAN; 3]].concat();
        assert_eq!(surprise(&ended, Grid::History, 0.0, &config), None);
        assert_eq!(surprise(&[], Grid::Live, 0.0, &config), None);
        assert!(surprise(&series(124, |_| 5.0), Grid::Live, 0.0, &config).is_some());
    }

    #[test]
    fn wild_values_are_survived() {
        let wild = [vec![f64::MAX; 400], vec![f64::MIN; 461], vec![f64::MAX; 3]].concat();
        assert!(found(&wild, &Config::default()).ratio().is_finite());
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
        assert_eq!(refused(r#"{"shift_critical":-1}"#), "`shift_critical` is -1; give a number from 0 to 1000");
        assert_eq!(refused(r#"{"least_share":1}"#), "`least_share` is 1; give a number from 0.05 to 0.9");
    }
}
