//! The manifest of a workload's snapshot: which chunks make which file, and what is needed to restore it.
//! A restore begins only after every chunk has hashed to what the manifest says, and the manifest to what the order says.

use crate::{
    id::{Digest, NodeId, SnapshotId, WorkloadId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A workload as its owner declared it; travels with the snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct WorkloadSpec {
    pub id: WorkloadId,
    /// What people call it.
    pub name: String,
    /// What its loss costs: `critical`, `standard` or `best-effort`.
    pub tier: Tier,
    /// Program and arguments; empty for an adopted process.
    pub command: Vec<String>,
    /// A file to which the workload appends lines; the first number on the last line is its progress.
    pub progress_file: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tier {
    BestEffort,
    Standard,
    Critical,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    pub schema_version: u32,
    pub snapshot: SnapshotId,
    pub workload: WorkloadSpec,
    /// The workload's generation when it was taken; its restore has the next one.
    pub generation: u64,
    pub source: NodeId,
    pub taken_at: Time,
    /// The workload's progress when it was stopped, if it tells any.
    pub progress: Option<u64>,
    pub criu_version: String,
    pub kernel_release: String,
    pub architecture: String,
    /// In order of path.
    pub files: Vec<SnapshotFile>,
    /// Sum over all files, uncompressed.
    pub total_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SnapshotFile {
    /// A plain file name; never a path with separators.
    pub name: String,
    pub size_bytes: u64,
    /// In order; each is the BLAKE3 of the uncompressed bytes.
    pub chunks: Vec<ChunkRef>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ChunkRef {
    pub digest: Digest,
    pub size_bytes: u32,
}

impl Manifest {
    pub const SCHEMA_VERSION: u32 = 1;

    /// What the host signs when it has stored a manifest, of its canonical bytes.
    pub fn signed_bytes(canonical: &[u8]) -> Vec<u8> {
        [b"aether.manifest.v1\n", canonical].concat()
    }

    /// What an order names: BLAKE3 of the canonical JSON.
    pub fn digest(&self) -> Digest {
        Digest::of(&crate::plan::canonical(self))
    }
}
