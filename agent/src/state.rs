//! The agent's state folder: who this agent is, and where the rest is kept. One agent at a time holds it.

use crate::{clock, durable, process};
use aether_core::id::NodeId;
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    time::Duration,
};
use thiserror::Error;

/// How long another may hold the folder before this one gives up.
const LOCK_WITHIN: Duration = Duration::from_secs(2);

#[derive(Debug, Error)]
pub enum Error {
    #[error("the state folder {} cannot be used: {source}", path.display())]
    Folder { path: PathBuf, source: io::Error },
    #[error("another agent is using the state folder {}; stop it, or give this one a folder of its own", .0.display())]
    InUse(PathBuf),
    #[error("the state folder {} belongs to the node `{owner}`, not to `{wanted}`", path.display())]
    OtherNode { path: PathBuf, owner: NodeId, wanted: NodeId },
    #[error(transparent)]
    Durable(#[from] durable::Error),
}

/// Who this agent is, kept readable by the owner alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    pub node: NodeId,
    /// Drawn when the folder was made.
    pub instance: String,
    /// What the host gave against the join token.
    pub credential: Option<String>,
    /// The host's ed25519 key as hexadecimal digits, pinned when joining.
    pub host_key: Option<String>,
    /// The newest lease of a host that this agent was welcomed under.
    #[serde(default)]
    pub lease: u64,
}

/// The folder, locked for as long as this lives.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
}

impl StateFolder {
    pub fn open(path: &Path) -> Result<Self, Error> {
        let at = |source| Error::Folder { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at)?;
        let path = fs::canonicalize(path).map_err(at)?;
        let lock = File::create(path.join("lock")).map_err(at)?;
        // What a killed agent had just begun has its lock still, until it becomes the program that it is to be.
        let held = process::poll(LOCK_WITHIN, || {
            match rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => Some(Ok(())),
                Err(rustix::io::Errno::WOULDBLOCK) => None,
                Err(error) => Some(Err(at(error.into()))),
            }
        });
        held.unwrap_or_else(|| Err(Error::InUse(path.clone())))?;
        for inner in ["spool", "journal", "workloads", "snapshots", "runbooks"] {
            let inner = path.join(inner);
            DirBuilder::new().recursive(true).mode(0o700).create(&inner).map_err(at)?;
        }
        Ok(Self { path, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
    pub fn spool(&self) -> PathBuf {
        self.path.join("spool")
    }
    pub fn journal(&self) -> PathBuf {
        self.path.join("journal")
    }
    /// Output of the workloads that this agent started.
    pub fn workloads(&self) -> PathBuf {
        self.path.join("workloads")
    }
    /// CRIU's images, one folder for each order.
    pub fn snapshots(&self) -> PathBuf {
        self.path.join("snapshots")
    }
    pub fn registry(&self) -> PathBuf {
        self.path.join("workloads.json")
    }
    /// Scripts while they run, one folder for each order.
    pub fn runbooks(&self) -> PathBuf {
        self.path.join("runbooks")
    }
    /// Whether this node takes new work.
    pub fn drain(&self) -> PathBuf {
        self.path.join("drain.json")
    }
    fn identity(&self) -> PathBuf {
        self.path.join("identity.json")
    }

    /// The kept identity, or a new one for `node`.
    pub fn load_identity(&self, node: &NodeId) -> Result<Identity, Error> {
        match durable::read::<Identity>(&self.identity())? {
            Some(identity) if identity.node == *node => Ok(identity),
            Some(identity) => {
                Err(Error::OtherNode { path: self.path.clone(), owner: identity.node, wanted: node.clone() })
            }
            None => {
                let instance = clock::new_id();
                let identity = Identity { node: node.clone(), instance, credential: None, host_key: None, lease: 0 };
                self.save_identity(&identity)?;
                Ok(identity)
            }
        }
    }

    pub fn save_identity(&self, identity: &Identity) -> Result<(), Error> {
        Ok(durable::write(&self.identity(), identity)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn one_agent_holds_the_folder_and_its_secrets_are_the_owners() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        assert!(matches!(StateFolder::open(folder.path()), Err(Error::InUse(_))));
        let identity = state.load_identity(&NodeId::new("node-a")).unwrap();
        let mode = fs::metadata(state.identity()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(state);
        let state = StateFolder::open(folder.path()).unwrap();
        assert_eq!(state.load_identity(&NodeId::new("node-a")).unwrap().instance, identity.instance);
        assert!(matches!(state.load_identity(&NodeId::new("node-b")), Err(Error::OtherNode { .. })));
    }
}
