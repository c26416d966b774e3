//! The running host: everything opened in order, one listener for REST, the page and the fabric, and a shutdown that
//! loses nothing.

mod connections;
mod plane;

use crate::{
    api, auth,
    blobs::{self, Blobs},
    clock,
    config::Config,
    control::{self, Control, lease},
    drills::{self, Drills},
    fabric::{self, Fabric},
    forward,
    ingest::Otlp,
    plugins::{
        self, Opening, Slots,
        backtest::{self, Backtests, Histories},
        registry::{self, Registry},
        replay::Replays,
    },
    signals,
    snapshots::Desk,
    store::{self, Store},
};
use aether_core::{audit::Act, incident::Rank, plan::canonical, time::Time};
use aether_recorder::Recorder;
use aether_runtime::{CacheKey, Engine};
use axum::Router;
use axum_server::{
    Handle,
    accept::NoDelayAcceptor,
    tls_rustls::{RustlsAcceptor, RustlsConfig},
};
use connections::Connections;
use ed25519_dalek::SigningKey;
use plane::Running;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    net::TcpListener,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use thiserror::Error;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long open connections and tasks may take to end when the host stops.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);
/// How often old segments are looked for.
const RETENTION_EVERY: Duration = Duration::from_secs(60);
/// How often components are looked for that nobody needs any more.
const COLLECT_EVERY: Duration = Duration::from_secs(3_600);

#[derive(Debug, Error)]
pub enum Error {
    #[error("the data folder {path} cannot be used")]
    Data { path: PathBuf, source: io::Error },
    #[error("another server uses the data folder {0}. Stop it first, or choose another with `server.data_dir`")]
    InUse(PathBuf),
    #[error(
        "cannot listen on {address}. If another program has the port, choose one with `server.listen` (`aether up --listen`)"
    )]
    Listen { address: std::net::SocketAddr, source: io::Error },
    #[error("the host's key {path} is not 32 bytes; restore it from a backup: agents trust orders by it alone")]
    Key { path: PathBuf },
    #[error("the TLS certificate or key cannot be used")]
    Tls(#[source] io::Error),
    #[error("the operating system gave no random bytes")]
    Random(#[from] getrandom::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Token(#[from] auth::IssueError),
    #[error(transparent)]
    Recorder(#[from] aether_recorder::Error),
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    #[error(transparent)]
    Engine(#[from] aether_runtime::Error),
    #[error("the slots could not be opened")]
    Slots(#[from] plugins::Error),
    #[error(transparent)]
    Registry(#[from] registry::Error),
    #[error(transparent)]
    Fabric(#[from] fabric::Error),
    #[error(transparent)]
    Forward(#[from] forward::Error),
    #[error("no HTTP client can be made for the feeds of signals")]
    Signals(#[source] reqwest::Error),
    #[error(transparent)]
    Control(#[from] control::Error),
    #[error("something else in this process counts already, so the host cannot")]
    Metrics,
    #[error("another host has taken over; this one has stopped, and waits for its turn if it is started again")]
    Superseded,
    #[error("the listener failed")]
    Serving(#[source] io::Error),
}

impl Error {
    /// A stable code; `docs/errors.md` has a section for each.
    pub fn code(&self) -> &'static str {
        match self {
            Error::InUse(_) => "AE0042",
            Error::Superseded => "AE0088",
            Error::Listen { .. } => "AE0043",
            Error::Data { .. }
            | Error::Key { .. }
            | Error::Tls(_)
            | Error::Random(_)
            | Error::Store(_)
            | Error::Token(_)
            | Error::Recorder(_)
            | Error::Blobs(_)
            | Error::Engine(_)
            | Error::Slots(_)
            | Error::Registry(_)
            | Error::Fabric(_)
            | Error::Forward(_)
            | Error::Signals(_)
            | Error::Control(_)
            | Error::Metrics
            | Error::Serving(_) => "AE0044",
        }
    }
}

/// `client.json` in the data folder: how the CLI of the same user finds this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client {
    pub url: String,
    pub token: String,
}

/// A host that listens.
pub struct Host {
    pub url: String,
    /// The administrator's token, from the data folder.
    pub token: String,
    /// True on the very first start: the token was made just now.
    pub first_start: bool,
    handle: Handle<std::net::SocketAddr>,
    serving: tokio::task::JoinHandle<io::Result<()>>,
    _connections: Connections,
    fabric: Fabric,
    recorder: Recorder,
    store: Store,
    tasks: TaskTracker,
    stop: CancellationToken,
    /// Ends when another host has taken the lease.
    lost: tokio::task::JoinHandle<()>,
    _lock: File,
}

impl Host {
    /// Opens everything and listens. Agents and people can connect when this returns.
    pub async fn start(config: &Config) -> Result<Self, Error> {
        let now = clock::now();
        let data = &config.server.data_dir;
        private_folder(data).map_err(|source| Error::Data { path: data.clone(), source })?;
        let lock = lock(data)?;
        let store = Store::open(&data.join("aether.db")).await?;
        // Nobody is told that this host is there before it drives.
        let store = lease::take(&store, &replica(data)?, config.control.lease_ms).await?;
        let listener = listen(config)?;
        let address = listener.local_addr().map_err(Error::Serving)?;
        let metrics = api::install_metrics().map_err(|_| Error::Metrics)?;
        let (token, first_start) = admin_token(&store, data).await?;
        let segments = aether_recorder::local_store(&data.join("telemetry"))?;
        let recorder = Recorder::open((&config.recorder).into(), segments, now).await?;
        let blobs = Blobs::open(config.snapshots.clone(), &data.join("snapshots")).await?;
        let engine = engine(config)?;
        let registry = Registry::open(data, store.clone(), engine.clone(), config.plugins.clone()).await?;
        let tasks = TaskTracker::new();
        let stop = CancellationToken::new();
        let slots = Slots::open(Opening {
            store: store.clone(),
            registry: registry.clone(),
            bundle: config.policy.bundle_dir.clone(),
            plugins: config.policy.plugins_dir.clone(),
            tasks: tasks.clone(),
        })
        .await?;
        note_rules(&store, config, now).await?;
        let signer = signing_key(&data.join("host.key"))?;
        let (fabric, events) =
            Fabric::open(config.fabric.clone(), store.clone(), recorder.clone(), blobs.clone(), signer).await?;
        let components = control::Components::new(
            slots.clone(),
            store.clone(),
            recorder.clone(),
            config.control.evaluations,
            tasks.clone(),
            stop.clone(),
        );
        let control = Control::start(
            control::Parts {
                settings: config.control.clone(),
                posture: config.posture.clone(),
                hysteresis: config.hysteresis.clone(),
                guard: config.guard.clone(),
                breakers: config.breakers.clone(),
                store: store.clone(),
                recorder: recorder.clone(),
                fabric: fabric.clone(),
                panels: Arc::new(components),
            },
            events,
            tasks.clone(),
            stop.clone(),
        )
        .await?;
        let lost = tasks.spawn(lease::keep(store.clone(), config.control.lease_ms, stop.clone()));
        forward::start(&config.telemetry, &recorder, &tasks, &stop)?;
        signals::start(&config.signals, &recorder, &tasks, &stop).map_err(Error::Signals)?;
        tasks.spawn(seal(recorder.clone(), stop.clone()));
        tasks.spawn(compact(recorder.clone(), stop.clone()));
        tasks.spawn(control::evidence::keep(store.clone(), recorder.clone(), stop.clone()));
        tasks.spawn(collect(registry.clone(), stop.clone()));
        let snapshots = Desk::new(blobs, fabric.clone(), store.clone(), tasks.clone());
        tasks.spawn(snapshots.clone().keep(stop.clone()));
        let histories = Histories::open(data, store.clone())
            .map_err(|source| Error::Data { path: data.join("histories"), source })?;
        let backtests = Backtests::open(backtest::Parts {
            store: store.clone(),
            recorder: recorder.clone(),
            registry: registry.clone(),
            slots: slots.clone(),
            histories,
            hysteresis: config.hysteresis.clone(),
            tick_ms: config.control.tick_ms,
            tasks: tasks.clone(),
            stop: stop.clone(),
        })
        .await?;
        let proofs = api::Proofs { replays: Replays::new(store.clone(), registry.clone()), backtests };
        let drills = Drills::open(drills::Parts {
            store: store.clone(),
            recorder: recorder.clone(),
            fabric: fabric.clone(),
            control: control.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        })
        .await?;
        let plugins_dir = config.policy.plugins_dir.clone();
        let plane = Arc::new(Running {
            store: store.clone(),
            fabric: fabric.clone(),
            control,
            slots,
            plugins_dir,
            proofs,
            snapshots,
            drills,
        });
        let app = api::App::new(api::Parts {
            store: store.clone(),
            recorder: recorder.clone(),
            registry,
            plane,
            posture: config.posture.clone(),
            secure: config.tls().is_some(),
            metrics: Some(metrics),
            stop: stop.clone(),
            tasks: tasks.clone(),
        });
        // A session's stream lasts: no time or body limit of the API lies before it.
        let otlp = Otlp::new(config.otlp.clone(), store.clone(), recorder.clone());
        let router = Router::new()
            .route_service("/aether.v1.Fabric/{*method}", fabric.service())
            .merge(otlp.router())
            .fallback_service(app.router());
        let handle = Handle::new();
        let connections = Connections::new().map_err(Error::Serving)?;
        let serving = serve(config, listener, handle.clone(), router, &connections).await?;
        let url = config.url(address);
        write_private(&data.join("client.json"), &client_json(&url, &token))
            .map_err(|source| Error::Data { path: data.clone(), source })?;
        Ok(Self {
            url,
            token,
            first_start,
            handle,
            serving,
            fabric,
            recorder,
            store,
            tasks,
            stop,
            lost,
            _connections: connections,
            _lock: lock,
        })
    }

    /// Serves until `until` is done, then stops: agents are told, what is unsealed is sealed, tasks are waited for.
    pub async fn run(mut self, until: impl Future<Output = ()>) -> Result<(), Error> {
        let mut superseded = false;
        let failed = tokio::select! {
            () = until => None,
            ended = &mut self.serving => Some(ended),
            _ = &mut self.lost => {
                superseded = true;
                None
            }
        };
        tracing::info!("stopping");
        self.stop.cancel();
        self.fabric.drain("the host is stopping").await;
        self.handle.graceful_shutdown(Some(SHUTDOWN_LIMIT));
        let ended = match failed {
            Some(ended) => ended,
            None => (&mut self.serving).await,
        };
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN_LIMIT, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks did not end in time; what they had promised is done at the next start");
        }
        if let Err(error) = self.recorder.seal(clock::now()).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the last telemetry was not sealed; agents send it again"
            );
        }
        if let Err(error) = self.store.give_lease_back().await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "another host has to wait until the lease is over"
            );
        }
        self.store.close().await;
        if superseded {
            return Err(Error::Superseded);
        }
        ended.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(Error::Serving)
    }
}

fn client_json(url: &str, token: &str) -> Vec<u8> {
    let client = Client { url: url.into(), token: token.into() };
    serde_json::to_vec_pretty(&client).unwrap_or_default()
}

/// One server at a time: two would both believe the ledger theirs.
fn lock(data: &Path) -> Result<File, Error> {
    let path = data.join("lock");
    let unusable = |source| Error::Data { path: data.to_owned(), source };
    let file = File::options().create(true).truncate(false).write(true).open(path).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::InUse(data.to_owned())),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

fn listen(config: &Config) -> Result<TcpListener, Error> {
    let address = config.server.listen;
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

async fn serve(
    config: &Config,
    listener: TcpListener,
    handle: Handle<std::net::SocketAddr>,
    router: Router,
    connections: &Connections,
) -> Result<tokio::task::JoinHandle<io::Result<()>>, Error> {
    let service = router.into_make_service();
    // A small frame behind another would else wait until the other is acknowledged, up to 40 ms, and a workload that moves
    // stands still for it.
    let at_once = NoDelayAcceptor::new();
    Ok(match config.tls() {
        None => {
            let server = axum_server::from_tcp(listener).map_err(Error::Serving)?.handle(handle);
            connections.spawn(server.acceptor(at_once).serve(service))
        }
        Some((certificate, key)) => {
            // The only failure is that another was chosen before, and that one serves as well.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let tls = RustlsConfig::from_pem_file(certificate, key).await.map_err(Error::Tls)?;
            let tls = RustlsAcceptor::new(tls).acceptor(at_once);
            let server = axum_server::from_tcp(listener).map_err(Error::Serving)?.handle(handle);
            connections.spawn(server.acceptor(tls).serve(service))
        }
    })
}

fn engine(config: &Config) -> Result<Engine, Error> {
    let data = &config.server.data_dir;
    let key = CacheKey(code_key(&data.join("code.key"))?);
    Ok(Engine::new(config.runtime.engine(data.join("code"), key))?)
}

/// The administrator's token: made on the first start, kept in the data folder for its owner alone.
async fn admin_token(store: &Store, data: &Path) -> Result<(String, bool), Error> {
    let path = data.join("admin.token");
    if let Ok(token) = fs::read_to_string(&path) {
        return Ok((token.trim().to_string(), false));
    }
    let (token, _) = auth::issue(store, "first administrator", Rank::Admin, "aether", clock::now(), None).await?;
    write_private(&path, format!("{token}\n").as_bytes()).map_err(|source| Error::Data { path, source })?;
    Ok((token, true))
}

/// What of the configuration decides over actions is in the audit: at the first start, and whenever it has changed.
async fn note_rules(store: &Store, config: &Config, now: Time) -> Result<(), store::Error> {
    const ACTION: &str = "config.apply";
    let rules = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let sections = [
        ("posture", rules(canonical(&config.posture))),
        ("hysteresis", rules(canonical(&config.hysteresis))),
        ("guard", rules(canonical(&config.guard))),
        ("breakers", rules(canonical(&config.breakers))),
        ("control", rules(canonical(&config.control))),
        ("policy", rules(canonical(&config.policy))),
    ];
    let last = store.last_audited(ACTION).await?;
    let before = |name: &str| last.as_ref().and_then(|entry| entry.detail.get(name));
    let changed: Vec<&str> =
        sections.iter().filter(|(name, text)| before(name) != Some(text)).map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Ok(());
    }
    let mut detail: BTreeMap<String, String> =
        sections.iter().map(|(name, text)| ((*name).to_owned(), text.clone())).collect();
    detail.insert("changed".into(), changed.join(", "));
    store.audit(now, Act::by_itself(ACTION, "host".into(), detail)).await?;
    Ok(())
}

/// What orders are signed with. Agents pin its public half when they join.
fn signing_key(path: &Path) -> Result<SigningKey, Error> {
    match read_secret(path)? {
        Some(bytes) => {
            let bytes = bytes.try_into().map_err(|_| Error::Key { path: path.to_owned() })?;
            Ok(SigningKey::from_bytes(&bytes))
        }
        None => Ok(SigningKey::from_bytes(&new_secret(path)?)),
    }
}

/// What compiled code is sealed with. Losing it costs compiling anew, so one that will not do is made anew as well.
pub(crate) fn code_key(path: &Path) -> Result<[u8; 32], Error> {
    match read_secret(path)?.and_then(|bytes| bytes.try_into().ok()) {
        Some(key) => Ok(key),
        None => new_secret(path),
    }
}

fn read_secret(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Data { path: path.to_owned(), source }),
    }
}

/// By what name this host has the lease: its data folder's own, which one server at a time uses.
fn replica(data: &Path) -> Result<String, Error> {
    let path = data.join("replica");
    if let Ok(name) = fs::read_to_string(&path) {
        return Ok(name);
    }
    let name = clock::id("host");
    write_private(&path, name.as_bytes()).map_err(|source| Error::Data { path, source })?;
    Ok(name)
}

fn new_secret(path: &Path) -> Result<[u8; 32], Error> {
    let bytes = clock::secret::<32>()?;
    write_private(path, &bytes).map_err(|source| Error::Data { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// For its owner alone: the database and the telemetry say much about a fleet.
fn private_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o700))
}

/// Written whole or not at all, and readable by the owner alone.
fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    let mut file = File::options().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)
}

/// Seals when it is time or when the recorder wants it, and forgets what is too old. A failure is tried again.
async fn seal(recorder: Recorder, stop: CancellationToken) {
    let mut seals = tokio::time::interval(Duration::from_millis(recorder.settings().seal_interval_ms));
    seals.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut retention = tokio::time::interval(RETENTION_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = retention.tick() => {
                if let Err(error) = recorder.enforce_retention(clock::now()).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "old telemetry could not be removed");
                }
                continue;
            }
            _ = seals.tick() => {}
            () = recorder.seal_wanted() => {}
        }
        if let Err(error) = recorder.seal(clock::now()).await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "telemetry could not be sealed; it is kept and tried again, and agents keep their copies"
            );
        }
    }
}

/// Merges segments that lie beside each other, in a bounded share of the time. A failure is tried again.
async fn compact(recorder: Recorder, stop: CancellationToken) {
    let settings = recorder.settings();
    let interval = Duration::from_millis(settings.compact_interval_ms);
    let share = settings.compact_share_percent.max(1);
    let mut pause = interval;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let began = tokio::time::Instant::now();
        pause = interval;
        // Cut off by a stop it is as after a crash: the originals stand, or the merged one does.
        let done = tokio::select! {
            () = stop.cancelled() => return,
            done = recorder.compact(clock::now()) => done,
        };
        match done {
            Ok(done) if done.segments == 0 => {}
            Ok(done) => {
                tracing::debug!(
                    segments = done.segments,
                    bytes.before = done.bytes_before,
                    bytes.after = done.bytes_after,
                    "segments are merged"
                );
                // There may be more; what this one took is its share.
                pause = began.elapsed() * (100 - share.min(100)) / share;
            }
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "segments could not be merged; they stay as they are"
            ),
        }
    }
}

/// Lets go the components and assets that the policy lets go. A failure is tried again.
async fn collect(registry: Registry, stop: CancellationToken) {
    let mut rounds = tokio::time::interval(COLLECT_EVERY);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        match registry.collect_garbage(clock::now(), false).await {
            Ok(removed) => {
                for one in removed {
                    tracing::info!(plugin.digest = %one.digest, name = one.name, version = one.version, why = ?one.why, "removed from the registry");
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the registry could not be tidied");
            }
        }
    }
}
