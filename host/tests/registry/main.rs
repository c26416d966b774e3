//! The registry as people and programs use it: a real server in this process, real components, a real database and
//! disk, and (in `oci`) a real registry.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands, its helpers included")]

mod cli;
mod kept;
mod oci;

use aether_core::{id::Digest, incident::Rank};
use aether_host::{auth, clock, config::Config, plugins::registry::signature, serve::Host, store::Store};
use ed25519_dalek::SigningKey;
use expect_test::expect;
use serde_json::Value;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{io::AsyncWriteExt as _, sync::oneshot};

/// How long anything may take that is waited for. Generous, since machines are shared; never slept through.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A component of the first party.
pub(crate) fn component(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/plugins").join(format!("{name}.wasm"));
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}; run `make guests`", path.display()))
}

/// The same component with other bytes: a section of the custom kind more, which nobody reads.
pub(crate) fn variant(name: &str, mark: &str) -> Vec<u8> {
    let mut bytes = component(name);
    let size = |length: usize| u8::try_from(length).unwrap();
    bytes.extend([0, size(mark.len() + 1), size(mark.len())]);
    bytes.extend(mark.as_bytes());
    bytes
}

pub(crate) fn http() -> reqwest::Client {
    // The only failure is that another was chosen before, and that one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

pub(crate) struct Server {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) url: String,
    pub(crate) token: String,
    http: reqwest::Client,
    stop: oneshot::Sender<()>,
    running: tokio::task::JoinHandle<Result<(), aether_host::serve::Error>>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) fn code(&self) -> (&str, &str) {
        let text = |name| self.body.get(name).and_then(Value::as_str).unwrap_or_default();
        (text("code"), text("reason"))
    }
}

impl Server {
    pub(crate) async fn start(settings: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), settings).await
    }

    /// A bundle of one component is enough, and quick.
    pub(crate) async fn start_in(folder: tempfile::TempDir, settings: impl FnOnce(&mut Config)) -> Self {
        let bundle = folder.path().join("bundle");
        std::fs::create_dir_all(&bundle).unwrap();
        let policy = "name = \"one\"\nversion = \"1.0.0\"\n[slots.risk]\nrole = \"risk-scorer\"\nrule = \"max\"\n\
                      [[slots.risk.entries]]\ncomponent = \"spot-risk\"\n";
        std::fs::write(bundle.join("policy.toml"), policy).unwrap();
        let mut config = Config::default();
        config.server.listen = "127.0.0.1:0".parse().unwrap();
        config.server.data_dir = folder.path().join(".aether");
        config.policy.bundle_dir = bundle;
        config.policy.plugins_dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../build/plugins");
        config.runtime.compiler = Some(env!("CARGO_BIN_EXE_aether").into());
        settings(&mut config);
        let host = Host::start(&config).await.unwrap();
        let (url, token) = (host.url.clone(), host.token.clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let running = tokio_util::task::TaskTracker::new().spawn(host.run(async move {
            let _ = stopped.await;
        }));
        Self { folder, url, token, http: http(), stop, running }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join(".aether")
    }

    pub(crate) fn request(&self, method: &str, path: &str) -> reqwest::RequestBuilder {
        let method = method.parse().unwrap();
        self.http.request(method, format!("{}/api/v1/{path}", self.url)).bearer_auth(&self.token)
    }

    pub(crate) async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        let answer = request.timeout(PATIENCE).send().await.unwrap();
        let status = answer.status().as_u16();
        let body = answer.bytes().await.unwrap();
        Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) }
    }

    pub(crate) async fn call(&self, method: &str, path: &str) -> Answer {
        self.answer(self.request(method, path)).await
    }

    pub(crate) async fn push(&self, bytes: Vec<u8>, signature: Option<&str>) -> Answer {
        let mut request = self.request("POST", "plugins?file=test.wasm").header("content-type", "application/wasm");
        if let Some(signature) = signature {
            request = request.header("aether-signature", signature);
        }
        self.answer(request.body(bytes)).await
    }

    async fn push_archive(&self, name: &str, bytes: Vec<u8>) -> Answer {
        let request = self.request("POST", &format!("assets?name={name}")).header("content-type", "application/x-tar");
        self.answer(request.body(bytes)).await
    }

    /// The newest of the audit: action, outcome, reason.
    async fn audit(&self) -> Vec<String> {
        let page = self.call("GET", "audit?limit=50").await.body;
        let entries = page["entries"].as_array().unwrap();
        let word = |entry: &Value, name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        entries
            .iter()
            .map(|entry| {
                let reason = entry["detail"]["reason"].as_str().unwrap_or_default();
                format!("{} {} {reason}", word(entry, "action"), word(entry, "outcome")).trim().to_owned()
            })
            .collect()
    }

    pub(crate) async fn stop(self) -> tempfile::TempDir {
        self.stop.send(()).unwrap();
        self.running.await.unwrap().unwrap();
        self.folder
    }

    /// Files below a folder of the data folder.
    fn lying(&self, folder: &str) -> Vec<String> {
        let entries = std::fs::read_dir(self.data().join(folder)).unwrap();
        let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Digest::of(bytes).0
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_bytes_are_one_component_however_often_and_however_many_at_once() {
    let server = Server::start(|_| {}).await;
    let bytes = variant("default-gate", "twice");
    let (one, other) = tokio::join!(server.push(bytes.clone(), None), server.push(bytes.clone(), None));
    let mut statuses = [one.status, other.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{} {}", one.body, other.body);
    assert_eq!(one.body["component"], other.body["component"]);
    let record = &one.body["component"];
    assert_eq!((record["digest"].as_str(), record["role"].as_str()), (Some(&*digest(&bytes)), Some("policy-gate")));
    assert_eq!(record["provenance"], serde_json::json!({ "kind": "upload", "file": "test.wasm" }));
    assert_eq!(record["bytes"], bytes.len());
    assert!(record["imports"].as_array().unwrap().iter().any(|name| name == "aether:plugin/types@0.1.0"));
    assert_eq!(record["signature"], Value::Null);

    // Other bytes that call themselves the same are told of and taken: the digest is the identity.
    let third = server.push(component("default-gate"), None).await;
    assert_eq!((third.status, &third.body["same_version"]), (201, &serde_json::json!([digest(&bytes)])));

    let listed = server.call("GET", "plugins").await.body;
    let names: Vec<&str> = listed.as_array().unwrap().iter().map(|p| p["component"].as_str().unwrap()).collect();
    assert_eq!(names, ["default-gate", "default-gate", "spot-risk"]);
    let path = format!("plugins/{}/component", digest(&bytes));
    let loaded = server.request("GET", &path).send().await.unwrap();
    assert_eq!(loaded.headers()["content-type"], "application/wasm");
    assert_eq!(loaded.bytes().await.unwrap(), bytes);
    assert_eq!(server.lying("uploads"), Vec::<String>::new());

    // A restart knows it all; only when it was needed last is told anew.
    let folder = server.stop().await;
    let server = Server::start_in(folder, |_| {}).await;
    let timeless = |mut plugins: Value| {
        for plugin in plugins.as_array_mut().unwrap() {
            plugin["registered"]["used_at"] = Value::Null;
        }
        plugins
    };
    assert_eq!(timeless(server.call("GET", "plugins").await.body), timeless(listed));
    server.stop().await;
}

/// What is wrong with each, from nothing at all to a component that does not hold what its exports promise.
fn broken() -> Vec<(&'static str, Vec<u8>)> {
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let exports = |names: &[&str]| {
        let lines = names.iter().map(|name| format!("(export \"{name}\" (instance $i))"));
        lines.collect::<Vec<_>>().join(" ")
    };
    let with = |head: &str, names: &[&str]| wat(&format!("(component {head} (instance $i) {})", exports(names)));
    let (plugin, scoring) = ("aether:plugin/plugin@0.1.0", "aether:plugin/scoring@0.1.0");
    let mut cut = component("spot-risk");
    cut.truncate(cut.len() / 2);
    vec![
        ("nothing", vec![]),
        ("text", b"(component)".to_vec()),
        ("a program", b"\x7fELF\x02\x01\x01".to_vec()),
        ("a core module", wat("(module)")),
        ("a component that was cut off", cut),
        ("a body that does not validate", with("(core module (func (result i32)))", &[plugin, scoring])),
        ("an empty component", wat("(component)")),
        ("the world of somebody else", with("", &["wasi:cli/run@0.2.0"])),
        ("two roles", with("", &[plugin, scoring, "aether:plugin/gating@0.1.0"])),
        ("another version", with("", &[plugin, "aether:plugin/scoring@9.9.9"])),
        ("no describe", with("", &[scoring])),
        ("an import of its own", with("(import \"acme:cloud/machines@1.0.0\" (instance))", &[plugin, scoring])),
        ("exports of other types", with("", &[plugin, scoring])),
        ("a name of its own making", variant_header()),
        ("too large", vec![0; 2 << 20]),
    ]
}

/// A component whose version of the binary format nobody knows.
fn variant_header() -> Vec<u8> {
    b"\0asm\x77\0\x01\0".to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_broken_file_has_its_own_problem_and_leaves_nothing_behind() {
    let server = Server::start(|config| config.plugins.upload_bytes = 1 << 20).await;
    let before = server.lying("components");
    let mut told = String::new();
    for (what, bytes) in broken() {
        let answer = server.push(bytes, None).await;
        let (code, reason) = answer.code();
        told.push_str(&format!("{what}: {} {code} {reason}\n", answer.status));
    }
    expect![[r#"
        nothing: 422 AE0050 component.not-wasm
        text: 422 AE0050 component.not-wasm
        a program: 422 AE0050 component.not-wasm
        a core module: 422 AE0050 component.core-module
        a component that was cut off: 422 AE0050 component.malformed
        a body that does not validate: 422 AE0055 component.compile
        an empty component: 422 AE0051 component.unknown-world
        the world of somebody else: 422 AE0051 component.unknown-world
        two roles: 422 AE0051 component.several-worlds
        another version: 422 AE0051 component.version
        no describe: 422 AE0051 component.no-plugin
        an import of its own: 422 AE0052 component.imports
        exports of other types: 422 AE0051 component.types
        a name of its own making: 422 AE0050 component.malformed
        too large: 413 AE0054 registry.too-large
    "#]]
    .assert_eq(&told);
    assert_eq!((server.lying("components"), server.lying("uploads")), (before, vec![]));
    let audit = server.audit().await;
    assert_eq!(audit.iter().filter(|entry| entry.starts_with("plugin.push refused")).count(), broken().len());
    assert!(audit.contains(&"plugin.push refused component.imports".to_owned()), "{audit:?}");

    // The name of what is not granted is in the answer.
    let (_, socket) = broken().into_iter().find(|(what, _)| *what == "an import of its own").unwrap();
    let answer = server.push(socket, None).await;
    assert!(answer.body["detail"].as_str().unwrap().contains("acme:cloud/machines@1.0.0"), "{}", answer.body);

    let untyped = server.request("POST", "plugins").body(component("spot-risk"));
    assert_eq!(server.answer(untyped).await.code().0, "AE0007");
    // Over a connection of its own: the one before may be closing, because its body was refused unread.
    let metrics = http().get(format!("{}/metrics", server.url)).send().await.unwrap().text().await.unwrap();
    let counted = "aether_registry_uploads_total{kind=\"component\",outcome=\"component.imports\"} 2";
    assert!(metrics.contains(counted), "{metrics}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_write_policies_brings_components() {
    let server = Server::start(|_| {}).await;
    let store = Store::open(&server.data().join("aether.db")).await.unwrap();
    for (rank, status) in [(Rank::Viewer, 403), (Rank::Approver, 403), (Rank::PolicyAuthor, 201)] {
        let (token, _) = auth::issue(&store, rank.name(), rank, "test", clock::now(), None).await.unwrap();
        let request = http().post(format!("{}/api/v1/plugins", server.url)).bearer_auth(token);
        let request = request.header("content-type", "application/wasm").body(variant("spot-risk", rank.name()));
        assert_eq!(server.answer(request).await.status, status, "{}", rank.name());
    }
    store.close().await;
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_breaks_off_or_is_too_long_leaves_nothing_behind() {
    let server = Server::start(|config| config.plugins.upload_bytes = 64 << 10).await;
    let before = server.lying("components");
    let address = server.url.trim_start_matches("http://").to_owned();
    let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
    let head = format!(
        "POST /api/v1/plugins HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\n\
         content-type: application/wasm\r\ncontent-length: 60000\r\n\r\n",
        server.token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&component("spot-risk")[..30_000]).await.unwrap();
    stream.shutdown().await.unwrap();
    drop(stream);
    let seen = async {
        while !server.audit().await.contains(&"plugin.push refused registry.broke-off".to_owned()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, seen).await.expect("the host notices");

    // Neither with a length nor without one is more taken than the limit.
    let answer = server.push(component("spot-risk"), None).await;
    assert_eq!((answer.status, answer.code()), (413, ("AE0054", "registry.too-large")));
    let parts = futures::stream::iter((0..100).map(|_| Ok::<_, std::io::Error>(vec![0_u8; 1_024])));
    let request = server.request("POST", "plugins").header("content-type", "application/wasm");
    let answer = server.answer(request.body(reqwest::Body::wrap_stream(parts))).await;
    assert_eq!((answer.status, answer.code()), (413, ("AE0054", "registry.too-large")));
    assert_eq!((server.lying("components"), server.lying("uploads")), (before, vec![]));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_are_refused_for_every_reason_there_is() {
    let (key, stranger) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
    let public = blake3::Hash::from_bytes(key.verifying_key().to_bytes()).to_hex().to_string();
    let trusted = vec![signature::Key { name: "release".into(), key: public }];
    // An operator who demands signatures keeps the bundle's beside its components, too; here it has none.
    let server = Server::start(|config| {
        config.plugins.trusted_keys.clone_from(&trusted);
        config.plugins.require_signature = true;
    })
    .await;
    let bytes = component("default-gate");
    let document = signature::sign(&Digest::of(&bytes), &key);
    let other = signature::sign(&Digest::of(b"another"), &key);
    let text = |document: &signature::Document| serde_json::to_string(document).unwrap();
    let with = |change: &dyn Fn(&mut signature::Document)| {
        let mut changed = document.clone();
        change(&mut changed);
        text(&changed)
    };
    let mut told = String::new();
    let cases = [
        ("stripped", None),
        ("an empty header", Some(String::new())),
        ("no JSON", Some("mine".into())),
        ("an empty key id", Some(with(&|document| document.key_id.clear()))),
        ("no key id", Some(r#"{"algorithm":"ed25519","digest":"","signature":""}"#.into())),
        ("no algorithm", Some(with(&|document| document.algorithm = "none".into()))),
        ("a stranger's", Some(text(&signature::sign(&Digest::of(&bytes), &stranger)))),
        (
            "a stranger's under a trusted id",
            Some(with(&|document| {
                document.signature = signature::sign(&Digest::of(&bytes), &stranger).signature;
            })),
        ),
        ("of another component", Some(text(&other))),
        ("of another component, renamed", Some(with(&|document| document.signature.clone_from(&other.signature)))),
        ("zeros", Some(with(&|document| document.signature = "0".repeat(128)))),
        ("cut off", Some(with(&|document| document.signature.truncate(20)))),
        ("good", Some(text(&document))),
    ];
    for (what, header) in &cases {
        let answer = server.push(bytes.clone(), header.as_deref()).await;
        let (code, reason) = answer.code();
        told.push_str(format!("{what}: {} {code} {reason}", answer.status).trim());
        told.push('\n');
    }
    expect![[r#"
        stripped: 422 AE0053 signature.missing
        an empty header: 422 AE0053 signature.malformed
        no JSON: 422 AE0053 signature.malformed
        an empty key id: 422 AE0053 signature.key-id-unset
        no key id: 422 AE0053 signature.key-id-unset
        no algorithm: 422 AE0053 signature.malformed
        a stranger's: 422 AE0053 signature.unknown-key
        a stranger's under a trusted id: 422 AE0053 signature.wrong
        of another component: 422 AE0053 signature.other-component
        of another component, renamed: 422 AE0053 signature.wrong
        zeros: 422 AE0053 signature.wrong
        cut off: 422 AE0053 signature.malformed
        good: 201
    "#]]
    .assert_eq(&told);
    let known = server.call("GET", &format!("plugins/{}", digest(&bytes))).await.body;
    assert_eq!(known["registered"]["signature"]["key_name"], "release");
    let folder = server.stop().await;

    // Where none is demanded, one that is there must be good all the same.
    let server = Server::start_in(folder, |config| config.plugins.trusted_keys = trusted).await;
    let bytes = variant("default-gate", "unsigned");
    let wrong = signature::sign(&Digest::of(b"another"), &key);
    assert_eq!(server.push(bytes.clone(), Some(&text(&wrong))).await.code().1, "signature.other-component");
    let unsigned = server.push(bytes.clone(), None).await;
    assert_eq!((unsigned.status, &unsigned.body["component"]["signature"]), (201, &Value::Null));
    let signed = server.push(bytes.clone(), Some(&text(&signature::sign(&Digest::of(&bytes), &key)))).await;
    assert_eq!((signed.status, signed.body["component"]["signature"]["key_name"].as_str()), (200, Some("release")));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_bundle_needs_stays_and_what_nobody_needs_can_go() {
    let server = Server::start(|_| {}).await;
    let bundled = digest(&component("spot-risk"));
    let known = server.call("GET", &format!("plugins/{bundled}")).await.body;
    assert_eq!(known["registered"]["provenance"]["kind"], "bundle");
    let refused = server.call("DELETE", &format!("plugins/{bundled}")).await;
    assert_eq!((refused.status, refused.code()), (409, ("AE0056", "registry.in-use")));

    let free = variant("spot-risk", "free");
    assert_eq!(server.push(free.clone(), None).await.status, 201);
    let path = format!("plugins/{}", digest(&free));
    assert_eq!(server.call("POST", &format!("{path}/lift-quarantine")).await.code().0, "AE0023");
    assert_eq!(server.call("DELETE", &path).await.status, 204);
    assert_eq!(server.call("DELETE", &path).await.code().0, "AE0004");
    assert_eq!(server.call("GET", &format!("{path}/component")).await.code().0, "AE0004");
    assert_eq!(server.lying("components"), [format!("{bundled}.wasm")]);
    assert_eq!(server.call("GET", "plugins/..%2F..%2Fhost.key/component").await.code().0, "AE0004");
    let audit = server.audit().await;
    for entry in ["plugin.remove done", "plugin.remove refused registry.in-use", "plugin.push done"] {
        assert!(audit.contains(&entry.to_owned()), "{entry}: {audit:?}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_rot_are_never_given_out_and_the_same_upload_mends_them() {
    let server = Server::start(|_| {}).await;
    let bytes = variant("spot-risk", "rots");
    server.push(bytes.clone(), None).await;
    let file = server.data().join("components").join(format!("{}.wasm", digest(&bytes)));
    let mut rotten = bytes.clone();
    rotten[100] ^= 1;
    std::fs::write(&file, rotten).unwrap();
    let path = format!("plugins/{}/component", digest(&bytes));
    assert_eq!(server.call("GET", &path).await.code().0, "AE0031");
    assert_eq!(server.push(bytes.clone(), None).await.status, 200);
    assert_eq!(server.request("GET", &path).send().await.unwrap().bytes().await.unwrap(), bytes);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assets_are_plain_files_and_hostile_archives_are_refused() {
    let server = Server::start(|config| config.plugins.assets_bytes = 1 << 20).await;
    let archive = |name: &str, content: &[u8]| {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        // By hand: the builder itself refuses the names that are wanted here.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    };
    let good = archive("trees/model.json", b"{\"trees\":[]}");
    let stored = server.push_archive("tree-model", good.clone()).await;
    assert_eq!(stored.status, 201, "{}", stored.body);
    assert_eq!(server.push_archive("tree-model", good.clone()).await.status, 200);
    let set = stored.body["assets"]["digest"].as_str().unwrap().to_owned();
    let file = server.data().join("assets").join(&set).join("trees/model.json");
    assert_eq!(std::fs::read(&file).unwrap(), b"{\"trees\":[]}");
    for (bytes, name, status, code) in [
        (archive("../../escaped", b"x"), "m", 422, ("AE0057", "archive.name")),
        (archive("/etc/escaped", b"x"), "m", 422, ("AE0057", "archive.name")),
        (good[..1_024].to_vec(), "m", 422, ("AE0057", "archive.cut-off")),
        (b"no archive at all".repeat(100), "m", 422, ("AE0057", "archive.malformed")),
        (vec![0; 2 << 20], "m", 413, ("AE0054", "registry.too-large")),
        (good, "Not%20A%20Name", 422, ("AE0057", "assets.set-name")),
    ] {
        let answer = server.push_archive(name, bytes).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{}", answer.body);
    }
    assert_eq!((server.lying("assets"), server.lying("uploads")), (vec![set.clone()], vec![]));
    assert!(!server.folder.path().join("escaped").exists());
    let listed = server.call("GET", "assets").await.body;
    assert_eq!((listed[0]["name"].as_str(), listed[0]["files"][0]["bytes"].as_u64()), (Some("tree-model"), Some(12)));
    assert_eq!(server.call("DELETE", &format!("assets/{set}")).await.status, 204);
    assert_eq!(server.lying("assets"), Vec::<String>::new());
    server.stop().await;
}
