//! One wasmtime engine for the process: its pool, its watchdog, and what every component is compiled with.

use crate::{
    compile::{CacheSettings, CompileError, Compiled, Compiler, Kind, Workshop},
    component::{Component, Inspected, LoadError},
    host::State,
    lane::{Place, Places},
    limit::TABLE_ELEMENTS,
};
use aether_core::decision::{Limits, Role};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};
use wasmtime::{
    Config, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{HasSelf, Linker},
};

/// Memories of one component; Python's runtime has the most seen (2).
const MEMORIES_PER_COMPONENT: u32 = 4;
const TABLES_PER_COMPONENT: u32 = 8;
/// Core instances of one component; Python's runtime has the most seen (80).
const INSTANCES_PER_COMPONENT: u32 = 100;
/// Bookkeeping that wasmtime keeps for one component instance; a component that needs more is refused when it is loaded.
const INSTANCE_BYTES: usize = 1 << 20;
/// Bytes of each memory that are zeroed by hand instead of being given back to the kernel, which is slower for small ones.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;
const WATCHDOG_TICK: Duration = Duration::from_millis(5);
/// Ticks without an evaluation after which the watchdog rests until the next: a second.
const WATCHDOG_RESTS_AFTER: u32 = 200;

/// What one process gives to components altogether.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineSettings {
    /// Evaluations at one time; more wait. Each reserves address space (4 GiB a memory), not memory.
    pub concurrency: u32,
    /// How long an evaluation waits for room before it is [`Overloaded`](aether_core::decision::FaultKind::Overloaded).
    pub pool_wait: Duration,
    /// The largest component that is looked at.
    pub component_bytes: usize,
    /// Of a guest's calls. A deeper recursion is a fault.
    pub stack_bytes: usize,
    /// Who compiles.
    pub compiler: Compiler,
    /// Where compiled code is kept; none: it is made anew by each process.
    pub cache: Option<CacheSettings>,
}

impl Default for EngineSettings {
    fn default() -> Self {
        Self {
            concurrency: 16,
            pool_wait: Duration::from_secs(1),
            component_bytes: 32 << 20,
            stack_bytes: 256 << 10,
            compiler: Compiler::InProcess,
            cache: None,
        }
    }
}

impl EngineSettings {
    /// What no configuration can exceed.
    pub const MAXIMUM: EngineSettings = EngineSettings {
        concurrency: 256,
        pool_wait: Duration::from_secs(30),
        component_bytes: 128 << 20,
        stack_bytes: 1 << 20,
        compiler: Compiler::InProcess,
        cache: None,
    };
}

/// Why there is no engine.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the runtime's setting `{field}` is {given}, outside {least} to {maximum}")]
    Setting { field: &'static str, given: u128, least: u128, maximum: u128 },
    #[error("the WebAssembly engine could not be set up; check the limits on address space (ulimit -v) and on threads")]
    Engine(#[source] wasmtime::Error),
    #[error("the watchdog thread could not be started")]
    Watchdog(#[source] std::io::Error),
}

/// Loads components and lends them room to run. Cheap to clone; the last clone ends the watchdog.
#[derive(Clone)]
pub struct Engine(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) settings: EngineSettings,
    places: Arc<Places>,
    /// As many as `places` has.
    pub(crate) lanes: Box<[Lane]>,
    workshop: Workshop,
    watchdog: Watchdog,
}

/// One lane's engine.
pub(crate) struct Lane {
    pub(crate) engine: wasmtime::Engine,
    /// For scorers and planners, which may look back, and for gates and routers, which may not.
    with_history: Linker<State>,
    without_history: Linker<State>,
}

impl Engine {
    pub fn new(settings: EngineSettings) -> Result<Self, Error> {
        let maximum = EngineSettings::MAXIMUM;
        for (field, given, maximum) in [
            ("concurrency", u128::from(settings.concurrency), u128::from(maximum.concurrency)),
            ("pool_wait_ms", settings.pool_wait.as_millis(), maximum.pool_wait.as_millis()),
            ("component_bytes", settings.component_bytes as u128, maximum.component_bytes as u128),
            ("stack_bytes", settings.stack_bytes as u128, maximum.stack_bytes as u128),
        ] {
            if given == 0 || given > maximum {
                return Err(Error::Setting { field, given, least: 1, maximum });
            }
        }
        settings.compiler.check()?;
        let places = Arc::new(Places::new(settings.concurrency, settings.pool_wait));
        let lanes =
            places.each().map(|places| Lane::new(places, settings.stack_bytes)).collect::<wasmtime::Result<_>>();
        let lanes: Box<[Lane]> = lanes.map_err(Error::Engine)?;
        let watchdog = lanes.iter().map(|lane| lane.engine.clone()).collect();
        let watchdog = Watchdog::start(watchdog, places.clone()).map_err(Error::Watchdog)?;
        let first =
            lanes.first().map(|lane| &lane.engine).unwrap_or_else(|| unreachable!("there is one lane at least"));
        let workshop = Workshop::new(first, settings.compiler.clone(), settings.cache.clone());
        Ok(Self(Arc::new(Inner { settings, places, lanes, workshop, watchdog })))
    }

    /// Checks what can be checked without compiling: size, that it is a component, which world it exports and of which
    /// version, and that it imports only what that world grants.
    pub fn inspect(&self, bytes: &[u8]) -> Result<Inspected, LoadError> {
        Inspected::of(self, bytes)
    }

    /// Checks `bytes` and compiles them. In this order, each with an error of its own: size, that it is a component,
    /// which world it exports and of which version, that it imports only what that world grants, that it compiles; then
    /// it is asked to describe itself. Takes milliseconds to seconds: a server calls it off its request threads.
    pub fn load(&self, bytes: &[u8]) -> Result<Component, LoadError> {
        Component::load(self, bytes)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.0.settings).finish_non_exhaustive()
    }
}

impl Inner {
    pub(crate) fn compile(&self, kind: Kind, bytes: &[u8]) -> Result<Compiled, CompileError> {
        self.workshop.compile(&self.lanes, kind, bytes, self.settings.stack_bytes)
    }

    /// A place to run in, under the watchdog's eyes; none if there was no room in time.
    pub(crate) fn enter(&self) -> Option<Place<'_>> {
        let place = self.places.enter();
        self.watchdog.wake();
        place
    }

    /// How long one waits for a place.
    pub(crate) fn wait(&self) -> Duration {
        self.places.wait()
    }

    /// The epoch deadline of an evaluation that may take `deadline_ms`.
    pub(crate) fn ticks(deadline_ms: u64) -> u64 {
        // One more, because the tick under way may end at once.
        deadline_ms.div_ceil(u64::try_from(WATCHDOG_TICK.as_millis()).unwrap_or(1)).saturating_add(1)
    }
}

impl Lane {
    fn new(places: u32, stack_bytes: usize) -> wasmtime::Result<Self> {
        let engine = wasmtime::Engine::new(&config(places, stack_bytes))?;
        let (with_history, without_history) = (linker(&engine, true)?, linker(&engine, false)?);
        Ok(Self { engine, with_history, without_history })
    }

    pub(crate) fn linker(&self, role: Role) -> &Linker<State> {
        if grants_history(role) { &self.with_history } else { &self.without_history }
    }
}

/// Whether a role's world imports `history`.
pub(crate) fn grants_history(role: Role) -> bool {
    match role {
        Role::RiskScorer | Role::RemediationPlanner => true,
        Role::PolicyGate | Role::Router => false,
    }
}

/// How a lane's engine compiles and runs.
pub(crate) fn config(places: u32, stack_bytes: usize) -> Config {
    let mut pool = PoolingAllocationConfig::new();
    let memory_bytes = usize::try_from(Limits::MAXIMUM.memory_bytes).unwrap_or(usize::MAX);
    pool.total_component_instances(places)
        .total_core_instances(places * INSTANCES_PER_COMPONENT)
        .total_memories(places * MEMORIES_PER_COMPONENT)
        .total_tables(places * TABLES_PER_COMPONENT)
        .max_core_instances_per_component(INSTANCES_PER_COMPONENT)
        .max_memories_per_component(MEMORIES_PER_COMPONENT)
        .max_tables_per_component(TABLES_PER_COMPONENT)
        .max_memories_per_module(MEMORIES_PER_COMPONENT)
        .max_tables_per_module(TABLES_PER_COMPONENT)
        .max_component_instance_size(INSTANCE_BYTES)
        .max_core_instance_size(INSTANCE_BYTES)
        .max_memory_size(memory_bytes)
        .table_elements(TABLE_ELEMENTS)
        .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
        .table_keep_resident(KEEP_RESIDENT_BYTES);
    let mut config = compile_only(stack_bytes);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}

/// The same without the pool, and without its reservation: for an engine that compiles and never runs.
pub(crate) fn compile_only(stack_bytes: usize) -> Config {
    let mut config = Config::new();
    config
        .consume_fuel(true)
        .epoch_interruption(true)
        .max_wasm_stack(stack_bytes)
        // The same bits on every machine: one NaN, and no instruction whose result is the processor's choice.
        .cranelift_nan_canonicalization(true)
        .wasm_relaxed_simd(false)
        .wasm_multi_memory(true)
        .memory_init_cow(true);
    config
}

fn linker(engine: &wasmtime::Engine, history: bool) -> wasmtime::Result<Linker<State>> {
    use crate::bindings::aether::plugin;
    let mut linker = Linker::new(engine);
    crate::wasi::add_to_linker(&mut linker)?;
    plugin::types::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    plugin::log::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    plugin::assets::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    if history {
        plugin::history::add_to_linker::<_, HasSelf<_>>(&mut linker, |state| state)?;
    }
    Ok(linker)
}

/// Ticks all lanes' epochs from a thread of its own, so that no busy executor delays it, and ends with the engine. It rests
/// while nobody runs.
struct Watchdog {
    /// Wakes it; gone, it ends.
    waker: Option<mpsc::Sender<()>>,
    resting: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    fn start(engines: Vec<wasmtime::Engine>, places: Arc<Places>) -> std::io::Result<Self> {
        let (waker, woken) = mpsc::channel();
        let resting = Arc::new(AtomicBool::new(false));
        let rests = resting.clone();
        let watch = move || watch(&engines, &places, &rests, &woken);
        let thread = std::thread::Builder::new().name("aether-watchdog".into()).spawn(watch)?;
        Ok(Self { waker: Some(waker), resting, thread: Some(thread) })
    }

    /// Whoever calls this has a place already, which the watchdog sees before it rests, or has said that it rests.
    fn wake(&self) {
        if self.resting.load(Ordering::SeqCst)
            && self.resting.swap(false, Ordering::SeqCst)
            && let Some(waker) = &self.waker
        {
            // It ends after the engine alone.
            let _ = waker.send(());
        }
    }
}

fn watch(engines: &[wasmtime::Engine], places: &Places, resting: &AtomicBool, woken: &mpsc::Receiver<()>) {
    let mut idle = 0;
    loop {
        match woken.recv_timeout(WATCHDOG_TICK) {
            Err(mpsc::RecvTimeoutError::Timeout) => engines.iter().for_each(wasmtime::Engine::increment_epoch),
            Err(mpsc::RecvTimeoutError::Disconnected) => return,
            // By who came when it had just looked once more, and does not rest after all.
            Ok(()) => {}
        }
        idle = if places.is_empty() { idle + 1 } else { 0 };
        if idle < WATCHDOG_RESTS_AFTER {
            continue;
        }
        resting.store(true, Ordering::SeqCst);
        if places.is_empty() && woken.recv().is_err() {
            return;
        }
        resting.store(false, Ordering::SeqCst);
        idle = 0;
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        drop(self.waker.take());
        if let Some(thread) = self.thread.take() {
            // It only ever waits for this channel.
            let _ = thread.join();
        }
    }
}
