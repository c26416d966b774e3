//! What is known of a component and of a set of assets.

use super::SignedBy;
use aether_core::{
    decision::{Description, Role},
    id::{DecisionId, Digest, EntryId, PrincipalId, SlotId},
    time::Time,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A component as the registry knows it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComponentRecord {
    /// BLAKE3 of the bytes: its identity.
    pub digest: Digest,
    /// As it describes itself.
    pub name: String,
    /// As it describes itself. Several digests can share name and version; the newest is listed first.
    pub version: String,
    pub role: Role,
    pub bytes: u64,
    pub description: Description,
    /// What it imports, all of it granted by its world.
    pub imports: Vec<String>,
    pub provenance: Provenance,
    /// Who signed it; none: it is unsigned.
    pub signature: Option<SignedBy>,
    pub uploaded_at: Time,
    pub uploaded_by: PrincipalId,
    /// When it was last seen to be needed by a slot, a bundle or a decision, or else uploaded.
    pub used_at: Time,
    /// Why no slot takes it any more.
    pub quarantine: Option<Quarantined>,
}

/// Where a component came from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Provenance {
    /// Sent by a person or a program.
    Upload {
        /// The file's name as the sender gave it.
        file: Option<String>,
    },
    /// Pulled from a registry.
    Oci {
        /// As it was asked for.
        reference: String,
        /// Digest of the manifest that was found there: `sha256:` and 64 hexadecimal digits.
        manifest: String,
    },
    /// Named by a policy bundle of this host, and read from its folder of components.
    Bundle { bundle: String, file: String },
}

/// Why a component was taken out, with what is needed to see it fail again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = ComponentQuarantine)]
pub struct Quarantined {
    pub slot: SlotId,
    pub entry: EntryId,
    pub at: Time,
    pub reason: String,
    /// The decision to replay.
    pub reproducer: Option<DecisionId>,
}

/// A set of files beside components, as the registry knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssetsRecord {
    /// BLAKE3 of the canonical JSON of names, sizes and digests: its identity.
    pub digest: Digest,
    pub name: String,
    /// In order of name.
    pub files: Vec<AssetFile>,
    /// Of all files together.
    pub bytes: u64,
    pub uploaded_at: Time,
    pub uploaded_by: PrincipalId,
    /// When it was last seen to be needed by a slot or a decision, or else uploaded.
    pub used_at: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AssetFile {
    /// Below the set's folder, with `/`.
    pub name: String,
    pub bytes: u64,
    pub digest: Digest,
}
