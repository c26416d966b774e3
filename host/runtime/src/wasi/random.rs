//! `wasi:random`: BLAKE3's extendable output over the seed, a stream of its own for each interface.

use crate::{
    host::State,
    wasi::{
        BYTES_MAXIMUM,
        bindings::wasi::random::{insecure, insecure_seed, random},
    },
};
use blake3::{Hasher, OutputReader};

/// Three streams that say nothing of one another.
pub(super) struct Random {
    secure: OutputReader,
    insecure: OutputReader,
    seed: OutputReader,
}

impl Random {
    pub(super) fn new(seed: &str) -> Self {
        let stream = |context| Hasher::new_derive_key(context).update(seed.as_bytes()).finalize_xof();
        Self {
            secure: stream("aether-runtime 2026-11-21 wasi:random/random"),
            insecure: stream("aether-runtime 2026-11-21 wasi:random/insecure"),
            seed: stream("aether-runtime 2026-11-21 wasi:random/insecure-seed"),
        }
    }
}

fn bytes(stream: &mut OutputReader, length: u64) -> wasmtime::Result<Vec<u8>> {
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= BYTES_MAXIMUM) else {
        return Err(wasmtime::format_err!(
            "{length} random bytes were asked for, over the limit of {BYTES_MAXIMUM} a call"
        ));
    };
    let mut bytes = vec![0; length];
    stream.fill(&mut bytes);
    Ok(bytes)
}

fn number(stream: &mut OutputReader) -> u64 {
    let mut bytes = [0; 8];
    stream.fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

impl random::Host for State {
    fn get_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        bytes(&mut self.wasi()?.random.secure, len)
    }

    fn get_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(number(&mut self.wasi()?.random.secure))
    }
}

impl insecure::Host for State {
    fn get_insecure_random_bytes(&mut self, len: u64) -> wasmtime::Result<Vec<u8>> {
        bytes(&mut self.wasi()?.random.insecure, len)
    }

    fn get_insecure_random_u64(&mut self) -> wasmtime::Result<u64> {
        Ok(number(&mut self.wasi()?.random.insecure))
    }
}

impl insecure_seed::Host for State {
    fn insecure_seed(&mut self) -> wasmtime::Result<(u64, u64)> {
        let stream = &mut self.wasi()?.random.seed;
        Ok((number(stream), number(stream)))
    }
}
