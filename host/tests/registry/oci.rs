//! Components from a real registry, which the test starts: the reference implementation, `docker-registry`.

use crate::{PATIENCE, Server, component, digest, http};
use aether_core::id::Digest;
use aether_host::plugins::registry::{oci, signature};
use ed25519_dalek::SigningKey;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol, Config, ImageLayer},
    secrets::RegistryAuth,
};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// What setup found or fetched, or the system's.
fn program() -> Option<PathBuf> {
    if let Some(chosen) = std::env::var_os("AETHER_OCI_REGISTRY") {
        return Some(chosen.into());
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join("docker-registry")).find(|path| path.exists())
}

struct Registry {
    address: String,
    _folder: tempfile::TempDir,
    child: Child,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    async fn start(program: &PathBuf) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now; nothing else here asks for a port of its own.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        let config = format!(
            "version: 0.1\nlog: {{ level: error }}\nstorage:\n  filesystem: {{ rootdirectory: {} }}\nhttp: {{ addr: \"{address}\" }}\n",
            folder.path().join("blobs").display()
        );
        let file = folder.path().join("config.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program).arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let registry = Self { address, _folder: folder, child: child.unwrap() };
        let up = async {
            let http = http();
            while http.get(format!("http://{}/v2/", registry.address)).send().await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("the registry comes up");
        registry
    }

    /// Pushes an artifact of these layers; answers the manifest's digest.
    async fn push(&self, name: &str, layers: &[(&str, Vec<u8>)]) -> String {
        let client = Client::new(ClientConfig { protocol: ClientProtocol::Http, ..ClientConfig::default() });
        let image: Reference = format!("{}/{name}", self.address).parse().unwrap();
        let layers: Vec<ImageLayer> =
            layers.iter().map(|(kind, data)| ImageLayer::new(data.clone(), (*kind).into(), None)).collect();
        let config = Config::new(b"{}".to_vec(), "application/vnd.wasm.config.v0+json".into(), None);
        let manifest = oci_client::manifest::OciImageManifest::build(&layers, &config, None);
        client.push(&image, &layers, config, &RegistryAuth::Anonymous, Some(manifest)).await.unwrap();
        client.fetch_manifest_digest(&image, &RegistryAuth::Anonymous).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_pulled_by_tag_and_by_digest_with_its_signature() {
    let Some(program) = program() else {
        assert!(std::env::var_os("CI").is_none(), "docker-registry is missing; `make setup-test` fetches it");
        println!("skipped: docker-registry is missing; `make setup-test` fetches it");
        return;
    };
    let registry = Registry::start(&program).await;
    let address = registry.address.clone();
    let key = SigningKey::from_bytes(&[7; 32]);
    let public = blake3::Hash::from_bytes(key.verifying_key().to_bytes()).to_hex().to_string();
    let server = Server::start(|config| {
        config.plugins.oci_insecure_hosts = vec![address.clone()];
        config.plugins.trusted_keys = vec![signature::Key { name: "release".into(), key: public }];
        config.plugins.upload_bytes = 1 << 20;
    })
    .await;
    let wasm = oci::WASM_LAYERS[0];
    let gate = component("default-gate");
    let document = serde_json::to_vec(&signature::sign(&Digest::of(&gate), &key)).unwrap();
    let manifest =
        registry.push("risk/gate:1.0.0", &[(wasm, gate.clone()), (oci::SIGNATURE_LAYER, document.clone())]).await;
    let reference = format!("oci://{address}/risk/gate:1.0.0");
    let said = server.json(&["plugin", "pull", &reference, "--json"]).await;
    let record = &said["component"];
    assert_eq!(record["digest"], digest(&gate));
    assert_eq!(record["signature"]["key_name"], "release");
    assert_eq!(
        record["provenance"],
        serde_json::json!({ "kind": "oci", "reference": format!("{address}/risk/gate:1.0.0"), "manifest": manifest })
    );
    let pinned = format!("oci://{address}/risk/gate@{manifest}");
    assert!(server.done(&["plugin", "pull", &pinned]).await.contains("was there already"));

    let scorer = component("spot-risk");
    registry.push("bad/signature:1", &[(wasm, scorer.clone()), (oci::SIGNATURE_LAYER, document)]).await;
    registry.push("bad/large:1", &[(wasm, vec![0; 2 << 20])]).await;
    registry.push("bad/text:1", &[(wasm, b"hello".to_vec())]).await;
    registry.push("bad/image:1", &[("application/vnd.oci.image.layer.v1.tar", scorer.clone())]).await;
    registry.push("bad/two:1", &[(wasm, scorer), (wasm, gate)]).await;
    let other = format!("sha256:{}", "0".repeat(64));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for (reference, code, part) in [
        (format!("{address}/bad/signature:1"), "AE0053", "of another component"),
        (format!("{address}/bad/large:1"), "AE0054", "larger than 1048576 bytes"),
        (format!("{address}/bad/text:1"), "AE0050", "not a WebAssembly file"),
        (format!("{address}/bad/image:1"), "AE0058", "no layer of the type application/wasm"),
        (format!("{address}/bad/two:1"), "AE0058", "several layers"),
        (format!("{address}/risk/gate:9"), "AE0058", "did not give"),
        (format!("{address}/risk/gate@{other}"), "AE0058", "did not give"),
        (format!("{closed}/risk/gate:1"), "AE0058", "did not give"),
        ("spot-risk:1".into(), "AE0058", "names no registry"),
    ] {
        let said = server.failed(&["plugin", "pull", &format!("oci://{reference}")]).await;
        assert!(said.contains(part) && said.contains(code), "{reference}: {said}");
    }
    // Plain HTTP is for the registries that the operator named, and for no other.
    let folder = server.stop().await;
    let server = Server::start_in(folder, |_| {}).await;
    let said = server.failed(&["plugin", "pull", &reference]).await;
    assert!(said.contains("[AE0058]"), "{said}");
    server.stop().await;
}
