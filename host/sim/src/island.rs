//! One process of the simulated fleet: a runtime of its own on the one thread, with a clock that stands still unless
//! the simulation lets it go on.
//!
//! All islands take turns, so just one of them does anything at a time. Within its turn an island runs its own timers
//! in their order, up to the time that it is given: tokio's paused clock moves on only when nothing of the island is
//! ready. The database answers from a thread that tokio does not know of, so the island waits for it before it would
//! let the clock move; and a statement ends only while the island waits ([`Gate`]), so that no answer is there before it
//! was waited for. What comes from other threads is taken only when nothing local is ready (`global_queue_interval`),
//! and just one statement is under way at a time: so the same seed takes the same path.

use crate::{START, dice::Rng};
use aether_core::time::Time;
use aether_host::store::Store;
use std::{
    sync::{
        Arc, Condvar, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::Notify,
    time::Instant,
};

/// Looks for an answer of the database before the thread sleeps between them.
const SPINS: u32 = 500;

/// The end of an island, brought about at a chosen place.
#[derive(Debug, Default)]
pub(crate) struct Death {
    dead: AtomicBool,
    notify: Notify,
}

impl Death {
    /// Ends the island. Whoever awaits this never goes on.
    pub(crate) async fn die(&self) {
        self.mark();
        std::future::pending().await
    }

    /// The same for who does not await: nothing of the island goes on after its present step.
    pub(crate) fn mark(&self) {
        self.dead.store(true, SeqCst);
        self.notify.notify_one();
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.dead.load(SeqCst)
    }
}

/// What lets a statement of the database end.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    open: Mutex<bool>,
    opened: Condvar,
    /// The island is no more.
    for_good: AtomicBool,
}

impl Gate {
    /// For the database's thread, at the end of each statement.
    pub(crate) fn pass(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while !*open && !self.for_good.load(SeqCst) {
            open = self.opened.wait(open).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn set(&self, open: bool) {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) = open;
        if open {
            self.opened.notify_all();
        }
    }
}

/// The wall clock of an island and its randomness.
pub(crate) struct Wall {
    /// Virtual time at its birth.
    born: u64,
    start: OnceLock<Instant>,
    /// How wrong the clock is.
    skew_ms: Arc<AtomicI64>,
    dice: Mutex<Rng>,
}

impl Wall {
    fn time(&self) -> Time {
        let elapsed = self.start.get().map_or(Duration::ZERO, Instant::elapsed).as_millis();
        let elapsed = i64::try_from(elapsed).unwrap_or(i64::MAX);
        let born = i64::try_from(self.born).unwrap_or(i64::MAX);
        Time(START.0 + born + elapsed + self.skew_ms.load(SeqCst))
    }

    fn dice(&self) -> std::sync::MutexGuard<'_, Rng> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl aether_host::clock::Source for Wall {
    fn now(&self) -> Time {
        self.time()
    }
    fn fill(&self, bytes: &mut [u8]) {
        self.dice().fill(bytes);
    }
}

impl aether_agent::clock::Source for Wall {
    fn now(&self) -> Time {
        self.time()
    }
    fn random(&self) -> u64 {
        self.dice().u64(..)
    }
}

/// Gives this thread the clock of an island.
fn wear(wall: &Arc<Wall>) {
    aether_host::clock::set_source(Some(wall.clone()));
    aether_agent::clock::set_source(Some(wall.clone()));
}

fn held(store: &Mutex<Option<Store>>) -> std::sync::MutexGuard<'_, Option<Store>> {
    store.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) struct Island {
    runtime: Runtime,
    wall: Arc<Wall>,
    born: u64,
    start: Instant,
    pub death: Arc<Death>,
    /// The database that is waited for, if it has one. Wakers that outlive the runtime keep it alive, so what this holds
    /// goes with the island.
    store: Arc<Mutex<Option<Store>>>,
    opening: Arc<AtomicBool>,
    pub(crate) gate: Arc<Gate>,
}

impl Drop for Island {
    fn drop(&mut self) {
        self.gate.for_good.store(true, SeqCst);
        self.gate.set(true);
        *held(&self.store) = None;
    }
}

impl Island {
    pub(crate) fn new(born: u64, skew_ms: Arc<AtomicI64>, dice: Rng) -> anyhow::Result<Self> {
        let wall = Arc::new(Wall { born, start: OnceLock::new(), skew_ms, dice: Mutex::new(dice) });
        let death = Arc::new(Death::default());
        let store: Arc<Mutex<Option<Store>>> = Arc::default();
        let opening = Arc::new(AtomicBool::new(false));
        let metrics: Arc<OnceLock<tokio::runtime::RuntimeMetrics>> = Arc::default();
        let gate = Arc::new(Gate::default());
        let nudge = Arc::new(Notify::new());
        let parked = {
            let (gate, nudge) = (gate.clone(), nudge.clone());
            let (store, opening, metrics, death) = (store.clone(), opening.clone(), metrics.clone(), death.clone());
            move || {
                let Some(metrics) = metrics.get() else { return };
                let busy = || opening.load(SeqCst) || held(&store).as_ref().is_some_and(|store| !store.is_idle());
                if !busy() {
                    return;
                }
                gate.set(true);
                let mut looks = 0u32;
                while busy() && metrics.global_queue_depth() == 0 && !death.is_dead() {
                    looks += 1;
                    // An answer is mostly there at once; on a busy machine the other thread wants its turn.
                    if looks < SPINS {
                        std::hint::spin_loop();
                    } else {
                        std::thread::sleep(Duration::from_micros(20));
                    }
                }
                gate.set(false);
                // The answer is in the queue, and yet the other thread may not have come to wake this one: with something
                // of its own to do, it does not take itself for idle and lets no time pass.
                nudge.notify_one();
            }
        };
        let begun = wall.clone();
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .global_queue_interval(u32::MAX)
            // Timers are looked at only when nothing is ready: how often a task is polled may differ.
            .event_interval(u32::MAX)
            .max_blocking_threads(1)
            .on_thread_start(move || wear(&begun))
            .on_thread_park(parked)
            .build()?;
        let _ = metrics.set(runtime.metrics());
        drop(runtime.spawn(async move {
            loop {
                nudge.notified().await;
            }
        }));
        let start = {
            let _inside = runtime.enter();
            Instant::now()
        };
        let _ = wall.start.set(start);
        Ok(Self { runtime, wall, born, start, death, store, opening, gate })
    }

    /// Does something within the island that waits for nothing.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> T {
        wear(&self.wall);
        let _inside = self.runtime.enter();
        work()
    }

    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        wear(&self.wall);
        drop(self.runtime.spawn(work));
    }

    /// Waits for something that the island does, during which no time passes. None: it died on the way.
    pub(crate) fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        wear(&self.wall);
        let death = self.death.clone();
        let work = self.runtime.spawn(work);
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = death.notify.notified() => None,
                done = work => done.ok(),
            }
        })
    }

    /// The same while the database is opened.
    pub(crate) fn open<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Option<T> {
        self.opening.store(true, SeqCst);
        let opened = self.wait(work);
        self.opening.store(false, SeqCst);
        opened
    }

    /// From now on the island waits for this database.
    pub(crate) fn with_store(&self, store: Store) {
        *held(&self.store) = Some(store);
    }

    /// Lets it go on up to `now`. False: it died.
    pub(crate) fn run_until(&self, now: u64) -> bool {
        wear(&self.wall);
        let until = self.start + Duration::from_millis(now.saturating_sub(self.born));
        let death = self.death.clone();
        self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = death.notify.notified() => false,
                () = tokio::time::sleep_until(until) => true,
            }
        })
    }

    /// What stood still for so long notices it at once.
    pub(crate) fn stood_still_until(&self, now: u64) {
        wear(&self.wall);
        let until = self.start + Duration::from_millis(now.saturating_sub(self.born));
        self.runtime.block_on(async {
            let gap = until.saturating_duration_since(Instant::now());
            tokio::time::advance(gap).await;
        });
    }
}
