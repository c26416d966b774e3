//! A TCP connection that moves with its workload: two agents in two network namespaces on a bridge, and in a third a peer
//! that is never told anything, and never loses a byte.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_agent::{
    act::address::Network,
    process::{ProcessRef, end_tree, poll},
};
use aether_core::{
    order::{Direction, OutcomeStatus},
    plan::Plan,
    value::Value,
};
use aether_proto::v1::WorkloadState::{Running, Stopped};
use common::{
    Agent, Host, Wanted, migration, wanted,
    wires::{MOVES, Wires, sh, within},
};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

const PORT: u16 = 4_567;
/// Between two words of the peer.
const PACE: Duration = Duration::from_millis(10);
const SOON: Duration = Duration::from_secs(30);

/// Ended with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(root) = ProcessRef::find(self.0.id()) {
            let _ = end_tree(&root, Duration::from_secs(5));
        }
        let _ = self.0.wait();
    }
}

/// Says numbers on one connection, and wants each back before it says the next.
#[derive(Clone)]
struct Peer {
    echoed: Arc<AtomicU64>,
    lost: Arc<Mutex<Option<String>>>,
}

impl Peer {
    fn new(namespace: &Path) -> Self {
        let stream = within(namespace, || TcpStream::connect((MOVES, PORT)).unwrap());
        stream.set_nodelay(true).unwrap();
        let peer = Self { echoed: Arc::default(), lost: Arc::default() };
        let told = peer.clone();
        std::thread::spawn(move || {
            let mut answers = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            for number in 1u64.. {
                line.clear();
                let said = writeln!(&stream, "{number}").and_then(|()| answers.read_line(&mut line));
                match said {
                    Ok(_) if line.trim() == number.to_string() => told.echoed.store(number, SeqCst),
                    other => {
                        *told.lost.lock().unwrap() = Some(format!("after {number}: {other:?} {line:?}"));
                        return;
                    }
                }
                std::thread::sleep(PACE);
            }
        });
        peer
    }

    /// It hears more, on the connection that it has had from the beginning.
    fn goes_on(&self) {
        let before = self.echoed.load(SeqCst);
        let more = poll(SOON, || {
            let lost = self.lost.lock().unwrap().clone();
            assert_eq!(lost, None, "the connection was lost");
            (self.echoed.load(SeqCst) > before + 10).then_some(())
        });
        assert!(more.is_some(), "nothing is echoed after {before}");
    }
}

struct Scene {
    host: Host,
    a: Agent,
    b: Agent,
    peer: Peer,
    progress: PathBuf,
    wires: Wires,
    server: Started,
    _folder: tempfile::TempDir,
}

/// An echo on the address under the agent of `node-a`, and a peer that talks to it.
async fn scene(test: &str) -> Option<Scene> {
    let criu = common::criu(test)?;
    if let Err(missing) = Network::find() {
        common::skip(test, &missing.to_string());
        return None;
    }
    let wires = Wires::new();
    let folder = tempfile::tempdir().unwrap();
    let progress = folder.path().join("progress");
    let script = format!(
        "use Socket; $| = 1; socket(S, PF_INET, SOCK_STREAM, 0) && setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1) && \
         bind(S, sockaddr_in({PORT}, inet_aton('{MOVES}'))) && listen(S, 5) or die; open(F, '>>', '{}'); \
         select(F); $| = 1; print qq(0\\n); accept(C, S); while (sysread(C, $b, 4096)) {{ syswrite(C, $b); print ++$n, qq(\\n) }} \
         print qq(lost $!\\n)",
        progress.display()
    );
    let mut command = Command::new("setsid");
    command.arg("nsenter").arg(format!("--net={}", wires.namespace("a").display())).args(["perl", "-e", &script]);
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let server = Started(command.spawn().unwrap());
    poll(SOON, || fs::read_to_string(&progress).is_ok_and(|text| !text.is_empty()).then_some(())).expect("a server");
    let peer = Peer::new(&wires.namespace("c"));
    peer.goes_on();

    let host = Host::start().await;
    for node in ["a", "b"] {
        host.also_in(&wires.namespace(node)).await;
    }
    let config = folder.path().join("agent.toml");
    let text = format!(
        "[[workloads]]\nid = \"echo\"\nadopt_pid = {}\nprogress_file = \"{}\"\n\
         tcp = \"move\"\naddress = \"{MOVES}/24\"\ninterface = \"eth0\"\n",
        server.0.id(),
        progress.display()
    );
    fs::write(&config, text).unwrap();
    let criu = criu.to_str().unwrap();
    let arguments = ["--criu", criu, "--config", config.to_str().unwrap()];
    let agent = |node: &str, arguments: &[&str], at: &str| {
        let namespace = Some(wires.namespace(at));
        Agent::in_namespace(folder.path(), node, &host.address, arguments, vec![], namespace)
    };
    let (a, b) = (agent("node-a", &arguments, "a"), agent("node-b", &arguments[..2], "b"));
    host.connected("node-a").await;
    host.connected("node-b").await;
    host.workload("node-a", "echo", Running).await;
    Some(Scene { host, a, b, peer, progress, wires, server, _folder: folder })
}

impl Scene {
    /// A step that succeeds.
    async fn step(&self, node: &str, plan: &Plan, step: u32, manifest: &str) -> aether_core::order::Outcome {
        let outcome = self.host.carry_out(node, plan, step, &[("manifest", manifest)]).await;
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{outcome:?}");
        outcome
    }

    async fn undo(&self, node: &str, plan: &Plan, step: u32) {
        let wanted = Wanted { direction: Direction::Compensate, ..wanted(node, plan, step, &[]) };
        let key = self.host.dispatch(wanted).await;
        let undone = self.host.outcome(node, &key).await;
        assert_eq!(undone.status, OutcomeStatus::Succeeded, "{undone:?}");
    }

    /// The address is on one node, and nothing else is left on either.
    fn is_at(&self, node: &str) {
        assert_eq!((self.wires.has("a"), self.wires.has("b")), (node == "a", node == "b"));
        assert_eq!((self.wires.tables("a"), self.wires.tables("b")), (String::new(), String::new()));
        let said = fs::read_to_string(&self.progress).unwrap();
        assert!(!said.contains("lost"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_moves_there_and_back_and_its_peer_loses_nothing() {
    let Some(scene) = scene("a_connection_moves_there_and_back").await else { return };
    for (generation, from, to) in [(1, "node-a", "node-b"), (2, "node-b", "node-a")] {
        let plan = migration("echo", generation, from, to);
        let taken = scene.step(from, &plan, 0, "").await;
        assert_eq!(taken.evidence.get("connections-moved"), Some(&Value::Integer(1)), "{taken:?}");
        assert!(
            !scene.wires.has("a") && !scene.wires.has("b"),
            "the address is somewhere while its workload is nowhere"
        );
        let manifest = taken.outputs["manifest"].as_str();
        let restored = scene.step(to, &plan, 1, manifest).await;
        assert!(restored.message.contains("1 TCP connections go on at 10.77.0.5"), "{restored:?}");
        scene.peer.goes_on();
        scene.step(to, &plan, 2, manifest).await;
        scene.step(from, &plan, 3, "").await;
        scene.peer.goes_on();
        scene.is_at(if to == "node-a" { "a" } else { "b" });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_move_that_is_undone_leaves_the_connection_where_it_was() {
    let Some(mut scene) = scene("a_move_that_is_undone_leaves_the_connection").await else { return };
    // Taken and given back.
    let plan = migration("echo", 1, "node-a", "node-b");
    scene.step("node-a", &plan, 0, "").await;
    scene.undo("node-a", &plan, 0).await;
    scene.peer.goes_on();
    scene.is_at("a");

    // The target cannot have the address: it has one already.
    let plan = migration("echo", 2, "node-a", "node-b");
    let taken = scene.step("node-a", &plan, 0, "").await;
    let manifest = taken.outputs["manifest"].as_str();
    let name = scene.wires.name.clone();
    sh(&format!("ip -n {name}b addr add {MOVES}/32 dev lo"));
    let refused = scene.host.carry_out("node-b", &plan, 1, &[("manifest", manifest)]).await;
    assert_eq!((refused.status, refused.code.as_str()), (OutcomeStatus::Failed, "tcp.address"), "{refused:?}");
    assert!(scene.wires.has("b"), "what was not its own was taken away");
    sh(&format!("ip -n {name}b addr del {MOVES}/32 dev lo"));
    scene.undo("node-a", &plan, 0).await;
    scene.peer.goes_on();
    scene.is_at("a");

    // Both agents die in the middle of it, and find what was begun: the source's before it could answer, ...
    let plan = migration("echo", 3, "node-a", "node-b");
    scene.host.change(|world| world.hold_chunks = true);
    let key = scene.host.dispatch(wanted("node-a", &plan, 0, &[])).await;
    let wires = &scene.wires;
    let locked = poll(SOON, || wires.tables("a").contains("CRIU-").then_some(()));
    assert!(locked.is_some(), "CRIU does not lock the connection");
    // However slow CRIU is, the next agent lets it come to where it can be ended.
    let criu = format!("[c]riu dump.* -t {} ", scene.server.0.id());
    sh(&format!("pkill -STOP -f '{criu}'"));
    scene.a.kill();
    scene.host.change(|world| world.hold_chunks = false);
    scene.a.start(None);
    let waits = poll(SOON, || scene.a.log_text().contains("is ended once it holds").then_some(()));
    sh(&format!("pkill -CONT -f '{criu}' || true"));
    assert!(waits.is_some(), "{}", scene.a.log_text());
    let cut = scene.host.outcome("node-a", &key).await;
    assert_eq!((cut.status, cut.code.as_str()), (OutcomeStatus::Failed, "agent.restarted"), "{cut:?}");
    scene.peer.goes_on();
    scene.is_at("a");

    // ... the target's in the middle of the restore.
    let plan = migration("echo", 4, "node-a", "node-b");
    let taken = scene.step("node-a", &plan, 0, "").await;
    let manifest = taken.outputs["manifest"].as_str();
    let key = scene.host.dispatch(wanted("node-b", &plan, 1, &[("manifest", manifest)])).await;
    let wires = &scene.wires;
    let held = poll(SOON, || wires.tables("b").contains("aether-").then_some(()));
    assert!(held.is_some(), "the address is not held");
    scene.b.kill();
    scene.b.start(None);
    let cut = scene.host.outcome("node-b", &key).await;
    match cut.status {
        // Whether it was registered before it died is a race; either is a good end.
        OutcomeStatus::Succeeded => {
            scene.peer.goes_on();
            scene.step("node-a", &plan, 3, "").await;
            scene.peer.goes_on();
            scene.is_at("b");
        }
        OutcomeStatus::Failed => {
            assert_eq!(cut.code, "agent.restarted", "{cut:?}");
            scene.undo("node-b", &plan, 1).await;
            scene.undo("node-a", &plan, 0).await;
            scene.peer.goes_on();
            scene.is_at("a");
        }
        OutcomeStatus::Unknown => panic!("{cut:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_given_up_without_a_word_to_its_peer() {
    let Some(scene) = scene("a_copy_is_given_up_without_a_word").await else { return };
    let plan = migration("echo", 1, "node-a", "node-b");
    let taken = scene.step("node-a", &plan, 0, "").await;
    scene.step("node-b", &plan, 1, &taken.outputs["manifest"]).await;
    scene.peer.goes_on();
    scene.undo("node-b", &plan, 1).await;
    assert!(!scene.wires.has("b") && scene.wires.tables("b").is_empty());
    assert_eq!(*scene.peer.lost.lock().unwrap(), None, "the peer was told something");
    scene.host.workload("node-a", "echo", Stopped).await;
    scene.undo("node-a", &plan, 0).await;
    // The copy has spoken since: what the source has of the connection is of the past, and said to be so in the docs.
    // Its workload and its address are back, and who connects anew is served no worse than before.
    scene.host.workload("node-a", "echo", Running).await;
    assert_eq!((scene.wires.has("a"), scene.wires.has("b")), (true, false));
    assert_eq!(scene.wires.tables("a"), "");
}
