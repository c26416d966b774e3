//! From the surprise of each series to one answer.

use crate::{
    Grid, Metric, Surprise,
    contract::aether::plugin::types::{Attribute, Contribution, Level, Observation, Risk},
    scoring::Assessment,
};

/// From this share of the limit on, a surprise is `high` or `elevated`. What repeats the greatest of the window stays
/// elevated with the default margin.
const HIGH: f64 = 0.85;
const ELEVATED: f64 = 0.6;
/// Series that are told of, the most surprising first.
const TOLD: usize = 8;

/// One column's series.
struct Reading {
    input: u32,
    metric: Metric,
    grid: Grid,
    series: String,
    surprise: Surprise,
}

/// Asks `surprise` of every watched series (its values, its grid and the least deviation that counts) and speaks for
/// the greatest. It answers none where there are too few values.
pub fn assess(
    observation: &Observation,
    watched: &[Metric],
    surprise: impl Fn(&[f64], Grid, f64) -> Option<Surprise>,
) -> Assessment {
    let (mut readings, mut most) = (Vec::new(), (0usize, None));
    for column in &observation.columns {
        let Some((metric, grid)) = Metric::of(column.input).filter(|(metric, _)| watched.contains(metric)) else {
            continue;
        };
        let found = column.values.iter().filter(|value| value.is_finite()).count();
        if found >= most.0 {
            most = (found, Some(metric));
        }
        if let Some(surprise) = surprise(&column.values, grid, metric.floor()) {
            let series = series(metric, &column.attributes);
            readings.push(Reading { input: column.input, metric, grid, series, surprise });
        }
    }
    readings.sort_by(|one, other| other.surprise.ratio().total_cmp(&one.surprise.ratio()));
    let Some(first) = readings.first() else { return Assessment::Insufficient(insufficient(most)) };
    Assessment::Risk(risk(&observation.subject.id, first, &readings))
}

fn insufficient((found, metric): (usize, Option<Metric>)) -> String {
    match metric {
        Some(metric) => {
            format!("no watched series has enough values yet; the most has `{}`: {found} cells", metric.name())
        }
        None => "none of the watched metrics was sampled".into(),
    }
}

/// `system.disk.io` of `disk.io.direction` = `read`.
fn series(metric: Metric, attributes: &[Attribute]) -> String {
    let of: Vec<&str> = attributes.iter().map(|attribute| attribute.value.as_str()).collect();
    if of.is_empty() { metric.name().into() } else { format!("{} ({})", metric.name(), of.join(", ")) }
}

fn risk(subject: &str, first: &Reading, readings: &[Reading]) -> Risk {
    let ratio = first.surprise.ratio();
    let level = match ratio {
        ratio if ratio >= 1.0 => Level::Critical,
        ratio if ratio >= HIGH => Level::High,
        ratio if ratio >= ELEVATED => Level::Elevated,
        _ => Level::Low,
    };
    let calm = level == Level::Low;
    let told = tell(first);
    let coverage = first.surprise.cells as f64 / first.grid.cells() as f64;
    Risk {
        level,
        // Half at the limit, and halving the rest with each limit more. A rank, not a measured frequency.
        score: (1.0 - (-ratio).exp2()).clamp(0.0, 0.95),
        // An unusual series is a hint, and the more of the window was seen, the better known is what is usual.
        confidence: 0.3 + 0.5 * coverage.min(1.0),
        horizon: None,
        cause: if calm { "anomaly.none".into() } else { format!("anomaly.{}", first.metric.word()) },
        reason: if calm {
            format!("Nothing unusual on {subject}. Nearest: {told}.")
        } else {
            format!("Unusual on {subject}: {told}.")
        },
        contributions: readings
            .iter()
            .take(TOLD)
            .map(|reading| Contribution {
                input: reading.input,
                weight: reading.surprise.ratio().min(1e6),
                note: tell(reading),
            })
            .collect(),
    }
}

fn tell(reading: &Reading) -> String {
    let Surprise { seen, usual, distance, limit, of, .. } = reading.surprise;
    format!(
        "{of} of {} is {} against a usual {}, {distance:+.1} deviations with a limit of {limit:.1} ({})",
        reading.series,
        number(seen),
        number(usual),
        reading.grid.words()
    )
}

/// Four significant digits, whatever the unit.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 || (size > 0.0 && size < 1e-3) => format!("{value:.3e}"),
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::aether::plugin::types::{Column, Subject, SubjectKind};

    fn observed(columns: Vec<(u32, Vec<f64>)>) -> Observation {
        let column = |(input, values)| Column { input, attributes: vec![], start: 0, step: 1, values };
        let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: vec![] };
        Observation { subject, at: 1, columns: columns.into_iter().map(column).collect(), events: vec![] }
    }

    /// Takes the newest value for the distance, with a limit of 10.
    fn newest(values: &[f64], _: Grid, _: f64) -> Option<Surprise> {
        let seen = *values.last()?;
        Some(Surprise { seen, usual: 0.0, distance: seen, limit: 10.0, of: "the value", cells: values.len() })
    }

    fn risk_of(columns: Vec<(u32, Vec<f64>)>, watched: &[Metric]) -> Risk {
        match assess(&observed(columns), watched, newest) {
            Assessment::Risk(risk) => risk,
            Assessment::Insufficient(missing) => panic!("{missing}"),
        }
    }

    #[test]
    fn levels_follow_the_share_of_the_limit() {
        for (distance, level, score) in [
            (0.0, Level::Low, 0.0),
            (-5.9, Level::Low, 0.336),
            (6.0, Level::Elevated, 0.340),
            (-8.5, Level::High, 0.445),
            (10.0, Level::Critical, 0.5),
            (-20.0, Level::Critical, 0.75),
            (1e9, Level::Critical, 0.95),
        ] {
            let risk = risk_of(vec![(0, vec![distance])], &Metric::ALL);
            assert_eq!(risk.level, level, "{distance}");
            assert!((risk.score - score).abs() < 1e-3, "{distance}: {}", risk.score);
        }
    }

    #[test]
    fn the_greatest_speaks_and_all_are_told() {
        let columns = vec![(0, vec![1.0]), (9, vec![-12.0]), (3, vec![11.0])];
        let risk = risk_of(columns.clone(), &Metric::ALL);
        assert_eq!((risk.cause.as_str(), risk.contributions[0].input), ("anomaly.network", 9));
        assert_eq!(risk.contributions.len(), 3);
        assert!(risk.reason.contains("the last three days"), "{}", risk.reason);
        assert!(risk.reason.contains("-12.0 deviations"), "{}", risk.reason);
        let risk = risk_of(columns, &[Metric::Cpu, Metric::Memory]);
        assert_eq!((risk.cause.as_str(), risk.contributions.len()), ("anomaly.memory", 2));
    }

    #[test]
    fn inputs_are_in_the_declared_order() {
        assert_eq!(Metric::of(0), Some((Metric::Cpu, Grid::Live)));
        assert_eq!(Metric::of(9), Some((Metric::Network, Grid::History)));
        assert_eq!(Metric::of(12), None);
        let declared = crate::describe("x", "1.0.0", "", "{}").inputs;
        assert_eq!(declared.len(), 12);
    }

    #[test]
    fn without_values_nothing_is_said() {
        let missing = |columns| match assess(&observed(columns), &Metric::ALL, |_, _, _| None) {
            Assessment::Insufficient(missing) => missing,
            Assessment::Risk(risk) => panic!("{risk:?}"),
        };
        assert_eq!(missing(vec![]), "none of the watched metrics was sampled");
        assert!(missing(vec![(0, vec![1.0, f64::NAN])]).ends_with("`system.cpu.utilization`: 1 cells"));
    }

    #[test]
    fn numbers_are_short() {
        let told: Vec<String> = [0.0, 0.00012, 0.25, 12.345, 4096.4, 1.5e9].map(number).into();
        assert_eq!(told, ["0.0000", "1.200e-4", "0.2500", "12.35", "4096", "1.500e9"]);
    }
}
