//! Drills on a real fleet: each disturbance is made, the fleet's own detection, plan, approval, action and verification
//! run, the story is scored, and nothing is left behind.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]
#![allow(dead_code, reason = "a fleet for the tests of incidents, too")]

mod fleet;

use fleet::Fleet;
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

async fn two_nodes() -> Fleet {
    known(Fleet::start_with("", "[guard]\ncooldown_ms = 0\n").await).await
}

/// With a workload on node-a, and both known well enough to move it.
async fn known(mut fleet: Fleet) -> Fleet {
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    fleet.counts_on().await;
    fleet.known().await;
    fleet
}

/// Starts a drill, approves what it comes to, and waits until it is over.
async fn drilled(fleet: &Fleet, kind: &str, node: &str, limit_ms: Option<u64>) -> Value {
    let drill = fleet.post("/api/v1/drills", json!({ "kind": kind, "node": node, "limit_ms": limit_ms })).await;
    let path = format!("/api/v1/drills/{}", drill["id"].as_str().unwrap());
    let seen =
        |drill: &Value| drill["facts"]["incident"].is_object() || drill["facts"]["silence"]["noticed_at"].is_i64();
    fleet
        .until(&format!("something follows from {kind}"), async |fleet| {
            let drill = fleet.get(&path).await;
            (seen(&drill) || drill["over_at"].is_i64()).then_some(())
        })
        .await;
    fleet
        .until(&format!("the drill {kind} is over"), async |fleet| {
            let drill = fleet.get(&path).await;
            if let Some(incident) = drill["facts"]["incident"]["id"].as_str() {
                let incident = fleet.incident(incident).await["incident"].clone();
                if incident["phase"] == "awaiting_approval" {
                    let plan = incident["plan"].as_str()?;
                    fleet.might_post(&format!("/api/v1/plans/{plan}/approve"), json!({})).await;
                }
            }
            drill["over_at"].is_i64().then_some(drill)
        })
        .await
}

fn assert_passed(drill: &Value, fleet: &Fleet) {
    let lines = drill["score"].as_array().unwrap();
    assert!(lines.len() > 6, "{drill:#}");
    assert!(lines.iter().all(|line| line["verdict"] == "met"), "{drill:#}\n{}", fleet.logs());
    assert_eq!(drill["passed"], true);
}

/// Processes that disturb for an agent of this fleet's folder or its cgroups.
fn disturbers(drill: &Value) -> Vec<String> {
    let group = format!("aether-{}", drill["id"].as_str().unwrap());
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    let texts = commands.map(|command| String::from_utf8_lossy(&command).replace('\0', " "));
    texts.filter(|command| command.contains("disturb") && command.contains(&group)).collect()
}

#[tokio::test]
async fn a_spot_reclaim_is_scored_and_so_is_a_silence() {
    let fleet = two_nodes().await;
    let drill = drilled(&fleet, "spot-reclaim", "node-a", None).await;
    assert_passed(&drill, &fleet);
    let told = fleet.cli(&["drill", "score"]);
    assert!(told.contains("as expected") && told.contains("success holds on fresh evidence"), "{told}");
    assert!(fleet.cli(&["drill", "status"]).starts_with("No drill runs."));

    // It ends by itself: while it lasts, nobody can reach the node.
    let drill = drilled(&fleet, "host-death", "node-b", Some(20_000)).await;
    assert_passed(&drill, &fleet);
    assert_eq!(fleet.get("/api/v1/nodes/node-b").await["live"], true);
    fleet.counts_on().await;
    fleet.counts_each_once();

    let page = fleet.get("/api/v1/audit?limit=200&verify=true").await;
    assert_eq!(page["chain_verified"], true);
    let entries = page["entries"].as_array().unwrap();
    let told = |action: &str| entries.iter().filter(|entry| entry["action"] == action).count();
    assert_eq!((told("drill.start"), told("drill.end")), (2, 2), "{page:#}");
}

#[tokio::test]
async fn a_noisy_neighbour_is_contained_and_a_full_disk_is_left() {
    let fleet = two_nodes().await;
    let drill = drilled(&fleet, "noisy-neighbour", "node-a", None).await;
    assert_passed(&drill, &fleet);
    assert_eq!(disturbers(&drill), Vec::<String>::new());
    let drill = drilled(&fleet, "disk-filling", "node-a", None).await;
    assert_passed(&drill, &fleet);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let folder = fleet.folder().display().to_string();
    assert!(!mounts.contains(&folder), "something is still mounted: {mounts}");
    fleet.counts_on().await;
    fleet.counts_each_once();
}

#[tokio::test]
async fn a_gpu_off_the_bus_moves_the_work_away() {
    let mut fleet = Fleet::start().await;
    let library = fleet.folder().join("libnvidia-ml.so.1");
    let source = fleet::workspace().join("agent/tests/fake-nvml/nvml.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(source).status().unwrap();
    assert!(built.success(), "the stand-in for NVML was not built");
    let state = fleet.folder().join("gpu");
    let before = "power_limit 300000\ncompute_mode 0\n";
    fs::write(&state, before).unwrap();
    fleet.settings =
        [format!("nvml = \"{}\"\n", library.display()), format!("nvml_stand_in = \"{}\"\n", state.display())];
    fleet.environment = vec![("AETHER_FAKE_NVML".into(), state.display().to_string())];
    let fleet = known(fleet).await;
    let drill = drilled(&fleet, "gpu-lost", "node-a", None).await;
    assert_passed(&drill, &fleet);
    assert_eq!(fs::read_to_string(&state).unwrap(), before);
    fleet.counts_on().await;
}

#[tokio::test]
async fn a_leak_is_limited() {
    let fleet = two_nodes().await;
    let drill = drilled(&fleet, "memory-leak", "node-a", None).await;
    assert_passed(&drill, &fleet);
    assert_eq!(disturbers(&drill), Vec::<String>::new());
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_and_what_runs_is_undone_whoever_is_killed() {
    let mut fleet = Fleet::start().await;
    fleet.start_agent("node-a", true).await;

    // No stand-in: in words, and in the audit.
    let (status, problem) = fleet.try_post("/api/v1/drills", json!({ "kind": "gpu-lost", "node": "node-a" })).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0110")), "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("stand-in for NVML"), "{problem}");
    let (status, _) = fleet.try_post("/api/v1/drills", json!({ "kind": "noisy-neighbour", "node": "node-x" })).await;
    assert_eq!(status.as_u16(), 404);

    let drill = fleet.post("/api/v1/drills", json!({ "kind": "noisy-neighbour", "node": "node-a" })).await;
    let path = format!("/api/v1/drills/{}", drill["id"].as_str().unwrap());
    let begun =
        fleet.until("it begins", async |fleet| fleet.get(&path).await["facts"]["begun_at"].is_i64().then_some(()));
    begun.await;
    assert_eq!(disturbers(&drill).len(), 1);
    let (status, problem) = fleet.try_post("/api/v1/drills", json!({ "kind": "host-death", "node": "node-a" })).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0111")), "{problem}");
    let shown = fleet.get("/api/v1/status").await["drills"].clone();
    assert_eq!(shown[0]["name"], "noisy-neighbour");

    // The agent is killed: what it began ends with it, and the next one clears up.
    fleet.kill_agent("node-a");
    fleet.until("the disturbance ends with its agent", async |_| disturbers(&drill).is_empty().then_some(())).await;
    fleet.start_agent("node-a", true).await;
    let cleared = fleet.until("the next agent has cleared up", async |fleet| {
        (fleet.get("/api/v1/nodes/node-a").await["facts"]["drill.state"] == "over").then_some(())
    });
    cleared.await;
    assert!(!Path::new("/sys/fs/cgroup/cpu").join(format!("aether-{}", drill["id"].as_str().unwrap())).exists());

    // The host is killed: the next one goes on with the drill, and ends it when somebody asks.
    fleet.kill_host();
    fleet.start_host().await;
    let told = fleet.cli(&["drill", "stop"]);
    assert!(told.contains("not as expected") && told.contains("nothing of it is left behind"), "{told}");
    let done = fleet.get(&path).await;
    assert_eq!((done["passed"].as_bool(), done["over_at"].is_i64()), (Some(false), true), "{done:#}");
    let (status, problem) = fleet.try_post(&format!("{path}/stop"), json!({})).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0112")), "{problem}");
}
