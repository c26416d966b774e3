//! What moves, and what only seems to: real processes that are dumped, restored on another node, and watched there.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_agent::process::{ProcessRef, end_tree, poll};
use aether_core::{
    catalogue::{argument, verb},
    order::{Direction, Outcome, OutcomeStatus},
    subject::{SubjectKind, Target},
    value::Value,
};
use aether_proto::v1::WorkloadState::Running;
use common::{Agent, Host, Wanted, migration, single, wanted};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

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

/// A script in a session of its own, with its streams on files.
fn shell(script: &str) -> Command {
    let mut command = Command::new("setsid");
    // What whoever runs the tests has open is no pipe of the workload's.
    let only_streams = "for d in /proc/$$/fd/*; do d=${d##*/}; [ $d -le 2 ] || eval \"exec $d>&-\"; done; ";
    command.args(["bash", "-c", &format!("{only_streams}{script}")]).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn counts(file: &Path) -> Vec<u64> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.parse().ok()).collect()
}

fn counts_on(file: &Path) -> bool {
    let from = counts(file).len();
    poll(Duration::from_secs(20), || (counts(file).len() > from + 3).then_some(())).is_some()
}

/// Two agents, the first with the process as its workload.
async fn fleet(folder: &Path, criu: &Path, pid: u32, progress: &Path) -> (Host, [Agent; 2]) {
    fleet_with(folder, criu, pid, progress, "refuse").await
}

async fn fleet_with(folder: &Path, criu: &Path, pid: u32, progress: &Path, tcp: &str) -> (Host, [Agent; 2]) {
    let host = Host::start().await;
    let config = folder.join("agent.toml");
    let text = format!(
        "[[workloads]]\nid = \"mover\"\nadopt_pid = {pid}\nprogress_file = \"{}\"\ntcp = \"{tcp}\"\n",
        progress.display()
    );
    fs::write(&config, text).unwrap();
    let criu = criu.to_str().unwrap();
    let a = Agent::new(folder, "node-a", &host.address, &["--criu", criu, "--config", config.to_str().unwrap()]);
    let b = Agent::new(folder, "node-b", &host.address, &["--criu", criu]);
    host.connected("node-a").await;
    host.connected("node-b").await;
    host.workload("node-a", "mover", Running).await;
    (host, [a, b])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tree_of_processes_with_a_pipe_inside_moves_and_loses_nothing() {
    let Some(criu) = common::criu("a_tree_of_processes_with_a_pipe_inside_moves") else { return };
    let folder = tempfile::tempdir().unwrap();
    let progress = folder.path().join("progress");
    let file = progress.display();
    // One process counts what another sends it; what is in the pipe between them must move as well.
    let script = format!(
        "n=0; while :; do n=$((n+1)); echo $n; sleep 0.02; done | while read -r line; do echo $line >> {file}; done"
    );
    let started = Started(shell(&script).spawn().unwrap());
    assert!(counts_on(&progress));
    let (host, agents) = fleet(folder.path(), &criu, started.0.id(), &progress).await;
    let plan = migration("mover", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    for (node, step) in [("node-b", 1), ("node-b", 2), ("node-a", 3)] {
        let outcome = host.carry_out(node, &plan, step, &inputs).await;
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{outcome:?}");
    }
    assert!(counts_on(&progress), "the copy does not count");
    let counts = counts(&progress);
    assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "lost or repeated: {counts:?}");
    let copy = ProcessRef::find(host.workload("node-b", "mover", Running).await.pid).unwrap();
    assert!(copy.descendants().len() >= 2, "of the tree only a part is there");
    end_tree(&copy, Duration::from_secs(5)).unwrap();
    drop(agents);
}

/// CRIU says that dump and restore went well, and yet the copy waits for ever: its pipe led to a process that did not
/// move. On its standard streams this is refused before; this one is on another descriptor.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_hangs_is_seen_in_time_and_discarded_and_the_source_goes_on() {
    let Some(criu) = common::criu("a_copy_that_hangs_is_seen_in_time_and_discarded") else { return };
    let folder = tempfile::tempdir().unwrap();
    let progress = folder.path().join("progress");
    // It holds the end for writing as well, so that it waits where it would else see the end of the pipe.
    let script = format!(
        "exec 5<&0 6>&1 </dev/null >/dev/null; while read -r -u 5 line; do echo $line >> {}; done",
        progress.display()
    );
    let (reading, writing) = std::io::pipe().unwrap();
    let mut command = shell(&script);
    command.stdin(reading).stdout(writing.try_clone().unwrap());
    let started = Started(command.spawn().unwrap());
    drop(command);
    let mut fed = 0u64;
    let mut feed = || {
        for _ in 0..5 {
            fed += 1;
            writeln!(&writing, "{fed}").unwrap();
        }
        poll(Duration::from_secs(20), || (counts(&progress).last() == Some(&fed)).then_some(())).is_some()
    };
    assert!(feed());
    let (host, agents) = fleet(folder.path(), &criu, started.0.id(), &progress).await;
    let mut plan = migration("mover", 1, "node-a", "node-b");
    plan.steps[2].arguments.insert(argument::TIMEOUT.into(), Value::Duration(3_000));
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    let restored = host.carry_out("node-b", &plan, 1, &inputs).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{restored:?}");
    let confirmed = host.carry_out("node-b", &plan, 2, &inputs).await;
    assert_eq!((confirmed.status, confirmed.code.as_str()), (OutcomeStatus::Failed, "progress.none"), "{confirmed:?}");
    for (node, step) in [("node-b", 1), ("node-a", 0)] {
        let key = host.dispatch(Wanted { direction: Direction::Compensate, ..wanted(node, &plan, step, &[]) }).await;
        let undone = host.outcome(node, &key).await;
        assert_eq!(undone.status, OutcomeStatus::Succeeded, "{undone:?}");
    }
    host.wait("the copy to be gone", |world| world.nodes["node-b"].workloads.is_empty().then_some(())).await;
    host.workload("node-a", "mover", Running).await;
    assert!(feed(), "the source does not go on");
    let counts = counts(&progress);
    assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "lost or repeated: {counts:?}");
    drop(agents);
}

/// All steps of a move, each of which succeeds; gives the outcomes.
async fn moved(host: &Host, generation: u64, from: &str, to: &str) -> Vec<Outcome> {
    let plan = migration("mover", generation, from, to);
    let taken = host.carry_out(from, &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let manifest = taken.outputs["manifest"].clone();
    let mut outcomes = vec![taken];
    for (node, step) in [(to, 1), (to, 2), (from, 3)] {
        let outcome = host.carry_out(node, &plan, step, &[("manifest", &manifest)]).await;
        assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{outcome:?}");
        outcomes.push(outcome);
    }
    outcomes
}

/// A checkpoint that is undone; gives its outcome.
async fn taken_and_resumed(host: &Host, generation: u64, node: &str) -> Outcome {
    let plan = migration("mover", generation, node, "elsewhere");
    let taken = host.carry_out(node, &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let key = host.dispatch(Wanted { direction: Direction::Compensate, ..wanted(node, &plan, 0, &[]) }).await;
    let resumed = host.outcome(node, &key).await;
    assert_eq!(resumed.status, OutcomeStatus::Succeeded, "{resumed:?}");
    taken
}

async fn drilled(host: &Host, node: &str, manifest: &str) -> Outcome {
    let target = Target { kind: SubjectKind::Workload, id: "drill".into(), generation: 1 };
    let arguments = [(argument::MANIFEST, Value::Text(manifest.into()))];
    let plan = single(verb::RESTORE_DRILL, node, target, &arguments, None);
    host.carry_out(node, &plan, 0, &[("manifest", manifest)]).await
}

/// The numbers of the lines that begin with `word`.
fn numbers<'a>(lines: impl IntoIterator<Item = &'a str>, word: &str) -> Vec<u64> {
    let of = |line: &str| line.strip_prefix(word)?.trim().parse().ok();
    lines.into_iter().filter_map(of).collect()
}

fn contiguous(numbers: &[u64]) -> bool {
    numbers.windows(2).all(|pair| pair[1] == pair[0] + 1)
}

/// What a supervisor gets of a workload's pipe, line by line.
fn lines(from: impl Read + Send + 'static) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        BufReader::new(from).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
    });
    lines
}

#[tokio::test(flavor = "multi_thread")]
async fn pipes_to_a_supervisor_are_left_behind_and_no_line_is_lost_or_said_twice() {
    let Some(criu) = common::criu("pipes_to_a_supervisor_are_left_behind") else { return };
    let folder = tempfile::tempdir().unwrap();
    let (progress, gate) = (folder.path().join("progress"), folder.path().join("gate"));
    // What it is to read lies in its pipe, unread, while it moves; then it reads until the end of it.
    let script = format!(
        "n=0; tick() {{ n=$((n+1)); echo $n >> {0}; echo out $n; echo err $n >&2; sleep 0.02; }}; \
         while [ ! -e {1} ]; do tick; done; while read -r line; do echo read $line; done; echo ended; while :; do tick; done",
        progress.display(),
        gate.display()
    );
    let mut command = shell(&script);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut started = Started(command.spawn().unwrap());
    let mut fed = started.0.stdin.take().unwrap();
    fed.write_all(b"1\n2\n3\n").unwrap();
    let (out, err) = (lines(started.0.stdout.take().unwrap()), lines(started.0.stderr.take().unwrap()));
    assert!(counts_on(&progress));
    let (host, agents) = fleet(folder.path(), &criu, started.0.id(), &progress).await;

    // Undone, it goes on with the very pipes that it had.
    let taken = taken_and_resumed(&host, 1, "node-a").await;
    let count = |name: &str| taken.evidence.get(name).cloned();
    assert_eq!((count("pipes-written"), count("pipes-read")), (Some(Value::Integer(2)), Some(Value::Integer(1))));
    assert!(taken.message.contains("goes to its output files"), "{taken:?}");
    assert!(counts_on(&progress), "the source does not go on");
    let drill = drilled(&host, "node-b", &taken.outputs["manifest"]).await;
    assert_eq!(drill.status, OutcomeStatus::Succeeded, "{drill:?}");
    let output = |agent: &Agent, ending: &str| {
        fs::read_to_string(agent.state.join("workloads").join(format!("mover.{ending}"))).unwrap_or_default()
    };
    assert_eq!(output(&agents[1], "out"), "", "a drill has said something");

    let outcomes = moved(&host, 2, "node-a", "node-b").await;
    assert!(outcomes[1].message.contains("goes to its output files"), "{:?}", outcomes[1]);
    // Its pipes end with the source, and with the first number that the copy says.
    let (said, complained): (Vec<String>, Vec<String>) = (out.iter().collect(), err.iter().collect());
    fs::write(&gate, "").unwrap();
    let ended = poll(Duration::from_secs(20), || output(&agents[1], "out").contains("ended\nout").then_some(()));
    assert!(ended.is_some(), "{}", output(&agents[1], "out"));
    moved(&host, 3, "node-b", "node-a").await;
    let back =
        poll(Duration::from_secs(20), || (numbers(output(&agents[0], "out").lines(), "out").len() > 3).then_some(()));
    assert!(back.is_some(), "{}", output(&agents[0], "out"));
    for (ending, word, before) in [("out", "out", said), ("err", "err", complained)] {
        let (there, back) = (output(&agents[1], ending), output(&agents[0], ending));
        let all = before.iter().map(String::as_str).chain(there.lines()).chain(back.lines());
        let all = numbers(all, word);
        assert!(all.first() == Some(&1) && contiguous(&all), "{word}: {all:?}");
    }
    assert_eq!(numbers(output(&agents[1], "out").lines(), "read"), [1, 2, 3], "of what lay in its pipe");
    drop((fed, agents));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_may_be_closed_is_the_sources_alone_and_its_copy_connects_anew() {
    let Some(criu) = common::criu("a_connection_that_may_be_closed") else { return };
    let folder = tempfile::tempdir().unwrap();
    let progress = folder.path().join("progress");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    // Counts what is echoed, and connects anew when its connection is closed; a closed one must not end it by a signal.
    let script = format!(
        "trap '' PIPE; n=0; while :; do if exec 3<>/dev/tcp/127.0.0.1/{port}; then \
         while echo ping >&3 && read -r -t 20 reply <&3; do n=$((n+1)); echo $n >> {}; sleep 0.02; done; exec 3<&-; fi; \
         sleep 0.02; done 2>/dev/null",
        progress.display()
    );
    let (accepted, connections) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let _ = accepted.send(());
            std::thread::spawn(move || {
                let mut echo = stream.try_clone().unwrap();
                std::io::copy(&mut &stream, &mut echo)
            });
        }
    });
    let started = Started(shell(&script).spawn().unwrap());
    assert!(counts_on(&progress));
    connections.recv_timeout(Duration::from_secs(20)).unwrap();
    let (host, agents) = fleet_with(folder.path(), &criu, started.0.id(), &progress, "close").await;

    let taken = taken_and_resumed(&host, 1, "node-a").await;
    assert_eq!(taken.evidence.get("connections-closed"), Some(&Value::Integer(1)), "{taken:?}");
    assert!(counts_on(&progress), "the source does not go on");
    let drill = drilled(&host, "node-b", &taken.outputs["manifest"]).await;
    assert_eq!(drill.status, OutcomeStatus::Succeeded, "{drill:?}");
    assert!(connections.try_recv().is_err(), "the source lost its connection, or a drill made one");

    moved(&host, 2, "node-a", "node-b").await;
    connections.recv_timeout(Duration::from_secs(20)).unwrap();
    assert!(counts_on(&progress), "the copy does not go on");
    let seen = counts(&progress);
    assert!(contiguous(&seen), "lost or repeated: {seen:?}");
    // What may be closed travelled with it.
    taken_and_resumed(&host, 3, "node-b").await;
    drop(agents);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_the_stopped_source_holds_is_told_and_the_move_is_undone() {
    let Some(criu) = common::criu("a_port_that_the_stopped_source_holds_is_told") else { return };
    let folder = tempfile::tempdir().unwrap();
    let progress = folder.path().join("progress");
    let script = format!(
        "use Socket; $| = 1; socket(S, PF_INET, SOCK_STREAM, 0) && listen(S, 5) or die; open(F, '>>', '{}'); \
         select(F); $| = 1; print((sockaddr_in(getsockname(S)))[0], qq(\n)); while (accept(C, S)) {{ print ++$n, qq(\n) }}",
        progress.display()
    );
    let mut command = Command::new("setsid");
    command.args(["perl", "-e", &script]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let started = Started(command.spawn().unwrap());
    let port = poll(Duration::from_secs(20), || counts(&progress).first().copied()).expect("a port");
    let port = u16::try_from(port).unwrap();
    let (host, agents) = fleet_with(folder.path(), &criu, started.0.id(), &progress, "close").await;
    let plan = migration("mover", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let manifest = taken.outputs["manifest"].as_str();
    // A drill has a network of its own.
    let drill = drilled(&host, "node-b", manifest).await;
    assert_eq!(drill.status, OutcomeStatus::Succeeded, "{drill:?}");
    let restored = host.carry_out("node-b", &plan, 1, &[("manifest", manifest)]).await;
    assert_eq!((restored.status, restored.code.as_str()), (OutcomeStatus::Failed, "criu.restore"), "{restored:?}");
    assert!(restored.message.starts_with("a port that the workload listens on is taken here"), "{restored:?}");
    let key = host.dispatch(Wanted { direction: Direction::Compensate, ..wanted("node-a", &plan, 0, &[]) }).await;
    assert_eq!(host.outcome("node-a", &key).await.status, OutcomeStatus::Succeeded);
    let before = counts(&progress).len();
    let _connection = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let accepted = poll(Duration::from_secs(20), || (counts(&progress).len() > before).then_some(()));
    assert!(accepted.is_some(), "the source does not listen any more");
    drop(agents);
}
