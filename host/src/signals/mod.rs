//! Signals that the host fetches itself: market prices and the carbon intensity of a grid, from services that answer as
//! [`aether_core::signal`] knows. They become ordinary series, with whence they come.
//!
//! Each feed has a task of its own. One that does not answer is asked again at its interval; what was said last is never
//! said again in its stead, so that a gap is a gap.

mod settings;

pub use settings::{Feed, Format, Login, Settings, Wrong};

use crate::{clock, outbound};
use aether_core::{
    id::NodeId,
    metric,
    signal::{self, Carbon},
    subject::{SubjectKind, SubjectRef},
    telemetry::{Batch, Sample, SeriesKey, SeriesSamples},
    time::Time,
};
use aether_recorder::{Recorder, Rejected};
use metrics::counter;
use reqwest::Client;
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::MissedTickBehavior;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Questions by `feed` and `result`: `ok`, `failed`.
const ASKED: &str = "aether_signals_feed_requests_total";
/// The origin of these signals in the recorder.
const ORIGIN: &str = "feeds";
const ANSWER_BYTES: usize = 4 << 20;
/// How far ahead of now a forecast is kept.
const AHEAD: [(&str, u64); 3] = [("1h", 3_600_000), ("6h", 21_600_000), ("24h", 86_400_000)];

/// Begins to ask all feeds.
pub fn start(
    settings: &Settings,
    recorder: &Recorder,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), reqwest::Error> {
    let numbers = Arc::new(Numbers { epoch: u64::try_from(clock::now().0).unwrap_or_default(), last: Mutex::new(0) });
    for feed in &settings.feeds {
        let asking = Asking {
            client: outbound::client(feed.timeout_ms)?,
            feed: feed.clone(),
            recorder: recorder.clone(),
            numbers: numbers.clone(),
            newest: None,
        };
        tasks.spawn(asking.run(stop.clone()));
    }
    Ok(())
}

/// Numbers the batches. The epoch is the start of this process: a batch is never taken for an earlier one.
struct Numbers {
    epoch: u64,
    last: Mutex<u64>,
}

struct Asking {
    feed: Feed,
    client: Client,
    recorder: Recorder,
    numbers: Arc<Numbers>,
    /// The newest time of what was said.
    newest: Option<Time>,
}

impl Asking {
    async fn run(mut self, stop: CancellationToken) {
        let mut due = tokio::time::interval(Duration::from_millis(self.feed.interval_ms));
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = due.tick() => {}
            }
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                asked = self.ask() => asked,
            };
            let now = clock::now();
            let done = asked.and_then(|text| self.series(&text, now)).and_then(|series| self.append(series, now));
            let result = if done.is_ok() { "ok" } else { "failed" };
            counter!(ASKED, "feed" => self.feed.name.clone(), "result" => result).increment(1);
            if let Err(reason) = done {
                tracing::warn!(feed = self.feed.name, reason, "a feed of signals tells nothing; it is asked again");
            }
        }
    }

    async fn ask(&self) -> Result<String, String> {
        let mut headers = outbound::headers(&self.feed.headers, &self.feed.header_files).await?;
        if let Some(Login { url, user, password_file }) = &self.feed.login {
            #[derive(Deserialize)]
            struct Session {
                token: String,
            }
            let password = outbound::secret(password_file).await?;
            let text = self.text(self.client.get(url).basic_auth(user, Some(password))).await?;
            let session: Session = serde_json::from_str(&text).map_err(|error| format!("the sign-in: {error}"))?;
            outbound::add(&mut headers, "authorization", &format!("Bearer {}", session.token), true)?;
        }
        self.text(self.client.get(&self.feed.url).headers(headers)).await
    }

    async fn text(&self, request: reqwest::RequestBuilder) -> Result<String, String> {
        // The text of an error may name the URL, which may hold a secret.
        let said = |error: reqwest::Error| error.without_url().to_string();
        let mut answer = request.send().await.map_err(said)?;
        let status = answer.status();
        let (body, cut) = outbound::body(&mut answer, ANSWER_BYTES).await.map_err(said)?;
        if !status.is_success() {
            return Err(format!("it answers {status}"));
        }
        if cut {
            return Err(format!("the answer has more than {ANSWER_BYTES} bytes"));
        }
        String::from_utf8(body).map_err(|_| "the answer is no text".to_owned())
    }

    /// What is new in an answer.
    fn series(&mut self, text: &str, now: Time) -> Result<Vec<SeriesSamples>, String> {
        let said = |error: signal::Error| error.to_string();
        match self.feed.format {
            Format::AwsSpotPriceHistory => {
                let prices = signal::spot_price_history(text).map_err(said)?;
                // A price stands until there is another.
                let price = prices.last().ok_or("there is no price in it")?.1;
                Ok(self.price("aws.spot-price-history", price, now))
            }
            Format::AzureRetailPrices => {
                let price = signal::azure_retail_prices(text).map_err(said)?.ok_or("there is no spot price in it")?;
                Ok(self.price("azure.retail-prices", price, now))
            }
            Format::ElectricityMaps => Ok(self.carbon(signal::electricity_maps(text).map_err(said)?)),
            Format::Watttime => Ok(self.carbon(signal::watttime(text).map_err(said)?)),
            Format::WatttimeForecast => Ok(self.forecast(&signal::watttime(text).map_err(said)?, now)),
        }
    }

    fn price(&self, source: &str, value: f64, now: Time) -> Vec<SeriesSamples> {
        let attributes =
            BTreeMap::from([("source".to_owned(), source.to_owned()), ("feed".to_owned(), self.feed.name.clone())]);
        let samples = vec![Sample { at: now, value }];
        self.nodes().map(|node| one(node, metric::MARKET_PRICE, "{USD}/h", &attributes, &samples)).collect()
    }

    fn carbon(&mut self, carbon: Carbon) -> Vec<SeriesSamples> {
        let newer = |at: &Time| self.newest.is_none_or(|newest| *at > newest);
        let samples: Vec<Sample> = carbon
            .points
            .iter()
            .filter(|(at, _)| newer(at))
            .map(|(at, value)| Sample { at: *at, value: *value })
            .collect();
        if samples.is_empty() {
            return vec![];
        }
        self.newest = samples.last().map(|sample| sample.at);
        self.of_grid(&carbon, metric::CARBON_INTENSITY, None, &samples)
    }

    /// The times of a forecast lie ahead, where the recorder takes none: what is foretold now of so much later.
    fn forecast(&self, carbon: &Carbon, now: Time) -> Vec<SeriesSamples> {
        let foretold = AHEAD.iter().filter_map(|(name, ahead)| {
            let (_, value) = carbon.points.iter().find(|(at, _)| *at >= now.plus_ms(*ahead))?;
            Some((*name, vec![Sample { at: now, value: *value }]))
        });
        foretold
            .flat_map(|(ahead, samples)| self.of_grid(carbon, metric::CARBON_FORECAST, Some(ahead), &samples))
            .collect()
    }

    /// Of the grid, and of each node that draws from it.
    fn of_grid(&self, carbon: &Carbon, name: &str, ahead: Option<&str>, samples: &[Sample]) -> Vec<SeriesSamples> {
        let mut attributes = carbon.said.clone();
        attributes.insert("zone".into(), carbon.zone.clone());
        attributes.insert("feed".into(), self.feed.name.clone());
        attributes.extend(ahead.map(|ahead| ("ahead".to_owned(), ahead.to_owned())));
        let sane = |c: char| if c.is_ascii_alphanumeric() || "-._".contains(c) { c } else { '_' };
        let zone: String = carbon.zone.chars().map(sane).take(80).collect();
        let grid = SubjectRef { kind: SubjectKind::Participant, id: format!("grid/{zone}") };
        let subjects = [grid].into_iter().chain(self.nodes());
        subjects.map(|subject| one(subject, name, carbon.unit, &attributes, samples)).collect()
    }

    fn nodes(&self) -> impl Iterator<Item = SubjectRef> + '_ {
        self.feed.nodes.iter().map(|node| SubjectRef::node(node.as_str()))
    }

    fn append(&self, series: Vec<SeriesSamples>, now: Time) -> Result<(), String> {
        if series.is_empty() {
            return Ok(());
        }
        let mut last = self.numbers.last.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = NodeId::new(ORIGIN);
        let batch =
            Batch { origin, epoch: self.numbers.epoch, sequence: *last + 1, series: series.into(), events: vec![] };
        match self.recorder.append(batch, now) {
            Ok(_) => {
                *last += 1;
                Ok(())
            }
            Err(error @ Rejected::Full { .. }) => Err(error.to_string()),
            Err(error @ Rejected::Malformed { .. }) => {
                // The recorder counts the sequence of a malformed batch as settled.
                *last += 1;
                Err(error.to_string())
            }
        }
    }
}

fn one(
    subject: SubjectRef,
    metric: &str,
    unit: &str,
    attributes: &BTreeMap<String, String>,
    samples: &[Sample],
) -> SeriesSamples {
    let key = SeriesKey { subject, metric: metric.into(), unit: unit.into(), attributes: attributes.clone() };
    SeriesSamples { key: key.into(), samples: samples.into() }
}
