//! Snapshots as an operator handles them: a real migration leaves one, sealed; it cannot go while anything needs it;
//! and one that was damaged is told from one that is whole.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]

#[allow(dead_code, reason = "a fleet can do more than this needs")]
mod fleet;

use fleet::Fleet;
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

/// All files below a folder.
fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

async fn stored(fleet: &Fleet) -> Value {
    let all = fleet.get("/api/v1/snapshots").await;
    assert_eq!(all["snapshots"].as_array().map(Vec::len), Some(1), "{all:#}");
    all["snapshots"][0].clone()
}

/// Has the snapshot restored as a drill, which must end so.
async fn drilled(fleet: &Fleet, manifest: &str, result: &str) {
    let begun = fleet.post(&format!("/api/v1/snapshots/{manifest}/drill"), json!({})).await;
    assert_eq!(begun["result"], "running", "{begun}");
    let ended = fleet
        .until("the drill ends", async |fleet| {
            let drill = fleet.get(&format!("/api/v1/snapshots/{manifest}")).await["drill"].clone();
            (drill["id"] == begun["id"] && drill["ended_at"].is_i64()).then_some(drill)
        })
        .await;
    assert_eq!(ended["result"], result, "{ended:#}\n{}", fleet.logs());
}

#[tokio::test]
async fn what_a_migration_stored_is_kept_pinned_verified_and_removed() {
    let keys = tempfile::tempdir().unwrap();
    let key_file = keys.path().join("keys");
    fs::write(&key_file, "c3".repeat(32)).unwrap();
    fs::set_permissions(&key_file, fs::Permissions::from_mode(0o600)).unwrap();
    let sections = format!("[snapshots]\nkey_file = \"{}\"", key_file.display());
    let mut fleet = Fleet::start_with("", &sections).await;
    fleet.start_agent("node-a", true).await;
    fleet.start_agent("node-b", false).await;
    fleet.counts_on().await;
    assert!(fleet.cli(&["snapshot", "list"]).contains("No snapshot is stored"));

    fleet.cli(&["drill", "start", "spot-reclaim", "--node", "node-a"]);
    let incident = fleet.incident_in(&["awaiting_approval"]).await;
    let id = incident["id"].as_str().unwrap().to_owned();
    fleet.cli(&["approve", incident["plan"].as_str().unwrap(), "--yes"]);
    let remove = async |fleet: &Fleet, id: &str| {
        let url = format!("{}/api/v1/snapshots/{id}", fleet.url);
        fleet.authorised(reqwest::Method::DELETE, &url).send().await.unwrap()
    };
    // While its incident is open it stays, whatever anybody says.
    let manifest = fleet
        .until("a snapshot is stored", async |fleet| {
            let all = fleet.get("/api/v1/snapshots").await;
            all["snapshots"].as_array()?.first()?["manifest"].as_str().map(str::to_owned)
        })
        .await;
    let needed = stored(&fleet).await["needed_by"].clone();
    let answer = remove(&fleet, &manifest).await;
    if needed.is_string() {
        assert_eq!(answer.status(), 409);
        let problem: Value = answer.json().await.unwrap();
        assert_eq!(problem["code"], "AE0101");
        assert!(needed.as_str().unwrap().contains(&id), "{needed}");
    }
    fleet
        .until("the incident closes", async |fleet| {
            (fleet.incident(&id).await["incident"]["phase"] == "closed").then_some(())
        })
        .await;
    assert_eq!(fleet.incident(&id).await["incident"]["resolution"], "resolved", "{}", fleet.logs());
    assert!(needed.is_string(), "the incident was open when the snapshot was stored");

    let snapshot = stored(&fleet).await;
    assert_eq!((&snapshot["needed_by"], &snapshot["workload"]), (&Value::Null, &json!("demo-counter")));
    assert_eq!((&snapshot["tier"], snapshot["key"].as_str().map(str::len)), (&json!("warm"), Some(16)));
    let short = &manifest[..12];
    let shown = fleet.cli(&["snapshot", "show", short]);
    assert!(shown.contains("by this host") && shown.contains("pages-1.img"), "{shown}");
    fleet.cli(&["snapshot", "pin", short, "--comment", "before the upgrade"]);
    assert!(fleet.cli(&["snapshot", "list"]).contains("before the upgrade"));
    let (status, problem) =
        fleet.try_post(&format!("/api/v1/snapshots/{manifest}/pin"), json!({ "comment": "again" })).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0101")), "{problem}");
    assert_eq!(remove(&fleet, &manifest).await.status(), 409, "it is pinned");
    let (status, _) = fleet.try_post(&format!("/api/v1/snapshots/{}/verify", "0".repeat(64)), json!({})).await;
    assert_eq!(status.as_u16(), 404);

    // A restart knows all of it; then a byte of each chunk is changed on the disk.
    fleet.kill_host();
    fleet.start_host().await;
    assert_eq!(stored(&fleet).await["pin"]["comment"], "before the upgrade");
    assert!(fleet.cli(&["snapshot", "verify", short]).contains("It is whole"));
    drilled(&fleet, &manifest, "restored").await;
    assert!(fleet.cli(&["snapshot", "drill", short]).contains("It restores on node-a"));
    assert!(fleet.cli(&["snapshot", "list"]).contains("restored, "));
    let nowhere = json!({ "node": "node-z" });
    let (status, problem) = fleet.try_post(&format!("/api/v1/snapshots/{manifest}/drill"), nowhere).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0104")), "{problem}");
    // The workload runs on meanwhile, and there is one of it.
    fleet.counts_on().await;
    let below = fleet.data().join("snapshots/sealed");
    let chunks: Vec<_> =
        files(&below).into_iter().filter(|path| path.components().any(|part| part.as_os_str() == "chunks")).collect();
    for path in &chunks {
        let mut bytes = fs::read(path).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(path, bytes).unwrap();
    }
    let verified = fleet.post(&format!("/api/v1/snapshots/{manifest}/verify"), json!({})).await;
    assert_eq!((&verified["whole"], &verified["signed"]), (&json!(false), &json!(true)), "{verified}");
    assert!(verified["chunks"] == verified["damaged_count"] && verified["chunks"].as_u64() > Some(5), "{verified}");
    assert!(fleet.text("/metrics").await.contains("aether_snapshots_damaged_total"));

    drilled(&fleet, &manifest, "failed").await;
    assert!(fleet.cli(&["snapshot", "list"]).contains("failed, "));
    assert!(fleet.text("/metrics").await.contains("aether_snapshots_drills_failed 1"));

    fleet.cli(&["snapshot", "unpin", short]);
    fleet.cli(&["snapshot", "rm", short]);
    assert!(fleet.cli(&["snapshot", "list"]).contains("No snapshot is stored"));
    // What was copied ahead and was not in the end what was stored waits for its time; all else goes at once.
    let named = usize::try_from(verified["chunks"].as_u64().unwrap()).unwrap();
    fleet
        .until("its chunks are gone", async |fleet| {
            (files(&fleet.data().join("snapshots")).len() == chunks.len() - named).then_some(())
        })
        .await;
    let page = fleet.get("/api/v1/audit?limit=200&verify=true").await;
    assert_eq!(page["chain_verified"], true);
    let told: Vec<&str> =
        page["entries"].as_array().unwrap().iter().filter_map(|entry| entry["action"].as_str()).collect();
    let once = ["snapshot.pin", "snapshot.unpin", "snapshot.remove"].map(|action| (action, 1));
    for (action, times) in once.into_iter().chain([("snapshot.drill", 3), ("snapshot.drill.end", 3)]) {
        assert_eq!(told.iter().filter(|told| **told == action).count(), times, "{action}");
    }
    assert!(fleet.progress() > 0);
    fleet.counts_each_once();
}
