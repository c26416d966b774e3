//! The command line: keys, signatures, pushing, looking, removing.

use crate::{Server, component, digest, variant};
use serde_json::Value;
use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Command, Output, Stdio},
};

impl Server {
    /// The program in the server's folder, with nothing of this process's environment that it would read.
    pub(crate) async fn run(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_aether"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("AETHER_") {
                command.env_remove(name);
            }
        }
        command.args(arguments).current_dir(self.folder.path()).stdin(Stdio::null());
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    pub(crate) async fn done(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) async fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.done(arguments).await).unwrap()
    }

    pub(crate) async fn failed(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments).await;
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_component_is_pushed_looked_at_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let server = Server::start(|_| {}).await;
    let write =
        |server: &Server, name: &str, bytes: &[u8]| std::fs::write(server.folder.path().join(name), bytes).unwrap();
    let key = server.json(&["plugin", "keygen", "--out", "release.key", "--json"]).await;
    let mode = std::fs::metadata(server.folder.path().join("release.key")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let said = server.failed(&["plugin", "keygen", "--out", "release.key"]).await;
    assert!(said.contains("never overwritten"), "{said}");
    std::fs::copy(server.folder.path().join("release.key"), path("release.key")).unwrap();
    server.stop().await;

    let public = key["public_key"].as_str().unwrap().to_owned();
    let server = Server::start(|config| {
        let key = aether_host::plugins::registry::signature::Key { name: "release".into(), key: public };
        config.plugins.trusted_keys = vec![key];
        config.plugins.require_signature = true;
    })
    .await;
    std::fs::copy(path("release.key"), server.folder.path().join("release.key")).unwrap();
    let gate = component("default-gate");
    write(&server, "gate.wasm", &gate);
    let said = server.failed(&["plugin", "push", "gate.wasm"]).await;
    assert!(said.contains("has no signature") && said.contains("[AE0053]"), "{said}");
    server.done(&["plugin", "sign", "gate.wasm", "--key", "release.key"]).await;
    std::fs::create_dir_all(server.folder.path().join("model/trees")).unwrap();
    write(&server, "model/trees/a.json", b"{}");
    let said = server.done(&["plugin", "push", "gate.wasm", "--assets", "model"]).await;
    assert!(said.contains("signed by release") && said.contains(&digest(&gate)), "{said}");
    assert!(said.contains("assets default-gate (1 files, 2 bytes) stored"), "{said}");
    assert!(server.done(&["plugin", "push", "gate.wasm"]).await.contains("was there already"));

    let said = server.done(&["plugin", "list"]).await;
    assert!(
        said.contains("default-gate") && said.contains("release") && said.contains("upload of gate.wasm"),
        "{said}"
    );
    let said = server.done(&["plugin", "show", "default-gate"]).await;
    assert!(said.contains("policy-gate") && said.contains("needed by  nobody"), "{said}");
    let shown = server.json(&["plugin", "show", &digest(&gate)[..12], "--json"]).await;
    assert_eq!(shown["registered"]["signature"]["key_id"], key["key_id"]);

    // A stolen signature is of another component.
    write(&server, "other.wasm", &variant("default-gate", "other"));
    let said = server.failed(&["plugin", "push", "other.wasm", "--signature", "gate.wasm.sig"]).await;
    assert!(said.contains("of another component"), "{said}");

    let sets = server.json(&["assets", "list", "--json"]).await;
    let set = sets[0]["digest"].as_str().unwrap();
    assert_eq!(sets[0]["files"][0]["name"], "trees/a.json");
    server.done(&["assets", "remove", &set[..10]]).await;
    assert!(server.done(&["assets", "list"]).await.starts_with("No assets."));
    assert!(server.done(&["plugin", "gc", "--dry-run"]).await.starts_with("Nothing to remove"));
    server.done(&["plugin", "remove", &digest(&gate)[..12]]).await;
    let said = server.failed(&["plugin", "show", "default-gate"]).await;
    assert!(said.contains("no component begins with"), "{said}");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_in_a_folder_of_assets_is_not_followed() {
    let server = Server::start(|_| {}).await;
    let folder = server.folder.path().join("model");
    std::fs::create_dir(&folder).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.join("model.json")).unwrap();
    let said = server.failed(&["assets", "push", "model", "--name", "m"]).await;
    assert!(said.contains("neither a file nor a folder"), "{said}");
    std::fs::remove_file(folder.join("model.json")).unwrap();
    let said = server.failed(&["assets", "push", "model", "--name", "m"]).await;
    assert!(said.contains("holds no file"), "{said}");
    server.stop().await;
}
