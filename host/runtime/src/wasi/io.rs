//! `wasi:io`: streams over bytes that are already there, and waits that end at once.

use crate::{
    host::State,
    wasi::{
        BYTES_MAXIMUM, Never, Wasi,
        bindings::wasi::io::{
            error, poll,
            streams::{self, StreamError},
        },
        output::Printed,
    },
};
use std::sync::Arc;
use wasmtime::component::Resource;

/// What can be waited for.
#[derive(Clone, Copy)]
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub enum Pollable {
    /// Every stream, always: nothing is ever on its way.
    Ready,
    /// An instant of the monotonic clock.
    At(u64),
}

/// Bytes from a place on: a file's, or none.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Input {
    bytes: Arc<[u8]>,
    at: usize,
}

impl Input {
    /// One that is at its end.
    pub(super) fn empty() -> Self {
        Self { bytes: Arc::default(), at: 0 }
    }

    pub(super) fn new(bytes: Arc<[u8]>, offset: u64) -> Self {
        let at = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        Self { bytes, at }
    }

    /// The next bytes, at most `length`.
    fn next(&mut self, length: u64) -> Result<&[u8], StreamError> {
        let rest = &self.bytes[self.at..];
        if rest.is_empty() && length > 0 {
            return Err(StreamError::Closed);
        }
        let length = capped(length).min(rest.len());
        self.at += length;
        Ok(&rest[..length])
    }
}

/// Where a guest can write to.
#[allow(unreachable_pub, reason = "the generated bindings re-export it")]
pub struct Output(pub(super) Printed);

/// A length that one call may ask for.
pub(super) fn capped(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX).min(BYTES_MAXIMUM)
}

impl error::Host for State {}

impl error::HostError for State {
    fn to_debug_string(&mut self, this: Resource<Never>) -> wasmtime::Result<String> {
        match *self.wasi()?.table.get(&this)? {}
    }

    fn drop(&mut self, this: Resource<Never>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl Wasi {
    fn is_ready(&self, pollable: &Resource<Pollable>) -> wasmtime::Result<bool> {
        Ok(match self.table.get(pollable)? {
            Pollable::Ready => true,
            Pollable::At(when) => self.monotonic.has_come(*when),
        })
    }
}

impl poll::Host for State {
    fn poll(&mut self, pollables: Vec<Resource<Pollable>>) -> wasmtime::Result<Vec<u32>> {
        let wasi = self.wasi()?;
        if pollables.is_empty() {
            return Err(wasmtime::format_err!("a poll of nothing would never end"));
        }
        let mut waits = Vec::with_capacity(pollables.len());
        for pollable in &pollables {
            waits.push(*wasi.table.get(pollable)?);
        }
        let instants = waits.iter().map(|wait| match wait {
            Pollable::Ready => 0,
            Pollable::At(when) => *when,
        });
        // To the first of them, if none has come yet.
        if let Some(first) = instants.clone().min() {
            wasi.monotonic.sleep_until(first);
        }
        Ok((0..).zip(instants).filter_map(|(index, when)| wasi.monotonic.has_come(when).then_some(index)).collect())
    }
}

impl poll::HostPollable for State {
    fn ready(&mut self, this: Resource<Pollable>) -> wasmtime::Result<bool> {
        self.wasi()?.is_ready(&this)
    }

    fn block(&mut self, this: Resource<Pollable>) -> wasmtime::Result<()> {
        let wasi = self.wasi()?;
        if let Pollable::At(when) = *wasi.table.get(&this)? {
            wasi.monotonic.sleep_until(when);
        }
        Ok(())
    }

    fn drop(&mut self, this: Resource<Pollable>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl streams::Host for State {}

impl streams::HostInputStream for State {
    fn read(&mut self, this: Resource<Input>, len: u64) -> wasmtime::Result<Result<Vec<u8>, StreamError>> {
        Ok(self.wasi()?.table.get_mut(&this)?.next(len).map(<[u8]>::to_vec))
    }

    fn blocking_read(&mut self, this: Resource<Input>, len: u64) -> wasmtime::Result<Result<Vec<u8>, StreamError>> {
        streams::HostInputStream::read(self, this, len)
    }

    fn skip(&mut self, this: Resource<Input>, len: u64) -> wasmtime::Result<Result<u64, StreamError>> {
        Ok(self.wasi()?.table.get_mut(&this)?.next(len).map(|bytes| bytes.len() as u64))
    }

    fn blocking_skip(&mut self, this: Resource<Input>, len: u64) -> wasmtime::Result<Result<u64, StreamError>> {
        self.skip(this, len)
    }

    fn subscribe(&mut self, this: Resource<Input>) -> wasmtime::Result<Resource<Pollable>> {
        self.wasi()?.table.get(&this)?;
        self.hand(Pollable::Ready)
    }

    fn drop(&mut self, this: Resource<Input>) -> wasmtime::Result<()> {
        self.take(this)
    }
}

impl State {
    fn write_to(&mut self, this: &Resource<Output>, contents: &[u8]) -> wasmtime::Result<Result<(), StreamError>> {
        let printed = self.wasi()?.table.get(this)?.0;
        if contents.len() > BYTES_MAXIMUM {
            return Err(wasmtime::format_err!(
                "{} bytes were written at once, over the limit of {BYTES_MAXIMUM} that `check-write` tells",
                contents.len()
            ));
        }
        self.print(printed, contents).map(Ok)
    }

    fn write_zeroes_to(&mut self, this: &Resource<Output>, length: u64) -> wasmtime::Result<Result<(), StreamError>> {
        // One more than is allowed stands for all that are too many.
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(BYTES_MAXIMUM + 1);
        self.write_to(this, &vec![0; length])
    }
}

impl streams::HostOutputStream for State {
    fn check_write(&mut self, this: Resource<Output>) -> wasmtime::Result<Result<u64, StreamError>> {
        self.wasi()?.table.get(&this)?;
        Ok(Ok(BYTES_MAXIMUM as u64))
    }

    fn write(&mut self, this: Resource<Output>, contents: Vec<u8>) -> wasmtime::Result<Result<(), StreamError>> {
        self.write_to(&this, &contents)
    }

    fn blocking_write_and_flush(
        &mut self,
        this: Resource<Output>,
        contents: Vec<u8>,
    ) -> wasmtime::Result<Result<(), StreamError>> {
        self.write_to(&this, &contents)
    }

    // A line stays open until it ends: to flush a part of it would make two lines of it.
    fn flush(&mut self, this: Resource<Output>) -> wasmtime::Result<Result<(), StreamError>> {
        self.wasi()?.table.get(&this)?;
        Ok(Ok(()))
    }

    fn blocking_flush(&mut self, this: Resource<Output>) -> wasmtime::Result<Result<(), StreamError>> {
        self.flush(this)
    }

    fn subscribe(&mut self, this: Resource<Output>) -> wasmtime::Result<Resource<Pollable>> {
        self.wasi()?.table.get(&this)?;
        self.hand(Pollable::Ready)
    }

    fn write_zeroes(&mut self, this: Resource<Output>, len: u64) -> wasmtime::Result<Result<(), StreamError>> {
        self.write_zeroes_to(&this, len)
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        this: Resource<Output>,
        len: u64,
    ) -> wasmtime::Result<Result<(), StreamError>> {
        self.write_zeroes_to(&this, len)
    }

    fn splice(
        &mut self,
        this: Resource<Output>,
        src: Resource<Input>,
        len: u64,
    ) -> wasmtime::Result<Result<u64, StreamError>> {
        let bytes = match self.wasi()?.table.get_mut(&src)?.next(len) {
            Ok(bytes) => bytes.to_vec(),
            Err(error) => return Ok(Err(error)),
        };
        Ok(self.write_to(&this, &bytes)?.map(|()| bytes.len() as u64))
    }

    fn blocking_splice(
        &mut self,
        this: Resource<Output>,
        src: Resource<Input>,
        len: u64,
    ) -> wasmtime::Result<Result<u64, StreamError>> {
        self.splice(this, src, len)
    }

    fn drop(&mut self, this: Resource<Output>) -> wasmtime::Result<()> {
        self.take(this)
    }
}
