//! Snapshots on their way to and from the host's store: files in hashed, compressed chunks, and the manifest that
//! names them.
//!
//! CRIU trusts its images, so nothing of a snapshot is given to it before every byte has hashed to what the manifest
//! says, and the manifest to what the order says.
//!
//! | module | what |
//! |---|---|
//! | [`layout`] | where images of memory are cut into chunks |
//! | [`precopy`] | what the memory of a workload holds while it still runs |
//! | [`pack`] | the many small images as one file, because each chunk that is stored takes its time |
//! | [`send`] | up: chunks hashed, compressed and stored, before CRIU dumps and while it holds |
//! | [`ahead`] | down, before the restore: chunks that will probably be needed, verified as they come |
//! | [`fetch`] | down, for the restore: all that is not there yet, verified |

pub mod ahead;
pub mod fetch;
pub mod layout;
pub mod pack;
pub mod precopy;
pub mod send;

use super::run::{Interrupted, Run};
use crate::uplink::{Fault, Piece};
use aether_core::{
    id::Digest,
    plan::canonical,
    snapshot::{Manifest, SnapshotFile},
};
use aether_proto::v1::{Codec, SnapshotManifest};
use ed25519_dalek::{Signature, VerifyingKey};
use std::{collections::BTreeSet, io};
use thiserror::Error;

/// A manifest beyond this is none.
const MANIFEST_BYTES_MAXIMUM: usize = 4 << 20;
const FILES_MAXIMUM: usize = 10_000;

#[derive(Debug, Error)]
pub enum Error {
    #[error("{0}")]
    Interrupted(#[from] Interrupted),
    #[error("a snapshot's file cannot be read or written: {0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Host(#[from] Fault),
    /// What came is not what was stored.
    #[error("{0}")]
    Corrupt(String),
    #[error("the snapshot's manifest is not signed by the host that this agent joined")]
    Unsigned,
    #[error("the snapshot is of {needed} bytes and the disk has room for {free}")]
    NoRoom { needed: u64, free: u64 },
}

impl Error {
    pub fn code(&self) -> String {
        match self {
            Error::Interrupted(interrupted) => interrupted.code().into(),
            Error::Io(_) => "snapshot.io".into(),
            Error::Host(Fault::Refused { code, reason: _ }) => code.clone(),
            Error::Host(Fault::Stopping) => "agent.stopping".into(),
            Error::Corrupt(_) => "snapshot.corrupt".into(),
            Error::Unsigned => "snapshot.unsigned".into(),
            Error::NoRoom { .. } => "snapshot.no-room".into(),
        }
    }
}

fn corrupt<T>(what: impl Into<String>) -> Result<T, Error> {
    Err(Error::Corrupt(what.into()))
}

/// Stores the manifest, after all that it names is stored. Gives its digest.
pub fn send_manifest(run: &Run, manifest: &Manifest) -> Result<Digest, Error> {
    let digest = manifest.digest();
    let message = SnapshotManifest { key: run.task().order.key.0.clone(), manifest: canonical(manifest) };
    let answer = run.wait(run.link.store_manifest(digest.clone(), message))?;
    run.wait(answer)?.unwrap_or(Err(Fault::Stopping))?;
    Ok(digest)
}

/// Reads and verifies the manifest that an order names.
pub fn fetch_manifest(run: &Run, digest: &Digest) -> Result<Manifest, Error> {
    let answer = run.wait(run.link.read(digest.clone(), true))?;
    open_manifest(run.wait(answer)?.unwrap_or(Err(Fault::Stopping))?, digest, run.host_key.as_ref())
}

fn open_manifest(piece: Piece, digest: &Digest, host_key: Option<&VerifyingKey>) -> Result<Manifest, Error> {
    let signature = Signature::from_slice(&piece.signature);
    let bytes = unpack(piece, MANIFEST_BYTES_MAXIMUM)?;
    if Digest::of(&bytes) != *digest {
        return corrupt(format!("the manifest that came is not {}", digest.short()));
    }
    let signed = Manifest::signed_bytes(&bytes);
    let good =
        signature.is_ok_and(|signature| host_key.is_some_and(|key| key.verify_strict(&signed, &signature).is_ok()));
    if !good {
        return Err(Error::Unsigned);
    }
    let manifest: Manifest = match serde_json::from_slice(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => return corrupt(format!("the manifest cannot be read: {error}")),
    };
    if canonical(&manifest) != bytes || manifest.schema_version != Manifest::SCHEMA_VERSION {
        return corrupt("the manifest is not of a form that this agent knows");
    }
    check(&manifest)?;
    Ok(manifest)
}

/// Numbers that add up, and names that stay within a folder.
fn check(manifest: &Manifest) -> Result<(), Error> {
    if manifest.files.is_empty() || manifest.files.len() > FILES_MAXIMUM {
        return corrupt(format!("the manifest lists {} files", manifest.files.len()));
    }
    let mut names = BTreeSet::new();
    let mut total = 0u64;
    for SnapshotFile { name, size_bytes, chunks } in &manifest.files {
        if !ahead::is_plain(name) || !names.insert(name) {
            return corrupt("the manifest names a file that is no plain name, or names it twice");
        }
        let sum = chunks.iter().try_fold(0u64, |sum, chunk| {
            let whole = usize::try_from(chunk.size_bytes).is_ok_and(|size| size <= aether_proto::CHUNK_BYTES);
            if whole { sum.checked_add(u64::from(chunk.size_bytes)) } else { None }
        });
        if sum != Some(*size_bytes) {
            return corrupt(format!("the chunks of {name} do not add up to its size"));
        }
        total = total.saturating_add(*size_bytes);
    }
    if total != manifest.total_bytes {
        return corrupt("the files of the manifest do not add up to its total");
    }
    Ok(())
}

fn unpack(piece: Piece, maximum: usize) -> Result<Vec<u8>, Error> {
    let Piece { codec, data, signature: _ } = piece;
    match Codec::try_from(codec) {
        Ok(Codec::Raw) if data.len() <= maximum => Ok(data),
        Ok(Codec::Zstd) => zstd::bulk::decompress(&data, maximum)
            .or_else(|error| corrupt(format!("a piece of the snapshot does not unpack: {error}"))),
        Ok(Codec::Raw) => corrupt("a piece of the snapshot is too large"),
        Ok(Codec::Unspecified) | Err(_) => corrupt("a piece of the snapshot is packed in a way that is not known here"),
    }
}

#[cfg(test)]
mod tests {
    use super::{fetch::verified, *};
    use aether_core::{
        id::{NodeId, SnapshotId, WorkloadId},
        snapshot::{ChunkRef, Tier, WorkloadSpec},
        time::Time,
    };
    use ed25519_dalek::{Signer as _, SigningKey};

    fn manifest(files: Vec<SnapshotFile>, total_bytes: u64) -> Manifest {
        let workload = WorkloadSpec {
            id: WorkloadId::new("w"),
            name: "w".into(),
            tier: Tier::Standard,
            command: vec![],
            progress_file: None,
        };
        Manifest {
            schema_version: 1,
            snapshot: SnapshotId::new("s"),
            workload,
            generation: 1,
            source: NodeId::new("node-a"),
            taken_at: Time(0),
            progress: None,
            criu_version: "4.2.1".into(),
            kernel_release: "6".into(),
            architecture: "x86_64".into(),
            files,
            total_bytes,
        }
    }

    #[test]
    fn a_manifest_that_does_not_add_up_or_leaves_its_folder_is_refused() {
        let chunk = |size_bytes| ChunkRef { digest: Digest::of(b"x"), size_bytes };
        let file = |name: &str, size_bytes, chunks| SnapshotFile { name: name.into(), size_bytes, chunks };
        assert!(check(&manifest(vec![file("a.img", 3, vec![chunk(1), chunk(2)])], 3)).is_ok());
        for (files, total) in [
            (vec![], 0),
            (vec![file("../a", 1, vec![chunk(1)])], 1),
            (vec![file("..", 1, vec![chunk(1)])], 1),
            (vec![file("", 1, vec![chunk(1)])], 1),
            (vec![file("a", 1, vec![chunk(1)]), file("a", 1, vec![chunk(1)])], 2),
            (vec![file("a", 2, vec![chunk(1)])], 2),
            (vec![file("a", 1, vec![chunk(1)])], 2),
            (vec![file("a", 1 << 30, vec![chunk(1 << 30)])], 1 << 30),
        ] {
            assert!(matches!(check(&manifest(files.clone(), total)), Err(Error::Corrupt(_))), "{files:?}");
        }
    }

    #[test]
    fn a_manifest_that_is_not_the_ordered_one_as_the_host_signed_it_is_refused() {
        let chunk = |plain: &[u8]| ChunkRef { digest: Digest::of(plain), size_bytes: 1 };
        let of = |chunks: &[&[u8]]| {
            let chunks: Vec<_> = chunks.iter().map(|plain| chunk(plain)).collect();
            let size = u64::try_from(chunks.len()).unwrap();
            manifest(vec![SnapshotFile { name: "a".into(), size_bytes: size, chunks }], size)
        };
        let (host, other) = (SigningKey::from_bytes(&[7; 32]), SigningKey::from_bytes(&[8; 32]));
        let key = host.verifying_key();
        let piece = |manifest: &Manifest, by: &SigningKey| {
            let data = canonical(manifest);
            let signature = by.sign(&Manifest::signed_bytes(&data)).to_bytes().to_vec();
            Piece { codec: Codec::Raw.into(), data, signature }
        };
        let good = of(&[b"x", b"y"]);
        let ordered = good.digest();
        assert_eq!(open_manifest(piece(&good, &host), &ordered, Some(&key)).unwrap(), good);
        // Removed, reordered, substituted, of another snapshot: all signed, and none of them ordered.
        let another = Manifest { snapshot: SnapshotId::new("another"), ..good.clone() };
        for wrong in [of(&[b"x"]), of(&[b"y", b"x"]), of(&[b"x", b"z"]), of(&[b"x", b"y", b"y"]), another] {
            let refused = open_manifest(piece(&wrong, &host), &ordered, Some(&key));
            assert!(matches!(refused, Err(Error::Corrupt(_))), "{wrong:?}");
        }
        // The ordered one, signed by another or for something else, not at all, or with no key to compare.
        let of_another = Piece { signature: piece(&of(&[b"z"]), &host).signature, ..piece(&good, &host) };
        let not_at_all = Piece { signature: vec![], ..piece(&good, &host) };
        for unsigned in [piece(&good, &other), of_another, not_at_all] {
            assert!(matches!(open_manifest(unsigned, &ordered, Some(&key)), Err(Error::Unsigned)));
        }
        assert!(matches!(open_manifest(piece(&good, &host), &ordered, None), Err(Error::Unsigned)));
        // And a chunk in another's place.
        let bytes = |plain: &[u8]| Piece { codec: Codec::Raw.into(), data: plain.to_vec(), signature: vec![] };
        assert_eq!(verified(bytes(b"x"), &chunk(b"x"), "a").unwrap(), b"x");
        assert!(matches!(verified(bytes(b"y"), &chunk(b"x"), "a"), Err(Error::Corrupt(_))));
        assert!(matches!(verified(bytes(b""), &chunk(b"x"), "a"), Err(Error::Corrupt(_))));
    }

    #[test]
    fn a_flipped_byte_is_seen() {
        let bytes = vec![7u8; 5_000];
        let chunk = ChunkRef { digest: Digest::of(&bytes), size_bytes: 5_000 };
        let packed = zstd::bulk::compress(&bytes, 1).unwrap();
        let piece = |data: Vec<u8>| Piece { codec: Codec::Zstd.into(), data, signature: vec![] };
        assert_eq!(verified(piece(packed.clone()), &chunk, "a").unwrap(), bytes);
        for place in 0..packed.len() {
            let mut flipped = packed.clone();
            flipped[place] ^= 1;
            match verified(piece(flipped), &chunk, "a") {
                Err(Error::Corrupt(_)) => {}
                // Bits of the frame that say nothing about the content.
                Ok(same) => assert_eq!(same, bytes),
                Err(other) => panic!("{other}"),
            }
        }
        let bomb = zstd::bulk::compress(&vec![0u8; 50 << 20], 1).unwrap();
        assert!(matches!(verified(piece(bomb), &chunk, "a"), Err(Error::Corrupt(_))));
    }
}
