//! Makes a component of what a build gave. Compilers of C and Go give a core module: it gets the types of its world and
//! becomes a component here, so that nobody has to install a tool for that.

use super::{bindings, project::Project};
use wasi_preview1_component_adapter_provider::{
    WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};

/// Follows the magic number: a core module is version 1 of layer 0.
const CORE: &[u8] = b"\0asm\x01\0\0\0";

/// `bytes` as a component of the project's world.
pub(super) fn finish(mut bytes: Vec<u8>, project: &Project) -> anyhow::Result<Vec<u8>> {
    if !bytes.starts_with(CORE) {
        return Ok(bytes);
    }
    let (resolve, package) = bindings::contract(project)?;
    let world = resolve.select_world(&[package], Some(project.manifest.world.world()))?;
    embed_component_metadata(&mut bytes, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default()
        .module(&bytes)?
        // Compilers speak the first version of WASI; the host serves the second, virtually. Nothing of it stays in a
        // component that imports none.
        .adapter(WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER)?
        .encode()
}
