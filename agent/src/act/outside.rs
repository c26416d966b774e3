//! What of a workload leads out of it, and what becomes of that in its copy.
//!
//! **Pipes to processes that are not of the workload.** The process at the other end does not move. What the workload only
//! writes to goes, in the copy, to the output file of the workload under the agent that restores it; what it only reads
//! from gives the copy what lay in the pipe, and then its end. The source keeps its pipes, so it goes on with them when it
//! is resumed. A pipe of which it holds both ends is its own: it moves as it is, and the process outside loses it.
//! Without this CRIU would report success, and the copy would be killed by its first word to nobody.
//!
//! **The agent's own output files** are at another path under another agent, so they are replaced in the same way.
//!
//! **TCP connections** cannot be spoken on from another address. Where the workload's owner says so, its copy finds them
//! closed ([`Tcp::Close`]), or they move with their address ([`Tcp::Move`], done by [`super::address`]); else they are refused.
//!
//! What was found is a file among the images: whoever restores them learns it from verified bytes alone.

use super::hands::Failure;
use crate::{
    process::{ProcessRef, born_of},
    workloads::{Stream, Tcp},
};
use procfs::{
    net::TcpState,
    process::{FDPermissions, FDTarget, Process},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
};

/// CRIU has none of this name.
const FILE: &str = "aether-outside.img";
const SCHEMA_VERSION: u32 = 1;
/// Pipes and files of one workload that its copy is given another for. They are handed over by a shell, which knows
/// descriptors of one digit alone.
pub const REPLACED_MAXIMUM: usize = 7;

/// Which ends of a pipe the workload holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum End {
    Reads,
    Writes,
    Both,
}

/// A pipe that a process outside holds too.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pipe {
    pub inode: u64,
    pub end: End,
    /// What stands in for it, where it is written to.
    pub stream: Stream,
}

/// All that leads out of one workload.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    pub tcp: Tcp,
    /// Connections that its copy finds closed, or has.
    pub connections: u32,
    pub pipes: Vec<Pipe>,
    /// The agent's output files that it has open, by path.
    pub outputs: BTreeMap<PathBuf, Stream>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    schema_version: u32,
    outside: Outside,
}

/// One pipe of the tree, as far as it is looked at.
struct Held {
    holder: u32,
    reads: bool,
    writes: bool,
    /// On descriptor 0, 1 or 2 of a process.
    standard: bool,
    /// It is where a process writes its errors, and no process its output.
    errors: bool,
    output: bool,
}

impl Outside {
    /// Looks at the tree under `root`. `outputs` are the workload's files under this agent; `beside` is a process that
    /// holds the tree's descriptors for a moment, with its children, and is no outsider: CRIU.
    pub fn survey(
        root: &ProcessRef,
        tcp: &Tcp,
        outputs: &[(PathBuf, Stream)],
        beside: Option<&ProcessRef>,
    ) -> Result<Self, Failure> {
        let mut tree = vec![*root];
        tree.extend(root.descendants());
        let mut found = Self { tcp: tcp.clone(), ..Self::default() };
        let mut pipes: BTreeMap<u64, Held> = BTreeMap::new();
        let mut counted = BTreeSet::new();
        for process in &tree {
            // One that has ended meanwhile holds nothing.
            let Some(known) = open(process.pid) else { continue };
            let Ok(descriptors) = known.fd() else { continue };
            let mut sockets = BTreeSet::new();
            for descriptor in descriptors.flatten() {
                let mode = descriptor.mode();
                match descriptor.target {
                    FDTarget::Pipe(inode) => {
                        let held = pipes.entry(inode).or_insert(Held {
                            holder: process.pid,
                            reads: false,
                            writes: false,
                            standard: false,
                            errors: false,
                            output: false,
                        });
                        held.reads |= mode.contains(FDPermissions::READ);
                        held.writes |= mode.contains(FDPermissions::WRITE);
                        held.standard |= (0..=2).contains(&descriptor.fd);
                        held.errors |= descriptor.fd == 2;
                        held.output |= descriptor.fd == 1;
                    }
                    FDTarget::Path(path) => {
                        if let Some((_, stream)) = outputs.iter().find(|(output, _)| *output == path) {
                            found.outputs.insert(path, *stream);
                        }
                    }
                    FDTarget::Socket(inode) => {
                        sockets.insert(inode);
                    }
                    FDTarget::AnonInode(_)
                    | FDTarget::Net(_)
                    | FDTarget::MemFD(_)
                    | FDTarget::Other(..)
                    | FDTarget::Unknown(..) => {}
                }
            }
            connected(&known, &sockets, tcp, &mut counted)?;
        }
        found.connections = u32::try_from(counted.len()).unwrap_or(u32::MAX);
        // What it holds both ends of, on no standard stream, is its own, whoever inherited it (a build's job server, say).
        pipes.retain(|_, held| held.standard || !(held.reads && held.writes));
        if !pipes.is_empty() {
            let mut inside: BTreeSet<u32> = tree.iter().map(|process| process.pid).collect();
            if let Some(process) = beside {
                inside.insert(process.pid);
                inside.extend(process.descendants().iter().map(|process| process.pid));
            }
            found.pipes = shared(&pipes, &inside)?;
        }
        let replaced = found.replaced().len();
        if replaced > REPLACED_MAXIMUM {
            let message = format!(
                "the workload writes to {replaced} pipes and files that stay behind, and no more than {REPLACED_MAXIMUM} can be \
                 replaced in its copy"
            );
            return Err(Failure::new("workload.pipe", message));
        }
        Ok(found)
    }

    /// What CRIU calls what is replaced in a copy, and by which output.
    pub fn replaced(&self) -> Vec<(String, Stream)> {
        let pipes = self.pipes.iter().filter(|pipe| pipe.end == End::Writes);
        let pipes = pipes.map(|pipe| (format!("pipe:[{}]", pipe.inode), pipe.stream));
        // It names files from the root of the file system on, without the root.
        let name = |path: &Path| path.strip_prefix("/").unwrap_or(path).display().to_string();
        pipes.chain(self.outputs.iter().map(|(path, stream)| (name(path), *stream))).collect()
    }

    /// Connections that its copy finds closed, and those that go on.
    pub fn connections(&self) -> (u32, u32) {
        match self.tcp {
            Tcp::Move(_) => (0, self.connections),
            Tcp::Refuse | Tcp::Close => (self.connections, 0),
        }
    }

    /// How many pipes to outsiders it only has `end` of.
    pub fn pipes_of(&self, end: End) -> usize {
        self.pipes.iter().filter(|pipe| pipe.end == end).count()
    }

    /// What its copy is without, for a person; none if nothing.
    pub fn note(&self) -> Option<String> {
        let mut said = Vec::new();
        let (written, read) = (self.pipes_of(End::Writes), self.pipes_of(End::Reads));
        if written > 0 {
            said.push(format!("what it writes to {written} of its pipes goes to its output files on the target"));
        }
        if read > 0 {
            said.push(format!("what it reads from {read} of its pipes ends after what lies in them"));
        }
        match &self.tcp {
            _ if self.connections == 0 => {}
            Tcp::Move(moving) => said.push(format!("{} TCP connections go on at {}", self.connections, moving.address)),
            Tcp::Refuse | Tcp::Close => said.push(format!("{} TCP connections are closed", self.connections)),
        }
        (!said.is_empty()).then(|| format!("in its copy {}", said.join(", and ")))
    }

    /// Puts it among the images.
    pub fn write(&self, images: &Path) -> io::Result<()> {
        let kept = Kept { schema_version: SCHEMA_VERSION, outside: self.clone() };
        fs::write(images.join(FILE), serde_json::to_vec(&kept).map_err(io::Error::other)?)
    }

    /// Reads it from verified images. Those of an agent that knew nothing of it have none.
    pub fn read(images: &Path) -> Result<Self, Failure> {
        let bytes = match fs::read(images.join(FILE)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Failure::new("snapshot.io", format!("the images cannot be read: {error}"))),
        };
        let unknown = || {
            let message = "what the workload held outside of it is told in a form that this agent does not know";
            Failure::new("snapshot.version", message)
        };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|_| unknown())?;
        if kept.schema_version != SCHEMA_VERSION || kept.outside.replaced().len() > REPLACED_MAXIMUM {
            return Err(unknown());
        }
        Ok(kept.outside)
    }
}

fn open(pid: u32) -> Option<Process> {
    Process::new(i32::try_from(pid).ok()?).ok()
}

/// Counts the process's connections, in whichever state one is that has a peer; refuses the first if they may not be
/// closed.
fn connected(
    process: &Process,
    sockets: &BTreeSet<u64>,
    tcp: &Tcp,
    counted: &mut BTreeSet<u64>,
) -> Result<(), Failure> {
    if sockets.is_empty() {
        return Ok(());
    }
    let tables = [process.tcp(), process.tcp6()];
    for entry in tables.into_iter().flatten().flatten().filter(|entry| sockets.contains(&entry.inode)) {
        match (entry.state, tcp) {
            (TcpState::Listen | TcpState::Close, _) => {}
            (_, Tcp::Close) => {
                counted.insert(entry.inode);
            }
            (_, Tcp::Move(moving)) if entry.local_address.ip().to_canonical() == moving.address => {
                counted.insert(entry.inode);
            }
            (_, Tcp::Move(moving)) => {
                let message = format!(
                    "process {} holds a TCP connection from {} to {}, and what moves with the workload is {}: let it connect \
                     from that address, or close the connection",
                    process.pid, entry.local_address, entry.remote_address, moving.address
                );
                return Err(Failure::new("workload.tcp", message));
            }
            (_, Tcp::Refuse) => {
                let message = format!(
                    "process {} holds a TCP connection from {} to {}, which cannot move to another machine: let the workload \
                     close it first, or say `tcp = \"close\"` for it in the agent's configuration if its copy may connect anew",
                    process.pid, entry.local_address, entry.remote_address
                );
                return Err(Failure::new("workload.tcp", message));
            }
        }
    }
    Ok(())
}

/// Those of the pipes that a process outside of the tree holds.
fn shared(pipes: &BTreeMap<u64, Held>, inside: &BTreeSet<u32>) -> Result<Vec<Pipe>, Failure> {
    let mut found: BTreeMap<u64, Pipe> = BTreeMap::new();
    let Ok(all) = procfs::process::all_processes() else { return Ok(vec![]) };
    for process in all.flatten() {
        if u32::try_from(process.pid()).is_ok_and(|pid| inside.contains(&pid)) {
            continue;
        }
        let Ok(descriptors) = process.fd() else { continue };
        let held = descriptors.flatten().filter_map(|descriptor| match descriptor.target {
            FDTarget::Pipe(inode) => pipes.get(&inode).map(|held| (inode, held)),
            _ => None,
        });
        let held: Vec<(u64, &Held)> = held.collect();
        // One that was born after the tree was looked at is of it all the same.
        if held.is_empty() || born_of(process.pid(), inside) {
            continue;
        }
        for (inode, held) in held {
            let end = match (held.reads, held.writes) {
                (true, true) => {
                    let name = process.stat().map(|stat| stat.comm).unwrap_or_default();
                    let message = format!(
                        "process {} has a standard stream on a pipe of which the workload holds both ends and process {} ({name}), \
                         which is not of it, one as well: its copy would hang at it. Start the workload with its streams on \
                         files, or so that it has one end of each",
                        held.holder,
                        process.pid()
                    );
                    return Err(Failure::new("workload.pipe", message));
                }
                (true, false) => End::Reads,
                (false, _) => End::Writes,
            };
            let stream = if held.errors && !held.output { Stream::Err } else { Stream::Out };
            found.insert(inode, Pipe { inode, end, stream });
        }
    }
    Ok(found.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::Moving;
    use std::{
        io::Write,
        net::{TcpListener, TcpStream},
        process::{Command, Stdio},
        time::Duration,
    };

    #[test]
    fn pipes_to_outsiders_are_told_by_direction_and_others_are_not() {
        // `cat` reads from and writes to this test; `sleep` and `cat` have a pipe between them, and one to nobody.
        let script = "sleep 60 | cat & exec 5<&0 6>&2; exec 2>/dev/null; wait";
        let mut command = Command::new("bash");
        command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let root = ProcessRef::find(child.id()).unwrap();
        let ready = crate::process::poll(Duration::from_secs(10), || {
            let comms: Vec<_> =
                root.descendants().iter().filter_map(|process| process.stat()).map(|s| s.comm).collect();
            (comms.contains(&"sleep".into()) && comms.contains(&"cat".into())).then_some(())
        });
        assert!(ready.is_some());
        // What this test itself has inherited, and hands on, is none of the script's.
        let inherited = |inode: u64| {
            open(std::process::id()).unwrap().fd().unwrap().flatten().any(|descriptor| {
                let passed = fs::read_to_string(format!("/proc/self/fdinfo/{}", descriptor.fd)).unwrap_or_default();
                // `O_CLOEXEC` of those that this test made for its child.
                let closes = passed.lines().any(|line| {
                    line.strip_prefix("flags:")
                        .is_some_and(|flags| i64::from_str_radix(flags.trim(), 8).is_ok_and(|f| f & 0o2_000_000 != 0))
                });
                !closes && matches!(descriptor.target, FDTarget::Pipe(held) if held == inode)
            })
        };
        let mut seen = Outside::survey(&root, &Tcp::Refuse, &[], None).unwrap();
        seen.pipes.retain(|pipe| !inherited(pipe.inode));
        let of = |end| seen.pipes.iter().filter(|pipe| pipe.end == end).map(|pipe| pipe.stream).collect::<Vec<_>>();
        assert_eq!((of(End::Reads).len(), of(End::Both).len()), (1, 0), "{seen:?}");
        let mut written = of(End::Writes);
        written.sort_unstable();
        assert_eq!(written, [Stream::Out, Stream::Err], "{seen:?}");
        let note = seen.note().unwrap();
        assert!(note.contains("2 of its pipes goes") && note.contains("1 of its pipes ends"), "{note}");
        // With this test as one that only holds them for a moment there is nothing outside.
        let me = ProcessRef::find(std::process::id()).unwrap();
        let within = Outside::survey(&root, &Tcp::Refuse, &[], Some(&me)).unwrap().pipes;
        assert!(within.iter().all(|pipe| inherited(pipe.inode)), "{within:?}");
        crate::process::end_tree(&root, Duration::from_secs(5)).unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn a_connection_is_refused_or_counted_and_a_listening_socket_is_neither() {
        // This process is its own workload here; other tests of it may have connections too.
        let root = ProcessRef::find(std::process::id()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        connection.write_all(b"x").unwrap();
        let refused = Outside::survey(&root, &Tcp::Refuse, &[], None).unwrap_err();
        assert_eq!(refused.code, "workload.tcp");
        let closed = Outside::survey(&root, &Tcp::Close, &[], None).unwrap();
        assert!(closed.connections >= 1 && closed.note().unwrap().contains("TCP connections are closed"));
        let moving =
            |address: [u8; 4]| Tcp::Move(Moving { address: address.into(), prefix: 8, interface: "lo".into() });
        let moves = Outside::survey(&root, &moving([127, 0, 0, 1]), &[], None).unwrap();
        assert!(moves.connections().1 >= 1 && moves.note().unwrap().contains("go on at 127.0.0.1"));
        let elsewhere = Outside::survey(&root, &moving([10, 0, 0, 1]), &[], None).unwrap_err();
        assert!(elsewhere.code == "workload.tcp" && elsewhere.message.contains("10.0.0.1"), "{elsewhere}");
    }

    #[test]
    fn it_comes_back_as_it_was_and_an_unknown_form_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Outside::read(folder.path()).unwrap(), Outside::default());
        let pipe = |inode, end| Pipe { inode, end, stream: Stream::Out };
        let outside = Outside {
            tcp: Tcp::Close,
            connections: 2,
            pipes: vec![pipe(7, End::Writes), pipe(8, End::Reads)],
            outputs: BTreeMap::from([("/state/workloads/w.err".into(), Stream::Err)]),
        };
        outside.write(folder.path()).unwrap();
        assert_eq!(Outside::read(folder.path()).unwrap(), outside);
        let replaced = [("pipe:[7]".into(), Stream::Out), ("state/workloads/w.err".into(), Stream::Err)];
        assert_eq!(outside.replaced(), replaced);
        let many = Outside { pipes: (0..8).map(|inode| pipe(inode, End::Writes)).collect(), ..outside };
        many.write(folder.path()).unwrap();
        assert_eq!(Outside::read(folder.path()).unwrap_err().code, "snapshot.version");
        fs::write(folder.path().join(FILE), r#"{"schema_version":2,"outside":{}}"#).unwrap();
        assert_eq!(Outside::read(folder.path()).unwrap_err().code, "snapshot.version");
    }
}
