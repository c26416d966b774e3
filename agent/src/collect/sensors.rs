//! What the machine's own sensors say: temperatures, fans and power of its chips (hwmon), thermal zones, and energy that
//! the processors count themselves (RAPL, by powercap). Three sources; a virtual machine has none of them.

use super::source::{Missing, Sink, Source};
use aether_core::metric;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(10);
/// Chips, zones and domains that are told, each.
const SENSORS_MAXIMUM: usize = 8;

fn text(path: &Path) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_string())
}

fn number(path: &Path) -> Option<f64> {
    text(path)?.parse::<i64>().ok().map(|value| value as f64)
}

/// The folders in `root` whose names begin so, in order of their numbers.
fn folders(root: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut found: Vec<(usize, String, PathBuf)> = entries
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            name.starts_with(prefix).then(|| (name.len(), name, entry.path()))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, _, path)| path).collect()
}

/// Numbers those of one name, so that each is a series of its own.
#[derive(Default)]
struct Numbered(BTreeMap<String, usize>);

impl Numbered {
    fn name(&mut self, name: &str) -> String {
        let count = self.0.entry(name.into()).or_default();
        *count += 1;
        if *count == 1 { name.into() } else { format!("{name}-{count}") }
    }
}

/// Chips with temperatures, fans and power.
pub(super) struct Hwmon {
    root: PathBuf,
}

impl Hwmon {
    pub(super) fn at(sys: &Path) -> Self {
        Self { root: sys.join("class/hwmon") }
    }
}

impl Source for Hwmon {
    fn name(&self) -> &str {
        "hwmon"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let chips = folders(&self.root, "hwmon");
        let mut names = Numbered::default();
        let mut told = 0;
        for chip in chips.iter().take(SENSORS_MAXIMUM) {
            let name = names.name(&text(&chip.join("name")).unwrap_or_else(|| "chip".into()));
            let readings = |kind: &str, suffix: &str| -> Vec<f64> {
                let files = folders(chip, kind).into_iter().filter(|path| {
                    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.ends_with(suffix))
                });
                files.filter_map(|path| number(&path)).collect()
            };
            let attributes = [("hw.name", name.as_str())];
            // A chip has one for each core: the hottest is what counts. A fan that stands is the one that counts.
            let hottest = readings("temp", "_input").into_iter().reduce(f64::max).map(|milli| milli / 1e3);
            let slowest = readings("fan", "_input").into_iter().reduce(f64::min);
            let mut power = readings("power", "_average");
            if power.is_empty() {
                power = readings("power", "_input");
            }
            let power = power.into_iter().reduce(|a, b| a + b).map(|micro| micro / 1e6);
            for (metric, unit, value) in [
                (metric::HW_TEMPERATURE, "Cel", hottest),
                (metric::HW_FAN_SPEED, "rpm", slowest),
                (metric::HW_POWER, "W", power),
            ] {
                if let Some(value) = value {
                    into.node(metric, unit, &attributes, value);
                    told += 1;
                }
            }
        }
        if told > 0 {
            return Ok(());
        }
        Err(Missing::new(format!(
            "{} has no sensor: a virtual machine, or the modules for its chips (such as coretemp, k10temp) are not loaded",
            self.root.display()
        )))
    }
}

/// Zones that the firmware, or a driver, keeps at a temperature.
pub(super) struct Thermal {
    root: PathBuf,
}

impl Thermal {
    pub(super) fn at(sys: &Path) -> Self {
        Self { root: sys.join("class/thermal") }
    }
}

impl Source for Thermal {
    fn name(&self) -> &str {
        "thermal"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let mut names = Numbered::default();
        let mut told = 0;
        for zone in folders(&self.root, "thermal_zone").iter().take(SENSORS_MAXIMUM) {
            let kind = text(&zone.join("type")).unwrap_or_else(|| "zone".into());
            let name = names.name(&format!("zone-{kind}"));
            // One whose driver sleeps gives an error, and another time a number.
            if let Some(milli) = number(&zone.join("temp")) {
                into.node(metric::HW_TEMPERATURE, "Cel", &[("hw.name", name.as_str())], milli / 1e3);
                told += 1;
            }
        }
        if told > 0 {
            return Ok(());
        }
        Err(Missing::new(format!("{} has no thermal zone that tells its temperature", self.root.display())))
    }
}

/// Energy, by package and by the parts of one.
pub(super) struct Rapl {
    root: PathBuf,
    /// The last reading of each domain, and the joules since the first.
    domains: BTreeMap<PathBuf, (f64, f64)>,
}

impl Rapl {
    pub(super) fn at(sys: &Path) -> Self {
        Self { root: sys.join("class/powercap"), domains: BTreeMap::new() }
    }
}

impl Source for Rapl {
    fn name(&self) -> &str {
        "rapl"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let domains = folders(&self.root, "intel-rapl:");
        if domains.is_empty() {
            return Err(Missing::new(format!(
                "{} has no RAPL domain: the processor counts no energy, as in a virtual machine, or the module intel_rapl_msr is not loaded",
                self.root.display()
            )));
        }
        let mut names = Numbered::default();
        let mut denied = false;
        let mut told = 0;
        for domain in domains.iter().take(SENSORS_MAXIMUM) {
            let name = names.name(&text(&domain.join("name")).unwrap_or_else(|| "domain".into()));
            let read = match fs::read_to_string(domain.join("energy_uj")) {
                Ok(read) => read.trim().parse::<u64>().ok(),
                Err(error) => {
                    denied |= error.kind() == io::ErrorKind::PermissionDenied;
                    None
                }
            };
            let Some(now) = read.map(|micro| micro as f64) else { continue };
            let (before, joules) = self.domains.entry(domain.clone()).or_insert((now, 0.0));
            if now >= *before {
                *joules += (now - *before) / 1e6;
            } else if let Some(range) = number(&domain.join("max_energy_range_uj")) {
                // The counter began anew.
                *joules += (range - *before + now).max(0.0) / 1e6;
            }
            *before = now;
            into.node(metric::HW_ENERGY, "J", &[("hw.name", name.as_str())], *joules);
            told += 1;
        }
        match (told, denied) {
            (0, true) => {
                Err(Missing::new("RAPL's counters are for root alone (or CAP_DAC_READ_SEARCH): run the agent as root"))
            }
            (0, false) => Err(Missing::new("RAPL's domains tell no energy")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    fn sample(source: &mut dyn Source) -> (Vec<String>, Result<(), Missing>) {
        let mut readings = Readings::default();
        let node = NodeId::new("node-a");
        let result = source.sample(&mut Sink { node: &node, at: Time(1), readings: &mut readings });
        let line = |(key, samples): (aether_core::telemetry::SeriesKey, Vec<aether_core::telemetry::Sample>)| {
            format!("{}{{{}}} {}", key.metric, key.attributes["hw.name"], samples[0].value)
        };
        (readings.sorted().into_iter().map(line).collect(), result)
    }

    #[test]
    fn a_chip_tells_its_hottest_core_its_slowest_fan_and_its_power() {
        let sys = tempfile::tempdir().unwrap();
        write(
            sys.path(),
            &[
                ("class/hwmon/hwmon0/name", "coretemp\n"),
                ("class/hwmon/hwmon0/temp1_input", "41000\n"),
                ("class/hwmon/hwmon0/temp2_input", "73500\n"),
                ("class/hwmon/hwmon0/temp2_crit", "100000\n"),
                ("class/hwmon/hwmon1/name", "coretemp\n"),
                ("class/hwmon/hwmon1/temp1_input", "-5000\n"),
                ("class/hwmon/hwmon10/name", "nct6775\n"),
                ("class/hwmon/hwmon10/fan1_input", "1200\n"),
                ("class/hwmon/hwmon10/fan2_input", "0\n"),
                ("class/hwmon/hwmon10/power1_average", "15500000\n"),
                ("class/hwmon/hwmon10/power2_input", "99000000\n"),
                ("class/hwmon/hwmon10/temp1_input", "no number\n"),
            ],
        );
        let (lines, result) = sample(&mut Hwmon::at(sys.path()));
        assert_eq!(result, Ok(()));
        assert_eq!(
            lines,
            [
                "hw.fan.speed{nct6775} 0",
                "hw.power{nct6775} 15.5",
                "hw.temperature{coretemp} 73.5",
                "hw.temperature{coretemp-2} -5",
            ]
        );
    }

    #[test]
    fn zones_of_one_kind_are_numbered() {
        let sys = tempfile::tempdir().unwrap();
        write(
            sys.path(),
            &[
                ("class/thermal/thermal_zone0/type", "acpitz\n"),
                ("class/thermal/thermal_zone0/temp", "27800\n"),
                ("class/thermal/thermal_zone1/type", "acpitz\n"),
                ("class/thermal/thermal_zone1/temp", "29000\n"),
                ("class/thermal/cooling_device0/type", "Processor\n"),
            ],
        );
        let (lines, _) = sample(&mut Thermal::at(sys.path()));
        assert_eq!(lines, ["hw.temperature{zone-acpitz} 27.8", "hw.temperature{zone-acpitz-2} 29"]);
    }

    #[test]
    fn energy_is_counted_on_when_the_counter_begins_anew() {
        let sys = tempfile::tempdir().unwrap();
        let domain = "class/powercap/intel-rapl:0";
        let energy = |value: &str| write(sys.path(), &[(&format!("{domain}/energy_uj"), value)]);
        write(
            sys.path(),
            &[(&format!("{domain}/name"), "package-0\n"), (&format!("{domain}/max_energy_range_uj"), "10000000\n")],
        );
        energy("8000000\n");
        let mut rapl = Rapl::at(sys.path());
        let mut joules = |value: &str| {
            energy(value);
            sample(&mut rapl).0
        };
        assert_eq!(joules("8000000\n"), ["hw.energy{package-0} 0"]);
        assert_eq!(joules("9500000\n"), ["hw.energy{package-0} 1.5"]);
        assert_eq!(joules("500000\n"), ["hw.energy{package-0} 2.5"]);
        assert!(joules("broken\n").is_empty());
    }

    #[test]
    fn a_machine_without_sensors_says_what_lacks() {
        let sys = tempfile::tempdir().unwrap();
        let why = |source: &mut dyn Source| {
            let (lines, result) = sample(source);
            assert!(lines.is_empty());
            result.unwrap_err().reason
        };
        assert!(why(&mut Hwmon::at(sys.path())).contains("coretemp"));
        assert!(why(&mut Thermal::at(sys.path())).contains("thermal zone"));
        assert!(why(&mut Rapl::at(sys.path())).contains("intel_rapl_msr"));
    }
}
