//! The one error of the API: RFC 9457 problem details with a stable code, each explained in `docs/errors.md`.
//!
//! A 4xx says what is wrong and what would do. A 5xx tells nothing of the inside; the cause is in the log, under the
//! same instance.

use crate::{
    clock,
    plugins::{self, registry},
    store,
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

#[derive(Debug, Error)]
pub enum Error {
    #[error("no token was given; send `Authorization: Bearer <token>`, or sign in")]
    Unauthenticated,
    #[error("this token is not known, has expired or was deleted")]
    BadToken,
    #[error("this needs the rank {}, and you have {}", needed.name(), given.name())]
    Rank { needed: Rank, given: Rank },
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
    #[error("the signals were not taken: {0}")]
    Signals(String),
    #[error("the recorder has no room just now; nothing of the request was taken, so send it again in a few seconds")]
    Full,
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
    #[error("this host is not ready for that: {0}")]
    NotReady(String),
    #[error("something went wrong inside; the log says more under the instance named here")]
    Internal,
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
    ("AE0030", "Not ready"),
    ("AE0031", "Internal error"),
    ("AE0040", "Configuration not right"),
    ("AE0041", "Address without TLS"),
    ("AE0042", "Data folder in use"),
    ("AE0043", "Address not available"),
    ("AE0044", "Not started"),
    ("AE0060", "Slot not changed"),
    ("AE0061", "Slot changed meanwhile"),
    ("AE0062", "Component not fit for the slot"),
    ("AE0063", "Component in quarantine"),
    ("AE0064", "Evidence missing"),
];

impl Error {
    pub fn code(&self) -> &'static str {
        match self {
            Error::Unauthenticated => "AE0001",
            Error::BadToken => "AE0002",
            Error::Rank { .. } => "AE0003",
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
            Error::Signals(_) => "AE0021",
            Error::Full => "AE0022",
            Error::Conflict(_) => "AE0023",
            Error::NotReady(_) => "AE0030",
            Error::Slot(_) => "AE0060",
            Error::SlotStale(_) => "AE0061",
            Error::Entry { .. } => "AE0062",
            Error::Quarantined(_) => "AE0063",
            Error::Unproved(_) => "AE0064",
            Error::Internal => "AE0031",
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Error::Unauthenticated | Error::BadToken => StatusCode::UNAUTHORIZED,
            Error::Rank { .. } | Error::CrossSite => StatusCode::FORBIDDEN,
            Error::NotFound { .. } | Error::NoEndpoint => StatusCode::NOT_FOUND,
            Error::Method => StatusCode::METHOD_NOT_ALLOWED,
            Error::Body(_) | Error::Signals(_) | Error::Entry { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::Parameter { .. } => StatusCode::BAD_REQUEST,
            Error::Decision { .. }
            | Error::Conflict(_)
            | Error::Slot(_)
            | Error::SlotStale(_)
            | Error::Quarantined(_)
            | Error::Unproved(_) => StatusCode::CONFLICT,
            Error::Timeout { .. } => StatusCode::GATEWAY_TIMEOUT,
            Error::Streams { .. } | Error::Full | Error::NotReady(_) => StatusCode::SERVICE_UNAVAILABLE,
            Error::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// What can be told to a caller of something that went wrong inside. Logs the whole chain.
    pub fn internal(source: impl std::error::Error) -> Self {
        let mut chain = source.to_string();
        let mut cause = source.source();
        while let Some(error) = cause {
            chain.push_str(": ");
            chain.push_str(&error.to_string());
            cause = error.source();
        }
        tracing::error!(error = chain, "a request failed");
        Error::Internal
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Conflict(what) => Error::Conflict(what),
            other => Error::internal(other),
        }
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
            E::Ungrantable { .. } => Error::Entry { code: "activate.grants", reason: said },
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
            detail: self.to_string(),
            code: code.into(),
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
