//! The real thing: CRIU and signals.

use super::{Copied, Failure, Hands, Still};
use crate::{
    act::{
        address::{self, Network},
        check::{Refusal, refuse},
        criu::{Criu, Dumping, Given, MOVES_CONNECTIONS, Missing, PAGES, Progress, explain, tail},
        cuda::{self, Cuda},
        outside::Outside,
        pages::Pages,
        preflight, rehearsal,
        run::Run,
    },
    clock::Stopwatch,
    process::{self, Condition, ProcessRef},
    workloads::{Body, Entry, Moving, Namespace, Registry, Tcp, outputs},
};
use aether_core::{catalogue::verb, snapshot::Manifest};
use rustix::process::Signal;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::Arc,
    time::Duration,
};
use tracing::{info, warn};

/// How long a workload may take to go on, or to be gone, once it was told.
const OBEY_WITHIN: Duration = Duration::from_secs(10);
/// How long a dump that a crashed agent left behind may take to come to its own end, which is the gentlest.
const LEFTOVER_WITHIN: Duration = Duration::from_secs(20);
/// The image that CRIU writes last, when it has all but the pages.
const INVENTORY: &str = "inventory.img";
/// What CRIU's daemon brings at least, on a machine that is busy otherwise: half of what was seen.
const LAZY_BYTES_PER_SECOND: u64 = 256 << 20;
/// In CRIU's restore log, once the restored processes run.
const RESTORED: &str = "Restore finished successfully";
/// CRIU says little after it.
const RESTORED_WITHIN_BYTES: u64 = 4 << 10;

pub struct Native {
    pub criu: Result<Criu, Missing>,
    pub namespaces: Result<(), Missing>,
    pub cuda: Result<Cuda, Missing>,
    pub registry: Arc<Registry>,
    /// What moves addresses.
    pub network: Result<Network, Missing>,
    /// Where the output of workloads goes.
    pub output: PathBuf,
    /// Copies of so many bytes or more run before all of their pages are in; 0: none does.
    pub lazy_from_bytes: u64,
}

impl Native {
    fn criu(&self) -> Result<&Criu, Failure> {
        self.criu.as_ref().map_err(|missing| Failure::new(missing.code, &missing.reason))
    }

    /// What the workload's address is moved with; none if it has none.
    fn moving<'a>(&'a self, tcp: &'a Tcp) -> Result<Option<(&'a Network, &'a Moving)>, Failure> {
        let Tcp::Move(moving) = tcp else { return Ok(None) };
        match &self.network {
            Ok(network) => Ok(Some((network, moving))),
            Err(missing) => {
                let message = format!("TCP connections cannot move here: {missing}; {}", missing.advice);
                Err(Failure::new(missing.code, message))
            }
        }
    }
}

/// A process with all that it has begun.
fn tree(root: &ProcessRef) -> Vec<ProcessRef> {
    let mut tree = root.descendants();
    tree.push(*root);
    tree
}

impl Native {
    /// Moves what the workload has on GPUs into its memory, and marks the images.
    fn take_off_gpus(&self, root: &ProcessRef, images: &Path, run: &Run) -> Result<(), Failure> {
        let tree = tree(root);
        let taken_off = match &self.cuda {
            Ok(cuda) => cuda.take_off(&tree, run)?,
            Err(missing) if tree.iter().any(Cuda::is_on_gpu) => {
                return Err(Failure::new(
                    "cuda.missing",
                    format!("the workload is on a GPU: {missing}; {}", missing.advice),
                ));
            }
            Err(_) => 0,
        };
        if taken_off == 0 {
            return Ok(());
        }
        let mark = format!("{taken_off} processes had GPU contexts\n");
        fs::write(images.join(cuda::MARK), mark)
            .map_err(|error| Failure::new("agent.disk", format!("the images cannot be marked: {error}")))
    }

    /// Gives GPUs back to whatever of the workload was taken off one.
    fn put_back_on_gpus(&self, root: &ProcessRef) -> Result<(), Failure> {
        match &self.cuda {
            Ok(cuda) => cuda.put_back(&tree(root)).map(|_| ()),
            Err(_) => Ok(()),
        }
    }
}

impl Native {
    /// Whether a copy of so many bytes runs before all of its pages are in. Not one with connections, which may be cut
    /// short only until it can be reached; nor one that is yet to be put on a GPU.
    fn is_lazy(&self, criu: &Criu, given: &Given, images: &Path, bytes: u64, run: &Run) -> bool {
        let large = self.lazy_from_bytes > 0 && bytes >= self.lazy_from_bytes;
        let in_time = Duration::from_secs(bytes / LAZY_BYTES_PER_SECOND) < run.left();
        large && in_time && criu.holds() && !matches!(given.tcp(), Tcp::Move(_)) && !images.join(cuda::MARK).exists()
    }

    /// Restores; at any failure nothing is left of the copy but its address.
    fn restore_held(
        &self,
        criu: &Criu,
        given: &Given,
        images: &Path,
        early: bool,
        run: &Run,
    ) -> Result<Copied, Failure> {
        let broken = |error: std::io::Error| Failure::new("criu.broken", format!("CRIU cannot be started: {error}"));
        let pid_file = &images.join("root.pid");
        // Outlives whatever of the copy may miss a page.
        let mut pages = early.then(|| Pages::serve(criu, images)).transpose().map_err(no_pages)?;
        let mut child = criu.begin_restore(images, pid_file, given, early).map_err(broken)?;
        let found = restored(&mut child, images, pid_file, run);
        let found = found.and_then(|found| {
            if given.is_left_stopped() || early {
                let_begin(&found.0, given, pages.as_mut())?;
            }
            self.put_back_on_gpus(&found.0).map(|()| found)
        });
        match found {
            Ok((root, init)) => {
                self.registry.watch_over(child);
                Ok(Copied { body: Body::Process { root, namespace: Some(Namespace { init }) }, pages })
            }
            Err(failure) => {
                // Behind a shield, if it has connections; they must not stay behind and bar the way of another try.
                if let (Tcp::Move(_), Some(init)) = (given.tcp(), init_of(child.id())) {
                    address::hush(&init);
                }
                end_restore(child)?;
                Err(failure)
            }
        }
    }
}

impl Hands for Native {
    fn simulated(&self) -> bool {
        false
    }

    fn version(&self) -> String {
        self.criu.as_ref().map(|criu| criu.version.clone()).unwrap_or_default()
    }

    fn ready(&self, verb: &str) -> Result<(), Refusal> {
        let missing = match verb {
            verb::CHECKPOINT => self.criu.as_ref().err(),
            verb::RESTORE | verb::RESTORE_DRILL => self.criu.as_ref().err().or(self.namespaces.as_ref().err()),
            _ => None,
        };
        match missing {
            None => Ok(()),
            Some(missing) => {
                refuse("capability.missing", format!("`{verb}` cannot be done here: {missing}; {}", missing.advice))
            }
        }
    }

    fn examine(&self, entry: &Entry) -> Result<(), Failure> {
        let Some(root) = entry.root() else { return Ok(()) };
        preflight::examine(&root)?;
        if let Some((network, moving)) = self.moving(&entry.tcp)? {
            network.examine(moving, &root)?;
        }
        // What it will be told once it stands still; here for what cannot be left behind.
        Outside::survey(&root, &entry.tcp, &outputs(&self.output, &entry.spec.id), None).map(|_| ())
    }

    fn holds(&self) -> bool {
        self.criu.as_ref().is_ok_and(Criu::holds)
    }

    fn dump<'a>(&'a self, entry: &Entry, images: &Path, run: &'a Run) -> Result<Still<'a>, Failure> {
        let criu = self.criu()?;
        let root = entry.root().ok_or_else(|| Failure::new("workload.state", "it has no process"))?;
        self.take_off_gpus(&root, images, run)?;
        let mut dumping = criu
            .begin_dump(&root, images, &entry.tcp)
            .map_err(|error| Failure::new("criu.broken", format!("CRIU cannot be started: {error}")))?;
        let log = images.join("dump.log");
        let dumped = run.poll(|| match dumping.look() {
            Ok(Progress::Working) => None,
            Ok(Progress::Holding | Progress::Ended(true)) => Some(Ok(())),
            Ok(Progress::Ended(false)) => Some(Err(Failure::new("criu.dump", explain(&log)))),
            Err(error) => Some(Err(Failure::new("criu.broken", error.to_string()))),
        });
        match dumped {
            Ok(Ok(())) => {
                let criu = ProcessRef::find(dumping.child.id());
                let outputs = outputs(&self.output, &entry.spec.id);
                let outside = Outside::survey(&root, &entry.tcp, &outputs, criu.as_ref());
                let outside = outside.and_then(|outside| {
                    let written = outside.write(images).map(|()| outside);
                    written
                        .map_err(|error| Failure::new("agent.disk", format!("the images cannot be written: {error}")))
                });
                match outside {
                    Ok(outside) => {
                        let body = entry.body.clone();
                        let (images, tcp) = (images.to_owned(), outside.tcp.clone());
                        let quiet = outside.connections == 0;
                        let let_go = move || {
                            left_stopped(dumping, &root, &tcp, &log)?;
                            let Some((network, moving)) = self.moving(&tcp)? else { return Ok(()) };
                            if quiet {
                                network.unlock_run(&images)?;
                            }
                            network.take_off(moving)
                        };
                        Ok(Still { body, outside, let_go: Box::new(let_go) })
                    }
                    Err(failure) => end_dump(dumping, &root, &entry.tcp).and(Err(failure)),
                }
            }
            Ok(Err(failure)) => end_dump(dumping, &root, &entry.tcp).and(Err(failure)),
            Err(interrupted) => end_dump(dumping, &root, &entry.tcp).and(Err(interrupted.into())),
        }
    }

    fn is_image(&self, name: &str) -> bool {
        name.ends_with(".img")
    }

    fn go_on(&self, entry: &Entry) -> Result<Body, Failure> {
        let lost = |why: &str| Failure::new("source.lost", format!("the source does not run: {why}"));
        let root = entry.root().ok_or_else(|| lost("it has ended"))?;
        // It is told to go on whatever failed, before it was stopped as well.
        let was_stopped = matches!(root.condition(), Condition::Stopped | Condition::Traced);
        let moving = match self.moving(&entry.tcp) {
            Ok(moving) => moving,
            Err(_) if !was_stopped => None,
            Err(failure) => return Err(lost(&failure.message)),
        };
        if let Some((network, moving)) = moving {
            network.put_back(moving, &root, was_stopped).map_err(|failure| lost(&failure.message))?;
        }
        process::continue_tree(&root).map_err(|error| lost(&error.to_string()))?;
        if let Some((network, moving)) = moving {
            network.announce(moving);
        }
        match root
            .wait_until(|condition| condition != Condition::Stopped && condition != Condition::Traced, OBEY_WITHIN)
        {
            Condition::Running => {
                self.put_back_on_gpus(&root).map_err(|failure| lost(&failure.message))?;
                Ok(entry.body.clone())
            }
            Condition::Gone => Err(lost("it has ended")),
            Condition::Stopped | Condition::Traced => Err(lost("it stays stopped, whoever stops it")),
        }
    }

    fn fits(&self, manifest: &Manifest) -> Result<(), Failure> {
        let here = std::env::consts::ARCH;
        if manifest.architecture != here {
            let there = &manifest.architecture;
            return Err(Failure::new("snapshot.architecture", format!("it was taken on {there}, and this is {here}")));
        }
        let mine = &self.criu()?.version;
        let (Some(theirs), Some(ours)) = (version(&manifest.criu_version), version(mine)) else {
            let theirs = &manifest.criu_version;
            return Err(Failure::new(
                "snapshot.version",
                format!("it was taken by `{theirs}`, which is no CRIU version"),
            ));
        };
        if theirs > ours {
            let newer = &manifest.criu_version;
            let message = format!("it was taken by CRIU {newer}, and the older {mine} here may not read its images");
            return Err(Failure::new("snapshot.version", message));
        }
        Ok(())
    }

    fn restore(&self, manifest: &Manifest, outside: &Outside, images: &Path, run: &Run) -> Result<Copied, Failure> {
        let criu = self.criu()?;
        if let (true, Err(missing)) = (images.join(cuda::MARK).exists(), &self.cuda) {
            let message = format!("the snapshot has GPU contexts, and here they cannot be put back: {missing}");
            return Err(Failure::new("cuda.missing", message));
        }
        let given = Given::outputs(outside, &outputs(&self.output, &manifest.workload.id))
            .map_err(|error| Failure::new("agent.disk", format!("its output files cannot be opened: {error}")))?;
        let moving = self.moving(&outside.tcp)?;
        if let Some((network, moving)) = moving {
            network.hold(moving)?;
        }
        let early = self.is_lazy(criu, &given, images, manifest.total_bytes, run);
        let copied = self.restore_held(criu, &given, images, early, run);
        match (copied, moving) {
            (Err(failure), Some((network, moving))) => {
                network.release(moving).map_err(|left| Failure::new("restore.left", left.message))?;
                Err(failure)
            }
            (copied, _) => copied,
        }
    }

    fn reach(&self, entry: &Entry) -> Result<(), Failure> {
        self.moving(&entry.tcp)?.map_or(Ok(()), |(network, moving)| network.reach(moving))
    }

    fn drill(&self, images: &Path, run: &Run) -> Result<usize, Failure> {
        let criu = self.criu()?;
        let stand_ins = rehearsal::stand_ins(images)?;
        let given = Given::nothing(&Outside::read(images)?)
            .map_err(|error| Failure::new("agent.disk", format!("/dev/null cannot be opened: {error}")))?;
        let pid_file = images.join("root.pid");
        let mut child = criu
            .begin_drill(images, &pid_file, &stand_ins, &given)
            .map_err(|error| Failure::new("criu.broken", format!("CRIU cannot be started: {error}")))?;
        let seen = restored(&mut child, images, &pid_file, run).and_then(|(root, _)| {
            match root.wait_until(|condition| matches!(condition, Condition::Stopped | Condition::Gone), OBEY_WITHIN) {
                Condition::Stopped => Ok(tree(&root).len()),
                Condition::Running | Condition::Traced | Condition::Gone => {
                    Err(Failure::new("criu.restore", "CRIU reported success, and yet no stopped copy is there"))
                }
            }
        });
        end_restore(child)?;
        seen
    }

    fn end(&self, entry: &Entry) -> Result<(), Failure> {
        let moving = self.moving(&entry.tcp)?;
        if let Some((network, moving)) = moving {
            network.silence(moving, entry.root().as_ref())?;
        }
        match entry.end(OBEY_WITHIN) {
            Ok(true) => moving.map_or(Ok(()), |(network, moving)| {
                network.unlock(moving)?;
                network.release(moving)
            }),
            Ok(false) => Err(Failure::new("process.left", "some of its processes do not end, though they were killed")),
            Err(error) => Err(Failure::new("process.left", format!("it cannot be killed: {error}"))),
        }
    }

    fn clear_up(&self, images: &Path) -> Result<(), Failure> {
        let left = users_of(images);
        // A dump holds the workload by its innards: it is given the time to let go by itself. A restore is not.
        let says = |process: &ProcessRef, wanted: &str| command_line(process.pid).iter().any(|word| word == wanted);
        for process in left.iter().filter(|process| says(process, "dump")) {
            // Except one that holds connections: it waits to be killed. What it holds must do nothing of its own then,
            // until its sockets are put back.
            if says(process, MOVES_CONNECTIONS) {
                // Not in the middle of what it does to the workload: only once it holds, or has given up by itself.
                info!(pid = process.pid, "a dump that was left behind is ended once it holds");
                let holds = || fs::metadata(images.join(INVENTORY)).is_ok_and(|inventory| inventory.len() > 0);
                let settled = || (holds() || process.condition() == Condition::Gone).then_some(());
                if process::poll(LEFTOVER_WITHIN, settled).is_none() {
                    warn!(pid = process.pid, "a dump that was left behind does not come to hold; it is killed");
                }
                process.traced().iter().for_each(address::stop);
                continue;
            }
            if process.wait_until(|condition| condition == Condition::Gone, LEFTOVER_WITHIN) != Condition::Gone {
                warn!(pid = process.pid, "a dump that was left behind does not end by itself; it is killed");
            }
        }
        // Nothing was begun with images that are not whole.
        let outside = Outside::read(images).unwrap_or_default();
        let moving = self.moving(&outside.tcp);
        let held = matches!(&moving, Ok(Some((network, moving))) if network.is_held(moving).unwrap_or(false));
        // Whatever may miss a page goes before the daemon that would bring it.
        let (daemons, others): (Vec<_>, Vec<_>) =
            users_of(images).into_iter().partition(|process| says(process, PAGES));
        for processes in [others, daemons] {
            let all: Vec<ProcessRef> = processes.iter().flat_map(tree).collect();
            for process in &processes {
                if held {
                    address::hush(process);
                }
                process.signal(Signal::KILL).map_err(|error| Failure::new("process.left", error.to_string()))?;
            }
            let gone = || all.iter().all(|process| process.condition() == Condition::Gone).then_some(());
            process::poll(OBEY_WITHIN, gone).ok_or_else(|| {
                Failure::new("process.left", "what was left of CRIU does not end, though it was killed")
            })?;
        }
        let released = moving.and_then(|moving| moving.map_or(Ok(()), |(network, moving)| network.release(moving)));
        released.map_err(|left| Failure::new("process.left", left.message))
    }
}

/// Has CRIU let go, and sees that what it held is stopped.
fn left_stopped(mut dumping: Dumping, root: &ProcessRef, tcp: &Tcp, log: &Path) -> Result<(), Failure> {
    let watch = Stopwatch::start();
    let mut ended = dumping.let_go().map(|()| Progress::Working);
    while matches!(ended, Ok(Progress::Working | Progress::Holding)) && watch.elapsed() < OBEY_WITHIN {
        ended = dumping.look();
    }
    match ended {
        Ok(Progress::Ended(true)) => {}
        Ok(Progress::Ended(false)) => return Err(Failure::new("criu.dump", explain(log))),
        Ok(Progress::Working | Progress::Holding) | Err(_) => {
            end_dump(dumping, root, tcp)?;
            return Err(Failure::new("criu.dump", "CRIU did not let go of the source in time, and was killed"));
        }
    }
    // CRIU may be gone a moment before the kernel has the process stopped.
    match root.wait_until(|condition| matches!(condition, Condition::Stopped | Condition::Gone), OBEY_WITHIN) {
        Condition::Stopped => Ok(()),
        Condition::Running | Condition::Traced | Condition::Gone => {
            Err(Failure::new("criu.dump", "CRIU reported success, and yet the source is not stopped"))
        }
    }
}

/// Ends CRIU, if it has not ended. It lets go of what it holds when it is killed; the caller lets the workload go on. It
/// may be behind a program that entered namespaces for it.
fn end_dump(mut dumping: Dumping, root: &ProcessRef, tcp: &Tcp) -> Result<(), Failure> {
    if matches!(tcp, Tcp::Move(_)) {
        // Its sockets are CRIU's until they are put back, and would fail it if it ran.
        address::stop(root);
    }
    if !matches!(dumping.child.try_wait(), Ok(Some(_)))
        && let Some(criu) = ProcessRef::find(dumping.child.id())
    {
        process::end_tree(&criu, OBEY_WITHIN)
            .map_err(|error| Failure::new("process.left", format!("CRIU cannot be killed: {error}")))?;
    }
    let _ = dumping.child.wait();
    Ok(())
}

/// Waits until CRIU says that the processes are restored; gives their root, and the init of their namespace.
fn restored(child: &mut Child, images: &Path, pid_file: &Path, run: &Run) -> Result<(ProcessRef, ProcessRef), Failure> {
    let log = images.join("restore.log");
    let restored = run.poll(|| match child.try_wait() {
        Ok(None) => {
            let text = tail(&log, RESTORED_WITHIN_BYTES).unwrap_or_default();
            text.contains(RESTORED).then_some(Ok(()))
        }
        Ok(Some(_)) => Some(Err(Failure::new("criu.restore", explain(&log)))),
        Err(error) => Some(Err(Failure::new("criu.broken", error.to_string()))),
    });
    restored.map_err(Failure::from).and_then(|restored| restored).and_then(|()| {
        find_root(child, pid_file)
            .ok_or_else(|| Failure::new("criu.restore", "CRIU reported success, and yet no restored process is there"))
    })
}

fn no_pages(why: String) -> Failure {
    Failure::new("criu.pages", format!("its memory cannot be brought while it runs: {why}"))
}

/// Gives a copy that was left stopped its outputs, sees that it gets its memory or nothing, and lets it begin.
fn let_begin(root: &ProcessRef, given: &Given, pages: Option<&mut Pages>) -> Result<(), Failure> {
    let failed = |why: String| Failure::new("criu.restore", format!("the copy was restored and does not begin: {why}"));
    let settled = |condition: Condition| matches!(condition, Condition::Stopped | Condition::Gone);
    if root.wait_until(settled, OBEY_WITHIN) != Condition::Stopped {
        return Err(failed("it is not stopped, as CRIU was to leave it".into()));
    }
    if let Some(pages) = pages {
        pages.hold(&tree(root)).map_err(no_pages)?;
    }
    given.append(&tree(root)).map_err(|error| failed(format!("its output files are not its own: {error}")))?;
    process::continue_tree(root).map_err(|error| failed(error.to_string()))?;
    match root.wait_until(|condition| condition != Condition::Stopped, OBEY_WITHIN) {
        Condition::Running => Ok(()),
        Condition::Stopped | Condition::Traced | Condition::Gone => Err(failed("it does not go on".into())),
    }
}

/// Ends CRIU with all that it restored: it is the init of their namespace.
fn end_restore(mut child: Child) -> Result<(), Failure> {
    let mut all = vec![];
    if let Some(init) = init_of(child.id()) {
        all = tree(&init);
        init.signal(Signal::KILL).map_err(|error| Failure::new("restore.left", error.to_string()))?;
    }
    let _ = child.kill();
    let _ = child.wait();
    let gone = || all.iter().all(|process| process.condition() == Condition::Gone).then_some(());
    process::poll(OBEY_WITHIN, gone)
        .ok_or_else(|| Failure::new("restore.left", "what was restored does not end, though it was killed"))
}

/// Programs that were started with these images. The folder's name holds an order's key, which nobody else's
/// command line has. The restored workload itself has its own command line, and ends with its namespace's init.
fn users_of(images: &Path) -> Vec<ProcessRef> {
    let images = images.display().to_string();
    let Ok(all) = procfs::process::all_processes() else { return vec![] };
    all.flatten()
        .filter_map(|process| u32::try_from(process.pid()).ok())
        .filter(|pid| command_line(*pid).contains(&images))
        .filter_map(ProcessRef::find)
        .collect()
}

fn command_line(pid: u32) -> Vec<String> {
    let process = i32::try_from(pid).ok().and_then(|pid| procfs::process::Process::new(pid).ok());
    process.and_then(|process| process.cmdline().ok()).unwrap_or_default()
}

/// The first process of the namespaces that `unshare` made: its only child.
fn init_of(unshare: u32) -> Option<ProcessRef> {
    let unshare = ProcessRef::find(unshare)?;
    unshare.descendants().first().copied()
}

/// The restored root as this machine sees it, and the init of its namespace.
fn find_root(unshare: &Child, pid_file: &Path) -> Option<(ProcessRef, ProcessRef)> {
    let inside: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    let init = init_of(unshare.id())?;
    let root = init.descendants().into_iter().find(|process| process.pid_in_namespace() == Some(inside))?;
    Some((root, init))
}

/// Major, minor and patch.
fn version(text: &str) -> Option<(u32, u32, u32)> {
    let mut parts = text.split(['.', '-']).map(|part| part.parse().ok());
    let major = parts.next()??;
    Some((major, parts.next().flatten().unwrap_or(0), parts.next().flatten().unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions() {
        assert_eq!(version("4.2.1"), Some((4, 2, 1)));
        assert_eq!(version("4.1"), Some((4, 1, 0)));
        assert_eq!(version("3.17-dirty"), Some((3, 17, 0)));
        assert!(version("4.10") > version("4.2.1"));
        assert_eq!(version("simulated"), None);
    }
}
