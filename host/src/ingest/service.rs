//! The two ways in: the collector's gRPC service, and `POST /v1/metrics` with the same messages over HTTP.

use super::{
    Settings,
    feed::Feed,
    points::{Refused, Translated, Translator, count, groups},
    settings::Acknowledge,
};
use crate::{
    auth::{Credential, Scope},
    clock,
    store::Store,
};
use aether_core::{id::NodeId, incident::Rank, telemetry::Batch, time::Time};
use aether_recorder::{Recorder, Rejected};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use flate2::read::GzDecoder;
use metrics::counter;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsPartialSuccess, ExportMetricsServiceRequest, ExportMetricsServiceResponse,
    metrics_service_server::{MetricsService, MetricsServiceServer},
};
use prost::Message;
use std::{
    collections::HashMap,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::sync::Semaphore;
use tonic::{Code, Status, codec::CompressionEncoding};

/// Requests, by `transport` (`grpc`, `http`) and `result` (`taken`, `partial`, or why not).
const REQUESTS: &str = "aether_otlp_requests_total";
/// Data points, by `result`: `taken`, `refused`.
const POINTS: &str = "aether_otlp_points_total";
/// How large a batch for the recorder may be; far below what it takes.
const BATCH_SERIES: usize = 5_000;
const BATCH_SAMPLES: usize = 100_000;
/// When a sender that found no room should come again.
const RETRY_AFTER_S: &str = "2";
/// Origins begin with it; the token's id follows.
const ORIGIN: &str = "otlp.";
const PROTOBUF: &str = "application/x-protobuf";

/// Why nothing of a request was taken.
#[derive(Debug, Error)]
enum Error {
    #[error(
        "no token was given, or one that is not known, has expired or was deleted; send `Authorization: Bearer <token>`"
    )]
    Unauthenticated,
    #[error("this token may not write telemetry: it needs `--telemetry`, or the rank operator")]
    Forbidden,
    #[error("{0}")]
    Malformed(String),
    #[error("the request has more than {0}")]
    TooLarge(String),
    #[error("only `Content-Type: application/x-protobuf` is understood, as it is or with `Content-Encoding: gzip`")]
    Type,
    #[error("the host has no room just now; send it again")]
    Busy,
    #[error("the points were taken and not yet sealed in time; send them again, nothing is doubled")]
    NotSealed,
    #[error("something went wrong inside")]
    Internal,
}

impl Error {
    fn result(&self) -> &'static str {
        match self {
            Error::Unauthenticated => "unauthenticated",
            Error::Forbidden => "forbidden",
            Error::Malformed(_) => "malformed",
            Error::TooLarge(_) => "too_large",
            Error::Type => "type",
            Error::Busy => "busy",
            Error::NotSealed => "not_sealed",
            Error::Internal => "internal",
        }
    }

    fn code(&self) -> (Code, StatusCode) {
        match self {
            Error::Unauthenticated => (Code::Unauthenticated, StatusCode::UNAUTHORIZED),
            Error::Forbidden => (Code::PermissionDenied, StatusCode::FORBIDDEN),
            Error::Malformed(_) => (Code::InvalidArgument, StatusCode::BAD_REQUEST),
            Error::TooLarge(_) => (Code::InvalidArgument, StatusCode::PAYLOAD_TOO_LARGE),
            Error::Type => (Code::InvalidArgument, StatusCode::UNSUPPORTED_MEDIA_TYPE),
            // What the protocol names as worth another attempt.
            Error::Busy | Error::NotSealed => (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
            Error::Internal => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
        }
    }
}

/// `google.rpc.Status`, as far as OTLP over HTTP answers with it.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(int32, tag = "1")]
    code: i32,
    #[prost(string, tag = "2")]
    message: String,
}

/// Metrics by OTLP. Cheap to clone.
#[derive(Clone)]
pub struct Otlp(Arc<Inner>);

struct Inner {
    settings: Settings,
    store: Store,
    recorder: Recorder,
    /// The start of this process: a batch is never taken for an earlier one.
    epoch: u64,
    feeds: Mutex<HashMap<NodeId, Arc<Mutex<Feed>>>>,
    room: Semaphore,
}

impl Otlp {
    pub fn new(settings: Settings, store: Store, recorder: Recorder) -> Self {
        Self(Arc::new(Inner {
            room: Semaphore::new(settings.requests_at_once),
            settings,
            store,
            recorder,
            epoch: u64::try_from(clock::now().0).unwrap_or_default(),
            feeds: Mutex::default(),
        }))
    }

    /// Both ways in, to be mounted beside the API; no body limit of its own may lie before them.
    pub fn router(&self) -> Router {
        if !self.0.settings.enabled {
            return Router::new();
        }
        let limit = self.0.settings.request_bytes;
        let grpc = MetricsServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .max_decoding_message_size(limit);
        Router::new()
            .route("/v1/metrics", post(over_http))
            .layer(DefaultBodyLimit::max(limit))
            .with_state(self.clone())
            .route_service("/opentelemetry.proto.collector.metrics.v1.MetricsService/{*method}", grpc)
    }

    async fn export(
        &self,
        headers: &HeaderMap,
        read: impl FnOnce() -> Result<ExportMetricsServiceRequest, Error>,
        transport: &'static str,
    ) -> Result<ExportMetricsServiceResponse, Error> {
        let result = self.take(headers, read).await;
        let label = match &result {
            Ok(refused) if refused.points == 0 => "taken",
            Ok(_) => "partial",
            Err(error) => error.result(),
        };
        counter!(REQUESTS, "transport" => transport, "result" => label).increment(1);
        let refused = result?;
        // A success without a word on refused points is a whole one.
        let partial_success = (refused.points > 0).then(|| ExportMetricsPartialSuccess {
            rejected_data_points: i64::try_from(refused.points).unwrap_or(i64::MAX),
            error_message: refused.told(),
        });
        Ok(ExportMetricsServiceResponse { partial_success })
    }

    async fn take(
        &self,
        headers: &HeaderMap,
        read: impl FnOnce() -> Result<ExportMetricsServiceRequest, Error>,
    ) -> Result<Refused, Error> {
        let inner = &self.0;
        let _room = inner.room.try_acquire().map_err(|_| Error::Busy)?;
        let source = inner.who(headers).await?;
        let request = read()?;
        if count(&request) > inner.settings.points_maximum {
            return Err(Error::TooLarge(format!("{} data points", inner.settings.points_maximum)));
        }
        let origin = NodeId(format!("{ORIGIN}{source}"));
        let (refused, last) = inner.append(&origin, &source, &request, clock::now())?;
        if inner.settings.acknowledge == Acknowledge::Sealed
            && let Some(last) = last
        {
            inner.sealed(&origin, last).await?;
        }
        Ok(refused)
    }
}

impl Inner {
    /// The id of the token, if it may write telemetry.
    async fn who(&self, headers: &HeaderMap) -> Result<String, Error> {
        // A browser's cookie is for the page alone.
        let token = Credential::of(headers).filter(|credential| matches!(credential, Credential::Token(_)));
        let found =
            token.ok_or(Error::Unauthenticated)?.principal(&self.store, clock::now()).await.map_err(|error| {
                tracing::error!(error = &error as &dyn std::error::Error, "a token could not be looked up");
                Error::Internal
            })?;
        let principal = found.ok_or(Error::Unauthenticated)?;
        match principal.scope {
            Scope::Telemetry => Ok(principal.id.0),
            Scope::Full if principal.rank >= Rank::Operator => Ok(principal.id.0),
            Scope::Full => Err(Error::Forbidden),
        }
    }

    /// Answers what was refused, and the sequence of the last batch. On an error the same request can come again, and
    /// counts nothing twice: a sample of the same series, origin and time replaces the one before.
    fn append(
        &self,
        origin: &NodeId,
        source: &str,
        request: &ExportMetricsServiceRequest,
        now: Time,
    ) -> Result<(Refused, Option<u64>), Error> {
        let feed = {
            let mut feeds = self.feeds.lock().unwrap_or_else(PoisonError::into_inner);
            let new = || Arc::new(Mutex::new(Feed::new(self.settings.delta_series_maximum)));
            feeds.entry(origin.clone()).or_insert_with(new).clone()
        };
        let mut feed = feed.lock().unwrap_or_else(PoisonError::into_inner);
        let Feed { sequence, totals } = &mut *feed;
        let translated = Translator { totals: &mut *totals, recorder: &self.recorder, source, now }.translate(request);
        let Translated { series, mut taken, mut refused } = translated;
        let mut last = None;
        for series in groups(series, BATCH_SERIES, BATCH_SAMPLES) {
            let samples: usize = series.iter().map(|series| series.samples.len()).sum();
            let batch = Batch {
                origin: origin.clone(),
                epoch: self.epoch,
                sequence: *sequence + 1,
                series: series.into(),
                events: vec![],
            };
            match self.recorder.append(batch, now) {
                Ok(_) => {
                    *sequence += 1;
                    last = Some(*sequence);
                }
                Err(Rejected::Full { .. }) => {
                    totals.take_back();
                    return Err(Error::Busy);
                }
                Err(Rejected::Malformed { text, .. }) => {
                    // The recorder counts the sequence of a malformed batch as settled.
                    *sequence += 1;
                    let samples = u64::try_from(samples).unwrap_or(u64::MAX).min(taken);
                    taken -= samples;
                    refused.add(samples, text);
                }
            }
        }
        totals.keep();
        counter!(POINTS, "result" => "taken").increment(taken);
        counter!(POINTS, "result" => "refused").increment(refused.points);
        Ok((refused, last))
    }

    async fn sealed(&self, origin: &NodeId, last: u64) -> Result<(), Error> {
        let mut safe = self.recorder.safe(origin);
        let sealed =
            safe.wait_for(|safe| safe.as_ref().is_some_and(|safe| safe.epoch == self.epoch && safe.sequence >= last));
        match tokio::time::timeout(Duration::from_millis(self.settings.seal_wait_ms), sealed).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::NotSealed),
        }
    }
}

#[tonic::async_trait]
impl MetricsService for Otlp {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        let (metadata, _, message) = request.into_parts();
        let headers = metadata.into_headers();
        let answer = Otlp::export(self, &headers, || Ok(message), "grpc").await;
        answer.map(tonic::Response::new).map_err(|error| Status::new(error.code().0, error.to_string()))
    }
}

async fn over_http(State(otlp): State<Otlp>, headers: HeaderMap, body: Result<Bytes, BytesRejection>) -> Response {
    let limit = otlp.0.settings.request_bytes;
    let read = || {
        let is = |name, wanted: &str| {
            headers.get(name).and_then(|value| value.to_str().ok()).is_some_and(|value| {
                value.split(';').next().is_some_and(|value| value.trim().eq_ignore_ascii_case(wanted))
            })
        };
        if !is(header::CONTENT_TYPE, PROTOBUF) {
            return Err(Error::Type);
        }
        let body = body.map_err(|_| Error::TooLarge(format!("{limit} bytes")))?;
        let plain = match headers.contains_key(header::CONTENT_ENCODING) {
            true if is(header::CONTENT_ENCODING, "gzip") => unpacked(&body, limit)?.into(),
            true if is(header::CONTENT_ENCODING, "identity") => body,
            true => return Err(Error::Type),
            false => body,
        };
        ExportMetricsServiceRequest::decode(plain).map_err(|error| Error::Malformed(error.to_string()))
    };
    match otlp.export(&headers, read, "http").await {
        Ok(answer) => (StatusCode::OK, [(header::CONTENT_TYPE, PROTOBUF)], answer.encode_to_vec()).into_response(),
        Err(error) => {
            let (code, status) = error.code();
            let told = RpcStatus { code: code.into(), message: error.to_string() };
            let mut response = Response::new(Body::from(told.encode_to_vec()));
            *response.status_mut() = status;
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROTOBUF));
            if status == StatusCode::SERVICE_UNAVAILABLE {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            if status == StatusCode::UNAUTHORIZED {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"aether\""));
            }
            response
        }
    }
}

/// A packed body, as far as the limit goes: a small one can unpack to a very large one.
fn unpacked(body: &[u8], limit: usize) -> Result<Vec<u8>, Error> {
    let mut plain = vec![];
    let within = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(body)
        .take(within)
        .read_to_end(&mut plain)
        .map_err(|error| Error::Malformed(format!("the body is no gzip: {error}")))?;
    if plain.len() > limit {
        return Err(Error::TooLarge(format!("{limit} bytes when it is unpacked")));
    }
    Ok(plain)
}
