//! What the scorers of unusual series share: which metrics they read and on which grids, which series of them are
//! watched, and how the greatest surprise becomes a risk. What is a surprise is each scorer's own.
//!
//! The types of the contract are generated here and not in each scorer, so that all of this is written once.

mod verdict;

pub mod contract {
    //! The types of `wit/`, which documents them, and the macro that exports a scorer.

    wit_bindgen::generate!({
        path: "../../wit",
        world: "risk-scorer",
        pub_export_macro: true,
        default_bindings_module: "anomaly::contract",
    });
}

pub use contract::exports::aether::plugin::{plugin, scoring};
pub use verdict::assess;

use contract::aether::plugin::types::{Aggregation, Description, Input, MetricInput};
use serde::Deserialize;

/// A grid on which every metric is read. Two of them, because an agent that samples each second shows a fault within
/// seconds, and a history in steps of five minutes shows what is usual at this time of day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Grid {
    /// The last hour in cells of 10 s.
    Live,
    /// The last three days in cells of 5 min.
    History,
}

impl Grid {
    pub const ALL: [Grid; 2] = [Grid::Live, Grid::History];

    pub const fn window_ms(self) -> u64 {
        match self {
            Grid::Live => 3_600_000,
            Grid::History => 3 * 86_400_000,
        }
    }

    pub const fn step_ms(self) -> u64 {
        match self {
            Grid::Live => 10_000,
            Grid::History => 300_000,
        }
    }

    pub const fn cells(self) -> usize {
        (self.window_ms() / self.step_ms()) as usize
    }

    /// How many cells are a share of the window; at least two.
    pub fn share(self, of_window: f64) -> usize {
        ((self.cells() as f64 * of_window) as usize).max(2)
    }

    /// For a person.
    pub(crate) const fn words(self) -> &'static str {
        match self {
            Grid::Live => "the last hour, in cells of 10 s",
            Grid::History => "the last three days, in cells of 5 min",
        }
    }
}

/// A metric that is watched.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    Cpu,
    Memory,
    Load,
    Disk,
    Network,
    Imported,
}

impl Metric {
    pub const ALL: [Metric; 6] =
        [Metric::Cpu, Metric::Memory, Metric::Load, Metric::Disk, Metric::Network, Metric::Imported];

    /// Last part of the cause.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Metric::Cpu => "cpu",
            Metric::Memory => "memory",
            Metric::Load => "load",
            Metric::Disk => "disk",
            Metric::Network => "network",
            Metric::Imported => "imported",
        }
    }

    const fn input(self) -> (&'static str, &'static str, Aggregation) {
        match self {
            Metric::Cpu => ("system.cpu.utilization", "1", Aggregation::Mean),
            Metric::Memory => ("system.memory.utilization", "1", Aggregation::Mean),
            Metric::Load => ("system.cpu.load_average.1m", "{thread}", Aggregation::Mean),
            Metric::Disk => ("system.disk.io", "By", Aggregation::Rate),
            Metric::Network => ("system.network.io", "By", Aggregation::Rate),
            Metric::Imported => ("aether.imported.value", "1", Aggregation::Mean),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        self.input().0
    }

    /// The least deviation that is taken for one, in the metric's unit (disk and network: bytes a second). An idle
    /// machine's series hardly moves, and half a percent of a CPU is no anomaly for that.
    pub(crate) const fn floor(self) -> f64 {
        match self {
            Metric::Cpu => 0.005,
            Metric::Memory => 0.002,
            Metric::Load => 0.05,
            Metric::Disk => 4_096.0,
            Metric::Network => 1_024.0,
            Metric::Imported => 0.0,
        }
    }

    /// The metric and grid of a declared input.
    pub(crate) fn of(input: u32) -> Option<(Metric, Grid)> {
        let input = input as usize;
        Some((*Metric::ALL.get(input / Grid::ALL.len())?, Grid::ALL[input % Grid::ALL.len()]))
    }
}

/// Which way a series must go to be a risk.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    #[default]
    Both,
    Up,
    Down,
}

impl Direction {
    pub fn counts(self, distance: f64) -> bool {
        match self {
            Direction::Both => true,
            Direction::Up => distance > 0.0,
            Direction::Down => distance < 0.0,
        }
    }
}

/// How far the newest cells of a series are from what is usual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Surprise {
    /// What was seen, in the metric's unit.
    pub seen: f64,
    /// What is usual.
    pub usual: f64,
    /// From usual to seen, in deviations; below zero: less than usual.
    pub distance: f64,
    /// The distance that is critical. Never zero.
    pub limit: f64,
    /// What was measured, for a person.
    pub of: &'static str,
    /// Cells that held a value.
    pub cells: usize,
}

impl Surprise {
    /// Distance over limit: 1 is critical.
    pub fn ratio(&self) -> f64 {
        let ratio = self.distance.abs() / self.limit;
        if ratio.is_finite() { ratio } else { 0.0 }
    }
}

/// The limit of a series that has shown before how far it goes: what already happened within the window is no news, so
/// `margin` times the greatest distance is the limit where that is more than `least`.
pub fn limit(least: f64, margin: f64, record: f64) -> f64 {
    least.max(margin * record)
}

/// The deviation to measure by: not less than the metric's floor or a twentieth of what is usual, and never zero.
pub fn deviation(measured: f64, usual: f64, floor: f64) -> f64 {
    measured.max(usual.abs() / 20.0).max(floor).max(1e-9)
}

/// Refuses a number outside a range.
pub fn check_from(field: &str, value: f64, least: f64, most: f64) -> Result<(), String> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(format!("`{field}` is {value}; give a number from {least} to {most}"))
    }
}

/// Checks the settings that these scorers have in common.
pub fn check_limits(
    deviations_critical: f64,
    record_margin: f64,
    least_share: f64,
    recent_cells: u32,
) -> Result<(), String> {
    check_from("deviations_critical", deviations_critical, 0.1, 1_000.0)?;
    check_from("record_margin", record_margin, 0.0, 100.0)?;
    check_from("least_share", least_share, 0.05, 0.9)?;
    if (1..=36).contains(&recent_cells) {
        Ok(())
    } else {
        Err(format!("`recent_cells` is {recent_cells}; give a whole number from 1 to 36"))
    }
}

/// What such a scorer says of itself.
pub fn describe(name: &str, version: &str, summary: &str, schema: &str) -> Description {
    let input = |metric: Metric, grid: Grid| {
        let (name, unit, aggregation) = metric.input();
        let (window, step) = (grid.window_ms(), grid.step_ms());
        Input::Metric(MetricInput { name: name.into(), unit: unit.into(), window, step, aggregation })
    };
    Description {
        name: name.into(),
        version: version.into(),
        summary: summary.into(),
        inputs: Metric::ALL.into_iter().flat_map(|metric| Grid::ALL.map(|grid| input(metric, grid))).collect(),
        config_schema: schema.into(),
    }
}
