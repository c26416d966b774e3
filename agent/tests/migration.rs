//! Real orders, real CRIU, two real agents: a counting process moves and goes on from where it was; and what happens
//! when a byte is flipped, an agent is killed, an order comes twice.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_agent::act::images::Images;
use aether_core::{
    order::{Direction, Outcome, OutcomeStatus},
    value::Value,
};
use aether_proto::v1::WorkloadState::{Running, Stopped};
use common::{Agent, Ahead, Counter, Host, Wanted, migration, wanted};
use std::{
    collections::BTreeMap,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const SOON: Duration = Duration::from_secs(30);
/// Between two counts.
const PACE: Duration = Duration::from_millis(100);

struct Fleet {
    host: Host,
    counter: Counter,
    a: Agent,
    b: Agent,
    _folder: tempfile::TempDir,
}

/// Two agents, and the counter running under the first.
async fn fleet(criu: &Path, memory_mib: usize) -> Fleet {
    fleet_in(tempfile::tempdir().unwrap(), criu, memory_mib, vec![]).await
}

/// The second agent's copies run before all of their memory is in.
async fn lazy_fleet(folder: tempfile::TempDir, criu: &Path, memory_mib: usize) -> Fleet {
    fleet_in(folder, criu, memory_mib, vec![("AETHER_ACT_LAZY_RESTORE_BYTES".into(), "1".into())]).await
}

async fn fleet_in(folder: tempfile::TempDir, criu: &Path, memory_mib: usize, of_b: Vec<(String, String)>) -> Fleet {
    let host = Host::start().await;
    let counter = Counter::new(folder.path(), memory_mib);
    let criu = criu.to_str().unwrap();
    let a = Agent::new(folder.path(), "node-a", &host.address, &["--criu", criu, "--config", counter.config()]);
    let b = Agent::with_environment(folder.path(), "node-b", &host.address, &["--criu", criu], of_b);
    host.connected("node-a").await;
    host.connected("node-b").await;
    host.workload("node-a", "counter", Running).await;
    host.progress("node-a", "counter", 3.0).await;
    Fleet { host, counter, a, b, _folder: folder }
}

fn bytes(outcome: &Outcome, name: &str) -> u64 {
    match outcome.evidence.get(name) {
        Some(Value::Bytes(bytes)) => *bytes,
        other => panic!("{name} is {other:?} in {outcome:?}"),
    }
}

fn never_began_again(counts: &[u64]) {
    assert!(counts.windows(2).all(|pair| pair[1] == pair[0] + 1), "progress was lost or repeated: {counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_workload_moves_there_and_back_and_its_counter_goes_on() {
    let Some(criu) = common::criu("a_workload_moves_there_and_back_and_its_counter_goes_on") else { return };
    let fleet = fleet(&criu, 8).await;
    let Fleet { host, counter, .. } = &fleet;
    for (generation, from, to) in [(1, "node-a", "node-b"), (2, "node-b", "node-a"), (3, "node-a", "node-b")] {
        let plan = migration("counter", generation, from, to);
        let taken = host.carry_out(from, &plan, 0, &[]).await;
        assert_eq!((taken.status, taken.code.as_str()), (OutcomeStatus::Succeeded, "ok"), "{}", taken.message);
        assert!(!taken.simulated);
        let Some(Value::Integer(at)) = taken.evidence.get("progress") else { panic!("{taken:?}") };
        let at = u64::try_from(*at).unwrap();
        assert_eq!(counter.count(), at);
        assert!(matches!(taken.evidence.get("bytes"), Some(Value::Bytes(bytes)) if *bytes > 8 << 20), "{taken:?}");
        host.workload(from, "counter", Stopped).await;
        assert_eq!(counter.running(), 0);

        let manifest = taken.outputs["manifest"].as_str();
        let inputs = [("manifest", manifest)];
        let restored = host.carry_out(to, &plan, 1, &inputs).await;
        assert_eq!(restored.status, OutcomeStatus::Succeeded, "{}", restored.message);
        // Nearly all of it was there before it was asked for.
        assert!(bytes(&restored, "bytes-ahead") * 10 > bytes(&restored, "bytes") * 9, "{restored:?}");
        assert!(bytes(&taken, "bytes-late") * 4 < bytes(&taken, "bytes"), "{taken:?}");
        assert_eq!(host.workload(to, "counter", Running).await.generation, generation + 1);

        let confirmed = host.carry_out(to, &plan, 2, &inputs).await;
        assert_eq!(confirmed.status, OutcomeStatus::Succeeded, "{}", confirmed.message);
        let retired = host.carry_out(from, &plan, 3, &[]).await;
        assert_eq!(retired.status, OutcomeStatus::Succeeded, "{}", retired.message);

        let gone = |world: &common::World| world.nodes[from].workloads.is_empty().then_some(());
        host.wait("the source to be gone", gone).await;
        assert_eq!(counter.running(), 1);
        #[allow(clippy::cast_precision_loss, reason = "a small count")]
        host.progress(to, "counter", at as f64 + 5.0).await;
        never_began_again(&counter.counts());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_runs_before_its_memory_is_in_has_all_of_it() {
    let Some(criu) = common::criu("a_copy_that_runs_before_its_memory_is_in_has_all_of_it") else { return };
    let fleet = lazy_fleet(tempfile::tempdir().unwrap(), &criu, 8).await;
    let Fleet { host, counter, .. } = &fleet;
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    let restored = host.carry_out("node-b", &plan, 1, &inputs).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{}", restored.message);
    assert!(restored.message.contains("with all of its memory after"), "{}", restored.message);
    assert_eq!(host.carry_out("node-b", &plan, 2, &inputs).await.status, OutcomeStatus::Succeeded);
    assert_eq!(host.carry_out("node-a", &plan, 3, &[]).await.status, OutcomeStatus::Succeeded);
    // It is an ordinary workload then: moved back, page by page what it was.
    let plan = migration("counter", 2, "node-b", "node-a");
    let taken = host.carry_out("node-b", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{}", taken.message);
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    let back = host.carry_out("node-a", &plan, 1, &inputs).await;
    assert_eq!(back.status, OutcomeStatus::Succeeded, "{}", back.message);
    assert!(!back.message.contains("with all of its memory after"), "{}", back.message);
    host.carry_out("node-b", &plan, 3, &[]).await;
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    host.progress("node-a", "counter", counter.count() as f64 + 5.0).await;
    never_began_again(&counter.counts());
}

/// A CRIU whose daemon of pages is slow until the copy counts, and then stands still. It is killed once `ends` is there.
fn halting(folder: &Path, criu: &Path, ends: &Path) -> PathBuf {
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = lazy-pages ]; then (\n\
         until grep -q 'Restore finished' \"$5/restore.log\"; do [ -d \"$5\" ] || exit; done\n\
         size=$(wc -c <'{counts}')\n\
         while kill -STOP $$ && [ $(wc -c <'{counts}') = $size ]; do sleep 0.02; kill -CONT $$; sleep 0.001; done\n\
         until [ -e '{ends}' ]; do [ -d \"$5\" ] || exit; sleep 0.01; done\n\
         kill -KILL $$\n\
         ) 2>/dev/null & fi\nexec '{criu}' \"$@\"\n",
        counts = folder.join("count").display(),
        ends = ends.display(),
        criu = criu.display()
    );
    let path = folder.join("criu");
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    path
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_whose_memory_does_not_come_waits_and_is_ended_and_the_source_goes_on() {
    let Some(criu) = common::criu("a_copy_whose_memory_does_not_come") else { return };
    let folder = tempfile::tempdir().unwrap();
    let ends = folder.path().join("ends");
    let criu = halting(folder.path(), &criu, &ends);
    let mut fleet = lazy_fleet(folder, &criu, 256).await;
    for (generation, code) in [(1, "criu.pages"), (2, "agent.restarted")] {
        let plan = migration("counter", generation, "node-a", "node-b");
        let taken = fleet.host.carry_out("node-a", &plan, 0, &[]).await;
        assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
        let inputs: BTreeMap<_, _> = taken.outputs.clone();
        let key = fleet.host.dispatch(Wanted { inputs, ..wanted("node-b", &plan, 1, &[]) }).await;
        let before = fleet.counter.count();
        let stands = aether_agent::process::poll(SOON, || {
            let count = Some(fleet.counter.count()).filter(|count| *count > before)?;
            std::thread::sleep(5 * PACE);
            (fleet.counter.count() == count).then_some(())
        });
        stands.expect("a copy that waits for its memory");
        // The daemon dies; or the agent does, and the next one ends the copy before the daemon.
        if code == "criu.pages" {
            std::fs::write(&ends, "").unwrap();
        } else {
            fleet.b.kill();
            fleet.b.start(None);
        }
        let failed = fleet.host.outcome("node-b", &key).await;
        assert_eq!((failed.status, failed.code.as_str()), (OutcomeStatus::Failed, code), "{failed:?}");
        assert!(failed.message.to_lowercase().contains("nothing is left of") || code != "criu.pages", "{failed:?}");
        let _ = std::fs::remove_file(&ends);

        let undo = Wanted { direction: Direction::Compensate, ..wanted("node-a", &plan, 0, &[]) };
        let key = fleet.host.dispatch(undo).await;
        assert_eq!(fleet.host.outcome("node-a", &key).await.status, OutcomeStatus::Succeeded);
        fleet.host.workload("node-a", "counter", Running).await;
        assert_eq!(fleet.counter.running(), 1);
        // What the copy counted was of its own memory: it never saw a page that was not.
        let told = std::fs::read_to_string(&fleet.counter.file).unwrap();
        assert!(!told.contains("lost"), "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_flipped_byte_is_refused_before_the_restore_and_the_source_goes_on() {
    let Some(criu) = common::criu("one_flipped_byte_is_refused_before_the_restore") else { return };
    let fleet = fleet(&criu, 2).await;
    let Fleet { host, counter, .. } = &fleet;
    host.change(|world| world.ahead = Ahead::Held);
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    host.change(|world| {
        let largest = world.chunks.values_mut().max_by_key(|chunk| chunk.data.len()).unwrap();
        let raw = zstd::bulk::decompress(&largest.data, 2 << 20).unwrap_or_else(|_| largest.data.clone());
        let mut raw = raw;
        let middle = raw.len() / 2;
        raw[middle] ^= 1;
        largest.codec = aether_proto::v1::Codec::Raw.into();
        largest.data = raw;
    });
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    let restored = host.carry_out("node-b", &plan, 1, &inputs).await;
    assert_eq!((restored.status, restored.code.as_str()), (OutcomeStatus::Failed, "snapshot.corrupt"), "{restored:?}");
    assert_eq!(counter.running(), 0, "a restore was begun");
    let snapshots = fleet.b.state.join("snapshots");
    for folder in [Images::memory_of(&snapshots), snapshots] {
        assert!(std::fs::read_dir(folder).map_or(0, Iterator::count) == 0, "images were left");
    }
    let before = counter.count();

    let undo = Wanted { direction: Direction::Compensate, ..wanted("node-a", &plan, 0, &[]) };
    let key = host.dispatch(undo).await;
    let resumed = host.outcome("node-a", &key).await;
    assert_eq!(resumed.status, OutcomeStatus::Succeeded, "{resumed:?}");
    // Of the next generation, so that the same plan made again is another one.
    assert_eq!(host.workload("node-a", "counter", Running).await.generation, 2);
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    host.progress("node-a", "counter", before as f64 + 3.0).await;
    never_began_again(&counter.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_in_the_middle_goes_on_with_what_is_missing() {
    const CUT_AT: usize = 40;
    // Threads that send, and chunks that each has under way; what was under way comes twice.
    const UNDER_WAY: usize = 8 * 3;
    let Some(criu) = common::criu("what_is_cut_in_the_middle_goes_on") else { return };
    let fleet = fleet(&criu, 96).await;
    let Fleet { host, counter, .. } = &fleet;
    host.change(|world| {
        world.ahead = Ahead::Held;
        (world.cut_when_came, world.cut_when_given) = (Some(CUT_AT), Some(CUT_AT));
    });
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let (came, stored) = host.look(|world| (world.chunks_came, world.chunks.len()));
    assert!(stored > CUT_AT + UNDER_WAY, "the cut was in the middle: {stored}");
    assert!((stored..=stored + UNDER_WAY).contains(&came), "{came} chunks came, of which {stored} differ");
    assert_eq!(host.look(|world| world.nodes["node-a"].hellos.len()), 2, "it was cut once");

    let restored = host.carry_out("node-b", &plan, 1, &[("manifest", &taken.outputs["manifest"])]).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{restored:?}");
    let given = host.look(|world| world.chunks_given);
    assert!(given > CUT_AT + UNDER_WAY && given <= stored + UNDER_WAY, "{given} chunks were given, of {stored}");
    assert_eq!(host.look(|world| world.nodes["node-b"].hellos.len()), 2, "it was cut once");
    host.workload("node-b", "counter", Running).await;
    never_began_again(&counter.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_that_the_host_has_not_signed_is_not_restored() {
    let Some(criu) = common::criu("a_manifest_that_the_host_has_not_signed") else { return };
    let fleet = fleet(&criu, 1).await;
    let Fleet { host, counter, .. } = &fleet;
    host.change(|world| world.unsigned = true);
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    let restored = host.carry_out("node-b", &plan, 1, &[("manifest", &taken.outputs["manifest"])]).await;
    assert_eq!((restored.status, restored.code.as_str()), (OutcomeStatus::Failed, "snapshot.unsigned"), "{restored:?}");
    assert_eq!(counter.running(), 0, "a restore was begun");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_changed_on_its_way_ahead_is_not_kept_and_is_fetched_again() {
    let Some(criu) = common::criu("what_is_changed_on_its_way_ahead_is_not_kept") else { return };
    let fleet = fleet(&criu, 4).await;
    let Fleet { host, counter, .. } = &fleet;
    host.change(|world| world.ahead = Ahead::Flipped);
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    let restored = host.carry_out("node-b", &plan, 1, &[("manifest", &taken.outputs["manifest"])]).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{restored:?}");
    assert_eq!(bytes(&restored, "bytes-ahead"), 0, "{restored:?}");
    let at = counter.count();
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    host.progress("node-b", "counter", at as f64 + 3.0).await;
    never_began_again(&counter.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_is_discarded_and_the_source_goes_on() {
    let Some(criu) = common::criu("a_copy_is_discarded_and_the_source_goes_on") else { return };
    let fleet = fleet(&criu, 2).await;
    let Fleet { host, counter, .. } = &fleet;
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    let restored = host.carry_out("node-b", &plan, 1, &[("manifest", &taken.outputs["manifest"])]).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{restored:?}");
    for (node, step) in [("node-b", 1), ("node-a", 0)] {
        let key = host.dispatch(Wanted { direction: Direction::Compensate, ..wanted(node, &plan, step, &[]) }).await;
        let undone = host.outcome(node, &key).await;
        assert_eq!(undone.status, OutcomeStatus::Succeeded, "{undone:?}");
    }
    host.workload("node-a", "counter", Running).await;
    assert_eq!(counter.running(), 1);
    host.wait("the copy to be gone", |world| world.nodes["node-b"].workloads.is_empty().then_some(())).await;
    // And the next plan for it is taken again, on both.
    let plan = migration("counter", 2, "node-a", "node-b");
    let taken = host.carry_out("node-a", &plan, 0, &[]).await;
    let restored = host.carry_out("node-b", &plan, 1, &[("manifest", &taken.outputs["manifest"])]).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{restored:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_in_the_middle_of_a_checkpoint_lets_the_source_go_on() {
    let Some(criu) = common::criu("an_agent_killed_in_the_middle_of_a_checkpoint") else { return };
    let mut fleet = fleet(&criu, 2).await;
    // The host never says that a chunk is safe, so the checkpoint hangs with its source stopped.
    fleet.host.change(|world| world.hold_chunks = true);
    let plan = migration("counter", 1, "node-a", "node-b");
    let key = fleet.host.dispatch(wanted("node-a", &plan, 0, &[])).await;
    fleet.host.workload("node-a", "counter", Stopped).await;
    fleet.host.wait("a chunk", |world| (!world.chunks.is_empty()).then_some(())).await;
    fleet.a.kill();
    assert_eq!(fleet.counter.running(), 0);
    let before = fleet.counter.count();

    fleet.a.start(None);
    let outcome = fleet.host.outcome("node-a", &key).await;
    assert_eq!((outcome.status, outcome.code.as_str()), (OutcomeStatus::Failed, "agent.restarted"), "{outcome:?}");
    assert!(outcome.message.contains("source is running"), "{outcome:?}");
    fleet.host.workload("node-a", "counter", Running).await;
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    fleet.host.progress("node-a", "counter", before as f64 + 3.0).await;
    assert_eq!(fleet.counter.running(), 1);
    never_began_again(&fleet.counter.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_criu_dumps_lets_the_source_go_on() {
    let Some(criu) = common::criu("an_agent_killed_while_criu_dumps") else { return };
    // Large enough that the dump takes a while.
    let mut fleet = fleet(&criu, 256).await;
    let plan = migration("counter", 1, "node-a", "node-b");
    let key = fleet.host.dispatch(wanted("node-a", &plan, 0, &[])).await;
    let images = Images::memory_of(&fleet.a.state.join("snapshots")).join(&key.0);
    let dumping =
        || std::fs::read_dir(&images).is_ok_and(|mut files| files.any(|f| f.unwrap().file_name() == "dump.log"));
    aether_agent::process::poll(Duration::from_secs(30), || dumping().then_some(())).unwrap();
    fleet.a.kill();
    fleet.a.start(None);
    let outcome = fleet.host.outcome("node-a", &key).await;
    assert_eq!((outcome.status, outcome.code.as_str()), (OutcomeStatus::Failed, "agent.restarted"), "{outcome:?}");
    let before = fleet.counter.count();
    #[allow(clippy::cast_precision_loss, reason = "a small count")]
    fleet.host.progress("node-a", "counter", before as f64 + 3.0).await;
    never_began_again(&fleet.counter.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_is_answered_with_what_was_recorded_and_never_done_again() {
    let Some(criu) = common::criu("a_repeat_is_answered_with_what_was_recorded") else { return };
    let mut fleet = fleet(&criu, 2).await;
    fleet.host.change(|world| world.hold_acks = true);
    let plan = migration("counter", 1, "node-a", "node-b");
    let (key, first) = fleet.host.sign(&wanted("node-a", &plan, 0, &[]));
    fleet.host.send("node-a", first.clone()).await;
    // At once, and again once it is over, and as another dispatch of the same step.
    fleet.host.send("node-a", first.clone()).await;
    let outcome = fleet.host.outcome("node-a", &key).await;
    assert_eq!(outcome.status, OutcomeStatus::Succeeded, "{outcome:?}");
    let chunks = fleet.host.look(|world| world.chunks.len());
    fleet.host.send("node-a", first).await;
    let (_, again) = fleet.host.sign(&wanted("node-a", &plan, 0, &[]));
    fleet.host.send("node-a", again).await;
    let told = |at_least: usize| {
        let key = key.clone();
        move |world: &common::World| {
            use aether_proto::v1::dispatch_state::State;
            let states = world.nodes["node-a"].states.iter().filter(|state| state.key == key.0);
            let outcomes = states.filter_map(|state| match &state.state {
                Some(State::Outcome(outcome)) => Some(outcome.outcome.clone()),
                _ => None,
            });
            let outcomes: Vec<_> = outcomes.collect();
            (outcomes.len() >= at_least).then_some(outcomes)
        }
    };
    let outcomes = fleet.host.wait("three equal outcomes", told(3)).await;
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
    // Nor by another life of the agent; and what was not acknowledged is told on the new stream.
    fleet.a.kill();
    fleet.a.start(None);
    let outcomes = fleet.host.wait("a fourth outcome", told(4)).await;
    assert!(outcomes.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(fleet.host.look(|world| world.chunks.len()), chunks);
    assert_eq!(fleet.counter.running(), 0, "the source is still stopped");
    assert_eq!(fleet.host.workload("node-a", "counter", Stopped).await.generation, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_checks_all_and_does_nothing() {
    let Some(criu) = common::criu("a_dry_run_checks_all_and_does_nothing") else { return };
    let fleet = fleet(&criu, 1).await;
    let mut plan = migration("counter", 1, "node-a", "node-b");
    plan.dry_run = true;
    for (step, node) in [(0, "node-a"), (1, "node-b"), (2, "node-b"), (3, "node-a")] {
        let outcome = fleet.host.carry_out(node, &plan, step, &[]).await;
        assert_eq!((outcome.code.as_str(), outcome.simulated), ("dry-run", true), "{outcome:?}");
    }
    assert_eq!(fleet.counter.running(), 1);
    assert_eq!(fleet.host.workload("node-a", "counter", Running).await.generation, 1);
    // A dry run of what would be refused is refused.
    let mut plan = migration("counter", 7, "node-a", "node-b");
    plan.dry_run = true;
    let key = fleet.host.dispatch(wanted("node-a", &plan, 0, &[])).await;
    assert_eq!(fleet.host.refusal("node-a", &key).await.code, "order.generation");
}

#[tokio::test(flavor = "multi_thread")]
async fn workloads_outlive_their_agent_and_are_found_again() {
    let Some(criu) = common::criu("workloads_outlive_their_agent_and_are_found_again") else { return };
    let mut fleet = fleet(&criu, 1).await;
    let before = fleet.host.workload("node-a", "counter", Running).await;
    fleet.a.terminate();
    assert_eq!(fleet.counter.running(), 1);
    fleet.a.start(None);
    fleet.host.wait("a second hello", |world| (world.nodes["node-a"].hellos.len() == 2).then_some(())).await;
    assert_eq!(fleet.host.workload("node-a", "counter", Running).await.pid, before.pid);

    // A restored one too, though it lives in namespaces of its own.
    let plan = migration("counter", 1, "node-a", "node-b");
    let taken = fleet.host.carry_out("node-a", &plan, 0, &[]).await;
    let inputs = BTreeMap::from([("manifest".to_string(), taken.outputs["manifest"].clone())]);
    let restore = Wanted { inputs: inputs.clone(), ..wanted("node-b", &plan, 1, &[]) };
    let key = fleet.host.dispatch(restore).await;
    assert_eq!(fleet.host.outcome("node-b", &key).await.status, OutcomeStatus::Succeeded);
    fleet.b.kill();
    let count = fleet.counter.count();
    fleet.b.start(None);
    let confirmed = fleet.host.dispatch(Wanted { inputs, ..wanted("node-b", &plan, 2, &[]) });
    fleet.host.wait("a second hello", |world| (world.nodes["node-b"].hellos.len() == 2).then_some(())).await;
    let confirmed = fleet.host.outcome("node-b", &confirmed.await).await;
    assert_eq!(confirmed.status, OutcomeStatus::Succeeded, "{confirmed:?}");
    assert!(fleet.counter.count() > count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_is_called_off_lets_the_source_go_on() {
    let Some(criu) = common::criu("a_checkpoint_that_is_called_off_lets_the_source_go_on") else { return };
    let fleet = fleet(&criu, 2).await;
    fleet.host.change(|world| world.hold_chunks = true);
    let plan = migration("counter", 1, "node-a", "node-b");
    let key = fleet.host.dispatch(wanted("node-a", &plan, 0, &[])).await;
    fleet.host.wait("a chunk", |world| (!world.chunks.is_empty()).then_some(())).await;
    fleet.host.cancel("node-a", &key).await;
    let outcome = fleet.host.outcome("node-a", &key).await;
    assert_eq!((outcome.status, outcome.code.as_str()), (OutcomeStatus::Failed, "order.cancelled"), "{outcome:?}");
    assert_eq!(fleet.counter.running(), 1);
    never_began_again(&fleet.counter.counts());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adopted_process_that_criu_cannot_take_goes_on() {
    let Some(criu) = common::criu("an_adopted_process_that_criu_cannot_take_goes_on") else { return };
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    // In this test's session, not in one of its own.
    let null = std::process::Stdio::null;
    let mut process = std::process::Command::new("/bin/sleep");
    let mut process = process.arg("600").stdin(null()).stdout(null()).stderr(null()).spawn().unwrap();
    let config = folder.path().join("agent.toml");
    std::fs::write(&config, format!("[[workloads]]\nid = \"sleeper\"\nadopt_pid = {}\n", process.id())).unwrap();
    let arguments = ["--criu", criu.to_str().unwrap(), "--config", config.to_str().unwrap()];
    let agent = Agent::new(folder.path(), "node-a", &host.address, &arguments);
    host.connected("node-a").await;
    let workload = host.workload("node-a", "sleeper", Running).await;
    assert!(workload.adopted && workload.pid == process.id(), "{workload:?}");
    let plan = migration("sleeper", 1, "node-a", "node-b");
    let outcome = host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!((outcome.status, outcome.code.as_str()), (OutcomeStatus::Failed, "criu.dump"), "{outcome:?}");
    assert!(outcome.message.contains("setsid") && outcome.message.contains("source is running"), "{outcome:?}");
    assert_eq!(process.try_wait().unwrap(), None);
    drop(agent);
    process.wait().unwrap();
}
