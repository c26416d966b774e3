//! Snapshots: what an instance is after `configure` becomes a component that begins there, so that a guest pays for its
//! language's start and for reading its config once, at activation, and not in every evaluation.
//!
//! Wizer does the work in three steps. [`instrument`] adds exports through which all memories and mutable globals can be
//! read, and is done where components are compiled. The instance is made and configured as any other. [`take`] reads
//! what there is and writes the component anew, with that as its initial state and without start functions.
//!
//! Not all state lies in memories and globals. A component that could keep some elsewhere (tables that it changes,
//! resources of its own, handles of the host's) is not snapshotted but configured in each evaluation: slower, and
//! otherwise the same. [`Preparation`] says which, and why.

use crate::host::State;
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::{Context, Poll, Waker},
};
use wasmparser::{CanonicalFunction, Parser, Payload, ValType};
use wasmtime::{
    Store,
    component::{ComponentNamedList, Instance, Lift, WasmList},
};
use wasmtime_wizer::{ComponentInstanceState, Wizer};

/// The largest snapshot that is made. What a guest writes while it takes its config is in it.
const SNAPSHOT_BYTES_MAX: usize = 64 << 20;

/// How a component is made ready for a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// Each evaluation begins from a snapshot of the configured instance.
    Snapshotted { digest: aether_core::id::Digest, bytes: usize },
    /// Each evaluation configures its instance first, at the activation's clock; its cost is not in the evaluation's fuel.
    ConfiguredEachTime { reason: String },
}

/// Adds to a component what [`take`] needs; the error says why that cannot be.
pub(crate) fn instrument(bytes: &[u8]) -> Result<Vec<u8>, String> {
    check(bytes)?;
    guarded(|| {
        let wizer = wizer();
        let (_, instrumented) = wizer.instrument_component(bytes).map_err(|error| format!("{error:#}"))?;
        Ok(instrumented)
    })
}

/// Writes `bytes` anew as what `instance` (made of its instrumented form) is now.
pub(crate) fn take(bytes: &[u8], store: &mut Store<State>, instance: Instance) -> Result<Vec<u8>, String> {
    if store.data().holds_handles() {
        return Err("it holds handles of the host's after it took its config".into());
    }
    guarded(|| {
        let wizer = wizer();
        let (context, _) = wizer.instrument_component(bytes).map_err(|error| format!("{error:#}"))?;
        let mut reader = Reader { store, instance, error: None };
        let snapshot = at_once(wizer.snapshot_component(&context, &mut reader));
        if let Some(error) = reader.error {
            return Err(format!("its state cannot be read: {error:#}"));
        }
        let snapshot = snapshot.ok_or("its state cannot be read at once")?.map_err(|error| format!("{error:#}"))?;
        if snapshot.len() > SNAPSHOT_BYTES_MAX {
            return Err(format!("its snapshot is {} bytes, over the limit of {SNAPSHOT_BYTES_MAX}", snapshot.len()));
        }
        Ok(snapshot)
    })
}

fn wizer() -> Wizer {
    let mut wizer = Wizer::new();
    // No export is an initialiser to be taken away: `configure` is called by us, and stays.
    wizer.keep_init_func(true);
    wizer
}

/// State that Wizer does not see, or does not take.
fn check(bytes: &[u8]) -> Result<(), String> {
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(|error| error.to_string())? {
            Payload::ComponentCanonicalSection(functions) => {
                for function in functions {
                    if let CanonicalFunction::ResourceNew { .. } = function.map_err(|error| error.to_string())? {
                        return Err("it makes resources of its own".into());
                    }
                }
            }
            Payload::GlobalSection(globals) => {
                for global in globals {
                    let kind = global.map_err(|error| error.to_string())?.ty;
                    if kind.mutable && kind.content_type == ValType::V128 {
                        return Err("it has a mutable global of type v128".into());
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Wizer asserts what it does not handle.
fn guarded<T>(work: impl FnOnce() -> Result<T, String>) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err("the snapshot tool does not handle how its modules are built".into()))
}

/// The value of a future that never waits; none: it would.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

/// Reads an instance through the exports that [`instrument`] added. The first error is kept, and zeros given for the
/// rest: the trait has no room for errors.
struct Reader<'a> {
    store: &'a mut Store<State>,
    instance: Instance,
    error: Option<wasmtime::Error>,
}

impl Reader<'_> {
    fn call<R, T>(&mut self, interface: &str, function: &str, take: impl FnOnce(&Store<State>, R) -> T) -> Option<T>
    where
        R: Lift + 'static,
        (R,): ComponentNamedList,
    {
        let called = (|| {
            let missing = || wasmtime::format_err!("`{interface}#{function}` is missing");
            let (_, interface) = self.instance.get_export(&mut *self.store, None, interface).ok_or_else(missing)?;
            let (_, function) =
                self.instance.get_export(&mut *self.store, Some(&interface), function).ok_or_else(missing)?;
            let function = self.instance.get_typed_func::<(), (R,)>(&mut *self.store, function)?;
            let (value,) = function.call(&mut *self.store, ())?;
            Ok(take(self.store, value))
        })();
        match called {
            Ok(value) => Some(value),
            Err(error) => {
                self.error.get_or_insert(error);
                None
            }
        }
    }
}

impl ComponentInstanceState for Reader<'_> {
    async fn call_func_ret_list_u8(&mut self, instance: &str, function: &str, contents: impl FnOnce(&[u8]) + Send) {
        self.call(instance, function, |store, list: WasmList<u8>| contents(list.as_le_slice(store)));
    }

    async fn call_func_ret_s32(&mut self, instance: &str, function: &str) -> i32 {
        self.call(instance, function, |_, value| value).unwrap_or_default()
    }

    async fn call_func_ret_s64(&mut self, instance: &str, function: &str) -> i64 {
        self.call(instance, function, |_, value| value).unwrap_or_default()
    }

    async fn call_func_ret_f32(&mut self, instance: &str, function: &str) -> u32 {
        self.call(instance, function, |_, value: f32| value.to_bits()).unwrap_or_default()
    }

    async fn call_func_ret_f64(&mut self, instance: &str, function: &str) -> u64 {
        self.call(instance, function, |_, value: f64| value.to_bits()).unwrap_or_default()
    }
}
