//! What `host/bench` needs from the inside: the parts of an evaluation, one at a time. Not for any other use.

use crate::{
    Assets, Engine, Prepared,
    evaluate::{call, limit_store, ready},
    host::{Environment, Source, State},
};
use aether_core::decision::{Answer, Limits, Question};
use wasmtime::{
    Store,
    component::{Component, Instance, InstancePre, Linker},
};

/// These run on one thread, in the lane that there always is.
const LANE: usize = 0;

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
        let lane = &engine.0.lanes[LANE].engine;
        let component = Component::new(lane, BYTES)?;
        let pre = Linker::new(lane).instantiate_pre(&component)?;
        Ok(Self { engine: engine.clone(), pre, limits: Limits::default() })
    }

    /// Makes a store with all limits on, an instance in it, and drops both.
    pub fn instantiate_and_drop(&self) {
        let mut store = Store::new(
            &self.engine.0.lanes[LANE].engine,
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
    pub fn new(prepared: &Prepared) -> Self {
        let active = &prepared.0;
        let engine = &active.loaded.engine.0.lanes[LANE].engine;
        let state = State::new(&active.limits, active.assets.clone(), Source::Live(Environment::default()));
        let mut store = Store::new(engine, state);
        limit_store(&mut store, &active.limits).expect("fuel is on");
        let Ok((_, instance)) = ready(active, LANE, &mut store) else { unreachable!("it was activated") };
        Self { prepared: prepared.clone(), store, instance }
    }

    /// Asks the same instance again, with all limits and checks of an evaluation.
    pub fn call(&mut self, question: &Question, environment: Environment) -> Answer {
        let active = &self.prepared.0;
        limit_store(&mut self.store, &active.limits).expect("fuel is on");
        self.store.data_mut().turn(Source::Live(environment));
        let bound = active.snapshot.as_ref().unwrap_or(&active.loaded.bound).of(LANE);
        match call(bound, &self.instance, question, &mut self.store) {
            Ok(answer) => answer,
            Err(_) => unreachable!("the benchmark's questions are answered"),
        }
    }
}
