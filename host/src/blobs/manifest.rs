//! A manifest's bytes: read strictly, and kept together with the host's signature of them.

use super::{Error, checked};
use aether_core::snapshot::Manifest;
use aether_proto::CHUNK_BYTES;
use bytes::Bytes;
use std::collections::BTreeSet;

/// Bytes of one manifest: what fits a frame.
const BYTES_MAXIMUM: usize = 3 << 20;
/// Bytes of an ed25519 signature.
const SIGNATURE_BYTES: usize = 64;

/// A manifest's canonical bytes, and the host's signature of [`Manifest::signed_bytes`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    pub manifest: Bytes,
    pub signature: [u8; SIGNATURE_BYTES],
}

impl Signed {
    /// As it is kept: one object, so that no manifest is there without its signature.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        [&self.signature[..], &self.manifest].concat()
    }

    pub(super) fn from_bytes(bytes: &Bytes) -> Result<Self, Error> {
        let cut = || Error::Manifest("it is shorter than its signature".into());
        let (signature, _) = bytes.split_first_chunk().ok_or_else(cut)?;
        Ok(Self { signature: *signature, manifest: bytes.slice(SIGNATURE_BYTES..) })
    }
}

/// Strict: canonical bytes, plain file names, digests that are digests, sums that add up.
pub(crate) fn parse(bytes: &[u8]) -> Result<Manifest, Error> {
    let no = |problem: String| Error::Manifest(problem);
    if bytes.len() > BYTES_MAXIMUM {
        return Err(no(format!("it has {} bytes, and {BYTES_MAXIMUM} is the limit", bytes.len())));
    }
    let manifest: Manifest = serde_json::from_slice(bytes).map_err(|error| no(error.to_string()))?;
    if aether_core::plan::canonical(&manifest) != bytes {
        return Err(no("its bytes are not the canonical form of what is in them".into()));
    }
    if manifest.schema_version != Manifest::SCHEMA_VERSION {
        return Err(no(format!(
            "its schema version is {}, and {} is known",
            manifest.schema_version,
            Manifest::SCHEMA_VERSION
        )));
    }
    let mut total: u64 = 0;
    let mut names = BTreeSet::new();
    for file in &manifest.files {
        let plain = !file.name.is_empty() && file.name.len() <= 255 && file.name != "." && file.name != "..";
        if !plain || file.name.contains(['/', '\\', '\0']) || !names.insert(&file.name) {
            return Err(no(format!("`{}` is no plain file name, or is there twice", file.name.escape_debug())));
        }
        let mut size: u64 = 0;
        for chunk in &file.chunks {
            checked(&chunk.digest)?;
            if chunk.size_bytes == 0 || usize::try_from(chunk.size_bytes).unwrap_or(usize::MAX) > CHUNK_BYTES {
                return Err(no(format!("a chunk of `{}` has {} bytes", file.name, chunk.size_bytes)));
            }
            size += u64::from(chunk.size_bytes);
        }
        if size != file.size_bytes {
            return Err(no(format!(
                "the chunks of `{}` have {size} bytes and the file {}",
                file.name, file.size_bytes
            )));
        }
        total = total.saturating_add(size);
    }
    if total != manifest.total_bytes {
        return Err(no(format!("its files have {total} bytes, and it says {}", manifest.total_bytes)));
    }
    Ok(manifest)
}
