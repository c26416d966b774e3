//! A replica of the host: the real driver, fabric, store and recorder, on an island of its own. Replicas share one
//! database.

use crate::{
    dice::{Rng, happens},
    faults::Fault,
    island::{Death, Gate, Island},
    minds::{Minds, Rules},
    net::{HostId, pump},
    node, people,
    shared::Shared,
};
use aether_core::{
    breaker, catalogue::SafetyClass, finding::Hysteresis, guard::GuardLimits, policy::Posture, telemetry::Batch,
    time::Time,
};
use aether_host::{
    blobs::{self, Blobs},
    clock,
    control::{self, Control},
    fabric::{self, Fabric},
    store::Store,
};
use aether_recorder::Recorder;
use anyhow::Context as _;
use object_store::memory::InMemory;
use sqlx::sqlite::SqlitePoolOptions;
use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering::SeqCst},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// What is meant to happen to the database of one life: at which use of it the host dies, and whether it takes writes.
struct Base {
    dies_in: Mutex<Option<u64>>,
    refuses: AtomicBool,
    death: Arc<Death>,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    host: HostId,
}

impl Base {
    /// Before each use of the database.
    async fn used(&self, connection: &mut sqlx::SqliteConnection) -> Result<bool, sqlx::Error> {
        let dies = {
            let mut left = self.dies_in.lock().unwrap_or_else(PoisonError::into_inner);
            match &mut *left {
                Some(0) => true,
                Some(count) => {
                    *count -= 1;
                    false
                }
                None => false,
            }
        };
        if dies && !self.shared.is_quiet() {
            self.shared.fault(Fault::HostDied, format!("host {} at a use of the database", self.host.0));
            self.death.die().await;
        }
        let pragma = if self.refuses.load(SeqCst) { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" };
        sqlx::query(pragma).execute(connection).await?;
        Ok(true)
    }
}

/// What runs in a replica.
#[derive(Clone)]
struct Parts {
    store: Store,
    recorder: Recorder,
    fabric: Fabric,
    control: Control,
}

pub(crate) struct Host {
    pub id: HostId,
    shared: Arc<Shared>,
    island: Island,
    parts: Parts,
    base: Arc<Base>,
    dice: Rng,
    /// It stands still until then, and then goes on beside whoever took over.
    pub still_until: Option<u64>,
    /// The database takes no writes until then.
    refuses_until: Option<u64>,
}

/// How a start went.
pub(crate) enum Started {
    Up(Box<Host>),
    Died,
}

impl Host {
    pub(crate) fn start(
        id: HostId,
        shared: Arc<Shared>,
        database: &Path,
        skew_ms: Arc<AtomicI64>,
        rules: Rules,
        mut dice: Rng,
    ) -> anyhow::Result<Started> {
        let island = Island::new(shared.now(), skew_ms, dice.fork())?;
        let dies = !shared.is_quiet() && happens(&mut dice, shared.odds.get(Fault::HostDied) * 10.0);
        let base = Arc::new(Base {
            dies_in: Mutex::new(dies.then(|| dice.u64(10..400))),
            refuses: AtomicBool::new(false),
            death: island.death.clone(),
            gate: island.gate.clone(),
            shared: shared.clone(),
            host: id,
        });
        let minds = Arc::new(Minds::new(shared.clone(), rules, dice.fork()));
        let started = island.open(open(database.to_owned(), base.clone(), minds, rules));
        let Some(started) = started else { return Ok(Started::Died) };
        let parts = started.context("a host could not start")?;
        island.with_store(parts.store.clone());
        shared.net().host_is_up(id);
        shared.note(format!("host {} is up", id.0));
        Ok(Started::Up(Box::new(Self {
            id,
            shared,
            island,
            parts,
            base,
            dice,
            still_until: None,
            refuses_until: None,
        })))
    }

    /// Lets it go on up to `now`. False: it died.
    pub(crate) fn run_until(&mut self, now: u64) -> bool {
        match self.still_until {
            Some(until) if until > now => return true,
            Some(_) => {
                self.still_until = None;
                self.shared.note(format!("host {} wakes up", self.id.0));
                self.island.stood_still_until(now);
            }
            None => {}
        }
        if self.refuses_until.is_some_and(|until| until <= now) {
            self.refuses_until = None;
            self.base.refuses.store(false, SeqCst);
        }
        self.island.run_until(now)
    }

    pub(crate) fn refuse_writes(&mut self, until: u64) {
        self.refuses_until = Some(until);
        self.base.refuses.store(true, SeqCst);
    }

    /// A stream that an agent has opened.
    pub(crate) fn take_in(&self, stream: u64) {
        let Some(inbound) = self.shared.net().taken_in(stream) else { return };
        let frames = self.island.inside(|| self.parts.fabric.serve(inbound));
        self.island.spawn(pump(self.shared.clone(), stream, frames));
    }

    pub(crate) fn telemetry(&self, batch: Batch) {
        let now = self.island.inside(clock::now);
        // A batch that is not taken is one more that is missing.
        drop(self.parts.recorder.append(batch, now));
    }

    /// Somebody looks at what waits for people.
    pub(crate) fn people_look(&mut self) {
        let look =
            people::look(self.shared.clone(), self.parts.control.clone(), self.parts.store.clone(), self.dice.fork());
        self.island.spawn(look);
    }

    /// Asks the database, while nothing else happens. None: it died.
    pub(crate) fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        question: impl FnOnce(Store) -> F,
    ) -> Option<T> {
        self.island.wait(question(self.parts.store.clone()))
    }
}

async fn open(database: PathBuf, base: Arc<Base>, minds: Arc<Minds>, rules: Rules) -> anyhow::Result<Parts> {
    let store = connect(&database, base).await?;
    let recorder =
        Recorder::open(aether_recorder::Settings::default(), Arc::new(InMemory::new()), clock::now()).await?;
    let blobs = Blobs::with_store(blobs::Settings::default(), Arc::new(InMemory::new())).await?;
    let signer = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let (fabric, events) =
        Fabric::open(fabric::Settings::default(), store.clone(), recorder.clone(), blobs, signer).await?;
    let parts = control::Parts {
        settings: control::Settings { grace_ms: 3_000, begin_within_ms: 8_000, ..control::Settings::default() },
        posture: Posture {
            dry_run: false,
            approval_required: rules.approvers.is_some(),
            highest_live_class: SafetyClass::Destructive,
            least_confidence_percent: 50,
            demands: Default::default(),
        },
        hysteresis: Hysteresis::default(),
        // Tight enough to be hit.
        breakers: breaker::Limits {
            fleet: breaker::Limit { count: 3, percent: 100 },
            window_ms: 60_000,
            ..breaker::Limits::default()
        },
        guard: GuardLimits {
            concurrent: 2,
            attempts: 3,
            attempt_window_ms: 60_000,
            cooldown_ms: 10_000,
            ..GuardLimits::default()
        },
        store: store.clone(),
        recorder: recorder.clone(),
        fabric: fabric.clone(),
        panels: minds,
    };
    let control = Control::start(parts, events, TaskTracker::new(), CancellationToken::new()).await?;
    Ok(Parts { store, recorder, fabric, control })
}

/// One connection, so that one statement is under way at a time.
async fn connect(database: &Path, base: Arc<Base>) -> anyhow::Result<Store> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect({
            let gate = base.gate.clone();
            move |connection, _| {
                let gate = gate.clone();
                Box::pin(async move {
                    // Called at the end of every statement at the latest.
                    connection.lock_handle().await?.set_progress_handler(1, move || {
                        gate.pass();
                        true
                    });
                    Ok(())
                })
            }
        })
        // The pool looks at a connection that comes back by a ping, which is no statement: so one is put before it.
        .after_release(|connection, _| {
            Box::pin(async move {
                let statement = std::pin::pin!(sqlx::query("SELECT 1").execute(connection));
                drop(futures::poll!(statement));
                Ok(true)
            })
        })
        .before_acquire(move |connection, _| {
            let base = base.clone();
            Box::pin(async move { base.used(connection).await })
        });
    Ok(Store::open_with(database, pool).await?)
}

/// An empty database with the schema, and a join token for each node, each bound to its name.
pub(crate) fn template(database: &Path, nodes: usize) -> anyhow::Result<Vec<String>> {
    let island = Island::new(0, Arc::default(), crate::dice::dice(0, "template"))?;
    let database = database.to_owned();
    let made = island.open(async move {
        let store = Store::open_with(&database, SqlitePoolOptions::new().max_connections(1)).await?;
        let mut tokens = Vec::new();
        for number in 0..nodes {
            let forever = Time(i64::MAX / 2);
            tokens.push(store.create_join_token(Some(&node::id(number)), forever).await?);
        }
        store.close().await;
        Ok::<_, anyhow::Error>(tokens)
    });
    made.context("the template of the database was not made")?
}
