//! Signals of a feeder: what a market or a provider says of a node. They become ordinary series and events of the
//! recorder, with who sent them; a drill comes the same way and only says its name besides.

use super::{
    App, BODY_LIMIT_BYTES, Error, Problem,
    extract::Body,
    fleet::{CLEARED, DRILL, STATE},
    view::{NoticeKind, Signals, SignalsTaken},
};
use crate::{auth::Principal, clock, store::audit::ActOutcome};
use aether_core::{
    id::{NodeId, is_name},
    metric,
    subject::SubjectRef,
    telemetry::{Batch, DiscreteEvent, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::Rejected;
use axum::{Json, extract::State};
use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// The origin of signals in the recorder.
const ORIGIN: &str = "signals";
/// The attribute that names who sent a signal.
const SOURCE: &str = "source";
const PRICES_MAXIMUM: usize = 1_000;
const NOTICES_MAXIMUM: usize = 100;
/// How old and how early a signal may be.
const PAST_MS: u64 = 3_600_000;
const AHEAD_MS: u64 = 60_000;
/// Nobody rents a machine for more; a larger number is in another unit.
const PRICE_MAXIMUM: f64 = 100_000.0;
const _: () = assert!(BODY_LIMIT_BYTES > 64 * (PRICES_MAXIMUM + NOTICES_MAXIMUM), "a full request must fit");

/// Numbers the batches of signals. The epoch is the start of this process: a batch is never taken for an earlier one.
#[derive(Debug)]
pub(super) struct Feeder {
    epoch: u64,
    sequence: Mutex<u64>,
}

impl Feeder {
    pub(super) fn new(now: Time) -> Self {
        Self { epoch: u64::try_from(now.0).unwrap_or_default(), sequence: Mutex::new(0) }
    }
}

/// Tell what a market or a provider says of a node.
#[utoipa::path(post, path = "/signals", tag = "telemetry", operation_id = "postSignals", request_body = Signals,
    responses((status = 200, body = SignalsTaken), (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")))]
pub(super) async fn post(
    State(app): State<App>,
    principal: Principal,
    Body(signals): Body<Signals>,
) -> Result<Json<SignalsTaken>, Error> {
    let now = clock::now();
    app.node(signals.node.as_str())?;
    let (series, events) = converted(&signals, &principal, now).map_err(Error::Signals)?;
    let taken = SignalsTaken {
        samples: series.iter().map(|series| u32::try_from(series.samples.len()).unwrap_or(u32::MAX)).sum(),
        events: u32::try_from(events.len()).unwrap_or(u32::MAX),
    };
    app.append(series, events, now)?;
    let mut detail = BTreeMap::from([
        ("samples".to_owned(), taken.samples.to_string()),
        ("events".to_owned(), taken.events.to_string()),
    ]);
    let action = match signals.drill {
        Some(drill) => {
            detail.insert(DRILL.into(), drill);
            "drill.signals"
        }
        None => "signals.post",
    };
    app.audit(&principal, action, format!("node/{}", signals.node), ActOutcome::Done, detail).await?;
    Ok(Json(taken))
}

impl App {
    fn append(&self, series: Vec<SeriesSamples>, events: Vec<DiscreteEvent>, now: Time) -> Result<(), Error> {
        let feeder = &self.0.signals;
        let mut sequence = feeder.sequence.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = NodeId::new(ORIGIN);
        let batch = Batch { origin, epoch: feeder.epoch, sequence: *sequence + 1, series: series.into(), events };
        match self.recorder().append(batch, now) {
            Ok(_) => {
                *sequence += 1;
                Ok(())
            }
            Err(Rejected::Full { .. }) => Err(Error::Full),
            Err(Rejected::Malformed { text, .. }) => {
                // The recorder counts the sequence of a malformed batch as settled.
                *sequence += 1;
                Err(Error::Signals(text))
            }
        }
    }
}

fn converted(
    signals: &Signals,
    principal: &Principal,
    now: Time,
) -> Result<(Vec<SeriesSamples>, Vec<DiscreteEvent>), String> {
    let Signals { node, drill, prices, notices } = signals;
    if prices.is_empty() && notices.is_empty() {
        return Err("there is neither a price nor a notice in it".into());
    }
    if prices.len() > PRICES_MAXIMUM || notices.len() > NOTICES_MAXIMUM {
        return Err(format!("at most {PRICES_MAXIMUM} prices and {NOTICES_MAXIMUM} notices fit into one request"));
    }
    if drill.as_ref().is_some_and(|drill| !is_name(drill)) {
        return Err("`drill` must be 1 to 63 of a-z, 0-9, `-` and `.`".into());
    }
    let at = |what: &str, at: Option<Time>| {
        let at = at.unwrap_or(now);
        if at < now.minus_ms(PAST_MS) || at > now.plus_ms(AHEAD_MS) {
            return Err(format!(
                "{what} is of {} while the host's clock says {}: more than an hour ago or a minute ahead",
                at.0, now.0
            ));
        }
        Ok(at)
    };
    let mut attributes = BTreeMap::from([(SOURCE.to_owned(), principal.id.0.clone())]);
    if let Some(drill) = drill {
        attributes.insert(DRILL.into(), drill.clone());
    }
    let subject = SubjectRef::node(node.as_str());
    let mut samples: Vec<Sample> = Vec::with_capacity(prices.len());
    for price in prices {
        let value = price.usd_per_hour;
        if !(0.0..=PRICE_MAXIMUM).contains(&value) {
            return Err(format!("a price of {value} is not between 0 and {PRICE_MAXIMUM} USD an hour"));
        }
        let at = at("a price", price.at)?;
        if samples.last().is_some_and(|last| last.at >= at) {
            return Err("the prices are not in order of time, or two are of the same time".into());
        }
        samples.push(Sample { at, value });
    }
    let mut events = Vec::with_capacity(notices.len());
    for notice in notices {
        let mut attributes = attributes.clone();
        let name = match notice.kind {
            NoticeKind::Rebalance => metric::MARKET_REBALANCE,
            NoticeKind::RebalanceCleared => {
                attributes.insert(STATE.into(), CLEARED.into());
                metric::MARKET_REBALANCE
            }
            NoticeKind::Termination => metric::MARKET_TERMINATION,
        };
        match (notice.kind, notice.deadline) {
            (NoticeKind::Termination, Some(deadline)) => {
                attributes.insert("deadline".into(), deadline.0.to_string());
            }
            (NoticeKind::Termination, None) => return Err("a termination needs its `deadline`".into()),
            (NoticeKind::Rebalance | NoticeKind::RebalanceCleared, Some(_)) => {
                return Err("a rebalance notice has no `deadline`".into());
            }
            (NoticeKind::Rebalance | NoticeKind::RebalanceCleared, None) => {}
        }
        let at = at("a notice", notice.at)?;
        events.push(DiscreteEvent { subject: subject.clone(), name: name.into(), at, attributes });
    }
    let series = if samples.is_empty() {
        vec![]
    } else {
        let key = SeriesKey { subject, metric: metric::MARKET_PRICE.into(), unit: "{USD}/h".into(), attributes };
        vec![SeriesSamples { key: key.into(), samples: samples.into() }]
    };
    Ok((series, events))
}
