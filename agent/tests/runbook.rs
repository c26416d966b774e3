//! Runbooks: a script that was approved by its digest runs once, in a cgroup with bounds, and its output comes back.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_core::{
    catalogue::{argument, verb},
    id::Digest,
    order::{
        Outcome,
        OutcomeStatus::{Failed, Succeeded, Unknown},
    },
    plan::Plan,
    subject::{SubjectKind, Target},
    value::Value,
};
use common::{Agent, Host, single, wanted};
use std::{collections::BTreeMap, fs, path::Path};

struct Scene {
    host: Host,
    agent: Agent,
    folder: tempfile::TempDir,
}

/// An agent that can hold scripts to bounds; none where this machine gives it no cgroup.
async fn scene(test: &str) -> Option<Scene> {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let agent = Agent::new(folder.path(), "node-a", &host.address, &[]);
    host.connected("node-a").await;
    let found = host.look(|world| world.nodes["node-a"].capabilities["runbook.run"].clone());
    if !found.available {
        common::skip(test, &found.reason);
        return None;
    }
    Some(Scene { host, agent, folder })
}

fn plan(script: &str, change: impl FnOnce(&mut BTreeMap<String, Value>)) -> Plan {
    let arguments = [
        (argument::RUNBOOK, Value::Text("test".into())),
        (argument::SCRIPT, Value::Text(Digest::of(script.as_bytes()).0)),
        (argument::CPUS, Value::Number(0.5)),
        (argument::MEMORY_MAX, Value::Bytes(64 << 20)),
        (argument::PIDS, Value::Integer(16)),
        (argument::OUTPUT, Value::Bytes(1_000)),
        (argument::TIMEOUT, Value::Duration(60_000)),
    ];
    let target = Target { kind: SubjectKind::Node, id: "node-a".into(), generation: 1 };
    let mut plan = single(verb::SCRIPT, "node-a", target, &arguments, None);
    change(&mut plan.steps[0].arguments);
    plan
}

impl Scene {
    async fn run(&self, script: &str, change: impl FnOnce(&mut BTreeMap<String, Value>)) -> Outcome {
        self.host.carry_out("node-a", &plan(script, change), 0, &[("script", script)]).await
    }

    fn nothing_is_left(&self) {
        let left = fs::read_dir(self.agent.state.join("runbooks")).unwrap().count();
        assert_eq!(left, 0, "a script's folder was left");
        for hierarchy in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids"] {
            let entries = fs::read_dir(hierarchy).into_iter().flatten().flatten();
            let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
            let left: Vec<String> = names.filter(|name| name.starts_with("aether-runbook-")).collect();
            let ours = left.iter().filter(|name| self.keys().iter().any(|key| key.starts_with(&name[15..])));
            assert_eq!(ours.count(), 0, "{left:?} in {hierarchy}");
        }
    }

    /// Of the orders that were sent.
    fn keys(&self) -> Vec<String> {
        self.host.look(|world| world.nodes["node-a"].states.iter().map(|state| state.key.clone()).collect())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_gets_its_arguments_as_they_are_and_runs_once() {
    let Some(scene) = scene("a_script_gets_its_arguments_as_they_are").await else { return };
    let mark = scene.folder.path().join("mark");
    let script = format!(
        "#!/bin/sh\necho once >> {}\nprintf '%s|%s|%s' \"$AETHER_ARG_UNIT\" \"$AETHER_ARG_MAX_LINES\" \"$SECRET\"\ncat /proc/self/cgroup >&2\n",
        mark.display()
    );
    let with = |arguments: &mut BTreeMap<String, Value>| {
        arguments.insert("arg.unit".into(), Value::Text("a; touch /tmp/x $(id) 'b'".into()));
        arguments.insert("arg.max-lines".into(), Value::Integer(7));
        arguments.insert(argument::OUTPUT.into(), Value::Bytes(8_000));
    };
    let done = scene.run(&script, with).await;
    assert_eq!(done.status, Succeeded, "{done:?}");
    let output = &done.outputs["output"];
    assert!(output.starts_with("a; touch /tmp/x $(id) 'b'|7|"), "{output}");
    assert!(output.contains("/aether-runbook-"), "it was not in a cgroup of its own: {output}");
    assert_eq!(scene.run(&script, with).await, done, "a repeat is answered");
    assert_eq!(fs::read_to_string(&mark).unwrap(), "once\n");
    scene.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn another_script_than_the_approved_one_is_not_run() {
    let Some(scene) = scene("another_script_than_the_approved_one").await else { return };
    let (approved, other) = ("#!/bin/sh\nexit 0\n", "#!/bin/sh\nexit 1\n");
    let refused = |plan: Plan, script: Option<&'static str>| {
        let host = &scene.host;
        async move {
            let inputs: Vec<(&str, &str)> = script.map(|script| ("script", script)).into_iter().collect();
            let key = host.dispatch(wanted("node-a", &plan, 0, &inputs)).await;
            host.refusal("node-a", &key).await.reason
        }
    };
    assert!(refused(plan(approved, |_| {}), Some(other)).await.contains("runbook.other-script"));
    let later = Plan { watch_ms: 2_000, ..plan(approved, |_| {}) };
    assert!(refused(later, None).await.contains("order.inputs"));
    let bare = "echo no interpreter\n";
    assert!(refused(plan(bare, |_| {}), Some(bare)).await.contains("runbook.interpreter"));
    // A dry run runs nothing, and says what it is worth.
    let dry = Plan { dry_run: true, ..plan(approved, |_| {}) };
    let dry = scene.host.carry_out("node-a", &dry, 0, &[("script", approved)]).await;
    assert_eq!(dry.evidence["dry-run"], Value::Text("not-simulable".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_script_is_held_to_its_bounds_and_leaves_nothing_running() {
    let Some(scene) = scene("a_script_is_held_to_its_bounds").await else { return };
    let failed = scene.run("#!/bin/sh\necho why\nexit 3\n", |_| {}).await;
    assert_eq!((failed.status, failed.code.as_str()), (Failed, "runbook.status"));
    assert_eq!((failed.outputs["output"].as_str(), &failed.evidence["status"]), ("why\n", &Value::Integer(3)));

    let talks = scene.run("#!/bin/sh\nhead -c 100000 /dev/zero | tr '\\0' x\n", |_| {}).await;
    assert_eq!((talks.outputs["output"].len(), &talks.evidence["output-cut"]), (1_000, &Value::Flag(true)));
    assert_eq!(talks.evidence["written"], Value::Bytes(100_000));

    let left = scene.folder.path().join("left");
    let leaves = format!(
        "#!/bin/sh\nsetsid sh -c 'echo $$ > {}; sleep 600' &\nwhile [ ! -s {} ]; do sleep 0.05; done\n",
        left.display(),
        left.display()
    );
    let done = scene.run(&leaves, |_| {}).await;
    assert_eq!(done.status, Succeeded, "{done:?}");
    let pid: u32 = fs::read_to_string(&left).unwrap().trim().parse().unwrap();
    assert!(aether_agent::process::ProcessRef::find(pid).is_none(), "what it left behind still runs");

    let slow = scene.run("#!/bin/sh\nsleep 600\n", |arguments| {
        arguments.insert(argument::TIMEOUT.into(), Value::Duration(1_000));
    });
    let slow = slow.await;
    assert_eq!((slow.status, slow.code.as_str()), (Unknown, "order.timeout"), "{slow:?}");

    let forks = "#!/bin/sh\nfor i in $(seq 40); do sleep 600 & done 2>/dev/null\necho many\n";
    let held = scene.run(forks, |arguments| {
        arguments.insert(argument::PIDS.into(), Value::Integer(8));
    });
    let held = held.await;
    assert!(held.status != Succeeded || !held.outputs["output"].contains("many"), "{held:?}");

    let eats = "#!/bin/sh\nx=x\nwhile true; do x=$x$x; done\n";
    let eaten = scene.run(eats, |_| {}).await;
    assert_eq!(eaten.status, Failed, "{eaten:?}");
    assert!(["runbook.memory", "runbook.killed"].contains(&eaten.code.as_str()), "{eaten:?}");
    scene.nothing_is_left();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_a_script_runs_ends_it_and_does_not_know() {
    let Some(mut scene) = scene("an_agent_killed_while_a_script_runs").await else { return };
    let mark = scene.folder.path().join("begun");
    let script = format!("#!/bin/sh\necho $$ > {}\nsleep 600\n", mark.display());
    let plan = plan(&script, |_| {});
    let key = scene.host.dispatch(wanted("node-a", &plan, 0, &[("script", script.as_str())])).await;
    let pid = |path: &Path| fs::read_to_string(path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let begun = aether_agent::process::poll(std::time::Duration::from_secs(20), || pid(&mark)).unwrap();
    scene.agent.kill();
    scene.agent.start(None);
    let settled = scene.host.outcome("node-a", &key).await;
    assert_eq!((settled.status, settled.code.as_str()), (Unknown, "agent.restarted"), "{settled:?}");
    assert!(aether_agent::process::ProcessRef::find(begun).is_none(), "the script still runs");
    scene.nothing_is_left();
}
