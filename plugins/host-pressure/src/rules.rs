//! The rules, as plain functions of an observation.

use crate::{
    aether::plugin::types::{Aggregation, Column, Contribution, Level, Observation, Risk},
    exports::aether::plugin::scoring::Assessment,
};
use aether_plugin::{Check, check_positive, series};
use serde::Deserialize;

/// One minute, so that a moment's peak does not count.
pub(crate) const WINDOW_MS: u64 = 60_000;
pub(crate) const STEP_MS: u64 = 5_000;

/// What is read, in the order of the declared inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    Cpu,
    CpuCount,
    Load,
    Memory,
    Filesystem,
    DiskBusy,
    Pressure,
}

impl Signal {
    pub(crate) const ALL: [Signal; 7] = [
        Signal::Cpu,
        Signal::CpuCount,
        Signal::Load,
        Signal::Memory,
        Signal::Filesystem,
        Signal::DiskBusy,
        Signal::Pressure,
    ];

    /// Index of the declared input.
    pub(crate) fn input(self) -> u32 {
        self as u32
    }

    pub(crate) fn metric(self) -> (&'static str, &'static str, Aggregation) {
        match self {
            Signal::Cpu => ("system.cpu.utilization", "1", Aggregation::Mean),
            Signal::CpuCount => ("system.cpu.logical.count", "{cpu}", Aggregation::Last),
            Signal::Load => ("system.cpu.load_average.1m", "{thread}", Aggregation::Last),
            Signal::Memory => ("system.memory.utilization", "1", Aggregation::Mean),
            Signal::Filesystem => ("system.filesystem.utilization", "1", Aggregation::Last),
            Signal::DiskBusy => ("system.disk.io_time", "s", Aggregation::Rate),
            Signal::Pressure => ("aether.system.pressure.some", "1", Aggregation::Mean),
        }
    }
}

/// From where on a signal is elevated, high, critical. A step left out is never reached.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Steps {
    pub(crate) elevated: Option<f64>,
    pub(crate) high: Option<f64>,
    pub(crate) critical: Option<f64>,
}

impl Steps {
    const fn of(elevated: f64) -> Self {
        Self { elevated: Some(elevated), high: None, critical: None }
    }

    const fn all(elevated: f64, high: f64, critical: f64) -> Self {
        Self { elevated: Some(elevated), high: Some(high), critical: Some(critical) }
    }

    fn level(self, value: f64) -> Level {
        let over = |limit: Option<f64>| limit.is_some_and(|limit| value > limit);
        if over(self.critical) {
            Level::Critical
        } else if over(self.high) {
            Level::High
        } else if over(self.elevated) {
            Level::Elevated
        } else {
            Level::Low
        }
    }

    fn check(self, field: &str) -> Result<(), String> {
        let given: Vec<f64> = [self.elevated, self.high, self.critical].into_iter().flatten().collect();
        for value in &given {
            check_positive(field, *value)?;
        }
        if given.is_sorted() { Ok(()) } else { Err(format!("`{field}` must rise from elevated over high to critical")) }
    }
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) cpu: Steps,
    pub(crate) load_per_cpu: Steps,
    pub(crate) memory: Steps,
    pub(crate) filesystem: Steps,
    pub(crate) disk_busy: Steps,
    pub(crate) pressure_cpu: Steps,
    pub(crate) pressure_io: Steps,
    pub(crate) pressure_memory: Steps,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cpu: Steps::of(0.9),
            load_per_cpu: Steps::of(2.0),
            memory: Steps::all(0.85, 0.93, 0.97),
            filesystem: Steps::all(0.85, 0.95, 0.99),
            disk_busy: Steps::of(0.95),
            pressure_cpu: Steps::of(0.6),
            pressure_io: Steps::of(0.5),
            pressure_memory: Steps::all(0.1, 0.3, 0.5),
        }
    }
}

impl Check for Config {
    fn check(&self) -> Result<(), String> {
        let Config { cpu, load_per_cpu, memory, filesystem, disk_busy, pressure_cpu, pressure_io, pressure_memory } =
            self;
        cpu.check("cpu")?;
        load_per_cpu.check("load_per_cpu")?;
        memory.check("memory")?;
        filesystem.check("filesystem")?;
        disk_busy.check("disk_busy")?;
        pressure_cpu.check("pressure_cpu")?;
        pressure_io.check("pressure_io")?;
        pressure_memory.check("pressure_memory")
    }
}

/// One thing seen, against its thresholds.
struct Reading {
    signal: Signal,
    /// The cause's last word, such as `memory`.
    code: &'static str,
    level: Level,
    note: String,
}

/// Mean of what was sampled within the window.
fn recent(column: &Column) -> Option<f64> {
    series::mean(&series::sampled(&column.values))
}

fn readings(observation: &Observation, config: &Config) -> Vec<Reading> {
    let columns = |signal: Signal| observation.columns.iter().filter(move |column| column.input == signal.input());
    let newest = |signal: Signal| columns(signal).find_map(|column| series::last(&column.values));
    let mut readings = Vec::new();
    let mut read = |signal, code, value: Option<f64>, steps: Steps, tell: &dyn Fn(f64) -> String| {
        if let Some(value) = value {
            readings.push(Reading { signal, code, level: steps.level(value), note: tell(value) });
        }
    };
    let percent = |what: &'static str| move |value: f64| format!("{what} {:.1} %", value * 100.0);
    read(Signal::Cpu, "cpu", columns(Signal::Cpu).find_map(recent), config.cpu, &percent("CPU"));
    let load_per_cpu = newest(Signal::CpuCount)
        .filter(|count| *count >= 1.0)
        .and_then(|count| newest(Signal::Load).map(|load| load / count));
    let tell_load = |value: f64| format!("load {value:.1} a CPU");
    read(Signal::Load, "load", load_per_cpu, config.load_per_cpu, &tell_load);
    read(Signal::Memory, "memory", columns(Signal::Memory).find_map(recent), config.memory, &percent("memory"));
    let fullest = columns(Signal::Filesystem).filter_map(|column| series::last(&column.values)).reduce(f64::max);
    read(Signal::Filesystem, "filesystem", fullest, config.filesystem, &percent("file system"));
    let busiest = columns(Signal::DiskBusy).filter_map(recent).reduce(f64::max);
    read(Signal::DiskBusy, "disk-busy", busiest, config.disk_busy, &percent("busiest disk"));
    for column in columns(Signal::Pressure) {
        let resource = column.attributes.iter().find(|attribute| attribute.key == "resource");
        let (code, steps, what) = match resource.map(|attribute| attribute.value.as_str()) {
            Some("cpu") => ("pressure-cpu", config.pressure_cpu, "waiting for CPU"),
            Some("io") => ("pressure-io", config.pressure_io, "waiting for I/O"),
            Some("memory") => ("pressure-memory", config.pressure_memory, "waiting for memory"),
            Some(_) | None => continue,
        };
        read(Signal::Pressure, code, recent(column), steps, &percent(what));
    }
    readings
}

/// The whole decision.
pub(crate) fn assess(observation: &Observation, config: &Config) -> Assessment {
    let readings = readings(observation, config);
    let known = |signal: Signal| readings.iter().any(|reading| reading.signal == signal);
    if !known(Signal::Cpu) && !known(Signal::Memory) {
        return Assessment::Insufficient("neither CPU nor memory was sampled within the last minute".into());
    }
    let grade = |level: Level| match level {
        Level::Low => 0.02,
        Level::Elevated => 0.2,
        Level::High => 0.6,
        Level::Critical => 0.9,
    };
    let level = readings.iter().map(|reading| reading.level).max_by_key(|level| *level as u8).unwrap_or(Level::Low);
    let node = &observation.subject.id;
    let told = |wanted: Level| {
        let notes: Vec<&str> =
            readings.iter().filter(|reading| reading.level == wanted).map(|reading| reading.note.as_str()).collect();
        notes.join(", ")
    };
    let (cause, reason) = match readings.iter().find(|reading| reading.level == level) {
        Some(worst) if level != Level::Low => {
            let words = match level {
                Level::Critical => "is exhausted",
                Level::High => "is close to exhaustion",
                Level::Elevated | Level::Low => "is busy",
            };
            (format!("host.{}", worst.code), format!("{node} {words}: {}.", told(level)))
        }
        Some(_) | None => ("host.calm".to_owned(), format!("{node} has room: {}.", told(Level::Low))),
    };
    // All seven kinds of readings seen at their number of eight at least: sure. Fewer: less.
    let confidence = (0.5 + 0.05 * readings.len() as f64).min(0.9);
    let horizon = matches!(level, Level::Critical).then_some(300_000);
    let contributions = readings
        .iter()
        .map(|reading| Contribution {
            input: reading.signal.input(),
            weight: grade(reading.level),
            note: reading.note.clone(),
        })
        .collect();
    Assessment::Risk(Risk { level, score: grade(level), confidence, horizon, cause, reason, contributions })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aether::plugin::types::{Attribute, Subject, SubjectKind};

    fn observed(readings: &[(Signal, Option<&str>, f64)]) -> Observation {
        let columns = readings
            .iter()
            .map(|(signal, resource, value)| Column {
                input: signal.input(),
                attributes: resource
                    .iter()
                    .map(|resource| Attribute { key: "resource".into(), value: (*resource).into() })
                    .collect(),
                start: 0,
                step: STEP_MS,
                values: vec![*value; 12],
            })
            .collect();
        let subject = Subject { kind: SubjectKind::Node, id: "node-a".into(), generation: 1, labels: vec![] };
        Observation { subject, at: 60_000, columns, events: vec![] }
    }

    fn risk(observation: &Observation) -> Risk {
        match assess(observation, &Config::default()) {
            Assessment::Risk(risk) => risk,
            Assessment::Insufficient(missing) => panic!("insufficient: {missing}"),
        }
    }

    #[test]
    fn a_busy_machine_is_at_most_elevated() {
        let busy = observed(&[
            (Signal::Cpu, None, 1.0),
            (Signal::CpuCount, None, 2.0),
            (Signal::Load, None, 8.0),
            (Signal::Memory, None, 0.8),
            (Signal::Filesystem, None, 0.7),
            (Signal::DiskBusy, None, 1.0),
            (Signal::Pressure, Some("cpu"), 0.99),
            (Signal::Pressure, Some("io"), 0.9),
            (Signal::Pressure, Some("memory"), 0.02),
        ]);
        let risk = risk(&busy);
        assert_eq!((risk.level, risk.cause.as_str()), (Level::Elevated, "host.cpu"));
        assert_eq!(risk.contributions.len(), 8);
    }

    #[test]
    fn memory_is_what_kills() {
        let at = |memory: f64, pressure: f64| {
            let observation = observed(&[
                (Signal::Cpu, None, 0.1),
                (Signal::Memory, None, memory),
                (Signal::Pressure, Some("memory"), pressure),
            ]);
            let risk = risk(&observation);
            (risk.level, risk.cause)
        };
        assert_eq!(at(0.5, 0.0), (Level::Low, "host.calm".into()));
        assert_eq!(at(0.94, 0.0), (Level::High, "host.memory".into()));
        assert_eq!(at(0.971, 0.0), (Level::Critical, "host.memory".into()));
        assert_eq!(at(0.5, 0.51), (Level::Critical, "host.pressure-memory".into()));
    }

    #[test]
    fn a_threshold_itself_is_not_over_it() {
        assert_eq!(Steps::all(0.1, 0.2, 0.3).level(0.3), Level::High);
    }

    #[test]
    fn without_cpu_and_memory_nothing_is_said() {
        let assessment = assess(&observed(&[(Signal::Filesystem, None, 0.999)]), &Config::default());
        assert!(matches!(assessment, Assessment::Insufficient(_)));
    }

    #[test]
    fn thresholds_must_rise() {
        let error = aether_plugin::parse::<Config>(r#"{"memory":{"elevated":0.9,"critical":0.5}}"#).unwrap_err();
        assert_eq!(error, "`memory` must rise from elevated over high to critical");
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
}
