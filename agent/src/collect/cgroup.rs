//! What each top-level control group, and each workload's own, uses, is held to, and suffers: processor time and
//! throttling, memory with its limit and out-of-memory kills, I/O, processes, and pressure.
//!
//! From version 2 where it has the controllers, and from version 1 beside it where they still live there; pressure is
//! told by version 2 alone.

use super::source::{Missing, Sink, Source};
use crate::{act::control::cgroup::Cgroups, workloads::Registry};
use aether_core::{metric, subject::SubjectRef};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

const EVERY: Duration = Duration::from_secs(5);
/// Top-level groups that are told: those that used most processor time.
const GROUPS_MAXIMUM: usize = 6;
/// Workloads whose groups are told.
const WORKLOADS_MAXIMUM: usize = 16;
/// Top-level groups that are considered at all.
const CONSIDERED_MAXIMUM: usize = 256;
/// Version 1 writes a number beyond any machine where there is no limit.
const NO_LIMIT: u64 = 1 << 60;
/// Bytes read of one file.
const FILE_BYTES: usize = 64 << 10;

pub(super) struct ControlGroups {
    cgroups: Cgroups,
    registry: Arc<Registry>,
}

impl ControlGroups {
    pub(super) fn of(cgroups: Cgroups, registry: Arc<Registry>) -> Self {
        Self { cgroups, registry }
    }

    /// The top-level groups of all hierarchies, by name.
    fn top_level(&self) -> BTreeMap<String, Folders> {
        let mut names = BTreeSet::new();
        for controller in [None, Some("cpuacct"), Some("memory")] {
            let Some(entries) = self.cgroups.mounted(controller).and_then(|point| fs::read_dir(point).ok()) else {
                continue;
            };
            let folders = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            names.extend(folders.filter_map(|entry| entry.file_name().into_string().ok()).take(CONSIDERED_MAXIMUM));
        }
        let folders = |name: &str| {
            Folders::find(|controller| {
                self.cgroups.mounted(controller).map(|point| point.join(name)).filter(|folder| folder.is_dir())
            })
        };
        names.into_iter().take(CONSIDERED_MAXIMUM).map(|name| (name.clone(), folders(&name))).collect()
    }
}

impl Source for ControlGroups {
    fn name(&self) -> &str {
        "cgroup"
    }

    fn interval(&self) -> Option<Duration> {
        Some(EVERY)
    }

    fn sample(&mut self, into: &mut Sink<'_>) -> Result<(), Missing> {
        let mounted = |controller| self.cgroups.mounted(controller).is_some();
        if !mounted(None) && !mounted(Some("memory")) && !mounted(Some("cpuacct")) {
            return Err(Missing::new("no cgroup hierarchy is mounted, of version 2 nor of version 1"));
        }
        let mut groups: Vec<_> = self.top_level().into_iter().map(|(name, folders)| (name, folders.read())).collect();
        let used = |reading: &Reading| reading.cpu_s.unwrap_or_default();
        groups.sort_by(|(_, a), (_, b)| used(b).total_cmp(&used(a)));
        for (name, reading) in groups.iter().take(GROUPS_MAXIMUM) {
            reading.tell(into, &|into| SubjectRef::node(into.node.as_str()), Some(name));
        }
        let entries = self.registry.all();
        let with_root = entries.iter().filter_map(|entry| Some((entry.spec.id.as_str(), entry.root()?)));
        for (id, root) in with_root.take(WORKLOADS_MAXIMUM) {
            let folders = Folders::find(|controller| self.cgroups.folder_of(&root, controller));
            folders.read().tell(into, &|_| SubjectRef::workload(id), None);
        }
        // Where the controllers live in version 1, that took over.
        let controllers = self.cgroups.mounted(None).and_then(|point| text(point, "cgroup.controllers"));
        let lacks = |name: &str| !controllers.as_ref().is_some_and(|all| all.split_whitespace().any(|one| one == name));
        let lacking: Vec<&str> = ["cpu", "io", "memory", "pids"].into_iter().filter(|name| lacks(name)).collect();
        if lacking.is_empty() {
            return Ok(());
        }
        let reason = format!("the hierarchy of cgroup v2 has no controllers {}", lacking.join(", "));
        let one: Vec<&str> =
            ["cpuacct", "blkio", "memory", "pids"].into_iter().filter(|name| mounted(Some(name))).collect();
        let missing = Missing::new(reason);
        if one.is_empty() { Err(missing) } else { Err(missing.instead(format!("cgroup v1: {}", one.join(", ")))) }
    }
}

/// Where one group's files are.
#[derive(Debug, Default)]
struct Folders {
    two: Option<PathBuf>,
    cpu: Option<PathBuf>,
    cpuacct: Option<PathBuf>,
    memory: Option<PathBuf>,
    blkio: Option<PathBuf>,
    pids: Option<PathBuf>,
}

/// What they say; none: nothing.
#[derive(Debug, Default, PartialEq)]
struct Reading {
    cpu_s: Option<f64>,
    throttled_s: Option<f64>,
    memory: Option<f64>,
    memory_limit: Option<f64>,
    oom: Option<f64>,
    oom_kill: Option<f64>,
    io: Option<(f64, f64)>,
    pids: Option<f64>,
    pressure: [Option<f64>; 3],
}

const RESOURCES: [&str; 3] = ["cpu", "io", "memory"];

impl Folders {
    fn find(folder: impl Fn(Option<&str>) -> Option<PathBuf>) -> Self {
        Self {
            two: folder(None),
            cpu: folder(Some("cpu")),
            cpuacct: folder(Some("cpuacct")),
            memory: folder(Some("memory")),
            blkio: folder(Some("blkio")),
            pids: folder(Some("pids")),
        }
    }

    /// Each file once.
    fn read(&self) -> Reading {
        let mut reading = Reading::default();
        if let Some(two) = &self.two {
            reading.two(two);
        }
        reading.one(self);
        reading
    }
}

impl Reading {
    fn two(&mut self, folder: &Path) {
        // The root, and groups without the controller, have the first line of it all the same.
        if let Some(stat) = text(folder, "cpu.stat") {
            self.cpu_s = field(&stat, "usage_usec").map(|us| us / 1e6);
            self.throttled_s = field(&stat, "throttled_usec").map(|us| us / 1e6);
        }
        self.memory = number(folder, "memory.current");
        self.memory_limit = number(folder, "memory.max");
        if let Some(events) = text(folder, "memory.events") {
            (self.oom, self.oom_kill) = (field(&events, "oom"), field(&events, "oom_kill"));
        }
        self.io = text(folder, "io.stat").map(|stat| {
            let sum = |key: &str| {
                let values = stat.split_whitespace().filter_map(|word| word.strip_prefix(key)?.strip_prefix('='));
                values.filter_map(|value| value.parse::<f64>().ok()).sum()
            };
            (sum("rbytes"), sum("wbytes"))
        });
        self.pids = number(folder, "pids.current");
        for (index, resource) in RESOURCES.into_iter().enumerate() {
            self.pressure[index] = text(folder, &format!("{resource}.pressure")).and_then(|text| some(&text));
        }
    }

    /// What version 2 did not say.
    fn one(&mut self, folders: &Folders) {
        let cpu = folders.cpuacct.as_deref().filter(|_| self.cpu_s.is_none());
        self.cpu_s = self.cpu_s.or_else(|| Some(number(cpu?, "cpuacct.usage")? / 1e9));
        if let Some(cpu) = folders.cpu.as_deref().filter(|_| self.throttled_s.is_none()) {
            self.throttled_s = text(cpu, "cpu.stat").and_then(|stat| field(&stat, "throttled_time")).map(|ns| ns / 1e9);
        }
        if let Some(memory) = folders.memory.as_deref().filter(|_| self.memory.is_none()) {
            self.memory = number(memory, "memory.usage_in_bytes");
            self.memory_limit = number(memory, "memory.limit_in_bytes").filter(|limit| *limit < NO_LIMIT as f64);
            self.oom_kill = text(memory, "memory.oom_control").and_then(|text| field(&text, "oom_kill"));
        }
        if let Some(blkio) = folders.blkio.as_deref().filter(|_| self.io.is_none()) {
            self.io = text(blkio, "blkio.throttle.io_service_bytes").map(|stat| {
                let sum = |kind: &str| {
                    let lines = stat.lines().filter_map(|line| {
                        let mut words = line.split_whitespace().skip(1);
                        (words.next()? == kind).then(|| words.next()?.parse::<f64>().ok())?
                    });
                    lines.sum()
                };
                (sum("Read"), sum("Write"))
            });
        }
        self.pids = self.pids.or_else(|| number(folders.pids.as_deref()?, "pids.current"));
    }

    /// `group` names it where the subject does not.
    fn tell(&self, into: &mut Sink<'_>, subject: &dyn Fn(&Sink<'_>) -> SubjectRef, group: Option<&str>) {
        let mut tell = |metric: &str, unit: &str, part: Option<(&str, &str)>, value: Option<f64>| {
            if let Some(value) = value {
                let named = group.map(|group| ("cgroup", group));
                let attributes: Vec<(&str, &str)> = named.into_iter().chain(part).collect();
                let subject = subject(into);
                into.put(subject, metric, unit, &attributes, value);
            }
        };
        tell(metric::CGROUP_CPU_TIME, "s", None, self.cpu_s);
        // One that is not held to a quota was never throttled, and needs no series.
        tell(metric::CGROUP_THROTTLED_TIME, "s", None, self.throttled_s.filter(|s| *s > 0.0));
        tell(metric::CGROUP_MEMORY_USAGE, "By", None, self.memory);
        tell(metric::CGROUP_MEMORY_LIMIT, "By", None, self.memory_limit);
        tell(metric::CGROUP_MEMORY_EVENTS, "{event}", Some(("event", "oom")), self.oom.filter(|count| *count > 0.0));
        tell(metric::CGROUP_MEMORY_EVENTS, "{event}", Some(("event", "oom_kill")), self.oom_kill);
        let (read, written) = self.io.unzip();
        tell(metric::CGROUP_IO, "By", Some(("disk.io.direction", "read")), read);
        tell(metric::CGROUP_IO, "By", Some(("disk.io.direction", "write")), written);
        tell(metric::CGROUP_PIDS, "{process}", None, self.pids);
        for (resource, share) in RESOURCES.into_iter().zip(self.pressure) {
            tell(metric::CGROUP_PRESSURE, "1", Some(("resource", resource)), share);
        }
    }
}

fn text(folder: &Path, file: &str) -> Option<String> {
    let mut text = fs::read_to_string(folder.join(file)).ok()?;
    if text.len() > FILE_BYTES {
        // All of it is ASCII.
        text.truncate(FILE_BYTES);
    }
    Some(text)
}

/// A file of one number. `max` is none.
fn number(folder: &Path, file: &str) -> Option<f64> {
    text(folder, file)?.trim().parse::<u64>().ok().map(|value| value as f64)
}

/// The number behind a name, of lines `name number`.
fn field(text: &str, name: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    line.trim().parse::<u64>().ok().map(|value| value as f64)
}

/// The share of the last ten seconds in which some task waited.
fn some(pressure: &str) -> Option<f64> {
    let line = pressure.lines().find_map(|line| line.strip_prefix("some "))?;
    let average = line.split_whitespace().find_map(|word| word.strip_prefix("avg10="))?;
    Some(average.parse::<f64>().ok()? / 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::source::Readings;
    use aether_core::{id::NodeId, time::Time};

    fn write(folder: &Path, files: &[(&str, &str)]) {
        fs::create_dir_all(folder).unwrap();
        for (name, text) in files {
            fs::write(folder.join(name), text).unwrap();
        }
    }

    /// Readings of a tree, as `metric{attributes} value`, and how it stands.
    fn read(root: &Path, cgroups: Cgroups) -> (Vec<String>, Result<(), Missing>) {
        let registry = Arc::new(Registry::open(&root.join("workloads.json"), "boot".into()).unwrap());
        let mut readings = Readings::default();
        let node = NodeId::new("node-a");
        let mut sink = Sink { node: &node, at: Time(1_000), readings: &mut readings };
        let result = ControlGroups::of(cgroups, registry).sample(&mut sink);
        let line = |(key, samples): (&aether_core::telemetry::SeriesKey, &Vec<aether_core::telemetry::Sample>)| {
            let attributes: Vec<&str> = key.attributes.values().map(String::as_str).collect();
            format!("{}{{{}}} {}", key.metric, attributes.join(","), samples[0].value)
        };
        (readings.sorted().iter().map(line).collect(), result)
    }

    #[test]
    fn version_2_is_read_as_the_kernel_writes_it() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma\n")]);
        write(
            &root.path().join("system.slice"),
            &[
                (
                    "cpu.stat",
                    "usage_usec 4500000\nuser_usec 1\nsystem_usec 2\nnr_periods 9\nnr_throttled 3\nthrottled_usec 250000\n",
                ),
                ("memory.current", "1048576\n"),
                ("memory.max", "max\n"),
                ("memory.events", "low 0\nhigh 0\nmax 4\noom 2\noom_kill 1\noom_group_kill 0\n"),
                (
                    "io.stat",
                    "259:0 rbytes=100 wbytes=20 rios=1 wios=1 dbytes=0 dios=0\n8:0 rbytes=1 wbytes=2 rios=1 wios=1 dbytes=0 dios=0\n",
                ),
                ("pids.current", "42\n"),
                (
                    "cpu.pressure",
                    "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
                ),
            ],
        );
        let (lines, result) = read(root.path(), Cgroups::at(Some(root.path()), &[]));
        assert_eq!(result, Ok(()));
        assert_eq!(
            lines,
            [
                "aether.cgroup.cpu.throttled.time{system.slice} 0.25",
                "aether.cgroup.cpu.time{system.slice} 4.5",
                "aether.cgroup.io{system.slice,read} 101",
                "aether.cgroup.io{system.slice,write} 22",
                "aether.cgroup.memory.events{system.slice,oom} 2",
                "aether.cgroup.memory.events{system.slice,oom_kill} 1",
                "aether.cgroup.memory.usage{system.slice} 1048576",
                "aether.cgroup.pids{system.slice} 42",
                "aether.cgroup.pressure.some{system.slice,cpu} 0.125",
            ]
        );
    }

    #[test]
    fn version_1_takes_over_and_that_is_said() {
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        write(&at("unified"), &[("cgroup.controllers", "")]);
        write(&at("unified/job"), &[("memory.pressure", "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")]);
        write(&at("cpuacct/job"), &[("cpuacct.usage", "2500000000\n")]);
        write(&at("cpu/job"), &[("cpu.stat", "nr_periods 4\nnr_throttled 1\nthrottled_time 500000000\n")]);
        write(
            &at("memory/job"),
            &[
                ("memory.usage_in_bytes", "4096\n"),
                ("memory.limit_in_bytes", "8192\n"),
                ("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n"),
            ],
        );
        write(
            &at("memory/unlimited"),
            &[("memory.usage_in_bytes", "1\n"), ("memory.limit_in_bytes", "9223372036854771712\n")],
        );
        write(
            &at("blkio/job"),
            &[("blkio.throttle.io_service_bytes", "8:0 Read 7\n8:0 Write 9\n8:0 Total 16\nTotal 16\n")],
        );
        let (cpu, cpuacct, memory, blkio) = (at("cpu"), at("cpuacct"), at("memory"), at("blkio"));
        let one: [(&str, &Path); 4] = [("cpu", &cpu), ("cpuacct", &cpuacct), ("memory", &memory), ("blkio", &blkio)];
        let (lines, result) = read(root.path(), Cgroups::at(Some(&at("unified")), &one));
        assert_eq!(
            lines,
            [
                "aether.cgroup.cpu.throttled.time{job} 0.5",
                "aether.cgroup.cpu.time{job} 2.5",
                "aether.cgroup.io{job,read} 7",
                "aether.cgroup.io{job,write} 9",
                "aether.cgroup.memory.events{job,oom_kill} 3",
                "aether.cgroup.memory.limit{job} 8192",
                "aether.cgroup.memory.usage{job} 4096",
                "aether.cgroup.memory.usage{unlimited} 1",
                "aether.cgroup.pressure.some{job,memory} 0",
            ]
        );
        let missing = result.unwrap_err();
        assert!(missing.reason.contains("no controllers cpu, io, memory, pids"), "{missing}");
        assert_eq!(missing.fallback.as_deref(), Some("cgroup v1: cpuacct, blkio, memory"));
    }

    #[test]
    fn groups_are_bounded_and_nonsense_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), &[("cgroup.controllers", "cpu io memory pids")]);
        for index in 0..40 {
            let usage = format!("usage_usec {}000000\n", index);
            write(
                &root.path().join(format!("g{index}")),
                &[("cpu.stat", &usage), ("pids.current", "many\n"), ("io.stat", "\u{0}=?")],
            );
        }
        let (lines, result) = read(root.path(), Cgroups::at(Some(root.path()), &[]));
        assert_eq!(result, Ok(()));
        let cpu: Vec<_> = lines.iter().filter(|line| line.starts_with(metric::CGROUP_CPU_TIME)).collect();
        assert_eq!(cpu.len(), GROUPS_MAXIMUM);
        assert!(cpu.iter().any(|line| line.ends_with("{g39} 39")), "{cpu:?}");
        assert!(!lines.iter().any(|line| line.starts_with(metric::CGROUP_PIDS)), "{lines:?}");
        let (lines, result) = read(root.path(), Cgroups::default());
        assert!(lines.is_empty() && result.unwrap_err().reason.contains("no cgroup hierarchy"));
    }

    #[test]
    fn this_machine_tells_of_its_groups() {
        let root = tempfile::tempdir().unwrap();
        let (lines, result) = read(root.path(), Cgroups::probe());
        // One in a container without any is said to have none; all others tell.
        assert!(!lines.is_empty() || result.is_err(), "{lines:?}");
    }
}
