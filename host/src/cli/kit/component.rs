//! Makes a component of what a build gave. Compilers of C and Go give a core module: it gets the types of its world and
//! becomes a component here, so that nobody has to install a tool for that.

use aether_core::decision::Role;
use anyhow::Context;
use std::path::Path;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Follows the magic number: a core module is version 1 of layer 0.
const CORE: &[u8] = b"\0asm\x01\0\0\0";

/// `bytes` as a component of `world`, whose contract is in the folder `wit`.
pub(super) fn finish(mut bytes: Vec<u8>, wit: &Path, world: Role) -> anyhow::Result<Vec<u8>> {
    if !bytes.starts_with(CORE) {
        return Ok(bytes);
    }
    let mut resolve = Resolve::default();
    let (package, _) =
        resolve.push_dir(wit).with_context(|| format!("{} does not hold the contract", wit.display()))?;
    let world = resolve.select_world(&[package], Some(world.world()))?;
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&bytes)?.validate(false).encode()
}
