//! A newtype for every id, so that a node's id cannot be passed where an incident's is meant.
//! Ids are made outside (one ids module in each program); here they are only carried.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            pub fn new(id: impl Into<String>) -> Self {
                Self(id.into())
            }
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

ids! {
    /// A node agent's name within the fleet, such as `node-a`. Lower-case letters, digits, `-` and `.`.
    NodeId,
    /// A workload under an agent, unique in the fleet.
    WorkloadId,
    /// One incident: one journal, one sequence of artifacts.
    IncidentId,
    /// One artifact of an incident: `<incident>/<number>-<kind>`.
    ArtifactId,
    /// One evaluation of one component, with its envelope.
    DecisionId,
    /// One slot of a policy bundle: `risk`, `planner`, `gates`, `router`.
    SlotId,
    /// One entry of a slot, such as `spot-risk-3`: the component's name and the generation that it came with.
    EntryId,
    /// One stored snapshot of a workload.
    SnapshotId,
    /// Somebody's leave, for a short time, to approve alone.
    BreakGlassId,
    /// One drill that was started.
    DrillId,
    /// A person, token or service that acts through the API.
    PrincipalId,
}

/// BLAKE3 of some content, as 64 lower-case hexadecimal digits. Names components, chunks, bundles and configs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(transparent)]
pub struct Digest(pub String);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }
    /// The first twelve digits: enough for a person to tell two apart.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whether `id` may name a node or a workload: 1 to 63 of `a-z 0-9 - .`, beginning and ending with a letter or digit.
/// The same shape as a DNS label sequence, so that an id is safe in a path, a URL and a SPIFFE ID.
pub fn is_name(id: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    id.len() <= 63
        && edge(id.chars().next())
        && edge(id.chars().last())
        && id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.')
        && !id.contains("..")
}

#[cfg(test)]
mod tests {
    use super::is_name;

    #[test]
    fn names() {
        for good in ["a", "node-a", "gpu.7", "a1"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "a/b", "a..b", "..", &"a".repeat(64)] {
            assert!(!is_name(bad), "{bad}");
        }
    }
}
