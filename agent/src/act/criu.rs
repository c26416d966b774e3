//! CRIU as this machine has it: found, tried, and run with its words translated.
//!
//! It is run as a program, in a session of its own: a dump or a restore must survive the agent, and its images are
//! plain files either way. Restores go into new pid and mount namespaces, with CRIU staying as their init, because the
//! pids of the image may be taken here, and so that killing one process ends all that a restore began.

use super::{outside::Outside, rehearsal::StandIn};
use crate::{
    process::ProcessRef,
    workloads::{Stream, Tcp},
};
use procfs::process::FDTarget;
use rustix::fs::OFlags;
use std::{
    ffi::OsStr,
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    net::Shutdown,
    os::{fd::OwnedFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};
use thiserror::Error;

/// Bytes at the end of CRIU's log that are read for its errors.
const LOG_TAIL_BYTES: u64 = 64 << 10;
/// Where CRIU looks for what it found out about the kernel.
const KERNEL: &str = "/run/criu.kdat";
/// `TMPFS_MAGIC` of `linux/magic.h`.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;
/// How long one look at a dump lasts.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// By this argument a dump is known that holds connections.
pub const MOVES_CONNECTIONS: &str = "--tcp-established";
/// By this one, a daemon that serves pages.
pub const PAGES: &str = "lazy-pages";
const NULL: &str = "/dev/null";
/// Variables that tell a restore's shell where the copy's outputs are.
const OUT: &str = "AETHER_COPY_OUT";
const ERR: &str = "AETHER_COPY_ERR";
/// Descriptors of a copy's outputs begin here.
const FIRST_GIVEN: usize = 3;
/// Lines of CRIU's own that are shown to a person.
const LOG_LINES_SHOWN: usize = 3;

/// Why CRIU cannot be used here, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{reason}")]
pub struct Missing {
    pub code: &'static str,
    pub reason: String,
    pub advice: String,
}

/// A CRIU that works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Criu {
    path: PathBuf,
    pub version: String,
    /// It can leave the pages of a process where they are, and hold the process.
    holds: bool,
    /// What CRIU found out about this kernel, where it cannot keep that itself.
    kernel: Option<PathBuf>,
}

impl Criu {
    /// Looks where it was asked for, else on the PATH, else where the project's setup puts it; and tries it.
    pub fn find(asked: Option<&Path>) -> Result<Self, Missing> {
        let missing = |code, reason: String, advice: &str| Missing { code, reason, advice: advice.into() };
        let path = match asked {
            Some(path) if path.is_file() => path.to_owned(),
            Some(path) => {
                let reason = format!("there is no CRIU at {}", path.display());
                return Err(missing(
                    "criu.missing",
                    reason,
                    "correct `--criu`, or leave it out to have CRIU looked for",
                ));
            }
            None => on_path("criu").or_else(in_cache).ok_or_else(|| {
                let reason = "CRIU is not installed: neither on the PATH nor in the cache of `make setup`".to_string();
                missing(
                    "criu.missing",
                    reason,
                    "run `make setup`, or install CRIU 4 or newer and name it with `--criu`",
                )
            })?,
        };
        let said = Command::new(&path).arg("--version").stdin(Stdio::null()).output().map_err(|error| {
            let reason = format!("{} cannot be run: {error}", path.display());
            missing("criu.broken", reason, "install CRIU again with `make setup`")
        })?;
        let text = String::from_utf8_lossy(&said.stdout);
        let version = text.lines().find_map(|line| line.strip_prefix("Version:")).map(|v| v.trim().to_string());
        let version = version.ok_or_else(|| {
            let reason = format!("{} does not answer as CRIU does", path.display());
            missing("criu.broken", reason, "install CRIU again with `make setup`")
        })?;
        if !rustix::process::geteuid().is_root() {
            let reason = "checkpoint and restore need root, and the agent does not run as root".into();
            return Err(missing("criu.privilege", reason, "run the agent as root"));
        }
        for tool in ["setsid", "unshare", "nsenter"] {
            if on_path(tool).is_none() {
                let reason = format!("`{tool}` is not on the PATH");
                return Err(missing("criu.tools", reason, "install util-linux"));
            }
        }
        let check = Command::new(&path).arg("check").stdin(Stdio::null()).output();
        let failed = match check {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(errors(&String::from_utf8_lossy(&output.stderr))),
            Err(error) => Some(error.to_string()),
        };
        if let Some(why) = failed {
            let reason = format!("CRIU {version} does not work on this kernel: {why}");
            return Err(missing(
                "criu.kernel",
                reason,
                "use CRIU 4 or newer (`make setup` gets one), or another kernel",
            ));
        }
        // CRIU's own name for what it calls lazy pages; a dump that holds is one whose pages nobody asks for.
        let lazy = Command::new(&path).args(["check", "--feature", "uffd-noncoop"]).stdin(Stdio::null()).output();
        Ok(Self { path, version, holds: lazy.is_ok_and(|output| output.status.success()), kernel: None })
    }

    /// Whether a dump writes all but the pages of memory, and holds the processes until they were read.
    pub fn holds(&self) -> bool {
        self.holds
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Has CRIU try the kernel out once, and keeps what it found in `folder` for as long as the agent runs. A restore
    /// would otherwise do that anew while the workload stands still, and it is most of what a small one takes. CRIU
    /// keeps it itself in `/run`, but only where that is a file system in memory. Without it all works, slower.
    pub fn remember_kernel(&mut self, folder: &Path) {
        if rustix::fs::statfs("/run").is_ok_and(|stat| stat.f_type == TMPFS) {
            return;
        }
        let kept = folder.join("criu.kdat");
        let script = "mount -t tmpfs tmpfs /run && { \"$0\" check; cp /run/criu.kdat \"$1\"; }";
        let tried = Command::new("unshare")
            .args(["-m", "sh", "-c", script])
            .arg(&self.path)
            .arg(&kept)
            .stdin(Stdio::null())
            .output();
        self.kernel = Some(kept).filter(|_| tried.is_ok_and(|output| output.status.success()));
    }

    /// Whether a restore can have namespaces of its own here.
    pub fn probe_namespaces() -> Result<(), Missing> {
        let tried =
            Command::new("unshare").args(["-p", "-m", "-f", "--mount-proc", "true"]).stdin(Stdio::null()).output();
        let why = match tried {
            Ok(output) if output.status.success() => return Ok(()),
            Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_string(),
            Err(error) => error.to_string(),
        };
        Err(Missing {
            code: "criu.namespaces",
            reason: format!("new pid and mount namespaces cannot be made: {why}"),
            advice: "run the agent with CAP_SYS_ADMIN, outside a container that forbids namespaces".into(),
        })
    }

    /// Begins to dump the tree under `root` into `images` and to leave it stopped. If CRIU can, it writes no pages of
    /// anonymous memory: it holds the processes until [`Dumping::let_go`], and they are read where they are.
    pub fn begin_dump(&self, root: &ProcessRef, images: &Path, tcp: &Tcp) -> io::Result<Dumping> {
        // The child is `setsid`, which becomes CRIU (or `nsenter` in front of it).
        let mut command = Command::new("setsid");
        let pid = match root.pid_in_namespace() {
            Some(inside) => {
                command.args(["nsenter", "-t", &root.pid.to_string(), "-p", "-m"]);
                inside
            }
            None => root.pid,
        };
        command.arg(&self.path).args(["dump", "--leave-stopped", "-o", "dump.log", "-t", &pid.to_string()]);
        match tcp {
            Tcp::Refuse => {}
            // Nor does it take what waits to be accepted. The source keeps all of them.
            Tcp::Close => {
                command.args(["--tcp-close", "--skip-in-flight"]);
            }
            // Its usual lock wants `iptables`.
            Tcp::Move(_) => {
                command.args([MOVES_CONNECTIONS, "--network-lock", "nftables"]);
            }
        }
        command.arg("-D").arg(images);
        if !self.holds {
            return Ok(Dumping { child: Self::spawn(&mut command, images, "dump.out")?, line: None });
        }
        // It would serve pages to whoever is at the other end of its standard input; that is this agent, which asks for
        // none. The first thing that it says is that it holds.
        command.args(["--lazy-pages", "--ps-socket", "0", "--status-fd", "1"]);
        let (line, theirs) = UnixStream::pair()?;
        line.set_read_timeout(Some(LOOK_EVERY))?;
        // The agent's end closes when the agent is killed, and CRIU would fail then and let go of connections that are in
        // repair mode: the workload's next word on one would be refused, and end it. So CRIU has a copy of that end
        // itself, and holds until it is told to let go, or killed by the agent that comes next.
        let kept = matches!(tcp, Tcp::Move(_)).then(|| line.try_clone()).transpose()?;
        if let Some(kept) = &kept {
            rustix::io::fcntl_setfd(kept, rustix::io::FdFlags::empty())?;
        }
        let (input, output) = (theirs.try_clone()?, theirs);
        let child = Self::spawn_with(&mut command, images, "dump.out", OwnedFd::from(input), OwnedFd::from(output))?;
        Ok(Dumping { child, line: Some(line) })
    }

    /// Begins to serve pages out of `images` to a restore that leaves them out.
    pub fn begin_pages(&self, images: &Path, log: &str) -> io::Result<Child> {
        let script = format!("[ -z \"$1\" ] || mount --bind \"$1\" {KERNEL}; shift; exec \"$@\"");
        let mut command = Command::new("setsid");
        command.args(["unshare", "-m", "sh", "-c", &script, "pages"]).arg(self.known_kernel());
        command.arg(&self.path).args([PAGES, "-o", log, "-D"]).arg(images);
        Self::spawn(&mut command, images, "pages.out")
    }

    /// Begins a restore in new pid and mount namespaces. The child is `unshare`, whose child is CRIU and the
    /// namespace's init. `pid_file` will hold the root's pid inside. `later`: without the pages that can be brought while
    /// the copy runs.
    pub fn begin_restore(&self, images: &Path, pid_file: &Path, given: &Given, later: bool) -> io::Result<Child> {
        self.begin(images, pid_file, given, later, None)
    }

    /// Begins a restore that nobody notices: in namespaces of its own for the network too, with `stand_ins` in place of
    /// files, and left stopped. Otherwise as [`Self::begin_restore`].
    pub fn begin_drill(
        &self,
        images: &Path,
        pid_file: &Path,
        stand_ins: &[StandIn],
        given: &Given,
    ) -> io::Result<Child> {
        self.begin(images, pid_file, given, false, Some(stand_ins))
    }

    /// What to bind in a new mount namespace in place of what CRIU would find out of the kernel. Empty: nothing.
    fn known_kernel(&self) -> &Path {
        self.kernel.as_deref().filter(|_| File::create(KERNEL).is_ok()).unwrap_or(Path::new(""))
    }

    fn begin(
        &self,
        images: &Path,
        pid_file: &Path,
        given: &Given,
        later: bool,
        drill: Option<&[StandIn]>,
    ) -> io::Result<Child> {
        // What CRIU found out of the kernel is a help that may be missing; a stand-in must not. An address of this
        // machine is none of a new network namespace, and yet the copy of a drill is to have it.
        let script = format!(
            "[ -z \"$1\" ] || mount --bind \"$1\" {KERNEL}; shift; \
             while [ \"$1\" != -- ]; do mount --bind \"$1\" \"$2\" || exit 99; shift 2; done; shift; \
             {}{} exec \"$@\"",
            // CRIU tries the kernel out by a connection to this machine, if it does not know it.
            if drill.is_some() {
                "echo 1 >/proc/sys/net/ipv4/ip_nonlocal_bind; ip link set lo up 2>/dev/null; "
            } else {
                ""
            },
            given.handed_over(),
        );
        let mut command = Command::new("setsid");
        command.args(["unshare", "-p", "-m", "-f", "--mount-proc"]);
        if drill.is_some() {
            command.arg("-n");
        }
        command.args(["sh", "-c", &script, "restore"]);
        command.arg(self.known_kernel());
        for StandIn { file, instead_of } in drill.into_iter().flatten() {
            command.arg(file).arg(instead_of);
        }
        // At this level its log says when the restored processes run, which nothing else does while it stays.
        command.arg("--").arg(&self.path).args(["restore", "-v3", "-o", "restore.log"]);
        if drill.is_some() || given.is_left_stopped() || later {
            command.arg("--leave-stopped");
        }
        if later {
            command.arg("--lazy-pages");
        }
        match (&given.tcp, drill) {
            (Tcp::Refuse, _) => {}
            (Tcp::Move(_), None) => {
                command.arg("--tcp-established");
            }
            // A drill reaches nobody.
            (Tcp::Close, _) | (Tcp::Move(_), Some(_)) => {
                command.arg("--tcp-close");
            }
        }
        for (descriptor, (name, _)) in (FIRST_GIVEN..).zip(&given.replaced) {
            command.arg("--inherit-fd").arg(format!("fd[{descriptor}]:{name}"));
        }
        command.arg("-D").arg(images).arg("--pidfile").arg(pid_file);
        command.env(OUT, &given.out.0).env(ERR, &given.err.0);
        Self::spawn(&mut command, images, "restore.out")
    }

    fn spawn(command: &mut Command, images: &Path, output: &str) -> io::Result<Child> {
        let out = OpenOptions::new().create(true).append(true).open(images.join(output))?;
        Self::spawn_with(command, images, output, Stdio::null(), out)
    }

    fn spawn_with(
        command: &mut Command,
        images: &Path,
        errors: &str,
        input: impl Into<Stdio>,
        output: impl Into<Stdio>,
    ) -> io::Result<Child> {
        let errors = OpenOptions::new().create(true).append(true).open(images.join(errors))?;
        command.current_dir("/").env_remove("AETHER_JOIN_TOKEN").stdin(input).stdout(output).stderr(errors).spawn()
    }
}

/// What a copy is given in place of what it cannot have.
#[derive(Debug)]
pub struct Given {
    tcp: Tcp,
    /// CRIU's names of what is replaced, and by which of the two.
    replaced: Vec<(String, Stream)>,
    out: (PathBuf, File),
    err: (PathBuf, File),
}

impl Given {
    /// The workload's output files under this agent.
    pub fn outputs(outside: &Outside, outputs: &[(PathBuf, Stream); 2]) -> io::Result<Self> {
        let replaced = outside.replaced();
        if replaced.is_empty() {
            return Self::nothing(outside);
        }
        let [out, err] = outputs;
        let open = |path: &Path| -> io::Result<(PathBuf, File)> {
            let file = OpenOptions::new().create(true).append(true).open(path)?;
            Ok((path.canonicalize()?, file))
        };
        Ok(Self { tcp: outside.tcp.clone(), replaced, out: open(&out.0)?, err: open(&err.0)? })
    }

    /// What takes all and keeps nothing.
    pub fn nothing(outside: &Outside) -> io::Result<Self> {
        let null = || Ok::<_, io::Error>((PathBuf::from(NULL), OpenOptions::new().write(true).open(NULL)?));
        Ok(Self { tcp: outside.tcp.clone(), replaced: outside.replaced(), out: null()?, err: null()? })
    }

    pub fn tcp(&self) -> &Tcp {
        &self.tcp
    }

    /// What a shell does to have the two. It opens them itself, by the paths in its environment: what was opened outside
    /// of the new mount namespace could not be dumped from within it again. CRIU wants a descriptor for each name.
    fn handed_over(&self) -> String {
        if self.replaced.is_empty() {
            return String::new();
        }
        let each = (FIRST_GIVEN..).zip(&self.replaced).map(|(descriptor, (_, stream))| match stream {
            Stream::Out => format!("{descriptor}>>\"${OUT}\" "),
            Stream::Err => format!("{descriptor}>>\"${ERR}\" "),
        });
        format!("exec {};", each.collect::<String>())
    }

    /// Whether the copy is left stopped, for [`Self::append`].
    pub fn is_left_stopped(&self) -> bool {
        !self.replaced.is_empty()
    }

    /// Has a copy that is stopped write to the ends of its outputs: CRIU opens them anew in place of a pipe, from their
    /// beginnings on.
    pub fn append(&self, tree: &[ProcessRef]) -> io::Result<()> {
        let same =
            |one: &rustix::fs::Stat, other: &rustix::fs::Stat| (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino);
        let outputs = [rustix::fs::fstat(&self.out.1)?, rustix::fs::fstat(&self.err.1)?];
        for descriptor in
            tree.iter().flat_map(|process| process.descriptors(|target| matches!(target, FDTarget::Path(_))))
        {
            let stat = rustix::fs::fstat(&descriptor)?;
            if outputs.iter().any(|output| same(output, &stat)) {
                let flags = rustix::fs::fcntl_getfl(&descriptor)?;
                rustix::fs::fcntl_setfl(&descriptor, flags | OFlags::APPEND)?;
            }
        }
        Ok(())
    }
}

/// A dump that was begun.
#[derive(Debug)]
pub struct Dumping {
    pub child: Child,
    /// Until this is shut down, CRIU holds the processes. None if it writes their pages itself.
    line: Option<UnixStream>,
}

/// How far a dump is.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    Working,
    /// All but the pages is written, and the processes stand still.
    Holding,
    /// CRIU has ended; true: well.
    Ended(bool),
}

impl Dumping {
    /// Looks how far it is, for a short time.
    pub fn look(&mut self) -> io::Result<Progress> {
        if let Some(line) = &mut self.line {
            match line.read(&mut [0]) {
                Ok(1) => return Ok(Progress::Holding),
                // It has closed its end, so it is about to be gone.
                Ok(_) => std::thread::sleep(Duration::from_millis(1)),
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(self.child.try_wait()?.map_or(Progress::Working, |status| Progress::Ended(status.success())))
    }

    /// Has CRIU let go of what it holds: the processes stay stopped, by a signal then.
    pub fn let_go(&self) -> io::Result<()> {
        match self.line.as_ref().map(|line| line.shutdown(Shutdown::Write)) {
            // It has ended by itself.
            Some(Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            Some(result) => result,
            None => Ok(()),
        }
    }
}

/// What went wrong, from CRIU's log in words for a person, with its own last errors behind.
pub fn explain(log: &Path) -> String {
    let text = tail(log, LOG_TAIL_BYTES).unwrap_or_default();
    let said = errors(&text);
    let hint = HINTS.iter().find(|(mark, _)| text.contains(mark)).map(|(_, hint)| *hint);
    match (hint, said.is_empty()) {
        (Some(hint), _) => format!("{hint} (CRIU: {said})"),
        (None, false) => format!("CRIU: {said}"),
        (None, true) => "CRIU left no word of why".into(),
    }
}

/// Marks in CRIU's log and what they mean.
const HINTS: [(&str, &str); 17] = [
    ("is not a session leader", "the workload is not in a session of its own: start it with setsid, or by the agent"),
    ("A session leader of", "the workload is not in a session of its own: start it with setsid, or by the agent"),
    ("Found dangling tty", "the workload holds a terminal: start it with its streams on files"),
    ("--tcp-established", "the workload holds a TCP connection; with `tcp = \"close\"` its copy would find it closed"),
    (
        "In-flight connection",
        "a connection to the workload waits to be accepted; with `tcp = \"close\"` it is left behind",
    ),
    (
        "--tcp-close option",
        "the snapshot has TCP connections that its copy is to find closed, and nothing here says so",
    ),
    (
        "Address already in use",
        "a port that the workload listens on is taken here (by the stopped source, if that is on this machine)",
    ),
    ("Cannot assign requested address", "the workload listens on an address that is none of this machine's"),
    ("Can't dump half of stream unix connection", "the workload is connected by a socket to a process outside of it"),
    ("Can't dump ghost file", "the workload holds open a deleted file that is too large to be taken along"),
    ("inotify", "the workload watches files in a way that CRIU cannot take along"),
    ("io_uring", "the workload uses io_uring, which CRIU cannot take"),
    ("External socket is used", "the workload is connected by a socket to a process outside of it"),
    ("has bad size", "a file that the workload has open changed its size after the snapshot"),
    ("Can't open file", "a file that the workload had open is not there on this machine"),
    ("No space left on device", "the disk that holds the agent's state is full"),
    ("Unexpected rt vDSO area bounds", "this CRIU is too old for this kernel"),
];

fn errors(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| line.contains("Error (")).collect();
    // This one is about CRIU's own limits, comes inside namespaces, and fails nothing.
    let lines: Vec<&str> = lines.into_iter().filter(|line| !line.contains("Can't setup RLIMIT_NOFILE")).collect();
    let shown = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    let plain =
        shown.iter().map(|line| line.split_once("): ").map_or(*line, |(_, said)| said).trim().trim_end_matches('.'));
    plain.collect::<Vec<_>>().join("; ")
}

/// The last `bytes` of a file, as text.
pub(super) fn tail(path: &Path, bytes: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let begin = file.metadata()?.len().saturating_sub(bytes);
    file.seek(SeekFrom::Start(begin))?;
    let mut text = Vec::new();
    file.take(bytes).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

pub(crate) fn on_path(program: impl AsRef<OsStr>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program.as_ref())).find(|candidate| candidate.is_file())
}

/// Where `make setup` puts it.
fn in_cache() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = cache.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")))?;
    Some(cache.join("aether/criu/bin/criu")).filter(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_missing_criu_says_where_it_was_looked_for() {
        let missing = Criu::find(Some(Path::new("/nowhere/criu"))).unwrap_err();
        assert_eq!(missing.code, "criu.missing");
        assert!(missing.reason.contains("/nowhere/criu"), "{missing}");
    }

    #[test]
    fn another_program_is_not_taken_for_criu() {
        assert_eq!(Criu::find(Some(Path::new("/bin/true"))).unwrap_err().code, "criu.broken");
    }

    #[test]
    fn its_words_are_translated() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("restore.log");
        let text = "(00.1) fine\n(00.2) Error (criu/files-reg.c:2231): File tmp/x has bad size 5 (expect 4)\n\
                    (00.3) Error (criu/cr-restore.c:2389): Restoring FAILED.\n";
        fs::write(&log, text).unwrap();
        let said = explain(&log);
        assert!(said.starts_with("a file that the workload has open changed its size"), "{said}");
        assert!(said.contains("bad size 5 (expect 4); Restoring FAILED)"), "{said}");
        assert!(explain(Path::new("/nowhere")).contains("no word"));
    }
}
