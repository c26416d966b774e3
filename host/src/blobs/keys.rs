//! Sealing at rest: what lies in the store says nothing to whoever can read the store alone.
//!
//! Each object is sealed with AES-256-GCM under a key of its own, derived from one of the host's keys and the object's
//! name, with a random nonce; what it is bound to (the key's id and the object's name) is authenticated with it, so no
//! object passes for another. Names are keyed hashes, because the digest of a chunk's plain bytes would tell anybody who
//! can guess the bytes that they are here. Equal chunks still share one object as long as the same key seals; what that
//! leaks is how many objects there are, how large each is when compressed, and when it was written.
//!
//! The first key seals, all open. So a key is replaced by putting a new one before it, and taken away once no snapshot
//! is left under it.

use super::{Error, place};
use aether_core::id::Digest;
use bytes::Bytes;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::{fmt, path::Path};

/// Keys in a form like that of `key_file`, for where none is set.
pub const VARIABLE: &str = "AETHER_SNAPSHOT_KEYS";
/// Keys that one host has.
const KEYS_MAXIMUM: usize = 16;
const KEY_BYTES: usize = 32;
/// Of a key's id, in hexadecimal digits.
pub(super) const ID_DIGITS: usize = 16;
const MAGIC: &[u8; 4] = b"AES1";

#[derive(Clone)]
pub(super) struct Key {
    pub(super) id: String,
    sealing: [u8; KEY_BYTES],
    naming: [u8; KEY_BYTES],
}

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Key({})", self.id)
    }
}

impl Key {
    fn new(secret: &[u8; KEY_BYTES]) -> Self {
        let id = blake3::derive_key("aether 2026-11 snapshot key id", secret);
        Self {
            id: blake3::Hash::from(id).to_hex().chars().take(ID_DIGITS).collect(),
            sealing: blake3::derive_key("aether 2026-11 snapshot key sealing", secret),
            naming: blake3::derive_key("aether 2026-11 snapshot key naming", secret),
        }
    }

    /// What an object is called whose plain name is this digest.
    pub(super) fn name(&self, digest: &Digest) -> String {
        blake3::keyed_hash(&self.naming, digest.0.as_bytes()).to_hex().to_string()
    }

    fn cipher(&self, name: &str) -> Result<LessSafeKey, Error> {
        let own = blake3::keyed_hash(&self.sealing, name.as_bytes());
        let own = UnboundKey::new(&AES_256_GCM, own.as_bytes()).map_err(|_| Error::Sealing)?;
        Ok(LessSafeKey::new(own))
    }

    fn bound(&self, name: &str) -> Vec<u8> {
        [MAGIC, self.id.as_bytes(), name.as_bytes()].concat()
    }

    pub(super) fn seal(&self, name: &str, plain: &[u8]) -> Result<Bytes, Error> {
        let nonce = crate::clock::secret::<NONCE_LEN>().map_err(|_| Error::Sealing)?;
        let mut sealed = plain.to_vec();
        self.cipher(name)?
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(self.bound(name)), &mut sealed)
            .map_err(|_| Error::Sealing)?;
        Ok([MAGIC, &nonce[..], &sealed].concat().into())
    }

    /// None: these are not bytes that this key sealed under this name.
    pub(super) fn open(&self, name: &str, sealed: &[u8]) -> Option<Bytes> {
        let (nonce, body) = sealed.strip_prefix(MAGIC)?.split_first_chunk::<NONCE_LEN>()?;
        let mut body = body.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let plain = self.cipher(name).ok()?.open_in_place(nonce, Aad::from(self.bound(name)), &mut body).ok()?.len();
        body.truncate(plain);
        Some(body.into())
    }
}

/// The host's keys; the first seals.
#[derive(Clone, Debug, Default)]
pub(super) struct Keys(Vec<Key>);

impl Keys {
    pub(super) fn read(file: Option<&Path>) -> Result<Self, Error> {
        match file {
            Some(path) => Self::parse(&place::secret(path)?),
            None => std::env::var(VARIABLE).map_or_else(|_| Ok(Self::default()), |text| Self::parse(&text)),
        }
    }

    /// One key a line, in 64 hexadecimal digits; `#` begins a remark.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let lines = text.split(['\n', ',']).map(|line| line.split('#').next().unwrap_or_default().trim());
        let mut keys: Vec<Key> = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let secret = blake3::Hash::from_hex(line.to_ascii_lowercase()).map_err(|_| Error::Keys)?;
            let key = Key::new(secret.as_bytes());
            if keys.len() == KEYS_MAXIMUM || keys.iter().any(|known| known.id == key.id) {
                return Err(Error::Keys);
            }
            keys.push(key);
        }
        // A file that was emptied by mistake must not mean that all is kept open.
        if keys.is_empty() { Err(Error::Keys) } else { Ok(Self(keys)) }
    }

    /// What seals, if anything does.
    pub(super) fn sealing(&self) -> Option<&Key> {
        self.0.first()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Key> {
        self.0.iter().find(|key| key.id == id)
    }

    /// Whatever an object may be kept under: the newest first, and at last none.
    pub(super) fn all(&self) -> impl Iterator<Item = Option<&Key>> {
        self.0.iter().map(Some).chain([None])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_its_key_and_under_its_name_alone() {
        let keys = Keys::parse(&format!("{} # new\n{}\n", "a1".repeat(32), "b2".repeat(32))).unwrap();
        let [a, b] = [&keys.0[0], &keys.0[1]];
        let sealed = a.seal("chunk", b"plain bytes").unwrap();
        assert_eq!(a.open("chunk", &sealed).unwrap(), "plain bytes");
        assert!(a.open("other", &sealed).is_none() && b.open("chunk", &sealed).is_none());
        for place in 0..sealed.len() {
            let mut changed = sealed.to_vec();
            changed[place] ^= 1;
            assert!(a.open("chunk", &changed).is_none(), "byte {place}");
        }
        assert!((0..sealed.len()).all(|length| a.open("chunk", &sealed[..length]).is_none()));
        assert_ne!(a.seal("chunk", b"plain bytes").unwrap(), sealed, "a nonce is never used twice");
        let digest = Digest::of(b"plain bytes");
        assert!(a.name(&digest) != b.name(&digest) && a.name(&digest) != digest.0);
        assert!(!format!("{keys:?}").contains("a1a1"));
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        for text in ["", "# nothing\n", "abc", &"a1".repeat(31), &format!("{0}\n{0}", "a1".repeat(32))] {
            assert!(matches!(Keys::parse(text), Err(Error::Keys)), "{text}");
        }
        assert_eq!(Keys::parse(&format!("{},{}", "a1".repeat(32), "B2".repeat(32))).unwrap().0.len(), 2);
    }
}
