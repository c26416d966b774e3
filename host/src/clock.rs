//! The one place where this crate reads a clock or draws an id, so that a simulator can set both.

use aether_core::time::Time;
use std::{
    cell::RefCell,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// Where time and randomness come from, in the stead of the machine's.
pub trait Source: Send + Sync {
    fn now(&self) -> Time;
    fn fill(&self, bytes: &mut [u8]);
}

thread_local! {
    static SOURCE: RefCell<Option<Arc<dyn Source>>> = const { RefCell::new(None) };
}

/// From now on this thread has its time and randomness from there; with none, from the machine again.
pub fn set_source(source: Option<Arc<dyn Source>>) {
    SOURCE.set(source);
}

fn source() -> Option<Arc<dyn Source>> {
    SOURCE.with_borrow(Clone::clone)
}

/// UTC now. Before 1970 it says 1970.
#[allow(clippy::disallowed_methods, reason = "the one clock of this crate")]
pub fn now() -> Time {
    if let Some(source) = source() {
        return source.now();
    }
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// A fresh id that sorts by time: `<prefix>-<UUIDv7 without dashes>`.
#[allow(clippy::disallowed_methods, reason = "the one source of ids of this crate")]
pub fn id(prefix: &str) -> String {
    let uuid = match source() {
        None => uuid::Uuid::now_v7(),
        Some(source) => {
            let mut random = [0; 10];
            source.fill(&mut random);
            let millis = u64::try_from(source.now().0).unwrap_or(0);
            uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid()
        }
    };
    format!("{prefix}-{}", uuid.simple())
}

/// Bytes that nobody can guess, for tokens and nonces.
pub fn secret<const N: usize>() -> Result<[u8; N], getrandom::Error> {
    let mut bytes = [0; N];
    match source() {
        None => getrandom::fill(&mut bytes)?,
        Some(source) => source.fill(&mut bytes),
    }
    Ok(bytes)
}
