//! Each disturbance, made and undone. Undoing works from the record alone, so that it is the same after a crash.

use super::{Record, Settings, Stage, disk, disturb};
use crate::{
    act::control::cgroup::{Bounds, Cgroups},
    clock,
    process::ProcessRef,
    workloads::{Body, Entry, Registry, State, Tcp},
};
use aether_core::{
    drill::Kind,
    id::WorkloadId,
    snapshot::{Tier, WorkloadSpec},
};
use std::{
    fs, io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

/// The most that a leaking process can ever have, whatever limits it gets: its cgroup's parent ends it there.
const LEAK_BYTES: u64 = 512 << 20;
const CHILDREN: u64 = 64;
/// Bytes of the file system that fills up.
const DISK_BYTES: u64 = 64 << 20;
/// How long the end of a process, and of an empty cgroup, may take.
const END_WITHIN: Duration = Duration::from_secs(5);
/// The stand-in's word for a GPU that is off the bus.
const LOST: &str = "fail lost";

pub(super) struct Maker {
    pub(super) settings: Settings,
    pub(super) state: PathBuf,
    pub(super) registry: Arc<Registry>,
    pub(super) cgroups: Cgroups,
    pub(super) stage: Stage,
}

fn workload(kind: Kind) -> WorkloadId {
    WorkloadId(format!("drill-{}", kind.name()))
}

impl Maker {
    /// What is overwritten, for the record.
    pub(super) fn former(&self, kind: Kind) -> Option<String> {
        let path = self.settings.nvml_stand_in.as_ref().filter(|_| kind == Kind::GpuLost)?;
        fs::read_to_string(path).ok()
    }

    /// Why it could not be made; then what was made of it is to be undone.
    pub(super) fn make(&self, record: &Record) -> Result<(), String> {
        let made = match record.kind {
            Kind::SpotReclaim | Kind::HostDeath => Ok(()),
            Kind::MemoryLeak | Kind::NoisyNeighbour => self.process(record),
            Kind::DiskFilling => self.filling(record),
            Kind::GpuLost => self.lose_gpu(record),
        };
        made.map_err(|error| format!("it could not be begun: {error}"))
    }

    /// Undoes it; what is left, if anything.
    pub(super) fn undo(&self, record: &Record) -> Option<String> {
        match record.kind {
            Kind::SpotReclaim | Kind::HostDeath => None,
            Kind::MemoryLeak | Kind::NoisyNeighbour => self.end_process(record),
            Kind::DiskFilling => self.unmount(),
            Kind::GpuLost => self.find_gpu(record),
        }
    }

    fn process(&self, record: &Record) -> io::Result<()> {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let bounds = Bounds { cpus: cpus as f64, memory_bytes: LEAK_BYTES, pids: CHILDREN };
        let outer =
            self.cgroups.make(&group(record), &bounds).map_err(|failure| io::Error::other(failure.to_string()))?;
        // One of its own inside, without a limit: what is to be limited must not be what bounds the drill.
        let inner = outer.inside("workload").map_err(|failure| io::Error::other(failure.to_string()))?;
        let what = if record.kind == Kind::MemoryLeak { disturb::MEMORY } else { disturb::PROCESSOR };
        let child = Command::new(std::env::current_exe()?)
            .args(["disturb", what, "--until-ms", &record.until.0.to_string()])
            .args(&inner)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pid = child.id();
        self.registry.watch_over(child);
        let root = ProcessRef::find(pid).ok_or_else(|| io::Error::other("its process ended at once"))?;
        let id = workload(record.kind);
        let spec = WorkloadSpec {
            name: format!("Drill: {}", record.kind.name()),
            id: id.clone(),
            tier: Tier::BestEffort,
            command: vec![],
            progress_file: None,
        };
        self.stage.set(|set| set.workload = Some((id.clone(), record.kind)));
        let generation = self.registry.generation(&id).map_or(1, |generation| generation + 1);
        let body = Body::Process { root, namespace: None };
        let entry = Entry {
            spec,
            generation,
            state: State::Running,
            since: clock::now(),
            body,
            adopted: false,
            tcp: Tcp::Refuse,
        };
        self.registry.put(entry).map_err(io::Error::other)
    }

    fn end_process(&self, record: &Record) -> Option<String> {
        let id = workload(record.kind);
        let mut left = Vec::new();
        if let Some(entry) = self.registry.get(&id) {
            match entry.end(END_WITHIN) {
                Ok(true) => {}
                Ok(false) => left.push(format!("the process of {id} does not end")),
                Err(error) => left.push(format!("the process of {id}: {error}")),
            }
            if let Err(error) = self.registry.depart(&id, entry.generation) {
                left.push(format!("that {id} is gone could not be kept: {error}"));
            }
        }
        let outer = self.cgroups.found(&group(record));
        if !outer.kill(END_WITHIN) {
            left.push("a process in the drill's cgroup does not end".into());
        }
        outer.remove_inside("workload", END_WITHIN);
        outer.remove(END_WITHIN);
        left.extend(outer.folders().iter().filter(|folder| folder.is_dir()).map(|folder| folder.display().to_string()));
        self.stage.set(|set| set.workload = None);
        said(left)
    }

    fn filling(&self, record: &Record) -> io::Result<()> {
        let folder = disk(&self.state);
        fs::create_dir_all(&folder)?;
        let size = format!("size={DISK_BYTES},mode=700");
        run("mount", &["-t", "tmpfs", "-o", &size, "aether-drill"], &folder)?;
        self.stage.set(|set| set.filesystem = Some(folder.clone()));
        let until = record.until;
        std::thread::Builder::new()
            .name("drill-disk".into())
            // It ends with the file system, with its time, and when all is full.
            .spawn(move || disturb::fill(&folder, until))?;
        Ok(())
    }

    fn unmount(&self) -> Option<String> {
        let folder = disk(&self.state);
        self.stage.set(|set| set.filesystem = None);
        if is_mounted(&folder) {
            // The writer may have its file open for one more moment.
            let _ = run("umount", &["-l"], &folder);
        }
        if is_mounted(&folder) {
            return Some(format!("{} is still mounted", folder.display()));
        }
        match fs::remove_dir(&folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Some(format!("{}: {error}", folder.display())),
            Ok(()) | Err(_) => None,
        }
    }

    fn lose_gpu(&self, record: &Record) -> io::Result<()> {
        let (path, former) = self.stand_in(record)?;
        self.stage.set(|set| set.gpu = true);
        let text: String =
            former.lines().filter(|line| !line.starts_with("fail ")).map(|line| format!("{line}\n")).collect();
        replace(path, &format!("{text}{LOST}\n"))
    }

    /// Puts the GPU back, and leaves alone what an action has set meanwhile.
    fn find_gpu(&self, record: &Record) -> Option<String> {
        self.stage.set(|set| set.gpu = false);
        let put_back = self.stand_in(record).and_then(|(path, former)| {
            let now = fs::read_to_string(path)?;
            let failed = former.lines().filter(|line| line.starts_with("fail "));
            let kept = now.lines().filter(|line| !line.starts_with("fail ")).chain(failed);
            replace(path, &kept.map(|line| format!("{line}\n")).collect::<String>())
        });
        put_back.err().map(|error| format!("the stand-in for NVML could not be put back: {error}"))
    }

    fn stand_in<'a>(&'a self, record: &'a Record) -> io::Result<(&'a Path, &'a str)> {
        let found = self.settings.nvml_stand_in.as_deref().zip(record.former.as_deref());
        found.ok_or_else(|| io::Error::other("the stand-in's state cannot be read"))
    }
}

fn group(record: &Record) -> String {
    format!("aether-{}", record.drill)
}

fn said(left: Vec<String>) -> Option<String> {
    (!left.is_empty()).then(|| left.join("; "))
}

fn replace(path: &Path, text: &str) -> io::Result<()> {
    let beside = path.with_extension("drill");
    fs::write(&beside, text)?;
    fs::rename(&beside, path)
}

fn run(program: &str, arguments: &[&str], folder: &Path) -> io::Result<()> {
    let done = Command::new(program).args(arguments).arg(folder).stdin(Stdio::null()).output()?;
    if done.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program}: {}", String::from_utf8_lossy(&done.stderr).trim())))
}

fn is_mounted(folder: &Path) -> bool {
    let mounts = procfs::process::Process::myself().and_then(|me| me.mountinfo());
    mounts.is_ok_and(|mounts| mounts.into_iter().any(|mount| mount.mount_point == folder))
}
