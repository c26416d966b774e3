//! Server-sent events: what changed, once a second at most, for pages that are open.
//!
//! One task looks at the plane and the store each second while anybody listens, and tells all listeners what differs.
//! It looks instead of being told, so that nothing that changes anywhere can be forgotten, and a burst is one event.
//! Events say *what* changed and carry little: a page fetches what it shows. Newest samples come along for the subjects
//! that a listener names, because charts want them each second.

use super::{
    App, Error, Problem,
    access::authenticate,
    extract::Params,
    view::{SlotNews, SubjectRisk},
};
use crate::{clock, store::IncidentSummary};
use aether_core::{
    id::{NodeId, SlotId},
    subject::SubjectRef,
    telemetry::{Sample, SeriesKey},
    time::Time,
};
use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event, Sse},
};
use futures::Stream;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use utoipa::{IntoParams, ToSchema};

/// Event streams that can be open at a time.
pub const STREAMS_MAXIMUM: usize = 256;
/// Changes that may wait for a listener; one that falls further behind is dropped with a note.
const BACKLOG: usize = 64;
/// Events that may wait within one stream for the network.
const WAITING: usize = 16;
const LOOK_EVERY: Duration = Duration::from_secs(1);
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);
/// Subjects that one stream can follow.
const SUBJECTS_MAXIMUM: usize = 16;
/// Series that one telemetry event carries.
const SERIES_MAXIMUM: usize = 256;
/// Incidents that are looked at for changes: the newest.
const INCIDENTS_LOOKED_AT: u32 = 100;

/// What a stream tells. The name of the server-sent event is the tag `event`, in snake case.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Told {
    /// First on every stream.
    Hello { session: HelloSession, now: Time },
    /// These nodes connected, left, or changed what they report.
    Nodes { nodes: Vec<NodeId> },
    /// These subjects were scored differently.
    Risks { risks: Vec<SubjectRisk> },
    /// These incidents opened or went on.
    Incidents { incidents: Vec<IncidentSummary> },
    /// These slots were changed, by people or by the host itself.
    Slots { slots: Vec<SlotNews> },
    /// Newest samples of the subjects that the stream follows.
    Telemetry { series: Vec<LatestSample> },
    /// Nothing happened for a while, and the stream is alive.
    Heartbeat { now: Time },
    /// Last on a stream that did not keep up, or whose token is good no more, or whose host stops. Connect again.
    Closed { reason: String },
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct HelloSession {
    name: String,
    rank: aether_core::incident::Rank,
}

#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub(super) struct LatestSample {
    key: SeriesKey,
    sample: Sample,
}

impl Told {
    fn name(&self) -> &'static str {
        match self {
            Told::Hello { .. } => "hello",
            Told::Nodes { .. } => "nodes",
            Told::Risks { .. } => "risks",
            Told::Incidents { .. } => "incidents",
            Told::Slots { .. } => "slots",
            Told::Telemetry { .. } => "telemetry",
            Told::Heartbeat { .. } => "heartbeat",
            Told::Closed { .. } => "closed",
        }
    }

    fn framed(&self) -> Event {
        let json = serde_json::to_string(self).expect("documents have string keys and finite numbers");
        Event::default().event(self.name()).data(json)
    }
}

#[derive(Debug)]
pub(super) struct Hub {
    changes: broadcast::Sender<Arc<Told>>,
    streams: Arc<Semaphore>,
}

impl Default for Hub {
    fn default() -> Self {
        Self { changes: broadcast::Sender::new(BACKLOG), streams: Arc::new(Semaphore::new(STREAMS_MAXIMUM)) }
    }
}

/// Starts the task that looks for changes.
pub(super) fn watch(app: &App) {
    let (app, stop) = (app.clone(), app.0.parts.stop.clone());
    let tasks = app.0.parts.tasks.clone();
    tasks.spawn(async move {
        let mut seen = Seen::default();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            if app.0.events.changes.receiver_count() == 0 {
                seen = Seen::default();
                continue;
            }
            for told in seen.look(&app).await {
                let _ = app.0.events.changes.send(Arc::new(told));
            }
        }
    });
}

/// What was there at the last look. Empty at first: the first look tells nothing, it only remembers.
#[derive(Default)]
struct Seen {
    nodes: Option<BTreeMap<NodeId, u64>>,
    risks: Option<BTreeMap<SubjectRef, String>>,
    incidents: Option<BTreeMap<String, Time>>,
    slots: Option<BTreeMap<SlotId, u64>>,
}

impl Seen {
    async fn look(&mut self, app: &App) -> Vec<Told> {
        let mut told = Vec::new();
        let nodes: BTreeMap<NodeId, u64> =
            app.plane().nodes().into_iter().map(|node| (node.id.clone(), fingerprint(&node))).collect();
        let changed = differing(self.nodes.as_ref(), &nodes);
        if !changed.is_empty() {
            told.push(Told::Nodes { nodes: changed });
        }
        self.nodes = Some(nodes);

        let risks = app.plane().risks();
        let now: BTreeMap<SubjectRef, String> =
            risks.iter().map(|risk| (risk.subject.clone(), risk_print(risk))).collect();
        let changed = differing(self.risks.as_ref(), &now);
        if !changed.is_empty() {
            let risks = risks.into_iter().filter(|risk| changed.contains(&risk.subject)).collect();
            told.push(Told::Risks { risks });
        }
        self.risks = Some(now);

        let slots = app.plane().slot_news();
        let now = slots.iter().map(|news| (news.slot.clone(), news.generation)).collect();
        let changed = differing(self.slots.as_ref(), &now);
        if !changed.is_empty() {
            let slots = slots.into_iter().filter(|news| changed.contains(&news.slot)).collect();
            told.push(Told::Slots { slots });
        }
        self.slots = Some(now);

        match app.store().incidents(None, None, INCIDENTS_LOOKED_AT).await {
            Ok(incidents) => {
                let now = incidents.iter().map(|incident| (incident.id.0.clone(), incident.updated_at)).collect();
                let changed = differing(self.incidents.as_ref(), &now);
                if !changed.is_empty() {
                    let incidents = incidents.into_iter().filter(|incident| changed.contains(&incident.id.0)).collect();
                    told.push(Told::Incidents { incidents });
                }
                self.incidents = Some(now);
            }
            Err(error) => tracing::warn!(%error, "the incidents could not be looked at for changes"),
        }
        told
    }
}

/// Keys that are new, gone or different; none at the first look.
fn differing<K: Clone + Ord, V: PartialEq>(before: Option<&BTreeMap<K, V>>, now: &BTreeMap<K, V>) -> Vec<K> {
    let Some(before) = before else { return vec![] };
    let gone = before.keys().filter(|key| !now.contains_key(key));
    let changed = now.iter().filter(|(key, value)| before.get(key) != Some(value)).map(|(key, _)| key);
    gone.chain(changed).cloned().collect()
}

/// A node without what changes all the time.
fn fingerprint(node: &crate::fabric::NodeView) -> u64 {
    let mut still = node.clone();
    still.last_seen = None;
    still.clock_skew_ms = None;
    still.telemetry = crate::fabric::TelemetryView::default();
    let json = serde_json::to_vec(&still).unwrap_or_default();
    let hash = blake3::hash(&json);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default())
}

/// A risk without its time: an evaluation that says the same again is no news.
fn risk_print(risk: &SubjectRisk) -> String {
    let mut still = risk.clone();
    still.at = None;
    still.decision = None;
    serde_json::to_string(&still).unwrap_or_default()
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct StreamParams {
    /// `<kind>/<id>` of the subjects whose newest samples are wanted, with commas between them. At most 16.
    subjects: Option<String>,
}

/// What changes, as server-sent events. Sign in with a cookie, because an `EventSource` cannot send headers.
#[utoipa::path(get, path = "/events", tag = "events", operation_id = "streamEvents", params(StreamParams),
    responses((status = 200, body = Told, content_type = "text/event-stream"), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn events(
    State(app): State<App>,
    headers: HeaderMap,
    principal: crate::auth::Principal,
    Params(params): Params<StreamParams>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Error> {
    let subjects = params.subjects.as_deref().unwrap_or_default().split(',').filter(|text| !text.is_empty());
    let subjects = subjects.map(super::fleet::subject).collect::<Result<Vec<_>, _>>()?;
    if subjects.len() > SUBJECTS_MAXIMUM {
        let reason = format!("at most {SUBJECTS_MAXIMUM} subjects can be followed by one stream");
        return Err(Error::Parameter { name: "subjects".into(), reason });
    }
    let permit =
        Arc::clone(&app.0.events.streams).try_acquire_owned().map_err(|_| Error::Streams { limit: STREAMS_MAXIMUM })?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let session = HelloSession { name: principal.name, rank: principal.rank };
    let hello = Told::Hello { session, now: clock::now() };
    // The channel is new and empty.
    let _ = sender.try_send(Ok(hello.framed()));
    let changes = app.0.events.changes.subscribe();
    let tasks = app.0.parts.tasks.clone();
    tasks.spawn(Pump { app, headers, subjects, sender, changes, _permit: permit }.run());
    Ok(Sse::new(ReceiverStream::new(receiver)))
}

/// One stream.
struct Pump {
    app: App,
    headers: HeaderMap,
    subjects: Vec<SubjectRef>,
    sender: mpsc::Sender<Result<Event, Infallible>>,
    changes: broadcast::Receiver<Arc<Told>>,
    _permit: OwnedSemaphorePermit,
}

impl Pump {
    async fn run(mut self) {
        let reason = self.pump().await;
        if let Some(reason) = reason {
            metrics::counter!("aether_event_streams_closed_total").increment(1);
            // A listener that does not read gets no farewell either; one that reads slowly does.
            let _ = tokio::time::timeout(LOOK_EVERY, self.sender.send(Ok(Told::Closed { reason }.framed()))).await;
        }
    }

    /// Until the listener is gone (none) or has to go (with the reason).
    async fn pump(&mut self) -> Option<String> {
        let stop = self.app.0.parts.stop.clone();
        let mut tick = tokio::time::interval(LOOK_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut heartbeat = tokio::time::interval(HEARTBEAT_EVERY);
        heartbeat.tick().await;
        let mut told: BTreeMap<SeriesKey, Time> = BTreeMap::new();
        loop {
            let next = tokio::select! {
                () = stop.cancelled() => return Some("the host stops".into()),
                () = self.sender.closed() => return None,
                change = self.changes.recv() => match change {
                    Ok(change) => change.framed(),
                    Err(broadcast::error::RecvError::Lagged(missed)) => {
                        return Some(format!("this stream did not keep up and missed {missed} events"));
                    }
                    Err(broadcast::error::RecvError::Closed) => return Some("the host stops".into()),
                },
                _ = tick.tick(), if !self.subjects.is_empty() => match self.telemetry(&mut told) {
                    Some(event) => event.framed(),
                    None => continue,
                },
                _ = heartbeat.tick() => {
                    // A token may have been deleted, a session may be over.
                    match authenticate(&self.app, &self.headers).await {
                        Ok(_) => Told::Heartbeat { now: clock::now() }.framed(),
                        Err(Error::BadToken | Error::Unauthenticated) => return Some("your sign-in is over".into()),
                        Err(_) => continue,
                    }
                }
            };
            // Full: the listener is slow. What it misses shows when the changes lag; a tick is no loss.
            match self.sender.try_send(Ok(next)) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(next)) => {
                    if tokio::time::timeout(HEARTBEAT_EVERY, self.sender.send(next)).await.is_err() {
                        return Some("this stream did not keep up".into());
                    }
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return None,
            }
        }
    }

    /// Newest samples that were not told yet.
    fn telemetry(&self, told: &mut BTreeMap<SeriesKey, Time>) -> Option<Told> {
        let mut fresh = Vec::new();
        for subject in &self.subjects {
            for info in self.app.recorder().series(Some(subject)) {
                if told.get(&info.key).is_some_and(|at| *at >= info.last) || fresh.len() >= SERIES_MAXIMUM {
                    continue;
                }
                let latest = self.app.recorder().latest(subject, &info.key.metric);
                for (key, sample) in latest {
                    if key == info.key && sample.value.is_finite() {
                        told.insert(key.clone(), sample.at);
                        fresh.push(LatestSample { key, sample });
                    }
                }
            }
        }
        (!fresh.is_empty()).then_some(Told::Telemetry { series: fresh })
    }
}

#[cfg(test)]
mod tests {
    use super::differing;
    use std::collections::BTreeMap;

    #[test]
    fn what_is_new_gone_or_different_is_told_and_the_first_look_tells_nothing() {
        let before = BTreeMap::from([("a", 1), ("b", 1), ("c", 1)]);
        let now = BTreeMap::from([("a", 1), ("b", 2), ("d", 1)]);
        assert_eq!(differing(Some(&before), &now), ["c", "b", "d"]);
        assert_eq!(differing(None, &now), Vec::<&str>::new());
    }
}
