//! Replay and backtest on a host, from the command line: decisions of retired components, tampered records, histories.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers included")]

mod market;

use aether_host::{config::Config, serve::Host};
use market::{aether, component, decided, folder, text};
use serde_json::{Value, json};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use std::{path::Path, process::Output};
use tokio::sync::oneshot;

struct Server {
    folder: tempfile::TempDir,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<Result<(), aether_host::serve::Error>>,
}

impl Server {
    /// A host with the default policy, in a folder with the market's files.
    async fn start() -> Self {
        let folder = folder();
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.data_dir = folder.path().join(".aether");
        config.policy.bundle_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../policies/default");
        config.policy.plugins_dir = component("spot-risk").parent().unwrap().to_owned();
        config.runtime.compiler = Some(env!("CARGO_BIN_EXE_aether").into());
        let host = Host::start(&config).await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio_util::task::TaskTracker::new().spawn(host.run(async move {
            let _ = stopped.await;
        }));
        Self { folder, stop, running }
    }

    async fn run(&self, arguments: &[&str]) -> Output {
        let folder = self.folder.path().to_owned();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let run = move || aether(&folder, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        tokio::task::spawn_blocking(run).await.unwrap()
    }

    async fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(arguments).await).unwrap()
    }

    /// As an incident would have committed it, or as somebody would have changed it in the database.
    async fn record(&self, envelope: &Value) {
        let path = self.folder.path().join(".aether/aether.db");
        let mut database = SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(path)).await.unwrap();
        sqlx::query(
            "INSERT INTO decisions (id, slot, component, subject, at, envelope) VALUES (?, 'risk', ?, 'node/spot-1', ?, ?)
             ON CONFLICT (id) DO UPDATE SET envelope = excluded.envelope",
        )
        .bind(envelope["id"].as_str())
        .bind(envelope["component"].as_str())
        .bind(envelope["at"].as_i64())
        .bind(envelope.to_string())
        .execute(&mut database)
        .await
        .unwrap();
        database.close().await.unwrap();
    }

    async fn stop(self) {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
    }
}

fn entry_of(slots: &Value, name: &str) -> String {
    let slots = slots["slots"].as_array().unwrap();
    let mut entries = slots.iter().flat_map(|slot| slot["entries"].as_array().unwrap());
    let found = entries.find(|entry| entry["entry"]["name"] == name || entry["name"] == name);
    let found = found.unwrap_or_else(|| panic!("no {name} in {slots:?}"));
    found["entry"]["id"].as_str().or_else(|| found["id"].as_str()).unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_replays_after_its_component_was_retired_and_a_tampered_one_does_not() {
    let server = Server::start().await;
    let (envelope, _) = tokio::task::spawn_blocking(decided).await.unwrap();
    let envelope = serde_json::to_value(&envelope).unwrap();
    server.record(&envelope).await;
    assert!(server.done(&["replay", "dec-1"]).await.starts_with("identical: "));

    let entry = entry_of(&server.json(&["slot", "list", "--json"]).await, "spot-risk");
    server.done(&["slot", "retire", "risk", &entry, "--comment", "another takes its place"]).await;
    let replayed = server.json(&["replay", "dec-1", "--json"]).await;
    assert_eq!(replayed["verdict"], "identical", "{replayed}");
    server.done(&["decisions", "export", "dec-1", "--output", "decision.json"]).await;
    let alone = aether(server.folder.path(), &["--url", "http://127.0.0.1:9", "replay", "--file", "decision.json"]);
    assert!(alone.status.success(), "{}", text(&alone.stderr));

    let mut tampered = envelope.clone();
    tampered["outcome"]["Ok"]["assessment"]["risk"]["level"] = json!("low");
    server.record(&tampered).await;
    let output = server.run(&["replay", "dec-1"]).await;
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    let told = text(&output.stdout);
    assert!(told.contains("output differs") && told.contains("/outcome/Ok/assessment/risk/level"), "{told}");

    let unknown = server.run(&["replay", "dec-none"]).await;
    assert_eq!(unknown.status.code(), Some(1));
    let said = text(&unknown.stderr);
    assert!(said.contains("kept are those that incidents refer to") && said.contains("[AE0075]"), "{said}");
    let mut gone = envelope.clone();
    (gone["id"], gone["component"]) = (json!("dec-2"), json!("0".repeat(64)));
    server.record(&gone).await;
    let unknown = server.run(&["replay", "dec-2"]).await;
    assert!(text(&unknown.stderr).contains("[AE0075]"), "{}", text(&unknown.stderr));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_candidate_is_tested_on_a_history_that_the_host_keeps() {
    let server = Server::start().await;
    let put = server.json(&["history", "put", "market", "market.csv", "--labels", "labels.csv", "--json"]).await;
    assert_eq!((put["about"]["subjects"].as_u64(), put["labels"].as_u64()), (Some(2), Some(1)), "{put}");
    assert!(server.done(&["history", "list"]).await.contains("aether.market.price [{USD}/h]"));

    std::fs::write(server.folder.path().join("calm.json"), r#"{ "trend_critical": 5.0 }"#).unwrap();
    let test = ["backtest", "--slot", "risk", "--candidate", "spot-risk", "--imported", "market", "--tick", "10s"];
    let calm = server.json(&[&test[..], &["--config", "calm.json", "--json"]].concat()).await;
    let (candidate, current) = (&calm["report"]["candidate"], &calm["report"]["current"]);
    assert_eq!((candidate["figures"]["caught"].as_u64(), current["figures"]["caught"].as_u64()), (Some(1), Some(1)));
    assert!(candidate["figures"]["false_alarms"].as_u64() < current["figures"]["false_alarms"].as_u64(), "{calm}");
    let names = |side: &Value| -> Vec<String> {
        side["asked"].as_array().unwrap().iter().map(|asked| asked["name"].as_str().unwrap().to_owned()).collect()
    };
    // In the place of the one of its name, beside the others of the slot.
    assert_eq!(names(current).len(), 4);
    assert_eq!(names(candidate).len(), 4);
    let barred = server.run(&[&test[..], &["--min-recall", "1", "--max-false-per-day", "0"]].concat()).await;
    assert_eq!(barred.status.code(), Some(3), "{}", text(&barred.stderr));

    let listed = server.json(&["backtest", "list", "--json"]).await;
    let listed = listed["backtests"].as_array().unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|info| info["state"] == "done"), "{listed:?}");
    assert_eq!(listed[0]["short"].as_array().unwrap().len(), 1);
    let shown = server.run(&["backtest", "show", listed[0]["id"].as_str().unwrap()]).await;
    assert_eq!(shown.status.code(), Some(3), "its bars are remembered");
    assert!(text(&shown.stdout).contains("events caught"));

    let spot = entry_of(&server.json(&["slot", "list", "--json"]).await, "spot-risk");
    let calm = listed[1]["id"].as_str().unwrap();
    for (backtest, part) in [("bt-none", "there is no backtest `bt-none`"), (calm, "is not of this entry")] {
        let step = ["slot", "promote", "risk", &spot, "--to", "shadow", "--backtest", backtest];
        let said = text(&server.run(&step).await.stderr);
        assert!(said.contains(part) && said.contains("[AE0009]"), "{said}");
    }

    for (arguments, part) in [
        (&["backtest", "--slot", "none", "--candidate", "spot-risk"][..], "there is no slot `none` [AE0004]"),
        (&["backtest", "--slot", "risk", "--candidate", "none"], "there is no entry or component `none` [AE0004]"),
        (&["backtest", "--slot", "risk", "--candidate", "default-gate"], "the candidate is a policy-gate"),
        (
            &["backtest", "--slot", "risk", "--candidate", "spot-risk", "--imported", "none"],
            "there is no history `none`",
        ),
        (
            &["backtest", "--slot", "gates", "--candidate", "default-gate", "--from", "1h"],
            "no decision of a policy-gate is kept",
        ),
        (
            &["backtest", "--slot", "risk", "--candidate", "spot-risk", "--from", "1h"],
            "the history holds nothing that the components read",
        ),
        (&["backtest", "stop", "bt-none"], "there is no running backtest `bt-none`"),
        (&["history", "put", "../x", "market.csv"], "[AE0070]"),
        (&["history", "put", "broken", "calm.json"], "must name timestamp,value"),
    ] {
        let output = server.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    server.done(&["history", "delete", "market"]).await;
    assert!(server.done(&["history", "list"]).await.starts_with("No history."));
    server.stop().await;
}
