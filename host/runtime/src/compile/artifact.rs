//! Machine code, and the one place where it is taken for what it claims to be.
//!
//! wasmtime cannot check code that it reads: whoever could hand it a file of his own would own the process. So an
//! [`Artifact`] is made in two ways only: from what our own compiler just gave back, and from bytes whose keyed BLAKE3
//! is right under a key that only this host has.
#![allow(unsafe_code, reason = "wasmtime's `deserialize` is unsafe, because it trusts its bytes")]

use crate::engine::Lane;
use rustix::{
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create},
    io::Errno,
};
use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::AsRawFd as _,
};
use wasmtime::{component::Component, error::Context as _};

/// Code whose origin is known.
pub(super) struct Artifact(Vec<u8>);

impl Artifact {
    /// What `Engine::precompile_component` returned, in this process or in the child that this process started and
    /// whose pipe nobody else holds.
    pub(super) fn compiled(code: Vec<u8>) -> Self {
        Self(code)
    }

    /// The code at the end of `sealed`, if all of it was sealed by this host's `key` under `name`.
    pub(super) fn unseal(key: &[u8; 32], name: &str, seal: &[u8; 32], head: &[u8], code: &[u8]) -> Option<Self> {
        // Compared in constant time by `blake3::Hash`.
        (self::seal(key, name, head, code) == blake3::Hash::from_bytes(*seal)).then(|| Self(code.to_vec()))
    }

    pub(super) fn seal(&self, key: &[u8; 32], name: &str, head: &[u8]) -> [u8; 32] {
        *seal(key, name, head, &self.0).as_bytes()
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Links the code in each lane. All lanes share its pages: they are mapped from one file in memory, which nobody can
    /// change any more.
    pub(super) fn link(&self, lanes: &[Lane]) -> wasmtime::Result<Vec<Component>> {
        let file = sealed(&self.0).context("the code cannot be laid out in memory")?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: the bytes are `precompile_component`'s, unchanged: `self` is only made from the compiler's own output
        // or from what was sealed under this host's key, and is never changed. The file that is mapped is sealed against
        // every change, by this process too. That the code is of this very build is checked by wasmtime itself.
        lanes.iter().map(|lane| unsafe { Component::deserialize_file(&lane.engine, &path) }).collect()
    }
}

/// A file in memory with these bytes, for good.
fn sealed(bytes: &[u8]) -> io::Result<File> {
    let plain = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Not to be executed as a program, which hardened kernels insist on and old ones do not know.
    let file = match memfd_create("aether-code", plain | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => memfd_create("aether-code", plain)?,
        file => file?,
    };
    let mut file = File::from(file);
    file.write_all(bytes)?;
    fcntl_add_seals(&file, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    Ok(file)
}

/// Over the name, too, so that one component's file cannot stand in for another's.
fn seal(key: &[u8; 32], name: &str, head: &[u8], code: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new_keyed(key);
    for part in [name.as_bytes(), head, code] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::sealed;
    use std::io::{Seek as _, Write as _};

    #[test]
    fn code_in_memory_cannot_be_changed() {
        let mut file = sealed(b"code").expect("a file in memory");
        file.rewind().expect("to the start");
        assert!(file.write_all(b"evil").is_err());
        assert!(file.set_len(2).is_err());
        assert!(file.set_len(2_000).is_err());
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let mut again = std::fs::File::options().write(true).open(path).expect("it may be opened");
        assert!(again.write_all(b"evil").is_err());
    }
}
