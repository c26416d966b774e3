//! The agent's side of the contract: joining, telemetry through outages, refusals, and what it says of itself.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_core::order::OutcomeStatus;
use aether_proto::v1::{self, WorkloadState::Running, credentials::Kind};
use common::{Agent, Counter, Host, TOKEN, World, migration, sequences, wanted};
use std::{collections::BTreeSet, process::Command};

fn batches(node: &'static str, at_least: usize) -> impl FnMut(&World) -> Option<()> {
    move |world| (world.nodes.get(node)?.batches.len() >= at_least).then_some(())
}

fn hellos(node: &'static str, at_least: usize) -> impl FnMut(&World) -> Option<()> {
    move |world| (world.nodes.get(node)?.hellos.len() >= at_least).then_some(())
}

fn credentials(world: &World, node: &str) -> Vec<Kind> {
    let hellos = &world.nodes[node].hellos;
    hellos.iter().map(|hello| hello.credentials.clone().unwrap().kind.unwrap()).collect()
}

/// Sequences from 1 on, each once, but for those that were told as lost.
fn whole(host: &Host, node: &str) {
    host.look(|world| {
        let (distinct, count) = sequences(world, node);
        assert_eq!(distinct.len(), count);
        let last = *distinct.iter().next_back().unwrap();
        assert_eq!(distinct, (1..=last).collect::<BTreeSet<_>>());
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn it_joins_with_a_token_once_and_tells_of_its_machine() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let mut agent = Agent::new(folder.path(), "node-a", &host.address, &["--criu", "/nowhere/criu"]);
    host.wait("three batches", batches("node-a", 3)).await;
    host.look(|world| {
        let metrics: BTreeSet<_> =
            world.nodes["node-a"].batches[2].0.series.iter().map(|series| series.key.metric.clone()).collect();
        for metric in
            ["system.cpu.utilization", "system.memory.utilization", "system.uptime", "aether.agent.spool.depth"]
        {
            assert!(metrics.contains(metric), "{metric} is missing of {metrics:?}");
        }
        let capability = &world.nodes["node-a"].capabilities["process.checkpoint"];
        assert!(!capability.available && capability.reason.contains("/nowhere/criu"), "{capability:?}");
        assert!(world.nodes["node-a"].capabilities["telemetry.cpu"].available);
        let facts = world.nodes["node-a"].hellos[0].capabilities.clone().unwrap().facts;
        assert!(facts.contains_key("os.kernel.release") && facts.contains_key("host.arch"), "{facts:?}");
    });
    agent.terminate();
    // Without the token: the credential does.
    agent.start(None);
    host.wait("a second hello", hellos("node-a", 2)).await;
    host.wait("more batches", batches("node-a", 6)).await;
    host.look(|world| {
        let credentials = credentials(world, "node-a");
        assert_eq!(credentials[0], Kind::JoinToken(TOKEN.into()));
        assert!(matches!(credentials[1], Kind::Credential(_)));
        let instances: BTreeSet<_> = world.nodes["node-a"].hellos.iter().map(|hello| &hello.instance_id).collect();
        assert_eq!(instances.len(), 1);
    });
    whole(&host, "node-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn telemetry_survives_a_lost_host_and_a_killed_agent() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let mut agent = Agent::new(folder.path(), "node-a", &host.address, &["--criu", "/nowhere"]);
    host.wait("two batches", batches("node-a", 2)).await;
    host.cut("node-a");
    host.wait("a second hello", hellos("node-a", 2)).await;
    host.wait("more batches", batches("node-a", 4)).await;
    // A host that takes nothing, and meanwhile the agent is killed.
    host.change(|world| world.full = true);
    let before = host.look(|world| world.nodes["node-a"].batches.len());
    host.wait("the agent to be held off", |world| (world.held_off >= 2).then_some(())).await;
    agent.kill();
    agent.start(None);
    host.wait("a third hello", hellos("node-a", 3)).await;
    host.change(|world| world.full = false);
    host.wait("all of it", batches("node-a", before + 3)).await;
    whole(&host, "node-a");
}

#[tokio::test(flavor = "multi_thread")]
async fn after_the_machine_crashed_numbers_go_on_beyond_all_that_the_host_has() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let mut agent = Agent::new(folder.path(), "node-a", &host.address, &["--criu", "/nowhere"]);
    host.wait("two batches", batches("node-a", 2)).await;
    agent.kill();
    // What the disk had not seen is gone, and the machine has another boot.
    let spool = folder.path().join("node-a/spool");
    let segment = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let segment = segment.filter(|path| path.extension().is_some_and(|ends| ends == "segment")).max().unwrap();
    std::fs::write(segment, []).unwrap();
    let file = spool.join("spool.json");
    let boot = aether_agent::capabilities::boot_id();
    let said = std::fs::read_to_string(&file).unwrap();
    assert!(said.contains(&boot), "{said}");
    std::fs::write(&file, said.replace(&boot, "the boot before")).unwrap();
    agent.start(None);
    // It begins anew at the first number, less eight that are left out.
    let told = host.wait("two beyond them", |world| {
        let batches = world.nodes["node-a"].batches.iter().map(|(batch, lost)| (batch.sequence, *lost));
        let (before, beyond): (Vec<_>, Vec<_>) = batches.partition(|(sequence, _)| *sequence < 9);
        (beyond.len() >= 2).then_some((before, beyond))
    });
    let (before, beyond) = told.await;
    assert_eq!(beyond[..2], [(9, 8 - before.len() as u64), (10, 0)], "{before:?}");
    assert!(agent.log_text().contains("numbers are left out"), "{}", agent.log_text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_never_taken_is_skipped_and_told() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    host.change(|world| world.malformed = Some(2));
    let _agent = Agent::new(folder.path(), "node-a", &host.address, &["--criu", "/nowhere"]);
    host.wait("batches beyond it", batches("node-a", 4)).await;
    host.look(|world| {
        let told: Vec<_> = world.nodes["node-a"].batches.iter().map(|(batch, lost)| (batch.sequence, *lost)).collect();
        assert_eq!(told[..2], [(1, 0), (3, 1)], "{told:?}");
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_token_and_a_taken_name_are_told_to_a_person() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let mut wrong = Agent::new(folder.path(), "node-x", &host.address, &["--criu", "/nowhere"]);
    wrong.kill();
    wrong.start(Some("not-the-token"));
    let refused = |text: &str| text.contains("unauthenticated") && text.contains("fresh join token");
    let said = || refused(&wrong.log_text()).then_some(());
    let waited = tokio::task::block_in_place(|| aether_agent::process::poll(std::time::Duration::from_secs(30), said));
    assert!(waited.is_some(), "{}", wrong.log_text());

    // A name that another live agent holds is asked for again when the host said, and had once it is free.
    host.change(|world| {
        let reason = "another agent is node-b".into();
        world.refuse = Some(v1::Refused { code: "identity.in-use".into(), reason, retry_after_ms: 300 });
    });
    let _second = Agent::new(folder.path(), "node-b", &host.address, &["--criu", "/nowhere"]);
    host.wait("two attempts", hellos("node-b", 2)).await;
    host.change(|world| world.refuse = None);
    host.wait("a batch", batches("node-b", 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_host_behind_the_address_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let mut agent = Agent::new(folder.path(), "node-a", &host.address, &["--criu", "/nowhere"]);
    host.wait("a batch", batches("node-a", 1)).await;
    agent.terminate();
    let imposter = Host::start_with(2, "127.0.0.1:0").await;
    let arguments = ["--criu", "/nowhere"];
    let mut agent = Agent::new(folder.path(), "node-a", &imposter.address, &arguments);
    let said = || agent.log_text().contains("was pinned when joining").then_some(());
    let waited = tokio::task::block_in_place(|| aether_agent::process::poll(std::time::Duration::from_secs(30), said));
    assert!(waited.is_some(), "{}", agent.log_text());
    assert_eq!(imposter.look(|world| world.nodes["node-a"].batches.len()), 0);
    agent.terminate();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_criu_a_checkpoint_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let counter = Counter::new(folder.path(), 1);
    let _agent =
        Agent::new(folder.path(), "node-a", &host.address, &["--criu", "/nowhere/criu", "--config", counter.config()]);
    host.connected("node-a").await;
    host.progress("node-a", "counter", 3.0).await;
    let plan = migration("counter", 1, "node-a", "node-b");
    let key = host.dispatch(wanted("node-a", &plan, 0, &[])).await;
    let refusal = host.refusal("node-a", &key).await;
    assert_eq!(refusal.code, "capability.missing");
    assert!(refusal.reason.contains("/nowhere/criu"), "{refusal:?}");
    let before = counter.count();
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    host.progress("node-a", "counter", before as f64 + 3.0).await;

    // An order by a stranger's hand, though all else is right.
    let (key, mut dispatch) = host.sign(&wanted("node-a", &plan, 0, &[]));
    dispatch.signature[5] ^= 1;
    host.change(|world| world.nodes.get_mut("node-a").unwrap().states.clear());
    host.send("node-a", dispatch).await;
    assert_eq!(host.refusal("node-a", &key).await.code, "order.signature");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_simulating_agent_says_so_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let counter = Counter::new(folder.path(), 1);
    let simulate = ["--criu", "/nowhere", "--simulate", "--config", counter.config()];
    let _a = Agent::new(folder.path(), "node-a", &host.address, &simulate);
    let _b = Agent::new(folder.path(), "node-b", &host.address, &["--criu", "/nowhere", "--simulate"]);
    host.connected("node-a").await;
    host.connected("node-b").await;
    host.look(|world| {
        let capability = &world.nodes["node-b"].capabilities["process.restore"];
        assert!(capability.available && capability.simulated, "{capability:?}");
    });
    let before = host.progress("node-a", "counter", 3.0).await;
    assert_eq!(counter.running(), 0, "a simulated workload is no process");
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    assert!(taken.simulated && taken.status == OutcomeStatus::Succeeded, "{taken:?}");
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    for (node, step) in [("node-b", 1), ("node-b", 2), ("node-a", 3)] {
        let outcome = host.carry_out(node, &plan, step, &inputs).await;
        assert!(outcome.simulated && outcome.status == OutcomeStatus::Succeeded, "{outcome:?}");
    }
    assert_eq!(host.workload("node-b", "counter", Running).await.generation, 2);
    host.progress("node-b", "counter", before).await;
}

#[test]
fn the_command_line_names_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("agent.toml");
    std::fs::write(&file, "node = 'a'\nstate = '/tmp/x'\nspoool = 1\n").unwrap();
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_aether-agent")).args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (good, _, said) = run(&["run", "--config", file.to_str().unwrap()]);
    assert!(!good && said.contains("spoool"), "{said}");
    let (good, _, said) = run(&["run", "--state", folder.path().to_str().unwrap()]);
    assert!(!good && said.contains("`node`"), "{said}");

    let (good, said, _) = run(&["doctor", "--json", "--criu", "/nowhere/criu"]);
    assert!(good);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    let capabilities = said["capabilities"].as_array().unwrap();
    let checkpoint = capabilities.iter().find(|capability| capability["name"] == "process.checkpoint").unwrap();
    assert_eq!(checkpoint["available"], false);
    assert!(checkpoint["reason"].as_str().unwrap().contains("/nowhere/criu"));
    assert!(checkpoint["advice"].as_str().is_some_and(|advice| !advice.is_empty()));
    let (good, example, _) = run(&["example-config"]);
    assert!(good && example.contains("[spool]"));
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_end_with_the_agent_when_that_is_wanted() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let counter = Counter::new(folder.path(), 1);
    let arguments = ["--criu", "/nowhere", "--stop-workloads-on-exit", "--config", counter.config()];
    let mut agent = Agent::new(folder.path(), "node-a", &host.address, &arguments);
    host.progress("node-a", "counter", 2.0).await;
    agent.terminate();
    assert_eq!(counter.running(), 0);
}
