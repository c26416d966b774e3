//! Verbs that change a setting, on real processes and real cgroups: done, seen, undone, foretold, and refused.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_core::{
    catalogue::{argument, verb},
    order::{
        Direction, Outcome,
        OutcomeStatus::{Failed, Succeeded},
    },
    plan::Plan,
    subject::{SubjectKind, Target},
    value::Value,
};
use aether_proto::v1::WorkloadState::{Exited, Running, Stopped};
use common::{Agent, Counter, Host, Wanted, single, wanted};
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

fn workload(id: &str) -> Target {
    Target { kind: SubjectKind::Workload, id: id.into(), generation: 1 }
}

struct Scene {
    host: Host,
    agent: Agent,
    folder: tempfile::TempDir,
}

impl Scene {
    /// An agent with the workloads of this configuration.
    async fn with(config: impl FnOnce(&Path) -> PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let host = Host::start().await;
        let config = config(folder.path());
        let agent = Agent::new(folder.path(), "node-a", &host.address, &["--config", config.to_str().unwrap()]);
        host.connected("node-a").await;
        Self { host, agent, folder }
    }

    /// With a process that runs already as the workload `w`.
    async fn adopting(pid: u32) -> Self {
        Self::with(|folder| {
            let config = folder.join("agent.toml");
            fs::write(&config, format!("[[workloads]]\nid = \"w\"\nadopt_pid = {pid}\n")).unwrap();
            config
        })
        .await
    }

    async fn carry_out(&self, plan: &Plan) -> Outcome {
        self.host.carry_out("node-a", plan, 0, &[]).await
    }

    async fn undo(&self, plan: &Plan) -> Outcome {
        let undo = Wanted { direction: Direction::Compensate, ..wanted("node-a", plan, 0, &[]) };
        let key = self.host.dispatch(undo).await;
        self.host.outcome("node-a", &key).await
    }

    async fn refused(&self, plan: &Plan) -> (String, String) {
        let key = self.host.dispatch(wanted("node-a", plan, 0, &[])).await;
        let refusal = self.host.refusal("node-a", &key).await;
        (refusal.code, refusal.reason)
    }
}

fn text<'a>(outcome: &'a Outcome, name: &str) -> &'a str {
    outcome.evidence.get(name).and_then(Value::as_text).unwrap_or_else(|| panic!("{name}: {outcome:?}"))
}

/// A process that ends with the test.
struct Process(Child);

impl Process {
    fn shell(script: &str) -> Self {
        let mut command = Command::new("setsid");
        let command = command.args(["/bin/sh", "-c", script]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Some(root) = aether_agent::process::ProcessRef::find(self.0.id()) {
            let _ = aether_agent::process::end_tree(&root, std::time::Duration::from_secs(5));
        }
        let _ = self.0.wait();
    }
}

/// Cgroups of a process's own, in each hierarchy that this machine lets us write; gone when the test ends.
struct Own {
    _process: Process,
    folders: Vec<PathBuf>,
}

impl Own {
    fn of(process: Process, points: &[&str]) -> Option<Self> {
        let name = format!("aether-test-{}", process.0.id());
        let mut own = Self { _process: process, folders: vec![] };
        for point in points.iter().filter(|point| Path::new(point).is_dir()) {
            let folder = Path::new(point).join(&name);
            fs::create_dir(&folder).ok()?;
            own.folders.push(folder.clone());
            fs::write(folder.join("cgroup.procs"), own._process.0.id().to_string()).ok()?;
        }
        Some(own)
    }

    /// The file of this name, in the hierarchy that has it.
    fn file(&self, name: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file())
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(freeze) = self.file("cgroup.freeze") {
            let _ = fs::write(freeze, "0");
        }
        for folder in &self.folders {
            let pids = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            for process in pids.lines().filter_map(|pid| aether_agent::process::ProcessRef::find(pid.parse().ok()?)) {
                let _ = process.signal(rustix::process::Signal::KILL);
            }
            aether_agent::process::poll(std::time::Duration::from_secs(5), || fs::remove_dir(folder).ok());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_is_frozen_and_thawed_by_signals_where_it_shares_its_cgroup() {
    let scene = Scene::with(|folder| Counter::new(folder, 1).config).await;
    let count = || aether_agent::workloads::read_progress(scene.folder.path().join("count").to_str().unwrap());
    scene.host.workload("node-a", "counter", Running).await;
    scene.host.progress("node-a", "counter", 3.0).await;
    let plan = single(verb::FREEZE, "node-a", workload("counter"), &[], Some(verb::THAW));

    let dry = scene.carry_out(&Plan { dry_run: true, ..plan.clone() }).await;
    assert_eq!((dry.status, dry.code.as_str(), dry.simulated), (Succeeded, "dry-run", true), "{dry:?}");
    assert_eq!(text(&dry, "dry-run"), "simulated");
    assert!(dry.message.contains("would set process.stopped from `0` to `1`"), "{}", dry.message);

    let frozen = scene.carry_out(&plan).await;
    assert_eq!(frozen.status, Succeeded, "{frozen:?}");
    assert!(!frozen.simulated);
    assert_eq!(text(&frozen, "former.process.stopped"), "0");
    scene.host.workload("node-a", "counter", Stopped).await;
    let before = count();
    // A repeat is answered with what was recorded, and an undoing lets it go on.
    assert_eq!(scene.carry_out(&plan).await, frozen);
    let thawed = scene.undo(&plan).await;
    assert_eq!(thawed.status, Succeeded, "{thawed:?}");
    scene.host.workload("node-a", "counter", Running).await;
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    scene.host.progress("node-a", "counter", before.unwrap() as f64 + 3.0).await;
    drop(scene.agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_alone_in_its_cgroup_is_frozen_by_the_freezer_and_only_our_own_freeze_is_undone() {
    let test = "a_workload_alone_in_its_cgroup_is_frozen_by_the_freezer";
    let process = Process::shell("sleep 600 & sleep 600; wait");
    let pid = process.0.id();
    let unified = Path::new("/sys/fs/cgroup/unified").is_dir();
    let own = Own::of(process, if unified { &["/sys/fs/cgroup/unified"] } else { &["/sys/fs/cgroup"] });
    let Some((_own, freeze)) = own.and_then(|own| own.file("cgroup.freeze").map(|freeze| (own, freeze))) else {
        return common::skip(test, "no cgroup v2 hierarchy in which a cgroup can be made");
    };
    let scene = Scene::adopting(pid).await;
    scene.host.workload("node-a", "w", Running).await;
    let plan = single(verb::FREEZE, "node-a", workload("w"), &[], Some(verb::THAW));
    let frozen = scene.carry_out(&plan).await;
    assert_eq!(frozen.status, Succeeded, "{frozen:?}");
    assert_eq!((text(&frozen, "former.cgroup.freeze"), text(&frozen, "now.cgroup.freeze")), ("0", "1"));
    let events = fs::read_to_string(freeze.with_file_name("cgroup.events")).unwrap();
    assert!(events.contains("frozen 1"), "{events}");
    let thawed = scene.undo(&plan).await;
    assert_eq!(thawed.status, Succeeded, "{thawed:?}");
    assert_eq!(fs::read_to_string(&freeze).unwrap().trim(), "0");

    // Frozen by somebody else before: found so, and left so by the undoing.
    fs::write(&freeze, "1").unwrap();
    let again = Plan { watch_ms: 2_000, ..plan };
    let found = scene.carry_out(&again).await;
    assert_eq!(found.message, "it was so already; nothing was changed");
    assert_eq!(scene.undo(&again).await.status, Succeeded);
    assert_eq!(fs::read_to_string(&freeze).unwrap().trim(), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_set_read_back_and_put_back_unless_somebody_else_changed_them() {
    let test = "limits_are_set_read_back_and_put_back";
    let process = Process::shell("sleep 600 & sleep 600; wait");
    let pid = process.0.id();
    let points = if Path::new("/sys/fs/cgroup/cgroup.controllers").is_file() {
        &["/sys/fs/cgroup"][..]
    } else {
        &["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/memory"][..]
    };
    let own = Own::of(process, points);
    let files = own.as_ref().and_then(|own| {
        let cpu = own.file("cpu.max").or_else(|| own.file("cpu.cfs_quota_us"))?;
        Some((cpu, own.file("memory.max").or_else(|| own.file("memory.limit_in_bytes"))?))
    });
    let Some((cpu, memory)) = files else {
        return common::skip(test, "no cgroup with the controllers cpu and memory can be made");
    };
    let read = |file: &Path| fs::read_to_string(file).unwrap().trim().to_string();
    let before = (read(&cpu), read(&memory));
    let scene = Scene::adopting(pid).await;
    scene.host.workload("node-a", "w", Running).await;
    let limits = [(argument::CPUS, Value::Number(0.5)), (argument::MEMORY_MAX, Value::Bytes(64 << 20))];
    let plan = single(verb::LIMIT, "node-a", workload("w"), &limits, Some(verb::UNLIMIT));
    let set = scene.carry_out(&plan).await;
    assert_eq!(set.status, Succeeded, "{set:?}");
    assert!(read(&cpu).starts_with("50000"), "{}", read(&cpu));
    assert_eq!(read(&memory), (64u64 << 20).to_string());
    let undone = scene.undo(&plan).await;
    assert_eq!(undone.status, Succeeded, "{undone:?}");
    assert_eq!((read(&cpu), read(&memory)), before);

    let again = Plan { watch_ms: 2_000, ..plan };
    assert_eq!(scene.carry_out(&again).await.status, Succeeded);
    fs::write(&memory, (128u64 << 20).to_string()).unwrap();
    let left = scene.undo(&again).await;
    assert_eq!((left.status, left.code.as_str()), (Failed, "setting.foreign"), "{left:?}");
    assert_eq!(read(&memory), (128u64 << 20).to_string(), "what somebody else wrote was changed");
    assert!(read(&cpu).starts_with("50000"), "one of a pair was put back alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shares_a_cgroup_is_not_limited() {
    let process = Process::shell("sleep 600; true");
    let scene = Scene::adopting(process.0.id()).await;
    scene.host.workload("node-a", "w", Running).await;
    let plan =
        single(verb::LIMIT, "node-a", workload("w"), &[(argument::CPUS, Value::Number(0.5))], Some(verb::UNLIMIT));
    let (code, reason) = scene.refused(&plan).await;
    assert!(["verb.precondition", "capability.missing"].contains(&code.as_str()), "{code}: {reason}");
    // The same answer to a dry run: it is not skipped where it matters.
    let (dry, _) = scene.refused(&Plan { dry_run: true, ..plan }).await;
    assert_eq!(dry, code);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_reach_what_handles_them_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let script = format!("trap 'echo seen >> {}' HUP; while true; do sleep 0.05; done", mark.display());
    let process = Process::shell(&script);
    let scene = Scene::adopting(process.0.id()).await;
    scene.host.workload("node-a", "w", Running).await;
    let signal = |name: &str| [(argument::SIGNAL, Value::Text(name.into()))];
    let hup = single(verb::SIGNAL, "node-a", workload("w"), &signal("HUP"), None);
    let dry = scene.carry_out(&Plan { dry_run: true, ..hup.clone() }).await;
    assert_eq!(text(&dry, "dry-run"), "precondition-checked");
    let sent = scene.carry_out(&hup).await;
    assert_eq!(sent.status, Succeeded, "{sent:?}");
    let seen = aether_agent::process::poll(std::time::Duration::from_secs(10), || fs::read_to_string(&mark).ok());
    assert_eq!(seen.as_deref(), Some("seen\n"));

    let (code, reason) = scene.refused(&single(verb::SIGNAL, "node-a", workload("w"), &signal("USR1"), None)).await;
    assert_eq!(code, "verb.precondition");
    assert!(reason.contains("would end by it") && reason.contains("signal.unhandled"), "{reason}");
    let (code, _) = scene.refused(&single(verb::SIGNAL, "node-a", workload("w"), &signal("KILL"), None)).await;
    assert_eq!(code, "order.arguments");

    let ended = scene.carry_out(&single(verb::TERMINATE, "node-a", workload("w"), &[], None)).await;
    assert_eq!(ended.status, Succeeded, "{ended:?}");
    scene.host.workload("node-a", "w", Exited).await;
    let (code, _) = scene.refused(&Plan { watch_ms: 2_000, ..hup }).await;
    assert_eq!(code, "workload.state");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_called_off_before_it_came_never_begins() {
    let process = Process::shell("exec sleep 600");
    let mut scene = Scene::adopting(process.0.id()).await;
    scene.host.workload("node-a", "w", Running).await;
    let plan = single(verb::FREEZE, "node-a", workload("w"), &[], Some(verb::THAW));
    let (key, dispatch) = scene.host.sign(&wanted("node-a", &plan, 0, &[]));
    scene.host.cancel("node-a", &key).await;
    assert_eq!(scene.host.refusal("node-a", &key).await.code, "order.cancelled");
    // It comes late, and to an agent that was started anew.
    scene.agent.kill();
    scene.agent.start(None);
    scene.host.wait("a second hello", |world| (world.nodes["node-a"].hellos.len() == 2).then_some(())).await;
    scene.host.change(|world| world.nodes.get_mut("node-a").unwrap().states.clear());
    scene.host.send("node-a", dispatch).await;
    let refusal = scene.host.refusal("node-a", &key).await;
    assert!(refusal.code == "order.cancelled" && refusal.reason.contains("before it came"), "{refusal:?}");
}
