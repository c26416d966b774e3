//! Runbooks of the bundle: read once, when the host starts, each with its script's digest and a signature that verifies.
//!
//! One without a good signature by a trusted key is not there for anybody, wherever the host does or does not demand
//! signatures of components: a component decides in a sandbox, a script acts on nodes. Why one is not there is told.

use super::registry::signature::{self, Key};
use aether_core::{
    id::{Digest, is_name},
    policy::{Bundle, Runbook, SCRIPT_BYTES_MAXIMUM},
};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Read as _,
    path::{Component, Path},
};
use thiserror::Error;

/// Why a runbook is not there.
#[derive(Debug, Error)]
pub enum Refused {
    #[error("its name is not 1 to 63 of `a-z 0-9 - .`")]
    Name,
    #[error("`{0}` is not a path below the bundle's folder")]
    Path(String),
    #[error("`{0}` cannot be read")]
    Read(String, #[source] std::io::Error),
    #[error("its script is over {SCRIPT_BYTES_MAXIMUM} bytes, or no UTF-8")]
    Script,
    #[error("its script hashes to {found}, and the bundle names {named}")]
    Digest { named: Digest, found: Digest },
    #[error("its script is not signed by a key of `plugins.trusted_keys`: {0}")]
    Signature(#[from] signature::Refused),
}

/// The runbooks that can be run.
#[derive(Clone, Debug, Default)]
pub struct Runbooks {
    known: BTreeMap<String, Runbook>,
    /// By digest.
    scripts: BTreeMap<String, String>,
    pub refused: Vec<(String, String)>,
}

impl Runbooks {
    /// Reads what `bundle` names, from its folder.
    pub fn read(bundle: &Bundle, folder: &Path, trusted: &[Key]) -> Self {
        let mut all = Self::default();
        for (name, declared) in &bundle.runbooks {
            match read_one(name, declared, folder, trusted) {
                Ok((runbook, script)) => {
                    if let Some(digest) = &runbook.digest {
                        all.scripts.insert(digest.0.clone(), script);
                    }
                    all.known.insert(name.clone(), runbook);
                }
                Err(error) => {
                    tracing::error!(
                        runbook = name,
                        error = &error as &dyn std::error::Error,
                        "a runbook is not there for anybody [AE0080]"
                    );
                    all.refused.push((name.clone(), error.to_string()));
                }
            }
        }
        all
    }

    /// By name, each with its script's digest.
    pub fn known(&self) -> &BTreeMap<String, Runbook> {
        &self.known
    }

    /// The script of this digest.
    pub fn script(&self, digest: &str) -> Option<&str> {
        self.scripts.get(digest).map(String::as_str)
    }
}

fn read_one(name: &str, declared: &Runbook, folder: &Path, trusted: &[Key]) -> Result<(Runbook, String), Refused> {
    if !is_name(name) {
        return Err(Refused::Name);
    }
    let below = Path::new(&declared.script);
    if below.components().any(|part| !matches!(part, Component::Normal(_))) {
        return Err(Refused::Path(declared.script.clone()));
    }
    let script = bytes(&folder.join(below), SCRIPT_BYTES_MAXIMUM)?;
    let found = Digest::of(&script);
    if let Some(named) = declared.digest.clone().filter(|named| *named != found) {
        return Err(Refused::Digest { named, found });
    }
    let beside = folder.join(format!("{}.sig", declared.script));
    let document =
        if beside.is_file() { Some(signature::parse(&bytes(&beside, signature::DOCUMENT_BYTES)?)?) } else { None };
    signature::verify(&found, document.as_ref(), trusted, true)?;
    let script = String::from_utf8(script).map_err(|_| Refused::Script)?;
    Ok((Runbook { digest: Some(found), ..declared.clone() }, script))
}

/// A whole file of at most `limit` bytes.
fn bytes(path: &Path, limit: usize) -> Result<Vec<u8>, Refused> {
    let unread = |error| Refused::Read(path.display().to_string(), error);
    let mut read = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path).and_then(|file| file.take(most).read_to_end(&mut read)).map_err(unread)?;
    if read.len() > limit { Err(Refused::Script) } else { Ok(read) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::SigningKey;

    const SCRIPT: &str = "#!/bin/sh\necho hello\n";

    fn bundle(extra: &str) -> Bundle {
        toml::from_str(&format!("name = 'b'\nversion = '1'\n[slots]\n[runbooks.hello]\nscript = 'hello.sh'\n{extra}"))
            .unwrap()
    }

    fn trusted(key: &SigningKey) -> Vec<Key> {
        let key = key.verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        vec![Key { name: "ops".into(), key }]
    }

    #[test]
    fn only_what_a_trusted_key_signed_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        std::fs::write(folder.path().join("hello.sh"), SCRIPT).unwrap();
        let read = |bundle: &Bundle| Runbooks::read(bundle, folder.path(), &trusted(&ours));
        let refused = |bundle: &Bundle| {
            let all = read(bundle);
            assert!(all.known().is_empty() && all.scripts.is_empty());
            all.refused[0].1.clone()
        };
        assert!(refused(&bundle("")).contains("not signed"), "without a signature");
        let sign = |key: &SigningKey, text: &str| {
            let document = signature::sign(&Digest::of(text.as_bytes()), key);
            std::fs::write(folder.path().join("hello.sh.sig"), serde_json::to_vec(&document).unwrap()).unwrap();
        };
        sign(&other, SCRIPT);
        assert!(refused(&bundle("")).contains("not in `plugins.trusted_keys`"));
        sign(&ours, "#!/bin/sh\nrm -rf /\n");
        assert!(refused(&bundle("")).contains("another component"));
        sign(&ours, SCRIPT);
        let all = read(&bundle(""));
        let digest = all.known()["hello"].digest.clone().unwrap();
        assert_eq!((all.script(&digest.0), all.refused.len()), (Some(SCRIPT), 0));
        let pinned = "digest = '0000000000000000000000000000000000000000000000000000000000000000'";
        assert!(refused(&bundle(pinned)).contains("the bundle names"));
        let elsewhere = bundle("").runbooks["hello"].clone();
        let elsewhere = Runbook { script: "../hello.sh".into(), ..elsewhere };
        let mut outside = bundle("");
        outside.runbooks.insert("hello".into(), elsewhere);
        assert!(refused(&outside).contains("below the bundle's folder"));
    }
}
