//! A node that sleeps and one that wakes another: real agents, a real socket, and a folder in the place of the kernel's
//! sysfs. Where the kernel would hold the writer while the machine sleeps, a fifo does: the write ends when it is read.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_agent::{act::journal::Journal, capabilities::boot_id, process};
use aether_core::{
    catalogue::{argument, capability, fact, verb},
    order::{
        Direction, IdempotencyKey, Outcome,
        OutcomeStatus::{Failed, Succeeded, Unknown},
    },
    plan::Plan,
    subject::{SubjectKind, Target},
    value::Value,
};
use aether_proto::v1::{OrderSleeping, WorkloadState::Running, dispatch_state::State};
use common::{Agent, Counter, Host, single, wanted};
use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

const PATIENCE: Duration = Duration::from_secs(30);
const CARD: &str = "02:00:5e:10:00:01";

fn node(name: &str) -> Target {
    Target { kind: SubjectKind::Node, id: name.into(), generation: 1 }
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn after(ms: u64) -> (&'static str, Value) {
    (argument::WAKE_AFTER, Value::Duration(ms))
}

/// What stands for the machine's sysfs: it can sleep, its card is armed, its clock has an alarm.
fn machine(folder: &Path) -> PathBuf {
    let sys = folder.join("sys");
    for (name, text) in [
        ("power/state", "freeze mem\n"),
        ("power/wakeup_count", "7\n"),
        ("power/suspend_stats/success", "4\n"),
        ("power/suspend_stats/last_failed_dev", "nvme0\n"),
        ("class/rtc/rtc0/wakealarm", ""),
        ("class/net/lo/address", &format!("{CARD}\n")),
        ("class/net/lo/device/power/wakeup", "enabled\n"),
    ] {
        let path = sys.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    sys
}

struct Scene {
    host: Host,
    agent: Agent,
    sys: PathBuf,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        Self::with(|_| {}, "").await
    }

    /// `change` makes the machine another before the agent looks at it; `more` ends the agent's configuration.
    async fn with(change: impl FnOnce(&Path), more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sys = machine(folder.path());
        change(&sys);
        let config = folder.path().join("agent.toml");
        fs::write(&config, format!("[power]\nsys = \"{}\"\n{more}", sys.display())).unwrap();
        let host = Host::start().await;
        let agent = Agent::new(folder.path(), "node-a", &host.address, &["--config", config.to_str().unwrap()]);
        host.connected("node-a").await;
        Self { host, agent, sys, _folder: folder }
    }

    async fn drained(self) -> Self {
        let drain = single(verb::DRAIN, "node-a", node("node-a"), &[], Some(verb::UNDRAIN));
        let done = self.host.carry_out("node-a", &drain, 0, &[]).await;
        assert_eq!(done.status, Succeeded, "{done:?}");
        self
    }

    fn file(&self, name: &str) -> String {
        fs::read_to_string(self.sys.join(name)).unwrap()
    }

    /// Puts a fifo in the place of the file that the kernel reads, so that the machine sleeps until it is read.
    fn hold(&self) -> PathBuf {
        let state = self.sys.join("power/state");
        fs::remove_file(&state).unwrap();
        let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
        rustix::fs::mknodat(rustix::fs::CWD, &state, kind, mode, 0).unwrap();
        state
    }

    async fn order(&self, plan: &Plan) -> IdempotencyKey {
        self.host.dispatch(wanted("node-a", plan, 0, &[])).await
    }

    async fn told(&self, key: &IdempotencyKey) -> OrderSleeping {
        let sleeping = |state: &State| match state {
            State::Sleeping(sleeping) => Some(sleeping.clone()),
            _ => None,
        };
        self.host.state("node-a", key, sleeping).await
    }

    async fn refused(&self, plan: &Plan) -> (String, String) {
        let key = self.order(plan).await;
        let refusal = self.host.refusal("node-a", &key).await;
        (refusal.code, refusal.reason)
    }

    /// Asleep, and in the journal so; then killed, and the machine is another by `meanwhile` when the agent starts again.
    async fn killed_asleep(mut self, meanwhile: impl FnOnce(&Self, &IdempotencyKey)) -> Outcome {
        let state = self.hold();
        let key = self.order(&sleep(&[])).await;
        self.told(&key).await;
        let journal = self.agent.state.join("journal");
        let asleep = format!("sleeping {} 4", boot_id());
        let noted =
            || String::from_utf8_lossy(&fs::read(journal.join("journal")).unwrap()).contains(&asleep).then_some(());
        process::poll(PATIENCE, noted).expect("the journal says that it sleeps");
        self.agent.kill();
        fs::remove_file(&state).unwrap();
        fs::write(&state, "freeze mem\n").unwrap();
        meanwhile(&self, &key);
        self.agent.start(None);
        self.host.outcome("node-a", &key).await
    }
}

fn sleep(arguments: &[(&str, Value)]) -> Plan {
    single(verb::SLEEP, "node-a", node("node-a"), arguments, None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_says_that_it_sleeps_sleeps_and_says_that_it_woke() {
    let scene = Scene::new().await.drained().await;
    scene.host.look(|world| {
        let facts = &world.nodes["node-a"].facts;
        assert_eq!((facts[fact::WAKE_MAC].as_str(), facts[fact::WAKE_NETWORK].as_str()), (CARD, "127.0.0.0/8"));
    });
    let state = scene.hold();
    let plan = sleep(&[after(60_000)]);
    let key = scene.order(&plan).await;
    let told = scene.told(&key).await;
    assert_eq!((told.state.as_str(), told.plan.as_str()), ("mem", plan.hash().0.as_str()));
    assert!(told.wakes_at_ms > common::now().0 + 30_000, "{told:?}");
    assert_eq!(scene.file("class/rtc/rtc0/wakealarm"), "+60");

    // Nothing else is begun meanwhile, not even on something else.
    let other = single(verb::WAKE, "node-a", node("node-b"), &[], None);
    let (code, reason) = scene.refused(&other).await;
    assert_eq!(code, "agent.busy", "{reason}");

    // It wakes.
    let slept = tokio::task::spawn_blocking(move || fs::read_to_string(state).unwrap()).await.unwrap();
    assert_eq!(slept, "mem");
    let woke = scene.host.outcome("node-a", &key).await;
    assert_eq!(woke.status, Succeeded, "{woke:?}");
    assert!(woke.message.contains("slept in `mem` for") && woke.evidence.contains_key("slept"), "{woke:?}");
    // The kernel was given the count of wake-up events back, and the alarm is taken back.
    assert_eq!(scene.file("power/wakeup_count").trim(), "7");
    assert!(scene.file("class/rtc/rtc0/wakealarm").starts_with('0'));
    // A repeat is answered with what was recorded: it does not sleep again.
    assert_eq!(scene.host.carry_out("node-a", &plan, 0, &[]).await, woke);
    drop(scene.agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_that_the_kernel_refuses_has_failed_in_its_words() {
    let scene = Scene::new().await.drained().await;
    let state = scene.sys.join("power/state");
    fs::remove_file(&state).unwrap();
    symlink("/dev/full", &state).unwrap();
    let refused = scene.host.carry_out("node-a", &sleep(&[after(60_000)]), 0, &[]).await;
    assert_eq!((refused.status, refused.code.as_str()), (Failed, "sleep.refused"), "{refused:?}");
    for words in ["did not go to `mem`", "No space left", "nvme0", "The machine did not sleep"] {
        assert!(refused.message.contains(words), "{}", refused.message);
    }
    assert!(scene.file("class/rtc/rtc0/wakealarm").starts_with('0'), "the alarm was left armed");

    // The same where the kernel saw an event just then: what is to wake a machine is not slept through.
    let count = scene.sys.join("power/wakeup_count");
    fs::remove_file(&count).unwrap();
    symlink("/dev/full", &count).unwrap();
    let woken = scene.host.carry_out("node-a", &sleep(&[after(61_000)]), 0, &[]).await;
    assert_eq!((woken.status, woken.code.as_str()), (Failed, "sleep.woken"), "{woken:?}");
    drop(scene.agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_sleep_before_the_host_knows_of_it() {
    let scene = Scene::new().await.drained().await;
    scene.host.change(|world| world.hold_acks = true);
    let plan = sleep(&[(argument::TIMEOUT, Value::Duration(2_000))]);
    let key = scene.order(&plan).await;
    scene.told(&key).await;
    let outcome = scene.host.outcome("node-a", &key).await;
    assert_eq!((outcome.status, outcome.code.as_str()), (Failed, "order.timeout"), "{outcome:?}");
    assert_eq!(scene.file("power/state"), "freeze mem\n", "it was written all the same");
    drop(scene.agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sleep_that_the_agent_did_not_survive_is_told_by_boot_and_count() {
    // The kernel has counted one more: it slept.
    let scene = Scene::new().await.drained().await;
    let slept =
        scene.killed_asleep(|scene, _| fs::write(scene.sys.join("power/suspend_stats/success"), "5\n").unwrap());
    let slept = slept.await;
    assert_eq!(slept.status, Succeeded, "{slept:?}");
    assert!(slept.message.contains("slept and woke"), "{slept:?}");

    // It has not: the machine was awake all the time.
    let awake = Scene::new().await.drained().await.killed_asleep(|_, _| {}).await;
    assert_eq!((awake.status, awake.code.as_str()), (Failed, "agent.restarted"), "{awake:?}");
    assert!(awake.message.contains("it did not sleep"), "{awake:?}");

    // A kernel that does not count.
    let scene = Scene::new().await.drained().await;
    let uncounted =
        |scene: &Scene, _: &IdempotencyKey| fs::remove_dir_all(scene.sys.join("power/suspend_stats")).unwrap();
    let unseen = scene.killed_asleep(uncounted).await;
    assert_eq!((unseen.status, unseen.code.as_str()), (Unknown, "agent.restarted"), "{unseen:?}");

    // Another boot: the journal of a machine that lost its memory while it slept.
    let scene = Scene::new().await.drained().await;
    let booted = scene.killed_asleep(|scene, key| {
        let journal = Journal::open(&scene.agent.state.join("journal")).unwrap();
        journal.phase(key, "sleeping 00000000-0000-4000-8000-000000000000 4").unwrap();
    });
    let booted = booted.await;
    assert_eq!((booted.status, booted.code.as_str()), (Unknown, "agent.restarted"), "{booted:?}");
    assert!(booted.message.contains("booted anew"), "{booted:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_must_not_sleep_says_why() {
    let scene = Scene::new().await;
    let expect = async |scene: &Scene, plan: &Plan, code: &str, words: &str| {
        let (said, reason) = scene.refused(plan).await;
        assert_eq!(said, "verb.precondition", "{reason}");
        assert!(reason.contains(words) && reason.contains(code), "{reason}");
    };
    expect(&scene, &sleep(&[]), "sleep.not-drained", "drain it before").await;
    // Where the same plan drains first, a dry run of it can tell.
    let drain = single(verb::DRAIN, "node-a", node("node-a"), &[], Some(verb::UNDRAIN));
    let both = Plan { steps: [drain.steps, sleep(&[]).steps].concat(), dry_run: true, ..sleep(&[]) };
    let dry = scene.host.carry_out("node-a", &both, 1, &[]).await;
    assert_eq!((dry.status, dry.code.as_str()), (Succeeded, "dry-run"), "{dry:?}");

    let scene = scene.drained().await;
    let deep = [(argument::STATE, text("disk"))];
    expect(&scene, &sleep(&deep), "sleep.state", "offers no `disk` here, only mem, freeze").await;
    fs::write(scene.sys.join("class/net/lo/device/power/wakeup"), "disabled\n").unwrap();
    // Another plan than the one that was refused before, so that its refusal is another.
    let later = [(argument::TIMEOUT, Value::Duration(61_000))];
    expect(&scene, &sleep(&later), "sleep.no-way-back", "nothing would wake this machine").await;
    assert_eq!(scene.file("power/state"), "freeze mem\n");
    drop(scene.agent);

    let folder = tempfile::tempdir().unwrap();
    let counter = Counter::new(folder.path(), 1);
    let workload = fs::read_to_string(&counter.config).unwrap();
    let scene = Scene::with(|_| {}, &workload).await.drained().await;
    scene.host.workload("node-a", "counter", Running).await;
    expect(&scene, &sleep(&[]), "sleep.occupied", "the workload counter is here").await;
    drop(scene.agent);

    // Most virtual machines: the file is there, and names nothing; there is no alarm.
    let bare = |sys: &Path| {
        fs::write(sys.join("power/state"), "\n").unwrap();
        fs::remove_dir_all(sys.join("class")).unwrap();
    };
    let scene = Scene::with(bare, "").await;
    scene.host.look(|world| {
        let node = &world.nodes["node-a"];
        let missing = |name: &str| (!node.capabilities[name].available).then(|| node.capabilities[name].reason.clone());
        assert!(missing(capability::SLEEP).unwrap().contains("the kernel offers no sleep"));
        assert!(missing(capability::SLEEP_ALARM).unwrap().contains("no clock of the machine can wake it"));
        assert_eq!(missing(capability::WAKE), None);
        assert!(!node.facts.contains_key(fact::WAKE_MAC));
    });
    assert_eq!(scene.refused(&sleep(&[])).await.0, "capability.missing");
    drop(scene.agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_node_is_woken_by_the_magic_packet_on_its_network() {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    let scene = Scene::with(|_| {}, &format!("wake_port = {port}\n")).await;
    let wake = |card: &str, network: &str| {
        let arguments = [(argument::MAC, text(card)), (argument::NETWORK, text(network))];
        single(verb::WAKE, "node-a", node("node-b"), &arguments, None)
    };
    let plan = wake(CARD, "127.0.0.0/8");
    let dry = scene.host.carry_out("node-a", &Plan { dry_run: true, ..plan.clone() }, 0, &[]).await;
    assert_eq!((dry.status, dry.code.as_str()), (Succeeded, "dry-run"), "{dry:?}");
    let sent = scene.host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!((sent.status, sent.evidence["packets"].clone()), (Succeeded, Value::Integer(5)), "{sent:?}");
    assert!(sent.message.contains(&format!("127.255.255.255:{port}")), "{}", sent.message);
    let mut expected = vec![0xff; 6];
    (0..16).for_each(|_| expected.extend([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]));
    // As many as were said to be sent, and none by the dry run.
    for _ in 0..5 {
        let mut buffer = [0; 256];
        let length = socket.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..length], expected);
    }
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 256]).is_err(), "one more came than was told");

    let (code, reason) = scene.refused(&wake(CARD, "198.51.100.0/24")).await;
    assert!(code == "verb.precondition" && reason.contains("wake.out-of-reach"), "{code}: {reason}");
    let (code, reason) = scene.refused(&wake("ff:ff:ff:ff:ff:ff", "127.0.0.0/8")).await;
    assert!(code == "verb.precondition" && reason.contains("order.arguments"), "{code}: {reason}");
    let mut own = wake(CARD, "127.0.0.0/8");
    own.steps[0].target = node("node-a");
    assert_eq!(scene.refused(&own).await.0, "order.target");
    let key = plan.key(0, Direction::Forward).unwrap();
    assert_eq!(scene.host.outcome("node-a", &key).await, sent);
    drop(scene.agent);
}
