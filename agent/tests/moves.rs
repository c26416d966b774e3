//! What moves, and what only seems to: real processes that are dumped, restored on another node, and watched there.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_agent::process::{ProcessRef, end_tree, poll};
use aether_core::{
    catalogue::argument,
    order::{Direction, OutcomeStatus},
    value::Value,
};
use aether_proto::v1::WorkloadState::Running;
use common::{Agent, Host, Wanted, migration, wanted};
use std::{
    fs,
    io::Write,
    path::Path,
    process::{Child, Command, Stdio},
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
    command.args(["bash", "-c", script]).current_dir("/");
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
    let host = Host::start().await;
    let config = folder.join("agent.toml");
    let text =
        format!("[[workloads]]\nid = \"mover\"\nadopt_pid = {pid}\nprogress_file = \"{}\"\n", progress.display());
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
