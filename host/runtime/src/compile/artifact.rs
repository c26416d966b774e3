//! Machine code, and the one place where it is taken for what it claims to be.
//!
//! wasmtime cannot check code that it reads: whoever could hand it a file of his own would own the process. So an
//! [`Artifact`] is made in two ways only: from what our own compiler just gave back, and from bytes whose keyed BLAKE3
//! is right under a key that only this host has.
#![allow(unsafe_code, reason = "wasmtime's `deserialize` is unsafe, because it trusts its bytes")]

use wasmtime::component::Component;

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

    pub(super) fn link(&self, engine: &wasmtime::Engine) -> wasmtime::Result<Component> {
        // SAFETY: the bytes are `precompile_component`'s, unchanged: `self` is only made from the compiler's own output
        // or from what was sealed under this host's key, and is never changed. They are copied out of `self.0`, not
        // mapped from a file that could change later. That they are of this very build is checked by wasmtime itself.
        unsafe { Component::deserialize(engine, &self.0) }
    }
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
