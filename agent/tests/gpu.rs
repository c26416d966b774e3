//! GPU control through the real NVML crate, against a stand-in for the driver's library that keeps its state in a file;
//! and draining, which is the node's own.
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod common;

use aether_core::{
    catalogue::{argument, verb},
    order::{
        Direction, Outcome,
        OutcomeStatus::{Failed, Succeeded, Unknown},
    },
    plan::Plan,
    subject::{SubjectKind, Target},
    value::Value,
};
use common::{Agent, Host, Wanted, single, wanted};
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

const UUID: &str = "GPU-00000000-aaaa-bbbb-cccc-000000000001";

fn gpu(generation: u64) -> Target {
    Target { kind: SubjectKind::Gpu, id: format!("node-a/{UUID}"), generation }
}

/// An agent on a machine with one GPU, as far as it can tell.
struct Scene {
    host: Host,
    agent: Agent,
    state: PathBuf,
    folder: tempfile::TempDir,
}

impl Scene {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libnvidia-ml.so.1");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fake-nvml/nvml.c");
        let flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-o"];
        let built = Command::new("cc").args(flags).arg(&library).arg(source).status().unwrap();
        assert!(built.success(), "the stand-in for NVML was not built");
        let state = folder.path().join("gpu");
        fs::write(&state, "power_limit 300000\ncompute_mode 0\n").unwrap();
        let tools = folder.path().join("tools");
        fs::create_dir(&tools).unwrap();
        let smi = tools.join("nvidia-smi");
        let script = "#!/bin/sh\n[ \"$1 $2\" = '--gpu-reset -i' ] || exit 9\n\
                      ls \"$AETHER_FAKE_NVML\".open.* 2>/dev/null && { echo 'in use by another client'; exit 19; }\n\
                      grep -q '^resets_fail' \"$AETHER_FAKE_NVML\" && { echo 'Unable to reset'; exit 19; }\n\
                      echo \"reset $3\" >> \"$AETHER_FAKE_NVML.resets\"\necho 'GPU was successfully reset.'\n";
        fs::write(&smi, script).unwrap();
        fs::set_permissions(&smi, fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
        let host = Host::start().await;
        let environment = [("AETHER_FAKE_NVML", state.display().to_string()), ("PATH", path)];
        let agent = Agent::with_environment(
            folder.path(),
            "node-a",
            &host.address,
            &["--nvml", library.to_str().unwrap()],
            environment.map(|(name, value)| (name.to_string(), value)).into(),
        );
        host.connected("node-a").await;
        Self { host, agent, state, folder }
    }

    fn gpu(&self) -> BTreeMap<String, String> {
        let text = fs::read_to_string(&self.state).unwrap();
        text.lines().filter_map(|line| line.split_once(' ')).map(|(a, b)| (a.to_string(), b.to_string())).collect()
    }

    /// What happens to the GPU behind the agent's back.
    fn meddle(&self, name: &str, value: &str) {
        let mut all = self.gpu();
        all.insert(name.into(), value.into());
        let text: String = all.iter().map(|(name, value)| format!("{name} {value}\n")).collect();
        fs::write(&self.state, text).unwrap();
    }

    /// Until the agent's collector has NVML open.
    async fn held(&self) {
        let name = format!("{}.open.", self.state.file_name().unwrap().to_string_lossy());
        let is_open = || {
            let mut files = fs::read_dir(self.folder.path()).unwrap().flatten();
            files.any(|file| file.file_name().to_string_lossy().starts_with(&name))
        };
        let until = tokio::time::Instant::now() + Duration::from_secs(20);
        while !is_open() {
            assert!(tokio::time::Instant::now() < until, "the collector does not open NVML");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn carry_out(&self, plan: &Plan) -> Outcome {
        self.host.carry_out("node-a", plan, 0, &[]).await
    }

    async fn undo(&self, plan: &Plan) -> Outcome {
        let undo = Wanted { direction: Direction::Compensate, ..wanted("node-a", plan, 0, &[]) };
        let key = self.host.dispatch(undo).await;
        self.host.outcome("node-a", &key).await
    }

    async fn refused(&self, plan: &Plan) -> String {
        let key = self.host.dispatch(wanted("node-a", plan, 0, &[])).await;
        let refusal = self.host.refusal("node-a", &key).await;
        format!("{}: {}", refusal.code, refusal.reason)
    }
}

fn watts(watts: f64) -> Plan {
    let arguments = [(argument::WATTS, Value::Number(watts))];
    single(verb::POWER_LIMIT, "node-a", gpu(1), &arguments, Some(verb::RESTORE_GPU))
}

fn mode(mode: &str) -> Plan {
    let arguments = [(argument::MODE, Value::Text(mode.into()))];
    single(verb::COMPUTE_MODE, "node-a", gpu(1), &arguments, Some(verb::RESTORE_GPU))
}

fn clocks(low: i64, high: i64) -> Plan {
    let arguments = [(argument::MIN_MHZ, Value::Integer(low)), (argument::MAX_MHZ, Value::Integer(high))];
    single(verb::LOCK_CLOCKS, "node-a", gpu(1), &arguments, Some(verb::RESET_CLOCKS))
}

fn reset() -> Plan {
    single(verb::RESET_GPU, "node-a", gpu(1), &[], None)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_limit_is_set_within_the_devices_own_bounds_and_put_back() {
    let scene = Scene::new().await;
    scene.host.look(|world| {
        let hello = world.nodes["node-a"].hellos.last().unwrap();
        let facts = &hello.capabilities.as_ref().unwrap().facts;
        assert_eq!(facts[&format!("gpu.{UUID}")], "Fake GPU");
        assert!(world.nodes["node-a"].capabilities["gpu.control"].available);
    });
    let dry = scene.carry_out(&Plan { dry_run: true, ..watts(250.0) }).await;
    assert!(dry.message.contains("would set power-limit-mw from `300000` to `250000`"), "{}", dry.message);
    assert_eq!(scene.gpu()["power_limit"], "300000");

    let set = scene.carry_out(&watts(250.0)).await;
    assert_eq!(set.status, Succeeded, "{set:?}");
    assert_eq!(scene.gpu()["power_limit"], "250000");
    let undone = scene.undo(&watts(250.0)).await;
    assert_eq!(undone.status, Succeeded, "{undone:?}");
    assert_eq!(scene.gpu()["power_limit"], "300000");

    // The catalogue allows it; this device does not.
    let refused = scene.refused(&watts(400.0)).await;
    assert!(refused.contains("400 W is not within 100 to 350 W"), "{refused}");
    assert!(scene.refused(&Plan { dry_run: true, ..watts(400.0) }).await.contains("gpu.bounds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compute_mode_that_somebody_else_changed_is_left() {
    let scene = Scene::new().await;
    let plan = mode("exclusive-process");
    assert_eq!(scene.carry_out(&plan).await.status, Succeeded);
    assert_eq!(scene.gpu()["compute_mode"], "3");
    scene.meddle("compute_mode", "2");
    let left = scene.undo(&plan).await;
    assert_eq!((left.status, left.code.as_str()), (Failed, "setting.foreign"), "{left:?}");
    assert!(left.message.contains("`exclusive-process` to `prohibited`"), "{}", left.message);
    assert_eq!(scene.gpu()["compute_mode"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_are_locked_seen_and_given_back() {
    let scene = Scene::new().await;
    let plan = clocks(600, 1_200);
    let locked = scene.carry_out(&plan).await;
    assert_eq!(locked.status, Succeeded, "{locked:?}");
    assert_eq!(locked.evidence["graphics-mhz"], Value::Integer(1_200));
    assert_eq!((scene.gpu()["locked_low"].as_str(), scene.gpu()["locked_high"].as_str()), ("600", "1200"));
    assert_eq!(scene.undo(&plan).await.status, Succeeded);
    assert_eq!(scene.gpu()["locked_high"], "0");
    assert!(scene.refused(&clocks(600, 2_500)).await.contains("highest graphics clock is 1980 MHz"));
    assert!(scene.refused(&clocks(900, 600)).await.contains("gpu.bounds"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gpu_is_reset_only_when_nobody_is_on_it() {
    let scene = Scene::new().await;
    scene.meddle("compute_processes", "2");
    let refused = scene.refused(&reset()).await;
    assert!(refused.contains("the processes 4711, 4712 have contexts") && refused.contains("gpu.in-use"), "{refused}");
    scene.meddle("compute_processes", "0");
    // The collector holds NVML, as any client does that keeps a GPU from being reset; it lets go, and takes it up again.
    scene.held().await;
    let plan = Plan { watch_ms: 1_500, ..reset() };
    let done = scene.carry_out(&plan).await;
    scene.held().await;
    assert_eq!(done.status, Succeeded, "{done:?}");
    let resets = scene.state.with_extension("resets");
    assert_eq!(fs::read_to_string(&resets).unwrap(), format!("reset {UUID}\n"));
    // A repeat is answered, not done again.
    assert_eq!(scene.carry_out(&plan).await, done);
    assert_eq!(fs::read_to_string(&resets).unwrap().lines().count(), 1);

    scene.meddle("resets_fail", "1");
    let failed = scene.carry_out(&Plan { watch_ms: 2_000, ..reset() }).await;
    assert_eq!((failed.status, failed.code.as_str()), (Failed, "gpu.reset"));
    assert!(failed.message.contains("Unable to reset"), "{}", failed.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drivers_refusals_are_told_in_words_and_nothing_is_changed() {
    let scene = Scene::new().await;
    for (fail, code) in
        [("permission", "gpu.permission"), ("unsupported", "gpu.unsupported"), ("forgets", "setting.not-kept")]
    {
        scene.meddle("fail", fail);
        let plan = Plan { watch_ms: 1_000 + code.len() as u64, ..watts(250.0) };
        let failed = scene.carry_out(&plan).await;
        assert_eq!((failed.status, failed.code.as_str()), (Failed, code), "{failed:?}");
        assert_eq!(scene.gpu()["power_limit"], "300000");
    }
    scene.meddle("fail", "lost");
    let refused = scene.refused(&watts(200.0)).await;
    assert!(refused.contains("fallen off the bus") && refused.contains("gpu.lost"), "{refused}");

    // One that is lost between the deed and its undoing: not undone, and said so.
    scene.meddle("fail", "no");
    let plan = watts(260.0);
    assert_eq!(scene.carry_out(&plan).await.status, Succeeded);
    scene.meddle("fail", "lost");
    let left = scene.undo(&plan).await;
    assert_eq!((left.status, left.code.as_str()), (Failed, "gpu.lost"), "{left:?}");

    scene.meddle("fail", "no");
    let other = Target { id: "node-a/GPU-other".into(), ..gpu(1) };
    let plan = Plan {
        steps: vec![aether_core::plan::Step { target: other, ..watts(250.0).steps[0].clone() }],
        ..watts(250.0)
    };
    assert!(scene.refused(&plan).await.contains("no GPU here has this UUID"));
    let old = Plan {
        steps: vec![aether_core::plan::Step { target: gpu(2), ..watts(250.0).steps[0].clone() }],
        ..watts(250.0)
    };
    assert!(scene.refused(&old).await.starts_with("order.generation"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_killed_while_it_locks_clocks_does_not_guess() {
    let mut scene = Scene::new().await;
    let plan = clocks(600, 1_200);
    scene.host.change(|world| world.hold_acks = true);
    let done = scene.carry_out(&plan).await;
    assert_eq!(done.status, Succeeded);
    // The journal as a crash before the outcome would leave it.
    scene.agent.kill();
    let journal = scene.agent.state.join("journal/journal");
    let bytes = fs::read(&journal).unwrap();
    let mut kept = 0;
    while let Some(length) = bytes.get(kept..kept + 4) {
        let length = usize::try_from(u32::from_le_bytes(length.try_into().unwrap())).unwrap();
        if String::from_utf8_lossy(&bytes[kept + 8..kept + 8 + length]).contains("\"record\":\"outcome\"") {
            break;
        }
        kept += 8 + length;
    }
    fs::write(&journal, &bytes[..kept]).unwrap();
    scene.host.change(|world| world.nodes.get_mut("node-a").unwrap().states.clear());
    scene.agent.start(None);
    let key = plan.key(0, Direction::Forward).unwrap();
    let settled = scene.host.outcome("node-a", &key).await;
    assert_eq!((settled.status, settled.code.as_str()), (Unknown, "agent.restarted"), "{settled:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_nvml_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let host = Host::start().await;
    let _agent = Agent::new(folder.path(), "node-a", &host.address, &["--nvml", "/nowhere/libnvidia-ml.so.1"]);
    host.connected("node-a").await;
    host.look(|world| {
        for capability in ["gpu.control", "gpu.reset"] {
            let found = &world.nodes["node-a"].capabilities[capability];
            assert!(!found.available && found.reason.contains("/nowhere/libnvidia-ml.so.1"), "{found:?}");
        }
    });
    let key = host.dispatch(wanted("node-a", &watts(250.0), 0, &[])).await;
    assert_eq!(host.refusal("node-a", &key).await.code, "capability.missing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_drained_across_a_restart_and_undrained() {
    let mut scene = Scene::new().await;
    let drained = |world: &common::World| world.nodes["node-a"].facts.get("node.drained").cloned();
    let node = Target { kind: SubjectKind::Node, id: "node-a".into(), generation: 1 };
    let plan = single(verb::DRAIN, "node-a", node, &[], Some(verb::UNDRAIN));
    let done = scene.carry_out(&plan).await;
    assert_eq!(done.status, Succeeded, "{done:?}");
    let why = scene.host.wait("the drain to be told", drained).await;
    assert_eq!(why, format!("drained by the approved plan {}", plan.hash().short()));
    scene.agent.kill();
    scene.host.change(|world| world.nodes.get_mut("node-a").unwrap().facts.clear());
    scene.agent.start(None);
    scene.host.wait("the drain to be told again", drained).await;
    let undone = scene.undo(&plan).await;
    assert_eq!(undone.status, Succeeded, "{undone:?}");
    scene.host.wait("the drain to be over", |world| drained(world).is_none().then_some(())).await;
    drop(scene.folder);
}
