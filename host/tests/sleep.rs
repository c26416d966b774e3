//! The whole: a node is drained, put to sleep and woken by another, as a person asks for it. Server and agents are real;
//! a folder stands for the machine's sysfs, a fifo for the write that ends when the machine wakes, SIGSTOP for the machine
//! that stands still, and a socket for the network card that hears the magic packet.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and a fleet of processes is waited for by the clock"
)]
#![allow(dead_code, reason = "a fleet for the tests of incidents, too")]

mod fleet;

use fleet::{Fleet, PATIENCE};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::{
    fs,
    net::UdpSocket,
    path::{Path, PathBuf},
};

const CARD: &str = "02:00:5e:10:00:01";

/// What stands for the sysfs of a machine that can sleep and that its card wakes.
fn machine(folder: &Path) -> PathBuf {
    let sys = folder.join("sys");
    for (name, text) in [
        ("power/state", "freeze mem\n"),
        ("power/suspend_stats/success", "0\n"),
        ("class/net/lo/address", &format!("{CARD}\n")),
        ("class/net/lo/device/power/wakeup", "enabled\n"),
    ] {
        let path = sys.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    sys
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), signal).unwrap();
}

/// Asks for a verb on node-a; gives the incident.
async fn asked(fleet: &Fleet, verb: &str, arguments: Value) -> String {
    let wish =
        json!({ "verb": verb, "target": "node/node-a", "arguments": arguments, "reason": "nothing to do there" });
    fleet.post("/api/v1/requests", wish).await["incident"].as_str().unwrap().into()
}

async fn refused(fleet: &Fleet, verb: &str, arguments: Value) -> String {
    let wish =
        json!({ "verb": verb, "target": "node/node-a", "arguments": arguments, "reason": "nothing to do there" });
    let (status, problem) = fleet.try_post("/api/v1/requests", wish).await;
    assert_eq!((status.as_u16(), problem["code"].as_str()), (409, Some("AE0024")), "{problem}");
    problem["detail"].as_str().unwrap().into()
}

async fn resolved(fleet: &Fleet, incident: &str) -> Value {
    let detail = fleet
        .until(&format!("{incident} closes"), async |fleet| {
            let detail = fleet.incident(incident).await;
            (detail["incident"]["phase"] == "closed").then_some(detail)
        })
        .await;
    let resolution = &detail["incident"]["resolution"];
    assert!(resolution == "resolved" || resolution == "unchecked", "{detail:#}\n{}", fleet.logs());
    detail
}

async fn node(fleet: &Fleet) -> Value {
    fleet.get("/api/v1/nodes/node-a").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_sleeps_on_order_and_is_woken_by_another() {
    let card = UdpSocket::bind("0.0.0.0:0").unwrap();
    card.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = card.local_addr().unwrap().port();
    let sections = "[guard]\ncooldown_ms = 0\n[fabric]\nheartbeat_ms = 500\n";
    let mut fleet = Fleet::start_unasked(sections).await;
    let sys = machine(fleet.folder());
    fleet.settings[0] = format!("[power]\nsys = \"{}\"\nwake_port = {port}\n", sys.display());
    fleet.start_agent("node-a", false).await;
    fleet.settings[0] = format!("[power]\nsys = \"/nowhere\"\nwake_port = {port}\n");
    fleet.start_agent("node-b", false).await;
    let generation = node(&fleet).await["generation"].clone();

    // What must not be is refused at once, in words, and in the audit.
    let via = json!({ "via": { "text": "node-b" } });
    assert!(refused(&fleet, "node.sleep", via.clone()).await.contains("drain it before"));
    assert!(refused(&fleet, "node.wake", via.clone()).await.contains("does not sleep on order"));
    let incident = asked(&fleet, "node.drain", json!({})).await;
    resolved(&fleet, &incident).await;

    let state = sys.join("power/state");
    fs::remove_file(&state).unwrap();
    let (kind, mode) = (rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR);
    rustix::fs::mknodat(rustix::fs::CWD, &state, kind, mode, 0).unwrap();
    let told = fleet.cli(&["request", "node.sleep", "node/node-a", "--arg", "via=node-b", "--reason", "a quiet night"]);
    let sleep =
        told.split_whitespace().find(|word| word.starts_with("inc-")).unwrap().trim_end_matches('.').to_string();

    // It is at the write that puts it to sleep, and so it stands still.
    let journal = fleet.folder().join("node-a/journal/journal");
    fleet
        .until("the agent is about to sleep", async |_| {
            let journal = fs::read(&journal).unwrap();
            String::from_utf8_lossy(&journal).contains("\"sleeping ").then_some(())
        })
        .await;
    signal(fleet.agent_pid("node-a"), Signal::STOP);
    let detail = resolved(&fleet, &sleep).await;
    assert_eq!(detail["incident"]["resolution"], "resolved", "{detail:#}");
    let step = &detail["steps"].as_array().unwrap()[0]["outcome"];
    assert_eq!((step["status"].as_str(), step["code"].as_str()), (Some("succeeded"), Some("sleep.silent")), "{step}");
    let asleep = node(&fleet).await;
    assert_eq!((asleep["live"].clone(), asleep["asleep"]["state"].clone()), (json!(false), json!("mem")), "{asleep:#}");
    assert_eq!(asleep["asleep"]["plan"], detail["incident"]["plan"]);
    assert!(fleet.cli(&["nodes"]).contains("asleep"), "{}", fleet.cli(&["nodes"]));
    assert!(fleet.cli(&["nodes", "show", "node-a"]).contains("sleeps on order in `mem` by the plan"));

    // On purpose is not lost: no trouble comes of it, not even for a host that starts meanwhile.
    fleet.kill_host();
    fleet.start_host().await;
    fleet
        .until("the host knows that it sleeps", async |fleet| {
            let risks = fleet.get("/api/v1/risks").await;
            let risk = risks.as_array()?.iter().find(|risk| risk["subject"]["id"] == "node-a")?.clone();
            risk["unknown"].as_str()?.contains("sleeps on order").then_some(())
        })
        .await;
    assert!(node(&fleet).await["asleep"].is_object());
    let incidents = fleet.incidents().await;
    assert_eq!(incidents.len(), 2, "only the two requests: {incidents:#?}");
    assert!(refused(&fleet, "node.undrain", json!({})).await.contains("is asleep, in `mem` by the plan"));

    // The other sends the packet, the card hears it, the machine goes on where it was.
    fleet
        .until("node-b is back", async |fleet| (fleet.get("/api/v1/nodes/node-b").await["live"] == true).then_some(()))
        .await;
    let wake = asked(&fleet, "node.wake", via).await;
    let heard = tokio::task::spawn_blocking(move || {
        let mut buffer = [0; 256];
        let length = card.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    let mut expected = vec![0xff; 6];
    (0..16).for_each(|_| expected.extend([0x02, 0x00, 0x5e, 0x10, 0x00, 0x01]));
    assert_eq!(heard.await.unwrap(), expected);
    signal(fleet.agent_pid("node-a"), Signal::CONT);
    let slept = tokio::task::spawn_blocking(move || fs::read_to_string(state).unwrap()).await.unwrap();
    assert_eq!(slept, "mem");

    let detail = resolved(&fleet, &wake).await;
    assert_eq!(detail["incident"]["resolution"], "resolved", "{detail:#}\n{}", fleet.logs());
    let step = &detail["steps"].as_array().unwrap()[0];
    assert_eq!(
        (step["node"].as_str(), step["outcome"]["status"].as_str()),
        (Some("node-b"), Some("succeeded")),
        "{step}"
    );
    let awake = node(&fleet).await;
    assert_eq!((awake["live"].clone(), awake["asleep"].clone()), (json!(true), Value::Null), "{awake:#}");
    assert_eq!(awake["generation"], generation, "it woke as it was");
    let audit = fleet.get("/api/v1/audit?limit=200&verify=true").await;
    assert_eq!(audit["chain_verified"], true);
    let requests = audit["entries"].as_array().unwrap().iter().filter(|entry| entry["action"] == "plan.request");
    let outcomes: Vec<_> = requests.map(|entry| entry["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "done").count(), 3, "{outcomes:?}");
    assert_eq!(outcomes.iter().filter(|outcome| **outcome == "refused").count(), 3, "{outcomes:?}");
}
