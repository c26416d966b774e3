//! Detached signatures of components: ed25519 over a message that says what it is, by keys that the operator listed.
//!
//! The message is `aether.component.v1`, a line feed, the component's BLAKE3 in hexadecimal, and a line feed. Name and
//! version are the component's own words and thereby within the digest. The document beside a component
//! (`FILE.wasm.sig`) is JSON. Whatever is wrong with a signature that is there is a refusal, also where none is
//! demanded: what was signed and does not verify was tampered with.

use aether_core::id::Digest;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

const ALGORITHM: &str = "ed25519";
/// The largest document that is read.
pub const DOCUMENT_BYTES: usize = 4 << 10;

/// A public key that the operator trusts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// For people: whose it is.
    pub name: String,
    /// The 32 bytes of the ed25519 public key, as 64 hexadecimal digits.
    pub key: String,
}

impl Key {
    /// The key itself, or what is wrong with it.
    pub fn public(&self) -> Result<VerifyingKey, String> {
        let Key { name, key } = self;
        if name.trim().is_empty() || name.len() > 64 || name.chars().any(char::is_control) {
            return Err("a key's name must be 1 to 64 bytes, without control characters".into());
        }
        let bytes =
            blake3::Hash::from_hex(key).map_err(|_| format!("the key of `{name}` is not 64 hexadecimal digits"))?;
        match VerifyingKey::from_bytes(bytes.as_bytes()) {
            // Anybody can sign with a weak one.
            Ok(public) if !public.is_weak() => Ok(public),
            Ok(_) | Err(_) => Err(format!("the key of `{name}` is not an ed25519 public key")),
        }
    }
}

/// BLAKE3 of the public key's bytes.
pub fn key_id(public: &VerifyingKey) -> Digest {
    Digest::of(public.as_bytes())
}

/// `FILE.wasm.sig`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Document {
    /// `ed25519`.
    pub algorithm: String,
    /// BLAKE3 of the component that was signed.
    #[serde(default)]
    pub digest: String,
    /// BLAKE3 of the public key.
    #[serde(default)]
    pub key_id: String,
    /// 128 hexadecimal digits.
    #[serde(default)]
    pub signature: String,
}

/// Who signed a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SignedBy {
    /// As the trust list calls the key.
    pub key_name: String,
    pub key_id: Digest,
}

/// Why a signature, or its absence, is a refusal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the component has no signature, and this host takes only signed ones (`plugins.require_signature`)")]
    Missing,
    #[error("the signature is not understood: {0}")]
    Malformed(String),
    #[error("the signature names no key (`key_id`), so nobody can be held to it")]
    KeyIdUnset,
    #[error("the signature is by the key {0}, which is not in `plugins.trusted_keys`")]
    UnknownKey(String),
    #[error("the signature is of another component, {0}")]
    OtherComponent(String),
    #[error("the signature does not verify with the key `{0}`: the component or the signature was changed")]
    Wrong(String),
}

impl Refused {
    /// Stable, for tests, metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Refused::Missing => "signature.missing",
            Refused::Malformed(_) => "signature.malformed",
            Refused::KeyIdUnset => "signature.key-id-unset",
            Refused::UnknownKey(_) => "signature.unknown-key",
            Refused::OtherComponent(_) => "signature.other-component",
            Refused::Wrong(_) => "signature.wrong",
        }
    }
}

fn message(component: &Digest) -> Vec<u8> {
    format!("aether.component.v1\n{component}\n").into_bytes()
}

/// Signs a component.
pub fn sign(component: &Digest, key: &SigningKey) -> Document {
    Document {
        algorithm: ALGORITHM.into(),
        digest: component.0.clone(),
        key_id: key_id(&key.verifying_key()).0,
        signature: format!("{:x}", key.sign(&message(component))),
    }
}

/// Reads a document as it lies beside a component or travels in a header.
pub fn parse(text: &[u8]) -> Result<Document, Refused> {
    if text.len() > DOCUMENT_BYTES {
        return Err(Refused::Malformed(format!("it has {} bytes, over the limit of {DOCUMENT_BYTES}", text.len())));
    }
    serde_json::from_slice(text).map_err(|error| Refused::Malformed(error.to_string()))
}

/// Who signed `component`, if the signature is there and good; none: it has no signature and needs none.
pub fn verify(
    component: &Digest,
    document: Option<&Document>,
    trusted: &[Key],
    required: bool,
) -> Result<Option<SignedBy>, Refused> {
    let Some(Document { algorithm, digest, key_id: named, signature }) = document else {
        return if required { Err(Refused::Missing) } else { Ok(None) };
    };
    if algorithm != ALGORITHM {
        return Err(Refused::Malformed(format!(
            "its algorithm is `{}`, and only `{ALGORITHM}` is taken",
            shown(algorithm)
        )));
    }
    if named.is_empty() {
        return Err(Refused::KeyIdUnset);
    }
    let known = trusted.iter().filter_map(|key| Some((key, key.public().ok()?)));
    let Some((key, public)) = known.into_iter().find(|(_, public)| key_id(public).0 == *named) else {
        return Err(Refused::UnknownKey(shown(named)));
    };
    if *digest != component.0 {
        return Err(Refused::OtherComponent(shown(digest)));
    }
    let signature: Signature =
        signature.parse().map_err(|_| Refused::Malformed("`signature` is not 128 hexadecimal digits".into()))?;
    match public.verify_strict(&message(component), &signature) {
        Ok(()) => Ok(Some(SignedBy { key_name: key.name.clone(), key_id: Digest(named.clone()) })),
        Err(_) => Err(Refused::Wrong(key.name.clone())),
    }
}

/// A stranger's text, short enough for a sentence.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(80).collect()
}
