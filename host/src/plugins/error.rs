//! Why a slot was not changed. It goes on as it was.

use super::registry;
use crate::store;
use aether_core::{
    decision::Role,
    id::{Digest, SlotId},
    slot::{Grant, Refused},
};
use aether_runtime::{ActivateError, bundle};
use thiserror::Error as ThisError;

#[derive(Debug, ThisError)]
pub enum Error {
    #[error("there is no slot `{0}`")]
    NoSlot(SlotId),
    #[error("the slot is at generation {found}, and the change was made on {given}; look at it again")]
    Stale { given: u64, found: u64 },
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("it is a {found}, and the slot is for a {wanted}", found = .found.world(), wanted = .wanted.world())]
    Role { found: Role, wanted: Role },
    #[error("the world of a {role} cannot grant {grant}", role = .role.world(), grant = .grant.name())]
    Ungrantable { role: Role, grant: Grant },
    #[error(
        "the entry has assets and no grant of them: a component that is granted `wasi` would find them in its file system all the same. Grant `assets`, or leave them out"
    )]
    UngrantedAssets,
    #[error("the component {} is in quarantine: {reason}. Lift the quarantine first, if it was not its fault", .component.short())]
    Quarantined { component: Digest, reason: String },
    #[error("`{component}` cannot be asked: {reason} ({code})")]
    NotReady { component: String, code: &'static str, reason: String },
    #[error(transparent)]
    Activate(#[from] ActivateError),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error("the bundle's fixtures cannot be read")]
    Bundle(#[from] bundle::Error),
    #[error("it could not be written down, so nothing was changed")]
    Store(#[from] store::Error),
    #[error("the work was not done, because its thread died; nothing was changed")]
    Died,
}
