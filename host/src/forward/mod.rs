//! Telemetry on its way out: to whatever takes OTLP or Prometheus remote-write, for fleets that have their charts and
//! alarms elsewhere already.
//!
//! What the recorder takes is forwarded from then on; history is not. Each destination has a bounded queue and a task of
//! its own. A request that fails in passing is tried again, the oldest samples go when the queue is full, and both are
//! counted: forwarding holds nothing up, and the recorder stays the one store of history.

mod otlp;
mod queue;
mod remote_write;
mod settings;

pub use settings::{Destination, Kind, Settings, Wrong};

use crate::{clock, outbound};
use aether_core::telemetry::SeriesKey;
use aether_recorder::Recorder;
use metrics::{counter, gauge};
use queue::{Entry, Queue};
use reqwest::{
    Client, StatusCode,
    header::{HeaderMap, RETRY_AFTER},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use thiserror::Error;
use tokio::{
    sync::{Notify, broadcast::error::RecvError},
    time::{Instant, sleep_until, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Samples by `destination` and `result`: `sent`, `refused`, `given_up`, `dropped` (the queue was full).
const SAMPLES: &str = "aether_forward_samples_total";
/// Requests by `destination` and `result`: `ok`, `again`, `refused`.
const REQUESTS: &str = "aether_forward_requests_total";
/// Batches that came faster than they could be looked at, by `destination`.
const MISSED: &str = "aether_forward_missed_batches_total";
/// Samples that wait, by `destination`.
const WAITING: &str = "aether_forward_queue_samples";
/// Between two attempts, at first and at most; doubled each time, and a part of it by chance.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest that a destination may ask to wait.
const ASKED_PAUSE: Duration = Duration::from_secs(300);
/// Bytes of an answer that are read.
const ANSWER_BYTES: usize = 64 << 10;
/// What came by OTLP has an origin that begins so.
const RECEIVED: &str = "otlp.";

#[derive(Debug, Error)]
#[error("no HTTP client can be made for telemetry.forward `{name}`")]
pub struct Error {
    name: String,
    source: reqwest::Error,
}

/// Begins to forward to all destinations.
pub fn start(
    settings: &Settings,
    recorder: &Recorder,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), Error> {
    for destination in &settings.forward {
        let client = outbound::client(destination.timeout_ms)
            .map_err(|source| Error { name: destination.name.clone(), source })?;
        let way = Arc::new(Way {
            queue: Mutex::new(Queue::new(destination.queue_samples)),
            more: Notify::new(),
            destination: destination.clone(),
            client,
        });
        tasks.spawn(way.clone().listen(recorder.tap(), stop.clone()));
        tasks.spawn(way.send_all(stop.clone()));
    }
    Ok(())
}

/// The way to one destination.
struct Way {
    destination: Destination,
    client: Client,
    queue: Mutex<Queue>,
    /// The queue has enough for a request.
    more: Notify,
}

/// What became of one attempt.
enum Attempt {
    Taken {
        refused: u64,
    },
    /// It may do later, not before so long.
    Again(String, Option<Duration>),
    Refused(String),
}

impl Way {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn samples(&self, result: &'static str, n: usize) {
        let n = u64::try_from(n).unwrap_or(u64::MAX);
        counter!(SAMPLES, "destination" => self.destination.name.clone(), "result" => result).increment(n);
    }

    async fn listen(
        self: Arc<Self>,
        mut tap: tokio::sync::broadcast::Receiver<Arc<aether_core::telemetry::Batch>>,
        stop: CancellationToken,
    ) {
        let destination = &self.destination;
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return,
                next = tap.recv() => next,
            };
            let batch = match next {
                Ok(batch) => batch,
                Err(RecvError::Lagged(missed)) => {
                    counter!(MISSED, "destination" => destination.name.clone()).increment(missed);
                    tracing::warn!(destination = destination.name, missed, "batches were not forwarded: too many came");
                    continue;
                }
                Err(RecvError::Closed) => return,
            };
            if !destination.received && batch.origin.as_str().starts_with(RECEIVED) {
                continue;
            }
            let wanted = |key: &SeriesKey| destination.wants(&key.metric);
            let (dropped, waiting) = {
                let mut queue = self.queue();
                (queue.push(&batch, wanted), queue.samples())
            };
            if dropped > 0 {
                self.samples("dropped", dropped);
            }
            #[allow(clippy::cast_precision_loss, reason = "a level for a chart")]
            gauge!(WAITING, "destination" => destination.name.clone()).set(waiting as f64);
            if waiting >= destination.batch_samples {
                self.more.notify_one();
            }
        }
    }

    /// One request at a time, so that a series' samples arrive in order.
    async fn send_all(self: Arc<Self>, stop: CancellationToken) {
        let interval = Duration::from_millis(self.destination.interval_ms);
        loop {
            let waited = timeout_at(Instant::now() + interval, self.more.notified());
            tokio::select! {
                () = stop.cancelled() => return,
                _ = waited => {}
            }
            loop {
                let entries = self.queue().take(self.destination.batch_samples);
                if entries.is_empty() {
                    break;
                }
                tokio::select! {
                    // What waits is in the recorder.
                    () = stop.cancelled() => return,
                    () = self.send(&entries) => {}
                }
                let queue = self.queue();
                if queue.samples() < self.destination.batch_samples && !queue.has_backlog() {
                    break;
                }
            }
        }
    }

    async fn send(&self, entries: &[Entry]) {
        let name = &self.destination.name;
        let samples: usize = entries.iter().map(|entry| entry.series().times.len()).sum();
        let body = match self.encode(entries) {
            Ok(body) => body,
            Err(error) => {
                tracing::error!(destination = name, error, "telemetry could not be encoded");
                return self.samples("refused", samples);
            }
        };
        let give_up = Instant::now() + Duration::from_millis(self.destination.retry_ms);
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = self.attempt(&body).await;
            let result = match &attempt {
                Attempt::Taken { .. } => "ok",
                Attempt::Again(..) => "again",
                Attempt::Refused(_) => "refused",
            };
            counter!(REQUESTS, "destination" => name.clone(), "result" => result).increment(1);
            match attempt {
                Attempt::Taken { refused } => {
                    let refused = usize::try_from(refused).unwrap_or(samples).min(samples);
                    self.samples("sent", samples - refused);
                    return self.samples("refused", refused);
                }
                Attempt::Refused(reason) => {
                    tracing::warn!(destination = name, samples, reason, "the destination refuses telemetry");
                    return self.samples("refused", samples);
                }
                Attempt::Again(reason, asked) => {
                    let next =
                        Instant::now() + asked.map_or_else(|| with_chance(pause), |asked| asked.min(ASKED_PAUSE));
                    if next > give_up {
                        tracing::warn!(destination = name, samples, reason, "telemetry is not forwarded any more");
                        return self.samples("given_up", samples);
                    }
                    tracing::debug!(destination = name, reason, "telemetry is forwarded again later");
                    sleep_until(next).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn encode(&self, entries: &[Entry]) -> Result<Vec<u8>, String> {
        let labels = &self.destination.labels;
        match self.destination.kind {
            Kind::RemoteWrite => remote_write::encode(entries, labels).map_err(|error| error.to_string()),
            Kind::Otlp => otlp::encode(entries, labels).map_err(|error| error.to_string()),
        }
    }

    async fn attempt(&self, body: &[u8]) -> Attempt {
        let headers = match self.headers().await {
            Ok(headers) => headers,
            Err(reason) => return Attempt::Again(reason, None),
        };
        let request = self.client.post(&self.destination.url).headers(headers).body(body.to_vec());
        let mut answer = match request.send().await {
            Ok(answer) => answer,
            // Its text may name the URL, which may hold a secret.
            Err(error) => return Attempt::Again(error.without_url().to_string(), None),
        };
        let status = answer.status();
        let asked = answer.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        // The status says what counts.
        let (text, _) = outbound::body(&mut answer, ANSWER_BYTES).await.unwrap_or_default();
        if status.is_success() {
            let refused = match self.destination.kind {
                Kind::Otlp => otlp::refused(&text),
                Kind::RemoteWrite => None,
            };
            if let Some((points, why)) = &refused {
                tracing::warn!(destination = self.destination.name, points, why, "the destination refuses some points");
            }
            return Attempt::Taken { refused: refused.map_or(0, |(points, _)| points) };
        }
        let said: String = String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).take(300).collect();
        let reason = format!("{status}: {said}");
        if status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT) {
            Attempt::Again(reason, asked.map(Duration::from_secs))
        } else {
            Attempt::Refused(reason)
        }
    }

    async fn headers(&self) -> Result<HeaderMap, String> {
        let mut headers = outbound::headers(&self.destination.headers, &self.destination.header_files).await?;
        let of_kind: &[(&str, &str)] = match self.destination.kind {
            Kind::RemoteWrite => &remote_write::HEADERS,
            Kind::Otlp => &otlp::HEADERS,
        };
        for (name, value) in of_kind {
            outbound::add(&mut headers, name, value, false)?;
        }
        Ok(headers)
    }
}

/// Up to half as long again, so that many hosts do not come at one moment.
fn with_chance(pause: Duration) -> Duration {
    let [chance] = clock::secret::<1>().unwrap_or([128]);
    pause + pause * u32::from(chance) / 512
}
