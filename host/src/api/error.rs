//! The one error of the API: RFC 9457 problem details with a stable code, each explained in `docs/errors.md`.
//!
//! A 4xx says what is wrong and what would do. A 5xx tells nothing of the inside; the cause is in the log, under the
//! same instance.

use crate::{
    blobs, clock, drills,
    plugins::{self, backtest, registry, replay},
    snapshots, store,
};
use aether_core::{incident::Rank, slot::Refused};
use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;

/// A component with ten thousand imports is refused in fewer words.
const DETAIL_MAXIMUM: usize = 2_000;

#[derive(Debug, Error)]
pub enum Error {
    #[error("no token was given; send `Authorization: Bearer <token>`, or sign in")]
    Unauthenticated,
    #[error("this token is not known, has expired or was deleted")]
    BadToken,
    #[error("this needs the rank {}, and you have {}", needed.name(), given.name())]
    Rank { needed: Rank, given: Rank },
    #[error("this token is for writing metrics by OTLP alone; take one of a rank")]
    Scope,
    #[error("there is no {what} `{id}`")]
    NotFound { what: &'static str, id: String },
    #[error("there is no such endpoint; GET /api/v1/openapi.json lists those that there are")]
    NoEndpoint,
    #[error("this endpoint does not know that method")]
    Method,
    #[error("the body is not what this endpoint takes: {0}")]
    Body(String),
    #[error("the body is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the parameter `{name}` is not right: {reason}")]
    Parameter { name: String, reason: String },
    #[error("the request was not done within {} s; whether it took effect is not known, so look before you repeat it", limit_ms / 1_000)]
    Timeout { limit_ms: u64 },
    #[error("a request with a sign-in cookie came from another site and was not done")]
    CrossSite,
    #[error("{limit} event streams are open already; close one, or try again later")]
    Streams { limit: usize },
    #[error("the plan was not {deed}: {reason}")]
    Decision { deed: &'static str, reason: String },
    #[error("nothing was reset: {0}")]
    Breaker(String),
    #[error("the cordon was not changed: {0}")]
    Cordon(String),
    #[error("the request was not taken: {0}")]
    Request(String),
    #[error("break-glass: {0}")]
    BreakGlass(String),
    #[error("{0}")]
    Drill(drills::Error),
    #[error("the signals were not taken: {0}")]
    Signals(String),
    #[error("the recorder has no room just now; nothing of the request was taken, so send it again in a few seconds")]
    Full,
    #[error("the dead letter was not replayed, and stays as it is: {0}")]
    DeadLetter(String),
    #[error("what was to be changed has changed meanwhile: {0}")]
    Conflict(String),
    #[error("the slot was not changed: {0}")]
    Slot(String),
    #[error("the slot was not changed: {0}")]
    SlotStale(String),
    #[error("the component cannot stand in this slot: {reason} ({code})")]
    Entry { code: &'static str, reason: String },
    #[error("the slot was not changed: {0}")]
    Quarantined(String),
    #[error("the slot was not changed: {0}")]
    Unproved(String),
    #[error(
        "there is no decision `{id}`: kept are those that incidents refer to, and of each subject the newest until the next tick"
    )]
    DecisionNotKept { id: String },
    #[error("{0}")]
    Backtest(#[source] backtest::Error),
    #[error("{0}")]
    Replay(#[source] replay::Error),
    #[error("{0}")]
    Snapshot(#[source] snapshots::Error),
    #[error("this host is not ready for that: {0}")]
    NotReady(String),
    #[error(transparent)]
    Registry(registry::Error),
    #[error("something went wrong inside; the log says more under the instance named here")]
    Internal,
    #[error("another host drives since; nothing was changed here")]
    NotInCharge,
}

/// Every code with its title, in order. `docs/errors.md` has a section for each; a test holds it.
pub const CODES: &[(&str, &str)] = &[
    ("AE0001", "Not signed in"),
    ("AE0002", "Token not accepted"),
    ("AE0003", "Rank too small"),
    ("AE0004", "Not found"),
    ("AE0005", "No such endpoint"),
    ("AE0006", "Method not allowed"),
    ("AE0007", "Body not understood"),
    ("AE0008", "Body too large"),
    ("AE0009", "Parameter not right"),
    ("AE0010", "Timed out"),
    ("AE0011", "Cross-site request"),
    ("AE0012", "Too many event streams"),
    ("AE0020", "Decision not taken"),
    ("AE0021", "Signals not taken"),
    ("AE0022", "Recorder full"),
    ("AE0023", "Changed meanwhile"),
    ("AE0024", "Request not taken"),
    ("AE0025", "Dead letter not replayed"),
    ("AE0030", "Not ready"),
    ("AE0031", "Internal error"),
    ("AE0040", "Configuration not right"),
    ("AE0041", "Address without TLS"),
    ("AE0042", "Data folder in use"),
    ("AE0043", "Address not available"),
    ("AE0044", "Not started"),
    ("AE0050", "Not a component"),
    ("AE0051", "World not right"),
    ("AE0052", "Imports not granted"),
    ("AE0053", "Signature not accepted"),
    ("AE0054", "Upload too large"),
    ("AE0055", "Component does not load"),
    ("AE0056", "Still needed"),
    ("AE0057", "Assets not taken"),
    ("AE0058", "Not pulled"),
    ("AE0059", "Registry full"),
    ("AE0060", "Slot not changed"),
    ("AE0061", "Slot changed meanwhile"),
    ("AE0062", "Component not fit for the slot"),
    ("AE0063", "Component in quarantine"),
    ("AE0064", "Evidence missing"),
    ("AE0070", "History not understood"),
    ("AE0071", "Backtest too large"),
    ("AE0072", "Backtest stopped"),
    ("AE0073", "Nothing to test"),
    ("AE0074", "History not readable"),
    ("AE0075", "Decision not kept"),
    ("AE0076", "Exported decision not right"),
    ("AE0077", "Decision not executable"),
    ("AE0078", "Too many backtests"),
    ("AE0080", "Runbook not there"),
    ("AE0088", "Another host drives"),
    ("AE0089", "Waiting for the lease"),
    ("AE0090", "Audit not whole"),
    ("AE0091", "Break-glass not taken"),
    ("AE0092", "Breaker not reset"),
    ("AE0095", "Cordon not changed"),
    ("AE0100", "Snapshot store not reachable"),
    ("AE0101", "Snapshot not changed"),
    ("AE0102", "Key of a snapshot missing"),
    ("AE0103", "Snapshot damaged"),
    ("AE0104", "Restore drill not begun"),
    ("AE0110", "Drill not started"),
    ("AE0111", "Another drill runs"),
    ("AE0112", "Drill over already"),
];

impl Error {
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unauthenticated => "AE0001",
            Error::BadToken => "AE0002",
            Error::Rank { .. } | Error::Scope => "AE0003",
            Error::NotFound { .. } => "AE0004",
            Error::NoEndpoint => "AE0005",
            Error::Method => "AE0006",
            Error::Body(_) => "AE0007",
            Error::TooLarge { .. } => "AE0008",
            Error::Parameter { .. } => "AE0009",
            Error::Timeout { .. } => "AE0010",
            Error::CrossSite => "AE0011",
            Error::Streams { .. } => "AE0012",
            Error::Decision { .. } => "AE0020",
            Error::BreakGlass(_) => "AE0091",
            Error::Breaker(_) => "AE0092",
            Error::Cordon(_) => "AE0095",
            Error::Request(_) => "AE0024",
            Error::Drill(drills::Error::Running(_)) => "AE0111",
            Error::Drill(drills::Error::Over(_)) => "AE0112",
            Error::Drill(_) => "AE0110",
            Error::Signals(_) => "AE0021",
            Error::Full => "AE0022",
            Error::Conflict(_) => "AE0023",
            Error::DeadLetter(_) => "AE0025",
            Error::NotReady(_) => "AE0030",
            Error::NotInCharge => "AE0088",
            Error::DecisionNotKept { .. } => "AE0075",
            Error::Backtest(error) => error.code(),
            Error::Replay(error) => error.code(),
            Error::Snapshot(error) => error.code(),
            Error::Slot(_) => "AE0060",
            Error::SlotStale(_) => "AE0061",
            Error::Entry { .. } => "AE0062",
            Error::Quarantined(_) => "AE0063",
            Error::Unproved(_) => "AE0064",
            Error::Registry(error) => of_registry(error).0,
            Error::Internal => "AE0031",
        }
    }

    /// More exactly than the code, where there is more to say.
    fn reason(&self) -> Option<&'static str> {
        match self {
            Error::Registry(error) => Some(error.code()),
            Error::Entry { code, .. } => Some(code),
            _ => None,
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Error::Unauthenticated | Error::BadToken => StatusCode::UNAUTHORIZED,
            Error::Rank { .. } | Error::Scope | Error::CrossSite => StatusCode::FORBIDDEN,
            Error::NotFound { .. } | Error::NoEndpoint | Error::DecisionNotKept { .. } => StatusCode::NOT_FOUND,
            Error::Backtest(backtest::Error::Unknown { .. }) => StatusCode::NOT_FOUND,
            Error::Backtest(backtest::Error::Busy { .. }) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Backtest(_) | Error::Replay(replay::Error::Load(_) | replay::Error::Activate(_)) => {
                StatusCode::UNPROCESSABLE_ENTITY
            }
            Error::Replay(_) => StatusCode::NOT_FOUND,
            Error::Snapshot(error) => of_snapshot(error),
            Error::Method => StatusCode::METHOD_NOT_ALLOWED,
            Error::Body(_) | Error::Signals(_) | Error::Entry { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Parameter { .. } => StatusCode::BAD_REQUEST,
            Error::Decision { .. }
            | Error::Drill(_)
            | Error::BreakGlass(_)
            | Error::Breaker(_)
            | Error::Cordon(_)
            | Error::Request(_)
            | Error::Conflict(_)
            | Error::DeadLetter(_)
            | Error::Slot(_)
            | Error::SlotStale(_)
            | Error::Quarantined(_)
            | Error::Unproved(_) => StatusCode::CONFLICT,
            Error::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Streams { .. } | Error::Full | Error::NotReady(_) | Error::NotInCharge => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Error::Registry(error) => of_registry(error).1,
            Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What can be told to a caller of something that went wrong inside. Logs the whole chain.
    pub fn internal(source: impl std::error::Error) -> Self {
        tracing::error!(error = chain(&source), "a request failed");
        Error::Internal
    }

    /// For the caller. Why a component was not taken lies in the causes, and they are about the caller's own bytes.
    fn detail(&self) -> String {
        match self {
            Error::Registry(error) => chain(error).chars().take(DETAIL_MAXIMUM).collect(),
            other => other.to_string(),
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut chain = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        chain.push_str(": ");
        chain.push_str(&error.to_string());
        cause = error.source();
    }
    chain
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Conflict(what) => Error::Conflict(what),
            store::Error::NotInCharge { .. } => Error::NotInCharge,
            other => Error::internal(other),
        }
    }
}

impl From<drills::Error> for Error {
    fn from(error: drills::Error) -> Self {
        match error {
            drills::Error::NoNode(id) => Error::NotFound { what: "node", id: id.0 },
            drills::Error::Unknown(id) => Error::NotFound { what: "drill", id: id.0 },
            drills::Error::Store(error) => error.into(),
            refused @ (drills::Error::Refused(_) | drills::Error::Running(_) | drills::Error::Over(_)) => {
                Error::Drill(refused)
            }
        }
    }
}

impl From<backtest::Error> for Error {
    fn from(error: backtest::Error) -> Self {
        use backtest::Error as E;
        match error {
            E::Unknown { what, id } => Error::NotFound { what, id },
            E::Registry(registry::Error::Unknown { what, digest }) => Error::NotFound { what, id: digest },
            E::Store(error) => error.into(),
            error @ (E::Recorder(_) | E::Registry(_) | E::Died | E::Read { .. }) => Error::internal(error),
            error => Error::Backtest(error),
        }
    }
}

impl From<replay::Error> for Error {
    fn from(error: replay::Error) -> Self {
        use replay::Error as E;
        match error {
            E::Store(error) => error.into(),
            error @ (E::Registry(_) | E::Died) => Error::internal(error),
            error => Error::Replay(error),
        }
    }
}

impl From<snapshots::Error> for Error {
    fn from(error: snapshots::Error) -> Self {
        use snapshots::Error as E;
        match error {
            E::Unknown(digest) | E::Blobs(blobs::Error::Missing(digest)) => {
                Error::NotFound { what: "snapshot", id: digest.0 }
            }
            E::Blobs(blobs::Error::NotADigest(id)) => Error::NotFound { what: "snapshot", id },
            E::Store(error) => error.into(),
            error => {
                // What the store said is for the log: it names places.
                if matches!(error, E::Blobs(_)) {
                    tracing::error!(error = chain(&error), "the snapshot store failed");
                }
                Error::Snapshot(error)
            }
        }
    }
}

fn of_snapshot(error: &snapshots::Error) -> StatusCode {
    match error.code() {
        "AE0100" => StatusCode::SERVICE_UNAVAILABLE,
        "AE0101" | "AE0104" => StatusCode::CONFLICT,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl From<plugins::Error> for Error {
    fn from(error: plugins::Error) -> Self {
        use plugins::Error as E;
        let said = error.to_string();
        match error {
            E::NoSlot(slot) => Error::NotFound { what: "slot", id: slot.0 },
            E::Refused(Refused::NoEntry(entry)) => Error::NotFound { what: "entry", id: entry.0 },
            E::Refused(Refused::Unproved { .. }) => Error::Unproved(said),
            E::Refused(_) => Error::Slot(said),
            E::Stale { .. } => Error::SlotStale(said),
            E::Role { .. } => Error::Entry { code: "component.role", reason: said },
            E::Ungrantable { .. } | E::UngrantedAssets => Error::Entry { code: "activate.grants", reason: said },
            E::Quarantined { .. } => Error::Quarantined(said),
            E::NotReady { code, .. } => Error::Entry { code, reason: said },
            E::Activate(error) => Error::Entry { code: error.code(), reason: said },
            E::Registry(registry::Error::Unknown { what, digest }) => Error::NotFound { what, id: digest },
            E::Registry(registry::Error::Component(error)) => Error::Entry { code: error.code(), reason: said },
            E::Store(error) => error.into(),
            error @ (E::Registry(_) | E::Bundle(_) | E::Died) => Error::internal(error),
        }
    }
}

impl From<registry::Error> for Error {
    fn from(error: registry::Error) -> Self {
        match error {
            registry::Error::Unknown { what, digest } => Error::NotFound { what, id: digest },
            registry::Error::BrokeOff(_) => Error::Body(error.to_string()),
            registry::Error::Busy(_) => Error::NotReady(error.to_string()),
            // Not the component's fault: it may be taken at the next attempt.
            registry::Error::Component(ref refused)
                if matches!(refused.code(), "component.compile-busy" | "component.compile-unavailable") =>
            {
                Error::NotReady(chain(&error))
            }
            registry::Error::Store(error) => error.into(),
            registry::Error::Setting(_)
            | registry::Error::Damaged(_)
            | registry::Error::Objects(_)
            | registry::Error::Folder(_)
            | registry::Error::Died => Error::internal(error),
            other => Error::Registry(other),
        }
    }
}

/// Code and status of what the registry refuses. Its finer codes are the problem's `reason`.
fn of_registry(error: &registry::Error) -> (&'static str, StatusCode) {
    match error.code() {
        "component.too-large" | "registry.too-large" => ("AE0054", StatusCode::PAYLOAD_TOO_LARGE),
        "component.not-wasm" | "component.core-module" | "component.malformed" => {
            ("AE0050", StatusCode::UNPROCESSABLE_ENTITY)
        }
        "component.unknown-world"
        | "component.several-worlds"
        | "component.version"
        | "component.no-plugin"
        | "component.types" => ("AE0051", StatusCode::UNPROCESSABLE_ENTITY),
        "component.imports" => ("AE0052", StatusCode::UNPROCESSABLE_ENTITY),
        "registry.in-use" => ("AE0056", StatusCode::CONFLICT),
        "registry.full" | "registry.disk-full" => ("AE0059", StatusCode::INSUFFICIENT_STORAGE),
        "oci.registry" | "oci.slow" => ("AE0058", StatusCode::BAD_GATEWAY),
        code if code.starts_with("oci.") => ("AE0058", StatusCode::UNPROCESSABLE_ENTITY),
        code if code.starts_with("signature.") => ("AE0053", StatusCode::UNPROCESSABLE_ENTITY),
        code if code.starts_with("assets.") || code.starts_with("archive.") => {
            ("AE0057", StatusCode::UNPROCESSABLE_ENTITY)
        }
        // Whatever else keeps a component from being loaded.
        _ => ("AE0055", StatusCode::UNPROCESSABLE_ENTITY),
    }
}

/// RFC 9457 problem details.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// `urn:aether:error:<code>`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    /// Stable; `docs/errors.md` has a section for each.
    pub code: String,
    /// Of what the registry or a slot refuses, more exactly: such as `component.not-wasm` or `signature.unknown-key`. Stable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This one occurrence; the log names it, too.
    pub instance: String,
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let (code, status) = (self.code(), self.status());
        let title = CODES.iter().find(|(known, _)| *known == code).map_or("", |(_, title)| title);
        let instance = clock::id("problem");
        if status.is_server_error() {
            tracing::warn!(problem.instance = instance, problem.code = code, detail = %self, "answered with a problem");
        }
        metrics::counter!("aether_api_problems_total", "code" => code).increment(1);
        let problem = Problem {
            kind: format!("urn:aether:error:{code}"),
            title: title.into(),
            status: status.as_u16(),
            detail: self.detail(),
            code: code.into(),
            reason: self.reason().map(Into::into),
            instance,
        };
        let mut response = (status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"aether\""));
        }
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
        }
        response
    }
}
