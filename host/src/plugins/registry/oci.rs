//! Components from registries that speak the OCI distribution protocol.
//!
//! The artifact is the one of the CNCF's Wasm OCI artifact layout: an image manifest with the config
//! `application/vnd.wasm.config.v0+json` and one layer `application/wasm`. A signature may be a second layer of the type
//! `application/vnd.aether.signature.v1+json`. What is pulled is bounded and its digests are verified; that it came from
//! a registry is no proof of anything, so it is checked like every upload.

use super::{Settings, Spool, signature};
use bytes::Bytes;
use futures::TryStreamExt as _;
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    errors::OciDistributionError,
    manifest::{OciDescriptor, OciImageManifest, OciManifest},
    secrets::RegistryAuth,
};
use std::time::Duration;

/// The component itself. The second name is what tools wrote before there was a layout.
pub const WASM_LAYERS: [&str; 2] = ["application/wasm", "application/vnd.wasm.content.layer.v1+wasm"];
/// A signature of it.
pub const SIGNATURE_LAYER: &str = "application/vnd.aether.signature.v1+json";
/// How long a registry may say nothing at all.
const SILENCE: Duration = Duration::from_secs(15);

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("`{reference}` is not a reference to an artifact: {why}")]
    Reference { reference: String, why: String },
    #[error("the registry did not give `{reference}`: {why}")]
    Registry { reference: String, why: String },
    #[error("`{reference}` was not pulled within {limit_ms} ms (`plugins.oci_pull_ms`)")]
    Slow { reference: String, limit_ms: u64 },
    #[error("`{reference}` is not a component: {why}")]
    Artifact { reference: String, why: String },
}

impl Error {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Error::Reference { .. } => "oci.reference",
            Error::Registry { .. } => "oci.registry",
            Error::Slow { .. } => "oci.slow",
            Error::Artifact { .. } => "oci.artifact",
        }
    }
}

/// Who asks a registry that does not answer everybody.
#[derive(Clone, Default)]
pub struct Login {
    pub username: String,
    pub password: String,
}

/// What was pulled.
pub struct Pulled {
    pub bytes: Bytes,
    pub signature: Option<signature::Document>,
    /// Whole, with registry and tag or digest.
    pub reference: String,
    /// Digest of the manifest.
    pub manifest: String,
}

/// A reference that names its registry: a short one would quietly mean one particular company's.
fn parse(text: &str) -> Result<Reference, Error> {
    let shown: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    let wrong = |why: &str| Error::Reference { reference: shown.clone(), why: why.into() };
    let bare = text.trim().strip_prefix("oci://").unwrap_or(text.trim());
    let (host, _) =
        bare.split_once('/').ok_or_else(|| wrong("it names no registry; write `oci://registry/name:tag`"))?;
    if host != "localhost" && !host.contains(['.', ':']) {
        return Err(wrong("it names no registry; write `oci://registry/name:tag`"));
    }
    bare.parse().map_err(|error: oci_client::ParseError| wrong(&error.to_string()))
}

/// Pulls a component, bounded by `spool` and by `plugins.oci_pull_ms`.
pub async fn pull(
    settings: &Settings,
    reference: &str,
    login: Option<Login>,
    spool: Spool,
) -> Result<Pulled, super::Error> {
    let image = parse(reference)?;
    let limit_ms = settings.oci_pull_ms;
    let pulled = tokio::time::timeout(Duration::from_millis(limit_ms), fetch(settings, &image, login, spool));
    match pulled.await {
        Ok(result) => result,
        Err(_) => Err(Error::Slow { reference: image.whole(), limit_ms }.into()),
    }
}

async fn fetch(
    settings: &Settings,
    image: &Reference,
    login: Option<Login>,
    mut spool: Spool,
) -> Result<Pulled, super::Error> {
    let reference = image.whole();
    let failed = |error: OciDistributionError| Error::Registry { reference: reference.clone(), why: told(&error) };
    // The only failure is that another was chosen before, and that one serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new(ClientConfig {
        protocol: ClientProtocol::HttpsExcept(settings.oci_insecure_hosts.clone()),
        platform_resolver: None,
        connect_timeout: Some(SILENCE),
        read_timeout: Some(SILENCE),
        user_agent: concat!("aether/", env!("CARGO_PKG_VERSION")),
        ..ClientConfig::default()
    });
    let auth = match login {
        Some(Login { username, password }) => RegistryAuth::Basic(username, password),
        None => RegistryAuth::Anonymous,
    };
    let (manifest, digest) = client.pull_manifest(image, &auth).await.map_err(failed)?;
    let Layers { component, signature } = layers(&reference, manifest)?;
    // What the manifest claims is looked at before a byte is fetched; the spool holds it to that.
    spool.expect(u64::try_from(component.size).unwrap_or(u64::MAX))?;
    let mut stream = client.pull_blob_stream(image, &component).await.map_err(failed)?;
    let broke = |error: std::io::Error| Error::Registry { reference: reference.clone(), why: chain(&error) };
    while let Some(part) = stream.try_next().await.map_err(broke)? {
        spool.write(&part).await?;
    }
    let signature = match signature {
        None => None,
        Some(layer) => {
            let mut text = Vec::new();
            let mut stream = client.pull_blob_stream(image, &layer).await.map_err(failed)?;
            while let Some(part) = stream.try_next().await.map_err(broke)? {
                text.extend_from_slice(&part);
                if text.len() > signature::DOCUMENT_BYTES {
                    break;
                }
            }
            Some(signature::parse(&text)?)
        }
    };
    Ok(Pulled { bytes: spool.read().await?, signature, reference, manifest: digest })
}

struct Layers {
    component: OciDescriptor,
    signature: Option<OciDescriptor>,
}

fn layers(reference: &str, manifest: OciManifest) -> Result<Layers, Error> {
    let wrong = |why: String| Error::Artifact { reference: reference.into(), why };
    let OciManifest::Image(OciImageManifest { layers, .. }) = manifest else {
        return Err(wrong("it is an index of several artifacts; name one of them".into()));
    };
    let (mut components, mut signatures, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for layer in layers {
        if WASM_LAYERS.contains(&layer.media_type.as_str()) {
            components.push(layer);
        } else if layer.media_type == SIGNATURE_LAYER {
            signatures.push(layer);
        } else {
            others.push(layer.media_type.chars().filter(|c| !c.is_control()).take(80).collect::<String>());
        }
    }
    if signatures.len() > 1 {
        return Err(wrong("it has several signatures".into()));
    }
    match (components.pop(), components.is_empty()) {
        (Some(component), true) => Ok(Layers { component, signature: signatures.pop() }),
        (Some(_), false) => Err(wrong(format!("it has several layers of the type {}", WASM_LAYERS[0]))),
        (None, _) => {
            let found = if others.is_empty() { "none".into() } else { others.join(", ") };
            Err(wrong(format!("it has no layer of the type {}; it has {found}", WASM_LAYERS[0])))
        }
    }
}

/// For a person: what the registry said, without what only the client's author understands.
fn told(error: &OciDistributionError) -> String {
    let text = match error {
        OciDistributionError::RegistryError { envelope, .. } => {
            let told = envelope.errors.iter().map(|error| match error.message.as_str() {
                "" => format!("{:?}", error.code),
                message => message.to_owned(),
            });
            told.collect::<Vec<_>>().join(", ")
        }
        OciDistributionError::UnauthorizedError { .. } => "it asks for a login".into(),
        OciDistributionError::ImageManifestNotFoundError(_) => "there is no such artifact".into(),
        other => chain(other),
    };
    text.chars().filter(|c| !c.is_control()).take(400).collect()
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_reference_names_its_registry() {
        for (text, whole) in [
            ("oci://127.0.0.1:5000/risk/spot:1.2.0", "127.0.0.1:5000/risk/spot:1.2.0"),
            ("ghcr.io/a/b", "ghcr.io/a/b:latest"),
            ("localhost/a:1", "localhost/a:1"),
        ] {
            assert_eq!(parse(text).expect(text).whole(), whole);
        }
        for text in ["spot-risk", "a/b:1", "oci://library/spot-risk:1", "https://ghcr.io/a/b", "ghcr.io/A B:1", ""] {
            assert_eq!(parse(text).expect_err(text).code(), "oci.reference");
        }
    }

    #[test]
    fn one_layer_is_the_component_and_one_may_sign_it() {
        let manifest = |types: &[&str]| -> OciManifest {
            let digest = format!("sha256:{}", "0".repeat(64));
            let layer = |kind: &&str| json!({ "mediaType": kind, "digest": digest, "size": 1 });
            serde_json::from_value(json!({
                "schemaVersion": 2,
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "config": { "mediaType": "application/vnd.wasm.config.v0+json", "digest": digest, "size": 2 },
                "layers": types.iter().map(layer).collect::<Vec<_>>(),
            }))
            .expect("a manifest")
        };
        let [wasm, old] = WASM_LAYERS;
        assert!(layers("r", manifest(&[wasm])).expect("unsigned").signature.is_none());
        assert!(layers("r", manifest(&[SIGNATURE_LAYER, old])).expect("signed").signature.is_some());
        for (types, part) in [
            (&[wasm, wasm][..], "several layers"),
            (&[wasm, SIGNATURE_LAYER, SIGNATURE_LAYER], "several signatures"),
            (&["application/vnd.oci.image.layer.v1.tar+gzip"], "it has application/vnd.oci.image.layer.v1.tar+gzip"),
            (&[], "it has none"),
        ] {
            let error = layers("r", manifest(types)).err().expect("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
