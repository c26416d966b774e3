//! Control groups as this machine has them: version 2, or version 1 beside it where the controllers still live there.
//!
//! A limit is set only in a cgroup that holds nothing but the workload: what shares one is not ours to limit.

use super::{
    Absent, runbook,
    settings::{Settings, Values},
};
use crate::{
    act::hands::Failure,
    process::{self, ProcessRef},
    workloads::Entry,
};
use aether_core::{catalogue::argument, value::Value};
use procfs::process::Process;
use rustix::process::Signal;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

/// Folders below a workload's cgroup that are looked into.
const FOLDERS_MAXIMUM: usize = 1_000;
/// The kernel takes no smaller quota.
const QUOTA_MINIMUM_US: f64 = 1_000.0;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Cpu,
    Memory,
    Pids,
    Freezer,
}

impl Kind {
    /// The controller's name, and the file that a version 2 cgroup has where it is enabled.
    fn names(self) -> (&'static str, &'static str) {
        match self {
            Kind::Cpu => ("cpu", "cpu.max"),
            Kind::Memory => ("memory", "memory.max"),
            Kind::Pids => ("pids", "pids.max"),
            Kind::Freezer => ("freezer", "cgroup.freeze"),
        }
    }
}

/// Where a hierarchy is mounted, and which of its folders that is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: PathBuf,
    root: PathBuf,
}

/// The hierarchies of this machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cgroups {
    two: Option<Mount>,
    /// Version 1, by controller.
    one: BTreeMap<String, Mount>,
}

impl Cgroups {
    pub fn probe() -> Self {
        let mut found = Self::default();
        let Ok(mounts) = Process::myself().and_then(|me| me.mountinfo()) else { return found };
        for mount in mounts {
            let place = Mount { point: mount.mount_point, root: PathBuf::from(mount.root) };
            match mount.fs_type.as_str() {
                "cgroup2" => found.two = found.two.or(Some(place)),
                "cgroup" => {
                    for controller in mount.super_options.into_keys() {
                        found.one.entry(controller).or_insert_with(|| place.clone());
                    }
                }
                _ => {}
            }
        }
        found
    }

    /// Hierarchies that are mounted at these places: version 2, and version 1 by controller.
    pub fn at(two: Option<&Path>, one: &[(&str, &Path)]) -> Self {
        let mount = |point: &Path| Mount { point: point.to_owned(), root: "/".into() };
        let one = one.iter().map(|(controller, point)| ((*controller).to_string(), mount(point))).collect();
        Self { two: two.map(mount), one }
    }

    /// Where the hierarchy of version 2 (none) or of a controller of version 1 is mounted.
    pub fn mounted(&self, controller: Option<&str>) -> Option<&Path> {
        self.mount(controller).map(|mount| mount.point.as_path())
    }

    fn mount(&self, controller: Option<&str>) -> Option<&Mount> {
        match controller {
            None => self.two.as_ref(),
            Some(controller) => self.one.get(controller),
        }
    }

    /// The folder of a process's cgroup in such a hierarchy, unless it is the root with everybody in it.
    pub fn folder_of(&self, process: &ProcessRef, controller: Option<&str>) -> Option<PathBuf> {
        let mount = self.mount(controller)?;
        let of = i32::try_from(process.pid).ok().and_then(|pid| Process::new(pid).ok()?.cgroups().ok())?;
        let group = of.0.iter().find(|group| match controller {
            None => group.hierarchy == 0,
            Some(controller) => group.controllers.iter().any(|name| name == controller),
        })?;
        let inside = Path::new(&group.pathname).strip_prefix(&mount.root).ok()?;
        (*inside != *Path::new("")).then(|| mount.point.join(inside))
    }

    /// Where the hierarchy with this controller is mounted, and whether it is of version 2: that one has it, or there is
    /// no other.
    pub fn hierarchy(&self, kind: Kind) -> Option<(&Path, bool)> {
        let (controller, _) = kind.names();
        let two = self.mounted(None);
        let in_two = two.is_some_and(|point| {
            let all = read(&point.join("cgroup.controllers")).unwrap_or_default();
            all.split_whitespace().any(|one| one == controller)
        });
        let one = self.mounted(Some(controller)).map(|point| (point, false));
        if in_two { None } else { one }.or(two.map(|point| (point, true)))
    }

    /// The folder of a process's cgroup in that hierarchy; none for the root, where everybody is.
    pub fn home(&self, process: &ProcessRef, kind: Kind) -> Option<PathBuf> {
        let (controller, _) = kind.names();
        let (_, two) = self.hierarchy(kind)?;
        self.folder_of(process, (!two).then_some(controller))
    }

    /// Whether processor time and memory can be limited here.
    pub fn can_limit(&self) -> Result<(), Absent> {
        let two = self.two.as_ref().map(|mount| read(&mount.point.join("cgroup.controllers")).unwrap_or_default());
        let has = |controller: &str| {
            let in_two = two.as_ref().is_some_and(|all| all.split_whitespace().any(|one| one == controller));
            in_two || self.one.contains_key(controller)
        };
        let missing: Vec<&str> = ["cpu", "memory"].into_iter().filter(|controller| !has(controller)).collect();
        if !missing.is_empty() {
            let reason = format!("no cgroup hierarchy has the controllers {}", missing.join(" and "));
            return Err(Absent::new(reason, "mount cgroup v2 with these controllers, on a kernel that has them"));
        }
        if !rustix::process::geteuid().is_root() {
            return Err(Absent::new(
                "cgroups are written by root, and the agent does not run as root",
                "run the agent as root",
            ));
        }
        Ok(())
    }

    /// The folder of a process's cgroup in the hierarchy that has this controller.
    fn folder(&self, process: &ProcessRef, kind: Kind) -> Result<(PathBuf, bool), Failure> {
        let (controller, file) = kind.names();
        let of = i32::try_from(process.pid).ok().and_then(|pid| Process::new(pid).ok()?.cgroups().ok());
        let of = of.ok_or_else(|| Failure::new("workload.state", "its process has ended"))?;
        let within = |mount: &Mount, path: &str| {
            let inside = Path::new(path).strip_prefix(&mount.root).ok()?;
            Some((mount.point.join(inside), *inside == *Path::new("")))
        };
        if let Some(mount) = &self.two
            && let Some(group) = of.0.iter().find(|group| group.hierarchy == 0)
            && let Some((folder, root)) = within(mount, &group.pathname)
            && (folder.join(file).is_file() || (root && !self.one.contains_key(controller)))
        {
            return Ok((folder, root));
        }
        let one = self.one.get(controller).and_then(|mount| {
            let group = of.0.iter().find(|group| group.controllers.iter().any(|name| name == controller))?;
            within(mount, &group.pathname)
        });
        one.filter(|_| kind != Kind::Freezer).ok_or_else(|| {
            Failure::new(
                "cgroup.controller",
                format!("the workload's cgroup does not have the controller `{controller}`"),
            )
        })
    }

    /// The workload's own cgroup: one that holds its tree and nobody else.
    pub fn own(&self, root: &ProcessRef, kind: Kind) -> Result<PathBuf, Failure> {
        let (folder, is_root) = self.folder(root, kind)?;
        let shared = |why: String| Err(Failure::new("cgroup.shared", why));
        if is_root {
            return shared(
                "the workload is in the root cgroup, with everybody else; start it in a cgroup of its own".into(),
            );
        }
        let mut tree: BTreeSet<u32> = root.descendants().iter().map(|process| process.pid).collect();
        tree.insert(root.pid);
        match processes(&folder)?.into_iter().find(|pid| !tree.contains(pid)) {
            Some(stranger) => shared(format!(
                "the process {stranger} is in the workload's cgroup and not of its tree; start the workload in a cgroup of its own"
            )),
            None => Ok(folder),
        }
    }

    /// Processors' worth of time that the cgroup of a process lets it have; none where it sets no limit.
    pub fn processors(&self, process: &ProcessRef) -> Option<f64> {
        let (folder, _) = self.folder(process, Kind::Cpu).ok()?;
        let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| *number > 0.0);
        match read(&folder.join("cpu.max")) {
            Ok(text) => {
                let (quota, period) = text.split_once(' ')?;
                Some(number(quota)? / number(period)?)
            }
            Err(_) => {
                let of = |name: &str| read(&folder.join(name)).ok().and_then(|text| number(&text));
                Some(of("cpu.cfs_quota_us")? / of("cpu.cfs_period_us")?)
            }
        }
    }

    /// Bytes of memory that the cgroup of a process lets it have; none where it sets no limit.
    pub fn memory(&self, process: &ProcessRef) -> Option<u64> {
        let (folder, _) = self.folder(process, Kind::Memory).ok()?;
        let limit = read(&folder.join("memory.max")).or_else(|_| read(&folder.join("memory.limit_in_bytes")));
        limit.ok()?.parse().ok()
    }

    pub fn limits_of(&self, entry: &Entry) -> Result<Limits, Failure> {
        let root = entry.root().ok_or_else(|| Failure::new("workload.state", "it has no process"))?;
        Ok(Limits { cpu: self.own(&root, Kind::Cpu), memory: self.own(&root, Kind::Memory) })
    }

    /// What the arguments of `cgroup.limit` mean in this workload's cgroup.
    pub fn limits_wanted(&self, entry: &Entry, arguments: &BTreeMap<String, Value>) -> Result<Values, Failure> {
        self.limits_of(entry)?.wanted(arguments)
    }
}

/// Every process below a cgroup.
fn processes(folder: &Path) -> Result<Vec<u32>, Failure> {
    let mut pids = Vec::new();
    let mut unseen = vec![folder.to_owned()];
    let mut looked = 0;
    while let Some(folder) = unseen.pop() {
        looked += 1;
        if looked > FOLDERS_MAXIMUM {
            return Err(Failure::new("cgroup.shared", "the workload's cgroup has too many below it to look at"));
        }
        // A cgroup that is gone by now has no process.
        let Ok(text) = read(&folder.join("cgroup.procs")) else { continue };
        pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
        let below = fs::read_dir(&folder).into_iter().flatten().flatten();
        unseen.extend(below.map(|entry| entry.path()).filter(|path| path.is_dir()));
    }
    Ok(pids)
}

/// A workload's limits, by the files of its own cgroup.
pub struct Limits {
    cpu: Result<PathBuf, Failure>,
    memory: Result<PathBuf, Failure>,
}

impl Limits {
    fn file(&self, name: &str) -> Result<PathBuf, Failure> {
        let folder = if name.starts_with("cpu.") { &self.cpu } else { &self.memory };
        Ok(folder.clone()?.join(name))
    }

    fn has(&self, name: &str) -> bool {
        self.file(name).is_ok_and(|file| file.is_file())
    }

    fn wanted(&self, arguments: &BTreeMap<String, Value>) -> Result<Values, Failure> {
        let mut wanted = Values::new();
        if let Some(cpus) = arguments.get(argument::CPUS).and_then(Value::as_f64) {
            let quota = |period: f64| (cpus * period).round().max(QUOTA_MINIMUM_US);
            if self.has("cpu.max") || self.cpu.is_err() {
                let now = self.read("cpu.max")?;
                let period = now.split_whitespace().nth(1).and_then(|period| period.parse().ok()).unwrap_or(100_000.0);
                wanted.insert("cpu.max".into(), format!("{} {period}", quota(period)));
            } else {
                let period = self.read("cpu.cfs_period_us")?.parse().unwrap_or(100_000.0);
                wanted.insert("cpu.cfs_quota_us".into(), format!("{}", quota(period)));
            }
        }
        let pages = |bytes: u64| bytes - bytes % procfs::page_size();
        if let Some(Value::Bytes(bytes)) = arguments.get(argument::MEMORY_HIGH) {
            if self.memory.is_ok() && !self.has("memory.high") {
                let why = "cgroup v1 has no `memory-high`; name `memory-max`, or use cgroup v2";
                return Err(Failure::new("cgroup.controller", why));
            }
            wanted.insert("memory.high".into(), pages(*bytes).to_string());
        }
        if let Some(Value::Bytes(bytes)) = arguments.get(argument::MEMORY_MAX) {
            let (limit, usage) = match self.has("memory.max") || self.memory.is_err() {
                true => ("memory.max", "memory.current"),
                false => ("memory.limit_in_bytes", "memory.usage_in_bytes"),
            };
            let used: u64 = self.read(usage)?.parse().unwrap_or(u64::MAX);
            if *bytes < used {
                let message = format!("the workload uses {used} bytes, and a limit of {bytes} would have it killed");
                return Err(Failure::new("cgroup.below-use", message));
            }
            wanted.insert(limit.into(), pages(*bytes).to_string());
        }
        if wanted.is_empty() {
            return Err(Failure::new("order.arguments", "no limit is named"));
        }
        for name in wanted.keys() {
            self.read(name)?;
        }
        Ok(wanted)
    }
}

impl Settings for Limits {
    fn read(&self, name: &str) -> Result<String, Failure> {
        read(&self.file(name)?)
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Failure> {
        write(&self.file(name)?, value)
    }
}

/// What a script may use.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub cpus: f64,
    pub memory_bytes: u64,
    pub pids: u64,
}

/// Period of a processor limit that is made here.
const PERIOD_US: f64 = 100_000.0;

impl Cgroups {
    /// Where a cgroup of this name is or would be, for each hierarchy that bounds need.
    fn places(&self, name: &str) -> Vec<(PathBuf, bool)> {
        let two = self.two.as_ref().map(|mount| read(&mount.point.join("cgroup.controllers")).unwrap_or_default());
        let mut places = Vec::new();
        for kind in [Kind::Cpu, Kind::Memory, Kind::Pids] {
            let (controller, _) = kind.names();
            let in_two = two.as_ref().is_some_and(|all| all.split_whitespace().any(|one| one == controller));
            let place = match (&self.two, self.one.get(controller)) {
                (Some(mount), _) if in_two => Some((mount.point.join(name), true)),
                (_, Some(mount)) => Some((mount.point.join(name), false)),
                (_, None) => None,
            };
            places.extend(place.filter(|place| !places.contains(place)));
        }
        places
    }

    /// A new cgroup with these bounds, all of them.
    pub fn make(&self, name: &str, bounds: &Bounds) -> Result<Made, Failure> {
        let Bounds { cpus, memory_bytes, pids } = *bounds;
        let quota = (cpus * PERIOD_US).round().max(QUOTA_MINIMUM_US);
        let made = Made { folders: vec![] };
        let made = self.places(name).into_iter().try_fold(made, |mut made, (folder, two)| {
            if let Some(parent) = folder.parent().filter(|_| two) {
                write(&parent.join("cgroup.subtree_control"), "+cpu +memory +pids")?;
            }
            match fs::create_dir(&folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(failure("made", &folder, &error)),
            }
            made.folders.push(folder);
            Ok(made)
        });
        let made = made?;
        let wanted = [
            [("cpu.max", format!("{quota} {PERIOD_US}")), ("cpu.cfs_quota_us", format!("{quota}"))],
            [("memory.max", memory_bytes.to_string()), ("memory.limit_in_bytes", memory_bytes.to_string())],
            [("pids.max", pids.to_string()), ("pids.max", pids.to_string())],
        ];
        for setting in wanted {
            let file = setting.iter().find_map(|(name, value)| Some((made.file(name)?, value)));
            let set = match file {
                Some((file, value)) => write(&file, value),
                None => Err(Failure::new("cgroup.controller", format!("no cgroup hierarchy has `{}`", setting[0].0))),
            };
            if let Err(failure) = set {
                made.remove(MADE_WITHIN);
                return Err(failure);
            }
        }
        Ok(made)
    }

    /// What an earlier agent made under this name, as far as it is there.
    pub fn found(&self, name: &str) -> Made {
        Made {
            folders: self.places(name).into_iter().map(|(folder, _)| folder).filter(|folder| folder.is_dir()).collect(),
        }
    }

    /// Whether a cgroup with bounds can be made here: tried.
    pub fn can_make(&self) -> Result<(), Absent> {
        let bounds = Bounds { cpus: 1.0, memory_bytes: 64 << 20, pids: 8 };
        let made = self.make(&format!("aether-probe-{}", std::process::id()), &bounds);
        let made = made.map_err(|failure| {
            Absent::new(
                format!("a cgroup with bounds cannot be made here: {failure}"),
                "run the agent as root where it may write the cgroup hierarchy, with the controllers cpu, memory and pids",
            )
        })?;
        made.remove(MADE_WITHIN);
        Ok(())
    }
}

/// How long an empty cgroup may take to go.
const MADE_WITHIN: Duration = Duration::from_secs(2);

/// A cgroup that this agent made, in each hierarchy.
pub struct Made {
    folders: Vec<PathBuf>,
}

impl Made {
    pub fn folders(&self) -> &[PathBuf] {
        &self.folders
    }

    /// A cgroup in it, without limits of its own, in each hierarchy.
    pub fn inside(&self, name: &str) -> Result<Vec<PathBuf>, Failure> {
        let make = |folder: &PathBuf| {
            // Version 2 has it, and controllers must be handed down there.
            let handing = folder.join("cgroup.subtree_control");
            if handing.is_file() {
                write(&handing, "+cpu +memory +pids")?;
            }
            let inner = folder.join(name);
            match fs::create_dir(&inner) {
                Ok(()) => Ok(inner),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(inner),
                Err(error) => Err(failure("made", &inner, &error)),
            }
        };
        self.folders.iter().map(make).collect()
    }

    pub fn remove_inside(&self, name: &str, within: Duration) {
        Made { folders: self.folders.iter().map(|folder| folder.join(name)).collect() }.remove(within);
    }

    fn file(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file())
    }

    /// Kills all that is in it. True once nothing is.
    pub fn kill(&self, within: Duration) -> bool {
        let gone = process::poll(within, || {
            let pids: Vec<u32> = self.folders.iter().filter_map(|folder| processes(folder).ok()).flatten().collect();
            let left = runbook::alive(&pids);
            for process in &left {
                let _ = process.signal(Signal::KILL);
            }
            left.is_empty().then_some(())
        });
        gone.is_some()
    }

    /// Whether the kernel killed something in it for want of memory.
    pub fn out_of_memory(&self) -> bool {
        let events = self.file("memory.events").or_else(|| self.file("memory.oom_control"));
        let text = events.and_then(|file| read(&file).ok()).unwrap_or_default();
        let killed = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
        killed.filter_map(|count| count.trim().parse::<u64>().ok()).any(|count| count > 0)
    }

    pub fn remove(&self, within: Duration) {
        for folder in &self.folders {
            let removed = process::poll(within, || match fs::remove_dir(folder) {
                Ok(()) => Some(()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Some(()),
                Err(_) => None,
            });
            if removed.is_none() {
                tracing::warn!(cgroup = %folder.display(), "a cgroup that is not needed any more could not be removed");
            }
        }
    }
}

/// A control file's text.
pub fn read(path: &Path) -> Result<String, Failure> {
    fs::read_to_string(path).map(|text| text.trim_end().to_string()).map_err(|error| failure("read", path, &error))
}

pub fn write(path: &Path, value: &str) -> Result<(), Failure> {
    // Opened, never created: a file that is not there is no setting.
    let written = fs::OpenOptions::new().write(true).truncate(true).open(path);
    let written = written.and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()));
    written.map_err(|error| failure("set", path, &error))
}

fn failure(what: &str, path: &Path, error: &io::Error) -> Failure {
    let code = match error.kind() {
        io::ErrorKind::PermissionDenied => "cgroup.permission",
        io::ErrorKind::NotFound => "cgroup.controller",
        _ => "cgroup.refused",
    };
    Failure::new(code, format!("{} cannot be {what}: {error}", path.display()))
}

#[cfg(test)]
mod tests;
