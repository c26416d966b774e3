//! Metrics of others: OTLP over gRPC and over HTTP, on the host's one listener, for fleets that have collectors or
//! programs with an OpenTelemetry SDK already.
//!
//! A request is translated ([`points`]), each data point judged by itself, and what is acceptable appended to the
//! recorder under an origin of its token's own. What was refused is told by `partial_success`, as the protocol has it.
//!
//! An SDK has no spool, so there is nothing that waits to be acknowledged: by default a request is answered when its
//! points are in the hot window, and a host that dies loses what it had not sealed, at most `recorder.seal_interval_ms`
//! of it. With `otlp.acknowledge = "sealed"` the answer waits until the points are safe on disk.
//!
//! Deliberately absent: traces and logs, exemplars, and a second way to agents' telemetry, which comes by the fabric.

mod buckets;
mod feed;
mod points;
mod service;
mod settings;
mod subject;

pub use service::Otlp;
pub use settings::{Acknowledge, OutOfRange, Settings};
pub(crate) use subject::{HOST_NAME, SUBJECT};
