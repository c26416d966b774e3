//! The rules of the house that a program can hold: who may depend on whom, and what a source file looks like.
//!
//! Style is not its matter: rustfmt and clippy have that.

use std::path::Path;

use anyhow::Result;

mod crates;
mod files;

/// Every rule that is broken, one sentence each, in a stable order.
pub(crate) fn check(root: &Path) -> Result<Vec<String>> {
    let mut broken = crates::check(&crates::Metadata::of(root)?);
    broken.extend(files::check(root)?);
    Ok(broken)
}
