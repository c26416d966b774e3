//! What people and programs call: REST under `/api/v1`, server-sent events, health, metrics and the web page.
//!
//! Every endpoint of `/api/v1` stands in one table ([`table::table`]) with the rank it needs; the router, the OpenAPI
//! document and the test that calls each without a token are made from it. Errors are problem documents ([`Error`]).
//!
//! Deliberately absent: any decision. Handlers check who asks and what was sent, and hand on to the store, the recorder
//! and the [`Plane`].

#![allow(unused_qualifications, reason = "what utoipa makes of `params(..)`")]

mod access;
mod admin;
mod agent_config;
mod backtests;
mod break_glass;
mod breakers;
mod cordons;
mod dead_letters;
mod drills;
mod error;
mod events;
mod exports;
mod extract;
mod fleet;
mod gates;
mod health;
mod incidents;
mod page;
mod plane;
mod plugins;
mod registry;
mod requests;
mod session;
mod signals;
mod slots;
mod snapshots;
mod table;
pub mod view;

pub use error::{CODES, Error, Problem};
pub use events::STREAMS_MAXIMUM;
pub use extract::BODY_LIMIT_BYTES;
pub use health::install_metrics;
pub use plane::{Check, Deed, NotDecided, Plane, Proofs, Word};
pub use registry::SIGNATURE_HEADER;
pub use table::{Endpoint, endpoints, openapi};

use crate::{clock, plugins::registry::Registry, store::Store};
use aether_core::{policy::Posture, time::Time};
use aether_recorder::Recorder;
use axum::{
    Router,
    extract::{DefaultBodyLimit, Request},
    http::{HeaderName, HeaderValue, Method, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use metrics_exporter_prometheus::PrometheusHandle;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::{catch_panic::CatchPanicLayer, compression::CompressionLayer};

/// How long a request may take. Event streams are counted until they begin.
const REQUEST_LIMIT_MS: u64 = 30_000;
/// How long one may take that brings something in (a component on a slow line, and the compiler after it), or that reads
/// a whole snapshot.
const UPLOAD_LIMIT_MS: u64 = 600_000;
const UPLOADS: [&str; 3] = ["/api/v1/plugins", "/api/v1/plugins/pull", "/api/v1/assets"];

/// What the API is made from.
pub struct Parts {
    pub store: Store,
    pub recorder: Recorder,
    pub registry: Registry,
    pub plane: Arc<dyn Plane>,
    pub posture: Posture,
    /// Whether callers come by TLS: cookies are then for TLS alone.
    pub secure: bool,
    pub metrics: Option<PrometheusHandle>,
    /// Cancelled when the host stops: event streams end.
    pub stop: CancellationToken,
    pub tasks: TaskTracker,
}

/// The API's state, shared by all requests.
#[derive(Clone)]
pub struct App(Arc<Inner>);

struct Inner {
    parts: Parts,
    started_at: Time,
    signals: signals::Feeder,
    events: events::Hub,
    failed_sign_ins: session::FailedSignIns,
}

impl App {
    pub fn new(parts: Parts) -> Self {
        let now = clock::now();
        let app = Self(Arc::new(Inner {
            started_at: now,
            signals: signals::Feeder::new(now),
            events: events::Hub::default(),
            failed_sign_ins: session::FailedSignIns::default(),
            parts,
        }));
        events::watch(&app);
        app
    }

    fn store(&self) -> &Store {
        &self.0.parts.store
    }

    fn recorder(&self) -> &Recorder {
        &self.0.parts.recorder
    }

    fn registry(&self) -> &Registry {
        &self.0.parts.registry
    }

    fn plane(&self) -> &dyn Plane {
        self.0.parts.plane.as_ref()
    }

    /// All that this host serves over HTTP, but for what other protocols are merged with it.
    pub fn router(&self) -> Router {
        let api = table::router(self)
            .fallback(|| async { Error::NoEndpoint })
            .method_not_allowed_fallback(|| async { Error::Method });
        let router = Router::new()
            .nest("/api/v1", api)
            .route("/api", axum::routing::any(|| async { Error::NoEndpoint }))
            .route("/api/{*rest}", axum::routing::any(|| async { Error::NoEndpoint }))
            .merge(health::router())
            .fallback(page::serve)
            .with_state(self.clone());
        // The last is the outermost.
        router
            .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
            .layer(middleware::from_fn(in_time))
            .layer(CompressionLayer::new())
            .layer(middleware::map_response(headers))
            .layer(CatchPanicLayer::custom(|_: Box<dyn std::any::Any + Send>| Error::Internal.into_response()))
    }
}

/// A request that takes too long ends as a problem document.
async fn in_time(request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let reads_all = path.starts_with("/api/v1/snapshots/") && path.ends_with("/verify");
    let brings = request.method() == Method::POST && (UPLOADS.contains(&path) || reads_all);
    let limit_ms = if brings { UPLOAD_LIMIT_MS } else { REQUEST_LIMIT_MS };
    let answer = tokio::time::timeout(Duration::from_millis(limit_ms), next.run(request));
    answer.await.unwrap_or_else(|_| Error::Timeout { limit_ms }.into_response())
}

/// What a browser should know of every answer. The page brings its scripts and styles along and calls nobody else;
/// styles set by script are allowed, because component libraries need them.
async fn headers(mut response: Response) -> Response {
    const ALWAYS: [(HeaderName, &str); 5] = [
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
             font-src 'self'; connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; \
             frame-ancestors 'none'",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in ALWAYS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
