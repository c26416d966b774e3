//! The command line as people use it: the real program against a real server in this process.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers included")]

use aether_host::{config::Config, serve::Host};
use expect_test::expect_file;
use serde_json::Value;
use std::{
    path::Path,
    process::{Command, Output, Stdio},
};
use tokio::sync::oneshot;

#[test]
fn the_help_is_what_it_was() {
    expect_file!["golden/help.txt"].assert_eq(&aether_host::cli::help());
}

/// The program, with nothing of this process's environment that it would read, in a folder of its own.
fn aether(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_aether"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("AETHER_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

struct Server {
    folder: tempfile::TempDir,
    url: String,
    token: String,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<Result<(), aether_host::serve::Error>>,
}

impl Server {
    /// A bundle without components is enough for the command line, and quick.
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bundle = folder.path().join("bundle");
        std::fs::create_dir(&bundle).unwrap();
        std::fs::write(bundle.join("policy.toml"), "name = \"empty\"\nversion = \"1.0.0\"\n[slots]\n").unwrap();
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.data_dir = folder.path().join(".aether");
        config.policy.bundle_dir = bundle;
        config.policy.plugins_dir = folder.path().join("plugins");
        config.runtime.compiler = Some(env!("CARGO_BIN_EXE_aether").into());
        let host = Host::start(&config).await.unwrap();
        let (url, token) = (host.url.clone(), host.token.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio_util::task::TaskTracker::new().spawn(host.run(async move {
            let _ = stopped.await;
        }));
        Self { folder, url, token, stop, running }
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

    async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
        self.folder
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_finds_the_server_of_its_folder_and_prints_for_people_and_programs() {
    let server = Server::start().await;
    let status = server.done(&["status"]).await;
    assert!(status.contains("dry run") && status.contains("policy     empty 1.0.0"), "{status}");
    assert_eq!(server.json(&["status", "--json"]).await["posture"]["dry_run"], true);
    assert!(server.done(&["nodes"]).await.contains("aether join-token create"));
    assert_eq!(server.json(&["nodes", "--json"]).await, serde_json::json!([]));
    assert_eq!(server.done(&["incidents"]).await, "No incident.\n");
    assert!(server.done(&["plugin", "list"]).await.starts_with("bundle empty 1.0.0"));
    assert!(server.done(&["drill", "list"]).await.starts_with("spot-reclaim"));
    assert_eq!(server.done(&["drill", "status"]).await, "No drill runs.\n");
    assert_eq!(server.json(&["drill", "stop", "--json"]).await, serde_json::json!([]));
    assert_eq!(server.json(&["decisions", "list", "--json"]).await, serde_json::json!([]));

    let made = server.json(&["token", "create", "ann", "--rank", "viewer", "--json"]).await;
    let viewer = made["token"].as_str().unwrap();
    let refused = server.run(&["--token", viewer, "join-token", "create"]).await;
    assert_eq!(refused.status.code(), Some(1));
    let said = text(&refused.stderr);
    assert!(said.contains("needs the rank admin, and you have viewer [AE0003]"), "{said}");
    assert!(server.done(&["token", "list"]).await.contains("ann"));
    server.done(&["token", "delete", made["info"]["id"].as_str().unwrap()]).await;
    let gone = server.run(&["--token", viewer, "nodes"]).await;
    assert!(text(&gone.stderr).contains("[AE0002]"), "{}", text(&gone.stderr));
    let join = server.json(&["join-token", "create", "--node", "node-a", "--json"]).await;
    assert!(join["token"].as_str().is_some_and(|token| token.len() > 32));

    let folder = server.stop().await;
    let dead = aether(folder.path(), &["nodes"]);
    assert_eq!(dead.status.code(), Some(1));
    assert!(text(&dead.stderr).contains("cannot be reached. Is it running?"), "{}", text(&dead.stderr));
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_are_one_sentence_and_a_code() {
    let server = Server::start().await;
    let misspelt = server.folder.path().join("misspelt.toml");
    std::fs::write(&misspelt, "[server]\nlistne = \"127.0.0.1:1\"\n").unwrap();
    let misspelt = misspelt.to_str().unwrap();
    for (arguments, code, part) in [
        (&["nodes", "show", "node-z"][..], 1, "there is no node `node-z` [AE0004]"),
        (&["approve", "abc", "--yes"], 1, "no plan of a recent incident begins with `abc`"),
        (&["incidents", "show", "inc-none"], 1, "there is no incident `inc-none` [AE0004]"),
        (&["drill", "start"], 1, "no node is live, so there is nothing to drill"),
        (&["drill", "start", "earthquake"], 2, "invalid value 'earthquake'"),
        (&["token", "create", "x", "--rank", "boss"], 2, "is not one of viewer, operator"),
        (&["frobnicate"], 2, "unrecognized subcommand"),
        (&["serve", "--config", "missing.toml"], 1, "missing.toml cannot be read; nothing was started"),
        (&["serve", "--config", misspelt], 1, "[AE0040]"),
        (&["serve", "--config", misspelt], 1, "unknown field `listne`"),
        (&["policy", "test", "missing"], 1, "missing"),
    ] {
        let output = server.run(arguments).await;
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
    // A token of this host goes to no other.
    let other = server.run(&["--url", "http://127.0.0.1:9", "nodes"]).await;
    assert!(text(&other.stderr).contains("http://127.0.0.1:9 cannot be reached"));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_servers_share_neither_folder_nor_port_and_a_restart_keeps_key_and_token() {
    use std::os::unix::fs::PermissionsExt as _;
    let server = Server::start().await;
    let data = server.folder.path().join(".aether");
    for name in ["admin.token", "host.key", "code.key", "client.json"] {
        let mode = std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
    let key = std::fs::read(data.join("host.key")).unwrap();

    let mut config = Config::default();
    config.server.listen = "127.0.0.1:0".parse().unwrap();
    config.server.data_dir.clone_from(&data);
    config.policy.bundle_dir = server.folder.path().join("bundle");
    let said = Host::start(&config).await.err().unwrap().to_string();
    assert!(said.contains("another server uses the data folder"), "{said}");
    config.server.data_dir = server.folder.path().join("other");
    config.server.listen = server.url.trim_start_matches("http://").parse().unwrap();
    let said = Host::start(&config).await.err().unwrap().to_string();
    assert!(said.contains("cannot listen on") && said.contains("server.listen"), "{said}");

    let token = server.token.clone();
    let _folder = server.stop().await;
    config.server.data_dir.clone_from(&data);
    let again = Host::start(&config).await.unwrap();
    assert!(!again.first_start);
    assert_eq!(again.token, token);
    assert_eq!(std::fs::read(data.join("host.key")).unwrap(), key);
    again.run(async {}).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_of_the_audit_is_verified_without_the_host_and_a_change_is_named() {
    let server = Server::start().await;
    for name in ["ann", "ben", "cas"] {
        server.done(&["token", "create", name]).await;
    }
    let listed = server.done(&["audit", "list"]).await;
    assert!(listed.contains("config.apply") && listed.contains("changed=posture"), "{listed}");
    let exported = server.json(&["audit", "export", "audit.jsonl", "--json"]).await;
    let noted = exported["noted"].as_str().unwrap().to_owned();
    let whole = server.json(&["audit", "verify", "--json"]).await;
    assert_eq!((whole["whole"].as_bool(), whole["head"].as_str()), (Some(true), Some(noted.as_str())));
    server.done(&["token", "create", "dan"]).await;
    let on_host = server.done(&["audit", "verify", "--head", &noted]).await;
    assert!(on_host.starts_with("Whole:"), "an old head holds on a longer chain: {on_host}");

    let folder = server.stop().await;
    let path = folder.path().join("audit.jsonl");
    let lines: Vec<String> = std::fs::read_to_string(&path).unwrap().lines().map(Into::into).collect();
    let verify = |lines: &[String], head: &[&str]| {
        std::fs::write(&path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
        let output = aether(folder.path(), &[&["audit", "verify", "audit.jsonl"], head].concat());
        (output.status.code(), text(&output.stdout))
    };
    let head = ["--head", noted.as_str()];
    assert_eq!(verify(&lines, &head).0, Some(0));
    let last = lines.len() - 1;
    let place = |lines: &[String], name: &str| lines.iter().position(|line| line.contains(name)).unwrap();
    let ben = place(&lines, "\"ben\"");
    let mut changed = lines.clone();
    changed[ben] = changed[ben].replace("\"ben\"", "\"bob\"");
    let mut removed = lines.clone();
    removed.remove(ben);
    let mut moved = lines.clone();
    moved.swap(ben, ben + 1);
    for (lines, word) in [(&changed, "its content"), (&removed, "missing"), (&moved, "moved")] {
        let (code, said) = verify(lines, &[]);
        assert_eq!(code, Some(3), "{said}");
        assert!(said.contains(&format!("entry {}: ", ben + 1)) && said.contains(word), "{said}");
        assert!(said.contains("[AE0090]"), "{said}");
    }
    // The last entry cut off, once with the export's last line and once with one that was made to fit.
    let cut = verify(&lines[..last - 1], &[]);
    assert!(cut.0 == Some(3) && cut.1.contains("without its last line"), "{}", cut.1);
    let entry: Value = serde_json::from_str(&lines[last - 2]).unwrap();
    let fitted = serde_json::json!({ "head": { "number": last - 1, "hash": entry["entry"]["hash"] } }).to_string();
    let mut cut = lines[..last - 1].to_vec();
    cut.push(fitted);
    assert_eq!(verify(&cut, &[]).0, Some(0), "nobody can know but who noted the head");
    let (code, said) = verify(&cut, &head);
    assert!(code == Some(3) && said.contains("the chain ends before it"), "{said}");
}

#[test]
fn doctor_says_what_is_missing_and_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let output = aether(folder.path(), &["doctor", "--criu", "/nowhere/criu", "--json"]);
    assert_eq!(output.status.code(), Some(1), "there is no bundle in an empty folder");
    let findings: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    let of = |check: &str| findings.iter().find(|finding| finding["check"] == check).unwrap().clone();
    assert_eq!(of("policy")["state"], "bad");
    assert_eq!(of("criu")["state"], "limited");
    for finding in &findings {
        let advised = !finding["advice"].as_str().unwrap().is_empty();
        assert_eq!(advised, finding["state"] != "ok", "{finding}");
    }
}

#[test]
fn the_example_configuration_is_printed_and_passes_its_own_check() {
    let folder = tempfile::tempdir().unwrap();
    let example = aether(folder.path(), &["config", "example"]);
    std::fs::write(folder.path().join("aether.toml"), &example.stdout).unwrap();
    let checked = aether(folder.path(), &["config", "check", "--config", "aether.toml"]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));
    std::fs::write(folder.path().join("aether.toml"), "[server]\nport = 1\n").unwrap();
    let checked = aether(folder.path(), &["config", "check", "--config", "aether.toml"]);
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked.stderr);
    assert!(said.contains("unknown field `port`") && said.contains("line 2"), "{said}");
}
