//! What touches the machine, behind one trait: [`native`] does it, [`simulated`] pretends to and says so.

pub mod native;
pub mod simulated;

use super::{check::Refusal, outside::Outside, pages::Pages, run::Run};
use crate::workloads::{Body, Entry};
use aether_core::snapshot::Manifest;
use std::path::Path;
use thiserror::Error;

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct Failure {
    pub code: String,
    pub message: String,
}

impl Failure {
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into() }
    }
}

impl From<super::run::Interrupted> for Failure {
    fn from(interrupted: super::run::Interrupted) -> Self {
        Self::new(interrupted.code(), interrupted.to_string())
    }
}

/// A workload that was dumped and stands still. Its memory may be in its processes only.
pub struct Still<'a> {
    /// What it is made of then.
    pub body: Body,
    /// What leads out of it; among the images as well.
    pub outside: Outside,
    /// Lets go of it once its memory is read: it stays stopped. To be called in any case.
    pub let_go: Box<dyn FnOnce() -> Result<(), Failure> + Send + 'a>,
}

/// A copy that runs.
pub struct Copied {
    /// What it is made of.
    pub body: Body,
    /// What of its memory is still coming. Until it is whole, the copy may yet have to be ended.
    pub pages: Option<Pages>,
}

pub trait Hands: Send + Sync {
    /// Nothing is really done.
    fn simulated(&self) -> bool;

    /// What a manifest says took it.
    fn version(&self) -> String;

    /// Whether `verb` can be done here at all.
    fn ready(&self, verb: &str) -> Result<(), Refusal>;

    /// Whether the workload can be dumped, as far as that can be seen before; in words for a person if not.
    fn examine(&self, entry: &Entry) -> Result<(), Failure>;

    /// Whether a dump leaves the pages of anonymous memory where they are.
    fn holds(&self) -> bool;

    /// Writes the workload's images into the folder; gives it as it stands still then. At any failure the caller lets
    /// it go on.
    fn dump<'a>(&'a self, entry: &Entry, images: &Path, run: &'a Run) -> Result<Still<'a>, Failure>;

    /// Files of the images that belong to the snapshot.
    fn is_image(&self, name: &str) -> bool;

    /// Lets a stopped workload go on and sees that it does; gives what it is made of then.
    fn go_on(&self, entry: &Entry) -> Result<Body, Failure>;

    /// Whether the snapshot can be restored on this machine.
    fn fits(&self, manifest: &Manifest) -> Result<(), Failure>;

    /// Restores verified images, with `outside` of them. At any failure nothing of it is left.
    fn restore(&self, manifest: &Manifest, outside: &Outside, images: &Path, run: &Run) -> Result<Copied, Failure>;

    /// Opens the way to a restored workload, once it is registered. May be done again.
    fn reach(&self, entry: &Entry) -> Result<(), Failure>;

    /// Restores verified images where nobody notices, looks at the copy and ends it; gives of how many processes it was.
    fn drill(&self, images: &Path, run: &Run) -> Result<usize, Failure>;

    /// Ends the workload with all that it has begun, and sees that nothing is left.
    fn end(&self, entry: &Entry) -> Result<(), Failure>;

    /// Ends what a crashed agent left behind of a dump or restore with these images. Fails if something is left.
    fn clear_up(&self, images: &Path) -> Result<(), Failure>;
}
