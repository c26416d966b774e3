//! The workloads under this agent: started, adopted or restored, and durable, so that an agent that restarts finds
//! them and never starts one twice or one that has moved away.
//!
//! A workload has a generation that rises whenever it is replaced (a restore, a start after its end), so that an order
//! meant for the former one is refused. What has left is remembered by its generation alone.

use crate::{
    clock,
    config::Declared,
    durable,
    process::{self, Condition, ProcessRef},
};
use aether_core::{id::WorkloadId, snapshot::WorkloadSpec, time::Time};
use aether_proto::v1;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::sync::watch;
use tracing::{info, warn};

/// Workloads that have left and are still remembered; beyond it the oldest are forgotten.
const DEPARTED_MAXIMUM: usize = 10_000;
/// Bytes at the end of a progress file that are looked at.
const PROGRESS_TAIL_BYTES: u64 = 4_096;
/// How fast a simulated workload counts.
const SIMULATED_STEP_MS: u64 = 100;
/// How long the end of a workload may take when the agent ends it.
const END_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum Error {
    #[error(transparent)]
    Durable(#[from] durable::Error),
    #[error("the workload `{workload}` cannot be started: {source}")]
    Start { workload: WorkloadId, source: io::Error },
    #[error("the workload `{workload}` cannot be adopted: no process has the pid {pid}")]
    NoProcess { workload: WorkloadId, pid: u32 },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub spec: WorkloadSpec,
    pub generation: u64,
    pub state: State,
    /// Since when it is in that state.
    pub since: Time,
    pub body: Body,
    pub adopted: bool,
    /// What becomes of its TCP connections in a copy.
    #[serde(default)]
    pub tcp: Tcp,
}

/// What becomes of a workload's established TCP connections when it is dumped.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tcp {
    /// It is not dumped while it has one.
    #[default]
    Refuse,
    /// Its copy finds them closed. The source keeps them.
    Close,
    /// They move, with the address that they are of.
    Move(Moving),
}

/// An address that belongs to a workload and moves with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moving {
    pub address: Ipv4Addr,
    /// Bits of the address that are its subnet's.
    pub prefix: u8,
    /// What the address is on, of this name on every machine that the workload may move to.
    pub interface: String,
}

impl fmt::Display for Moving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// An output file of a workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stream {
    Out,
    Err,
}

/// The files that a workload's output goes to, in a folder of the agent's state.
pub fn outputs(folder: &Path, id: &WorkloadId) -> [(PathBuf, Stream); 2] {
    [("out", Stream::Out), ("err", Stream::Err)].map(|(ending, stream)| (folder.join(format!("{id}.{ending}")), stream))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Running,
    Stopped,
    Exited,
}

/// What a workload is made of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Body {
    Process {
        root: ProcessRef,
        /// Set for a restored one, which lives in pid and mount namespaces of its own.
        namespace: Option<Namespace>,
    },
    /// A counter in this agent's mind: `base` steps at `since`.
    Simulated { base: u64, since: Time },
    /// Nothing is left of it.
    Gone,
}

/// The namespaces that a restore made. They end with their first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Namespace {
    /// CRIU, which stays as the namespace's init. Killing it ends all that is inside.
    pub init: ProcessRef,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Book {
    /// Pids mean nothing after a boot.
    boot: String,
    workloads: BTreeMap<WorkloadId, Entry>,
    departed: BTreeMap<WorkloadId, Departed>,
    /// Those that the agent ended because it ended itself: begun anew at its next start, wherever they were declared.
    #[serde(default)]
    ended: BTreeSet<WorkloadId>,
    /// Those that were ended while they were stopped for a move: a copy may live elsewhere, so they are not begun anew.
    #[serde(default)]
    held: BTreeSet<WorkloadId>,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Departed {
    generation: u64,
    at: Time,
}

/// How a workload is doing.
#[derive(Clone, Debug)]
pub struct Vital {
    pub id: WorkloadId,
    pub running: bool,
    /// User and system seconds.
    pub cpu: Option<(f64, f64)>,
    pub resident_bytes: Option<u64>,
    pub progress: Option<u64>,
}

#[derive(Debug)]
pub struct Registry {
    path: PathBuf,
    book: Mutex<Book>,
    /// Counts changes, so that the uplink knows when to report.
    changes: watch::Sender<u64>,
    /// Processes that this agent began and must bury when they end.
    offspring: Mutex<Vec<Child>>,
}

impl Registry {
    /// `boot` is the kernel's id of this boot.
    pub fn open(path: &Path, boot: String) -> Result<Self, Error> {
        let mut book: Book = durable::read(path)?.unwrap_or_default();
        if book.boot != boot {
            for entry in book.workloads.values_mut().filter(|entry| entry.body != Body::Gone) {
                entry.body = Body::Gone;
                entry.state = State::Exited;
                entry.since = clock::now();
            }
            book.boot = boot;
        }
        let registry = Self {
            path: path.to_owned(),
            book: Mutex::new(book),
            changes: watch::Sender::new(0),
            offspring: Mutex::default(),
        };
        registry.save(&registry.lock())?;
        Ok(registry)
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn save(&self, book: &Book) -> Result<(), Error> {
        durable::write(&self.path, book)?;
        self.changes.send_modify(|count| *count += 1);
        Ok(())
    }

    /// Wakes whenever [`Self::report`] would say something else.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// The workload as it is now.
    pub fn get(&self, id: &WorkloadId) -> Option<Entry> {
        self.refresh(clock::now());
        self.lock().workloads.get(id).cloned()
    }

    pub fn all(&self) -> Vec<Entry> {
        self.lock().workloads.values().cloned().collect()
    }

    /// The highest generation that is known here, of a workload that is here or was.
    pub fn generation(&self, id: &WorkloadId) -> Option<u64> {
        let book = self.lock();
        let here = book.workloads.get(id).map(|entry| entry.generation);
        here.max(book.departed.get(id).map(|departed| departed.generation))
    }

    /// Puts a workload in, or in the place of the former of that id. Durable when this returns.
    pub fn put(&self, entry: Entry) -> Result<(), Error> {
        let mut book = self.lock();
        book.departed.remove(&entry.spec.id);
        book.held.remove(&entry.spec.id);
        book.workloads.insert(entry.spec.id.clone(), entry);
        self.save(&book)
    }

    /// Takes a workload out and remembers that it left. Durable when this returns.
    pub fn depart(&self, id: &WorkloadId, generation: u64) -> Result<(), Error> {
        let mut book = self.lock();
        book.workloads.remove(id);
        book.held.remove(id);
        book.departed.insert(id.clone(), Departed { generation, at: clock::now() });
        while book.departed.len() > DEPARTED_MAXIMUM {
            let oldest = book.departed.iter().min_by_key(|(_, departed)| departed.at).map(|(id, _)| id.clone());
            let Some(oldest) = oldest else { break };
            book.departed.remove(&oldest);
        }
        self.save(&book)
    }

    /// Hands over a process that must be buried when it ends.
    pub fn watch_over(&self, child: Child) {
        self.offspring.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }

    /// Starts or adopts what the configuration declares, unless it is here already or has moved away. One that cannot
    /// be started is told, and keeps no other from starting.
    pub fn begin(&self, declared: &[Declared], output: &Path, simulate: bool) {
        for declared_workload in declared {
            let id = &declared_workload.spec.id;
            let former = self.get(id);
            if self.lock().departed.contains_key(id) {
                info!(workload.id = %id, "has moved away and is not started again");
                continue;
            }
            if let Some(former) = former.as_ref().filter(|entry| entry.state != State::Exited) {
                info!(workload.id = %id, "runs already");
                let tcp = &declared_workload.tcp;
                if former.tcp != *tcp
                    && let Err(error) = self.put(Entry { tcp: tcp.clone(), ..former.clone() })
                {
                    warn!(workload.id = %id, %error, "what becomes of its TCP connections could not be kept");
                }
                continue;
            }
            if self.lock().held.contains(id) {
                warn!(workload.id = %id, "was ended in the middle of a move, and a copy may live; it is not started again");
                continue;
            }
            self.begin_one(declared_workload, former.map_or(1, |entry| entry.generation + 1), output, simulate);
        }
        let ended = std::mem::take(&mut self.lock().ended);
        for entry in ended.iter().filter_map(|id| self.get(id)).filter(|entry| entry.state == State::Exited) {
            if simulate || !entry.spec.command.is_empty() {
                let again = Declared { spec: entry.spec.clone(), adopt_pid: None, tcp: entry.tcp.clone() };
                self.begin_one(&again, entry.generation + 1, output, simulate);
            }
        }
    }

    fn begin_one(&self, declared: &Declared, generation: u64, output: &Path, simulate: bool) {
        let Declared { spec, adopt_pid, tcp } = declared;
        let id = &spec.id;
        let now = clock::now();
        let body = match adopt_pid {
            _ if simulate => Ok(Body::Simulated { base: 0, since: now }),
            Some(pid) => ProcessRef::find(*pid)
                .map(|root| Body::Process { root, namespace: None })
                .ok_or_else(|| Error::NoProcess { workload: id.clone(), pid: *pid }),
            None => self
                .start(spec, output)
                .map(|root| Body::Process { root, namespace: None })
                .map_err(|source| Error::Start { workload: id.clone(), source }),
        };
        let begun = body.and_then(|body| {
            let adopted = adopt_pid.is_some();
            let (spec, tcp) = (spec.clone(), tcp.clone());
            self.put(Entry { spec, generation, state: State::Running, since: now, body, adopted, tcp })
        });
        match begun {
            Ok(()) => info!(workload.id = %id, generation, "begun"),
            Err(error) => warn!(workload.id = %id, %error, "not begun; the agent goes on without it"),
        }
    }

    /// In a session of its own and with its streams on files: so that it outlives the agent, and CRIU can take it.
    fn start(&self, spec: &WorkloadSpec, output: &Path) -> io::Result<ProcessRef> {
        let append = |(path, _): &(PathBuf, Stream)| OpenOptions::new().create(true).append(true).open(path);
        let [out, err] = &outputs(output, &spec.id);
        let child = Command::new("setsid")
            .args(&spec.command)
            .current_dir("/")
            .env_remove("AETHER_JOIN_TOKEN")
            .stdin(Stdio::null())
            .stdout(append(out)?)
            .stderr(append(err)?)
            .spawn()?;
        let pid = child.id();
        self.watch_over(child);
        ProcessRef::find(pid).ok_or_else(|| io::Error::other("it ended at once; see its .err file in the state folder"))
    }

    /// Looks at every process, and notes what has changed since.
    fn refresh(&self, now: Time) {
        self.offspring
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_)) | Err(_)));
        let mut book = self.lock();
        let mut changed = false;
        for entry in book.workloads.values_mut() {
            let Body::Process { root, .. } = &entry.body else { continue };
            let state = match root.condition() {
                Condition::Running => State::Running,
                Condition::Traced => entry.state,
                Condition::Stopped => State::Stopped,
                Condition::Gone => State::Exited,
            };
            if state == State::Exited {
                entry.body = Body::Gone;
            }
            if state != entry.state {
                (entry.state, entry.since, changed) = (state, now, true);
            }
        }
        if changed && let Err(error) = self.save(&book) {
            warn!(%error, "the state of the workloads could not be kept; it is tried again at the next change");
        }
    }

    pub fn vitals(&self, now: Time) -> Vec<Vital> {
        self.refresh(now);
        self.all().iter().map(|entry| entry.vital(now)).collect()
    }

    pub fn report(&self) -> v1::WorkloadReport {
        let workloads = self.all().into_iter().map(|entry| {
            let pid = entry.root().map_or(0, |root| root.pid);
            let Entry { spec, generation, state, since, body: _, adopted, tcp: _ } = entry;
            let WorkloadSpec { id, name, tier, command: _, progress_file: _ } = spec;
            let state = match state {
                State::Running => v1::WorkloadState::Running,
                State::Stopped => v1::WorkloadState::Stopped,
                State::Exited => v1::WorkloadState::Exited,
            };
            let workload =
                aether_proto::Workload { id, name, tier, generation, state, since_ms: since.0, pid, adopted };
            aether_proto::workload_to_proto(&workload)
        });
        v1::WorkloadReport { workloads: workloads.collect() }
    }

    /// Ends every workload, because the agent ends. They are begun anew when it starts again.
    pub fn end_all(&self) {
        let (mut ended, mut held) = (BTreeSet::new(), BTreeSet::new());
        for entry in self.all().into_iter().filter(|entry| entry.state != State::Exited) {
            match entry.end(END_WITHIN) {
                Ok(true) if entry.state == State::Stopped => {
                    held.insert(entry.spec.id);
                }
                Ok(true) => {
                    ended.insert(entry.spec.id);
                }
                Ok(false) => warn!(workload.id = %entry.spec.id, "does not end, though it was killed"),
                Err(error) => warn!(workload.id = %entry.spec.id, %error, "could not be ended"),
            }
        }
        self.refresh(clock::now());
        let mut book = self.lock();
        for (id, entry) in &mut book.workloads {
            if ended.contains(id) || held.contains(id) {
                (entry.body, entry.state) = (Body::Gone, State::Exited);
            }
        }
        book.ended.extend(ended);
        book.held.extend(held);
        if let Err(error) = self.save(&book) {
            warn!(%error, "which workloads were ended could not be kept");
        }
    }
}

impl Entry {
    pub fn root(&self) -> Option<ProcessRef> {
        match &self.body {
            Body::Process { root, .. } => Some(*root),
            Body::Simulated { .. } | Body::Gone => None,
        }
    }

    /// Kills it with all it has begun. True if nothing of it is left.
    pub fn end(&self, at_most: Duration) -> io::Result<bool> {
        match &self.body {
            Body::Process { root, namespace: None } => process::end_tree(root, at_most),
            Body::Process { root, namespace: Some(Namespace { init }) } => {
                // The end of a namespace's init is the end of all in it.
                let inside = init.descendants();
                init.signal(rustix::process::Signal::KILL)?;
                let gone = || inside.iter().chain([root]).all(|process| !process.is_alive()).then_some(());
                Ok(process::poll(at_most, gone).is_some())
            }
            Body::Simulated { .. } | Body::Gone => Ok(true),
        }
    }

    /// What it says of its own progress.
    pub fn progress(&self, now: Time) -> Option<u64> {
        match &self.body {
            Body::Simulated { base, since } if self.state == State::Running => {
                Some(base + now.since_ms(*since) / SIMULATED_STEP_MS)
            }
            Body::Simulated { base, .. } => Some(*base),
            Body::Process { .. } | Body::Gone => self.spec.progress_file.as_deref().and_then(read_progress),
        }
    }

    /// User and system seconds it has used.
    pub fn cpu(&self) -> Option<(f64, f64)> {
        let stat = self.root()?.stat()?;
        let ticks = procfs::ticks_per_second() as f64;
        Some((stat.utime as f64 / ticks, stat.stime as f64 / ticks))
    }

    fn vital(&self, now: Time) -> Vital {
        let running = match &self.body {
            Body::Process { root, .. } => root.condition() == Condition::Running,
            Body::Simulated { .. } => self.state == State::Running,
            Body::Gone => false,
        };
        let stat = self.root().and_then(|root| root.stat());
        Vital {
            id: self.spec.id.clone(),
            running,
            cpu: self.cpu(),
            resident_bytes: stat.map(|stat| stat.rss * procfs::page_size()),
            progress: self.progress(now),
        }
    }
}

/// The first number on the last line of a file, read from its tail alone.
pub fn read_progress(path: &str) -> Option<u64> {
    let mut file = File::open(path).ok()?;
    let length = file.metadata().ok()?.len();
    let from = length.saturating_sub(PROGRESS_TAIL_BYTES);
    file.seek(SeekFrom::Start(from)).ok()?;
    let mut tail = Vec::new();
    file.take(PROGRESS_TAIL_BYTES).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    let tail = tail.trim_end();
    let line = match tail.rfind('\n') {
        Some(end) => &tail[end + 1..],
        None if from == 0 => tail,
        // A line so long that its beginning is out of sight.
        None => return None,
    };
    let digits = line.find(|c: char| c.is_ascii_digit()).map(|start| &line[start..])?;
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use aether_core::snapshot::Tier;

    fn sleeper(id: &str) -> Declared {
        let spec = WorkloadSpec {
            id: WorkloadId::new(id),
            name: id.into(),
            tier: Tier::Standard,
            command: vec!["/bin/sleep".into(), "600".into()],
            progress_file: None,
        };
        Declared { spec, adopt_pid: None, tcp: Tcp::Refuse }
    }

    #[test]
    fn a_workload_is_started_once_and_not_after_it_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("workloads.json");
        let open = || Registry::open(&path, "boot-1".into()).unwrap();
        let (id, declared) = (WorkloadId::new("w"), [sleeper("w")]);
        let first = open();
        first.begin(&declared, folder.path(), false);
        let entry = first.get(&id).unwrap();
        assert_eq!((entry.generation, entry.state), (1, State::Running));

        // Another agent on the same folder finds it running.
        let second = open();
        second.begin(&declared, folder.path(), false);
        assert_eq!(second.get(&id).unwrap().root(), entry.root());

        // Once ended, it is of the next generation.
        assert!(entry.end(END_WITHIN).unwrap());
        assert_eq!(second.get(&id).unwrap().state, State::Exited);
        second.begin(&declared, folder.path(), false);
        let again = second.get(&id).unwrap();
        assert_eq!((again.generation, again.state), (2, State::Running));

        assert!(again.end(END_WITHIN).unwrap());
        second.depart(&id, 2).unwrap();
        let third = open();
        third.begin(&declared, folder.path(), false);
        assert_eq!(third.get(&id), None);
        assert_eq!(third.generation(&id), Some(2));
    }

    #[test]
    fn what_ended_with_the_agent_is_begun_anew_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("workloads.json");
        let open = || Registry::open(&path, "boot-1".into()).unwrap();
        let id = WorkloadId::new("w");
        let first = open();
        first.begin(&[sleeper("w")], folder.path(), false);
        first.end_all();
        // It came from elsewhere, so no configuration here declares it.
        let second = open();
        second.begin(&[], folder.path(), false);
        let entry = second.get(&id).unwrap();
        assert_eq!((entry.generation, entry.state), (2, State::Running));
        assert!(entry.end(END_WITHIN).unwrap());
        // One that ended by itself is not.
        assert_eq!(second.get(&id).unwrap().state, State::Exited);
        let third = open();
        third.begin(&[], folder.path(), false);
        assert_eq!(third.get(&id).unwrap().state, State::Exited);
    }

    #[test]
    fn after_a_boot_no_pid_means_anything() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("workloads.json");
        let before = Registry::open(&path, "boot-1".into()).unwrap();
        before.begin(&[sleeper("w")], folder.path(), false);
        let entry = before.get(&WorkloadId::new("w")).unwrap();
        let after = Registry::open(&path, "boot-2".into()).unwrap().get(&WorkloadId::new("w")).unwrap();
        assert_eq!((after.state, after.body), (State::Exited, Body::Gone));
        assert!(entry.end(END_WITHIN).unwrap());
    }

    #[test]
    fn one_that_cannot_start_keeps_no_other_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let registry = Registry::open(&folder.path().join("w.json"), "boot-1".into()).unwrap();
        let nobody = Declared { adopt_pid: Some(u32::MAX), ..sleeper("a") };
        registry.begin(&[nobody, sleeper("b")], folder.path(), false);
        assert_eq!(registry.get(&WorkloadId::new("a")), None);
        assert_eq!(registry.get(&WorkloadId::new("b")).unwrap().state, State::Running);
        registry.end_all();
        assert_eq!(registry.get(&WorkloadId::new("b")).unwrap().state, State::Exited);
    }

    #[test]
    fn progress_is_the_first_number_on_the_last_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("progress");
        let long = "x".repeat(10_000);
        for (text, progress) in [
            ("", None),
            ("7", Some(7)),
            ("7\n8\n", Some(8)),
            ("7\nstep 12 of 90\n\n", Some(12)),
            ("none\n", None),
            (long.as_str(), None),
            (&format!("{long}\n5\n"), Some(5)),
        ] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(read_progress(path.to_str().unwrap()), progress, "{}", text.len());
        }
        assert_eq!(read_progress("/nowhere"), None);
    }
}
