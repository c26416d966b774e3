//! What `benches/` needs from the inside: the parts of an evaluation, one at a time. Not for any other use.

use crate::{
    Assets, Engine, Prepared,
    component::VerbIndices,
    convert,
    evaluate::limit_store,
    host::{Environment, Source, State},
};
use aether_core::decision::{Limits, Question};
use wasmtime::{
    Store,
    component::{Component, Instance, InstancePre, Linker},
};

/// A component with nothing in it but a module with one page of memory.
pub struct Empty {
    engine: Engine,
    pre: InstancePre<State>,
    limits: Limits,
}

impl Empty {
    pub fn new(engine: &Engine) -> wasmtime::Result<Self> {
        // (component (core module (memory 1)) (core instance (instantiate 0))), assembled by hand: no text parser here.
        const BYTES: &[u8] = &[
            0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00, // component
            0x01, 0x0d, 0x00, 0x61, 0x73, 0x6d, 0x01, 0x00, 0x00, 0x00, 0x05, 0x03, 0x01, 0x00,
            0x01, // core module
            0x02, 0x04, 0x01, 0x00, 0x00, 0x00, // core instance
        ];
        let component = Component::new(&engine.0.engine, BYTES)?;
        let pre = Linker::new(&engine.0.engine).instantiate_pre(&component)?;
        Ok(Self { engine: engine.clone(), pre, limits: Limits::default() })
    }

    /// Makes a store with all limits on, an instance in it, and drops both.
    pub fn instantiate_and_drop(&self) {
        let mut store = Store::new(
            &self.engine.0.engine,
            State::new(&self.limits, Assets::default(), Source::Live(Environment::default())),
        );
        limit_store(&mut store, &self.limits).expect("fuel is on");
        self.pre.instantiate(&mut store).expect("an empty component");
    }
}

/// A configured instance in a store that lives on, which no evaluation ever has.
pub struct Warm {
    prepared: Prepared,
    store: Store<State>,
    instance: Instance,
}

impl Warm {
    pub fn new(prepared: &Prepared) -> wasmtime::Result<Self> {
        let active = &prepared.0;
        let loaded = &active.loaded;
        let engine = &loaded.engine.0.engine;
        let mut store =
            Store::new(engine, State::new(&active.limits, active.assets.clone(), Source::Live(Environment::default())));
        limit_store(&mut store, &active.limits)?;
        let instance = loaded.pre.instantiate(&mut store)?;
        let plugin = loaded.plugin.load(&mut store, &instance)?;
        plugin.call_configure(&mut store, &active.config)?.map_err(wasmtime::Error::msg)?;
        Ok(Self { prepared: prepared.clone(), store, instance })
    }

    /// Asks a scorer's question again.
    pub fn call(&mut self, question: &Question) {
        let active = &self.prepared.0;
        limit_store(&mut self.store, &active.limits).expect("fuel is on");
        let (VerbIndices::Score(indices), Question::Score(observation)) = (&active.loaded.verb, question) else {
            unreachable!("the benchmark asks a scorer");
        };
        let guest = indices.load(&mut self.store, &self.instance).expect("a scorer");
        let answer = guest.call_score(&mut self.store, &convert::observation(observation)).expect("an answer");
        convert::assessment(answer.expect("no error")).expect("a valid answer");
    }
}
