//! A host: the real driver, fabric, store, recorder and lease, on an island of its own. Two hosts share one database.

use crate::{
    dice::{Rng, happens},
    faults::Fault,
    island::{Death, Gate, Island},
    minds::{Minds, Rules},
    mutations,
    net::{HostId, pump},
    node::{self, Node},
    people,
    shared::{Mutation, Shared},
};
use aether_core::{
    breaker, catalogue::SafetyClass, finding::Hysteresis, guard::GuardLimits, policy::Posture, time::Time,
};
use aether_host::{
    blobs::{self, Blobs},
    clock,
    control::{self, Control, lease},
    fabric::{self, Fabric},
    store::{self, Store},
};
use aether_recorder::Recorder;
use anyhow::Context as _;
use object_store::memory::InMemory;
use sqlx::sqlite::SqlitePoolOptions;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::SeqCst},
    },
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// A host that has not renewed its lease for so long has lost it.
const LEASE_MS: u64 = 3_000;
/// That a link is dead an agent hears from its kernel, which is not in this world: by heartbeats, then, and so soon that a run
/// comes to something.
const HOST_HEARTBEAT_MS: u64 = 2_000;

/// What is meant to happen to the database of one life: at which use of it the host dies, whether it takes writes, and
/// how many commits fail.
pub(crate) struct Base {
    dies_in: Mutex<Option<u64>>,
    /// At which order it dies, when all is written and nothing is sent.
    dies_sending: Mutex<Option<u64>>,
    refuses: AtomicBool,
    fails: AtomicU64,
    death: Arc<Death>,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    host: HostId,
}

fn counted_down(left: &Mutex<Option<u64>>) -> bool {
    match &mut *left.lock().unwrap_or_else(PoisonError::into_inner) {
        Some(0) => true,
        Some(count) => {
            *count -= 1;
            false
        }
        None => false,
    }
}

impl Base {
    /// Before each use of the database.
    async fn used(&self, connection: &mut sqlx::SqliteConnection) -> Result<bool, sqlx::Error> {
        if counted_down(&self.dies_in) && !self.shared.is_quiet() {
            self.shared.fault(Fault::HostDiedWriting, format!("host {} at a use of the database", self.host.0));
            self.death.die().await;
        }
        let pragma = if self.refuses.load(SeqCst) { "PRAGMA query_only = 1" } else { "PRAGMA query_only = 0" };
        sqlx::query(pragma).execute(connection).await?;
        Ok(true)
    }

    /// Whether a commit may succeed.
    fn commits(&self) -> bool {
        let failing = self.fails.load(SeqCst);
        if failing == 0 || self.shared.is_quiet() {
            return true;
        }
        self.fails.store(failing - 1, SeqCst);
        self.shared.fault(Fault::DatabaseConflict, format!("host {}", self.host.0));
        false
    }

    /// Before an order is on its way.
    pub(crate) async fn before_dispatch(&self) {
        if counted_down(&self.dies_sending) && !self.shared.is_quiet() {
            self.shared.fault(Fault::HostDiedUndispatched, format!("host {}", self.host.0));
            self.death.die().await;
        }
    }
}

/// What runs in a host that drives.
#[derive(Clone)]
struct Parts {
    recorder: Recorder,
    fabric: Fabric,
    control: Control,
}

pub(crate) struct Host {
    pub id: HostId,
    /// Of the two machines that hosts run on.
    pub place: usize,
    shared: Arc<Shared>,
    island: Island,
    store: Store,
    /// Once it has the lease.
    parts: Arc<OnceLock<Parts>>,
    base: Arc<Base>,
    dice: Rng,
    /// It stands still until then, and then goes on beside whoever took over.
    pub still_until: Option<u64>,
    /// The database takes no writes until then.
    refuses_until: Option<u64>,
    /// Of each node, how much of what it sampled has come here.
    taken: BTreeMap<usize, u64>,
}

/// How a start went.
pub(crate) enum Started {
    Up(Box<Host>),
    Died,
}

impl Host {
    /// Starts a host on one of two machines. It drives once it has the lease.
    pub(crate) fn start(
        (id, place): (HostId, usize),
        shared: Arc<Shared>,
        database: &Path,
        skew_ms: Arc<AtomicI64>,
        rules: Rules,
        mut dice: Rng,
    ) -> anyhow::Result<Started> {
        let island = Island::new(shared.now(), skew_ms, dice.fork())?;
        let mut aim = |fault, most| {
            let dies = !shared.is_quiet() && happens(&mut dice, shared.odds.get(fault));
            Mutex::new(dies.then(|| dice.u64(0..most)))
        };
        let base = Arc::new(Base {
            dies_in: aim(Fault::HostDiedWriting, 300),
            dies_sending: aim(Fault::HostDiedUndispatched, 3),
            refuses: AtomicBool::new(false),
            fails: AtomicU64::new(0),
            death: island.death.clone(),
            gate: island.gate.clone(),
            shared: shared.clone(),
            host: id,
        });
        let minds = Arc::new(Minds::new(shared.clone(), rules, dice.fork()));
        let Some(connected) = island.open(connect(database.to_owned(), base.clone())) else {
            return Ok(Started::Died);
        };
        let store = connected.context("a host could not open its database")?;
        island.with_store(store.clone());
        let parts = Arc::new(OnceLock::new());
        island.spawn(drive(Life {
            id,
            place,
            shared: shared.clone(),
            store: store.clone(),
            minds,
            rules,
            parts: parts.clone(),
            death: island.death.clone(),
        }));
        shared.note(format!("host {} begins on the machine {place}", id.0));
        let (still_until, refuses_until, taken) = (None, None, BTreeMap::new());
        Ok(Started::Up(Box::new(Self {
            id,
            place,
            shared,
            island,
            store,
            parts,
            base,
            dice,
            still_until,
            refuses_until,
            taken,
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

    /// Whether it drives, as far as it knows itself.
    pub(crate) fn drives(&self) -> bool {
        self.parts.get().is_some()
    }

    pub(crate) fn refuse_writes(&mut self, until: u64) {
        self.refuses_until = Some(until);
        self.base.refuses.store(true, SeqCst);
    }

    pub(crate) fn fail_commits(&self, count: u64) {
        self.base.fails.store(count, SeqCst);
    }

    /// A stream that an agent has opened. False: nobody listens.
    pub(crate) fn take_in(&self, stream: u64) -> bool {
        let Some(parts) = self.parts.get() else { return false };
        let Some(inbound) = self.shared.net().taken_in(stream) else { return true };
        let frames = self.island.inside(|| parts.fabric.serve(inbound));
        self.island.spawn(pump(self.shared.clone(), stream, self.base.clone(), frames));
        true
    }

    /// What a node's spool holds and this host has not had.
    pub(crate) fn telemetry(&mut self, number: usize, node: &Node) {
        let Some(parts) = self.parts.get() else { return };
        let now = self.island.inside(clock::now);
        let taken = match self.taken.get(&number) {
            Some(taken) => *taken,
            None => {
                let again = happens(&mut self.dice, self.shared.odds.get(Fault::TelemetryAgain));
                let again = again && !self.shared.is_quiet() && node.sampled() > 30;
                if again {
                    self.shared.fault(Fault::TelemetryAgain, format!("of node {number} to host {}", self.id.0));
                }
                if again { 0 } else { node.sampled().saturating_sub(1) }
            }
        };
        for batch in node.spooled(taken) {
            let mut batch = batch.clone();
            if self.shared.is_broken(Mutation::Restamps) {
                let stamp = |at: &mut Time| *at = now.minus_ms(node.sampled() - batch.sequence);
                let mut rows = batch.series.rows();
                rows.iter_mut().flat_map(|series| &mut series.samples).for_each(|sample| stamp(&mut sample.at));
                batch.series = rows.into();
            }
            // A batch that is not taken is one more that is missing.
            drop(parts.recorder.append(batch, now));
        }
        self.taken.insert(number, node.sampled());
    }

    /// Somebody looks at what waits for people.
    pub(crate) fn people_look(&mut self) {
        let Some(parts) = self.parts.get() else { return };
        let look = people::look(self.shared.clone(), parts.control.clone(), self.store.clone(), self.dice.fork());
        self.island.spawn(look);
    }

    /// Asks the database, while nothing else happens. None: it died.
    pub(crate) fn ask<T: Send + 'static, F: Future<Output = T> + Send + 'static>(
        &self,
        question: impl FnOnce(Store) -> F,
    ) -> Option<T> {
        self.island.wait(question(self.store.clone()))
    }
}

/// What one life of a host is made of.
struct Life {
    id: HostId,
    place: usize,
    shared: Arc<Shared>,
    store: Store,
    minds: Arc<Minds>,
    rules: Rules,
    parts: Arc<OnceLock<Parts>>,
    death: Arc<Death>,
}

/// As the server does it: waits for the lease, opens everything, and ends when another has the lease.
async fn drive(life: Life) {
    let Life { id, place, shared, store, minds, rules, parts, death } = life;
    let driven = async {
        let leased = lease::take(&store, &format!("host-{place}"), LEASE_MS).await?;
        shared.note(format!("host {} drives under the lease {}", id.0, leased.lease()));
        {
            let mut world = shared.world();
            world.lease = world.lease.max(leased.lease());
        }
        let broken = shared.is_broken(Mutation::HostIgnoresLease);
        let opened = open(leased.clone(), if broken { store } else { leased.clone() }, minds, rules).await?;
        if parts.set(opened).is_ok() {
            shared.net().host_is_up(id);
        }
        lease::keep(leased, LEASE_MS, CancellationToken::new()).await;
        if broken {
            std::future::pending::<()>().await;
        }
        Ok::<_, anyhow::Error>(())
    };
    match driven.await {
        Ok(()) => shared.note(format!("host {} has lost the lease, and ends", id.0)),
        Err(error) => shared.note(format!("host {} could not start: {error:#}", id.0)),
    }
    death.die().await;
}

async fn open(store: Store, orders: Store, minds: Arc<Minds>, rules: Rules) -> anyhow::Result<Parts> {
    let recorder =
        Recorder::open(aether_recorder::Settings::default(), Arc::new(InMemory::new()), clock::now()).await?;
    let blobs = Blobs::with_store(blobs::Settings::default(), Arc::new(InMemory::new())).await?;
    let settings = fabric::Settings { host_heartbeat_ms: HOST_HEARTBEAT_MS, ..fabric::Settings::default() };
    let (fabric, events) = Fabric::open(settings, orders, recorder.clone(), blobs, mutations::signer()).await?;
    let parts = control::Parts {
        settings: control::Settings {
            grace_ms: 3_000,
            begin_within_ms: 8_000,
            lease_ms: LEASE_MS,
            ..control::Settings::default()
        },
        posture: Posture {
            dry_run: false,
            approval_required: rules.approvers.is_some() && !minds.asks_nobody(),
            highest_live_class: SafetyClass::Destructive,
            least_confidence_percent: 50,
            demands: Default::default(),
        },
        hysteresis: Hysteresis::default(),
        // Tight enough to be hit.
        breakers: breaker::Limits {
            fleet: breaker::Limit { count: 5, percent: 100 },
            window_ms: 60_000,
            ..breaker::Limits::default()
        },
        guard: GuardLimits {
            concurrent: 3,
            attempts: 4,
            attempt_window_ms: 60_000,
            cooldown_ms: 5_000,
            attempts_per_rung: 4,
        },
        store,
        recorder: recorder.clone(),
        fabric: fabric.clone(),
        panels: minds,
    };
    let control = Control::start(parts, events, TaskTracker::new(), CancellationToken::new()).await?;
    Ok(Parts { recorder, fabric, control })
}

/// One connection, so that one statement is under way at a time.
async fn connect(database: PathBuf, base: Arc<Base>) -> anyhow::Result<Store> {
    let pool = SqlitePoolOptions::new()
        .max_connections(1)
        .test_before_acquire(false)
        .idle_timeout(None)
        .max_lifetime(None)
        .after_connect({
            let base = base.clone();
            move |connection, _| {
                let (gate, base) = (base.gate.clone(), base.clone());
                Box::pin(async move {
                    // Called at the end of every statement at the latest.
                    let mut handle = connection.lock_handle().await?;
                    handle.set_progress_handler(1, move || {
                        gate.pass();
                        true
                    });
                    handle.set_commit_hook(move || base.commits());
                    Ok(())
                })
            }
        })
        // The pool looks at a connection that comes back by a ping, which is no statement: so one is put before it.
        .after_release(|connection, _| {
            Box::pin(async move {
                {
                    let statement = std::pin::pin!(sqlx::query("SELECT 1").execute(&mut *connection));
                    drop(futures::poll!(statement));
                }
                store::is_sound(connection).await
            })
        })
        .before_acquire(move |connection, _| {
            let base = base.clone();
            Box::pin(async move { base.used(connection).await })
        });
    Ok(Store::open_with(&database, pool).await?)
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
