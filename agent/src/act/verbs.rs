//! Each verb from its beginning to its outcome, and what becomes of one that a crash cut short.
//!
//! The promise behind every failure: `failed` means that nothing was left half done and a source that was stopped runs
//! again. Where that cannot be seen to be so, the outcome is `unknown` and calls a person.

use super::{
    check::{MANIFEST, Refusal, Task},
    control::{self, Control},
    hands::{Copied, Failure, Hands, Still},
    images::Images,
    outside::{End, Outside},
    pages::Pages,
    run::Run,
    snapshot::{self, ahead::Ahead, precopy, send::Sender},
};
use crate::{
    clock,
    workloads::{Body, Entry, Registry, State},
};
use aether_core::{
    catalogue::{evidence, verb},
    id::{Digest, NodeId, SnapshotId},
    order::{IdempotencyKey, Outcome, OutcomeStatus},
    snapshot::Manifest,
    time::Time,
    value::{MAX_EXACT, Value},
};
use std::{collections::BTreeMap, io, sync::Arc};
use tracing::warn;

/// Looks in which a workload that tells no progress must have been alive and used time.
const ALIVE_LOOKS: u32 = 250;

/// Carries out orders that were admitted.
pub struct Executor {
    pub node: NodeId,
    pub hands: Box<dyn Hands>,
    pub registry: Arc<Registry>,
    /// The verbs that change a setting.
    pub control: Control,
    /// Where CRIU's images lie.
    pub images: Images,
    /// What came before it is needed.
    pub ahead: Ahead,
}

/// How a verb ended, before it is an outcome.
pub struct Done {
    pub status: OutcomeStatus,
    pub code: String,
    pub message: String,
    pub evidence: BTreeMap<String, Value>,
    pub outputs: BTreeMap<String, String>,
}

impl Done {
    pub fn with(status: OutcomeStatus, code: impl Into<String>, message: impl Into<String>) -> Self {
        let (evidence, outputs) = (BTreeMap::new(), BTreeMap::new());
        Self { status, code: code.into(), message: message.into(), evidence, outputs }
    }
    pub fn ok(message: impl Into<String>) -> Self {
        Self::with(OutcomeStatus::Succeeded, "ok", message)
    }
    pub fn failed(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::with(OutcomeStatus::Failed, code, message)
    }
    pub fn unknown(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::with(OutcomeStatus::Unknown, code, message)
    }
    pub fn evidence(mut self, name: &str, value: Value) -> Self {
        self.evidence.insert(name.into(), value);
        self
    }
    fn progress(self, name: &str, progress: Option<u64>) -> Self {
        match progress.and_then(|progress| i64::try_from(progress.min(MAX_EXACT)).ok()) {
            Some(progress) => self.evidence(name, Value::Integer(progress)),
            None => self,
        }
    }
}

impl Executor {
    /// Whether the order can be done here and now. What can change is looked at again right before the deed.
    pub fn ready(&self, task: &Task) -> Result<(), Refusal> {
        if Control::knows(&task.verb) { self.control.ready(task) } else { self.hands.ready(&task.verb) }
    }

    /// Carries out an admitted order. Blocks until it is over.
    pub fn carry_out(&self, run: &Run) -> Outcome {
        let started_at = clock::now();
        let task = run.task();
        if task.dry_run {
            let done = if Control::knows(&task.verb) {
                self.control.foretell(task)
            } else {
                control::dry(task, "", BTreeMap::new())
            };
            return self.outcome(done, started_at, true);
        }
        if Control::knows(&task.verb) {
            let done = self.control.carry_out(run).evidence(evidence::TOOK, Value::Duration(run.elapsed_ms()));
            return self.outcome(done, started_at, false);
        }
        let done = match task.verb.as_str() {
            verb::CHECKPOINT => self.checkpoint(run),
            verb::RESUME => self.resume(task),
            verb::RESTORE => self.restore(run),
            verb::RESTORE_DRILL => self.drill(run),
            verb::CONFIRM => self.confirm(run),
            verb::DISCARD => self.discard(task),
            verb::RETIRE => self.retire(task),
            // Admission knows these and those of `control` alone.
            other => {
                Done::failed("order.verb", format!("this agent does not know how to do `{other}`; nothing was done"))
            }
        };
        let done = done.evidence(evidence::TOOK, Value::Duration(run.elapsed_ms()));
        self.outcome(done, started_at, self.hands.simulated())
    }

    fn outcome(&self, done: Done, started_at: Time, simulated: bool) -> Outcome {
        let Done { status, code, message, evidence, outputs } = done;
        Outcome { status, code, message, evidence, outputs, simulated, started_at, ended_at: clock::now() }
    }

    /// The outcome of an order that a crash cut short; none if it may simply be run again.
    pub fn settle(&self, task: &Task, phase: Option<&str>) -> Option<Outcome> {
        let started_at = clock::now();
        const CODE: &str = "agent.restarted";
        let cut = format!("the agent was restarted in the middle of it ({})", phase.unwrap_or("before it was begun"));
        if Control::knows(&task.verb) && !task.dry_run {
            return self.control.settle(task, phase).map(|done| self.outcome(done, started_at, false));
        }
        let entry = self.registry.get(&task.workload);
        let done = match task.verb.as_str() {
            verb::CONFIRM => return None,
            _ if task.dry_run => return None,
            verb::CHECKPOINT => {
                let cleared = self.clear_up(&task.order.key);
                self.images.forget(&task.order.key);
                match (cleared, entry.filter(|entry| entry.generation == task.target.generation)) {
                    (Ok(()), Some(entry)) => self.source_goes_on(&entry, CODE, &cut),
                    (Ok(()), None) => Done::unknown(CODE, format!("{cut}, and the source is not known here any more")),
                    (Err(left), _) => Done::unknown(CODE, format!("{cut}, and {left}")),
                }
            }
            verb::RESUME => self.resume(task),
            verb::RESTORE => match entry.filter(|entry| entry.generation == task.target.generation + 1) {
                Some(entry) if entry.state == State::Running => {
                    self.images.forget(&task.order.key);
                    match self.hands.reach(&entry) {
                        Ok(()) => {
                            Done::ok("restored; the agent was restarted before it could say so, and the workload runs")
                        }
                        Err(failure) => {
                            let message = format!("{cut}; the copy runs, and cannot be reached: {}", failure.message);
                            Done::unknown(CODE, message)
                        }
                    }
                }
                Some(_) => Done::unknown(CODE, format!("{cut}, and the restored workload does not run")),
                None => {
                    let cleared = self.clear_up(&task.order.key);
                    self.images.forget(&task.order.key);
                    match cleared {
                        Ok(()) => Done::failed(CODE, format!("{cut}; nothing of a copy is left")),
                        Err(left) => Done::unknown(CODE, format!("{cut}, and {left}")),
                    }
                }
            },
            verb::RESTORE_DRILL => {
                let cleared = self.clear_up(&task.order.key);
                self.images.forget(&task.order.key);
                match cleared {
                    Ok(()) => Done::failed(CODE, format!("{cut}; nothing of the copy is left")),
                    Err(left) => Done::unknown(CODE, format!("{cut}, and {left}")),
                }
            }
            verb::DISCARD => self.discard(task),
            verb::RETIRE => match entry {
                None => Done::ok("the source is gone"),
                Some(entry) if entry.state == State::Exited => self.retire_entry(&entry),
                Some(_) => Done::failed(CODE, format!("{cut}; the source is still there, stopped")),
            },
            other => Done::unknown(CODE, format!("{cut}, and this agent does not know `{other}`")),
        };
        Some(self.outcome(done, started_at, self.hands.simulated()))
    }

    /// Removes images that a crash left behind, once every order that it cut short is settled.
    pub fn forget_all_images(&self) {
        self.images.forget_all();
    }

    /// Ends what a crash left of CRIU, wherever its images are.
    fn clear_up(&self, key: &IdempotencyKey) -> Result<(), Failure> {
        self.images.places(key).iter().try_for_each(|images| self.hands.clear_up(images))
    }

    fn checkpoint(&self, run: &Run) -> Done {
        let task = run.task();
        let Some(entry) = self.registry.get(&task.workload) else {
            return Done::failed("target.missing", "the workload left before it could be dumped; nothing was done");
        };
        let taken = self.take(run, &entry);
        self.images.forget(&task.order.key);
        match taken {
            Ok(done) => done,
            Err(failure) => self.source_goes_on(&entry, &failure.code, &failure.message),
        }
    }

    /// Dumps and stores; on failure the source may be stopped.
    fn take(&self, run: &Run, entry: &Entry) -> Result<Done, Failure> {
        let task = run.task();
        let io = |error: io::Error| {
            Failure::new("agent.disk", format!("the agent's state folder cannot be written: {error}"))
        };
        let stored =
            |error: snapshot::Error| Failure::new(error.code(), format!("the snapshot was not stored: {error}"));
        self.hands.examine(entry)?;
        let root = entry.root();
        let resident_bytes = root.map_or(0, |root| root.tree_resident_bytes());
        let sender = Sender::new(run, resident_bytes);
        let mut ahead = snapshot::send::Precopied::default();
        if let Some(root) = &root {
            run.phase("copying ahead").map_err(io)?;
            ahead = sender.precopy(root).map_err(stored)?;
        }
        let memories = root.map(|root| precopy::survey(&root, sender.chunk_bytes)).unwrap_or_default();
        let holds = self.hands.holds();
        let written = |memory: &precopy::Memory| if holds { memory.written_bytes } else { memory.bytes() };
        let expected = memories.iter().map(written).sum();
        let images = self.images.make(&task.order.key, expected).map_err(io)?;
        self.images.warm(&images, expected);
        run.phase("dumping").map_err(io)?;
        let before_ms = run.elapsed_ms();
        let taken_at = clock::now();
        let Still { body, outside, let_go } = self.hands.dump(entry, &images, run)?;
        let dump_ms = run.elapsed_ms() - before_ms;
        // It stands still from here on: what can be done side by side is.
        let stopped = Entry { state: State::Stopped, since: clock::now(), body, ..entry.clone() };
        // The source stands still, so this is the progress of its memory.
        let progress = stopped.progress(clock::now());
        let sent = std::thread::scope(|scope| {
            let keeping = scope.spawn(|| self.put(stopped));
            let sent = sender.finish(&images, root.as_ref(), |name| self.hands.is_image(name)).map_err(stored);
            let kept = keeping.join().unwrap_or_else(|_| Err(io(io::Error::other("a thread failed"))));
            kept.and(sent)
        });
        // Its memory is read, or will not be.
        let (files, total_bytes) = match sent {
            Ok(sent) => sent,
            Err(failure) => return let_go().and(Err(failure)),
        };
        let hashed_ms = run.elapsed_ms() - before_ms - dump_ms;
        let count = files.len();
        let manifest = Manifest {
            schema_version: Manifest::SCHEMA_VERSION,
            snapshot: SnapshotId(task.order.key.0.clone()),
            workload: entry.spec.clone(),
            generation: entry.generation,
            source: self.node.clone(),
            taken_at,
            progress,
            criu_version: self.hands.version(),
            kernel_release: rustix::system::uname().release().to_string_lossy().into_owned(),
            architecture: std::env::consts::ARCH.into(),
            files,
            total_bytes,
        };
        let digest = std::thread::scope(|scope| {
            let letting_go = scope.spawn(let_go);
            let digest = snapshot::send_manifest(run, &manifest).map_err(stored);
            let left = letting_go.join().unwrap_or_else(|_| Err(io(io::Error::other("a thread failed"))));
            left.and(digest)
        })?;
        let late_bytes = sender.sent_bytes().saturating_sub(ahead.sent_bytes);
        let mut message = format!(
            "dumped in {dump_ms} ms and stored {total_bytes} bytes, {late_bytes} of them after it was stopped; the source is stopped"
        );
        if let Some(note) = outside.note() {
            message = format!("{message}; {note}");
        }
        let mut done = Done::ok(message)
            .evidence("bytes", Value::Bytes(total_bytes))
            .evidence("bytes-late", Value::Bytes(late_bytes))
            .evidence(evidence::RESIDENT, Value::Bytes(resident_bytes))
            .evidence("copied-ahead", Value::Duration(before_ms))
            .evidence("hashed", Value::Duration(hashed_ms))
            .evidence("stored", Value::Duration(run.elapsed_ms() - before_ms - dump_ms))
            .evidence("files", Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)))
            .evidence("dump", Value::Duration(dump_ms))
            .progress("progress", progress);
        let left = [
            ("pipes-written", outside.pipes_of(End::Writes)),
            ("pipes-read", outside.pipes_of(End::Reads)),
            ("connections-closed", usize::try_from(outside.connections().0).unwrap_or(usize::MAX)),
            ("connections-moved", usize::try_from(outside.connections().1).unwrap_or(usize::MAX)),
        ];
        for (name, count) in left.into_iter().filter(|(_, count)| *count > 0) {
            done = done.evidence(name, Value::Integer(i64::try_from(count).unwrap_or(i64::MAX)));
        }
        done.outputs.insert(MANIFEST.into(), digest.0);
        Ok(done)
    }

    /// After a checkpoint that failed: the source goes on, as the next generation, so that nothing that was meant for
    /// the stopped one (or says the same again) reaches it.
    fn source_goes_on(&self, entry: &Entry, code: &str, why: &str) -> Done {
        match self.go_on(entry) {
            Ok(()) => Done::failed(code, format!("{why}. The source is running, and nothing of it is lost")),
            Err(lost) => Done::unknown(code, format!("{why}. And then: {lost}")),
        }
    }

    fn go_on(&self, entry: &Entry) -> Result<(), Failure> {
        let body = self.hands.go_on(entry)?;
        self.put(Entry {
            generation: entry.generation + 1,
            state: State::Running,
            since: clock::now(),
            body,
            ..entry.clone()
        })
    }

    fn put(&self, entry: Entry) -> Result<(), Failure> {
        let kept = self.registry.put(entry);
        kept.map_err(|error| Failure::new("agent.disk", format!("the workload's state cannot be kept: {error}")))
    }

    fn resume(&self, task: &Task) -> Done {
        match self.registry.get(&task.workload) {
            Some(entry) if entry.generation == task.target.generation => match self.go_on(&entry) {
                Ok(()) => Done::ok("the source goes on").progress("progress", entry.progress(clock::now())),
                Err(failure) => Done::failed(failure.code, failure.message),
            },
            // After a restart: it was done before the crash.
            Some(entry) if entry.generation == task.target.generation + 1 && entry.state == State::Running => {
                Done::ok("the source goes on")
            }
            Some(_) | None => Done::failed("source.lost", "the source is not known here any more"),
        }
    }

    fn restore(&self, run: &Run) -> Done {
        let task = run.task();
        let restored = self.bring(run);
        self.images.forget(&task.order.key);
        restored.unwrap_or_else(|failure| match failure.code.as_str() {
            "restore.left" | "process.left" => Done::unknown(failure.code, failure.message),
            _ => Done::failed(failure.code, format!("{}. Nothing is left of the copy", failure.message)),
        })
    }

    /// Fetches, verifies all, and only then restores.
    fn bring(&self, run: &Run) -> Result<Done, Failure> {
        let task = run.task();
        let io = |error: io::Error| {
            Failure::new("agent.disk", format!("the agent's state folder cannot be written: {error}"))
        };
        let fetched = |error: snapshot::Error| Failure::new(error.code(), format!("nothing was restored: {error}"));
        let digest = Digest(task.order.inputs.get(MANIFEST).cloned().unwrap_or_default());
        let manifest = snapshot::fetch_manifest(run, &digest).map_err(fetched)?;
        let read_ms = run.elapsed_ms();
        if manifest.workload.id != task.workload || manifest.generation != task.target.generation {
            let message = format!(
                "the snapshot is of {} generation {}, and the order is for {}",
                manifest.workload.id, manifest.generation, task.target
            );
            return Err(Failure::new("snapshot.other", message));
        }
        self.hands.fits(&manifest)?;
        let stage = self.ahead.take(manifest.snapshot.as_str());
        let snapshot::fetch::Fetched { folder: images, ahead_bytes } =
            snapshot::fetch::fetch(run, &manifest, &self.images, stage).map_err(fetched)?;
        let fetch_ms = run.elapsed_ms() - read_ms;
        run.phase("restoring").map_err(io)?;
        let before_ms = run.elapsed_ms();
        let outside = Outside::read(&images)?;
        let Copied { body, pages } = self.hands.restore(&manifest, &outside, &images, run)?;
        let restore_ms = run.elapsed_ms() - before_ms;
        let entry = Entry {
            spec: manifest.workload.clone(),
            generation: task.target.generation + 1,
            state: State::Running,
            since: clock::now(),
            body,
            adopted: false,
            tcp: outside.tcp.clone(),
        };
        let lazy = pages.is_some();
        if let Some(pages) = pages {
            self.complete(run, pages, &entry)?;
        }
        let whole_ms = run.elapsed_ms() - before_ms;
        if let Err(failure) = self.put(entry.clone()) {
            // A copy that this agent would not know after a restart must not live.
            self.hands.end(&entry)?;
            return Err(failure);
        }
        self.hands.reach(&entry).map_err(|failure| {
            let message = format!("it was restored and runs, and yet cannot be reached: {}", failure.message);
            Failure::new("restore.left", message)
        })?;
        let mut message = format!("verified {} bytes and restored in {restore_ms} ms", manifest.total_bytes);
        if lazy {
            message = format!("{message}, with all of its memory after {whole_ms} ms");
        }
        if let Some(note) = outside.note() {
            message = format!("{message}; {note}");
        }
        Ok(Done::ok(message)
            .evidence("bytes", Value::Bytes(manifest.total_bytes))
            .evidence("bytes-ahead", Value::Bytes(ahead_bytes))
            .evidence("read", Value::Duration(read_ms))
            .evidence("fetch", Value::Duration(fetch_ms))
            .evidence("journaled", Value::Duration(before_ms))
            .evidence("restore", Value::Duration(restore_ms))
            .evidence("whole", Value::Duration(whole_ms))
            .progress("snapshot-progress", manifest.progress))
    }

    /// Waits until a copy that runs has all of its memory. One that will not have it is ended, and only then is it let go
    /// of those who wait for a page.
    fn complete(&self, run: &Run, mut pages: Pages, copy: &Entry) -> Result<(), Failure> {
        let arrived = run.poll(|| pages.look()).map_err(Failure::from).and_then(|arrived| {
            arrived.map_err(|why| Failure::new("criu.pages", format!("not all of its memory came: {why}")))
        });
        if arrived.is_err() {
            self.hands.end(copy)?;
        }
        drop(pages);
        arrived
    }

    fn drill(&self, run: &Run) -> Done {
        let drilled = self.rehearse(run);
        self.images.forget(&run.task().order.key);
        drilled.unwrap_or_else(|failure| match failure.code.as_str() {
            "restore.left" | "process.left" => Done::unknown(failure.code, failure.message),
            _ => Done::failed(failure.code, format!("{}. Nothing is left of the copy", failure.message)),
        })
    }

    /// Fetches and verifies all, as a restore does, and restores it where nobody notices.
    fn rehearse(&self, run: &Run) -> Result<Done, Failure> {
        let task = run.task();
        let fetched = |error: snapshot::Error| Failure::new(error.code(), format!("nothing was restored: {error}"));
        let digest = Digest(task.order.inputs.get(MANIFEST).cloned().unwrap_or_default());
        let manifest = snapshot::fetch_manifest(run, &digest).map_err(fetched)?;
        self.hands.fits(&manifest)?;
        if !self.images.leaves_memory(manifest.total_bytes) {
            let message = format!("a copy of {} bytes would leave too little memory here", manifest.total_bytes);
            return Err(Failure::new("drill.memory", message));
        }
        let folder = snapshot::fetch::fetch(run, &manifest, &self.images, None).map_err(fetched)?.folder;
        run.phase("restoring").map_err(|error| {
            Failure::new("agent.disk", format!("the agent's state folder cannot be written: {error}"))
        })?;
        let before_ms = run.elapsed_ms();
        let processes = self.hands.drill(&folder, run)?;
        let restore_ms = run.elapsed_ms() - before_ms;
        let total_bytes = manifest.total_bytes;
        let message = format!(
            "verified {total_bytes} bytes and restored {processes} processes in {restore_ms} ms, stopped; the copy is gone"
        );
        Ok(Done::ok(message)
            .evidence("bytes", Value::Bytes(total_bytes))
            .evidence("processes", Value::Integer(i64::try_from(processes).unwrap_or(i64::MAX)))
            .evidence("restore", Value::Duration(restore_ms)))
    }

    fn confirm(&self, run: &Run) -> Done {
        match self.see_progress(run) {
            Ok(done) => done,
            Err(failure) => Done::failed(failure.code, failure.message),
        }
    }

    fn see_progress(&self, run: &Run) -> Result<Done, Failure> {
        let task = run.task();
        let wanted = task.target.generation + 1;
        let since = match task.order.inputs.get(MANIFEST) {
            Some(digest) => {
                let manifest = snapshot::fetch_manifest(run, &Digest(digest.clone()));
                manifest
                    .map_err(|error| {
                        Failure::new(error.code(), format!("the snapshot's progress is not known: {error}"))
                    })?
                    .progress
            }
            None => None,
        };
        let gone = || Failure::new("progress.none", "the restored workload has ended");
        let here = || self.registry.get(&task.workload).filter(|entry| entry.generation == wanted);
        let first = here().ok_or_else(gone)?;
        let cpu = |entry: &Entry| entry.cpu().map_or(0.0, |(user, system)| user + system);
        let cpu_before = cpu(&first);
        let mut looks = 0u32;
        let mut last = None;
        let seen = run.poll(|| {
            let Some(entry) = here() else { return Some(Err(gone())) };
            if entry.state == State::Exited {
                return Some(Err(gone()));
            }
            looks += 1;
            last = entry.progress(clock::now());
            match (since, last) {
                (Some(since), Some(now)) => (now > since).then_some(Ok(Some(now))),
                // It tells no progress, or told none then: being alive and at work is what can be seen.
                (None, _) | (Some(_), None) => {
                    let worked = looks > ALIVE_LOOKS && since.is_none();
                    (worked && (cpu(&entry) > cpu_before || looks > 4 * ALIVE_LOOKS)).then_some(Ok(last))
                }
            }
        });
        match seen {
            Ok(Ok(progress)) => {
                let message = match (since, progress) {
                    (Some(since), Some(progress)) => format!("progressed from {since} to {progress}"),
                    _ => "alive and at work; it tells no progress".into(),
                };
                Ok(Done::ok(message).progress("progress", progress).progress("snapshot-progress", since))
            }
            Ok(Err(failure)) => Err(failure),
            Err(super::run::Interrupted::Deadline) => {
                let told = last.map_or_else(|| "nothing".to_string(), |progress| progress.to_string());
                let since = since.map_or_else(|| "nothing".to_string(), |progress| progress.to_string());
                let message = format!("no progress was seen in time: it tells {told}, and the snapshot had {since}");
                Err(Failure::new("progress.none", message))
            }
            Err(interrupted) => Err(interrupted.into()),
        }
    }

    fn discard(&self, task: &Task) -> Done {
        // A restore that was cut short may have left something that is in no register.
        // One that is known will be ended in the usual way.
        let copy = task.target.generation + 1;
        if self.registry.get(&task.workload).is_none_or(|entry| entry.generation != copy)
            && let Err(left) = self.clear_up(&task.forward)
        {
            return Done::unknown(left.code, left.message);
        }
        match self.registry.get(&task.workload) {
            None => Done::ok("no copy is here"),
            Some(entry) => match self.hands.end(&entry) {
                Ok(()) => self.leave(&entry, "the copy is gone"),
                Err(failure) => Done::unknown(failure.code, failure.message),
            },
        }
    }

    fn retire(&self, task: &Task) -> Done {
        match self.registry.get(&task.workload) {
            None => Done::ok("the source is gone"),
            Some(entry) => self.retire_entry(&entry),
        }
    }

    fn retire_entry(&self, entry: &Entry) -> Done {
        match self.hands.end(entry) {
            Ok(()) => self.leave(entry, "the source is gone"),
            Err(failure) => Done::unknown(failure.code, failure.message),
        }
    }

    fn leave(&self, entry: &Entry, message: &str) -> Done {
        match self.registry.depart(&entry.spec.id, entry.generation) {
            Ok(()) => Done::ok(message),
            Err(error) => {
                let entry = Entry { state: State::Exited, body: Body::Gone, ..entry.clone() };
                warn!(workload.id = %entry.spec.id, %error, "it is gone, but that cannot be kept");
                Done::ok(format!("{message}; that could not be kept on disk ({error}), so a restart may start it anew"))
            }
        }
    }
}
