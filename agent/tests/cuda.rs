//! Workloads with GPU contexts, against a stand-in that follows the command line of NVIDIA's `cuda-checkpoint`: a process
//! whose environment names a file has a context, and the file holds its state.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_core::order::{Direction, OutcomeStatus};
use aether_proto::v1::WorkloadState::Running;
use common::{Agent, Counter, Host, Wanted, migration, wanted};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

const TOOL: &str = r#"#!/bin/sh
# cuda-checkpoint --help | --get-state --pid N | --action lock|checkpoint|restore|unlock --pid N [--timeout MS]
[ "$1" = --help ] && { echo "--get-state --pid <pid>; --action <lock|checkpoint|restore|unlock> --pid <pid>"; exit 0; }
case "$1" in --get-state) pid=$3 ;; --action) action=$2; pid=$4 ;; *) echo "bad usage: $*" >&2; exit 2 ;; esac
state=$(tr '\0' '\n' < "/proc/$pid/environ" | sed -n 's/^AETHER_FAKE_CUDA=//p')
[ -f "$state" ] || { echo "no CUDA context in $pid" >&2; exit 1; }
now=$(cat "$state")
[ "$1" = --get-state ] && { echo "$now"; exit 0; }
echo "$action" >> "$state.log"
[ "$(cat "$state.refuses" 2>/dev/null)" = "$action" ] && { echo "CUDA error 801" >&2; exit 1; }
case "$now $action" in
  "running lock") [ "$5" = --timeout ] || exit 2; echo locked ;;
  "locked checkpoint") echo checkpointed ;;
  "checkpointed restore") echo locked ;;
  "locked unlock") echo running ;;
  *) echo "cannot $action while $now" >&2; exit 1 ;;
esac > "$state.new" && mv "$state.new" "$state"
"#;

struct Fleet {
    host: Host,
    counter: Counter,
    state: PathBuf,
    _agents: Vec<Agent>,
    _folder: tempfile::TempDir,
}

/// Two agents, both with the tool or only the source, and a counter with a context.
async fn fleet(criu: &Path, target_has_tool: bool) -> Fleet {
    let folder = tempfile::tempdir().unwrap();
    let tool = folder.path().join("cuda-checkpoint");
    fs::write(&tool, TOOL).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    let state = folder.path().join("context");
    fs::write(&state, "running\n").unwrap();
    let host = Host::start().await;
    let counter = Counter::new(folder.path(), 1);
    let agent = |node: &str, tool: &str, more: &[&str]| {
        let mut arguments = vec!["--criu", criu.to_str().unwrap(), "--cuda-checkpoint", tool];
        arguments.extend(more);
        let environment = vec![("AETHER_FAKE_CUDA".to_string(), state.display().to_string())];
        Agent::with_environment(folder.path(), node, &host.address, &arguments, environment)
    };
    let tool = tool.to_str().unwrap();
    let a = agent("node-a", tool, &["--config", counter.config()]);
    let b = agent("node-b", if target_has_tool { tool } else { "/nowhere/cuda-checkpoint" }, &[]);
    host.connected("node-a").await;
    host.connected("node-b").await;
    host.workload("node-a", "counter", Running).await;
    host.progress("node-a", "counter", 2.0).await;
    Fleet { host, counter, state, _agents: vec![a, b], _folder: folder }
}

impl Fleet {
    fn context(&self) -> (String, String) {
        let log = fs::read_to_string(self.state.with_extension("log")).unwrap_or_default();
        (fs::read_to_string(&self.state).unwrap().trim().into(), log.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_context_is_taken_off_before_the_dump_and_put_back_after_the_restore() {
    let Some(criu) = common::criu("a_context_is_taken_off_before_the_dump") else { return };
    let fleet = fleet(&criu, true).await;
    let plan = migration("counter", 1, "node-a", "node-b");
    fleet.host.look(|world| assert!(world.nodes["node-a"].capabilities["process.checkpoint.gpu"].available));
    let taken = fleet.host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    assert_eq!(fleet.context(), ("checkpointed".into(), "lock checkpoint".into()));
    let inputs = [("manifest", taken.outputs["manifest"].as_str())];
    let restored = fleet.host.carry_out("node-b", &plan, 1, &inputs).await;
    assert_eq!(restored.status, OutcomeStatus::Succeeded, "{restored:?}");
    assert_eq!(fleet.context(), ("running".into(), "lock checkpoint restore unlock".into()));
    assert_eq!(fleet.host.carry_out("node-b", &plan, 2, &inputs).await.status, OutcomeStatus::Succeeded);
    assert_eq!(fleet.counter.running(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_fails_the_source_has_its_gpu_again() {
    let Some(criu) = common::criu("whatever_fails_the_source_has_its_gpu_again") else { return };
    let fleet = fleet(&criu, false).await;
    // The tool refuses in the middle: unlocked again, and the source runs.
    fs::write(fleet.state.with_extension("refuses"), "checkpoint").unwrap();
    let plan = migration("counter", 1, "node-a", "node-b");
    let failed = fleet.host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!((failed.status, failed.code.as_str()), (OutcomeStatus::Failed, "cuda.refused"), "{failed:?}");
    assert!(failed.message.contains("CUDA error 801"), "{}", failed.message);
    assert_eq!(fleet.context(), ("running".into(), "lock checkpoint unlock".into()));

    // The target cannot put it back, so nothing is restored there, and undoing gives the source its GPU.
    fs::remove_file(fleet.state.with_extension("refuses")).unwrap();
    let plan = migration("counter", 2, "node-a", "node-b");
    let taken = fleet.host.carry_out("node-a", &plan, 0, &[]).await;
    assert_eq!(taken.status, OutcomeStatus::Succeeded, "{taken:?}");
    let refused = fleet.host.carry_out("node-b", &plan, 1, &[("manifest", taken.outputs["manifest"].as_str())]).await;
    assert_eq!((refused.status, refused.code.as_str()), (OutcomeStatus::Failed, "cuda.missing"), "{refused:?}");
    let undo = Wanted { direction: Direction::Compensate, ..wanted("node-a", &plan, 0, &[]) };
    let key = fleet.host.dispatch(undo).await;
    assert_eq!(fleet.host.outcome("node-a", &key).await.status, OutcomeStatus::Succeeded);
    assert_eq!(fleet.context().0, "running");
    assert_eq!(fleet.counter.running(), 1);
}
